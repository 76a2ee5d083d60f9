"""Showing what of a network is left without its dead channels."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from pai_cli.display.console import show_line
from pai_cli.display.kept import is_in_the_way
from pai_cli.display.tables import number, show_records
from pai_cli.files.tables import Format, Record, write_table

if TYPE_CHECKING:
    from pai_cli.compacting.run import Compacted, LayerSizes

OF_LAYER = tuple(
    f"{what}_{when}" for what in ("outputs", "inputs", "parameters", "macs") for when in ("before", "after")
)
OF_NETWORK = (
    *("seconds_before", "seconds_after", "timing_batch", "timing_runs", "device"),
    *("difference", "difference_float64", "largest_output", "samples"),
)
FIELDS = ("file", "level", "layer", *OF_LAYER, "dead_kept", "reason", *OF_NETWORK)


def compact_records(found: Compacted, path: Path | None) -> list[Record]:
    """A record a layer, and one of the network."""
    empty: Record = dict.fromkeys(FIELDS, None) | {"file": None if path is None else str(path)}
    records = [empty | _of_layer(one) for one in found.layers]
    network: Record = {
        **{"level": "network", "reason": _reasons(found.dead_kept), "dead_kept": sum(found.dead_kept.values())},
        **_pair("outputs", tuple(sum(one.outputs[when] for one in found.layers) for when in (0, 1))),
        **_pair("parameters", found.parameters),
        **_pair("macs", found.macs),
        **_pair("seconds", found.seconds),
        **{"timing_batch": found.batch, "timing_runs": found.runs, "device": found.device},
        **{"difference": found.rounded.difference, "difference_float64": found.exact.difference},
        **{"largest_output": found.rounded.output, "samples": found.samples},
    }
    return [*records, empty | network]


def show_compacted(found: Compacted, path: Path | None, kind: Format, *, header: bool = True) -> None:
    """Each layer before and after, then the network, its time and how its outputs compare; on standard output, unless the
    file itself went there.
    """
    if is_in_the_way(path):
        return
    records = compact_records(found, path)
    if kind is not Format.TABLE:
        write_table(sys.stdout, kind, FIELDS, records, header=header)
        return
    columns = ("outputs", "inputs", "parameters", "multiply-adds")
    rows = [
        {
            "layer": record["layer"] or "network",
            **{column: _arrow(record, column) for column in columns},
            "dead kept": record["dead_kept"] or None,
        }
        for record in records
    ]
    show_records(rows, ("layer", *columns, "dead kept"), total=True)
    show_line(
        f"A batch of {found.batch} takes {_time(found.seconds[0])}, and {_time(found.seconds[1])} in the smaller network "
        f"(median of {found.runs}, {found.device})."
    )
    show_line(
        f"Outputs differ by at most {number(found.rounded.difference)}; the largest is {number(found.rounded.output)}."
    )


def _of_layer(one: LayerSizes) -> Record:
    return {
        **{"level": "layer", "layer": one.name, "reason": _reasons(one.dead_kept)},
        "dead_kept": sum(one.dead_kept.values()),
        **_pair("outputs", one.outputs),
        **_pair("inputs", one.inputs),
        **_pair("parameters", one.parameters),
        **_pair("macs", one.macs),
    }


def _pair(what: str, numbers: tuple[float, ...]) -> Record:
    return {f"{what}_before": numbers[0], f"{what}_after": numbers[1]}


def _reasons(counts: Mapping[str, int]) -> str | None:
    """Of each reason how many, in one text."""
    return "; ".join(f"{count}: {reason}" for reason, count in counts.items()) or None


def _arrow(record: Record, column: str) -> str | None:
    name = "macs" if column == "multiply-adds" else column
    before, after = record[f"{name}_before"], record[f"{name}_after"]
    if before is None:
        return None
    return number(before) if before == after else f"{number(before)} -> {number(after)}"


def _time(seconds: float) -> str:
    return f"{1000 * seconds:.4g} ms"
