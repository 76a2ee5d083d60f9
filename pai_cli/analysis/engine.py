"""Layers meet the engine: on this machine's cores, or on a device."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from contextlib import closing
from functools import partial
from itertools import chain

from pai_cli.analysis.by_layer import Measuring, named
from pai_cli.compute.threads import mapped, one_blas_thread
from pai_cli.errors import ArrayError, MaskError, NotFiniteError, PaiError
from pai_cli.spectral.network import LayerInput, LayerReport, measure_together

WORTH_THREADS = 2**21  # weights of a network from which threads gain: a smaller one's time is the interpreter's

HELD_BYTES = 2**29  # of the layers that are measured together; a larger one comes alone


def measure_everywhere(layers: Iterable[LayerInput], total: int, how: Measuring) -> Iterator[LayerReport]:
    """Reports in the order of `layers`, which are drawn as they are needed; `total` is how many weights there are.

    Raises `ArrayError`, `NotFiniteError` and `MaskError` that name the source and the layer.
    """
    every: Iterable[list[LayerReport]]
    measured = partial(_measured_at_once, how=how)
    if how.device != "cpu":
        yield from _on_a_device(layers, how)
        return
    if total >= WORTH_THREADS:
        every = mapped(measured, ([layer] for layer in layers), lambda batch: _bytes_of(batch[0]))
    else:
        every = map(measured, _batches(layers))
    with one_blas_thread():
        yield from chain.from_iterable(every)


def _on_a_device(layers: Iterable[LayerInput], how: Measuring) -> Iterator[LayerReport]:
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


def _measured_at_once(layers: list[LayerInput], how: Measuring) -> list[LayerReport]:
    try:
        with named(layers[0].name, how.source):
            return measure_together(layers, how.options, how.cache)
    except (ArrayError, NotFiniteError, MaskError):
        if len(layers) == 1:
            raise
    return [report for layer in layers for report in _measured_at_once([layer], how)]  # until the one it is


def _bytes_of(layer: LayerInput) -> int:
    """About what a layer takes while others are measured with it: bits of a mask; of weights, matrices and lists."""
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
