"""Files: reading tensors, writing whole or not at all, tables, which paths are meant, how a file came to be."""

from __future__ import annotations

import csv
import io
import json
import math
import os
import shutil
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pytest
from conftest import Pai, random_mask, save_mask
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import save_file

from pai_cli import __version__
from pai_cli.errors import CheckpointError, MaskError, OutputError
from pai_cli.files.atomic import check_output, write_atomically
from pai_cli.files.ordering import file_order, natural_order
from pai_cli.files.paths import mask_paths
from pai_cli.files.provenance import provenance
from pai_cli.files.tables import Format, Record, TableWriter, Value, as_cell, write_table
from pai_cli.files.tensors import TensorFile

# --- tensors


@pytest.mark.parametrize("dtype", ["bool", "uint8", "int64", "float16", "float32", "float64"])
def test_a_tensor_comes_back_as_it_was(tmp_path: Path, dtype: str) -> None:
    path, array = tmp_path / "t", np.arange(12).reshape(3, 4).astype(dtype)
    save_file({"a": array}, path, {"story": "told"})
    file = TensorFile(path, CheckpointError)
    read = file.array("a")
    assert read.dtype == array.dtype
    assert np.array_equal(read, array)
    assert (file.names, file.shapes, file.metadata) == (("a",), {"a": (3, 4)}, {"story": "told"})


def test_bfloat16_becomes_float32_exactly(tmp_path: Path) -> None:
    import torch
    from safetensors.torch import save_file as save_torch

    values = torch.tensor([[0.0, -1.5, 3.140625], [1e-30, math.inf, -(2.0**100)]], dtype=torch.bfloat16)
    path = tmp_path / "t"
    save_torch({"first": torch.zeros(3), "b": values}, path)
    read = TensorFile(path, CheckpointError).array("b")
    assert read.dtype == np.float32
    assert np.array_equal(read, values.float().numpy())


def test_a_dtype_that_numpy_lacks_is_named(tmp_path: Path) -> None:
    import torch
    from safetensors.torch import save_file as save_torch

    path = tmp_path / "t"
    save_torch({"a.weight": torch.zeros(4).to(torch.float8_e4m3fn)}, path)
    with pytest.raises(CheckpointError) as told:
        TensorFile(path, CheckpointError).array("a.weight")
    assert str(told.value) == (
        f"{path}: tensor 'a.weight' has dtype F8_E4M3, which cannot be read; convert it to float32"
    )


def test_the_error_is_of_the_class_asked_for(tmp_path: Path) -> None:
    for error in (MaskError, CheckpointError):
        with pytest.raises(error, match="no such file"):
            TensorFile(tmp_path / "missing", error)


# --- writing


def writes(data: bytes) -> Callable[[BinaryIO], None]:
    def write(stream: BinaryIO) -> None:
        stream.write(data)

    return write


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, OSError], ids=lambda e: e.__name__)
@pytest.mark.parametrize("old", [None, b"old"], ids=["new", "replaced"])
def test_a_failing_writer_leaves_what_was_there(tmp_path: Path, error: type[BaseException], old: bytes | None) -> None:
    path = tmp_path / "out"
    if old is not None:
        path.write_bytes(old)

    def write(stream: BinaryIO) -> None:
        stream.write(b"half of it")
        raise error

    with pytest.raises(OutputError if error is OSError else error):
        write_atomically(path, write, force=True)
    assert [p.name for p in tmp_path.iterdir()] == ([] if old is None else ["out"])
    assert old is None or path.read_bytes() == old


@pytest.mark.parametrize("old", [None, b"old"])
def test_a_file_is_on_the_disk_before_it_has_its_name(
    tmp_path: Path, old: bytes | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, flushed = tmp_path / "f", []
    if old is not None:
        path.write_bytes(old)

    def watched(descriptor: int) -> None:
        flushed.append((os.fstat(descriptor).st_size, path.read_bytes() if path.exists() else None))

    monkeypatch.setattr(os, "fsync", watched)
    write_atomically(path, writes(b"new and whole"), force=True)
    assert (13, old) in flushed
    assert path.read_bytes() == b"new and whole"


def test_nothing_of_a_new_file_is_seen_before_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "out"
    path.write_bytes(b"old")

    def write(stream: BinaryIO) -> None:
        stream.write(b"new")
        stream.flush()
        assert path.read_bytes() == b"old"

    write_atomically(path, write, force=True)
    assert path.read_bytes() == b"new"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(("mask", "mode"), [(0o022, 0o644), (0o077, 0o600), (0o002, 0o664)])
def test_permissions_follow_the_umask(tmp_path: Path, mask: int, mode: int) -> None:
    path, before = tmp_path / "out", os.umask(mask)
    try:
        write_atomically(path, writes(b"x"), force=False)
        assert os.umask(mask) == mask
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == mode


def test_a_pipe_is_written_to_and_stays_a_pipe(tmp_path: Path) -> None:
    path = tmp_path / "pipe"
    os.mkfifo(path)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    try:
        write_atomically(path, writes(b"through"), force=False)
        assert os.read(reader, 100) == b"through"
    finally:
        os.close(reader)
    assert path.is_fifo()
    assert list(tmp_path.iterdir()) == [path]


def test_a_full_device_says_so(tmp_path: Path) -> None:
    with pytest.raises(OutputError) as told:
        write_atomically(Path("/dev/full"), writes(b"x"), force=True)
    assert str(told.value) == (
        "/dev/full: cannot be written: no space left on the device; free some or choose another folder with output="
    )
    assert Path("/dev/full").is_char_device()


def test_outputs_that_cannot_be(tmp_path: Path) -> None:
    (tmp_path / "there").write_bytes(b"old")
    table = {
        tmp_path: "is a directory; give a file name",
        tmp_path / "there": "exists already; force=True replaces it",
        tmp_path
        / "no"
        / "x": f"the folder {tmp_path / 'no'} does not exist; make it first (mkdir -p {tmp_path / 'no'})",
        tmp_path / "there" / "x": f"the folder {tmp_path / 'there'} does not exist; make it first "
        f"(mkdir -p {tmp_path / 'there'})",
    }
    for path, reason in table.items():
        with pytest.raises(OutputError) as told:
            write_atomically(path, writes(b"x"), force=False)
        assert str(told.value) == f"{path}: {reason}"
    assert (tmp_path / "there").read_bytes() == b"old"


def test_a_folder_that_may_not_be_written_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # root may write anywhere, so it is pretended
    with pytest.raises(OutputError) as told:
        check_output(tmp_path / "x", force=False)
    assert str(told.value) == f"{tmp_path / 'x'}: no permission to write in {tmp_path}"


# --- tables

FIELDS = ("name", "count", "value", "missing", "yes")
AWKWARD = [0.1, 1 / 3, 5e-324, 1.7976931348623157e308, -0.0, 2.0**53 + 1, 1e16, math.pi]
RECORDS: list[Record] = [
    {"name": f'a, "quoted"\tname {i}', "count": 2**60 + i, "value": value, "missing": None, "yes": i % 2 == 0}
    for i, value in enumerate(AWKWARD)
]


def written(kind: Format, records: list[Record], *, header: bool = True) -> str:
    stream = io.StringIO()
    writer = TableWriter(stream, kind, FIELDS, header=header)
    writer.write(records)
    writer.close()
    return stream.getvalue()


def read(kind: Format, text: str) -> list[dict[str, object]]:
    if kind is Format.JSON:
        return json.loads(text)
    if kind is Format.JSONL:
        return [json.loads(line) for line in text.splitlines()]
    rows = csv.DictReader(io.StringIO(text), dialect="excel-tab" if kind is Format.TSV else "excel")
    typed = {"count": int, "value": float, "missing": {"": None}.get, "yes": {"true": True, "false": False}.get}
    return [{key: typed.get(key, str)(value) for key, value in row.items()} for row in rows]


MACHINE = pytest.mark.parametrize("kind", [kind for kind in Format if not kind.for_people])


@MACHINE
def test_every_format_carries_every_field_and_every_digit(kind: Format) -> None:
    found = read(kind, written(kind, RECORDS))
    assert [tuple(record) for record in found] == [FIELDS] * len(RECORDS)
    cells = kind in (Format.CSV, Format.TSV)
    assert found == [record | {"name": as_cell(record["name"])} if cells else record for record in RECORDS]
    assert math.copysign(1, found[4]["value"]) == -1  # 0 == -0


def test_missing_is_null_in_json_and_empty_elsewhere() -> None:
    record: list[Record] = [dict.fromkeys(FIELDS)]
    assert (
        written(Format.JSON, record)
        == '[\n  {"name": null, "count": null, "value": null, "missing": null, "yes": null}\n]\n'
    )
    assert written(Format.JSONL, record).count("null") == 5
    assert written(Format.CSV, record, header=False) == ",,,,\n"
    assert written(Format.TSV, record, header=False) == "\t\t\t\t\n"


@pytest.mark.parametrize(
    ("kind", "header", "wanted"),
    [
        (Format.JSON, True, "[]\n"),
        (Format.JSONL, True, ""),
        (Format.CSV, True, "name,count,value,missing,yes\n"),
        (Format.TSV, True, "name\tcount\tvalue\tmissing\tyes\n"),
        (Format.JSON, False, "[]\n"),
        (Format.CSV, False, ""),
        (Format.TSV, False, ""),
    ],
)
def test_empty_tables(kind: Format, header: bool, wanted: str) -> None:
    assert written(kind, [], header=header) == wanted


@MACHINE
def test_only_the_fields_asked_for_are_written(kind: Format) -> None:
    assert "secret" not in written(kind, [RECORDS[0] | {"extra": "secret"}])
    with pytest.raises(KeyError, match="yes"):
        written(kind, [{key: value for key, value in RECORDS[0].items() if key != "yes"}])


TEXTS = st.text(alphabet='a, "\t\n\r=+-.5\\x7fé%{}\\', max_size=6)
VALUES = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXTS | (
    st.lists(TEXTS).map(tuple) | st.lists(st.integers(0, 99))
)  # fmt: skip


@MACHINE
@given(fields=st.lists(TEXTS, min_size=1, max_size=4, unique=True), data=st.data())
def test_lines_are_as_the_standard_library_writes_them(kind: Format, fields: list[str], data: st.DataObject) -> None:
    records = data.draw(st.lists(st.fixed_dictionaries(dict.fromkeys(fields, VALUES)), min_size=1, max_size=3))
    stream, wanted = io.StringIO(), io.StringIO()
    write_table(stream, kind, fields, records)
    if kind in (Format.JSON, Format.JSONL):
        lines = [json.dumps({one: record[one] for one in fields}).replace("\x7f", "\\u007f") for record in records]
        text = "[\n  " + ",\n  ".join(lines) + "\n]\n" if kind is Format.JSON else "".join(f"{one}\n" for one in lines)
        wanted.write(text)
    else:
        writer = csv.writer(wanted, "excel-tab" if kind is Format.TSV else "excel", lineterminator="\n")
        writer.writerows([map(as_cell, fields), *([csv_value(record[one]) for one in fields] for record in records)])
    assert stream.getvalue() == wanted.getvalue()


def csv_value(value: Value) -> object:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple | list):
        value = " ".join(value) if isinstance(value, tuple) else "x".join(map(str, value))
    return as_cell(value) if isinstance(value, str) else value


@pytest.mark.parametrize("kind", [Format.JSON, Format.JSONL])
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_json_has_no_such_number(kind: Format, value: float) -> None:
    with pytest.raises(ValueError, match="JSON"):
        written(kind, [RECORDS[0] | {"value": value}])


def test_a_table_for_people_is_not_written_here() -> None:
    with pytest.raises(ValueError, match=r"display\.tables"):
        TableWriter(io.StringIO(), Format.TABLE, FIELDS)


# --- paths


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("m10", "m2", "m1"):
        save_mask(tmp_path / f"{name}.safetensors", {"w": random_mask((3, 3))})
    save_file({"w": np.array([[0.25, -1.5]], np.float32)}, tmp_path / "a-checkpoint.safetensors")
    (tmp_path / "notes.txt").write_text("not a mask")
    return tmp_path


def found(*given: object, stdin: str = "") -> tuple[list[Path], list[str]]:
    notes: list[str] = []
    return mask_paths([str(path) for path in given], io.StringIO(stdin), notes.append), notes


def test_a_folder_is_its_masks_in_natural_order(folder: Path) -> None:
    paths, notes = found(folder)
    assert [path.name for path in paths] == ["m1.safetensors", "m2.safetensors", "m10.safetensors"]
    assert notes == [
        f"{folder / 'a-checkpoint.safetensors'}: holds weights, not a mask; left out",
        f"{folder}: notes.txt: not *.safetensors, *.npz, *.pt, *.pth in this folder; left out",
    ]


def test_what_else_is_in_a_folder_is_one_line(folder: Path) -> None:
    (folder / "0.05").mkdir()
    (folder / ".hidden").write_text("")
    for number in range(7):
        (folder / f"log-{number}.txt").write_text("")
    assert found(folder)[1][1:] == [
        f"{folder}: log-0.txt, log-1.txt, log-2.txt, log-3.txt, log-4.txt and 3 more: not *.safetensors, *.npz, *.pt, *.pth "
        "in this folder; left out"
    ]


def test_masks_in_a_folder_of_a_folder(folder: Path) -> None:
    """Files of a folder first, then its folders in their natural order; no link is followed, for it may lead round."""
    deeper = []
    for name in ("0.2/seed-10", "0.05/seed-10", "0.05/seed-9"):
        (folder / name).mkdir(parents=True)
        deeper.append(save_mask(folder / name / "m.safetensors", {"w": random_mask((3, 3))}))
    (folder / "0.05" / "round").symlink_to(folder)
    (folder / ".cache").mkdir()
    save_mask(folder / ".cache" / "m.safetensors", {"w": random_mask((3, 3))})
    paths, notes = found(folder)
    assert paths == [*(folder / f"m{at}.safetensors" for at in (1, 2, 10)), *deeper[::-1]]
    assert (
        notes[1] == f"{folder}: notes.txt, 0.05/round/: not *.safetensors, *.npz, *.pt, *.pth in this folder; left out"
    )


def test_a_folder_that_may_not_be_read_is_passed_over(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    closed = folder / "closed"
    closed.mkdir()
    save_mask(closed / "m.safetensors", {"w": random_mask((3, 3))})
    listed = Path.iterdir

    def iterdir(path: Path) -> Iterator[Path]:
        if path == closed:
            raise PermissionError(13, "Permission denied", str(path))
        return listed(path)

    of_file = os.stat

    def stat_of(path: object, **how: bool) -> os.stat_result:
        if isinstance(path, str | Path) and Path(path).parent == closed:
            raise PermissionError(13, "Permission denied", str(path))
        return of_file(path, **how)  # type: ignore[arg-type]

    monkeypatch.setattr(Path, "iterdir", iterdir)
    monkeypatch.setattr(os, "stat", stat_of)
    paths, notes = found(folder)
    assert paths == [folder / f"m{at}.safetensors" for at in (1, 2, 10)]
    assert f"{closed}: Permission denied; the folder is left out" in notes


def test_what_a_search_keeps_of_itself_is_no_mask_of_a_folder(pai: Pai, here: Path) -> None:
    search = "sample small.safetensors --method erk --density 0.5 --population 2 -o best.safetensors"
    assert pai(*search.split()).status == 0
    paths, notes = found(here)
    assert [path.name for path in paths] == ["best.safetensors"]
    assert f"{here / 'best.state.safetensors'}: no tensor has rows and columns; left out" in notes


def test_a_damaged_file_in_a_folder_is_not_passed_over(folder: Path) -> None:
    (folder / "m3.safetensors").write_bytes(b"")
    paths, _ = found(folder)
    assert [path.stem for path in paths] == ["m1", "m2", "m3", "m10"]


@pytest.mark.parametrize("dtype", ["bool", "uint8", "float32"])
def test_a_folder_of_foreign_masks(tmp_path: Path, dtype: str) -> None:
    """A file of only 0 and 1 is a mask whatever its dtype, so it is one in a folder too."""
    path = tmp_path / "foreign.safetensors"
    save_file({"w": random_mask((4, 4)).astype(dtype)}, path)
    assert found(tmp_path) == ([path], [])


def test_a_folder_without_masks(folder: Path) -> None:
    for path in folder.glob("m*"):
        path.unlink()
    with pytest.raises(MaskError) as told:
        found(folder)
    assert str(told.value) == f"{folder}: no mask (*.safetensors, *.npz, *.pt, *.pth) in this folder, nor below it"


def test_a_list_on_standard_input(folder: Path) -> None:
    lines = f"\n{folder / 'm2.safetensors'}  \n\n{folder / 'm1.safetensors'}\n"
    assert found("-", stdin=lines)[0] == [folder / "m2.safetensors", folder / "m1.safetensors"]
    with pytest.raises(MaskError) as told:
        found("-", stdin="\n \n")
    assert str(told.value) == "-: standard input lists no mask; give one path a line"
    names = ["a b.npz", " c\n.npz"]  # what a list of lines could not say
    assert found("-", stdin="".join(f"{name}\0" for name in names))[0] == [Path(name) for name in names]


def test_each_path_once_in_the_order_given(folder: Path) -> None:
    last = folder / "m10.safetensors"
    paths, _ = found(last, folder, last, "-", stdin=f"{folder / 'm1.safetensors'}\nelsewhere\n")
    assert [path.stem for path in paths] == ["m10", "m1", "m2", "elsewhere"]


# --- provenance, naming


def test_provenance_is_a_command_that_can_be_pasted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "86399")
    assert provenance(["prune", "my file.pt", "--ignore", "fc*"]) == {
        "pai_version": __version__,
        "command": "pai prune 'my file.pt' --ignore 'fc*'",
        "created": "1970-01-01T23:59:59Z",
    }


@pytest.mark.parametrize("epoch", [None, "", "yesterday", "-5"])
def test_without_a_usable_epoch_the_clock_is_taken(monkeypatch: pytest.MonkeyPatch, epoch: str | None) -> None:
    monkeypatch.delenv("SOURCE_DATE_EPOCH", raising=False)
    if epoch is not None:
        monkeypatch.setenv("SOURCE_DATE_EPOCH", epoch)
    assert provenance([])["created"] > "2025"


@pytest.mark.parametrize(
    "names",
    [
        ["features.2", "features.10", "features.10.a", "features.11"],
        ["2.weight", "10.weight", "a.weight"],
        ["conv", "conv1", "conv2", "conv10"],
        ["a1b2", "a1b10", "a2b1"],
        ["", "x"],
        ["x1", "x1²"],  # a digit that is no decimal
    ],
)
def test_natural_order(names: list[str]) -> None:
    mixed = names[1:] + names[:1]
    assert sorted(mixed, key=natural_order) == names


@pytest.mark.parametrize("names", [["erk-0.02", "erk-0.05", "erk-0.2"], ["mask-2", "mask-10"], ["1.5x", "10"], ["x1²"]])
def test_file_order_reads_densities_as_numbers(names: list[str]) -> None:
    shuffled = names[::-1]
    assert sorted(shuffled, key=file_order) == names


def test_many_files_that_are_no_masks_are_one_line(folder: Path) -> None:
    for number in range(8):
        shutil.copy(folder / "a-checkpoint.safetensors", folder / f"w-{number}.safetensors")
    paths, notes = found(folder)
    assert len(paths) == 3
    assert [note.rpartition("/")[2] for note in notes[:5]] == [
        f"{name}.safetensors: holds weights, not a mask; left out"
        for name in ("a-checkpoint", "w-0", "w-1", "w-2", "w-3")
    ]
    assert notes[5:] == [
        f"{folder}: the same of 4 more files: holds weights, not a mask; left out",
        f"{folder}: notes.txt: not *.safetensors, *.npz, *.pt, *.pth in this folder; left out",
    ]
