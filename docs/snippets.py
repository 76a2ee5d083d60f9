"""Runs the snippets of docs/python-api.md in their order and fills in what they print; with --check, says what differs.

A block of Python that prints is followed by a block of text. All of them run in one program, in an empty folder.
"""

from __future__ import annotations

import contextlib
import difflib
import io
import os
import re
import sys
import tempfile
from pathlib import Path
from typing import Any

PAGE = Path(__file__).parent / "python-api.md"
BLOCK = re.compile(r"```python\n(?P<code>.*?)```\n(?:\n```text\n.*?```\n)?", re.DOTALL)


def filled(text: str) -> str:
    """The page with every block's output made anew. Snippets run in the current folder."""
    names: dict[str, Any] = {"__name__": "page"}

    def block(match: re.Match[str]) -> str:
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(compile(match["code"], str(PAGE), "exec"), names)
        code = f"```python\n{match['code']}```\n"
        return f"{code}\n```text\n{printed.getvalue()}```\n" if printed.getvalue() else code

    return BLOCK.sub(block, text)


def main() -> int:
    """Write the page, or check it."""
    found = PAGE.read_text(encoding="utf-8")
    here = Path.cwd()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        try:
            wanted = filled(found)
        finally:
            os.chdir(here)
    if "--check" not in sys.argv[1:]:
        PAGE.write_text(wanted, encoding="utf-8")
        return 0
    sys.stdout.writelines(difflib.unified_diff(found.splitlines(True), wanted.splitlines(True), str(PAGE), "now"))
    return int(found != wanted)


if __name__ == "__main__":
    sys.exit(main())
