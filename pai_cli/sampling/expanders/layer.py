"""One layer of a construction: built, improved and measured. Knows arrays only, so that any process can do it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from pai_cli.compute.threads import one_blas_thread
from pai_cli.random import generator_for
from pai_cli.sampling.expanders.biregular import Matrix, Rng, biregular
from pai_cli.sampling.expanders.explicit import fitting
from pai_cli.sampling.expanders.switches import improved
from pai_cli.spectral.layout import Layout
from pai_cli.spectral.metrics import measure_layer
from pai_cli.spectral.result import Measure, Outcome

Kind = Literal["biregular", "ramanujan"]
USUAL_STEPS = 200
RANDOM = "random biregular"


@dataclass(frozen=True)
class Construction:
    """What is built: `steps`, the most of a descent; `seed`, of everything drawn."""

    kind: Kind
    seed: int = 0
    steps: int = USUAL_STEPS


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
class Spectrum:
    """A graph's dr and sigma_2, by the engine; dr is missing where a mean degree is below 3."""

    dr: Measure
    sigma_2: Measure

    @staticmethod
    def of(matrix: Matrix) -> Spectrum:
        """Of a matrix, with error bounds."""
        measures = measure_layer(matrix).measures
        return Spectrum(measures["dr"], measures["sigma_2"])

    @property
    def answered(self) -> bool:
        """Whether the solver came to an end."""
        return self.sigma_2.reason != Outcome.NOT_CONVERGED.value

    @property
    def height(self) -> float:
        """sigma_2 as something to compare; what has none is lowest."""
        return float("-inf") if self.sigma_2.value is None else self.sigma_2.value


@dataclass(frozen=True)
class BuiltLayer:
    """A layer's mask as packed bits, how it was made, and how it measures.

    `made`: in words. `switches`: how many. `before`: of a random layer of the same count (biregular), or of the random
    biregular layer (ramanujan); `after`: of what was built. Of a grouped layer those of the group whose sigma_2 is largest.
    """

    plan: LayerPlan
    bits: np.ndarray[Any, np.dtype[np.uint8]]
    made: str
    switches: int
    before: Spectrum
    after: Spectrum

    @property
    def mask(self) -> Matrix:
        """The mask, shaped as the weight."""
        bits = np.unpackbits(self.bits, count=int(np.prod(self.plan.shape)))
        return bits.astype(np.bool_).reshape(self.plan.shape)


@dataclass(frozen=True)
class _Block:
    """A group's matrix; its fields as of `BuiltLayer`."""

    matrix: Matrix
    made: str
    before: Spectrum
    after: Spectrum
    switches: int = 0


def build_layer(construction: Construction, plan: LayerPlan) -> BuiltLayer:
    """The layer, a function of the seed, its name, shape and count only; exactly `plan.edges` weights are kept."""
    rng = generator_for(construction.seed, f"biregular {plan.name}")
    more = generator_for(construction.seed, f"improve {plan.name}")
    groups = plan.layout.groups
    edges = np.full(groups, plan.edges // groups)
    edges[rng.permutation(groups)[: plan.edges % groups]] += 1
    with one_blas_thread():  # in other numbers of threads sums round otherwise
        blocks = [_block(construction, biregular(*plan.block, int(count), rng), more) for count in edges]
    return BuiltLayer(
        plan=plan,
        bits=np.packbits(rolled([one.matrix for one in blocks], plan.shape, plan.layout)),
        made="; ".join(dict.fromkeys(one.made for one in blocks)),
        switches=sum(one.switches for one in blocks),
        before=max((one.before for one in blocks), key=lambda one: one.height),
        after=max((one.after for one in blocks), key=lambda one: one.height),
    )


def _block(construction: Construction, regular: Matrix, rng: Rng) -> _Block:
    """A group, from the random biregular graph of its size; `rng` draws all else."""
    spectrum, edges = Spectrum.of(regular), int(np.count_nonzero(regular))
    if edges in (0, regular.size):
        return _Block(regular, "complete" if edges else "empty", spectrum, spectrum)
    if construction.kind == "biregular":
        return _Block(regular, RANDOM, Spectrum.of(_random(regular.shape, edges, rng)), spectrum)
    return _improved(_Block(regular, RANDOM, spectrum, spectrum), construction.steps, rng)


def _random(shape: tuple[int, ...], edges: int, rng: Rng) -> Matrix:
    """Edges anywhere."""
    flat = np.zeros(shape[0] * shape[1], dtype=np.bool_)
    flat[rng.permutation(flat.size)[:edges]] = True
    return flat.reshape(shape)


def _improved(regular: _Block, steps: int, rng: Rng) -> _Block:
    """A plane where one fits; else what switches make of the best start there is. Its sigma_2 is never larger."""
    best, (rows, columns) = regular, regular.matrix.shape
    for fit in fitting(rows, columns, int(np.count_nonzero(regular.matrix))):
        known = fit.make(steps, rng)
        best = _better(best, replace(regular, matrix=known, made=fit.name, after=Spectrum.of(known)))
        if fit.is_best:
            return best
    switched, descent = improved(best.matrix, steps, rng)
    if descent is None or not descent.changes:
        return best
    changed = replace(best, matrix=switched, made=f"{best.made}, switched", after=Spectrum.of(switched))
    return _better(best, replace(changed, switches=descent.changes))


def _better(old: _Block, new: _Block) -> _Block:
    """The one of smaller sigma_2; a graph whose sigma_2 was not found is not taken for one that has none."""
    return new if new.after.answered and new.after.height < old.after.height else old


def rolled(blocks: Sequence[Matrix], shape: tuple[int, ...], layout: Layout) -> Matrix:
    """The mask of a weight of `shape`, from the matrices of its groups: what `unroll` makes the matrix of."""
    stacked = np.stack(blocks)
    if not layout.transposed:
        return stacked.reshape(shape)
    inputs = shape[0] // layout.groups
    apart = stacked.reshape(layout.groups, shape[1], inputs, *shape[2:])
    return np.ascontiguousarray(apart.swapaxes(1, 2)).reshape(shape)
