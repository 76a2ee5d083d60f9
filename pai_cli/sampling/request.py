"""What to search for, and what is asked of each candidate."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from pai_cli.data.fingerprint import digest_of
from pai_cli.errors import MethodOptionError
from pai_cli.pruning.request import PruneRequest
from pai_cli.random import numbered_generator, numbered_seed
from pai_cli.ranking.expression import Score, score_of
from pai_cli.refusals import Idle, refuse
from pai_cli.spectral.catalogue import BETWEEN, METRIC_VERSION, METRICS, PATHS, RANKED
from pai_cli.spectral.conventions import Convention
from pai_cli.spelling import option

if TYPE_CHECKING:
    from pai_cli.data.base import Dataset
    from pai_cli.models.network import Network

Select = Literal["mask", "layer"]
NoiseUnit = Literal["layer", "weight"]
"""What noise of size 1 is: the standard deviation of the layer's weights, or a weight of 1."""
USUAL_NOISE = 0.1
"""Of the layer's standard deviation."""
USUAL_BY = "l2"
SHOWN = (USUAL_BY, "dr_imdb", "lambda_imsg")

_DIFFER = "so its candidates differ by their"
IDLE = (
    Idle(
        ("by",),
        f"{{value}}: is of whole masks, and {option('select', 'layer')} takes layers; leave one out",
        where=lambda call: call.select == "layer",
    ),
    Idle(
        ("noise", "noise_unit"),
        f"{{value}}: {{method.name}} scores with samples, {_DIFFER} samples; leave {{it}} out",
        where=lambda call: call.method.data and not call.method.trains,
    ),
    Idle(
        ("noise", "noise_unit"),
        f"{{value}}: {{method.name}} draws at random, {_DIFFER} seeds; leave {{it}} out",
        where=lambda call: call.method.draws and not call.method.data,
    ),
    Idle(
        ("noise_unit",),
        f"{{value}}: {option('noise', 0)} adds nothing in any unit; leave {{it}} out",
        where=lambda call: call.noise == 0,
    ),
)


@dataclass(frozen=True)
class SearchRequest:
    """What to search for.

    `prune`: the method, density and seed of candidate 0. `population`: how many candidates. `noise`: standard deviation of
    what is added to the weights of a method that draws neither numbers nor samples, in `noise_unit`: "layer", relative to
    each layer's own, or "weight", as it stands.
    `select`: whether whole masks are taken, or layers. `by`: what a mask must have the best of, a metric or arithmetic of
    several. `convention`: what candidates are measured by. `engine`: the device where they are, which is no setting of the
    search.
    """

    prune: PruneRequest
    population: int
    noise: float
    select: Select = "mask"
    by: str = USUAL_BY
    convention: Convention = Convention.H23
    engine: str = "cpu"
    noise_unit: NoiseUnit = "layer"

    @staticmethod
    def of(
        request: PruneRequest,
        population: int,
        noise: float | None,
        select: Select = "mask",
        by: str = USUAL_BY,
        *,
        noise_unit: NoiseUnit | None = None,
        convention: Convention = Convention.H23,
    ) -> SearchRequest:
        """The request with the noise asked for, or the usual 0.1 of each layer's own; none for a method that draws, numbers
        or samples.

        Raises `UnknownMetricError` or `CompositeError` for what is neither a metric nor arithmetic of them,
        `MethodOptionError` for a method that trains, when noise is asked for that would do nothing or in a unit without
        its size, and for layers that would be taken by a measure of the whole network.
        """
        method, by = request.method, score_of(by, RANKED).name
        asked = {"select": select, "by": by, "noise": noise, "noise_unit": noise_unit, "method": method}
        refuse(SearchRequest.of, IDLE, asked, MethodOptionError)
        if method.trains:
            raise MethodOptionError(
                f"{option('method', method.name)}: trains, and would for every candidate; take its one mask from pai "
                "prune"
            )
        if method.draws:
            return SearchRequest(request, population, 0.0, select, by, convention)
        if noise is None and noise_unit == "weight":
            raise MethodOptionError(
                f"{option('noise_unit', noise_unit)}: give {option('noise')} too, as its default, {USUAL_NOISE}, is of each "
                "layer's own"
            )
        noise = USUAL_NOISE if noise is None else noise
        return SearchRequest(request, population, noise, select, by, convention, noise_unit=noise_unit or "layer")

    @property
    def shown(self) -> tuple[str, ...]:
        """The measures of each candidate."""
        return tuple(dict.fromkeys((*SHOWN, self.by, *self.score.metrics)))

    @property
    def score(self) -> Score:
        """What `by` says: of which metrics, and which way is better."""
        return score_of(self.by, RANKED)

    @property
    def of_layers(self) -> tuple[str, ...]:
        """What is measured of each layer."""
        return tuple(dict.fromkeys((*SHOWN, *(name for name in self.score.metrics if name in METRICS))))

    @property
    def of_whole(self) -> tuple[str, ...]:
        """What is measured of the network as a whole: of its paths, and between its layers."""
        return tuple(name for name in self.score.metrics if name in PATHS or name in BETWEEN)

    def settings(
        self, source_sha256: str, network: Network | None = None, dataset: Dataset | None = None
    ) -> dict[str, Any]:
        """What must be the same for a search to be continued: everything but how many candidates, and the device.

        `network`: that of the checkpoint; `dataset`: of a method with data, whose contents are compared.
        """
        settings = {**self.prune.facts(), "noise": self.noise, "select": self.select, "source_sha256": source_sha256}
        settings["network"] = None if network is None else network.description
        settings["data_sha256"] = None if dataset is None else digest_of([dataset])
        settings |= {"metrics": METRIC_VERSION, "convention": self.convention.value, "by": self.by}
        return settings | ({} if self.prune.method.draws else {"noise_unit": self.noise_unit})

    def of_candidate(self, number: int) -> PruneRequest:
        """What is asked of candidate `number`: of one that draws, with a seed of its own."""
        if number == 0 or not self.prune.method.draws:
            return self.prune
        return replace(self.prune, seed=numbered_seed(self.prune.seed, number))

    def noise_of(self, number: int) -> np.random.Generator | None:
        """What draws the noise on the weights of candidate `number`; None where it has none."""
        if number == 0 or self.prune.method.draws:
            return None
        return numbered_generator(self.prune.seed, number)
