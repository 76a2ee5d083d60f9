"""Small bars in a table on a terminal."""

from __future__ import annotations

from dataclasses import dataclass

from pai_cli.display.console import Paper, output
from pai_cli.files.tables import Value

SIDE = 6  # cells from the middle, which is 0, to either end, which is 1 and -1


@dataclass(frozen=True)
class Blocks:
    """What bars are made of: `middle`, `whole` cells, and parts of a cell by how much of it they fill, on either side."""

    middle: str
    whole: str
    leftwards: dict[float, str]
    rightwards: dict[float, str]


# Unicode has eighths of a cell from its left, and from its right only one eighth and a half.
DRAWN = Blocks(
    "│", "█", {0: "", 0.125: "▕", 0.5: "▐", 1: "█"}, {at / 8: part for at, part in enumerate(("", *"▏▎▍▌▋▊▉█"))}
)
PLAIN = Blocks("|", "#", {0: "", 1: "#"}, {0: "", 1: "#"})


def bar(share: Value, blocks: Blocks = DRAWN) -> str:
    """A share of a bound, -1 to 1, as a bar of 13 characters from the middle; `<` ends one below -1, `-` is no value."""
    if not isinstance(share, int | float):
        return "-".center(2 * SIDE + 1)
    length = min(abs(share), 1.0) * SIDE
    cells = int(length)
    parts = blocks.rightwards if share >= 0 else blocks.leftwards
    part = parts[min(parts, key=lambda filled: abs(filled - (length - cells)))]
    if share >= 0:
        return " " * SIDE + blocks.middle + (blocks.whole * cells + part).ljust(SIDE)
    drawn = part + blocks.whole * cells
    if share < -1:
        drawn = "<" + drawn[1:]
    return drawn.rjust(SIDE) + blocks.middle + " " * SIDE


def bars_here() -> Blocks | None:
    """What bars are made of on this standard output; None where it is no terminal: files and pipes get numbers only."""
    console = output()
    if isinstance(console, Paper) or not console.is_terminal:
        return None
    return PLAIN if console.options.ascii_only else DRAWN
