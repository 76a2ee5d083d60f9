"""Where a method that trains goes on: its state, and which round that is of."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING

import torch

from pai_cli.pruning.trained import TrainingContext, TrainingRun
from pai_cli.training.state import TrainingState, keep_state, kept_state, number_in

if TYPE_CHECKING:
    from pai_cli.files.journal import Journal
    from pai_cli.pruning.base import Masks


def kept_round(state: TrainingState, done: int, masks: Masks | None) -> TrainingState:
    """The state with how many rounds were done, and the masks that the round after them began with."""
    state.facts["rounds_done"] = done
    if masks is not None:
        state.add("flags", {name: torch.from_numpy(mask) for name, mask in masks.items()})
    return state


def check_rounds(training: TrainingContext, shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Raise `ValueError` unless a run can stand after so many rounds, with such masks. `shapes`: of what is pruned."""
    run = training.run
    if not 0 <= run.done < training.rounds or (run.done == 0) != (run.masks is None):
        raise ValueError(f"{run.done} of {training.rounds} rounds")
    if run.masks is not None and {name: (one.shape, one.dtype.kind) for name, one in run.masks.items()} != {
        name: (shape, "b") for name, shape in shapes.items()
    }:
        raise ValueError("masks of other layers")


def begun(journal: Journal, check: Callable[[], None], *, resume: bool) -> TrainingRun:
    """A run that keeps its state there: new, in the place of one before it, or with `resume` from what is kept.

    `check`: as of `Journal.opened`. Raises `ResumeError` when there is nothing to continue, or something of other settings.
    """
    run = TrainingRun(keep=partial(keep_state, journal), intact=journal.intact)
    kept = journal.opened(check, resume=resume)
    if kept is not None:
        run.state = state = kept_state(journal, kept)
        with journal.intact():
            run.done = number_in(state.facts, "rounds_done", math.inf)
        run.masks = {name: tensor.numpy() for name, tensor in state.part("flags").items()} or None
    return run
