"""One training from files to files: a checkpoint, its mask and data in; weights, a journal and a row of a table out."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any

import numpy as np

from pai_cli.data.fingerprint import digest_of
from pai_cli.errors import OutputError, ResumeError
from pai_cli.files.atomic import check_output
from pai_cli.files.fits import Count
from pai_cli.files.journal import TRAIN, Journal, Kept, beside, tells
from pai_cli.files.masks import MaskToWrite, write_mask
from pai_cli.files.provenance import provenance
from pai_cli.files.results import FIELDS, add_result, check_results
from pai_cli.models.masked import masks_for
from pai_cli.models.network import save_tensors
from pai_cli.models.recognise import OPTIONAL
from pai_cli.progress import Progress
from pai_cli.pruning.base import Masks
from pai_cli.spelling import option
from pai_cli.telling import note
from pai_cli.training.dynamic import share_of
from pai_cli.training.events import DONE, check_log_dir, events
from pai_cli.training.examples import TrainingData, prepare
from pai_cli.training.fitting import counted
from pai_cli.training.loop import Run, Trainer, TrainResult
from pai_cli.training.model import check_outputs, trained_copy
from pai_cli.training.outputs import Outputs
from pai_cli.training.process import Process
from pai_cli.training.recipe import Recipe
from pai_cli.training.state import Tensors, keep_state, kept_state

if TYPE_CHECKING:
    from pathlib import Path

    from pai_cli.data.base import Dataset
    from pai_cli.files.checkpoints import Checkpoint
    from pai_cli.files.masks import Mask
    from pai_cli.files.tables import Record
    from pai_cli.models.network import Network

DENSE = "dense"
"""What the table calls the mask of a network that has none."""


@dataclass(frozen=True)
class Job:
    """What is trained: the network of `source`, `mask` (None for all of it), the two parts of the data `data`.

    `name`: of the recipe, for the table. `arguments`: what was typed after `pai`.
    """

    source: Checkpoint
    network: Network
    mask: Mask | None
    data: str
    parts: tuple[Dataset, Dataset]
    recipe: Recipe
    name: str
    input_shape: tuple[int, ...] | None
    out: Outputs
    arguments: Sequence[str] = field(default=())

    @property
    def on_disk(self) -> bool:
        """Whether it keeps a journal, and a state to go on from, beside the weights that it writes."""
        return self.out.weights is not None

    def settings(self, world: int) -> dict[str, Any]:
        """What must be the same for a training to be continued: all but the device, and where else it writes."""
        return {
            **self.recipe.facts,
            "lr": self.recipe.base_lr,
            "update_fraction": self.recipe.first_fraction,
            "source_sha256": self.source.sha256,
            "mask_sha256": None if self.mask is None else digest_of_mask(self.mask),
            "network": self.network.description,
            "data": self.data,
            "examples": [len(part) for part in self.parts],
            "data_sha256": digest_of(self.parts),
            "input_shape": self.input_shape,
            "processes": world,
        }

    def masks(self) -> Masks:
        """The masks by parameter; {} without. Raises `MaskMismatchError` for those of another network."""
        if self.mask is None:
            return {}
        remedy = f"{option('mask')} takes a mask that was made for it"
        return masks_for(self.mask, self.network.model, str(self.source.path), remedy)

    def count(self, masks: Masks) -> Count:
        """How many of the network's prunable weights these masks keep; a layer that has none keeps all."""
        return counted(self.network.model, self.network.layers, masks)

    @property
    def key(self) -> dict[str, str]:
        """What tells this training from others in the table."""
        mask = self.out.mask or (self.mask.path if self.mask is not None else DENSE)
        return {"mask": str(mask), "seed": str(self.recipe.seed), "dataset": self.parts[0].name}

    @cached_property
    def story(self) -> dict[str, str]:
        """What the weights and the final mask tell of how they were made."""
        recipe = json.dumps(self.recipe.facts, sort_keys=True)
        told = {"source_sha256": self.source.sha256, "seed": str(self.recipe.seed)}
        normalisation = getattr(self.parts[0], "normalisation", None)
        values = {} if normalisation is None else {"values": normalisation.stated()}
        return {**told, "data": self.data, **values, "recipe": recipe}

    def replaces(self, path: Path) -> bool:
        """Whether a file in the place of the weights or the final mask may go: this training wrote it, or force is used."""
        return self.out.force or tells(path, self.story)

    def check_outputs(self, *, resume: bool) -> None:
        """Refuse what would have to be replaced and may not, before any work. Raises `OutputError`."""
        outputs = self.out
        for path in (outputs.weights, outputs.mask):
            if path is not None:
                check_output(path, force=self.replaces(path))
        if outputs.results is not None:
            row = self.key | {"trained": str(outputs.weights)}
            check_results(outputs.results, row, own=resume, force=outputs.force)

    def open_journal(self, world: int, *, resume: bool, first: bool) -> tuple[Journal, Kept | None]:
        """The journal, begun or resumed by the `first` process, and what was kept.

        Raises `OutputError`, `ResumeError` also when the training is finished and what it wrote is gone.
        """
        assert self.out.weights is not None
        journal = beside(TRAIN, self.out.weights, self.settings(world))
        if not first:
            return journal, None

        def check() -> None:
            self.check_outputs(resume=resume)
            check_log_dir(self.out.log_dir, force=self.out.force or resume)

        kept = journal.opened(check, resume=resume, force=self.out.force)
        gone = [path for path in (self.out.weights, self.out.mask) if path is not None and not path.exists()]
        if journal.finished is not None and gone:
            raise ResumeError(
                f"{gone[0]}: the training was finished, and this file is gone; {option('force')} starts it again"
            )
        return journal, kept


@dataclass(frozen=True)
class Trained:
    """A training's numbers, as the last line of its journal has them, and what it was made of.

    `lines`: of all epochs and mask updates, in the first process. `absent`: parts that did not apply, and why. `result`:
    None where the training was finished before (`again`).
    """

    record: Record
    lines: Sequence[Record] = ()
    absent: dict[str, str] = field(default_factory=dict)
    result: TrainResult | None = None

    @property
    def again(self) -> bool:
        """Whether it had come to its end before, and nothing was trained."""
        return self.result is None


def train_on_disk(job: Job, journal: Journal, process: Process, progress: Progress, kept: Kept | None) -> Trained:
    """Train as the job says, from what was kept where there is something, and write what it asks for.

    The first process alone writes files and has read the journal. Raises what `Trainer` raises, `ResumeError`,
    `OutputError`; on `KeyboardInterrupt` the state has been kept.
    """
    lines = list(journal.read()) if process.first else []
    if process.any(journal.finished is not None):
        if journal.finished is not None:
            _add_row(job, journal.finished)  # of a table that was not asked for then, or was not reached
        told = process.bytes_from_first(json.dumps(journal.finished).encode())
        assert told is not None
        return Trained(json.loads(told), lines)
    data = process.bytes_from_first(None if kept is None else kept.data)
    prepared = _prepared(job, job.recipe, process)
    with events(job.out.log_dir if process.first else None, lines) as add:

        def record(row: Record) -> None:
            lines.append(journal.append(row))
            add(lines[-1])

        run = Run(process, progress, partial(keep_state, journal), job.out.keep_every, record)
        trainer = Trainer(job.network, job.masks(), job.recipe, prepared, run)
        if data is not None:
            with journal.intact():
                trainer.load(kept_state(journal, journal.parsed(data)))
        trainer.train()
        with suppress(OutputError):  # should what comes now fail or be interrupted; where this does not fit, that may
            trainer.keep()
        result = trainer.finish()
        numbers = _numbers(job, result, trainer)
        if process.first:
            _write(job, result, numbers)
            numbers = journal.finish(numbers)
            lines.append(numbers)
            add(numbers)
    return Trained(numbers, lines, trainer.early.absent, result)


def train_in_memory(job: Job, process: Process, progress: Progress) -> Trained:
    """Train as the job says without a journal: what is interrupted is gone. Raises what `Trainer` raises, `OutputError`."""
    lines: list[Record] = []
    run = Run(process, progress, record=lines.append)
    trainer = Trainer(job.network, job.masks(), job.recipe, _prepared(job, job.recipe, process), run)
    trainer.train()
    result = trainer.finish()
    record = _numbers(job, result, trainer)
    if process.first:
        _write_mask(job, result, record)
    return Trained(record, [*lines, record], trainer.early.absent, result)


def _prepared(job: Job, recipe: Recipe, process: Process) -> TrainingData:
    """The data on the device, after the network was seen to tell its classes apart."""
    shape = job.input_shape or job.network.input_shape
    prepared = prepare(*job.parts, recipe, shape, process.device)
    check_outputs(trained_copy(job.network, process.device), prepared.validation, job.network.description)
    if process.first:
        note(prepared.told)
    return prepared


def _numbers(job: Job, result: TrainResult, trainer: Trainer) -> Record:
    assert result.test is not None
    low, high = result.test.interval()
    return {
        **job.key,
        "recipe": job.name,
        "density": job.count(result.masks).density,
        "epochs": trainer.evaluated,
        "best_epoch": result.best_epoch,
        "validation_accuracy": result.validation.accuracy,
        DONE: result.test.accuracy,
        "accuracy_low": low,
        "accuracy_high": high,
        "test_loss": result.test.loss,
        "correct": result.test.correct,
        "tested": result.test.count,
        "explored": share_of(trainer.explored) if job.recipe.dynamic is not None else None,
        "fixed_layers": trainer.fixed_layers,
        "seconds": result.seconds,
    }


def weights_of(job: Job, result: TrainResult) -> Tensors:
    """The trained weights, without a counter that the checkpoint did not have."""
    has = job.source.shapes
    return {name: one for name, one in result.weights.items() if name in has or not name.endswith(OPTIONAL)}


def _write(job: Job, result: TrainResult, record: Record) -> None:
    """The weights, the final mask of a dynamic training, and the row."""
    story = {
        **job.story,
        **{key: str(record[key]) for key in ("mask", "best_epoch", DONE)},
        **provenance(job.arguments),
    }
    assert job.out.weights is not None
    save_tensors(job.out.weights, weights_of(job, result), story, force=job.replaces(job.out.weights))
    _write_mask(job, result, record)
    _add_row(job, record)


def final_mask(job: Job, result: TrainResult, record: Record) -> MaskToWrite:
    """The mask that a dynamic training ended with."""
    layouts = {layer.name: layer.layout for layer in job.network.layers}
    told = {
        "method": str(job.recipe.dynamic),
        "density": repr(record["density"]),
        **({} if job.recipe.pattern is None else {"pattern": str(job.recipe.pattern)}),
        **job.story,
        **job.network.story,
        **provenance(job.arguments),
    }
    return MaskToWrite(result.masks, layouts, told)


def _write_mask(job: Job, result: TrainResult, record: Record) -> None:
    if job.out.mask is not None:
        mask = final_mask(job, result, record)
        write_mask(job.out.mask, mask, packed=False, force=job.replaces(job.out.mask))


def _add_row(job: Job, record: Record) -> None:
    """The row of a finished training, where a table is asked for."""
    if job.out.results is not None:
        facts = {**record, "accuracy": record[DONE], "checkpoint": job.source.path, "trained": job.out.weights}
        add_result(job.out.results, {field: str(facts[field]) for field in FIELDS})


def digest_of_mask(mask: Mask) -> str:
    """Hex SHA-256 of its file's bytes, or, of a mask that is in none, of names, shapes and what is kept."""
    known = getattr(mask, "sha256", None)
    if isinstance(known, str):
        return known
    digest = hashlib.sha256()
    for name in sorted(mask.names):
        array = mask.array(name)
        digest.update(f"{name}\0{array.shape}\0".encode("utf-8", "surrogatepass"))
        digest.update(np.packbits(array).tobytes())
    return digest.hexdigest()
