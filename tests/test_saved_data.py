"""Saved Hugging Face data sets whose files name others: nothing outside the folder is opened."""

from __future__ import annotations

import io
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pai_cli.data.registry import open_dataset
from pai_cli.errors import DataError


@pytest.fixture
def hub() -> Any:
    return pytest.importorskip("datasets")


def picture(path: Path | None = None) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(np.zeros((4, 4, 3), np.uint8)).save(stream, "PNG")
    if path is not None:
        path.write_bytes(stream.getvalue())
    return stream.getvalue()


def save(hub: Any, folder: Path, images: list[dict[str, object]]) -> Path:
    plain = {"bytes": hub.Value("binary"), "path": hub.Value("string")}
    kinds = hub.Features({"img": plain, "label": hub.ClassLabel(names=["a", "b"])})
    hub.Dataset.from_dict({"img": images, "label": [0, 1]}, features=kinds).save_to_disk(str(folder))
    info = json.loads((folder / "dataset_info.json").read_text())
    info["features"]["img"] = {"_type": "Image"}  # saved as an image, its bytes would have been embedded
    (folder / "dataset_info.json").write_text(json.dumps(info))
    return folder


def change(path: Path, **changed: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changed))


@pytest.mark.parametrize("name", ["../other.arrow", "/etc/passwd", "", "..", "a/b.arrow", "a\0b", 3, None, "\ud800"])
def test_files_are_in_the_folder(tmp_path: Path, hub: Any, name: object) -> None:
    folder = save(hub, tmp_path / "set", [{"bytes": picture(), "path": None}] * 2)
    assert len(open_dataset(str(folder))) == 2
    change(folder / "state.json", _data_files=[{"filename": name}])
    with pytest.raises(DataError, match=r" is no name of a file or folder in it; save it again$") as caught:
        open_dataset(str(folder))
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("split", ["../other", "/", "", 3])
def test_splits_are_in_the_folder(tmp_path: Path, hub: Any, split: object) -> None:
    save(hub, tmp_path / "set" / "train", [{"bytes": picture(), "path": None}] * 2)
    (tmp_path / "set" / "dataset_dict.json").write_text(json.dumps({"splits": ["train", split]}))
    with pytest.raises(DataError, match=r" is no name of a file or folder in it; save it again$"):
        open_dataset(str(tmp_path / "set"))
    (tmp_path / "set" / "dataset_dict.json").write_text(json.dumps({"splits": ["train"]}))
    state = tmp_path / "set" / "train" / "state.json"
    change(state, _data_files=[{"filename": "../../x"}])
    with pytest.raises(DataError, match=r"train: '../../x' is no name of a file or folder in it"):
        open_dataset(str(tmp_path / "set"))


def test_images_are_in_the_folder(tmp_path: Path, hub: Any) -> None:
    picture(tmp_path / "outside.png")
    outside = [str(tmp_path / "outside.png"), "../outside.png", "/dev/zero", "pipe", "."]
    for number, path in enumerate(outside):
        folder = save(hub, tmp_path / f"set{number}", [{"bytes": None, "path": path}] * 2)
        os.mkfifo(folder / "pipe")
        with pytest.raises(
            DataError, match=r"its image is no file in the data set's folder; save it with its images emb"
        ):
            open_dataset(str(folder))
    folder = save(hub, tmp_path / "set", [{"bytes": None, "path": "inside.png"}] * 2)
    picture(folder / "inside.png")
    assert open_dataset(str(folder)).examples(np.asarray([0, 1])).shape == (2, 3, 4, 4)
