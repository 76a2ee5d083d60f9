"""The file formats that foreign masks come in, and what is in such a file."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pai_cli.errors import CheckpointError, MaskError
from pai_cli.files.checkpoints import Checkpoint, open_checkpoint, unpickled_checkpoint
from pai_cli.files.first_bytes import check_readable, first_bytes, is_pickle, is_safetensors
from pai_cli.files.foreign.base import Content, Stored
from pai_cli.files.foreign.npz import is_npz, read_npz
from pai_cli.files.masks import layout_of, valid_layers
from pai_cli.files.ordering import natural_order
from pai_cli.files.stored_names import ORIGINAL
from pai_cli.files.tensors import TensorFile
from pai_cli.spectral.layout import Layout

if TYPE_CHECKING:
    import torch

LAYERS_KEY = "pai_layers"
"""Where `pai convert` notes the masked weights, in order, in the safetensors files of weights that it writes."""

NPY = b"\x93NUMPY"


def is_foreign(path: Path) -> bool:
    """Whether the file is read here; all others are safetensors files, or have their fault told as such."""
    start = check_readable(path, MaskError)
    if start.startswith(NPY):
        raise MaskError(f"{path}: one NumPy array without a name; save masks with numpy.savez, by name")
    if is_safetensors(start):  # whose first bytes, a length, may also look like a pickle's
        return False
    return is_pickle(start) or (path.name.endswith(".json") and start.lstrip().startswith(b"{"))


def read_content(path: Path, *, trust: bool) -> Content:
    """What is in a file, of any of the formats.

    Raises `MaskError` and, for damaged files of torch and pickles that need code, `CheckpointError`.
    """
    if not is_foreign(path) or path.name.endswith(".json"):
        return _of_checkpoint(open_checkpoint(path, trust=trust, as_stored=True), _told_layouts(path))
    return read_npz(path) if first_bytes(path).startswith(b"PK") and is_npz(path) else _read_torch(path, trust=trust)


def _of_checkpoint(checkpoint: Checkpoint, layouts: Mapping[str, Layout] | None = None) -> Content:
    names = list(checkpoint.shapes) if checkpoint.ordered else sorted(checkpoint.shapes, key=natural_order)
    tensors = {
        name: Stored(
            checkpoint.stored_name(name),
            checkpoint.shapes[name],
            checkpoint.floating(name),
            partial(checkpoint.array, name),
            checkpoint.sparse(name),
        )
        for name in names
    }
    told = {}
    for name, layout in (layouts or {}).items():
        stored = tensors.get(name) or tensors.get(name + ORIGINAL)
        if stored is not None and layout.fits(stored.shape):
            told[name] = layout
    container = "torch" if checkpoint.ordered else "safetensors"
    return Content(
        checkpoint.path,
        container,  # type: ignore[arg-type]
        checkpoint.files,
        tensors,
        ordered=checkpoint.ordered,
        layouts=told,
    )


def _told_layouts(path: Path) -> dict[str, Layout]:
    """What `pai convert` noted of the weights; a note that makes no sense is as good as none."""
    if path.name.endswith(".json"):
        return {}
    try:
        layers = json.loads(TensorFile(path, MaskError).metadata.get(LAYERS_KEY, "{}"))
    except (ValueError, RecursionError):
        return {}
    return {name: layout_of(facts) for name, facts in layers.items()} if valid_layers(layers) else {}


def _read_torch(path: Path, *, trust: bool) -> Content:
    from pai_cli.files.pickles import load_pickle, masks_beside

    loaded = load_pickle(path, trust=trust, arrays=True)
    listed = _listed(path, loaded)
    if listed:
        return Content(path, "torch", (path,), listed=listed)
    under, masks = masks_beside(loaded)
    if masks:
        beside = _of_checkpoint(unpickled_checkpoint(path, dict(masks)))
        return Content(path, "torch", (path,), beside.tensors, under=under)
    modules = _modules(path, loaded)
    try:
        content = _of_checkpoint(unpickled_checkpoint(path, loaded, as_stored=True))
    except CheckpointError as e:
        return Content(path, "torch", (path,), modules=modules, fault=e.text)
    return Content(path, "torch", (path,), content.tensors, modules)


def _listed(path: Path, loaded: Any) -> tuple[Stored, ...]:
    import torch

    if not isinstance(loaded, list | tuple) or not all(isinstance(value, torch.Tensor) for value in loaded):
        return ()
    return tuple(_stored(path, f"[{position}]", value) for position, value in enumerate(loaded))


def _modules(path: Path, loaded: Any) -> dict[str, dict[str, Stored]]:
    """A dict of dicts of tensors (or None), and {} for anything else."""
    import torch

    if not isinstance(loaded, Mapping) or not all(isinstance(inner, Mapping) for inner in loaded.values()):
        return {}
    for inner in loaded.values():
        if not all(value is None or isinstance(value, torch.Tensor) for value in inner.values()):
            return {}
    return {
        str(module): {
            str(target): _stored(path, f"{module}.{target}", value)
            for target, value in inner.items()
            if value is not None
        }
        for module, inner in loaded.items()
    }


def _stored(path: Path, label: str, tensor: torch.Tensor) -> Stored:
    """A tensor that stands in no state dict."""
    one = unpickled_checkpoint(path, {label: tensor}, as_stored=True)
    name = next(iter(one.shapes))
    return Stored(label, one.shapes[name], one.floating(name), partial(one.array, name), one.sparse(name))
