"""What is left whole, known by several names, set aside or not known of a network: it is said, and used everywhere alike."""

from __future__ import annotations

import json
import logging
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file as load_arrays
from safetensors.torch import save_file, save_model
from torch import nn
from torch.nn.utils import parametrizations, prune, spectral_norm

import pai_cli as pai
from pai_cli.errors import CheckpointError, LayerSelectionError, MaskError, UnknownModelError
from pai_cli.files.checkpoints import open_checkpoint
from pai_cli.files.layer_names import layouts_by_name
from pai_cli.files.masks import unknown_layouts
from pai_cli.files.matching import located
from pai_cli.files.opening import open_mask
from pai_cli.models.network import init_network
from pai_cli.spectral.layout import Layout


@pytest.fixture(autouse=True)
def _told(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="pai")


def magnitude(source: object, **options: object) -> pai.Mask:
    return pai.prune(source, "magnitude", density=0.5, **options)


# What is left whole


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.rnn, self.cell = nn.LSTM(3, 4, bidirectional=True, proj_size=2), nn.GRUCell(4, 4)


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.att, self.other = nn.MultiheadAttention(8, 2), nn.MultiheadAttention(8, 2, kdim=4, vdim=6)


class Normed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.old, self.new = spectral_norm(nn.Linear(4, 4)), parametrizations.spectral_norm(nn.Conv1d(4, 4, 2))
        self.weighted, self.turned = (
            parametrizations.weight_norm(nn.Linear(4, 4)),
            parametrizations.orthogonal(nn.Linear(4, 4)),
        )


class Own(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.table, self.bare, self.fc = nn.Embedding(5, 4), nn.Parameter(torch.randn(3, 4)), nn.Linear(4, 2)
        self.token, self.pair = nn.Parameter(torch.randn(1, 1, 4)), nn.Bilinear(2, 2, 2)
        self.register_buffer("mask", torch.ones(4, 4))


@pytest.mark.parametrize(
    ("network", "layers", "whole"),
    [
        (
            Recurrent,
            [f"rnn.weight_{kind}_l0{side}" for side in ("", "_reverse") for kind in ("ih", "hh", "hr")]
            + ["cell.weight_ih", "cell.weight_hh"],
            [],
        ),
        (
            Attention,
            ["att.in_proj_weight", "att.out_proj.weight"]
            + [f"other.{one}_proj_weight" for one in "qkv"]
            + ["other.out_proj.weight"],
            [],
        ),
        (
            Normed,
            ["old.weight_orig", "new.parametrizations.weight.original"],
            ["weighted.parametrizations.weight.original1", "turned.parametrizations.weight.original"],
        ),
        (Own, ["fc.weight"], ["bare", "table.weight", "pair.weight"]),
    ],
)
def test_matrices_are_pruned_and_the_rest_is_said(
    network: type[nn.Module], layers: list[str], whole: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    torch.manual_seed(0)
    model = network()
    mask = magnitude(model)
    assert list(mask) == layers
    assert sorted(json.loads(mask.metadata.get("left_whole", "{}"))) == sorted(whole)
    sizes = {name: one.numel() for name, one in model.named_parameters()}
    lines = [line for line in caplog.messages if "left whole" in line]
    assert len(lines) == bool(whole)
    if whole:
        assert f"{sum(sizes[name] for name in whole):,} weights in {len(whole)} tensors are left whole" in lines[0]
        assert all(name in lines[0] for name in whole)
    report = pai.analyze(mask, model, no_store=True)
    assert set(report.left_whole) >= set(whole)
    assert all(
        report.left_whole[name] == why for name, why in json.loads(mask.metadata.get("left_whole", "{}")).items()
    )
    mask.apply(model)
    assert all(
        not dict(model.named_parameters())[name][~torch.from_numpy(one.copy())].any() for name, one in mask.items()
    )


def folder(path: Path, tensors: dict[str, torch.Tensor], **config: object) -> Path:
    path.mkdir()
    save_file(tensors, path / "model.safetensors")
    (path / "config.json").write_text(json.dumps(config))
    return path


EXPERTS = {
    "model.embed_tokens.weight": torch.randn(10, 8),
    "model.layers.0.self_attn.q_proj.weight": torch.randn(8, 8),
    "model.layers.0.mlp.experts.gate_up_proj": torch.randn(4, 8, 16),
    "model.layers.0.mamba.conv1d.weight": torch.randn(8, 1, 4),
    "model.norm.weight": torch.ones(8),
}


def test_experts_tables_and_convolutions_of_a_folder(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    mask = magnitude(folder(tmp_path / "moe", EXPERTS, model_type="gpt_oss"))
    assert list(mask) == ["model.layers.0.mlp.experts.gate_up_proj", "model.layers.0.self_attn.q_proj.weight"]
    assert mask.total == 576
    line = next(line for line in caplog.messages if "left whole" in line)
    assert line.startswith(f"{tmp_path}/moe/model.safetensors: 112 weights in 2 tensors are left whole: ")
    assert any("experts in one tensor, 4 matrices in all" in line for line in caplog.messages)
    for told in ("a table that is looked up", "a convolution whose groups no name tells"):
        assert told in line
    assert line.endswith("beside 8 in biases, norms and other vectors")


QUANTISED = {
    "gptq": {"qweight": torch.ones(4, 32, dtype=torch.int32), "scales": torch.ones(1, 32), "g_idx": torch.ones(32)},
    "awq": {"qweight": torch.ones(32, 4, dtype=torch.int32), "qzeros": torch.ones(1, 4, dtype=torch.int32)},
    "nf4": {"weight": torch.ones(512, 1, dtype=torch.uint8), "weight.absmax": torch.ones(16, dtype=torch.uint8)},
    "int8": {"weight": torch.ones(32, 32, dtype=torch.int8), "SCB": torch.ones(32)},
    "packed": {"weight_packed": torch.ones(32, 4, dtype=torch.int32), "weight_scale": torch.ones(32, 1)},
}


@pytest.mark.parametrize("kind", QUANTISED)
def test_packed_weights_are_counted_by_what_they_stand_for(
    kind: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    layer = {f"layers.0.up_proj.{name}": one for name, one in QUANTISED[kind].items()}
    small = folder(tmp_path / "small", layer | {"lm_head.weight": torch.randn(10, 8)}, model_type="llama")
    with pytest.raises(
        LayerSelectionError, match=r"quantised: 1,024 weights are packed as integers, .* and 80 are not"
    ):
        magnitude(small)
    large = folder(tmp_path / "large", layer | {"lm_head.weight": torch.randn(100, 32)}, model_type="llama")
    assert list(magnitude(large)) == ["lm_head.weight"]
    assert any("1,024 weights in 1 tensor are left whole: layers.0.up_proj" in line for line in caplog.messages)


# One tensor, several names


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed, self.fc, self.head = nn.Embedding(6, 4), nn.Linear(4, 4), nn.Linear(4, 6, bias=False)
        self.head.weight = self.embed.weight


def tied_files(path: Path) -> dict[str, Path]:
    torch.manual_seed(0)
    model = Tied()
    twice = {name: one.clone() for name, one in model.state_dict().items()}
    once = {name: one for name, one in twice.items() if name != "embed.weight"}
    save_model(model, path / "told.safetensors")
    save_file(twice, path / "twice.safetensors")
    save_file(once, path / "once.safetensors")
    torch.save(model.state_dict(), path / "torch.pt")
    torch.save({f"model.{name}": one for name, one in model.state_dict().items()}, path / "wrapped.pt")
    return {one.stem: one for one in path.iterdir()}


def test_a_tied_weight_is_found_under_every_name(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    files = tied_files(tmp_path)
    mask = magnitude(Tied())
    assert json.loads(mask.metadata["aliases"]) == {"head.weight": ["embed.weight"]}
    assert "the model: head.weight is embed.weight too: one tensor, one mask" in caplog.messages
    mask.save(tmp_path / "mask.safetensors")
    values = set()
    for name, file in files.items():
        report = pai.analyze(tmp_path / "mask.safetensors", file, no_store=True)
        assert report.left_whole == {}
        values.add(report["l2"].value)
        pai.convert(tmp_path / "mask.safetensors", tmp_path / f"{name}-dense.safetensors", to="dense", weights=file)
        dense = load_arrays(tmp_path / f"{name}-dense.safetensors")
        there = [one for one in dense if one.endswith(("head.weight", "embed.weight"))]
        assert there
        assert all((dense[one][~mask["head.weight"]] == 0).all() for one in there)
    assert len(values) == 1


@pytest.mark.parametrize("name", ["embed.weight", "head.weight"])
def test_a_mask_of_either_name(name: str, tmp_path: Path) -> None:
    files = tied_files(tmp_path)
    kept = np.random.default_rng(0).random((6, 4)) < 0.5
    np.savez(tmp_path / "own.npz", **{name: kept})
    for file in (files["told"], files["torch"], files["twice"]):
        assert pai.analyze(tmp_path / "own.npz", file, no_store=True).kept == kept.sum()
        pai.convert(tmp_path / "own.npz", tmp_path / "d.safetensors", to="dense", weights=file, force=True)
        dense = load_arrays(tmp_path / "d.safetensors")
        assert all((dense[one][~kept] == 0).all() for one in ("embed.weight", "head.weight") if one in dense)


def test_a_mask_with_aliases_is_applied_to_all_of_them() -> None:
    mask = magnitude(Tied())
    untied = Tied()
    untied.head.weight = nn.Parameter(untied.head.weight.detach().clone())
    mask.apply(untied)
    for weight in (untied.head.weight, untied.embed.weight):
        assert not weight[torch.from_numpy(~mask["head.weight"])].any()


def test_names_of_one_tensor() -> None:
    there = {"b", "c", "x.d"}
    assert located(["a", "c", "e"], there, {"a": ("b",)}, {"e": ("f",)}) == {"a": ("b",), "c": ("c",), "e": ()}
    assert located(["d"], there) == {"d": ("x.d",)}
    assert located(["d", "c"], there)["d"] == ()  # one prefix for all, or none
    assert located(["net.a", "net.c"], {"a", "c"}) == {"net.a": ("a",), "net.c": ("c",)}
    assert located(["x.net.a", "x.net.e"], {"b", "net.a"}, {"x.net.e": ("x.b",)}) == {
        "x.net.a": ("net.a",),
        "x.net.e": ("b",),
    }
    assert located(["net.a", "c"], {"a", "net.d"})["net.a"] == ()


# Recognition


def resnet8() -> dict[str, torch.Tensor]:
    return init_network("resnet8", None, 0).model.state_dict()


@pytest.mark.parametrize(
    "prefix",
    ["module.", "model.", "net.", "network.", "ema_model.", "model._orig_mod.", "_forward_module.module.", "a.b.c."],
)
def test_wrappers_are_stripped_and_named(prefix: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    state = resnet8()
    for file, model in ((tmp_path / "own.pt", None), (tmp_path / "named.pt", "resnet8")):
        torch.save({prefix + name: one for name, one in state.items()} | {"loss.pos_weight": torch.ones(10)}, file)
        if prefix in ("module.", "_forward_module.module."):  # known without looking at the network
            torch.save({prefix + name: one for name, one in state.items()}, file)
        mask = pai.prune(file, "erk", density=0.5, model=model)
        assert set(mask) == {name for name, one in state.items() if one.ndim > 1}
        assert "stripped" in caplog.messages[-1]
        assert "pos_weight" in caplog.messages[-1] or prefix in ("module.", "_forward_module.module.")
        assert pai.analyze(mask, file, no_store=True).left_whole == {}
        caplog.clear()


def test_fsdp_stands_inside_names(tmp_path: Path) -> None:
    state = {name.replace("conv1", "_fsdp_wrapped_module.conv1"): one for name, one in resnet8().items()}
    torch.save({f"_fsdp_wrapped_module.{name}": one for name, one in state.items()}, tmp_path / "x.pt")
    assert open_checkpoint(tmp_path / "x.pt").shapes.keys() == resnet8().keys()


def test_several_networks_in_a_file_are_named(tmp_path: Path) -> None:
    state = resnet8()
    both = {f"{prefix}{name}": one for prefix in ("online_model.", "ema_model.") for name, one in state.items()}
    torch.save(both, tmp_path / "x.pt")
    for model in (None, "resnet8"):
        with pytest.raises(UnknownModelError, match=r"holds 2 networks, under 'online_model.' and 'ema_model.'"):
            pai.prune(tmp_path / "x.pt", "erk", density=0.5, model=model)


@pytest.mark.parametrize("model", [None, "resnet8"])
def test_counters_are_set_aside_and_named(model: str | None, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    counters = {"n_averaged": torch.tensor(5), "conv1.total_ops": torch.zeros(1), "initted": torch.tensor([True])}
    torch.save(resnet8() | counters, tmp_path / "x.pt")
    pai.prune(tmp_path / "x.pt", "erk", density=0.5, model=model)
    assert any(f"set aside: {', '.join(counters)}" in line for line in caplog.messages)


def test_what_else_is_beside_a_known_network_is_named(tmp_path: Path) -> None:
    torch.save(resnet8() | {"aux.weight": torch.ones(10, 64)}, tmp_path / "x.pt")
    with pytest.raises(UnknownModelError, match=r"has the tensors of resnet8, and 'aux.weight' beside them"):
        pai.prune(tmp_path / "x.pt", "erk", density=0.5)


def test_a_configuration_that_names_another_network_wins(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    chain = {"fc1.weight": torch.randn(6, 8), "fc2.weight": torch.randn(4, 6)}
    pai.prune(folder(tmp_path / "own", chain, hidden=6), "erk", density=0.5)
    assert "MLP 8-6-4" in caplog.text
    caplog.clear()
    pai.prune(folder(tmp_path / "bert", chain, model_type="bert"), "erk", density=0.5)
    assert "MLP" not in caplog.text


# Layouts


def test_layouts_are_what_names_and_shapes_tell() -> None:
    shapes = {
        "h.0.attn.c_attn.weight": (8, 24),
        "h.0.mlp.c_proj.weight": (32, 8),
        "conv.weight": (4, 2, 3, 3),
        "Conv_0/kernel": (3, 3, 2, 4),
        "Dense_0/kernel:0": (6, 2),
        "fc.weight": (3, 5),
    }
    found = layouts_by_name(shapes)
    assert [found[name].transposed for name in shapes] == [True, True, False, False, False, False]
    assert [found[name].kernel_first for name in shapes] == [False, False, False, True, True, False]
    assert [found[name].known for name in shapes] == [True, True, False, False, True, True]
    linear = {
        "c_attn.weight": (24, 8),
        "c_proj.weight": (8, 32),
        "c_fc.weight": (32, 8),
    }  # of those who write nn.Linear
    assert not any(layout.transposed for layout in layouts_by_name(linear).values())
    # A bias is as long as there are outputs.
    assert layouts_by_name({"c_proj.weight": (32, 8), "c_proj.bias": (8,)})["c_proj.weight"].transposed


@pytest.mark.parametrize("where", ["npz", "safetensors", "memory"])
def test_kernels_of_flax_and_keras(where: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    random = np.random.default_rng(0)
    masks = {"conv": random.random((6, 5, 3, 2)) < 0.5, "dense": random.random((7, 4)) < 0.5}
    kernels = {
        f"{name}/kernel": np.ascontiguousarray(one.transpose(*range(2, one.ndim), 1, 0)) for name, one in masks.items()
    }
    given: object = kernels
    if where == "npz":
        np.savez(tmp_path / "m.npz", **kernels)
        given = tmp_path / "m.npz"
    elif where == "safetensors":
        save_file({name: torch.from_numpy(one) for name, one in kernels.items()}, tmp_path / "m.safetensors")
        given = tmp_path / "m.safetensors"
    plain = pai.analyze({f"{name}.weight": one for name, one in masks.items()}, no_store=True)
    caplog.clear()
    report = pai.analyze(given, no_store=True)
    for name in masks:
        for metric in ("sigma_1", "dr_imdb"):
            ours, theirs = (
                one.layers[layer][metric] for one, layer in ((plain, f"{name}.weight"), (report, f"{name}/kernel"))
            )
            assert theirs.value == pytest.approx(ours.value, abs=1e-9)
    assert any("as Flax and Keras store it" in line for line in caplog.messages)
    if where != "memory":
        kept = pai.convert(given, tmp_path / "out.safetensors")
        again = pai.Mask.load(tmp_path / "out.safetensors")
        assert kept.layouts == again.layouts == {name: Layout(kernel_first=True) for name in kernels}
        assert not again.layouts["conv/kernel"].known


def test_what_nobody_told_of_a_layout_stays_unknown(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    np.savez(tmp_path / "m.npz", **{"conv.weight": np.random.default_rng(0).random((4, 2, 3, 3)) < 0.5})
    torch.save({"conv.weight": torch.randn(4, 2, 3, 3), "z.weight": torch.randn(3, 5)}, tmp_path / "net.pt")
    pai.convert(tmp_path / "m.npz", tmp_path / "a.safetensors")
    assert caplog.messages[-1].endswith(
        "and written as unknown; names_from=CKPT takes both from a network that is known"
    )
    pai.convert(tmp_path / "m.npz", tmp_path / "b.safetensors", names_from=tmp_path / "net.pt")
    assert any(line.endswith("net.pt is of no network that is known, which would tell") for line in caplog.messages)
    for name in ("a", "b"):
        assert unknown_layouts(open_mask(tmp_path / f"{name}.safetensors")) == ("conv.weight",)
        caplog.clear()
        report = pai.analyze(tmp_path / f"{name}.safetensors", no_store=True)
        line = next(
            line for line in caplog.messages if "does not tell groups and transposition of conv.weight: " in line
        )
        assert line.endswith("pai convert names_from=CKPT takes both from a network that is known")
        assert report.to_dict()["network"]["layout"] == "assumed in 1"
        assert report.to_dict()["layers"][0]["layout"] == "assumed plain"
    caplog.clear()
    pai.rank([tmp_path / f"{name}.safetensors" for name in ("a", "b")], no_store=True)
    assert sum("does not tell groups" in line and "(and of 1 more masks)" in line for line in caplog.messages) == 1
    known = nn.Sequential(OrderedDict(conv=nn.ConvTranspose2d(4, 2, 3, groups=1, bias=False)))
    told = pai.convert(tmp_path / "m.npz", tmp_path / "c.safetensors", names_from=known)
    assert told.layouts["conv.weight"] == Layout(transposed=True)
    report = pai.analyze(tmp_path / "c.safetensors", no_store=True)
    assert (report.to_dict()["network"]["layout"], report.to_dict()["layers"][0]["layout"]) == (None, "transposed")
    with pytest.raises(MaskError, match="kernel"):
        pai.mine([{"Conv_0/kernel": np.ones((3, 3, 2, 4), bool)}] * 2, level="weight")


# Files


def pruned_state(beside: bool) -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    state: dict[str, torch.Tensor] = {}
    for name, one in resnet8().items():
        values = name + ("" if beside or one.ndim < 2 else "_orig")
        state[values] = one
        if one.ndim > 1:
            state[f"{name}_mask"] = (torch.rand_like(one) < 0.5).float()
    return state


@pytest.mark.parametrize("beside", [False, True])
def test_what_pruning_tools_keep_is_a_checkpoint_and_a_mask(
    beside: bool, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    state = pruned_state(beside)
    torch.save(state, tmp_path / "x.pt")
    mask = pai.prune(tmp_path / "x.pt", "erk", density=0.5)
    assert mask == pai.prune(resnet8(), "erk", density=0.5)
    told = "Synaptic-Flow's 8 *_mask set aside" if beside else "8 *_mask set aside: the weights are its *_orig"
    assert told in caplog.text
    held = pai.Mask.load(tmp_path / "x.pt")
    assert all(np.array_equal(one, state[f"{name}_mask"].numpy() > 0) for name, one in held.items())
    caplog.clear()
    pai.analyze(held, tmp_path / "x.pt", no_store=True)
    assert told in caplog.text
    assert pai.Mask.of(state) == held


def test_a_module_that_prunes_itself(caplog: pytest.LogCaptureFixture) -> None:
    model = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))
    prune.l1_unstructured(model[0], "weight", amount=0.5)
    mask = pai.Mask.of(model)
    assert mask["0.weight_orig"].tolist() == (model[0].weight != 0).tolist()
    pai.prune(model, "erk", density=0.5)
    assert "1 *_mask set aside: the weights are its *_orig" in caplog.text


@pytest.mark.parametrize("suffix", [".pt", ".safetensors", ".npz", ".bin", ".ckpt", ".index.json"])
@pytest.mark.parametrize(
    ("content", "line"),
    [
        (
            b"version https://git-lfs.github.com/spec/v1\noid sha256:abc\nsize 1\n",
            "a Git LFS pointer, .* run git lfs pull",
        ),
        (b"\xef\xbb\xbf\n <!DOCTYPE html>", "a web page .HTML or XML., not the file itself; download it again"),
        (b"\x1f\x8b\x08\x00aaaaaaaa", "a compressed archive, to be unpacked first"),
        (b"\x89HDF\r\n\x1a\n", "an HDF5 file"),
    ],
)
def test_what_a_file_is_whatever_its_name(content: bytes, line: str, suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"x{suffix}"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=line):
        pai.prune(path, "erk", density=0.5)
    with pytest.raises(MaskError, match=line):
        pai.Mask.load(path)


@pytest.mark.parametrize("suffix", ["bin", "safetensors"])
def test_sharded_folders(suffix: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    stem = "pytorch_model" if suffix == "bin" else "model"
    state = resnet8()
    for one in state.values():
        if one.ndim > 1:
            one[one.abs() < 0.05] = 0
    where = {name: f"{stem}-0000{1 + i % 2}-of-00002.{suffix}" for i, name in enumerate(state)}
    path = tmp_path / "net"
    path.mkdir()
    for shard in set(where.values()):
        part = {name: one for name, one in state.items() if where[name] == shard}
        (torch.save if suffix == "bin" else save_file)(part, path / shard)
    (path / "config.json").write_text("{}")
    index = path / f"{stem}.{suffix}.index.json"
    index.write_text(json.dumps({"weight_map": where}))
    assert pai.prune(path, "erk", density=0.5) == pai.prune(state, "erk", density=0.5)
    with pytest.raises(UnknownModelError, match=rf"one of several shards: give .*{index.name}\)"):
        pai.prune(path / f"{stem}-00001-of-00002.{suffix}", "erk", density=0.5)
    # Pruned, it is a mask, by its folder or by its index.
    report = pai.analyze(path, no_store=True)
    assert report.kept == sum(int(one.count_nonzero()) for one in state.values() if one.ndim > 1)
    assert pai.convert(path) == pai.convert(index)
    index.unlink()
    with pytest.raises(CheckpointError, match=r"has shards .* and no index of them"):
        pai.prune(path, "erk", density=0.5)


def test_layouts_of_a_pruned_folder(tmp_path: Path) -> None:
    weight = torch.randn(8, 24) * (torch.rand(8, 24) < 0.5)
    path = folder(tmp_path / "gpt2", {"h.0.attn.c_attn.weight": weight}, model_type="gpt2")
    assert open_mask(path).layout("h.0.attn.c_attn.weight") == Layout(transposed=True)


def test_what_is_so_of_many_masks_is_said_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", logger="pai")
    rng = np.random.default_rng(0)
    for k in range(5):
        name = "conv.weight" if k < 4 else "other.weight"
        np.savez(tmp_path / f"{k}.npz", **{name: rng.random((4, 2, 3, 3)) < 0.5})
    list(pai.analyze([tmp_path / f"{k}.npz" for k in range(5)], no_store=True))
    said = [line for line in caplog.messages if "does not tell groups" in line]
    assert [line.split(": ")[0] for line in said] == [
        str(tmp_path / "0.npz"),
        str(tmp_path / "4.npz"),
        "the same of 3 more masks",
    ]
    assert said[0].split(": ", 1)[1] == said[2].split(": ", 1)[1]
