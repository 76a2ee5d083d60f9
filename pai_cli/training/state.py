"""Training on disk: all that an interrupted run goes on from, in one safetensors file; nothing in it is code."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import nn

from pai_cli.errors import ResumeError
from pai_cli.files.atomic import write_atomically
from pai_cli.files.canonical import canonical_bytes
from pai_cli.training.outputs import damaged

VERSION = 1
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
    """Give an optimizer of the same parameters back what `optimizer_tensors` took."""
    whole = optimizer.state_dict()
    state: dict[int, dict[str, torch.Tensor]] = {}
    for name, tensor in tensors.items():
        index, _, key = name.partition(".")
        state.setdefault(int(index), {})[key] = tensor
    whole["state"] = state
    optimizer.load_state_dict(whole)


def state_dict_of(module: nn.Module) -> Tensors:
    """Copies of the module's tensors on the CPU, by their names."""
    return {
        name: tensor.detach().cpu().clone()
        for name, tensor in module.state_dict().items()
        if isinstance(tensor, torch.Tensor)
    }


def write_state(path: Path, state: TrainingState, settings: Mapping[str, Any]) -> None:
    """Replace the state file, whole or not at all. Raises `OutputError`."""
    from safetensors.torch import save

    metadata = {
        "training": str(VERSION),
        "settings": json.dumps(settings, sort_keys=True),
        "facts": json.dumps(state.facts),
    }
    tensors = {name: tensor.contiguous() for name, tensor in state.tensors.items()}
    data = canonical_bytes(save(tensors, metadata))

    def write(stream: BinaryIO) -> None:
        stream.write(data)

    write_atomically(path, write, force=True)


def parse_state(path: Path, data: bytes, settings: Mapping[str, Any]) -> TrainingState:
    """The state in the bytes of a file. Raises `ResumeError` when they are damaged, or of a run of other settings."""
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])["__metadata__"]
        if header["training"] != str(VERSION):
            raise ResumeError(f"{path}: was written by another version of pai; --force starts the training again")
        told, facts = json.loads(header["settings"]), json.loads(header["facts"])
        tensors = load(data)
    except (SafetensorError, ValueError, KeyError, TypeError, RecursionError) as e:
        raise damaged(path) from e
    for key, value in settings.items():
        if told.get(key) != value:
            raise ResumeError(
                f"{path}: that training had {key} {told.get(key)}, this one has {value}; give the same, or begin again "
                "with --force instead of --resume"
            )
    return TrainingState(tensors, facts)
