"""What `spectral/costs.py` says of a core against what it takes: the choice of `--device auto`. `make bench` runs it.

    OPENBLAS_NUM_THREADS=1 python benchmarks/costs.py [--quick]

Uniform random masks of density 0.1, alone and with weights, in this process; processor time, best of several. The last
column is to stay between a half and two.
"""

from __future__ import annotations

import sys
import time

import numpy as np
from tables import LEFT, Table

from pai_cli.compute.threads import one_blas_thread
from pai_cli.spectral.costs import work_of
from pai_cli.spectral.metrics import MetricOptions
from pai_cli.spectral.network import LayerInput, measure_together

COLUMNS = (
    ("layers", 22, LEFT),
    ("weights", 8, LEFT),
    ("measured ms", 12, ".1f"),
    ("told ms", 10, ".1f"),
    ("measured/told", 14, ".2fx"),
)

LAYERS = {
    "ResNet-20": [(16, 27), *[(16, 144)] * 6, (32, 144), *[(32, 288)] * 5, (64, 288), *[(64, 576)] * 5, (10, 64)],
    "256 x 2304, 11 times": [(256, 2304)] * 11,
    "512 x 4608, 5 times": [(512, 4608)] * 5,
    "1024 x 4096": [(1024, 4096)],
    "2048 x 2048": [(2048, 2048)],
    "4096 x 4096": [(4096, 4096)],
}
QUICK = ("ResNet-20", "256 x 2304, 11 times")
TURNS = 3


def taken(layers: list[LayerInput]) -> float:
    """Seconds of processor time."""
    best = float("inf")
    for _ in range(TURNS):
        with one_blas_thread():
            begin = time.process_time()
            measure_together(layers, MetricOptions())
            best = min(best, time.process_time() - begin)
    return best


def main() -> None:
    rng = np.random.default_rng(0)
    table = Table(COLUMNS)
    table.head()
    for name, shapes in LAYERS.items():
        if "--quick" in sys.argv and name not in QUICK:
            continue
        for weighted in (False, True):
            drawn = [rng.standard_normal(shape).astype(np.float32) if weighted else None for shape in shapes]
            layers = [LayerInput("w", rng.random(shape) < 0.1, one) for shape, one in zip(shapes, drawn, strict=True)]
            seconds, told = taken(layers), work_of(shapes, weighted=weighted).seconds
            table.row(name, "yes" if weighted else "no", 1e3 * seconds, 1e3 * told, seconds / told)


if __name__ == "__main__":
    main()
