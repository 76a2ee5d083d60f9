"""Masks under a key of their own beside weights, and folders of pruned models."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import Pai, random_mask, run_pai, save_mask
from safetensors.torch import save_file
from torch.nn.utils import prune

import pai_cli as pai
from pai_cli.errors import MaskError, MaskMismatchError
from pai_cli.files.checkpoints import open_checkpoint
from pai_cli.files.matching import located
from pai_cli.files.opening import open_as, open_mask

WEIGHTS = {"conv.weight": torch.randn(4, 3, 3, 3), "fc.weight": torch.randn(5, 6)}
MASKS = {name: torch.rand(one.shape, generator=torch.Generator().manual_seed(1)) < 0.4 for name, one in WEIGHTS.items()}

HELD: dict[str, tuple[Any, str]] = {
    "mask_dict": ({"state_dict": WEIGHTS, "mask_dict": MASKS, "epoch": 3}, "mask_dict"),
    "mask": ({"state_dict": WEIGHTS, "mask": {k: m.float() for k, m in MASKS.items()}}, "mask"),
    "masks": ({"model": WEIGHTS, "masks": {k: m.int() for k, m in MASKS.items()}}, "masks"),
    "distiller": (
        {"state_dict": WEIGHTS, "compression_sched": {"masks_dict": MASKS | {"fc.bias": None}}},
        "compression_sched.masks_dict",
    ),
    "alone": ({"masks": MASKS}, "masks"),
    "wrapped": ({"masks": {f"module.{k}": m for k, m in MASKS.items()}, "net": WEIGHTS}, "masks"),
}


@pytest.mark.parametrize("case", HELD)
def test_masks_beside_weights_are_read_and_told(tmp_path: Path, case: str) -> None:
    held, under = HELD[case]
    torch.save(held, tmp_path / "m.pt")
    mask = open_mask(tmp_path / "m.pt")
    assert mask.remark == f"its masks are those under {under!r}"
    assert {name: mask.array(name).tolist() for name in mask.names} == {k: m.tolist() for k, m in MASKS.items()}
    if case != "alone":
        assert open_checkpoint(tmp_path / "m.pt").description.endswith(f"masks under {under!r} set aside")


def _layer(name: str) -> str:
    return name.removesuffix(".weight")


FLAT: dict[str, Callable[[str], str]] = {
    "in front": lambda name: f"mask.{name}",
    "in front, of all": lambda name: f"masks.{name}",
    "of a wrapped network": lambda name: f"mask.module.{name}",
    "in front, underscored": lambda name: f"mask_{name.replace('.', '_')}",
    "in a path": lambda name: f"masks/{name}",
    "at the end": lambda name: f"{name}.mask",
    "of a layer": lambda name: f"{_layer(name)}.mask",
    "of a layer's weight": lambda name: f"{_layer(name)}.mask_weight",
    "of pruning": lambda name: f"{name}_pruning_mask",
    "several": lambda name: f"{name}_masks",
}


@pytest.mark.parametrize("form", FLAT)
@pytest.mark.parametrize("save", [torch.save, save_file])
def test_masks_beside_weights_by_any_name(save: Any, form: str, tmp_path: Path) -> None:
    # A head of the network that is called so is none: its values are weights.
    others = {
        "conv.bias": torch.zeros(4),
        "mask_head.fc.weight": torch.randn(5, 6),
        "head.fc.weight": torch.randn(5, 6),
    }
    state = WEIGHTS | others | {FLAT[form](name): one.float() for name, one in MASKS.items()}
    save(state, tmp_path / "m.pt")
    mask = open_mask(tmp_path / "m.pt")
    assert "is taken for the mask of" in mask.remark
    assert {name: mask.array(name).tolist() for name in mask.names} == {k: m.tolist() for k, m in MASKS.items()}
    checkpoint = open_checkpoint(tmp_path / "m.pt")
    assert set(checkpoint.shapes) == {*WEIGHTS, *others}
    assert "2 masks (" in checkpoint.description
    assert np.array_equal(checkpoint.pruned("fc.weight"), ~MASKS["fc.weight"].numpy())


def test_masks_of_a_parametrisation(tmp_path: Path) -> None:
    state = {f"{_layer(name)}.parametrizations.weight.original": one for name, one in WEIGHTS.items()}
    masks = {f"{_layer(name)}.parametrizations.weight.0.mask": one for name, one in MASKS.items()}
    torch.save(state | masks, tmp_path / "m.pt")
    mask = open_mask(tmp_path / "m.pt")
    assert set(mask.names) == set(state)


@pytest.mark.parametrize(
    ("masks", "line"),
    [
        (
            {f"masks.{at}": one for at, one in enumerate(MASKS.values())},
            "masks whose names do not tell of which: 'masks.0', 'masks.1'; save each as the weight's name and _mask",
        ),
        (
            {"conv.mask": torch.rand(4, 3, 3, 3)},
            "masks that hold other values than 0 and 1: 'conv.mask'; make it boolean first",
        ),
    ],
    ids=["numbered", "soft"],
)
def test_masks_that_cannot_be_told_apart_are_told(masks: dict[str, torch.Tensor], line: str, tmp_path: Path) -> None:
    torch.save(WEIGHTS | masks, tmp_path / "m.pt")
    for read in (open_mask, lambda path: open_as(path, None)):
        with pytest.raises(MaskError) as caught:
            read(tmp_path / "m.pt")
        assert line in str(caught.value)


@pytest.mark.parametrize("form", ["{}_mask", "{}_masks", "mask.{}", "masks.{}", "{}.mask"])
def test_what_all_names_have_is_left_off(form: str, tmp_path: Path) -> None:
    torch.save({form.format(name): one for name, one in MASKS.items()}, tmp_path / "m.pt")
    assert set(open_mask(tmp_path / "m.pt").names) == set(MASKS)


@pytest.mark.parametrize("sharded", [False, True])
def test_the_folder_of_a_pruned_model_is_a_mask(pai: Pai, here: Path, sharded: bool) -> None:
    pruned = {f"layers.{i}.q_proj.weight": torch.randn(16, 16) * (torch.rand(16, 16) < 0.5) for i in range(2)}
    folder = here / "out"
    folder.mkdir()
    (folder / "config.json").write_text('{"model_type": "llama"}')
    if sharded:
        for name, one in pruned.items():
            save_file({name: one}, folder / f"{name}.safetensors")
        index = {"weight_map": {name: f"{name}.safetensors" for name in pruned}}
        (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    else:
        save_file(pruned, folder / "model.safetensors")
    assert pai("analyze", "out", "--no-store").status == 0
    assert pai("convert", "out", "-o", "m.safetensors").status == 0
    mask = open_mask(here / "m.safetensors")
    for name, one in pruned.items():
        assert np.array_equal(mask.array(name), (one != 0).numpy())


def test_a_model_under_torch_prune_and_its_file_take_each_others_masks(tmp_path: Path) -> None:
    """In memory its parameter is `x_orig`, and in its file's masks `x`."""
    network, file = (
        torch.nn.Sequential(torch.nn.Linear(8, 16), torch.nn.ReLU(), torch.nn.Linear(16, 4)),
        tmp_path / "n.pt",
    )
    prune.random_unstructured(network[0], "weight", 0.5)
    torch.save(network.state_dict(), file)
    ours, theirs = (pai.prune(one, method="magnitude", density=0.3) for one in (network, file))
    assert (set(ours), set(theirs)) == ({"0.weight_orig", "2.weight"}, {"0.weight", "2.weight"})
    own, *crossed = (
        pai.analyze(mask, weights=weights, no_store=True).to_dict()["network"]["l2"]
        for mask, weights in ((ours, network), (ours, file), (theirs, network))
    )
    assert crossed == pytest.approx([own, own])
    theirs.apply(network)
    assert torch.equal(network[0].weight_orig != 0, torch.tensor(theirs["0.weight"]))


NETWORK = torch.nn.Sequential(torch.nn.Linear(8, 16), torch.nn.ReLU(), torch.nn.Linear(16, 4))
OF_MODULES = {"0": "{}", "net.0": "net.{}", "module.0.weight": "module.{}.weight", "0.weight_orig": "{}.weight_orig"}


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize("form", OF_MODULES.values(), ids=list(OF_MODULES))
def test_masks_named_by_modules_behind_wrappers_and_as_torch_prune_does(form: str) -> None:
    """As many a program keeps them: they are of the checkpoint's and the network's weights, and `convert` names them so."""
    kept = {"0": random_mask((16, 8), 0.5, 1), "2": random_mask((4, 16), 0.5, 2)}
    torch.save({form.format(name): torch.from_numpy(one) for name, one in kept.items()}, "m.pt")
    save_file(NETWORK.state_dict(), "net.safetensors")
    save_mask(Path("ours.safetensors"), {f"{name}.weight": one for name, one in kept.items()})
    found, wanted = (
        pai.analyze(one, weights="net.safetensors", no_store=True).to_dict()["network"]
        for one in ("m.pt", "ours.safetensors")
    )
    assert found["l2"] == wanted["l2"]
    network = copy.deepcopy(NETWORK)
    handle = pai.Mask.load("m.pt").apply(network)
    for name, one in kept.items():
        assert np.array_equal((network[int(name)].weight != 0).numpy(), one)
    handle.set({name: np.zeros_like(one) for name, one in pai.Mask.load("m.pt").items()})
    assert not any(network[int(name)].weight.any() for name in kept)
    done = run_pai("convert", "m.pt", "--names-from", "net.safetensors", "-o", "named.safetensors")
    renamed = f"pai: m.pt: names are those of net.safetensors: 0.weight (here {form.format(0)}), 2.weight "
    assert any(line.startswith(renamed) for line in done.said) or form.startswith("module")  # which reading takes off
    for name, one in kept.items():
        assert np.array_equal(open_mask(Path("named.safetensors")).array(f"{name}.weight"), one)


def test_a_module_s_name_is_not_its_weight_s_where_a_parameter_has_it() -> None:
    there = {"a", "a.weight", "b.weight", "b.weight_orig"}
    assert located(["a"], there) == {"a": ("a",)}
    assert located(["b"], there) == {"b": ("b.weight",)}
    assert located(["b", "c"], there) == {"b": ("b.weight",), "c": ()}


def test_a_name_that_could_be_of_several_tensors_is_of_none(tmp_path: Path) -> None:
    """Networks side by side in a file: which of them a mask is of, the first in the file does not say."""
    there = ["a.fc.weight", "b.fc.weight"]
    for name in ("fc", "fc.weight", "fc.weight_orig"):
        assert located([name], there) == {name: ()}
    tied = {"a.fc.weight": ("b.fc.weight",)}
    assert located(["fc"], there, tied) == {"fc": ("a.fc.weight",)}
    assert located(["fc", "out"], [*there, "b.out.weight"]) == {"fc": ("b.fc.weight",), "out": ("b.out.weight",)}
    save_file(
        {f"{one}.{name}": value + 0 for one in "ab" for name, value in NETWORK.state_dict().items()},
        tmp_path / "w.safetensors",
    )
    save_mask(
        tmp_path / "m.safetensors", {"0.weight": random_mask((16, 8), 0.5, 1), "2.weight": random_mask((4, 16), 0.5, 2)}
    )
    with pytest.raises(MaskMismatchError, match=r"\(it may be any of 'a.0.weight' and 'b.0.weight'\)"):
        pai.analyze(tmp_path / "m.safetensors", tmp_path / "w.safetensors", no_store=True)
    both = torch.nn.ModuleDict({one: copy.deepcopy(NETWORK) for one in "ab"})
    for model in (both, torch.nn.DataParallel(both)):
        with pytest.raises(MaskMismatchError, match=r"may be any of 'a.0.weight' and 'b.0.weight'"):
            pai.Mask.load(tmp_path / "m.safetensors").apply(model)
    behind = torch.nn.DataParallel(torch.nn.ModuleDict({"a": copy.deepcopy(NETWORK)}))
    pai.Mask.load(tmp_path / "m.safetensors").apply(behind)
    assert (behind.module["a"][0].weight == 0).any()


@pytest.mark.usefixtures("here")
def test_two_masks_do_not_become_one() -> None:
    assert located(["a", "a.weight"], {"a.weight"}) == {"a": (), "a.weight": ("a.weight",)}
    assert located(["a", "a.weight_orig"], {"a.weight"}) == {"a": ("a.weight",), "a.weight_orig": ()}
    assert not any(located(["m.a", "m.a.weight"], {"a.weight"}).values())
    assert not any(located(["a", "a.weight"], {"m.a.weight"}).values())
    assert located(["a", "b"], {"b.weight"}, {"a": ("b.weight", "b")}) == {"a": ("b.weight",), "b": ("b.weight",)}
    save_file(NETWORK.state_dict(), "net.safetensors")
    masks = {name: torch.from_numpy(random_mask((16, 8), 0.5, at)) for at, name in enumerate(["0", "0.weight"])}
    torch.save(masks, "m.pt")
    told = r"m.pt: masks '0', which .* \(it has '0.weight', which has a mask of its own\)"
    with pytest.raises(MaskMismatchError, match=told):
        pai.analyze("m.pt", "net.safetensors", no_store=True)
    with pytest.raises(MaskMismatchError, match=told):
        pai.convert("m.pt", "out.safetensors", names_from="net.safetensors")
    assert not Path("out.safetensors").exists()


def test_another_name_of_a_tensor_comes_before_a_module_s() -> None:
    assert located(["a"], ["a.weight", "b.weight"], {"a": ("b.weight",)}) == {"a": ("b.weight",)}


def test_what_is_not_there_is_looked_for_in_vain_only_once_a_prefix() -> None:
    """Not every name behind every prefix: thousands of experts have names like those of other layers."""

    class Counting(list[str]):
        asked = 0

        def __contains__(self, name: object) -> bool:
            self.asked += 1
            return name in every

    every = {f"{block}.{at}.weight" for block in range(300) for at in range(2)}
    there = Counting(sorted(every))
    assert not any(located(map(str, range(300)), there).values())
    assert there.asked < 10 * len(every)


@pytest.mark.usefixtures("here")
def test_what_a_mask_tells_of_tensors_has_their_new_names_too() -> None:
    kept = {"net.fc.weight": random_mask((6, 8), 0.5, 1)}
    told = {
        "aliases": '{"net.fc.weight":["net.head.weight"]}',
        "left_whole": '{"net.embed.weight":"a table","gone":"x"}',
    }
    pai.Mask(kept, metadata=told).save("m.safetensors")
    shapes = {"fc.weight": (6, 8), "head.weight": (6, 8), "embed.weight": (9, 8)}
    save_file({name: torch.randn(shape) for name, shape in shapes.items()}, "w.safetensors")
    named = pai.convert("m.safetensors", "named.safetensors", names_from="w.safetensors")
    assert list(named) == ["fc.weight"]
    found = open_mask(Path("named.safetensors")).metadata
    assert json.loads(found["aliases"]) == {"fc.weight": ["head.weight"]}
    assert json.loads(found["left_whole"]) == {"embed.weight": "a table", "gone": "x"}


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize("wrapped", ["", "model."])
def test_what_follows_the_network_takes_masks_named_by_modules(wrapped: str) -> None:
    network = pai.init("resnet8", output="own.safetensors")
    save_file({wrapped + name: one for name, one in network.state_dict().items()}, "w.safetensors")
    mask = pai.prune("own.safetensors", "random", density=0.02, output="m.safetensors")
    torch.save(
        {f"net.{name.removesuffix('.weight')}": torch.from_numpy(one.copy()) for name, one in mask.items()}, "m.pt"
    )
    for how in ({}, {"weights": "w.safetensors"}):
        own, theirs = (
            [one.edge_names for one in pai.mine(path, min_edges=3, **how)] for path in ("m.safetensors", "m.pt")
        )
        assert own
        assert [[f"net.{name.replace('.weight[', '[')}" for name in one] for one in own] == list(map(list, theirs))
    own, theirs = (pai.analyze(path, "w.safetensors", between=True).to_dict() for path in ("m.safetensors", "m.pt"))
    assert [one | {"mask": "m.pt"} for one in own["pairs"]] == theirs["pairs"]


@pytest.mark.usefixtures("here")
def test_zeros_behind_a_wrapper_are_those_of_the_checkpoint() -> None:
    state = NETWORK.state_dict()
    save_file(state, "net.safetensors")
    kept = {name: random_mask(tuple(state[name].shape), 0.5, 1) for name in ("0.weight", "2.weight")}
    pruned = {name: one * torch.from_numpy(kept[name]) if name in kept else one for name, one in state.items()}
    torch.save({f"net.{name}": one for name, one in pruned.items()}, "m.pt")
    found = pai.convert("m.pt", "named.safetensors", names_from="net.safetensors")
    assert list(found) == list(kept)
    assert all(np.array_equal(found[name], kept[name]) for name in kept)
    torch.save({f"net.{name}": one for name, one in pruned.items() if name != "2.weight"}, "m.pt")
    with pytest.raises(MaskMismatchError, match=r"lacks '0.weight', '2.weight' of net.safetensors"):
        pai.convert("m.pt", "named.safetensors", kind="dense", names_from="net.safetensors", force=True)
