"""Equal scores where the cut falls: which of them are kept is no choice of the method, so it is said, drawn, or refused."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pai_cli.errors import ScoreError
from pai_cli.random import generator_for
from pai_cli.spelling import option

TieRule = Literal["first", "random", "error"]
RULES: tuple[TieRule, ...] = ("first", "random", "error")
NOTEWORTHY = 1000
"""Ties are told of where they settle more than one in so many of the weights that are kept: float32 has a few equal scores
in any large layer.
"""

MOST_DRAWN = 10**9 - 1
"""Tied weights among which some are drawn: NumPy draws from no more."""

TOGETHER = 2**19
"""Weights of a layer among which ties are drawn at once: a piece, where a checkpoint is pruned piece by piece."""


class Tie(NamedTuple):
    """Of a layer: how many weights have the score at which the cut falls, and how many of those are kept."""

    tied: int
    kept: int


@dataclass
class Ties:
    """How the ties of one run are settled, and what they were: by layer, of the last round in which it had any."""

    rule: TieRule = "first"
    seed: int = 0
    found: dict[str, Tie] = field(default_factory=dict)
    _cuts: int = 0

    def cut(self, tied: int, keep: int) -> Cut:
        """The choice of `keep` of the weights that are tied."""
        if self.rule != "random" or tied <= keep:
            return Cut(self, tied, keep)
        if tied > MOST_DRAWN:
            raise ScoreError(
                f"{option('ties', 'random')}: {tied:,} weights have the score at which the cut falls, of which more than "
                f"{MOST_DRAWN:,} are not drawn from; {option('ties', 'first')} takes the first"
            )
        return Cut(self, tied, keep, self.generator(), self._cuts)

    def generator(self) -> np.random.Generator:
        """Another one at each choice of a run, a function of the seed."""
        self._cuts += 1
        return generator_for(self.seed, f"ties {self._cuts}")

    def note(self, name: str, tie: Tie) -> None:
        """Keep in mind what was tied in a layer. Raises `ScoreError` where ties are refused."""
        if self.rule == "error":
            raise ScoreError(
                f"{option('ties', 'error')}: {tie.tied:,} weights of {name} have the score at which the cut falls, and not "
                f"all of them can be kept; {option('ties', 'random')} draws some, {option('ties', 'first')} takes the first"
            )
        self.found[name] = tie


@dataclass
class Cut:
    """One choice among tied weights: how many of each layer, in network order, and then which."""

    ties: Ties
    tied: int
    keep: int
    random: np.random.Generator | None = None
    number: int = 0

    def __post_init__(self) -> None:
        self._settles = self.tied > self.keep

    def of_layer(self, name: str, count: int) -> LayerTies:
        """The choice among the `count` tied weights of a layer: the first, or every choice as likely as another."""
        keep = _share(self.random, count, self.tied, self.keep)
        if count and self._settles:
            self.ties.note(name, Tie(count, keep))
        self.tied, self.keep = self.tied - count, self.keep - keep
        own = None if self.random is None else generator_for(self.ties.seed, f"ties {self.number} of {name}")
        return LayerTies(count, keep, own)


@dataclass
class LayerTies:
    """Which `keep` of the `tied` weights of one layer are kept, chosen in runs of `TOGETHER` weights one after the other."""

    tied: int
    keep: int
    random: np.random.Generator | None = None

    def among(self, places: NDArray[np.intp]) -> NDArray[np.intp]:
        """Those that are kept of the tied places in the next run."""
        keep = _share(self.random, len(places), self.tied, self.keep)
        self.tied, self.keep = self.tied - len(places), self.keep - keep
        return places[:keep] if self.random is None else self.random.choice(places, keep, replace=False)

    def of_all(self, places: NDArray[np.intp], size: int) -> NDArray[np.intp]:
        """Those that are kept of all tied places of a layer of so many weights."""
        ends = np.searchsorted(places, np.arange(TOGETHER, size, TOGETHER))
        return np.concatenate([self.among(run) for run in np.split(places, ends)])


def _share(random: np.random.Generator | None, count: int, tied: int, keep: int) -> int:
    """How many of the first `count` of the tied weights are among the `keep` that stay."""
    if random is None:
        return min(count, keep)
    return int(random.hypergeometric(count, tied - count, keep)) if keep else 0


def in_groups(scores: NDArray[Any], kept: NDArray[np.bool_], active: NDArray[np.bool_] | None) -> Tie:
    """What was tied in groups of weights, a row each: there a kept score equals one that is not."""
    free = ~kept if active is None else active & ~kept
    lowest = np.min(scores, axis=1, where=kept, initial=np.inf)
    settled = (lowest == np.max(scores, axis=1, where=free, initial=-np.inf)) & free.any(axis=1)
    equal = scores[settled] == lowest[settled, None]
    if active is not None:
        equal &= active[settled]
    return Tie(int(np.count_nonzero(equal)), int(np.count_nonzero(equal & kept[settled])))


def noteworthy(found: Mapping[str, Tie], kept: int) -> dict[str, Tie]:
    """The ties that matter to a mask of so many weights: all of them, or none."""
    settled = sum(min(tie.kept, tie.tied - tie.kept) for tie in found.values())
    tied, taken = sum(tie.tied for tie in found.values()), sum(tie.kept for tie in found.values())
    return dict(found) if max(settled, min(taken, tied - taken)) * NOTEWORTHY > kept else {}
