"""What a piece of work asks of a device, counted on CPU tensors: kernels launched, and reads for which the host waits.

A GPU does its work behind the host's back; what takes long is to start many small kernels, and to read a value, for which
the host waits until all before it is done. Both are in what torch dispatches, whatever the device.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any
from unittest.mock import patch

import torch
from numpy.typing import NDArray
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

aten = torch.ops.aten
WAITING = {aten._local_scalar_dense.default, aten.nonzero.default, aten.masked_select.default, aten.equal.default}
"""Operations that a device cannot answer without the host's waiting."""
NO_KERNEL = {
    aten.empty.memory_format,
    aten.empty_like.default,
    aten.new_empty.default,
    aten.empty_strided.default,
    aten._unsafe_view.default,
    aten.lift_fresh.default,
    aten.detach.default,
}
READS = {torch.Tensor.cpu, torch.Tensor.tolist}
"""Copies to the host; `item`, `float` and `bool` are seen as operations."""
SENDS = {torch.tensor, torch.as_tensor}
"""Where what the host has becomes a tensor, which a device must be sent; `from_numpy`, which no mode sees, as well."""


class _Functions(TorchFunctionMode):
    def __init__(self, dispatched: Dispatched):
        super().__init__()
        self.dispatched = dispatched

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if func in READS and args[0].numel():
            self.dispatched.waits[func.__name__] += 1
        if func in SENDS:
            self.dispatched.sends += 1
        return result


class Dispatched(TorchDispatchMode):
    """`launches` and `waits` by operation; `sends`: tensors made of what the host has; `bytes` that kernels gave."""

    def __init__(self) -> None:
        super().__init__()
        self.launches: Counter[str] = Counter()
        self.waits: Counter[str] = Counter()
        self.sends = self.bytes = 0
        self._functions = _Functions(self)
        self._from_numpy = patch.object(torch, "from_numpy", self._sent)

    def _sent(self, array: NDArray[Any]) -> torch.Tensor:
        self.sends += 1
        return self._from_numpy.temp_original(array)

    def __enter__(self) -> Dispatched:
        self._functions.__enter__()
        self._from_numpy.start()
        super().__enter__()
        return self

    def __exit__(self, *given: Any) -> None:
        super().__exit__(*given)
        self._from_numpy.stop()
        self._functions.__exit__(*given)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        indexed = func in (aten.index.Tensor, aten.index_put_.default) and any(
            one is not None and one.dtype in (torch.bool, torch.uint8) for one in args[1]
        )
        if func in WAITING or indexed:
            self.waits[str(func)] += 1
        elif not func.is_view and func not in NO_KERNEL and func.namespace == "aten":
            self.launches[str(func)] += 1
            if not func._schema.is_mutable:
                outputs = result if isinstance(result, (tuple, list)) else [result]
                self.bytes += sum(one.nbytes for one in outputs if isinstance(one, torch.Tensor))
        return result

    def __str__(self) -> str:
        """The two numbers."""
        return f"{self.launches.total()} launches, {self.waits.total()} waits, {self.sends} sends"


def dispatched(work: Callable[[], object]) -> Dispatched:
    """What the work asks of a device."""
    with Dispatched() as found:
        work()
    return found
