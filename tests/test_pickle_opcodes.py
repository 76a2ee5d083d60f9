"""Files of `torch.save` made by hand to corrupt memory: operations on what they do not fit, storages of other sizes."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest

from pai_cli.errors import CheckpointError
from pai_cli.files.checkpoints import open_checkpoint

START, END = b"\x80\x02", b"."
TENSOR = (
    b"ctorch._utils\n_rebuild_tensor_v2\n((X\x07\x00\x00\x00storagectorch\nFloatStorage\n"
    b"X\x01\x00\x00\x000X\x03\x00\x00\x00cpuK%ctQK\x00K%c\x85K\x01\x85\x89ccollections\nOrderedDict\n)RtR"
)
"""A tensor whose storage is said to have so many elements, and itself so many."""

STREAMS = {
    "an item of a list": START + b"]K\x00as" + END,
    "an item of a list, set by number": START + b"]K\x00aK\x00K\x01s" + END,
    "items of a list": START + b"](K\x00K\x01u" + END,
    "an item of a tuple": START + b")K\x00K\x01s" + END,
    "an item of a text": START + b"X\x01\x00\x00\x00aK\x00K\x01s" + END,
    "an item of a tensor": START + TENSOR % (b"\x01", b"\x01") + b"K\x00K\x01s" + END,
    "items of a tensor": START + TENSOR % (b"\x01", b"\x01") + b"(K\x00K\x01u" + END,
    "appended to a dict": START + b"}K\x00a" + END,
    "appended to a tensor": START + TENSOR % (b"\x01", b"\x01") + b"K\x00a" + END,
    "a state of a tensor": START + TENSOR % (b"\x01", b"\x01") + b"}b" + END,
    "a state of a list": START + b"]}b" + END,
    "a storage with more elements than bytes": START
    + b"}X\x01\x00\x00\x00a"
    + TENSOR % (b"\x40", b"\x40")
    + b"s"
    + END,
    "a tensor larger than its storage": START + b"}X\x01\x00\x00\x00a" + TENSOR % (b"\x01", b"\x40") + b"s" + END,
    "nothing to take from": START + b"0" + END,
    "a memory that was never written": START + b"h\x05" + END,
}


@pytest.mark.parametrize("stream", STREAMS.values(), ids=STREAMS)
def test_operations_that_do_not_fit_are_refused(tmp_path: Path, stream: bytes) -> None:
    path = tmp_path / "x.pt"
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in (("data.pkl", stream), ("byteorder", b"little"), ("data/0", bytes(4)), ("version", b"3\n")):
            archive.writestr(f"archive/{name}", data)
    with pytest.raises(CheckpointError) as caught:
        open_checkpoint(path)
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith(f"{path}: ")
