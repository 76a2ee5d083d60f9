"""What `pai rank` does first: masks measured or a table read, accuracies matched with them, and what to score them by."""

from __future__ import annotations

import io
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

import typer

from pai_cli.api.working import Working
from pai_cli.ranking.rules import AccuracyRules

if TYPE_CHECKING:
    from pai_cli.analysis.masks import MaskReport
    from pai_cli.files.plan import FilePlan
    from pai_cli.ranking.accuracy import Run
    from pai_cli.ranking.entrants import Entrants
    from pai_cli.ranking.expression import Score


Options = Mapping[str, object]


@dataclass(frozen=True)
class Particular:
    """Options that mean something only where there are `accuracies`, for `correlations`, or for `orders`, by their names.

    Those not given are None.
    """

    accuracies: Options
    correlations: Options
    orders: Options


@dataclass(frozen=True)
class Given:
    """The options of `pai rank` that say what is ranked, by what, and where masks are measured.

    `layers`: whether the reports are to have their layers, for pictures.
    """

    masks: list[str] | None
    table: Path | None
    accuracy: Path | None
    order: bool
    weights: Path | None
    by: str | None
    metrics: str | None
    group_by: str | None
    rules: AccuracyRules
    trust: bool
    particular: Particular
    working: Working
    layers: bool


@dataclass(frozen=True)
class Entered:
    """What is ranked, and by what.

    `scores`: those to correlate with accuracy where `correlating`, else the one that orders. `reports`: of masks, with
    those that failed.
    """

    entrants: Entrants
    scores: list[Score]
    correlating: bool
    reports: list[MaskReport]


def check_given(given: Given) -> None:
    """Refuse what makes no sense together."""
    if (given.table is None) is (not given.masks):
        raise typer.BadParameter("give masks, or --table CSV of metrics measured before, one of the two")
    if given.table is not None and given.weights is not None:
        raise typer.BadParameter("--weights: the metrics of --table are measured already; leave it out")
    if given.table is not None and given.working != Working():
        raise typer.BadParameter(
            "--jobs, --cluster, --store and --no-store: nothing is measured with --table; leave them out"
        )
    if given.table is not None and given.trust:
        raise typer.BadParameter("--trust: a --table holds no code; leave it out")
    if given.table is None and given.group_by is not None:
        raise typer.BadParameter("--group-by names columns of a --table; leave it out")
    if [given.table, given.accuracy].count(Path("-")) + (given.masks or []).count("-") > 1:
        raise typer.BadParameter("- is standard input, which one thing can be read from")


def enter(given: Given, plan: FilePlan) -> Entered:
    """Everything read, and masks measured; what is wrong with tables and names is told before anything is measured."""
    return _from_masks(given, plan) if given.table is None else _from_table(given, given.table)


def _refuse_idle(particular: Particular, *, accurate: bool, correlating: bool) -> None:
    """Refuse options that would do nothing. `accurate`: whether any accuracies are given."""
    kinds = (
        (not accurate, particular.accuracies, "is about accuracies, and there are none: leave it out"),
        (
            not correlating,
            particular.correlations,
            "is of correlations with accuracy, and this is an order: leave it out",
        ),
        (correlating, particular.orders, "there is no order beside correlations: give --order, or leave it out"),
    )
    for idle, options, told in kinds:
        for name, value in options.items():
            if idle and value is not None:
                raise typer.BadParameter(f"{name}: {told}")


def _from_table(given: Given, table: Path) -> Entered:
    from pai_cli.display.console import note
    from pai_cli.errors import TableError
    from pai_cli.files.rows import read_rows
    from pai_cli.ranking.accuracy import matched, with_accuracies
    from pai_cli.ranking.entrants import scores_to_correlate
    from pai_cli.ranking.expression import score_of
    from pai_cli.ranking.metric_table import ACCURACY, metric_table

    groups = None if given.group_by is None else [name.strip() for name in given.group_by.split(",")]
    rows = read_rows(table, _stdin())
    entrants = metric_table(rows, groups, given.rules, note)
    if given.accuracy is not None:
        if ACCURACY in rows.columns:
            raise typer.BadParameter(f"--accuracy: {table} has a column accuracy itself; leave one of them out")
        matches = matched(
            [mask.name for mask in entrants.masks], _runs(given, given.accuracy), str(given.accuracy), note
        )
        entrants = replace(entrants, masks=with_accuracies(entrants.masks, matches))
    elif ACCURACY in rows.columns and not entrants.trained and not given.order:
        raise TableError(f"{table}: has no accuracy that counts (--collapsed-at); --order ranks its rows without")
    by = None if given.by is None else score_of(given.by, entrants.metrics)
    correlating = entrants.trained and not given.order
    accurate = given.accuracy is not None or ACCURACY in rows.columns
    _refuse_idle(given.particular, accurate=accurate, correlating=correlating)
    if correlating:
        return Entered(entrants, scores_to_correlate(entrants.metrics, given.metrics, by), True, [])
    return Entered(entrants, [by or entrants.default_score()], False, [])


def _from_masks(given: Given, plan: FilePlan) -> Entered:
    from pai_cli.analysis.masks import AnalysisRequest
    from pai_cli.api.plans import read_masks
    from pai_cli.commands.loading import reports_of
    from pai_cli.commands.options import the_weights
    from pai_cli.display.console import note
    from pai_cli.display.progress import progress_bar
    from pai_cli.files.paths import mask_paths
    from pai_cli.ranking.accuracy import matched, with_accuracies
    from pai_cli.ranking.entrants import available, measured, scores_to_correlate
    from pai_cli.ranking.expression import metric_score
    from pai_cli.spectral.metrics import MetricOptions

    weighted = given.weights is not None
    correlating = given.accuracy is not None and not given.order
    _refuse_idle(given.particular, accurate=given.accuracy is not None, correlating=correlating)
    by = metric_score(given.by, weights=weighted)
    scores = [by]
    if correlating:
        scores = scores_to_correlate(available(weights=weighted), given.metrics, by if given.by is not None else None)
    runs = None if given.accuracy is None else _runs(given, given.accuracy)
    paths = mask_paths(given.masks or [], _stdin(), note, trust=given.trust)
    read_masks(plan, paths)
    matches = {} if runs is None else matched([str(path) for path in paths], runs, str(given.accuracy), note)
    request = AnalysisRequest(
        weights=the_weights(given.weights, trust=given.trust),
        options=MetricOptions(dense=any("l2_dense" in score.metrics for score in scores)),
        trust=given.trust,
        per_layer=given.layers,
    )
    if correlating:
        paths = [path for path in paths if str(path) in matches]  # the others would be measured for nothing
    with progress_bar("ranking") as progress, reports_of(paths, request, given.working, progress) as found:
        reports = list(found)
    entrants = measured(reports, weights=weighted)
    entrants = replace(entrants, masks=with_accuracies(entrants.masks, matches))
    return Entered(entrants, scores, correlating, reports)


def _runs(given: Given, accuracy: Path) -> list[Run]:
    from pai_cli.display.console import note
    from pai_cli.files.rows import read_rows
    from pai_cli.ranking.accuracy import read_runs

    return read_runs(read_rows(accuracy, _stdin()), given.rules, note)


def _stdin() -> TextIO:
    return sys.stdin or io.StringIO()
