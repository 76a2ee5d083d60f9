"""Showing what a file is and holds."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from pai_cli.display.look import Look
from pai_cli.display.tables import number, show_records, show_title
from pai_cli.files.rows import finite
from pai_cli.files.tables import Record, Value, write_table
from pai_cli.models.info import STORY
from pai_cli.spectral.parameters import from_digits
from pai_cli.spelling import for_shell

if TYPE_CHECKING:
    from pai_cli.models.info import FileInfo

OF_GRAPH = ("left", "right", "edges", "weighted")
NUMBERS = ("density", "seed")
"""What a file tells in numbers."""
OF_FILE = ("kind", "format", "network", "tensors", "total", "kept", *OF_GRAPH, "density", "bytes", "sha256")
FIELDS = ("file", "level", "tensor", "shape", "dtype", *OF_FILE, *STORY.values(), "remark")


def records_of(found: FileInfo) -> list[Record]:
    """A record of the file, then one a tensor; of a folder, one a file after its own."""
    if found.files or found.kind == "folder":
        return [_of_file(found), *(_of_file(one) for one in found.files)]
    tensors: list[Record] = []
    for one in found.tensors:
        record = dict.fromkeys(FIELDS, None) | {"file": str(found.path), "level": "tensor", "tensor": one.name}
        record |= {"shape": list(one.shape), "dtype": one.dtype, "total": one.total, "kept": one.kept}
        tensors.append(record | {"density": _share(one.kept, one.total)})
    return [_of_file(found), *tensors]


def show_info(found: FileInfo, look: Look) -> None:
    """The facts, a line each, and a table of the tensors or, of a folder, of the files."""
    whole, *records = records_of(found)
    records = [whole, *look.ordered(records)]
    if not look.kind.for_people:
        write_table(sys.stdout, look.kind, look.shown(FIELDS), records, header=look.header)
        return
    show_title(number(str(found.path)), look)
    for field in (*OF_FILE, *STORY.values(), "remark"):
        if whole[field] is not None:
            show_title(f"  {field.replace('_', ' '):<14} {number(whole[field])}", look)
    if len(records) > 1:
        columns = ("file", *OF_FILE[:-2], "method") if found.kind == "folder" else ("tensor", "shape", "dtype", "total")
        extra = ("kept", "density") if found.kind == "mask" else ()
        filled = [one for one in (*columns, *extra) if any(record[one] is not None for record in records[1:])]
        show_records(records[1:], look.shown(filled), look=look)


def _of_file(found: FileInfo) -> Record:
    record: Record = dict.fromkeys(FIELDS, None)
    record |= {"file": str(found.path), "level": "file", "kind": found.kind, "format": found.format or None}
    if found.kind == "folder":
        return record | {"bytes": found.bytes, "remark": for_shell(found.message) or None}
    record |= {"network": found.network, "tensors": len(found.tensors), "total": found.total, "kept": found.kept}
    if found.kind == "program" and not found.tensors:
        record |= {"tensors": None, "total": None}  # it was not looked into
    if found.graph is not None:
        record |= {"tensors": None, "total": None}
        record |= {name: getattr(found.graph, name) for name in (*OF_GRAPH, "density")}
        return record | {"bytes": found.bytes, "sha256": found.sha256, "remark": for_shell(found.message) or None}
    record |= {"density": _share(found.kept, found.total), "bytes": found.bytes, "sha256": found.sha256}
    told: Record = {
        field: _number(found.story[key]) if key in NUMBERS else found.story[key]
        for key, field in STORY.items()
        if key in found.story
    }
    return record | told | {"remark": for_shell(found.message) or None}


def _number(text: str) -> Value:
    """The number that a text of a mask spells, or the text."""
    return int(text) if from_digits(text) is not None else text if finite(text) is None else finite(text)


def _share(kept: int | None, total: int) -> float | None:
    return kept / total if kept is not None and total else None
