"""Correlates every score with accuracy, scope by scope, and finds the one that predicts best."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pai_cli.progress import Progress, silent
from pai_cli.ranking.bootstrap import Resampling
from pai_cli.ranking.correlation import Correlation, Point, Scope, ScopeKind, Study
from pai_cli.ranking.expression import Score
from pai_cli.ranking.scope import Scoped, correlate_within
from pai_cli.ranking.scored import ScoredMask, equal_groups
from pai_cli.ranking.statistics import Ints

Group = list[ScoredMask]


def correlate(
    masks: Sequence[ScoredMask],
    scores: Sequence[Score],
    how: Resampling,
    *,
    by_density: bool = True,
    progress: Progress = silent,
) -> Study:
    """The study of masks whose accuracy is known (the others are left out); the order they come in does not matter.

    `by_density`: whether density separates comparisons, beside the masks' settings.
    """
    groups = equal_groups([mask for mask in masks if mask.accuracy is not None], by_density=by_density)
    kinds = _scopes(groups, by_density=by_density)
    scopes: list[Scope] = []
    correlations: list[Correlation] = []
    for number, (kind, setting, own) in enumerate(kinds):
        progress(number, len(kinds), kind.value)
        scoped = _scoped(kind, setting, own, scores)
        scopes.append(scoped.scope)
        correlations += correlate_within(scoped, Resampling(how.count, how.seed, number))
    progress(len(kinds), len(kinds))
    points = {score.name: _points(score, groups) for score in scores}
    directions = {score.name: score.larger_is_better for score in scores}
    return Study(tuple(points), directions, tuple(scopes), tuple(correlations), points, how)


def _scopes(groups: list[Group], *, by_density: bool) -> list[tuple[ScopeKind, str | None, list[Group]]]:
    """For each setting overall, pooled and every density; then, of several settings, pooled over all."""
    found: list[tuple[ScopeKind, str | None, list[Group]]] = []
    settings = list(dict.fromkeys(group[0].setting for group in groups))
    for setting in settings:
        own = [group for group in groups if group[0].setting == setting]
        found.append((ScopeKind.OVERALL, setting, own))
        if len(own) > 1:
            found.append((ScopeKind.POOLED, setting, own))
        if by_density:
            found += [(ScopeKind.DENSITY, setting, [group]) for group in own]
    if len(settings) > 1:
        found.append((ScopeKind.POOLED, None, groups))
    return found


def _scoped(kind: ScopeKind, setting: str | None, groups: list[Group], scores: Sequence[Score]) -> Scoped:
    masks = [mask for group in groups for mask in group]
    together = kind is ScopeKind.OVERALL
    names = {name: number for number, name in enumerate(dict.fromkeys(mask.name for mask in masks))}
    measures = [[score.measure(mask.values) for mask in masks] for score in scores]
    scope = Scope(
        kind=kind,
        setting=setting,
        density=groups[0][0].density if kind is ScopeKind.DENSITY else None,
        masks=len(masks),
        groups=1 if together else len(groups),
        confounded=together and len(equal_groups(masks)) > 1,
    )
    return Scoped(
        scope=scope,
        names=tuple(score.name for score in scores),
        values=np.array([[np.nan if one.value is None else one.value for one in row] for row in measures]),
        errors=np.array([[one.error or 0.0 for one in row] for row in measures]),
        accuracy=np.array([mask.accuracy for mask in masks], dtype=np.float64),
        strata=(np.arange(len(masks)),) if together else _blocks([len(group) for group in groups]),
        clusters=np.array([names[mask.name] for mask in masks], dtype=np.int64),
    )


def _blocks(sizes: list[int]) -> tuple[Ints, ...]:
    ends = np.cumsum(sizes)
    return tuple(np.arange(end - size, end) for size, end in zip(sizes, ends.tolist(), strict=True))


def _points(score: Score, groups: list[Group]) -> tuple[Point, ...]:
    points = []
    first = 0
    for number, group in enumerate(groups):
        if group[0].setting != groups[first][0].setting:
            first = number
        for mask in group:
            assert mask.accuracy is not None
            measure = score.measure(mask.values)
            points.append(
                Point(
                    name=mask.name,
                    setting=mask.setting,
                    density=mask.density,
                    group=number - first,
                    value=measure,
                    accuracy=mask.accuracy,
                    spread=mask.spread,
                    runs=mask.runs,
                )
            )
    return tuple(points)
