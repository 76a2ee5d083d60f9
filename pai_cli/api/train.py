"""`train`: is the ranking right."""

from __future__ import annotations

from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pai_cli.api.given import open_given
from pai_cli.api.inputs import (
    AnyPath,
    Shape,
    Source,
    device_of,
    maybe_path,
    network_of,
    open_source,
    pattern_of,
    shape_of,
    source_path,
    tell_network,
    tell_precision,
    tell_resizing,
)
from pai_cli.api.masks import Mask
from pai_cli.api.plans import Reads, plan_training
from pai_cli.api.progress import Wanted, shown_by
from pai_cli.api.ranges import check_least, check_numbers, check_whole_numbers, takes_numpy
from pai_cli.api.samples import Data, as_parts, name_of
from pai_cli.api.training import Training
from pai_cli.files.provenance import other_weights, typed
from pai_cli.refusals import Idle, idle_force, refuse
from pai_cli.spectral.conventions import Convention
from pai_cli.spectral.parameters import one_of
from pai_cli.spelling import option
from pai_cli.telling import note, warn
from pai_cli.training.outputs import Outputs
from pai_cli.training.ranks import rank_here, world_here
from pai_cli.training.recipe import (
    SMOOTHING,
    Augmentation,
    Dynamic,
    Optimizer,
    Recipe,
    RecipeName,
    Schedule,
)
from pai_cli.training.said import pattern_given_up

if TYPE_CHECKING:
    from pai_cli.training.job import Job, Trained
    from pai_cli.training.process import Process

KEEP_EVERY = 10.0
"""Minutes between two states."""

CHOICES = {
    "optimizer": Optimizer,
    "schedule": Schedule,
    "augment": Augmentation,
    "dynamic": Dynamic,
    "convention": Convention,
}
UPDATES = ("update_every", "update_fraction", "update_from", "update_until")
TOST: dict[str, Any] = {"soft_neurons": True, "ghost_skips": True, "rescale": True, "label_smoothing": SMOOTHING}

_STAYS = f"the mask does not move; give {option('dynamic', 'rigl')} or another"
IDLE = (
    Idle(
        ("early",),
        f"{{it}}: no part acts early; give {option('recipe', 'tost')} or one of its parts, or leave it out",
        without=("early_parts",),
    ),
    Idle((*UPDATES, "final_density", "min_salient", "convention"), f"{{it}}: {_STAYS}", without=("dynamic",)),
    Idle(("pattern",), f"{{it}}: the mask does not move; give {option('dynamic', 'srigl')}", without=("dynamic",)),
    Idle(("mask_out",), f"{{it}}: {_STAYS}, or leave it out", without=("dynamic",)),
    Idle(
        ("final_density",),
        f"{{it}}: {option('dynamic', '{dynamic}')} ends with as many weights as the mask begins with; give "
        f"{option('dynamic', 'gmp')} or granet, or leave it out",
        where=lambda call: not Dynamic(call.dynamic).gradual,
        beside=("dynamic",),
    ),
    Idle(
        ("min_salient",),
        f"{{it}}: no output is ablated; give {option('dynamic', 'srigl')}, or leave it out",
        where=lambda call: call.dynamic != Dynamic.SRIGL,
        beside=("dynamic",),
    ),
    Idle(
        ("pattern",),
        f"{{it}}: {option('dynamic', '{dynamic}')} keeps none; give {option('dynamic', 'srigl')}, or leave it out",
        where=lambda call: call.dynamic != Dynamic.SRIGL,
        beside=("dynamic",),
    ),
    Idle(
        ("min_salient",), f"{{it}}: no output is ablated with {option('pattern')}; leave one out", beside=("pattern",)
    ),
    Idle(
        ("update_fraction",),
        f"{{it}}: {option('dynamic', 'gmp')} lets no weight grow; leave it out",
        where=lambda call: call.dynamic == Dynamic.GMP,
    ),
    Idle(
        ("steps",),
        "{it}: the training would end with a mask that still moves; leave one out",
        beside=("dynamic",),
    ),
    Idle(
        ("steps",),
        "{it}: the training would end with parts that act early; leave one out",
        beside=("early_parts",),
    ),
    Idle(
        ("keep_every", "resume", "results", "log_dir"),
        f"{{it}}: nothing is kept without {option('output')}; give {option('output', 'OUT')} too, or leave it out",
        without=("output",),
    ),
    idle_force(f"{option('output')} too", "output", "mask_out", "plot"),
)


def default_output(given: Mapping[str, Any]) -> Path:
    """Where the command writes where nobody says: `NAME-trained.safetensors` in the current folder, of mask or checkpoint.

    `given`: the parameters of `train`.
    """
    name = Path(given["mask"] or given["checkpoint"]).resolve().name
    return Path(f"{name.removesuffix('.index.json').removesuffix('.safetensors')}-trained.safetensors")


@takes_numpy
def train(
    checkpoint: Source,
    data: Data,
    *,
    mask: Any = None,
    output: AnyPath | None = None,
    recipe: str = "plain",
    epochs: int = 160,
    steps: int | None = None,
    batch_size: int = 128,
    optimizer: str = "sgd",
    lr: float | None = None,
    schedule: str = "steps",
    weight_decay: float = 2e-4,
    validation: float = 0.1,
    augment: str = "auto",
    normalise: bool = False,
    seed: int = 0,
    amp: bool = False,
    soft_neurons: bool | None = None,
    ghost_skips: bool | None = None,
    rescale: bool | None = None,
    label_smoothing: float | None = None,
    early: float | None = None,
    dynamic: str | None = None,
    update_every: int | None = None,
    update_fraction: float | None = None,
    update_from: float | None = None,
    update_until: float | None = None,
    final_density: float | None = None,
    min_salient: float | None = None,
    pattern: str | tuple[int, int] | None = None,
    convention: str | None = None,
    mask_out: AnyPath | None = None,
    plot: AnyPath | None = None,
    results: AnyPath | None = None,
    log_dir: AnyPath | None = None,
    keep_every: float = KEEP_EVERY,
    resume: bool = False,
    model: str | None = None,
    input_shape: Shape | None = None,
    device: str = "auto",
    force: bool = False,
    trust: bool = False,
    progress: Wanted = None,
) -> Training:
    """Train a network under a mask and measure it: the epoch that is best on held-out examples, once on the test part.

    Pruned weights are exactly 0 at every step. What is given is not changed: a copy is trained. The same arguments give the
    same weights, on a CPU with as many threads bit for bit.

    `checkpoint`: a path, an `nn.Module` or a state dict. `data`: "digits", the path of a data set, (x, y, x_test, y_test)
    arrays or tensors, or (loader, test loader), see `as_dataset`; it must have a test part. `mask`: which weights to train,
    a path, a `Mask` or a mapping of arrays; the others are 0; without it, all are trained.

    `output`: where to write the trained checkpoint; its journal (.jsonl) goes beside it, and while it trains its state
    (.state.safetensors). With None nothing is kept on disk: the result is in what is given back, and what is interrupted is
    gone.

    `recipe`: "plain" or "tost" (soft neurons, ghost skips, re-scaling and label smoothing: arXiv:2206.12755), parts of which
    `soft_neurons`, `ghost_skips`, `rescale` (GradInit) and `label_smoothing` ask for or leave out; `early`: the share of all
    steps in which they act, 0.5. `epochs`: how often every example is seen. `steps`: end after so many steps of those that
    the epochs have, and give the weights as they are then, of no best epoch. `batch_size`: examples a step, in each process.
    `optimizer`: "sgd" (momentum 0.9) or "adam". `lr`: the learning rate at the first step, by default 0.1, of adam 0.001.
    `schedule`: "steps", x0.1 at 1/2 and 3/4 of all steps, "cosine" or "constant". `weight_decay`: of every parameter.
    `validation`: share of each class's training examples held out to choose an epoch. `augment`: "auto", "none", "crop" or
    "crop-flip". `normalise`: standardise values that would be taken as they are, by the training part's mean and deviation.
    `seed`: of all that is drawn. `amp`: bfloat16 on a GPU.

    `dynamic`: let the mask move: as many weights grow as are dropped, at random ("set", arXiv:1707.04780), by gradient
    ("rigl", arXiv:1911.11134), or by gradient with as many for every output of a layer ("srigl", arXiv:2305.02299); or
    prune from all weights, or those of `mask`, to `final_density` (0.05) by a cubic schedule, each layer alike ("gmp",
    arXiv:1710.01878), or the network as a whole, and exchange weights by gradient then ("granet", arXiv:2106.10404). Every
    `update_every` steps (100), a share `update_fraction` of the kept weights at first (0.3; of granet 0.5), from the share
    `update_from` (0) of all steps to the share `update_until` (0.75). `min_salient`: of srigl, the share of its fan-in that
    must be salient for an output to keep weights (0.3; 0 ablates none). `pattern`: of srigl, "N:M" or (N, M): every update
    keeps N of every M consecutive inputs, as `mask` does; no output is ablated. `convention`: what its spectrum is measured
    by, as of `analyze`. `mask_out`: where its last mask is written, by default OUT-mask.safetensors beside `output`.

    `plot`: a picture (.svg, .png or .pdf) of loss, accuracy and learning rate by epoch, and of a moving mask's spectrum.
    `results`: a table (CSV) to add a row to, which `rank` reads. `log_dir`: a folder for TensorBoard's events. `keep_every`:
    minutes between two states. `resume`: go on where a training of the same settings was interrupted. The last four take
    an `output`. `model`: the network, where names and shapes do not tell. `input_shape`: of one input, such as (3, 32, 32).
    `device`: "auto", "cpu" or "cuda". `force`: replace existing files. `trust`: files may run the code in them. `progress`:
    True for a bar, or what is called with (done, total, what).

    Several processes that `torchrun` started train together, each calling this; each is given the numbers and the weights,
    and the first writes.

    Raises `UsageError` where options exclude each other or could do nothing, `RecipeError`, `TrainingError`, `DataError`,
    `MaskError`, `CheckpointError`, `UnknownModelError`, `DeviceError`, `OutputError`, `ResumeError`, `PictureError`.
    """
    asked = dict(locals())
    given = {name: value for name, value in asked.items() if name in Recipe.__dataclass_fields__}
    recipe_wanted = _recipe(one_of("recipe", recipe, RecipeName), given)
    shape = shape_of(input_shape)
    refuse(train, IDLE, {**asked, "early_parts": recipe_wanted.early_parts or None})
    check_least(0, keep_every=keep_every)
    outputs = Outputs(
        maybe_path(output),
        maybe_path(mask_out) or _mask_beside(output, recipe_wanted),
        results=maybe_path(results),
        log_dir=maybe_path(log_dir),
        keep_every=60 * keep_every,
        force=force,
        plot=maybe_path(plot),
    )
    file = mask.path if isinstance(mask, Mask) else source_path(mask)
    named = name_of(data) if isinstance(data, (str, PathLike)) else None
    plan_training(Reads(source_path(checkpoint), model, named), file, outputs, resume=resume)
    job = _open_job(
        checkpoint, mask, data, recipe_wanted, outputs, model=model, shape=shape, trust=trust, normalise=normalise
    )
    return _run(job, device_of(device, checkpoint), progress, resume=resume)


def _recipe(name: RecipeName, given: Mapping[str, Any]) -> Recipe:
    """The recipe: what is given is taken, and where that is None what the named recipe has, else the base."""
    numbers = ("lr", "weight_decay", "validation", "label_smoothing", "early", *UPDATES, "final_density", "min_salient")
    check_numbers(**{one: given[one] for one in numbers})
    check_whole_numbers(**{one: given[one] for one in ("epochs", "steps", "batch_size", "update_every")})
    chosen = dict(TOST) if name is RecipeName.TOST else {}
    for one, value in given.items():
        if value is not None:
            chosen[one] = one_of(one, value, CHOICES[one]) if one in CHOICES else value
    if given["pattern"] is not None:
        chosen["pattern"] = pattern_of(given["pattern"])
    return Recipe(**chosen)


def _recipe_name(recipe: Recipe) -> str:
    """What a table calls it: `plain`, `tost`, or the parts that it has; and how the mask moves."""
    parts = [*recipe.early_parts, *["rescale"] * recipe.rescale]
    if len(parts) == 4 and recipe.label_smoothing == SMOOTHING:
        parts = ["tost"]
    kept = "" if recipe.pattern is None else f"-{recipe.pattern}"
    dynamic = [] if recipe.dynamic is None else [f"{recipe.dynamic.value}{kept}"]
    steps = [] if recipe.steps is None else [f"{recipe.steps}-steps"]
    return "+".join(part.replace("_", "-") for part in [*parts, *dynamic, *steps]) or "plain"


def _mask_beside(output: AnyPath | None, recipe: Recipe) -> Path | None:
    """Where the last mask of a moving one is written where nobody says; None for nowhere."""
    out = maybe_path(output)
    if recipe.dynamic is None or out is None:
        return None
    return out.with_name(f"{out.name.removesuffix('.safetensors')}-mask.safetensors")


def _open_job(
    checkpoint: Source, mask: str | Path | Mask | None, data: Data, recipe: Recipe, outputs: Outputs, **others: Any
) -> Job:
    """What is to be trained, opened and compared. `others`: `model`, `shape`, `trust`, `normalise`."""
    stored = None if mask is None else open_given(mask, trust=others["trust"])
    source = open_source(checkpoint, trust=others["trust"])  # its faults are told before torch is imported
    network = network_of(source, others["model"], others["shape"])
    from pai_cli.training.job import Job

    job = Job(
        source=source,
        network=network,
        mask=stored,
        data=name_of(data),
        parts=as_parts(data, normalise=others["normalise"]),
        recipe=recipe,
        name=_recipe_name(recipe),
        input_shape=others["shape"],
        out=outputs,
        arguments=typed(),
    )
    kept = job.count(job.masks())
    if rank_here() == 0:
        under = ""
        if stored is not None:
            under = f", {kept.told(stored.path)}" + (f" ({stored.remark})" if stored.remark else "")
        tell_network(source, network, under)
        if not isinstance(data, (str, PathLike)):
            tell_resizing(job.parts[0], network, job.input_shape)
        if recipe.dynamic is not None and recipe.dynamic.gradual:
            begins = "all weights are kept" if stored is None else "the mask is kept"
            note(f"{option('dynamic', recipe.dynamic)}: {begins} at first, density {recipe.final_density:g} at the end")
        if stored is not None and (given_up := pattern_given_up(stored, recipe)):
            note(given_up)
        if stored is not None and (made_from := other_weights(stored.path, stored.metadata, source)):
            note(made_from)
        tell_precision(source, network, "trained, and written,")
    return job


def _run(job: Job, where: str, progress: Wanted, *, resume: bool) -> Training:
    """Train, in all processes; the first alone writes and speaks."""
    from pai_cli.display.figures.canvas import check_picture
    from pai_cli.training.job import train_in_memory
    from pai_cli.training.model import check_amp
    from pai_cli.training.process import processes

    if job.recipe.amp:
        check_amp(where)
    first = rank_here() == 0
    if first:  # before the others are met, so that a refusal is told once and at once
        check_picture(job.out.plot)
        if not job.on_disk:
            job.check_outputs(resume=resume)
    if job.on_disk:
        trained = _on_disk(job, where, progress, resume=resume)
    else:
        with processes(where) as process, shown_by(progress if first else None, "training") as shown:
            if first:
                _tell_started(job, process)
            trained = train_in_memory(job, process, shown)
    if first:
        _draw(job, trained, resume=resume)
        for name, why in trained.absent.items():
            warn(f"{option(name)}: {why}: left out")
    return Training(trained, job, first)


def _on_disk(job: Job, where: str, progress: Wanted, *, resume: bool) -> Trained:
    from pai_cli.training.job import train_on_disk
    from pai_cli.training.process import processes

    first = rank_here() == 0
    journal, kept = job.open_journal(world_here(), resume=resume, first=first)
    if not first:
        with processes(where) as process, shown_by(None, "") as silent:
            return train_on_disk(job, journal, process, silent, None)
    with journal.going(), processes(where) as process:
        _tell_started(job, process)
        with shown_by(progress, "training") as shown:
            return train_on_disk(job, journal, process, shown, kept)


def _draw(job: Job, trained: Trained, *, resume: bool) -> None:
    """The picture of how it went, where one is asked for."""
    plot = job.out.plot
    if plot is None:
        return
    from pai_cli.display.figures.learning import plot_training

    if resume and not job.out.force and plot.exists():
        note(f"{plot}: exists already, and stays as it is; {option('force')} draws it again")
        return
    label = str(job.source.path if job.mask is None else job.mask.path)
    if job.recipe.dynamic is not None:
        label = f"{job.recipe.dynamic} from {label}"
    plot_training(trained.lines, plot, label, force=job.out.force)


def _tell_started(job: Job, process: Process) -> None:
    """Say what a person may not expect of several processes."""
    from torch.nn.modules.batchnorm import _BatchNorm

    if process.world == 1:
        return
    size = job.recipe.batch_size
    note(f"{process.world} processes, a step is of {process.world} x {size} = {process.world * size} examples")
    if any(isinstance(module, _BatchNorm) for module in job.network.model.modules()):
        note(f"batch norms normalise by each process's own {size} examples; the first process's statistics are saved")
