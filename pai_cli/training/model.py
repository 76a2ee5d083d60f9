"""The copy of a network that is trained, its loss, and how good it is."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from torch import fx, nn

from pai_cli.data.batches import check_classes
from pai_cli.errors import RecipeError, TrainingError
from pai_cli.models.copies import copied_to, failed_on, kind_of, remedy_for
from pai_cli.models.network import Network
from pai_cli.spelling import option
from pai_cli.training.examples import Examples, Pair
from pai_cli.training.process import ALONE, Process, parted


def trained_copy(network: Network, device: str) -> nn.Module:
    """A copy of the network on the device, in its own floating type, in evaluation mode, every parameter to be trained.

    Raises `TrainingError` for what cannot be copied or trained, `DeviceError` for a device that is not there.
    """
    if isinstance(network.model, fx.GraphModule):
        raise TrainingError(
            f"{network.description}: is fixed as it was exported and cannot be trained; give {option('model')} and a "
            "state dict"
        )
    twin = copied_to(
        network.model,
        device,
        lambda why: TrainingError(f"{network.description}: cannot be copied ({why}); give another {option('model')}"),
    )
    return twin.requires_grad_(True).eval()


DRAWING = (
    nn.modules.dropout._DropoutNd,
    nn.RReLU,
    nn.FractionalMaxPool2d,
    nn.FractionalMaxPool3d,
    nn.MultiheadAttention,
    nn.RNNBase,
)
"""PyTorch's modules that draw random numbers in a pass of training, or may."""


def order_channels_last(model: nn.Module) -> None:
    """Put convolutions' weights into the memory order that matrix units take, in which their inputs then follow."""
    for parameter in model.parameters():
        if parameter.dim() == 4:
            parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)


def may_draw(model: nn.Module) -> bool:
    """Whether a pass in training may draw random numbers: not where every part is PyTorch's or pai's, and draws none."""
    return any(
        isinstance(one, DRAWING)
        or not type(one).__module__.startswith(("torch.nn.modules.", "pai_cli.models."))
        or "forward" in vars(one)
        or bool(one._forward_pre_hooks or one._forward_hooks)
        for one in model.modules()
    )


def dtype_of(model: nn.Module) -> torch.dtype:
    """The floating type of the parameters."""
    return next(parameter.dtype for parameter in model.parameters() if parameter.is_floating_point())


def device_of(model: nn.Module) -> torch.device:
    """Where the parameters are."""
    return next(model.parameters()).device


def logits_of(model: nn.Module, inputs: torch.Tensor, *, amp: bool = False) -> torch.Tensor:
    """(N, ...) -> (N, classes), in float32 at least. Raises `TrainingError` when the model fails or gives anything else."""
    with torch.autocast(inputs.device.type, torch.bfloat16, enabled=amp):
        try:
            outputs = model(inputs)
        except (ValueError, TypeError, NotImplementedError, IndexError, AttributeError) as error:
            raise _failed(inputs, error) from error
        except RuntimeError as error:
            if "memory" in str(error) or parted(error):
                raise
            raise _failed(inputs, error) from error
    if not (isinstance(outputs, torch.Tensor) and outputs.is_floating_point() and outputs.dim() == 2):
        given = f"shape {tuple(outputs.shape)}" if isinstance(outputs, torch.Tensor) else kind_of(outputs)
        raise TrainingError(
            f"the network returns {given}, and logits of shape ({len(inputs)}, classes) are needed; give a "
            f"{option('model')} factory whose network returns the logits alone"
        )
    return outputs.float() if outputs.dtype in (torch.bfloat16, torch.float16) else outputs


REMEDIES = {
    "finished reduction": "several processes train only networks of which every part is used at each step; train in one",
    "more than 1 value per channel": f"batch norm needs more than one example; give a larger {option('batch_size')}",
}
"""What helps, by what torch says."""


def _failed(inputs: torch.Tensor, error: Exception) -> TrainingError:
    found = (remedy for told, remedy in REMEDIES.items() if told in str(error))
    remedy = next(found, remedy_for(error, f"give the shape of one input with {option('input_shape')}"))
    return TrainingError(f"{failed_on(inputs, error)}; {remedy}")


def check_outputs(model: nn.Module, examples: Examples, network: str) -> None:
    """Raise `DataError` unless the model, in evaluation mode, gives one number a class; `network`: what it is called.

    Raises what `logits_of` raises.
    """
    inputs, _ = examples.batch(np.zeros(1, dtype=np.int64))
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        outputs = logits_of(model, inputs.to(dtype_of(model)))
    check_classes(examples.dataset, outputs.shape[1], network)


def has_idle(model: nn.Module, inputs: torch.Tensor) -> bool:
    """Whether some parameter has no part in what the model gives for these inputs, in evaluation mode."""
    training = model.training
    with torch.enable_grad(), torch.random.fork_rng(devices=[]):
        logits = logits_of(model.eval(), inputs)
        found = torch.autograd.grad(logits.sum(), list(model.parameters()), allow_unused=True)
    model.train(training)
    return any(one is None for one in found)


def cross_entropy(logits: torch.Tensor, labels: torch.Tensor, mass: float = 0.0) -> torch.Tensor:
    """The mean cross-entropy against targets of 1 - `mass` at the true class, `mass` shared equally by the wrong ones.

    PyTorch's `label_smoothing` shares its mass by all classes, the true one as well: hence the factor.
    """
    classes = logits.shape[1]
    spread = mass * classes / (classes - 1) if classes > 1 else 0.0
    return nn.functional.cross_entropy(logits, labels, label_smoothing=spread)


@dataclass(frozen=True)
class Score:
    """How good a network is on a part of the data: `correct` of `count`, and its mean cross-entropy `loss`."""

    correct: int
    count: int
    loss: float

    @property
    def accuracy(self) -> float:
        """The share that is right, 0 to 1."""
        return self.correct / self.count

    def interval(self) -> tuple[float, float]:
        """Wilson's 95% interval of the accuracy, for other examples of the same kind (Wilson 1927)."""
        from scipy.stats import binomtest

        found = binomtest(self.correct, self.count).proportion_ci(0.95, method="wilson")
        return float(found.low), float(found.high)


def evaluate(model: nn.Module, batches: Iterable[Pair], *, amp: bool = False, process: Process = ALONE) -> Score:
    """The score of the model in evaluation mode on all processes' batches together; its mode is put back."""
    modes = {module: module.training for module in model.modules()}
    model.eval()
    dtype = dtype_of(model)
    totals, count = torch.zeros(2, dtype=torch.float64, device=device_of(model)), 0
    try:
        with torch.no_grad():
            for inputs, labels in batches:
                logits = logits_of(model, inputs.to(dtype), amp=amp)
                totals[0].add_((logits.argmax(1) == labels).sum())
                totals[1].add_(nn.functional.cross_entropy(logits, labels, reduction="sum"))
                count += len(labels)
    finally:
        for module, mode in modes.items():
            module.training = mode
    correct, loss = totals.tolist()  # the only wait for the device
    correct, everywhere, loss = process.sum([correct, float(count), loss])
    return Score(int(correct), int(everywhere), loss / everywhere)


def check_smoothing(mass: float, classes: int) -> None:
    """Raise `RecipeError` where a wrong class would have a larger share of the label than the true one."""
    if classes > 1 and mass > (most := (classes - 1) / classes):
        raise RecipeError(
            f"{option('label_smoothing', f'{mass:g}')}: of {classes} classes, a wrong one would count more than the "
            f"true; give at most {math.floor(1000 * most) / 1000:g}"
        )


def check_amp(device: str) -> None:
    """Raise `RecipeError` where mixed precision gains nothing."""
    if not device.startswith("cuda"):
        raise RecipeError(f"{option('amp')}: mixed precision is for GPUs, and this runs on the CPU; leave it out")
    if not torch.cuda.is_bf16_supported(including_emulation=False):
        raise RecipeError(f"{option('amp')}: this GPU has no bfloat16 (compute capability 8.0 has); leave it out")
