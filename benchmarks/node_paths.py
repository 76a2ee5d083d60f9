"""Effective nodes and paths of NPB's masks beside those of ERK, SynFlow and PHEW at the same counts of every layer.

`python benchmarks/node_paths.py` measures freshly drawn networks: `npb` as it is, and by the authors' published terms. The
last rows of each density give every layer as many weights as SynFlow did.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Mapping

import numpy as np
from machine import describe
from tables import Table

from pai_cli.methods.node_paths import PUBLISHED, Terms
from pai_cli.methods.npb import choose
from pai_cli.methods.registry import get
from pai_cli.models.network import Network, init_network
from pai_cli.models.unrolled.paths import Unrolled
from pai_cli.models.unrolled.tape import unroll
from pai_cli.pruning.base import Masks, ScoreContext
from pai_cli.pruning.run import PruneRequest, choose_masks

COLUMNS = (
    ("network", 9, "<"),
    ("density", 8, "g"),
    ("masks", 26, "<"),
    ("on paths", 9, ".4f"),
    ("nodes", 6, "d"),
    ("of", 6, "d"),
    ("log paths", 10, ".2f"),
    ("balance", 8, ".4f"),
    ("s", 7, ".2f"),
)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--networks", nargs="+", default=["resnet20", "vgg16"])
    parser.add_argument("--densities", nargs="+", type=float, default=[0.05, 0.01])
    parser.add_argument("--rounds", type=int, default=10, help="of SynFlow")
    asked = parser.parse_args()
    describe()
    table = Table(COLUMNS)
    table.head()
    for name in asked.networks:
        network = init_network(name, 10, 0)
        for density in asked.densities:
            _measure(table, name, network, density, asked.rounds)


def _measure(table: Table, called: str, network: Network, density: float, rounds: int) -> None:
    unrolled = Unrolled(unroll(network.model, network.input_shape))

    def tell(what: str, masks: Masks, seconds: float) -> None:
        found = unrolled.measure(masks)
        kept = sum(one.kept for one in found.layers.values())
        share = sum(one.effective for one in found.layers.values()) / kept
        paths = (found.log_paths.value, found.node_path_balance.value)
        table.row(called, density, what, share, found.effective_nodes, found.nodes, *paths, seconds)

    counts: dict[str, Mapping[str, int]] = {}
    for method in ("erk", "phew", "synflow"):
        start = time.perf_counter()
        asked = PruneRequest(get(method), density, rounds=rounds if method == "synflow" else None)
        masks, _ = choose_masks(network, asked)
        tell(method, masks, time.perf_counter() - start)
        counts[method] = {layer: int(np.count_nonzero(mask)) for layer, mask in masks.items()}
    for of in ("erk", "synflow"):
        for name, terms in (("npb", Terms()), ("npb, published terms", PUBLISHED)):
            context = ScoreContext(
                network, network.layers, network.input_shape, "cpu", 0, method="npb", counts=counts[of]
            )
            start = time.perf_counter()
            masks = choose(context, terms)
            tell(name if of == "erk" else f"{name}, {of}'s", masks, time.perf_counter() - start)


if __name__ == "__main__":
    main()
