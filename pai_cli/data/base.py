"""What a data set is to the rest of the package. Imports nothing heavy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from pai_cli.errors import DataError
from pai_cli.spelling import option

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class Batch:
    """Examples as a network takes them.

    `inputs` is float32 (N, C, H, W), normalised; (N, F) for a network whose input is flat. `labels` is int64 (N,).
    """

    inputs: NDArray[np.float32]
    labels: NDArray[np.int64]


class Dataset(Protocol):
    """One part (training or test) of a data set: labelled images of one size, made into numbers when they are asked for."""

    @property
    def name(self) -> str:
        """What to call it: `digits`, `cifar-10`, or the name of its file or folder."""

    @property
    def classes(self) -> int:
        """How many classes there are; labels are 0 to classes - 1."""

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height and width of one example as stored; flat examples of F numbers are (1, 1, F)."""

    @property
    def labels(self) -> NDArray[np.int64]:
        """All labels, (n,)."""

    def examples(self, indices: NDArray[np.int64]) -> NDArray[np.float32]:
        """These examples, normalised: (len(indices), C, H, W), in the order asked for.

        Raises `DataError` when one cannot be read, naming its file and index.
        """

    def __len__(self) -> int:
        """How many examples there are."""


def no_need(name: str) -> DataError:
    """The error where standardising is asked for, and is done all the same."""
    return DataError(f"{option('normalise')}: {name} is standardised without it; leave it out")
