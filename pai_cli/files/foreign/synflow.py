"""Synaptic-Flow's `model.pt` (Tanaka et al. 2020): its layers keep buffers `weight_mask` and `bias_mask` beside their own
`weight` and `bias`, which stay unpruned.
"""

from __future__ import annotations

from pai_cli.errors import MaskError
from pai_cli.files.foreign.base import Content, Masks, Names
from pai_cli.files.foreign.torch_prune import beside


def recognises(content: Content) -> bool:
    """Whether there is a `*_mask` beside a parameter of the same name."""
    return any(pair.named_alike and pair.values == name for name, pair in content.masked.items())


def masks(content: Content, _names: Names | None) -> Masks:
    """The `*_mask` of every parameter."""
    pairs = {name: pair for name, pair in content.masked.items() if pair.named_alike and pair.values == name}
    if not pairs:
        raise MaskError(
            f"{content.path}: has no *_mask beside a parameter of that name, as Synaptic-Flow's layers have"
        )
    return beside(content, pairs)
