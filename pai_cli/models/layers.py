"""Which weights of a network can be pruned, and how they are stored."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from pai_cli.spectral.layout import Layout

CONVOLUTIONS = (
    nn.Conv1d,
    nn.Conv2d,
    nn.Conv3d,
    nn.ConvTranspose1d,
    nn.ConvTranspose2d,
    nn.ConvTranspose3d,
)


@dataclass(frozen=True)
class PrunableLayer:
    """A weight that can be pruned: its state-dict name (`layer1.0.conv1.weight`), shape and layout."""

    name: str
    shape: tuple[int, ...]
    layout: Layout


def prunable_layers(model: nn.Module) -> tuple[PrunableLayer, ...]:
    """Weights of convolutions, transposed convolutions and linear layers, in the order of the state dict.

    A weight that several modules share is listed once, under its first name. A weight that a parametrisation
    computes is no parameter and is not listed.
    """
    layers: list[PrunableLayer] = []
    seen: set[int] = set()
    for prefix, module in model.named_modules():
        if not isinstance(module, (nn.Linear, *CONVOLUTIONS)):
            continue
        weight = module._parameters.get("weight")
        if weight is None or id(weight) in seen:
            continue
        seen.add(id(weight))
        name = f"{prefix}.weight" if prefix else "weight"
        layers.append(PrunableLayer(name, tuple(weight.shape), _layout(module)))
    return tuple(layers)


def _layout(module: nn.Module) -> Layout:
    if isinstance(module, nn.Linear):
        return Layout()
    assert isinstance(module, CONVOLUTIONS)
    return Layout(groups=module.groups, transposed=module.transposed)
