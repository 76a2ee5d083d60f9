"""The engine on a CUDA GPU, over what the device could do at best, and what a model of launches and bytes predicts.

`make bench-gpu` runs it, in a few minutes.

    python benchmarks/gpu.py --layers 4
    python benchmarks/gpu.py --quick --device torch:cpu    the same code on tensors of the CPU, all small: to see it run

Masks lie on the device as boolean tensors; times are of warm runs, the best of --repeats, from the call to its answers on
the host.

mask           all measures of sections 1 to 3 of a uniform 10 % ResNet mask, its layers in one call
and weights    the same and section 4; what the checkpoint alone decides is known by then
sigma          sigma_1, sigma_2 of a 4096 x 14336 mask, the full graph alone
layer          all of sections 1 to 3 of that mask
Llama-shaped   all of sections 1 to 3 of --layers of the 32 layers of a Llama-3-8B-shaped mask, seven matrices each, one call
               a layer; masks are made on the device between the calls, which is not timed
floor          the masks' bytes read once and 2 n^2 m operations for each graph's Gram matrix (its smaller side is n), at the
               rates of this device, which are measured first: a large tensor copied (read and written), and a large
               product of matrices in half precision
launches       operations that torch was asked for, views aside; waits: what was copied to the host, or read (on the CPU,
               where nothing is copied, only the latter)
predicted      launches and waits, each at what one takes here, and the bytes and float64 operations of the products at their
               rates: what it should take, did nothing else count
peak           the most device memory that torch held, MiB
bounds         every problem of the first mask, and of weights over 12 orders of magnitude, against a dense float64 SVD
"""

from __future__ import annotations

import argparse
import math
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from inputs import NetworkMask, pruned
from llama import LAYERS, MATRICES, analyze, shapes_of, write_random_mask
from machine import best, seconds
from tables import LEFT, Table
from torch.utils._python_dispatch import TorchDispatchMode

from pai_cli.compute.threads import one_blas_thread
from pai_cli.spectral.device.gathering import graphs_of
from pai_cli.spectral.device.products import product_of
from pai_cli.spectral.graph import unroll
from pai_cli.spectral.metrics import MetricOptions, prepare_layer
from pai_cli.spectral.network import DenseCache, LayerInput, measure_together
from pai_cli.spectral.problems import Problems
from pai_cli.spectral.singular import singular_pairs
from pai_cli.spectral.subgraphs import regular_subgraphs

COLUMNS = (
    ("what", 12, LEFT),
    ("density", 7, "g"),
    ("ms", 10, ".2f"),
    ("floor ms", 8, ".3f"),
    ("/floor", 7, ".1fx"),
    ("launches", 8, ",.0f"),
    ("waits", 5, ",.0f"),
    ("GB", 6, ".2f"),
    ("predicted", 9, ".2f"),
    ("/predicted", 9, ".2fx"),
    ("peak", 6, ".0f"),
    ("outcomes", 8, LEFT),
)

LAYER = (4096, 14336)

OPTIONS = MetricOptions()


VIEWS = {
    *(
        "view",
        "_unsafe_view",
        "slice",
        "select",
        "transpose",
        "t",
        "expand",
        "unsqueeze",
        "squeeze",
        "permute",
        "alias",
    ),
    *(
        "detach",
        "as_strided",
        "diagonal",
        "unbind",
        "split",
        "split_with_sizes",
        "_reshape_alias",
        "empty",
        "new_empty",
    ),
    *("empty_like", "empty_strided", "lift_fresh", "scalar_tensor"),
}


class Asked(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """What a run asks of the device: launches, waits, bytes, and float64 operations of products."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.launches = self.waits = self.bytes = self.wide = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        name = func._schema.name.split("::")[1]
        made = result if isinstance(result, torch.Tensor) else None
        given = [one for one in args if isinstance(one, torch.Tensor)]
        home = made is not None and name == "_to_copy" and made.device.type == "cpu" and given[0].device.type != "cpu"
        self.waits += home or name in ("_local_scalar_dense", "nonzero", "_linalg_eigh", "_linalg_svd")
        if name in VIEWS or name == "_local_scalar_dense":
            return result
        self.launches += 4 if name == "linalg_cholesky_ex" else 1
        self.bytes += sum(one.numel() * one.element_size() for one in (*given, *([] if made is None else [made])))
        if name in ("mm", "bmm", "baddbmm") and made is not None and made.dtype == torch.float64:
            self.wide += 2 * made.numel() * given[-1].shape[-2]
        return result


@dataclass(frozen=True)
class Place:
    """Where tensors are, how much smaller sides are than they should be, and the rates of that place a second.

    launch, wait: seconds one takes. wide: float64 operations a second.
    """

    device: str
    shrink: int
    bytes: float
    operations: float
    launch: float
    wait: float
    wide: float

    @staticmethod
    def of(device: str) -> Place:
        """The device with its rates measured."""
        cuda = device == "cuda"
        large = torch.ones(2**30 if cuda else 2**24, dtype=torch.uint8, device=device)
        side, dtype = (8192, torch.half) if cuda else (512, torch.float)
        half = torch.ones((side, side), device=device, dtype=dtype)
        wide = torch.ones((512 if cuda else 8, 128, 128), device=device, dtype=torch.float64)
        copied, few = torch.empty_like(large), torch.ones(1000, device=device)

        def launches() -> None:
            for _ in range(1000):
                few.add_(0.0)

        copy = best(lambda: finished(device, lambda: copied.copy_(large)))
        product = best(lambda: finished(device, lambda: half @ half))
        batch = best(lambda: finished(device, lambda: wide @ wide))
        launch = best(lambda: finished(device, launches)) / 1000
        wait = best(few[0].item)
        rates = 2 * large.nbytes / copy, 2 * side**3 / product, launch, wait, 2 * wide.numel() * 128 / batch
        return Place(device, 1 if cuda else 16, *rates)

    def describe(self) -> None:
        """Print the rates."""
        name = torch.cuda.get_device_name() if self.device == "cuda" else "torch on the CPU"
        kind = "half" if self.device == "cuda" else "float32"
        print(
            f"{name}, torch {torch.__version__}: {self.bytes / 1e9:.0f} GB/s, "
            f"{self.operations / 1e12:.3g} T operations/s in {kind}, {self.wide / 1e12:.3g} in float64 batches; "
            f"{1e6 * self.launch:.1f} us a launch, {1e6 * self.wait:.1f} us a wait; "
            f"Gram matrices in {product_of(self.device)}"
        )

    def predicted(self, asked: Asked) -> float:
        """Seconds by the model."""
        work = max(asked.bytes / self.bytes, asked.wide / self.wide)
        return asked.launches * self.launch + asked.waits * self.wait + work

    def random(self, rows: int, columns: int, density: float) -> torch.Tensor:
        """A random mask here, of the shrunken size."""
        return torch.rand((rows // self.shrink, columns // self.shrink), device=self.device) < density

    def floor(self, masks: Sequence[torch.Tensor], whole: bool = False) -> float:
        """Seconds for the bytes of `masks` and for the Gram matrices of their graphs; `whole`: without subgraphs."""
        work = 0.0
        for mask in masks:
            graphs = prepare_layer(mask).problems[0]
            sides = list(zip(graphs.left.tolist(), graphs.right.tolist(), strict=True))
            work += sum(2.0 * min(pair) ** 2 * max(pair) for pair in (sides[:1] if whole else sides))
        return sum(mask.nbytes for mask in masks) / self.bytes + work / self.operations


def finished(device: str, run: Callable[[], object]) -> None:
    """Run and wait for the device."""
    run()
    if device == "cuda":
        torch.cuda.synchronize()


@dataclass(frozen=True)
class Bench:
    """What rows share."""

    table: Table
    place: Place
    repeats: int

    def row(self, what: str, density: float, run: Callable[[], str], floor: float) -> None:
        """Time a warm run, whose answer names its outcomes, and print its row."""
        device = self.place.device
        run()
        with Asked() as asked:
            outcomes = run()
        if device == "cuda":
            torch.cuda.reset_peak_memory_stats()
        time = best(lambda: finished(device, run), self.repeats)
        self.print(what, density, (time, floor), asked, outcomes)

    def print(self, what: str, density: float, times: tuple[float, float], asked: Asked, outcomes: str) -> None:
        """Print a row; `times`: ours and the floor."""
        peak = torch.cuda.max_memory_allocated() / 2**20 if self.place.device == "cuda" else None
        predicted = self.place.predicted(asked)
        counted = asked.launches, asked.waits, asked.bytes / 1e9, 1e3 * predicted, times[0] / predicted
        self.table.row(what, density, 1e3 * times[0], 1e3 * times[1], times[0] / times[1], *counted, peak, outcomes)


def measured(layers: Sequence[LayerInput], cache: DenseCache | None = None) -> str:
    """Measure layers in one call; what the outcomes were."""
    reports = measure_together(layers, OPTIONS, cache)
    return ", ".join(sorted({outcome.name for outcomes in reports.outcomes for outcome in outcomes}))


def moved(mask: NetworkMask, device: str) -> list[LayerInput]:
    """A network's layers on the device."""

    def there(array: Any) -> torch.Tensor:
        return torch.from_numpy(array).to(device)

    return [LayerInput(layer.name, there(layer.mask), there(layer.weights), layer.layout) for layer in mask.layers]


def bench_network(bench: Bench) -> None:
    """A whole small network."""
    mask = pruned("resnet34" if bench.place.shrink == 1 else "resnet20", "uniform", 0.1, 1)
    layers = moved(mask, bench.place.device)
    bare = [LayerInput(layer.name, layer.mask, None, layer.layout) for layer in layers]
    floor = bench.place.floor([unroll(layer.mask, layer.layout) for layer in layers])
    cache = DenseCache()
    bench.row("mask", mask.density, lambda: measured(bare), floor)
    bench.row("and weights", mask.density, lambda: measured(layers, cache), floor)


def outcome_of(mask: torch.Tensor) -> str:
    """How sigma_1 and sigma_2 of a mask were found."""
    return singular_pairs([Problems.whole(graphs_of([mask], [None])[0])])[0].outcome[0].name


def bench_layer(bench: Bench, densities: Sequence[float]) -> None:
    """One large layer."""
    for density in densities:
        mask = bench.place.random(*LAYER, density)
        layer = [LayerInput("layer", mask)]
        whole = bench.place.floor([mask], whole=True)
        bench.row("sigma", density, lambda mask=mask: outcome_of(mask), whole)  # type: ignore[misc]
        bench.row("layer", density, lambda layer=layer: measured(layer), bench.place.floor([mask]))  # type: ignore[misc]


def bench_llama(bench: Bench, layers: int, density: float) -> None:
    """A large network, a layer at a time."""
    time = floor = 0.0
    outcomes: set[str] = set()
    asked = Asked()
    if bench.place.device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    for number in range(layers + 1):
        masks = [bench.place.random(*shape, density) for shape in MATRICES.values()]
        batch = [LayerInput(name, mask) for name, mask in zip(MATRICES, masks, strict=True)]
        finished(bench.place.device, lambda: None)
        if not number:  # to warm up, and to count
            measured(batch)
            with asked:
                measured(batch)
            continue
        taken = seconds(lambda batch=batch: outcomes.add(measured(batch)))  # type: ignore[misc]
        time, floor = time + taken, floor + bench.place.floor(masks)
    bench.print("Llama-shaped", density, (time / layers, floor / layers), asked, ", ".join(sorted(outcomes)))


def check_bounds(place: Place) -> None:
    """What is claimed of all problems of a mask, and of weights over 12 orders of magnitude; exits with 1 if it is wrong."""
    mask = pruned("resnet34" if place.shrink == 1 else "resnet20", "uniform", 0.1, 1)
    masks = [unroll(layer.mask, layer.layout) for layer in mask.layers]
    rng = np.random.default_rng(0)
    weights = [10.0 ** rng.uniform(-12, 0, own.shape) for own in masks]
    there = [torch.from_numpy(np.ascontiguousarray(own)).to(place.device) for own in masks]
    graphs = graphs_of(there, [torch.from_numpy(own).to(place.device) for own in weights])
    requests = [
        regular_subgraphs(graph).problems(graph, weighted=weighted) for graph in graphs for weighted in (False, True)
    ]
    wrong, widest, count = 0, 0.0, 0
    for number, (request, pairs) in enumerate(zip(requests, singular_pairs(requests), strict=True)):
        own, weight = masks[number // 2], weights[number // 2]
        matrix = own * weight if request.weighted else own.astype(float)
        for k, (begin, end) in enumerate(request.ranges.tolist()):
            part = matrix[:, request.graph._columns[begin:end]]
            true = np.linalg.svd(part, compute_uv=False)[:2]
            allowed = (10 + max(part.shape) / 8) * 2.0**-52 * true[0]
            off = np.abs([pairs.sigma_1[k] - true[0], pairs.sigma_2[k] - true[1]]) - allowed
            bounds = np.array([pairs.error_1[k], pairs.error_2[k]])
            if len(true) == 2:
                wrong, count = wrong + int(not np.all(off <= bounds)), count + 1
                widest = max(widest, float(bounds.max() / true[0]) if math.isfinite(bounds.max()) else math.inf)
    print(f"bounds: {count} problems against a dense float64 SVD, {wrong} broken, the widest {widest:.1e} of sigma_1")
    if wrong:
        sys.exit(1)


def bench_file(device: str, layers: int, density: float) -> None:
    """`pai analyze --device` of a file of such a mask, as a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "llama.safetensors"
        write_random_mask(path, shapes_of(layers), density)
        run = analyze(path, "--device", device)
    peak = f"peak resident {run.peak / 2**20:.0f} MiB"
    print(f"pai analyze --device {device}, {layers} layers from a file: {run.seconds:.1f} s, {peak}")


def main() -> None:
    """Print a line a case; without a GPU say so and exit 1."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=["cuda", "torch:cpu"], default="cuda")
    parser.add_argument("--densities", nargs="+", type=float, default=[0.5, 0.1, 0.01], help="of the single layer")
    parser.add_argument("--density", type=float, default=0.1, help="of the Llama-shaped mask")
    parser.add_argument(
        "--layers", type=int, help=f"of the Llama-shaped mask, 0 to {LAYERS} (default: all, on a CPU 1)"
    )
    parser.add_argument("--file", action="store_true", help="and that mask once more from a file, by pai analyze")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="twice, and one Llama-shaped layer")
    options = parser.parse_args()
    if options.quick:
        options.repeats, options.layers, options.densities = 2, 1, options.densities[1:2]
    device = options.device.removeprefix("torch:")
    if device == "cpu":
        torch.set_num_threads(1)
    elif not torch.cuda.is_available():
        sys.exit("torch sees no CUDA GPU on this machine; --device torch:cpu runs the same code without one")
    layers = options.layers if options.layers is not None else (LAYERS if device == "cuda" else 1)
    with one_blas_thread():
        place = Place.of(device)
        place.describe()
        check_bounds(place)
        bench = Bench(Table(COLUMNS), place, options.repeats)
        bench.table.head()
        bench_network(bench)
        bench_layer(bench, options.densities)
        if layers:
            bench_llama(bench, layers, options.density)
    if options.file and layers and device == "cuda":
        bench_file(device, layers, options.density)


if __name__ == "__main__":
    main()
