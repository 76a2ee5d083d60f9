"""Hutchinson-Taylor sensitivity against explicit Hessians, in float64, and its probes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import cycle, product
from typing import Any

import numpy as np
import pytest
import torch
from networks import PER_CLASS, run, same, toy_for, wrap
from numpy.typing import NDArray
from torch import nn

from pai_cli.errors import MethodOptionError, ScoreError
from pai_cli.methods import hutchinson
from pai_cli.methods.registry import get
from pai_cli.methods.supervised import Supervised, Tensors
from pai_cli.models.network import Network
from pai_cli.pruning.base import BatchNorm, ScoreContext
from pai_cli.pruning.run import PruneRequest, choose_masks
from pai_cli.random import generator_for

T = 200.0
Reals = NDArray[np.float64]


def network_of(*modules: nn.Module) -> Network:
    torch.manual_seed(0)
    model = nn.Sequential(*modules).double()
    with torch.no_grad():
        for one in model.parameters():
            one.uniform_(-2, 2)
        for one in model.modules():
            if isinstance(one, nn.BatchNorm1d):
                one.running_mean.fill_(0.3)
                one.running_var.fill_(2.0)
    return wrap(model, (model[0].in_features,))


def smooth(norm: bool = True) -> Network:
    """Eight weights that are pruned, and no kink."""
    norms = [nn.BatchNorm1d(2)] if norm else []
    return network_of(nn.Linear(2, 2), *norms, nn.Softplus(), nn.Linear(2, 2))


def context_of(network: Network, batch_norm: BatchNorm = "running", sizes: tuple[int, ...] = (3, 2)) -> ScoreContext:
    rng = np.random.default_rng(5)
    assert network.input_shape is not None
    batches = tuple(
        (
            torch.from_numpy(rng.standard_normal((n, *network.input_shape))).float(),
            torch.from_numpy(rng.integers(0, network.layers[-1].shape[0], n)),
        )
        for n in sizes
    )
    return ScoreContext(
        network, network.layers, network.input_shape, "cpu", 7, batches, "hutchinson", batch_norm=batch_norm
    )


# ---- the oracle: loss, gradient and Hessian of one flat vector of weights, written out apart from the package


def point_of(context: ScoreContext) -> torch.Tensor:
    network = context.network
    return torch.cat([network.parameter(one.name).detach().flatten() for one in network.layers])


def loss_by(
    context: ScoreContext, inputs: torch.Tensor, labels: torch.Tensor
) -> Callable[[torch.Tensor], torch.Tensor]:
    """The mean loss of these samples as a function of all pruned weights."""
    layers, model = context.network.layers, context.network.model

    def loss(flat: torch.Tensor) -> torch.Tensor:
        pieces = zip(layers, flat.split([int(np.prod(one.shape)) for one in layers]), strict=True)
        state = {name: one.clone() for name, one in model.state_dict().items()}
        logits = torch.func.functional_call(
            model, state | {layer.name: piece.view(layer.shape) for layer, piece in pieces}, inputs.double()
        )
        logits = logits / T
        return (logits.exp().sum(1).log() - logits[torch.arange(len(labels)), labels]).mean()

    model.train(context.batch_norm == "batch")
    return loss


def parts(context: ScoreContext) -> list[tuple[float, torch.Tensor, torch.Tensor]]:
    """What passes apart, with its share of the samples."""
    total = sum(len(labels) for _, labels in context.batches)
    if context.batch_norm == "batch":
        return [(len(y) / total, x, y) for x, y in context.batches]
    return [(1 / total, x[k : k + 1], y[k : k + 1]) for x, y in context.batches for k in range(len(y))]


def hessians(context: ScoreContext) -> list[Reals]:
    """Of each part, times its share."""
    found = []
    for share, x, y in parts(context):
        hessian = torch.autograd.functional.hessian(loss_by(context, x, y), point_of(context))
        found.append(share * hessian.numpy())  # type: ignore[union-attr]
    context.network.model.train()
    return found


def gradient(context: ScoreContext) -> Reals:
    point, total = point_of(context), torch.zeros(())
    point.requires_grad_()
    for share, x, y in parts(context):
        total = total + share * loss_by(context, x, y)(point)
    context.network.model.train()
    return torch.autograd.grad(total, point)[0].numpy()


def flat(values: Tensors) -> Reals:
    return np.concatenate([one.numpy().ravel() for one in values.values()])


def supervised(context: ScoreContext) -> Supervised:
    return Supervised(context, tuple(one.name for one in context.layers), T)


def every_sign(like: Tensors) -> tuple[Callable[[], Tensors], int]:
    """What gives all vectors of signs, one after the other and over again, and how many there are."""
    sizes = [one.numel() for one in like.values()]
    vectors = cycle(product((-1.0, 1.0), repeat=sum(sizes)))

    def draw() -> Tensors:
        pieces = torch.tensor(next(vectors), dtype=torch.float64).split(sizes)
        return {name: piece.view(like[name].shape) for name, piece in zip(like, pieces, strict=True)}

    return draw, 2 ** sum(sizes)


# ---- laws


@pytest.mark.parametrize("batch_norm", ["running", "batch"])
def test_over_all_signs_the_estimate_is_the_diagonal(batch_norm: BatchNorm) -> None:
    context = context_of(smooth(), batch_norm)
    loss = supervised(context)
    found, diagonal = loss.curvature(*every_sign(loss.weights))
    np.testing.assert_allclose(flat(diagonal), sum(hessians(context)).diagonal(), rtol=1e-9, atol=1e-15)
    np.testing.assert_allclose(flat(found), gradient(context), rtol=1e-10, atol=1e-15)


def test_of_one_linear_layer_it_is_known() -> None:
    """The softmax's own: p (1 - p) x^2 / T^2, in the mean over the samples."""
    network = network_of(nn.Linear(2, 3))
    context = context_of(network)
    weight, bias = (one.detach().numpy() for one in network.model.parameters())
    wanted = np.zeros(weight.shape)
    for x, _ in context.batches:
        for one in x.double().numpy():
            shares = np.exp((weight @ one + bias) / T)
            shares /= shares.sum()
            wanted += np.outer(shares * (1 - shares), one**2) / T**2 / 5
    loss = supervised(context)
    np.testing.assert_allclose(flat(loss.curvature(*every_sign(loss.weights))[1]), wanted.ravel(), rtol=1e-10)


def test_the_estimate_scatters_by_what_is_beside_the_diagonal() -> None:
    """Over all signs, of one probe: the mean square error of each is the sum of squares of the others in its row."""
    context = context_of(smooth(norm=False), sizes=(1,))
    (hessian,) = hessians(context)
    loss = supervised(context)
    draw, count = every_sign(loss.weights)
    found = np.array([flat(loss.curvature(draw, 1)[1]) for _ in range(count)])
    wanted = (hessian**2).sum(1) - hessian.diagonal() ** 2
    np.testing.assert_allclose(((found - hessian.diagonal()) ** 2).mean(0), wanted, rtol=1e-9)


def test_of_relus_the_diagonal_is_gauss_newton_s() -> None:
    """Between kinks such a network is linear in each weight by itself, so nothing else is on the diagonal."""
    network = network_of(nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 2))
    context = context_of(network)
    wanted = np.zeros(8)
    for share, x, _ in parts(context):
        leaves = [network.parameter(one.name) for one in network.layers]
        logits = network.model(x.double())[0] / T
        slopes = [torch.autograd.grad(one, leaves, retain_graph=True) for one in logits]
        jacobian = np.array([np.concatenate([one.numpy().ravel() for one in row]) for row in slopes])
        p = logits.detach().softmax(0).numpy()
        wanted += share * ((p[:, None] * jacobian**2).sum(0) - (p @ jacobian) ** 2)
    loss = supervised(context)
    found = flat(loss.curvature(*every_sign(loss.weights))[1])
    np.testing.assert_allclose(found, wanted, rtol=1e-9, atol=1e-18)
    assert found.min() >= 0


# ---- the scores


@pytest.mark.parametrize("batch_norm", ["running", "batch"])
def test_the_score_is_the_second_order_term_by_ten_probes_of_each_part(batch_norm: BatchNorm) -> None:
    context = context_of(smooth(), batch_norm)
    generator, diagonal = generator_for(7, "hutchinson probes"), np.zeros(8)
    for hessian in hessians(context):
        for _ in range(10):
            signs = np.array([1.0 if bit == "1" else -1.0 for bit in f"{generator.bytes(1)[0]:08b}"])
            diagonal += signs * (hessian @ signs) / 10
    weight = point_of(context).numpy()
    wanted = abs(weight * gradient(context) + weight**2 * diagonal / 2)
    found = hutchinson.make_scorer(context)(None).values
    assert [tuple(one.shape) for one in found.values()] == [(2, 2), (2, 2)]
    np.testing.assert_allclose(flat(dict(found)), wanted, rtol=1e-10, atol=1e-16)


def test_a_probe_is_signs_alone_each_as_likely() -> None:
    like = {"a": torch.zeros(37, 3), "b": torch.zeros(5, dtype=torch.float32)}
    draw = hutchinson.signs(np.random.default_rng(0), like)
    first, second = draw(), draw()
    for one in (first, second):
        assert {name: (v.shape, v.dtype) for name, v in one.items()} == {n: (v.shape, v.dtype) for n, v in like.items()}
        assert set(flat(one)) == {-1.0, 1.0}
    assert not np.array_equal(flat(first), flat(second))
    drawn = np.array([flat(draw()) for _ in range(2000)])
    assert abs(drawn.mean(0)).max() < 0.1  # 4.5 standard deviations
    assert abs(np.triu(drawn.T @ drawn / 2000, 1)).max() < 0.13  # of all 6,670 pairs


def test_the_seed_draws_the_probes() -> None:
    context = context_of(smooth())
    first, again, other = (
        flat(dict(hutchinson.make_scorer(replace(context, seed=seed))(None).values)) for seed in (7, 7, 8)
    )
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_a_round_has_the_probes_of_the_one_before() -> None:
    score = hutchinson.make_scorer(context_of(smooth()))
    assert np.array_equal(flat(dict(score(None).values)), flat(dict(score(None).values)))


def test_it_does_not_depend_on_how_samples_are_batched() -> None:
    context = context_of(smooth())
    x, y = (torch.cat(some) for some in zip(*context.batches, strict=True))
    first, whole = (hutchinson.make_scorer(one)(None).values for one in (context, replace(context, batches=((x, y),))))
    np.testing.assert_allclose(flat(dict(first)), flat(dict(whole)), rtol=1e-12)


def test_masked_weights_have_no_score_and_the_others_that_of_what_is_left() -> None:
    masks = {"0.weight": np.array([[1, 0], [1, 1]], bool), "3.weight": np.array([[1, 1], [0, 1]], bool)}
    found = hutchinson.make_scorer(context_of(smooth()))(masks).values
    masked = smooth()
    with torch.no_grad():
        for name, mask in masks.items():
            masked.parameter(name).mul_(torch.from_numpy(mask))
    wanted = hutchinson.make_scorer(context_of(masked))(None).values
    for name, mask in masks.items():
        assert torch.equal(found[name], wanted[name])
        assert np.array_equal(found[name].numpy() != 0, mask)


# ---- what it is asked for


class Norms(nn.Module):
    """A batch norm, and attention, whose fused kernels have no second derivative."""

    def __init__(self, running: bool = True) -> None:
        super().__init__()
        self.query, self.norm = nn.Linear(8, 8), nn.BatchNorm1d(8, track_running_stats=running)
        self.head = nn.Linear(8, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.query(x.flatten(2).transpose(1, 2))
        x = nn.functional.scaled_dot_product_attention(x[:, None], x[:, None], x[:, None])[:, 0]
        return self.head(self.norm(x.mean(1)))


def norms(**options: Any) -> Network:
    torch.manual_seed(0)
    return wrap(Norms(**options), (8, 3, 3))


def test_batch_norms_are_by_running_statistics_unless_asked_otherwise() -> None:
    usual = run(norms(), "hutchinson", 0.3)
    assert same(usual, run(norms(), "hutchinson", 0.3, batch_norm="running"))
    assert not same(usual, run(norms(), "hutchinson", 0.3, batch_norm="batch"))


def test_batch_norms_without_running_statistics_are_scored_by_their_batch() -> None:
    with pytest.raises(MethodOptionError) as caught:
        run(norms(running=False), "hutchinson", 0.3)
    assert str(caught.value) == "batch_norm=running: norm keeps no running statistics; give batch_norm=batch"
    assert run(norms(running=False), "hutchinson", 0.3, batch_norm="batch").kept == 29  # of 96, rounded


def test_without_samples() -> None:
    context = context_of(smooth())
    with pytest.raises(ScoreError, match=r"^hutchinson: has no samples to score with; give data=$"):
        hutchinson.make_scorer(replace(context, batches=()))


def test_a_loss_that_is_not_finite() -> None:
    network = smooth(norm=False)
    with torch.no_grad():
        network.parameter("0.weight").fill_(1e308)
    with pytest.raises(ScoreError, match=r"^hutchinson: the loss on the samples is not finite"):
        hutchinson.make_scorer(context_of(network))(None)


def test_other_probes_with_the_same_samples_are_other_masks(monkeypatch: pytest.MonkeyPatch) -> None:
    network = norms()
    request = PruneRequest(get("hutchinson"), 0.3, per_class=PER_CLASS["hutchinson"])
    first = choose_masks(network, request, dataset=toy_for(network))[0]
    monkeypatch.setattr(hutchinson, "PROBES", 11)
    other = choose_masks(network, request, dataset=toy_for(network))[0]
    assert any((first[name] != other[name]).any() for name in first)


@pytest.mark.parametrize(("batch_norm", "parts"), [("running", 5), ("batch", 2)])
def test_how_far_it_is_is_told(batch_norm: BatchNorm, parts: int) -> None:
    told: list[tuple[int, int, str]] = []
    context = replace(context_of(smooth(), batch_norm), progress=lambda *said: told.append(said))
    hutchinson.make_scorer(context)(None)
    assert told == [(done, parts, "probing the loss") for done in range(parts)]


def test_a_run_hands_its_progress_on() -> None:
    told: list[tuple[int, int, str]] = []
    network = smooth()
    request = PruneRequest(get("hutchinson"), 0.5, per_class=3)
    choose_masks(network, request, lambda *said: told.append(said), toy_for(network))
    assert told == [*((done, 6, "probing the loss") for done in range(6)), (1, 1, "scoring weights")]
