"""Showing reports as they come, in the format asked for."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from pai_cli.display.console import fail
from pai_cli.display.records import ANALYZE_FIELDS, mask_records
from pai_cli.display.tables import network_row, show_layers, show_networks
from pai_cli.files.tables import Format, Record, TableWriter

if TYPE_CHECKING:
    from pai_cli.analysis.masks import MaskReport


class ShownReports:
    """Every report written to standard output as it is added; a mask that failed is said on standard error."""

    def __init__(self, kind: Format, *, header: bool, summary: bool, weights: bool):
        self.failed = 0
        self._summary, self._weights = summary, weights
        self._gathered: list[Record] = []
        self._writer = None if kind is Format.TABLE else TableWriter(sys.stdout, kind, ANALYZE_FIELDS, header=header)

    def add(self, report: MaskReport) -> None:
        """Show one more."""
        self.failed += fail(report.error)
        records = mask_records(report, summary=self._summary)
        if self._writer is not None:
            self._writer.write(records)
        elif self._summary:
            self._gathered += [network_row(record) for record in records]
        elif report.error is None:
            show_layers(records, weights=self._weights)

    def close(self) -> None:
        """End the table."""
        if self._writer is not None:
            self._writer.close()
        elif self._gathered:
            show_networks(self._gathered, weights=self._weights)
