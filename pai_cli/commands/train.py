"""`pai train`: is the ranking right."""

from __future__ import annotations

import typer

from pai_cli.api.plans import Reads, plan_training
from pai_cli.commands import options
from pai_cli.commands import training as given
from pai_cli.compute.device import Device
from pai_cli.files.tables import Format
from pai_cli.training.recipe import Augmentation, Optimizer, Schedule


def train(
    ctx: typer.Context,
    checkpoint: options.CheckpointPath,
    data: given.TrainData,
    mask: given.MaskPath = None,
    output: given.Out = None,
    recipe: given.RecipeChoice = given.RecipeName.PLAIN,
    epochs: given.Epochs = 160,
    batch_size: given.BatchSize = 128,
    optimizer: given.OptimizerName = Optimizer.SGD,
    lr: given.LearningRate = None,
    schedule: given.ScheduleName = Schedule.STEPS,
    weight_decay: given.WeightDecay = 2e-4,
    validation: given.Validation = 0.1,
    augment: given.Augment = Augmentation.AUTO,
    seed: options.Seed = 0,
    amp: given.Amp = False,
    soft_neurons: given.SoftNeurons = None,
    ghost_skips: given.GhostSkips = None,
    rescale: given.Rescale = None,
    label_smoothing: given.Smoothing = None,
    early: given.Early = None,
    dynamic: given.DynamicName = None,
    update_every: given.UpdateEvery = None,
    update_fraction: given.UpdateFraction = None,
    update_until: given.UpdateUntil = None,
    mask_out: given.MaskOut = None,
    plot: given.Plot = None,
    results: given.Results = None,
    log_dir: given.LogDir = None,
    keep_every: given.KeepEvery = 10.0,
    resume: given.Resume = False,
    model: options.Model = None,
    input_shape: options.InputShape = None,
    device: given.TrainDevice = Device.AUTO,
    format: options.OutputFormat = Format.TABLE,  # noqa: A002  the flag's name
    force: options.Force = False,
    trust: options.Trust = False,
) -> None:
    """Train a network under a mask and measure it: the epoch that is best on held-out examples, once on the test set.

    Pruned weights are exactly 0 at every step. An interrupted training goes on with --resume, on a CPU bit for bit. Several
    processes train together when torchrun starts them: torchrun --nproc-per-node 2 -m pai_cli train ...
    """
    wish = given.the_recipe(
        recipe,
        {
            "epochs": epochs,
            "batch_size": batch_size,
            "optimizer": optimizer,
            "lr": lr,
            "schedule": schedule,
            "weight_decay": weight_decay,
            "validation": validation,
            "augment": augment,
            "seed": seed,
            "amp": amp,
            "dynamic": dynamic,
        },
        {
            "soft_neurons": soft_neurons,
            "ghost_skips": ghost_skips,
            "rescale": rescale,
            "label_smoothing": label_smoothing,
            "early": early,
            "update_every": update_every,
            "update_fraction": update_fraction,
            "update_until": update_until,
        },
    )
    shape = options.the_shape(input_shape)
    out = output or given.default_out(mask or checkpoint)
    from pai_cli.display.training import show_training

    outputs = given.the_outputs(
        out, mask_out, wish, plot=plot, results=results, log_dir=log_dir, keep_every=60 * keep_every, force=force
    )
    plan_training(Reads(checkpoint, model, data), mask, outputs, resume=resume)
    job = given.open_job(
        (checkpoint, mask, data), wish, outputs, model=model, shape=shape, trust=trust, arguments=ctx.obj.arguments
    )
    trained = given.run_job(job, device, resume=resume)
    if trained is not None:
        show_training(trained, job.out, format)
