"""Showing reports as they come, in the format asked for."""

from __future__ import annotations

import sys
from collections.abc import Iterable

from pai_cli.analysis.masks import MaskReport
from pai_cli.display.console import fail_line, note, warn
from pai_cli.display.records import ANALYZE_FIELDS, mask_records
from pai_cli.display.tables import network_row, show_layers, show_networks
from pai_cli.files.messages import some_names
from pai_cli.files.tables import Format, Record, TableWriter


def show_reports(reports: Iterable[MaskReport], kind: Format, *, header: bool, summary: bool, weights: bool) -> int:
    """Write every report to standard output as it comes; return how many masks failed (each said on standard error)."""
    failed = 0
    gathered: list[Record] = []
    writer = None if kind is Format.TABLE else TableWriter(sys.stdout, kind, ANALYZE_FIELDS, header=header)
    for report in reports:
        failed += _say(report)
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


def _say(report: MaskReport) -> int:
    if report.error is not None:
        fail_line(report.error.text)
        return 1
    if report.told:
        note(f"{report.path}: {report.told}")
    if report.skipped:
        note(f"{report.path}: left out {', '.join(report.skipped)}: no rows and columns")
    if not report.layouts_told:
        note(f"{report.path}: does not tell groups and transposition; every convolution is taken as a plain one")
    assert report.report is not None
    if report.report.collapsed:
        warn(f"{report.path}: collapsed layers (no weight kept): {', '.join(report.report.collapsed)}")
    note_unproved(report)
    return 0


def note_unproved(report: MaskReport) -> None:
    """Say which layers' singular values are not proved to be the two largest, if any."""
    unproved = report.report.unproved if report.report is not None else ()
    if unproved:
        note(
            f"{report.path}: the singular values of {some_names(unproved)} are not proved to be the two largest; "
            "pai analyze --certify proves it"
        )
