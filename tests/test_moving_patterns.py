"""Masks of N of every M inputs that move (SRigL by a pattern), and masks that no update moves: laws and an oracle."""

from __future__ import annotations

import copy
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from conftest import Pai
from networks import wrap
from safetensors.torch import load_file
from torch import nn
from trainings import CLASSES, SIDE, batch_of, data_for, equal, fit, recipe, through_a_file, trainer

import pai_cli as pai_library
from pai_cli.api.inputs import pattern_of
from pai_cli.errors import MethodOptionError, RecipeError
from pai_cli.files.foreign.two_of_four import two_of_four
from pai_cli.files.masks import MaskFile
from pai_cli.models.network import Network
from pai_cli.pruning.base import Masks, Pattern
from pai_cli.spectral.layout import PLAIN
from pai_cli.spelling import for_shell
from pai_cli.telling import PaiWarning
from pai_cli.training.dynamic import MoveTies
from pai_cli.training.loop import Run
from pai_cli.training.model import cross_entropy
from pai_cli.training.recipe import Dynamic
from pai_cli.training.said import pattern_given_up

FIRST = "0.weight"  # of three channels, which no pattern here divides
GROUPED = {"2.weight": (2, False), "4.weight": (2, True)}
"""Groups of channels, and whether it is transposed."""


def convolutions() -> Network:
    """Every kind of layer: plain, grouped, transposed and grouped convolutions, and a linear one."""
    torch.manual_seed(2)
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(8, 8, 3, padding=1, groups=2),
        nn.ReLU(),
        nn.ConvTranspose2d(8, 8, 2, groups=2),
        nn.Flatten(),
        nn.Linear(8 * (SIDE + 1) ** 2, CLASSES),
    )
    return wrap(model.double(), (3, SIDE, SIDE))


def group_of(name: str, place: tuple[int, ...], shape: tuple[int, ...], of: int) -> tuple[int, ...]:
    """Which output, kernel position and block of inputs a weight belongs to, by the definition."""
    groups, transposed = GROUPED.get(name, (1, False))
    if not transposed:
        return (place[0], *place[2:], place[1] // of)
    group, source = divmod(place[0], shape[0] // groups)  # stored (in, out / groups, *kernel)
    return (group * shape[1] + place[1], *place[2:], source // of)


def counts_of(name: str, mask: np.ndarray, of: int) -> dict[tuple[int, ...], int]:
    found: dict[tuple[int, ...], int] = {}
    for place in np.ndindex(mask.shape):
        key = group_of(name, place, mask.shape, of)
        found[key] = found.get(key, 0) + int(mask[place])
    return found


def patterned(network: Network, pattern: Pattern, seed: int = 3) -> Masks:
    """Random masks that keep N of every M, where M divides the inputs; the first layer is whole."""
    random = np.random.default_rng(seed)
    masks = {}
    for layer in network.layers:
        if layer.name == FIRST:
            masks[layer.name] = np.ones(layer.shape, bool)
            continue
        mask, groups = np.zeros(layer.shape, bool), {}
        for place in np.ndindex(layer.shape):
            groups.setdefault(group_of(layer.name, place, layer.shape, pattern.of), []).append(place)
        for places in groups.values():
            for index in random.choice(len(places), pattern.keep, replace=False):
                mask[places[index]] = True
        masks[layer.name] = mask
    return masks


def oracle(name: str, mask: np.ndarray, weights: np.ndarray, gradients: np.ndarray, share: float, pattern: Pattern):
    """One update, weight by weight: the smallest of the layer go, each group grows what it lacks by gradient."""
    kept = [place for place in np.ndindex(mask.shape) if mask[place]]
    gone = math.floor(share * len(kept) + 0.5)
    kept.sort(key=lambda place: -abs(weights[place]))
    after = np.zeros(mask.shape, bool)
    for place in kept[: len(kept) - gone]:
        after[place] = True
    left = counts_of(name, after, pattern.of)
    steep = sorted((place for place in np.ndindex(mask.shape) if not after[place]), key=lambda p: -abs(gradients[p]))
    for place in steep:
        key = group_of(name, place, mask.shape, pattern.of)
        if left[key] < pattern.keep:
            after[place], left[key] = True, left[key] + 1
    return after


def srigl(pattern: Pattern, **options: object):
    return recipe(dynamic=Dynamic.SRIGL, pattern=pattern, **{"update_every": 2, **options})


@pytest.mark.parametrize("pattern", [Pattern(2, 4), Pattern(1, 4), Pattern(1, 2)], ids=str)
def test_an_update_is_the_oracle_s(pattern):
    network, wish = convolutions(), srigl(pattern, update_every=3)
    given = patterned(network, pattern)
    run = trainer(network, given, wish)
    run.train(6)
    twin, masks = copy.deepcopy(run.model).train(), run.masked.masks
    inputs, labels = batch_of(run)
    cross_entropy(twin(inputs.double()), labels).backward()
    weights = {name: one.detach().numpy().copy() for name, one in run.masked.weights.items()}
    run.train(7)
    share = 0.15 * (1 + math.cos(math.pi * 6 / (0.75 * run.steps)))
    for name, mask in run.masked.masks.items():
        gradients = twin.get_parameter(name).grad.numpy()
        expected = masks[name] if name == FIRST else oracle(name, masks[name], weights[name], gradients, share, pattern)
        assert (mask == expected).all(), name
        assert name == FIRST or (mask != masks[name]).any()
        # What stays, or returns at once, has its weight; what grows is 0.
        assert (run.masked.weights[name].detach().numpy() == weights[name] * masks[name] * mask).all()


@pytest.mark.parametrize("pattern", [Pattern(2, 4), Pattern(3, 4), Pattern(1, 2)], ids=str)
def test_each_group_keeps_its_count_at_every_update(pattern, caplog):
    caplog.set_level("INFO", "pai")
    network, told = convolutions(), []
    given = patterned(network, pattern)
    run = trainer(network, given, srigl(pattern), Run(record=told.append))
    changed = 0
    for step in range(run.steps):
        before = run.masked.masks
        run.train(step + 1)
        for name, mask in run.masked.masks.items():
            if name == FIRST:
                assert mask.all()
                continue
            assert set(counts_of(name, mask, pattern.of).values()) == {pattern.keep}
            moves = (
                math.floor(run.recipe.moved_share(step, run.steps) * mask.sum() + 0.5) if step in range(2, 12, 2) else 0
            )
            grown = int((mask & ~before[name]).sum())
            assert grown <= moves  # those that return at once are none
            changed += grown
    assert changed > 0
    updates = [one for one in told if "mask_update" in one]
    assert [one["step"] for one in updates] == [0, 2, 4, 6, 8, 10]
    assert {(one["kept"], one["ablated"], one["pattern"], one["fixed_layers"]) for one in updates} == {
        (sum(int(one.sum()) for one in given.values()), 0, str(pattern), 1)
    }
    assert all(one[name] is not None or one["reason"] for one in updates for name in ("dr", "l2", "lambda"))
    assert all(one["l2"] > 0 and one["l2_error"] < 1e-3 * one["l2"] for one in updates)
    lines = [line for line in caplog.messages if line.startswith("dynamic=srigl")]
    assert lines == [
        f"dynamic=srigl: each update keeps {pattern} in 2.weight, 4.weight, 6.weight, and ablates no output",
        "dynamic=srigl: no update moves 0.weight: all weights are kept there",
    ]


@pytest.mark.parametrize("step", [2, 4, 8, 10])
def test_as_many_weights_move_as_the_schedule_says(step):
    """Where no gradient of those that were kept is large, none returns."""
    network, pattern = convolutions(), Pattern(2, 4)
    run = trainer(network, patterned(network, pattern), srigl(pattern))
    masks, random = run.moving.first, np.random.default_rng(step)
    weights = {name: random.standard_normal(mask.shape) * mask for name, mask in masks.items()}
    gradients = {name: np.where(mask, 0.0, 1 + random.random(mask.shape)) for name, mask in masks.items()}
    ties = MoveTies()
    pruned, after = run.moving.updated(masks, weights, gradients, step, ties)
    share = 0.15 * (1 + math.cos(math.pi * step / (0.75 * run.steps)))
    total = 0
    for name, mask in after.items():
        moves = 0 if name == FIRST else math.floor(share * masks[name].sum() + 0.5)
        assert int((mask & ~masks[name]).sum()) == int((masks[name] & ~mask).sum()) == moves
        total += moves
    assert ties.count == total > 0
    assert pruned is masks


def test_constant_fan_in_is_the_pattern_whose_group_is_a_row():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(3 * SIDE * SIDE, 12), nn.ReLU(), nn.Linear(12, CLASSES))
    network = wrap(model, (3, SIDE, SIDE))
    rows = np.zeros((12, 3 * SIDE * SIDE), bool)
    rows[:, ::3] = True
    masks = {"1.weight": rows}
    by_row = srigl(Pattern(36, 108))
    even = recipe(dynamic=Dynamic.SRIGL, update_every=2, min_salient=0.0)
    one, other = (fit(network, masks, wish, data_for(wish, network)) for wish in (by_row, even))
    assert (one.masks["1.weight"] != rows).any()
    assert (one.masks["1.weight"] == other.masks["1.weight"]).all()
    assert equal(one.last, other.last)


def test_interrupted_and_resumed_is_the_same_to_the_bit(tmp_path):
    network, wish = convolutions(), srigl(Pattern(2, 4))
    masks = patterned(network, Pattern(2, 4))
    whole: list = []
    straight = fit(network, masks, wish, data_for(wish, network), Run(record=whole.append))
    pieces: list = []
    run = trainer(network, masks, wish, Run(record=pieces.append))
    for point in (0, 3, 7, 11):
        run.train(point)
        state = through_a_file(run.state(), tmp_path)
        torch.manual_seed(point)  # what others draw meanwhile
        run = trainer(network, masks, wish, Run(record=pieces.append))
        run.load(state)
    run.train()
    resumed = run.finish()
    assert equal(resumed.last, straight.last)
    assert all((resumed.masks[name] == mask).all() for name, mask in straight.masks.items())
    for one in (whole, pieces):
        for line in one:
            line.pop("seconds", None)
    assert pieces == whole


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (
            lambda masks: masks["2.weight"].__setitem__((0, slice(None), 0, 0), True),
            "2:4: 2.weight keeps another number in 1 of 72 groups of inputs",
        ),
        (
            lambda masks: masks["6.weight"].__setitem__(1, False),
            "2:4: 6.weight keeps another number in 98 of 392 groups of inputs",
        ),
        (lambda masks: masks[FIRST].__setitem__(0, False), "2:4: 0.weight has 3 inputs, no multiple of 4"),
        (
            lambda masks: masks.__setitem__("0.bias", np.arange(8) % 2 == 0),
            "2:4: 0.bias is no layer that can be pruned",
        ),
    ],
    ids=["too many", "an output without weights", "indivisible", "a bias"],
)
def test_a_mask_without_the_pattern_is_refused(change, text):
    network = convolutions()
    masks = patterned(network, Pattern(2, 4))
    change(masks)
    with pytest.raises(RecipeError) as caught:
        trainer(network, masks, srigl(Pattern(2, 4)))
    assert str(caught.value) == f"pattern={text}; mask= takes one that was pruned with it"


def test_a_pattern_that_is_none():
    with pytest.raises(
        MethodOptionError, match=r"^pattern=4:4: N:M keeps N of every M inputs, 1 <= N < M, such as 2:4$"
    ):
        srigl(Pattern(4, 4))


# Masks that no update moves


@pytest.mark.parametrize("dynamic", [Dynamic.SET, Dynamic.RIGL, Dynamic.SRIGL])
def test_a_mask_that_never_moves_is_told(dynamic):
    network, told = convolutions(), []
    masks = {layer.name: np.ones(layer.shape, bool) for layer in network.layers}
    wish = recipe(dynamic=dynamic, update_every=2, epochs=2)
    text = rf"^dynamic={dynamic}: no update moves 0.weight, 2.weight, 4.weight and 1 more: all weights are kept there$"
    run = trainer(network, masks, wish, Run(record=told.append))
    with pytest.warns(PaiWarning, match=text):
        run.train()
    assert {one["fixed_layers"] for one in told if "mask_update" in one} == {4}
    assert all(mask.all() for mask in run.masked.masks.values())


def test_layers_that_never_move_are_told(caplog):
    caplog.set_level("INFO", "pai")
    network, told = convolutions(), []
    masks = patterned(network, Pattern(2, 4))
    masks["4.weight"] = np.arange(8 * 4 * 4).reshape(8, 4, 2, 2) == 5  # of one weight 0.29 are none
    run = trainer(network, masks, recipe(dynamic=Dynamic.RIGL, update_every=2), Run(record=told.append))
    run.train()
    assert [line for line in caplog.messages if "no update moves" in line] == [
        "dynamic=rigl: no update moves 0.weight: all weights are kept there",
        "dynamic=rigl: no update moves 4.weight: 28% of the weights kept there come to less than half a weight",
    ]
    assert {one["fixed_layers"] for one in told if "mask_update" in one} == {2}
    after = run.masked.masks
    assert [name for name, mask in after.items() if (mask == masks[name]).all()] == ["0.weight", "4.weight"]


def test_layers_without_weights_and_shares_below_a_hundredth_are_told_as_they_are(caplog):
    caplog.set_level("INFO", "pai")
    network = convolutions()
    masks = patterned(network, Pattern(2, 4))
    masks["4.weight"] = np.zeros((8, 4, 2, 2), bool)
    run = trainer(network, masks, recipe(dynamic=Dynamic.RIGL, update_every=2, update_fraction=1e-4))
    with pytest.warns(PaiWarning):
        run.train()
    assert [for_shell(line).partition(" no update moves ")[2] for line in run.moving.told] == [
        "0.weight: all weights are kept there",
        "4.weight: no weight is kept there",
        "2.weight, 6.weight: 0.0093% of the weights kept there come to less than half a weight",
    ]
    assert run.fixed_layers == 4


def test_whole_layers_are_not_told_of_where_updates_prune(caplog):
    caplog.set_level("INFO", "pai")
    network, told = convolutions(), []
    trainer(
        network, {}, recipe(dynamic=Dynamic.GRANET, update_every=2, final_density=0.5), Run(record=told.append)
    ).train()
    assert not [line for line in caplog.messages if "no update moves" in line]
    assert {(one["fixed_layers"], one["pattern"]) for one in told if "mask_update" in one} == {(None, None)}


# The command line


@pytest.fixture
def place(pai: Pai, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with a network and a mask of 2:4."""
    monkeypatch.chdir(tmp_path)
    assert pai("init", "mlp-64-16-10", "-o", "net.safetensors").status == 0
    made = pai("prune", "net.safetensors", "--method", "random", "--pattern", "2:4", "-o", "m.safetensors")
    assert made.status == 0, made.err
    return tmp_path


WORDS = ("train", "net.safetensors", "--mask", "m.safetensors", "--data", "digits", "--epochs", 2, "--update-every", 4)


def test_two_of_four_on_the_command_line(pai, place):
    flags = ("--dynamic", "srigl", "--pattern", "2:4", "--format", "json")
    done = pai(*WORDS, *flags, "-o", "o.safetensors")
    assert done.status == 0, done.err
    [row] = done.json()
    assert (row["recipe"], row["fixed_layers"], row["density"]) == ("srigl-2:4", 0, 0.5)
    assert row["explored"] > 0.5
    first, last = (name for name in MaskFile(Path("m.safetensors")).names)
    assert [line for line in done.said if line.startswith("pai: --dynamic srigl: each")] == [
        f"pai: --dynamic srigl: each update keeps 2:4 in {first}, {last}, and ablates no output"
    ]
    mask, before = MaskFile(Path("o-mask.safetensors")), MaskFile(Path("m.safetensors"))
    assert (mask.metadata["method"], mask.metadata["pattern"]) == ("srigl", "2:4")
    arrays = {name: mask.array(name) for name in mask.names}
    assert two_of_four("o", arrays, dict.fromkeys(arrays, PLAIN)).layers == tuple(arrays)
    assert all((one.reshape(-1, 4).sum(1) == 2).all() for one in arrays.values())
    assert any((one != before.array(name)).any() for name, one in arrays.items())
    weights = load_file("o.safetensors")
    assert all(not weights[name].numpy()[~one].any() for name, one in arrays.items())
    semi = pai(
        "convert", "o-mask.safetensors", "--weights", "o.safetensors", "--to", "semi-structured", "-o", "s.safetensors"
    )
    assert semi.status == 0, semi.err
    [told] = [one for one in pai("info", "o-mask.safetensors", "--format", "json").json() if one.get("method")]
    assert told["pattern"] == "2:4"
    again = pai(*WORDS, *flags, "-o", "p.safetensors")
    assert again.json()[0]["accuracy"] == row["accuracy"]
    assert equal(load_file("p.safetensors"), weights)
    for path in ("p.safetensors", "p-mask.safetensors"):
        Path(path).unlink()
    other = pai(*WORDS, "--dynamic", "srigl", "--pattern", "4:8", "-o", "p.safetensors", "--resume")
    assert other.status == 1
    assert "that training had pattern 2:4, this one has 4:8" in other.words


@pytest.mark.parametrize(
    ("dynamic", "line"),
    [
        (
            "srigl",
            "--dynamic srigl: moves do not keep 2:4, which m.safetensors was pruned by; give --pattern 2:4 to keep it",
        ),
        (
            "set",
            "--dynamic set: moves do not keep 2:4, which m.safetensors was pruned by; give --dynamic srigl and --pattern "
            "2:4 to keep it",
        ),
        ("gmp", None),
    ],
)
def test_a_pattern_that_is_given_up_is_told(pai, place, dynamic, line):
    done = pai(*WORDS, "--dynamic", dynamic, "-o", "o.safetensors")
    assert done.status == 0, done.err
    assert [one for one in done.said if "do not keep" in one] == ([] if line is None else [f"pai: {line}"])
    assert "pattern" not in MaskFile(Path("o-mask.safetensors")).metadata


GIVEN_UP = "--pattern {0}: moves do not keep {1}, which m.safetensors was pruned by; give --pattern {1} to keep it"


@pytest.mark.parametrize(
    ("pruned", "moved", "line"),
    [
        ("2:4", "4:8", GIVEN_UP.format("4:8", "2:4")),
        ("2:4", "2:4", None),
        ("4:8", "2:4", None),  # of a mask that has both
        ("1:8", "2:4", GIVEN_UP.format("2:4", "1:8")),
        ("0:0", "2:4", None),
        ("9" * 5000 + ":8", "2:4", None),
        ("x", "2:4", None),
    ],
    ids=lambda one: str(one)[:10],
)
def test_a_pattern_that_is_given_up_for_another(pruned, moved, line):
    mask: Any = SimpleNamespace(path=Path("m.safetensors"), metadata={"pattern": pruned})
    told = pattern_given_up(mask, recipe(dynamic=Dynamic.SRIGL, pattern=pattern_of(moved)))
    assert for_shell(told) == (line or "")


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (("--dynamic", "srigl", "--pattern", "2of4"), "--pattern 2of4: give N:M, such as 2:4"),
        (("--dynamic", "srigl", "--pattern", "2:5"), "--pattern 2:5: {first} has 64 inputs, no multiple of 5; --mask "
                                                     "takes one that was pruned with it"),
        (("--dynamic", "rigl", "--pattern", "2:4"), "--pattern: --dynamic rigl keeps none; give --dynamic srigl, or leave "
                                                    "it out"),
    ],
)  # fmt: skip
def test_wrong_patterns(pai, place, options, text):
    before = sorted(path.name for path in place.iterdir())
    first = MaskFile(Path("m.safetensors")).names[0]
    done = pai(*WORDS, *options, "-o", "o.safetensors")
    assert (done.status, done.said[-1]) == (2, f"pai: error: {text.format(first=first)}")
    assert sorted(path.name for path in place.iterdir()) == before


def test_a_program_gives_a_pair(place):
    mask = pai_library.Mask.load("m.safetensors")
    training = pai_library.train(
        "net.safetensors", "digits", mask=dict(mask), epochs=1, dynamic="srigl", update_every=4, pattern=(2, 4)
    )
    assert training.mask is not None
    assert training.mask.metadata["pattern"] == "2:4"
    assert all((training.mask[name].reshape(-1, 4).sum(1) == 2).all() for name in mask)
    assert [line["ablated"] for line in training.history if "mask_update" in line] == [0, 0]
