"""The masks of a checkpoint larger than memory, made and written piece by piece."""

from __future__ import annotations

import copy
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from pai_cli.compute.threads import mapped
from pai_cli.files.mask_pieces import MaskOutline, file_order, write_mask_pieces
from pai_cli.files.provenance import provenance
from pai_cli.files.stacks import part_names, stacked_layouts, stacked_shapes, whole_stacks
from pai_cli.progress import Progress, silent
from pai_cli.pruning.base import Pattern
from pai_cli.pruning.groups import keep_largest_in_groups
from pai_cli.pruning.output import run_metadata
from pai_cli.pruning.pattern import input_axis
from pai_cli.pruning.streaming.choosing import Chosen, Meter, scores_of
from pai_cli.pruning.streaming.reading import AHEAD, OpenFiles, Piece, changed, pieces_of
from pai_cli.pruning.streaming.scores import PieceScores
from pai_cli.pruning.streaming.search import LayerCut
from pai_cli.random import generator_for

if TYPE_CHECKING:
    from pai_cli.models.network import PrunableLayer

Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Part:
    """The mask of a piece; `equal`, where only some of the tied weights are kept, says which are tied."""

    piece: Piece
    mask: Mask
    equal: Mask | None = None


def write_chosen(
    path: Path,
    chosen: Chosen,
    arguments: Sequence[str],
    progress: Progress = silent,
    *,
    packed: bool,
    force: bool,
) -> None:
    """Write the mask file, whole or not at all. `arguments`: what was typed after `pai`.

    Raises `OutputError`, and `CheckpointError` when the checkpoint is no longer what it was.
    """
    layers = {layer.name: layer for layer in chosen.summary.layers}
    stacks = whole_stacks(chosen.source.stacks, layers)
    shapes = stacked_shapes({name: layer.shape for name, layer in layers.items()}, stacks)
    told = run_metadata(chosen.summary, chosen.request, chosen.sha256)
    metadata = {**told, **chosen.story, **provenance(arguments)}
    layouts = stacked_layouts({name: layer.layout for name, layer in layers.items()}, stacks)
    outline = MaskOutline(shapes, layouts, metadata)
    with OpenFiles() as files:
        maker = _Maker(chosen, scores_of(chosen.source, chosen.request, chosen.summary.layers, files))
        meter = Meter(progress, sum(map(prod, shapes.values())))
        parts_of = {name: part_names(name, shape) if name in stacks else [name] for name, shape in shapes.items()}
        names = (part for name in file_order(shapes) for part in parts_of[name])
        pieces = (piece for name in names for piece in maker.pieces(layers[name]))
        # One stream for all layers, so that threads need not wait where one ends.
        with closing(mapped(maker.make, pieces, ahead=AHEAD)) as parts:

            def of(name: str) -> Iterator[Mask]:
                for part in parts_of[name]:
                    masks = _of_layer(parts, part, chosen, meter)
                    yield from _shuffled(masks, part, chosen) if chosen.request.shuffle else masks

            write_mask_pieces(path, outline, of, packed=packed, force=force)
        meter.end()


@dataclass(frozen=True)
class _Maker:
    """Makes the masks of pieces, but for which of the ties at a cut are kept."""

    chosen: Chosen
    scores: PieceScores

    def pieces(self, layer: PrunableLayer) -> Iterator[Piece]:
        """Of whole groups, where a pattern decides."""
        pattern = self._pattern(layer)
        axis = input_axis(layer)
        # Rows along the first dimension stand together; where the groups run along it, so many of them.
        unit = prod(layer.shape[1:]) * (1 if axis else pattern.of) if pattern else 1
        return pieces_of(layer, unit)

    def make(self, piece: Piece) -> Part:
        """The mask of a piece, and its ties where it takes the pieces before to tell which are kept."""
        pattern = self._pattern(piece.layer)
        cut = self.chosen.cuts.get(piece.layer.name)
        if pattern:
            keys = self.scores.keys(piece)
            shape = (-1, *piece.layer.shape[1:])
            mask = keep_largest_in_groups(keys, shape, input_axis(piece.layer), pattern)
            return Part(piece, mask)
        size = piece.stop - piece.start
        if cut is None or cut.kept == prod(piece.layer.shape):
            return Part(piece, np.ones(size, np.bool_))
        if cut.kept == 0:
            return Part(piece, np.zeros(size, np.bool_))
        draft = self.chosen.drafts.get(piece)
        if draft is not None:
            mask, equal = draft.mask(size, cut)
            return Part(piece, mask | equal) if cut.ties == cut.equal else Part(piece, mask, equal)
        return self._compared(piece, cut)

    def _compared(self, piece: Piece, cut: LayerCut) -> Part:
        """The mask by the keys themselves, read or drawn again."""
        size = piece.stop - piece.start
        all_ties = cut.ties == cut.equal
        mask, equal = np.empty(size, np.bool_), None if all_ties or not cut.ties else np.empty(size, np.bool_)
        done = 0
        for keys in self.scores.blocks(piece):
            key, here = keys.dtype.type(cut.key), slice(done, done + keys.size)
            (np.greater_equal if all_ties else np.greater)(keys, key, out=mask[here])
            if equal is not None:
                np.equal(keys, key, out=equal[here])
            done += keys.size
        return Part(piece, mask, equal)

    def _pattern(self, layer: PrunableLayer) -> Pattern | None:
        pattern = self.chosen.request.pattern
        return None if pattern is None or layer.name in self.chosen.summary.whole else pattern


def _of_layer(parts: Generator[Part, None, None], name: str, chosen: Chosen, meter: Meter) -> Iterator[Mask]:
    """The masks of a layer's pieces: the next of the stream. Raises `CheckpointError` when they keep another number."""
    layer = next(layer for layer in chosen.summary.layers if layer.name == name)
    size, kept = prod(layer.shape), 0
    ties = copy.deepcopy(chosen.ties.get(name))
    done = 0
    while done < size:
        part = next(parts)
        assert (part.piece.layer.name, part.piece.start) == (name, done)
        if part.equal is not None and ties is not None and ties.keep:
            part.mask[ties.among(np.flatnonzero(part.equal))] = True
        kept += int(np.count_nonzero(part.mask))
        done = part.piece.stop
        yield part.mask
        meter.step(part.mask.size, "writing")
    if kept != chosen.summary.kept_by_layer[name]:
        raise changed(chosen.source.path)


def _shuffled(masks: Iterator[Mask], name: str, chosen: Chosen) -> Iterator[Mask]:
    """A layer's mask in the random order of `pruning.sanity.shuffled`, which takes the whole of it."""
    layer = next(layer for layer in chosen.summary.layers if layer.name == name)
    whole, done = np.empty(prod(layer.shape), np.bool_), 0
    for mask in masks:
        whole[done : done + mask.size] = mask
        done += mask.size
    generator_for(chosen.request.seed, f"shuffle {name}").shuffle(whole)  # in place, as `permutation` does with a copy
    yield whole
