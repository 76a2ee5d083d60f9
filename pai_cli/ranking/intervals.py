"""Arithmetic of values with error bounds: each result's bounds hold whatever the operands are within theirs."""

from __future__ import annotations

import math
from dataclasses import dataclass

from pai_cli.spectral.result import Measure


class NoValueError(Exception):
    """An operation has no result; the text is the reason."""


@dataclass(frozen=True)
class Bounded:
    """A value known to lie between `low` and `high`."""

    low: float
    value: float
    high: float

    @staticmethod
    def of(measure: Measure) -> Bounded:
        """A measure that is present."""
        value, error = measure.value, measure.error or 0.0
        assert value is not None
        return _outward(value - error, value, value + error) if error else Bounded(value, value, value)

    def measure(self) -> Measure:
        """The value with the wider side of its bounds."""
        error = max(self.high - self.value, self.value - self.low)
        return Measure(self.value, math.nextafter(error, math.inf) if error else 0.0)


def add(a: Bounded, b: Bounded) -> Bounded:
    """a + b."""
    return _outward(a.low + b.low, a.value + b.value, a.high + b.high)


def negate(a: Bounded) -> Bounded:
    """-a, exactly."""
    return Bounded(-a.high, -a.value, -a.low)


def subtract(a: Bounded, b: Bounded) -> Bounded:
    """a - b."""
    return add(a, negate(b))


def multiply(a: Bounded, b: Bounded) -> Bounded:
    """a * b."""
    ends = (a.low * b.low, a.low * b.high, a.high * b.low, a.high * b.high)
    return _outward(min(ends), a.value * b.value, max(ends))


def divide(a: Bounded, b: Bounded) -> Bounded:
    """a / b; no value where b may be 0."""
    if b.low <= 0 <= b.high:
        raise NoValueError("divides by what is 0 within its error bound")
    ends = (a.low / b.low, a.low / b.high, a.high / b.low, a.high / b.high)
    return _outward(min(ends), a.value / b.value, max(ends))


def absolute(a: Bounded) -> Bounded:
    """abs(a)."""
    low = 0.0 if a.low <= 0 <= a.high else min(abs(a.low), abs(a.high))
    return Bounded(low, abs(a.value), max(abs(a.low), abs(a.high)))


def root(a: Bounded) -> Bounded:
    """The square root; of a value below 0 there is none."""
    if a.value < 0:
        raise NoValueError("takes the root of a value below 0")
    return _outward(math.sqrt(max(a.low, 0.0)), math.sqrt(a.value), math.sqrt(a.high), least=0.0)


def norm(parts: list[Bounded]) -> Bounded:
    """The root of the sum of squares."""
    absolutes = [absolute(part) for part in parts]
    low, value, high = (math.hypot(*ends) for ends in zip(*((a.low, a.value, a.high) for a in absolutes), strict=True))
    # hypot may be an ulp off where sqrt is not.
    return _outward(math.nextafter(low, 0.0), value, math.nextafter(high, math.inf), least=0.0)


def _outward(low: float, value: float, high: float, least: float = -math.inf) -> Bounded:
    """The bounds moved out by the rounding of one operation."""
    if not (math.isfinite(low) and math.isfinite(value) and math.isfinite(high)):
        raise NoValueError("passes the range of float64")
    return Bounded(max(least, math.nextafter(low, -math.inf)), value, math.nextafter(high, math.inf))
