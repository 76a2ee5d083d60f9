"""Correlates every score with accuracy, scope by scope, and finds the one that predicts best."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pai_cli.progress import Progress, silent
from pai_cli.ranking.bootstrap import Resampling
from pai_cli.ranking.correlation import Correlation, Point, Scope, ScopeKind, Study
from pai_cli.ranking.expression import Score, value_of
from pai_cli.ranking.scope import correlate_within
from pai_cli.ranking.scoped import Scoped
from pai_cli.ranking.scored import WITHIN_DENSITY, ScoredMask, Within, equal_groups
from pai_cli.ranking.statistics import Floats, Ints
from pai_cli.spectral.result import Measure

Group = list[ScoredMask]


def correlate(
    masks: Sequence[ScoredMask],
    scores: Sequence[Score],
    how: Resampling,
    *,
    within: Within = WITHIN_DENSITY,
    controls: Sequence[str] = (),
    progress: Progress = silent,
) -> Study:
    """The study of masks whose accuracy is known (the others are left out); the order they come in does not matter.

    `within`: what separates comparisons. `controls`: the masks' values, by name, that metrics are held against.
    """
    groups = equal_groups([mask for mask in masks if mask.accuracy is not None], by_density=within.by_density)
    kinds = _scopes(groups, by_density=within.by_density)
    scopes: list[Scope] = []
    correlations: list[Correlation] = []
    for number, (kind, setting, own) in enumerate(kinds):
        progress(number, len(kinds), kind.value)
        scope = _scope(kind, setting, own, within)
        scopes.append(scope)
        scoped = _scoped(scope, own, scores, controls)
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


def _scope(kind: ScopeKind, setting: str | None, groups: list[Group], within: Within) -> Scope:
    masks = [mask for group in groups for mask in group]
    together = kind is ScopeKind.OVERALL
    return Scope(
        kind=kind,
        setting=setting,
        density=groups[0][0].density if kind is ScopeKind.DENSITY else None,
        masks=len(masks),
        groups=1 if together else len(groups),
        confounded=together and len(equal_groups(masks)) > 1,
        grouped_by=within.settings if together else within.names,
    )


def _scoped(scope: Scope, groups: list[Group], scores: Sequence[Score], controls: Sequence[str]) -> Scoped:
    masks = [mask for group in groups for mask in group]
    numbers = {name: number for number, name in enumerate(dict.fromkeys(mask.name for mask in masks))}
    columns = [_column([score.measure(mask.values) for mask in masks]) for score in scores]
    return Scoped(
        scope=scope,
        names=tuple(score.name for score in scores),
        values=np.array([values for values, _ in columns]),
        errors=np.array([errors for _, errors in columns]),
        accuracy=np.array([mask.accuracy for mask in masks], dtype=np.float64),
        strata=(np.arange(len(masks)),) if scope.groups == 1 else _blocks([len(group) for group in groups]),
        clusters=np.array([numbers[mask.name] for mask in masks], dtype=np.int64),
        controls={name: _column([value_of(name, mask.values) for mask in masks]) for name in controls},
    )


def _column(measures: Sequence[Measure]) -> tuple[Floats, Floats]:
    """Values, NaN where missing, and errors."""
    values = np.array([np.nan if one.value is None else one.value for one in measures], dtype=np.float64)
    return values, np.array([one.error or 0.0 for one in measures], dtype=np.float64)


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
