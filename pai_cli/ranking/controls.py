"""Controls: what every metric is held against, as it takes no spectrum to know: the mean of the layers' densities first."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from pai_cli.errors import UnknownMetricError
from pai_cli.files.messages import some_names
from pai_cli.ranking.bootstrap import Counts
from pai_cli.ranking.columns import is_layer_density, words_of
from pai_cli.ranking.correlation import Correlation, Statistic
from pai_cli.ranking.partial import Held, partials
from pai_cli.ranking.scoped import PERFECT, Part, Scoped, alike, part_of, sample_of
from pai_cli.ranking.statistics import Ints, dense_ranks
from pai_cli.spelling import option

EFFECTIVE_SHARE = "effective_share"
NO_CONTROLS = "none"
UNTOLD = (
    "the controls leave nothing to compare: they order these masks too much as the metric does, or as accuracy does"
)
UNSURE = "the controls leave nothing to compare in too many bootstrap samples: no interval"


def chosen_controls(names: Iterable[str], wanted: Sequence[str] | None) -> tuple[str, ...]:
    """The controls among the names of what was measured: those wanted, none of `NO_CONTROLS`, by default those that are a
    layer density or an effective share, however a table spells them.

    Raises `UnknownMetricError` for a name that there is not.
    """
    there = list(names)
    if wanted is None:
        return tuple(name for name in there if is_layer_density(name) or words_of(name) == words_of(EFFECTIVE_SHARE))
    if list(wanted) == [NO_CONTROLS]:
        return ()
    for name in wanted:
        if name not in there:
            raise UnknownMetricError(f"{option('controls', name)}: no such metric; there are {some_names(there, 40)}")
    return tuple(dict.fromkeys(wanted))


@dataclass(frozen=True)
class _Question:
    """Metrics, by their rows, and the controls that they are held against, over the masks that have all of these."""

    rows: Sequence[int]
    controls: Sequence[str]
    part: Part


def given_controls(found: Sequence[Correlation], scoped: Scoped, counts: Counts) -> list[Correlation]:
    """With each metric's partial association given all controls but itself, over the masks that have those."""
    told = list(found)
    for question in _questions(scoped):
        for row, one in zip(question.rows, _answers(question, found, scoped, counts), strict=True):
            told[row] = one
    return told


def _questions(scoped: Scoped) -> list[_Question]:
    held: dict[tuple[str, ...], list[int]] = {}
    for row, name in enumerate(scoped.names):
        held.setdefault(tuple(control for control in scoped.controls if control != name), []).append(row)
    questions = []
    for controls, rows in held.items():
        there = np.all([np.isfinite(scoped.controls[name][0]) for name in controls], axis=0)
        for alike_rows in alike(np.where(there, scoped.values, np.nan), rows):
            part = part_of(scoped, np.isfinite(scoped.values[alike_rows[0]]) & there)
            questions.append(_Question(alike_rows, controls, part))
    return questions


def _answers(question: _Question, found: Sequence[Correlation], scoped: Scoped, counts: Counts) -> list[Correlation]:
    part, own = question.part, [found[row] for row in question.rows]
    controls = _varying(question, scoped)
    if not controls:
        reason = "is the only control" if scoped.controls else "no control to hold it against"
        if question.controls:
            told = (
                "one value in each group, which holds nothing"
                if len(part.kept)
                else "no value where the metric has one"
            )
            reason = f"{' and '.join(question.controls)}: {told}"
        return [replace(one, partial_reason=reason) for one in own]
    held = Held(part.y_rank, list(controls.values()), part.strata, counts[part.kept], part.masks)
    statistics = partials([sample_of(scoped, part, row).x_rank for row in question.rows], held)
    return [
        replace(
            one,
            partial=statistic if part.too_few is None else Statistic(statistic.value),
            controls=tuple(controls),
            n_partial=len(part.kept),
            partial_reason=_reason(one, statistic, part),
        )
        for one, statistic in zip(own, statistics, strict=True)
    ]


def _varying(question: _Question, scoped: Scoped) -> dict[str, Ints]:
    """The ranks of the controls that tell any two masks apart that are compared."""
    found = {}
    for name in question.controls:
        values, errors = (column[question.part.kept] for column in scoped.controls[name])
        ranks = dense_ranks(values, errors)
        if any((ranks[at] != ranks[at[0]]).any() for at in question.part.strata):
            found[name] = ranks
    return found


def _reason(one: Correlation, statistic: Statistic, part: Part) -> str | None:
    if one.tau.value is None:
        return one.reason
    if part.too_few is not None:
        return part.too_few
    if statistic.value is None:
        return UNTOLD
    if statistic.low is not None:
        return None
    return PERFECT if statistic.perfect else UNSURE
