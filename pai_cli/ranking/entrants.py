"""What is ranked: masks that were measured, or rows of a table, and the metrics that they have."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase

from pai_cli.analysis.masks import MaskReport
from pai_cli.errors import UnknownMetricError
from pai_cli.files.messages import some_names
from pai_cli.ranking.accuracy import Matches, with_accuracies
from pai_cli.ranking.expression import Score, score_of
from pai_cli.ranking.rules import USUAL_BY
from pai_cli.ranking.scored import WITHIN_DENSITY, ScoredMask, Within, scored_masks
from pai_cli.spectral.catalogue import EVERY, RANKED, Metric
from pai_cli.spelling import option

MOST_SCORES = 1_000
"""Correlated with accuracy at once: each takes milliseconds of tests and intervals, and a line that someone reads."""


@dataclass(frozen=True)
class Entrants:
    """`masks`: with their accuracies where those are known; `metrics`: what their values are called, in order.

    `within`: what separates comparisons; `controls`: the metrics that others are held against.
    """

    masks: list[ScoredMask]
    metrics: Mapping[str, Metric]
    within: Within = WITHIN_DENSITY
    controls: tuple[str, ...] = ()

    @property
    def trained(self) -> bool:
        """Whether any accuracy is known."""
        return any(mask.accuracy is not None for mask in self.masks)

    def default_score(self) -> Score:
        """By l2, else by dr_imdb, else by the only metric there is; raises `UnknownMetricError` without any of these."""
        for name in (*USUAL_BY, *(self.metrics if len(self.metrics) == 1 else ())):
            if name in self.metrics:
                return score_of(name, self.metrics)
        raise UnknownMetricError(
            f"no column l2 or dr_imdb to rank by: give {option('by')}, which takes {some_names(self.metrics, 40)}"
        )


def available(*, weights: bool, network: bool, between: bool = False) -> dict[str, Metric]:
    """The metrics of masks that can be had with or without weights, and with or without the network.

    `between`: those between layers among them, which take as long as all others and are measured where they are named.
    """
    return {
        name: metric
        for name, metric in (RANKED if between else EVERY).items()
        if (weights or not metric.needs_weights) and (network or not metric.needs_network)
    }


def measured(reports: Iterable[MaskReport], *, weights: bool, network: bool) -> Entrants:
    """The masks that were measured."""
    masks = scored_masks(reports)
    settings = ("network",) if any(mask.setting for mask in masks) else ()
    return Entrants(masks, available(weights=weights, network=network), Within(settings, "density"))


def accurate(entrants: Entrants, matches: Matches, groups: Sequence[str] = ()) -> Entrants:
    """With the accuracies of the masks, of each setting apart; `groups`: what settings are told by."""
    apart = any(setting for own in matches.values() for setting in own)
    settings = (*entrants.within.settings, *(groups if apart else ()))
    masks = with_accuracies(entrants.masks, matches)
    return replace(entrants, masks=masks, within=replace(entrants.within, settings=settings))


def scores_to_correlate(metrics: Mapping[str, Metric], wanted: str | None, by: Score | None) -> list[Score]:
    """A score a metric of `wanted`, a list of names and globs with commas between them (None means all), and then `by`.

    Raises `UnknownMetricError` for a name or glob that matches none, and for more than `MOST_SCORES`.
    """
    names = list(metrics) if wanted is None else _chosen(metrics, wanted)
    if len(names) > MOST_SCORES:
        raise UnknownMetricError(
            f"{len(names):,} metrics, of which at most {MOST_SCORES:,} are compared with accuracy; "
            f"{option('metrics')} chooses"
        )
    scores = [score_of(name, metrics) for name in names]
    return scores if by is None or by.name in names else [*scores, by]


def _chosen(metrics: Mapping[str, Metric], wanted: str) -> list[str]:
    globs = [part.strip() for part in wanted.split(",") if part.strip()]
    for glob in globs or [wanted]:
        if not any(fnmatchcase(name, glob) for name in metrics):
            raise UnknownMetricError(
                f"{option('metrics', glob)}: matches no metric; there are {some_names(metrics, 40)}"
            )
    return [name for name in metrics if any(fnmatchcase(name, glob) for glob in globs)]
