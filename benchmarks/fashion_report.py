"""The page of the study on Fashion-MNIST: accuracies, what goes with them, and the answers that they give.

Metrics are compared over pairs of masks of the same network and density (`partial_tau.py` says how), with layer density and,
where the library measures it, the share of kept weights on a path given.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from digits_study import interval, markdown, percent
from partial_tau import NONE, Estimate, Floats, Strata

from pai_cli.spectral.catalogue import WHOLE

Line = Mapping[str, Any]

LAYER_DENSITY, SHARE = "layer_density", "effective_share"
CONTROLS = (LAYER_DENSITY, SHARE)
NOT_SPECTRAL = tuple(WHOLE)
"""What is reported beside the metrics of the spectrum and its graph; the question is about those."""

PAIRS = (
    ("pags", "snip", "PAGS and its start, SNIP"),
    ("ramanujan", "erk", "expanders and ERK"),
    ("synflow-shuffled", "synflow", "SynFlow shuffled and not"),
    ("snip-shuffled", "snip", "SNIP shuffled and not"),
)


class Size(Protocol):
    """How much there was to be."""

    @property
    def densities(self) -> tuple[float, ...]:
        """Shares of weights kept."""
        ...

    @property
    def networks(self) -> tuple[str, ...]:
        """Names of the networks."""
        ...

    @property
    def methods(self) -> tuple[str, ...]:
        """Kinds of masks."""
        ...


@dataclass(frozen=True)
class Row:
    """A metric with accuracy: alone, given layer density, and given the share on paths too; `kendall` is Kendall's form."""

    metric: str
    masks: int
    alone: Estimate
    kendall: Estimate
    given: Estimate
    by_kind: Estimate
    both: Estimate

    @property
    def spectral(self) -> bool:
        """Whether it is of the spectrum or the layer graphs, and no control."""
        return self.metric not in NOT_SPECTRAL


@dataclass(frozen=True)
class Results:
    """What is there of a study, and what there was to be."""

    lines: Sequence[Line]
    size: Size
    seeds: int

    @cached_property
    def masks(self) -> list[Line]:
        """The lines of masks that were trained."""
        return [line for line in self.lines if "metrics" in line and "accuracy" in line]

    @property
    def planned(self) -> int:
        """How many masks there are in the end."""
        return self.seeds * len(self.size.networks) * len(self.size.densities) * len(self.size.methods)

    def accuracies(self, network: str, method: str, density: float) -> dict[int, float]:
        """By seed."""
        wanted = (network, method, density)
        found = (line for line in self.lines if (line["network"], line["method"], line["density"]) == wanted)
        return {line["seed"]: line["accuracy"] for line in found if "accuracy" in line}

    def differences(self, one: str, other: str, densities: Sequence[float]) -> list[float]:
        """Of accuracies, the first less the second, by the same network, density and seed."""
        found = []
        for network in self.size.networks:
            for density in densities:
                first, second = (self.accuracies(network, method, density) for method in (one, other))
                found += [first[seed] - second[seed] for seed in first if seed in second]
        return found

    def values(self, metric: str) -> Floats:
        """NaN where there is none."""
        found = [line["metrics"].get(metric) for line in self.masks]
        return np.array([math.nan if one is None else one for one in found], dtype=np.float64)

    def numbered(self, key: Callable[[Line], Any]) -> np.ndarray[Any, np.dtype[np.int64]]:
        """A number a mask: equal where the key is."""
        return np.unique([str(key(line)) for line in self.masks], return_inverse=True)[1].astype(np.int64)

    @cached_property
    def rows(self) -> list[Row]:
        """Every metric that varies: layer density, then the others, the strongest given it first."""
        strata = Strata.of(
            self.numbered(lambda line: (line["network"], line["density"])), self.numbered(lambda line: line["method"])
        )
        y = np.array([line["accuracy"] for line in self.masks])
        names = [name for name in self.masks[0]["metrics"] if np.isfinite(self.values(name)).sum() > 2]
        controls = [self.values(name) for name in CONTROLS if name in names]
        found = [self._row(name, y, controls, strata, len(names)) for name in names]
        kept = [row for row in found if np.isfinite(row.alone.value)]
        return sorted(kept, key=lambda row: (row.metric != LAYER_DENSITY, -abs(np.nan_to_num(row.given.value))))

    def _row(self, name: str, y: Floats, controls: list[Floats], strata: Strata, together: int) -> Row:
        x = self.values(name)
        alone = strata.association([x, y], together=together)
        if name == LAYER_DENSITY:
            return Row(name, len(y), alone, NONE, NONE, NONE, NONE)
        one = [x, y, controls[0]]
        both = [x, y, *controls] if len(controls) == len(CONTROLS) and name != SHARE else None
        return Row(
            name,
            int(np.isfinite(x).sum()),
            alone,
            strata.association(one, normal=False),
            strata.association(one, together=together),
            strata.association(one, by_kind=True),
            strata.association(both, together=together) if both else NONE,
        )


def told(one: Estimate) -> str:
    """`+0.31 (+0.22 to +0.40)`."""
    if not math.isfinite(one.value):
        return "-"
    return (
        f"{one.value:+.2f} ({one.low:+.2f} to {one.high:+.2f})" if math.isfinite(one.low) else f"{one.value:+.2f} (-)"
    )


def write(folder: Path, lines: Sequence[Line], size: Size, seeds: int) -> str:
    """Write study.md and study.svg, and give the text."""
    from fashion_picture import picture

    from pai_cli.display.figures.canvas import write_picture

    results = Results(lines, size, seeds)
    if len(results.masks) < 3:
        return f"{len(results.masks)} masks are trained: too few to compare"
    text = page(results)
    (folder / "study.md").write_text(text, encoding="utf-8")
    write_picture(picture(results), folder / "study.svg", force=True)
    return text


def page(results: Results) -> str:
    """The whole page, as Markdown."""
    there, planned = len(results.masks), results.planned
    state = f"All {there} masks." if there >= planned else f"**Interim: {there} of {planned} masks.**"
    failed = [
        f"- {line['network']} {line['method']} {line['density']:g}: {line['error']}"
        for line in results.lines
        if "error" in line
    ]
    parts = [
        "# What predicts accuracy: Fashion-MNIST\n",
        f"{state} Test accuracies in percent; intervals are 95%. `fashion_study.py` says what was trained.\n",
        "![Accuracy by density, and what goes with it](study.svg)\n",
        "## Answers\n",
        *(f"- {one}" for one in (beyond(results), *(compared(results, *pair) for pair in PAIRS), sparsest(results))),
        "\n## Accuracy\n",
        *(
            f"{network}, whole: {whole(results, network)}\n\n{table(results, network)}"
            for network in results.size.networks
        ),
        "## What goes with accuracy\n",
        f"{HOW}\n",
        associations(results),
        *(["## Not made\n", *failed] if failed else []),
    ]
    return "\n".join(parts)


HOW = """Kendall's tau over pairs of masks of one network and density. *Given layer density* is the partial tau in its
normal form, which is 0 for what goes with accuracy through layer density alone; Kendall's own form, beside it, is not, and
flatters. Intervals draw masks anew, and in *whole kinds drawn* all masks of a kind together: masks of a kind are alike, so
that twelve kinds tell less than their masks seem to. Bold: the interval would leave out 0 if it held for all metrics."""


def beyond(results: Results) -> str:
    """Whether a metric of the spectrum predicts accuracy beyond the controls."""
    rows = [row for row in results.rows if row.spectral]
    by_layers = next((row.alone for row in results.rows if row.metric == LAYER_DENSITY), NONE)
    firm = [row for row in rows if row.given.firm]
    safe = [row for row in firm if row.by_kind.apart and row.by_kind.value * row.given.value > 0]
    said = [
        "**Does a metric of the layers' graphs predict accuracy beyond layer density?**",
        f"Layer density alone: tau {told(by_layers)}.",
        f"Given it, {len(firm)} of {len(rows)} metrics go with accuracy when all are asked at once{names(firm)};",
        f"{len(safe)} do when whole kinds of masks are drawn as well{names(safe)}.",
    ]
    if any(math.isfinite(row.both.value) for row in rows):
        last = [row for row in rows if row.both.firm]
        said.append(f"Given the share of weights on a path as well: {len(last)}{names(last, both=True)}.")
    else:
        said.append("Given the share of weights on a path as well: not measured yet.")
    return " ".join(said)


def names(rows: Sequence[Row], *, both: bool = False) -> str:
    """The first few, with their values."""
    some = [f"{row.metric} {(row.both if both else row.given).value:+.2f}" for row in rows[:4]]
    return f" ({', '.join(some)}{', ...' if len(rows) > len(some) else ''})" if some else ""


def compared(results: Results, one: str, other: str, called: str) -> str:
    """The difference of two kinds by the same network, density and seed, all densities and each."""
    every = results.differences(one, other, results.size.densities)
    if not every:
        return f"**{called[0].upper()}{called[1:]}**: no pair yet."
    each = []
    for density in results.size.densities:
        found = results.differences(one, other, [density])
        each += [f"{density:g}: {percent(found, signed=True)}"] if found else []
    title, pairs = f"{called[0].upper()}{called[1:]}", "by the same network, density and seed"
    return (
        f"**{title}**: {percent(every, signed=True)} points, mean of {len(every)}, {pairs} ({verdict(every)}); by density "
        f"{'; '.join(each)}."
    )


def verdict(values: Sequence[float]) -> str:
    """Whether the interval of a mean difference leaves out 0."""
    if len(values) < 2:
        return "too few to say"
    _, low, high = interval(values)
    if low > 0:
        return "better"
    return "worse" if high < 0 else "no difference to be seen"


def sparsest(results: Results) -> str:
    """SynFlow beside the others at the lowest density."""
    density, found = min(results.size.densities), []
    for network in results.size.networks:
        means = {
            method: float(np.mean(list(values.values())))
            for method in results.size.methods
            if (values := results.accuracies(network, method, density))
        }
        if "synflow" in means:
            order = sorted(means, key=lambda method: -means[method])
            best = next(method for method in order if method != "synflow")
            own = percent(list(results.accuracies(network, "synflow", density).values()))
            place = f"{order.index('synflow') + 1} of {len(order)}"
            found.append(f"{network} {own}, place {place}; the best other is {best}, {100 * means[best]:.1f}")
    return f"**SynFlow at {density:g}**: {'. '.join(found) or 'not trained yet'}."


def whole(results: Results, network: str) -> str:
    """The accuracy of the unpruned network."""
    values = list(results.accuracies(network, "dense", 1.0).values())
    return percent(values) if values else "not trained yet"


def table(results: Results, network: str) -> str:
    """Means by kind and density."""
    densities = results.size.densities
    rows = []
    for method in results.size.methods:
        cells = [list(results.accuracies(network, method, density).values()) for density in densities]
        rows.append([method, *(percent(values) if values else "" for values in cells)])
    return markdown(["kind", *(f"density {density:g}" for density in densities)], rows)


def associations(results: Results) -> str:
    """A row a metric."""
    head = ["metric", "masks", "tau", "given layer density", "Kendall's form", "whole kinds drawn", "given paths too"]
    rows = []
    for row in results.rows:
        given, both = (f"**{told(one)}**" if one.firm else told(one) for one in (row.given, row.both))
        rows.append(
            [f"`{row.metric}`", str(row.masks), told(row.alone), given, told(row.kendall), told(row.by_kind), both]
        )
    return markdown(head, rows)
