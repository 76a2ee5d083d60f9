"""Layers meet the engine: on this machine's cores, or on a device."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, suppress

from pai_cli.analysis.by_layer import Measuring, named
from pai_cli.compute.threads import one_blas_thread, spread_over_cores
from pai_cli.errors import PaiError
from pai_cli.spectral.network import LayerInput, measure_together
from pai_cli.spectral.table import LayerTable
from pai_cli.spectral.validation import Entries

WORTH_THREADS = 2**21  # weights of a network from which threads gain: a smaller one's time is the interpreter's

HELD_BYTES = 2**29  # of the layers that are measured together; a larger one comes alone


def measure_everywhere(
    layers: Iterable[LayerInput], total: int, how: Measuring, measured: Callable[[int], object] | None = None
) -> LayerTable:
    """What is measured of layers, which are drawn as they are needed; `total` is how many weights there are, `measured` is
    told how many layers are done.

    Raises `ArrayError`, `NotFiniteError` and `MaskError` that name the source and the layer.
    """
    tables: list[LayerTable] = []
    tell = measured or (lambda _: None)
    if how.device != "cpu":
        for table in _on_a_device(layers, how):
            tables.append(table)
            tell(len(tables))
        return LayerTable.joined(tables)
    with spread_over_cores() if total >= WORTH_THREADS else one_blas_thread() as spread:
        for batch in _batches(layers):
            alone = batch
            with suppress(PaiError, MemoryError):  # of which layer, is seen when each is alone
                tables.append(measure_together(batch, how.options, how.cache, spread))
                alone = []
            tables += [_alone(layer, how) for layer in alone]
            tell(sum(map(len, tables)))
    return LayerTable.joined(tables)


def _on_a_device(layers: Iterable[LayerInput], how: Measuring) -> Iterator[LayerTable]:
    """Layers that this machine holds; a fault ends them all."""
    from pai_cli.analysis.device_stream import measured_there
    from pai_cli.analysis.unread import held_layer

    with closing(measured_there((held_layer(layer, how.source) for layer in layers), how)) as found:
        for one in found:
            if one is None:
                continue
            if isinstance(one.report, PaiError):
                raise one.report
            yield one.report


def _alone(layer: LayerInput, how: Measuring) -> LayerTable:
    with named(layer.name, how.source):
        return measure_together([layer], how.options, how.cache)


def _bytes_of(layer: LayerInput) -> int:
    """About what a layer takes while others are measured with it: bits of a mask; of weights, matrices and lists."""
    if isinstance(layer.mask, Entries):
        return 100 * len(layer.mask.values)
    weights: int = math.prod(layer.mask.shape)
    return weights * (2 if layer.weights is None else 45)


def _batches(layers: Iterable[LayerInput]) -> Iterator[list[LayerInput]]:
    """Layers that are held together, or one."""
    batch: list[LayerInput] = []
    held = 0
    for layer in layers:
        size = _bytes_of(layer)
        if batch and held + size > HELD_BYTES:
            yield batch
            batch, held = [], 0
        batch.append(layer)
        held += size
    if batch:
        yield batch
