"""Where masks lie in the full-spectrum plane: what their structure is worth against what their weights are worth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pai_cli.analysis.masks import MaskReport
from pai_cli.spectral.formulas import mean_of, norms
from pai_cli.spectral.result import Measure
from pai_cli.spectral.table import Column

TOPOLOGY = ("dr", "dr_imdb")
PARAMETERS = ("lambda", "lambda_imsg")


@dataclass(frozen=True)
class PlanePoint:
    """A mask in the plane.

    `topology`: sqrt(dr^2 + dr_imdb^2); `parameters`: sqrt(lambda^2 + lambda_imsg^2), the two parts of a layer's l2 [F23],
    each 0 or more and, as l2 itself, averaged over the layers with undefined terms counted as 0. `density`: above 0 to 1.
    """

    name: str
    method: str | None
    density: float
    topology: Measure
    parameters: Measure


def plane_points(reports: Sequence[MaskReport]) -> list[PlanePoint]:
    """A point a mask that was measured with its weights; both measures are missing where no layer has an l2."""
    return [
        PlanePoint(
            str(one.path),
            one.metadata.get("method"),
            one.report.density,
            _mean_norm(one.report.layers.measures, TOPOLOGY),
            _mean_norm(one.report.layers.measures, PARAMETERS),
        )
        for one in reports
        if one.report is not None
    ]


def _mean_norm(columns: Mapping[str, Column], names: Sequence[str]) -> Measure:
    without = columns["l2"].reasons if "l2" in columns else ("not measured",)
    if None not in without:
        return Measure.missing(without[0] or "")
    found = norms([columns[name] for name in names], without)
    return mean_of([found[at] for at, reason in enumerate(without) if reason is None])
