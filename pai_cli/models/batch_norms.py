"""A network's batch norms, and which of them no batch has passed."""

from __future__ import annotations

from torch import fx, nn
from torch.nn.modules.batchnorm import _BatchNorm

from pai_cli.models.programs import batch_normalises


def batch_norms(model: nn.Module) -> dict[str, _BatchNorm]:
    """The network's batch norms, by module name."""
    return {name: one for name, one in model.named_modules() if isinstance(one, _BatchNorm)}


def fresh_norms(model: nn.Module) -> dict[str, _BatchNorm]:
    """Those whose running statistics are the initial ones, mean 0 and variance 1 throughout."""
    return {name: one for name, one in batch_norms(model).items() if _is_fresh(one)}


def is_program_with_batch_norms(model: nn.Module) -> bool:
    """Whether it is an exported program that has batch norms, which are operations there."""
    return isinstance(model, fx.GraphModule) and batch_normalises(model)


def _is_fresh(norm: _BatchNorm) -> bool:
    mean, variance = norm.running_mean, norm.running_var
    return mean is not None and variance is not None and not bool(mean.any()) and bool((variance == 1).all())
