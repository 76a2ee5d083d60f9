"""Reports as records: the one set of field names that every format shows."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from pai_cli.files.tables import Columns, Record, Value
from pai_cli.printable import as_line
from pai_cli.spectral.catalogue import METRICS, WHOLE
from pai_cli.spelling import for_shell

if TYPE_CHECKING:
    from pai_cli.analysis.masks import MaskReport
    from pai_cli.files.fits import Count
    from pai_cli.spectral.layout import Layout
    from pai_cli.spectral.network import NetworkReport
    from pai_cli.spectral.table import LayerTable

Spell = Callable[[str], str]

COUNTS = ("rows", "columns", "n_R", "n_L", "d_R", "d_L", "kept", "total", "density", "components", "n_regular")

ANALYZE_FIELDS = (
    *("mask", "method", "level", "layer", "shape", "layout", *COUNTS, "network_density"),
    *(field for name in METRICS for field in (name, f"{name}_error", f"{name}_layers")),
    *(field for name in WHOLE if name not in COUNTS for field in (name, f"{name}_error")),
    *("convention", "solver", "outcome", "reason"),
)


def mask_records(report: MaskReport, *, summary: bool, spell: Spell = for_shell) -> list[Record]:
    """A record a layer (none with `summary`), then one for the network; for a mask that failed, one with the reason.

    `spell`: how texts name parameters.
    """
    return [_last_record(report, spell)] if summary else _records(mask_columns(report, spell))


def mask_columns(report: MaskReport, spell: Spell = for_shell) -> Columns:
    """The same with the layers, field by field."""
    last = _last_record(report, spell)
    if report.report is None:
        return {field: [value] for field, value in last.items()}
    layers = report.report.layers
    columns = _layer_columns(str(report.path), layers, spell) | {"method": [last["method"]] * len(layers)}
    return {field: [*columns[field], last[field]] for field in ANALYZE_FIELDS}


def _last_record(report: MaskReport, spell: Spell) -> Record:
    mask = str(report.path)
    if report.report is None:
        assert report.error is not None
        return _blank(mask) | {"level": "network", "outcome": "failed", "reason": as_line(spell(report.error.text))}
    return _network_record(mask, report.report, report.count, spell) | {"method": report.metadata.get("method")}


def _records(columns: Columns) -> list[Record]:
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def _blank(mask: str) -> Record:
    return dict.fromkeys(ANALYZE_FIELDS, None) | {"mask": mask}


def layer_records(mask: str | None, layers: LayerTable, spell: Spell = for_shell) -> list[Record]:
    """A record a layer; `mask`: what their mask is called, `spell`: how texts name parameters."""
    return _records(_layer_columns(mask, layers, spell))


def _layer_columns(mask: str | None, layers: LayerTable, spell: Spell) -> Columns:
    counts, rows = layers.counts, len(layers)
    edges = counts.edges.tolist()
    without = list(zip(*(column.reasons for column in layers.measures.values()), strict=True))
    told = {row: reasons(dict(zip(layers.measures, row, strict=True)), spell) for row in set(without)}
    columns: Columns = {
        **dict.fromkeys(ANALYZE_FIELDS, [None] * rows),
        "mask": [mask] * rows,
        "level": ["layer"] * rows,
        "layer": layers.names,
        "shape": [list(shape) for shape in layers.shapes],
        "layout": [_layout(layout) for layout in layers.layouts],
        "rows": counts.n_R0.tolist(),
        "columns": counts.n_L0.tolist(),
        "n_R": counts.n_R.tolist(),
        "n_L": counts.n_L.tolist(),
        "d_R": [degree or None for degree in counts.d_R.tolist()],
        "d_L": [degree or None for degree in counts.d_L.tolist()],
        "kept": edges,
        "total": layers.totals.tolist(),
        "density": (counts.edges / layers.totals).tolist(),
        "components": counts.components.tolist(),
        "n_regular": layers.n_regular.tolist(),
        "convention": [layers.convention.value] * rows,
        "solver": layers.solvers,
        "outcome": [spell(one) for one in layers.told],
        "reason": [told[row] for row in without],
    }
    for name, column in layers.measures.items():
        values, columns[f"{name}_error"] = column.lists
        columns[name] = [_shown(name, value) for value in values] if name in WHOLE else values
    return columns


def _shown(name: str, value: float | None) -> Value:
    """Whole numbers of what is counted."""
    return value if value is None or name not in WHOLE or not WHOLE[name].counts else int(value)


def _layout(layout: Layout) -> str:
    """What of the weight's layout is not plain, or `plain`; and whether that was assumed."""
    groups = [f"groups={layout.groups}"] if layout.groups > 1 else []
    told = [*groups, *(name for name in ("transposed", "kernel_first") if getattr(layout, name))] or ["plain"]
    return " ".join(told if layout.known else ["assumed", *told])


def _network_record(mask: str, network: NetworkReport, count: Count | None, spell: Spell) -> Record:
    collapsed = f"collapsed: {', '.join(network.collapsed)}" if network.collapsed else ""
    whole = "" if count is None else count.of_network()
    told = reasons({name: measure.reason for name, measure in network.measures.items()}, spell)
    record = _blank(mask) | {
        "level": "network",
        "layout": f"assumed in {len(network.assumed)}" if network.assumed else None,
        "kept": network.kept,
        "total": network.total,
        "density": network.density,
        "network_density": None if count is None else count.density,
        "convention": network.convention.value,
        "outcome": "done",
        "reason": "; ".join(filter(None, (collapsed, whole, told))) or None,
    }
    for name, measure in network.measures.items():
        if name not in COUNTS:
            record[name], record[f"{name}_error"] = _shown(name, measure.value), measure.error
    return record | {f"{name}_layers": counted for name, counted in network.counted.items()}


def reasons(measures: Mapping[str, str | None], spell: Spell = for_shell) -> str | None:
    """Why measures are missing, each reason once with the names it holds for; None when nothing is."""
    names_by_reason: dict[str, list[str]] = {}
    for name, reason in measures.items():
        if reason is not None:
            names_by_reason.setdefault(reason, []).append(name)
    told = (f"{spell(reason)} ({', '.join(names)})" for reason, names in names_by_reason.items())
    return "; ".join(told) or None
