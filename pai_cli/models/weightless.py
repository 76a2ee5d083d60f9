"""Networks of which only the wiring is needed: what their weights are is not read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from pai_cli.files.checkpoints import Checkpoint
from pai_cli.models.base import on_meta, with_memory
from pai_cli.models.factory import load_factory
from pai_cli.models.network import Network, load_network, outline_network
from pai_cli.models.prunable import layers_of
from pai_cli.models.registry import architecture


def weightless(checkpoint: Checkpoint, model: str | None, input_shape: tuple[int, ...] | None) -> Network:
    """The network of a checkpoint, with values that mean nothing where no code but pai's own makes it.

    Raises as `load_network` does, but for what is in the tensors.
    """
    if checkpoint.module is not None or (model is not None and (":" in model or model == "hf")):
        return load_network(checkpoint, model, input_shape)
    network = outline_network(checkpoint, model, input_shape)
    return replace(network, model=with_memory(network.model).eval())


def network_of_masks(model: str, input_shape: tuple[int, ...] | None, shapes: Mapping[str, tuple[int, ...]]) -> Network:
    """The network called `model`, as `load_network` knows it, with as many classes as a mask of these shapes has.

    Raises `UnknownModelError` and `ModelFactoryError`.
    """
    if ":" in model:
        network = load_factory(model)
        return Network(network.eval(), f"the network of {model}", input_shape, layers_of(network))
    heads = [shape for shape in shapes.values() if len(shape) == 2]
    chosen = architecture(model, heads[-1][0] if heads else 10)
    network = with_memory(on_meta(chosen.build)).eval()
    return Network(network, chosen.description, input_shape or chosen.input_shape, layers_of(network))
