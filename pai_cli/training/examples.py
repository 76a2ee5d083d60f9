"""What a network is trained and judged on: three parts of a data set, batches in a seeded order, augmentation."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from pai_cli.compute.device import sent
from pai_cli.data.batches import batch_for, told_inputs
from pai_cli.data.images import ImageDataset
from pai_cli.errors import DataError, RecipeError
from pai_cli.random import generator_for
from pai_cli.spelling import option
from pai_cli.training.recipe import Augmentation, Recipe

if TYPE_CHECKING:
    from pai_cli.data.base import Dataset

IN_MEMORY = 2**31
"""Bytes of inputs up to which a part is held as the network takes it; a larger one is made batch by batch."""

CHUNK = 1024
"""Examples read at a time when a part is put into memory."""

Pair = tuple[torch.Tensor, torch.Tensor]


class Examples:
    """Some examples of a data set, as inputs of the network on the device: of shape `shape`, with int64 labels."""

    def __init__(self, dataset: Dataset, indices: NDArray[np.int64], shape: tuple[int, ...] | None, device: str):
        self.dataset, self._indices, self._shape, self._device = dataset, indices, shape, device
        first = self._read(indices[:1])
        self.shape: tuple[int, ...] = tuple(first.shape[1:])
        self._labels = torch.from_numpy(dataset.labels[indices]).to(device)
        self._held: torch.Tensor | None = None
        if first.nelement() * first.element_size() * len(indices) <= IN_MEMORY:
            starts = range(0, len(indices), CHUNK)
            self._held = torch.cat([self._read(indices[at : at + CHUNK]) for at in starts]).to(device)

    def _read(self, indices: NDArray[np.int64]) -> torch.Tensor:
        return torch.from_numpy(batch_for(self.dataset, indices, self._shape).inputs)

    def batch(self, places: NDArray[np.int64], where: torch.Tensor | None = None) -> Pair:
        """Inputs and labels at these places, each from 0 to the number of examples. Raises `DataError`.

        `where`: the same places, where the device has them already.
        """
        if where is None:
            where = sent(torch.from_numpy(places), self._device)
        if self._held is not None:
            return self._held[where], self._labels[where]
        return sent(self._read(self._indices[places]), self._device), self._labels[where]

    def in_order(self, size: int, every: slice = slice(None)) -> Iterator[Pair]:
        """Batches of at most `size` of the examples that `every` takes, in order."""
        places = np.arange(len(self))[every]
        for start in range(0, len(places), size):
            part = slice(start, start + size)
            if self._held is None:
                yield self.batch(places[part])
            else:  # a copy, as a network may write over what it is given
                yield self._held[every][part].clone(), self._labels[every][part]

    def batches_in_epoch(self, size: int, world: int = 1) -> int:
        """How many batches of `size` for each of `world` processes an epoch has; what is left over is another each epoch.

        Raises `RecipeError` for 0.
        """
        if size * world > len(self):
            together = f" for each of {world} processes" if world > 1 else ""
            raise RecipeError(
                f"{option('batch_size', size)}{together}: {self.dataset.name} has {len(self)} examples to train with; "
                "give a smaller one"
            )
        return len(self) // (size * world)

    def __len__(self) -> int:
        """How many examples there are."""
        return len(self._indices)


@dataclass(frozen=True)
class Augment:
    """Random changes of training images, the same numbers for the same seed, epoch and step on any device.

    `pad`: so many pixels of 0 (the mean colour) are put around, and a window of the old size is taken anywhere in it.
    `flip`: left and right are exchanged with probability 1/2.
    """

    pad: int = 0
    flip: bool = False

    def __call__(self, images: torch.Tensor, random: np.random.Generator) -> torch.Tensor:
        """(N, C, H, W) -> the same shape."""
        if not self.changes(images.shape[1:]):
            return images
        drawn = self.drawn(random, len(images), images.shape[3])
        return self.taken(images, sent(torch.from_numpy(drawn), str(images.device)))

    def changes(self, shape: tuple[int, ...]) -> bool:
        """Whether anything is done to inputs of this shape."""
        return (self.pad > 0 or self.flip) and len(shape) == 3

    def drawn(self, random: np.random.Generator, count: int, width: int) -> NDArray[np.int64]:
        """What is drawn for so many images, (2, count): where in a padded image the window begins, and 1 to turn it."""
        tops, lefts = random.integers(0, 2 * self.pad + 1, (2, count))
        turned = random.random(count) < 0.5 if self.flip else np.zeros(count)
        return np.stack([tops * (width + 2 * self.pad) + lefts, turned.astype(np.int64)])

    def taken(self, images: torch.Tensor, drawn: torch.Tensor) -> torch.Tensor:
        """(N, C, H, W) -> the same shape, by what was drawn, on the device of the images."""
        count, channels, height, width = images.shape
        begins, turned = drawn
        padded = torch.nn.functional.pad(images, (self.pad,) * 4).flatten(2)
        # One gather of whole examples: (N, H W) places in an image of (H + 2 pad) x (W + 2 pad).
        places = _windows(height, width, self.pad, str(images.device)).index_select(0, turned) + begins[:, None]
        return padded.gather(2, places[:, None].expand(-1, channels, -1)).reshape(count, channels, height, width)

    def stated(self) -> str:
        """What is done, in words."""
        parts = [f"random crops of images padded by {self.pad}"] * bool(self.pad) + ["random flips"] * self.flip
        return " and ".join(parts) or "none"


@cache
def _windows(height: int, width: int, pad: int, device: str) -> torch.Tensor:
    """(2, H W): the places of a window at the beginning of a padded image, as it is and turned from left to right."""
    rows, columns = np.arange(height)[:, None] * (width + 2 * pad), np.arange(width)
    both = np.stack([(rows + columns).reshape(-1), (rows + columns[::-1]).reshape(-1)])
    return sent(torch.from_numpy(both), device)


def augmentation(choice: Augmentation, dataset: Dataset, shape: tuple[int, ...]) -> Augment:
    """The augmentation asked for, of inputs of this shape; `pad` is an eighth of the height, 4 of 32.

    `auto` is crops and flips for CIFAR and for colour images in files, and none for anything else: a digit's mirror image
    is no digit. Raises `RecipeError` for flat inputs.
    """
    if choice is Augmentation.AUTO:
        colour = isinstance(dataset, ImageDataset) and dataset.mode == "RGB"
        usual = dataset.name in ("cifar-10", "cifar-100") or colour
        choice = Augmentation.CROP_FLIP if usual and len(shape) == 3 else Augmentation.NONE
    if choice is Augmentation.NONE:
        return Augment()
    if len(shape) != 3 or shape[1] < 2:
        raise RecipeError(
            f"{option('augment', choice)}: the network's inputs are no images; leave {option('augment')} out"
        )
    return Augment(max(1, shape[1] // 8), flip=choice is Augmentation.CROP_FLIP)


@dataclass(frozen=True)
class TrainingData:
    """The parts of a data set: `train`, the `validation` part held out of it, and `test`, None where none is looked at."""

    classes: int
    train: Examples
    validation: Examples
    test: Examples | None
    augment: Augment

    @property
    def told(self) -> str:
        """The sizes of the parts, what is made of an example, and what is changed at random, in one line."""
        sizes = {"to train with": self.train, "held out": self.validation, "to test": self.test}
        parts = ", ".join(f"{len(part):,} {what}" for what, part in sizes.items() if part is not None)
        dataset = self.train.dataset
        inputs = told_inputs(dataset, self.train.shape)
        return f"{dataset.name}: {parts}; {inputs}; augmentation: {self.augment.stated()}"


def prepare(
    train: Dataset, test: Dataset | None, recipe: Recipe, shape: tuple[int, ...] | None, device: str = "cpu"
) -> TrainingData:
    """The parts as a network takes them, on the device; `shape` is of one input, None as the data has it.

    Of every class, round(validation * count) training examples chosen by the seed are held out, at least one of two or
    more. Raises `DataError` when nothing is held out, or the data does not fit; `RecipeError`, also when all is.
    """
    held_out = _held_out(train, recipe)
    if held_out.all():
        raise RecipeError(
            f"{option('validation', f'{recipe.validation:g}')}: leaves none of the {len(train)} examples of {train.name} to "
            "train with; give a smaller share, or more data"
        )
    if not held_out.any():
        raise DataError(f"{train.name}: {len(train)} examples are too few to hold some out; give more data")
    training = Examples(train, np.flatnonzero(~held_out), shape, device)
    validation = Examples(train, np.flatnonzero(held_out), shape, device)
    tested = None if test is None else Examples(test, np.arange(len(test)), shape, device)
    augment = augmentation(recipe.augment, train, training.shape)
    return TrainingData(train.classes, training, validation, tested, augment)


def _held_out(dataset: Dataset, recipe: Recipe) -> NDArray[np.bool_]:
    chosen = np.zeros(len(dataset), dtype=np.bool_)
    random = generator_for(recipe.seed, "validation")
    for label in range(dataset.classes):
        members = random.permutation(np.flatnonzero(dataset.labels == label))
        count = max(int(recipe.validation * len(members) + 0.5), 1) if len(members) > 1 else 0
        chosen[members[:count]] = True
    return chosen
