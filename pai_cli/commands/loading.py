"""What several commands do first: open a network, or put workers to masks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pai_cli.analysis.masks import AnalysisRequest, MaskReport
    from pai_cli.api.working import Working
    from pai_cli.commands.options import Amount, ScopeChoice
    from pai_cli.compute.device import Device
    from pai_cli.data.base import Dataset
    from pai_cli.files.checkpoints import Checkpoint
    from pai_cli.models.network import Network
    from pai_cli.progress import Progress
    from pai_cli.pruning.base import Method
    from pai_cli.pruning.run import PruneRequest


def method_of(name: str) -> Method:
    """The method of that name; a wrong one is told before anything slow is imported."""
    from pai_cli.display.console import warn
    from pai_cli.methods.registry import faults_beside, get

    for fault in faults_beside(name):
        warn(fault)
    return get(name)


def open_network(
    checkpoint: Path,
    model: str | None,
    input_shape: tuple[int, ...] | None,
    *,
    trust: bool,
) -> tuple[Checkpoint, Network]:
    """The checkpoint and its network."""
    from pai_cli.files.checkpoints import open_checkpoint

    source = open_checkpoint(checkpoint, trust=trust)  # its faults are told before torch is imported
    from pai_cli.models.network import load_network

    return source, load_network(source, model, input_shape)


def open_to_prune(
    checkpoint: Path,
    model: str | None,
    input_shape: tuple[int, ...] | None,
    method: Method,
    *,
    trust: bool,
    whole: bool,
) -> tuple[Checkpoint, Network, bool]:
    """The checkpoint, its network, and whether that is an outline without values, to be pruned piece by piece.

    `whole`: the network's values are needed for more than its mask.
    """
    from pai_cli.files.checkpoints import open_checkpoint
    from pai_cli.pruning.streaming.when import in_pieces

    source = open_checkpoint(checkpoint, trust=trust)  # its faults are told before torch is imported
    pieces = not whole and in_pieces(source, method, model)
    from pai_cli.models.network import load_network, outline_network

    return source, (outline_network if pieces else load_network)(source, model, input_shape), pieces


def prune_request(
    method: Method,
    amount: Amount,
    *,
    device: Device,
    scope: ScopeChoice | None,
    ignore: list[str] | None,
    **others: Any,
) -> PruneRequest:
    """The options as the pruning engine takes them, with a word on a density that nobody gave; a device that is not there
    is refused.

    `others`: fields of `PruneRequest` that the command line has as they are.
    """
    from pai_cli.compute.device import resolve
    from pai_cli.display.pruning import tell_amount
    from pai_cli.pruning.run import PruneRequest

    request = PruneRequest(
        method=method,
        density=amount.density,
        density_default=amount.default,
        pattern=amount.pattern,
        densities=amount.densities,
        scope=scope.value if scope else None,
        ignore=tuple(ignore or ()),
        device=resolve(device),
        **others,
    )
    tell_amount(request)
    return request


def accept(source: Checkpoint, network: Network, request: PruneRequest) -> Dataset | None:
    """Refuse a request that cannot be, before any work; then say on standard error what was recognised.

    Gives the dataset that the request names, opened; None for a method without data.
    """
    from pai_cli.display.console import note
    from pai_cli.pruning.run import check_request

    check_request(network, request)
    dataset = None
    if request.data is not None:
        from pai_cli.pruning.samples import open_samples

        dataset = open_samples(request)
    where = f" ({source.description})" if source.description else ""
    note(f"{source.path}{where}: {network.description}, {network.total:,} prunable weights")
    return dataset


def samples_story(dataset: Dataset | None, request: PruneRequest) -> dict[str, str]:
    """What a mask should tell of its samples; {} for a method without data."""
    if dataset is None:
        return {}
    from pai_cli.pruning.samples import story

    return story(dataset, request)


@contextmanager
def reports_of(
    paths: Sequence[Path], request: AnalysisRequest, working: Working, progress: Progress
) -> Iterator[Iterator[MaskReport]]:
    """Reports of the masks, measured as `working` says; workers and store are let go at the end of the block."""
    from contextlib import closing

    from pai_cli.analysis.many import analyze_masks, jobs_for
    from pai_cli.compute.pool import open_pool
    from pai_cli.display.console import note
    from pai_cli.files.store import open_store, without_store

    jobs = jobs_for(paths, request, working.jobs, working.cluster)
    with (
        closing(without_store() if working.no_store else open_store(working.store, note)) as store,
        open_pool(jobs, working.cluster) as pool,
        closing(analyze_masks(paths, request, progress, pool=pool, store=store)) as reports,
    ):
        yield reports
