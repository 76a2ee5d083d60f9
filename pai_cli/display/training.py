"""Showing how a training went."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from pai_cli.display.console import note
from pai_cli.display.look import Look
from pai_cli.display.tables import number, show_records
from pai_cli.files.tables import Format, Record, write_table
from pai_cli.training.events import DONE

if TYPE_CHECKING:
    from pai_cli.training.job import Trained
    from pai_cli.training.outputs import Outputs

COLUMNS = ("mask", "accuracy", "95% interval", "best epoch", "held out")
"""Of a person's table, which 80 columns have room for."""
FIELDS = (
    *("mask", "accuracy", "accuracy_low", "accuracy_high", "correct", "tested", "test_loss", "seed", "dataset"),
    *("recipe", "density", "epochs", "best_epoch", "validation_accuracy", "explored", "fixed_layers", "seconds"),
)


def show_training(trained: Trained, out: Outputs, kind: Format) -> None:
    """The accuracy on standard output; where the files are, on standard error."""
    if trained.again:
        note(f"{out.weights}: this training was finished before; its numbers follow")
    else:
        written = {"trained": out.weights, "final mask": out.mask, "row": out.results}
        for what, path in written.items():
            if path is not None:
                note(f"wrote {path}: the {what}" if what != "trained" else f"wrote {path}: the trained network")
    record: Record = {**trained.record, "accuracy": trained.record[DONE]}
    if kind.for_people:
        interval = f"{number(record['accuracy_low'])} to {number(record['accuracy_high'])}"
        told: Record = {"best epoch": record["best_epoch"], "held out": record["validation_accuracy"]}
        show_records([{**record, **told, "95% interval": interval}], COLUMNS, look=Look(kind))
        return
    write_table(sys.stdout, kind, FIELDS, [record])
