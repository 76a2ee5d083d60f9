"""How quick a device is: measured on the spot, once a process, in a tenth of a second."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

from pai_cli.compute.device import torch_device

if TYPE_CHECKING:
    import torch

IMPORT, BEGIN = 4.0, 2.0
"""Seconds that importing torch takes, and a GPU's first use: what work must be worth before either is tried."""

SIDE, COPIED, LAUNCHED = 2048, 2**24, 500  # of products; bytes; operations in a row

TIMES = 3  # of which the quickest counts


@dataclass(frozen=True)
class Rates:
    """Seconds of launching an operation; operations a second of products in single and in double precision; bytes a second
    that are sent.
    """

    launch: float
    single: float
    double: float
    sent: float


def start_seconds() -> float:
    """About how long it takes until a GPU works: torch's import, where it is not imported, and the GPU's own start."""
    import sys

    if "torch" not in sys.modules:
        return IMPORT + BEGIN
    import torch

    return 0.0 if torch.cuda.is_initialized() else BEGIN  # type: ignore[no-untyped-call]


@cache
def measured_rates(device: str) -> Rates:
    """The rates of a device that `device.resolve` gave. Raises what torch does where it cannot be used."""
    import torch

    there = torch_device(device)
    few = torch.ones(64, device=there)
    here = torch.empty(COPIED, dtype=torch.uint8)
    flops = 2.0 * SIDE**3

    def launches() -> torch.Tensor:
        added = few
        for _ in range(LAUNCHED):
            added = added + 1.0
        return added

    def product(dtype: torch.dtype) -> Callable[[], torch.Tensor]:
        square = torch.ones((SIDE, SIDE), dtype=dtype, device=there)
        return lambda: square @ square

    return Rates(
        launch=_seconds(launches) / LAUNCHED,
        single=flops / _seconds(product(torch.float32)),
        double=flops / _seconds(product(torch.float64)),
        sent=COPIED / _seconds(lambda: here.to(there, copy=True)),
    )


def _seconds(work: Callable[[], torch.Tensor]) -> float:
    """How long it takes until what the work gives can be read."""
    taken = []
    for _ in range(TIMES + 1):  # the first loads what it needs
        begin = time.perf_counter()
        work().reshape(-1)[0].item()
        taken.append(time.perf_counter() - begin)
    return max(min(taken), 1e-9)
