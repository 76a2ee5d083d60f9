"""How layers are measured, and what their faults are called."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from pai_cli.errors import ArrayError, MaskError, NotFiniteError
from pai_cli.spectral.metrics import MetricOptions
from pai_cli.spectral.network import DenseCache
from pai_cli.spelling import option


@dataclass(frozen=True)
class Measuring:
    """How layers are measured. `source`: what an error names them by. `device`: "cpu", or one of `compute.device.resolve`;
    `memory`: bytes of it that may be used, by default most of what is free.
    """

    options: MetricOptions
    cache: DenseCache
    source: str
    device: str = "cpu"
    memory: int | None = None


@contextmanager
def named(layer: str, source: str) -> Iterator[None]:
    """Errors of the block name the source and this layer, the first of those that are measured."""
    first = f"{source}: layer {layer!r}"
    try:
        yield
    except (ArrayError, NotFiniteError) as error:
        raise type(error)(f"{first}: {error.text}") from error
    except MemoryError as error:
        raise MaskError(f"{first} does not fit in memory; leave it out with pai analyze {option('layers')}") from error
