"""What the commands that need a network do first."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pai_cli.files.checkpoints import Checkpoint
    from pai_cli.models.network import Network
    from pai_cli.pruning.run import PruneRequest


def open_network(
    checkpoint: Path, model: str | None, input_shape: tuple[int, ...] | None, *, trust: bool
) -> tuple[Checkpoint, Network]:
    """The checkpoint and its network."""
    from pai_cli.files.checkpoints import open_checkpoint

    source = open_checkpoint(checkpoint, trust=trust)  # its faults are told before torch is imported
    from pai_cli.models.network import load_network

    return source, load_network(source, model, input_shape)


def accept(source: Checkpoint, network: Network, request: PruneRequest) -> None:
    """Refuse a request that cannot be, before any work; then say on standard error what was recognised."""
    from pai_cli.display.console import note
    from pai_cli.pruning.run import check_request

    check_request(network, request)
    where = f" ({source.description})" if source.description else ""
    note(f"{source.path}{where}: {network.description}, {network.total:,} prunable weights")
