"""Removing dead channels: the outputs stay, what goes is what an oracle by loops says, and nothing goes in silence."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import ROOT, Pai, save_mask
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn import functional as F  # noqa: N812

import pai_cli as pai
from pai_cli.compacting import cutting
from pai_cli.compacting.choosing import BORDER, CARRIES, JOINED, LAST, RESHAPED, TWICE
from pai_cli.compacting.following import RETURNED
from pai_cli.compacting.run import Compacted
from pai_cli.errors import (
    CompactError,
    MaskMismatchError,
    MethodOptionError,
    SuffixError,
    TraceError,
    UsageError,
)
from pai_cli.models.network import init_network
from pai_cli.models.residual import PaddedShortcut

SHAPE = (3, 6, 6)


class Forward(nn.Module):
    """Layers by name, and what to do with them."""

    def __init__(self, forward: Callable[[Any, torch.Tensor], Any], **layers: nn.Module):
        super().__init__()
        for name, layer in layers.items():
            self.add_module(name, layer)
        self._forward = forward

    def forward(self, x: torch.Tensor) -> Any:
        return self._forward(self, x)


def conv(inputs: int, outputs: int, kernel: int = 3, **options: Any) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, kernel, **{"padding": kernel // 2, "bias": False, **options})


def norm(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels)


def chain() -> nn.Module:
    return nn.Sequential(
        conv(3, 8), norm(8), nn.ReLU(), conv(8, 9), norm(9), nn.ReLU(inplace=True), nn.MaxPool2d(2),
        conv(9, 7, bias=True, stride=2), nn.PReLU(7), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(7, 6), nn.GELU(),
        nn.Linear(6, 4, bias=False),
    )  # fmt: skip


def flattened() -> nn.Module:
    return nn.Sequential(conv(3, 6), norm(6), nn.Sigmoid(), nn.Flatten(), nn.Linear(216, 5), nn.ReLU(), nn.Linear(5, 3))


def residual() -> nn.Module:
    def forward(self: Any, x: torch.Tensor) -> torch.Tensor:
        x = F.relu(self.b0(self.stem(x)))
        y = self.b2(self.two(F.relu(self.b1(self.one(x)))))
        return self.head(F.relu(x + y).mean((2, 3)))

    return Forward(
        forward, stem=conv(3, 8), b0=norm(8), one=conv(8, 7), b1=norm(7), two=conv(7, 8), b2=norm(8),
        head=nn.Linear(8, 4),
    )  # fmt: skip


def option_a() -> nn.Module:
    def forward(self: Any, x: torch.Tensor) -> torch.Tensor:
        x = F.relu(self.b0(self.stem(x)))
        return self.head(F.relu(self.short(x) + self.b1(self.one(x))).mean((2, 3)))

    return Forward(
        forward, stem=conv(3, 6), b0=norm(6), one=conv(6, 11, stride=2), b1=norm(11), short=PaddedShortcut(6, 11, 2),
        head=nn.Linear(11, 4),
    )  # fmt: skip


def concatenated() -> nn.Module:
    def forward(self: Any, x: torch.Tensor) -> torch.Tensor:
        a = F.relu(self.ba(self.a(x)))
        b = F.relu(self.b(x))
        x = torch.cat([a, b], 1)
        return self.head(torch.cat([F.relu(self.bc(self.c(x))), x], 1).amax((2, 3)))

    return Forward(
        forward, a=conv(3, 5), ba=norm(5), b=conv(3, 4, bias=True), c=conv(9, 6), bc=norm(6), head=nn.Linear(15, 4)
    )


def depthwise() -> nn.Module:
    return nn.Sequential(
        conv(3, 8), norm(8), nn.ReLU(), conv(8, 16, groups=8), norm(16), nn.ReLU6(), conv(16, 9, 1), norm(9), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(9, 4),
    )  # fmt: skip


def grouped() -> nn.Module:
    return nn.Sequential(
        conv(3, 8, bias=True), nn.ReLU(), conv(8, 12, groups=4, bias=True), nn.ReLU(), conv(12, 6, 1, bias=True),
        nn.ReLU(), nn.ConvTranspose2d(6, 4, 2, stride=2, groups=2), nn.ReLU(), nn.ConvTranspose2d(4, 5, 3),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(5, 4),
    )  # fmt: skip


def attention() -> nn.Module:
    """Of channels, and of positions: one map for all channels."""

    def forward(self: Any, x: torch.Tensor) -> torch.Tensor:
        x = F.relu(self.stem(x))
        x = x * torch.sigmoid(self.up(F.relu(self.down(x.mean((2, 3), keepdim=True)))))
        x = x * torch.sigmoid(self.map(x))
        return self.head(torch.flatten(F.pad(x, (1, 0, 0, 1)), 1))

    return Forward(
        forward, stem=conv(3, 8, bias=True), down=conv(8, 4, 1, bias=True), up=conv(4, 8, 1, bias=True),
        map=conv(8, 1, bias=True), head=nn.Linear(8 * 49, 4),
    )  # fmt: skip


def shared() -> nn.Module:
    """One layer used twice, and one weight in two layers."""

    def forward(self: Any, x: torch.Tensor) -> torch.Tensor:
        x = F.relu(self.stem(x))
        x = F.relu(self.again(F.relu(self.again(x))))
        return self.head(F.relu(self.two(F.relu(self.one(x)))).mean((2, 3)))

    model = Forward(
        forward, stem=conv(3, 6), again=conv(6, 6), one=conv(6, 6, 1), two=conv(6, 6, 1), head=nn.Linear(6, 4)
    )
    model.two.weight = model.one.weight
    return model


def mixing() -> nn.Module:
    """Norms over channels, a slice, a sum over channels, a constant beside them: what needs all of them."""

    def forward(self: Any, x: torch.Tensor) -> torch.Tensor:
        x = self.over(F.relu(self.a(x)))
        x = F.relu(self.b(torch.cat([x, torch.ones(len(x), 1, 6, 6, dtype=x.dtype)], 1)))
        x = F.relu(self.c(x[:, 1:]))
        x = self.d(x) * self.d(x).mean(1, keepdim=True)
        return self.head(x.mean((2, 3)))

    return Forward(
        forward, a=conv(3, 8), over=nn.GroupNorm(2, 8), b=conv(9, 7), c=conv(6, 7), d=conv(7, 5), head=nn.Linear(5, 4)
    )


def padded() -> nn.Module:
    """Every padding that is not of zeros: along positions, so channels may go, and a constant stays one at the border."""
    first, second, third = (
        conv(6, 6, bias=True, padding_mode=mode, padding=(2, 1)) for mode in ("circular", "reflect", "replicate")
    )
    return nn.Sequential(
        conv(3, 6, bias=True, padding_mode="circular"), nn.SiLU(), first, norm(6), nn.SiLU(), second, nn.SiLU(), third,
        nn.SiLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 4),
    )  # fmt: skip


NETWORKS = {
    one.__name__: one
    for one in (
        chain, flattened, residual, option_a, concatenated, depthwise, grouped, attention, shared, mixing, padded,
    )
}  # fmt: skip


def drawn(model: nn.Module, seed: int) -> nn.Module:
    """The network with all parameters and statistics drawn, in float64 and evaluation mode; some scales are 0."""
    generator = torch.Generator().manual_seed(seed)
    model = model.double().eval()
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            if tensor.is_floating_point():
                tensor.normal_(generator=generator)
            if name.endswith("running_var"):
                tensor.abs_().add_(0.1)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.weight.data[0] = 0
    return model


def masks_of(model: nn.Module, seed: int, dead: float = 0.35) -> dict[str, np.ndarray]:
    """Masks in which rows and columns are dead, each with this probability, and single weights with another."""
    random = np.random.default_rng(seed)
    masks = {}
    for name, tensor in model.named_parameters():
        if tensor.dim() > 1:
            mask = random.random(tensor.shape) < 0.8
            mask[random.random(mask.shape[0]) < dead] = False
            mask[:, random.random(mask.shape[1]) < dead] = False
            masks[name] = mask
    last = [name for name in masks if "weight" in name][-1]
    masks[last][:, -1] = True  # something arrives
    return masks


def masked(model: nn.Module, masks: dict[str, np.ndarray]) -> nn.Module:
    """Another network with the weights multiplied by the masks."""
    import copy

    twin = copy.deepcopy(model)
    with torch.no_grad():
        for name, mask in masks.items():
            twin.get_parameter(name).mul_(torch.from_numpy(mask))
    return twin


def compacted(model: nn.Module, masks: dict[str, np.ndarray], **options: Any) -> Compacted:
    found: Compacted = pai.compact(masks, model, timing_batch=1, timing_runs=1, **{"input_shape": SHAPE, **options})
    return found


def compacted_or_constant(model: nn.Module, masks: dict[str, np.ndarray]) -> Compacted | None:
    """None where no output depends on the input."""
    try:
        return compacted(model, masks)
    except CompactError as error:
        if "the mask cuts every path" not in str(error):
            raise
        return None


def inputs(seed: int = 7, shape: tuple[int, ...] = SHAPE) -> torch.Tensor:
    return 3 * torch.randn((5, *shape), generator=torch.Generator().manual_seed(seed), dtype=torch.float64) + 1


def apart(one: nn.Module, other: nn.Module, x: torch.Tensor) -> float:
    """The largest difference by the largest output."""
    with torch.no_grad():
        a, b = one(x), other(x)
    assert a.shape == b.shape
    return float((a - b).abs().max() / a.abs().max())


def rows(found: Compacted) -> dict[str, tuple[int, int]]:
    return {one.name.removesuffix(".weight"): one.outputs for one in found.layers}


# --- laws


@pytest.mark.parametrize("name", NETWORKS)
def test_the_outputs_stay(name: str) -> None:
    removed = 0
    for seed in range(8):
        model = drawn(NETWORKS[name](), seed)
        masks = masks_of(model, seed)
        before = {key: value.clone() for key, value in model.state_dict().items()}
        found = compacted_or_constant(model, masks)
        if found is None:
            with torch.no_grad():
                out = masked(model, masks)(inputs())
            torch.testing.assert_close(out, out[:1].expand_as(out), rtol=1e-12, atol=0)
            continue
        assert apart(masked(model, masks), found.model, inputs()) < 1e-12
        assert found.exact.relative < 1e-12
        assert found.parameters[1] == sum(one.numel() for one in found.model.parameters())
        assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())
        removed += found.removed
    assert removed > 0


@pytest.mark.parametrize("seed", range(6))
def test_of_an_mlp_stay_the_units_on_a_path(seed: int) -> None:
    sizes = (6, 7, 8, 5, 3)
    layers = [nn.Linear(a, b) for a, b in pairwise(sizes)]
    model = nn.Sequential(*(part for one in layers for part in (one, nn.ReLU())))
    drawn(model, seed)
    masks = {f"{2 * i}.weight": np.random.default_rng(seed + i).random(one.weight.shape) < 0.25
             for i, one in enumerate(layers)}  # fmt: skip
    masks["6.weight"][0] = masks["0.weight"][0] = True
    forward = [np.ones(6, bool)]
    for mask in masks.values():
        forward.append((mask & forward[-1]).any(1))
    backward = [np.ones(3, bool)]
    for mask in reversed(masks.values()):
        backward.append((mask & backward[-1][:, None]).any(0))
    live = [a & b for a, b in zip(forward, reversed(backward), strict=True)]
    if not forward[-1].any():
        with pytest.raises(CompactError, match="no output depends on the input"):
            compacted(model, masks, input_shape=(6,))
        return
    found = compacted(model, masks, input_shape=(6,))
    assert [one.outputs[1] for one in found.layers] == [*(int(one.sum()) for one in live[1:-1]), 3]
    assert apart(masked(model, masks), found.model, inputs(shape=(6,))) < 1e-12


def test_what_is_counted() -> None:
    model = drawn(nn.Sequential(conv(3, 4), nn.ReLU(), conv(4, 5, stride=2), nn.Flatten(), nn.Linear(45, 2)), 0)
    masks = {name: np.ones(one.shape, bool) for name, one in model.named_parameters() if one.dim() > 1}
    masks["0.weight"][1:3] = False  # ReLU(0) is 0
    found = compacted(model, masks)
    assert rows(found) == {"0": (4, 2), "2": (5, 5), "4": (2, 2)}
    assert [one.inputs for one in found.layers] == [(3, 3), (4, 2), (45, 45)]
    assert [one.parameters for one in found.layers] == [(108, 54), (180, 90), (92, 92)]
    assert [one.macs for one in found.layers] == [(108 * 36, 54 * 36), (180 * 9, 90 * 9), (90, 90)]
    assert found.parameters == (380, 236)
    assert found.macs == (108 * 36 + 180 * 9 + 90, 54 * 36 + 90 * 9 + 90)
    assert (found.removed, found.dead_kept) == (2, {})
    assert found.attributes["0"] == {"out_channels": 2}
    assert (found.batch, found.runs, found.device, found.samples) == (1, 1, "cpu", 8)
    assert min(found.seconds) > 0


def test_the_smaller_network_can_be_trained() -> None:
    model = drawn(nn.Sequential(conv(3, 4), nn.ReLU(), conv(4, 5, 1), nn.Flatten(), nn.Linear(180, 2)), 0)
    model[2].requires_grad_(False)
    masks = whole(model)
    masks["0.weight"][1] = False
    small = compacted(model, masks).model
    assert [one.requires_grad for one in small.parameters()] == [True, False, True, True]
    small(inputs()).sum().backward()
    assert small[0].weight.grad.shape == (3, 3, 3, 3)


def test_weights_of_16_bits_are_written_in_32(here: Path, pai: Pai) -> None:
    model = init_network("mlp-24-16-12-10", None, 0).model
    half = {name: one.half() for name, one in model.state_dict().items()}
    save_file(half, here / "half.safetensors")
    masks = whole(model)
    masks[next(iter(masks))][1] = False
    save_mask(here / "m.safetensors", masks)
    done = pai("compact", "m.safetensors", "--weights", "half.safetensors", "--timing-runs", 1)
    first = next(iter(half))
    assert (
        f"pai: half.safetensors: 6 tensors of 16 bits, {first!r} the first of them, are written in 32 bits" in done.said
    )
    assert {one.dtype for one in load_file(here / "half-compact.safetensors").values()} == {torch.float32}


# --- constants


def biased(*constants: float) -> tuple[nn.Module, dict[str, np.ndarray]]:
    """A padded convolution that reads one live channel and these constants."""
    model = drawn(nn.Sequential(conv(3, 1 + len(constants), bias=True), conv(1 + len(constants), 2), nn.Flatten()), 0)
    model[0].bias.data[1:] = torch.tensor(constants)
    masks = {name: np.ones(one.shape, bool) for name, one in model.named_parameters() if one.dim() > 1}
    masks["0.weight"][1:] = False
    return model, masks


@pytest.mark.parametrize(
    ("constants", "kept", "why"),
    [((0.0, 0.0), 1, {}), ((2.0, 0.0), 2, {CARRIES: 1}), ((2.0, -3.0, 0.5), 2, {CARRIES: 1})],
)
def test_one_constant_carries_the_others_past_the_padding(
    constants: tuple[float, ...], kept: int, why: dict[str, int]
) -> None:
    model, masks = biased(*constants)
    found = compacted(model, masks)
    assert rows(found)["0"] == (1 + len(constants), kept)
    assert found.dead_kept == why
    assert apart(masked(model, masks), found.model, inputs()) < 1e-13
    assert len(found.model[0].bias) == kept
    assert found.model[1].bias is None


def test_a_bias_takes_what_no_padding_cuts() -> None:
    model, masks = biased(2.0, -3.0)
    masks["1.weight"][:, 1:] = False
    masks["1.weight"][:, 1:, 1, 1] = True  # only the middle of the kernel, which always meets the image
    found = compacted(model, masks)
    assert rows(found)["0"] == (3, 1)
    weight = model[1].weight.detach()[:, 1:, 1, 1]
    torch.testing.assert_close(found.model[1].bias, weight @ torch.tensor([2.0, -3.0], dtype=torch.float64))
    assert apart(masked(model, masks), found.model, inputs()) < 1e-13


@pytest.mark.parametrize("mode", ["circular", "reflect", "replicate"])
def test_no_padding_of_its_own_values_cuts_a_constant(mode: str) -> None:
    model = nn.Sequential(
        conv(3, 4, bias=True), nn.SiLU(), conv(4, 4, bias=True, padding_mode=mode), nn.Flatten(), nn.Linear(144, 2)
    )
    masks = whole(drawn(model, 0))
    masks["0.weight"][[1, 2]] = False  # their biases are constants
    found = compacted(model, masks)
    assert (rows(found)["0"], found.dead_kept) == ((4, 2), {})
    assert apart(masked(model, masks), found.model, inputs()) < 1e-12


def test_a_constant_that_is_no_one_number_stays() -> None:
    """Behind a padded convolution it is another number at the border."""
    model = drawn(nn.Sequential(conv(3, 2, bias=True), conv(2, 3), conv(3, 2), nn.Flatten()), 0)
    masks = {name: np.ones(one.shape, bool) for name, one in model.named_parameters() if one.dim() > 1}
    masks["0.weight"][1] = masks["1.weight"][1:, :1] = False
    found = compacted(model, masks)
    assert rows(found) == {"0": (2, 2), "1": (3, 3), "2": (2, 2)}
    assert {one.name: one.dead_kept for one in found.layers} == {
        "0.weight": {CARRIES: 1},
        "1.weight": {BORDER: 2},
        "2.weight": {},
    }
    assert apart(masked(model, masks), found.model, inputs()) < 1e-13


def test_no_bias_for_a_constant() -> None:
    """The layer is a function of a parameter: nobody can give it a bias, but one constant carries the others."""
    model = Forward(lambda self, x: F.linear(self.a(x), self.b.w), a=nn.Linear(3, 4), b=nn.Module())
    model.b.w = nn.Parameter(torch.zeros(2, 4))
    drawn(model, 0)
    masks = {"a.weight": np.zeros((4, 3), bool), "b.w": np.ones((2, 4), bool)}
    masks["a.weight"][0] = True
    found = compacted(model, masks, input_shape=(3,))
    assert (rows(found)["a"], found.dead_kept) == ((4, 2), {CARRIES: 1})
    assert apart(masked(model, masks), found.model, inputs(shape=(3,))) < 1e-13


def test_a_layer_used_twice_has_one_bias_for_two_constants() -> None:
    model = Forward(lambda self, x: self.b(F.relu(self.b(self.a(x)))), a=nn.Linear(3, 3), b=nn.Linear(3, 3))
    drawn(model, 1)
    masks = {"a.weight": np.ones((3, 3), bool), "b.weight": np.ones((3, 3), bool)}
    masks["a.weight"][1] = masks["b.weight"][1] = False
    model.b.bias.data[1] = model.a.bias.data[1] = 2.0
    found = compacted(model, masks, input_shape=(3,))
    assert found.dead_kept == {TWICE: 1, RETURNED: 1}
    assert apart(masked(model, masks), found.model, inputs(shape=(3,))) < 1e-13


def test_a_norm_that_multiplies_by_nothing_makes_a_constant() -> None:
    model = drawn(nn.Sequential(conv(3, 4), norm(4), nn.ReLU(), conv(4, 2, 1), nn.Flatten()), 3)
    with torch.no_grad():
        model[1].weight.copy_(torch.tensor([0.0, 1.0, 0.0, -1.0]))
    masks = {name: np.ones(one.shape, bool) for name, one in model.named_parameters() if one.dim() > 1}
    found = compacted(model, masks)
    assert rows(found) == {"0": (4, 2), "3": (2, 2)}
    assert found.model[1].weight.tolist() == [1.0, -1.0]
    assert apart(model, found.model, inputs()) < 1e-13


# --- what goes together


def whole(model: nn.Module) -> dict[str, np.ndarray]:
    return {name: np.ones(one.shape, bool) for name, one in model.named_parameters() if one.dim() > 1}


def test_a_shortcut_keeps_what_another_layer_writes() -> None:
    model = drawn(residual(), 0)
    for module in (model.b0, model.b1, model.b2):
        module.bias.data.fill_(-0.1)
        module.weight.data.fill_(1.0)
    for module in (model.b0, model.b2):
        module.running_mean.data.zero_()
    masks = whole(model)
    masks["stem.weight"][:3] = masks["two.weight"][2:5] = False
    found = compacted(model, masks)
    # Channel 2 alone is written by neither, and its constant is below 0; of each layer two more are joined.
    assert rows(found)["stem"] == rows(found)["two"] == (8, 7)
    assert found.dead_kept == {JOINED: 4}
    assert len(found.model.b0.bias) == len(found.model.b2.running_var) == 7


def test_a_group_goes_whole_or_stays() -> None:
    model = drawn(nn.Sequential(conv(4, 8, 1), conv(8, 8, groups=4), nn.Flatten(), nn.Linear(288, 2)), 0)
    masks = whole(model)
    masks["0.weight"][:2] = False  # all that the first group reads
    masks["0.weight"][2] = False  # and half of the second
    found = compacted(model, masks, input_shape=(4, 6, 6))
    assert rows(found) == {"0": (8, 6), "1": (8, 6), "3": (2, 2)}
    assert found.dead_kept == {JOINED: 1}
    assert (found.model[1].groups, found.attributes["1"]) == (3, {"in_channels": 6, "out_channels": 6, "groups": 3})
    assert apart(masked(model, masks), found.model, inputs(shape=(4, 6, 6))) < 1e-13


def test_channels_that_a_padded_shortcut_adds_go_too() -> None:
    model = drawn(option_a(), 0)
    for module in (model.b0, model.b1):
        module.bias.data.fill_(-1.0)
        module.weight.data.fill_(1.0)
        module.running_mean.data.zero_()
    masks = whole(model)
    masks["one.weight"][[0, 1, 9, 10]] = False  # 2 are padded before, 3 after
    masks["one.weight"][3] = masks["stem.weight"][1] = False  # the same channel: 2 + 1
    found = compacted(model, masks)
    assert rows(found) == {"stem": (6, 5), "one": (11, 6), "head": (4, 4)}
    assert found.attributes["short"] == {"before": 0, "after": 1}
    assert apart(masked(model, masks), found.model, inputs()) < 1e-13


def test_a_layer_keeps_one_channel() -> None:
    model = Forward(
        lambda self, x: self.head(self.stem(x) + self.two(F.relu(self.one(self.stem(x))))),
        stem=nn.Linear(3, 5), one=nn.Linear(5, 4), two=nn.Linear(4, 5), head=nn.Linear(5, 2),
    )  # fmt: skip
    drawn(model, 0)
    masks = whole(model)
    masks["one.weight"][:] = False
    found = compacted(model, masks, input_shape=(3,))
    assert rows(found)["one"] == (4, 1)
    assert {one.name: one.dead_kept for one in found.layers if one.dead_kept} == {
        "one.weight": {LAST: 1},
        "two.weight": {JOINED: 5},
    }
    assert apart(masked(model, masks), found.model, inputs(shape=(3,))) < 1e-13


def test_what_needs_all_channels_says_so() -> None:
    model = drawn(mixing(), 0)
    masks = whole(model)
    for name, mask in masks.items():
        mask[1] = name == "head.weight"
    found = compacted(model, masks)
    assert rows(found) == {"a": (8, 8), "b": (7, 7), "c": (7, 6), "d": (5, 5), "head": (4, 4)}
    told = {one.name: list(one.dead_kept) for one in found.layers}
    assert told["a.weight"] == ["native_group_norm is of all of them together"]
    assert told["b.weight"] == ["slice goes by their number"]
    assert told["d.weight"] == ["mean is over them"]


def test_code_that_has_the_size_of_a_flattened_image_keeps_it() -> None:
    model = Forward(
        lambda self, x: self.head(F.relu(self.b(F.relu(self.a(x)))).view(-1, 4 * 36)),
        a=conv(3, 6), b=conv(6, 4), head=nn.Linear(144, 2),
    )  # fmt: skip
    drawn(model, 0)
    masks = whole(model)
    masks["a.weight"][1] = masks["b.weight"][1] = False
    found = compacted(model, masks)
    assert rows(found) == {"a": (6, 5), "b": (4, 4), "head": (2, 2)}
    assert found.dead_kept == {RESHAPED: 1}


class Transformer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed, self.head = nn.Linear(5, 8), nn.Linear(8, 3)
        self.block = nn.TransformerEncoderLayer(8, 2, 12, batch_first=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.block(self.embed(x))
        y = (y @ y.transpose(1, 2)) @ y  # no layer: a product of two values
        return self.head(y.mean(1))


@pytest.mark.parametrize("seed", range(3))
def test_around_attention_what_is_followed_goes(seed: int) -> None:
    model = drawn(Transformer(), seed)
    masks = whole(model)
    masks["block.linear1.weight"][[1, 4]] = masks["block.linear2.weight"][:, 5] = False
    masks["embed.weight"][2] = False
    found = compacted(model, masks, input_shape=(7, 5))
    assert rows(found) == {"embed": (8, 8), "block.linear1": (12, 9), "block.linear2": (8, 8), "head": (3, 3)}
    assert found.dead_kept == {"_native_multi_head_attention mixes them": 1}
    assert apart(masked(model, masks), found.model, inputs(shape=(7, 5))) < 1e-12


def test_recurrent_layers_stay_whole() -> None:
    model = Forward(
        lambda self, x: self.head(F.relu(self.out(self.cells(self.embed(x))[0][:, -1]))),
        embed=nn.Linear(5, 6), cells=nn.LSTM(6, 4, batch_first=True), out=nn.Linear(4, 5), head=nn.Linear(5, 2),
    )  # fmt: skip
    drawn(model, 0)
    masks = whole(model)
    masks["embed.weight"][1] = masks["out.weight"][2] = False
    found = compacted(model, masks, input_shape=(7, 5))
    assert rows(found) == {"embed": (6, 6), "cells.weight_ih_l0": (16, 16), "cells.weight_hh_l0": (16, 16),
                           "out": (5, 4), "head": (2, 2)}  # fmt: skip
    assert found.dead_kept == {"LSTM goes by their number": 1}
    assert apart(masked(model, masks), found.model, inputs(shape=(7, 5))) < 1e-12


def test_parameters_with_an_element_a_channel_are_cut() -> None:
    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale, self.shift = nn.Parameter(torch.ones(1, 5, 1, 1)), nn.Parameter(torch.ones(5))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x * self.scale + self.shift.view(1, -1, 1, 1)

    model = drawn(nn.Sequential(conv(3, 5), Scaled(), nn.ReLU(), conv(5, 2, 1), nn.Flatten()), 0)
    masks = whole(model)
    del masks["1.scale"]
    masks["0.weight"][1] = masks["3.weight"][:, 2] = False
    found = compacted(model, masks)
    assert (found.model[1].scale.shape, found.model[1].shift.shape) == ((1, 3, 1, 1), (3,))
    assert apart(masked(model, masks), found.model, inputs()) < 1e-13


# --- refusals


def test_nothing_to_remove_is_said(here: Path, pai: Pai) -> None:
    save_mask(here / "m.safetensors", whole(init_network("mlp-24-16-12-10", None, 0).model))
    done = pai("compact", "m.safetensors", "--weights", "small.safetensors", "--timing-runs", 1)
    assert done.status == 0
    assert "pai: small.safetensors: no channel can be removed: nothing of it is smaller" in done.said
    assert done.said[-1] == "pai: wrote small-compact.safetensors: 734 of 734 parameters"


def test_a_constant_network_is_refused(here: Path, pai: Pai) -> None:
    masks = whole(init_network("mlp-24-16-12-10", None, 0).model)
    next(iter(masks.values()))[:] = False
    save_mask(here / "m.safetensors", masks)
    done = pai("compact", "m.safetensors", "--weights", "small.safetensors")
    assert (done.status, done.out) == (1, "")
    assert done.said[-1] == (
        "pai: error: small.safetensors: no output depends on the input, as the mask cuts every path: the network is a "
        "constant; give a mask of a larger --density"
    )
    assert sorted(path.name for path in here.iterdir()) == ["m.safetensors", "small.safetensors"]


def test_a_mask_of_another_network(here: Path, pai: Pai) -> None:
    save_mask(here / "m.safetensors", {"a": np.ones((2, 2), bool)})
    done = pai("compact", "m.safetensors", "--weights", "small.safetensors")
    assert done.status == 1
    assert done.said[-1].startswith("pai: error: m.safetensors: masks 'a', which small.safetensors does not have")
    assert done.said[-1].endswith("; --weights takes the checkpoint that the mask was made for")


def test_a_fault_is_found_before_anything_is_given(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def careless(model: nn.Module, name: str, *_: object) -> None:
        if name == "0.weight":
            model.get_parameter(name)[0] += 0.01

    monkeypatch.setattr(cutting, "_add_constants", careless)
    model = drawn(chain(), 0)
    with pytest.raises(CompactError, match=r"its outputs differ by .*it cannot be compacted"):
        compacted(model, masks_of(model, 0), output=tmp_path / "s.safetensors")
    assert [*tmp_path.iterdir()] == []


def written(x: torch.Tensor) -> torch.Tensor:
    """`x`, after one of its channels was written over another."""
    x[..., :1].copy_(x[..., 1:2] * 2)
    return x


def counted(model: Any, x: torch.Tensor) -> torch.Tensor:
    """`x` times the number of runs."""
    model.runs = getattr(model, "runs", 0) + 1
    return x * model.runs


WRONG: dict[str, tuple[Callable[[Any, torch.Tensor], Any], type[Exception], str]] = {
    "values": (
        lambda self, x: self.b(self.a(x)) if self.a(x).sum() < 1e9 else self.b(-self.a(x)),
        TraceError,
        "decides by its values (_local_scalar_dense)",
    ),
    "writes": (
        lambda self, x: self.b(written(self.a(x))),
        TraceError,
        "writes into part of a tensor so that units cannot be told apart; it cannot be compacted",
    ),
    "numbers": (
        lambda self, x: self.b(self.a(x) + (0 if self.a.weight.shape[0] == 4 else self.a.weight.new_zeros(9))),
        CompactError,
        "the network: its code goes by numbers of channels, and fails with fewer",
    ),
    "draws": (
        lambda self, x: self.b(F.dropout(self.a(x))),
        CompactError,
        "the network: gives other outputs whenever it runs, so no smaller network can be compared with it: the network "
        "draws random numbers (bernoulli_), also in evaluation mode; let that be in training mode alone (if self.training, "
        "F.dropout(..., training=self.training))",
    ),
    "changes": (
        lambda self, x: self.b(counted(self, self.a(x))),
        CompactError,
        "the network: gives other outputs whenever it runs, so no smaller network can be compared with it: what it keeps "
        "changes, also in evaluation mode",
    ),
    "float32": (
        lambda self, x: self.b(self.a(x).float()),
        TraceError,
        "'b' fails in float64, in which networks are compared (RuntimeError: mat1 and mat2 must have the same dtype, but "
        "got Float and Double); its code makes tensors of float32 whatever its input is: let them be of the input's type "
        "(dtype=x.dtype)",
    ),
    "fails": (lambda self, x: self.b(x), MethodOptionError, "the network failed on one input of shape 2,3"),
    "idle": (lambda self, x: x, TraceError, "no convolution or linear layer of the network reads its input"),
}


@pytest.mark.parametrize("case", WRONG)
def test_networks_that_cannot_be_compacted(case: str) -> None:
    forward, kind, said = WRONG[case]
    model = drawn(Forward(forward, a=nn.Linear(3, 4), b=nn.Linear(4, 2)), 0)
    masks = whole(model)
    masks["a.weight"][1] = False
    with pytest.raises(kind) as failure:
        compacted(model, masks, input_shape=(2, 3))
    assert said.replace("the network:", "the model:") in str(failure.value)


@pytest.mark.parametrize(
    ("options", "kind", "said"),
    [
        ({"weights": None}, UsageError, "a mask says what of a network is kept: give its weights=CKPT"),
        ({"output": "s.pt"}, SuffixError, "s.pt: a smaller network is written as .safetensors (tensors) or .pt2"),
        ({"timing_runs": 0}, UsageError, "timing_runs=0: must be a number of 1 or more"),
        ({"timing_batch": 0}, UsageError, "timing_batch=0: must be a number of 1 or more"),
        ({"seed": -1}, MethodOptionError, "seed=-1: must be 0 to"),
        ({"input_shape": (4,)}, MethodOptionError, "the network failed on one input of shape 4"),
        ({"mask": {"x": np.ones(2, bool)}}, MaskMismatchError, "masks 'x'"),
        ({"mask": 3}, UsageError, "mask: give a path or a mask, not int"),
        ({"force": True}, UsageError, "force=True: no file is written; give output= too, or leave it out"),
    ],
)
def test_what_is_refused(options: dict[str, Any], kind: type[Exception], said: str) -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))
    given = {"mask": whole(model), "weights": model, "input_shape": (3,), **options}
    with pytest.raises(kind) as failure:
        pai.compact(**given)
    assert said in str(failure.value)


def test_the_shape_of_an_input_is_needed() -> None:
    model = nn.Sequential(conv(3, 4), nn.Flatten(), nn.Linear(144, 2))
    with pytest.raises(
        MethodOptionError, match=r"the shape of one input is not known, .*give it with input_shape=, such"
    ):
        pai.compact(whole(model), model)
    data = (torch.randn(9, *SHAPE), torch.arange(9))
    assert pai.compact(whole(model), model, data=data, timing_runs=1).samples == 17


# --- files


def load_compact() -> Callable[[nn.Module, Path], nn.Module]:
    """The function that the page shows."""
    page = (ROOT / "docs" / "compact.md").read_text(encoding="utf-8")
    code = next(one for one in re.findall(r"```python\n(.*?)```", page, re.DOTALL) if "def load_compact" in one)
    names: dict[str, Any] = {}
    exec(compile(code, "compact.md", "exec"), names)
    found: Callable[[nn.Module, Path], nn.Module] = names["load_compact"]
    return found


@pytest.mark.parametrize("name", NETWORKS)
def test_the_file_is_loaded_in_plain_torch(name: str, tmp_path: Path) -> None:
    model = drawn(NETWORKS[name](), 1).float()
    masks = masks_of(model, 1, dead=0.2)
    found = compacted(model, masks, output=tmp_path / "s.safetensors")
    loaded = load_compact()(NETWORKS[name](), tmp_path / "s.safetensors")
    x = inputs().float()
    assert apart(loaded, found.model, x) < 1e-6
    assert apart(masked(model, masks), loaded, x) < 1e-4
    assert {key: tuple(one.shape) for key, one in loaded.state_dict().items()} == {
        key: tuple(one.shape) for key, one in found.model.state_dict().items()
    }


def test_the_program_is_loaded_in_plain_torch(tmp_path: Path) -> None:
    model = drawn(residual(), 1).float()
    masks = masks_of(model, 1, dead=0.2)
    compacted(model, masks, output=tmp_path / "s.pt2")
    loaded = torch.export.load(tmp_path / "s.pt2").module()
    for count in (1, 5):
        assert apart(masked(model, masks), loaded, inputs()[:count].float()) < 1e-4


def test_a_program_is_compacted(tmp_path: Path) -> None:
    """Its code has the number of inputs and the size of a flattened image, as the exporting had them."""
    model = Forward(
        lambda self, x: self.head(F.relu(self.b(F.relu(self.n(self.a(x))))).view(1, 180)),
        a=conv(3, 6), n=norm(6), b=conv(6, 5), head=nn.Linear(180, 4),
    )  # fmt: skip
    drawn(model, 2).float()
    torch.export.save(torch.export.export(model, (torch.zeros(1, *SHAPE),)), tmp_path / "p.pt2")
    masks = whole(model)
    masks["a.weight"][2] = masks["b.weight"][:2] = False
    found = pai.compact(masks, tmp_path / "p.pt2", trust=True, timing_runs=1)
    assert rows(found) == {"a": (6, 5), "b": (5, 5), "head": (4, 4)}
    assert found.dead_kept[RESHAPED] == 2
    assert apart(masked(model, masks), found.model, inputs()[:1].float()) < 1e-4
    assert found.batch == 1


def test_the_command(pai: Pai, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert pai("init", "lenet-5", "-o", "net.safetensors").status == 0
    masks = whole(init_network("lenet-5", None, 0).model)
    for name, mask in masks.items():
        mask[1] = name == [*masks][-1]
    save_mask(tmp_path / "m.safetensors", masks)
    words = ("compact", "m.safetensors", "--weights", "net.safetensors", "--timing-runs", 1, "--timing-batch", 2)
    done = pai(*words, "--data", "digits", "--format", "json")
    assert done.status == 0
    *layers, network = done.json()
    assert [one["outputs_before"] - one["outputs_after"] for one in layers] == [1, 1, 1, 1, 0]
    assert {one["level"] for one in layers} == {"layer"}
    assert (network["level"], network["layer"], network["samples"]) == ("network", None, 72)
    assert (network["parameters_before"], network["timing_batch"], network["device"]) == (61706, 2, "cpu")
    assert sum(one["macs_after"] for one in layers) == network["macs_after"] < network["macs_before"]
    assert 0 <= network["difference_float64"] < 1e-12 < network["largest_output"]
    assert min(network["seconds_before"], network["seconds_after"]) > 0
    assert network["file"] == "net-compact.safetensors"
    loaded = load_compact()(init_network("lenet-5", None, 3).model, tmp_path / "net-compact.safetensors")
    assert sum(one.numel() for one in loaded.parameters()) == network["parameters_after"]
    assert json.loads(pai("info", "net-compact.safetensors", "--format", "json").out)[0]["kind"] == "checkpoint"
    again = pai(*words)
    assert (again.status, again.said[-1]) == (
        1,
        "pai: error: net-compact.safetensors: exists already; --force replaces it",
    )
    table = pai(*words, "--force").out
    assert re.search(r"A batch of 2 takes .* ms, and .* ms in the smaller network \(median of 1, cpu\)\.", table)
    assert re.search(r"network +236 -> 232 ", table)
    csv = pai(*words, "--force", "--format", "csv", "--no-header")
    assert csv.out.startswith("net-compact.safetensors,layer,")
    assert pai("compact", "m.safetensors").status == 2


def test_the_same_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "0")
    model = drawn(residual(), 1).float()
    for name in ("a", "b"):
        compacted(model, masks_of(model, 1, dead=0.2), output=tmp_path / f"{name}.safetensors")
    assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()


def test_groups_that_code_counts_stay() -> None:
    model = Forward(lambda self, x: F.conv1d(self.a(x), self.b.w, groups=2), a=nn.Conv1d(4, 4, 1), b=nn.Module())
    model.b.w = nn.Parameter(torch.zeros(4, 2, 1))
    drawn(model, 0)
    masks = whole(model)
    masks["a.weight"][1] = False
    found = compacted(model, masks, input_shape=(4, 5))
    assert (found.removed, found.dead_kept) == (0, {"the number of groups is in the network's code": 1})
