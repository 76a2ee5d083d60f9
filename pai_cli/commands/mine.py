"""`pai mine`: what do these masks agree on."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pai_cli.api.plans import plan_mining
from pai_cli.commands import options
from pai_cli.commands.agreeing import Given, check_given, check_search, open_collection, write_consensus
from pai_cli.files.tables import Format
from pai_cli.mining.level import Level


def mine(
    ctx: typer.Context,
    masks: options.Masks,
    support: Annotated[
        str,
        typer.Option(
            metavar="SHARE|N",
            help="How many must hold a subgraph: a share such as 0.8 (1.0 is all), or a whole number of masks such as 12.",
        ),
    ] = "0.8",
    min_edges: Annotated[int, typer.Option("--min-edges", min=1, help="The fewest edges of a subgraph.")] = 3,
    level: Annotated[
        Level | None,
        typer.Option(
            help="unit, the default: an edge is a kernel of which any weight is kept, between units that one layer writes "
            "and the next reads; weight: an edge is a kept weight, each layer by itself."
        ),
    ] = None,
    graphs: Annotated[
        bool,
        typer.Option("--graphs", help="The files are lists of edges, two names a line, instead of masks."),
    ] = False,
    weights: Annotated[
        Path | None,
        typer.Option(
            metavar="CKPT",
            readable=False,
            help="A checkpoint of the masks' network, which is then followed to find who reads whom; otherwise the order "
            "and the names of the layers tell.",
        ),
    ] = None,
    model: options.Model = None,
    input_shape: options.InputShape = None,
    overlap: Annotated[
        bool, typer.Option("--overlap", help="The pairs of masks and what they share, instead of subgraphs.")
    ] = False,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            readable=False,
            metavar="MASK",
            help="Write the mask of the weights that enough masks keep.",
        ),
    ] = None,
    packed: options.Packed = False,
    max_results: Annotated[
        int | None, typer.Option("--max-results", min=1, metavar="N", help="Stop after so many subgraphs.")
    ] = None,
    timeout: Annotated[
        float | None, typer.Option(min=0.0, metavar="SECONDS", help="Stop searching after so many seconds.")
    ] = None,
    plot: options.Plot = None,
    format: options.OutputFormat = Format.TABLE,  # noqa: A002  the flag's name
    no_header: options.NoHeader = False,
    force: options.Force = False,
    trust: options.Trust = False,
) -> None:
    """Find what masks agree on: the maximal connected subgraphs that enough of them hold in full, all of them, exactly.

    Also how much each pair shares beside what chance would give, and the consensus mask (-o).
    """
    options.check_header(format, no_header=no_header)
    given = Given(
        files=masks,
        graphs=graphs,
        level=level,
        weights=weights,
        model=model,
        input_shape=options.the_shape(input_shape),
        output=output,
        packed=packed,
        force=force,
        trust=trust,
    )
    check_given(given)
    check_search(ctx, overlap=overlap, consensus=output is not None)
    from pai_cli.display.figures.canvas import check_picture
    from pai_cli.display.figures.overlap import plot_overlap
    from pai_cli.display.mining import show_masks, show_matrix, show_pairs, show_subgraphs, verdict
    from pai_cli.display.progress import progress_bar
    from pai_cli.mining.run import Limits, Mining
    from pai_cli.mining.search import Wanted
    from pai_cli.mining.support import parse_support

    needed = parse_support(support)
    check_picture(plot)
    plan = plan_mining(masks, weights, model, output, plot, force=force)
    with progress_bar("reading") as progress:
        collection, opened = open_collection(given, plan, progress)
    wanted = Wanted(needed.among(len(collection.names)), min_edges)
    table = format is Format.TABLE
    pairs = []
    if table or overlap or plot is not None:
        from pai_cli.mining.overlap import overlaps

        pairs = overlaps(collection)
    plot_overlap(pairs, collection.names, verdict(pairs, collection), plot, force=force)
    if write_consensus(given, opened, wanted.support, ctx.obj.arguments):
        return  # to standard output, where tables would end up in it
    if table:
        show_masks(collection)
    if overlap:
        show_pairs(pairs, collection, format, header=not no_header)
        return
    if table:
        show_matrix(pairs, collection)
    with progress_bar("mining", streaming=not table) as progress:
        show_subgraphs(Mining(collection, wanted, Limits(max_results, timeout), progress), format, header=not no_header)
