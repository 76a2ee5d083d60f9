"""What a file is, told from its first bytes: its own format, and what stands in its place where something went wrong.

A clone without Git LFS leaves pointers under the files' own names, a failed download a web page. Every reader asks here.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from pai_cli.errors import PaiError
from pai_cli.printable import printable, reason_of

ENOUGH = 512  # bytes from which everything here is told

JSON, PICTURE, UNKNOWN = "JSON text", "a picture", "bytes of no known format"

STAND_INS = (
    (
        rb"version https://(git-lfs|hawser)\.",
        "a Git LFS pointer, not the file itself; run git lfs pull where it is from",
    ),
    (
        rb"(\.\./)*(\.git)?/annex/objects/",
        "a git-annex pointer, not the file itself; run git annex get where it is from",
    ),
    (rb"# xet version ", "a Xet pointer, not the file itself; download it with huggingface_hub"),
    (
        rb'\s*\{\s*"(error|message|detail)"\s*:\s*"',
        "the answer of a web server, not the file itself; download it again",
    ),
    (rb"\s*<([!?]|html|head|body|error)[^\0]{3}", "a web page (HTML or XML), not the file itself; download it again"),
    (
        rb"((entry |repository |file )?not found|40[134]:? [a-z ]+|access denied|invalid username or password)\.?\s*\Z",
        "the answer of a web server, not the file itself; download it again",
    ),
)
"""What is left in the place of a file, whatever its suffix."""

FORMATS = (
    (rb"PK\x03\x04.{26}[^/\0]*\.npy", "an archive of NumPy arrays (.npz)"),
    (rb"PK\x03\x04.{26}[^/\0]*/(data\.pkl|\.?[a-z_]+version|byteorder)", "a file of torch.save"),
    (rb"PK", "a zip archive"),
    (rb"\x80[\x02-\x05]", "a Python pickle, as torch.save writes"),
    (rb"\x93NUMPY", "one NumPy array without a name (.npy)"),
    (rb"\x89HDF", "an HDF5 file, as Keras writes"),
    (rb"GGU?[FM]", "a GGUF file, as llama.cpp reads"),
    (rb"(\x1f\x8b|BZh|\xfd7zXZ|\x28\xb5\x2f\xfd|7z\xbc\xaf|Rar!)", "a compressed archive, to be unpacked first"),
    (rb".{257}ustar", "a tar archive, to be unpacked first"),
    (rb"(\x89PNG|\xff\xd8\xff|GIF8)", PICTURE),
    (rb"%PDF", "a document (PDF)"),
    (rb"(\xff\xfe[^\0]\0|\xfe\xff\0[^\0])", "text in UTF-16, to be saved as UTF-8"),
    (rb"PAR1|ARROW1", "a table of Parquet or Arrow"),
    (rb"\0{64}", "zeros where it begins, as a copy that was not finished"),
)


def is_safetensors(start: bytes) -> bool:
    """Whether a file that begins so is a safetensors file."""
    # A header's length in 8 bytes has zeros in it, which tells it from JSON with a brace in the same place.
    return start[8:9] == b"{" and b"\0" in start[:8]


def is_pickle(start: bytes) -> bool:
    """Whether a file that begins so is a zip (as `torch.save` writes) or a pickle."""
    return re.match(rb"PK\x03\x04|\x80[\x02-\x05]", start) is not None


def stand_in(start: bytes) -> str:
    """What stands in the place of a file that begins so, and the remedy; "" where it may be the file itself."""
    if is_safetensors(start):  # whose first bytes, a length, may look like anything
        return ""
    start = start.removeprefix(b"\xef\xbb\xbf")
    return next((what for begins, what in STAND_INS if re.match(begins, start, re.IGNORECASE | re.DOTALL)), "")


def looks_like(start: bytes) -> str:
    """What a file that begins so looks like: "a zip archive", "text (it begins with 'Hello')"."""
    if not start:
        return "an empty file"
    if is_safetensors(start):
        return "a safetensors file"
    if found := next((what for begins, what in FORMATS if re.match(begins, start, re.DOTALL)), ""):
        return found
    text = start.decode("utf-8", "ignore").strip()
    if text[:1] in ("{", "["):
        return JSON
    first = text.splitlines()[0].strip() if text else ""
    if first and first.isprintable():
        return f"text (it begins with {printable(first[:30])!r})"
    return UNKNOWN


def first_bytes(path: Path) -> bytes:
    """As many as are needed here. Raises `OSError`."""
    with path.open("rb") as stream:
        return stream.read(ENOUGH)


def check_start(where: str, start: bytes, error: type[PaiError]) -> None:
    """Raise `error`, with the remedy, where what begins so stands in the place of a file, which messages call `where`."""
    if what := stand_in(start):
        raise error(f"{where}: {what}")


def hint_at(path: Path) -> str:
    """What to add to the word that there is no such file, where somebody meant standard input."""
    return "; standard input is not read here" if str(path) == "-" else ""


def check_readable(path: Path, error: type[PaiError]) -> bytes:
    """The first bytes of a regular file that may be read, with something in it that is no pointer and no web page in the
    place of a file. Raises `error` in plain words for any other.
    """
    try:
        if path.is_dir():
            raise error(f"{path}: is a directory, not a file")
        if path.exists() and not path.is_file():
            raise error(f"{path}: is a device or a pipe; give a regular file")
        start = first_bytes(path)
    except FileNotFoundError as e:
        raise error(f"{path}: no such file{hint_at(path)}") from e
    except PermissionError as e:
        raise error(f"{path}: no permission to read it") from e
    except OSError as e:
        raise error(f"{path}: cannot be read: {reason_of(e)}") from e
    except ValueError as e:  # a NUL, or half a character
        raise error(f"{path}: no file can have such a name") from e
    if not start:
        raise error(f"{path}: the file is empty; copy it again")
    check_start(str(path), start, error)
    return start


@contextmanager
def open_text(
    path: Path, error: type[PaiError], errors: str = "strict", newline: str | None = None
) -> Iterator[TextIO]:
    """The file, or pipe, as a stream of UTF-8 text, with or without a mark in front; `errors` and `newline` as of `open`.

    Raises `error` where something else stands in its place, and `OSError`.
    """
    with path.open("rb") as stream:
        check_start(str(path), stream.peek(ENOUGH)[:ENOUGH], error)
        with io.TextIOWrapper(stream, encoding="utf-8-sig", errors=errors, newline=newline) as text:
            yield text


def read_whole(path: Path, error: type[PaiError]) -> bytes:
    """The bytes of a file, or of a pipe. Raises `error` where something else stands in its place, and `OSError`."""
    with path.open("rb") as stream:
        raw = stream.read()
    check_start(str(path), raw[:ENOUGH], error)
    return raw


def no_text(path: Path) -> str:
    """What to say of a file that is no UTF-8 text: what it looks like, where that is known."""
    what = looks_like(first_bytes(path)) if path.is_file() else UNKNOWN
    return "no UTF-8 text" if what == UNKNOWN or what.startswith("text (") else f"no UTF-8 text; it looks like {what}"
