"""What of a network's values does not depend on its input: it runs once on an input of NaN, and the rest are numbers.

A NaN goes through every operation of floating point, also where the result does not depend on it: 0 * NaN is NaN. So a
product with a weight of 0, by which a mask removes an edge, is looked at apart; what is NaN afterwards depends on the
input along kept weights, and what is a number is the value that every input gives.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from torch.utils._pytree import tree_leaves
from torch.utils.weak import WeakTensorKeyDictionary

from pai_cli.errors import TraceError
from pai_cli.models.follow import Follower
from pai_cli.models.operations import PRODUCTS

ELEMENTWISE = frozenset(("_to_copy", "clone", "detach", "alias", "masked_fill"))
"""Operations on each element by itself, beside those that PyTorch itself tags as pointwise."""


class ConstantFollower(Follower):  # type: ignore[no-untyped-call]
    """A follower for an input of NaN, through which constants stay numbers."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__(model)
        self._decided = WeakTensorKeyDictionary()
        """By tensor of flags or indices, where they depend on the input: such numbers cannot be NaN."""

    def carried_out(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """What the operation gives: NaN where it depends on the input, else what every input gives.

        Raises `TraceError` where the network goes by flags, indices or Python numbers that depend on its input.
        """
        name = func._schema.name.partition("::")[2].removesuffix("_")
        given = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)]
        if torch.Tag.pointwise in func.tags or name in ELEMENTWISE:
            return self._elementwise(func, args, kwargs, self._unknown(given))
        if any(self.decided(tensor) for tensor in given):
            raise self._goes_by_values(name)
        if name == "convolution":
            return _through_weights(func, args, kwargs, 0)
        if name in PRODUCTS:
            return _through_weights(func, args, kwargs, PRODUCTS[name])
        if "batch_norm" in name:
            return _normed(func, args, kwargs)
        result = func(*args, **kwargs)
        if any(bool(torch.isnan(tensor).any()) for tensor in given):
            if isinstance(result, bool | int | float):
                raise self._goes_by_values(name)
            for leaf in tree_leaves(result):
                if isinstance(leaf, torch.Tensor) and not leaf.is_floating_point() and not leaf.is_complex():
                    self._decided[leaf] = torch.ones_like(leaf, dtype=torch.bool)
        return result

    def _elementwise(
        self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], unknown: torch.Tensor | None
    ) -> Any:
        result = func(*args, **kwargs)
        if unknown is None or not isinstance(result, torch.Tensor):
            return result
        if result.is_floating_point() or result.is_complex():
            # In place: some of these operations write into what they are given.
            return result.masked_fill_(unknown, math.nan)
        if func._schema.is_mutable and result._is_view():
            raise self._goes_by_values(func._schema.name.partition("::")[2])
        self._decided[result] = unknown
        return result

    def decided(self, tensor: torch.Tensor) -> bool:
        """Whether these are flags or indices that depend on the input."""
        return tensor in self._decided

    def _unknown(self, tensors: Sequence[torch.Tensor]) -> torch.Tensor | None:
        """Where any of the tensors, which broadcast together, depends on the input; None for nowhere."""
        found = [self._decided[one] if one in self._decided else torch.isnan(one) for one in tensors]
        found = [one for one in found if bool(one.any())]
        if not found:
            return None
        together = found[0]
        for one in found[1:]:
            together = together | one
        return together

    def _goes_by_values(self, name: str) -> TraceError:
        return TraceError(
            f"what does not depend on the input cannot be told: {self.place} decides by its values ({name})"
        )


def _through_weights(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], first: int) -> Any:
    """A convolution or a product: NaN where a weight that is not 0 leads from a NaN."""
    value, weight = args[first : first + 2]
    unknown = torch.isnan(value)
    if not bool(unknown.any()):
        return func(*args, **kwargs)

    def given(value: torch.Tensor, weight: torch.Tensor, plain: bool) -> list[Any]:
        changed = list(args)
        changed[first : first + 2] = value, weight
        bias = 0 if first else 2
        if plain and len(changed) > bias and isinstance(changed[bias], torch.Tensor):
            changed[bias] = torch.zeros_like(changed[bias])
        return changed

    result = func(*given(value.masked_fill(unknown, 0), weight, plain=False), **kwargs)
    # Products by a factor other than 1 count edges all the same.
    plainly = {key: one for key, one in kwargs.items() if key not in ("alpha", "beta")}
    edges = func(*given(unknown.to(value.dtype), (weight != 0).to(value.dtype), plain=True), **plainly)
    return result.masked_fill_(edges > 0.5, math.nan)


def _normed(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """A batch norm: where it multiplies by 0, what it gives is its bias, whatever it is given.

    Without running statistics it goes by those of the whole channel: where any of that depends on the input, all does.
    """
    value, weight = args[:2]
    unknown = torch.isnan(value)
    result, *others = func(value.masked_fill(unknown, 0), *args[1:], **kwargs)
    if not isinstance(args[3], torch.Tensor) or args[5] is True:
        along = [dim for dim in range(value.dim()) if dim != 1]
        unknown = unknown.any(along, keepdim=True).expand(value.shape)
    if isinstance(weight, torch.Tensor):
        unknown = unknown & (weight != 0).reshape(1, -1, *[1] * (value.dim() - 2))
    return (result.masked_fill_(unknown, math.nan), *others)
