"""Whether masks fit a network, and how many of its weights they keep: asked here by all who put the two together."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pai_cli.errors import MaskMismatchError
from pai_cli.files.matching import spellings
from pai_cli.files.messages import all_names, some_names
from pai_cli.spelling import option

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from pai_cli.files.foreign.base import Names, Stored
    from pai_cli.files.matching import Weights

Shape = tuple[int, ...]

FEW = 4  # names that a message offers for one


@dataclass(frozen=True)
class Against:
    """What masks are to fit: `called` in messages, the `shapes` of its parameters, and the `remedy` where they do not."""

    called: str
    shapes: Mapping[str, Shape]
    remedy: str

    @classmethod
    def of(cls, checkpoint: Weights | Names, parameter: str) -> Against:
        """The checkpoint that the user gave for `parameter`."""
        remedy = f"{option(parameter)} takes the checkpoint that the mask was made for"
        return cls(str(checkpoint.path), checkpoint.shapes, remedy)


def check_fits(source: object, shapes: Mapping[str, Shape], against: Against) -> None:
    """Raise `MaskMismatchError` unless each mask of `source` is of a parameter there is, in its shape.

    Parameters that have no mask are kept whole: `count` tells of them.
    """
    if missing := [name for name in shapes if name not in against.shapes]:
        raise MaskMismatchError(
            f"{source}: masks {some_names(map(repr, missing))}, which {against.called} does not have"
            f"{_called_there(missing[0], shapes, against.shapes)}; {against.remedy}"
        )
    misshapen = [
        f"{name!r} is {times(shape)} here and {times(against.shapes[name])} there"
        for name, shape in shapes.items()
        if tuple(against.shapes[name]) != tuple(shape)
    ]
    if misshapen:
        raise MaskMismatchError(f"{source}: does not fit {against.called}: {some_names(misshapen)}; {against.remedy}")


def _called_there(name: str, masks: Collection[str], there: Iterable[str]) -> str:
    """What a parameter may be called there, if not too many are: what ends as it does, or as which it ends."""
    ends = tuple(f".{ending}" for ending in spellings(name))
    close = [other for other in there if f".{other}" in ends] or [
        other for other in there if f".{other}".endswith(ends) or f".{name}".endswith(f".{other}")
    ]
    if len(close) == 1:
        return f" (it has {close[0]!r}{', which has a mask of its own' if close[0] in masks else ''})"
    return f" (it may be any of {all_names(map(repr, close))})" if 0 < len(close) <= FEW else ""


def check_complete(source: object, names: Iterable[str], against: Against) -> None:
    """Raise `MaskMismatchError` unless `source` has every one of the other's weights."""
    there = set(names)
    if missing := [repr(name) for name in against.shapes if name not in there]:
        raise MaskMismatchError(f"{source}: lacks {some_names(missing)} of {against.called}; {against.remedy}")


def by_order(source: object, arrays: Iterable[Stored], against: Against) -> dict[str, Stored]:
    """Arrays without names under those of the weights, in order. Raises `MaskMismatchError` for another number or shape."""
    listed = list(arrays)
    if len(listed) != len(against.shapes):
        raise MaskMismatchError(
            f"{source}: {len(listed)} arrays, and {against.called} has {len(against.shapes)} prunable weights; "
            f"{against.remedy}"
        )
    named = dict(zip(against.shapes, listed, strict=True))
    check_fits(source, {name: array.shape for name, array in named.items()}, against)
    return named


def without_twins(
    masks: Mapping[str, NDArray[np.bool_]], parameters: Mapping[str, object], *, source: object, remedy: str
) -> dict[str, NDArray[np.bool_]]:
    """The masks, that of a weight which several modules share under the first of its names alone.

    `parameters`: of the network, by every name. Raises `MaskMismatchError` where such a weight has two masks that differ.
    """
    import numpy as np

    first: dict[int, str] = {}
    for name, mask in masks.items():
        known = first.setdefault(id(parameters[name]), name)
        if not np.array_equal(masks[known], mask):
            raise MaskMismatchError(
                f"{source}: the masks of {known!r} and {name!r} differ, and in this network they are one weight; {remedy}"
            )
    return {name: masks[name] for name in first.values()}


@dataclass(frozen=True)
class Count:
    """How many of a network's prunable weights are kept: `by_mask` of them by a mask, all of the layers `whole`, which it
    does not name and which have `unnamed` weights. `total`: of all these layers.
    """

    total: int
    by_mask: int
    whole: tuple[str, ...]
    unnamed: int

    @property
    def kept(self) -> int:
        """Weights that are kept."""
        return self.by_mask + self.unnamed

    @property
    def density(self) -> float:
        """The share that is kept, 0 to 1."""
        return self.kept / self.total if self.total else 1.0

    def told(self, mask: object) -> str:
        """ "K of them kept by M", or where the mask lacks layers how many each keeps."""
        if not self.whole:
            return f"{self.kept:,} of them kept by {mask}"
        layers = "1 layer" if len(self.whole) == 1 else f"{len(self.whole)} layers"
        return (
            f"{self.kept:,} of them kept: {self.by_mask:,} by {mask}, the other {self.unnamed:,} in {layers} that it does "
            f"not name and that stay whole ({some_names(self.whole)})"
        )

    def of_network(self, mask: object = None) -> str:
        """What the network keeps (under a mask, where others could be meant), its layers without one among it; "" where all
        have one.
        """
        if not self.whole:
            return ""
        under = "" if mask is None else f" under {mask}"
        return (
            f"with {some_names(self.whole)} the network keeps {self.kept:,} of {self.total:,} weights{under}, density "
            f"{self.density:.4g}"
        )


def count(sizes: Mapping[str, int], kept: Mapping[str, int]) -> Count:
    """Of layers of these sizes, what masks keep that keep so many weights each; a layer without a mask keeps all."""
    whole = tuple(name for name in sizes if name not in kept)
    named = sum(kept[name] for name in sizes if name in kept)
    return Count(sum(sizes.values()), named, whole, sum(sizes[name] for name in whole))


def times(shape: Shape) -> str:
    """A shape as a person reads it: 64x32x3x3."""
    return "x".join(str(side) for side in shape)
