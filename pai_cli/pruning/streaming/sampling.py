"""Where a cut is likely to be: from a sample, or from what is known of random draws."""

from __future__ import annotations

from dataclasses import dataclass
from math import sqrt

import numpy as np

from pai_cli.pruning.streaming.keys import Keys
from pai_cli.pruning.streaming.search import Window

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
