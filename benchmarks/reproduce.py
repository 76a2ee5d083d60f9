"""Sets the published numbers of a paper beside those of fresh masks, and its claim beside the controls.

    make reproduce PAPER=iclr2023 TABLE=iclr2023-seeds-cifar10.csv
    python benchmarks/reproduce.py iclr2023 iclr2023-seeds-cifar10.csv --densities 0.05

The paper: Hoang, Liu, Marculescu, Wang, ICLR 2023. The table has a row a mask (three seeds) or their means, from its public
results: means over the 37 layers of a torchvision-layout ResNet-34 (7x7 stem, 10 classes). Its columns are named as
`pai analyze` names them. Rand, ERK and SynFlow need no data and are made anew; with a CIFAR-10 folder (`--data`) SNIP and
GraSP are, too, from as many examples a class as `pai prune` takes. Its VGG-16 is only ranked: its 138 million weights, most
of them in a head that CIFAR-10 has no use for, would take days here.

Two things differ. Its sigma_1 and sigma_2 are means over the layers whose gaps are defined (both mean degrees at least 3),
so ours are taken over those here; `pai analyze` averages a singular value over every layer that has one. And its Rand and
ERK masks draw each weight independently, where ours keep exact counts, so that our seeds scatter less than theirs did:
sigma_1, which follows the count, above all.

Between layers the table has one pair a layer: with the first layer, in the order of the file, that reads what it writes,
shortcuts included (the second convolution of a block with the first of the next). `pai analyze --between` has every pair,
also those with the later readers that shortcuts lead to. The last convolution has no pair in the table, since its reader
is the classifier; the mean is over the 37 layers all the same, those two as 0. So compatibility is at most 35 / 37. Overlap
is that of the layer itself. `every` is the mean over every pair, as `pai analyze --between` has it.

`off` is the difference of the means in its standard errors; `low` and `high` are Welch's 95% interval of it in the table's
own units: t, with both spreads and the degrees of freedom that they leave. Of published means alone the spread is not
known, and ours is taken for theirs.

The claim is that metrics of the layers' graphs order masks as accuracy does. It is set beside what they add to the mean of
the layers' densities, within a density; see `partial_tau.py`. Runs that collapsed (accuracy 0.1) are left out and counted.
"""

from __future__ import annotations

import argparse
import csv
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from fashion_report import told
from numpy.typing import NDArray
from partial_tau import Strata
from tables import LEFT, Table

from pai_cli.analysis.junctions import pairs_of
from pai_cli.analysis.pairs import Pair
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
from pai_cli.spectral.network import LayerInput, measure_together, summarise
from pai_cli.spectral.table import LayerTable

if TYPE_CHECKING:
    from pai_cli.data.base import Dataset

ARCHITECTURE, INPUT = "resnet34", (3, 32, 32)
NAMES = ("dr", "dr_imdb", "ds", "ds_imdb", "sigma_1", "sigma_2", "narc")
METHODS = {"Rand": "uniform", "ERK": "erk", "SynFlow": "synflow"}
WITH_DATA = {"SNIP": "snip", "GraSP": "grasp"}
COLLAPSED = 0.1
PUBLISHED_SEEDS = 3
LEVEL = 0.95

Rows = list[dict[str, str]]
Means = dict[str, float]


def means(
    network: Network, pairs: Sequence[Pair], request: PruneRequest, dataset: Dataset | None = None
) -> tuple[Means, Means]:
    """The network means of one fresh mask, as the table has them; and those over every pair."""
    result = prune(network, request, dataset=dataset)
    layers = [LayerInput(layer.name, result.masks[layer.name], None, layer.layout) for layer in result.layers]
    with one_blas_thread():
        reports = measure_together(layers, MetricOptions())
    defined = [row for row in reports.rows if row.measures["dr"].reasons[0] is None]
    whole, part = summarise(reports).measures, summarise(LayerTable.joined(defined)).measures
    found = {name: (part if name.startswith("sigma") else whole)[name].value or math.nan for name in NAMES}
    found["layer_density"] = float(np.mean([result.masks[layer.name].mean() for layer in result.layers]))
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


@dataclass(frozen=True)
class Difference:
    """Published mean less ours, in standard errors (`off`), and the ends of its interval; NaN where nothing scatters."""

    theirs: float
    ours: float
    off: float
    low: float
    high: float

    @property
    def apart(self) -> bool:
        """Whether the interval leaves out 0."""
        return self.low > 0 or self.high < 0


def difference(theirs: Sequence[float], ours: Sequence[float]) -> Difference:
    """Welch's interval of two samples; of a published mean of three seeds, Student's with our spread for both."""
    from scipy.stats import t

    mean, own = float(np.mean(theirs)), float(np.mean(ours))
    variance = float(np.var(ours, ddof=1)) if len(ours) > 1 else math.nan
    if len(theirs) > 1:
        parts = float(np.var(theirs, ddof=1)) / len(theirs), variance / len(ours)
        squares = sum(part**2 / (n - 1) for part, n in zip(parts, (len(theirs), len(ours)), strict=True) if n > 1)
        freedom = sum(parts) ** 2 / squares if squares else math.nan
    else:
        parts, freedom = (variance / PUBLISHED_SEEDS, variance / len(ours)), len(ours) - 1.0
    error = math.sqrt(sum(parts))
    if not error > 1e-12 * max(
        1.0, abs(mean)
    ):  # a ratio that is the same for all seeds has no scatter; nor has one seed
        return Difference(mean, own, math.nan, math.nan, math.nan)
    half = float(t.ppf((1 + LEVEL) / 2, freedom)) * error
    return Difference(mean, own, (mean - own) / error, mean - own - half, mean - own + half)


def masks_beside(rows: Rows, densities: Sequence[float], seeds: int, data: Path | None) -> None:
    """Print a line a method, density and metric; at the end, how many intervals leave out 0."""
    from pai_cli.data.registry import open_dataset

    dataset = open_dataset(str(data)) if data else None
    methods = METHODS | (WITH_DATA if dataset else {})
    table = Table(
        [
            *(("method", 8, LEFT), ("density", 7, "g"), ("metric", 13, LEFT), ("published", 10, ".6g")),
            *(("ours", 10, ".6g"), ("off", 6, ".1f"), ("low", 9, ".2g"), ("high", 9, ".2g"), ("every", 8, ".5g")),
        ]
    )
    table.head()
    intervals = []
    for published, method in methods.items():
        for density in densities:
            there = matching(rows, published, density)
            if not there:
                continue
            found = []
            for seed in range(seeds):
                network = init_network(ARCHITECTURE, 10, seed)
                request = PruneRequest(get(method), density, seed=seed, input_shape=INPUT)
                pairs = pairs_of(trace(network.model, network.input_shape))
                found.append(means(network, pairs, request, dataset if published in WITH_DATA else None))
            for name in (*NAMES, "layer_density", *BETWEEN):
                theirs = [float(row[name]) for row in there if row.get(name)]
                if not theirs:
                    continue
                one = difference(theirs, [own[name] for own, _ in found])
                intervals.append(one)
                others = [every[name] for _, every in found if name in every]
                last = float(np.mean(others)) if others else None
                table.row(
                    published,
                    density,
                    name,
                    one.theirs,
                    one.ours,
                    *(known(x) for x in (one.off, one.low, one.high)),
                    last,
                )
    there_are = [one for one in intervals if math.isfinite(one.low)]
    if there_are:
        print(
            f"{sum(one.apart for one in there_are)} of {len(there_are)} intervals leave out 0; by chance 1 in 20 would"
        )


def matching(rows: Rows, method: str, density: float) -> Rows:
    """The published rows of masks of this kind."""
    wanted = (ARCHITECTURE, method)
    return [
        r for r in rows if (r["architecture"], r["method"]) == wanted and math.isclose(float(r["density"]), density)
    ]


def known(value: float) -> float | None:
    """None for NaN, which a table leaves empty."""
    return value if math.isfinite(value) else None


def claim(rows: Rows) -> None:
    """Print a line an architecture and metric: its tau with accuracy within a density, and given layer density."""
    control = next(name for name in ("layer_density", "layer_density_mean") if name in rows[0])
    graph = [name for name in (*NAMES, "dr_imdb_norm", "ds_imdb_norm", *BETWEEN) if name in rows[0]]
    for architecture in sorted({row["architecture"] for row in rows}):
        every = [row for row in rows if row["architecture"] == architecture]
        some = [row for row in every if float(row["accuracy"]) > COLLAPSED]
        left_out = len(every) - len(some)
        print(
            f"\n{architecture}: {len(some)} masks, {left_out} collapsed are left out; within a density, tau with accuracy:"
        )
        numbers = {
            name: np.unique([row[name] for row in some], return_inverse=True)[1] for name in ("density", "method")
        }
        strata = Strata.of(numbers["density"], numbers["method"])
        accuracy, layers = column(some, "accuracy"), column(some, control)
        print(f"{control:<14} {told(strata.association([layers, accuracy]))}")
        print(f"{'metric':<14} {'tau':<24} {'given layer density':<24} {'whole methods drawn':<24} Kendall's form")
        for name in graph:
            pair = [column(some, name), accuracy]
            given = [*pair, layers]
            told_all = (
                strata.association(pair),
                strata.association(given),
                strata.association(given, by_kind=True),
                strata.association(given, normal=False),
            )
            print(f"{name:<14} " + " ".join(f"{told(one):<24}" for one in told_all).rstrip())


def column(rows: Sequence[Mapping[str, str]], name: str) -> NDArray[np.float64]:
    """NaN where a row has nothing."""
    return np.array([float(row[name] or "nan") for row in rows])


def main() -> None:
    """Print both parts."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("paper", choices=["iclr2023"], help="whose numbers")
    parser.add_argument("table", type=Path, help="the published rows, as CSV")
    parser.add_argument("--densities", nargs="*", type=float, default=[0.05, 0.1, 0.2], help="none: only the claim")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--data", type=Path, help="a CIFAR-10 folder, for SNIP and GraSP")
    options = parser.parse_args()
    with options.table.open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    claim(rows)
    if options.densities:
        print()
        masks_beside(rows, options.densities, options.seeds, options.data)


if __name__ == "__main__":
    main()
