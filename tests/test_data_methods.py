"""`pai prune` and `pai sample` with labelled samples: which are taken, what is told of them, what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from conftest import Done, Pai, run_pai
from networks import WITH_DATA
from safetensors.numpy import load_file
from standin import Toy

from pai_cli.errors import DataError
from pai_cli.files.masks import MaskFile
from pai_cli.methods.registry import METHODS
from pai_cli.pruning import samples

DATA_METHODS = pytest.mark.parametrize("method", ["snip", "iter-snip", "force", "grasp", "fisher", "hutchinson"])


@pytest.fixture(autouse=True)
def toy(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """`--data toy` opens data for the small network; gives the specs that were opened."""
    opened: list[str] = []

    def open_dataset(spec: str, *, train: bool = True, normalise: bool = False) -> Toy:
        assert train
        assert not normalise
        opened.append(spec)
        if spec == "toy":
            return Toy(10, (24,), per_class=30)
        raise DataError(f"{spec}: no such file or folder")

    monkeypatch.setattr(samples, "open_dataset", open_dataset)
    return opened


def prune(method: str, *flags: object, rounds: int | None = None) -> Done:
    in_rounds = ["--rounds", 4] if METHODS[method].iterative else []
    return run_pai("prune", "small.safetensors", "--method", method, "--density", 0.3, *in_rounds, "-o", "mask", *flags)


def told(path: Path | str = "mask") -> dict[str, str]:
    return dict(MaskFile(Path(path)).metadata)


@DATA_METHODS
def test_a_mask_tells_its_samples(here: Path, toy: list[str], method: str) -> None:
    assert prune(method, "--data", "toy", "--seed", 2).status == 0
    assert toy == ["toy"]
    first, story = load_file("mask"), told()
    assert (story["method"], story["data"], story["per_class"], story["seed"]) == (method, "toy", "10", "2")
    indices = json.loads(story["samples"])
    assert np.bincount(Toy(10, (24,), per_class=30).labels[indices]).tolist() == [10] * 10
    assert sum(int(mask.sum()) for mask in first.values()) == 209
    assert prune(method, "--data", "toy", "--seed", 2, "--force").status == 0
    assert all(np.array_equal(first[name], mask) for name, mask in load_file("mask").items())
    assert prune(method, "--data", "toy", "--seed", 3, "--per-class", 4, "--force").status == 0
    assert len(json.loads(told()["samples"])) == 40
    assert any(not np.array_equal(first[name], mask) for name, mask in load_file("mask").items())


REFUSED = {
    "none": (["snip"], "--method snip: scores with labelled samples; give --data"),
    "unused": (["erk", "--data", "toy"],
               f"--data toy: erk needs no data; leave --data out (methods that take it: {WITH_DATA})"),
    "unused number": (["magnitude", "--per-class", 3],
                      f"--per-class 3: magnitude needs no data; leave --per-class out (methods that take it: {WITH_DATA})"),
    "missing": (["grasp", "--data", "nowhere"], "nowhere: no such file or folder"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused(here: Path, name: str) -> None:
    words, said = REFUSED[name]
    status = 2 if name in ("none", "unused", "unused number") else 1
    before = sorted(path.name for path in here.iterdir())
    done = prune(*words)
    assert (done.status, done.out, done.said) == (status, "", [f"pai: error: {said}"])
    assert sorted(path.name for path in here.iterdir()) == before
    done = run_pai("sample", "small.safetensors", "--population", 3, "--density", 0.5, "--method", *words)
    assert (done.status, done.said) == (status, [f"pai: error: {said}"])
    assert sorted(path.name for path in here.iterdir()) == before


def test_too_few_a_class_is_wrong_usage(here: Path) -> None:
    assert prune("snip", "--data", "toy", "--per-class", 0).status == 2
    done = prune("snip", "--data", "toy", "--per-class", 31)
    assert (done.status, done.said[-1]) == (
        2, "pai: error: toy: class 0 has 30 examples, and 31 of each class are taken; give --per-class 30 or less"
    )  # fmt: skip


def sample(population: int, *flags: object, method: str = "snip") -> Done:
    return run_pai(
        "sample", "small.safetensors", "--method", method, "--density", 0.4, "--population", population,
        "--data", "toy", "-o", "best.safetensors", *flags,
    )  # fmt: skip


@pytest.mark.parametrize("method", ["snip", "grasp"])
def test_candidates_come_from_fresh_samples(here: Path, toy: list[str], method: str) -> None:
    done = sample(8, method=method)
    assert done.status == 0
    assert toy == ["toy"]  # opened once for all
    lines = [json.loads(line) for line in (here / "best.jsonl").read_text().splitlines()]
    assert (lines[0]["data"], lines[0]["noise"]) == ("toy", 0.0)
    assert len({line["l2"] for line in lines[1:]}) == 8
    story = told("best.safetensors")
    best = int(story["candidate"])
    assert best == max(range(8), key=lambda i: lines[1 + i]["l2"]) != 0
    # The samples told are the best candidate's own.
    assert prune(method, "--data", "toy").status == 0
    assert json.loads(story["samples"]) != json.loads(told()["samples"])
    assert len(json.loads(story["samples"])) == 100


def test_a_search_with_data_goes_on(here: Path) -> None:
    assert sample(6).status == 0
    wanted = {name: mask.tobytes() for name, mask in load_file("best.safetensors").items()}
    assert sample(3, "--force").status == 0
    assert sample(6, "--resume").status == 0
    assert {name: mask.tobytes() for name, mask in load_file("best.safetensors").items()} == wanted
    assert sample(6, "--resume", "--per-class", 10).status == 0  # as it was
    done = sample(7, "--resume", "--per-class", 3)
    assert done.status == 1
    assert "that search had per_class 10, this one has 3" in done.said[-1]


def test_noise_is_refused_where_samples_differ(pai: Pai, here: Path) -> None:
    done = sample(3, "--noise", 0.2)
    assert done.said == [
        "pai: error: --noise 0.2: snip scores with samples, so its candidates differ by their samples; leave --noise out"
    ]
