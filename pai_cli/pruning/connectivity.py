"""Whether kept weights lead from a network's input to its output, whatever their values."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.nn.modules.conv import _ConvNd

from pai_cli.errors import ScoreError
from pai_cli.models.copies import copied, seeded
from pai_cli.models.layers import CONVOLUTIONS
from pai_cli.models.linearised import refuse_self_normalising

if TYPE_CHECKING:
    from pai_cli.models.network import Network
    from pai_cli.pruning.base import Masks

_WEIGHTED = (nn.Linear, *CONVOLUTIONS)
_SEED = 0  # of the values that stand for "reached"; any will do


def is_connected(network: Network, masks: Masks, input_shape: tuple[int, ...] | None, device: str) -> bool | None:
    """Whether a path of kept weights leads from the input to the output; None when that cannot be told.

    Only which weights are kept counts: not their values, nor biases, nor what norms have learned. The answer can be
    true with an empty layer (a block beside a shortcut) and false with none (layers whose kept weights do not meet).
    None without an input shape; when the network fails on one such input, or returns anything but one floating
    tensor; when it normalises by its own input, which mixes what masks keep apart; when a layer computes with
    its weight in a way of its own; when a value between two layers is not finite.
    """
    if input_shape is None:
        return None
    try:
        return _Passage(network.model, masks, device).reaches_the_output(input_shape)
    except Exception:  # the network's own code, the device, memory: the masks stand all the same
        return None


class _Passage:
    """A copy of a network through which only this passes: whether the input changes a value.

    Every weight is its mask, 0 or 1, and what enters a layer is made 0 or 1 as well: 1 where it differs from the pass
    at rest, whose input is zeros. An output is then the number of paths that meet there, 0 or at least 1, and leaves
    the layer as a value near 1. So nothing grows or fades with depth. The values differ from each other, lest a
    network that subtracts cancel them.
    """

    def __init__(self, model: nn.Module, masks: Masks, device: str) -> None:
        refuse_self_normalising(model)
        self._model = _structure(model, masks, device)
        self._device = device
        self._random = torch.Generator(device).manual_seed(_SEED)
        self._at_rest: list[torch.Tensor] = []
        self._recorded: Iterator[torch.Tensor] | None = None
        for module in _weighted(self._model):
            module.register_forward_pre_hook(self._enter)
            module.register_forward_hook(self._leave)

    def reaches_the_output(self, input_shape: tuple[int, ...]) -> bool:
        """Whether the output of one such input differs from the output at rest."""
        dtype = next(_weighted(self._model)).weight.dtype
        with torch.no_grad(), seeded(self._device, _SEED):  # a network may draw in its pass
            zeros = torch.zeros((1, *input_shape), dtype=dtype, device=self._device)
            at_rest = _floating(self._model(zeros)).clone()
            self._recorded = iter(self._at_rest)
            output = _floating(self._model(self._near_one(zeros)))
        return bool((output != at_rest).any())

    def _near_one(self, like: torch.Tensor) -> torch.Tensor:
        return torch.rand(like.shape, generator=self._random, dtype=like.dtype, device=like.device) + 0.5

    def _enter(self, _module: nn.Module, given: tuple[Any, ...]) -> tuple[Any, ...]:
        value = _floating(given[0])
        if self._recorded is None:
            self._at_rest.append(value.clone())  # what follows may write over it
            return (torch.zeros_like(value), *given[1:])
        return ((value != next(self._recorded)).to(value.dtype), *given[1:])

    def _leave(self, _module: nn.Module, _given: tuple[Any, ...], output: torch.Tensor) -> torch.Tensor:
        if self._recorded is None:
            return output  # zeros
        # Between 0 and 1, so that the rounding of a fast convolution makes no path.
        return torch.where(output > 0.5, self._near_one(output), 0.0)


def _structure(model: nn.Module, masks: Masks, device: str) -> nn.Module:
    """A copy in evaluation mode whose weights are their masks, all else as neutral as its kind can be."""
    twin = copied(model)
    double = any(parameter.dtype == torch.float64 for parameter in twin.parameters())
    twin.to(device=device, dtype=torch.float64 if double else torch.float32)
    twin.eval().requires_grad_(False)
    parameters = dict(twin.named_parameters(remove_duplicate=False))
    for name, tensor in (*parameters.items(), *twin.named_buffers()):
        if tensor.is_floating_point() and (value := _neutral(name, tensor)) is not None:
            tensor.fill_(value)
    for module in _weighted(twin):
        module.weight.fill_(1.0)
    followed = {id(module.weight) for module in _weighted(twin)}
    if any(id(parameters[name]) not in followed for name in masks):
        raise ScoreError(
            "a layer that is neither linear nor a convolution computes with its weight in a way of its own"
        )
    for name, mask in masks.items():
        parameters[name].copy_(torch.from_numpy(mask))
    return twin


def _neutral(name: str, tensor: torch.Tensor) -> float | None:
    """What a parameter or buffer is set to; None leaves it as it is."""
    last = name.rpartition(".")[2]
    if last in ("bias", "running_mean"):
        return 0.0
    if last == "running_var":
        return 1.0
    if not isinstance(tensor, nn.Parameter):
        return None
    # A matrix of the network's own: its products stay near 1.
    return 1.0 if tensor.dim() < 2 else tensor.shape[0] / max(1, tensor.numel())


def _weighted(model: nn.Module) -> Iterator[nn.Linear | _ConvNd]:
    """The layers with a weight that can be pruned."""
    for name, module in model.named_modules():
        kind = next((kind for kind in _WEIGHTED if isinstance(module, kind)), None)
        if kind is None or module._parameters.get("weight") is None:
            continue
        if type(module).forward is not kind.forward or "bias" not in module._parameters:
            raise ScoreError(f"{name} ({type(module).__name__}) computes with its weight in a way of its own")
        yield module


def _floating(value: Any) -> torch.Tensor:
    if not (isinstance(value, torch.Tensor) and value.is_floating_point() and bool(value.isfinite().all())):
        raise ScoreError("not a finite floating tensor")
    return value
