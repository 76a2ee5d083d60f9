"""Where a training runs, whom it tells, and what comes out."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pai_cli.progress import Progress, silent
from pai_cli.pruning.base import Masks
from pai_cli.training.model import Score
from pai_cli.training.process import ALONE, Process
from pai_cli.training.state import Tensors, TrainingState, check_alike, check_parts, number_in

if TYPE_CHECKING:
    from pai_cli.files.tables import Record


def _nowhere(_: Record) -> None:
    """Record nothing."""


@dataclass(frozen=True)
class Run:
    """Where a training runs and whom it tells.

    `keep` is given the state every `keep_every` seconds, and when the run is interrupted; `record` every epoch's and every
    mask update's numbers. Both are called in the first process alone.
    """

    process: Process = ALONE
    progress: Progress = silent
    keep: Callable[[TrainingState], None] | None = None
    keep_every: float = 600.0
    record: Callable[[Record], None] = _nowhere


@dataclass(frozen=True)
class TrainResult:
    """What came out: tensors by state-dict name on the CPU.

    `weights`: of the best epoch (from 1), the one with the most right on the validation part among those whose network is
    the final one; `last`: after the last step. `masks`: of both. `test`: None where no test part was given.
    """

    weights: Tensors
    last: Tensors
    masks: Masks
    best_epoch: int
    validation: Score
    test: Score | None
    seconds: float


@dataclass
class Best:
    """The best epoch so far: its number from 1, score and tensors; epoch 0 is none."""

    epoch: int = 0
    score: Score = field(default_factory=lambda: Score(-1, 1, float("inf")))
    tensors: Tensors = field(default_factory=dict)

    def beaten_by(self, score: Score) -> bool:
        """More right; at a tie a smaller loss; at a further tie the earlier epoch stays."""
        return (score.correct, -score.loss) > (self.score.correct, -self.score.loss)


PARTS = ("model", "masks", "explored", "run", "ghosts", "rescaling")
"""Of a state, those that have the same tensors at every step: but for the optimizer's and the best epoch's."""


@dataclass(frozen=True)
class Stand:
    """Where a kept run stood: so many steps done and epochs evaluated, in so many seconds; the best epoch.

    `counted`: the steps that its epoch's totals are of.
    """

    step: int
    evaluated: int
    seconds: float
    best: Best
    counted: int

    @staticmethod
    def of(state: TrainingState, steps: int, steps_in_epoch: int) -> Stand:
        """What a state says, of a run of so many steps. Raises `ValueError`, `KeyError`, `TypeError` for what cannot be."""
        step, seconds = number_in(state.facts, "step", steps), state.facts["seconds"]
        # The end is the end of an epoch, wherever it is.
        epochs = -(-step // steps_in_epoch) if step == steps else step // steps_in_epoch
        evaluated = number_in(state.facts, "evaluated", epochs)
        counted = number_in(state.facts, "counted", steps_in_epoch)
        if evaluated < epochs - 1 or (evaluated < epochs and not counted):
            raise ValueError(f"{evaluated} epochs evaluated of {epochs}, {counted} steps counted")
        if type(seconds) is not float or not 0 <= seconds < math.inf:
            raise ValueError(f"{seconds!r} seconds")
        epoch, correct, count, loss = state.facts["best"]
        if epoch == 0:
            return Stand(step, evaluated, seconds, Best(), counted)
        if {type(one) for one in (epoch, correct, count)} != {int} or type(loss) is not float:
            raise ValueError(f"the best epoch {state.facts['best']}")
        if not (0 < epoch <= evaluated and 0 <= correct <= count and count > 0):
            raise ValueError(f"the best epoch {state.facts['best']}")
        best = Best(epoch, Score(correct, count, loss), state.part("best"))
        return Stand(step, evaluated, seconds, best, counted)

    def check_tensors(self, state: TrainingState, own: TrainingState) -> None:
        """Raise `ValueError` unless the state has the tensors of the run, whose own state this step is `own`."""
        check_parts(state, own, PARTS)
        if self.best.epoch:
            check_alike(self.best.tensors, own.part("model"))
