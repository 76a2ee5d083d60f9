"""State dicts of `torch.nn.utils.prune`: `fc.weight_orig` has the values, `fc.weight_mask` what is kept of them."""

from __future__ import annotations

from collections.abc import Mapping

from pai_cli.errors import MaskError
from pai_cli.files.foreign.base import Content, Masks, Names, as_mask
from pai_cli.files.stored_names import ORIGINAL, Pair


def recognises(content: Content) -> bool:
    """Whether there is a `*_mask` beside a `*_orig`."""
    return any(pair.named_alike and pair.values.endswith(ORIGINAL) for pair in content.masked.values())


def masks(content: Content, _names: Names | None) -> Masks:
    """The `*_mask` of every `*_orig`."""
    pairs = {name: pair for name, pair in content.masked.items() if pair.named_alike and pair.values == name + ORIGINAL}
    if not pairs:
        raise MaskError(f"{content.path}: has no *_mask beside a *_orig, as torch.nn.utils.prune leaves them")
    return beside(content, pairs)


def beside(content: Content, pairs: Mapping[str, Pair]) -> Masks:
    """The masks of these parameters, each of the shape of its values."""
    found = {}
    for name, pair in pairs.items():
        mask, wanted = content.tensors[pair.mask], content.tensors[pair.values].shape
        if mask.shape != wanted:
            raise MaskError(
                f"{content.path}: {mask.label!r} has shape {mask.shape}, and its weight {wanted}; save the network again"
            )
        found[name] = as_mask(content.path, mask)
    return found
