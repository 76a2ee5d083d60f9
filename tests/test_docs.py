"""The page on Python: its snippets run, in their order, and print what stands below them."""

from __future__ import annotations

import contextlib
import io
import re
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT

import pai_cli
from pai_cli.pruning.base import METHODS

PAGE = ROOT / "docs" / "python-api.md"
BLOCK = re.compile(r"```python\n(?P<code>.*?)```\n(?:\n```text\n(?P<printed>.*?)```)?", re.DOTALL)


def test_the_snippets_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("pai_cli.methods.registry.METHODS", METHODS)
    known = set(METHODS)
    names: dict[str, Any] = {"__name__": "page"}
    blocks = list(BLOCK.finditer(PAGE.read_text(encoding="utf-8")))
    assert len(blocks) > 10
    try:
        for block in blocks:
            printed = io.StringIO()
            with contextlib.redirect_stdout(printed):
                exec(compile(block["code"], str(PAGE), "exec"), names)
            assert printed.getvalue() == (block["printed"] or ""), block["code"]
    finally:
        for name in set(METHODS) - known:
            del METHODS[name]


def test_every_public_name_is_on_the_page() -> None:
    text = PAGE.read_text(encoding="utf-8")
    assert [name for name in pai_cli.__all__ if f"pai.{name}" not in text and name != "__version__"] == []
