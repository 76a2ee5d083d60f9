"""Tables for people: whole numbers and names at any width, fewer columns where there is no room for all."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from pai_cli.display.bars import bar, bars_here
from pai_cli.display.console import WIDE, Paper, note, output, show_line, show_lines
from pai_cli.display.look import USUAL, Look
from pai_cli.display.papers import paper_lines, title_lines
from pai_cli.display.plain import drawn_plainly, screen_width
from pai_cli.display.short_names import ENDING, short_layers
from pai_cli.files.tables import Format, Record, Value, joined
from pai_cli.printable import as_line
from pai_cli.spectral.catalogue import EVERY
from pai_cli.spelling import for_shell

if TYPE_CHECKING:
    from rich.console import Console, JustifyMethod

ANALYZE_COLUMNS = ("density", "d_L", "d_R", "sigma_1", "sigma_2", "dr", "dr_imdb", "ds", "narc")
WEIGHT_COLUMNS = ("lambda", "lambda_imsg", "l2", "l2_dense")
PATH_COLUMNS = ("effective_share",)  # where the network is known
NETWORK_FIELDS = ("mask", "level", *ANALYZE_COLUMNS, *PATH_COLUMNS, *WEIGHT_COLUMNS, "outcome", "reason")
BARS = "dr_imdb_norm"  # drawn as bars where standard output is a terminal
MISSING = "-"
PROVED = "proved"
NO_WEIGHTS = ("needs --weights", "needs weights=")  # to whoever is told

_MEASURE = "|".join(EVERY)
MEASURES_OF_A_REASON = re.compile(rf" \((?:{_MEASURE})(?:, (?:{_MEASURE}))*\)(?=; |$)")
"""What `records.reasons` puts after a reason: the measures that it holds for."""

# Columns of words; the others hold numbers.
TEXT = (
    *("mask", "layer", "writer", "reader", "shape", "note", "method", "decided", "metric", "made"),
    *(
        "layers spanned",
        "held by",
        "name",
        "source",
        "summary",
        "needs",
        "best",
        "of",
        "meaning",
        "family",
        "file",
        "tensor",
    ),
    *("kind", "format", "network", "dtype"),
)
LAYERS = ("layer", "writer", "reader")  # columns of layers' names
# Characters a line that a folding text keeps.
LEAST_FOLD = {
    **dict.fromkeys(("mask", "layer", "writer", "reader", "layers spanned"), 24),
    **dict.fromkeys(("note", "decided", "made", "held by", "summary", "meaning", "source", "network"), 16),
    **dict.fromkeys(("reason", "outcome", "setting", "command", "remark"), 16),
    **dict.fromkeys(("file", "tensor"), 24),
}
# Left out in this order, until a table fits: what is furthest from "how well connected is it" goes first.
DISPENSABLE = (
    *("p", "r", "rho", "n", "partial p", "strongest in", "behind the strongest"),
    *("narc", "d_R", "d_L", "ds", "shape", "l2_dense", "sigma_1", "layers", "explored", "lambda_imsg", "method"),
    *("switches", "sigma_2_before", "sigma_2", BARS, "candidates", "total", "lambda", "columns", "outputs", "note"),
    *("decided", "effective_share", "dr", "density"),
)


def show_layers(records: Sequence[Record], *, weights: bool, look: Look = USUAL) -> None:
    """One mask's layers and, last, its network's means; what is missing is explained in the notes column."""
    show_title(number(records[0]["mask"]), look)
    columns, rows = layer_table(records, weights=weights)
    rows = look.ordered(rows, total=True)
    blocks = bars_here() if look.kind is Format.TABLE and not look.columns else None
    if blocks is not None:
        rows = [{**row, BARS: bar(row[BARS], blocks)} for row in rows]
        columns.insert(columns.index("dr_imdb") + 1, BARS)
    show_records(rows, look.shown(columns), total=True, look=look)


def layer_table(records: Sequence[Record], *, weights: bool) -> tuple[list[str], list[Record]]:
    """The columns that a person reads of one mask's records, and the rows: of its layers and, last, of its network."""
    rows = [{**record, "note": noted(record, weights)} for record in records]
    if rows[-1]["level"] == "network":
        rows[-1] |= {"layer": "network mean", "shape": ""}
    return ["layer", "shape", *_columns(weights, records), "note"], rows


def network_row(record: Record, look: Look = USUAL) -> Record:
    """What `show_networks` needs of a record: a sixth of it, so that thousands can wait for their table."""
    return {field: record[field] for field in {*NETWORK_FIELDS, *look.needed(())}}


def show_networks(records: Sequence[Record], *, weights: bool, look: Look = USUAL) -> None:
    """A line a mask: its network's means."""
    columns, rows = network_table(records, weights=weights)
    show_records(look.ordered(rows), look.shown(columns), look=look)


def network_table(records: Sequence[Record], *, weights: bool) -> tuple[list[str], list[Record]]:
    """The columns that a person reads of several masks' networks, and the rows."""
    columns = ["mask", *(column for column in _columns(weights, records) if column not in ("d_L", "d_R")), "note"]
    return columns, [{**record, "note": noted(record, weights)} for record in records]


def show_records(records: Sequence[Record], columns: Sequence[str], *, total: bool = False, look: Look = USUAL) -> None:
    """A table of some of the records' fields, as they are ordered; with `total` the last record stands apart."""
    if look.kind is Format.TABLE:
        _draw(columns, records, total=total, look=look)
        return
    show_lines(f"{_on_paper(columns, records, total=total, look=look)}\n")


def _on_paper(columns: Sequence[str], records: Sequence[Record], *, total: bool, look: Look) -> str:
    cells, left = _cells(columns, records), _left(columns, records, look)
    return "\n".join(paper_lines(look.kind, cells, left, total=total))


def show_title(text: str, look: Look = USUAL) -> None:
    """What a table is of, in the line before it, or a sentence about tables."""
    if look.kind is Format.TABLE or not text:
        show_line(text)
    else:
        show_lines("\n".join(title_lines(look.kind, as_line(for_shell(text)))))


def number(value: Value) -> str:
    """A value as a person reads it: five significant digits, thousands apart, `-` for what is missing."""
    if value is None:
        return MISSING
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:.5g}" if abs(value) < 1e5 else f"{value:.4e}"
    return as_line(joined(value) if isinstance(value, tuple | list) else value)


def _columns(weights: bool, records: Sequence[Record]) -> tuple[str, ...]:
    paths = tuple(name for name in PATH_COLUMNS if any(record[name] is not None for record in records))
    weighed = weights or any(record["lambda"] is not None for record in records)
    return ANALYZE_COLUMNS + paths + (WEIGHT_COLUMNS if weighed else ())


def _narrow(cells: Mapping[str, Sequence[str]], width: int) -> bool:
    """Whether layers' names would fold, or other columns give way to them."""
    whole = {column: _least_width(column, texts) for column, texts in cells.items()}
    whole |= {column: max(map(screen_width, texts)) for column, texts in cells.items() if column in LAYERS}
    return _room(whole) > width


def _narrowed(cells: dict[str, list[str]], *, total: bool) -> list[str]:
    """Shorten the layers' names in their columns, all by the same; what was left out of them, in words."""
    columns = [column for column in LAYERS if column in cells]
    last = -1 if total else None
    names = [name for column in columns for name in cells[column][:last]]
    short, shared = short_layers(names)
    left_out = [repr(f"{shared}.")] if shared else []
    if any(one.endswith(ENDING) and not other.endswith(ENDING) for one, other in zip(names, short, strict=True)):
        left_out.append(repr(ENDING))
    for at, column in enumerate(columns):
        count = len(cells[column][:last])
        cells[column][:last] = short[at * count : (at + 1) * count]
    return [f"{' and '.join(left_out)} of layers"] if left_out else []


def table_text(columns: Sequence[str], records: Sequence[Record], *, total: bool = False, look: Look = USUAL) -> str:
    """The table as `show_records` writes it, without colours, as wide as the terminal is or, where there is none, `WIDE`;
    what there was no room for is told in a last line.
    """
    if look.kind is not Format.TABLE:
        return _on_paper(columns, records, total=total, look=look)
    import io
    import shutil

    stream = io.StringIO()
    width = shutil.get_terminal_size((WIDE, 24)).columns
    left_out = _print(Paper(stream, width), columns, records, total=total, look=look)
    more = f"\nno room for {', '.join(left_out)}: a wider terminal shows them" if left_out else ""
    return "\n".join(line.rstrip() for line in stream.getvalue().splitlines()).strip("\n") + more


def _draw(columns: Sequence[str], records: Sequence[Record], *, total: bool, look: Look) -> None:
    left_out = _print(output(), columns, records, total=total, look=look)
    if left_out:
        note(f"no room for {', '.join(left_out)}: a wider terminal shows them, and so does --format csv")


def _cells(columns: Sequence[str], records: Sequence[Record]) -> dict[str, list[str]]:
    """The cells of each column as a person reads them, without a notes column that is empty."""
    cells = {as_line(column): [number(record[column]) for record in records] for column in columns}
    if not any(cells.get("note", ["there is none"])):
        del cells["note"]
    return cells


def _left(columns: Sequence[str], records: Sequence[Record], look: Look) -> set[str]:
    """The columns of words; where columns were asked for, values are as they are, and tell."""
    if not look.columns:
        return set(TEXT)
    words = {name for name in columns for record in records if isinstance(record[name], str | tuple | list)}
    return {*TEXT, *map(as_line, words)}


def _print(
    console: Console | Paper, columns: Sequence[str], records: Sequence[Record], *, total: bool, look: Look = USUAL
) -> list[str]:
    """Print the table as wide as the terminal is, wider where columns were asked for; no cell is ever cut. Gives what there
    was no room for.
    """
    cells, left = _cells(columns, records), _left(columns, records, look)
    shortened = _narrowed(cells, total=total) if console.is_terminal and _narrow(cells, console.width) else []
    shown, needed = _fitting(cells, console.width, () if look.columns else DISPENSABLE)
    left_out = [*shortened, *(column for column in cells if column not in shown)]
    if drawn_plainly({column: cells[column] for column in shown}, console, left, total=total):
        return left_out
    from rich import box
    from rich.table import Table

    drawing = console.console() if isinstance(console, Paper) else console
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    for column, width in _widths({column: cells[column] for column in shown}, console.width).items():
        drawn = column == BARS and isinstance(records[0][column], str)
        justify: JustifyMethod = "left" if drawn or column in left else "right"
        table.add_column(column, justify=justify, overflow="fold", no_wrap=column not in LEAST_FOLD, width=width)
    for index in range(len(records)):
        last = total and index == len(records) - 1
        if last:
            table.add_section()
        table.add_row(*(cells[column][index] for column in shown), style="bold" if last else None)
    drawing.width = max(drawing.width, needed)
    drawing.print(table)
    return left_out


def _fitting(cells: dict[str, list[str]], width: int, dispensable: Sequence[str]) -> tuple[list[str], int]:
    """The columns for which `width` has room, and the width that they need at least."""
    shown = list(cells)
    for column in (None, *dispensable):
        if column in shown:
            shown.remove(column)
        needed = _room({name: _least_width(name, cells[name]) for name in shown})
        if needed <= width:
            break
    return shown, needed


def _room(widths: Mapping[str, int]) -> int:
    """Characters that columns of these widths take, with what is between them."""
    return sum(width + 2 for width in widths.values())


def _widths(cells: Mapping[str, Sequence[str]], room: int) -> dict[str, int]:
    """The columns' widths: what room is left goes to those whose texts fold most. `rich` itself would cut letters off."""
    widths = {column: _least_width(column, texts) for column, texts in cells.items()}
    widest = {column: max(map(screen_width, texts)) for column, texts in cells.items() if column in LEAST_FOLD}
    for _ in range(room - _room(widths)):
        folded = {column: wide / widths[column] for column, wide in widest.items() if wide > widths[column]}
        if not folded:
            break
        widths[max(folded, key=folded.__getitem__)] += 1
    return widths


def _least_width(column: str, cells: Sequence[str]) -> int:
    widest = max(map(screen_width, (column, *cells)))
    return min(widest, LEAST_FOLD.get(column, widest))


def noted(record: Record, weights: bool) -> str:
    """What to know before using a layer's numbers, and reasons, without those a person chose: no weights, some layers.

    A text is shown whole; of reasons that measures share, only the list of the measures is left out.
    """
    reason = str(record["reason"] or "")
    if record["outcome"] == "failed":
        return f"failed: {reason}"
    parts = MEASURES_OF_A_REASON.sub("", reason).split("; ")
    from pai_cli.analysis.paths import OF_ALL_LAYERS

    chosen = (OF_ALL_LAYERS, *(() if weights else NO_WEIGHTS))
    reasons = [part for part in parts if part and part not in chosen]
    told = str(record["outcome"]) if record["level"] == "layer" else PROVED
    outcomes = [text for text in told.split("; ") if text != PROVED]
    return "; ".join(dict.fromkeys([*outcomes, *reasons]))
