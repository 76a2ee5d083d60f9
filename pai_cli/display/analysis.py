"""Showing reports as they come, in the format asked for."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from pai_cli.display.console import fail, status_of
from pai_cli.display.look import Look
from pai_cli.display.records import ANALYZE_FIELDS, mask_columns, mask_records
from pai_cli.display.tables import network_row, show_layers, show_networks
from pai_cli.files.tables import Record, TableWriter

if TYPE_CHECKING:
    from pai_cli.analysis.masks import MaskReport
    from pai_cli.errors import PaiError


class ShownReports:
    """Every report written to standard output as it is added, unless the networks of all stand in one table that is to be
    ordered; a mask that failed is said on standard error.
    """

    def __init__(self, look: Look, *, summary: bool, weights: bool):
        self._errors: list[PaiError] = []
        self._shown = 0
        self._look, self._summary, self._weights = look, summary, weights
        self._gathered: list[Record] = []
        people, fields = look.kind.for_people, look.shown(ANALYZE_FIELDS)
        self._writer = None if people else TableWriter(sys.stdout, look.kind, fields, header=look.header)

    def add(self, report: MaskReport) -> None:
        """Show one more."""
        self._shown += 1
        if report.error is not None:
            fail(report.error)
            self._errors.append(report.error)
        if self._writer is not None and not self._summary and not self._look.key:
            self._writer.write_columns(mask_columns(report))
            return
        records = mask_records(report, summary=self._summary)
        if self._writer is None and self._summary:
            self._gathered += [network_row(record, self._look) for record in records]
        elif self._writer is None and report.error is None:
            show_layers(records, weights=self._weights, look=self._look)
        elif self._writer is not None and self._summary and self._look.key:
            self._gathered += records
        elif self._writer is not None:
            self._writer.write(self._look.ordered(records, total=True))

    def close(self) -> int:
        """End the table, and give the exit status of all."""
        if self._writer is not None:
            self._writer.write(self._look.ordered(self._gathered))
            self._writer.close()
        elif self._gathered:
            show_networks(self._gathered, weights=self._weights, look=self._look)
        return status_of(self._errors, self._shown)
