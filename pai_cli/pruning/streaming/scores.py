"""Scores that need no network: the weights' magnitudes, and random draws. As keys, piece by piece."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import prod, sqrt
from threading import local

import numpy as np
from numpy.typing import NDArray

from pai_cli.files.checkpoints import Checkpoint
from pai_cli.models.layers import PrunableLayer
from pai_cli.pruning.streaming.keys import KINDS, Keys, common_dtype, magnitudes, widened
from pai_cli.pruning.streaming.reading import OpenFiles, Piece
from pai_cli.pruning.streaming.search import Window
from pai_cli.random import generator_for

SURE = 5  # standard errors on each side; a guess that misses costs a pass


@dataclass(frozen=True)
class Sample:
    """Blocks of a layer's keys, taken evenly; `whole`: together they are the layer."""

    size: int
    blocks: list[Keys]
    whole: bool

    def error(self, key: int) -> float:
        """Standard error of the number of weights above `key`, as the blocks differ: weights of a row are alike."""
        if self.whole:
            return 0.0
        if len(self.blocks) == 1:
            return self.size / 2
        shares = [np.count_nonzero(block > block.dtype.type(key)) / block.size for block in self.blocks]
        return self.size * float(np.std(shares, ddof=1)) / sqrt(len(shares))


def window_around(samples: list[Sample], count: int, most: int) -> Window:
    """The window in which the `count`-th largest key of the sampled layers is expected."""
    keys = np.concatenate([block for sample in samples for block in sample.blocks])
    weights = np.concatenate([_weights(sample) for sample in samples])
    order = np.argsort(keys, kind="stable")[::-1]
    keys, ranks = keys[order], np.cumsum(weights[order])

    def at(rank: float) -> int:
        return int(keys[min(int(np.searchsorted(ranks, rank)), keys.size - 1)])

    guess = at(count)
    margin = SURE * sqrt(sum(sample.error(guess) ** 2 for sample in samples))
    low = at(count + margin) if count + margin < ranks[-1] or not margin else 0
    return low, at(count - margin) if count > margin else most


def _weights(sample: Sample) -> np.ndarray:
    taken = sum(block.size for block in sample.blocks)
    return np.full(taken, sample.size / taken)


def uniform_window(size: int, count: int) -> tuple[float, float]:
    """Bounds, within [0, 1], of the `count`-th largest of `size` uniform draws, wrong once in a thousand million."""
    place = 1 - count / size
    margin = 6 * sqrt(place * (1 - place) / size) + 10 / size
    return max(0.0, place - margin), min(1.0, place + margin)


DRAWN_TOGETHER = 2**16  # half a MiB, which a core's cache holds

BLOCK_BYTES = 4096  # read together for a sample
MOST_BLOCKS = 1024  # of a sample
LEAST_BLOCKS = 48  # of a layer chosen from by itself, so that reading them takes little beside reading the layer


class PieceScores(ABC):
    """The scores of some layers. `item_size`: bytes of a key. `most`: the largest key that there can be."""

    item_size: int
    most: int

    @abstractmethod
    def blocks(self, piece: Piece, magnitude: Keys | None = None) -> Iterator[Keys]:
        """The keys of some weights, the same at every call, in blocks that lie in the cache; all but the last are of a
        multiple of 8.

        Each is good until the next is asked for. `magnitude`: the weights' own where they were read already; may be
        written over.
        """

    def keys(self, piece: Piece) -> Keys:
        """The same together."""
        return np.concatenate([block.copy() for block in self.blocks(piece)])

    @abstractmethod
    def guess(self, layers: Sequence[PrunableLayer], count: int) -> Window:
        """Where the `count`-th largest key of these layers may be."""


class Draws(PieceScores):
    """Independent uniform draws from [0, 1), float64: those of `pruning.random`, of the seed and a layer's name.

    A generator can be moved to any place, so a piece is drawn by itself. `invert`: the smallest first.
    """

    item_size = 8
    most = 0x3FF0000000000000  # the bits of 1.0

    def __init__(self, seed: int, *, invert: bool):
        self._seed = seed
        self._invert = invert
        self._here = local()  # new memory for every block would take the system as long to give as the draws take

    def blocks(self, piece: Piece, magnitude: Keys | None = None) -> Iterator[Keys]:
        """The bits of the draws, which are in their order, whatever the magnitudes."""
        del magnitude
        generator = generator_for(self._seed, piece.layer.name)
        bits = generator.bit_generator
        assert isinstance(bits, np.random.PCG64)  # one step a draw
        bits.advance(piece.start)
        buffer = self._buffer()
        for start in range(piece.start, max(piece.stop, piece.start + 1), buffer.size):
            drawn = buffer[: min(buffer.size, piece.stop - start)]
            generator.random(out=drawn)
            keys = drawn.view(np.uint64)
            yield np.subtract(np.uint64(self.most), keys, out=keys) if self._invert else keys

    def _buffer(self) -> NDArray[np.float64]:
        """This thread's."""
        if not hasattr(self._here, "buffer"):
            self._here.buffer = np.empty(DRAWN_TOGETHER)
        buffer: NDArray[np.float64] = self._here.buffer
        return buffer

    def guess(self, layers: Sequence[PrunableLayer], count: int) -> Window:
        """Around the quantile."""
        size = sum(prod(layer.shape) for layer in layers)
        low, last = uniform_window(size, size - count if self._invert else count)
        first, second = (int(np.float64(bound).view(np.uint64)) for bound in (low, last))
        return (self.most - second, self.most - first) if self._invert else (first, second)


class Magnitudes(PieceScores):
    """Absolute values of the stored weights, compared exactly whatever their types. `invert`: the smallest first."""

    def __init__(self, checkpoint: Checkpoint, layers: Sequence[PrunableLayer], files: OpenFiles, *, invert: bool):
        self._spans = {layer.name: checkpoint.span(layer.name) for layer in layers}
        self._files = files
        self._common = common_dtype(span.dtype for span in self._spans.values())
        self._invert = invert
        self.item_size = KINDS[self._common].bits.itemsize
        self.most = KINDS[self._common].magnitude

    def blocks(self, piece: Piece, magnitude: Keys | None = None) -> Iterator[Keys]:
        """The magnitudes in the type that all are compared in; one block. Read from the file unless given."""
        span = self._spans[piece.layer.name]
        if magnitude is None:
            width = KINDS[span.dtype].bits.itemsize
            raw = self._files.read_span(span, piece.start * width, (piece.stop - piece.start) * width)
            magnitude = magnitudes(raw, span.dtype)
        keys = widened(magnitude, span.dtype, self._common)
        yield np.subtract(keys.dtype.type(self.most), keys, out=keys) if self._invert else keys

    def guess(self, layers: Sequence[PrunableLayer], count: int) -> Window:
        """From a sample of blocks, more of them where a layer is larger."""
        total = sum(prod(layer.shape) for layer in layers)
        blocks = LEAST_BLOCKS if len(layers) == 1 else MOST_BLOCKS
        samples = [self._sample(layer, -(-blocks * prod(layer.shape) // total)) for layer in layers]
        return window_around(samples, count, self.most)

    def _sample(self, layer: PrunableLayer, blocks: int) -> Sample:
        size = prod(layer.shape)
        width = BLOCK_BYTES // self.item_size
        there = -(-size // width)
        chosen: NDArray[np.int64] = np.arange(there)
        if blocks < there:
            # One at random from each of as many equal parts: rows that repeat cannot fall in step with it.
            inside = generator_for(0, f"sample {layer.name}").random(blocks)
            chosen = ((np.arange(blocks) + inside) * there / blocks).astype(np.int64)
        taken = [self.keys(Piece(layer, at * width, min((at + 1) * width, size))) for at in chosen.tolist()]
        return Sample(size, taken, blocks >= there)
