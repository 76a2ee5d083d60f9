"""The largest true error over its bound, over thousands of random graphs. `make bench` runs it.

    python benchmarks/errors.py --graphs 20000 --engine arrays

Graphs of every kind of `tests/graphs.py` in turn, and larger ones whose second value is iterated and proved; each once as a
mask and once with weights of one of the kinds there (twelve orders of magnitude among them). The true values are those of a
dense float64 SVD, which is itself off by some rounding; 50 eps sigma_1 is allowed for it.

values    singular values compared: two a graph that has two
past      values off by more than bound and allowance together: there must be none
wrong     such values among answers that say that they are not proved (at these sizes only --solver matrix-free gives any)
err/bound the largest error over its bound, among values whose bound is above the allowance
fine      how many values have a smaller bound; those are only checked to be within it and the allowance
bound     the widest bound, over sigma_1
flagged   graphs whose answer says that its bound is wider than asked for
none      graphs left without values, collapsed or without a second value aside: not converged
"""

from __future__ import annotations

import argparse
import importlib.util
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from machine import Mask
from numpy.typing import NDArray
from tables import LEFT, Table

from pai_cli.compute.threads import one_blas_thread
from pai_cli.spectral.graph import BipartiteGraph
from pai_cli.spectral.result import EPS, Outcome, SingularPair
from pai_cli.spectral.singular import structure_pair, weighted_pair
from pai_cli.spectral.solvers import Solver, SolverOptions

ALLOWANCE = 50 * EPS

LARGER = 50  # graphs of the others for one of these, whose dense SVD takes as long as all of theirs

COLUMNS = (
    ("matrices", 8, LEFT),
    ("kind", 16, LEFT),
    ("graphs", 6, "d"),
    ("values", 7, "d"),
    ("past", 4, "d"),
    ("wrong", 5, "d"),
    ("err/bound", 9, ".3f"),
    ("fine", 7, "d"),
    ("bound", 7, ".1e"),
    ("flagged", 7, "d"),
    ("none", 4, "d"),
)

Rng = np.random.Generator

Make = Callable[[Rng], Mask]


def test_graphs() -> Any:
    """The module of graphs that the tests use."""
    path = Path(__file__).resolve().parent.parent / "tests" / "graphs.py"
    spec = importlib.util.spec_from_file_location("graphs", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["graphs"] = module
    spec.loader.exec_module(module)
    return module


def larger_kinds(graphs: Any) -> dict[str, Make]:
    """Graphs with a smaller side of 60 to 300."""

    def sizes(rng: Rng) -> tuple[int, int]:
        return int(rng.integers(60, 300)), int(rng.integers(60, 600))

    return {
        "larger uniform": lambda rng: graphs.uniform(rng, *sizes(rng), density=rng.uniform(0.01, 0.99)),
        "larger skewed": lambda rng: graphs.skewed(rng, *sizes(rng), density=rng.uniform(0.01, 0.5)),
        "larger copies": lambda rng: graphs.shuffled(rng, graphs.union(*[graphs.uniform(rng, 50, 70, 0.2)] * 3)),
    }


@dataclass
class Tally:
    """What was seen of one kind of graph."""

    graphs: int = 0
    values: int = 0
    past: int = 0
    wrong: int = 0
    ratio: float | None = None
    fine: int = 0
    widest: float = 0.0
    flagged: int = 0
    unanswered: int = 0

    def add(self, pair: SingularPair, matrix: NDArray[np.float64]) -> None:
        """Compare a pair with the matrix's singular values."""
        self.graphs += 1
        self.flagged += pair.outcome is Outcome.TOO_WIDE
        self.unanswered += pair.sigma_1 is None and pair.outcome is not Outcome.COLLAPSED
        if pair.sigma_1 is None:
            return
        true, proved = np.linalg.svd(matrix, compute_uv=False), pair.outcome is not Outcome.NOT_PROVED
        self._compare(pair.sigma_1, pair.sigma_1_error, (true[0], true[0]), proved)
        if pair.sigma_2 is not None:
            self._compare(pair.sigma_2, pair.sigma_2_error, (true[1], true[0]), proved)

    def _compare(self, value: float, bound: float | None, true: tuple[float, float], proved: bool) -> None:
        """`true`: the value itself, and sigma_1."""
        assert bound is not None
        error, allowance = abs(value - true[0]), ALLOWANCE * true[1]
        is_past = error > bound + allowance
        self.values += 1
        self.past += is_past and proved
        self.wrong += is_past and not proved
        self.widest = max(self.widest, bound / true[1] if true[1] else 0.0)
        if bound <= allowance:
            self.fine += 1
        elif proved or not is_past:
            self.ratio = max(self.ratio or 0.0, error / bound)

    def merge(self, other: Tally) -> None:
        """Add another's counts."""
        ratios = [ratio for ratio in (self.ratio, other.ratio) if ratio is not None]
        self.ratio = max(ratios) if ratios else None
        self.widest = max(self.widest, other.widest)
        for name in ("graphs", "values", "past", "wrong", "fine", "flagged", "unanswered"):
            setattr(self, name, getattr(self, name) + getattr(other, name))

    def cells(self) -> tuple[float | None, ...]:
        """The row's numbers."""
        counts = (self.graphs, self.values, self.past, self.wrong)
        return (*counts, self.ratio, self.fine, self.widest, self.flagged, self.unanswered)


def matrix_of(mask: Mask, weights: NDArray[Any] | None) -> NDArray[np.float64]:
    """What the singular values are of."""
    return mask.astype(np.float64) if weights is None else np.abs(weights.astype(np.float64)) * mask


@dataclass(frozen=True)
class Engine:
    """Which half of the engine runs, and its options."""

    arrays: bool
    options: SolverOptions

    def graph(self, mask: Mask, weights: NDArray[Any]) -> BipartiteGraph:
        """NumPy arrays for the compiled half; torch tensors for the other, which is what runs on a GPU."""
        if not self.arrays:
            return BipartiteGraph(mask, weights)
        import torch

        placed = (torch.from_numpy(np.ascontiguousarray(array)) for array in (mask, weights))
        return BipartiteGraph(*placed)


def check(make: Make, kinds: dict[str, Any], count: int, engine: Engine, seed: int) -> tuple[Tally, Tally]:
    """`count` graphs of one kind, as masks and with weights of each of `kinds` in turn."""
    plain, weighted, rng = Tally(), Tally(), np.random.default_rng(seed)
    names = list(kinds)
    for number in range(count):
        mask = make(rng)
        weights = kinds[names[number % len(names)]](rng, mask.shape)
        graph = engine.graph(mask, weights)
        plain.add(structure_pair(graph, engine.options), matrix_of(mask, None))
        weighted.add(weighted_pair(graph, engine.options), matrix_of(mask, weights))
    return plain, weighted


def main() -> None:
    """Print a line a kind of graph; exit 1 when a value is past its bound."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--graphs", type=int, default=10_000, help="each once as a mask and once weighted")
    parser.add_argument("--engine", choices=["compiled", "arrays"], default="compiled", help="arrays: as on a GPU")
    parser.add_argument("--solver", choices=[solver.value for solver in Solver], default=Solver.AUTO.value)
    parser.add_argument("--certify", action="store_true")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--quick", action="store_true", help="a thousand graphs")
    options = parser.parse_args()
    graphs = test_graphs()
    total = 1_000 if options.quick else options.graphs
    each, larger = -(-total // len(graphs.KINDS)), larger_kinds(graphs)
    counts = {**dict.fromkeys(graphs.KINDS, each), **dict.fromkeys(larger, -(-each // LARGER) * 5)}
    solver = SolverOptions(solver=Solver(options.solver), certify=options.certify)
    engine = Engine(options.engine == "arrays", solver)
    table, sums = Table(COLUMNS), (Tally(), Tally())
    table.head()
    with one_blas_thread():
        for number, (kind, make) in enumerate({**graphs.KINDS, **larger}.items()):
            found = check(make, graphs.WEIGHTS, counts[kind], engine, 1000 * options.seed + number)
            for name, tally, whole in zip(("mask", "weighted"), found, sums, strict=True):
                table.row(name, kind, *tally.cells())
                whole.merge(tally)
    for name, tally in zip(("mask", "weighted"), sums, strict=True):
        table.row(name, "all", *tally.cells())
    sys.exit(int(any(tally.past for tally in sums)))


if __name__ == "__main__":
    main()
