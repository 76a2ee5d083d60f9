"""What is asked of a pruning method, as `prune` and `sample` ask it; and what is said of what came out."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from pai_cli.api.inputs import Amount, device_of, globs_of, one_of, tell_network
from pai_cli.api.unrolling import tell_idle
from pai_cli.errors import CollapseError, UnknownMethodError
from pai_cli.pruning.base import Scope
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


def method_of(name: str | Method | None) -> Method:
    """The method of that name; a wrong one is told before anything slow is imported. Raises `UnknownMethodError`."""
    from pai_cli.methods.registry import faults_beside, get, given
    from pai_cli.pruning.base import Method

    if isinstance(name, Method):
        return name
    if not isinstance(name, (str, type(None))):
        raise UnknownMethodError(f"{option('method')}: give a name, not {type(name).__name__}")
    name = given(name)
    for fault in faults_beside(name):
        warn(fault)
    return get(name)


def request_of(
    method: Method,
    amount: Amount,
    source: Any,
    *,
    device: str,
    scope: str | None,
    ignore: Any,
    ties: str | None,
    **others: Any,
) -> PruneRequest:
    """The request, with a word on a density that nobody gave.

    `source`: what was given as the checkpoint, which may be on a device. `others`: fields of `PruneRequest` as they are.
    Raises `DeviceError` for a device that is not there.
    """
    from pai_cli.pruning.run import PruneRequest
    from pai_cli.pruning.ties import RULES

    request = PruneRequest(
        method=method,
        density=amount.density,
        density_default=amount.default,
        pattern=amount.pattern,
        densities=amount.densities,
        scope=None if scope is None else one_of("scope", scope, SCOPES),
        ignore=globs_of(ignore),
        device=device_of(device, source),
        ties=RULES[0] if ties is None else one_of("ties", ties, RULES),
        **others,
    )
    if request.density_default:
        kept = request.smallest_density
        note(
            f"keeping {100 * kept:g}% of the weights, density {kept:g} (the default; {option('density')} or "
            f"{option('sparsity')} changes it)"
        )
    return request


def samples_of(data: Any) -> tuple[str | None, Dataset | None]:
    """What a request names as its data, and the data themselves where they are no name or path."""
    if data is None or isinstance(data, (str, Path)):
        return (None if data is None else str(data)), None
    from pai_cli.api.samples import as_dataset

    return None, as_dataset(data)


def accept(source: Checkpoint, network: Network, request: PruneRequest, dataset: Dataset | None) -> Dataset | None:
    """Refuse a request that cannot be, before any work; then say what was recognised.

    Gives the data: those given, or the dataset that the request names, opened; None for a method without data.
    """
    from pai_cli.pruning.run import check_request

    check_request(network, request, has_samples=dataset is not None)
    if request.data is not None:
        from pai_cli.pruning.samples import open_samples

        dataset = open_samples(request)
    tell_network(source, network)
    return dataset


def story_of(dataset: Dataset | None, request: PruneRequest) -> dict[str, str]:
    """What a mask should tell of its samples; {} for a method without data."""
    if dataset is None:
        return {}
    from pai_cli.pruning.samples import story

    return story(dataset, request)


def tell_pruning(result: PruneSummary, *, no_collapse: bool, rule: TieRule = "first") -> None:
    """Warn of collapsed layers, of those that no pattern fits and of a network cut through; say what ties were settled.

    Raises `CollapseError` when collapse is refused.
    """
    if result.whole:
        warn(f"the pattern does not divide the inputs of {', '.join(result.whole)}: left whole")
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
    from math import prod

    from pai_cli.files.messages import some_names

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
