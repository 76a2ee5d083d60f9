"""A file on standard input, kept while this process runs: its readers go back and forth, which a pipe does not let them."""

from __future__ import annotations

import io
import shutil
import tempfile
import zipfile
from pathlib import Path
from typing import TextIO

from pai_cli.compute.stopping import at_the_end
from pai_cli.errors import CheckpointError
from pai_cli.files.first_bytes import ENOUGH, is_pickle, is_safetensors, looks_like

STANDARD_INPUT = "-"
SPELLED = (STANDARD_INPUT, "/dev/stdin")
NAME = "standard-input"
_folders: list[str] = []
_STARTS = {b"\x93NUMPY": ".npy", b"%%MatrixMarket": ".mtx"}


class KeptFile(type(Path())):  # type: ignore[misc]  # Path itself has no subclasses before Python 3.12
    """A file that was on standard input, and is called so: only who opens it gets to know where it is."""

    def __str__(self) -> str:
        return STANDARD_INPUT

    def __fspath__(self) -> str:
        path: str = super().__str__()
        return path


def is_standard_input(given: object) -> bool:
    """Whether what was given for a file that is read means standard input."""
    return str(given) in SPELLED


def bytes_of(stdin: TextIO) -> bytes:
    """All that there is to read, of text as its bytes: names of files may be no text."""
    buffer = getattr(stdin, "buffer", None)
    return buffer.read() if buffer is not None else stdin.read().encode("utf-8", "surrogateescape")


def kept(raw: bytes) -> Path | None:
    """A file of these bytes, which is gone when this process ends; None where they are no mask's and no checkpoint's."""
    suffix = _suffix(raw)
    return None if suffix is None else kept_as(suffix, raw)


def kept_as(suffix: str, raw: bytes) -> Path:
    """A file of these bytes, whose name ends so."""
    folder = tempfile.mkdtemp(prefix="pai-")
    _folders.append(folder)
    path: Path = KeptFile(folder, f"{NAME}{suffix}")
    path.write_bytes(raw)
    return path


@at_the_end
def _remove_kept() -> None:
    while _folders:
        shutil.rmtree(_folders.pop(), ignore_errors=True)


def file_in(stdin: TextIO) -> Path:
    """The file on standard input. Raises `CheckpointError` for anything else."""
    raw = bytes_of(stdin)
    path = kept(raw)
    if path is None:
        raise CheckpointError(f"{STANDARD_INPUT}: no mask and no checkpoint; it looks like {looks_like(raw[:ENOUGH])}")
    return path


def _suffix(raw: bytes) -> str | None:
    """What the name of such a file ends with."""
    if is_safetensors(raw[:ENOUGH]):
        return ".safetensors"
    if raw.startswith(b"PK") and zipfile.is_zipfile(io.BytesIO(raw)):
        with zipfile.ZipFile(io.BytesIO(raw)) as archive:
            return ".npz" if any(name.endswith(".npy") for name in archive.namelist()) else ".pt"
    if is_pickle(raw[:ENOUGH]):
        return ".pt"
    return next((suffix for start, suffix in _STARTS.items() if raw.startswith(start)), None)
