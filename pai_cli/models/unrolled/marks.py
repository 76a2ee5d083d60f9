"""Which kept weights lie on a path: marks, 0 or 1, sent through an unrolled network from both ends."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from pai_cli.models.layers import PrunableLayer
from pai_cli.models.unrolled.steps import Use
from pai_cli.models.unrolled.tape import Tape

Masks = Mapping[str, NDArray[np.bool_]]


@dataclass(frozen=True, eq=False)
class Reached:
    """Of one layer, what paths of kept weights come to.

    `effective`: of the weight's shape, which kept weights are on a path from input to output. By units, each 1-D: `inputs`,
    whether a path from the network's input comes to it; `outputs`, whether a path from it leads to the network's output;
    `nodes`, whether an output is on a path from one to the other.
    """

    effective: NDArray[np.bool_]
    inputs: NDArray[np.bool_]
    outputs: NDArray[np.bool_]
    nodes: NDArray[np.bool_]


class _Mark(torch.autograd.Function):
    """1 for what is above a half, both ways: what is added up are ones, so that no rounding makes a path or loses one."""

    @staticmethod
    def forward(_context: Any, value: torch.Tensor) -> torch.Tensor:
        return (value > 0.5).to(value.dtype)

    @staticmethod
    def backward(_context: Any, *gradients: torch.Tensor) -> torch.Tensor:
        return (gradients[0] > 0.5).to(gradients[0].dtype)


def _marked(value: torch.Tensor) -> torch.Tensor:
    marked: torch.Tensor = _Mark.apply(value)  # type: ignore[no-untyped-call]
    return marked


def reached(tape: Tape, masks: Masks) -> dict[str, Reached]:
    """Of every layer that the network uses, what paths come to. `masks`: of layers by name; others are whole.

    Marks go forwards from the input through kept weights, and backwards from the output. A weight is on a path where the
    element it reads was reached and the one it writes leads on, at one of its positions at least.
    """
    weights = {name: _ones(layer, masks).requires_grad_() for name, layer in tape.layers.items()}
    with torch.enable_grad():
        passed = _forwards(tape, weights)
        total = sum((value.sum() for value in passed.returned), torch.zeros(()))
    targets = [*weights.values(), *passed.written]
    found: tuple[torch.Tensor | None, ...] = (None,) * len(targets)
    if total.requires_grad:
        found = torch.autograd.grad(total, targets, allow_unused=True)
    gradients = [torch.zeros_like(one) if got is None else got for one, got in zip(targets, found, strict=True)]
    alive = gradients[len(weights) :]
    layers: dict[str, Reached] = {}
    for (name, weight), gradient in zip(weights.items(), gradients, strict=False):
        mine = [number for number, use in enumerate(tape.uses) if use.layer.name == name]
        effective = (gradient > 0.5) & (weight > 0.5)
        layers[name] = Reached(
            effective.detach().numpy(),
            _either([_units(passed.read[number], tape.uses[number]) for number in mine]),
            _either([_units(alive[number], tape.uses[number]) for number in mine]),
            _either([_units(passed.written[number] * (alive[number] > 0.5), tape.uses[number]) for number in mine]),
        )
    return layers


@dataclass
class _Passed:
    """What the uses of layers read and wrote, and what was returned."""

    read: list[torch.Tensor]
    written: list[torch.Tensor]
    returned: list[torch.Tensor]


def _forwards(tape: Tape, weights: Mapping[str, torch.Tensor]) -> _Passed:
    passed = _Passed([], [], [])
    values: dict[int, torch.Tensor] = {0: torch.ones(tape.shapes[0])}
    for number, step in enumerate(tape.steps):
        given = [values[one] for one in step.inputs]
        if isinstance(step, Use):
            read = _marked(given[0])
            found = [_marked(step.multiply(read, weights[step.layer.name]))]
            passed.read.append(read.detach())
            passed.written += found
        else:
            found = step.apply(given)
        for one, value in zip(step.outputs, found, strict=True):
            if tuple(value.shape) != tape.shapes[one]:
                raise RuntimeError(
                    f"a step gives {tuple(value.shape)} where the network has {tape.shapes[one]}: {step}"
                )
            values[one] = value
        for over in tape.over_after.get(number, ()):
            del values[over]
    passed.returned = [values[one] for one in tape.outputs]
    return passed


def _ones(layer: PrunableLayer, masks: Masks) -> torch.Tensor:
    mask = masks.get(layer.name)
    return torch.ones(layer.shape) if mask is None else torch.from_numpy(mask.astype(np.float32))


def _units(value: torch.Tensor, use: Use) -> torch.Tensor:
    """Whether there is anything at any place of each unit."""
    return (value.detach().movedim(use.axis, 0).flatten(1) > 0.5).any(1)


def _either(several: list[torch.Tensor]) -> NDArray[np.bool_]:
    found: NDArray[np.bool_] = torch.stack(several).any(0).numpy()
    return found
