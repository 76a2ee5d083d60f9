"""Random walks along a network's weights, many at a time, forwards from the input and backwards from the output.

A walk forwards goes from a unit to one of the places that read it, with probability proportional to the sum of |w|
behind that place, then along one of those weights, with probability proportional to its |w|, to a unit of the next
layer; until it comes to a unit that the network returns. A walk backwards is the same with input and output exchanged.
Only weights that lie on some path from input to output are walked on. Where every weight of a choice is zero, the
choice is uniform.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pai_cli.models.trace import INPUT, Call, Graph

Indices = NDArray[np.int64]
Flags = NDArray[np.bool_]
Reals = NDArray[np.float64]


class _Choices:
    """Segments of options, one of which is drawn with probability proportional to its mass.

    `mass`: of all options, segment after segment; `counts`: options of each segment; an option that is not `allowed`
    is never drawn, nor may a segment be asked for that has none allowed.
    """

    def __init__(self, mass: Reals, counts: Indices, allowed: Flags) -> None:
        self._ends = np.cumsum(counts)
        segment = np.repeat(np.arange(len(counts)), counts)
        self.totals: Reals = np.bincount(segment, mass * allowed, minlength=len(counts)).astype(np.float64)
        even = (self.totals == 0)[segment]
        weight = np.where(even, 1.0, mass) * allowed
        sums = np.bincount(segment, weight, minlength=len(counts))
        # Every segment to a sum of 1, so that small ones are not lost in the rounding of a running sum.
        weight /= np.where(sums == 0, 1.0, sums)[segment]
        self._sum = np.concatenate([[0.0], np.cumsum(weight)])
        self._starts = self._ends - counts

    def draw(self, segments: Indices, random: np.random.Generator) -> Indices:
        """One option of each of these segments, as its number among all options."""
        low, high = self._sum[self._starts[segments]], self._sum[self._ends[segments]]
        at = np.minimum(low + random.random(len(segments)) * (high - low), np.nextafter(high, low))
        found: Indices = np.searchsorted(self._sum, at, side="right") - 1
        return np.clip(found, self._starts[segments], self._ends[segments] - 1)


@dataclass(frozen=True, eq=False)
class Steps:
    """The weights that walks went over: the walk, the step within it, and the weight's number (-1: not counted)."""

    walks: Indices
    steps: Indices
    weights: Indices


class _Layer:
    """One call: how its weights lie between places and rows, and what of it is on a path."""

    def __init__(self, call: Call, magnitudes: NDArray[Any], first: int) -> None:
        self.wires = call.wires
        layout = call.layer.layout
        # (group, rows or places, places or rows, kernel), as stored
        one = call.layer.shape[0] // layout.groups
        self._mass = np.abs(magnitudes).astype(np.float64).reshape(layout.groups, one, call.layer.shape[1], -1)
        self._stored = self._mass.shape
        self._transposed = layout.transposed
        self.groups = layout.groups
        self.rows, self.places = call.outputs, call.places
        self._first = first
        self.reached: Flags = np.zeros(self.places, bool)  # places that a path from the input comes to
        self.alive: Flags = np.zeros(self.rows, bool)  # rows from which a path leads to the output

    @property
    def places_alive(self) -> Flags:
        """The places from which a path leads to the output."""
        return np.repeat(self.alive.reshape(self.groups, -1).any(1), self.places // self.groups)

    @property
    def rows_reached(self) -> Flags:
        """The rows that a path from the input comes to."""
        return np.repeat(self.reached.reshape(self.groups, -1).any(1), self.rows // self.groups)

    def prepare(self) -> None:
        """Once `reached` and `alive` are known: the choices from each place, and from each row."""
        mass = self._mass.swapaxes(1, 2) if self._transposed else self._mass  # (group, row, place, kernel)
        allowed = np.broadcast_to(self._allowed(), mass.shape)
        by_row, by_place = (0, 1, 2, 3), (0, 2, 1, 3)
        self.from_rows = self._choices(mass.transpose(by_row), allowed.transpose(by_row), self.rows)
        self.from_places = self._choices(mass.transpose(by_place), allowed.transpose(by_place), self.places)
        self._shape = mass.shape
        del self._mass  # the choices have what they need of it

    def _allowed(self) -> Flags:
        rows = self.alive.reshape(self.groups, -1, 1, 1)
        places: Flags = self.reached.reshape(self.groups, 1, -1, 1)
        return rows & places

    @staticmethod
    def _choices(mass: Reals, allowed: Flags, segments: int) -> _Choices:
        counts = np.full(segments, mass.size // segments, np.int64)
        return _Choices(mass.reshape(-1), counts, allowed.reshape(-1))

    def go_on(self, places: Indices, random: np.random.Generator) -> tuple[Indices, Indices]:
        """From each place along a weight: the weights' numbers and the rows they lead to."""
        groups, rows, inputs, kernel = self._shape
        group, place, row, k = np.unravel_index(self.from_places.draw(places, random), (groups, inputs, rows, kernel))
        return self._number(group, row, place, k), group * rows + row

    def go_back(self, rows: Indices, random: np.random.Generator) -> tuple[Indices, Indices]:
        """From each row back along a weight: the weights' numbers and the places they come from."""
        group, row, place, k = np.unravel_index(self.from_rows.draw(rows, random), self._shape)
        return self._number(group, row, place, k), group * self._shape[2] + place

    def _number(self, group: Indices, row: Indices, place: Indices, k: Indices) -> Indices:
        one, other = (place, row) if self._transposed else (row, place)
        flat = np.ravel_multi_index((group, one, other, k), self._stored)
        return flat + self._first if self._first >= 0 else np.full(len(flat), -1)

    def ends_of(self, weights: Indices) -> tuple[Indices, Indices]:
        """The places and rows that these weights, numbered from the layer's first as 0, connect."""
        group, one, other, _ = np.unravel_index(weights, self._stored)
        place, row = (one, other) if self._transposed else (other, one)
        _, rows, places, _ = self._shape
        return group * places + place, group * rows + row

    def on_a_path(self) -> Flags:
        """Which weights lie on a path from input to output, flat, as stored."""
        allowed = np.broadcast_to(self._allowed(), self._shape)
        return (allowed.swapaxes(1, 2) if self._transposed else allowed).reshape(-1)


class _Links:
    """From where walks are (units, or places) to where they go on (places, or units), by the source's side."""

    def __init__(self, size: int, ends: Flags) -> None:
        self._size = size
        self.ends = ends  # where a walk is over
        self._from: list[Indices] = []
        self._to: list[tuple[int, Indices, Reals]] = []

    def add(self, start: Indices, target: int, to: Indices, mass: Reals) -> None:
        self._from.append(start)
        self._to.append((target, to, mass))

    def prepare(self) -> None:
        start = np.concatenate([np.empty(0, np.int64), *self._from])
        order = np.argsort(start, kind="stable")
        self._targets = np.repeat([target for target, *_ in self._to], [len(to) for _, to, _ in self._to])[order]
        self._places = np.concatenate([np.empty(0, np.int64), *(to for _, to, _ in self._to)])[order]
        mass = np.concatenate([np.empty(0), *(mass for *_, mass in self._to)])[order]
        counts = np.bincount(start, minlength=self._size)
        self._choices = _Choices(mass, counts, np.ones(len(mass), bool))

    def follow(self, at: Indices, random: np.random.Generator) -> tuple[Indices, Indices, Flags]:
        """For each walk: which call it goes to, where in it, and whether it goes on at all."""
        on = ~self.ends[at]
        chosen = self._choices.draw(at[on], random)
        return self._targets[chosen], self._places[chosen], on


class Walker:
    """Walks over one network. `firsts`: by layer, the number of its first weight; layers not in it are walked on but
    their weights not counted.
    """

    def __init__(self, graph: Graph, magnitudes: Mapping[str, NDArray[Any]], firsts: Mapping[str, int]) -> None:
        self._layers = [
            _Layer(call, magnitudes[call.layer.name], firsts.get(call.layer.name, -1)) for call in graph.calls
        ]
        self.names = [call.layer.name for call in graph.calls]
        ends = {wire.source: wire.units for wire in graph.outputs}
        alive_inputs = self._find_paths(graph, ends)
        for layer in self._layers:
            layer.prepare()
        self._link(graph.inputs, ends)
        self.starts = np.flatnonzero(alive_inputs)
        """Units of the input from which a path leads to the output."""
        self.goals = [
            (source, int(unit))
            for source, units in sorted(ends.items())
            if source != INPUT
            for unit in units
            if self._layers[source].rows_reached[unit]
        ]
        """Units that the network returns and a path from the input comes to, as (call, row)."""

    def _find_paths(self, graph: Graph, ends: Mapping[int, Indices]) -> Flags:
        """Set `reached` and `alive` of each layer; gives which units of the input have a path to the output."""
        for layer in self._layers:
            for wire in layer.wires:
                before = np.ones(graph.inputs, bool) if wire.source == INPUT else self._layers[wire.source].rows_reached
                layer.reached[wire.places[before[wire.units]]] = True
        inputs = np.zeros(graph.inputs, bool)
        for source, units in ends.items():
            if source != INPUT:
                self._layers[source].alive[units] = True
        for layer in reversed(self._layers):
            for wire in layer.wires:
                target = inputs if wire.source == INPUT else self._layers[wire.source].alive
                target[wire.units[layer.places_alive[wire.places]]] = True
        return inputs

    def _link(self, inputs: int, ends: Mapping[int, Indices]) -> None:
        sizes = {INPUT: inputs, **{i: layer.rows for i, layer in enumerate(self._layers)}}
        self._onward = {}
        for source, size in sizes.items():
            over = np.zeros(size, bool)
            if source != INPUT and source in ends:
                over[ends[source]] = True
            self._onward[source] = _Links(size, over)
        self._back = []
        for number, layer in enumerate(self._layers):
            over = np.zeros(layer.places, bool)
            for wire in layer.wires:
                if wire.source == INPUT:
                    over[wire.places] = True
            back = _Links(layer.places, over)
            for wire in layer.wires:
                on = layer.places_alive[wire.places]
                units, places = wire.units[on], wire.places[on]
                self._onward[wire.source].add(units, number, places, layer.from_places.totals[places])
                if wire.source != INPUT:
                    before = self._layers[wire.source]
                    on = before.rows_reached[wire.units]
                    units, places = wire.units[on], wire.places[on]
                    back.add(places, wire.source, units, before.from_rows.totals[units])
            self._back.append(back)
        for links in (*self._onward.values(), *self._back):
            links.prepare()

    def forwards(self, walks: Indices, units: Indices, random: np.random.Generator) -> list[Steps]:
        """From these units of the input to the output."""
        waiting = self._waiting()
        self._leave(INPUT, walks, units, waiting, random)
        return self._onwards(waiting, random)

    def backwards(self, walks: Indices, goals: Indices, random: np.random.Generator) -> list[Steps]:
        """From these goals (their numbers in `goals`) to the input."""
        waiting = self._waiting()
        calls, rows = np.array(self.goals, np.int64).reshape(-1, 2)[goals].T
        for call in np.unique(calls):
            here = calls == call
            waiting[call].append((walks[here], rows[here]))
        return self._backwards(waiting, random)

    def through(self, call: int, weights: Indices, walks: Indices, random: np.random.Generator) -> list[Steps]:
        """Through these weights of one call, numbered from its first as 0: on to the output, and back to the input."""
        layer = self._layers[call]
        places, rows = layer.ends_of(weights)
        itself = Steps(walks, np.zeros(len(walks), np.int64), weights + max(layer._first, 0))
        onward, back = self._waiting(), self._waiting()
        self._leave(call, walks, rows, onward, random)
        self._enter(call, walks, places, back, random)
        return [itself, *self._onwards(onward, random), *self._backwards(back, random)]

    def on_a_path(self, call: int) -> Flags:
        """Which weights of a call lie on a path from input to output, flat."""
        return self._layers[call].on_a_path()

    def _waiting(self) -> list[list[tuple[Indices, Indices]]]:
        return [[] for _ in self._layers]

    def _onwards(self, waiting: list[list[tuple[Indices, Indices]]], random: np.random.Generator) -> list[Steps]:
        found = []
        # A layer's walks have all come when its turn comes: calls are in the order they ran.
        for call, layer in enumerate(self._layers):
            if not waiting[call]:
                continue
            walks, places = (np.concatenate(part) for part in zip(*waiting[call], strict=True))
            weights, rows = layer.go_on(places, random)
            found.append(Steps(walks, np.full(len(walks), call + 1), weights))
            self._leave(call, walks, rows, waiting, random)
        return found

    def _backwards(self, waiting: list[list[tuple[Indices, Indices]]], random: np.random.Generator) -> list[Steps]:
        found = []
        for call in reversed(range(len(self._layers))):
            if not waiting[call]:
                continue
            walks, rows = (np.concatenate(part) for part in zip(*waiting[call], strict=True))
            weights, places = self._layers[call].go_back(rows, random)
            found.append(Steps(walks, np.full(len(walks), 2 * len(self._layers) - call), weights))
            self._enter(call, walks, places, waiting, random)
        return found

    def _leave(self, source: int, walks: Indices, units: Indices, waiting: Any, random: np.random.Generator) -> None:
        _spread(waiting, walks, *self._onward[source].follow(units, random))

    def _enter(self, call: int, walks: Indices, places: Indices, waiting: Any, random: np.random.Generator) -> None:
        _spread(waiting, walks, *self._back[call].follow(places, random))


def _spread(waiting: Any, walks: Indices, targets: Indices, where: Indices, on: Flags) -> None:
    walks = walks[on]
    for call in np.unique(targets):
        here = targets == call
        waiting[call].append((walks[here], where[here]))
