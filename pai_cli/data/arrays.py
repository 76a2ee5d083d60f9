"""Data sets held in memory as they are stored, and the checks that all kinds share."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pai_cli.data.normalise import Normalisation
from pai_cli.errors import DataError

CHUNK = 2**20
"""Values that are looked at as floats at once: 8 MiB."""


@dataclass(frozen=True, eq=False)
class ArrayDataset:
    """A data set whose stored values are in memory, in their own type: (n, C, H, W).

    What is asked for becomes float32, never the whole. `input_shape`: of one input of a network that does not tell its own,
    None for `shape`.
    """

    name: str
    classes: int
    labels: NDArray[np.int64]
    stored: NDArray[Any]
    normalisation: Normalisation
    input_shape: tuple[int, ...] | None = None

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height and width of one example."""
        _, channels, height, width = self.stored.shape
        return channels, height, width

    def examples(self, indices: NDArray[np.int64]) -> NDArray[np.float32]:
        """These examples, normalised: (len(indices), C, H, W)."""
        return self.normalisation.apply(self.stored[indices])

    def __len__(self) -> int:
        """How many examples there are."""
        return len(self.labels)


def check_labels(labels: object, count: int, where: str, classes: int | None = None) -> NDArray[np.int64]:
    """`labels` as int64 (count,), each from 0 to classes - 1.

    Without `classes` the largest label decides how many there are, which must be at most `count`: with more, some class
    has no example; and the smallest must be 0, as others begin to count at 1. Raises `DataError`, which names the first
    label that is wrong by its index; `where` is said before that, as in "data.npz: y".
    """
    if isinstance(labels, list | tuple):
        # NumPy would make an array of any size of lists, arrays and texts that are held many times.
        other = next((one for one in labels if hasattr(one, "__len__")), None)
        if isinstance(other, str | bytes):
            raise DataError(f"{where}: labels of type {np.asarray(other).dtype}; whole numbers are needed")
        if other is not None:
            raise DataError(f"{where}: labels of shape (); one whole number an example is needed")
    try:
        given = np.asarray(labels)
    except ValueError:  # lists of several lengths
        given = np.asarray(None)
    if given.ndim != 1:
        raise DataError(f"{where}: labels of shape {given.shape}; one whole number an example is needed")
    if given.dtype.kind not in "iu" and given.size:
        raise DataError(f"{where}: labels of type {given.dtype}; whole numbers are needed")
    if len(given) != count:
        raise DataError(f"{where}: {len(given)} labels for {count} examples")
    if count == 0:
        raise DataError(f"{where}: no examples")
    least, largest = int(given.min()), int(given.max())
    if classes is None and least > 0:
        raise DataError(
            f"{where}: labels run from {least} to {largest}, and classes are counted from 0; subtract {least} from each"
        )
    most = count if classes is None else classes
    wrong = np.flatnonzero((given < 0) | (given >= most))
    if wrong.size:
        why = "" if classes is not None else f", as there are {count} examples"
        raise DataError(f"{where}: label {given[wrong[0]]} of example {wrong[0]} is not from 0 to {most - 1}{why}")
    return given.astype(np.int64)


def check_finite(values: NDArray[Any], first: int, where: str) -> None:
    """Raise `DataError` for a value that is NaN or infinite as a float32.

    `values` are the examples from index `first` on, (k, ...).
    """
    if values.dtype.kind != "f":
        return
    with np.errstate(over="ignore"):  # what is too large for float32 becomes infinite, and is told as that
        fine = np.isfinite(values.astype(np.float32)).reshape(len(values), -1).all(axis=1)
    if not fine.all():
        index = first + int(np.flatnonzero(~fine)[0])
        raise DataError(f"{where}: example {index} has NaN or infinite values")


def as_images(x: NDArray[Any], where: str, shapes: str = "(n, C, H, W), (n, H, W) or (n, F)") -> NDArray[Any]:
    """A view of `x` as (n, C, H, W), as it stands: (n, H, W) has one channel, and (n, F) is (n, 1, 1, F).

    Raises `DataError` for anything but numbers in one of the `shapes`, and without an example.
    """
    if x.dtype.kind not in "biuf":
        raise DataError(f"{where}: values of type {x.dtype}; numbers are needed")
    if x.ndim not in (2, 3, 4) or 0 in x.shape[1:]:
        raise DataError(f"{where}: shape {x.shape}; {shapes} is needed")
    if not len(x):
        raise DataError(f"{where}: no examples")
    if x.ndim == 2:
        return x[:, None, None, :]
    return x[:, None] if x.ndim == 3 else x


def checked(stored: NDArray[Any], where: str) -> Iterator[NDArray[Any]]:
    """The examples, some at a time, every one found finite."""
    step = max(1, CHUNK // max(1, stored[0].size))
    for first in range(0, len(stored), step):
        chunk = stored[first : first + step]
        check_finite(chunk, first, where)
        yield chunk


def no_test_part(where: str, remedy: str) -> DataError:
    """The error of data that has a training part only; `remedy` says how it could have the other."""
    return DataError(f"{where}: has no test part; {remedy}")
