"""Showing how a search went."""

from __future__ import annotations

import sys
from pathlib import Path

from pai_cli.display.look import Look
from pai_cli.display.tables import show_records
from pai_cli.files.atomic import is_special
from pai_cli.files.tables import Format, Record, write_table
from pai_cli.sampling.search import SHOWN, SearchResult


def show_search(result: SearchResult, first: Record, path: Path, kind: Format) -> None:
    """The `first` candidate, a row of the search's, beside the best, on standard output."""
    if is_special(path):
        return  # the mask itself went to standard output or a pipe: a table would end up in it
    shown = tuple(dict.fromkeys((*SHOWN, result.by)))
    columns = ("mask", "candidate", *shown, "candidates", "explored")
    records = [_own(first, shown), _best(result, path, shown)]
    if kind.for_people:
        show_records(records, columns, look=Look(kind))
        return
    told: Record = {"convention": result.convention.value, "density_default": result.request.density_default}
    fields = (*columns, "convention", "reason", "density_default")
    write_table(sys.stdout, kind, fields, (record | told for record in records))


def _own(row: Record, shown: tuple[str, ...]) -> Record:
    measures = {**{name: row[name] for name in shown}, "reason": row["reason"] or None}
    return {"mask": "the method's own", "candidate": 0, **measures, "candidates": 1, "explored": row["explored"]}


def _best(result: SearchResult, path: Path, shown: tuple[str, ...]) -> Record:
    measures = {**{name: result.measures[name] for name in shown}, "reason": result.measures["reason"] or None}
    whole: Record = {"mask": str(path), "candidate": result.best, "candidates": result.candidates}
    return {**whole, **measures, "explored": result.explored}
