"""Names that nobody who means well gives to anything, in files of every kind, and what must hold when they are shown."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
from conftest import Done, random_mask, save_mask

from pai_cli.printable import LONGEST_LINE

NAMES = (
    *("\x1b[31m", "\x1b]0;x\x07", "a\rb", "a\nb", "a\tb", "\x9b2J", "\x7f", "\x00", "\u202e", "\u2066", "\u200b"),
    *(
        "\u2028",
        "[/x]0.weight",
        "[bold]",
        "[link=x]y[/link]",
        "$\\frac",
        "$x_1$",
        "<script>alert(1)</script>",
        "</title>",
    ),
    *("=cmd|' /C calc'!A0", "+1+1", "-1+1", "@SUM(A1)", '"', "'", "a,b;c", "漢字" * 30, "e\u0301", "{0}{x}", "%s%n"),
    *(":warning:", "x" * 100_000, "a b " * 20_000, "a/" * 20_000),
)
SURROGATE = "\udcff\ud800"
EVERYTHING = "".join(name[:40] for name in NAMES if "\x00" not in name)
"""All that can be typed as one argument."""

STARTS = "=+-@"


def as_file(name: str) -> str:
    """A name as a file can have it."""
    kept = name.replace("/", "_").replace("\x00", "_")
    return kept.encode("utf-8", "surrogateescape")[:150].decode("utf-8", "ignore") if kept != SURROGATE else "\udcff"


def hostile_mask(path: Path, names: tuple[str, ...] = NAMES, seed: int = 0) -> Path:
    """A mask file whose layers have such names, and whose metadata are such texts."""
    masks = {name: random_mask((8, 8), seed=seed + at) for at, name in enumerate(names)}
    story = dict.fromkeys(("method", "dataset", "model", "command", "checkpoint", *names[:3]), "".join(names)[:300])
    return save_mask(path, masks, **story)


def shown_well(done: Done, kind: str = "table") -> None:
    """Both streams hold printable lines of bearable length, and nothing stumbled."""
    allowed = {"\n", "\t"} if kind == "tsv" else {"\n"}
    for stream in (done.out, done.err):
        bare = {c for c in stream if not c.isprintable()} - allowed
        assert not bare, (sorted(bare), done)
    assert "pai: error: unexpected" not in done.err, done.err[:3000]
    assert "Traceback" not in done.err, done.err[:3000]
    assert "MarkupError" not in done.err
    assert all(len(line) <= LONGEST_LINE + len("pai: warning: ") for line in done.said), max(map(len, done.said))
    if done.status == 2:
        return  # told in a box
    assert all(line.startswith("pai: ") for line in done.said), done.said[:5]


def rows_of(done: Done, kind: str) -> list[dict[str, object]]:
    """The rows on standard output; of CSV and TSV, none split over lines and none that a spreadsheet would run."""
    if kind == "table" or not done.out:
        return []
    if kind == "json":
        found = json.loads(done.out)
        return found if isinstance(found, list) else found["masks"]
    if kind == "jsonl":
        return [json.loads(line) for line in done.out.split("\n")[:-1]]
    csv.field_size_limit(10**9)
    lines = done.out.split("\n")[:-1]
    rows = list(csv.reader(io.StringIO(done.out), dialect="excel-tab" if kind == "tsv" else "excel", strict=True))
    assert len(rows) == len(lines)
    assert {len(row) for row in rows} == {len(rows[0])}
    for cell in (cell for row in rows for cell in row):
        assert not runs_in_a_spreadsheet(cell), cell[:200]
    return [dict(zip(rows[0], row, strict=True)) for row in rows[1:]]


def runs_in_a_spreadsheet(cell: str) -> bool:
    """Whether a cell is a formula, and no number."""
    try:
        float(cell)
    except ValueError:
        return len(cell) > 1 and cell[0] in STARTS
    return False


def page_is_safe(path: Path) -> None:
    """Nothing in the page but its own script is markup, and every character has a shape."""
    text = path.read_text(encoding="utf-8")
    assert not {c for c in text if not c.isprintable()} - {"\n"}
    assert text.count("<script") == text.count("</script>") == 1
    assert text.count("</title>") == 1 + text.count("<svg") + text.count('<g class="dot">')


def picture_is_safe(path: Path) -> None:
    """An .svg that parses, every character of which has a shape."""
    text = path.read_text(encoding="utf-8")
    assert not {c for c in text if not c.isprintable()} - {"\n"}
    ElementTree.fromstring(text)


def hostile_arrays(path: Path, names: tuple[str, ...]) -> Path:
    """Arrays by name, as .npz."""
    np.savez(path, **{name: random_mask((8, 8)) for name in names})  # type: ignore[arg-type]
    return path
