"""What a step of training asks of a device: nothing is sent, nothing is waited for, and launches have a budget."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from dispatched import dispatched
from networks import slim_network
from torch import nn
from trainings import SIDE, equal, masks_of, recipe, residual, through_a_file, toy, trainer, with_dropout

from pai_cli.models.network import Network
from pai_cli.models.registry import known_names
from pai_cli.random import generator_for
from pai_cli.training import loop, steps
from pai_cli.training.examples import Augment, Examples, prepare
from pai_cli.training.loop import Trainer
from pai_cli.training.model import may_draw
from pai_cli.training.process import Process
from pai_cli.training.recipe import Augmentation, Optimizer
from pai_cli.training.run import Run
from pai_cli.training.state import by_one_transfer, state_dict_of

DEVICE = "cpu:0"  # worked on as a GPU is, on CPU tensors
WIDER = ("vit-small-patch16-224", "vit-base-patch16-224")  # as vit-tiny, and not to be had slim


def away(network: Network, **options: Any) -> Trainer:
    """A training that takes the way of a device."""
    wish = recipe(**{"epochs": 12, **options})
    data = prepare(toy(), None, wish, network.input_shape, DEVICE)
    return Trainer(network, masks_of(network), wish, data, Run(Process(device=DEVICE)))


@pytest.mark.parametrize(
    ("options", "most"),
    [({}, 86), ({"augment": Augmentation.CROP_FLIP}, 90), ({"optimizer": Optimizer.ADAM}, 88)],
    ids=["sgd", "crop-flip", "adam"],
)
def test_a_step_sends_nothing_and_waits_for_nothing(options, most):
    run = away(residual(), **options)
    run._advance(run.steps)  # the first step of an epoch makes the epoch ready
    assert run.steps_in_epoch == 4
    found = dispatched(lambda: [run._advance(run.steps) for _ in range(2)])
    assert run.step == 3
    assert (found.waits.total(), found.sends) == (0, 0)
    assert found.launches.total() / 2 <= most


def test_the_loss_is_read_every_fifty_steps_and_at_the_end_of_an_epoch():
    run = away(residual(), epochs=40)
    waits = []
    while run.step < 104:
        step = run.step
        found = dispatched(lambda: run._advance(run.steps)).waits.total()
        if run.step > step:
            waits += [step] * found
    assert waits == [0, 50, 100]
    run = away(residual())
    while run.step < run.steps_in_epoch:
        run._advance(run.steps)
    found = dispatched(lambda: run._advance(run.steps))
    assert run.evaluated == 1
    assert found.waits.total() == 2  # what was trained, and what is held out; the best weights are one transfer a type


def test_an_iteration_of_the_rescaling_waits_twice():
    run = away(residual(), rescale=True)
    found = dispatched(lambda: [run._advance(run.steps) for _ in range(4)])
    assert run.rescaling is not None
    assert run.rescaling.state.done == 4
    # Beside these, the scales are read, and whether their derivatives are finite: both are the host's.
    assert found.waits.total() - 2 * 4 == 2 * 4


def reference(images: np.ndarray, random: np.random.Generator, *, pad: int, flip: bool) -> np.ndarray:
    """Padded, cut out and turned, an image at a time."""
    count, _, height, width = images.shape
    tops, lefts = random.integers(0, 2 * pad + 1, (2, count, 1))
    turned = random.random(count) < 0.5 if flip else np.zeros(count, bool)
    padded = np.pad(images, ((0, 0), (0, 0), (pad, pad), (pad, pad)))
    cut = [one[:, t : t + height, s : s + width] for one, t, s in zip(padded, tops[:, 0], lefts[:, 0], strict=True)]
    return np.stack([one[:, :, ::-1] if turn else one for one, turn in zip(cut, turned, strict=True)])


@pytest.mark.parametrize("world", [1, 2])
@pytest.mark.parametrize(("pad", "flip"), [(0, False), (1, False), (2, True), (0, True)])
def test_batches_are_those_of_a_plain_loop(pad, flip, world):
    data = toy()
    examples = Examples(data, np.arange(len(data)), (3, SIDE, SIDE), "cpu")
    inputs, labels = data.examples(np.arange(len(data))), data.labels
    for rank in range(world):
        run = trainer(residual(), {}, recipe(batch_size=8))
        run.examples, run.augment = examples, Augment(pad, flip)
        run.process, run.batch = Process(rank, world), 8 * world
        run.steps_in_epoch = examples.batches_in_epoch(8, world)
        for step in (3, 4, 2, run.steps_in_epoch + 1):  # also backwards, and into another epoch
            run.step = step
            epoch, within = divmod(step, run.steps_in_epoch)
            order = generator_for(0, f"order of epoch {epoch}").permutation(len(data))
            places = order[within * run.batch : (within + 1) * run.batch]
            random = generator_for(0, f"augmentation of step {step}")
            expected = reference(inputs[places], random, pad=pad, flip=flip) if pad or flip else inputs[places]
            found, of = run._training_batch()
            part = slice(rank * 8, (rank + 1) * 8)
            assert np.array_equal(found.numpy(), expected[part])
            assert np.array_equal(of.numpy(), labels[places][part])


def test_batches_in_order_are_copies():
    data = toy()
    examples = Examples(data, np.arange(len(data)), (3, SIDE, SIDE), "cpu")
    for every in (slice(None), slice(1, None, 3)):
        places = np.arange(len(data))[every]
        batches = list(examples.in_order(7, every))
        assert torch.equal(torch.cat([one for one, _ in batches]), examples.batch(places)[0])
        assert np.array_equal(torch.cat([one for _, one in batches]).numpy(), data.labels[places])
        for one, _ in batches:
            one.zero_()
        assert examples.batch(places)[0].any()


class Drawing(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + torch.rand_like(x)


def test_which_networks_may_draw():
    assert not may_draw(residual().model)
    assert may_draw(with_dropout().model)
    for part in (
        Drawing(),
        nn.RReLU(),
        nn.FractionalMaxPool2d(2, 3),
        nn.MultiheadAttention(4, 2, 0.1),
        nn.LSTM(3, 3, 2),
    ):
        assert may_draw(nn.Sequential(nn.Linear(3, 3), part))
    hooked, changed = nn.Linear(3, 3), nn.Linear(3, 3)
    hooked.register_forward_hook(lambda _, __, output: torch.rand_like(output))
    changed.forward = torch.rand_like  # type: ignore[method-assign]
    assert may_draw(hooked)
    assert may_draw(changed)
    assert may_draw(nn.utils.parametrizations.spectral_norm(nn.Linear(3, 3)))


@pytest.mark.parametrize("name", [name for name in known_names() if "-A-" not in name and name not in WIDER])
def test_networks_that_are_said_not_to_draw_do_not(name):
    network = slim_network(name)
    if may_draw(network.model):
        return
    before = torch.get_rng_state()
    assert network.input_shape is not None
    with torch.no_grad():
        network.model.train()(torch.zeros(2, *network.input_shape))
    assert torch.equal(torch.get_rng_state(), before)


def test_only_a_network_that_may_draw_is_seeded_at_every_step(monkeypatch):
    seeds = []
    monkeypatch.setattr(steps, "seed_torch", lambda seed, _: seeds.append(seed))
    trainer(residual(), {}, recipe()).train(3)
    assert seeds == []
    trainer(with_dropout(), {}, recipe()).train(3)
    assert len(set(seeds)) == 3


def test_copies_come_by_one_transfer_a_type():
    model = residual().model
    tensors = model.state_dict()
    copies: dict[str, torch.Tensor] = {}
    found = dispatched(lambda: copies.update(by_one_transfer(tensors)))
    assert found.waits == {"cpu": len({one.dtype for one in tensors.values()})}
    assert equal(copies, state_dict_of(model))
    assert list(copies) == list(tensors)
    assert all(copies[name].shape == one.shape for name, one in tensors.items())
    assert len({one.untyped_storage().data_ptr() for one in copies.values()}) == len(copies)
    assert not {one.data_ptr() for one in copies.values()} & {one.data_ptr() for one in tensors.values()}


def mixed(network: Network, run: Run | None = None) -> Trainer:
    return trainer(network, masks_of(network), recipe(amp=True, epochs=3), run)


def is_last(one: torch.Tensor) -> bool:
    return one.is_contiguous(memory_format=torch.channels_last)


def test_mixed_precision_orders_channels_last_and_keeps_what_is_pruned_at_zero(monkeypatch, tmp_path: Path):
    monkeypatch.setattr(loop, "check_amp", lambda _: None)  # bfloat16 works on a CPU too, only slower
    network = residual()
    run = mixed(network)
    for step in range(run.steps):
        run.train(step + 1)
        for name, weight in run.masked.weights.items():
            pruned = torch.from_numpy(~run.masked.masks[name])
            assert not weight.detach()[pruned].contiguous().view(torch.int32).any()
            assert weight.dim() < 4 or is_last(weight)
            assert weight.dim() < 4 or is_last(run.masked._weights[name].words)
            assert weight.dim() < 4 or is_last(run.optimizer.state[weight]["momentum_buffer"])
        if step == 4:
            state = through_a_file(run.state(), tmp_path)
    run.train()
    again = mixed(network)
    again.load(state)
    for weight in again.masked.weights.values():
        assert again.optimizer.state[weight]["momentum_buffer"].stride() == weight.stride()
    again.train()
    assert equal(again.finish().last, run.finish().last)
    for name, mask in run.finish().masks.items():
        assert mask.flags.c_contiguous
        assert np.array_equal(mask, masks_of(network)[name])
    assert all(is_last(one) or one.dim() < 4 for one in run.model.parameters())
    plain = trainer(network, masks_of(network), replace(run.recipe, amp=False))
    assert all(one.is_contiguous() for one in plain.model.parameters())
