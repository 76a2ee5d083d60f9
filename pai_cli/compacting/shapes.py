"""What a follower of channels asks of shapes and labels: whether units were moved, merged, or cut off by padding."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils._pytree import tree_leaves

from pai_cli.models.follow import Strand
from pai_cli.models.operations import Operation

Flags = NDArray[np.bool_]


def storages(tree: object) -> set[int]:
    """Where the memory of all tensors begins that stand in this."""
    return {leaf.untyped_storage().data_ptr() for leaf in tree_leaves(tree) if isinstance(leaf, torch.Tensor)}


def lead(labels: torch.Tensor, dims: int) -> tuple[int, ...]:
    """The shape of these labels with sides of 1 before it, so that there are `dims`."""
    return (1,) * (dims - labels.dim()) + tuple(labels.shape)


def unmoved(before: list[Strand], after: list[Strand]) -> bool:
    """Whether every strand has all its units in the same order as before."""
    return len(before) == len(after) and all(
        a == b and torch.equal(x.flatten(), y.flatten()) for (a, x), (b, y) in zip(before, after, strict=True)
    )


def sides(strands: list[Strand]) -> list[list[int]]:
    """Of each strand, the sides along which its units are told apart."""
    return [[side for side in labels.shape if side > 1] for _, labels in strands]


def merges(before: tuple[int, ...], after: tuple[int, ...]) -> bool:
    """Whether each side of the shape after is a product of neighbouring sides before: none is split."""
    left = [side for side in before if side > 1]
    for side in after:
        size = 1
        while size < side and left:
            size *= left.pop(0)
        if size != side:
            return False
    return not left


def inside_of(op: Operation) -> Flags:
    """Of each element of a convolution's kernel, whether it meets the image at every position of the output."""
    value, weight, _, stride, padding, dilation = op.args[:6]
    every = np.ones((), np.bool_)
    for dim, size in enumerate(weight.shape[2:]):
        at = [list(one)[dim if len(one) > 1 else 0] for one in (stride, padding, dilation)]
        first = np.arange(size) * at[2] - at[1]
        last = first + (op.first.shape[2 + dim] - 1) * at[0]
        every = np.logical_and.outer(every, (first >= 0) & (last < value.shape[2 + dim]))
    return np.asarray(every).reshape(-1)
