"""The C part's own eigensolvers and Cholesky factorisation against LAPACK's, called the same way. `make bench` runs it.

    OPENBLAS_NUM_THREADS=1 python benchmarks/lapack.py

LAPACK is that of SciPy, by the C interface that `scipy.linalg.cython_lapack` gives to compiled code; both sides are called
through ctypes, whose cost is in both columns. One thread, best of several, microseconds.

Ritz values     of the tridiagonal matrix of an iteration, and the last entries of its eigenvectors (implicit QL); LAPACK
                gives the three largest values with their whole vectors (dstemr)
all values      of a small Gram matrix (Householder, implicit QL; dsyev)
proof           whether a Cholesky factor exists (dpotrf), up to the side where a proof is no longer made unasked
start           what a new process takes to import numpy alone, and scipy.linalg with it (milliseconds): LAPACK's price for
                every command, as `pai analyze` imports no scipy
"""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tables import LEFT, Table

from pai_cli.spectral.compiled.calls import kernel

Matrix = NDArray[np.float64]

COLUMNS = (
    ("what", 12, LEFT),
    ("n", 5, "d"),
    ("ours us", 10, ".1f"),
    ("LAPACK us", 10, ".1f"),
    ("LAPACK/ours", 11, ".2fx"),
)
TURNS, LEAST_SECONDS = 7, 0.02
RITZ, ALL_VALUES, PROOF = (8, 16, 32, 64, 128, 256, 512), (2, 4, 8, 16, 24, 32), (36, 64, 128, 256, 512, 1024, 2048)
STARTS = 5


def lapack(name: str) -> Any:
    """A function of LAPACK; all its arguments are addresses."""
    from scipy.linalg import cython_lapack

    capsule = cython_lapack.__pyx_capi__[name]
    api = ctypes.pythonapi
    api.PyCapsule_GetName.restype, api.PyCapsule_GetName.argtypes = ctypes.c_char_p, [ctypes.py_object]
    api.PyCapsule_GetPointer.restype = ctypes.c_void_p
    api.PyCapsule_GetPointer.argtypes = [ctypes.py_object, ctypes.c_char_p]
    return ctypes.CFUNCTYPE(None)(api.PyCapsule_GetPointer(capsule, api.PyCapsule_GetName(capsule)))


def at(array: NDArray[Any]) -> ctypes.c_void_p:
    """The address of an array's entries."""
    return ctypes.c_void_p(array.ctypes.data)


def integer(value: int) -> Any:
    return ctypes.byref(ctypes.c_int(value))


def best(work: Callable[[], object], prepare: Callable[[], object]) -> float:
    """Microseconds of one call; what is destroyed by it is prepared anew each time, untimed."""
    quickest = float("inf")
    for _ in range(TURNS):
        spent, calls = 0.0, 0
        while spent < LEAST_SECONDS:
            prepare()
            begin = time.perf_counter()
            work()
            spent, calls = spent + time.perf_counter() - begin, calls + 1
        quickest = min(quickest, spent / calls)
    return quickest * 1e6


def ritz(n: int, rng: np.random.Generator) -> tuple[float, float]:
    """The projection of a random mask's Gram matrix: one value apart, the others close together."""
    alpha, beta = np.append(n * 4.0, rng.normal(2.0, 0.1, n - 1)), np.append(rng.normal(1.0, 0.05, n - 1), 0.0)
    diagonal, off, last = (np.empty(n) for _ in range(3))
    vectors, work, whole = np.empty((3, n)), np.empty(18 * n), np.empty(10 * n, dtype=np.int32)
    support, values, found = np.empty(6, dtype=np.int32), np.empty(n), ctypes.c_int()
    ours, theirs = ctypes.CDLL(kernel.__file__).tridiagonal_values, lapack("dstemr")
    size, none, status = ctypes.c_ssize_t(n), ctypes.byref(ctypes.c_double()), ctypes.byref(ctypes.c_int())
    arguments = (
        ctypes.c_char_p(b"V"), ctypes.c_char_p(b"I"), integer(n), at(diagonal), at(off), none, none, integer(n - 2),
        integer(n), ctypes.byref(found), at(values), at(vectors), integer(n), integer(3), at(support), integer(1),
        at(work), integer(18 * n), at(whole), integer(10 * n), status,
    )  # fmt: skip

    def fresh() -> None:
        diagonal[:], off[:] = alpha, beta

    own_arguments = at(diagonal), at(off), at(last), size
    mine = best(lambda: ours(*own_arguments), fresh)
    own = np.sort(diagonal)[-3:]
    other = best(lambda: theirs(*arguments), fresh)
    np.testing.assert_allclose(values[:3], own, rtol=1e-12)
    return mine, other


def gram_of(n: int, rng: np.random.Generator) -> Matrix:
    rows = (rng.random((n, 4 * n)) < 0.3).astype(np.float64)
    gram: Matrix = rows @ rows.T
    return gram


def all_values(n: int, rng: np.random.Generator) -> tuple[float, float]:
    """Ours wants rows padded to four."""
    stored = -(-n // 4) * 4
    gram, given = gram_of(n, rng), np.zeros((stored, stored))
    own, other = given.copy(), np.empty((n, n))
    diagonal, off, work, values, room = (np.empty(size) for size in (stored, stored, 2 * stored, n, 40 * n))
    given[:n, :n] = gram
    library, theirs = ctypes.CDLL(kernel.__file__), lapack("dsyev")
    size, row = ctypes.c_ssize_t(n), ctypes.c_ssize_t(stored)
    arguments = (
        ctypes.c_char_p(b"N"), ctypes.c_char_p(b"U"), integer(n), at(other), integer(n), at(values), at(room),
        integer(40 * n), ctypes.byref(ctypes.c_int()),
    )  # fmt: skip

    reducing = at(own), size, row, at(diagonal), at(off), at(work)
    finding = at(diagonal), at(off), ctypes.c_void_p(), size

    def ours() -> None:
        library.tridiagonalise(*reducing)
        library.tridiagonal_values(*finding)

    pair = best(ours, lambda: np.copyto(own, given)), best(lambda: theirs(*arguments), lambda: np.copyto(other, gram))
    np.testing.assert_allclose(np.sort(diagonal[:n]), values, rtol=1e-9, atol=1e-9 * float(values[-1]))
    return pair


def proof(n: int, rng: np.random.Generator) -> tuple[float, float]:
    given = gram_of(n, rng) + np.eye(n)
    own, library, theirs = np.empty((n, n)), ctypes.CDLL(kernel.__file__), lapack("dpotrf")
    status = ctypes.c_int()
    own_arguments = at(own), ctypes.c_ssize_t(n)
    arguments = ctypes.c_char_p(b"U"), integer(n), at(own), integer(n), ctypes.byref(status)
    mine = best(lambda: library.cholesky(*own_arguments), lambda: np.copyto(own, given))
    return mine, best(lambda: theirs(*arguments), lambda: np.copyto(own, given))


def start(imported: str) -> float:
    """Milliseconds of processor time of a new process that imports this, the least of several."""
    quickest = float("inf")
    for _ in range(STARTS):
        before = os.times()
        subprocess.run([sys.executable, "-c", f"import {imported}"], check=True)
        after = os.times()
        spent = after.children_user + after.children_system - before.children_user - before.children_system
        quickest = min(quickest, spent)
    return quickest * 1e3


def main() -> None:
    table = Table(COLUMNS)
    table.head()
    rng = np.random.default_rng(0)
    for what, sides, measure in (
        ("Ritz values", RITZ, ritz),
        ("all values", ALL_VALUES, all_values),
        ("proof", PROOF, proof),
    ):
        for n in sides:
            ours, theirs = measure(n, rng)
            table.row(what, n, ours, theirs, theirs / ours)
    print(
        f"start: numpy {start('numpy'):.0f} ms, numpy and scipy.linalg {start('numpy, scipy.linalg.cython_lapack'):.0f} ms"
    )


if __name__ == "__main__":
    main()
