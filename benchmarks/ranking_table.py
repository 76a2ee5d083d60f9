"""Sets what [H23] claims of dr_imdb and dr beside what `pai rank` finds in the published table; exits 1 where they differ.

    python benchmarks/ranking_table.py iclr2023-cifar10.csv

The claim: on ResNet-34, dr_imdb orders the six methods at each density much as their accuracies do, and dr does not. It is
held here to ten values of Kendall's tau within a density. Beside them stand the pooled tau with its interval, the same of
the mean of the layers' densities, which takes no spectrum to know, and the partial tau given that. The rows of VGG-16 have
no claim.

[H23]: Hoang, Liu, Marculescu, Wang, ICLR 2023.
"""

from __future__ import annotations

import argparse
import io
import sys
from pathlib import Path

from tables import LEFT, Table

from pai_cli.files.rows import read_rows
from pai_cli.ranking.bootstrap import Resampling
from pai_cli.ranking.correlation import Correlation, ScopeKind, Study
from pai_cli.ranking.entrants import scores_to_correlate
from pai_cli.ranking.metric_table import Reading, metric_table
from pai_cli.ranking.rules import AccuracyRules
from pai_cli.ranking.study import correlate

NET = "architecture resnet34"
DENSITIES = (0.01, 0.05, 0.1, 0.2, 0.4)
CLAIMED = {
    (NET, "dr_imdb"): (0.87, 0.73, 0.87, 0.87, 0.47),
    (NET, "dr"): (0.07, -0.2, -0.07, 0.2, 0.47),
}


def by_density(study: Study, setting: str, metric: str) -> dict[float, float | None]:
    """tau at each density."""
    return {
        one.scope.density: one.tau.value
        for one in study.correlations
        if (one.scope.kind, one.scope.setting, one.metric) == (ScopeKind.DENSITY, setting, metric)
        and one.scope.density is not None
    }


def pooled(study: Study, setting: str, metric: str) -> Correlation:
    """The correlation over all pairs of equal density."""
    return next(
        one
        for one in study.correlations
        if (one.scope.kind, one.scope.setting, one.metric) == (ScopeKind.POOLED, setting, metric)
    )


def main() -> int:
    """Print a line an architecture and metric; return 1 where a claimed figure is another."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("table", type=Path, help="the published means, as CSV")
    options = parser.parse_args()
    entrants = metric_table(read_rows(options.table, io.StringIO()), Reading(AccuracyRules()), print)
    scores = scores_to_correlate(entrants.metrics, "dr_imdb,dr,layer_density_mean", None)
    study = correlate(entrants.masks, scores, Resampling(), within=entrants.within, controls=entrants.controls)
    densities = ((f"{density:g}", 6, ".2f") for density in DENSITIES)
    taus_of = ((name, 7, ".2f") for name in ("pooled", "from", "to", "partial"))
    table = Table([("architecture", 21, LEFT), ("metric", 18, LEFT), *densities, *taus_of, ("as claimed", 10, LEFT)])
    table.head()
    wrong = 0
    for setting in dict.fromkeys(scope.setting for scope in study.scopes if scope.setting is not None):
        for score in scores:
            taus, one = by_density(study, setting, score.name), pooled(study, setting, score.name)
            whole, given = one.tau, one.partial
            found = tuple(taus.get(density) for density in DENSITIES)
            claim = CLAIMED.get((setting, score.name))
            same = claim == tuple(None if tau is None else round(tau, 2) for tau in found)
            wrong += claim is not None and not same
            verdict = None if claim is None else "yes" if same else "NO"
            table.row(setting, score.name, *found, whole.value, whole.low, whole.high, given.value, verdict)
    return min(wrong, 1)


if __name__ == "__main__":
    sys.exit(main())
