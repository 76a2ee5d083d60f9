"""The report of a mask: matched with the checkpoint's weights, and measured layer by layer."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from pai_cli.analysis.by_layer import Measuring
from pai_cli.analysis.engine import measure_everywhere
from pai_cli.analysis.pairs import PairRequest, with_pairs
from pai_cli.analysis.paths import PathRequest, with_paths
from pai_cli.errors import LayerSelectionError, NoLayerError, PaiError
from pai_cli.files.fits import Against, Count, check_fits
from pai_cli.files.graph_files import graph_of
from pai_cli.files.masks import Mask, unrolls
from pai_cli.files.matching import Weights, matched
from pai_cli.files.messages import some_names
from pai_cli.files.ordering import matches
from pai_cli.files.stacks import part_names, parted, parted_weights
from pai_cli.files.whole import Whole
from pai_cli.spectral.metrics import MetricOptions
from pai_cli.spectral.network import DenseCache, LayerInput, NetworkReport, summarise
from pai_cli.spectral.table import LayerTable
from pai_cli.spelling import option

LayerDone = Callable[[int, int], object]  # how many layers are done, of how many


@dataclass(frozen=True)
class AnalysisRequest:
    """What to measure.

    `weights` for the parameter metrics; `layers`: globs (none means all); `options` of the engine. `device`: where it runs,
    of those of `compute.device.resolve`, or "auto", where it is quicker; `memory`: bytes of a device that it may take, None
    for most of what is free. `trust`: a mask of another tool may run its pickle's code. `per_layer`: whether the
    reports have their layers, or the network's means alone, which take a tenth of the memory. `paths`: the network whose
    paths are measured. `pairs`: what is measured between layers, too.
    """

    weights: Weights | None = None
    layers: tuple[str, ...] = ()
    options: MetricOptions = field(default_factory=MetricOptions)
    device: str = "cpu"
    memory: int | None = None
    trust: bool = False
    per_layer: bool = True
    paths: PathRequest = field(default_factory=PathRequest)
    pairs: PairRequest = field(default_factory=PairRequest)


@dataclass(frozen=True)
class MaskReport:
    """One mask's report, or the error that stands in its place.

    `skipped`: parameters that are no matrix (biases). `remark`: what else a person should know of how it was read.
    `shapes`: of every masked parameter, a matrix or not. `whole`: what of the checkpoint has no mask, and `count`: what the
    network keeps with it; None where there is no checkpoint, and where not all of the mask was measured.
    """

    path: Path
    metadata: dict[str, str]
    report: NetworkReport | None
    error: PaiError | None = None
    skipped: tuple[str, ...] = ()
    remark: str = ""
    shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    whole: Whole | None = None
    count: Count | None = None


@dataclass(frozen=True)
class OpenMask:
    """A mask that is to be measured: the layers by name, those passed over, and the request with its own weights.

    `mask`: with each expert of a stack as a layer; `whole`: as its file has it.
    """

    mask: Mask
    whole: Mask
    names: tuple[str, ...]
    skipped: tuple[str, ...]
    request: AnalysisRequest

    @staticmethod
    def of(mask: Mask, request: AnalysisRequest) -> OpenMask:
        """What is to be measured of a mask. Raises `LayerSelectionError`, and what keeps the weights from being its own."""
        by_matrix = parted(mask)
        names, skipped = chosen(by_matrix, request.layers)
        if request.weights is not None:
            weights = matched(mask.names, mask.metadata, request.weights)
            check_fits(mask.path, mask.shapes, Against.of(weights, "weights"))
            request = replace(request, weights=parted_weights(weights, by_matrix))
        return OpenMask(by_matrix, mask, names, skipped, request)

    def layer(self, name: str) -> LayerInput:
        """A layer read from the file, and its weights."""
        graph = graph_of(self.mask)
        if graph is not None and self.request.weights is None:
            return LayerInput(name, graph.matrix, weighted=graph.weighted)
        layout, array = self.mask.layout(name), self.mask.array(name)
        unrolls(self.mask.path, name, array.shape, layout)
        weights = self.request.weights
        return LayerInput(name, array, None if weights is None else weights.finite_array(name), layout)

    def report(self, layers: LayerTable, remark: str = "") -> MaskReport:
        """The report of the mask, of its layers in order; `remark`: what is worth knowing of how they were measured."""
        request, mask = self.request, self.whole
        report = with_paths(summarise(layers), mask, request.paths, request.weights)
        report = with_pairs(report, mask, request.pairs, request.weights)
        told = "; ".join(filter(None, (mask.remark, remark)))
        return MaskReport(mask.path, dict(mask.metadata), report, None, self.skipped, told, dict(mask.shapes))


def measure_mask(mask: Mask, request: AnalysisRequest, cache: DenseCache, layer_done: LayerDone) -> MaskReport:
    """The report of one mask on the cores; `layer_done` is called after each layer. Raises what is wrong with it."""
    opened = OpenMask.of(mask, request)
    total = sum(math.prod(opened.mask.shapes[name]) for name in opened.names)
    how = Measuring(request.options, cache, str(mask.path))
    layers = map(opened.layer, opened.names)
    return opened.report(measure_everywhere(layers, total, how, lambda done: layer_done(done, len(opened.names))))


def chosen(mask: Mask, layers: tuple[str, ...]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The names to measure, and those passed over because they are no matrix. Raises `LayerSelectionError` for none."""
    names = tuple(name for name in mask.names if wanted(name, layers))
    if not names:
        globs = " ".join(layers)
        raise LayerSelectionError(
            f"{mask.path}: {option('layers', globs)} matches no layer; its first is {mask.names[0]!r} of "
            f"{len(mask.names)}"
        )
    matrices = tuple(name for name in names if len(mask.shapes[name]) >= 2 and 0 not in mask.shapes[name])
    if not matrices:
        raise NoLayerError(
            f"{mask.path}: no tensor has rows and columns (the first, {names[0]!r}, has shape "
            f"{mask.shapes[names[0]]}); a graph needs the mask of a weight"
        )
    measured = set(matrices)
    return matrices, tuple(name for name in names if name not in measured)


def wanted(name: str, globs: Sequence[str]) -> bool:
    """Whether one of the globs matches the parameter's name, with or without `.weight`; all do when there is no glob."""
    return not globs or any(matches(name, glob) for glob in globs)


def any_wanted(name: str, shape: tuple[int, ...], globs: Sequence[str]) -> bool:
    """Whether a glob matches the parameter's name or, of a tensor of three dimensions, that of a part that it may have."""
    parts = part_names(name, shape) if globs and len(shape) == 3 else ()
    return any(wanted(one, globs) for one in (name, *parts))


def unanswered_told(layers: Iterable[str]) -> str:
    """That a solver ended without singular values of these layers."""
    return f"no singular values were found of {some_names(layers)}: not converged"


def reason_of(report: NetworkReport, metrics: Iterable[str]) -> str:
    """Why some of these means are missing, and which layers they are without as no solver had an answer; "" for neither."""
    reasons = [f"{name}: {report.measures[name].reason}" for name in metrics if not report.measures[name].present]
    return "; ".join([*reasons, *([unanswered_told(report.unanswered)] if report.unanswered else [])])
