"""Where a training runs, whom it tells, and what comes out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pai_cli.progress import Progress, silent
from pai_cli.pruning.base import Masks
from pai_cli.training.model import Score
from pai_cli.training.process import ALONE, Process
from pai_cli.training.state import Tensors, TrainingState

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
