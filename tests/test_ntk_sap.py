"""NTK-SAP against explicit formulas and finite differences, in float64; what is drawn; and how it fails."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from math import prod

import numpy as np
import pytest
import torch
from networks import Returns, build, run, same, uncopyable, wrap
from torch import nn
from torch.nn.functional import conv2d, softplus

from pai_cli.errors import MethodOptionError, PaiError, ScoreError
from pai_cli.methods import ntk_sap
from pai_cli.models.network import Network
from pai_cli.pruning.base import Masks, ScoreContext

Tensors = dict[str, torch.Tensor]


class Smooth(nn.Module):
    """Convolution, batch norm, shortcut and linear layer, no kink anywhere."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 3, 3, padding=1)
        self.norm = nn.BatchNorm2d(3)
        self.skip = nn.Conv2d(2, 3, 1, bias=False)
        self.drop = nn.Dropout(0.5)
        self.fc = nn.Linear(3 * 9, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = softplus(self.norm(self.conv(x)) + self.skip(x))
        return self.fc(self.drop(x).flatten(1))


def smooth() -> Network:
    """In float64, its batch norm with a scale and a shift that the method must not look at."""
    torch.manual_seed(0)
    network = wrap(Smooth().double(), (2, 3, 3))
    with torch.no_grad():
        network.model.norm.weight.fill_(3.0)
        network.model.norm.bias.fill_(-1.0)
    return network


def context_of(network: Network, seed: int = 0) -> ScoreContext:
    return ScoreContext(network, network.layers, network.input_shape, "cpu", seed, method="ntk-sap")


def masks_of(network: Network) -> Masks:
    rng = np.random.default_rng(0)
    return {layer.name: rng.random(layer.shape) < 0.7 for layer in network.layers}


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two networks a round with seven inputs each."""
    monkeypatch.setattr(ntk_sap, "DRAWS", 2)
    monkeypatch.setattr(ntk_sap, "INPUTS", 7)


def gated(weights: Tensors, gates: Tensors) -> Tensors:
    return {name: weight.double() * gates[name] for name, weight in weights.items()}


def j_of(network: Network, drawn: list[ntk_sap.Draw], gates: Tensors, held: Tensors) -> float:
    """J, written out apart from the package.

    The statistics are those of the network that is not perturbed, with the gates `held`, the variance unbiased.
    """
    model, total = network.model.requires_grad_(False), 0.0

    def convolved(weights: Tensors, x: torch.Tensor) -> torch.Tensor:
        return conv2d(x, weights["conv.weight"], model.conv.bias, padding=1)

    for draw in drawn:
        x = draw.inputs.double()
        reference = convolved(gated(draw.weights, held), x)
        mean, variance = reference.mean((0, 2, 3), keepdim=True), reference.var((0, 2, 3), unbiased=True, keepdim=True)
        outputs = []
        for weights in (gated(draw.weights, gates), gated(draw.moved, gates)):
            hidden = (convolved(weights, x) - mean) / (variance + 1e-5).sqrt() + conv2d(x, weights["skip.weight"])
            outputs.append(softplus(hidden).flatten(1) @ weights["fc.weight"].T + model.fc.bias)
        total += float(((outputs[0] - outputs[1]) ** 2).sum())
    return total


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("masked", [False, True])
def test_it_is_the_slope_by_a_gate_on_the_weight(masked: bool) -> None:
    """By central differences; the statistics of the batch stay where a gate is moved."""
    network = smooth()
    context = context_of(network)
    masks = masks_of(network) if masked else None
    scores = ntk_sap.make_scorer(context)(masks).values
    drawn = list(ntk_sap.draws(context, 1))
    gates = {
        name: torch.from_numpy(masks[name]).double() if masks else torch.ones_like(of_layer)
        for name, of_layer in scores.items()
    }
    for name, of_layer in scores.items():
        assert of_layer.dtype == torch.float64
        for index in list(np.ndindex(*of_layer.shape))[::4]:
            if gates[name][index] == 0:
                assert of_layer[index] == 0
                continue
            ends = []
            for step in (1e-5, -1e-5):
                moved = gates[name].clone()
                moved[index] += step
                ends.append(j_of(network, drawn, gates | {name: moved}, gates))
            slope = (ends[0] - ends[1]) / 2e-5
            assert of_layer[index].item() == pytest.approx(abs(slope), rel=1e-6, abs=1e-9)


def test_of_one_linear_layer_in_closed_form() -> None:
    """f = (w m) x: J = |(e m) x|^2, whose slope by m_kj is 2 e_kj sum_n x_nj (e m x_n)_k; w is not in it."""
    network = wrap(nn.Sequential(nn.Linear(5, 4).double()), (5,))
    context = context_of(network)
    slope = np.zeros((4, 5))
    masks = masks_of(network)
    for draw in ntk_sap.draws(context, 1):
        x = draw.inputs.double().numpy()
        e = (draw.moved["0.weight"].double() - draw.weights["0.weight"].double()).numpy() * masks["0.weight"]
        slope += 2 * e * ((x @ e.T).T @ x)
    scores = ntk_sap.make_scorer(context)(masks).values["0.weight"].numpy()
    assert scores[masks["0.weight"]] == pytest.approx(np.abs(slope)[masks["0.weight"]], rel=1e-6)
    assert not scores[~masks["0.weight"]].any()


def test_what_is_drawn() -> None:
    """Kaiming's normal weights, a perturbation of standard deviation 0.01, standard normal inputs; of 5 networks."""
    network = build("convolutions")
    drawn = list(ntk_sap.draws(context_of(network), 1))
    assert [len(draw.inputs) for draw in drawn] == [100] * 5
    for layer in network.layers:
        weights = torch.cat([draw.weights[layer.name].flatten() for draw in drawn])
        moved = torch.cat([draw.moved[layer.name].flatten() for draw in drawn])
        into = {"7.weight": 16 * 2 * 2}.get(layer.name, prod(layer.shape[1:]))  # transposed: inputs come first
        error = 4 / (2 * len(weights)) ** 0.5
        assert float(weights.std()) == pytest.approx((2 / into) ** 0.5, rel=error)
        assert float((moved - weights).std()) == pytest.approx(0.01, rel=error)
        assert abs(float(weights.mean() / weights.std())) < 4 / len(weights) ** 0.5
    inputs = torch.cat([draw.inputs for draw in drawn])
    assert inputs.shape[1:] == (3, 4, 4)
    assert (float(inputs.mean()), float(inputs.std())) == pytest.approx((0, 1), abs=0.03)


@pytest.mark.parametrize("affine", [True, False])
def test_a_batch_norm_without_running_statistics_is_as_one_with_them(affine: bool) -> None:
    """Both networks are normalised by the batch in the one that is not perturbed."""
    found = []
    for tracks in (True, False):
        torch.manual_seed(0)
        norm = nn.BatchNorm1d(5, affine=affine, track_running_stats=tracks)
        network = wrap(nn.Sequential(nn.Linear(4, 5), norm, nn.ReLU(), nn.Linear(5, 3)).double(), (4,))
        found.append(ntk_sap.make_scorer(context_of(network))(None).values)
        assert (norm.running_mean is None) is not tracks
    assert all(torch.equal(one, found[1][name]) for name, one in found[0].items())


def test_other_rounds_and_seeds_draw_others() -> None:
    network = build("mlp")
    context = context_of(network)
    first, again = (next(ntk_sap.draws(context, 1)) for _ in range(2))
    assert torch.equal(first.inputs, again.inputs)
    for other in (ntk_sap.draws(context, 2), ntk_sap.draws(context_of(network, seed=1), 1)):
        draw = next(other)
        assert not torch.equal(first.inputs, draw.inputs)
        assert not torch.equal(first.weights["1.weight"], draw.weights["1.weight"])
    score = ntk_sap.make_scorer(context)
    one, two = (score(None).values["1.weight"].clone() for _ in range(2))
    assert not torch.equal(one, two)
    assert torch.equal(one, ntk_sap.make_scorer(context)(None).values["1.weight"])


def test_the_network_s_own_weights_do_not_matter_and_its_biases_do() -> None:
    network, other = smooth(), smooth()
    with torch.no_grad():
        for layer in other.layers:
            other.parameter(layer.name).normal_()
        other.model.norm.weight.fill_(0.5)
        other.model.norm.running_var.fill_(100.0)
    assert same(run(network, "ntk-sap", 0.3), run(other, "ntk-sap", 0.3))
    with torch.no_grad():
        other.model.conv.bias.fill_(9.0)  # taken away again by the norm
        assert same(run(network, "ntk-sap", 0.3), run(other, "ntk-sap", 0.3))
        other.model.norm, network.model.norm = nn.Identity(), nn.Identity()
    assert not same(run(network, "ntk-sap", 0.3), run(other, "ntk-sap", 0.3))


def test_layers_left_out_do_not_matter() -> None:
    network = build("residual")
    context = context_of(network)
    whole = ntk_sap.make_scorer(context)(None).values
    part = ntk_sap.make_scorer(replace(context, layers=context.layers[1:3]))(None).values
    assert list(part) == ["body.weight", "shortcut.weight"]
    assert all(torch.equal(part[name], whole[name]) for name in part)


def test_a_network_that_draws_in_its_pass_draws_the_same_in_both(monkeypatch: pytest.MonkeyPatch) -> None:
    class Noisy(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(6, 4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return nn.functional.dropout(self.fc(x), 0.5)

    network = wrap(Noisy(), (6,))
    state = torch.get_rng_state()
    assert ntk_sap.make_scorer(context_of(network))(None).values["fc.weight"].any()
    monkeypatch.setattr(ntk_sap, "PERTURBATION", 0.0)
    assert not ntk_sap.make_scorer(context_of(network))(None).values["fc.weight"].any()
    assert torch.equal(torch.get_rng_state(), state)


def test_large_inputs_come_in_batches_that_have_networks_of_their_own() -> None:
    network = wrap(nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 2)), (3, 128, 128))
    drawn = list(ntk_sap.draws(context_of(network), 1))
    assert [len(draw.inputs) for draw in drawn] == [25, 25, 25, 25] * 5
    assert not torch.equal(drawn[0].weights["2.weight"], drawn[1].weights["2.weight"])


@pytest.mark.filterwarnings("ignore")  # torch.export's own parts are deprecated in places
def test_a_program_is_scored_by_its_batches() -> None:
    """Exported in evaluation mode, whose statistics are of no batch: those are not taken."""
    torch.manual_seed(0)
    model = Smooth().eval()
    example = torch.zeros(2, 2, 3, 3)
    shape = {0: torch.export.Dim("batch", min=2)}
    program = torch.export.export(model, (example,), dynamic_shapes=(shape,)).module()
    network = wrap(model, (2, 3, 3))
    first = ntk_sap.make_scorer(context_of(network, 1))
    other = ntk_sap.make_scorer(replace(context_of(network, 1), network=replace(network, model=program)))
    scores = [torch.cat([one.flatten() for one in score(None).values.values()]) for score in (first, other)]
    assert 0.9 < float(torch.corrcoef(torch.stack(scores))[0, 1]) < 1


# ---- failures, as a person reads them


ONE = "and one floating tensor is needed; give a model= factory whose network returns the logits alone"
FAILURES = [
    ("tuple", lambda: Returns(lambda y: (y, y)), ScoreError, f"ntk-sap: the network returns a tuple, {ONE}"),
    ("integers", lambda: Returns(lambda y: y.argmax(1)), ScoreError,
     f"ntk-sap: the network returns a tensor of torch.int64, {ONE}"),
    ("detached", lambda: Returns(lambda y: y.detach()), ScoreError,
     "ntk-sap: the network's outputs cannot be differentiated (RuntimeError: element 0 of tensors does not require grad "
     "and does not have a grad_fn)"),
    ("infinite", lambda: Returns(lambda y: y * float("inf")), ScoreError,
     "ntk-sap: the outputs for drawn weights and inputs are not finite (too deep without a norm, or biases too large); "
     "give another method=, such as erk"),
    ("fails", lambda: Returns(lambda y: y @ torch.ones(2, 2)), MethodOptionError,
     "ntk-sap: the network failed on a batch of shape 100,4 (RuntimeError: mat1 and mat2 shapes cannot be multiplied "
     "(100x3 and 2x2)); give the shape of one input with input_shape="),
    ("uncopyable", uncopyable, ScoreError,
     "ntk-sap: the network cannot be copied (TypeError: cannot pickle 'generator' object); give another method="),
]  # fmt: skip


@pytest.mark.parametrize(("factory", "kind", "text"), [f[1:] for f in FAILURES], ids=[f[0] for f in FAILURES])
def test_a_network_it_cannot_score(factory: Callable[[], nn.Module], kind: type[PaiError], text: str) -> None:
    torch.manual_seed(0)
    context = context_of(wrap(factory(), (4,)))
    state = torch.get_rng_state()
    with pytest.raises(kind) as caught:
        ntk_sap.make_scorer(context)(None)
    assert str(caught.value) == text
    assert torch.equal(torch.get_rng_state(), state)


def test_without_an_input_shape() -> None:
    with pytest.raises(MethodOptionError) as caught:
        run(wrap(nn.Linear(4, 3), None), "ntk-sap", 0.5)
    assert str(caught.value) == (
        "ntk-sap: the shape of one input is not known; give it with input_shape=, such as 3,32,32"
    )
