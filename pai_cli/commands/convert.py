"""`pai convert`: read what other tools wrote, and write for them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pai_cli.api.plans import read_checkpoint
from pai_cli.commands import options
from pai_cli.files.foreign.registry import KINDS, OURS
from pai_cli.files.foreign.write import Target
from pai_cli.files.tables import Format


def convert(
    ctx: typer.Context,
    file: Annotated[
        Path,
        typer.Argument(
            metavar="FILE", readable=False, help="A mask, or a network that holds one: .pt .pth .npz .safetensors."
        ),
    ],
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            metavar="MASK",
            readable=False,
            help="Where to write it; by default FILE-mask.safetensors here, and so on for other --to.",
        ),
    ] = None,
    kind: Annotated[
        str | None,
        typer.Option(
            "--from",
            metavar="KIND",
            autocompletion=lambda: [OURS, *KINDS],
            help="What FILE is, where it could be several things; "
            + "; ".join(f"{one.name}: {one.summary}" for one in KINDS.values())
            + f"; {OURS}: a mask file.",
        ),
    ] = None,
    to: Annotated[
        Target,
        typer.Option(
            help="What to write. torch-prune: a state dict for torch.nn.utils.prune; npz: boolean arrays by name; "
            "dense: the weights, 0 where pruned."
        ),
    ] = Target.PAI,
    names_from: Annotated[
        Path | None,
        typer.Option(
            metavar="CKPT",
            readable=False,
            help="The checkpoint whose weights name the arrays of a list, in order; names are checked against it.",
        ),
    ] = None,
    weights: Annotated[
        Path | None,
        typer.Option(
            metavar="CKPT", readable=False, help="The checkpoint that is pruned, for --to torch-prune and --to dense."
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
    options.check_conversion(to, weights=weights is not None, packed=packed)
    from pai_cli.analysis.masks import check_match
    from pai_cli.display.console import note, warn
    from pai_cli.display.kept import show_kept
    from pai_cli.display.progress import progress_bar
    from pai_cli.files.checkpoints import files_of
    from pai_cli.files.conversion import Output, read_any, write_any
    from pai_cli.files.foreign.write import check_suffix, kept_zeros
    from pai_cli.files.messages import some_names
    from pai_cli.files.plan import FilePlan

    path = output or options.default_conversion_path(file, to)
    check_suffix(path, to)
    plan = FilePlan(force=force)
    plan.reads("what is converted", *files_of(file))
    read_checkpoint(plan, weights)
    read_checkpoint(plan, names_from)
    plan.writes(path, "the mask", "output")
    plan.check()
    names = options.the_names(names_from, trust=trust)
    with progress_bar("reading") as progress:
        mask = read_any(file, kind, names, trust=trust, progress=progress)
    if mask.told:
        note(f"{file}: {mask.told}")
    checkpoint = options.the_weights(weights, trust=trust)
    if checkpoint is not None:
        check_match(file, mask.shapes, checkpoint)
        if to is Target.DENSE and (zeros := kept_zeros(checkpoint, mask.masks)):
            warn(
                f"{weights}: {sum(zeros.values()):,} kept weights are 0 ({some_names(zeros)}): they read as pruned ones"
            )
    write_any(mask, Output(path, to, ctx.obj.arguments, checkpoint, packed=packed, force=force))
    show_kept(mask.masks, path, format)
