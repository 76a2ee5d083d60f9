"""Who works, and where what they finish is kept."""

from __future__ import annotations

import re
from dataclasses import dataclass
from os import PathLike
from pathlib import Path

from pai_cli.errors import ParameterError, UsageError
from pai_cli.refusals import Idle
from pai_cli.spectral.parameters import shown, whole_number
from pai_cli.spelling import option

WORKING = (
    Idle(
        ("cluster",),
        f"{{value}}: give {option('jobs', 'N')}, how many jobs to ask Slurm for",
        without=("jobs",),
        where=lambda call: call.cluster == "slurm",
    ),
    Idle(
        ("jobs",),
        "{it}: the cluster at {cluster} has the workers it has; leave {it} out",
        beside=("cluster",),
        where=lambda call: call.cluster != "slurm",
    ),
    Idle(("store",), f"{{it}} and {option('no_store')} exclude each other: give one", beside=("no_store",)),
)


ADDRESS = re.compile(r"((tcp|tls|ucx|wss?)://)?([^\s:/\[\]]+|\[[\w:.%]+\]):(\d{1,5})")
"""Of a Dask scheduler, as it prints it; tcp where no scheme stands before it."""


def check_cluster(cluster: str | None) -> None:
    """Raise `UsageError` for what is neither an address nor "slurm"."""
    if cluster is None or cluster == "slurm":
        return
    found = ADDRESS.fullmatch(cluster) if isinstance(cluster, str) else None
    if found is None or not 0 < int(found[4]) < 2**16:
        raise UsageError(
            f"{option('cluster', shown(cluster))}: is no address of a Dask scheduler; give the one that `dask scheduler` "
            "prints, such as tcp://HOST:8786, or slurm"
        )


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
        """What a caller says of it. Raises `ParameterError`."""
        check_cluster(cluster)
        if jobs is not None:
            whole_number("jobs", jobs, 1, 2**31)
        if store is not None and not isinstance(store, str | PathLike):
            raise ParameterError(
                f"{option('store', shown(store))}: give a file's path; {option('no_store')} keeps nothing"
            )
        return Working(jobs, cluster, None if store is None else Path(store), no_store)
