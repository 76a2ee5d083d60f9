"""How an iterative method goes from the dense network to the density asked for."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from pai_cli.errors import ScoreError
from pai_cli.pruning.base import Masks
from pai_cli.pruning.select import ScoreArrays, active_scores
from pai_cli.spelling import option

ROUNDING = 1e-7
"""Relative room below the flow, so that no full cut passes for less.

A running sum of 10^8 float64 scores may be off by 10^8 * 2^-53 = 1.1e-8 of itself; the rest is for the flow.
"""


def exponential(density: float, rounds: int) -> list[float]:
    """The densities after each round, density^(k/rounds) for k = 1..rounds; the last is exactly `density`.

    Tanaka et al. 2020, https://arxiv.org/abs/2006.05467, section 6.
    """
    return [density ** (k / rounds) for k in range(1, rounds + 1)]


def safe_count(scores: ScoreArrays, active: Masks | None, target: int, flow: float) -> int:
    """How few weights (`target` at the least) a round may keep while what it removes scores less than `flow`.

    Every set of weights whose removal cuts the network has scores that sum to at least the flow, so such a
    round cannot cut it: Tanaka et al. 2020, https://arxiv.org/abs/2006.05467, Theorem 3. Raises `ScoreError`
    when no weight can be removed that way.
    """
    ordered = active_scores(scores, active)
    ordered.sort()
    return left_of(ordered, len(ordered), target, flow)


def left_of(smallest: NDArray[np.floating[Any]], left: int, target: int, flow: float) -> int:
    """`safe_count` of `left` scores, from the smallest in order: all, or as many as sum to more than the flow."""
    removable = int(np.searchsorted(np.cumsum(smallest, dtype=np.float64), flow * (1 - ROUNDING)))
    if removable == 0 and left > target:
        raise ScoreError(
            f"{option('rounds', 'auto')}: of the {left:,} weights left none can be removed without cutting the "
            f"network, and the density asks for {target:,}; give a larger {option('density')}, or a number of "
            f"{option('rounds')} to go on regardless"
        )
    return max(target, left - removable)
