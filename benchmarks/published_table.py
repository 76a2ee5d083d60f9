"""Sets the published means of random and ERK masks of ResNet-34 beside those of fresh masks.

    python benchmarks/published_table.py iclr2023-cifar10.csv

The table holds means over the 37 layers of a torchvision-layout ResNet-34 (7x7 stem, 10 classes) and three seeds, from
the public results of Hoang, Liu, Marculescu, Wang, ICLR 2023. Its columns are named as `pai analyze` names them. Two things
differ. Its sigma_1 and sigma_2 are means over the layers whose gaps are defined (both mean degrees at least 3), so ours are
taken over those here; `pai analyze` averages a singular value over every layer that has one. And its Rand and ERK masks
draw each weight independently, where ours keep exact counts, so that our seeds scatter less than theirs did: sigma_1,
which follows the count, above all.

`spread` is our seeds' standard deviation; `off` is the difference of the means in units of the deviation that such a
difference would have if theirs scattered as ours do.
"""

from __future__ import annotations

import argparse
import csv
import math
from pathlib import Path

import numpy as np

from pai_cli.compute.threads import one_blas_thread
from pai_cli.models.network import Network, init_network
from pai_cli.pruning.run import PruneRequest, prune
from pai_cli.spectral.metrics import MetricOptions
from pai_cli.spectral.network import LayerInput, measure_layers, summarise

NAMES = ("dr", "dr_imdb", "ds", "ds_imdb", "sigma_1", "sigma_2", "narc")
METHODS = {"Rand": "uniform", "ERK": "erk"}


def means(network: Network, method: str, density: float, seed: int) -> dict[str, float]:
    """The network means of one fresh mask."""
    result = prune(network, PruneRequest(method, density, seed=seed))
    layers = (LayerInput(layer.name, result.masks[layer.name], None, layer.layout) for layer in result.layers)
    with one_blas_thread():
        reports = list(measure_layers(layers, MetricOptions()))
    defined = [report for report in reports if report.metrics.measures["dr"].present]
    whole, part = summarise(reports).measures, summarise(defined).measures
    return {name: (part if name.startswith("sigma") else whole)[name].value or math.nan for name in NAMES}


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
    print(f"{'method':<6} {'density':>7} {'metric':<8} {'published':>10} {'ours':>10} {'spread':>8} {'off':>6}")
    for published, method in METHODS.items():
        for density in options.densities:
            found = [means(network, method, density, seed) for seed in range(options.seeds)]
            for name in NAMES:
                values = np.array([row[name] for row in found])
                spread = float(values.std(ddof=1))
                theirs, ours = float(rows["resnet34", published, density][name]), float(values.mean())
                off = (theirs - ours) / (spread * math.sqrt(2 / options.seeds))
                print(
                    f"{published:<6} {density:>7} {name:<8} {theirs:>10.5g} {ours:>10.5g} {spread:>8.2g} {off:>6.1f}",
                    flush=True,
                )


if __name__ == "__main__":
    main()
