"""What programs give, as the rest of the package takes it: checkpoints, networks, shapes, amounts, devices."""

from __future__ import annotations

import io
import math
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from numbers import Integral
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pai_cli.api.ranges import check_numbers, plain
from pai_cli.compute.device import ON_TORCH, device_name, resolve
from pai_cli.errors import CheckpointError, DensityError, DeviceError, ParameterError, UsageError
from pai_cli.files.messages import some_names
from pai_cli.files.standard_input import file_in, is_standard_input
from pai_cli.pruning.base import USUAL_DENSITY, Pattern
from pai_cli.spectral.parameters import from_digits, shown
from pai_cli.spelling import option
from pai_cli.telling import note, warn

if TYPE_CHECKING:
    from pai_cli.data.base import Dataset
    from pai_cli.files.checkpoints import Checkpoint
    from pai_cli.files.densities import LayerDensities
    from pai_cli.models.network import Network

AnyPath = str | os.PathLike[str]
Source = Any
"""A checkpoint: a path, an `nn.Module`, or a state dict of torch tensors or NumPy arrays."""

Shape = str | int | Sequence[int]


def path_of(given: AnyPath) -> Path:
    """The path. Raises `ParameterError` for what is none."""
    if isinstance(given, (str, os.PathLike)):
        return given if isinstance(given, Path) else Path(given)
    raise ParameterError(f"a path is needed, not {type(given).__name__}")


def file_of(given: AnyPath) -> Path:
    """The path of a file that is read, for "-" of the one on standard input. Raises `CheckpointError` where that is none."""
    path = path_of(given)
    return file_in(sys.stdin or io.StringIO()) if is_standard_input(path) else path


def maybe_path(given: AnyPath | None) -> Path | None:
    """The path, where one is given."""
    return None if given is None else path_of(given)


def open_source(source: Source, *, trust: bool = False) -> Checkpoint:
    """The checkpoint in a file, a module or a state dict. What a program holds is neither changed nor kept.

    Raises `CheckpointError`, `UsageError` for "-", and what `open_checkpoint` raises.
    """
    from pai_cli.files.checkpoints import Checkpoint, StateDict, open_checkpoint

    if isinstance(source, (str, os.PathLike)):
        if is_standard_input(source):
            raise UsageError("-: a checkpoint is not read from standard input; write it to a file, and give that")
        return open_checkpoint(Path(source), trust=trust)
    if isinstance(source, Checkpoint):
        return source
    import torch
    from torch import nn

    from pai_cli.files.pickles import bare_module

    if isinstance(source, nn.Module):
        module = bare_module(source)
        state = {name: value for name, value in module.state_dict().items() if isinstance(value, torch.Tensor)}
        _check_there(state)
        return StateDict("the model", state, module)
    if isinstance(source, Mapping):
        return StateDict("the state dict", _tensors(source))
    raise CheckpointError(f"a checkpoint is a path, an nn.Module or a state dict, not {type(source).__name__}")


def _check_there(state: Mapping[str, Any]) -> None:
    """Raise `CheckpointError` for the first of a module's tensors that has no values yet."""
    from torch.nn.parameter import is_lazy

    for name, value in state.items():
        if is_lazy(value):
            raise CheckpointError(f"the model: {name!r} has no shape yet; run the model on one batch first")
        if value.is_meta:
            raise CheckpointError(f"the model: {name!r} is on the device meta, without values; load its weights first")


def source_path(source: Source) -> Path | None:
    """Where a checkpoint is read from; None for what a program holds."""
    return Path(source) if isinstance(source, (str, os.PathLike)) else None


def file_beside(checkpoint: AnyPath, *parts: str) -> Path:
    """`NAME-METHOD-DENSITY.safetensors` in the current folder, of the checkpoint's name and these parts."""
    return Path("-".join([Path(checkpoint).resolve().name.split(".")[0], *parts]) + ".safetensors")


def _tensors(state: Mapping[Any, Any]) -> dict[str, Any]:
    import numpy as np
    import torch

    tensors: dict[str, torch.Tensor] = {}
    for name, value in state.items():
        if not isinstance(name, str):
            raise CheckpointError(f"the state dict: a name is {shown(name)}, not text")
        if isinstance(value, np.ndarray) and value.dtype.kind in "biuf":
            tensors[name] = torch.from_numpy(
                np.array(value)
            )  # a copy: what NumPy will not have written cannot be shared
        elif isinstance(value, torch.Tensor):
            tensors[name] = value
        else:
            raise CheckpointError(f"the state dict: {name!r} is {type(value).__name__}, not a tensor or an array")
    return tensors


def network_of(
    source: Checkpoint, model: str | None, input_shape: tuple[int, ...] | None, *, weights_suffice: bool = False
) -> Network:
    """The network of a checkpoint. Raises what `load_network` raises."""
    from pai_cli.models.network import load_network

    return load_network(source, model, input_shape, weights_suffice=weights_suffice)


def tell_network(source: Checkpoint, network: Network, beside: str = "") -> None:
    """Say what was recognised, then what of the checkpoint is set aside and left whole. `beside`: ends the first line."""
    where = f" ({source.description})" if source.description else ""
    note(f"{source.path}{where}: {network.description}, {network.total:,} prunable weights{beside}")
    tell_left(source, network)


def tell_left(source: Checkpoint, network: Network) -> None:
    """Say what of a checkpoint no layer of its network is, and which layers have several names."""
    from pai_cli.models.layers import unregistered

    if network.aside:
        note(f"{source.path}: counters that the network does not have are set aside: {some_names(network.aside)}")
    if network.aliases:
        tied = some_names(f"{name} is {' and '.join(others)} too" for name, others in network.aliases.items())
        note(f"{source.path}: {tied}: one tensor, one mask")
    if text := str(network.whole):
        note(f"{source.path}: {text}")
    if lost := unregistered(network.model):
        warn(
            f"{source.path}: {some_names(lost)}: weights in a plain list or dict, which PyTorch takes for no part of the "
            "network: they are neither counted nor pruned; hold them in an nn.ModuleList, nn.ModuleDict or nn.ParameterList"
        )


def tell_precision(source: Checkpoint, network: Network, what: str) -> None:
    """Say of weights whose precision is another one in the network. `what`: is done with it."""
    parameters = network.model.named_parameters()
    loaded = {
        name: 8 * one.element_size() for name, one in parameters if name in source.shapes and source.floating(name)
    }
    others = [name for name, bits in loaded.items() if source.bits(name) != bits]
    if others:
        stored, bits = source.bits(others[0]), loaded[others[0]]
        told = f"{len(others)} tensors of {stored} bits, {others[0]!r} the first of them"
        note(f"{source.path}: {told}, are {what} in {bits} bits")


def open_weights(source: Source, *, trust: bool = False) -> Checkpoint | None:
    """The checkpoint whose weights go with masks, None for none; what had to be unwrapped or set aside is said."""
    if source is None:
        return None
    checkpoint = open_source(source, trust=trust)
    if checkpoint.description:
        note(f"{checkpoint.path}: {checkpoint.description}")
    return checkpoint


def device_of(name: str, source: Source = None) -> str:
    """The torch device: for "auto" the one that a module is on, else a GPU where there is one.

    Raises `DeviceError` and `ParameterError`.
    """
    if name == "auto" and hasattr(source, "parameters") and not isinstance(source, Mapping):
        first = next(iter(source.parameters()), None)
        if first is not None and first.device.type == "cuda":
            return str(first.device)
    asked = device_name(name)
    if asked.startswith("xpu"):
        raise DeviceError(
            f"{option('device', asked)}: scores and training need the cores or a CUDA GPU; use {option('device', 'cpu')}"
        )
    found = resolve(asked)
    if asked == "auto" and found != "cpu":
        note(
            f"a GPU does the work ({option('device', 'auto')}, as there is one; {option('device', 'cpu')} leaves it out)"
        )
    return "cpu" if found == ON_TORCH else found


def shape_of(given: Shape | None) -> tuple[int, ...] | None:
    """The shape of one input, from "3,32,32", a sequence of whole numbers, or one of them. Raises `UsageError`."""
    if given is None:
        return None
    if isinstance(given, str):
        sides = tuple(from_digits(side.strip()) or 0 for side in given.replace("x", ",").split(","))
    else:
        every: Iterable[Any] = given if isinstance(given, Iterable) else [given]
        sides = tuple(max(_whole(side) or 0, 0) for side in every)
    if not sides or not all(sides):
        told = given if isinstance(given, str) else shown(given)
        raise UsageError(f"{option('input_shape', told)}: give whole numbers above 0, such as 3,32,32")
    return sides


def _whole(value: Any) -> int | None:
    """A whole number, NumPy's too; None for anything else, True and False among it."""
    return None if isinstance(value, bool) or not isinstance(value, Integral) else int(value)


def rounds_of(given: int | str | None) -> int | Literal["auto"] | None:
    """A number of rounds, or "auto". Raises `UsageError`."""
    if given is None or given == "auto":
        return "auto" if given else None
    if (whole := _whole(given)) is not None:
        return whole
    text = given if isinstance(given, str) else shown(given)
    number = from_digits(text.removeprefix("-")) if isinstance(given, str) else None
    if number is None:
        raise UsageError(f"{option('rounds', text)}: give a whole number, or auto")
    return -number if text.startswith("-") else number


def globs_of(given: str | Iterable[str] | None) -> tuple[str, ...]:
    """Globs of layer names, from one or several."""
    if given is None:
        return ()
    return (given,) if isinstance(given, str) else tuple(given)


@dataclass(frozen=True)
class Amount:
    """How much to keep: `density` of the network, `pattern` N:M or `densities` a layer, None where it is another.

    With a pattern, `density` is the pattern's. `label`: what it is called in a file's name. `default`: nothing was given.
    """

    density: float | None
    pattern: Pattern | None
    densities: LayerDensities | None
    label: str
    default: bool = False


def amount_of(density: float | None, sparsity: Any, pattern: Any = None, densities: Any = None) -> Amount:
    """How much to keep, from whichever was given, or the usual density.

    A density may stand beside the pattern that has it. `sparsity`: a number, or its text. `pattern`: "N:M" or a pair.
    `densities`: the path of a JSON object, or a mapping. Raises `UsageError` when several were given, and `DensityError`
    for a file that holds no densities.
    """
    given = {"density": density, "sparsity": sparsity, "pattern": pattern, "densities": densities}
    names = [name for name, value in given.items() if value is not None]
    if not names:
        return Amount(USUAL_DENSITY, None, None, f"{USUAL_DENSITY:g}", default=True)
    if names[:2] == ["density", "sparsity"] or (len(names) > 1 and (densities is not None or len(names) > 2)):
        raise UsageError(f"{' and '.join(map(option, names))} exclude each other: give one")
    if densities is not None:
        return _given_densities(densities)
    kept = density if sparsity is None else _one_minus(sparsity)
    if pattern is None:
        assert kept is not None
        check_numbers(density=kept)
        return Amount(float(kept), None, None, f"{kept:g}")
    found = pattern_of(pattern)
    if kept is not None and not math.isclose(kept, found.density):
        raise UsageError(f"{option('pattern', found)} has density {found.density:g}: leave {option(names[0])} out")
    return Amount(found.density, found, None, f"{found.keep}of{found.of}")


def _given_densities(given: Any) -> Amount:
    from pai_cli.files.densities import checked_densities, read_densities

    if isinstance(given, Mapping):
        pairs = ((name, plain(density)) for name, density in given.items())
        return Amount(None, None, checked_densities(pairs), "densities")
    path = path_of(given)
    return Amount(None, None, read_densities(path), path.name.split(".")[0])


def _one_minus(sparsity: Any) -> float:
    try:
        # In decimal, because 1 - 0.95 in binary is not 0.05 and may round to another count.
        kept = float(1 - Decimal(str(sparsity)))
    except ArithmeticError as e:  # not a number, or one that decimal arithmetic cannot hold
        raise UsageError(f"{option('sparsity', sparsity)}: is not a number") from e
    if not 0 < kept <= 1:
        raise DensityError(
            f"{option('sparsity', sparsity)}: must be 0 or more and below 1 (the fraction of weights removed; "
            f"{option('density')} is the fraction kept)"
        )
    return kept


def pattern_of(given: Any) -> Pattern:
    """The pattern that was given, "N:M" or a pair. Raises `UsageError` for anything else."""
    if not isinstance(given, str):
        try:
            keep, of = given
        except (TypeError, ValueError):
            raise UsageError(f"{option('pattern', shown(given))}: give N:M, such as 2:4") from None
        given = f"{keep}:{of}"
    parts = given.split(":")
    if len(parts) != 2 or not all(part.isascii() and part.isdecimal() and len(part) < 10 for part in parts):
        raise UsageError(f"{option('pattern', given)}: give N:M, such as 2:4")
    return Pattern(int(parts[0]), int(parts[1]))


def tell_resizing(dataset: Dataset, network: Network, asked: tuple[int, ...] | None) -> None:
    """Warn that examples of a program's own are resized to what an architecture usually takes, where no shape was `asked`
    for: most networks take them as they are, and give other scores for them.
    """
    taken = network.input_shape
    if asked is not None or taken is None or len(taken) != 3 or getattr(dataset, "input_shape", None) is not None:
        return
    if dataset.shape[1:] != taken[1:]:
        have, made = ("x".join(map(str, sides)) for sides in (dataset.shape, taken))
        own = ",".join(map(str, (taken[0], *dataset.shape[1:])))
        warn(
            f"{dataset.name}: {have} made {made}, as the names and shapes of the network are those of one for that size; "
            f"{option('input_shape', repr(own))} takes the size as it is"
        )
