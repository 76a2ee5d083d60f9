"""How many graphs must hold a subgraph: a share of them or a number."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from fractions import Fraction

from pai_cli.errors import SupportError
from pai_cli.spelling import option

SHARE = re.compile(r"[0-9]*(?=[.e])(\.[0-9]*)?(e[+-]?[0-9]{1,2})?", re.IGNORECASE)
"""A number with a point or an exponent, which is a short one: a large one takes ages to write out."""


@dataclass(frozen=True)
class Support:
    """`share` of the graphs, above 0 and at most 1, or `count` of them, 1 or more; the other is None."""

    text: str
    share: Fraction | None
    count: int | None

    def among(self, graphs: int) -> int:
        """How many of so many graphs: the smallest number that is at least the share.

        Raises `SupportError` for a number that is more than there are.
        """
        if self.share is not None:
            return max(1, math.ceil(self.share * graphs))
        assert self.count is not None
        if self.count > graphs:
            raise SupportError(
                f"{option('support', self.text)}: of {graphs} that are given, so many cannot agree; give {graphs} or "
                "less"
            )
        return self.count


def parse_support(text: str) -> Support:
    """`0.8` is a share, `12` a number; so `1.0` is all of them and `1` any one. Raises `SupportError`."""
    if text.isascii() and text.isdecimal() and len(text) < 10 and int(text) > 0:
        return Support(text, None, int(text))
    try:
        share = Fraction(text) if len(text) < 40 and SHARE.fullmatch(text) else None
    except ValueError:
        share = None
    if share is None or not 0 < share <= 1:
        raise SupportError(
            f"{option('support', text)}: give a share above 0 and at most 1.0, such as 0.8, or a number of masks, "
            "such as 12"
        )
    return Support(text, share, None)
