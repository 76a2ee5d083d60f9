"""Layers whose weight is divided by its largest singular value before each use (Miyato et al. 2018, arXiv:1802.05957).

PyTorch's two kinds of `spectral_norm` keep vectors u and v from step to step, and divide by u^T W v. Of a weight that is 0
everywhere that is 0/0; of another weight than the one that they were found for it is no singular value.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from torch import nn
from torch.nn.utils.spectral_norm import SpectralNorm

from pai_cli.errors import CollapseError, ScoreError
from pai_cli.spelling import option

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


def spectral_normed(model: nn.Module) -> dict[str, str]:
    """By the name of each parameter that a spectral norm divides, the module that has it, as messages name one."""
    found = {}
    for prefix, module in model.named_modules():
        parts = {
            f"parametrizations.{leaf}.original": several
            for leaf, several in dict(getattr(module, "parametrizations", {})).items()
            if any(type(one).__name__ == "_SpectralNorm" for one in several)
        }
        hooks = (hook for hook in module._forward_pre_hooks.values() if isinstance(hook, SpectralNorm))
        for leaf in (*parts, *(f"{hook.name}_orig" for hook in hooks)):
            found[f"{prefix}.{leaf}".removeprefix(".")] = repr(prefix) if prefix else "the network"
    return found


def refuse_emptied(model: nn.Module, masks: Mapping[str, NDArray[np.bool_]], source: object) -> None:
    """Raise `CollapseError`, beginning with `source`, for masks that keep nothing of a weight that such a norm divides."""
    for name, module in spectral_normed(model).items():
        if name in masks and not masks[name].any():
            raise CollapseError(
                f"{source}: keeps no weight of {name}, and the spectral norm of {module} divides 0 by 0, so that outputs "
                "are NaN; take the norm off, or prune to a mask that keeps some, as with a larger density or the scope layer"
            )


def refuse_spectral_norms(model: nn.Module, method: str) -> None:
    """Raise `ScoreError` where a layer has such a norm, for a `method` that scores other weights than the network's own."""
    for module in spectral_normed(model).values():
        raise ScoreError(
            f"{method}: {module} has a spectral norm, which divides by a singular value of its own weights, and the "
            f"method puts others in their place; give another {option('method')}, or take the norm off"
        )
