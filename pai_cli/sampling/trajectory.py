"""A search on disk: one JSON line a candidate, and the state that an interrupted search goes on from.

The first line of the trajectory says what is being searched; `state` holds the best masks, every weight any candidate
kept and, of a search that takes layers, the layers taken so far, as packed bits. Lines are written before the state, so
that after a crash there may be lines that the state has not seen: those candidates are measured again. The state tells its
own digest and that of the lines it has seen; what does not fit is refused.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from pai_cli.errors import OutputError, ResumeError
from pai_cli.files.atomic import check_output, flush_file, write_atomically
from pai_cli.files.runs import JOURNAL, journal_beside, state_beside, tells
from pai_cli.files.sealed import Chain, sealed, told_version, unsealed
from pai_cli.printable import reason_of
from pai_cli.pruning.ties import Tie
from pai_cli.spelling import option

if TYPE_CHECKING:
    import numpy as np

    from pai_cli.files.tables import Record

VERSION = 4
Settings = dict[str, Any]
Measures = dict[str, Any]  # a number or None by name, and "reason": why one is missing
LayerMeasures = dict[str, float | None]
FACTS = ("done", "best", "best_measures", "best_rounds", "layers", "sources", "best_sources", "ties", "best_ties")


@dataclass
class SearchState:
    """How far a search has come: `done` candidates; the best one's number, measures, rounds and masks; what all kept.

    Of a search that takes layers, besides: `composite`, the layers taken so far, at the exact count; `layers`, their
    measures; `sources`, the candidates they are of; `best_sources`, those of the best masks. `best_ties`: of the best masks'
    layers, how many weights had the score of the cut and how many of those are kept, where any had; `ties`: of `composite`.
    """

    done: int = 0
    best: int | None = None
    best_measures: Measures = field(default_factory=dict)
    best_rounds: int = 1
    masks: dict[str, np.ndarray] = field(default_factory=dict)
    explored: dict[str, np.ndarray] = field(default_factory=dict)
    composite: dict[str, np.ndarray] = field(default_factory=dict)
    layers: dict[str, LayerMeasures] = field(default_factory=dict)
    sources: dict[str, int] = field(default_factory=dict)
    best_sources: dict[str, int] = field(default_factory=dict)
    ties: dict[str, Tie] = field(default_factory=dict)
    best_ties: dict[str, Tie] = field(default_factory=dict)

    @property
    def kinds(self) -> dict[str, dict[str, np.ndarray]]:
        """The sets of masks, by the name they have on disk."""
        return {"best": self.masks, "explored": self.explored, "composite": self.composite}

    def become(self, after: SearchState) -> None:
        """Take over another state in one step: an interruption finds the old one or the new, never a mixture."""
        self.__dict__.update(after.__dict__)


@dataclass
class Trajectory:
    """The two files of a search: `path`, JSON lines, and `state_path`."""

    path: Path
    state_path: Path
    settings: Settings
    _chain: Chain = field(default_factory=Chain)

    def begin(self) -> None:
        """Start both files anew, in the place of those of a search before it. Raises `OutputError`."""
        self.state_path.unlink(missing_ok=True)
        self._rewrite([self._first_line().encode()])

    def resume(self) -> SearchState:
        """What was finished, the trajectory cut back to that.

        Raises `ResumeError` when there is no search, or it searched for something else; the line names what differs.
        """
        if not self.path.exists():
            raise ResumeError(f"{self.path}: no search to continue here; leave {option('resume')} out to begin one")
        try:
            lines = self.path.read_bytes().split(b"\n")[:-1]  # one that a crash cut short is not among them
        except OSError as e:
            raise ResumeError(f"{self.path}: cannot be read: {reason_of(e)}") from e
        self._check_settings(lines)
        state, digest = self._read_state()
        if len(lines) - 1 < state.done:
            raise ResumeError(
                f"{self.path}: has {len(lines) - 1} candidates, its state {state.done}; {option('force')} starts the "
                "search again"
            )
        seen = [self._first_line().encode(), *lines[1 : 1 + state.done]]
        if state.done and Chain(seen).after(len(seen)) != digest:
            raise ResumeError(
                f"{self.path}: is not as it was when {self.state_path.name} was written; {option('force')} starts the "
                "search again"
            )
        self._rewrite(seen)
        return state

    def wrote(self, mask: Path) -> bool:
        """Whether `mask` is a mask that this very search wrote: its own command, run again, may replace it."""
        own = {key: str(self.settings[key]) for key in ("source_sha256", "method", "seed")}
        density = self.settings["density"]  # None where each layer has its own
        return tells(mask, own if density is None else own | {"density": repr(density)}, "candidate")

    def append(self, record: Record) -> None:
        """Add one candidate's line, at once. Raises `OutputError`."""
        line = json.dumps(record, allow_nan=False)
        try:
            with self.path.open("a", encoding="utf-8") as stream:
                stream.write(line + "\n")
        except OSError as e:
            raise OutputError(f"{self.path}: cannot be written: {reason_of(e)}") from e
        self._chain.add(line)

    def save(self, state: SearchState) -> None:
        """Replace the state file, whole or not at all. Raises `OutputError`."""
        import numpy as np
        from safetensors.numpy import save

        packed = {
            f"{kind}/{name}": np.packbits(mask) for kind, masks in state.kinds.items() for name, mask in masks.items()
        }
        facts = {name: getattr(state, name) for name in FACTS}
        shapes = {name: list(mask.shape) for name, mask in state.masks.items()}
        metadata = {
            "lines": self._chain.after(1 + state.done),
            "search": json.dumps(self.settings, sort_keys=True),
            "facts": json.dumps(facts),
            "shapes": json.dumps(shapes),
            "version": str(VERSION),
        }
        data = sealed(save(packed), metadata)
        flush_file(self.path)  # no state is on the disk without its lines, though the power fail

        def write(stream: BinaryIO) -> None:
            stream.write(data)

        write_atomically(self.state_path, write, force=True)

    def _first_line(self) -> str:
        return json.dumps({"trajectory": VERSION, **self.settings})

    def _rewrite(self, lines: list[bytes]) -> None:
        text = b"".join(line + b"\n" for line in lines)

        def write(stream: BinaryIO) -> None:
            stream.write(text)

        write_atomically(self.path, write, force=True)
        self._chain = Chain(lines)

    def _check_settings(self, lines: list[bytes]) -> None:
        try:
            first = json.loads(lines[0]) if lines else {}
        except (ValueError, RecursionError):
            first = {}
        if not isinstance(first, dict) or "trajectory" not in first:
            raise ResumeError(f"{self.path}: is not the trajectory of a search; give another name, or remove it")
        if first["trajectory"] != VERSION:
            raise ResumeError(
                f"{self.path}: was written by another version of pai; {option('force')} starts the search again"
            )
        for key, value in self.settings.items():
            if first.get(key) != value:
                raise ResumeError(
                    f"{self.path}: that search had {key} {first.get(key)}, this one has {value}; give the same, or "
                    f"begin again with {option('force')} instead of {option('resume')}"
                )

    def _read_state(self) -> tuple[SearchState, str]:
        """The state, and the digest of the lines that it has seen."""
        from safetensors import SafetensorError
        from safetensors.numpy import load

        if not self.state_path.exists():
            return SearchState(), ""
        try:
            data = self.state_path.read_bytes()
            if told_version(data, "version") not in (None, str(VERSION)):
                raise ResumeError(
                    f"{self.state_path}: was written by another version of pai; {option('force')} starts the search "
                    "again"
                )
            metadata = unsealed(data)
            if metadata["search"] != json.dumps(self.settings, sort_keys=True):
                raise ResumeError(
                    f"{self.state_path}: belongs to another search; {option('force')} starts the search again"
                )
            facts, shapes = json.loads(metadata["facts"]), json.loads(metadata["shapes"])
            return _state_of(facts, shapes, load(data)), metadata["lines"]
        except OSError as e:
            raise ResumeError(f"{self.state_path}: cannot be read: {reason_of(e)}") from e
        except (SafetensorError, AttributeError, KeyError, TypeError, ValueError, RecursionError) as e:
            raise ResumeError(
                f"{self.state_path}: damaged ({reason_of(e)}); {option('force')} starts the search again"
            ) from e


def _state_of(facts: dict[str, Any], shapes: dict[str, Any], arrays: dict[str, np.ndarray]) -> SearchState:
    """A state from what was kept of it. Raises what it stumbles over where that is no state."""
    state = SearchState(**{name: facts[name] for name in FACTS})
    kinds = ("best", "explored", *(["composite"] if state.layers else []))
    if arrays.keys() != {f"{kind}/{name}" for kind in kinds for name in shapes}:
        raise ValueError("its tensors are not those of its masks")
    masks = {kind: {name: _bits(arrays, f"{kind}/{name}", shape) for name, shape in shapes.items()} for kind in kinds}
    state.masks, state.explored, state.composite = masks["best"], masks["explored"], masks.get("composite", {})
    for value in (state.done, state.best, state.best_rounds, *state.sources.values(), *state.best_sources.values()):
        if type(value) is not int or value < 0:
            raise ValueError(f"{value!r} is no number of a candidate")
    candidates = (state.best, *state.sources.values(), *state.best_sources.values())
    if state.best_rounds < 1 or any(one is None or one >= state.done for one in candidates):
        raise ValueError("its counts make no sense")
    if state.layers and not state.layers.keys() == state.sources.keys() == state.best_sources.keys() == shapes.keys():
        raise ValueError("its layers are not those of its masks")
    state.ties, state.best_ties = (_ties_of(facts[name], shapes) for name in ("ties", "best_ties"))
    for measures in (state.best_measures, *state.layers.values()):
        _check_measures(measures)
    return state


def _ties_of(facts: dict[str, list[int]], shapes: dict[str, Any]) -> dict[str, Tie]:
    """Ties by layer. Raises `ValueError` for what cannot be."""
    ties = {name: Tie(*numbers) for name, numbers in facts.items()}
    if not ties.keys() <= shapes.keys() or any(
        {type(tie.tied), type(tie.kept)} != {int} or not 0 <= tie.kept <= tie.tied for tie in ties.values()
    ):
        raise ValueError(f"its ties {facts}")
    return ties


def _check_measures(measures: Measures) -> None:
    """Raise `ValueError` unless every measure is a number or is missing, for a reason where one is told."""
    if not {"l2", "dr_imdb"} <= measures.keys():
        raise ValueError("measures are missing")
    for name, value in measures.items():
        kinds = (str, type(None)) if name == "reason" else (int, float, type(None))
        if type(value) not in kinds:
            raise ValueError(f"{name} is {value!r}")


def _bits(arrays: dict[str, np.ndarray], name: str, shape: list[int]) -> np.ndarray:
    import numpy as np

    stored, size = arrays[name], math.prod(shape)
    if stored.dtype != np.uint8 or stored.shape != (-(-size // 8),):
        raise ValueError(f"tensor {name!r} does not hold shape {shape}")
    return np.unpackbits(stored, count=size).astype(np.bool_).reshape(shape)


def open_search(
    mask: Path, path: Path | None, settings: Settings, *, resume: bool, force: bool
) -> tuple[Trajectory, SearchState]:
    """The trajectory of the search that writes `mask`, begun or resumed, and the state to go on from.

    `path`: of the trajectory; by default `mask` with the suffix .jsonl. Its state stands beside it. An existing `mask` is
    replaced with `force`, and when this very search wrote it. Raises `OutputError`, `ResumeError`.
    """
    lines = path or journal_beside(mask)
    trajectory = Trajectory(lines, state_beside(lines, JOURNAL), settings)
    state = trajectory.resume() if resume else SearchState()
    check_output(mask, force=force or (resume and trajectory.wrote(mask)))
    if not resume:
        trajectory.begin()
    return trajectory, state
