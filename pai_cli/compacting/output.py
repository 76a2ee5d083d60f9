"""Writing a smaller network: as tensors with what to set before they are loaded, or as a program that needs no code."""

from __future__ import annotations

import io
import json
import warnings
from collections.abc import Mapping
from pathlib import Path

import torch

from pai_cli.compacting.checking import random_inputs
from pai_cli.compacting.run import Compacted
from pai_cli.errors import CompactError, SuffixError
from pai_cli.files.atomic import is_special, write_bytes
from pai_cli.files.messages import one_line
from pai_cli.files.plan import check_name
from pai_cli.models.network import save_checkpoint
from pai_cli.spelling import option

TENSORS, PROGRAM = ".safetensors", ".pt2"
KEY = "compact"
"""The file's metadata: a JSON object from names of modules to attributes that are to be set before tensors are loaded."""


def check_suffix(path: Path | None) -> None:
    """Raise `SuffixError` for a name that is of another format than those two, `UsageError` for "-"."""
    check_name(path, "output", stream=True)
    if path is not None and path.suffix not in (TENSORS, PROGRAM) and not is_special(path):
        raise SuffixError(
            f"{path}: a smaller network is written as {TENSORS} (tensors) or {PROGRAM} (torch.export); give "
            f"{option('output')} such a name"
        )


def write(
    path: Path, found: Compacted, input_shape: tuple[int, ...], metadata: Mapping[str, str], *, force: bool
) -> None:
    """Write the network as the name of the file says, whole or not at all.

    Raises `OutputError`, and `CompactError` where `torch.export` cannot export it.
    """
    if path.suffix == PROGRAM:
        write_bytes(path, _program(path, found, input_shape), force=force)
        return
    attributes = json.dumps(found.attributes, sort_keys=True, separators=(",", ":"))
    save_checkpoint(path, found.model, {KEY: attributes, **metadata}, force=force)


def _program(path: Path, found: Compacted, input_shape: tuple[int, ...]) -> bytes:
    """The network exported for batches of any size."""
    example = random_inputs(input_shape, 0, 2).to(next(found.model.parameters()).dtype)
    stream = io.BytesIO()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about its own deprecated parts
            sizes = ({0: torch.export.Dim("batch")},)
            torch.export.save(torch.export.export(found.model, (example,), dynamic_shapes=sizes), stream)
    except Exception as error:  # of many kinds: what the network's code does
        raise CompactError(
            f"{path}: torch.export cannot export the smaller network ({one_line(error)}); give {option('output')} a name "
            f"that ends in {TENSORS}"
        ) from error
    return stream.getvalue()
