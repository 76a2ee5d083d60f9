"""How data sets lie on disk: the names of their files and folders, and nothing read from them. Imports nothing heavy."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Cifar:
    """A distribution of CIFAR (Krizhevsky 2009, https://www.cs.toronto.edu/~kriz/cifar.html).

    `folder` is what its archive unpacks to; `key` is where a pickled batch has its labels; `label_bytes` stand before
    the pixels of a binary record, the last of them the label.
    """

    name: str
    folder: str
    classes: int
    train: tuple[str, ...]
    test: str
    key: str = ""
    label_bytes: int = 0

    def begun_in(self, folder: Path) -> bool:
        """Whether any of its files is there: what is missing is then told by name."""
        return any((folder / name).is_file() for name in (*self.train, self.test))


_BATCHES = tuple(f"data_batch_{i}" for i in range(1, 6))

CIFAR_PYTHON = (
    Cifar("cifar-10", "cifar-10-batches-py", 10, _BATCHES, "test_batch", key="labels"),
    Cifar("cifar-100", "cifar-100-python", 100, ("train",), "test", key="fine_labels"),
)
CIFAR_BINARY = (
    Cifar(
        "cifar-10",
        "cifar-10-batches-bin",
        10,
        tuple(f"{name}.bin" for name in _BATCHES),
        "test_batch.bin",
        label_bytes=1,
    ),
    Cifar("cifar-100", "cifar-100-binary", 100, ("train.bin",), "test.bin", label_bytes=2),
)

_IDX = re.compile(r"(|.+[-_.])(train|t10k|test)[-_.](images|labels)[-_.]idx[13][-_.]ubyte(|\.gz)")
"""Prefix, part, what it holds, and whether it is gzipped by its name."""


@dataclass(frozen=True)
class Idx:
    """A data set in IDX files: each has a part (train, or t10k or test) and what it holds (images, labels) in its name.

    `prefix` is what stands before that, as in emnist-letters-train-images-idx3-ubyte.gz, else "".
    """

    name: str
    prefix: str
    files: Mapping[tuple[str, str], Path]

    def file(self, part: str, what: str) -> Path | None:
        """The file of "train" or "test" with "images" or "labels"."""
        return self.files.get((part, what))


HF_DICT, HF_ONE = "dataset_dict.json", "state.json"
"""Marks of what `datasets` saves: a folder of splits, and one split."""

TEST_PARTS = ("test", "val", "validation", "valid")
"""What the part that is not for training may be called; the first that has labels is taken."""

ANNOTATIONS = "val_annotations.txt"
"""Tiny-ImageNet's list of the validation images and their classes."""

SUFFIXES = (".bmp", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")
"""Files in class folders that are images; case does not matter, other files are left out, which is said."""


def cifar_python(folder: Path) -> Cifar | None:
    """The distribution whose pickled batches lie there."""
    return next((layout for layout in CIFAR_PYTHON if layout.begun_in(folder)), None)


def cifar_binary(folder: Path) -> Cifar | None:
    """The distribution whose binary batches lie there."""
    return next((layout for layout in CIFAR_BINARY if layout.begun_in(folder)), None)


def idx_sets(path: Path) -> list[Idx]:
    """The data sets in IDX files that lie in a folder, or the one that a file belongs to; none for any other path.

    Where a file is there packed and unpacked, the unpacked one is taken.
    """
    folder, only = (path, None) if path.is_dir() else (path.parent, _IDX.fullmatch(path.name))
    if (only is None and not path.is_dir()) or not path.exists():
        return []
    found: dict[str, dict[tuple[str, str], Path]] = {}
    for one in sorted(folder.iterdir(), reverse=True):  # an unpacked file after its packed one
        match = _IDX.fullmatch(one.name)
        if match and (only is None or match[1] == only[1]) and one.is_file():
            found.setdefault(match[1], {})["train" if match[2] == "train" else "test", match[3]] = one
    return [
        Idx(prefix.rstrip("-_.") or folder.resolve().name, prefix, files) for prefix, files in sorted(found.items())
    ]


def is_npz(path: Path) -> bool:
    """Whether it is a file called .npz."""
    return path.is_file() and path.suffix.lower() == ".npz"


def is_saved_hf(path: Path) -> bool:
    """Whether it is a folder that `save_to_disk` of `datasets` made."""
    return any((path / name).is_file() for name in (HF_DICT, HF_ONE))


def is_image_tree(path: Path) -> bool:
    """Whether it is a folder with folders in it."""
    return path.is_dir() and bool(subfolders(path))


def is_hidden(name: str) -> bool:
    """Whether a file or folder of this name is no data: hidden (`.ipynb_checkpoints`, `._x.png`), or a system's own."""
    return name.startswith(".") or name in ("__MACOSX", "@eaDir", "lost+found")


def subfolders(folder: Path) -> list[str]:
    """Names of the folders in a folder, sorted by code point, without the hidden ones."""
    return sorted(one.name for one in folder.iterdir() if one.is_dir() and not is_hidden(one.name))


def cifar_folders(path: Path) -> list[Path]:
    """The unpacked CIFAR archives that lie in a folder, as other tools leave them there."""
    return [path / layout.folder for layout in (*CIFAR_PYTHON, *CIFAR_BINARY) if (path / layout.folder).is_dir()]


Holds = Callable[[Path], bool]


def read_from(path: Path) -> tuple[list[Path], dict[Path, Holds]]:
    """The files that a data set at `path` is read from, and the folders, each with what says of a path below it whether a
    file or a folder there would be part of the data.
    """
    idx = [file for one in idx_sets(path) for file in one.files.values()]
    if idx:
        return [path, *idx], {}
    folder = next(iter(cifar_folders(path)), path)
    layouts = [layout for layout in (cifar_python(folder), cifar_binary(folder)) if layout is not None]
    if layouts or not path.is_dir():
        return [path, *(folder / name for layout in layouts for name in (*layout.train, layout.test))], {}
    if is_saved_hf(path):
        return [], {path: lambda below: below.suffix in (".arrow", ".json")}
    parts = [path / part for part in ("train", *TEST_PARTS) if (path / part).is_dir()]
    if path / "train" in parts:
        return [], dict.fromkeys(parts, lambda _: True)
    return [], {path: lambda below: len(below.parts) > 1}
