"""Reports as bytes: how they travel from other processes, and how they are stored. Nothing in them can be run.

A report is two JSON documents, because a table of networks needs the first alone. Floats are written with the digits that
give the same float64 back, so that a report that was stored is the report, bit for bit.
"""

from __future__ import annotations

import json
import zlib
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any

from pai_cli.analysis.masks import MaskReport
from pai_cli.spectral.bipartite import Counts
from pai_cli.spectral.metrics import LayerMetrics
from pai_cli.spectral.network import LayerReport, NetworkReport
from pai_cli.spectral.result import Measure, Outcome, SingularPair

FORM = 1  # to be raised with any change below: what was stored in another form is not read

LEVEL = 1  # of compression: the next ones take twice the time for a tenth of the size


@dataclass(frozen=True)
class Encoded:
    """A report of one mask, without its path: what holds for the network, and for its layers; compressed JSON."""

    network: bytes
    layers: bytes


def encode(report: MaskReport) -> Encoded:
    """The bytes of a report that has no error."""
    network = report.report
    assert network is not None
    whole = {
        "metadata": report.metadata,
        "skipped": report.skipped,
        "layouts_told": report.layouts_told,
        "told": report.told,
        "shapes": report.shapes,
        "measures": _measures(network.measures),
        "counted": network.counted,
        "kept": network.kept,
        "total": network.total,
        "collapsed": network.collapsed,
        "unproved": network.unproved,
    }
    return Encoded(_packed(whole), _packed([_layer(layer) for layer in network.layers]))


def decode(path: Path, encoded: Encoded, *, layers: bool) -> MaskReport:
    """The report of the mask at `path`; without its layers unless `layers`. Raises `ValueError` for other bytes."""
    try:
        whole = json.loads(zlib.decompress(encoded.network))
        rows = json.loads(zlib.decompress(encoded.layers)) if layers else []
        network = NetworkReport(
            tuple(_read_layer(row) for row in rows),
            _read_measures(whole["measures"]),
            whole["counted"],
            whole["kept"],
            whole["total"],
            tuple(whole["collapsed"]),
            tuple(whole["unproved"]),
        )
        shapes = {name: tuple(shape) for name, shape in whole["shapes"].items()}
        told = whole["skipped"], whole["layouts_told"], whole["told"]
    except (zlib.error, KeyError, TypeError, IndexError, AttributeError) as error:
        raise ValueError(f"{path}: its report cannot be read") from error
    return MaskReport(path, whole["metadata"], network, None, tuple(told[0]), *told[1:], shapes)


def _packed(value: Any) -> bytes:
    return zlib.compress(json.dumps(value, separators=(",", ":")).encode(), LEVEL)


def _measures(measures: dict[str, Measure]) -> dict[str, Any]:
    """A value with its error, or the reason why there is none."""
    return {name: one.reason if one.reason is not None else (one.value, one.error) for name, one in measures.items()}


def _read_measures(row: dict[str, Any]) -> dict[str, Measure]:
    return {
        name: Measure(None, None, one) if isinstance(one, str) else Measure(one[0], one[1]) for name, one in row.items()
    }


def _layer(layer: LayerReport) -> list[Any]:
    metrics, pair = layer.metrics, layer.metrics.structure
    numbers = (pair.sigma_1, pair.sigma_2, pair.sigma_1_error, pair.sigma_2_error)
    return [
        layer.name,
        layer.shape,
        astuple(metrics.counts),
        _measures(metrics.measures),
        metrics.n_regular,
        (*numbers, pair.solver, pair.outcome.name, pair.products),
        [outcome.name for outcome in metrics.outcomes],
    ]


def _read_layer(row: list[Any]) -> LayerReport:
    name, shape, counts, measures, n_regular, pair, outcomes = row
    first, second, first_error, second_error, solver, outcome, products = pair
    structure = SingularPair(first, second, first_error, second_error, solver, Outcome[outcome], products)
    told = tuple(Outcome[one] for one in outcomes)
    return LayerReport(
        name, tuple(shape), LayerMetrics(Counts(*counts), _read_measures(measures), n_regular, structure, told)
    )
