"""A mask's measures between consecutive layers: of each pair, and their means over the network.

Knows what pairs there are only by what it is given (`junctions.pairs_of` finds them), so nothing heavy is imported.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from pai_cli.analysis.paths import Unfit, known_layers
from pai_cli.files.masks import Mask, unrolls
from pai_cli.spectral import junctions
from pai_cli.spectral.catalogue import BETWEEN
from pai_cli.spectral.formulas import mean_of
from pai_cli.spectral.graph import unroll
from pai_cli.spectral.junctions import Degrees, Junction
from pai_cli.spectral.result import Measure

if TYPE_CHECKING:
    from pai_cli.files.matching import Weights
    from pai_cli.models.layers import PrunableLayer
    from pai_cli.spectral.network import NetworkReport


@dataclass(frozen=True, eq=False)
class Pair:
    """Two consecutive layers: `reader` reads what `writer` writes. `where`: which outputs stand at which columns."""

    writer: PrunableLayer
    reader: PrunableLayer
    where: Junction


@dataclass(frozen=True)
class PairReport:
    """A pair's names and measures (names as in `catalogue.BETWEEN`).

    `outputs`: of the writer, those that the reader has columns for, `live` of them with a kept weight; `columns`: how
    many columns those are.
    """

    writer: str
    reader: str
    outputs: int
    live: int
    columns: int
    measures: dict[str, Measure]


@dataclass(frozen=True, eq=False)
class PairRequest:
    """The pairs that are measured too, if any. `layers`: all of the network, by name."""

    pairs: tuple[Pair, ...] = ()
    layers: Mapping[str, PrunableLayer] = field(default_factory=dict)

    @cached_property
    def digest(self) -> str:
        """What the measures follow from, beside the mask."""
        told = hashlib.sha256(repr(sorted(self.layers.items())).encode("utf-8", "backslashreplace"))
        for pair in self.pairs:
            told.update(repr((pair.writer, pair.reader)).encode("utf-8", "backslashreplace"))
            told.update(pair.where.outputs.tobytes() + pair.where.columns.tobytes())
        return told.hexdigest() if self.pairs else ""


def with_pairs(report: NetworkReport, mask: Mask, request: PairRequest, weights: Weights | None) -> NetworkReport:
    """The report with the means over the pairs and how many those are, where pairs are asked for.

    `weights`: under the mask's names.
    """
    if not request.pairs:
        return report
    try:
        known = known_layers(mask, request.layers, weights)
    except Unfit as unfit:
        measures, counted = dict.fromkeys(BETWEEN, Measure.missing(str(unfit))), dict.fromkeys(BETWEEN, 0)
    else:
        masks = LayerMasks(mask.path, mask.array, {there: name for name, there in known.items()})
        measures, counted = means_of([measured(pair, masks) for pair in request.pairs])
    return replace(report, measures={**report.measures, **measures}, counted={**report.counted, **counted})


class LayerMasks:
    """The layers' unrolled masks and their degrees; a mask is held for the last layer asked for only.

    `path`: what errors call the mask; `array`: a layer's, by the mask's own name. `own`: what it calls a layer. One that it
    does not have is whole.
    """

    def __init__(self, path: Path, array: Callable[[str], junctions.Mask], own: Mapping[str, str]) -> None:
        self._path, self._array, self._own = path, array, own
        self._degrees: dict[str, Degrees] = {}
        self._last: tuple[str, junctions.Mask] | None = None
        self._missing: dict[str, None] = {}

    @property
    def whole(self) -> tuple[str, ...]:
        """The layers asked for that the mask does not have."""
        return tuple(self._missing)

    def matrix(self, layer: PrunableLayer) -> junctions.Mask:
        """The unrolled mask."""
        if self._last is None or self._last[0] != layer.name:
            unrolls(self._path, layer.name, layer.shape, layer.layout)
            if layer.name in self._own:
                array = self._array(self._own[layer.name])
            else:
                array = np.ones(layer.shape, np.bool_)
                self._missing[layer.name] = None
            self._last = layer.name, unroll(array, layer.layout)
        return self._last[1]

    def degrees(self, layer: PrunableLayer) -> Degrees:
        """Of the unrolled mask."""
        if layer.name not in self._degrees:
            self._degrees[layer.name] = Degrees.of(self.matrix(layer))
        return self._degrees[layer.name]


def measured(pair: Pair, layers: LayerMasks) -> PairReport:
    """What is measured between two layers."""
    where = pair.where
    p, q = layers.degrees(pair.writer), layers.degrees(pair.reader)
    measures = {
        "compatibility": junctions.compatibility(p, q, where),
        "copeland": junctions.copeland(p, q, where),
        "overlap": junctions.overlap(layers.matrix(pair.reader), where),
    }
    outputs = np.unique(where.outputs)
    live = int(np.count_nonzero(p.rows[outputs]))
    return PairReport(pair.writer.name, pair.reader.name, len(outputs), live, len(where.columns), measures)


def means_of(pairs: Sequence[PairReport]) -> tuple[dict[str, Measure], dict[str, int]]:
    """The means over the pairs where each measure is present, and how many those are."""
    measures, counted = {}, {}
    for name in BETWEEN:
        present = [pair.measures[name] for pair in pairs if pair.measures[name].present]
        counted[name] = len(present)
        reasons = dict.fromkeys(pair.measures[name].reason or "" for pair in pairs)
        measures[name] = mean_of(present) if present else Measure.missing("; ".join(reasons))
    return measures, counted
