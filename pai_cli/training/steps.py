"""What every training shares: steps to a goal, the order of the examples, the rate, and the state kept on the way."""

from __future__ import annotations

import math
import time
from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from pai_cli.compute.memory import keep_freed
from pai_cli.compute.stopping import interruptible
from pai_cli.errors import TrainingError
from pai_cli.random import generator_for, seed_torch
from pai_cli.spelling import option
from pai_cli.training.examples import Augment, Examples, Pair
from pai_cli.training.recipe import Optimizer, Recipe
from pai_cli.training.run import Run
from pai_cli.training.state import TrainingState

CHECK_EVERY = 50
"""Steps after which the loss is looked at: on a GPU to look is to wait."""


class Steps(ABC):
    """A training between two of its steps, `step` of them done. A subclass has the network, and says what a step does.

    Every random number is a function of the seed and the step, so what goes on from a state ends as what was never
    interrupted. Raises `RecipeError` where the examples are fewer than a batch.
    """

    subject = ""  # whose training it is, before what a message says of it

    def __init__(self, recipe: Recipe, examples: Examples, augment: Augment, run: Run):
        self.recipe, self.run, self.process = recipe, run, run.process
        self.examples, self.augment = examples, augment
        self.batch = recipe.batch_size * self.process.world
        self.steps_in_epoch = examples.batches_in_epoch(recipe.batch_size, self.process.world)
        self.steps = self.steps_in_epoch * recipe.epochs
        self.step, self.seconds = 0, 0.0
        self.optimizer: torch.optim.Optimizer
        self._order = -1, np.zeros(0, dtype=np.int64)  # an epoch, and the order of its examples

    @abstractmethod
    def _advance(self, goal: int) -> bool:
        """Do what comes next, a step at the most; False when there is nothing left before step `goal`."""

    @abstractmethod
    def state(self) -> TrainingState:
        """All that a run of the same settings goes on from."""

    def train(self, until: int | None = None) -> None:
        """Go on to step `until`, by default to the end. Raises `KeyboardInterrupt` after the state was kept."""
        keep_freed()
        goal = self.steps if until is None else min(until, self.steps)
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
            return torch.optim.Adam(groups, lr=recipe.base_lr, weight_decay=recipe.weight_decay)
        decay, momentum = recipe.weight_decay, recipe.momentum
        return torch.optim.SGD(groups, lr=recipe.base_lr, momentum=momentum, weight_decay=decay, fused=fused)

    def _set_lr(self) -> None:
        rate = self.recipe.lr_at(self.step, self.steps)
        for group in self.optimizer.param_groups:
            group["lr"] = rate

    def _training_batch(self, random: np.random.Generator) -> Pair:
        """This process's part of the step's batch, augmented as the batch would be if one process took it whole."""
        places = self._places()
        inputs, labels = self.examples.batch(places)
        part = self.process.part(len(places))
        return self.augment(inputs, random)[part], labels[part]

    def _places(self) -> NDArray[np.int64]:
        """The step's examples, in the order of its epoch."""
        epoch, within = divmod(self.step, self.steps_in_epoch)
        if self._order[0] != epoch:
            random = generator_for(self.recipe.seed, f"order of epoch {epoch}")
            self._order = epoch, random.permutation(len(self.examples))
        return self._order[1][within * self.batch : (within + 1) * self.batch]

    def _seed_torch(self, random: np.random.Generator) -> None:
        """Make what the network draws itself, in dropout, a function of the generator."""
        seed_torch(int(random.integers(2**62)), self.process.device)

    def _check_finite(self, loss: float, step: int, where: str = "") -> None:
        if self.process.any(not math.isfinite(loss)):  # all stop at once: none waits for another in vain
            raise TrainingError(
                f"{self.subject}the loss{where} is no longer finite at step {step} of {self.steps}; give a smaller "
                f"{option('lr')} than {self.recipe.base_lr:g}"
            )
