"""The pruning methods by name. Imports neither torch nor numpy: help reads this."""

from __future__ import annotations

from difflib import get_close_matches
from functools import cache

from pai_cli.errors import UnknownMethodError, UnusableMethodError
from pai_cli.pruning.base import METHODS, BatchNorm, ByMatrix, Method
from pai_cli.pruning.trained import freezes, usual_rounds
from pai_cli.spelling import option

__all__ = ["METHODS", "faults_beside", "get", "given", "names", "register"]

_RANDOM = "pai_cli.methods.random:make_scorer"
_SNIP = "pai_cli.methods.snip:make_scorer"
_BY_TEXT = "pai_cli.methods.by_text:make_scorer"
_EITHER: tuple[BatchNorm, ...] = ("batch", "running")

_BUILT_IN = (
    Method(
        name="random",
        summary="weights at random over the whole network",
        source="the usual baseline; Frankle et al. 2021, arXiv:2009.08576",
        make_scorer=_RANDOM,
        in_pieces="draw",
        random=True,
    ),
    Method(
        name="uniform",
        summary="weights at random, the same density in every layer",
        source="the usual baseline; Evci et al. 2020, arXiv:1911.11134",
        make_scorer=_RANDOM,
        in_pieces="draw",
        allocation="uniform",
        random=True,
    ),
    Method(
        name="erk",
        summary="weights at random, narrow layers denser (Erdos-Renyi kernel)",
        source="Evci et al. 2020, arXiv:1911.11134",
        make_scorer=_RANDOM,
        in_pieces="draw",
        allocation="erk",
        random=True,
    ),
    Method(
        name="magnitude",
        summary="the weights of largest absolute value",
        source="Han et al. 2015, arXiv:1506.02626",
        make_scorer="pai_cli.methods.magnitude:make_scorer",
        in_pieces="magnitude",
    ),
    Method(
        name="synflow",
        summary="the weights that carry the most synaptic flow, scored anew in each of 100 rounds; no data",
        source="Tanaka et al. 2020, arXiv:2006.05467",
        make_scorer="pai_cli.methods.synflow:make_scorer",
        rounds=100,
        iterative="auto",
        device_masks=True,
    ),
    Method(
        name="synflow-l2",
        summary="the same of the network of squared weights, by the trace of the path kernel; no data",
        source="Gebhart et al. 2021, arXiv:2101.10552",
        make_scorer="pai_cli.methods.synflow_l2:make_scorer",
        rounds=100,
        iterative="auto",
        device_masks=True,
    ),
    Method(
        name="smart-ratio",
        summary="weights at random, early layers denser, the classifier at 0.3",
        source="Su et al. 2020, arXiv:2009.11094",
        make_scorer=_RANDOM,
        in_pieces="draw",
        allocation="smart-ratio",
        random=True,
    ),
    Method(
        name="snip",
        summary="the weights that the loss depends on most, to first order; needs data",
        source="Lee et al. 2019, arXiv:1810.02340",
        make_scorer=_SNIP,
        data=True,
        batch_norm=_EITHER,
    ),
    Method(
        name="iter-snip",
        summary="the same, scored anew in each of 100 rounds; needs data",
        source="de Jorge et al. 2021, arXiv:2006.09081",
        make_scorer=_SNIP,
        rounds=100,
        iterative=True,
        data=True,
        batch_norm=_EITHER,
        device_masks=True,
    ),
    Method(
        name="force",
        summary="the same with original weights, and pruned ones may return in each of 60 rounds; needs data",
        source="de Jorge et al. 2021, arXiv:2006.09081",
        make_scorer="pai_cli.methods.force:make_scorer",
        rounds=60,
        iterative=True,
        recovers=True,
        data=True,
        batch_norm=_EITHER,
        device_masks=True,
    ),
    Method(
        name="grasp",
        summary="the weights whose removal would reduce the gradient flow most; needs data",
        source="Wang et al. 2020, arXiv:2002.07376",
        make_scorer="pai_cli.methods.grasp:make_scorer",
        data=True,
        batch_norm=_EITHER,
    ),
    Method(
        name="fisher",
        summary="the weights that the loss depends on most, to second order by the empirical Fisher; needs data",
        source="Gollini Navarrete et al. 2025, arXiv:2502.11450",
        make_scorer="pai_cli.methods.fisher:make_scorer",
        data=True,
        batch_norm=("running",),
    ),
    Method(
        name="hutchinson",
        summary="the same by Hutchinson's estimate of the Hessian's diagonal, from random signs; needs data",
        source="Gollini Navarrete et al. 2025, arXiv:2502.11450",
        make_scorer="pai_cli.methods.hutchinson:make_scorer",
        random=True,
        data=True,
        batch_norm=("running", "batch"),
    ),
    Method(
        name="phew",
        summary="the weights that random walks between input and output come upon, heavy ones likely; no data",
        source="Patil and Dovrolis 2021, arXiv:2010.11354",
        make_scorer="pai_cli.methods.phew:make_scorer",
        random=True,
    ),
    Method(
        name="npb",
        summary="each layer's weights where they make most effective nodes and paths together; no data",
        source="Pham et al. 2023, NeurIPS, openreview.net/forum?id=xdOoCWCYaY",
        make_scorer="pai_cli.methods.npb:make_scorer",
        allocation="erk",
        random=True,
    ),
    Method(
        name="ntk-sap",
        summary="the weights that the neural tangent kernel depends on most, whatever the weights are; no data",
        source="Wang et al. 2023, arXiv:2304.02840",
        make_scorer="pai_cli.methods.ntk_sap:make_scorer",
        rounds=20,
        iterative=True,
        random=True,
        device_masks=True,
    ),
    Method(
        name="px",
        summary="the weights on paths that samples wake, by a bound of the tangent kernel's trace; needs data",
        source="Iurada et al. 2024, arXiv:2406.01820",
        make_scorer="pai_cli.methods.px:make_scorer",
        rounds=100,
        iterative=True,
        data=True,
        device_masks=True,
    ),
    Method(
        name="prospr",
        summary="the weights that the loss after three steps of training depends on most; needs data",
        source="Alizadeh et al. 2022, arXiv:2202.08132",
        make_scorer="pai_cli.methods.prospr:make_scorer",
        data=True,
        batch_norm=_EITHER,
    ),
    Method(
        name="gem-miner",
        summary="the weights that do well as signed constants, by scores trained and frozen in steps; needs data",
        source="Sreenivasan et al. 2022, arXiv:2202.12002",
        make_scorer="pai_cli.methods.gem_miner:make_scorer",
        rounds=freezes,
        data=True,
        trains=("epochs", "freeze_every", "penalty", "optimizer", "lr", "batch_size"),
    ),
    Method(
        name="edge-popup",
        summary="the same, each layer's largest trained scores at every step; needs data",
        source="Ramanujan et al. 2020, arXiv:1911.13299",
        make_scorer="pai_cli.methods.edge_popup:make_scorer",
        allocation="uniform",
        data=True,
        trains=("epochs", "optimizer", "lr", "batch_size"),
    ),
    Method(
        name="imp",
        summary="the weights largest after training, round by round, each from the same early weights; needs data",
        source="Frankle et al. 2020, arXiv:1912.05671",
        make_scorer="pai_cli.methods.imp:make_scorer",
        rounds=usual_rounds,
        iterative=True,
        data=True,
        trains=("epochs", "rewind", "optimizer", "lr", "batch_size"),
    ),
    Method(
        name="wanda",
        summary="of language models, each output's weights largest by size and input; needs text",
        source="Sun et al. 2024, arXiv:2306.11695",
        make_scorer=_BY_TEXT,
        by_matrix=ByMatrix("pai_cli.methods.wanda:prune_matrix", "squares", "output"),
    ),
    Method(
        name="sparsegpt",
        summary="of language models, the weights that cost the outputs most, the others moved; needs text",
        source="Frantar and Alistarh 2023, arXiv:2301.00774",
        make_scorer=_BY_TEXT,
        by_matrix=ByMatrix("pai_cli.methods.sparsegpt:prune_matrix", "gram", "layer"),
    ),
)

METHODS.update((one.name, one) for one in _BUILT_IN)  # in the order that help shows; those that are added follow


def register(method: Method) -> None:
    """Add a method, so that `get` and the command line find it. Raises `ValueError` when the name is taken."""
    if method.name in METHODS:
        raise ValueError(f"a pruning method named {method.name!r} is registered already")
    METHODS[method.name] = method


def get(name: str) -> Method:
    """The method of that name; other distributions' methods are loaded when it is not built in.

    Raises `UnknownMethodError`, which lists the names and the closest one, or `UnusableMethodError`, which says why a
    distribution's method of that name cannot be used.
    """
    if name in METHODS:
        return METHODS[name]
    from pai_cli.methods import plugins

    faults = _extend()
    if name in METHODS:
        return METHODS[name]
    if fault := faults.get(name) or faults.get(plugins.ANY):
        raise UnusableMethodError(f"{fault}; {option('method')} takes {', '.join(METHODS)}")
    close = get_close_matches(name.lower(), METHODS, n=1)
    hint = f"did you mean {close[0]}? " if close else ""
    raise UnknownMethodError(f"unknown method {name!r}: {hint}{option('method')} takes {', '.join(METHODS)}")


def given(name: str | None) -> str:
    """The name, where there is one. Raises `UnknownMethodError`, which lists the names, for None."""
    if name is None:
        raise UnknownMethodError(f"no method: give {option('method')}, which takes {', '.join(names())}")
    return name


def names() -> list[str]:
    """The names that are known, by the metadata of what is installed; nothing is imported for it."""
    from pai_cli.methods import plugins

    return list(dict.fromkeys([*METHODS, *(one.name for one in plugins.found())]))


def faults_beside(name: str) -> list[str]:
    """A line on each method of another distribution that cannot be used, but for `name`, of which `get` tells.

    A name that is taken is told whatever is asked for. What fails to load is told when `name` is not built in: for one
    that is, nothing is imported.
    """
    from pai_cli.methods import plugins

    faults = plugins.taken(METHODS.keys() - _added) if name in METHODS.keys() - _added else _extend()
    return [line for one, line in faults.items() if one not in (name, plugins.ANY) or name in METHODS]


def load_all() -> list[str]:
    """Load other distributions' methods into `METHODS`; a line on each that cannot be used."""
    return list(_extend().values())


_added: set[str] = set()  # names of other distributions' methods


@cache
def _extend() -> dict[str, str]:
    """Load other distributions' methods, once; the fault of each that cannot be used, by name."""
    from pai_cli.methods import plugins

    loaded = plugins.load(METHODS)
    METHODS.update(loaded.methods)
    _added.update(loaded.methods)
    return loaded.faults
