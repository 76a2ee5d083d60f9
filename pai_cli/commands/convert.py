"""`pai convert`: read what other tools wrote, and write for them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pai_cli.commands import options
from pai_cli.commands.given import asked
from pai_cli.files.foreign.registry import KINDS, OURS
from pai_cli.files.foreign.write import Target
from pai_cli.files.tables import Format


def convert(
    file: Annotated[
        Path,
        typer.Argument(
            metavar="FILE", readable=False, help="A mask, or a network that holds one; .pt .pth .npz .safetensors."
        ),
    ],
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            metavar="MASK",
            readable=False,
            callback=options.written,
            help="Where to write it, - for standard output; by default FILE-mask.safetensors here, or as --to has it.",
        ),
    ] = None,
    kind: Annotated[
        str | None,
        typer.Option(
            "--from",
            metavar="KIND",
            autocompletion=lambda: [OURS, *KINDS],
            help="What FILE is, where it could be several things; one of "
            + "; ".join(f"{one.name}: {one.summary}" for one in KINDS.values())
            + f"; {OURS}: a mask file.",
        ),
    ] = None,
    to: Annotated[
        Target,
        typer.Option(
            metavar="KIND",
            help="pai, torch-prune, npz, dense, semi-structured or sparse-24-bitmask; pai: a mask file. torch-prune: a "
            "state dict for torch.nn.utils.prune; npz: boolean arrays by name; dense: the weights, 0 where pruned, "
            "of a model's folder a folder; "
            "semi-structured: the same of a 2:4 mask, checked for torch.sparse; sparse-24-bitmask: as compressed-tensors "
            "stores it.",
        ),
    ] = Target.PAI,
    names_from: Annotated[
        Path | None,
        typer.Option(
            metavar="CKPT",
            readable=False,
            help="The checkpoint that names the arrays of a list; in order. Names are checked against it.",
        ),
    ] = None,
    weights: Annotated[
        Path | None,
        typer.Option(
            metavar="CKPT", readable=False, help="The checkpoint that is pruned; for every --to but pai and npz."
        ),
    ] = None,
    packed: options.Packed = False,
    format: options.OutputFormat = Format.TABLE,  # noqa: A002  the flag's name
    force: options.Force = False,
    trust: options.Trust = False,
) -> None:
    """Write a mask that another tool made as a mask file, or a mask for another tool.

    The other commands read the same files directly, where there is no doubt of what they are.
    """
    given = asked(locals())
    from pai_cli.api.convert import convert as run
    from pai_cli.api.convert import default_output
    from pai_cli.display.kept import show_kept

    path = given["output"] = output or default_output(given)
    show_kept(run(**given, progress=True), path, format)


COMMANDS = {
    "convert": (convert, "pai convert sample_masks/synflow-0.05.safetensors --to npz"),
}
