"""Training a network under its masks: epochs, validation, and the state from which an interrupted run goes on bit for bit.

On a CPU that takes as many threads as before.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn

from pai_cli.errors import RecipeError
from pai_cli.files.messages import some_names
from pai_cli.pruning.base import Masks
from pai_cli.pruning.effective import unrolled
from pai_cli.random import generator_for
from pai_cli.spelling import option
from pai_cli.telling import note, warn
from pai_cli.training.applied import apply_masks
from pai_cli.training.dynamic import Arrays, MoveTies, share_of, spectrum
from pai_cli.training.examples import Examples, Pair, TrainingData
from pai_cli.training.model import (
    Score,
    check_amp,
    check_smoothing,
    cross_entropy,
    dtype_of,
    evaluate,
    has_idle,
    logits_of,
    may_draw,
    order_channels_last,
    trained_copy,
)
from pai_cli.training.moving import Moving
from pai_cli.training.recipe import Dynamic, Optimizer, Recipe
from pai_cli.training.rescale import ITERATIONS, Rescaling
from pai_cli.training.run import Best, Run, Stand, TrainResult
from pai_cli.training.said import epoch_over, in_epoch
from pai_cli.training.state import TrainingState, arrays_of, load_optimizer, optimizer_tensors, state_dict_of
from pai_cli.training.steps import CHECK_EVERY, Steps
from pai_cli.training.tost import EarlyParts

if TYPE_CHECKING:
    from pai_cli.files.tables import Record
    from pai_cli.models.network import Network
    from pai_cli.models.unrolled.paths import Unrolled

__all__ = ["Run", "TrainResult", "Trainer"]


class Trainer(Steps):
    """The training of a network under masks, between two of its steps.

    The network itself stays as it is: a copy is trained, its pruned weights at 0 all the time and in what comes out.
    `masks`: boolean arrays by parameter name; {} trains the whole network. The same request gives the same result. Raises
    `TrainingError`, `RecipeError`, `DeviceError`, `DataError`.
    """

    def __init__(self, network: Network, masks: Masks, recipe: Recipe, data: TrainingData, run: Run | None = None):
        super().__init__(recipe, data.train, data.augment, run or Run())
        self.data = data
        if recipe.amp:
            check_amp(self.process.device)
        check_smoothing(recipe.label_smoothing, data.classes)
        self.model = trained_copy(network, self.process.device)
        if recipe.amp:
            order_channels_last(self.model)
        self.dtype, self.draws = dtype_of(self.model), may_draw(self.model)
        if recipe.dynamic is not None:
            masks = self._by_layer(network, masks)
        self.moving = Moving(recipe, masks, network.layers, self._weights_of, self.steps)
        masks = self.moving.first
        self.masked = apply_masks(self.model, masks)
        self.layers = network.layers
        self.explored = {name: mask.copy() for name, mask in masks.items()}
        self.unrolled = self._unrolled(network) if recipe.dynamic is not None and self.process.first else None
        self.rescaling = self._make_rescaling() if recipe.rescale else None
        self.early = self._make_early()
        self.optimizer = self._make_optimizer()
        # Gradients are dense until the step: a moving mask grows by them.
        self.masked = apply_masks(self.model, masks, self.optimizer, dense_gradients=True)
        self.called = self._together()
        self.evaluated = 0
        self.tied = False  # whether equal scores of a moving mask were told of
        self.score: Score | None = None  # of the last epoch, on the examples held out
        self.best = Best()

    def _by_layer(self, network: Network, masks: Masks) -> Masks:
        """The masks under the names of the network's layers: a weight that modules share may be masked by another name."""
        layers = {id(self.model.get_parameter(layer.name)): layer.name for layer in network.layers}
        return {layers.get(id(self.model.get_parameter(name)), name): mask for name, mask in masks.items()}

    def _weights_of(self, masks: Masks) -> Arrays:
        """The network's own weights of these names."""
        return arrays_of({name: self.model.get_parameter(name) for name in masks})

    def _unrolled(self, network: Network) -> Unrolled | None:
        inputs, _ = self.data.validation.batch(np.zeros(1, dtype=np.int64))
        return unrolled(network.model, tuple(inputs.shape[1:]))

    def _make_optimizer(self) -> torch.optim.Optimizer:
        groups = [{"params": list(self.model.parameters())}]
        if self.early.ghosts is not None:  # last, so that the others keep their numbers when these go
            groups.append({"params": list(self.early.ghosts.parameters())})
        # On a CPU, PyTorch's fused SGD leaves most weights of half precision as they are (pytorch/pytorch#191763).
        wide = self.process.device != "cpu" or all(one.element_size() > 2 for one in self.model.parameters())
        return self._optimizer_of(groups, fused=True if wide and self.recipe.optimizer is Optimizer.SGD else None)

    def _make_early(self) -> EarlyParts:
        recipe, steps = self.recipe, self.recipe.early_steps(self.steps)
        if recipe.early_parts and steps == 0:
            raise RecipeError(
                f"{option(recipe.early_parts[0])}: no step is in the first {recipe.early:g} of {self.steps}; give more "
                f"{option('epochs')}, or a larger {option('early')}"
            )
        return EarlyParts(
            self.model, soft_neurons=recipe.soft_neurons, ghost_skips=recipe.ghost_skips, steps=max(1, steps)
        )

    def _together(self) -> nn.Module:
        if self.process.world == 1:
            return self.early.whole
        inputs, _ = self.data.validation.batch(np.zeros(1, dtype=np.int64))
        return self.process.together(self.early.whole, idle=has_idle(self.early.whole, inputs.to(self.dtype)))

    def _make_rescaling(self) -> Rescaling:
        if self.recipe.optimizer is not Optimizer.SGD:
            sgd, off = option("optimizer", "sgd"), option("rescale", False)
            raise RecipeError(f"{option('rescale')}: looks ahead by a step of SGD; give {sgd}, or {off}")
        return Rescaling(self.model, self.masked.tensors, self.recipe.base_lr, self._rescaling_batches)

    def _rescaling_batches(self, iteration: int) -> tuple[Pair, Pair]:
        """Two batches, and two of which the second is new; the same in every process, as each learns all the scales."""
        random = generator_for(self.recipe.seed, f"re-scaling, iteration {iteration}")
        count, size = len(self.data.train), self.batch
        places = random.choice(count, 3 * size, replace=count < 3 * size)
        inputs, labels = self.data.train.batch(places)
        inputs = self.data.augment(inputs, random)
        later = torch.cat([torch.arange(size), torch.arange(2 * size, 3 * size)]).to(inputs.device)
        return (inputs[: 2 * size], labels[: 2 * size]), (inputs[later], labels[later])

    @property
    def settled(self) -> bool:
        """Whether network, loss and mask are the final ones from here on, so that this epoch may be the best."""
        if self.recipe.steps is not None:  # asked for as it stands there, whether it was better before or not
            return self.step == self.end
        parts = set(self.recipe.early_parts) - set(self.early.absent)
        plain = not parts or self.step >= self.recipe.early_steps(self.steps)
        return plain and (self.recipe.dynamic is None or self.step > self.recipe.last_update(self.steps))

    def _advance(self, goal: int) -> bool:
        """One iteration of the re-scaling, one step, or the end of an epoch; False when there is nothing left."""
        if self.step == 0 and self.rescaling is not None and not self.rescaling.finished:
            self._rescale()
        elif self.evaluated < self._due:
            self._end_epoch()
        elif self.step < goal:
            self._one_step()
            self.step += 1
            self._fade()
            self.run.progress(self.step, self.end + 1, self._doing())
        else:
            return False
        return True

    @property
    def _due(self) -> int:
        """How many epochs are to be evaluated by now; where the training ends within one, that is one too."""
        whole, rest = divmod(self.step, self.steps_in_epoch)
        return whole + (rest > 0 and self.step == self.end)

    def _doing(self) -> str:
        at = min(self.evaluated + 1, self.recipe.epochs), self.recipe.epochs
        accuracy = None if self.score is None else self.score.accuracy
        return in_epoch(at, self.loss, accuracy, self.recipe.lr_at(self.step - 1, self.steps))

    def _rescale(self) -> None:
        assert self.rescaling is not None
        self.rescaling.iterate()
        done = self.rescaling.state.done
        self.run.progress(done, ITERATIONS + 1, "scales of the initialisation")
        if self.rescaling.finished:
            self.rescaling.apply(self.model)
            # Each process learnt them itself, and machines differ in rounding.
            self.process.from_first([parameter.detach() for parameter in self.model.parameters()])
            scales = self.rescaling.scales()
            self.tell(
                {
                    "rescaled": done,
                    "steps_to_bound": self.rescaling.state.counts[1],
                    "smallest_scale": min(scales.values()),
                    "largest_scale": max(scales.values()),
                    "seconds": self.seconds,
                }
            )

    def _fade(self) -> None:
        """Bring the early parts to where they are due at this step."""
        if self.early.present and self.early.at(self.step):
            for parameter in self.optimizer.param_groups.pop()["params"]:
                self.optimizer.state.pop(parameter, None)
            self.called = self._together()

    def _one_step(self) -> None:
        self._set_lr()
        if self.step == 0 and self.recipe.dynamic is not None:
            if self.process.first:
                self._tell_beginning()
            self._tell_spectrum(0.0, MoveTies())
        inputs, labels = self._training_batch()
        if self.draws:
            self._seed_torch(generator_for(self.recipe.seed, f"step {self.step} of process {self.process.rank}"))
        if not self.model.training:  # at first; evaluation leaves it as it was
            self.called.train()
        self.optimizer.zero_grad(set_to_none=True)
        logits = logits_of(self.called, inputs.to(self.dtype), amp=self.recipe.amp)
        early = self.step < self.recipe.early_steps(self.steps)
        loss = cross_entropy(logits, labels, self.recipe.label_smoothing if early else 0.0)
        loss.backward()  # type: ignore[no-untyped-call]
        if self.recipe.updates_at(self.step, self.steps):
            self._move_masks()
        else:
            self.optimizer.step()
        self._count(loss.detach(), logits.detach(), labels)
        if self.step % CHECK_EVERY == 0:
            self._look(self.step + 1)

    def _augmenting(self, step: int) -> np.random.Generator:
        return generator_for(self.recipe.seed, f"augmentation of step {step}")

    def _move_masks(self) -> None:
        """Move the mask by this step's gradients, which are still of all weights, kept or not."""
        weights, ties, before = self.masked.weights, MoveTies(), self.masked.masks
        gradients = arrays_of({name: one if one.grad is None else one.grad for name, one in weights.items()})
        for masks in self.moving.updated(before, arrays_of(weights), gradients, self.step, ties):
            self.masked.set(masks)
        self.explored = {name: seen | masks[name] for name, seen in self.explored.items()}
        emptied = [name for name, mask in before.items() if mask.any() and not masks[name].any()]
        if emptied and self.process.first:
            dynamic = option("dynamic", self.recipe.dynamic)
            warn(f"{dynamic}: at step {self.step} {some_names(emptied)} collapsed: no weight is kept there")
        self._tell_spectrum(self.recipe.moved_share(self.step, self.steps), ties)

    def _tell_beginning(self) -> None:
        """Say what is to be said of masks that move; where none of them does, it is a warning."""
        say = warn if self.fixed_layers == len(self.masked.masks) else note
        for line in self.moving.told:
            say(line)

    def _tell_spectrum(self, share: float, ties: MoveTies) -> None:
        if not self.process.first:
            return
        if str(ties) and not self.tied:
            note(
                f"{option('dynamic', self.recipe.dynamic)}: at step {self.step} {ties}: the first are taken, here and later"
            )
            self.tied = True
        masks = self.masked.masks
        weights = arrays_of(self.masked.weights)
        kept = sum(int(np.count_nonzero(mask)) for mask in masks.values())
        measures = spectrum(self.layers, masks, weights, self.unrolled, self.recipe.convention)
        told = {
            "step": self.step,
            "moved_share": share,
            "kept": kept,
            "explored": share_of(self.explored),
            "ablated": self.moving.ablated(masks) if self.recipe.dynamic is Dynamic.SRIGL else None,
            "pattern": self.recipe.facts["pattern"],
            "fixed_layers": self.fixed_layers,
            **ties.record,
        }
        self.tell({"mask_update": str(self.recipe.dynamic), **told, **measures})

    @property
    def fixed_layers(self) -> int | None:
        """How many masks no update moves; None where that is not known beforehand."""
        return None if self.moving.fixed is None else len(self.moving.fixed)

    def _end_epoch(self) -> None:
        lost, right = self._look(self.step)
        # Batch norm's statistics are each process's own: the first one's are the network's.
        self.process.from_first(list(self.early.whole.buffers()))
        self.score = score = self._score_of(self.data.validation)
        self._check_finite(score.loss, self.step, " on the examples held out")
        epoch = self.evaluated + 1
        if self.settled and self.best.beaten_by(score):
            self.best = Best(epoch, score, state_dict_of(self.model))
        loss, right = self.process.sum([lost, right])
        record: Record = {
            "epoch": epoch,
            "step": self.step,
            "lr": self.recipe.lr_at(self.step - 1, self.steps),
            "train_loss": loss / self.counted / self.process.world,
            "train_accuracy": right / (self.counted * self.batch),
            "validation_loss": score.loss,
            "validation_accuracy": score.accuracy,
            "settled": self.settled,
            "best_epoch": self.best.epoch or None,
            "seconds": self.seconds,
        }
        self.tell(record)
        self.run.progress(self.step, self.end + 1, epoch_over(record, self.recipe.epochs))
        self._begin_epoch()
        self.evaluated = epoch

    def _score_of(self, examples: Examples) -> Score:
        every = slice(self.process.rank, None, self.process.world)
        # Without gradients, two batches take less memory than a step.
        batches = examples.in_order(2 * self.recipe.batch_size, every)
        return evaluate(self.early.whole, batches, amp=self.recipe.amp, process=self.process)

    def tell(self, record: Record) -> None:
        """Record numbers, in the first process."""
        if self.process.first:
            self.run.record(record)

    def state(self) -> TrainingState:
        """All that a run of the same settings goes on from."""
        state = TrainingState({})
        state.add("model", state_dict_of(self.model))
        state.add("optimizer", optimizer_tensors(self.optimizer))
        state.add("best", self.best.tensors)
        state.add("run", {"totals": self.totals})
        state.add("masks", {name: torch.from_numpy(mask) for name, mask in self.masked.masks.items()})
        state.add("explored", {name: torch.from_numpy(mask) for name, mask in self.explored.items()})
        if self.early.ghosts is not None:
            state.add("ghosts", state_dict_of(self.early.ghosts))
        if self.rescaling is not None:
            state.add("rescaling", self.rescaling.tensors())
        score = self.best.score
        state.facts = {
            "step": self.step,
            "evaluated": self.evaluated,
            "counted": self.counted,
            "seconds": self.seconds,
            "best": [self.best.epoch, score.correct, score.count, score.loss if self.best.epoch else None],
        }
        return state

    def load(self, state: TrainingState) -> None:
        """Go to where `state` was taken, by a run of the same settings. Raises `ValueError`, `KeyError` for another's."""
        stand = Stand.of(state, self.end, self.steps_in_epoch)
        self.step, self.evaluated, self.seconds, self.best = stand.step, stand.evaluated, stand.seconds, stand.best
        self.counted = stand.counted
        self._fade()  # first, so that the parts and the optimizer's groups are those of that step
        stand.check_tensors(state, self.state())
        # Before the weights: a loaded weight is kept where the mask of then has it.
        self.masked.set({name: mask.numpy() for name, mask in state.part("masks").items()})
        self.model.load_state_dict(state.part("model"))
        if self.early.ghosts is not None:
            self.early.ghosts.load_state_dict(state.part("ghosts"))
        if self.rescaling is not None:
            self.rescaling.load(state.part("rescaling"))
        self.explored = {name: mask.numpy() for name, mask in state.part("explored").items()}
        load_optimizer(self.optimizer, state.part("optimizer"))
        self.totals.copy_(state.part("run")["totals"])

    def finish(self) -> TrainResult:
        """The result; the test part, where there is one, is looked at here and only here, with the best epoch."""
        last = state_dict_of(self.model)
        test = None
        if self.data.test is not None and self.best.epoch:
            self.model.load_state_dict(self.best.tensors)
            test = self._score_of(self.data.test)
            self.model.load_state_dict(last)
        best, masks = self.best, self.masked.masks
        return TrainResult(best.tensors or last, last, masks, best.epoch, best.score, test, self.seconds)
