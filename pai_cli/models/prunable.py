"""The prunable weights of a checkpoint by name, in the network's order, without loading any value."""

from __future__ import annotations

import torch
from torch import fx, nn

from pai_cli.files.checkpoints import Checkpoint
from pai_cli.files.foreign.base import Names
from pai_cli.files.layer_names import HEAD, TOKENS, is_matrix, layout_by_name, matrices_by_name, stacks_by_name
from pai_cli.files.messages import some_names
from pai_cli.files.whole import Whole, left_whole, packed_weights
from pai_cli.models.layers import PrunableLayer, prunable_layers, reasons_why_not
from pai_cli.models.programs import program_layers
from pai_cli.models.recognise import recognised
from pai_cli.spectral.layout import UNKNOWN
from pai_cli.telling import note


def layers_of(network: nn.Module) -> tuple[PrunableLayer, ...]:
    """The prunable weights of a network of modules, or of a program."""
    return program_layers(network) if isinstance(network, fx.GraphModule) else prunable_layers(network)


def layers_by_name(checkpoint: Checkpoint) -> tuple[PrunableLayer, ...]:
    """The prunable weights of a checkpoint whose network is not known: matrices by their names, and parts of stacks, in the
    order of the file.
    """
    found = {**matrices_by_name(checkpoint.shapes, checkpoint.config), **checkpoint.parts}
    return tuple(
        PrunableLayer(name, shape, found[name])
        for name, shape in checkpoint.shapes.items()
        if name in found and not packed_weights(checkpoint, name)
    )


def with_experts(checkpoint: Checkpoint) -> Checkpoint:
    """A checkpoint whose network is not known, its experts that are in one tensor taken as the matrices they are, which is
    said; itself where it has none, and where names and shapes tell a network.
    """
    found = stacks_by_name(checkpoint.shapes, checkpoint.config)
    stacks = {name: layout for name, layout in found.items() if checkpoint.floating(name)}
    if not stacks or checkpoint.module is not None or recognised(checkpoint) is not None:
        return checkpoint
    parts = checkpoint.in_parts(stacks)
    note(
        f"{checkpoint.path}: {some_names(stacks)}: experts in one tensor, {len(parts.parts):,} matrices in all, each pruned "
        f"as a layer by itself ({next(iter(parts.parts))!r})"
    )
    if assumed := [name for name, layout in stacks.items() if not layout.known]:
        note(
            f"{checkpoint.path}: does not tell inputs from outputs of {some_names(assumed)}: taken as "
            "(experts, outputs, inputs)"
        )
    return parts


def layers_by_shape(checkpoint: Checkpoint) -> tuple[PrunableLayer, ...]:
    """The same with convolutions, which are told by their dimensions; nobody tells their groups and transposition."""
    linear = {layer.name: layer for layer in layers_by_name(checkpoint)}
    layers = []
    for name, shape in checkpoint.shapes.items():
        if name in linear:
            layers.append(linear[name])
        elif 3 <= len(shape) <= 5 and 0 not in shape and is_matrix(name) and checkpoint.floating(name):
            layers.append(PrunableLayer(name, shape, UNKNOWN))
    return tuple(layers)


def aliases_of(
    checkpoint: Checkpoint, network: nn.Module | None, layers: tuple[PrunableLayer, ...]
) -> dict[str, tuple[str, ...]]:
    """The other names of layers that have several: in the network, in the checkpoint, or as its configuration ties them."""
    names: dict[int, list[str]] = {}
    if network is not None:
        for name, parameter in network.named_parameters(remove_duplicate=False):
            names.setdefault(id(parameter), []).append(name)
    together = {name: several for several in names.values() for name in several}
    found = {}
    for layer in layers:
        every = dict.fromkeys([*together.get(layer.name, ()), *checkpoint.aliases.get(layer.name, ())])
        every |= dict.fromkeys(_tied_by_config(checkpoint, layer.name))
        if others := tuple(name for name in every if name != layer.name):
            found[layer.name] = others
    return found


def _tied_by_config(checkpoint: Checkpoint, name: str) -> tuple[str, ...]:
    """Of a language model's head, the table of its tokens, where the configuration says that they are one tensor."""
    config = checkpoint.config or {}
    if config.get("tie_word_embeddings") is not True or not HEAD.search(name):
        return ()
    return tuple(
        other
        for other, shape in checkpoint.shapes.items()
        if TOKENS.search(other) and shape == checkpoint.shapes.get(name)
    )


def whole_of(checkpoint: Checkpoint, network: nn.Module | None, layers: tuple[PrunableLayer, ...]) -> Whole:
    """What of a checkpoint is in none of the layers. `network`: None where only names are known."""
    taken = {
        name for layer in layers for name in (layer.name, *aliases_of(checkpoint, network, layers).get(layer.name, ()))
    }
    return left_whole(checkpoint, taken, None if network is None else reasons_why_not(network))


def prunable_names(checkpoint: Checkpoint) -> Names:
    """What a checkpoint of names gives to masks.

    Of a known architecture, a program, a model's folder, or a network that `trust` unpickled, the weights that `pai prune`
    prunes. Of any other, every `.weight` of two or more dimensions, and of convolutions no layout; their order is the
    network's only where the file keeps it.
    """
    network = checkpoint.module
    found = recognised(checkpoint) if network is None else None
    if found is not None:
        with torch.device("meta"):
            network = found.build()
    if network is not None:
        layers = [layer for layer in layers_of(network) if layer.name in checkpoint.shapes]
    else:
        layers = list(layers_by_name(checkpoint))
    layouts = {layer.name: layer.layout for layer in layers}
    ordered = network is not None or checkpoint.ordered
    if network is None and checkpoint.config is None:
        for name, shape in checkpoint.shapes.items():
            if len(shape) > 2 and name.rpartition(".")[2] == "weight" and checkpoint.floating(name):
                layouts[name] = layout_by_name(name, shape)
    if network is None:
        stacks = stacks_by_name(checkpoint.shapes, checkpoint.config)
        layouts |= {name: layout for name, layout in stacks.items() if checkpoint.floating(name)}
        layouts = {name: layouts[name] for name in checkpoint.shapes if name in layouts}
    return Names(checkpoint.path, checkpoint.shapes, tuple(layouts), layouts, ordered=ordered)
