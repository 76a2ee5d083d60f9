"""Folders of Hugging Face models: `config.json` beside the weights, in one file or sharded."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

from pai_cli.errors import CheckpointError
from pai_cli.files.json_files import read_json
from pai_cli.telling import note

WEIGHTS = (
    *("model.safetensors", "model.safetensors.index.json"),
    *("pytorch_model.bin", "pytorch_model.bin.index.json"),
)
"""What transformers calls the weights, in the order they are looked for; those that end with `.json` are of sharded sets."""

CONFIG = "config.json"

SHARD = re.compile(r"-\d+-of-(\d+)(?=\.)")
"""In the name of one file of a sharded set."""


def is_model(path: Path) -> bool:
    """Whether it is a folder with a model's configuration and weights; a folder that may not be looked into is none."""
    there = os.path.isfile  # which raises nothing, as `Path.is_file` does where there is no permission
    return path.is_dir() and there(path / CONFIG) and any(there(path / name) for name in WEIGHTS)


def file_of(path: Path) -> Path:
    """Of a model's folder the file with its weights, or the index of its shards; any other path as it is."""
    return weights_of(path) if is_model(path) else path


def weights_of(folder: Path) -> Path:
    """The file with the weights in a model's folder, or the index of its shards.

    Raises `CheckpointError` when the folder is not a model's, or has its weights in another format.
    """
    if not (folder / CONFIG).is_file():
        raise CheckpointError(f"{folder}: is a directory, not a file")
    for name in WEIGHTS:
        if (folder / name).is_file():
            return folder / name
    other = sorted(path.name for pattern in ("*.bin", "*.safetensors") for path in folder.glob(pattern))
    named = " or ".join(WEIGHTS)
    if other and SHARD.search(other[0]):
        raise CheckpointError(
            f"{folder}: has shards ({other[0]}) and no index of them ({named}); copy the whole set again"
        )
    there = f" (there is {other[0]}: give that file)" if other else ""
    raise CheckpointError(f"{folder}: a model's folder without {named}{there}; save it with safetensors")


def index_of(shard: Path) -> Path | None:
    """The index of the sharded set that a file is of, by its name; None for a file that is of none."""
    index = shard.with_name(SHARD.sub("", shard.name) + ".index.json")
    return index if SHARD.search(shard.name) and index.is_file() else None


def config_beside(path: Path) -> dict[str, Any] | None:
    """The configuration of the model whose weights a file is, by its name; None for any other file, and, which is said, for
    a configuration that cannot be read.
    """
    if path.name not in WEIGHTS or not (path.parent / CONFIG).is_file():
        return None
    try:
        return read_config(path.parent)
    except CheckpointError as e:
        note(f"{e.text}; what it says of the layers is left out")
    return None


def read_config(folder: Path) -> dict[str, Any]:
    """The folder's `config.json`. Raises `CheckpointError` when it is not a JSON object."""
    path = folder / CONFIG
    config = read_json(path, CheckpointError, "copy it again")
    if not isinstance(config, dict):
        raise CheckpointError(f"{path}: holds no JSON object; copy it again")
    return config
