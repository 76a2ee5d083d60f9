"""Masks from a table of metrics: one row a mask, or a run of one, as `pai analyze` or a publication has them.

Metrics are the columns with nothing but numbers; NAME_error beside NAME is its error bound, NAME_layers over how many
layers it is a mean. Rows of single layers are passed over.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace

from pai_cli.errors import TableError
from pai_cli.files.messages import some_names
from pai_cli.files.rows import Row, Rows, finite, number
from pai_cli.ranking.accuracy import Run, Tell, accuracies, trained
from pai_cli.ranking.entrants import Entrants
from pai_cli.ranking.rules import AccuracyRules
from pai_cli.ranking.scored import ScoredMask
from pai_cli.spectral.catalogue import RANKED, Metric
from pai_cli.spectral.result import Measure
from pai_cli.spelling import option

SETTINGS = ("architecture", "dataset", "density")  # what separates comparisons, where a table has it
NO_GROUPS = "none"
ACCURACY = "accuracy"
CONVENTION = "convention"  # a setting where a table has both: gaps of one do not compare with the other's
NAMES = ("architecture", "dataset", "method", "density", "seed")  # what a row without a mask is called by
# Numbers of `pai analyze` and of results that are not metrics of a network.
COUNTS = ("rows", "columns", "n_R", "n_L", "d_R", "d_L", "kept", "total", "density", "components", "n_regular")
OTHER_NUMBERS = frozenset(
    (*(name for name in COUNTS if name not in RANKED), ACCURACY, "seed", "layer", "shape", "dataset")
)
SUFFIXES = ("_error", "_layers", "_std")


def metric_table(table: Rows, group_by: Sequence[str] | None, rules: AccuracyRules, tell: Tell) -> Entrants:
    """The masks of a table.

    `group_by`: the columns whose values separate comparisons, by default those of `SETTINGS` that there are. Raises
    `TableError` for a column that is not there, a density or an error bound that is none, and two values of one metric for
    one mask.
    """
    table = _networks(table, tell)
    metrics = _metrics(table)
    groups = _groups(table, group_by)
    names = _names(table)
    settings = [name for name in groups if name != "density"]
    masks = {row.line: _mask(table, row, metrics, settings, name) for row, name in zip(table.rows, names, strict=True)}
    known = dict[int, float]()
    if ACCURACY in table.columns:
        known = {row.line: value for row, value in accuracies(table, rules, tell)}
    return Entrants(_merged(table, masks, known), metrics, "density" in groups)


def _networks(table: Rows, tell: Tell) -> Rows:
    """Without the rows of single layers."""
    if "level" not in table.columns:
        return table
    networks = tuple(row for row in table.rows if row.cells["level"] != "layer")
    if not networks:
        raise TableError(f"{table.source}: has rows of layers only; the means of networks are what masks are ranked by")
    passed = len(table.rows) - len(networks)
    if passed:
        tell(
            f"{table.source}: {passed} row{'s' * (passed > 1)} of layers passed over: networks are ranked by their means"
        )
    return replace(table, rows=networks)


def _metrics(table: Rows) -> dict[str, Metric]:
    found = {}
    columns = set(table.columns)
    for name in table.columns:
        beside = any(name.endswith(suffix) and name.removesuffix(suffix) in columns for suffix in SUFFIXES)
        if name in OTHER_NUMBERS or beside or not name:
            continue
        cells = [(row, row.cells[name]) for row in table.rows if row.cells[name]]
        wrong = next(((row, cell) for row, cell in cells if number(cell) is None), None)
        if wrong and name in RANKED:
            raise table.fault(wrong[0].line, f"{name} {wrong[1]!r} is not a number")
        if cells and not wrong:
            found[name] = RANKED.get(name, Metric(name, "a column of the table", "table"))
    if not found:
        raise TableError(
            f"{table.source}: has no column of numbers that could be a metric; see pai analyze {option('summary')}"
        )
    return found


def _groups(table: Rows, group_by: Sequence[str] | None) -> list[str]:
    if group_by is None:
        told = {row.cells[CONVENTION] for row in table.rows} - {""} if CONVENTION in table.columns else ()
        return [name for name in SETTINGS if name in table.columns] + [CONVENTION] * (len(told) > 1)
    if list(group_by) == [NO_GROUPS]:
        return []
    for name in group_by:
        if name not in table.columns:
            raise TableError(
                f"{table.source}: {option('group_by', name)}: no such column; there are {some_names(table.columns, 40)}"
            )
    return list(group_by)


def _names(table: Rows) -> list[str]:
    """What each row is called: its mask, or what tells it from the others, or its line."""
    if "mask" in table.columns:
        unnamed = next((row for row in table.rows if not row.cells["mask"]), None)
        if unnamed:
            raise table.fault(unnamed.line, "names no mask")
        return [row.cells["mask"] for row in table.rows]
    columns = [name for name in NAMES if name in table.columns]
    names = [" ".join(row.cells[name] for name in columns) for row in table.rows]
    return names if len(set(names)) == len(names) else [f"line {row.line}" for row in table.rows]


def _mask(table: Rows, row: Row, metrics: dict[str, Metric], settings: Sequence[str], name: str) -> ScoredMask:
    cells = row.cells
    counted = {metric: finite(cells.get(f"{metric}_layers", "")) for metric in metrics}
    return ScoredMask(
        name=name,
        density=_density(table, row),
        values={metric: _measure(table, row, metric) for metric in metrics},
        counted={metric: int(count) for metric, count in counted.items() if count is not None},
        method=cells.get("method") or None,
        setting=", ".join(f"{column} {cells[column]}" for column in settings),
        convention=cells.get(CONVENTION) or None,
    )


def _density(table: Rows, row: Row) -> float | None:
    text = row.cells.get("density", "")
    if not text:
        return None
    value = finite(text)
    if value is None or not 0 <= value <= 1:
        raise table.fault(row.line, f"density {text!r} is not a fraction (0 to 1)")
    return value


def _measure(table: Rows, row: Row, metric: str) -> Measure:
    text, bound = row.cells[metric], row.cells.get(f"{metric}_error", "")
    value = finite(text) if text else None
    if value is not None:
        error = number(bound) if bound else 0.0
        if error is None:
            raise table.fault(row.line, f"{metric}_error {bound!r} is not a number")
        # A bound that is not finite says that the value is not known.
        return Measure(value, abs(error)) if math.isfinite(error) else Measure.missing(f"its error is {bound}")
    return Measure.missing(row.cells.get("reason") or (f"{text} in the table" if text else "no value in the table"))


def _merged(table: Rows, masks: dict[int, ScoredMask], known: dict[int, float]) -> list[ScoredMask]:
    """One mask for all rows that name it in one setting, with the mean of their accuracies."""
    rows: dict[tuple[str, str], list[Row]] = defaultdict(list)
    for row in table.rows:
        mask = masks[row.line]
        rows[mask.name, mask.setting].append(row)
    merged = []
    for own in rows.values():
        first = masks[own[0].line]
        for row in own[1:]:
            _check_same(table, first, masks[row.line], own[0].line, row.line)
        spread = [finite(row.cells.get("accuracy_std", "")) for row in own]
        runs = [
            Run(row.line, first.name, "", "", known[row.line], deviation)
            for row, deviation in zip(own, spread, strict=True)
            if row.line in known
        ]
        merged.append(trained(first, runs) if runs else first)
    return merged


def _check_same(table: Rows, first: ScoredMask, other: ScoredMask, line: int, other_line: int) -> None:
    for metric, measure in first.values.items():
        theirs = other.values[metric]
        apart = abs((measure.value or 0.0) - (theirs.value or 0.0))
        within = (measure.error or 0.0) + (theirs.error or 0.0)
        if measure.present is not theirs.present or apart > within or math.isnan(apart):
            raise table.fault(
                other_line, f"{metric} of {other.name!r} differs from line {line}'s; each mask needs a name of its own"
            )
