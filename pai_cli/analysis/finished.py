"""Masks that were measured before: found in the store by their bytes, the weights' bytes and what was asked."""

from __future__ import annotations

import hashlib
import stat
from dataclasses import dataclass
from pathlib import Path

from pai_cli.analysis.encoded import FORM, Encoded, decode, encode
from pai_cli.analysis.masks import AnalysisRequest, MaskReport
from pai_cli.files.store import Store, stamp_of
from pai_cli.spectral.catalogue import METRIC_VERSION
from pai_cli.spectral.compiled import calls


@dataclass(frozen=True)
class Looked:
    """A file that was looked up: its key and stamp, None for one that is not kept; and its report, if it was found."""

    path: Path
    key: bytes | None = None
    stamp: str = ""
    report: MaskReport | None = None


class Finished:
    """The finished work of one request: of the same masks, measured in the same way with the same weights."""

    def __init__(self, store: Store, request: AnalysisRequest, weights: tuple[Path, ...]):
        self._store = store
        self._layers = request.per_layer
        self._about = ""
        if store.open:
            digests = [store.digest(path) for path in weights]
            # Of a sharded set an index, which is none of these files, says what of them is the network.
            shapes = None if request.weights is None else sorted(request.weights.shapes.items())
            engine = f"{'compiled' if calls.available() else 'arrays'} {request.device}"
            asked = request.options, request.layers, request.trust
            self._about = repr((METRIC_VERSION, FORM, engine, asked, digests, shapes))

    @property
    def kept(self) -> bool:
        """Whether there is a store that work is put into."""
        return self._store.open

    def look(self, path: Path) -> Looked:
        """What is known of a mask file. One that cannot be read has no key: its fault is told where masks are read."""
        if not self._store.open or path.name.endswith(".json"):  # an index, whose bytes are not the mask's
            return Looked(path)
        try:
            facts = path.stat()
            if not stat.S_ISREG(facts.st_mode):
                return Looked(path)
            digest = self._store.digest(path)
        except OSError:
            return Looked(path)
        key = hashlib.sha256(f"{self._about} {path.suffix} {digest}".encode("utf-8", "backslashreplace")).digest()
        return Looked(path, key, stamp_of(facts), self._found(path, key))

    def _found(self, path: Path, key: bytes) -> MaskReport | None:
        row = self._store.get(key, layers=self._layers)
        if row is None:
            return None
        try:
            return decode(path, Encoded(*row), layers=self._layers)
        except ValueError:  # a row that is damaged is as good as none, and is written anew
            return None

    def keep(self, looked: Looked, report: MaskReport | Encoded) -> None:
        """Store what was found of a mask, unless its file has changed since it was looked up."""
        if looked.key is None or not self._store.open:
            return
        try:
            if stamp_of(looked.path.stat()) != looked.stamp:
                return
        except OSError:
            return
        encoded = report if isinstance(report, Encoded) else encode(report)
        self._store.put(looked.key, encoded.network, encoded.layers)
