"""The options of `pai sample` alone: of searches, and of what is built instead."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pai_cli.methods.registry import names

if TYPE_CHECKING:
    from pai_cli.sampling.expanders.layer import Construction


class SelectChoice(StrEnum):
    """What is taken of a candidate."""

    MASK = "mask"
    LAYER = "layer"


class ConstructChoice(StrEnum):
    """How layers are built."""

    BIREGULAR = "biregular"
    RAMANUJAN = "ramanujan"


MethodOfSearch = Annotated[
    str | None,
    typer.Option("--method", metavar="NAME", autocompletion=names, help="Any method of pai prune."),
]
Population = Annotated[int | None, typer.Option(min=1, help="How many candidates to measure; 1000 is usual.")]
Select = Annotated[
    SelectChoice | None,
    typer.Option(
        help="What to take of a candidate. mask (the default): all of it, when its network l2 is the largest so far; "
        "layer: the layers whose dr_imdb and l2 are both at least the best so far, brought back to the exact count.",
    ),
]
Construct = Annotated[
    ConstructChoice | None,
    typer.Option(
        help="Build a mask instead of searching for one, at ERK's densities. biregular: random layers of equal degrees; "
        "ramanujan: such layers, their edges switched until dr stops growing, or known graphs where they fit.",
    ),
]
Steps = Annotated[
    int | None,
    typer.Option(min=1, help="The most steps of switching a layer, of --construct ramanujan; by default 200."),
]
Noise = Annotated[
    float | None,
    typer.Option(
        min=0.0,
        help="Noise on the weights, relative to each layer's own, for methods that do not draw at random; by default 0.1.",
    ),
]
TrajectoryPath = Annotated[
    Path | None,
    typer.Option(
        metavar="JSONL",
        readable=False,
        help="Where to write a line a candidate; by default the mask's name with .jsonl.",
    ),
]
Resume = Annotated[bool, typer.Option("--resume", help="Go on where a search of the same settings was interrupted.")]


def construction(choice: ConstructChoice | None, seed: int, steps: int | None) -> Construction:
    """How layers are to be built."""
    from pai_cli.sampling.expanders.layer import USUAL_STEPS, Construction

    ramanujan = choice is ConstructChoice.RAMANUJAN
    return Construction("ramanujan" if ramanujan else "biregular", seed, steps or USUAL_STEPS)


OF_A_SEARCH = (
    *("method", "population", "select", "noise", "trajectory", "resume", "scope", "rounds", "data", "per_class"),
    *("pattern", "plot"),
)


def check_search(construct: ConstructChoice | None, given: Mapping[str, Any]) -> None:
    """Refuse a search without what it needs, and beside --construct what only a search has. `given`: all parameters."""
    named = [name for name in OF_A_SEARCH if given.get(name) is not None and given[name] is not False]
    flags = [f"--{name.replace('_', '-')}" for name in named]
    if construct is None:
        missing = [flag for flag in ("--method", "--population") if flag not in flags]
        if missing:
            raise typer.BadParameter(f"give {' and '.join(missing)} to search, or --construct to build a mask")
    elif flags:
        raise typer.BadParameter(f"--construct {construct}: builds a mask and searches for none; leave {flags[0]} out")
    if given["steps"] is not None and construct is not ConstructChoice.RAMANUJAN:
        raise typer.BadParameter("--steps: only for --construct ramanujan; leave it out")
