"""The linearised network of SynFlow: where every path from input to output counts with a positive weight."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING, Any

import torch
from torch import fx, nn
from torch.overrides import TorchFunctionMode

from pai_cli.errors import MethodOptionError, ScoreError
from pai_cli.files.messages import one_line
from pai_cli.models.copies import (
    ONE_TYPE,
    kind_of,
    remedy_for,
    remove,
    repeatable,
    seeded,
    takes_float32_alone,
    with_gradients,
    working_copy,
)
from pai_cli.models.huggingface import refuse_weights_alone
from pai_cli.models.programs import lift_ceilings, self_normalising
from pai_cli.models.spectral_norms import refuse_spectral_norms
from pai_cli.spelling import option

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from pai_cli.models.network import Network

_SEED = 0  # for a network that draws in its pass
_SELF_NORMALISING = (nn.LayerNorm, nn.GroupNorm, nn.RMSNorm)


@dataclass(frozen=True)
class Flow:
    """What one pass tells.

    `output`: R, the sum of the outputs. `through`: the part of R that comes from the input. It is the input times
    dR/dinput; it equals R when nothing (no bias, no shift of a batch norm) is added on the way. `gradients`: dR/dw of
    each weight asked for.
    """

    output: float
    through: float
    gradients: dict[str, torch.Tensor]


class Linearised:
    """A float64 copy of a network in evaluation mode, every parameter and buffer by its absolute value, or by its square.

    `squared`: by its square; what `weights` and the gradients are of is then the squares. `method`: for messages. Float64
    because R grows with depth past what float32 holds (4e70 for ResNet-56). Evaluation mode because
    batch statistics would normalise the flow away. The network itself is not touched. `names`: the weights
    that are masked and differentiated. Raises `MethodOptionError` without an input shape, `ScoreError` when
    the network has a layer that normalises by its own input or weight, `DeviceError` when the device is not there.
    """

    def __init__(
        self,
        network: Network,
        names: tuple[str, ...],
        input_shape: tuple[int, ...] | None,
        device: str,
        *,
        squared: bool = False,
        method: str = "synflow",
    ) -> None:
        refuse_weights_alone(network.model)
        if input_shape is None:
            raise MethodOptionError(
                f"{method}: the shape of one input is not known; give it with {option('input_shape')}, such as 3,32,32"
            )
        refuse_self_normalising(network.model, method)
        refuse_spectral_norms(network.model, method)
        self._method = method
        self._input_shape = tuple(input_shape)
        self._device = device
        self._model = _positive_copy(network.model, device, method)
        if squared:
            _square(self._model)
        self._lifted: _Lifted | None = _Lifted(method)
        self._channels_last = device == "cpu"
        if self._channels_last:
            # Measured on VGG-16: float64 convolutions on a CPU take half the time in this memory order.
            self._reorder(torch.channels_last)
        self.weights = with_gradients(self._model, names)

    def mask(self, masks: Mapping[str, NDArray[np.bool_]] | None) -> None:
        """Set the weights that are false in `masks` to zero, for good: masks only ever shrink."""
        remove(self.weights, masks)

    def flow(self, by: torch.Tensor | None = None) -> Flow:
        """Send an input of ones (batch of one) through, and the gradients back to the weights.

        `by`: what each output is multiplied by before they are summed, shaped as the outputs of one input.

        Raises `MethodOptionError` when such an input is too large or the network fails on it, `ScoreError` when it fails in
        float64 alone, or what it returns is not one floating tensor that can be differentiated.
        """
        ones = self._ones()
        with torch.enable_grad(), seeded(self._device, _SEED), repeatable(self._device):
            outputs = self._forward(ones)
            output = outputs.sum() if by is None else (outputs * by).sum()
            try:
                found = torch.autograd.grad(output, [ones, *self.weights.values()], allow_unused=True)
            except RuntimeError as error:
                raise ScoreError(
                    f"{self._method}: the network's outputs cannot be differentiated ({one_line(error)})"
                ) from error
        ends = [output.detach()] if found[0] is None else [output.detach(), found[0].sum()]
        told = torch.stack(ends).tolist()  # both in one wait for the device
        through = 0.0 if found[0] is None else told[1]
        by_name = {
            name: torch.zeros_like(weight) if gradient is None else gradient
            for (name, weight), gradient in zip(self.weights.items(), found[1:], strict=True)
        }
        return Flow(told[0], through, by_name)

    def _ones(self) -> torch.Tensor:
        try:
            return torch.ones((1, *self._input_shape), dtype=torch.float64, device=self._device, requires_grad=True)
        except (RuntimeError, TypeError, OverflowError, MemoryError) as error:
            raise MethodOptionError(
                f"{self._method}: one float64 input of shape {self._shape_text} does not fit in memory; "
                f"give a smaller {option('input_shape')}"
            ) from error

    @property
    def _shape_text(self) -> str:
        return ",".join(map(str, self._input_shape))

    def _forward(self, ones: torch.Tensor) -> torch.Tensor:
        # A clone, because a network whose first operation is in place may not change a leaf.
        try:
            with self._lifted or nullcontext():
                outputs = self._model(ones.clone())
            if self._lifted is not None and not self._lifted.any:
                self._lifted = None  # looking costs a small network a tenth of its pass
        except ScoreError:
            raise
        except Exception as error:
            if self._channels_last:
                # `x.view(...)` refuses this memory order; the usual one may do.
                self._channels_last = False
                self._reorder(torch.contiguous_format)
                return self._forward(ones)
            where = f"one float64 input of shape {self._shape_text}"
            failure = f"{self._method}: the network failed on {where} ({one_line(error)})"
            if takes_float32_alone(self._model, ones):
                raise ScoreError(f"{failure}; {ONE_TYPE}") from error
            remedy = remedy_for(error, f"give the shape it takes with {option('input_shape')}")
            raise MethodOptionError(f"{failure}; {remedy}") from error
        if not (isinstance(outputs, torch.Tensor) and outputs.is_floating_point()):
            raise ScoreError(
                f"{self._method}: the network returns {kind_of(outputs)}, and one floating tensor is needed; "
                f"give a {option('model')} factory whose network returns the logits alone"
            )
        return outputs

    def _reorder(self, memory_format: torch.memory_format) -> None:
        # Not Module.to(), which fails where a tensor has five dimensions, as the weights of a Conv3d have.
        for tensor in chain(self._model.parameters(), self._model.buffers()):
            if tensor.dim() == 4:
                tensor.data = tensor.data.contiguous(memory_format=memory_format)


def _positive_copy(model: nn.Module, device: str, method: str) -> nn.Module:
    twin = working_copy(model, device, torch.float64, method)
    if isinstance(twin, fx.GraphModule):
        lift_ceilings(twin)
    with torch.no_grad():
        for tensor in (*twin.parameters(), *twin.buffers()):
            if tensor.is_floating_point():
                tensor.abs_()
    return twin


def _square(model: nn.Module) -> None:
    with torch.no_grad():
        for tensor in (*model.parameters(), *model.buffers()):
            if tensor.is_floating_point():
                tensor.square_()


class _Lifted(TorchFunctionMode):
    """While it is on, functions that cut off below 0 and above a ceiling, as ReLU6 does, cut off below 0 alone.

    The flow grows past any ceiling, and above it nothing would depend on the input. `any`: whether there were some. Raises
    `ScoreError`, which names `method`, at a function that normalises by its own input.
    """

    def __init__(self, method: str) -> None:
        super().__init__()
        self.method, self.any = method, False

    def __torch_function__(
        self, func: Any, types: Sequence[type], args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Compute as ever, but for those."""
        name, named = getattr(func, "__name__", ""), kwargs or {}
        if name in _BY_OWN_SIZE or (name == "batch_norm" and named.get("training")):
            raise _refusal(self.method, name, "a function")
        if name.rstrip("_") in _CEILINGS:
            x, low, high, inplace = _CEILINGS[name.rstrip("_")](*args, **named)
            if isinstance(low, (int, float)) and low == 0 and high is not None:
                self.any = True
                return torch.relu_(x) if inplace or name.endswith("_") else torch.relu(x)
        return func(*args, **named)


_BY_OWN_SIZE = ("layer_norm", "group_norm", "rms_norm", "instance_norm", "local_response_norm")


def _clamped(input: Any, min: Any = None, max: Any = None, **_: Any) -> tuple[Any, ...]:  # noqa: A002  (PyTorch's names)
    return input, min, max, False


_CEILINGS: dict[str, Callable[..., tuple[Any, ...]]] = {
    "relu6": lambda input, inplace=False: (input, 0, 6, inplace),  # noqa: A006
    "hardtanh": lambda input, min_val=-1.0, max_val=1.0, inplace=False: (input, min_val, max_val, inplace),  # noqa: A006
    "clamp": _clamped,
    "clip": _clamped,
}
"""By a function's name, what it is given, its floor and its ceiling, and whether it works in place."""


def refuse_self_normalising(model: nn.Module, method: str = "synflow") -> None:
    """Raise `ScoreError` when a layer normalises by its own input; it names the `method`."""
    if (operation := self_normalising(model)) is not None:
        raise _refusal(method, operation, "an operation")
    for name, module in model.named_modules():
        batch_statistics = getattr(module, "running_mean", module) is None
        if isinstance(module, _SELF_NORMALISING) or batch_statistics:
            raise _refusal(method, name or "the network", type(module).__name__)


def _refusal(method: str, name: str, kind: str) -> ScoreError:
    return ScoreError(
        f"{method}: {name} ({kind}) divides by the size of its own input, so no flow passes it unchanged; "
        f"give another {option('method')}"
    )
