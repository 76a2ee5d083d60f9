"""`list_methods`, `list_metrics`, `list_models`: what there is to choose from. Imports neither torch nor NumPy."""

from __future__ import annotations

from pai_cli.files.tables import Record
from pai_cli.methods import registry
from pai_cli.spectral.catalogue import RANKED
from pai_cli.telling import warn


def list_methods() -> list[Record]:
    """The pruning methods, those of other installed packages among them, a record each.

    `name`; `data`: whether it scores with labelled samples; `trains`: whether it trains to score; `text`:
    whether it prunes language models, by a text; `rounds`: how many where
    nobody says, None where options decide; `random`: whether the seed changes the mask; `source`: whose method it is;
    `summary`. A package's method that cannot be loaded is warned of.
    """
    for fault in registry.load_all():
        warn(fault)
    return [
        {
            "name": one.name,
            "data": one.data,
            "trains": bool(one.trains),
            "text": one.text,
            "rounds": one.rounds if isinstance(one.rounds, int) else None,
            "random": one.draws,
            "source": one.source,
            "summary": one.summary,
        }
        for one in registry.METHODS.values()
    ]


def list_metrics() -> list[Record]:
    """All that masks are measured and ranked by, a record each.

    `name`; `needs`: "mask", "weights" (a checkpoint), "network" or "network and weights"; `best`: the end that `rank` puts
    first, "largest" or "smallest"; `of`: what it is taken from; `meaning`.
    """
    needs = {
        (False, False): "mask",
        (False, True): "weights",
        (True, False): "network",
        (True, True): "network and weights",
    }
    return [
        {
            "name": one.name,
            "needs": needs[one.needs_network, one.needs_weights],
            "best": "largest" if one.larger_is_better else "smallest",
            "of": one.section,
            "meaning": one.meaning,
        }
        for one in RANKED.values()
    ]


def list_models() -> list[Record]:
    """The architectures that `model` and `init` know by name, a record each: `name`, and `family`."""
    from pai_cli.models.registry import FAMILIES

    return [
        {"name": name, "family": family.__name__.rpartition(".")[2].replace("_", "-")}  # type: ignore[attr-defined]
        for family in FAMILIES
        for name in family.NAMES
    ]
