"""How many instructions the engine takes for whole masks: repeatable where seconds are not. `make bench` runs it.

    python benchmarks/instructions.py --networks resnet20 --densities 0.1

Needs valgrind, whose cachegrind counts them; it knows no AVX-512, so what is counted is the code for AVX2. A process loads
NumPy and the mask and measures it once, another twice: the difference is one measurement, Python's share in it. The unmasked
layers' measures, which the checkpoint alone decides, are known by then.

mask      millions of instructions for all measures of sections 1 to 3
weights   the same and section 4, as a multiple of `mask`
"""

from __future__ import annotations

import argparse
import os
import pickle
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from tables import LEFT, Table

from pai_cli.compute.threads import THREAD_VARIABLES
from pai_cli.spectral.metrics import MetricOptions
from pai_cli.spectral.network import LayerInput, measure_together

COLUMNS = (("network", 8, LEFT), ("masks", 7, LEFT), ("density", 7, "g"), ("mask M", 8, ".0f"), ("weights", 7, ".2fx"))

OPTIONS = MetricOptions(dense=False)


def measure(path: Path, weights: bool, times: int) -> None:
    """What is counted, in a process of its own."""
    layers: list[LayerInput] = pickle.loads(path.read_bytes())
    if not weights:
        layers = [LayerInput(layer.name, layer.mask, None, layer.layout) for layer in layers]
    for _ in range(times):
        measure_together(layers, OPTIONS)


def counted(path: Path, weights: bool, times: int) -> int:
    """Instructions of a process that measures so many times. Raises `RuntimeError` with what valgrind said."""
    words = ["valgrind", "--tool=cachegrind", "--cache-sim=no", "--cachegrind-out-file=/dev/null", sys.executable]
    done = subprocess.run(
        [*words, __file__, "--measure", str(path), str(int(weights)), str(times)],
        env=os.environ | dict.fromkeys(THREAD_VARIABLES, "1") | {"PYTHONHASHSEED": "0"},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    found = re.search(r"I\s+refs:\s+([\d,]+)", done.stderr)
    if done.returncode or found is None:
        raise RuntimeError(done.stderr[-500:])
    return int(found[1].replace(",", ""))


def one(path: Path, weights: bool) -> int:
    """Instructions of one measurement."""
    return counted(path, weights, 2) - counted(path, weights, 1)


def main() -> None:
    """Print a line a mask."""
    if sys.argv[1:2] == ["--measure"]:
        measure(Path(sys.argv[2]), sys.argv[3] == "1", int(sys.argv[4]))
        return
    from inputs import pruned

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", nargs="+", default=["resnet20", "resnet34"])
    parser.add_argument("--densities", nargs="+", type=float, default=[0.01, 0.1, 0.5])
    parser.add_argument("--masks", nargs="+", choices=["uniform", "synflow"], default=["uniform"])
    parser.add_argument("--quick", action="store_true", help="ResNet-20 at one density")
    options = parser.parse_args()
    if options.quick:
        options.networks, options.densities = ["resnet20"], [0.1]
    if shutil.which("valgrind") is None:
        print("no instructions counted: valgrind is not installed")
        return
    table = Table(COLUMNS)
    table.head()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "layers.pickle"
        for name in options.networks:
            for kind in options.masks:
                for density in options.densities:
                    path.write_bytes(pickle.dumps(pruned(name, kind, density, 100).layers))
                    mask = one(path, weights=False)
                    table.row(name, kind, density, mask / 1e6, one(path, weights=True) / mask)


if __name__ == "__main__":
    main()
