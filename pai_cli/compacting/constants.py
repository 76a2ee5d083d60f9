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
from torch.utils._pytree import tree_leaves

from pai_cli.errors import TraceError
from pai_cli.models.follow import Follower
from pai_cli.models.operations import PRODUCTS


class ConstantFollower(Follower):  # type: ignore[no-untyped-call]
    """A follower for an input of NaN, through which constants stay numbers."""

    def carried_out(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """What the operation gives: NaN where it depends on the input, else what every input gives.

        Raises `TraceError` where the network compares values of its input, as the results are no numbers.
        """
        name = func._schema.name.partition("::")[2].removesuffix("_")
        if name == "convolution":
            return _through_weights(func, args, kwargs, 0)
        if name in PRODUCTS:
            return _through_weights(func, args, kwargs, PRODUCTS[name])
        if "batch_norm" in name:
            return _normed(func, args, kwargs)
        if torch.Tag.pointwise not in func.tags:
            return func(*args, **kwargs)
        unknown = _unknown([leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)])
        result = func(*args, **kwargs)
        if unknown is None or not isinstance(result, torch.Tensor):
            return result
        if not result.is_floating_point():
            where = repr(self._path[-1]) if self._path and self._path[-1] else "the network"
            raise TraceError(
                f"what does not depend on the input cannot be told: {where} decides by its values ({name})"
            )
        # In place: some of these operations write into what they are given.
        return result.masked_fill_(unknown, math.nan)


def _unknown(tensors: Sequence[torch.Tensor]) -> torch.Tensor | None:
    """Where any of the tensors, which broadcast together, is NaN; None for nowhere."""
    found = [torch.isnan(tensor) for tensor in tensors if tensor.is_floating_point()]
    found = [one for one in found if bool(one.any())]
    if not found:
        return None
    together = found[0]
    for one in found[1:]:
        together = together | one
    return together


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
    edges = func(*given(unknown.to(value.dtype), (weight != 0).to(value.dtype), plain=True), **kwargs)
    return result.masked_fill_(edges > 0.5, math.nan)


def _normed(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """A batch norm: where it multiplies by 0, what it gives is its bias, whatever it is given."""
    value, weight = args[:2]
    unknown = torch.isnan(value)
    result, *others = func(value.masked_fill(unknown, 0), *args[1:], **kwargs)
    if isinstance(weight, torch.Tensor):
        unknown = unknown & (weight != 0).reshape(1, -1, *[1] * (value.dim() - 2))
    return (result.masked_fill_(unknown, math.nan), *others)
