"""From stored values to what networks are fed: scaled to [0, 1], less the mean, over the standard deviation, by channel.

Floats are taken as they are, as whoever stored them has made of them what is to be fed.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Normalisation:
    """(value / white - mean) / std, a channel at a time.

    `white` is the stored value that becomes 1; `mean` and `std` have one entry a channel and are of the scaled values;
    `source` says where they are from.
    """

    white: float
    mean: tuple[float, ...]
    std: tuple[float, ...]
    source: str

    def apply(self, values: NDArray[Any]) -> NDArray[np.float32]:
        """(N, C, H, W) of any number type -> float32 of the same shape."""
        out = values.astype(np.float32)
        out /= np.float32(self.white)
        out -= _by_channel(self.mean)
        out /= _by_channel(self.std)
        return out

    def stated(self) -> str:
        """The transform in one line, for people and for metadata."""
        if self.source == AS_STORED:
            return f"values {AS_STORED}"
        mean, std = (", ".join(f"{one:.4f}" for one in some) for some in (self.mean, self.std))
        scaled = "" if self.white == 1 else f"divided by {self.white:g}, "
        return f"{scaled}mean ({mean}) subtracted, divided by std ({std}); {self.source}"


def _by_channel(values: tuple[float, ...]) -> NDArray[np.float32]:
    return np.asarray(values, dtype=np.float32).reshape(1, -1, 1, 1)


MEASURED = "measured on the training set"
AS_STORED = "taken as they are"

WHITE = {"uint8": 255.0, "uint16": 65535.0}
"""What becomes 1; values of other types are not scaled."""

# Over all pixels of the training images, as torchvision, timm and others state them. For CIFAR-10 many scripts divide by
# (0.2023, 0.1994, 0.2010), which is the mean over images of each image's own deviation, and not this.
CIFAR = {
    "cifar-10": Normalisation(255, (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616), "published for CIFAR-10"),
    "cifar-100": Normalisation(255, (0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762), "published for CIFAR-100"),
}
IMAGENET = Normalisation(255, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225), "published for ImageNet")


def measure(chunks: Iterable[NDArray[Any]], white: float, source: str = MEASURED) -> Normalisation:
    """Mean and (population) standard deviation of each channel over all chunks of shape (k, C, H, W), in float64.

    A channel that is constant has no deviation to divide by: its `std` is 1, so that it becomes 0.
    """
    count, mean, squares = 0, np.zeros(1), np.zeros(1)
    for chunk in chunks:
        values = chunk.astype(np.float64) / white
        size = values.size // values.shape[1]
        own = values.mean(axis=(0, 2, 3))
        # Means and squared deviations of two sets make those of both (Chan, Golub, LeVeque 1983): one pass, and no
        # cancellation where the values are large and alike.
        apart, total = own - mean, count + size
        squares = squares + np.square(values - own.reshape(1, -1, 1, 1)).sum(axis=(0, 2, 3))
        squares = squares + np.square(apart) * (count * size / total)
        mean, count = mean + apart * (size / total), total
    std = np.sqrt(squares / count)
    std[std <= np.finfo(np.float32).eps * np.abs(mean)] = 1
    return Normalisation(white, tuple(mean.tolist()), tuple(std.tolist()), source)


def as_stored(chunks: Iterable[NDArray[Any]]) -> Normalisation:
    """What leaves every value as it is, of chunks as `measure` takes them, which are read for the faults they may raise."""
    (channels,) = {chunk.shape[1] for chunk in chunks}
    return Normalisation(1.0, (0.0,) * channels, (1.0,) * channels, AS_STORED)
