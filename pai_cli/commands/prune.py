"""`pai prune`: which weights to keep, before training."""

from __future__ import annotations

import typer

from pai_cli.api.plans import Reads, plan_pruning
from pai_cli.commands import options, searching
from pai_cli.compute.device import Device
from pai_cli.files.tables import Format
from pai_cli.methods.registry import given


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
    pattern: options.PatternText = None,
    densities: options.DensitiesPath = None,
    shuffle: options.Shuffle = False,
    invert: options.Invert = False,
    reinit: options.Reinit = False,
    weights_out: options.WeightsOut = None,
    epochs: searching.Epochs = None,
    freeze_every: searching.FreezeEvery = None,
    penalty: searching.Penalty = None,
    rewind: searching.Rewind = None,
    optimizer: searching.OptimizerName = None,
    lr: searching.LearningRate = None,
    batch_size: searching.BatchSize = None,
    resume: searching.Resume = False,
    ignore: options.Ignore = None,
    model: options.Model = None,
    input_shape: options.InputShape = None,
    device: options.DeviceName = Device.AUTO,
    packed: options.Packed = False,
    no_collapse: options.NoCollapse = False,
    format: options.OutputFormat = Format.TABLE,  # noqa: A002  the flag's name
    force: options.Force = False,
    trust: options.Trust = False,
) -> None:
    """Choose which weights of a checkpoint to keep, and write them as a mask file. The checkpoint is not changed.

    gem-miner, edge-popup and imp train, which takes as long as that does; interrupted, they go on with --resume.
    """
    amount, shape = options.the_amount(density, sparsity, pattern, densities), options.the_shape(input_shape)
    in_rounds, method = options.the_rounds(rounds), given(method)
    from pai_cli.commands.loading import accept, method_of, open_to_prune, prune_request, samples_story
    from pai_cli.commands.reinit import Weights, refuse_weights_early, write_weights
    from pai_cli.display.progress import progress_bar
    from pai_cli.display.pruning import show_pruning, tell_kept, tell_pruning
    from pai_cli.files.masks import write_mask
    from pai_cli.pruning.trained import TrainingOptions

    changes = ("inverted" if invert else "", "shuffled" if shuffle else "")
    path = output or options.default_mask_path(checkpoint, method, amount.label, *changes)
    chosen = method_of(method)
    refuse_weights_early(weights_out, chosen, reinit=reinit)
    searching.refuse_resume_early(chosen, resume=resume)
    plan_pruning(Reads(checkpoint, model, data, densities), path, weights_out, chosen, resume=resume, force=force)
    training = TrainingOptions(epochs, freeze_every, penalty, rewind, optimizer, lr, batch_size)
    source, network, pieces = open_to_prune(checkpoint, model, shape, chosen, trust=trust, whole=reinit)
    from pai_cli.pruning.output import mask_to_write
    from pai_cli.pruning.run import prune as run

    request = prune_request(
        chosen,
        amount,
        device=device,
        scope=scope,
        ignore=ignore,
        seed=seed,
        rounds=in_rounds,
        input_shape=shape,
        data=data,
        per_class=per_class,
        shuffle=shuffle,
        invert=invert,
        training=training if training.given() else None,
    )
    dataset = accept(source, network, request)
    if pieces:
        from pai_cli.commands.pieces import prune_in_pieces

        prune_in_pieces(path, source, network, request, ctx.obj.arguments, packed, no_collapse, force, format)
        return
    searched = searching.open_run(path, request, source, network, dataset, resume=resume, force=force)
    with tell_kept(searched.kept), progress_bar(method) as progress:
        result = run(network, request, progress, dataset, searched.run)
    tell_pruning(result, no_collapse=no_collapse)
    story = {**samples_story(dataset, request), **searched.run.story}
    mask = mask_to_write(result, request, source, ctx.obj.arguments, story)
    weights = Weights(weights_out, network, source, request, searched.run)
    write_weights(weights, ctx.obj.arguments, reinit=reinit, force=force)  # first, so that no mask lacks its weights
    write_mask(path, mask, packed=packed, force=searched.force)
    searched.close()
    show_pruning(result, request, path, format)
