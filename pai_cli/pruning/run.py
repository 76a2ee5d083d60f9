"""One run of any method: which layers, how many weights, how many rounds, and what came out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial, wraps
from math import prod
from typing import TYPE_CHECKING, Any, Concatenate, NamedTuple, ParamSpec, TypeVar

import numpy as np
from numpy.typing import NDArray

from pai_cli.models.copies import on_its_own
from pai_cli.models.spectral_norms import refuse_emptied, spectral_normed
from pai_cli.progress import Progress, silent
from pai_cli.pruning.allocation import network_count
from pai_cli.pruning.base import Batches, Masks, Scope, ScoreContext, Scorer, Scores
from pai_cli.pruning.counts import ON_HOST, Counts, NetworkQuota, PatternQuota, Quota
from pai_cli.pruning.layers import select_layers
from pai_cli.pruning.request import PruneRequest, Rounds, check_options, quota_of, rounds_of
from pai_cli.pruning.sanity import inverted, shuffled
from pai_cli.pruning.select import ScoreArrays, Selection
from pai_cli.pruning.stability import Stability
from pai_cli.pruning.ties import Tie, Ties, noteworthy
from pai_cli.pruning.trained import TrainingContext, TrainingOptions, TrainingRun

if TYPE_CHECKING:
    from torch import nn

    from pai_cli.data.base import Dataset
    from pai_cli.models.device_masks import DeviceMasks
    from pai_cli.models.network import Network, PrunableLayer

__all__ = [
    "PruneRequest",
    "PruneResult",
    "PruneSummary",
    "Rounds",
    "check_request",
    "choose_masks",
    "prune",
    "result_of",
    "score_arrays",
]


P = ParamSpec("P")
R = TypeVar("R")
WORTH_TELLING = 0.01
"""The share of kept weights on no path above which that is told."""


@dataclass(frozen=True, kw_only=True)
class PruneSummary:
    """What is worth knowing of a run, but for the masks themselves.

    `kept_by_layer`: how many weights, in network order. `connected`: whether a path of kept weights leads from input to
    output; None when that cannot be told. `rounds`: how many the schedule had. `whole`: layers that the pattern does not
    fit, all of their weights kept. `ties`: where equal scores were settled, by layer; {} where that is not worth telling.
    `stability`: what prunings of perturbed weights keep of it, where they were asked for.
    `effective`: how many kept weights are on a path from input to output; None when that cannot be told.
    """

    layers: tuple[PrunableLayer, ...]
    kept_by_layer: Mapping[str, int]
    connected: bool | None
    rounds: int
    scope: Scope
    whole: tuple[str, ...] = ()
    ties: Mapping[str, Tie] = field(default_factory=dict)
    stability: Stability | None = None
    effective: int | None = None

    @property
    def on_no_path(self) -> int:
        """Kept weights on no path from input to output; 0 where that cannot be told, or is too few to tell."""
        idle = 0 if self.effective is None else self.kept - self.effective
        return idle if idle > WORTH_TELLING * self.kept else 0

    @property
    def kept(self) -> int:
        """Number of weights kept."""
        return sum(self.kept_by_layer.values())

    @property
    def total(self) -> int:
        """Number of weights chosen from."""
        return sum(prod(layer.shape) for layer in self.layers)

    @property
    def collapsed(self) -> tuple[str, ...]:
        """Layers left with no weight."""
        return tuple(name for name, count in self.kept_by_layer.items() if count == 0)

    @property
    def density(self) -> float:
        """The fraction of weights kept, as it turned out."""
        return self.kept / self.total


@dataclass(frozen=True, kw_only=True)
class PruneResult(PruneSummary):
    """Masks in network order, and what is worth knowing of them."""

    masks: Masks = field(repr=False)  # every weight's, which is no line to read


def _apart(
    work: Callable[Concatenate[Network, PruneRequest, P], R],
) -> Callable[Concatenate[Network, PruneRequest, P], R]:
    """The function, on which inference mode and autocast of whoever calls it have no influence."""

    @wraps(work)
    def apart(network: Network, request: PruneRequest, /, *args: P.args, **named: P.kwargs) -> R:
        with on_its_own(request.device):
            return work(network, request, *args, **named)

    return apart


@_apart
def prune(
    network: Network,
    request: PruneRequest,
    progress: Progress = silent,
    dataset: Dataset | None = None,
    run: TrainingRun | None = None,
) -> PruneResult:
    """Choose which weights to keep; the network is left as it was, to the bit.

    Keeps round(density * n) weights, halves up, of the n weights of the layers not ignored: over the network
    (scope "global"), or that rule in each layer (scope "layer"; `erk` and `smart-ratio` have their own densities).
    Rounds bring no pruned weight back, but where the method `recovers` some. The same request gives the same masks.
    `dataset`: where a method with data takes its samples from, instead of opening `request.data`. `run`: of a method that
    trains, to go on from, and to find the weights in that the masks belong to.

    Raises `UnknownMethodError`, `MethodOptionError`, `DensityError`, `LayerSelectionError`, `ScoreError`,
    `DeviceError`, `DataError`; a method that trains also `RecipeError`, `TrainingError`.
    """
    ties = Ties(request.ties, request.seed)
    if request.effective:
        from pai_cli.pruning.effective import choose_effective

        check_request(network, request, has_samples=dataset is not None)

        def choose(wanted: PruneRequest) -> tuple[Masks, int]:
            ties.found.clear()
            return choose_masks(network, wanted, progress, dataset, run, ties=ties)

        masks, rounds = choose_effective(network, request, choose)
    else:
        masks, rounds = choose_masks(network, request, progress, dataset, run, ties=ties)
    result = result_of(network, request, masks, rounds)
    return replace(result, ties=noteworthy(ties.found, result.kept))


@_apart
def choose_masks(
    network: Network,
    request: PruneRequest,
    progress: Progress = silent,
    dataset: Dataset | None = None,
    run: TrainingRun | None = None,
    *,
    ties: Ties | None = None,
) -> tuple[Masks, int]:
    """The masks of `prune` and the number of rounds, without what `result_of` finds out about them. `ties` takes note of
    equal scores.
    """
    ties = ties or Ties(request.ties, request.seed)
    check_request(network, request, has_samples=dataset is not None)
    scorer, context = _scorer(network, request, dataset, progress, run or TrainingRun())
    quota = quota_of(request, network, context.layers)
    ask = partial(_asked, scorer, request, tuple(quota.shapes))
    if request.rounds == "auto":
        assert isinstance(quota, NetworkQuota)  # what `check_options` sees to
        masks, rounds = _adaptive_rounds(ask, quota, progress, ties)
    elif context.training is not None:
        rounds = context.training.rounds
        masks = _trained_rounds(scorer, quota, context.training, ties)
    else:
        rounds = request.rounds or rounds_of(request)
        masks = _fixed_rounds(ask, quota, rounds, progress, ties, recovers=request.method.recovers)
    arrays = _arrays_of(masks)
    return (shuffled(arrays, request.seed) if request.shuffle else arrays), rounds


@_apart
def score_arrays(
    network: Network, request: PruneRequest, masks: Masks | None = None, dataset: Dataset | None = None
) -> ScoreArrays:
    """What the method scores each weight under these masks, as a round of `prune` would; None: before any is pruned."""
    scorer, context = _scorer(network, request, dataset, silent, TrainingRun())
    return _arrays(scorer, masks, quota_of(request, network, context.layers))


def _scorer(
    network: Network, request: PruneRequest, dataset: Dataset | None, progress: Progress, run: TrainingRun
) -> tuple[Scorer, ScoreContext]:
    """The method's scorer, with samples where it needs them; inverted where that is asked for."""
    method = request.method
    if method.data and dataset is None:
        from pai_cli.pruning.samples import open_samples

        dataset = open_samples(request)
    context = _context(network, request, dataset, progress, run)
    scorer = _unless_emptied(method.load()(context), network.model, method.name)
    return (inverted(scorer) if request.invert else scorer), context


def _unless_emptied(scorer: Scorer, model: nn.Module, method: str) -> Scorer:
    """The scorer, which raises `CollapseError` for masks under which the network gives NaN alone."""

    def score(masks: Masks | None) -> Scores:
        refuse_emptied(model, masks or {}, f"{method}: a round")
        return scorer(masks)

    return score if spectral_normed(model) else scorer


def _context(
    network: Network, request: PruneRequest, dataset: Dataset | None, progress: Progress, run: TrainingRun
) -> ScoreContext:
    """What the method may look at: with samples where it needs them, all of the data where it trains."""
    method = request.method
    layers = select_layers(network.layers, request.ignore)
    batches: Batches = ()
    training = None
    if method.trains:
        assert dataset is not None  # what `check_options` sees to
        rounds = request.rounds if isinstance(request.rounds, int) else rounds_of(request)
        options = request.training or TrainingOptions()
        training = TrainingContext(options, dataset, rounds, request.smallest_density, progress, run)
    elif method.data:
        from pai_cli.pruning.samples import draw

        assert dataset is not None
        batches = draw(dataset, request, network)
    return ScoreContext(
        network=network,
        layers=layers,
        input_shape=request.input_shape or network.input_shape,
        device=request.device,
        seed=request.seed,
        batches=batches,
        method=method.name,
        # A pattern's are of groups; inverted, the last that a method would take come first, so it must take them all.
        counts=None if request.pattern or request.invert else quota_of(request, network, layers).steps(1)[-1],
        training=training,
        batch_norm=request.normalises_by or "batch",
        progress=progress,
    )


def check_request(network: Network, request: PruneRequest, *, has_samples: bool = False) -> None:
    """Raise what `prune` would raise for a request that cannot be, before any work is done for it.

    `has_samples`: whether samples come from elsewhere than `request.data`.
    """
    check_options(request, has_samples=has_samples)
    layers = select_layers(network.layers, request.ignore)
    quota_of(request, network, layers).steps(1)
    if request.normalises_by is not None:
        from pai_cli.pruning.normalising import check_batch_norms

        check_batch_norms(network, request)


class Asked(NamedTuple):
    """What a method says in a round, `scores` and their `flow`; the `masks` of the weights to choose from, None for all; and
    what selects, `by`: all of them arrays, or tensors on the device.
    """

    scores: Mapping[str, Any]
    flow: float | None
    masks: Masks | None
    by: Selection


Ask = Callable[[Masks | None], Asked]


def _asked(scorer: Scorer, request: PruneRequest, names: tuple[str, ...], masks: Masks | None) -> Asked:
    """A round's scores of these layers. They are selected from where they are, and masks that came out there stay there;
    a method that needs arrays is given arrays.
    """
    scores = scorer(masks if masks is None or request.method.device_masks else _arrays_of(masks))
    values = {name: scores.values[name] for name in names}
    masks = None if request.method.recovers else masks
    device = request.device
    away = device != "cpu" and {one.device.type for one in values.values()} == {device.partition(":")[0]}
    if isinstance(masks, dict) or not away:
        arrays = {name: _as_numpy(one) for name, one in values.items()}
        return Asked(arrays, scores.flow, None if masks is None else _arrays_of(masks), ON_HOST)
    from pai_cli.pruning.on_device import ON_DEVICE, in_full

    return Asked(in_full(values), scores.flow, masks, ON_DEVICE)


def _arrays_of(masks: Masks | DeviceMasks) -> Masks:
    return masks if isinstance(masks, dict) else masks.arrays()


def _fixed_rounds(
    ask: Ask, quota: Quota, rounds: int, progress: Progress, ties: Ties, *, recovers: bool = False
) -> Masks:
    masks: Masks | None = None
    before: Counts | None = None
    steps = quota.steps(rounds)
    for done, counts in enumerate(steps, start=1):
        # The same number again would keep the same weights, where none comes back: near the end of a small layer rounds
        # often ask for that.
        if masks is None or counts != before or recovers:
            found = ask(masks)
            masks = quota.keep(found.scores, counts, found.masks, ties, found.by)
        before = counts
        progress(done, len(steps), "scoring weights")
    assert masks is not None  # there is at least one round
    return masks


def _trained_rounds(scorer: Scorer, quota: Quota, training: TrainingContext, ties: Ties) -> Masks:
    """Every round, as each is so much training; from where the run stands. The method tells its own progress."""
    masks = training.run.masks
    for counts in quota.steps(training.rounds)[training.run.done :]:
        masks = quota.keep(_arrays(scorer, masks, quota), counts, masks, ties)
    assert masks is not None  # the last round leaves none to go on from
    return masks


def _adaptive_rounds(ask: Ask, quota: NetworkQuota, progress: Progress, ties: Ties) -> tuple[Masks, int]:
    target = network_count(quota.density, quota.total)
    masks: Masks | None = None
    left = quota.total
    rounds = 0
    while masks is None or left > target:
        found = ask(masks)
        assert found.flow is not None  # what `Method.adaptive` promises
        left = found.by.safe_count(found.scores, found.masks, target, found.flow)
        masks = found.by.largest(found.scores, left, found.masks, ties)
        rounds += 1
        progress(quota.total - left, quota.total - target, f"round {rounds}")
    return masks, rounds


def _arrays(scorer: Scorer, masks: Masks | None, quota: Quota) -> ScoreArrays:
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


def result_of(network: Network, request: PruneRequest, masks: Masks, rounds: int) -> PruneResult:
    """What `prune` would say of masks it made before: counts, collapsed layers, connectedness.

    `masks`: one boolean array a layer that the request prunes. `rounds`: how many the run had that made them.
    """
    from pai_cli.pruning.connectivity import is_connected
    from pai_cli.pruning.effective import count_effective, unrolled

    layers = select_layers(network.layers, request.ignore)
    input_shape = request.input_shape or network.input_shape
    quota = quota_of(request, network, layers)
    found = unrolled(network.model, input_shape)
    effective = None if found is None else count_effective(found, masks)
    connected = is_connected(network, masks, input_shape, request.device) if effective is None else effective > 0
    return PruneResult(
        masks=masks,
        layers=layers,
        kept_by_layer={name: int(np.count_nonzero(mask)) for name, mask in masks.items()},
        connected=connected,
        effective=effective,
        rounds=rounds,
        scope=quota.scope,
        whole=quota.whole if isinstance(quota, PatternQuota) else (),
    )
