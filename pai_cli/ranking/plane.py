"""Where masks lie in the full-spectrum plane: what their structure is worth against what their weights are worth."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pai_cli.analysis.masks import MaskReport
from pai_cli.spectral.formulas import mean_of, norm_of
from pai_cli.spectral.network import LayerReport
from pai_cli.spectral.result import Measure

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
            _mean_norm(one.report.layers, TOPOLOGY),
            _mean_norm(one.report.layers, PARAMETERS),
        )
        for one in reports
        if one.report is not None
    ]


def _mean_norm(layers: Sequence[LayerReport], names: Sequence[str]) -> Measure:
    measures = [layer.metrics.measures for layer in layers]
    present = [one for one in measures if "l2" in one and one["l2"].present]
    if not present:
        return Measure.missing(next((one["l2"].reason or "" for one in measures if "l2" in one), "not measured"))
    return mean_of([norm_of([one[name] for name in names]) for one in present])
