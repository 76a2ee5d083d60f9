"""Where pieces of work run: in this process, in processes of this machine, or on a Dask cluster, through one interface."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager

from pai_cli.compute.pieces import Here, Outcome, Pool
from pai_cli.compute.threads import all_cores

__all__ = ["Outcome", "Pool", "open_pool"]


@contextmanager
def open_pool(jobs: int | None, cluster: str | None = None) -> Iterator[Pool]:
    """Workers for the time of the block; however it ends, none of this machine's is left.

    `jobs`: how many processes of this machine, None for one a core; a single one is this very process. `cluster`: the
    address of a Dask scheduler, whose workers do the work instead, or "slurm", which is asked for `jobs` jobs.
    Raises `ClusterError` when there is no such cluster or it cannot do the work.
    """
    if cluster is not None:
        from pai_cli.compute.cluster import open_cluster

        with open_cluster(cluster, jobs) as pool:
            yield pool
        return
    count = all_cores() if jobs is None else jobs
    if count == 1:
        yield Here()
        return
    from pai_cli.compute.processes import Processes

    with closing(Processes(count)) as processes:
        yield processes
