"""Masks that are pruned while weights are trained (GMP, GraNet), and masks of constant fan-in (SRigL): laws and oracles."""

from __future__ import annotations

import copy
import math
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import Pai
from networks import wrap
from safetensors.torch import load_file
from torch import nn
from trainings import CLASSES, SIDE, batch_of, data_for, equal, fit, masks_of, recipe, residual, trainer, with_dropout

from pai_cli.errors import RecipeError, ScoreError
from pai_cli.files.masks import MaskFile
from pai_cli.spectral.layout import PLAIN, Layout
from pai_cli.telling import PaiWarning
from pai_cli.training.dynamic import MoveTies
from pai_cli.training.fan_in import EvenMove, as_stored, by_output, evened, fan_ins, moved_evenly
from pai_cli.training.gradual import Descent
from pai_cli.training.loop import Run
from pai_cli.training.model import cross_entropy
from pai_cli.training.recipe import Dynamic, Recipe


def as_floats(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape)


def half_up(number: float) -> int:
    return math.floor(number + 0.5)


# Oracles: one update, weight by weight


def largest(places: list, size, count: int) -> set:
    """The first `count` places, the larger first, the earlier first among equals."""
    return set(sorted(places, key=lambda place: (-size(place), place))[:count])


def places_of(name: str, mask: np.ndarray) -> list:
    return [(name, *map(int, place)) for place in np.ndindex(mask.shape)]


def kept_by(masks: dict) -> list:
    return [place for name, mask in masks.items() for place in places_of(name, mask) if mask[place[1:]]]


def as_masks(kept: set, like: dict) -> dict:
    found = {name: np.zeros(mask.shape, bool) for name, mask in like.items()}
    for name, *place in kept:
        found[name][tuple(place)] = True
    return found


def gmp_oracle(masks: dict, weights: dict, counts: dict) -> dict:
    kept: set = set()
    for name, mask in masks.items():
        kept |= largest(kept_by({name: mask}), lambda place: abs(weights[place[0]][place[1:]]), counts[name])
    return as_masks(kept, masks)


def granet_oracle(masks: dict, weights: dict, gradients: dict, total: int, share: float) -> tuple[dict, dict]:
    def size(place):
        return abs(weights[place[0]][place[1:]])

    order = {name: number for number, name in enumerate(masks)}
    ranked = sorted(kept_by(masks), key=lambda place: (-size(place), order[place[0]], place[1:]))
    pruned = as_masks(set(ranked[:total]), masks)
    after: set = set()
    for name, mask in pruned.items():
        kept = kept_by({name: mask})
        gone = half_up(share * len(kept))
        survivors = largest(kept, size, len(kept) - gone)
        others = [place for place in places_of(name, mask) if place not in survivors]
        after |= survivors | largest(others, lambda place: abs(gradients[place[0]][place[1:]]), gone)
    return pruned, as_masks(after, masks)


def srigl_oracle(mask, weights, gradients, share: float, budget: int, gamma: float) -> np.ndarray:
    """Rows are outputs."""
    outputs, inputs = mask.shape
    every = [(r, c) for r in range(outputs) for c in range(inputs)]
    kept = [place for place in every if mask[place]]
    gone = half_up(share * len(kept))
    big = largest(kept, lambda place: abs(weights[place]), len(kept) - gone)
    steep = largest([place for place in every if not mask[place]], lambda place: abs(gradients[place]), gone)
    salient = [sum((r, c) in big or (r, c) in steep for c in range(inputs)) for r in range(outputs)]
    alive = [r for r in range(outputs) if mask[r].any()]
    if gamma:
        fan_in = budget // outputs
        ranked = sorted(range(outputs), key=lambda r: (-salient[r], r))
        enough = [r for r in ranked if salient[r] >= 1 and salient[r] >= gamma * fan_in]
        fewest = math.ceil(budget / inputs)
        alive = ranked[: min(max(len(enough), fewest), budget)]
    new = budget // len(alive)
    here = [place for place in kept if place[0] in alive]
    survivors = largest(here, lambda place: abs(weights[place]), min(len(kept) - gone, len(here)))
    after = np.zeros(mask.shape, bool)
    for r in alive:
        own = largest([place for place in survivors if place[0] == r], lambda place: abs(weights[place]), new)
        free = [(r, c) for c in range(inputs) if (r, c) not in survivors]
        for place in own | largest(free, lambda place: abs(gradients[place]), new - len(own)):
            after[place] = True
    return after


def before_an_update(wish: Recipe, masks: dict, step: int):
    """A float64 run at `step`, with its masks, weights and the gradients of that step's batch."""
    torch.manual_seed(3)
    model = nn.Sequential(
        nn.Conv2d(3, 5, 3), nn.ReLU(), nn.ConvTranspose2d(5, 4, 2, groups=1), nn.Flatten(), nn.Linear(100, CLASSES)
    )
    run = trainer(wrap(model.double(), (3, SIDE, SIDE)), masks, wish)
    run.train(step)
    twin = copy.deepcopy(run.model).train()
    inputs, labels = batch_of(run)
    cross_entropy(twin(inputs.double()), labels).backward()
    weights = {name: one.detach().numpy().copy() for name, one in run.masked.weights.items()}
    return run, run.masked.masks, weights, {name: twin.get_parameter(name).grad.numpy() for name in weights}


NAMES = {"0.weight": (5, 3, 3, 3), "2.weight": (5, 4, 2, 2), "4.weight": (CLASSES, 100)}


def sparse(density: float) -> dict:
    random = np.random.default_rng(5)
    return {name: random.random(shape) < density for name, shape in NAMES.items()}


def test_an_update_of_gmp_is_the_oracle_s():
    wish = recipe(dynamic=Dynamic.GMP, update_every=3, final_density=0.2)
    run, masks, weights, _ = before_an_update(wish, {}, 6)
    first = {name: math.prod(shape) for name, shape in NAMES.items()}
    assert [one.size for one in masks.values()] == list(first.values())
    left = (1 - 6 / 9) ** 3  # updates at 3, 6 and 9 of 16 steps
    last = {"0.weight": 27, "2.weight": 16, "4.weight": 80}  # 0.2 of each
    counts = {name: last[name] + half_up(left * (first[name] - last[name])) for name in first}
    expected = gmp_oracle(masks, weights, counts)
    run.train(7)
    for name, mask in run.masked.masks.items():
        assert (mask == expected[name]).all()
        assert (run.masked.weights[name].detach().numpy() == weights[name] * mask).all()


def test_an_update_of_granet_is_the_oracle_s():
    wish = recipe(dynamic=Dynamic.GRANET, update_every=3, final_density=0.2)
    given = sparse(0.6)
    begins = sum(int(one.sum()) for one in given.values())
    run, masks, weights, gradients = before_an_update(wish, given, 6)
    total = 123 + half_up((1 - 6 / 9) ** 3 * (begins - 123))
    share = 0.25 * (1 + math.cos(math.pi * 6 / (0.75 * 16)))  # 0.5 at first
    pruned, expected = granet_oracle(masks, weights, gradients, total, share)
    run.train(7)
    for name, mask in run.masked.masks.items():
        assert (mask == expected[name]).all()
        # What was pruned for good, and grows again, is 0.
        assert (run.masked.weights[name].detach().numpy() == weights[name] * pruned[name] * mask).all()
    assert sum(int(one.sum()) for one in run.masked.masks.values()) == total
    grown = {name: expected[name] & ~pruned[name] for name in expected}
    assert sum(int(one.sum()) for one in grown.values()) > 0
    for name, one in grown.items():  # the largest gradients of all that could grow
        free = np.abs(gradients[name][~expected[name]])
        assert not one.any() or np.abs(gradients[name][one]).min() >= free.max()


def test_an_update_of_srigl_is_the_oracle_s():
    wish = recipe(dynamic=Dynamic.SRIGL, update_every=3, min_salient=0.8)
    given = sparse(0.15)
    run, masks, weights, gradients = before_an_update(wish, given, 6)
    share = 0.15 * (1 + math.cos(math.pi * 6 / (0.75 * 16)))
    run.train(7)
    for name, mask in run.masked.masks.items():
        moved = name == "2.weight"  # stored (in, out, *kernel)
        rows = [one.swapaxes(0, 1) if moved else one for one in (masks[name], weights[name], gradients[name])]
        rows = [one.reshape(len(one), -1) for one in rows]
        budget = int(given[name].sum())
        expected = srigl_oracle(*rows, share, budget, 0.0 if name == "4.weight" else 0.8)
        assert ((mask.swapaxes(0, 1) if moved else mask).reshape(expected.shape) == expected).all()
        assert (run.masked.weights[name].detach().numpy() == weights[name] * masks[name] * mask).all()


@pytest.mark.parametrize("gamma", [0.0, 0.3, 0.95])
def test_layers_of_any_kind_against_the_oracle(gamma):
    random, ablated = np.random.default_rng(7), 0
    for _ in range(120):
        shape = tuple(random.integers(1, 9, 2))
        weights, gradients = random.standard_normal(shape), random.standard_normal(shape)
        weights *= random.gamma(0.3, size=(shape[0], 1))  # some outputs matter, others do not
        gradients *= random.gamma(0.3, size=(shape[0], 1))
        given = random.random(shape) < random.uniform(0.1, 1)
        mask = evened(given, weights, random)
        budget, share = int(given.sum()), float(random.uniform(0, 0.6))
        for _ in range(3):
            before = mask
            move = EvenMove(share, budget, gamma)
            mask = moved_evenly(("w", before), weights * before, gradients, move, MoveTies())
            kept = int(before.sum())
            if half_up(share * kept) and kept < mask.size:
                assert (mask == srigl_oracle(before, weights * before, gradients, share, budget, gamma)).all()
            else:
                assert (mask == before).all()
            fans = mask.sum(1)
            alive = int((fans > 0).sum())
            assert set(fans[fans > 0]) <= {budget // alive if alive else 0}
            ablated += int((fans == 0).sum())
            gradients = random.standard_normal(shape) * random.gamma(0.3, size=(shape[0], 1))
    assert ablated > 0


# The schedule


def test_the_cubic_schedule_ends_at_the_last_update():
    wish = Recipe(dynamic=Dynamic.GMP, update_every=10)
    updates = [step for step in range(100) if wish.updates_at(step, 100)]
    assert updates == [10, 20, 30, 40, 50, 60, 70]
    assert [wish.left_to_prune(step, 100) for step in updates] == [Fraction(7 - n, 7) ** 3 for n in range(1, 8)]
    later = Recipe(dynamic=Dynamic.GMP, update_every=10, update_from=0.2)
    assert [step for step in range(100) if later.updates_at(step, 100)] == [20, 30, 40, 50, 60, 70]
    assert [later.left_to_prune(step, 100) for step in (20, 30, 70)] == [1, Fraction(4, 5) ** 3, 0]
    assert Recipe(dynamic=Dynamic.GMP, update_every=50, update_from=0.5).left_to_prune(50, 100) == 0  # the only one
    assert (wish.moved_share(10, 100), Recipe(dynamic=Dynamic.GRANET).moved_share(0, 100)) == (0, 0.5)
    assert Recipe(dynamic=Dynamic.GRANET, update_fraction=0.2).moved_share(0, 100) == 0.2


def test_the_part_of_the_updates_is_of_decimals():
    """Of 100 steps 0.07 are 7, in binary a little more, and 0.55 are 55, again a little more."""
    for share in (number / 100 for number in range(1, 99)):
        later = Recipe(dynamic=Dynamic.GMP, update_every=1, update_from=share, update_until=0.99)
        until = Recipe(dynamic=Dynamic.RIGL, update_every=1, update_until=share)
        first = next(step for step in range(1, 100) if later.updates_at(step, 100))
        assert (first, until.last_update(100)) == (round(100 * share), round(100 * share) - 1)
        assert later.left_to_prune(first, 100) == (first < 98)  # the whole of it, but for the only update


@pytest.mark.parametrize("dynamic", [Dynamic.GMP, Dynamic.GRANET])
@pytest.mark.parametrize("given", [None, 0.6])
def test_every_update_has_the_count_of_the_formula(dynamic, given):
    network, told = with_dropout(), []
    masks = {} if given is None else masks_of(network, given)
    wish = recipe(dynamic=dynamic, update_every=2, final_density=0.15, update_from=0.1)
    run = trainer(network, masks, wish, Run(record=told.append))
    sizes = {layer.name: math.prod(layer.shape) for layer in network.layers}
    first = {name: int(one.sum()) for name, one in masks.items()} or sizes
    ends = half_up(0.15 * sum(sizes.values()))
    seen = [run.masked.masks]
    for step in range(run.steps):
        run.train(step + 1)
        if step not in (2, 4, 6, 8, 10):
            assert all((one == seen[-1][name]).all() for name, one in run.masked.masks.items())
            continue
        seen.append(run.masked.masks)
        left = (1 - (step - 1.6) / (10 - 1.6)) ** 3
        counts = {name: int(one.sum()) for name, one in seen[-1].items()}
        if dynamic is Dynamic.GRANET:
            assert sum(counts.values()) == ends + half_up(left * (sum(first.values()) - ends))
        else:
            exact = {name: ends * first[name] / sum(first.values()) for name in first}
            assert all(abs(run.moving._descent.last[name] - exact[name]) < 1 for name in first)
            last = run.moving._descent.last
            assert counts == {name: last[name] + half_up(left * (first[name] - last[name])) for name in first}
            assert all((one <= seen[-2][name]).all() for name, one in seen[-1].items())  # nothing returns
    assert sum(int(one.sum()) for one in run.finish().masks.values()) == ends
    updates = [one for one in told if "mask_update" in one]
    assert [one["step"] for one in updates] == [0, 2, 4, 6, 8, 10]
    assert [one["kept"] for one in updates] == [sum(int(one.sum()) for one in masks.values()) for masks in seen]
    assert all(one["dr"] is not None or one["reason"] for one in updates)
    assert [one["settled"] for one in told if "epoch" in one] == [False, False, True, True]


def test_the_largest_remainder_has_the_total_exactly():
    masks = {name: np.ones(size, bool) for name, size in (("a", 7), ("b", 7), ("c", 7))}
    assert Descent.of(masks, 0.5, by_layer=True).last == {"a": 4, "b": 4, "c": 3}  # 10.5, halves up
    weights = {"a": np.arange(7.0), "b": -np.arange(7.0), "c": np.full(7, 9.0)}
    alike = Descent.of(masks, 0.5, by_layer=True).pruned(masks, weights, Fraction(0))
    assert [one.astype(int).tolist() for one in alike.values()] == [
        [0, 0, 0, 1, 1, 1, 1], [0, 0, 0, 1, 1, 1, 1], [1, 1, 1, 0, 0, 0, 0],
    ]  # fmt: skip
    together = Descent.of(masks, 0.5, by_layer=False).pruned(masks, weights, Fraction(0))
    assert [int(one.sum()) for one in together.values()] == [2, 2, 7]


@pytest.mark.parametrize(
    ("dynamic", "given", "density", "text"),
    [
        (Dynamic.GMP, 0.1, 0.3, "final_density=0.3: keeps 356 of 1,188 weights, and the mask begins with 118; give a"),
        (
            Dynamic.GRANET,
            None,
            0.0004,
            "final_density=0.0004: keeps fewer than one of 1,188 weights; give a larger one",
        ),
        (Dynamic.SRIGL, None, 0.1, "dynamic=srigl: there is no mask to move; give mask="),
    ],
)
def test_refused(dynamic, given, density, text):
    network = with_dropout()
    masks = {}
    if given is not None:
        masks = {one.name: np.arange(math.prod(one.shape)).reshape(one.shape) % 10 == 5 for one in network.layers}
    with pytest.raises(RecipeError) as caught:
        trainer(network, masks, recipe(dynamic=dynamic, update_every=2, final_density=density))
    assert str(caught.value).startswith(text)


@pytest.mark.parametrize("dynamic", [one.value for one in Dynamic])
def test_a_mask_of_no_layer(dynamic):
    with pytest.raises(RecipeError) as caught:
        trainer(with_dropout(), {"0.bias": np.arange(6) % 2 == 0}, recipe(dynamic=Dynamic(dynamic), update_every=2))
    assert str(caught.value) == (
        f"dynamic={dynamic}: the mask is of 0.bias, and of no layer that can be pruned; give another mask="
    )


def test_a_density_that_the_mask_has_already():
    masks = {"w": np.eye(4, dtype=bool)}
    with pytest.raises(RecipeError, match=r"^final_density=0.25: keeps 4 of 16 weights, and the mask begins with 4; "):
        Descent.of(masks, 0.25, by_layer=True)
    assert Descent.of(masks, 0.25, by_layer=False).last == {"w": 4}  # GraNet still exchanges weights
    with pytest.raises(
        RecipeError, match=r"^final_density=0.99: keeps 16 of 16 weights, and the mask begins with 16; "
    ):
        Descent.of({"w": np.ones((4, 4), bool)}, 0.99, by_layer=False)  # but not with none


def test_updates_between_which_there_is_no_multiple():
    wish = recipe(dynamic=Dynamic.GMP, update_every=7, update_from=0.5)
    with pytest.raises(RecipeError) as caught:
        trainer(with_dropout(), {}, wish)
    assert str(caught.value) == (
        "dynamic=gmp: the mask would never move: no multiple of update_every=7 is in the first 0.75 of 16 steps after the "
        "first 0.5; give a smaller one"
    )


def test_updates_that_end_before_they_begin():
    with pytest.raises(RecipeError, match=r"^update_from=0.75: must be below update_until=0.75$"):
        Recipe(update_from=0.75)
    with pytest.raises(RecipeError, match=r"^update_from=0.5: must be below update_until=0.2$"):
        Recipe(update_from=0.5, update_until=0.2)


def test_a_layer_that_collapses_is_told():
    network = with_dropout()
    with torch.no_grad():
        network.parameter("0.weight").mul_(1e-6)
    wish = recipe(dynamic=Dynamic.GRANET, update_every=2, final_density=0.5, lr=1e-6)
    with pytest.warns(PaiWarning, match=r"^dynamic=granet: at step \d+ 0.weight collapsed: no weight is kept there$"):
        trainer(network, {}, wish).train()


# Constant fan-in


@pytest.mark.parametrize(
    ("shape", "layout"),
    [((6, 4, 3), PLAIN), ((5, 7), PLAIN), ((6, 2, 2), Layout(groups=3)), ((6, 2, 3), Layout(3, transposed=True))],
)
def test_rows_are_outputs_and_go_back(shape, layout):
    array = np.arange(math.prod(shape)).reshape(shape)
    rows = by_output(array, layout)
    assert (as_stored(rows, shape, layout) == array).all()
    if layout.transposed:  # output 1 of group 2 reads inputs 4 and 5
        assert rows[5].tolist() == [*array[4, 1].tolist(), *array[5, 1].tolist()]
        assert rows.shape == (6, 6)
    else:
        assert rows[2].tolist() == array[2].reshape(-1).tolist()


def test_a_mask_is_evened_by_hand():
    weights = np.array([[5.0, 4.0, 3.0, 2.0], [0.0, 1.0, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0]])
    mask = np.array([[True, True, True, True], [False, True, False, True], [False, False, False, False]])
    after = evened(mask, weights, np.random.default_rng(0))
    assert after.sum(1).tolist() == [2, 2, 2]
    assert after[0].tolist() == [True, True, False, False]
    assert after[1, 1]
    assert after[1, 3]
    assert (evened(mask, weights, np.random.default_rng(0)) == after).all()
    few = np.zeros((3, 4), bool)
    few[1, 2] = few[1, 3] = True
    assert (evened(few, weights, np.random.default_rng(0)) == few).all()  # one output alone is even
    few[2, 0] = True
    assert evened(few, weights, np.random.default_rng(0)).sum(1).tolist() == [1, 1, 1]
    assert not evened(np.zeros((3, 4), bool), weights, np.random.default_rng(0)).any()
    lone = np.array([[True, True], [False, True], [False, False], [False, False]])
    assert evened(lone, np.ones((4, 2)), np.random.default_rng(0)).sum(1).tolist() == [1, 1, 1, 0]


def test_an_output_without_salient_weights_is_ablated_by_hand():
    mask = np.array([[True, True, False, False], [True, True, False, False]])
    weights = np.array([[4.0, 3.0, 0.0, 0.0], [2.0, 0.1, 0.0, 0.0]])
    gradients = np.array([[0.0, 0.0, 5.0, 1.0], [0.0, 0.0, 0.5, 0.2]])
    ties = MoveTies()
    after = moved_evenly(("w", mask), weights, gradients, EvenMove(0.25, 4, 0.95), ties)
    assert after.tolist() == [[True, True, True, True], [False, False, False, False]]  # 3 and 1 are salient, of 1.9
    after = moved_evenly(("w", mask), weights, gradients, EvenMove(0.25, 4, 0.5), ties)
    assert after.tolist() == [[True, True, False, False], [True, False, True, False]]
    back = np.array([[True, True, True, True], [False, False, False, False]])
    steep = np.array([[0.0, 0.0, 0.0, 0.0], [9.0, 8.0, 1.0, 1.0]])
    after = moved_evenly(("w", back), np.array([[4.0, 3, 2, 1], [0.0, 0, 0, 0]]), steep, EvenMove(0.5, 4, 0.5), ties)
    assert after.tolist() == [[True, True, False, False], [True, True, False, False]]  # it returns
    assert not str(ties)
    assert (ties.count, ties.record) == (5, {"dropped_by_position": 0, "grown_by_position": 0})
    moved_evenly(("w", mask), weights, np.ones((2, 4)), EvenMove(0.25, 4, 0.0), ties)
    assert ties.record["grown_by_position"] == 1


def test_a_gradient_that_is_no_number_is_refused():
    bad = np.full((2, 2), np.nan)
    with pytest.raises(ScoreError, match="w: a score is NaN"):
        moved_evenly(("w", np.eye(2, dtype=bool)), np.ones((2, 2)), bad, EvenMove(0.5, 2, 0.3), MoveTies())


@pytest.mark.parametrize("make", [residual, with_dropout])
def test_the_fan_in_is_constant_at_every_update(make, caplog):
    caplog.set_level("INFO", "pai")
    network, told = make(), []
    masks = masks_of(network, 0.1)
    wish = recipe(dynamic=Dynamic.SRIGL, update_every=2, min_salient=0.9)
    run = trainer(network, masks, wish, Run(record=told.append))
    layouts = {layer.name: layer.layout for layer in network.layers}
    last = network.layers[-1].name
    classes = int((fan_ins(run.masked.masks[last]) > 0).sum())
    ablated = []
    for step in range(run.steps):
        run.train(step + 1)
        gone = 0
        for name, mask in run.masked.masks.items():
            fans = fan_ins(mask, layouts[name])
            alive = fans[fans > 0]
            assert set(alive.tolist()) == {int(masks[name].sum()) // len(alive)}
            gone += int((fans == 0).sum())
            if name == last:
                assert len(alive) == classes
        ablated.append(gone)
    updates = [one for one in told if "mask_update" in one]
    assert [one["ablated"] for one in updates] == [ablated[one["step"]] for one in updates]
    assert max(ablated) > 0
    [line] = [line for line in caplog.messages if "different fan-in" in line]
    before, after = (sum(int(one.sum()) for one in made.values()) for made in (masks, run.moving.first))
    assert line.endswith(f"as many weights as the others of its layer, of all {before:,} weights {after:,}")


def test_a_mask_of_constant_fan_in_is_taken_as_it_is(caplog):
    caplog.set_level("INFO", "pai")
    network = with_dropout()
    masks = {}
    for layer in network.layers:
        rows = np.zeros((layer.shape[0], math.prod(layer.shape[1:])), bool)
        rows[:, ::3] = True
        masks[layer.name] = rows.reshape(layer.shape)
    run = trainer(network, masks, recipe(dynamic=Dynamic.SRIGL, update_every=2, min_salient=0.0))
    assert all((run.masked.masks[name] == mask).all() for name, mask in masks.items())
    run.train()
    assert not [line for line in caplog.messages if "fan-in" in line]
    for name, mask in run.masked.masks.items():
        assert set(fan_ins(mask).tolist()) == set(fan_ins(masks[name]).tolist())
    assert any((run.masked.masks[name] != mask).any() for name, mask in masks.items())


def test_classes_alone_are_never_ablated():
    """The layer before a classifier that has no mask is like any other."""
    network = with_dropout()
    masks = masks_of(network, 0.3)
    *_, before, last = masks
    gradients = {name: np.ones(mask.shape) for name, mask in masks.items()}
    weights = {name: np.ones(mask.shape) for name, mask in masks.items()}
    for one in weights.values():
        one[1:] = 1e-3  # the first output has every salient weight
    for given, whole in ((masks, {last}), ({name: one for name, one in masks.items() if name != last}, set())):
        run = trainer(network, given, recipe(dynamic=Dynamic.SRIGL, update_every=2, min_salient=0.99))
        _, after = run.moving.updated(run.moving.first, weights, gradients, 2, MoveTies())
        ablated = {name for name, mask in after.items() if (fan_ins(mask) == 0).any()}
        assert ablated == set(given) - whole
        assert before in ablated


class Shared(nn.Module):
    """Two transposed convolutions of one weight, and a classifier of another that is listed twice."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.ConvTranspose2d(4, 4, 3, padding=1, groups=2, bias=False)
        self.b = nn.ConvTranspose2d(4, 4, 3, padding=1, groups=2)
        self.b.weight = self.a.weight
        self.head = self.same = nn.Linear(4 * SIDE * SIDE, CLASSES)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return self.same(self.b(torch.relu(self.a(nn.functional.pad(inputs, (0, 0, 0, 0, 0, 1))))).flatten(1))


def test_a_mask_by_another_name_of_a_shared_weight_moves_alike():
    torch.manual_seed(0)
    network = wrap(Shared(), (3, SIDE, SIDE))
    masks = masks_of(network, 0.3)
    wish = recipe(dynamic=Dynamic.SRIGL, update_every=2, min_salient=0.9)
    others = {{"a.weight": "b.weight", "head.weight": "same.weight"}[name]: mask for name, mask in masks.items()}
    found = []
    for given in (masks, others):
        run = trainer(network, given, wish)
        run.train()
        found.append(run.finish())
    one, other = found
    assert one.masks.keys() == other.masks.keys() == {"a.weight", "head.weight"}
    assert all((one.masks[name] == other.masks[name]).all() for name in masks)
    assert equal(one.weights, other.weights)
    fans = fan_ins(one.masks["a.weight"], Layout(2, transposed=True))
    assert len(set(fans[fans > 0].tolist())) == 1


# Ending after so many steps


@pytest.mark.parametrize("steps", [3, 4, 10, 16])
def test_so_many_steps_are_those_of_the_whole_training(steps):
    network, told = residual(), []
    masks = masks_of(network)
    whole = trainer(network, masks, recipe())
    whole.train(steps)
    wish = recipe(steps=steps)
    result = fit(network, masks, wish, data_for(wish, network), Run(record=told.append))
    assert equal(result.last, whole.finish().last)
    assert equal(result.weights, result.last)  # as they are then, of no best epoch
    assert result.test is not None
    epochs = [one for one in told if "epoch" in one]
    assert [one["step"] for one in epochs] == [*range(4, steps, 4), steps]
    assert [one["settled"] for one in epochs] == [False] * (len(epochs) - 1) + [True]
    assert result.best_epoch == len(epochs)
    assert result.validation.accuracy == epochs[-1]["validation_accuracy"]
    assert all(0 <= one["train_accuracy"] <= 1 and one["train_loss"] > 0 for one in epochs)


def test_more_steps_than_there_are():
    with pytest.raises(RecipeError) as caught:
        trainer(residual(), {}, recipe(steps=17))
    assert str(caught.value) == "steps=17: epochs=4 has 16 steps of 16 examples; give fewer, or more epochs"


# The command line


def test_gradual_pruning_from_all_weights(pai: Pai, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert pai("init", "mlp-64-16-10", "-o", "net.safetensors").status == 0
    words = ("train", "net.safetensors", "--data", "digits", "--epochs", 2, "--update-every", 4)
    done = pai(*words, "--dynamic", "gmp", "--final-density", 0.1, "-o", "o.safetensors", "--format", "json")
    assert done.status == 0, done.err
    assert "pai: --dynamic gmp: all weights are kept at first, density 0.1 at the end" in done.said
    mask = MaskFile(Path("o-mask.safetensors"))
    assert mask.metadata["method"] == "gmp"
    arrays = {name: mask.array(name) for name in mask.names}
    assert sum(int(one.sum()) for one in arrays.values()) == 118  # of 1,184
    weights = load_file("o.safetensors")
    assert all(not weights[name].numpy()[~one].any() for name, one in arrays.items())
    assert done.json()[0]["density"] == pytest.approx(118 / 1184)
    assert pai(*words, "--dynamic", "granet", "-o", "p.safetensors", "--mask", "o-mask.safetensors").said[1:2] == [
        "pai: --dynamic granet: the mask is kept at first, density 0.05 at the end"
    ]
    wrong = pai(*words, "--dynamic", "set", "--final-density", 0.1, "--mask", "o-mask.safetensors")
    assert (wrong.status, wrong.said[-1]) == (
        2,
        "pai: error: --final-density: --dynamic set ends with as many weights as the mask begins with; give --dynamic gmp "
        "or granet, or leave it out",
    )


def test_a_checkpoint_after_some_steps_is_sampled(pai: Pai, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert pai("init", "mlp-64-16-10", "-o", "net.safetensors").status == 0
    done = pai(
        "train", "net.safetensors", "--data", "digits", "--steps", 7, "-o", "early.safetensors", "--format", "json"
    )
    assert done.status == 0, done.err
    row = done.json()[0]
    assert (row["recipe"], row["epochs"], row["best_epoch"]) == ("7-steps", 1, 1)
    found = pai("sample", "early.safetensors", "--method", "magnitude", "--population", 3, "--density", 0.2)
    assert found.status == 0, found.err
    again = pai("train", "net.safetensors", "--data", "digits", "--steps", 7, "-o", "early.safetensors", "--resume")
    assert "pai: early.safetensors: this training was finished before; its numbers follow" in again.said
    wrong = pai("train", "net.safetensors", "--data", "digits", "--steps", 7, "--soft-neurons")
    assert (wrong.status, wrong.said[-1]) == (
        2,
        "pai: error: --steps: the training would end with parts that act early; leave one out",
    )


def test_weights_that_are_pruned_by_position_are_counted():
    masks, weights = {"w": np.ones((1, 6), bool)}, {"w": np.array([[1.0, 2.0, 2.0, 2.0, 2.0, 3.0]])}
    ties = MoveTies()
    after = Descent.of(masks, 0.5, by_layer=True).pruned(masks, weights, Fraction(0), ties.pruned)["w"]
    assert after.tolist() == [[False, True, True, False, False, True]]
    assert ties.record == {"dropped_by_position": 2, "grown_by_position": 0}
    ties.count = 3
    assert str(ties) == "2 of 3 dropped weights are as small as others that stay, in w"
