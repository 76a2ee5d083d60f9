"""What the commands that need a network do first."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pai_cli.commands.options import ScopeChoice
    from pai_cli.compute.device import Device
    from pai_cli.files.checkpoints import Checkpoint
    from pai_cli.models.network import Network
    from pai_cli.pruning.run import PruneRequest, Rounds


def refuse_early(method: str, output: Path, *, force: bool) -> None:
    """Tell what can be told before anything slow is imported: a wrong method, an output that cannot be written."""
    from pai_cli.files.atomic import check_output
    from pai_cli.pruning.registry import get

    get(method)
    check_output(output, force=force)


def open_network(
    checkpoint: Path, model: str | None, input_shape: tuple[int, ...] | None, *, trust: bool
) -> tuple[Checkpoint, Network]:
    """The checkpoint and its network."""
    from pai_cli.files.checkpoints import open_checkpoint

    source = open_checkpoint(checkpoint, trust=trust)  # its faults are told before torch is imported
    from pai_cli.models.network import load_network

    return source, load_network(source, model, input_shape)


def prune_request(
    method: str,
    density: float,
    scope: ScopeChoice | None,
    seed: int,
    rounds: Rounds | None,
    ignore: list[str] | None,
    device: Device,
    input_shape: tuple[int, ...] | None,
) -> PruneRequest:
    """The options as the pruning engine takes them; a device that is not there is refused."""
    from pai_cli.compute.device import resolve
    from pai_cli.pruning.run import PruneRequest

    return PruneRequest(
        method=method,
        density=density,
        scope=scope.value if scope else None,
        seed=seed,
        rounds=rounds,
        ignore=tuple(ignore or ()),
        device=resolve(device),
        input_shape=input_shape,
    )


def accept(source: Checkpoint, network: Network, request: PruneRequest) -> None:
    """Refuse a request that cannot be, before any work; then say on standard error what was recognised."""
    from pai_cli.display.console import note
    from pai_cli.pruning.run import check_request

    check_request(network, request)
    where = f" ({source.description})" if source.description else ""
    note(f"{source.path}{where}: {network.description}, {network.total:,} prunable weights")
