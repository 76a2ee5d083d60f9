"""Networks of which only the wiring is needed, unrolled: what their weights are is not read where it need not be."""

from __future__ import annotations

from collections.abc import Mapping

from torch import nn

from pai_cli.errors import MethodOptionError, UnknownModelError
from pai_cli.files.checkpoints import Checkpoint
from pai_cli.models.base import Architecture, on_meta, with_memory
from pai_cli.models.factory import load_factory
from pai_cli.models.huggingface import FACTORY, WeightsAlone
from pai_cli.models.network import Network, load_network, outline_network
from pai_cli.models.prunable import layers_of
from pai_cli.models.registry import architecture
from pai_cli.models.unrolled.tape import Tape, record, unroll
from pai_cli.spelling import option


def unrolled_checkpoint(checkpoint: Checkpoint, model: str | None, input_shape: tuple[int, ...] | None) -> Tape:
    """The network of a checkpoint, unrolled.

    Raises as `unroll` does, and as `load_network` does, but for what is in the tensors of an architecture that pai knows.
    """
    if checkpoint.module is not None or (model is not None and (":" in model or model == FACTORY)):
        network = load_network(checkpoint, model, input_shape)
        return unroll(network.model, network.input_shape)
    network = outline_network(checkpoint, model, input_shape)
    if isinstance(network.model, WeightsAlone):
        raise MethodOptionError(
            f"of a model's folder only the weights are read; give {option('model', FACTORY)} where transformers is "
            "installed (pip install 'pai-cli[hf]')"
        )
    return _recorded(network.model, network.input_shape, network.description)


def unrolled_model(model: str, input_shape: tuple[int, ...] | None, shapes: Mapping[str, tuple[int, ...]]) -> Tape:
    """The network called `model`, as `load_network` knows it, with as many classes as a mask of these shapes has, unrolled.

    Raises `UnknownModelError`, `ModelFactoryError`, and as `unroll` does.
    """
    if ":" in model:
        return unroll(load_factory(model), input_shape)
    chosen = _known(model, shapes)
    return _recorded(on_meta(chosen.build), input_shape or chosen.input_shape, chosen.description)


def network_called(model: str, input_shape: tuple[int, ...] | None, shapes: Mapping[str, tuple[int, ...]]) -> Network:
    """The same network, whose values mean nothing. Raises `UnknownModelError` and `ModelFactoryError`."""
    if ":" in model:
        network = load_factory(model).eval()
        return Network(network, f"the network of {model}", input_shape, layers_of(network))
    chosen = _known(model, shapes)
    network = with_memory(on_meta(chosen.build)).eval()
    return Network(network, chosen.description, input_shape or chosen.input_shape, layers_of(network))


def _known(model: str, shapes: Mapping[str, tuple[int, ...]]) -> Architecture:
    heads = [shape for shape in shapes.values() if len(shape) == 2]
    return architecture(model, heads[-1][0] if heads else 10)


def _recorded(model: nn.Module, input_shape: tuple[int, ...] | None, description: str) -> Tape:
    """Of a network without memory for its values, which it is given, and they mean nothing."""
    assert input_shape is not None  # every known architecture has one
    try:
        network = with_memory(model).float().eval().requires_grad_(False)
    except (RuntimeError, MemoryError) as error:
        raise UnknownModelError(f"{description} does not fit in memory; choose a smaller network") from error
    return record(network, input_shape)
