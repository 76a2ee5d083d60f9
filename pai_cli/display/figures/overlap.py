"""How much pairs of masks share, as a map."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from pai_cli.display.console import note
from pai_cli.display.figures.canvas import INK, Picture, footnote, headline, named, or_nan, short_labels, write_picture

if TYPE_CHECKING:
    from matplotlib.figure import FigureBase

    from pai_cli.mining.overlap import Overlap

MOST_WRITTEN = 20
"""Masks up to which each cell has its number written in it."""

LEAST_PITCH = 0.14
"""Inches between two names."""


def plot_overlap(pairs: Sequence[Overlap], names: Sequence[str], verdict: str, picture: Path, *, force: bool) -> None:
    """Draw the map, and say so. Raises `PictureError`, `OutputError`."""
    write_picture(overlap_picture(pairs, names, [verdict]), picture, force=force)
    note(f"wrote {picture}: the Jaccard index of {len(pairs)} pairs")


def overlap_picture(pairs: Sequence[Overlap], names: Sequence[str], notes: Sequence[str]) -> Picture:
    """A cell a pair of masks, coloured by the Jaccard index; `notes` stand below."""
    labels = short_labels([Path(name) for name in names])
    side = min(max(3.0, 0.42 * len(labels)), 9.0)
    room = 0.07 * min(30, max(len(label) for label in labels))
    title = f"how much {len(labels)} masks share, pair by pair (Jaccard index)"
    return Picture(title, side + room + 1.6, side + room + 0.8, partial(_draw, pairs=pairs, labels=labels, notes=notes))


def _draw(figure: FigureBase, *, pairs: Sequence[Overlap], labels: Sequence[str], notes: Sequence[str]) -> None:
    import numpy as np

    count = len(labels)
    values = np.full((count, count), np.nan)
    for pair in pairs:
        values[pair.first, pair.second] = values[pair.second, pair.first] = or_nan(pair.jaccard)
    headline(figure, "Jaccard index: edges that both keep, over edges that either keeps")
    axes = figure.subplots()
    axes.grid(visible=False)
    axes.set_aspect("equal")
    mesh = axes.pcolormesh(np.ma.masked_invalid(values), cmap="viridis", vmin=0.0, vmax=1.0, rasterized=count > 60)
    axes.set_ylim(count, 0)
    step = math.ceil(count * LEAST_PITCH / 9.0)
    places = range(0, count, step)
    texts = [named(labels[place], 30) for place in places]
    axes.set_xticks([place + 0.5 for place in places], texts, rotation=90)
    axes.set_yticks([place + 0.5 for place in places], texts)
    if count <= MOST_WRITTEN:
        for (row, column), value in np.ndenumerate(values):
            if not math.isnan(value):
                colour = INK if value > 0.6 else "white"
                axes.text(column + 0.5, row + 0.5, f"{value:.2f}", ha="center", va="center", fontsize=7, color=colour)
    figure.colorbar(mesh, ax=axes, shrink=0.8, pad=0.02)
    footnote(figure, notes)
