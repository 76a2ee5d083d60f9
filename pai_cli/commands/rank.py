"""`pai rank`: which of these masks will train best, and which metric tells."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

import typer

from pai_cli.api.asked import Asked
from pai_cli.api.rank import enter, ranked
from pai_cli.commands import options
from pai_cli.commands.given import asked
from pai_cli.compute.device import Device
from pai_cli.files.tables import Format
from pai_cli.ranking.rules import COLLAPSED, MOST_RESAMPLES, RESAMPLES, USUAL_BY, AccuracyUnit
from pai_cli.spectral.catalogue import RANKED
from pai_cli.spectral.conventions import Convention


def rank(
    masks: Annotated[
        list[str] | None,
        typer.Argument(metavar="MASK...", help="Mask files, folders of them, or - (paths on stdin)."),
    ] = None,
    table: Annotated[
        Path | None,
        typer.Option(
            metavar="CSV",
            readable=False,
            help="Metrics that were measured before, not masks; a row a mask, as pai analyze --summary --format csv writes "
            "them, or - for standard input. A column accuracy, if there is one, is correlated with.",
        ),
    ] = None,
    accuracy: Annotated[
        Path | None,
        typer.Option(
            metavar="CSV",
            readable=False,
            help="Measured accuracies, which metrics should predict; the columns that name masks (by path, file name, "
            "stem or folder) and hold accuracies are found by their usual names, and so are seed, dataset and method. Shows "
            "how well each metric predicts them instead of an order.",
        ),
    ] = None,
    mask_column: Annotated[
        str | None,
        typer.Option(metavar="COLUMN", help="Which column of --accuracy names masks; or of --table."),
    ] = None,
    accuracy_column: Annotated[
        str | None,
        typer.Option(metavar="COLUMN", help="Which column of --accuracy holds accuracies; or of --table."),
    ] = None,
    order: Annotated[bool, typer.Option("--order", help="The order of the masks too, with --accuracy.")] = False,
    weights: options.Weights = None,
    convention: options.ConventionName = Convention.H23,
    model: options.Model = None,
    input_shape: options.InputShape = None,
    by: Annotated[
        str | None,
        typer.Option(
            metavar="METRIC",
            autocompletion=lambda: list(RANKED),
            help="The metric that decides, one of `pai metrics`; or arithmetic of several with + - * / ( ) abs sqrt norm, "
            "such as 'dr_imdb + 0.5*lambda_imsg'; by default l2 with --weights, else dr_imdb. Among correlations it is one "
            "more metric, set beside the best.",
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
            help="Correlate only these, names or globs, commas between; by default all.",
        ),
    ] = None,
    controls: Annotated[
        str | None,
        typer.Option(
            metavar="NAMES",
            help="What each metric is held against; metrics with commas between them, or none: its partial tau is what it "
            "tells of accuracy that they do not. By default layer_density and, where there is one, effective_share. A "
            "column of numbers of --accuracy may be one too.",
        ),
    ] = None,
    group_by: Annotated[
        str | None,
        typer.Option(
            metavar="COLUMNS",
            help="Columns that part what is not compared; with commas between them, or none. By default "
            "those of the --table named as a density, sparsity or compression, a network or a data set, and the data set of "
            "--accuracy, of which they part what has equal density.",
        ),
    ] = None,
    collapsed_at: Annotated[
        float | None,
        typer.Option(
            metavar="X",
            min=0.0,
            max=1.0,
            help=f"Set runs this bad aside, by default {COLLAPSED:g}; a fraction: of at most this accuracy a run counts as "
            "collapsed. 0 keeps all.",
        ),
    ] = None,
    accuracy_unit: Annotated[
        AccuracyUnit | None,
        typer.Option(
            metavar="UNIT", help="What accuracies are, fraction or percent; by default percent when any is above 1."
        ),
    ] = None,
    resamples: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            min=100,
            max=MOST_RESAMPLES,
            help=f"Samples behind an interval, by default {RESAMPLES:,}; of the bootstrap.",
        ),
    ] = None,
    seed: Annotated[int | None, typer.Option(metavar="N", min=0, help="Seed of the bootstrap, by default 0.")] = None,
    format: options.OutputFormat = Format.TABLE,  # noqa: A002  the flag's name
    columns: options.Columns = None,
    sort: options.Sort = None,
    no_header: options.NoHeader = False,
    device: options.EngineDevice = Device.AUTO,
    device_memory: options.DeviceMemory = None,
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
    given = asked(locals())
    options.check_header(format, no_header=no_header)
    from pai_cli.api.ranked import Ranking, draw
    from pai_cli.display import correlation, ranking
    from pai_cli.display.console import fail
    from pai_cli.display.look import Look

    def look(decides: Iterable[str], *, study: bool) -> Look:
        """As it was asked for; the column of values is called as what decides, too, as its head is."""
        fields = correlation.FIELDS if study else ranking.FIELDS
        also = {} if study else dict.fromkeys(decides, "value")
        return Look.of(format, fields, columns, sort, header=not no_header, also=also)

    if table is None:  # which tells itself whether it has accuracies
        look([by] if by else USUAL_BY, study=accuracy is not None and not order)
    entered = enter(Asked(**given, progress=True))
    failed = sum([fail(one.error) for one in entered.reports])
    found = ranked(entered)
    if isinstance(found, Ranking):
        ranking.show_ranking(entered.reports, found.ranked, found.by, look([found.by], study=False))
    else:
        correlation.show_study(found.study, by, look([], study=True))
    draw(found, entered.pictures)
    if failed:
        raise typer.Exit(1)


COMMANDS = {
    "rank": (rank, "pai rank sample_masks --weights sample_masks/resnet20.safetensors"),
}
