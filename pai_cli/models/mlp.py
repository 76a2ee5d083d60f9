"""Multi-layer perceptrons of any sizes, LeNet-300-100 among them, under any parameter names."""

from __future__ import annotations

import itertools
import re
from collections import Counter
from collections.abc import Sequence
from functools import partial

import torch
from torch import nn

from pai_cli.files.ordering import natural_order
from pai_cli.models.base import Architecture, Shapes, add_at

_WORDS = """
affine block blocks classifier dense fc feature features ff ffn hidden l layer layers lin linear linears main mlp model
module modules net network relu seq sequential stack
"""
MIDDLE = frozenset(_WORDS.split())
FIRST, LAST = frozenset(["first", "in", "input"]), frozenset(["final", "head", "last", "logits", "out", "output"])
"""Words in names of layers that are applied one after the other; those of the last two stand for one layer alone.

Shapes that chain say nothing: queries, keys and values have them, two heads on one trunk, and what a recurrent cell holds.
"""

NAMES = ("lenet-300-100", "mlp-A-B-...-Z")
IMAGES = {784: (1, 28, 28), 1024: (1, 32, 32), 3072: (3, 32, 32)}
"""Input sizes that are flattened images of the usual data sets."""

SEARCH_STEPS = 2_000
"""How many beginnings of a chain are tried; some sets of shapes have more than can ever be."""


_ATTRIBUTES = frozenset([*dir(nn.Linear), *vars(nn.Module()), "weight", "bias", "in_features", "out_features"])
"""What a module has of its own: no layer in it can have such a name."""


class MLP(nn.Module):
    """Linear layers with ReLU between them, the input flattened. Input (batch, ...) -> (batch, last size).

    `layers` names them in the order they are applied (`fc1`, `net.0`); `sizes` has one entry more; `biases`
    says which of them have one.
    """

    def __init__(self, layers: Sequence[str], sizes: Sequence[int], biases: Sequence[bool]):
        super().__init__()
        self._order = tuple(layers)
        for i, (name, bias) in enumerate(zip(layers, biases, strict=True)):
            add_at(self, name, nn.Linear(sizes[i], sizes[i + 1], bias=bias))
        self._relus = nn.ModuleList(nn.ReLU() for _ in layers[1:])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(batch, ...) -> (batch, last size)."""
        x = torch.flatten(x, 1)
        for i, name in enumerate(self._order):
            x = self.get_submodule(name)(self._relus[i - 1](x) if i else x)
        return x


def named(name: str, classes: int) -> Architecture | None:
    """The MLP called `name` (`lenet-300-100`, `mlp-784-256-10`), or None when it is none of this family's.

    In `mlp-...` the last size is the class count, whatever `classes` says.
    """
    sizes = (784, 300, 100, classes) if name == "lenet-300-100" else _named_sizes(name)
    if not sizes:
        return None
    layers = [f"fc{i}" for i in range(1, len(sizes))]
    return _architecture(layers, sizes, [True] * len(layers))


def _named_sizes(name: str) -> tuple[int, ...]:
    match = re.fullmatch(r"mlp((?:-[1-9]\d{0,17}){2,})", name)
    return tuple(int(size) for size in match[1].split("-")[1:]) if match else ()


def guess(shapes: Shapes) -> Architecture | None:
    """The MLP that `shapes` make up: 2-d weights that chain and whose names say so, each with a bias or none."""
    weights = {name.removesuffix(".weight"): shape for name, shape in shapes.items() if len(shape) == 2}
    rest = {name for name, shape in shapes.items() if len(shape) != 2}
    if not weights or any(f"{layer}.weight" not in shapes or not _buildable(layer, weights) for layer in weights):
        return None
    if rest - {f"{layer}.bias" for layer in weights}:
        return None
    order = _order(weights)
    if order is None or not _say_chain(order):
        return None
    sizes = (weights[order[0]][1], *(weights[layer][0] for layer in order))
    return _architecture(order, sizes, [f"{layer}.bias" in rest for layer in order])


def _say_chain(order: Sequence[str]) -> bool:
    """Whether the names are those of layers in a row: numbers, as `nn.Sequential` gives, and words for it."""
    ends: Counter[str] = Counter()
    for position, layer in enumerate(order):
        words = {word for word in re.split(r"[._]|[0-9]+", layer.lower()) if word}
        if not words <= MIDDLE | FIRST | LAST:
            return False
        ends["first"] += bool(words & FIRST)
        ends["last"] += bool(words & LAST)
        if (words & FIRST and position) or (words & LAST and position < len(order) - 1):
            return False
    return max(ends.values()) <= 1


def _buildable(layer: str, layers: Shapes) -> bool:
    """Whether a module can have this name: no part is an attribute of modules, no layer inside another."""
    parts = layer.split(".")
    outer = {".".join(parts[:i]) for i in range(1, len(parts))}
    taken = any(not part or part.startswith("_") or part in _ATTRIBUTES for part in parts)
    return not taken and not outer & set(layers)


def _order(weights: Shapes) -> list[str] | None:
    """The order in which the layers are applied, or None when there is none, or no telling which.

    Numbered layers (`net.0`, `net.2`, `net.10`) go by their numbers, others by their order in the file unless
    it is the alphabet's, which safetensors imposes and tells nothing. Failing both, the shapes must leave one
    way only.
    """
    in_file = list(weights)
    by_number = sorted(in_file, key=natural_order)
    numbered = len({re.sub(r"\d+", "#", layer) for layer in in_file}) == 1
    if numbered and _chains(by_number, weights):
        return by_number
    if in_file != sorted(in_file) and _chains(in_file, weights):
        return in_file
    return _only_chain(by_number, weights)


def _chains(order: Sequence[str], weights: Shapes) -> bool:
    return all(weights[a][0] == weights[b][1] for a, b in itertools.pairwise(order))


def _only_chain(layers: Sequence[str], weights: Shapes) -> list[str] | None:
    """The one order in which the shapes chain; None when there is none, or several, or too much to try."""
    if len(set(weights.values())) < len(weights):
        return None  # two of one shape could change places
    surplus: Counter[int] = Counter()
    for outputs, inputs in weights.values():
        surplus[inputs] += 1
        surplus[outputs] -= 1
    # As for Euler's bridges: every size is entered as often as left, but for the first and the last. Where all are,
    # the chain is a ring, which can begin anywhere.
    if sorted(count for count in surplus.values() if count) != [-1, 1]:
        return None
    found: list[list[str]] = []
    begun = [[layer] for layer in layers if surplus[weights[layer][1]] == 1]
    for _ in range(SEARCH_STEPS):
        if not begun or len(found) > 1:
            return found[0] if len(found) == 1 else None
        path = begun.pop()
        if len(path) == len(layers):
            found.append(path)
        used, size = set(path), weights[path[-1]][0]
        begun += [[*path, layer] for layer in layers if weights[layer][1] == size and layer not in used]
    return None


def _architecture(layers: Sequence[str], sizes: Sequence[int], biases: Sequence[bool]) -> Architecture:
    known = tuple(sizes[:3]) == (784, 300, 100) and len(sizes) == 4
    text = "-".join(map(str, sizes))
    free = "" if all(biases) else "without biases, " if not any(biases) else "biases in part, "
    title = "LeNet-300-100 (" if known else f"MLP {text} ("
    return Architecture(
        name="lenet-300-100" if known else f"mlp-{text}",
        description=f"{title}{free}{sizes[-1]} classes)",
        input_shape=IMAGES.get(sizes[0], (sizes[0],)),
        build=partial(MLP, tuple(layers), tuple(sizes), tuple(biases)),
        classes=sizes[-1],
    )
