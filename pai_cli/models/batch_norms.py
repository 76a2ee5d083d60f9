"""What a network's batch norms normalise by while it scores samples: their batch, or running statistics."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import fx, nn
from torch.nn.modules.batchnorm import _BatchNorm

from pai_cli.errors import MethodOptionError
from pai_cli.models.programs import batch_normalises
from pai_cli.spelling import option

if TYPE_CHECKING:
    from pai_cli.models.network import Network
    from pai_cli.pruning.request import PruneRequest


def batch_norms(model: nn.Module) -> dict[str, _BatchNorm]:
    """The network's batch norms, by module name."""
    return {name: one for name, one in model.named_modules() if isinstance(one, _BatchNorm)}


def fresh_norms(model: nn.Module) -> dict[str, _BatchNorm]:
    """Those whose running statistics are the initial ones, mean 0 and variance 1 throughout: no batch has passed them."""
    return {name: one for name, one in batch_norms(model).items() if _is_fresh(one)}


def _is_fresh(norm: _BatchNorm) -> bool:
    mean, variance = norm.running_mean, norm.running_var
    return mean is not None and variance is not None and not bool(mean.any()) and bool((variance == 1).all())


def check_batch_norms(network: Network, request: PruneRequest) -> None:
    """Raise `MethodOptionError` where what is asked of batch norms cannot be, or there are none."""
    model, how = network.model, request.normalises_by
    program = isinstance(model, fx.GraphModule) and batch_normalises(model)
    norms = batch_norms(model)
    if request.batch_norm is not None and not (norms or program):
        asked = option("batch_norm", request.batch_norm)
        raise MethodOptionError(f"{asked}: the network has no batch norm; leave {option('batch_norm')} out")
    if how != "running":
        return
    without = [name for name, one in norms.items() if one.running_mean is None]
    if program or without:
        why = "the network is an exported program" if program else f"{without[0]} keeps no running statistics"
        other = option("batch_norm", "batch") if "batch" in request.method.batch_norm else f"another {option('method')}"
        raise MethodOptionError(f"{option('batch_norm', how)}: {why}; give {other}")
