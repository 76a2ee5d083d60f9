"""What ranking does first: masks measured or a table read, accuracies matched with them, and what to score them by."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pai_cli.analysis.masks import AnalysisRequest
from pai_cli.analysis.pairs import PairRequest
from pai_cli.analysis.paths import NOT_ASKED, PathRequest
from pai_cli.api.analyze import files_among, measured_by
from pai_cli.api.asked import IDLE_OF_RANKS, IDLE_OF_REPORTS, IDLE_OF_SCORES
from pai_cli.api.given import is_one, listed, named, opened, tell_twice
from pai_cli.api.inputs import maybe_path, open_weights, source_path
from pai_cli.api.plans import plan_measuring, read_masks
from pai_cli.api.progress import shown_by
from pai_cli.api.ranked import pictures_wanted
from pai_cli.api.records import accuracy_rows, is_table, path_of, rows_of
from pai_cli.api.report import Report
from pai_cli.api.unrolling import pairs_for, paths_of
from pai_cli.errors import TableError, UnknownMetricError, UsageError
from pai_cli.ranking.accuracy import Taken, matched, read_runs
from pai_cli.ranking.columns import is_layer_density
from pai_cli.ranking.controls import chosen_controls
from pai_cli.ranking.entrants import accurate, available, measured, scores_to_correlate
from pai_cli.ranking.expression import metric_score, needs_network, needs_pairs, needs_paths, score_of, words_in
from pai_cli.ranking.metric_table import ACCURACY, Reading, metric_table
from pai_cli.ranking.results import as_named, numbers_in, standard
from pai_cli.spectral.catalogue import PATHS, RANKED
from pai_cli.spectral.conventions import Convention
from pai_cli.spectral.metrics import MetricOptions
from pai_cli.spelling import option
from pai_cli.telling import note

if TYPE_CHECKING:
    from pai_cli.analysis.masks import MaskReport
    from pai_cli.analysis.pairs import PairRequest
    from pai_cli.analysis.paths import PathRequest
    from pai_cli.api.asked import Asked
    from pai_cli.display.report.ranking import RankPictures
    from pai_cli.files.checkpoints import Checkpoint
    from pai_cli.files.plan import FilePlan
    from pai_cli.files.rows import Rows
    from pai_cli.ranking.accuracy import Matches, Run
    from pai_cli.ranking.entrants import Entrants
    from pai_cli.ranking.expression import Score


@dataclass(frozen=True)
class Entered:
    """What is ranked, and by what.

    `scores`: those to correlate with accuracy where `correlating`, else the one that orders. `reports`: of masks, with
    those that failed. `weighted`: whether their weights were there. `pictures`: what is to be drawn of the result.
    """

    asked: Asked
    entrants: Entrants
    scores: list[Score]
    correlating: bool
    reports: list[MaskReport]
    weighted: bool
    pictures: RankPictures | None


def entered(asked: Asked) -> Entered:
    """See `rank.enter`."""
    pictures = pictures_wanted(asked.plot, asked.report, force=asked.force)
    given: list[Any] = [] if asked.masks is None else _listed(asked.masks)
    measured = [one for one in given if isinstance(one, Report)]
    if measured and len(measured) < len(given):
        raise UsageError("masks: some are reports and some are not; measure all of them, or none")
    plan = plan_measuring(
        named(given),
        source_path(asked.weights),
        maybe_path(asked.plot),
        maybe_path(asked.report),
        asked.working,
        *(path_of(asked.table), path_of(asked.accuracy)),
        force=asked.force,
    )
    if asked.table is not None:
        return _from_table(asked, pictures)
    return _from_reports(asked, measured, pictures) if measured else _from_masks(asked, given, plan, pictures)


def _listed(masks: Any) -> list[Any]:
    """Masks, or reports of them, as a list."""
    if isinstance(masks, Report):
        return [masks]
    if isinstance(masks, Iterable) and not isinstance(masks, str | PathLike | Mapping):
        masks = list(masks) if not hasattr(masks, "dtype") else masks
        if isinstance(masks, list) and any(isinstance(one, Report) for one in masks):
            return masks
    return listed(masks)


def _from_table(asked: Asked, pictures: RankPictures | None) -> Entered:
    rows = rows_of(asked.table, "table")
    if asked.accuracy is None:
        rows = as_named(rows, asked.named, note, _asked_for(asked))
    early = asked.group_by is not None or asked.controls is not None
    beside = _named_rows(asked) if early and asked.accuracy is not None and _is_named(asked.accuracy) else None
    groups, other_groups = _parted(asked.group_by, rows, beside)
    controls, other_controls = _parted(asked.controls, rows, beside)
    entrants = metric_table(rows, Reading(asked.rules, groups or None, controls), note)
    if asked.accuracy is not None:
        if ACCURACY in rows.columns:
            source = asked.table if isinstance(asked.table, str | Path) else rows.source
            raise UsageError(f"{option('accuracy')}: {source} has a column accuracy itself; leave one of them out")
        others = replace(asked, group_by=other_groups or None, controls=other_controls)
        found = _results(others, [mask.name for mask in entrants.masks], beside)
        added = chosen_controls((*entrants.metrics, *found.numbers), other_controls)
        entrants = found.entrants(replace(entrants, controls=(*entrants.controls, *added)))
    elif ACCURACY in rows.columns and not entrants.trained and not asked.order:
        source = asked.table if isinstance(asked.table, str | Path) else rows.source
        raise TableError(
            f"{source}: has no accuracy that counts ({option('collapsed_at')}); {option('order')} ranks its rows without"
        )
    by = None if asked.by is None else score_of(asked.by, entrants.metrics)
    correlating = entrants.trained and not asked.order
    accurate_somehow = asked.accuracy is not None or ACCURACY in rows.columns
    asked.refuse_idle(IDLE_OF_RANKS, accurate=accurate_somehow, correlating=correlating)
    if correlating:
        if asked.controls is None and not any(map(is_layer_density, entrants.controls)):
            note(
                f"{rows.source}: has no column layer_density, nor densities of layers to make it of: what a metric tells "
                f"beyond it is not known; {option('controls')} names others to hold metrics against"
            )
        scores = scores_to_correlate(entrants.metrics, _text(asked.metrics), by)
    else:
        scores = [by or entrants.default_score()]
    return Entered(asked, entrants, scores, correlating, [], False, pictures)


def _parted(given: str | Iterable[str] | None, table: Rows, beside: Rows | None) -> tuple[list[str] | None, list[str]]:
    """Which of these names are asked of a table of metrics, and which of the accuracies beside it, that alone have them: a
    column without a value, as `pai analyze` has of masks that tell no method, is none.
    """
    names = _names(given)
    own = {column for column in table.columns if any(row.cells[column] for row in table.rows)}
    others = [name for name in names or [] if beside and name in beside.columns and name not in own]
    return names and [name for name in names if name not in others], others


def _from_masks(asked: Asked, given: list[Any], plan: FilePlan, pictures: RankPictures | None) -> Entered:
    weighted = asked.weights is not None
    scores, correlating = _scores(asked, weighted=weighted, networked=asked.networked)
    asked.refuse_idle(IDLE_OF_SCORES, networked=needs_network(scores) and asked.networked)
    early = asked.accuracy is not None and _is_named(asked.accuracy)
    results = _results(asked, []) if early else None
    controls = _controls(asked, results, weighted=weighted, networked=asked.networked) if correlating else ()
    masks = opened(given, asked.weights, one=is_one(asked.masks), trust=asked.trust)
    tell_twice(masks)
    read_masks(plan, files_among(masks))
    names = [str(mask if isinstance(mask, Path) else mask.path) for mask in masks]
    if asked.accuracy is not None and results is None:
        results = _results(asked, names)
    matches = {} if results is None else results.matches(names)
    weights = open_weights(asked.weights, trust=asked.trust)
    request = AnalysisRequest(
        weights=weights,
        options=MetricOptions(
            convention=Convention(asked.convention), dense=any("l2_dense" in score.metrics for score in scores)
        ),
        device=asked.place.resolved(),
        memory=asked.place.memory,
        trust=asked.trust,
        per_layer=pictures is not None,
        paths=_paths(asked, weights, masks, scores, controls if correlating else None),
        pairs=_pairs(asked, weights, masks, scores),
    )
    if correlating and request.paths.unrolled is None:
        scores = [score for score in scores if not needs_paths([score])]
    if correlating:  # the others would be measured for nothing
        masks = [mask for mask, name in zip(masks, names, strict=True) if name in matches]
    with (
        shown_by(asked.progress, "ranking") as progress,
        measured_by(masks, request, asked.working, progress) as found,
    ):
        reports = list(found)
    if request.paths.told and any(one.error is None for one in reports):
        note(request.paths.told)
    networked = request.paths.unrolled is not None
    return _accurate(_Found(scores, correlating, reports, weighted, networked), asked, results, pictures)


def _paths(
    asked: Asked,
    weights: Checkpoint | None,
    masks: list[Any],
    scores: list[Score],
    controls: Sequence[str] | None,
) -> PathRequest:
    """The network, where a score or a control is of its paths; `controls`: None for an order.

    Raises where the only one is, and there is no network.
    """
    if not needs_paths(scores) and not set(controls or ()) & set(PATHS):
        return PathRequest(None, NOT_ASKED)
    needed = controls is None or (asked.by is not None and needs_paths(scores[-1:]))
    return paths_of(weights, asked.model, asked.shape, masks, trust=asked.trust, needed=needed)


def _pairs(asked: Asked, weights: Checkpoint | None, masks: list[Any], scores: list[Score]) -> PairRequest:
    """The consecutive layers, where one of the scores is of what is between them. Raises where they cannot be found."""
    if not needs_pairs(scores):
        return PairRequest()
    return pairs_for(weights, asked.model, asked.shape, masks, trust=asked.trust)


def _from_reports(asked: Asked, given: Sequence[Any], pictures: RankPictures | None) -> Entered:
    """Of reports that `analyze` gave. Raises `UsageError` for what measures."""
    asked.refuse_idle(IDLE_OF_REPORTS)
    conventions = sorted({str(one.convention) for one in given if one.convention is not None})
    if len(conventions) > 1:
        raise UsageError(f"masks: reports of {' and '.join(conventions)} do not compare; measure all by one convention")
    weighted = all(one.weights for one in given)
    networked = all(one["macs"].value is not None for one in given if one.error is None)
    scores, correlating = _scores(asked, weighted=weighted, networked=networked, between=False)
    reports = [one.measured for one in given]
    results = None if asked.accuracy is None else _results(asked, [str(one.path) for one in reports])
    return _accurate(_Found(scores, correlating, reports, weighted, networked), asked, results, pictures)


def _scores(asked: Asked, *, weighted: bool, networked: bool, between: bool = True) -> tuple[list[Score], bool]:
    """What orders, or is correlated, and which of the two it is. `between`: whether metrics between layers can be had."""
    correlating = asked.accuracy is not None and not asked.order
    asked.refuse_idle(IDLE_OF_RANKS, accurate=asked.accuracy is not None, correlating=correlating)
    by = metric_score(asked.by, weights=weighted, network=networked)
    if needs_pairs([by]) and not between:
        raise UnknownMetricError(
            f"{option('by', asked.by)}: reports have nothing that is measured between layers; give the masks"
        )
    if not correlating:
        return [by], False
    metrics = available(weights=weighted, network=networked, between=between and asked.metrics is not None)
    return scores_to_correlate(metrics, _text(asked.metrics), by if asked.by is not None else None), True


@dataclass(frozen=True)
class _Found:
    scores: list[Score]
    correlating: bool
    reports: list[MaskReport]
    weighted: bool
    networked: bool


def _accurate(found: _Found, asked: Asked, results: _Results | None, pictures: RankPictures | None) -> Entered:
    """The masks that were measured, with their accuracies."""
    entrants = measured(found.reports, weights=found.weighted, network=found.networked)
    entrants = entrants if results is None else results.entrants(entrants)
    if found.correlating:
        controls = _controls(asked, results, weighted=found.weighted, networked=found.networked)
        entrants = replace(entrants, controls=controls)
    return Entered(asked, entrants, found.scores, found.correlating, found.reports, found.weighted, pictures)


def _controls(asked: Asked, results: _Results | None, *, weighted: bool, networked: bool) -> tuple[str, ...]:
    """What metrics of masks are held against: metrics, and columns of the accuracies. A wrong name is told before anything
    is measured.
    """
    columns = () if results is None else results.numbers
    return chosen_controls((*available(weights=weighted, network=networked), *columns), _names(asked.controls))


@dataclass
class _Results:
    """Measured accuracies: their runs, what messages call those, what settings are told by, and columns of numbers that
    come with them.
    """

    runs: list[Run]
    source: str
    groups: tuple[str, ...]
    numbers: tuple[str, ...]
    _matches: Matches | None = None

    def matches(self, names: Sequence[str]) -> Matches:
        """The runs of each mask; what is left out is told once."""
        if self._matches is None:
            self._matches = matched(names, self.runs, self.source, note)
        return self._matches

    def entrants(self, entrants: Entrants) -> Entrants:
        """With the accuracies of their masks."""
        return accurate(entrants, self.matches([mask.name for mask in entrants.masks]), self.groups)


def _named_rows(asked: Asked, names: Sequence[str] = ()) -> Rows:
    """The table of accuracies, its columns as they are known here; see `_results`."""
    return standard(accuracy_rows(asked.accuracy, names), asked.named, note)


def _results(asked: Asked, names: Sequence[str], rows: Rows | None = None) -> _Results:
    """The accuracies as they were given. `names`: of the masks, for one number a mask; `rows`: where they were read."""
    rows = rows or _named_rows(asked, names)
    wanted = [name for name in _names(asked.controls) or [] if name not in RANKED]
    taken = Taken(_names(asked.group_by), numbers_in(rows, wanted))
    source = str(asked.accuracy) if isinstance(asked.accuracy, str | Path) else rows.source
    return _Results(read_runs(rows, asked.rules, note, taken), source, taken.columns(rows), tuple(taken.numbers))


def _is_named(accuracy: Any) -> bool:
    """Whether accuracies name their masks, so that they are read before any mask is looked for."""
    return is_table(accuracy)


def _asked_for(asked: Asked) -> set[str]:
    """The columns that are asked for by their names, as anything but an accuracy."""
    given = (asked.metrics, asked.controls, asked.group_by)
    return {*words_in(asked.by or ""), *(name for some in given for name in _names(some) or ())}


def _names(given: str | Iterable[str] | None) -> list[str] | None:
    if given is None:
        return None
    return [name.strip() for name in (given.split(",") if isinstance(given, str) else given)]


def _text(given: str | Iterable[str] | None) -> str | None:
    return given if given is None or isinstance(given, str) else ",".join(given)
