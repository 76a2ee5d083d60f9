"""What runs through the blocks of a language model, one of which is in memory at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from typing import Any, NoReturn

import torch
from torch import nn

from pai_cli.errors import ModelFactoryError, ScoreError
from pai_cli.files.messages import one_line
from pai_cli.models.language import Block, LanguageModel

Take = Callable[[torch.Tensor], None]
Given = tuple[tuple[Any, ...], Mapping[str, Any]]
"""What a network gives a block beside its inputs, by place and by name."""


@dataclass
class Stream:
    """What runs through the blocks: `hidden` (sequences, tokens, width), the inputs of the next block, on the CPU. `beside`:
    what the network gives each block beside them, by its path. `places`: how many there are in the tuple that a block gives,
    0 where it gives none.
    """

    hidden: torch.Tensor
    beside: Mapping[str, Given]
    places: int = 0

    @torch.no_grad()
    def through(
        self, model: LanguageModel, block: Block, device: str, *, keep: bool, step: Callable[[], None] = lambda: None
    ) -> None:
        """Run a block, which is in memory, sequence by sequence; with `keep` its outputs take the place of its inputs.

        Raises `ScoreError` where the outputs are no such tensor, or not finite.
        """
        module = model.network.get_submodule(block.path)
        beside, named = self.beside[block.path]
        for number, one in enumerate(self.hidden):
            with _told(model):
                found = module(one[None].to(device), *beside, **named)
            self.places = len(found) if isinstance(found, tuple | list) else 0
            found = found[0] if self.places else found
            if getattr(found, "shape", None) != (1, *one.shape):
                raise ScoreError(
                    f"{block.path}: gives no tensor of the shape of its inputs; it cannot be run by itself"
                )
            if not bool(found.isfinite().all()):
                raise ScoreError(f"{block.path}: its outputs are not finite (sequence {number}); check the weights")
            if keep:
                one.copy_(found[0])
            step()


@contextmanager
def _told(model: LanguageModel) -> Iterator[None]:
    """What a network or a block stumbles over that is run as no language model is. Raises `ModelFactoryError`."""
    try:
        yield
    except (TypeError, ValueError, AttributeError, LookupError, RuntimeError) as e:
        if "memory" in str(e).lower():  # which is another matter
            raise
        raise _not_by_block(model, one_line(e)) from e


def _not_by_block(model: LanguageModel, why: str) -> ModelFactoryError:
    return ModelFactoryError(
        f"{model.checkpoint.path.parent}: {model.description}: cannot be run on tokens block by block ({why}); "
        "give a language model"
    )


class _Caught(Exception):  # noqa: N818  no error: what ends a run
    """What was looked for has come."""


@contextmanager
def _instead(model: LanguageModel, run: Callable[..., Any]) -> Iterator[None]:
    """Inside, this runs in the place of each block, given its number first."""
    modules = [model.network.get_submodule(block.path) for block in model.blocks]
    try:
        for number, module in enumerate(modules):
            module.forward = partial(run, number)
        yield
    finally:
        for module in modules:
            module.__dict__.pop("forward", None)


@torch.no_grad()
def stream_of(model: LanguageModel, tokens: torch.Tensor, device: str) -> Stream:
    """The inputs of the first block for sequences of tokens (sequences, length), int64.

    Raises `ModelFactoryError` where the network cannot be run, or its blocks are not run one on the outputs of the other.
    """
    hidden: torch.Tensor | None = None
    with model.in_memory(model.front, device):
        for number, sequence in enumerate(tokens):
            found = _given(model, sequence[None].to(device), 1)
            if not found:
                raise _not_by_block(model, "none of its blocks is run")
            inputs, _ = found[0]
            if hidden is None:
                hidden = torch.empty((len(tokens), *inputs.shape[1:]), dtype=inputs.dtype)
            hidden[number] = inputs[0].cpu()
        beside = _beside(model, tokens[-1:].to(device))
    assert hidden is not None
    return Stream(hidden, {block.path: given for block, given in zip(model.blocks, beside, strict=True)})


def _beside(model: LanguageModel, sequence: torch.Tensor) -> Sequence[Given]:
    """What each block is given beside its inputs, which for blocks of several kinds differs: masks, positions."""
    for places in range(3):  # what the network takes from a block: a tensor, or a tuple, which may have attention in it
        with suppress(ModelFactoryError):
            found = _given(model, sequence, len(model.blocks), places)
            if len(found) == len(model.blocks):
                return [given for _, given in found]
    raise _not_by_block(model, "its blocks are not run one after the other, each on what the one before gives")


def _given(
    model: LanguageModel, sequence: torch.Tensor, count: int, places: int = 0
) -> list[tuple[torch.Tensor, Given]]:
    """What the first blocks are given, inputs apart, where each passes its inputs on; fewer where these do not arrive."""
    found: list[tuple[torch.Tensor, Given]] = []

    def pass_on(number: int, *args: Any, **named: Any) -> Any:
        inputs, *rest = args or (named.pop("hidden_states"),)
        if number != len(found) or (found and not _same(inputs, found[0][0])):
            raise _Caught
        found.append((inputs.clone(), (tuple(rest), named)))  # what is changed in place afterwards is told apart
        if len(found) == count:
            raise _Caught
        return _as_output(inputs, places)

    with _instead(model, pass_on), suppress(_Caught), _told(model):
        model.network(input_ids=sequence, use_cache=False)
    return found


def _as_output(hidden: torch.Tensor, places: int) -> Any:
    """What a block would give, in a tuple of so many."""
    return (hidden, *[None] * (places - 1)) if places else hidden


def _same(one: Any, other: torch.Tensor) -> bool:
    return isinstance(one, torch.Tensor) and torch.equal(one, other)


@torch.no_grad()
def at_the_head(model: LanguageModel, stream: Stream, tokens: torch.Tensor, device: str, take: Take) -> None:
    """Give `take` what comes into the head, sequence by sequence, of a stream that is past the last block."""
    assert model.head is not None
    outputs: list[Any] = []

    def catch(_module: nn.Module, args: tuple[torch.Tensor, ...]) -> NoReturn:
        take(args[0])
        raise _Caught

    handle = model.network.get_submodule(model.head.parameter.rpartition(".")[0]).register_forward_pre_hook(catch)
    try:
        with _instead(model, lambda *_, **__: outputs[0]):  # what the last one gave, whatever comes in
            for sequence, hidden in zip(tokens, stream.hidden, strict=True):
                outputs[:] = [_as_output(hidden[None].to(device), stream.places)]
                with suppress(_Caught):
                    model.network(input_ids=sequence[None].to(device), use_cache=False)
    finally:
        handle.remove()
