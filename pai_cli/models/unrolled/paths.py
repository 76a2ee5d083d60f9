"""What paths of kept weights there are in a network under a mask: a layer's and the whole network's measures."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from math import prod

import numpy as np
from numpy.typing import NDArray

from pai_cli.compute.threads import one_blas_thread
from pai_cli.models.unrolled.degrees import Loose, loose
from pai_cli.models.unrolled.kept import Flags, Kept
from pai_cli.models.unrolled.marks import Reached, reached
from pai_cli.models.unrolled.sums import Factors, log_sum
from pai_cli.models.unrolled.tape import Tape
from pai_cli.spectral.result import Measure

Masks = Mapping[str, Flags]
Weight = Callable[[str], NDArray[np.floating]]


@dataclass(frozen=True)
class LayerPaths:
    """One layer of a mask: `effective` of its `kept` weights lie on a path from the network's input to its output.

    `dead_inputs`: input channels (columns of a linear layer) with kept weights to which no path from the input comes;
    `dead_outputs`: rows with kept weights from which no path leads to the output.
    """

    kept: int
    effective: int
    dead_inputs: int
    dead_outputs: int


@dataclass(frozen=True)
class NetworkPaths:
    """A network under a mask. `layers`: of the mask, by its own names.

    `log_paths`, `log_path_weight`: natural logarithms of the number of paths, and of the sum over them of the products of
    |w|. `nodes`: rows of all layers but those that give the output; `effective_nodes`: those on a path. `macs`: products of
    a kept weight and a number, for one input; `macs_effective`: of effective weights. `loose`: what leads nowhere.
    """

    layers: dict[str, LayerPaths]
    log_paths: Measure
    log_path_weight: Measure
    node_path_balance: Measure
    nodes: int
    effective_nodes: int
    macs: int
    macs_effective: int
    loose: Loose


@dataclass(frozen=True)
class Unrolled:
    """An unrolled network, and what holds for it without a mask."""

    tape: Tape

    @cached_property
    def log_paths(self) -> Measure:
        """Of the network without a mask."""
        with one_blas_thread():
            return log_sum(self.tape, lambda name: Factors.ones(Kept(self.tape.layers[name], None)))

    @cached_property
    def nodes(self) -> int:
        """Hidden units."""
        every = ((layer, layer.layout.matrix(layer.shape)[0]) for layer in self.tape.layers.values())
        return sum(rows for layer, rows in every if layer.name not in self.tape.last)

    def _kept(self, masks: Masks) -> dict[str, Kept]:
        return {name: Kept(layer, masks.get(name)) for name, layer in self.tape.layers.items()}

    def effective(self, masks: Masks) -> dict[str, Flags]:
        """Which kept weights are on a path, of the masks' layers; none of a layer that the network does not use."""
        with one_blas_thread():
            found = reached(self.tape, self._kept(masks))
        return {
            name: found[name].effective.copy() if name in found else np.zeros_like(mask) for name, mask in masks.items()
        }

    def measure(self, masks: Masks, weight: Weight | None = None) -> NetworkPaths:
        """All that is measured. `masks`: by the network's names, of the weights' shapes; layers without one are whole.

        `weight`: the weights' values by name, for `log_path_weight`.
        """
        with one_blas_thread():
            return self._measured(masks, weight)

    def _measured(self, masks: Masks, weight: Weight | None) -> NetworkPaths:
        tape, kept = self.tape, self._kept(masks)
        found = reached(tape, kept)
        layers = {
            name: _layer(kept[name], found[name]) if name in found else _unused(mask) for name, mask in masks.items()
        }
        macs = sum(use.positions * kept[use.layer.name].count for use in tape.uses)
        macs_effective = sum(use.positions * int(found[use.layer.name].effective.sum()) for use in tape.uses)
        nodes = sum(int(one.nodes.sum()) for name, one in found.items() if name not in tape.last)
        log_paths = log_sum(tape, lambda name: Factors.ones(kept[name]))
        if weight is None:
            log_path_weight = Measure.missing("no weights")
        else:
            log_path_weight = log_sum(tape, lambda name: Factors.magnitudes(weight(name), kept[name]))
        balance = self._balance(nodes, log_paths)
        counts = self.nodes, nodes, macs, macs_effective
        return NetworkPaths(layers, log_paths, log_path_weight, balance, *counts, loose(tape, kept))

    def _balance(self, nodes: int, log_paths: Measure) -> Measure:
        """Half the sum of two shares of the unmasked network's: of its nodes, and of the logarithm of its paths."""
        whole = self.log_paths
        if log_paths.value is None or log_paths.error is None:
            return log_paths
        if whole.value is None or whole.error is None:
            return whole
        if self.nodes == 0 or whole.value <= whole.error:
            return Measure.missing("the network without a mask has no hidden units, or one path only")
        share = log_paths.value / whole.value
        error = (log_paths.error + share * whole.error) / (whole.value - whole.error)
        return Measure.of((nodes / self.nodes + share) / 2, error / 2)


def _layer(kept: Kept, found: Reached) -> LayerPaths:
    rows, columns = kept.rows, kept.columns.reshape(-1, prod(kept.layer.shape[2:])).any(1)
    inputs, outputs = (rows, columns) if kept.layer.layout.transposed else (columns, rows)
    return LayerPaths(
        kept.count,
        int(np.count_nonzero(found.effective)),
        int(np.count_nonzero(inputs & ~found.inputs)),
        int(np.count_nonzero(outputs & ~found.outputs)),
    )


def _unused(mask: Flags) -> LayerPaths:
    """Of a layer that the network does not use."""
    return LayerPaths(int(np.count_nonzero(mask)), 0, _lines(mask, 1), _lines(mask, 0))


def _lines(mask: Flags, dim: int) -> int:
    """How many places along a dimension have a kept weight."""
    return int(np.count_nonzero(np.moveaxis(mask, dim, 0).reshape(mask.shape[dim], -1).any(1)))
