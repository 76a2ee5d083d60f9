"""What several commands do first: open a network, or put workers to masks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pai_cli.analysis.masks import AnalysisRequest, MaskReport
    from pai_cli.api.working import Working
    from pai_cli.files.checkpoints import Checkpoint
    from pai_cli.models.network import Network
    from pai_cli.progress import Progress


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
