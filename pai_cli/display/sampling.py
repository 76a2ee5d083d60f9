"""Showing how a search went."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from pai_cli.display.tables import show_records
from pai_cli.files.atomic import is_special
from pai_cli.files.tables import Format, Record, TableWriter
from pai_cli.sampling.search import SHOWN, SearchResult
from pai_cli.sampling.trajectory import Trajectory


def show_search(result: SearchResult, trajectory: Trajectory, path: Path, kind: Format) -> None:
    """The first candidate beside the best, on standard output."""
    if is_special(path):
        return  # the mask itself went to standard output or a pipe: a table would end up in it
    shown = tuple(dict.fromkeys((*SHOWN, result.by)))
    columns = ("mask", "candidate", *shown, "candidates", "explored")
    records = [_first(trajectory, shown), _best(result, path, shown)]
    if kind is Format.TABLE:
        show_records(records, columns)
        return
    writer = TableWriter(sys.stdout, kind, (*columns, "convention", "reason", "density_default"))
    told: Record = {"convention": result.convention.value, "density_default": result.request.density_default}
    writer.write(record | told for record in records)
    writer.close()


def _first(trajectory: Trajectory, shown: tuple[str, ...]) -> Record:
    with trajectory.path.open(encoding="utf-8") as lines:
        next(lines)
        line = json.loads(next(lines))
    measures = {name: line[name] for name in (*shown, "reason")}
    return {"mask": "the method's own", "candidate": 0, **measures, "candidates": 1, "explored": line["explored"]}


def _best(result: SearchResult, path: Path, shown: tuple[str, ...]) -> Record:
    measures = {name: result.measures[name] for name in (*shown, "reason")}
    whole: Record = {"mask": str(path), "candidate": result.best, "candidates": result.candidates}
    return {**whole, **measures, "explored": result.explored}
