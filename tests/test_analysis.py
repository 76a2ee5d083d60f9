"""`pai analyze` beside an implementation of metrics.md that shares nothing with it: dense arrays, dense SVD."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import SAMPLES, Pai, random_mask, run_pai, save_mask
from safetensors.numpy import load_file, save_file

from pai_cli.spectral.catalogue import LAYER_PATHS, METRICS
from pai_cli.spectral.layout import Layout

Values = dict[str, float | None]
Record = dict[str, Any]

SAMPLE = SAMPLES / "synflow-0.05.safetensors"
RESNET = SAMPLES / "resnet20.safetensors"
LAYERS = ("conv1.weight", "layer1.0.conv1.weight", "layer2.0.conv2.weight", "layer3.2.conv2.weight", "linear.weight")
PARAMETERS = ("lambda", "lambda_imsg", "l2", "l2_dense")


# --- metrics.md, written down once more


def sigmas(matrix: np.ndarray) -> tuple[float, float]:
    values = np.linalg.svd(matrix.astype(np.float64), compute_uv=False)
    return float(values[0]), float(values[1])


def gaps(mask: np.ndarray) -> Values:
    """Section 2 for a mask whose rows and columns all have an edge, or None throughout where it is not defined."""
    n_R, n_L, e = int(mask.any(1).sum()), int(mask.any(0).sum()), int(mask.sum())
    d_L, d_R = e / n_L, e / n_R
    if d_L < 3 or d_R < 3:
        return dict.fromkeys(("dr", "dr_bound", "dr_norm", "ds", "ds_bound", "ds_norm"))
    first, second = sigmas(mask)
    dr_bound, ds_bound = math.sqrt(d_L - 1) + math.sqrt(d_R - 1), 2 * math.sqrt(first - 1)
    dr, ds = dr_bound - second, ds_bound - second
    return {
        "dr": dr,
        "dr_bound": dr_bound,
        "dr_norm": dr / dr_bound,
        "ds": ds,
        "ds_bound": ds_bound,
        "ds_norm": ds / ds_bound,
    }


def narc(mask: np.ndarray) -> float:
    n_R, n_L, e = int(mask.any(1).sum()), int(mask.any(0).sum()), int(mask.sum())
    n_R0, n_L0 = mask.shape
    _, second = sigmas(mask)
    expected = (e / n_L / n_R0) * n_L * n_R
    return ((second**2 / 4 + 1) * math.sqrt(n_L * n_R) - abs(2 * e - expected)) / (n_L0 * n_R0)


def regular(mask: np.ndarray) -> list[np.ndarray]:
    """The columns of every K_d that is kept."""
    degrees, kept = mask.sum(0), []
    for d in sorted(set(degrees.tolist()) - {0}):
        columns = degrees == d
        n_R = int(mask[:, columns].any(1).sum())
        if columns.sum() >= 3 and d >= 3 and d * columns.sum() / n_R >= 3:
            kept.append(columns)
    return kept


def reference(mask: np.ndarray, weights: np.ndarray | None = None, *, weighted: bool = False) -> Values:
    """Sections 2 to 4 of one unrolled layer that has edges."""
    whole = gaps(mask)
    values: Values = {**whole, "sigma_1": sigmas(mask)[0], "sigma_2": sigmas(mask)[1]}
    for name, axis in (("fan_in", 1), ("fan_out", 0)):
        fans = mask.sum(axis)[mask.any(axis)]
        values[f"{name}_std"], values[f"{name}_cv"] = float(np.std(fans)), float(np.std(fans) / np.mean(fans))
    values["narc"] = None if whole["dr"] is None else narc(mask)
    values["expansion"] = None if whole["dr"] is None else mask.any(1).sum() / mask.any(0).sum()
    classes = regular(mask)
    sides = [(int(c.sum()), int(mask[:, c].any(1).sum())) for c in classes]
    factors = [max(L, R) / (L + R - 1) if weighted else 1.0 for L, R in sides]
    for name in ("dr", "dr_norm", "ds", "ds_norm"):
        terms = [gaps(mask[:, c])[name] * f for c, f in zip(classes, factors, strict=True)]
        values[name[:2] + "_imdb" + name[2:]] = float(np.mean(terms)) if terms else None
    values["expansion_max"] = max((R / L for L, R in sides), default=None)
    values["expansion_mean"] = float(np.mean([R / L for L, R in sides])) if sides else None
    if weights is None:
        return values | dict.fromkeys(PARAMETERS)
    A = np.abs(weights.astype(np.float64)) * mask
    values["lambda"] = sigmas(A)[0] - sigmas(A)[1]
    terms = [(sigmas(A[:, c])[0] - sigmas(A[:, c])[1]) * f for c, f in zip(classes, factors, strict=True)]
    values["lambda_imsg"] = float(np.mean(terms)) if terms else None
    four = ("dr", "dr_imdb", "lambda", "lambda_imsg")
    values["l2"] = math.hypot(*(values[name] or 0.0 for name in four))
    if not mask.all():
        dense = reference(np.ones_like(mask), weights, weighted=weighted)
        values["l2_dense"] = math.hypot(*((values[n] or 0.0) - (dense[n] or 0.0) for n in four))
    return values


def assert_close(record: Record, wanted: Values) -> None:
    for name, value in wanted.items():
        found, error = record[name], record[f"{name}_error"]
        if value is None:
            assert found is None, name
            assert error is None, name
            assert name in record["reason"]
            continue
        assert found is not None, name
        assert abs(found - value) <= error + 1e-11 * (1 + abs(value)), name
        assert 0 <= error < 1e-8 * (1 + abs(record["sigma_1"])), name


def analyzed(*arguments: object) -> list[Record]:
    done = run_pai("analyze", *arguments, "--format", "json")
    assert done.status == 0, done.err
    records: list[Record] = done.json()
    return records


def by_layer(records: list[Record]) -> dict[str, Record]:
    return {record["layer"]: record for record in records if record["level"] == "layer"}


def network(records: list[Record]) -> Record:
    (record,) = [record for record in records if record["level"] == "network"]
    return record


@pytest.fixture(scope="module")
def arrays() -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Mask and weights of the sample, unrolled here without pai's reader."""
    data = SAMPLE.read_bytes()
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    shapes, bits, weights = json.loads(header["__metadata__"]["shapes"]), load_file(SAMPLE), load_file(RESNET)
    return {
        name: (
            np.unpackbits(bits[name], count=math.prod(shape)).astype(bool).reshape(shape[0], -1),
            weights[name].reshape(shape[0], -1),
        )
        for name, shape in shapes.items()
    }


@pytest.fixture(scope="module")
def bare() -> list[Record]:
    return analyzed(SAMPLE)


@pytest.fixture(scope="module")
def weighed() -> list[Record]:
    return analyzed(SAMPLE, "--weights", RESNET)


Arrays = dict[str, tuple[np.ndarray, np.ndarray]]
LAYER = pytest.mark.parametrize("layer", LAYERS)


@LAYER
def test_a_layer_without_weights(bare: list[Record], arrays: Arrays, layer: str) -> None:
    record = by_layer(bare)[layer]
    assert_close(record, reference(arrays[layer][0]))
    assert f"needs --weights (lambda, lambda_imsg, l2, l2_dense, {', '.join(LAYER_PATHS)})" in record["reason"]


@LAYER
def test_a_layer_with_weights(weighed: list[Record], arrays: Arrays, layer: str) -> None:
    record = by_layer(weighed)[layer]
    assert_close(record, reference(*arrays[layer]))
    assert "--weights" not in (record["reason"] or "")


@LAYER
def test_counts(bare: list[Record], arrays: Arrays, layer: str) -> None:
    record, mask = by_layer(bare)[layer], arrays[layer][0]
    edges, rows, columns = int(mask.sum()), int(mask.any(1).sum()), int(mask.any(0).sum())
    wanted = {"rows": mask.shape[0], "columns": mask.shape[1], "n_R": rows, "n_L": columns}
    wanted |= {"kept": edges, "total": mask.size, "n_regular": len(regular(mask))}
    assert {key: record[key] for key in wanted} == wanted
    assert record["density"] == edges / mask.size
    assert (record["d_L"], record["d_R"]) == (edges / columns, edges / rows)


@LAYER
def test_expansion_weighted(weighed: list[Record], arrays: Arrays, layer: str) -> None:
    record = by_layer(analyzed(SAMPLE, "--weights", RESNET, "--layers", layer, "--expansion-weighted"))[layer]
    assert_close(record, reference(*arrays[layer], weighted=True))
    changed = {name for name in METRICS if record[name] != by_layer(weighed)[layer][name]}
    imdb = {"dr_imdb", "dr_imdb_norm", "ds_imdb", "ds_imdb_norm", "lambda_imsg", "l2", "l2_dense"}
    assert changed == (imdb if regular(arrays[layer][0]) else set()) | (changed & {"l2_dense"})


def test_the_network_is_the_mean_over_layers_with_a_value(weighed: list[Record]) -> None:
    layers, whole = list(by_layer(weighed).values()), network(weighed)
    for name in METRICS:
        present = [layer[name] for layer in layers if layer[name] is not None]
        assert whole[f"{name}_layers"] == len(present)
        assert whole[name] == pytest.approx(np.mean(present), rel=1e-13)
    assert whole["kept"] == sum(layer["kept"] for layer in layers)
    assert whole["total"] == 268_336
    assert whole["density"] == whole["kept"] / whole["total"]
    assert any(whole[f"{name}_layers"] < len(layers) for name in METRICS)  # or the test above says too little


def test_every_record_has_the_same_fields(bare: list[Record], weighed: list[Record]) -> None:
    assert len({tuple(record) for record in [*bare, *weighed]}) == 1
    assert len(bare) == 21
    assert bare[-1]["level"] == "network"


@pytest.mark.parametrize(
    ("globs", "wanted"),
    [
        (["conv1"], ["conv1.weight"]),
        (["conv1.weight"], ["conv1.weight"]),
        (["layer1.*.conv2"], [f"layer1.{i}.conv2.weight" for i in range(3)]),
        (["linear", "conv1"], ["conv1.weight", "linear.weight"]),
        (["layer[23].0.conv1*"], ["layer2.0.conv1.weight", "layer3.0.conv1.weight"]),
    ],
)
def test_layers(bare: list[Record], globs: list[str], wanted: list[str]) -> None:
    records = analyzed(SAMPLE, *(word for glob in globs for word in ("--layers", glob)))
    assert list(by_layer(records)) == wanted
    assert all(record == by_layer(bare)[name] for name, record in by_layer(records).items())
    assert network(records)["total"] == sum(by_layer(bare)[name]["total"] for name in wanted)


def test_layers_that_match_nothing() -> None:
    done = run_pai("analyze", SAMPLE, "--layers", "convv*", "--layers", "x")
    assert (done.status, done.out) == (2, "")
    assert done.said == [f"pai: error: {SAMPLE}: --layers convv* x matches no layer; its first is 'conv1.weight' of 20"]


def test_summary_is_the_network_alone(bare: list[Record]) -> None:
    assert analyzed(SAMPLE, "--summary") == [network(bare)]


@pytest.mark.parametrize(
    "layout", [Layout(groups=2), Layout(transposed=True), Layout(groups=2, transposed=True)], ids=str
)
def test_groups_and_transposition(tmp_path: Path, layout: Layout) -> None:
    mask = random_mask((8, 6, 2, 2), 0.6)
    weights = np.random.default_rng(1).standard_normal(mask.shape).astype(np.float32)
    save_mask(tmp_path / "m.safetensors", {"w": mask}, {"w": layout})
    save_file({"w": weights}, tmp_path / "c.safetensors")
    record = by_layer(analyzed(tmp_path / "m.safetensors", "--weights", tmp_path / "c.safetensors"))["w"]
    matrices = []
    for array in (mask, weights):
        blocks = np.split(array, layout.groups)
        if layout.transposed:
            blocks = [block.swapaxes(0, 1) for block in blocks]
        flat = [block.reshape(block.shape[0], -1) for block in blocks]
        rows, columns = sum(b.shape[0] for b in flat), sum(b.shape[1] for b in flat)
        matrix, r, c = np.zeros((rows, columns), array.dtype), 0, 0
        for block in flat:
            matrix[r : r + block.shape[0], c : c + block.shape[1]] = block
            r, c = r + block.shape[0], c + block.shape[1]
        matrices.append(matrix)
    assert (record["rows"], record["columns"]) == matrices[0].shape
    assert record["components"] == layout.groups
    assert record["density"] == mask.mean()
    wanted = reference(*matrices)
    del wanted["l2_dense"]  # unmasked, a grouped layer has no edge between its groups
    assert_close(record, wanted)


TALL = np.zeros((6, 6), bool)
MISSING: dict[str, tuple[np.ndarray, str, str, list[str]]] = {
    "empty": (TALL, "dr", "collapsed", []),
    "few edges": (np.eye(6, dtype=bool), "dr", "mean degree below 3", ["sigma_1", "sigma_2"]),
    "one row": (np.ones((1, 6), bool), "sigma_2", "fewer than two singular values", ["sigma_1"]),
    "no subgraph": (
        np.array([[i < j for j in range(1, 9)] for i in range(8)]),
        "dr_imdb",
        "no left-regular subgraph with mean degrees of 3 or more",
        ["sigma_1", "sigma_2", "dr", "ds", "narc"],
    ),
}


@pytest.mark.parametrize("case", MISSING)
def test_a_missing_value_has_its_reason(tmp_path: Path, case: str) -> None:
    mask, name, reason, present = MISSING[case]
    record = by_layer(analyzed(save_mask(tmp_path / "m.safetensors", {"w": mask})))["w"]
    assert record[name] is None
    assert record[f"{name}_error"] is None
    (part,) = [part for part in record["reason"].split("; ") if part.startswith(reason + " (")]
    assert name in part[len(reason) + 2 : -1].split(", ")
    assert all(record[other] is not None for other in present)
    assert not any(part.endswith(("()", "( )")) for part in record["reason"].split("; "))


def test_collapsed_layers_are_named(pai: Pai, tmp_path: Path) -> None:
    path = save_mask(tmp_path / "m.safetensors", {"a": random_mask((8, 8)), "b": TALL, "c": TALL})
    done = pai("analyze", path, "--format", "json")
    assert done.status == 0
    assert done.said == [f"pai: warning: {path}: collapsed layers (no weight kept): b, c"]
    assert network(done.json())["reason"].startswith("collapsed: b, c; ")


def test_what_is_no_matrix_is_left_out_and_said(pai: Pai, tmp_path: Path) -> None:
    path = save_mask(tmp_path / "m.safetensors", {"w": random_mask((8, 8)), "bias": random_mask((8,))})
    done = pai("analyze", path, "--format", "json")
    assert list(by_layer(done.json())) == ["w"]
    assert done.said == [f"pai: {path}: left out bias: no rows and columns"]


def test_only_vectors(pai: Pai, tmp_path: Path) -> None:
    path = save_mask(tmp_path / "m.safetensors", {"bias": random_mask((8,))})
    done = pai("analyze", path)
    assert done.status == 1
    assert done.said == [
        f"pai: error: {path}: no tensor has rows and columns (the first, 'bias', has shape (8,)); a graph needs the mask "
        "of a weight"
    ]


def test_groups_that_do_not_divide(pai: Pai, tmp_path: Path) -> None:
    path = save_mask(tmp_path / "m.safetensors", {"w": random_mask((8, 8))}, {"w": Layout(groups=2)})
    path.write_bytes(path.read_bytes().replace(b'groups\\":2', b'groups\\":3'))
    done = pai("analyze", path)
    assert done.status == 1
    assert done.said == [f"pai: error: {path}: 'w' has 8 channels, which 3 groups do not divide; make the mask again"]


def test_weights_of_another_shape(pai: Pai, tmp_path: Path) -> None:
    path = save_mask(tmp_path / "m.safetensors", {"w": random_mask((8, 6)), "v": random_mask((4, 4))})
    other = tmp_path / "c.safetensors"
    save_file({"w": np.zeros((6, 8), np.float32), "v": np.zeros((4, 4), np.float32)}, other)
    done = pai("analyze", path, "--weights", other)
    assert done.status == 1
    assert done.said == [
        f"pai: error: {path}: does not fit {other}: 'w' is 8x6 here and 6x8 there; --weights takes the checkpoint "
        "that the mask was made for"
    ]


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_weights_that_are_not_finite_are_named(pai: Pai, tmp_path: Path, value: float) -> None:
    path = save_mask(tmp_path / "m.safetensors", {"a": random_mask((8, 8)), "b": random_mask((8, 8))})
    checkpoint = tmp_path / "c.safetensors"
    bad = np.ones((8, 8), np.float32)
    bad[1, 2] = value
    save_file({"a": np.ones((8, 8), np.float32), "b": bad}, checkpoint)
    done = pai("analyze", path, "--weights", checkpoint)
    assert done.status == 1
    assert len(done.said) == 1
    assert done.said[0].startswith(f"pai: error: {checkpoint}: ")
    assert "'b'" in done.said[0]


@pytest.mark.parametrize("scale", [1e200, 1e-200])
def test_weights_of_extreme_size(pai: Pai, tmp_path: Path, scale: float) -> None:
    """Squaring them leaves float64; the answer is a value or a reason, never a number that is none."""
    mask = random_mask((8, 8), 0.7)
    weights = np.random.default_rng(1).random((8, 8))
    save_mask(tmp_path / "m.safetensors", {"w": mask})
    save_file({"w": weights * scale}, tmp_path / "c.safetensors")
    record = by_layer(analyzed(tmp_path / "m.safetensors", "--weights", tmp_path / "c.safetensors"))["w"]
    assert record["lambda"] == pytest.approx(reference(mask, weights)["lambda"] * scale, rel=1e-9)


# --- many masks, and the table for people


def test_one_bad_mask_among_many(pai: Pai, tmp_path: Path) -> None:
    paths = [save_mask(tmp_path / f"{n}.safetensors", {"w": random_mask((8, 8), seed=n)}) for n in range(3)]
    paths[1].write_bytes(b"")
    done = pai("analyze", tmp_path, "--summary", "--format", "json")
    assert done.status == 1
    reason = f"{paths[1]}: the file is empty; copy it again"
    assert done.said == [f"pai: error: {reason}"]
    records = done.json()
    assert [(r["mask"], r["outcome"]) for r in records] == list(
        zip(map(str, paths), ["done", "failed", "done"], strict=True)
    )
    assert records[1]["reason"] == reason
    assert {key for key, value in records[1].items() if value is not None} == {"mask", "level", "outcome", "reason"}


def test_the_table_for_people(pai: Pai, weighed: list[Record]) -> None:
    done = pai("analyze", SAMPLE, "--weights", RESNET)
    assert (done.status, done.err) == (0, "")
    lines = done.out.splitlines()
    assert str(SAMPLE) in lines[0]
    for name, record in by_layer(weighed).items():
        (line,) = [line for line in lines if line.split()[:1] == [name]]
        shown = [record[key] for key in ("density", "sigma_1", "dr", "lambda", "l2", "l2_dense")]
        assert {f"{value:.5g}" for value in shown if value is not None} <= set(line.split())
    (mean,) = [line for line in lines if "network mean" in line]
    assert f"{network(weighed)['l2']:.5g}" in mean.split()


def test_the_summary_table_has_a_line_a_mask(pai: Pai) -> None:
    paths = [SAMPLES / f"erk-{density}.safetensors" for density in ("0.02", "0.05")]
    done = pai("analyze", *paths, "--summary")
    assert done.status == 0
    assert [line.split()[0] for line in done.out.splitlines() if ".safetensors" in line] == [str(p) for p in paths]
