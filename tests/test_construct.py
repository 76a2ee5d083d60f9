"""`pai sample --construct`: masks that are built; exact, the same by the same seed, and measured as they are."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import Done, Pai, run_pai
from safetensors.numpy import load_file

from pai_cli.files.masks import MaskFile
from pai_cli.methods.registry import get
from pai_cli.models.network import Network, prunable_layers
from pai_cli.pruning.request import PruneRequest
from pai_cli.sampling.expanders import layer
from pai_cli.sampling.expanders.layer import Construction, LayerPlan, build_layer, rolled
from pai_cli.sampling.expanders.network import construct
from pai_cli.sampling.workers import Workers
from pai_cli.spectral.graph import unroll
from pai_cli.spectral.layout import Layout
from pai_cli.spectral.result import Measure, Outcome

SEARCHING = "builds a mask and searches for none; leave"


def build(kind: str, *flags: object, density: object = 0.5) -> Done:
    return run_pai(
        "sample", "small.safetensors", "--construct", kind, "--density", density, "-o", "built.safetensors",
        "--format", "json", *flags,
    )  # fmt: skip


def masks(path: str = "built.safetensors") -> dict[str, np.ndarray]:
    return load_file(path)


@pytest.mark.parametrize("kind", ["biregular", "ramanujan"])
@pytest.mark.parametrize("density", [0.02, 0.3, 0.5, 0.9, 1.0])
def test_each_layer_has_erk_s_count_and_equal_degrees(pai: Pai, here: Path, kind: str, density: float) -> None:
    done = build(kind, density=density)
    assert done.status == 0, done.err
    words = ["prune", "small.safetensors", "--method", "erk", "--density", density, "-o", "erk.safetensors"]
    assert pai(*words).status == 0
    erk, built = masks("erk.safetensors"), masks()
    assert list(built) == list(erk)
    for name, mask in built.items():
        assert mask.sum() == erk[name].sum()
        for side in (0, 1):
            assert np.ptp(mask.sum(axis=side)) <= 1


@pytest.mark.parametrize("kind", ["biregular", "ramanujan"])
def test_the_table_tells_what_analyze_measures(pai: Pai, here: Path, kind: str) -> None:
    records = build(kind).json()
    *layers, network = records
    assert [record["layer"] for record in records] == ["fc1.weight", "fc2.weight", "fc3.weight", None]
    measured = pai("analyze", "built.safetensors", "--format", "json").json()
    for record, found in zip(layers, measured, strict=False):
        for name in ("dr", "sigma_2"):
            assert record[name] == pytest.approx(found[name], abs=1e-9)
            assert 0 <= record[f"{name}_error"] < 1e-6
        assert record["kept"] == found["kept"]
    assert network["dr"] == pytest.approx(np.mean([record["dr"] for record in layers]))
    assert network["kept"] == 348


def test_ramanujan_begins_with_the_biregular_graphs_and_ends_with_larger_gaps(here: Path) -> None:
    first = build("biregular").json()
    second = build("ramanujan", "--force").json()
    for before, after in zip(first, second, strict=True):
        assert after["dr_before"] == before["dr"]
        assert after["sigma_2_before"] == before["sigma_2"]
        assert after["dr"] > after["dr_before"]
    assert all(record["switches"] > 0 for record in second)
    assert {record["made"] for record in second} == {"random biregular, switched", None}


def test_more_steps_go_further(here: Path) -> None:
    found = [build("ramanujan", "--steps", steps, "--force").json()[0]["dr"] for steps in (1, 5, 100)]
    assert found == sorted(set(found))


def test_the_seed_decides(here: Path) -> None:
    built = []
    for seed in (0, 0, 1):
        assert build("ramanujan", "--seed", seed, "--steps", 5, "--force").status == 0
        built.append({name: mask.tobytes() for name, mask in masks().items()})
    assert built[0] == built[1] != built[2]


def test_the_mask_tells_how_it_was_made(pai: Pai, here: Path) -> None:
    assert build("ramanujan", "--seed", 7).status == 0
    told = MaskFile(here / "built.safetensors").metadata
    assert {key: told[key] for key in ("method", "seed", "density", "scope")} == {
        "method": "ramanujan",
        "seed": "7",
        "density": "0.5",
        "scope": "layer",
    }
    done = pai("sample", "small.safetensors", "--construct", "biregular", "--sparsity", "0.4")
    assert done.status == 0
    assert MaskFile(here / "small-biregular-0.6.safetensors").metadata["method"] == "biregular"
    assert done.said[-1].startswith("pai: wrote small-biregular-0.6.safetensors: 418 of 696 weights kept")
    assert "network mean" in done.out


def test_densities_of_one_s_own_and_layers_left_out(here: Path) -> None:
    (here / "layers.json").write_text('{"fc1": 0.25, "*": 0.5}')
    words = ["sample", "small.safetensors", "--construct", "biregular", "-o", "built.safetensors"]
    assert run_pai(*words, "--densities", "layers.json", "--ignore", "fc3").status == 0
    assert {name: int(mask.sum()) for name, mask in masks().items()} == {"fc1.weight": 96, "fc2.weight": 96}


def test_known_graphs_are_taken_where_they_fit(pai: Pai, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert pai("init", "mlp-21-21-42-14-8", "-o", "c.safetensors").status == 0
    (tmp_path / "layers.json").write_text(
        json.dumps({"fc1": 5 / 21, "fc2": 5 / 21, "fc3": 126 / 588, "fc4": 1.0})  # 21 = 16 + 4 + 1
    )
    words = ["sample", "c.safetensors", "--construct", "ramanujan", "--densities", "layers.json", "--format", "json"]
    *layers, _ = pai(*words).json()
    assert [record["made"].removesuffix(", switched") for record in layers] == [
        "PG(2,4)",
        "2 x PG(2,4)",
        "2-lift of 3 x PG(2,2)",
        "complete",
    ]
    assert layers[0]["sigma_2"] == pytest.approx(2.0)
    assert layers[0]["dr"] == pytest.approx(2.0)
    assert layers[1]["sigma_2"] == pytest.approx(8**0.5)
    assert all(record["dr"] >= record["dr_before"] for record in layers)


def test_formats_for_programs(here: Path) -> None:
    done = build("biregular", "--format", "csv")
    rows = list(csv.DictReader(io.StringIO(done.out)))
    assert [row["layer"] for row in rows] == ["fc1.weight", "fc2.weight", "fc3.weight", ""]
    assert list(rows[0])[:4] == ["layer", "shape", "kept", "density"]
    sparse = build("biregular", "--force", density=0.1).json()
    assert sparse[0]["dr"] is None
    assert sparse[0]["reason"] == "dr_before: mean degree below 3; dr: mean degree below 3"
    assert sparse[-1]["reason"] == "no layer has a dr"


# --- layers of every kind

PLANS = [
    LayerPlan("conv", (8, 6, 3, 3), Layout(), 130),
    LayerPlan("grouped", (8, 3, 3, 3), Layout(groups=2), 101),
    LayerPlan("transposed", (6, 8, 3, 3), Layout(transposed=True), 130),
    LayerPlan("transposed and grouped", (6, 4, 2, 2), Layout(groups=3, transposed=True), 50),
    LayerPlan("depthwise", (16, 1, 3, 3), Layout(groups=16), 57),
    LayerPlan("one output", (1, 20), Layout(), 7),
    LayerPlan("one input", (20, 1), Layout(), 7),
    LayerPlan("one weight", (10, 10), Layout(), 1),
    LayerPlan("none", (10, 10), Layout(), 0),
    LayerPlan("all", (10, 10), Layout(), 100),
]


@pytest.mark.parametrize("kind", ["biregular", "ramanujan"])
@pytest.mark.parametrize("plan", PLANS, ids=lambda plan: plan.name)
def test_layers_of_every_layout(plan: LayerPlan, kind: Any) -> None:
    built = build_layer(Construction(kind, seed=3, steps=5), plan)
    mask = built.mask
    assert (mask.shape, mask.dtype, int(mask.sum())) == (plan.shape, np.bool_, plan.edges)
    matrix, groups = unroll(mask, plan.layout), plan.layout.groups
    blocks = [matrix[k * plan.block[0] :, k * plan.block[1] :][: plan.block[0], : plan.block[1]] for k in range(groups)]
    assert sum(int(block.sum()) for block in blocks) == plan.edges  # nothing between groups
    counts = [int(block.sum()) for block in blocks]
    assert max(counts) - min(counts) <= 1
    for block in blocks:
        assert np.ptp(block.sum(axis=0)) <= 1
        assert np.ptp(block.sum(axis=1)) <= 1


@pytest.mark.parametrize("plan", PLANS[:5], ids=lambda plan: plan.name)
def test_rolled_is_unrolled_backwards(plan: LayerPlan) -> None:
    mask = np.random.default_rng(0).random(plan.shape) < 0.5
    matrix = unroll(mask, plan.layout)
    rows, columns = plan.block
    blocks = [matrix[k * rows : (k + 1) * rows, k * columns : (k + 1) * columns] for k in range(plan.layout.groups)]
    assert np.array_equal(rolled(blocks, plan.shape, plan.layout), mask)


def test_of_a_grouped_layer_the_worst_group_is_told() -> None:
    built = build_layer(Construction("biregular"), LayerPlan("grouped", (8, 3, 3, 3), Layout(groups=2), 101))
    matrix = unroll(built.mask, Layout(groups=2))
    values = [np.linalg.svd(matrix[4 * k :, 27 * k :][:4, :27].astype(float), compute_uv=False)[1] for k in range(2)]
    assert built.after.sigma_2.value == pytest.approx(max(values))


def test_two_processes_build_the_same() -> None:
    class Convolutions(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.two = torch.nn.Conv2d(3, 8, 3), torch.nn.Conv2d(8, 16, 3, groups=2)

    model = Convolutions()
    network = Network(model, "two convolutions", None, prunable_layers(model))
    request = PruneRequest(get("erk"), 0.4)
    here, there = (
        construct(network, request, Construction("ramanujan", steps=10), Workers(jobs=jobs)) for jobs in (1, 2)
    )
    assert here.pruned.connected is None  # its input shape is not known
    assert all(np.array_equal(here.pruned.masks[name], there.pruned.masks[name]) for name in here.pruned.masks)
    assert here.pruned.kept == round(0.4 * network.total)


def test_progress_is_of_work() -> None:
    """The layers that take longest come first, and count for as much as they take."""
    model = torch.nn.Sequential(torch.nn.Linear(40, 10), torch.nn.Linear(10, 30), torch.nn.Linear(30, 30))
    network = Network(model, "three layers", None, prunable_layers(model))
    told: list[tuple[int, int]] = []
    request, construction = PruneRequest(get("erk"), 0.5), Construction("ramanujan", steps=2)
    construct(network, request, construction, Workers(jobs=1), lambda done, total, _="": told.append((done, total)))
    work = [30**3, 40 * 10**2, 30 * 10**2]
    assert told == [(sum(work[:count]), sum(work)) for count in range(4)]


# --- what is refused

USAGE: dict[str, tuple[list[object], str]] = {
    "nothing": (["--density", 0.5], "give --method and --population to search, or --construct to build a mask"),
    "no method": (["--density", 0.5, "--population", 3], "give --method to search, or --construct to build a mask"),
    "method": (["--construct", "biregular", "--density", 0.5, "--method", "erk"],
               f"--construct biregular: {SEARCHING} --method out"),
    "resume": (["--construct", "ramanujan", "--density", 0.5, "--resume"],
               f"--construct ramanujan: {SEARCHING} --resume out"),
    "per class": (["--construct", "ramanujan", "--density", 0.5, "--per-class", 3],
                  f"--construct ramanujan: {SEARCHING} --per-class out"),
    "no noise": (["--construct", "ramanujan", "--density", 0.5, "--noise", 0],
                 f"--construct ramanujan: {SEARCHING} --noise out"),
    "pattern": (["--construct", "ramanujan", "--pattern", "2:4"], f"--construct ramanujan: {SEARCHING} --pattern out"),
    "steps": (["--construct", "biregular", "--density", 0.5, "--steps", 3],
              "--steps: only for --construct ramanujan; leave it out"),
    "steps of a search": (["--method", "erk", "--population", 3, "--density", 0.5, "--steps", 3],
                          "--steps: only for --construct ramanujan; leave it out"),
    "unknown": (["--construct", "expander", "--density", 0.5], "--construct expander: give one of biregular, ramanujan"),
}  # fmt: skip


@pytest.mark.parametrize("case", USAGE)
def test_wrong_usage(pai: Pai, here: Path, case: str) -> None:
    flags, said = USAGE[case]
    done = pai("sample", "small.safetensors", *flags)
    assert done.status == 2
    assert said in done.words
    assert [path.name for path in here.iterdir()] == ["small.safetensors"]


FAULTS: dict[str, tuple[list[object], str]] = {
    "density": (["--density", 1.5], "density 1.5: must be above 0 and at most 1"),
    "too small": (["--density", 1e-6], "density 1e-06 keeps fewer than one of 696 weights"),
    "ignore": (["--density", 0.5, "--ignore", "x*"], "--ignore x*: matches none of the 3 prunable layers"),
    "output": (["--density", 0.5, "-o", "small.safetensors"], "small.safetensors: is a file of the checkpoint"),
}


@pytest.mark.parametrize("case", FAULTS)
def test_what_cannot_be_built(pai: Pai, here: Path, case: str) -> None:
    flags, said = FAULTS[case]
    done = pai("sample", "small.safetensors", "--construct", "ramanujan", *flags)
    assert done.status == (1 if case == "output" else 2)
    assert done.said[-1].startswith(f"pai: error: {said}")
    assert [path.name for path in here.iterdir()] == ["small.safetensors"]


@pytest.mark.parametrize("answers", [1, 0])
def test_a_graph_without_an_answer_is_told_of_and_never_taken_for_better(
    here: Path, monkeypatch: pytest.MonkeyPatch, answers: int
) -> None:
    """Of each layer the first graph alone has a spectrum, or none has."""
    asked: list[tuple[int, ...]] = []
    found = layer.Spectrum.of

    def of(matrix: np.ndarray) -> layer.Spectrum:
        asked.append(matrix.shape)
        missing = Measure.missing(Outcome.NOT_CONVERGED.value)
        return found(matrix) if asked.count(matrix.shape) <= answers else layer.Spectrum(missing, missing)

    monkeypatch.setattr(layer.Spectrum, "of", staticmethod(of))
    done = build("ramanujan", density=0.6)
    assert done.status == 0, done.err
    assert len(asked) > 3
    assert [record["switches"] for record in done.json()] == [0] * 4
    told = "pai: warning: no singular values were found of fc1.weight, fc2.weight, fc3.weight: not converged"
    assert [line for line in done.said if "singular" in line] == [told] * (not answers)
