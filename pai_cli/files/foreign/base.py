"""What a kind of foreign mask is: a way to tell it from the others, and a way to read it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pai_cli.files.layer_names import layout_by_name
from pai_cli.files.masks import boolean, is_binary
from pai_cli.files.stored_names import Pair, pairs_among
from pai_cli.spectral.layout import Layout

if TYPE_CHECKING:
    import numpy as np

    from pai_cli.files.foreign.zeros import Zeros

NAMES_FROM = "names_from"
"""The parameter of `convert` that gives a checkpoint's `Names`."""

MAKE_BINARY = "make it boolean first"


@dataclass(frozen=True)
class Stored:
    """A tensor in a file: `label` is what the file calls it, `read` gets its values, in a dtype that NumPy has.

    `sparse` is the layout of one that keeps the places of its values (`coo`), "" of a plain one.
    """

    label: str
    shape: tuple[int, ...]
    floating: bool
    read: Callable[[], np.ndarray]
    sparse: str = ""


@dataclass(frozen=True)
class Content:
    """What a file holds, before anyone says what it means.

    `tensors`: of a state dict or archive, by name without wrappers' prefixes; `modules`: of a dict of dicts, by module
    and then by parameter; `listed`: of a list. A file has one of the three, seldom two. `ordered`: whether names are in
    the order in which they were put there. `layouts`: what the file itself says of the network's weights, in their order.
    `fault`: why a file of torch holds no tensors by name. `under`: the key under which masks stand beside weights.
    """

    path: Path
    container: Literal["safetensors", "torch", "npz"]
    files: tuple[Path, ...]
    tensors: Mapping[str, Stored] = field(default_factory=dict)
    modules: Mapping[str, Mapping[str, Stored]] = field(default_factory=dict)
    listed: tuple[Stored, ...] = ()
    ordered: bool = True
    layouts: Mapping[str, Layout] = field(default_factory=dict)
    fault: str = ""
    under: str = ""

    @cached_property
    def zeros(self) -> Zeros:
        """What is 0 in its weights: all tensors are read for it, once."""
        from pai_cli.files.foreign.zeros import zeros_of

        return zeros_of(self.tensors)

    @property
    def sparse(self) -> Stored | None:
        """The first of its tensors that keeps the places of its values, if one does."""
        modules = (stored for inner in self.modules.values() for stored in inner.values())
        return next((stored for stored in (*self.tensors.values(), *modules, *self.listed) if stored.sparse), None)

    @cached_property
    def masked(self) -> dict[str, Pair]:
        """Parameters that have a mask beside them, by name."""
        shapes = {name: stored.shape for name, stored in self.tensors.items()}
        return pairs_among(shapes, lambda name: is_binary(self.tensors[name].read()))


@dataclass(frozen=True)
class Names:
    """A checkpoint's tensors, for masks that need names or should be checked against them.

    `prunable`: the weights that can be pruned; `ordered` says whether they are in the network's order. `layouts`: theirs.
    """

    path: Path
    shapes: Mapping[str, tuple[int, ...]]
    prunable: tuple[str, ...]
    layouts: Mapping[str, Layout]
    ordered: bool = True

    @property
    def weights(self) -> dict[str, tuple[int, ...]]:
        """Shape of every prunable weight, in their order."""
        return {name: self.shapes[name] for name in self.prunable}

    def layout(self, name: str) -> Layout:
        """Groups and transposition of a weight, as far as they are known."""
        return self.layouts.get(name) or layout_by_name(name, self.shapes[name])


Masks = dict[str, Stored]
"""By parameter name; `read` gives a boolean array, or raises `MaskError`."""


@dataclass(frozen=True)
class Kind:
    """A row of the registry.

    `recognises`: whether a file is of this kind, told without a doubt from its names and values. `masks`: the masks in it;
    raises `MaskError` when the file is of another kind. `summary` is for the help of `pai convert`.
    """

    name: str
    summary: str
    recognises: Callable[[Content], bool]
    masks: Callable[[Content, Names | None], Masks]


def as_mask(path: Path, stored: Stored) -> Stored:
    """The same tensor, read as a mask: any other value than 0 and 1 is refused."""
    return Stored(stored.label, stored.shape, False, lambda: boolean(path, stored.label, stored.read(), MAKE_BINARY))
