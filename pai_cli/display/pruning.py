"""Showing what a pruning run kept."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from pai_cli.display.console import note, warn
from pai_cli.display.tables import show_records
from pai_cli.errors import CollapseError
from pai_cli.files.atomic import is_special
from pai_cli.files.tables import Format, Record, TableWriter
from pai_cli.pruning.run import PruneResult

FIELDS = ("layer", "shape", "kept", "total", "density")


def tell_pruning(result: PruneResult, *, no_collapse: bool) -> None:
    """Warn of collapsed layers, of those that no pattern fits and of a network cut through.

    Raises `CollapseError` when the user refuses collapse.
    """
    if result.whole:
        warn(f"the pattern does not divide the inputs of {', '.join(result.whole)}: left whole")
    if result.collapsed:
        names = ", ".join(result.collapsed)
        if no_collapse:
            raise CollapseError(
                f"--no-collapse: {len(result.collapsed)} layers would keep no weight ({names}); "
                "raise --density, or take --scope layer"
            )
        warn(f"layer collapse: {names} kept no weight")
    if result.connected is False:
        warn("no path of kept weights leads from the input to the output: nothing can be trained")


def show_pruning(result: PruneResult, path: Path, kind: Format) -> None:
    """The layers' densities on standard output, and where the mask went on standard error."""
    note(f"wrote {path}: {result.kept:,} of {result.total:,} weights kept, density {result.density:.6g}")
    if is_special(path):
        return  # the mask itself went to standard output or a pipe: a table would end up in it
    records = pruning_records(result)
    if kind is Format.TABLE:
        show_records([*records[:-1], records[-1] | {"layer": "network", "shape": ""}], FIELDS, total=True)
        return
    writer = TableWriter(sys.stdout, kind, FIELDS)
    writer.write(records)
    writer.close()


def pruning_records(result: PruneResult) -> list[Record]:
    """A record a layer, and one for the network, whose layer is empty."""
    records: list[Record] = []
    for layer in result.layers:
        kept, total = int(np.count_nonzero(result.masks[layer.name])), result.masks[layer.name].size
        shape = "x".join(str(side) for side in layer.shape)
        records.append({"layer": layer.name, "shape": shape, "kept": kept, "total": total, "density": kept / total})
    whole: Record = {"layer": None, "shape": None, "kept": result.kept, "total": result.total}
    return [*records, whole | {"density": result.density}]
