"""What the engine answers with: a value, its error bound, how it was found, and what to do when it was not."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from itertools import pairwise
from typing import Any

import numpy as np

from pai_cli.spelling import option

Floats = np.ndarray[Any, np.dtype[np.float64]]
Ints = np.ndarray[Any, np.dtype[np.int64]]

OVERFLOW = "past the range of float64"


class Outcome(Enum):
    """Whether an answer may be used; the text says why not, and what would help."""

    PROVED = "proved"
    NOT_PROVED = f"not proved: that no other singular value is larger takes {option('certify')}"
    WIDE_NOT_PROVED = f"not proved, and the error bound is wider than asked for: both take {option('certify')}"
    TOO_FULL = (
        "not proved: a factor of this graph fills more memory than is taken for it, as those of large random graphs do"
    )
    TOO_WIDE = "error bound wider than asked for: the value lies within the bound given"
    MISSED = "not proved: a larger singular value was missed"  # within the engine only: another solver follows
    NOT_CONVERGED = f"not converged: {option('solver', 'gram')} or direct goes another way"
    COLLAPSED = "collapsed"
    ONE_VALUE = "fewer than two singular values"


@dataclass(frozen=True)
class Measure:
    """One number with the absolute bound on its error, or the reason why there is none.

    Exactly one of `value` and `reason` is None.
    """

    value: float | None
    error: float | None = None
    reason: str | None = None

    def __post_init__(self) -> None:
        if (self.value is None) == (self.reason is None):
            raise ValueError("a measure has a value or a reason, not both and not neither")

    @property
    def present(self) -> bool:
        """Whether there is a value."""
        return self.value is not None

    @staticmethod
    def missing(reason: str) -> Measure:
        """No value, and why."""
        return Measure(None, None, reason)

    @staticmethod
    def of(value: float, error: float = 0.0) -> Measure:
        """A value with the bound on its error, widened by the rounding of the few operations that led to it.

        A value past float64 is missing.
        """
        if not math.isfinite(value) or not math.isfinite(error):
            return Measure.missing(OVERFLOW)
        return Measure(value, error + 8 * EPS * abs(value) + lost(8, value, error))


EPS = 2.0**-52

LEAST = 2.0**-1074  # the smallest number above 0, and what a result below the normal range is rounded to multiples of


def lost(operations: int, *numbers: float) -> float:
    """What so many operations with these numbers may lose below the normal range, where EPS says nothing; 0 of zeros."""
    return operations * LEAST if any(numbers) else 0.0


@dataclass(frozen=True)
class SingularPair:
    """The two largest singular values of a matrix, `sigma_1 >= sigma_2 >= 0`, each with an absolute error bound.

    `solver` names what ran (see `choice.Solver`, and "closed form"); `products` counts products with the matrix's Gram
    matrix (0 for direct methods). A value is given only when `outcome` is PROVED, TOO_WIDE or NOT_PROVED (then its bound
    says that a singular value is that close, not which one it is); sigma_1 also when the graph has one singular value only
    (ONE_VALUE).
    """

    sigma_1: float | None
    sigma_2: float | None
    sigma_1_error: float | None
    sigma_2_error: float | None
    solver: str
    outcome: Outcome
    products: int = 0

    def within(self, tolerance: float) -> bool:
        """Whether both values are there, with bounds of at most `tolerance` * sigma_1."""
        if self.sigma_1 is None or self.sigma_1_error is None or self.sigma_2_error is None:
            return False
        return max(self.sigma_1_error, self.sigma_2_error) <= tolerance * self.sigma_1


def unanswered(outcome: Outcome, solver: str, products: int = 0) -> SingularPair:
    """A pair without values: an empty graph, or a run that did not end in a proof."""
    return SingularPair(None, None, None, None, solver, outcome, products)


@dataclass
class Pairs:
    """The same for many problems at once, an entry each; NaN stands where a pair has no value.

    sigma_1, sigma_2, error_1, error_2: float64. outcome: `Outcome`s. solver: names. products: int64.
    """

    sigma_1: Floats
    sigma_2: Floats
    error_1: Floats
    error_2: Floats
    outcome: list[Outcome]
    solver: list[str]
    products: Ints

    @staticmethod
    def blank(count: int) -> Pairs:
        """Room for `count` pairs, none answered."""
        a, b, c, d = np.full((4, count), np.nan)
        return Pairs(a, b, c, d, [Outcome.NOT_CONVERGED] * count, [""] * count, np.zeros(count, dtype=np.int64))

    def __len__(self) -> int:
        return len(self.outcome)

    def __getitem__(self, at: int) -> SingularPair:
        values = (self.sigma_1[at], self.sigma_2[at], self.error_1[at], self.error_2[at])
        one, two, error_1, error_2 = (None if math.isnan(value) else float(value) for value in values)
        return SingularPair(one, two, error_1, error_2, self.solver[at], self.outcome[at], int(self.products[at]))

    def __setitem__(self, at: int, pair: SingularPair) -> None:
        for column, value in zip(
            (self.sigma_1, self.sigma_2, self.error_1, self.error_2),
            (pair.sigma_1, pair.sigma_2, pair.sigma_1_error, pair.sigma_2_error),
            strict=True,
        ):
            column[at] = math.nan if value is None else value
        self.outcome[at], self.solver[at], self.products[at] = pair.outcome, pair.solver, pair.products

    @staticmethod
    def of(pairs: list[SingularPair]) -> Pairs:
        """A table of these pairs."""
        table = Pairs.blank(len(pairs))
        for at, pair in enumerate(pairs):
            table[at] = pair
        return table

    @staticmethod
    def joined(tables: Sequence[Pairs]) -> Pairs:
        """The pairs of all tables, of which there is one at least."""
        return Pairs(
            np.concatenate([one.sigma_1 for one in tables]),
            np.concatenate([one.sigma_2 for one in tables]),
            np.concatenate([one.error_1 for one in tables]),
            np.concatenate([one.error_2 for one in tables]),
            [outcome for one in tables for outcome in one.outcome],
            [solver for one in tables for solver in one.solver],
            np.concatenate([one.products for one in tables]),
        )

    def put(self, at: Ints, pairs: Pairs) -> None:
        """Set the pairs at these places."""
        self.sigma_1[at], self.sigma_2[at] = pairs.sigma_1, pairs.sigma_2
        self.error_1[at], self.error_2[at] = pairs.error_1, pairs.error_2
        self.products[at] = pairs.products
        for place, outcome, solver in zip(at.tolist(), pairs.outcome, pairs.solver, strict=True):
            self.outcome[place], self.solver[place] = outcome, solver

    def take(self, at: Ints) -> Pairs:
        """The pairs at these places."""
        return Pairs(
            self.sigma_1[at],
            self.sigma_2[at],
            self.error_1[at],
            self.error_2[at],
            [self.outcome[k] for k in at.tolist()],
            [self.solver[k] for k in at.tolist()],
            self.products[at],
        )

    def split(self, sizes: Sequence[int]) -> list[Pairs]:
        """The first so many, the next so many, and so on: views of them."""
        ends = np.cumsum(sizes).tolist()
        return [
            Pairs(
                self.sigma_1[begin:end],
                self.sigma_2[begin:end],
                self.error_1[begin:end],
                self.error_2[begin:end],
                self.outcome[begin:end],
                self.solver[begin:end],
                self.products[begin:end],
            )
            for begin, end in pairwise([0, *ends])
        ]

    @property
    def gaps(self) -> tuple[Floats, Floats]:
        """The spectral gaps sigma_1 - sigma_2 and the bounds on their errors."""
        gap, error = self.sigma_1 - self.sigma_2, self.error_1 + self.error_2
        return gap, error + 4 * EPS * (np.abs(gap) + error)


def root_interval(low: float, value: float, high: float) -> tuple[float, float]:
    """Square root of an eigenvalue known to lie in [low, high], and the absolute error bound of that root."""
    root, error = root_intervals(np.array([low]), np.array([value]), np.array([high]))
    return float(root[0]), float(error[0])


def root_intervals(low: Floats, value: Floats, high: Floats) -> tuple[Floats, Floats]:
    """`root_interval` of many."""
    root = np.sqrt(np.maximum(value, 0.0))
    below = root - np.sqrt(np.maximum(low, 0.0))
    above = np.sqrt(np.maximum(high, 0.0)) - root
    return root, np.maximum(below, above) + EPS * root
