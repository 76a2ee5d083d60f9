"""The processes that train together: one alone, or those that `torchrun` started, on one machine or several."""

from __future__ import annotations

import gc
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import distributed, nn

from pai_cli.errors import DeviceError
from pai_cli.files.messages import one_line
from pai_cli.spelling import option
from pai_cli.training.ranks import number_of, started_by_torchrun


@dataclass(frozen=True)
class Process:
    """This process: its number `rank` of `world`, and the torch device it computes on."""

    rank: int = 0
    world: int = 1
    device: str = "cpu"

    @property
    def first(self) -> bool:
        """Whether this is the one that writes and speaks."""
        return self.rank == 0

    def part(self, total: int) -> slice:
        """Which of `total` consecutive examples are this process's; `total` is a multiple of `world`."""
        size = total // self.world
        return slice(self.rank * size, (self.rank + 1) * size)

    def any(self, here: bool) -> bool:
        """Whether it is true in some process."""
        return bool(self.sum([float(here)])[0]) if self.world > 1 else here

    def sum(self, numbers: list[float]) -> list[float]:
        """The sums over all processes, float64."""
        if self.world == 1:
            return numbers
        total = torch.tensor(numbers, dtype=torch.float64, device=self.device)
        distributed.all_reduce(total)
        return [float(number) for number in total]

    def from_first(self, tensors: list[torch.Tensor]) -> None:
        """Give every process the first one's values of these tensors, in place."""
        if self.world > 1:
            for tensor in tensors:
                distributed.broadcast(tensor, 0)

    def bytes_from_first(self, data: bytes | None) -> bytes | None:
        """Give every process what the first one has."""
        if self.world == 1:
            return data
        size = torch.tensor([-1 if data is None else len(data)], device=self.device)
        self.from_first([size])
        if int(size) < 0:
            return None
        buffer = torch.empty(int(size), dtype=torch.uint8)
        if data is not None:
            buffer = torch.frombuffer(bytearray(data), dtype=torch.uint8)
        buffer = buffer.to(self.device)
        self.from_first([buffer])
        return bytes(buffer.cpu().numpy().tobytes())

    def together(self, model: nn.Module, *, idle: bool) -> nn.Module:
        """The model as it is called in training: its gradients are the means over all processes.

        `idle`: some of its parameters take no part, and no gradient of theirs is to be waited for.
        """
        if self.world == 1:
            return model
        return nn.parallel.DistributedDataParallel(model, find_unused_parameters=idle)


ALONE = Process()
PARTED = ("Connection closed by peer", "Connection reset by peer", "Broken pipe", "remote process exited")
"""What gloo and NCCL say when the other end is gone."""


def parted(error: Exception) -> bool:
    """Whether it says that another process is gone."""
    return any(words in str(error) for words in PARTED)


@contextmanager
def processes(device: str) -> Iterator[Process]:
    """This process, joined with the others where `torchrun` started several: over NCCL on GPUs, over gloo on CPUs.

    `device`: "cpu" or "cuda"; each process on a machine takes a GPU of its own. Raises `DeviceError` when there are fewer
    GPUs than processes, or one of the others stops.
    """
    if not started_by_torchrun():
        yield Process(device=device)
        return
    if device != "cpu":
        local = number_of("LOCAL_RANK", "0")
        if local >= torch.cuda.device_count():
            raise DeviceError(
                f"process {local} of this machine has no GPU: torch sees {torch.cuda.device_count()}; give torchrun "
                f"--nproc-per-node as many, or {option('device', 'cpu')}"
            )
        device = f"cuda:{local}"
        torch.cuda.set_device(device)
    try:
        distributed.init_process_group("gloo" if device == "cpu" else "nccl")
    except (RuntimeError, ValueError) as error:
        raise DeviceError(f"the processes that torchrun started cannot meet ({one_line(error)})") from error
    try:
        yield Process(distributed.get_rank(), distributed.get_world_size(), device)
    except BaseException as error:
        _let_go(error)
        if isinstance(error, RuntimeError) and parted(error):
            raise DeviceError(
                "another of the processes has stopped, and told why if it could; none goes on alone"
            ) from error
        raise
    finally:
        gc.collect()  # wrapped networks hold the group, and taken apart under them its threads may wait for ever
        distributed.destroy_process_group()


def _let_go(error: BaseException | None) -> None:
    """Of all that the functions had which an error came through: a wrapped network among it would outlive the group."""
    while error is not None:
        traceback.clear_frames(error.__traceback__)
        error = error.__context__
