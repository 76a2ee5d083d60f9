"""Iterative magnitude pruning with rewinding: what training is worth knowing the end of, at the price of many trainings.

Frankle et al. 2020, "Linear mode connectivity and the lottery ticket hypothesis", https://arxiv.org/abs/1912.05671
"""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import torch

from pai_cli.errors import RecipeError
from pai_cli.methods.resume import check_rounds, kept_round
from pai_cli.progress import told_of
from pai_cli.pruning.base import Masks, ScoreContext, Scorer, Scores
from pai_cli.spelling import option
from pai_cli.training.examples import prepare
from pai_cli.training.loop import Run, Trainer
from pai_cli.training.model import check_outputs, dtype_of, trained_copy
from pai_cli.training.process import Process
from pai_cli.training.recipe import Optimizer, Recipe
from pai_cli.training.state import Tensors, TrainingState, check_alike, state_dict_of

if TYPE_CHECKING:
    from pai_cli.models.network import Network
    from pai_cli.pruning.trained import TrainingOptions

REWIND = 2.5
"""Epochs, about the 1,000 steps of the published rounds on CIFAR-10 in batches of 128."""


def make_scorer(context: ScoreContext) -> Scorer:
    """A scorer that trains from the rewinding point under the masks, and gives the weights' absolute values.

    Raises `RecipeError`, `TrainingError`, `DataError`, `DeviceError`.
    """
    return Rounds(context).score


class Rounds:
    """The rounds of one run: the first trains the whole network, each from the same `rewound` weights.

    Learning rates go on from the rewinding point as they were there; momentum begins at 0.
    """

    def __init__(self, context: ScoreContext):
        assert context.training is not None
        self.context, self.training = context, context.training
        self.network = _in_full_precision(context.network)
        self.recipe = _recipe(self.training.options, context.seed)
        self.data = prepare(self.training.dataset, None, self.recipe, context.input_shape, context.device)
        model = trained_copy(self.network, context.device)
        check_outputs(model, self.data.validation, self.network.description)
        self.steps_in_epoch = self.data.train.batches_in_epoch(self.recipe.batch_size)
        self.steps = self.steps_in_epoch * self.recipe.epochs
        self.point = self._rewinding_point()
        self.done = self.training.run.done
        self.rewound: Tensors = {}
        self._state: TrainingState | None = self.training.run.state  # of the round that was interrupted
        self._latest: tuple[Masks, Scores] | None = None  # of the round before: its masks, and what they gave
        if self._state is not None:
            with self.training.run.intact():
                check_rounds(self.training, {layer.name: layer.shape for layer in context.layers})
            self.rewound = self._state.part("rewound")
        self.training.run.story = {**self.recipe.story, "rewind_step": str(self.point)}

    def _rewinding_point(self) -> int:
        wanted = self.training.options.rewind
        epochs = REWIND if wanted is None else wanted
        point = round(epochs * self.steps_in_epoch)
        if point >= self.steps:
            raise RecipeError(
                f"{option('rewind', f'{epochs:g}')}: is not before the end of {self.recipe.epochs} epochs; give a "
                f"smaller one, or more {option('epochs')}"
            )
        return point

    def score(self, masks: Masks | None) -> Scores:
        """Train a round, from the state where there is one; masks that no round has changed are as they were then."""
        if self._latest is not None and masks is not None and _same(masks, self._latest[0]):
            self.done += 1
            return self._latest[1]
        trainer = Trainer(self.network, masks or {}, self.recipe, self.data, self._run(masks))
        if self._state is not None:
            with self.training.run.intact():
                self._take_up(trainer, self._state)
            self._state = None
        elif self.rewound:
            trainer.load(self._begun(masks or {}, trainer))
        if not self.rewound:
            trainer.train(self.point)
            self.rewound = state_dict_of(trainer.model)
        trainer.train()
        self.done += 1
        self.training.run.weights = self.rewound
        names = [layer.name for layer in self.context.layers]
        scores = Scores({name: trainer.model.get_parameter(name).detach().abs() for name in names})
        self._latest = masks or {}, scores
        return scores

    def _take_up(self, trainer: Trainer, state: TrainingState) -> None:
        """Put the trainer where the interrupted round stood. Raises `ValueError`, `KeyError` for what cannot be."""
        trainer.load(state)
        if self.rewound:
            check_alike(self.rewound, trainer.state().part("model"))
        elif self.done or trainer.step > self.point:
            raise ValueError("the weights to go back to are missing")

    def _begun(self, masks: Masks, trainer: Trainer) -> TrainingState:
        """The state at the rewinding point, under other masks and with no momentum."""
        state = TrainingState({})
        state.add("model", self.rewound)
        state.add("run", {"totals": torch.zeros_like(trainer.totals)})
        for part in ("masks", "explored"):
            state.add(part, {name: torch.from_numpy(mask) for name, mask in masks.items()})
        evaluated = self.point // self.steps_in_epoch
        state.facts = {
            "step": self.point,
            "evaluated": evaluated,
            "counted": 0,
            "seconds": 0.0,
            "best": [0, -1, 1, None],
        }
        return state

    def _run(self, masks: Masks | None) -> Run:
        """Where a round runs: its progress is of all rounds, and its state is kept with which round it is of."""
        kept, tell, rounds = self.training.run, self.training.progress, self.training.rounds
        each = self.steps - self.point
        before = self.done * each

        def progress(done: int, total: int, what: str = "") -> None:  # noqa: ARG001  (as `Progress` has it)
            tell(before + done, self.point + rounds * each, told_of(f"round {self.done + 1}/{rounds}, ", what))

        def keep(state: TrainingState) -> None:
            if kept.keep is not None:
                state.add("rewound", self.rewound)
                kept.keep(kept_round(state, self.done, masks))

        return Run(Process(device=self.context.device), progress, keep, kept.keep_every)


def _recipe(options: TrainingOptions, seed: int) -> Recipe:
    """The base recipe of `pai train`."""
    plain = Recipe(seed=seed)
    return replace(
        plain,
        epochs=options.epochs or plain.epochs,
        batch_size=options.batch_size or plain.batch_size,
        optimizer=Optimizer(options.optimizer or plain.optimizer),
        lr=options.lr,
    )


def _same(masks: Masks, others: Masks) -> bool:
    return masks.keys() == others.keys() and all(np.array_equal(masks[name], others[name]) for name in masks)


def _in_full_precision(network: Network) -> Network:
    """The network, or a copy in float32 of one in half precision."""
    if dtype_of(network.model).itemsize >= 4:
        return network
    return replace(network, model=copy.deepcopy(network.model).float())
