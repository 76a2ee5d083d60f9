"""Showing an order of masks."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from pai_cli.display.look import USUAL, Look
from pai_cli.display.records import Spell
from pai_cli.display.tables import show_records, show_title
from pai_cli.files.tables import Record, write_table
from pai_cli.printable import as_line
from pai_cli.spelling import for_shell

if TYPE_CHECKING:
    from pai_cli.analysis.masks import MaskReport
    from pai_cli.ranking.order import RankedMask

FIELDS = (
    *("rank", "mask", "method", "density", "network_density", "density_group", "by", "value", "error", "layers"),
    *("margin", "decided", "reason", "convention", "setting", "accuracy", "runs"),
)
COLUMNS = ("rank", "mask", "method", "density", "value", "layers", "accuracy", "decided")
NOT_ALWAYS = ("method", "density", "layers", "accuracy")  # columns that are left out where no mask has them


def show_ranking(reports: Sequence[MaskReport], ranked: Sequence[RankedMask], by: str, look: Look) -> None:
    """Write the order to standard output; in formats for programs, failed masks follow with their reason."""
    if look.kind.for_people:
        for title, columns, rows in group_tables(ranked, by, look=look):
            if title:
                show_title(title, look)
            show_records(rows, columns, look=look)
        return
    places = [record for records in _groups(ranked, by, for_shell, look) for record in records]
    failed = (failed_record(report, by) for report in reports if report.error is not None)
    write_table(sys.stdout, look.kind, look.shown(FIELDS), [*places, *failed], header=look.header)


def group_tables(
    ranked: Sequence[RankedMask], by: str, spell: Spell = for_shell, look: Look = USUAL
) -> Iterator[tuple[str, list[str], list[Record]]]:
    """A table a group, for people: its setting, or "", its columns and its rows."""
    groups = _groups(ranked, by, spell, look)
    absent = [name for name in NOT_ALWAYS if all(record[name] is None for records in groups for record in records)]
    usual = [column for column in COLUMNS if column not in absent]
    columns = [_header(column, by) for column in look.shown(usual)]
    for records in groups:
        rows = [{_header(key, by): value for key, value in record.items()} for record in records]
        yield str(records[0]["setting"] or ""), columns, rows


def _groups(ranked: Sequence[RankedMask], by: str, spell: Spell, look: Look) -> list[list[Record]]:
    """The records of each group of masks that compare."""
    found: dict[int, list[Record]] = {group: [] for group in sorted({row.group for row in ranked})}
    for row in ranked:
        found[row.group].append(ranked_record(row, by, spell))
    return [look.ordered(records) for records in found.values()]


def ranked_record(row: RankedMask, by: str, spell: Spell = for_shell) -> Record:
    """A mask's place, in the fields of the formats for programs; `spell`: how texts name parameters."""
    reason = row.value.reason
    return {
        "rank": row.rank,
        "mask": row.source.name,
        "method": row.source.method,
        "density": row.source.density,
        "network_density": row.source.network_density,
        "density_group": row.group,
        "by": by,
        "value": row.value.value,
        "error": row.value.error,
        "layers": row.counted,
        "margin": row.margin,
        "decided": spell(row.decided),
        "reason": None if reason is None else spell(reason),
        "convention": row.source.convention,
        "setting": row.source.setting or None,
        "accuracy": row.source.accuracy,
        "runs": row.source.runs or None,
    }


def failed_record(report: MaskReport, by: str, spell: Spell = for_shell) -> Record:
    """A mask that could not be measured, in the same fields."""
    assert report.error is not None
    blank: Record = dict.fromkeys(FIELDS, None)
    return blank | {"mask": str(report.path), "by": by, "reason": as_line(spell(report.error.text))}


def _header(column: str, by: str) -> str:
    return by if column == "value" else column
