"""A network with its weights, and which of them can be pruned."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeVar

import torch
from torch import fx, nn

from pai_cli.errors import MethodOptionError, ModelFactoryError, NoLayerError, UnknownModelError
from pai_cli.files.atomic import check_output, write_bytes
from pai_cli.files.canonical import canonical_bytes
from pai_cli.files.checkpoints import Checkpoint, StateDict
from pai_cli.files.folders import SHARD, index_of, is_model
from pai_cli.files.matching import story_of
from pai_cli.files.messages import some_names
from pai_cli.files.ordering import natural_order, spelled
from pai_cli.files.whole import NOTHING, Whole
from pai_cli.models import huggingface
from pai_cli.models.base import Architecture, on_meta, shapes_of, unmade, with_memory
from pai_cli.models.copies import copied
from pai_cli.models.factory import load_factory
from pai_cli.models.layers import PrunableLayer, prunable_layers
from pai_cli.models.loading import check_names_and_shapes, counters_beside, has_all, load_values
from pai_cli.models.prunable import aliases_of, layers_by_name, layers_by_shape, layers_of, whole_of
from pai_cli.models.recognise import nearest, recognise, recognised, strip_wrapper
from pai_cli.models.registry import architecture
from pai_cli.printable import reason_of
from pai_cli.random import check_seed, seed_torch
from pai_cli.spelling import option

__all__ = [
    "Network",
    "PrunableLayer",
    "init_network",
    "load_network",
    "prunable_layers",
    "save_checkpoint",
    "save_tensors",
]

T = TypeVar("T")
Fill = Callable[[Checkpoint, nn.Module], nn.Module]

_CODE = "module:factory or file.py:factory"
_MODELS = f"{option('model', 'NAME')}, or {_CODE} and, where no data tell it, {option('input_shape')}"

TIMM_NAMES = frozenset(
    ["conv_stem.weight", "patch_embed.proj.weight", "stem.conv.weight", "stem.0.weight", "head.fc.weight"]
)
"""Names that begin or end most of timm's networks, and few others."""


@dataclass
class Network:
    """A network, its weights loaded.

    `description` is for a person; `input_shape` is of one sample, None when unknown; `layers` are the
    prunable weights in the order of the state dict; `aliases`: the other names of those that have several. `whole`: what
    of its checkpoint is in none of them. `aside`: counters of tools that the checkpoint has and the network does not.
    """

    model: nn.Module
    description: str
    input_shape: tuple[int, ...] | None
    layers: tuple[PrunableLayer, ...]
    aliases: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    whole: Whole = NOTHING
    aside: tuple[str, ...] = ()

    def parameter(self, name: str) -> nn.Parameter:
        """The parameter with this state-dict name. Raises `AttributeError` when there is none."""
        return self.model.get_parameter(name)

    @property
    def story(self) -> dict[str, str]:
        """What a mask file tells of the weights that are left whole, and of the other names of those that are not."""
        return {**self.whole.story, **story_of(self.aliases)}

    @property
    def total(self) -> int:
        """Number of prunable weights."""
        return sum(math.prod(layer.shape) for layer in self.layers)


def load_network(
    checkpoint: Checkpoint,
    model: str | None = None,
    input_shape: tuple[int, ...] | None = None,
    *,
    weights_suffice: bool = False,
) -> Network:
    """The network of a checkpoint, its weights loaded, in evaluation mode, on the CPU.

    `model` is a known name, `package.module:factory` or `file.py:factory`; without it the checkpoint's own
    module is taken (`trust`), else the architecture is recognised by names and shapes. `input_shape`
    overrides the architecture's. Weights are float64 when the checkpoint has any float64 tensor, else
    float32. `weights_suffice`: of names and shapes that no architecture has, the weights alone are taken.

    Raises `UnknownModelError`, `ModelFactoryError`, `StateDictMismatchError` (names or shapes differ either
    way), `NotFiniteError` (a NaN or infinity), `CheckpointError` (a tensor that cannot be read),
    `NoLayerError` (nothing to prune in it).
    """
    if weights_suffice and model is None and _is_unknown(checkpoint):
        return _by_shape(checkpoint, load_values)
    return _network_of(checkpoint, model, input_shape, load_values)


def _is_unknown(checkpoint: Checkpoint) -> bool:
    """Whether no module and no configuration is there, names and shapes tell no architecture, nor nearly one, and the file
    is no part of something larger.
    """
    known = checkpoint.module is not None or checkpoint.config is not None or recognised(checkpoint) is not None
    part = SHARD.search(checkpoint.path.name) is not None or is_model(checkpoint.path.parent)
    return not known and not part and nearest(checkpoint.shapes) is None


def _by_shape(checkpoint: Checkpoint, fill: Fill) -> Network:
    """The weights of a network that is not known. Raises `UnknownModelError` where none is told by name and shape."""
    layers = layers_by_shape(checkpoint)
    if not layers:
        raise _unknown(checkpoint)
    _refuse_packed(checkpoint, layers)
    why = f"names and shapes of {checkpoint.path} match no known architecture; give {_MODELS}"
    alone = fill(checkpoint, huggingface.weights_alone(layers, why))
    return Network(
        alone.eval(),
        "weights of no known architecture, told by names and shapes",
        None,
        layers,
        aliases=aliases_of(checkpoint, alone, layers),
        whole=whole_of(checkpoint, None, layers),
    )


def outline_network(checkpoint: Checkpoint, model: str | None, input_shape: tuple[int, ...] | None) -> Network:
    """The network of `load_network`, its tensors on the meta device: names and shapes are checked, no value is read.

    For a `model` that is known by name or recognised, not one that other code makes. Raises as `load_network` does, but
    for what is in the tensors.
    """
    with torch.device("meta"):
        return _network_of(checkpoint, model, input_shape, lambda _, network: network)


def _network_of(checkpoint: Checkpoint, model: str | None, input_shape: tuple[int, ...] | None, fill: Fill) -> Network:
    found = _of_folder(checkpoint, model, fill) if checkpoint.config is not None else None
    found = found or _of_modules(checkpoint, model, input_shape, fill)
    known = None if isinstance(found.model, huggingface.WeightsAlone) else found.model
    return replace(
        found,
        aliases=aliases_of(checkpoint, found.model, found.layers),
        whole=whole_of(checkpoint, known, found.layers),
        aside=() if known is None else counters_beside(checkpoint, known),
    )


def _of_modules(checkpoint: Checkpoint, model: str | None, input_shape: tuple[int, ...] | None, fill: Fill) -> Network:
    """The network that names and shapes tell, or that other code makes."""
    network, description, shape, hint = _network_for(checkpoint, model)
    if any(name not in checkpoint.shapes for name in network.state_dict()):
        strip_wrapper(checkpoint, lambda shapes: has_all(network, shapes))
    check_names_and_shapes(checkpoint, network, description, hint)
    try:
        network = with_memory(network)
    except (RuntimeError, MemoryError) as e:
        raise unmade(description, e) from e
    network = fill(checkpoint, network)
    layers = layers_of(network)
    if not layers:
        whole = str(whole_of(checkpoint, network, ()))
        raise NoLayerError(
            f"{checkpoint.path}: {description} has no convolution or linear weight to prune{whole and ': '}{whole}; choose "
            f"another {option('model')}"
        )
    _refuse_hidden(network, description, layers)
    return Network(network.eval(), description, input_shape or shape, layers)


def _refuse_hidden(network: nn.Module, description: str, layers: tuple[PrunableLayer, ...]) -> None:
    """Raise `ModelFactoryError` for a layer that its own name hides: one called `half` or `type`, as a method is."""
    for layer in layers:
        try:
            network.get_parameter(layer.name)
        except AttributeError as e:
            raise ModelFactoryError(
                f"{description} has its weight {layer.name!r} under a name that its class has for something else "
                f"({reason_of(e)}); call that module otherwise"
            ) from e


def _of_folder(checkpoint: Checkpoint, model: str | None, fill: Fill) -> Network | None:
    """The network of a Hugging Face model's folder, when its weights are of no known architecture."""
    assert checkpoint.config is not None
    if model not in (None, huggingface.FACTORY) or (model is None and recognised(checkpoint) is not None):
        return None
    if model is None:
        layers = layers_by_name(checkpoint)
        _refuse_packed(checkpoint, layers)
        if not layers:
            whole = str(whole_of(checkpoint, None, ()))
            raise NoLayerError(
                f"{checkpoint.path}: no linear weight to prune by its name{whole and ': '}{whole}; give "
                f"{option('model', 'hf')}"
            )
        alone = fill(checkpoint, huggingface.weights_alone(layers, huggingface.of_folder()))
        return Network(alone.eval(), f"{huggingface.description(checkpoint)} (its linear layers)", None, layers)
    huggingface.check_config(checkpoint)
    network, input_shape = huggingface.build(checkpoint)
    description = huggingface.description(checkpoint)
    network = fill(checkpoint, network)
    return Network(network.eval(), description, input_shape, huggingface.module_layers(network))


def _refuse_packed(checkpoint: Checkpoint, layers: tuple[PrunableLayer, ...]) -> None:
    """Raise `NoLayerError` where more weights are packed as integers than are left to prune."""
    whole = whole_of(checkpoint, None, layers)
    left = sum(math.prod(layer.shape) for layer in layers)
    if whole.packed > left:
        raise NoLayerError(
            f"{checkpoint.path}: is quantised: {whole.packed:,} weights are packed as integers, which cannot be pruned, and "
            f"{left:,} are not; give the checkpoint from before the quantisation"
        )


def _network_for(checkpoint: Checkpoint, model: str | None) -> tuple[nn.Module, str, tuple[int, ...] | None, str]:
    """An unloaded network, its description and input shape, and what to try when it does not fit."""
    if model == huggingface.FACTORY:
        raise ModelFactoryError(
            f"{option('model', 'hf')}: makes the network of a Hugging Face model's folder; give the folder"
        )
    if model is not None and ":" in model:
        return (
            load_factory(model),
            f"the network of {model}",
            None,
            f"change the factory, or choose another {option('model')}",
        )
    if model is None and checkpoint.module is not None:
        return _module_of(checkpoint)
    found = recognised(checkpoint)
    if model is None:
        if found is None:
            raise _unknown(checkpoint)
        return _fitting(found, on_meta), found.description, found.input_shape, f"give {option('model')}"
    hint = f"it matches {found.name}: leave {option('model')} out" if found else f"choose another {option('model')}"
    chosen = _named_architecture(checkpoint, model, found)
    return _fitting(chosen, on_meta), chosen.description, chosen.input_shape, hint


def _unknown(checkpoint: Checkpoint) -> UnknownModelError:
    near = nearest(checkpoint.shapes)
    if near is not None:
        names = some_names(map(repr, near[1]))
        return UnknownModelError(
            f"{checkpoint.path}: has the tensors of {near[0].name}, and {names} beside them; give "
            f"{option('model', 'file.py:factory')} of the network that has these, or save a state dict without them"
        )
    whole = whole_of(checkpoint, None, layers_by_name(checkpoint))
    packed = f" ({whole.packed:,} weights are quantised: packed as integers)" if whole.packed else ""
    return UnknownModelError(
        f"{checkpoint.path}: names and shapes of its {len(checkpoint.shapes)} tensors match no known "
        f"architecture{packed or _hint_of_names(checkpoint)}; give {_MODELS}"
    )


def _module_of(checkpoint: Checkpoint) -> tuple[nn.Module, str, tuple[int, ...] | None, str]:
    """The checkpoint's own module; of one that a program holds, with the input shape of the architecture that it has."""
    # A copy, so that pruning one network of a checkpoint does not change the next.
    assert checkpoint.module is not None
    module, hint = copied(checkpoint.module), f"give {option('model')}"
    if isinstance(module, fx.GraphModule) and checkpoint.files:
        return module, "a program of torch.export", checkpoint.input_shape, "export it again"
    name, like = type(module).__name__, None if checkpoint.files else recognise(checkpoint.shapes)
    if checkpoint.files:
        return module, f"{name} (unpickled)", None, hint
    if like is None:
        return module, name, None, hint
    return module, f"{name}, of the names and shapes of {like.name}, whose input shape is taken", like.input_shape, hint


def _hint_of_names(checkpoint: Checkpoint) -> str:
    """What to say of names that are timm's, or all begin with one word, as a training framework's wrapper leaves them."""
    if TIMM_NAMES & set(checkpoint.shapes):
        return (
            f" (names as timm has them: where timm is installed, {option('model', 'timm.models:NAME')} makes a "
            "network of it)"
        )
    if SHARD.search(checkpoint.path.name):
        index = index_of(checkpoint.path)
        return f" (one of several shards: give {index or 'their *.index.json, which is not beside it'})"
    if is_model(checkpoint.path.parent):
        return " (a Hugging Face model? give its folder)"
    firsts = {name.partition(".")[0] for name in checkpoint.shapes if "." in name}
    if len(firsts) != 1 or not all("." in name for name in checkpoint.shapes):
        return ""
    prefix = firsts.pop()
    return f" (every name begins with {prefix + '.'!r}: was it saved from inside a wrapper?)"


def _named_architecture(checkpoint: Checkpoint, model: str, found: Architecture | None) -> Architecture:
    """The architecture called `model`, with the class count, and where possible the names, of the checkpoint.

    What is recognised is taken when its weights have the shapes of those asked for: it then differs in names
    alone.
    """
    if model.endswith(".py"):
        raise ModelFactoryError(
            f"{option('model', model)}: say which function in it makes the network, as {model}:NAME"
        )
    heads = [name for name in sorted(checkpoint.shapes, key=natural_order) if len(checkpoint.shapes[name]) == 2]
    classes = (checkpoint.shapes[heads[-1]][0] if heads else 0) or 10
    asked = architecture(model, found.classes if found else classes)
    if found and _fitting(found, _weight_shapes) == _fitting(asked, _weight_shapes):
        return found
    return asked


def _weight_shapes(build: Callable[[], nn.Module]) -> list[tuple[int, ...]]:
    return sorted(shape for shape in shapes_of(build).values() if len(shape) > 1)


def _fitting(chosen: Architecture, make: Callable[[Callable[[], nn.Module]], T]) -> T:
    """What `make` makes of the architecture. Raises `UnknownModelError` where it cannot, as when that is too large."""
    try:
        return make(chosen.build)
    except (RuntimeError, TypeError, OverflowError, MemoryError) as e:
        raise unmade(f"{chosen.name} with {chosen.classes:,} classes", e) from e


def init_network(name: str, classes: int | None, seed: int) -> Network:
    """The architecture called `name`, freshly initialised; the same seed gives the same weights, bit for bit.

    `classes`: None for the last size of an `mlp-...`, else 10. The global random numbers are left as they were.
    Raises `UnknownModelError` (also for one too large for this machine), `MethodOptionError` for a seed out of
    range or a class count that the name contradicts.
    """
    check_seed(seed)
    chosen = architecture(name, 10 if classes is None else classes)
    if classes not in (None, chosen.classes):
        raise MethodOptionError(
            f"{option('classes', classes)}: {chosen.name} has {chosen.classes}, its last size; "
            f"leave {option('classes')} out, or change the name"
        )
    with torch.random.fork_rng(devices=[]):
        seed_torch(seed)
        network = _fitting(chosen, lambda build: build())
    layers = prunable_layers(network)
    whole = whole_of(StateDict(name, network.state_dict(), network), network, layers)
    return Network(network.eval(), chosen.description, chosen.input_shape, layers, whole=whole)


def save_checkpoint(
    path: Path, network: Network | nn.Module, metadata: dict[str, str] | None = None, force: bool = False
) -> None:
    """Write the state dict as safetensors, whole or not at all; equal contents give equal bytes.

    A tensor with several names is written under each. Raises `OutputError`.
    """
    module = network.model if isinstance(network, Network) else network
    state = module.state_dict().items()
    tensors = {
        name: tensor for name, tensor in state if isinstance(tensor, torch.Tensor)
    }  # else: a module's extra state
    save_tensors(path, tensors, metadata, force)


def save_tensors(
    path: Path, named: Mapping[str, torch.Tensor], metadata: dict[str, str] | None = None, force: bool = False
) -> None:
    """Write tensors by name as safetensors, as `save_checkpoint` does. Raises `OutputError`."""
    from safetensors.torch import save

    check_output(path, force=force)  # before the work
    tensors: dict[str, torch.Tensor] = {}
    seen: set[int] = set()
    for name, tensor in named.items():
        dense = tensor.detach().cpu().contiguous()
        # safetensors refuses tensors that share memory.
        storage = dense.untyped_storage().data_ptr()
        tensors[name] = dense.clone() if storage in seen else dense
        seen.add(storage)
    story = {key: spelled(text) for key, text in (metadata or {}).items()}
    data = canonical_bytes(save(tensors, story or None))
    write_bytes(path, data, force=force)
