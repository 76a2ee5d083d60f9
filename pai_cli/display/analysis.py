"""Showing reports as they come, in the format asked for."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING

from pai_cli.display.console import fail
from pai_cli.display.records import ANALYZE_FIELDS, mask_records
from pai_cli.display.tables import network_row, show_layers, show_networks
from pai_cli.files.tables import Format, Record, TableWriter

if TYPE_CHECKING:
    from pai_cli.analysis.masks import MaskReport


def show_reports(reports: Iterable[MaskReport], kind: Format, *, header: bool, summary: bool, weights: bool) -> int:
    """Write every report to standard output as it comes; return how many masks failed (each said on standard error)."""
    failed = 0
    gathered: list[Record] = []
    writer = None if kind is Format.TABLE else TableWriter(sys.stdout, kind, ANALYZE_FIELDS, header=header)
    for report in reports:
        failed += fail(report.error)
        records = mask_records(report, summary=summary)
        if writer is not None:
            writer.write(records)
        elif summary:
            gathered += [network_row(record) for record in records]
        elif report.error is None:
            show_layers(records, weights=weights)
    if writer is not None:
        writer.close()
    elif gathered:
        show_networks(gathered, weights=weights)
    return failed
