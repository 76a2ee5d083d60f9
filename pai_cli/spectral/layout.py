"""How a weight tensor unrolls to the matrix of a bipartite graph."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Layout:
    """What a weight's shape alone does not tell.

    `groups`: of a grouped convolution (1 otherwise). `transposed`: the weight is stored (in, out/groups, *kernel), as
    transposed convolutions do, instead of (out, in/groups, *kernel).
    """

    groups: int = 1
    transposed: bool = False


PLAIN = Layout()
