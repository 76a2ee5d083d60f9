"""Measured accuracies: read with their lines, made fractions, averaged over a mask's runs, and matched with masks.

A run is one row. What is set aside (runs without a number, collapsed runs, masks that are not there) is counted and told.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import PurePath

from pai_cli.errors import TableError
from pai_cli.files.messages import some_names
from pai_cli.files.rows import Row, Rows, number
from pai_cli.files.tables import as_cell
from pai_cli.ranking.rules import AccuracyRules, AccuracyUnit
from pai_cli.ranking.scored import ScoredMask
from pai_cli.spelling import option

Tell = Callable[[str], None]


@dataclass(frozen=True)
class Run:
    """One training of a mask, from `line` of its table. `accuracy`: 0 to 1. `spread`: its own standard deviation, of a
    table that has means.
    """

    line: int
    mask: str
    dataset: str
    seed: str
    accuracy: float
    spread: float | None = None


def read_runs(table: Rows, rules: AccuracyRules, tell: Tell) -> list[Run]:
    """The runs of a table with columns `mask` and `accuracy`, and perhaps `dataset` and `seed`.

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
    datasets = {row.cells.get("dataset", "") for row in table.rows}
    for row, accuracy in accuracies(table, rules, tell):
        mask, dataset = row.cells["mask"], row.cells.get("dataset", "")
        if not mask:
            raise table.fault(row.line, "names no mask")
        if not dataset and len(datasets) > 1:
            raise table.fault(row.line, "names no data set, where other rows do")
        runs.append(Run(row.line, mask, dataset, row.cells.get("seed", ""), accuracy))
    return _once(table, runs, tell)


def accuracies(table: Rows, rules: AccuracyRules, tell: Tell) -> list[tuple[Row, float]]:
    """The rows with an accuracy that counts, as a fraction; what is set aside is told, with its lines."""
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
    return [(row, value) for row, value in fractions if not rules.collapsed(value)]


def _accuracy(table: Rows, row: Row) -> float | None:
    """The number in a row's accuracy; None where there is none, or NaN."""
    text = row.cells["accuracy"]
    if not text:
        return None
    value = number(text)
    if value is None:
        raise table.fault(row.line, f"accuracy {text!r} is not a number")
    if math.isnan(value):
        return None
    if not 0 <= value <= 100:
        raise table.fault(row.line, f"accuracy {text} is neither a fraction (0 to 1) nor a percentage (0 to 100)")
    return value


def _scale(table: Rows, known: Sequence[tuple[Row, float]], rules: AccuracyRules, tell: Tell) -> float:
    """By what to divide: all are percentages if any is above 1."""
    above = [row for row, value in known if value > 1]
    small = [row for row, value in known if 0 < value <= 1]
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
    if above:
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
        key = (run.mask, run.dataset, run.seed) if run.seed else (run.line,)
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


def matched(names: Sequence[str], runs: Sequence[Run], source: str, tell: Tell) -> Matches:
    """The runs of each mask of `names` that has any, by data set.

    A run's mask is named by its path as given, or by its file name or stem where only one mask has that. Raises
    `TableError` when a name could be two masks, or no mask has a run.
    """
    meanings = _meanings(names)
    found: Matches = {}
    unknown = []
    for run in runs:
        meant = meanings.get(as_cell(run.mask)) or meanings.get(as_cell(str(PurePath(run.mask))), [])
        if len(meant) > 1:
            raise TableError(
                f"{source}: line {run.line}: {run.mask!r} could be {some_names(meant, 2)}; write the path as it is given"
            )
        if meant:
            found.setdefault(meant[0], {}).setdefault(run.dataset, []).append(run)
        else:
            unknown.append(run)
    if not found:
        example = f" (line {unknown[0].line}: {unknown[0].mask!r})" if unknown else ""
        raise TableError(
            f"{source}: has an accuracy for none of the masks{example}; name them by path, file name or stem"
        )
    if unknown:
        others = some_names(dict.fromkeys(run.mask for run in unknown))
        tell(f"{source}: {_rows([run.line for run in unknown])} of masks that are not here ({others}): left out")
    without = [name for name in names if name not in found]
    if without:
        tell(f"{source}: no accuracy that counts of {some_names(without)}: left out")
    return found


def with_accuracies(masks: Iterable[ScoredMask], matches: Matches) -> list[ScoredMask]:
    """The masks with the accuracy that their runs have on average: one a mask and data set, or without an accuracy."""
    found = []
    for mask in masks:
        own = matches.get(mask.name, {})
        found += [trained(mask, runs, dataset) for dataset, runs in own.items()] or [mask]
    return found


def trained(mask: ScoredMask, runs: Sequence[Run], dataset: str = "") -> ScoredMask:
    """The mask with the mean accuracy of its runs and their standard deviation, in the setting of their data set."""
    values = [run.accuracy for run in runs]
    mean = math.fsum(values) / len(values)
    spread = runs[0].spread
    if len(values) > 1:
        spread = math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (len(values) - 1))
    parts = [mask.setting, f"dataset {dataset}" if dataset else ""]
    return replace(
        mask, accuracy=mean, runs=len(values), spread=spread, setting=", ".join(part for part in parts if part)
    )


def _meanings(names: Sequence[str]) -> dict[str, list[str]]:
    """The masks that each name may stand for, as a cell of a table has it; a path as written stands for itself alone."""
    found: dict[str, list[str]] = defaultdict(list)
    for name in dict.fromkeys(names):
        path = PurePath(name)
        for short in {path.name, path.stem}:
            found[as_cell(short)].append(name)
    whole: dict[str, list[str]] = defaultdict(list)
    for name in dict.fromkeys(names):
        whole[as_cell(name)].append(name)
    return found | whole
