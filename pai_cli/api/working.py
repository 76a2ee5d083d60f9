"""Who works, and where what they finish is kept."""

from __future__ import annotations

from dataclasses import dataclass
from os import PathLike
from pathlib import Path

from pai_cli.errors import UsageError
from pai_cli.spelling import option


@dataclass(frozen=True)
class Working:
    """`jobs` processes of this machine or a `cluster`; finished reports are looked up and kept in `store`, or not at all.

    See `api.analyze.analyze` for each.
    """

    jobs: int | None = None
    cluster: str | None = None
    store: Path | None = None
    no_store: bool = False

    @staticmethod
    def of(
        jobs: int | None, cluster: str | None, store: str | PathLike[str] | None = None, *, no_store: bool = False
    ) -> Working:
        """What a caller says of it. Raises `UsageError` when it makes no sense together."""
        from pai_cli.spectral.parameters import whole_number

        if jobs is not None:
            whole_number("jobs", jobs, 1, 2**31)
        if cluster == "slurm" and jobs is None:
            raise UsageError(
                f"{option('cluster', 'slurm')}: give {option('jobs', 'N')}, how many jobs to ask Slurm for"
            )
        if cluster not in (None, "slurm") and jobs is not None:
            raise UsageError(
                f"{option('jobs')}: the cluster at {cluster} has the workers it has; leave {option('jobs')} out"
            )
        if no_store and store is not None:
            raise UsageError(f"{option('store')} and {option('no_store')} exclude each other: give one")
        return Working(jobs, cluster, None if store is None else Path(store), no_store)


def refuse_idle_force(*outputs: object, force: bool) -> None:
    """Raise `UsageError` for a `force` where no file is written that it could replace."""
    if force and not any(outputs):
        raise UsageError(
            f"{option('force')}: no file is written; give {option('plot')} or {option('report')}, or leave it out"
        )
