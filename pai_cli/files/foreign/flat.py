"""State dicts with masks beside their weights, under other names than `*_mask`: `mask.fc.weight`, `fc.weight.mask`."""

from __future__ import annotations

from pai_cli.errors import MaskError
from pai_cli.files.foreign.base import MAKE_BINARY, Content, Masks, Names
from pai_cli.files.foreign.torch_prune import beside
from pai_cli.files.masks import is_binary
from pai_cli.files.messages import some_names
from pai_cli.files.stored_names import Pair, unpaired


def recognises(content: Content) -> bool:
    """Whether a tensor of 0 and 1 is called as another one of its shape, but for a word that says mask."""
    return bool(_pairs(content))


def remark(content: Content) -> str:
    """What a person should know: which tensors were taken for the masks of which."""
    pairs = _pairs(content)
    name, pair = next(iter(pairs.items()))
    more = f", and {len(pairs) - 1} more like it" if len(pairs) > 1 else ""
    return f"{pair.mask!r} is taken for the mask of {name!r}{more}"


def loose(content: Content) -> str:
    """What to say of masks beside weights that cannot be read as such; "" where there are none."""
    shapes = {name: stored.shape for name, stored in content.tensors.items()}
    soft, lost = unpaired(shapes, {pair.mask for pair in content.masked.values()})
    lost = [name for name in lost if is_binary(content.tensors[name].read())]
    if lost:
        named = some_names(map(repr, lost))
        return f"has weights, and masks whose names do not tell of which: {named}; save each as the weight's name and _mask"
    if soft:
        return (
            f"has weights, and masks that hold other values than 0 and 1: {some_names(map(repr, soft))}; {MAKE_BINARY}"
        )
    return ""


def masks(content: Content, _names: Names | None) -> Masks:
    """The masks, by the names of what they mask."""
    pairs = _pairs(content)
    if not pairs:
        raise MaskError(f"{content.path}: has no tensor of 0 and 1 whose name says that it is another one's mask")
    return beside(content, pairs)


def _pairs(content: Content) -> dict[str, Pair]:
    return {name: pair for name, pair in content.masked.items() if not pair.named_alike}
