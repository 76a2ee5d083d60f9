"""The options of `pai train`, and what they make."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pai_cli.compute.device import Device
from pai_cli.training.recipe import SMOOTHING, Augmentation, Dynamic, Optimizer, Recipe, Schedule

if TYPE_CHECKING:
    from pai_cli.training.job import Job, Trained
    from pai_cli.training.outputs import Outputs


class RecipeName(StrEnum):
    """Recipes by name."""

    PLAIN = "plain"
    TOST = "tost"


_BASE = Recipe()

MaskPath = Annotated[
    Path | None,
    typer.Option("--mask", readable=False, help="Which weights to train; the others are 0. Without it, all are."),
]
TrainData = Annotated[
    str, typer.Option("--data", metavar="DATA", help="Labelled images: digits, or the path of a data set.")
]
Out = Annotated[
    Path | None,
    typer.Option(
        "--output",
        "-o",
        readable=False,
        metavar="OUT",
        help="Where to write the trained checkpoint, its journal (.jsonl) beside it; by default MASK-trained.safetensors.",
    ),
]
RecipeChoice = Annotated[
    RecipeName, typer.Option("--recipe", help="tost: soft neurons, ghost skips, re-scaling and label smoothing.")
]
Epochs = Annotated[int, typer.Option(help="How often every example is seen.")]
BatchSize = Annotated[int, typer.Option("--batch-size", help="Examples a step, in each process.")]
OptimizerName = Annotated[Optimizer, typer.Option(help="SGD has momentum 0.9.")]
LearningRate = Annotated[
    float | None, typer.Option("--lr", help="Learning rate at the first step; by default 0.1, of adam 0.001.")
]
ScheduleName = Annotated[
    Schedule, typer.Option(help="steps: the learning rate x0.1 at 1/2 and 3/4 of all steps; cosine: down to 0.")
]
WeightDecay = Annotated[float, typer.Option("--weight-decay", help="Of every parameter.")]
Validation = Annotated[float, typer.Option(help="Share of each class's training examples held out to choose an epoch.")]
Augment = Annotated[
    Augmentation, typer.Option(help="auto: crops and flips for CIFAR and colour images in files, else none.")
]
Amp = Annotated[bool, typer.Option("--amp", help="Mixed precision (bfloat16) on a GPU.")]
SoftNeurons = Annotated[
    bool | None, typer.Option("--soft-neurons/--no-soft-neurons", help="Soft activations early on, then ReLU again.")
]
GhostSkips = Annotated[
    bool | None, typer.Option("--ghost-skips/--no-ghost-skips", help="Extra branches in ResNets' blocks early on.")
]
Rescale = Annotated[
    bool | None, typer.Option("--rescale/--no-rescale", help="Learn a scale of each parameter tensor first (GradInit).")
]
Smoothing = Annotated[
    float | None, typer.Option("--label-smoothing", help="Mass of the label that the wrong classes share early on.")
]
Early = Annotated[
    float | None, typer.Option(help=f"Share of all steps that is early, in those parts; by default {_BASE.early}.")
]
DynamicName = Annotated[
    Dynamic | None, typer.Option(help="Let the mask move: weights grow at random (set) or by gradient (rigl).")
]
UpdateEvery = Annotated[
    int | None,
    typer.Option("--update-every", help=f"Steps between moves of the mask; by default {_BASE.update_every}."),
]
UpdateFraction = Annotated[
    float | None,
    typer.Option(
        "--update-fraction",
        help=f"Share of the kept weights that moves, at first; by default {_BASE.update_fraction}.",
    ),
]
UpdateUntil = Annotated[
    float | None,
    typer.Option(
        "--update-until", help=f"Share of all steps in which the mask moves; by default {_BASE.update_until}."
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
        help="Draw the spectrum at every move of a --dynamic mask: .svg, .png or .pdf.",
    ),
]
Results = Annotated[
    Path | None,
    typer.Option(readable=False, metavar="CSV", help="A table to add a row to, which pai rank --accuracy reads."),
]
LogDir = Annotated[
    Path | None, typer.Option("--log-dir", readable=False, metavar="DIR", help="A folder for TensorBoard's events.")
]
KeepEvery = Annotated[
    float, typer.Option("--keep-every", metavar="MINUTES", min=0.0, help="How often the state is written.")
]
Resume = Annotated[bool, typer.Option("--resume", help="Go on where a training of the same settings was interrupted.")]
TrainDevice = Annotated[Device, typer.Option(help="Where to train; auto takes a GPU when there is one.")]


def default_out(source: Path) -> Path:
    """`NAME-trained.safetensors` in the current folder."""
    return Path(f"{source.resolve().name.removesuffix('.index.json').removesuffix('.safetensors')}-trained.safetensors")


def the_recipe(choice: RecipeName, given: Mapping[str, Any], parts: Mapping[str, Any]) -> Recipe:
    """The recipe of the options: `given`, fields as they are; `parts`, fields that are None where not asked for.

    Wrong usage when an option would do nothing.
    """
    chosen: dict[str, Any] = {}
    if choice is RecipeName.TOST:
        chosen = {"soft_neurons": True, "ghost_skips": True, "rescale": True, "label_smoothing": SMOOTHING}
    chosen |= {field: value for field, value in parts.items() if value is not None}
    recipe = Recipe(**given, **chosen)
    if parts["early"] is not None and not recipe.early_parts:
        raise typer.BadParameter("--early: no part acts early; give --recipe tost or one of its parts, or leave it out")
    for field in ("update_every", "update_fraction", "update_until"):
        if parts[field] is not None and recipe.dynamic is None:
            raise typer.BadParameter(f"--{field.replace('_', '-')}: the mask does not move; give --dynamic set or rigl")
    return recipe


def recipe_name(recipe: Recipe) -> str:
    """What a table calls it: `plain`, `tost`, or the parts that it has; and how the mask moves."""
    parts = [*recipe.early_parts, *["rescale"] * recipe.rescale]
    if len(parts) == 4 and recipe.label_smoothing == SMOOTHING:
        parts = ["tost"]
    dynamic = [] if recipe.dynamic is None else [recipe.dynamic.value]
    return "+".join(part.replace("_", "-") for part in [*parts, *dynamic]) or "plain"


def the_outputs(out: Path, mask: Path | None, recipe: Recipe, **others: Any) -> Outputs:
    """Where to write. Wrong usage when what only a moving mask gives is asked of one that does not move."""
    from pai_cli.training.outputs import Outputs

    if recipe.dynamic is None and others["plot"] is not None:
        raise typer.BadParameter("--plot: the mask does not move; give --dynamic set or rigl, or leave it out")
    if recipe.dynamic is None and mask is not None:
        raise typer.BadParameter("--mask-out: the mask does not move; give --dynamic set or rigl, or leave it out")
    if recipe.dynamic is not None and mask is None:
        mask = out.with_name(f"{out.name.removesuffix('.safetensors')}-mask.safetensors")
    return Outputs(out, mask, **others)


def open_job(paths: tuple[Path, Path | None, str], recipe: Recipe, outputs: Outputs, **others: Any) -> Job:
    """What is to be trained, opened and compared: `paths` are of the checkpoint, the mask and the data.

    `others`: `model`, `shape`, `trust`, `arguments` as the command line has them.
    """
    from pai_cli.commands.loading import open_network
    from pai_cli.display.console import note
    from pai_cli.files.opening import open_mask

    checkpoint, mask_path, data = paths
    mask = None if mask_path is None else open_mask(mask_path, trust=others["trust"])
    source, network = open_network(checkpoint, others["model"], others["shape"], trust=others["trust"])
    from pai_cli.data.registry import open_dataset
    from pai_cli.training.job import Job
    from pai_cli.training.ranks import rank_here

    job = Job(
        source=source,
        network=network,
        mask=mask,
        data=data,
        parts=(open_dataset(data), open_dataset(data, train=False)),
        recipe=recipe,
        name=recipe_name(recipe),
        input_shape=others["shape"],
        out=outputs,
        arguments=others["arguments"],
    )
    kept = sum(int(one.sum()) for one in job.masks().values())
    if rank_here() == 0:
        under = (
            "" if mask is None else f", {kept:,} of them kept by {mask.path}" + (f" ({mask.told})" if mask.told else "")
        )
        note(f"{source.path}: {network.description}, {network.total:,} prunable weights{under}")
    return job


def run_job(job: Job, device: Device, *, resume: bool) -> Trained | None:
    """Train; None in all processes but the first, which alone writes and speaks."""
    from pai_cli.compute.device import resolve
    from pai_cli.display.console import note
    from pai_cli.display.figures.canvas import check_picture
    from pai_cli.display.figures.updates import plot_updates
    from pai_cli.display.progress import progress_bar
    from pai_cli.display.training import tell_interrupted, tell_started
    from pai_cli.progress import silent
    from pai_cli.training.job import train_on_disk
    from pai_cli.training.model import check_amp
    from pai_cli.training.process import processes
    from pai_cli.training.ranks import rank_here, world_here

    where = resolve(device)
    if job.recipe.amp:
        check_amp(where)
    first = rank_here() == 0
    if first:  # before the others are met, so that a refusal is told once and at once
        job.check_outputs(resume=resume)
        check_picture(job.out.plot)
    journal, kept = job.open_journal(world_here(), resume=resume, first=first)
    with journal.unless_empty(), processes(where) as process:
        if not process.first:
            train_on_disk(job, journal, process, silent, None)
            return None
        tell_started(job, process)
        with tell_interrupted(journal), progress_bar("training") as progress:
            trained = train_on_disk(job, journal, process, progress, kept)
    if resume and not job.out.force and job.out.plot is not None and job.out.plot.exists():
        note(f"{job.out.plot}: exists already, and stays as it is; --force draws it again")
        return trained
    label = f"{job.recipe.dynamic} from {job.mask.path if job.mask is not None else job.source.path}"
    plot_updates(journal.lines, job.out.plot, label, force=job.out.force)
    return trained
