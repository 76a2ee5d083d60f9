"""Masks in their order: the value that ranks them, against density."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from pai_cli.display.figures.canvas import Picture, footnote, named, or_nan, short_labels
from pai_cli.display.figures.scatter import (
    MOST_MARKS,
    Dots,
    Shade,
    marker_legend,
    markers_of,
    name_ends,
    scatter,
    shade_bar,
)
from pai_cli.ranking.order import RankedMask

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import FigureBase


def order_picture(ranked: Sequence[RankedMask], by: str) -> Picture | None:
    """The values that rank masks, against density, a marker a method; coloured by accuracy where it is known.

    None when no mask has both a value and a density.
    """
    if not any(row.value.present and row.source.density is not None for row in ranked):
        return None
    title = f"{named(by)} of {len(ranked)} mask{'s' * (len(ranked) != 1)} against density"
    return Picture(title, 7.0, 4.6, partial(_draw, ranked=ranked, by=by))


def _draw(figure: FigureBase, *, ranked: Sequence[RankedMask], by: str) -> None:
    axes = figure.subplots()
    axes.set_ylabel(named(by))
    kinds = [row.source.method or "method not told" for row in ranked]
    accuracies = [row.source.accuracy for row in ranked]
    x = [or_nan(row.source.density) for row in ranked]
    y = [or_nan(row.value.value) for row in ranked]
    _density_axis(axes, ranked)
    trained = any(accuracy is not None for accuracy in accuracies)
    told = accuracies if trained else [row.source.density for row in ranked]
    shade, markers = Shade.of("accuracy", told, powers=not trained), markers_of(kinds)
    dots = Dots(x, y, told, kinds, short_labels([Path(row.source.name) for row in ranked]))
    scatter(axes, dots, shade, markers)
    name_ends(axes, dots)
    if trained:
        shade_bar(figure, [axes], shade)
    marker_legend(figure, markers)
    missing = Counter(row.value.reason for row in ranked if row.value.reason is not None)
    notes = [f"{count} of {len(ranked)} masks have no {by}: {reason}" for reason, count in missing.items()]
    hollow = ["hollow: accuracy not known"] if trained and None in accuracies else []
    footnote(figure, [*(shade.note if trained else []), *hollow, *notes])


def _density_axis(axes: Axes, ranked: Sequence[RankedMask]) -> None:
    """A scale of powers, with the densities that there are as its marks as long as they are few."""
    from matplotlib.ticker import FixedLocator, NullFormatter, NullLocator

    axes.set_xlabel("density")
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter("{x:.3g}")
    axes.xaxis.set_minor_formatter(NullFormatter())
    groups = {row.group: row.source.density for row in ranked if row.source.density}
    if len(groups) == 1:  # what is left of a difference is one weight or two
        density = next(iter(groups.values()))
        axes.set_xlim(density / 2, density * 2)
    if len(groups) <= MOST_MARKS:
        axes.xaxis.set_major_locator(FixedLocator(sorted(set(groups.values()))))
        axes.xaxis.set_minor_locator(NullLocator())
