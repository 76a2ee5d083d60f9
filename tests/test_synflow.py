"""SynFlow's laws: conservation, independence of scale and data, no collapse; and how it fails."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import pairwise
from math import fsum

import numpy as np
import pytest
import torch
from networks import Returns, slim_vgg, uncopyable
from torch import nn
from torch.nn import functional
from torch.nn.functional import hardtanh, relu6

from pai_cli.errors import DeviceError, MethodOptionError, PaiError, ScoreError
from pai_cli.methods.registry import get
from pai_cli.methods.synflow import make_scorer
from pai_cli.models.linearised import Linearised
from pai_cli.models.network import Network, init_network, prunable_layers
from pai_cli.pruning.base import Masks, ScoreContext, Scorer
from pai_cli.pruning.counts import NetworkQuota
from pai_cli.pruning.run import PruneRequest, PruneResult, prune, score_arrays
from pai_cli.pruning.schedule import ROUNDING, exponential, safe_count
from pai_cli.pruning.ties import Ties


def wrap(model: nn.Module, *input_shape: int) -> Network:
    return Network(model, "toy", input_shape, prunable_layers(model))


def chain(*, bias: bool = False, seed: int = 0) -> Network:
    """A bias-free chain with everything that keeps positive homogeneity: convolutions, norms, pooling, dropout."""
    torch.manual_seed(seed)
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1, bias=bias),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(8, 12, 3, padding=1, groups=2, bias=bias),
        nn.BatchNorm2d(12),
        nn.ReLU(),
        nn.ConvTranspose2d(12, 6, 2, stride=2, bias=bias),
        nn.LeakyReLU(0.1),
        nn.AvgPool2d(2),
        nn.Flatten(),
        nn.Dropout(),
        nn.Linear(6 * 4 * 4, 10, bias=bias),
    )
    return wrap(model, 3, 8, 8)


def scorer_of(network: Network) -> Scorer:
    return make_scorer(ScoreContext(network, network.layers, network.input_shape, "cpu", 0))


def synflow(network: Network, density: float, **options: object) -> PruneResult:
    return prune(network, PruneRequest(get("synflow"), density, **options))  # type: ignore[arg-type]


def same(a: PruneResult, b: PruneResult) -> bool:
    return all(np.array_equal(a.masks[k], b.masks[k]) for k in a.masks)


# ---- conservation


def test_every_layer_of_a_chain_sums_to_the_output() -> None:
    network = chain()
    scores = scorer_of(network)(None)
    output = Linearised(network, (), network.input_shape, "cpu").flow().output
    assert scores.flow == pytest.approx(output, rel=1e-12)
    for name, values in scores.values.items():
        assert values.dtype == torch.float64
        assert values.min() >= 0
        assert values.sum().item() == pytest.approx(output, rel=1e-12), name


def test_every_layer_sums_to_the_flow_of_the_masked_network() -> None:
    network = chain()
    rng = np.random.default_rng(0)
    masks = {layer.name: rng.random(layer.shape) < 0.5 for layer in network.layers}
    scores = scorer_of(network)(masks)
    for name, values in scores.values.items():
        assert values.sum().item() == pytest.approx(scores.flow, rel=1e-12)
        assert not values.numpy()[~masks[name]].any()


def test_what_flows_into_a_hidden_unit_flows_out() -> None:
    torch.manual_seed(1)
    network = wrap(nn.Sequential(nn.Linear(9, 7, bias=False), nn.ReLU(), nn.Linear(7, 5, bias=False)), 9)
    values = scorer_of(network)(None).values
    assert torch.allclose(values["0.weight"].sum(1), values["2.weight"].sum(0), rtol=1e-12, atol=0)


@pytest.mark.parametrize("name", ["vgg11-bn", "vgg19-bn"])
def test_both_laws_hold_throughout_a_vgg(name: str) -> None:
    assert_both_laws_hold(slim_vgg(name))


def assert_both_laws_hold(network: Network) -> None:
    """Every layer sums to the output, and what flows into each channel flows out of it, all to 1e-12."""
    scores = scorer_of(network)(None)
    output = Linearised(network, (), network.input_shape, "cpu").flow().output
    assert scores.flow == pytest.approx(output, rel=1e-12)
    for values in scores.values.values():
        assert values.sum().item() == pytest.approx(output, rel=1e-12)
    for before, after in pairwise(scores.values.values()):
        into, out = before.flatten(1).sum(1), after.transpose(0, 1).flatten(1).sum(1)
        # one value a channel arrives at the classifier, as the last pooling leaves
        assert len(into) == len(out)
        assert torch.allclose(into, out, rtol=1e-12, atol=0)


@pytest.mark.parametrize("factor", [1024.0, 3.0])
def test_rescaling_neighbours_leaves_scores_and_masks_of_a_vgg(factor: float) -> None:
    network = slim_vgg("vgg11-bn")
    first = scorer_of(network)(None).values
    masks = synflow(network, 0.1, rounds=2)
    names = [layer.name for layer in network.layers]
    network.model.double()
    with torch.no_grad():
        network.parameter(names[2]).mul_(factor)
        network.parameter(names[3]).div_(factor)
    for name, values in scorer_of(network)(None).values.items():
        assert torch.allclose(values, first[name], rtol=1e-12, atol=0)
    assert same(masks, synflow(network, 0.1, rounds=2))


def test_biases_add_to_the_output_but_not_to_the_flow() -> None:
    network = chain(bias=True)
    found = Linearised(network, (), network.input_shape, "cpu").flow()
    assert 0 < found.through < found.output
    for values in scorer_of(network)(None).values.values():
        assert found.through * (1 - 1e-12) <= values.sum().item() <= found.output * (1 + 1e-12)


def test_scores_match_finite_differences() -> None:
    torch.manual_seed(2)
    model = nn.Sequential(nn.Linear(4, 3), nn.Softplus(), nn.Linear(3, 2)).double()
    network = wrap(model, 4)
    values = scorer_of(network)(None).values

    def output(weights: dict[str, torch.Tensor]) -> float:
        positive = {k: v.detach().abs() for k, v in model.state_dict().items()} | weights
        ones = torch.ones(1, 4, dtype=torch.float64)
        return float(torch.func.functional_call(model, positive, ones).sum())

    step = 1e-6
    for name, of_layer in values.items():
        weight = network.parameter(name).detach().abs()
        for index in np.ndindex(*weight.shape):
            up, down = weight.clone(), weight.clone()
            up[index] += step
            down[index] -= step
            slope = (output({name: up}) - output({name: down})) / (2 * step)
            assert of_layer[index].item() == pytest.approx(abs(slope * weight[index].item()), rel=1e-7)


# ---- what the mask does not depend on


def test_signs_seed_mode_and_global_state_do_not_matter() -> None:
    first = synflow(chain(), 0.1, rounds=10, seed=1)
    network = chain()
    with torch.no_grad():
        for tensor in network.model.parameters():
            tensor.neg_()
    network.model.train()
    torch.manual_seed(7)
    with torch.no_grad():
        assert same(first, synflow(network, 0.1, rounds=10, seed=2))


def test_scaling_a_layer_and_unscaling_the_next_leaves_the_mask() -> None:
    network = chain()
    first = synflow(network, 0.05, rounds=20)
    with torch.no_grad():  # powers of two, so that no rounding can tip a close decision
        network.parameter("0.weight").mul_(1024.0)
        network.parameter("4.weight").mul_(1 / 1024.0)
    assert same(first, synflow(network, 0.05, rounds=20))


def test_memory_order_of_the_network_does_not_matter() -> None:
    class Viewed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.conv = nn.Conv2d(3, 8, 3, bias=False)
            self.fc = nn.Linear(8 * 36, 4, bias=False)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.fc(self.conv(x).view(1, -1))  # refuses channels-last

    network = wrap(Viewed(), 3, 8, 8)
    scores = scorer_of(network)(None)
    for values in scores.values.values():
        assert values.sum().item() == pytest.approx(scores.flow, rel=1e-12)
    assert synflow(network, 0.2, rounds=3).connected is True


# ---- rounds


def recorded(network: Network, density: float, rounds: int) -> list[Masks]:
    """The masks after each round, as the scorer is shown them, and the last."""
    import pai_cli.pruning.run as engine

    seen: list[Masks] = []
    inner = scorer_of(network)

    def score(masks: Masks | None) -> object:
        if masks is not None:
            seen.append({k: v.copy() for k, v in masks.items()})
        return inner(masks)

    quota = NetworkQuota({layer.name: layer.shape for layer in network.layers}, density)
    request = PruneRequest(get("synflow"), density)
    ask = partial(engine._asked, score, request, tuple(quota.shapes))  # type: ignore[arg-type]
    last = engine._fixed_rounds(ask, quota, rounds, lambda *a: None, Ties())
    return [*seen, last]


def test_rounds_follow_the_schedule_and_never_revive() -> None:
    network = chain()
    history = recorded(network, 0.05, 8)
    kept = [sum(int(m.sum()) for m in masks.values()) for masks in history]
    assert kept == [int(np.floor(0.05 ** (k / 8) * network.total + 0.5)) for k in range(1, 9)]
    for before, after in pairwise(history):
        assert all(not (after[name] & ~before[name]).any() for name in before)


def test_exponential_ends_at_the_density() -> None:
    densities = exponential(0.0372, 100)
    assert len(densities) == 100
    assert densities[-1] == 0.0372
    assert densities[49] == pytest.approx(0.0372**0.5)
    assert all(a > b for a, b in pairwise(densities))


def test_one_round_empties_most_of_vgg16_and_many_rounds_nothing() -> None:
    assert_rounds_save(slim_vgg("vgg16-bn"), 231, rounds=25)


def test_there_are_a_hundred_rounds() -> None:
    assert synflow(narrow(5, 4, 3), 0.5).rounds == 100


def assert_rounds_save(network: Network, kept: int, rounds: int = 100) -> None:
    once = synflow(network, 1e-3, rounds=1)
    assert len(once.masks) == 14
    assert len(once.collapsed) == 10
    assert once.connected is False
    result = synflow(network, 1e-3, rounds=rounds)
    assert result.rounds == rounds
    assert result.kept == once.kept == kept
    assert result.collapsed == ()
    assert result.connected is True


@pytest.mark.parametrize(("name", "rounds"), [("resnet20", 3), ("resnet56", 1)])
def test_deep_residual_networks_keep_the_exact_count(name: str, rounds: int) -> None:
    assert_exact_count(name, rounds)


def assert_exact_count(name: str, rounds: int) -> None:
    network = init_network(name, 10, 0)
    result = synflow(network, 0.05, rounds=rounds)
    assert result.kept == int(np.floor(0.05 * network.total + 0.5))
    assert result.connected is True


def narrow(*widths: int) -> Network:
    torch.manual_seed(3)
    layers = [nn.Linear(a, b, bias=False) for a, b in pairwise(widths)]
    return wrap(nn.Sequential(*layers), widths[0])


@pytest.mark.parametrize("kept", [4, 5, 9, 40])
def test_auto_rounds_reach_maximal_compression(kept: int) -> None:
    network = narrow(30, 40, 50, 20, 10)
    result = synflow(network, kept / network.total, rounds="auto")
    assert result.kept == kept
    assert result.collapsed == ()
    assert result.connected is True
    assert same(result, synflow(network, kept / network.total, rounds="auto"))


def test_auto_rounds_stop_at_the_last_path() -> None:
    network = narrow(30, 40, 50, 20, 10)
    with pytest.raises(ScoreError) as caught:
        synflow(network, 3 / network.total, rounds="auto")
    assert str(caught.value) == (
        "rounds=auto: of the 4 weights left none can be removed without cutting the network, and the density asks "
        "for 3; give a larger density=, or a number of rounds= to go on regardless"
    )


def test_auto_rounds_of_the_whole_network() -> None:
    result = synflow(narrow(5, 4, 3), 1.0, rounds="auto")
    assert result.kept == result.total
    assert result.rounds == 1


def test_a_safe_round_removes_less_than_the_flow() -> None:
    scores = {"a": np.array([0.5, 1.0, 2.0]), "b": np.array([[0.25], [4.0]])}
    assert safe_count(scores, None, 1, 1.8) == 2  # 0.25 + 0.5 + 1.0 < 1.8
    assert safe_count(scores, None, 1, 1.75) == 3  # a removal that sums to the flow may be a cut
    assert safe_count(scores, None, 4, 1.75) == 4
    alive = {"a": np.array([False, True, True]), "b": np.array([[False], [True]])}
    assert safe_count(scores, alive, 1, 1.8) == 2


def test_the_margin_of_a_safe_round_covers_the_rounding_of_a_running_sum() -> None:
    assert ROUNDING > 10**8 * 2.0**-53
    for value in (0.1, 1 / 3, 0.7):  # the running sum of these is off, the flow is not: all of them are a cut
        scores = {"a": np.full(10**5, value)}
        flow = fsum(scores["a"])
        assert safe_count(scores, None, 1, flow) >= 1
        assert np.cumsum(scores["a"])[-1] != flow
        kept = safe_count(scores, None, 0, flow)
        assert 0 < kept <= 1 + ROUNDING * 10**5


# ---- failures, as a person reads them


def zeros() -> nn.Module:
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 2))
    nn.init.zeros_(model[0].weight)
    return model


ONE_TYPE = "its code makes tensors of float32 whatever its input is: let them be of the input's type (dtype=x.dtype)"
ONE = "give a model= factory whose network returns the logits alone"
FAILURES = [
    ("tuple", lambda: Returns(lambda y: (y, y)), ScoreError,
     f"synflow: the network returns a tuple, and one floating tensor is needed; {ONE}"),
    ("integers", lambda: Returns(lambda y: y.argmax(1)), ScoreError,
     f"synflow: the network returns a tensor of torch.int64, and one floating tensor is needed; {ONE}"),
    ("detached", lambda: Returns(lambda y: y.detach()), ScoreError,
     "synflow: the network's outputs cannot be differentiated (RuntimeError: element 0 of tensors does not require grad "
     "and does not have a grad_fn)"),
    ("float32_only", lambda: Returns(lambda y: y @ torch.ones(3, 2)), ScoreError,
     "synflow: the network failed on one float64 input of shape 4 (RuntimeError: expected m1 and m2 to have the same dtype, "
     f"but got: double != float); {ONE_TYPE}"),
    ("zeros", zeros, ScoreError,
     "synflow: no flow reaches the output even before pruning (a layer of zeros, or a last activation that is flat); "
     "give another method=, such as erk"),
    ("log_softmax", lambda: Returns(lambda y: y.log_softmax(1)), ScoreError,
     "synflow: no flow reaches the output even before pruning (a layer of zeros, or a last activation that is flat); "
     "give another method=, such as erk"),
    ("norm", lambda: nn.Sequential(nn.Linear(4, 4), nn.LayerNorm(4)), ScoreError,
     "synflow: 1 (LayerNorm) divides by the size of its own input, so no flow passes it unchanged; give another "
     "method="),
    ("batch_statistics", lambda: nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4, track_running_stats=False)),
     ScoreError,
     "synflow: 1 (BatchNorm1d) divides by the size of its own input, so no flow passes it unchanged; give another "
     "method="),
    ("uncopyable", uncopyable, ScoreError,
     "synflow: the network cannot be copied (TypeError: cannot pickle 'generator' object); give another method="),
]  # fmt: skip


@pytest.mark.parametrize(("factory", "kind", "text"), [f[1:] for f in FAILURES], ids=[f[0] for f in FAILURES])
def test_a_network_it_cannot_score(factory: Callable[[], nn.Module], kind: type[PaiError], text: str) -> None:
    torch.manual_seed(0)
    network = wrap(factory(), 4)
    with pytest.raises(kind) as caught:
        synflow(network, 0.5, rounds=2)
    assert str(caught.value) == text
    # Methods that need no forward pass still work, and say what they know.
    name = next(f[0] for f in FAILURES if f[1] is factory)
    known = True if name in ("detached", "zeros", "log_softmax", "float32_only", "tuple", "norm") else None
    assert prune(network, PruneRequest(get("magnitude"), 0.5)).connected is known


def test_missing_and_wrong_input_shape() -> None:
    network = chain()
    with pytest.raises(MethodOptionError) as caught:
        synflow(network, 0.5, input_shape=(1, 8, 8))
    text = str(caught.value)
    assert text.startswith("synflow: the network failed on one float64 input of shape 1,8,8 (")
    assert text.endswith("; give the shape it takes with input_shape=")
    assert "\n" not in text
    network.input_shape = None
    with pytest.raises(MethodOptionError) as caught:
        synflow(network, 0.5)
    expected = "synflow: the shape of one input is not known; give it with input_shape=, such as 3,32,32"
    assert str(caught.value) == expected
    assert synflow(network, 0.5, input_shape=(3, 8, 8), rounds=1).connected is True


def test_overflow_is_said() -> None:
    network = narrow(*[4] * 12)
    with torch.no_grad():
        for weight in network.model.parameters():
            weight.fill_(1e35)
    with pytest.raises(ScoreError) as caught:
        synflow(network, 0.5)
    assert str(caught.value) == (
        "synflow: the flow through the network is not a finite float64 (too deep, or weights too large or not "
        "finite); give another method=, such as erk"
    )


def test_a_cut_before_the_last_round_is_said() -> None:
    network = narrow(30, 40, 50, 20, 10)
    with pytest.raises(ScoreError) as caught:
        synflow(network, 1 / network.total, rounds=200)  # the round that keeps three weights cuts it
    assert str(caught.value).endswith(" of 4,400 weights left; give more rounds=, rounds=auto, or a larger density=")


def test_unknown_device() -> None:
    with pytest.raises(DeviceError, match=r"^device nonsense: cannot be used \(.*\); give device=cpu$"):
        synflow(chain(), 0.5, device="nonsense")


def test_unused_weights_score_zero() -> None:
    class Spare(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.spare = nn.Linear(3, 3)
            self.fc = nn.Linear(3, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.fc(x)

    result = synflow(wrap(Spare(), 3), 6 / 15, rounds=3)
    assert result.collapsed == ("spare.weight",)
    assert result.masks["fc.weight"].all()
    assert result.connected is True


def test_scores_are_absolute_where_a_network_subtracts() -> None:
    class Difference(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.plus = nn.Linear(2, 1, bias=False)
            self.minus = nn.Linear(2, 1, bias=False)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.plus(x) - self.minus(x)

    network = wrap(Difference(), 2)
    with torch.no_grad():
        network.parameter("plus.weight").copy_(torch.tensor([[3.0, -0.5]]))
        network.parameter("minus.weight").copy_(torch.tensor([[-1.0, 0.25]]))
    scores = scorer_of(network)(None)
    assert scores.flow == 2.25
    assert {name: values.tolist() for name, values in scores.values.items()} == {
        "plus.weight": [[3.0, 0.5]],
        "minus.weight": [[1.0, 0.25]],
    }


# ---- functions in the place of modules


class Cut(nn.Module):
    """Two layers with a function between, on weights so large that a ceiling of 6 would be passed."""

    def __init__(self, function: Callable[[torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.last, self.function = nn.Linear(4, 5), nn.Linear(5, 3), function
        with torch.no_grad():
            self.first.weight.mul_(50)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.first(x)
        made = self.function(x)
        return self.last(x if made is None else made)


def in_place(x: torch.Tensor) -> None:
    relu6(x, inplace=True)


CEILINGS: dict[str, Callable[[torch.Tensor], torch.Tensor | None]] = {
    "module": nn.ReLU6(),
    "hardtanh module": nn.Hardtanh(0, 6),
    "relu6": relu6,
    "in place": in_place,
    "hardtanh": lambda x: hardtanh(x, 0.0, 6.0),
    "clamp": lambda x: x.clamp(0, 6),
    "clamp by names": lambda x: torch.clamp(x, min=0, max=6),
    "clamp in place": lambda x: x.clamp_(0, 6),
    "clip": lambda x: torch.clip(x, 0, 6),
}


@pytest.mark.parametrize("method", ["synflow", "synflow-l2"])
@pytest.mark.parametrize("name", CEILINGS)
def test_a_ceiling_is_lifted_however_it_is_written(method: str, name: str) -> None:
    scores = [
        score_arrays(wrap(Cut(function), 4), PruneRequest(get(method), 0.5))
        for function in (torch.relu, CEILINGS[name])
    ]
    assert all(of_layer.any() and np.array_equal(of_layer, scores[1][layer]) for layer, of_layer in scores[0].items())


def test_a_ceiling_is_lifted_in_every_round() -> None:
    results = [prune(wrap(Cut(one), 4), PruneRequest(get("synflow"), 0.4, rounds=6)) for one in (torch.relu, relu6)]
    assert all(np.array_equal(mask, results[1].masks[layer]) for layer, mask in results[0].masks.items())


def test_a_floor_alone_and_a_clamp_to_other_bounds_stay() -> None:
    for function in (
        lambda x: x.clamp(min=0),
        lambda x: x.clamp(-1e9, 1e9),
        lambda x: x.clamp(torch.zeros(5), torch.ones(5) * 1e9),
    ):
        scores = [score_arrays(wrap(Cut(one), 4), PruneRequest(get("synflow"), 0.5)) for one in (torch.relu, function)]
        assert all(np.array_equal(of_layer, scores[1][layer]) for layer, of_layer in scores[0].items())


NORMS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "layer_norm": lambda x: functional.layer_norm(x, (5,)),
    "group_norm": lambda x: functional.group_norm(x, 5),
    "rms_norm": lambda x: functional.rms_norm(x, (5,)),
    "batch_norm": lambda x: functional.batch_norm(x, None, None, training=True),
}


@pytest.mark.parametrize("name", NORMS)
def test_a_function_that_normalises_by_its_own_input_is_refused(name: str) -> None:
    with pytest.raises(ScoreError) as caught:
        score_arrays(wrap(Cut(NORMS[name]), 4), PruneRequest(get("synflow"), 0.5))
    assert str(caught.value) == (
        f"synflow: {name} (a function) divides by the size of its own input, so no flow passes it unchanged; give another "
        "method="
    )


def test_convolutions_in_three_dimensions() -> None:
    """Scores of one round are |w| times the gradient of the summed outputs, of absolute weights and an input of ones."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv3d(1, 3, 2, bias=False),
        nn.ReLU(),
        nn.Conv3d(3, 2, 2, bias=False),
        nn.Flatten(),
        nn.Linear(16, 4, bias=False),
    ).double()
    found = prune(wrap(model, 1, 4, 4, 4), PruneRequest(get("synflow"), 0.3, rounds=1)).masks
    weights = {name: one.detach().abs().requires_grad_() for name, one in model.named_parameters() if one.dim() > 1}
    hidden = functional.conv3d(torch.ones(1, 1, 4, 4, 4).double(), weights["0.weight"])
    outputs = functional.linear(functional.conv3d(hidden, weights["2.weight"]).flatten(1), weights["4.weight"])
    gradients = torch.autograd.grad(outputs.sum(), list(weights.values()))
    scores = torch.cat([(one * weight).flatten() for one, weight in zip(gradients, weights.values(), strict=True)])
    cut = scores.sort(descending=True).values[round(0.3 * scores.numel()) - 1]
    expected = (scores >= cut).detach().numpy()
    assert np.array_equal(np.concatenate([found[name].ravel() for name in weights]), expected)
