"""Where a page goes."""

from __future__ import annotations

from pathlib import Path

from pai_cli.display.figures.canvas import need_matplotlib
from pai_cli.errors import PictureError
from pai_cli.files.atomic import write_bytes

SUFFIXES = (".html", ".htm")


def check_report(path: Path | None) -> None:
    """Refuse what could not be made, before any work is done for it; None is no page at all.

    Raises `PictureError` for another suffix than .html and .htm, and without matplotlib.
    """
    if path is None:
        return
    if path.suffix.lower() not in SUFFIXES:
        raise PictureError(f"{path}: --report writes .html; end the file's name in that")
    need_matplotlib("--report")


def write_report(html: str, path: Path, *, force: bool) -> None:
    """Write a page, whole or not at all. Raises `OutputError`."""
    data = html.encode()
    write_bytes(path, data, force=force)
