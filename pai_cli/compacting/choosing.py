"""Which channels can go: those that change no output once a constant is added to the biases of who read them.

Whatever must go together is one component: a channel of a tensor, with the rows that write it, the columns that read it
and the elements of norms that it meets; by additions the channels of several layers, by groups all channels of a group. A
component is kept if a kept row has a weight that is not 0 at one of its columns and what arrives there depends on the
input, or is a constant that a bias cannot take. Of such constants one can carry the others: what a convolution makes of a
channel that is 3 everywhere is 3 times what it makes of one that is 1, also at its padded border. All other components go:
the largest set of which this is true is found by beginning with everything that may go, and keeping more until nothing
changes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from pai_cli.compacting.following import FIRST_PAD, ChannelFollower, Pad, Scale, Use
from pai_cli.compacting.reading import Floats, read
from pai_cli.compacting.shapes import Flags

Key = tuple[str, str, int]

MOST_CARRIED = 8
"""At most as many times its own size may a constant be that another carries."""

BORDER = "a constant that zero padding cuts at the border"
TWICE = "a constant that no bias of the layer that reads it can take"
JOINED = "joined with live ones by an addition, a group or a flatten"
LAST = "the last of its layer"
CARRIES = "one constant past zero padding, in place of all others"
RESHAPED = "a change of shape in the network's code goes by their number"


@dataclass(frozen=True, eq=False)
class Choice:
    """What is kept: `units` and `places` of layers, elements of `scales` by name and axis, channels of `pads`, as flags.

    `constants`: by layer, what its biases gain, before rows go. `carried`: by layer, a place, and how much of the weights
    of each other place it gains, by [row, place]. `dead_kept`: by layer, how many dead channels are kept for which reason.
    """

    units: Mapping[str, Flags]
    places: Mapping[str, Flags]
    scales: Mapping[tuple[str, int], Flags]
    pads: Mapping[str, Flags]
    constants: Mapping[str, Floats]
    carried: Mapping[str, tuple[int, Floats]]
    dead_kept: Mapping[str, Counter[str]]


@dataclass
class _Nodes:
    """Numbers of everything that is kept or goes, by what it is of; and which of them go together."""

    starts: dict[Key, int] = field(default_factory=dict)
    sizes: dict[Key, int] = field(default_factory=dict)
    total: int = 0
    edges: list[NDArray[np.int64]] = field(default_factory=list)
    fixed: list[NDArray[np.int64]] = field(default_factory=list)

    def of(self, key: Key, size: int) -> NDArray[np.int64]:
        if key not in self.starts:
            self.starts[key], self.sizes[key] = self.total, size
            self.total += size
        return np.arange(self.starts[key], self.starts[key] + self.sizes[key], dtype=np.int64)

    def join(self, one: NDArray[np.int64], other: NDArray[np.int64]) -> None:
        self.edges.append(np.stack([one, other]))

    def components(self) -> NDArray[np.int64]:
        """The component of each node."""
        pairs = np.concatenate([np.empty((2, 0), np.int64), *self.edges], axis=1)
        graph = coo_array((np.ones(pairs.shape[1], np.bool_), (pairs[0], pairs[1])), (self.total, self.total))
        found: NDArray[np.int64] = connected_components(graph, directed=False)[1].astype(np.int64)
        return found


class Chooser:
    """Chooses what of a followed network is kept.

    `weights`: by layer, float64, 0 where pruned. `can_add`: the layers whose bias can be changed, or that can be given one.
    `whole`: those that cannot be made smaller, and why.
    """

    def __init__(
        self, found: ChannelFollower, weights: Mapping[str, Floats], can_add: set[str], whole: Mapping[str, str]
    ):
        self._found = found
        self._nodes = _Nodes()
        self._uses: dict[str, list[Use]] = {}
        for use in found.uses:
            self._uses.setdefault(use.layer.name, []).append(use)
        self._read = {name: read(uses, weights[name], can_add=name in can_add) for name, uses in self._uses.items()}
        self._reasons: dict[int, str] = {}
        self._wire(whole)

    def choose(self, *, reshaped: bool) -> Choice:
        """What is kept. `reshaped`: whether channels may go that pass through a change of shape."""
        nodes, reasons = self._nodes, dict(self._reasons)
        for source, units in {} if reshaped else self._found.reshaped.items():
            if source >= 0 or source <= FIRST_PAD:
                numbers = self._source(source)
                reasons |= {
                    int(numbers[unit]): RESHAPED for unit in units if unit >= 0 and numbers[unit] not in reasons
                }
        of = nodes.components()
        kept = np.zeros(of.max() + 1, np.bool_)
        kept[of[np.concatenate([np.array([*reasons], np.int64), *nodes.fixed])]] = True
        carriers: dict[str, int] = {}
        while True:
            self._keep_what_is_needed(of, kept)
            if self._find_carriers(of, kept, carriers):
                continue
            empty = [name for name in self._uses if not kept[of[self._units(name)]].any()]
            if not empty:
                return self._chosen(of, kept, reasons, carriers)
            last = int(self._units(empty[0])[0])
            kept[of[last]] = True
            reasons[last] = LAST

    def _find_carriers(self, of: NDArray[np.int64], kept: Flags, carriers: dict[str, int]) -> bool:
        """Choose a place for each layer that must carry constants of others; whether one is kept that was not."""
        more = False
        for name, found in self._read.items():
            places = self._places(name)
            lost = self._needed(found.carried, of, kept, name) & ~kept[of[places]]
            if name in carriers or not lost.any():
                continue
            level = np.abs(found.level.reshape(-1))
            # A constant that is far smaller than the others has lost digits, or is 0 in the network's own precision.
            there = kept[of[places]] & (level >= level[lost].max() / MOST_CARRIED)
            among = there if there.any() else lost
            carriers[name] = int(np.argmax(np.where(among, level, -1)))
            if not there.any():
                kept[of[places[carriers[name]]]] = more = True
        return more

    # --- what goes together

    def _units(self, name: str) -> NDArray[np.int64]:
        groups, rows, _ = self._read[name].live.shape
        return self._nodes.of(("unit", name, 0), groups * rows)

    def _places(self, name: str) -> NDArray[np.int64]:
        groups, _, places = self._read[name].live.shape
        return self._nodes.of(("place", name, 0), groups * places)

    def _source(self, source: int) -> NDArray[np.int64]:
        if source >= 0:
            return self._units(self._found.uses[source].layer.name)
        pad = self._found.pads[FIRST_PAD - source]
        return self._nodes.of(("pad", pad.name, 0), pad.before + pad.after)

    def _wire(self, whole: Mapping[str, str]) -> None:
        nodes = self._nodes
        for use in self._found.uses:
            name = use.layer.name
            units, places = self._units(name), self._places(name)
            self._wire_ends(places, use)
            if use.bias is not None:
                nodes.join(units, nodes.of(("scale", use.bias, 0), len(units)))
            groups = use.layer.layout.groups
            if groups > 1:
                first = units.reshape(groups, -1)[:, :1]
                for every in (units.reshape(groups, -1), places.reshape(groups, -1)):
                    nodes.join(np.broadcast_to(first, every.shape).reshape(-1), every.reshape(-1))
            if name in whole:
                self._reasons |= dict.fromkeys(units.tolist(), whole[name])
                nodes.fixed.append(places)
                for source, numbers, _ in use.wires:
                    self._reasons |= dict.fromkeys(self._source(source)[numbers].tolist(), whole[name])
        for scale in self._found.scales:
            self._wire_ends(nodes.of(("scale", scale.name, scale.axis), len(scale.fixed)), scale)
        for key in [key for key in nodes.starts if key[0] == "scale" and self._found.read_elsewhere(key[1])]:
            nodes.fixed.append(nodes.of(key, 0))
        for source, needed in self._found.needed.items():
            numbers = self._source(source)
            self._reasons |= {int(numbers[unit]): reason for unit, reason in needed.items()}

    def _wire_ends(self, ends: NDArray[np.int64], there: Use | Scale) -> None:
        for source, units, places in there.wires:
            self._nodes.join(self._source(source)[units], ends[places])
        self._nodes.fixed.append(ends[there.fixed])

    # --- what is needed

    def _keep_what_is_needed(self, of: NDArray[np.int64], kept: Flags) -> None:
        changed = True
        while changed:
            changed = False
            for name in reversed(self._uses):  # readers first: most is known after one round
                needed = self._needed(self._read[name].blocked, of, kept, name)
                more = of[self._places(name)][needed]
                changed |= not bool(kept[more].all())
                kept[more] = True

    def _needed(self, flags: Flags, of: NDArray[np.int64], kept: Flags, name: str) -> Flags:
        """The places of the layer at which a kept row has a flag."""
        rows = kept[of[self._units(name)]].reshape(flags.shape[0], -1, 1)
        found: Flags = (flags & rows).any(1).reshape(-1)
        return found

    def _carried(self, name: str, carrier: int, stays: Flags) -> tuple[int, Floats]:
        """The carrier, and what it gains by [row, place]: as many times the weight as its constant is in the place's."""
        found = self._read[name]
        level = found.level[0, 0]
        amounts = np.where(~stays[self._places(name)], level / level[carrier], 0)
        return carrier, np.where(found.carried[0], amounts, 0)

    def _chosen(
        self, of: NDArray[np.int64], kept: Flags, reasons: Mapping[int, str], carriers: Mapping[str, int]
    ) -> Choice:
        nodes, stays = self._nodes, kept[of]
        names = list(self._uses)
        constants = {}
        for name in names:
            gone = ~stays[self._places(name)].reshape(self._read[name].live.shape[0], 1, -1)
            constants[name] = np.where(gone, self._read[name].constant, 0).sum(2).reshape(-1)
        return Choice(
            {name: stays[self._units(name)] for name in names},
            {name: stays[self._places(name)] for name in names},
            {(key[1], key[2]): stays[nodes.of(key, 0)] for key in nodes.starts if key[0] == "scale"},
            {key[1]: stays[nodes.of(key, 0)] for key in nodes.starts if key[0] == "pad"},
            constants,
            {name: self._carried(name, place, stays) for name, place in carriers.items()},
            self._dead_kept(of, kept, reasons, carriers),
        )

    def _dead_kept(
        self, of: NDArray[np.int64], kept: Flags, reasons: Mapping[int, str], carriers: Mapping[str, int]
    ) -> dict[str, Counter[str]]:
        """Why channels stay that depend on no input, or on which no output depends."""
        alive, why = np.zeros(self._nodes.total, np.bool_), dict[int, str]()
        for name in self._uses:
            read, places = self._read[name], self._places(name)
            alive[places[self._needed(read.live, of, kept, name)]] = True
            for flags, reason in ((read.border, BORDER), (read.no_bias, TWICE)):
                needed = self._needed(flags & read.blocked, of, kept, name)
                why |= dict.fromkeys(places[needed].tolist(), reason)
            if name in carriers:
                why[int(places[carriers[name]])] = CARRIES
        found: dict[str, Counter[str]] = {}
        readers: dict[int, list[int]] = {}
        for use in self._found.uses:
            places = self._places(use.layer.name)
            for source, units, ends in use.wires:
                for unit, place in zip(self._source(source)[units].tolist(), places[ends].tolist(), strict=True):
                    readers.setdefault(unit, []).append(place)
        for name in self._uses:
            writes = self._read[name].live.any(2).reshape(-1)
            counts: Counter[str] = Counter()
            for written, unit in zip(writes.tolist(), self._units(name).tolist(), strict=True):
                read_by = readers.get(unit, [])
                used = unit in self._reasons or any(alive[place] for place in read_by)
                if kept[of[unit]] and not (written and used):
                    told = next((why[place] for place in read_by if place in why), None)
                    counts[reasons.get(unit) or told or JOINED] += 1
            found[name] = counts
        return found


def kept_of(pad: Pad, kept: Flags) -> tuple[int, int]:
    """How many channels a padded shortcut adds before and after those that it is given, of those that are kept."""
    return int(kept[: pad.before].sum()), int(kept[pad.before :].sum())
