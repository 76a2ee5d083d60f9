"""Pickles made by hand: containers that hold themselves, keys built of themselves, claims of size, calls by number."""

from __future__ import annotations

import io
import random
import struct
import zipfile
from contextlib import suppress
from pathlib import Path

import torch

from fuzz.bombs import held
from pai_cli.data.plain_pickle import read_plain
from pai_cli.errors import DataError

NAMES = (
    *("collections OrderedDict", "collections Counter", "__builtin__ set", "__builtin__ bytearray", "_codecs encode"),
    *(
        "torch._utils _rebuild_tensor_v2",
        "torch._utils _rebuild_parameter",
        "torch._utils _rebuild_meta_tensor_no_storage",
    ),
    *("torch._utils _rebuild_sparse_tensor", "torch._utils _rebuild_device_tensor_from_cpu_tensor", "torch Tensor"),
    *("torch FloatTensor", "torch.storage UntypedStorage", "torch Size", "torch._tensor _rebuild_from_type_v2"),
    *("numpy.core.multiarray _reconstruct", "numpy ndarray", "numpy dtype", "os system", "torch FloatStorage"),
)
SIZES = (0, 1, 2, 9, 300, 2**20, 2**31 - 1)


def case(seed: int, folder: Path) -> None:
    """A random program, some of its bytes changed, in every kind of file that holds a pickle."""
    rng = random.Random(seed)
    program = bytearray(b"\x80\x02" + _Maker(rng).state_dict() + b".")
    for _ in range(rng.choice((0, 0, 0, 1, 3))):
        program[rng.randrange(2, len(program))] = rng.randrange(256)
    path = folder / "a.pt"
    kind = rng.randrange(3)
    if kind == 0:
        path.write_bytes(program)
        with suppress(DataError):
            read_plain(path)
        return
    path.write_bytes(_in_zip(bytes(program)) if kind == 1 else _legacy(bytes(program)))
    if rng.random() < 0.2:
        held("convert", path, "-o", folder / "out.safetensors", "--force")
    held("analyze", path, "--summary", "--no-store", "--jobs", 1)


def _in_zip(program: bytes) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("archive/data.pkl", program)
        archive.writestr("archive/byteorder", "little")
        archive.writestr("archive/data/0", bytes(64))
        archive.writestr("archive/version", "3\n")
    return stream.getvalue()


def _legacy(program: bytes) -> bytes:
    stream = io.BytesIO()
    torch.save({}, stream, _use_new_zipfile_serialization=False)
    head, empty, rest = stream.getvalue().rpartition(b"\x80\x02}q\x00.")
    return head + (program if empty else b"") + rest


class _Maker:
    """Writes instructions that push values; what is remembered may be pushed again, also into itself."""

    def __init__(self, rng: random.Random):
        self.rng, self.remembered, self.left = rng, 0, 60

    def state_dict(self) -> bytes:
        """A dict of anything."""
        items = b"".join(self._text() + self.value() for _ in range(self.rng.choice((1, 3))))
        return b"}(" + items + b"u" + (self._keys() if self.rng.random() < 0.3 else b"")

    def value(self) -> bytes:
        """Anything."""
        self.left -= 1
        kinds = (self._number, self._text, self._again, self._tuple, self._list, self._dict, self._call, self._tensor)
        kinds += (self._doubled, self._claim)
        return b"N" if self.left < 0 else self.rng.choice(kinds)()

    def _number(self) -> bytes:
        size = self.rng.choice(SIZES)
        return b"J" + struct.pack("<i", size) if self.rng.random() < 0.8 else b"\x8a\x09" + b"\xff" * 8 + b"\0"

    def _text(self) -> bytes:
        text = (f"w{self.rng.randrange(9)}" * self.rng.choice((1, 1, 1, 5_000))).encode()
        return b"X" + struct.pack("<I", len(text)) + text

    def _remember(self) -> bytes:
        self.remembered += 1
        return b"r" + struct.pack("<I", self.remembered - 1)

    def _again(self) -> bytes:
        return b"j" + struct.pack("<I", self.rng.randrange(self.remembered)) if self.remembered else b"K\x05"

    def _tuple(self) -> bytes:
        return b"(" + self._several() + b"t" + self._remember()

    def _list(self) -> bytes:
        return b"]" + self._remember() + b"(" + self._several() + self._again() * self.rng.choice((0, 0, 300)) + b"e"

    def _dict(self) -> bytes:
        return b"}" + self._remember() + b"(" + b"".join(self._text() + self.value() for _ in range(2)) + b"u"

    def _several(self) -> bytes:
        return b"".join(self.value() for _ in range(self.rng.randrange(4)))

    def _call(self) -> bytes:
        module, name = self.rng.choice(NAMES).split()
        call = f"c{module}\n{name}\n".encode() + b"(" + self._several() + b"t" + self.rng.choice((b"R", b"R", b"\x81"))
        return call + self._remember() + (b"(" + self._several() + b"tb" if self.rng.random() < 0.1 else b"")

    def _tensor(self) -> bytes:
        count = struct.pack("<i", self.rng.choice((16, 16, 16, 2**20, 2**31 - 1)))
        storage = b"(U\x07storagectorch\nFloatStorage\nU\x010U\x03cpuJ" + count + b"tQ"
        sides = self.rng.choice(((4, 4), (4, 4), (2**20, 2**20), (300, 300), (2**31 - 1, 2**31 - 1)))
        strides = self.rng.choice(((4, 1), (4, 1), (0, 0), (0, 1)))
        shape = b"".join(b"J" + struct.pack("<i", side) for side in sides) + b"\x86"
        steps = b"".join(b"J" + struct.pack("<i", step) for step in strides) + b"\x86"
        made = b"ctorch._utils\n_rebuild_tensor_v2\n(" + storage + b"K\0" + shape + steps
        return made + b"\x89ccollections\nOrderedDict\n)RtR" + self._remember()

    def _doubled(self) -> bytes:
        made = self.value() + self._remember()
        for _ in range(self.rng.choice((3, 40, 70))):
            before = b"j" + struct.pack("<I", self.remembered - 1)
            made += before + b"\x86" + self._remember()
        return made

    def _claim(self) -> bytes:
        code, size = self.rng.choice(
            ((b"X", 4), (b"T", 4), (b"B", 4), (b"\x8e", 8), (b"\x8d", 8), (b"\x8b", 4), (b"r", 4))
        )
        return b"K\1" * (code == b"r") + code + self.rng.choice((3, 2**20, 2**31 - 1)).to_bytes(size, "little") + b"abc"

    def _keys(self) -> bytes:
        return self.value() + b"K\1s"
