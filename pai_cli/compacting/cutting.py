"""Taking channels out of a network: its parameters and buffers become smaller, its code stays as it is."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from pai_cli.compacting.choosing import Choice, kept_of
from pai_cli.compacting.following import COUNT, ChannelFollower
from pai_cli.compacting.shapes import Flags
from pai_cli.models.layers import CONVOLUTIONS, PrunableLayer
from pai_cli.spectral.layout import Layout

Attributes = dict[str, dict[str, int]]
"""By a module's name: its attributes that changed, such as `groups`."""

Tensors = Mapping[str, NDArray[np.float64]]


def owner(model: nn.Module, name: str) -> nn.Module:
    """The module that has the parameter or buffer of this name."""
    return model.get_submodule(name.rpartition(".")[0])


def can_add_bias(model: nn.Module, name: str) -> bool:
    """Whether the weight of this name is of a module that adds a bias where it has one: whose code is PyTorch's own."""
    module = owner(model, name)
    own = next((kind for kind in (nn.Linear, *CONVOLUTIONS) if isinstance(module, kind)), None)
    if own is None or name.rpartition(".")[2] != "weight":
        return False
    code = ("forward", "_conv_forward", "__call__")
    return all(getattr(type(module), one, None) is getattr(own, one, None) for one in code) and "forward" not in vars(
        module
    )


def why_whole(model: nn.Module, layer: PrunableLayer) -> str:
    """Why a layer cannot be made smaller, "" where it can: its module, or the network's code, goes by its sizes."""
    module = owner(model, layer.name)
    if isinstance(module, nn.RNNBase | nn.RNNCellBase | nn.MultiheadAttention):
        return f"{type(module).__name__} goes by their number"
    if layer.layout.groups > 1 and not isinstance(module, CONVOLUTIONS):
        return "the number of groups is in the network's code"
    return ""


def cut(model: nn.Module, found: ChannelFollower, choice: Choice) -> Attributes:
    """Keep of `model`, in place, what the choice keeps; gives the attributes of modules that changed.

    `found`: what was followed of a network like it. Constants are added to biases, where there is none, to a new one.
    """
    cuts: dict[str, list[tuple[int, Flags]]] = {}
    counts: Attributes = {}
    for (name, axis), kept in choice.scales.items():
        module_name, _, leaf = name.rpartition(".")
        if leaf == COUNT:
            counts[module_name] = {COUNT: int(kept.sum())}
            continue
        cuts.setdefault(name, []).append((axis, kept))
    groups: dict[str, int] = {}
    for use in {use.layer.name: use for use in found.uses}.values():
        name, layout = use.layer.name, use.layer.layout
        rows, columns = choice.units[name], choice.places[name]
        _add_constants(model, name, use.bias, choice)
        _carry(model, name, layout, choice)
        axes = ((0, columns), (1, rows)) if layout.transposed else ((0, rows), (1, columns))
        cuts.setdefault(name, []).extend(axes if layout.groups == 1 else axes[:1])
        if layout.groups > 1:  # of which all or nothing goes
            groups[name] = int(rows.sum()) * layout.groups // len(rows)
    for name, several in cuts.items():
        _replace(model, name, several)
    grouped = {id(_tensor(model, name)): count for name, count in groups.items()}  # of all modules that share a weight
    changed: Attributes = {}
    for name, module in model.named_modules(remove_duplicate=False):
        for attribute, value in (*_sizes(module, grouped), *counts.get(name, {}).items()):
            if getattr(module, attribute) != value:
                changed.setdefault(name, {})[attribute] = value
                setattr(module, attribute, value)
    for pad in found.pads:
        shortcut: Any = model.get_submodule(pad.name)
        shortcut.before, shortcut.after = kept_of(pad, choice.pads[pad.name])
        changed[pad.name] = {"before": shortcut.before, "after": shortcut.after}
    return changed


def _add_constants(model: nn.Module, name: str, bias: str | None, choice: Choice) -> None:
    gained = torch.from_numpy(choice.constants[name])
    rows = choice.units[name]
    if not gained[torch.from_numpy(rows)].any():
        return
    if bias is not None:
        with torch.no_grad():
            _tensor(model, bias).add_(gained)
    else:
        setattr(owner(model, name), "bias", nn.Parameter(gained[torch.from_numpy(rows)]))  # noqa: B010


def _carry(model: nn.Module, name: str, layout: Layout, choice: Choice) -> None:
    """Let one place of a layer gain weights of others whose constants are multiples of its own."""
    if name not in choice.carried:
        return
    carrier, amounts = choice.carried[name]
    weight = _tensor(model, name).detach()
    rows = weight.transpose(0, 1) if layout.transposed else weight
    gained = torch.einsum("up,up...->u...", torch.from_numpy(amounts), rows)
    rows[:, carrier] += gained


def _tensor(model: nn.Module, name: str) -> torch.Tensor:
    found: torch.Tensor = getattr(owner(model, name), name.rpartition(".")[2])
    return found


def _replace(model: nn.Module, name: str, cuts: list[tuple[int, Flags]]) -> None:
    """Keep part of a parameter or buffer, wherever the network has it."""
    old = _tensor(model, name)
    new = old.detach()
    for axis, kept in cuts:
        if not kept.all():
            new = new.index_select(axis, torch.from_numpy(np.flatnonzero(kept)))
    if new.shape == old.shape:
        return
    put: torch.Tensor = nn.Parameter(new.contiguous()) if isinstance(old, nn.Parameter) else new.contiguous()
    for module in model.modules():
        for leaf, one in (*module._parameters.items(), *module._buffers.items()):
            if one is old:
                setattr(module, leaf, put)


def _sizes(module: nn.Module, grouped: Mapping[int, int]) -> Iterator[tuple[str, int]]:
    """What a module's attributes are to say, by the shapes of its parameters."""
    weight = module._parameters.get("weight")
    if isinstance(module, CONVOLUTIONS) and weight is not None:
        groups = grouped.get(id(weight), module.groups)
        first, second = weight.shape[0], weight.shape[1] * groups
        yield from (
            (("in_channels", first), ("out_channels", second))
            if module.transposed
            else (
                ("in_channels", second),
                ("out_channels", first),
            )
        )
        yield "groups", groups
    elif isinstance(module, nn.Linear) and weight is not None:
        yield from (("in_features", weight.shape[1]), ("out_features", weight.shape[0]))
    elif isinstance(module, nn.modules.batchnorm._NormBase):
        held = weight if weight is not None else module._buffers.get("running_mean")
        if held is not None:
            yield "num_features", len(held)
    elif isinstance(module, nn.PReLU) and weight is not None:
        yield "num_parameters", weight.numel()
    elif type(module).__name__ == "Conv1D" and weight is not None:  # transformers' own, which shapes its result by it
        yield "nf", weight.shape[1]
