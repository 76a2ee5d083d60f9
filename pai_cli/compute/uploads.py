"""Bytes on their way to a device: a thread reads them into a few buffers, from which they are copied as work goes on.

Host memory is bounded by the buffers, however large a batch is. The thread ends with the block, however that ends.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from pai_cli.compute.device import torch_device

if TYPE_CHECKING:
    import torch

CHUNK = 2**24  # bytes of a buffer: a copy of as many takes far longer than beginning it

BUFFERS = 2  # one is filled while the other is copied

ALIGNMENT = 16  # bytes: where a piece begins, so that it can be taken for numbers of any type


@dataclass(frozen=True)
class Piece:
    """`size` bytes to be sent. `fill(begin, view)`: fills a view with those from `begin` on; asked for in order."""

    size: int
    fill: Callable[[int, memoryview], None]

    @property
    def room(self) -> int:
        """The size, up to where the next piece may begin."""
        return -(-self.size // ALIGNMENT) * ALIGNMENT


class Stopped(Exception):  # noqa: N818  (no fault: nobody waits for what was sent)
    """The block has ended while something was sent."""


class Mark(Protocol):
    """The end of a copy."""

    def synchronize(self) -> None:
        """Wait until the bytes have left this machine's memory."""
        ...


@dataclass(frozen=True)
class Sent:
    """Bytes on a device, and the end of their last copy; None where they are there."""

    there: torch.Tensor
    end: Mark | None = None

    def wait(self) -> None:
        """Until they have left this machine's memory."""
        if self.end is not None:
            self.end.synchronize()


class Lane(Protocol):
    """How bytes get to one device."""

    def buffer(self, size: int) -> torch.Tensor:
        """Memory of this machine that bytes are read into."""
        ...

    def room(self, size: int) -> torch.Tensor:
        """Memory of the device."""
        ...

    def copy(self, there: torch.Tensor, here: torch.Tensor) -> Mark | None:
        """Begin to copy; None where that is all."""
        ...

    def arrive(self, sent: Sent) -> torch.Tensor:
        """The bytes, to be used by the device's work of the thread that asks: it comes after the copies from now on."""
        ...


class PlainLane:
    """For a device in this machine's memory."""

    def buffer(self, size: int) -> torch.Tensor:
        """Plain memory."""
        import torch

        return torch.empty(size, dtype=torch.uint8)

    def room(self, size: int) -> torch.Tensor:
        """The same."""
        return self.buffer(size)

    def copy(self, there: torch.Tensor, here: torch.Tensor) -> None:
        """At once."""
        there.copy_(here)

    def arrive(self, sent: Sent) -> torch.Tensor:
        """They are there."""
        return sent.there


class StreamLane:
    """For a GPU: pinned buffers where memory can be pinned, and a stream of its own for the copies.

    Rooms are the copying stream's, so that none is written to while work of another stream still reads what was there
    before; whoever takes one tells the allocator that its own stream uses it too.
    """

    def __init__(self, device: str):
        import torch

        self._device = torch_device(device)
        self._module: Any = torch.get_device_module(self._device)
        self._stream = self._module.Stream(self._device)

    def buffer(self, size: int) -> torch.Tensor:
        """Pinned memory, which a copy takes directly; where the system gives none, plain memory."""
        import torch

        with suppress(RuntimeError):
            return torch.empty(size, dtype=torch.uint8, pin_memory=True)
        return torch.empty(size, dtype=torch.uint8)

    def room(self, size: int) -> torch.Tensor:
        """Memory of the GPU."""
        import torch

        with self._module.stream(self._stream):
            return torch.empty(size, dtype=torch.uint8, device=self._device)

    def copy(self, there: torch.Tensor, here: torch.Tensor) -> Mark:
        """On the lane's stream."""
        event: Mark = self._module.Event()
        with self._module.stream(self._stream):
            there.copy_(here, non_blocking=True)
            event.record(self._stream)  # type: ignore[attr-defined]
        return event

    def arrive(self, sent: Sent) -> torch.Tensor:
        """The current stream waits, and this thread does not."""
        current = self._module.current_stream(self._device)
        if sent.end is not None:
            current.wait_event(sent.end)
        sent.there.record_stream(current)
        return sent.there


def lane_to(device: str) -> Lane:
    """The lane to a device that `device.resolve` gave. Imports torch here, where Ctrl-C arrives, and not in the thread."""
    return PlainLane() if torch_device(device).type == "cpu" else StreamLane(device)


class Uploads(AbstractContextManager["Uploads"]):
    """Batches of pieces, sent one after the other by one thread."""

    def __init__(self, lane: Lane):
        self.lane = lane
        self._thread = ThreadPoolExecutor(1, "pai-reader")
        self._stop = threading.Event()
        self._buffers: deque[tuple[torch.Tensor, Mark | None]] = deque()

    def __exit__(self, *_: object) -> None:
        """End the thread, after the chunk that it is at."""
        self._stop.set()
        self._thread.shutdown(wait=True, cancel_futures=True)

    def send(self, pieces: Callable[[], Iterable[Piece]]) -> Future[Sent]:
        """Bytes on their way to the device, each piece's at the next multiple of `ALIGNMENT`.

        `pieces` is called in the thread. What it and they raise, the future raises.
        """
        return self._thread.submit(self._sent, pieces)

    def _sent(self, pieces: Callable[[], Iterable[Piece]]) -> Sent:
        every = list(pieces())
        size = sum(piece.room for piece in every)
        there, end = self.lane.room(size), None
        contents = _Contents(every)
        for begin in range(0, size, CHUNK):
            if self._stop.is_set():
                raise Stopped
            buffer = self._free_buffer(min(CHUNK, size))
            chunk = buffer[: size - begin]
            contents.fill(chunk.numpy().data)
            end = self.lane.copy(there[begin : begin + len(chunk)], chunk)
            self._buffers.append((buffer, end))
        return Sent(there, end)

    def _free_buffer(self, size: int) -> torch.Tensor:
        """The buffer whose bytes left longest ago, once they have left, or one that is large enough."""
        if len(self._buffers) < BUFFERS:
            return self.lane.buffer(size)
        buffer, end = self._buffers.popleft()
        if end is not None:
            end.synchronize()
        return buffer if len(buffer) >= size else self.lane.buffer(size)


class _Contents:
    """The bytes of pieces, one after the other, with zeros up to where the next begins."""

    def __init__(self, pieces: Sequence[Piece]):
        self._pieces = iter(pieces)
        self._piece: Piece | None = None
        self._at = 0

    def fill(self, view: memoryview) -> None:
        """Fill a view with the next bytes."""
        done = 0
        while done < len(view):
            if self._piece is None or self._at == self._piece.room:
                self._piece, self._at = next(self._pieces), 0
                continue
            piece = self._piece
            if self._at < piece.size:
                step = min(piece.size - self._at, len(view) - done)
                piece.fill(self._at, view[done : done + step])
            else:
                step = min(piece.room - self._at, len(view) - done)
                view[done : done + step] = bytes(step)
            done, self._at = done + step, self._at + step
