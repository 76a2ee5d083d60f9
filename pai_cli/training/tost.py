"""Parts of a network that help it early in training and are gone at the end: soft neurons and ghost skips.

Jaiswal, Ma, Chen, Ding, Wang, "Training your sparse neural network better with any mask", ICML 2022, arXiv:2206.12755.
How they fade is not in the paper's code, which keeps them for good; here both reach the plain network exactly, so that to
take them out changes no output.
"""

from __future__ import annotations

import math

import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812  (the name that everyone uses)

from pai_cli.models.residual import ResidualBlock

FAINT = 1e-4
"""The value that every weight of a ghost skip has at first, as the authors have it."""


class SoftReLU(nn.Module):
    """x * sigmoid(b x): SiLU at sharpness b = 1, never further from ReLU than 0.2785 / b, and ReLU itself at infinity."""

    def __init__(self) -> None:
        super().__init__()
        self.sharpness = 1.0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Elementwise, any shape."""
        if math.isinf(self.sharpness):
            return F.relu(x)
        if self.sharpness == 1.0:
            return F.silu(x)
        return F.silu(x * self.sharpness) / self.sharpness


class SoftNeurons:
    """Every ReLU module of a network exchanged for a `SoftReLU`; the state dict has no trace of either."""

    def __init__(self, model: nn.Module):
        self._soft: dict[nn.Module, SoftReLU] = {}
        self._places: list[tuple[nn.Module, str, nn.Module]] = []
        for parent in list(model.modules()):
            for name, child in list(parent._modules.items()):
                if type(child) is nn.ReLU:
                    self._places.append((parent, name, child))
                    parent._modules[name] = self._soft.setdefault(child, SoftReLU())

    def __len__(self) -> int:
        """How many there are."""
        return len(self._places)

    def fade(self, share: float) -> None:
        """Sharpness 1 / (1 - share): 1 at share 0, infinite at share 1."""
        for soft in self._soft.values():
            soft.sharpness = 1 / (1 - share) if share < 1 else math.inf

    def remove(self) -> None:
        """Put the ReLUs back."""
        for parent, name, relu in self._places:
            parent._modules[name] = relu
        self._places, self._soft = [], {}


class GhostSkips(nn.Module):
    """Two branches beside the first two convolutions of each residual block, scaled by a(t) from 1 down to 0.

    In a block y = act(norm2(conv2 h) + shortcut(x)) with h = act(norm1(conv1 x)), a * norm(J1 x) is added after norm1 and
    a * norm(J2 h) after norm2; J1 and J2 are 1x1 convolutions of the strides of conv1 and conv2. They hang on the network
    by hooks: its own parameters and their names stay what they are, and none is counted as the network's.
    """

    def __init__(self, model: nn.Module):
        super().__init__()
        self.scale = 1.0
        self.branches = nn.ModuleList()
        self._hooks: list[torch.utils.hooks.RemovableHandle] = []
        for block in model.modules():
            if isinstance(block, ResidualBlock):
                for number in (1, 2):
                    self._add(block.get_submodule(f"conv{number}"), block.get_submodule(f"bn{number}"))

    def _add(self, convolution: nn.Module, norm: nn.Module) -> None:
        assert isinstance(convolution, nn.Conv2d)
        sizes, beside = (convolution.in_channels, convolution.out_channels), convolution.weight
        skip = nn.Conv2d(*sizes, 1, stride=(convolution.stride[0], convolution.stride[1]), bias=False)
        nn.init.constant_(skip.weight, FAINT)
        branch = nn.Sequential(skip, nn.BatchNorm2d(sizes[1])).to(beside.device, beside.dtype)
        self.branches.append(branch)
        read: list[torch.Tensor] = []

        def remember(_: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
            read[:] = inputs[:1]

        def add(_: nn.Module, __: tuple[torch.Tensor, ...], output: torch.Tensor) -> torch.Tensor:
            return torch.add(output, branch(read.pop()), alpha=self.scale)

        self._hooks += [convolution.register_forward_pre_hook(remember), norm.register_forward_hook(add)]

    def __len__(self) -> int:
        """How many branches there are."""
        return len(self.branches)

    def fade(self, share: float) -> None:
        """a = 1 - share."""
        self.scale = 1 - share

    def remove(self) -> None:
        """Take the branches off the network."""
        for hook in self._hooks:
            hook.remove()
        self._hooks = []


class Haunted(nn.Module):
    """A network and its ghost skips as one module, so that what trains or counts modules finds both."""

    def __init__(self, model: nn.Module, ghosts: GhostSkips):
        super().__init__()
        self.model, self.ghosts = model, ghosts

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """What the network gives; its hooks call the ghosts."""
        logits: torch.Tensor = self.model(x)
        return logits


class EarlyParts:
    """The parts that a recipe has at work in a network's first steps.

    `whole`: the network with them. `absent`: the names of parts that there is nothing for in this network, and why.
    """

    def __init__(self, model: nn.Module, *, soft_neurons: bool, ghost_skips: bool, steps: int):
        self.model, self.steps = model, steps
        self.soft = SoftNeurons(model) if soft_neurons else None
        self.ghosts = GhostSkips(model) if ghost_skips else None
        absent = {}
        if self.soft is not None and not len(self.soft):
            self.soft, absent["soft_neurons"] = None, "the network has no ReLU module"
        if self.ghosts is not None and not len(self.ghosts):
            self.ghosts, absent["ghost_skips"] = (
                None,
                "no block of the network has a norm after each convolution, as pai's ResNets have",
            )
        self.absent = absent
        self.whole: nn.Module = model if self.ghosts is None else Haunted(model, self.ghosts)

    @property
    def present(self) -> bool:
        """Whether any part is at work still."""
        return self.soft is not None or self.ghosts is not None

    def at(self, step: int) -> bool:
        """Fade as far as is due at `step`, and take out what is due to be gone; whether ghosts went."""
        share = step / self.steps if step < self.steps else 1.0
        haunted = self.ghosts is not None
        for part in (self.soft, self.ghosts):
            if part is not None:
                part.fade(share)
                if share == 1:
                    part.remove()
        if share == 1:
            self.soft, self.ghosts, self.whole = None, None, self.model
        return haunted and self.ghosts is None
