"""`pai sample`: search for a better connected mask."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from pai_cli.commands import options
from pai_cli.commands.given import asked
from pai_cli.compute.device import Device
from pai_cli.files.tables import Format
from pai_cli.methods.registry import names
from pai_cli.spectral.catalogue import RANKED


class SelectChoice(StrEnum):
    """What is taken of a candidate."""

    MASK = "mask"
    LAYER = "layer"


class NoiseUnitChoice(StrEnum):
    """What noise of size 1 is."""

    LAYER = "layer"
    WEIGHT = "weight"


class ConstructChoice(StrEnum):
    """How layers are built."""

    BIREGULAR = "biregular"
    RAMANUJAN = "ramanujan"


MethodOfSearch = Annotated[
    str | None,
    typer.Option(
        "--method", metavar="NAME", autocompletion=names, help="Any method of pai prune; `pai methods` lists them."
    ),
]
Population = Annotated[
    int | None, typer.Option(metavar="N", min=1, help="How many candidates to measure, 1000 as a rule.")
]
Select = Annotated[
    SelectChoice | None,
    typer.Option(
        metavar="mask|layer",
        help="What to take of a candidate; mask (the default): all of it, when its network l2 is the largest so far. "
        "layer: the layers whose dr_imdb and l2 are both at least the best so far, brought back to the exact count.",
    ),
]
By = Annotated[
    str | None,
    typer.Option(
        metavar="METRIC",
        autocompletion=lambda: [*RANKED],
        help="What a mask must have the best of, by default l2; any metric that `pai metrics` lists, such as "
        "effective_share, or arithmetic of several, the larger the better, such as 'dr_imdb + l2', '-lambda' or 'l2 / dr'.",
    ),
]
Construct = Annotated[
    ConstructChoice | None,
    typer.Option(
        metavar="KIND",
        help="Build a mask, biregular or ramanujan; no search, at ERK's densities. biregular: random layers of equal "
        "degrees; ramanujan: such layers, their edges switched until dr stops growing, or known graphs where they fit.",
    ),
]
Steps = Annotated[
    int | None,
    typer.Option(metavar="N", min=1, help="Most switches a layer, by default 200; of --construct ramanujan."),
]
Noise = Annotated[
    float | None,
    typer.Option(
        min=0.0,
        help="Noise on the weights, its standard deviation, by default 0.1; for methods that do not draw at random.",
    ),
]
NoiseUnit = Annotated[
    NoiseUnitChoice | None,
    typer.Option(
        metavar="layer|weight",
        help="What --noise is in; layer (the default): times each layer's own standard deviation. weight: as it stands.",
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
Resume = Annotated[bool, typer.Option("--resume", help="Go on where this very search was interrupted.")]


def sample(
    ctx: typer.Context,
    checkpoint: options.CheckpointPath,
    method: MethodOfSearch = None,
    population: Population = None,
    density: options.Density = None,
    sparsity: options.Sparsity = None,
    output: options.Output = None,
    select: Select = None,
    by: By = None,
    convention: options.ConventionOrUsual = None,
    construct: Construct = None,
    steps: Steps = None,
    noise: Noise = None,
    noise_unit: NoiseUnit = None,
    trajectory: TrajectoryPath = None,
    resume: Resume = False,
    scope: options.ScopeName = None,
    seed: options.Seed = 0,
    rounds: options.Rounds = None,
    data: options.Data = None,
    per_class: options.PerClass = None,
    normalise: options.Normalise = False,
    batch_norm: options.BatchNormName = None,
    ties: options.TieName = None,
    pattern: options.PatternText = None,
    densities: options.DensitiesPath = None,
    ignore: options.Ignore = None,
    model: options.Model = None,
    input_shape: options.InputShape = None,
    device: options.DeviceName = Device.AUTO,
    jobs: options.Jobs = None,
    cluster: options.Cluster = None,
    packed: options.Packed = False,
    format: options.OutputFormat = Format.TABLE,  # noqa: A002  the flag's name
    force: options.Force = False,
    trust: options.Trust = False,
    plot: options.Plot = None,
) -> None:
    """Take the best connected of many masks of one method: the largest full-spectrum l2 over the network, density exact;
    or layer by layer, the best connected of many masks' layers.

    The trajectory is written as the search goes; an interrupted search goes on with --resume and ends with the same mask,
    and a finished one is extended by --resume with a larger --population. With --construct a mask is built instead.
    """
    given = asked(locals())
    from pai_cli.api.sample import default_output
    from pai_cli.api.sample import sample as search
    from pai_cli.display.expanders import show_construction
    from pai_cli.display.sampling import show_search

    path = given["output"] = output or default_output(given)
    mask = search(**given, progress=True)
    if mask.built is not None:
        show_construction(mask.built, path, format)
    elif mask.search is not None and mask.candidates is not None:
        show_search(mask.search, mask.candidates[0], path, format)


COMMANDS = {
    "sample": (sample, "pai sample sample_masks/resnet20.safetensors --method erk --population 10"),
}
