"""Where arrays live while work is done."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING

from pai_cli.errors import DeviceError
from pai_cli.spelling import option

if TYPE_CHECKING:
    import torch


class Device(StrEnum):
    """A choice of device; `auto` takes a GPU when there is one."""

    AUTO = "auto"
    CPU = "cpu"
    CUDA = "cuda"


def resolve(device: Device) -> str:
    """The torch device that `device` stands for on this machine. Raises `DeviceError` for a GPU that is not there."""
    if device is Device.CPU:
        return "cpu"
    import torch

    if torch.cuda.is_available():
        return "cuda"
    if device is Device.CUDA:
        raise DeviceError(
            f"{option('device', 'cuda')}: torch sees no CUDA GPU on this machine; use {option('device', 'cpu')}"
        )
    return "cpu"


def sent(tensor: torch.Tensor, device: str) -> torch.Tensor:
    """The tensor on the device; to a GPU from pinned memory, so that the host does not wait until it is there."""
    if not device.startswith("cuda") or tensor.device.type != "cpu":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)
