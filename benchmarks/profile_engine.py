"""Where the time of one mask goes: a uniform 10 % ResNet-34 mask, sections 1 to 3, one thread. `make bench` runs it.

    python benchmarks/profile_engine.py --network vgg16-bn --density 0.01

The first table is by cProfile, whose own cost stands in the stages that make many small calls; `unprofiled` is the time
without it. The second takes the compiled solver apart, by running each problem again with less asked of it: stopped after
its first two products, then after as many products as it took, then with the proof. Each is the best of --repeats.
"""

from __future__ import annotations

import argparse
import cProfile
import pstats
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
from inputs import network_of, pruned
from machine import GRAM_ONLY, best, describe
from tables import LEFT, Table

from pai_cli.compute.threads import one_blas_thread
from pai_cli.spectral import solvers
from pai_cli.spectral.bounds import pairs_of
from pai_cli.spectral.compiled import calls
from pai_cli.spectral.graph import BipartiteGraph
from pai_cli.spectral.metrics import MetricOptions, measures_of, prepare_layer
from pai_cli.spectral.network import LayerInput, measure_together
from pai_cli.spectral.problems import Problems
from pai_cli.spectral.singular import SolvingPairs
from pai_cli.spectral.solver_table import SolverLimits, Status
from pai_cli.spectral.subgraphs import regular_subgraphs

STAGES: tuple[tuple[str, Any], ...] = (  # the later a stage, the further inside the earlier ones
    ("everything else", measure_together),
    ("metrics from values", measures_of),
    ("prepare: degrees, sorting", BipartiteGraph.__init__),
    ("degree classes, subgraphs", regular_subgraphs),
    ("closed forms", SolvingPairs.__init__),
    ("hand-over", SolvingPairs.pairs),
    ("bounds", pairs_of),
    ("components", calls.component_count),
    ("packing bits", calls.arrange),
    ("compiled solver", calls.Queue.found),
)

INSIDE = {  # whose time is part of whose, taken out there
    "metrics from values": "everything else",
    "prepare: degrees, sorting": "everything else",
    "degree classes, subgraphs": "everything else",
    "closed forms": "everything else",
    "hand-over": "everything else",
    "bounds": "hand-over",
    "compiled solver": "hand-over",
    "components": "metrics from values",
    "packing bits": "prepare: degrees, sorting",
}

CHECKS = 2  # of the products told: those with the two vectors found

COLUMNS = (("stage", 27, LEFT), ("calls", 6, "d"), ("ms", 8, ".2f"), ("share", 6, ".1%"))


def run_all(layers: list[LayerInput]) -> None:
    """All of sections 1 to 3."""
    measure_together(layers, MetricOptions())


def by_profile(layers: list[LayerInput]) -> dict[str, tuple[int, float]]:
    """Calls and seconds of each stage."""
    profile = cProfile.Profile()
    profile.runcall(run_all, layers)
    found: dict[str, tuple[int, float]] = {}
    rows = pstats.Stats(profile).stats  # type: ignore[attr-defined]
    for stage, function in STAGES:
        code = function.__code__
        row = rows[code.co_filename, code.co_firstlineno, code.co_name]
        found[stage] = (row[1], row[3])
    whole = dict(found)
    for stage, outer in INSIDE.items():
        found[outer] = (found[outer][0], found[outer][1] - whole[stage][1])
    return found


def open_problems(layers: list[LayerInput]) -> list[Problems]:
    """Every problem of the masks that needs a solver, each as a request of its own."""
    found = []
    for layer in layers:
        for request in prepare_layer(np.asarray(layer.mask).reshape(layer.mask.shape[0], -1)).problems:
            smaller = np.minimum(request.left, request.right)
            stars = (request.edges == request.left) | (request.edges == request.right)
            needs = (smaller > 1) & ~stars & (request.edges < request.left * request.right)
            found += [request.take(np.array([k])) for k in np.flatnonzero(needs)]
    return found


def by_asking_less(problems: list[Problems], repeats: int) -> dict[str, tuple[int, float]]:
    """Problems and seconds of each stage inside the compiled solver."""
    limits = SolverLimits(
        tolerance=solvers.TOLERANCE,
        most_products=solvers.MOST_PRODUCTS,
        direct_side=solvers.COMPILED_DIRECT_SIDE,
        proof_side=solvers.PROOF_SIDE,
        few_edges=solvers.FEW_EDGES,
    )
    names = ("Gram matrices", "all eigenvalues", "iteration", "proof", "without a Gram matrix")
    counts, times = dict.fromkeys(names, 0), dict.fromkeys(names, 0.0)

    def add(name: str, time: float) -> None:
        counts[name] += 1
        times[name] += time

    for problem in problems:
        run = partial(calls.solve_bits, problem.graph.bits, problem.ranges)
        found, whole = run(limits)[0], best(partial(run, limits), repeats)
        if found["side"] > limits.proof_side:
            add("without a Gram matrix", whole)
            continue
        gram = best(partial(run, GRAM_ONLY), repeats)
        add("Gram matrices", gram)
        if found["status"] == Status.ALL_VALUES:
            add("all eigenvalues", whole - gram)
            continue
        products = int(found["products"]) - CHECKS
        unproved = replace(limits, tolerance=GRAM_ONLY.tolerance, most_products=products)
        searched = best(partial(run, unproved), repeats)
        add("iteration", searched - gram)
        add("proof", whole - searched)
    return {name: (counts[name], times[name]) for name in names if counts[name]}


def show(stages: dict[str, tuple[int, float]]) -> None:
    """Print the stages, the longest first, and their sum."""
    table, total = Table(COLUMNS), sum(time for _, time in stages.values())
    table.head()
    for name, (count, time) in sorted(stages.items(), key=lambda item: -item[1][1]):
        table.row(name, count, 1e3 * time, time / total)
    table.row("together", None, 1e3 * total, 1.0)


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", default="resnet34")
    parser.add_argument("--density", type=float, default=0.1)
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    describe()
    layers = pruned(options.network, "uniform", options.density, 1).bare
    network_of.cache_clear()
    with one_blas_thread():
        print(f"unprofiled: {1e3 * best(partial(run_all, layers), options.repeats):.1f} ms")
        show(by_profile(layers))
        if calls.available():
            print()
            show(by_asking_less(open_problems(layers), options.repeats))


if __name__ == "__main__":
    main()
