"""Folders of Hugging Face models: `config.json` beside safetensors, in one file or sharded."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pai_cli.errors import CheckpointError

WEIGHTS = ("model.safetensors", "model.safetensors.index.json")
"""What transformers calls the weights; the second is of a sharded set."""

CONFIG = "config.json"


def weights_of(folder: Path) -> Path:
    """The file with the weights in a model's folder, or the index of its shards.

    Raises `CheckpointError` when the folder is not a model's, or has its weights in another format.
    """
    if not (folder / CONFIG).is_file():
        raise CheckpointError(f"{folder}: is a directory, not a file")
    for name in WEIGHTS:
        if (folder / name).is_file():
            return folder / name
    other = sorted(path.name for path in folder.glob("*.bin")) + sorted(
        path.name for path in folder.glob("*.safetensors")
    )
    there = f" (there is {other[0]}: give that file)" if other else ""
    raise CheckpointError(f"{folder}: a model's folder without {' or '.join(WEIGHTS)}{there}; save it with safetensors")


def mask_in(path: Path) -> Path:
    """The file that a mask is read from: of a pruned model's folder its weights, else the path as it is."""
    return weights_of(path) if path.is_dir() and (path / CONFIG).is_file() else path


def read_config(folder: Path) -> dict[str, Any]:
    """The folder's `config.json`. Raises `CheckpointError` when it is not a JSON object."""
    path = folder / CONFIG
    try:
        config = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as e:
        raise CheckpointError(f"{path}: cannot be read as JSON ({e}); copy it again") from e
    if not isinstance(config, dict):
        raise CheckpointError(f"{path}: holds no JSON object; copy it again")
    return config
