"""Whether masks, a network and optimizers fit each other; what wraps a network or an optimizer is taken off."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from pai_cli.errors import ArrayError, ParameterError
from pai_cli.files.fits import Count, count
from pai_cli.files.messages import some_names
from pai_cli.models.layers import PrunableLayer
from pai_cli.pruning.base import Masks

WRAPPERS = (nn.DataParallel, nn.parallel.DistributedDataParallel, torch.optim.swa_utils.AveragedModel)

Optimizers = torch.optim.Optimizer | Sequence[torch.optim.Optimizer] | None


def unwrapped(model: nn.Module, masks: Masks) -> nn.Module:
    """The module that has parameters of the masks' names: the model, or one that it wraps."""
    every = list(_wrapped(model))
    return next((one for one in every if masks.keys() <= _names(one)), every[-1])


def names_in(model: nn.Module, masks: Masks) -> set[str]:
    """The names of all parameters of the model, or of one that it wraps: see `unwrapped`."""
    return _names(unwrapped(model, masks))


def _names(model: nn.Module) -> set[str]:
    return {name for name, _ in model.named_parameters(remove_duplicate=False)}


def _wrapped(model: nn.Module) -> Iterator[nn.Module]:
    """The model, what it wraps, and so on."""
    found: Any = model
    while found is not None:
        yield found
        found = found.module if isinstance(found, WRAPPERS) else getattr(found, "_orig_mod", None)


def counted(network: nn.Module, layers: Iterable[PrunableLayer], masks: Masks) -> Count:
    """How many weights of these layers are kept by masks, each of which may have any name of its parameter."""
    parameters = dict(network.named_parameters(remove_duplicate=False))
    masked = {id(parameters[name]): int(np.count_nonzero(mask)) for name, mask in masks.items()}
    sizes = {layer.name: math.prod(layer.shape) for layer in layers}
    return count(sizes, {name: masked[id(parameters[name])] for name in sizes if id(parameters.get(name)) in masked})


def listed(optimizer: Optimizers) -> list[torch.optim.Optimizer]:
    """The optimizers, each without what wraps it."""
    if optimizer is None:
        return []
    found = []
    for one in [optimizer] if isinstance(optimizer, torch.optim.Optimizer) else list(optimizer):
        plain: Any = one
        # Accelerate's is an Optimizer by class alone: it has no hooks, and calls the one in it.
        while not hasattr(plain, "_optimizer_step_pre_hooks") and hasattr(plain, "optimizer"):
            plain = plain.optimizer
        if not isinstance(plain, torch.optim.Optimizer):
            raise ParameterError(
                f"optimizer=: is a {type(one).__name__}; give a torch.optim.Optimizer, or a list of them"
            )
        found.append(plain)
    return found


def check_bool(name: str, mask: object) -> None:
    """Raise `ArrayError` unless the mask is a NumPy array of bool."""
    if not isinstance(mask, np.ndarray) or mask.dtype != np.bool_:
        kind = f"an array of {mask.dtype}" if isinstance(mask, np.ndarray) else f"a {type(mask).__name__}"
        raise ArrayError(f"the masks: that of {name!r} is {kind}; give a NumPy array of bool")


def check_held(parameters: Mapping[str, nn.Parameter], optimizers: Sequence[torch.optim.Optimizer]) -> None:
    """Raise `ParameterError` for sharded parameters, and for those that are trained, but by none of the optimizers."""
    for name, parameter in parameters.items():
        if hasattr(parameter, "placements"):
            raise ParameterError(f"model=: {name!r} is sharded over processes; give a model whose parameters are whole")
    if not optimizers:
        return
    held = {id(one) for optimizer in optimizers for group in optimizer.param_groups for one in group["params"]}
    missing = [repr(name) for name, one in parameters.items() if one.requires_grad and id(one) not in held]
    if missing:
        raise ParameterError(
            f"optimizer=: does not hold {some_names(missing)}, which the masks prune; give the optimizer that trains "
            "it, a list of all, or set requires_grad to False"
        )
