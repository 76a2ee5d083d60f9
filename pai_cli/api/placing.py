"""Where singular values are computed, and with how much of a device's memory, from what a caller says of it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from pai_cli.compute.device import Device, device_name, may_have_gpu, resolve
from pai_cli.errors import UsageError
from pai_cli.spectral.parameters import shown
from pai_cli.spelling import option

UNITS = {"k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12, "ki": 2**10, "mi": 2**20, "gi": 2**30, "ti": 2**40}

LEAST_BYTES = 2**20  # of a device: with less not even a small layer is measured

_BYTES = re.compile(r"([0-9]{1,18}(?:\.[0-9]{1,18})?) ?([kmgt]i?)?b?", re.IGNORECASE)


@dataclass(frozen=True)
class Placing:
    """The device by its name, "auto" for where it is quicker; bytes of its memory that may be used, None for most of it."""

    device: str = Device.AUTO.value
    memory: int | None = None

    @staticmethod
    def of(device: Any, memory: Any) -> Placing:
        """What a caller says of both. Raises `UsageError`, also for memory of no device."""
        name = device_name(device)
        if memory is None:
            return Placing(name)
        told = option("device_memory", memory if isinstance(memory, str | int) else shown(memory))
        if name == Device.CPU:
            raise UsageError(f"{told}: is of a GPU, and {option('device', 'cpu')} needs none; leave one of them out")
        size = _bytes(memory)
        if size is None or size < LEAST_BYTES:
            raise UsageError(f"{told}: give a number of bytes, 1MiB or more, such as 8GB or 500MiB")
        if name == Device.AUTO and not may_have_gpu():
            raise UsageError(f"{told}: is of a GPU, and there is none that torch could use; leave it out")
        return Placing(name, size)

    @property
    def by_default(self) -> bool:
        """Whether nothing was asked for."""
        return self == Placing()

    def resolved(self) -> str:
        """The device as the engine is asked for it. Raises `DeviceError` for one that is not there."""
        return self.device if self.device == Device.AUTO else resolve(self.device)


def _bytes(given: Any) -> int | None:
    """Bytes, from a whole number, or a number with a unit: kB is 1000, KiB 1024. None for anything else."""
    if isinstance(given, int) and not isinstance(given, bool):
        return given
    found = _BYTES.fullmatch(given.strip()) if isinstance(given, str) else None
    if found is None:
        return None
    number, unit = found.groups()
    return int(float(number) * UNITS[unit.lower()]) if unit else None if "." in number else int(number)
