"""How stable masks are when each weight changes by at most one part in a million, why, and whether accuracy notices.

    python benchmarks/stability.py overlap     # every method that looks at weights: what share of the kept weights stays
    python benchmarks/stability.py reason      # methods in rounds: how near the cut scores are, and what one swap becomes
    python benchmarks/stability.py accuracy    # trainings on digits: the spread over such masks beside that over seeds

Fresh networks with 10 classes for the digits of scikit-learn: ResNet-20 (`--network` another), of `accuracy` ResNet-8.
Methods with data take ten samples a class. Everything is on one thread, and the same numbers come again.

overlap   of each of --prunings prunings of each of --networks initialisations, with perturbed weights, the share of the kept
          weights that it keeps too: mean, standard error of that over networks, least
moved     the share of those prunings whose mask is another one
stable    the share of a network's kept weights that all of its prunings keep, mean over networks
s         seconds a pruning
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from math import prod
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from tables import Table

import pai_cli as pai
from pai_cli.data.base import Dataset
from pai_cli.data.registry import open_dataset
from pai_cli.methods.registry import METHODS, get
from pai_cli.models.network import Network, init_network
from pai_cli.progress import silent
from pai_cli.pruning.again import Again, perturbed, prune_again
from pai_cli.pruning.base import Masks
from pai_cli.pruning.request import PruneRequest, quota_of
from pai_cli.pruning.run import choose_masks, score_arrays
from pai_cli.pruning.stability import PERTURBATION, Stability
from pai_cli.pruning.ties import Ties

Flags = NDArray[np.bool_]
Reals = NDArray[np.floating[Any]]
Number = TypeVar("Number", bound=np.generic)

SHAPES = {"resnet20": (3, 8, 8), "mlp-64-300-100-10": (1, 8, 8), "resnet8": (3, 8, 8)}
DENSITIES = (0.05, 0.01)
ROUNDS = (1, 10, 100)
ALL = tuple(method.name for method in METHODS.values() if method.reads_weights and not method.trains)
NEAR = (1e-12, 1e-6, 1e-2)
LATER = (0, 1, 2, 5, 10, 20, 40)
AMPLIFIED = (("synflow", 10), ("synflow", 100), ("iter-snip", 10))


def asked(name: str, method: str, density: float, rounds: int | None = None) -> PruneRequest:
    """What is asked of a method on a network."""
    data = "digits" if METHODS[method].data else None
    return PruneRequest(get(method), density, rounds=rounds, input_shape=SHAPES[name], data=data)


# --- overlap


def overlap_table(name: str, methods: list[str], most_rounds: int, networks: int, prunings: int) -> None:
    """A line a method, number of rounds and density, over several initialisations of a network."""
    table = Table(
        [
            *(("network", 17, "<"), ("method", 9, "<"), ("rounds", 6, "d"), ("density", 7, "g"), ("overlap", 8, ".5f")),
            *(("error", 8, ".5f"), ("least", 8, ".5f"), ("moved", 6, ".2f"), ("stable", 8, ".5f"), ("s", 6, ".2f")),
        ]
    )
    table.head()
    dataset = open_dataset("digits", train=True)
    several = [init_network(name, 10, seed) for seed in range(networks)]
    for method in methods:
        for rounds in [one for one in ROUNDS if one <= most_rounds] if METHODS[method].iterative else [None]:
            for density in DENSITIES:
                request = asked(name, method, density, rounds)
                begin = time.perf_counter()
                found = [_stability(network, request, prunings, dataset) for network in several]
                took = (time.perf_counter() - begin) / (networks * (prunings + 1))
                table.row(name, method, rounds or 1, density, *_summed(found), took)


def _stability(network: Network, request: PruneRequest, prunings: int, dataset: Dataset) -> Stability:
    again = Again(choose_masks(network, request, dataset=dataset)[0], prunings, PERTURBATION)
    prune_again(network, request, again, silent, dataset)
    found = again.result()
    if found is None or found.failed:
        raise SystemExit(f"{request.method.name} at density {request.density:g}: {again.failed[0]}")
    return found


def _summed(found: list[Stability]) -> tuple[float, ...]:
    """Overlap with the standard error of its mean over networks, the least, share of masks that moved, stable share."""
    means = [statistics.fmean(one.overlaps()) for one in found]
    overlaps = [overlap for one in found for overlap in one.overlaps()]
    stable = [sum(one.stable.values()) / sum(one.kept.values()) for one in found]
    error = statistics.stdev(means) / len(means) ** 0.5
    moved = sum(one < 1 for one in overlaps) / len(overlaps)
    return statistics.fmean(means), error, min(overlaps), moved, statistics.fmean(stable)


# --- reason


@dataclass(frozen=True)
class Round:
    """What is kept after a round, flat; how far each score that was active lay from the cut, as a share of it; and the
    places of the last weight that was kept and of the first that was not.
    """

    kept: Flags
    far: Reals
    last: int
    next: int

    def swapped(self) -> Flags:
        """What is kept, but for those two, which are exchanged."""
        kept = self.kept.copy()
        kept[self.last], kept[self.next] = False, True
        return kept


def course(
    network: Network, request: PruneRequest, dataset: Dataset, done: int = 0, kept: Flags | None = None
) -> Iterator[Round]:
    """The rounds of a pruning, but for those that are `done`, after which there was this `kept`."""
    assert isinstance(request.rounds, int)
    quota = quota_of(request, network, network.layers)
    masks = None if kept is None else _like(kept, network)
    for count in quota.steps(request.rounds)[done:]:
        scores = score_arrays(network, request, masks, dataset)
        before, masks = masks, quota.keep(scores, count, masks, Ties())
        flat = _flat(scores)
        active = np.ones(flat.size, bool) if before is None else _flat(before)
        kept = _flat(masks)
        last, out = int(np.flatnonzero(kept)[np.argmin(flat[kept])]), np.flatnonzero(active & ~kept)
        yield Round(kept, np.abs(flat[active] / flat[last] - 1), last, int(out[np.argmax(flat[out])]))


def _flat(arrays: Mapping[str, NDArray[Number]]) -> NDArray[Number]:
    return np.concatenate([array.reshape(-1) for array in arrays.values()])


def _like(flat: Flags, network: Network) -> Masks:
    ends = np.cumsum([prod(layer.shape) for layer in network.layers])[:-1]
    parts = np.split(flat, ends)
    return {layer.name: part.reshape(layer.shape) for part, layer in zip(parts, network.layers, strict=True)}


def reason_tables() -> None:
    """How many scores lie near the cut, and what one swap becomes."""
    name = "resnet20"
    network, dataset = init_network(name, 10, 0), open_dataset("digits", train=True)
    same = (("method", 9, "<"), ("rounds", 6, "d"), ("density", 7, "g"))
    near = Table([*same, *((f"within {one:g}", 12, "d") for one in NEAR)])
    after = Table(
        [
            *(*same, ("by 1e-06", 8, ".1e"), ("by swap", 8, ".1e"), ("swaps", 5, "d"), ("healed", 6, "d")),
            *(*((f"after {one}", 8, ".0f") for one in LATER), ("overlap", 8, ".5f"), ("least", 8, ".5f")),
        ]
    )
    lines = []
    near.head()
    for method, rounds in AMPLIFIED:
        for density in DENSITIES:
            request = asked(name, method, density, rounds)
            own, close = [], np.zeros(len(NEAR), int)
            for one in course(network, request, dataset):
                close += [np.count_nonzero(one.far < bound) - 1 for bound in NEAR]
                own.append(replace(one, far=np.empty(0)))
            near.row(method, rounds, density, *close)
            shifts = _shifts(network, request, dataset, own[rounds // 10 - 1])
            lines.append((method, rounds, density, *shifts, *_of_swaps(network, request, dataset, own)))
    print()
    after.head()
    for line in lines:
        after.row(*line)


def _shifts(network: Network, request: PruneRequest, dataset: Dataset, first: Round) -> tuple[float, float]:
    """The median relative change of a score by perturbed weights, before any is pruned, and by one swap in the round after
    `first`.
    """
    twin = perturbed(network, PERTURBATION, 0, 0)
    states = [(network, None), (twin, None), *((network, _like(one, network)) for one in (first.kept, first.swapped()))]
    own, other, before, after = (_flat(score_arrays(one, request, masks, dataset)) for one, masks in states)
    both = first.kept & first.swapped()
    return _change(own, other), _change(before[both], after[both])


def _change(before: Reals, after: Reals) -> float:
    """The median relative change of what is not 0."""
    there = before != 0
    return float(np.median(np.abs(after[there] / before[there] - 1)))


def _of_swaps(network: Network, request: PruneRequest, dataset: Dataset, own: list[Round]) -> tuple[float | None, ...]:
    """Of one swap after some round, for about ten such rounds: how many swaps, how many healed, and of the others the median
    number of kept weights that differ so many rounds later; over all of them the overlap in the end, mean and least.
    """
    rounds, kept = len(own), int(np.count_nonzero(own[-1].kept))
    every = max(1, rounds // 10)
    courses = []
    for done in range(every, rounds, every):
        found = [own[done - 1].swapped()]
        found += [one.kept for one in course(network, request, dataset, done, found[0])]
        pairs = zip(own[done - 1 :], found, strict=True)
        courses.append([int(np.count_nonzero(one.kept & ~other)) for one, other in pairs])
    alive = [one for one in courses if one[-1]]
    medians = [[one[later] for one in alive if len(one) > later] for later in LATER]
    ends = [1 - one[-1] / kept for one in courses]
    told = [statistics.median(some) if some else None for some in medians]
    return (len(courses), len(courses) - len(alive), *told, statistics.fmean(ends), min(ends))


# --- accuracy


def accuracy_table(density: float, masks: int, seeds: int, epochs: int) -> None:
    """Train under masks of SynFlow that differ, each with the same seeds: the spread over masks and over seeds."""
    name = "resnet8"
    network = init_network(name, 10, 0)
    request = asked(name, "synflow", density, 100)
    found = _differing(network, request, masks)
    pairs = [(a, b) for number, a in enumerate(found) for b in found[:number]]
    overlaps = [np.count_nonzero(_flat(a) & _flat(b)) / np.count_nonzero(_flat(a)) for a, b in pairs]
    print(
        f"{name}, density {density:g}: overlap of two masks {statistics.fmean(overlaps):.4f} (least {min(overlaps):.4f})"
    )
    table = Table([("mask", 4, "d"), *((f"seed {seed}", 7, ".4f") for seed in range(seeds)), ("mean", 7, ".4f")])
    table.head()
    rows = []
    for number, mask in enumerate(found):
        options = {"epochs": epochs, "input_shape": SHAPES[name]}
        rows.append([_accuracy(network, mask, seed, options) for seed in range(seeds)])
        table.row(number, *rows[-1], statistics.fmean(rows[-1]))
    print(spreads(np.array(rows)))


def _differing(network: Network, request: PruneRequest, masks: int) -> list[Masks]:
    """The masks of weights perturbed a hundred times more, in the order of their numbers, without those that came before."""
    found: list[Masks] = []
    for number in range(4 * masks):
        one = choose_masks(perturbed(network, 100 * PERTURBATION, 0, number), request)[0]
        if all((_flat(one) != _flat(other)).any() for other in found):
            found.append(one)
        if len(found) == masks:
            return found
    raise SystemExit(f"only {len(found)} different masks of {4 * masks} prunings; ask for fewer --masks")


def _accuracy(network: Network, mask: Masks, seed: int, options: dict[str, object]) -> float:
    trained = pai.train(network.model, "digits", mask=pai.Mask(mask), seed=seed, **options)  # type: ignore[arg-type]
    return float(trained.accuracy)


def spreads(rows: Reals) -> str:
    """Standard deviations in percent with 95% intervals, of accuracies by mask (rows) and seed (columns), and the test of
    no difference between masks.

    Two-way layout without repeats: accuracy = mean + mask + seed + rest, all normal. Over seeds: that of one mask's
    accuracies, by chi squared. Over masks: the variance component (MS_mask - MS_rest) / seeds, its interval of Williams
    (1962) and Tukey (1951); a negative one is 0.
    """
    from scipy.stats import chi2, f

    masks, seeds = rows.shape
    mean, by_mask, by_seed = rows.mean(), rows.mean(1, keepdims=True), rows.mean(0, keepdims=True)
    of_masks = seeds * float(((by_mask - mean) ** 2).sum())
    of_rest = float(((rows - by_mask - by_seed + mean) ** 2).sum())
    free, left = masks - 1, (masks - 1) * (seeds - 1)
    ratio = (of_masks / free) / (of_rest / left)
    low, high = (
        of_masks * max(0.0, 1 - f.ppf(q, free, left) / ratio) / (seeds * chi2.ppf(q, free)) for q in (0.975, 0.025)
    )
    between = max(0.0, (of_masks / free - of_rest / left) / seeds)
    within, within_free = float(((rows - by_mask) ** 2).sum()), masks * (seeds - 1)
    ends = (within / chi2.ppf(0.975, within_free), within / chi2.ppf(0.025, within_free))
    return (
        f"accuracy {100 * mean:.2f}%; standard deviation over masks {_percent(between, low, high)}, over seeds "
        f"{_percent(within / within_free, *ends)} points; no difference between masks: F = {ratio:.2f}, "
        f"p = {f.sf(ratio, free, left):.2g}"
    )


def _percent(value: float, low: float, high: float) -> str:
    middle, first, last = (100 * one**0.5 for one in (value, low, high))
    return f"{middle:.2f} ({first:.2f} to {last:.2f})"


def main() -> None:
    """Print the tables of one part."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("part", choices=("overlap", "reason", "accuracy"))
    parser.add_argument("--network", choices=tuple(SHAPES), default="resnet20", help="of overlap")
    parser.add_argument("--methods", nargs="+", choices=ALL, default=ALL, help="of overlap")
    parser.add_argument("--most-rounds", type=int, default=ROUNDS[-1], help="of overlap")
    parser.add_argument("--networks", type=int, default=5, help="of overlap: initialisations")
    parser.add_argument("--prunings", type=int, default=4, help="of overlap: with perturbed weights, of each network")
    parser.add_argument("--density", type=float, default=0.01, help="of accuracy")
    parser.add_argument("--masks", type=int, default=8)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=10)
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.part == "overlap":
        overlap_table(options.network, options.methods, options.most_rounds, options.networks, options.prunings)
    elif options.part == "reason":
        reason_tables()
    else:
        accuracy_table(options.density, options.masks, options.seeds, options.epochs)


if __name__ == "__main__":
    main()
