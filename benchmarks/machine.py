"""What this machine could do at best, measured on the spot: the rates behind the floors in the tables."""

from __future__ import annotations

import os
import resource
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pai_cli.compute.threads import cores
from pai_cli.spectral.compiled import calls
from pai_cli.spectral.solver_table import SolverLimits

Mask = NDArray[np.bool_]

READ_BYTES = 2**28

LAYER = (512, 4608)  # of the Gram product that is timed: ResNet-34's largest

GRAM_ONLY = SolverLimits(tolerance=1e-300, most_products=2, direct_side=0, proof_side=2**31)  # stops after two products


@dataclass(frozen=True)
class Rates:
    """Bytes read a second, and multiply-adds of a Gram matrix's lower triangle a second; `how` that product was made."""

    read: float
    gram: float
    how: str

    def floor(self, mask_bytes: int, products: float) -> float:
        """Seconds to read the masks once and to form every Gram matrix."""
        return mask_bytes / self.read + products / self.gram


def seconds(run: Callable[[], object]) -> float:
    """Wall time of one call."""
    begin = time.perf_counter()
    run()
    return time.perf_counter() - begin


def best(run: Callable[[], object], repeats: int = 10) -> float:
    """The least wall time of several calls."""
    return min(seconds(run) for _ in range(repeats))


def rates() -> Rates:
    """One thread's rates: the quickest of three reductions over an array that no cache holds, and a layer's Gram matrix.

    The Gram matrix is the compiled solver's, by population count, from bits of the columns as it keeps them, with the two
    products after which it is stopped here; without the compiled part float32 X X^T through NumPy (BLAS syrk).
    """
    large = np.ones(READ_BYTES // 8, dtype=np.uint64)
    flags = large.view(np.bool_)
    reductions: tuple[Callable[[], object], ...] = (
        lambda: np.bitwise_or.reduce(large),
        lambda: np.count_nonzero(flags),
        lambda: large.view(np.float64).sum(),
    )
    read = READ_BYTES / min(best(reduction) for reduction in reductions)
    mask = np.random.default_rng(0).random(LAYER) < 0.5
    products = gram_products([mask.shape])
    if calls.available():
        bits, whole = calls.arrange(mask)[0], np.array([[0, mask.shape[1]]])
        return Rates(read, products / best(lambda: calls.solve_bits(bits, whole, GRAM_ONLY), 100), "popcount, compiled")
    matrix = mask.astype(np.float32)
    return Rates(read, products / best(lambda: matrix @ matrix.T, 30), "float32 syrk, NumPy")


def gram_products(shapes: Iterable[tuple[int, ...]]) -> float:
    """Multiply-adds of the lower triangles of the smaller sides' Gram matrices."""
    return float(sum(min(shape) * (min(shape) + 1) // 2 * max(shape) for shape in shapes))


def peak_bytes() -> int:
    """The most memory that this process has had resident so far."""
    status = Path("/proc/self/status")
    if status.exists():  # Linux's ru_maxrss begins with what the parent had
        for line in status.read_text(encoding="ascii", errors="replace").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    return resource_bytes(resource.getrusage(resource.RUSAGE_SELF))


def resource_bytes(usage: resource.struct_rusage) -> int:
    """`ru_maxrss` in bytes."""
    return usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def describe(found: Rates | None = None) -> None:
    """Print what the numbers below were measured on."""
    load = f", load {os.getloadavg()[0]:.1f} at the start" if hasattr(os, "getloadavg") else ""
    part = "with" if calls.available() else "without"
    print(f"{cores()} cores, NumPy {np.__version__}, {part} the compiled part{load}")
    if found is not None:
        gram = f"Gram {found.gram / 1e9:.0f} G multiply-adds/s ({found.how})"
        print(f"one thread: read {found.read / 1e9:.1f} GB/s; {gram}")
