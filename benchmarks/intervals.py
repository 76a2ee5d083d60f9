"""How often the 95% bootstrap intervals of `pai rank` hold the truth, on normal data whose correlations are known.

    python benchmarks/intervals.py [--trials 600]

For a normal distribution with correlation r, Kendall's tau is 2/pi asin(r) and Spearman's rho 6/pi asin(r/2). With several
groups each has masks of its own, and the pooled correlation is taken. (Pooled rho of small groups is of ranks within them,
whose expectation lies a little below.)

The second table is of partial taus: x and y have with a control a correlation `shared`, and beyond it a partial correlation
`r`, whose partial tau is 2/pi asin(r). `given` is the share of trials with an interval, `held` that of those whose interval
holds the truth, `p <= 5%` that of those whose p is as small: at r = 0 it should be 5% at most.
"""

from __future__ import annotations

import argparse
import math

import numpy as np
from tables import Table

from pai_cli.ranking.bootstrap import draw, resampled
from pai_cli.ranking.partial import Held, partials
from pai_cli.ranking.statistics import Sample, dense_ranks

CASES = ((6, 1), (10, 1), (20, 1), (50, 1), (6, 5), (10, 5))  # masks in a group, groups


def held(size: int, groups: int, r: float, trials: int, rng: np.random.Generator) -> list[float]:
    """The share of trials in which the intervals of tau, rho and r hold the truth."""
    truth = (2 / math.pi * math.asin(r), 6 / math.pi * math.asin(r / 2), r)
    strata = tuple(np.arange(size) + k * size for k in range(groups))
    count = np.zeros(3)
    for _ in range(trials):
        x = rng.normal(size=size * groups)
        y = r * x + math.sqrt(1 - r * r) * rng.normal(size=size * groups)
        sample = Sample(x, y, dense_ranks(x), dense_ranks(y), strata)
        counts = draw(strata, np.arange(len(x)), 600, rng)
        low, high = np.nanpercentile(resampled([sample], counts)[0], (2.5, 97.5), axis=1)
        count += (low <= truth) & (truth <= high)
    return [float(share) for share in count / trials]


def partials_held(
    size: int, groups: int, *, shared: float, r: float, trials: int, rng: np.random.Generator
) -> list[float]:
    """The share of trials with an interval of the partial tau; of those, that hold the truth, and with p of 5% at most."""
    truth, strata = 2 / math.pi * math.asin(r), tuple(np.arange(size) + k * size for k in range(groups))
    found = []
    for _ in range(trials):
        z, e, f = rng.normal(size=(3, size * groups))
        own = math.sqrt(1 - shared * shared)
        x, y = shared * z + own * e, shared * z + own * (r * e + math.sqrt(1 - r * r) * f)
        counts = draw(strata, np.arange(len(x)), 600, rng)
        found.append(partials([dense_ranks(x)], Held(dense_ranks(y), [dense_ranks(z)], strata, counts, len(x)))[0])
    known = [one for one in found if one.low is not None and one.high is not None and one.p is not None]
    holding = sum((one.low or 0) <= truth <= (one.high or 0) for one in known)
    small = sum((one.p or 0) <= 0.05 for one in known)
    return [len(known) / trials, holding / max(1, len(known)), small / max(1, len(known))]


def main() -> None:
    """Print a line a case."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--trials", type=int, default=600)
    options = parser.parse_args()
    rng = np.random.default_rng(5)
    table = Table(
        [("masks", 5, "d"), ("groups", 6, "d"), ("r", 4, ".2f"), *((n, 6, ".1%") for n in ("tau", "rho", "r"))]
    )
    table.head()
    for size, groups in CASES:
        for r in (0.0, 0.5, 0.8):
            table.row(size, groups, r, *held(size, groups, r, options.trials, rng))
    print()
    names = [("masks", 5, "d"), ("groups", 6, "d"), ("shared", 6, ".2f"), ("r", 4, ".2f")]
    table = Table([*names, *((name, 7, ".1%") for name in ("given", "held", "p <= 5%"))])
    table.head()
    for size, groups in CASES:
        for shared in (0.0, 0.6, 0.9):
            for r in (0.0, 0.5):
                table.row(
                    size,
                    groups,
                    shared,
                    r,
                    *partials_held(size, groups, shared=shared, r=r, trials=options.trials, rng=rng),
                )


if __name__ == "__main__":
    main()
