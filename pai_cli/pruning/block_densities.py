"""How much each block of a language model keeps, by what stands out in it: for any method that takes a density a layer."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import numpy as np
import torch
from numpy.typing import NDArray

from pai_cli.errors import DensityError, ScoreError
from pai_cli.files.densities import LayerDensities
from pai_cli.models.language import Block, LanguageModel, Slot
from pai_cli.models.stream import stream_of
from pai_cli.progress import Progress, silent
from pai_cli.pruning.allocation import check_density
from pai_cli.pruning.base import BlockAllocation
from pai_cli.pruning.inputs import inputs_of
from pai_cli.spelling import option
from pai_cli.telling import note

OUTLIER, SPREAD = 5.0, 0.08
"""M and lambda of OWL: how many times the mean an outlier is, and how far a block's density is from the network's."""

STRETCH = 0.3
"""tau of AlphaPruning: before they are scaled to their mean, sparsities go from 1 - tau to 1 + tau."""

Values = NDArray[np.float64]


def owl(
    model: LanguageModel, density: float, tokens: NDArray[np.int64], device: str, progress: Progress = silent
) -> LayerDensities:
    """OWL: blocks with more outliers keep more.

    Of a block, D is the share of all scores |W_ij| ||X_j||_2 of its matrices that are above 5 times their mean, the text
    `tokens` (sequences, length) running through the whole network. Densities are D scaled to a range of 2 x 0.08 and moved
    so that their mean over the blocks is the density. Yin et al. 2024, section 3, https://arxiv.org/abs/2310.05175

    Raises `DensityError` where one would not be above 0 and at most 1, and what reading the model raises.
    """
    check_density(density)
    stream = stream_of(model, torch.from_numpy(tokens), device)
    found: list[float] = []
    doubts: dict[str, str] = {}
    for number, block in enumerate(model.blocks, start=1):
        with model.in_memory(model.names_of(block), device):
            inputs = inputs_of(model, block, stream, "squares", device, keep=True)
            found.append(_outliers(model, {slot: one.squares for slot, one in inputs.items() if not one.doubt}))
        doubts |= {slot.parameter: one.doubt for slot, one in inputs.items() if one.doubt}
        progress(number, len(model.blocks), f"outliers of block {number} of {len(model.blocks)}")
    for name, doubt in doubts.items():
        note(f"{name}: does not count among outliers, for its inputs are not known: {doubt}")
    shares = np.array(found)
    width = shares.max() - shares.min()
    spread = (shares - shares.min()) * (2 * SPREAD / width) if width else np.zeros_like(shares)
    return _by_layer(model, spread - spread.mean() + density, "owl", density)


def _outliers(model: LanguageModel, squares: dict[Slot, torch.Tensor]) -> float:
    """The share of a block's scores that are above `OUTLIER` times their mean; 0 where there are none."""
    scores = [model.matrix(slot).abs() * one.sqrt().to(model.dtype) for slot, one in squares.items()]
    count = max(sum(one.numel() for one in scores), 1)
    mean = sum(float(one.sum(dtype=torch.float64)) for one in scores) / count
    return sum(int((one > OUTLIER * mean).sum()) for one in scores) / count


def alphapruning(model: LanguageModel, density: float, device: str, progress: Progress = silent) -> LayerDensities:
    """AlphaPruning: blocks whose spectra have a heavier tail keep more; no text is read.

    A block's alpha is the mean of `hill` over its matrices. Its sparsity is eta ((alpha - min) / (max - min) 0.6 + 0.7), min
    and max over the blocks, eta such that the network keeps the density of all weights. Lu et al. 2024, equations 3 and 4,
    https://arxiv.org/abs/2410.10912

    Raises `DensityError` where a density would not be above 0 and at most 1, `ScoreError` for a matrix without a tail, and
    what reading the model raises.
    """
    check_density(density)
    found = []
    for number, block in enumerate(model.blocks, start=1):
        with model.in_memory(model.names_of(block), device):
            found.append(float(np.mean([hill(model.matrix(slot), slot.layer.name) for slot in block.slots])))
        progress(number, len(model.blocks), f"spectrum of block {number} of {len(model.blocks)}")
    alphas = np.array(found)
    sizes = np.array([_size(block) for block in model.blocks], np.float64)
    width = alphas.max() - alphas.min()
    place = (alphas - alphas.min()) / width if width else np.full_like(alphas, 0.5)
    wanted = 1 - STRETCH + 2 * STRETCH * place
    sparsities = wanted * ((1 - density) * sizes.sum() / (wanted * sizes).sum())
    return _by_layer(model, 1 - sparsities, "alphapruning", density)


def hill(matrix: torch.Tensor, name: str = "the matrix") -> float:
    """Hill's estimate of the exponent alpha of the density of W^T W's eigenvalues, of which the upper half is the tail.

    alpha = 1 + k / sum_{i <= k} ln(e_{n-i+1} / e_{n-k}) of eigenvalues e_1 <= ... <= e_n, n the smaller side, k = n // 2;
    above 1. Raises `ScoreError` where that is not defined: half of them are 0, or the tail is all one value.
    """
    wide = matrix.double() if matrix.shape[0] <= matrix.shape[1] else matrix.double().T
    eigenvalues = torch.linalg.eigvalsh(wide @ wide.T)
    count = len(eigenvalues) // 2
    largest = float(eigenvalues[-1])
    lowest = float(eigenvalues[-count - 1]) if count else 0.0
    if not lowest > largest * len(eigenvalues) * torch.finfo(torch.float64).eps:
        raise ScoreError(
            f"{name}: half of its spectrum is 0, and has no tail to measure; leave {option('allocation')} out"
        )
    total = float((eigenvalues[-count:] / lowest).log().sum())
    if total <= 0:
        raise ScoreError(f"{name}: its spectrum is flat, and has no tail to measure; leave {option('allocation')} out")
    return 1 + count / total


def _size(block: Block) -> int:
    return sum(prod(layer.shape) for layer in block.layers)


def _by_layer(
    model: LanguageModel, densities: Sequence[float] | Values, name: BlockAllocation, density: float
) -> LayerDensities:
    """Each layer's density, which is its block's; the head's is the network's."""
    lowest, highest = float(min(densities)), float(max(densities))
    if lowest <= 0 or highest > 1:
        raise DensityError(
            f"{option('allocation', name)}: densities would go from {lowest:.3g} to {highest:.3g} at "
            f"{option('density', density)}; each must be above 0 and at most 1: give another density"
        )
    given = [
        (layer.name, float(one)) for block, one in zip(model.blocks, densities, strict=True) for layer in block.layers
    ]
    return (*given, *(() if model.head is None else ((model.head.layer.name, density),)))
