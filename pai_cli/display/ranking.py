"""Showing an order of masks."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from pai_cli.analysis.masks import MaskReport
from pai_cli.display.analysis import note_unproved
from pai_cli.display.console import fail_line, note, warn
from pai_cli.display.tables import show_records
from pai_cli.files.tables import Format, Record, TableWriter
from pai_cli.ranking.order import RankedMask
from pai_cli.spectral.catalogue import Metric

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
)
COLUMNS = ("rank", "mask", "method", "density", "value", "layers", "decided")


def tell_ranking(reports: Sequence[MaskReport], ranked: Sequence[RankedMask]) -> int:
    """Say on standard error what failed, and that densities differ; return how many masks failed."""
    failed = [report.error for report in reports if report.error is not None]
    for error in failed:
        fail_line(str(error))
    for report in reports:
        if report.told:
            note(f"{report.path}: {report.told}")
        note_unproved(report)
    groups = {row.group for row in ranked}
    if len(groups) > 1:
        low, high = min(row.density for row in ranked), max(row.density for row in ranked)
        warn(
            f"densities from {low:.4g} to {high:.4g} differ by more than 1%, which a metric follows more than quality: "
            f"ranked within {len(groups)} groups of equal density"
        )
    return len(failed)


def show_ranking(
    reports: Sequence[MaskReport], ranked: Sequence[RankedMask], metric: Metric, kind: Format, *, header: bool
) -> None:
    """Write the order to standard output; in formats for programs, failed masks follow with their reason."""
    if kind is Format.TABLE:
        for group in sorted({row.group for row in ranked}):
            records = [_record(row, metric) for row in ranked if row.group == group]
            show_records(_renamed(records, metric), [_header(column, metric) for column in COLUMNS])
        return
    writer = TableWriter(sys.stdout, kind, FIELDS, header=header)
    writer.write(_record(row, metric) for row in ranked)
    writer.write(_failed(report, metric) for report in reports if report.error is not None)
    writer.close()


def _record(row: RankedMask, metric: Metric) -> Record:
    return {
        "rank": row.rank,
        "mask": str(row.source.path),
        "method": row.source.metadata.get("method"),
        "density": row.density,
        "density_group": row.group,
        "by": metric.name,
        "value": row.value.value,
        "error": row.value.error,
        "layers": row.counted,
        "margin": row.margin,
        "decided": row.decided,
        "reason": row.value.reason,
    }


def _failed(report: MaskReport, metric: Metric) -> Record:
    blank: Record = dict.fromkeys(FIELDS, None)
    return blank | {"mask": str(report.path), "by": metric.name, "reason": str(report.error)}


def _header(column: str, metric: Metric) -> str:
    return metric.name if column == "value" else column


def _renamed(records: list[Record], metric: Metric) -> list[Record]:
    return [{_header(key, metric): value for key, value in record.items()} for record in records]
