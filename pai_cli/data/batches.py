"""Which examples to take, and how they are made to fit a network."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from pai_cli.data.base import Batch
from pai_cli.data.normalise import AS_STORED, Normalisation
from pai_cli.errors import DataError, ParameterError
from pai_cli.spelling import option

if TYPE_CHECKING:
    from pai_cli.data.base import Dataset

LUMA = (0.299, 0.587, 0.114)
"""How much red, green and blue count where colour becomes grey (ITU-R BT.601, as for Pillow's mode L)."""


def choose(dataset: Dataset, per_class: int, seed: int) -> NDArray[np.int64]:
    """Indices of `per_class` examples of every class, (classes * per_class,), ascending.

    The seed fixes them; those for a smaller `per_class` are among those for a larger one. Raises `ParameterError` when a
    class has fewer, naming it, `DataError` when one has none.
    """
    if per_class < 1:
        raise ParameterError(f"{option('per_class', per_class)}: give 1 or more")
    random = np.random.default_rng(seed)
    by_class = np.argsort(dataset.labels, kind="stable")
    counts = np.bincount(dataset.labels, minlength=dataset.classes)
    taken = []
    for label, members in enumerate(np.split(by_class, np.cumsum(counts)[:-1])):
        if len(members) < per_class:
            if not counts.min():
                raise DataError(f"{dataset.name}: class {_title(dataset, int(counts.argmin()))} has no example")
            raise ParameterError(
                f"{dataset.name}: class {_title(dataset, label)} has {len(members)} examples, and {per_class} of each class "
                f"are taken; give {option('per_class', counts.min())} or less"
            )
        taken.append(random.permutation(members)[:per_class])
    return np.sort(np.concatenate(taken)).astype(np.int64)


def _title(dataset: Dataset, label: int) -> str:
    """The number of a class, and its name where the data has names."""
    names: tuple[str, ...] = getattr(dataset, "class_names", ())
    return f"{label} ({names[label]})" if label < len(names) else str(label)


def check_classes(dataset: Dataset, outputs: int, where: str) -> None:
    """Raise `DataError` unless a network with this many outputs is one for this data; `where` names the network."""
    if outputs == dataset.classes:
        return
    from_one = outputs == dataset.classes - 1 and not (dataset.labels == 0).any()
    raise DataError(
        f"{where}: the network has {outputs} outputs, but {dataset.name} has {dataset.classes} classes; "
        + ("its labels begin at 1, subtract 1 from them" if from_one else "give data and a network of as many")
    )


def batch_for(dataset: Dataset, indices: NDArray[np.int64], input_shape: tuple[int, ...] | None) -> Batch:
    """These examples as inputs of shape `input_shape` (C, H, W), (F,) for a network with flat inputs, or (C, L) for one of
    signals.

    None leaves them as they are stored, or as the data set has them for such a network. Where height or width differ they
    are resized (bilinear, antialiased); grey becomes three channels by repetition, and three become grey by `LUMA`; flat
    examples are reshaped, never resized. Labels go with them. Raises `DataError` when there is no way, or an example cannot
    be read.
    """
    indices = np.asarray(indices, dtype=np.int64)
    inputs = dataset.examples(indices)
    input_shape = input_shape or getattr(dataset, "input_shape", None)
    if input_shape is not None:
        inputs = _fitted(inputs, _image_shape(dataset, input_shape)).reshape(len(indices), *input_shape)
    return Batch(np.ascontiguousarray(inputs, dtype=np.float32), dataset.labels[indices])


def told_inputs(dataset: Dataset, shape: tuple[int, ...]) -> str:
    """What is made of its examples: their shape, and that of the inputs where it is another; how they are normalised."""
    own = dataset.shape[2:] if dataset.shape[:2] == (1, 1) else dataset.shape
    stored, taken = ("x".join(map(str, sides)) for sides in (own, shape))
    normalisation = getattr(dataset, "normalisation", None)
    normalised = f"; {normalisation.stated()}" if isinstance(normalisation, Normalisation) else ""
    if normalised.endswith(AS_STORED):
        normalised += f" ({option('normalise')} standardises them)"
    return f"{stored}{'' if stored == taken else f' made {taken}'}{normalised}"


def _image_shape(dataset: Dataset, wanted: tuple[int, ...]) -> tuple[int, int, int]:
    """Channels, height and width to make of an example so that it has `wanted`'s values in `wanted`'s order."""
    channels, height, width = dataset.shape
    flat = channels == 1 and height == 1
    if math.prod(wanted) == math.prod(dataset.shape) and (flat or len(wanted) == 1):
        return dataset.shape
    if channels == 1 and wanted == (height, width):  # rows of numbers, as of a signal's channels, and no image
        return dataset.shape
    if len(wanted) == 1 and not flat:
        side = math.isqrt(wanted[0] // channels)
        if channels * side * side == wanted[0] and side:
            return channels, side, side
    if len(wanted) == 3 and not flat and min(wanted) > 0:
        there, here = wanted[0], channels
        if there == here or (here, there) in ((1, 3), (3, 1)):
            return wanted[0], wanted[1], wanted[2]
    have, want = ("x".join(map(str, shape)) for shape in ((width,) if flat else dataset.shape, wanted))
    raise DataError(f"{dataset.name}: its examples ({have}) cannot be made into the network's inputs ({want})")


def _fitted(images: NDArray[np.float32], wanted: tuple[int, int, int]) -> NDArray[np.float32]:
    """(N, C, H, W) -> (N, *wanted)."""
    channels, height, width = wanted
    if images.shape[1] == 3 and channels == 1:
        images = (images * np.asarray(LUMA, dtype=np.float32).reshape(1, 3, 1, 1)).sum(axis=1, keepdims=True)
    images = resized(images, height, width)  # before grey is repeated: a third of the work
    return images if images.shape[1] == channels else np.repeat(images, channels, axis=1)


def resized(images: NDArray[np.float32], height: int, width: int) -> NDArray[np.float32]:
    """(N, C, H, W) -> (N, C, height, width), bilinear, with antialiasing where it gets smaller.

    The same as Pillow's BILINEAR and as `torch.nn.functional.interpolate(..., mode="bilinear", antialias=True)`.
    """
    rows, columns = images.shape[2:]
    if rows != height:
        images = np.matmul(_weights(rows, height), images)
    if columns != width:
        images = np.matmul(images, _weights(columns, width).T)
    return images


def _weights(before: int, after: int) -> NDArray[np.float32]:
    """(after, before): what each old place gives to each new one, a triangle as wide as two new (or old) places."""
    scale = before / after
    centres = (np.arange(after)[:, None] + 0.5) * scale
    distances = np.abs(np.arange(before)[None] + 0.5 - centres) / max(scale, 1)
    weights: NDArray[np.float64] = np.maximum(0, 1 - distances)
    weights /= weights.sum(axis=1, keepdims=True)
    return weights.astype(np.float32)
