"""The training loop: exact masks, resuming bit for bit, the parts of ToST, moving masks."""

from __future__ import annotations

import copy
import math
import os
import signal

import numpy as np
import pytest
import torch
from networks import slim_network, wrap
from torch import nn
from trainings import (
    CLASSES,
    RIGL,
    SIDE,
    TOST,
    batch_of,
    bottleneck,
    data_for,
    equal,
    fit,
    masks_of,
    recipe,
    residual,
    through_a_file,
    toy,
    trainer,
    with_dropout,
)

from pai_cli.data.arrays import ArrayDataset
from pai_cli.data.images import ImageDataset
from pai_cli.data.normalise import Normalisation
from pai_cli.errors import DataError, RecipeError, ScoreError, TrainingError
from pai_cli.models.network import init_network
from pai_cli.models.unrolled.paths import Unrolled
from pai_cli.models.unrolled.tape import unroll
from pai_cli.random import generator_for
from pai_cli.training import loop, rescale, tost
from pai_cli.training.applied import apply_masks
from pai_cli.training.dynamic import Move, MoveTies, moved
from pai_cli.training.examples import Augment, augmentation, prepare
from pai_cli.training.loop import Run
from pai_cli.training.model import Score, cross_entropy, evaluate, has_idle, logits_of
from pai_cli.training.recipe import Augmentation, Dynamic, Optimizer, Recipe, Schedule


@pytest.fixture(autouse=True)
def few_iterations(monkeypatch):
    """Six iterations of the re-scaling, not 180."""
    monkeypatch.setattr(rescale, "ITERATIONS", 6)


# Masks


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"optimizer": Optimizer.ADAM, "lr": 0.01, "weight_decay": 0.1},
        {"weight_decay": 0.1, "schedule": Schedule.COSINE},
        TOST,
        RIGL,
        {**TOST, "dynamic": Dynamic.SET, "update_every": 3},
        {"dynamic": Dynamic.GMP, "update_every": 2},
        {"dynamic": Dynamic.GRANET, "update_every": 2, "optimizer": Optimizer.ADAM, "lr": 0.01},
        {"dynamic": Dynamic.SRIGL, "update_every": 2},
    ],
    ids=["sgd", "adam", "cosine", "tost", "rigl", "tost-set", "gmp", "granet-adam", "srigl"],
)
def test_pruned_weights_and_their_state_are_zero_after_every_step(options):
    network = residual()
    run = trainer(network, masks_of(network), recipe(**options, epochs=3))
    counts = {name: int(mask.sum()) for name, mask in masks_of(network).items()}
    for step in range(run.steps):
        run.train(step + 1)
        for name, mask in run.masked.masks.items():
            weight = run.model.get_parameter(name)
            pruned = weight.detach()[torch.from_numpy(~mask)]
            assert not pruned.view(torch.int32).any(), f"{name} at step {step}"  # +0.0, to the bit
            assert int(mask.sum()) == counts[name] or run.recipe.dynamic not in (None, Dynamic.SET, Dynamic.RIGL)
            for value in run.optimizer.state.get(weight, {}).values():
                if isinstance(value, torch.Tensor) and value.dim():
                    assert not value[torch.from_numpy(~mask)].any()
    assert any(value.any() for value in run.optimizer.state[run.model.get_parameter("conv1.weight")].values())
    result = run.finish()
    for tensors in (result.weights, result.last):
        assert all(not tensors[name].numpy()[~mask].any() for name, mask in result.masks.items())


def test_the_steps_are_those_of_sgd_on_masked_weights():
    """Against the plainest loop there is: float64, weights multiplied by the mask in every forward pass."""
    network = wrap(nn.Sequential(nn.Flatten(), nn.Linear(108, 8), nn.ReLU(), nn.Linear(8, 4)).double(), (3, SIDE, SIDE))
    masks = masks_of(network)
    wish = recipe(weight_decay=0.01, epochs=2)
    run = trainer(network, masks, wish)
    theirs = copy.deepcopy(network.model)
    held = {name: torch.from_numpy(mask).double() for name, mask in masks.items()}
    optimizer = torch.optim.SGD(theirs.parameters(), lr=0.05, momentum=0.9, weight_decay=0.01)
    for step in range(run.steps):
        run.step = step
        inputs, labels = batch_of(run)
        run.step = step
        with torch.no_grad():
            for name, mask in held.items():
                theirs.get_parameter(name).mul_(mask)
        optimizer.param_groups[0]["lr"] = wish.lr_at(step, run.steps)
        optimizer.zero_grad()
        nn.functional.cross_entropy(theirs(inputs.double()), labels).backward()
        optimizer.step()
        run.train(step + 1)
    for name, tensor in run.model.state_dict().items():
        expected = theirs.state_dict()[name] * held.get(name, 1)
        torch.testing.assert_close(tensor, expected, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_the_steps_of_half_precision_are_those_of_sgd(dtype):
    network = with_dropout()
    network.model.to(dtype)
    run = trainer(network, {}, recipe(lr=0.01))
    run.model[2] = nn.Identity()
    theirs = copy.deepcopy(run.model).train()
    optimizer = torch.optim.SGD(theirs.parameters(), lr=0.01, momentum=0.9, weight_decay=2e-4)
    for step in range(3):
        inputs, labels = batch_of(run)
        optimizer.zero_grad()
        nn.functional.cross_entropy(theirs(inputs.to(dtype)).float(), labels).backward()
        optimizer.step()
        run.train(step + 1)
    assert equal(run.model.state_dict(), theirs.state_dict())


def test_a_gradient_that_is_nowhere_is_passed_over():
    model = nn.ModuleDict({"used": nn.Linear(3, 3), "idle": nn.Linear(3, 3)})
    masks = {"used.weight": np.eye(3, dtype=bool), "idle.weight": np.eye(3, dtype=bool)}
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    apply_masks(model, masks, optimizer)
    model["used"](torch.ones(2, 3)).sum().backward()
    optimizer.step()
    assert not model["used"].weight.detach()[~torch.eye(3, dtype=torch.bool)].any()
    assert (model["used"].weight.grad == 2 * torch.eye(3)).all()


def test_mixed_precision_gives_float32_logits_near_those_of_float32():
    """As on a GPU: autocast runs on a CPU too, where `--amp` is refused for gaining nothing."""
    model, inputs = residual().model.eval(), torch.randn(4, 3, SIDE, SIDE)
    with torch.no_grad():
        full, mixed = logits_of(model, inputs), logits_of(model, inputs, amp=True)
    assert mixed.dtype == torch.float32
    assert not torch.equal(full, mixed)
    torch.testing.assert_close(mixed, full, rtol=0.05, atol=0.05)


def test_without_a_mask_every_weight_is_trained():
    network = with_dropout()
    result = fit(network, {}, recipe(epochs=1), data_for(recipe(), network))
    assert result.masks == {}
    assert all((result.last[name] != value).any() for name, value in network.model.state_dict().items())


# The same request, the same bits; interrupted or not


@pytest.mark.parametrize(
    ("make", "options"),
    [
        (residual, {}),
        (with_dropout, {"optimizer": Optimizer.ADAM, "lr": 0.003, "augment": Augmentation.CROP_FLIP}),
        (residual, TOST),
        (bottleneck, {**TOST, **RIGL}),
        (with_dropout, {"soft_neurons": True, "dynamic": Dynamic.SET, "update_every": 2}),
        (with_dropout, {"dynamic": Dynamic.GMP, "update_every": 2}),
        (residual, {"dynamic": Dynamic.GRANET, "update_every": 2, "update_from": 0.2, "final_density": 0.2}),
        (residual, {"dynamic": Dynamic.SRIGL, "update_every": 2}),
        (residual, {"steps": 10}),
    ],
    ids=["sgd", "adam-dropout", "tost", "tost-rigl", "soft-set", "gmp", "granet", "srigl", "steps"],
)
def test_interrupted_anywhere_and_resumed_is_the_same_to_the_bit(make, options, tmp_path):
    network = make()
    wish = recipe(**options, epochs=3)
    masks = masks_of(network)
    whole: list = []
    straight = fit(network, masks, wish, data_for(wish, network), Run(record=whole.append))
    pieces: list = []
    run = trainer(network, masks, wish, Run(record=pieces.append))
    points = [0, 3, run.steps_in_epoch, run.steps // 2 + 1, run.steps - 1]
    for point in points:
        run.train(point)
        state = through_a_file(run.state(), tmp_path)
        torch.manual_seed(point)  # what others draw meanwhile
        run = trainer(network, masks, wish, Run(record=pieces.append))
        run.load(state)
    run.train()
    resumed = run.finish()
    assert equal(straight.last, resumed.last)
    assert equal(straight.weights, resumed.weights)
    assert all((straight.masks[name] == resumed.masks[name]).all() for name in masks)
    assert (straight.best_epoch, straight.validation, straight.test) == (
        resumed.best_epoch,
        resumed.validation,
        resumed.test,
    )
    assert [{**one, "seconds": 0} for one in whole] == [{**one, "seconds": 0} for one in pieces]


def test_interrupted_in_the_middle_of_the_rescaling(tmp_path):
    network, wish = residual(), recipe(rescale=True, epochs=1)
    masks = masks_of(network)
    straight = fit(network, masks, wish, data_for(wish, network))
    run = trainer(network, masks, wish)
    for _ in range(3):
        run._advance(run.steps)
    again = trainer(network, masks, wish)
    again.load(through_a_file(run.state(), tmp_path))
    again.train()
    assert equal(straight.last, again.finish().last)


def test_a_signal_is_heard_between_steps_and_the_state_kept():
    network, wish = with_dropout(), recipe()
    masks, kept = masks_of(network), []

    def progress(done, total, what=""):
        if done == 3:
            os.kill(os.getpid(), signal.SIGINT)

    before = signal.getsignal(signal.SIGINT)
    data = data_for(wish, network)
    with pytest.raises(KeyboardInterrupt):
        fit(network, masks, wish, data, Run(progress=progress, keep=kept.append))
    assert signal.getsignal(signal.SIGINT) is before
    assert [state.facts["step"] for state in kept] == [3]
    resumed = fit(network, masks, wish, data, state=kept[0])
    assert equal(resumed.last, fit(network, masks, wish, data).last)


@pytest.mark.parametrize(("echo", "steps"), [(0.0, []), (60.0, [1])])
def test_a_second_signal_stops_at_once_unless_it_is_an_echo(echo, steps, monkeypatch):
    monkeypatch.setattr("pai_cli.compute.stopping.ECHO", echo)
    kept = []

    def progress(done, total, what=""):
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGTERM)

    network, wish = with_dropout(), recipe()
    with pytest.raises(KeyboardInterrupt):
        fit(network, {}, wish, data_for(wish, network), Run(progress=progress, keep=kept.append))
    assert [state.facts["step"] for state in kept] == steps


def test_the_state_is_kept_every_so_often():
    network, wish, kept = with_dropout(), recipe(epochs=1), []
    fit(network, {}, wish, data_for(wish, network), Run(keep=kept.append, keep_every=0.0))
    assert [state.facts["step"] for state in kept] == [1, 2, 3, 4, 4]  # after every step, and after the epoch's end


def test_seeds_differ_and_the_world_outside_is_left_alone():
    network = with_dropout()
    before = {name: one.clone() for name, one in network.model.state_dict().items()}
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    wish = recipe(epochs=1)
    first = fit(network, {}, wish, data_for(wish, network))
    assert torch.equal(torch.rand(2), expected)
    assert equal(before, dict(network.model.state_dict()))
    assert equal(first.last, fit(network, {}, wish, data_for(wish, network)).last)
    other = recipe(epochs=1, seed=1)
    assert not equal(first.last, fit(network, {}, other, data_for(other, network)).last)


def test_until_stops_early_with_the_learning_rates_of_the_whole_run():
    network, wish = with_dropout(), recipe(schedule=Schedule.COSINE)
    data = data_for(wish, network)
    there = fit(network, {}, wish, data, until=5)
    run = trainer(network, {}, wish)
    run.train(5)
    assert run.step == 5
    assert equal(there.last, run.finish().last)
    assert there.best_epoch == 1


# Choosing the epoch; the test part


def test_the_best_epoch_is_taken_and_the_test_part_looked_at_once(monkeypatch):
    network, wish = with_dropout(), recipe(epochs=5)
    data = data_for(wish, network)
    asked = []
    test = data.test.in_order
    monkeypatch.setattr(data.test, "in_order", lambda *given: asked.append(1) or test(*given))
    told: list = []
    result = fit(network, {}, wish, data, Run(record=told.append))
    assert asked == [1]
    accuracies = [(one["validation_accuracy"], -one["validation_loss"]) for one in told]
    assert result.best_epoch == 1 + accuracies.index(max(accuracies))
    model = copy.deepcopy(network.model)
    model.load_state_dict(result.weights)
    assert evaluate(model, data.validation.in_order(7)).correct == result.validation.correct
    again = evaluate(model, data.test.in_order(7))
    assert again.correct == result.test.correct
    assert again.loss == pytest.approx(result.test.loss)
    assert result.test.count == 24


def test_a_tie_goes_to_the_smaller_loss_then_to_the_earlier_epoch():
    from pai_cli.training.run import Best

    best = Best(1, Score(5, 10, 0.5), {})
    assert best.beaten_by(Score(5, 10, 0.4))
    assert not best.beaten_by(Score(5, 10, 0.5))
    assert not best.beaten_by(Score(4, 10, 0.1))


def test_parts_that_are_absent_hold_no_epoch_back():
    network, told = with_dropout(), []
    wish = recipe(ghost_skips=True)
    fit(network, masks_of(network), wish, data_for(wish, network), Run(record=told.append))
    assert [one["settled"] for one in told] == [True] * 4


@pytest.mark.parametrize("options", [TOST, RIGL])
def test_only_epochs_of_the_final_network_and_mask_can_be_the_best(options):
    network, told = residual(), []
    wish = recipe(**options)
    result = fit(network, masks_of(network), wish, data_for(wish, network), Run(record=told.append))
    settled = [one["settled"] for one in told if "epoch" in one]
    assert settled in ([False, True, True, True], [False, False, True, True])
    assert result.best_epoch > settled.index(True)


def test_accuracy_and_its_interval():
    model = nn.Sequential(nn.Linear(2, 2, bias=False))
    model[0].weight.data = torch.eye(2)
    inputs = torch.tensor([[2.0, 0.0], [0.0, 2.0], [2.0, 0.0]])
    score = evaluate(model, [(inputs[:2], torch.tensor([0, 1])), (inputs[2:], torch.tensor([1]))])
    assert (score.correct, score.count) == (2, 3)
    right, wrong = math.log(1 + math.exp(-2)), math.log(1 + math.exp(2))
    assert score.loss == pytest.approx((2 * right + wrong) / 3)
    low, high = Score(90, 100, 0.0).interval()
    assert (low, high) == pytest.approx((0.825634, 0.944771), abs=1e-5)  # Wilson's, by hand
    z, p, n = 1.959964, 0.9, 100
    middle = (p + z * z / 2 / n) / (1 + z * z / n)
    assert (low + high) / 2 == pytest.approx(middle)


# Data


def test_the_parts_are_apart_and_every_class_is_held_out():
    data = toy(20)
    parts = prepare(data, None, recipe(validation=0.25), (3, SIDE, SIDE))
    held = set(parts.validation._indices.tolist())
    assert held.isdisjoint(parts.train._indices.tolist())
    assert len(held) + len(parts.train) == 80
    assert [int((data.labels[list(held)] == label).sum()) for label in range(CLASSES)] == [5] * 4
    other = prepare(data, None, recipe(validation=0.25, seed=1), (3, SIDE, SIDE))
    assert set(other.validation._indices.tolist()) != held


def test_a_part_too_large_for_memory_is_read_batch_by_batch(monkeypatch):
    network, wish = with_dropout(), recipe(epochs=1)
    held = fit(network, {}, wish, data_for(wish, network))
    monkeypatch.setattr("pai_cli.training.examples.IN_MEMORY", 0)
    data = data_for(wish, network)
    assert data.train._held is None
    assert equal(held.last, fit(network, {}, wish, data).last)


def test_every_example_is_seen_once_an_epoch():
    network, wish = with_dropout(), recipe(batch_size=9)
    run = trainer(network, {}, wish)
    seen = []
    run.data.train.batch = lambda places, _: (
        seen.extend(places.tolist()) or (torch.zeros(9, 3, 6, 6), torch.zeros(9).long())
    )
    for step in range(2 * run.steps_in_epoch):
        run.step = step
        batch_of(run)
    assert run.steps_in_epoch == 8
    first, second = seen[:72], seen[72:]
    assert sorted(first) == sorted(second) == list(range(72))
    assert first != second


def test_crops_and_flips_are_windows_of_the_padded_image():
    random = np.random.default_rng(0)
    images = torch.arange(4 * 2 * 5 * 6, dtype=torch.float32).reshape(4, 2, 5, 6) + 1
    tops, lefts = np.random.default_rng(0).integers(0, 5, (2, 4, 1))
    out = Augment(2)(images, random)
    padded = nn.functional.pad(images, (2, 2, 2, 2))
    for one in range(4):
        top, left = int(tops[one, 0]), int(lefts[one, 0])
        assert torch.equal(out[one], padded[one, :, top : top + 5, left : left + 6])
    flipped = Augment(0, flip=True)(images, np.random.default_rng(1))
    turned = [torch.equal(flipped[one], images[one].flip(-1)) for one in range(4)]
    same = [torch.equal(flipped[one], images[one]) for one in range(4)]
    assert [a != b for a, b in zip(turned, same, strict=True)] == [True] * 4
    assert any(turned)
    assert any(same)


def test_what_is_usual_for_the_data():
    white = Normalisation(255, (0.5,) * 3, (0.2,) * 3, "")
    labels = np.zeros(2, dtype=np.int64)
    cifar = ArrayDataset("cifar-100", 1, labels, np.zeros((2, 3, 32, 32), np.uint8), white)
    grey = ImageDataset("pets", 1, labels, (1, 32, 32), "L", white, lambda _: ("", b""))
    colour = ImageDataset("pets", 1, labels, (3, 64, 64), "RGB", white, lambda _: ("", b""))
    assert augmentation(Augmentation.AUTO, cifar, (3, 32, 32)) == Augment(4, flip=True)
    assert augmentation(Augmentation.AUTO, colour, (3, 64, 64)) == Augment(8, flip=True)
    assert augmentation(Augmentation.AUTO, grey, (1, 32, 32)) == Augment()
    assert augmentation(Augmentation.AUTO, cifar, (3072,)) == Augment()
    assert augmentation(Augmentation.CROP, grey, (1, 8, 8)) == Augment(1)
    with pytest.raises(RecipeError, match=r"^augment=crop: the network's inputs are no images; leave augment= out$"):
        augmentation(Augmentation.CROP, cifar, (3072,))


# The recipe


def test_learning_rates():
    steps = Recipe(lr=1.0)
    assert [steps.lr_at(step, 8) for step in range(8)] == pytest.approx([1, 1, 1, 1, 0.1, 0.1, 0.01, 0.01])
    cosine = Recipe(lr=1.0, schedule=Schedule.COSINE)
    assert [cosine.lr_at(step, 4) for step in (0, 2)] == pytest.approx([1, 0.5])
    assert cosine.lr_at(4, 4) == pytest.approx(0, abs=1e-15)
    assert Recipe(schedule=Schedule.CONSTANT).lr_at(7, 8) == 0.1
    assert Recipe(optimizer=Optimizer.ADAM).base_lr == 1e-3


def test_the_mask_moves_as_scheduled():
    wish = Recipe(dynamic=Dynamic.SET, update_every=10)
    moves = [step for step in range(100) if wish.updates_at(step, 100)]
    assert moves == [10, 20, 30, 40, 50, 60, 70]
    assert wish.last_update(100) == 70
    assert wish.moved_share(0, 100) == 0.3
    assert wish.moved_share(75, 100) == pytest.approx(0)
    assert wish.moved_share(37.5, 100) == pytest.approx(0.15)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"epochs": 0}, "epochs=0: must be 1 or more"),
        ({"batch_size": -1}, "batch_size=-1: must be 1 or more"),
        ({"lr": 0.0}, "lr=0: must be above 0, and finite"),
        ({"lr": math.nan}, "lr=nan: must be above 0, and finite"),
        ({"lr": math.inf}, "lr=inf: must be above 0, and finite"),
        ({"weight_decay": -1.0}, "weight_decay=-1: must be 0 or more, and finite"),
        ({"validation": 1.0}, "validation=1: must be above 0 and below 1"),
        ({"early": 0.0}, "early=0: must be above 0 and below 1"),
        ({"update_fraction": 2.0}, "update_fraction=2: must be above 0 and below 1"),
        ({"label_smoothing": 1.0}, "label_smoothing=1: must be 0 or more and below 1"),
        ({"final_density": 1.0}, "final_density=1: must be above 0 and below 1"),
        ({"min_salient": 1.0}, "min_salient=1: must be 0 or more and below 1"),
        ({"update_from": -0.1}, "update_from=-0.1: must be 0 or more and below 1"),
        ({"steps": 0}, "steps=0: must be 1 or more"),
    ],
)
def test_numbers_out_of_range(options, text):
    with pytest.raises(RecipeError) as caught:
        Recipe(**options)
    assert str(caught.value) == text


# What cannot be trained


def test_refused():
    network = with_dropout()

    def told(error, wish, network=network, masks=None):
        with pytest.raises(error) as caught:
            fit(network, masks_of(network) if masks is None else masks, wish, data_for(wish, with_dropout()))
        return str(caught.value)

    assert told(RecipeError, recipe(batch_size=100)) == (
        "batch_size=100: toy has 72 examples to train with; give a smaller one"
    )
    assert (
        told(RecipeError, recipe(amp=True))
        == "amp=True: mixed precision is for GPUs, and this runs on the CPU; leave it out"
    )
    assert told(RecipeError, recipe(rescale=True, optimizer=Optimizer.ADAM)) == (
        "rescale=True: looks ahead by a step of SGD; give optimizer=sgd, or rescale=False"
    )
    assert told(RecipeError, recipe(dynamic=Dynamic.SET)) == (
        "dynamic=set: the mask would never move: no multiple of update_every=100 is in the first 0.75 of 16 steps; "
        "give a smaller one"
    )
    assert told(RecipeError, recipe(**RIGL), masks={}) == "dynamic=rigl: there is no mask to move; give mask="
    assert told(RecipeError, recipe(soft_neurons=True, early=0.01)) == (
        "soft_neurons=True: no step is in the first 0.01 of 16; give more epochs=, or a larger early="
    )
    assert told(TrainingError, recipe(lr=1e30)).startswith("the loss is no longer finite at step ")
    assert told(TrainingError, recipe(lr=1e30)).endswith(" of 16; give a smaller lr= than 1e+30")
    assert told(RecipeError, recipe(label_smoothing=0.9)) == (
        "label_smoothing=0.9: of 4 classes, a wrong one would count more than the true; give at most 0.75"
    )
    normed = wrap(nn.Sequential(nn.Flatten(), nn.Linear(108, 4), nn.BatchNorm1d(4)), (3, SIDE, SIDE))
    assert told(TrainingError, recipe(batch_size=1), normed, {}).endswith(
        "; batch norm needs more than one example; give a larger batch_size="
    )
    wrong = wrap(nn.Sequential(nn.Linear(5, 4)), (5,))
    assert told(TrainingError, recipe(), wrong, {}).startswith("the network failed on a batch of shape 16,3,6,6 (")
    images = wrap(nn.Sequential(nn.Conv2d(3, 4, 1)), (3, 6, 6))
    assert told(TrainingError, recipe(), images, {}) == (
        "the network returns shape (16, 4, 6, 6), and logits of shape (16, classes) are needed; give a model= factory "
        "whose network returns the logits alone"
    )


def test_weights_that_blew_up_in_the_last_step_are_not_saved():
    """No loss of the training is infinite then: that of the examples held out tells."""
    network, wish = with_dropout(), recipe(epochs=1, lr=1e10, batch_size=36)
    with pytest.raises(TrainingError) as caught:
        fit(network, masks_of(network), wish, data_for(wish, network))
    assert str(caught.value) == (
        "the loss on the examples held out is no longer finite at step 2 of 2; give a smaller lr= than 1e+10"
    )


def test_parameters_without_a_part():
    model = with_dropout().model.train()
    inputs, state = torch.randn(2, 3, SIDE, SIDE), torch.random.get_rng_state()
    assert not has_idle(model, inputs)
    model[-1].weight_of_none = nn.Parameter(torch.ones(1))
    assert has_idle(model, inputs)
    assert model.training
    assert torch.equal(torch.random.get_rng_state(), state)


def test_half_precision_is_masked_too():
    network = residual()
    network.model.bfloat16()
    masks, wish = masks_of(network), recipe(epochs=1)
    result = fit(network, masks, wish, data_for(wish, network))
    for name, mask in masks.items():
        assert (result.masks[name] == mask).all()
        assert not result.last[name].float().numpy()[~mask].any()


def test_too_few_examples_to_hold_some_out():
    with pytest.raises(DataError, match=r"^toy: 4 examples are too few to hold some out; give more data$"):
        prepare(toy(1), None, recipe(), (3, SIDE, SIDE))
    few = toy(3)
    with pytest.raises(RecipeError) as caught:
        prepare(few, None, recipe(validation=0.99), (3, SIDE, SIDE))
    assert str(caught.value) == (
        f"validation=0.99: leaves none of the {len(few)} examples of toy to train with; give a smaller share, or more data"
    )


# ToST


def test_soft_neurons_sharpen_to_relu():
    x = torch.linspace(-4, 4, 101, dtype=torch.float64)
    soft = tost.SoftReLU()
    torch.testing.assert_close(soft(x), x * torch.sigmoid(x))
    soft.sharpness = 7.0
    torch.testing.assert_close(soft(x), x * torch.sigmoid(7 * x))
    assert float((soft(x) - x.relu()).abs().max()) <= 0.2785 / 7
    soft.sharpness = math.inf
    assert torch.equal(soft(x), x.relu())


@pytest.mark.parametrize("make", [residual, bottleneck])
def test_taking_out_the_early_parts_changes_no_output(make):
    network = make()
    model = network.model.train()
    names = list(model.state_dict())
    plain = copy.deepcopy(model)
    inputs = torch.randn(8, 3, SIDE, SIDE)
    parts = tost.EarlyParts(model, soft_neurons=True, ghost_skips=True, steps=10)
    ghosts, soft = parts.ghosts, parts.soft
    assert len(ghosts) == 2 * sum(isinstance(one, tost.ResidualBlock) for one in model.modules())
    assert list(model.state_dict()) == names
    assert not torch.allclose(parts.whole(inputs), plain(inputs), atol=1e-3)
    ghosts.fade(1.0)
    soft.fade(1.0)
    before = parts.whole(inputs)
    assert parts.at(10)
    after = parts.whole(inputs)
    assert torch.equal(before, after)
    assert parts.whole is model
    assert torch.equal(after, plain(inputs))
    assert not any(isinstance(one, tost.SoftReLU) for one in model.modules())
    hooks = [one for module in model.modules() for one in (*module._forward_hooks, *module._forward_pre_hooks)]
    assert hooks == []


def test_a_ghost_skip_is_what_is_written():
    """h = act(norm1(conv1 x) + a norm(J1 x)), y = act(norm2(conv2 h) + shortcut(x) + a norm(J2 h))."""
    network = residual()
    block = network.model.layer2[0].train()
    parts = tost.GhostSkips(network.model)
    parts.fade(0.25)
    first, second = parts.branches[2], parts.branches[3]
    for branch in (first, second):
        nn.init.normal_(branch[0].weight)
    x = torch.randn(5, 4, 6, 6)
    y = block(x)
    parts.remove()
    h = torch.relu(block.bn1(block.conv1(x)) + 0.75 * first(x))
    expected = torch.relu(block.bn2(block.conv2(h)) + block.shortcut(x) + 0.75 * second(h))
    torch.testing.assert_close(y, expected)


def test_at_the_end_the_network_is_the_plain_one():
    network, wish = residual(), recipe(**TOST)
    masks = masks_of(network)
    run = trainer(network, masks, wish)
    assert run.early.whole is not run.model
    run.train()
    result = run.finish()
    assert list(result.weights) == list(network.model.state_dict())
    assert run.early.whole is run.model
    assert {type(module) for module in run.model.modules()} == {type(module) for module in network.model.modules()}
    assert len(run.optimizer.param_groups) == 1
    assert len(run.optimizer.state) == len(list(run.model.parameters()))
    plain = copy.deepcopy(network.model)
    plain.load_state_dict(result.weights)
    assert evaluate(plain, run.data.test.in_order(256)) == result.test


def test_labels_are_smoothed_in_the_early_steps_alone(monkeypatch):
    network, wish, masses = with_dropout(), recipe(label_smoothing=0.1, early=0.4), []
    loss = loop.cross_entropy
    monkeypatch.setattr(loop, "cross_entropy", lambda out, of, mass: masses.append(mass) or loss(out, of, mass))
    fit(network, {}, wish, data_for(wish, network))
    assert masses == [0.1] * 6 + [0.0] * 10


def test_ghosts_are_in_evaluation_mode_when_the_network_is():
    network = residual()
    run = trainer(network, masks_of(network), recipe(ghost_skips=True))
    run.train(run.steps_in_epoch)
    assert run.evaluated == 1
    assert [int(branch[1].num_batches_tracked) for branch in run.early.ghosts.branches] == [run.steps_in_epoch] * 6


def test_parts_that_a_network_has_no_place_for_are_told():
    network = init_network("lenet-300-100", 4, 0)
    parts = tost.EarlyParts(network.model, soft_neurons=True, ghost_skips=True, steps=4)
    assert parts.absent == {
        "ghost_skips": "no block of the network has a norm after each convolution, as pai's ResNets have"
    }
    parts = tost.EarlyParts(nn.Linear(2, 2), soft_neurons=True, ghost_skips=False, steps=4)
    assert parts.absent == {"soft_neurons": "the network has no ReLU module"}
    vgg = slim_network("vgg11-bn", 4)
    parts = tost.EarlyParts(vgg.model, soft_neurons=True, ghost_skips=True, steps=4)
    assert len(parts.soft) == 8
    assert not parts.at(3)
    assert parts.present
    assert not parts.at(4)
    assert not parts.present


def test_label_smoothing_shares_its_mass_among_the_wrong_classes():
    logits, labels = torch.randn(7, 5, dtype=torch.float64), torch.tensor([0, 1, 2, 3, 4, 0, 1])
    targets = torch.full((7, 5), 0.1 / 4, dtype=torch.float64)
    targets[torch.arange(7), labels] = 0.9
    expected = -(targets * logits.log_softmax(1)).sum(1).mean()
    torch.testing.assert_close(cross_entropy(logits, labels, 0.1), expected)
    assert float(cross_entropy(torch.zeros(3, 1), torch.zeros(3, dtype=torch.long), 0.1)) == 0


def rescaling(bound=math.inf, seed=0):
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Flatten(), nn.Linear(12, 6, bias=False), nn.BatchNorm1d(6), nn.Softplus(), nn.Linear(6, 3))
    model = model.double()
    masks = {"1.weight": torch.rand(6, 12).round().double(), "4.weight": torch.rand(3, 6).round().double()}
    for name, mask in masks.items():
        model.get_parameter(name).data.mul_(mask)
    nn.init.normal_(model[2].bias)
    nn.init.zeros_(model[4].bias)  # it has no scale, but a gradient
    first, later = ((torch.randn(9, 12).double(), torch.arange(9) % 3) for _ in range(2))
    return model, masks, (first, later), rescale.Rescaling(model, masks, 0.1, lambda _: (first, later))


def objective(model, masks, batches, scales, ahead_of):
    """L(S'; s W0 - lr m g/|m g|) / lr with the step held at the scales `ahead_of`, and |m g|; as the module says."""
    twin = copy.deepcopy(model).train()

    def at(values, step=None):
        with torch.no_grad():
            for name, one in twin.named_parameters():
                one.copy_(model.get_parameter(name) * values[name] - (step[name] if step else 0))
        return twin

    def gradient(values, batch):
        net = at(values)
        net.zero_grad()
        nn.functional.cross_entropy(net(batch[0]), batch[1]).backward()
        found = {name: one.grad * masks.get(name, 1) for name, one in net.named_parameters()}
        return found, math.sqrt(sum(float((one**2).sum()) for one in found.values()))

    step, norm = gradient(ahead_of, batches[0])
    step = {name: 0.1 * one / norm for name, one in step.items()}
    with torch.no_grad():
        loss = float(nn.functional.cross_entropy(at(scales, step)(batches[1][0]), batches[1][1])) / 0.1
    return loss, gradient(scales, batches[0])[1]


@pytest.mark.parametrize("bounded", [False, True])
def test_derivatives_by_the_scales_against_differences(bounded, monkeypatch):
    monkeypatch.setattr(rescale, "BOUND", 0.0 if bounded else math.inf)
    monkeypatch.setattr(rescale, "CLIP", math.inf)
    model, masks, batches, learner = rescaling()
    taken = []
    monkeypatch.setattr(learner.state, "move", lambda derivative, which, floors: taken.append((derivative, which)))
    learner.iterate()
    derivative, which = taken[0]
    assert which == int(bounded)
    ones = dict.fromkeys((name for name, _ in model.named_parameters()), 1.0)
    assert float(derivative[-1]) == 0
    assert list(learner.scales()) == list(ones)[:-1]
    for place, name in enumerate(learner.scales()):
        up, down = ({**ones, name: 1 + change} for change in (1e-5, -1e-5))
        ends = [objective(model, masks, batches, scales, ones)[int(bounded)] for scales in (up, down)]
        assert (ends[0] - ends[1]) / 2e-5 == pytest.approx(float(derivative[place]), rel=1e-5, abs=1e-8), name


def test_rescaling_bounds_the_gradient_and_keeps_the_mask():
    network = residual()
    wish = recipe(rescale=True)
    run = trainer(network, masks_of(network), wish)
    for _ in range(6):
        run._advance(run.steps)
    scales = run.rescaling.scales()
    assert all(scale > 0 for scale in scales.values())
    assert any(abs(scale - 1) > 0.01 for scale in scales.values())
    for name, mask in masks_of(network).items():
        start = network.model.get_parameter(name).detach() * torch.from_numpy(mask)
        torch.testing.assert_close(run.model.get_parameter(name).detach(), start * scales[name])
    assert "bn1.bias" not in scales  # all 0: it has no scale


def test_nothing_to_scale():
    model = nn.Linear(2, 2, bias=False)
    nn.init.zeros_(model.weight)
    with pytest.raises(
        TrainingError, match=r"^rescale=True: every parameter is 0, and has no scale; leave rescale=True out$"
    ):
        rescale.Rescaling(model, {}, 0.1, lambda _: None)


def test_scales_stop_at_the_floor():
    state = rescale.ScaleState(torch.tensor([0.011, 0.005]), torch.zeros(2, 2), torch.zeros(2), [0, 0])
    state.move(torch.tensor([1.0, 1.0]), 0, torch.tensor([0.01, 0.0]))
    assert state.scales.tolist() == pytest.approx([0.01, 0.0], abs=1e-6)
    assert state.counts == [1, 0]


# Moving masks


def test_a_move_by_hand():
    mask = np.array([[True, True, True, True, False, False, False, False]])
    weights = np.array([[0.1, -3.0, 0.2, 2.0, 0.0, 0.0, 0.0, 0.0]])
    gradients = np.array([[0.0, 0.0, 5.0, 0.0, 1.0, -4.0, 2.0, 0.0]])
    after = moved({"w": mask}, {"w": weights}, {"w": gradients}, Move(Dynamic.RIGL, 0.5, 0, 1))["w"]
    assert after.tolist() == [[False, True, True, True, False, True, False, False]]  # 2 was dropped, and returns
    same = moved({"w": mask}, {"w": weights}, {"w": gradients}, Move(Dynamic.RIGL, 0.05, 0, 1))["w"]
    assert (same == mask).all()
    whole = np.ones((2, 3), dtype=bool)
    assert moved({"w": whole}, {"w": np.ones((2, 3))}, {"w": np.ones((2, 3))}, Move(Dynamic.SET, 0.5, 0, 1))["w"].all()


def test_ties_of_a_move_by_hand():
    mask = np.array([[True, True, True, True, True, False, False, False, False]])
    weights = np.array([[1.0, 0.5, 0.5, 2.0, 0.5, 0.0, 0.0, 0.0, 0.0]])
    gradients = np.array([[0.0, 0.0, 0.0, 0.0, 0.0, 1.0, 3.0, 1.0, 1.0]])
    ties = MoveTies()
    after = moved({"w": mask}, {"w": weights}, {"w": gradients}, Move(Dynamic.RIGL, 0.4, 0, 1), ties)["w"]
    assert after.tolist() == [[True, True, False, True, False, True, True, False, False]]
    assert ties.record == {"dropped_by_position": 2, "grown_by_position": 1}
    assert str(ties) == (
        "2 of 2 dropped weights are as small as others that stay, in w and 1 of 2 grown weights have the gradient of others "
        "that do not grow, in w"
    )
    for kind, told in ((Dynamic.RIGL, "2 of 2 dropped"), (Dynamic.SET, "2 of 2 dropped")):
        ties = MoveTies()
        distinct = np.arange(9.0)[None]
        moved({"w": mask}, {"w": weights}, {"w": distinct}, Move(kind, 0.4, 0, 1), ties)
        assert str(ties) == f"{told} weights are as small as others that stay, in w"
    ties = MoveTies()
    moved({"w": mask}, {"w": distinct}, {"w": distinct}, Move(Dynamic.RIGL, 0.4, 0, 1), ties)
    assert (str(ties), ties.count, sum(ties.record.values())) == ("", 2, 0)


def test_ties_of_a_moving_mask_are_told_once_and_counted_at_every_update(caplog):
    caplog.set_level("INFO", "pai")
    network, told = residual(), []
    masks = masks_of(network, 0.5)
    masks[network.layers[-1].name][:] = False  # so that every gradient is 0
    trainer(network, masks, recipe(**RIGL), Run(record=told.append)).train()
    first, *updates = [one for one in told if "mask_update" in one]
    assert first["grown_by_position"] == 0  # where it begins nothing moves
    assert all(one["grown_by_position"] > 0 for one in updates if one["moved_share"])
    lines = [line for line in caplog.messages if "the first are taken" in line]
    assert len(lines) == 1
    assert lines[0].startswith("dynamic=rigl: at step 2 ")


def test_set_grows_at_random_by_seed_and_step():
    random = np.random.default_rng(0)
    mask, weights = {"w": random.random((20, 20)) < 0.3}, {"w": random.standard_normal((20, 20))}
    grown = [
        moved(mask, weights, weights, Move(Dynamic.SET, 0.3, seed, step))["w"]
        for seed, step in ((0, 1), (0, 2), (1, 1))
    ]
    assert len({one.tobytes() for one in grown}) == 3
    kept = int(mask["w"].sum())
    count = int(0.3 * kept + 0.5)
    for one in grown:
        assert int(one.sum()) == kept
        smallest = np.sort(np.abs(weights["w"][mask["w"]]))[count:]
        assert one[mask["w"] & (np.abs(weights["w"]) >= smallest[0])].all()


def test_a_gradient_that_is_no_number_is_refused():
    bad = np.full((2, 2), np.nan)
    with pytest.raises(ScoreError, match="w: a score is NaN"):
        moved({"w": np.eye(2, dtype=bool)}, {"w": np.ones((2, 2))}, {"w": bad}, Move(Dynamic.RIGL, 0.5, 0, 1))


def test_rigl_grows_by_the_gradient_of_all_weights():
    network = with_dropout()
    wish = recipe(dynamic=Dynamic.RIGL, update_every=3, epochs=4)
    run = trainer(network, masks_of(network, 0.2), wish)
    run.train(3)
    before = run.masked.masks
    weights = {name: one.detach().numpy().copy() for name, one in run.masked.weights.items()}
    inputs, labels = batch_of(run)
    twin = copy.deepcopy(run.model).train()
    run._seed_torch(generator_for(run.recipe.seed, f"step {run.step} of process 0"))
    cross_entropy(twin(inputs), labels).backward()
    gradients = {name: twin.get_parameter(name).grad.numpy() for name in before}
    run.train(4)
    expected = moved(before, weights, gradients, Move(Dynamic.RIGL, wish.moved_share(3, run.steps), 0, 3))
    assert all((run.masked.masks[name] == expected[name]).all() for name in before)
    changed = any((before[name] != expected[name]).any() for name in before)
    assert changed
    for name, mask in expected.items():  # no step that time: what was kept is as it was, what grew is 0
        assert (run.masked.weights[name].detach().numpy() == weights[name] * mask).all()


def test_the_spectrum_of_every_move_is_that_of_analyze():
    from pai_cli.analysis.by_layer import Measuring
    from pai_cli.analysis.engine import measure_everywhere
    from pai_cli.spectral.metrics import MetricOptions
    from pai_cli.spectral.network import DenseCache, LayerInput, summarise

    network, told = residual(), []
    wish = recipe(**RIGL)
    masks = masks_of(network, 0.5)
    run = trainer(network, masks, wish, Run(record=told.append))
    run.train()
    updates = [one for one in told if "mask_update" in one]
    assert [one["step"] for one in updates] == [0, 2, 4, 6, 8, 10]
    assert {one["kept"] for one in updates} == {sum(int(mask.sum()) for mask in masks.values())}
    explored = [one["explored"] for one in updates]
    assert explored == sorted(explored)
    assert explored[-1] > explored[0]
    layers = [
        LayerInput(
            one.name, masks[one.name], network.parameter(one.name).detach().numpy() * masks[one.name], one.layout
        )
        for one in network.layers
    ]
    how = Measuring(MetricOptions(), DenseCache(), "")
    report = summarise(measure_everywhere(layers, 1, how))
    for name in ("dr", "dr_imdb", "lambda", "lambda_imsg", "l2"):
        assert updates[0][name] == pytest.approx(report.measures[name].value)
    effective = Unrolled(unroll(network.model, network.input_shape)).effective(masks)
    on_a_path, kept = (sum(int(mask.sum()) for mask in given.values()) for given in (effective, masks))
    assert updates[0]["effective_share"] == on_a_path / kept
    assert all(0 < one["effective_share"] <= 1 for one in updates)
