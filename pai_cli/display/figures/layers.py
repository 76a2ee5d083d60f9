"""Masks from layer to layer: the Ramanujan gap and its mean over left-regular subgraphs, against their bounds."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

from pai_cli.display.figures.canvas import (
    FAINT,
    GRID,
    INK,
    MARKERS,
    SERIES,
    Picture,
    footnote,
    headline,
    height_of,
    named,
    or_nan,
    width_of,
    zero_line,
)
from pai_cli.display.short_names import short_layers
from pai_cli.spectral.network import NetworkReport

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.collections import QuadMesh
    from matplotlib.figure import FigureBase

DRAWN = ("dr", "dr_bound", "dr_imdb", "dr_norm", "dr_imdb_norm")
GAPS = ("dr", "dr_imdb")
MOST_LINES = len(SERIES)  # masks drawn as lines; more of them would hide each other, and become the rows of a map
MOST_ROWS = 400  # of a map: a row needs some height to be seen
MOST_SHAPES = 4000  # cells of a map drawn as shapes; more of them are dots, or an .svg would be of many megabytes
WIDEST, NARROWEST = 16.0, 7.0  # inches
LEAST_PITCH = 0.125  # inches between two names under an axis
MEANING = "0 or more is Ramanujan; a share of 1 is at the bound"
UNIT = (-1.0, 1.0)
GAP_TICKS = (0.3, 1, 3, 10, 30, 100, 300, 1000)
MOST_HATCHED = 60  # rows of a map whose missing cells are hatched, not plain grey: narrower ones would look like noise


@dataclass(frozen=True)
class LayerProfile:
    """What a picture needs of one mask: a value, or None, a layer for each of `DRAWN`, and why those are missing.

    `reasons[name]`: how many layers lack `name`, for each reason.
    """

    label: str
    layers: tuple[str, ...]
    values: dict[str, tuple[float | None, ...]]
    reasons: dict[str, Counter[str]]

    @staticmethod
    def of(label: str, report: NetworkReport) -> LayerProfile:
        """The profile of a mask's report."""
        columns = {name: report.layers.measures[name] for name in DRAWN}
        return LayerProfile(
            label,
            report.layers.names,
            {name: tuple(column.lists[0]) for name, column in columns.items()},
            {name: Counter(filter(None, column.reasons)) for name, column in columns.items()},
        )

    def called(self, label: str) -> LayerProfile:
        """The same under another label."""
        return replace(self, label=label)

    def over(self, name: str, layers: Sequence[str]) -> list[float]:
        """The values of `name` in the order of `layers`, NaN where there is none."""
        known = dict(zip(self.layers, self.values[name], strict=True))
        return [or_nan(known.get(layer)) for layer in layers]


def profile_picture(profiles: Sequence[LayerProfile], of: int | None = None) -> Picture:
    """dr and dr_imdb from layer to layer: of one mask, of a few as lines, of many as the rows of a map.

    `of`: how many masks there are, when `profiles` are the first of more. A map has at most `MOST_ROWS` of them.
    """
    layers = list(dict.fromkeys(layer for profile in profiles for layer in profile.layers))
    width = min(max(NARROWEST, 1.8 + 0.2 * len(layers)), WIDEST)
    names = 0.055 * min(_longest(layers), 30)  # inches that the names under the axis take
    if len(profiles) == 1:
        title = f"dr and dr_imdb of {named(profiles[0].label)} from layer to layer, against their bounds"
        return Picture(title, width, 4.9 + names, partial(_one, profile=profiles[0], layers=layers))
    if len(profiles) <= MOST_LINES:
        title = f"dr and dr_imdb of {len(profiles)} masks from layer to layer, against their bounds"
        return Picture(title, width, 6.6 + names, partial(_several, profiles=profiles, layers=layers))
    shown = profiles[:MOST_ROWS]
    title = f"dr and dr_imdb of {len(shown)} masks as shares of their bounds, a row a mask, a column a layer"
    height = 2 * min(max(1.6, 0.16 * len(shown)), 7.0) + 1.0 + names
    return Picture(title, width + 1.5, height, partial(_map, profiles=shown, layers=layers, of=of or len(profiles)))


def _one(figure: FigureBase, *, profile: LayerProfile, layers: Sequence[str]) -> None:
    gaps, shares = figure.subplots(2, 1, sharex=True)
    headline(figure, named(profile.label, 80))
    _gap_axis(gaps, "gap")
    _bound(gaps, profile.over("dr_bound", layers), INK, "dr_bound")
    # Where both are equal the first, larger, is still seen around the second.
    for at, (name, size) in enumerate(zip(GAPS, (6.5, 4), strict=True)):
        _line(gaps, profile.over(name, layers), at, name, size)
        _line(shares, profile.over(f"{name}_norm", layers), at, f"{name}_norm", size)
    gaps.legend(loc="lower left", bbox_to_anchor=(0.0, 1.0), ncols=3, borderaxespad=0)
    _share_axis(shares, "share of the bound")
    shares.legend(loc="lower left", bbox_to_anchor=(0.0, 1.0), ncols=2, borderaxespad=0)
    _name_layers(shares, layers, width_of(figure))
    footnote(figure, [MEANING, *_gap_notes([profile])])


def _several(figure: FigureBase, *, profiles: Sequence[LayerProfile], layers: Sequence[str]) -> None:
    rows = figure.subplots(3, 1, sharex=True)
    for at, profile in enumerate(profiles):
        _bound(rows[0], profile.over("dr_bound", layers), SERIES[at], None)
        for axes, name in zip(rows, ("dr", "dr_imdb", "dr_imdb_norm"), strict=True):
            _line(axes, profile.over(name, layers), at, named(profile.label))
    for axes, text in zip(rows, ("dr, its bound dashed", "dr_imdb"), strict=False):
        _gap_axis(axes, text)
    _share_axis(rows[2], "dr_imdb_norm")
    _name_layers(rows[2], layers, width_of(figure))
    handles, labels = rows[1].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper left", ncols=2)
    footnote(figure, [MEANING, *_gap_notes(profiles)])


def _map(figure: FigureBase, *, profiles: Sequence[LayerProfile], layers: Sequence[str], of: int) -> None:
    grid = figure.subplots(2, 1, sharex=True, sharey=True)
    for axes, name in zip(grid, GAPS, strict=True):
        axes.set_title(f"{name}_norm: {name} as a share of its bound")
        mesh = _cells(axes, [profile.over(f"{name}_norm", layers) for profile in profiles])
        _name_masks(axes, profiles, height_of(figure) / 2.6)
    _name_layers(grid[1], layers, width_of(figure) - 3.5)
    bar = figure.colorbar(mesh, ax=list(grid), extend="min", aspect=40, pad=0.01)
    bar.set_ticks([-1, -0.5, 0, 0.5, 1])
    bar.set_label("share of the bound")
    bar.outline.set_visible(False)
    more = [f"the first {len(profiles)} of {of} masks; the others are not drawn"] if of > len(profiles) else []
    footnote(figure, [*more, MEANING, "grey or hatched: no value", *_gap_notes(profiles)])


def _cells(axes: Axes, rows: Sequence[Sequence[float]]) -> QuadMesh:
    """A cell a layer and mask; twenty colours, from orange below 0 to purple above, and grey where there is no value."""
    import matplotlib as mpl
    import numpy as np
    from matplotlib.colors import BoundaryNorm

    axes.patch.set(facecolor=GRID, edgecolor=FAINT, hatch="////" if len(rows) <= MOST_HATCHED else None, linewidth=0)
    axes.grid(visible=False)
    colours = mpl.colormaps["PuOr"].resampled(20)
    values = np.ma.masked_invalid(np.array(rows, dtype=np.float64))
    norm = BoundaryNorm(np.linspace(*UNIT, 21), colours.N)
    dots = values.size > MOST_SHAPES
    return axes.pcolormesh(values.clip(*UNIT), cmap=colours, norm=norm, rasterized=dots)


def _line(axes: Axes, values: Sequence[float], at: int, label: str, size: float = 4) -> None:
    """Values joined where neighbours both have one; a gap where there is none."""
    size *= 1 if len(values) <= 60 else 0.6
    places = [place + 0.5 for place in range(len(values))]
    axes.plot(places, values, color=SERIES[at], marker=MARKERS[at], markersize=size, label=label)


def _bound(axes: Axes, values: Sequence[float], colour: str, label: str | None) -> None:
    places = [place + 0.5 for place in range(len(values))]
    axes.plot(places, values, color=colour, linestyle=(0, (4, 2)), linewidth=0.9, marker="_", markersize=8, label=label)


def _gap_axis(axes: Axes, label: str) -> None:
    """A scale on which a gap near 0 is seen beside one of 10: nearly linear within 1, logarithmic far from it."""
    from matplotlib.ticker import FixedLocator, NullLocator

    axes.set_ylabel(label)
    axes.set_yscale("asinh", linear_width=1.0)
    axes.margins(y=0.08)
    axes.yaxis.set_major_locator(FixedLocator([*(-tick for tick in GAP_TICKS), 0, *GAP_TICKS]))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter("{x:g}")
    zero_line(axes)


def _share_axis(axes: Axes, label: str) -> None:
    axes.set_ylabel(label)
    zero_line(axes)
    axes.axhline(1.0, color=INK, linestyle=(0, (4, 2)), linewidth=0.9, zorder=1)
    low, high = axes.get_ylim()
    axes.set_ylim(min(low, -0.1), max(high, 1.1))


def _name_layers(axes: Axes, layers: Sequence[str], width: float) -> None:
    """Names under the axis: every one, or every second and so on, as far apart as they can be read."""
    step = math.ceil(LEAST_PITCH * len(layers) / max(width - 1.2, 1.0))
    places = range(0, len(layers), step)
    short, shared = short_layers(layers)
    if shared:
        axes.set_xlabel(f"layers of {named(shared)}", fontsize=7)
    axes.set_xlim(0, len(layers))
    axes.set_xticks([place + 0.5 for place in places], [named(short[place], 30) for place in places])
    axes.tick_params(axis="x", labelrotation=90, labelsize=7)


def _name_masks(axes: Axes, profiles: Sequence[LayerProfile], height: float) -> None:
    step = math.ceil(LEAST_PITCH * len(profiles) / height)
    places = range(0, len(profiles), step)
    axes.set_ylim(len(profiles), 0)
    axes.set_yticks([place + 0.5 for place in places], [named(profiles[place].label, 30) for place in places])
    axes.tick_params(axis="y", labelsize=7, colors=FAINT, labelcolor=INK)


def _gap_notes(profiles: Sequence[LayerProfile]) -> list[str]:
    """Why there are gaps, a line a quantity and reason."""
    total = sum(len(profile.layers) for profile in profiles)
    notes = []
    for name in GAPS:
        why = sum((profile.reasons[name] for profile in profiles), Counter[str]())
        notes += [f"no {name} in {count} of {total} layers: {reason}" for reason, count in why.most_common()]
    return notes


def _longest(layers: Sequence[str]) -> int:
    return max(map(len, short_layers(layers)[0]))
