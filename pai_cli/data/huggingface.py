"""A data set of images that `save_to_disk` of the package `datasets` wrote. Nothing is fetched from anywhere."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pai_cli.data.arrays import check_labels, no_test_part
from pai_cli.data.extras import need
from pai_cli.data.images import ImageDataset, Source, in_chunks, looked_at
from pai_cli.data.layouts import HF_DICT, HF_ONE, TEST_PARTS
from pai_cli.data.normalise import measure
from pai_cli.errors import DataError
from pai_cli.files.first_bytes import check_readable
from pai_cli.files.messages import one_line
from pai_cli.files.ordering import plain_file_name
from pai_cli.printable import shortened

LABELS = ("label", "labels", "fine_label")
"""Columns that labels are taken from, the first that is there; else the only one of type ClassLabel."""

MEASURED_ON = 2048
"""How many training examples, evenly spaced, mean and deviation are measured on: decoding all would take minutes."""


@dataclass(frozen=True)
class Split:
    """One split: its rows, with images as they are stored, and what its columns are called. `where` is for errors.

    An image that is no part of the rows is a file in the folder `root`.
    """

    root: Path
    rows: Any
    pictures: Any
    image: str
    label: str
    where: str

    def source(self, index: int) -> Source:
        """What to call an example, and the bytes of its image or the file it is in."""
        where = f"{self.where} (example {index})"
        held = self.pictures[index][self.image]
        if not isinstance(held, dict) or (held.get("bytes") is None and held.get("path") is None):
            raise DataError(f"{where}: no image in column {self.image}")
        if held["bytes"] is not None:
            return where, held["bytes"]
        path = (self.root / held["path"]).resolve()
        if not path.is_relative_to(self.root.resolve()) or (path.exists() and not path.is_file()):
            raise DataError(f"{where}: its image is no file in the data set's folder; save it with its images embedded")
        return where, path

    def labels(self) -> list[int | None]:
        """The labels as they are stored."""
        column: list[int | None] = self.rows.select_columns([self.label])[:][self.label]
        return column


def open_saved(folder: Path, *, train: bool) -> ImageDataset:
    """The split `train` or the test part of a saved `DatasetDict`; a saved `Dataset` is for training as a whole.

    Images are grey when the first one for training is, and square, as large as its shorter side (at most
    `images.LARGEST_SIDE`). Raises `DataError`.
    """
    splits = _splits(folder)
    training = splits["train"]
    split = training if train else _test_part(folder, splits)
    names = _class_names(training)
    labels = check_labels(_without_missing(training), len(training.rows), training.where, len(names) or None)
    classes = len(names) or int(labels.max()) + 1
    if split is not training:
        labels = check_labels(_without_missing(split), len(split.rows), split.where, classes)
    mode, side = looked_at(*training.source(0))
    sample = _evenly_spaced(len(training.rows))
    source = "measured on the training set"
    if len(sample) < len(training.rows):
        source = f"measured on {len(sample)} examples of the training set"
    normalisation = measure(in_chunks(training.source, sample, mode, side), 255, source)
    shape = (1 if mode == "L" else 3, side, side)
    return ImageDataset(folder.name, classes, labels, shape, mode, normalisation, split.source, class_names=names)


def _evenly_spaced(count: int) -> NDArray[np.int64]:
    return np.linspace(0, count - 1, min(count, MEASURED_ON)).round().astype(np.int64)


def loaded_from(folder: Path) -> tuple[Any, Any]:
    """What `save_to_disk` wrote, as the package `datasets` has it, and that package. Raises `DataError`."""
    datasets = need("datasets", "datasets", "hf", str(folder))
    _refuse_other_folders(folder)
    with _no_bars(datasets):
        try:
            return datasets.load_from_disk(str(folder)), datasets
        except Exception as e:  # Arrow, JSON and the package itself fail each in their own way
            for file in sorted(one for one in folder.rglob("*") if one.suffix in (".arrow", ".json")):
                check_readable(file, DataError)
            raise DataError(f"{folder}: truncated or damaged ({one_line(e)}); save it again") from e


def _splits(folder: Path) -> dict[str, Split]:
    loaded, datasets = loaded_from(folder)
    if not (folder / HF_DICT).is_file():
        return {"train": _split(folder, loaded, str(folder), datasets)}
    if "train" not in loaded:
        raise DataError(f"{folder}: no split called train; there are {', '.join(loaded) or 'none'}")
    wanted = [name for name in ("train", *TEST_PARTS) if name in loaded]
    return {name: _split(folder, loaded[name], str(folder / name), datasets) for name in wanted}


def _refuse_other_folders(folder: Path) -> None:
    """Raise `DataError` for the name of a split or a file that leads elsewhere: the package would open what it says."""
    splits = _listed(folder / HF_DICT, "splits")
    _check_names(folder, splits)
    for part in (folder, *(folder / split for split in splits)):
        files = _listed(part / HF_ONE, "_data_files")
        _check_names(part, [one.get("filename") for one in files if isinstance(one, dict)])


def _check_names(folder: Path, names: list[Any]) -> None:
    for name in names:
        if not isinstance(name, str) or not plain_file_name(name):
            raise DataError(
                f"{folder}: {shortened(repr(name), 80)} is no name of a file or folder in it; save it again"
            )


def _listed(path: Path, key: str) -> list[Any]:
    """A list in a JSON file; none where there is none, and the package says what is missing."""
    try:
        held = json.loads(path.read_bytes()).get(key)
    except (OSError, ValueError, RecursionError, AttributeError):
        return []
    return held if isinstance(held, list) else []


def _split(root: Path, rows: Any, where: str, datasets: Any) -> Split:
    features = rows.features
    images = [name for name, feature in features.items() if isinstance(feature, datasets.Image)]
    if len(images) != 1:
        what = "no column of images" if not images else f"several columns of images ({', '.join(images)})"
        raise DataError(f"{where}: {what}; its columns are {', '.join(features) or 'none'}")
    named = [name for name, feature in features.items() if isinstance(feature, datasets.ClassLabel)]
    label = next((name for name in LABELS if name in features), named[0] if len(named) == 1 else None)
    if label is None:
        raise DataError(f"{where}: no column of labels (label); its columns are {', '.join(features)}")
    rows = rows.with_format(None)  # it may have been saved as one that gives tensors
    pictures = rows.select_columns(images).cast_column(images[0], datasets.Image(decode=False))
    return Split(root, rows, pictures, images[0], label, where)


def _class_names(split: Split) -> tuple[str, ...]:
    return tuple(getattr(split.rows.features[split.label], "names", None) or ())


def _test_part(folder: Path, splits: dict[str, Split]) -> Split:
    """The first part with labels: where they are kept secret, every one is -1."""
    for name in TEST_PARTS:
        if name in splits and any(label not in (None, -1) for label in splits[name].labels()):
            return splits[name]
    raise no_test_part(str(folder), "save a DatasetDict with the splits train and test")


def _without_missing(split: Split) -> list[int | None]:
    labels = split.labels()
    if None in labels:
        raise DataError(f"{split.where}: example {labels.index(None)} has no label")
    return labels


@contextmanager
def _no_bars(datasets: Any) -> Iterator[None]:
    """Without the package's own progress bars, which are drawn without asking whether there is a terminal."""
    shown = datasets.are_progress_bars_disabled() is False
    datasets.disable_progress_bars()
    try:
        yield
    finally:
        if shown:
            datasets.enable_progress_bars()
