"""How a search went: what each candidate had, and the best so far."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pai_cli.display.console import note
from pai_cli.display.figures.canvas import (
    FAINT,
    SERIES,
    Picture,
    footnote,
    headline,
    named,
    or_nan,
    whole_numbers,
    write_picture,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import FigureBase

MEASURED = ("l2", "dr_imdb", "lambda_imsg")
MOST_SHAPES = 5000  # candidates drawn as shapes; more of them are dots

Line = dict[str, Any]


def plot_trajectory(lines: Sequence[Line], picture: Path, label: str, *, force: bool) -> None:
    """Draw a search from its rows, one a candidate, and say so. Raises `PictureError`, `OutputError`."""
    write_picture(trajectory_picture(lines, label), picture, force=force)
    note(f"wrote {picture}: the best so far of {len(lines)} candidates")


def trajectory_picture(lines: Sequence[Line], label: str) -> Picture:
    """l2, dr_imdb and lambda_imsg, or what masks were taken by, of each candidate and of the best so far; and the explored
    share of the weights.
    """
    title = f"{len(lines)} candidates of {named(label)}: the best so far, each candidate's own, and the share explored"
    return Picture(title, 9.0, 6.0, partial(_draw, lines=lines, label=label))


def _draw(figure: FigureBase, *, lines: Sequence[Line], label: str) -> None:
    headline(figure, named(label, 90))
    panels = figure.subplots(2, 2, sharex=True)
    numbers = [line["candidate"] for line in lines]
    for axes, name in zip(panels.flat[:3], _measured(lines), strict=True):
        axes.set_ylabel(named(name))
        _own(axes, lines, name)
        best = _column(lines, f"best_{name}")
        axes.step(numbers, best, where="post", color=SERIES[0], label="best so far")
    explored = panels.flat[3]
    explored.set_ylabel("explored share of the weights")
    explored.plot(numbers, _column(lines, "explored"), color=SERIES[0], marker="o" if len(lines) == 1 else None)
    for axes in panels[1]:
        whole_numbers(axes, "candidate")
    handles, labels = panels.flat[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper right", ncols=3)
    footnote(figure, _missing(lines))


def _measured(lines: Sequence[Line]) -> list[str]:
    """What is drawn: where masks were taken by another measure, that in the last's place."""
    others = (
        [name for name in lines[0] if f"best_{name}" in lines[0] and name not in (*MEASURED, "reason")] if lines else []
    )
    return [*MEASURED[:2], *others[:1]] if others else list(MEASURED)


def _own(axes: Axes, lines: Sequence[Line], name: str) -> None:
    """Each candidate's own value, those of which something was taken marked."""
    for taken, text in ((False, "a candidate"), (True, "a candidate that was taken")):
        some = [line for line in lines if bool(line.get("taken")) is taken]
        axes.plot(
            [line["candidate"] for line in some],
            _column(some, name),
            linestyle="none",
            marker="s" if taken else "o",
            markersize=5 if taken else 3 if len(lines) <= 200 else 1.5,
            color=SERIES[1] if taken else FAINT,
            alpha=1.0 if taken else 0.6,
            markeredgewidth=0,
            rasterized=len(some) > MOST_SHAPES,
            label=text,
        )


def _column(lines: Sequence[Line], name: str) -> list[float]:
    return [or_nan(line.get(name)) for line in lines]


def _missing(lines: Sequence[Line]) -> list[str]:
    """Why candidates lack values, a line a reason."""
    reasons = Counter(line["reason"] for line in lines if line.get("reason"))
    return [
        f"values missing in {count} of {len(lines)} candidates: {reason}" for reason, count in reasons.most_common(4)
    ]
