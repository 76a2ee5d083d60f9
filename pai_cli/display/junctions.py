"""Showing measures between layers, in the format asked for."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING

from pai_cli.display.console import fail, status_of
from pai_cli.display.look import Look
from pai_cli.display.records import Spell, reasons
from pai_cli.display.tables import show_records, show_title
from pai_cli.files.tables import Record, TableWriter
from pai_cli.printable import as_line
from pai_cli.spectral.catalogue import BETWEEN
from pai_cli.spelling import for_shell

if TYPE_CHECKING:
    from pai_cli.analysis.junctions import BetweenReport
    from pai_cli.analysis.pairs import PairReport
    from pai_cli.errors import PaiError
    from pai_cli.spectral.result import Measure

FIELDS = (
    *("mask", "level", "writer", "reader", "outputs", "live", "columns"),
    *(field for name in BETWEEN for field in (name, f"{name}_error", f"{name}_pairs")),
    *("outcome", "reason"),
)
COLUMNS = ("writer", "reader", "outputs", "live", "columns", *BETWEEN, "note")


def show_between(reports: Iterable[BetweenReport], look: Look, *, summary: bool) -> int:
    """Write every report to standard output as it comes, those of networks that are to be ordered when all have come; return
    the exit status. Each mask that failed is said on standard error.
    """
    errors: list[PaiError] = []
    shown = 0
    gathered: list[Record] = []
    people = look.kind.for_people
    writer = None if people else TableWriter(sys.stdout, look.kind, look.shown(FIELDS), header=look.header)
    for report in reports:
        shown += 1
        if report.error is not None:
            fail(report.error)
            errors.append(report.error)
        records = between_records(report, summary=summary)
        if summary and (look.key if writer is not None else report.error is None):
            gathered += records
        elif writer is not None:
            writer.write(look.ordered(records, total=True))
        elif report.error is None:
            show_title(str(report.path), look)
            columns, rows = between_table(look.ordered(records, total=True))
            show_records(rows, look.shown(columns), total=True, look=look)
    if writer is not None:
        writer.write(look.ordered(gathered))
        writer.close()
    elif gathered:
        show_records(look.ordered(gathered), look.shown(("mask", *BETWEEN, "note")), look=look)
    return status_of(errors, shown)


def between_table(records: list[Record]) -> tuple[tuple[str, ...], list[Record]]:
    """The columns that a person reads of one mask's records, and the rows: of its pairs and, last, of its network."""
    return COLUMNS, [*records[:-1], records[-1] | {"writer": "network mean", "reader": ""}]


def between_records(report: BetweenReport, *, summary: bool, spell: Spell = for_shell) -> list[Record]:
    """A record a pair (none with `summary`), then one for the network; for a mask that failed, one with the reason.

    `spell`: how texts name parameters.
    """
    blank: Record = dict.fromkeys((*FIELDS, "note"), None) | {"mask": str(report.path)}
    if report.error is not None:
        return [blank | {"level": "network", "outcome": "failed", "reason": as_line(spell(report.error.text))}]
    pairs = [] if summary else [blank | _pair_record(pair, spell) for pair in report.pairs]
    counted: Record = {f"{name}_pairs": count for name, count in report.counted.items()}
    return [*pairs, blank | {"level": "network", "outcome": "done"} | _fields(report.measures, spell) | counted]


def _pair_record(pair: PairReport, spell: Spell) -> Record:
    names: Record = {"level": "pair", "writer": pair.writer, "reader": pair.reader, "outcome": "done"}
    return names | {"outputs": pair.outputs, "live": pair.live, "columns": pair.columns} | _fields(pair.measures, spell)


def _fields(measures: dict[str, Measure], spell: Spell) -> Record:
    fields: Record = {}
    for name, measure in measures.items():
        fields[name], fields[f"{name}_error"] = measure.value, measure.error
    missing = reasons({name: one.reason for name, one in measures.items()}, spell)
    return fields | {"reason": missing, "note": missing or ""}
