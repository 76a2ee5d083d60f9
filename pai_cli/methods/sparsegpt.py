"""SparseGPT: weights by what their removal costs a layer's outputs, and the others moved so that it costs less."""

from __future__ import annotations

import torch

from pai_cli.errors import ScoreError
from pai_cli.pruning.matrices import Matrix, PrunedMatrix, keep_largest_in_patterns, keep_largest_in_rows
from pai_cli.pruning.ties import Tie
from pai_cli.spelling import option

COLUMNS = 128
"""Inputs whose masks are chosen together, and over which updates are put off."""

DAMPING = 0.01
"""Of the mean of the Hessian's diagonal, what is added to it."""


def prune_matrix(matrix: Matrix) -> PrunedMatrix:
    """Column block after column block of W (outputs, inputs): the largest w^2 / U_jj^2 of the block are kept, or the N
    largest of every M inputs of an output; and what is removed is made up for, column by column, in the columns after it.

    H = 2 X^T X / sequences + 0.01 mean(diag H), and U the upper Cholesky factor of its inverse: U_jj^2 is [H^-1]_jj once
    the columns before j are done, so the score is the rise of the squared error of the outputs (times 2) when w_j goes and
    the rest of its row adapts, and adapting is w_k - w_j U_jk / U_jj for k > j (Optimal Brain Surgeon). Of a block of 128
    columns as many weights are kept as bring the layer to round(density * size), halves up, in the end. Inputs that are
    always 0 lose their weights first. Frantar and Alistarh 2023, algorithm 1, https://arxiv.org/abs/2301.00774

    Raises `ScoreError` where the Hessian cannot be inverted.
    """
    weight = matrix.weight.clone()
    kept = torch.zeros_like(weight, dtype=torch.bool)
    factor, dead = _factor(matrix)
    weight[:, dead] = 0
    rows, columns = weight.shape
    width, tie, done = _width(matrix), Tie(0, 0), 0
    for start in range(0, columns, width):
        here = slice(start, min(start + width, columns))
        count = matrix.kept_of(rows * here.stop) - done
        block = _Block(weight[:, here], factor[here, here])
        found = block.by_pattern(matrix) if matrix.pattern is not None else block.largest(count, matrix)
        tie = Tie(tie.tied + found.tied, tie.kept + found.kept)
        kept[:, here] = block.kept
        done += int(block.kept.sum()) if matrix.pattern is None else 0
        weight[:, here.stop :] -= block.errors @ factor[here, here.stop :]
    return PrunedMatrix(kept, weight, tie)


def _width(matrix: Matrix) -> int:
    """Columns of a block: of whole groups, where a pattern decides."""
    if matrix.pattern is None:
        return COLUMNS
    return max(COLUMNS // matrix.pattern.of, 1) * matrix.pattern.of


def _factor(matrix: Matrix) -> tuple[torch.Tensor, torch.Tensor]:
    """U with U^T U = H^-1, upper; and which inputs are always 0."""
    gram = matrix.inputs.gram
    assert gram is not None
    hessian = gram * (2 / matrix.inputs.sequences)
    diagonal = hessian.diagonal()
    dead = diagonal == 0
    diagonal[dead] = 1
    diagonal += DAMPING * diagonal.mean()
    lower, failed = torch.linalg.cholesky_ex(hessian)
    if not int(failed):
        inverse = torch.cholesky_inverse(lower)
        factor, failed = torch.linalg.cholesky_ex(inverse, upper=True)
    if int(failed):
        raise ScoreError(
            f"{matrix.name}: the Hessian of its inputs cannot be inverted; give a longer {option('text')}, or more "
            f"{option('sequences')}"
        )
    return factor, dead


class _Block:
    """Some columns of a matrix, changed in place, with their part of U; `errors`: what each removed, over U_jj."""

    def __init__(self, weight: torch.Tensor, factor: torch.Tensor):
        self.weight = weight
        self.factor = factor
        self.kept = torch.ones_like(weight, dtype=torch.bool)
        self.errors = torch.zeros_like(weight)

    def largest(self, count: int, matrix: Matrix) -> Tie:
        """Keep the `count` largest scores of the block."""
        kept, tie = keep_largest_in_rows(self._scores(slice(None), matrix).reshape(1, -1), count)
        self.kept = kept.reshape(self.weight.shape)
        self._remove(slice(0, self.weight.shape[1]))
        return tie

    def by_pattern(self, matrix: Matrix) -> Tie:
        """Keep N of every M columns, each group as those before have left it."""
        assert matrix.pattern is not None
        tied = kept = 0
        for start in range(0, self.weight.shape[1], matrix.pattern.of):
            group = slice(start, start + matrix.pattern.of)
            self.kept[:, group], tie = keep_largest_in_patterns(self._scores(group, matrix), matrix.pattern)
            tied, kept = tied + tie.tied, kept + tie.kept
            self._remove(group)
        return Tie(tied, kept)

    def _scores(self, columns: slice, matrix: Matrix) -> torch.Tensor:
        scores = (self.weight[:, columns] / self.factor.diagonal()[columns]).square()
        return -scores if matrix.invert else scores

    def _remove(self, columns: slice) -> None:
        """Column by column, take out what is not kept, and make up for it in the later columns of the block."""
        for at in range(columns.start, columns.stop):
            gone = torch.where(self.kept[:, at], 0, self.weight[:, at]) / self.factor[at, at]
            self.weight[:, at:] -= gone[:, None] * self.factor[at, at:]
            self.weight[:, at].masked_fill_(~self.kept[:, at], 0)  # exactly
            self.errors[:, at] = gone
