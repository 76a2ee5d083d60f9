"""Experts of a mixture: matrices of a model's folder, or taken as such, and parts of a tensor in transformers' network."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from pai_cli.files.stacks import places_of

TYPES = frozenset(["mixtral", "olmoe", "qwen2_moe", "qwen3_moe"])
"""Model types whose folders have a matrix each."""

_EXPERT = re.compile(
    r"(?P<at>.*)\.(?:mlp|block_sparse_moe)\.experts\.(?P<number>[0-9]+)\."
    r"(?:(?P<gate>w1|gate_proj)|(?P<up>w3|up_proj)|(?P<down>w2|down_proj))\.weight"
)

Shape = tuple[int, ...]
Index = tuple[int | slice, ...]


@dataclass(frozen=True)
class Part:
    """What the folder calls a tensor, and where it stands in the network's parameter: () where it is all of it."""

    name: str
    index: Index = ()


class Joined(NamedTuple):
    """The network's parameters, and what they are made of: `parts` and `shapes` by the network's names."""

    parts: Mapping[str, tuple[Part, ...]]
    shapes: Mapping[str, Shape]


def joined(shapes: Mapping[str, Shape], kind: object, stacks: Mapping[str, Shape] | None = None) -> Joined:
    """A folder's tensors as the network of model type `kind` has them: gates above ups, expert after expert.

    `stacks`: shapes of tensors of experts that the folder has as the network does, and `shapes` as their parts.
    """
    places = places_of(stacks or {}, stacks or {})
    parts: dict[str, list[Part]] = {}
    found: dict[str, Shape] = {}
    for name, shape in shapes.items():
        if stacks and name in places:
            own, number = places[name]
            parts.setdefault(own, []).append(Part(name, (number, slice(0, shape[0]))))
            found[own] = stacks[own]
            continue
        match = _EXPERT.fullmatch(name) if kind in TYPES else None
        if match is None or len(shape) != 2:
            own = name.replace(".block_sparse_moe.", ".mlp.") if kind in TYPES else name
            parts[own], found[own] = [Part(name)], shape
            continue
        number, rows = int(match["number"]), shape[0]
        if match["down"]:
            own, place, height = f"{match['at']}.mlp.experts.down_proj", slice(0, rows), rows
        else:
            own, height = f"{match['at']}.mlp.experts.gate_up_proj", 2 * rows
            place = slice(0, rows) if match["gate"] else slice(rows, height)
        parts.setdefault(own, []).append(Part(name, (number, place)))
        found[own] = (max(number + 1, *found.get(own, (0,))[:1]), height, shape[1])
    return Joined({own: tuple(sorted(some, key=_order)) for own, some in parts.items()}, found)


def _order(part: Part) -> tuple[int, int]:
    """Expert after expert, the gate first."""
    if not part.index:
        return 0, 0
    number, rows = part.index
    assert isinstance(number, int)
    assert isinstance(rows, slice)
    return number, rows.start
