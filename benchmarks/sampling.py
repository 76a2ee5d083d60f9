"""Searches on ResNet-20 at density 0.05: what more candidates bring, and how many are made a second. `make bench` runs it.

    python benchmarks/sampling.py --methods snip --marks 10 100
    python benchmarks/sampling.py --quick       10 and 30 candidates instead of 10, 100 and 1,000

SNIP scores with ten samples of each class of `digits`. Candidates are made by as many processes as --jobs says.

select       mask: the candidate of the largest network l2; layer: layers of several, brought back to the exact count
candidates   1 is the method's own mask
l2, dr_imdb  of the best mask so far, the network's means
explored     share of the weights that some candidate kept
taken        candidates of which something was taken

The second table is of candidates without their search: seconds of one in one process, its scoring and its measuring apart
(spectral: the share of measuring), then candidates a second in one process and in two, counted from the first that comes.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from contextlib import closing
from itertools import islice
from pathlib import Path
from typing import Any

from tables import LEFT, Table

from pai_cli.methods.registry import get
from pai_cli.models.copies import one_torch_thread
from pai_cli.models.network import Network, init_network
from pai_cli.pruning.run import PruneRequest
from pai_cli.pruning.samples import open_samples
from pai_cli.sampling.candidates import Workshop, chosen
from pai_cli.sampling.measuring import measure
from pai_cli.sampling.request import Select
from pai_cli.sampling.search import SearchRequest, search
from pai_cli.sampling.state import open_search
from pai_cli.sampling.workers import Workers, made

SEARCHES = (
    ("method", 9, LEFT),
    ("select", 6, LEFT),
    ("candidates", 10, "d"),
    ("l2", 7, ".4f"),
    ("dr_imdb", 7, ".4f"),
    ("explored", 8, ".4f"),
    ("taken", 5, "d"),
)

RATES = (
    ("method", 9, LEFT),
    ("scoring s", 9, ".4f"),
    ("measuring s", 11, ".4f"),
    ("spectral", 8, ".1%"),
    ("/s, 1 job", 9, ".2f"),
    ("/s, 2 jobs", 10, ".2f"),
    ("gain", 5, ".2fx"),
)


def workshop(network: Network, method: str, population: int, select: Select = "mask") -> Workshop:
    """What candidates of a method are made from."""
    prune = PruneRequest(get(method), 0.05, data="digits" if method in ("snip", "grasp", "iter-snip") else None)
    request = SearchRequest.of(prune, population, None, select)
    return Workshop(network, request, open_samples(prune))


def searched(table: Table, shop: Workshop, marks: list[int], jobs: int) -> None:
    """A row for each number of candidates, from one search of the most of them."""
    with tempfile.TemporaryDirectory() as folder:
        lines, state = open_search(Path(folder) / "best.safetensors", None, {}, resume=False, force=False)
        search(shop.network, shop.request, lines, state, dataset=shop.dataset, workers=Workers(jobs))
        found: list[Any] = [*lines.read()]
    for mark in marks:
        last = found[mark - 1]
        taken = sum(line["taken"] for line in found[:mark])
        cells = (last["best_l2"], last["best_dr_imdb"], last["explored"], taken)
        table.row(shop.request.prune.method.name, shop.request.select, mark, *cells)


def shares(shop: Workshop, count: int) -> tuple[float, float]:
    """Seconds of scoring and of measuring, of a candidate, the mean of `count`."""
    scoring = measuring = 0.0
    with one_torch_thread():
        for number in range(1, count + 1):
            begin = time.perf_counter()
            masks, *_ = chosen(shop, number)
            middle = time.perf_counter()
            measure(shop.network, masks, shop.cache)
            scoring, measuring = scoring + middle - begin, measuring + time.perf_counter() - middle
    return scoring / count, measuring / count


def rate(shop: Workshop, jobs: int, count: int) -> float:
    """Candidates a second, of `count` that come after the first few."""
    with closing(made(shop, 0, Workers(jobs))) as candidates:
        for _ in islice(candidates, 2 * jobs):
            pass
        begin = time.perf_counter()
        for _ in islice(candidates, count):
            pass
    return count / (time.perf_counter() - begin)


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--methods", nargs="+", default=["snip", "synflow"])
    parser.add_argument(
        "--marks", nargs="+", type=int, default=[10, 100, 1000], help="numbers of candidates to look at"
    )
    parser.add_argument("--selects", nargs="+", choices=["mask", "layer"], default=["mask", "layer"])
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--count", type=int, default=20, help="candidates of the second table")
    parser.add_argument("--quick", action="store_true", help="30 candidates, of which few are timed")
    options = parser.parse_args()
    marks = [1, 10, 30] if options.quick else [1, *sorted(options.marks)]
    count = 6 if options.quick else options.count
    network = init_network("resnet20", 10, 0)
    table = Table(SEARCHES)
    table.head()
    for method in options.methods:
        for select in options.selects:
            searched(table, workshop(network, method, marks[-1], select), marks, options.jobs)
    print()
    table = Table(RATES)
    table.head()
    for method in options.methods:
        shop = workshop(network, method, 10**6)
        scoring, measuring = shares(shop, count)
        alone, both = rate(shop, 1, count), rate(shop, 2, count)
        table.row(method, scoring, measuring, measuring / (scoring + measuring), alone, both, both / alone)


if __name__ == "__main__":
    main()
