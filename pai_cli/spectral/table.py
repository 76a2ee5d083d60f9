"""What was measured of a network's layers, in columns: a row a layer."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import chain
from typing import Any, NamedTuple, overload

import numpy as np

from pai_cli.spectral.conventions import Convention
from pai_cli.spectral.graph import Counts
from pai_cli.spectral.layout import PLAIN, Layout
from pai_cli.spectral.result import EPS, LEAST, OVERFLOW, Floats, Ints, Measure, Outcome


@dataclass(frozen=True, eq=False)
class Column:
    """One measure of every layer.

    `values` and the absolute bounds on their `errors`: float64, NaN where there is no value; `reasons`: why not, else None.
    """

    values: Floats
    errors: Floats
    reasons: tuple[str | None, ...]

    @staticmethod
    def of(values: Floats, errors: Floats, reasons: Sequence[str | None]) -> Column:
        """The values that no reason is given against, with their errors."""
        if not any(reasons):
            return Column(values, errors, tuple(reasons))
        there = [reason is None for reason in reasons]
        return Column(np.where(there, values, np.nan), np.where(there, errors, np.nan), tuple(reasons))

    @staticmethod
    def computed(values: Floats, errors: Any, reasons: Sequence[str | None]) -> Column:
        """The same of values that a few operations led to: bounds are widened by their rounding, as `Measure.of` does, and
        values past float64 are missing.
        """
        finite = np.isfinite(values) & np.isfinite(errors)
        if not finite.all():
            pairs = zip(finite.tolist(), reasons, strict=True)
            reasons = [OVERFLOW if reason is None and not there else reason for there, reason in pairs]
        below = np.where((values != 0) | (np.asarray(errors) != 0), 8 * LEAST, 0.0)
        return Column.of(values, errors + 8 * EPS * np.abs(values) + below, reasons)

    @staticmethod
    def listed(measures: Sequence[Measure]) -> Column:
        """The column of these measures."""
        values = np.array([one.value for one in measures], dtype=np.float64)
        errors = np.array([one.error for one in measures], dtype=np.float64)
        return Column(values, errors, tuple(one.reason for one in measures))

    @staticmethod
    def missing(reason: str, count: int) -> Column:
        """No value of any of `count` layers, for one reason."""
        none = np.full(count, np.nan)
        return Column(none, none, (reason,) * count)

    @staticmethod
    def joined(columns: Sequence[Column]) -> Column:
        """The rows of all columns."""
        return Column(
            np.concatenate([one.values for one in columns]),
            np.concatenate([one.errors for one in columns]),
            tuple(chain.from_iterable(one.reasons for one in columns)),
        )

    def __len__(self) -> int:
        return len(self.reasons)

    @overload
    def __getitem__(self, at: int) -> Measure: ...

    @overload
    def __getitem__(self, at: slice) -> Column: ...

    def __getitem__(self, at: Any) -> Any:
        """One layer's measure; of a slice the column of these layers, a view."""
        reason = self.reasons[at]
        if isinstance(at, slice):
            return Column(self.values[at], self.errors[at], self.reasons[at])
        return Measure(float(self.values[at]), float(self.errors[at])) if reason is None else Measure.missing(reason)

    @property
    def lists(self) -> tuple[list[float | None], list[float | None]]:
        """Values and errors, None where there is none."""
        values: list[float | None] = self.values.tolist()
        errors: list[float | None] = self.errors.tolist()
        if any(self.reasons):
            for at, reason in enumerate(self.reasons):
                if reason is not None:
                    values[at] = errors[at] = None
        return values, errors


class Tensor(NamedTuple):
    """What a layer is called, the shape of its weight, and how that is unrolled."""

    name: str
    shape: tuple[int, ...]
    layout: Layout = PLAIN


@dataclass(frozen=True)
class LayerReport:
    """One layer's name, tensor shape, counts and measures (names as in `catalogue.METRICS`), and how they were found.

    `layout`: by which it was unrolled, which may be assumed. `solver`: of the whole mask. `outcomes`: of every pair that was
    asked for: mask, its subgraphs, and the same of the weights. `convention`: whose gaps and subgraphs these are.
    """

    name: str
    shape: tuple[int, ...]
    layout: Layout
    counts: Counts
    n_regular: int
    measures: dict[str, Measure]
    solver: str
    outcomes: tuple[Outcome, ...]
    convention: Convention

    @property
    def parameters(self) -> int:
        """Weights in the tensor, kept or not (a grouped layer's matrix has more entries, all zero outside the groups)."""
        return math.prod(self.shape)

    @property
    def told(self) -> str:
        """What a person should know before using the numbers: that every singular value is proved, or what is not."""
        return _told(self.outcomes)


def _told(outcomes: tuple[Outcome, ...]) -> str:
    return "; ".join(dict.fromkeys(o.value for o in outcomes if o is not Outcome.PROVED)) or Outcome.PROVED.value


@dataclass(frozen=True, eq=False)
class LayerTable(Sequence[LayerReport]):
    """Every layer of a network; fields as of `LayerReport`, with an entry a layer each.

    `counts`: of int64 arrays.
    """

    names: tuple[str, ...]
    shapes: tuple[tuple[int, ...], ...]
    layouts: tuple[Layout, ...]
    counts: Counts
    n_regular: Ints
    measures: dict[str, Column]
    solvers: tuple[str, ...]
    outcomes: tuple[tuple[Outcome, ...], ...]
    convention: Convention = Convention.H23

    def __len__(self) -> int:
        return len(self.names)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, LayerTable) and list(self) == list(other)

    __hash__ = None  # type: ignore[assignment]

    @overload
    def __getitem__(self, at: int) -> LayerReport: ...

    @overload
    def __getitem__(self, at: slice) -> LayerTable: ...

    def __getitem__(self, at: Any) -> Any:
        """One layer's report; of a slice the table of these rows, a view."""
        whole = isinstance(at, slice)
        numbers: list[Any] = [count[at] if whole else int(count[at]) for count in (*self.counts, self.n_regular)]
        return (LayerTable if whole else LayerReport)(
            self.names[at],
            self.shapes[at],
            self.layouts[at],
            Counts(*numbers[:-1]),
            numbers[-1],
            {name: column[at] for name, column in self.measures.items()},
            self.solvers[at],
            self.outcomes[at],
            self.convention,
        )

    @staticmethod
    def joined(tables: Sequence[LayerTable]) -> LayerTable:
        """The rows of all tables, of which there is one at least; all have the same measures."""
        first = tables[0]
        if len(tables) == 1:
            return first

        def every(field: str) -> tuple[Any, ...]:
            return tuple(chain.from_iterable(getattr(table, field) for table in tables))

        return LayerTable(
            every("names"),
            every("shapes"),
            every("layouts"),
            Counts(*map(np.concatenate, zip(*(table.counts for table in tables), strict=True))),
            np.concatenate([table.n_regular for table in tables]),
            {name: Column.joined([table.measures[name] for table in tables]) for name in first.measures},
            every("solvers"),
            every("outcomes"),
            first.convention,
        )

    def extended(self, columns: Mapping[str, Column]) -> LayerTable:
        """The table with more measures."""
        return replace(self, measures={**self.measures, **columns})

    def only(self, names: Iterable[str]) -> LayerTable:
        """The table with these measures alone."""
        return replace(self, measures={name: self.measures[name] for name in names})

    @cached_property
    def totals(self) -> Ints:
        """Weights in each tensor."""
        return np.array([math.prod(shape) for shape in self.shapes], dtype=np.int64)

    @property
    def rows(self) -> list[LayerTable]:
        """Tables of a row each."""
        return [self[at : at + 1] for at in range(len(self))]

    @property
    def told(self) -> list[str]:
        """As of `LayerReport`."""
        known = {some: _told(some) for some in set(self.outcomes)}
        return [known[some] for some in self.outcomes]

    @property
    def unanswered(self) -> tuple[str, ...]:
        """Layers where a solver ended without singular values."""
        return self.where(Outcome.NOT_CONVERGED in outcomes for outcomes in self.outcomes)

    def where(self, flags: Iterable[bool]) -> tuple[str, ...]:
        """The names of the layers that are flagged."""
        return tuple(name for name, flag in zip(self.names, flags, strict=True) if flag)


_NONE = np.zeros(0, dtype=np.int64)

NO_LAYERS = LayerTable((), (), (), Counts(*[_NONE] * 6), _NONE, {}, (), ())
"""Where only the network's means were asked for."""
