"""The problems of many graphs as one plan: which are solved together, in which way, and where their rows stand.

All of this is worked out on the host, from numbers that it has already. What is solved together is padded to one side. A
batch more costs launches, a larger side bytes and operations: which is less follows from the rates of a device.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from itertools import pairwise

import numpy as np

from pai_cli.spectral.device.gathering import Block, DeviceGraph
from pai_cli.spectral.device.squaring import squarings_for
from pai_cli.spectral.problems import Problems
from pai_cli.spectral.result import Floats, Ints
from pai_cli.spectral.solver_table import SolverLimits

SQUARED_SIDE = 128  # up to this padded side by squaring

SIDES = (32, 64, 128, 256, 512)  # past them the powers of two

BATCH_BYTES = 2**33  # of Gram matrices, and of what is made of them, at once; less where a device has less

SMALL = 2**20  # entries of a whole graph up to which it is gathered with others, as subgraphs are

GATHERED_BYTES = 2**30  # of rows that are brought together for one product

COPIES = 6  # of a batch's matrices at most: they, deflated ones or the proof's, a factor, what is being made


class Method(StrEnum):
    """How a batch is solved: by squaring, by Lanczos on Gram matrices with a proof, or by Lanczos without any."""

    SQUARING = "squaring"
    KRYLOV = "krylov"
    FREE = "matrix-free"


@dataclass(frozen=True)
class Rates:
    """Of a device: seconds a launch, with what the interpreter takes for the views around it; bytes and float64 operations a
    second. An H200's unless told otherwise.
    """

    launch: float = 1e-5
    bytes: float = 4.3e12
    operations: float = 3e13


@dataclass(frozen=True, eq=False)
class Part:
    """One problem: rows `begin` to `end` of its graph's block, divided by `scale`. place: its number among all.

    left: whether its Gram matrix is that of its left vertices; side: how many vertices that side has; sum: what the matrix's
    entries add up to, if that is known. whole: whether it is all of its graph.
    """

    place: int
    graph: DeviceGraph
    begin: int
    end: int
    weighted: bool
    scale: float
    left: bool
    side: int
    sum: int | None
    whole: bool

    @property
    def padded(self) -> int:
        """The side of its Gram matrix, padded."""
        return padded_side(self.end - self.begin if self.left else self.graph.block.width)


@dataclass(frozen=True, eq=False)
class Job:
    """Parts of one block that are brought together: `rows` each, with padding; or one that is taken as it stands."""

    block: Block
    parts: list[Part]
    rows: int
    as_it_stands: bool

    @property
    def indices(self) -> Ints:
        """Rows of the block, row 0 for padding."""
        if self.as_it_stands:
            return np.zeros(0, np.int64)
        at = np.array([part.begin for part in self.parts])[:, None] + np.arange(self.rows)
        indices: Ints = np.where(at < np.array([part.end for part in self.parts])[:, None], at, 0).reshape(-1)
        return indices


@dataclass(frozen=True, eq=False)
class Batch:
    """What is solved together: Gram matrices padded to `side`, or for FREE the rows of one job. steps: of Lanczos."""

    method: Method
    side: int
    steps: int
    jobs: list[Job]
    searches: int = 1

    @property
    def parts(self) -> list[Part]:
        """In the order of the matrices."""
        return [part for job in self.jobs for part in job.parts]

    @property
    def products(self) -> int:
        """Products with the Gram matrix that solving takes, each squaring for one."""
        return self.steps * (2 if self.method is Method.SQUARING else self.searches) + 2


@dataclass(frozen=True)
class Way:
    """How problems are to be solved. searches: 2 to look for the second value in the complement of the first, further on."""

    limits: SolverLimits
    searches: int = 1
    rates: Rates = field(default_factory=Rates)
    room: int = BATCH_BYTES

    def steps(self, side: int, method: Method) -> int:
        """Of Lanczos, or squarings."""
        if method is Method.SQUARING:
            return squarings_for(self.limits.tolerance)
        steps = 48 + 12 * max(0, side.bit_length() - 9)  # 48 of side 256, 12 more for each side twice as large
        if method is Method.FREE:
            steps *= 3  # residuals, not their squares, come under the tolerance
        if self.searches > 1:
            steps *= 3
        most = max(1, (self.limits.most_products - 2) // self.searches_for(method))
        return max(1, min(steps, side, most))

    def searches_for(self, method: Method) -> int:
        """Without a Gram matrix nothing proves that the second value was seen, so it is always looked for apart as well."""
        return max(2, self.searches) if method is Method.FREE else self.searches

    def method(self, part: Part) -> Method:
        """Of one problem."""
        if part.side > self.limits.proof_side:
            return Method.FREE
        return Method.SQUARING if part.padded <= SQUARED_SIDE else Method.KRYLOV


def padded_side(side: int) -> int:
    """The side that a matrix is padded to."""
    return next((padded for padded in SIDES if side <= padded), 1 << (side - 1).bit_length())


def parts_of(requests: Sequence[Problems]) -> list[Part]:
    """Every part of every request, in order. The graphs are `DeviceGraph`s."""
    parts: list[Part] = []
    for request in requests:
        graph = request.graph
        assert isinstance(graph, DeviceGraph)
        scales = request.scales.tolist()
        for k, (begin, end) in enumerate(request.ranges.tolist()):
            left = padded_side(end - begin) <= padded_side(graph.block.width)
            part = Part(
                place=len(parts),
                graph=graph,
                begin=graph.begin + begin,
                end=graph.begin + end,
                weighted=request.weighted,
                scale=scales[k],
                left=left,
                side=end - begin if left else int(request.right[k]),
                sum=None if request.weighted else _sum_of(graph, begin, end, left=left),
                whole=end - begin == graph.n_L,
            )
            parts.append(part)
    return parts


def _sum_of(graph: DeviceGraph, begin: int, end: int, *, left: bool) -> int | None:
    """What the entries of a Gram matrix add up to: the squared degrees of the other side's vertices."""
    return graph.squares_of(begin, end) if left else int(np.square(graph.left_degrees[begin:end]).sum())


def planned(parts: Sequence[Part], way: Way) -> list[Batch]:
    """Batches that hold each part once."""
    by_side: dict[tuple[Method, int], list[Part]] = {}
    for part in parts:
        by_side.setdefault((way.method(part), part.padded), []).append(part)
    batches = []
    for (method, side), own in sorted(_merged(by_side, way).items()):
        steps = way.steps(side, method)
        if method is Method.FREE:
            searches = way.searches_for(method)
            batches += [Batch(method, side, steps, [job], searches) for job in _jobs(own, element=8)]
            continue
        most = max(1, way.room // (8 * COPIES * side * side))
        for first in range(0, len(own), most):
            batches.append(Batch(method, side, steps, _jobs(own[first : first + most]), way.searches))
    return batches


def _merged(by_side: dict[tuple[Method, int], list[Part]], way: Way) -> dict[tuple[Method, int], list[Part]]:
    """The same with problems padded to the next side in use where that costs less than a batch of their own."""
    merged = dict(by_side)
    for method in (Method.SQUARING, Method.KRYLOV):
        sides = sorted(side for kind, side in merged if kind is method)
        for side, larger in pairwise(sides):
            few, many = len(merged[method, side]), len(merged[method, larger])
            apart = seconds(method, side, few, way) + seconds(method, larger, many, way)
            if seconds(method, larger, few + many, way) < apart:
                merged[method, larger] = merged.pop((method, side)) + merged[method, larger]
    return merged


LAUNCHES = {Method.SQUARING: (2.4, 50), Method.KRYLOV: (8.0, 200)}  # a step, and besides


def seconds(method: Method, side: int, count: int, way: Way) -> float:
    """What a batch takes by the model of launches, bytes and operations."""
    steps, rates, entries = way.steps(side, method), way.rates, count * side * side
    each, besides = LAUNCHES[method]
    if method is Method.SQUARING:
        passes, operations = 6 * steps, 4.0 * steps * side
    else:
        passes, operations = steps * way.searches + 16, 2.0 * steps * way.searches + side / 3
    launches = each * steps * way.searches + besides
    return launches * rates.launch + entries * max(8 * passes / rates.bytes, operations / rates.operations)


def _jobs(parts: Sequence[Part], element: int = 4) -> list[Job]:
    """The parts of a batch, gathered: those of one block and one padded number of rows together, within the memory for it.

    `element`: bytes of an entry once it is gathered.
    """
    groups: dict[tuple[int, bool, bool, int], list[Part]] = {}
    jobs = []
    for part in parts:
        if part.whole and (part.end - part.begin) * part.graph.block.width > SMALL:
            jobs.append(Job(part.graph.block, [part], part.end - part.begin, as_it_stands=True))
            continue
        key = (id(part.graph.block), part.weighted, part.left, padded_side(part.end - part.begin))
        groups.setdefault(key, []).append(part)
    for (_, weighted, _, rows), own in groups.items():
        block = own[0].graph.block
        most = max(1, GATHERED_BYTES // ((8 if weighted else element) * rows * block.width))
        jobs += [Job(block, own[at : at + most], rows, as_it_stands=False) for at in range(0, len(own), most)]
    return jobs


def scales_of(parts: Sequence[Part]) -> tuple[Floats, Floats]:
    """The scale and the side of each part, float64."""
    return np.array([part.scale for part in parts], float), np.array([part.side for part in parts], float)
