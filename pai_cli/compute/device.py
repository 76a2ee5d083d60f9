"""Where arrays live while work is done."""

from __future__ import annotations

from enum import StrEnum

from pai_cli.errors import DeviceError
from pai_cli.spelling import option


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
