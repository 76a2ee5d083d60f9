"""The page on Python and the notebook: their code runs, and gives what stands below it."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest
from conftest import ROOT

import pai_cli
from pai_cli.pruning.base import METHODS


def script(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, ROOT / "docs" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


snippets = script("snippets")


def test_the_snippets_run_and_print_what_the_page_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    known = dict(METHODS)
    page = snippets.PAGE.read_text(encoding="utf-8")
    assert len(snippets.BLOCK.findall(page)) > 10
    try:
        assert snippets.filled(page) == page
    finally:
        METHODS.clear()
        METHODS.update(known)


def test_every_public_name_is_on_the_page() -> None:
    text = snippets.PAGE.read_text(encoding="utf-8")
    assert [name for name in pai_cli.__all__ if f"pai.{name}" not in text and name != "__version__"] == []


def test_the_notebook_is_what_its_cells_give(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "160")
    notebook = script("notebook")
    assert notebook.notebook() == notebook.TARGET.read_text(encoding="utf-8")
