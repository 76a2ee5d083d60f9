"""Time of sections 1 to 3 of the metrics for whole masks, beside two rivals in the same run. `make bench` runs it.

    python benchmarks/spectral.py --networks resnet34 --densities 0.1 --masks uniform

Reading files is left out: everybody gets the masks as boolean arrays in memory and looks at the same graphs, every layer
and its left-regular subgraphs that count (`graphs`). Times are the best of --repeats, taken in turn; what takes over ten
seconds is not repeated.

ours      all measures of sections 1 to 3 with proved error bounds, from the masks alone, in one thread
weights   the same and section 4, as a multiple of `ours`; what the checkpoint alone decides (the unmasked layers' measures,
          which every mask of it shares) is known by then
threads   how many times quicker the layers are measured by a thread a core
2 proc    how many times more masks two processes measure, each in one thread, than one does
hybrid    rival: sigma_2 only, float32 Gram matrices, LAPACK to side 192, then Lanczos; unproved
arpack    rival: sigma_2 only, scipy.sparse.linalg.eigsh(k=3, which="LM") on the float32 adjacency matrix of each graph
floor     reading the masks once and forming every graph's Gram matrix, at this machine's rates for one thread

The rivals run with one BLAS thread and with a thread a core in turn, and the better counts. /hybrid, /arpack: their time
over ours; /floor: ours over the floor.

Masks: `uniform` has an exact random count in every layer; `synflow` is made by `pai prune`'s own method, for inputs of
32 x 32, in --rounds rounds; `skewed` is ResNet-34 with a threshold on lognormally scaled weights, at density 0.2.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context

from inputs import NetworkMask, pruned, skewed
from machine import Rates, describe, gram_products, rates, seconds
from rivals import arpack, graphs_of, hybrid
from tables import LEFT, Table
from threadpoolctl import threadpool_limits

from pai_cli.compute.threads import cores, one_blas_thread, spread_over_cores
from pai_cli.spectral.metrics import MetricOptions
from pai_cli.spectral.network import DenseCache, LayerInput, measure_together

COLUMNS = (
    ("network", 8, LEFT),
    ("masks", 7, LEFT),
    ("density", 7, "g"),
    ("graphs", 6, "d"),
    ("ours s", 7, ".4f"),
    ("weights", 7, ".2fx"),
    ("threads", 7, ".2fx"),
    ("2 proc", 6, ".2fx"),
    ("hybrid s", 8, ".3f"),
    ("/hybrid", 7, ".1fx"),
    ("arpack s", 8, ".3f"),
    ("/arpack", 7, ".1fx"),
    ("floor s", 8, ".5f"),
    ("/floor", 6, ".1fx"),
)

LONG = 10.0  # seconds, past which a run is not repeated

LEAST_SPAN = 0.5  # seconds of work for each process, beside which handing it over is nothing

OPTIONS = MetricOptions()

Runs = dict[str, Callable[[], object]]


def measure(layers: list[LayerInput], cache: DenseCache | None = None) -> None:
    """All measures of every layer, by one thread."""
    measure_together(layers, OPTIONS, cache)


def measure_in_threads(layers: list[LayerInput]) -> None:
    """The same, by a thread a core."""
    with spread_over_cores() as spread:
        measure_together(layers, OPTIONS, spread=spread)


def runs_of(mask: NetworkMask, every: bool) -> Runs:
    """What is timed, by name; the rivals with `every` subgraph. The unmasked layers are measured here, before."""
    cache, matrices, bare = DenseCache(), mask.matrices, mask.bare
    measure(mask.layers, cache)
    return {
        "ours": lambda: measure(bare),
        "weights": lambda: measure(mask.layers, cache),
        "threads": lambda: measure_in_threads(bare),
        "hybrid": lambda: [hybrid(matrix, every) for matrix in matrices],
        "arpack": lambda: [arpack(matrix, every) for matrix in matrices],
    }


def best_times(runs: Runs, repeats: int) -> dict[str, float]:
    """The least wall time of each, in turn; even repeats give the rivals a BLAS thread a core."""
    times: dict[str, float] = {}
    for repeat in range(repeats):
        for name, run in runs.items():
            rival = name in ("hybrid", "arpack")
            if rival and times.get(name, 0.0) > LONG:
                continue
            with threadpool_limits(cores() if rival and repeat % 2 else 1, user_api="blas"):
                times[name] = min(times.get(name, float("inf")), seconds(run))
    return times


_held: list[LayerInput] = []  # by each process of the pool


def _hold(layers: list[LayerInput]) -> None:
    _held.extend(layers)


def _measure_held(times: int) -> None:
    with one_blas_thread():
        for _ in range(times):
            measure(_held)


def processes_gain(mask: NetworkMask, span: float, repeats: int) -> float:
    """Throughput of two processes over that of one, a mask taking about `span` seconds."""
    times = max(1, round(LEAST_SPAN / span))
    with ProcessPoolExecutor(2, get_context("spawn"), _hold, (mask.bare,)) as pool:

        def work(processes: int) -> float:
            return seconds(lambda: list(pool.map(_measure_held, [times] * processes)))

        work(2)
        pairs = [(work(1), work(2)) for _ in range(repeats)]
    return 2 * min(one for one, _ in pairs) / min(both for _, both in pairs)


@dataclass(frozen=True)
class Bench:
    """A run's options that rows share."""

    table: Table
    machine: Rates
    repeats: int
    every: bool

    def row(self, mask: NetworkMask) -> None:
        """Time a mask and print its row."""
        times = best_times(runs_of(mask, self.every), self.repeats)
        ours = times["ours"]
        shapes = [graph.shape for matrix in mask.matrices for graph in graphs_of(matrix)]
        floor = self.machine.floor(sum(matrix.nbytes for matrix in mask.matrices), gram_products(shapes))
        self.table.row(
            mask.network,
            mask.kind,
            mask.density,
            len(shapes),
            ours,
            times["weights"] / ours,
            ours / times["threads"],
            processes_gain(mask, ours, self.repeats),
            times["hybrid"],
            times["hybrid"] / ours,
            times["arpack"],
            times["arpack"] / ours,
            floor,
            ours / floor,
        )


def masks_of(options: argparse.Namespace) -> Iterator[NetworkMask]:
    """Every mask that is asked for, made when it is its turn."""
    for name in options.networks:
        for kind in options.masks:
            if kind != "skewed":
                yield from (pruned(name, kind, density, options.rounds) for density in options.densities)
            elif name == "resnet34":
                yield skewed(name)


def main() -> None:
    """Print a line a mask."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", nargs="+", default=["resnet20", "resnet34", "vgg16-bn"])
    parser.add_argument("--densities", nargs="+", type=float, default=[0.01, 0.1, 0.5])
    parser.add_argument(
        "--masks", nargs="+", choices=["uniform", "synflow", "skewed"], default=["uniform", "synflow", "skewed"]
    )
    parser.add_argument("--repeats", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=100, help="of SynFlow")
    parser.add_argument(
        "--every-subgraph", action="store_true", help="rivals: also those of mean degree under 3, which need none"
    )
    parser.add_argument("--quick", action="store_true", help="ResNet-20 and the skewed ResNet-34, twice, ten rounds")
    options = parser.parse_args()
    if options.quick:
        options.densities, options.repeats, options.rounds = [0.1], 2, 10
        options.networks = ["resnet20", "resnet34"]
        options.masks = ["uniform", "skewed"]
    found = rates()
    describe(found)
    table = Table(COLUMNS)
    table.head()
    for mask in masks_of(options):
        Bench(table, found, options.repeats, options.every_subgraph).row(mask)


if __name__ == "__main__":
    main()
