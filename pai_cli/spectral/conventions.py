"""Which graphs have gaps, which left-regular subgraphs count, and what each of those weighs: the conventions of two papers.

Imports nothing heavy: the command line offers them.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Any

Numbers = Any  # an int, or an int64 array with an entry a graph

LEAST_DEGREE = 3  # mean degree under which gaps are not defined
LEAST_LEFT = {"h23": 3, "f23": 2}  # vertices that must share a degree


class Convention(StrEnum):
    """`h23`: Hoang, Liu, Marculescu, Wang, ICLR 2023. `f23`: Hoang, Kundu, Liu, Wang, NeurIPS 2023, by the authors' code.

    That code asks 3 of one side's mean degree and more than 1 of the other's: the outputs' is the one of 3 in a whole layer,
    the inputs' in a subgraph, which it hands over transposed.
    """

    H23 = "h23"
    F23 = "f23"

    def has_gaps(self, edges: Numbers, n_L: Numbers, n_R: Numbers) -> Any:
        """Whether a whole layer's gaps are defined."""
        left = edges >= LEAST_DEGREE * n_L if self is Convention.H23 else edges > n_L
        return left & (edges >= LEAST_DEGREE * n_R)

    def counts(self, degree: Numbers, n_L: Numbers, n_R: Numbers) -> Any:
        """Whether a left-regular subgraph counts: `n_L` left vertices of `degree` that touch `n_R` right ones."""
        edges = degree * n_L
        right = edges >= LEAST_DEGREE * n_R if self is Convention.H23 else edges > n_R
        return (n_L >= LEAST_LEFT[self]) & (degree >= LEAST_DEGREE) & right

    @property
    def weighs_expansion(self) -> bool:
        """Whether a subgraph's term is multiplied by max(n_L, n_R) / (n_L + n_R - 1)."""
        return self is Convention.F23

    @property
    def conditions_lambda(self) -> bool:
        """Whether a layer's lambda is defined only where its gaps are."""
        return self is Convention.F23

    @property
    def without_gaps(self) -> str:
        """Why a layer has no gaps."""
        return "mean degree below 3" if self is Convention.H23 else "mean degree of outputs below 3, or of inputs 1"

    @property
    def without_subgraph(self) -> str:
        """Why a layer has no mean over subgraphs."""
        if self is Convention.H23:
            return "no left-regular subgraph with mean degrees of 3 or more"
        return "no two inputs of one degree, 3 or more, that share outputs"
