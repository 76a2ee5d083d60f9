"""Graphs of a network's layers on a device: their vertices in one buffer a width, and what the host must know in two waits.

Left vertices are rows. Layers whose right sides are padded to one width share a buffer; each layer's rows are sorted by
degree, so that a class is a range of rows, and those without an edge are left out.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from pai_cli.spectral.device.moving import fetched, sent
from pai_cli.spectral.graph import Array, BipartiteGraph, LeftClasses
from pai_cli.spectral.result import Floats, Ints
from pai_cli.spectral.validation import placed_weights, real_weights, zero_one

if TYPE_CHECKING:
    import torch

WIDTHS = (16, 32, 64, 128, 256, 512)


def padded_width(rows: int) -> int:
    """The width that so many right vertices are padded to: few widths are few launches."""
    return next((width for width in WIDTHS if rows <= width), -(-rows // 128) * 128)


@dataclass(eq=False)
class Block:
    """The vertices of layers that are padded to one width.

    rows: (1 + left vertices of all, width), int8; the first row is zero and stands for no vertex. values: `abs(W) * M` in
    the same places, float64, or None.
    """

    rows: torch.Tensor
    values: torch.Tensor | None

    @property
    def width(self) -> int:
        """Right vertices, with padding."""
        return int(self.rows.shape[1])


class DeviceGraph(BipartiteGraph):
    """`BipartiteGraph` of tensors: its numbers are on the host already, its vertices are rows of a `Block` on the device.

    block: where they are; begin: the row of the first. squares: of each left-regular class, and of the whole graph last, the
    sum of the squared degrees of the right vertices, which the entries of a Gram matrix of it add up to.
    """

    packed = compiled = False

    def __init__(self, mask: torch.Tensor, weights: torch.Tensor | None, block: Block):
        import array_api_compat.torch as xp

        self.xp = xp
        self.weights = weights
        self.n_R0, self.n_L0 = int(mask.shape[0]), int(mask.shape[1])
        self.place = str(mask.device)
        self.block = block
        self.begin = 0
        self.connected: bool | None = None

    def learn_left(self, degrees: Ints, largest: Floats | None) -> None:
        """Take in the degree of each column, and the largest weight of its edges."""
        order = np.argsort(degrees, kind="stable")
        self._columns = order[np.count_nonzero(degrees == 0) :]
        self.left_degrees = degrees[self._columns]
        self.n_L, self.edges = len(self._columns), int(degrees.sum())
        self._largest = None if largest is None else largest[self._columns]
        first = np.flatnonzero(np.diff(self.left_degrees, prepend=-1))
        last = np.append(first[1:], self.n_L)[: len(first)]
        self._classes = LeftClasses(self.left_degrees[first], first, last, first)

    def learn_right(self, degrees: Ints, touched: Ints, squares: Ints) -> None:
        """Take in the degree of each row, how many rows each class touches, and `squares`."""
        self._rows = np.flatnonzero(degrees)
        self.right_degrees = degrees[self._rows]
        self.n_R = len(self._rows)
        known = self._classes
        self._classes = LeftClasses(known.degree, known.begin, known.end, touched)
        self.squares = np.append(squares, np.square(self.right_degrees).sum())

    def squares_of(self, begin: int, end: int) -> int | None:
        """The sum of squares of a range that is a class or all of the graph; None of another one."""
        if begin == 0 and end == self.n_L:
            return int(self.squares[-1])
        at = int(np.searchsorted(self._classes.begin, begin))
        known = at < len(self._classes.begin) and (self._classes.begin[at], self._classes.end[at]) == (begin, end)
        return int(self.squares[at]) if known else None

    @cached_property
    def incidence(self) -> Array:
        """See `BipartiteGraph`."""
        return self._of_block(self.block.rows).float()

    @cached_property
    def weighted(self) -> Array:
        """See `BipartiteGraph`."""
        self._given_weights()
        return self._of_block(self.block.values)

    def _of_block(self, array: Any) -> Array:
        rows = array[self.begin : self.begin + self.n_L]
        return rows[:, : self.n_R] if self.n_R == self.n_R0 else rows.index_select(1, sent(self._rows, rows.device))

    def largest_weight(self, begin: int, end: int) -> float:
        """See `BipartiteGraph`."""
        self._given_weights()
        assert self._largest is not None
        return float(np.max(self._largest[begin:end]))

    @cached_property
    def left_classes(self) -> LeftClasses:
        """See `BipartiteGraph`."""
        return self._classes

    def _is_connected(self) -> bool:
        """A solver has mostly seen it by the way."""
        return super()._is_connected() if self.connected is None else self.connected


def graphs_of(masks: Sequence[torch.Tensor], weights: Sequence[torch.Tensor | None]) -> list[DeviceGraph]:
    """The graphs of masks (rows, columns) with their weights, of the same shapes, if any. All are on one device.

    Raises `ArrayError` and `NotFiniteError` for what is no mask or no weights.
    """
    checked = [zero_one(mask) for mask in masks]
    placed = [None if own is None else placed_weights(own, mask) for own, mask in zip(weights, checked, strict=True)]
    together: dict[tuple[int, bool], list[int]] = {}
    for k, (mask, own) in enumerate(zip(checked, placed, strict=True)):
        together.setdefault((padded_width(mask.shape[0]), own is not None), []).append(k)
    for members in together.values():
        members.sort(key=lambda k: tuple(checked[k].shape))  # one after the other they are moved together
    graphs: dict[int, DeviceGraph] = {}
    gatherings = []
    for (width, _), members in sorted(together.items()):
        gathering = _Gathering([checked[k] for k in members], [placed[k] for k in members], width)
        gatherings.append(gathering)
        graphs |= dict(zip(members, gathering.graphs, strict=True))
    if not gatherings:
        return []
    finite = _learn(gatherings, [one.left_numbers() for one in gatherings], _Gathering.learn_left)
    if not finite:
        for own, mask in zip(weights, checked, strict=True):
            if own is not None:
                real_weights(own, mask)  # which says where
    _send_orders(gatherings)
    _learn(gatherings, [one.right_numbers() for one in gatherings], _Gathering.learn_right)
    return [graphs[k] for k in range(len(masks))]


def _learn(gatherings: Sequence[_Gathering], numbers: list[torch.Tensor], learn: Any) -> bool:
    """One wait for the numbers of all; whether each was content with its own."""
    import torch

    flat = fetched(torch.cat(numbers))
    ends = np.cumsum([len(own) for own in numbers])
    content = [learn(one, own) for one, own in zip(gatherings, np.split(flat, ends[:-1]), strict=True)]
    return all(content)


def _send_orders(gatherings: Sequence[_Gathering]) -> None:
    """What each needs to know of its rows' order, in one copy."""
    import torch

    indices = [one.indices() for one in gatherings]
    flat = sent(np.concatenate(indices), gatherings[0].block.rows.device)
    for one, own in zip(gatherings, torch.split(flat, [len(own) for own in indices]), strict=True):
        one.sort(own)


def _stacked(tensors: Sequence[torch.Tensor]) -> torch.Tensor:
    """Tensors of one shape in one, which is no copy of a single one."""
    import torch

    return tensors[0][None] if len(tensors) == 1 else torch.stack(list(tensors))


class _Gathering:
    """The layers of one block on their way into it; those of one shape one after the other."""

    def __init__(self, masks: list[torch.Tensor], weights: list[torch.Tensor | None], width: int):
        import torch

        self._columns = [int(mask.shape[1]) for mask in masks]
        shape = (1 + sum(self._columns), width)
        rows = torch.zeros(shape, dtype=torch.int8, device=masks[0].device)
        values = None if weights[0] is None else torch.zeros(shape, dtype=torch.float64, device=masks[0].device)
        self._finite: list[torch.Tensor] = []
        at, begin = 1, 0
        for (height, columns), number in Counter(tuple(mask.shape) for mask in masks).items():
            same, end, place = slice(begin, begin + number), at + number * columns, (number, columns, width)
            given = _stacked([mask.view(torch.uint8) for mask in masks[same]]).mT
            # In which True is 1 whatever byte stood for it.
            rows[at:end].view(place)[:, :, :height].copy_(given != 0)
            if values is not None:
                own = _stacked([one for one in weights[same] if one is not None])
                values[at:end].view(place)[:, :, :height].copy_(own.mT)
                self._finite.append(own.isfinite().flatten(1).all(dim=1))
            at, begin = end, begin + number
        if values is not None:
            values = torch.where(rows != 0, values.abs_(), 0.0)
        self.block = Block(rows, values)
        kept = [None if own is None else own.clone() for own in weights]
        self.graphs = [DeviceGraph(mask, own, self.block) for mask, own in zip(masks, kept, strict=True)]

    def left_numbers(self) -> torch.Tensor:
        """Degrees of all rows; and with weights, the largest of each row and whether each layer's are finite."""
        import torch

        degrees = self.block.rows.sum(dim=1, dtype=torch.int32)
        if self.block.values is None:
            return degrees.double()
        finite = torch.cat(self._finite).double()
        return torch.cat([degrees.double(), self.block.values.amax(dim=1), finite])

    def learn_left(self, numbers: Floats) -> bool:
        """Tell the graphs; whether all weights are finite."""
        total = 1 + sum(self._columns)
        degrees, largest = numbers[:total].astype(np.int64), numbers[total : 2 * total]
        at = begin = 1
        for graph, columns in zip(self.graphs, self._columns, strict=True):
            own = None if self.block.values is None else largest[at : at + columns]
            graph.learn_left(degrees[at : at + columns], own)
            graph.begin = begin
            at, begin = at + columns, begin + graph.n_L
        return bool(np.all(numbers[2 * total :]))

    def indices(self) -> Ints:
        """The old row of each new one, then the row before each segment's first, then its last: segments are the graphs'
        classes, then the graphs.
        """
        at, order, begin, end = 1, [np.zeros(1, np.int64)], [], []
        for graph, columns in zip(self.graphs, self._columns, strict=True):
            order.append(graph._columns + at)
            begin.append(graph._classes.begin + graph.begin - 1)
            end.append(graph._classes.end + graph.begin - 1)
            at += columns
        first = np.array([graph.begin for graph in self.graphs]) - 1
        last = first + [graph.n_L for graph in self.graphs]
        self._segments = sum(map(len, begin)) + len(first)
        self._order = sum(map(len, order))
        return np.concatenate([*order, *begin, first, *end, last])

    def sort(self, indices: torch.Tensor) -> None:
        """Put the rows in order, without those that have no edge."""
        import torch

        order, self._before, self._last = torch.split(indices, [self._order, self._segments, self._segments])
        self.block.rows = self.block.rows.index_select(0, order)
        if self.block.values is not None:
            self.block.values = self.block.values.index_select(0, order)

    def right_numbers(self) -> torch.Tensor:
        """How many right vertices each segment touches; the squares of their degrees, summed; the degrees in each graph."""
        import torch

        running = self.block.rows.cumsum(dim=0, dtype=torch.int32)
        degrees = running.index_select(0, self._last) - running.index_select(0, self._before)
        touched = (degrees != 0).sum(dim=1)
        squares = degrees.long().square_().sum(dim=1)
        own = degrees[-len(self.graphs) :].flatten().long()
        return torch.cat([touched, squares, own])

    def learn_right(self, numbers: Ints) -> bool:
        """Tell the graphs."""
        touched, squares, degrees = np.split(numbers, [self._segments, 2 * self._segments])
        of_graphs = degrees.reshape(len(self.graphs), -1)
        at = 0
        for graph, own in zip(self.graphs, of_graphs, strict=True):
            end = at + len(graph._classes.begin)
            graph.learn_right(own[: graph.n_R0], touched[at:end], squares[at:end])
            at = end
        return True
