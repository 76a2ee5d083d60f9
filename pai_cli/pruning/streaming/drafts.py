"""Masks but for the window, kept from the pass that found the cut: what is in them need not be read or drawn again."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pai_cli.pruning.streaming.keys import Keys
from pai_cli.pruning.streaming.pieces import Piece
from pai_cli.pruning.streaming.search import LayerCut, Tally, Window, tally
from pai_cli.pruning.streaming.sifting import sift

DRAFT_BYTES = 160 * 2**20  # of all drafts, a bit a weight and a little; weights past that are read or drawn again
MOST_INSIDE = 16  # one in so many of a piece's weights; a place and a key take up to 12 bytes
MORE = 1  # times the bytes of the largest tensor: memory is promised to stay under twice those and 500 MiB


@dataclass(frozen=True)
class Draft:
    """A piece's mask for any cut in a window: the bits of weights above it, the places and keys of those in it."""

    above: NDArray[np.uint8]
    places: NDArray[np.uint32]
    keys: Keys

    @property
    def size(self) -> int:
        """In bytes."""
        return self.above.nbytes + self.places.nbytes + self.keys.nbytes

    def mask(self, size: int, cut: LayerCut) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        """The weights above the cut, and those at it."""
        mask = np.unpackbits(self.above, count=size).view(np.bool_)
        equal = np.zeros(size, np.bool_)
        mask[self.places] = self.keys > self.keys.dtype.type(cut.key)
        equal[self.places] = self.keys == self.keys.dtype.type(cut.key)
        return mask, equal


def drafted(blocks: Iterable[Keys], window: Window) -> tuple[Tally, Draft | None]:
    """The tally of a piece, and its draft; None where so many weights are in the window that it would not be small.

    `blocks`: the keys one after the other, all but the last a multiple of 8; each is done with before the next.
    """
    size = above = 0
    small = True
    bits: list[NDArray[np.uint8]] = []
    places: list[NDArray[np.uint32]] = []
    inside: list[Keys] = []
    for keys in blocks:
        found = sift(keys, window, keys.size // MOST_INSIDE)
        if found.places is None:
            small = False
            inside.append(tally(keys, window).inside)
        else:
            inside.append(keys[found.places])
            places.append(found.places + np.uint32(size))
        bits.append(found.bits)
        above += found.above
        size += keys.size
    within = np.concatenate(inside)
    draft = Draft(np.concatenate(bits), np.concatenate(places), within) if small else None
    return Tally(size, above, within), draft


class Drafts:
    """As many as there is room for. `largest`: bytes of the largest tensor."""

    def __init__(self, largest: int) -> None:
        self._held: dict[str, dict[int, Draft]] = {}
        self._bytes = 0
        self._most = DRAFT_BYTES + MORE * largest

    @property
    def full(self) -> bool:
        """Whether there is no more room."""
        return self._bytes >= self._most

    def add(self, piece: Piece, draft: Draft) -> None:
        """Keep a draft, if there is room."""
        if not self.full:
            self._held.setdefault(piece.layer.name, {})[piece.start] = draft
            self._bytes += draft.size

    def drop(self, layers: Iterable[str]) -> None:
        """Forget the drafts of layers whose cuts were not in the window."""
        for name in layers:
            self._bytes -= sum(draft.size for draft in self._held.pop(name, {}).values())

    def get(self, piece: Piece) -> Draft | None:
        """The draft of a piece, where there is one."""
        return self._held.get(piece.layer.name, {}).get(piece.start)
