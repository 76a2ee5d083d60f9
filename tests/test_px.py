"""PX against all paths one by one and the trace of the tangent kernel, in float64; activation patterns; and how it fails."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise, product

import numpy as np
import pytest
import torch
from networks import Returns, build, run, same, uncopyable, wrap
from torch import nn
from torch.nn.functional import batch_norm, conv2d, leaky_relu, max_pool2d

from pai_cli.errors import MethodOptionError, PaiError, ScoreError
from pai_cli.methods import px, synflow_l2
from pai_cli.models.gates import Gated, Gates
from pai_cli.models.linearised import Linearised
from pai_cli.models.network import Network
from pai_cli.pruning.base import Masks, ScoreContext


def mlp(*sizes: int) -> Network:
    torch.manual_seed(0)
    layers: list[nn.Module] = []
    for before, after in pairwise(sizes):
        layers += [nn.Linear(before, after, bias=False), nn.ReLU()]
    return wrap(nn.Sequential(*layers[:-1]).double(), sizes[:1])


def context_of(network: Network, sizes: tuple[int, ...] = (5, 7)) -> ScoreContext:
    rng = np.random.default_rng(0)
    batches = tuple(
        (
            torch.from_numpy(rng.standard_normal((n, *network.input_shape))).float(),  # type: ignore[misc]
            torch.zeros(n, dtype=torch.int64),
        )
        for n in sizes
    )
    return ScoreContext(network, network.layers, network.input_shape, "cpu", 0, batches, "px")


def masks_of(network: Network) -> Masks:
    rng = np.random.default_rng(0)
    return {layer.name: rng.random(layer.shape) < 0.7 for layer in network.layers}


def samples_of(context: ScoreContext) -> np.ndarray:
    return torch.cat([inputs for inputs, _ in context.batches]).double().numpy()


@pytest.mark.parametrize("masked", [False, True])
def test_all_paths_one_by_one(masked: bool) -> None:
    """w^2 dR/d(w^2): the sum over the paths through w of c_k and the squares along it; c_k counted sample by sample."""
    network = mlp(3, 4, 3, 2)
    context = context_of(network)
    masks = masks_of(network) if masked else {layer.name: np.ones(layer.shape, bool) for layer in network.layers}
    names = list(masks)
    weights = [network.parameter(name).detach().numpy() * masks[name] for name in names]
    paths = list(product(range(3), range(4), range(3), range(2)))  # input, unit, unit, output
    woken = np.zeros(2)
    for x in samples_of(context):
        first = weights[0] @ x
        second = weights[1] @ np.maximum(first, 0)
        for i, a, b, k in paths:
            there = masks[names[0]][a, i] and masks[names[1]][b, a] and masks[names[2]][k, b]
            if there and first[a] > 0 and second[b] > 0:
                woken[k] += x[i] ** 2
    expected = [np.zeros_like(weight) for weight in weights]
    for i, a, b, k in paths:
        share = woken[k] * (weights[0][a, i] * weights[1][b, a] * weights[2][k, b]) ** 2
        expected[0][a, i] += share
        expected[1][b, a] += share
        expected[2][k, b] += share
    scores = px.make_scorer(context)(masks if masked else None).values
    for name, wanted in zip(names, expected, strict=True):
        assert scores[name].dtype == torch.float64
        np.testing.assert_allclose(scores[name].numpy(), wanted, rtol=1e-10)


def test_the_slopes_sum_to_a_bound_of_the_trace() -> None:
    """Tr of the kernel is the squared norm of all slopes of all outputs at all samples."""
    network = mlp(4, 6, 5, 3)
    context = context_of(network)
    scores = px.make_scorer(context)(None).values
    weights = {name: network.parameter(name).detach() for name in scores}
    bound = sum(float((of_layer / weights[name] ** 2).sum()) for name, of_layer in scores.items())
    x = torch.from_numpy(samples_of(context))
    slopes = torch.func.jacrev(lambda values: torch.func.functional_call(network.model, values, x))(weights)
    trace = sum(float((slope**2).sum()) for slope in slopes.values())
    assert trace < bound


class Whole(nn.Module):
    """Convolutions with biases, batch norm, shortcut, max pool, ReLU in place, leaky ReLU and ReLU6."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 3, 3, padding=1)
        self.norm = nn.BatchNorm2d(3)
        self.next = nn.Conv2d(3, 3, 3, padding=1)
        self.last = nn.ReLU6()
        self.fc = nn.Linear(12, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.norm(self.conv(x)).relu_()
        x = leaky_relu(self.next(x) + x, 0.3)
        return self.fc(self.last(max_pool2d(x, 2)).flatten(1))


def whole() -> Network:
    torch.manual_seed(1)
    network = wrap(Whole().double().eval(), (2, 4, 4))
    with torch.no_grad():
        network.model.norm.running_mean.normal_()
        network.model.norm.running_var.uniform_(0.5, 2)
        network.model.norm.weight.uniform_(0.5, 2)
        network.model.norm.bias.normal_()
        network.model.next.weight.mul_(20)  # past the ceiling of ReLU6 in places
    return network


def woken_by(x: torch.Tensor, network: Network, masks: Masks) -> torch.Tensor:
    """c, layer by layer: patterns of the network's own values, then ones in their place, on the squares."""
    m, model = {name: torch.from_numpy(mask).double() for name, mask in masks.items()}, network.model
    state = {name: value.detach() * m.get(name, 1.0) for name, value in model.state_dict().items()}
    first = conv2d(x, state["conv.weight"], state["conv.bias"], padding=1)
    first = batch_norm(first, *(state[f"norm.{part}"] for part in ("running_mean", "running_var", "weight", "bias")))
    one = first.clamp(min=0)
    second = conv2d(one, state["next.weight"], state["next.bias"], padding=1) + one
    third = max_pool2d(torch.where(second > 0, second, 0.3 * second), 2)
    assert (third > 6).any()
    assert (third < 0).any()
    path = conv2d(x**2, m["conv.weight"], padding=1) / (1 + 1e-5) ** 0.5 * (first > 0)
    path = (conv2d(path, m["next.weight"], padding=1) + path) * torch.where(second > 0, 1.0, 0.3**2)
    path = max_pool2d(path, 2) * ((third > 0) & (third < 6))
    return (path.flatten(1) @ m["fc.weight"].T).sum(0)


@pytest.mark.parametrize("masked", [False, True])
def test_of_every_part_by_formulas(masked: bool) -> None:
    network = whole()
    context = context_of(network)
    masks = masks_of(network) if masked else {layer.name: np.ones(layer.shape, bool) for layer in network.layers}
    woken = woken_by(torch.from_numpy(samples_of(context)), network, masks)
    if not masked:
        assert torch.allclose(woken, woken[:1])  # a dense last layer of ones gives all outputs the same
    squares = {name: value.detach() ** 2 for name, value in network.model.state_dict().items()}
    for name, mask in masks.items():
        squares[name] = (squares[name] * torch.from_numpy(mask)).requires_grad_()
    linear = conv2d(torch.ones(1, 2, 4, 4).double(), squares["conv.weight"], squares["conv.bias"], padding=1)
    linear = linear - squares["norm.running_mean"][:, None, None]
    scale = squares["norm.weight"] / (squares["norm.running_var"] + 1e-5).sqrt()
    linear = linear * scale[:, None, None] + squares["norm.bias"][:, None, None]
    linear = linear.relu()  # the mean that is taken away may leave less than 0
    linear = max_pool2d(conv2d(linear, squares["next.weight"], squares["next.bias"], padding=1) + linear, 2)
    r = ((linear.flatten(1) @ squares["fc.weight"].T + squares["fc.bias"]) * woken).sum()
    slopes = torch.autograd.grad(r, [squares[name] for name in masks])
    scores = px.make_scorer(context)(masks if masked else None).values
    for name, slope in zip(masks, slopes, strict=True):
        assert torch.allclose(scores[name], squares[name] * slope, rtol=1e-9, atol=1e-12)


def test_before_the_last_layer_is_pruned_it_is_the_flow_of_squares() -> None:
    network = build("residual")
    context = context_of(network)
    scores = px.make_scorer(context)(None).values
    squares = Linearised(network, tuple(scores), network.input_shape, "cpu", squared=True)
    flows = {name: squares.weights[name].detach() * slope for name, slope in squares.flow().gradients.items()}
    ratio = scores["stem.weight"].sum() / flows["stem.weight"].sum()
    assert all(torch.allclose(scores[name], ratio * flow, rtol=1e-9) for name, flow in flows.items())


def test_a_running_mean_that_no_relu_follows_makes_no_score_below_0() -> None:
    layers = mlp(4, 6, 3).model
    network = wrap(nn.Sequential(layers[0], nn.BatchNorm1d(6).double(), layers[2]), (4,))
    network.model[1].running_mean.fill_(2.0)
    flows = synflow_l2.make_scorer(context_of(network))(None).values
    scores = px.make_scorer(context_of(network))(None).values
    ratio = scores["2.weight"].sum() / flows["2.weight"].sum()
    assert all(bool((scores[name] > 0).all()) for name in flows)
    assert all(torch.allclose(scores[name], ratio * flow, rtol=1e-9) for name, flow in flows.items())


def test_statistics_of_the_network_and_not_of_the_batch() -> None:
    """An MLP whose norm closes every unit: no path is woken."""
    layers = mlp(4, 6, 3).model
    network = wrap(nn.Sequential(layers[0], nn.BatchNorm1d(6), *layers[1:]), (4,))
    assert px.make_scorer(context_of(network))(None).values["0.weight"].any()
    network.model[1].running_mean.fill_(1e6)
    assert not px.make_scorer(context_of(network))(None).values["0.weight"].any()


def test_samples_and_their_order_in_batches() -> None:
    network = build("mlp")
    context = context_of(network, (6, 6))
    rng = np.random.default_rng(1)
    masks = {layer.name: rng.random(layer.shape) < 0.3 for layer in network.layers}
    scores = px.make_scorer(context)(masks).values
    again = px.make_scorer(context_of(network, (3, 9)))(masks).values
    other = px.make_scorer(context_of(network, (4,)))(masks).values
    for name in masks:
        assert torch.allclose(scores[name], again[name], rtol=1e-9)
        assert not torch.allclose(scores[name] / scores[name].sum(), other[name] / other[name].sum(), rtol=1e-3)


def test_layers_left_out_keep_their_weights_and_their_paths() -> None:
    network = build("residual")
    result = run(network, "px", 0.3, ignore=("fc", "body"))
    assert list(result.masks) == ["stem.weight", "shortcut.weight"]
    assert not same(result, run(network, "px", 0.3, ignore=("fc", "body"), invert=True))


# ---- activation patterns


SHAPES = [
    ("relu", nn.ReLU(), [0, 0, 1, 1]),
    ("in place", nn.ReLU(inplace=True), [0, 0, 1, 1]),
    ("relu6", nn.ReLU6(), [0, 0, 1, 0]),
    ("leaky", nn.LeakyReLU(0.5), [0.25, 0.25, 1, 1]),
]


@pytest.mark.parametrize(("activation", "gate"), [one[1:] for one in SHAPES], ids=[one[0] for one in SHAPES])
def test_gates(activation: nn.Module, gate: list[float]) -> None:
    x = torch.tensor([-2.0, 0.0, 1.0, 9.0])
    wanted = activation(x.clone())
    with torch.no_grad(), Gates("px") as gates:
        assert torch.equal(activation(x.clone()), wanted)  # noted, not changed
    assert [one.double().tolist() for one in gates.noted] == [gate]
    other = torch.tensor([3.0, -1.0, -2.0, 0.5])
    with torch.no_grad(), Gated(gates.noted):
        assert torch.equal(activation(other.clone()), other * torch.tensor(gate))


@pytest.mark.parametrize("floor", [lambda x: x.clamp(min=0), lambda x: x.clamp_min(0), torch.relu, torch.relu_])
def test_gates_by_other_names(floor: Callable[[torch.Tensor], torch.Tensor]) -> None:
    with torch.no_grad(), Gates("px") as gates:
        floor(torch.tensor([-2.0, 1.0]))
    assert gates.noted[0].tolist() == [False, True]


NO_GATES = {
    "gelu": nn.GELU(), "prelu_kernel": nn.PReLU(), "hardtanh": nn.Hardtanh(), "softmax": nn.Softmax(1),
    "sigmoid": nn.Sigmoid(), "tanh": nn.Tanh(), "silu": nn.SiLU(), "elu": nn.ELU(),
}  # fmt: skip


class Attends(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.fc = nn.Linear(8, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(self.attention(x, x, x, need_weights=False)[0].mean(1))


class Recurs(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.gru = nn.GRU(8, 8, batch_first=True)
        self.fc = nn.Linear(8, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(self.gru(x)[0][:, -1])


@pytest.mark.parametrize("factory", [Attends, Recurs])
def test_attention_and_recurrence_are_refused(factory: Callable[[], nn.Module]) -> None:
    with pytest.raises(ScoreError, match=r"^px: the network has .*, and paths are followed through ReLU"):
        px.make_scorer(context_of(wrap(factory(), (5, 8))))(None)


@pytest.mark.parametrize("name", NO_GATES)
def test_what_is_no_gate_is_refused(name: str) -> None:
    network = wrap(nn.Sequential(nn.Linear(4, 3), NO_GATES[name], nn.Linear(3, 2)), (4,))
    with pytest.raises(ScoreError) as caught:
        px.make_scorer(context_of(network))(None)
    assert str(caught.value) == (
        f"px: the network has {name}, and paths are followed through ReLU, ReLU6 and leaky ReLU alone; give another method="
    )


class Between(nn.Module):
    """A function between two linear layers."""

    def __init__(self, function: Callable[[torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.first, self.last, self.function = nn.Linear(4, 3), nn.Linear(3, 2), function

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(self.function(self.first(x)))


RELUS_UNSEEN: dict[str, tuple[str, Callable[[torch.Tensor], torch.Tensor]]] = {
    "by the larger": ("maximum", lambda x: torch.maximum(x, torch.zeros_like(x))),
    "by the smaller": ("minimum", lambda x: -torch.minimum(-x, torch.zeros_like(x))),
    "by a comparison": ("gt", lambda x: x * (x > 0)),
    "by a choice": ("lt", lambda x: torch.where(x < 0, 0.0, x)),
    "by a threshold": ("threshold", lambda x: nn.functional.threshold(x, 0.0, 0.0)),
    "shrunk": ("hardshrink", nn.functional.hardshrink),
}


@pytest.mark.parametrize("name", RELUS_UNSEEN)
def test_a_relu_by_other_means_is_refused_by_its_name(name: str) -> None:
    """Where such a one opens is not noted: each would count as open for every sample."""
    called, function = RELUS_UNSEEN[name]
    with pytest.raises(ScoreError, match=rf"^px: the network has {called}, and paths are followed through ReLU"):
        px.make_scorer(context_of(wrap(Between(function), (4,))))(None)


NOT_LINEAR: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "square": torch.square,
    "sine": torch.sin,
    "root": lambda x: (x * x + 1).sqrt(),
    "two multiplied": lambda x: x * x.flip(1),
    "by its own length": lambda x: x / x.norm(dim=1, keepdim=True),
    "less a constant": lambda x: x.relu() - 0.5,
}


@pytest.mark.parametrize("name", NOT_LINEAR)
def test_outputs_that_are_no_sums_over_paths_are_refused(name: str) -> None:
    with pytest.raises(ScoreError) as caught:
        px.make_scorer(context_of(wrap(Between(NOT_LINEAR[name]), (4,))))(None)
    assert str(caught.value) == (
        "px: with ReLUs held open or shut the outputs are not proportional to the inputs, so no sum over paths (the network "
        "has a function that is not linear, or adds or takes away what is no bias of a layer); give another method="
    )


@pytest.mark.filterwarnings("ignore")  # torch.export's own parts are deprecated in places
def test_a_program_has_the_scores_of_its_network() -> None:
    model = whole().model.float()
    shape = {0: torch.export.Dim("batch", min=2)}
    program = torch.export.export(model, (torch.zeros(2, 2, 4, 4),), dynamic_shapes=(shape,)).module()
    network = wrap(model, (2, 4, 4))
    other, masks = replace(network, model=program), masks_of(network)
    scores = [px.make_scorer(context_of(one))(masks).values for one in (network, other)]
    assert all(torch.allclose(scores[0][name], scores[1][name], rtol=1e-9) for name in masks)


# ---- failures, as a person reads them


ONE = "and one floating tensor is needed; give a model= factory whose network returns the logits alone"
FAILURES = [
    ("tuple", lambda: Returns(lambda y: (y, y)), ScoreError, f"px: the network returns a tuple, {ONE}"),
    ("detached", lambda: Returns(lambda y: y.detach()), ScoreError,
     "px: the network's outputs cannot be differentiated (RuntimeError: element 0 of tensors does not require grad and does "
     "not have a grad_fn)"),
    ("infinite", lambda: Returns(lambda y: y * 1e300 * 1e300), ScoreError,
     "px: the sum over paths is not a finite float64 (too deep, or weights too large or not finite); give another method=, "
     "such as erk"),
    ("fails", lambda: Returns(lambda y: y @ torch.ones(2, 2).double()), MethodOptionError,
     "px: the network failed on a batch of shape 5,4 (RuntimeError: mat1 and mat2 shapes cannot be multiplied (5x3 and "
     "2x2)); give the shape of one input with input_shape="),
    ("float32_only", lambda: Returns(lambda y: y @ torch.ones(3, 2)), ScoreError,
     "px: the network failed on a batch of shape 5,4 (RuntimeError: expected m1 and m2 to have the same dtype, but got: "
     "double != float) in float64; its code makes tensors of float32 whatever its input is: let them be of the input's type "
     "(dtype=x.dtype)"),
    ("uncopyable", uncopyable, ScoreError,
     "px: the network cannot be copied (TypeError: cannot pickle 'generator' object); give another method="),
    ("norm", lambda: nn.Sequential(nn.Linear(4, 3), nn.LayerNorm(3)), ScoreError,
     "px: 1 (LayerNorm) divides by the size of its own input, so no flow passes it unchanged; give another method="),
]  # fmt: skip


@pytest.mark.parametrize(("factory", "kind", "text"), [f[1:] for f in FAILURES], ids=[f[0] for f in FAILURES])
def test_a_network_it_cannot_score(factory: Callable[[], nn.Module], kind: type[PaiError], text: str) -> None:
    torch.manual_seed(0)
    context = context_of(wrap(factory(), (4,)))
    with pytest.raises(kind) as caught:
        px.make_scorer(context)(None)
    assert str(caught.value) == text


def test_no_samples() -> None:
    network = build("mlp")
    with pytest.raises(ScoreError, match=r"^px: has no samples to score with; give data=$"):
        px.make_scorer(ScoreContext(network, network.layers, network.input_shape, "cpu", 0, method="px"))
