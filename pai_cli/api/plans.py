"""Each command's plan of files: what is read for each kind of argument, what is written, also beside what was named."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pai_cli.errors import OutputError
from pai_cli.files.atomic import is_special
from pai_cli.files.journal import PRUNE, ROWS, SAMPLE, TRAIN, rows_beside, state_beside
from pai_cli.files.model_folders import check_folder
from pai_cli.files.plan import FilePlan, check_name
from pai_cli.files.standard_input import is_standard_input
from pai_cli.models.factory_spec import parts_of
from pai_cli.spelling import option
from pai_cli.training.ranks import rank_here

if TYPE_CHECKING:
    from pai_cli.api.working import Working
    from pai_cli.files.plan import FilePlan
    from pai_cli.pruning.base import Method
    from pai_cli.training.outputs import Outputs


@dataclass(frozen=True)
class Reads:
    """What a command that runs a network reads: the checkpoint, and what `model`, `data`, `densities` and `text` name."""

    checkpoint: Path | None
    model: str | None = None
    data: str | None = None
    densities: Path | None = None
    text: Path | None = None

    def plan(self, *, force: bool) -> FilePlan:
        """A plan in which these are read."""
        plan = FilePlan(force=force)
        read_checkpoint(plan, self.checkpoint, self.model)
        _read_data(plan, self.data)
        plan.reads(f"the file of {option('densities')}", self.densities)
        plan.reads("the text", self.text)
        return plan


def plan_pruning(
    reads: Reads,
    mask: Path | None,
    weights: Path | None,
    stable: Path | None,
    method: Method,
    *,
    resume: bool,
    force: bool,
) -> None:
    """Check the files of `pai prune`. Raises `OutputError`."""
    plan = reads.plan(force=force)
    if method.trains and mask is not None:
        _refuse_special(mask, "output", "a training needs a file beside what it writes; name a file")
    plan.writes_tensors(mask, "the mask", "output", replace=resume)
    if method.text and weights is not None:
        plan.adds_to(weights, "the folder of the weights", "weights_out", seen_to=True)
        check_folder(weights, reads.checkpoint, force=force)
    else:
        plan.writes_tensors(weights, "the weights", "weights_out")
    plan.writes_tensors(stable, "the mask of stable weights", "stable_out")
    if method.trains and mask is not None:
        plan.keeps(state_beside(mask), "the training's state", "output", PRUNE, resume=resume)
    plan.check()


def plan_sampling(
    reads: Reads,
    mask: Path,
    trajectory: Path | None,
    plot: Path | None,
    *,
    searches: bool,
    resume: bool,
    force: bool,
) -> None:
    """Check the files of `pai sample`; `searches`: whether it searches, and does not build. Raises `OutputError`."""
    plan = reads.plan(force=force)
    plan.writes_tensors(mask, "the mask", "output", replace=resume)
    plan.writes(plot, "the picture", "plot")
    if searches:
        if trajectory is None and is_special(mask):
            told = option("trajectory")
            raise OutputError(f"{mask}: is a device or a pipe; say with {told} where the search is to be written")
        lines, parameter = trajectory or rows_beside(mask), "output" if trajectory is None else "trajectory"
        state = state_beside(lines, ROWS)
        for file in (lines, state):
            _refuse_special(file, parameter, "a search must be read again; name a file")
        plan.keeps(lines, "the search's trajectory", parameter, SAMPLE, resume=resume)
        plan.keeps(state, "the search's state", parameter, SAMPLE, resume=resume, after=lines)
    plan.check()


def plan_training(reads: Reads, mask: Path | None, outputs: Outputs, *, resume: bool) -> None:
    """Check the files of `pai train`, in the first of its processes, which alone writes. Raises `OutputError`."""
    from pai_cli.files.results import lock_beside

    if rank_here() > 0:
        return
    out = outputs.weights
    plan = reads.plan(force=outputs.force)
    plan.reads("the mask", mask)
    if out is not None:
        _refuse_special(out, "output", "a training needs files beside what it writes; name a file")
    plan.writes_tensors(out, "the weights", "output", replace=resume)
    plan.writes_tensors(outputs.mask, "the final mask", "mask_out", replace=resume)
    plan.writes(outputs.plot, "the picture", "plot", replace=resume)
    if out is not None:
        journal = rows_beside(out)
        plan.keeps(journal, "the training's journal", "output", TRAIN, resume=resume)
        plan.keeps(state_beside(out), "the training's state", "output", TRAIN, resume=resume, after=journal)
    if outputs.results is not None:
        plan.adds_to(outputs.results, "the table", "results")
        plan.uses(lock_beside(outputs.results), "the table's lock", "results", lambda lock: not lock.stat().st_size)
    plan.adds_to(outputs.log_dir, "the folder of events", "log_dir", seen_to=True)
    plan.check()


def plan_measuring(
    masks: list[str],
    weights: Path | None,
    plot: Path | None,
    report: Path | None,
    working: Working,
    *tables: Path | None,
    force: bool,
) -> FilePlan:
    """The files of `pai analyze` and `pai rank`, checked; `read_masks` adds those masks that are still to be found.

    Raises `OutputError`.
    """
    plan = FilePlan(force=force)
    read_checkpoint(plan, weights)
    plan.reads("a table that is read", *(table for table in tables if not is_standard_input(table)))
    plan.writes(plot, "the picture", "plot")
    plan.writes(report, "the page", "report")
    _use_store(plan, working)
    read_masks(plan, _named(masks))
    return plan


def plan_mining(
    masks: list[str], weights: Path | None, model: str | None, mask: Path | None, plot: Path | None, *, force: bool
) -> FilePlan:
    """The files of `pai mine`, checked; `read_masks` adds those masks that are still to be found. Raises `OutputError`."""
    plan = FilePlan(force=force)
    read_checkpoint(plan, weights, model)
    plan.writes_tensors(mask, "the mask", "output")
    plan.writes(plot, "the picture", "plot")
    read_masks(plan, _named(masks))
    return plan


def read_masks(plan: FilePlan, paths: Iterable[Path]) -> None:
    """Add mask files, as they are found, with all that an index among them names, and check again."""
    from pai_cli.files.checkpoints import files_of

    for path in paths:
        plan.reads("a file that is read", *(files_of(path) if path.suffix == ".json" else [path]))
    plan.check()


def read_checkpoint(plan: FilePlan, path: Path | None, model: str | None = None) -> None:
    """Add a checkpoint with all its files, and the code that `model` names."""
    from pai_cli.files.checkpoints import files_of

    if path is not None:
        plan.reads("a file of the checkpoint", *files_of(path))
    if model is not None and ":" in model:
        plan.reads(f"the code of {option('model')}", *parts_of(model).code)


def _named(masks: Iterable[str]) -> list[Path]:
    """The masks that are told outright, not by a folder or on standard input."""
    return [path for path in map(Path, masks) if not is_standard_input(path) and not path.is_dir()]


def _read_data(plan: FilePlan, data: str | None) -> None:
    from pai_cli.data.layouts import read_from
    from pai_cli.data.registry import DIGITS

    if data is None or data == DIGITS:
        return
    try:
        files, folders = read_from(Path(data).expanduser())
    except (OSError, RuntimeError):  # no permission, no home folder: told when the data are opened
        return
    plan.reads("a file of the data", *files)
    for folder, holds in folders.items():
        plan.reads_in("part of the data", folder, holds)


def _use_store(plan: FilePlan, working: Working) -> None:
    """Add the store of finished work, and what SQLite keeps beside it."""
    from pai_cli.files.store import JOURNALS, default_path, is_journal

    if working.no_store:
        return
    try:
        store = working.store or default_path()
    except RuntimeError:  # no home folder, and so no store
        return
    plan.adds_to(working.store, "the store", "store", seen_to=True)
    for ending in JOURNALS:
        plan.uses(store.with_name(store.name + ending), "SQLite's journal", "store", is_journal)


def _refuse_special(path: Path, parameter: str, need: str) -> None:
    """Raise `OutputError` for a device or a pipe, beside which no file can go and which cannot be read again; for "-" what
    `check_name` raises.
    """
    check_name(path, parameter)
    if is_special(path):
        raise OutputError(f"{path}: is a device or a pipe, and {need}")
