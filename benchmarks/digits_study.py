"""Is the ranking right: a small study on `digits`, from checkpoints to tables, through the commands as a person types them.

    python benchmarks/digits_study.py --folder study

One ResNet-8, seven methods, four densities: 28 masks, each trained with three seeds; `pai rank --accuracy` then says which
metric predicts the mean accuracy of a mask. Beside it, on masks of density 0.02: the recipe of ToST against the plain one
on the same masks, and Gem-Miner against random, magnitude and SNIP, for which every seed draws network, mask and training.

The folder gets results.csv, tost.csv, gem-miner.csv (a row a training), metrics.csv, ranking.csv, study.svg and study.md,
the tables with 95% intervals. What is there is not done again, so that an interrupted study goes on. Two commands run at a
time, each on one thread. `--quick` shows in a few minutes that it all works, and proves nothing.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from pathlib import Path

METHODS = ("random", "erk", "magnitude", "snip", "grasp", "synflow", "phew")
WITH_DATA = ("snip", "grasp", "gem-miner")
SHAPE = ("--input-shape", "3,8,8")
DATA = ("--data", "digits", *SHAPE)
COMPARED = 0.02
SUBSET = ("random", "magnitude", "snip", "synflow")
RIVALS = ("gem-miner", "random", "magnitude", "snip")
AT_A_TIME = 2

Task = Callable[[], None]
Rows = list[dict[str, str]]


@dataclass(frozen=True)
class Size:
    """How much of everything."""

    densities: tuple[float, ...] = (0.005, 0.01, 0.02, 0.05)
    seeds: tuple[int, ...] = (0, 1, 2)
    own_seeds: tuple[int, ...] = (0, 1, 2, 3, 4)
    epochs: int = 20
    search_epochs: int = 30


QUICK = Size(densities=(0.02, 0.05), seeds=(0, 1), own_seeds=(0, 1), epochs=3, search_epochs=7)


class CommandError(Exception):
    """A command failed; the text is the command and what it said."""


def pai(*arguments: object) -> str:
    """Run a command on one thread; gives what it wrote to standard output. Raises `CommandError`."""
    command = [sys.executable, "-m", "pai_cli", *map(str, arguments)]
    one = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    done = subprocess.run(command, env={**os.environ, **one}, capture_output=True, text=True, check=False)
    if done.returncode:
        raise CommandError(f"pai {' '.join(map(str, arguments))}: exit status {done.returncode}: {done.stderr.strip()}")
    return done.stdout


def all_of(title: str, tasks: Iterable[Task]) -> None:
    """Do the tasks, two at a time; a line tells how long they took."""
    begin = time.monotonic()
    pool = ThreadPoolExecutor(AT_A_TIME)
    waiting = [pool.submit(task) for task in tasks]
    try:
        for number, future in enumerate(as_completed(waiting), start=1):
            future.result()
            if sys.stderr.isatty():
                print(f"\r{title}: {number}/{len(waiting)}", end="", file=sys.stderr, flush=True)
    finally:
        pool.shutdown(cancel_futures=True)
        if sys.stderr.isatty():
            print("\r", end="", file=sys.stderr)
    print(f"{title}: {len(waiting)} in {time.monotonic() - begin:.0f} s", file=sys.stderr, flush=True)


class Study:
    """The files of a study, and the commands that make them."""

    def __init__(self, folder: Path, size: Size):
        self.folder, self.size = folder, size
        for name in ("networks", "masks", "trained"):
            (folder / name).mkdir(parents=True, exist_ok=True)

    def network(self, seed: int) -> Path:
        """The checkpoint of that seed."""
        return self.folder / "networks" / f"resnet8-{seed}.safetensors"

    def mask(self, method: str, density: float, seed: int) -> Path:
        """The method's mask of the network of that seed."""
        return self.folder / "masks" / f"{method}-{density:g}-{seed}.safetensors"

    def constants(self, seed: int) -> Path:
        """The weights that Gem-Miner's mask of that seed belongs to."""
        return self.folder / "networks" / f"gem-miner-{seed}.safetensors"

    def init(self, seed: int) -> None:
        """Make the network, unless it is there."""
        if not self.network(seed).exists():
            pai("init", "resnet8", "--seed", seed, "-o", self.network(seed))

    def prune(self, method: str, density: float, seed: int) -> None:
        """Make the mask, unless it is there."""
        path = self.mask(method, density, seed)
        state = path.with_name(f"{path.stem}.state.safetensors")
        if path.exists() and not state.exists():
            return
        more: list[object] = list(DATA) if method in WITH_DATA else list(SHAPE)
        if method == "gem-miner":
            more += ["--epochs", self.size.search_epochs, "-w", self.constants(seed)]
            more += ["--resume", "--force"] if state.exists() else ["--force"]
        pai(*("prune", self.network(seed), "--method", method, "--density", density, "--seed", seed), *more, "-o", path)

    def train(self, table: str, checkpoint: Path, mask: Path, seed: int, recipe: str = "plain") -> None:
        """Train, unless the table has the row; from where it was interrupted, where it was."""
        if any((row["mask"], row["seed"]) == (str(mask), str(seed)) for row in self.rows(table)):
            return
        out = self.folder / "trained" / f"{mask.stem}-{Path(table).stem}-{seed}.safetensors"
        going_on = ["--resume"] if out.with_suffix(".jsonl").exists() else []
        wish = ("--epochs", self.size.epochs, "--seed", seed, "--recipe", recipe, "--results", self.folder / table)
        pai("train", checkpoint, "--mask", mask, *DATA, *wish, "-o", out, *going_on)

    def rows(self, table: str) -> Rows:
        """The rows so far."""
        path = self.folder / table
        if not path.exists():
            return []
        with path.open(newline="", encoding="utf-8") as stream:
            return list(csv.DictReader(stream))

    def accuracies(self, table: str, mask: Path, seeds: Iterable[int]) -> list[float]:
        """Of a mask's trainings, in the order of the seeds."""
        found = {row["seed"]: float(row["accuracy"]) for row in self.rows(table) if row["mask"] == str(mask)}
        return [found[str(seed)] for seed in seeds]

    def run(self) -> None:
        """Everything that is not there yet."""
        size, train = self.size, self.train
        grid = [(method, density) for density in size.densities for method in METHODS]
        own = [(method, seed) for seed in size.own_seeds for method in RIVALS]
        pruned = list(dict.fromkeys([(m, d, 0) for m, d in grid] + [(m, COMPARED, s) for m, s in own]))
        all_of("networks", [lambda s=s: self.init(s) for s in {0, *size.own_seeds}])  # type: ignore[misc]
        all_of("masks", [lambda one=one: self.prune(*one) for one in pruned])  # type: ignore[misc]
        base = self.network(0)
        plain = [("results.csv", base, self.mask(m, d, 0), s, "plain") for m, d in grid for s in size.seeds]
        tost = [("tost.csv", base, self.mask(m, COMPARED, 0), s, "tost") for m in SUBSET for s in size.seeds]
        mined = [("gem-miner.csv", self._start(m, s), self.mask(m, COMPARED, s), s) for m, s in own]
        all_of("trainings", [lambda one=one: train(*one) for one in plain])  # type: ignore[misc]
        all_of("trainings by ToST", [lambda one=one: train(*one) for one in tost])  # type: ignore[misc]
        all_of("trainings beside Gem-Miner", [lambda one=one: train(*one) for one in mined])  # type: ignore[misc]
        masks = [self.mask(m, d, 0) for m, d in grid]
        begin = time.monotonic()
        (self.folder / "metrics.csv").write_text(
            pai("analyze", *masks, "--weights", base, "--summary", "--format", "csv"), encoding="utf-8"
        )
        ranked = ("rank", *masks, "--weights", base, "--accuracy", self.folder / "results.csv")
        picture = ("--plot", self.folder / "study.svg", "--force")
        (self.folder / "ranking.csv").write_text(pai(*ranked, "--format", "csv", *picture), encoding="utf-8")
        print(f"analyze and rank: {time.monotonic() - begin:.0f} s", file=sys.stderr)

    def _start(self, method: str, seed: int) -> Path:
        return self.constants(seed) if method == "gem-miner" else self.network(seed)


def interval(values: Sequence[float]) -> tuple[float, float, float]:
    """Mean and the two ends of Student's 95% interval of it; NaN ends for one value."""
    from scipy.stats import t

    mean = statistics.fmean(values)
    if len(values) < 2:
        return mean, float("nan"), float("nan")
    half = float(t.ppf(0.975, len(values) - 1)) * statistics.stdev(values) / len(values) ** 0.5
    return mean, mean - half, mean + half


def percent(values: Sequence[float], *, signed: bool = False) -> str:
    """`97.2 (95.1 to 99.3)` in percent; equal values have no spread to make an interval of."""
    if len(set(values)) == 1:
        return f"{100 * values[0]:{'+' if signed else ''}.1f} (-)"
    mean, low, high = (100 * one for one in interval(values))
    sign = "+" if signed else ""
    return f"{mean:{sign}.1f} ({low:{sign}.1f} to {high:{sign}.1f})"


def markdown(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def report(study: Study) -> str:
    """The tables as Markdown."""
    size = study.size
    grid = markdown(
        ["method", *(f"density {density:g}" for density in size.densities)],
        (
            [m, *(percent(study.accuracies("results.csv", study.mask(m, d, 0), size.seeds)) for d in size.densities)]
            for m in METHODS
        ),
    )
    return f"""# A study on digits

ResNet-8 (74,800 prunable weights), {size.epochs} epochs; 1,297 images to train with, 145 to choose the epoch by, 355 to test
on once. Test accuracies in percent, means with 95% t intervals over trainings
(which know nothing of 0 and 100; "-" where all are equal).

## Seven methods, one mask each at a density, trained with {len(size.seeds)} seeds

{grid}
## Which metric predicts them

Kendall's tau of each metric with the mean accuracy of a mask, over all pairs of masks of equal density; p corrected for the
number of metrics (Holm).

{predicting(study)}
## ToST and the plain recipe on the same masks, density {COMPARED:g}

{against_tost(study)}
## Gem-Miner at density {COMPARED:g}

Every seed draws its network, mask and training ({len(size.own_seeds)} seeds). Gem-Miner's search came before, one of
{size.search_epochs} epochs that ends at its last freeze; its ticket is trained from its signed constants. Differences are of
the same seed.

{against_gem_miner(study)}"""


def predicting(study: Study) -> str:
    """The pooled correlations, the strongest first."""
    pooled = [row for row in study.rows("ranking.csv") if row["scope"] == "pooled"]
    known = sorted((row for row in pooled if row["tau"]), key=lambda row: -abs(float(row["tau"])))
    lines = []
    for row in known:
        low, high = (f"{float(row[key]):+.2f}" if row[key] else "-" for key in ("tau_low", "tau_high"))
        p = f"{float(row['tau_p_holm']):.2g}" if row["tau_p_holm"] else "-"
        lines.append([f"`{row['metric']}`", row["n"], f"{float(row['tau']):+.2f}", f"{low} to {high}", p])
    return markdown(["metric", "masks", "tau", "95% interval", "p"], lines)


def against_tost(study: Study) -> str:
    """Both recipes, and their difference by the same mask and seed."""
    seeds = study.size.seeds
    lines, gains = [], []
    for method in SUBSET:
        mask = study.mask(method, COMPARED, 0)
        plain, tost = (study.accuracies(table, mask, seeds) for table in ("results.csv", "tost.csv"))
        gain = [b - a for a, b in zip(plain, tost, strict=True)]
        gains += gain
        lines.append([method, percent(plain), percent(tost), percent(gain, signed=True)])
    lines.append(["all masks and seeds", "", "", percent(gains, signed=True)])
    return markdown(["method", "plain", "ToST", "difference"], lines)


def against_gem_miner(study: Study) -> str:
    """Each method, and Gem-Miner's lead over it by the same seed."""
    seeds = study.size.own_seeds
    found = {
        method: [study.accuracies("gem-miner.csv", study.mask(method, COMPARED, seed), [seed])[0] for seed in seeds]
        for method in RIVALS
    }
    lines = []
    for method, values in found.items():
        lead = [a - b for a, b in zip(found["gem-miner"], values, strict=True)]
        lines.append([method, percent(values), "" if method == "gem-miner" else percent(lead, signed=True)])
    return markdown(["method", "accuracy", "Gem-Miner's lead"], lines)


def check_size(folder: Path, size: Size) -> None:
    """Note the numbers in a new folder. Raises `CommandError` for one begun with others: they must not be mixed."""
    folder.mkdir(parents=True, exist_ok=True)
    path, text = folder / "size.json", json.dumps(asdict(size))
    if (not path.exists() and any(folder.iterdir())) or (path.exists() and path.read_text(encoding="utf-8") != text):
        raise CommandError(f"{folder}: holds a study of other numbers; give another --folder, or empty this one")
    path.write_text(text, encoding="utf-8")


def main() -> int:
    """Run the study; 130 when interrupted, with what is finished kept."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--folder", type=Path, default=Path("digits-study"), help="where everything goes")
    parser.add_argument("--quick", action="store_true", help="a few epochs of everything, which prove nothing")
    options = parser.parse_args()
    size = QUICK if options.quick else Size()
    begin = time.monotonic()
    try:
        check_size(options.folder, size)
        study = Study(options.folder, size)
        study.run()
    except KeyboardInterrupt:
        print(f"interrupted; the same command goes on with what is in {options.folder}", file=sys.stderr)
        return 130
    except CommandError as error:
        print(error, file=sys.stderr)
        return 1
    text = report(study)
    (options.folder / "study.md").write_text(text, encoding="utf-8")
    print(text)
    print(f"{time.monotonic() - begin:.0f} s; all of it is in {options.folder}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
