"""Small trainings for the tests: networks, masks and data on which a step takes milliseconds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from networks import wrap
from standin import Toy
from torch import nn

from pai_cli.files.journal import PRUNE, beside
from pai_cli.models.network import Network
from pai_cli.models.residual import ResidualNetwork, ResidualSpec
from pai_cli.pruning.base import Masks
from pai_cli.training.examples import TrainingData, prepare
from pai_cli.training.loop import Run, Trainer, TrainResult
from pai_cli.training.recipe import Dynamic, Recipe
from pai_cli.training.state import TrainingState, keep_state, kept_state

CLASSES, SIDE = 4, 6


def residual(seed: int = 0) -> Network:
    """A ResNet of pai's own, three stages of 4, 8 and 16 channels, with 1x1 shortcuts."""
    torch.manual_seed(seed)
    spec = ResidualSpec((1, 1, 1), (4, 8, 16), shortcut="shortcut", head="linear", classes=CLASSES)
    return wrap(ResidualNetwork(spec, lambda _: None), (3, SIDE, SIDE))


def bottleneck(seed: int = 0) -> Network:
    torch.manual_seed(seed)
    spec = ResidualSpec((1, 1), (4, 8), bottleneck=True, shortcut="shortcut", head="linear", classes=CLASSES)
    return wrap(ResidualNetwork(spec, lambda _: None), (3, SIDE, SIDE))


def with_dropout(seed: int = 0) -> Network:
    """Convolutions without batch norm, in-place ReLUs, dropout."""
    torch.manual_seed(seed)
    model = nn.Sequential(
        nn.Conv2d(3, 6, 3, padding=1),
        nn.ReLU(inplace=True),
        nn.Dropout(0.3),
        nn.Conv2d(6, 6, 3, padding=1, groups=2),
        nn.ReLU(inplace=True),
        nn.Flatten(),
        nn.Linear(6 * SIDE * SIDE, CLASSES),
    )
    return wrap(model, (3, SIDE, SIDE))


def masks_of(network: Network, density: float = 0.4, seed: int = 1) -> Masks:
    random = np.random.default_rng(seed)
    return {layer.name: random.random(layer.shape) < density for layer in network.layers}


def batch_of(run: Trainer) -> tuple[torch.Tensor, torch.Tensor]:
    """The batch of the step that the run would do next."""
    return run._training_batch()


def toy(per_class: int = 20, seed: int = 0, means: int = 0) -> Toy:
    """Images of four classes; `seed` draws the examples, and those of one `means` are of the same classes."""
    data = Toy(CLASSES, (3, SIDE, SIDE), per_class, means)
    if seed:
        noise = np.random.default_rng(seed).standard_normal(data._inputs.shape)
        data._inputs = data._inputs + 0.3 * noise.astype(np.float32)
    return data


SMALL = {"epochs": 4, "batch_size": 16, "lr": 0.05}
TOST = {"soft_neurons": True, "ghost_skips": True, "rescale": True, "label_smoothing": 0.1}
RIGL = {"dynamic": Dynamic.RIGL, "update_every": 2}


def recipe(**options: Any) -> Recipe:
    return Recipe(**{**SMALL, **options})


def data_for(wish: Recipe, network: Network, *, test: bool = True) -> TrainingData:
    return prepare(toy(), toy(6, seed=5) if test else None, wish, network.input_shape)


def trainer(network: Network, masks: Masks, wish: Recipe, run: Run | None = None) -> Trainer:
    return Trainer(network, masks, wish, data_for(wish, network), run)


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
    """What a training of a copy of the network ends with: from `state`, where there is one, or to step `until`."""
    one = Trainer(network, masks, recipe, data, run)
    if state is not None:
        one.load(state)
    one.train(until)
    return one.finish()


def through_a_file(state: TrainingState, folder: Path) -> TrainingState:
    """The state as it comes back from disk."""
    journal = beside(PRUNE, folder / "a", {})
    keep_state(journal, state)
    kept = journal.resume()
    assert kept is not None
    return kept_state(journal, kept)


def equal(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    """Whether the same names have the same bits."""
    return one.keys() == other.keys() and all(
        torch.equal(a.contiguous().view(torch.uint8), other[name].contiguous().view(torch.uint8))
        if a.dim()
        else torch.equal(a, other[name])
        for name, a in one.items()
    )
