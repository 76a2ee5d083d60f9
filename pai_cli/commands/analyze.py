"""`pai analyze`: how well connected is a mask."""

from __future__ import annotations

import io
import sys
from typing import Annotated

import typer

from pai_cli.api.plans import plan_measuring, read_masks
from pai_cli.commands import options
from pai_cli.commands.between import (
    NetworkOptions,
    Shown,
    analyze_between,
    refuse_beside_between,
    refuse_network_options,
)
from pai_cli.compute.device import Device, resolve
from pai_cli.files.tables import Format
from pai_cli.spectral.solvers import Solver


def analyze(
    masks: options.Masks,
    weights: options.Weights = None,
    layers: Annotated[
        list[str] | None,
        typer.Option(metavar="GLOB", help="Only the layers whose name matches; may be given again."),
    ] = None,
    summary: Annotated[bool, typer.Option("--summary", help="Only the network's means, a line a mask.")] = False,
    format: options.OutputFormat = Format.TABLE,  # noqa: A002  the flag's name
    no_header: options.NoHeader = False,
    expansion_weighted: Annotated[
        bool,
        typer.Option(
            "--expansion-weighted",
            help="Multiply each left-regular subgraph's term by max(n_L, n_R) / (n_L + n_R - 1).",
        ),
    ] = False,
    solver: options.SolverName = Solver.AUTO,
    certify: options.Certify = False,
    between: Annotated[
        bool,
        typer.Option(
            "--between",
            help="Measure every two consecutive layers instead: compatibility, copeland, overlap. The network of --weights "
            "is followed to find them.",
        ),
    ] = False,
    model: options.Model = None,
    input_shape: options.InputShape = None,
    device: options.EngineDevice = Device.CPU,
    trust: options.Trust = False,
    plot: options.Plot = None,
    report: options.ReportPage = None,
    force: options.Force = False,
    jobs: options.Jobs = None,
    cluster: options.Cluster = None,
    store: options.StorePath = None,
    no_store: options.NoStore = False,
) -> None:
    """Measure masks: Ramanujan gaps, left-regular subgraphs, weighted spectral gaps, a layer and over the network.

    Every value has an error bound (its _error field); a missing value has its reason.
    """
    options.check_header(format, no_header=no_header)
    network = NetworkOptions(weights, model, input_shape)
    if between:
        refuse_beside_between(
            *(("--solver", solver is not Solver.AUTO), ("--device", device is not Device.CPU), ("--certify", certify)),
            *(("--expansion-weighted", expansion_weighted), ("--plot", plot is not None), ("--report", bool(report))),
            *(("--force", force), ("--jobs", jobs is not None), ("--cluster", cluster is not None)),
            *(("--store", store is not None), ("--no-store", no_store)),
        )
        shown = Shown(format, not no_header, summary)
        if analyze_between(masks, layers or [], network, shown, trust=trust):
            raise typer.Exit(1)
        return
    refuse_network_options(network)
    options.check_force(plot, report, force=force)
    working = options.the_working(jobs, cluster, store, no_store=no_store)
    from pai_cli.analysis.masks import AnalysisRequest
    from pai_cli.commands.loading import reports_of
    from pai_cli.display.analysis import show_reports
    from pai_cli.display.console import note
    from pai_cli.display.progress import progress_bar
    from pai_cli.display.report.analysis import AnalysisPictures
    from pai_cli.files.paths import mask_paths
    from pai_cli.spectral.metrics import MetricOptions

    pictures = AnalysisPictures.wanted(plot, report, force=force, weights=weights)
    plan = plan_measuring(masks, weights, plot, report, working, force=force)
    request = AnalysisRequest(
        weights=options.the_weights(weights, trust=trust),
        layers=tuple(layers or ()),
        options=MetricOptions(
            solver=options.the_solver(solver, certify=certify, device=device), expansion_weighted=expansion_weighted
        ),
        device=resolve(device),
        trust=trust,
        per_layer=not summary or pictures.asked,
    )
    paths = mask_paths(masks, sys.stdin or io.StringIO(), note, trust=trust)
    read_masks(plan, paths)
    with (
        progress_bar("analyzing", streaming=format is not Format.TABLE or not summary) as progress,
        reports_of(paths, request, working, progress) as found,
    ):
        reports = pictures.watch(found)
        failed = show_reports(reports, format, header=not no_header, summary=summary, weights=weights is not None)
    pictures.write()
    if failed:
        raise typer.Exit(1)
