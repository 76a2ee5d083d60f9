"""`pai analyze --between`: pairs found through the network, against plain loops over the weights by hand-written wiring."""

from __future__ import annotations

import csv
import io
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import SAMPLES, Pai, random_mask, run_pai, save_mask
from safetensors.numpy import load_file, save_file
from test_between import plain_compatibility, plain_copeland, plain_overlap

from pai_cli import analyze, rank
from pai_cli.errors import UnknownMetricError
from pai_cli.files.masks import MaskFile
from pai_cli.spectral.layout import Layout

Record = dict[str, Any]

SAMPLE, RESNET = SAMPLES / "synflow-0.05.safetensors", SAMPLES / "resnet20.safetensors"
NAMES = ("compatibility", "copeland", "overlap")

# A stem, a block of two halves that are concatenated, a depthwise layer, a shortcut, a transposed one, pixels of a flatten.
BRANCHED = """
import torch
from torch import nn

class Branched(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3, padding=1, bias=False)
        self.left = nn.Conv2d(4, 2, 1, bias=False)
        self.right = nn.Conv2d(4, 3, 3, padding=1, bias=False)
        self.join = nn.Conv2d(5, 4, 3, padding=1, bias=False)
        self.deep = nn.Conv2d(4, 4, 3, padding=1, groups=4, bias=False)
        self.up = nn.ConvTranspose2d(4, 2, 2, stride=2, bias=False)
        self.fc = nn.Linear(2 * 64, 3, bias=False)

    def forward(self, x):
        x = torch.relu(self.stem(x))
        y = self.join(torch.cat([self.left(x), self.right(x)], 1)) + x
        return self.fc(self.up(self.deep(y)).flatten(1))

def make():
    torch.manual_seed(0)
    return Branched()
"""
SHAPES = {
    "stem": (4, 3, 3, 3), "left": (2, 4, 1, 1), "right": (3, 4, 3, 3), "join": (4, 5, 3, 3), "deep": (4, 1, 3, 3),
    "up": (4, 2, 2, 2), "fc": (3, 128),
}  # fmt: skip


def between(*arguments: object) -> list[Record]:
    done = run_pai("analyze", "--between", *arguments, "--format", "json")
    assert done.status == 0, done.err
    records: list[Record] = done.json()
    return records


@pytest.fixture(scope="module")
def branched(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `net.py`, its weights `c.safetensors`, and `m.safetensors`, a mask of it."""
    folder = tmp_path_factory.mktemp("branched")
    (folder / "net.py").write_text(BRANCHED, encoding="utf-8")
    save_file(
        {f"{name}.weight": np.ones(shape, np.float32) for name, shape in SHAPES.items()}, folder / "c.safetensors"
    )
    masks = {f"{name}.weight": random_mask(shape, 0.4, seed) for seed, (name, shape) in enumerate(SHAPES.items())}
    masks["stem.weight"][2] = False  # an output that is dead
    for name, density in (("up", 0.8), ("fc", 0.9)):  # else no channel would be read at all of its positions
        masks[f"{name}.weight"] |= random_mask(SHAPES[name], density, 9)
    save_mask(folder / "m.safetensors", masks, {"deep.weight": Layout(groups=4), "up.weight": Layout(transposed=True)})
    return folder


def options(folder: Path, mask: str = "m.safetensors") -> tuple[object, ...]:
    model = f"{folder / 'net.py'}:make"
    return (folder / mask, "--weights", folder / "c.safetensors", "--model", model, "--input-shape", "3,4,4")


def unrolled(folder: Path) -> dict[str, np.ndarray]:
    masks = {name: MaskFile(folder / "m.safetensors").array(f"{name}.weight") for name in SHAPES}
    deep, up = np.zeros((4, 4 * 9), bool), masks["up"].swapaxes(0, 1)
    for group in range(4):
        deep[group, group * 9 : group * 9 + 9] = masks["deep"][group].reshape(-1)
    return {**{n: m.reshape(len(m), -1) for n, m in masks.items()}, "deep": deep, "up": up.reshape(2, -1)}


def test_every_layer_and_all_that_reads_it(branched: Path) -> None:
    m = unrolled(branched)
    join = m["join"].reshape(4, 5, 9)
    wanted = {
        ("stem", "left"): (m["stem"], m["left"], 1),
        ("stem", "right"): (m["stem"], m["right"], 9),
        ("left", "join"): (m["left"], join[:, :2].reshape(4, -1), 9),
        ("right", "join"): (m["right"], join[:, 2:].reshape(4, -1), 9),
        ("join", "deep"): (m["join"], m["deep"], 9),
        ("stem", "deep"): (m["stem"], m["deep"], 9),
        ("deep", "up"): (m["deep"], m["up"], 4),
        ("up", "fc"): (m["up"], m["fc"], 64),
    }
    records = between(*options(branched))
    found = {tuple(r[end].removesuffix(".weight") for end in ("writer", "reader")): r for r in records[:-1]}
    assert found.keys() == wanted.keys()
    for pair, (p, q, k) in wanted.items():
        # Rows of the whole of join are live through either half: the definition counts the layer's, not the half's.
        scale = m[pair[1]].any(axis=1).sum() / max(1, q.any(axis=1).sum())
        copeland = plain_copeland(p, q, k)
        values = (plain_compatibility(p, q, k), copeland and float(copeland) / scale, plain_overlap(q, k))
        for name, value in zip(NAMES, values, strict=True):
            if value is None:  # of a depthwise layer's channels, each is read by one row
                assert (pair[1], name) == ("deep", "overlap")
                assert found[pair][name] is None
                continue
            assert found[pair][name] == pytest.approx(float(value), rel=1e-12), (pair, name)
        counts = (len(p), int(p.any(axis=1).sum()), len(p) * k)
        assert tuple(found[pair][name] for name in ("outputs", "live", "columns")) == counts


def test_the_network_s_value_is_the_mean_over_the_pairs_that_have_one(branched: Path) -> None:
    *pairs, network = between(*options(branched))
    for name in NAMES:
        present = [pair[name] for pair in pairs if pair[name] is not None]
        assert network[name] == pytest.approx(np.mean(present), rel=1e-13)
        assert network[f"{name}_pairs"] == len(present)
        assert 0 <= network[f"{name}_error"] < 1e-13
    assert {key for key, value in network.items() if value is None} == {
        "writer", "reader", "outputs", "live", "columns", "reason",
    }  # fmt: skip
    assert between(*options(branched), "--summary") == [network]


def test_a_mask_without_a_layer_keeps_all_of_it(pai: Pai, branched: Path) -> None:
    masks = {name: mask for name, mask in load_file(branched / "m.safetensors").items() if name != "left.weight"}
    path = save_mask(branched / "part.safetensors", masks)
    done = pai("analyze", "--between", *options(branched, "part.safetensors"), "--format", "json")
    assert done.said == [f"pai: {path}: does not have left.weight: taken as whole, every weight kept"]
    (pair,) = [r for r in done.json() if r["reader"] == "left.weight"]
    assert (pair["compatibility"], pair["overlap"]) == (1.0, 1.0)
    assert pair["copeland"] == pytest.approx(
        float(plain_copeland(unrolled(branched)["stem"], np.ones((2, 4), bool), 1))
    )


def test_dead_layers_have_reasons(pai: Pai, branched: Path) -> None:
    masks = dict(load_file(branched / "m.safetensors"))
    masks["join.weight"][:] = False
    save_mask(branched / "dead.safetensors", masks)
    done = pai("analyze", "--between", *options(branched, "dead.safetensors"), "--format", "json")
    records = {(r["writer"], r["reader"]): r for r in done.json()}
    first, second = records["left.weight", "join.weight"], records["join.weight", "deep.weight"]
    assert (first["compatibility"], first["copeland"], first["overlap"]) == (0.0, None, None)
    assert first["reason"] == (
        "no live output in the layer after (copeland); no channel is read at every kernel position (overlap)"
    )
    assert (second["compatibility"], second["copeland"], second["live"]) == (None, None, 0)
    assert second["reason"].startswith("no live output in the layer before (compatibility, copeland)")


def test_resnet20_pairs_each_block_with_all_that_its_shortcuts_reach() -> None:
    records = between(SAMPLE, "--weights", RESNET)
    assert len(records) == 65
    readers = [r["reader"] for r in records if r["writer"] == "layer3.1.conv2.weight"]
    assert readers == ["layer3.2.conv1.weight", "linear.weight"]
    (wide,) = [r for r in records if (r["writer"], r["reader"]) == ("conv1.weight", "layer3.0.conv1.weight")]
    assert (wide["outputs"], wide["columns"]) == (16, 144)  # its 16 channels stand among the 32, the rest is padding
    linear = load_file(RESNET)["linear.weight"]
    (last,) = [r for r in records if (r["writer"], r["reader"]) == ("layer3.2.conv2.weight", "linear.weight")]
    assert last["columns"] == linear.shape[1]
    assert last["overlap"] == 1.0  # one position agrees with itself


def test_layers_means_both_of_a_pair(branched: Path) -> None:
    records = between(*options(branched), "--layers", "join", "--layers", "stem", "--layers", "deep.weight")
    found = {(r["writer"], r["reader"]) for r in records[:-1]}
    assert found == {("stem.weight", "deep.weight"), ("join.weight", "deep.weight")}


def test_formats_have_one_set_of_fields(pai: Pai, branched: Path) -> None:
    wanted = ["mask", "level", "writer", "reader", "outputs", "live", "columns"]
    wanted += [f"{name}{end}" for name in NAMES for end in ("", "_error", "_pairs")] + ["outcome", "reason"]
    records = between(*options(branched))
    assert all(list(record) == wanted for record in records)
    done = pai("analyze", "--between", *options(branched), "--format", "csv")
    rows = list(csv.DictReader(io.StringIO(done.out)))
    assert list(rows[0]) == wanted
    assert [row["copeland"] for row in rows] == [repr(r["copeland"]) for r in records]
    assert rows[0]["copeland_pairs"] == ""
    bare = pai("analyze", "--between", *options(branched), "--format", "tsv", "--no-header", "--summary")
    assert len(bare.out.splitlines()) == 1


def test_the_table_for_people(pai: Pai, branched: Path) -> None:
    done = pai("analyze", "--between", *options(branched))
    assert (done.status, done.err) == (0, "")
    lines = done.out.splitlines()
    assert lines[0] == str(branched / "m.safetensors")
    *pairs, network = between(*options(branched))
    for pair in pairs:
        (line,) = [line for line in lines if line.split()[:2] == [pair["writer"], pair["reader"]]]
        assert line.split()[2:5] == [str(pair[name]) for name in ("outputs", "live", "columns")]
        assert f"{pair['copeland']:.5g}" in line.split()
    (mean,) = [line for line in lines if "network mean" in line]
    assert mean.split()[-3:] == [f"{network[name]:.5g}" for name in NAMES]


def test_a_table_of_many_masks_has_a_line_each(pai: Pai) -> None:
    paths = [SAMPLES / f"erk-{density}.safetensors" for density in ("0.02", "0.05")]
    done = pai("analyze", "--between", "--weights", RESNET, *paths, "--summary")
    assert [line.split()[0] for line in done.out.splitlines() if ".safetensors" in line] == [str(p) for p in paths]


def test_one_bad_mask_among_many(pai: Pai, branched: Path, tmp_path: Path) -> None:
    cut = tmp_path / "a.safetensors"
    cut.write_bytes((branched / "m.safetensors").read_bytes()[:-3])
    other = save_mask(tmp_path / "b.safetensors", {"w": random_mask((8, 8))})
    done = pai("analyze", cut, other, "--between", *options(branched), "--summary", "--format", "json")
    assert done.status == 1
    assert done.said[0].startswith(f"pai: error: {cut}: truncated or with bytes to spare")
    assert done.said[1] == (
        f"pai: error: {other}: masks 'w', which {branched / 'c.safetensors'} does not have; "
        "--weights takes the checkpoint that the mask was made for"
    )
    assert [record["outcome"] for record in done.json()] == ["failed", "failed", "done"]
    assert done.json()[0]["reason"] == done.said[0].removeprefix("pai: error: ")


# As what masks are ranked by -----------------------------------------------------------------------------------------


def test_masks_are_ranked_by_what_is_between_layers(pai: Pai, branched: Path, tmp_path: Path) -> None:
    mask, weights, model, shape = (branched / "m.safetensors"), *options(branched)[2::2]
    denser = {name: array | random_mask(array.shape, 0.3, 5) for name, array in load_file(mask).items()}
    layouts = {"deep.weight": Layout(groups=4), "up.weight": Layout(transposed=True)}
    other = save_mask(tmp_path / "other.safetensors", denser, layouts)
    there = ("--weights", weights, "--model", model, "--input-shape", shape)
    between = pai("analyze", "--between", mask, other, *there, "--summary", "--format", "json").json()
    expected = {record["mask"]: record for record in between}
    store = ("--store", tmp_path / "s.db")
    for name in ("compatibility", "copeland", "overlap"):
        for jobs in (1, 2):  # the second looks up what the first kept
            words = ["rank", mask, other, *there, "--by", name, "--jobs", jobs, *store, "--format", "json"]
            found = {record["mask"]: record for record in pai(*words).json()}
            assert set(found) == set(expected)
            for path, record in found.items():
                assert record["value"] == expected[path][name]
                assert record["error"] == expected[path][f"{name}_error"]
                assert record["layers"] == expected[path][f"{name}_pairs"]
    plain = pai("rank", mask, other, "--by", "dr_imdb", *store, "--format", "json").json()
    assert {record["value"] for record in plain}.isdisjoint(record["value"] for record in found.values())


def test_workers_measure_what_is_between_layers(pai: Pai, branched: Path, tmp_path: Path) -> None:
    there = ("--weights", *options(branched)[2:])
    mask = branched / "m.safetensors"
    copy = tmp_path / "copy.safetensors"
    shutil.copy(mask, copy)
    words = ["rank", mask, copy, *there, "--by", "copeland", "--no-store", "--format", "json"]
    one, two = (pai(*words, "--jobs", jobs).json() for jobs in (1, 2))
    assert one == two
    assert one[0]["value"] == one[1]["value"] > 0


@pytest.mark.parametrize("by", ["copeland", "compatibility"])
def test_a_search_takes_the_best_by_what_is_between_layers(pai: Pai, tmp_path: Path, by: str) -> None:
    net, mask = tmp_path / "net.safetensors", tmp_path / "s.safetensors"
    assert pai("init", "mlp-8-6-5-3", "-o", net).status == 0
    asked = ("--method", "random", "--density", 0.2, "--population", 6, "--by", by, "-o", mask, "--format", "json")
    done = pai("sample", net, *asked, "--jobs", 1)
    assert done.status == 0, done.err
    values = [json.loads(line)[by] for line in (tmp_path / "s.jsonl").read_text().splitlines()[1:]]
    assert len(set(values)) > 1
    told = pai("analyze", "--between", mask, "--weights", net, "--summary", "--format", "json").json()[0]
    assert done.json()[-1][by] == max(values) == told[by]
    (tmp_path / "one.py").write_text("from torch import nn\n\ndef make():\n    return nn.Sequential(nn.Linear(4, 3))\n")
    save_file({"0.weight": np.ones((3, 4), np.float32), "0.bias": np.ones(3, np.float32)}, tmp_path / "one.safetensors")
    alone = ("--model", f"{tmp_path / 'one.py'}:make", "--input-shape", "4", "--method", "random", "--population", 2)
    none = pai("sample", tmp_path / "one.safetensors", *alone, "--by", by, "-o", tmp_path / "t.safetensors")
    assert (none.status, "reads what another one writes" in none.err) == (1, True)


def test_only_what_is_named_is_measured_between_layers(branched: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It takes as long as all else, so correlations have it where it is named."""
    mask = branched / "m.safetensors"
    there = {"weights": options(branched)[2], "model": str(options(branched)[4]), "input_shape": options(branched)[6]}
    accuracies = [0.5]
    named = rank([mask], accuracy=accuracies, metrics="overlap,sigma_1", no_store=True, **there)
    assert list(named) == ["sigma_1", "overlap"]
    assert list(rank([mask], accuracy=accuracies, metrics="sigma_1", by="overlap", no_store=True, **there)) == [
        "sigma_1",
        "overlap",
    ]
    monkeypatch.setattr("pai_cli.api.unrolling.pairs_for", None)
    assert "overlap" not in rank([mask], accuracy=accuracies, no_store=True, **there)
    with pytest.raises(UnknownMetricError, match="by=overlap: needs the network; give weights=CKPT or model=NAME"):
        rank([mask], by="overlap", no_store=True)
    with pytest.raises(UnknownMetricError, match="by=overlap: reports have nothing that is measured between layers"):
        rank([analyze(mask, no_store=True, **there)], by="overlap")


def test_what_the_mask_calls_a_layer_is_found_between_layers(branched: Path, tmp_path: Path) -> None:
    shape, by = options(branched)[6], {"by": "copeland + overlap", "no_store": True}
    (plain,) = rank([branched / "m.safetensors"], model=str(options(branched)[4]), input_shape=shape, **by)
    wrapped = """
class Wrapped(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = Branched()

    def forward(self, x):
        return self.net(x)
"""
    (tmp_path / "wrapped.py").write_text(BRANCHED + wrapped, encoding="utf-8")
    model = f"{tmp_path / 'wrapped.py'}:Wrapped"
    (found,) = rank([branched / "m.safetensors"], model=model, input_shape=shape, **by)
    assert found.value.value == plain.value.value
    other = save_mask(tmp_path / "x.safetensors", {"elsewhere.weight": np.ones((3, 4), bool)})
    (none,) = rank([other], by="overlap", model="mlp-6-5-4-3", no_store=True)
    assert none.value.reason == "'elsewhere.weight' is no layer that the network uses"
    (lacking,) = rank([SAMPLE], by="overlap", model="resnet32", no_store=True)
    assert str(lacking.value.reason).startswith(
        "the network has layers that the mask does not name: layer1.3.conv1.weight"
    )


WRONG_USAGE = {
    "no weights": (["--between"], "--between follows an input through the network: give its --weights CKPT"),
    "shape": (["--input-shape", "3,32,32"], "--input-shape: is of a network; give its --weights CKPT or --model too"),
    "layers": (
        ["--model", "resnet20", "--layers", "conv1*"],
        "--model: is for the paths through the network, which are of all layers; leave --layers out",
    ),
    **{
        flag: (["--between", flag, *value], f"{flag}: --between computes no singular values; leave one of them out")
        for flag, value in (
            *(("--solver", ["gram"]), ("--device", ["cpu"])),
            *(("--certify", []), ("--expansion-weighted", []), ("--convention", ["f23"])),
            *(("--plot", ["p.svg"]), ("--report", ["r.html"]), ("--force", [])),
        )
    },
}


@pytest.mark.parametrize("case", WRONG_USAGE)
def test_options_that_do_nothing_are_refused(pai: Pai, case: str) -> None:
    arguments, text = WRONG_USAGE[case]
    done = pai("analyze", SAMPLE, *arguments)
    assert (done.status, done.out) == (2, "")
    assert text in done.words


def test_what_cannot_be_found_out_says_what_to_do(pai: Pai, branched: Path, tmp_path: Path) -> None:
    mask, weights, model, _ = options(branched)[0], *options(branched)[2::2]
    done = pai("analyze", "--between", mask, "--weights", weights, "--model", model)
    assert (done.status, done.said) == (2, [
        "pai: error: the shape of one input is not known, and the order of layers is found by following one; give it "
        "with --input-shape, such as 3,32,32"
    ])  # fmt: skip
    done = pai("analyze", "--between", *options(branched), "--layers", "stem", "--layers", "up")
    assert (done.status, done.said) == (2, [
        f"pai: error: {weights}: --layers stem up matches no two consecutive layers, such as 'stem.weight' and 'left.weight'"
    ])  # fmt: skip
    (tmp_path / "one.py").write_text("from torch import nn\ndef make():\n    return nn.Linear(4, 2, bias=False)\n")
    save_file({"weight": np.ones((2, 4), np.float32)}, tmp_path / "one.safetensors")
    save_mask(tmp_path / "m.safetensors", {"weight": random_mask((2, 4))})
    model = f"{tmp_path / 'one.py'}:make"
    given = ("--weights", tmp_path / "one.safetensors", "--model", model, "--input-shape", 4)
    done = pai("analyze", "--between", tmp_path / "m.safetensors", *given)
    assert (done.status, done.said) == (1, [
        f"pai: error: {tmp_path / 'one.safetensors'}: no layer of the network of {model} reads what another one writes"
    ])  # fmt: skip


def test_attention_cannot_be_followed(pai: Pai, tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text(
        "from torch import nn\n"
        "class Mixed(nn.Module):\n"
        "    def __init__(self):\n"
        "        super().__init__()\n"
        "        self.a, self.b = nn.Linear(4, 4, bias=False), nn.Linear(4, 4, bias=False)\n"
        "    def forward(self, x):\n"
        "        return self.a(x) @ self.b(x).transpose(-1, -2)\n",
        encoding="utf-8",
    )
    save_file({f"{name}.weight": np.ones((4, 4), np.float32) for name in "ab"}, tmp_path / "c.safetensors")
    save_mask(tmp_path / "m.safetensors", {"a.weight": random_mask((4, 4))})
    given = ("--weights", tmp_path / "c.safetensors", "--model", f"{tmp_path / 'net.py'}:Mixed", "--input-shape", "3,4")
    done = pai("analyze", tmp_path / "m.safetensors", "--between", *given)
    assert done.status == 1
    assert done.said == [
        "pai: error: the wiring of the network cannot be followed: the network calls bmm, which mixes its inputs so that "
        "units cannot be told apart; pai analyze without --between needs no wiring"
    ]


def test_a_layer_used_twice_is_one_pair_with_all_that_it_reads(tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text(
        "import torch\nfrom torch import nn\n"
        "class Twice(nn.Module):\n"
        "    def __init__(self):\n"
        "        super().__init__()\n"
        "        self.a, self.b = nn.Linear(4, 4, bias=False), nn.Linear(4, 2, bias=False)\n"
        "    def forward(self, x):\n"
        "        y = self.a(torch.relu(self.a(x)))\n"
        "        return self.b(torch.relu(y)) + self.b(torch.relu(y.flip(-1)))\n",
        encoding="utf-8",
    )
    save_file(
        {"a.weight": np.ones((4, 4), np.float32), "b.weight": np.ones((2, 4), np.float32)}, tmp_path / "c.safetensors"
    )
    save_mask(tmp_path / "m.safetensors", {"a.weight": random_mask((4, 4), 0.9), "b.weight": np.ones((2, 4), bool)})
    given = ("--weights", tmp_path / "c.safetensors", "--model", f"{tmp_path / 'net.py'}:Twice", "--input-shape", 4)
    records = between(tmp_path / "m.safetensors", *given)
    assert [(r["writer"], r["reader"], r["columns"]) for r in records[:-1]] == [
        ("a.weight", "a.weight", 4),
        ("a.weight", "b.weight", 8),  # output i at column i, and at 3 - i
    ]


def test_weights_alone_of_a_folder(pai: Pai, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "toy"}', encoding="utf-8")
    weights = {"a.weight": np.ones((4, 4), np.float32), "norm.weight": np.ones(4, np.float32)}
    save_file(weights, tmp_path / "model.safetensors")
    save_mask(tmp_path / "m.safetensors", {"a.weight": random_mask((4, 4))})
    done = pai("analyze", tmp_path / "m.safetensors", "--between", "--weights", tmp_path)
    assert (done.status, done.said) == (2, [
        "pai: error: --between needs the network itself, and of a model's folder only the weights are read; give "
        "--model hf where transformers is installed (pip install 'pai-cli[hf]')"
    ])  # fmt: skip
