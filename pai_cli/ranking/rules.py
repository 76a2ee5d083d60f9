"""Which accuracies count, and as what. Imports nothing heavy: `pai rank --help` reads it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

COLLAPSED = 0.1  # chance of ten classes

RESAMPLES = 2000  # bootstrap samples: the ends of a 95% interval rest on 50 of them each


class AccuracyUnit(StrEnum):
    """What an accuracy of a table is a part of."""

    FRACTION = "fraction"
    PERCENT = "percent"


@dataclass(frozen=True)
class AccuracyRules:
    """`collapsed_at`: a run with at most this accuracy, 0 to 1, is set aside; `unit`: None where the numbers tell."""

    collapsed_at: float = COLLAPSED
    unit: AccuracyUnit | None = None
