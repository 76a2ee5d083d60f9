"""Masks at work on a network in training: pruned weights are exactly 0 before, at and after every step of an optimizer."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn.utils import parametrize as parametrizing

from pai_cli.errors import MaskMismatchError
from pai_cli.files.fits import Against, Count, check_fits, without_twins
from pai_cli.files.matching import spread
from pai_cli.models.layers import prunable_layers
from pai_cli.models.spectral_norms import refuse_emptied
from pai_cli.pruning.base import Masks
from pai_cli.training.fitting import Optimizers, check_bool, check_held, counted, listed, unwrapped

WHOLE_NUMBERS = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
FRESH = {(torch.optim.Adagrad, "sum"): "initial_accumulator_value", (torch.optim.Rprop, "step_size"): "lr"}
"""What an optimizer remembers of a weight that it has not moved yet, where that is not 0: the option that says it."""


class _Hook(Protocol):
    def remove(self) -> None: ...


def apply_masks(
    model: nn.Module,
    masks: Mapping[str, NDArray[np.bool_]],
    optimizer: Optimizers = None,
    *,
    parametrize: bool = False,
    dense_gradients: bool = False,
) -> AppliedMasks:
    """Set the pruned weights of `model` to 0, in place, and keep them 0 while `optimizer` moves the others.

    `masks`: bool arrays by parameter name, each in its parameter's shape, True where a weight is kept; the same in every
    process that trains together. Weights, their gradients and what the optimizer remembers of them are 0 from now on,
    bit for bit, after every step of any `torch.optim.Optimizer`; kept weights move as if the gradients had been masked by
    hand. Parameter objects, their names, the state dict and the optimizer's stay what they were. `model` may be wrapped in
    `torch.compile`, `DistributedDataParallel` or `AveragedModel`, and may move to another device later.

    `optimizer`: one or several, which hold every masked parameter that requires a gradient. None: weights are 0 once, and
    nothing watches them. `dense_gradients`: gradients of pruned weights stay what they are until the step, as growing
    weights by gradient needs; otherwise they are 0 as soon as they are there, so that clipping by norm sees none of them,
    and `GradScaler` skips no step for an infinite one. `parametrize`: every forward pass masks the weight too, by
    `torch.nn.utils.parametrize`, whatever is done to it; `x.weight` is then `x.parametrizations.weight.original` in the
    state dict until `remove()`.

    Copies: `copy.deepcopy` and `AveragedModel` copy weights alone, nothing of the handle. Averages of weights that were 0
    from the start stay 0; a copy made before has dense weights, and needs `apply_masks` for itself, without an optimizer.
    Sparse gradients are left alone: weights are 0 after the step, an optimizer's memory of them may not be. Two handles on
    one weight keep what both masks keep.

    Raises `MaskMismatchError` for masks of another network, `CollapseError` for those that keep nothing of a weight that a
    spectral norm divides (0/0), `ArrayError` for masks that are not bool, `ParameterError` for
    what is no optimizer, for one that does not hold a parameter, and for sharded parameters.
    """
    masks = dict(masks)
    for name, mask in masks.items():
        check_bool(name, mask)
    network = unwrapped(model, masks)
    parameters = dict(network.named_parameters(remove_duplicate=False))
    shapes = {name: tuple(one.shape) for name, one in parameters.items()}
    remedy = "give the model that the masks were made for"
    check_fits("the mask", {name: mask.shape for name, mask in masks.items()}, Against("the model", shapes, remedy))
    firsts = without_twins(masks, parameters, source="the mask", remedy=remedy)
    refuse_emptied(network, firsts, "the mask")
    optimizers = listed(optimizer)
    check_held({name: parameters[name] for name in firsts}, optimizers)
    by_parameter = {id(parameters[name]): name for name in firsts}
    names = {name: by_parameter[id(parameters[name])] for name in masks}
    applied = AppliedMasks(network, firsts, names, counted(network, prunable_layers(network), firsts))
    applied._begin(optimizers, parametrize=parametrize, dense_gradients=dense_gradients)
    return applied


class AppliedMasks:
    """The handle of masks that `apply_masks` put to work; as a context manager it takes them off at the end.

    Before each step the gradients are masked, also those that a closure computes within a step; after it, the weights. The
    first keeps momentum and moments at 0, and with them the step of every optimizer that moves each weight by itself; the
    second is for those that do not (Muon, Adafactor), and for 0 / 0 where eps is 0. Masking is a multiplication of
    the bits, as whole numbers, by 0 or 1: NaN and infinity become +0, and a kept value stays the same to the bit.

    `count`: how many of the model's prunable weights the masks kept when they were applied; `count.whole` names the layers
    that have no mask and keep all of theirs, `count.density` is the share that is kept, 0 to 1.
    """

    def __init__(self, network: nn.Module, masks: Masks, names: Mapping[str, str], count: Count):
        self.count = count
        self._names = names  # of every mask that was given, to that of the weight
        self._weights = {name: _Weight.of(network, name, mask) for name, mask in masks.items()}
        self._optimizers: list[torch.optim.Optimizer] = []
        self._hooks: list[_Hook] = []

    def _begin(self, optimizers: list[torch.optim.Optimizer], *, parametrize: bool, dense_gradients: bool) -> None:
        weights = list(self._weights.values())
        if parametrize:
            for weight in weights:
                weight.parametrize()
        self.enforce_on(optimizers)
        if not weights or not optimizers:
            return
        self._optimizers = optimizers
        for optimizer in optimizers:
            self._hooks += [
                optimizer.register_step_pre_hook(self._before_step),
                optimizer.register_step_post_hook(self._after_step),
                optimizer.register_load_state_dict_post_hook(self._forget),
            ]
        for owner in dict.fromkeys(weight.owner for weight in weights):
            self._hooks.append(owner.register_load_state_dict_post_hook(_AfterLoading(self)))  # type: ignore[no-untyped-call]
        if not dense_gradients:
            self._mask_gradients()
            trained = [weight for weight in weights if weight.parameter.requires_grad]
            for one in trained:
                self._hooks.append(one.parameter.register_post_accumulate_grad_hook(_AfterGradient(one)))  # type: ignore[no-untyped-call]

    @property
    def masks(self) -> Masks:
        """The masks as bool arrays, new ones each time; of a weight that modules share, under the first of its names."""
        return {name: weight.kept.cpu().contiguous().numpy() for name, weight in self._weights.items()}

    @property
    def weights(self) -> dict[str, nn.Parameter]:
        """The masked parameters."""
        return {name: weight.parameter for name, weight in self._weights.items()}

    @property
    def tensors(self) -> dict[str, torch.Tensor]:
        """The masks as 0 and 1 in their weights' types and on their devices; copies."""
        return {name: one.kept.to(one.parameter.device, one.parameter.dtype) for name, one in self._weights.items()}

    def set(self, masks: Mapping[str, NDArray[np.bool_]]) -> None:
        """Take these masks from now on, those of other weights as they were.

        Weights that become pruned are 0 at once, as is what the optimizer remembers of them; those that grow are 0 already.
        Raises `MaskMismatchError` for a name or a shape that was not masked before, `ArrayError` for what is not bool.
        """
        shapes = {name: tuple(self._weights[first].parameter.shape) for name, first in self._names.items()}
        remedy = "give masks of the parameters that apply was given"
        masks = spread(dict(masks), {}, self._names)
        for name, mask in masks.items():
            check_bool(name, mask)
        against = Against("the mask that was applied", shapes, remedy)
        check_fits("the mask", {name: mask.shape for name, mask in masks.items()}, against)
        parameters = {name: self._weights[first].parameter for name, first in self._names.items()}
        for name, mask in without_twins(masks, parameters, source="the mask", remedy=remedy).items():
            self._weights[self._names[name]].take(mask)
        self.enforce()

    def enforce(self) -> None:
        """Set pruned weights, and what the optimizers remember of them, to 0 now.

        For programs that write weights themselves. Loading a state dict, into the model or an optimizer, does it of itself.
        """
        self.enforce_on(self._optimizers)

    def enforce_on(self, optimizers: Iterable[torch.optim.Optimizer]) -> None:
        """As `enforce`, for what these optimizers remember."""
        for optimizer in optimizers:
            self._forget(optimizer)
        self._mask_weights(self._weights.values())
        for weight in self._weights.values():
            weight.renew_parametrization()

    def remove(self) -> None:
        """Take the masks off: weights stay as they are, and the optimizer moves all of them. Again, it does nothing."""
        for hook in self._hooks:
            hook.remove()
        self._hooks, self._optimizers = [], []
        for weight in self._weights.values():
            weight.leave_parametrized()

    def __enter__(self) -> AppliedMasks:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.remove()

    def _before_step(self, _: torch.optim.Optimizer, args: Any, kwargs: Any) -> tuple[Any, Any] | None:
        self._mask_gradients()
        if len(args) > 1 and callable(args[1]):  # the first is the optimizer itself
            return (args[0], self._masking(args[1]), *args[2:]), kwargs
        if callable(kwargs.get("closure")):
            return args, {**kwargs, "closure": self._masking(kwargs["closure"])}
        return None

    def _masking(self, closure: Callable[[], Any]) -> Callable[[], Any]:
        """The closure of a step, after each of whose calls the gradients are masked."""

        def masked() -> Any:
            loss = closure()
            self._mask_gradients()
            return loss

        return masked

    def _after_step(self, *_: Any) -> None:
        self._mask_weights(self._weights.values())

    def _mask_gradients(self) -> None:
        pairs = []
        with torch.no_grad():
            for weight in self._weights.values():
                gradient = weight.parameter.grad
                if gradient is not None and gradient.layout is torch.strided:
                    bits = _bits(gradient)
                    pairs.append((bits, weight.words_for(bits)))
            _multiply(pairs)

    def _mask_weights(self, weights: Iterable[_Weight]) -> None:
        pairs = []
        with torch.no_grad():
            for weight in weights:
                if not weight.parameter.is_meta:
                    bits = _bits(weight.parameter)
                    weight.words = weight.words_for(bits)  # follows the weight to its device
                    pairs.append((bits, weight.words))
            _multiply(pairs)

    def _mask_of_module(self, module: nn.Module) -> None:
        self._mask_weights([weight for weight in self._weights.values() if weight.owner is module])

    def _forget(self, optimizer: torch.optim.Optimizer) -> None:
        """Make what the optimizer remembers of pruned weights what it would be if it had never moved them.

        What PyTorch's own optimizers remember in a weight's shape is of each weight. Another's may not be (SOAP keeps
        moments of a rotated gradient): there it is forgotten only where a weight goes that is not 0.
        """
        by_tensor: dict[torch.Tensor, _Weight] = {weight.parameter: weight for weight in self._weights.values()}
        with torch.no_grad():
            if isinstance(optimizer, torch.optim.LBFGS):
                _forget_directions(optimizer, by_tensor)
                return
            own = type(optimizer).__module__.startswith("torch.optim")
            for group in optimizer.param_groups:
                for parameter in group["params"]:
                    if parameter in by_tensor and (state := optimizer.state.get(parameter)):
                        gone = ~by_tensor[parameter].kept.to(parameter.device)
                        _fill(state, gone if own else gone & (parameter != 0), _fresh_values(optimizer, group))


@dataclass(eq=False)
class _Weight:
    """A masked parameter, by its module and its name there, as both stay when a program exchanges the parameter.

    `words`: 1 where a weight is kept and 0 elsewhere, as whole numbers of as many bits as a weight has.
    """

    name: str
    owner: nn.Module
    leaf: str
    words: torch.Tensor
    parametrized: tuple[nn.Module, str] | None = None

    @classmethod
    def of(cls, network: nn.Module, name: str, mask: NDArray[np.bool_]) -> _Weight:
        module, _, leaf = name.rpartition(".")
        weight = cls(name, network.get_submodule(module), leaf, torch.empty(0))
        weight.take(mask)
        return weight

    @property
    def parameter(self) -> nn.Parameter:
        parameter = self.owner._parameters.get(self.leaf)
        if parameter is None:
            raise MaskMismatchError(
                f"model=: {self.name!r} is masked, and no longer a parameter; remove() the mask before it is replaced"
            )
        return parameter

    @property
    def kept(self) -> torch.Tensor:
        """The mask, bool, in the weight's shape."""
        return (self.words[..., 0] if self.parameter.is_complex() else self.words).bool()

    def take(self, mask: NDArray[np.bool_]) -> None:
        kept = torch.tensor(mask)  # a copy
        if self.parameter.is_complex():
            kept = torch.stack([kept, kept], -1)
        if self.parameter.is_meta:
            self.words = kept.to(WHOLE_NUMBERS[_part_size(self.parameter)])
        else:  # in the weight's memory order, in which a device multiplies all tensors in one launch
            self.words = torch.empty_like(_bits(self.parameter.detach())).copy_(kept)

    def words_for(self, bits: torch.Tensor) -> torch.Tensor:
        """The words in the type and on the device of `bits`."""
        if self.words.dtype is bits.dtype and self.words.device == bits.device:
            return self.words
        return self.words.to(bits.device, bits.dtype)

    def parametrize(self) -> None:
        self.parametrized = self.owner, self.leaf
        module = _Masking(~self.kept.to(self.parameter.device))
        parametrizing.register_parametrization(self.owner, self.leaf, module)
        parametrizations: Any = self.owner.parametrizations
        self.owner, self.leaf = parametrizations[self.leaf], "original"

    def renew_parametrization(self) -> None:
        if self.parametrized is not None:
            masking: Any = self.owner.get_submodule("0")
            masking.pruned = ~self.kept.to(self.parameter.device)

    def leave_parametrized(self) -> None:
        if self.parametrized is not None:
            (self.owner, self.leaf), self.parametrized = self.parametrized, None
            parametrizing.remove_parametrizations(self.owner, self.leaf, leave_parametrized=True)


class _Masking(nn.Module):
    """A parametrization: the weight where it is kept, 0 elsewhere, and so is the gradient."""

    def __init__(self, pruned: torch.Tensor):
        super().__init__()
        self.pruned: torch.Tensor
        self.register_buffer("pruned", pruned, persistent=False)

    def forward(self, weight: torch.Tensor) -> torch.Tensor:
        return weight.masked_fill(self.pruned, 0)


class _AfterGradient:
    """Masks a gradient that was just accumulated. Refers to the weight weakly: Python finds no circle through such hooks."""

    def __init__(self, weight: _Weight):
        self._weight = weakref.ref(weight)

    def __call__(self, parameter: torch.Tensor) -> None:
        weight, gradient = self._weight(), parameter.grad
        if weight is not None and gradient is not None and gradient.layout is torch.strided:
            with torch.no_grad():
                bits = _bits(gradient)
                bits.mul_(weight.words_for(bits))


class _AfterLoading:
    """Masks a module's weights after a state dict was loaded; in copies of the module it holds and does nothing."""

    def __init__(self, applied: AppliedMasks | None = None):
        self._applied = applied

    def __call__(self, module: nn.Module, _: object) -> None:
        if self._applied is not None:
            self._applied._mask_of_module(module)

    def __reduce__(self) -> tuple[type[_AfterLoading], tuple[()]]:
        return _AfterLoading, ()


def _part_size(tensor: torch.Tensor) -> int:
    """The bytes of a number, or of one part of a complex number."""
    return tensor.element_size() // (2 if tensor.is_complex() else 1)


def _bits(tensor: torch.Tensor) -> torch.Tensor:
    """The same memory as whole numbers; both parts of complex numbers along a last dimension."""
    parts = torch.view_as_real(tensor) if tensor.is_complex() else tensor
    return parts.view(WHOLE_NUMBERS[_part_size(tensor)])


def _multiply(pairs: list[tuple[torch.Tensor, torch.Tensor]]) -> None:
    if pairs:
        torch._foreach_mul_([bits for bits, _ in pairs], [words for _, words in pairs])


def _fresh_values(optimizer: torch.optim.Optimizer, group: Mapping[str, Any]) -> dict[str, float]:
    return {key: float(group[option]) for (kind, key), option in FRESH.items() if isinstance(optimizer, kind)}


def _fill(state: Mapping[str, Any], gone: torch.Tensor, fresh: Mapping[str, float]) -> None:
    for key, value in state.items():
        # A number, as the count of steps is, is not of each weight, even where there is one weight.
        if isinstance(value, torch.Tensor) and value.dim() and value.shape == gone.shape:
            value.masked_fill_(gone.to(value.device), fresh.get(key, 0.0))


def _forget_directions(optimizer: torch.optim.LBFGS, masked: Mapping[torch.Tensor, _Weight]) -> None:
    """Start LBFGS anew where it remembers a change of a pruned weight: its vectors, over all parameters, fit each other."""
    parameters = optimizer.param_groups[0]["params"]
    state = optimizer.state.get(parameters[0])
    if not state or "d" not in state:
        return
    vectors = [state["d"], state["prev_flat_grad"], *state["old_dirs"], *state["old_stps"]]
    parts = []
    for one in parameters:
        count = one.numel() * (2 if one.is_complex() else 1)
        kept = masked[one].words.flatten() if one in masked else torch.ones(count)
        parts.append(kept.to(state["d"].device, torch.bool))
    pruned = ~torch.cat(parts)
    if any(bool(vector[pruned].any()) for vector in vectors):
        state.clear()
