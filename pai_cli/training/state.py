"""All that an interrupted training goes on from, in memory and in its journal; nothing in it is code."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from pai_cli.files.messages import some_names

if TYPE_CHECKING:
    from pai_cli.files.journal import Journal, Kept

Tensors = dict[str, torch.Tensor]


@dataclass
class TrainingState:
    """Where a run stands: tensors by name, and facts that JSON holds exactly.

    Random numbers need none: each is a function of the seed and of the step.
    """

    tensors: Tensors
    facts: dict[str, Any] = field(default_factory=dict)

    def part(self, prefix: str) -> Tensors:
        """The tensors under `prefix/`, without it."""
        return {
            name.removeprefix(f"{prefix}/"): one for name, one in self.tensors.items() if name.startswith(f"{prefix}/")
        }

    def add(self, prefix: str, tensors: Mapping[str, torch.Tensor]) -> None:
        """Keep copies of tensors under `prefix/`."""
        self.tensors |= {f"{prefix}/{name}": tensor for name, tensor in on_host(tensors).items()}


def on_host(tensors: Mapping[str, torch.Tensor]) -> Tensors:
    """Copies on the CPU; what is on a device comes by one transfer a type, for each of which the host waits."""
    if all(one.device.type == "cpu" for one in tensors.values()):
        return {name: one.detach().clone() for name, one in tensors.items()}
    return by_one_transfer(tensors)


def by_one_transfer(tensors: Mapping[str, torch.Tensor]) -> Tensors:
    """`on_host` of tensors anywhere; each of the copies has its own memory."""
    groups: dict[tuple[torch.device, torch.dtype], dict[str, torch.Tensor]] = {}
    for name, one in tensors.items():
        groups.setdefault((one.device, one.dtype), {})[name] = one.detach()
    copies: Tensors = {}
    for group in groups.values():
        flat = torch.cat([one.reshape(-1) for one in group.values()]).cpu()
        pieces = flat.split_with_sizes([one.numel() for one in group.values()])
        copies |= {name: piece.clone().reshape(group[name].shape) for name, piece in zip(group, pieces, strict=True)}
    return {name: copies[name] for name in tensors}


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> Tensors:
    """What the optimizer remembers: `0.momentum_buffer` is of the first parameter."""
    state = optimizer.state_dict()["state"]
    return {
        f"{index}.{key}": value for index, kept in state.items() for key, value in kept.items() if value is not None
    }


def load_optimizer(optimizer: torch.optim.Optimizer, tensors: Tensors) -> None:
    """Give an optimizer of the same parameters back what `optimizer_tensors` took. Raises `ValueError` for other tensors."""
    whole = optimizer.state_dict()
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    remembered = ("step", "exp_avg", "exp_avg_sq") if isinstance(optimizer, torch.optim.Adam) else ("momentum_buffer",)
    state: dict[int, dict[str, torch.Tensor]] = {}
    for name, tensor in tensors.items():
        index, _, key = name.partition(".")
        state.setdefault(int(index), {})[key] = tensor
    for number, kept in state.items():
        if not 0 <= number < len(parameters) or set(kept) != set(remembered):
            raise ValueError(f"an optimizer does not remember {some_names(sorted(kept))} of parameter {number}")
        if any(one.shape != (() if key == "step" else parameters[number].shape) for key, one in kept.items()):
            raise ValueError(f"what an optimizer remembers of parameter {number} has another shape")
    whole["state"] = state
    optimizer.load_state_dict(whole)
    for parameter in parameters:  # in its memory order, as its gradient is: the fused step takes no other
        for key, one in optimizer.state.get(parameter, {}).items():
            if one.shape == parameter.shape and one.stride() != parameter.stride():
                optimizer.state[parameter][key] = torch.empty_like(parameter, dtype=one.dtype).detach().copy_(one)


def state_dict_of(module: nn.Module) -> Tensors:
    """Copies of the module's tensors on the CPU, by their names."""
    return on_host({name: one for name, one in module.state_dict().items() if isinstance(one, torch.Tensor)})


def array_of(tensor: torch.Tensor) -> NDArray[np.floating[Any]]:
    """The tensor's values as an array on the CPU; half precision becomes float32."""
    plain = tensor.detach().cpu()
    array: NDArray[np.floating[Any]] = (plain.float() if plain.element_size() < 4 else plain).numpy()
    return array


def arrays_of(tensors: Mapping[str, torch.Tensor]) -> dict[str, NDArray[np.floating[Any]]]:
    """`array_of` each; what is on a device comes by one transfer a type."""
    away = any(one.device.type != "cpu" for one in tensors.values())
    return {name: array_of(one) for name, one in (by_one_transfer(tensors) if away else tensors).items()}


def keep_state(journal: Journal, state: TrainingState) -> None:
    """Replace the state of a run. Raises `OutputError`."""
    from safetensors.torch import save

    journal.keep(save({name: tensor.contiguous() for name, tensor in state.tensors.items()}), state.facts)


def kept_state(journal: Journal, kept: Kept) -> TrainingState:
    """What `keep_state` kept. Raises `ResumeError` where it is damaged."""
    from safetensors.torch import load

    with journal.intact():
        return TrainingState(load(kept.data), kept.facts)


def check_alike(found: Tensors, wanted: Mapping[str, torch.Tensor]) -> None:
    """Raise `ValueError` unless the tensors have the names, shapes and types of those that they are to take the place of."""
    if found.keys() != wanted.keys():
        raise ValueError(f"other tensors: {some_names(sorted(found.keys() ^ wanted.keys()))}")
    for name, tensor in found.items():
        if (tensor.shape, tensor.dtype) != (wanted[name].shape, wanted[name].dtype):
            raise ValueError(f"{name} is {tensor.dtype} {tuple(tensor.shape)}")


def check_parts(state: TrainingState, own: TrainingState, parts: Iterable[str]) -> None:
    """`check_alike` for these parts of a state that is gone on from, and of the run's own as it would be kept now."""
    for part in parts:
        check_alike(state.part(part), own.part(part))


def number_in(facts: Mapping[str, Any], name: str, most: float) -> int:
    """A whole number from 0 to `most` among the facts. Raises `ValueError` for anything else, `KeyError` for nothing."""
    value = facts[name]
    if type(value) is not int or not 0 <= value <= most:
        raise ValueError(f"{name} {value!r}")
    return value
