"""SNIP and GraSP against finite differences and against torch's own Hessian, in float64; and how they fail."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from networks import Returns, build, run, same, toy_for, uncopyable, wrap
from standin import Toy
from torch import nn

from pai_cli.errors import MethodOptionError, PaiError, ScoreError
from pai_cli.methods import grasp, registry, snip
from pai_cli.methods.registry import get
from pai_cli.methods.supervised import Supervised
from pai_cli.models.network import Network
from pai_cli.pruning import samples
from pai_cli.pruning.base import ScoreContext
from pai_cli.pruning.run import PruneRequest, prune

Tensors = dict[str, torch.Tensor]


def smooth(norm: bool = True) -> Network:
    """Convolution, batch norm, shortcut and linear layers, no kink anywhere, in float64."""
    torch.manual_seed(0)

    class Smooth(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(2, 3, 3, padding=1)
            self.norm = nn.BatchNorm2d(3) if norm else nn.Identity()
            self.skip = nn.Conv2d(2, 3, 1, bias=False)
            self.drop = nn.Dropout(0.5)
            self.fc = nn.Linear(3 * 9, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = nn.functional.softplus(self.norm(self.conv(x)) + self.skip(x))
            return self.fc(self.drop(x).flatten(1))

    return wrap(Smooth().double(), (2, 3, 3))


def context_of(network: Network, *, sizes: tuple[int, ...] = (5, 7), method: str = "snip") -> ScoreContext:
    """Batches of unequal sizes, so that their weights in the mean show."""
    rng = np.random.default_rng(0)
    batches = tuple(
        (
            torch.from_numpy(rng.standard_normal((n, *network.input_shape))).float(),  # type: ignore[misc]
            torch.from_numpy(rng.integers(0, network.layers[-1].shape[0], n)),
        )
        for n in sizes
    )
    return ScoreContext(network, network.layers, network.input_shape, "cpu", 0, batches, method)


def loss_of(network: Network, context: ScoreContext, weights: Tensors, temperature: float = 1.0) -> torch.Tensor:
    """The mean loss over all samples, written out apart from the package: batch statistics, no dropout."""
    model = network.model.eval()
    for module in model.modules():
        module.training = isinstance(module, nn.BatchNorm2d)
    total, count = torch.zeros((), dtype=torch.float64), 0
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()} | weights
    for inputs, labels in context.batches:
        logits = torch.func.functional_call(model, state, inputs.double()) / temperature
        total = total - logits.log_softmax(1)[torch.arange(len(labels)), labels].sum()
        count += len(labels)
    model.eval()
    return total / count


def weights_of(network: Network) -> Tensors:
    return {layer.name: network.parameter(layer.name).detach().clone() for layer in network.layers}


def nudged(weights: Tensors, name: str, index: tuple[int, ...], factor: float) -> Tensors:
    weight = weights[name].clone()
    weight[index] *= factor
    return weights | {name: weight}


def some_of(values: torch.Tensor) -> list[tuple[int, ...]]:
    """The places of every third weight, so that differences take a third of the time."""
    return list(np.ndindex(*values.shape))[::3]


@pytest.mark.parametrize("norm", [True, False])
def test_snip_is_the_loss_s_slope_by_a_gate_on_the_weight(norm: bool) -> None:
    network = smooth(norm)
    context = context_of(network)
    scores, weights, step = snip.make_scorer(context)(None).values, weights_of(network), 1e-5
    for name, of_layer in scores.items():
        assert of_layer.dtype == torch.float64
        for index in some_of(of_layer):
            up, down = (loss_of(network, context, nudged(weights, name, index, 1 + h)) for h in (step, -step))
            slope = (up - down).item() / (2 * step)
            assert of_layer[index].item() == pytest.approx(abs(slope), rel=1e-6, abs=1e-10)


def test_snip_is_w_times_g() -> None:
    network = smooth()
    context = context_of(network)
    weights = {name: weight.requires_grad_() for name, weight in weights_of(network).items()}
    gradients = torch.autograd.grad(loss_of(network, context, weights), list(weights.values()))
    scores = snip.make_scorer(context)(None).values
    for (name, weight), gradient in zip(weights.items(), gradients, strict=True):
        assert torch.allclose(scores[name], (weight * gradient).abs(), rtol=1e-12, atol=1e-16)


def flow_of(network: Network, context: ScoreContext, weights: Tensors) -> float:
    """Half of |g|^2, g by all prunable weights, of the loss at temperature 200."""
    leaves = {name: weight.clone().requires_grad_() for name, weight in weights.items()}
    gradients = torch.autograd.grad(loss_of(network, context, leaves, 200.0), list(leaves.values()))
    return sum(float((gradient**2).sum()) for gradient in gradients) / 2


def test_grasp_is_the_gradient_flow_s_slope_by_a_gate_on_the_weight() -> None:
    """Its sign too: positive where a smaller weight lets less gradient flow, so that the largest are to be kept."""
    network = smooth()
    context = context_of(network, method="grasp")
    scores, weights, step = grasp.make_scorer(context)(None).values, weights_of(network), 1e-4
    largest = max(float(values.abs().max()) for values in scores.values())
    for name, of_layer in scores.items():
        for index in some_of(of_layer):
            up, down = (flow_of(network, context, nudged(weights, name, index, 1 + h)) for h in (step, -step))
            assert of_layer[index].item() == pytest.approx((up - down) / (2 * step), rel=1e-5, abs=1e-7 * largest)
    assert any((values > 0).any() and (values < 0).any() for values in scores.values())


def test_grasp_keeps_what_the_flow_would_miss_most() -> None:
    """The paper removes the largest of -w * (H g); the weights kept here are the others."""
    network = smooth()
    context = context_of(network, method="grasp")
    weights = {name: weight.requires_grad_() for name, weight in weights_of(network).items()}
    loss = loss_of(network, context, weights, grasp.TEMPERATURE)
    first = torch.autograd.grad(loss, list(weights.values()), create_graph=True)
    product = sum((g * g.detach()).sum() for g in first)
    papers = [
        -w * hg for w, hg in zip(weights.values(), torch.autograd.grad(product, list(weights.values())), strict=True)
    ]
    flat = torch.cat([score.detach().flatten() for score in papers])
    keep = int(0.4 * len(flat) + 0.5)
    wanted = torch.ones(len(flat), dtype=torch.bool)
    wanted[flat.topk(len(flat) - keep).indices] = False
    result = prune_with(network, context, "grasp", 0.4)
    assert np.concatenate([mask.ravel() for mask in result.values()]).tolist() == wanted.tolist()


def prune_with(network: Network, context: ScoreContext, method: str, density: float) -> dict[str, np.ndarray]:
    """The masks of a method scoring with the context's batches."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(samples, "draw", lambda *_: context.batches)
        return prune(network, PruneRequest(get(method), density), dataset=toy_for(network)).masks


def test_the_hessian_vector_product_is_the_hessian_s() -> None:
    network = smooth()
    context = context_of(network)
    names = [layer.name for layer in network.layers]
    weights = weights_of(network)
    sizes = [weights[name].numel() for name in names]

    def by_vector(vector: torch.Tensor) -> torch.Tensor:
        pieces = zip(names, vector.split(sizes), strict=True)
        return loss_of(network, context, {name: piece.view_as(weights[name]) for name, piece in pieces})

    point = torch.cat([weights[name].flatten() for name in names])
    hessian = torch.autograd.functional.hessian(by_vector, point)
    vector = torch.from_numpy(np.random.default_rng(1).standard_normal(len(point)))
    vectors = {name: v.view_as(weights[name]) for name, v in zip(names, vector.split(sizes), strict=True)}
    loss = Supervised(context, tuple(names))
    found = torch.cat([product.flatten() for product in loss.hessian_times(vectors).values()])
    assert torch.allclose(found, hessian @ vector, rtol=1e-9, atol=1e-12)
    step = 1e-5

    def gradient_at(moved: torch.Tensor) -> torch.Tensor:
        moved = moved.clone().requires_grad_()
        return torch.autograd.grad(by_vector(moved), moved)[0]

    difference = (gradient_at(point + step * vector) - gradient_at(point - step * vector)) / (2 * step)
    assert torch.allclose(found, difference, rtol=1e-5, atol=1e-8)


def test_a_shared_weight_s_score_has_the_gradient_of_all_its_uses() -> None:
    network = build("tied")
    network.model.double()
    context = context_of(network)
    apart = build("tied")
    apart.model.double()
    apart.model.decode.weight = nn.Parameter(apart.model.encode.weight.detach().clone())
    apart = wrap(apart.model, (12,))
    separate = Supervised(replace(context, network=apart), ("encode.weight", "decode.weight")).gradient()
    score = snip.make_scorer(context)(None).values["encode.weight"]
    whole = separate["encode.weight"] + separate["decode.weight"]
    assert torch.allclose(score, (network.parameter("encode.weight") * whole).abs(), rtol=1e-12, atol=0)


def test_a_score_is_that_of_the_masked_network() -> None:
    network = build("residual")
    context = context_of(network)
    rng = np.random.default_rng(0)
    masks = {layer.name: rng.random(layer.shape) < 0.5 for layer in network.layers}
    for make in (snip.make_scorer, grasp.make_scorer):
        scores = make(context)(masks).values
        for layer in network.layers:
            assert not scores[layer.name].numpy()[~masks[layer.name]].any()
        masked = build("residual")
        with torch.no_grad():
            for name, mask in masks.items():
                masked.parameter(name).mul_(torch.from_numpy(mask))
        expected = make(replace(context, network=masked))(None).values
        assert all(torch.equal(scores[name], expected[name]) for name in masks)


def test_running_statistics_do_not_matter_and_stay() -> None:
    first = run(build("convolutions"), "snip", 0.3)
    network = build("convolutions")
    with torch.no_grad():
        network.model[3].running_mean.fill_(7.0)
        network.model[3].running_var.fill_(0.01)
    assert same(first, run(network, "snip", 0.3))
    assert (network.model[3].running_mean == 7.0).all()
    assert network.model[3].num_batches_tracked == 0


def test_the_order_of_scores_in_memory_and_layers_left_out_do_not_matter() -> None:
    """GraSP's flow is that of the whole network, so leaving a layer whole changes no other layer's score."""
    network = build("residual")
    context = context_of(network, method="grasp")
    whole = grasp.make_scorer(context)(None).values
    part = grasp.make_scorer(replace(context, layers=context.layers[:2]))(None).values
    assert list(part) == ["stem.weight", "body.weight"]
    assert all(torch.equal(part[name], whole[name]) for name in part)


class Noisy(nn.Module):
    """Random whatever the mode, and attention, whose fused kernels have no second derivative."""

    def __init__(self) -> None:
        super().__init__()
        self.query, self.head = nn.Linear(8, 8), nn.Linear(8, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.query(x.flatten(2).transpose(1, 2))
        x = nn.functional.scaled_dot_product_attention(x[:, None], x[:, None], x[:, None])[:, 0]
        return self.head(nn.functional.dropout(x.mean(1), 0.2))


@pytest.mark.parametrize("method", ["snip", "iter-snip", "grasp", "hutchinson", "prospr"])
def test_a_network_that_draws_in_its_pass_is_repeatable(method: str) -> None:
    torch.manual_seed(0)
    network = wrap(Noisy(), (8, 3, 3))
    state = torch.get_rng_state()
    first = run(network, method, 0.3)
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(77)
    assert same(first, run(network, method, 0.3))


# ---- samples


def test_samples_are_mixed_batches_fixed_by_the_seed() -> None:
    network = build("residual")
    dataset = Toy(10, (3, 6, 6), per_class=40)
    request = PruneRequest(get("snip"), 0.1, per_class=30, seed=3)
    batches = samples.draw(dataset, request, network)
    assert [len(labels) for _, labels in batches] == [100, 100, 100]
    for inputs, labels in batches:
        assert (inputs.dtype, labels.dtype, inputs.shape[1:]) == (torch.float32, torch.int64, (3, 6, 6))
        assert len(labels.unique()) == 10
    assert torch.cat([labels for _, labels in batches]).bincount().tolist() == [30] * 10
    again = samples.draw(dataset, request, network)
    assert all(
        torch.equal(a, b) for one, other in zip(batches, again, strict=True) for a, b in zip(one, other, strict=True)
    )
    other = samples.draw(dataset, replace(request, seed=4), network)
    assert not torch.equal(batches[0][0], other[0][0])


def test_large_inputs_come_in_smaller_batches() -> None:
    network = wrap(nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 2)), (3, 128, 128))
    batches = samples.draw(Toy(2, (3, 128, 128), per_class=40), PruneRequest(get("snip"), 0.5, per_class=40), network)
    assert [len(labels) for _, labels in batches] == [27, 27, 26]


def test_what_a_mask_tells_of_its_samples() -> None:
    dataset = Toy(3, (6,))
    told = samples.story(dataset, PruneRequest(get("snip"), 0.1, per_class=2))
    assert (told["data"], told["per_class"]) == ("toy", "2")
    indices = [int(word) for word in told["samples"].strip("[]").split(",")]
    assert indices == sorted(set(indices))
    assert np.bincount(dataset.labels[indices]).tolist() == [2, 2, 2]
    assert samples.story(None, PruneRequest(get("erk"), 0.1)) == {}


@pytest.mark.parametrize("method", ["snip", "grasp"])
def test_more_samples_are_other_masks(method: str) -> None:
    network = build("residual")
    few, usual, ten = (run(network, method, 0.3, per_class=k) for k in (2, None, 10))
    assert not same(few, usual)
    assert same(usual, ten)


# ---- failures, as a person reads them


NEEDED = "and logits of shape (5, classes) are needed; give a model= factory whose network returns the logits alone"
FAILURES = [
    ("tuple", lambda: Returns(lambda y: (y, y)), ScoreError, f"snip: the network returns a tuple, {NEEDED}"),
    ("integers", lambda: Returns(lambda y: y.argmax(1)), ScoreError,
     f"snip: the network returns a tensor of torch.int64, {NEEDED}"),
    ("images", lambda: Returns(lambda y: y[:, :, None]), ScoreError,
     f"snip: the network returns shape (5, 3, 1), {NEEDED}"),
    ("few_outputs", lambda: Returns(lambda y: y[:, :2]), ScoreError,
     "snip: the samples have labels 0 to 2, and the network 2 outputs; give data= of as many classes"),
    ("detached", lambda: Returns(lambda y: y.detach()), ScoreError,
     "snip: the network's loss cannot be differentiated (RuntimeError: element 0 of tensors does not require grad and does "
     "not have a grad_fn)"),
    ("infinite", lambda: Returns(lambda y: y * float("inf")), ScoreError,
     "snip: the loss on the samples is not finite (weights or inputs too large); give another method=, such as erk"),
    ("fails", lambda: Returns(lambda y: y @ torch.ones(2, 2)), MethodOptionError,
     "snip: the network failed on a batch of shape 5,4 (RuntimeError: mat1 and mat2 shapes cannot be multiplied (5x3 and "
     "2x2)); give the shape of one input with input_shape=, or more samples with per_class="),
    ("uncopyable", uncopyable, ScoreError,
     "snip: the network cannot be copied (TypeError: cannot pickle 'generator' object); give another method="),
]  # fmt: skip


@pytest.mark.parametrize(("factory", "kind", "text"), [f[1:] for f in FAILURES], ids=[f[0] for f in FAILURES])
def test_a_network_it_cannot_score(factory: Callable[[], nn.Module], kind: type[PaiError], text: str) -> None:
    torch.manual_seed(0)
    network = wrap(factory(), (4,))
    context = context_of(network)
    batches = ((context.batches[0][0], torch.tensor([0, 1, 2, 1, 0])),)
    state = torch.get_rng_state()
    with pytest.raises(kind) as caught:
        snip.make_scorer(replace(context, batches=batches))(None)
    assert str(caught.value) == text
    assert torch.equal(torch.get_rng_state(), state)


def test_no_samples() -> None:
    network = build("mlp")
    with pytest.raises(ScoreError, match=r"^grasp: has no samples to score with; give data=$"):
        grasp.make_scorer(replace(context_of(network), batches=(), method="grasp"))


def test_one_value_a_channel_cannot_be_normalised() -> None:
    network = wrap(nn.Sequential(nn.Linear(6, 4), nn.BatchNorm1d(4), nn.Linear(4, 1)), (6,))
    with pytest.raises(MethodOptionError) as caught:
        prune(network, PruneRequest(get("snip"), 0.5, per_class=1), dataset=Toy(1, (6,)))
    text = str(caught.value)
    assert text.startswith("snip: the network failed on a batch of shape 1,6 (ValueError: Expected more than 1 value")
    assert text.endswith("; give the shape of one input with input_shape=, or more samples with per_class=")


def test_classes_that_the_network_cannot_tell_apart() -> None:
    with pytest.raises(PaiError, match=r"^toy: the network has 10 outputs, but toy has 7 classes"):
        prune(build("residual"), PruneRequest(get("snip"), 0.5), dataset=Toy(7, (3, 8, 8)))


def test_an_input_shape_that_is_not_the_network_s() -> None:
    network = build("convolutions")
    with pytest.raises(MethodOptionError) as caught:
        prune(network, PruneRequest(get("snip"), 0.5, input_shape=(3, 16, 16)), dataset=Toy(10, (3, 16, 16)))
    text = str(caught.value)
    assert text.startswith("snip: the network failed on a batch of shape 1,3,16,16 (RuntimeError: ")
    assert text.endswith("; give the shape of one input with input_shape=")


def test_the_methods_with_data_say_so_in_the_help() -> None:
    named = {name for name, method in registry.METHODS.items() if method.data and not method.trains}
    assert named == {"snip", "iter-snip", "force", "grasp", "fisher", "hutchinson", "px", "prospr"}
    assert all(("needs data" in method.summary) == method.data for method in registry.METHODS.values())
