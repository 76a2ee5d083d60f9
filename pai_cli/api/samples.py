"""Labelled samples that a program has: arrays, tensors or a `DataLoader`, or what `pai` reads by itself."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol, cast, runtime_checkable

from pai_cli.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from pai_cli.data.arrays import ArrayDataset
    from pai_cli.data.base import Dataset

GIVEN = "data given"
"""What data without a name of their own are called in messages, files and tables."""

PAIR = "a pair (x, y) of inputs and labels"
TAKES = (
    f"a name or a path, {PAIR}, with a test part (x, y, x_test, y_test), a DataLoader of such pairs, or two of them, "
    "(loader, test loader)"
)


@runtime_checkable
class Loader(Protocol):
    """What a `torch.utils.data.DataLoader` is known by."""

    dataset: Any

    def __iter__(self) -> Iterator[Any]: ...


Data = Any
"""One of `TAKES`; arrays are anything that NumPy makes an array of, torch's tensors on any device among them."""


def as_dataset(data: Data, train: bool = True, *, normalise: bool = False) -> Dataset:
    """The training part of the data, or with `train=False` its test part, as the rest of `pai` takes it.

    `data`: what the command line takes ("digits", or a path), a pair (x, y), four arrays (x, y, x_test, y_test),
    a `DataLoader` whose batches are pairs, two of them (loader, test loader), or a dataset of `pai`'s own, which is given
    back. x is (n, C, H, W), (n, H, W) or (n, F), of any type of numbers, and taken as it is: nothing is scaled or
    standardised but with `normalise`, which takes channel by channel the mean of the training part away and divides by the
    deviation; (n, F) goes into a network as (n, F). y is (n,), whole numbers from 0; the largest of the training part
    says how many classes there are.

    A loader is read once, to its end, in its own order, into memory. A shuffling one without a generator of its own gives
    the same order each time, and leaves torch's random numbers as they were.

    Raises `DataError` for anything else: values that are NaN or infinite, labels that are no whole numbers from 0 or of
    another number than the examples, no examples, a loader that has no length (it might never end) or whose batches are no
    pairs, no test part where one is asked for.
    """
    if not train:
        return as_parts(data, normalise=normalise)[1]
    return _named(data, train=True, normalise=normalise) or _training(data, normalise=normalise)


def as_parts(data: Data, *, normalise: bool = False) -> tuple[Dataset, Dataset]:
    """Both parts, training and test, of `data` as `as_dataset` takes it. Raises `DataError`."""
    named = _named(data, train=True, normalise=normalise)
    if named is not None:
        tested = _named(data, train=False, normalise=normalise)
        assert tested is not None
        return named, tested
    train = _training(data, normalise=normalise)
    if len(_all_of(data)) == 4:
        _, _, x, y = data
        return train, _held(x, y, ("x_test", "y_test"), train)
    if _is_two_loaders(data):
        return train, _held(*_read(data[1], "the test loader"), ("the test loader's inputs", "its labels"), train)
    from pai_cli.data.arrays import no_test_part

    raise no_test_part(GIVEN, "give (x, y, x_test, y_test), or two loaders")


def name_of(data: Data) -> str:
    """What to call the data: the name or the path that was given, or `GIVEN`."""
    from os import PathLike, fspath

    from pai_cli.data.registry import DIGITS

    if isinstance(data, PathLike):
        path = str(fspath(data))
        return f"./{path}" if path == DIGITS else path  # a path is no name
    if isinstance(data, str):
        return data
    return str(data.name) if _is_dataset(data) else GIVEN


def _named(data: Data, *, train: bool, normalise: bool) -> Dataset | None:
    """What a name or a path stands for, or a dataset that is one already; None for values."""
    from os import PathLike

    if isinstance(data, str | PathLike):
        from pai_cli.data.registry import open_dataset

        return open_dataset(name_of(data), train=train, normalise=normalise)
    if not _is_dataset(data):
        return None
    if normalise:
        from pai_cli.data.base import no_need

        raise no_need(f"the dataset {data.name}")
    if not train:
        from pai_cli.data.arrays import no_test_part

        raise no_test_part(str(data.name), "give a name or a path, or (x, y, x_test, y_test)")
    return cast("Dataset", data)


def _training(data: Data, *, normalise: bool) -> ArrayDataset:
    loader = data if isinstance(data, Loader) else data[0] if _is_two_loaders(data) else None
    if loader is not None:
        return _held(*_read(loader, "the loader"), ("the loader's inputs", "its labels"), normalise=normalise)
    parts = _all_of(data)
    if len(parts) not in (2, 4):
        raise DataError(f"{GIVEN}: {_told(data)}; give {TAKES}")
    return _held(parts[0], parts[1], ("x", "y"), normalise=normalise)


def _held(
    x: Any, y: Any, called: tuple[str, str], train: ArrayDataset | None = None, *, normalise: bool = False
) -> ArrayDataset:
    """Inputs and labels, checked, as a data set that gives them as they are, or standardised. `train`: the part of which
    this is the test, and which says how values are made.
    """
    from pai_cli.data.arrays import ArrayDataset, as_images, check_labels, checked
    from pai_cli.data.normalise import WHITE, as_stored, measure

    where, labelled = (f"{GIVEN}: {one}" for one in called)
    inputs = _array(x, where)
    stored = as_images(inputs, where)
    labels = check_labels(_array(y, labelled), len(stored), labelled, None if train is None else train.classes)
    if train is not None and stored.shape[1:] != train.shape:
        raise DataError(f"{where}: examples of shape {stored.shape[1:]}, and those to train with are {train.shape}")
    values = checked(stored, where)
    normalisation = measure(values, WHITE.get(stored.dtype.name, 1.0)) if normalise else as_stored(values)
    if train is not None:
        normalisation = train.normalisation
    classes = int(labels.max()) + 1 if train is None else train.classes
    flat = stored.shape[3:] if inputs.ndim == 2 else None
    return ArrayDataset(GIVEN, classes, labels, stored, normalisation, flat)


def _read(loader: Loader, called: str) -> tuple[NDArray[Any], NDArray[Any]]:
    """All inputs and labels of a loader, in its order."""
    import numpy as np
    import torch

    most = _batches_of(loader, called)
    inputs: list[NDArray[Any]] = []
    labels: list[NDArray[Any]] = []
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)  # a shuffling loader then has one order
        for number, batch in enumerate(loader):
            if number == most:
                raise DataError(f"{GIVEN}: {called} gives more batches than its length of {most}; give one that ends")
            where = f"{called}, batch {number}"
            if not isinstance(batch, tuple | list) or len(batch) != 2:
                raise DataError(f"{GIVEN}: {where}: {_told(batch)}; {PAIR} is needed")
            x, y = (_array(one, f"{GIVEN}: {where}") for one in batch)
            if not x.ndim or x.shape[:1] != y.shape[:1]:
                raise DataError(f"{GIVEN}: {where}: inputs {x.shape} and labels {y.shape} are not of as many examples")
            if inputs and (x.shape[1:], y.shape[1:]) != (inputs[0].shape[1:], labels[0].shape[1:]):
                raise DataError(f"{GIVEN}: {where}: examples {x.shape[1:]}, and those before {inputs[0].shape[1:]}")
            inputs.append(x)
            labels.append(y)
    if not inputs:
        raise DataError(f"{GIVEN}: {called} gives no batch")
    return np.concatenate(inputs), np.concatenate(labels)


def _batches_of(loader: Loader, called: str) -> int:
    """How many batches it says it has."""
    try:
        return len(loader)  # type: ignore[arg-type]
    except (TypeError, NotImplementedError):
        raise DataError(
            f"{GIVEN}: {called} has no length and might never end, as of an IterableDataset; give {PAIR}, or a loader that "
            "has one"
        ) from None


def _array(given: Any, where: str) -> NDArray[Any]:
    """An array of the values; a tensor from wherever it is, of bfloat16 as float32."""
    import numpy as np

    if isinstance(given, Mapping):
        raise DataError(
            f"{where}: {type(given).__name__} of several inputs; a network is given one: an array or a tensor"
        )
    try:
        if hasattr(given, "detach"):
            given = given.detach().cpu()
            given = (given.float() if str(given.dtype) == "torch.bfloat16" else given).numpy()
        return np.asarray(given)
    except (ValueError, TypeError, RuntimeError) as error:  # lists of several lengths, tensors that are sparse
        raise DataError(
            f"{where}: {type(given).__name__} is no array of numbers; give rows of one length, a dense tensor or an array"
        ) from error


def _all_of(data: Data) -> tuple[Any, ...]:
    return tuple(data) if isinstance(data, tuple | list) else ()


def _is_two_loaders(data: Data) -> bool:
    parts = _all_of(data)
    return len(parts) == 2 and all(isinstance(one, Loader) for one in parts)


def _is_dataset(data: Data) -> bool:
    """Whether it is a `data.base.Dataset` already."""
    return all(hasattr(data, name) for name in ("name", "classes", "shape", "labels", "examples"))


def _told(thing: Any) -> str:
    """What a value is, for a message."""
    kind = type(thing).__name__
    if isinstance(thing, tuple | list):
        return f"a {kind} of {len(thing)}"
    return f"a {kind} with {', '.join(map(repr, list(thing)[:4]))}" if isinstance(thing, dict) else f"of type {kind}"
