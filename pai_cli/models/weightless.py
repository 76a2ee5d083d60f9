"""Networks of which only the wiring is needed: what their weights are is not read where it need not be."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

from torch import nn

from pai_cli.errors import MethodOptionError, install
from pai_cli.files.checkpoints import Checkpoint
from pai_cli.models.base import on_meta, unmade, with_memory
from pai_cli.models.factory import load_factory
from pai_cli.models.huggingface import FACTORY, WeightsAlone
from pai_cli.models.network import Network, load_network, outline_network
from pai_cli.models.prunable import layers_of
from pai_cli.models.registry import architecture
from pai_cli.models.unrolled.tape import Tape, record, unroll
from pai_cli.spelling import option


def weightless(checkpoint: Checkpoint, model: str | None, input_shape: tuple[int, ...] | None) -> Network:
    """The network of a checkpoint, with values that mean nothing where no code but pai's own makes it.

    Raises as `load_network` does, but for what is in the tensors; `MethodOptionError` where only the weights are known.
    """
    if not _made_here(checkpoint, model):
        return load_network(checkpoint, model, input_shape)
    network = outline_network(checkpoint, model, input_shape)
    if isinstance(network.model, WeightsAlone):
        raise MethodOptionError(
            f"of a model's folder only the weights are read; give {option('model', FACTORY)} where transformers is "
            f"installed ({install('hf')})"
        )
    return replace(network, model=_with_values(lambda: network.model, network.description))


def network_called(model: str, input_shape: tuple[int, ...] | None, shapes: Mapping[str, tuple[int, ...]]) -> Network:
    """The network called `model`, as `load_network` knows it, with as many classes as a mask of these shapes has.

    Raises `UnknownModelError` and `ModelFactoryError`.
    """
    if ":" in model:
        network = load_factory(model)
        return Network(network.eval(), f"the network of {model}", input_shape, layers_of(network))
    heads = [shape for shape in shapes.values() if len(shape) == 2]
    chosen = architecture(model, heads[-1][0] if heads else 10)
    network = _with_values(lambda: on_meta(chosen.build), chosen.description)
    return Network(network, chosen.description, input_shape or chosen.input_shape, layers_of(network))


def unrolled_checkpoint(checkpoint: Checkpoint, model: str | None, input_shape: tuple[int, ...] | None) -> Tape:
    """The network of a checkpoint, unrolled. Raises as `weightless` and `unroll` do."""
    network = weightless(checkpoint, model, input_shape)
    return _unrolled(network, own=_made_here(checkpoint, model))


def unrolled_model(model: str, input_shape: tuple[int, ...] | None, shapes: Mapping[str, tuple[int, ...]]) -> Tape:
    """The network called `model`, unrolled. Raises as `network_called` and `unroll` do."""
    return _unrolled(network_called(model, input_shape, shapes), own=":" not in model)


def _made_here(checkpoint: Checkpoint, model: str | None) -> bool:
    return checkpoint.module is None and (model is None or (":" not in model and model != FACTORY))


def _unrolled(network: Network, *, own: bool) -> Tape:
    """Without a copy where nobody else has the network."""
    if not own or network.input_shape is None:
        return unroll(network.model, network.input_shape)
    return record(network.model, network.input_shape, weightless=True)


def _with_values(make: Callable[[], nn.Module], description: str) -> nn.Module:
    """A network that `make` makes without memory for its values, which it is given, and they mean nothing."""
    try:
        return with_memory(make()).float().eval().requires_grad_(False)
    except (RuntimeError, TypeError, OverflowError, MemoryError) as error:
        raise unmade(description, error) from error
