"""Which columns of a table separate comparisons: those that say of what network, data set and density a row is.

What masks are compared within is told, and so is what looks as if it should separate them and does not: where masks of
different sparsity are compared, whatever follows sparsity seems to predict accuracy.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pai_cli.errors import ColumnError
from pai_cli.files.messages import all_names, some_names
from pai_cli.files.rows import Row, Rows, finite, number
from pai_cli.ranking.columns import AMOUNTS, Kind, kind_of, kind_of_shares
from pai_cli.ranking.densities import Densities, read_densities
from pai_cli.ranking.scored import EQUAL_DENSITIES, Within
from pai_cli.spelling import option

NO_GROUPS = "none"
DENSITY, SEED = "density", "seed"
GROUPS = (Kind.NETWORK, Kind.DATASET, Kind.CONVENTION, *AMOUNTS)
NAMED = (Kind.NETWORK, Kind.DATASET, Kind.METHOD, *AMOUNTS, Kind.REPEAT)
MANY, OFF = 3, 2.0  # densities that came of others: so many times as many values, within this factor of them
SHOWN = 8
FEW, REPEATED = 12, 3  # different values that a column that looks like a group has at most, and rows of each at least


@dataclass(frozen=True)
class Grouping:
    """What separates comparisons, and what columns that are no metrics say.

    `within`: the columns that separate; `densities`: of the column that tells density, if any does, whether it separates or
    not. `known`: columns that are no metrics with what their names say, None for one that was asked for as a group alone;
    `again`: those among them that tell the same densities once more; `came`: columns of densities that came of those.
    """

    within: Within
    densities: Densities | None
    known: Mapping[str, Kind | None]
    again: tuple[str, ...] = ()
    came: tuple[str, ...] = ()

    def setting(self, row: Row) -> str:
        """Of a row, in words."""
        return ", ".join(f"{column} {_label(row.cells[column])}" for column in self.within.settings)

    def density(self, row: Row) -> float | None:
        """Of a row, 0 to 1."""
        return None if self.densities is None else self.densities.by_line[row.line]

    def method(self, row: Row) -> str | None:
        """Of a row, as the first column has it that names methods."""
        return next((row.cells[column] for column, kind in self.known.items() if kind is Kind.METHOD), "") or None

    def name(self, row: Row) -> str:
        """All that is known of a row: network, data set, method, density and repeat."""
        columns = (column for kind in NAMED for column, own in self.known.items() if own is kind)
        return " ".join(cell for column in columns if (cell := row.cells[column]))


def grouping_of(table: Rows, group_by: Sequence[str] | None) -> Grouping:
    """The groups of a table: the columns of `group_by`, or `NO_GROUPS`, or by default those that are known by their names.

    Raises `ColumnError` for a column that is not there, and as `read_densities` does.
    """
    kinds = {column: kind for column in table.columns if (kind := _kind(table, column)) is not None}
    densities, again, came = _densities(table, kinds)
    kinds = {column: kind for column, kind in kinds.items() if column not in came}
    told = [] if densities is None else [densities.column, *again]
    wanted = (
        [column for column in kinds if kinds[column] in GROUPS] if group_by is None else asked_columns(table, group_by)
    )
    settings = tuple(column for column in wanted if column not in told)
    density = told[0] if any(column in told for column in wanted) else None
    known = {column: kinds.get(column) for column in table.columns if column in kinds or column in wanted}
    return Grouping(Within(settings, density), densities, known, tuple(again), tuple(came))


def remarks(table: Rows, grouping: Grouping, others: Sequence[str], *, default: bool) -> list[str]:
    """What there is to say of a grouping: what separates comparisons (where that is the `default`), how densities were read,
    and what masks are compared across. `others`: columns that are not known, which may look as if they named groups.
    """
    told = []
    if default:
        told.append(_separating(grouping))
    elif grouping.densities is not None and grouping.densities.read_as:
        told.append(f"density is {grouping.densities.read_as}")
    if grouping.came:
        told.append(f"{_named(grouping.came)}: densities that came of {_density_name(grouping)}, taken for a metric")
    aside = (SEED, *grouping.within.names)
    repeats = [column for column, kind in grouping.known.items() if kind is Kind.REPEAT and column not in aside]
    if repeats:
        told.append(f"{_named(repeats)}: taken for the number of a row or repeat, not for a metric")
    aside = (*grouping.again, *grouping.within.names)
    groups = [column for column, kind in grouping.known.items() if kind in GROUPS and column not in aside]
    pooled = [column for column in groups if _differs(table, grouping, column)]
    if pooled:
        left_out = f"{option('group_by')} leaves {'it' if len(pooled) == 1 else 'them'} out"
        told.append(f"masks of different {_named(pooled)} are compared with each other: {left_out}")
    alike = {column: values for column in others if (values := _few(table, column))}
    mixed = [f"{column} ({values} values)" for column, values in alike.items() if _differs(table, grouping, column)]
    if mixed:
        across = "may name groups, and masks are compared across their values"
        told.append(f"{_named(mixed)} {across}: if so, name all groups with {option('group_by')}")
    return told


def _kind(table: Rows, column: str) -> Kind | None:
    """As its name says, or its name and that it holds nothing but shares; one convention separates nothing."""
    if column == "network_density" and DENSITY in table.columns:
        return None  # as `pai analyze` has them: it follows from the other, and the layers without a mask
    kind = kind_of_shares(column)
    cells = [cell for row in table.rows if (cell := row.cells[column])]
    if kind is None or not cells or not all(map(_is_share, cells)):
        kind = kind_of(column)
    if kind is Kind.CONVENTION and len(set(cells)) < 2:
        return None
    return kind


def _is_share(cell: str) -> bool:
    share = finite(cell.removesuffix("%"))
    return share is not None and (cell.endswith("%") or 0 <= share <= 1)


def asked_columns(table: Rows, group_by: Sequence[str]) -> list[str]:
    """The columns of these names, none of `NO_GROUPS`. Raises `ColumnError` for one that is not there."""
    if list(group_by) == [NO_GROUPS]:
        return []
    for name in group_by:
        if name not in table.columns:
            raise ColumnError(
                f"{table.source}: {option('group_by', name)}: no such column; there are {some_names(table.columns, 40)}"
            )
    return list(dict.fromkeys(group_by))


def _densities(table: Rows, kinds: dict[str, Kind]) -> tuple[Densities | None, list[str], list[str]]:
    """The densities by which masks were made, which differ and have the fewest values (`density` itself where several have
    as few); the columns that tell the same again; and those of densities that came of them, a little off and all different.
    """
    columns = sorted((column for column in kinds if kinds[column] in AMOUNTS), key=lambda column: column != DENSITY)
    found = [one for column in columns if (one := read_densities(table, column, kinds[column])) is not None]
    if not found:
        return None, [], []
    first, *others = sorted(found, key=lambda one: (_values(one) == 1, _values(one)))
    again = [one.column for one in others if _near(first, one, 1 + EQUAL_DENSITIES)]
    came = [
        one.column
        for one in others
        if one.column not in again and _near(first, one, OFF) and _values(one) > MANY * _values(first)
    ]
    return first, again, came


def _values(densities: Densities) -> int:
    return len(set(densities.by_line.values()))


def _near(one: Densities, other: Densities, factor: float) -> bool:
    """Whether two columns tell the same but for a factor; a sparsity of three digits knows no better."""
    pairs = [(one.by_line[line], other.by_line[line]) for line in one.by_line]
    return all(
        a is b or (a is not None and b is not None and (max(a, b) <= factor * min(a, b) or abs(a - b) <= 5e-4))
        for a, b in pairs
    )


def _density_name(grouping: Grouping) -> str:
    return "" if grouping.densities is None else grouping.densities.column


def _separating(grouping: Grouping) -> str:
    if not grouping.within.names:
        return (
            "no column is named as a density, a network or a data set: all masks are compared with each other; "
            f"{option('group_by')} names columns that separate them"
        )
    read = "" if grouping.densities is None else grouping.densities.read_as
    again = (
        f"{_named(grouping.again)} {'says' if len(grouping.again) == 1 else 'say'} it again" if grouping.again else ""
    )
    notes = "; ".join(note for note in (f"density is {read}" if read else "", again) if note)
    said = f" ({notes})" if notes else ""
    return f"compared within equal {_named(grouping.within.names)}{said}; {option('group_by')} chooses"


def _named(columns: Sequence[str]) -> str:
    """All, unless they are very many."""
    return all_names(columns) if len(columns) <= SHOWN else some_names(columns, SHOWN)


def _few(table: Rows, column: str) -> int:
    """How many different values a column has where they look like names of groups, else 0."""
    counts = Counter(_label(row.cells[column]) for row in table.rows)
    return len(counts) if 1 < len(counts) <= FEW and min(counts.values()) >= REPEATED else 0


def _differs(table: Rows, grouping: Grouping, column: str) -> bool:
    """Whether any two masks that are compared differ in it."""
    groups: dict[tuple[object, ...], set[str]] = defaultdict(set)
    for row in table.rows:
        at = grouping.density(row) if grouping.within.by_density else None
        groups[grouping.setting(row), at].add(_label(row.cells[column]))
    return any(len(labels) > 1 for labels in groups.values())


def _label(cell: str) -> str:
    """A cell as the name of a group: numbers that are equal have one."""
    value = number(cell)
    return cell if value is None or not math.isfinite(value) else f"{value:.12g}"
