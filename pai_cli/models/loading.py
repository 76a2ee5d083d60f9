"""Putting a checkpoint's tensors into a network, after checking that they fit."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import nn

from pai_cli.errors import StateDictMismatchError
from pai_cli.files.checkpoints import Checkpoint
from pai_cli.files.messages import some_names
from pai_cli.models.base import Shapes
from pai_cli.models.recognise import OPTIONAL, is_counter

SHOWN = 5


def check_names_and_shapes(
    checkpoint: Checkpoint, network: nn.Module, description: str, hint: str, shapes: Shapes | None = None
) -> None:
    """Raise `StateDictMismatchError` unless the checkpoint has exactly the network's names and shapes; or these `shapes`,
    as which it is taken.

    A missing `num_batches_tracked` is fine, and so are the second name of a tensor that has two, and the counters of tools.
    """
    wanted = {name: tuple(tensor.shape) for name, tensor in _tensors(network).items()}
    found = checkpoint.shapes if shapes is None else shapes
    optional = _spare_names(network, found)
    missing = [name for name in wanted if name not in found and name not in optional]
    unexpected = [name for name in found if name not in wanted and not is_counter(name, found[name])]
    misshapen = [
        f"{name!r} is {found[name]}, must be {wanted[name]}"
        for name in wanted
        if name in found and found[name] != wanted[name]
    ]
    parts = [
        f"{kind}: {some_names(names, SHOWN)}"
        for kind, names in (
            ("missing from the checkpoint", [repr(name) for name in missing]),
            ("unexpected in it", [repr(name) for name in unexpected]),
            ("of another shape", misshapen),
        )
        if names
    ]
    if parts:
        differences = "; ".join(parts)
        raise StateDictMismatchError(f"{checkpoint.path} does not fit {description}; {differences}; {hint}")


def has_all(network: nn.Module, shapes: Mapping[str, tuple[int, ...]]) -> bool:
    """Whether shapes by name have all that the network needs of a checkpoint."""
    wanted = _tensors(network)
    optional = _spare_names(network, shapes)
    return all(name in optional or shapes.get(name) == tuple(tensor.shape) for name, tensor in wanted.items()) and any(
        name in shapes for name in wanted
    )


def counters_beside(checkpoint: Checkpoint, network: nn.Module) -> tuple[str, ...]:
    """The counters of tools in the checkpoint, which the network does not have."""
    wanted = _tensors(network)
    return tuple(name for name, shape in checkpoint.shapes.items() if name not in wanted and is_counter(name, shape))


def _tensors(network: nn.Module) -> dict[str, torch.Tensor]:
    """The state dict's tensors; a module's extra state may be anything else, and no checkpoint here holds it."""
    state = network.state_dict(keep_vars=True)
    return {name: value for name, value in state.items() if isinstance(value, torch.Tensor)}


def _spare_names(network: nn.Module, found: Mapping[str, tuple[int, ...]]) -> set[str]:
    """Names that a checkpoint may lack: counters, and further names of tensors that it holds."""
    tensors = _tensors(network)
    present = {id(tensor) for name, tensor in tensors.items() if name in found}
    return {name for name, tensor in tensors.items() if name.endswith(OPTIONAL) or id(tensor) in present}


def names_to_check(checkpoint: Checkpoint, network: nn.Module) -> tuple[str, ...]:
    """The tensors that `load_values` takes numbers from that must be finite, in the checkpoint's order."""
    wanted = _tensors(network)
    return tuple(
        name
        for name in checkpoint.shapes
        if name in wanted and (checkpoint.floating(name) or wanted[name].is_floating_point())
    )


def load_values(checkpoint: Checkpoint, network: nn.Module) -> nn.Module:
    """The network with the checkpoint's values, in float64 when any of them is, else in float32.

    Raises, before anything is loaded, `NotFiniteError` for a NaN or infinity and `CheckpointError` for integers where
    the network has weights.
    """
    wanted = _tensors(network)
    checked = set(names_to_check(checkpoint, network))
    arrays = {
        name: checkpoint.finite_array(name) if name in checked else checkpoint.array(name)
        for name in checkpoint.shapes
        if name in wanted
    }
    double = any(array.dtype == np.float64 for array in arrays.values())
    network = network.to(torch.float64 if double else torch.float32)
    # NumPy's read-only arrays would make PyTorch warn; copying is for those alone.
    tensors = {
        name: torch.from_numpy(array if array.flags.writeable else array.copy()) for name, array in arrays.items()
    }
    network.load_state_dict(tensors, strict=False)  # the names have been checked, with more care
    return network
