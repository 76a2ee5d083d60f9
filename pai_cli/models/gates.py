"""Activation patterns: which units let samples pass, taken from one network and put on another of the same wiring."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from pai_cli.errors import ScoreError
from pai_cli.spelling import option

_CURVED = frozenset(
    f"aten::{name}"
    for name in (
        *("_prelu_kernel", "_softmax", "_safe_softmax", "_log_softmax", "celu", "elu", "gelu", "glu", "hardsigmoid"),
        *(
            "hardswish",
            "log_sigmoid_forward",
            "mish",
            "native_group_norm",
            "native_layer_norm",
            "rrelu_with_noise",
            "selu",
        ),
        *("sigmoid", "silu", "softplus", "softshrink", "tanh"),
        # Also those that are ReLUs by other means: where they open is not noted.
        *(
            "abs",
            "clamp_max",
            "fmax",
            "fmin",
            "ge",
            "gt",
            "hardshrink",
            "heaviside",
            "le",
            "lt",
            "masked_fill",
            "maximum",
        ),
        *("minimum", "sign", "threshold", "where"),
    )
)
"""Operations that are neither linear nor open or shut: no product of weights along a path goes through them."""

_CURVED_WHOLES = ("attention", "transformer", "rnn", "lstm", "gru")
"""Words in the names of operations that are several such at once."""


class Gates(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """While it is on, notes at each ReLU which of its inputs pass: 1 or 0, of a leaky ReLU the square of its slope.

    ReLU6 passes between 0 and 6. Raises `ScoreError`, which names `method`, at an activation that is neither.
    """

    def __init__(self, method: str) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.method = method
        self.noted: list[torch.Tensor] = []

    def __torch_dispatch__(
        self,
        func: Any,
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Note the gate of an activation, then compute as ever."""
        name = func._schema.name.rstrip("_") if hasattr(func, "_schema") else ""
        gate = _gate(name, args, kwargs or {})
        if gate is not None:
            self.noted.append(gate)
        elif name in _GATES or name in _CURVED or any(word in name for word in _CURVED_WHOLES):
            raise ScoreError(
                f"{self.method}: the network has {name.removeprefix('aten::').strip('_')}, and paths are followed through "
                f"ReLU, ReLU6 and leaky ReLU alone; give another {option('method')}"
            )
        return func(*args, **(kwargs or {}))


class Gated(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """While it is on, each ReLU multiplies its inputs by the next of `gates` instead, whatever their sign."""

    def __init__(self, gates: Sequence[torch.Tensor]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.left = list(gates)

    def __torch_dispatch__(
        self,
        func: Any,
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Multiply at an activation, elsewhere compute as ever."""
        name = func._schema.name if hasattr(func, "_schema") else ""
        if name.rstrip("_") not in _GATES:
            return func(*args, **(kwargs or {}))
        gate = self.left.pop(0)
        return args[0].mul_(gate) if name.endswith("_") else args[0] * gate


def _relu(x: torch.Tensor) -> torch.Tensor:
    return x > 0


def _leaky(x: torch.Tensor, slope: float = 0.01) -> torch.Tensor:
    return torch.where(x > 0, 1.0, slope**2).to(x.dtype)


def _between(x: torch.Tensor, low: float | None = -1.0, high: float | None = 1.0) -> torch.Tensor | None:
    if low != 0:
        return None
    return x > 0 if high is None else (x > 0) & (x < high)


def _above(x: torch.Tensor, low: float) -> torch.Tensor | None:
    return x > 0 if low == 0 else None


_GATES: dict[str, Callable[..., torch.Tensor | None]] = {
    "aten::relu": _relu,
    "aten::leaky_relu": _leaky,
    "aten::hardtanh": _between,
    "aten::clamp": lambda x, min=None, max=None: _between(x, min, max),  # noqa: A006  (as ATen names them)
    "aten::clamp_min": _above,
}
"""By the activation's name, what its gate is; None where it is no gate."""


def _gate(name: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> torch.Tensor | None:
    return _GATES[name](*args, **kwargs) if name in _GATES else None
