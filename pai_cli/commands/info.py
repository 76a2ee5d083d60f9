"""`pai info`: what a file is and holds."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pai_cli.commands import options
from pai_cli.commands.given import asked
from pai_cli.files.tables import Format


def info(
    file: Annotated[
        Path,
        typer.Argument(
            metavar="FILE", readable=False, help="A mask, a checkpoint, a program, a graph, or a folder of them."
        ),
    ],
    format: options.OutputFormat = Format.TABLE,  # noqa: A002  the flag's name
    columns: options.Columns = None,
    sort: options.Sort = None,
    no_header: options.NoHeader = False,
    trust: options.Trust = False,
) -> None:
    """Tell what a file is and what it holds: tensors, shapes, types, how much a mask keeps, how it was made.

    Nothing in the file is run, and nothing is changed.
    """
    given = asked(locals())
    options.check_header(format, no_header=no_header)
    from pai_cli.api.info import info as look
    from pai_cli.display.info import FIELDS, show_info
    from pai_cli.display.look import Look

    how = Look.of(format, FIELDS, columns, sort, header=not no_header)
    show_info(look(**given), how)


COMMANDS = {
    "info": (info, "pai info sample_masks/synflow-0.05.safetensors"),
}
