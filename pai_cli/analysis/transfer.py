"""Masks and weights on their way to other processes: by name where files are shared, else their bytes."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pai_cli.analysis.masks import any_wanted, chosen, wanted
from pai_cli.errors import ClusterError, PaiError
from pai_cli.files.checkpoints import Checkpoint, open_checkpoint
from pai_cli.files.masks import Mask
from pai_cli.files.matching import Aliases, Weights
from pai_cli.files.stacks import parted
from pai_cli.spectral.layout import Layout
from pai_cli.spelling import option

if TYPE_CHECKING:
    import numpy as np

    from pai_cli.files.tensors import Span

MOST_WEIGHTS = 2**29  # that travel: 2 GiB in float32


class NamedWeights:
    """A checkpoint that a process opens by its name, when it first needs it. See `masks.Weights`."""

    def __init__(self, path: Path, *, trust: bool, opened: Checkpoint | None = None):
        self.path = path
        self._trust = trust
        if opened is not None:
            self._checkpoint = opened

    def __getstate__(self) -> dict[str, Any]:
        return {"path": self.path, "_trust": self._trust}

    @cached_property
    def _checkpoint(self) -> Checkpoint:
        return open_checkpoint(self.path, trust=self._trust)

    @property
    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        """Shape of every tensor."""
        return self._checkpoint.shapes

    @property
    def aliases(self) -> Aliases:
        """The other names of tensors that have several."""
        return self._checkpoint.aliases

    def finite_array(self, name: str) -> np.ndarray:
        """One tensor; raises what keeps it from being weights."""
        return self._checkpoint.finite_array(name)

    def span_of(self, name: str) -> Span | None:
        """Where the bytes of one tensor stand; None where that is not known."""
        return self._checkpoint.span_of(name)


class SentWeights:
    """A checkpoint's matrices themselves, and of those that cannot be weights why. See `masks.Weights`.

    Raises `ClusterError` for more of them than should go to every worker.
    """

    def __init__(self, checkpoint: Weights, layers: tuple[str, ...]):
        self.path = checkpoint.path
        self.shapes: Mapping[str, tuple[int, ...]] = dict(checkpoint.shapes)
        self.aliases: Aliases = dict(checkpoint.aliases)
        self._arrays: dict[str, np.ndarray | PaiError] = {}
        # Of a tensor with several names, and of one behind a wrapper's prefix, a mask may have another.
        several = {*self.aliases, *(name for name in self.shapes if wanted(name.partition(".")[2], layers))}
        names = [
            name
            for name, shape in self.shapes.items()
            if len(shape) > 1 and (name in several or any_wanted(name, shape, layers))
        ]
        weights = sum(math.prod(self.shapes[name]) for name in names)
        if weights > MOST_WEIGHTS:
            raise ClusterError(
                f"{option('cluster')}: {weights / 1e9:.1f} billion weights of {self.path} would go to every worker; "
                f"leave {option('cluster')} out, or choose layers with {option('layers')}"
            )
        for name in names:
            try:
                self._arrays[name] = checkpoint.finite_array(name)
            except PaiError as error:
                self._arrays[name] = error

    def finite_array(self, name: str) -> np.ndarray:
        """One tensor; raises what keeps it from being weights."""
        found = self._arrays[name]
        if isinstance(found, PaiError):
            raise found
        return found


@dataclass(frozen=True)
class SentMask:
    """A mask's own bits, of the layers that are asked for, and what its file says. See `files.masks.Mask`."""

    path: Path
    metadata: Mapping[str, str]
    names: tuple[str, ...]
    shapes: Mapping[str, tuple[int, ...]]
    remark: str
    layouts: Mapping[str, Layout]
    bits: Mapping[str, bytes]

    @staticmethod
    def of(mask: Mask, layers: tuple[str, ...]) -> SentMask:
        """Everything that measuring these layers needs. Raises what is wrong with the file."""
        import numpy as np

        chosen(parted(mask), layers)
        names = [name for name, shape in mask.shapes.items() if len(shape) > 1 and any_wanted(name, shape, layers)]
        bits = {name: np.packbits(mask.array(name)).tobytes() for name in names}
        layouts = {name: mask.layout(name) for name in mask.names}
        shapes = {name: tuple(shape) for name, shape in mask.shapes.items()}
        return SentMask(mask.path, dict(mask.metadata), tuple(mask.names), shapes, mask.remark, layouts, bits)

    def layout(self, name: str) -> Layout:
        """Groups and transposition of a layer."""
        return self.layouts[name]

    def array(self, name: str) -> np.ndarray:
        """One parameter's mask, boolean."""
        import numpy as np

        shape = self.shapes[name]
        flags = np.unpackbits(np.frombuffer(self.bits[name], dtype=np.uint8), count=math.prod(shape))
        return flags.view(np.bool_).reshape(shape)
