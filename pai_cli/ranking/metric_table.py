"""Masks from a table of metrics: one row a mask, or a run of one, as `pai analyze` or a publication has them.

Metrics are the columns with nothing but numbers; NAME_error beside NAME is its error bound, NAME_layers over how many
layers it is a mean. Columns that say what a row is are known by their names (`columns.py`).
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace

from pai_cli.errors import TableError
from pai_cli.files.messages import some_names
from pai_cli.files.rows import Row, Rows, finite, number
from pai_cli.ranking.accuracy import Run, Tell, accuracies, trained
from pai_cli.ranking.columns import SUFFIXES, is_density_of_layer, is_layer_density, words_of
from pai_cli.ranking.controls import chosen_controls
from pai_cli.ranking.entrants import Entrants
from pai_cli.ranking.grouping import Grouping, grouping_of, remarks
from pai_cli.ranking.rules import AccuracyRules
from pai_cli.ranking.scored import LAYER_DENSITY, ScoredMask
from pai_cli.spectral.catalogue import RANKED, Metric
from pai_cli.spectral.result import Measure
from pai_cli.spelling import option

ACCURACY = "accuracy"
CONVENTION = "convention"
# Numbers of `pai analyze` and of results that are not metrics of a network.
COUNTS = ("rows", "columns", "n_R", "n_L", "d_R", "d_L", "kept", "total", "components", "n_regular")
OTHER_NUMBERS = frozenset(
    (*(name for name in COUNTS if name not in RANKED), "network_density", ACCURACY, "layer", "shape")
)
WORDS = ("mask", "outcome", "reason", "note", CONVENTION)  # columns of text that tell no groups
RESULTS = {"accuracy", "acc", "loss"}  # words of what is known after training


@dataclass(frozen=True)
class Reading:
    """How a table is read: accuracies by `rules`, `group_by` as of `grouping_of`, `controls` as of `chosen_controls`."""

    rules: AccuracyRules
    group_by: Sequence[str] | None = None
    controls: Sequence[str] | None = None


def metric_table(table: Rows, how: Reading, tell: Tell) -> Entrants:
    """The masks of a table, with the controls that it has.

    Raises `TableError` for a column that is not there, a density or an error bound that is none, and two values of one
    metric for one mask; `UnknownMetricError` for a control that is no column of numbers.
    """
    table = _of_columns(_networks(table, tell), tell)
    grouping = grouping_of(table, how.group_by)
    metrics = _metrics(table, grouping)
    controls = chosen_controls(metrics, how.controls)
    names = _names(table, grouping)
    masks = {row.line: _mask(table, row, metrics, grouping, name) for row, name in zip(table.rows, names, strict=True)}
    for remark in remarks(table, grouping, _others(table, grouping), default=how.group_by is None):
        tell(f"{table.source}: {remark}")
    if results := [name for name in metrics if words_of(name) & RESULTS]:
        leave = f"{option('metrics')} can leave {'it' if len(results) == 1 else 'them'} out"
        tell(f"{table.source}: {some_names(results)} may be known after training only: {leave}")
    known = dict[int, tuple[float, float | None]]()
    if ACCURACY in table.columns:
        known = {row.line: (value, spread) for row, value, spread in accuracies(table, how.rules, tell)}
    return Entrants(_merged(table, masks, known), metrics, grouping.within, controls)


def _networks(table: Rows, tell: Tell) -> Rows:
    """Without the rows of layers, whose mean density is a network's layer density where a table does not have that."""
    if "level" not in table.columns:
        return table
    networks = tuple(row for row in table.rows if row.cells["level"] != "layer")
    layers = [row for row in table.rows if row.cells["level"] == "layer"]
    if not networks:
        raise TableError(f"{table.source}: has rows of layers only; the means of networks are what masks are ranked by")
    if not layers:
        return table
    told = f"{len(layers)} row{'s' * (len(layers) > 1)} of layers passed over: networks are ranked by their means"
    made = not any(map(is_layer_density, table.columns)) and {"mask", "density"} <= set(table.columns)
    tell(f"{table.source}: {told}{f'; {LAYER_DENSITY} is that of their densities' if made else ''}")
    table = replace(table, rows=networks)
    return _with_layer_density(table, layers) if made else table


def _with_layer_density(table: Rows, layers: Sequence[Row]) -> Rows:
    """With a column of the mean density of a mask's layers, empty where a table does not have all of them."""
    densities = defaultdict[str, list[float | None]](list)
    for row in layers:
        density = finite(row.cells["density"])
        if density is not None and not 0 <= density <= 1:
            raise table.fault(row.line, f"density {row.cells['density']!r} is not a fraction (0 to 1)")
        densities[row.cells["mask"]].append(density)

    def mean(mask: str) -> str:
        known = [one for one in densities[mask] if one is not None]
        return repr(math.fsum(known) / len(known)) if known and len(known) == len(densities[mask]) else ""

    rows = (replace(row, cells=row.cells | {LAYER_DENSITY: mean(row.cells["mask"])}) for row in table.rows)
    return replace(table, columns=(*table.columns, LAYER_DENSITY), rows=tuple(rows))


def _of_columns(table: Rows, tell: Tell) -> Rows:
    """With a layer density made of columns of the layers' densities, where a table has those and not it."""
    layers = [column for column in table.columns if is_density_of_layer(column)]
    if len(layers) < 2 or any(map(is_layer_density, table.columns)):
        return table
    rows = []
    for row in table.rows:
        shares = [finite(row.cells[column]) for column in layers]
        known = [share for share in shares if share is not None and 0 <= share <= 1]
        mean = repr(math.fsum(known) / len(known)) if len(known) == len(layers) else ""
        rows.append(replace(row, cells=row.cells | {LAYER_DENSITY: mean}))
    tell(f"{table.source}: {LAYER_DENSITY} is the mean of {len(layers)} columns ({some_names(layers)})")
    return replace(table, columns=(*table.columns, LAYER_DENSITY), rows=tuple(rows))


def _metrics(table: Rows, grouping: Grouping) -> dict[str, Metric]:
    found = {}
    for name in table.columns:
        if name in OTHER_NUMBERS or name in grouping.known or _beside(name, table) or not name:
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


def _beside(name: str, table: Rows) -> bool:
    """Whether a column tells of another: its error, or over how many layers it is a mean."""
    return any(name.endswith(suffix) and name.removesuffix(suffix) in table.columns for suffix in SUFFIXES)


def _others(table: Rows, grouping: Grouping) -> list[str]:
    """Columns of which nothing is known by their names."""
    known = {*grouping.known, *OTHER_NUMBERS, *RANKED, *WORDS}
    if any(row.cells.get("level") == "network" for row in table.rows):
        known.add("level")
    return [name for name in table.columns if name and name not in known and not _beside(name, table)]


def _names(table: Rows, grouping: Grouping) -> list[str]:
    """What each row is called: its mask, or what tells it from the others, or its line."""
    if "mask" in table.columns:
        unnamed = next((row for row in table.rows if not row.cells["mask"]), None)
        if unnamed:
            raise table.fault(unnamed.line, "names no mask")
        return [row.cells["mask"] for row in table.rows]
    names = [grouping.name(row) for row in table.rows]
    return names if len(set(names)) == len(names) else [f"line {row.line}" for row in table.rows]


def _mask(table: Rows, row: Row, metrics: dict[str, Metric], grouping: Grouping, name: str) -> ScoredMask:
    cells = row.cells
    counted = {metric: finite(cells.get(f"{metric}_layers", "")) for metric in metrics}
    return ScoredMask(
        name=name,
        density=grouping.density(row),
        network_density=_network_density(table, row),
        values={metric: _measure(table, row, metric) for metric in metrics},
        counted={metric: int(count) for metric, count in counted.items() if count is not None},
        method=grouping.method(row),
        setting=grouping.setting(row),
        convention=cells.get(CONVENTION) or None,
    )


def _network_density(table: Rows, row: Row) -> float | None:
    text = row.cells.get("network_density", "")
    if not text:
        return None
    value = finite(text)
    if value is None or not 0 <= value <= 1:
        raise table.fault(row.line, f"network_density {text!r} is not a fraction (0 to 1)")
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


def _merged(
    table: Rows, masks: dict[int, ScoredMask], known: dict[int, tuple[float, float | None]]
) -> list[ScoredMask]:
    """One mask for all rows that name it in one setting and density, with the mean of their accuracies. `known`: each
    row's, and its deviation.
    """
    rows: dict[tuple[str, str, float | None], list[Row]] = defaultdict(list)
    for row in table.rows:
        mask = masks[row.line]
        rows[mask.name, mask.setting, mask.density].append(row)
    merged = []
    for own in rows.values():
        first = masks[own[0].line]
        for row in own[1:]:
            _check_same(table, first, masks[row.line], own[0].line, row.line)
        runs = [Run(row.line, first.name, "", "", *known[row.line]) for row in own if row.line in known]
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
