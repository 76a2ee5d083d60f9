"""Masks that stay on a device between the rounds of a method: the host reads them when it asks for an array, not before."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from math import prod

import numpy as np
import torch
from numpy.typing import NDArray

WHOLE_NUMBERS = {2: torch.int16, 4: torch.int32, 8: torch.int64}


class DeviceMasks(Mapping[str, NDArray[np.bool_]]):
    """By layer, in network order: true where a weight is kept. An array that is asked for is a copy, and a wait.

    `flat`: bool, all layers one after the other, each row by row. `kept`: how many are true, by layer.
    """

    def __init__(self, flat: torch.Tensor, shapes: Mapping[str, tuple[int, ...]], kept: Mapping[str, int] | int):
        self.flat, self.shapes = flat, dict(shapes)
        self.total = kept if isinstance(kept, int) else sum(kept.values())
        self._kept = None if isinstance(kept, int) else dict(kept)

    @property
    def kept(self) -> dict[str, int]:
        """How many are true, by layer; where only the sum is known, that is read from the device."""
        if self._kept is None:
            counts = torch.stack([one.sum() for one in self.pieces().values()]).tolist()
            self._kept = dict(zip(self.shapes, counts, strict=True))
        return self._kept

    def pieces(self) -> dict[str, torch.Tensor]:
        """The masks of the layers, flat, as views."""
        return dict(
            zip(self.shapes, self.flat.split_with_sizes([prod(shape) for shape in self.shapes.values()]), strict=True)
        )

    def arrays(self) -> dict[str, NDArray[np.bool_]]:
        """The masks on the host, by one copy."""
        whole = self.flat.cpu()
        on_host = DeviceMasks(whole, self.shapes, self.total)
        return {name: piece.reshape(self.shapes[name]).numpy() for name, piece in on_host.pieces().items()}

    def remove_from(self, weights: Mapping[str, torch.Tensor]) -> None:
        """Set the weights that are false here to +0, whatever they are: their bits are multiplied by 0 or 1."""
        bits = WHOLE_NUMBERS[next(iter(weights.values())).element_size()]
        words = DeviceMasks(self.flat.to(bits), self.shapes, self.total).pieces()
        with torch.no_grad():
            torch._foreach_mul_(
                [weights[name].detach().view(bits) for name in words],
                [piece.reshape(self.shapes[name]) for name, piece in words.items()],
            )

    def __getitem__(self, name: str) -> NDArray[np.bool_]:
        array: NDArray[np.bool_] = self.pieces()[name].reshape(self.shapes[name]).cpu().numpy()
        return array

    def __iter__(self) -> Iterator[str]:
        return iter(self.shapes)

    def __len__(self) -> int:
        return len(self.shapes)
