"""What PyTorch's operations do with what stands in a tensor: which leave it in place, move it, bring it together."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from pai_cli.errors import TraceError
from pai_cli.models.layers import PrunableLayer
from pai_cli.spectral.layout import Layout

KEEP = frozenset((
    "native_batch_norm", "_native_batch_norm_legit", "_native_batch_norm_legit_no_training", "cudnn_batch_norm",
    "native_layer_norm", "native_group_norm", "_fused_rms_norm", "_softmax", "_log_softmax", "native_dropout",
    "hardswish", "hardsigmoid", "leaky_relu", "elu", "glu_jvp", "mish", "softplus", "prelu", "_prelu_kernel",
    "rrelu_with_noise", "softshrink", "hardshrink", "threshold", "clone", "_to_copy", "detach", "alias",
    "contiguous", "lift_fresh", "hardtanh", "relu6", "silu", "nan_to_num",
))  # fmt: skip
"""Operations after which everything stands where it stood, beside those that PyTorch itself tags as pointwise."""

PRODUCTS = {"mm": 0, "bmm": 0, "linear": 0, "addmm": 1, "baddbmm": 1, "_addmm_activation": 1}
"""Products with a matrix, and the position of their first factor."""

RESHAPE = frozenset(["view", "_unsafe_view", "reshape", "_reshape_alias", "unflatten", "flatten"])

MOVE = frozenset((
    "permute", "transpose", "t", "numpy_T", "expand", "slice", "select", "unsqueeze", "squeeze", "split",
    "split_with_sizes", "chunk", "unbind", "constant_pad_nd", "roll", "flip", "repeat", "pixel_shuffle",
    "pixel_unshuffle", "unfold", "channel_shuffle", "native_channel_shuffle", "unsafe_split",
    "unsafe_split_with_sizes", "unsafe_chunk", "narrow", "diagonal", "movedim", "swapaxes",
))  # fmt: skip

SPATIAL = (
    "max_pool", "avg_pool", "_adaptive_avg_pool", "adaptive_", "upsample_", "_upsample", "reflection_pad",
    "replication_pad", "fractional_max_pool",
)  # fmt: skip

REDUCE = frozenset((
    "mean", "sum", "amax", "amin", "max", "min", "var", "var_mean", "std", "std_mean", "logsumexp", "norm",
    "linalg_vector_norm", "prod", "median",
))  # fmt: skip

FRESH = frozenset((
    "zeros_like", "ones_like", "full_like", "empty_like", "new_zeros", "new_ones", "new_full", "new_empty",
))  # fmt: skip
"""Operations that take of a tensor its shape alone."""


@dataclass(frozen=True, eq=False)
class Operation:
    """One operation: what was called with what, what came of it, and which of its tensors are followed."""

    func: Any
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    result: Any
    followed: Sequence[torch.Tensor]

    @property
    def name(self) -> str:
        """Without its namespace, and as the one that does not write in place."""
        name: str = self.func._schema.name.partition("::")[2]
        return name.removesuffix("_") if self.in_place else name

    @property
    def in_place(self) -> bool:
        """Whether it writes into one of its arguments."""
        return bool(self.func._schema.is_mutable)

    @property
    def pointwise(self) -> bool:
        """Whether PyTorch says that everything stays where it stood."""
        return torch.Tag.pointwise in self.func.tags

    @property
    def results(self) -> list[torch.Tensor]:
        """All tensors that it gave."""
        return [leaf for leaf in tree_leaves(self.result) if isinstance(leaf, torch.Tensor)]

    @property
    def first(self) -> torch.Tensor:
        """The first tensor that it gave."""
        return self.results[0]

    @property
    def in_part(self) -> bool:
        """Whether what it gave shows memory of another tensor, so that what it writes in place stands in the other too."""
        tensor = self.first
        return tensor._is_view() or tensor.numel() * tensor.element_size() != tensor.untyped_storage().nbytes()

    @property
    def gives_values(self) -> bool:
        """Whether it gave numbers that a network computes with, not indices or flags."""
        return any(leaf.is_floating_point() or leaf.is_complex() for leaf in self.results)

    def argument(self, name: str, default: Any = None) -> Any:
        """The argument with this name in the operation's signature."""
        for position, wanted in enumerate(self.func._schema.arguments):
            if wanted.name == name:
                return self.args[position] if position < len(self.args) else self.kwargs.get(name, default)
        return default

    def reduced(self) -> tuple[list[int], bool]:
        """Of one that reduces: the dimensions that it reduces, last first, and whether they stay, of size 1."""
        before = self.followed[0].dim()
        dims = self.argument("dim")
        if dims is None or dims == []:
            dims = list(range(before))
        dims = {int(dim) % before for dim in (dims if isinstance(dims, (list, tuple)) else [dims])}
        return sorted(dims, reverse=True), bool(self.argument("keepdim", False)) or self.first.dim() == before


class _CircularPadding(TorchFunctionMode):
    """While it is on, circular padding concatenates pieces: PyTorch's own writes into memory that nothing is known of."""

    def __torch_function__(
        self, func: Any, types: Sequence[type], args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Compute as ever, but for `pad` with `mode="circular"`."""
        named = kwargs or {}
        if getattr(func, "__name__", "").partition(".")[0] == "pad" and len(args) > 1:  # or "pad.default" in a program
            mode = named.get("mode", (*args[2:], "constant")[0])
            if mode == "circular" and min(args[1]) >= 0:
                return circular(args[0], args[1])
        return func(*args, **named)


def circular(value: torch.Tensor, pads: Sequence[int]) -> torch.Tensor:
    """`value` with `pads`, before and after along the last dimension first, of what stands at the other end."""
    for number in range(len(pads) // 2):
        dim, (before, after) = value.dim() - 1 - number, pads[2 * number : 2 * number + 2]
        ends = value.narrow(dim, value.shape[dim] - before, before), value, value.narrow(dim, 0, after)
        value = torch.cat([one for one in ends if one.shape[dim]], dim)
    return value


@contextmanager
def _padding_in_parts(model: nn.Module) -> Iterator[None]:
    """Let convolutions that pad circularly, and programs, pad by concatenation.

    Only those: where functions are seen, attention of PyTorch's own takes another way than it does elsewhere.
    """

    def in_parts(forward: Callable[..., Any]) -> Callable[..., Any]:
        def run(*args: Any, **kwargs: Any) -> Any:
            with _CircularPadding():
                return forward(*args, **kwargs)

        return run

    with ExitStack() as after:
        for module in model.modules():
            if getattr(module, "padding_mode", "") == "circular" or isinstance(module, fx.GraphModule):
                own = vars(module)
                if "forward" in own:
                    after.callback(own.update, forward=own["forward"])
                else:
                    after.callback(own.pop, "forward")
                own["forward"] = in_parts(module.forward)
        yield


class Watcher(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Sees every operation of `model` that reads something followed, and knows the layers' weights."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.model = model
        self._path: list[str] = []
        self._weights = {
            parameter.untyped_storage().data_ptr(): (name, parameter)
            for name, parameter in reversed(list(model.named_parameters()))
            if parameter.dim() >= 2 and parameter.numel()
        }

    @abstractmethod
    def follows(self, tensor: torch.Tensor) -> bool:
        """Whether something that came from the input stands in it."""

    @abstractmethod
    def note(self, op: Operation) -> None:
        """Take up an operation that has been carried out."""

    def carried_out(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """What the operation gives."""
        return func(*args, **kwargs)

    @contextmanager
    def following(self) -> Iterator[None]:
        """While the network runs: see its operations, and know in which module they are."""
        handles = []
        for name, module in self.model.named_modules():
            handles.append(module.register_forward_pre_hook(lambda *_, name=name: self._path.append(name)))
            handles.append(module.register_forward_hook(lambda *_: self._leave()))
        try:
            with _padding_in_parts(self.model), self:
                yield
        finally:
            for handle in handles:
                handle.remove()

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        # Nothing is compiled while following; to make sure of that, torch would import its compiler for two seconds.
        return False

    def _leave(self) -> None:
        self._path.pop()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Carry the operation out, then note what it did."""
        result = self.carried_out(func, args, kwargs or {})
        tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)]
        followed = [tensor for tensor in tensors if self.follows(tensor)]
        if followed and func._schema.name.partition("::")[2] not in FRESH:
            self.note(Operation(func, args, kwargs or {}, result, followed))
        return result

    @property
    def place(self) -> str:
        """Where the network is now, or was when it failed: the module's name, as messages have it."""
        return repr(self._path[-1]) if self._path and self._path[-1] else "the network"

    def refusal(self, op: Operation, why: str = "mixes") -> TraceError:
        """What is raised where an operation cannot be followed."""
        what = "writes into part of a tensor" if why == "writes" else "mixes its inputs"
        return TraceError(
            f"the wiring of the network cannot be followed: {self.place} calls {op.name}, which {what} so that units cannot "
            "be told apart"
        )

    def convolved(self, op: Operation) -> PrunableLayer:
        """The layer of a convolution of something followed. Raises `TraceError` where its weight is no parameter."""
        value, weight = op.args[:2]
        found = self._weights.get(weight.untyped_storage().data_ptr())
        if found is None or found[1].shape != weight.shape or not self.follows(value):
            raise self.refusal(op)
        return PrunableLayer(found[0], tuple(weight.shape), Layout(groups=op.args[8], transposed=op.args[6]))

    def multiplied(self, op: Operation) -> tuple[PrunableLayer, torch.Tensor]:
        """The layer of a product of something followed with a matrix, and that value. Raises `TraceError` likewise."""
        first = PRODUCTS[op.name]
        value, weight = op.args[first : first + 2]
        if weight.dim() == 3 and (weight.shape[0] == 1 or weight.stride(0) == 0):
            weight = weight[0]  # one matrix for every sample
        found = self._weights.get(weight.untyped_storage().data_ptr())
        if found is None or weight.numel() != found[1].numel() or not self.follows(value):
            raise self.refusal(op)
        name, parameter = found
        # x @ w multiplies by the parameter as it is stored: then its rows are inputs.
        as_stored = weight.shape == parameter.shape and weight.stride() == parameter.stride()
        transposed = as_stored and op.name != "linear"
        return PrunableLayer(name, tuple(parameter.shape), Layout(transposed=transposed)), value
