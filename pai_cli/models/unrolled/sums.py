"""The sum over all paths of the products of their weights, as its logarithm, at any depth.

Numbers carry a power of two beside them, so that none overflows; nothing is ever subtracted, so that rounding errors only
add up, and their bound is known.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pai_cli.models.unrolled.folded import Folded
from pai_cli.models.unrolled.kept import Kept, Matrix
from pai_cli.models.unrolled.passes import forwards
from pai_cli.models.unrolled.steps import Fixed, Use
from pai_cli.models.unrolled.tape import Tape
from pai_cli.spectral.result import OVERFLOW, Measure

NO_PATH = "no path of kept weights leads from the input to the output"
TOO_FAR_APART = "paths to the elements of one layer are further apart, in number or weight, than float64 spans"

_UNIT = 2.0**-53
_LOG_LARGEST, _LOG_LEAST = 500, -900  # powers of two within which nothing is lost; a product may take as much again


@dataclass(frozen=True, eq=False)
class Factors:
    """A layer's weights as factors of products: float64, 0 or more, times 2**power; those above 0 at least 2**least."""

    matrix: Matrix
    power: int = 0
    least: float = 0.0

    @staticmethod
    def ones(kept: Kept) -> Factors:
        """1 for a weight that is kept."""
        return Factors(kept.ones)

    @staticmethod
    def magnitudes(weight: NDArray[np.floating], kept: Kept) -> Factors:
        """|w| for a weight that is kept."""
        values = np.abs(kept.values(weight), dtype=np.float64)
        most = float(values.max(initial=0.0))
        power = math.frexp(most)[1]
        if abs(power) < _LOG_LARGEST:
            power = 0
        if most == 0.0:
            return Factors(kept.matrix(values))
        least = float(values.min(initial=most, where=values > 0))
        return Factors(kept.matrix(np.ldexp(values, -power) if power else values), power, math.log2(least) - power)


Factor = Callable[[str], Factors]


class _Lost(Exception):  # noqa: N818  the pass ends: there is a reason, and no number
    """A number below the range of float64, or above."""


@dataclass(frozen=True)
class _Scaled:
    """Numbers times 2**power. Each that is not 0 is at least 2**least; `error`: the relative bound on any of them."""

    tensor: Folded
    power: int = 0
    least: float = 0.0
    error: float = 0.0


def log_sum(tape: Tape, factor: Factor) -> Measure:
    """The natural logarithm of the sum over all paths from input to output of the product of their weights.

    `factor`: each layer's weights by its name; with ones, it is of the number of paths. Missing where there is no path, and
    where float64 does not hold what one layer spans, which is told and never passed over.
    """
    try:
        with np.errstate(over="ignore", under="ignore"):
            found = _passed(tape, lambda use, _: factor(use.layer.name))
            returned = [scaled for scaled in found if scaled.tensor.values.any()]
    except _Lost as lost:
        return Measure.missing(str(lost))
    if not returned:
        return Measure.missing(NO_PATH)
    power = max(scaled.power for scaled in returned)
    whole = [scaled.tensor.unfolded() for scaled in returned]
    total = math.fsum(
        float(one.sum()) * 2.0 ** max(scaled.power - power, -2000) for one, scaled in zip(whole, returned, strict=True)
    )
    most = max(scaled.error + one.size * _UNIT for one, scaled in zip(whole, returned, strict=True))
    value = math.log(total) + power * math.log(2)
    # log(1 - e) and the rounding of the sum, of both logarithms and of the product.
    error = 1.01 * most + 8 * _UNIT * (1 + abs(math.log(total)) + abs(power))
    return Measure(value, error)


def count_along(tape: Tape, choose: Callable[[Use, Folded], Kept]) -> str:
    """Send numbers of paths through the network, whose kept weights are chosen on the way; gives why that ended, or "".

    `choose`: what a use of a layer keeps, by how many paths of kept weights come to each element that it reads: all of them
    times one power of two.
    """
    try:
        with np.errstate(over="ignore", under="ignore"):
            _passed(tape, lambda use, read: Factors.ones(choose(use, read)))
    except _Lost as lost:
        return str(lost)
    return ""


def _passed(tape: Tape, factor: Callable[[Use, Folded], Factors]) -> list[_Scaled]:
    def used(use: Use, given: _Scaled) -> _Scaled:
        layer = factor(use, given.tensor)
        if given.least + layer.least < _LOG_LEAST:
            given = _refreshed(given, layer.least)
        found = use.apply(given.tensor, layer.matrix, tape.shapes[use.outputs[0]])
        error = given.error + (use.terms + 2) * _UNIT
        return _within(_Scaled(found, given.power + layer.power, given.least + layer.least, error))

    return forwards(tape, _Scaled(Folded.constant(tape.shapes[0], 1)), used, _applied)


def _applied(step: Fixed, given: list[_Scaled]) -> list[_Scaled]:
    power = max(scaled.power for scaled in given)
    aligned = [_shifted(scaled, power) for scaled in given]
    error = max(scaled.error for scaled in given) + (step.terms - 1) * _UNIT
    least = min(scaled.least for scaled in aligned)
    return [_within(_Scaled(one, power, least, error)) for one in step.apply([scaled.tensor for scaled in aligned])]


def _times(value: Folded, power: int) -> Folded:
    return Folded(np.ldexp(value.values, power), value.places)


def _shifted(scaled: _Scaled, power: int) -> _Scaled:
    """The same numbers with another, larger power of two beside them."""
    down = scaled.power - power
    if not down or not scaled.tensor.values.any():
        return _Scaled(scaled.tensor, power, scaled.least, scaled.error)
    if scaled.least + down < _LOG_LEAST:
        scaled = _refreshed(scaled, down)
    return _Scaled(_times(scaled.tensor, down), power, scaled.least + down, scaled.error)


def _within(scaled: _Scaled) -> _Scaled:
    """The same numbers, scaled where they grow or fade."""
    most = float(scaled.tensor.values.max(initial=0.0))
    if not math.isfinite(most):
        raise _Lost(OVERFLOW)
    if most == 0.0:
        return _Scaled(scaled.tensor, scaled.power, 0.0, scaled.error)
    power = math.frexp(most)[1]
    if abs(power) < _LOG_LARGEST // 2:
        return scaled
    if scaled.least - power < _LOG_LEAST:
        scaled = _refreshed(scaled, -power)
    return _Scaled(_times(scaled.tensor, -power), scaled.power + power, scaled.least - power, scaled.error)


def _refreshed(scaled: _Scaled, change: float) -> _Scaled:
    """With the true least of the numbers. Raises `_Lost` where they would fall below the range of float64 by `change`."""
    values = scaled.tensor.values
    positive = values[values > 0]
    least = math.log2(float(positive.min())) - 0.01 if positive.size else 0.0
    if least + change < _LOG_LEAST:
        raise _Lost(TOO_FAR_APART)
    return _Scaled(scaled.tensor, scaled.power, least, scaled.error)
