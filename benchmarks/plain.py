"""The same scores as a person writes them with `torch.nn.utils.prune`: rivals of `benchmarks/methods.py`.

Each takes a fresh network, the number of weights to keep, batches and rounds, prunes the network and leaves the masks in it
(`weight_mask`). Everything is plain PyTorch: `global_unstructured` with importance scores, `random_unstructured` a layer.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn import functional
from torch.nn.utils import prune

Batches = Sequence[tuple[torch.Tensor, torch.Tensor]]
Place = tuple[Any, str]  # a module, whose weight its type does not tell, and the weight's name
Scores = dict[Place, torch.Tensor]


@dataclass(frozen=True)
class Task:
    """What is asked of a rival: the fraction to keep, samples, rounds, the shape of one input."""

    density: float
    batches: Batches
    rounds: int
    input_shape: tuple[int, ...]


def places_of(model: nn.Module) -> list[Place]:
    """Every convolution's and linear layer's weight."""
    return [(module, "weight") for module in model.modules() if isinstance(module, (nn.Conv2d, nn.Linear))]


def random(model: nn.Module, task: Task) -> None:
    """At random over the network."""
    places = places_of(model)
    prune.global_unstructured(places, prune.RandomUnstructured, amount=_to_remove(places, task.density))


def uniform(model: nn.Module, task: Task) -> None:
    """At random, the same density in every layer."""
    for module, name in places_of(model):
        prune.random_unstructured(module, name, amount=1 - task.density)  # type: ignore[no-untyped-call]


def erk(model: nn.Module, task: Task) -> None:
    """At random, densities as Evci et al. have them."""
    places = places_of(model)
    raw = {place: sum(place[0].weight.shape) / place[0].weight.numel() for place in places}
    sizes = {place: place[0].weight.numel() for place in places}
    dense: set[Place] = set()
    while True:
        budget = task.density * sum(sizes.values()) - sum(sizes[place] for place in dense)
        factor = budget / sum(raw[place] * sizes[place] for place in places if place not in dense)
        over = {place for place in places if place not in dense and raw[place] * factor > 1}
        if not over:
            break
        dense |= over
    _at_random(places, {place: 1.0 if place in dense else raw[place] * factor for place in places})


def smart_ratio(model: nn.Module, task: Task) -> None:
    """At random, densities that fall with depth, the classifier's 0.3 (Su et al.); no layer here passes 1."""
    places = places_of(model)
    sizes = [place[0].weight.numel() for place in places]
    terms = [(k + 1) ** 2 + (k + 1) for k in range(len(places) - 1, 0, -1)]
    budget = task.density * sum(sizes) - 0.3 * sizes[-1]
    factor = budget / sum(term * size for term, size in zip(terms, sizes[:-1], strict=True))
    densities = [min(1.0, factor * term) for term in terms] + [0.3]
    _at_random(places, dict(zip(places, densities, strict=True)))


def magnitude(model: nn.Module, task: Task) -> None:
    """The largest |w| over the network."""
    places = places_of(model)
    prune.global_unstructured(places, prune.L1Unstructured, amount=_to_remove(places, task.density))


def snip(model: nn.Module, task: Task) -> None:
    """|w g| over the network, batch norms as in training; in as many rounds as asked for."""
    model.train()
    _in_rounds(model, task, lambda: _saliency(model, task.batches))


def grasp(model: nn.Module, task: Task) -> None:
    """W (H g), logits divided by 200; shifted to be positive, since global pruning takes absolute values."""
    model.train()
    places = places_of(model)
    weights = [module.weight for module, _ in places]
    total = sum(len(labels) for _, labels in task.batches)
    gradients = [torch.zeros_like(weight) for weight in weights]
    products = [torch.zeros_like(weight) for weight in weights]
    for inputs, labels in task.batches:
        loss = functional.cross_entropy(model(inputs) / 200, labels) * len(labels) / total
        _add(gradients, torch.autograd.grad(loss, weights))
    for inputs, labels in task.batches:
        loss = functional.cross_entropy(model(inputs) / 200, labels) * len(labels) / total
        first = torch.autograd.grad(loss, weights, create_graph=True)
        dot = torch.stack([(a * b).sum() for a, b in zip(first, gradients, strict=True)]).sum()
        _add(products, torch.autograd.grad(dot, weights))
    scores = [weight.detach() * h for weight, h in zip(weights, products, strict=True)]
    lowest = min(float(score.min()) for score in scores)
    shifted = {place: score - lowest for place, score in zip(places, scores, strict=True)}
    amount = _to_remove(places, task.density)
    prune.global_unstructured(places, prune.L1Unstructured, importance_scores=shifted, amount=amount)


def synflow(model: nn.Module, task: Task) -> None:
    """|w dR/dw| in rounds, every parameter and buffer by its absolute value, in float64."""
    model.double().eval()
    with torch.no_grad():
        for tensor in model.state_dict().values():
            if tensor.is_floating_point():
                tensor.abs_()
    ones = torch.ones((1, *task.input_shape), dtype=torch.float64)

    def scores() -> Scores:
        model.zero_grad()
        model(ones).sum().backward()
        return _products(model)

    _in_rounds(model, task, scores)


def two_of_four(model: nn.Module, task: Task) -> None:
    """The two largest |w| of every four inputs; layers that four does not divide stay whole."""
    del task
    for module, name in places_of(model):
        weight = module.weight.detach()
        if weight.shape[1] % 4:
            continue
        groups = weight.movedim(1, -1).reshape(-1, 4)
        mask = torch.zeros_like(groups).scatter_(1, groups.abs().topk(2, dim=1).indices, 1.0)
        shape = (weight.shape[0], *weight.shape[2:], weight.shape[1])
        prune.custom_from_mask(module, name, mask.reshape(shape).movedim(-1, 1))  # type: ignore[no-untyped-call]


PLAIN: dict[str, Callable[[nn.Module, Task], None]] = {
    "random": random,
    "uniform": uniform,
    "erk": erk,
    "smart-ratio": smart_ratio,
    "magnitude": magnitude,
    "magnitude 2:4": two_of_four,
    "snip": snip,
    "grasp": grasp,
    "synflow": synflow,
    "iter-snip": snip,
}


def _add(total: list[torch.Tensor], part: Sequence[torch.Tensor]) -> None:
    for tensor, more in zip(total, part, strict=True):
        tensor += more  # noqa: PLW2901  in place


def _to_remove(places: Iterable[Place], density: float) -> int:
    total: int = sum(module.weight.numel() for module, _ in places)
    return total - math.floor(density * total + 0.5)


def _at_random(places: list[Place], densities: dict[Place, float]) -> None:
    for module, name in places:
        prune.random_unstructured(module, name, amount=1 - densities[module, name])  # type: ignore[no-untyped-call]


def _in_rounds(model: nn.Module, task: Task, scores: Callable[[], Scores]) -> None:
    places = places_of(model)
    total = left = sum(module.weight.numel() for module, _ in places)
    for k in range(1, task.rounds + 1):
        kept = math.floor(task.density ** (k / task.rounds) * total + 0.5)
        prune.global_unstructured(places, prune.L1Unstructured, importance_scores=scores(), amount=left - kept)
        left = kept


def _saliency(model: nn.Module, batches: Batches) -> Scores:
    model.zero_grad()
    total = sum(len(labels) for _, labels in batches)
    for inputs, labels in batches:
        (functional.cross_entropy(model(inputs), labels) * len(labels) / total).backward()  # type: ignore[no-untyped-call]
    return _products(model)


def _products(model: nn.Module) -> Scores:
    found: Scores = {}
    for module, name in places_of(model):
        weight = getattr(module, f"{name}_orig", module.weight)
        found[module, name] = (weight.detach() * weight.grad).abs()
    return found
