"""How the spectrum of a moving mask went: its network means at every update, and the share of weights explored."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from pai_cli.display.figures.canvas import FAINT, SERIES, Picture, footnote, named, or_nan, whole_numbers, zero_line
from pai_cli.training.dynamic import SPECTRUM

if TYPE_CHECKING:
    from matplotlib.figure import FigureBase

Line = dict[str, Any]


def updates_picture(updates: Sequence[Line], label: str) -> Picture:
    """dr, dr_imdb, lambda, lambda_imsg and l2 with their error bounds, and the explored share, by step."""
    title = f"the spectrum of {named(label)} at {len(updates)} masks of its training, and the share of weights explored"
    return Picture(title, 9.0, 5.5, partial(_draw, updates=updates))


def _draw(figure: FigureBase, *, updates: Sequence[Line]) -> None:
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
        whole_numbers(axes, "step")
    reasons = Counter(line["reason"] for line in updates if line.get("reason"))
    footnote(figure, [f"missing at {count} of {len(updates)} masks: {why}" for why, count in reasons.most_common(3)])


def _column(lines: Sequence[Line], name: str) -> list[float]:
    return [or_nan(line.get(name)) for line in lines]
