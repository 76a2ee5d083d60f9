"""Power iteration by repeated squaring: the two largest eigenvalues of many small matrices, with bounds from above.

B <- B B^T, k times, takes 2^k steps of the power method in k products (Golub and Van Loan, Matrix Computations, 7.3). It
needs no start vector, does not break down, and a multiple eigenvalue is no special case. The norms that the iterates are
divided by bound the eigenvalue from above, and Ritz values bound it from below (docs/metrics.md has the proof). Nothing here
reads a value, so a device is never waited for.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import torch

BETWEEN = (
    6  # squarings between two scalings: of side 128 the norm falls to 2^-224 at most, whose square is still normal
)

TINY = 1e-300  # divides in place of 0

SAME = 1e-6  # the part of a unit vector outside another, under which only rounding would be left of it


class Dominant(NamedTuple):
    """Of each matrix (b, n, n): a unit vector (b, n, 1) of its largest eigenvalue in size; a bound (b) on its norm, without
    its rounding.
    """

    vector: torch.Tensor
    above: torch.Tensor


class Ritz(NamedTuple):
    """Of each matrix (b, n, n): the Ritz values (b) of a plane, the larger first; Ritz vectors (b, n, 2); their images."""

    first: torch.Tensor
    second: torch.Tensor
    vectors: torch.Tensor
    images: torch.Tensor


def squarings_for(tolerance: float) -> int:
    """How many squarings keep the bound that close for any side up to 128: the root of the multiplicity, which it is off by
    at most, is to the power 2^-k then.
    """
    return 32 + max(0, min(18, math.ceil(math.log2(1e-9 / tolerance))))


def dominant(matrices: torch.Tensor, squarings: int) -> Dominant:
    """The largest eigenvalue, in size, of symmetric matrices (b, n, n), float64."""
    import torch

    power, norms = _squared(matrices, squarings)
    logarithms = torch.cat(norms[1:], dim=2)[:, 0, :].log()
    exponent = logarithms[:, 0] * 2.0**-BETWEEN
    for at in range(1, logarithms.shape[1]):
        exponent = exponent.add(logarithms[:, at], alpha=2.0 ** -min(BETWEEN * (at + 1), squarings))
    return Dominant(_column(power), norms[0][:, 0, 0] * exponent.exp())


def dominant_vector(matrices: torch.Tensor, squarings: int) -> torch.Tensor:
    """The vector alone, (b, n, 1)."""
    return _column(_squared(matrices, squarings)[0])


def _squared(matrices: torch.Tensor, squarings: int) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """The power that so many squarings take the matrices to, and what was divided by: before them, and after every few."""
    import torch

    largest = matrices.abs().amax(dim=(1, 2), keepdim=True).clamp_min(TINY)
    power_of_two = largest / torch.frexp(largest).mantissa  # exact: of a deflated matrix the squares may underflow
    norms = [torch.linalg.vector_norm(matrices / power_of_two, dim=(1, 2), keepdim=True) * power_of_two]
    power = matrices / norms[0].clamp_min(TINY)
    for done in range(1, squarings + 1):
        power = torch.bmm(power, power.mT)
        if done % BETWEEN == 0 or done == squarings:
            norms.append(torch.linalg.vector_norm(power, dim=(1, 2), keepdim=True))
            power = power / norms[-1].clamp_min(TINY)
    return power, norms


def _column(powers: torch.Tensor) -> torch.Tensor:
    """The longest column of each, nearly, as a unit vector (b, n, 1)."""
    largest = powers.diagonal(dim1=1, dim2=2).argmax(dim=1)
    return unit(powers.gather(2, largest[:, None, None].expand(-1, powers.shape[1], 1)))


def deflated(matrices: torch.Tensor, vectors: torch.Tensor, images: torch.Tensor) -> torch.Tensor:
    """B - theta v v^T, theta = v^T B v and at least 0: the second eigenvalue of B is at most its first (Weyl)."""
    import torch

    theta = torch.bmm(vectors.mT, images).clamp_min(0.0)
    return torch.baddbmm(matrices, vectors * theta, vectors.mT, alpha=-1.0)


def unit(vectors: torch.Tensor) -> torch.Tensor:
    """Vectors (b, n, 1) of length 1; zero stays zero."""
    import torch

    lengths: torch.Tensor = torch.linalg.vector_norm(vectors, dim=1, keepdim=True)
    return vectors / lengths.clamp_min(TINY)


def orthonormal(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    """A basis (b, n, 2) of the plane of two unit vectors (b, n, 1). What is hardly outside the first becomes zero, whose
    Ritz value 0 is not above the second eigenvalue of a semidefinite matrix either.
    """
    import torch

    for _ in range(2):
        second = torch.baddbmm(second, first, torch.bmm(first.mT, second), alpha=-1.0)
        length = torch.linalg.vector_norm(second, dim=1, keepdim=True)
        second = torch.where(length > SAME, second / length, 0.0)
    return torch.cat([first, second], dim=2)


def rayleigh_ritz(basis: torch.Tensor, images: torch.Tensor) -> Ritz:
    """The best values and vectors of planes (b, n, 2), whose images are given; in closed form."""
    import torch

    small = torch.bmm(basis.mT, images)
    a, b, d = small[:, 0, 0], small[:, 0, 1], small[:, 1, 1]
    middle, half = (a + d) / 2, torch.hypot((a - d) / 2, b)
    angle = torch.atan2(2 * b, a - d) / 2
    cosine, sine = angle.cos(), angle.sin()
    turn = torch.stack([cosine, -sine, sine, cosine], dim=1).view(-1, 2, 2)
    return Ritz(middle + half, middle - half, torch.bmm(basis, turn), torch.bmm(images, turn))


class Squared(NamedTuple):
    """Of each Gram matrix: Ritz values from below, and bounds from above, which lack the rounding; (b) each."""

    first: torch.Tensor
    second: torch.Tensor
    above_first: torch.Tensor
    above_second: torch.Tensor


def two_largest(grams: torch.Tensor, squarings: int) -> Squared:
    """The two largest eigenvalues of Gram matrices (b, n, n), float64, n up to 128."""
    import torch

    vector, above_first = dominant(grams, squarings)
    other, above_second = dominant(deflated(grams, vector, torch.bmm(grams, vector)), squarings)
    basis = orthonormal(vector, other)
    best = rayleigh_ritz(basis, torch.bmm(grams, basis))
    return Squared(best.first, best.second, above_first, above_second)
