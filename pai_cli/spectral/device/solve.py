"""Problems of graphs on a device: planned, solved without a wait in between, and read as one table."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from pai_cli.spectral import solvers
from pai_cli.spectral.bounds import pairs_of
from pai_cli.spectral.device import krylov, products, squaring
from pai_cli.spectral.device.gathering import DeviceGraph, graphs_of
from pai_cli.spectral.device.moving import fetched, noise, room, sent
from pai_cli.spectral.device.plan import BATCH_BYTES, Batch, Job, Method, Part, Way, parts_of, planned, scales_of
from pai_cli.spectral.problems import Problems
from pai_cli.spectral.result import EPS, Floats, Pairs
from pai_cli.spectral.solver_table import EIGENPAIR, Eigenpairs, SolverLimits, Status, limits_of
from pai_cli.spectral.solvers import SolverOptions

if TYPE_CHECKING:
    import torch

STEPS = 4  # to and fro that connect a graph, where it is connected: two are the rule

LEFT_OF_IMAGES = 100 * krylov.SPENT
"""Of the first value: residuals that more steps make no smaller, as Lanczos ends where less is left of an image. What such a
pair is worth, its bounds say.
"""

COLUMNS = 10
"""Of the table: two values, two residuals, shift, trace, whether a proof is there, norm, sum of entries, vertices reached.
"""


def solve(requests: Sequence[Problems], options: SolverOptions) -> list[Pairs]:
    """The pairs of every request's parts; all graphs are tensors on one device.

    What the first round does not prove is searched for twice, further on; what that leaves open is the caller's.
    """
    if not requests:
        return []
    parts = parts_of(_on_blocks(requests))
    limits = limits_of(options, 0, solvers.DEVICE_PROOF_SIDE)
    device = parts[0].graph.block.rows.device if parts else None
    way = Way(limits) if device is None else Way(limits, room=room(device, BATCH_BYTES))
    found = np.zeros(len(parts), dtype=EIGENPAIR)
    free = np.zeros(len(parts), dtype=bool)
    left = _solved(parts, way, found, free) if parts else []
    if left:
        _solved(left, replace(way, searches=2), found, free, LEFT_OF_IMAGES)
    sizes = [len(request) for request in requests]
    forming = np.repeat([request.forming for request in requests], sizes)
    return pairs_of(found, forming, np.where(free, -1.0, np.inf)).split(sizes)


def _on_blocks(requests: Sequence[Problems]) -> list[Problems]:
    """The same problems, of graphs whose vertices are in blocks."""
    graphs = {id(one.graph): one.graph for one in requests if not isinstance(one.graph, DeviceGraph)}
    moved: dict[int, DeviceGraph] = {}
    if graphs:
        every = list(graphs.values())
        made = graphs_of([graph.mask for graph in every], [graph.weights for graph in every])
        moved = dict(zip(graphs, made, strict=True))
    return [replace(one, graph=moved.get(id(one.graph), one.graph)) for one in requests]


def _solved(parts: Sequence[Part], way: Way, found: Eigenpairs, free: np.ndarray, rounding: float = 0.0) -> list[Part]:
    """Fill in what is found of the parts, and which went without a Gram matrix. Gives those that are still open.
    `rounding`: of the first value, what a residual may be of in any case.
    """
    batches = planned(parts, way)
    table = fetched(tables(batches, way.limits))
    order = [part for batch in batches for part in batch.parts]
    places = [part.place for part in order]
    rows, at = np.zeros(len(order), dtype=EIGENPAIR), 0
    for batch in batches:
        end = at + len(batch.parts)
        rows[at:end] = _read(batch, table[at:end], way.limits, rounding)
        free[places[at:end]] = batch.method is Method.FREE
        at = end
    found[places] = rows
    settled = (Status.BOUNDED, Status.PROVED, Status.NOT_ASKED)
    return [part for part, row in zip(order, rows, strict=True) if row["status"] not in settled]


def tables(batches: Sequence[Batch], limits: SolverLimits) -> torch.Tensor:
    """What is found of every part of every batch, in order, a row each: (parts, COLUMNS), still on the device."""
    import torch

    device = batches[0].jobs[0].block.rows.device
    jobs = [job for batch in batches for job in batch.jobs]
    indices = [job.indices for job in jobs]
    numbers = np.concatenate([np.concatenate(scales_of(batch.parts)) for batch in batches])
    packed = sent(np.concatenate([numbers.view(np.int64), *indices]), device)
    values, rows = packed[: len(numbers)].view(torch.float64), packed[len(numbers) :]
    cut = iter(torch.split(rows, [len(own) for own in indices]))
    found, at = [], 0
    for batch in batches:
        count = len(batch.parts)
        numbers_of = _Numbers(values[at : at + count], values[at + count : at + 2 * count])
        at += 2 * count
        gathered = _gathered(batch, numbers_of.scales, cut)
        free = batch.method is Method.FREE
        found.append(_free(batch, gathered) if free else _by_gram(batch, gathered, numbers_of, limits))
    return torch.cat(found)


class _Numbers(NamedTuple):
    """Of each part of a batch, on the device, float64."""

    scales: torch.Tensor
    sides: torch.Tensor


def _gathered(
    batch: Batch, scales: torch.Tensor, indices: Iterator[torch.Tensor]
) -> Iterator[tuple[Job, torch.Tensor]]:
    """Each job with its rows (parts, rows, width): int8 of a mask, or float64 divided by the scales."""
    at = 0
    for job in batch.jobs:
        own, first = next(indices), job.parts[0]
        source = job.block.values if first.weighted else job.block.rows
        assert source is not None
        if job.as_it_stands:
            rows = source[first.begin : first.end][None]
        else:
            rows = source.index_select(0, own).view(len(job.parts), job.rows, -1)
        end = at + len(job.parts)
        yield job, rows / scales[at:end, None, None] if first.weighted else rows
        at = end


def _grams(batch: Batch, gathered: Iterator[tuple[Job, torch.Tensor]], device: torch.device) -> torch.Tensor:
    """The Gram matrices of a batch (parts, side, side), float64; zero where they are padded."""
    import torch

    grams = torch.zeros((len(batch.parts), batch.side, batch.side), dtype=torch.float64, device=device)
    at = 0
    for job, rows in gathered:
        turned = rows if job.parts[0].left else rows.mT
        if job.parts[0].weighted:
            own = torch.bmm(turned, turned.mT)
        elif len(job.parts) == 1:
            own = products.gram(turned[0])[None]
        else:
            own = products.grams(turned)
        side, end = own.shape[1], at + len(job.parts)
        grams[at:end, :side, :side].copy_(own)
        at = end
    if any(job.parts[0].weighted for job in batch.jobs):  # rounded sums may differ across the diagonal
        grams = torch.add(grams, grams.mT).mul_(0.5)
    return grams


def _by_gram(
    batch: Batch, gathered: Iterator[tuple[Job, torch.Tensor]], numbers: _Numbers, limits: SolverLimits
) -> torch.Tensor:
    """A batch by squaring, or by Lanczos with its proof."""
    import torch

    grams = _grams(batch, gathered, numbers.scales.device)
    norm = torch.linalg.vector_norm(grams, dim=(1, 2))
    none = torch.zeros_like(norm)
    wanted = any(part.whole and not part.weighted for part in batch.parts)
    rest = [norm, grams.sum(dim=(1, 2)), _reached(grams) if wanted else none]
    if batch.method is Method.SQUARING:
        best = squaring.two_largest(grams, batch.steps)
        columns = [best.first, best.second, none, none, best.above_second, best.above_first, none + 1]
        return torch.stack([*columns, *rest], dim=1)
    power = _power_of_two(norm)
    grams.div_(power[:, None, None])

    def times(vectors: torch.Tensor) -> torch.Tensor:
        return torch.bmm(grams, vectors)

    found = krylov.settled(times, _plane(times, grams.diagonal(dim1=1, dim2=2) > 0, batch))
    proof = krylov.proof(grams, numbers.sides, found.ritz, limits.tolerance)
    scaled = torch.stack([found.ritz.first, found.ritz.second, *found.residuals.T, proof.shift, proof.trace], dim=1)
    return torch.cat([scaled * power[:, None], torch.stack([proof.there.double(), *rest], dim=1)], dim=1)


def _power_of_two(sizes: torch.Tensor) -> torch.Tensor:
    """The power of two above each: to divide by it is exact."""
    import torch

    sizes = sizes.clamp_min(squaring.TINY)
    return sizes / torch.frexp(sizes).mantissa


def _plane(times: krylov.Operator, live: torch.Tensor, batch: Batch) -> krylov.Plane:
    """Lanczos from nearly the vector of ones, which is near the first vector of a matrix without negative entries."""
    side, device = live.shape[1], live.device
    starts = [squaring.unit((live * noise(side, device, seed))[:, :, None]) for seed in range(batch.searches)]
    return krylov.search(times, starts, batch.steps)


def _free(batch: Batch, gathered: Iterator[tuple[Job, torch.Tensor]]) -> torch.Tensor:
    """A batch by Lanczos with the matrices themselves: no Gram matrix is formed, nothing is proved."""
    import torch

    job, rows = next(gathered)
    matrices = (rows if job.parts[0].left else rows.mT).double()

    def times(vectors: torch.Tensor) -> torch.Tensor:
        return torch.bmm(matrices, torch.bmm(matrices.mT, vectors))

    ones = times(torch.ones_like(matrices[:, :, :1]))
    root = _power_of_two(torch.linalg.vector_norm(ones, dim=1).sqrt())
    matrices = matrices / root[:, None]
    found = krylov.settled(times, _plane(times, ones[:, :, 0] > 0, batch))
    values = torch.stack([found.ritz.first, found.ritz.second, *found.residuals.T], dim=1) * root.square()
    return torch.cat([values, values.new_zeros((len(values), COLUMNS - 4))], dim=1)


def _reached(grams: torch.Tensor) -> torch.Tensor:
    """How many vertices of its side are reached in a few steps from the one of the largest degree; (b), float64."""
    import torch

    start = grams.diagonal(dim1=1, dim2=2).argmax(dim=1)
    reached = torch.zeros_like(grams[:, :, :1]).scatter_(1, start[:, None, None], 1.0)
    for _ in range(STEPS):
        reached = (torch.bmm(grams, reached) > 0).double()
    return reached.sum(dim=(1, 2))


def _read(batch: Batch, table: Floats, limits: SolverLimits, rounding: float) -> Eigenpairs:
    """The rows of the solvers' table; and which graphs were seen to be connected, by the way."""
    found = np.zeros(len(table), dtype=EIGENPAIR)
    parts = batch.parts
    found["side"], found["products"] = [part.side for part in parts], batch.products
    found["value"], found["residual"] = np.maximum(table[:, :2], 0.0), table[:, 2:4]
    found["shift"], found["trace"], found["frobenius"] = table[:, 4], table[:, 5], table[:, 7]
    proved, total, reached = table[:, 6] > 0, table[:, 8], table[:, 9]
    if batch.method is Method.FREE:
        # A product with a matrix without negative entries, and one with its transpose, are off by at most (n + m) EPS / 2
        # of the first value.
        sums = np.array([part.end - part.begin + part.graph.block.width for part in parts])
        found["frobenius"] = 1.01 * found["value"][:, 0] * np.maximum(1.0, sums / (4 * found["side"]))
        found["status"] = np.where(_close(found, limits, rounding), Status.NOT_ASKED, Status.NOT_CONVERGED)
    else:
        yes = Status.BOUNDED if batch.method is Method.SQUARING else Status.PROVED
        found["status"] = np.where(proved, yes, Status.NOT_CONVERGED)
        if batch.searches > 1 and limits.proof_side < solvers.ANY_SIDE:  # too large for what would follow
            free = ~proved & (found["side"] > solvers.PROOF_SIDE) & _close(found, limits, rounding)
            found["status"][free] = Status.NOT_ASKED
        exact = np.array([part.sum is None for part in parts]) | (total == [part.sum or 0 for part in parts])
        found["status"][~exact] = Status.MISSED
        for part, count in zip(parts, reached.tolist(), strict=True):
            if part.whole and not part.weighted:
                part.graph.connected = count == part.side
    ended = np.isfinite(table).all(axis=1) & (batch.products <= limits.most_products)
    found["status"][~ended] = Status.NOT_CONVERGED
    return found


def _close(found: Eigenpairs, limits: SolverLimits, rounding: float) -> np.ndarray:
    """Where residuals are the only evidence: whether they are as small as asked, or at the level of rounding."""
    first, second = found["value"].T
    goal = np.maximum(limits.tolerance * np.sqrt(first * second), np.maximum(rounding, found["side"] * EPS) * first)
    return np.asarray((found["residual"] <= goal[:, None]).all(axis=1))
