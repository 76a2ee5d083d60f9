"""Masks that stand in no file: arrays of a program, checked as they come in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pai_cli.errors import MaskError
from pai_cli.files.masks import check_layout
from pai_cli.spectral.layout import PLAIN, Layout

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True, eq=False)
class GivenMask:
    """A mask in memory. `path`: what messages call it. See `files.masks.Mask`."""

    path: Path
    names: tuple[str, ...]
    arrays: Mapping[str, np.ndarray]
    layouts: Mapping[str, Layout] = field(default_factory=dict)
    metadata: Mapping[str, str] = field(default_factory=dict)
    told: str = ""

    @staticmethod
    def of(
        path: Path, arrays: Mapping[str, Any], layouts: Mapping[str, Layout], metadata: Mapping[str, str]
    ) -> GivenMask:
        """Arrays or tensors of 0 and 1 by the names of the parameters that they mask.

        Raises `MaskError` for none of them and for names that are no text, `ArrayError` for what is no mask, and
        `MaskMismatchError` for groups that do not divide a layer.
        """
        from pai_cli.spectral.validation import zero_one_array

        if not arrays:
            raise MaskError(f"{path}: holds no array, so it is no mask")
        wrong = next((name for name in arrays if not isinstance(name, str)), None)
        if wrong is not None:
            raise MaskError(f"{path}: {wrong!r} is no name of a parameter; a mask is a mapping of names to arrays")
        checked = {name: zero_one_array(array, f"{path}: {name!r}") for name, array in arrays.items()}
        for name, array in checked.items():
            check_layout(path, name, array.shape, layouts.get(name, PLAIN))
        return GivenMask(path, tuple(checked), checked, dict(layouts), dict(metadata))

    @property
    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        """Shape of every masked parameter."""
        return {name: array.shape for name, array in self.arrays.items()}

    @property
    def tells_layouts(self) -> bool:
        """Whether it is known which convolutions are grouped or transposed, or there is none."""
        return bool(self.layouts) or all(array.ndim < 3 for array in self.arrays.values())

    def layout(self, name: str) -> Layout:
        """Groups and transposition of a layer."""
        return self.layouts.get(name, PLAIN)

    def array(self, name: str) -> np.ndarray:
        """One parameter's mask, boolean."""
        return self.arrays[name]
