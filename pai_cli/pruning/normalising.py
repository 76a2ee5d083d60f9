"""What batch norms normalise by while samples are scored, as it is asked for and told."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pai_cli.errors import MethodOptionError
from pai_cli.models.batch_norms import batch_norms, fresh_norms, is_program_with_batch_norms
from pai_cli.spelling import option

if TYPE_CHECKING:
    from torch import nn

    from pai_cli.models.network import Network
    from pai_cli.pruning.request import PruneRequest


def check_batch_norms(network: Network, request: PruneRequest) -> None:
    """Raise `MethodOptionError` where what is asked of batch norms cannot be, or there are none."""
    model, how = network.model, request.normalises_by
    if request.batch_norm is not None and not _has_any(model):
        asked = option("batch_norm", request.batch_norm)
        raise MethodOptionError(f"{asked}: the network has no batch norm; leave {option('batch_norm')} out")
    if how != "running":
        return
    program = is_program_with_batch_norms(model)
    without = [name for name, one in batch_norms(model).items() if one.running_mean is None]
    if program or without:
        why = "the network is an exported program" if program else f"{without[0]} keeps no running statistics"
        other = option("batch_norm", "batch") if "batch" in request.method.batch_norm else f"another {option('method')}"
        raise MethodOptionError(f"{option('batch_norm', how)}: {why}; give {other}")


def story_of_batch_norms(network: Network, request: PruneRequest) -> dict[str, str]:
    """What a mask should tell of what batch norms normalised by; {} where there are none, or the method leaves no choice."""
    how = request.normalises_by
    if how is None or not _has_any(network.model):
        return {}
    return {"batch_norm": how, **({"batch_norm_statistics": "samples"} if told_statistics(network, request) else {})}


def told_statistics(network: Network, request: PruneRequest) -> str:
    """What to say where running statistics are measured on the samples first; "" where they are not."""
    fresh = fresh_norms(network.model) if request.normalises_by == "running" else {}
    if not fresh:
        return ""
    return (
        f"running statistics of {len(fresh)} batch norms are the initial ones (mean 0, variance 1): measured on the "
        "samples, in one pass; the network keeps its own"
    )


def _has_any(model: nn.Module) -> bool:
    return bool(batch_norms(model)) or is_program_with_batch_norms(model)
