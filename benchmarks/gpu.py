"""The engine on a CUDA GPU, over what the device could do at best. `make bench-gpu` runs it.

    python benchmarks/gpu.py --layers 4
    python benchmarks/gpu.py --device cpu       the same code on torch CPU tensors, everything small: to see that it runs

Masks lie on the device as boolean tensors; times are of warm runs, the best of --repeats, from the call to its answers on
the host.

mask           all measures of sections 1 to 3 of a uniform 10 % ResNet-34 mask, its layers in one call
and weights    the same and section 4; what the checkpoint alone decides is known by then
sigma          sigma_1, sigma_2 of a 4096 x 14336 mask, the full graph alone
layer          all of sections 1 to 3 of that mask
Llama-shaped   all of sections 1 to 3 of --layers of the 32 layers of a Llama-3-8B-shaped mask, seven matrices each, one call
               a layer; masks are made on the device between the calls, which is not timed
floor          the masks' bytes read once and 2 n^2 m operations for each graph's Gram matrix (its smaller side is n), at the
               rates of this device, which are measured first: a large tensor copied (read and write counted), and a large
               product of matrices in half precision
peak           the most device memory that torch held, MiB
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from inputs import NetworkMask, pruned
from llama import LAYERS, MATRICES, analyze, shapes_of, write_random_mask
from machine import best, seconds
from tables import LEFT, Table

from pai_cli.compute.device import Device, resolve
from pai_cli.compute.threads import one_blas_thread
from pai_cli.errors import DeviceError
from pai_cli.spectral.graph import BipartiteGraph, unroll
from pai_cli.spectral.metrics import MetricOptions, prepare_layer
from pai_cli.spectral.network import DenseCache, LayerInput, measure_together
from pai_cli.spectral.singular import structure_pair

COLUMNS = (
    ("what", 12, LEFT),
    ("density", 7, "g"),
    ("ms", 10, ".2f"),
    ("floor ms", 8, ".3f"),
    ("/floor", 7, ".1fx"),
    ("peak", 6, ".0f"),
    ("outcomes", 8, LEFT),
)

LAYER = (4096, 14336)

OPTIONS = MetricOptions()


@dataclass(frozen=True)
class Place:
    """Where tensors are, how much smaller sides are than they should be, and the rates of that place a second."""

    device: str
    shrink: int
    bytes: float
    operations: float

    @staticmethod
    def of(device: str) -> Place:
        """The device with its rates measured."""
        cuda = device == "cuda"
        large = torch.ones(2**30 if cuda else 2**24, dtype=torch.uint8, device=device)
        side, dtype = (8192, torch.half) if cuda else (512, torch.float)
        half = torch.ones((side, side), device=device, dtype=dtype)
        copied = torch.empty_like(large)
        copy = best(lambda: finished(device, lambda: copied.copy_(large)))
        product = best(lambda: finished(device, lambda: half @ half))
        return Place(device, 1 if cuda else 16, 2 * large.nbytes / copy, 2 * side**3 / product)

    def describe(self) -> None:
        """Print the rates."""
        name = torch.cuda.get_device_name() if self.device == "cuda" else "torch on the CPU"
        kind = "half" if self.device == "cuda" else "float32"
        print(
            f"{name}, torch {torch.__version__}: {self.bytes / 1e9:.0f} GB/s, "
            f"{self.operations / 1e12:.3g} T operations/s in {kind}"
        )

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
        outcomes = run()
        if device == "cuda":
            torch.cuda.reset_peak_memory_stats()
        time = best(lambda: finished(device, run), self.repeats)
        self.print(what, density, (time, floor), outcomes)

    def print(self, what: str, density: float, times: tuple[float, float], outcomes: str) -> None:
        """Print a row; `times`: ours and the floor."""
        peak = torch.cuda.max_memory_allocated() / 2**20 if self.place.device == "cuda" else None
        self.table.row(what, density, 1e3 * times[0], 1e3 * times[1], times[0] / times[1], peak, outcomes)


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


def bench_layer(bench: Bench, densities: Sequence[float]) -> None:
    """One large layer."""
    for density in densities:
        mask = bench.place.random(*LAYER, density)
        layer = [LayerInput("layer", mask)]
        whole = bench.place.floor([mask], whole=True)
        bench.row("sigma", density, lambda mask=mask: structure_pair(BipartiteGraph(mask)).outcome.name, whole)  # type: ignore[misc]
        bench.row("layer", density, lambda layer=layer: measured(layer), bench.place.floor([mask]))  # type: ignore[misc]


def bench_llama(bench: Bench, layers: int, density: float) -> None:
    """A large network, a layer at a time."""
    time = floor = 0.0
    outcomes: set[str] = set()
    if bench.place.device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    for number in range(layers + 1):
        masks = [bench.place.random(*shape, density) for shape in MATRICES.values()]
        batch = [LayerInput(name, mask) for name, mask in zip(MATRICES, masks, strict=True)]
        finished(bench.place.device, lambda: None)
        taken = seconds(lambda batch=batch: outcomes.add(measured(batch)))  # type: ignore[misc]
        if number:  # the first was to warm up
            time, floor = time + taken, floor + bench.place.floor(masks)
    bench.print(f"{layers} Llama-shaped", density, (time, floor), ", ".join(sorted(outcomes)))


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
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
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
        options.repeats, options.layers = 2, 1
    try:
        device = resolve(Device(options.device))
    except DeviceError as error:
        sys.exit(str(error))
    if device == "cpu":
        torch.set_num_threads(1)
    layers = options.layers if options.layers is not None else (LAYERS if device == "cuda" else 1)
    with one_blas_thread():
        place = Place.of(device)
        place.describe()
        bench = Bench(Table(COLUMNS), place, options.repeats)
        bench.table.head()
        bench_network(bench)
        bench_layer(bench, options.densities)
        if layers:
            bench_llama(bench, layers, options.density)
    if options.file and layers:
        bench_file(device, layers, options.density)


if __name__ == "__main__":
    main()
