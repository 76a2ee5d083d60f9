"""Finite fields, as tables of sums and products."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from itertools import product
from typing import Any

import numpy as np

Ints = np.ndarray[Any, np.dtype[np.int64]]


@dataclass(frozen=True)
class Field:
    """The field of `order` elements, numbered 0 to order - 1 with 0 and 1 at their own places.

    `plus`, `times`: (order, order) tables. Elements are polynomials over the prime field; number k has the digits of k in
    base p as its coefficients.
    """

    order: int
    plus: Ints
    times: Ints


def is_prime(number: int) -> bool:
    """Whether `number` is a prime."""
    return number > 1 and all(number % k for k in range(2, int(number**0.5) + 1))


def prime_power(order: int) -> tuple[int, int] | None:
    """(p, k) with order = p^k, p a prime and k >= 1; None when there is none."""
    if order < 2:
        return None
    prime = next(k for k in range(2, order + 1) if order % k == 0)
    power, rest = 0, order
    while rest % prime == 0:
        rest, power = rest // prime, power + 1
    return (prime, power) if rest == 1 else None


@cache
def field(order: int) -> Field:
    """The field with `order` elements. Raises `ValueError` when `order` is no power of a prime."""
    found = prime_power(order)
    if found is None:
        raise ValueError(f"there is no field of {order} elements")
    prime, power = found
    digits = (np.arange(order)[:, None] // prime ** np.arange(power)) % prime
    value = prime ** np.arange(power)
    plus = ((digits[:, None, :] + digits[None, :, :]) % prime) @ value
    powers = np.array(
        [sum(int(d) * int(v) for d, v in zip(one, value, strict=True)) for one in _generator(prime, power)]
    )
    logarithm = np.zeros(order, dtype=np.int64)
    logarithm[powers] = np.arange(order - 1)
    times = powers[(logarithm[:, None] + logarithm[None, :]) % (order - 1)]
    times[0, :] = times[:, 0] = 0
    return Field(order, plus, times)


def _generator(prime: int, power: int) -> list[tuple[int, ...]]:
    """The powers, from the 0th, of an element that generates every nonzero one, as coefficients from the lowest."""
    if power == 1:
        for element in range(1, prime):
            found = [pow(element, k, prime) for k in range(prime - 1)]
            if len(set(found)) == prime - 1:
                return [(one,) for one in found]
    for lower in product(range(prime), repeat=power):  # of x^power = lower, tried until x generates
        found_all = _powers_of_x(prime, lower)
        if len(found_all) == prime**power - 1:
            return found_all
    raise AssertionError("every finite field has a generator")


def _powers_of_x(prime: int, lower: tuple[int, ...]) -> list[tuple[int, ...]]:
    """1, x, x^2, ... modulo x^power = lower, until one repeats."""
    one = (1, *[0] * (len(lower) - 1))
    seen, current = [one], one
    while True:
        top = current[-1]
        current = tuple((c + top * b) % prime for c, b in zip((0, *current[:-1]), lower, strict=True))
        if current == one or not any(current) or len(seen) >= prime ** len(lower):
            return seen if current == one else []
        seen.append(current)
