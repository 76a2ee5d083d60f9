"""Every pruning method through one table of laws: exact counts, the seed, the network untouched, nothing revived."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache
from itertools import pairwise
from math import prod

import numpy as np
import pytest
import torch
from networks import PER_CLASS, ROUNDS, TRAINING, build, half_up, run, same, toy_for, wrap
from torch import nn
from torch.utils._python_dispatch import _get_current_dispatch_mode

from pai_cli.errors import MethodOptionError, ScoreError
from pai_cli.methods import registry
from pai_cli.methods.registry import get
from pai_cli.models.network import Network, PrunableLayer
from pai_cli.pruning.base import Masks, Pattern, ScoreContext, Scorer, Scores
from pai_cli.pruning.run import PruneRequest, PruneResult, choose_masks, prune, result_of


@dataclass(frozen=True)
class Row:
    """What the laws need to know of a method.

    `draws`: another seed gives another mask. `scope`: where the density holds. `exact`: whether the network's count is
    exact; else each layer's is. `trains`: dropout then acts. `by_layer`: it goes by so many weights of each layer, and
    takes neither a pattern nor --invert. `recovers`: a round may keep what the one before did not.
    """

    draws: bool = False
    scope: str = "global"
    exact: bool = True
    data: bool = False
    trains: bool = False
    by_layer: bool = False
    recovers: bool = False


TABLE = {
    "random": Row(draws=True),
    "uniform": Row(draws=True, scope="layer", exact=False),
    "erk": Row(draws=True, scope="layer"),
    "magnitude": Row(),
    "synflow": Row(),
    "synflow-l2": Row(),
    "smart-ratio": Row(draws=True, scope="layer"),
    "snip": Row(draws=True, data=True),
    "iter-snip": Row(draws=True, data=True),
    "force": Row(draws=True, data=True, recovers=True),
    "grasp": Row(draws=True, data=True),
    "fisher": Row(draws=True, data=True),
    "hutchinson": Row(draws=True, data=True),
    "phew": Row(draws=True),
    "npb": Row(draws=True, by_layer=True, scope="layer"),
    "ntk-sap": Row(draws=True),
    "px": Row(draws=True, data=True),
    "prospr": Row(draws=True, data=True),
    "gem-miner": Row(draws=True, data=True, trains=True),
    "edge-popup": Row(draws=True, data=True, trains=True, by_layer=True, scope="layer", exact=False),
    "imp": Row(draws=True, data=True, trains=True),
}
METHOD = pytest.mark.parametrize("method", TABLE)
FLOWS = ("synflow", "synflow-l2")
"""What has no score where no flow is left."""


@cache
def pruned(method: str, network: str, density: float, **options: object) -> PruneResult:
    """What a method makes of a network: run once, looked at by several laws."""
    return run(build(network), method, density, **options)


def one_round(method: str, network: str) -> dict[str, int]:
    """A tenth of this network is one weight of three layers: after the round that cuts it there is no flow to score."""
    return {"rounds": 1} if method in FLOWS and network == "one_weight" else {}


def test_the_table_has_every_method() -> None:
    assert list(TABLE) == [
        name for name, method in registry.METHODS.items() if not method.text
    ]  # test_language.py has those
    for name, row in TABLE.items():
        method = registry.get(name)
        assert method.name == name
        assert method.draws == row.draws
        assert (method.allocation == "none") == (row.scope == "global")
        assert bool(method.iterative) == (name in ROUNDS)
        assert method.data == row.data
        assert bool(method.trains) == row.trains
        assert method.recovers == row.recovers
        assert method.summary
        assert "arXiv:" in method.source or "openreview.net/" in method.source
        assert callable(method.load())


# ---- laws that every method obeys


@pytest.mark.parametrize(
    ("method", "network", "density"),
    [
        *((method, network, 0.3) for method in TABLE for network in ("residual", "convolutions", "mlp")),
        *((method, network, 0.1) for method in TABLE for network in ("tied", "tokens", "one_weight")),
        *((method, "tied", 1.0) for method in TABLE),
        *(("random", network, 1.0) for network in ("convolutions", "tokens")),  # of any method the same masks
    ],
)
def test_exact_count_in_network_order(method: str, network: str, density: float) -> None:
    net = build(network)
    result = pruned(method, network, density, **one_round(method, network))
    assert list(result.masks) == [layer.name for layer in net.layers]
    for layer in net.layers:
        mask = result.masks[layer.name]
        assert mask.shape == layer.shape
        assert mask.dtype == np.bool_
        assert mask.flags.c_contiguous
    assert result.kept == sum(int(mask.sum()) for mask in result.masks.values())
    assert result.total == net.total
    assert result.density == result.kept / result.total
    assert result.scope == TABLE[method].scope
    assert result.collapsed == tuple(name for name, mask in result.masks.items() if not mask.any())
    if TABLE[method].exact:
        assert result.kept == half_up(density, net.total)
    if density == 1.0:
        assert result.kept == net.total
        assert result.connected is True


@METHOD
@pytest.mark.parametrize(("network", "density"), [("residual", 0.3), ("one_weight", 0.1), ("convolutions", 0.5)])
def test_layer_scope_counts_each_layer(method: str, network: str, density: float) -> None:
    net = build(network)
    result = pruned(method, network, density, scope="layer", **one_round(method, network))
    assert result.scope == "layer"
    if registry.get(method).allocation in ("none", "uniform"):
        for layer in net.layers:
            assert result.masks[layer.name].sum() == half_up(density, prod(layer.shape))


@METHOD
def test_the_seed_and_nothing_else(method: str) -> None:
    first = pruned(method, "residual", 0.1)
    net = build("residual")
    torch.manual_seed(99)
    np.random.seed(99)
    state, numpy_state = torch.get_rng_state(), np.random.get_state()[1].copy()
    again = run(net, method, 0.1)
    assert torch.equal(torch.get_rng_state(), state)
    assert np.array_equal(np.random.get_state()[1], numpy_state)
    assert same(first, again)
    other = run(build("residual"), method, 0.1, seed=2)
    assert same(first, other) != TABLE[method].draws


@METHOD
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
def test_a_network_on_a_gpu_has_the_masks_of_one_on_the_cpu(method: str) -> None:
    """Where the network stands does not matter; `device` says where scores are computed."""
    there = build("residual")
    there.model.cuda()
    assert same(run(build("residual"), method, 0.3), run(there, method, 0.3, device="cpu"))
    assert all(parameter.is_cuda for parameter in there.model.parameters())


@METHOD
def test_the_network_is_left_as_it_was(method: str) -> None:
    net = build("convolutions")
    model = net.model.train()
    model[1].eval()  # so that neither mode is that of all
    parameters = list(model.parameters())
    parameters[0].requires_grad_(False)
    parameters[1].grad = torch.full_like(parameters[1], 3.0)
    with torch.no_grad():
        model[3].running_mean.fill_(-0.125)
        parameters[0].view(-1)[0] = -0.0
    before = {k: v.clone() for k, v in model.state_dict().items()}
    flags = [m.training for m in model.modules()]
    torch.manual_seed(5)
    state = torch.get_rng_state()
    run(net, method, 0.2)
    assert torch.equal(torch.get_rng_state(), state)
    after = model.state_dict()
    assert before.keys() == after.keys()
    for key, value in before.items():
        assert value.dtype == after[key].dtype
        assert value.numpy().tobytes() == after[key].numpy().tobytes(), key
    assert [m.training for m in model.modules()] == flags
    assert all(a is b for a, b in zip(parameters, model.parameters(), strict=True))
    assert [p.requires_grad for p in parameters] == [False] + [True] * (len(parameters) - 1)
    assert [p.grad is None for p in parameters] == [True, False] + [True] * (len(parameters) - 2)
    assert torch.equal(parameters[1].grad, torch.full_like(parameters[1], 3.0))
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


@METHOD
def test_inference_mode_and_autocast_of_the_caller_change_nothing(method: str) -> None:
    usual = pruned(method, "residual", 0.3)
    net = build("residual")
    with torch.inference_mode():
        assert same(run(net, method, 0.3), usual)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert same(run(net, method, 0.3), usual)


@dataclass
class Passes:
    """How many passes are left, of a network and all its copies together."""

    left: int

    def __deepcopy__(self, memo: object) -> Passes:
        return self


class Stopped(nn.Module):
    """Two layers and a batch norm; the pass is interrupted after so many."""

    def __init__(self, after: int) -> None:
        super().__init__()
        self.first, self.norm, self.last = nn.Linear(6, 8), nn.BatchNorm1d(8), nn.Linear(8, 5)
        self.passes = Passes(after)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.norm(self.first(x)))
        self.passes.left -= 1
        if self.passes.left < 0:
            raise KeyboardInterrupt
        return self.last(x)


@pytest.mark.parametrize("method", [name for name, row in TABLE.items() if row.data and not row.trains])
@pytest.mark.parametrize("after", [1, 2])
def test_interrupted_in_a_pass_all_is_as_it_was(method: str, after: int) -> None:
    net = wrap(Stopped(after), (6,))
    net.model.norm.eval()
    before = {name: one.clone() for name, one in net.model.state_dict().items()}
    state, versions = torch.get_rng_state(), [one._version for one in net.model.state_dict(keep_vars=True).values()]
    with pytest.raises(KeyboardInterrupt):
        run(net, method, 0.3)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.is_grad_enabled()
    assert _get_current_dispatch_mode() is None
    assert all(torch.equal(one, before[name]) for name, one in net.model.state_dict().items())
    assert [one._version for one in net.model.state_dict(keep_vars=True).values()] == versions
    assert all(one.requires_grad and one.grad is None for one in net.model.parameters())
    assert (net.model.norm.training, net.model.first.training) == (False, True)


@METHOD
def test_ignored_layers_are_not_counted(method: str) -> None:
    net = build("residual")
    result = run(net, method, 0.3, ignore=("fc", "short*.weight"))
    assert list(result.masks) == ["stem.weight", "body.weight"]
    assert [layer.name for layer in result.layers] == ["stem.weight", "body.weight"]
    assert result.total == 216 + 1152
    if TABLE[method].exact:
        assert result.kept == half_up(0.3, result.total)


@METHOD
def test_half_precision_and_double(method: str) -> None:
    for dtype in (torch.float16, torch.bfloat16, torch.float64):
        net = build("mlp")
        net.model.to(dtype)
        assert run(net, method, 0.25).kept == half_up(0.25, net.total)


@METHOD
def test_prune_is_choosing_and_then_looking(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    net = build("residual")
    usual = {"rounds": ROUNDS.get(method), "training": TRAINING.get(method), "per_class": PER_CLASS.get(method)}
    request = PruneRequest(get(method), 0.3, **usual)  # type: ignore[arg-type]
    dataset = toy_for(net)
    dataset = dataset if TABLE[method].data else None
    whole = pruned(method, "residual", 0.3)
    with monkeypatch.context() as patch:  # choosing finds out nothing of the result
        patch.setattr("pai_cli.pruning.connectivity.is_connected", None)
        masks, rounds = choose_masks(net, request, dataset=dataset)
    assert rounds == whole.rounds
    result = result_of(net, request, masks, rounds)
    assert same(result, whole)
    assert (result.kept, result.connected, result.scope) == (whole.kept, whole.connected, whole.scope)
    with pytest.raises(MethodOptionError, match=r"^seed=-2:"):
        choose_masks(net, PruneRequest(get(method), 0.3, seed=-2))


@METHOD
@pytest.mark.parametrize("scope", [None, "layer"])
def test_all_equal_scores_keep_the_lowest_indices(
    method: str, scope: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever a method's rounds and allocation, equal scores are no reason to keep more, fewer or others."""

    def equal(context: ScoreContext) -> Scorer:
        return lambda masks: Scores({layer.name: torch.zeros(layer.shape) for layer in context.layers})

    net = build("residual")
    usual = pruned(method, "residual", 0.3, **{} if scope is None else {"scope": scope})
    monkeypatch.setitem(registry.METHODS, method, replace(registry.get(method), make_scorer=equal))
    result = run(net, method, 0.3, scope=scope)
    assert result.kept == usual.kept
    flat = [mask.ravel() for mask in result.masks.values()]
    if result.scope == "global":
        flat = [np.concatenate(flat)]
    else:
        assert [m.sum() for m in flat] == [m.sum() for m in usual.masks.values()]
    for mask in flat:
        assert mask.tolist() == [True] * int(mask.sum()) + [False] * int((~mask).sum())


@METHOD
def test_a_network_of_zeros(method: str) -> None:
    """Nothing to tell the weights apart by: an exact count, or an error that says so."""
    net = build("mlp")
    with torch.no_grad():
        for weight in net.model.parameters():
            weight.zero_()
    if method in FLOWS:
        with pytest.raises(ScoreError, match="no flow reaches the output even before pruning"):
            run(net, method, 0.5)
        return
    assert run(net, method, 0.5).kept == half_up(0.5, net.total)


def history(net: Network, method: str, monkeypatch: pytest.MonkeyPatch, **options: object) -> list[Masks]:
    """The masks after each round, as the scorer is shown them, and the last."""
    seen: list[Masks] = []
    inner = registry.get(method).load()

    def recording(context: ScoreContext) -> Scorer:
        scorer = inner(context)

        def score(masks: Masks | None) -> Scores:
            if masks is not None:
                seen.append({name: mask.copy() for name, mask in masks.items()})
            return scorer(masks)

        return score

    monkeypatch.setitem(registry.METHODS, method, replace(registry.get(method), make_scorer=recording))
    last = run(net, method, **options).masks  # type: ignore[arg-type]
    return [*seen, last]


ITERATIVE = [name for name in TABLE if registry.get(name).iterative]


@pytest.mark.parametrize("method", [name for name in ITERATIVE if not TABLE[name].recovers])
@pytest.mark.parametrize(
    ("network", "options"),
    [
        ("residual", {"density": 0.2}),
        ("convolutions", {"density": 0.2}),
        ("tokens", {"density": 0.2}),
        ("residual", {"density": 0.2, "scope": "layer"}),
        ("residual", {"density": 0.9, "invert": True}),
        ("residual", {"pattern": Pattern(1, 8)}),
        ("convolutions", {"pattern": Pattern(1, 8)}),
        ("residual", {"densities": (("*", 0.2),)}),
    ],
    ids=["global", "groups", "tokens", "layer", "invert", "pattern", "pattern of groups", "densities"],
)
def test_a_pruned_weight_never_comes_back(
    method: str, network: str, options: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    masks = history(build(network), method, monkeypatch, rounds=4, **options)
    if TABLE[method].trains:  # a round that keeps as many is a round all the same
        masks = [one for k, one in enumerate(masks) if k == 0 or any((one[n] != masks[k - 1][n]).any() for n in one)]
    assert len(masks) > 3
    for before, after in pairwise(masks):
        assert any((before[name] & ~after[name]).any() for name in before)
        assert not any((after[name] & ~before[name]).any() for name in before)


@pytest.mark.parametrize("method", [name for name in ITERATIVE if TABLE[name].recovers])
@pytest.mark.parametrize(
    "options",
    [{"density": 0.05}, {"density": 0.05, "scope": "layer"}, {"pattern": Pattern(1, 8)}, {"densities": (("*", 0.05),)}],
    ids=["global", "layer", "pattern", "densities"],
)
def test_a_pruned_weight_may_come_back(
    method: str, options: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    masks = history(build("residual"), method, monkeypatch, rounds=12, **options)
    assert len(masks) == 12
    counts = [sum(int(mask.sum()) for mask in one.values()) for one in masks]
    assert counts == sorted(counts, reverse=True)
    assert any((after[name] & ~before[name]).any() for before, after in pairwise(masks) for name in before)


@METHOD
def test_tied_weights_count_once(method: str) -> None:
    net = build("tied")
    result = run(net, method, 0.25)
    assert list(result.masks) == ["encode.weight"]
    assert (result.kept, result.total) == (36, 144)


@METHOD
def test_a_layer_with_one_weight_keeps_one_or_none(method: str) -> None:
    net = build("one_weight")
    for density in (0.3, 0.6, 1.0):
        result = run(net, method, density, **one_round(method, "one_weight"))
        assert result.masks["2.weight"].shape == (1, 1)
        assert result.kept == sum(int(mask.sum()) for mask in result.masks.values())


@METHOD
@pytest.mark.parametrize("network", ["mlp", "tokens"])
def test_the_samples_and_their_need(method: str, network: str) -> None:
    """Methods without data do not ask for any; those with it say which flag is missing."""
    net = build(network)
    if not TABLE[method].data:
        dataset = toy_for(net)
        prune(net, PruneRequest(get(method), 0.5, rounds=1 if method in ROUNDS else None), dataset=dataset)
        assert dataset.asked == []
        return
    with pytest.raises(MethodOptionError) as caught:
        prune(net, PruneRequest(get(method), 0.5))
    does = "trains on labelled data" if TABLE[method].trains else "scores with labelled samples"
    assert str(caught.value) == f"method={method}: {does}; give data="


@METHOD
def test_dropout_and_mode_do_not_matter(method: str) -> None:
    results = [pruned(method, "convolutions", 0.3)]  # built in training mode, half dropped
    for p in (0.5, 0.0):
        net = build("convolutions")
        net.model[8].p = p
        net.model.eval()
        results.append(run(net, method, 0.3))
    assert same(results[0], results[1])
    assert same(results[0], results[2]) != TABLE[method].trains


# ---- flags that any method takes


@pytest.mark.parametrize(
    ("method", "network"),
    [
        *((method, "mlp") for method in TABLE),
        *((method, network) for method in ("erk", "synflow", "snip") for network in ("convolutions", "tied")),
    ],
)
def test_shuffling_keeps_the_counts_and_moves_the_rest(method: str, network: str) -> None:
    net = build(network)
    plain, mixed = pruned(method, network, 0.3), run(net, method, 0.3, shuffle=True)
    assert [m.sum() for m in mixed.masks.values()] == [m.sum() for m in plain.masks.values()]
    assert not same(plain, mixed)
    assert same(mixed, run(net, method, 0.3, shuffle=True))
    assert not same(mixed, run(net, method, 0.3, shuffle=True, seed=1))
    assert all(mask.flags.c_contiguous for mask in mixed.masks.values())


BY_SCORES = pytest.mark.parametrize("method", [name for name, row in TABLE.items() if not row.by_layer])


@pytest.mark.parametrize("method", [name for name, row in TABLE.items() if row.by_layer])
@pytest.mark.parametrize(
    "options", [{"density": 0.3, "invert": True}, {"pattern": Pattern(1, 2)}], ids=["invert", "pattern"]
)
def test_what_goes_by_layers_takes_neither_pattern_nor_inversion(method: str, options: dict[str, object]) -> None:
    with pytest.raises(MethodOptionError) as caught:
        run(build("mlp"), method, **options)  # type: ignore[arg-type]
    does = {
        "edge-popup": "every step keeps so many of each layer's largest scores",
        "npb": "chooses so many weights of each layer together, and orders none",
    }
    assert str(caught.value) == f"method={method}: {does[method]}; leave pattern= and invert=True out"


@BY_SCORES
@pytest.mark.parametrize("network", ["residual", "mlp"])
def test_inverting_keeps_the_smallest_at_the_same_count(method: str, network: str) -> None:
    net = build(network)
    rounds = {"rounds": 1} if method in ROUNDS else {}
    plain = pruned(method, network, 0.3, **rounds)
    inverse = run(net, method, 0.3, invert=True, **rounds)
    assert inverse.kept == plain.kept
    if plain.scope == "layer":
        assert [m.sum() for m in inverse.masks.values()] == [m.sum() for m in plain.masks.values()]
    # A unit that no sample wakes leaves its weights at 0, where inverting changes nothing; and walks that must come upon
    # every weight are drawn in other numbers than walks that may stop.
    if TABLE[method].data or method == "phew":
        assert not same(plain, inverse)
        return
    for name, mask in plain.masks.items():  # of distinct scores, no large one is small
        assert not (mask & inverse.masks[name]).any() or mask.mean() > 0.5
    if plain.scope == "global":
        most = run(net, method, 0.7, invert=True, **rounds)
        assert all(np.array_equal(most.masks[name], ~plain.masks[name]) for name in plain.masks)


def test_inverting_round_by_round_says_when_nothing_is_left_to_score() -> None:
    with pytest.raises(ScoreError) as caught:
        run(build("residual"), "synflow", 0.3, rounds=6, invert=True)
    text = str(caught.value)
    assert text.startswith(
        "invert=True: removes first what a later round scores by (synflow: no flow reaches the output"
    )
    assert text.endswith(" of 1,656 weights left); give rounds=1")


PATTERNS = [
    *(
        (name, network, pattern)
        for name, row in TABLE.items()
        if not row.by_layer
        for network, pattern in (("mlp", Pattern(2, 4)), ("residual", Pattern(3, 8)))
    ),
    *(("magnitude", network, Pattern(2, 4)) for network in ("residual", "tokens", "tied")),
    *((name, "convolutions", Pattern(2, 4)) for name in ("random", "erk", "synflow", "snip", "phew", "gem-miner")),
    ("magnitude", "convolutions", Pattern(3, 8)),
]


@pytest.mark.parametrize(("method", "network", "pattern"), PATTERNS, ids=str)
def test_a_pattern_holds_in_every_group(method: str, network: str, pattern: Pattern) -> None:
    net = build(network)
    assert any(groups_of(mask_of(layer), layer, pattern.of) is not None for layer in net.layers)
    result = run(net, method, pattern=pattern)
    for layer in net.layers:
        groups = groups_of(result.masks[layer.name], layer, pattern.of)
        assert (groups is None) == (layer.name in result.whole)
        if groups is None:
            assert result.masks[layer.name].all()
        else:
            assert (groups.sum(-1) == pattern.keep).all()
            assert result.masks[layer.name].mean() == pattern.keep / pattern.of
    assert result.scope == "layer"
    assert result.kept == sum(int(m.sum()) for m in result.masks.values())
    assert same(result, run(net, method, pattern.density, pattern=pattern))


def mask_of(layer: PrunableLayer) -> np.ndarray:
    return np.ones(layer.shape, bool)


def groups_of(mask: np.ndarray, layer: PrunableLayer, of: int) -> np.ndarray | None:
    """The mask as (outputs, kernel, groups, of), found by counting inputs one by one; None where they do not divide."""
    by_output = mask.reshape(*mask.shape[:2], -1)
    if layer.layout.transposed:  # (in, out / groups, k): each group of inputs has its own outputs
        share = mask.shape[0] // layer.layout.groups
        by_output = by_output.reshape(layer.layout.groups, share, *by_output.shape[1:]).transpose(0, 2, 1, 3)
        by_output = by_output.reshape(-1, share, by_output.shape[-1])
    inputs = by_output.shape[1]
    if inputs % of:
        return None
    return np.stack([by_output[:, i : i + of] for i in range(0, inputs, of)], axis=1).swapaxes(2, 3)


@METHOD
def test_layers_have_the_densities_given(method: str) -> None:
    net = build("residual")
    given = (("body", 0.05), ("s*", 0.5), ("fc.weight", 1.0))
    result = run(net, method, densities=given)
    counts = {name: int(mask.sum()) for name, mask in result.masks.items()}
    expected = {"stem.weight": (216, 0.5), "body.weight": (1152, 0.05), "shortcut.weight": (128, 0.5)}
    assert counts == {name: half_up(d, n) for name, (n, d) in expected.items()} | {"fc.weight": 160}
    assert result.scope == "layer"
    assert run(net, method, densities=(("*", 0.25),), ignore=("fc",)).kept == half_up(0.25, 216) + 288 + 32
