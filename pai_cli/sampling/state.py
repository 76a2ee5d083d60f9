"""Where a search stands, in memory and on disk: the best masks, and every weight that any candidate kept.

On disk, masks are packed bits. Each candidate's row is written before the state, so after a crash there may be rows that
the state has not seen: those candidates are measured again.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pai_cli.files.atomic import check_output
from pai_cli.files.journal import ROWS, SAMPLE, Journal, Kept, rows_beside, state_beside, tells
from pai_cli.pruning.ties import Tie

if TYPE_CHECKING:
    import numpy as np

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


def keep_search(journal: Journal, state: SearchState) -> None:
    """Keep the state, which comes after a row a candidate that is done. Raises `OutputError`."""
    import numpy as np
    from safetensors.numpy import save

    packed = {
        f"{kind}/{name}": np.packbits(mask) for kind, masks in state.kinds.items() for name, mask in masks.items()
    }
    facts = {name: getattr(state, name) for name in FACTS}
    shapes = {name: list(mask.shape) for name, mask in state.masks.items()}
    journal.keep(save(packed), facts | {"shapes": shapes}, state.done)


def open_search(
    mask: Path, path: Path | None, settings: dict[str, Any], *, resume: bool, force: bool
) -> tuple[Journal, SearchState]:
    """The journal of the search that writes `mask`, begun or resumed, and the state to go on from.

    `path`: of its rows; by default `mask` with the suffix .jsonl. The state stands beside them. An existing `mask` is
    replaced with `force`, and when this very search wrote it. Raises `OutputError`, `ResumeError`.
    """
    rows = path or rows_beside(mask)
    journal = Journal(SAMPLE, settings, state_beside(rows, ROWS), rows)

    def check() -> None:
        check_output(mask, force=force or (resume and wrote(journal, mask)))

    kept = journal.opened(check, resume=resume, force=force)
    state = SearchState()
    if kept is not None:
        with journal.intact():
            state = _state_of(kept)
    return journal, state


def wrote(journal: Journal, mask: Path) -> bool:
    """Whether `mask` is a mask that this very search wrote: its own command, run again, may replace it."""
    own = {key: str(journal.settings[key]) for key in ("source_sha256", "method", "seed")}
    density = journal.settings["density"]  # None where each layer has its own
    return tells(mask, own if density is None else own | {"density": repr(density)}, "candidate")


def _state_of(kept: Kept) -> SearchState:
    """A state from what was kept of it. Raises what it stumbles over where that is no state."""
    from safetensors.numpy import load

    facts, arrays = kept.facts, load(kept.data)
    shapes: dict[str, list[int]] = facts["shapes"]
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
    if state.done != kept.rows or state.best_rounds < 1 or any(one is None or one >= state.done for one in candidates):
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
