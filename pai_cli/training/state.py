"""Training on disk: all that an interrupted run goes on from, in one safetensors file; nothing in it is code."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from pai_cli.errors import ResumeError
from pai_cli.files.atomic import write_atomically
from pai_cli.files.messages import some_names
from pai_cli.files.sealed import sealed, told_version, unsealed
from pai_cli.spelling import option
from pai_cli.training.outputs import damaged

VERSION = 2
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
        self.tensors |= {f"{prefix}/{name}": tensor.detach().cpu().clone() for name, tensor in tensors.items()}


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


def state_dict_of(module: nn.Module) -> Tensors:
    """Copies of the module's tensors on the CPU, by their names."""
    return {
        name: tensor.detach().cpu().clone()
        for name, tensor in module.state_dict().items()
        if isinstance(tensor, torch.Tensor)
    }


def array_of(tensor: torch.Tensor) -> NDArray[np.floating[Any]]:
    """The tensor's values as an array on the CPU; half precision becomes float32."""
    plain = tensor.detach().cpu()
    array: NDArray[np.floating[Any]] = (plain.float() if plain.element_size() < 4 else plain).numpy()
    return array


def write_state(path: Path, state: TrainingState, settings: Mapping[str, Any]) -> None:
    """Replace the state file, whole or not at all. Raises `OutputError`."""
    from safetensors.torch import save

    metadata = {
        "training": str(VERSION),
        "settings": json.dumps(settings, sort_keys=True),
        "facts": json.dumps(state.facts),
    }
    tensors = {name: tensor.contiguous() for name, tensor in state.tensors.items()}
    data = sealed(save(tensors), metadata)

    def write(stream: BinaryIO) -> None:
        stream.write(data)

    write_atomically(path, write, force=True)


def parse_state(path: Path, data: bytes, settings: Mapping[str, Any]) -> TrainingState:
    """The state in the bytes of a file. Raises `ResumeError` when they are damaged, or of a run of other settings."""
    from safetensors import SafetensorError
    from safetensors.torch import load

    if told_version(data, "training") not in (None, str(VERSION)):
        raise ResumeError(f"{path}: was written by another version of pai; {option('force')} starts the training again")
    try:
        metadata = unsealed(data)
        told, facts = json.loads(metadata["settings"]), json.loads(metadata["facts"])
        tensors = load(data)
        if not isinstance(told, dict) or not isinstance(facts, dict):
            raise ValueError("what it tells is no object")
    except (SafetensorError, ValueError, KeyError, TypeError, RecursionError) as e:
        raise damaged(path) from e
    for key, value in settings.items():
        if told.get(key) != value:
            raise ResumeError(
                f"{path}: that training had {key} {told.get(key)}, this one has {value}; give the same, or begin again "
                f"with {option('force')} instead of {option('resume')}"
            )
    return TrainingState(tensors, facts)


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
