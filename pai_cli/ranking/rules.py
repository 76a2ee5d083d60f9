"""Which accuracies count, and as what. Imports nothing heavy: the help of `pai rank` reads it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

COLLAPSED = 0.1  # chance of ten classes

USUAL_BY = ("l2", "dr_imdb")
"""What decides where nobody says: the first that is known."""

RESAMPLES = 2000  # bootstrap samples: the ends of a 95% interval rest on 50 of them each
MOST_RESAMPLES = 100_000  # 400 MB of counts for a thousand masks; more would move the ends of no interval


class AccuracyUnit(StrEnum):
    """What an accuracy of a table is a part of."""

    FRACTION = "fraction"
    PERCENT = "percent"


@dataclass(frozen=True)
class AccuracyRules:
    """`collapsed_at`: a run with at most this accuracy, 0 to 1, is set aside, none at 0; `unit`: None where numbers tell."""

    collapsed_at: float = COLLAPSED
    unit: AccuracyUnit | None = None

    def collapsed(self, accuracy: float) -> bool:
        """Whether a run of this accuracy counts as collapsed; 0.1 in single precision is a little more than 0.1."""
        return self.collapsed_at > 0 and accuracy <= self.collapsed_at * (1 + 1e-6)
