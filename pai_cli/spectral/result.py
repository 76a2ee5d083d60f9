"""What the engine answers with: a value, its error bound, how it was found, and what to do when it was not."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import Enum

OVERFLOW = "past the range of float64"


class Outcome(Enum):
    """Whether an answer may be used; the text says why not, and what would help."""

    PROVED = "proved"
    TOO_WIDE = "error bound wider than asked for: the value lies within the bound given"
    NOT_CONVERGED = "not converged: raise most_products"
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
        return Measure(value, error + 8 * EPS * abs(value))


EPS = 2.0**-52


@dataclass(frozen=True)
class SingularPair:
    """The two largest singular values of a matrix, `sigma_1 >= sigma_2 >= 0`, each with an absolute error bound.

    `solver` names what ran ("closed form", "gram", "direct", "power"); `products` counts products with the matrix's
    Gram matrix (0 for direct methods). A value is given only when `outcome` is PROVED or TOO_WIDE; sigma_1 also
    when the graph has one singular value only (ONE_VALUE).
    """

    sigma_1: float | None
    sigma_2: float | None
    sigma_1_error: float | None
    sigma_2_error: float | None
    solver: str
    outcome: Outcome
    products: int = 0

    @property
    def first(self) -> Measure:
        """sigma_1 as a measure."""
        if self.sigma_1 is None:
            return Measure.missing(self.outcome.value)
        return Measure(self.sigma_1, self.sigma_1_error)

    @property
    def second(self) -> Measure:
        """sigma_2 as a measure."""
        if self.sigma_2 is None:
            return Measure.missing(self.outcome.value)
        return Measure(self.sigma_2, self.sigma_2_error)

    @property
    def gap(self) -> Measure:
        """The spectral gap sigma_1 - sigma_2 as a measure."""
        if self.sigma_1 is None or self.sigma_2 is None:
            return Measure.missing(self.outcome.value)
        assert self.sigma_1_error is not None
        assert self.sigma_2_error is not None
        return Measure.of(self.sigma_1 - self.sigma_2, self.sigma_1_error + self.sigma_2_error)


def unanswered(outcome: Outcome, solver: str, products: int = 0) -> SingularPair:
    """A pair without values: an empty graph, or a run that did not end in a proof."""
    return SingularPair(None, None, None, None, solver, outcome, products)


def root_interval(low: float, value: float, high: float) -> tuple[float, float]:
    """Square root of an eigenvalue known to lie in [low, high], and the absolute error bound of that root."""
    root = math.sqrt(max(value, 0.0))
    below = root - math.sqrt(max(low, 0.0))
    above = math.sqrt(max(high, 0.0)) - root
    return root, max(below, above) + EPS * root
