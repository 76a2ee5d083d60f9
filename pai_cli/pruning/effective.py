"""Kept weights that lie on a path from input to output, and masks that reach a density in those alone.

Vysogorets and Kempe 2023, "Connectivity Matters: Neural Network Pruning Through the Lens of Effective Sparsity",
https://arxiv.org/abs/2107.02306
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from math import prod
from typing import TYPE_CHECKING

import numpy as np
from torch import nn

from pai_cli.errors import DensityError, PaiError
from pai_cli.models.unrolled.paths import Unrolled
from pai_cli.models.unrolled.tape import unroll
from pai_cli.pruning.allocation import network_count
from pai_cli.pruning.base import Masks
from pai_cli.pruning.layers import select_layers
from pai_cli.pruning.request import PruneRequest
from pai_cli.spelling import option

if TYPE_CHECKING:
    from pai_cli.models.network import Network

CLOSE = 0.001
"""Of the number asked for: how many more effective weights are close enough to look for no better mask."""

Choose = Callable[[PruneRequest], tuple[Masks, int]]


def unrolled(model: nn.Module, input_shape: tuple[int, ...] | None) -> Unrolled | None:
    """The network for one input; None without an input shape, and where its elements cannot be told apart."""
    try:
        return Unrolled(unroll(model, input_shape))
    except (PaiError, MemoryError, RuntimeError, ValueError):  # what else is done with the network stands all the same
        return None


def count_effective(found: Unrolled, masks: Masks) -> int | None:
    """How many kept weights are on a path; None where that does not fit in memory."""
    try:
        effective = found.effective(masks)
    except (MemoryError, RuntimeError, ValueError):
        return None
    return sum(int(np.count_nonzero(flags)) for flags in effective.values())


def choose_effective(network: Network, request: PruneRequest, choose: Choose) -> tuple[Masks, int]:
    """Masks of effective weights alone, at least round(density * n) of them, and the rounds of the run that chose them.

    `choose` is run with larger densities, between which it bisects, and of what it keeps that is on no path is dropped. One
    more weight can bring several onto a path, so the number is met within `CLOSE`, or by the smallest that bisection finds.
    Raises `DensityError` where the whole network has too few, and as `unroll` does.
    """
    found_network = Unrolled(unroll(network.model, request.input_shape or network.input_shape))
    assert request.density is not None  # what `check_options` sees to
    total = sum(prod(layer.shape) for layer in select_layers(network.layers, request.ignore))
    target = network_count(request.density, total)
    best: tuple[Masks, int] | None = None
    low, count, high = 0, target, total + 1
    while True:
        masks, rounds = choose(replace(request, density=count / total))
        effective = found_network.effective(masks)
        found = sum(int(np.count_nonzero(mask)) for mask in effective.values())
        if found >= target:
            best, high = (effective, rounds), count
        elif count == total:
            raise DensityError(
                f"{option('density', f'{request.density:g}')}: {target:,} effective weights are asked for, and of the "
                f"{total:,} of the whole network {found:,} are on a path"
            )
        else:
            low = count
        if best is not None and (high - low == 1 or target <= found <= (1 + CLOSE) * target):
            return best
        # Past the last while too few were effective, then the middle.
        count = (low + high) // 2 if best is not None else min(total, low + 2 * (target - found))
