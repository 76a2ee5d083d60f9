"""Measuring masks of one network again and again: a layer whose mask was seen before is not measured twice."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pai_cli.analysis.by_layer import Measuring
from pai_cli.analysis.engine import measure_everywhere
from pai_cli.analysis.masks import reason_of
from pai_cli.analysis.pairs import LayerMasks, Pair, means_of, measured
from pai_cli.analysis.paths import measures_of_paths
from pai_cli.compute.device import torch_device
from pai_cli.errors import TraceError
from pai_cli.sampling.request import SHOWN, USUAL_BY
from pai_cli.sampling.state import Measures
from pai_cli.spectral.catalogue import BETWEEN, PATHS
from pai_cli.spectral.conventions import Convention
from pai_cli.spectral.metrics import MetricOptions
from pai_cli.spectral.network import DenseCache, LayerInput, NetworkReport, summarise
from pai_cli.spectral.result import Measure
from pai_cli.spectral.table import LayerTable
from pai_cli.spelling import for_shell, option

if TYPE_CHECKING:
    import torch

    from pai_cli.models.network import Network
    from pai_cli.models.unrolled.paths import Unrolled
    from pai_cli.pruning.base import Masks

Key = tuple[str, bytes]
WholeMeasures = Callable[["Masks"], dict[str, Measure]]


@dataclass
class LayerCache:
    """Layers by name and mask, those used last: tables of one row, with the measures of `names` alone.

    `weights`: of layers that are measured on a device, there. `dense`: what is known of layers without a mask.
    """

    most: int = 4096
    names: tuple[str, ...] = SHOWN
    weights: dict[str, torch.Tensor] = field(default_factory=dict)
    dense: DenseCache = field(default_factory=DenseCache)
    _known: OrderedDict[Key, LayerTable] = field(default_factory=OrderedDict)

    def __len__(self) -> int:
        return len(self._known)

    def get(self, key: Key) -> LayerTable | None:
        """What was measured of this mask, when it is remembered."""
        layer = self._known.get(key)
        if layer is not None:
            self._known.move_to_end(key)
        return layer

    def put(self, key: Key, layer: LayerTable) -> None:
        """Remember a layer; the one that was not used for longest makes room."""
        self._known[key] = layer
        self._known.move_to_end(key)
        while len(self._known) > self.most:
            self._known.popitem(last=False)


def key_of(name: str, mask: np.ndarray) -> Key:
    """What a layer's mask is remembered by: the layer's name and a digest of the mask's bits (128 bits)."""
    return name, hashlib.blake2b(np.packbits(mask).tobytes(), digest_size=16).digest()


def measure(
    network: Network,
    masks: Masks,
    cache: LayerCache,
    convention: Convention = Convention.H23,
    device: str = "cpu",
) -> NetworkReport:
    """The layers' and the network's measures of the cache's `names`, always against the network's own weights.

    By one convention and on one `device` as long as the cache is used. Layers left whole by `ignore` have no mask and are
    not counted. What the cache knows is not measured again; what is measured is put there.
    """
    layers = [layer for layer in network.layers if layer.name in masks]
    keys = {layer.name: key_of(layer.name, masks[layer.name]) for layer in layers}
    found = {name: cache.get(key) for name, key in keys.items()}
    unknown = [layer for layer in layers if found[layer.name] is None]
    inputs = (
        LayerInput(one.name, masks[one.name], _weights(network, one.name, cache, device), one.layout) for one in unknown
    )
    total = sum(masks[one.name].size for one in unknown)
    how = Measuring(
        MetricOptions(convention=convention, dense="l2_dense" in cache.names), cache.dense, "a candidate", device
    )
    if unknown:
        for one in measure_everywhere(inputs, total, how).only(cache.names).rows:
            found[one.names[0]] = one
            cache.put(keys[one.names[0]], one)
    return summarise(LayerTable.joined([one for one in found.values() if one is not None]))


def _weights(network: Network, name: str, cache: LayerCache, device: str) -> Any:
    """A layer's weights where it is measured; they go to a device once."""
    own = network.parameter(name).detach()
    if device == "cpu":
        return own.cpu().numpy()
    if name not in cache.weights:
        cache.weights[name] = own.to(torch_device(device))
    return cache.weights[name]


def remember(cache: LayerCache, masks: Masks, layers: LayerTable) -> None:
    """Put layers that were measured elsewhere into the cache."""
    for one in layers.rows:
        cache.put(key_of(one.names[0], masks[one.names[0]]), one)


def whole_measures(
    network: Network, names: Sequence[str], by: str, input_shape: tuple[int, ...] | None
) -> WholeMeasures:
    """What measures `names` of masks of this network as a whole: of its paths, with its own weights, or between its layers.

    `by`: what they are part of, for messages. Raises as `unroll` and `consecutive` do.
    """
    shaped = replace(network, input_shape=input_shape or network.input_shape)
    parts: list[WholeMeasures] = []
    needless = f"{option('by', USUAL_BY)} needs no wiring"
    if any(name in BETWEEN for name in names):
        from pai_cli.analysis.junctions import consecutive

        parts.append(partial(_between, consecutive(shaped, network.description, option("by", by), needless)))
    if any(name in PATHS for name in names):
        from pai_cli.models.unrolled.paths import Unrolled
        from pai_cli.models.unrolled.tape import unroll

        try:
            unrolled = Unrolled(unroll(shaped.model, shaped.input_shape))
        except TraceError as error:
            raise TraceError(f"{error.text}; {needless}") from error
        parts.append(partial(_of_paths, unrolled, network))
    return lambda masks: {name: one for part in parts for name, one in part(masks).items() if name in names}


def _between(pairs: Sequence[Pair], masks: Masks) -> dict[str, Measure]:
    layers = LayerMasks(Path("a candidate"), masks.__getitem__, {one: one for one in masks})
    return means_of([measured(pair, layers) for pair in pairs])[0]


def _of_paths(unrolled: Unrolled, network: Network, masks: Masks) -> dict[str, Measure]:
    found = unrolled.measure(masks, lambda layer: network.parameter(layer).detach().cpu().numpy())
    return measures_of_paths(found, sum(mask.size for mask in masks.values()))


def measures_of(report: NetworkReport, more: Mapping[str, Measure] | None = None) -> Measures:
    """The network's numbers by name, and `more` of them, None where one is missing; and the reasons, also where layers were
    not answered, as files tell them.
    """
    more = {name: one for name, one in (more or {}).items() if name not in SHOWN}
    measures: Measures = {name: report.measures[name].value for name in SHOWN}
    measures |= {name: one.value for name, one in more.items()}
    reasons = [reason_of(report, SHOWN), *(f"{name}: {one.reason}" for name, one in more.items() if not one.present)]
    measures["reason"] = for_shell("; ".join(filter(None, reasons)))
    return measures
