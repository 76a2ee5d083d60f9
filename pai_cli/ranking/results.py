"""Which columns of a table of results name masks and hold accuracies: those asked for, or those usually called so."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, replace

from pai_cli.errors import ColumnError, TableError
from pai_cli.files.messages import all_names, some_names
from pai_cli.files.rows import Row, Rows, finite, number
from pai_cli.ranking.columns import PERCENT, SUFFIXES, Kind, kind_of, words_of
from pai_cli.spelling import option

MASK, ACCURACY, SEED, DATASET = "mask", "accuracy", "seed", "dataset"
SHOWN = 40  # columns that a message lists

_OF_A_FILE = {"path", "file", "filename", "name"}
_RUNS = {"name", "run", "experiment", "exp", "folder", "dir", "id"}

_TELLING = ("test", "eval", "evaluation", "validation", "valid", "val")  # the nearest to a test first
_OTHERS = {"final", "best", "last", "mean", "average", "avg", "score", *PERCENT}


@dataclass(frozen=True)
class Named:
    """Columns as a caller names them, None for those that are found by their usual names."""

    mask: str | None = None
    accuracy: str | None = None


def standard(table: Rows, named: Named, tell: Callable[[str], None]) -> Rows:
    """The table of accuracies with its columns under the names `mask`, `accuracy`, and if it has such, `seed` and `dataset`.

    Raises `ColumnError` for one that was asked for and is not there, `TableError` where none has a usual name, or several
    are as usual.
    """
    found = {
        MASK: named.mask or _usual(table, MASK, _masks(table), "mask_column"),
        ACCURACY: named.accuracy or _usual(table, ACCURACY, _accuracies(table), "accuracy_column"),
    }
    _check_there(table, named)
    others = [column for column in table.columns if column not in found.values()]
    for name, kind in ((SEED, Kind.REPEAT), (DATASET, Kind.DATASET)):
        alike = [
            column for column in others if kind_of(column) is kind and (name == DATASET or SEED in words_of(column))
        ]
        if name in others or alike:
            found[name] = name if name in others else alike[0]
    told = [f"{name} is column {column}" for name, column in found.items() if name != column]
    if told:
        tell(f"{table.source}: {', '.join(told)}")
    return _renamed(table, {column: name for name, column in found.items()})


def as_named(table: Rows, named: Named, tell: Callable[[str], None], elsewhere: Collection[str] = frozenset()) -> Rows:
    """A table of metrics with the columns that were asked for under the names `mask` and `accuracy`; the others stay as they
    are, but for the one that is most likely the accuracy by its name, and not asked for `elsewhere`, as a metric or a group.

    Raises `ColumnError`.
    """
    _check_there(table, named)
    accuracy = named.accuracy
    if accuracy is None and ACCURACY not in table.columns:
        usual = _first(_accuracies(table))
        if len(usual) == 1 and usual[0] not in {*elsewhere, named.mask} and _may_be_accuracies(table, usual[0]):
            accuracy = usual[0]
            tell(f"{table.source}: {ACCURACY} is column {accuracy}; {option('accuracy_column')} names another")
    given = {named.mask: MASK, accuracy: ACCURACY}
    return _renamed(table, {column: name for column, name in given.items() if column is not None})


def numbers_in(table: Rows, wanted: Iterable[str]) -> tuple[str, ...]:
    """Those of the wanted names that are columns of numbers of a table of results."""
    aside = (MASK, ACCURACY, SEED, DATASET)
    return tuple(
        name
        for name in wanted
        if name in table.columns
        and name not in aside
        and any(row.cells[name] for row in table.rows)
        and all(finite(row.cells[name]) is not None for row in table.rows if row.cells[name])
    )


def signed(cell: str) -> bool:
    """Whether a cell has a percent sign."""
    return cell.endswith("%")


def without_sign(cell: str) -> str:
    """What a cell has but for a percent sign behind it."""
    return cell.removesuffix("%").rstrip()


def method_in(table: Rows, row: Row) -> str:
    """The method that a row names, as the first column has it that names methods; "" without one."""
    return next((row.cells[column] for column in table.columns if kind_of(column) is Kind.METHOD), "")


def _check_there(table: Rows, named: Named) -> None:
    for parameter, column in (("mask_column", named.mask), ("accuracy_column", named.accuracy)):
        if column is not None and column not in table.columns:
            raise ColumnError(
                f"{table.source}: {option(parameter, column)}: no such column; there are {some_names(table.columns, SHOWN)}"
            )
    if named.mask is not None and named.mask == named.accuracy:
        raise ColumnError(f"{table.source}: {option('accuracy_column', named.accuracy)}: is the column of masks")


def _usual(table: Rows, what: str, places: dict[str, int], parameter: str) -> str:
    """The one of the columns with the least place."""
    best = _first(places)
    if len(best) == 1:
        return best[0]
    if best:
        told = f"any of the columns {all_names(best)} may be {what}; {option(parameter)} says which"
    else:
        held = some_names(table.columns, SHOWN)
        told = f"has no column {what!r}, nor one of a like name; {option(parameter)} says which of {held} it is"
    raise TableError(f"{table.source}: {told}")


def _may_be_accuracies(table: Rows, column: str) -> bool:
    """Whether all that a column has are numbers of 0 to 100, percent signs aside, or NaN."""
    numbers = [number(without_sign(row.cells[column])) for row in table.rows if row.cells[column]]
    return bool(numbers) and all(one is not None and not (one < 0 or one > 100) for one in numbers)


def _first(places: dict[str, int]) -> list[str]:
    """The columns with the least place."""
    least = min(places.values(), default=0)
    return [column for column, place in places.items() if place == least]


def _masks(table: Rows) -> dict[str, int]:
    """Columns that may name masks, with how sure that is, 0 the surest; never one of numbers alone."""
    found = {}
    for column in table.columns:
        words = set(words_of(column))
        place = _mask_place(words)
        if column == MASK:
            found[column] = 0
        elif place is not None and any(finite(row.cells[column]) is None for row in table.rows if row.cells[column]):
            found[column] = place
    return found


def _mask_place(words: set[str]) -> int | None:
    """How sure the words of a column's name are those of one of masks: of a mask, of a file, of a run."""
    if MASK in words and words <= {MASK, *_OF_A_FILE}:
        return 1
    if words <= _OF_A_FILE and words & {"path", "file", "filename"}:
        return 2
    return 3 if words and words <= _RUNS else None


def _accuracies(table: Rows) -> dict[str, int]:
    """Columns that may be accuracies, with how sure that is, 0 the surest."""
    found = {}
    for column in table.columns:
        place = 0 if column == ACCURACY else _accuracy_place(column)
        if place is not None:
            found[column] = place
    return found


def _accuracy_place(column: str) -> int | None:
    """How sure a column's name is an accuracy's: of no part of the data, of the test part, of one for validation."""
    words = set(words_of(column))
    digits = "".join(filter(str.isdigit, column))
    if not words & {"accuracy", "acc"} and not ("top" in words and digits == "1"):
        return None
    rest = words - {"accuracy", "acc", "top"} - _OTHERS
    if digits not in ("", "1") or rest - set(_TELLING) or len(rest) > 1:
        return None  # of five guesses, of training, its deviation
    return 2 + _TELLING.index(rest.pop()) if rest else 1


def _renamed(table: Rows, names: dict[str, str]) -> Rows:
    """The table with columns, and what stands beside them, under other names; one that has such a name already is called
    after what it was.
    """
    beside = {f"{column}{end}": f"{name}{end}" for column, name in names.items() for end in SUFFIXES if column != name}
    names = {**{column: name for column, name in beside.items() if column in table.columns}, **names}
    new = {column: names.get(column, column) for column in table.columns}
    for column in table.columns:
        if column not in names and column in names.values():
            new[column] = f"{column} (another column)"
    rows = tuple(replace(row, cells={new[column]: cell for column, cell in row.cells.items()}) for row in table.rows)
    return replace(table, columns=tuple(new.values()), rows=rows)


def words_for(row: Row, columns: Sequence[str]) -> str:
    """What columns say of a row, as the words of a setting: `dataset cifar10, arch vgg11`."""
    return ", ".join(f"{column} {row.cells[column]}" for column in columns if row.cells[column])
