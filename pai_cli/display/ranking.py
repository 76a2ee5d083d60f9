"""Showing an order of masks."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from pai_cli.analysis.masks import MaskReport
from pai_cli.display.analysis import note_unproved
from pai_cli.display.console import fail_line, note, show_line, warn
from pai_cli.display.tables import show_records
from pai_cli.errors import PaiError
from pai_cli.files.tables import Format, Record, TableWriter
from pai_cli.ranking.order import RankedMask
from pai_cli.spelling import for_shell

FIELDS = (
    "rank",
    "mask",
    "method",
    "density",
    "density_group",
    "by",
    "value",
    "error",
    "layers",
    "margin",
    "decided",
    "reason",
    "setting",
    "accuracy",
    "runs",
)
COLUMNS = ("rank", "mask", "method", "density", "value", "layers", "accuracy", "decided")
NOT_ALWAYS = ("method", "density", "layers", "accuracy")  # columns that are left out where no mask has them


def tell_reports(reports: Sequence[MaskReport]) -> int:
    """Say on standard error what failed and what to know of how masks were read; return how many failed."""
    failed = [report.error for report in reports if report.error is not None]
    for error in failed:
        fail_line(error.text)
    for report in reports:
        if report.told:
            note(f"{report.path}: {report.told}")
        note_unproved(report)
    return len(failed)


def tell_groups(ranked: Sequence[RankedMask]) -> None:
    """Say on standard error that masks were ranked apart, and why."""
    groups = {row.group for row in ranked}
    settings = {row.source.setting for row in ranked}
    densities = [row.source.density for row in ranked if row.source.density is not None]
    if len(settings) > 1:
        note(f"masks of {len(settings)} settings do not compare: ranked within {len(groups)} groups")
    elif len(groups) > 1:
        warn(
            f"densities from {min(densities):.4g} to {max(densities):.4g} differ by more than 1%, which a metric follows "
            f"more than quality: ranked within {len(groups)} groups of equal density"
        )


def show_ranking(
    reports: Sequence[MaskReport], ranked: Sequence[RankedMask], by: str, kind: Format, *, header: bool
) -> None:
    """Write the order to standard output; in formats for programs, failed masks follow with their reason."""
    if kind is Format.TABLE:
        _draw(ranked, by)
        return
    writer = TableWriter(sys.stdout, kind, FIELDS, header=header)
    writer.write(ranked_record(row, by) for row in ranked)
    writer.write(_failed(report.path, report.error, by) for report in reports if report.error is not None)
    writer.close()


def _draw(ranked: Sequence[RankedMask], by: str) -> None:
    """A table a group."""
    every = [ranked_record(row, by) for row in ranked]
    absent = [name for name in NOT_ALWAYS if all(record[name] is None for record in every)]
    columns = [_header(column, by) for column in COLUMNS if column not in absent]
    for group in sorted({row.group for row in ranked}):
        records = [record for record in every if record["density_group"] == group]
        if records[0]["setting"]:
            show_line(str(records[0]["setting"]))
        show_records([{_header(key, by): value for key, value in record.items()} for record in records], columns)


def ranked_record(row: RankedMask, by: str) -> Record:
    """A mask's place, in the fields of the formats for programs."""
    return {
        "rank": row.rank,
        "mask": row.source.name,
        "method": row.source.method,
        "density": row.source.density,
        "density_group": row.group,
        "by": by,
        "value": row.value.value,
        "error": row.value.error,
        "layers": row.counted,
        "margin": row.margin,
        "decided": for_shell(row.decided),
        "reason": row.value.reason and for_shell(row.value.reason),
        "setting": row.source.setting or None,
        "accuracy": row.source.accuracy,
        "runs": row.source.runs or None,
    }


def _failed(path: Path, error: PaiError, by: str) -> Record:
    blank: Record = dict.fromkeys(FIELDS, None)
    return blank | {"mask": str(path), "by": by, "reason": error.in_shell}


def _header(column: str, by: str) -> str:
    return by if column == "value" else column
