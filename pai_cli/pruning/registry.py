"""The pruning methods by name. Imports neither torch nor numpy: `pai --help` reads this."""

from __future__ import annotations

from difflib import get_close_matches

from pai_cli.errors import UnknownMethodError
from pai_cli.pruning.base import Method

_RANDOM = "pai_cli.pruning.random:make_scorer"

METHODS: dict[str, Method] = {
    "random": Method(
        name="random",
        summary="weights at random over the whole network",
        source="the usual baseline; Frankle et al. 2021, arXiv:2009.08576",
        make_scorer=_RANDOM,
        random=True,
    ),
    "uniform": Method(
        name="uniform",
        summary="weights at random, the same density in every layer",
        source="the usual baseline; Evci et al. 2020, arXiv:1911.11134",
        make_scorer=_RANDOM,
        allocation="uniform",
        random=True,
    ),
    "erk": Method(
        name="erk",
        summary="weights at random, narrow layers denser (Erdos-Renyi kernel)",
        source="Evci et al. 2020, arXiv:1911.11134",
        make_scorer=_RANDOM,
        allocation="erk",
        random=True,
    ),
    "magnitude": Method(
        name="magnitude",
        summary="the weights of largest absolute value",
        source="Han et al. 2015, arXiv:1506.02626",
        make_scorer="pai_cli.pruning.magnitude:make_scorer",
    ),
    "synflow": Method(
        name="synflow",
        summary="the weights that carry the most synaptic flow, scored anew in each of 100 rounds; no data",
        source="Tanaka et al. 2020, arXiv:2006.05467",
        make_scorer="pai_cli.pruning.synflow:make_scorer",
        rounds=100,
        iterative=True,
        adaptive=True,
    ),
    "phew": Method(
        name="phew",
        summary="the weights that random walks between input and output come upon, heavy ones likely; no data",
        source="Patil and Dovrolis 2021, arXiv:2010.11354",
        make_scorer="pai_cli.pruning.phew:make_scorer",
        random=True,
    ),
}
"""Every method, in the order that help shows."""


def register(method: Method) -> None:
    """Add a method, so that `get` and the command line find it. Raises `ValueError` when the name is taken."""
    if method.name in METHODS:
        raise ValueError(f"a pruning method named {method.name!r} is registered already")
    METHODS[method.name] = method


def get(name: str) -> Method:
    """The method of that name. Raises `UnknownMethodError`, which lists the names and the closest one."""
    if name in METHODS:
        return METHODS[name]
    close = get_close_matches(name.lower(), METHODS, n=1)
    hint = f"did you mean {close[0]}? " if close else ""
    raise UnknownMethodError(f"unknown method {name!r}: {hint}--method takes {', '.join(METHODS)}")
