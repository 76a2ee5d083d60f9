"""How the elements of an unrolled network are joined to those before and after them: what of it leads nowhere.

Cunegatti, Farina, Bucur, Iacca, "Understanding Sparse Neural Networks from their Topology via Multipartite Graph
Representations", TMLR 2024. A node is an element of the input or of what a layer gives, an edge a kept weight between two at
one position. Where a layer reads several at one place, as after a pooling or an addition, its weight is an edge from each.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod

from pai_cli.models.unrolled.folded import Array, Folded, aligned
from pai_cli.models.unrolled.kept import Kept
from pai_cli.models.unrolled.passes import backwards, forwards
from pai_cli.models.unrolled.steps import Use
from pai_cli.models.unrolled.tape import Tape


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


def loose(tape: Tape, kept: Mapping[str, Kept]) -> Loose:
    """Counted by one pass forwards and one back."""
    into = {0: Folded.constant(tape.shapes[0], 0)}  # by the number of what is the input or what a layer gives
    out = {}

    def through(use: Use, value: Folded) -> Folded:
        node = use.outputs[0]
        into[node] = use.apply(value, kept[use.layer.name].ones, tape.shapes[node])
        return Folded.constant(tape.shapes[node], 1)

    def back(use: Use, given: Folded) -> Folded:
        node = use.outputs[0]
        out[node] = given
        ones = Folded.constant(tape.shapes[node], 1)
        return use.back(ones, kept[use.layer.name].ones, tape.shapes[use.inputs[0]])

    forwards(tape, Folded.constant(tape.shapes[0], 1), through, lambda step, values: step.apply(values))
    out[0] = backwards(tape, {}, back)
    last = {use.outputs[0] for use in tape.uses if use.layer.name in tape.last}
    counts = dict.fromkeys(("sinks", "sources", "disconnected", "into_sinks", "out_of_sources"), 0)
    for number, edges in into.items():
        one, other = aligned([edges, out[number]])
        before, after, often = one.values, other.values, one.counts
        sink, source = (before > 0) & (after == 0), (before == 0) & (after > 0)
        counts["disconnected"] += _total((before == 0) & (after == 0), often)
        if number > 0:
            counts["sources"] += _total(source, often)
            counts["out_of_sources"] += _total(after * source, often)
        if number not in last:
            counts["sinks"] += _total(sink, often)
            counts["into_sinks"] += _total(before * sink, often)
    nodes = sum(prod(tape.shapes[number]) for number in into)
    return Loose(nodes, sum(_total(one.values, one.counts) for one in into.values()), **counts)


def _total(values: Array, often: Array) -> int:
    """Of the whole tensor: whole numbers, which float64 adds up exactly below 2**53."""
    return int((values * often).sum())
