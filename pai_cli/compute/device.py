"""Where arrays live while work is done: what devices are called, which of them are there, and what memory they have free."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pai_cli.errors import DeviceError, UsageError
from pai_cli.spectral.parameters import shown
from pai_cli.spelling import option

if TYPE_CHECKING:
    import torch

ON_TORCH = "torch:cpu"
"""The path of a GPU on torch's tensors in this machine's memory: for who tests it, and has no GPU."""

KINDS = "one of auto, cpu, cuda; of several GPUs cuda:1, and so on"

DRIVERS = ("/dev/nvidiactl", "/dev/nvidia0", "/dev/dxg", "/dev/kfd")
"""What a driver that torch works with leaves in Linux: NVIDIA's, that of Windows' subsystem, AMD's."""

UNKNOWN_MEMORY = 2**32  # bytes that are taken to be free where the system does not tell

_NAME = re.compile(r"auto|cpu|torch:cpu|(?:cuda|xpu|mps)(?::[0-9]{1,3})?")


class Device(StrEnum):
    """The usual choices of device; `auto` takes a GPU when there is one."""

    AUTO = "auto"
    CPU = "cpu"
    CUDA = "cuda"


def device_name(given: Any) -> str:
    """The name of a device, also of torch's own object. Raises `UsageError` for what names none."""
    name = str(given) if isinstance(given, str) or type(given).__module__ == "torch" else ""
    if _NAME.fullmatch(name) is None:
        raise UsageError(f"{option('device', shown(given))}: give {KINDS}")
    return name


def resolve(name: str) -> str:
    """The device that a name of `device_name` stands for on this machine: "cpu", `ON_TORCH`, or torch's own name.

    Raises `DeviceError` for one that is not there, or that does not have float64.
    """
    if name in ("cpu", ON_TORCH):
        return name
    kind = name.partition(":")[0]
    if kind in ("mps", "xpu"):
        return _with_float64(name, kind)
    import torch

    if torch.cuda.is_available():
        return _counted(name, torch.cuda.device_count()) if ":" in name else "cuda"
    if kind == "cuda":
        raise DeviceError(
            f"{option('device', name)}: torch sees no CUDA GPU on this machine; use {option('device', 'cpu')}"
        )
    return "cpu"


def sent(tensor: torch.Tensor, device: str) -> torch.Tensor:
    """The tensor on the device; to a GPU from pinned memory, so that the host does not wait until it is there."""
    if not device.startswith("cuda") or tensor.device.type != "cpu":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)


def _counted(name: str, count: int) -> str:
    if int(name.partition(":")[2]) >= count:
        there = "its one GPU is cuda:0" if count == 1 else f"its {count} GPUs are cuda:0 to cuda:{count - 1}"
        raise DeviceError(f"{option('device', name)}: torch sees no such GPU on this machine; {there}")
    return name


def _with_float64(name: str, kind: str) -> str:
    """The name, where its device has float64, in which error bounds are proved: Apple's have not, Intel's partly."""
    if kind == "xpu":
        import torch

        if not torch.xpu.is_available() or int(name.partition(":")[2] or 0) >= torch.xpu.device_count():
            raise DeviceError(f"{option('device', name)}: torch sees no such device; use {option('device', 'cpu')}")
        if torch.xpu.get_device_properties(torch_device(name)).has_fp64:
            return name
    raise DeviceError(
        f"{option('device', name)}: has no float64, in which values and their bounds are computed; "
        f"use {option('device', 'cpu')}"
    )


def torch_device(device: str) -> torch.device:
    """What torch calls a device that `resolve` gave."""
    import torch

    return torch.device("cpu" if device == ON_TORCH else device)


def may_have_gpu() -> bool:
    """Whether torch may find a GPU here. Imports no torch: where it is not imported yet, traces of a driver are looked for.

    Those are its files in the system and torch's own library for it; `CUDA_VISIBLE_DEVICES` may hide every GPU.
    """
    if "torch" in sys.modules:
        import torch

        return torch.cuda.is_available()
    if os.environ.get("CUDA_VISIBLE_DEVICES", "0").strip() in ("", "-1"):
        return False
    return _driver_is_there() and _torch_is_built_for_it()


def _driver_is_there() -> bool:
    if sys.platform == "win32":
        return (Path(os.environ.get("SYSTEMROOT", r"C:\Windows")) / "System32" / "nvcuda.dll").exists()
    return any(Path(node).exists() for node in DRIVERS)


def _torch_is_built_for_it() -> bool:
    spec = find_spec("torch")
    folders = [] if spec is None else spec.submodule_search_locations or []
    return any(
        next((Path(folder) / "lib").glob(pattern), None) is not None
        for folder in folders
        for pattern in ("*torch_cuda*", "*torch_hip*")
    )


def free_memory(device: str) -> int:
    """Bytes that are free on a device, with those that torch keeps for the next tensor; of `ON_TORCH` the machine's own."""
    if device == ON_TORCH:
        try:
            return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        except (AttributeError, ValueError, OSError):  # not of this system
            return UNKNOWN_MEMORY
    import torch

    there = torch_device(device)
    module = torch.get_device_module(there)
    kept = module.memory_reserved(there) - module.memory_allocated(there)
    return int(module.mem_get_info(there)[0]) + int(kept)


def give_back_memory(device: str) -> None:
    """Let torch give back what it keeps of a device's memory, so that one large tensor finds a place."""
    if device != ON_TORCH:
        import torch

        torch.get_device_module(torch_device(device)).empty_cache()


def is_out_of_memory(error: BaseException) -> bool:
    """Whether it says that a device's memory does not suffice, whichever of torch's libraries found it out."""
    if not isinstance(error, RuntimeError):
        return False
    words = str(error)
    told = "out of memory" in words or "ALLOC_FAILED" in words or "can't allocate memory" in words
    return told or type(error).__name__ == "OutOfMemoryError"


@contextmanager
def memory_limited(device: str, most: int | None) -> Iterator[None]:
    """Within the block torch takes no more than so many bytes of a CUDA device, beside what it has; None: as it was."""
    if most is None or not device.startswith("cuda"):
        yield
        return
    import torch

    there = torch_device(device)
    total = torch.cuda.get_device_properties(there).total_memory
    before = torch.cuda.get_per_process_memory_fraction(there)
    share = (torch.cuda.memory_reserved(there) + most) / total
    torch.cuda.set_per_process_memory_fraction(min(before, share), there)
    try:
        yield
    finally:
        torch.cuda.set_per_process_memory_fraction(before, there)
