"""`pai prune`: which weights to keep, before training."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pai_cli.commands import options
from pai_cli.commands.given import asked
from pai_cli.compute.device import Device
from pai_cli.files.tables import Format
from pai_cli.pruning.stability import PERTURBATION
from pai_cli.pruning.trained import EPOCHS, FREEZE_EVERY
from pai_cli.training.recipe import Optimizer

Epochs = Annotated[
    int | None,
    typer.Option(metavar="N", help=f"Epochs, by default {EPOCHS}; of imp, of each round, by default 160."),
]
FreezeEvery = Annotated[
    int | None,
    typer.Option(
        "--freeze-every", metavar="N", help=f"Epochs between freezes of gem-miner, by default {FREEZE_EVERY}."
    ),
]
Penalty = Annotated[
    float | None,
    typer.Option(
        metavar="LAMBDA",
        help="Weight of gem-miner's squared scores in the loss; by default that of the published recipe for the nearest "
        "density.",
    ),
]
Rewind = Annotated[
    float | None,
    typer.Option(metavar="EPOCHS", help="Epoch that imp's rounds go back to, by default 2.5."),
]
OptimizerName = Annotated[
    Optimizer | None,
    typer.Option(metavar="sgd|adam", help="Of a method that trains, by default sgd; with momentum 0.9."),
]
LearningRate = Annotated[
    float | None,
    typer.Option("--lr", metavar="X", help="The first learning rate; by default as published, 0.1 of sgd."),
]
BatchSize = Annotated[int | None, typer.Option("--batch-size", metavar="N", help="Examples a step, by default 128.")]
Resume = Annotated[
    bool, typer.Option("--resume", help="Go on where a method that trains was interrupted; with the same settings.")
]
Stability = Annotated[
    int | None,
    typer.Option(
        "--stability",
        metavar="N",
        min=1,
        help="Prune N times more, weights perturbed; and tell how much stays the same.",
    ),
]
Perturbation = Annotated[
    float | None,
    typer.Option(metavar="X", help=f"Its largest relative change, by default {PERTURBATION:g}."),
]
StableOut = Annotated[
    Path | None,
    typer.Option(
        "--stable-out",
        metavar="MASK",
        readable=False,
        help="Write the mask of what --stability always keeps.",
    ),
]


def prune(
    ctx: typer.Context,
    checkpoint: options.CheckpointPath,
    method: options.MethodName = None,
    density: options.Density = None,
    sparsity: options.Sparsity = None,
    output: options.Output = None,
    scope: options.ScopeName = None,
    seed: options.Seed = 0,
    rounds: options.Rounds = None,
    data: options.Data = None,
    per_class: options.PerClass = None,
    normalise: options.Normalise = False,
    batch_norm: options.BatchNormName = None,
    text: options.TextPath = None,
    sequences: options.Sequences = None,
    sequence_length: options.SequenceLength = None,
    head: options.Head = False,
    pattern: options.PatternText = None,
    densities: options.DensitiesPath = None,
    allocation: options.AllocationName = None,
    shuffle: options.Shuffle = False,
    invert: options.Invert = False,
    ties: options.TieName = None,
    reinit: options.Reinit = False,
    weights_out: options.WeightsOut = None,
    epochs: Epochs = None,
    freeze_every: FreezeEvery = None,
    penalty: Penalty = None,
    rewind: Rewind = None,
    optimizer: OptimizerName = None,
    lr: LearningRate = None,
    batch_size: BatchSize = None,
    resume: Resume = False,
    stability: Stability = None,
    perturbation: Perturbation = None,
    stable_out: StableOut = None,
    ignore: options.Ignore = None,
    model: options.Model = None,
    input_shape: options.InputShape = None,
    device: options.DeviceName = Device.AUTO,
    packed: options.Packed = False,
    no_collapse: options.NoCollapse = False,
    effective: options.Effective = False,
    format: options.OutputFormat = Format.TABLE,  # noqa: A002  the flag's name
    force: options.Force = False,
    trust: options.Trust = False,
) -> None:
    """Choose which weights of a checkpoint to keep, and write them as a mask file.

    The checkpoint is not changed. gem-miner, edge-popup and imp train, which takes as long as that does; interrupted, they
    go on with --resume.
    """
    given = asked(locals())
    from pai_cli.api.prune import default_output
    from pai_cli.api.prune import prune as choose
    from pai_cli.display.pruning import show_pruning

    path = given["output"] = output or default_output(given)
    mask = choose(**given, progress=True)
    assert mask.summary is not None
    show_pruning(mask.summary, path, format, density_default="density_default" in mask.metadata)


COMMANDS = {
    "prune": (prune, "pai prune sample_masks/resnet20.safetensors --method synflow"),
}
