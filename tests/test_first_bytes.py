"""What a file is by its first bytes, and what stands in its place."""

from __future__ import annotations

import io
import pickle

import numpy as np
import pytest
import torch
from safetensors.numpy import save as as_safetensors

from pai_cli.errors import MaskError
from pai_cli.files.first_bytes import ENOUGH, check_readable, looks_like, stand_in

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
]


@pytest.mark.parametrize(("start", "word"), STAND_INS, ids=lambda value: str(value)[:16])
def test_what_stands_in_the_place_of_a_file_is_told_with_a_remedy(tmp_path, start, word):
    path = tmp_path / "m.safetensors"
    path.write_bytes(start)
    with pytest.raises(MaskError, match=rf"m\.safetensors: .*{word}.*; "):
        check_readable(path, MaskError)


def _saved(**how: bool) -> bytes:
    stream = io.BytesIO()
    torch.save({"fc.weight": torch.eye(3)}, stream, **how)
    return stream.getvalue()


def _savez() -> bytes:
    stream = io.BytesIO()
    np.savez(stream, **{"fc.weight": np.eye(3)})
    return stream.getvalue()


FILES = [
    (b"", "an empty file"),
    (_saved(), "a file of torch.save"),
    (_saved(_use_new_zipfile_serialization=False), "a Python pickle"),
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
