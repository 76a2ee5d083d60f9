"""What a file is and what it holds, told without running anything in it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pai_cli.errors import PaiError, UnknownModelError, UntrustedPickleError
from pai_cli.files.digest import sha256_of
from pai_cli.files.first_bytes import first_bytes, is_pickle
from pai_cli.files.folders import is_model
from pai_cli.files.messages import some_names
from pai_cli.spelling import for_python, option

if TYPE_CHECKING:
    from pai_cli.files.checkpoints import Checkpoint
    from pai_cli.files.masks import Mask

Kind = Literal["mask", "checkpoint", "program", "folder"]

STORY = ("method", "density", "seed", "data", "architecture", "command", "created", "source", "source_sha256")
"""What a file may tell of how it was made, in the order shown."""


@dataclass(frozen=True)
class TensorInfo:
    """One tensor. `dtype`: "float32", "bool" ... `kept`: how many of a mask's entries are 1; None of anything else."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    kept: int | None = None

    @property
    def total(self) -> int:
        """Its elements."""
        return prod(self.shape)


@dataclass(frozen=True, kw_only=True)
class FileInfo:
    """A file, or a folder.

    `kind`: "mask"; "checkpoint"; "program" (of `torch.export`); "folder" of files that are no one model, each then in
    `files`. `format`: who wrote it: "pai", "safetensors", "torch", or a kind of mask as `convert` names them. `network`: the
    architecture that is recognised, else None. `story`: what the file tells of how it was made, by the names of `STORY`.
    `bytes`: of all its files; `sha256`: their digest, None of a folder. `message`: `remark` before its parameters are
    spelled.
    """

    path: Path
    kind: Kind
    format: str
    bytes: int
    sha256: str | None = None
    network: str | None = None
    tensors: tuple[TensorInfo, ...] = ()
    files: tuple[FileInfo, ...] = ()
    story: Mapping[str, str] = field(default_factory=dict)
    message: str = field(default="", repr=False)

    @property
    def remark(self) -> str:
        """What a person should know, or ""."""
        return for_python(self.message)

    @property
    def total(self) -> int:
        """Elements of all tensors."""
        return sum(one.total for one in self.tensors)

    @property
    def kept(self) -> int | None:
        """Entries that a mask keeps; None of what is none."""
        return sum(one.kept or 0 for one in self.tensors) if self.kind == "mask" else None


def info_of(path: Path, *, trust: bool = False) -> FileInfo:
    """What the file or folder is and holds.

    Raises what `open_checkpoint` raises for what is neither a mask nor a checkpoint. `trust`: a pickle or a program may run
    its own code; without it a program is told to be one, and not looked into.
    """
    if path.is_dir() and not is_model(path):
        return _folder(path, trust=trust)
    from pai_cli.files.programs import is_program

    program = path.is_file() and is_pickle(first_bytes(path)) and is_program(path)
    if program and not trust:
        remark = f"cannot be looked into without running code of its maker: {option('trust')} allows that"
        return FileInfo(
            path=path,
            kind="program",
            format="torch.export",
            bytes=path.stat().st_size,
            sha256=sha256_of([path]),
            message=remark,
        )
    found = None if program else _mask(path, trust=trust)
    if found is not None:
        return found
    from pai_cli.files.checkpoints import open_checkpoint

    return _of_checkpoint(path, open_checkpoint(path, trust=trust), "program" if program else "checkpoint")


def _mask(path: Path, *, trust: bool) -> FileInfo | None:
    """The same of a mask; None for what is not one beyond doubt, which may still be a checkpoint."""
    from pai_cli.files.checkpoints import files_of
    from pai_cli.files.masks import FORMAT
    from pai_cli.files.opening import DENSE, open_mask

    try:
        mask = open_mask(path, trust=trust)
        tensors = tuple(_mask_tensor(mask, name) for name in mask.names)
    except UntrustedPickleError:
        raise
    except PaiError:
        return None
    kind = getattr(mask, "kind", "pai" if mask.metadata.get("format") == FORMAT else "safetensors")
    if kind == DENSE:  # weights, whose zeros may be taken for a mask
        return None
    files = [file for file in files_of(path) if file.is_file()]
    return FileInfo(
        path=path,
        kind="mask",
        format=kind,
        bytes=_size(files),
        sha256=sha256_of(files),
        tensors=tensors,
        story=_story(mask.metadata),
        message=mask.remark,
    )


def _mask_tensor(mask: Mask, name: str) -> TensorInfo:
    import numpy as np

    return TensorInfo(name, tuple(mask.shapes[name]), "bool", int(np.count_nonzero(mask.array(name))))


def _of_checkpoint(path: Path, checkpoint: Checkpoint, kind: Kind) -> FileInfo:
    from pai_cli.models.recognise import recognised

    try:
        known = recognised(checkpoint)
        remark = checkpoint.description
    except UnknownModelError as error:
        known, remark = None, error.text
    return FileInfo(
        path=path,
        kind=kind,
        format="torch.export" if kind == "program" else "safetensors" if checkpoint.in_spans else "torch",
        bytes=_size(checkpoint.files),
        sha256=checkpoint.sha256,
        network=known.description if known is not None else None,
        tensors=tuple(TensorInfo(name, shape, checkpoint.dtype(name)) for name, shape in checkpoint.shapes.items()),
        story=_story(checkpoint.metadata),
        message=remark,
    )


def _folder(path: Path, *, trust: bool) -> FileInfo:
    """Of every file in it that is a mask or a checkpoint; what is neither is counted."""
    from pai_cli.files.ordering import file_order
    from pai_cli.files.paths import SUFFIXES

    every = sorted(
        (one for one in path.iterdir() if not one.name.startswith(".")), key=lambda one: file_order(one.name)
    )
    files, others = [], []
    for one in every:
        if (one.is_dir() and not is_model(one)) or (one.is_file() and one.suffix not in SUFFIXES):
            others.append(one.name)
            continue
        try:
            files.append(info_of(one, trust=trust))
        except PaiError:
            others.append(one.name)
    remark = f"{len(others)} more that are neither mask nor checkpoint: {some_names(others)}" if others else ""
    return FileInfo(
        path=path, kind="folder", format="", bytes=sum(one.bytes for one in files), files=tuple(files), message=remark
    )


def _size(files: Iterable[Path]) -> int:
    return sum(file.stat().st_size for file in files if file.is_file())


def _story(metadata: Mapping[str, str]) -> dict[str, str]:
    return {key: metadata[key] for key in STORY if metadata.get(key)}
