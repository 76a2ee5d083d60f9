"""Networks whose code does more than call its layers in turn: compacted right without the comparison, or refused."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from test_compacting import SHAPE, Forward, apart, conv, drawn, inputs, load_compact, masked, masks_of, whole
from torch import nn
from torch.nn import functional as F  # noqa: N812

import pai_cli as pai
from pai_cli.compacting import cutting, run
from pai_cli.compacting.run import ELSEWHERE, Compacted
from pai_cli.errors import CompactError, TraceError


@pytest.fixture
def unchecked(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is chosen must be right by itself, not because what is wrong is refused."""
    monkeypatch.setattr(run, "EXACT", float("inf"))


def compacted(model: nn.Module, masks: dict[str, np.ndarray], shape: tuple[int, ...] = SHAPE) -> Compacted:
    found: Compacted = pai.compact(masks, model, input_shape=shape, timing_batch=1, timing_runs=1)
    return found


def flat_mlp(forward: Callable[[Any, torch.Tensor], Any], **more: nn.Module) -> nn.Module:
    return Forward(
        forward,
        **{"a": nn.Linear(108, 8), "b": nn.Linear(8, 6), "c": nn.Linear(6, 6), "d": nn.Linear(6, 4), **more},
    )


def images(forward: Callable[[Any, torch.Tensor], Any], **more: nn.Module) -> nn.Module:
    return Forward(forward, **{"a": conv(3, 8, bias=True), "b": conv(8, 8, bias=True), "d": conv(8, 4, 1), **more})


def one_bias_of_two_layers() -> nn.Module:
    model = flat_mlp(lambda self, x: self.d(F.gelu(self.c(F.gelu(self.b(F.gelu(self.a(x.flatten(1)))))))))
    model.c.bias = model.b.bias
    return model


def bias_read_again() -> nn.Module:
    return images(
        lambda self, x: self.d(F.gelu(self.b(F.gelu(self.a(x))) + self.b.bias[:, None, None])),
        b=conv(8, 8, 1, bias=True),
    )


def tied_to_its_transpose() -> nn.Module:
    def forward(self: Any, x: torch.Tensor) -> torch.Tensor:
        x = F.gelu(self.c(F.gelu(self.b(F.gelu(self.a(x.flatten(1)))))))
        return F.linear(F.gelu(F.linear(x, self.c.weight.t())), self.b.weight.t())

    return flat_mlp(forward)


def convolution_by_hand() -> nn.Module:
    def forward(self: Any, x: torch.Tensor) -> torch.Tensor:
        patches = F.unfold(F.relu(self.a(x)), 3).transpose(1, 2)
        return self.d(F.relu(F.linear(patches, self.b.weight.flatten(1), self.b.bias)).mT[..., None])

    return images(forward)


def groups_that_share_a_weight() -> nn.Module:
    model = images(
        lambda self, x: self.d(F.relu(self.c(F.relu(self.b(F.relu(self.a(x))))))),
        b=conv(8, 8, groups=4), c=conv(8, 8, groups=4),
    )  # fmt: skip
    model.c.weight = model.b.weight
    return model


def weight_of_a_constant_too() -> nn.Module:
    """A layer also reads what is no input, so its shape cannot change."""
    return images(lambda self, x: (self.d(F.relu(self.b(F.relu(self.a(x))))), self.d(self.b.bias[None, :, None, None])))


def product_times_a_number() -> nn.Module:
    model = flat_mlp(
        lambda self, x: self.d(F.gelu(torch.addmm(self.c.bias, F.gelu(self.b(F.gelu(self.a(x.flatten(1))))), self.w,
        alpha=0.1, beta=2.0)))
    )  # fmt: skip
    model.w = nn.Parameter(torch.zeros(6, 6))
    return model


def image_of_a_linear_layer() -> nn.Module:
    return nn.Sequential(
        nn.Flatten(), nn.Linear(108, 32), nn.SiLU(), nn.Unflatten(1, (8, 2, 2)), nn.ConvTranspose2d(8, 6, 2, 2),
        nn.SiLU(), nn.Conv2d(6, 4, 3),
    )  # fmt: skip


def channel_shuffle() -> nn.Module:
    def forward(self: Any, x: torch.Tensor) -> torch.Tensor:
        x = F.relu(self.a(x))
        n, c, h, w = x.shape
        return self.d(F.relu(self.b(x.view(n, 2, c // 2, h, w).transpose(1, 2).reshape(n, c, h, w))))

    return images(forward)


class WithoutBias(nn.Conv2d):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.conv2d(x, self.weight, None, self.stride, self.padding)


def module_that_adds_no_bias() -> nn.Module:
    return images(lambda self, x: self.d(F.silu(self.b(F.silu(self.a(x))))), b=WithoutBias(8, 8, 3, bias=False))


def activations_by_flags() -> nn.Module:
    def forward(self: Any, x: torch.Tensor) -> torch.Tensor:
        x = self.a(x)
        x = self.b(torch.where(x > 0, x, 0.1 * x))
        return self.d(x * (x > 0).to(x.dtype))

    return images(forward)


CODES = {
    one.__name__: one
    for one in (
        one_bias_of_two_layers, bias_read_again, tied_to_its_transpose, convolution_by_hand, groups_that_share_a_weight,
        weight_of_a_constant_too, product_times_a_number, image_of_a_linear_layer,
        channel_shuffle, module_that_adds_no_bias, activations_by_flags,
    )
}  # fmt: skip


def differ(one: nn.Module, other: nn.Module, x: torch.Tensor) -> float:
    """The largest difference of all that two networks return, by the largest number in it or 1."""
    with torch.no_grad():
        pairs = [*zip(flat(one(x)), flat(other(x)), strict=True)]
    size = max(1.0, *(float(a.abs().max()) for a, _ in pairs))
    return max(float((a - b).abs().max()) for a, b in pairs) / size


def flat(returned: Any) -> list[torch.Tensor]:
    """Tensors of nested tuples, dicts and answers."""
    if isinstance(returned, torch.Tensor):
        return [returned]
    parts = vars(returned) if isinstance(returned, Answer) else returned
    return [one for part in (parts.values() if isinstance(parts, dict) else parts) for one in flat(part)]


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("name", CODES)
def test_the_outputs_stay(name: str) -> None:
    smaller = 0
    for seed in range(4):
        model = drawn(CODES[name](), seed)
        masks = masks_of(model, seed)
        try:
            found = compacted(model, masks)
        except CompactError as error:
            if "the mask cuts every path" not in str(error):
                raise
            continue
        smaller += 1
        for scale in (0.0, 1.0, -50.0):
            assert differ(masked(model, masks), found.model, scale * inputs()) < 1e-12
    assert smaller


def test_where_a_weight_is_used_otherwise_too_is_said() -> None:
    model = drawn(weight_of_a_constant_too(), 1)
    masks = whole(model)
    masks["b.weight"][1] = False
    assert ELSEWHERE in compacted(model, masks).dead_kept


def test_a_size_in_the_code_of_one_layer_leaves_the_others_to_be_cut() -> None:
    model = drawn(image_of_a_linear_layer(), 0)
    masks = whole(model)
    masks["4.weight"][:2] = masks["4.weight"][:, :3] = False
    found = compacted(model, masks)
    assert {one.name: one.outputs for one in found.layers} == {
        "1.weight": (32, 32),
        "4.weight": (6, 3),
        "6.weight": (4, 4),
    }


# --- what depends on the input though it looks like a constant


@pytest.mark.parametrize("norm", [nn.InstanceNorm2d(2), nn.BatchNorm2d(2, track_running_stats=False)])
def test_statistics_of_a_channel_depend_on_all_of_it(norm: nn.Module) -> None:
    """The corner that is read meets padding alone before the norm, which then goes by the whole channel."""
    model = drawn(nn.Sequential(conv(3, 2, bias=True), norm, nn.SiLU(), nn.Conv2d(2, 2, 6)), 0)
    masks = {name: np.zeros(one.shape, bool) for name, one in whole(model).items()}
    masks["0.weight"][:, :, 0, 0] = masks["3.weight"][:, :, 0, 0] = True
    found = compacted(model, masks)
    assert found.rounded.output > 0
    assert differ(masked(model, masks), found.model, inputs()) < 1e-12


def routed(self: Any, x: torch.Tensor) -> torch.Tensor:
    return self.d(F.silu(self.b(self.a(x)) + self.table(self.a(x).argmax(1))))


def branched(self: Any, x: torch.Tensor) -> torch.Tensor:
    x = self.a(x)
    return self.d(self.b(x / 100 if x.abs().max().item() > 100 else x))


@pytest.mark.parametrize(("forward", "operation"), [(routed, "embedding"), (branched, "_local_scalar_dense")])
def test_a_network_that_goes_by_its_values_is_refused(forward: Callable[..., Any], operation: str) -> None:
    """Were the index or number taken for a constant, no comparison need see it: it may be the same on all inputs tried."""
    model = Forward(forward, a=nn.Linear(3, 5), b=nn.Linear(5, 6), d=nn.Linear(6, 2), table=nn.Embedding(5, 6))
    drawn(model, 0)
    with pytest.raises(TraceError, match=rf"decides by its values \({operation}\); it cannot be compacted"):
        compacted(model, {name: one for name, one in whole(model).items() if "table" not in name}, (3,))


def test_flags_and_indices_may_be_returned() -> None:
    model = drawn(images(lambda self, x: ((y := self.d(F.relu(self.b(F.relu(self.a(x)))))).argmax(1), y > 0)), 2)
    masks = masks_of(model, 2)
    found = compacted(model, masks)
    assert found.removed > 0
    for one, other in zip(masked(model, masks)(inputs()), found.model(inputs()), strict=True):
        assert torch.equal(one, other)


@dataclass
class Answer:
    """What no tuple, list or dict is."""

    last: torch.Tensor
    hidden: dict[str, torch.Tensor]


def test_what_stands_in_an_object_is_returned_too() -> None:
    def forward(self: Any, x: torch.Tensor) -> tuple[torch.Tensor, Answer]:
        x = F.silu(self.a(x))
        return self.d(x), Answer(self.b(x), {"x": x})

    model = drawn(images(forward), 0)
    masks = whole(model)
    masks["a.weight"][1] = masks["b.weight"][2] = False
    found = compacted(model, masks)
    assert found.removed == 0
    assert differ(masked(model, masks), found.model, inputs()) < 1e-12


def test_nothing_in_what_is_returned() -> None:
    with pytest.raises(TraceError, match="no tensor is found in what the network returns"):
        compacted(Forward(lambda self, x: str(self.a(x)), a=nn.Linear(3, 2)), {"a.weight": np.ones((2, 3), bool)}, (3,))


# --- files, precision, warnings


class Scaled(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.d = conv(3, 8, bias=True), conv(8, 4, 1)
        self.register_buffer("scale", torch.rand(8, 1, 1), persistent=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.d(F.relu(self.a(x) * self.scale))  # type: ignore[operator]


def test_a_buffer_that_no_file_holds_stays(tmp_path: Path) -> None:
    model = Scaled().double().eval()
    masks = whole(model)
    masks["a.weight"][:4] = False
    found: Compacted = pai.compact(masks, model, tmp_path / "s.safetensors", input_shape=SHAPE, timing_runs=1)
    assert found.removed == 0
    fresh = Scaled().double()
    fresh.scale = model.scale
    assert apart(found.model, load_compact()(fresh, tmp_path / "s.safetensors"), inputs()) == 0


def test_instance_norms_count_their_channels(tmp_path: Path) -> None:
    def network() -> nn.Module:
        return nn.Sequential(conv(3, 8), nn.InstanceNorm2d(8), nn.SiLU(), conv(8, 4)).double()

    model = drawn(network(), 0)
    masks = whole(model)
    masks["3.weight"][:, :3] = False
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found: Compacted = pai.compact(masks, model, tmp_path / "s.safetensors", input_shape=SHAPE, timing_runs=1)
        loaded = load_compact()(network(), tmp_path / "s.safetensors")
        assert apart(masked(model, masks), loaded, inputs()) < 1e-12
    assert found.attributes["1"] == {"num_features": 5}


def test_every_tensor_keeps_its_precision() -> None:
    model = nn.Module()
    model.a, model.n, model.d = nn.Linear(3, 6), nn.BatchNorm1d(6).double(), nn.Linear(6, 2, bias=False).half()
    small = nn.Module()
    small.d, small.n, small.a = nn.Linear(5, 2).double(), nn.BatchNorm1d(5).double(), nn.Linear(3, 5).double()
    run._in_own_precision(small, model, torch.float32)
    assert {name: one.dtype for name, one in small.named_parameters()} == {
        "d.weight": torch.float16, "d.bias": torch.float16, "n.weight": torch.float64, "n.bias": torch.float64,
        "a.weight": torch.float32, "a.bias": torch.float32,
    }  # fmt: skip


# --- constants, and what is compared


def test_no_tiny_constant_carries_a_large_one() -> None:
    """A unit at -7 gives -9e-12 behind GELU, in 32 bits 0: it cannot carry those of size 1 though it stays."""

    model = images(
        lambda self, x: self.d(x := F.gelu(self.a(x))) + self.e(F.relu(self.b(x))),
        b=conv(8, 8, groups=4), d=conv(8, 4), e=conv(8, 4, 1),
    )  # fmt: skip
    drawn(model, 0)
    masks = whole(model)
    masks["a.weight"][[0, 2, 3]] = False  # of the first group, channel 1 stays, and with it channel 0
    masks["e.weight"][:, 2:4] = False
    with torch.no_grad():
        model.a.bias.copy_(torch.tensor([-7.0, 0, 1, 2, 0, 0, 0, 0]))
    found = compacted(model.float(), masks)
    assert differ(masked(model, masks), found.model, inputs().float()) < 1e-5


def test_a_fault_that_small_inputs_hide_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    def careless(model: nn.Module, name: str, *_: object) -> None:
        if name == "0.weight":
            model.get_parameter(name)[0] += 1

    monkeypatch.setattr(cutting, "_add_constants", careless)
    model = drawn(nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2)), 0)
    model[0].bias.data[0] = -40
    with pytest.raises(CompactError, match="its outputs differ by"):
        compacted(model, whole(model), (3,))
