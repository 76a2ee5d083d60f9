"""Masks that were measured before: found in the store by their bytes, the weights' bytes and what was asked.

Names, sizes and times of files are not believed: every file is hashed each time, at about 1 GB/s. Where one changes while
it is read, what was found is shown and not kept.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from pai_cli.analysis.encoded import FORM, Encoded, decode, encode
from pai_cli.analysis.masks import AnalysisRequest, MaskReport
from pai_cli.files.checkpoints import Checkpoint, is_safetensors
from pai_cli.files.digest import sha256_of
from pai_cli.files.store import Store
from pai_cli.spectral.catalogue import METRIC_VERSION
from pai_cli.spectral.compiled import calls


@dataclass(frozen=True)
class Seen:
    """Files as they were read: their digests, and what else changes when one is written to or exchanged."""

    digests: tuple[str, ...]
    stamps: tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class Looked:
    """A file that was looked up: its key and how it was, None for one that is not kept; and its report, if it was found."""

    path: Path
    key: bytes | None = None
    seen: Seen | None = None
    report: MaskReport | None = None


class Finished:
    """The finished work of one request: of the same masks, measured in the same way with the same weights."""

    def __init__(self, store: Store, request: AnalysisRequest):
        self._store = store
        self._layers = request.per_layer
        self._trust = request.trust
        self._weights = _files_of(request)
        self._about: str | None = None
        if request.weights is not None and not self._weights:  # in memory: no file tells one from another
            return
        if not store.open or (request.trust and not all(map(_is_plain, self._weights))):
            return
        try:
            seen = _seen(self._weights)
        except OSError:  # told when they are read
            return
        self._weights_then = seen.stamps
        # Of a sharded set an index says what of its files is the network.
        shapes = None if request.weights is None else sorted(request.weights.shapes.items())
        engine = f"{'compiled' if calls.available() else 'arrays'} {request.device}"
        asked = request.options, request.layers, request.trust
        self._about = repr((METRIC_VERSION, FORM, engine, asked, seen.digests, shapes))

    @property
    def kept(self) -> bool:
        """Whether there is a store that work is put into."""
        return self._store.open and self._about is not None

    def look(self, path: Path) -> Looked:
        """What is known of a mask file. One that cannot be read has no key: its fault is told where masks are read."""
        if not self.kept or path.name.endswith(".json"):  # an index, whose bytes are not the mask's
            return Looked(path)
        try:
            if not stat.S_ISREG(path.stat().st_mode) or (self._trust and not _is_plain(path)):
                return Looked(path)
            seen = _seen([path])
        except OSError:
            return Looked(path)
        about = f"{self._about} {path.suffix} {seen.digests[0]}"
        key = hashlib.sha256(about.encode("utf-8", "backslashreplace")).digest()
        return Looked(path, key, seen, self._found(path, key))

    def _found(self, path: Path, key: bytes) -> MaskReport | None:
        row = self._store.get(key, layers=self._layers)
        if row is None:
            return None
        try:
            return decode(path, Encoded(*row), layers=self._layers)
        except ValueError:  # a row that cannot be read is as good as none, and is written anew
            return None

    def keep(self, looked: Looked, report: MaskReport | Encoded) -> None:
        """Store what was found of a mask, unless its file or the weights have changed since they were looked up."""
        if looked.key is None or not self._store.open:
            return
        try:
            # The mask's bytes once more: its writer may be one whose writes show in no time of change before it ends.
            if _seen([looked.path]) != looked.seen or _stamps(self._weights) != self._weights_then:
                return
        except OSError:
            return
        encoded = report if isinstance(report, Encoded) else encode(report)
        self._store.put(looked.key, encoded.network, encoded.layers)


def _files_of(request: AnalysisRequest) -> tuple[Path, ...]:
    """What the weights follow from: an index, which says in which file a tensor is, and the files themselves."""
    if not isinstance(request.weights, Checkpoint):
        return ()
    path, files = request.weights.path, request.weights.files
    if not files:
        return ()
    return (path, *files) if path.is_file() and path not in files else files


def _is_plain(path: Path) -> bool:
    """Whether a file's bytes are all that its values follow from: a pickle may run code that stands elsewhere."""
    try:
        with path.open("rb") as stream:
            start = stream.read(64)
    except OSError:
        return False
    return is_safetensors(start) or start.lstrip().startswith(b"{")


def _seen(paths: Iterable[Path]) -> Seen:
    """Files as they are. Times are taken first: what changes from then on shows in them, or in the digests."""
    files = list(paths)
    stamps = _stamps(files)
    return Seen(tuple(sha256_of([file]) for file in files), stamps)


def _stamps(paths: Iterable[Path]) -> tuple[tuple[int, ...], ...]:
    found: list[os.stat_result] = [path.stat() for path in paths]
    return tuple((one.st_size, one.st_mtime_ns, one.st_ctime_ns, one.st_dev, one.st_ino) for one in found)
