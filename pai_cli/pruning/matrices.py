"""What a method is told of one matrix of a language model, and what it makes of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import torch

from pai_cli.pruning.allocation import kept_count
from pai_cli.pruning.base import Pattern
from pai_cli.pruning.ties import Tie

if TYPE_CHECKING:
    from pai_cli.pruning.base import InputsOf


@dataclass
class Inputs:
    """What a text sent into a matrix of n inputs: of X (tokens, n), all sequences one after the other.

    `squares`: the sum of squares of each input over the tokens, (n,), float64. `gram`: X^T X, (n, n), in the weights' own
    type; None for a method that does not look at it. `tokens`, `sequences`: how many. `doubt`: why this may not be what the
    matrix got, "" where it is.
    """

    squares: torch.Tensor
    gram: torch.Tensor | None
    tokens: int = 0
    sequences: int = 0
    doubt: str = ""

    @classmethod
    def none_yet(cls, matrix: torch.Tensor, what: InputsOf) -> Inputs:
        """Before any token has come, of a matrix (outputs, inputs)."""
        count = matrix.shape[1]
        gram = torch.zeros(count, count, dtype=matrix.dtype, device=matrix.device) if what == "gram" else None
        return cls(torch.zeros(count, dtype=torch.float64, device=matrix.device), gram)

    def add(self, inputs: torch.Tensor) -> None:
        """Take in the inputs of a sequence, (..., n)."""
        flat = inputs.reshape(-1, inputs.shape[-1])
        self.squares += torch.linalg.vector_norm(flat, dim=0, dtype=torch.float64).square()
        if self.gram is not None:
            self.gram.addmm_(flat.T, flat)
        self.tokens += len(flat)
        self.sequences += 1


@dataclass(frozen=True)
class Matrix:
    """One matrix to be pruned: `weight` (outputs, inputs), and what came into it.

    `density`: the share of its weights to keep, or `pattern`, N of every M consecutive inputs. `invert`: keep the smallest
    scores.
    """

    weight: torch.Tensor
    inputs: Inputs
    density: float
    pattern: Pattern | None = None
    invert: bool = False
    name: str = ""

    def kept_of(self, size: int) -> int:
        """How many of so many weights are kept: round(density * size), halves up."""
        return kept_count(self.density, size)


class PrunedMatrix(NamedTuple):
    """Which weights are kept, boolean, and the weights, 0 where they are not; `tie`: what equal scores settled."""

    mask: torch.Tensor
    weight: torch.Tensor
    tie: Tie = Tie(0, 0)


PruneMatrix = Callable[[Matrix], PrunedMatrix]


def keep_largest_in_rows(scores: torch.Tensor, count: int) -> tuple[torch.Tensor, Tie]:
    """A mask of the `count` largest scores of each row, (rows, n); ties go to the lower index. Also what they settled."""
    kept = torch.zeros_like(scores, dtype=torch.bool)
    if not 0 < count < scores.shape[1]:
        return (~kept if count else kept), Tie(0, 0)
    order = torch.argsort(scores, dim=1, descending=True, stable=True)
    kept.scatter_(1, order[:, :count], True)
    lowest = scores.gather(1, order[:, count - 1 : count])
    settled = (scores.gather(1, order[:, count : count + 1]) == lowest)[:, 0]
    equal = (scores == lowest)[settled]
    return kept, Tie(int(equal.sum()), int((equal & kept[settled]).sum()))


def keep_largest_in_patterns(scores: torch.Tensor, pattern: Pattern) -> tuple[torch.Tensor, Tie]:
    """A mask of the N largest scores of every M consecutive ones of a row; ties go to the lower index."""
    kept, tie = keep_largest_in_rows(scores.reshape(-1, pattern.of), pattern.keep)
    return kept.reshape(scores.shape), tie
