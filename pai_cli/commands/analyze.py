"""`pai analyze`: how well connected is a mask."""

from __future__ import annotations

from typing import Annotated

import typer

from pai_cli.api.analyze import reports
from pai_cli.commands import options
from pai_cli.commands.given import asked
from pai_cli.compute.device import Device
from pai_cli.files.tables import Format
from pai_cli.spectral.conventions import Convention
from pai_cli.spectral.solvers import Solver


def analyze(
    masks: options.Masks,
    weights: options.Weights = None,
    layers: Annotated[
        list[str] | None,
        typer.Option(metavar="GLOB", help="Only layers whose name matches; may be given again."),
    ] = None,
    summary: Annotated[bool, typer.Option("--summary", help="Only the network's means, a line a mask.")] = False,
    format: options.OutputFormat = Format.TABLE,  # noqa: A002  the flag's name
    columns: options.Columns = None,
    sort: options.Sort = None,
    no_header: options.NoHeader = False,
    convention: options.ConventionName = Convention.H23,
    expansion_weighted: Annotated[
        bool,
        typer.Option(
            "--expansion-weighted",
            help="Subgraphs' terms times their expansion's factor; max(n_L, n_R) / (n_L + n_R - 1), which f23 always does.",
        ),
    ] = False,
    solver: options.SolverName = Solver.AUTO,
    certify: options.Certify = False,
    between: Annotated[
        bool,
        typer.Option(
            "--between",
            help="Measure every two consecutive layers instead; compatibility, copeland, overlap. The network of --weights "
            "is followed to find them.",
        ),
    ] = False,
    model: options.Model = None,
    input_shape: options.InputShape = None,
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
    """Measure masks: Ramanujan gaps, left-regular subgraphs, weighted spectral gaps, a layer and over the network; and the
    paths through the network, where --weights or --model tell it.

    A graph by itself is measured as one layer: a Matrix Market file, a sparse matrix of SciPy's (.npz), an array (.npy),
    or a list of edges (.txt, .csv, .tsv).

    Every value has an error bound (its _error field); a missing value has its reason.
    """
    given = asked(locals())
    options.check_header(format, no_header=no_header)
    from pai_cli.display.analysis import ShownReports
    from pai_cli.display.junctions import FIELDS, show_between
    from pai_cli.display.look import Look
    from pai_cli.display.progress import progress_bar
    from pai_cli.display.records import ANALYZE_FIELDS

    look = Look.of(format, FIELDS if between else ANALYZE_FIELDS, columns, sort, header=not no_header)
    gathered = summary and (format.for_people or look.key != "")
    with progress_bar("analyzing", streaming=not gathered) as progress:
        found = reports(**given, progress=progress)
        with found:
            if between:
                measured = (one.measured for one in found)
                status = show_between(measured, look, summary=summary)
            else:
                shown = ShownReports(look, summary=summary, weights=weights is not None)
                for one in found:
                    shown.add(one.measured)
                status = shown.close()
    if status:
        raise typer.Exit(status)


COMMANDS = {
    "analyze": (analyze, "pai analyze sample_masks/synflow-0.05.safetensors"),
}
