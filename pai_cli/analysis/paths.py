"""A mask's measures that need more than one layer: of the paths through its network, and the controls that need none."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from pai_cli.files.matching import located, matched, told_aliases
from pai_cli.files.messages import one_line, some_names
from pai_cli.files.whole import told_whole
from pai_cli.spectral.catalogue import LAYER_PATHS, PATHS
from pai_cli.spectral.formulas import means
from pai_cli.spectral.metrics import NO_WEIGHTS
from pai_cli.spectral.result import Measure
from pai_cli.spectral.table import Column

if TYPE_CHECKING:
    import numpy as np

    from pai_cli.files.masks import Mask
    from pai_cli.files.matching import Weights
    from pai_cli.models.layers import PrunableLayer
    from pai_cli.models.unrolled.degrees import Loose
    from pai_cli.models.unrolled.paths import LayerPaths, NetworkPaths, Unrolled
    from pai_cli.spectral.network import NetworkReport

NO_NETWORK = "the network is not known"
NO_WIRING = "the network's elements cannot be told apart"
NOT_ASKED = "paths were not asked for"
OF_ALL_LAYERS = "paths are of all layers"
NO_KEPT = "collapsed"


@dataclass(frozen=True)
class PathRequest:
    """The network whose paths are measured, unrolled; or `reason`, why there is none, and what is `told`, if anything."""

    unrolled: Unrolled | None = None
    reason: str = NO_WEIGHTS
    told: str = ""

    @property
    def digest(self) -> str:
        """What the measures follow from, beside mask and weights."""
        return self.reason if self.unrolled is None else self.unrolled.tape.digest


def with_paths(report: NetworkReport, mask: Mask, request: PathRequest, weights: Weights | None) -> NetworkReport:
    """The report with the controls, and with the measures of paths or the reason why there are none.

    `weights`: under the mask's names.
    """
    controls = controls_of(report)
    if request.unrolled is None:
        return _without(report, controls, request.reason)
    try:
        found = _found(mask, request.unrolled, weights)
    except Unfit as unfit:
        return _without(report, controls, str(unfit))
    except (MemoryError, RuntimeError, ValueError) as error:
        return _without(report, controls, f"the network cannot be unrolled ({one_line(error)})")
    table = report.layers
    rows = [
        _of_layer(found.layers[name], total) for name, total in zip(table.names, table.totals.tolist(), strict=True)
    ]
    layers = table.extended({name: Column.listed([row[name] for row in rows]) for name in LAYER_PATHS})
    return replace(
        report, layers=layers, measures={**report.measures, **controls, **measures_of_paths(found, report.total)}
    )


class Unfit(Exception):  # noqa: N818  there is a reason, and no measure
    """The mask is not of the network."""


def _without(report: NetworkReport, controls: dict[str, Measure], reason: str) -> NetworkReport:
    missing = Measure.missing(reason)
    layers = report.layers.extended(dict.fromkeys(LAYER_PATHS, Column.missing(reason, len(report.layers))))
    return replace(report, layers=layers, measures={**report.measures, **controls, **dict.fromkeys(PATHS, missing)})


def controls_of(report: NetworkReport) -> dict[str, Measure]:
    """What needs no network: the mean of the layers' densities, the kept weights, the layers without any."""
    layers = report.layers
    densities = Column.computed(layers.counts.edges / layers.totals, 0.0, [None] * len(layers))
    return {
        "layer_density": means(densities.values, densities.errors, [len(layers)], [None])[0],
        "kept": _exact(report.kept),
        "collapsed": _exact(len(report.collapsed)),
    }


def on_no_path(mask: Mask, unrolled: Unrolled, weights: Weights) -> tuple[int, int]:
    """How many kept weights are on no path from input to output, and how many are kept; (0, 0) of another network's mask."""
    try:
        _, masks = _known(mask, unrolled, weights)
    except Unfit:
        return 0, 0
    effective = unrolled.effective(masks)
    kept = sum(int(one.sum()) for one in masks.values())
    return kept - sum(int(one.sum()) for one in effective.values()), kept


def _found(mask: Mask, unrolled: Unrolled, weights: Weights | None) -> NetworkPaths:
    """The measures; layers by the mask's names."""
    known, masks = _known(mask, unrolled, weights)
    found = unrolled.measure(masks, _values(unrolled, weights))
    if weights is None:
        found = replace(found, log_path_weight=Measure.missing(NO_WEIGHTS))
    return replace(found, layers={name: found.layers[there] for name, there in known.items()})


def _known(mask: Mask, unrolled: Unrolled, weights: Weights | None) -> tuple[dict[str, str], dict[str, np.ndarray]]:
    """The network's names of the mask's layers, their own where it does not use them, and the masks by those names."""
    known = known_layers(mask, unrolled.tape.layers, weights)
    names = matrices(mask)
    every = {name: known.get(name, name) for name in names}
    return every, {there: mask.array(name) for name, there in every.items()}


def matrices(mask: Mask) -> list[str]:
    """What of a mask has rows and columns."""
    return [name for name in mask.names if len(mask.shapes[name]) >= 2 and 0 not in mask.shapes[name]]


def known_layers(mask: Mask, layers: Mapping[str, PrunableLayer], weights: Weights | None) -> dict[str, str]:
    """What the network calls the mask's layers, of those that it has. `layers`: the network's.

    Raises `Unfit` where the mask is not of the network; with weights, which the mask was compared with, names may differ.
    """
    names = matrices(mask)
    several = () if weights is None else (weights.aliases,)
    there = located(names, layers, told_aliases(mask.metadata), *several)
    known = {name: ones[0] for name, ones in there.items() if ones}
    for name in names:
        if name not in known and weights is None:
            raise Unfit(f"{name!r} is no layer that the network uses")
        if name in known and tuple(mask.shapes[name]) != layers[known[name]].shape:
            raise Unfit(f"{name!r} has another shape in the network")
    if weights is None:
        lacking = layers.keys() - known.values() - told_whole(mask.metadata).keys()
        if lacking:
            raise Unfit(f"the network has layers that the mask does not name: {some_names(sorted(lacking))}")
    return known


def _values(unrolled: Unrolled, weights: Weights | None) -> Callable[[str], np.ndarray] | None:
    """The layers' weights, where all of them are there."""
    if weights is None:
        return None
    there = matched(unrolled.tape.layers, {}, weights)
    return there.finite_array if all(name in there.shapes for name in unrolled.tape.layers) else None


def _of_layer(paths: LayerPaths, total: int) -> dict[str, Measure]:
    return {
        "effective_density": Measure.of(paths.effective / total),
        "effective_share": Measure.of(paths.effective / paths.kept) if paths.kept else Measure.missing(NO_KEPT),
        "dead_inputs": _exact(paths.dead_inputs),
        "dead_outputs": _exact(paths.dead_outputs),
    }


def measures_of_paths(paths: NetworkPaths, total: int) -> dict[str, Measure]:
    """The network's measures by name. `total`: weights of the masked layers, kept or not."""
    layers: Mapping[str, LayerPaths] = paths.layers
    kept, effective = sum(one.kept for one in layers.values()), sum(one.effective for one in layers.values())
    return {
        "effective_density": Measure.of(effective / total),
        "effective_share": Measure.of(effective / kept) if kept else Measure.missing(NO_KEPT),
        "dead_inputs": _exact(sum(one.dead_inputs for one in layers.values())),
        "dead_outputs": _exact(sum(one.dead_outputs for one in layers.values())),
        "log_paths": paths.log_paths,
        "log_path_weight": paths.log_path_weight,
        "effective_nodes": _exact(paths.effective_nodes),
        "node_path_balance": paths.node_path_balance,
        "macs": _exact(paths.macs),
        "macs_effective": _exact(paths.macs_effective),
        **_of_loose(paths.loose),
    }


def _of_loose(loose: Loose) -> dict[str, Measure]:
    """The shares that lead nowhere, of the nodes and of the edges."""
    nodes = {"sink_nodes": loose.sinks, "source_nodes": loose.sources, "disconnected_nodes": loose.disconnected}
    edges = {"removable_out": loose.into_sinks, "removable_in": loose.out_of_sources}
    none = Measure.missing(NO_KEPT)
    return {
        **{name: Measure.of(count / loose.nodes) for name, count in nodes.items()},
        **{name: Measure.of(count / loose.edges) if loose.edges else none for name, count in edges.items()},
    }


def _exact(count: int) -> Measure:
    return Measure(float(count), 0.0 if count < 2**53 else math.ulp(float(count)))
