"""Masks measured on a device: the layers of all of them are one stream, so that many small masks go there together."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from pai_cli.analysis.by_layer import Measuring
from pai_cli.analysis.device_stream import Found, measured_there
from pai_cli.analysis.masks import AnalysisRequest, MaskReport, OpenMask, measure_mask
from pai_cli.analysis.unread import UnreadLayer, unread_layer
from pai_cli.compute.pieces import Outcome
from pai_cli.errors import PaiError
from pai_cli.files.graph_files import graph_of
from pai_cli.files.masks import Mask
from pai_cli.files.messages import some_names
from pai_cli.files.opening import open_mask
from pai_cli.spectral.network import DenseCache
from pai_cli.spectral.table import LayerTable

ON_THE_CORES = "a graph by itself is measured on the cores"

Told = Callable[[str, int, int], object]
"""Called with a mask's name, and how many of its layers are done of how many."""


def measured_masks(
    items: Iterable[Path | Mask | Outcome[Any]], request: AnalysisRequest, told: Told
) -> Iterator[Outcome[Any]]:
    """Outcomes of the masks, in order, measured on the device `request.device`; one that is there comes out in its place."""
    how = Measuring(request.options, DenseCache(), "", request.device, request.memory)
    masks = _Masks(request, told)
    with closing(measured_there(masks.layers(items), how)) as found:
        for one in found:
            masks.take(one)
            yield from masks.done()
    yield from masks.done()


@dataclass
class _Waiting:
    """A mask whose layers are on their way, or the outcome in its place."""

    opened: OpenMask | None
    outcome: Outcome[Any] | None = None
    layers: list[Found] = field(default_factory=list)


class _Masks:
    """Masks on their way to the device, in order, and those of them that are not done."""

    def __init__(self, request: AnalysisRequest, told: Told):
        self._request = request
        self._told = told
        self._waiting: deque[_Waiting] = deque()
        self._undone: deque[_Waiting] = deque()

    def layers(self, items: Iterable[Path | Mask | Outcome[Any]]) -> Iterator[UnreadLayer | None]:
        """The layers of all masks. None, where there is nothing to wait for, and outcomes are to be shown."""
        for item in items:
            yield from self._layers_of(item)
            if not self._undone:
                yield None

    def _layers_of(self, item: Path | Mask | Outcome[Any]) -> list[UnreadLayer]:
        try:
            if not isinstance(item, Outcome):
                return self._open(item)
            self._waiting.append(_Waiting(None, item))
        except Exception as error:  # the caller sees what it is
            self._waiting.append(_Waiting(None, Outcome(None, error)))
        return []

    def _open(self, mask: Path | Mask) -> list[UnreadLayer]:
        held = open_mask(mask, trust=self._request.trust) if isinstance(mask, Path) else mask
        if graph_of(held) is not None and self._request.weights is None:
            self._waiting.append(_Waiting(None, Outcome(self._on_the_cores(held))))
            return []
        opened = OpenMask.of(held, self._request)
        layers = [unread_layer(opened.mask, name, opened.request.weights) for name in opened.names]
        waiting = _Waiting(opened)
        self._waiting.append(waiting)
        self._undone.append(waiting)
        return layers

    def _on_the_cores(self, graph: Mask) -> MaskReport:
        """A graph by itself, which may be too large to be made whole on a device."""
        done = measure_mask(graph, self._request, DenseCache(), partial(self._told, graph.path.name))
        return replace(done, remark="; ".join(filter(None, (done.remark, ON_THE_CORES))))

    def take(self, found: Found | None) -> None:
        """What was found of the next layer."""
        if found is None:
            return
        mask = self._undone[0]
        assert mask.opened is not None
        mask.layers.append(found)
        self._told(mask.opened.mask.path.name, len(mask.layers), len(mask.opened.names))
        if len(mask.layers) == len(mask.opened.names):
            self._undone.popleft()
            mask.outcome = _outcome(mask.opened, mask.layers, self._request.device)
            mask.layers = []

    def done(self) -> Iterator[Outcome[Any]]:
        """Outcomes up to the first mask that is not done."""
        while self._waiting and self._waiting[0].outcome is not None:
            outcome = self._waiting.popleft().outcome
            assert outcome is not None
            yield outcome


def _outcome(opened: OpenMask, layers: list[Found], device: str) -> Outcome[MaskReport]:
    tables: list[LayerTable] = []
    for one in layers:
        if isinstance(one.report, PaiError):
            return Outcome(None, one.report)
        tables.append(one.report)
    at_home = [table.names[0] for table, one in zip(tables, layers, strict=True) if one.at_home]
    remark = f"{some_names(at_home)} did not fit on {device}: measured on the cores" if at_home else ""
    try:
        return Outcome(opened.report(LayerTable.joined(tables), remark))
    except Exception as error:  # the caller sees what it is
        return Outcome(None, error)
