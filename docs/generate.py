"""Writes docs/cli.md from `pai help` and that of each command; with --check, says what differs and exits 1 instead."""

from __future__ import annotations

import difflib
import os
import subprocess
import sys
from pathlib import Path

from pai_cli.app import app

TARGET = Path(__file__).parent / "cli.md"
COMMANDS = tuple(str(command.name) for command in app.registered_commands)
HEAD = """# Command reference

Made by `make docs` from `pai help COMMAND`; do not edit. What the measured quantities are stands in
[metrics.md](metrics.md), what the methods compute in [methods.md](methods.md), the file in [mask-file.md](mask-file.md).
"""


def help_of(*command: str) -> str:
    """The help text of `pai COMMAND`, 100 columns wide, without colour."""
    environment = {**os.environ, "COLUMNS": "100", "TERMINAL_WIDTH": "100", "NO_COLOR": "1", "TERM": "dumb"}
    done = subprocess.run(
        [sys.executable, "-m", "pai_cli", "help", *command],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    return "\n".join(line.rstrip() for line in done.stdout.strip("\n").splitlines())


def reference() -> str:
    """The whole page."""
    parts = [HEAD]
    for command in ((), *((name,) for name in COMMANDS)):
        title = " ".join(("pai", *command))
        parts.append(f"## {title}\n\n```text\n{help_of(*command)}\n```\n")
    return "\n".join(parts)


def main() -> int:
    """Write the page, or check it."""
    wanted = reference()
    if "--check" not in sys.argv[1:]:
        TARGET.write_text(wanted, encoding="utf-8")
        return 0
    found = TARGET.read_text(encoding="utf-8") if TARGET.exists() else ""
    if found == wanted:
        return 0
    sys.stdout.writelines(
        difflib.unified_diff(found.splitlines(True), wanted.splitlines(True), str(TARGET), "pai help")
    )
    print("docs/cli.md differs from the help; make docs writes it again", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
