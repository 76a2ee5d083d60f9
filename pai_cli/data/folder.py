"""A tree of images, a folder a class: ImageFolder's layout, and Tiny-ImageNet's."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pai_cli.data.arrays import no_test_part
from pai_cli.data.images import ImageDataset, Source, looked_at
from pai_cli.data.layouts import ANNOTATIONS, SUFFIXES, TEST_PARTS, is_hidden, subfolders
from pai_cli.data.normalise import IMAGENET
from pai_cli.errors import DataError
from pai_cli.files.first_bytes import open_text
from pai_cli.files.messages import some_names
from pai_cli.telling import note

OF_WINDOWS = ("thumbs.db", "desktop.ini")
"""Files that Windows leaves in folders of images."""


@dataclass(frozen=True)
class Listed:
    """Image files of one part of a tree, and the number of each one's class."""

    files: list[str]
    labels: list[int]

    def source(self, index: int) -> Source:
        """What to call an example, and its file."""
        return f"{self.files[index]} (example {index})", Path(self.files[index])


def open_tree(root: Path, *, train: bool) -> ImageDataset:
    """The images under `root`/train, or those of the test part; without a folder `train`, all of them are for training.

    Classes are the folders there, sorted by code point; a class's images lie anywhere below it, in sorted order, and
    the test part may leave classes out. Images are three-channel and square, as large as the shorter side of the first
    one for training (at most `images.LARGEST_SIDE`). Raises `DataError`.
    """
    if (root / ANNOTATIONS).is_file():
        raise DataError(f"{root}: one part of Tiny-ImageNet; give the folder above it")
    parted = (root / "train").is_dir()
    base = root / "train" if parted else root
    names = subfolders(base)
    if not names:
        raise DataError(f"{base}: no class folders")
    first = next((file for name in names[:1] for file in _images_below(base / name)), None)
    if first is None:
        raise _no_images(base / names[0])
    if train:
        _tell_left_out(base, names)
        listed = _by_folder(base, names, every=True)
    else:
        listed = _test_part(root, names) if parted else Listed([], [])
        if not listed.files:
            raise no_test_part(str(root), "its class folders go into the folders train and val")
    _, side = looked_at(f"{first} (example 0)", Path(first))
    labels = np.asarray(listed.labels, dtype=np.int64)
    return ImageDataset(
        root.name, len(names), labels, (3, side, side), "RGB", IMAGENET, listed.source, class_names=tuple(names)
    )


def _by_folder(base: Path, names: list[str], *, every: bool) -> Listed:
    listed = Listed([], [])
    for label, name in enumerate(names):
        found = _images_below(base / name)
        if every and not found:
            raise _no_images(base / name)
        listed.files.extend(found)
        listed.labels.extend([label] * len(found))
    return listed


def _images_below(folder: Path) -> list[str]:
    found = []
    for place, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not is_hidden(name))
        images = sorted(name for name in files if name.lower().endswith(SUFFIXES) and not is_hidden(name))
        found += [os.path.join(place, name) for name in images]  # noqa: PTH118
    return found


def _tell_left_out(base: Path, names: list[str]) -> None:
    """A line on hidden images, copies that other programs left there, and one on files that are no image or of no class."""
    hidden = []
    others = [one for one in base.iterdir() if one.name.lower().endswith(SUFFIXES) and not is_hidden(one.name)]
    for name in names:
        for place, _, files in os.walk(base / name):
            below = any(map(is_hidden, Path(place).relative_to(base / name).parts))
            for file in files:
                veiled, image = below or is_hidden(file), file.lower().endswith(SUFFIXES)
                if veiled and image:
                    hidden.append(Path(place, file))
                elif not (veiled or image or file.lower() in OF_WINDOWS):
                    others.append(Path(place, file))
    if hidden:
        note(f"{base}: {len(hidden):,} hidden images left out, the first of them {min(hidden)}")
    if others:
        why = f"in no class folder, or no image ({', '.join(SUFFIXES)})"
        note(f"{base}: {len(others):,} other files left out, the first of them {min(others)}: {why}")


def _no_images(folder: Path) -> DataError:
    return DataError(f"{folder}: no images in this class folder ({', '.join(SUFFIXES)})")


def _test_part(root: Path, names: list[str]) -> Listed:
    """The first part that has labels: a list of them, or folders that are called like classes."""
    for part in TEST_PARTS:
        base = root / part
        if (base / ANNOTATIONS).is_file():
            return _annotated(base, names)
        there = subfolders(base) if base.is_dir() else []
        if not set(there) & set(names):
            continue
        unknown = sorted(set(there) - set(names))
        if unknown:
            raise DataError(f"{base}: class folders that {root / 'train'} lacks: {some_names(unknown)}")
        return _by_folder(base, names, every=False)
    return Listed([], [])


def _annotated(base: Path, names: list[str]) -> Listed:
    """Tiny-ImageNet's validation images: a line each with file, class and a box, separated by tabs."""
    listed, numbers = Listed([], []), {name: number for number, name in enumerate(names)}
    path, images = base / ANNOTATIONS, base / "images"
    there = {one.name for one in images.iterdir()} if images.is_dir() else set()
    with open_text(path, DataError, errors="replace") as stream:
        lines = stream.read().splitlines()
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        file, *rest = line.split("\t")
        if not rest or rest[0] not in numbers:
            raise DataError(f"{path}: line {number} has no class that is a folder of train")
        if file not in there:
            raise DataError(f"{images / file}: missing (line {number} of {ANNOTATIONS})")
        listed.files.append(str(images / file))
        listed.labels.append(numbers[rest[0]])
    if not listed.files:
        raise DataError(f"{path}: no examples")
    return listed
