"""How many weights each layer keeps, when that is fixed beforehand."""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction
from math import floor, isfinite, prod
from typing import Literal

from pai_cli.errors import DensityError
from pai_cli.spelling import option

Shapes = Mapping[str, tuple[int, ...]]

CLASSIFIER_DENSITY = Fraction(3, 10)
"""Of the last linear layer under `smart-ratio`."""


def check_density(density: float) -> None:
    """Raise `DensityError` unless 0 < density <= 1."""
    if not (isfinite(density) and 0 < density <= 1):
        raise DensityError(
            f"density {float(density)}: must be above 0 and at most 1 "
            f"(the fraction of weights kept; {option('sparsity')} is the fraction removed)"
        )


def exact(share: float) -> Fraction:
    """The decimal that is written for a share: 0.29 of 50 are 14.5, though in binary a little less."""
    return Fraction(repr(float(share)))


def kept_count(density: float, total: int) -> int:
    """`density * total` rounded to the nearest whole number, halves up; of the `exact` density."""
    return floor(exact(density) * total + Fraction(1, 2))


def network_count(density: float, total: int) -> int:
    """How many of `total` weights a density keeps. Raises `DensityError` when out of range or fewer than one."""
    check_density(density)
    count = kept_count(density, total)
    if count == 0:
        raise DensityError(
            f"density {float(density)} keeps fewer than one of {total:,} weights; the smallest is {1 / total:.3g}"
        )
    return count


def layer_counts(kind: Literal["uniform", "erk", "smart-ratio"], shapes: Shapes, density: float) -> dict[str, int]:
    """How many weights each layer keeps; `shapes` are the weights' shapes by name, none of them empty.

    uniform: `density` times the layer's size, rounded to nearest, halves up, so that a layer far smaller than
    1/density may get none. erk: see `erk_counts`. smart-ratio: see `smart_ratio_counts`. Raises `DensityError` when
    the density is out of range or no layer keeps a weight.
    """
    total = sum(prod(shape) for shape in shapes.values())
    target = network_count(density, total)
    if kind == "erk":
        return erk_counts(shapes, target)
    if kind == "smart-ratio":
        return smart_ratio_counts(shapes, target)
    counts = {name: kept_count(density, prod(shape)) for name, shape in shapes.items()}
    if not any(counts.values()):
        largest = max(prod(shape) for shape in shapes.values())
        raise DensityError(
            f"density {float(density)} keeps no weight of any layer, of which the largest has {largest:,}; "
            f"the smallest for the same density in every layer is {1 / largest:.3g}"
        )
    return counts


def erk_counts(shapes: Shapes, target: int) -> dict[str, int]:
    """`target` weights shared out over the layers by the Erdos-Renyi kernel rule.

    Density of a layer proportional to (sum of its weight's dimensions) / (their product); a layer that would
    pass 1 is dense and the others are solved again. Whole numbers by largest remainder (ties: the earlier
    layer), so that the total is exactly `target`. Evci et al. 2020, https://arxiv.org/abs/1911.11134
    """
    sizes = {name: prod(shape) for name, shape in shapes.items()}
    sums = {name: sum(shape) for name, shape in shapes.items()}
    shares: dict[str, Fraction] = {}
    free = list(shapes)
    # Exact fractions: with floats a layer at density 1 could round past its size, and the total could miss by
    # one.
    while free:
        scale = Fraction(target - sum(int(n) for n in shares.values()), sum(sums[name] for name in free))
        over = [name for name in free if scale * sums[name] > sizes[name]]
        if not over:
            shares |= {name: scale * sums[name] for name in free}
            break
        shares |= {name: Fraction(sizes[name]) for name in over}
        free = [name for name in free if name not in over]
    return whole_counts({name: shares[name] for name in shapes}, target)


def smart_ratio_counts(shapes: Shapes, target: int) -> dict[str, int]:
    """`target` weights shared out over the layers by the smart ratio; `shapes` in network order.

    Density of layer l of L (counted from 1) proportional to (L-l+1)^2 + (L-l+1). What takes a layer past 1 goes to
    the next layers in order. The classifier, a last layer of two dimensions, keeps 0.3 of its weights (rounded, halves
    up) whatever the density; it follows the rule like the others where that would be more than half of `target`, and
    takes what no other layer has room for. Whole numbers by largest remainder (ties: the earlier layer), so that the
    total is exactly `target`. Su et al. 2020, https://arxiv.org/abs/2009.11094
    """
    sizes = {name: prod(shape) for name, shape in shapes.items()}
    names = list(shapes)
    classifier = names[-1] if len(shapes[names[-1]]) == 2 and len(names) > 1 else None
    fixed = floor(CLASSIFIER_DENSITY * sizes[classifier] + Fraction(1, 2)) if classifier else 0
    if 2 * fixed > target:
        classifier, fixed = None, 0
    ruled = [name for name in names if name != classifier]
    factors = {name: k * k + k for k, name in zip(range(len(names), 0, -1), names, strict=True)}
    scale = Fraction(target - fixed, sum(factors[name] * sizes[name] for name in ruled))
    shares: dict[str, Fraction] = {}
    surplus = Fraction(0)
    for name in ruled:
        wanted = scale * factors[name] * sizes[name] + surplus
        shares[name] = min(wanted, Fraction(sizes[name]))
        surplus = wanted - shares[name]
    if classifier:
        shares[classifier] = fixed + surplus
    return whole_counts(shares, target)


def whole_counts(shares: Mapping[str, Fraction], target: int) -> dict[str, int]:
    """Shares that sum to `target` as whole numbers that do, by largest remainder; ties go to the earlier layer."""
    counts = {name: floor(share) for name, share in shares.items()}
    by_remainder = sorted(shares, key=lambda name: counts[name] - shares[name])
    for name in by_remainder[: target - sum(counts.values())]:
        counts[name] += 1
    return counts
