"""What comes into the matrices of a language model's block while it runs: of modules, and of experts in one tensor."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from pai_cli.models.language import Block, LanguageModel, Slot
from pai_cli.models.stream import Stream
from pai_cli.pruning.matrices import Inputs

if TYPE_CHECKING:
    from pai_cli.pruning.base import InputsOf

LINEAR = torch.nn.functional.linear
PRODUCTS = frozenset(
    [LINEAR, torch.matmul, torch.Tensor.matmul, torch.mm, torch.Tensor.mm, torch.bmm, torch.Tensor.bmm]
)
"""What multiplies inputs by experts, one or all of them; `linear` by (outputs, inputs), the others by (inputs, outputs)."""


def inputs_of(
    model: LanguageModel,
    block: Block,
    stream: Stream,
    what: InputsOf,
    device: str,
    *,
    keep: bool,
    step: Callable[[], None] = lambda: None,
) -> dict[Slot, Inputs]:
    """What comes into each matrix of a block, which is in memory, as it runs; with `keep`, the stream goes on past it.

    Of experts whose inputs cannot be told with certainty, `doubt` says why. Raises `ScoreError`.
    """
    found = {slot: Inputs.none_yet(model.matrix(slot), what) for slot in block.slots}
    with _taking_in(model, found):
        stream.through(model, block, device, keep=keep, step=step)
    return found


@contextmanager
def _taking_in(model: LanguageModel, found: Mapping[Slot, Inputs]) -> Iterator[None]:
    """Inside, what modules and experts are given is added to what is found of their matrix."""
    stacks: dict[str, _Stack] = {}
    with ExitStack() as stack:
        for slot, inputs in found.items():
            path = slot.parameter.rpartition(".")[0]
            if slot.index:
                tensor = model.network.get_parameter(slot.parameter)
                own = stacks.setdefault(slot.parameter, _Stack(tensor, transposed=slot.layer.layout.transposed))
                number = slot.index[0]
                assert isinstance(number, int)
                own.experts[number].append(inputs)
                continue

            def add(_module: Any, args: tuple[torch.Tensor, ...], inputs: Inputs = inputs) -> None:
                inputs.add(args[0])

            stack.callback(model.network.get_submodule(path).register_forward_pre_hook(add).remove)
        mixtures: dict[str, _Mixture] = {}
        for name, own in stacks.items():
            mixtures.setdefault(name.rpartition(".")[0], _Mixture()).stacks.append(own)
        for path, mixture in mixtures.items():
            stack.callback(mixture.watch(model.network.get_submodule(path)))
        if mixtures:
            stack.enter_context(_ExpertsInputs(mixtures.values()))
        yield
    for mixture in mixtures.values():
        mixture.check()


class _Stack:
    """A tensor of experts while its block runs. `experts`: what is found of each, several where parts of it are matrices by
    themselves; `doubt`: why that is not what came in, "" where it is.
    """

    def __init__(self, tensor: torch.Tensor, *, transposed: bool):
        self.tensor = tensor
        self.transposed = transposed
        self.experts: list[list[Inputs]] = [[] for _ in tensor]
        self.doubt = ""

    @property
    def memory(self) -> int:
        """Where its numbers begin, whatever view of it is taken."""
        return self.tensor.untyped_storage().data_ptr()

    @property
    def tokens(self) -> list[int]:
        """How many came to each expert."""
        return [max((inputs.tokens for inputs in some), default=0) for some in self.experts]

    def placed(self, matrix: torch.Tensor) -> range | None:
        """Which experts a matrix (inputs, outputs), or a batch of such, is; None where it is none of them, but a part."""
        own, count = self.tensor if self.transposed else self.tensor.transpose(1, 2), len(self.tensor)
        number, rest = divmod(int(matrix.storage_offset()) - int(own.storage_offset()), own.stride(0))
        if (matrix.shape[-2:], matrix.stride()[-2:]) != (own.shape[1:], own.stride()[1:]) or rest:
            return None
        if matrix.dim() == 2:
            return range(number, number + 1)
        return range(count) if (len(matrix), matrix.stride(0), matrix.dim()) == (count, own.stride(0), 3) else None

    def add(self, number: int, inputs: torch.Tensor) -> None:
        """Take in what one expert is given, (..., inputs)."""
        for one in self.experts[number] if inputs.numel() else ():
            one.add(inputs)


class _Mixture:
    """The experts' tensors of one module, which are multiplied one after the other each time it runs."""

    def __init__(self) -> None:
        self.stacks: list[_Stack] = []
        self._sent: torch.Tensor | None = None
        self._routed: torch.Tensor | None = None

    def watch(self, module: nn.Module) -> Callable[[], None]:
        """Count what the router sends to each expert, where the module is given that; what ends it."""
        return module.register_forward_pre_hook(self._begin, with_kwargs=True).remove

    def _begin(self, _module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self._routed = None
        given = [one for one in (*args, *kwargs.values()) if isinstance(one, torch.Tensor) and _is_index(one)]
        if len(given) == 1:  # (tokens, experts a token): which
            count = len(self.stacks[0].experts)
            numbers = given[0].reshape(-1)
            sent = torch.bincount(numbers[(numbers >= 0) & (numbers < count)], minlength=count)
            self._sent = sent if self._sent is None else self._sent + sent

    def multiplied(self, stack: _Stack, left: Any, right: torch.Tensor) -> None:
        """Take in the left side of a product with experts, right: (inputs, outputs), or all of them in a batch."""
        experts = stack.placed(right)
        if experts is None:
            stack.doubt = "is multiplied otherwise than expert by expert, from the side of its inputs"
        elif right.dim() == 2:
            stack.add(experts[0], left)
        elif left.dim() != 3 or len(left) != len(experts):
            self._doubt_all()
        else:
            self._batch(stack, left)

    def _batch(self, stack: _Stack, left: torch.Tensor) -> None:
        """All experts at once, (experts, tokens, inputs): what the router does not send to one is 0 there."""
        here = left.ne(0).any(-1)
        if self._routed is None:
            self._routed = here
            if len(left) > 1 and bool(here.all()):
                self._doubt_all()
        elif here.shape != self._routed.shape or bool((here & ~self._routed).any()):
            stack.doubt = "its experts are given something of tokens that are not sent to them"
        for number, routed in enumerate(self._routed if not stack.doubt else ()):
            stack.add(number, left[number, routed])

    def _doubt_all(self) -> None:
        """Which tokens count at all is told afterwards, if at all; of what the outputs go into no less."""
        for stack in self.stacks:
            stack.doubt = stack.doubt or "each of its experts is given all tokens"

    def check(self) -> None:
        """See that each expert got every token that was sent to it, once; else the inputs found are in doubt."""
        sure = [stack for stack in self.stacks if not stack.doubt]
        found = [stack.tokens for stack in sure]
        if self._sent is not None:
            found.append(self._sent.tolist())
        doubt = ""
        differing = [(number, counts) for number, counts in enumerate(zip(*found, strict=True)) if len({*counts}) > 1]
        if differing:
            number, counts = differing[0]
            doubt = f"expert {number} gets {min(counts):,} tokens by one count, and {max(counts):,} by another"
        elif self._sent is None and not any(map(any, found)):
            doubt = "nothing is seen to be multiplied by its experts"
        for stack in self.stacks:
            for inputs in (one for some in stack.experts for one in some):
                inputs.doubt = stack.doubt or doubt


def _is_index(tensor: torch.Tensor) -> bool:
    return tensor.dim() == 2 and tensor.dtype in (torch.int64, torch.int32)


class _ExpertsInputs(TorchFunctionMode):
    """Experts have no module: what is done with their tensors is seen at each function of torch, by their place in memory.

    Views are followed, and products taken in; whatever else reads a tensor puts it in doubt.
    """

    def __init__(self, mixtures: Iterable[_Mixture]):
        super().__init__()
        self._found = {stack.memory: (mixture, stack) for mixture in mixtures for stack in mixture.stacks}

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = (*args, *(kwargs or {}).values())
        result = func(*args, **(kwargs or {}))
        for memory in {*map(_memory, _tensors(given))} & self._found.keys():
            mixture, stack = self._found[memory]
            if func in PRODUCTS and _memory(given[1]) == memory and _memory(given[0]) != memory:
                left, right = given[:2]
                mixture.multiplied(stack, left, right.transpose(-1, -2) if func is LINEAR else right)
            elif any(_memory(one) != memory for one in _tensors((result,))):
                stack.doubt = f"{getattr(func, '__name__', 'something')} reads it otherwise than expert by expert"
        return result


def _tensors(given: Sequence[Any]) -> Iterator[torch.Tensor]:
    """Tensors among arguments, and in lists among them."""
    for one in given:
        if isinstance(one, torch.Tensor):
            yield one
        elif isinstance(one, tuple | list):
            yield from _tensors(one)


def _memory(tensor: torch.Tensor) -> int:
    return tensor.untyped_storage().data_ptr()
