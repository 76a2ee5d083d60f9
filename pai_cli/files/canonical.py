"""One spelling for every safetensors file, so that equal contents are equal bytes."""

from __future__ import annotations

import json

LENGTH_BYTES = 8
ALIGNMENT = 8


def canonical_bytes(data: bytes) -> bytes:
    """The safetensors file `data` with its header in canonical form; the tensors' bytes are untouched.

    The safetensors library writes the keys of `__metadata__` in an order that changes from run to run. Here
    metadata comes first with its keys sorted, then the tensors in the order of their bytes; the JSON is
    compact and padded with spaces so that the tensors start at a multiple of 8. Applying it twice changes
    nothing more.

    Raises `ValueError` when `data` is not a safetensors file.
    """
    length = int.from_bytes(data[:LENGTH_BYTES], "little")
    start = LENGTH_BYTES + length
    if len(data) < LENGTH_BYTES or start > len(data):
        raise ValueError(f"not a safetensors file: {len(data)} bytes cannot hold its header")
    header = json.loads(data[LENGTH_BYTES:start])
    if not isinstance(header, dict):
        raise ValueError("not a safetensors file: its header is no JSON object")
    return b"".join((canonical_header(header), memoryview(data)[start:]))


def canonical_header(header: dict[str, dict[str, object]]) -> bytes:
    """What stands before the tensors' bytes: the length, and the header in canonical form.

    `header`: `__metadata__`, and by tensor `dtype`, `shape` and `data_offsets`.
    """
    text = json.dumps(_ordered(header), ensure_ascii=False, separators=(",", ":")).encode()
    text += b" " * (-(LENGTH_BYTES + len(text)) % ALIGNMENT)
    return len(text).to_bytes(LENGTH_BYTES, "little") + text


def _ordered(header: dict[str, dict[str, object]]) -> dict[str, dict[str, object]]:
    metadata = header.pop("__metadata__", None)
    ordered = {} if metadata is None else {"__metadata__": dict(sorted(metadata.items()))}
    # Empty tensors share their offsets with a neighbour: the name settles the order between those.
    tensors = sorted(header.items(), key=lambda item: (item[1]["data_offsets"], item[0]))
    return ordered | {name: {key: entry[key] for key in sorted(entry)} for name, entry in tensors}
