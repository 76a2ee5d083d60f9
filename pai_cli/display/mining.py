"""Showing what masks agree on: subgraphs as they are found or the largest of them, and how much pairs share."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from pai_cli.compute.stopping import undisturbed
from pai_cli.display.console import note
from pai_cli.display.look import Look
from pai_cli.display.tables import show_records
from pai_cli.files.tables import Record, TableWriter, write_table
from pai_cli.mining.collection import Collection, bits
from pai_cli.mining.overlap import Overlap
from pai_cli.mining.run import FIELDS, Mining, Subgraph

PAIR = ("mask", "other_mask")
PAIR_FIELDS = (
    *(*PAIR, "edges", "other_edges", "shared", "jaccard", "expected_shared", "expected_jaccard"),
    *("deviation", "z", "p", "p_error"),
)

SHOWN, KEPT = 20, 1000
"""Subgraphs in the table for people, and among how many of them are chosen at once."""

MOST_IN_MATRIX = 12
"""Masks of which the table for people shows every pair."""

LEVEL = 0.05


def show_subgraphs(mining: Mining, look: Look) -> None:
    """Write subgraphs to standard output: for programs each as it is found, or all in the order that was asked for; for
    people the largest when all are found, or the first in that order.

    Interrupted, it writes what was found until then and raises `KeyboardInterrupt` again.
    """
    show = _show_largest if look.kind.for_people else _write_all
    shown, interrupted = show(mining, look)
    _tell(mining, shown, interrupted=interrupted is not None)
    if interrupted is not None:
        raise interrupted


def _write_all(mining: Mining, look: Look) -> tuple[int, KeyboardInterrupt | None]:
    """How many were written, and what cut the search short."""
    fields, needed = look.shown(tuple(FIELDS)), look.needed(tuple(FIELDS))
    writer = TableWriter(sys.stdout, look.kind, fields, header=look.header)
    written, interrupted = 0, None
    gathered: list[Record] = []
    try:
        for one in mining:
            with undisturbed():  # or a record would be cut in two
                if look.key:
                    gathered.append(one.record(needed))
                else:
                    writer.write([one.record(fields)])
                written += 1
    except KeyboardInterrupt as e:
        interrupted = e
    with undisturbed():
        writer.write(look.ordered(gathered))
        writer.close()
    return written, interrupted


COLUMNS = ("subgraph", "edges", "vertices", "support", "layers spanned", "held by")


def _show_largest(mining: Mining, look: Look) -> tuple[int, KeyboardInterrupt | None]:
    """How many were found, and what cut the search short. The largest come first, or those of the order that was asked for,
    of equal ones the first found.
    """
    order = look if look.key else replace(look, key="edges", descending=True)
    kept: list[Subgraph] = []
    seen, interrupted = 0, None
    try:
        for one in mining:
            seen += 1
            kept.append(one)
            if len(kept) == KEPT:
                kept = _ordered(kept, order)[:SHOWN]
    except KeyboardInterrupt as e:
        interrupted = e
    first = _ordered(kept, order)[:SHOWN]
    if first:
        columns, rows = subgraph_table(first, order)
        show_records(rows, columns, look=look)
        if len(first) < seen:
            what = f"first {len(first)} in that order" if look.key else f"{len(first)} largest"
            note(f"the {what} are shown; --format jsonl writes all")
    return seen, interrupted


def _ordered(subgraphs: Sequence[Subgraph], look: Look) -> list[Subgraph]:
    found: list[dict[str, Any]] = [{"found": one, **one.record(filter(None, [look.key]))} for one in subgraphs]
    return [one["found"] for one in look.ordered(found)]


def subgraph_table(subgraphs: Sequence[Subgraph], look: Look) -> tuple[Sequence[str], list[Record]]:
    """The columns that a person reads of subgraphs, or asked for, and the rows in order."""
    rows = _ordered(subgraphs, look)
    if look.columns:
        return look.columns, [one.record(look.columns) for one in rows]
    layers = any(len(one.collection.group_names) > 1 for one in rows)
    return [name for name in COLUMNS if layers or name != "layers spanned"], [_shown(one) for one in rows]


def _tell(mining: Mining, found: int, *, interrupted: bool) -> None:
    wanted, graphs = mining.wanted, len(mining.collection.names)
    verb = "holds" if wanted.support == 1 else "hold"
    what = (
        f"of {wanted.least} {'edge' if wanted.least == 1 else 'edges'} or more that {wanted.support} of {graphs} {verb}"
    )
    subgraphs = "subgraph" if found == 1 else "subgraphs"
    if interrupted or mining.stopped:
        cut = "interrupted" if interrupted else f"stopped by {mining.stopped}"
        note(f"{cut}: {found:,} {subgraphs} {what} so far; there may be more, also larger ones")
    elif found:
        note(f"{found:,} maximal connected {subgraphs} {what}")
    else:
        note(f"no connected subgraph {what}; lower --support or --min-edges")


def _shown(one: Subgraph) -> Record:
    return {
        "subgraph": one.number,
        "edges": one.size,
        "vertices": one.vertices,
        "support": one.support,
        "layers spanned": _span([name.removesuffix(".weight") for name in one.layers]),
        "held by": ranges([graph + 1 for graph in bits(one.graphs)]),
    }


def _span(names: Sequence[str]) -> str:
    """`conv1`, or the first and the last and how many."""
    return names[0] if len(names) == 1 else f"{names[0]} to {names[-1]} ({len(names)})"


def ranges(numbers: Sequence[int]) -> str:
    """Rising numbers, neighbours drawn together: `1-3 5`."""
    parts: list[list[int]] = []
    for number in numbers:
        if parts and parts[-1][1] == number - 1:
            parts[-1][1] = number
        else:
            parts.append([number, number])
    return " ".join(str(low) if low == high else f"{low}-{high}" for low, high in parts)


def show_masks(collection: Collection, look: Look) -> None:
    """The masks by the numbers that the tables call them, and how many edges each has."""
    records: list[Record] = [
        {"number": number + 1, "mask": name, "edges": int(collection.held_by(number).sum())}
        for number, name in enumerate(collection.names)
    ]
    show_records(records, ("number", "mask", "edges"), look=look)


def show_pairs(pairs: Sequence[Overlap], look: Look) -> None:
    """A line a pair of masks on standard output; for people, what chance gives beside it."""
    if not look.kind.for_people:
        records = look.ordered([pair.to_dict() for pair in pairs])
        write_table(sys.stdout, look.kind, look.shown(PAIR_FIELDS), records, header=look.header)
    elif pairs:
        columns, rows = pair_table(pairs, look)
        show_records(rows, columns, look=look)


def pair_table(pairs: Sequence[Overlap], look: Look) -> tuple[Sequence[str], list[Record]]:
    """The columns that a person reads of pairs, with the masks by their numbers, or asked for, and the rows in order."""
    numbered = [{**one.to_dict(), "numbers": [one.first + 1, one.second + 1]} for one in pairs]
    rows: list[dict[str, Any]] = look.ordered(numbered)
    if look.columns:
        return look.columns, rows
    return (*PAIR, *PAIR_FIELDS[4:-1]), [row | dict(zip(PAIR, map(str, row["numbers"]), strict=True)) for row in rows]


def show_matrix(pairs: Sequence[Overlap], collection: Collection, look: Look) -> None:
    """The Jaccard index of every pair, where there is room for it, and what chance says of them on standard error."""
    if not pairs:
        return
    graphs = len(collection.names)
    if graphs <= MOST_IN_MATRIX and not look.columns:
        rows: list[Record] = [{"jaccard": str(first + 1)} for first in range(graphs)]
        for first in range(graphs):
            rows[first][str(first + 1)] = ""
        for pair in pairs:
            for one, other in ((pair.first, pair.second), (pair.second, pair.first)):
                rows[one][str(other + 1)] = None if pair.jaccard is None else round(pair.jaccard, 3)
        show_records(rows, ("jaccard", *(str(number + 1) for number in range(graphs))), look=look)
    note(verdict(pairs, collection))


def verdict(pairs: Sequence[Overlap], collection: Collection) -> str:
    """How many pairs share more than chance, at 5% over all pairs together (Bonferroni)."""
    if not pairs:
        return "one alone has nothing to overlap with"
    indices = [pair.jaccard for pair in pairs if pair.jaccard is not None]
    if not indices:
        return "nothing is kept, so there is no overlap"
    more = sum(pair.chance.p + pair.chance.error < LEVEL / len(pairs) for pair in pairs)
    chance = [pair.expected_jaccard or 0.0 for pair in pairs]
    some = (
        f"{more} of {len(pairs)} pairs share"
        if len(pairs) > 1
        else f"the pair {'shares' if more else 'does not share'}"
    )
    densities = "each layer's own density" if len(collection.group_names) > 1 else "their own densities"
    return (
        f"Jaccard {min(indices):.3g} to {max(indices):.3g}, by chance at {densities} "
        f"{min(chance):.3g} to {max(chance):.3g}: {some} more than chance has it (5% over all pairs)"
    )
