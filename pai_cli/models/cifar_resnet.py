"""ResNets for CIFAR: stages of 16, 32 and 64 channels (He et al. 2016, arXiv:1512.03385, section 4.2)."""

from __future__ import annotations

import re
from functools import partial

from torch import nn

from pai_cli.models.base import Architecture, Shapes, initialise, real_modules, single_head
from pai_cli.models.residual import ResidualNetwork, ResidualSpec, guessed_spec

DEPTHS = (8, 20, 32, 44, 56, 110)
WIDTHS = (16, 32, 64)
NAMES = tuple(f"resnet{depth}{shortcuts}" for depth in DEPTHS for shortcuts in ("", "-1x1"))


def named(name: str, classes: int) -> Architecture | None:
    """The ResNet called `name` (`resnet20`, `resnet56-1x1`), or None when it is none of this family's."""
    match = re.fullmatch(r"resnet(\d{1,3})(-1x1)?", name)
    if match is None or int(match[1]) not in DEPTHS:
        return None
    blocks = ((int(match[1]) - 2) // 6,) * 3
    shortcut = "shortcut" if match[2] else None
    return _architecture(ResidualSpec(blocks, WIDTHS, shortcut=shortcut, head="linear", classes=classes))


def guess(shapes: Shapes) -> Architecture | None:
    """The ResNet that `shapes` suggest, to be compared with them exactly."""
    head = single_head(shapes)
    spec = guessed_spec(dict(shapes), head) if head else None
    if spec is None or len(spec.blocks) != 3 or len(set(spec.blocks)) != 1 or spec.bottleneck:
        return None
    if 6 * spec.blocks[0] + 2 not in DEPTHS or spec.stem_kernel != 3:
        return None
    return _architecture(spec)


def _initialise(network: nn.Module) -> None:
    """Kaiming normal throughout, the head as well."""
    initialise(network, mode="fan_in")
    for module in real_modules(network):
        if isinstance(module, nn.Linear):
            nn.init.kaiming_normal_(module.weight)
            nn.init.zeros_(module.bias)


def _architecture(spec: ResidualSpec) -> Architecture:
    depth = 6 * spec.blocks[0] + 2
    shortcuts = "option A shortcuts" if spec.shortcut is None else "1x1 shortcuts"
    width = "" if spec.widths[0] == WIDTHS[0] else f"width {spec.widths[0]}, "
    return Architecture(
        name=f"resnet{depth}" if spec.shortcut is None else f"resnet{depth}-1x1",
        description=f"ResNet-{depth} (CIFAR layout, {shortcuts}, {width}{spec.classes} classes)",
        input_shape=(spec.channels, 32, 32),
        build=partial(ResidualNetwork, spec, _initialise),
        classes=spec.classes,
    )
