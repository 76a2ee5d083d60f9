"""What predicts accuracy on real images: twelve kinds of masks, five densities, two networks, trained on Fashion-MNIST.

    apt-get install dataset-fashion-mnist
    python benchmarks/fashion_study.py /usr/share/datasets/fashion-mnist --folder fashion-study

The kinds: eight methods; PAGS, the best by the full spectrum of 60 masks of SNIP, beside SNIP's own; expanders that are
built at ERK's densities, beside ERK's masks; and two methods' masks with each layer shuffled, which keep nothing but how
many weights each layer has.

A seed draws the network's weights, the masks and the order of the images. It gives 120 masks, each trained once, and the two
whole networks. Seeds are outermost, and in one every kind has each density before the next network comes: whatever is
finished is a study, of fewer seeds. A line a training goes to results.jsonl at once, the masks stay in masks/. The same
command goes on with what is missing, `--seeds` adds to it, and `--evaluate` only makes the page and picture of what is
there (study.md, study.svg; see `fashion_report.py`).

What is cut so that 360 masks take four hours of one core: 10,000 of the 60,000 training images, 1,000 a class (a tenth of
them choose the epoch; all 10,000 test images are for the end); 8 epochs; networks of some 100,000 weights that begin with a
step of two pixels; no augmentation; one training a mask. At that, a training takes about 35 seconds.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from functools import cache
from multiprocessing import get_context
from pathlib import Path
from typing import Any

THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")

PRUNED = ("random", "uniform", "erk", "magnitude", "phew", "synflow", "snip", "grasp")
PAGS, EXPANDER, DENSE, SHUFFLED = "pags", "ramanujan", "dense", "-shuffled"
METHODS = (*PRUNED, PAGS, EXPANDER, f"synflow{SHUFFLED}", f"snip{SHUFFLED}")
START = "snip"
"""Whose masks PAGS begins with and draws; those of the same seed are its candidate 0."""

WITH_DATA = ("snip", "grasp")
NETWORKS = ("resnet8", "vgg7")
ROWS = "results.jsonl"

Line = dict[str, Any]


@dataclass(frozen=True)
class Size:
    """How much of everything; masks of different sizes are not comparable, and do not go into one folder."""

    densities: tuple[float, ...] = (0.005, 0.0125, 0.03, 0.08, 0.2)
    a_class: int = 1000
    tested: int = 10_000
    epochs: int = 8
    population: int = 60
    networks: tuple[str, ...] = NETWORKS
    methods: tuple[str, ...] = METHODS


QUICK = Size(densities=(0.0125, 0.08), a_class=30, tested=300, epochs=1, population=3)


@dataclass(frozen=True, order=True)
class Run:
    """One mask, trained once. The order of the fields is the order of the work."""

    seed: int
    network: str
    density: float
    method: str

    @property
    def mask(self) -> str:
        """Its file, from the study's folder."""
        return f"masks/{self.network}-{self.method}-{self.density:g}-{self.seed}.safetensors"


class StudyError(Exception):
    """The folder or the data are not fit; the text says why."""


def grid(size: Size, seeds: int) -> Iterator[Run]:
    """Every run, in the order of the work: a part of it from the start is a study."""
    for seed in range(seeds):
        for network in size.networks:
            yield Run(seed, network, 1.0, DENSE)
            yield from (Run(seed, network, density, method) for density in size.densities for method in size.methods)


@cache
def images(folder: str, a_class: int, tested: int) -> tuple[Any, Any, Any, Any]:
    """x, y, x_test, y_test: the same for every run, scaled and standardised as `--data` does it."""
    import numpy as np

    from pai_cli.data.batches import choose
    from pai_cli.data.registry import open_dataset

    train, test = (open_dataset(folder, train=part) for part in (True, False))
    chosen, last = choose(train, a_class, seed=0), np.arange(min(tested, len(test)))
    return train.examples(chosen), train.labels[chosen], test.examples(last), test.labels[last]


def network_of(name: str, seed: int) -> Any:
    """The network with the weights of that seed."""
    import fashion_networks
    import torch

    torch.manual_seed(seed)
    return getattr(fashion_networks, name)().eval()


def mask_of(run: Run, network: Any, data: tuple[Any, Any], population: int) -> Any:
    """The mask of a run, made by the library."""
    from fashion_networks import SHAPE

    import pai_cli as pai

    common: dict[str, Any] = {"density": run.density, "seed": run.seed, "input_shape": SHAPE, "device": "cpu"}
    if run.method == EXPANDER:
        return pai.sample(network, construct=EXPANDER, jobs=1, **common)
    if run.method == PAGS:
        return pai.sample(network, START, population, select="layer", data=data, jobs=1, **common)
    method = run.method.removesuffix(SHUFFLED)
    shuffle = method != run.method
    return pai.prune(network, method, data=data if method in WITH_DATA else None, shuffle=shuffle, **common)


def measures(mask: Any, network: Any) -> dict[str, float | None]:
    """Every metric of a mask over the network that the library has, and the controls; None where there is no value."""
    from fashion_networks import SHAPE

    import pai_cli as pai

    found: dict[str, float | None] = {}
    choices: tuple[dict[str, Any], ...] = ({"no_store": True}, {"between": True})
    for options in choices:
        whole = pai.analyze(mask, weights=network, input_shape=SHAPE, **options).to_dict()["network"]
        names = [name.removesuffix("_error") for name in whole if name.endswith("_error")]
        found |= {name: whole[name] for name in names}
    return found | {"kept": float(mask.kept)}


def done(run: Run, folder: Path, data: str, size: Size) -> Line:
    """Make the mask, keep it, train it, measure it: the line of a run. What cannot be made is a line with the error."""
    import pai_cli as pai

    warnings.simplefilter("ignore", pai.PaiWarning)  # of collapsed layers: the line has them
    begin = time.process_time()
    x, y, *_ = parts = images(data, size.a_class, size.tested)
    network = network_of(run.network, run.seed)
    line: Line = asdict(run)
    try:
        mask = None if run.method == DENSE else mask_of(run, network, (x, y), size.population)
        if mask is not None:
            mask.save(folder / run.mask, force=True)  # of an interrupted run, one may be there
            line |= {"mask": run.mask, "collapsed_layers": list(mask.collapsed), "metrics": measures(mask, network)}
            if run.method == PAGS:
                line["layers_from"] = mask.search.sources
        trained = pai.train(
            network,
            parts,
            mask=mask,
            epochs=size.epochs,
            schedule="cosine",
            augment="none",
            seed=run.seed,
            device="cpu",
        )
    except pai.Error as error:
        return line | {"error": str(error), "cpu_seconds": round(time.process_time() - begin, 2)}
    line |= {"accuracy": trained.accuracy, "interval": trained.interval, "epoch": trained.epoch}
    line |= {"validation_accuracy": trained.validation_accuracy}
    return line | {"cpu_seconds": round(time.process_time() - begin, 2)}


def lines_of(folder: Path) -> list[Line]:
    """What is finished; a line that is not whole is not."""
    path = folder / ROWS
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    return [json.loads(line) for line in text[: text.rfind("\n") + 1].splitlines()]


def cut(path: Path) -> None:
    """Take away a last line that a killed process has left without its end."""
    content = path.read_bytes() if path.exists() else b""
    if not content.endswith(b"\n") and content:
        os.truncate(path, content.rfind(b"\n") + 1)


def run_of(line: Mapping[str, Any]) -> Run:
    """The run of a line."""
    return Run(line["seed"], line["network"], line["density"], line["method"])


def work(todo: list[Run], jobs: int, task: Callable[[Run], Line]) -> Iterator[Line]:
    """The lines of all runs, as they are finished."""
    if jobs == 1:
        yield from map(task, todo)
        return
    pool = ProcessPoolExecutor(jobs, mp_context=get_context("spawn"))
    try:
        yield from (future.result() for future in as_completed([pool.submit(task, run) for run in todo]))
    finally:
        pool.shutdown(cancel_futures=True)


@dataclass(frozen=True)
class Task:
    """What a process is given to do with a run."""

    folder: Path
    data: str
    size: Size

    def __call__(self, run: Run) -> Line:
        """The line of the run."""
        return done(run, self.folder, self.data, self.size)


def train_all(task: Task, seeds: int, jobs: int) -> None:
    """Everything that is not there yet."""
    runs = list(grid(task.size, seeds))
    finished = {run_of(line) for line in lines_of(task.folder)}
    todo = [run for run in runs if run not in finished]
    begin = time.monotonic()
    cut(task.folder / ROWS)
    with (task.folder / ROWS).open("a", encoding="utf-8") as stream:
        for number, line in enumerate(work(todo, jobs, task), start=1):
            stream.write(json.dumps(line) + "\n")
            stream.flush()
            os.fsync(stream.fileno())
            said = line.get("error") or f"{100 * line['accuracy']:.2f}%"
            where = f"{len(runs) - len(todo) + number}/{len(runs)} {Path(run_of(line).mask).stem}: {said}"
            times = f"{line['cpu_seconds']:.0f} s of a core, {time.monotonic() - begin:.0f} s in all"
            print(f"{where} ({times})", file=sys.stderr, flush=True)


def prepare(folder: Path, data: str, size: Size) -> None:
    """Note the numbers in a new folder. Raises `StudyError` for one begun with others: they must not be mixed."""
    (folder / "masks").mkdir(parents=True, exist_ok=True)
    path, text = folder / "size.json", json.dumps(asdict(size))
    if path.exists() and json.loads(path.read_text(encoding="utf-8")) != json.loads(text):
        raise StudyError(f"{folder}: holds a study of other numbers; give another --folder, or empty this one")
    if not path.exists() and (folder / ROWS).exists():
        raise StudyError(f"{folder}: has {ROWS} and no size.json; give another --folder")
    if not path.exists():
        path.write_text(text, encoding="utf-8")
    if not Path(data).exists():
        raise StudyError(f"{data}: no such folder; on Debian and Ubuntu: apt-get install dataset-fashion-mnist")


def measured_again(folder: Path, lines: Iterable[Line]) -> Iterator[Line]:
    """The lines with the metrics that the library has now, of the masks that are kept."""
    import pai_cli as pai

    warnings.simplefilter("ignore", pai.PaiWarning)
    for line in lines:
        if "metrics" in line:
            if not (folder / line["mask"]).exists():
                raise StudyError(
                    f"{folder / line['mask']}: is not there to be measured again; leave --measure-again out"
                )
            mask, network = pai.Mask.load(folder / line["mask"]), network_of(line["network"], line["seed"])
            yield {**line, "metrics": measures(mask, network)}
        else:
            yield line


def main() -> int:
    """Run the study; 130 when interrupted, with what is finished kept."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("data", help="the folder with the four IDX files")
    parser.add_argument("--folder", type=Path, default=Path("fashion-study"), help="where everything goes")
    parser.add_argument("--seeds", type=int, default=3, help="how many seeds")
    parser.add_argument("--jobs", type=int, default=1, help="how many trainings at a time, each on one thread")
    parser.add_argument("--quick", action="store_true", help="a little of everything, which proves nothing")
    parser.add_argument("--evaluate", action="store_true", help="train nothing; the page of what is there")
    parser.add_argument("--measure-again", action="store_true", help="take the metrics of the masks that are kept anew")
    options = parser.parse_args()
    size = QUICK if options.quick else Size()
    os.environ.update(dict.fromkeys(THREADS, "1"))  # before anything that reads them is imported, here or in a process
    try:
        prepare(options.folder, options.data, size)
        if not options.evaluate:
            train_all(Task(options.folder, options.data, size), options.seeds, options.jobs)
        lines = lines_of(options.folder)
        if options.measure_again:
            lines = list(measured_again(options.folder, lines))
    except KeyboardInterrupt:
        print(f"interrupted; the same command goes on with what is in {options.folder}", file=sys.stderr)
        return 130
    except StudyError as error:
        print(error, file=sys.stderr)
        return 1
    from fashion_report import write

    print(write(options.folder, lines, size, options.seeds))
    return 0


if __name__ == "__main__":
    sys.exit(main())
