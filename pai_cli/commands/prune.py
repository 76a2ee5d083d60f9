"""`pai prune`: which weights to keep, before training."""

from __future__ import annotations

import typer

from pai_cli.commands import options
from pai_cli.compute.device import Device
from pai_cli.files.tables import Format


def prune(
    ctx: typer.Context,
    checkpoint: options.CheckpointPath,
    method: options.MethodName,
    density: options.Density = None,
    sparsity: options.Sparsity = None,
    output: options.Output = None,
    scope: options.ScopeName = None,
    seed: options.Seed = 0,
    rounds: options.Rounds = None,
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
    """Choose which weights of a checkpoint to keep, and write them as a mask file. The checkpoint is not changed."""
    wanted, shape = options.the_density(density, sparsity), options.the_shape(input_shape)
    in_rounds = options.the_rounds(rounds)
    from pai_cli.commands.loading import accept, open_network, prune_request, refuse_early
    from pai_cli.display.progress import progress_bar
    from pai_cli.display.pruning import show_pruning, tell_pruning
    from pai_cli.files.masks import write_mask

    path = output or options.default_mask_path(checkpoint, method, wanted)
    refuse_early(method, path, force=force)
    source, network = open_network(checkpoint, model, shape, trust=trust)
    from pai_cli.pruning.output import mask_to_write
    from pai_cli.pruning.run import prune as run

    request = prune_request(method, wanted, scope, seed, in_rounds, ignore, device, shape)
    accept(source, network, request)
    with progress_bar(method) as progress:
        result = run(network, request, progress)
    tell_pruning(result, no_collapse=no_collapse)
    write_mask(path, mask_to_write(result, request, source, ctx.obj.arguments), packed=packed, force=force)
    show_pruning(result, path, format)
