"""Metrics against accuracy: a scatter plot each, with how closely accuracy follows it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from pai_cli.display.figures.canvas import FAINT, Picture, footnote, named, or_nan
from pai_cli.display.figures.scatter import Dots, Shade, marker_legend, markers_of, scatter, shade_bar
from pai_cli.files.messages import some_names
from pai_cli.ranking.correlation import Correlation, Point, Scope, Study

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import FigureBase

ABREAST = 4  # plots in a row
WIDE, HIGH = 2.7, 2.3  # inches of one
ON_A_SHEET = 2 * ABREAST  # plots of a picture in a page, which is printed
MOST_SPREADS = 300  # masks whose spread over their runs is drawn


def study_picture(study: Study) -> Picture | None:
    """A plot a metric, the one that accuracy follows most closely first; None when no metric has a value.

    Over it its Kendall's tau with the 95% interval, in the scope that metrics are judged by: masks of equal density.
    """
    found = study.within(study.main_scope)
    drawn = [one for one in found if any(point.value.present for point in study.points[one.metric])]
    if not drawn:
        return None
    densities = [point.density for point in study.points[drawn[0].metric] if point.density is not None]
    coloured = bool(densities) and not Shade.of("density", densities, powers=True).alone
    title = (
        f"{len(drawn)} metric{'s' * (len(drawn) != 1)} against accuracy{', coloured by density' * coloured}, with "
        "Kendall's tau and its 95% interval"
    )
    left_out = [one.metric for one in found if one not in drawn]
    parts = []
    for at in range(0, len(drawn), ON_A_SHEET):
        own = drawn[at : at + ON_A_SHEET]
        last = at + len(own) == len(drawn)
        parts.append(_plots(f"metrics {at + 1} to {at + len(own)} of {title}", study, own, left_out if last else []))
    return replace(_plots(title, study, drawn, left_out), parts=tuple(parts) if len(parts) > 1 else ())


def _plots(title: str, study: Study, drawn: Sequence[Correlation], left_out: Sequence[str]) -> Picture:
    across = min(ABREAST, len(drawn))
    down = math.ceil(len(drawn) / across)
    paint = partial(_draw, study=study, drawn=drawn, grid=(down, across), left_out=left_out)
    return Picture(title, max(WIDE * across + 1.0, 7.0), HIGH * down + 1.0, paint)


def _draw(
    figure: FigureBase, *, study: Study, drawn: Sequence[Correlation], grid: tuple[int, int], left_out: Sequence[str]
) -> None:
    panels = figure.subplots(*grid, sharey=True, squeeze=False)
    points = study.points[drawn[0].metric]
    markers = markers_of([point.setting for point in points])
    known = [point.density for point in points if point.density is not None]
    shade = Shade.of("density", known, powers=True)
    for axes, one in zip(panels.flat, drawn, strict=False):
        _panel(axes, study.points[one.metric], shade, markers)
        axes.set_title(_told(one), fontsize=8.5)
    for axes in panels.flat[len(drawn) :]:
        axes.set_visible(False)
    for row in panels:
        row[0].set_ylabel("accuracy")
    if known:
        shade_bar(figure, list(panels.flat), shade)
    marker_legend(figure, markers)
    footnote(figure, [*shade.note, *_notes(study.main_scope, drawn, left_out)])


def _panel(axes: Axes, points: Sequence[Point], shade: Shade, markers: dict[str, str]) -> None:
    x = [or_nan(point.value.value) for point in points]
    y, densities = [point.accuracy for point in points], [point.density for point in points]
    if len(points) <= MOST_SPREADS:
        spreads = [point.spread or 0.0 for point in points]
        axes.errorbar(x, y, yerr=spreads, fmt="none", ecolor=FAINT, elinewidth=0.6, zorder=1)
    kinds, names = [point.setting for point in points], [point.name for point in points]
    scatter(axes, Dots(x, y, densities, kinds, names), shade, markers)
    axes.locator_params(axis="x", nbins=5)


def _told(one: Correlation) -> str:
    """The metric, its tau and the interval of that."""
    name, tau = named(one.metric, 34), one.tau
    if tau.value is None:
        return f"{name}\nno tau"
    interval = "" if tau.low is None or tau.high is None else f" ({_rounded(tau.low)} to {_rounded(tau.high)})"
    return f"{name}\ntau {_rounded(tau.value)}{interval}, n = {one.n}"


def _rounded(value: float) -> str:
    return f"{value:.2f}".replace("-0.00", "0.00")


def _notes(scope: Scope, drawn: Sequence[Correlation], left_out: Sequence[str]) -> list[str]:
    if scope.confounded:
        over = "tau over masks of different densities, which metrics and accuracy both follow"
    elif scope.groups > 1:
        over = f"tau over pairs of masks of equal density, in {scope.groups} groups"
    else:
        over = f"tau over {scope.masks} masks"
    notes = [f"{over}; in brackets its 95% bootstrap interval"]
    reasons = dict.fromkeys(one.reason for one in drawn if one.tau.value is None and one.reason)
    notes += [f"no tau: {reason}" for reason in reasons]
    return [*notes, f"not drawn, as no mask has a value: {some_names(left_out, 8)}"] if left_out else notes
