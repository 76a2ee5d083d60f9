"""ProsPr against torch's own slope through the unrolled steps and against finite differences, in float64."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from networks import build, run, same, wrap
from test_supervised import context_of, loss_of, smooth, some_of
from torch import nn

from pai_cli.errors import ScoreError
from pai_cli.methods import prospr, snip
from pai_cli.models.network import Network
from pai_cli.pruning.base import Masks, ScoreContext

Tensors = dict[str, torch.Tensor]


def prospect(network: Network, context: ScoreContext, gates: Tensors, masks: Masks | None = None) -> torch.Tensor:
    """The loss after three steps from the gated weights, every step in the graph; what is masked takes none."""
    point = {name: value.detach().clone() for name, value in network.model.named_parameters()}
    point = {name: value * gates[name] if name in gates else value.requires_grad_() for name, value in point.items()}
    for _ in range(3):
        slopes = torch.autograd.grad(loss_of(network, context, point), list(point.values()), create_graph=True)
        moves = dict(zip(point, slopes, strict=True))
        if masks is not None:
            moves |= {name: moves[name] * torch.from_numpy(mask) for name, mask in masks.items()}
        point = {name: value - 0.1 * moves[name] for name, value in point.items()}
    return loss_of(network, context, point)


def gates_of(network: Network, masks: Masks | None = None) -> Tensors:
    ones = {layer.name: torch.ones(layer.shape, dtype=torch.float64) for layer in network.layers}
    for name, mask in (masks or {}).items():
        ones[name] *= torch.from_numpy(mask)
    return {name: one.requires_grad_() for name, one in ones.items()}


@pytest.mark.parametrize("masked", [False, True])
def test_it_is_the_slope_through_the_steps_by_a_gate_on_the_weight(masked: bool) -> None:
    network = smooth()
    context = context_of(network, method="prospr")
    rng = np.random.default_rng(0)
    masks = {layer.name: rng.random(layer.shape) < 0.7 for layer in network.layers} if masked else None
    gates = gates_of(network, masks)
    slopes = torch.autograd.grad(prospect(network, context, gates, masks), list(gates.values()))
    scores = prospr.make_scorer(context)(masks).values
    for (name, gate), slope in zip(gates.items(), slopes, strict=True):
        assert scores[name].dtype == torch.float64
        assert torch.allclose(scores[name], (slope * (gate != 0)).abs(), rtol=1e-9, atol=1e-14)


def test_by_differences() -> None:
    network = smooth()
    context = context_of(network, method="prospr")
    scores, step = prospr.make_scorer(context)(None).values, 1e-5
    for name, of_layer in scores.items():
        for index in some_of(of_layer):
            ends = []
            for h in (step, -step):
                gates = gates_of(network)
                gates[name].data[index] += h
                ends.append(prospect(network, context, gates).item())
            assert of_layer[index].item() == pytest.approx(abs(ends[0] - ends[1]) / (2 * step), rel=1e-5, abs=1e-9)


class Fixed(nn.Module):
    """A scale and a shift a channel, and the statistics of a batch norm as constants."""

    def __init__(self, norm: nn.BatchNorm2d) -> None:
        super().__init__()
        self.weight, self.bias, self.norm = norm.weight, norm.bias, [norm]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        (norm,) = self.norm
        one, mean, variance = (part[:, None, None] for part in (self.weight, norm.running_mean, norm.running_var))
        return (x - mean) / (variance + norm.eps).sqrt() * one + self.bias[:, None, None]


def test_by_running_statistics_which_no_step_changes() -> None:
    """The slope through the unrolled steps of a network whose batch norm is a scale and a shift by what was measured."""
    network = smooth()
    norm = network.model.norm
    norm.running_mean.normal_()
    norm.running_var.uniform_(0.5, 2)
    context = replace(context_of(network, method="prospr"), batch_norm="running")
    batch = prospr.make_scorer(replace(context, batch_norm="batch"))(None).values
    found = prospr.make_scorer(context)(None).values
    network.model.norm = Fixed(norm)
    gates = gates_of(network)
    slopes = torch.autograd.grad(prospect(network, context, gates), list(gates.values()))
    for (name, of_layer), slope in zip(found.items(), slopes, strict=True):
        assert torch.allclose(of_layer, slope.abs(), rtol=1e-9, atol=1e-14)
        assert not torch.allclose(of_layer, batch[name], rtol=1e-3)


def test_without_steps_it_is_snip(monkeypatch: pytest.MonkeyPatch) -> None:
    network = smooth()
    context = context_of(network, method="prospr")
    plain = snip.make_scorer(context)(None).values
    ahead = prospr.make_scorer(context)(None).values
    assert not any(torch.allclose(ahead[name], plain[name], rtol=1e-3) for name in plain)
    monkeypatch.setattr(prospr, "RATE", 0.0)
    still = prospr.make_scorer(context)(None).values
    assert all(torch.allclose(still[name], plain[name], rtol=1e-12, atol=0) for name in plain)


def test_a_shared_weight_takes_one_step() -> None:
    """By the slope through the unrolled steps of a network whose two layers read one tensor."""
    network = build("tied")
    network.model.double()
    context = context_of(network, method="prospr")
    weight = network.parameter("encode.weight").detach()
    rest = {name: network.model.get_parameter(name).detach() for name in ("encode.bias", "decode.bias")}
    gate = torch.ones_like(weight, requires_grad=True)

    def loss(point: Tensors) -> torch.Tensor:
        total = torch.zeros((), dtype=torch.float64)
        for inputs, labels in context.batches:
            hidden = torch.relu(inputs.double() @ point["w"].T + point["encode.bias"])
            logits = hidden @ point["w"].T + point["decode.bias"]
            total = total - logits.log_softmax(1)[torch.arange(len(labels)), labels].sum()
        return total / sum(len(labels) for _, labels in context.batches)

    point = {"w": weight * gate} | {name: value.clone().requires_grad_() for name, value in rest.items()}
    for _ in range(3):
        slopes = torch.autograd.grad(loss(point), list(point.values()), create_graph=True)
        point = {name: value - 0.1 * slope for (name, value), slope in zip(point.items(), slopes, strict=True)}
    wanted = torch.autograd.grad(loss(point), gate)[0].abs()
    found = prospr.make_scorer(context)(None).values["encode.weight"]
    assert torch.allclose(found, wanted, rtol=1e-9, atol=1e-14)


def test_scoring_again_begins_again() -> None:
    network = build("residual")
    score = prospr.make_scorer(context_of(network, method="prospr"))
    first, again = score(None).values, score(None).values
    assert all(torch.equal(first[name], again[name]) for name in first)


def test_layers_left_out_take_their_steps() -> None:
    network = build("residual")
    whole = run(network, "prospr", 0.3, ignore=("fc",))
    context = context_of(network, method="prospr")
    part = prospr.make_scorer(ScoreContext(**{**vars(context), "layers": context.layers[:2]}))(None).values
    every = prospr.make_scorer(context)(None).values
    assert list(part) == ["stem.weight", "body.weight"]
    assert all(torch.equal(part[name], every[name]) for name in part)
    assert not same(whole, run(network, "snip", 0.3, ignore=("fc",)))


def test_steps_that_are_too_long_for_the_network() -> None:
    """A network whose loss leaves all numbers on the way."""
    network = wrap(nn.Sequential(nn.Linear(4, 8), nn.Linear(8, 8), nn.Linear(8, 3)), (4,))
    with torch.no_grad():
        for parameter in network.model.parameters():
            parameter.mul_(1e12)
    with pytest.raises(ScoreError, match=r"^prospr: the loss on the samples is not finite"):
        prospr.make_scorer(context_of(network, method="prospr"))(None)
