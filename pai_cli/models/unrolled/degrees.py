"""How the elements of an unrolled network are joined to those before and after them: what of it leads nowhere.

Cunegatti, Farina, Bucur, Iacca, "Understanding Sparse Neural Networks from their Topology via Multipartite Graph
Representations", TMLR 2024. A node is an element of the input or of what a layer gives, an edge a kept weight between two at
one position. Where a layer reads several at one place, as after a pooling or an addition, its weight is an edge from each.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from pai_cli.models.unrolled.steps import Use
from pai_cli.models.unrolled.tape import Tape

EXACT = 2**24  # below which float32 holds every whole number


@dataclass(frozen=True)
class Loose:
    """What of a network's `nodes` and `edges` leads nowhere, counted.

    `sinks`: nodes with edges into them and none out, but for those of the layers that give the output. `sources`: with edges
    out and none into them, but for the network's input. `disconnected`: with neither. `into_sinks`, `out_of_sources`: those
    nodes' edges, which could be taken away and change nothing.
    """

    nodes: int
    edges: int
    sinks: int
    sources: int
    disconnected: int
    into_sinks: int
    out_of_sources: int


def loose(tape: Tape, masks: Mapping[str, NDArray[np.bool_]]) -> Loose:
    """Counted by one pass forwards and one back. `masks`: of layers by name; others are whole."""
    for kind in (torch.float32, torch.float64):
        into, out = _degrees(tape, masks, kind)
        if max((float(one.max()) for one in (*into, *out) if one.numel()), default=0.0) < EXACT:
            break
    last = [False, *(use.layer.name in tape.last for use in tape.uses)]
    counts = dict.fromkeys(("sinks", "sources", "disconnected", "into_sinks", "out_of_sources"), 0)
    for number, (before, after) in enumerate(zip(into, out, strict=True)):
        sink, source = (before > 0) & (after == 0), (before == 0) & (after > 0)
        counts["disconnected"] += _count((before == 0) & (after == 0))
        if number > 0:
            counts["sources"] += _count(source)
            counts["out_of_sources"] += _total(after[source])
        if not last[number]:
            counts["sinks"] += _count(sink)
            counts["into_sinks"] += _total(before[sink])
    return Loose(sum(one.numel() for one in into), sum(map(_total, into)), **counts)


def _degrees(
    tape: Tape, masks: Mapping[str, NDArray[np.bool_]], kind: torch.dtype
) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    """Edges into and out of the nodes: of the input, then of what each use of a layer gives."""
    nodes, into, made = [_ones(torch.empty(tape.shapes[0], dtype=kind))], [torch.zeros(tape.shapes[0], dtype=kind)], []
    values: dict[int, torch.Tensor] = {0: nodes[0]}
    with torch.enable_grad():
        for number, step in enumerate(tape.steps):
            given = [values[one] for one in step.inputs]
            found: list[Any]
            if isinstance(step, Use):
                mask = masks.get(step.layer.name)
                kept = np.ones(step.layer.shape, np.bool_) if mask is None else mask
                made.append(step.multiply(given[0], torch.from_numpy(kept.astype(np.float32)).to(kind)))
                into.append(made[-1].detach())
                nodes.append(_ones(made[-1]))
                found = nodes[-1:]
            else:
                found = step.apply(given)
            values.update(zip(step.outputs, found, strict=True))
            for over in tape.over_after.get(number, ()):
                del values[over]
        total = sum((one.sum() for one in made if one.requires_grad), torch.zeros((), dtype=kind))
    got: tuple[torch.Tensor | None, ...] = (None,) * len(nodes)
    if total.requires_grad:
        got = torch.autograd.grad(total, nodes, allow_unused=True)
    out = [torch.zeros_like(node) if one is None else one for node, one in zip(nodes, got, strict=True)]
    return into, [one.detach() for one in out]


def _ones(like: torch.Tensor) -> torch.Tensor:
    return torch.ones_like(like, requires_grad=True)


def _count(flags: torch.Tensor) -> int:
    return int(flags.sum())


def _total(numbers: torch.Tensor) -> int:
    return int(numbers.double().sum())
