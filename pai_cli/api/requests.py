"""What is asked of a pruning method, as `prune` and `sample` ask it; and what is said of what came out."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pai_cli.api.inputs import Amount, device_of, globs_of, tell_network, tell_resizing
from pai_cli.api.unrolling import tell_idle
from pai_cli.errors import CollapseError, MethodOptionError, UnknownMethodError
from pai_cli.files.fits import count
from pai_cli.files.messages import some_names
from pai_cli.pruning.base import BatchNorm, Method, Scope, Takers
from pai_cli.refusals import Idle, refuse
from pai_cli.spectral.parameters import one_of
from pai_cli.spelling import option
from pai_cli.telling import note, warn

if TYPE_CHECKING:
    from pai_cli.data.base import Dataset
    from pai_cli.files.checkpoints import Checkpoint
    from pai_cli.models.network import Network
    from pai_cli.pruning.base import Method
    from pai_cli.pruning.run import PruneRequest, PruneSummary
    from pai_cli.pruning.ties import TieRule


SCOPES: tuple[Scope, ...] = ("global", "layer")
BATCH_NORMS: tuple[BatchNorm, ...] = ("batch", "running")


IDLE = (
    Idle(
        ("dataset",),
        f"{option('data')}: {{method.name}} needs no data; leave {option('data')} out (methods that take it: "
        "{takers.data})",
        where=lambda call: not call.method.data,
    ),
)


IDLE_NORMALISE = Idle(
    ("normalise",),
    f"{{it}}: is about the values of the data; give {option('data')}, or leave it out",
    without=("data",),
)


def method_of(name: str | Method | None) -> Method:
    """The method of that name; a wrong one is told before anything slow is imported. Raises `UnknownMethodError`."""
    from pai_cli.methods.registry import faults_beside, get, given

    if isinstance(name, Method):
        return name
    if not isinstance(name, (str, type(None))):
        raise UnknownMethodError(f"{option('method')}: give a name, not {type(name).__name__}")
    name = given(name)
    for fault in faults_beside(name):
        warn(fault)
    return get(name)


AS_GIVEN = ("seed", "per_class", "shuffle", "invert", "effective", "normalise")
"""Fields of a request that are parameters as they are."""


def request_of(method: Method, amount: Amount, asked: Mapping[str, Any], **read: Any) -> PruneRequest:
    """The request, with a word on a density that nobody gave.

    `asked`: the parameters of `prune` or `sample`. `read`: fields that something was made of. Raises `DeviceError` for a
    device that is not there.
    """
    from pai_cli.pruning.run import PruneRequest
    from pai_cli.pruning.ties import RULES

    request = PruneRequest(
        method=method,
        density=amount.density,
        density_default=amount.default,
        pattern=amount.pattern,
        densities=amount.densities,
        scope=None if asked["scope"] is None else one_of("scope", asked["scope"], SCOPES),
        ignore=globs_of(asked["ignore"]),
        device=device_of(asked["device"], asked["checkpoint"]),
        batch_norm=None if asked["batch_norm"] is None else one_of("batch_norm", asked["batch_norm"], BATCH_NORMS),
        ties=RULES[0] if asked["ties"] is None else one_of("ties", asked["ties"], RULES),
        **{name: asked[name] for name in AS_GIVEN if name in asked},
        **read,
    )
    if request.density_default:
        kept = request.smallest_density
        note(
            f"keeping {100 * kept:g}% of the weights, density {kept:g} (the default; {option('density')} or "
            f"{option('sparsity')} changes it)"
        )
    return request


def samples_of(data: Any, *, normalise: bool) -> tuple[str | None, Dataset | None]:
    """What a request names as its data, and the data themselves where they are no name or path."""
    if data is None or isinstance(data, (str, Path)):
        return (None if data is None else str(data)), None
    from pai_cli.api.samples import as_dataset

    return None, as_dataset(data, normalise=normalise)


def accept(source: Checkpoint, network: Network, request: PruneRequest, dataset: Dataset | None) -> Dataset | None:
    """Refuse a request that cannot be, before any work; then say what was recognised.

    Gives the data: those given, or the dataset that the request names, opened; None for a method without data.
    """
    from pai_cli.pruning.run import check_request

    refuse(accept, IDLE, {"dataset": dataset, "method": request.method, "takers": Takers()}, MethodOptionError)
    check_request(network, request, has_samples=dataset is not None)
    if request.data is not None:
        from pai_cli.pruning.samples import open_samples

        dataset = open_samples(request)
    tell_network(source, network)
    if dataset is not None and request.data is None:
        tell_resizing(dataset, network, request.input_shape)
    if dataset is not None and not request.method.trains:
        _tell_samples(dataset, network, request)
    return dataset


def _tell_samples(dataset: Dataset, network: Network, request: PruneRequest) -> None:
    """How many samples score, and what is made of them."""
    from pai_cli.data.batches import told_inputs
    from pai_cli.pruning.request import USUAL_PER_CLASS

    count = request.per_class or USUAL_PER_CLASS
    usual = "" if request.per_class else f" (the default; {option('per_class')} changes it)"
    shape = request.input_shape or network.input_shape or getattr(dataset, "input_shape", None) or dataset.shape
    note(f"{dataset.name}: {count} samples of each of {dataset.classes} classes{usual}; {told_inputs(dataset, shape)}")
    from pai_cli.pruning.normalising import told_statistics

    if told := told_statistics(network, request):
        note(told)


def story_of(dataset: Dataset | None, request: PruneRequest, network: Network) -> dict[str, str]:
    """What a mask should tell of its samples, and of batch norms; {} for a method without data."""
    if dataset is None:
        return {}
    from pai_cli.pruning.normalising import story_of_batch_norms
    from pai_cli.pruning.samples import story

    return {**story(dataset, request), **story_of_batch_norms(network, request)}


def tell_pruning(result: PruneSummary, network: Network, *, no_collapse: bool, rule: TieRule = "first") -> None:
    """Warn of collapsed layers, of those that no pattern fits and of a network cut through; say what ties were settled, and
    what the network keeps with the layers that were ignored.

    Raises `CollapseError` when collapse is refused.
    """
    if result.whole:
        warn(f"the pattern does not divide the inputs of {', '.join(result.whole)}: left whole")
    sizes = {layer.name: prod(layer.shape) for layer in network.layers}
    if told := count(sizes, result.kept_by_layer).of_network():
        note(f"{option('ignore')}: {told}")
    if result.ties:
        _tell_ties(result, rule)
    if result.collapsed:
        names = ", ".join(result.collapsed)
        if no_collapse:
            raise CollapseError(
                f"{option('no_collapse')}: {len(result.collapsed)} layers would keep no weight ({names}); "
                f"raise {option('density')}, or take {option('scope', 'layer')}"
            )
        warn(f"layer collapse: {names} kept no weight")
    if result.connected is False:
        warn("no path of kept weights leads from the input to the output: nothing can be trained")
    elif result.on_no_path:
        tell_idle(result.on_no_path, result.kept)


def _tell_ties(result: PruneSummary, rule: TieRule) -> None:
    """Which layers' weights were chosen by no score."""
    sizes = {layer.name: prod(layer.shape) for layer in result.layers}
    tied, kept = (sum(getattr(tie, which) for tie in result.ties.values()) for which in ("tied", "kept"))
    shares = some_names(f"{name} ({100 * tie.tied / sizes[name]:.3g}% of it)" for name, tie in result.ties.items())
    how = "drawn" if rule == "random" else f"the first; {option('ties', 'random')} draws them"
    ties = (
        f"{tied:,} weights have the very score at which the cut falls, in {shares}: the {kept:,} of them that are kept are "
        f"{how}"
    )
    if kept == result.kept:
        warn(f"no score decides what is kept: {ties}")
    else:
        note(ties)
