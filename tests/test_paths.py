"""Paths through the network and the controls, as `analyze` and `rank` give them."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import ROOT, Pai, save_mask
from safetensors.numpy import load_file, save_file
from torch import nn

from pai_cli import Mask, PaiWarning, analyze, rank
from pai_cli.display.figures.trajectory import _measured as measured
from pai_cli.errors import UnknownMetricError, UsageError
from pai_cli.models.unrolled.paths import NetworkPaths, Unrolled
from pai_cli.models.unrolled.tape import unroll
from pai_cli.ranking.entrants import available
from pai_cli.spectral.catalogue import LAYER_PATHS, PATHS, WHOLE

SIZES = (6, 5, 4, 3)


@pytest.fixture(scope="module")
def net(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from conftest import run_pai

    path = tmp_path_factory.mktemp("paths") / "net.safetensors"
    assert run_pai("init", f"mlp-{'-'.join(map(str, SIZES))}", "-o", path).status == 0
    return path


def mask_of(net: Path, folder: Path, density: float, seed: int = 0) -> Path:
    random = np.random.default_rng(seed)
    masks = {}
    for name, array in load_file(net).items():
        if array.ndim == 2:
            masks[name] = random.permutation(np.arange(array.size) < density * array.size).reshape(array.shape)
    return save_mask(folder / f"m{seed}.safetensors", masks)


def expected(net: Path, mask: Path) -> NetworkPaths:
    weights = load_file(net)
    layers = [nn.Linear(a, b) for a, b in pairwise(SIZES)]
    model = nn.Sequential(*layers)
    renamed = dict(zip((f"{i}.weight" for i in range(3)), load_file(mask).items(), strict=True))
    masks = {name: array for name, (_, array) in renamed.items()}
    return Unrolled(unroll(model, SIZES[:1])).measure(masks, lambda name: weights[renamed[name][0]])


def test_the_measures_of_a_mask(pai: Pai, net: Path, tmp_path: Path) -> None:
    mask = mask_of(net, tmp_path, 0.35, 3)
    rows = pai("analyze", mask, "--weights", net, "--format", "json").json()
    *layers, network = rows
    told = expected(net, mask)
    counts = list(told.layers.values())
    kept, effective = sum(one.kept for one in counts), sum(one.effective for one in counts)
    assert 0 < effective < kept
    for row, one in zip(layers, counts, strict=True):
        assert row["effective_density"] == one.effective / row["total"]
        assert row["effective_share"] == one.effective / one.kept
        assert (row["dead_inputs"], row["dead_outputs"]) == (one.dead_inputs, one.dead_outputs)
    assert network["effective_share"] == effective / kept
    assert network["effective_density"] == effective / network["total"]
    assert network["dead_inputs"] == sum(one.dead_inputs for one in counts)
    assert network["dead_outputs"] == sum(one.dead_outputs for one in counts)
    for name in ("log_paths", "log_path_weight", "node_path_balance"):
        assert network[name] == getattr(told, name).value
        assert network[f"{name}_error"] == getattr(told, name).error
    assert (network["effective_nodes"], network["macs"]) == (told.effective_nodes, kept)
    assert network["macs_effective"] == effective
    assert isinstance(network["macs"], int)
    assert network["layer_density"] == pytest.approx(np.mean([row["density"] for row in layers]), abs=1e-15)
    assert (network["kept"], network["collapsed"]) == (kept, 0)
    assert pai("analyze", mask, "--weights", net, "--format", "json").json() == rows  # from the store
    assert pai("analyze", mask, "--weights", net, "--format", "json", "--no-store", "--jobs", "2").json() == rows


def test_a_network_by_its_name_alone(pai: Pai, net: Path, tmp_path: Path) -> None:
    mask = mask_of(net, tmp_path, 0.5)
    known = pai("analyze", mask, "--weights", net, "--format", "json").json()
    named = pai("analyze", mask, "--model", "mlp-6-5-4-3", "--format", "json").json()
    for one, other in zip(known, named, strict=True):
        names = LAYER_PATHS if one["level"] == "layer" else tuple(name for name in WHOLE if name != "log_path_weight")
        assert [one[name] for name in names] == [other[name] for name in names]
    assert named[-1]["log_path_weight"] is None
    assert "needs --weights (lambda, lambda_imsg, l2, l2_dense, log_path_weight)" in named[-1]["reason"]
    found = analyze(mask, model="mlp-6-5-4-3")
    assert found["effective_share"].value == known[-1]["effective_share"]
    assert found.layers["fc2.weight", "dead_inputs"].value == known[1]["dead_inputs"]


def test_the_controls_need_no_network(pai: Pai, net: Path, tmp_path: Path) -> None:
    masks = {name: np.zeros(array.shape, bool) for name, array in load_file(net).items() if array.ndim == 2}
    masks["fc1.weight"][0, :3] = True
    mask = save_mask(tmp_path / "m.safetensors", masks)
    network = pai("analyze", mask, "--summary", "--format", "json").json()[0]
    assert (network["kept"], network["collapsed"]) == (3, 2)
    assert network["layer_density"] == pytest.approx(3 / 30 / 3)
    assert [network[name] for name in PATHS] == [None] * len(PATHS)
    with pytest.warns(PaiWarning, match="collapsed"):
        found = analyze(mask, net)
    assert found["log_paths"].reason == "no path of kept weights leads from the input to the output"
    assert (found["effective_share"].value, found["effective_nodes"].value, found["macs"].value) == (0, 0, 3)
    assert found.layers["fc2.weight", "effective_share"].reason == "collapsed"


def test_without_a_network_no_torch_is_imported(net: Path, tmp_path: Path) -> None:
    mask = mask_of(net, tmp_path, 0.5)
    program = f"import sys, pai_cli; pai_cli.analyze({str(mask)!r}); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.strip() == "False"


def test_a_network_that_is_not_known(pai: Pai, tmp_path: Path) -> None:
    mask = save_mask(tmp_path / "m.safetensors", {"a": np.ones((4, 3), bool)})
    weights = tmp_path / "c.safetensors"
    save_file({"a": np.ones((4, 3), np.float32)}, weights)
    done = pai("analyze", mask, mask, "--weights", weights, "--summary", "--format", "json")
    assert [line for line in done.said if "paths" in line] == [
        f"pai: {weights}: paths through the network are not measured: names and shapes of its 1 tensors match no known "
        "architecture; give --model NAME, or module:factory or file.py:factory and, where no data tell it, --input-shape"
    ]
    row = done.json()[0]
    assert row["effective_share"] is None
    assert f"the network is not known ({', '.join(PATHS)})" in row["reason"]
    assert row["layer_density"] == 1.0


def test_what_a_mask_must_have_to_be_of_the_network(pai: Pai, net: Path, tmp_path: Path) -> None:
    def reason(*asked: object) -> str:
        return str(pai("analyze", *asked, "--summary", "--format", "json", "--no-store").json()[0]["reason"])

    mask = mask_of(net, tmp_path, 0.5)
    assert "paths are of all layers (effective_density" in reason(mask, "--weights", net, "--layers", "fc1*")
    part = save_mask(tmp_path / "part.safetensors", {"fc1.weight": np.ones((5, 6), bool)})
    lacking = "the network has layers that the mask does not name: fc2.weight, fc3.weight ("
    assert lacking in reason(part, "--model", "mlp-6-5-4-3")
    known = pai("analyze", part, "--weights", net, "--summary", "--format", "json").json()[0]
    assert known["effective_share"] == 1.0  # the others are whole, as is said
    other = save_mask(tmp_path / "other.safetensors", {"x.weight": np.ones((3, 6), bool)})
    assert "'x.weight' is no layer that the network uses (" in reason(other, "--model", "mlp-6-5-4-3")
    wide = save_mask(tmp_path / "wide.safetensors", {"fc1.weight": np.ones((3, 7), bool)})
    assert "'fc1.weight' has another shape in the network (" in reason(wide, "--model", "mlp-6-3")


def test_a_network_of_ones_own(pai: Pai, tmp_path: Path) -> None:
    factory = tmp_path / "own.py"
    factory.write_text(
        "from torch import nn\ndef net():\n    return nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten(), nn.Linear(8, 2))\n"
    )
    mask = save_mask(
        tmp_path / "m.safetensors", {"0.weight": np.ones((2, 1, 3, 3), bool), "2.weight": np.eye(2, 8, dtype=bool)}
    )
    done = pai("analyze", mask, "--model", f"{factory}:net")
    assert done.status == 2
    assert "the shape of one input is not known; give it with --input-shape, such as 3,32,32" in done.err
    row = pai("analyze", mask, "--model", f"{factory}:net", "--input-shape", "1,4,4", "--format", "json").json()[-1]
    assert row["log_paths"] == pytest.approx(math.log(2 * 9))
    assert (row["macs"], row["macs_effective"]) == (18 * 4 + 2, 9 * 4 + 2)  # one of two channels is read
    refused = pai("analyze", mask, "--model", f"{factory}:net", "--input-shape", "1,9,9")
    assert (refused.status, "the network failed on one input of shape 1,9,9" in refused.err) == (2, True)


def test_a_module_in_memory() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))
    masks = {"0.weight": torch.eye(3, 4, dtype=torch.bool), "2.weight": torch.tensor([[1, 0, 0], [0, 0, 0]]).bool()}
    found = analyze(masks, model, input_shape=(4,))
    assert (found["effective_share"].value, found["log_paths"].value) == (2 / 4, 0.0)
    weight = model[0].weight[0, 0].item() * model[2].weight[0, 0].item()
    assert found["log_path_weight"].value == pytest.approx(math.log(abs(weight)), abs=1e-12)


def test_ranking_by_paths(pai: Pai, net: Path, tmp_path: Path) -> None:
    masks = [mask_of(net, tmp_path, 0.4, seed) for seed in range(4)]
    for asked in (("--weights", net), ("--model", "mlp-6-5-4-3")):
        rows = pai("rank", *masks, "--by", "effective_share", *asked, "--format", "json").json()
        values = {row["mask"]: row["value"] for row in rows}
        assert values == {str(mask): expected_share(net, mask) for mask in masks}
    accuracies = dict(zip(map(str, masks), (0.5, 0.6, 0.7, 0.8), strict=True))
    asked = {"accuracy": accuracies, "resamples": 100, "metrics": "*effective*,layer_density,l2"}
    names = set(rank(masks, weights=net, **asked))
    assert names == {"l2", "layer_density", "effective_density", "effective_share", "effective_nodes", "macs_effective"}
    bare = set(available(weights=False, network=False))
    assert bare & set(WHOLE) == {"layer_density", "kept", "collapsed"}
    reports = analyze(masks, net)
    assert rank(reports, by="macs_effective").by == "macs_effective"
    with pytest.raises(UnknownMetricError, match="needs the network"):
        rank(analyze(masks), by="macs_effective")


def expected_share(net: Path, mask: Path) -> float:
    layers = expected(net, mask).layers.values()
    return sum(one.effective for one in layers) / sum(one.kept for one in layers)


def test_ranking_refuses_a_network_that_does_nothing(net: Path, tmp_path: Path) -> None:
    mask = mask_of(net, tmp_path, 0.5)
    with pytest.raises(UsageError, match="only metrics of the whole network need it"):
        rank([mask], by="dr", model="mlp-6-5-4-3")
    with pytest.raises(UsageError, match="metrics of table= are measured already"):
        rank(table="t.csv", model="mlp-6-5-4-3")
    with pytest.raises(UsageError, match="reports are measured already"):
        rank([analyze(mask)], model="mlp-6-5-4-3")


def test_ranking_by_paths_through_an_unknown_network(pai: Pai, tmp_path: Path) -> None:
    mask = save_mask(tmp_path / "m.safetensors", {"a": np.ones((4, 3), bool)})
    weights = tmp_path / "c.safetensors"
    save_file({"a": np.ones((4, 3), np.float32)}, weights)
    done = pai("rank", mask, "--weights", weights, "--by", "log_paths")
    assert (done.status, "match no known architecture" in done.err) == (1, True)
    accuracy = tmp_path / "a.csv"
    accuracy.write_text(f"mask,accuracy\n{mask},0.5\n")
    study = pai(
        "rank", mask, "--weights", weights, "--accuracy", accuracy, "--resamples", 100, "--format", "json"
    ).json()
    assert not {row["metric"] for row in study["correlations"]} & set(PATHS)


@pytest.mark.parametrize("by", ["effective_share", "dead_outputs", "log_path_weight"])
def test_a_search_takes_the_best_by_paths(pai: Pai, net: Path, tmp_path: Path, by: str) -> None:
    asked = ("--method", "random", "--density", "0.3", "--population", "8", "--by", by)
    done = pai("sample", net, *asked, "-o", tmp_path / "s.safetensors", "--format", "json", "--jobs", "1")
    assert done.status == 0, done.err
    lines = [json.loads(line) for line in (tmp_path / "s.jsonl").read_text().splitlines()[1:]]
    values = [line[by] for line in lines if line[by] is not None]
    assert len(set(values)) > 1
    best = (max if WHOLE[by].larger_is_better else min)(values)
    first, found = done.json()
    assert (first[by], found[by]) == (lines[0][by], best)
    assert lines[found["candidate"]][by] == best
    assert lines[-1][f"best_{by}"] == best
    mask = tmp_path / "s.safetensors"
    assert Mask.load(mask).metadata["by"] == by
    row = pai("analyze", mask, "--weights", net, "--summary", "--format", "json").json()[0]
    assert row[by] == best
    other = pai("sample", net, *asked[:-2], "-o", mask, "--resume")
    assert (other.status, f"that search had by {by}, this one has l2; give the same" in other.err) == (1, True)


def test_a_search_by_paths_that_cannot_be(pai: Pai, net: Path, tmp_path: Path) -> None:
    asked = ("--method", "random", "--density", "0.3", "--population", "2", "-o", tmp_path / "s.safetensors")
    layers = pai("sample", net, *asked, "--by", "log_paths", "--select", "layer")
    assert "--by log_paths: is of whole masks, and --select layer takes layers; leave one out" in layers.err
    built = pai("sample", net, "--construct", "ramanujan", "--by", "log_paths", "-o", tmp_path / "s.safetensors")
    assert "leave --by out" in built.err
    assert not list(tmp_path.iterdir())


def test_the_picture_of_a_search_has_what_masks_were_taken_by() -> None:
    line = {"candidate": 0, "l2": 1.0, "dr_imdb": None, "lambda_imsg": 0.5, "kept": 3, "reason": None}
    best = {f"best_{name}": line[name] for name in ("l2", "dr_imdb", "lambda_imsg", "reason")}
    assert measured([line | best]) == ["l2", "dr_imdb", "lambda_imsg"]
    assert measured([line | best | {"log_paths": 2.0, "best_log_paths": 2.0}]) == ["l2", "dr_imdb", "log_paths"]
