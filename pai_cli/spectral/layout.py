"""How a weight tensor unrolls to the matrix of a bipartite graph."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace

from pai_cli.spectral.parameters import flag, whole_number

MOST_GROUPS = 2**31


@dataclass(frozen=True)
class Layout:
    """What a weight's shape alone does not tell.

    `groups`: of a grouped convolution (1 otherwise). `transposed`: the weight is stored (in, out/groups, *kernel), as
    transposed convolutions do, instead of (out, in/groups, *kernel). `kernel_first`: it is stored (*kernel, in/groups, out),
    as Flax and Keras do, or transposed (*kernel, out/groups, in). `known`: nobody guessed this. `stacked`: the first of
    three dimensions runs over matrices by themselves, the experts of a mixture, each stored as the rest tells. Raises
    `ParameterError` for what is none of these.
    """

    groups: int = 1
    transposed: bool = False
    kernel_first: bool = False
    known: bool = field(default=True, compare=False)
    stacked: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "groups", whole_number("groups", self.groups, 1, MOST_GROUPS))
        flag("transposed", self.transposed)
        flag("kernel_first", self.kernel_first)
        flag("known", self.known)
        flag("stacked", self.stacked)

    def kernel_last(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """The shape as PyTorch would store the weight: a channel, the other, the kernel."""
        return (shape[-1], *shape[-2:-1], *shape[:-2]) if self.kernel_first and len(shape) > 1 else shape

    def fits(self, shape: tuple[int, ...]) -> bool:
        """Whether a weight of `shape` can be in so many groups, which divide its first dimension, or a stack of matrices."""
        if self.stacked:
            return len(shape) == 3 and self.groups == 1 and not self.kernel_first
        stored = self.kernel_last(shape)
        return self.groups == 1 or (len(stored) > 0 and 1 <= self.groups <= stored[0] and stored[0] % self.groups == 0)

    def matrix(self, shape: tuple[int, ...]) -> tuple[int, int]:
        """Rows and columns of the matrix that a weight of `shape`, two dimensions or more, unrolls to; of a stack each."""
        if self.stacked:
            return replace(self, stacked=False).matrix(shape[1:])
        stored = self.kernel_last(shape)
        rows = stored[1] * self.groups if self.transposed else stored[0]
        return rows, math.prod(shape) * self.groups // rows


PLAIN = Layout()
UNKNOWN = Layout(known=False)
"""Taken as a plain one for want of knowledge."""
