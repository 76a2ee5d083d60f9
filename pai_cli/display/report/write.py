"""Where a page goes."""

from __future__ import annotations

from pathlib import Path

from pai_cli.display.figures.canvas import check_drawn
from pai_cli.files.atomic import write_bytes

SUFFIXES = (".html", ".htm")


def check_report(path: Path | None) -> None:
    """Refuse what could not be made, before any work is done for it; None is no page at all.

    Raises `PictureError` for another suffix than .html and .htm, and without matplotlib.
    """
    check_drawn(path, SUFFIXES, "report", "writes .html; end the file's name in that")


def write_report(html: str, path: Path, *, force: bool) -> None:
    """Write a page, whole or not at all. Raises `OutputError`."""
    write_bytes(path, html.encode(), force=force)
