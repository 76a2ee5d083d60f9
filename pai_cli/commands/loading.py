"""What several commands do first: open a network."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pai_cli.files.checkpoints import Checkpoint
    from pai_cli.models.network import Network


def open_network(
    checkpoint: Path,
    model: str | None,
    input_shape: tuple[int, ...] | None,
    *,
    trust: bool,
) -> tuple[Checkpoint, Network]:
    """The checkpoint and its network."""
    from pai_cli.files.checkpoints import open_checkpoint

    source = open_checkpoint(checkpoint, trust=trust)  # its faults are told before torch is imported
    from pai_cli.models.network import load_network

    return source, load_network(source, model, input_shape)
