"""`pai.mine` as a program calls it."""

from __future__ import annotations

import json
from inspect import signature
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import SMALL, random_mask, run_pai, save_mask

import pai_cli as pai
from pai_cli.commands.given import OF_SHOWING
from pai_cli.errors import EdgeListError, MaskError, MiningError, PictureError, TraceError, UsageError

SHAPES = {"fc1.weight": (16, 24), "fc2.weight": (12, 16), "fc3.weight": (10, 12)}


def masks(count: int = 6, density: float = 0.4) -> list[dict[str, np.ndarray]]:
    return [
        {name: random_mask(shape, density, 10 * seed + place) for place, (name, shape) in enumerate(SHAPES.items())}
        for seed in range(count)
    ]


MASKS = masks()


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    monkeypatch.chdir(tmp_path)
    return [save_mask(Path(f"m{number}.safetensors"), one) for number, one in enumerate(MASKS)]


def records(mined: Any) -> list[dict[str, Any]]:
    return [json.loads(json.dumps(one.to_dict())) for one in mined]


def test_the_parameters_are_the_commands() -> None:
    from pai_cli.commands.mine import mine as command

    of_command = {name: one.default for name, one in signature(command).parameters.items() if name not in OF_SHOWING}
    own = {name: one.default for name, one in signature(pai.mine).parameters.items() if name != "progress"}
    assert own == of_command


def test_what_a_program_holds_and_files_give_the_same_as_the_command(files: list[Path]) -> None:
    words = ("--support", "4", "--level", "weight")
    expected = run_pai("mine", *files, *words, "--format", "json").json()
    assert expected
    mined = pai.mine(files, 4, level="weight")
    assert records(mined) == expected
    assert records(mined) == expected  # iterating again searches again
    assert [one.size for one in mined.subgraphs] == [one["edges"] for one in expected]
    assert mined.stopped == ""
    held = pai.mine(MASKS, "4", level="weight")
    assert held.names == tuple(f"masks[{number}]" for number in range(6))
    assert [one | {"masks": 0} for one in records(held)] == [one | {"masks": 0} for one in expected]
    mixed = pai.mine([pai.Mask(MASKS[0]), *files[1:3], *map(pai.Mask.load, files[3:])], 4, level="weight")
    assert mixed.names == ("masks[0]", *map(str, files[1:]))
    assert records(pai.mine(Path(), 4, level="weight")) == [
        one | {"masks": [Path(name).name for name in one["masks"]]} for one in expected
    ]


def test_pairs_are_those_of_the_command(files: list[Path]) -> None:
    expected = run_pai("mine", *files, "--overlap", "--level", "weight", "--format", "json").json()
    mined = pai.mine(files, level="weight", overlap=True)
    assert records(mined.pairs) == expected
    assert len(mined.pairs) == 15
    first = mined.pairs[0]
    assert first.names == ("m0.safetensors", "m1.safetensors")
    shared = sum(int((MASKS[0][name] & MASKS[1][name]).sum()) for name in SHAPES)
    either = sum(int((MASKS[0][name] | MASKS[1][name]).sum()) for name in SHAPES)
    assert (first.shared, first.union, first.jaccard) == (shared, either, shared / either)
    with pytest.raises(UsageError, match=r"^overlap=True: the pairs alone were asked for, and no search is made"):
        list(mined)


@pytest.mark.parametrize(("support", "needed"), [("0.8", 5), (0.5, 3), (1.0, 6), (2, 2), ("3", 3)])
def test_the_consensus(files: list[Path], support: Any, needed: int) -> None:
    mined = pai.mine(files, support, level="weight")
    assert mined.support == needed
    for name in SHAPES:
        wanted = np.sum([one[name] for one in MASKS], axis=0) >= needed
        np.testing.assert_array_equal(mined.consensus[name], wanted)
    assert mined.consensus.metadata["method"] == "consensus"
    assert "command" not in mined.consensus.metadata
    assert len(list(Path().iterdir())) == len(files)


def test_the_consensus_is_written_where_asked(files: list[Path]) -> None:
    mined = pai.mine(files, 3, level="weight", output="c.safetensors", packed=True)
    assert pai.Mask.load("c.safetensors") == mined.consensus
    with pytest.raises(pai.Error, match=r"^c\.safetensors: exists already; force=True replaces it$"):
        pai.mine(files, 2, level="weight", output="c.safetensors")
    again = pai.mine(files, 2, level="weight", output="c.safetensors", force=True)
    assert pai.Mask.load("c.safetensors") == again.consensus != mined.consensus
    with pytest.warns(pai.PaiWarning, match=r"^layer collapse: .* kept no weight; lower support=$"):
        pai.mine(
            [{"a": np.eye(3, dtype=bool)}, {"a": ~np.eye(3, dtype=bool)}], 2, level="weight", output="e.safetensors"
        )


def test_a_picture(files: list[Path]) -> None:
    pytest.importorskip("matplotlib")
    pai.mine(files, level="weight", plot="p.svg")
    assert "Jaccard index" in Path("p.svg").read_text()
    with pytest.raises(PictureError, match=r"^p\.gif: "):
        pai.mine(files, level="weight", plot="p.gif")


def test_weights_may_be_a_module(files: list[Path]) -> None:
    network = pai.init(SMALL)
    named, followed = pai.mine(files, 3), pai.mine(files, 3, weights=network, input_shape=(24,))
    assert records(named) == records(followed) != []


def test_limits() -> None:
    mined = pai.mine(MASKS, 3, level="weight", max_results=2)
    assert len(mined.subgraphs) == 2
    assert mined.stopped == "max_results=2"
    assert pai.mine(MASKS, 3, level="weight", timeout=0).subgraphs == []
    smallest = pai.mine(MASKS, 3, level="weight", min_edges=1).subgraphs
    assert min(one.size for one in smallest) < 3 <= min(one.size for one in pai.mine(MASKS, 3, level="weight"))


def test_subgraphs_say_what_they_are() -> None:
    one = max(pai.mine(MASKS, 4), key=lambda found: found.size)
    assert one.share == one.support / 6 == len(one.holders) / 6
    assert len(one.edge_names) == one.size
    assert set(one.layers) <= set(SHAPES)
    assert repr(one) == f"<Subgraph {one.number}: {one.size} edges, held by {one.support} of 6>"


def test_progress_is_told() -> None:
    told: list[int] = []
    mined = pai.mine(MASKS, 4, level="weight", progress=lambda done, total, what="": told.append(done))
    read = len(told)
    assert read > 0
    list(mined)
    assert len(told) > read


def test_lists_of_edges(tmp_path: Path) -> None:
    paths = [tmp_path / "1.tsv", tmp_path / "2.tsv"]
    paths[0].write_text("a\tb\nb\tc\nc\td\n")
    paths[1].write_text("b a\nb c\nc d\nd e\n")
    mined = pai.mine(paths, 1.0, graphs=True)
    assert [one.edge_names for one in mined] == [("a--b", "b--c", "c--d")]
    with pytest.raises(UsageError, match=r"^graphs=True: lists of edges have no weights"):
        _ = mined.consensus
    paths[0].write_text("a\n")
    with pytest.raises(EdgeListError):
        pai.mine(paths, graphs=True)


REFUSED: dict[str, tuple[dict[str, Any], type[Exception], str]] = {
    "level of graphs": ({"graphs": True, "level": "unit"}, UsageError, "level: is about masks, and graphs=True reads"),
    "weights of graphs": ({"graphs": True, "weights": "c"}, UsageError, "weights: is about masks, and graphs=True"),
    "masks of graphs": ({"graphs": True}, UsageError, "graphs=True: reads files of edges, and a mask was given"),
    "model": ({"model": "resnet20"}, UsageError, "model: says how weights= is followed; give weights=CKPT too"),
    "shape": ({"input_shape": (3, 8, 8)}, UsageError, "input_shape: says how weights= is followed"),
    "weights": ({"weights": "c", "level": "weight"}, UsageError, "weights: at level=weight layers stand by themselves"),
    "packed": ({"packed": True}, UsageError, "packed=True: is about the mask that output= writes; give output=MASK too"),
    "force": ({"force": True}, UsageError, "force=True: no file is written; give output= too, or leave it out"),
    "search": ({"overlap": True, "timeout": 3}, UsageError, "timeout: is about the search, and overlap=True makes none"),
    "edges": ({"overlap": True, "min_edges": 3}, UsageError, "min_edges: is about the search"),
    "support alone": ({"overlap": True, "support": 2}, UsageError, "support: is about the search"),
    "no edge": ({"min_edges": 0}, UsageError, "min_edges=0: must be a number of 1 or more"),
    "no time": ({"timeout": -1}, UsageError, "timeout=-1: must be a number of 0 or more"),
    "unknown level": ({"level": "layer"}, ValueError, "level='layer': give one of unit, weight"),
    "too many": ({"support": 7, "level": "weight"}, MiningError, "support=7: of 6 that are given, so many cannot agree"),
    "no share": ({"support": 1.5}, MiningError, "support=1.5: give a share above 0 and at most 1.0"),
    "no mask": ({"masks": 3}, ValueError, "masks=3: give a path, a mapping of names to arrays, or several of them"),
    "no masks": ({"masks": [3]}, ValueError, "masks=3: is neither a path nor a mapping of names to arrays"),
    "networks": ({"masks": [MASKS[0], {"a": np.ones((2, 2), bool)}]}, MaskError, "masks[1]: "),
    "wiring": (
        {"masks": [{"a": np.ones((4, 3), bool), "b": np.ones((5, 6), bool)}]},
        TraceError,
        "'b' reads 6 channels where 4 come before it",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_refused(case: str) -> None:
    options, kind, text = REFUSED[case]
    with pytest.raises(kind) as caught:
        pai.mine(**{"masks": MASKS, **options})
    assert str(caught.value).startswith(text)
