"""Making a network on the meta device, whatever sizes it is told, within what its checkpoint can need."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from math import prod
from typing import Any

import torch
from torch import nn
from torch.nn.modules import module as registering
from torch.overrides import TorchFunctionMode

from pai_cli.errors import StateDictMismatchError
from pai_cli.models.base import Shapes

PARTS_A_TENSOR, PARTS = 50, 1_000
"""Modules and tensors that a network may have: so many for each tensor of its checkpoint, and so many more."""

BESIDE = 2**26
"""Bytes that a network may have in tensors that no checkpoint holds, or as many as its checkpoint has when that is more."""


@contextmanager
def no_larger_than(shapes: Shapes, where: str, remedy: str) -> Iterator[None]:
    """While a network is made inside the block: raise `StateDictMismatchError` as soon as it outgrows the checkpoint.

    That is at a weight that has more elements than any tensor there, or at more modules and tensors than a network of so
    few tensors has. `where` and `remedy` are for the message.
    """
    largest = max(map(prod, shapes.values()), default=0)
    left = PARTS_A_TENSOR * len(shapes) + PARTS

    def refuse(what: str) -> StateDictMismatchError:
        return StateDictMismatchError(f"{where}: config.json describes a network with {what}; {remedy}")

    def count(_module: nn.Module, name: str, part: Any) -> None:
        nonlocal left
        left -= 1
        if left < 0:
            raise refuse(f"many times more parts than the {len(shapes):,} tensors of its weights")
        if isinstance(part, nn.Parameter) and part.numel() > largest:
            raise refuse(f"a tensor {name!r} of shape {tuple(part.shape)}, larger than any of its weights")

    def real(elements: int) -> None:
        if elements > max(largest, BESIDE // 8):
            raise refuse(f"a table of {elements:,} numbers, larger than any of its weights")

    with ExitStack() as stack:
        for register in (
            registering.register_module_module_registration_hook,
            registering.register_module_parameter_registration_hook,
            registering.register_module_buffer_registration_hook,
        ):
            stack.callback(register(count).remove)
        stack.enter_context(_Measured(real))
        yield


class _Measured(TorchFunctionMode):
    """Tensors that are asked for on another device than meta by name are measured before they are made."""

    def __init__(self, check: Callable[[int], None]):
        super().__init__()
        self._check = check

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = kwargs or {}
        device = given.get("device")
        if device is not None and torch.device(device).type != "meta" and func is not torch.tensor:
            asked = func(*args, **{**given, "device": "meta"})
            if isinstance(asked, torch.Tensor):
                self._check(asked.numel())
        return func(*args, **given)


def check_memory(network: nn.Module, shapes: Shapes, where: str, remedy: str) -> None:
    """Raise `StateDictMismatchError` when a network on the meta device has too much that its checkpoint does not hold."""
    beside = sum(buffer.nbytes for name, buffer in network.named_buffers() if name not in shapes)
    if beside > max(BESIDE, 4 * sum(map(prod, shapes.values()))):
        raise StateDictMismatchError(
            f"{where}: config.json describes a network with tables of {beside / 2**30:.3g} GiB beside its weights; {remedy}"
        )
