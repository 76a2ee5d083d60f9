"""The names of a mask's parameters in a checkpoint or network, which may have others for the same tensors.

A tensor may have several names (tied weights), of which a file keeps one or all, and a wrapper may stand before every name,
here or there.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from operator import add
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from pai_cli.files.stored_names import ORIGINAL

if TYPE_CHECKING:
    import numpy as np

    from pai_cli.files.masks import Mask
    from pai_cli.files.tensors import Span

KEY = "aliases"
"""The mask file's metadata: a JSON object from names of masks to the other names of their parameters."""

WEIGHT = ".weight"

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
    `x`, and a module's name that of its weight. Where no name is there, but each is behind one prefix, or without one that
    all have, it is that of a wrapper. A name that is not there at all has none, nor has one that could be of several
    tensors, behind one prefix or another, or of one that another name is of.
    """
    search = _Search(names, there, _groups(several))
    as_they_are = search.found(str)
    if any(as_they_are.values()) or not as_they_are:
        return as_they_are
    first = next(iter(as_they_are))
    endings = [f".{ending}" for ending in spellings(first)]
    prefixes = dict.fromkeys(
        one.removesuffix(ending) + "." for one in there for ending in endings if one.endswith(ending)
    )
    behind = [found for prefix in prefixes if (found := search.found(partial(add, prefix), whole=True))]
    if behind:
        return behind[0] if len({search.tensors(found) for found in behind}) == 1 else as_they_are
    for at in (place for place, letter in enumerate(first, 1) if letter == "."):
        if within := search.found(partial(_without, first[:at]), whole=True):
            return within
    return as_they_are


class _Search:
    """Of names, each with the others of its tensor, as which they are `there`."""

    def __init__(self, names: Iterable[str], there: Collection[str], together: Mapping[str, list[str]]):
        self._every = {name: (name, *(one for one in together.get(name, ()) if one != name)) for name in names}
        self._there, self._together = there, together

    def found(self, called: Callable[[str], str], *, whole: bool = False) -> dict[str, tuple[str, ...]]:
        """Each as it is `called`; `whole`: {} where one is not there."""
        found: dict[str, tuple[str, ...]] = {}
        for name, ones in self._every.items():
            found[name] = _there([one for one in map(called, ones) if one], self._there)
            if whole and not found[name]:
                return {}
        of = {called(name): self._tensor(name) for name in found}
        for name, ones in found.items():
            for one in ones:
                if of.setdefault(one, self._tensor(name)) != self._tensor(name):
                    found[name] = ()
        return found if not whole or all(found.values()) else {}

    def tensors(self, found: Mapping[str, tuple[str, ...]]) -> tuple[str, ...]:
        """The tensors that were found, each by the first of its names."""
        return tuple(self._tensor(ones[0]) for ones in found.values())

    def _tensor(self, name: str) -> str:
        return self._together.get(name, [name])[0]


def _without(prefix: str, name: str) -> str:
    """The name without the prefix; one without it is none."""
    return name[len(prefix) :] if name.startswith(prefix) else ""


def _there(names: Sequence[str], there: Collection[str]) -> tuple[str, ...]:
    """Those of the names that are there, each as it is spelled there; their weights where none is."""

    def found(ending: str) -> tuple[str, ...]:
        every = ([one for one in _halves(name + ending) if one in there] for name in names)
        return tuple(ones[0] for ones in every if ones)

    return found("") or found(WEIGHT)


def spellings(name: str) -> tuple[str, ...]:
    """The name with, and without, what torch.nn.utils.prune adds; and where it is a module's, its weight's."""
    return *_halves(name), *_halves(name + WEIGHT)


def _halves(name: str) -> tuple[str, str]:
    return name, name.removesuffix(ORIGINAL) if name.endswith(ORIGINAL) else name + ORIGINAL


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


def called_there(names: Iterable[str], there: Collection[str]) -> dict[str, str]:
    """What each name is called there; itself, where it is not there at all."""
    return {name: (found or (name,))[0] for name, found in located(names, there).items()}


def spread(
    masks: Mapping[str, Any], metadata: Mapping[str, str], there: Collection[str], *aliases: Aliases
) -> dict[str, Any]:
    """Masks under every name that their parameters have there; under its own where a parameter is not there at all."""
    found = located(masks, there, told_aliases(metadata), *aliases)
    return {name: masks[own] for own in masks for name in (found[own] or (own,))}


def names_of(mask: Mask, weights: Weights) -> dict[str, str]:
    """What a mask calls its parameters, by each of their names in the checkpoint; its own where one is not there at all."""
    return spread({name: name for name in mask.names}, mask.metadata, weights.shapes, weights.aliases)
