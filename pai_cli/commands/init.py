"""`pai init`: a fresh checkpoint of a known architecture."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pai_cli.commands import options


def init(
    ctx: typer.Context,
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="An architecture: resnet20, vgg16-bn, mlp-784-300-10 ...")
    ],
    classes: Annotated[
        int | None,
        typer.Option(
            min=1, help="How many classes the head tells apart; 10 unless given, for an mlp the last size of its name."
        ),
    ] = None,
    seed: options.Seed = 0,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="CKPT", help="Where to write it; default NAME.safetensors.")
    ] = None,
    force: options.Force = False,
) -> None:
    """Write a freshly initialised checkpoint of a known architecture, with the parameter names the ecosystem uses."""
    from pai_cli.display.console import note
    from pai_cli.files.plan import FilePlan
    from pai_cli.files.provenance import provenance

    path = output or Path(f"{name}.safetensors")
    plan = FilePlan(force=force)
    plan.writes(path, "the checkpoint", "output")
    plan.check()
    from pai_cli.models.network import init_network, save_checkpoint

    network = init_network(name, classes, seed)
    story = {"architecture": name, "seed": str(seed), **provenance(ctx.obj.arguments)}
    save_checkpoint(path, network, story, force=force)
    note(f"wrote {path}: {network.description}, {network.total:,} prunable weights in {len(network.layers)} tensors")
