"""Samples that a program has: arrays, tensors, loaders."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from standin import Toy
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

from pai_cli.api.samples import GIVEN, as_dataset, as_parts, name_of
from pai_cli.data.batches import batch_for
from pai_cli.data.fingerprint import digest_of
from pai_cli.errors import DataError

RANDOM = np.random.default_rng(0)
X = RANDOM.normal(3, 2, (12, 3, 4, 5))
Y = np.arange(12) % 3
EVERY = np.arange(12)


def loader(x: Any = X, y: Any = Y, **options: Any) -> DataLoader[Any]:
    return DataLoader(TensorDataset(torch.as_tensor(x), torch.as_tensor(y)), batch_size=5, **options)


GIVES: dict[str, Callable[[], Any]] = {
    "arrays": lambda: (X, Y),
    "a list of them": lambda: [X, Y],
    "lists": lambda: (X.tolist(), Y.tolist()),
    "tensors": lambda: (torch.from_numpy(X).requires_grad_(), torch.from_numpy(Y)),
    "loader": loader,
    "four": lambda: (X, Y, X[:2], Y[:2]),
    "two loaders": lambda: (loader(), loader(X[:2], Y[:2])),
}


@pytest.mark.parametrize("form", GIVES)
def test_values_are_taken_as_they_are(form: str) -> None:
    data = as_dataset(GIVES[form]())
    assert (data.name, data.classes, data.shape, len(data)) == (GIVEN, 3, (3, 4, 5), 12)
    assert data.labels.dtype == np.int64
    assert data.labels.tolist() == Y.tolist()
    assert data.examples(EVERY).dtype == np.float32
    np.testing.assert_array_equal(data.examples(EVERY), X.astype(np.float32))
    np.testing.assert_array_equal(batch_for(data, EVERY[:1], (3, 4, 5)).inputs, X[:1].astype(np.float32))


@pytest.mark.parametrize("kind", [np.uint8, np.int16, np.bool_, np.float16])
def test_no_kind_of_number_is_scaled(kind: type) -> None:
    x = RANDOM.integers(0, 200, (4, 2, 2)).astype(kind)
    examples = as_dataset((x, [0, 1, 0, 1])).examples(np.arange(4))
    np.testing.assert_array_equal(examples[:, 0], x.astype(np.float32))


@pytest.mark.parametrize("form", GIVES)
def test_values_are_standardised_where_that_is_asked_for(form: str) -> None:
    mean, std = (getattr(X, which)(axis=(0, 2, 3), keepdims=True) for which in ("mean", "std"))
    data = as_dataset(GIVES[form](), normalise=True)
    np.testing.assert_allclose(data.examples(EVERY), (X - mean) / std, rtol=1e-5, atol=1e-6)
    if form in ("four", "two loaders"):  # the test part by the training part's
        test = as_parts(GIVES[form](), normalise=True)[1]
        np.testing.assert_allclose(test.examples(np.arange(2)), ((X - mean) / std)[:2], rtol=1e-5, atol=1e-6)


def test_bytes_are_scaled_and_standardised_where_that_is_asked_for() -> None:
    x = RANDOM.integers(0, 200, (4, 2, 2)).astype(np.uint8)
    found = as_dataset((x, [0, 1, 0, 1]), normalise=True).normalisation  # type: ignore[attr-defined]
    assert found.white == 255
    np.testing.assert_allclose((found.mean, found.std), ((x / 255).mean(keepdims=True)[0, 0], [x.std() / 255]))


def test_a_dataset_of_its_own_is_not_standardised_again() -> None:
    with pytest.raises(DataError, match=r"^normalise=True: the dataset toy is standardised without it; leave it out$"):
        as_dataset(Toy(3, (4,)), normalise=True)


def test_bfloat16_is_read() -> None:
    x = torch.tensor([[1.5, -2.0]], dtype=torch.bfloat16)
    assert as_dataset((x, [0])).examples(np.arange(1)).tolist() == [[[[1.5, -2.0]]]]


def test_shapes_of_fewer_dimensions() -> None:
    assert as_dataset((X[:, 0], Y)).shape == (1, 4, 5)
    flat = as_dataset((X[:, 0, 0], Y))
    assert flat.shape == (1, 1, 5)
    np.testing.assert_array_equal(batch_for(flat, EVERY, None).inputs, X[:, 0, 0].astype(np.float32))
    assert batch_for(as_dataset((X[:, 0], Y)), EVERY, None).inputs.shape == (12, 1, 4, 5)


@pytest.mark.parametrize("form", ["four", "two loaders"])
def test_the_test_part(form: str) -> None:
    test = as_dataset(GIVES[form](), train=False)
    assert (len(test), test.classes) == (2, 3)
    np.testing.assert_array_equal(test.examples(np.arange(2)), X[:2].astype(np.float32))
    train, again = as_parts(GIVES[form]())
    assert (len(train), again.labels.tolist()) == (12, [0, 1])


def test_what_pai_reads_itself(tmp_path: Path) -> None:
    path = tmp_path / "toy.npz"
    np.savez(path, x=X, y=Y, x_test=X[:3], y_test=Y[:3])
    for data in (path, str(path)):
        train, test = as_parts(data)
        assert (train.name, len(train), len(test)) == ("toy.npz", 12, 3)
        assert name_of(data) == str(path)
    assert as_dataset(train) is train
    assert name_of(train) == "toy.npz"
    assert name_of((X, Y)) == GIVEN
    assert (name_of("digits"), name_of(Path("digits"))) == ("digits", "./digits")


def test_other_values_have_another_digest() -> None:
    other = X.copy()
    other[7, 1, 2, 3] += 1
    digests = {digest_of([as_dataset((x, Y))]) for x in (X, X.copy(), other)}
    assert len(digests) == 2


def test_a_shuffling_loader_is_read_in_one_order_and_draws_no_number() -> None:
    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    first = as_dataset(loader(shuffle=True))
    assert torch.equal(torch.random.get_rng_state(), before)
    torch.manual_seed(6)
    second = as_dataset(loader(shuffle=True))
    assert first.labels.tolist() == second.labels.tolist() != Y.tolist()
    np.testing.assert_array_equal(first.examples(EVERY), second.examples(EVERY))


class Stream(IterableDataset):  # type: ignore[type-arg]
    def __iter__(self) -> Iterator[tuple[np.ndarray, int]]:
        while True:
            yield X[0], 0


class Longer(Stream):
    def __len__(self) -> int:
        return 10


class Batches:
    """A loader as others than torch make them."""

    dataset = None

    def __init__(self, *batches: Any):
        self.batches = batches

    def __iter__(self) -> Iterator[Any]:
        return iter(self.batches)

    def __len__(self) -> int:
        return len(self.batches)


def with_nan() -> np.ndarray:
    x = X.copy()
    x[9, 0, 0, 0] = np.nan
    return x


REFUSED: dict[str, tuple[Callable[[], Any], str]] = {
    "nan": (lambda: (with_nan(), Y), "x: example 9 has NaN or infinite values"),
    "too large": (lambda: (X * 1e39, Y), "x: example 0 has NaN or infinite values"),
    "nan of a loader": (lambda: loader(with_nan()), "the loader's inputs: example 9 has NaN or infinite values"),
    "negative": (lambda: (X, Y - 1), "y: label -1 of example 0 is not from 0 to 11, as there are 12 examples"),
    "reals": (lambda: (X, Y / 2), "y: labels of type float64; whole numbers are needed"),
    "one-hot": (lambda: (X, np.eye(3, dtype=int)[Y]), r"y: labels of shape \(12, 3\); one whole number"),
    "fewer labels": (lambda: (X, Y[:5]), "y: 5 labels for 12 examples"),
    "no examples": (lambda: (X[:0], Y[:0]), "x: no examples"),
    "texts": (lambda: (np.array([["a"]]), [0]), "x: values of type <U1; numbers are needed"),
    "ragged": (lambda: ([[1.0], [1.0, 2.0]], [0, 1]), "x: list is no array of numbers; "),
    "one number each": (lambda: (Y, Y), r"x: shape \(12,\); \(n, C, H, W\), \(n, H, W\) or \(n, F\) is needed"),
    "several inputs": (lambda: ({"a": X, "b": X}, Y), "x: dict of several inputs; a network is given one: an array"),
    "three": (lambda: (X, Y, X), "a tuple of 3; give a name or a path, a pair"),
    "array": (lambda: X, "of type ndarray; give a name or a path, a pair"),
    "dict": (lambda: {"x": X, "y": Y}, "a dict with 'x', 'y'; give a name or a path"),
    "sparse": (lambda: (torch.eye(2).to_sparse(), [0, 1]), "x: Tensor is no array of numbers; "),
    "endless": (lambda: DataLoader(Stream(), batch_size=2), "the loader has no length and might never end"),
    "longer": (lambda: DataLoader(Longer(), batch_size=2), "the loader gives more batches than its length of 5"),
    "inputs alone": (
        lambda: DataLoader(TensorDataset(torch.ones(3, 2)), batch_size=2),
        "the loader, batch 0: a list of 1; a pair",
    ),
    "batches by name": (lambda: Batches((X, Y), {"image": X}), "the loader, batch 1: a dict with 'image'; a pair"),
    "apart": (
        lambda: Batches((X, Y[:4])),
        r"the loader, batch 0: inputs \(12, 3, 4, 5\) and labels \(4,\) are not of as many",
    ),
    "sizes": (
        lambda: Batches((X, Y), (X[..., :3], Y)),
        r"the loader, batch 1: examples \(3, 4, 3\), and those before \(3, 4, 5\)",
    ),
    "no batch": (Batches, "the loader gives no batch"),
}


@pytest.mark.parametrize("case", REFUSED)
@pytest.mark.filterwarnings("ignore:Length of IterableDataset")
def test_refused(case: str) -> None:
    made, text = REFUSED[case]
    with pytest.raises(DataError, match=rf"^{re.escape(GIVEN)}: {text}"):
        as_dataset(made())


TEST_PARTS: dict[str, tuple[Callable[[], Any], str]] = {
    "none": (lambda: (X, Y), "data given: has no test part; give (x, y, x_test, y_test), or two loaders"),
    "one loader": (loader, "data given: has no test part; give (x, y, x_test, y_test), or two loaders"),
    "one part": (
        lambda: as_dataset((X, Y)),
        "data given: has no test part; give a name or a path, or (x, y, x_test, y_test)",
    ),
    "another shape": (
        lambda: (X, Y, X[:, :2], Y),
        "data given: x_test: examples of shape (2, 4, 5), and those to train with are (3, 4, 5)",
    ),
    "another class": (
        lambda: (X, Y, X[:1], [3]),
        "data given: y_test: label 3 of example 0 is not from 0 to 2",
    ),
}


@pytest.mark.parametrize("case", TEST_PARTS)
def test_a_test_part_that_cannot_be(case: str) -> None:
    made, text = TEST_PARTS[case]
    with pytest.raises(DataError) as caught:
        as_dataset(made(), train=False)
    assert str(caught.value) == text
