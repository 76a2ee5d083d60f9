"""Tables for papers and pages: Markdown's with pipes, LaTeX's `tabular` with the rules of booktabs; every text escaped."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

from pai_cli.display.plain import screen_width
from pai_cli.files.tables import Format

_MARKUP = re.compile(r"[\\`*\[\]<>|~$&]|(?<![^\W_])_|_(?![^\W_])")  # an underscore within a word marks nothing up
_NUMBER = re.compile(r"(-?[0-9.,]+)(?:e([+-][0-9]+))?")
_IN_LATEX = {
    "\\": r"\textbackslash{}",
    **{letter: f"\\{letter}" for letter in "{}$&#_%"},
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    "`": r"\textasciigrave{}",
    '"': r"\char34{}",  # some languages make a command of the letter itself
    "[": "{[}",  # what follows `\\` in brackets would be a length
    "*": "{*}",
}
_LETTERS = re.compile("[" + re.escape("".join(_IN_LATEX)) + "]")
_MINUS = re.compile(r"(?<![\w-])-(?=[0-9])")  # before a number among others, as an interval's ends are
MISSING_IN_LATEX = "--"


def paper_lines(kind: Format, cells: Mapping[str, Sequence[str]], left: Collection[str], *, total: bool) -> list[str]:
    """Lines of a table with these columns.

    `left`: columns of words, which stand to the left; the others are of numbers as a person reads them. With `total` the
    last row stands apart, where the format has a way to say so.
    """
    sides = ["l" if name in left else "r" for name in cells]
    rows = [list(row) for row in zip(*cells.values(), strict=True)]
    if kind is Format.MARKDOWN:
        return _markdown(list(cells), rows, sides)
    spelled = [in_latex if name in left else _number_in_latex for name in cells]
    return _latex(list(cells), rows, sides, spelled, total=total)


def title_lines(kind: Format, title: str) -> list[str]:
    """What stands before a table, or a sentence after one; in LaTeX a comment."""
    return [in_markdown(title), ""] if kind is Format.MARKDOWN else [f"% {title}"]


def in_markdown(text: str) -> str:
    """The text without any of its letters marking anything up; a vertical bar ends no cell."""
    return _MARKUP.sub(r"\\\g<0>", text)


def in_latex(text: str) -> str:
    """The text as LaTeX prints it letter by letter."""
    escaped = _LETTERS.sub(lambda found: _IN_LATEX[found.group()], text)
    return re.sub("-(?=-)", "-{}", escaped)  # two would be drawn as one dash


def _number_in_latex(text: str) -> str:
    found = _NUMBER.fullmatch(text)
    if found is None:
        return MISSING_IN_LATEX if text == "-" else _MINUS.sub("$-$", in_latex(text))
    mantissa, power = found.groups()
    if power is not None:
        return rf"${mantissa} \times 10^{{{int(power)}}}$"
    return f"${mantissa}$" if mantissa.startswith("-") else mantissa


def _markdown(names: Sequence[str], rows: Iterable[Sequence[str]], sides: Sequence[str]) -> list[str]:
    table = [list(map(in_markdown, row)) for row in (names, *rows)]
    widths = [max(3, *map(screen_width, column)) for column in zip(*table, strict=True)]
    rule = [f"{'-' * (width - 1)}:" if side == "r" else "-" * width for width, side in zip(widths, sides, strict=True)]
    table.insert(1, rule)
    return [_padded(row, widths, sides) for row in table]


def _padded(row: Sequence[str], widths: Sequence[int], sides: Sequence[str]) -> str:
    cells = []
    for cell, width, side in zip(row, widths, sides, strict=True):
        space = " " * (width - screen_width(cell))
        cells.append(space + cell if side == "r" else cell + space)
    return f"| {' | '.join(cells)} |"


def _latex(
    names: Sequence[str],
    rows: Sequence[Sequence[str]],
    sides: Sequence[str],
    spelled: Sequence[Callable[[str], str]],
    *,
    total: bool,
) -> list[str]:
    lines = [rf"{' & '.join(cell(text) for cell, text in zip(spelled, row, strict=True))} \\" for row in rows]
    if total and len(lines) > 1:
        lines.insert(-1, r"\midrule")
    return [
        r"% \usepackage{booktabs}",
        rf"\begin{{tabular}}{{{''.join(sides)}}}",
        r"\toprule",
        rf"{' & '.join(map(in_latex, names))} \\",
        r"\midrule",
        *lines,
        r"\bottomrule",
        r"\end{tabular}",
    ]
