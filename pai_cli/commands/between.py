"""`pai analyze --between`: the masks measured between consecutive layers instead."""

from __future__ import annotations

import io
import sys
from dataclasses import dataclass
from pathlib import Path

import typer

from pai_cli.files.tables import Format


@dataclass(frozen=True)
class NetworkOptions:
    """What tells the network whose layers follow each other: --weights, --model and --input-shape."""

    weights: Path | None
    model: str | None
    input_shape: str | None


@dataclass(frozen=True)
class Shown:
    """How results are written: --format, --no-header and --summary."""

    kind: Format
    header: bool
    summary: bool


def refuse_network_options(network: NetworkOptions) -> None:
    """Wrong usage: --model or --input-shape, where no network is needed."""
    for flag, value in (("--model", network.model), ("--input-shape", network.input_shape)):
        if value is not None:
            raise typer.BadParameter(f"{flag}: only --between needs the network; give it, or leave {flag} out")


def refuse_beside_between(*given: tuple[str, bool]) -> None:
    """Wrong usage: a flag, where it was given, that has nothing to do beside --between."""
    for flag, there in given:
        if there:
            raise typer.BadParameter(f"{flag}: --between computes no singular values; leave one of them out")


def analyze_between(masks: list[str], layers: list[str], given: NetworkOptions, shown: Shown, *, trust: bool) -> int:
    """Measure the masks and show them; gives how many could not be read."""
    from pai_cli.commands import options
    from pai_cli.commands.loading import open_network
    from pai_cli.display.console import note
    from pai_cli.display.progress import progress_bar
    from pai_cli.files.paths import mask_paths

    if given.weights is None:
        raise typer.BadParameter("--between follows an input through the network: give its --weights CKPT")
    shape = options.the_shape(given.input_shape)
    paths = mask_paths(masks, sys.stdin or io.StringIO(), note, trust=trust)
    source, network = open_network(given.weights, given.model, shape, trust=trust)
    from pai_cli.analysis.junctions import BetweenRequest, analyze_between
    from pai_cli.display.junctions import show_between

    request = BetweenRequest.of(source, network, layers, trust=trust)
    with progress_bar("analyzing", streaming=shown.kind is not Format.TABLE or not shown.summary) as progress:
        reports = analyze_between(paths, request, progress)
        return show_between(reports, shown.kind, header=shown.header, summary=shown.summary)
