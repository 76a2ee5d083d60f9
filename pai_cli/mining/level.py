"""At which level masks are mined."""

from enum import StrEnum


class Level(StrEnum):
    """What an edge is: a kernel of which any weight is kept, or every kept weight by itself."""

    UNIT = "unit"
    WEIGHT = "weight"
