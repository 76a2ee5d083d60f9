"""A network and the smaller one made of it: whether they give the same, and how long each takes."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass
from statistics import median

import torch
from torch import nn

from pai_cli.errors import CompactError
from pai_cli.models.trace import tensors_in
from pai_cli.progress import Progress
from pai_cli.random import generator_for

EXACT = 1e-9
"""Of the largest output: by how much outputs may differ in float64, whose rounding is 1e-16; a fault changes far more."""

FAR = 100.0
"""The random inputs are tried times this too, as units that saturate or are off for small inputs hide a fault."""

SAMPLES = 8
"""How many random inputs are tried."""


@dataclass(frozen=True)
class Difference:
    """The largest difference between outputs, the largest output, and whether any output is a finite number."""

    difference: float = 0.0
    output: float = 0.0
    finite: bool = False

    @property
    def relative(self) -> float:
        """The one by the other, 0 where both are 0."""
        return self.difference / self.output if self.output else self.difference


@torch.no_grad()
def difference(one: nn.Module, other: nn.Module, batches: Iterable[torch.Tensor]) -> Difference:
    """By how much the outputs of two networks differ on these inputs; infinitely, where flags or indices do.

    Raises `CompactError` where they are not of the same shapes, and whatever the networks raise.
    """
    found = Difference()
    for batch in batches:
        # Copies, as a network may write over what it is given.
        for a, b in zip(_outputs(one, batch.clone()), _outputs(other, batch.clone()), strict=True):
            if a.shape != b.shape:
                raise CompactError(f"outputs of shape {tuple(a.shape)} became {tuple(b.shape)}")
            if not a.is_floating_point():  # flags and indices, which do not round
                found = Difference(found.difference if torch.equal(a, b) else torch.inf, found.output, finite=True)
                continue
            apart = torch.where((a == b) | (a.isnan() & b.isnan()), 0.0, (a - b).abs().nan_to_num(nan=torch.inf))
            finite = a[a.isfinite()].abs()
            found = Difference(
                max(found.difference, float(apart.max()) if apart.numel() else 0.0),
                max(found.output, float(finite.max()) if finite.numel() else 0.0),
                found.finite or finite.numel() > 0,
            )
    return found


def _outputs(model: nn.Module, batch: torch.Tensor) -> list[torch.Tensor]:
    return [torch.view_as_real(one) if one.is_complex() else one for one in tensors_in(model(batch))]


def random_inputs(shape: tuple[int, ...], seed: int, samples: int = SAMPLES) -> torch.Tensor:
    """Normal numbers, float64, (samples, *shape): the same for the same seed."""
    return torch.from_numpy(generator_for(seed, "compact").standard_normal((samples, *shape)))


@torch.no_grad()
def seconds(models: tuple[nn.Module, nn.Module], batch: torch.Tensor, runs: int, progress: Progress) -> list[float]:
    """The median time of each network on this batch, in seconds: they take turns, after one run of each to warm up."""
    times: tuple[list[float], list[float]] = ([], [])
    for run in range(runs + 1):
        progress(run, runs + 1, "timing")
        for model, taken in zip(models, times, strict=True):
            _wait(batch)
            began = time.perf_counter()
            model(batch)
            _wait(batch)
            if run:
                taken.append(time.perf_counter() - began)
    progress(runs + 1, runs + 1, "timing")
    return [median(taken) for taken in times]


def _wait(batch: torch.Tensor) -> None:
    if batch.is_cuda:
        torch.cuda.synchronize(batch.device)
