"""Content and its digest written together: what is read again is what was written, to the bit, or is refused.

The digests find damage, and parts of different runs that were mixed up. They keep out nobody who means to deceive: who
can write a state can write its digest.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from typing import Any

from pai_cli.files.canonical import LENGTH_BYTES, canonical_header

KEY = "digest"
BEFORE = f'{{"__metadata__":{{"{KEY}":"'.encode()  # how a sealed file's header begins
DIGITS = 64
BEGIN = LENGTH_BYTES + len(BEFORE)
END = BEGIN + DIGITS
"""Where in a sealed file its digest stands."""


def sealed(data: bytes, metadata: Mapping[str, str]) -> bytes:
    """A safetensors file in canonical form that tells SHA-256 of all its bytes but those of the digest itself.

    `data`: the file as the safetensors library writes it, without metadata; `metadata`: what it is to tell besides.
    """
    start = LENGTH_BYTES + int.from_bytes(data[:LENGTH_BYTES], "little")
    told = canonical_header({**_header(data), "__metadata__": {**metadata, KEY: "0" * DIGITS}})
    # Keys are sorted there, and that of the digest has to be the first: its place is fixed.
    assert told[LENGTH_BYTES:BEGIN] == BEFORE
    body = memoryview(data)[start:]
    digest = _digest(told[:BEGIN], told[END:], body)
    return b"".join((told[:BEGIN], digest.encode(), told[END:], body))


def unsealed(data: bytes) -> dict[str, str]:
    """The metadata of a sealed file. Raises `ValueError` for one that is not sealed, or is not what was written."""
    view = memoryview(data)
    if view[LENGTH_BYTES:BEGIN] != BEFORE:
        raise ValueError("it has no digest")
    if _digest(view[:BEGIN], view[END:]) != bytes(view[BEGIN:END]).decode("ascii", "replace"):
        raise ValueError("its digest is of other bytes")
    metadata: dict[str, str] = _header(data)["__metadata__"]
    return metadata


def told_version(data: bytes, key: str) -> str | None:
    """What the metadata of a safetensors file say under `key`, sealed or not; None where nothing can be made of them."""
    try:
        version = _header(data)["__metadata__"][key]
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    return version if isinstance(version, str) else None


class Chain:
    """Digests of a text's lines, each of the line and of all before it: none can be lost, changed, moved or repeated."""

    def __init__(self, lines: Iterable[str | bytes] = ()):
        self._digests = [""]
        for line in lines:
            self.add(line)

    def add(self, line: str | bytes) -> None:
        """One more line, without its end."""
        plain = line.encode() if isinstance(line, str) else line
        self._digests.append(_digest(self._digests[-1].encode(), plain))

    def __len__(self) -> int:
        return len(self._digests) - 1

    def with_one_more(self, line: str) -> str:
        """The digest after one more line, which is not added."""
        return _digest(self._digests[-1].encode(), line.encode())

    def after(self, count: int) -> str:
        """The digest of the first `count` lines."""
        return self._digests[count]


def digest_of_row(*values: bytes) -> bytes:
    """The digest of a row's values, in their order: 32 bytes."""
    digest = hashlib.sha256()
    for value in values:
        digest.update(len(value).to_bytes(8, "little") + value)
    return digest.digest()


def _header(data: bytes) -> dict[str, Any]:
    header: dict[str, Any] = json.loads(
        data[LENGTH_BYTES : LENGTH_BYTES + int.from_bytes(data[:LENGTH_BYTES], "little")]
    )
    return header


def _digest(*parts: bytes | memoryview) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part)
    return digest.hexdigest()
