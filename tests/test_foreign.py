"""Masks of other tools: every kind is read to the bit, nothing is guessed, nothing in a file is run."""

from __future__ import annotations

import io
import json
import os
import pickle
import random
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import SAMPLES, Done, Pai, random_mask, save_mask
from safetensors.numpy import save_file as save_numpy
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn.utils import prune

from pai_cli.errors import AmbiguousMaskError, CheckpointError, MaskError, PaiError, UnknownMaskKindError
from pai_cli.files import budget
from pai_cli.files.checkpoints import open_checkpoint
from pai_cli.files.conversion import read_any
from pai_cli.files.foreign import registry
from pai_cli.files.foreign.base import Kind, Names
from pai_cli.files.masks import MaskFile, unknown_layouts
from pai_cli.files.opening import open_as, open_mask
from pai_cli.files.paths import mask_paths
from pai_cli.files.pickles import load_pickle
from pai_cli.models.prunable import prunable_names
from pai_cli.spectral.layout import Layout
from pai_cli.spelling import for_shell

Masks = dict[str, np.ndarray]

MASKS: Masks = {
    "stem.conv.weight": random_mask((4, 3, 3, 3), 0.4, 1),
    "body.10.weight": random_mask((6, 4), 0.5, 2),
    "body.2.weight": np.zeros((6, 6), np.bool_),  # a collapsed layer
    "head.weight": np.ones((5, 6), np.bool_),  # one that nothing was pruned of
}
"""Names in an order that is neither the alphabet's nor the numbers'."""

WEIGHTS = {
    name: torch.randn(mask.shape, generator=torch.Generator().manual_seed(0)) + 3.0 for name, mask in MASKS.items()
}
BIASES = {name.replace("weight", "bias"): torch.zeros(mask.shape[0]) for name, mask in MASKS.items()}
TENSORS = {name: torch.from_numpy(mask) for name, mask in MASKS.items()}
ONES = {name: torch.ones_like(bias) for name, bias in BIASES.items()}
PRUNED = {name: weight * TENSORS[name] for name, weight in WEIGHTS.items()} | BIASES
TORCH_PRUNE = {name + "_orig": weight for name, weight in WEIGHTS.items()} | BIASES
TORCH_PRUNE |= {name + "_mask": mask.float() for name, mask in TENSORS.items()}
SYNFLOW = WEIGHTS | BIASES | {name + "_mask": mask.float() for name, mask in (TENSORS | ONES).items()}
MODULES = {
    name.removesuffix(".weight"): {"weight": mask.float(), "bias": ONES[name.replace("weight", "bias")]}
    for name, mask in TENSORS.items()
}
NAMES = Names(Path("net.pt"), {n: m.shape for n, m in MASKS.items()}, tuple(MASKS), {})


def torch_saved(held: Any, **options: Any) -> Callable[[Path], None]:
    return lambda path: torch.save(held, path, **options)


def numpy_saved(*arrays: np.ndarray, **named: np.ndarray) -> Callable[[Path], None]:
    def save(path: Path) -> None:
        with path.open("wb") as stream:
            np.savez(stream, *arrays, **named)

    return save


def prefixed(prefix: str, tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {prefix + name: tensor for name, tensor in tensors.items()}


NPZ_ORDER = list(MASKS.values())[::-1]

FILES: dict[str, tuple[str, Callable[[Path], None]]] = {
    "torch-prune.pt": ("torch-prune", torch_saved(OrderedDict(TORCH_PRUNE))),
    "torch-prune-legacy.pt": ("torch-prune", torch_saved(TORCH_PRUNE, _use_new_zipfile_serialization=False)),
    "torch-prune-wrapped.pt": (
        "torch-prune",
        torch_saved({"state_dict": prefixed("module.", TORCH_PRUNE), "epoch": 3}),
    ),
    "torch-prune.safetensors": ("torch-prune", lambda path: save_file(TORCH_PRUNE, path)),
    "synflow.pt": ("synflow", torch_saved(SYNFLOW)),
    "synflow.safetensors": ("synflow", lambda path: save_file(SYNFLOW, path)),
    "dict-bool.pt": ("dict", torch_saved(TENSORS)),
    "openlth.pth": ("dict", torch_saved({name: mask.int() for name, mask in TENSORS.items()})),
    "dict-bfloat16.pt": ("dict", torch_saved({name: mask.bfloat16() for name, mask in TENSORS.items()})),
    "dict-of-arrays.pt": ("dict", torch_saved({name: np.asfortranarray(mask) for name, mask in MASKS.items()})),
    "dict-big-endian.pt": ("dict", torch_saved({name: mask.astype(">f8") for name, mask in MASKS.items()})),
    "buffers.pt": ("dict", torch_saved({name + "_mask": mask.float() for name, mask in TENSORS.items()})),
    "with-biases.pt": ("dict", torch_saved(TENSORS | ONES)),
    "npz.npz": ("npz", numpy_saved(**MASKS)),
    "npz-float.npz": ("npz", numpy_saved(**{name: mask.astype(np.float32) for name, mask in MASKS.items()})),
    "npz-fortran.npz": ("npz", numpy_saved(**{name: np.asfortranarray(mask) for name, mask in MASKS.items()})),
    "nni.pth": ("nni", torch_saved(MODULES)),
    "nni-no-bias.pth": ("nni", torch_saved({m: {"weight": t["weight"], "bias": None} for m, t in MODULES.items()})),
    "nni-3.pth": ("nni", torch_saved({m: {**t, "_output_0": torch.ones(1, 2)} for m, t in MODULES.items()})),
    "list.pt": ("list", torch_saved(list(TENSORS.values()))),
    "tuple-of-arrays.pt": ("list", torch_saved(tuple(MASKS.values()))),
    "list.npz": ("list", numpy_saved(*MASKS.values())),
    "dense.pt": ("dense", torch_saved(PRUNED)),
    "dense.safetensors": ("dense", lambda path: save_file(PRUNED, path)),
}
NAMELESS = ("list", "dense")  # a list has no names, and zeros do not tell of layers that were left whole


def made(folder: Path, name: str) -> Path:
    path = folder / name
    FILES[name][1](path)
    return path


def assert_same(found: Any, wanted: Masks = MASKS) -> None:
    assert set(found) == set(wanted)
    for name, mask in wanted.items():
        assert found[name].dtype == np.bool_
        assert np.array_equal(found[name], mask), name


@pytest.mark.parametrize("name", FILES)
def test_every_kind_is_read_to_the_bit(tmp_path: Path, name: str) -> None:
    kind = FILES[name][0]
    path = made(tmp_path, name)
    names = NAMES if kind in NAMELESS else None
    for wanted in (None, kind):
        mask = read_any(path, wanted, names, trust=False)
        assert mask.kind == kind
        assert_same(mask.masks)
        if not name.endswith(".safetensors"):
            assert list(mask.masks) == list(MASKS)


@pytest.mark.parametrize("name", [name for name, (kind, _) in FILES.items() if kind != "list"])
def test_any_kind_stands_in_the_place_of_a_mask(tmp_path: Path, name: str) -> None:
    mask = open_mask(made(tmp_path, name))
    wanted = {n: m for n, m in MASKS.items() if FILES[name][0] != "dense" or not m.all()}
    assert_same({n: mask.array(n) for n in mask.names}, wanted)
    assert dict(mask.shapes) == {n: wanted[n].shape for n in mask.names}
    assert unknown_layouts(mask)
    assert mask.layout("stem.conv.weight") == Layout()
    assert bool(mask.remark) == (FILES[name][0] == "dense")


def test_names_from_gives_order_and_layouts(tmp_path: Path) -> None:
    layout = Layout(groups=2)
    order = tuple(reversed(MASKS))
    names = Names(Path("net.pt"), NAMES.shapes, order, dict.fromkeys(order, layout))
    for name in ("npz.npz", "torch-prune.safetensors", "dense.pt"):
        mask = read_any(made(tmp_path, name), None, names, trust=False)
        assert tuple(mask.masks) == order
        assert set(mask.layouts.values()) == {layout}


def test_more_than_ten_arrays_are_in_numbered_order(tmp_path: Path) -> None:
    masks = [random_mask((3, 3), 0.5, seed) for seed in range(12)]
    named = {f"l{i}.weight": mask for i, mask in enumerate(masks)}
    numpy_saved(**{f"arr_{i}": masks[i] for i in reversed(range(12))})(tmp_path / "m.npz")
    names = Names(Path("c"), dict.fromkeys(named, (3, 3)), tuple(named), {})
    assert_same(read_any(tmp_path / "m.npz", None, names, trust=False).masks, named)


def test_a_bias_that_is_pruned_is_kept(tmp_path: Path) -> None:
    torch.save(
        {"a.weight": torch.ones(2, 2), "a.bias": torch.tensor([1, 0]), "b.bias": torch.ones(2)}, tmp_path / "m.pt"
    )
    assert open_mask(tmp_path / "m.pt").names == ("a.weight", "a.bias")


# --- there and back


def conversion(pai: Pai, *words: object) -> Done:
    done = pai("convert", *words)
    assert done.status == 0, done.err
    return done


BACK: dict[str, tuple[list[str], list[str]]] = {
    "there.npz": (["--to", "npz"], []),
    "there.pt": (["--to", "torch-prune", "--weights", "small.safetensors"], []),
    "there.safetensors": (["--to", "torch-prune", "--weights", "small.safetensors"], []),
    "dense.safetensors": (["--to", "dense", "--weights", "small.safetensors"], []),
    "dense.pt": (["--to", "dense", "--weights", "small.safetensors"], ["--names-from", "small.safetensors"]),
}


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("there", BACK)
def test_there_and_back(pai: Pai, here: Path, there: str, packed: bool) -> None:
    shapes = {"fc1.weight": (16, 24), "fc2.weight": (12, 16), "fc3.weight": (10, 12)}
    masks = {
        name: random_mask(shape, density, 5)
        for (name, shape), density in zip(shapes.items(), (0.3, 0.0, 1.0), strict=True)
    }
    save_mask(here / "m", masks)
    out, back = BACK[there]
    conversion(pai, "m", "-o", there, *out)
    conversion(pai, there, "-o", "again.safetensors", *back, *(["--packed"] if packed else []))
    again = MaskFile(here / "again.safetensors")
    assert again.names == tuple(masks)
    assert_same({name: again.array(name) for name in again.names}, masks)


@pytest.mark.parametrize("target", ["torch-prune", "dense"])
def test_layouts_come_back_from_safetensors(pai: Pai, here: Path, target: str) -> None:
    save_numpy({"z.weight": np.ones((4, 2, 3, 3), np.float32), "a.weight": np.ones((3, 4), np.float32)}, here / "c")
    layouts = {"z.weight": Layout(groups=2, transposed=True)}
    save_mask(here / "m", {"z.weight": random_mask((4, 2, 3, 3)), "a.weight": random_mask((3, 4))}, layouts)
    conversion(pai, "m", "--to", target, "--weights", "c", "-o", "x.safetensors")
    mask = open_mask(here / "x.safetensors")
    assert mask.names == ("z.weight", "a.weight")
    assert mask.layout("z.weight") == layouts["z.weight"]
    assert not unknown_layouts(mask)


def test_a_sample_goes_through_every_target(pai: Pai, tmp_path: Path, resnet: Path) -> None:
    sample = SAMPLES / "erk-0.05.safetensors"
    wanted = {name: MaskFile(sample).array(name) for name in MaskFile(sample).names}
    for there, (flags, _) in BACK.items():
        words = [word.replace("small.safetensors", str(resnet)) for word in flags]
        conversion(pai, sample, "-o", tmp_path / there, *words)
        names = prunable_names(open_checkpoint(resnet))
        mask = read_any(tmp_path / there, None, names, trust=False)
        assert list(mask.masks) == list(wanted)
        assert_same(mask.masks, wanted)


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16])
def test_what_is_written_loads_into_torch(pai: Pai, tmp_path: Path, suffix: str, dtype: torch.dtype) -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(16, 5)).to(dtype)
    save_file(network.state_dict(), tmp_path / "c.safetensors")
    masks = {"0.weight": random_mask((4, 3, 3, 3), 0.5), "3.weight": random_mask((5, 16), 0.2)}
    save_mask(tmp_path / "m", masks)
    for target in ("torch-prune", "dense"):
        words = ["--to", target, "--weights", tmp_path / "c.safetensors", "-o", tmp_path / f"{target}{suffix}"]
        conversion(pai, tmp_path / "m", *words)

    def load(target: str) -> dict[str, torch.Tensor]:
        path = tmp_path / f"{target}{suffix}"
        return torch.load(path, weights_only=True) if suffix == ".pt" else load_file(path)

    dense = load("dense")
    assert {name: tensor.dtype for name, tensor in dense.items()} == {
        name: tensor.dtype for name, tensor in network.state_dict().items()
    }
    for name, tensor in network.state_dict().items():
        kept = torch.from_numpy(masks[name]) if name in masks else torch.tensor(True)
        assert torch.equal(dense[name], tensor * kept)
    for index in (0, 3):
        prune.identity(network[index], "weight")
    network.load_state_dict(load("torch-prune"))
    network.eval()
    image = torch.ones(1, 3, 4, 4, dtype=dtype)
    pruned = network(image)
    for index in (0, 3):
        prune.remove(network[index], "weight")
    network.load_state_dict(dense)
    assert torch.equal(pruned, network(image))


def test_weights_that_are_kept_and_zero_are_told(pai: Pai, here: Path) -> None:
    arrays = load_file("small.safetensors")
    arrays["fc1.weight"][0, :3] = 0
    save_file(arrays, "zeros.safetensors")
    masks = {name: np.ones(tuple(tensor.shape), np.bool_) for name, tensor in arrays.items() if tensor.ndim > 1}
    save_mask(here / "m", masks)
    done = conversion(pai, "m", "--to", "dense", "--weights", "zeros.safetensors")
    assert done.said == [
        "pai: warning: zeros.safetensors: 3 kept weights are 0 (fc1.weight): they read as pruned ones",
        "pai: wrote m-dense.safetensors: 696 of 696 weights kept, density 1",
    ]


def test_npz_is_what_numpy_reads(pai: Pai, here: Path) -> None:
    masks = {"file": random_mask((3, 4)), "a/b.weight": random_mask((7,))}  # `file` is a parameter of numpy.savez
    save_mask(here / "m", masks)
    conversion(pai, "m", "--to", "npz", "-o", "x.npz")
    first = (here / "x.npz").read_bytes()
    conversion(pai, "m", "--to", "npz", "-o", "x.npz", "--force")
    assert (here / "x.npz").read_bytes() == first
    with np.load("x.npz", allow_pickle=False) as found:
        assert_same({name: found[name] for name in found.files}, masks)


# --- metadata, tables, outputs


def test_metadata_says_where_it_came_from(pai: Pai, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "0")
    path = made(tmp_path, "synflow.pt")
    conversion(pai, path, "-o", tmp_path / "m")
    metadata = MaskFile(tmp_path / "m").metadata
    assert metadata.keys() == {
        *("converted_from", "source_sha256", "pai_version", "command", "created"),
        *("format", "format_version", "layers"),
    }
    assert metadata["converted_from"] == "synflow"
    assert metadata["source_sha256"] == open_checkpoint(path).sha256
    assert metadata["created"] == "1970-01-01T00:00:00Z"


def test_our_own_mask_keeps_its_story(pai: Pai, tmp_path: Path) -> None:
    sample = SAMPLES / "synflow-0.05.safetensors"
    before = MaskFile(sample).metadata
    conversion(pai, sample, "-o", tmp_path / "m")
    after = MaskFile(tmp_path / "m").metadata
    assert set(before) - set(after) == {"shapes"}
    for key in ("method", "density", "seed", "scope", "rounds", "source_sha256", "layers"):
        assert after[key] == before[key]
    assert after["command"] == f"pai convert {sample} -o {tmp_path / 'm'}"


def test_the_table_is_that_of_prune(pai: Pai, here: Path) -> None:
    pruned = pai(
        "prune", "small.safetensors", "--method", "erk", "--density", 0.3, "-o", "m", "--format", "json"
    ).json()
    assert {row.pop("density_default") for row in pruned} == {False}
    assert conversion(pai, "m", "-o", "n", "--format", "json").json() == pruned
    words = ["prune", "small.safetensors", "--method", "erk", "--density", 0.3, "-o", "m", "--force"]
    assert conversion(pai, "m", "-o", "n", "--force").out == pai(*words).out


def test_default_names(pai: Pai, here: Path) -> None:
    save_mask(here / "a-0.05.safetensors", {"fc1.weight": random_mask((16, 24))})
    weights = ["--weights", "small.safetensors"]
    for flags, name in (
        ([], "a-0.05-mask.safetensors"),
        (["--to", "npz"], "a-0.05.npz"),
        (["--to", "torch-prune", *weights], "a-0.05-torch-prune.pt"),
        (["--to", "dense", *weights], "a-0.05-dense.safetensors"),
    ):
        assert f"pai: wrote {name}: " in conversion(pai, "a-0.05.safetensors", *flags).err
        assert (here / name).exists()


def test_a_network_unpickled_with_trust(pai: Pai, tmp_path: Path) -> None:
    network = nn.Sequential(nn.Linear(4, 3))
    prune.random_unstructured(network[0], "weight", 0.5)
    path = tmp_path / "whole.pt"
    torch.save(network, path)
    done = pai("convert", path, "-o", tmp_path / "m")
    assert done.status == 1
    assert "give --trust" in done.said[-1]
    conversion(pai, path, "-o", tmp_path / "m", "--trust")
    assert np.array_equal(MaskFile(tmp_path / "m").array("0.weight"), network[0].weight_mask.numpy() > 0)
    assert pai("analyze", path, "--format", "json", "--trust").status == 0


# --- other commands


@pytest.mark.parametrize(
    "name", ["torch-prune.pt", "synflow.safetensors", "openlth.pth", "npz.npz", "nni.pth", "dense.pt"]
)
def test_analyze_and_rank_read_what_convert_reads(pai: Pai, tmp_path: Path, name: str) -> None:
    path, converted = made(tmp_path, name), tmp_path / "converted.safetensors"
    conversion(pai, path, "-o", converted)

    def table(command: str, file: Path) -> Any:
        done = pai(command, file, "--format", "json")
        assert done.status == 0, done.err
        return [{key: value for key, value in row.items() if key != "mask"} for row in done.json()]

    for command in ("analyze", "rank"):
        assert sorted(map(str, table(command, path))) == sorted(map(str, table(command, converted)))


@pytest.mark.parametrize("command", ["analyze", "rank", "convert"])
def test_a_pruned_network_without_masks_is_told(pai: Pai, tmp_path: Path, command: str) -> None:
    path = made(tmp_path, "dense.pt")
    flags = ["-o", tmp_path / "m"] if command == "convert" else []
    zeros = sum(int((PRUNED[name] == 0).sum()) for name in ("stem.conv.weight", "body.10.weight"))
    share = zeros / sum(mask.size for mask in MASKS.values())
    line = f"pai: {path}: has weights, not masks: taken as pruned where they are 0 ({share:.3g} of all weights)"
    assert line in pai(command, path, *flags).said


def test_a_folder_lists_what_is_beyond_doubt(tmp_path: Path) -> None:
    for name in ("torch-prune.pt", "npz.npz", "nni.pth", "dense.pt", "list.pt", "dense.safetensors"):
        made(tmp_path, name)
    save_mask(tmp_path / "ours.safetensors", MASKS)
    torch.save(nn.Linear(3, 4).state_dict(), tmp_path / "checkpoint.pt")
    torch.save({"state": {}, "param_groups": [{"lr": 0.1}]}, tmp_path / "optimizer.pt")
    torch.save({"model": {"weight": torch.ones(3, 3)}}, tmp_path / "two.pt")
    torch.save({"a": Evil("x")}, tmp_path / "evil.pt")
    (tmp_path / "notes.txt").write_text("not a mask")
    (tmp_path / "damaged.npz").write_bytes((tmp_path / "npz.npz").read_bytes()[:-9])
    notes: list[str] = []
    found = mask_paths([str(tmp_path)], io.StringIO(), notes.append)
    assert [path.name for path in found] == ["damaged.npz", "nni.pth", "npz.npz", "ours.safetensors", "torch-prune.pt"]
    assert [for_shell(note).removeprefix(f"{tmp_path}/") for note in notes] == [
        "checkpoint.pt: holds weights, not a mask; left out",
        "dense.pt: holds weights, not a mask; left out",
        "dense.safetensors: holds weights, not a mask; left out",
        "evil.pt: a pickle that needs --trust; left out",
        "list.pt: holds arrays without names; left out",
        "optimizer.pt: no mask of a known kind; left out",
        "two.pt: could be nni or dict; left out",
        f"{tmp_path}: notes.txt: not *.safetensors, *.npz, *.pt, *.pth in this folder; left out",
    ]


# --- what is refused


def refusal(path: Path, *arguments: Any, error: type[PaiError] = MaskError) -> str:
    with pytest.raises(error) as told:
        read_any(path, *(arguments or (None, None)), trust=False)
    assert "\n" not in str(told.value)
    return str(told.value).replace(f"{path}: ", "", 1)


@pytest.mark.parametrize("save", [torch.save, save_file], ids=["pt", "safetensors"])
def test_a_checkpoint_passed_by_mistake(pai: Pai, tmp_path: Path, save: Callable[..., None]) -> None:
    path = tmp_path / "checkpoint.safetensors"
    save({"w": torch.full((3, 4), 0.5)}, path)
    line = (
        f"pai: error: {path}: tensor 'w' holds 0.5 at index 0, and a mask holds only 0 and 1; a checkpoint goes to "
        "--weights, or to pai prune"
    )
    for command in ("analyze", "rank"):
        done = pai(command, path)
        assert (done.status, done.said) == (1, [line])
    done = pai("convert", path, "-o", tmp_path / "m")
    assert (done.status, done.out, done.said) == (
        1,
        "",
        [
            f"pai: error: {path}: has weights, none of them 0, and no masks; a checkpoint goes to --weights, or to pai prune"
        ],
    )
    assert not (tmp_path / "m").exists()


def test_what_may_be_two_things(pai: Pai, tmp_path: Path) -> None:
    path = tmp_path / "m.pt"
    torch.save({"model": {"weight": torch.eye(3)}}, path)
    line = f"{path}: could be nni or dict; --from nni (or another) of pai convert says which"
    for done in (pai("analyze", path), pai("convert", path, "-o", tmp_path / "m")):
        assert (done.status, done.said) == (1, [f"pai: error: {line}"])
    for kind, name in (("nni", "model.weight"), ("dict", "weight")):
        assert list(read_any(path, kind, None, trust=False).masks) == [name]
    mixed = {"a_orig": torch.rand(2, 2), "a_mask": torch.eye(2), "b": torch.rand(2, 2), "b_mask": torch.eye(2)}
    torch.save(mixed, path)
    with pytest.raises(AmbiguousMaskError, match="could be torch-prune or synflow"):
        open_mask(path)
    assert list(read_any(path, "torch-prune", None, trust=False).masks) == ["a"]
    assert list(read_any(path, "synflow", None, trust=False).masks) == ["b"]


WRONG_KIND = {
    "torch-prune": "has no *_mask beside a *_orig, as torch.nn.utils.prune leaves them",
    "synflow": "has no *_mask beside a parameter of that name, as Synaptic-Flow's layers have",
    "nni": "has no dict of masks a module, as NNI saves them",
    "npz": "is no .npz archive",
    "list": "is no list of arrays",
    "dense": "no weight of it is 0, so nothing was pruned",
    "pai": "is no safetensors file; kind= takes its kind, or leave kind= out",
}


@pytest.mark.parametrize("kind", WRONG_KIND)
def test_a_file_of_another_kind(tmp_path: Path, kind: str) -> None:
    torch.save({"w": torch.ones(3, 3)}, tmp_path / "m.pt")
    assert refusal(tmp_path / "m.pt", kind, None) == WRONG_KIND[kind]


def test_npz_is_no_dict(tmp_path: Path) -> None:
    assert refusal(made(tmp_path, "npz.npz"), "dict", None) == "is no file of torch.save"
    assert refusal(made(tmp_path, "nni.pth"), "dict", None) == "has no names with arrays at its top"


def test_an_unknown_kind(pai: Pai, here: Path) -> None:
    save_mask(here / "m", MASKS)
    names = "pai, torch-prune, synflow, flat, dense, nni, dict, npz, list"
    done = pai("convert", "m", "--from", "torchprune", "-o", "n")
    said = f"pai: error: unknown kind of mask 'torchprune': did you mean torch-prune? --from takes {names}"
    assert (done.status, done.said) == (2, [said])
    with pytest.raises(UnknownMaskKindError, match="unknown kind of mask 'zzz': kind= takes pai, "):
        open_as(here / "m", "zzz")


def test_a_kind_can_be_added(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "KINDS", dict(registry.KINDS))
    kind = Kind("mine", "a kind of my own", lambda content: False, lambda content, names: {})
    registry.register(kind)
    registry.check_name("mine")
    for name in ("mine", "pai"):
        with pytest.raises(ValueError, match="is registered already"):
            registry.register(Kind(name, "", kind.recognises, kind.masks))


NOT_A_MASK: dict[str, tuple[object, str, str]] = {
    "another value": (
        {"w": torch.tensor([[1, 2]])},
        "dict",
        "tensor 'w' holds 2 at index 1, and a mask holds only 0 and 1; make it boolean first",
    ),
    "scores": (
        {"w": torch.ones(1, 2), "w_mask": torch.tensor([[0.5, 1]])},
        "synflow",
        "tensor 'w_mask' holds 0.5 at index 0, and a mask holds only 0 and 1; make it boolean first",
    ),
    "another shape": (
        {"w_orig": torch.ones(2, 3), "w_mask": torch.ones(3, 2)},
        "torch-prune",
        "'w_mask' has shape (3, 2), and its weight (2, 3); save the network again",
    ),
    "biases alone": (
        {"bias": torch.ones(3)},
        "dict",
        "prunes no weight, as dict: it has masks of biases and norms alone",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", NOT_A_MASK)
def test_what_is_no_mask(tmp_path: Path, case: str) -> None:
    held, kind, said = NOT_A_MASK[case]
    torch.save(held, tmp_path / "m.pt")
    assert refusal(tmp_path / "m.pt", kind, None) == said


def test_integers_of_no_kind(tmp_path: Path) -> None:
    torch.save({"w": torch.full((2, 2), 7)}, tmp_path / "m.pt")
    kinds = "torch-prune, synflow, flat, dense, nni, dict, npz, list"
    assert (
        refusal(tmp_path / "m.pt") == f"not a mask of a known kind ({kinds}); kind=KIND of pai convert says which it is"
    )


def test_dense_weights_with_nan(tmp_path: Path) -> None:
    torch.save({"w": torch.tensor([[0.0, 1.0], [np.nan, 2.0]])}, tmp_path / "m.pt")
    said = "tensor 'w' holds nan at index 2; take a checkpoint from before the weights diverged"
    assert refusal(tmp_path / "m.pt", "dense", None, error=PaiError) == said


NAMES_REMEDY = "names_from= takes the checkpoint that the mask was made for"


def test_names_that_do_not_fit(tmp_path: Path) -> None:
    listed, named, dense = (made(tmp_path, name) for name in ("list.pt", "npz.npz", "dense.pt"))
    shapes = dict(NAMES.shapes)
    fewer = Names(Path("c"), shapes, NAMES.prunable[:3], {})
    assert refusal(listed, None, fewer) == f"4 arrays, and c has 3 prunable weights; {NAMES_REMEDY}"
    other = Names(Path("c"), shapes | {"body.10.weight": (4, 6)}, NAMES.prunable, {})
    said = f"does not fit c: 'body.10.weight' is 6x4 here and 4x6 there; {NAMES_REMEDY}"
    assert refusal(listed, None, other) == said
    said = f"does not fit c: 'body.10.weight' is 6x4 here and 4x6 there; {NAMES_REMEDY}"
    assert refusal(named, None, other) == said
    assert refusal(dense, None, other) == said
    missing = Names(Path("c"), {}, (), {})
    assert refusal(named, None, missing) == (
        f"masks 'stem.conv.weight', 'body.10.weight', 'body.2.weight' and 1 more, which c does not have; {NAMES_REMEDY}"
    )
    more = Names(Path("c"), shapes | {"x": (1, 1)}, (*NAMES.prunable, "x"), {})
    assert refusal(dense, None, more) == "lacks 'x' of c; names_from= takes the checkpoint that was pruned"
    unordered = Names(Path("c"), shapes, NAMES.prunable, {}, ordered=False)
    assert refusal(listed, None, unordered).replace("c: ", "") == (
        "not a known architecture, and its tensors are not in the network's order; "
        "names_from= takes the state dict that torch.save wrote"
    )


def test_a_list_needs_names(pai: Pai, tmp_path: Path) -> None:
    path = made(tmp_path, "list.npz")
    line = (
        f"{path}: 4 arrays without names; "
        "--names-from CKPT of pai convert gives them those of a checkpoint's weights, in order"
    )
    for done in (pai("analyze", path), pai("convert", path, "-o", tmp_path / "m")):
        assert (done.status, done.said) == (1, [f"pai: error: {line}"])


@pytest.mark.parametrize("held", [list, tuple])
def test_a_list_with_names_from_a_checkpoint(pai: Pai, here: Path, held: Callable[[Any], Any]) -> None:
    shapes = {"fc1.weight": (16, 24), "fc2.weight": (12, 16), "fc3.weight": (10, 12)}
    masks = {name: random_mask(shape, 0.3, 7) for name, shape in shapes.items()}
    torch.save(held(torch.from_numpy(mask) for mask in masks.values()), here / "l.pt")
    conversion(pai, "l.pt", "--names-from", "small.safetensors", "-o", "m")
    mask = MaskFile(here / "m")
    assert mask.names == tuple(masks)
    assert_same({name: mask.array(name) for name in masks}, masks)


def test_our_own_mask_is_checked_against_names(pai: Pai, here: Path) -> None:
    save_mask(here / "m", {"fc1.weight": random_mask((3, 4))})
    done = pai("convert", "m", "--names-from", "small.safetensors", "-o", "n")
    said = (
        "m: does not fit small.safetensors: 'fc1.weight' is 3x4 here and 16x24 there; "
        "--names-from takes the checkpoint that the mask was made for"
    )
    assert (done.status, done.said) == (1, [f"pai: error: {said}"])
    save_mask(
        here / "m", {name: random_mask(shape) for name, shape in (("fc3.weight", (10, 12)), ("fc1.weight", (16, 24)))}
    )
    conversion(pai, "m", "--names-from", "small.safetensors", "-o", "n")
    assert MaskFile(here / "n").names == ("fc1.weight", "fc3.weight")


def test_a_sharded_pruned_network(tmp_path: Path) -> None:
    save_file(PRUNED, tmp_path / "one.safetensors")
    index = {"weight_map": dict.fromkeys(PRUNED, "one.safetensors")}
    path = tmp_path / "model.safetensors.index.json"
    path.write_text(json.dumps(index))
    mask = read_any(path, None, NAMES, trust=False)
    assert mask.kind == "dense"
    assert_same(mask.masks)
    assert mask.metadata["source_sha256"] == open_checkpoint(tmp_path / "one.safetensors").sha256


def test_names_of_a_checkpoint(tmp_path: Path, resnet: Path) -> None:
    names = prunable_names(open_checkpoint(resnet))
    assert names.prunable == MaskFile(SAMPLES / "erk-0.05.safetensors").names
    assert names.ordered
    state = {
        "z.weight": torch.ones(2, 3),
        "a.weight": torch.ones(2, 2),
        "a.bias": torch.ones(2),
        "n.weight": torch.ones(2),
    }
    torch.save(state, tmp_path / "c.pt")
    unknown = prunable_names(open_checkpoint(tmp_path / "c.pt"))
    assert (unknown.prunable, unknown.ordered) == (("z.weight", "a.weight"), True)
    save_file(state, tmp_path / "c.safetensors")
    assert not prunable_names(open_checkpoint(tmp_path / "c.safetensors")).ordered


USAGE = {
    "no weights": (["--to", "dense"], "--to dense writes a network: give --weights CKPT"),
    "weights": (["--weights", "c"], "--weights: --to pai writes no weights; leave it out, or give --to dense"),
    "packed": (["--to", "npz", "--packed"], "--packed: --to npz has no packed form; leave it out"),
    "target": (["--to", "onnx"], "--to onnx: give one of pai, torch-prune, npz, dense"),
}


@pytest.mark.parametrize("case", USAGE)
def test_wrong_usage(pai: Pai, here: Path, case: str) -> None:
    words, said = USAGE[case]
    done = pai("convert", "x", *words)
    assert (done.status, done.out) == (2, "")
    assert said in done.words


@pytest.mark.parametrize(
    ("output", "flags", "said"),
    [
        ("x.npz", [], "x.npz: --to pai writes .safetensors; give -o such a name, or another --to"),
        ("x.pt", ["--to", "npz"], "x.pt: --to npz writes .npz; give -o such a name, or another --to"),
        (
            "x.npz",
            ["--to", "dense", "--weights", "small.safetensors"],
            "x.npz: --to dense writes .safetensors or .pt; give -o such a name, or another --to",
        ),
        ("there", [], "there: exists already; --force replaces it"),
        ("no/m", [], "no/m: the folder no does not exist; make it first (mkdir -p no)"),
    ],
)
def test_outputs_that_cannot_be(pai: Pai, here: Path, output: str, flags: list[str], said: str) -> None:
    (here / "there").write_bytes(b"precious")
    save_mask(here / "m", MASKS)
    before = {path: path.read_bytes() for path in here.iterdir()}
    done = pai("convert", "m", "-o", output, *flags)
    assert (done.status, done.out, done.said) == (2 if " writes " in said else 1, "", [f"pai: error: {said}"])
    assert {path: path.read_bytes() for path in here.iterdir()} == before


def test_a_mask_of_another_network(pai: Pai, here: Path) -> None:
    save_mask(here / "m", MASKS)
    done = pai("convert", "m", "--to", "dense", "--weights", "small.safetensors")
    assert done.said == [
        "pai: error: m: masks 'stem.conv.weight', 'body.10.weight', 'body.2.weight' and 1 more, which small.safetensors "
        "does not have; --weights takes the checkpoint that the mask was made for"
    ]


# --- damaged and hostile files


class Evil:
    """Unpickling this creates a folder."""

    def __init__(self, path: str):
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return (os.mkdir, (self.path,))


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("command", ["analyze", "rank", "convert"])
def test_nothing_in_a_pickle_is_run(pai: Pai, here: Path, command: str, legacy: bool) -> None:
    torch.save({"w": torch.ones(2, 2), "x": Evil("ran")}, here / "m.pt", _use_new_zipfile_serialization=not legacy)
    done = pai(command, "m.pt")
    assert (done.status, done.out, len(done.said)) == (1, "", 1)
    assert done.said[0].startswith("pai: error: m.pt: cannot be read without running code (posix.mkdir")
    assert not (here / "ran").exists()


def test_nothing_in_an_archive_of_numpy_is_run(pai: Pai, here: Path) -> None:
    np.savez("m.npz", w=np.array([Evil("ran")], dtype=object))
    done = pai("convert", "m.npz")
    said = "pai: error: m.npz: array 'w' holds object, not numbers; save the masks as boolean arrays"
    assert (done.status, done.said) == (1, [said])
    np.save("m.npy", np.array([Evil("ran")], dtype=object))
    with pytest.raises(MaskError, match=r"m\.npy: truncated, damaged, or no array of numbers"):
        open_mask(here / "m.npy")
    with (here / "plain.pkl").open("wb") as stream:
        pickle.dump({"w": Evil("ran")}, stream)
    with pytest.raises(CheckpointError, match=r"a Python pickle that torch\.save did not write"):
        open_mask(here / "plain.pkl")
    assert not (here / "ran").exists()


def test_an_array_in_a_pickle_is_rebuilt_by_nobody_but_us(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.save({"w": np.eye(3)}, "m.pt")

    def called(*args: object) -> None:
        raise AssertionError("NumPy's own unpickling ran")

    monkeypatch.setattr("numpy._core.multiarray._reconstruct", called)
    assert_same({"w": open_mask(here / "m.pt").array("w")}, {"w": np.eye(3, dtype=np.bool_)})


def test_numpy_in_a_checkpoint_needs_trust_as_before(here: Path) -> None:
    torch.save({"w": np.eye(3)}, "m.pt")
    with pytest.raises(PaiError, match="cannot be read without running code"):
        load_pickle(here / "m.pt", trust=False)


@pytest.mark.parametrize(
    ("state", "said"),
    [
        ((1, (2, 2), np.dtype("u1"), False, b"\1\1\1"), "whose bytes do not fit its shape (2, 2)"),
        ((1, (-2, -2), np.dtype("u1"), False, b"\1\1\1\1"), "whose shape makes no sense"),
        ((1, "ab", np.dtype("u1"), False, b"\1\1"), "whose shape makes no sense"),
        ((1, (2,), np.dtype("S1"), False, b"\1\1"), "a NumPy array of type 'S1'"),
        ((1, (2,)), "a NumPy array that makes no sense"),
        ((1, (2,), 7, False, b"\1\1"), "a NumPy array that makes no sense"),
        (None, "a NumPy array that makes no sense"),
    ],
)
def test_arrays_in_pickles_that_make_no_sense(here: Path, state: Any, said: str) -> None:
    class Array:
        def __reduce__(self) -> tuple[object, ...]:
            return (np.empty(0).__reduce__()[0], (np.ndarray, (0,), 1), state)

    torch.save({"w": Array()}, "m.pt")
    with pytest.raises(CheckpointError) as told:
        open_mask(here / "m.pt")
    assert said in str(told.value)
    assert "\n" not in str(told.value)


def test_a_dict_that_holds_itself(here: Path) -> None:
    held: dict[str, object] = {"w": torch.eye(2)}
    held["again"] = held
    torch.save(held, "m.pt")
    with pytest.raises(PaiError):
        open_mask(here / "m.pt")


def npz_of(members: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", compression) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return stream.getvalue()


def npy(array: np.ndarray) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array)
    return stream.getvalue()


ARRAY = npy(random_mask((4, 6)))
AGAIN = "copy it again, or save it with numpy.savez"

ARCHIVES = {
    "not whole": (npz_of({"w.npy": ARRAY[:-3]}), f"array 'w' is not as long as its shape (4, 6) says; {AGAIN}"),
    "too long": (npz_of({"w.npy": ARRAY + b"\0"}), f"array 'w' is not as long as its shape (4, 6) says; {AGAIN}"),
    "no array": (npz_of({"w.npy": b"text"}), f"array 'w' is damaged; {AGAIN}"),
    "without an end": (npz_of({"w.npy": ARRAY})[:-5], "truncated or damaged (a zip file without its end); copy it again"),
    "huge shape": (
        npz_of({"w.npy": ARRAY.replace(b"(4, 6)", b"(99999999, 99999999999)")}),
        f"array 'w' is not as long as its shape (99999999, 99999999999) says; {AGAIN}",
    ),
    "words": (npz_of({"w.npy": npy(np.array(["a"]))}), "array 'w' holds <U1, not numbers; save the masks as boolean arrays"),
}  # fmt: skip


@pytest.mark.parametrize("case", ARCHIVES)
@pytest.mark.parametrize("command", ["analyze", "convert"])
def test_damaged_archives(pai: Pai, here: Path, case: str, command: str) -> None:
    (here / "m.npz").write_bytes(ARCHIVES[case][0])
    done = pai(command, "m.npz")
    assert (done.status, done.said) == (1, [f"pai: error: m.npz: {ARCHIVES[case][1]}"])


def test_other_zips(here: Path) -> None:
    (here / "m.npz").write_bytes(npz_of({"readme.txt": b"hello"}))
    with pytest.raises(CheckpointError, match=r"a zip file, but not one that torch\.save wrote"):
        open_mask(here / "m.npz")


def test_one_name_twice(here: Path) -> None:
    with zipfile.ZipFile("m.npz", "w") as archive:
        archive.writestr("w.npy", ARRAY)
        with pytest.warns(UserWarning, match="Duplicate name"):
            archive.writestr("w.npy", ARRAY)
    assert refusal(here / "m.npz") == f"holds two arrays named 'w'; {AGAIN}"


def test_a_small_archive_may_not_fill_the_memory(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(budget, "UNPACKED", 10**6)
    packed = npz_of({"w.npy": npy(np.zeros((1000, 2000), np.bool_))}, zipfile.ZIP_DEFLATED)
    (here / "m.npz").write_bytes(packed)
    with zipfile.ZipFile(here / "m.npz") as archive:
        size = archive.infolist()[0].compress_size
    assert refusal(here / "m.npz") == (
        f"array 'w' would unpack from {size:,} to 2,000,128 bytes, more than 1,000,000 + 64 times; save it as boolean, or "
        "uncompressed with numpy.savez"
    )


def test_a_changed_byte_is_found_by_its_checksum(here: Path) -> None:
    data = bytearray(npz_of({"w.npy": ARRAY}))
    data[data.index(ARRAY) + len(ARRAY) - 1] ^= 1
    (here / "m.npz").write_bytes(data)
    assert refusal(here / "m.npz") == f"array 'w' is damaged; {AGAIN}"


@pytest.mark.parametrize(
    "name", ["npz.npz", "openlth.pth", "torch-prune-legacy.pt", "torch-prune.safetensors", "dict-of-arrays.pt"]
)
def test_truncated_and_damaged_files_are_one_line(tmp_path: Path, name: str) -> None:
    """Cut anywhere, or a byte changed anywhere: a mask, or an error that is told in one line; never anything else."""
    data = made(tmp_path, name).read_bytes()
    choose = random.Random(name)
    for turn in range(60):
        damaged = bytearray(data[: choose.randrange(len(data))] if turn % 2 else data)
        if turn % 2 == 0:
            damaged[choose.randrange(len(damaged))] = choose.randrange(256)
        path = tmp_path / "damaged"
        path.write_bytes(bytes(damaged))
        told = what_is_told(path)
        assert told is None or (told.startswith(str(path)) and "\n" not in told), turn


def what_is_told(path: Path) -> str | None:
    try:
        mask = open_mask(path)
        for one in mask.names:
            mask.array(one)
    except PaiError as error:
        return str(error)
    return None


def test_a_note_of_layers_that_makes_no_sense_is_no_note(tmp_path: Path) -> None:
    for note in ("nonsense", "[1]", '{"w": 1}', json.dumps({"other": {}})):
        save_file({"w": torch.tensor([[0.0, 1.5, 2.5]])}, tmp_path / "m", {"pai_layers": note})
        assert open_mask(tmp_path / "m").layout("w") == Layout()


def test_a_safetensors_header_that_looks_like_a_pickle(tmp_path: Path) -> None:
    """A header of 0x280 bytes begins as a pickle of protocol 2 does."""
    for length in range(300, 700):
        path = save_mask(tmp_path / "m", {"w": random_mask((3, 3))}, note="x" * length)
        if path.read_bytes()[:2] == b"\x80\x02":
            break
    assert path.read_bytes()[:2] == b"\x80\x02"
    assert open_mask(path).names == ("w",)
