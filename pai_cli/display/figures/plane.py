"""Masks in the full-spectrum plane: the norm of their topology against the norm of their parameters [F23]."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from pai_cli.display.figures.canvas import GRID, Picture, footnote, or_nan, short_labels
from pai_cli.display.figures.scatter import Dots, Shade, marker_legend, markers_of, scatter, shade_bar
from pai_cli.ranking.plane import PlanePoint

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import FigureBase


def plane_picture(points: Sequence[PlanePoint], accuracies: Mapping[str, float] | None = None) -> Picture:
    """Masks by what their structure and what their weights are worth, coloured by accuracy where any is known.

    `accuracies`: 0 to 1, by the names of `points`. Without any, colour tells density.
    """
    shade = _shade(points, accuracies or {})
    coloured = "" if shade.alone else f", coloured by {shade.label}"
    title = f"{len(points)} mask{'s' * (len(points) != 1)} in the full-spectrum plane{coloured}"
    return Picture(title, 7.0, 5.4, partial(_draw, points=points, accuracies=accuracies or {}))


def _draw(figure: FigureBase, *, points: Sequence[PlanePoint], accuracies: Mapping[str, float]) -> None:
    axes = figure.subplots()
    axes.set_xlabel("parameters: sqrt(lambda² + lambda_imsg²)")
    axes.set_ylabel("topology: sqrt(dr² + dr_imdb²)")
    kinds = [point.method or "method not told" for point in points]
    known = [accuracies.get(point.name) for point in points]
    densities = [point.density for point in points]
    shade = _shade(points, accuracies)
    x, y = [or_nan(point.parameters.value) for point in points], [or_nan(point.topology.value) for point in points]
    markers = markers_of(kinds)
    names = short_labels([Path(point.name) for point in points])
    scatter(axes, Dots(x, y, known if accuracies else densities, kinds, names), shade, markers)
    axes.set_xlim(0, _end(x))
    axes.set_ylim(0, _end(y))
    for drawn in axes.collections:
        drawn.set_clip_on(False)  # half a mark would be lost on an axis
    _circles(axes)
    shade_bar(figure, [axes], shade)
    marker_legend(figure, markers)
    missing = Counter(point.topology.reason for point in points if not point.topology.present)
    notes = [f"{count} of {len(points)} masks are not drawn: {reason}" for reason, count in missing.items()]
    hollow = known.count(None) if accuracies else 0
    more = [f"hollow: {hollow} of {len(points)} masks have no accuracy"] if hollow else []
    law = "a layer's l2 is its distance from the corner; means over the layers, undefined terms counted as 0"
    footnote(figure, [*shade.note, law, *more, *notes])


def _shade(points: Sequence[PlanePoint], accuracies: Mapping[str, float]) -> Shade:
    if accuracies:
        return Shade.of("accuracy", [accuracies.get(point.name) for point in points])
    return Shade.of("density", [point.density for point in points], powers=True)


def _end(values: Sequence[float]) -> float:
    """Where an axis from 0 ends: a little after the last value, however near to each other they all are."""
    known = [value for value in values if math.isfinite(value)]
    return 1.06 * max(known, default=0.0) or 1.0


def _circles(axes: Axes) -> None:
    """Lines of equal distance from the corner."""
    from matplotlib.patches import Circle

    right, top = axes.get_xlim()[1], axes.get_ylim()[1]
    for tick in axes.get_yticks():
        if 0 < tick <= math.hypot(right, top):
            axes.add_patch(Circle((0, 0), tick, fill=False, edgecolor=GRID, linewidth=0.6, zorder=0))
    axes.set_xlim(0, right)
    axes.set_ylim(0, top)
    axes.grid(visible=False)
