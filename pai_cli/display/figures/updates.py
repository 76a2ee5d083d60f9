"""How the spectrum of a moving mask went: its network means at every update, and the share of weights explored."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pai_cli.display.console import note
from pai_cli.display.figures.canvas import FAINT, SERIES, Picture, footnote, named, or_nan, write_picture, zero_line
from pai_cli.training.dynamic import SPECTRUM

if TYPE_CHECKING:
    from matplotlib.figure import FigureBase

    from pai_cli.files.tables import Record

Line = dict[str, Any]


def plot_updates(lines: Sequence[Record], picture: Path, label: str, *, force: bool) -> None:
    """Draw the mask updates among a training's lines, and say so. Raises `PictureError`, `OutputError`."""
    updates = [line for line in lines if "mask_update" in line]
    write_picture(updates_picture(updates, label), picture, force=force)
    note(f"wrote {picture}: the spectrum at {len(updates)} masks")


def updates_picture(updates: Sequence[Line], label: str) -> Picture:
    """dr, dr_imdb, lambda, lambda_imsg and l2 with their error bounds, and the explored share, by step."""
    title = f"the spectrum of {named(label)} at {len(updates)} masks of its training, and the share of weights explored"
    return Picture(title, 9.0, 5.5, partial(_draw, updates=updates, label=label))


def _draw(figure: FigureBase, *, updates: Sequence[Line], label: str) -> None:
    figure.suptitle(named(label, 90), x=0.01, ha="left", fontsize=10)
    panels = figure.subplots(2, 3, sharex=True)
    steps = [line["step"] for line in updates]
    marker = "o" if len(updates) <= 60 else None
    for axes, name in zip(panels.flat, SPECTRUM, strict=False):
        values, errors = _column(updates, name), _column(updates, f"{name}_error")
        low, high = ([v + sign * e for v, e in zip(values, errors, strict=True)] for sign in (-1, 1))
        axes.fill_between(steps, low, high, color=FAINT, alpha=0.4, linewidth=0)
        axes.plot(steps, values, color=SERIES[0], marker=marker)
        axes.set_ylabel(f"{name}, mean over layers")
        if name.startswith("dr"):
            zero_line(axes)
    explored = panels.flat[-1]
    explored.plot(steps, _column(updates, "explored"), color=SERIES[0], marker=marker)
    explored.set_ylabel("explored share of the weights")
    for axes in panels[1]:
        axes.set_xlabel("step")
        axes.xaxis.get_major_locator().set_params(integer=True)
    reasons = Counter(line["reason"] for line in updates if line.get("reason"))
    footnote(figure, [f"missing at {count} of {len(updates)} masks: {why}" for why, count in reasons.most_common(3)])


def _column(lines: Sequence[Line], name: str) -> list[float]:
    return [or_nan(line.get(name)) for line in lines]
