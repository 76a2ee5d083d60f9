"""The mask file: a safetensors file with one boolean tensor (or packed bits) a pruned parameter.

A file made elsewhere is a mask too when every tensor is boolean or holds only 0 and 1. Everything is checked before use.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from pai_cli.errors import MaskError, MaskMismatchError, OutputError
from pai_cli.files.atomic import write_bytes
from pai_cli.files.buffers import told_of_buffers
from pai_cli.files.canonical import canonical_bytes
from pai_cli.files.digest import sha256_of
from pai_cli.files.layer_names import layouts_by_name, told_of_kernels
from pai_cli.files.ordering import check_names, natural_order, spelled
from pai_cli.files.tensors import Span, TensorFile
from pai_cli.spectral.layout import MOST_GROUPS, PLAIN, Layout
from pai_cli.spelling import option

if TYPE_CHECKING:
    import numpy as np

FORMAT = "pai-mask"
FORMAT_VERSION = 1
STACKS_VERSION = 2
"""Of a file with stacks, which a reader that knows none would take for convolutions."""

BITS = "BITS"
"""What `MaskFile.span` calls the type of packed masks: eight booleans a byte."""

MOST_DIMENSIONS = 32  # NumPy's limit was that for long; no weight comes near it
MOST_ELEMENTS = 2**48

MOST_ENTRIES = 2**32  # of an unrolled layer: four times the largest matrix of today's language models
MOST_GROUPED = 2**29
"""Of a layer in groups, most of whose entries no file holds: half as many again as EfficientNet-B7 has."""


CHECKPOINT_INSTEAD = f"a checkpoint goes to {option('weights')}, or to pai prune"


class Mask(Protocol):
    """What is asked of a mask, whoever wrote its file.

    `names` are the masked parameters, `remark` what a person should know of how the file was read ("" for nothing).
    """

    @property
    def path(self) -> Path:
        """Where it was read from."""

    @property
    def metadata(self) -> Mapping[str, str]:
        """What the file says of itself."""

    @property
    def names(self) -> tuple[str, ...]:
        """The masked parameters, in the network's order where the file tells it."""

    @property
    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        """Shape of every masked parameter."""

    @property
    def remark(self) -> str:
        """What a person should know of how the file was read, or ""."""

    def layout(self, name: str) -> Layout:
        """Groups and transposition of a layer."""

    def array(self, name: str) -> np.ndarray:
        """One parameter's mask, boolean."""


def span_of(mask: Mask, name: str) -> Span | None:
    """Where a parameter's own bytes stand in a file, as `MaskFile.span` says; None of a mask that is in none as it is."""
    asked: Callable[[str], Span | None] | None = getattr(mask, "span", None)
    return None if asked is None else asked(name)


def unknown_layouts(mask: Mask) -> tuple[str, ...]:
    """The parameters of which nobody told groups and transposition, where there is something to tell."""
    return tuple(name for name in mask.names if not mask.layout(name).known)


def boolean(path: Path, name: str, raw: np.ndarray, remedy: str = CHECKPOINT_INSTEAD) -> np.ndarray:
    """The stored array as a mask. Raises `MaskError`, which ends with `remedy`, for any other value than 0 and 1."""
    import numpy as np

    values = raw.view(np.uint8) if raw.dtype == np.bool_ else raw
    small = values.dtype == np.uint8  # the usual case, where one pass over the bytes is enough
    fine = values.max(initial=0) <= 1 if small else bool(((values == 0) | (values == 1)).all())
    if not fine:
        at = int(np.flatnonzero((values != 0) & (values != 1))[0])
        raise MaskError(
            f"{path}: tensor {name!r} holds {values.reshape(-1)[at]} at index {at}, and a mask holds only 0 and 1; {remedy}"
        )
    mask: np.ndarray = values.view(np.bool_) if small else values.astype(np.bool_)
    return mask


def is_binary(array: np.ndarray) -> bool:
    """Whether there is nothing but 0 and 1."""
    return array.dtype == bool or bool(((array == 0) | (array == 1)).all())


class MaskFile:
    """One mask file, its header checked; masks are read, and their values checked, tensor by tensor.

    `names` are in the network's order where the file tells it, else in natural order of the names. Raises `MaskError`.
    """

    def __init__(self, path: Path):
        self.path = path
        self._file = TensorFile(path, MaskError)
        self.metadata = self._file.metadata
        if not self._file.names:
            raise MaskError(f"{path}: holds no tensor, so it is no mask")
        self._check_version()
        self._packed_shapes = self._read_json("shapes")
        self._layers = self._read_json("layers")
        self.names = self._ordered_names()
        for name in self._packed_shapes:
            self._check_packed(name)
        for name in self._layers:
            check_layout(path, name, self._shape(name), self.layout(name))

    @property
    def is_ours(self) -> bool:
        """Whether the file says that it is a mask (others are taken at the word of their values)."""
        return self.metadata.get("format") == FORMAT

    @property
    def looks_like_checkpoint(self) -> bool:
        """Whether a folder's listing should leave the file out: it does not say mask, and holds real numbers."""
        return not self.is_ours and any(
            self._file.dtype(name).startswith(("F", "BF")) and not is_binary(self._file.array(name))
            for name in self._file.names
        )

    @cached_property
    def sha256(self) -> str:
        """Hex digest of the file's bytes."""
        return sha256_of([self.path])

    @cached_property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Shape of every masked parameter, in `names` order."""
        return {name: self._shape(name) for name in self.names}

    @property
    def remark(self) -> str:
        """What a person should know: that names were taken for those of Flax or Keras, and of masks of buffers."""
        if self._layers:
            return ""
        told = told_of_kernels(self.shapes), told_of_buffers(self.shapes, self.array)
        return "; ".join(filter(None, told))

    def layout(self, name: str) -> Layout:
        """Groups and transposition of a layer, where the file, or its name, tells them."""
        return layout_of(self._layers[name]) if self._layers else self._by_name[name]

    @cached_property
    def _by_name(self) -> dict[str, Layout]:
        return layouts_by_name(self.shapes)

    def array(self, name: str) -> np.ndarray:
        """One parameter's mask, boolean, in the parameter's shape. Raises `MaskError` for any other value than 0 and 1."""
        raw = self._file.array(name)
        if name in self._packed_shapes:
            return self._unpacked(name, raw)
        return boolean(self.path, name, raw)

    def span(self, name: str) -> Span | None:
        """Where a parameter's own bytes stand: `BITS`, or booleans of one byte; None for a mask of other numbers."""
        span = self._file.span(name)
        if name in self._packed_shapes:
            return replace(span, dtype=BITS)
        return span if span.dtype in ("BOOL", "U8") else None

    def _unpacked(self, name: str, raw: np.ndarray) -> np.ndarray:
        import numpy as np

        shape = self._shape(name)
        size = math.prod(shape)
        bits = np.unpackbits(raw)
        if bits[size:].any():
            raise MaskError(f"{self.path}: tensor {name!r} has bits set past its last element; make the mask again")
        return bits[:size].view(np.bool_).reshape(shape)

    def _check_packed(self, name: str) -> None:
        """Raise `MaskError` unless the tensor has as many bits as the shape that is told, before anyone believes it."""
        shape, stored, kind = self._shape(name), self._file.shapes[name], self._file.dtype(name)
        if kind != "U8" or stored != (-(-math.prod(shape) // 8),):
            raise MaskError(
                f"{self.path}: tensor {name!r} is {kind} of shape {stored}, which cannot hold the bits of "
                f"shape {shape}; make the mask again"
            )

    def _shape(self, name: str) -> tuple[int, ...]:
        return tuple(self._packed_shapes[name]) if name in self._packed_shapes else self._file.shapes[name]

    def _check_version(self) -> None:
        version = self.metadata.get("format_version", str(FORMAT_VERSION))
        if self.is_ours and version not in (str(FORMAT_VERSION), str(STACKS_VERSION)):
            raise MaskError(f"{self.path}: mask format version {version} is not known to this pai; upgrade pai-cli")

    def _read_json(self, key: str) -> dict[str, Any]:
        """A JSON object in the metadata, checked against the tensors there are; {} where there is none."""
        if not self.is_ours or key not in self.metadata:
            return {}
        try:
            value = json.loads(self.metadata[key])
        except (ValueError, RecursionError) as e:
            raise MaskError(f"{self.path}: its metadata {key!r} is not valid JSON; make the mask again") from e
        if not isinstance(value, dict) or set(value) != set(self._file.names):
            raise MaskError(f"{self.path}: its metadata {key!r} does not list the file's tensors; make the mask again")
        if not all(_valid_entry(key, entry) for entry in value.values()):
            raise MaskError(f"{self.path}: its metadata {key!r} is damaged; make the mask again")
        return value

    def _ordered_names(self) -> tuple[str, ...]:
        return tuple(self._layers) if self._layers else tuple(sorted(self._file.names, key=natural_order))


def layout_of(facts: Mapping[str, Any]) -> Layout:
    """A layer's entry in the metadata `layers`."""
    if not facts:
        return PLAIN
    told = (bool(facts.get(key, False)) for key in ("transposed", "kernel_first", "unknown", "stacked"))
    transposed, kernel_first, unknown, stacked = told
    return Layout(int(facts.get("groups", 1)), transposed, kernel_first, not unknown, stacked)


def check_layout(path: Path, name: str, shape: tuple[int, ...], layout: Layout) -> None:
    """Raise `MaskMismatchError` when the groups of a layer do not divide its channels, and for a stack that is none. Asked
    by all that read or write.
    """
    if layout.stacked and not layout.fits(shape):
        raise MaskMismatchError(
            f"{path}: {name!r} is told to be a stack of matrices, which has three dimensions and no groups, and has shape "
            f"{shape}; make the mask again"
        )
    if not layout.fits(shape):
        channels = layout.kernel_last(shape)[0] if shape else 0
        raise MaskMismatchError(
            f"{path}: {name!r} has {channels} channels, which {layout.groups} groups do not divide; make the mask again"
        )


def unrolls(path: Path, name: str, shape: tuple[int, ...], layout: Layout) -> None:
    """Raise `MaskMismatchError` or `MaskError` when a layer cannot be unrolled: its groups, or its size."""
    check_layout(path, name, shape, layout)
    rows, columns = layout.matrix(shape)
    most, which = (MOST_ENTRIES, "") if layout.groups == 1 else (MOST_GROUPED, " of a layer in groups")
    if rows * columns > most:
        raise MaskError(
            f"{path}: {name!r} unrolls to {rows:,} x {columns:,}, more than {most:,} entries{which}; "
            f"leave it out with {option('layers')}"
        )


def valid_layers(value: Any) -> bool:
    """Whether a value can be the metadata `layers`."""
    return isinstance(value, dict) and all(_valid_entry("layers", entry) for entry in value.values())


def layers_json(layouts: Mapping[str, Layout]) -> str:
    """The metadata `layers`: parameters in order, with what of their layout is not plain."""
    return _json({name: _facts(layout) for name, layout in layouts.items()})


def _valid_entry(key: str, entry: Any) -> bool:
    if key == "shapes":
        if not isinstance(entry, list) or len(entry) > MOST_DIMENSIONS:
            return False
        return all(type(n) is int and 0 <= n <= MOST_ELEMENTS for n in entry) and math.prod(entry) <= MOST_ELEMENTS
    groups = entry.get("groups", 1) if isinstance(entry, dict) else None
    return type(groups) is int and 1 <= groups <= MOST_GROUPS


@dataclass(frozen=True)
class MaskToWrite:
    """What a mask file is made of: boolean arrays by parameter name in network order, layouts, and the story told."""

    masks: Mapping[str, np.ndarray]
    layouts: Mapping[str, Layout]
    metadata: Mapping[str, str]


def write_mask(path: Path, mask: MaskToWrite, *, packed: bool, force: bool) -> None:
    """Write a mask file, whole or not at all.

    Raises `OutputError`, also for a name that the file cannot hold, and `MaskError` for an array that is not boolean.
    """
    data = _encode(path, mask, packed=packed)
    write_bytes(path, data, force=force)


def _encode(path: Path, mask: MaskToWrite, *, packed: bool) -> bytes:
    import numpy as np
    from safetensors.numpy import save

    for name, array in mask.masks.items():
        if array.dtype != np.bool_:
            raise MaskError(f"{path}: the mask of {name!r} is {array.dtype}, not boolean")
    check_names(path, mask.masks, OutputError)
    shapes = {name: array.shape for name, array in mask.masks.items()}
    for name, shape in shapes.items():
        check_layout(path, name, shape, mask.layouts.get(name, PLAIN))
    metadata = full_metadata(shapes, mask.layouts, mask.metadata, packed=packed)
    arrays = {name: np.ascontiguousarray(array) for name, array in mask.masks.items()}
    if packed:
        arrays = {name: np.packbits(array) for name, array in arrays.items()}
    return canonical_bytes(save(arrays, metadata))


def full_metadata(
    shapes: Mapping[str, tuple[int, ...]], layouts: Mapping[str, Layout], story: Mapping[str, str], *, packed: bool
) -> dict[str, str]:
    """All of a mask file's metadata: its `story`, and what the format asks for. `shapes`: in network order."""
    layers = layers_json({name: layouts.get(name, PLAIN) for name in shapes})
    told = {key: spelled(text) for key, text in story.items()}
    version = STACKS_VERSION if any(layouts.get(name, PLAIN).stacked for name in shapes) else FORMAT_VERSION
    metadata = {**told, "format": FORMAT, "format_version": str(version), "layers": layers}
    if packed:
        metadata["shapes"] = _json({name: list(shape) for name, shape in shapes.items()})
    return metadata


def _facts(layout: Layout) -> dict[str, Any]:
    facts: dict[str, Any] = {}
    if layout.groups != 1:
        facts["groups"] = layout.groups
    told = {"transposed": layout.transposed, "kernel_first": layout.kernel_first, "unknown": not layout.known}
    told |= {"stacked": layout.stacked}
    return facts | {key: True for key, value in told.items() if value}


def _json(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"))
