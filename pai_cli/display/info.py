"""Showing what a file is and holds."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from pai_cli.display.console import show_line
from pai_cli.display.tables import number, show_records
from pai_cli.files.tables import Format, Record, write_table
from pai_cli.spelling import for_shell

if TYPE_CHECKING:
    from pai_cli.models.info import FileInfo

OF_GRAPH = ("left", "right", "edges", "weighted")
OF_FILE = ("kind", "format", "network", "tensors", "total", "kept", *OF_GRAPH, "density", "bytes", "sha256")
_TELLS = ("method", "asked_density", "seed", "data", "architecture", "command", "created", "source", "source_sha256")
FIELDS = ("file", "level", "tensor", "shape", "dtype", *OF_FILE, *_TELLS, "remark")


def records_of(found: FileInfo) -> list[Record]:
    """A record of the file, then one a tensor; of a folder, one a file after its own."""
    if found.files or found.kind == "folder":
        return [_of_file(found), *(_of_file(one) for one in found.files)]
    tensors: list[Record] = []
    for one in found.tensors:
        record = dict.fromkeys(FIELDS, None) | {"file": str(found.path), "level": "tensor", "tensor": one.name}
        record |= {"shape": "x".join(map(str, one.shape)), "dtype": one.dtype, "total": one.total, "kept": one.kept}
        tensors.append(record | {"density": _share(one.kept, one.total)})
    return [_of_file(found), *tensors]


def show_info(found: FileInfo, kind: Format, *, header: bool = True) -> None:
    """The facts, a line each, and a table of the tensors or, of a folder, of the files."""
    records = records_of(found)
    if kind is not Format.TABLE:
        write_table(sys.stdout, kind, FIELDS, records, header=header)
        return
    show_line(number(str(found.path)))
    for field in (*OF_FILE, *_TELLS, "remark"):
        if records[0][field] is not None:
            show_line(f"  {field.replace('_', ' '):<14} {number(records[0][field])}")
    if len(records) > 1:
        columns = ("file", *OF_FILE[:-2], "method") if found.kind == "folder" else ("tensor", "shape", "dtype", "total")
        extra = ("kept", "density") if found.kind == "mask" else ()
        filled = [one for one in (*columns, *extra) if any(record[one] is not None for record in records[1:])]
        show_records(records[1:], filled)


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
    told = {"asked_density" if key == "density" else key: text for key, text in found.story.items()}
    return record | told | {"remark": for_shell(found.message) or None}


def _share(kept: int | None, total: int) -> float | None:
    return kept / total if kept is not None and total else None
