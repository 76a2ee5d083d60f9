"""Sets the published means of random and ERK masks of ResNet-34 beside those of fresh masks.

    python benchmarks/published_table.py iclr2023-cifar10.csv

The table holds means over the 37 layers of a torchvision-layout ResNet-34 (7x7 stem, 10 classes) and three seeds, from
the public results of Hoang, Liu, Marculescu, Wang, ICLR 2023. Its columns are named as `pai analyze` names them. Two things
differ. Its sigma_1 and sigma_2 are means over the layers whose gaps are defined (both mean degrees at least 3), so ours are
taken over those here; `pai analyze` averages a singular value over every layer that has one. And its Rand and ERK masks
draw each weight independently, where ours keep exact counts, so that our seeds scatter less than theirs did: sigma_1,
which follows the count, above all.

Between layers the table has one pair a layer: with the first layer, in the order of the file, that reads what it writes,
shortcuts included (the second convolution of a block with the first of the next). `pai analyze --between` has every pair,
also those with the later readers that shortcuts lead to. The last convolution has no pair in the table, since its reader
is the classifier; the mean is over the 37 layers all the same, those two as 0. So compatibility is at most 35 / 37. Overlap
is that of the layer itself. `every` is the mean over every pair, as `pai analyze --between` has it.

`spread` is our seeds' standard deviation; `off` is the difference of the means in units of the deviation that such a
difference would have if theirs scattered as ours do.
"""

from __future__ import annotations

import argparse
import csv
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pai_cli.analysis.junctions import Pair, pairs_of
from pai_cli.compute.threads import one_blas_thread
from pai_cli.methods.registry import get
from pai_cli.models.network import Network, init_network
from pai_cli.models.trace import trace
from pai_cli.pruning.run import PruneRequest, PruneResult, prune
from pai_cli.spectral import junctions
from pai_cli.spectral.catalogue import BETWEEN
from pai_cli.spectral.graph import unroll
from pai_cli.spectral.junctions import Degrees, Junction
from pai_cli.spectral.metrics import MetricOptions
from pai_cli.spectral.network import LayerInput, measure_layers, summarise

NAMES = ("dr", "dr_imdb", "ds", "ds_imdb", "sigma_1", "sigma_2", "narc")
METHODS = {"Rand": "uniform", "ERK": "erk"}


Means = dict[str, float]


def means(network: Network, pairs: Sequence[Pair], method: str, density: float, seed: int) -> tuple[Means, Means]:
    """The network means of one fresh mask, as the table has them; and those over every pair."""
    result = prune(network, PruneRequest(get(method), density, seed=seed))
    layers = (LayerInput(layer.name, result.masks[layer.name], None, layer.layout) for layer in result.layers)
    with one_blas_thread():
        reports = list(measure_layers(layers, MetricOptions()))
    defined = [report for report in reports if report.metrics.measures["dr"].present]
    whole, part = summarise(reports).measures, summarise(defined).measures
    found = {name: (part if name.startswith("sigma") else whole)[name].value or math.nan for name in NAMES}
    published, every = between_layers(result, pairs)
    return found | published, every


def between_layers(result: PruneResult, pairs: Sequence[Pair]) -> tuple[Means, Means]:
    """Compatibility, copeland and overlap by the table's convention; and the means over every pair."""
    masks = {layer.name: unroll(result.masks[layer.name], layer.layout) for layer in result.layers}
    degrees = {name: Degrees.of(mask) for name, mask in masks.items()}
    rows: dict[str, tuple[float, float, float]] = {}
    every = []
    for pair in pairs:
        p, q, where = pair.writer.name, pair.reader.name, pair.where
        meeting = [measure(degrees[p], degrees[q], where) for measure in (junctions.compatibility, junctions.copeland)]
        every.append([one.value for one in (*meeting, junctions.overlap(masks[q], where))])
        if p not in rows and (len(pair.reader.shape) > 2 or len(pair.writer.shape) == 2):
            channels, k = pair.writer.shape[1], math.prod(pair.writer.shape[2:])
            own = junctions.overlap(masks[p], Junction.regular(channels, k))
            rows[p] = (meeting[0].value or 0.0, meeting[1].value or 0.0, own.value or 0.0)
    table = np.sum(list(rows.values()), axis=0) / len(masks)
    means_of_pairs = np.nanmean(np.array(every, dtype=float), axis=0)
    return dict(zip(BETWEEN, table.tolist(), strict=True)), dict(zip(BETWEEN, means_of_pairs.tolist(), strict=True))


def compared(theirs: float, values: NDArray[np.float64], every: list[float]) -> str:
    """A line's numbers."""
    spread, ours = float(values.std(ddof=1)), float(values.mean())
    # A ratio that has no scatter is the same for all seeds: there only the difference itself tells.
    off = f"{(theirs - ours) / (spread * math.sqrt(2 / len(values))):>6.1f}" if spread > 1e-12 else f"{'-':>6}"
    last = f"{np.mean(every):>8.5g}" if every else ""
    return f"{theirs:>10.6g} {ours:>10.6g} {spread:>8.2g} {off} {last}".rstrip()


def main() -> None:
    """Print a line a method, density and metric."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("table", type=Path, help="the published means, as CSV")
    parser.add_argument("--densities", nargs="+", type=float, default=[0.05, 0.1, 0.2])
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    with options.table.open(encoding="utf-8") as stream:
        rows = {(r["architecture"], r["method"], float(r["density"])): r for r in csv.DictReader(stream)}
    network = init_network("resnet34", 10, 0)
    pairs = pairs_of(trace(network.model, network.input_shape))
    numbers = f"{'published':>10} {'ours':>10} {'spread':>8} {'off':>6} {'every':>8}"
    print(f"{'method':<6} {'density':>7} {'metric':<13} {numbers}")
    for published, method in METHODS.items():
        for density in options.densities:
            found = [means(network, pairs, method, density, seed) for seed in range(options.seeds)]
            for name in (*NAMES, *BETWEEN):
                values = np.array([row[name] for row, _ in found])
                theirs = float(rows["resnet34", published, density][name])
                others = [row[name] for _, row in found if name in row]
                print(f"{published:<6} {density:>7} {name:<13} {compared(theirs, values, others)}", flush=True)


if __name__ == "__main__":
    main()
