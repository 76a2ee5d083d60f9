"""The files that a run leaves beside its output, to be continued from: their names, and whose run one is of."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

SUFFIX = ".safetensors"
STATE = ".state.safetensors"
JOURNAL = ".jsonl"

MOST_BYTES = 2**26  # of a header or a first line that are looked into: more has no run of ours


@dataclass(frozen=True)
class Run:
    """A command whose runs can be continued, and what it calls one."""

    command: str
    noun: str


PRUNE = Run("pai prune", "training")
SAMPLE = Run("pai sample", "search")
TRAIN = Run("pai train", "training")


def state_beside(path: Path, suffix: str = SUFFIX) -> Path:
    """The state of the run that writes `path`: X.state.safetensors of X.safetensors, or of X with another `suffix`."""
    return path.with_name(path.name.removesuffix(suffix) + STATE)


def journal_beside(out: Path) -> Path:
    """The lines of the run that writes `out`: X.jsonl of X.safetensors."""
    return out.with_name(out.name.removesuffix(SUFFIX) + JOURNAL)


def run_of(path: Path) -> Run | None:
    """Whose run a file is the state or the journal of, by how it begins; None for any other file."""
    try:
        if not path.is_file():
            return None
        with path.open("rb") as stream:
            start = stream.read(8)
            if start.startswith(b"{") and b"\0" not in start:  # else it is a length, of a state's header
                return _of_journal(start + stream.readline(MOST_BYTES))
            return _of_state(_metadata(start, stream))
    except (OSError, ValueError, TypeError, RecursionError):
        return None


def _of_journal(line: bytes) -> Run | None:
    first = json.loads(line)
    if type(first.get("trajectory")) is int:
        return SAMPLE
    return TRAIN if type(first.get("training")) is int else None


def _of_state(told: dict[str, Any]) -> Run | None:
    if "search" in told:
        return SAMPLE
    if "training" in told and "settings" in told:
        settings: Any = json.loads(told["settings"])
        return PRUNE if isinstance(settings, dict) and "method" in settings else TRAIN
    return None


def tells(path: Path, facts: Mapping[str, str], *keys: str) -> bool:
    """Whether a safetensors file tells these facts of how it was made, and anything of `keys`: so that a run knows what it
    wrote itself.
    """
    try:
        with path.open("rb") as stream:
            told = _metadata(stream.read(8), stream)
    except (OSError, ValueError, RecursionError):
        return False
    return facts.items() <= told.items() and told.keys() >= set(keys)


def _metadata(length: bytes, stream: BinaryIO) -> dict[str, Any]:
    """What a safetensors file tells of itself, whose header is so long and comes next; {} where it is none."""
    size = int.from_bytes(length, "little")
    header = json.loads(stream.read(size)) if size <= MOST_BYTES else None
    told = header.get("__metadata__") if isinstance(header, dict) else None
    return told if isinstance(told, dict) else {}
