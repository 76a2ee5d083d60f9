"""The sum over all paths of the products of their weights, as its logarithm, at any depth.

Numbers carry a power of two beside them, so that none overflows; nothing is ever subtracted, so that rounding errors only
add up, and their bound is known.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from pai_cli.models.unrolled.steps import Step, Use
from pai_cli.models.unrolled.tape import Tape
from pai_cli.spectral.result import OVERFLOW, Measure

NO_PATH = "no path of kept weights leads from the input to the output"
TOO_FAR_APART = "paths to the elements of one layer are further apart, in number or weight, than float64 spans"

_UNIT = 2.0**-53
_LOG_LARGEST, _LOG_LEAST = 500, -900  # powers of two within which nothing is lost; a product may take as much again


@dataclass(frozen=True, eq=False)
class Factors:
    """A layer's weights as factors of products: float64, 0 or more, times 2**power; those above 0 at least 2**least."""

    values: NDArray[np.float64]
    power: int = 0
    least: float = 0.0

    @staticmethod
    def ones(mask: NDArray[np.bool_]) -> Factors:
        """1 for a weight that is kept."""
        return Factors(mask.astype(np.float64))

    @staticmethod
    def magnitudes(weight: NDArray[np.floating], mask: NDArray[np.bool_]) -> Factors:
        """|w| for a weight that is kept."""
        kept = np.abs(weight[mask], dtype=np.float64)
        positive = kept[kept > 0]
        power = math.frexp(float(positive.max(initial=0.0)))[1]
        if abs(power) < _LOG_LARGEST:
            power = 0
        values = np.zeros(mask.shape)
        values[mask] = np.ldexp(kept, -power)
        return Factors(values, power, math.log2(float(positive.min())) - power if positive.size else 0.0)


Factor = Callable[[str], Factors]


class _Lost(Exception):  # noqa: N818  the pass ends: there is a reason, and no number
    """A number below the range of float64, or above."""


@dataclass(frozen=True)
class _Scaled:
    """Numbers times 2**power. Each that is not 0 is at least 2**least; `error`: the relative bound on any of them."""

    tensor: torch.Tensor
    power: int = 0
    least: float = 0.0
    error: float = 0.0


def log_sum(tape: Tape, factor: Factor) -> Measure:
    """The natural logarithm of the sum over all paths from input to output of the product of their weights.

    `factor`: each layer's weights by its name; with ones, it is of the number of paths. Missing where there is no path, and
    where float64 does not hold what one layer spans, which is told and never passed over.
    """
    try:
        returned = [scaled for scaled in _passed(tape, factor) if scaled.tensor.any()]
    except _Lost as lost:
        return Measure.missing(str(lost))
    if not returned:
        return Measure.missing(NO_PATH)
    power = max(scaled.power for scaled in returned)
    total = math.fsum(float(scaled.tensor.sum()) * 2.0 ** max(scaled.power - power, -2000) for scaled in returned)
    most = max(scaled.error + scaled.tensor.numel() * _UNIT for scaled in returned)
    value = math.log(total) + power * math.log(2)
    # log(1 - e) and the rounding of the sum, of both logarithms and of the product.
    error = 1.01 * most + 8 * _UNIT * (1 + abs(math.log(total)) + abs(power))
    return Measure(value, error)


def _passed(tape: Tape, factor: Factor) -> list[_Scaled]:
    values = {0: _Scaled(torch.ones(tape.shapes[0], dtype=torch.float64))}
    with torch.no_grad():
        for number, step in enumerate(tape.steps):
            given = [values[one] for one in step.inputs]
            found = _used(step, given[0], factor) if isinstance(step, Use) else _applied(step, given)
            values.update(zip(step.outputs, found, strict=True))
            for over in tape.over_after.get(number, ()):
                del values[over]
    return [values[one] for one in tape.outputs]


def _used(use: Use, given: _Scaled, factor: Factor) -> list[_Scaled]:
    layer = factor(use.layer.name)
    if given.least + layer.least < _LOG_LEAST:
        given = _refreshed(given, layer.least)
    found = use.multiply(given.tensor, torch.from_numpy(layer.values))
    error = given.error + (use.terms + 2) * _UNIT
    return [_within(_Scaled(found, given.power + layer.power, given.least + layer.least, error))]


def _applied(step: Step, given: list[_Scaled]) -> list[_Scaled]:
    power = max(scaled.power for scaled in given)
    aligned = [_shifted(scaled, power) for scaled in given]
    error = max(scaled.error for scaled in given) + (step.terms - 1) * _UNIT
    least = min(scaled.least for scaled in aligned)
    return [_within(_Scaled(one, power, least, error)) for one in step.apply([scaled.tensor for scaled in aligned])]


def _shifted(scaled: _Scaled, power: int) -> _Scaled:
    """The same numbers with another, larger power of two beside them."""
    down = scaled.power - power
    if not down or not scaled.tensor.any():
        return _Scaled(scaled.tensor, power, scaled.least, scaled.error)
    if scaled.least + down < _LOG_LEAST:
        scaled = _refreshed(scaled, down)
    return _Scaled(torch.ldexp(scaled.tensor, torch.tensor(down)), power, scaled.least + down, scaled.error)


def _within(scaled: _Scaled) -> _Scaled:
    """The same numbers, scaled where they grow or fade."""
    most = float(scaled.tensor.max()) if scaled.tensor.numel() else 0.0
    if not math.isfinite(most):
        raise _Lost(OVERFLOW)
    if most == 0.0:
        return _Scaled(scaled.tensor, scaled.power, 0.0, scaled.error)
    power = math.frexp(most)[1]
    if abs(power) < _LOG_LARGEST // 2:
        return scaled
    if scaled.least - power < _LOG_LEAST:
        scaled = _refreshed(scaled, -power)
    return _Scaled(
        torch.ldexp(scaled.tensor, torch.tensor(-power)), scaled.power + power, scaled.least - power, scaled.error
    )


def _refreshed(scaled: _Scaled, change: float) -> _Scaled:
    """With the true least of the numbers. Raises `_Lost` where they would fall below the range of float64 by `change`."""
    positive = scaled.tensor[scaled.tensor > 0]
    least = math.log2(float(positive.min())) - 0.01 if positive.numel() else 0.0
    if least + change < _LOG_LEAST:
        raise _Lost(TOO_FAR_APART)
    return _Scaled(scaled.tensor, scaled.power, least, scaled.error)
