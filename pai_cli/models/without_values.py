"""Networks that are made without the values of their weights."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from pai_cli.errors import ModelFactoryError


class WithoutValues(TorchFunctionMode):
    """Weights, which modules make with `torch.empty`, are made on the meta device; tables that no file holds are made."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = dict(kwargs or {})
        if func is torch.empty and given.get("device") is None:
            given["device"] = "meta"
        return func(*args, **given)


def place_tables(network: nn.Module, device: str, folder: str) -> None:
    """Put the tables that no file holds where the blocks run, and let go of the values that norms and biases begin with."""
    empty: dict[nn.Parameter, nn.Parameter] = {}  # a parameter of several modules stays one
    for name, module in network.named_modules():
        for leaf, one in module._parameters.items():
            if one is not None and not one.is_meta:
                module._parameters[leaf] = empty.setdefault(one, nn.Parameter(one.to("meta"), requires_grad=False))
        for leaf, buffer in module._buffers.items():
            if buffer is not None and buffer.is_meta:
                raise ModelFactoryError(
                    f"{folder}: the table {name}.{leaf} of the model has no values without its weights"
                )
            module._buffers[leaf] = None if buffer is None else buffer.to(device)
