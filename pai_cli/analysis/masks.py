"""The report of a mask: matched with the checkpoint's weights, and measured layer by layer."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from pai_cli.analysis.pairs import PairRequest, with_pairs
from pai_cli.analysis.paths import PathRequest, with_paths
from pai_cli.compute.threads import mapped, one_blas_thread
from pai_cli.errors import (
    ArrayError,
    DeviceError,
    LayerSelectionError,
    MaskError,
    NotFiniteError,
    PaiError,
)
from pai_cli.files.fits import Against, Count, check_fits
from pai_cli.files.masks import Mask, unrolls
from pai_cli.files.matching import Weights, matched
from pai_cli.files.messages import some_names
from pai_cli.files.ordering import matches
from pai_cli.files.whole import Whole
from pai_cli.spectral.metrics import MetricOptions
from pai_cli.spectral.network import DenseCache, LayerInput, NetworkReport, measure_together, summarise
from pai_cli.spectral.table import LayerTable
from pai_cli.spelling import option

WORTH_THREADS = 2**21  # weights of a network from which threads gain: a smaller one's time is the interpreter's

HELD_BYTES = 2**29  # of the layers that are measured together; a larger one comes alone

DEVICE_WEIGHTS = 2**28  # weights of the layers that are on a GPU at once; a layer of more comes alone


@dataclass(frozen=True)
class Measuring:
    """How layers are measured. `source`: what an error names them by; `device`: "cpu", or a torch device."""

    options: MetricOptions
    cache: DenseCache
    source: str
    device: str = "cpu"


def measure_everywhere(
    layers: Iterable[LayerInput], total: int, how: Measuring, measured: Callable[[int], object] | None = None
) -> LayerTable:
    """What is measured of layers, which are drawn as they are needed; `total` is how many weights there are, `measured` is
    told how many layers are done.

    Raises `ArrayError`, `NotFiniteError`, `MaskError` and `DeviceError` that name the source and the layer.
    """
    tables: list[LayerTable] = []
    tell = measured or (lambda _: None)
    with one_blas_thread():
        if how.device == "cpu" and total >= WORTH_THREADS:
            for table in mapped(partial(_alone, how=how), layers, _bytes_of):
                tables.append(table)
                tell(len(tables))
            return LayerTable.joined(tables)
        size, most = (_bytes_of, HELD_BYTES) if how.device == "cpu" else (_weights_of, DEVICE_WEIGHTS)
        for batch in _batches(layers, size, most):
            alone = batch
            with suppress(PaiError, MemoryError, RuntimeError):  # of which layer, is seen when each is alone
                there = batch if how.device == "cpu" else _moved(batch, how.device)
                tables.append(measure_together(there, how.options, how.cache))
                alone = []
            tables += [_alone(layer, how) for layer in alone]
            tell(sum(map(len, tables)))
    return LayerTable.joined(tables)


def _alone(layer: LayerInput, how: Measuring) -> LayerTable:
    with _named(layer, how):
        return measure_together([layer] if how.device == "cpu" else _moved([layer], how.device), how.options, how.cache)


def _weights_of(layer: LayerInput) -> int:
    return math.prod(layer.mask.shape)


def _bytes_of(layer: LayerInput) -> int:
    """About what a layer takes while others are measured with it: bits of a mask; of weights, matrices and lists."""
    return _weights_of(layer) * (2 if layer.weights is None else 45)


@contextmanager
def _named(layer: LayerInput, how: Measuring) -> Iterator[None]:
    """Errors of the block name the source and this layer."""
    where = f"{how.source}: layer {layer.name!r}"
    try:
        yield
    except (ArrayError, NotFiniteError) as error:
        raise type(error)(f"{where}: {error.text}") from error
    except MemoryError as error:
        raise MaskError(f"{where} does not fit in memory; leave it out with pai analyze {option('layers')}") from error
    except RuntimeError as error:  # of torch, whose class is not imported for its sake
        if "out of memory" not in str(error):
            raise
        raise DeviceError(f"{where} does not fit on the GPU; use {option('device', 'cpu')}") from error


def _batches(
    layers: Iterable[LayerInput], size_of: Callable[[LayerInput], int], most: int
) -> Iterator[list[LayerInput]]:
    """Layers of at most that size together, or one."""
    batch: list[LayerInput] = []
    held = 0
    for layer in layers:
        size = size_of(layer)
        if batch and held + size > most:
            yield batch
            batch, held = [], 0
        batch.append(layer)
        held += size
    if batch:
        yield batch


def _moved(layers: list[LayerInput], device: str) -> list[LayerInput]:
    import torch

    def there(array: Any) -> Any:
        return None if array is None else torch.from_numpy(array).to(device)

    return [replace(layer, mask=there(layer.mask), weights=there(layer.weights)) for layer in layers]


LayerDone = Callable[[int, int], object]  # how many layers are done, of how many


@dataclass(frozen=True)
class AnalysisRequest:
    """What to measure.

    `weights` for the parameter metrics; `layers`: globs (none means all); `options` of the engine. `device`: "cpu", or the
    torch device where the engine runs. `trust`: a mask of another tool may run its pickle's code. `per_layer`: whether the
    reports have their layers, or the network's means alone, which take a tenth of the memory. `paths`: the network whose
    paths are measured. `pairs`: what is measured between layers, too.
    """

    weights: Weights | None = None
    layers: tuple[str, ...] = ()
    options: MetricOptions = field(default_factory=MetricOptions)
    device: str = "cpu"
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


def measure_mask(mask: Mask, request: AnalysisRequest, cache: DenseCache, layer_done: LayerDone) -> MaskReport:
    """The report of one mask; `layer_done` is called after each layer. Raises what is wrong with it."""
    names, skipped = chosen(mask, request.layers)
    if request.weights is not None:
        weights = matched(mask.names, mask.metadata, request.weights)
        check_fits(mask.path, mask.shapes, Against.of(weights, "weights"))
        request = replace(request, weights=weights)
    layers = (_layer(mask, name, request) for name in names)
    total = sum(math.prod(mask.shapes[name]) for name in names)
    how = Measuring(request.options, cache, str(mask.path), request.device)
    table = measure_everywhere(layers, total, how, lambda done: layer_done(done, len(names)))
    report = with_paths(summarise(table), mask, request.paths, request.weights)
    report = with_pairs(report, mask, request.pairs, request.weights)
    shapes = dict(mask.shapes)
    return MaskReport(mask.path, dict(mask.metadata), report, None, skipped, mask.remark, shapes)


def _layer(mask: Mask, name: str, request: AnalysisRequest) -> LayerInput:
    """A layer read from the file, and its weights."""
    layout, array = mask.layout(name), mask.array(name)
    unrolls(mask.path, name, array.shape, layout)
    return LayerInput(name, array, None if request.weights is None else request.weights.finite_array(name), layout)


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
        raise LayerSelectionError(
            f"{mask.path}: no tensor has rows and columns (the first, {names[0]!r}, has shape "
            f"{mask.shapes[names[0]]}); a graph needs the mask of a weight"
        )
    measured = set(matrices)
    return matrices, tuple(name for name in names if name not in measured)


def wanted(name: str, globs: Sequence[str]) -> bool:
    """Whether one of the globs matches the parameter's name, with or without `.weight`; all do when there is no glob."""
    return not globs or any(matches(name, glob) for glob in globs)


def unanswered_told(layers: Iterable[str]) -> str:
    """That a solver ended without singular values of these layers."""
    return f"no singular values were found of {some_names(layers)}: not converged"


def reason_of(report: NetworkReport, metrics: Iterable[str]) -> str:
    """Why some of these means are missing, and which layers they are without as no solver had an answer; "" for neither."""
    reasons = [f"{name}: {report.measures[name].reason}" for name in metrics if not report.measures[name].present]
    return "; ".join([*reasons, *([unanswered_told(report.unanswered)] if report.unanswered else [])])
