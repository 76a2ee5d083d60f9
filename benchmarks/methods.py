"""Every pruning method, timed beside the same score written plainly with torch.nn.utils.prune. `make bench` runs it.

    python benchmarks/methods.py --networks resnet20 --methods synflow

The networks are fresh, with 10 classes: ResNet-20 at 32 x 32, 100 rounds of SynFlow and ten samples a class; ResNet-50
(torchvision's, with its 7x7 stem) at 224 x 224, ten rounds and two samples a class. iter-snip, whose rounds cost as much as
snip, has a tenth of the rounds, but two at least. Data are the digits that come with scikit-learn. Both sides begin with the
network and the opened data set and end with masks; copying the network is counted for ours, which leaves it as it was, and
not for the plain one, which changes it. Times are the best of --repeats (by default 3 of ResNet-20 and 1 of ResNet-50), turn
and turn about, on as many threads as PyTorch takes.

plain/ours    above 1: ours is quicker
round s       ours, a round
checks s      what `pai prune` finds out besides: collapsed layers, whether input and output are still connected
same          share of the kept weights that the plain masks keep too; - for what is drawn at random

PHEW has no plain rival: its score is walks, and no scores are to be had of a network alone.
"""

from __future__ import annotations

import argparse
import copy
import os
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from machine import describe, seconds
from plain import PLAIN, Batches, Task, places_of
from tables import Table

from pai_cli.data.base import Dataset
from pai_cli.data.registry import open_dataset
from pai_cli.methods import registry
from pai_cli.methods.registry import get
from pai_cli.models.network import Network, init_network
from pai_cli.pruning.base import Masks, Pattern
from pai_cli.pruning.run import PruneRequest, choose_masks, result_of
from pai_cli.pruning.samples import draw

PATTERN = "magnitude 2:4"
AT_RANDOM = ("random", "uniform", "erk", "smart-ratio", "phew")

COLUMNS = (
    ("network", 8, "<"),
    ("method", 13, "<"),
    ("rounds", 6, "d"),
    ("ours s", 8, ".3f"),
    ("plain s", 8, ".3f"),
    ("plain/ours", 10, ".2fx"),
    ("round s", 8, ".4f"),
    ("checks s", 8, ".3f"),
    ("same", 8, ".5f"),
)


@dataclass(frozen=True)
class Setting:
    """How much of a method a network is given: rounds of the methods that go in rounds, samples a class, repeats."""

    rounds: int
    per_class: int
    repeats: int


SETTINGS = {"resnet20": Setting(100, 10, 3), "resnet50": Setting(10, 2, 1)}
QUICK = Setting(5, 2, 1)


@dataclass(frozen=True)
class Bench:
    """One network, and what it is given."""

    name: str
    network: Network
    dataset: Dataset
    setting: Setting
    density: float

    def row(self, method: str) -> tuple[str | float | None, ...]:
        """A line of the table."""
        plain = PLAIN.get(method)
        request = self._request(method)
        task = self._task(request)
        mine, theirs, checks = [], [], []
        found: list[tuple[Masks, int]] = []
        for _ in range(self.setting.repeats):
            mine.append(seconds(lambda: found.append(choose_masks(self.network, request, dataset=self.dataset))))
            checks.append(seconds(lambda: result_of(self.network, request, *found[-1])))
            if plain is None:
                continue
            model = copy.deepcopy(self.network.model)
            theirs.append(seconds(lambda model=model: plain(model, task)))  # type: ignore[misc]
        ours, rival = min(mine), min(theirs, default=None)
        ratio = None if rival is None else rival / ours
        same = None if rival is None or method in AT_RANDOM else _same(self.network, found[-1][0], model)
        return (self.name, method, task.rounds, ours, rival, ratio, ours / task.rounds, min(checks), same)

    def _request(self, method: str) -> PruneRequest:
        if method == PATTERN:
            return PruneRequest(get("magnitude"), 0.5, pattern=Pattern(2, 4))
        known = registry.METHODS[method]
        rounds = max(2, self.setting.rounds // 10) if known.data else self.setting.rounds
        return PruneRequest(
            get(method),
            self.density,
            rounds=rounds if known.iterative else None,
            data="digits" if known.data else None,
            per_class=self.setting.per_class if known.data else None,
        )

    def _task(self, request: PruneRequest) -> Task:
        batches: Batches = draw(self.dataset, request, self.network) if request.data else ()
        assert self.network.input_shape is not None
        return Task(self.density, batches, int(request.rounds or 1), self.network.input_shape)


def _same(network: Network, masks: Masks, model: torch.nn.Module) -> float:
    theirs = [getattr(module, "weight_mask", None) for module, _ in places_of(model)]
    both = kept = 0
    for layer, mask in zip(network.layers, theirs, strict=True):
        ours = masks[layer.name]
        kept += int(np.count_nonzero(ours))
        both += int(np.count_nonzero(ours & (mask.numpy() != 0 if mask is not None else True)))
    return both / kept


def benches(options: argparse.Namespace) -> Iterator[Bench]:
    """A network at a time."""
    dataset = open_dataset("digits", train=True)
    for name in options.networks:
        setting = QUICK if options.quick else SETTINGS.get(name, SETTINGS["resnet50"])
        setting = replace(setting, repeats=options.repeats or setting.repeats)
        yield Bench(name, init_network(name, 10, 0), dataset, setting, options.density)


def main() -> None:
    """Print a line a network and method."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", nargs="+", default=["resnet20", "resnet50"])
    parser.add_argument(
        "--methods", nargs="+", choices=[*registry.METHODS, PATTERN], default=[*registry.METHODS, PATTERN]
    )
    parser.add_argument("--density", type=float, default=0.05)
    parser.add_argument("--repeats", type=int)
    parser.add_argument("--quick", action="store_true", help="ResNet-20 alone, once, five rounds, two samples a class")
    options = parser.parse_args()
    if options.quick:
        options.networks = ["resnet20"]
    describe()
    print(f"PyTorch {torch.__version__}, {torch.get_num_threads()} threads of {os.cpu_count()}")
    table = Table(COLUMNS)
    table.head()
    for bench in benches(options):
        for method in options.methods:
            table.row(*bench.row(method))


if __name__ == "__main__":
    main()
