"""What an architecture is, and what the families of architectures share."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import nn

from pai_cli.errors import UnknownModelError
from pai_cli.printable import reason_of
from pai_cli.spelling import option

Shapes = Mapping[str, tuple[int, ...]]

SINGLE_HEADS = ("fc", "linear", "classifier")
"""Names that the last linear layer has in the code bases people take networks from."""

_TOO_LARGE = ("allocate memory", "enough memory", "out of memory", "overflow")
"""What torch says, by a `RuntimeError` or `TypeError`, of a size that no memory holds, or that is no size."""


@dataclass(frozen=True)
class Architecture:
    """A network that can be built; `build()` gives it initialised.

    `name` is what `model` takes, `description` is for a person, `input_shape` is of one sample (channels,
    height, width), `classes` is the number of outputs.
    """

    name: str
    description: str
    input_shape: tuple[int, ...]
    build: Callable[[], nn.Module]
    classes: int


def single_head(shapes: Shapes) -> tuple[str, int] | None:
    """Name and class count of a head that is one linear layer, or None."""
    for name in SINGLE_HEADS:
        shape = shapes.get(f"{name}.weight", ())
        if len(shape) == 2:
            return name, shape[0]
    return None


def real_modules(network: nn.Module) -> Iterator[nn.Module]:
    """The modules whose values can be drawn: none of a network on the meta device.

    To draw nothing there, torch would import its compiler, which takes 1.4 s.
    """
    if not any(parameter.is_meta for parameter in network.parameters()):
        yield from network.modules()


def initialise(network: nn.Module, mode: str = "fan_out", linear: float | None = None) -> None:
    """Kaiming-normal convolutions, batch norms at 1 and 0 (He et al. 2015, arXiv:1502.01852).

    `linear`: the standard deviation of linear weights, whose biases are 0 then; by default they stay as they are.
    """
    for module in real_modules(network):
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode=mode, nonlinearity="relu")  # type: ignore[arg-type]
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.BatchNorm2d):
            nn.init.ones_(module.weight)
            nn.init.zeros_(module.bias)
        elif isinstance(module, nn.Linear) and linear is not None:
            nn.init.normal_(module.weight, 0.0, linear)
            nn.init.zeros_(module.bias)


def add_at(root: nn.Module, path: str, module: nn.Module) -> None:
    """Put `module` at a dotted path (`blocks.0.conv`), with empty modules on the way where there are none."""
    *folders, last = path.split(".")
    place = root
    for folder in folders:
        if folder not in place._modules:
            place.add_module(folder, nn.Module())
        place = place.get_submodule(folder)
    place.add_module(last, module)


def on_meta(build: Callable[[], nn.Module]) -> nn.Module:
    """The network without memory for its values: quick, whatever its size, and no random number is drawn."""
    with torch.device("meta"):
        return build()


def with_memory(network: nn.Module) -> nn.Module:
    """A network of `on_meta` on the CPU, its values yet to be loaded; any other as it is."""
    if not any(parameter.is_meta for parameter in network.parameters()):
        return network
    # Not `to_empty`: for that torch imports sympy, which takes half a second.
    empty = {name: torch.empty(tensor.shape, dtype=tensor.dtype) for name, tensor in network.state_dict().items()}
    network.load_state_dict(empty, assign=True)
    for name, buffer in network.named_buffers():
        if name.endswith("num_batches_tracked"):  # the one thing a checkpoint may lack
            buffer.zero_()
    return network


def unmade(what: str, error: Exception) -> UnknownModelError:
    """What to raise where a network cannot be made: that it is too large, or the reason."""
    text = str(error).lower()
    if isinstance(error, MemoryError | OverflowError) or any(said in text for said in _TOO_LARGE):
        return UnknownModelError(f"{what} does not fit in memory; choose a smaller network")
    return UnknownModelError(f"{what} cannot be made ({reason_of(error)}); give another {option('model')}")


def shapes_of(build: Callable[[], nn.Module]) -> dict[str, tuple[int, ...]]:
    """State-dict names and shapes of a network, without memory for its weights."""
    return {name: tuple(tensor.shape) for name, tensor in on_meta(build).state_dict().items()}
