"""The small data set that comes with scikit-learn: 8x8 images of digits.

Alpaydin and Kaynak 1998, https://doi.org/10.24432/C50P49 (its test set, which is the part that scikit-learn has).
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pai_cli.data.arrays import ArrayDataset
from pai_cli.data.extras import need
from pai_cli.data.normalise import measure

CLASSES = 10
WHITE = 16
EVERY = 5
"""Of each class, in stored order, every fifth example is for testing."""


def open_digits(path: Path, *, train: bool) -> ArrayDataset:
    """1,442 examples for training or 355 for testing, grey, 8x8; `path` is not looked at."""
    loaded = need("sklearn.datasets", "scikit-learn", "digits", str(path)).load_digits()
    stored = loaded.images.astype(np.uint8)[:, None]
    labels = loaded.target.astype(np.int64)
    tested = in_test(labels)
    normalisation = measure([stored[~tested]], WHITE)
    chosen = ~tested if train else tested
    return ArrayDataset("digits", CLASSES, labels[chosen], stored[chosen], normalisation)


def in_test(labels: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Which examples are for testing: of every class those at its places 4, 9, 14, ... (from 0), in stored order."""
    tested = np.zeros(len(labels), dtype=np.bool_)
    for label in range(CLASSES):
        tested[np.flatnonzero(labels == label)[EVERY - 1 :: EVERY]] = True
    return tested
