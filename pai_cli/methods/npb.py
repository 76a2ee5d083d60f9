"""NPB, node-path balancing: each layer's weights where they make most effective nodes and paths, without data."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod

import numpy as np
import torch

from pai_cli.compute.threads import one_blas_thread
from pai_cli.errors import MethodOptionError, ScoreError, TraceError
from pai_cli.methods.node_paths import Program, Reals, Terms, keep
from pai_cli.models.layers import PrunableLayer
from pai_cli.models.trace import OTHER_METHOD
from pai_cli.models.unrolled.folded import Folded
from pai_cli.models.unrolled.kept import Flags, Kept
from pai_cli.models.unrolled.marks import reached
from pai_cli.models.unrolled.steps import Use
from pai_cli.models.unrolled.sums import count_along
from pai_cli.models.unrolled.tape import unroll
from pai_cli.pruning.base import Masks, ScoreContext, Scorer, fixed
from pai_cli.spelling import option

SWEEPS = 8
"""How often all layers are chosen at the most."""


def make_scorer(context: ScoreContext) -> Scorer:
    """1 for a weight that is kept and 0 for one that is not, shaped as the weight: as many ones as the layer is to keep.

    Layer after layer, in the order in which they run, the weights are chosen that solve `node_paths.Program`: the most of
    nodes with a weight, paths from the network's input to the layer's outputs, and kernels with a weight, for a number of
    weights that is given, by Erdos-Renyi-kernel densities as the authors' or by those asked for. The paths are those of the
    layers chosen before. Then all is chosen again without the outputs that turned out to lead nowhere, until none does or
    for `SWEEPS` times; the masks with most weights on a path are taken. The weights' values do not matter. Pham et al. 2023,
    "Towards Data-Agnostic Pruning At Initialization: What Makes a Good Sparse Mask?", NeurIPS 2023,
    https://openreview.net/forum?id=xdOoCWCYaY

    The authors solve it by a mixed-integer solver, large layers in pieces, where this is exact without one. Nodes weigh 0.5
    here and 0.01 there; numbers of paths are rounded to powers of two here; they move weights that are on no path into the
    fullest kernels, where this chooses again. docs/methods.md says why, and what it makes of masks.

    Raises `MethodOptionError` (input shape missing or wrong; nothing says how many weights each layer keeps), `TraceError`
    (elements of the network cannot be told apart), `ScoreError` (numbers of paths past float64).
    """
    masks = choose(context, Terms())
    return fixed({name: torch.from_numpy(mask.astype(np.float32)) for name, mask in masks.items()})


def choose(context: ScoreContext, terms: Terms) -> Masks:
    """The masks of `make_scorer`, by these terms."""
    if not isinstance(context.counts, Mapping):
        raise MethodOptionError(
            f"{option('method', context.method)}: chooses so many weights of each layer together, and orders none; leave "
            f"{option('pattern')} and {option('invert')} out"
        )
    with one_blas_thread():
        return _Layers(context, context.counts, terms).best()


class _Layers:
    """The layers of one network, and which of their outputs lead on."""

    def __init__(self, context: ScoreContext, counts: Mapping[str, int], terms: Terms) -> None:
        self._context, self._counts, self._terms = context, counts, terms
        try:
            self._tape = unroll(context.network.model, context.input_shape)
        except TraceError as error:
            raise TraceError(f"{error.text}; {OTHER_METHOD}") from error
        layers = self._tape.layers.items()
        self._leads_on = {name: np.ones(layer.layout.matrix(layer.shape)[0], np.bool_) for name, layer in layers}

    def best(self) -> Masks:
        """Of several sweeps, the one that left most weights on a path."""
        best: Masks = {}
        most = -1
        for _ in range(SWEEPS):
            masks = self._swept()
            kept = {name: Kept(layer, masks.get(name)) for name, layer in self._tape.layers.items()}
            found = reached(self._tape, kept)
            effective = sum(int(np.count_nonzero(found[name].effective)) for name in masks if name in found)
            if effective > most:
                best, most = masks, effective
            before = self._leads_on
            self._leads_on = {name: flags & found[name].outputs for name, flags in before.items()}
            if all(np.array_equal(before[name], flags) for name, flags in self._leads_on.items()):
                break
        return best

    def _swept(self) -> Masks:
        chosen: Masks = {}

        def choose_layer(use: Use, read: Folded) -> Kept:
            name = use.layer.name
            if name in self._counts and name not in chosen:
                paths = paths_through(use, read, self._tape.shapes[use.outputs[0]])
                chosen[name] = self._solved(use.layer, paths)
            return Kept(use.layer, chosen.get(name))

        if reason := count_along(self._tape, choose_layer):
            raise ScoreError(f"{self._context.method}: {reason}; give another {option('method')}, such as erk")
        return {one.name: chosen[one.name] if one.name in chosen else self._unused(one) for one in self._context.layers}

    def _solved(self, layer: PrunableLayer, paths: Reals) -> Flags:
        name, groups = layer.name, layer.layout.groups
        program = Program(paths, self._leads_on[name], groups, self._counts[name], self._terms)
        kept = keep(program, self._context.generator(f"npb: {name}"))
        if layer.layout.transposed:
            return kept.reshape(layer.shape)
        by_group = kept.reshape(groups, -1, *kept.shape[1:])
        return np.ascontiguousarray(by_group.swapaxes(1, 2)).reshape(layer.shape)

    def _unused(self, layer: PrunableLayer) -> Flags:
        """At random, for a layer that the network does not use."""
        mask = np.zeros(prod(layer.shape), np.bool_)
        random = self._context.generator(f"npb: {layer.name}")
        mask[random.choice(mask.size, self._counts[layer.name], replace=False)] = True
        return mask.reshape(layer.shape)


def paths_through(use: Use, read: Folded, shape: tuple[int, ...]) -> Reals:
    """(inputs, positions of a kernel): how many paths a weight there takes to one output, at all of its places together.

    `read`: how many come to each element that the layer reads; `shape`: of what it gives.
    """
    rows, columns = use.meeting(Folded.of(read.unfolded()), Folded.of(np.ones(shape)))
    positions = prod(use.layer.shape[2:])
    transposed = use.layer.layout.transposed
    found: Reals = rows @ columns[:positions].T if transposed else columns.sum(1).reshape(-1, positions)
    return found
