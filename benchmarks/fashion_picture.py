"""The picture of the study on Fashion-MNIST: accuracy by density and kind, and what goes with accuracy."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from pai_cli.display.figures.canvas import FAINT, INK, MARKERS, SERIES, Picture

if TYPE_CHECKING:
    from fashion_report import Results
    from matplotlib.axes import Axes
    from matplotlib.figure import FigureBase

FAMILIES = (
    ("random", "uniform"),
    ("erk", "ramanujan"),
    ("magnitude", "grasp"),
    ("synflow", "synflow-shuffled"),
    ("snip", "snip-shuffled", "pags"),
    ("phew",),
)
"""Kinds of one colour; the first has a whole line."""
STYLES = ("-", "--", ":")
ROW = 0.22  # inches of a metric


def picture(results: Results) -> Picture:
    """Left accuracy by density, a plot a network; right the associations, a row a metric."""
    title = "Accuracy by density and kind of mask; Kendall's tau of each metric with accuracy, alone and given layer density"

    def paint(figure: FigureBase) -> None:
        parts: Any = figure.subfigures(1, 2, width_ratios=(1, 1.15))
        left, right = parts
        plots = np.atleast_1d(left.subplots(len(results.size.networks), 1, sharex=True))
        for axes, network in zip(plots, results.size.networks, strict=True):
            _accuracies(axes, results, network)
        plots[-1].set_xlabel("density")
        left.legend(
            *plots[0].get_legend_handles_labels(), loc="outside lower center", ncols=4, fontsize=7, handlelength=3
        )
        _associations(right.subplots(), results)

    return Picture(title, 10.5, max(6.5, ROW * len(results.rows) + 1.5), paint)


def _accuracies(axes: Axes, results: Results, network: str) -> None:
    """Means over the seeds, a line a kind."""
    for family, colour, marker in zip(FAMILIES, SERIES, MARKERS[: len(SERIES)], strict=True):
        for method, style in zip(family, STYLES, strict=False):
            found = {d: list(results.accuracies(network, method, d).values()) for d in results.size.densities}
            known = {density: 100 * float(np.mean(values)) for density, values in found.items() if values}
            axes.plot(list(known), list(known.values()), style, color=colour, marker=marker, label=method)
    dense = list(results.accuracies(network, "dense", 1.0).values())
    if dense:
        axes.axhline(100 * float(np.mean(dense)), color=FAINT, linewidth=0.9, label="whole")
    axes.set_xscale("log")
    axes.set_xticks(results.size.densities, [f"{density:g}" for density in results.size.densities])
    axes.minorticks_off()
    axes.set_ylabel("test accuracy, %")
    axes.set_title(network)


def _associations(axes: Axes, results: Results) -> None:
    """Open: tau; filled, with its interval: given layer density."""
    rows = results.rows[::-1]
    places = np.arange(len(rows))
    axes.axvline(0, color=FAINT, linewidth=0.9)
    axes.plot([row.alone.value for row in rows], places, "o", color=FAINT, markerfacecolor="none", label="tau")
    for place, row in zip(places, rows, strict=True):
        if not np.isfinite(row.given.value):
            axes.plot([row.alone.low, row.alone.high], [place, place], color=FAINT)
        colour = SERIES[0] if row.given.firm else FAINT
        axes.plot([row.given.low, row.given.high], [place, place], color=colour)
        axes.plot([row.given.value], [place], "s", color=colour)
    axes.plot([], [], "s-", color=SERIES[0], label="given layer density, 95%; leaves out 0 for all metrics at once")
    axes.plot([], [], "s-", color=FAINT, label="given layer density, 95%")
    axes.set_yticks(places, [row.metric for row in rows], color=INK)
    axes.set_ylim(-0.7, len(rows) - 0.3)
    axes.set_xlabel("Kendall's tau with accuracy")
    masks = (
        f"{len(results.masks)} of {results.planned} masks"
        if len(results.masks) < results.planned
        else f"{len(results.masks)} masks"
    )
    axes.set_title(f"Within network and density: {masks}")
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.08), fontsize=7)
