"""Layers measured where the request says: on this machine's cores, or in batches on a GPU."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from pai_cli.compute.threads import mapped, one_blas_thread
from pai_cli.errors import ArrayError, DeviceError, MaskError, NotFiniteError
from pai_cli.spectral.metrics import MetricOptions
from pai_cli.spectral.network import DenseCache, LayerInput, LayerReport, measure_together
from pai_cli.spelling import option

WORTH_THREADS = 2**21  # weights of a network from which threads gain: a smaller one's time is the interpreter's

DEVICE_WEIGHTS = 2**28  # weights of the layers that are on a GPU at once; a layer of more comes alone


@dataclass(frozen=True)
class Measuring:
    """How layers are measured. `source`: what an error names them by; `device`: "cpu", or a torch device."""

    options: MetricOptions
    cache: DenseCache
    source: str
    device: str = "cpu"


def measure_everywhere(layers: Iterable[LayerInput], total: int, how: Measuring) -> Iterator[LayerReport]:
    """Reports in the order of `layers`, which are drawn as they are needed; `total` is how many weights there are.

    Raises `ArrayError`, `NotFiniteError`, `MaskError` and `DeviceError` that name the source and the layer.
    """
    measure = partial(_measured, how=how)
    if how.device != "cpu":
        with one_blas_thread():
            for batch in _batches(layers):
                yield from measure(batch)
    elif total < WORTH_THREADS:
        with one_blas_thread():
            for layer in layers:
                yield from measure([layer])
    else:
        for reports in mapped(measure, ([layer] for layer in layers), _bytes_of):
            yield from reports


def _bytes_of(layers: list[LayerInput]) -> int:
    """About what measuring takes at its peak: bits and lists of a mask; of weights, matrices and lists in float64."""
    return sum(math.prod(layer.mask.shape) * (2 if layer.weights is None else 45) for layer in layers)


def _measured(layers: list[LayerInput], how: Measuring) -> list[LayerReport]:
    first = f"{how.source}: layer {layers[0].name!r}"
    try:
        there = layers if how.device == "cpu" else _moved(layers, how.device)
        return measure_together(there, how.options, how.cache)
    except (ArrayError, NotFiniteError) as error:
        if len(layers) == 1:
            raise type(error)(f"{first}: {error.text}") from error
        return [report for layer in layers for report in _measured([layer], how)]  # until the one it is
    except MemoryError as error:
        raise MaskError(f"{first} does not fit in memory; leave it out with pai analyze {option('layers')}") from error
    except RuntimeError as error:  # of torch, whose class is not imported for its sake
        if "out of memory" not in str(error):
            raise
        raise DeviceError(f"{first} does not fit on the GPU; use {option('device', 'cpu')}") from error


def _batches(layers: Iterable[LayerInput]) -> Iterator[list[LayerInput]]:
    batch: list[LayerInput] = []
    size = 0
    for layer in layers:
        weights = math.prod(layer.mask.shape)
        if batch and size + weights > DEVICE_WEIGHTS:
            yield batch
            batch, size = [], 0
        batch.append(layer)
        size += weights
    if batch:
        yield batch


def _moved(layers: list[LayerInput], device: str) -> list[LayerInput]:
    import torch

    def there(array: Any) -> Any:
        return None if array is None else torch.from_numpy(array).to(device)

    return [replace(layer, mask=there(layer.mask), weights=there(layer.weights)) for layer in layers]
