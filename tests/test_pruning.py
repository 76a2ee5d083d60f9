"""What the pruning methods share: allocation, selection, connectedness, options. Their laws are in test_methods."""

from __future__ import annotations

import copy
import subprocess
import sys
from fractions import Fraction
from itertools import pairwise
from math import floor, prod

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from networks import IN_ROUNDS, NAMES, WITH_DATA, build, half_up, run, same, slim_vgg, wrap
from torch import nn

from pai_cli.errors import (
    DensityError,
    LayerSelectionError,
    MethodOptionError,
    PaiError,
    ScoreError,
    UnknownMethodError,
)
from pai_cli.methods import registry
from pai_cli.methods.registry import get
from pai_cli.models.network import init_network
from pai_cli.pruning.allocation import kept_count, layer_counts
from pai_cli.pruning.base import Masks, Method, ScoreContext, Scorer, Scores
from pai_cli.pruning.connectivity import is_connected
from pai_cli.pruning.run import PruneRequest, prune, result_of
from pai_cli.pruning.select import keep_largest, keep_largest_by_layer


def test_random_draws_of_a_layer_do_not_depend_on_the_others() -> None:
    net = build("residual")
    whole = run(net, "uniform", 0.3, seed=4)
    part = run(net, "uniform", 0.3, seed=4, ignore=("stem",))
    assert all(np.array_equal(whole.masks[name], mask) for name, mask in part.masks.items())


def test_uniform_and_random_share_scores() -> None:
    net = wrap(nn.Linear(30, 20), (30,))
    assert same(run(net, "random", 0.3), run(net, "uniform", 0.3))
    assert same(run(net, "random", 0.3), run(net, "erk", 0.3))


def test_magnitude_keeps_the_largest() -> None:
    net = wrap(nn.Linear(4, 1), None)
    with torch.no_grad():
        net.model.weight.copy_(torch.tensor([[-3.0, 0.5, 2.0, -1.0]]))
    result = run(net, "magnitude", 0.5)
    assert result.masks["weight"].tolist() == [[True, False, True, False]]
    assert result.connected is None  # the input's shape is not known
    assert run(net, "magnitude", 0.5, input_shape=(4,)).connected is True
    assert run(net, "magnitude", 0.5, input_shape=(5,)).connected is None


def test_connected_is_about_paths_not_biases_or_empty_layers() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 2))
    with torch.no_grad():  # what is kept of the first layer feeds unit 0, what is kept of the second reads unit 1
        model[0].weight.copy_(torch.tensor([[9.0, 9.0], [1.0, 1.0]]))
        model[2].weight.copy_(torch.tensor([[1.0, 9.0], [1.0, 9.0]]))
    result = run(wrap(model, (2,)), "magnitude", 0.5)
    assert result.collapsed == ()
    assert result.connected is False
    net = build("residual")
    with torch.no_grad():
        net.model.body.weight.mul_(1e-6)
    result = run(net, "magnitude", 0.2)
    assert result.collapsed == ("body.weight",)
    assert result.connected is True


def trained(model: nn.Module) -> nn.Module:
    """The model with the norms of one that was trained: its means and variances, scales and shifts of both signs."""
    torch.manual_seed(1)
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean.normal_().abs_()
                module.running_var.uniform_(0.1, 3.0)
                module.weight.normal_()
                module.bias.normal_().sub_(1.0)
    return model


@pytest.mark.parametrize("name", ["resnet8-1x1", "vgg11-bn", "resnet32"])
def test_connected_does_not_depend_on_what_norms_have_learned(name: str) -> None:
    net = slim_vgg(name) if name.startswith("vgg") else init_network(name, 10, 0)
    trained(net.model)
    result = run(net, "random", 0.05)
    assert result.collapsed == ()
    assert result.connected is True
    net.model.double()
    assert result_of(net, PruneRequest(get("random"), 0.05), result.masks, 1).connected is True
    last = net.layers[-1].name
    assert is_connected(net, result.masks | {last: np.zeros_like(result.masks[last])}, net.input_shape, "cpu") is False


def test_connected_is_about_masks_not_values() -> None:
    net = build("residual")
    masks = run(net, "random", 0.5).masks
    with torch.no_grad():
        for value in (0.0, -1.0, 1e30, float("inf"), float("nan")):
            for parameter in net.model.parameters():
                parameter.fill_(value)
            assert is_connected(net, masks, net.input_shape, "cpu") is True


@given(st.lists(st.integers(1, 5), min_size=2, max_size=9), st.integers(0, 2**32 - 1), st.floats(0.1, 0.9))
def test_connected_is_the_product_of_the_masks(widths: list[int], seed: int, density: float) -> None:
    rng = np.random.default_rng(seed)
    net = wrap(nn.Sequential(*(nn.Linear(a, b) for a, b in pairwise(widths))), (widths[0],))
    masks: Masks = {layer.name: rng.random(layer.shape) < density for layer in net.layers}
    reached = np.ones(widths[0], bool)
    for mask in masks.values():
        reached = (mask & reached).any(1)
    assert is_connected(net, masks, (widths[0],), "cpu") is bool(reached.any())
    activations = [
        module for linear in net.model for module in (linear, nn.Sigmoid(), nn.BatchNorm1d(linear.weight.shape[0]))
    ]
    other = wrap(nn.Sequential(*activations), (widths[0],))
    renamed = dict(zip((layer.name for layer in other.layers), masks.values(), strict=True))
    assert is_connected(other, renamed, (widths[0],), "cpu") is bool(reached.any())


@pytest.mark.parametrize("paths", [1, 30])
def test_connected_neither_fades_nor_grows_with_depth(paths: int) -> None:
    """300 layers of 30 units: of all that each unit reads, one input in thirty carries anything, or each does; and 30 to
    the 300 is past float64 either way.
    """
    net = wrap(nn.Sequential(*(nn.Linear(30, 30) for _ in range(300))), (30,))
    mask = np.ones((30, 30), bool)
    mask[paths:] = False
    masks = {layer.name: mask for layer in net.layers}
    assert is_connected(net, masks, (30,), "cpu") is True
    masks[net.layers[140].name] = np.zeros_like(mask)
    assert is_connected(net, masks, (30,), "cpu") is False


class Difference(nn.Module):
    """Two equal branches, one subtracted, and parameters of the network's own."""

    def __init__(self) -> None:
        super().__init__()
        self.plus, self.minus = nn.Linear(3, 1), nn.Linear(3, 1)
        self.shift, self.mixing = nn.Parameter(torch.zeros(1)), nn.Parameter(torch.zeros(1, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return (self.plus(x) - self.minus(x)) @ self.mixing + self.shift + 1


class Standardised(nn.Linear):
    """Weights of mean 0: what a mask of ones would become cannot be told."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return nn.functional.linear(x, self.weight - self.weight.mean(1, keepdim=True), self.bias)


def test_connected_where_a_network_computes_between_its_layers() -> None:
    net = wrap(Difference(), (3,))
    whole = {layer.name: np.ones(layer.shape, bool) for layer in net.layers}
    assert is_connected(net, whole, (3,), "cpu") is True
    assert is_connected(net, {name: ~mask for name, mask in whole.items()}, (3,), "cpu") is False
    net = wrap(Standardised(3, 2), (3,))
    assert is_connected(net, {"weight": np.ones((2, 3), bool)}, (3,), "cpu") is None


@pytest.mark.parametrize("shape", [(3, 10**6, 10**6), (3, 10**12, 10**12), (3, 10**30, 1)])
def test_an_input_shape_past_memory(shape: tuple[int, ...]) -> None:
    net = build("residual")
    for method in ("random", "magnitude"):
        assert run(net, method, 0.3, input_shape=shape).connected is None
    with pytest.raises(MethodOptionError) as caught:
        run(net, "synflow", 0.3, input_shape=shape)
    assert str(caught.value) == (
        f"synflow: one float64 input of shape {','.join(map(str, shape))} does not fit in memory; "
        "give a smaller input_shape="
    )


# ---- options and errors, as a person reads them

ERRORS = [
    ("density_high", "magnitude", {"density": 1.5}, DensityError,
     "density 1.5: must be above 0 and at most 1 (the fraction of weights kept; sparsity= is the fraction removed)"),
    ("density_nan", "random", {"density": float("nan")}, DensityError,
     "density nan: must be above 0 and at most 1 (the fraction of weights kept; sparsity= is the fraction removed)"),
    ("density_zero", "erk", {"density": 0.0}, DensityError,
     "density 0.0: must be above 0 and at most 1 (the fraction of weights kept; sparsity= is the fraction removed)"),
    ("density_tiny", "synflow", {"density": 1e-12}, DensityError,
     "density 1e-12 keeps fewer than one of 1,656 weights; the smallest is 0.000604"),
    ("density_layers", "uniform", {"density": 4e-4}, DensityError,
     "density 0.0004 keeps no weight of any layer, of which the largest has 1,152; the smallest for the same density "
     "in every layer is 0.000868"),
    ("ignore_nothing", "magnitude", {"ignore": ("foo*",)}, LayerSelectionError,
     "ignore=foo*: matches none of the 4 prunable layers (stem.weight, body.weight, shortcut.weight and 1 more)"),
    ("ignore_all", "magnitude", {"ignore": ("s*", "body", "fc")}, LayerSelectionError,
     "ignore=s* body fc: leaves no layer to prune; drop a glob"),
    ("scope_global", "erk", {"scope": "global"}, MethodOptionError,
     "scope=global: erk fixes the density of each layer; leave scope= out"),
    ("scope_odd", "magnitude", {"scope": "all"}, MethodOptionError, "scope=all: must be global or layer"),
    ("rounds_one_shot", "magnitude", {"rounds": 5}, MethodOptionError,
     f"rounds=5: magnitude scores once; leave rounds= out (methods that take it: {IN_ROUNDS})"),
    ("rounds_auto_one_shot", "random", {"rounds": "auto"}, MethodOptionError,
     f"rounds=auto: random scores once; leave rounds= out (methods that take it: {IN_ROUNDS})"),
    ("rounds_zero", "synflow", {"rounds": 0}, MethodOptionError, "rounds=0: must be at least 1, or auto"),
    ("rounds_auto_layer", "synflow", {"rounds": "auto", "scope": "layer"}, MethodOptionError,
     "rounds=auto: weighs all layers against each other; give a number of rounds=, or leave scope=layer out"),
    ("seed", "random", {"seed": -1}, MethodOptionError, "seed=-1: must be 0 to 9223372036854775807"),
    ("seed_large", "synflow", {"seed": 2**63}, MethodOptionError,
     "seed=9223372036854775808: must be 0 to 9223372036854775807"),
    ("method", "synflw", {}, UnknownMethodError,
     f"unknown method 'synflw': did you mean synflow? method= takes {NAMES}"),
    ("method_far", "xyz", {}, UnknownMethodError,
     f"unknown method 'xyz': method= takes {NAMES}"),
    ("no_density", "magnitude", {"density": None}, DensityError,
     "no density; give density=, sparsity=, pattern= or densities="),
    ("data_missing", "snip", {}, MethodOptionError, "method=snip: scores with labelled samples; give data="),
    ("data_unused", "erk", {"data": "digits"}, MethodOptionError,
     f"data=digits: erk needs no data; leave data= out (methods that take it: {WITH_DATA})"),
    ("per_class_unused", "erk", {"per_class": 3}, MethodOptionError,
     f"per_class=3: erk needs no data; leave per_class= out (methods that take it: {WITH_DATA})"),
    ("per_class_zero", "snip", {"per_class": 0, "data": "digits"}, MethodOptionError,
     "per_class=0: must be at least 1"),
    ("pattern_zero", "magnitude", {"density": None, "pattern": (0, 4)}, MethodOptionError,
     "pattern=0:4: N:M keeps N of every M inputs, 1 <= N < M, such as 2:4"),
    ("pattern_whole", "magnitude", {"density": None, "pattern": (4, 4)}, MethodOptionError,
     "pattern=4:4: N:M keeps N of every M inputs, 1 <= N < M, such as 2:4"),
    ("pattern_scope", "magnitude", {"density": None, "pattern": (2, 4), "scope": "layer"}, MethodOptionError,
     "pattern=2:4: fixes the density of each layer; leave scope= out"),
    ("pattern_shuffle", "magnitude", {"density": None, "pattern": (2, 4), "shuffle": True}, MethodOptionError,
     "pattern=2:4: shuffle=True would undo it; leave one out"),
    ("pattern_fits_none", "magnitude", {"density": None, "pattern": (1, 5)}, LayerSelectionError,
     "pattern=1:5: 5 divides the inputs of no layer (stem.weight has 3, body.weight has 8, shortcut.weight has 8 and "
     "1 more); give another pattern"),
    ("pattern_auto", "synflow", {"density": None, "pattern": (2, 4), "rounds": "auto"}, MethodOptionError,
     "rounds=auto: weighs all layers against each other; give a number of rounds=, or leave pattern= out"),
    ("invert_auto", "synflow", {"invert": True, "rounds": "auto"}, MethodOptionError,
     "rounds=auto: removes the smallest scores, and invert=True keeps them; give a number of rounds="),
    ("densities_scope", "magnitude", {"density": None, "densities": (("*", 0.5),), "scope": "global"},
     MethodOptionError, "scope=global: densities= fixes the density of each layer; leave scope= out"),
    ("densities_unknown", "magnitude", {"density": None, "densities": (("*", 0.5), ("conv9", 0.5))},
     LayerSelectionError,
     "densities=conv9: matches none of the 4 prunable layers (stem.weight, body.weight, shortcut.weight and 1 more)"),
    ("densities_high", "magnitude", {"density": None, "densities": (("*", 0.5), ("fc", 1.5))}, DensityError,
     "densities: 'fc' has 1.5; must be above 0 and at most 1"),
    ("densities_zero", "magnitude", {"density": None, "densities": (("fc", 0.0),)}, DensityError,
     "densities: 'fc' has 0; must be above 0 and at most 1"),
    ("densities_missing", "magnitude", {"density": None, "densities": (("s*", 0.5),)}, LayerSelectionError,
     "densities: has no density for body.weight, fc.weight; add them, or \"*\" as the last, or ignore= them"),
    ("densities_empty", "magnitude", {"density": None, "densities": (("*", 1e-5),)}, DensityError,
     "densities= keeps no weight of any layer; give larger ones"),
]  # fmt: skip


@pytest.mark.parametrize(("method", "options", "kind", "text"), [e[1:] for e in ERRORS], ids=[e[0] for e in ERRORS])
def test_what_is_wrong_is_said_in_one_line(
    method: str, options: dict[str, object], kind: type[PaiError], text: str
) -> None:
    with pytest.raises(kind) as caught:
        prune(build("residual"), PruneRequest(get(method), **{"density": 0.1, **options}))  # type: ignore[arg-type]
    assert str(caught.value) == text


def test_the_smallest_density_named_is_enough() -> None:
    net = build("residual")
    assert run(net, "magnitude", 1 / net.total).kept == 1


def test_nan_weight_is_named() -> None:
    net = build("residual")
    with torch.no_grad():
        net.model.body.weight[0, 0, 0, 0] = float("nan")
    with pytest.raises(ScoreError, match=r"^body\.weight: a score is NaN; check the weights"):
        run(net, "magnitude", 0.1)


def test_network_without_layers() -> None:
    with pytest.raises(LayerSelectionError, match=r"^the network has no layer to prune; check model=$"):
        run(wrap(nn.Sequential(nn.ReLU()), (3,)), "magnitude", 0.1)


def test_the_registry_is_light_and_open(monkeypatch: pytest.MonkeyPatch) -> None:
    code = "import sys, pai_cli.methods.registry; sys.exit(bool({'torch', 'numpy', 'scipy'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
    monkeypatch.setattr(registry, "METHODS", dict(registry.METHODS))

    def make_scorer(context: ScoreContext) -> Scorer:
        signed = {layer.name: context.network.parameter(layer.name).detach() for layer in context.layers}
        return lambda masks: Scores(signed)

    registry.register(Method("signed", "the most positive weights", "a test", make_scorer, iterative=True))
    assert run(build("mlp"), "signed", 0.1).kept == half_up(0.1, 1160)
    with pytest.raises(MethodOptionError, match=r"^rounds=auto: only for synflow.*; give signed a number of rounds=$"):
        run(build("mlp"), "signed", 0.1, rounds="auto")
    with pytest.raises(ValueError, match=r"'signed' is registered already"):
        registry.register(registry.get("signed"))


def test_progress_is_told() -> None:
    heard: list[tuple[int, int, str]] = []
    net = build("mlp")
    prune(
        net, PruneRequest(get("synflow"), 0.1, rounds=4), lambda done, total, what="": heard.append((done, total, what))
    )
    assert [h[:2] for h in heard] == [(1, 4), (2, 4), (3, 4), (4, 4)]
    heard.clear()
    prune(net, PruneRequest(get("synflow"), 0.1, rounds="auto"), lambda *a: heard.append(a))
    assert heard[-1][0] == heard[-1][1] == 1160 - 116
    assert [h[0] for h in heard] == sorted(h[0] for h in heard)


# ---- selection


def naive(scores: dict[str, np.ndarray], count: int, active: dict[str, np.ndarray] | None) -> list[bool]:
    flat = np.concatenate([a.ravel() for a in scores.values()])
    alive = np.ones(len(flat), bool) if active is None else np.concatenate([active[k].ravel() for k in scores])
    order = sorted((i for i in range(len(flat)) if alive[i]), key=lambda i: (-flat[i], i))
    return [i in set(order[:count]) for i in range(len(flat))]


layers_of_scores = st.lists(
    st.lists(st.sampled_from([0.0, -0.0, 1.0, 1.0, 2.5, -3.0, 1e-300, np.inf]), min_size=1, max_size=12),
    min_size=1,
    max_size=4,
)


@given(layers_of_scores, st.data())
def test_keep_largest_is_the_naive_sort(values: list[list[float]], data: st.DataObject) -> None:
    dtypes = (np.float64, np.float32)
    scores = {f"l{i}": np.array(v, dtypes[i % 2]).reshape(1, -1) for i, v in enumerate(values)}
    active = None
    if data.draw(st.booleans()):
        active = {k: np.array(data.draw(st.lists(st.booleans(), min_size=v.size, max_size=v.size))).reshape(v.shape)
                  for k, v in scores.items()}  # fmt: skip
    alive = sum(v.size for v in scores.values()) if active is None else sum(int(a.sum()) for a in active.values())
    count = data.draw(st.integers(0, alive))
    masks = keep_largest(scores, count, active)
    assert np.concatenate([m.ravel() for m in masks.values()]).tolist() == naive(scores, count, active)
    counts = {k: min(count, v.size if active is None else int(active[k].sum())) for k, v in scores.items()}
    for name, mask in keep_largest_by_layer(scores, counts, active).items():
        of_layer = None if active is None else {name: active[name]}
        assert mask.ravel().tolist() == naive({name: scores[name]}, counts[name], of_layer)


def test_ties_in_columns_order_follow_the_flat_index() -> None:
    scores = {"a": np.asfortranarray(np.ones((3, 4)))}
    mask = keep_largest(scores, 5)["a"]
    assert mask.ravel().tolist() == [True] * 5 + [False] * 7


def test_keep_largest_refuses_what_it_cannot_do() -> None:
    scores = {"a": np.ones(3), "b": np.array([1.0, np.nan])}
    with pytest.raises(ScoreError, match=r"^b: a score is NaN"):
        keep_largest(scores, 2)
    alive = {"a": np.ones(3, bool), "b": np.array([True, False])}
    assert keep_largest(scores, 4, alive)["b"].tolist() == [True, False]  # a pruned weight's score is not looked at
    with pytest.raises(ValueError, match=r"cannot keep 5 of 4 weights"):
        keep_largest(scores, 5, alive)


# ---- allocation


@pytest.mark.parametrize(
    ("density", "total", "kept"),
    [
        (0.29, 50, 15),
        (0.7, 45, 32),
        (0.5, 1, 1),
        (0.1, 5, 1),
        (0.1, 4, 0),
        (1.0, 7, 7),
        (0.05, 268144, 13407),
        (5e-324, 9, 0),
    ],
)
def test_halves_of_the_decimal_that_was_typed_go_up(density: float, total: int, kept: int) -> None:
    assert kept_count(density, total) == kept
    assert kept_count(np.float64(density), total) == kept


@given(st.integers(1, 10**9), st.integers(1, 9), st.integers(1, 10**10))
def test_kept_count_is_exact(digits: int, places: int, total: int) -> None:
    text = f"{digits % 10**places or 1}e-{places}"
    exact = Fraction(text) * total
    kept = kept_count(float(text), total)
    assert kept == floor(exact + Fraction(1, 2))
    assert kept - Fraction(1, 2) <= exact < kept + Fraction(1, 2)


def test_uniform_and_erk_round_the_same_way() -> None:
    assert layer_counts("uniform", {"a": (5, 10), "b": (5, 9)}, 0.29) == {"a": 15, "b": 13}
    assert layer_counts("uniform", {"a": (5, 9)}, 0.7) == {"a": 32}
    assert layer_counts("erk", {"a": (5, 10)}, 0.29) == {"a": 15}
    assert sum(layer_counts("erk", {"a": (5, 4), "b": (5, 5)}, 0.7).values()) == 32
    net = wrap(nn.Sequential(nn.Linear(5, 5, bias=False), nn.Linear(5, 5, bias=False)), (5,))
    assert [run(net, method, 0.29).kept for method in ("random", "magnitude", "erk", "synflow")] == [15] * 4


shape_lists = st.lists(
    st.one_of(st.tuples(*[st.integers(1, 40)] * 2), st.tuples(*[st.integers(1, 20)] * 2, *[st.integers(1, 5)] * 2)),
    min_size=1,
    max_size=8,
)


@given(shape_lists, st.floats(1e-3, 1.0))
def test_erk_is_proportional_and_exact(shapes: list[tuple[int, ...]], density: float) -> None:
    named = {f"l{i}": s for i, s in enumerate(shapes)}
    total = sum(map(prod, shapes))
    if half_up(density, total) == 0:
        return
    counts = layer_counts("erk", named, density)
    assert sum(counts.values()) == half_up(density, total)
    assert all(0 <= counts[k] <= prod(named[k]) for k in named)
    # One scale for every layer that is not dense, each rounded by less than one; the dense ones would pass 1 with it.
    bounds = [(Fraction(counts[k] - 1, sum(s)), Fraction(counts[k] + 1, sum(s))) for k, s in named.items()]
    sparse = [b for b, k in zip(bounds, named, strict=True) if counts[k] < prod(named[k])]
    if sparse:
        low, high = max(b[0] for b in sparse), min(b[1] for b in sparse)
        assert low < high
        assert all(Fraction(prod(s) - 1, sum(s)) < high for k, s in named.items() if counts[k] == prod(s))


def test_erk_known_answer() -> None:
    # scale 4 gives 40 of 100 in b and c each; a would get 16 of its 4, so it is dense and the rest shared again
    counts = layer_counts("erk", {"a": (2, 2), "b": (10, 10), "c": (20, 20)}, 64 / 504)
    assert counts == {"a": 4, "b": 20, "c": 40}


def test_erk_on_resnet20_is_exact_at_published_densities() -> None:
    shapes = {layer.name: layer.shape for layer in init_network("resnet20", 10, 0).layers}
    for density, kept in ((0.0372, 9982), (0.0144, 3864), (0.0059, 1583)):
        assert sum(layer_counts("erk", shapes, density).values()) == kept


def test_masks_are_new_arrays() -> None:
    net = build("mlp")
    first = run(net, "magnitude", 0.5)
    kept = copy.deepcopy(first.masks)
    run(net, "magnitude", 0.1)
    assert all(np.array_equal(kept[k], first.masks[k]) for k in kept)
