"""How well connected masks are: what `pai analyze` does, for programs."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pai_cli.api.beside import Beside
from pai_cli.api.given import is_one, listed, named, opened, tell_twice
from pai_cli.api.inputs import (
    AnyPath,
    Shape,
    Source,
    globs_of,
    maybe_path,
    network_of,
    open_source,
    open_weights,
    shape_of,
    source_path,
    tell_left,
)
from pai_cli.api.placing import Placing
from pai_cli.api.plans import plan_measuring, read_masks
from pai_cli.api.progress import Wanted, shown_by
from pai_cli.api.ranges import takes_numpy
from pai_cli.api.remarks import UnmatchedGlobs, tell
from pai_cli.api.solving import solver_options
from pai_cli.api.unrolling import paths_of
from pai_cli.api.working import WORKING, Working
from pai_cli.compute.device import Device
from pai_cli.files.messages import some_names
from pai_cli.progress import Progress, silent
from pai_cli.refusals import Idle, idle_force, refuse
from pai_cli.spectral.conventions import Convention
from pai_cli.spectral.parameters import one_of
from pai_cli.spectral.solvers import Solver
from pai_cli.spelling import option
from pai_cli.telling import Repeated, note, warn

if TYPE_CHECKING:
    from pai_cli.analysis.junctions import BetweenRequest
    from pai_cli.analysis.masks import AnalysisRequest, MaskReport
    from pai_cli.api.report import JunctionReport, Report
    from pai_cli.display.report.analysis import AnalysisPictures
    from pai_cli.files.masks import Mask as Stored


_NOT_BETWEEN = (
    *("solver", "device_memory", "device", "certify", "convention", "expansion_weighted"),
    *("plot", "report", "force", "jobs", "cluster", "store", "no_store"),
)
IDLE = (
    Idle(
        _NOT_BETWEEN,
        f"{{it}}: {option('between')} computes no singular values; leave one of them out",
        beside=("between",),
    ),
    Idle(
        ("between",),
        f"{{it}} follows an input through the network: give its {option('weights', 'CKPT')}",
        without=("weights",),
    ),
    Idle(
        ("input_shape",),
        f"{{it}}: is of a network; give its {option('weights', 'CKPT')} or {option('model')} too",
        without=("weights", "model"),
    ),
    Idle(
        ("model", "input_shape"),
        f"{{it}}: is for the paths through the network, which are of all layers; leave {option('layers')} out",
        beside=("layers",),
        without=("between",),
    ),
    idle_force(f"{option('plot')} or {option('report')}", "plot", "report"),
    *WORKING,
)


class Reports(Iterator[Any]):
    """A `Report` a mask, or a `JunctionReport`, as they come.

    For a `with` block, whose end lets workers go and, where nothing was raised, writes the pictures and pages that were
    asked for.
    """

    def __init__(self, found: Generator[Report | JunctionReport, None, None], write: Callable[[], None] | None = None):
        self._found = found
        self._write = write

    def __iter__(self) -> Iterator[Any]:
        return self._found

    def __next__(self) -> Any:
        return next(self._found)

    def __enter__(self) -> Reports:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._found.close()
        if kind is None and self._write is not None:
            self._write()


@takes_numpy
def analyze(
    masks: Any,
    weights: Source | None = None,
    *,
    layers: str | Iterable[str] | None = None,
    summary: bool = False,
    convention: str = Convention.H23,
    expansion_weighted: bool = False,
    solver: str = Solver.AUTO,
    certify: bool = False,
    between: bool = False,
    model: str | None = None,
    input_shape: Shape | None = None,
    device: str = Device.AUTO,
    device_memory: int | str | None = None,
    trust: bool = False,
    plot: AnyPath | None = None,
    report: AnyPath | None = None,
    force: bool = False,
    jobs: int | None = None,
    cluster: str | None = None,
    store: AnyPath | None = None,
    no_store: bool = False,
    progress: Wanted = None,
) -> Any:
    """Measure masks: Ramanujan gaps, left-regular subgraphs, weighted spectral gaps, a layer and over the network.

    One mask gives a `Report`; several, a folder of them, or "-" (a list of paths on standard input), a list of `Report`s.
    Of one mask whatever is wrong with it is raised; of several, a report has it in its `error`, and a warning tells.

    `masks`: a path, a mapping of parameter names to boolean or 0/1 arrays or tensors (`pai.Mask` is one), or several.
    `weights`: the checkpoint that the masks were made for, a path or a network; the parameter metrics need it. Paths
    through the network are measured where it is known: by the weights, or as `model` and with `input_shape` where those
    do not tell or are not given. `layers`: globs of the layers to measure, by default all. `summary`: only the networks'
    means. `convention`: which layers have gaps, which left-regular subgraphs count and what each weighs: "h23" (ICLR 2023)
    or "f23" (NeurIPS 2023). `expansion_weighted`: multiply each subgraph's term by max(n_L, n_R) / (n_L + n_R - 1), which
    "f23" does by itself. `solver`: "auto", "gram", "power", "matrix-free" or "direct"; `certify`: prove sigma_2 to be the
    second in layers of any size. `device`: "cpu", "cuda", one of several GPUs such as "cuda:1", or "auto": a GPU where it is
    quicker, its start counted. `device_memory`: how much of a GPU's memory may be used, bytes or "8GB"; by default 80% of
    what is free.

    `between`: measure every two consecutive layers instead, which gives `JunctionReport`s; the network of `weights`, or
    `model` of it, is followed with one input of `input_shape` to find them.

    `plot`, `report`: files to write a picture or a page to, which exist only with `force`. `jobs` processes, or a Dask
    `cluster`, measure; finished work is looked up and kept in `store`, with `no_store` not at all. `trust`: a pickle may
    run its code. `progress`: what is told how far it is; True draws a bar.

    Metrics are defined in docs/metrics.md, from Hoang, Liu, Marculescu, Wang, ICLR 2023, and Hoang, Kundu, Liu, Wang,
    NeurIPS 2023. Raises `UsageError` for what does not go together, and errors by name for files and arrays.
    """
    given = locals()
    with ExitStack() as ends:
        found = reports(**{**given, "progress": ends.enter_context(shown_by(progress, "analyzing"))})
        every = list(ends.enter_context(found))
    if is_one(masks):
        if every[0].error is not None:
            raise every[0].error
        return every[0]
    for one in every:
        if one.error is not None:
            warn(one.error.text)
    return every


def reports(
    masks: Any,
    weights: Source | None = None,
    *,
    layers: str | Iterable[str] | None = None,
    summary: bool = False,
    convention: str = Convention.H23,
    expansion_weighted: bool = False,
    solver: str = Solver.AUTO,
    certify: bool = False,
    between: bool = False,
    model: str | None = None,
    input_shape: Shape | None = None,
    device: str = Device.AUTO,
    device_memory: int | str | None = None,
    trust: bool = False,
    plot: AnyPath | None = None,
    report: AnyPath | None = None,
    force: bool = False,
    jobs: int | None = None,
    cluster: str | None = None,
    store: AnyPath | None = None,
    no_store: bool = False,
    progress: Progress | None = None,
) -> Reports:
    """The reports of `analyze`, each as it is done, in the order of the masks; a mask that cannot be read gives a report
    with its `error`, and the rest go on. For a `with` block: see `Reports`.

    Parameters are those of `analyze`, and what is wrong with them is raised at once.
    """
    asked = dict(locals())
    every = listed(masks)
    chosen, place = one_of("solver", solver, Solver), Placing.of(device, device_memory)
    whose = one_of("convention", convention, Convention)
    given = _Given(masks, every, weights, globs_of(layers), summary, trust, progress or silent)
    refuse(reports, IDLE, asked)
    if between:
        return _junctions(given, model, input_shape)
    working = Working.of(jobs, cluster, store, no_store=no_store)
    files = _Files(maybe_path(plot), maybe_path(report), force)
    how = _How(chosen, certify, place, whose, expansion_weighted, model, shape_of(input_shape))
    return _measured(given, how, files, working)


@dataclass(frozen=True)
class _Given:
    """What is measured: as it was given, and as a list."""

    masks: Any
    every: list[Any]
    weights: Any
    layers: tuple[str, ...]
    summary: bool
    trust: bool
    progress: Progress


@dataclass(frozen=True)
class _How:
    solver: Solver
    certify: bool
    place: Placing
    convention: Convention
    expansion_weighted: bool
    model: str | None
    input_shape: tuple[int, ...] | None


@dataclass(frozen=True)
class _Files:
    plot: Path | None
    report: Path | None
    force: bool


def _measured(given: _Given, how: _How, files: _Files, working: Working) -> Reports:
    """Everything that can be refused is, before the first report is asked for."""
    solver = solver_options(how.solver, certify=how.certify, device=how.place.device)
    from pai_cli.analysis.masks import AnalysisRequest
    from pai_cli.analysis.paths import OF_ALL_LAYERS, PathRequest
    from pai_cli.spectral.metrics import MetricOptions

    options = MetricOptions(solver, how.convention, how.expansion_weighted)
    path = source_path(given.weights)
    pictures = _pictures(files, path)
    plan = plan_measuring(named(given.every), path, files.plot, files.report, working, force=files.force)
    weights = open_weights(given.weights, trust=given.trust)
    masks = opened(given.every, given.weights, one=is_one(given.masks), trust=given.trust)
    tell_twice(masks)
    read_masks(plan, files_among(masks))
    request = AnalysisRequest(
        weights=weights,
        layers=given.layers,
        options=options,
        device=how.place.resolved(),
        memory=how.place.memory,
        trust=given.trust,
        per_layer=not given.summary or pictures is not None,
        paths=PathRequest(None, OF_ALL_LAYERS)
        if given.layers and weights is not None
        else paths_of(weights, how.model, how.input_shape, masks, trust=given.trust),
    )
    found = _reported(given, request, masks, working, pictures)
    return Reports(found, None if pictures is None else pictures.write)


def _pictures(files: _Files, weights: Path | None) -> AnalysisPictures | None:
    """What is to be drawn, if anything; what could not be is refused."""
    if files.plot is None and files.report is None:
        return None
    from pai_cli.display.report.analysis import AnalysisPictures

    return AnalysisPictures.wanted(files.plot, files.report, force=files.force, weights=weights)


def _reported(
    given: _Given,
    request: AnalysisRequest,
    masks: Sequence[Any],
    working: Working,
    pictures: AnalysisPictures | None,
) -> Generator[Report, None, None]:
    from pai_cli.api.report import Report

    weights = given.weights is not None
    untold = [request.paths.told] if request.paths.told else []
    with closing(Repeated()) as notes, measured_by(masks, request, working, given.progress) as found:
        globs = UnmatchedGlobs(given.layers)
        for mask, one in zip(masks, found, strict=True):
            globs.look(one)
            if pictures is not None:
                pictures.add(one)
            if untold and one.error is None:
                note(untold.pop())
            tell(one, notes)
            yield Report(one, weights=weights, in_memory=not isinstance(mask, Path))
        globs.tell()


@contextmanager
def measured_by(
    masks: Sequence[Path | Stored], request: AnalysisRequest, working: Working, progress: Progress
) -> Iterator[Iterator[MaskReport]]:
    """Reports of the masks, measured as `working` says; workers and store are let go at the end of the block."""
    from pai_cli.analysis.many import analyze_masks, jobs_for
    from pai_cli.compute.pool import open_pool
    from pai_cli.files.checkpoints import Checkpoint
    from pai_cli.files.store import open_store, without_store

    if request.device == Device.AUTO and (working.cluster is not None or (working.jobs or 1) > 1):
        request = replace(request, device="cpu")  # processes were asked for
    jobs = jobs_for(masks, request, working.jobs, working.cluster)
    with (
        closing(without_store() if working.no_store else open_store(working.store, note)) as store,
        open_pool(jobs, working.cluster) as pool,
        closing(analyze_masks(masks, request, progress, pool=pool, store=store)) as found,
    ):
        if not isinstance(request.weights, Checkpoint):
            yield found
        else:
            yield map(partial(_with_whole, beside=Beside(request.weights), complete=not request.layers), found)


def _with_whole(report: MaskReport, *, beside: Beside, complete: bool) -> MaskReport:
    """The report, with what its mask leaves whole. `complete`: whether all of its layers were measured."""
    if report.report is None:
        return report
    measured = (report.report.kept, report.report.total) if complete else None
    whole, count = beside.of(report.path, report.shapes, report.metadata, measured)
    return replace(report, whole=whole, count=count)


def files_among(masks: Iterable[Path | Stored]) -> list[Path]:
    """Those of the masks that are files."""
    return [mask for mask in masks if isinstance(mask, Path)]


# --- between layers


def _junctions(given: _Given, model: str | None, input_shape: Shape | None) -> Reports:
    shape = shape_of(input_shape)
    masks = opened(given.every, given.weights, one=is_one(given.masks), trust=given.trust)
    source = open_source(given.weights, trust=given.trust)  # its faults are told before torch is imported
    network = network_of(source, model, shape)
    tell_left(source, network)
    from pai_cli.analysis.junctions import BetweenRequest

    request = BetweenRequest.of(source, network, given.layers, trust=given.trust)
    return Reports(_reported_between(given, request, masks))


def _reported_between(
    given: _Given, request: BetweenRequest, masks: Sequence[Any]
) -> Generator[JunctionReport, None, None]:
    from pai_cli.analysis.junctions import analyze_between
    from pai_cli.api.report import JunctionReport

    found = analyze_between(masks, request, given.progress)
    with closing(Repeated()) as notes:
        for mask, one in zip(masks, found, strict=True):
            if one.error is None and one.remark:
                notes.note(one.path, one.remark)
            if one.error is None and one.whole:
                notes.note(one.path, f"does not have {some_names(one.whole)}: taken as whole, every weight kept")
            yield JunctionReport(one, summary=given.summary, in_memory=not isinstance(mask, Path))
