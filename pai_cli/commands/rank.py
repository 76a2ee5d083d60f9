"""`pai rank`: which of these masks will train best, and which metric tells."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pai_cli.api.plans import plan_measuring
from pai_cli.commands import options
from pai_cli.commands.entering import Given, Particular, check_given, enter
from pai_cli.files.tables import Format
from pai_cli.ranking.rules import COLLAPSED, MOST_RESAMPLES, RESAMPLES, AccuracyRules, AccuracyUnit
from pai_cli.spectral.catalogue import METRICS


def rank(
    masks: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="MASK...", help="Mask files, folders of them, or - for a list of paths on standard input."
        ),
    ] = None,
    table: Annotated[
        Path | None,
        typer.Option(
            metavar="CSV",
            readable=False,
            help="Metrics that were measured before, instead of masks: a row a mask, as pai analyze --summary --format csv "
            "writes them, or - for standard input. A column accuracy, if there is one, is correlated with.",
        ),
    ] = None,
    accuracy: Annotated[
        Path | None,
        typer.Option(
            metavar="CSV",
            readable=False,
            help="Measured accuracies: columns mask, accuracy and, if wanted, seed and dataset. Shows how well each metric "
            "predicts them instead of an order.",
        ),
    ] = None,
    order: Annotated[
        bool, typer.Option("--order", help="The order of the masks also where their accuracies are known.")
    ] = False,
    weights: options.Weights = None,
    by: Annotated[
        str | None,
        typer.Option(
            metavar="METRIC",
            autocompletion=lambda: list(METRICS),
            help=f"The network metric that decides: {', '.join(METRICS)}; or arithmetic of several with + - * / ( ) abs "
            "sqrt norm, such as 'dr_imdb + 0.5*lambda_imsg'; by default l2 with --weights, else dr_imdb. Among "
            "correlations it is one more metric, set beside the best.",
        ),
    ] = None,
    smallest_first: Annotated[
        bool | None,
        typer.Option("--smallest-first/--largest-first", help="Which end is best; by default the metric's own."),
    ] = None,
    metrics: Annotated[
        str | None,
        typer.Option(
            metavar="NAMES",
            help="Correlate only these metrics, names or globs with commas between them; by default all.",
        ),
    ] = None,
    group_by: Annotated[
        str | None,
        typer.Option(
            metavar="COLUMNS",
            help="The --table's columns whose values are never compared with each other, with commas between them, or none; "
            "by default architecture, dataset and density, where there are.",
        ),
    ] = None,
    collapsed_at: Annotated[
        float | None,
        typer.Option(
            min=0.0,
            max=1.0,
            help="A run of at most this accuracy, a fraction, counts as collapsed and is set aside; by default "
            f"{COLLAPSED:g}, 0 keeps all.",
        ),
    ] = None,
    accuracy_unit: Annotated[
        AccuracyUnit | None, typer.Option(help="What accuracies are; by default percent when any is above 1.")
    ] = None,
    resamples: Annotated[
        int | None,
        typer.Option(
            min=100,
            max=MOST_RESAMPLES,
            help=f"Bootstrap samples behind an interval of a correlation; by default {RESAMPLES:,}.",
        ),
    ] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Seed of the bootstrap; by default 0.")] = None,
    format: options.OutputFormat = Format.TABLE,  # noqa: A002  the flag's name
    no_header: options.NoHeader = False,
    trust: options.Trust = False,
    plot: options.Plot = None,
    report: options.ReportPage = None,
    force: options.Force = False,
    jobs: options.Jobs = None,
    cluster: options.Cluster = None,
    store: options.StorePath = None,
    no_store: options.NoStore = False,
) -> None:
    """Order masks without training them, by one metric's mean over the layers, within equal densities, best first; or, where
    accuracies are known, tell which metric predicts them: Kendall's tau, Spearman's rho and Pearson's r with intervals.
    """
    options.check_header(format, no_header=no_header)
    options.check_force(plot, report, force=force)
    rules = AccuracyRules(COLLAPSED if collapsed_at is None else collapsed_at, accuracy_unit)
    particular = Particular(
        accuracies={"--collapsed-at": collapsed_at, "--accuracy-unit": accuracy_unit, "--order": order or None},
        correlations={"--metrics": metrics, "--resamples": resamples, "--seed": seed},
        orders={"--smallest-first": smallest_first},
    )
    working = options.the_working(jobs, cluster, store, no_store=no_store)
    pictured = plot is not None or report is not None
    given = Given(
        *(masks, table, accuracy, order, weights, by, metrics, group_by, rules, trust, particular, working, pictured)
    )
    check_given(given)
    from pai_cli.display.correlation import show_study
    from pai_cli.display.progress import progress_bar
    from pai_cli.display.ranking import show_ranking, tell_groups, tell_reports
    from pai_cli.display.report.ranking import RankPictures

    pictures = RankPictures.wanted(plot, report, force=force, weights=weights is not None)
    plan = plan_measuring(masks or [], weights, plot, report, working, table, accuracy, force=force)
    entered = enter(given, plan)
    failed = tell_reports(entered.reports)
    entrants = entered.entrants
    if entered.correlating:
        from pai_cli.ranking.bootstrap import Resampling
        from pai_cli.ranking.study import correlate

        how = Resampling(resamples or RESAMPLES, seed or 0)
        with progress_bar("correlating") as progress:
            study = correlate(entrants.masks, entered.scores, how, by_density=entrants.by_density, progress=progress)
        show_study(study, by, format, header=not no_header)
        pictures.study(study, entrants.masks, entered.reports)
    else:
        from pai_cli.ranking.order import rank_masks

        score = entered.scores[0]
        larger = score.larger_is_better if smallest_first is None else not smallest_first
        ranked = rank_masks(entrants.masks, score, larger_is_better=larger, by_density=entrants.by_density)
        tell_groups(ranked)
        show_ranking(entered.reports, ranked, score.name, format, header=not no_header)
        pictures.order(ranked, score.name, entered.reports)
    if failed:
        raise typer.Exit(1)
