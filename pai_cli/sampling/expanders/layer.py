"""One layer of a construction: built, improved and measured. Knows arrays only, so that any process can do it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from pai_cli.compute.threads import one_blas_thread
from pai_cli.pruning.base import generator_for
from pai_cli.sampling.expanders.biregular import Matrix, Rng, biregular
from pai_cli.sampling.expanders.explicit import fitting
from pai_cli.sampling.expanders.switches import improved
from pai_cli.spectral.layout import Layout
from pai_cli.spectral.metrics import measure_layer
from pai_cli.spectral.result import Measure

Kind = Literal["biregular", "ramanujan"]


@dataclass(frozen=True)
class Construction:
    """What is built: `steps`, the most of a descent; `seed`, of everything drawn."""

    kind: Kind
    seed: int = 0
    steps: int = 200


@dataclass(frozen=True)
class LayerPlan:
    """A layer to build: its weight's name, shape and layout, and how many weights it keeps."""

    name: str
    shape: tuple[int, ...]
    layout: Layout
    edges: int

    @property
    def block(self) -> tuple[int, int]:
        """Rows and columns of a group's matrix."""
        rows, columns = self.layout.matrix(self.shape)
        return rows // self.layout.groups, columns // self.layout.groups


@dataclass(frozen=True)
class BuiltLayer:
    """A layer's mask as packed bits, how it was made, and how it measures.

    `made`: in words. `switches`: how many. `dr_before`: of a random layer of the same count (biregular), or of the random
    biregular layer (ramanujan); `dr`, `sigma_2`: of what was built. Of a grouped layer those of the group whose dr is least.
    """

    plan: LayerPlan
    bits: np.ndarray[Any, np.dtype[np.uint8]]
    made: str
    switches: int
    dr_before: Measure
    dr: Measure
    sigma_2: Measure

    @property
    def mask(self) -> Matrix:
        """The mask, shaped as the weight."""
        bits = np.unpackbits(self.bits, count=int(np.prod(self.plan.shape)))
        return bits.astype(np.bool_).reshape(self.plan.shape)


@dataclass(frozen=True)
class _Block:
    """A group's matrix; its fields as of `BuiltLayer`, `before` a matrix."""

    matrix: Matrix
    before: Matrix
    made: str
    switches: int = 0


def build_layer(construction: Construction, plan: LayerPlan) -> BuiltLayer:
    """The layer, a function of the seed, its name, shape and count only; exactly `plan.edges` weights are kept."""
    rng = generator_for(construction.seed, f"{construction.kind} {plan.name}")
    groups, (rows, columns) = plan.layout.groups, plan.block
    edges = np.full(groups, plan.edges // groups)
    edges[rng.permutation(groups)[: plan.edges % groups]] += 1
    with one_blas_thread():  # in other numbers of threads sums round otherwise
        blocks = [_block(construction, (rows, columns), int(count), rng) for count in edges]
        before = _least(measured(one.before) for one in blocks)
        after = _least(measured(one.matrix) for one in blocks)
    return BuiltLayer(
        plan=plan,
        bits=np.packbits(rolled([one.matrix for one in blocks], plan.shape, plan.layout)),
        made="; ".join(dict.fromkeys(one.made for one in blocks)),
        switches=sum(one.switches for one in blocks),
        dr_before=before[0],
        dr=after[0],
        sigma_2=after[1],
    )


def _block(construction: Construction, shape: tuple[int, int], edges: int, rng: Rng) -> _Block:
    rows, columns = shape
    if edges in (0, rows * columns):
        whole = np.full(shape, edges > 0)
        return _Block(whole, whole, "complete" if edges else "empty")
    regular = biregular(rows, columns, edges, rng)
    if construction.kind == "biregular":
        return _Block(regular, _random(shape, edges, rng), "random biregular")
    if not measured(regular)[0].present:
        return _Block(regular, regular, "random biregular")  # too few edges for a gap
    return _improved(regular, construction.steps, rng)


def _random(shape: tuple[int, int], edges: int, rng: Rng) -> Matrix:
    """Edges anywhere."""
    flat = np.zeros(shape[0] * shape[1], dtype=np.bool_)
    flat[rng.permutation(flat.size)[:edges]] = True
    return flat.reshape(shape)


def _improved(regular: Matrix, steps: int, rng: Rng) -> _Block:
    """A plane where one fits; else what switches make of the best start there is; never worse than `regular`."""
    start, made = regular, "random biregular"
    for fit in fitting(*regular.shape, int(regular.sum())):
        known = fit.make(steps, rng)
        if fit.is_best:
            return _Block(known, regular, fit.name)
        if _dr(known) > _dr(start):
            start, made = known, fit.name
    switched, descent = improved(start, steps, rng)
    if descent is None or not descent.changes or _dr(switched) <= _dr(start):
        return _Block(start, regular, made)
    return _Block(switched, regular, f"{made}, switched", descent.changes)


def _dr(matrix: Matrix) -> float:
    value = measured(matrix)[0].value
    return float("-inf") if value is None else value


def measured(matrix: Matrix) -> tuple[Measure, Measure]:
    """dr and sigma_2 of a matrix, by the engine, with their errors."""
    measures = measure_layer(matrix).measures
    return measures["dr"], measures["sigma_2"]


def _least(pairs: Iterable[tuple[Measure, Measure]]) -> tuple[Measure, Measure]:
    """The pair whose first is least; one that is missing comes before any."""
    return min(pairs, key=lambda pair: float("-inf") if pair[0].value is None else pair[0].value)


def rolled(blocks: Sequence[Matrix], shape: tuple[int, ...], layout: Layout) -> Matrix:
    """The mask of a weight of `shape`, from the matrices of its groups: what `unroll` makes the matrix of."""
    stacked = np.stack(blocks)
    if not layout.transposed:
        return stacked.reshape(shape)
    inputs = shape[0] // layout.groups
    apart = stacked.reshape(layout.groups, shape[1], inputs, *shape[2:])
    return np.ascontiguousarray(apart.swapaxes(1, 2)).reshape(shape)
