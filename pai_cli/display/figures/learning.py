"""How a training went: loss, accuracy and learning rate by epoch; of a moving mask, its spectrum below them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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
    stacked,
    whole_numbers,
    write_picture,
)
from pai_cli.display.figures.updates import updates_picture
from pai_cli.training.events import DONE

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import FigureBase

    from pai_cli.files.tables import Record

MOST_MARKED = 60  # epochs that are marks on a line; of more the line alone is seen
FAR = 20  # times the smallest value that the largest is, from which on a scale is of powers
PARTS = {"train": "trained with", "validation": "held out"}

Line = Mapping[str, Any]


def plot_training(lines: Sequence[Record], picture: Path, label: str, *, force: bool) -> None:
    """Draw a training from its lines, and say so. Raises `PictureError`, `OutputError`."""
    epochs = [line for line in lines if "epoch" in line]
    updates = [line for line in lines if "mask_update" in line]
    drawn = training_picture(lines, label)
    write_picture(drawn, picture, force=force)
    spectrum = f", and the spectrum at {len(updates)} masks" if updates else ""
    note(f"wrote {picture}: the curves of {len(epochs)} epoch{'s' * (len(epochs) != 1)}{spectrum}")


def training_picture(lines: Sequence[Record], label: str) -> Picture:
    """The curves of the epochs among a training's lines, and below them the spectrum at every mask update."""
    epochs = [line for line in lines if "epoch" in line]
    updates = [line for line in lines if "mask_update" in line]
    ended = next((line for line in lines if DONE in line), None)
    title = f"loss, accuracy and learning rate of {named(label)} over {len(epochs)} epoch{'s' * (len(epochs) != 1)}"
    curves = Picture(title, 9.0, 3.2, partial(_draw, epochs=epochs, ended=ended, label=label))
    return stacked([curves, *([updates_picture(updates, label)] if updates else [])])


def _draw(figure: FigureBase, *, epochs: Sequence[Line], ended: Line | None, label: str) -> None:
    headline(figure, named(label, 90))
    losses, accuracies, rates = figure.subplots(1, 3)
    for at, (part, text) in enumerate(PARTS.items()):
        _curve(losses, epochs, f"{part}_loss", at, text)
        _curve(accuracies, epochs, f"{part}_accuracy", at, text)
    _curve(rates, epochs, "lr", 0, "")
    for axes, name in ((losses, "loss, mean over examples"), (accuracies, "accuracy"), (rates, "learning rate")):
        axes.set_ylabel(name)
        whole_numbers(axes, "epoch")
    _powers(losses, [line[f"{part}_loss"] for part in PARTS for line in epochs if f"{part}_loss" in line])
    _powers(rates, [line["lr"] for line in epochs])
    best = ended.get("best_epoch") if ended is not None else None
    for axes in (losses, accuracies) if best else ():
        axes.axvline(best, color=FAINT, linestyle=(0, (4, 2)), linewidth=0.9, label="best epoch", zorder=1)
    handles, labels = losses.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper right", ncols=3)
    footnote(figure, _tested(ended))


def _curve(axes: Axes, epochs: Sequence[Line], name: str, at: int, text: str) -> None:
    marker = "os"[at] if len(epochs) <= MOST_MARKED else None
    values = [or_nan(line.get(name)) for line in epochs]
    axes.plot([line["epoch"] for line in epochs], values, color=SERIES[at], marker=marker, label=text)


def _powers(axes: Axes, drawn: Sequence[float]) -> None:
    """A scale of powers, where what is drawn is above 0 and so far apart that its small values would lie at the bottom."""
    if drawn and 0 < FAR * min(drawn) < max(drawn):
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter("{x:g}")


def _tested(ended: Line | None) -> list[str]:
    """What came of the best epoch."""
    if ended is None:
        return []
    interval = f"95% interval {ended['accuracy_low']:.4f} to {ended['accuracy_high']:.4f}"
    return [f"epoch {ended['best_epoch']} on the test part: accuracy {ended[DONE]:.4f} ({interval})"]
