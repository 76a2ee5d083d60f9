"""How a weight tensor unrolls to the matrix of a bipartite graph."""

from __future__ import annotations

import math
from dataclasses import dataclass

from pai_cli.spectral.parameters import flag, whole_number

MOST_GROUPS = 2**31


@dataclass(frozen=True)
class Layout:
    """What a weight's shape alone does not tell.

    `groups`: of a grouped convolution (1 otherwise). `transposed`: the weight is stored (in, out/groups, *kernel), as
    transposed convolutions do, instead of (out, in/groups, *kernel). Raises `ParameterError` for what is neither.
    """

    groups: int = 1
    transposed: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "groups", whole_number("groups", self.groups, 1, MOST_GROUPS))
        flag("transposed", self.transposed)

    def fits(self, shape: tuple[int, ...]) -> bool:
        """Whether a weight of `shape` can be in so many groups: they divide its first dimension."""
        return self.groups == 1 or (len(shape) > 0 and 1 <= self.groups <= shape[0] and shape[0] % self.groups == 0)

    def matrix(self, shape: tuple[int, ...]) -> tuple[int, int]:
        """Rows and columns of the matrix that a weight of `shape`, two dimensions or more, unrolls to."""
        rows = shape[1] * self.groups if self.transposed else shape[0]
        return rows, math.prod(shape) * self.groups // rows


PLAIN = Layout()
