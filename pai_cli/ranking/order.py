"""Masks in order of one network metric, within equal densities."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from difflib import get_close_matches

from pai_cli.analysis.masks import MaskReport
from pai_cli.errors import UnknownMetricError
from pai_cli.spectral.catalogue import METRICS, Metric
from pai_cli.spectral.result import Measure

EQUAL_DENSITIES = 0.01  # relative difference under which two densities are compared as one


@dataclass(frozen=True)
class RankedMask:
    """A mask's place.

    `rank`: 1 is best, equal for values whose error bounds overlap, None without a value. `group`: number of the group of
    equal densities, from 0 for the sparsest. `margin`: how far its value is from the next mask's in the group, None for
    the last. `decided`: that in words.
    """

    source: MaskReport
    density: float
    value: Measure
    counted: int
    group: int
    rank: int | None = None
    margin: float | None = None
    decided: str = ""


def metric_for(name: str | None, *, weights: bool) -> Metric:
    """The metric to rank by: `name`, or l2 with weights and dr_imdb without.

    Raises `UnknownMetricError` for an unknown name, or one that needs weights when there are none.
    """
    if name is None:
        return METRICS["l2" if weights else "dr_imdb"]
    if name not in METRICS:
        close = get_close_matches(name, METRICS, n=1)
        hint = f"did you mean {close[0]}? " if close else ""
        raise UnknownMetricError(f"unknown metric {name!r}: {hint}--by takes {', '.join(METRICS)}")
    if METRICS[name].needs_weights and not weights:
        raise UnknownMetricError(f"--by {name}: needs the weights; give --weights CKPT")
    return METRICS[name]


def rank_masks(reports: Iterable[MaskReport], metric: Metric, *, larger_is_better: bool) -> list[RankedMask]:
    """Every report that succeeded, group by group from the sparsest, best first; those without a value end their group."""
    rows = [_row(report, metric) for report in reports if report.report is not None]
    rows.sort(key=lambda row: (row.density, str(row.source.path)))
    ranked: list[RankedMask] = []
    for number, group in enumerate(_groups(rows)):
        ranked += _order([replace(row, group=number) for row in group], metric, larger_is_better)
    return ranked


def _row(report: MaskReport, metric: Metric) -> RankedMask:
    network = report.report
    assert network is not None
    return RankedMask(report, network.density, network.measures[metric.name], network.counted[metric.name], group=0)


def _groups(rows: list[RankedMask]) -> list[list[RankedMask]]:
    """Rows sorted by density, cut where the density leaves that of the group's first by more than 1%."""
    groups: list[list[RankedMask]] = []
    for row in rows:
        if groups and row.density <= groups[-1][0].density * (1 + EQUAL_DENSITIES):
            groups[-1].append(row)
        else:
            groups.append([row])
    return groups


def _order(group: list[RankedMask], metric: Metric, larger_is_better: bool) -> list[RankedMask]:
    sign = -1.0 if larger_is_better else 1.0
    with_value = [row for row in group if row.value.value is not None]
    with_value.sort(key=lambda row: (sign * (row.value.value or 0.0), str(row.source.path)))
    ordered: list[RankedMask] = []
    for place, row in enumerate(with_value):
        rank = place + 1
        if ordered and _tied(ordered[-1], row) and ordered[-1].rank is not None:
            rank = ordered[-1].rank
        following = with_value[place + 1] if place + 1 < len(with_value) else None
        ordered.append(_placed(row, rank, following, metric, larger_is_better))
    if len(ordered) == 1:
        ordered = [replace(ordered[0], decided="alone at this density")]
    missing = [replace(row, decided=f"no {metric.name}: {row.value.reason}") for row in group if not row.value.present]
    return ordered + missing


def _placed(
    row: RankedMask, rank: int, following: RankedMask | None, metric: Metric, larger_is_better: bool
) -> RankedMask:
    if following is None:
        return replace(row, rank=rank)
    margin = abs((row.value.value or 0.0) - (following.value.value or 0.0))
    if _tied(row, following):
        return replace(row, rank=rank, margin=margin, decided="tied with the next: within the error bounds")
    word = "larger" if larger_is_better else "smaller"
    # Means over other layers compare less well: say so where it decides.
    over = "" if row.counted == following.counted else f", over {row.counted} layers against {following.counted}"
    return replace(row, rank=rank, margin=margin, decided=f"{metric.name} {word} by {margin:.4g}{over}")


def _tied(a: RankedMask, b: RankedMask) -> bool:
    difference = abs((a.value.value or 0.0) - (b.value.value or 0.0))
    return difference <= (a.value.error or 0.0) + (b.value.error or 0.0)
