"""The prunable weights of a checkpoint by name, in the network's order, without loading any value."""

from __future__ import annotations

import torch

from pai_cli.files.checkpoints import Checkpoint
from pai_cli.files.foreign.base import Names
from pai_cli.models.network import prunable_layers
from pai_cli.models.recognise import recognise


def prunable_names(checkpoint: Checkpoint) -> Names:
    """What a checkpoint of names gives to masks.

    Of a known architecture, or a network that `trust` unpickled, the weights that `pai prune` prunes. Of any other, every
    weight of two or more dimensions; their order is the network's only where the file keeps it.
    """
    network = checkpoint.module
    found = recognise(checkpoint.shapes) if network is None else None
    if found is not None:
        with torch.device("meta"):
            network = found.build()
    if network is not None:
        layers = [layer for layer in prunable_layers(network) if layer.name in checkpoint.shapes]
        names = tuple(layer.name for layer in layers)
        return Names(checkpoint.path, checkpoint.shapes, names, {layer.name: layer.layout for layer in layers})
    weights = tuple(
        name
        for name, shape in checkpoint.shapes.items()
        if len(shape) > 1 and name.rpartition(".")[2] == "weight" and checkpoint.floating(name)
    )
    return Names(checkpoint.path, checkpoint.shapes, weights, {}, ordered=checkpoint.ordered)
