"""Masks of a network in training: pruned weights are exactly 0 before, at and after every step."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from pai_cli.errors import MaskMismatchError
from pai_cli.files.messages import some_names
from pai_cli.pruning.base import Masks
from pai_cli.spelling import option


class MaskedWeights:
    """Keeps the pruned weights of a model at 0 while an optimizer moves the others.

    A pruned weight is set to 0 once; from then on its gradient is multiplied by 0 before each step, in place. That is
    enough: with weight 0 and gradient 0 weight decay adds 0, momentum and Adam's moments stay 0, and so does the step. So
    no step writes the weights again, or copies them, as `torch.nn.utils.prune` does. `tensors`: the masks on the model's
    device, in the weights' type, by name.
    """

    def __init__(self, model: nn.Module, masks: Masks):
        self.weights: dict[str, nn.Parameter] = {name: model.get_parameter(name) for name in masks}
        self.tensors: dict[str, torch.Tensor] = {}
        self.set(masks)

    def set(self, masks: Masks) -> None:
        """Take these masks from now on. Weights that become pruned are set to 0; those that grow are 0 already."""
        with torch.no_grad():
            for name, mask in masks.items():
                weight = self.weights[name]
                kept = torch.from_numpy(mask).to(weight.device)
                weight.masked_fill_(~kept, 0.0)
                self.tensors[name] = kept.to(weight.dtype)

    def masks(self) -> Masks:
        """The masks as boolean arrays."""
        return {name: tensor.bool().cpu().numpy() for name, tensor in self.tensors.items()}

    def guard(self, optimizer: torch.optim.Optimizer) -> None:
        """Mask the gradients before each of its steps: after they are averaged over processes, where there are several."""
        optimizer.register_step_pre_hook(self._mask_gradients)

    def forget(self, optimizer: torch.optim.Optimizer) -> None:
        """Set what the optimizer remembers of pruned weights to 0, after a mask has moved."""
        with torch.no_grad():
            for name, weight in self.weights.items():
                for value in optimizer.state.get(weight, {}).values():
                    if isinstance(value, torch.Tensor) and value.shape == weight.shape:
                        value.mul_(self.tensors[name])

    def _mask_gradients(self, *_: Any) -> None:
        pairs = [(weight.grad, self.tensors[name]) for name, weight in self.weights.items() if weight.grad is not None]
        if pairs:
            torch._foreach_mul_([gradient for gradient, _ in pairs], [mask for _, mask in pairs])


def array_of(tensor: torch.Tensor) -> NDArray[np.floating[Any]]:
    """The tensor's values as an array on the CPU; half precision becomes float32."""
    plain = tensor.detach().cpu()
    array: NDArray[np.floating[Any]] = (plain.float() if plain.element_size() < 4 else plain).numpy()
    return array


def check_masks(path: Path, masks: Masks, shapes: Mapping[str, tuple[int, ...]], where: str) -> None:
    """Raise `MaskMismatchError` unless each mask is of a parameter of the network, in its shape.

    `shapes`: of the network's parameters; `where`: the checkpoint, for the message.
    """
    missing = [repr(name) for name in masks if name not in shapes]
    if missing:
        raise MaskMismatchError(
            f"{path}: masks {some_names(missing)}, which {where} does not have; {option('mask')} takes a mask that "
            "was made for it"
        )
    for name, mask in masks.items():
        if mask.shape != tuple(shapes[name]):
            raise MaskMismatchError(
                f"{path}: the mask of {name!r} has shape {mask.shape}, and {where} has it in {tuple(shapes[name])}; "
                f"{option('mask')} takes a mask that was made for it"
            )


def without_twins(path: Path, masks: Masks, parameters: Mapping[str, nn.Parameter]) -> Masks:
    """The masks, that of a weight which several modules share under the first of its names alone.

    `parameters`: of the network, by every name. Raises `MaskMismatchError` where such a weight has two masks that differ.
    """
    first: dict[int, str] = {}
    for name, mask in masks.items():
        known = first.setdefault(id(parameters[name]), name)
        if not np.array_equal(masks[known], mask):
            raise MaskMismatchError(
                f"{path}: the masks of {known!r} and {name!r} differ, and in this network they are one weight; "
                f"{option('mask')} takes a mask that was made for it"
            )
    return {name: masks[name] for name in first.values()}
