"""What every training shares: steps to a goal, the order of the examples, the rate, and the state kept on the way."""

from __future__ import annotations

import math
import time
from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import Any

import numpy as np
import torch

from pai_cli.compute.memory import keep_freed
from pai_cli.compute.stopping import interruptible
from pai_cli.errors import RecipeError, TrainingError
from pai_cli.random import generator_for, seed_torch
from pai_cli.spelling import option
from pai_cli.training.examples import Augment, Examples, Pair
from pai_cli.training.feed import Feed
from pai_cli.training.recipe import Optimizer, Recipe
from pai_cli.training.run import Run
from pai_cli.training.state import TrainingState

CHECK_EVERY = 50
"""Steps after which the loss is looked at: on a GPU to look is to wait."""


class Steps(ABC):
    """A training between two of its steps, `step` of them done. A subclass has the network, and says what a step does.

    `steps`: how many all epochs have, by which the learning rate falls; `end`: how many are done, all of them or fewer.

    Every random number is a function of the seed and the step, so what goes on from a state ends as what was never
    interrupted. Raises `RecipeError` where the examples are fewer than a batch, or the epochs have fewer steps than are to
    be done.
    """

    subject = ""  # whose training it is, before what a message says of it

    def __init__(self, recipe: Recipe, examples: Examples, augment: Augment, run: Run):
        self.recipe, self.run, self.process = recipe, run, run.process
        self.examples, self.augment = examples, augment
        self.batch = recipe.batch_size * self.process.world
        self.steps_in_epoch = examples.batches_in_epoch(recipe.batch_size, self.process.world)
        self.steps = self.steps_in_epoch * recipe.epochs
        self.end = self.steps if recipe.steps is None else recipe.steps
        if self.end > self.steps:
            raise RecipeError(
                f"{option('steps', self.end)}: {option('epochs', recipe.epochs)} has {self.steps:,} steps of "
                f"{self.batch:,} examples; give fewer, or more epochs"
            )
        self.step, self.seconds = 0, 0.0
        self.optimizer: torch.optim.Optimizer
        self.totals = torch.zeros(2, dtype=torch.float64, device=self.process.device)  # of this epoch: loss and right
        self.counted = 0  # steps in them
        self.loss: float | None = None  # this epoch's, or the last one's, as last looked at
        self._fed: tuple[int, int, Feed] | None = None  # an epoch, and its batches from one of its steps on

    @abstractmethod
    def _advance(self, goal: int) -> bool:
        """Do what comes next, a step at the most; False when there is nothing left before step `goal`."""

    @abstractmethod
    def state(self) -> TrainingState:
        """All that a run of the same settings goes on from."""

    def train(self, until: int | None = None) -> None:
        """Go on to step `until`, by default to the end. Raises `KeyboardInterrupt` after the state was kept."""
        keep_freed()
        goal = self.end if until is None else min(until, self.end)
        kept = begun = time.monotonic()
        gpus = [torch.cuda.current_device()] if self.process.device.startswith("cuda") else []
        with interruptible() as interruption, torch.random.fork_rng(devices=gpus):
            while self._advance(goal):
                now = time.monotonic()
                self.seconds, begun = self.seconds + now - begun, now
                if self.process.any(interruption.asked):
                    self.keep()
                    # Only one of the processes may have been told, and all of them end alike.
                    raise interruption.error(terminated=self.process.any(interruption.terminated))
                if now - kept > self.run.keep_every:
                    self.keep()
                    kept = now

    def keep(self) -> None:
        """Hand the state to the run, in the first process."""
        if self.run.keep is not None and self.process.first:
            self.run.keep(self.state())

    def _optimizer_of(self, groups: Iterable[Any], *, fused: bool | None = None) -> torch.optim.Optimizer:
        """The recipe's, of these parameters or groups of them."""
        recipe = self.recipe
        if recipe.optimizer is Optimizer.ADAM:
            # Elsewhere than on a device it rounds as it always did; there, its count of steps must not be read.
            fused = None if self.process.device == "cpu" else True
            return torch.optim.Adam(groups, lr=recipe.base_lr, weight_decay=recipe.weight_decay, fused=fused)
        decay, momentum = recipe.weight_decay, recipe.momentum
        return torch.optim.SGD(groups, lr=recipe.base_lr, momentum=momentum, weight_decay=decay, fused=fused)

    def _set_lr(self) -> None:
        rate = self.recipe.lr_at(self.step, self.steps)
        for group in self.optimizer.param_groups:
            group["lr"] = rate

    def _training_batch(self) -> Pair:
        """This process's part of the step's batch, augmented as the batch would be if one process took it whole."""
        epoch, step = divmod(self.step, self.steps_in_epoch)
        if self._fed is None or self._fed[0] != epoch or step < self._fed[1]:
            self._fed = epoch, step, self._feed(epoch, step)
        return self._fed[2].batch(step - self._fed[1])

    def _feed(self, epoch: int, first: int) -> Feed:
        """The batches of an epoch from its step `first` on."""
        order = generator_for(self.recipe.seed, f"order of epoch {epoch}").permutation(len(self.examples))
        steps = self.steps_in_epoch
        places, part = order[: steps * self.batch].reshape(steps, self.batch), self.process.part(self.batch)
        drawn = None
        if self.augment.changes(self.examples.shape):
            sources = (self._augmenting(epoch * steps + step) for step in range(first, steps))
            drawn = np.stack([self.augment.drawn(one, self.batch, self.examples.shape[2]) for one in sources])[
                ..., part
            ]
        return Feed(self.examples, self.augment, places[first:, part], drawn, self.process.device)

    @abstractmethod
    def _augmenting(self, step: int) -> np.random.Generator:
        """The generator that augments the batch of a step."""

    def _seed_torch(self, random: np.random.Generator) -> None:
        """Make what the network draws itself, in dropout, a function of the generator."""
        seed_torch(int(random.integers(2**62)), self.process.device)

    def _count(self, loss: torch.Tensor, logits: torch.Tensor, labels: torch.Tensor) -> None:
        """Add a step to the epoch's totals, which stay on the device."""
        self.totals[0].add_(loss)
        self.totals[1].add_((logits.argmax(1) == labels).sum())
        self.counted += 1

    def _look(self, step: int) -> tuple[float, float]:
        """The epoch's totals of loss and right, this process's. Raises `TrainingError` for a loss that is not finite."""
        lost, right = self.totals.tolist()
        self._check_finite(lost, step)
        if self.counted:
            self.loss = lost / self.counted
        return lost, right

    def _begin_epoch(self) -> None:
        self.totals.zero_()
        self.counted = 0

    def _check_finite(self, loss: float, step: int, where: str = "") -> None:
        if self.process.any(not math.isfinite(loss)):  # all stop at once: none waits for another in vain
            raise TrainingError(
                f"{self.subject}the loss{where} is no longer finite at step {step} of {self.steps}; give a smaller "
                f"{option('lr')} than {self.recipe.base_lr:g}"
            )
