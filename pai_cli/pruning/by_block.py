"""A language model pruned block by block: each block by what the blocks before it, pruned, make of the text."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from importlib import import_module
from math import prod
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from pai_cli.errors import DensityError, LayerSelectionError, ScoreError
from pai_cli.models.language import Block, LanguageModel, Slot
from pai_cli.models.stream import Stream, at_the_head, stream_of
from pai_cli.progress import Progress, silent
from pai_cli.pruning.allocation import kept_count, layer_counts
from pai_cli.pruning.counts import GivenQuota, PatternQuota
from pai_cli.pruning.inputs import inputs_of
from pai_cli.pruning.layers import given_densities, select_layers
from pai_cli.pruning.matrices import Inputs, Matrix, PruneMatrix
from pai_cli.pruning.pattern import fits
from pai_cli.pruning.request import PruneRequest
from pai_cli.pruning.run import PruneSummary
from pai_cli.pruning.ties import Tie, noteworthy
from pai_cli.spelling import option

if TYPE_CHECKING:
    from pai_cli.models.layers import PrunableLayer
    from pai_cli.pruning.base import Method, Scope

Write = Callable[[str, torch.Tensor], None]
"""Takes the weights of a layer, by its name, that stand in the place of those it had."""

Bits = NDArray[np.uint8]


@dataclass(frozen=True)
class BlockMasks:
    """The masks of a run, eight weights to a byte, and what is worth knowing of it.

    `unseen`: layers with a matrix that no token came into, which its method therefore saw by their sizes alone. `doubts`:
    layers that are left whole, for what comes into them cannot be told, and why.
    """

    summary: PruneSummary
    bits: Mapping[str, Bits]
    unseen: tuple[str, ...] = ()
    doubts: Mapping[str, str] = field(default_factory=dict)

    @cached_property
    def _sizes(self) -> dict[str, int]:
        return {layer.name: prod(layer.shape) for layer in self.summary.layers}

    def flat(self, name: str) -> NDArray[np.bool_]:
        """The mask of a layer, row by row."""
        return np.unpackbits(self.bits[name], count=self._sizes[name]).view(np.bool_)

    @property
    def masks(self) -> dict[str, NDArray[np.bool_]]:
        """All of them, in network order."""
        return {layer.name: self.flat(layer.name).reshape(layer.shape) for layer in self.summary.layers}


class _Amounts(NamedTuple):
    """How much each layer keeps; layers that the pattern does not fit are `whole`."""

    layers: tuple[PrunableLayer, ...]
    densities: Mapping[str, float]
    whole: frozenset[str]


@dataclass
class _Found:
    """What has come out so far."""

    bits: dict[str, Bits] = field(default_factory=dict)
    kept: dict[str, int] = field(default_factory=dict)
    ties: dict[str, Tie] = field(default_factory=dict)
    unseen: list[str] = field(default_factory=list)
    doubts: dict[str, str] = field(default_factory=dict)


def prune_blocks(
    model: LanguageModel,
    request: PruneRequest,
    tokens: NDArray[np.int64],
    write: Write | None = None,
    progress: Progress = silent,
) -> BlockMasks:
    """The masks that the request's method makes of every matrix of every block; the folder stays as it is.

    Block after block is read; runs over the sequences `tokens` (sequences, length), when what comes into its matrices is
    taken in; is pruned; and runs again, so that the next block sees what the pruned ones make of the text. `write` is given
    each layer's weights, as the checkpoint would store them, 0 where pruned.

    Experts of which what comes in cannot be told are left whole. Raises `DensityError`, `LayerSelectionError`, also where
    nothing else is left, `NotFiniteError`, `CheckpointError`, `ScoreError`.
    """
    by = request.method.by_matrix
    assert by is not None  # what the caller sees to
    amounts = amounts_of(model, request)
    meter = _Meter(progress, 2 * len(model.blocks) * len(tokens))
    found = _Found()
    names = {layer.name for layer in amounts.layers}
    function = function_of(request.method)
    meter.what = "reading the text"
    stream = stream_of(model, torch.from_numpy(tokens), request.device)
    for number, block in enumerate(model.blocks, start=1):
        meter.what = f"block {number} of {len(model.blocks)}"
        with model.in_memory(model.names_of(block), request.device):
            if not names.isdisjoint(layer.name for layer in block.layers):
                inputs = inputs_of(model, block, stream, by.inputs, request.device, keep=False, step=meter.step)
                _prune_block(_Run(model, request, amounts, function, write), block, inputs, found)
            if number < len(model.blocks) or model.head is not None:
                stream.through(model, block, request.device, keep=True, step=meter.step)
    if model.head is not None and model.head.layer.name in names:
        _prune_head(_Run(model, request, amounts, function, write), stream, torch.from_numpy(tokens), found)
    progress(meter.total, meter.total)
    return _as_found(amounts, by.scope, found)


def _as_found(amounts: _Amounts, scope: Scope, found: _Found) -> BlockMasks:
    layers = tuple(layer for layer in amounts.layers if layer.name not in found.doubts)
    if not layers:
        name, doubt = next(iter(found.doubts.items()))
        raise LayerSelectionError(f"{name}: what comes into it cannot be told: {doubt}; prune other layers too")
    summary = PruneSummary(
        layers=layers,
        kept_by_layer={layer.name: found.kept[layer.name] for layer in layers},
        connected=None,
        rounds=1,
        scope=scope,
        whole=tuple(layer.name for layer in layers if layer.name in amounts.whole),
        ties=noteworthy(found.ties, sum(found.kept.values())),
    )
    return BlockMasks(summary, found.bits, tuple(dict.fromkeys(found.unseen)), found.doubts)


def amounts_of(model: LanguageModel, request: PruneRequest) -> _Amounts:
    """How much each layer keeps. Raises `DensityError`, `LayerSelectionError`."""
    layers = select_layers(model.layers, request.ignore)
    if request.pattern is not None:
        PatternQuota(layers, request.pattern).steps(1)  # sees to the pattern
        whole = frozenset(layer.name for layer in layers if not fits(request.pattern, layer))
        return _Amounts(layers, {layer.name: request.pattern.density for layer in layers}, whole)
    if request.densities is not None:
        given = given_densities(request.densities, model.layers, layers)
        GivenQuota({layer.name: layer.shape for layer in layers}, given).steps(1)  # sees to what is kept at all
        _check_outputs(request.method, layers, given)
        return _Amounts(layers, given, frozenset())
    assert request.density is not None
    layer_counts("uniform", {layer.name: layer.shape for layer in layers}, request.density)  # as above
    each = {layer.name: request.density for layer in layers}
    _check_outputs(request.method, layers, each)
    return _Amounts(layers, each, frozenset())


def _check_outputs(method: Method, layers: Iterable[PrunableLayer], densities: Mapping[str, float]) -> None:
    """Raise `DensityError` where each output is to keep its share, and none would keep one input."""
    assert method.by_matrix is not None
    inputs = {layer.name: layer.layout.matrix(layer.shape)[1] for layer in layers}
    if method.by_matrix.scope == "output" and not any(kept_count(densities[name], inputs[name]) for name in inputs):
        most = max(inputs.values())
        raise DensityError(
            f"{option('density', max(densities.values()))}: {method.name} keeps that of the inputs of each output, and of "
            f"{most:,} at most it is less than half of one; give {1 / most:.3g} or more"
        )


def function_of(method: Method) -> PruneMatrix:
    """What prunes a matrix, imported now."""
    assert method.by_matrix is not None
    module, _, name = method.by_matrix.function.partition(":")
    found: PruneMatrix = getattr(import_module(module), name)
    return found


class _Meter:
    """Steps done, of those that there are."""

    def __init__(self, progress: Progress, total: int):
        self._progress = progress
        self.total, self.done, self.what = total, 0, ""

    def step(self) -> None:
        """One sequence more."""
        self.done += 1
        self._progress(min(self.done, self.total - 1), self.total, self.what)


class _Run(NamedTuple):
    model: LanguageModel
    request: PruneRequest
    amounts: _Amounts
    prune: PruneMatrix
    write: Write | None


def _prune_head(run: _Run, stream: Stream, tokens: torch.Tensor, found: _Found) -> None:
    """Prune the head by what the pruned blocks make of the text."""
    model, slot, by, device = run.model, run.model.head, run.request.method.by_matrix, run.request.device
    assert slot is not None
    assert by is not None
    with model.in_memory((*model.front, slot.parameter), device):
        inputs = Inputs.none_yet(model.matrix(slot), by.inputs)
        at_the_head(model, stream, tokens, device, inputs.add)
        _prune_block(run, Block("", (slot,)), {slot: inputs}, found)


@torch.no_grad()
def _prune_block(run: _Run, block: Block, inputs: Mapping[Slot, Inputs], found: _Found) -> None:
    """Prune the matrices of a block in its own memory, and take note of the masks."""
    wanted = {layer.name for layer in run.amounts.layers}
    found.doubts |= {
        slot.layer.name: one.doubt for slot, one in inputs.items() if one.doubt and slot.layer.name in wanted
    }
    wanted -= found.doubts.keys()
    masks = {layer.name: np.ones(layer.shape, np.bool_) for layer in block.layers if layer.name in wanted}
    for slot in block.slots:
        name = slot.layer.name
        if name in wanted and name not in run.amounts.whole:
            masks[name] = _prune_slot(run, slot, inputs[slot], found)
    for name, mask in masks.items():
        found.bits[name], found.kept[name] = np.packbits(mask.reshape(-1)), int(np.count_nonzero(mask))
    if run.write is not None:
        for slot in block.slots:
            if slot.layer.name in masks:
                run.write(slot.layer.name, run.model.stored_value(slot))


def _prune_slot(run: _Run, slot: Slot, inputs: Inputs, found: _Found) -> NDArray[np.bool_]:
    """Prune one matrix, in the network's memory too; its mask, as its layer stores it."""
    name, request = slot.layer.name, run.request
    weight = run.model.matrix(slot)
    if not inputs.tokens:
        found.unseen.append(name)
        inputs = _of_no_text(inputs)
    if not bool(inputs.squares.isfinite().all()):
        raise ScoreError(f"{name}: what comes into it is not finite; check the weights")
    matrix = Matrix(weight, inputs, run.amounts.densities[name], request.pattern, request.invert, name)
    mask, pruned, tie = run.prune(matrix)
    # As it is stored, so that the next block sees what who loads the weights will see.
    weight.copy_(run.model.rounded(slot, pruned))
    if tie.tied:
        found.ties[name] = tie
    kept: NDArray[np.bool_] = (mask.T if slot.layer.layout.transposed else mask).cpu().numpy()
    return kept


def _of_no_text(inputs: Inputs) -> Inputs:
    """Inputs that tell nothing: as large each, and none like another."""
    gram = None if inputs.gram is None else torch.eye(len(inputs.gram)).to(inputs.gram)
    return Inputs(torch.ones_like(inputs.squares), gram, tokens=1, sequences=1)
