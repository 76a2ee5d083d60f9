"""Which kept weights lie on a path: marks, 0 or 1, sent through an unrolled network from both ends."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pai_cli.models.unrolled.folded import Array, Folded, aligned
from pai_cli.models.unrolled.kept import Flags, Kept, any_of
from pai_cli.models.unrolled.passes import backwards, forwards
from pai_cli.models.unrolled.steps import Fixed, Use, units_first
from pai_cli.models.unrolled.tape import Tape

MOST = 2**22  # weights of a layer, and bytes of their marks, that are looked at together


@dataclass(frozen=True, eq=False)
class Reached:
    """Of one layer, what paths of kept weights come to.

    `effective`: of the weight's shape, which kept weights are on a path from input to output. By units, each 1-D: `inputs`,
    whether a path from the network's input comes to it; `outputs`, whether a path from it leads to the network's output;
    `nodes`, whether an output is on a path from one to the other.
    """

    effective: Flags
    inputs: Flags
    outputs: Flags
    nodes: Flags


def reached(tape: Tape, kept: Mapping[str, Kept]) -> dict[str, Reached]:
    """Of every layer that the network uses, what paths come to.

    Marks go forwards from the input through kept weights, and backwards from the output. A weight is on a path where the
    element it reads was reached and the one it writes leads on, at one of its positions at least.
    """
    read: dict[int, Folded] = {}  # by the number of what the layer gives
    written: dict[int, Folded] = {}
    found: dict[str, Reached] = {}

    def through(use: Use, value: Folded) -> Folded:
        node = use.outputs[0]
        read[node] = _marked(value)
        written[node] = _marked(use.apply(read[node], kept[use.layer.name].ones, tape.shapes[node]))
        return written[node]

    def back(use: Use, given: Folded) -> Folded:
        node, name, alive = use.outputs[0], use.layer.name, _marked(given)
        one = _reached(use, read.pop(node), written.pop(node), alive, kept[name])
        found[name] = _either(found[name], one) if name in found else one
        return _marked(use.back(alive, kept[name].ones, tape.shapes[use.inputs[0]]))

    def step(fixed: Fixed, values: list[Folded]) -> list[Folded]:
        given = fixed.apply(values)
        for number, one in zip(fixed.outputs, given, strict=True):
            if one.shape != tape.shapes[number]:
                raise RuntimeError(f"a step gives {one.shape} where the network has {tape.shapes[number]}: {fixed}")
        return given

    forwards(tape, Folded.constant(tape.shapes[0], 1), through, step)
    backwards(tape, {one: Folded.constant(tape.shapes[one], 1) for one in tape.outputs}, back)
    return {name: found[name] for name in tape.layers}


def _marked(value: Folded) -> Folded:
    """1 for what is above a half: what is added up are ones, so that no rounding makes a path or loses one."""
    found = value.values > 0.5
    return Folded.constant(value.shape, 1) if found.all() else Folded(found.astype(np.float64), value.places).folded()


def _reached(use: Use, read: Folded, written: Folded, alive: Folded, kept: Kept) -> Reached:
    rows, columns = (one > 0.5 for one in use.meeting(read, alive))
    one, other = aligned([use.by_units(written), use.by_units(alive)])
    return Reached(
        _met(kept, rows, columns).reshape(use.layer.shape),
        _anywhere(use.by_units(read)),
        _anywhere(use.by_units(alive)),
        _anywhere(Folded(one.values * other.values)),
    )


def _anywhere(value: Folded) -> Flags:
    """Whether there is a mark at any place of each unit."""
    return any_of(units_first(value.values > 0.5), 1)


def _met(kept: Kept, rows: Flags, columns: Flags) -> Flags:
    """The kept weights whose row and whose column have a mark at the same place."""
    always, ever = ~any_of(~rows, 1), any_of(columns, 1)
    if always.all():
        return kept.flags if ever[kept.columns].all() else kept.flags & _own(kept, ever)
    found = np.zeros_like(kept.flags)
    row_bits, column_bits = np.packbits(rows, axis=1), np.packbits(columns, axis=1)
    ever_rows, always_columns = any_of(rows, 1), ~any_of(~columns, 1)
    width = found.shape[1]
    for begin in range(0, found.size, MOST):
        flat = begin + np.flatnonzero(kept.flags.reshape(-1)[begin : begin + MOST])
        row, column = flat // width, flat % width + kept.first(flat // width)
        met = (always[row] & ever[column]) | (ever_rows[row] & always_columns[column])
        open_ones = np.flatnonzero(~met & ever_rows[row] & ever[column])
        each = max(1, MOST // row_bits.shape[1])
        for start in range(0, len(open_ones), each):
            some = open_ones[start : start + each]
            met[some] = (row_bits[row[some]] & column_bits[column[some]]).any(1)
        found.reshape(-1)[flat[met]] = True
    return found


def _either(one: Reached, other: Reached) -> Reached:
    return Reached(
        one.effective | other.effective, one.inputs | other.inputs, one.outputs | other.outputs, one.nodes | other.nodes
    )


def _own(kept: Kept, columns: Array) -> NDArray[np.bool_]:
    """Of all columns, those of each row's group."""
    groups = kept.layer.layout.groups
    return np.repeat(columns.reshape(groups, -1), kept.shape[0] // groups, axis=0) if groups > 1 else columns
