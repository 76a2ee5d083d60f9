"""What the steps of an epoch train with, sent to the device once: no step sends anything, or waits for what it sent."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from pai_cli.compute.device import sent
from pai_cli.training.examples import Augment, Examples, Pair


class Feed:
    """The batches of consecutive steps.

    `places`: (steps, batch), of the examples. `drawn`: (steps, 2, batch), what their augmentation drew; None without one.
    """

    def __init__(
        self,
        examples: Examples,
        augment: Augment,
        places: NDArray[np.int64],
        drawn: NDArray[np.int64] | None,
        device: str,
    ):
        self._examples, self._augment, self._places = examples, augment, places
        self._where = sent(torch.from_numpy(np.ascontiguousarray(places)), device)
        self._drawn = None if drawn is None else sent(torch.from_numpy(np.ascontiguousarray(drawn)), device)

    def batch(self, step: int) -> Pair:
        """Inputs, augmented, and labels of one of the steps, from 0."""
        inputs, labels = self._examples.batch(self._places[step], self._where[step])
        return inputs if self._drawn is None else self._augment.taken(inputs, self._drawn[step]), labels
