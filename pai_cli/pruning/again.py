"""Pruning again, with the weights changed in their last digits."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import torch

from pai_cli.errors import MethodOptionError, ScoreError
from pai_cli.progress import Progress, told_of
from pai_cli.pruning.base import Masks
from pai_cli.pruning.run import PruneRequest, choose_masks
from pai_cli.pruning.sanity import with_weights
from pai_cli.pruning.stability import Stability
from pai_cli.random import generator_for
from pai_cli.spelling import option

if TYPE_CHECKING:
    from pai_cli.data.base import Dataset
    from pai_cli.models.network import Network


@dataclass
class Again:
    """What prunings of perturbed weights keep of `masks`, as far as they are made.

    `prunings`: how many are wanted. `stable`: the weights that all of them keep. `failed`: why the method could not make
    some.
    """

    masks: Masks
    prunings: int
    perturbation: float
    stable: Masks = field(init=False)
    shared: list[dict[str, int]] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Before the first, all is stable."""
        self.stable = self.masks

    def add(self, masks: Masks) -> None:
        """Take note of one more."""
        self.shared.append(_counts({name: mask & masks[name] for name, mask in self.masks.items()}))
        self.stable = {name: stable & masks[name] for name, stable in self.stable.items()}

    def result(self) -> Stability | None:
        """What they found; None where none was made."""
        if not self.shared:
            return None
        found = (_counts(self.masks), tuple(self.shared), _counts(self.stable))
        return Stability(self.perturbation, *found, failed=len(self.failed))


def prune_again(
    network: Network, request: PruneRequest, again: Again, progress: Progress, dataset: Dataset | None
) -> None:
    """Prune as the request says, as many times as are wanted, each time with other weights, which `perturbed` makes.

    Seeds and samples are the request's, so that the weights alone differ. What is made is in `again`, also when it is
    interrupted. Raises what `prune` raises, except that a `ScoreError` is noted there.
    """
    for number in range(again.prunings):

        def show(done: int, total: int, what: str = "", number: int = number) -> None:
            told = f"{number + 1}/{again.prunings} prunings"
            progress(number * total + done, again.prunings * total, told_of(f"{told}: ", what) if what else told)

        twin = perturbed(network, again.perturbation, request.seed, number)
        try:
            again.add(choose_masks(twin, request, show, dataset)[0])
        except ScoreError as error:
            again.failed.append(error.text)


def perturbed(network: Network, perturbation: float, seed: int, number: int) -> Network:
    """A copy of the network in which each prunable weight w is w (1 + perturbation u), rounded to its precision.

    u is uniform in [-1, 1), a function of the seed, the number and the layer's name. What is 0 stays 0. Raises what
    `check_perturbation` raises.
    """
    check_perturbation(network, perturbation)
    weights = {}
    for layer in network.layers:
        weight = network.parameter(layer.name).detach()
        u = torch.from_numpy(generator_for(seed, f"perturbation {number}: {layer.name}").uniform(-1, 1, layer.shape))
        weights[layer.name] = (weight.double() * (1 + perturbation * u)).to(weight.dtype)
    return with_weights(network, weights)


def check_perturbation(network: Network, perturbation: float) -> None:
    """Raise `MethodOptionError` where it is less than the weights' precision tells apart, and would change none."""
    for layer in network.layers:
        weight = network.parameter(layer.name)
        least = torch.finfo(weight.dtype).eps
        if perturbation < least:
            dtype = str(weight.dtype).removeprefix("torch.")
            raise MethodOptionError(
                f"{option('perturbation', f'{perturbation:g}')}: is less than {dtype}, in which {layer.name} is, tells "
                f"apart; give {least:.2g} or more"
            )


def _counts(masks: Masks) -> dict[str, int]:
    return {name: int(np.count_nonzero(mask)) for name, mask in masks.items()}
