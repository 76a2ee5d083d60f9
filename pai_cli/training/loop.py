"""The training loop: steps, epochs, validation, and the state from which an interrupted run goes on bit for bit.

Every random number is a function of the seed and of where the run is, so a run that went on ends as one that was never
interrupted: on a CPU with as many threads, bit for bit.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from pai_cli.errors import TrainingError
from pai_cli.progress import Progress, silent
from pai_cli.pruning.base import Masks, generator_for
from pai_cli.training.examples import Pair, TrainingData
from pai_cli.training.interruption import heard
from pai_cli.training.masking import MaskedWeights
from pai_cli.training.model import Score, check_amp, cross_entropy, dtype_of, evaluate, logits_of, trained_copy
from pai_cli.training.process import ALONE, Process
from pai_cli.training.recipe import Optimizer, Recipe
from pai_cli.training.state import Tensors, TrainingState, load_optimizer, optimizer_tensors, state_dict_of

if TYPE_CHECKING:
    from pai_cli.files.tables import Record
    from pai_cli.models.network import Network

CHECK_EVERY = 50
"""Steps after which the loss is looked at: on a GPU to look is to wait."""


def _nowhere(_: Record) -> None:
    pass


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


class Trainer:
    """One training run, between two steps of it.

    The network itself stays as it is: a copy is trained. Raises `TrainingError`, `RecipeError`, `DeviceError`.
    """

    def __init__(self, network: Network, masks: Masks, recipe: Recipe, data: TrainingData, run: Run | None = None):
        self.run = run or Run()
        self.recipe, self.data = recipe, data
        self.process = self.run.process
        if recipe.amp:
            check_amp(self.process.device)
        self.batch = recipe.batch_size * self.process.world
        self.steps_in_epoch = data.batches_in_epoch(self.batch)
        self.steps = self.steps_in_epoch * recipe.epochs
        self.model = trained_copy(network, self.process.device)
        self.dtype = dtype_of(self.model)
        self.masked = MaskedWeights(self.model, masks)
        self.optimizer = self._make_optimizer()
        self.masked.guard(self.optimizer)
        self.called: nn.Module = self.process.together(self.model)
        self.step, self.evaluated, self.seconds = 0, 0, 0.0
        self.totals = torch.zeros(2, dtype=torch.float64, device=self.process.device)  # loss and correct of this epoch
        self.best = Best()
        self._order = -1, np.zeros(0, dtype=np.int64)  # an epoch, and the order of its examples

    def _make_optimizer(self) -> torch.optim.Optimizer:
        recipe, parameters = self.recipe, list(self.model.parameters())
        if recipe.optimizer is Optimizer.ADAM:
            return torch.optim.Adam(parameters, lr=recipe.base_lr, weight_decay=recipe.weight_decay)
        return torch.optim.SGD(
            parameters, lr=recipe.base_lr, momentum=recipe.momentum, weight_decay=recipe.weight_decay
        )

    @property
    def settled(self) -> bool:
        """Whether the network is the final one from here on, so that this epoch may be the best."""
        return True

    def train(self, until: int | None = None) -> None:
        """Go on to step `until`, by default to the end. Raises `KeyboardInterrupt` after the state was kept."""
        goal = self.steps if until is None else min(until, self.steps)
        kept = begun = time.monotonic()
        gpus = [torch.cuda.current_device()] if self.process.device.startswith("cuda") else []
        with heard() as interruption, torch.random.fork_rng(devices=gpus):
            while self._advance(goal):
                now = time.monotonic()
                self.seconds, begun = self.seconds + now - begun, now
                if self.process.any(interruption.asked):
                    self.keep()
                    raise KeyboardInterrupt
                if now - kept > self.run.keep_every:
                    self.keep()
                    kept = now

    def _advance(self, goal: int) -> bool:
        """One step, or the end of an epoch; False when there is nothing left."""
        if self.evaluated < self.step // self.steps_in_epoch:
            self._end_epoch()
        elif self.step < goal:
            self._one_step()
            self.step += 1
            self.run.progress(self.step, self.steps + 1, self._story())
        else:
            return False
        return True

    def _story(self) -> str:
        best = f", best {self.best.score.accuracy:.2%}" if self.best.epoch else ""
        return f"epoch {min(self.evaluated + 1, self.recipe.epochs)}/{self.recipe.epochs}{best}"

    def _one_step(self) -> None:
        self._set_lr()
        inputs, labels = self._training_batch()
        self._seed_torch()
        self.called.train()
        logits = logits_of(self.called, inputs.to(self.dtype), amp=self.recipe.amp)
        loss = cross_entropy(logits, labels)
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self._count(loss.detach(), logits.detach(), labels)

    def _set_lr(self) -> None:
        rate = self.recipe.lr_at(self.step, self.steps)
        for group in self.optimizer.param_groups:
            group["lr"] = rate

    def _training_batch(self) -> Pair:
        """This process's part of the step's batch, augmented as the batch would be if one process took it whole."""
        epoch, within = divmod(self.step, self.steps_in_epoch)
        if self._order[0] != epoch:
            random = generator_for(self.recipe.seed, f"order of epoch {epoch}")
            self._order = epoch, random.permutation(len(self.data.train))
        places = self._order[1][within * self.batch : (within + 1) * self.batch]
        random = generator_for(self.recipe.seed, f"augmentation of step {self.step}")
        inputs, labels = self.data.train.batch(places)
        part = self.process.part(len(places))
        return self.data.augment(inputs, random)[part], labels[part]

    def _seed_torch(self) -> None:
        """What the network draws itself, in dropout, is a function of seed, step and process."""
        random = generator_for(self.recipe.seed, f"step {self.step} of process {self.process.rank}")
        torch.manual_seed(int(random.integers(2**62)))

    def _count(self, loss: torch.Tensor, logits: torch.Tensor, labels: torch.Tensor) -> None:
        right = (logits.argmax(1) == labels).sum()
        self.totals += torch.stack([loss.double(), right.double()])
        if self.step % CHECK_EVERY == 0:
            self._check_finite()

    def _check_finite(self) -> None:
        if not bool(self.totals[0].isfinite()):
            raise TrainingError(
                f"the loss is no longer finite at step {self.step + 1} of {self.steps}; give a smaller --lr than "
                f"{self.recipe.base_lr:g}"
            )

    def _end_epoch(self) -> None:
        self._check_finite()
        # Batch norm's statistics are each process's own: the first one's are the network's.
        self.process.from_first(list(self.model.buffers()))
        score = self._score_of(self.data.validation)
        epoch = self.evaluated + 1
        if self.settled and self.best.beaten_by(score):
            self.best = Best(epoch, score, state_dict_of(self.model))
        loss, right = self.process.sum([float(one) for one in self.totals])
        seen = self.steps_in_epoch * self.batch
        self.tell(
            {
                "epoch": epoch,
                "step": self.step,
                "lr": self.recipe.lr_at(self.step - 1, self.steps),
                "train_loss": loss / self.steps_in_epoch / self.process.world,
                "train_accuracy": right / seen,
                "validation_loss": score.loss,
                "validation_accuracy": score.accuracy,
                "settled": self.settled,
                "best_epoch": self.best.epoch or None,
                "seconds": self.seconds,
            }
        )
        self.totals.zero_()
        self.evaluated = epoch

    def _score_of(self, examples: Any, model: nn.Module | None = None) -> Score:
        every = slice(self.process.rank, None, self.process.world)
        batches = examples.in_order(max(self.recipe.batch_size, 256), every)
        return evaluate(model or self.model, batches, amp=self.recipe.amp, process=self.process)

    def tell(self, record: Record) -> None:
        """Record numbers, in the first process."""
        if self.process.first:
            self.run.record(record)

    def keep(self) -> None:
        """Hand the state to the run, in the first process."""
        if self.run.keep is not None and self.process.first:
            self.run.keep(self.state())

    def state(self) -> TrainingState:
        """All that a run of the same settings goes on from."""
        state = TrainingState({})
        state.add("model", state_dict_of(self.model))
        state.add("optimizer", optimizer_tensors(self.optimizer))
        state.add("best", self.best.tensors)
        state.add("run", {"totals": self.totals})
        score = self.best.score
        state.facts = {
            "step": self.step,
            "evaluated": self.evaluated,
            "seconds": self.seconds,
            "best": [self.best.epoch, score.correct, score.count, score.loss if self.best.epoch else None],
        }
        return state

    def load(self, state: TrainingState) -> None:
        """Go to where `state` was taken; raises `TrainingError` when it is not of such a network."""
        facts = state.facts
        self.step, self.evaluated, self.seconds = int(facts["step"]), int(facts["evaluated"]), float(facts["seconds"])
        self.model.load_state_dict(state.part("model"))
        load_optimizer(self.optimizer, state.part("optimizer"))
        self.totals.copy_(state.part("run")["totals"])
        epoch, correct, count, loss = facts["best"]
        if epoch:
            self.best = Best(epoch, Score(correct, count, loss), state.part("best"))

    def finish(self) -> TrainResult:
        """The result; the test part, where there is one, is looked at here and only here, with the best epoch."""
        last = state_dict_of(self.model)
        test = None
        if self.data.test is not None and self.best.epoch:
            self.model.load_state_dict(self.best.tensors)
            test = self._score_of(self.data.test)
            self.model.load_state_dict(last)
        best, masks = self.best, self.masked.masks()
        return TrainResult(best.tensors or last, last, masks, best.epoch, best.score, test, self.seconds)


def fit(
    network: Network,
    masks: Masks,
    recipe: Recipe,
    data: TrainingData,
    run: Run | None = None,
    *,
    state: TrainingState | None = None,
    until: int | None = None,
) -> TrainResult:
    """Train a copy of the network with its pruned weights at 0, all the time and in what comes out.

    `masks`: boolean arrays by parameter name; {} trains the whole network. `state`: to go on from. `until`: stop after that
    many steps, as a rewinding point does, with the learning rates of the whole run. The same request gives the same
    result. Raises `TrainingError`, `RecipeError`, `DeviceError`, `DataError`.
    """
    trainer = Trainer(network, masks, recipe, data, run)
    if state is not None:
        trainer.load(state)
    trainer.train(until)
    return trainer.finish()
