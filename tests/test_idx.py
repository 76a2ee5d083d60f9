"""IDX files: what they hold comes back, whatever they are called and packed in; each wrong one is refused in one line."""

import gzip
import os
import random

import numpy as np
import pytest
from fuzz.damaged import damage

from pai_cli.data.layouts import read_from
from pai_cli.data.registry import open_dataset
from pai_cli.errors import DataError
from pai_cli.telling import heard_by

RANDOM = np.random.default_rng(3)
IMAGES = {
    "train": RANDOM.integers(0, 256, (6, 5, 4), dtype=np.uint8),
    "t10k": RANDOM.integers(0, 256, (3, 5, 4), dtype=np.uint8),
}
LABELS = {"train": [2, 0, 1, 1, 2, 0], "t10k": [1, 1, 0]}


def idx(array, kind=8):
    array = np.asarray(array, dtype=np.uint8)
    sizes = b"".join(size.to_bytes(4, "big") for size in array.shape)
    return bytes((0, 0, kind, array.ndim)) + sizes + array.tobytes()


def save(folder, prefix="", labels=LABELS, *, packed=False):
    folder.mkdir(exist_ok=True)
    suffix, pack = (".gz", gzip.compress) if packed else ("", bytes)
    for part, images in IMAGES.items():
        (folder / f"{prefix}{part}-images-idx3-ubyte{suffix}").write_bytes(pack(idx(images)))
        (folder / f"{prefix}{part}-labels-idx1-ubyte{suffix}").write_bytes(pack(idx(labels[part])))
    return folder


def both(path):
    return [open_dataset(str(path), train=train) for train in (True, False)]


def refused(path, *, train=True):
    with pytest.raises(DataError) as caught:
        open_dataset(str(path), train=train)
    assert "\n" not in str(caught.value)
    return str(caught.value).replace(str(path.parent) + os.sep, "")


def told(call):
    said = []
    with heard_by(said.append, said.append):
        found = call()
    return found, said


@pytest.mark.parametrize("packed", [False, True])
def test_what_is_in_the_files_comes_back(tmp_path, packed):
    train, test = both(save(tmp_path / "toy", packed=packed))
    for dataset, part in ((train, "train"), (test, "t10k")):
        assert (dataset.name, dataset.classes, dataset.shape) == ("toy", 3, (1, 5, 4))
        np.testing.assert_array_equal(dataset.stored[:, 0], IMAGES[part])
        assert dataset.labels.tolist() == LABELS[part]
    assert train.labels.dtype == np.int64
    scaled = IMAGES["train"] / 255
    np.testing.assert_allclose(
        train.examples(np.arange(6))[:, 0], (scaled - scaled.mean()) / scaled.std(), rtol=1e-5, atol=1e-6
    )
    assert test.normalisation == train.normalisation


def test_a_file_stands_for_its_set(tmp_path):
    save(tmp_path / "raw")
    other = {"train": [0, 3, 0, 1, 2, 3], "t10k": [0, 0, 0]}
    save(tmp_path / "raw", "other_", other)
    taken = open_dataset(str(tmp_path / "raw/other_train-images-idx3-ubyte"))
    assert (taken.name, taken.classes, taken.labels.tolist()) == ("other", 4, other["train"])
    assert open_dataset(str(tmp_path / "raw/t10k-labels-idx1-ubyte")).labels.tolist() == LABELS["train"]
    assert refused(tmp_path / "raw") == (
        "raw: holds several data sets; give the path of one's training images "
        "(train-images-idx3-ubyte, other_train-images-idx3-ubyte)"
    )


@pytest.mark.parametrize("name", ["train-images.idx3-ubyte", "train_images_idx3_ubyte", "train-images-idx3-ubyte.gz"])
def test_other_names_for_the_same(tmp_path, name):
    """Dots and underscores, as others distribute it; a name that says it is packed when it is not."""
    folder = save(tmp_path / "toy")
    (folder / "train-images-idx3-ubyte").rename(folder / name)
    assert len(open_dataset(str(folder))) == 6


def test_the_unpacked_file_is_taken(tmp_path):
    folder = save(tmp_path / "toy")
    (folder / "train-labels-idx1-ubyte.gz").write_bytes(b"not looked at")
    assert open_dataset(str(folder)).labels.tolist() == LABELS["train"]


def test_emnist_is_turned_upright_and_its_letters_begin_at_0(tmp_path):
    from_one = {"train": [1, 3, 2, 2, 1, 3], "t10k": [3, 1, 2]}
    folder = save(tmp_path / "gzip", "emnist-letters-", from_one, packed=True)
    (train, test), said = told(lambda: both(folder))
    assert (train.name, train.classes, train.shape) == ("emnist-letters", 3, (1, 4, 5))
    np.testing.assert_array_equal(train.stored[:, 0], IMAGES["train"].transpose(0, 2, 1))
    assert (train.labels.tolist(), test.labels.tolist()) == ([0, 2, 1, 1, 0, 2], [2, 0, 1])
    assert said[:2] == [
        "emnist-letters: EMNIST stores rows and columns exchanged; its images are turned upright",
        "emnist-letters: its labels begin at 1; class 1 is output 0, class 3 is output 2",
    ]
    (folder / "emnist-letters-t10k-labels-idx1-ubyte.gz").write_bytes(gzip.compress(idx([3, 0, 2])))
    assert refused(folder, train=False) == (
        "gzip/emnist-letters-t10k-labels-idx1-ubyte.gz: label 0 of example 1, and the training labels begin at 1"
    )


def test_other_sets_stay_as_they_are(tmp_path):
    """Letters that someone numbered from 0; a set of digits without a 0."""
    (letters, _), said = told(lambda: both(save(tmp_path / "a", "emnist-letters-")))
    assert letters.labels.tolist() == LABELS["train"]
    assert len(said) == 2  # one a part: turned upright
    no_zero = save(tmp_path / "b", labels={**LABELS, "train": [1, 2, 1, 2, 1, 2]})
    assert refused(no_zero) == (
        "b/train-labels-idx1-ubyte: labels run from 1 to 2, and classes are counted from 0; subtract 1 from each"
    )


IMAGE_FILE = idx(IMAGES["train"])
HUGE = bytes((0, 0, 8, 3)) + b"\xff" * 12
AGAIN = "copy it again"
DAMAGED = f"truncated or damaged, its gzip does not unpack; {AGAIN}"
FAULTS = {
    "empty": (b"", f"the file is empty; {AGAIN}"),
    "labels": (
        idx(LABELS["train"]),
        "begins with 2049, and images with 2051: it holds labels; give each file its own name again",
    ),
    "another": (
        b"\x89PNG\r\n\x1a\n",
        "begins with 2303741511, and images with 2051: it looks like a picture; copy it again",
    ),
    "floats": (
        idx(IMAGES["train"], kind=13),
        "begins with 3331, and images with 2051: it looks like bytes of no known format; copy it again",
    ),
    "no-header": (IMAGE_FILE[:9], f"truncated or damaged: its header is cut short; {AGAIN}"),
    "short": (IMAGE_FILE[:-1], f"truncated or damaged: its header tells of 120 values, and 119 are there; {AGAIN}"),
    "long": (IMAGE_FILE + b"1", f"truncated or damaged: its header tells of 120 values, and more are there; {AGAIN}"),
    "huge": (HUGE, f"truncated or damaged: its header tells of more than 10^15 values, and 0 are there; {AGAIN}"),
    "none": (idx(IMAGES["train"][:0]), "no examples"),
    "no-pixels": (idx(IMAGES["train"][:, :0]), "images of 0 x 4 pixels"),
    "fewer": (idx(IMAGES["train"][:5]), None),
    "gz-cut": (gzip.compress(IMAGE_FILE)[:-9], DAMAGED),
    "gz-flipped": (gzip.compress(IMAGE_FILE)[:-8] + b"\0" * 8, DAMAGED),
    "gz-bad-start": (b"\x1f\x8b" + b"\0" * 30, DAMAGED),
    "gz-huge": (
        gzip.compress(HUGE),
        "would unpack to more than 10^15 bytes, more than 1,073,741,824 + 64 times its own; unpack it with gunzip",
    ),
    "gz-short": (
        gzip.compress(IMAGE_FILE[:-1]),
        f"truncated or damaged: its header tells of 120 values, and 119 are there; {AGAIN}",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_wrong_files(tmp_path, fault):
    content, said = FAULTS[fault]
    folder = save(tmp_path / "toy")
    (folder / "train-images-idx3-ubyte").write_bytes(content)
    expected = (
        f"toy/train-images-idx3-ubyte: {said}" if said else "toy/train-labels-idx1-ubyte: 6 labels for 5 examples"
    )
    assert refused(folder) == expected


def test_a_bomb_is_not_unpacked(tmp_path, monkeypatch):
    """Of what follows the header's count no more than a byte is read."""
    folder = save(tmp_path / "toy")
    (folder / "train-images-idx3-ubyte").write_bytes(gzip.compress(IMAGE_FILE + bytes(10**7)))
    asked, read = [], gzip.GzipFile.read
    monkeypatch.setattr(gzip.GzipFile, "read", lambda self, size=-1: asked.append(size) or read(self, size))
    assert refused(folder) == (
        f"toy/train-images-idx3-ubyte: truncated or damaged: its header tells of 120 values, and more are there; {AGAIN}"
    )
    assert (min(asked), sum(asked)) == (4, 4 + 12 + 121)


def test_missing_files(tmp_path):
    folder = save(tmp_path / "toy", "k-")
    (folder / "k-train-labels-idx1-ubyte").unlink()
    name = "toy/k-train-labels-idx1-ubyte"
    assert refused(folder) == f"{name}: missing, and so is k-train-labels-idx1-ubyte.gz; put it there"
    save(folder, "k-")
    (folder / "k-t10k-images-idx3-ubyte").unlink()
    name = "toy/k-t10k-images-idx3-ubyte"
    assert refused(folder, train=False) == f"{name}: missing, and so is k-t10k-images-idx3-ubyte.gz; put it there"
    (folder / "k-t10k-labels-idx1-ubyte").unlink()
    assert refused(folder, train=False) == (
        "toy: has no test part; put its t10k-images and t10k-labels beside the training files"
    )
    assert len(open_dataset(str(folder))) == 6


def test_wrong_test_parts(tmp_path):
    folder = save(tmp_path / "toy")
    (folder / "t10k-labels-idx1-ubyte").write_bytes(idx([0, 3, 1]))
    assert refused(folder, train=False) == "toy/t10k-labels-idx1-ubyte: label 3 of example 1 is not from 0 to 2"
    (folder / "t10k-labels-idx1-ubyte").write_bytes(idx([0, 2, 1]))
    (folder / "t10k-images-idx3-ubyte").write_bytes(idx(IMAGES["t10k"].transpose(0, 2, 1)))
    assert refused(folder, train=False) == (
        "toy/t10k-images-idx3-ubyte: images of 4 x 5, and those for training are 5 x 4 pixels"
    )


def test_its_files_are_those_that_are_read(tmp_path):
    """So that no output may replace one."""
    folder = save(tmp_path / "toy")
    (folder / "notes.txt").write_text("no part of it")
    for path in (folder, folder / "train-images-idx3-ubyte"):
        files, folders = read_from(path)
        assert set(files) == {path, *folder.glob("*ubyte")}
        assert folders == {}


@pytest.mark.parametrize("packed", [False, True])
def test_a_damaged_file_is_refused_in_one_line_or_read(tmp_path, packed):
    """Whatever is done to its bytes."""
    folder = save(tmp_path / "toy", packed=packed)
    path = folder / f"train-images-idx3-ubyte{'.gz' * packed}"
    whole, refusals = path.read_bytes(), []
    for seed in range(150):
        path.write_bytes(damage(whole, random.Random(seed)))
        try:
            read = len(open_dataset(str(folder)))
        except DataError as error:
            refusals.append(str(error))
        else:
            assert read == len(LABELS["train"])
    assert refusals
    assert [said for said in refusals if "\n" in said or not said.startswith(str(folder))] == []
