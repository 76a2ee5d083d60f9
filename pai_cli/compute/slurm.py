"""Dask workers that Slurm starts. How large a job is, its queue and its time stand in Dask's own configuration."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Any

from pai_cli.compute.stopping import handlers_kept
from pai_cli.errors import ClusterError, install
from pai_cli.printable import first_line
from pai_cli.spelling import option

LOOK = 0.2  # seconds between looks at whether a worker has come

SETTINGS = "~/.config/dask/jobqueue.yaml"


@contextmanager
def slurm_workers(jobs: int) -> Iterator[Any]:
    """A Dask client of a scheduler in this process, once the first of `jobs` Slurm jobs works for it; the jobs end with the
    block. Raises `ClusterError` when the settings do not say what a job is, or Slurm does not take one.
    """
    try:
        with handlers_kept():
            dask, jobqueue, distributed = (import_module(name) for name in ("dask", "dask_jobqueue", "distributed"))
    except ImportError as error:
        raise ClusterError(f"{option('cluster', 'slurm')}: needs dask-jobqueue; {install('dask')}") from error
    cores, memory, processes = (dask.config.get(f"jobqueue.slurm.{name}") for name in ("cores", "memory", "processes"))
    if cores is None or memory is None:
        raise ClusterError(
            f"{option('cluster', 'slurm')}: set jobqueue.slurm.cores and jobqueue.slurm.memory, of one job, in "
            f"{SETTINGS}, and there its queue and walltime too"
        )
    faults: list[str] = []
    # One thread each, because Python runs one at a time; and no fixed port, which other work may have.
    options = {"dashboard_address": ":0", **dask.config.get("jobqueue.slurm.scheduler-options", {})}
    try:
        cluster = jobqueue.SLURMCluster(
            job_cls=_telling(jobqueue.slurm.SLURMJob, faults), processes=processes or cores, scheduler_options=options
        )
    except (ValueError, OSError, RuntimeError) as error:
        raise ClusterError(
            f"{option('cluster', 'slurm')}: {_last_line(error)}; jobqueue.slurm is set in {SETTINGS}"
        ) from error
    with cluster, distributed.Client(cluster, set_as_default=False) as client:
        cluster.scale(jobs=jobs)
        while not client.nthreads():  # as long as the queue takes
            if faults:
                raise ClusterError(
                    f"{option('cluster', 'slurm')}: no job was taken: {faults[0]}; jobqueue.slurm is set in {SETTINGS}"
                )
            time.sleep(LOOK)
        yield client


def _telling(job: Any, faults: list[str]) -> Any:
    """The class of jobs, with a list of why they were not taken: Dask would write it to its log, and wait."""

    class TellingJob(job):  # type: ignore[misc]
        async def _submit_job(self, script: str) -> Any:
            try:
                return await super()._submit_job(script)
            except (OSError, RuntimeError) as error:
                faults.append(_last_line(error))
                self.status = import_module("distributed").Status.failed
                raise

    return TellingJob


def _last_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return first_line(lines[-1]) if lines else type(error).__name__
