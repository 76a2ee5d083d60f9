"""Fills in the README's console blocks with what the commands print; with --check, says what differs and exits 1 instead.

A block's first line is the command after `$ `; the lines below it are its standard output. Commands run in an empty folder
that holds nothing but sample_masks/ and scripts/.
"""

from __future__ import annotations

import difflib
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parent.parent
README = ROOT / "README.md"
BLOCK = re.compile(r"```console\n\$ (?P<command>[^\n]*)\n.*?```", re.DOTALL)


def output_of(command: str, folder: Path) -> str:
    """What `command` prints on standard output in `folder`, without the spaces that end lines. Raises when it fails."""
    path = f"{folder.parent}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "NO_COLOR": "1", "PATH": path}
    done = subprocess.run(command, shell=True, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{command}: exit {done.returncode}: {done.stderr.strip()}")
    lines = [line.rstrip() for line in done.stdout.splitlines()]
    return "\n".join(lines).strip("\n")


def filled(text: str) -> str:
    """The README with every block's output made anew."""
    with tempfile.TemporaryDirectory() as name:
        folder, pai = Path(name) / "session", Path(name) / "pai"
        for shipped in ("sample_masks", "scripts"):
            shutil.copytree(ROOT / shipped, folder / shipped)
        pai.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m pai_cli "$@"\n', encoding="utf-8")
        pai.chmod(0o755)

        def block(match: re.Match[str]) -> str:
            command = match["command"]
            return f"```console\n$ {command}\n{output_of(command, folder)}\n```"

        return BLOCK.sub(block, text)


def main() -> int:
    """Write the README's blocks, or check them."""
    found = README.read_text(encoding="utf-8")
    wanted = filled(found)
    if "--check" not in sys.argv[1:]:
        README.write_text(wanted, encoding="utf-8")
        return 0
    sys.stdout.writelines(difflib.unified_diff(found.splitlines(True), wanted.splitlines(True), "README.md", "now"))
    return int(found != wanted)


if __name__ == "__main__":
    sys.exit(main())
