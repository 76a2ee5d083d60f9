"""`sample`: the best connected of many masks of one method, or a mask that is built."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pai_cli.api.inputs import (
    AnyPath,
    Shape,
    Source,
    amount_of,
    file_beside,
    maybe_path,
    network_of,
    open_source,
    rounds_of,
    shape_of,
    source_path,
    tell_network,
)
from pai_cli.api.masks import Mask
from pai_cli.api.plans import Reads, plan_sampling
from pai_cli.api.progress import Wanted, shown_by
from pai_cli.api.ranges import takes_numpy
from pai_cli.api.requests import IDLE_NORMALISE, accept, method_of, request_of, samples_of, story_of, tell_pruning
from pai_cli.api.working import check_cluster
from pai_cli.compute.device import ON_TORCH
from pai_cli.errors import CompositeError, UnknownMetricError, UsageError
from pai_cli.files.provenance import typed
from pai_cli.refusals import Idle, idle_force, idle_packed, refuse
from pai_cli.spectral.catalogue import RANKED
from pai_cli.spectral.conventions import Convention
from pai_cli.spectral.parameters import one_of, shown
from pai_cli.spelling import option
from pai_cli.telling import note, warn

if TYPE_CHECKING:
    from pai_cli.data.base import Dataset
    from pai_cli.files.checkpoints import Checkpoint
    from pai_cli.files.tables import Record
    from pai_cli.models.network import Network
    from pai_cli.progress import Progress
    from pai_cli.pruning.base import Method
    from pai_cli.pruning.request import PruneRequest
    from pai_cli.pruning.run import PruneResult
    from pai_cli.sampling.expanders.network import BuiltNetwork
    from pai_cli.sampling.request import NoiseUnit, Select
    from pai_cli.sampling.search import SearchRequest, SearchResult
    from pai_cli.sampling.workers import Workers

SELECTS = ("mask", "layer")
NOISE_UNITS: tuple[NoiseUnit, ...] = ("layer", "weight")
CONSTRUCTIONS = ("biregular", "ramanujan")


class Sampled(Mask):
    """The mask that a search took or that was built.

    `search`: the result of a search, and `candidates`: its trajectory, a row each. `built`: the layers that were built. What
    does not apply is None.
    """

    search: SearchResult | None = None
    candidates: list[Record] | None = None
    built: BuiltNetwork | None = None


@takes_numpy
def sample(
    checkpoint: Source,
    method: str | Method | None = None,
    population: int | None = None,
    *,
    density: float | None = None,
    sparsity: float | str | None = None,
    output: AnyPath | None = None,
    select: str | None = None,
    by: str | None = None,
    convention: str | None = None,
    construct: str | None = None,
    steps: int | None = None,
    noise: float | None = None,
    noise_unit: str | None = None,
    trajectory: AnyPath | None = None,
    resume: bool = False,
    scope: str | None = None,
    seed: int = 0,
    rounds: int | str | None = None,
    data: Any = None,
    per_class: int | None = None,
    normalise: bool = False,
    batch_norm: str | None = None,
    ties: str | None = None,
    pattern: str | tuple[int, int] | None = None,
    densities: Any = None,
    ignore: str | list[str] | None = None,
    model: str | None = None,
    input_shape: Shape | None = None,
    device: str = "auto",
    jobs: int | None = None,
    cluster: str | None = None,
    packed: bool = False,
    force: bool = False,
    trust: bool = False,
    plot: AnyPath | None = None,
    progress: Wanted = None,
) -> Sampled:
    """Take the best connected of many masks of one method, or build one (Hoang et al., NeurIPS 2023, PAGS).

    A search measures `population` masks of `method`: the method's own, then others from fresh seeds, samples, or weights
    with `noise`, a standard deviation in `noise_unit`: "layer", relative to each layer's own (the default, 0.1 then), or
    "weight", as it stands, which must be given. `select`: "mask" takes a candidate
    whose network l2 is the largest so far; "layer" takes its layers whose dr_imdb and l2 are both at least the best so far,
    brought back to the exact count. `by`: what a whole mask must have the best of instead of "l2": any metric, such as
    "effective_share", which way its catalogue says, or arithmetic of several, such as "dr_imdb + l2" or "-lambda", the
    larger the better. `convention`: what candidates are measured by, as
    of `analyze`; "h23" by default. `construct`: "biregular" or "ramanujan" builds layers instead, at ERK's densities;
    `steps`: the most switches of edges a layer, 200 by default.

    `output`: where to write the mask; the search's lines go beside it, or to `trajectory`, and an interrupted search goes on
    with `resume`. Without an output nothing stays on disk. `jobs`: processes of this machine; `cluster`: a Dask scheduler's
    address, or "slurm". `plot`: a picture of the search. The others are those of `prune`.

    Raises what `prune` raises, `ResumeError`, `WorkerLostError`, `ClusterError`, and `PictureError`.
    """
    given = dict(locals())
    check_search(given)
    amount, shape = amount_of(density, sparsity, pattern, densities), shape_of(input_shape)
    path, picture = maybe_path(output), maybe_path(plot)
    in_rounds = rounds_of(rounds)
    chosen = method_of("erk" if construct else method)  # whose densities are built
    named, samples = samples_of(data, normalise=normalise)
    if picture is not None:
        from pai_cli.display.figures.canvas import check_picture

        check_picture(picture)
    with ExitStack() as rooms:
        where = path or Path(rooms.enter_context(tempfile.TemporaryDirectory())) / "best.safetensors"
        reads = Reads(source_path(checkpoint), model, named, _file(densities))
        lines = maybe_path(trajectory)
        plan_sampling(reads, where, lines, picture, searches=construct is None, resume=resume, force=force)
        source = open_source(checkpoint, trust=trust)
        network = network_of(source, model, shape, weights_suffice=chosen.in_pieces is not None)
        request = request_of(chosen, amount, given, rounds=in_rounds, input_shape=shape, data=named)
        run = _Run(source, network, request, _workers(jobs, cluster, model), path, packed, force)
        if construct is not None:
            with shown_by(progress, construct) as bar:
                return run.built(construct, steps, bar)
        assert population is not None  # as check_search sees to
        from pai_cli.sampling.request import USUAL_BY
        from pai_cli.sampling.search import SearchRequest

        taken: Select = "layer" if select == "layer" else "mask"
        whose = Convention(convention or Convention.H23)
        unit = None if noise_unit is None else one_of("noise_unit", noise_unit, NOISE_UNITS)
        search_request = SearchRequest.of(
            request, population, noise, taken, by or USUAL_BY, noise_unit=unit, convention=whose
        )
        search_request = replace(search_request, engine=ON_TORCH if device == ON_TORCH else request.device)
        with shown_by(progress, "sampling") as bar:
            found = run.searched(search_request, _Files(where, lines, resume), samples, bar)
        if picture is not None:
            from pai_cli.display.figures.trajectory import plot_trajectory

            assert found.candidates is not None
            plot_trajectory(found.candidates, picture, f"{chosen.name} at density {found.density:.6g}", force=force)
        return found


def default_output(given: Mapping[str, Any]) -> Path:
    """Where the command writes where nobody says: `NAME-METHOD-best-DENSITY.safetensors` in the current folder.

    `given`: the parameters of `sample`. Raises `UsageError`.
    """
    check_search(given)
    amount = amount_of(*(given[name] for name in ("density", "sparsity", "pattern", "densities")))
    return file_beside(given["checkpoint"], given["construct"] or f"{given['method']}-best", amount.label)


IDLE = (
    Idle(
        (
            *("method", "population", "select", "by", "noise", "noise_unit", "trajectory", "resume", "scope", "rounds"),
            *("data", "per_class", "batch_norm", "pattern", "plot", "ties", "convention"),
        ),
        f"{option('construct', '{construct}')}: builds a mask and searches for none; leave {{it}} out",
        beside=("construct",),
    ),
    Idle(
        ("steps",),
        f"{{it}}: only for {option('construct', 'ramanujan')}; leave it out",
        where=lambda call: call.construct != "ramanujan",
    ),
    IDLE_NORMALISE,
    idle_packed("output"),
    idle_force(f"{option('output')} too", "output", "trajectory", "plot"),
)


def check_search(given: Mapping[str, Any]) -> None:
    """Refuse a search without what it needs, and beside a construction what only a search has. `given`: all parameters.

    Raises `UsageError`.
    """
    construct = given["construct"]
    if construct is None:
        missing = [option(name) for name in ("method", "population") if given[name] is None]
        if missing:
            raise UsageError(f"give {' and '.join(missing)} to search, or {option('construct')} to build a mask")
        for name, choices in (
            ("select", SELECTS),
            ("noise_unit", NOISE_UNITS),
            ("convention", tuple(Convention)),
        ):
            if given[name] is not None:
                one_of(name, given[name], choices)
        _check_by(given["by"])
    else:
        one_of("construct", construct, CONSTRUCTIONS)
    refuse(sample, IDLE, given)
    for name in ("population", "steps"):
        _check_count(name, given[name])
    check_cluster(given["cluster"])


def _check_by(by: Any) -> None:
    from pai_cli.ranking.expression import score_of

    if by is None:
        return
    if not isinstance(by, str):
        raise UsageError(f"{option('by', shown(by))}: give a metric, or arithmetic of metrics, as text")
    try:
        score_of(by, RANKED)
    except (UnknownMetricError, CompositeError) as error:
        raise UsageError(error.text) from error


def _check_count(name: str, count: Any) -> None:
    if count is not None and (isinstance(count, bool) or not isinstance(count, int) or count < 1):
        raise UsageError(f"{option(name, shown(count))}: give a whole number of at least 1")


def _file(densities: Any) -> Path | None:
    return None if isinstance(densities, Mapping) else maybe_path(densities)


def _workers(jobs: int | None, cluster: str | None, model: str | None) -> Workers:
    from pai_cli.sampling.workers import Workers

    return Workers(jobs, cluster, model if model and ":" in model else None)


@dataclass(frozen=True)
class _Files:
    """Where a search is kept: beside the mask `where`, or in `lines`."""

    where: Path
    lines: Path | None
    resume: bool


@dataclass(frozen=True)
class _Run:
    """A network that is sampled, and where its mask goes."""

    source: Checkpoint
    network: Network
    request: PruneRequest
    workers: Workers
    path: Path | None
    packed: bool
    force: bool

    def searched(
        self, search_request: SearchRequest, files: _Files, samples: Dataset | None, progress: Progress
    ) -> Sampled:
        """Search, or go on, and write the best."""
        from pai_cli.sampling.search import search
        from pai_cli.sampling.state import open_search, wrote

        dataset = accept(self.source, self.network, self.request, samples)
        settings = search_request.settings(self.source.sha256, self.network, dataset)
        lines, state = open_search(files.where, files.lines, settings, resume=files.resume, force=self.force)
        population = search_request.population
        with lines.going(lambda: f"{state.done} of {population} candidates are done and kept"):
            result = search(self.network, search_request, lines, state, progress, dataset=dataset, workers=self.workers)
        tell_pruning(result.pruned, self.network, no_collapse=False, rule=self.request.ties)
        if result.measures[result.by] is None:
            by = option("by", shown(result.by))
            warn(f"{by}: missing for every candidate, so the first is taken; each one's reason says why")
        story = {**story_of(dataset, result.request, self.network), **result.story}
        force = self.force or (self.path is not None and wrote(lines, self.path))
        mask = self._write(result.pruned, self.request, story, force=force)
        if self.path is not None:
            note(f"wrote {self.path}: {mask.kept:,} of {mask.total:,} weights kept, density {mask.density:.6g}")
            extends = f"{lines.state_path} lets {option('resume')} extend the search"
            note(f"wrote {lines.path}: a line a candidate; {extends}")
        mask.search, mask.candidates = result, [*lines.read()]
        return mask

    def built(self, kind: str, steps: int | None, progress: Progress) -> Sampled:
        """Build every layer, and write the mask."""
        from pai_cli.analysis.masks import unanswered_told
        from pai_cli.sampling.expanders.layer import USUAL_STEPS, Construction
        from pai_cli.sampling.expanders.network import construct

        construction = Construction(
            "ramanujan" if kind == "ramanujan" else "biregular", self.request.seed, steps or USUAL_STEPS
        )
        tell_network(self.source, self.network)
        built = construct(self.network, self.request, construction, self.workers, progress)
        tell_pruning(built.pruned, self.network, no_collapse=False)
        mask = self._write(built.pruned, built.request, {"method": built.kind}, force=self.force)
        if unanswered := [layer.plan.name for layer in built.layers if not layer.after.answered]:
            warn(unanswered_told(unanswered))
        mask.built = built
        return mask

    def _write(self, pruned: PruneResult, request: PruneRequest, story: dict[str, str], *, force: bool) -> Sampled:
        from pai_cli.files.masks import write_mask
        from pai_cli.pruning.output import mask_to_write

        mask = mask_to_write(pruned, request, self.source, typed(), {**self.network.story, **story})
        if self.path is not None:
            write_mask(self.path, mask, packed=self.packed, force=force)
        made = Sampled(mask.masks, layouts=mask.layouts, metadata=mask.metadata, summary=pruned)
        made.path = self.path
        return made
