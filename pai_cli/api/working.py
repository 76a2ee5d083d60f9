"""Who works, and where what they finish is kept."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Working:
    """`jobs` processes of this machine or a `cluster`; finished reports are looked up and kept in `store`, or not at all.

    See `api.analyze.analyze` for each.
    """

    jobs: int | None = None
    cluster: str | None = None
    store: Path | None = None
    no_store: bool = False
