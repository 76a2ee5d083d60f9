"""`pai mine`: what do these masks agree on."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pai_cli.commands import options
from pai_cli.commands.given import asked
from pai_cli.files.tables import Format
from pai_cli.mining.level import Level


def mine(
    masks: options.Masks,
    support: Annotated[
        str,
        typer.Option(
            metavar="SHARE|N",
            help="How many must hold a subgraph; a share such as 0.8 (1.0 is all), or a whole number of masks such as 12.",
        ),
    ] = "0.8",
    min_edges: Annotated[
        int | None,
        typer.Option("--min-edges", metavar="N", min=1, help="The fewest edges of a subgraph, by default 3."),
    ] = None,
    level: Annotated[
        Level | None,
        typer.Option(
            metavar="unit|weight",
            help="What an edge is, by default unit; unit: a kernel of which any weight is kept, between units that one "
            "layer writes and the next reads. weight: a kept weight, each layer by itself.",
        ),
    ] = None,
    graphs: Annotated[
        bool,
        typer.Option("--graphs", help="The files are lists of edges; two names a line, instead of masks."),
    ] = False,
    weights: Annotated[
        Path | None,
        typer.Option(
            metavar="CKPT",
            readable=False,
            help="A checkpoint of the masks' network; it is followed to find who reads whom. Otherwise the order and the "
            "names of the layers tell.",
        ),
    ] = None,
    model: options.Model = None,
    input_shape: options.InputShape = None,
    overlap: Annotated[
        bool, typer.Option("--overlap", help="The pairs of masks and what they share; no subgraphs.")
    ] = False,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            readable=False,
            metavar="MASK",
            callback=options.written,
            help="Write the mask of weights that enough masks keep.",
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
    columns: options.Columns = None,
    sort: options.Sort = None,
    no_header: options.NoHeader = False,
    force: options.Force = False,
    trust: options.Trust = False,
) -> None:
    """Find what masks agree on: the maximal connected subgraphs that enough of them hold in full, all of them, exactly.

    Also how much each pair shares beside what chance would give, and the consensus mask (-o).
    """
    given = asked(locals())
    options.check_header(format, no_header=no_header)
    from pai_cli.api.mine import mine as run
    from pai_cli.display.kept import is_in_the_way
    from pai_cli.display.look import Look
    from pai_cli.display.mining import PAIR_FIELDS, show_masks, show_matrix, show_pairs, show_subgraphs
    from pai_cli.display.progress import progress_bar
    from pai_cli.mining.run import FIELDS

    look = Look.of(format, PAIR_FIELDS if overlap else tuple(FIELDS), columns, sort, header=not no_header)
    mined = run(**given, progress=True)
    if is_in_the_way(output):
        return
    if format.for_people and not look.columns:
        show_masks(mined.collection, look)
    if overlap:
        show_pairs(mined.pairs, look)
        return
    if format.for_people:
        show_matrix(mined.pairs, mined.collection, look)
    with progress_bar("mining", streaming=not format.for_people and not look.key) as progress:
        show_subgraphs(mined.search(progress), look)


COMMANDS = {
    "mine": (mine, "pai mine sample_masks/synflow-0.05.safetensors sample_masks/erk-0.05.safetensors --support 1.0"),
}
