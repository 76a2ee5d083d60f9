"""Wanda: weights by their size times the norm of what comes into them."""

from __future__ import annotations

from pai_cli.pruning.matrices import Matrix, PrunedMatrix, keep_largest_in_patterns, keep_largest_in_rows


def prune_matrix(matrix: Matrix) -> PrunedMatrix:
    """The largest |W_ij| ||X_j||_2 of each output i, or of every M consecutive inputs of it.

    W is (outputs, inputs), X_j the values of input j over all tokens of the text; scores are 0 or more, in the weights' own
    type, their square of the unit of (W X)^2. Each output keeps round(density * inputs), halves up; the kept weights stay as
    they are. Sun et al. 2024, section 3, https://arxiv.org/abs/2306.11695
    """
    norms = matrix.inputs.squares.sqrt().to(matrix.weight.dtype)
    scores = matrix.weight.abs() * norms
    if matrix.invert:
        scores = -scores
    if matrix.pattern is not None:
        kept, tie = keep_largest_in_patterns(scores, matrix.pattern)
    else:
        kept, tie = keep_largest_in_rows(scores, matrix.kept_of(scores.shape[1]))
    return PrunedMatrix(kept, matrix.weight * kept, tie)
