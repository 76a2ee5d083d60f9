"""Where a method that trains goes on: its state, and which round that is of."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from pai_cli.errors import ResumeError
from pai_cli.files.messages import one_line
from pai_cli.files.runs import state_beside
from pai_cli.printable import reason_of
from pai_cli.pruning.trained import TrainingContext, TrainingRun
from pai_cli.spelling import option
from pai_cli.training.state import TrainingState, number_in, parse_state, write_state

if TYPE_CHECKING:
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


@contextmanager
def fitting_state() -> Iterator[None]:
    """Raise `ResumeError` where the tensors of a state turn out to be others than the network's."""
    try:
        yield
    except (KeyError, RuntimeError, ValueError, TypeError, AttributeError) as error:
        told = f"the state does not fit this network ({one_line(error)}); {option('force')} starts the training again"
        raise ResumeError(told) from error


@dataclass(frozen=True)
class RunFiles:
    """The file from which an interrupted run goes on, and the settings that must then be the same."""

    path: Path
    settings: dict[str, Any]

    @staticmethod
    def beside(out: Path, settings: dict[str, Any]) -> RunFiles:
        """Of the run that writes `out`."""
        return RunFiles(state_beside(out), settings)

    def begin(self, *, resume: bool) -> TrainingRun:
        """A run that keeps its state here: new, in the place of one before it, or with `resume` from what is kept.

        Raises `ResumeError` when there is nothing to continue, or something of other settings.
        """
        if resume:
            return self._continued()
        self.path.unlink(missing_ok=True)
        return TrainingRun(keep=self.keep)

    def keep(self, state: TrainingState) -> None:
        """Write the state. Raises `OutputError`."""
        write_state(self.path, state, self.settings)

    def close(self) -> None:
        """Remove the state: the run is finished."""
        self.path.unlink(missing_ok=True)

    def _continued(self) -> TrainingRun:
        try:
            data = self.path.read_bytes()
        except FileNotFoundError as e:
            raise ResumeError(
                f"{self.path}: no training to continue here; leave {option('resume')} out to begin one"
            ) from e
        except OSError as e:
            raise ResumeError(f"{self.path}: cannot be read: {reason_of(e)}") from e
        state = parse_state(self.path, data, self.settings)
        try:
            done = number_in(state.facts, "rounds_done", math.inf)
        except (KeyError, ValueError) as e:
            raise ResumeError(
                f"{self.path}: is the state of a pai train; {option('force')} starts the training again"
            ) from e
        masks = {name: tensor.numpy() for name, tensor in state.part("flags").items()}
        return TrainingRun(keep=self.keep, state=state, done=done, masks=masks or None)
