"""One way to draw: a picture is described first, and drawn when it is written, to a file or into a page.

matplotlib is imported only then, its object interface only, so no window and no state of its own is touched. The same
numbers give the same bytes: its settings are its defaults and those below, whatever a matplotlibrc says.
"""

from __future__ import annotations

import io
import logging
import math
import re
import textwrap
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pai_cli.errors import PictureError, SuffixError, install
from pai_cli.files.atomic import write_bytes
from pai_cli.files.plan import check_name
from pai_cli.printable import as_line, printable, shortened
from pai_cli.spelling import for_shell, option

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure, FigureBase

SUFFIXES = (".svg", ".png", ".pdf")
NO_MATPLOTLIB = f"needs matplotlib; {install('plot')}"

# Of Okabe and Ito's colours, told apart with any colour vision, those that show on white; the yellow and the black do not
# serve on both a light and a dark page. Each has a marker too, so that nothing is told by colour alone.
SERIES = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">", "p", "h", "d")
INK, FAINT, GRID = "#1f2328", "#6b7280", "#d5d8dd"
NOTE_CHARACTERS, TITLE_CHARACTERS = 16, 13  # of a note and of a title, an inch
TITLE = "title:"
"""Begins what a mark is called: matplotlib has links for marks and no titles, which an `.svg` gets in their place."""
_TITLED = re.compile(rb"<a xlink:href=([\"'])title:(.*?)\1[^>]*>")
LONGEST_NAME = 44  # characters of a name in a picture; the middle of a longer one is left out

_STYLE: Any = {
    "font.family": ["DejaVu Sans", "sans-serif"],
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
    "axes.labelsize": 9,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "legend.fontsize": 8,
    "legend.frameon": False,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.facecolor": "none",
    "axes.edgecolor": FAINT,
    "axes.labelcolor": INK,
    "axes.titlecolor": INK,
    "text.color": INK,
    "xtick.color": FAINT,
    "ytick.color": FAINT,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "axes.grid": True,
    "grid.color": GRID,
    "grid.linewidth": 0.6,
    "lines.linewidth": 1.4,
    "lines.markersize": 4,
    "figure.dpi": 100,
    "savefig.dpi": 200,
    "text.parse_math": False,  # a `$` in the name of a file is that sign
    "svg.fonttype": "none",  # text stays text: to be searched, copied and read aloud
    "svg.hashsalt": "pai",
    "pdf.fonttype": 42,
}
# No dates, no versions: the same numbers, the same file.
_METADATA: dict[str, dict[str, Any]] = {
    ".svg": {"Date": None, "Creator": "pai"},
    ".png": {"Software": "pai"},
    ".pdf": {"CreationDate": None, "Creator": "pai", "Producer": None},
}


@dataclass(frozen=True)
class Picture:
    """A picture still to be drawn: `paint` draws it on an empty figure of `width` by `height` inches.

    `title`: what it shows, in words, for those who cannot see it. The figure may be a part of a larger one. `parts`: the
    same in pieces, where it is higher than a sheet of paper; () where it is not.
    """

    title: str
    width: float
    height: float
    paint: Callable[[FigureBase], None]
    parts: tuple[Picture, ...] = ()


def stacked(pictures: Sequence[Picture]) -> Picture:
    """Pictures below each other, as one."""
    if len(pictures) == 1:
        return pictures[0]

    def paint(figure: FigureBase) -> None:
        heights = [picture.height for picture in pictures]
        parts: Any = figure.subfigures(len(pictures), 1, squeeze=False, height_ratios=heights)
        for part, picture in zip(parts.flat, pictures, strict=True):
            picture.paint(part)

    width, height = max(picture.width for picture in pictures), sum(picture.height for picture in pictures)
    return Picture("; ".join(picture.title for picture in pictures), width, height, paint)


def check_picture(path: Path | None) -> None:
    """Refuse what could not be drawn, before any work is done for it; None is no picture at all.

    Raises `SuffixError` for another than .svg, .png and .pdf, `PictureError` without matplotlib.
    """
    check_drawn(path, SUFFIXES, "plot", "writes .svg, .png or .pdf; end the file's name in one of those")


def check_drawn(path: Path | None, suffixes: Sequence[str], parameter: str, what: str) -> None:
    """Raise `UsageError` for "-", `SuffixError` for a file of another, and `PictureError` where matplotlib is missing.

    Imports nothing.
    """
    if path is None:
        return
    check_name(path, parameter)
    if path.suffix.lower() not in suffixes:
        raise SuffixError(f"{path}: {option(parameter)} {what}")
    if find_spec("matplotlib") is None:
        raise PictureError(f"{option(parameter)}: {NO_MATPLOTLIB}")


def or_nan(value: float | None) -> float:
    """A value as matplotlib leaves a gap for it where there is none."""
    return math.nan if value is None else value


def write_picture(picture: Picture, path: Path, *, force: bool) -> None:
    """Draw a picture into a file, in the format its suffix names, whole or not at all.

    Raises `PictureError`, `OutputError`.
    """
    check_picture(path)
    data = drawn(picture, path.suffix.lower())
    write_bytes(path, data, force=force)


def drawn(picture: Picture, suffix: str, *, transparent: bool = False) -> bytes:
    """The bytes of a picture in the format of `suffix`. Raises `PictureError` without matplotlib."""
    with _matplotlib() as figure_of:
        ground = "none" if transparent else "white"
        figure = figure_of(figsize=(picture.width, picture.height), layout="constrained", facecolor=ground)
        picture.paint(figure)
        stream = io.BytesIO()
        figure.savefig(stream, format=suffix[1:], metadata=_METADATA[suffix])
    data = stream.getvalue()
    return (
        _TITLED.sub(rb'<g class="dot"><title>\2</title>', data).replace(b"</a>", b"</g>") if suffix == ".svg" else data
    )


def axes_of(picture: Picture, figure: FigureBase | None = None) -> list[Axes]:
    """A picture drawn on a figure of its own, made by pyplot so that a notebook shows it, or on the one given; its axes.

    Which backend shows it is matplotlib's own choice. Raises `PictureError` without matplotlib.
    """
    with _matplotlib("plot()"):
        pass  # what is missing is told
    if figure is None:
        from matplotlib import pyplot

        size = (picture.width, picture.height)
        figure = pyplot.figure(figsize=size, layout="constrained", facecolor="white")
    drawn_on: Any = figure
    before = set(drawn_on.axes)
    with _matplotlib():
        picture.paint(figure)
    return [axes for axes in drawn_on.axes if axes not in before]


@contextmanager
def _matplotlib(wanted: str = option("plot")) -> Iterator[Callable[..., Figure]]:
    """matplotlib's figures under our settings, which hold until the block ends: text is made as late as when saving."""
    logging.getLogger("matplotlib").setLevel(logging.ERROR)  # it tells of its font cache on standard error
    try:
        import matplotlib as mpl
        from matplotlib.figure import Figure
    except ImportError as e:
        raise PictureError(f"{wanted}: {NO_MATPLOTLIB}") from e
    with mpl.rc_context(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # several lines on letters that its fonts lack, which are drawn as boxes
        mpl.rcdefaults()
        mpl.rcParams.update(_STYLE)
        yield Figure


def named(text: str, longest: int = LONGEST_NAME) -> str:
    """A name from a file as a picture can show it: no control characters, the middle of a long one left out."""
    return shortened(printable(text), longest)


def short_labels(paths: Sequence[Path]) -> list[str]:
    """What to call each of many files: without the folders and the ending that all of them share."""
    if len(set(paths)) < 2:
        return [str(path) for path in paths]
    shared = 0
    for folders in zip(*(path.parts[:-1] for path in paths), strict=False):
        if len(set(folders)) > 1:
            break
        shared += 1
    texts = [str(Path(*path.parts[shared:])) for path in paths]
    endings = {path.suffix for path in paths}
    ending = endings.pop() if len(endings) == 1 else ""
    # `.05` of `erk-0.05` is no ending.
    return texts if ending[1:].isdecimal() else [text.removesuffix(ending) for text in texts]


def headline(figure: FigureBase, text: str) -> None:
    """A title over everything, on as many lines as it takes."""
    lines = textwrap.wrap(as_line(text), int(width_of(figure) * TITLE_CHARACTERS))
    figure.suptitle("\n".join(lines), x=0.01, ha="left", fontsize=10)


def footnote(figure: FigureBase, notes: Sequence[str]) -> None:
    """Lines under everything, for what a picture does not show: its gaps, what it left out."""
    room = int(width_of(figure) * NOTE_CHARACTERS)
    lines = [line for note in notes for line in textwrap.wrap(as_line(for_shell(note)), room)]
    if lines:
        figure.supxlabel("\n".join(lines), x=0.01, ha="left", fontsize=8, color=FAINT)


def width_of(figure: FigureBase) -> float:
    """Inches of a figure, or of a part of one."""
    return _inches(figure)[0]


def height_of(figure: FigureBase) -> float:
    """Inches of a figure, or of a part of one."""
    return _inches(figure)[1]


def _inches(figure: Any) -> tuple[float, float]:
    dpi = figure.get_figure(root=True).dpi
    return figure.bbox.width / dpi, figure.bbox.height / dpi


def whole_numbers(axes: Axes, label: str) -> None:
    """An axis to the right of epochs, steps or candidates, with marks at whole ones alone, be it a single one."""
    axes.set_xlabel(label)
    axes.xaxis.get_major_locator().set_params(integer=True, min_n_ticks=1)  # type: ignore[call-arg]


def zero_line(axes: Axes, level: float = 0.0) -> None:
    """A line across at a level that means something."""
    axes.axhline(level, color=FAINT, linewidth=0.9, zorder=1)
