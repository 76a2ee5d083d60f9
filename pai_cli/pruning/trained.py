"""What methods that train are told, and what they tell: their options, where a run goes on, the weights of the ticket.

Imports nothing heavy, and nothing of how they train: that is theirs.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from pai_cli.errors import MethodOptionError
from pai_cli.spelling import option

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray

    from pai_cli.data.base import Dataset
    from pai_cli.progress import Progress

EPOCHS, FREEZE_EVERY = 150, 5
"""Of Gem-Miner's and edge-popup's published recipes for ResNet-20."""

KEPT_A_ROUND = 0.8
"""The share of the weights that a round of iterative magnitude pruning keeps, where nobody says how many rounds."""


@dataclass(frozen=True)
class TrainingOptions:
    """How a method that trains trains; None leaves a number to the method.

    `epochs`: of the search, or of each round. `freeze_every`: epochs between freezes. `penalty`: lambda of
    lambda * sum(s^2). `rewind`: epochs, which need not be whole. `optimizer`: "sgd" or "adam". Raises `MethodOptionError`
    for a number out of range.
    """

    epochs: int | None = None
    freeze_every: int | None = None
    penalty: float | None = None
    rewind: float | None = None
    optimizer: str | None = None
    lr: float | None = None
    batch_size: int | None = None

    def __post_init__(self) -> None:
        """Raise `MethodOptionError` for a number out of range."""
        for name in ("epochs", "freeze_every", "batch_size"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise MethodOptionError(f"{option(name, value)}: must be 1 or more")
        for name in ("penalty", "rewind"):
            value = getattr(self, name)
            if value is not None and not (math.isfinite(value) and value >= 0):
                raise MethodOptionError(f"{option(name, f'{value:g}')}: must be 0 or more, and finite")
        if self.lr is not None and not (math.isfinite(self.lr) and self.lr > 0):
            raise MethodOptionError(f"{option('lr', f'{self.lr:g}')}: must be above 0, and finite")

    def given(self) -> dict[str, int | float | str]:
        """What was asked for, by field."""
        return {name: value for name, value in asdict(self).items() if value is not None}


def freezes(options: TrainingOptions, density: float) -> int:  # noqa: ARG001  (what a registry row calls)
    """How often Gem-Miner freezes: K = floor((E-1)/P) times in E epochs, every P. Raises `MethodOptionError` for none."""
    epochs, every = options.epochs or EPOCHS, options.freeze_every or FREEZE_EVERY
    if every >= epochs:
        raise MethodOptionError(
            f"{option('freeze_every', every)}: no freeze comes in {epochs} epochs; give more {option('epochs')}, or a "
            f"smaller {option('freeze_every')}"
        )
    return (epochs - 1) // every


def usual_rounds(options: TrainingOptions, density: float) -> int:  # noqa: ARG001  (what a registry row calls)
    """As many rounds as it takes when each removes at most a fifth of what is left, as the published ones do."""
    return max(1, math.ceil(math.log(density) / math.log(KEPT_A_ROUND) - 1e-9))


@dataclass
class TrainingRun:
    """One run of a method that trains, and where it goes on.

    `keep` is given the state every `keep_every` seconds and when the run is interrupted. `state`: to go on from, as it was
    kept in round `done` + 1, which began with `masks`; `intact`: around its use, what makes of what is stumbled over in it
    the error that names its file. The method leaves `weights`, the tensors that the mask belongs to
    by state-dict name, and `story`, what a mask file should tell of the training.
    """

    keep: Callable[[Any], None] | None = None
    intact: Callable[[], AbstractContextManager[None]] = nullcontext
    keep_every: float = 600.0
    state: Any = None
    done: int = 0
    masks: dict[str, NDArray[np.bool_]] | None = None
    weights: dict[str, torch.Tensor] = field(default_factory=dict)
    story: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class TrainingContext:
    """What a method that trains may look at besides: all of the `dataset`, and how many `rounds` it is called for.

    `density`: what the run keeps in the end; of layers that have their own, the smallest.
    """

    options: TrainingOptions
    dataset: Dataset
    rounds: int
    density: float
    progress: Progress
    run: TrainingRun
