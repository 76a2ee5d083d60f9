"""Reports as bytes: how they are stored, and travel over a network. Nothing in these bytes can be run.

A report is two parts, because a table of networks needs the first alone. Floats come back as the float64 that they were,
so that a report that was stored is the report, bit for bit.
"""

from __future__ import annotations

import json
import sys
import zlib
from array import array
from collections.abc import Iterator
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any

from pai_cli.analysis.masks import MaskReport
from pai_cli.spectral.graph import Counts
from pai_cli.spectral.metrics import LayerMetrics
from pai_cli.spectral.network import LayerReport, NetworkReport
from pai_cli.spectral.result import Measure, Outcome, SingularPair

FORM = 2  # to be raised with any change below: what was stored in another form is not read

OUTCOMES = {outcome.name: outcome for outcome in Outcome}

NAN = float("nan")

LEVEL = 1  # of compression: the next ones take twice the time for a tenth of the size


@dataclass(frozen=True)
class Encoded:
    """A report of one mask, without its path: what holds for the network, and for its layers; compressed."""

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
    return Encoded(_packed(whole), _packed_layers(network.layers))


def decode(path: Path, encoded: Encoded, *, layers: bool) -> MaskReport:
    """The report of the mask at `path`; without its layers unless `layers`. Raises `ValueError` for other bytes."""
    try:
        whole = json.loads(zlib.decompress(encoded.network))
        network = NetworkReport(
            tuple(_read_layers(encoded.layers)) if layers else (),
            _read_measures(whole["measures"]),
            whole["counted"],
            whole["kept"],
            whole["total"],
            tuple(whole["collapsed"]),
            tuple(whole["unproved"]),
        )
        shapes = {name: tuple(shape) for name, shape in whole["shapes"].items()}
        told = whole["skipped"], whole["layouts_told"], whole["told"]
    except (zlib.error, KeyError, TypeError, IndexError, AttributeError, StopIteration, RuntimeError) as error:
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


def _packed_layers(layers: tuple[LayerReport, ...]) -> bytes:
    """The length of a JSON document, the document, and all layers' numbers as float64: of a layer its singular pair's, then
    value and error of each measure, NaN where there is none. Text of that many digits takes four times as long to read.
    """
    numbers: list[float | None] = []
    words = json.dumps([_words(layer, numbers) for layer in layers], separators=(",", ":")).encode()
    floats = array("d", [NAN if number is None else number for number in numbers])
    if sys.byteorder == "big":
        floats.byteswap()
    return zlib.compress(len(words).to_bytes(4, "little") + words + floats.tobytes(), LEVEL)


def _words(layer: LayerReport, numbers: list[float | None]) -> list[Any]:
    """What of a layer is no float64; those are put behind `numbers`."""
    metrics, pair = layer.metrics, layer.metrics.structure
    numbers += (pair.sigma_1, pair.sigma_2, pair.sigma_1_error, pair.sigma_2_error)
    reasons: dict[str, list[str]] = {}
    for name, one in metrics.measures.items():
        numbers += (one.value, one.error)
        if one.reason is not None:
            reasons.setdefault(one.reason, []).append(name)
    return [
        layer.name,
        layer.shape,
        astuple(metrics.counts),
        metrics.n_regular,
        (pair.solver, pair.outcome.name, pair.products),
        [outcome.name for outcome in metrics.outcomes],
        list(metrics.measures),
        reasons,
    ]


def _read_layers(packed: bytes) -> Iterator[LayerReport]:
    data = zlib.decompress(packed)
    end = 4 + int.from_bytes(data[:4], "little")
    floats = array("d", data[end:])
    if sys.byteorder == "big":
        floats.byteswap()
    numbers = iter([None if number != number else number for number in floats])  # noqa: PLR0124  NaN, and quickly
    for words in json.loads(data[4:end]):
        yield _layer(words, numbers)


def _layer(words: list[Any], numbers: Iterator[float | None]) -> LayerReport:
    name, shape, counts, n_regular, (solver, outcome, products), outcomes, names, told = words
    first, second, first_error, second_error = (next(numbers) for _ in range(4))
    pair = SingularPair(first, second, first_error, second_error, solver, OUTCOMES[outcome], products)
    reasons = {name: reason for reason, those in told.items() for name in those}
    measures = {name: _measure(next(numbers), next(numbers), reasons.get(name)) for name in names}
    metrics = LayerMetrics(Counts(*counts), measures, n_regular, pair, tuple(OUTCOMES[one] for one in outcomes))
    return LayerReport(name, tuple(shape), metrics)


def _measure(value: float | None, error: float | None, reason: str | None) -> Measure:
    """`Measure(value, error, reason)` in less than half the time: a mask has four hundred, and reading them is most of what
    a report that was stored takes.
    """
    if (value is None) == (reason is None):
        raise ValueError("a measure has a value or a reason")
    measure = object.__new__(Measure)
    fields = measure.__dict__
    fields["value"], fields["error"], fields["reason"] = value, error, reason
    return measure
