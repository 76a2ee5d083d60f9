"""Measured accuracies: read with their lines, made fractions, averaged over a mask's runs, and matched with masks.

A run is one row. What is set aside (runs without a number, collapsed runs, masks that are not there) is counted and told.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import PurePath

from pai_cli.errors import TableError
from pai_cli.files.messages import some_names
from pai_cli.files.rows import Row, Rows, finite, number
from pai_cli.files.tables import as_cell
from pai_cli.ranking.columns import words_of
from pai_cli.ranking.grouping import asked_columns
from pai_cli.ranking.results import method_in, signed, without_sign, words_for
from pai_cli.ranking.rules import AccuracyRules, AccuracyUnit
from pai_cli.ranking.scored import ScoredMask
from pai_cli.spectral.result import Measure
from pai_cli.spelling import option

Tell = Callable[[str], None]

STEPS = {"step", "steps", "epoch", "epochs", "iteration", "iterations"}
"""Words of columns that tell when in a training a row was written."""


@dataclass(frozen=True)
class Run:
    """One training of a mask, from `line` of its table. `accuracy`: 0 to 1. `spread`: its own standard deviation, of a
    table that has means. `setting`: what masks are not compared across, in words; `method`: as the table has it; `numbers`:
    of its other columns, those asked for.
    """

    line: int
    mask: str
    dataset: str
    seed: str
    accuracy: float
    spread: float | None = None
    setting: str = ""
    method: str = ""
    numbers: Mapping[str, float | None] = field(default_factory=dict)


@dataclass(frozen=True)
class Taken:
    """What is taken of a table of accuracies beside them: `groups`, columns that part what is not compared, by default its
    data sets; `numbers`: columns of numbers.
    """

    groups: Sequence[str] | None = None
    numbers: Sequence[str] = ()

    def columns(self, table: Rows) -> tuple[str, ...]:
        """The groups' columns. Raises `ColumnError` for one that is not there."""
        if self.groups is None:
            return tuple(column for column in ("dataset",) if column in table.columns)
        return tuple(asked_columns(table, self.groups))


def read_runs(table: Rows, rules: AccuracyRules, tell: Tell, taken: Taken = Taken()) -> list[Run]:
    """The runs of a table with columns `mask` and `accuracy`, and perhaps `dataset` and `seed`: see `results.standard`.

    Raises `TableError` for a missing column, an accuracy that is none, fractions among percents, and two accuracies of one
    mask, data set and seed.
    """
    for column in ("mask", "accuracy"):
        if column not in table.columns:
            raise TableError(
                f"{table.source}: has no column {column!r}; accuracies take the columns mask, accuracy and, if wanted, "
                "seed and dataset"
            )
    runs = []
    groups = taken.columns(table)
    datasets = {row.cells.get("dataset", "") for row in table.rows}
    for row, accuracy, spread in accuracies(table, rules, tell):
        mask, dataset = row.cells["mask"], row.cells.get("dataset", "")
        if not mask:
            raise table.fault(row.line, "names no mask")
        if not dataset and len(datasets) > 1:
            raise table.fault(row.line, "names no data set, where other rows do")
        numbers = {name: finite(row.cells[name]) for name in taken.numbers}
        run = Run(row.line, mask, dataset, row.cells.get("seed", ""), accuracy, spread)
        runs.append(replace(run, setting=words_for(row, groups), method=method_in(table, row), numbers=numbers))
    if len(datasets) > 1 and "dataset" not in groups:
        tell(
            f"{table.source}: a mask's accuracies on different data sets are averaged: {option('group_by')} leaves "
            "dataset out"
        )
    _tell_steps(table, tell)
    return _once(table, runs, tell)


def _tell_steps(table: Rows, tell: Tell) -> None:
    """Of rows that may be one training's history, as a tracker exports it, their mean is hardly what is meant."""
    for column in (
        column for column in table.columns if (words := words_of(column) - {"global", "trainer"}) and words <= STEPS
    ):
        seen: dict[tuple[str, ...], set[str]] = defaultdict(set)
        for row in table.rows:
            seen[tuple(row.cells.get(name, "") for name in ("mask", "dataset", "seed"))].add(row.cells[column])
        if any(len(values) > 1 for values in seen.values()):
            tell(
                f"{table.source}: rows of one mask differ in column {column}, and their mean counts: where they are steps "
                "of one training, give its last row alone"
            )


def accuracies(table: Rows, rules: AccuracyRules, tell: Tell) -> list[tuple[Row, float, float | None]]:
    """The rows with an accuracy that counts, as a fraction, and its standard deviation of a column `accuracy_std`, which
    is a fraction as well; what is set aside is told, with its lines.
    """
    numbers = [(row, _accuracy(table, row)) for row in table.rows]
    missing = [row.line for row, value in numbers if value is None]
    if missing:
        tell(f"{table.source}: {_rows(missing)} without an accuracy: left out")
    known = [(row, value) for row, value in numbers if value is not None]
    scale = _scale(table, known, rules, tell)
    fractions = [(row, round(value / scale, 15)) for row, value in known]
    collapsed = [row.line for row, value in fractions if rules.collapsed(value)]
    if collapsed:
        tell(
            f"{table.source}: {_rows(collapsed)} collapsed (accuracy at most {rules.collapsed_at:g}): set aside; "
            f"{option('collapsed_at')} takes the accuracy of chance, 0 keeps all"
        )
    return [(row, value, _spread(row, scale)) for row, value in fractions if not rules.collapsed(value)]


def _spread(row: Row, scale: float) -> float | None:
    """The standard deviation beside a row's accuracy, which it is of one kind with; None where there is none."""
    cell = row.cells.get("accuracy_std", "")
    value = finite(without_sign(cell))
    return None if value is None or value < 0 else value / (100.0 if signed(cell) else scale)


def _accuracy(table: Rows, row: Row) -> float | None:
    """The number in a row's accuracy; None where there is none, or NaN."""
    text = row.cells["accuracy"]
    if not text:
        return None
    value = number(without_sign(text))
    if value is None:
        raise table.fault(row.line, f"accuracy {text!r} is not a number")
    if math.isnan(value):
        return None
    if not 0 <= value <= 100:
        raise table.fault(row.line, f"accuracy {text} is neither a fraction (0 to 1) nor a percentage (0 to 100)")
    return value


def _scale(table: Rows, known: Sequence[tuple[Row, float]], rules: AccuracyRules, tell: Tell) -> float:
    """By what to divide: all are percentages if any is above 1, or has their sign."""
    above = [row for row, value in known if value > 1 or signed(row.cells["accuracy"])]
    small = [row for row, value in known if 0 < value <= 1 and not signed(row.cells["accuracy"])]
    if rules.unit is AccuracyUnit.PERCENT:
        return 100.0
    if rules.unit is AccuracyUnit.FRACTION:
        if above:
            raise table.fault(above[0].line, f"accuracy {above[0].cells['accuracy']} is no fraction")
        return 1.0
    if above and small:
        raise table.fault(
            small[0].line,
            f"accuracy {small[0].cells['accuracy']} looks like a fraction, and {above[0].cells['accuracy']} on line "
            f"{above[0].line} like a percentage; say {option('accuracy_unit', 'percent')} if it is one",
        )
    if any(value > 1 for _, value in known):
        tell(f"{table.source}: accuracies above 1: read as percentages")
    return 100.0 if above else 1.0


def _rows(lines: Sequence[int]) -> str:
    """`2 rows (lines 3, 7)`."""
    many = len(lines) > 1
    return f"{len(lines)} row{'s' * many} (line{'s' * many} {some_names(map(str, lines))})"


def _once(table: Rows, runs: Iterable[Run], tell: Tell) -> list[Run]:
    """Without rows that repeat another's mask, data set and seed; rows without a seed are runs of their own."""
    kept: dict[tuple[object, ...], Run] = {}
    repeated = []
    for run in runs:
        key = (run.mask, run.dataset, run.setting, run.seed) if run.seed else (run.line,)
        first = kept.setdefault(key, run)
        if first is run:
            continue
        if first.accuracy != run.accuracy:
            raise table.fault(
                run.line, f"gives {run.mask!r}, seed {run.seed}, another accuracy than line {first.line} does"
            )
        repeated.append(run.line)
    if repeated:
        tell(f"{table.source}: {_rows(repeated)} repeating another: counted once")
    return list(kept.values())


# --- which mask a name means

Matches = dict[str, dict[str, list[Run]]]
"""The runs of each mask, by their settings."""


def matched(names: Sequence[str], runs: Sequence[Run], source: str, tell: Tell) -> Matches:
    """The runs of each mask of `names` that has any, by setting.

    A run's mask is named by its path as given, or by that without suffix, its file name or stem where only one mask has
    it, or by the folder that it is in where that has no other, or one above that has no other below. Raises `TableError`
    when a name could be two masks, or no mask has a run.
    """
    meanings, folders = _meanings(names), _by_folder(names)
    above = {short: ones for short, ones in _by_folder(names, above=True).items() if len(ones) == 1}
    found: Matches = {}
    unknown = []
    for run in runs:
        path = PurePath(run.mask)
        meant = meanings.get(as_cell(run.mask)) or meanings.get(as_cell(str(path)))
        meant = meant or folders.get(as_cell(str(path))) or folders.get(as_cell(path.name))
        meant = meant or above.get(as_cell(str(path))) or above.get(as_cell(path.name), [])
        if len(meant) > 1:
            raise TableError(
                f"{source}: line {run.line}: {run.mask!r} could be {some_names(meant, 2)}; write the path as it is given"
            )
        if meant:
            found.setdefault(meant[0], {}).setdefault(run.setting, []).append(run)
        else:
            unknown.append(run)
    if not found:
        example = f" (line {unknown[0].line}: {unknown[0].mask!r})" if unknown else ""
        raise TableError(
            f"{source}: has an accuracy for none of the masks{example}; name them by path, file name, stem or folder"
        )
    if unknown:
        others = some_names(dict.fromkeys(run.mask for run in unknown))
        tell(f"{source}: {_rows([run.line for run in unknown])} of masks that are not here ({others}): left out")
    without = [name for name in names if name not in found]
    if without:
        tell(f"{source}: no accuracy that counts of {some_names(without)}: left out")
    return found


def with_accuracies(masks: Iterable[ScoredMask], matches: Matches) -> list[ScoredMask]:
    """The masks with the accuracy that their runs have on average: one a mask and setting, or without an accuracy."""
    found = []
    for mask in masks:
        own = matches.get(mask.name, {})
        found += [trained(mask, runs, setting) for setting, runs in own.items()] or [mask]
    return found


def trained(mask: ScoredMask, runs: Sequence[Run], setting: str = "") -> ScoredMask:
    """The mask with the mean accuracy of its runs and their standard deviation, and of their numbers the means, in their
    setting; of the method that they all name, where it says none itself.
    """
    values = [run.accuracy for run in runs]
    mean = math.fsum(values) / len(values)
    spread = runs[0].spread
    if len(values) > 1:
        spread = math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (len(values) - 1))
    methods = {run.method for run in runs}
    return replace(
        mask,
        accuracy=mean,
        runs=len(values),
        spread=spread,
        setting=", ".join(filter(None, [mask.setting, setting])),
        method=mask.method or (methods.pop() if len(methods) == 1 else "") or None,
        values={**mask.values, **{name: _mean([run.numbers[name] for run in runs]) for name in runs[0].numbers}},
    )


def _mean(numbers: Sequence[float | None]) -> Measure:
    known = [number for number in numbers if number is not None]
    return Measure.of(math.fsum(known) / len(known)) if known else Measure.missing("no value in the table")


def _by_folder(names: Sequence[str], *, above: bool = False) -> dict[str, list[str]]:
    """The masks in the folder that each name, or path, may stand for: a training's folder as a rule holds one mask.

    `above`: in the folders that those are in, as `run-1` is of `run-1/checkpoints/mask.pt`.
    """
    found: dict[str, list[str]] = defaultdict(list)
    for name in dict.fromkeys(names):
        parents = PurePath(name).parents
        folders = parents[1:] if above else parents[:1]
        for short in {one for folder in folders for one in (folder.name, str(folder))} - {"", "."}:
            found[as_cell(short)].append(name)
    return found


def _meanings(names: Sequence[str]) -> dict[str, list[str]]:
    """The masks that each name may stand for, as a cell of a table has it; a path as written stands for itself alone."""
    found: dict[str, list[str]] = defaultdict(list)
    for name in dict.fromkeys(names):
        path = PurePath(name)
        for short in {path.name, path.stem, str(path.parent / path.stem)}:
            found[as_cell(short)].append(name)
    whole: dict[str, list[str]] = defaultdict(list)
    for name in dict.fromkeys(names):
        whole[as_cell(name)].append(name)
    return found | whole
