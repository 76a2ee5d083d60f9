"""`pai compact`: a masked network without its dead channels."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pai_cli.commands import options
from pai_cli.commands.given import asked
from pai_cli.files.tables import Format


def compact(
    mask: Annotated[Path, typer.Argument(metavar="MASK", readable=False, help="Which weights are kept; a mask file.")],
    weights: Annotated[
        Path | None,
        typer.Option(metavar="CKPT", readable=False, help="The checkpoint the mask was made for; always needed."),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            metavar="FILE",
            readable=False,
            callback=options.written,
            help="Where to write the smaller network, by default CKPT-compact.safetensors here; .pt2 is a program of "
            "torch.export, which needs no code of yours.",
        ),
    ] = None,
    model: options.Model = None,
    input_shape: options.InputShape = None,
    data: Annotated[
        str | None,
        typer.Option(
            "--data",
            metavar="DATA",
            help="Samples to compare both networks on, beside random inputs; digits or a path, the first 64.",
        ),
    ] = None,
    timing_batch: Annotated[int, typer.Option(metavar="N", min=1, help="Inputs in a batch that is timed.")] = 16,
    timing_runs: Annotated[
        int, typer.Option(metavar="N", min=1, help="How often each network is timed; the median is told.")
    ] = 7,
    seed: options.Seed = 0,
    device: Annotated[
        str, typer.Option("--device", metavar="auto|cpu|cuda", help="Where to time; auto takes a GPU when there is one")
    ] = "auto",
    format: options.OutputFormat = Format.TABLE,  # noqa: A002  the flag's name
    no_header: options.NoHeader = False,
    force: options.Force = False,
    trust: options.Trust = False,
) -> None:
    """Remove the channels that a mask leaves dead, and write the smaller network, which gives the same outputs.

    Both are run and compared before anything is written. Parameters, multiply-adds and measured time are shown before and
    after, and which dead channels had to stay.
    """
    given = asked(locals())
    options.check_header(format, no_header=no_header)
    from pai_cli.api.compact import compact as run
    from pai_cli.api.compact import default_output
    from pai_cli.display.compacting import show_compacted

    path = given["output"] = output or default_output(given)
    show_compacted(run(**given, progress=True), path, format, header=not no_header)


COMMANDS = {
    "compact": (
        compact,
        "pai compact sample_masks/synflow-0.02.safetensors --weights sample_masks/resnet20.safetensors",
    ),
}
"""What this file adds to `pai`: by its name, the command and its example."""
