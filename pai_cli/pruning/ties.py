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
        return Cut(self, tied, keep, self.generator() if self.rule == "random" else None)

    def generator(self) -> np.random.Generator:
        """Another one at each cut of a run, a function of the seed."""
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
    """One choice among tied weights, made layer by layer in network order."""

    ties: Ties
    tied: int
    keep: int
    random: np.random.Generator | None

    def __post_init__(self) -> None:
        self._settles = self.tied > self.keep

    def among(self, name: str, places: NDArray[np.intp]) -> NDArray[np.intp]:
        """Those that are kept of a layer's tied places: the first, or every choice as likely as another."""
        count = len(places)
        if self.random is None:
            chosen = places[: self.keep]
        else:
            some = int(self.random.hypergeometric(count, self.tied - count, self.keep)) if self.keep else 0
            chosen = self.random.choice(places, some, replace=False)
        if count and self._settles:
            self.ties.note(name, Tie(count, len(chosen)))
        self.tied, self.keep = self.tied - count, self.keep - len(chosen)
        return chosen


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
