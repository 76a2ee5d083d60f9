"""`pai train`: is the ranking right."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pai_cli.commands import options
from pai_cli.commands.given import asked
from pai_cli.compute.device import Device
from pai_cli.files.tables import Format
from pai_cli.training.recipe import (
    FRACTION_OF_GRANET,
    USUAL_FRACTION,
    Augmentation,
    Dynamic,
    Optimizer,
    Recipe,
    RecipeName,
    Schedule,
)

_BASE = Recipe()

MaskPath = Annotated[
    Path | None,
    typer.Option(
        "--mask", metavar="MASK", readable=False, help="Which weights to train; the others are 0. Without it, all are."
    ),
]
TrainData = Annotated[
    str, typer.Option("--data", metavar="DATA", help="Labelled images, digits or the path of a data set.")
]
Out = Annotated[
    Path | None,
    typer.Option(
        "--output",
        "-o",
        readable=False,
        metavar="OUT",
        callback=options.written,
        help="Where to write the trained checkpoint; its journal (.jsonl) beside it. By default MASK-trained.safetensors.",
    ),
]
RecipeChoice = Annotated[
    RecipeName,
    typer.Option(
        "--recipe",
        metavar="plain|tost",
        help="How to train; tost: soft neurons, ghost skips, re-scaling, label smoothing.",
    ),
]
Epochs = Annotated[int, typer.Option(metavar="N", help="How often every example is seen.")]
StepsDone = Annotated[
    int | None,
    typer.Option("--steps", metavar="N", help="End after N of the epochs' steps; the weights as they are then."),
]
BatchSize = Annotated[int, typer.Option("--batch-size", metavar="N", help="Examples a step, in each process.")]
OptimizerName = Annotated[
    Optimizer, typer.Option(metavar="sgd|adam", help="What takes the steps; sgd has momentum 0.9.")
]
LearningRate = Annotated[
    float | None, typer.Option("--lr", metavar="X", help="Learning rate at first, by default 0.1; of adam 0.001.")
]
ScheduleName = Annotated[
    Schedule,
    typer.Option(
        metavar="CHOICE",
        help="The learning rate's way, steps or cosine; steps: x0.1 at 1/2 and 3/4 of all steps. cosine: down to 0.",
    ),
]
WeightDecay = Annotated[float, typer.Option("--weight-decay", metavar="X", help="Of every parameter.")]
Validation = Annotated[
    float, typer.Option(metavar="SHARE", help="Training examples held out to choose an epoch; a share of each class's.")
]
Augment = Annotated[
    Augmentation,
    typer.Option(
        metavar="CHOICE",
        help="Of images, auto, none, crop or crop-flip; auto: both for CIFAR and colour images, else none.",
    ),
]
Amp = Annotated[bool, typer.Option("--amp", help="Mixed precision (bfloat16) on a GPU.")]
SoftNeurons = Annotated[
    bool | None, typer.Option("--soft-neurons/--no-soft-neurons", help="Soft activations early on, then ReLU again.")
]
GhostSkips = Annotated[
    bool | None, typer.Option("--ghost-skips/--no-ghost-skips", help="Extra branches in ResNets' blocks early on.")
]
Rescale = Annotated[
    bool | None, typer.Option("--rescale/--no-rescale", help="Learn each tensor's scale first (GradInit).")
]
Smoothing = Annotated[
    float | None,
    typer.Option("--label-smoothing", metavar="X", help="The label's mass that wrong classes share, early on."),
]
Early = Annotated[
    float | None,
    typer.Option(metavar="SHARE", help=f"Of all steps what is early, by default {_BASE.early}; in those parts."),
]
DynamicName = Annotated[
    Dynamic | None,
    typer.Option(
        metavar="NAME",
        help="Let the mask move, set, rigl, srigl, gmp or granet; weights grow at random (set), by gradient (rigl), as many "
        "for every output (srigl), or fewer are kept each time (gmp), some of them exchanged by gradient (granet).",
    ),
]
UpdateEvery = Annotated[
    int | None,
    typer.Option("--update-every", metavar="N", help=f"Steps between its moves, by default {_BASE.update_every}."),
]
UpdateFraction = Annotated[
    float | None,
    typer.Option(
        "--update-fraction",
        metavar="SHARE",
        help=f"Kept weights that move at first, by default {USUAL_FRACTION}; of granet {FRACTION_OF_GRANET}.",
    ),
]
UpdateFrom = Annotated[
    float | None,
    typer.Option("--update-from", metavar="SHARE", help="Share of all steps before it moves, by default 0."),
]
UpdateUntil = Annotated[
    float | None,
    typer.Option(
        "--update-until",
        metavar="SHARE",
        help=f"Share of all steps when it stops, by default {_BASE.update_until}.",
    ),
]
FinalDensity = Annotated[
    float | None,
    typer.Option(
        "--final-density",
        metavar="DENSITY",
        help=f"What gmp and granet end with, by default {_BASE.final_density}; they begin with --mask, or all weights.",
    ),
]
MinSalient = Annotated[
    float | None,
    typer.Option(
        "--min-salient",
        metavar="SHARE",
        help=f"Salient share of a fan-in for srigl, by default {_BASE.min_salient}; it ablates outputs with less.",
    ),
]
PatternKept = Annotated[
    str | None,
    typer.Option(
        "--pattern",
        metavar="N:M",
        help="N of every M inputs that srigl keeps, such as 2:4; the mask has them already, and no output is ablated.",
    ),
]
MaskOut = Annotated[
    Path | None,
    typer.Option(
        "--mask-out",
        readable=False,
        metavar="MASK",
        help="Where --dynamic writes its last mask; by default OUT-mask.safetensors.",
    ),
]
Plot = Annotated[
    Path | None,
    typer.Option(
        "--plot",
        readable=False,
        metavar="FILE",
        help="Draw loss, accuracy and rate by epoch: .svg, .png or .pdf; and the spectrum of a mask that moves.",
    ),
]
Results = Annotated[
    Path | None,
    typer.Option(readable=False, metavar="CSV", help="A table to add a row to; pai rank --accuracy reads it."),
]
LogDir = Annotated[
    Path | None, typer.Option("--log-dir", readable=False, metavar="DIR", help="A folder for TensorBoard's events.")
]
KeepEvery = Annotated[
    float, typer.Option("--keep-every", metavar="MINUTES", min=0.0, help="How often the state is written.")
]
Resume = Annotated[bool, typer.Option("--resume", help="Go on where this very training was interrupted.")]


def train(
    checkpoint: options.CheckpointPath,
    data: TrainData,
    mask: MaskPath = None,
    output: Out = None,
    recipe: RecipeChoice = RecipeName.PLAIN,
    epochs: Epochs = 160,
    steps: StepsDone = None,
    batch_size: BatchSize = 128,
    optimizer: OptimizerName = Optimizer.SGD,
    lr: LearningRate = None,
    schedule: ScheduleName = Schedule.STEPS,
    weight_decay: WeightDecay = 2e-4,
    validation: Validation = 0.1,
    augment: Augment = Augmentation.AUTO,
    normalise: options.Normalise = False,
    seed: options.Seed = 0,
    amp: Amp = False,
    soft_neurons: SoftNeurons = None,
    ghost_skips: GhostSkips = None,
    rescale: Rescale = None,
    label_smoothing: Smoothing = None,
    early: Early = None,
    dynamic: DynamicName = None,
    update_every: UpdateEvery = None,
    update_fraction: UpdateFraction = None,
    update_from: UpdateFrom = None,
    update_until: UpdateUntil = None,
    final_density: FinalDensity = None,
    min_salient: MinSalient = None,
    pattern: PatternKept = None,
    convention: options.ConventionOrUsual = None,
    mask_out: MaskOut = None,
    plot: Plot = None,
    results: Results = None,
    log_dir: LogDir = None,
    keep_every: KeepEvery = 10.0,
    resume: Resume = False,
    model: options.Model = None,
    input_shape: options.InputShape = None,
    device: options.TrainDevice = Device.AUTO,
    format: options.OutputFormat = Format.TABLE,  # noqa: A002  the flag's name
    force: options.Force = False,
    trust: options.Trust = False,
) -> None:
    """Train a network under a mask, and measure its best epoch on the test set, once.

    The best epoch is the best on held-out examples. Pruned weights are exactly 0 at every step. An interrupted training goes
    on with --resume, on a CPU bit for bit. Several processes train together when torchrun starts them: torchrun
    --nproc-per-node 2 -m pai_cli train ...
    """
    given = asked(locals())
    from pai_cli.api.train import default_output
    from pai_cli.api.train import train as run
    from pai_cli.display.training import show_training

    given["output"] = output or default_output(given)
    training = run(**given, progress=True)
    if training.first:
        show_training(training.trained, training.outputs, format)


COMMANDS = {
    "train": (
        train,
        "pai train sample_masks/resnet20.safetensors --mask sample_masks/synflow-0.05.safetensors --data digits "
        "--input-shape 3,8,8 --epochs 2",
    ),
}
