"""The laws that the tests try on a few fixed examples, on many new ones: a case is one law, in a pytest of its own."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from functools import cache
from pathlib import Path

from conftest import ROOT

MOST_SECONDS = 110


@cache
def laws() -> tuple[str, ...]:
    """Every test that is given its arguments by hypothesis, as pytest names it: path::name."""
    found = []
    for path in sorted((ROOT / "tests").glob("test_*.py")):
        text = path.read_text(encoding="utf-8")
        for node in ast.parse(text).body if "@given(" in text else ():
            if isinstance(node, ast.FunctionDef) and any(_is_given(decorator) for decorator in node.decorator_list):
                found.append(f"{path}::{node.name}")
    return tuple(found)


def _is_given(decorator: ast.expr) -> bool:
    return isinstance(decorator, ast.Call) and isinstance(decorator.func, ast.Name) and decorator.func.id == "given"


def case(seed: int, folder: Path) -> None:
    """A law of the tests holds on new examples."""
    every = laws()
    options = ("-p", "no:cacheprovider", f"--basetemp={folder / 'tests'}", f"--hypothesis-seed={seed}")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", every[seed % len(every)], *options],
        cwd=ROOT, env=os.environ | {"HYPOTHESIS_PROFILE": "fuzz"}, timeout=MOST_SECONDS,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
