"""Showing what was built."""

from __future__ import annotations

import math
import sys
from pathlib import Path

from pai_cli.display.console import note
from pai_cli.display.look import Look
from pai_cli.display.tables import show_records
from pai_cli.files.atomic import is_special
from pai_cli.files.tables import Format, Record, Value, write_table
from pai_cli.sampling.expanders.layer import BuiltLayer
from pai_cli.sampling.expanders.network import BuiltNetwork
from pai_cli.spelling import for_shell

MEASURES = ("dr_before", "dr", "sigma_2_before", "sigma_2")
COLUMNS = ("layer", "shape", "kept", "density", *MEASURES, "switches", "made")
FIELDS = (*COLUMNS, *(f"{name}_error" for name in MEASURES), "reason", "density_default")


def show_construction(built: BuiltNetwork, path: Path, kind: Format) -> None:
    """A row a layer and the network's means on standard output; where the mask is on standard error."""
    pruned = built.pruned
    note(f"wrote {path}: {pruned.kept:,} of {pruned.total:,} weights kept, density {pruned.density:.6g}")
    if is_special(path):
        return  # the mask itself went to standard output or a pipe: a table would end up in it
    records = construction_records(built)
    if kind.for_people:
        rows = [*records[:-1], records[-1] | {"layer": "network mean", "shape": "", "made": ""}]
        show_records(rows, COLUMNS, total=True, look=Look(kind))
        return
    told: Record = {"density_default": built.request.density_default}
    write_table(sys.stdout, kind, FIELDS, (record | told for record in records))


def construction_records(built: BuiltNetwork) -> list[Record]:
    """A record a layer, and one for the network, whose layer is empty: means over the layers that have both of a measure,
    before and after.
    """
    pruned = built.pruned
    records = [_record(layer) for layer in built.layers]
    network: Record = {
        "layer": None,
        "shape": None,
        "kept": pruned.kept,
        "density": pruned.density,
        "switches": sum(layer.switches for layer in built.layers),
        "made": None,
        "reason": None,
    }
    for before, after in (MEASURES[:2], MEASURES[2:]):
        both = [record for record in records if record[before] is not None and record[after] is not None]
        for name in (before, after, f"{before}_error", f"{after}_error"):
            network[name] = math.fsum(_real(record[name]) for record in both) / len(both) if both else None
        if not both:
            network["reason"] = f"no layer has a {after}"
    return [*records, network]


def _record(layer: BuiltLayer) -> Record:
    before, after = layer.before, layer.after
    measures = dict(zip(MEASURES, (before.dr, after.dr, before.sigma_2, after.sigma_2), strict=True))
    reasons = [f"{name}: {measure.reason}" for name, measure in measures.items() if measure.reason is not None]
    return {
        "layer": layer.plan.name,
        "shape": list(layer.plan.shape),
        "kept": layer.plan.edges,
        "density": layer.plan.edges / math.prod(layer.plan.shape),
        "switches": layer.switches,
        "made": layer.made,
        "reason": for_shell("; ".join(reasons)) or None,
        **{name: measure.value for name, measure in measures.items()},
        **{f"{name}_error": measure.error for name, measure in measures.items()},
    }


def _real(value: Value) -> float:
    return float(value) if isinstance(value, (int, float)) else 0.0
