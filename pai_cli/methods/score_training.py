"""Training a score for every weight of a network whose weights stay as they are."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn

from pai_cli.methods.resume import check_rounds, kept_round
from pai_cli.methods.signed_constants import signed_constants
from pai_cli.pruning.base import Masks, ScoreContext
from pai_cli.pruning.trained import EPOCHS, TrainingContext
from pai_cli.random import generator_for
from pai_cli.training.examples import Examples, augmentation
from pai_cli.training.model import check_outputs, cross_entropy, dtype_of, logits_of, may_draw
from pai_cli.training.process import Process
from pai_cli.training.recipe import Augmentation, Optimizer, Recipe, Schedule
from pai_cli.training.run import Run
from pai_cli.training.said import epoch_over, in_epoch
from pai_cli.training.state import (
    TrainingState,
    check_parts,
    load_optimizer,
    number_in,
    optimizer_tensors,
    state_dict_of,
)
from pai_cli.training.steps import CHECK_EVERY, Steps

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pai_cli.files.tables import Record
    from pai_cli.models.network import PrunableLayer

USUAL_LR = {Optimizer.SGD: 0.1, Optimizer.ADAM: 0.01}
"""The published rates of scores: of ResNet-20 with SGD, of VGG-16 with Adam."""

Tensors = dict[str, torch.Tensor]


@dataclass(frozen=True)
class Kind:
    """What tells one search from another.

    `draw`: the first scores of a layer. `kept`: from scores and flags, which are 1 or 0, by layer, what takes part in a
    forward pass, 1 or 0. `clip`: whether scores are brought back to [0, 1] before each. `penalty`: lambda.
    """

    draw: Callable[[np.random.Generator, PrunableLayer], NDArray[np.float64]]
    kept: Callable[[Tensors, Tensors], Tensors]
    clip: bool
    penalty: float = 0.0


def scores_recipe(training: TrainingContext, seed: int) -> Recipe:
    """Half a cosine down to 0 over all epochs, momentum 0.9, no weight decay; the published batch of 128."""
    options = training.options
    optimizer = Optimizer(options.optimizer or Optimizer.SGD)
    return Recipe(
        epochs=options.epochs or EPOCHS,
        batch_size=options.batch_size or 128,
        optimizer=optimizer,
        lr=options.lr or USUAL_LR[optimizer],
        schedule=Schedule.COSINE,
        weight_decay=0.0,
        seed=seed,
    )


class ScoreTraining(Steps):
    """Scores in training, between two steps: weight w takes part as w * m, m = 1 or 0 by its score s and its flag f.

    The gradient of m by s is taken to be f (straight-through), so that of the loss is f * w * dL/d(w m), also where m is
    0 by its score; lambda * sum(s^2) over all scores adds 2 * lambda * s. `epochs`: how many will be trained, of those that
    the rate falls over. Raises `TrainingError`, `DeviceError`, `DataError`, `RecipeError`.
    """

    def __init__(self, context: ScoreContext, kind: Kind, epochs: int):
        assert context.training is not None
        self.context, self.training, self.kind, self.epochs = context, context.training, kind, epochs
        self.subject = f"{context.method}: "
        recipe, dataset, kept = scores_recipe(self.training, context.seed), self.training.dataset, self.training.run
        frozen = signed_constants(context.network, context.layers, context.device)
        kept.weights = state_dict_of(frozen)
        self.model = frozen.float() if dtype_of(frozen).itemsize < 4 else frozen
        examples = Examples(dataset, np.arange(len(dataset)), context.input_shape, context.device)
        augment = augmentation(Augmentation.AUTO, dataset, examples.shape)
        run = Run(Process(device=context.device), self.training.progress, kept.keep, kept.keep_every)
        super().__init__(recipe, examples, augment, run)
        check_outputs(self.model, examples, context.network.description)
        self.draws = may_draw(self.model)
        self.weights = {layer.name: self.model.get_parameter(layer.name) for layer in context.layers}
        self.constants: Tensors = {name: weight.detach().clone() for name, weight in self.weights.items()}
        self.flags: Tensors = {name: torch.ones_like(one) for name, one in self.constants.items()}
        self.scores = {layer.name: nn.Parameter(self._drawn(layer)) for layer in context.layers}
        for weight in self.weights.values():
            weight.requires_grad_(True)
        self.optimizer = self._optimizer_of(self.scores.values())
        self.accuracy: float | None = None  # this epoch's, or the last one's, as last looked at
        self.done = 0
        self.masks: Masks | None = None
        if kept.state is not None:
            with kept.intact():
                self.load(kept.state)

    def _drawn(self, layer: PrunableLayer) -> torch.Tensor:
        drawn = self.kind.draw(self.context.generator(f"scores {layer.name}"), layer)
        return torch.from_numpy(drawn).to(self.constants[layer.name])

    def freeze(self, masks: Masks) -> None:
        """Take these as the flags from now on; scores stay, and what a flag removes gets no gradient from the loss."""
        self.masks = masks
        for name, mask in masks.items():
            self.flags[name] = torch.from_numpy(mask).to(self.flags[name])

    def _advance(self, goal: int) -> bool:
        if self.step >= goal:
            return False
        self._one_step()
        self.step += 1
        over = self.step % self.steps_in_epoch == 0
        if (self.step - 1) % CHECK_EVERY == 0 or self.step == goal or over:
            self._look_and_tell(over=over)
        at = (self.step - 1) // self.steps_in_epoch + 1, self.epochs
        told = in_epoch(at, self.loss, self.accuracy, self._lr())
        self.run.progress(self.step, self.epochs * self.steps_in_epoch, told)
        return True

    def _lr(self) -> float:
        """Of the last step."""
        return self.recipe.lr_at(self.step - 1, self.steps)

    def _look_and_tell(self, *, over: bool) -> None:
        """Look at the totals, and tell of the epoch where it is over. The accuracy is that on what the scores learn by."""
        _, right = self._look(self.step)
        self.accuracy = right / (self.counted * self.batch)
        if not over:
            return
        record: Record = {
            "epoch": self.step // self.steps_in_epoch,
            "lr": self._lr(),
            "train_loss": self.loss,
            "train_accuracy": self.accuracy,
        }
        done = self.step - 1  # the step's own progress, which may end the bar, comes after this
        self.run.progress(done, self.epochs * self.steps_in_epoch, epoch_over(record, self.epochs))
        self._begin_epoch()

    def ranked(self) -> Tensors:
        """The scores as a forward pass would take them."""
        return {name: one.detach().clamp(0, 1) if self.kind.clip else one.detach() for name, one in self.scores.items()}

    def _one_step(self) -> None:
        self._set_lr()
        inputs, labels = self._training_batch()
        if self.draws:
            self._seed_torch(self._random_of(self.step))
        self.model.train()
        self.differentiate(inputs, labels)
        self.optimizer.step()

    def _random_of(self, step: int) -> np.random.Generator:
        return generator_for(self.recipe.seed, f"step {step} of the search")

    def _augmenting(self, step: int) -> np.random.Generator:
        random = self._random_of(step)
        random.integers(2**62)  # what the network draws by
        return random

    def differentiate(self, inputs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Clip the scores, and leave in them the gradient of loss and penalty, whose sum it gives, without a gradient."""
        self._take_part()
        for weight in self.weights.values():
            weight.grad = None
        logits = logits_of(self.model, inputs.to(dtype_of(self.model)))
        loss = cross_entropy(logits, labels)
        loss.backward()  # type: ignore[no-untyped-call]
        total = loss.detach()
        with torch.no_grad():
            found = {name: weight.grad for name, weight in self.weights.items() if weight.grad is not None}
            products = torch._foreach_mul(list(found.values()), [self.constants[name] for name in found])
            straight = dict(zip(found, products, strict=True))
            straight |= {name: torch.zeros_like(one) for name, one in self.scores.items() if name not in found}
            scores: list[torch.Tensor] = list(self.scores.values())
            gradients = [straight[name] for name in self.scores]
            torch._foreach_mul_(gradients, list(self.flags.values()))
            torch._foreach_add_(gradients, scores, alpha=2 * self.kind.penalty)
            for name, score in self.scores.items():
                score.grad = straight[name]
            if self.kind.penalty:
                for square in torch._foreach_mul(scores, scores):
                    total = total + self.kind.penalty * square.sum()
        self._count(total, logits.detach(), labels)
        return total

    def _take_part(self) -> None:
        """Write w * m into the model."""
        with torch.no_grad():
            if self.kind.clip:
                for score in self.scores.values():
                    score.clamp_(0, 1)
            kept = self.kind.kept({name: one.detach() for name, one in self.scores.items()}, self.flags)
            for name, weight in self.weights.items():
                torch.mul(self.constants[name], kept[name], out=weight.data)

    def state(self) -> TrainingState:
        """Scores, optimizer and buffers, how many steps and rounds are done, and the masks since the last round."""
        state = TrainingState({})
        state.add("scores", self.scores)
        state.add("optimizer", optimizer_tensors(self.optimizer))
        state.add("buffers", dict(self.model.named_buffers()))
        state.add("run", {"totals": self.totals})
        state.facts |= {"step": self.step, "counted": self.counted}
        return kept_round(state, self.done, self.masks)

    def load(self, state: TrainingState) -> None:
        """Go to where `state` was taken. Raises `ValueError`, `KeyError` for what cannot be."""
        check_rounds(self.training, {name: tuple(one.shape) for name, one in self.constants.items()})
        check_parts(state, self.state(), ("scores", "buffers", "run"))
        self.step = number_in(state.facts, "step", self.steps)
        self.counted = number_in(state.facts, "counted", self.steps_in_epoch)
        self.totals.copy_(state.part("run")["totals"])
        self.done = self.training.run.done
        with torch.no_grad():
            for name, tensor in state.part("scores").items():
                self.scores[name].copy_(tensor)
            buffers = dict(self.model.named_buffers())
            for name, tensor in state.part("buffers").items():
                buffers[name].copy_(tensor)
        load_optimizer(self.optimizer, state.part("optimizer"))
