"""The names of a mask's parameters in a checkpoint or network, which may have others for the same tensors.

A tensor may have several names (tied weights), of which a file keeps one or all, and a wrapper may stand before every name,
here or there.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from pai_cli.files.stored_names import ORIGINAL

if TYPE_CHECKING:
    import numpy as np

    from pai_cli.files.tensors import Span

KEY = "aliases"
"""The mask file's metadata: a JSON object from names of masks to the other names of their parameters."""

Aliases = Mapping[str, tuple[str, ...]]


class Weights(Protocol):
    """What is asked of a checkpoint, wherever its bytes are."""

    @property
    def path(self) -> Path:
        """Where it was read from."""

    @property
    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        """Shape of every tensor."""

    @property
    def aliases(self) -> Aliases:
        """The other names of tensors that have several."""

    def finite_array(self, name: str) -> np.ndarray:
        """One tensor; raises what keeps it from being weights."""


def story_of(aliases: Aliases) -> dict[str, str]:
    """What a mask file tells of the other names; {} for none."""
    told = {name: list(others) for name, others in aliases.items()}
    return {KEY: json.dumps(told, separators=(",", ":"))} if told else {}


def told_aliases(metadata: Mapping[str, str]) -> dict[str, tuple[str, ...]]:
    """What `story_of` wrote; a note that makes no sense is as good as none."""
    try:
        told: Any = json.loads(metadata.get(KEY, "{}"))
    except (ValueError, RecursionError):
        return {}
    if not isinstance(told, dict):
        return {}
    return {
        name: tuple(others)
        for name, others in told.items()
        if isinstance(others, list) and all(isinstance(other, str) for other in others)
    }


def located(names: Iterable[str], there: Collection[str], *several: Aliases) -> dict[str, tuple[str, ...]]:
    """Under which names parameters are `there`: of each its own, and those that are of the same tensor.

    `several`: the other names of tensors, as a mask or a checkpoint tells them. What torch.nn.utils.prune calls `x_orig` is
    `x`. Where no name is there, but each is behind one prefix, or without one that all have, it is that of a wrapper. A name
    that is not there at all has none.
    """
    together = _groups(several)
    every = {name: (_half(name, there), *(one for one in together.get(name, ()) if one != name)) for name in names}
    found = {name: tuple(one for one in ones if one in there) for name, ones in every.items()}
    if any(found.values()) or not every:
        return found
    first = next(iter(every))
    for one in there:
        prefix = one.removesuffix(first)
        if one.endswith(f".{first}") and all(any(prefix + alias in there for alias in ones) for ones in every.values()):
            return {name: tuple(prefix + one for one in ones if prefix + one in there) for name, ones in every.items()}
    for at in (place for place, letter in enumerate(first, 1) if letter == "."):
        prefix = first[:at]
        inner = {name: tuple(_inner(ones, prefix, there)) for name, ones in every.items()}
        if all(inner.values()):
            return inner
    return found


def _half(name: str, there: Collection[str]) -> str:
    """The name, or where only that is there, the one that it has with or without a mask of torch.nn.utils.prune."""
    other = name.removesuffix(ORIGINAL) if name.endswith(ORIGINAL) else name + ORIGINAL
    return other if other in there and name not in there else name


def _inner(names: Iterable[str], prefix: str, there: Collection[str]) -> Iterator[str]:
    """Of the names that begin so those that are there without it."""
    yield from (one[len(prefix) :] for one in names if one.startswith(prefix) and one[len(prefix) :] in there)


def _groups(several: Iterable[Aliases]) -> dict[str, list[str]]:
    """Of each name that is one of several, all of them."""
    groups: dict[str, list[str]] = {}
    for aliases in several:
        for name, others in aliases.items():
            members = dict.fromkeys(one for alias in (name, *others) for one in groups.get(alias, [alias]))
            groups |= {one: list(members) for one in members}
    return groups


@dataclass(frozen=True)
class Matched:
    """A checkpoint under the names of a mask's parameters, where it has those under others. See `Weights`."""

    weights: Weights
    names: Mapping[str, str]

    @property
    def path(self) -> Path:
        """Where it was read from."""
        return self.weights.path

    @property
    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        """Shape of every tensor, and of those by their other names."""
        theirs = {name: self.weights.shapes[other] for name, other in self.names.items()}
        return {**self.weights.shapes, **theirs}

    @property
    def aliases(self) -> Aliases:
        """The other names of tensors that have several."""
        return self.weights.aliases

    def finite_array(self, name: str) -> np.ndarray:
        """One tensor; raises what keeps it from being weights."""
        return self.weights.finite_array(self.names.get(name, name))

    def span_of(self, name: str) -> Span | None:
        """Where one tensor's bytes stand; None where that is not known."""
        return span_of(self.weights, self.names.get(name, name))


def span_of(weights: Weights, name: str) -> Span | None:
    """Where the bytes of one tensor of a checkpoint stand; None of one that is not in a file as it is."""
    asked: Callable[[str], Span | None] | None = getattr(weights, "span_of", None)
    return None if asked is None else asked(name)


def matched(names: Iterable[str], metadata: Mapping[str, str], weights: Weights) -> Weights:
    """The checkpoint, where some of a mask's names are not its own under those of the mask as well."""
    missing = [name for name in names if name not in weights.shapes]
    if not missing:
        return weights
    found = located(names, weights.shapes, told_aliases(metadata), weights.aliases)
    return Matched(weights, {name: found[name][0] for name in missing if found[name]})


def spread(
    masks: Mapping[str, Any], metadata: Mapping[str, str], there: Collection[str], *aliases: Aliases
) -> dict[str, Any]:
    """Masks under every name that their parameters have there; under its own where a parameter is not there at all."""
    found = located(masks, there, told_aliases(metadata), *aliases)
    return {name: masks[own] for own in masks for name in (found[own] or (own,))}
