"""Experts in one tensor are matrices: pruned and measured as the same experts stored one by one."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

import pai_cli as pai
from pai_cli.analysis.masks import AnalysisRequest, measure_mask
from pai_cli.analysis.transfer import SentMask, SentWeights
from pai_cli.errors import (
    ArrayError,
    LayerSelectionError,
    MaskError,
    MaskMismatchError,
    MethodOptionError,
    NotFiniteError,
)
from pai_cli.files.checkpoints import open_checkpoint
from pai_cli.files.layer_names import stacks_by_name
from pai_cli.files.masks import MaskFile, span_of
from pai_cli.files.stacks import PartedMask, parted
from pai_cli.pruning.streaming import choosing
from pai_cli.spectral.graph import unroll
from pai_cli.spectral.layout import Layout
from pai_cli.spectral.network import DenseCache

AT = "model.layers.0.mlp.experts"
UP, DOWN, Q = f"{AT}.gate_up_proj", f"{AT}.down_proj", "model.layers.0.self_attn.q_proj.weight"
EXPERTS, HIDDEN, INNER = 3, 24, 16
CONFIG = {"model_type": "mixtral", "num_local_experts": EXPERTS, "hidden_size": HIDDEN}
KINDS = ("upright", "turned")


@pytest.fixture(autouse=True)
def _told(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="pai")


def records(*given: Any, **more: Any) -> list[dict[str, Any]]:
    """What `analyze` says, layers first."""
    told = pai.analyze(*given, no_store=True, **more).to_dict()
    return [*told["layers"], told["network"]]


def tensors() -> dict[str, torch.Tensor]:
    drawn = torch.Generator().manual_seed(7)
    shapes = {DOWN: (EXPERTS, HIDDEN, INNER), UP: (EXPERTS, 2 * INNER, HIDDEN), Q: (HIDDEN, HIDDEN)}
    return {name: torch.randn(shape, generator=drawn) for name, shape in shapes.items()}


def stored(kind: str) -> dict[str, torch.Tensor]:
    """The same weights: in stacks as (outputs, inputs), as (inputs, outputs), or "alone", tensors of two dimensions."""
    found: dict[str, torch.Tensor] = {}
    for name, tensor in tensors().items():
        if tensor.dim() == 2 or kind == "upright":
            found[name] = tensor
        elif kind == "turned":
            found[name] = tensor.transpose(1, 2).contiguous()
        else:
            leaf = name.rpartition(".")[2]
            found |= {f"{AT}.{leaf}.{k}.weight": one.clone() for k, one in enumerate(tensor)}
    return found


def folder(path: Path, kind: str, config: dict[str, Any] | None = None, dtype: torch.dtype = torch.float32) -> Path:
    path.mkdir(parents=True)
    save_file({name: one.to(dtype) for name, one in stored(kind).items()}, path / "model.safetensors")
    (path / "config.json").write_text(json.dumps(CONFIG if config is None else config))
    return path


def matrices(mask: pai.Mask) -> dict[str, np.ndarray]:
    """Each matrix's mask as (outputs, inputs), by what the folder "alone" calls it."""
    found: dict[str, np.ndarray] = {}
    for name, array in mask.items():
        if array.ndim == 2:
            found[name] = array
            continue
        assert mask.layouts[name].stacked
        leaf = name.rpartition(".")[2]
        turned = mask.layouts[name].transposed
        found |= {f"{AT}.{leaf}.{k}.weight": one.T if turned else one for k, one in enumerate(array)}
    return found


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "how",
    [
        {"density": 0.3},
        {"density": 0.3, "scope": "layer"},
        {"pattern": "2:4"},
        {"density": 0.3, "invert": True},
    ],
    ids=str,
)
def test_magnitude_keeps_what_it_keeps_of_experts_one_by_one(kind: str, how: dict[str, Any], tmp_path: Path) -> None:
    alone = pai.prune(folder(tmp_path / "alone", "alone"), "magnitude", **how)
    mask = pai.prune(folder(tmp_path / kind, kind), "magnitude", **how)
    assert set(mask) == {UP, DOWN, Q}
    found = matrices(mask)
    assert found.keys() == alone.keys()
    for name, array in alone.items():
        np.testing.assert_array_equal(found[name], array)


@pytest.mark.parametrize("method", ["erk", "uniform", "random"])
def test_densities_are_those_of_experts_one_by_one(method: str, tmp_path: Path) -> None:
    alone = pai.prune(folder(tmp_path / "alone", "alone"), method, density=0.2)
    mask = pai.prune(folder(tmp_path / "turned", "turned"), method, density=0.2)
    assert mask.kept == alone.kept
    if method != "random":  # whose draws go by the names
        counts = {name: int(one.sum()) for name, one in matrices(mask).items()}
        assert counts == {name: int(one.sum()) for name, one in alone.items()}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("weighted", [False, True])
def test_measures_are_those_of_experts_one_by_one(kind: str, packed: bool, weighted: bool, tmp_path: Path) -> None:
    found = {}
    for one in ("alone", kind):
        at, path = folder(tmp_path / one, one), tmp_path / f"{one}.safetensors"
        pai.prune(at, "magnitude", density=0.4, output=path, packed=packed)
        rows = records(path, at if weighted else None)
        found[one] = {
            (row["layer"] or "").replace(".weight", ""): {
                key: value for key, value in row.items() if key not in ("mask", "layer", "shape", "layout", "sha256")
            }
            for row in rows
        }
    own = {name.replace("[", ".").replace("]", ""): row for name, row in found[kind].items()}
    assert len(own) == 2 * EXPERTS + 2
    assert own == found["alone"]


def test_means_over_layers_count_an_expert_as_a_layer(tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    mask = pai.prune(folder(tmp_path / "moe", "turned"), "erk", density=0.4, output=path)
    *rows, mean = records(path)
    names = [f"{stack}[{k}]" for stack in (DOWN, UP) for k in range(EXPERTS)]
    assert [row["layer"] for row in rows] == [*names, Q]
    for row in rows[:-1]:
        stack, _, number = row["layer"].removesuffix("]").partition("[")
        values = np.linalg.svd(mask[stack][int(number)].astype(np.float64), compute_uv=False)
        np.testing.assert_allclose([row["sigma_1"], row["sigma_2"]], values[:2], rtol=1e-6)
    np.testing.assert_allclose(mean["sigma_2"], np.mean([row["sigma_2"] for row in rows]), rtol=1e-12)


def test_layers_are_meant_by_the_tensor_and_by_the_expert(tmp_path: Path) -> None:
    at, path = folder(tmp_path / "moe", "turned"), tmp_path / "m.safetensors"
    mask = pai.prune(at, "erk", densities={DOWN: 0.5, f"{UP}*": 0.25, "*": 0.1}, output=path)
    assert mask.counts[DOWN] == EXPERTS * INNER * HIDDEN // 2
    assert mask.counts[UP] == EXPERTS * INNER * HIDDEN // 2
    assert len(pai.analyze(path, layers=DOWN, no_store=True).layers) == EXPERTS
    assert list(pai.analyze(path, layers="*down_proj?1?", no_store=True).layers) == [f"{DOWN}[1]"]
    left = pai.prune(at, "erk", density=0.5, ignore=DOWN)
    assert list(left) == [UP, Q]
    with pytest.raises(
        LayerSelectionError, match=r"leaves out '.*down_proj\[1\]', which is in one tensor with experts"
    ):
        pai.prune(at, "erk", density=0.5, ignore="*down_proj?1?")


def test_a_mask_file_tells_of_stacks_and_older_readers_refuse_it(tmp_path: Path) -> None:
    at = folder(tmp_path / "moe", "turned")
    for packed in (False, True):
        path = tmp_path / f"{packed}.safetensors"
        mask = pai.prune(at, "magnitude", density=0.4, output=path, packed=packed)
        with safe_open(path, framework="numpy") as file:
            told = file.metadata()
        assert told["format_version"] == "2"
        assert json.loads(told["layers"]) == {
            DOWN: {"transposed": True, "stacked": True},
            UP: {"transposed": True, "stacked": True},
            Q: {},
        }
        again = pai.Mask.load(path)
        assert again == mask
        assert again.layouts == mask.layouts
        assert again.shapes[UP] == (EXPERTS, HIDDEN, 2 * INNER)
        copy = again.save(tmp_path / f"copy-{packed}.safetensors", packed=packed)
        assert MaskFile(copy).layout(UP) == Layout(transposed=True, stacked=True)
    plain = pai.prune(folder(tmp_path / "alone", "alone"), "magnitude", density=0.4, output=tmp_path / "p.safetensors")
    assert MaskFile(plain.path).metadata["format_version"] == "1"


def test_a_stack_that_is_none_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    for shape, more in (((4, 4), {}), ((4, 4, 4), {"groups": 2})):
        layers = json.dumps({"w": {"stacked": True, **more}})
        save_file({"w": torch.ones(shape, dtype=torch.bool)}, path, {"format": "pai-mask", "layers": layers})
        with pytest.raises(MaskMismatchError, match=r"'w' is told to be a stack of matrices"):
            pai.analyze(path, no_store=True)
    with pytest.raises(ArrayError, match="one of them at a time"):
        unroll(np.ones((2, 3, 4), np.bool_), Layout(stacked=True))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(
    "how",
    [{"density": 0.3}, {"density": 0.3, "scope": "layer"}, {"pattern": "2:4"}, {"density": 0.3, "shuffle": True}],
    ids=str,
)
def test_piece_by_piece_gives_the_same_file(
    kind: str, dtype: torch.dtype, how: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "0")
    at = folder(tmp_path / "moe", kind, dtype=dtype)
    for method in ("magnitude", "random"):
        for packed in (False, True):
            whole, pieces = (tmp_path / f"{name}-{method}-{packed}.safetensors" for name in ("whole", "pieces"))
            more = {} if "shuffle" not in how else {"seed": 3}
            pai.prune(at, method, output=whole, packed=packed, **how, **more)
            with monkeypatch.context() as patch:
                patch.setattr(choosing, "LARGE", 1)
                pai.prune(at, method, output=pieces, packed=packed, **how, **more)
            assert whole.read_bytes() == pieces.read_bytes()


def test_parts_of_a_checkpoint(tmp_path: Path) -> None:
    for dtype in (torch.float32, torch.bfloat16):
        at = folder(tmp_path / str(dtype), "upright", dtype=dtype)
        torch.save({name: one.to(dtype) for name, one in stored("upright").items()}, tmp_path / "net.pt")
        for checkpoint in (open_checkpoint(at), open_checkpoint(tmp_path / "net.pt")):
            parts = checkpoint.in_parts({UP: Layout(stacked=True)})
            assert parts.shapes == {
                name: shape[1:] if len(shape) == 3 else shape
                for own in checkpoint.shapes
                for name, shape in (
                    [(f"{UP}[{k}]", checkpoint.shapes[UP]) for k in range(EXPERTS)]
                    if own == UP
                    else [(own, (checkpoint.shapes[own]))]
                )
                if own != DOWN
            } | {DOWN: checkpoint.shapes[DOWN]}
            for k in range(EXPERTS):
                np.testing.assert_array_equal(parts.array(f"{UP}[{k}]"), checkpoint.array(UP)[k])
            assert parts.dtype(f"{UP}[1]") == checkpoint.dtype(UP)
            assert parts.sha256 == checkpoint.sha256
            np.testing.assert_array_equal(parts.array(Q), checkpoint.array(Q))


def test_parts_of_a_mask_stand_where_the_file_has_them(tmp_path: Path) -> None:
    at, path = folder(tmp_path / "moe", "upright"), tmp_path / "m.safetensors"
    for packed in (False, True):
        pai.prune(at, "magnitude", density=0.4, output=path, packed=packed, force=True)
        mask = parted(MaskFile(path))
        assert isinstance(mask, PartedMask)
        for name in mask.names:
            span = span_of(mask, name)
            assert span is not None
            raw = np.frombuffer(path.read_bytes(), np.uint8, span.size, span.begin)
            bits = np.unpackbits(raw) if packed else raw
            np.testing.assert_array_equal(bits.reshape(mask.shapes[name]), mask.array(name))


def test_bits_that_begin_in_a_byte_are_read_with_their_stack(tmp_path: Path) -> None:
    kept = np.random.default_rng(5).random((3, 4, 5)) < 0.5
    stack = pai.Mask({"w": kept}, layouts={"w": Layout(stacked=True)})
    path = stack.save(tmp_path / "m.safetensors", packed=True)
    mask = parted(MaskFile(path))
    assert [span_of(mask, name) for name in mask.names] == [None, None, None]
    alone = pai.Mask({f"w[{k}]": one for k, one in enumerate(kept)})
    for device in ("cpu", "torch:cpu"):
        found, expected = records(path, device=device)[:-1], records(alone, device=device)[:-1]
        for one, other in zip(found, expected, strict=True):
            assert {**one, "mask": ""} == {**other, "mask": ""}


def test_a_checkpoint_of_torch_without_a_configuration(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "net.pt"
    torch.save(stored("turned"), path)
    mask = pai.prune(path, "magnitude", density=0.3)
    assert pai.prune(stored("turned"), "magnitude", density=0.3) == mask
    assert mask.layouts[UP] == mask.layouts[DOWN] == Layout(transposed=True, stacked=True)
    assert mask.layouts[UP].known
    assert any("experts in one tensor, 6 matrices in all" in line for line in caplog.messages)


SHAPE = {"m.experts.w1": (3, 4, 8)}


@pytest.mark.parametrize(
    ("shapes", "config", "turned", "known"),
    [
        ({"m.experts.gate_up_proj": (3, 16, 6), "m.experts.down_proj": (3, 6, 8)}, None, False, True),
        ({"m.experts.gate_up_proj": (3, 6, 16), "m.experts.down_proj": (3, 8, 6)}, None, True, True),
        ({"m.experts.gate_up_proj": (3, 6, 12), "m.experts.down_proj": (3, 6, 6)}, None, True, True),
        ({"m.experts.gate_up_proj": (3, 12, 6), "m.experts.down_proj": (3, 6, 6)}, None, False, True),
        (SHAPE | {"m.experts.w1_bias": (3, 8)}, None, True, True),
        (SHAPE | {"m.experts.w1_bias": (3, 4)}, None, False, True),
        (SHAPE, {"hidden_size": 8}, False, True),
        (SHAPE, {"text_config": {"hidden_size": 4, "num_experts": 3}}, True, True),
        ({"m.experts.w2": (3, 4, 8)}, {"hidden_size": 8}, True, True),
        ({"m.experts.w2": (3, 4, 8)}, {"hidden_size": 4}, False, True),
        (SHAPE, {"model_type": "gpt_oss"}, True, True),
        (SHAPE, None, False, False),
        ({"m.experts.w1": (3, 8, 8)}, {"hidden_size": 8}, False, False),
        ({"m.experts.fc.weight": (3, 4, 8)}, {"num_experts": 3}, False, False),
    ],
)
def test_which_side_is_inputs(
    shapes: dict[str, tuple[int, ...]], config: dict[str, Any] | None, turned: bool, known: bool
) -> None:
    found = stacks_by_name(shapes, config)
    assert set(found) == {name for name, shape in shapes.items() if len(shape) == 3}
    for layout in found.values():
        assert (layout.stacked, layout.transposed, layout.known) == (True, turned, known)


@pytest.mark.parametrize(
    ("name", "shape", "config"),
    [
        ("m.experts.w1", (3, 4, 8), {"num_experts": 5}),
        ("m.experts.conv.weight", (3, 4, 8), None),
        ("m.experts.conv.weight", (3, 4, 8), {"hidden_size": 8}),
        ("m.experts.0.w1", (3, 4, 8), None),
        ("m.experts.w1_bias", (3, 4, 8), None),
        ("m.experts.w1", (3, 1, 8), None),
        ("m.experts.w1", (12, 8), None),
        ("m.experts.w1_scales", (3, 4, 8), None),
        ("m.shared_expert.w1", (3, 4, 8), None),
    ],
)
def test_what_is_no_stack(name: str, shape: tuple[int, ...], config: dict[str, Any] | None) -> None:
    assert not stacks_by_name({name: shape}, config)


def test_an_assumed_side_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    at = tmp_path / "moe"
    at.mkdir()
    save_file({f"{AT}.w1": torch.randn(3, 8, 12, generator=torch.Generator().manual_seed(1))}, at / "model.safetensors")
    (at / "config.json").write_text("{}")
    path = tmp_path / "m.safetensors"
    mask = pai.prune(at, "magnitude", density=0.5, output=path)
    assert any("does not tell inputs from outputs of" in line for line in caplog.messages)
    assert not mask.layouts[f"{AT}.w1"].known
    assert all(row["layout"] == "assumed plain" for row in records(path)[:-1])


def test_an_expert_that_keeps_nothing_is_named(tmp_path: Path) -> None:
    held = stored("upright")
    held[DOWN][1] *= 1e-6
    at = tmp_path / "moe"
    at.mkdir()
    save_file(held, at / "model.safetensors")
    (at / "config.json").write_text(json.dumps(CONFIG))
    with pytest.warns(pai.PaiWarning, match=r"layer collapse: .*down_proj\[1\] kept no weight"):
        mask = pai.prune(at, "magnitude", density=0.5)
    assert not mask[DOWN][1].any()
    assert mask[DOWN][0].any()
    assert mask.summary is not None
    assert mask.summary.collapsed == (f"{DOWN}[1]",)
    held[DOWN][2, 0, 0] = float("nan")
    save_file(held, at / "model.safetensors")
    with pytest.raises(NotFiniteError, match=r"down_proj\[2\]' holds nan at index 0"):
        pai.prune(at, "magnitude", density=0.5)


def test_masks_without_metadata_are_stacks_by_their_names(tmp_path: Path) -> None:
    at = folder(tmp_path / "moe", "turned")
    path = tmp_path / "m.safetensors"
    mask = pai.prune(at, "magnitude", density=0.4, output=path)
    bare = tmp_path / "bare.safetensors"
    save_file({name: torch.from_numpy(array.copy()) for name, array in mask.items()}, bare)
    told, untold = records(path), records(bare)
    values = [{key: row[key] for key in ("layer", "shape", "layout", "density", "sigma_1", "sigma_2")} for row in told]
    assert values == [{key: row[key] for key in values[0]} for row in untold]


def test_what_takes_no_stacks_says_so(tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    at = folder(tmp_path / "moe", "upright")
    pai.prune(at, "magnitude", density=0.4, output=path)
    with pytest.raises(MaskError, match="holds 3 experts in one tensor, which pai mine does not take"):
        pai.mine(path, level="weight")
    for kind in ("npz", "dense", "torch-prune"):
        given = {} if kind == "npz" else {"weights": at}
        again = pai.convert(path, to=kind, output=tmp_path / kind, **given)
        assert again.shapes[UP] == (EXPERTS, 2 * INNER, HIDDEN)
    assert pai.Mask.of(tmp_path / "dense") == pai.Mask.load(path)
    bare = tmp_path / "bare.npz"
    np.savez(bare, *pai.Mask.load(path).values())
    torch.save(stored("upright"), tmp_path / "net.pt")
    assert pai.convert(bare, names_from=tmp_path / "net.pt") == pai.Mask.load(path)


def test_applying_a_mask_to_a_network_of_stacks() -> None:
    class Experts(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.gate_up_proj = torch.nn.Parameter(torch.ones(2, 4, 3))

    net = torch.nn.ModuleDict({"experts": Experts()})
    kept = np.arange(24).reshape(2, 4, 3) % 2 == 0
    pai.Mask.from_tensors({"experts.gate_up_proj": kept}).apply(net)
    np.testing.assert_array_equal(net["experts"].gate_up_proj.detach().numpy() != 0, kept)


@pytest.mark.parametrize("packed", [False, True])
def test_a_device_and_other_processes_measure_the_same(packed: bool, tmp_path: Path) -> None:
    at, path = folder(tmp_path / "moe", "turned"), tmp_path / "m.safetensors"
    pai.prune(at, "magnitude", density=0.4, output=path, packed=packed)
    expected = records(path, at)
    there = records(path, at, device="torch:cpu")
    for one, other in zip(expected, there, strict=True):
        assert one["layer"] == other["layer"]
        np.testing.assert_allclose(other["sigma_2"], one["sigma_2"], rtol=1e-6)
        np.testing.assert_allclose(other["lambda"], one["lambda"], rtol=1e-6)
    weights = open_checkpoint(at)
    for globs in ((), (f"{UP}",), ("*gate_up_proj?2?",)):
        sent = SentMask.of(MaskFile(path), globs)
        assert set(sent.bits) == {name for name in (DOWN, UP, Q) if not globs or name == UP}
        request = AnalysisRequest(weights=SentWeights(weights, globs), layers=globs)
        report = measure_mask(sent, request, DenseCache(), lambda *_: None).report
        assert report is not None
        own = [row for row in expected[:-1] if not globs or row["layer"] in report.layers.names]
        assert len(own) == {"": 2 * EXPERTS + 1, UP: EXPERTS}.get("".join(globs), 1)
        assert list(report.layers.measures["lambda"].values) == [row["lambda"] for row in own]


def test_reports_that_are_kept_are_those_that_were_measured(tmp_path: Path) -> None:
    at, path, store = folder(tmp_path / "moe", "turned"), tmp_path / "m.safetensors", tmp_path / "store.db"
    pai.prune(at, "magnitude", density=0.4, output=path)
    first, again = (pai.analyze(path, at, store=store).to_dict() for _ in range(2))
    assert first == again


def test_a_mask_that_goes_to_a_device_has_its_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choosing, "LARGE", 1)
    mask = pai.prune(folder(tmp_path / "moe", "turned"), "magnitude", density=0.4, output="/dev/null", force=True)
    assert mask.shapes == {DOWN: (EXPERTS, INNER, HIDDEN), UP: (EXPERTS, HIDDEN, 2 * INNER), Q: (HIDDEN, HIDDEN)}


def test_the_stable_mask_is_of_stacks(tmp_path: Path) -> None:
    at, out = folder(tmp_path / "moe", "turned"), tmp_path / "stable.safetensors"
    mask = pai.prune(at, "magnitude", density=0.4, output=tmp_path / "m.safetensors", stability=2, stable_out=out)
    assert mask.stable == mask
    assert pai.Mask.load(out) == mask
    assert MaskFile(out).layout(UP).stacked


def test_what_an_ignored_stack_keeps_is_counted(tmp_path: Path) -> None:
    at, path = folder(tmp_path / "moe", "turned"), tmp_path / "m.safetensors"
    mask = pai.prune(at, "magnitude", density=0.25, ignore=UP, output=path)
    row = records(path, at)[-1]
    size = EXPERTS * 2 * INNER * HIDDEN
    assert row["network_density"] == (mask.kept + size) / (mask.total + size)


def test_training_under_such_a_mask_asks_for_the_network(tmp_path: Path) -> None:
    at = folder(tmp_path / "moe", "turned")
    mask = pai.prune(at, "magnitude", density=0.25)
    with pytest.raises(MethodOptionError, match="this needs the network itself"):
        pai.train(at, mask=mask, data="digits")
