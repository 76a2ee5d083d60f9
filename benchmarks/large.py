"""Layers as large language models have them: time and memory. `make bench` runs it.

    python benchmarks/large.py --densities 0.5 --layers 0

Every row is a random mask (each weight kept on its own), each of its columns a fresh process of its own. Times begin at the
boolean array and are the best of --repeats; memory is the peak resident size less that before the first run, when the mask
and the libraries are there.

sigma     sigma_1, sigma_2 of the full graph, at the engine's own choice of solver
all       all measures of sections 1 to 3
peak      MiB above the mask
/f32      the mask and what is above it, as a multiple of the same matrix in float32
GK        rival: dense Golub-Kahan in float32 NumPy, residual 1e-5
svds      rival: scipy.sparse.linalg.svds (ARPACK) on the float32 CSR matrix, at densities up to 0.1
differ    the largest difference of a rival's sigma_1, sigma_2 from ours, over sigma_1

Ours runs in one thread. The rivals run with one BLAS thread and with a thread a core in turn, and the better counts.

Then a mask file shaped like Llama 3 8B: --layers of its 32 layers, seven matrices each (224 in all), packed bits, written
to a temporary folder a matrix at a time; `pai analyze` reads it as a process of its own.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

from llama import LAYERS, show_analysis
from machine import describe, peak_bytes, seconds
from tables import Table
from threadpoolctl import threadpool_limits

from pai_cli.compute.threads import cores

RIVALS = ("gk", "svds")

SHAPES = ((4096, 4096), (14336, 4096), (4096, 14336))

SPARSE = 0.1  # density up to which svds is run

COLUMNS = (
    ("rows", 6, "d"),
    ("columns", 7, "d"),
    ("density", 7, "g"),
    ("sigma s", 8, ".3f"),
    ("peak", 6, ".0f"),
    ("/f32", 5, ".2fx"),
    ("all s", 8, ".3f"),
    ("peak", 6, ".0f"),
    ("/f32", 5, ".2fx"),
    ("GK s", 7, ".3f"),
    ("/f32", 5, ".2fx"),
    ("svds s", 7, ".3f"),
    ("differ", 7, ".0e"),
    ("solver", 11, "<"),
)


@dataclass(frozen=True)
class Finding:
    """What a process reports: best time, bytes above those before, sigma_1 and sigma_2, and how they were found."""

    seconds: float
    above: int
    values: tuple[float, float]
    solver: str


Answer = tuple[float, float, str]


def tasks() -> dict[str, Callable[[Any], Answer]]:
    """What a process can be asked to do with a mask."""
    from rivals import golub_kahan, sparse_svds

    from pai_cli.spectral.graph import BipartiteGraph
    from pai_cli.spectral.metrics import measure_layer
    from pai_cli.spectral.result import SingularPair
    from pai_cli.spectral.singular import structure_pair
    from pai_cli.spectral.table import LayerReport

    def answer(pair: SingularPair) -> Answer:
        return pair.sigma_1 or 0.0, pair.sigma_2 or 0.0, f"{pair.solver}, {pair.outcome.name}"

    def measured(layer: LayerReport) -> Answer:
        first, second = (layer.measures[name].value or 0.0 for name in ("sigma_1", "sigma_2"))
        return first, second, f"{layer.solver}, {layer.outcomes[0].name}"

    return {
        "sigma": lambda mask: answer(structure_pair(BipartiteGraph(mask))),
        "all": lambda mask: measured(measure_layer(mask)),
        "gk": lambda mask: (*golub_kahan(mask), "gk"),
        "svds": lambda mask: (*sparse_svds(mask), "svds"),
    }


def work(task: str, rows: int, columns: int, density: float, repeats: int) -> None:
    """Do one task in this process and print what came out; a small mask is worked on first, to load what is loaded late."""
    from inputs import large_mask

    run = tasks()[task]
    run(large_mask(200, 300, 0.1))
    mask = large_mask(rows, columns, density)
    before = peak_bytes()
    answers: list[Answer] = []
    times = []
    for repeat in range(repeats):
        with threadpool_limits(cores() if task in RIVALS and repeat % 2 else 1, user_api="blas"):
            times.append(seconds(lambda: answers.append(run(mask))))
    print(json.dumps([min(times), peak_bytes() - before, *answers[0]]))


def in_process(task: str, rows: int, columns: int, density: float, repeats: int) -> Finding:
    """`work` in a fresh process."""
    arguments = [str(value) for value in (task, rows, columns, density, repeats)]
    command = [sys.executable, str(Path(__file__)), "--work", *arguments]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    time, above, first, second, solver = json.loads(done.stdout)
    return Finding(time, above, (first, second), solver)


def show(table: Table, rows: int, columns: int, density: float, repeats: int) -> None:
    """Measure one size and density and print its row."""
    case = (rows, columns, density, repeats)
    sigma, sections, dense = in_process("sigma", *case), in_process("all", *case), in_process("gk", *case)
    sparse = in_process("svds", *case) if density <= SPARSE else None
    rivals = [dense.values, *([sparse.values] if sparse else [])]
    differ = max(abs(theirs - ours) for rival in rivals for theirs, ours in zip(rival, sigma.values, strict=True))

    def memory(found: Finding) -> float:
        return (rows * columns + found.above) / (4 * rows * columns)

    table.row(
        rows,
        columns,
        density,
        sigma.seconds,
        sigma.above / 2**20,
        memory(sigma),
        sections.seconds,
        sections.above / 2**20,
        memory(sections),
        dense.seconds,
        memory(dense),
        sparse.seconds if sparse else None,
        differ / sigma.values[0],
        sigma.solver,
    )


def main() -> None:
    """Print a line a size and density, and one of the whole file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shapes", nargs="*", default=["x".join(map(str, shape)) for shape in SHAPES])
    parser.add_argument("--densities", nargs="+", type=float, default=[0.5, 0.1, 0.01])
    parser.add_argument("--repeats", type=int, default=4)
    parser.add_argument("--layers", type=int, default=LAYERS, help=f"of the mask file, 0 to {LAYERS}")
    parser.add_argument("--file-density", type=float, default=0.1, help="of the mask file")
    parser.add_argument("--quick", action="store_true", help="4096x4096 at density 0.1 twice, and a layer of the file")
    parser.add_argument("--work", nargs=5, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.work:
        task, rows, columns, density, repeats = options.work
        work(task, int(rows), int(columns), float(density), int(repeats))
        return
    if options.quick:
        options.shapes, options.densities, options.repeats, options.layers = ["4096x4096"], [0.1], 2, 1
    describe()
    if options.shapes:
        table = Table(COLUMNS)
        table.head()
        for shape, density in product(options.shapes, options.densities):
            rows, columns = map(int, shape.split("x"))
            show(table, rows, columns, density, options.repeats)
    if options.layers:
        show_analysis(options.layers, options.file_density)


if __name__ == "__main__":
    main()
