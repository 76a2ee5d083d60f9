"""`pai sample`: search for a better connected mask."""

from __future__ import annotations

import typer

from pai_cli.api.plans import Reads, plan_sampling
from pai_cli.commands import options
from pai_cli.commands import sampling_options as sampling
from pai_cli.compute.device import Device
from pai_cli.files.tables import Format


def sample(
    ctx: typer.Context,
    checkpoint: options.CheckpointPath,
    method: sampling.MethodOfSearch = None,
    population: sampling.Population = None,
    density: options.Density = None,
    sparsity: options.Sparsity = None,
    output: options.Output = None,
    select: sampling.Select = None,
    construct: sampling.Construct = None,
    steps: sampling.Steps = None,
    noise: sampling.Noise = None,
    trajectory: sampling.TrajectoryPath = None,
    resume: sampling.Resume = False,
    scope: options.ScopeName = None,
    seed: options.Seed = 0,
    rounds: options.Rounds = None,
    data: options.Data = None,
    per_class: options.PerClass = None,
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
    sampling.check_search(construct, ctx.params)
    amount, shape = options.the_amount(density, sparsity, pattern, densities), options.the_shape(input_shape)
    name = construct or method or ""  # one there is, as check_search sees to
    from pai_cli.commands.loading import accept, method_of, open_network, prune_request, samples_story
    from pai_cli.display.figures.canvas import check_picture
    from pai_cli.display.figures.trajectory import plot_trajectory
    from pai_cli.display.progress import progress_bar
    from pai_cli.display.pruning import tell_pruning
    from pai_cli.display.sampling import show_search, tell_interrupted
    from pai_cli.files.masks import write_mask
    from pai_cli.sampling.expanders.network import ALLOCATION

    path = output or options.default_mask_path(checkpoint, name if construct else f"{name}-best", amount.label)
    chosen, reads = method_of(ALLOCATION if construct else name), Reads(checkpoint, model, data, densities)
    check_picture(plot)
    plan_sampling(reads, path, trajectory, plot, searches=construct is None, resume=resume, force=force)
    source, network = open_network(checkpoint, model, shape, trust=trust)
    from pai_cli.pruning.output import mask_to_write
    from pai_cli.sampling.search import SearchRequest, Workers, search
    from pai_cli.sampling.trajectory import open_search

    request = prune_request(
        chosen,
        amount,
        device=device,
        scope=scope,
        ignore=ignore,
        seed=seed,
        rounds=options.the_rounds(rounds),
        input_shape=shape,
        data=data,
        per_class=per_class,
    )
    workers = Workers(jobs, cluster, model if model and ":" in model else None)
    if construct or not population:
        from pai_cli.commands.construct import construct_mask, show_construction, write_built

        built = construct_mask(source, network, request, sampling.construction(construct, seed, steps), workers)
        write_built(path, built, source, ctx.obj.arguments, packed=packed, force=force)
        show_construction(built, path, format)
        return
    wish = SearchRequest.of(request, population, noise, (select or sampling.SelectChoice.MASK).value)
    dataset = accept(source, network, request)
    settings = wish.settings(source.sha256, network, dataset)
    lines, state = open_search(path, trajectory, settings, resume=resume, force=force)
    with progress_bar("sampling") as progress, tell_interrupted(state, population):
        result = search(network, wish, lines, state, progress, dataset=dataset, workers=workers)
    tell_pruning(result.pruned, no_collapse=False)
    story = samples_story(dataset, result.request) | result.story
    mask = mask_to_write(result.pruned, request, source, ctx.obj.arguments, story)
    write_mask(path, mask, packed=packed, force=force or lines.wrote(path))
    show_search(result, lines, path, format)
    plot_trajectory(lines.path, plot, f"{method} at density {result.pruned.density:.6g}", force=force)
