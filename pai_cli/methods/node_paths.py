"""One layer of node-path balancing: how many weights of each kernel keep most nodes, paths and kernels."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

Numbers = NDArray[np.int64]
Reals = NDArray[np.float64]
Flags = NDArray[np.bool_]

_DIGITS = 9  # of a share of the most paths: what differs by less is rounding, and a tie


@dataclass(frozen=True)
class Terms:
    """What the terms of a `Program` weigh: nodes `alpha`, paths 1 - `alpha`, kernels `beta`.

    `doubling`: numbers of paths are rounded to the nearest power of two, as a share of the largest.
    """

    alpha: float = 0.5
    beta: float = 1.0
    doubling: bool = True


PUBLISHED = Terms(alpha=0.01, doubling=False)
"""The authors' for ResNet-20."""


@dataclass(frozen=True, eq=False)
class Program:
    """So many weights, `count`, to be put into the kernels of a layer.

    `paths`: (inputs, positions), how many paths a weight of this input's kernels at this position would take to an output.
    `leads_on`: (outputs,), whether what comes to an output goes on. Inputs and outputs are in `groups`, one after the other,
    and there is a kernel for each input and each output of its group.

    With m_ij weights of kernel (i, j), p_i the mean of an input's paths over the positions that have any, and I and O the
    numbers of inputs and outputs, the sum of

        alpha (inputs with a weight + outputs with a weight) / (I + O)
        (1 - alpha) (sum of p_i m_ij) / (the largest it can be)
        beta (kernels with a weight) / count

    is to be the largest. Weights that lie on no path add nothing to any term, and are the last to be taken.
    """

    paths: Reals
    leads_on: Flags
    groups: int
    count: int
    terms: Terms = Terms()

    @property
    def shape(self) -> tuple[int, int, int]:
        """Inputs, outputs of a group, positions: of a weight that is stored input first."""
        return len(self.paths), len(self.leads_on) // self.groups, self.paths.shape[1]

    @cached_property
    def room(self) -> Numbers:
        """(inputs,) positions of a kernel that have paths."""
        found: Numbers = np.count_nonzero(self.paths, axis=1)
        return found

    @cached_property
    def each(self) -> Reals:
        """(inputs,) p_i as a share of the largest, rounded as the terms say."""
        mean = self.paths.sum(1) / np.maximum(self.room, 1)
        share: Reals = mean / (float(mean.max(initial=0.0)) or 1.0)
        if not self.terms.doubling:
            return np.round(share, _DIGITS)
        with np.errstate(divide="ignore"):
            return np.exp2(np.round(np.log2(share)))

    @cached_property
    def open(self) -> Numbers:
        """(inputs,) how many outputs of its group lead on."""
        of_group = self.leads_on.reshape(self.groups, -1).sum(1)
        return np.repeat(of_group, len(self.paths) // self.groups)

    @cached_property
    def most_paths(self) -> float:
        """The largest that the sum of p_i m_ij can be; 1 where it is 0."""
        order = np.argsort(-self.each, kind="stable")
        ends = np.minimum(np.cumsum((self.room * self.open)[order]), self.count)
        return float(self.each[order] @ np.diff(ends, prepend=0)) or 1.0

    def gains(self) -> tuple[float, Reals, float]:
        """What a new node adds, a weight of each input, and a new kernel."""
        nodes, terms = len(self.paths) + len(self.leads_on), self.terms
        return terms.alpha / nodes, (1 - terms.alpha) * self.each / self.most_paths, terms.beta / max(self.count, 1)


def keep(program: Program, random: np.random.Generator) -> Flags:
    """The weights of an optimum of the program, of its `shape`; `random` settles what it leaves open.

    Every weight of an input counts alike, whatever its output. So there is an optimum in which an input has two weights in
    no kernel before it has one in each, and in which those go to outputs without a weight first. What the next weight of an
    input adds then never grows, and the weights that add most, one after the other, are an optimum: no solver is needed.
    Within a kernel the positions are drawn with probability proportional to their paths.
    """
    numbers = _spread(program, *_shares(program, random), random)
    kept = _placed(program, numbers, random)
    lacking = program.count - int(np.count_nonzero(kept))
    if lacking:  # on no path
        kept.reshape(-1)[random.choice(np.flatnonzero(~kept), lacking, replace=False)] = True
    return kept


def _placed(program: Program, numbers: Numbers, random: np.random.Generator) -> Flags:
    """So many weights in each kernel, at positions that have paths."""
    if program.shape[2] == 1:
        return (numbers > 0)[:, :, None]
    with np.errstate(divide="ignore"):
        # The order of exponential waiting times is that of drawing without replacement by these rates.
        waits = random.standard_exponential(program.shape) / program.paths[:, None, :]
    kept = np.zeros(program.shape, np.bool_)
    np.put_along_axis(kept, np.argsort(waits, axis=2), np.arange(program.shape[2]) < numbers[:, :, None], axis=2)
    return kept


def _shares(program: Program, random: np.random.Generator) -> tuple[Numbers, Numbers]:
    """How many kernels of each input get a weight, and how many weights more it gets."""
    node, path, kernel = program.gains()
    inputs = np.arange(len(path))
    usable = (program.room > 0) & (program.open > 0)
    size = np.where(usable, program.open, 0)
    blocks = [_Blocks(inputs, path, size * (program.room - 1).clip(0), more=True)]
    for group in np.split(inputs, program.groups):
        some = group[usable[group]]
        if len(some):
            firsts = _Blocks(some, path[some] + kernel + node, np.ones(len(some), np.int64))
            others = _Blocks(some, path[some] + kernel, size[some] - 1)
            blocks += _with_outputs(_joined([firsts, others]), int(size[some[0]]), node, random)
    every = _joined(blocks)
    taken = _largest(every.gains, every.sizes, program.count, random)

    def by_input(which: Flags) -> Numbers:
        return np.bincount(every.inputs[which], taken[which], len(path)).astype(np.int64)

    return by_input(~every.more), by_input(every.more)


class _Blocks:
    """Weights of one input that add alike: `sizes` so many, each adding `gains`. `more`: into kernels that have one."""

    def __init__(self, inputs: Numbers, gains: Reals, sizes: Numbers, more: bool | Flags = False) -> None:
        self.inputs, self.gains, self.sizes = inputs, gains, sizes
        self.more: Flags = np.broadcast_to(np.asarray(more), inputs.shape)


def _joined(blocks: list[_Blocks]) -> _Blocks:
    names = ("inputs", "gains", "sizes", "more")
    return _Blocks(*(np.concatenate([getattr(one, name) for one in blocks]) for name in names))


def _with_outputs(blocks: _Blocks, outputs: int, node: float, random: np.random.Generator) -> list[_Blocks]:
    """A group's blocks of new kernels: the largest come first, and as many as there are outputs reach a new one."""
    reaching = _largest(blocks.gains, blocks.sizes, outputs, random)
    return [
        _Blocks(blocks.inputs, blocks.gains + node, reaching),
        _Blocks(blocks.inputs, blocks.gains, blocks.sizes - reaching),
    ]


def _largest(gains: Reals, sizes: Numbers, count: int, random: np.random.Generator) -> Numbers:
    """How many of each block are among the `count` of largest gain; of blocks that tie at the end, as alike as can be."""
    levels, which = np.unique(-gains, return_inverse=True)
    ends = np.cumsum(np.bincount(which, sizes, len(levels))).astype(np.int64)
    last = int(np.searchsorted(ends, count))
    taken = np.where(which < last, sizes, 0)
    if last < len(levels):
        tied = np.flatnonzero(which == last)
        taken[tied] = _alike(sizes[tied], count - int(taken.sum()), random)
    return taken


def _alike(sizes: Numbers, count: int, random: np.random.Generator) -> Numbers:
    """`count` shared out as alike as the sizes let, which hold so many; who has one more is drawn."""
    low, high = 0, int(sizes.max(initial=0))
    while low < high:
        level = (low + high + 1) // 2
        low, high = (level, high) if np.minimum(sizes, level).sum() <= count else (low, level - 1)
    taken = np.minimum(sizes, low)
    larger = np.flatnonzero(sizes > low)
    taken[random.permutation(larger)[: count - int(taken.sum())]] += 1
    return taken


def _spread(program: Program, kernels: Numbers, more: Numbers, random: np.random.Generator) -> Numbers:
    """(inputs, outputs of a group) weights of each kernel: outputs without any first, then those with fewest paths."""
    inputs, outputs, _ = program.shape
    found = np.zeros((inputs, outputs), np.int64)
    for group, leads_on in zip(
        np.split(np.arange(inputs), program.groups), program.leads_on.reshape(program.groups, -1), strict=True
    ):
        there = np.flatnonzero(leads_on)
        load, reached = np.zeros(len(there)), np.zeros(len(there), np.bool_)
        for i in group[np.argsort(-program.each[group], kind="stable")]:
            if not kernels[i]:
                continue
            order = np.lexsort((random.random(len(there)), load, reached))
            numbers = np.zeros(len(there), np.int64)
            numbers[order[: kernels[i]]] = 1
            all_get, some_get = divmod(int(more[i]), len(there))
            numbers += all_get
            numbers[order[:some_get]] += 1
            found[i, there] = numbers
            load += program.each[i] * numbers
            reached |= numbers > 0
    return found
