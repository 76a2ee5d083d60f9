"""What the columns of a table of results say, by their names: `arch`, `pruning_ratio`, `Target Density (%)`, `seed`."""

from __future__ import annotations

import re
from enum import StrEnum


class Kind(StrEnum):
    """What a column says of a row."""

    DENSITY = "density"
    SPARSITY = "sparsity"
    COMPRESSION = "compression"
    NETWORK = "network"
    DATASET = "data set"
    METHOD = "method"
    CONVENTION = "convention"  # whose gaps and subgraphs were measured
    REPEAT = "repeat"  # a seed or a row number


AMOUNTS = (Kind.DENSITY, Kind.SPARSITY, Kind.COMPRESSION)
SUFFIXES = ("_error", "_layers", "_std")
"""Of a column that tells of another: its error bound, over how many layers it is a mean, its standard deviation."""

PERCENT = frozenset(("%", "percent", "percentage", "pct"))

_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|%")
_SHARE = PERCENT | {"ratio", "rate", "fraction", "frac", "share", "proportion", "factor"}
_ASIDE = frozenset(
    {
        *("target", "final", "global", "overall", "nominal", "requested", "desired", "level", "name", "type"),
        *("actual", "achieved", "real", "realised", "realized", "measured", "observed"),
        *("weight", "weights", "param", "params", "parameter", "parameters", "neural", "random", "set", "pruning"),
    }
)
_MEAN = frozenset(("mean", "average", "avg", "per", "of"))
_LAYER_DENSITY = ({"layer", "density"}, {"layers", "density"}, {"layer", "densities"})
_LAYERS = frozenset(("layer", "conv", "fc", "linear", "block", "stage", "features", "classifier", "weight"))
_MEANT = {
    **dict.fromkeys(("density", "densities"), Kind.DENSITY),
    **dict.fromkeys(("sparsity", "sparsities", "sparseness"), Kind.SPARSITY),
    **dict.fromkeys(("compression", "compress"), Kind.COMPRESSION),
    **dict.fromkeys(("architecture", "arch", "model", "network", "net", "backbone"), Kind.NETWORK),
    **dict.fromkeys(("dataset", "datasets", "data", "task"), Kind.DATASET),
    "convention": Kind.CONVENTION,
    **dict.fromkeys(("method", "pruner", "algorithm", "algo", "criterion", "technique", "strategy"), Kind.METHOD),
    **dict.fromkeys(("seed", "run", "trial", "replicate", "repeat", "repetition", "rep", "fold"), Kind.REPEAT),
    **dict.fromkeys(("index", "idx", "id", "unnamed"), Kind.REPEAT),
}
_SHARES = {
    **dict.fromkeys(("prune", "pruned", "pruning", "removed"), Kind.SPARSITY),
    **dict.fromkeys(("keep", "kept", "remaining", "retained", "retention", "nonzero", "nnz"), Kind.DENSITY),
}
"""Words that tell a density beside one for a share, as alone `kept` may be a count, and `pruning` a method."""


def words_of(column: str) -> frozenset[str]:
    """The words of a column's name, in small letters; numbers are none."""
    return frozenset(word.lower() for word in _WORD.findall(column))


def kind_of(column: str) -> Kind | None:
    """What a column of this name says; None for any other, which may be a metric.

    Every word must be known, and a density has no number: `layer_density` and `density_conv1` are none.
    """
    words = words_of(column)
    bare = words - _SHARE - _ASIDE
    shares = {_SHARES.get(word) for word in words - _SHARE - (_ASIDE - _SHARES.keys())}
    if words & _SHARE and len(shares) == 1 and None not in shares:
        return shares.pop()
    if not bare:
        return Kind.METHOD if words & {"pruning"} and words <= {"pruning", "type", "name"} else None
    if "seed" in bare:
        return Kind.REPEAT
    kinds = {_MEANT.get(word) for word in bare}
    meant = next((kind for kind in Kind if kind in kinds), None)
    if meant in AMOUNTS and any(map(str.isdigit, column)):
        return None  # of a layer, as a rule
    return None if None in kinds or (words & _SHARE and meant not in AMOUNTS) else meant


def kind_of_shares(column: str) -> Kind | None:
    """What a column of nothing but shares says, whose name alone may be that of a count or a method: `kept`, `pruning`."""
    return next(
        (kind for word, kind in _SHARES.items() if words_of(column) - (_ASIDE - _SHARES.keys()) == {word}), None
    )


def is_layer_density(column: str) -> bool:
    """Whether it is the mean over layers of a layer's density."""
    return words_of(column) - _MEAN in _LAYER_DENSITY and not any(map(str.isdigit, column))


def is_density_of_layer(column: str) -> bool:
    """Whether it is one layer's density, which has a number: `density_layer1`, `conv2.density`."""
    return words_of(column) - _LAYERS == {"density"} and any(map(str.isdigit, column))
