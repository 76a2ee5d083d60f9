"""Which of these masks will train best, and which metric tells: what `pai rank` does, for programs."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import closing
from typing import TYPE_CHECKING, Any

from pai_cli.api.asked import Asked
from pai_cli.api.inputs import AnyPath, Shape, Source
from pai_cli.api.progress import Wanted, shown_by
from pai_cli.api.ranges import takes_numpy
from pai_cli.api.records import is_table
from pai_cli.compute.device import Device
from pai_cli.errors import UsageError
from pai_cli.ranking.rules import RESAMPLES
from pai_cli.spectral.conventions import Convention
from pai_cli.telling import Repeated, note, warn

if TYPE_CHECKING:
    from pai_cli.api.entering import Entered
    from pai_cli.api.ranked import Correlations, Ranking
    from pai_cli.ranking.order import RankedMask


@takes_numpy
def rank(
    masks: Any = None,
    *,
    table: Any = None,
    accuracy: Any = None,
    mask_column: str | None = None,
    accuracy_column: str | None = None,
    order: bool = False,
    weights: Source | None = None,
    convention: str = Convention.H23,
    model: str | None = None,
    input_shape: Shape | None = None,
    by: str | None = None,
    smallest_first: bool | None = None,
    metrics: str | Iterable[str] | None = None,
    controls: str | Iterable[str] | None = None,
    group_by: str | Iterable[str] | None = None,
    collapsed_at: float | None = None,
    accuracy_unit: str | None = None,
    resamples: int | None = None,
    seed: int | None = None,
    device: str = Device.AUTO,
    device_memory: int | str | None = None,
    trust: bool = False,
    plot: AnyPath | None = None,
    report: AnyPath | None = None,
    force: bool = False,
    jobs: int | None = None,
    cluster: str | None = None,
    store: AnyPath | None = None,
    no_store: bool = False,
    progress: Wanted = None,
) -> Ranking | Correlations:
    """Order masks without training them, by one metric's mean over the layers, within equal densities, best first: a
    `Ranking`. Where accuracies are known and no `order` is asked for: which metric predicts them, `Correlations`.

    `masks`: as of `analyze`, or the `Report`s that it gave. `table`: metrics measured before, instead of masks: the path of
    a CSV or TSV file, "-", a pandas table, or a mapping of columns to values a row; a column accuracy, if there is one, is
    correlated with. `accuracy`: measured accuracies: such a table with columns mask, accuracy and, if wanted, seed and
    dataset, or others that usually have such names; a mapping of masks' names to an accuracy or several; or one number a
    mask, in the order of the masks. A mask is named by its path, file name, stem or folder. `mask_column`,
    `accuracy_column`: which columns those are, of the accuracies or, where there are none, of the table.

    `by`: the network metric that decides, or arithmetic of several, such as "dr_imdb + 0.5*lambda_imsg"; by default l2 with
    weights, else dr_imdb; among correlations one more metric. `smallest_first`: which end is best, by default the metric's
    own. `metrics`: correlate only these, names or globs. `controls`: the metrics that each other is held against, or "none";
    by default layer_density and, where there is one, effective_share; columns of numbers of the accuracies may be among
    them. `group_by`: columns of the table, or of the accuracies, whose values are never compared with each other, or "none";
    by default those named as a density, sparsity or compression, as a network or a data set; of the accuracies the data set.
    `collapsed_at`: runs of at most this accuracy, a fraction, are set aside; by default 0.1. `accuracy_unit`: "fraction" or
    "percent". `resamples`: bootstrap samples behind an interval, by default 2000, of `seed`.

    `model`, `input_shape`: the network, for metrics of its paths, where the weights do not tell it or are not given.

    `convention` and the others are those of `analyze`. Of masks that cannot be measured a warning tells, and the result's
    `failed`. Raises `UsageError` for what does not go together, `TableError`, `UnknownMetricError`, `CompositeError`.
    """
    entered = enter(Asked(**locals()))
    from pai_cli.api.ranked import draw

    for one in entered.reports:
        if one.error is not None:
            warn(one.error.text)
    found = ranked(entered)
    draw(found, entered.pictures)
    return found


@takes_numpy
def correlate(
    reports: Any,
    accuracies: Any = None,
    *,
    mask_column: str | None = None,
    accuracy_column: str | None = None,
    by: str | None = None,
    metrics: str | Iterable[str] | None = None,
    controls: str | Iterable[str] | None = None,
    group_by: str | Iterable[str] | None = None,
    collapsed_at: float | None = None,
    accuracy_unit: str | None = None,
    resamples: int | None = None,
    seed: int | None = None,
    plot: AnyPath | None = None,
    report: AnyPath | None = None,
    force: bool = False,
    progress: Wanted = None,
) -> Correlations:
    """How well each metric predicts accuracy: Kendall's tau, Spearman's rho and Pearson's r, with 95% bootstrap intervals;
    and its partial tau, what it tells that layer density does not.

    `reports`: `Report`s of `analyze`, or masks, or a table of metrics as `rank` takes it (then with a column accuracy, or
    with `accuracies`). `accuracies` and the others: as of `rank`, which this is. Raises `UsageError` for a table and
    masks without any accuracy.
    """
    asked = {name: value for name, value in locals().items() if name not in ("reports", "accuracies")}
    from pai_cli.api.ranked import Correlations

    what = "table" if is_table(reports) else "masks"
    if accuracies is None and what == "masks":
        raise UsageError("accuracies: there is nothing to correlate with; give them, or take rank")
    found = rank(**{what: reports}, accuracy=accuracies, **asked)
    if not isinstance(found, Correlations):
        raise UsageError("accuracies: the table has no column accuracy; give them, or take rank")
    return found


def enter(asked: Asked) -> Entered:
    """Everything read, and masks measured; what is wrong with tables and names is told before anything is measured.

    What is said of the masks is said by `ranked`, so that those that failed can be told first.
    """
    from pai_cli.api.entering import entered

    return entered(asked)


def ranked(entered: Entered) -> Ranking | Correlations:
    """The order, or the correlations, of what was read and measured."""
    from pai_cli.api.ranked import Correlations, Ranking
    from pai_cli.api.remarks import tell_assumed, tell_unproved

    with closing(Repeated()) as notes:
        for one in entered.reports:
            if one.remark:
                notes.note(one.path, one.remark)
            tell_unproved(one, notes)
    tell_assumed(entered.reports)
    asked, entrants = entered.asked, entered.entrants
    if entered.correlating:
        from pai_cli.compute.threads import one_blas_thread
        from pai_cli.ranking.bootstrap import Resampling
        from pai_cli.ranking.scored import methods_among
        from pai_cli.ranking.study import correlate as study_of

        how = Resampling(asked.resamples or RESAMPLES, asked.seed or 0)
        with shown_by(asked.progress, "correlating") as progress, one_blas_thread():
            study = study_of(
                entrants.masks,
                entered.scores,
                how,
                within=entrants.within,
                controls=entrants.controls,
                progress=progress,
            )
        methods, repeated = methods_among(entrants.masks, within=entrants.within)
        if repeated:
            note(
                f"masks of one method are compared with each other, of {len(methods)} method{'s' * (len(methods) > 1)} "
                "in all: where they are alike, intervals and p, which take masks for independent, are too sure"
            )
        return Correlations(study, entrants.masks, entered.reports, by=asked.by, weights=entered.weighted)
    from pai_cli.ranking.order import rank_masks

    score = entered.scores[0]
    larger = score.larger_is_better if asked.smallest_first is None else not asked.smallest_first
    order = rank_masks(entrants.masks, score, larger_is_better=larger, by_density=entrants.within.by_density)
    _tell_groups(order)
    return Ranking(order, score.name, entered.reports, weights=entered.weighted)


def _tell_groups(ranked: list[RankedMask]) -> None:
    """Say that masks were ranked apart, and why."""
    groups = {row.group for row in ranked}
    settings = {row.source.setting for row in ranked}
    densities = [row.source.density for row in ranked if row.source.density is not None]
    if len(settings) > 1:
        note(f"masks of {len(settings)} settings do not compare: ranked within {len(groups)} groups")
    elif len(groups) > 1:
        warn(
            f"densities from {min(densities):.4g} to {max(densities):.4g} differ by more than 1%, which a metric follows "
            f"more than quality: ranked within {len(groups)} groups of equal density"
        )
