"""Who makes the candidates of a search: this process, others of this machine, or a cluster."""

from __future__ import annotations

import time
from collections.abc import Generator
from dataclasses import dataclass

from pai_cli.compute.pool import open_pool
from pai_cli.compute.threads import all_cores
from pai_cli.errors import NotPortableError
from pai_cli.sampling.candidates import Candidate, Failure, Workshop, candidate

WORTH_PROCESSES = 8.0  # seconds of work in this process; others take about three to begin, for torch's import


@dataclass(frozen=True)
class Workers:
    """`jobs` processes of this machine, or those of a `cluster`.

    Without either, this process begins; where more than a few seconds of work are left, as many go on as there are cores.
    `factory`: where they find the network's code, when it is the user's own: `package.module:factory`, `file.py:factory`.
    """

    jobs: int | None = None
    cluster: str | None = None
    factory: str | None = None

    @property
    def by_themselves(self) -> bool:
        """Whether nothing was asked for."""
        return self.jobs is None and self.cluster is None


def made(workshop: Workshop, first: int, workers: Workers) -> Generator[Candidate | Failure, None, None]:
    """Every candidate from number `first` on, in order; the same ones whoever makes them.

    To be closed when it is not drawn to its end. Raises what `candidate` and the pool raise, and `NotPortableError` when
    the network cannot be sent to the processes that were asked for.
    """
    count, begun, at = workshop.request.population, time.monotonic(), first
    while workers.by_themselves and at < count and _left(begun, at - first, count - at) < WORTH_PROCESSES:
        yield candidate(workshop, at)
        at += 1
    try:
        jobs = min(workers.jobs or _usual_jobs(workshop), max(1, count - at))
        with open_pool(jobs if workers.cluster is None else workers.jobs, workers.cluster) as pool:
            for outcome in pool.map(candidate, workshop, range(at, count)):
                yield outcome.get_of(f"candidate {at}")
                at += 1
    except NotPortableError:
        if not workers.by_themselves:
            raise
        for number in range(at, count):
            yield candidate(workshop, number)


def _left(begun: float, done: int, left: int) -> float:
    """Seconds until `left` candidates are made, after those that were; 0 before the first."""
    return (time.monotonic() - begun) / done * left if done else 0.0


def _usual_jobs(workshop: Workshop) -> int:
    """A process a core; on a GPU one alone, whose memory the others would take from each other."""
    return 1 if workshop.request.prune.device.startswith("cuda") else all_cores()
