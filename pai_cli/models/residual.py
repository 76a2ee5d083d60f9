"""One residual network for every kind here, told apart by stem, block, widths, shortcuts and names.

He et al. 2016, Deep residual learning for image recognition, arXiv:1512.03385. Activations are modules, each
its own, so that they can be exchanged or hooked; they hold no parameters and leave the state dict's names
alone.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812  (the name that everyone uses)


@dataclass(frozen=True)
class ResidualSpec:
    """What determines a residual network.

    `blocks` and `widths` have one entry a stage; a bottleneck's output is 4 times its width. `stem_kernel` is
    7 (stride 2 and max-pool) or 3 (stride 1). `shortcut` is the name of the 1x1 projections, or None for
    shortcuts without parameters (option A); `head` is the name of the last layer.
    """

    blocks: tuple[int, ...]
    widths: tuple[int, ...]
    bottleneck: bool = False
    stem_kernel: int = 3
    shortcut: str | None = "downsample"
    head: str = "fc"
    classes: int = 10
    channels: int = 3

    @property
    def expansion(self) -> int:
        """Output channels of a block per unit of width."""
        return 4 if self.bottleneck else 1


class PaddedShortcut(nn.Module):
    """Option A of He et al. 2016: every `stride`-th pixel, with zeros for the new channels on both sides.

    The paper does not say where the zeros stand; half on each side is what published CIFAR checkpoints use.
    """

    def __init__(self, inputs: int, outputs: int, stride: int):
        super().__init__()
        self.stride = stride
        self.before = (outputs - inputs) // 2
        self.after = outputs - inputs - self.before

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(batch, inputs, h, w) -> (batch, outputs, ceil(h/stride), ceil(w/stride))."""
        return F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, self.before, self.after))


def _convolution(inputs: int, outputs: int, kernel: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, kernel, stride=stride, padding=kernel // 2, bias=False)


class ResidualBlock(nn.Module):
    """A residual block: its branch, plus its shortcut (None is the identity), then ReLU."""

    def __init__(self, spec: ResidualSpec, inputs: int, width: int, stride: int):
        super().__init__()
        outputs = width * spec.expansion
        kernels = (1, 3, 1) if spec.bottleneck else (3, 3)
        strides = (1, stride, 1) if spec.bottleneck else (stride, 1)
        sizes = (inputs, *[width] * (len(kernels) - 1), outputs)
        self.depth = len(kernels)
        for i in range(self.depth):
            self.add_module(f"conv{i + 1}", _convolution(sizes[i], sizes[i + 1], kernels[i], strides[i]))
            self.add_module(f"bn{i + 1}", nn.BatchNorm2d(sizes[i + 1]))
            self.add_module(f"relu{i + 1}", nn.ReLU())
        self.shortcut_name = self._add_shortcut(spec, inputs, outputs, stride)

    def _add_shortcut(self, spec: ResidualSpec, inputs: int, outputs: int, stride: int) -> str | None:
        if stride == 1 and inputs == outputs:
            return None
        name = spec.shortcut or "shortcut"
        if spec.shortcut is None:
            self.add_module(name, PaddedShortcut(inputs, outputs, stride))
        else:
            projection = _convolution(inputs, outputs, 1, stride)
            self.add_module(name, nn.Sequential(projection, nn.BatchNorm2d(outputs)))
        return name

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(batch, inputs, h, w) -> (batch, outputs, h/stride, w/stride)."""
        y = x
        for i in range(1, self.depth + 1):
            if i > 1:
                y = self.get_submodule(f"relu{i - 1}")(y)
            y = self.get_submodule(f"bn{i}")(self.get_submodule(f"conv{i}")(y))
        skip = x if self.shortcut_name is None else self.get_submodule(self.shortcut_name)(x)
        out: torch.Tensor = self.get_submodule(f"relu{self.depth}")(y + skip)
        return out


class ResidualNetwork(nn.Module):
    """Stem, stages `layer1`, `layer2`, ..., global average, linear head."""

    def __init__(self, spec: ResidualSpec, initialise: Callable[[nn.Module], None]):
        super().__init__()
        large = spec.stem_kernel == 7
        self.spec = spec
        self.conv1 = _convolution(spec.channels, spec.widths[0], spec.stem_kernel, 2 if large else 1)
        self.bn1 = nn.BatchNorm2d(spec.widths[0])
        self.relu = nn.ReLU()
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1) if large else nn.Identity()
        inputs = spec.widths[0]
        for stage, (count, width) in enumerate(zip(spec.blocks, spec.widths, strict=True)):
            blocks = []
            for block in range(count):
                blocks.append(ResidualBlock(spec, inputs, width, 2 if stage > 0 and block == 0 else 1))
                inputs = width * spec.expansion
            self.add_module(f"layer{stage + 1}", nn.Sequential(*blocks))
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.add_module(spec.head, nn.Linear(inputs, spec.classes))
        initialise(self)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(batch, channels, h, w) -> (batch, classes)."""
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        for stage in range(len(self.spec.blocks)):
            x = self.get_submodule(f"layer{stage + 1}")(x)
        logits: torch.Tensor = self.get_submodule(self.spec.head)(torch.flatten(self.avgpool(x), 1))
        return logits


def guessed_spec(shapes: dict[str, tuple[int, ...]], head: tuple[str, int]) -> ResidualSpec | None:
    """The spec that `shapes` suggest, to be compared with them exactly; None for another kind of network."""
    stem, first = shapes.get("conv1.weight", ()), shapes.get("layer1.0.conv1.weight", ())
    if len(stem) != 4 or len(first) != 4 or stem[2] not in (3, 7) or stem[2] != stem[3]:
        return None
    blocks: list[int] = []
    while any(name.startswith(f"layer{len(blocks) + 1}.0.") for name in shapes):
        stage = f"layer{len(blocks) + 1}."
        blocks.append(len({name.split(".")[1] for name in shapes if name.startswith(stage)}))
    parts = {name.split(".")[2] for name in shapes if name.count(".") > 2}
    return ResidualSpec(
        blocks=tuple(blocks),
        widths=tuple(first[0] * 2**i for i in range(len(blocks))),
        bottleneck="layer1.0.conv3.weight" in shapes,
        stem_kernel=stem[2],
        shortcut=next((name for name in ("downsample", "shortcut") if name in parts), None),
        head=head[0],
        classes=head[1],
        channels=stem[1],
    )
