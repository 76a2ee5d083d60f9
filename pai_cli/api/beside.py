"""What of a checkpoint the masks beside it leave whole: found for each, and said once for masks of the same layers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

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

    def of(
        self, mask: object, names: Iterable[str], metadata: Mapping[str, str], measured: tuple[int, int] | None
    ) -> tuple[Whole, Count | None]:
        """What the mask of these names leaves whole, and what the network keeps with it.

        `measured`: how many weights the mask keeps, of how many; where None, the network's are not known.
        """
        from pai_cli.files.fits import Count
        from pai_cli.files.whole import beside_masks

        every = tuple(names)
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
