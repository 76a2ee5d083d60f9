"""Methods of other distributions, each really installed: a folder with its metadata on the path."""

from __future__ import annotations

import os
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path

import copies
import pytest
from conftest import ROOT, Pai
from safetensors.numpy import load_file

from pai_cli.errors import UnknownMethodError
from pai_cli.files.masks import MaskFile
from pai_cli.pruning import registry

SIGNED = '''
"""The most positive weights, as docs/methods.md has them."""

from pai_cli.pruning.base import Method, Scores


def make_scorer(context):
    values = {layer.name: context.network.parameter(layer.name).detach() for layer in context.layers}
    return lambda masks: Scores(values)


METHOD = Method(
    name="signed",
    summary="the most positive weights",
    source="an example",
    make_scorer=make_scorer,
)


def method():
    return METHOD
'''

Install = Callable[..., Path]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Install]:
    """`install(distribution, module, code, name="module:object", ...)` puts it on the path until the test ends."""
    monkeypatch.setattr(registry, "METHODS", dict(registry.METHODS))
    monkeypatch.setattr(registry, "_added", set())
    registry._extend.cache_clear()
    modules: list[str] = []

    def installing(distribution: str, module: str, code: str, **entries: str) -> Path:
        site = tmp_path / f"site-{distribution}"
        metadata = site / f"{distribution.replace('-', '_')}-1.2.dist-info"
        metadata.mkdir(parents=True)
        (site / f"{module}.py").write_text(textwrap.dedent(code))
        (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 1.2\n")
        lines = [f"{name.replace('_', '-')} = {value}" for name, value in entries.items()]
        (metadata / "entry_points.txt").write_text("\n".join(["[pai.methods]", *lines, ""]))
        monkeypatch.syspath_prepend(site)
        modules.append(module)
        return site

    yield installing
    registry._extend.cache_clear()
    for module in modules:
        sys.modules.pop(module, None)


PRUNE = ("prune", "small.safetensors", "--density", 0.5, "-o", "mask.safetensors", "--method")


@pytest.mark.parametrize("value", ["acme_methods:METHOD", "acme_methods:method"])
def test_an_installed_method_is_one_like_the_others(pai: Pai, here: Path, install: Install, value: str) -> None:
    install("acme-pruning", "acme_methods", SIGNED, signed=value)
    done = pai(*PRUNE, "signed")
    assert done.status == 0
    assert not any("warning" in line for line in done.said)
    assert MaskFile(here / "mask.safetensors").metadata["method"] == "signed"
    masks, weights = load_file("mask.safetensors"), load_file("small.safetensors")
    assert sum(int(mask.sum()) for mask in masks.values()) == 348
    assert min(weights[n][m].min() for n, m in masks.items()) >= max(weights[n][~m].max() for n, m in masks.items())
    again = pai(*PRUNE, "sgned", "--force")
    assert again.said == [
        "pai: error: unknown method 'sgned': did you mean signed? --method takes "
        + ", ".join([*(name for name in registry.METHODS if name != "signed"), "signed"])
    ]
    for flags in (["--invert"], ["--shuffle"], ["--scope", "layer"]):
        assert pai(*PRUNE, "signed", *flags, "--force").status == 0
    done = pai("sample", "small.safetensors", "--method", "signed", "--density", 0.5, "--population", 3)
    assert done.status == 0


def test_nothing_is_imported_for_a_built_in_method(pai: Pai, here: Path, install: Install) -> None:
    install("acme-pruning", "acme_methods", "raise SystemExit('imported')", signed="acme_methods:METHOD")
    done = pai(*PRUNE, "erk")
    assert done.status == 0
    assert "acme_methods" not in sys.modules
    assert not any("warning" in line for line in done.said)
    assert "signed" in registry.names()


BROKEN = {
    "import": ("import no_such_package", "ModuleNotFoundError: No module named 'no_such_package'"),
    "exit": ("raise SystemExit('no')", "SystemExit: no"),
    "syntax": ("def", "SyntaxError: invalid syntax"),
    "missing": ("", "AttributeError: module 'broken_methods' has no attribute 'METHOD'"),
    "another thing": ("METHOD = 3", "TypeError: broken_methods:METHOD gives int, not a pai_cli.pruning.base.Method"),
    "raises": ("def METHOD(): raise ValueError('two\\nlines')", "ValueError: two"),
    "trains on nothing": (
        "from pai_cli.pruning.base import Method\nMETHOD = Method('broken', '', '', print, trains=('epochs',))",
        "ValueError: a method that trains needs data=True",
    ),
    "another name": (SIGNED, "ValueError: the method calls itself 'signed'"),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_a_broken_method_is_one_warning_line(pai: Pai, here: Path, install: Install, kind: str) -> None:
    code, cause = BROKEN[kind]
    install("broken-dist", "broken_methods", code, broken="broken_methods:METHOD")
    install("acme-pruning", "acme_methods", SIGNED, signed="acme_methods:METHOD")
    done = pai(*PRUNE, "signed")
    assert done.status == 0
    first = done.said[0]
    assert first.startswith(f"pai: warning: method 'broken' of broken-dist 1.2 cannot be used ({cause}")
    assert sum("broken" in line for line in done.said) == 1


def test_a_broken_method_that_is_asked_for(pai: Pai, here: Path, install: Install) -> None:
    install("broken-dist", "broken_methods", "import no_such_package", broken="broken_methods:METHOD")
    done = pai(*PRUNE, "broken")
    assert (done.status, len(done.said)) == (1, 1)
    assert done.said[0].startswith(
        "pai: error: method 'broken' of broken-dist 1.2 cannot be used (ModuleNotFoundError: No module named "
        "'no_such_package'); --method takes random, "
    )
    with pytest.raises(UnknownMethodError, match=r"^method 'broken' of broken-dist 1\.2 cannot be used"):
        registry.get("broken")


def test_a_name_that_is_taken_is_refused(pai: Pai, here: Path, install: Install) -> None:
    assert pai(*PRUNE, "magnitude").status == 0
    own = load_file("mask.safetensors")
    install("thief", "thief_methods", SIGNED, magnitude="thief_methods:METHOD")
    for method in ("magnitude", "erk"):
        done = pai(*PRUNE, method, "--force")
        assert done.status == 0
        assert done.said[0] == (
            "pai: warning: method 'magnitude' of thief 1.2 is not used: pai has a method of that name"
        )
    assert "thief_methods" not in sys.modules
    assert pai(*PRUNE, "magnitude", "--force").status == 0
    assert all((own[name] == mask).all() for name, mask in load_file("mask.safetensors").items())


def test_of_two_distributions_the_first_has_the_name(pai: Pai, here: Path, install: Install) -> None:
    install("b-dist", "b_methods", "raise RuntimeError", signed="b_methods:METHOD")
    install("a-dist", "a_methods", SIGNED, signed="a_methods:METHOD")
    done = pai(*PRUNE, "signed")
    assert done.status == 0
    assert done.said[0] == (
        "pai: warning: method 'signed' of b-dist 1.2 is not used: another distribution has a method of that name"
    )
    assert pai(*PRUNE, "signed", "--force").said[0] == done.said[0]  # said again, loaded once


@pytest.mark.parametrize(
    ("file", "words"), [("entry_points.txt", b"[pai.methods]\nsigned\n"), ("METADATA", b"Name: \xff")]
)
def test_damaged_metadata_of_any_distribution(pai: Pai, here: Path, install: Install, file: str, words: bytes) -> None:
    site = install("acme-pruning", "acme_methods", SIGNED, signed="acme_methods:METHOD")
    damaged = site / "acme_pruning-1.2.dist-info"
    (damaged / file).write_bytes(words)
    told = f"methods of other distributions are not looked up: the metadata in {damaged} is damaged ("
    remedy = "); install that distribution again"
    done = pai(*PRUNE, "random")
    assert done.status == 0
    line = done.err.replace("\n", "")
    assert f"pai: warning: {told}" in line
    assert remedy in line
    done = pai(*PRUNE, "signed", "--force")
    assert (done.status, len(done.said)) == (1, 1)
    assert done.said[0].startswith(f"pai: error: {told}")
    assert f"{remedy}; --method takes random, " in done.said[0]


def test_help_loads_no_other_distribution(install: Install, tmp_path: Path) -> None:
    mark = tmp_path / "loaded"
    site = install("a-dist", "a_methods", f"open({str(mark)!r}, 'w').close()", one="a_methods:METHOD")
    path = os.pathsep.join([str(ROOT), str(site)])
    done = copies.run(["--help"], PYTHONPATH=path)
    assert (done.status, done.err, mark.exists()) == (0, "", False)
    copies.run(["prune", tmp_path / "none", "--method", "one", "--density", "0.5"], PYTHONPATH=path)
    assert mark.exists()  # or the lines before say nothing


def test_the_example_in_the_docs_is_the_one_tried_here() -> None:
    text = (ROOT / "docs" / "methods.md").read_text(encoding="utf-8")
    code = SIGNED.split('"""')[2].split("def method", maxsplit=1)[0].strip()
    assert code in text
    assert '[project.entry-points."pai.methods"]\nsigned = "acme_methods:METHOD"' in text
