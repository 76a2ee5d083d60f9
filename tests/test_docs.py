"""The pages: links lead somewhere; of that on Python and of the notebook the code runs, and gives what stands below it."""

from __future__ import annotations

import importlib.util
import re
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


DOCS = ROOT / "docs"
PAGES = sorted([*ROOT.glob("*.md"), *DOCS.rglob("*.md")])


def anchors(page: Path) -> set[str]:
    """What leads to a page's headings both on the site and where the repository is shown: the ways in which they agree."""
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    titles = [re.sub(r"[^\w\s-]", "", title).strip().lower() for title in re.findall(r"^#+ (.*)", text, re.MULTILINE)]
    return {re.sub(r"[-\s]+", "-", title) for title in titles} & {title.replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_links_lead_somewhere(page: Path) -> None:
    links = re.findall(r"(?:\]\(|src=\")([^)\s\"]+)[)\"]", page.read_text(encoding="utf-8"))
    broken = []
    for link in links:
        if link.startswith(("http:", "https:")):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        outside = page.is_relative_to(DOCS) and not target.is_relative_to(DOCS)  # which the site has not
        if outside or not target.exists() or (anchor and anchor not in anchors(target)):
            broken.append(link)
    assert broken == []


def test_the_site_has_every_page() -> None:
    listed = re.findall(r"^ +- .*: (\S+\.md)$", (ROOT / "mkdocs.yml").read_text(encoding="utf-8"), re.MULTILINE)
    assert sorted(listed) == sorted(page.relative_to(DOCS).as_posix() for page in DOCS.rglob("*.md"))
