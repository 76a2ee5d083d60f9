"""Language models of Hugging Face folders, whose blocks are read and run one by one (`stream.py`).

transformers makes the network from its own code, as for the model `hf`; no value of it is made. A tensor is read from the
folder when its module runs, and let go of afterwards.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
from torch import nn

from pai_cli.errors import CheckpointError, LayerSelectionError, ModelFactoryError
from pai_cli.files.checkpoints import Checkpoint
from pai_cli.files.spans import SpanReader
from pai_cli.files.tensors import finite
from pai_cli.files.whole import TABLE, Whole, left_whole
from pai_cli.models.experts import Index, Part
from pai_cli.models.huggingface import check_config, description, made
from pai_cli.models.layers import PrunableLayer, prunable_layers, reasons_why_not
from pai_cli.models.older_folders import as_the_network
from pai_cli.models.without_values import WithoutValues, place_tables
from pai_cli.spectral.layout import PLAIN
from pai_cli.spelling import option

HEAD, OUTSIDE, ROUTER = "the head, which gives the logits", "outside the blocks", "a mixture's router"

PLAIN_DTYPES = (torch.float64, torch.float32, torch.float16, torch.bfloat16)


@dataclass(frozen=True, eq=False)
class Slot:
    """One matrix of a block: the `layer`, as the folder calls it, and its `index` in the network's parameter."""

    layer: PrunableLayer
    parameter: str
    index: Index = ()


class Block(NamedTuple):
    """One block: its module's path in the network, and its matrices in the network's order."""

    path: str
    slots: tuple[Slot, ...]

    @property
    def layers(self) -> tuple[PrunableLayer, ...]:
        """Its matrices, as masks are of them."""
        return tuple(slot.layer for slot in self.slots)


@dataclass(frozen=True)
class LanguageModel:
    """A network without values, and the checkpoint that has them.

    `blocks`: in the order they run. `front`: parameters, by name, that the network needs before them. `stored`: what of the
    checkpoint each parameter is. `dtype`: float64 where the checkpoint has a tensor of that, else float32. `vocabulary`,
    `positions`: how many tokens and positions it knows, None where it does not say. `whole`: what of the checkpoint is
    left whole. `head`: the head's matrix, where it is to be pruned too.
    """

    network: nn.Module
    checkpoint: Checkpoint
    description: str
    blocks: tuple[Block, ...]
    front: tuple[str, ...]
    stored: Mapping[str, tuple[Part, ...]]
    dtype: torch.dtype
    vocabulary: int | None
    positions: int | None
    whole: Whole
    head: Slot | None = None

    @property
    def layers(self) -> tuple[PrunableLayer, ...]:
        """Of all blocks, and the head where it is to be pruned."""
        last = () if self.head is None else (self.head.layer,)
        return (*(layer for block in self.blocks for layer in block.layers), *last)

    def matrix(self, slot: Slot) -> torch.Tensor:
        """A slot's matrix, rows its outputs: a view of the network's parameter, which is in memory."""
        tensor = self.network.get_parameter(slot.parameter)[slot.index]
        return tensor.T if slot.layer.layout.transposed else tensor

    @contextmanager
    def in_memory(self, names: Iterable[str], device: str) -> Iterator[None]:
        """Inside, these parameters have their values.

        Raises `NotFiniteError` for a NaN or infinity, `CheckpointError` for what is no weight.
        """
        before = {name: self.network.get_parameter(name) for name in names}
        try:
            for name, empty in before.items():
                self._put(name, nn.Parameter(self._values(name, empty, device), requires_grad=False))
            yield
        finally:
            for name, empty in before.items():
                self._put(name, empty)

    def _put(self, name: str, parameter: nn.Parameter) -> None:
        path, _, leaf = name.rpartition(".")
        self.network.get_submodule(path)._parameters[leaf] = parameter

    def _values(self, name: str, empty: torch.Tensor, device: str) -> torch.Tensor:
        """A parameter's values, of whatever parts."""
        parts = self.stored[name]
        if not parts[0].index:
            return self._part(parts[0], device)
        values = torch.empty(empty.shape, dtype=self.dtype, device=device)
        for part in parts:
            values[part.index] = self._part(part, device)
        return values

    def _part(self, part: Part, device: str) -> torch.Tensor:
        span, dtype = self.checkpoint.span_of(part.name), getattr(torch, self.checkpoint.dtype(part.name))
        if span is None or dtype not in PLAIN_DTYPES:
            array = self.checkpoint.finite_array(part.name)
            return torch.from_numpy(array if array.flags.writeable else array.copy()).to(device, self.dtype)
        # Not by a map of the file: its pages would count as this process's memory, shard after shard.
        values = torch.empty(self.checkpoint.shapes[part.name], dtype=dtype)
        with SpanReader() as reader:
            reader.fill(span, 0, values.reshape(-1).view(torch.uint8).numpy().data, CheckpointError)
        values = values.to(self.dtype)
        finite(self.checkpoint.path, part.name, values.numpy())
        return values.to(device)

    def rounded(self, slot: Slot, weight: torch.Tensor) -> torch.Tensor:
        """Weights as the checkpoint's type for them has them."""
        dtype = getattr(torch, self.checkpoint.dtype(slot.layer.name))
        return weight.to(dtype).to(self.dtype)

    def stored_value(self, slot: Slot) -> torch.Tensor:
        """The values of a slot's layer, as the checkpoint would store it, on the CPU."""
        tensor = self.network.get_parameter(slot.parameter)[slot.index]
        return tensor.cpu().to(getattr(torch, self.checkpoint.dtype(slot.layer.name)))

    def names_of(self, block: Block) -> list[str]:
        """The parameters of a block."""
        return [f"{block.path}.{name}" for name, _ in self.network.get_submodule(block.path).named_parameters()]


def open_language_model(checkpoint: Checkpoint, device: str = "cpu", *, head: bool = False) -> LanguageModel:
    """The language model of a folder; with `head`, its head is pruned too.

    Raises `ModelFactoryError` for what is no model's folder, where transformers does not make its network, and for one whose
    blocks cannot be told or are not all run alike; `StateDictMismatchError` where its tensors are not the network's;
    `LayerSelectionError` where no block has a matrix, and for a head that is the table of tokens, or is not there.
    """
    if checkpoint.config is None:
        raise ModelFactoryError(f"{checkpoint.path}: a text is read by a Hugging Face model; give its folder")
    whole = as_the_network(checkpoint)
    check_config(checkpoint, whole.shapes)
    with WithoutValues():
        network, config = made(checkpoint)
    if hasattr(config, "_experts_implementation"):
        config._experts_implementation = "eager"  # an expert after the other, each with its own matrix
    folder = str(checkpoint.path.parent)
    path, count = _stack(network, config, folder)
    dtype = torch.float64 if any(checkpoint.dtype(name) == "float64" for name in checkpoint.shapes) else torch.float32
    network = network.to(dtype).eval().requires_grad_(False)
    place_tables(network, device, folder)
    stored = _stored(network, whole.parts)
    blocks = tuple(_block(network, f"{path}.{number}", stored, checkpoint) for number in range(count))
    last = _head(network)
    slot = _head_slot(network, last, folder) if head else None
    outside = [name for name in _names(network) if not name.startswith(f"{path}.")]
    model = LanguageModel(
        network,
        checkpoint,
        f"{description(checkpoint)}, {count} blocks",
        blocks,
        tuple(name for name in outside if name != last),
        stored,
        dtype,
        _size(config, "vocab_size"),
        _size(config, "max_position_embeddings"),
        _whole(checkpoint, network, (*blocks, *(() if slot is None else (Block("", (slot,)),))), stored, last),
        slot,
    )
    if not model.layers:
        raise LayerSelectionError(f"{folder}: no block of the model has a linear weight to prune; choose another model")
    return model


def _size(config: Any, name: str) -> int | None:
    found = getattr(config, name, None)
    return found if isinstance(found, int) and found > 0 else None


def _stack(network: nn.Module, config: Any, folder: str) -> tuple[str, int]:
    """The path of the list of blocks, and how many they are."""
    if getattr(config, "is_encoder_decoder", False):
        raise ModelFactoryError(
            f"{folder}: has an encoder and a decoder; a text runs through models of one of them alone"
        )
    count = getattr(config, "num_hidden_layers", 0)
    found = [
        name
        for name, module in network.named_modules()
        if isinstance(module, nn.ModuleList) and len(module) == count and len({type(one) for one in module}) == 1
    ]
    stacks = [name for name in found if not any(name.startswith(f"{other}.") for other in found)]
    if len(stacks) != 1:
        raise ModelFactoryError(
            f"{folder}: {len(stacks)} lists of {count} blocks are in the model, and one is needed; give a "
            f"{option('method')} that reads no text"
        )
    return stacks[0], count


def _names(network: nn.Module) -> dict[str, nn.Parameter]:
    """Every parameter under all of its names."""
    return dict(network.named_parameters(remove_duplicate=False))


def _stored(network: nn.Module, parts: Mapping[str, tuple[Part, ...]]) -> dict[str, tuple[Part, ...]]:
    """What each parameter is made of, by each of its names: what one of them has."""
    names: dict[int, list[str]] = {}
    for name, parameter in _names(network).items():
        names.setdefault(id(parameter), []).append(name)
    every = ((several, next((parts[one] for one in several if one in parts), ())) for several in names.values())
    return {name: found for several, found in every for name in several if found}


def _block(network: nn.Module, path: str, stored: Mapping[str, tuple[Part, ...]], checkpoint: Checkpoint) -> Block:
    """The matrices of a block in the order of the state dict, experts one after the other."""
    module = network.get_submodule(path)
    routers = _routers(module)
    found = {layer.name: layer for layer in prunable_layers(module) if layer.name not in routers}
    slots = []
    for leaf in module.state_dict():
        name = f"{path}.{leaf}"
        parts = stored.get(name, ())
        if leaf in found:
            slots.append(Slot(replace(found[leaf], name=parts[0].name), name))
        elif parts and parts[0].index:
            slots += [Slot(_expert(part, checkpoint), name, part.index) for part in parts]
    return Block(path, tuple(slots))


def _routers(network: nn.Module) -> frozenset[str]:
    """The weights of linear layers that stand beside experts, with an output for each: other networks have a parameter."""
    found: list[str] = []
    for path, module in network.named_modules():
        beside = dict(module.named_children())
        experts = beside.get("experts")
        if experts is None:
            continue
        several = list(experts) if isinstance(experts, nn.ModuleList) else []
        counts = {len(several), *(len(one) for one in experts.parameters(recurse=False) if one.dim() == 3)}
        found += [
            f"{path}.{name}.weight".lstrip(".")
            for name, one in beside.items()
            if isinstance(one, nn.Linear) and one.out_features in counts
        ]
    return frozenset(found)


def _expert(part: Part, checkpoint: Checkpoint) -> PrunableLayer:
    return PrunableLayer(part.name, checkpoint.shapes[part.name], checkpoint.parts.get(part.name, PLAIN))


def _head(network: nn.Module) -> str:
    """The name of the head's weight; "" for none."""
    get: Callable[[], Any] = getattr(network, "get_output_embeddings", lambda: None)
    head = get()
    return next((f"{name}.weight" for name, module in network.named_modules() if module is head), "")


def _head_slot(network: nn.Module, name: str, folder: str) -> Slot:
    """The head as a matrix that is pruned."""
    found = {layer.name: layer for layer in prunable_layers(network)}
    names = _names(network)
    if name not in found or sum(one is names[name] for one in names.values()) > 1:
        why = "is the table of tokens too, and what comes in would change" if name in names else "is no linear layer"
        raise LayerSelectionError(f"{folder}: the head {why}; leave {option('head')} out")
    return Slot(found[name], name)


def _whole(
    checkpoint: Checkpoint,
    network: nn.Module,
    blocks: Sequence[Block],
    stored: Mapping[str, tuple[Part, ...]],
    head: str,
) -> Whole:
    """What stands in no block, with the reasons: the tables, the head, and whatever else."""
    reasons = reasons_why_not(network)
    reasons |= {layer.name: reasons.get(layer.name) or OUTSIDE for layer in prunable_layers(network)}
    reasons |= dict.fromkeys(_routers(network), ROUTER)
    why = {part.name: reason for name, reason in reasons.items() for part in stored.get(name, ())}
    for part in stored.get(head, ()):
        why[part.name] = HEAD if part.name == head else f"{TABLE}, and {HEAD}"
    return left_whole(checkpoint, {layer.name for block in blocks for layer in block.layers}, why)
