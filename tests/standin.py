"""Small labelled data for the methods that need some; and where the package has no data sets yet, the least of those."""

from __future__ import annotations

import sys
from importlib.util import find_spec
from types import ModuleType

import numpy as np

from pai_cli import errors


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


def install() -> None:
    """Stand in for `pai_cli.data` where there is none."""
    if find_spec("pai_cli.data") is not None:
        return
    from dataclasses import make_dataclass

    if not hasattr(errors, "DataError"):
        errors.DataError = type("DataError", (errors.PaiError,), {})

    batch = make_dataclass("Batch", ["inputs", "labels"])

    def choose(dataset, per_class, seed):
        rng = np.random.default_rng(seed)
        taken = [rng.permutation(np.flatnonzero(dataset.labels == k))[:per_class] for k in range(dataset.classes)]
        return np.sort(np.concatenate(taken)).astype(np.int64)

    def batch_for(dataset, indices, input_shape):
        return batch(dataset.examples(indices).reshape(len(indices), *input_shape), dataset.labels[indices])

    def check_classes(dataset, outputs, where):
        if outputs != dataset.classes:
            raise errors.DataError(
                f"{where}: the network has {outputs} outputs, but {dataset.name} has {dataset.classes} classes"
            )

    def open_dataset(spec, *, train=True):
        raise errors.DataError(f"{spec}: no such file or folder")

    parts = {"": {}, ".base": {"Batch": batch, "Dataset": object}, ".registry": {"open_dataset": open_dataset}}
    parts[".batches"] = {"choose": choose, "batch_for": batch_for, "check_classes": check_classes}
    for name, contents in parts.items():
        module = ModuleType(f"pai_cli.data{name}")
        module.__dict__.update(contents)
        sys.modules[module.__name__] = module
