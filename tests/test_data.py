"""Data: known values of every kind, that examples, choices and splits are fixed, and each refusal in its words."""

import io
import json
import os
import pickle
import subprocess
import sys
import warnings
import zipfile
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import ROOT
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from torch.nn import functional

from pai_cli.data import arrays, huggingface
from pai_cli.data.arrays import ArrayDataset
from pai_cli.data.batches import LUMA, batch_for, check_classes, choose, resized
from pai_cli.data.digits import in_test
from pai_cli.data.normalise import CIFAR, IMAGENET, Normalisation, measure
from pai_cli.data.plain_pickle import read_plain
from pai_cli.data.registry import DIGITS, KINDS, open_dataset
from pai_cli.errors import DataError, ParameterError

RANDOM = np.random.default_rng(5)
PLAIN = Normalisation(1, (0.0,), (1.0,), "")


def pixels(*shape):
    return RANDOM.integers(0, 256, shape, dtype=np.uint8)


def refusal(folder, call, *arguments, error=DataError, **options):
    """The one line with which it is refused, without the path of the folder."""
    with pytest.raises(error) as caught:
        call(*arguments, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value).replace(str(folder) + os.sep, "").replace(str(folder), ".")


def refused(path, *, train=True, within=None):
    return refusal(within or path.parent, open_dataset, str(path), train=train)


def in_memory(stored, labels, classes=None, normalisation=None):
    labels = np.asarray(labels, dtype=np.int64)
    plain = normalisation or Normalisation(1, (0.0,) * stored.shape[1], (1.0,) * stored.shape[1], "")
    return ArrayDataset("toy", classes or int(labels.max()) + 1, labels, stored, plain)


def every(dataset):
    return dataset.examples(np.arange(len(dataset)))


def normalised(stored, known):
    """(value / white - mean) / std in float64."""
    mean, std = (np.asarray(one).reshape(1, -1, 1, 1) for one in (known.mean, known.std))
    return (stored / known.white - mean) / std


# --- one small data set of each kind, and what it holds ---


def save_cifar10_python(folder, protocol=2, count=4):
    folder.mkdir(parents=True)
    held = {}
    for i, name in enumerate([*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"]):
        held[name] = pixels(count, 3072), [(i + j) % 10 for j in range(count)]
        batch = {b"data": held[name][0], b"labels": held[name][1], b"batch_label": b"one", b"filenames": [b"a.png"] * 4}
        (folder / name).write_bytes(pickle.dumps(batch, protocol))
    return held


def save_cifar100_python(folder):
    folder.mkdir(parents=True)
    held = {name: (pixels(3, 3072), [99, 0, 7]) for name in ("train", "test")}
    for name, (data, labels) in held.items():
        batch = {"data": data, "fine_labels": np.asarray(labels), "coarse_labels": [19, 0, 1]}
        (folder / name).write_bytes(pickle.dumps(batch))
    return held


def save_binary(folder, names, label_bytes, labels):
    folder.mkdir(parents=True)
    held = {}
    for name in names:
        data = pixels(len(labels), 3072)
        before = np.full((len(labels), label_bytes), 3, dtype=np.uint8)
        before[:, -1] = labels
        (folder / name).write_bytes(np.hstack([before, data]).tobytes())
        held[name] = data, labels
    return held


def save_image(path, array, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path, **options)
    return array


def save_tree(folder, parts=("train/", "val/")):
    """Two classes, 6x6, two images each; one of them deeper down."""
    held = {}
    for part in parts:
        for name in ("ant", "bee/deep", "bee", "ant"):
            place = f"{part}{name}/{len(held)}.png"
            held[place] = save_image(folder / place, pixels(6, 6, 3))
    return held


def save_tiny(folder):
    held = {}
    for name in ("n01", "n02"):
        for i in range(2):
            place = f"train/{name}/images/{name}_{i}.png"
            held[place] = save_image(folder / place, pixels(64, 64, 3))
        (folder / f"train/{name}/{name}_boxes.txt").write_text("boxes")
    for i in range(3):
        held[f"val/images/val_{i}.png"] = save_image(folder / f"val/images/val_{i}.png", pixels(64, 64, 3))
    lines = [f"val_{i}.png\t{name}\t0\t0\t63\t63\n" for i, name in enumerate(("n02", "n01", "n02"))]
    (folder / "val/val_annotations.txt").write_text("".join(lines))
    save_image(folder / "test/images/test_0.png", pixels(64, 64, 3))
    (folder / "wnids.txt").write_text("n02\nn01\n")
    return held


def png(array):
    stream = io.BytesIO()
    Image.fromarray(array).save(stream, "PNG")
    return stream.getvalue()


@pytest.fixture
def hub():
    return pytest.importorskip("datasets")


def hf_split(hub, images, labels, label="label", kind=None, image="img"):
    kind = kind or hub.ClassLabel(names=["cat", "dog", "eel"])
    rows = {image: [one and {"bytes": one, "path": None} for one in images], label: labels}
    return hub.Dataset.from_dict(rows, features=hub.Features({image: hub.Image(), label: kind}))


def hf_save(dataset, folder):
    dataset.save_to_disk(str(folder))
    return folder


@pytest.fixture
def images():
    return [pixels(5, 5, 3) for _ in range(6)]


# --- digits ---


def test_digits_are_those_of_scikit_learn():
    train, test = open_dataset("digits"), open_dataset("digits", train=False)
    assert (train.name, train.classes, train.shape, len(train), len(test)) == ("digits", 10, (1, 8, 8), 1442, 355)
    assert np.bincount(train.labels).tolist() == [143, 146, 142, 147, 145, 146, 145, 144, 140, 144]
    assert np.bincount(test.labels).tolist() == [35, 36, 35, 36, 36, 36, 36, 35, 34, 36]
    assert train.labels.dtype == np.int64
    assert train.normalisation.stated() == (
        "divided by 16, mean (0.3051) subtracted, divided by std (0.3762); measured on the training set"
    )
    assert test.normalisation == train.normalisation
    everything = every(train).astype(np.float64)
    assert everything.mean() == pytest.approx(0, abs=1e-6)
    assert everything.std() == pytest.approx(1, abs=1e-6)
    first_row = np.asarray([0, 0, 5, 13, 9, 1, 0, 0])  # of the zero that the data set begins with
    mean, std = 0.30513582480929263, 0.37615755695544634
    np.testing.assert_allclose(train.examples(np.asarray([0]))[0, 0, 0], (first_row / 16 - mean) / std, rtol=2e-6)


def test_digits_are_split_by_place_in_each_class():
    labels = np.asarray([3, 3, 7, 3, 3, 3, 7, 3, 7, 7, 7])
    assert np.flatnonzero(in_test(labels)).tolist() == [5, 10]  # the fifth 3 and the fifth 7


def test_digits_without_scikit_learn(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    assert refused(Path("digits")) == "digits: needs scikit-learn; pip install 'pai-cli[digits]'"


# --- CIFAR ---


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_cifar10_python(tmp_path, protocol):
    held = save_cifar10_python(tmp_path / "cifar-10-batches-py", protocol)
    train, test = (open_dataset(str(tmp_path / "cifar-10-batches-py"), train=one) for one in (True, False))
    assert (train.name, train.classes, train.shape, len(train), len(test)) == ("cifar-10", 10, (3, 32, 32), 20, 4)
    data = np.concatenate([held[f"data_batch_{i}"][0] for i in range(1, 6)]).reshape(-1, 3, 32, 32)
    assert train.stored.dtype == np.uint8
    np.testing.assert_array_equal(train.stored, data)
    assert train.labels.tolist() == [(i + j) % 10 for i in range(5) for j in range(4)]
    assert test.labels.tolist() == [5, 6, 7, 8]
    np.testing.assert_allclose(every(train), normalised(data, CIFAR["cifar-10"]), rtol=1e-5, atol=1e-6)
    assert train.normalisation.stated() == (
        "divided by 255, mean (0.4914, 0.4822, 0.4465) subtracted, divided by std (0.2470, 0.2435, 0.2616); "
        "published for CIFAR-10"
    )


def test_cifar10_as_python_2_pickled_it(tmp_path):
    """The distributed files: protocol 2, byte strings, numpy's old names."""
    save_cifar10_python(tmp_path / "data")
    raw = np.arange(3072, dtype=np.uint8).tobytes()
    stream = (
        b"\x80\x02}(U\x04datacnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R"
        b"(K\x01K\x01M\x00\x0c\x86cnumpy\ndtype\nU\x02u1K\x00K\x01\x87R(K\x03U\x01|NNNJ\xff\xff\xff\xff"
        b"J\xff\xff\xff\xffK\x00tb\x89T\x00\x0c\x00\x00" + raw + b"tbU\x06labels]K\x08au."
    )
    (tmp_path / "data/test_batch").write_bytes(stream)
    test = open_dataset(str(tmp_path / "data"), train=False)
    assert test.labels.tolist() == [8]
    assert test.stored.ravel().tolist() == list(raw)


def test_cifar100_python_takes_the_fine_labels(tmp_path):
    held = save_cifar100_python(tmp_path / "cifar-100-python")
    for part in ("train", "test"):
        dataset = open_dataset(str(tmp_path / "cifar-100-python"), train=part == "train")
        assert (dataset.name, dataset.classes, dataset.labels.tolist()) == ("cifar-100", 100, [99, 0, 7])
        stored = held[part][0].reshape(-1, 3, 32, 32)
        np.testing.assert_allclose(every(dataset), normalised(stored, CIFAR["cifar-100"]), rtol=1e-5, atol=1e-6)


def test_cifar10_binary(tmp_path):
    names = [*(f"data_batch_{i}.bin" for i in range(1, 6)), "test_batch.bin"]
    held = save_binary(tmp_path / "bin", names, 1, [4, 9])
    train, test = (open_dataset(str(tmp_path / "bin"), train=one) for one in (True, False))
    assert (train.name, train.classes, train.labels.tolist()) == ("cifar-10", 10, [4, 9] * 5)
    np.testing.assert_array_equal(test.stored, held["test_batch.bin"][0].reshape(-1, 3, 32, 32))
    assert test.normalisation == CIFAR["cifar-10"]


def test_cifar100_binary_takes_the_fine_labels(tmp_path):
    held = save_binary(tmp_path / "bin", ["train.bin", "test.bin"], 2, [98, 0])
    train = open_dataset(str(tmp_path / "bin"))
    assert (train.name, train.classes, train.labels.tolist()) == ("cifar-100", 100, [98, 0])
    np.testing.assert_array_equal(train.stored, held["train.bin"][0].reshape(-1, 3, 32, 32))


def test_cifar_is_found_in_the_folder_above(tmp_path):
    save_cifar100_python(tmp_path / "cifar-100-python")
    assert open_dataset(str(tmp_path)).name == "cifar-100"
    save_cifar10_python(tmp_path / "cifar-10-batches-py")
    assert refused(tmp_path) == (
        f"{tmp_path.name}: holds several data sets (cifar-10-batches-py, cifar-100-python); give the path of one"
    )


BAD_BATCHES = [
    pytest.param([1, 2], "a pickled list, not a dict of arrays and lists", id="list"),
    pytest.param({"labels": [0]}, "no 'data' in it; its keys are labels", id="no-data"),
    pytest.param({}, "no 'data' in it; its keys are none", id="empty"),
    pytest.param({"data": pixels(1, 3072), "b": 1}, "no 'labels' in it; its keys are b, data", id="no-labels"),
    pytest.param({"data": [1], "labels": [0]}, "data is a list, not an array", id="data-list"),
    pytest.param(
        {"data": pixels(2, 3071), "labels": [0, 1]},
        "data is uint8 of shape (2, 3071); uint8 (n, 3072) is needed",
        id="shape",
    ),
    pytest.param(
        {"data": np.zeros((2, 3072)), "labels": [0, 1]},
        "data is float64 of shape (2, 3072); uint8 (n, 3072) is needed",
        id="type",
    ),
    pytest.param({"data": pixels(2, 3072), "labels": [0]}, "1 labels for 2 examples", id="fewer-labels"),
    pytest.param({"data": pixels(2, 3072), "labels": [0, 10]}, "label 10 of example 1 is not from 0 to 9", id="range"),
    pytest.param({"data": pixels(2, 3072), "labels": [-1, 0]}, "label -1 of example 0 is not from 0 to 9", id="minus"),
    pytest.param(
        {"data": pixels(1, 3072), "labels": [0.5]}, "labels of type float64; whole numbers are needed", id="float"
    ),
    pytest.param(
        {"data": pixels(1, 3072), "labels": 3},
        "labels of shape (); one whole number an example is needed",
        id="one-label",
    ),
    pytest.param(
        {"data": pixels(2, 3072), "labels": [[1], [1, 2]]},
        "labels of shape (); one whole number an example is needed",
        id="ragged",
    ),
    pytest.param({"data": pixels(0, 3072), "labels": []}, "no examples", id="no-examples"),
]


@pytest.mark.parametrize(("batch", "said"), BAD_BATCHES)
def test_bad_cifar_batches(tmp_path, batch, said):
    save_cifar10_python(tmp_path / "data")
    (tmp_path / "data/data_batch_3").write_bytes(pickle.dumps(batch, 2))
    assert refused(tmp_path / "data") == f"data/data_batch_3: {said}"
    assert len(open_dataset(str(tmp_path / "data"), train=False)) == 4  # which does not need that file


def test_a_missing_batch(tmp_path):
    save_cifar10_python(tmp_path / "data")
    (tmp_path / "data/data_batch_2").unlink()
    assert refused(tmp_path / "data") == "data/data_batch_2: missing, of cifar-10; unpack its archive again"


@pytest.mark.parametrize("keep", [0, 1, 100, -1, 12_000])
def test_a_truncated_pickle(tmp_path, keep):
    save_cifar10_python(tmp_path / "data")
    path = tmp_path / "data/test_batch"
    path.write_bytes(path.read_bytes()[:keep])
    said = refused(tmp_path / "data", train=False)
    assert said.startswith("data/test_batch: truncated or damaged (" if keep else "data/test_batch: the file is empty")
    assert said.endswith("; copy it again")


def test_a_truncated_binary_batch(tmp_path):
    save_binary(tmp_path / "data", ["train.bin"], 2, [1, 2, 3])
    path = tmp_path / "data/train.bin"
    path.write_bytes(path.read_bytes()[:-1])
    assert refused(tmp_path / "data") == (
        "data/train.bin: truncated or damaged: 9221 bytes, and a record has 3074, so record 2 is cut short; copy it again"
    )
    path.write_bytes(b"")
    assert refused(tmp_path / "data") == "data/train.bin: the file is empty; copy it again"
    assert refused(tmp_path / "data", train=False) == "data/test.bin: missing, of cifar-100; unpack its archive again"


def test_a_wrong_label_in_a_binary_batch(tmp_path):
    save_binary(tmp_path / "data", ["train.bin"], 2, [1, 2, 100])
    assert refused(tmp_path / "data") == "data/train.bin: label 100 of example 2 is not from 0 to 99"


# --- pickles of plain data ---


class Evil:
    """Unpickling this makes a folder."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return (os.mkdir, (self.path,))


def read_pickle(folder, stream):
    path = folder / "batch"
    path.write_bytes(stream)
    return read_plain(path)


@pytest.mark.parametrize("protocol", [0, 1, 2, 3, 4, 5])
def test_no_code_is_run(tmp_path, protocol):
    stream = pickle.dumps({"data": Evil(tmp_path / "made")}, protocol)
    said = refusal(tmp_path, read_pickle, tmp_path, stream)
    assert said == f"batch: not read: its pickle asks for {os.mkdir.__module__}.mkdir, and plain data needs no code"
    assert not (tmp_path / "made").exists()


NAMED = [
    (b"cbuiltins\neval\n.", "builtins.eval"),
    (b"cnumpy\nload\n.", "numpy.load"),
    (b"cnumpy.core.multiarray\nfromfile\n.", "numpy.core.multiarray.fromfile"),
    (pickle.dumps(OrderedDict(a=1)), "collections.OrderedDict"),
]


@pytest.mark.parametrize(("stream", "name"), NAMED)
def test_names_that_are_not_of_arrays(tmp_path, stream, name):
    said = refusal(tmp_path, read_pickle, tmp_path, stream)
    assert said == f"batch: not read: its pickle asks for {name}, and plain data needs no code"


RECONSTRUCT = b"cnumpy.core.multiarray\n_reconstruct\n"
TYPE = b"cnumpy\ndtype\nX\x02\x00\x00\x00%s\x85R"
STRANGE = [
    pytest.param(b"}X\x01\x00\x00\x00a" + RECONSTRUCT + b"}X\x01\x00\x00\x00bK\x01sbs.", id="a-function-given-a-state"),
    pytest.param(b"}X\x01\x00\x00\x00acnumpy\nndarray\n(K\x01tRs.", id="ndarray-called"),
    pytest.param(b"}X\x01\x00\x00\x00a" + TYPE % b"O8" + b"s.", id="objects"),
    pytest.param(b"}X\x01\x00\x00\x00a" + RECONSTRUCT + b"(tRs.", id="an-array-never-filled"),
    pytest.param(
        b"}X\x01\x00\x00\x00a" + RECONSTRUCT + b"(tR(K\x01K\x05\x85" + TYPE % b"u1" + b"\x89C\x02abtbs.",
        id="too-few-bytes",
    ),
    pytest.param(
        b"}X\x01\x00\x00\x00a" + RECONSTRUCT + b"(tR(K\x01K\x05\x85" + TYPE % b"u1" + b"\x89]tbs.",
        id="bytes-are-a-list",
    ),
    pytest.param(b"}X\x01\x00\x00\x00a" + TYPE % b"u1" + b"(K\x03C\x01?tbs.", id="byte-order"),
    pytest.param(b"}X\x01\x00\x00\x00ac_codecs\nencode\nX\x01\x00\x00\x00bX\x03\x00\x00\x00hex\x86Rs.", id="encoding"),
]


@pytest.mark.parametrize("stream", STRANGE)
def test_strange_pickles(tmp_path, stream):
    said = refusal(tmp_path, read_pickle, tmp_path, stream)
    assert said.startswith("batch: truncated or damaged (")


PLAIN_VALUES = {
    "fortran": np.asfortranarray(np.arange(6, dtype=np.int32).reshape(2, 3)),
    "swapped": np.arange(4, dtype=">u2"),
    "float": np.linspace(0, 1, 5),
    "bool": np.asarray([True, False]),
    "scalar": np.int64(7),
    "list": [1, 2, np.int16(3)],
    "bytes": b"\x00\xff",
    "none": None,
}


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_plain_values_come_back(tmp_path, protocol):
    read = read_pickle(tmp_path, pickle.dumps(PLAIN_VALUES, protocol))
    assert list(read) == list(PLAIN_VALUES)
    for name, value in PLAIN_VALUES.items():
        assert np.array_equal(read[name], value), name
        if isinstance(value, np.ndarray):
            assert read[name].dtype == value.dtype
            assert read[name].shape == value.shape


@given(st.data())
def test_damaged_pickles_are_one_line(tmp_path_factory, data):
    held = {"data": np.arange(10, dtype=np.uint8).reshape(2, 5), "labels": [1, np.int64(2)], b"x": "y"}
    stream = bytearray(pickle.dumps(held, data.draw(st.sampled_from([2, 4, 5]))))
    for _ in range(data.draw(st.integers(1, 4))):
        stream[data.draw(st.integers(0, len(stream) - 1))] = data.draw(st.integers(0, 255))
    folder = tmp_path_factory.getbasetemp()
    said = ""
    try:
        read_pickle(folder, bytes(stream))
    except DataError as e:
        said = str(e)
    assert "\n" not in said


# --- .npz ---


def save_npz(path, **arrays):
    np.savez(path, **arrays)
    return path


LAYOUTS = [
    pytest.param((5, 2, 4, 6), (2, 4, 6), None, id="channels-first"),
    pytest.param((5, 3, 4, 3), (3, 4, 3), None, id="channels-first-where-both-could-be"),
    pytest.param((5, 4, 6, 3), (3, 4, 6), (0, 3, 1, 2), id="channels-last"),
    pytest.param((5, 4, 6, 1), (1, 4, 6), (0, 3, 1, 2), id="grey-last"),
    pytest.param((5, 4, 6), (1, 4, 6), None, id="grey"),
    pytest.param((5, 7), (1, 1, 7), None, id="flat"),
]


@pytest.mark.parametrize(("given_shape", "shape", "axes"), LAYOUTS)
@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32", "float64", "int64", "bool"])
def test_npz(tmp_path, given_shape, shape, axes, dtype):
    x = RANDOM.integers(0, 2 if dtype == "bool" else 250, given_shape).astype(dtype)
    dataset = open_dataset(str(save_npz(tmp_path / "toy.npz", x=x, y=[0, 2, 1, 2, 0])))
    assert (dataset.name, dataset.classes, dataset.shape, len(dataset)) == ("toy.npz", 3, shape, 5)
    assert dataset.stored.dtype == x.dtype  # never held as float when it is not stored so
    assert dataset.labels.tolist() == [0, 2, 1, 2, 0]
    as_images = (x.transpose(axes) if axes else x.reshape(5, *shape)).astype(np.float64)
    if dtype.startswith("float"):  # as they are; with `normalise` as whole numbers
        np.testing.assert_array_equal(every(dataset), as_images.astype(np.float32))
        assert dataset.normalisation.stated() == "values taken as they are"
        dataset = open_dataset(str(tmp_path / "toy.npz"), normalise=True)
    else:
        said = refused_to_normalise(tmp_path / "toy.npz")
        assert said == f"normalise=True: {tmp_path / 'toy.npz'}, of {dtype}, is standardised without it; leave it out"
    as_images /= {"uint8": 255, "uint16": 65535}.get(dtype, 1)
    mean, std = as_images.mean(axis=(0, 2, 3), keepdims=True), as_images.std(axis=(0, 2, 3), keepdims=True)
    np.testing.assert_allclose(every(dataset), (as_images - mean) / std, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(dataset.examples(np.asarray([3, 0, 3])), every(dataset)[[3, 0, 3]])
    assert every(dataset).dtype == np.float32


@pytest.mark.parametrize("normalise", [False, True])
def test_a_test_part_of_floats_is_made_as_the_training_part(tmp_path, normalise):
    x, x_test = RANDOM.normal(3, 2, (2, 6, 2, 5, 5)).astype(np.float32)
    path = str(save_npz(tmp_path / "toy.npz", x=x, y=[0, 1] * 3, x_test=x_test, y_test=[1] * 6))
    test = open_dataset(path, train=False, normalise=normalise)
    mean, std = (getattr(x, which)(axis=(0, 2, 3), keepdims=True) for which in ("mean", "std"))
    wanted = (x_test - mean) / std if normalise else x_test
    np.testing.assert_allclose(every(test), wanted, rtol=1e-4 if normalise else 0, atol=1e-5 if normalise else 0)


def refused_to_normalise(path):
    with pytest.raises(DataError) as caught:
        open_dataset(str(path), normalise=True)
    return str(caught.value)


def test_npz_with_a_test_part_is_normalised_as_the_training_part(tmp_path):
    x, x_test = pixels(4, 3, 2, 2), pixels(2, 3, 2, 2)
    path = save_npz(tmp_path / "toy.npz", x=x, y=[0, 1, 2, 3], x_test=x_test, y_test=[3, 3])
    train, test = open_dataset(str(path)), open_dataset(str(path), train=False)
    assert (len(test), test.classes, test.labels.tolist()) == (2, 4, [3, 3])
    assert test.normalisation == train.normalisation
    np.testing.assert_allclose(every(test), normalised(x_test, train.normalisation), rtol=1e-4, atol=1e-5)


def changed(index, value):
    x = np.zeros((4, 1, 2, 2), dtype=np.float64)
    x[index] = value
    return x


GOOD = {"x": np.zeros((4, 1, 2, 2)), "y": np.asarray([0, 1, 0, 1])}
OF_SHAPE = "(n, C, H, W), (n, H, W, C), (n, H, W) or (n, F) is needed"
BAD_ARRAYS = [
    pytest.param({"a": 1, "y": 2}, "no array called x; arrays x and y are needed, these are there: a, y", id="no-x"),
    pytest.param({"x": 1}, "no array called y; arrays x and y are needed, these are there: x", id="no-y"),
    pytest.param({}, "no array called x; arrays x and y are needed, these are there: none", id="none"),
    pytest.param({**GOOD, "x": np.zeros(4)}, f"x: shape (4,); {OF_SHAPE}", id="1-d"),
    pytest.param({**GOOD, "x": np.zeros((4, 1, 1, 1, 1))}, f"x: shape (4, 1, 1, 1, 1); {OF_SHAPE}", id="5-d"),
    pytest.param({**GOOD, "x": np.zeros((4, 0, 2))}, f"x: shape (4, 0, 2); {OF_SHAPE}", id="no-pixels"),
    pytest.param({**GOOD, "x": np.zeros((0, 2, 2))}, "x: no examples", id="no-examples"),
    pytest.param({**GOOD, "x": np.full((4, 2), "a")}, "x: values of type <U1; numbers are needed", id="text"),
    pytest.param({**GOOD, "x": changed(2, np.nan)}, "x: example 2 has NaN or infinite values", id="nan"),
    pytest.param({**GOOD, "x": changed(3, -np.inf)}, "x: example 3 has NaN or infinite values", id="inf"),
    pytest.param({**GOOD, "x": changed(1, 1e39)}, "x: example 1 has NaN or infinite values", id="past-float32"),
    pytest.param({**GOOD, "y": np.asarray([0, 1, 2])}, "y: 3 labels for 4 examples", id="fewer-labels"),
    pytest.param(
        {**GOOD, "y": np.zeros((4, 2), int)},
        "y: labels of shape (4, 2); one whole number an example is needed",
        id="one-hot",
    ),
    pytest.param({**GOOD, "y": np.zeros(4)}, "y: labels of type float64; whole numbers are needed", id="float-labels"),
    pytest.param(
        {**GOOD, "y": np.asarray([0, 1, -1, 0])},
        "y: label -1 of example 2 is not from 0 to 3, as there are 4 examples",
        id="minus",
    ),
    pytest.param(
        {**GOOD, "y": np.asarray([0, 4, 1, 0])},
        "y: label 4 of example 1 is not from 0 to 3, as there are 4 examples",
        id="more-classes-than-examples",
    ),
    pytest.param(
        {**GOOD, "x": np.asarray([{}, 1, 2, 3])},
        "x holds Python objects, which are not read; store numbers",
        id="objects",
    ),
]


@pytest.mark.parametrize(("arrays", "said"), BAD_ARRAYS)
def test_bad_npz(tmp_path, arrays, said):
    assert refused(save_npz(tmp_path / "toy.npz", **arrays)) == f"toy.npz: {said}"


TEST_PART = {"x_test": np.zeros((2, 1, 2, 2)), "y_test": np.asarray([0, 1])}
BAD_TEST_PARTS = [
    pytest.param({}, "has no test part; store one as x_test and y_test", id="none"),
    pytest.param({"x_test": TEST_PART["x_test"]}, "has no test part; store one as x_test and y_test", id="no-labels"),
    pytest.param(
        {**TEST_PART, "y_test": np.asarray([0, 2])}, "y_test: label 2 of example 1 is not from 0 to 1", id="labels"
    ),
    pytest.param(
        {**TEST_PART, "x_test": np.zeros((2, 1, 2, 3))},
        "x_test is float64 (1, 2, 3) an example, x is float64 (1, 2, 2)",
        id="shape",
    ),
    pytest.param(
        {**TEST_PART, "x_test": pixels(2, 1, 2, 2)},
        "x_test is uint8 (1, 2, 2) an example, x is float64 (1, 2, 2)",
        id="type",
    ),
    pytest.param(
        {**TEST_PART, "x_test": changed(3, np.nan)[2:]}, "x_test: example 1 has NaN or infinite values", id="nan"
    ),
]


@pytest.mark.parametrize(("arrays", "said"), BAD_TEST_PARTS)
def test_bad_test_parts_of_npz(tmp_path, arrays, said):
    assert refused(save_npz(tmp_path / "toy.npz", **GOOD, **arrays), train=False) == f"toy.npz: {said}"


def test_damaged_npz(tmp_path):
    path = tmp_path / "toy.npz"
    path.write_bytes(b"text")
    assert (
        refused(path)
        == "toy.npz: not an .npz archive: it looks like text (it begins with 'text'); numpy.savez writes one"
    )
    with path.open("wb") as stream:
        np.save(stream, np.zeros(3))
    assert refused(path) == "toy.npz: one array, not an .npz archive; numpy.savez writes one"
    path.write_bytes(pickle.dumps(Evil(tmp_path / "made")))
    assert refused(path) == (
        "toy.npz: not an .npz archive: it looks like a Python pickle, as torch.save writes; numpy.savez writes one"
    )
    save_npz(path, **GOOD)
    path.write_bytes(path.read_bytes()[:-40])
    assert refused(path) == "toy.npz: truncated or damaged; copy it again"
    save_npz(path, **GOOD)
    stream = bytearray(path.read_bytes())
    stream[200] ^= 1  # in the values of x: its checksum is wrong
    path.write_bytes(stream)
    assert refused(path) == "toy.npz: x cannot be read, truncated or damaged (BadZipFile: Bad CRC-32 for file 'x.npy')"
    assert not (tmp_path / "made").exists()


def test_members_of_npz_that_are_no_arrays_or_two(tmp_path):
    path = tmp_path / "toy.npz"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x.npy", b"text")
        archive.writestr("y.npy", b"text")
    assert refused(path) == "toy.npz: x is no array; save it again with numpy.savez"
    save_npz(path, **GOOD)
    with zipfile.ZipFile(path, "a") as archive, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that the name stands there already
        archive.writestr("x.npy", archive.read("x.npy"))
    assert refused(path) == "toy.npz: holds two arrays named 'x'; save it again with numpy.savez"


def test_npz_is_measured_in_pieces(tmp_path, monkeypatch):
    x = RANDOM.normal(1000, 0.01, (37, 2, 3, 4))
    path = save_npz(tmp_path / "toy.npz", x=x, y=np.arange(37) % 3)
    whole = open_dataset(str(path), normalise=True).normalisation
    monkeypatch.setattr(arrays, "CHUNK", 24 * 5)
    pieces = open_dataset(str(path), normalise=True).normalisation
    assert open_dataset(str(path)).normalisation.std == (1, 1)  # of floats that are looked through in pieces as well
    np.testing.assert_allclose(pieces.mean, x.mean(axis=(0, 2, 3)), rtol=1e-14)
    np.testing.assert_allclose(pieces.std, x.std(axis=(0, 2, 3)), rtol=1e-9)
    np.testing.assert_allclose(whole.std, x.std(axis=(0, 2, 3)), rtol=1e-9)
    x[36, 1, 2, 2] = np.nan
    assert refused(save_npz(path, x=x, y=np.arange(37) % 3)) == "toy.npz: x: example 36 has NaN or infinite values"


def test_a_constant_channel_becomes_zero():
    for value in (0.0, 0.1, -1e30):
        known = measure([np.full((3, 1, 2, 2), value)], 1)
        assert known.std == (1.0,)
        np.testing.assert_allclose(known.apply(np.full((1, 1, 2, 2), value)), 0, atol=abs(value) * 1e-7)


# --- trees of images ---


def files_of(dataset):
    return [dataset.source(i)[0] for i in range(len(dataset))]


def test_an_image_tree(tmp_path):
    held = save_tree(tmp_path / "bugs")
    train, test = open_dataset(str(tmp_path / "bugs")), open_dataset(str(tmp_path / "bugs"), train=False)
    assert (train.name, train.classes, train.class_names, train.shape) == ("bugs", 2, ("ant", "bee"), (3, 6, 6))
    assert train.labels.tolist() == [0, 0, 1, 1]
    places = ["ant/0.png", "ant/3.png", "bee/2.png", "bee/deep/1.png"]
    assert files_of(train) == [f"{tmp_path}/bugs/train/{place} (example {i})" for i, place in enumerate(places)]
    stored = np.stack([held[f"train/{place}"] for place in places]).transpose(0, 3, 1, 2)
    np.testing.assert_allclose(every(train), normalised(stored, IMAGENET), rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(train.examples(np.asarray([2, 0])), every(train)[[2, 0]])
    assert train.examples(np.asarray([], dtype=np.int64)).shape == (0, 3, 6, 6)
    assert test.labels.tolist() == [0, 0, 1, 1]
    assert all("/val/" in name for name in files_of(test))
    assert train.normalisation.source == "published for ImageNet"


def test_classes_without_parts_are_for_training(tmp_path):
    save_tree(tmp_path / "bugs", parts=("",))
    assert len(open_dataset(str(tmp_path / "bugs"))) == 4
    said = refused(tmp_path / "bugs", train=False)
    assert said == "bugs: has no test part; its class folders go into the folders train and val"


def test_a_tree_with_train_only(tmp_path):
    save_tree(tmp_path / "bugs", parts=("train/",))
    (tmp_path / "bugs/test/unlabelled").mkdir(parents=True)
    said = refused(tmp_path / "bugs", train=False)
    assert said == "bugs: has no test part; its class folders go into the folders train and val"


def test_test_comes_before_val(tmp_path):
    save_tree(tmp_path / "bugs", parts=("train/", "val/", "test/"))
    assert all("/test/" in name for name in files_of(open_dataset(str(tmp_path / "bugs"), train=False)))


def test_the_test_part_may_leave_classes_out_but_not_add_any(tmp_path):
    save_tree(tmp_path / "bugs", parts=("train/",))
    save_image(tmp_path / "bugs/val/bee/0.png", pixels(6, 6, 3))
    assert open_dataset(str(tmp_path / "bugs"), train=False).labels.tolist() == [1]
    (tmp_path / "bugs/val/cow").mkdir()
    assert refused(tmp_path / "bugs", train=False) == "bugs/val: class folders that bugs/train lacks: cow"


def test_tiny_imagenet(tmp_path):
    held = save_tiny(tmp_path / "tiny")
    train, test = open_dataset(str(tmp_path / "tiny")), open_dataset(str(tmp_path / "tiny"), train=False)
    assert (train.classes, train.class_names, train.shape) == (2, ("n01", "n02"), (3, 64, 64))
    assert train.labels.tolist() == [0, 0, 1, 1]
    assert test.labels.tolist() == [1, 0, 1]
    stored = np.stack([held[f"val/images/val_{i}.png"] for i in range(3)]).transpose(0, 3, 1, 2)
    np.testing.assert_allclose(every(test), normalised(stored, IMAGENET), rtol=1e-5, atol=1e-6)


BAD_ANNOTATIONS = [
    (
        "val_0.png\tn02\t0\nval_1.png\tn03\t0\n",
        "tiny/val/val_annotations.txt: line 2 has no class that is a folder of train",
    ),
    ("val_0.png n02\n", "tiny/val/val_annotations.txt: line 1 has no class that is a folder of train"),
    ("\nval_9.png\tn02\t0\n", "tiny/val/images/val_9.png: missing (line 2 of val_annotations.txt)"),
    ("../../secret.png\tn02\t0\n", "tiny/val/images/../../secret.png: missing (line 1 of val_annotations.txt)"),
    ("\n", "tiny/val/val_annotations.txt: no examples"),
]


@pytest.mark.parametrize(("text", "said"), BAD_ANNOTATIONS)
def test_bad_annotations(tmp_path, text, said):
    save_tiny(tmp_path / "tiny")
    (tmp_path / "tiny/val/val_annotations.txt").write_text(text)
    assert refused(tmp_path / "tiny", train=False) == said


def test_a_part_of_tiny_imagenet_alone(tmp_path):
    save_tiny(tmp_path / "tiny")
    assert refused(tmp_path / "tiny/val", within=tmp_path) == (
        "tiny/val: one part of Tiny-ImageNet; give the folder above it"
    )


def test_folders_without_images(tmp_path):
    save_tree(tmp_path / "bugs")
    (tmp_path / "bugs/train/cow").mkdir()
    (tmp_path / "bugs/train/cow/notes.txt").write_text("none yet")
    (tmp_path / "bugs/train/.thumbnails").mkdir()
    kinds = ".bmp, .jpeg, .jpg, .pgm, .png, .ppm, .tif, .tiff, .webp"
    assert refused(tmp_path / "bugs") == f"bugs/train/cow: no images in this class folder ({kinds})"
    (tmp_path / "bugs/train/aaa").mkdir()
    assert refused(tmp_path / "bugs") == f"bugs/train/aaa: no images in this class folder ({kinds})"
    (tmp_path / "empty/train").mkdir(parents=True)
    assert refused(tmp_path / "empty") == "empty/train: no class folders"


def test_unreadable_images_are_named(tmp_path):
    save_tree(tmp_path / "bugs", parts=("",))
    dataset = open_dataset(str(tmp_path / "bugs"))
    bad = tmp_path / "bugs/bee/2.png"

    def said(index=2):
        return refusal(tmp_path, dataset.examples, np.asarray([0, index]))

    good = bad.read_bytes()
    bad.write_bytes(b"no image")
    assert "2.png (example 2): cannot be read as an image (it looks like text (it begins with 'no image')); " in said()
    Image.fromarray(pixels(6, 6, 3)).save(bad, "EPS")  # which Pillow would have Ghostscript run
    assert "cannot be read as an image (it looks like text (it begins with '%!PS-Adobe" in said()
    bad.write_bytes(b"\x89PNG what follows is lost")
    assert said() == "bugs/bee/2.png (example 2): cannot be read as an image (damaged); replace it or take it out"
    bad.write_bytes(good[:60])
    assert said().startswith("bugs/bee/2.png (example 2): cannot be read as an image (")
    save_image(bad, np.full((6, 6), 300, dtype=np.uint16))
    assert said() == "bugs/bee/2.png (example 2): an image of more than 8 bits a channel; store it with 8"
    bad.unlink()
    assert said() == "bugs/bee/2.png (example 2): no such file"
    assert dataset.examples(np.asarray([0, 1, 3])).shape == (3, 3, 6, 6)
    (tmp_path / "bugs/ant/0.png").write_bytes(b"")
    assert refused(tmp_path / "bugs") == (
        "bugs/ant/0.png (example 0): cannot be read as an image (it looks like an empty file); replace it or take it out"
    )


def test_images_take_what_their_bytes_allow(tmp_path):
    save_tree(tmp_path / "bugs", parts=("",))
    dataset = open_dataset(str(tmp_path / "bugs"))
    bad = tmp_path / "bugs/bee/2.png"

    def said():
        return refusal(tmp_path, dataset.examples, np.asarray([2]))

    Image.new("1", (8_000, 8_000)).save(bad)
    size = bad.stat().st_size
    assert said() == (
        f"bugs/bee/2.png (example 2): 8000 x 8000 pixels, more than the {2**25 + 64 * size:,} that {size:,} bytes may have; "
        "replace it or take it out"
    )
    Image.new("1", (3_000_000, 1)).save(bad)  # as wide as this and six high it would have 108 million
    assert said() == (
        "bugs/bee/2.png (example 2): 3000000 x 1 pixels, too narrow to be made square; replace it or take it out"
    )
    bad.unlink()
    os.mkfifo(bad)  # which nobody will ever write to
    assert said() == "bugs/bee/2.png (example 2): a device or a pipe, not an image; take it out"


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "CMYK"])
def test_modes_become_colour(tmp_path, mode):
    picture = Image.fromarray(pixels(6, 6, 3)).convert(mode)
    (tmp_path / "t/a").mkdir(parents=True)
    picture.save(tmp_path / f"t/a/0.{'tif' if mode == 'CMYK' else 'png'}")
    expected = np.asarray(picture.convert("RGB")).transpose(2, 0, 1)[None]
    np.testing.assert_allclose(
        every(open_dataset(str(tmp_path / "t"))), normalised(expected, IMAGENET), rtol=1e-5, atol=1e-6
    )


def test_images_of_other_sizes_are_made_square(tmp_path):
    flat = np.zeros((8, 16, 3), dtype=np.uint8)
    flat[:, 4:12] = 255  # the middle
    save_image(tmp_path / "t/a/0.png", flat)
    wide = np.repeat(np.repeat(flat, 2, axis=0), 2, axis=1)
    save_image(tmp_path / "t/a/1.png", wide)
    save_image(tmp_path / "t/b/0.png", np.ascontiguousarray(flat.transpose(1, 0, 2)))
    dataset = open_dataset(str(tmp_path / "t"))
    assert dataset.shape == (3, 8, 8)
    white = every(dataset) * np.reshape(IMAGENET.std, (1, 3, 1, 1)) + np.reshape(IMAGENET.mean, (1, 3, 1, 1))
    np.testing.assert_allclose(white[[0, 2]], 1, rtol=1e-5)
    np.testing.assert_allclose(white[1, :, :, 1:-1], 1, rtol=1e-5)  # its edges are blurred
    save_image(tmp_path / "large/a/0.png", np.zeros((300, 700, 3), dtype=np.uint8))
    assert open_dataset(str(tmp_path / "large")).shape == (3, 256, 256)


def test_images_without_pillow(tmp_path, monkeypatch):
    save_tree(tmp_path / "bugs")
    monkeypatch.setitem(sys.modules, "PIL.Image", None)
    assert refused(tmp_path / "bugs") == "bugs/train/ant/0.png (example 0): needs Pillow; pip install 'pai-cli[images]'"


# --- Hugging Face ---


def test_a_saved_dataset_dict(tmp_path, hub, images, capfd):
    parts = {"train": ([2, 0, 1, 0], images[:4]), "test": ([1, 1], images[4:])}
    saved = {name: hf_split(hub, [png(one) for one in held], labels) for name, (labels, held) in parts.items()}
    path = hf_save(hub.DatasetDict(saved), tmp_path / "pets")
    capfd.readouterr()
    train, test = open_dataset(str(path)), open_dataset(str(path), train=False)
    assert capfd.readouterr() == ("", "")
    assert (train.name, train.classes, train.class_names) == ("pets", 3, ("cat", "dog", "eel"))
    assert (train.shape, train.labels.tolist(), test.labels.tolist()) == ((3, 5, 5), [2, 0, 1, 0], [1, 1])
    stored = np.stack(images).transpose(0, 3, 1, 2)
    scaled = stored[:4] / 255
    known = train.normalisation
    np.testing.assert_allclose(known.mean, scaled.mean(axis=(0, 2, 3)), rtol=1e-12)
    np.testing.assert_allclose(known.std, scaled.std(axis=(0, 2, 3)), rtol=1e-12)
    assert known.source == "measured on the training set"
    assert test.normalisation == known
    np.testing.assert_allclose(every(train), normalised(stored[:4], known), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(every(test), normalised(stored[4:], known), rtol=1e-4, atol=1e-5)


def test_a_saved_dataset_of_grey_images_with_numbers_for_labels(tmp_path, hub):
    grey = [pixels(4, 4) for _ in range(4)]
    split = hf_split(hub, [png(one) for one in grey], [1, 0, 1, 2], kind=hub.Value("int32"), image="picture")
    dataset = open_dataset(str(hf_save(split.with_format("torch"), tmp_path / "grey")))
    assert (dataset.classes, dataset.class_names, dataset.shape) == (3, (), (1, 4, 4))
    np.testing.assert_allclose(
        every(dataset), normalised(np.stack(grey)[:, None], dataset.normalisation), rtol=1e-4, atol=1e-5
    )
    assert refused(tmp_path / "grey", train=False) == (
        "grey: has no test part; save a DatasetDict with the splits train and test"
    )


def test_a_test_split_with_secret_labels_is_passed_over(tmp_path, hub, images):
    held = [png(one) for one in images[:3]]
    splits = {"train": [0, 1, 2], "test": [-1, -1, -1], "validation": [2, 2, 0]}
    saved = hub.DatasetDict({name: hf_split(hub, held, labels) for name, labels in splits.items()})
    path = hf_save(saved, tmp_path / "pets")
    assert open_dataset(str(path), train=False).labels.tolist() == [2, 2, 0]
    del saved["validation"]
    path = hf_save(saved, tmp_path / "fewer")
    assert refused(path, train=False) == "fewer: has no test part; save a DatasetDict with the splits train and test"


def test_labels_of_a_test_split_are_compared_with_the_training_split(tmp_path, hub, images):
    held = [png(one) for one in images[:3]]
    kind = hub.Value("int64")
    saved = hub.DatasetDict(
        train=hf_split(hub, held, [0, 1, 1], kind=kind), test=hf_split(hub, held, [0, 1, 2], kind=kind)
    )
    path = hf_save(saved, tmp_path / "pets")
    assert open_dataset(str(path)).classes == 2
    assert refused(path, train=False) == "pets/test: label 2 of example 2 is not from 0 to 1"


def test_measuring_on_some_is_stated(tmp_path, hub, images, monkeypatch):
    path = hf_save(hf_split(hub, [png(one) for one in images], [0, 1, 2, 0, 1, 2]), tmp_path / "pets")
    monkeypatch.setattr(huggingface, "MEASURED_ON", 3)
    known = open_dataset(str(path)).normalisation
    assert known.source == "measured on 3 examples of the training set"
    sample = np.stack([images[i] for i in (0, 2, 5)]) / 255
    np.testing.assert_allclose(known.mean, sample.mean(axis=(0, 1, 2)), rtol=1e-12)


def test_fine_labels_are_taken(tmp_path, hub, images):
    names = hub.ClassLabel(names=["a", "b"])
    features = hub.Features(img=hub.Image(), fine_label=names, coarse_label=hub.ClassLabel(names=["c"]))
    rows = {"img": [{"bytes": png(images[0]), "path": None}] * 2, "fine_label": [1, 0], "coarse_label": [0, 0]}
    path = hf_save(hub.Dataset.from_dict(rows, features=features), tmp_path / "pets")
    assert open_dataset(str(path)).labels.tolist() == [1, 0]


def test_bad_examples_of_a_saved_dataset(tmp_path, hub, images):
    held = [png(images[0]), b"no image", None]
    dataset = open_dataset(str(hf_save(hf_split(hub, [held[0]] * 3, [0, 1, 2]), tmp_path / "good")))
    assert len(every(dataset)) == 3
    assert refused(hf_save(hf_split(hub, held, [0, 1, 2]), tmp_path / "bad")) == (
        "bad (example 1): cannot be read as an image (it looks like text (it begins with 'no image')); "
        "replace it or take it out"
    )
    assert refused(hf_save(hf_split(hub, [held[0], None], [0, 1]), tmp_path / "none")) == (
        "none (example 1): no image in column img"
    )
    assert refused(hf_save(hf_split(hub, [held[0]] * 2, [0, -1]), tmp_path / "minus")) == (
        "minus: label -1 of example 1 is not from 0 to 2"
    )
    assert refused(hf_save(hf_split(hub, [held[0]] * 2, [0, None]), tmp_path / "missing")) == (
        "missing: example 1 has no label"
    )


def test_columns_that_are_missing(tmp_path, hub, images):
    def save(name, features, rows):
        return hf_save(hub.Dataset.from_dict(rows, features=hub.Features(features)), tmp_path / name)

    number, picture = hub.Value("int64"), {"bytes": png(images[0]), "path": None}
    assert refused(save("text", {"text": number, "label": number}, {"text": [1], "label": [0]})) == (
        "text: no column of images; its columns are text, label"
    )
    assert refused(save("two", {"a": hub.Image(), "b": hub.Image()}, {"a": [picture], "b": [picture]})) == (
        "two: several columns of images (a, b); its columns are a, b"
    )
    assert refused(save("bare", {"a": hub.Image(), "n": number}, {"a": [picture], "n": [0]})) == (
        "bare: no column of labels (label); its columns are a, n"
    )
    words = save("words", {"a": hub.Image(), "label": hub.Value("string")}, {"a": [picture], "label": ["x"]})
    assert refused(words) == "words: labels of type <U1; whole numbers are needed"


def test_damaged_saved_datasets(tmp_path, hub, images):
    path = hf_save(hf_split(hub, [png(images[0])], [0]), tmp_path / "pets")
    arrow = next(path.glob("*.arrow"))
    arrow.write_bytes(arrow.read_bytes()[:100])
    said = refused(path)
    assert said.startswith("pets: truncated or damaged (")
    assert said.endswith("); save it again")
    (path / "state.json").write_text("{")
    assert refused(path).startswith("pets: truncated or damaged (JSONDecodeError: ")
    other = hub.DatasetDict(test=hf_split(hub, [png(images[0])], [0]))
    assert refused(hf_save(other, tmp_path / "other")) == "other: no split called train; there are test"


def test_hugging_face_without_its_package(tmp_path, monkeypatch):
    (tmp_path / "state.json").write_text(json.dumps({}))
    monkeypatch.setitem(sys.modules, "datasets", None)
    assert refused(tmp_path, within=tmp_path) == ".: needs datasets; pip install 'pai-cli[hf]'"


# --- recognising ---

TAKES = (
    "data= takes digits, a CIFAR or MNIST (IDX) folder, an .npz file, a saved Hugging Face data set or a folder of class "
    "folders"
)


def test_what_is_not_data(tmp_path):
    assert refused(tmp_path / "none") == f"none: no such file or folder; {TAKES}"
    (tmp_path / "notes.txt").write_text("notes")
    assert (
        refused(tmp_path / "notes.txt")
        == f"notes.txt: no data of a known kind: it looks like text (it begins with 'notes'); {TAKES}"
    )
    (tmp_path / "cifar.tar.gz").write_bytes(b"\x1f\x8b")
    assert refused(tmp_path / "cifar.tar.gz") == "cifar.tar.gz: an archive; unpack it and give the folder"
    (tmp_path / "empty").mkdir()
    assert refused(tmp_path / "empty") == f"empty: no data of a known kind; {TAKES}"


def test_digits_is_a_word_and_dot_digits_a_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    save_tree(tmp_path / "digits", parts=("",))
    assert len(open_dataset("digits")) == 1442
    assert len(open_dataset("./digits")) == 4


def test_a_file_that_may_not_be_read(tmp_path, monkeypatch):
    def no(path, *_, **__):
        raise PermissionError(13, "Permission denied", str(path))

    path = save_npz(tmp_path / "toy.npz", **GOOD)
    monkeypatch.setattr(Path, "open", no)
    assert refused(path) == "toy.npz: no permission to read it"


def test_kinds_are_light():
    assert list(KINDS) == [DIGITS, "cifar-python", "cifar-binary", "idx", "npz", "hf", "images"]
    assert all(":" in kind.opener for kind in KINDS.values())
    heavy = ("numpy", "torch", "sklearn", "PIL", "datasets")
    code = f"import sys, pai_cli.data.registry; print([m for m in {heavy} if m in sys.modules])"
    ran = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "[]"


def test_docs_name_every_kind():
    text = (ROOT / "docs/data.md").read_text(encoding="utf-8")
    assert [kind for kind in KINDS if f"`{kind}`" not in text] == []


# --- choosing ---


def test_choosing_takes_as_many_of_each_class():
    labels = RANDOM.integers(0, 4, 100)
    toy = in_memory(np.zeros((100, 1, 1, 1)), labels)
    chosen = choose(toy, 5, seed=3)
    assert chosen.dtype == np.int64
    assert chosen.tolist() == sorted(set(chosen.tolist()))
    assert np.bincount(labels[chosen]).tolist() == [5, 5, 5, 5]
    np.testing.assert_array_equal(chosen, choose(toy, 5, seed=3))
    assert chosen.tolist() != choose(toy, 5, seed=4).tolist()
    assert set(choose(toy, 2, seed=3)) < set(chosen)


def test_choosing_digits_is_fixed():
    """A change here changes every mask made from data, for the same seed."""
    assert choose(open_dataset("digits"), 1, seed=0).tolist() == [19, 60, 521, 817, 852, 984, 1082, 1289, 1298, 1342]


def test_every_example_is_chosen_alike():
    toy = in_memory(np.zeros((10, 1, 1, 1)), [0] * 5 + [1] * 5)
    counts = np.bincount(np.concatenate([choose(toy, 1, seed) for seed in range(1000)]), minlength=10)
    assert counts.sum() == 2000
    assert counts.min() > 150  # 200 each, by chance 200 +- 13


def test_choosing_what_is_not_there(tmp_path):
    toy = in_memory(np.zeros((5, 1, 1, 1)), [0, 0, 0, 2, 2], classes=3)
    assert refusal(tmp_path, choose, toy, 1, 0) == "toy: class 1 has no example"
    toy = in_memory(np.zeros((5, 1, 1, 1)), [0, 0, 0, 1, 1])
    assert refusal(tmp_path, choose, toy, 3, 0, error=ParameterError) == (
        "toy: class 1 has 2 examples, and 3 of each class are taken; give per_class=2 or less"
    )
    assert refusal(tmp_path, choose, toy, 0, 0, error=ParameterError) == "per_class=0: give 1 or more"
    save_tree(tmp_path / "bugs", parts=("",))
    assert refusal(tmp_path, choose, open_dataset(str(tmp_path / "bugs")), 3, 0, error=ParameterError) == (
        "bugs: class 0 (ant) has 2 examples, and 3 of each class are taken; give per_class=2 or less"
    )


def test_the_number_of_classes_is_checked(tmp_path):
    digits = open_dataset("digits")
    check_classes(digits, 10, "net.safetensors")
    assert refusal(tmp_path, check_classes, digits, 100, "net.safetensors") == (
        "net.safetensors: the network has 100 outputs, but digits has 10 classes; give data and a network of as many"
    )
    toy = in_memory(np.zeros((4, 1, 1, 1)), [1, 2, 3, 3])
    assert refusal(tmp_path, check_classes, toy, 3, "net.pt") == (
        "net.pt: the network has 3 outputs, but toy has 4 classes; its labels begin at 1, subtract 1 from them"
    )


# --- fitting to a network ---


@pytest.mark.parametrize("before", [(8, 8), (5, 9), (64, 48), (1, 3)])
@pytest.mark.parametrize("after", [(32, 32), (8, 8), (3, 4), (7, 1), (224, 100)])
def test_resizing_is_pillow_s_and_torch_s(before, after):
    images = RANDOM.normal(size=(2, 3, *before)).astype(np.float32)
    found = resized(images, *after)
    for example, channel in np.ndindex(2, 3):
        picture = Image.fromarray(images[example, channel]).resize(after[::-1], Image.Resampling.BILINEAR)
        np.testing.assert_allclose(found[example, channel], np.asarray(picture), atol=1e-5)
    if after[1] > 1:  # torch 2.13 writes the first row everywhere where the width becomes 1
        expected = functional.interpolate(torch.from_numpy(images), after, mode="bilinear", antialias=True)
        np.testing.assert_allclose(found, expected.numpy(), atol=1e-4)


def test_resizing_keeps_what_is_constant_and_the_mean_of_halves():
    np.testing.assert_allclose(resized(np.full((1, 1, 8, 8), 3, np.float32), 31, 5), 3, rtol=1e-6)
    assert resized(np.asarray([[[[0.0, 1.0]]]], np.float32), 1, 4).ravel().tolist() == [0, 0.25, 0.75, 1]


def test_a_batch_as_stored():
    digits = open_dataset("digits")
    indices = np.asarray([7, 3])
    for shape in (None, (1, 8, 8)):
        batch = batch_for(digits, indices, shape)
        assert (batch.inputs.dtype, batch.labels.dtype) == (np.float32, np.int64)
        np.testing.assert_array_equal(batch.inputs, digits.examples(indices))
        assert batch.labels.tolist() == digits.labels[[7, 3]].tolist()


def test_grey_becomes_three_channels_and_larger():
    digits = open_dataset("digits")
    batch = batch_for(digits, np.arange(4), (3, 32, 32))
    assert batch.inputs.shape == (4, 3, 32, 32)
    assert batch.inputs.flags.c_contiguous
    np.testing.assert_array_equal(batch.inputs[:, 0], batch.inputs[:, 2])
    grey = torch.from_numpy(digits.examples(np.arange(4)))
    expected = functional.interpolate(grey, (32, 32), mode="bilinear", antialias=True)
    np.testing.assert_allclose(batch.inputs[:, 1], expected[:, 0].numpy(), atol=1e-5)


def test_an_example_does_not_depend_on_the_others_in_its_batch():
    digits = open_dataset("digits")
    together = batch_for(digits, np.arange(20), (3, 28, 28)).inputs
    alone = batch_for(digits, np.asarray([13]), (3, 28, 28)).inputs
    np.testing.assert_array_equal(together[13], alone[0])


def test_colour_becomes_grey():
    stored = RANDOM.normal(size=(3, 3, 4, 4)).astype(np.float32)
    inputs = batch_for(in_memory(stored, [0, 1, 2]), np.arange(3), (1, 4, 4)).inputs
    np.testing.assert_allclose(inputs[:, 0], np.tensordot(stored, LUMA, (1, 0)), atol=1e-6)
    assert sum(LUMA) == pytest.approx(1)


FLAT = [
    pytest.param((1, 8, 8), (64,), (64,), id="image-to-flat"),
    pytest.param((1, 8, 8), (784,), (784,), id="grey-resized-to-flat"),
    pytest.param((3, 4, 4), (12,), (12,), id="colour-resized-to-flat"),
    pytest.param((1, 1, 784), (1, 28, 28), (1, 28, 28), id="flat-to-image"),
    pytest.param((1, 1, 48), (3, 4, 4), (3, 4, 4), id="flat-to-colour"),
    pytest.param((1, 1, 5), (5,), (5,), id="flat"),
    pytest.param((1, 4, 20), (4, 20), (4, 20), id="signals"),
]


@pytest.mark.parametrize(("stored", "wanted", "shape"), FLAT)
def test_flat_inputs(stored, wanted, shape):
    values = RANDOM.normal(size=(2, *stored)).astype(np.float32)
    inputs = batch_for(in_memory(values, [0, 1]), np.arange(2), wanted).inputs
    assert inputs.shape == (2, *shape)
    if values[0].size == inputs[0].size:
        np.testing.assert_array_equal(inputs.ravel(), values.ravel())


MISFITS = [
    ((1, 8, 8), (24,), "1x8x8", "24"),
    ((1, 8, 8), (0,), "1x8x8", "0"),
    ((1, 8, 8), (4, 8, 8), "1x8x8", "4x8x8"),
    ((3, 8, 8), (2, 8, 8), "3x8x8", "2x8x8"),
    ((3, 8, 8), (8, 8), "3x8x8", "8x8"),
    ((3, 8, 8), (3, 2, 8, 8), "3x8x8", "3x2x8x8"),
    ((1, 8, 8), (1, 0, 8), "1x8x8", "1x0x8"),
    ((1, 1, 10), (3, 4, 4), "10", "3x4x4"),
    ((1, 1, 10), (25,), "10", "25"),
]


@pytest.mark.parametrize(("stored", "wanted", "have", "want"), MISFITS)
def test_what_cannot_be_fitted(tmp_path, stored, wanted, have, want):
    toy = in_memory(np.zeros((2, *stored), np.float32), [0, 1])
    assert refusal(tmp_path, batch_for, toy, np.arange(2), wanted) == (
        f"toy: its examples ({have}) cannot be made into the network's inputs ({want})"
    )


def test_a_million_images_are_not_held_as_floats():
    """A stored array that takes no memory: floats of all of it would take 12 GB."""
    stored = np.broadcast_to(np.uint8(7), (1_000_000, 3, 32, 32))
    toy = in_memory(stored, np.arange(1_000_000) % 10, normalisation=CIFAR["cifar-10"])
    assert batch_for(toy, choose(toy, 10, seed=0), (3, 32, 32)).inputs.shape == (100, 3, 32, 32)
