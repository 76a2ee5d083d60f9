"""JSON files that people and other programs wrote, every fault told in one line."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pai_cli.errors import PaiError
from pai_cli.files.first_bytes import ENOUGH, JSON, check_start, hint_at, looks_like
from pai_cli.printable import reason_of


def read_json(
    path: Path,
    error: type[PaiError],
    remedy: str,
    *,
    where: str = "",
    pairs: Callable[[list[tuple[str, Any]]], Any] | None = None,
) -> Any:
    """What the file holds. `where`: what messages call it, its path by default; `pairs`: makes the value of an object.

    Raises `error` when it cannot be read, something else stands in its place, or it is no JSON: the last ends with `remedy`.
    """
    where = where or str(path)
    try:
        data = path.read_bytes()
    except (OSError, ValueError) as e:  # the second of a name that no file can have
        raise error(f"{where}: cannot be read: {reason_of(e)}{hint_at(path)}") from e
    check_start(where, data[:ENOUGH], error)
    try:
        return json.loads(data, object_pairs_hook=pairs)
    except (ValueError, RecursionError) as e:
        what = looks_like(data[:ENOUGH])
        why = reason_of(e) if what == JSON or what.startswith("text (") else f"it looks like {what}"
        raise error(f"{where}: is not valid JSON ({why}); {remedy}") from e
