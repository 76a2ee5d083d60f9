"""Vision transformers (Dosovitskiy et al. 2021, arXiv:2010.11929; the small ones: Touvron et al. 2021, arXiv:2012.12877).

Names as in timm/models/vision_transformer.py (`vit_base_patch16_224`).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import partial
from math import isqrt

import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812  (the name that everyone uses)

from pai_cli.models.base import Architecture, Shapes, real_modules

WIDTHS = {"tiny": 192, "small": 384, "base": 768}
DEPTH, HEAD_WIDTH = 12, 64
SIDES, PATCHES = (224, 384), (8, 16, 32)
NAMES = tuple(f"vit-{size}-patch16-224" for size in WIDTHS)


@dataclass(frozen=True)
class ViTSpec:
    """What determines a ViT: `side` of the square image, `patch` of its pieces, `width` of a token."""

    width: int
    patch: int = 16
    side: int = 224
    classes: int = 1000
    channels: int = 3

    @property
    def tokens(self) -> int:
        """Patches of an image, and the class token."""
        return (self.side // self.patch) ** 2 + 1


class _Patches(nn.Module):
    """The image cut into patches, each a token."""

    def __init__(self, spec: ViTSpec):
        super().__init__()
        self.proj = nn.Conv2d(spec.channels, spec.width, spec.patch, stride=spec.patch)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(batch, channels, side, side) -> (batch, patches, width)."""
        tokens: torch.Tensor = self.proj(x).flatten(2).transpose(1, 2)
        return tokens


class _Attention(nn.Module):
    """Multi-head self-attention; queries, keys and values come from one matrix."""

    def __init__(self, width: int):
        super().__init__()
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(batch, tokens, width) -> (batch, tokens, width)."""
        batch, tokens, width = x.shape
        heads = self.qkv(x).reshape(batch, tokens, 3, width // HEAD_WIDTH, HEAD_WIDTH).permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(*heads.unbind(0))
        out: torch.Tensor = self.proj(mixed.transpose(1, 2).reshape(batch, tokens, width))
        return out


class _Perceptron(nn.Module):
    def __init__(self, width: int):
        super().__init__()
        self.fc1, self.act, self.fc2 = nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(batch, tokens, width) -> (batch, tokens, width)."""
        out: torch.Tensor = self.fc2(self.act(self.fc1(x)))
        return out


class _Block(nn.Module):
    """Norm and attention, norm and perceptron, each beside an identity."""

    def __init__(self, width: int):
        super().__init__()
        self.norm1, self.attn = nn.LayerNorm(width, eps=1e-6), _Attention(width)
        self.norm2, self.mlp = nn.LayerNorm(width, eps=1e-6), _Perceptron(width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(batch, tokens, width) -> (batch, tokens, width)."""
        x = x + self.attn(self.norm1(x))
        out: torch.Tensor = x + self.mlp(self.norm2(x))
        return out


class ViT(nn.Module):
    """Patches, a class token, positions, 12 blocks, norm; the class token's linear head."""

    def __init__(self, spec: ViTSpec):
        super().__init__()
        self.cls_token = nn.Parameter(torch.zeros(1, 1, spec.width))
        self.pos_embed = nn.Parameter(torch.zeros(1, spec.tokens, spec.width))
        self.patch_embed = _Patches(spec)
        self.blocks = nn.Sequential(*(_Block(spec.width) for _ in range(DEPTH)))
        self.norm = nn.LayerNorm(spec.width, eps=1e-6)
        self.head = nn.Linear(spec.width, spec.classes)
        self._initialise()

    def _initialise(self) -> None:
        """Truncated normals of 0.02; the patches as PyTorch initialises convolutions."""
        modules = list(real_modules(self))
        for module in modules:
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)
        if modules:
            nn.init.trunc_normal_(self.pos_embed, std=0.02)
            nn.init.normal_(self.cls_token, std=1e-6)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(batch, channels, side, side) -> (batch, classes)."""
        x = self.patch_embed(x)
        x = torch.cat([self.cls_token.expand(len(x), -1, -1), x], 1) + self.pos_embed
        logits: torch.Tensor = self.head(self.norm(self.blocks(x))[:, 0])
        return logits


def named(name: str, classes: int) -> Architecture | None:
    """The ViT called `name` (`vit-base-patch16-224`, `vit-tiny-patch16`), or None when it is none of this family's."""
    match = re.fullmatch(r"vit-(tiny|small|base)-patch(8|16|32)(?:-(224|384))?", name)
    if match is None:
        return None
    return _architecture(ViTSpec(WIDTHS[match[1]], int(match[2]), int(match[3] or 224), classes))


def guess(shapes: Shapes) -> Architecture | None:
    """The ViT that `shapes` suggest, to be compared with them exactly; its image's side is told by the positions."""
    patches, head = shapes.get("patch_embed.proj.weight", ()), shapes.get("head.weight", ())
    positions = shapes.get("pos_embed", ())
    if len(patches) != 4 or len(head) != 2 or len(positions) != 3 or patches[0] not in WIDTHS.values():
        return None
    return _architecture(
        ViTSpec(patches[0], patches[2], isqrt(max(0, positions[1] - 1)) * patches[2], head[0], patches[1])
    )


def _architecture(spec: ViTSpec) -> Architecture:
    size = next(size for size, width in WIDTHS.items() if width == spec.width)
    return Architecture(
        name=f"vit-{size}-patch{spec.patch}-{spec.side}",
        description=f"ViT {size}/{spec.patch} (timm layout, {spec.side}x{spec.side} inputs, {spec.classes} classes)",
        input_shape=(spec.channels, spec.side, spec.side),
        build=partial(ViT, spec),
        classes=spec.classes,
    )
