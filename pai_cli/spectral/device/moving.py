"""Numbers to a device and back. Nothing else in this package waits for a device: each `fetched` is one wait."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from pai_cli.spectral.result import Floats

if TYPE_CHECKING:
    import torch

Host = np.ndarray[Any, np.dtype[Any]]


def sent(values: Host, device: torch.device) -> torch.Tensor:
    """The values on the device. They are copied from pinned memory, so that nobody waits for it."""
    import torch

    tensor = torch.from_numpy(np.ascontiguousarray(values))
    if device.type == "cpu":
        return tensor
    return (tensor.pin_memory() if device.type == "cuda" else tensor).to(device, non_blocking=True)


def fetched(tensor: torch.Tensor) -> Host:
    """The tensor's values, once all that they depend on is computed."""
    values: Host = tensor.cpu().numpy()
    return values


def room(device: torch.device, most: int) -> int:
    """Bytes of the device's memory that one batch may take: half of what is free, and no more than `most`."""
    if device.type != "cuda":
        return most
    import torch

    kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)  # torch's, and free all the same
    return min(most, (torch.cuda.mem_get_info(device)[0] + kept) // 2)


@lru_cache(maxsize=32)
def noise(side: int, device: torch.device, seed: int) -> torch.Tensor:
    """The same `side` numbers each time, float64: of 0.7 to 1.3 for seed 0, and of both signs for others.

    Longer ones begin as shorter ones do, so that padding changes nothing.
    """
    draws: Floats = np.random.default_rng(seed).uniform(-1.0, 1.0, side)
    return sent(1.0 + 0.3 * draws if seed == 0 else draws, device)
