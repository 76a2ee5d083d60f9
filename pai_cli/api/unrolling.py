"""The network whose paths are measured, from what a person gives of it."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from pai_cli.errors import PaiError, TraceError
from pai_cli.spelling import option
from pai_cli.telling import note

if TYPE_CHECKING:
    from pai_cli.analysis.pairs import PairRequest
    from pai_cli.analysis.paths import PathRequest
    from pai_cli.files.checkpoints import Checkpoint
    from pai_cli.files.masks import Mask as Stored


OTHER_METRIC = f"{option('by')} takes other metrics, which need no wiring"


def paths_of(
    weights: Checkpoint | None,
    model: str | None,
    input_shape: tuple[int, ...] | None,
    masks: Iterable[Path | Stored],
    *,
    trust: bool,
    needed: bool = False,
) -> PathRequest:
    """The network of the `weights`, or of `model`, unrolled for one input; where there is none, why.

    Where neither a model nor a shape was given, that the network is not known is only told, in one line; as is everywhere
    that its elements cannot be told apart. Else, or where paths are `needed`, raises what is wrong with them.
    """
    from pai_cli.analysis.paths import NO_NETWORK, NO_WIRING, PathRequest

    if weights is None and model is None:
        return PathRequest()
    from pai_cli.models.unrolled.paths import Unrolled
    from pai_cli.models.weightless import unrolled_checkpoint, unrolled_model

    try:
        if weights is not None:
            tape = unrolled_checkpoint(weights, model, input_shape)
        else:
            assert model is not None
            tape = unrolled_model(model, input_shape, shapes_among(masks, trust=trust))
        return PathRequest(Unrolled(tape))
    except PaiError as error:
        asked = model is not None or input_shape is not None
        if needed or (asked and not isinstance(error, TraceError)):
            raise
        beside = "" if weights is None else f"{weights.path}: "
        text = error.text.removeprefix(beside)
        why = NO_WIRING if isinstance(error, TraceError) else NO_NETWORK
        return PathRequest(None, why, f"{beside}paths through the network are not measured: {text}")


def pairs_for(
    weights: Checkpoint | None,
    model: str | None,
    input_shape: tuple[int, ...] | None,
    masks: Iterable[Path | Stored],
    *,
    trust: bool,
) -> PairRequest:
    """The consecutive layers of the network of the `weights`, or of `model`. Raises where they cannot be found."""
    from pai_cli.analysis.junctions import consecutive
    from pai_cli.analysis.pairs import PairRequest
    from pai_cli.models.weightless import network_called, weightless

    if weights is not None:
        network, source = weightless(weights, model, input_shape), str(weights.path)
    else:
        assert model is not None
        network, source = network_called(model, input_shape, shapes_among(masks, trust=trust)), model
    pairs = consecutive(network, source, "overlap, compatibility or copeland", OTHER_METRIC)
    return PairRequest(pairs, {layer.name: layer for layer in network.layers})


def tell_on_no_path(
    mask: Stored, checkpoint: Checkpoint, model: str | None = None, input_shape: tuple[int, ...] | None = None
) -> None:
    """Say where more than 1% of what a mask keeps of the checkpoint's network is on no path through it.

    Where the network is not known, or its elements cannot be told apart, there is nothing to tell.
    """
    from pai_cli.analysis.paths import on_no_path

    found = paths_of(checkpoint, model, input_shape, (), trust=False).unrolled
    if found is not None:
        tell_idle(*on_no_path(mask, found, checkpoint), where=f"{mask.path}: ")


def tell_idle(idle: int, kept: int, where: str = "") -> None:
    """Say how many kept weights are on no path, where there are more than 1% of them."""
    from pai_cli.pruning.run import WORTH_TELLING

    if idle > WORTH_TELLING * kept:
        note(
            f"{where}{idle:,} of {kept:,} kept weights ({100 * idle / kept:.3g}%) are on no path from the input to the "
            "output: they compute nothing"
        )


def shapes_among(masks: Iterable[Path | Stored], *, trust: bool) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the first mask that can be opened; none where there is none, as is told where masks are read."""
    from pai_cli.files.opening import open_mask

    for mask in masks:
        try:
            found = open_mask(mask, trust=trust) if isinstance(mask, Path) else mask
        except PaiError:
            continue
        return {name: tuple(shape) for name, shape in found.shapes.items()}
    return {}
