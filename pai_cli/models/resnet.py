"""ResNets in torchvision's layout: four stages, with the 7x7 stem of ImageNet or the 3x3 stem of CIFAR."""

from __future__ import annotations

import re
from functools import partial

from pai_cli.models.base import Architecture, Shapes, initialise, single_head
from pai_cli.models.residual import ResidualNetwork, ResidualSpec, guessed_spec

BLOCKS = {
    18: ((2, 2, 2, 2), False),
    34: ((3, 4, 6, 3), False),
    50: ((3, 4, 6, 3), True),
    101: ((3, 4, 23, 3), True),
    152: ((3, 8, 36, 3), True),
}
WIDTHS = (64, 128, 256, 512)
NAMES = tuple(f"resnet{depth}{stem}" for depth in BLOCKS for stem in ("", "-3x3"))


def named(name: str, classes: int) -> Architecture | None:
    """The ResNet called `name` (`resnet18`, `resnet50-3x3`), or None when it is none of this family's."""
    match = re.fullmatch(r"resnet(\d{2,3})(-3x3)?", name)
    if match is None or int(match[1]) not in BLOCKS:
        return None
    blocks, bottleneck = BLOCKS[int(match[1])]
    return _architecture(ResidualSpec(blocks, WIDTHS, bottleneck, 3 if match[2] else 7, classes=classes))


def guess(shapes: Shapes) -> Architecture | None:
    """The ResNet that `shapes` suggest, to be compared with them exactly."""
    head = single_head(shapes)
    spec = guessed_spec(dict(shapes), head) if head else None
    if spec is None or (spec.blocks, spec.bottleneck) not in BLOCKS.values() or spec.shortcut is None:
        return None
    return _architecture(spec)


def _architecture(spec: ResidualSpec) -> Architecture:
    depth = next(depth for depth, kind in BLOCKS.items() if kind == (spec.blocks, spec.bottleneck))
    small = spec.stem_kernel == 3
    side = 32 if small else 224
    width = "" if spec.widths[0] == WIDTHS[0] else f"width {spec.widths[0]}, "
    return Architecture(
        name=f"resnet{depth}-3x3" if small else f"resnet{depth}",
        description=f"ResNet-{depth} (torchvision layout, {spec.stem_kernel}x{spec.stem_kernel} stem, "
        f"{width}{spec.classes} classes)",
        input_shape=(spec.channels, side, side),
        build=partial(ResidualNetwork, spec, initialise),
        classes=spec.classes,
    )
