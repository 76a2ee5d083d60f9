"""`pai init`: a fresh checkpoint of a known architecture."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pai_cli.commands import options
from pai_cli.commands.given import asked


def init(
    name: Annotated[
        str,
        typer.Argument(metavar="NAME", help="An architecture, as resnet20 or mlp-784-300-10; `pai models` lists them."),
    ],
    classes: Annotated[
        int | None,
        typer.Option(
            metavar="N", min=1, help="Classes the head tells apart, by default 10; of an mlp the last size of its name."
        ),
    ] = None,
    seed: options.Seed = 0,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            metavar="CKPT",
            callback=options.written,
            help="Where to write it, - for standard output; by default NAME.safetensors.",
        ),
    ] = None,
    force: options.Force = False,
) -> None:
    """Write a freshly initialised checkpoint of a known architecture, with the parameter names the ecosystem uses."""
    given = asked(locals())
    from pai_cli.api.init import default_output
    from pai_cli.api.init import init as run

    given["output"] = output or default_output(given)
    run(**given)


COMMANDS = {
    "init": (init, "pai init resnet20 --classes 10 --seed 0 -o fresh.safetensors"),
}
