"""`pai rank`: which of these masks will train best."""

from __future__ import annotations

import io
import sys
from typing import Annotated

import typer

from pai_cli.commands import options
from pai_cli.files.tables import Format
from pai_cli.spectral.catalogue import METRICS


def rank(
    masks: options.Masks,
    weights: options.Weights = None,
    by: Annotated[
        str | None,
        typer.Option(
            metavar="METRIC",
            autocompletion=lambda: list(METRICS),
            help=f"The network metric that decides: {', '.join(METRICS)}; by default l2 with --weights, else dr_imdb.",
        ),
    ] = None,
    smallest_first: Annotated[
        bool | None,
        typer.Option("--smallest-first/--largest-first", help="Which end is best; by default the metric's own."),
    ] = None,
    format: options.OutputFormat = Format.TABLE,  # noqa: A002  the flag's name
    no_header: options.NoHeader = False,
    trust: options.Trust = False,
    jobs: options.Jobs = None,
    cluster: options.Cluster = None,
    store: options.StorePath = None,
    no_store: options.NoStore = False,
) -> None:
    """Order masks without training them: by one metric's mean over the layers, within equal densities, best first."""
    options.check_header(format, no_header=no_header)
    working = options.the_working(jobs, cluster, store, no_store=no_store)
    from pai_cli.analysis.masks import AnalysisRequest
    from pai_cli.commands.loading import reports_of
    from pai_cli.display.console import note
    from pai_cli.display.progress import progress_bar
    from pai_cli.display.ranking import show_ranking, tell_ranking
    from pai_cli.files.paths import mask_paths
    from pai_cli.ranking.order import metric_for, rank_masks
    from pai_cli.spectral.metrics import MetricOptions

    metric = metric_for(by, weights=weights is not None)
    larger = metric.larger_is_better if smallest_first is None else not smallest_first
    request = AnalysisRequest(
        weights=options.the_weights(weights, trust=trust),
        options=MetricOptions(dense=metric.name == "l2_dense"),
        same_network=True,
        trust=trust,
        per_layer=False,
    )
    paths = mask_paths(masks, sys.stdin or io.StringIO(), note, trust=trust)
    with progress_bar("ranking") as progress, reports_of(paths, request, working, progress) as found:
        reports = list(found)
    ranked = rank_masks(reports, metric, larger_is_better=larger)
    failed = tell_ranking(reports, ranked)
    show_ranking(reports, ranked, metric, format, header=not no_header)
    if failed:
        raise typer.Exit(1)
