"""Files that other programs left among data, and labels that begin at 1."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest
from conftest import Pai
from PIL import Image

from pai_cli.data.registry import open_dataset
from pai_cli.errors import DataError

HIDDEN = (
    ".ipynb_checkpoints/0-checkpoint.png",
    "._0.png",
    ".hidden/deeper/0.png",
    "__MACOSX/0.png",
    "@eaDir/0.png",
)


def image(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((4, 4, 3), 9, np.uint8)).save(path)


@pytest.mark.parametrize("parted", [False, True])
@pytest.mark.parametrize("stray", HIDDEN)
def test_hidden_images_are_no_examples(tmp_path: Path, stray: str, parted: bool) -> None:
    base = tmp_path / "train" if parted else tmp_path
    for name in ("cat", "dog"):
        image(base / name / "0.png")
        image(base / name / "more" / "1.png")
        image(base / name / stray)
    for other in ("Thumbs.db", ".DS_Store", "desktop.ini"):
        (base / "cat" / other).write_bytes(b"x")
    image(base / stray)
    dataset = open_dataset(str(tmp_path))
    assert (len(dataset), dataset.classes, list(dataset.labels)) == (4, 2, [0, 0, 1, 1])


def test_hidden_images_are_told(pai: Pai, here: Path) -> None:
    for number in range(10):
        image(here / "data" / str(number) / "0.png")
        image(here / "data" / str(number) / "._0.png")
    assert pai("init", "mlp-48-8-10", "-o", "net.safetensors").status == 0
    words = ("net.safetensors", "--method", "snip", "--data", "data", "--per-class", 1, "--density", 0.5, "-o", "m")
    said = pai("prune", *words).said
    assert "pai: data: 10 hidden images left out, the first of them data/0/._0.png" in said


@pytest.mark.parametrize(("first", "last"), [(1, 10), (1, 1), (3, 7)])
def test_labels_that_do_not_begin_at_0(tmp_path: Path, first: int, last: int) -> None:
    labels = np.resize(np.arange(first, last + 1), 40)
    np.savez(tmp_path / "d.npz", x=np.zeros((40, 4)), y=labels)
    with pytest.raises(DataError) as caught:
        open_dataset(str(tmp_path / "d.npz"))
    assert str(caught.value) == (
        f"{tmp_path}/d.npz: y: labels run from {first} to {last}, and classes are counted from 0; subtract {first} from each"
    )


def test_files_that_are_no_images_are_told(pai: Pai, here: Path) -> None:
    for number in range(10):
        image(here / "data" / str(number) / "0.png")
    (here / "data" / "3" / "0.txt").write_bytes(b"II")
    (here / "data" / "3" / "Thumbs.db").write_bytes(b"x")
    image(here / "data" / "loose.png")
    assert pai("init", "mlp-48-8-10", "-o", "net.safetensors").status == 0
    words = ("net.safetensors", "--method", "snip", "--data", "data", "--per-class", 1, "--density", 0.5, "-o", "m")
    line = "pai: data: 2 other files left out, the first of them data/3/0.txt: in no class folder, or no image"
    assert any(one.startswith(line) for one in pai("prune", *words).said)


def test_other_arrays_of_an_archive_are_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="pai")
    arrays = {
        "x": np.zeros((20, 4)),
        "y": np.arange(20) % 10,
        "x_test": np.zeros((20, 4)),
        "y_test": np.arange(20) % 10,
    }
    np.savez(tmp_path / "d.npz", **arrays)
    open_dataset(str(tmp_path / "d.npz"))
    assert not caplog.messages
    np.savez(tmp_path / "d.npz", **arrays, masks=np.zeros(20))
    open_dataset(str(tmp_path / "d.npz"))
    assert caplog.messages == [f"{tmp_path}/d.npz: arrays left out, which are called neither x nor y: masks"]
