"""Small labelled data for the methods that need some."""

from __future__ import annotations

import numpy as np


class Toy:
    """Gaussian inputs whose means depend on their class: a data set as `pai_cli.data.base.Dataset` has it."""

    def __init__(self, classes: int, shape: tuple[int, ...], per_class: int = 12, seed: int = 0) -> None:
        rng = np.random.default_rng(seed)
        self.name = "toy"
        self.classes = classes
        self.shape = shape if len(shape) == 3 else (1, 1, int(np.prod(shape)))
        self.labels = rng.permutation(np.repeat(np.arange(classes), per_class)).astype(np.int64)
        means = rng.standard_normal((classes, *self.shape))
        self._inputs = (rng.standard_normal((len(self.labels), *self.shape)) + means[self.labels]).astype(np.float32)
        self.asked: list[list[int]] = []

    def examples(self, indices: np.ndarray) -> np.ndarray:
        self.asked.append(np.asarray(indices).tolist())
        return self._inputs[indices]

    def __len__(self) -> int:
        return len(self.labels)
