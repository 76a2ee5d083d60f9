"""One scope as arrays: its metrics, its masks, and those of them that have values."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from pai_cli.ranking.correlation import Scope
from pai_cli.ranking.statistics import LEVEL, Floats, Ints, Sample, dense_ranks, exchangeable, smallest_p

PERFECT = "a perfect order: every sample of it is one too, which is no interval"
DECIMALS = 12  # of an accuracy: what is beyond is rounding of its mean


@dataclass(frozen=True)
class Scoped:
    """A scope's metrics and masks as arrays.

    `values`, `errors`: shape (metrics, masks), NaN where a value is missing; `accuracy`: (masks,); `strata`: the indices of
    each group that compares; `clusters`: (masks,), equal for entries that are one mask. `controls`: what each control is
    called, with its values and errors, each (masks,).
    """

    scope: Scope
    names: tuple[str, ...]
    values: Floats
    errors: Floats
    accuracy: Floats
    strata: tuple[Ints, ...]
    clusters: Ints
    controls: Mapping[str, tuple[Floats, Floats]] = field(default_factory=dict)


@dataclass(frozen=True)
class Part:
    """Some of the entries, `kept`, and what metrics that have values for them share.

    `groups`: of `exchangeable`; `too_few`: why they say nothing.
    """

    kept: Ints
    strata: tuple[Ints, ...]
    y: Floats
    y_rank: Ints
    groups: list[Ints]
    too_few: str | None

    @property
    def masks(self) -> int:
        """How many: fewer than entries where one is in several settings."""
        return sum(len(group) for group in self.groups)

    @property
    def repeated(self) -> bool:
        """Whether a mask is in several settings, so that its entries depend on each other."""
        return self.masks < len(self.y)


def alike(values: Floats, rows: Iterable[int]) -> list[list[int]]:
    """Rows grouped by where they have values."""
    groups: dict[bytes, list[int]] = {}
    for row in rows:
        groups.setdefault(np.isfinite(values[row]).tobytes(), []).append(row)
    return list(groups.values())


def part_of(scoped: Scoped, present: np.ndarray) -> Part:
    """The entries that are `present`, shape (masks,)."""
    place = np.cumsum(present) - 1
    strata = tuple(place[at[present[at]]] for at in scoped.strata if present[at].any())
    y = np.round(scoped.accuracy[present], DECIMALS)
    y_rank = dense_ranks(y)
    groups = exchangeable(strata, scoped.clusters[present])
    return Part(np.flatnonzero(present), strata, y, y_rank, groups, _too_few(y_rank, groups, len(scoped.names)))


def sample_of(scoped: Scoped, part: Part, row: int) -> Sample:
    """A metric over them."""
    x, errors = scoped.values[row, part.kept], scoped.errors[row, part.kept]
    return Sample(x, part.y, dense_ranks(x, errors), part.y_rank, part.strata)


def _too_few(y_rank: Ints, groups: Sequence[Ints], metrics: int) -> str | None:
    """Why nothing can be said, if so: not even a perfect order would be told from chance, among that many metrics."""
    smallest = smallest_p(y_rank, groups)
    corrected = min(1.0, smallest * metrics)
    if corrected <= LEVEL:
        return None
    count = sum(map(len, groups))
    tried = f", {corrected:.2g} after correction for {metrics} metrics" if metrics > 1 else ""
    told = f"too few masks to say anything: with {count} the smallest possible p of tau is {smallest:.2g}{tried}"
    if len(groups) > 1 or len(np.unique(y_rank)) < len(y_rank):
        return told
    needed = next(n for n in range(2, 200) if 2 / math.factorial(n) * metrics <= LEVEL)
    return f"{told}; it takes {needed}"
