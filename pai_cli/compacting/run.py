"""A smaller network that gives what the masked one gives: followed, chosen, cut, and compared before anyone has it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import nn

from pai_cli.compacting.checking import EXACT, FAR, Difference, difference, random_inputs, seconds
from pai_cli.compacting.choosing import Choice, Chooser
from pai_cli.compacting.cutting import Attributes, can_add_bias, cut, why_whole
from pai_cli.compacting.following import ChannelFollower, follow
from pai_cli.errors import CompactError
from pai_cli.files.messages import one_line
from pai_cli.models.copies import copied, failed_on, remove
from pai_cli.progress import Progress, silent
from pai_cli.pruning.base import Masks
from pai_cli.spelling import option

ELSEWHERE = "the network uses their weights in another way too"

Pair = tuple[int, int]
"""A number before and after."""


@dataclass(frozen=True, eq=False)
class CompactRequest:
    """What to compact, and how to look at the result.

    `masks`: by parameter name. `input_shape`: of one sample. `given`: inputs to compare on beside random ones, or None.
    `batch`, `runs`, `device`: of the timing. `called`: the network in messages.
    """

    model: nn.Module
    masks: Masks
    input_shape: tuple[int, ...]
    called: str
    given: torch.Tensor | None = None
    seed: int = 0
    batch: int = 16
    runs: int = 7
    device: str = "cpu"


@dataclass(frozen=True)
class LayerSizes:
    """One layer before and after: output channels, input channels, parameters (weight and bias), multiply-adds of one
    sample; and how many dead channels it keeps for which reason.
    """

    name: str
    outputs: Pair
    inputs: Pair
    parameters: Pair
    macs: Pair
    dead_kept: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Compacted:
    """A smaller network, and what it was compared by.

    `model`: it, on the CPU, in evaluation mode, in the precision of the given one. `attributes`: by module, attributes that
    are others than in the given network, such as `groups`. `layers`: each before and after. `parameters`, `macs`: of the
    whole network, before and after; multiply-adds are of one sample, in convolutions and linear layers. `seconds`: the
    median time of a batch of `batch` over `runs` runs, before and after, on `device`. `exact`: the largest difference
    of outputs in float64 and the largest output, on `samples` inputs; `rounded`: in the network's own precision.
    """

    model: nn.Module
    attributes: Attributes
    layers: tuple[LayerSizes, ...]
    parameters: Pair
    macs: Pair
    seconds: tuple[float, float]
    batch: int
    runs: int
    device: str
    exact: Difference
    rounded: Difference
    samples: int

    @property
    def removed(self) -> int:
        """How many output channels are gone."""
        return sum(one.outputs[0] - one.outputs[1] for one in self.layers)

    @property
    def dead_kept(self) -> dict[str, int]:
        """How many dead channels are kept, by the reason, those of most channels first."""
        found: Counter[str] = Counter()
        for one in self.layers:
            found.update(one.dead_kept)
        return dict(found.most_common())


def compact(request: CompactRequest, progress: Progress = silent) -> Compacted:
    """Remove dead channels; the network that is given stays as it is.

    Raises `CompactError` where no output depends on the input or the smaller network would give something else,
    `TraceError` where channels cannot be followed, `MethodOptionError` where the network fails on such an input.
    """
    first = next(request.model.parameters())
    with torch.no_grad():
        masked = copied(request.model).cpu().eval().requires_grad_(False)
        remove(dict(masked.named_parameters(remove_duplicate=False)), request.masks)
        big = copied(masked).double()
    progress(0, 3, "following")
    found = follow(big, request.input_shape)
    if found.constant:
        raise CompactError(
            f"{request.called}: no output depends on the input, as the mask cuts every path: the network is a constant; "
            f"give a mask of a larger {option('density')}"
        )
    progress(1, 3, "choosing")
    chooser = _chooser(big, found.follower)
    batches = _batches(big, request)
    progress(2, 3, "comparing")
    choice, small, attributes, exact = _cut_and_compared(request.called, big, found.follower, chooser, batches)
    _in_own_precision(small, request.model, first.dtype)
    for name, parameter in request.model.named_parameters():
        small.get_parameter(name).requires_grad_(parameter.requires_grad)
    own = [batch.to(first.dtype) for batch in batches]
    rounded = difference(masked, small, own)
    size = min(request.batch, *(len(batch) for batch in batches)) if len(batches[0]) == 1 else request.batch
    times = _times(masked, small, request, size, progress)
    return Compacted(
        model=small,
        attributes=attributes,
        layers=_sizes(big, small, found.follower, choice),
        parameters=(_count(big), _count(small)),
        macs=(_macs(big, found.follower), _macs(small, found.follower)),
        seconds=(times[0], times[1]),
        batch=size,
        runs=request.runs,
        device=request.device,
        exact=exact,
        rounded=rounded,
        samples=sum(map(len, batches)),
    )


def _in_own_precision(small: nn.Module, model: nn.Module, otherwise: torch.dtype) -> None:
    """Every tensor in the precision of the given network's, where it has one of this name; a new bias as its weight."""
    given = {name: one.dtype for name, one in (*model.named_parameters(), *model.named_buffers())}
    for prefix, module in small.named_modules():
        for leaf, one in (*module._parameters.items(), *module._buffers.items()):
            if one is not None and one.is_floating_point():
                names = (f"{prefix}.{other}".removeprefix(".") for other in (leaf, "weight"))
                one.data = one.data.to(next((given[name] for name in names if name in given), otherwise))


def _chooser(model: nn.Module, found: ChannelFollower) -> Chooser:
    biases = {use.layer.name: use.bias for use in found.uses}
    weights = {name: model.get_parameter(name).detach().numpy() for name in biases}
    can_add = {name for name, bias in biases.items() if (found.read_once(bias) if bias else can_add_bias(model, name))}
    reasons = {
        use.layer.name: ELSEWHERE if found.read_elsewhere(use.layer.name) else why_whole(model, use.layer)
        for use in found.uses
    }
    return Chooser(found, weights, can_add, {name: why for name, why in reasons.items() if why})


def _batches(model: nn.Module, request: CompactRequest) -> list[torch.Tensor]:
    """The inputs on which networks are compared: as batches, or where the network takes only one at a time, one by one.

    Raises `CompactError` where it takes none.
    """
    batches = [random_inputs(request.input_shape, request.seed)]
    if request.given is not None:
        batches.append(request.given.double())
    single = [one for batch in batches for one in torch.split(batch, 1)]
    for tried in (batches, single):
        try:
            with torch.no_grad():
                model(tried[-1].clone())
            return tried
        except Exception as error:
            failure = f"{request.called}: {failed_on(tried[-1], error)}"
    raise CompactError(f"{failure}; give the shape of one input with {option('input_shape')}")


def _cut_and_compared(
    called: str, big: nn.Module, found: ChannelFollower, chooser: Chooser, batches: Sequence[torch.Tensor]
) -> tuple[Choice, nn.Module, Attributes, Difference]:
    """The smaller network; where the code of the first one fails, one that keeps what passes a change of shape."""
    failure = ""
    for reshaped in (True, False):
        choice = chooser.choose(reshaped=reshaped)
        small = copied(big)
        attributes = cut(small, found, choice)
        try:
            exact = difference(big, small, batches)
            far = difference(big, small, [FAR * batches[0]])
        except Exception as error:
            failure = f"{called}: its code goes by numbers of channels, and fails with fewer ({one_line(error)})"
            continue
        if not exact.finite:
            raise CompactError(
                f"{called}: gives NaN or infinity alone with this mask, so no smaller network can be compared with it; give "
                "another mask, or a network that gives numbers"
            )
        worst = max(exact, far, key=lambda one: one.relative)
        if worst.relative <= EXACT:
            return choice, small, attributes, exact
        if difference(big, big, batches).relative > EXACT:
            raise CompactError(
                f"{called}: gives other outputs whenever it runs, so no smaller network can be compared with it: "
                f"{found.draws or 'what it keeps changes'}, also in evaluation mode; let that be in training mode alone "
                "(if self.training, F.dropout(..., training=self.training))"
            )
        failure = (
            f"{called}: without its dead channels its outputs differ by {worst.difference:.3g}, where the largest is "
            f"{worst.output:.3g}: something in it cannot be followed; it cannot be compacted"
        )
    raise CompactError(failure)


def _times(
    masked: nn.Module, small: nn.Module, request: CompactRequest, size: int, progress: Progress
) -> Sequence[float]:
    dtype = next(small.parameters()).dtype
    batch = random_inputs(request.input_shape, request.seed, size).to(request.device, dtype)
    there = copied(masked).to(request.device), copied(small).to(request.device)
    return seconds(there, batch, request.runs, progress)


def _sizes(big: nn.Module, small: nn.Module, found: ChannelFollower, choice: Choice) -> tuple[LayerSizes, ...]:
    positions: Counter[str] = Counter()
    for use in found.uses:
        positions[use.layer.name] += use.positions
    sizes = []
    for use in {use.layer.name: use for use in found.uses}.values():
        name = use.layer.name
        rows, columns = choice.units[name], choice.places[name]
        weights = big.get_parameter(name).numel(), small.get_parameter(name).numel()
        owner = name.rpartition(".")[0]
        biases = [0 if one is None else one.numel() for one in (_bias(net, owner, use.bias) for net in (big, small))]
        sizes.append(
            LayerSizes(
                name,
                (len(rows), int(rows.sum())),
                (len(columns), int(columns.sum())),
                (weights[0] + biases[0], weights[1] + biases[1]),
                (weights[0] * positions[name], weights[1] * positions[name]),
                dict(choice.dead_kept[name].most_common()),
            )
        )
    return tuple(sizes)


def _bias(model: nn.Module, owner: str, name: str | None) -> torch.Tensor | None:
    """The bias of a layer, also one that was given to it when it became smaller."""
    return model.get_parameter(name) if name is not None else model.get_submodule(owner)._parameters.get("bias")


def _count(model: nn.Module) -> int:
    return sum(one.numel() for one in model.parameters())


def _macs(model: nn.Module, found: ChannelFollower) -> int:
    return sum(model.get_parameter(use.layer.name).numel() * use.positions for use in found.uses)
