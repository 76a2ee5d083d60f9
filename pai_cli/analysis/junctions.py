"""Masks measured between layers: each layer that reads what another writes, found by following one input."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pai_cli.analysis.many import STEPS
from pai_cli.analysis.masks import unrolls, wanted
from pai_cli.errors import LayerSelectionError, MethodOptionError, PaiError, install
from pai_cli.files.checkpoints import Checkpoint
from pai_cli.files.fits import Against, check_fits
from pai_cli.files.masks import Mask
from pai_cli.files.opening import open_mask
from pai_cli.models.huggingface import WeightsAlone
from pai_cli.models.layers import PrunableLayer
from pai_cli.models.network import Network
from pai_cli.models.trace import Call, Graph, Wire, trace
from pai_cli.progress import Progress, silent
from pai_cli.spectral import junctions
from pai_cli.spectral.catalogue import BETWEEN
from pai_cli.spectral.formulas import mean_of
from pai_cli.spectral.graph import unroll
from pai_cli.spectral.junctions import Degrees, Junction
from pai_cli.spectral.result import Measure
from pai_cli.spelling import option

REMEDY = f"pai analyze without {option('between')} needs no wiring"


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


@dataclass(frozen=True)
class BetweenReport:
    """One mask's pairs and their means, or the error that stands in their place.

    `measures[name]` is the mean over the pairs where that measure is present; `counted[name]` is how many those were.
    `whole`: layers of the pairs that the mask does not have, so that all of their weights are kept. `remark`: what else a
    person should know of how the mask was read.
    """

    path: Path
    pairs: tuple[PairReport, ...]
    measures: dict[str, Measure]
    counted: dict[str, int]
    error: PaiError | None = None
    whole: tuple[str, ...] = ()
    remark: str = ""


@dataclass(frozen=True, eq=False)
class BetweenRequest:
    """What to measure: `pairs` of the network of `weights`; `trust`: a mask may run its pickle's code."""

    weights: Checkpoint
    pairs: tuple[Pair, ...]
    trust: bool = False

    @staticmethod
    def of(weights: Checkpoint, network: Network, globs: Sequence[str] = (), *, trust: bool = False) -> BetweenRequest:
        """All consecutive pairs of the network, or those of which both layers match a glob.

        Raises `MethodOptionError` (input shape missing or wrong, or only the weights are known), `TraceError` (the wiring
        cannot be followed) and `LayerSelectionError` (no pair is left).
        """
        if isinstance(network.model, WeightsAlone):
            raise MethodOptionError(
                f"{option('between')} needs the network itself, and of a model's folder only the weights are read; "
                f"give {option('model', 'hf')} where transformers is installed ({install('hf')})"
            )
        pairs = pairs_of(trace(network.model, network.input_shape, REMEDY))
        if not pairs:
            raise LayerSelectionError(
                f"{weights.path}: no layer of {network.description} reads what another one writes"
            )
        chosen = tuple(p for p in pairs if wanted(p.writer.name, globs) and wanted(p.reader.name, globs))
        if not chosen:
            raise LayerSelectionError(
                f"{weights.path}: {option('layers', ' '.join(globs))} matches no two consecutive layers, such as "
                f"{pairs[0].writer.name!r} and {pairs[0].reader.name!r}"
            )
        return BetweenRequest(weights, chosen, trust)


def pairs_of(graph: Graph) -> tuple[Pair, ...]:
    """Every two layers of which one reads what the other writes, readers in order; shortcuts give a reader several writers.

    Layers that are used several times are one pair, with all that is read in any of the uses.
    """
    found: dict[tuple[str, str], tuple[Call, Call, list[Wire]]] = {}
    for writer, reader, wire in graph.consecutive():
        key = (writer.layer.name, reader.layer.name)
        found.setdefault(key, (writer, reader, []))[2].append(wire)
    return tuple(Pair(p.layer, q.layer, _junction(q, wires)) for p, q, wires in found.values())


def _junction(reader: Call, wires: list[Wire]) -> Junction:
    joined = [np.stack([wire.units, wire.places], 1) for wire in wires]
    pairs = np.unique(np.concatenate(joined), axis=0)
    k = reader.layer.layout.matrix(reader.layer.shape)[1] // reader.places  # positions of the kernel
    columns = pairs[:, 1:] * k + np.arange(k)
    return Junction(np.repeat(pairs[:, 0], k), columns.reshape(-1))


def analyze_between(
    masks: Iterable[Path | Mask], request: BetweenRequest, progress: Progress = silent
) -> Iterator[BetweenReport]:
    """A report a mask, of a file or in memory, as each is done; one that cannot be read gives a report with its error, and
    the rest go on.
    """
    every = list(masks)
    for done, given in enumerate(every):
        path = given if isinstance(given, Path) else given.path
        try:
            mask = open_mask(given, trust=request.trust) if isinstance(given, Path) else given
            check_fits(path, mask.shapes, Against.of(request.weights, "weights"))
            layers = _Layers(mask)
            pairs = []
            for number, pair in enumerate(request.pairs, start=1):
                pairs.append(_measured(pair, layers))
                progress(done * STEPS + number * STEPS // len(request.pairs), len(every) * STEPS, path.name)
            yield _summary(path, pairs, layers.whole, mask.remark)
        except PaiError as error:
            yield BetweenReport(path, (), {}, {}, error)


class _Layers:
    """The layers' masks and degrees; a mask is held for the last layer asked for only."""

    def __init__(self, mask: Mask) -> None:
        self._mask = mask
        self._degrees: dict[str, Degrees] = {}
        self._last: tuple[str, junctions.Mask] | None = None
        self._names = frozenset(mask.names)
        self.missing: dict[str, None] = {}

    @property
    def whole(self) -> tuple[str, ...]:
        """The layers asked for that the mask does not have."""
        return tuple(self.missing)

    def matrix(self, layer: PrunableLayer) -> junctions.Mask:
        """The unrolled mask."""
        if self._last is None or self._last[0] != layer.name:
            unrolls(self._mask.path, layer.name, layer.shape, layer.layout)
            if layer.name in self._names:
                array = self._mask.array(layer.name)
            else:
                array = np.ones(layer.shape, np.bool_)
                self.missing[layer.name] = None
            self._last = layer.name, unroll(array, layer.layout)
        return self._last[1]

    def degrees(self, layer: PrunableLayer) -> Degrees:
        """Of the unrolled mask."""
        if layer.name not in self._degrees:
            self._degrees[layer.name] = Degrees.of(self.matrix(layer))
        return self._degrees[layer.name]


def _measured(pair: Pair, layers: _Layers) -> PairReport:
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


def _summary(path: Path, pairs: list[PairReport], whole: tuple[str, ...], remark: str) -> BetweenReport:
    measures, counted = {}, {}
    for name in BETWEEN:
        present = [pair.measures[name] for pair in pairs if pair.measures[name].present]
        counted[name] = len(present)
        reasons = dict.fromkeys(pair.measures[name].reason or "" for pair in pairs)
        measures[name] = mean_of(present) if present else Measure.missing("; ".join(reasons))
    return BetweenReport(path, tuple(pairs), measures, counted, None, whole, remark)
