"""What a file is by its first bytes, and what stands in its place."""

from __future__ import annotations

import gzip
import io
import pickle
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.numpy import save as as_safetensors
from safetensors.torch import save_file

from pai_cli.data.registry import open_dataset
from pai_cli.errors import MaskError, PaiError
from pai_cli.files.checkpoints import open_checkpoint
from pai_cli.files.densities import read_densities
from pai_cli.files.edge_lists import read_edge_list
from pai_cli.files.first_bytes import ENOUGH, check_readable, looks_like, stand_in
from pai_cli.files.numbered import Names
from pai_cli.files.paths import mask_paths
from pai_cli.files.results import FIELDS, check_results
from pai_cli.files.rows import read_rows
from pai_cli.models.factory import load_factory

LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:abc\nsize 123\n"

STAND_INS = [
    (LFS, "Git LFS"),
    (LFS.replace(b"git-lfs", b"hawser"), "Git LFS"),
    (b"/annex/objects/SHA256E-s5--abc.pt\n", "git-annex"),
    (b"../.git/annex/objects/x/y/SHA256E-s5--abc", "git-annex"),
    (b"<!DOCTYPE html><html>", "web page"),
    (b"\xef\xbb\xbf\r\n  <HTML lang='en'>", "web page"),
    (b"<?xml version='1.0'?><Error>", "web page"),
    (b"<Error><Code>NoSuchKey", "web page"),
    (b"Entry not found", "web server"),
    (b"404: Not Found\n", "web server"),
    (b'{"error":"Repository not found"}', "web server"),
    (b"# xet version 0\nfilesize = 4\n", "Xet pointer"),
]


@pytest.mark.parametrize(("start", "word"), STAND_INS, ids=lambda value: str(value)[:16])
def test_what_stands_in_the_place_of_a_file_is_told_with_a_remedy(tmp_path, start, word):
    path = tmp_path / "m.safetensors"
    path.write_bytes(start)
    with pytest.raises(MaskError, match=rf"m\.safetensors: .*{word}.*; "):
        check_readable(path, MaskError)


def _torch_saved(**how: bool) -> bytes:
    stream = io.BytesIO()
    torch.save({"fc.weight": torch.eye(3)}, stream, **how)
    return stream.getvalue()


def _savez() -> bytes:
    stream = io.BytesIO()
    np.savez(stream, **{"fc.weight": np.eye(3)})
    return stream.getvalue()


FILES = [
    (b"", "an empty file"),
    (_torch_saved(), "a file of torch.save"),
    (_torch_saved(_use_new_zipfile_serialization=False), "a Python pickle"),
    (pickle.dumps({}), "a Python pickle"),
    (_savez(), "an archive of NumPy arrays"),
    (as_safetensors({"fc.weight": np.eye(3)}), "a safetensors file"),
    (b"PK\x05\x06" + bytes(18), "a zip archive"),
    (b'{"weight_map": {}}', "JSON text"),
    (b"mask,accuracy\na,1\n", "text (it begins with 'mask,accuracy')"),
    (bytes(100), "zeros where it begins"),
    (b"\xff\xfe\x00\x01", "bytes of no known format"),
]


@pytest.mark.parametrize(("data", "what"), FILES, ids=[what for _, what in FILES])
def test_a_file_is_known_by_its_first_bytes_and_stands_in_for_nothing(data, what):
    assert looks_like(data[:ENOUGH]).startswith(what)
    assert stand_in(data[:ENOUGH]) == ""


@pytest.mark.parametrize("length", [0x3C, 0x8B1F, 0x088B1F, 0x4B50, 0x413C])
def test_a_header_whose_length_spells_another_format_is_still_safetensors(length):
    start = length.to_bytes(8, "little") + b'{"a":'
    assert (looks_like(start), stand_in(start)) == ("a safetensors file", "")


def test_what_a_message_quotes_of_a_file_is_printable():
    assert looks_like(b"\x1b[2Jhello there") == "bytes of no known format"


# every reader asks


def _data(name: str) -> Callable[[Path, bytes], object]:
    def read(folder: Path, content: bytes) -> object:
        path = folder / "data" / name
        path.parent.mkdir(parents=True)
        path.write_bytes(content)
        return open_dataset(str(path if path.suffix else path.parent))

    return read


def _packed(folder: Path, content: bytes) -> object:
    (folder / "train-labels-idx1-ubyte").write_bytes(b"\0")
    (folder / "train-images-idx3-ubyte.gz").write_bytes(gzip.compress(content))
    return open_dataset(str(folder))


def _images(name: str) -> Callable[[Path, bytes], object]:
    def read(folder: Path, content: bytes) -> object:
        for one in ("train/a/0.png", "val/a/0.png"):
            (folder / one).parent.mkdir(parents=True)
            Image.new("RGB", (4, 4)).save(folder / one)
        (folder / name).write_bytes(content)
        return [open_dataset(str(folder), train=train).examples(np.zeros(1, int)) for train in (True, False)]

    return read


def _saved(folder: Path, content: bytes) -> object:
    datasets = pytest.importorskip("datasets")
    image = {"image": [Image.new("L", (4, 4))] * 2, "label": [0, 1]}
    datasets.Dataset.from_dict(image).cast_column("image", datasets.Image()).save_to_disk(str(folder / "hf"))
    next((folder / "hf").glob("*.arrow")).write_bytes(content)
    return open_dataset(str(folder / "hf"))


def _read(read: Callable[[Path], object], name: str = "x.txt") -> Callable[[Path, bytes], object]:
    def written(folder: Path, content: bytes) -> object:
        (folder / name).write_bytes(content)
        return read(folder / name)

    return written


def _folder(folder: Path, content: bytes) -> object:
    save_file({"fc.weight": torch.ones(3, 3)}, folder / "model.safetensors")
    (folder / "config.json").write_bytes(content)
    return open_checkpoint(folder)


def _shard(folder: Path, content: bytes) -> object:
    (folder / "a.bin").write_bytes(content)
    (folder / "x.index.json").write_text('{"weight_map": {"fc.weight": "a.bin"}}')
    return open_checkpoint(folder / "x.index.json")


def _typed(content: bytes) -> io.TextIOWrapper:
    return io.TextIOWrapper(io.BytesIO(content), encoding="utf-8-sig")


READERS: dict[str, Callable[[Path, bytes], object]] = {
    "npz": _data("x.npz"),
    "one array": _data("x.npy"),
    "tensors": _data("x.pt"),
    "CIFAR": _data("train"),
    "CIFAR in binary": _data("train.bin"),
    "IDX, packed": _packed,
    "image": _images("train/a/0.png"),
    "image of the test part": _images("val/a/0.png"),
    "annotations": _images("val/val_annotations.txt"),
    "saved data": _saved,
    "table": _read(lambda path: read_rows(path, sys.stdin)),
    "table on standard input": lambda _, content: read_rows(Path("-"), _typed(content)),
    "results": _read(lambda path: check_results(path, dict.fromkeys(FIELDS, ""), own=False, force=False)),
    "edges": _read(lambda path: read_edge_list(path, Names())),
    "densities": _read(read_densities),
    "configuration": _folder,
    "index": _read(open_checkpoint, "x.index.json"),
    "shard": _shard,
    "network's file": _read(lambda path: load_factory(f"{path}:make"), "net.py"),
    "list on standard input": lambda _, content: mask_paths(["-"], _typed(content), print),
}


@pytest.mark.parametrize(("start", "word"), STAND_INS[::4], ids=["pointer", "page", "server"])
@pytest.mark.parametrize("reader", READERS)
def test_every_reader_tells_what_stands_in_the_place_of_its_file(reader, start, word, tmp_path):
    with pytest.raises(PaiError) as caught:
        READERS[reader](tmp_path, start)
    assert word in str(caught.value)
    assert "; " in str(caught.value)


BINARY = [
    (gzip.compress(b"a,b"), "a compressed archive"),
    (_savez(), "NumPy arrays"),
    ("a\tb".encode("utf-16"), "UTF-16"),
]


@pytest.mark.parametrize(("content", "what"), BINARY, ids=["gzip", "npz", "utf-16"])
@pytest.mark.parametrize("reader", ["table", "results", "edges", "densities", "IDX, packed", "one array"])
def test_every_reader_tells_what_its_file_looks_like(reader, content, what, tmp_path):
    with pytest.raises(PaiError, match=f"it looks like .*{what}"):
        READERS[reader](tmp_path, content)
