"""Reports as records: the one set of field names that every format shows."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from pai_cli.files.tables import Record
from pai_cli.printable import as_line
from pai_cli.spectral.catalogue import METRICS, WHOLE
from pai_cli.spelling import for_shell

if TYPE_CHECKING:
    from pai_cli.analysis.masks import MaskReport
    from pai_cli.files.fits import Count
    from pai_cli.spectral.layout import Layout
    from pai_cli.spectral.network import LayerReport, NetworkReport
    from pai_cli.spectral.result import Measure

Spell = Callable[[str], str]

COUNTS = ("rows", "columns", "n_R", "n_L", "d_R", "d_L", "kept", "total", "density", "components", "n_regular")

ANALYZE_FIELDS = (
    *("mask", "level", "layer", "shape", "layout", *COUNTS, "network_density"),
    *(field for name in METRICS for field in (name, f"{name}_error", f"{name}_layers")),
    *(field for name in WHOLE if name not in COUNTS for field in (name, f"{name}_error")),
    *("convention", "solver", "outcome", "reason"),
)


def mask_records(report: MaskReport, *, summary: bool, spell: Spell = for_shell) -> list[Record]:
    """A record a layer (none with `summary`), then one for the network; for a mask that failed, one with the reason.

    `spell`: how texts name parameters.
    """
    mask = str(report.path)
    if report.report is None:
        assert report.error is not None
        return [_blank(mask) | {"level": "network", "outcome": "failed", "reason": as_line(spell(report.error.text))}]
    layers = [] if summary else [layer_record(mask, layer, spell) for layer in report.report.layers]
    return [*layers, _network_record(mask, report.report, report.count, spell)]


def _blank(mask: str | None) -> Record:
    return dict.fromkeys(ANALYZE_FIELDS, None) | {"mask": mask}


def layer_record(mask: str | None, layer: LayerReport, spell: Spell = for_shell) -> Record:
    """One layer's record; `mask`: what its mask is called, `spell`: how texts name parameters."""
    counts, pair = layer.metrics.counts, layer.metrics.structure
    record = _blank(mask) | {
        "level": "layer",
        "layer": layer.name,
        "shape": "x".join(str(side) for side in layer.shape),
        "layout": _layout(layer.layout),
        "rows": counts.n_R0,
        "columns": counts.n_L0,
        "n_R": counts.n_R,
        "n_L": counts.n_L,
        "d_R": counts.d_R if counts.edges else None,
        "d_L": counts.d_L if counts.edges else None,
        "kept": counts.edges,
        "total": layer.parameters,
        "density": counts.edges / layer.parameters,
        "components": counts.components,
        "n_regular": layer.metrics.n_regular,
        "convention": layer.metrics.convention.value,
        "solver": pair.solver,
        "outcome": spell(layer.metrics.note or pair.outcome.value),
        "reason": reasons(layer.metrics.measures, spell),
    }
    return record | _measure_fields(layer.metrics.measures)


def _layout(layout: Layout) -> str:
    """What of the weight's layout is not plain, or `plain`; and whether that was assumed."""
    groups = [f"groups={layout.groups}"] if layout.groups > 1 else []
    told = [*groups, *(name for name in ("transposed", "kernel_first") if getattr(layout, name))] or ["plain"]
    return " ".join(told if layout.known else ["assumed", *told])


def _network_record(mask: str, network: NetworkReport, count: Count | None, spell: Spell) -> Record:
    collapsed = f"collapsed: {', '.join(network.collapsed)}" if network.collapsed else ""
    whole = "" if count is None else count.of_network()
    record = _blank(mask) | {
        "level": "network",
        "layout": f"assumed in {len(network.assumed)}" if network.assumed else None,
        "kept": network.kept,
        "total": network.total,
        "density": network.density,
        "network_density": None if count is None else count.density,
        "convention": network.convention.value,
        "outcome": "done",
        "reason": "; ".join(filter(None, (collapsed, whole, reasons(network.measures, spell)))) or None,
    }
    counted: Record = {f"{name}_layers": count for name, count in network.counted.items()}
    return record | _measure_fields(network.measures) | counted


def _measure_fields(measures: dict[str, Measure]) -> Record:
    fields: Record = {}
    for name, measure in measures.items():
        if name in COUNTS:
            continue
        value = measure.value
        whole = value is not None and name in WHOLE and WHOLE[name].counts
        fields[name], fields[f"{name}_error"] = int(value) if whole and value is not None else value, measure.error
    return fields


def reasons(measures: dict[str, Measure], spell: Spell = for_shell) -> str | None:
    """Why values are missing, each reason once with the names it holds for; None when nothing is."""
    names_by_reason: dict[str, list[str]] = {}
    for name, measure in measures.items():
        if measure.reason is not None:
            names_by_reason.setdefault(measure.reason, []).append(name)
    told = (f"{spell(reason)} ({', '.join(names)})" for reason, names in names_by_reason.items())
    return "; ".join(told) or None
