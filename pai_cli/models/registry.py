"""The architectures that `model` and `pai init` know by name."""

from __future__ import annotations

import difflib
from typing import Protocol

from pai_cli.errors import UnknownModelNameError
from pai_cli.models import cifar_resnet, densenet, lenet, mlp, mobilenet, resnet, vgg, vit, wide_resnet
from pai_cli.models.base import Architecture, Shapes


class Family(Protocol):
    """A module of this folder that describes a family of architectures."""

    @property
    def NAMES(self) -> tuple[str, ...]:
        """What `model` calls them."""

    def named(self, name: str, classes: int) -> Architecture | None:
        """The architecture with this exact name."""

    def guess(self, shapes: Shapes) -> Architecture | None:
        """The one that names and shapes suggest, not yet compared with them."""


FAMILIES: tuple[Family, ...] = (
    resnet,
    cifar_resnet,
    wide_resnet,
    vgg,
    mobilenet,
    densenet,
    vit,
    lenet,
    mlp,
)


def known_names() -> list[str]:
    """Every name that `architecture` takes; `mlp-A-B-...-Z` stands for any sizes."""
    return [name for family in FAMILIES for name in family.NAMES]


def architecture(name: str, classes: int = 10) -> Architecture:
    """The architecture called `name`, with `classes` outputs; case does not matter, nor `_` for `-`.

    Raises `UnknownModelNameError`, which lists the names.
    """
    spelled = name.strip().lower().replace("_", "-")
    for family in FAMILIES:
        found = family.named(spelled, classes)
        if found is not None:
            return found
    close = difflib.get_close_matches(spelled, known_names(), n=1)
    hint = f" (did you mean {close[0]!r}?)" if close else ""
    raise UnknownModelNameError(f"unknown model {name!r}{hint}; known are {', '.join(known_names())}")
