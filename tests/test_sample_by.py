"""`sample --by`: any metric, or arithmetic of several, decides which candidate is taken."""

from __future__ import annotations

import json
import math
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import Pai
from torch import nn

import pai_cli as pai_library
from pai_cli.errors import TraceError, UsageError
from pai_cli.files.masks import MaskFile
from pai_cli.methods.registry import get
from pai_cli.models.network import init_network
from pai_cli.pruning.request import PruneRequest
from pai_cli.sampling.candidates import Candidate, Workshop, candidate
from pai_cli.sampling.request import SearchRequest
from pai_cli.spectral.catalogue import BETWEEN, RANKED


@pytest.fixture(scope="module")
def net(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from conftest import run_pai

    path = tmp_path_factory.mktemp("by") / "net.safetensors"
    assert run_pai("init", "mlp-48-40-32-10", "-o", path).status == 0
    return path


def searched(pai: Pai, net: Path, where: Path, by: str, *more: object) -> tuple[list[dict[str, Any]], list[Any], Any]:
    """The rows, what is shown, and what `analyze` says of the mask that was taken."""
    asked = ("--method", "erk", "--density", 0.4, "--population", 6, "--jobs", 1, *more)
    done = pai("sample", net, *asked, "--by", by, "-o", where, "--format", "json")
    assert done.status == 0, done.err
    rows = [json.loads(line) for line in where.with_suffix(".jsonl").read_text().splitlines()[1:]]
    return rows, done.json(), pai("analyze", where, "--weights", net, "--summary", "--format", "json").json()[0]


COMPOSITES = {
    "dr_imdb + l2": lambda row: row["dr_imdb"] + row["l2"],
    "-lambda": lambda row: -row["lambda"],
    "l2 / dr": lambda row: row["l2"] / row["dr"],
    "effective_share*10 - sigma_2": lambda row: row["effective_share"] * 10 - row["sigma_2"],
    "norm(dr, lambda) - 0.5 * (log_paths - fan_in_std)": lambda row: (
        math.hypot(row["dr"], row["lambda"]) - 0.5 * (row["log_paths"] - row["fan_in_std"])
    ),
    "l2_dense": lambda row: -row["l2_dense"],
    "collapsed - dead_inputs + layer_density": lambda row: row["collapsed"] - row["dead_inputs"] + row["layer_density"],
}


@pytest.mark.parametrize("by", COMPOSITES)
def test_the_best_by_arithmetic_is_taken(pai: Pai, net: Path, tmp_path: Path, by: str) -> None:
    rows, shown, measured = searched(pai, net, tmp_path / "s.safetensors", by)
    better = min if by in RANKED and not RANKED[by].larger_is_better else max
    values = [row[by] for row in rows]
    best = better(values)
    assert [row["candidate"] for row in shown] == [0, values.index(best)]
    assert [row[by] for row in shown] == [values[0], best]
    assert rows[-1][f"best_{by}"] == best
    sign = -1 if better is min else 1
    assert sign * best == pytest.approx(COMPOSITES[by](measured), rel=1e-12)
    for row in rows:  # what it is made of stands beside it
        assert sign * row[by] == pytest.approx(COMPOSITES[by](row), rel=1e-12)
    assert MaskFile(tmp_path / "s.safetensors").metadata["by"] == by


def test_every_metric_can_decide() -> None:
    network = init_network("mlp-48-40-32-10", None, 0)
    for name in RANKED:
        workshop = Workshop(network, SearchRequest.of(PruneRequest(get("erk"), 0.4), 2, None, by=name))
        found = candidate(workshop, 1)
        assert isinstance(found, Candidate)
        assert found.measures[name] is not None or name in found.measures["reason"], name
        assert workshop.request.of_whole == ((name,) if RANKED[name].needs_network else ())


def test_a_value_that_is_missing_says_why(pai: Pai, net: Path, tmp_path: Path) -> None:
    asked = ("sample", net, "--method", "erk", "--density", 0.01, "--population", 2, "--by", "dr + l2")
    done = pai(*asked, "-o", tmp_path / "s.safetensors")
    assert done.status == 0
    row = json.loads((tmp_path / "s.jsonl").read_text().splitlines()[1])
    assert row["dr + l2"] is None
    assert "dr + l2: no dr: " in row["reason"]
    told = "--by 'dr + l2': missing for every candidate, so the first is taken; each one's reason says why"
    assert f"pai: warning: {told}" in done.said


@pytest.mark.parametrize("by", ["dr_imdb", "lambda_imsg - dr_imdb"])
def test_a_reason_is_told_once(pai: Pai, net: Path, tmp_path: Path, by: str) -> None:
    asked = ("sample", net, "--method", "erk", "--density", 0.01, "--population", 1, "--by", by)
    assert pai(*asked, "-o", tmp_path / "s.safetensors").status == 0
    reasons = json.loads((tmp_path / "s.jsonl").read_text().splitlines()[1])["reason"].split("; ")
    assert [reason.partition(": ")[0] for reason in reasons] == ["dr_imdb", "lambda_imsg", *([by] if "-" in by else [])]


class Mixed(nn.Linear):
    """Mixes its units in a way that is not followed."""

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return torch.linalg.qr(super().forward(inputs)[:, :, None])[0].squeeze(2)


@pytest.mark.parametrize("by", ["effective_share", "l2 + overlap"])
def test_a_network_that_cannot_be_followed(by: str) -> None:
    model = nn.Sequential(Mixed(8, 6), nn.Linear(6, 4))
    asked: dict[str, Any] = {"method": "erk", "population": 2, "density": 0.5, "input_shape": (8,), "jobs": 1}
    with pytest.raises(TraceError, match=r"^the wiring of the network cannot be followed: .*; by=l2 needs no wiring$"):
        pai_library.sample(model, **asked, by=by)
    assert pai_library.sample(model, **asked, by="l2 - lambda").search is not None


def test_the_same_search_elsewhere_and_later(pai: Pai, net: Path, tmp_path: Path) -> None:
    by = "effective_share + l2"
    rows, _, _ = searched(pai, net, tmp_path / "a.safetensors", by)
    asked = ("sample", net, "--method", "erk", "--density", 0.4, "--jobs", 1, "-o", tmp_path / "b.safetensors")
    assert pai(*asked, "--population", 2, "--by", by).status == 0
    other = pai(*asked, "--population", 6, "--by", "l2", "--resume")
    assert (other.status, f"that search had by {by}, this one has l2; give the same" in other.err) == (1, True)
    assert pai(*asked, "--population", 6, "--by", f" {by} ", "--resume").status == 0
    assert [json.loads(line) for line in (tmp_path / "b.jsonl").read_text().splitlines()[1:]] == rows
    one, two = (MaskFile(tmp_path / f"{name}.safetensors") for name in "ab")
    assert all((one.array(name) == two.array(name)).all() for name in one.names)


def test_a_process_elsewhere_measures_the_same() -> None:
    request = SearchRequest.of(PruneRequest(get("erk"), 0.4), 3, None, by="sigma_1 - collapsed")
    here = Workshop(init_network("mlp-6-5-4", None, 0), request)
    there = pickle.loads(pickle.dumps(here))
    one, two = candidate(here, 2), candidate(there, 2)
    assert isinstance(one, Candidate)
    assert isinstance(two, Candidate)
    assert one.measures == two.measures


@pytest.mark.parametrize(
    ("by", "text"),
    [
        ("dr_imbd", "unknown metric 'dr_imbd': did you mean dr_imdb? --by takes sigma_1, "),
        ("l2 + lamda", "--by 'l2 + lamda': character 6: unknown metric 'lamda': did you mean lambda? --by takes "),
        ("__import__('os')", '--by "__import__(\'os\')": character 12: "\'" means nothing here'),
        ("l2.real", "--by 'l2.real': character 3: '.' means nothing here"),
        ("2 * 3", "--by '2 * 3': names no metric, so it is the same for every mask"),
        ("l2 +", "--by 'l2 +': character 5: the end where a metric, a number or ( is expected"),
        ("", "--by '': character 1: the end where a metric, a number or ( is expected"),
    ],
)
def test_wrong_usage(pai: Pai, tmp_path: Path, by: str, text: str) -> None:
    done = pai("sample", tmp_path / "none", "--method", "erk", "--population", 2, "--by", by)
    assert done.status == 2
    assert done.said[-1].startswith(f"pai: error: {text}")
    assert list(tmp_path.iterdir()) == []


def test_arithmetic_is_of_whole_masks(pai: Pai, net: Path, tmp_path: Path) -> None:
    asked = ("sample", net, "--method", "erk", "--population", 2, "--select", "layer", "--by", "l2 + dr")
    done = pai(*asked, "-o", tmp_path / "s.safetensors")
    assert (
        done.said[-1] == "pai: error: --by l2 + dr: is of whole masks, and --select layer takes layers; leave one out"
    )


def test_in_python() -> None:
    model = nn.Sequential(nn.Linear(8, 6), nn.ReLU(), nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 4))
    asked: dict[str, Any] = {"method": "erk", "population": 4, "density": 0.5, "input_shape": (8,), "jobs": 1}
    found = pai_library.sample(model, **asked, by="l2 - overlap")
    assert found.candidates is not None
    assert found.search is not None
    values = [row["l2 - overlap"] for row in found.candidates]
    assert found.search.best == values.index(max(values))
    assert all(row["overlap"] is not None for row in found.candidates)
    assert "overlap" in BETWEEN
    with pytest.raises(UsageError, match=r"^by=3: give a metric, or arithmetic of metrics, as text$"):
        pai_library.sample(model, **asked, by=3)  # type: ignore[arg-type]
