"""Writing the folder of a Hugging Face model whole or not at all: a copy of another, with other weights in its tensors."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from pai_cli.errors import CheckpointError, OutputError
from pai_cli.files.atomic import flush_folder
from pai_cli.files.canonical import LENGTH_BYTES, canonical_header
from pai_cli.files.folders import is_model
from pai_cli.files.locks import lock_now, open_files_can_go
from pai_cli.files.messages import some_names
from pai_cli.files.ordering import spelled
from pai_cli.files.temporary import PREFIX, SUFFIX, free_name
from pai_cli.printable import as_line, reason_of
from pai_cli.spelling import option

if TYPE_CHECKING:
    import torch

    from pai_cli.files.checkpoints import Checkpoint

OTHER_WEIGHTS = (".safetensors", ".bin", ".pt", ".pth", ".ckpt", ".h5", ".msgpack", ".gguf", ".onnx")
"""Files of a model's folder that have its weights a second time: they would not be the new ones."""


def check_folder(path: Path, source: Path | None, *, force: bool) -> None:
    """Raise `OutputError` for a place where no folder can be written, before any work is done for it.

    With `force` a model's folder is replaced that has nothing but its weights and what the one it is copied from, `source`,
    has files of that name for: all else would be lost.
    """
    parent = path.absolute().parent
    if not parent.is_dir():
        raise OutputError(f"{path}: the folder {parent} does not exist; make it first (mkdir -p {parent})")
    if not os.access(parent, os.W_OK):
        raise OutputError(f"{path}: no permission to write in {parent}")
    if not os.path.lexists(path):
        return
    if not force:
        raise OutputError(f"{path}: exists already; {option('force')} replaces it")
    if path.is_symlink() or not is_model(path):
        raise OutputError(f"{path}: is no model's folder, and is not replaced; choose another name")
    if lost := _lost(path, source):
        raise OutputError(f"{path}: {some_names(lost)} in it would be lost; move that away, or choose another name")


def _lost(path: Path, source: Path | None) -> list[str]:
    """What is in a model's folder and would not come back in a copy of `source`."""
    from pai_cli.files.checkpoints import files_of

    with _told(path):
        own = {file.name for file in files_of(path)}
        own |= {file.name for file in source.iterdir()} if source is not None and source.is_dir() else set()
        return sorted(as_line(file.name) for file in path.iterdir() if file.name not in own or not file.is_file())


def check_source(source: Checkpoint) -> None:
    """Raise `CheckpointError` for weights of a folder that cannot be written anew where they stand."""
    if not source.in_spans:
        raise CheckpointError(f"{source.path}: only a folder with safetensors is written anew; save it as such")


class NewFolder:
    """A model's folder that is being written; `left_out`: what of the one it is copied from is not in it."""

    def __init__(self, source: Checkpoint, folder: Path, metadata: Mapping[str, str]):
        self._source = source
        self._folder = folder
        self._moved: dict[str, int] = {}
        self.left_out: tuple[str, ...] = ()
        self._copy({key: spelled(text) for key, text in metadata.items()})

    def write(self, name: str, values: torch.Tensor) -> None:
        """Put values in the place of a tensor's, in its own type and shape. Raises `OutputError`."""
        import torch

        span = self._source.span(name)
        raw = values.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data
        if len(raw) != span.size:
            raise ValueError(f"{name}: {len(raw)} bytes are not the {span.size} of its tensor")
        path = self._folder / span.path.name
        with _told(path), path.open("r+b") as stream:
            stream.seek(span.begin + self._moved[span.path.name])
            stream.write(raw)

    def _copy(self, metadata: Mapping[str, str]) -> None:
        shards = {file.name for file in self._source.files}
        index = {self._source.path.name}
        left = []
        for path in sorted(self._source.path.parent.iterdir()):
            other = path.suffix in OTHER_WEIGHTS or (path.name.endswith(".index.json") and path.name not in index)
            to = self._folder / path.name
            if path.name in shards:
                with _told(to):
                    self._moved[path.name] = _copy_shard(path, to, metadata)
            elif not path.is_file() or other:
                left += [] if path.name.startswith(PREFIX) else [path.name]
            else:
                with _told(to):
                    shutil.copyfile(path, to)
        self.left_out = tuple(left)


def _copy_shard(path: Path, to: Path, metadata: Mapping[str, str]) -> int:
    """Copy a safetensors file, with more in its metadata; by how many bytes its tensors then stand further on."""
    with path.open("rb") as source, to.open("wb") as target:
        length = int.from_bytes(source.read(LENGTH_BYTES), "little")
        header = json.loads(source.read(length))
        header["__metadata__"] = {"format": "pt", **header.get("__metadata__", {}), **metadata}
        start = canonical_header(header)
        target.write(start)
        shutil.copyfileobj(source, target, 2**22)
    return len(start) - LENGTH_BYTES - length


@contextmanager
def new_folder(source: Checkpoint, path: Path, metadata: Mapping[str, str], *, force: bool) -> Iterator[NewFolder]:
    """Inside, a copy of the source's folder takes new values; afterwards it is the folder `path`, or nothing is there.

    Its shards, their index, the configuration and the tokenizer are those of the source; other files with weights and
    folders are left out. `metadata` is added to that of the weights. Raises `OutputError`, `CheckpointError`.
    """
    check_source(source)
    check_folder(path, source.path.parent, force=force)
    parent = path.absolute().parent
    _sweep(parent)
    folder, lock = parent / free_name(), None
    try:
        with _told(path):
            folder.mkdir()
            lock = _locked(folder)
        yield NewFolder(source, folder, metadata)
        with _told(path):
            for file in folder.iterdir():
                with file.open("rb+") as stream:
                    _flush(stream)
            _take(folder, path)
        flush_folder(parent)
    finally:  # Ctrl-C too must leave nothing behind
        shutil.rmtree(folder, ignore_errors=True)
        if lock is not None:
            os.close(lock)


def _locked(folder: Path) -> int | None:
    """The folder, opened and locked, which tells others that it is being written; None where folders are not."""
    if not open_files_can_go():
        return None
    descriptor = os.open(folder, os.O_RDONLY)
    lock_now(descriptor)
    return descriptor


def _sweep(parent: Path) -> None:
    """Remove what killed processes have left half written; a folder that is empty may be about to be locked."""
    if not open_files_can_go():
        return
    for path in parent.glob(f"{PREFIX}*{SUFFIX}"):
        with suppress(OSError):  # not ours to open, no folder, or gone meanwhile
            descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
            try:
                if any(path.iterdir()) and lock_now(descriptor):
                    shutil.rmtree(path, ignore_errors=True)
            finally:
                os.close(descriptor)


def _take(folder: Path, path: Path) -> None:
    """Give the folder its name; one that had it goes, and comes back where that fails."""
    if not os.path.lexists(path):
        folder.rename(path)
        return
    old = path.absolute().parent / f"{free_name()}.old"  # under no name that is swept
    path.rename(old)
    try:
        folder.rename(path)
    except BaseException:
        old.rename(path)
        raise
    shutil.rmtree(old, ignore_errors=True)


def _flush(stream: BinaryIO) -> None:
    stream.flush()
    os.fsync(stream.fileno())


@contextmanager
def _told(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as e:
        raise OutputError(f"{path}: cannot be written: {reason_of(e)}") from e
