"""What masks and the checkpoint beside them have to do with each other: what they leave whole, and whether they are its."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from pai_cli.files.fits import Count
from pai_cli.files.provenance import other_weights
from pai_cli.telling import note

if TYPE_CHECKING:
    from pai_cli.files.checkpoints import Checkpoint
    from pai_cli.files.fits import Count
    from pai_cli.files.whole import Whole


class Beside:
    """The checkpoint that goes with masks."""

    def __init__(self, checkpoint: Checkpoint):
        self._checkpoint = checkpoint
        self._why: Mapping[str, str] | None = None
        if checkpoint.module is not None:
            from pai_cli.models.layers import reasons_why_not

            self._why = reasons_why_not(checkpoint.module)
        self._told: set[tuple[str, ...]] = set()
        self._told_of_others = False

    def of(
        self, mask: object, names: Iterable[str], metadata: Mapping[str, str], measured: tuple[int, int] | None
    ) -> tuple[Whole, Count | None]:
        """What the mask of these names leaves whole, and what the network keeps with it; said, as is that the mask was made
        from other weights, of the first mask of which it holds.

        `measured`: how many weights the mask keeps, of how many; where None, the network's are not known.
        """
        from pai_cli.files.whole import beside_masks

        every = tuple(names)
        if not self._told_of_others and (others := other_weights(mask, metadata, self._checkpoint)):
            note(others)
            self._told_of_others = True
        whole, count = beside_masks(self._checkpoint, every, metadata, self._why), None
        if measured is not None:
            sizes = whole.unmasked
            more = sum(sizes.values())
            count = Count(measured[1] + more, measured[0], tuple(sizes), more)
        if every not in self._told and str(whole):
            told = "" if count is None else count.of_network(mask)
            note("; ".join(filter(None, (f"{self._checkpoint.path}: {whole}", told))))
        self._told.add(every)
        return whole, count
