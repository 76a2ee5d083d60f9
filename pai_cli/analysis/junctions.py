"""Masks measured between layers: each layer that reads what another writes, found by following one input."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pai_cli.analysis.many import STEPS
from pai_cli.analysis.masks import wanted
from pai_cli.analysis.pairs import LayerMasks, Pair, PairReport, means_of, measured
from pai_cli.errors import LayerSelectionError, MethodOptionError, NoLayerError, PaiError, install
from pai_cli.files.checkpoints import Checkpoint
from pai_cli.files.fits import Against, check_fits
from pai_cli.files.masks import Mask
from pai_cli.files.matching import names_of
from pai_cli.files.opening import open_mask
from pai_cli.models.huggingface import WeightsAlone
from pai_cli.models.network import Network
from pai_cli.models.trace import Call, Graph, Wire, trace
from pai_cli.progress import Progress, of_masks, silent
from pai_cli.spectral.junctions import Junction
from pai_cli.spectral.result import Measure
from pai_cli.spelling import option

REMEDY = f"pai analyze without {option('between')} needs no wiring"


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
        pairs = consecutive(network, str(weights.path), option("between"), REMEDY)
        chosen = tuple(p for p in pairs if wanted(p.writer.name, globs) and wanted(p.reader.name, globs))
        if not chosen:
            raise LayerSelectionError(
                f"{weights.path}: {option('layers', ' '.join(globs))} matches no two consecutive layers, such as "
                f"{pairs[0].writer.name!r} and {pairs[0].reader.name!r}"
            )
        return BetweenRequest(weights, chosen, trust)


def consecutive(network: Network, source: str, asking: str, remedy: str) -> tuple[Pair, ...]:
    """All consecutive pairs of the network, found by following one input.

    What errors say: `source`, where the network is from; `asking`, the parameter that needs it; `remedy`, what needs no
    wiring. Raises `MethodOptionError` (input shape missing or wrong, or only the weights are known), `TraceError` (the
    wiring cannot be followed) and `LayerSelectionError` (there is no pair).
    """
    if isinstance(network.model, WeightsAlone):
        raise MethodOptionError(
            f"{asking} needs the network itself, and of a model's folder only the weights are read; "
            f"give {option('model', 'hf')} where transformers is installed ({install('hf')})"
        )
    pairs = pairs_of(trace(network.model, network.input_shape, remedy))
    if not pairs:
        raise NoLayerError(f"{source}: no layer of {network.description} reads what another one writes")
    return pairs


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
            own = names_of(mask, request.weights)
            shapes = {there: mask.shapes[name] for there, name in own.items()}
            check_fits(path, shapes, Against.of(request.weights, "weights"))
            layers = LayerMasks(path, mask.array, own)
            pairs = []
            for number, pair in enumerate(request.pairs, start=1):
                pairs.append(measured(pair, layers))
                told = of_masks(done, len(every), path.name)
                progress(done * STEPS + number * STEPS // len(request.pairs), len(every) * STEPS, told)
            yield BetweenReport(path, tuple(pairs), *means_of(pairs), None, layers.whole, mask.remark)
        except PaiError as error:
            yield BetweenReport(path, (), {}, {}, error)
