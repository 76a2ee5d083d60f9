"""Runs the sessions of the pages and fills in what their commands print; with --check, says what differs and exits 1.

A page is one bash session in an empty folder that holds nothing but sample_masks/ and scripts/. A block of `console` has
commands after `$ ` (what a command goes on with stands after `> `), below each what it prints, notes and errors too. A block
of code with title="NAME" is that file. A command may fail only where the next one asks for its status.
"""

from __future__ import annotations

import difflib
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parent.parent
TUTORIALS = tuple(sorted((ROOT / "docs" / "tutorials").glob("*.md")))
PAGES = (ROOT / "README.md", ROOT / "docs" / "tour.md", *TUTORIALS)
PICTURE = ROOT / "docs" / "layers.svg"  # which the README's session draws
BLOCK = re.compile(r"```console\n(?P<session>.*?)```|```\w+ title=\"(?P<name>[^\"]+)\"\n(?P<text>.*?)```", re.DOTALL)
COMMAND = re.compile(r"^\$ (?P<first>.*\n)(?P<rest>(?:> .*\n)*)", re.MULTILINE)
END = "\x1e"  # after what a command prints, then its exit status and a line break
AFTER = f"status=$?; printf '{END}%s\\n' $status; (exit $status)\n"  # so that the next command can ask for $?
SETTINGS = {
    "NO_COLOR": "1",
    "OMP_NUM_THREADS": "2",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "PYTHONPATH": str(ROOT),
}


def commands_of(session: str) -> list[str]:
    """The commands of a console block as bash reads them, each with its line breaks."""
    found = COMMAND.finditer(session)
    return [command["first"] + re.sub("^> ", "", command["rest"], flags=re.MULTILINE) for command in found]


def script_of(page: str) -> str:
    """All that a page has bash do."""
    parts = []
    for block in BLOCK.finditer(page):
        if block["name"]:
            parts.append(f"cat >'{block['name']}' <<'{END}'\n{block['text']}{END}\n")
        else:
            parts += [command + AFTER for command in commands_of(block["session"])]
    return "".join(parts)


def write_programs(folder: Path) -> Path:
    """The folder, with `pai` and `python` in it: this checkout's, and the Python that runs this."""
    for name, words in (("pai", " -m pai_cli"), ("python", "")):
        (folder / name).write_text(f'#!/bin/sh\nexec "{sys.executable}"{words} "$@"\n', encoding="utf-8")
        (folder / name).chmod(0o755)
    return folder


def printed(page: str, folder: Path, programs: Path, cache: Path) -> Iterator[str]:
    """What each command of the page prints, without spaces at ends of lines. Raises where one fails unasked."""
    path = f"{programs}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        ["bash"],
        input=script_of(page),
        cwd=folder,
        env=os.environ | SETTINGS | {"PAI_CACHE_DIR": str(cache), "PATH": path},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        check=False,
    )
    commands = [command for block in BLOCK.finditer(page) for command in commands_of(block["session"] or "")]
    told = re.findall(f"(.*?){END}(\\d+)\n", done.stdout, re.DOTALL)
    for command, (text, status), after in zip(commands, told, [*commands[1:], ""], strict=True):
        if status != "0" and "$?" not in after:
            raise RuntimeError(f"{command.strip()}: exit {status}: {text.strip()}")
        yield "\n".join(line.rstrip() for line in text.splitlines()).strip("\n")


def filled(page: str, programs: Path) -> tuple[str, bytes]:
    """The page with every command's output made anew, and the picture that it draws, if it draws one."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "session"
        for shipped in ("sample_masks", "scripts"):
            shutil.copytree(ROOT / shipped, folder / shipped)
        texts = printed(page, folder, programs, Path(name))

        def block(match: re.Match[str]) -> str:
            if match["name"]:
                return match[0]
            shown = [f"{command[0]}{next(texts)}".rstrip() for command in COMMAND.finditer(match["session"])]
            return "```console\n" + "\n".join(shown) + "\n```"

        text, picture = BLOCK.sub(block, page), folder / PICTURE.name
        return text, picture.read_bytes() if picture.exists() else b""


def differs(page: Path, programs: Path) -> bool:
    """Says how a page differs from what its commands print now."""
    found = page.read_text(encoding="utf-8")
    wanted, picture = filled(found, programs)
    name = str(page.relative_to(ROOT))
    sys.stdout.writelines(difflib.unified_diff(found.splitlines(True), wanted.splitlines(True), name, "now"))
    return found != wanted or bool(picture and picture != PICTURE.read_bytes())


def main() -> int:
    """Write the pages' blocks, or check them: of the pages that are named, or of all."""
    words = [word for word in sys.argv[1:] if word != "--check"]
    pages = [Path(word).resolve() for word in words] or PAGES
    with tempfile.TemporaryDirectory() as name:
        programs = write_programs(Path(name))
        if "--check" in sys.argv[1:]:
            return max([differs(page, programs) for page in pages])
        for page in pages:
            text, picture = filled(page.read_text(encoding="utf-8"), programs)
            page.write_text(text, encoding="utf-8")
            if picture:
                PICTURE.write_bytes(picture)
    return 0


if __name__ == "__main__":
    sys.exit(main())
