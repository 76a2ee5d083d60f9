"""Tables without colours and folded cells, as they go to files and pipes: the same as `rich` draws, in a hundredth of the
time, which counts where a study has a table for each of ten thousand masks.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

    from pai_cli.display.console import Paper


def drawn_plainly(
    cells: Mapping[str, Sequence[str]], console: Console | Paper, left: Collection[str], *, total: bool
) -> bool:
    """Draw the table, where the console is a file of any letters and nothing has to fold; say whether that was so."""
    if console.is_terminal or not console.encoding.startswith("utf") or not cells:
        return False
    lines = plain_table(cells, left, total=total)
    if len(lines[0]) > console.width:
        return False
    console.file.writelines(f"{line}\n" for line in lines)
    return True


def plain_table(cells: Mapping[str, Sequence[str]], left: Collection[str], *, total: bool) -> list[str]:
    """Lines of a table with these columns; those of `left` are set to the left. With `total` the last row stands apart."""
    widths = [max(map(screen_width, (name, *column))) for name, column in cells.items()]
    sides = [name in left for name in cells]

    def row(values: Sequence[str]) -> str:
        spaced = []
        for value, width, on_left in zip(values, widths, sides, strict=True):
            space = " " * (width - screen_width(value))
            spaced.append(value + space if on_left else space + value)
        return f" {'  '.join(spaced)} "

    across = sum(widths) + 2 * (len(widths) - 1)
    rule = f" {'─' * across} "
    blank = " " * (across + 2)
    rows = [row(values) for values in zip(*cells.values(), strict=True)]
    if total and len(rows) > 1:
        rows.insert(-1, blank)
    return [blank, row(list(cells)), rule, *rows, blank]


def screen_width(text: str) -> int:
    """Columns on a screen, of which some letters take two or none."""
    if text.isascii():
        return len(text)
    from rich.cells import cell_len

    return cell_len(text)
