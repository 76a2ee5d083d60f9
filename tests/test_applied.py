"""Masks at work in training: pruned weights stay 0, bit for bit, whatever moves the others; kept ones move as by hand."""

from __future__ import annotations

import copy
import gc
import io
import os
import subprocess
import sys
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from conftest import ROOT
from torch import distributed, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from pai_cli import Mask
from pai_cli.errors import ArrayError, MaskMismatchError, ParameterError
from pai_cli.telling import PaiWarning
from pai_cli.training.applied import AppliedMasks, apply_masks

Optimizer = torch.optim.Optimizer


class Net(nn.Module):
    """A convolution, and a layer on top; 4 outputs."""

    def __init__(self, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 3, 3, dtype=dtype)
        self.fc = nn.Linear(12, 4, dtype=dtype)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(torch.tanh(self.conv(x)).flatten(1))


NAMES = ("conv.weight", "fc.weight")


def net(seed: int = 0, dtype: torch.dtype = torch.float32) -> Net:
    torch.manual_seed(seed)
    return Net(dtype)


def masks_for(model: nn.Module, seed: int = 0) -> dict[str, np.ndarray]:
    random = np.random.default_rng(seed)
    return {name: random.random(tuple(model.get_parameter(name).shape)) < 0.5 for name in NAMES}


def batch(step: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    random = np.random.default_rng(step)
    return torch.from_numpy(random.standard_normal((5, 2, 4, 4))).to(dtype)


def loss_of(model: nn.Module, step: int) -> torch.Tensor:
    return model(batch(step, next(model.parameters()).dtype)).square().mean()


def zeros(tensor: torch.Tensor) -> bool:
    """Whether every entry is +0, bit for bit."""
    return not any(tensor.detach().flatten().view(torch.uint8).tolist())


def pruned_are_zero(model: nn.Module, masks: dict[str, np.ndarray]) -> bool:
    return all(zeros(model.get_parameter(name)[torch.from_numpy(~mask)]) for name, mask in masks.items())


def memory_of(optimizer: Optimizer, masks: dict[str, np.ndarray], model: nn.Module) -> Iterator[torch.Tensor]:
    """What the optimizer remembers of pruned weights."""
    for name, mask in masks.items():
        weight = model.get_parameter(name)
        for value in optimizer.state.get(weight, {}).values():
            if isinstance(value, torch.Tensor) and value.shape == weight.shape:
                yield value[torch.from_numpy(~mask)]


def remembered(optimizer: Optimizer, masks: dict[str, np.ndarray], model: nn.Module) -> list[float]:
    """The values in what the optimizer remembers of pruned weights, each once, ascending."""
    return sorted({value for one in memory_of(optimizer, masks, model) for value in one.flatten().tolist()})


def step_of(
    model: nn.Module, optimizer: Optimizer, number: int, after_backward: Callable[[], None] = lambda: None
) -> None:
    """A step; of LBFGS, by its closure."""

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = loss_of(model, number)
        loss.backward()
        after_backward()
        return loss

    if isinstance(optimizer, torch.optim.LBFGS):
        optimizer.step(closure)
    else:
        closure()
        optimizer.step()


class ByHand:
    """The reference: after every backward pass gradients times mask, after every step weights times mask."""

    def __init__(self, model: nn.Module, masks: dict[str, np.ndarray]):
        self.model = copy.deepcopy(model)
        self.masks = {self.model.get_parameter(name): torch.from_numpy(mask) for name, mask in masks.items()}
        self.weights()

    def weights(self) -> None:
        with torch.no_grad():
            for weight, mask in self.masks.items():
                weight.copy_(torch.where(mask, weight, 0))

    def step(self, optimizer: Optimizer, number: int) -> None:
        def mask_gradients() -> None:
            for weight, mask in self.masks.items():
                weight.grad.mul_(mask)

        step_of(self.model, optimizer, number, mask_gradients)
        self.weights()


def equal(one: nn.Module, other: nn.Module) -> bool:
    pairs = zip(one.state_dict().items(), other.state_dict().items(), strict=True)
    return all(a == b and torch.equal(left, right) for (a, left), (b, right) in pairs)


# Every optimizer of PyTorch's


FOREACH, FUSED = ({"foreach": False}, {"foreach": True}), ({"fused": True},)
KINDS: dict[str, tuple[dict[str, Any], tuple[dict[str, Any], ...]]] = {
    "SGD": ({"lr": 0.1, "momentum": 0.9, "nesterov": True, "weight_decay": 0.1}, FOREACH + FUSED),
    "SGD maximize": (
        {"lr": 0.1, "momentum": 0.9, "dampening": 0.1, "weight_decay": 0.1, "maximize": True},
        FOREACH + FUSED,
    ),
    "Adam": ({"lr": 0.01, "weight_decay": 0.1, "amsgrad": True}, FOREACH + FUSED),
    "Adam eps": ({"lr": 0.01, "weight_decay": 0.1, "eps": 0.0}, FOREACH + FUSED),
    "AdamW": ({"lr": 0.01, "weight_decay": 0.1, "maximize": True}, FOREACH + FUSED),
    "Adagrad": ({"lr": 0.1, "weight_decay": 0.1, "initial_accumulator_value": 0.2, "lr_decay": 0.1}, FOREACH + FUSED),
    "Adadelta": ({"lr": 1.0, "weight_decay": 0.1}, FOREACH),
    "Adamax": ({"lr": 0.01, "weight_decay": 0.1}, FOREACH),
    "ASGD": ({"lr": 0.01, "weight_decay": 0.1, "t0": 1}, FOREACH),
    "NAdam": ({"lr": 0.01, "weight_decay": 0.1, "decoupled_weight_decay": True}, FOREACH),
    "RAdam": ({"lr": 0.01, "weight_decay": 0.1}, FOREACH),
    "RMSprop": ({"lr": 0.01, "weight_decay": 0.1, "momentum": 0.9, "centered": True}, FOREACH),
    "Rprop": ({"lr": 0.01}, FOREACH),
    "Adafactor": ({"lr": 0.1, "weight_decay": 0.1}, FOREACH),
    "Muon": ({"lr": 0.1, "weight_decay": 0.1}, ({},)),
    "LBFGS": ({"lr": 0.5, "max_iter": 3}, ({}, {"line_search_fn": "strong_wolfe"})),
}
EVERY = [
    pytest.param(
        name.split()[0], {**options, **one}, id="-".join([name, *(f"{key}={value}" for key, value in one.items())])
    )
    for name, (options, variants) in KINDS.items()
    for one in variants
]


def optimizer_of(kind: str, model: nn.Module, options: dict[str, Any]) -> Optimizer:
    matrices = kind == "Muon"
    return getattr(torch.optim, kind)([one for one in model.parameters() if one.dim() == 2 or not matrices], **options)


def set_up(kind: str) -> tuple[Net, dict[str, np.ndarray]]:
    model = net()
    masks = masks_for(model)
    if kind == "Muon":
        model.conv.requires_grad_(False)
        del masks["conv.weight"]
    return model, masks


def test_every_optimizer_is_here():
    kinds = {name for name in dir(torch.optim) if isinstance(getattr(torch.optim, name), type)}
    assert kinds - {"Optimizer", "SparseAdam"} == {name.split()[0] for name in KINDS}


@pytest.mark.parametrize("dense_gradients", [False, True], ids=["at once", "at the step"])
@pytest.mark.parametrize(("kind", "options"), EVERY)
def test_as_by_hand_to_the_bit(kind, options, dense_gradients):
    model, masks = set_up(kind)
    reference = ByHand(model, masks)
    theirs = optimizer_of(kind, reference.model, options)
    optimizer = optimizer_of(kind, model, options)
    apply_masks(model, masks, optimizer, dense_gradients=dense_gradients)
    start = copy.deepcopy(model)
    assert pruned_are_zero(model, masks)
    for number in range(3):
        step_of(model, optimizer, number)
        reference.step(theirs, number)
        assert pruned_are_zero(model, masks)
        assert equal(model, reference.model)
    assert not equal(model, start)
    if kind not in ("Adagrad", "Adamax", "Rprop"):  # which remember more than 0 of a weight that never moved
        assert all(not one.any() for one in memory_of(optimizer, masks, model))


@pytest.mark.parametrize(("kind", "options"), EVERY)
@pytest.mark.parametrize("applied_first", [True, False], ids=["applied, then loaded", "loaded, then applied"])
def test_saved_and_loaded_it_goes_on_to_the_bit(kind, options, applied_first):
    model, masks = set_up(kind)
    optimizer = optimizer_of(kind, model, options)
    names = list(model.state_dict())
    apply_masks(model, masks, optimizer)
    for number in range(2):
        step_of(model, optimizer, number)
    assert list(model.state_dict()) == names
    file = io.BytesIO()
    torch.save([model.state_dict(), optimizer.state_dict()], file)
    file.seek(0)
    saved = torch.load(file, weights_only=True)
    again = net(seed=7)
    again.conv.requires_grad_(kind != "Muon")
    resumed = optimizer_of(kind, again, options)
    if applied_first:
        apply_masks(again, masks, resumed)
    again.load_state_dict(saved[0])
    resumed.load_state_dict(saved[1])
    if not applied_first:
        apply_masks(again, masks, resumed)
    for number in range(2, 4):
        step_of(model, optimizer, number)
        step_of(again, resumed, number)
        assert equal(model, again)
        assert pruned_are_zero(again, masks)


@pytest.mark.parametrize(("kind", "options"), EVERY)
def test_what_was_remembered_before_is_forgotten(kind, options):
    model, masks = set_up(kind)
    optimizer = optimizer_of(kind, model, options)
    step_of(model, optimizer, 0)
    step_of(model, optimizer, 1)
    dense = copy.deepcopy(optimizer.state_dict())
    apply_masks(model, masks, optimizer)
    fresh = {"Adagrad": [0.2], "Rprop": [0.0, 0.01], "Adafactor": [], "LBFGS": []}.get(kind, [0.0])
    values = torch.tensor(fresh).tolist()
    assert remembered(optimizer, masks, model) == values
    step_of(model, optimizer, 2)
    assert pruned_are_zero(model, masks)
    optimizer.load_state_dict(dense)
    assert remembered(optimizer, masks, model) == values
    if kind == "LBFGS":
        assert not optimizer.state[model.conv.weight]
    step_of(model, optimizer, 3)
    assert pruned_are_zero(model, masks)


class Rotating(Optimizer):
    """Keeps in a weight's shape what is not of each weight; its step writes all weights."""

    def __init__(self, params: Any) -> None:
        super().__init__(params, {})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:
        for group in self.param_groups:
            for weight in group["params"]:
                rotated = self.state[weight].setdefault("rotated", torch.zeros_like(weight))
                rotated.add_(weight.grad.flip(-1))
                weight.sub_(rotated + float("inf"))


def test_an_optimizer_that_is_not_pytorchs():
    model = net()
    masks = masks_for(model)
    optimizer = Rotating(model.parameters())
    apply_masks(model, masks, optimizer)
    step_of(model, optimizer, 0)
    assert pruned_are_zero(model, masks)
    before = copy.deepcopy(optimizer.state_dict()["state"])
    apply_masks(model, masks, optimizer)  # goes on: no weight is taken away
    optimizer.load_state_dict(optimizer.state_dict())
    after = optimizer.state_dict()["state"]
    assert all(torch.equal(before[key]["rotated"], after[key]["rotated"]) for key in before)
    other = {
        name: mask & np.random.default_rng(3).integers(0, 2, mask.shape).astype(bool) for name, mask in masks.items()
    }
    apply_masks(model, other, optimizer)
    gone = torch.from_numpy(masks["fc.weight"] & ~other["fc.weight"])
    assert zeros(optimizer.state[model.fc.weight]["rotated"][gone])
    assert optimizer.state[model.fc.weight]["rotated"][torch.from_numpy(~masks["fc.weight"])].any()


# Ways to step


@pytest.mark.parametrize("set_to_none", [True, False])
def test_accumulated_gradients(set_to_none):
    model = net()
    masks = masks_for(model)
    reference = ByHand(model, masks)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=0.1)
    theirs = torch.optim.SGD(reference.model.parameters(), lr=0.1, momentum=0.9, weight_decay=0.1)
    apply_masks(model, masks, optimizer)
    for number in range(3):
        optimizer.zero_grad(set_to_none=set_to_none)
        theirs.zero_grad(set_to_none=set_to_none)
        for part in range(2):
            loss_of(model, 2 * number + part).backward()
            loss_of(reference.model, 2 * number + part).backward()
        for weight, mask in reference.masks.items():
            weight.grad.mul_(mask)
        optimizer.step()
        theirs.step()
        reference.weights()
        assert pruned_are_zero(model, masks)
        assert equal(model, reference.model)


def test_gradients_are_masked_at_once_or_only_at_the_step():
    model = net()
    masks = masks_for(model)
    loss_of(model, 0).backward()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    pruned = {name: torch.from_numpy(~mask) for name, mask in masks.items()}
    with apply_masks(model, masks, optimizer, dense_gradients=True):
        assert all(model.get_parameter(name).grad[gone].all() for name, gone in pruned.items())
        loss_of(model, 0).backward()
        assert all(model.get_parameter(name).grad[gone].all() for name, gone in pruned.items())
        optimizer.step()
        assert all(zeros(model.get_parameter(name).grad[gone]) for name, gone in pruned.items())
    loss_of(model, 0).backward()
    with apply_masks(model, masks, optimizer):
        assert all(zeros(model.get_parameter(name).grad[gone]) for name, gone in pruned.items())
        loss_of(model, 0).backward()
        assert all(zeros(model.get_parameter(name).grad[gone]) for name, gone in pruned.items())
    loss_of(model, 0).backward()
    assert all(model.get_parameter(name).grad[gone].all() for name, gone in pruned.items())


@pytest.mark.parametrize("named", [True, False])
@pytest.mark.parametrize("kind", ["SGD", "LBFGS"])
def test_a_closure_is_masked_inside_the_step(kind, named):
    """Gradients that are dense until the step, of a closure that every optimizer may be given."""
    model = net()
    masks = masks_for(model)
    reference = ByHand(model, masks)
    options = {"momentum": 0.9} if kind == "SGD" else {"max_iter": 4, "line_search_fn": "strong_wolfe"}
    optimizer = getattr(torch.optim, kind)(model.parameters(), lr=0.1, **options)
    theirs = getattr(torch.optim, kind)(reference.model.parameters(), lr=0.1, **options)
    apply_masks(model, masks, optimizer, dense_gradients=True)
    for number in range(3):

        def closure(number: int = number) -> torch.Tensor:
            optimizer.zero_grad()
            loss = loss_of(model, number)
            loss.backward()
            return loss

        given = optimizer.step(closure=closure) if named else optimizer.step(closure)
        assert given is not None
        reference.step(theirs, number)
        assert equal(model, reference.model)
        assert pruned_are_zero(model, masks)
    if kind == "SGD":
        assert all(zeros(one) for one in memory_of(optimizer, masks, model))


class Infinite(torch.autograd.Function):
    """0, with an infinite gradient at one weight."""

    @staticmethod
    def forward(ctx: Any, weight: torch.Tensor, place: tuple[int, int]) -> torch.Tensor:
        ctx.place, ctx.shape = place, weight.shape
        return weight.new_zeros(())

    @staticmethod
    def backward(ctx: Any, _: torch.Tensor) -> tuple[torch.Tensor, None]:
        gradient = torch.zeros(ctx.shape)
        gradient[ctx.place] = float("inf")
        return gradient, None


@pytest.mark.parametrize("options", [{"foreach": True}, {"fused": True}], ids=str)
def test_an_infinite_gradient_of_a_pruned_weight_skips_no_scaled_step(options):
    """That of a kept weight does."""
    model = net()
    masks = masks_for(model)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.1, weight_decay=0.1, **options)
    apply_masks(model, masks, optimizer)
    scaler = torch.amp.GradScaler("cpu", init_scale=4.0)
    for number, kept in enumerate([False, True]):
        place = tuple(int(one) for one in np.argwhere(masks["fc.weight"] == kept)[0])
        before = copy.deepcopy(model)
        optimizer.zero_grad()
        scaler.scale(loss_of(model, number) + Infinite.apply(model.fc.weight, place)).backward()
        scaler.step(optimizer)
        scaler.update()
        assert pruned_are_zero(model, masks)
        assert equal(model, before) == kept
        assert all(bool(one.isfinite().all()) for one in model.parameters())


def test_several_optimizers_and_a_parameter_that_comes_later():
    model = net()
    masks = masks_for(model)
    model.conv.weight.requires_grad_(False)  # so no optimizer need hold it
    optimizers = [
        torch.optim.AdamW([model.fc.weight]),
        torch.optim.SGD([model.fc.bias, model.conv.bias], 0.1, momentum=0.9),
    ]
    apply_masks(model, masks, optimizers)
    for number in range(4):
        if number == 2:
            model.conv.weight.requires_grad_()
            optimizers[1].add_param_group({"params": [model.conv.weight], "weight_decay": 0.1})
        before = model.conv.weight.detach().clone()
        for optimizer in optimizers:
            optimizer.zero_grad()
        loss_of(model, number).backward()
        for optimizer in optimizers:
            optimizer.step()
        assert pruned_are_zero(model, masks)
        assert torch.equal(before, model.conv.weight) == (number < 2)
    assert all(zeros(one) for one in memory_of(optimizers[1], masks, model))


def test_a_compiled_model():
    model = net()
    masks = masks_for(model)
    reference = ByHand(model, masks)
    theirs = torch.optim.Adam(reference.model.parameters(), lr=0.1, weight_decay=0.1)
    compiled = torch.compile(model, backend="eager")
    optimizer = torch.optim.Adam(compiled.parameters(), lr=0.1, weight_decay=0.1)
    apply_masks(compiled, masks, optimizer)
    for number in range(2):
        step_of(compiled, optimizer, number)
        reference.step(theirs, number)
        assert pruned_are_zero(model, masks)
        assert equal(model, reference.model)


# Each in a process of its own, which ends at once: taking a process group apart waits for a thread of gloo's, which may
# itself wait for Python.
TWO = """
import os
import sys
import torch
from test_applied import together

rank, folder = int(sys.argv[1]), sys.argv[2]
torch.save(together(rank, f"{folder}/store").state_dict(), f"{folder}/{rank}.pt")
os._exit(0)
"""


def together(rank: int, store: str) -> nn.Module:
    """Steps in one of two processes, each with half of the batch; the masks are applied before and after wrapping."""
    distributed.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2)
    model = net()
    masks = masks_for(model)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1, weight_decay=0.1)
    apply_masks(model, {"conv.weight": masks["conv.weight"]}, optimizer)
    wrapped = nn.parallel.DistributedDataParallel(model)
    apply_masks(wrapped, {"fc.weight": masks["fc.weight"]}, optimizer)
    for number in range(3):
        optimizer.zero_grad()
        wrapped(batch(2 * number + rank)).square().mean().backward()
        optimizer.step()
        assert pruned_are_zero(model, masks)
    return model


def test_two_processes(tmp_path):
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests")])}
    command = [sys.executable, "-c", TWO]
    both = [subprocess.Popen([*command, str(rank), str(tmp_path)], env=environment) for rank in (0, 1)]
    try:
        assert [one.wait(120) for one in both] == [0, 0]
    finally:
        for one in both:
            one.kill()
    models = [net() for _ in both]
    for rank, model in enumerate(models):
        model.load_state_dict(torch.load(tmp_path / f"{rank}.pt"))
    masks = masks_for(models[0])
    reference = ByHand(net(), masks)
    theirs = torch.optim.AdamW(reference.model.parameters(), lr=0.1, weight_decay=0.1)
    for number in range(3):
        theirs.zero_grad()
        losses = [reference.model(batch(2 * number + rank)).square().mean() for rank in range(2)]
        (sum(losses) / 2).backward()
        for weight, mask in reference.masks.items():
            weight.grad.mul_(mask)
        theirs.step()
        reference.weights()
    for model in models:
        for one, expected in zip(model.parameters(), reference.model.parameters(), strict=True):
            torch.testing.assert_close(one, expected, rtol=1e-4, atol=1e-5)


# Weights that are written by others


def test_a_dense_state_dict_is_masked_as_it_is_loaded():
    model, dense = net(), net(seed=3).state_dict()
    masks = masks_for(model)
    handle = apply_masks(model, masks, torch.optim.SGD(model.parameters(), 0.1))
    model.load_state_dict(dense)
    assert pruned_are_zero(model, masks)
    kept = torch.from_numpy(masks["fc.weight"])
    assert torch.equal(model.fc.weight[kept], dense["fc.weight"][kept])
    model.fc.load_state_dict({"weight": dense["fc.weight"], "bias": dense["fc.bias"]})
    assert pruned_are_zero(model, masks)
    model.load_state_dict({name: one.clone() for name, one in dense.items()}, assign=True)
    assert pruned_are_zero(model, masks)
    with torch.no_grad():
        model.fc.weight.fill_(float("nan"))
    assert not pruned_are_zero(model, masks)
    handle.enforce()
    assert pruned_are_zero(model, masks)
    handle.remove()
    model.load_state_dict(dense)
    assert equal(model, net(seed=3))


def test_removed_it_is_gone():
    model = net()
    masks = masks_for(model)
    optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9)
    with apply_masks(model, masks, optimizer) as handle:
        assert isinstance(handle, AppliedMasks)
        step_of(model, optimizer, 0)
        before = copy.deepcopy(model)
    assert equal(model, before)
    hooks = (optimizer._optimizer_step_pre_hooks, optimizer._optimizer_step_post_hooks)
    assert not any((*hooks, optimizer._optimizer_load_state_dict_post_hooks))
    assert not model.fc._load_state_dict_post_hooks
    assert not model.fc.weight._post_accumulate_grad_hooks
    handle.remove()
    step_of(model, optimizer, 1)
    assert not pruned_are_zero(model, masks)
    handle.enforce()  # of the weights: the optimizer is none of its own now
    assert pruned_are_zero(model, masks)
    assert all(one.all() for one in memory_of(optimizer, masks, model))


def test_without_an_optimizer_weights_are_0_once():
    model = net()
    masks = masks_for(model)
    apply_masks(model, masks)
    assert pruned_are_zero(model, masks)
    model.load_state_dict(net().state_dict())
    assert equal(model, net())


@pytest.mark.parametrize("parametrize", [False, True])
def test_layers_that_a_mask_does_not_name_are_told_of(parametrize, recwarn):
    masks = {"conv.weight": np.ones((3, 2, 3, 3), dtype=bool)}
    masks["conv.weight"][0] = False
    mask = Mask(masks)
    for model in (net(), torch.compile(net()), AveragedModel(net())):
        handle = mask.apply(model, parametrize=parametrize)
        assert (handle.count.whole, handle.count.kept, handle.count.total) == (("fc.weight",), 36 + 48, 54 + 48)
    told = {str(one.message) for one in recwarn if one.category is PaiWarning}
    assert told == {
        "the mask: does not name every layer of the model: with fc.weight the network keeps 84 of 102 weights, density "
        "0.8235"
    }
    recwarn.clear()
    full = Mask({**masks, "fc.weight": np.eye(4, 12, dtype=bool)}).apply(net())
    assert (full.count.whole, full.count.density) == ((), (36 + 4) / 102)
    assert not recwarn


def test_a_mask_that_moves():
    model = net()
    masks = masks_for(model)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.1, weight_decay=0.1)
    handle = apply_masks(model, masks, optimizer)
    step_of(model, optimizer, 0)
    moved = masks_for(model, seed=1)
    grown = torch.from_numpy(moved["fc.weight"] & ~masks["fc.weight"])
    untouched = model.conv.weight.detach().clone()
    handle.set({"fc.weight": moved["fc.weight"]})
    now = {"conv.weight": masks["conv.weight"], "fc.weight": moved["fc.weight"]}
    assert pruned_are_zero(model, now)
    assert all(zeros(one) for one in memory_of(optimizer, now, model))
    assert torch.equal(model.conv.weight, untouched)
    assert zeros(model.fc.weight[grown])
    assert all((handle.masks[name] == mask).all() and mask.any() for name, mask in now.items())
    step_of(model, optimizer, 1)
    assert pruned_are_zero(model, now)
    assert model.fc.weight[grown].all()


@pytest.mark.parametrize(
    "masks",
    [{"fc.bias": np.ones(4, bool)}, {"fc.weight": np.zeros((4, 12), bool), "conv.weight": np.ones((3, 2), bool)}],
    ids=["name", "shape"],
)
def test_a_mask_that_cannot_move_there_moves_nothing(masks):
    model = net()
    handle = apply_masks(model, masks_for(model))
    before = copy.deepcopy(model)
    with pytest.raises(MaskMismatchError, match=r"^the mask: .*the mask that was applied"):
        handle.set(masks)
    assert equal(model, before)
    assert handle.masks["fc.weight"].any()


# Copies


def test_copies_hold_nothing_of_the_handle():
    model = net()
    masks = masks_for(model)
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    apply_masks(model, masks, optimizer)
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    for one in (copy.deepcopy(model), torch.load(file, weights_only=False)):
        assert equal(one, model)
        one.load_state_dict(net().state_dict())
        assert equal(one, net())
        loss_of(one, 0).backward()
        assert one.fc.weight.grad.all()
    copied = copy.deepcopy(optimizer)
    assert not copied._optimizer_step_pre_hooks


def test_averages_of_zeros_are_zeros_and_dense_ones_are_masked_by_themselves():
    model = net()
    masks = masks_for(model)
    before = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.9))
    before.update_parameters(model)
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    with pytest.raises(ParameterError, match=r"^optimizer=: does not hold 'conv.weight', 'fc.weight'"):
        apply_masks(before, masks, optimizer)
    apply_masks(model, masks, optimizer)
    after = [AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.9)), AveragedModel(model)]
    step_of(model, optimizer, 0)
    before.update_parameters(model)
    assert not pruned_are_zero(before.module, masks)
    apply_masks(before, masks)
    for number in range(1, 4):
        step_of(model, optimizer, number)
        for average in (before, *after):
            average.update_parameters(model)
            assert pruned_are_zero(average.module, masks)
    assert not equal(before.module, model)


def test_nothing_is_left_of_a_model_that_is_let_go():
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    apply_masks(model, masks_for(model), optimizer)
    gone = weakref.ref(model), weakref.ref(model.fc.weight)
    del model, optimizer
    gc.collect()
    assert [one() for one in gone] == [None, None]


# Kinds of weights


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64, torch.complex64], ids=str)
def test_other_types(dtype):
    model = nn.Linear(6, 5, dtype=dtype)
    mask = np.random.default_rng(0).random((5, 6)) < 0.5
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=0.1)
    handle = apply_masks(model, {"weight": mask}, optimizer)
    kept = torch.from_numpy(mask)
    for _ in range(3):
        before = model.weight.detach().clone()
        optimizer.zero_grad()
        model(torch.ones(2, 6, dtype=dtype)).abs().square().mean().backward()
        optimizer.step()
        assert zeros(model.weight[~kept])
        assert zeros(optimizer.state[model.weight]["momentum_buffer"][~kept])
        assert (model.weight != before)[kept].any()
    assert (handle.masks["weight"] == mask).all()
    with torch.no_grad():
        model.weight.fill_(complex(float("nan"), float("inf")) if dtype.is_complex else float("nan"))
    handle.enforce()
    assert zeros(model.weight[~kept])
    assert model.weight[kept].isnan().all()


def test_a_single_number_is_pruned_and_the_steps_are_counted_on():
    weight = nn.Parameter(torch.tensor(2.0))
    model = nn.Module()
    model.register_parameter("scale", weight)
    optimizer = torch.optim.Adam([weight], lr=0.1)
    for number in range(2):
        optimizer.zero_grad()
        (weight - 1).square().backward()
        optimizer.step()
        apply_masks(model, {"scale": np.zeros((), bool)}, optimizer)
        assert zeros(weight)
        assert optimizer.state[weight]["step"] == number + 1


def test_lbfgs_over_complex_weights():
    model = nn.Linear(4, 3, dtype=torch.complex64)
    mask = np.random.default_rng(0).random((3, 4)) < 0.5
    kept = torch.from_numpy(mask)
    optimizer = torch.optim.LBFGS(model.parameters(), lr=0.1, max_iter=2)

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = (model(torch.ones(1, 4, dtype=torch.complex64)) - 1).abs().square().sum()
        loss.backward()
        return loss

    optimizer.step(closure)
    assert optimizer.state[model.weight]["d"].numel() == 30
    apply_masks(model, {"weight": mask}, optimizer)
    assert not optimizer.state[model.weight]
    optimizer.step(closure)
    assert zeros(model.weight[~kept])
    assert optimizer.state[model.weight]["d"].any()


@pytest.mark.parametrize("parametrize", [False, True])
def test_a_model_without_memory_yet(parametrize):
    with torch.device("meta"):
        model = Net()
    masks = masks_for(model)
    handle = apply_masks(model, masks, parametrize=parametrize)
    assert all((handle.masks[name] == mask).all() for name, mask in masks.items())
    model.to_empty(device="cpu")
    with torch.no_grad():
        for one in model.parameters():
            one.fill_(1)
    handle.enforce()
    handle.remove()
    assert pruned_are_zero(model, masks)
    assert model.fc.weight[torch.from_numpy(masks["fc.weight"])].all()


def test_a_model_that_is_converted():
    model = net()
    masks = masks_for(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, weight_decay=0.1)
    handle = apply_masks(model, masks, optimizer)
    step_of(model, optimizer, 0)
    model.double()
    for number in range(2):
        before = copy.deepcopy(model)
        step_of(model, optimizer, number)
        assert model.fc.weight.dtype == torch.float64
        assert pruned_are_zero(model, masks)
        assert not equal(model, before)
    assert all((handle.masks[name] == mask).all() for name, mask in masks.items())


def test_one_weight_under_two_names():
    model = nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 4))
    model[2].weight = model[0].weight
    mask, other = np.eye(4, dtype=bool), np.tri(4, dtype=bool)
    mask.flags.writeable = False  # as a mask's own arrays are
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    handle = apply_masks(model, {"0.weight": mask, "2.weight": mask}, optimizer)
    assert list(handle.masks) == ["0.weight"]
    model(torch.ones(1, 4)).sum().backward()
    optimizer.step()
    assert zeros(model[2].weight[~torch.eye(4, dtype=torch.bool)])
    handle.set({"2.weight": other})
    assert (handle.masks["0.weight"] == other).all()
    differ = r"^the mask: the masks of '0.weight' and '2.weight' differ, and in this network they are one weight; give "
    with pytest.raises(MaskMismatchError, match=differ):
        handle.set({"0.weight": mask, "2.weight": other})
    with pytest.raises(MaskMismatchError, match=differ):
        apply_masks(model, {"0.weight": mask, "2.weight": other})


def test_a_sparse_gradient():
    model = nn.Embedding(5, 3, sparse=True)
    mask = np.random.default_rng(0).random((5, 3)) < 0.5
    optimizer = torch.optim.SparseAdam(model.parameters(), lr=0.1)
    apply_masks(model, {"weight": mask}, optimizer)
    for _ in range(2):
        optimizer.zero_grad()
        model(torch.tensor([0, 2, 3])).square().sum().backward()
        optimizer.step()
        assert zeros(model.weight[~torch.from_numpy(mask)])
        assert model.weight[torch.from_numpy(mask)].all()


# By torch.nn.utils.parametrize


def test_parametrized_every_pass_masks_and_the_optimizer_goes_on():
    model = net()
    masks = masks_for(model)
    reference = ByHand(model, masks)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.1, weight_decay=0.1)
    theirs = torch.optim.Adam(reference.model.parameters(), lr=0.1, weight_decay=0.1)
    names, weight = list(model.state_dict()), model.fc.weight
    handle = apply_masks(model, masks, optimizer, parametrize=True)
    assert list(model.state_dict()) == [
        *("conv.bias", "conv.parametrizations.weight.original"),
        *("fc.bias", "fc.parametrizations.weight.original"),
    ]
    for number in range(2):
        step_of(model, optimizer, number)
        reference.step(theirs, number)
        assert zeros(model.fc.weight[torch.from_numpy(~masks["fc.weight"])])
        assert torch.equal(model.fc.weight, reference.model.fc.weight)
    with torch.no_grad():
        weight.fill_(float("inf"))
    assert zeros(model.fc.weight[torch.from_numpy(~masks["fc.weight"])])
    moved = masks_for(net(), seed=1)
    handle.set(moved)
    assert zeros(model.fc.weight[torch.from_numpy(~moved["fc.weight"])])
    assert model.fc.weight.isinf()[torch.from_numpy(moved["fc.weight"] & masks["fc.weight"])].all()
    handle.remove()
    handle.remove()
    assert sorted(model.state_dict()) == sorted(names)
    assert model.fc.weight is weight
    assert pruned_are_zero(model, moved)
    assert (handle.masks["fc.weight"] == moved["fc.weight"]).all()


def test_parametrized_without_an_optimizer_it_is_masked_still():
    model = net()
    masks = masks_for(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=0.1)
    handle = apply_masks(model, masks, parametrize=True)
    for number in range(2):
        step_of(model, optimizer, number)
    assert pruned_are_zero_by(model, masks)
    again = copy.deepcopy(model)
    with torch.no_grad():
        again.fc.parametrizations.weight.original.fill_(1.0)
    assert pruned_are_zero_by(again, masks)
    handle.remove()
    assert pruned_are_zero(model, masks)


def pruned_are_zero_by(model: Any, masks: dict[str, np.ndarray]) -> bool:
    """Of weights that are parametrized."""
    weights = {"conv.weight": model.conv.weight, "fc.weight": model.fc.weight}
    return all(zeros(weights[name][torch.from_numpy(~mask)]) for name, mask in masks.items())


# Refused


THEIRS = "give the model that the masks were made for"


def wrong_name(model: Net) -> dict[str, Any]:
    return {"masks": {"nowhere": np.ones(3, bool)}}


def wrong_shape(model: Net) -> dict[str, Any]:
    return {"masks": {"fc.weight": np.ones((12, 4), bool)}}


def of_floats(model: Net) -> dict[str, Any]:
    return {"masks": {"fc.weight": np.ones((4, 12))}}


def of_torch(model: Net) -> dict[str, Any]:
    return {"masks": {"fc.weight": torch.ones(4, 12, dtype=torch.bool)}}


def no_optimizer(model: Net) -> dict[str, Any]:
    return {"optimizer": [torch.optim.SGD(model.parameters()), "sgd"]}


def elsewhere(model: Net) -> dict[str, Any]:
    return {"optimizer": torch.optim.SGD([model.conv.weight, model.fc.bias])}


def sharded(model: Net) -> dict[str, Any]:
    model.fc.weight.placements = ()
    return {}


@pytest.mark.parametrize(
    ("case", "error", "text"),
    [
        (wrong_name, MaskMismatchError, f"the mask: masks 'nowhere', which the model does not have; {THEIRS}"),
        (
            wrong_shape,
            MaskMismatchError,
            f"the mask: does not fit the model: 'fc.weight' is 12x4 here and 4x12 there; {THEIRS}",
        ),
        (of_floats, ArrayError, "the masks: that of 'fc.weight' is an array of float64; give a NumPy array of bool"),
        (of_torch, ArrayError, "the masks: that of 'fc.weight' is a Tensor; give a NumPy array of bool"),
        (no_optimizer, ParameterError, "optimizer=: is a str; give a torch.optim.Optimizer, or a list of them"),
        (
            elsewhere,
            ParameterError,
            "optimizer=: does not hold 'fc.weight', which the masks prune; give the optimizer that trains it, a list of "
            "all, or set requires_grad to False",
        ),
        (
            sharded,
            ParameterError,
            "model=: 'fc.weight' is sharded over processes; give a model whose parameters are whole",
        ),
    ],
    ids=lambda one: getattr(one, "__name__", ""),
)
def test_refused_and_nothing_changed(case, error, text):
    model = net()
    given = {"masks": masks_for(model), **case(model)}
    with pytest.raises(error) as caught:
        apply_masks(model, **given)
    assert str(caught.value) == text
    assert equal(model, net())


def test_a_parameter_that_is_replaced_by_something_else_is_told():
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    apply_masks(model, masks_for(model), optimizer)
    torch.nn.utils.parametrizations.weight_norm(model.fc)
    with pytest.raises(
        MaskMismatchError, match=r"^model=: 'fc.weight' is masked, and no longer a parameter; remove\(\)"
    ):
        optimizer.step()


def test_an_optimizer_in_another():
    """As Hugging Face's Accelerate wraps them: an Optimizer by class, without hooks of its own."""

    class Wrapping(Optimizer):
        def __init__(self, optimizer: Optimizer):
            self.optimizer = optimizer

        def step(self, closure: Any = None) -> Any:
            return self.optimizer.step(closure)

    model = net()
    masks = masks_for(model)
    optimizer = Wrapping(torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9))
    apply_masks(model, masks, optimizer)
    loss_of(model, 0).backward()
    optimizer.step()
    assert pruned_are_zero(model, masks)
