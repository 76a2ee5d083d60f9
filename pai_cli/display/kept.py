"""Showing how much of each layer a mask keeps."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from math import prod
from pathlib import Path

import numpy as np

from pai_cli.display.console import note
from pai_cli.display.look import Look
from pai_cli.display.tables import show_records
from pai_cli.files.atomic import is_special
from pai_cli.files.tables import Format, Record, write_table

Counts = Mapping[str, tuple[tuple[int, ...], int]]
"""By layer, in network order: the weight's shape, and how many of its elements are kept."""

FIELDS = ("layer", "shape", "kept", "total", "density")


def show_kept(masks: Mapping[str, np.ndarray], path: Path, kind: Format) -> None:
    """The layers' densities on standard output, and on standard error that they were written to `path`."""
    show_counts({name: (mask.shape, int(np.count_nonzero(mask))) for name, mask in masks.items()}, path, kind)


def show_counts(
    counts: Counts, path: Path, kind: Format, more: Record | None = None, beside: Sequence[Record] = ()
) -> None:
    """The same of how many weights each layer keeps. `more`: what every record of the formats for programs has besides.

    `beside`: what the table and those formats have besides, a record a layer and one of the network.
    """
    records = kept_records(counts)
    kept, total, density = (records[-1][field] for field in ("kept", "total", "density"))
    note(f"wrote {path}: {kept:,} of {total:,} weights kept, density {density:.6g}")
    if is_in_the_way(path):
        return
    fields: tuple[str, ...] = FIELDS
    if beside:
        records = [record | other for record, other in zip(records, beside, strict=True)]
        fields = (*FIELDS, *beside[0])
    if kind.for_people:
        rows = [*records[:-1], records[-1] | {"layer": "network", "shape": ""}]
        show_records(rows, fields, total=True, look=Look(kind))
        return
    more = more or {}
    write_table(sys.stdout, kind, (*fields, *more), (record | more for record in records))


def is_in_the_way(path: Path | None) -> bool:
    """Whether a file itself went to standard output or a pipe, so that a table would end up in it."""
    return path is not None and is_special(path)


def kept_records(counts: Counts) -> list[Record]:
    """A record a layer, and one for the network, whose layer is empty."""
    records: list[Record] = []
    for name, (sides, kept) in counts.items():
        size = prod(sides)
        told: Record = {"layer": name, "shape": list(sides), "kept": kept, "total": size, "density": _share(kept, size)}
        records.append(told)
    kept, total = sum(kept for _, kept in counts.values()), sum(prod(sides) for sides, _ in counts.values())
    return [*records, {"layer": None, "shape": None, "kept": kept, "total": total, "density": _share(kept, total)}]


def _share(kept: int, total: int) -> float:
    return kept / total if total else 0.0
