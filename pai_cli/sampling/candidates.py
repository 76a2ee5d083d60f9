"""One candidate of a search: made and measured, a function of the request and its number only.

So a search may stop and go on anywhere, and its candidates be made by any process in any order.
"""

from __future__ import annotations

import copy
import pickle
from dataclasses import dataclass, field
from threading import Lock
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from pai_cli.analysis.paths import controls_of
from pai_cli.data.fingerprint import digest_of
from pai_cli.data.images import ImageDataset
from pai_cli.errors import ClusterError, MethodOptionError, NotPortableError, ScoreError
from pai_cli.files.digest import sha256_of
from pai_cli.files.messages import one_line
from pai_cli.models.copies import one_torch_thread
from pai_cli.models.factory import load_factory
from pai_cli.models.factory_spec import parts_of
from pai_cli.pruning.base import Masks
from pai_cli.pruning.run import choose_masks
from pai_cli.pruning.ties import Tie, Ties
from pai_cli.sampling.measuring import LayerCache, WholeMeasures, measure, measures_of, whole_measures
from pai_cli.sampling.request import USUAL_BY, SearchRequest
from pai_cli.sampling.state import Measures
from pai_cli.spelling import option

if TYPE_CHECKING:
    from pai_cli.data.base import Dataset
    from pai_cli.models.network import Network
    from pai_cli.spectral.network import NetworkReport
    from pai_cli.spectral.result import Measure
    from pai_cli.spectral.table import LayerTable


@dataclass
class Workshop:
    """What every candidate of a search is made from; travels once to each process that makes some.

    `factory`: where the network's code is, when it is the user's own (`model`). `twin`: the network with noise on its
    weights, made when first needed. `cache`: layers measured in this process. `busy`: held by the thread that makes a
    candidate, as a cluster's worker may have several. `whole`: what measures the network as a whole, made when first needed.
    Pickling raises `NotPortableError` where the network's code cannot be had in another process.
    """

    network: Network
    request: SearchRequest
    dataset: Dataset | None = None
    factory: str | None = None
    twin: Network | None = None
    cache: LayerCache = field(default_factory=LayerCache)
    busy: Lock = field(default_factory=Lock)
    whole: WholeMeasures | None = None

    def __post_init__(self) -> None:
        """Measure of each layer what the request's `by` is made of."""
        self.cache.names = self.request.of_layers

    def check_whole(self) -> WholeMeasures:
        """What measures masks as a whole for the request's `by`, made when first needed. Raises as `whole_measures` does."""
        if self.whole is None:
            asked = self.request
            self.whole = whole_measures(self.network, asked.of_whole, asked.by, asked.prune.input_shape)
        return self.whole

    def __getstate__(self) -> dict[str, Any]:
        try:
            network = pickle.dumps(self.network)
        except Exception as error:  # whatever a module of the user's may raise
            raise _not_portable(error) from error
        own = {"network": network, "request": self.request, "dataset": self.dataset, "factory": self.factory}
        return {**own, "read": _read_by_name(self.dataset, self.factory)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        read = state.pop("read")
        for name, digest in _read_by_name(state["dataset"], state["factory"]).items():
            if read.get(name) != digest:
                raise ClusterError(
                    f"{name}: a worker finds other content there than this machine; copy it to all of them"
                )
        if state["factory"] is not None:
            load_factory(state["factory"])  # imports the user's own code, which the network's modules are of
        try:
            network = pickle.loads(state["network"])
        except Exception as error:
            raise _not_portable(error) from error
        self.__init__(**{**state, "network": network})  # type: ignore[misc]

    def noisy(self, generator: np.random.Generator) -> Network:
        """The network with Gaussian noise added to its prunable weights; the next call writes over it."""
        if self.twin is None:
            self.twin = copy.deepcopy(self.network)
        with torch.no_grad():
            for layer in self.network.layers:
                own, weight = self.network.parameter(layer.name), self.twin.parameter(layer.name)
                spread = float(own.double().std(correction=0)) if self.request.noise_unit == "layer" else 1.0
                draw = torch.from_numpy(generator.standard_normal(layer.shape)).to(weight.dtype)
                size = self.request.noise * spread
                if size <= torch.finfo(weight.dtype).max and weight.copy_(own).add_(draw, alpha=size).isfinite().all():
                    continue
                raise MethodOptionError(
                    f"{option('noise', f'{self.request.noise:g}')}: makes weights of {layer.name} infinite; give a "
                    "smaller one"
                )
        return self.twin


def _read_by_name(dataset: Dataset | None, factory: str | None) -> dict[str, str]:
    """Digests, by their names, of what every process reads for itself: images in files, a file of the user's code."""
    found = {dataset.name: digest_of([dataset])} if isinstance(dataset, ImageDataset) else {}
    code = None if factory is None else parts_of(factory).file
    return found if code is None or not code.is_file() else found | {str(code): sha256_of([code])}


def _not_portable(error: Exception) -> NotPortableError:
    return NotPortableError(
        f"the network cannot be sent to another process ({one_line(error)}); give {option('jobs', '1')}"
    )


@dataclass(frozen=True)
class Candidate:
    """A candidate's masks as packed bits by layer, how many rounds made them, the ties by layer, and how they measure.

    `layers`: what was measured of each. `l2_error`: the bound on the error of the network's l2; None when that is missing.
    """

    number: int
    bits: dict[str, np.ndarray]
    rounds: int
    ties: dict[str, Tie]
    measures: Measures
    l2_error: float | None
    kept: int
    layers: LayerTable

    @property
    def masks(self) -> Masks:
        """The masks, unpacked."""
        shapes = dict(zip(self.layers.names, self.layers.shapes, strict=True))
        return {
            name: np.unpackbits(bits, count=int(np.prod(shapes[name]))).astype(np.bool_).reshape(shapes[name])
            for name, bits in self.bits.items()
        }


@dataclass(frozen=True)
class Failure:
    """A candidate that the method could not make, and why: as certain as a mask, and not tried again."""

    number: int
    reason: str


def candidate(workshop: Workshop, number: int) -> Candidate | Failure:
    """Candidate `number`. Raises what `prune` raises, except that a `ScoreError` gives a `Failure`."""
    with workshop.busy, one_torch_thread():
        try:
            masks, rounds, ties = chosen(workshop, number)
        except ScoreError as error:
            return Failure(number, error.text)
        asked = workshop.request
        report = measure(workshop.network, masks, workshop.cache, asked.convention, asked.engine)
        more = {} if asked.by == USUAL_BY else _scored(workshop, masks, report)
    return Candidate(
        number=number,
        bits={name: np.packbits(mask) for name, mask in masks.items()},
        rounds=rounds,
        ties=ties,
        measures=measures_of(report, more),
        l2_error=report.measures["l2"].error,
        kept=report.kept,
        layers=report.layers,
    )


def _scored(workshop: Workshop, masks: Masks, report: NetworkReport) -> dict[str, Measure]:
    """What the request's `by` says of the masks, and then all that it is made of."""
    score = workshop.request.score
    found = {**report.measures, **controls_of(report)}
    if workshop.request.of_whole:
        found |= workshop.check_whole()(masks)
    return {score.name: score.measure(found), **{name: found[name] for name in score.metrics}}


def chosen(workshop: Workshop, number: int) -> tuple[Masks, int, dict[str, Tie]]:
    """The masks of candidate `number`, in how many rounds, and the ties that were settled, by layer."""
    request = workshop.request.of_candidate(number)
    noise = workshop.request.noise_of(number)
    ties = Ties(request.ties, request.seed)
    network = workshop.network if noise is None else workshop.noisy(noise)
    masks, rounds = choose_masks(network, request, dataset=workshop.dataset, ties=ties)
    return masks, rounds, ties.found
