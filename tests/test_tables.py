"""Tables that are drawn without rich look as if it had drawn them."""

from __future__ import annotations

import io
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from pai_cli.display import tables
from pai_cli.files.tables import Record

COLUMNS = ("mask", "density", "layers", "note")

text = st.text(st.characters(codec="utf-8", exclude_categories=("C", "Z", "M")), max_size=12)
record = st.fixed_dictionaries(
    {"mask": text, "density": st.none() | st.floats(allow_nan=False), "layers": st.none() | st.integers(), "note": text}
)


def drawn(records: list[Record], width: int, *, total: bool, by_rich: bool) -> tuple[str, bool]:
    """What is written, and whether rich wrote it."""
    stream = io.StringIO()
    console = Console(file=stream, highlight=False, width=width, markup=False, emoji=False)
    used: list[bool] = []

    def plainly(*words: object, **more: object) -> bool:
        used.append(not by_rich and plain(*words, **more))
        return used[-1]

    plain: Callable[..., bool] = tables.drawn_plainly
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tables, "output", lambda: console)
        patch.setattr(tables, "drawn_plainly", plainly)
        tables.show_records(records, COLUMNS, total=total)
    return stream.getvalue(), not any(used)


@given(st.lists(record, min_size=1, max_size=5), st.booleans(), st.sampled_from([30, 80, 200]))
def test_it_looks_the_same(records: list[Record], total: bool, width: int) -> None:
    ours, _ = drawn(records, width, total=total, by_rich=False)
    theirs, _ = drawn(records, width, total=total, by_rich=True)
    assert ours == theirs


def test_who_draws() -> None:
    records: list[Record] = [{"mask": "a", "density": 0.5, "layers": 1, "note": "n" * 60}]
    assert not drawn(records, 200, total=False, by_rich=False)[1]
    assert drawn(records, 40, total=False, by_rich=False)[1]  # where the note has to fold
