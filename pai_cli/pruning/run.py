"""One run of any method: which layers, how many weights, how many rounds, and what came out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from pai_cli.errors import LayerSelectionError, MethodOptionError
from pai_cli.files.words import some_names
from pai_cli.models.seeds import check_seed
from pai_cli.progress import Progress, silent
from pai_cli.pruning import registry
from pai_cli.pruning.allocation import layer_counts, network_count
from pai_cli.pruning.base import Allocation, Masks, Method, Scope, ScoreContext, Scorer
from pai_cli.pruning.schedule import exponential, safe_count
from pai_cli.pruning.select import ScoreArrays, keep_largest, keep_largest_by_layer

if TYPE_CHECKING:
    from pai_cli.models.network import Network, PrunableLayer

Rounds = int | Literal["auto"]


@dataclass(frozen=True)
class PruneRequest:
    """What is asked for; None leaves a choice to the method, or the input shape to the network.

    `ignore`: globs of layer names, with or without their `.weight`; such layers stay whole and are not
    counted.
    """

    method: str
    density: float
    scope: Scope | None = None
    seed: int = 0
    rounds: Rounds | None = None
    ignore: tuple[str, ...] = ()
    device: str = "cpu"
    input_shape: tuple[int, ...] | None = None


@dataclass(frozen=True)
class PruneResult:
    """Masks in network order, and what is worth knowing of them.

    `collapsed`: layers left with no weight. `connected`: whether a path of kept weights leads from input to
    output; None when that cannot be told. `rounds`: how many the schedule had.
    """

    masks: Masks
    layers: tuple[PrunableLayer, ...]
    kept: int
    total: int
    collapsed: tuple[str, ...]
    connected: bool | None
    rounds: int
    scope: Scope

    @property
    def density(self) -> float:
        """The fraction of weights kept, as it turned out."""
        return self.kept / self.total


def prune(network: Network, request: PruneRequest, progress: Progress = silent) -> PruneResult:
    """Choose which weights to keep; the network is left as it was, to the bit.

    Keeps round(density * n) weights, halves up, of the n weights of the layers not ignored: over the network
    (scope "global"), or that rule in each layer (scope "layer"; `erk` has its own densities). Rounds never
    bring a pruned weight back. The same request gives the same masks.

    Raises `UnknownMethodError`, `MethodOptionError`, `DensityError`, `LayerSelectionError`, `ScoreError`,
    `DeviceError`.
    """
    masks, rounds = choose_masks(network, request, progress)
    return result_of(network, request, masks, rounds)


def choose_masks(network: Network, request: PruneRequest, progress: Progress = silent) -> tuple[Masks, int]:
    """The masks of `prune` and the number of rounds, without what `result_of` finds out about them."""
    check_request(network, request)
    method = registry.get(request.method)
    layers = select_layers(network.layers, request.ignore)
    quota = _Quota.of(method, request.scope, layers)
    if request.input_shape is None:
        request = replace(request, input_shape=network.input_shape)
    counts = quota.counts(request.density)
    context = ScoreContext(network, layers, request.input_shape, request.device, request.seed, counts)
    scorer = method.load()(context)
    if request.rounds == "auto":
        return _adaptive_rounds(scorer, quota, request.density, progress)
    rounds = request.rounds or method.rounds
    return _fixed_rounds(scorer, quota, exponential(request.density, rounds), progress), rounds


def check_request(network: Network, request: PruneRequest) -> None:
    """Raise what `prune` would raise for a request that cannot be, before any work is done for it."""
    method = registry.get(request.method)
    _check_options(method, request)
    layers = select_layers(network.layers, request.ignore)
    _Quota.of(method, request.scope, layers).counts(request.density)


def select_layers(layers: tuple[PrunableLayer, ...], ignore: tuple[str, ...]) -> tuple[PrunableLayer, ...]:
    """The layers that no glob matches, by their names with or without `.weight`.

    Raises `LayerSelectionError` when a glob matches nothing or nothing is left.
    """
    for glob in ignore:
        if not any(_matches(layer.name, glob) for layer in layers):
            raise LayerSelectionError(
                f"--ignore {glob}: matches none of the {len(layers)} prunable layers "
                f"({some_names(layer.name for layer in layers)})"
            )
    left = tuple(layer for layer in layers if not any(_matches(layer.name, glob) for glob in ignore))
    if not left:
        cause = f"--ignore {' '.join(ignore)}: leaves" if ignore else "the network has"
        remedy = "drop a glob" if ignore else "check --model"
        raise LayerSelectionError(f"{cause} no layer to prune; {remedy}")
    return left


@dataclass(frozen=True)
class _Quota:
    """How many weights a density keeps: of the network, or of each layer."""

    shapes: Mapping[str, tuple[int, ...]]
    allocation: Allocation

    @classmethod
    def of(cls, method: Method, scope: Scope | None, layers: tuple[PrunableLayer, ...]) -> _Quota:
        allocation = method.allocation
        if allocation == "none" and scope == "layer":
            allocation = "uniform"
        return cls({layer.name: layer.shape for layer in layers}, allocation)

    @property
    def scope(self) -> Scope:
        return "global" if self.allocation == "none" else "layer"

    @property
    def total(self) -> int:
        return sum(int(np.prod(shape, dtype=np.int64)) for shape in self.shapes.values())

    def counts(self, density: float) -> int | dict[str, int]:
        if self.allocation == "none":
            return network_count(density, self.total)
        return layer_counts(self.allocation, self.shapes, density)


def _fixed_rounds(scorer: Scorer, quota: _Quota, densities: list[float], progress: Progress) -> Masks:
    masks: Masks | None = None
    before: int | dict[str, int] | None = None
    for done, density in enumerate(densities, start=1):
        counts = quota.counts(density)
        # The same number again would keep the same weights: near the end of a small layer rounds often ask
        # for that.
        if masks is None or counts != before:
            masks = _keep(_arrays(scorer, masks, quota), counts, masks)
        before = counts
        progress(done, len(densities), "scoring weights")
    assert masks is not None  # there is at least one round
    return masks


def _adaptive_rounds(scorer: Scorer, quota: _Quota, density: float, progress: Progress) -> tuple[Masks, int]:
    target = network_count(density, quota.total)
    masks: Masks | None = None
    left = quota.total
    rounds = 0
    while masks is None or left > target:
        scores = scorer(masks)
        arrays = {name: _as_numpy(scores.values[name]) for name in quota.shapes}
        assert scores.flow is not None  # what `Method.adaptive` promises
        left = safe_count(arrays, masks, target, scores.flow)
        masks = keep_largest(arrays, left, masks)
        rounds += 1
        progress(quota.total - left, quota.total - target, f"round {rounds}")
    return masks, rounds


def _arrays(scorer: Scorer, masks: Masks | None, quota: _Quota) -> ScoreArrays:
    values = scorer(masks).values
    return {name: _as_numpy(values[name]) for name in quota.shapes}


def _as_numpy(scores: Any) -> NDArray[np.floating[Any]]:
    """A score tensor as an array; half precision becomes float32, as NumPy lacks bfloat16 and is slow with
    float16.
    """
    scores = scores.detach().cpu()
    if scores.element_size() < 4:
        scores = scores.float()
    array: NDArray[np.floating[Any]] = scores.contiguous().numpy()
    return array


def _keep(arrays: ScoreArrays, counts: int | dict[str, int], active: Masks | None) -> Masks:
    if isinstance(counts, int):
        return keep_largest(arrays, counts, active)
    return keep_largest_by_layer(arrays, counts, active)


def result_of(network: Network, request: PruneRequest, masks: Masks, rounds: int) -> PruneResult:
    """What `prune` would say of masks it made before: counts, collapsed layers, connectedness.

    `masks`: one boolean array a layer that the request prunes. `rounds`: how many the run had that made them.
    """
    from pai_cli.pruning.connectivity import is_connected

    layers = select_layers(network.layers, request.ignore)
    input_shape = request.input_shape or network.input_shape
    kept = {name: int(np.count_nonzero(mask)) for name, mask in masks.items()}
    return PruneResult(
        masks=masks,
        layers=layers,
        kept=sum(kept.values()),
        total=sum(mask.size for mask in masks.values()),
        collapsed=tuple(name for name, count in kept.items() if count == 0),
        connected=is_connected(network, masks, input_shape, request.device),
        rounds=rounds,
        scope=_Quota.of(registry.get(request.method), request.scope, layers).scope,
    )


def _check_options(method: Method, request: PruneRequest) -> None:
    """Refuse an option that the method would not use: none does nothing in silence."""
    name = method.name
    check_seed(request.seed)
    if request.scope not in (None, "global", "layer"):
        raise MethodOptionError(f"--scope {request.scope}: must be global or layer")
    if request.scope == "global" and method.allocation != "none":
        raise MethodOptionError(f"--scope global: {name} fixes the density of each layer; leave --scope out")
    if request.rounds is not None:
        _check_rounds(method, request.rounds, request.scope)


def _check_rounds(method: Method, rounds: Rounds, scope: Scope | None) -> None:
    if not method.iterative:
        takers = ", ".join(m.name for m in registry.METHODS.values() if m.iterative)
        raise MethodOptionError(
            f"--rounds {rounds}: {method.name} scores once; leave --rounds out (methods that take it: {takers})"
        )
    if rounds == "auto":
        if not method.adaptive:
            takers = ", ".join(m.name for m in registry.METHODS.values() if m.adaptive)
            raise MethodOptionError(f"--rounds auto: only for {takers}; give {method.name} a number of --rounds")
        if scope == "layer":
            raise MethodOptionError(
                "--rounds auto: weighs all layers against each other; give a number of --rounds, or leave "
                "--scope layer out"
            )
    elif rounds < 1:
        raise MethodOptionError(f"--rounds {rounds}: must be at least 1, or auto")


def _matches(name: str, glob: str) -> bool:
    return fnmatchcase(name, glob) or fnmatchcase(name.removesuffix(".weight"), glob)
