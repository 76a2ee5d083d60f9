"""Showing how a training went."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from pai_cli.display.console import note, warn
from pai_cli.display.tables import show_records
from pai_cli.files.tables import Format, Record, TableWriter
from pai_cli.spelling import option
from pai_cli.training.journal import DONE, Journal

if TYPE_CHECKING:
    from pai_cli.training.job import Job, Trained
    from pai_cli.training.outputs import Outputs
    from pai_cli.training.process import Process

COLUMNS = ("mask", "accuracy", "accuracy_low", "accuracy_high", "best_epoch", "validation_accuracy")
FIELDS = (
    *(
        "mask",
        "accuracy",
        "accuracy_low",
        "accuracy_high",
        "correct",
        "tested",
        "test_loss",
        "seed",
        "dataset",
        "recipe",
    ),
    *("density", "epochs", "best_epoch", "validation_accuracy", "explored", "seconds"),
)


def tell_started(job: Job, process: Process) -> None:
    """Say what a person may not expect of several processes."""
    from torch.nn.modules.batchnorm import _BatchNorm

    if process.world == 1:
        return
    size = job.recipe.batch_size
    note(f"{process.world} processes, a step is of {process.world} x {size} = {process.world * size} examples")
    if any(isinstance(module, _BatchNorm) for module in job.network.model.modules()):
        note(f"batch norms normalise by each process's own {size} examples; the first process's statistics are saved")


@contextmanager
def tell_interrupted(journal: Journal) -> Iterator[None]:
    """On Ctrl-C, say what was kept and how to go on, then let the interruption through."""
    try:
        yield
    except KeyboardInterrupt:
        if journal.state_path.exists():
            note(f"{journal.state_path}: what is done is kept; the same command with --resume goes on")
        raise


def show_training(trained: Trained, out: Outputs, kind: Format) -> None:
    """The accuracy on standard output; where the files are, and what did not apply, on standard error."""
    for name, why in trained.absent.items():
        warn(f"{option(name)}: {why}: left out")
    if trained.again:
        note(f"{out.weights}: this training was finished before; its numbers follow")
    else:
        written = {"trained": out.weights, "final mask": out.mask, "row": out.results}
        for what, path in written.items():
            if path is not None:
                note(f"wrote {path}: the {what}" if what != "trained" else f"wrote {path}: the trained network")
    record: Record = {**trained.record, "accuracy": trained.record[DONE]}
    if kind is Format.TABLE:
        show_records([record], COLUMNS)
        return
    writer = TableWriter(sys.stdout, kind, FIELDS)
    writer.write([record])
    writer.close()
