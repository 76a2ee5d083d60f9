"""Power iteration that keeps its powers (Lanczos), a fixed number of steps, and the proof that its second value is the
second.

Golub and Van Loan, Matrix Computations, 10.1, with full reorthogonalisation. No step looks at how far the iteration has
come, so nothing here waits for a device; whether it had come far enough is what the proof says (docs/metrics.md).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple

from pai_cli.spectral.device.squaring import Ritz, deflated, dominant_vector, orthonormal, rayleigh_ritz, unit
from pai_cli.spectral.solver_table import shift_for

if TYPE_CHECKING:
    import torch

    Operator = Callable[[torch.Tensor], torch.Tensor]  # vectors (b, n, k) to their images

SPENT = 1e-13  # of matrices of norm about 1: a part outside the space that is shorter is mostly rounding

SQUARINGS = 32  # of the projected matrix, whose vectors are wanted and not its bounds


class Plane(NamedTuple):
    """The two best vectors of each Krylov space (b, n, 1), unit vectors, each by itself."""

    first: torch.Tensor
    second: torch.Tensor


def krylov_plane(times: Operator, start: torch.Tensor, steps: int) -> Plane:
    """Lanczos from unit vectors `start` (b, n, 1), and the projected matrix's two first vectors, by squaring."""
    import torch

    basis, projected = _lanczos(times, start, steps)
    first = dominant_vector(projected, SQUARINGS)
    second = dominant_vector(deflated(projected, first, torch.bmm(projected, first)), SQUARINGS)
    return Plane(unit(torch.bmm(basis.mT, first)), unit(torch.bmm(basis.mT, second)))


def _lanczos(times: Operator, start: torch.Tensor, steps: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The basis (b, steps, n), vectors as rows, and the projected matrix (b, steps, steps), which is tridiagonal.

    Where the space ends, what is left of an image is rounding, and may lie in the space. All further vectors are zero then,
    and so are their rows of the projected matrix.
    """
    import torch

    count, side, _ = start.shape
    basis = torch.zeros((count, steps + 1, side), dtype=start.dtype, device=start.device)
    basis[:, 0, :].copy_(start[:, :, 0])
    diagonal, beside = [], []
    for step in range(steps):
        image = times(basis[:, step, :, None])
        known = basis[:, : step + 1, :]
        along = torch.bmm(known, image)
        rest = torch.baddbmm(image, known.mT, along, alpha=-1.0)
        # One pass is not enough: where little is left of an image, rounding has turned it back to the first vector.
        rest = torch.baddbmm(rest, known.mT, torch.bmm(known, rest), alpha=-1.0)
        length = torch.linalg.vector_norm(rest[:, :, 0], dim=1, keepdim=True)
        long = torch.nn.functional.threshold(length, SPENT, math.inf)
        torch.div(rest[:, :, 0], long, out=basis[:, step + 1, :])
        diagonal.append(along[:, step])
        beside.append(length)
    projected = torch.diag_embed(torch.cat(diagonal, dim=1))
    if steps > 1:
        beside_it = torch.diag_embed(torch.cat(beside[:-1], dim=1), offset=1)
        projected = projected + beside_it + beside_it.mT
    return basis[:, :steps, :], projected


class Settled(NamedTuple):
    """Of each problem: Ritz values, vectors and images of the plane that was found, and residuals (b, 2)."""

    ritz: Ritz
    residuals: torch.Tensor


def settled(times: Operator, plane: Plane) -> Settled:
    """Values and residuals from products with the matrix itself, not from the recurrence."""
    import torch

    basis = orthonormal(*plane)
    ritz = rayleigh_ritz(basis, times(basis))
    values = torch.stack([ritz.first, ritz.second], dim=1)
    apart = ritz.images - ritz.vectors * values[:, None, :]
    return Settled(ritz, torch.linalg.vector_norm(apart, dim=1))


def search(times: Operator, starts: Sequence[torch.Tensor], steps: int) -> Plane:
    """The best two vectors of matrices of norm about 1: of one Krylov space; or, of a second start (b, n, 1), the first of
    its space in the complement of the first's, where a double first eigenvalue is seen.
    """
    import torch

    plane = krylov_plane(times, starts[0], steps)
    if len(starts) == 1:
        return plane
    first = plane.first
    theta = torch.bmm(first.mT, times(first))

    def elsewhere(vectors: torch.Tensor) -> torch.Tensor:
        return torch.baddbmm(times(vectors), first * theta, torch.bmm(first.mT, vectors), alpha=-1.0)

    return Plane(first, krylov_plane(elsewhere, starts[1], steps).first)


class Proof(NamedTuple):
    """Whether the factor exists, the shift t, and the trace of what was factored; (b) each."""

    there: torch.Tensor
    shift: torch.Tensor
    trace: torch.Tensor


def proof(grams: torch.Tensor, sides: torch.Tensor, ritz: Ritz, tolerance: float) -> Proof:
    """Whether t I + theta v v^T - G has a Cholesky factor, v and theta the first Ritz vector and value: no eigenvalue of G
    but the first is above t then (`bounds`). `sides` (b), float64: of each matrix without its padding.
    """
    import torch

    first, second = ritz.first.clamp_min(0.0), ritz.second.clamp_min(0.0)
    shift = shift_for(first, second, sides, tolerance)
    vector = ritz.vectors[:, :, :1]
    matrices = torch.baddbmm(grams, vector * first[:, None, None], vector.mT, beta=-1.0)
    diagonal = matrices.diagonal(dim1=1, dim2=2)
    diagonal.add_(shift[:, None])
    trace = diagonal.sum(dim=1) - (grams.shape[1] - sides) * shift
    factors, info = torch.linalg.cholesky_ex(matrices)
    finite = factors.diagonal(dim1=1, dim2=2).isfinite().all(dim=1)
    return Proof((info == 0) & finite, shift, trace)
