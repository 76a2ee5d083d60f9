"""Masks that were measured before: found in the store by their bytes, the weights' bytes and what was asked.

Names, sizes and times of files are not believed: every file is hashed each time, at about 1 GB/s. Where one changes while
it is read, what was found is shown and not kept.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
import zipfile
import zlib
from collections.abc import Iterable
from dataclasses import astuple, dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from pai_cli.analysis.masks import AnalysisRequest, MaskReport
from pai_cli.compute.device import ON_TORCH, Device
from pai_cli.errors import PaiError, ParameterError
from pai_cli.files.checkpoints import Checkpoint
from pai_cli.files.digest import sha256_of
from pai_cli.files.first_bytes import first_bytes, is_safetensors
from pai_cli.files.masks import MaskFile
from pai_cli.files.store import Store
from pai_cli.spectral.catalogue import METRIC_VERSION
from pai_cli.spectral.compiled import calls
from pai_cli.spectral.conventions import Convention
from pai_cli.spectral.graph import Counts
from pai_cli.spectral.layout import Layout
from pai_cli.spectral.network import DenseCache, NetworkReport
from pai_cli.spectral.result import Measure, Outcome
from pai_cli.spectral.table import NO_LAYERS, Column, LayerTable

FORM = 12  # to be raised with any change below: what was stored in another form is not read

NOT_GRAPHS = (".safetensors", ".pt", ".pth")
"""What ends the names of files whose layers have names of their own; that of a graph by itself is called as its file."""

OUTCOMES = {outcome.name: outcome for outcome in Outcome}

COUNT, NUMBER = "<i8", "<f8"  # in bytes

UnmaskedMeasures = dict[tuple[str, Layout], dict[str, Measure]]

LARGE = 2**24  # bytes of a file from which its header is looked at before all of it is hashed

LEVEL = 1  # of compression: the next ones take twice the time for a tenth of the size


@dataclass(frozen=True)
class Encoded:
    """A report of one mask, without its path: what holds for the network, and for its layers; compressed."""

    network: bytes
    layers: bytes


def encode(report: MaskReport) -> Encoded:
    """The bytes of a report that has no error."""
    network = report.report
    assert network is not None
    whole = {
        "metadata": report.metadata,
        "skipped": report.skipped,
        "remark": report.remark,
        "shapes": report.shapes,
        "measures": _measures(network.measures),
        "counted": network.counted,
        "kept": network.kept,
        "total": network.total,
        "collapsed": network.collapsed,
        "unproved": network.unproved,
        "full": network.full,
        "unanswered": network.unanswered,
        "assumed": network.assumed,
        "convention": network.convention,
    }
    return Encoded(_packed(whole), _packed_layers(network.layers))


def decode(path: Path, encoded: Encoded, *, layers: bool) -> MaskReport:
    """The report of the mask at `path`; without its layers unless `layers`. Raises `ValueError` for other bytes."""
    try:
        whole = json.loads(zlib.decompress(encoded.network))
        convention = Convention(whole["convention"])
        network = NetworkReport(
            _read_layers(encoded.layers, convention) if layers else NO_LAYERS,
            _read_measures(whole["measures"]),
            whole["counted"],
            whole["kept"],
            whole["total"],
            tuple(whole["collapsed"]),
            tuple(whole["unproved"]),
            tuple(whole["unanswered"]),
            tuple(whole["assumed"]),
            convention,
            tuple(whole["full"]),
        )
        shapes = {name: tuple(shape) for name, shape in whole["shapes"].items()}
        skipped, remark = tuple(whole["skipped"]), whole["remark"]
    except (zlib.error, KeyError, TypeError, IndexError, AttributeError) as error:
        raise ValueError(f"{path}: its report cannot be read") from error
    return MaskReport(path, whole["metadata"], network, None, skipped, remark, shapes)


def _packed(value: Any) -> bytes:
    return zlib.compress(json.dumps(value, separators=(",", ":")).encode(), LEVEL)


def _measures(measures: dict[str, Measure]) -> dict[str, Any]:
    """A value with its error, or the reason why there is none."""
    return {name: one.reason if one.reason is not None else (one.value, one.error) for name, one in measures.items()}


def _read_measures(row: dict[str, Any]) -> dict[str, Measure]:
    return {
        name: Measure(None, None, one) if isinstance(one, str) else Measure(one[0], one[1]) for name, one in row.items()
    }


def _packed_unmasked(known: UnmaskedMeasures) -> bytes:
    return _packed([(name, astuple(layout), _measures(measures)) for (name, layout), measures in known.items()])


def _read_unmasked(packed: bytes) -> UnmaskedMeasures:
    """What `_packed_unmasked` wrote. Raises `ValueError` for other bytes."""
    try:
        rows = json.loads(zlib.decompress(packed))
        return {(name, Layout(*layout)): _read_measures(measures) for name, layout, measures in rows}
    except (zlib.error, TypeError, IndexError, AttributeError, RuntimeError, ParameterError) as error:
        raise ValueError("the unmasked layers' measures cannot be read") from error


def _packed_layers(table: LayerTable) -> bytes:
    """The length of a JSON document, the document, and the numbers: counts as int64, values and errors as float64."""
    reasons = [column.reasons for column in table.measures.values()]  # of which most are the same
    different = list(dict.fromkeys(reasons))
    words = {
        "names": table.names,
        "shapes": table.shapes,
        "layouts": [astuple(layout) for layout in table.layouts],
        "solvers": table.solvers,
        "outcomes": [" ".join(outcome.name for outcome in outcomes) for outcomes in table.outcomes],
        "reasons": different,
        "measures": dict(zip(table.measures, map(different.index, reasons), strict=True)),
    }
    counts = np.array([*table.counts, table.n_regular], dtype=COUNT)
    floats = np.array([(column.values, column.errors) for column in table.measures.values()], dtype=NUMBER)
    text = json.dumps(words, separators=(",", ":")).encode()
    return zlib.compress(len(text).to_bytes(4, "little") + text + counts.tobytes() + floats.tobytes(), LEVEL)


_layout = lru_cache(maxsize=1024, typed=True)(Layout)


@lru_cache(maxsize=1024)
def _outcomes(names: str) -> tuple[Outcome, ...]:
    return tuple(OUTCOMES[name] for name in names.split())


def _read_layers(packed: bytes, convention: Convention) -> LayerTable:
    data = zlib.decompress(packed)
    end = 4 + int.from_bytes(data[:4], "little")
    words = json.loads(data[4:end])
    count = len(words["names"])
    *counts, n_regular = np.frombuffer(data, COUNT, 7 * count, end).reshape(7, count).astype(np.int64)
    floats = np.frombuffer(data, NUMBER, -1, end + 56 * count).astype(np.float64).reshape(-1, 2, count)
    reasons = [tuple(some) for some in words["reasons"]]
    return LayerTable(
        tuple(words["names"]),
        tuple(map(tuple, words["shapes"])),
        tuple(_layout(*layout) for layout in words["layouts"]),
        Counts(*counts),
        n_regular,
        {
            name: Column(pair[0], pair[1], reasons[why])
            for (name, why), pair in zip(words["measures"].items(), floats, strict=True)
        },
        tuple(words["solvers"]),
        tuple(map(_outcomes, words["outcomes"])),
        convention,
    )


@dataclass(frozen=True)
class Seen:
    """Files as they were read: their digests, and what else changes when one is written to or exchanged."""

    digests: tuple[str, ...]
    stamps: tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class CacheEntry:
    """A file that was looked up: how it was, None for one that is not kept; and its report, if it was found. `name`: what
    keys are made of.
    """

    path: Path
    name: str = ""
    seen: Seen | None = None
    report: MaskReport | None = None


class ReportCache:
    """The finished work of one request: of the same masks, measured in the same way with the same weights.

    `device`: where what is to be kept was measured. Of a request whose device is "auto", what any found is as good.
    """

    def __init__(self, store: Store, request: AnalysisRequest):
        self._store = store
        self._layers = request.per_layer
        self._devices = ("cpu", "cuda") if request.device == Device.AUTO else (_place(request.device),)
        self._device = self._devices[0]
        self._trust = request.trust
        self._weights = _files_of(request)
        self._about: tuple[Any, ...] | None = None
        self._unmasked: tuple[Any, ...] | None = None
        self._stored = 0  # how many layers the row of unmasked measures has
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
        self._engine = "compiled" if calls.available() else "arrays"
        asked = request.options, request.layers, request.trust, request.paths.digest, request.pairs.digest
        self._about = asked, seen.digests, shapes
        if request.weights is not None and request.options.dense:
            self._unmasked = "unmasked", request.options, seen.digests, shapes
            self._names = frozenset(request.weights.shapes)

    @property
    def kept(self) -> bool:
        """Whether there is a store that work is put into."""
        return self._store.open and self._about is not None

    def look(self, path: Path) -> CacheEntry:
        """What is known of a mask file. One that cannot be read has no key: its fault is told where masks are read."""
        if not self.kept or path.name.endswith(".json"):  # an index, whose bytes are not the mask's
            return CacheEntry(path)
        try:
            about = path.stat()
            if not stat.S_ISREG(about.st_mode) or (self._trust and not _is_plain(path)):
                return CacheEntry(path)
            if about.st_size > LARGE and not _begins_well(path):
                return CacheEntry(path)
            seen = _seen([path])
        except OSError:
            return CacheEntry(path)
        name = path.suffix if path.suffix in NOT_GRAPHS else path.name
        entry = CacheEntry(path, f"{name} {seen.digests[0]}", seen)
        found = (self._found(path, self.key(entry, device)) for device in self._devices)
        return replace(entry, report=next((one for one in found if one is not None), None))

    def measured_on(self, device: str) -> None:
        """Say where what is to be kept from now on was measured."""
        self._device = _place(device)

    def key(self, entry: CacheEntry, device: str) -> bytes:
        """What a report of a file is stored under that was measured there."""
        assert self._about is not None
        return self._digest(self._about, device, entry.name)

    def _digest(self, about: tuple[Any, ...], device: str, name: str) -> bytes:
        told = f"{(METRIC_VERSION, FORM, f'{self._engine} {device}', *about)!r} {name}"
        return hashlib.sha256(told.encode("utf-8", "backslashreplace")).digest()

    @property
    def unmasked_key(self) -> bytes:
        """What the measures of the checkpoint's unmasked layers are stored under."""
        assert self._unmasked is not None
        return self._digest(self._unmasked, self._device, "")

    def unmasked(self) -> DenseCache:
        """The measures of unmasked layers that a command before has kept: they follow from the weights alone."""
        if self._unmasked is None:
            return DenseCache()
        row = self._store.get(self.unmasked_key, layers=False)
        try:
            known = {} if row is None else _read_unmasked(row[0])
        except ValueError:  # as good as none, and written anew
            known = {}
        self._stored = len(known)
        return DenseCache(known)

    def keep_unmasked(self, cache: DenseCache) -> None:
        """Store what has become known of unmasked layers.

        Of those alone that have a name of the checkpoint's own: what another name stands for, each mask tells for itself.
        """
        if self._unmasked is None or not self._store.open:
            return
        known = {at: measures for at, measures in cache.known.items() if at[0] in self._names}
        try:
            if len(known) <= self._stored or _stamps(self._weights) != self._weights_then:
                return
        except OSError:
            return
        self._stored = len(known)
        self._store.put(self.unmasked_key, _packed_unmasked(known), b"")

    def _found(self, path: Path, key: bytes) -> MaskReport | None:
        row = self._store.get(key, layers=self._layers)
        if row is None:
            return None
        try:
            return decode(path, Encoded(*row), layers=self._layers)
        except ValueError:  # a row that cannot be read is as good as none, and is written anew
            return None

    def keep(self, entry: CacheEntry, report: MaskReport | Encoded) -> None:
        """Store what was found of a mask, unless its file or the weights have changed since they were looked up."""
        if entry.seen is None or not self._store.open:
            return
        try:
            # The mask's bytes once more: its writer may be one whose writes show in no time of change before it ends.
            if _seen([entry.path]) != entry.seen or _stamps(self._weights) != self._weights_then:
                return
        except OSError:
            return
        encoded = report if isinstance(report, Encoded) else encode(report)
        self._store.put(self.key(entry, self._device), encoded.network, encoded.layers)


def _begins_well(path: Path) -> bool:
    """Whether a file may be a mask, as its header has it: all its bytes are not read to find that it is none."""
    start = first_bytes(path)
    if is_safetensors(start):
        try:
            MaskFile(path)
        except PaiError:
            return False
        return True
    return start.strip(b"\0") != b"" and (not start.startswith(b"PK") or zipfile.is_zipfile(path))


def _place(device: str) -> str:
    """The kind of a device, whichever of several it is."""
    return device if device == ON_TORCH else device.partition(":")[0]


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
