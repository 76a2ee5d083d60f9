"""Layers measured on a device: read ahead by a thread, sent in batches that its memory holds, measured together.

While one batch is measured the next is read and sent. Where memory does not suffice after all, a batch is halved, down to
one layer; one that does not fit by itself is measured in this machine's memory.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Iterable, Iterator, Sequence
from concurrent.futures import CancelledError, Future
from contextlib import suppress
from dataclasses import dataclass

from pai_cli.analysis.by_layer import Measuring, named
from pai_cli.analysis.unread import Shipment, UnreadLayer
from pai_cli.compute.device import free_memory, give_back_memory, is_out_of_memory, memory_limited
from pai_cli.compute.threads import one_blas_thread
from pai_cli.compute.uploads import Lane, Sent, Stopped, Uploads, lane_to
from pai_cli.errors import MaskError, PaiError
from pai_cli.files.spans import SpanReader
from pai_cli.spectral.costs import MOST_ENTRIES, bytes_there
from pai_cli.spectral.network import LayerInput, measure_together
from pai_cli.spectral.table import LayerTable

SHARE = 0.8  # of the memory that is free


@dataclass(frozen=True)
class Found:
    """A layer's table of one row, or the error in its place; whether it was measured in this machine for want of room."""

    report: LayerTable | PaiError
    at_home: bool = False


@dataclass(frozen=True)
class Refused:
    """That layers were not measured, and why; None for want of room."""

    why: Exception | None


class Batch:
    """Layers that are measured together, and their bytes where they are on their way."""

    def __init__(self, layers: Sequence[UnreadLayer]):
        self.layers = layers
        self.entries = sum(layer.size for layer in layers)
        self._sent: tuple[Shipment, Future[Sent]] | None = None

    def send(self, uploads: Uploads, files: SpanReader) -> None:
        """Begin to read and send."""
        shipment = Shipment(self.layers, files)
        self._sent = shipment, uploads.send(shipment.pieces)

    def arrived(self, uploads: Uploads, files: SpanReader) -> list[LayerInput]:
        """The layers on the device. Raises what reading and sending did, and what is wrong with a mask."""
        if self._sent is None:
            self.send(uploads, files)
        assert self._sent is not None
        (shipment, future), self._sent = self._sent, None
        return shipment.arrived(uploads.lane.arrive(future.result()))

    def recalled(self) -> bool:
        """Whether it was sent, which is undone so that its bytes take no room."""
        if self._sent is None:
            return False
        (_, future), self._sent = self._sent, None
        with suppress(PaiError, RuntimeError, MemoryError, CancelledError, Stopped):  # told when it is sent again
            future.cancel()
            future.result().wait()
        return True


def measured_there(
    layers: Iterable[UnreadLayer | None], how: Measuring, lane: Lane | None = None
) -> Generator[Found | None, None, None]:
    """What is found of each layer on the device `how.device`, in order; to be closed where it is not drawn to its end.

    Layers are drawn ahead of what is found, up to two batches. A None among them has all before it measured first, and
    comes out in its place. Raises what is no fault of a layer.
    """
    memory = how.memory or int(SHARE * free_memory(how.device))
    with (
        one_blas_thread(),
        memory_limited(how.device, how.memory),
        SpanReader() as files,
        Uploads(lane or lane_to(how.device)) as uploads,
    ):
        yield from _Stream(how, memory, uploads, files).found(layers)


class _Stream:
    """One stream of layers. `most`: bytes that a batch may need, fewer once one did not fit."""

    def __init__(self, how: Measuring, memory: int, uploads: Uploads, files: SpanReader):
        self._how = how
        self._most = memory
        self._uploads, self._files = uploads, files
        self._ahead: deque[Batch] = deque()

    def found(self, layers: Iterable[UnreadLayer | None]) -> Iterator[Found | None]:
        for batch in self._batches(layers):
            if batch is not None:
                batch.send(self._uploads, self._files)
                self._ahead.append(batch)
            while len(self._ahead) > (batch is not None):
                yield from self._of_batch(self._ahead.popleft())
            if batch is None:
                yield None
        while self._ahead:
            yield from self._of_batch(self._ahead.popleft())

    def _batches(self, layers: Iterable[UnreadLayer | None]) -> Iterator[Batch | None]:
        """As many layers together as memory holds beside the bytes of the next ones, at least one."""
        held: list[UnreadLayer] = []
        room = entries = 0
        for layer in layers:
            need = 0 if layer is None else self._need(layer)
            full = room + need > self._most or entries + (layer.size if layer else 0) > MOST_ENTRIES
            if held and (layer is None or full):
                yield Batch(held)
                held, room, entries = [], 0, 0
            if layer is None:
                yield None
            else:
                held.append(layer)
                room, entries = room + need, entries + layer.size
        if held:
            yield Batch(held)

    def _need(self, layer: UnreadLayer) -> int:
        return bytes_there(layer.layout.matrix(layer.shape), weighted=layer.weights is not None)

    def _of_batch(self, batch: Batch) -> list[Found]:
        found = self._together(batch)  # in a frame of its own, whose tensors are gone when it is done
        return found if isinstance(found, list) else self._again(batch, found)

    def _together(self, batch: Batch) -> list[Found] | Refused:
        try:
            inputs = batch.arrived(self._uploads, self._files)
            return [Found(row) for row in measure_together(inputs, self._how.options, self._how.cache).rows]
        except (PaiError, MemoryError, RuntimeError) as error:
            full = is_out_of_memory(error)
            if not full and isinstance(error, RuntimeError):
                raise
            # Without the frames in which it was raised, which hold what is on the device.
            return Refused(None if full else error.with_traceback(None))

    def _again(self, batch: Batch, refused: Refused) -> list[Found]:
        """In halves, until it is the one layer that is refused, or that does not fit."""
        recalled = False
        if refused.why is None:
            recalled = sum(other.recalled() for other in self._ahead) > 0
            self._most = min(self._most, max(1, sum(map(self._need, batch.layers)) // 2))
            give_back_memory(self._how.device)
        if len(batch.layers) > 1:
            half = len(batch.layers) // 2
            parts = batch.layers[:half], batch.layers[half:]
            return [one for part in parts for one in self._of_batch(Batch(part))]
        if recalled:  # alone it may fit
            return self._of_batch(Batch(batch.layers))
        return [self._by_itself(batch.layers[0], refused.why)]

    def _by_itself(self, layer: UnreadLayer, refused: Exception | None) -> Found:
        """What this machine says of a layer, whose faults it tells as of any file's."""
        try:
            inputs = [layer.read()]
            if refused is None:
                with named(layer.name, layer.source):
                    return Found(measure_together(inputs, self._how.options, self._how.cache), at_home=True)
        except MemoryError:
            refused = None
        except PaiError as error:
            return Found(error)
        if isinstance(refused, PaiError):
            return Found(type(refused)(f"{layer.source}: layer {layer.name!r}: {refused.text}"))
        return Found(MaskError(f"{layer.source}: layer {layer.name!r} does not fit in memory"))
