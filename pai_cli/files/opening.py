"""One way to open a mask, whoever wrote it: a file of `pai`'s own, or of another tool when its kind is beyond doubt."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from pai_cli.errors import AmbiguousMaskError, CheckpointError, MaskError, PaiError
from pai_cli.files.buffers import told_of_buffers
from pai_cli.files.digest import sha256_of
from pai_cli.files.fits import Against, check_fits
from pai_cli.files.folders import config_beside, file_of
from pai_cli.files.foreign import dense, flat, registry
from pai_cli.files.foreign.base import NAMES_FROM, Content, Kind, Names, Stored
from pai_cli.files.foreign.containers import LAYERS_KEY, is_foreign, read_content
from pai_cli.files.foreign.dense import doubt
from pai_cli.files.graph_files import open_graph
from pai_cli.files.layer_names import layouts_by_name, told_of_kernels
from pai_cli.files.masks import CHECKPOINT_INSTEAD, Mask, MaskFile, boolean
from pai_cli.files.matching import called_there
from pai_cli.files.stored_names import MASK
from pai_cli.spectral.layout import Layout
from pai_cli.spelling import option

if TYPE_CHECKING:
    import numpy as np

DENSE, LIST, NAMED = "dense", "list", ("dict", "npz")
REMARKS = {DENSE: dense.remark, "flat": flat.remark}
"""What a person should know of how a file of these kinds was read."""


class ForeignMask:
    """A mask that another tool wrote, tensor by tensor as `MaskFile` gives its own.

    `kind` is the registry's; masks of biases and norms that prune nothing are left out. Raises `MaskError`.
    """

    def __init__(self, content: Content, kind: Kind, names: Names | None = None):
        self.path = content.path
        self.kind = kind.name
        self.metadata: Mapping[str, str] = {}
        self._content = content
        self._layouts = names.layouts if names else content.layouts
        masks = {name: mask for name, mask in kind.masks(content, names).items() if _prunes_weights(mask)}
        if not masks:
            raise MaskError(f"{content.path}: prunes no weight, as {kind.name}: it has masks of biases and norms alone")
        if names is not None:
            _check_fits(content.path, {name: mask.shape for name, mask in masks.items()}, names)
        first = names.prunable if names else tuple(content.layouts)
        self._masks = {name: masks[name] for name in (*(n for n in first if n in masks), *masks)}
        self.names = tuple(self._masks)

    @cached_property
    def remark(self) -> str:
        """What a person should know: that zeros were taken for a mask, names for those of Flax or Keras, what was read."""
        kernels = told_of_kernels({name: shape for name, shape in self.shapes.items() if name not in self._layouts})
        read = REMARKS[self.kind](self._content) if self.kind in REMARKS else ""
        under = f"its masks are those under {self._content.under!r}" if self._content.under else ""
        buffers = told_of_buffers(self.shapes, self.array) if self.kind in NAMED else ""
        return "; ".join(filter(None, (read, under, kernels, buffers)))

    @cached_property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Shape of every masked parameter, in `names` order."""
        return {name: mask.shape for name, mask in self._masks.items()}

    def layout(self, name: str) -> Layout:
        """Groups and transposition of a layer, as far as they are known."""
        return self._layouts.get(name) or self._by_name[name]

    @cached_property
    def _by_name(self) -> dict[str, Layout]:
        shapes = {**{name: stored.shape for name, stored in self._content.tensors.items()}, **self.shapes}
        return layouts_by_name(shapes, config_beside(self.path))

    def array(self, name: str) -> np.ndarray:
        """One parameter's mask, boolean, in the parameter's shape. Raises `MaskError` for other values than 0 and 1."""
        return self._masks[name].read()

    @cached_property
    def sha256(self) -> str:
        """Hex digest of the bytes it was read from."""
        return sha256_of(self._content.files)


def open_mask(path: Path, *, trust: bool = False) -> Mask:
    """The mask in a file, whose kind is found out; a graph in a file of its own (`graph_files`) is one of one layer.

    Raises `AmbiguousMaskError` when it could be of several kinds, `MaskError` when it is none (a checkpoint among them), is
    damaged or has sparse tensors, which `open_as` gives to who names the kind, `CheckpointError` for the faults of torch's
    files; `trust` allows a pickle to run its own code.
    """
    path = file_of(path)
    graph = open_graph(path)
    if graph is not None:
        return graph
    if not is_foreign(path):
        file = MaskFile(path)
        content = _perhaps_foreign(file)
        if content is None:
            return file
    else:
        content = read_content(path, trust=trust)
    mask = _only(content, registry.candidates(content))
    if mask is None:
        _tell_what_it_is(content)
        raise _unknown(content)
    return mask


def open_as(path: Path, kind: str | None, names: Names | None = None, *, trust: bool = False) -> MaskFile | ForeignMask:
    """The mask in a file of this kind, for `pai convert`; with None, of the kind it is without a doubt.

    `names`: a checkpoint that gives a list its names; any other kind is checked against it and takes its order and
    layouts. Raises as `open_mask` does, and `MaskError` when the file is not of that kind.
    """
    if kind is not None:
        registry.check_name(kind)
    path = file_of(path)
    if not is_foreign(path):
        file = MaskFile(path)
        if kind == registry.OURS or (kind is None and (content := _perhaps_foreign(file)) is None):
            if names is not None:
                _check_fits(path, file.shapes, names)
            return file
    elif kind == registry.OURS:
        raise MaskError(
            f"{path}: is no safetensors file; {option('kind')} takes its kind, or leave {option('kind')} out"
        )
    content = read_content(path, trust=trust)
    if kind is not None:
        return ForeignMask(content, registry.KINDS[kind], names)
    mask = _only(content, registry.candidates(content), names)
    if mask is None:
        raise _unknown(content)
    return mask


def _check_fits(path: Path, shapes: Mapping[str, tuple[int, ...]], names: Names) -> None:
    """Raise `MaskMismatchError` unless the masks are of the checkpoint's weights, by their names or those that it has."""
    called = called_there(shapes, names.shapes)
    check_fits(path, {called[name]: shape for name, shape in shapes.items()}, Against.of(names, NAMES_FROM))


def why_unlisted(path: Path, *, trust: bool = False) -> str:
    """Why a folder's listing passes over a file that can be read: it is no mask beyond doubt. "" for a mask.

    A pruned network without masks is a guess, good enough for a file that is named but not for one that is found.
    """
    if is_foreign(path):
        content = read_content(path, trust=trust)
    else:
        file = MaskFile(path)
        found = _perhaps_foreign(file)
        if found is None:  # what a search keeps of itself beside its mask is no mask
            matrices = file.is_ours or any(len(shape) > 1 for shape in file.shapes.values())
            return "" if matrices else "no tensor has rows and columns"
        content = found
    kinds = [kind.name for kind in registry.candidates(content)]
    if len(kinds) > 1:
        return f"could be {' or '.join(kinds)}"
    if kinds == [LIST]:
        return "holds arrays without names"
    if kinds and (why := _why_sparse(content)):
        return why
    if kinds and kinds != [DENSE]:
        return ""
    weights = any(stored.floating for stored in content.tensors.values())
    return "holds weights, not a mask" if weights else "no mask of a known kind"


def _perhaps_foreign(file: MaskFile) -> Content | None:
    """The content of a safetensors file that is no plain mask; None for masks of `pai`'s and of only 0 and 1."""
    if file.is_ours:
        return None
    weights = LAYERS_KEY in file.metadata or file.looks_like_checkpoint
    if not weights and not any(name.endswith(MASK) for name in file.names):
        return None
    content = read_content(file.path, trust=False)
    return content if weights or content.masked else None


def _only(content: Content, kinds: list[Kind], names: Names | None = None) -> ForeignMask | None:
    if len(kinds) > 1:
        could_be = " or ".join(kind.name for kind in kinds)
        raise AmbiguousMaskError(
            f"{content.path}: could be {could_be}; {option('kind', kinds[0].name)} (or another) of pai convert says "
            "which"
        )
    if kinds and kinds[0].name != LIST and names is None and (why := _why_sparse(content)):
        raise MaskError(
            f"{content.path}: {why}; {option('kind', kinds[0].name)} of pai convert makes a plain mask of it"
        )
    return ForeignMask(content, kinds[0], names) if kinds else None


def _why_sparse(content: Content) -> str:
    """Why a file with sparse tensors is read only for who asks for it: what they leave out may be more than zeros."""
    found = content.sparse
    return (
        f"{found.label!r} is a sparse tensor ({found.sparse.upper()}), which cannot be read as it is" if found else ""
    )


def _tell_what_it_is(content: Content) -> None:
    """Raise what a mask of other values than 0 and 1 raises, when the file is a state dict of real numbers.

    Where some of them are 0, who pruned it must say so.
    """
    if not content.fault and (why := flat.loose(content)):
        raise MaskError(f"{content.path}: {why}")
    if not content.fault and (why := doubt(content)):
        raise MaskError(f"{content.path}: {why}; {CHECKPOINT_INSTEAD}")
    for stored in content.tensors.values():
        if len(stored.shape) > 1:
            boolean(content.path, stored.label, stored.read(), CHECKPOINT_INSTEAD)


def _unknown(content: Content) -> PaiError:
    if content.fault:
        return CheckpointError(content.fault)
    if content.zeros.sizes and not content.zeros.binary:
        why = (
            flat.loose(content) or doubt(content) or f"has weights, none of them 0, and no masks; {CHECKPOINT_INSTEAD}"
        )
        return MaskError(f"{content.path}: {why}")
    return MaskError(
        f"{content.path}: not a mask of a known kind ({', '.join(registry.KINDS)}); "
        f"{option('kind', 'KIND')} of pai convert says which it is"
    )


def _prunes_weights(mask: Stored) -> bool:
    return len(mask.shape) > 1 or not mask.read().all()
