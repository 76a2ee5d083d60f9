"""The copies that methods compute on, so that the network itself stays as it is."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
from torch import nn

from pai_cli.errors import DeviceError, PaiError, ScoreError
from pai_cli.files.messages import one_line
from pai_cli.models.device_masks import DeviceMasks
from pai_cli.random import seed_torch
from pai_cli.spelling import option

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


def copied(model: nn.Module) -> nn.Module:
    """A deep copy, also of modules that compute a weight before each pass and keep it, as `spectral_norm` has them."""
    return copy.deepcopy(model, {id(value): value.detach().clone() for value in _computed(model)})


def copyable(model: nn.Module) -> nn.Module:
    """The network, or where it keeps computed weights, which PyTorch does not copy, a copy that keeps them as plain ones."""
    return copied(model) if any(True for _ in _computed(model)) else model


def _computed(model: nn.Module) -> Iterator[torch.Tensor]:
    for module in model.modules():
        yield from (one for one in vars(module).values() if isinstance(one, torch.Tensor) and not one.is_leaf)


def copied_to(
    model: nn.Module, device: str, failure: Callable[[str], PaiError], dtype: torch.dtype | None = None
) -> nn.Module:
    """A copy on a device. Raises the `failure` that is made of why it cannot be copied, or `DeviceError`."""
    try:
        twin = copied(model)
    except Exception as error:
        raise failure(one_line(error)) from error
    try:
        return twin.to(device=device, dtype=dtype)
    except (RuntimeError, AssertionError, TypeError) as error:
        raise DeviceError(
            f"device {device}: cannot be used ({one_line(error)}); give {option('device', 'cpu')}"
        ) from error


def working_copy(model: nn.Module, device: str, dtype: torch.dtype, method: str) -> nn.Module:
    """A copy of the network on the device, in `dtype`, in evaluation mode, no parameter with a gradient.

    Raises `ScoreError` when the network cannot be copied, `DeviceError` when the device is not there; both name
    `method`.
    """
    twin = copied_to(
        model,
        device,
        lambda why: ScoreError(f"{method}: the network cannot be copied ({why}); give another {option('method')}"),
        dtype,
    )
    for parameter in twin.parameters():
        parameter.grad = None
    return twin.eval().requires_grad_(False)


def with_gradients(model: nn.Module, names: Sequence[str]) -> dict[str, nn.Parameter]:
    """The parameters of these names, which have gradients from now on."""
    parameters = dict(model.named_parameters(remove_duplicate=False))
    for name in names:
        parameters[name].requires_grad_(True)
    return {name: parameters[name] for name in names}


def remove(weights: Mapping[str, torch.Tensor], masks: Mapping[str, NDArray[np.bool_]] | None) -> None:
    """Set the weights that are false in `masks` to zero."""
    if isinstance(masks, DeviceMasks):
        masks.remove_from(weights)
        return
    for name, mask in (masks or {}).items():
        weights[name].detach().masked_fill_(torch.from_numpy(~mask).to(weights[name].device), 0.0)


ONE_TYPE = "its code makes tensors of float32 whatever its input is: let them be of the input's type (dtype=x.dtype)"
"""What to tell of a network that fails in float64 alone."""


def takes_float32_alone(model: nn.Module, inputs: torch.Tensor) -> bool:
    """Whether a network takes these inputs in float32 and not in float64, as one does whose code makes tensors of one."""
    runs = []
    for dtype in (torch.float32, torch.float64):
        try:
            with torch.no_grad():
                copied(model).to(dtype)(inputs.detach().to(dtype).nan_to_num())
            runs.append(True)
        except Exception:
            runs.append(False)
    return runs == [True, False]


def failed_on(inputs: torch.Tensor, error: Exception) -> str:
    """What to say where a network raises this of a batch."""
    return f"the network failed on a batch of shape {','.join(map(str, inputs.shape))} ({one_line(error)})"


def remedy_for(error: Exception, usual: str) -> str:
    """What helps a network that raises this of the one input that it is given; `usual`, where nothing else is known."""
    told = str(error)
    if isinstance(error, TypeError) and re.search(r"missing \d+ required (positional|keyword)", told):
        return "a network is given one input: wrap it in a module whose forward takes one and makes the others of it"
    if (
        "'indices' to have one of the following scalar types" in told
    ):  # what an embedding says of numbers that are floats
        return "it looks whole numbers up, and inputs are floats here: take a method that needs no input, as magnitude does"
    return usual


@contextmanager
def repeatable(device: str) -> Iterator[None]:
    """On a GPU, only cuDNN kernels that give the same bits every time; elsewhere nothing."""
    if not device.startswith("cuda"):
        yield
        return
    with torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False):
        yield


@contextmanager
def seeded(device: str, seed: int) -> Iterator[None]:
    """Random numbers that torch draws inside depend on `seed` alone; outside, its generators stay as they were."""
    gpus = [torch.cuda.current_device()] if device.startswith("cuda") else []
    with torch.random.fork_rng(devices=gpus):
        seed_torch(seed, device)
        yield


@contextmanager
def on_its_own(device: str) -> Iterator[None]:
    """Inference mode and autocast, in which the caller may be, change nothing of what is computed inside."""
    kind = "cuda" if device.startswith("cuda") and torch.cuda.is_available() else "cpu"
    with torch.inference_mode(False), torch.autocast(kind, enabled=False):
        yield


@contextmanager
def one_torch_thread() -> Iterator[None]:
    """Hold torch to one thread: sums in another order round otherwise, and as many threads are not had everywhere."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def one_tensor(outputs: object, method: str) -> torch.Tensor:
    """What a network returned, where it is one floating tensor. Raises `ScoreError`, which names `method`, elsewhere."""
    if isinstance(outputs, torch.Tensor) and outputs.is_floating_point():
        return outputs
    raise ScoreError(
        f"{method}: the network returns {kind_of(outputs)}, and one floating tensor is needed; "
        f"give a {option('model')} factory whose network returns the logits alone"
    )


def kind_of(value: object) -> str:
    """What a network returned, in words."""
    return f"a tensor of {value.dtype}" if isinstance(value, torch.Tensor) else f"a {type(value).__name__}"
