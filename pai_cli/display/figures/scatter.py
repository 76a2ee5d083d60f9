"""What scatter plots of masks share: points coloured by a number, a marker a kind."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pai_cli.display.figures.canvas import FAINT, GRID, INK, MARKERS, TITLE, height_of, named
from pai_cli.files.ordering import natural_order

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colors import Colormap, Normalize
    from matplotlib.figure import FigureBase

MOST_SHAPES = 4000  # points drawn as shapes; more of them are dots, or an .svg would be of many megabytes
LONGEST_BAR = 5.0  # inches of a scale; its width goes with its length
MOST_MARKS = 7  # values that a scale has a mark for, each
MARKS = 5  # that it has of more
STEPS = 12  # of colour, told apart with any colour vision and in grey


@dataclass(frozen=True)
class Shade:
    """What colour tells: `label` of a number, between `low` and `high`; on a scale of powers where `powers`.

    `values`: those that the scale has marks at, where it is not of any numbers: all that there are, or, of many on a scale
    of powers, some of them that lie evenly; one alone needs no scale.
    """

    label: str
    low: float
    high: float
    powers: bool = False
    values: tuple[float, ...] = ()

    @staticmethod
    def of(label: str, values: Sequence[float | None], *, powers: bool = False) -> Shade:
        """A scale over the values that are there."""
        known = [value for value in values if value is not None]
        low, high = (min(known), max(known)) if known else (0.0, 1.0)
        distinct = tuple({f"{value:.3g}": value for value in sorted(known)}.values())  # as they are shown
        if powers and low <= 0:
            powers = False
        if low == high or len(distinct) == 1:  # one colour, in the middle
            low, high = (low / 2, high * 2) if powers else (low - 0.5, high + 0.5)
        if len(distinct) > MOST_MARKS:
            distinct = _evenly(distinct) if powers else ()
        return Shade(label, low, high, powers, distinct)

    @property
    def alone(self) -> bool:
        """Whether all have one colour, which then tells nothing."""
        return len(self.values) == 1

    @property
    def note(self) -> list[str]:
        """What to say where all have one colour."""
        return [f"{self.label} {self.values[0]:.3g} in all"] if self.alone else []

    def norm(self) -> Normalize:
        """The scale as matplotlib has it."""
        from matplotlib.colors import LogNorm, Normalize

        return (LogNorm if self.powers else Normalize)(self.low, self.high)


def _evenly(values: Sequence[float]) -> tuple[float, ...]:
    """Those of the values, in their order, that are nearest to even steps of a scale of powers."""
    ratio = (values[-1] / values[0]) ** (1 / (MARKS - 1))
    steps = [values[0] * ratio**step for step in range(MARKS)]
    return tuple(dict.fromkeys(min(values, key=lambda value: abs(math.log(value / step))) for step in steps))


@dataclass(frozen=True)
class Dots:
    """Points: `x`, `y`, and `shade`, None for a point whose number is not known, which is drawn hollow; `kinds` have
    markers each. `names`: what a point is called, which an `.svg` tells whoever points at it.
    """

    x: Sequence[float]
    y: Sequence[float]
    shade: Sequence[float | None]
    kinds: Sequence[str]
    names: Sequence[str]


def markers_of(kinds: Sequence[str]) -> dict[str, str]:
    """A marker a kind, in the order of their names, so that the same kinds have the same markers in every picture; all
    kinds past the markers there are share the last.
    """
    order = sorted(set(kinds), key=natural_order)
    return {kind: MARKERS[min(at, len(MARKERS) - 1)] for at, kind in enumerate(order)}


def scatter(axes: Axes, dots: Dots, shade: Shade, markers: dict[str, str]) -> None:
    """Draw points whose place is known; hollow ones first."""
    colours, norm = _colours(), shade.norm()
    every = zip(dots.x, dots.y, dots.shade, dots.kinds, dots.names, strict=True)
    rows = [row for row in every if _finite(row[0], row[1])]
    size = 22 if len(rows) <= 200 else 9
    for marker in dict.fromkeys(markers.values()):
        some = [row for row in rows if markers[row[3]] == marker]
        hollow, full = [row for row in some if row[2] is None], [row for row in some if row[2] is not None]
        shared = {"marker": marker, "s": size, "linewidths": 0.6, "rasterized": len(rows) > MOST_SHAPES}
        if hollow:
            drawn = axes.scatter(*_places(hollow), facecolors="none", edgecolors=FAINT, **shared)  # type: ignore[arg-type]
            drawn.set_urls(_titles(hollow))
        if full:
            shades = [row[2] for row in full]
            drawn = axes.scatter(*_places(full), c=shades, cmap=colours, norm=norm, edgecolors=INK, **shared)  # type: ignore[arg-type]
            drawn.set_urls(_titles(full))


def _colours() -> Colormap:
    """Steps of viridis without its darkest eighth, which would not show on a dark page."""
    import matplotlib as mpl
    from matplotlib.colors import ListedColormap

    whole = mpl.colormaps["viridis"]
    return ListedColormap([whole(1 / 8 + 7 / 8 * step / (STEPS - 1)) for step in range(STEPS)])


def shade_bar(figure: FigureBase, axes: Sequence[Axes], shade: Shade) -> None:
    """The scale of the colours beside the plots; none where all have one."""
    if shade.alone:
        return
    from matplotlib.cm import ScalarMappable
    from matplotlib.ticker import FuncFormatter, NullLocator

    mapped = ScalarMappable(shade.norm(), _colours())
    shrink = min(1.0, LONGEST_BAR / height_of(figure))
    bar = figure.colorbar(
        mapped, ax=list(axes), label=shade.label, aspect=40, pad=0.01, shrink=shrink, anchor=(0.0, 1.0)
    )
    bar.outline.set_edgecolor(GRID)
    if shade.values:
        bar.set_ticks(list(shade.values))
        bar.ax.yaxis.set_minor_locator(NullLocator())
        bar.ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.3g}"))


def marker_legend(figure: FigureBase, markers: dict[str, str]) -> None:
    """Which marker is which kind, where there are several."""
    from matplotlib.lines import Line2D

    if len(markers) < 2:
        return
    texts: dict[str, list[str]] = {}
    for kind, marker in markers.items():
        texts.setdefault(marker, []).append(kind)
    handles = [Line2D([], [], marker=marker, linestyle="none", color=FAINT) for marker in texts]
    labels = [named(kinds[0]) if len(kinds) == 1 else f"{len(kinds)} others" for kinds in texts.values()]
    figure.legend(handles, labels, loc="outside upper left", ncols=6)


def name_ends(axes: Axes, dots: Dots) -> None:
    """Write beside the highest and the lowest point what they are called."""
    known = [at for at in range(len(dots.x)) if _finite(dots.x[at], dots.y[at])]
    if len(known) < 2:
        return
    ends = {max(known, key=lambda at: dots.y[at]): 4, min(known, key=lambda at: dots.y[at]): -4}
    middle = sum(axes.transData.transform(axes.viewLim)[:, 0]) / 2
    for at, above in ends.items():
        left = axes.transData.transform((dots.x[at], dots.y[at]))[0] > middle
        axes.annotate(
            named(dots.names[at], 30),
            (dots.x[at], dots.y[at]),
            xytext=(-6 if left else 6, above),
            textcoords="offset points",
            ha="right" if left else "left",
            va="bottom" if above > 0 else "top",
            fontsize=7,
            color=FAINT,
        )


Row = tuple[float, float, float | None, str, str]


def _titles(rows: Sequence[Row]) -> list[str | None]:
    return [f"{TITLE}{named(row[4], 80)}" for row in rows]


def _places(rows: Sequence[Row]) -> tuple[list[float], list[float]]:
    return [row[0] for row in rows], [row[1] for row in rows]


def _finite(*values: float) -> bool:
    return all(math.isfinite(value) for value in values)
