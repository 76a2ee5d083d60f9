"""Tables that are drawn without rich look as if it had drawn them."""

from __future__ import annotations

import io
import re
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


words = st.lists(st.text("abcdefg/.-_", min_size=1, max_size=30), min_size=1, max_size=6).map(" ".join)


@given(
    st.lists(st.fixed_dictionaries({"mask": words, "density": st.just(0.5), "decided": words}), min_size=1, max_size=4),
    st.integers(58, 100),
)
def test_no_letter_is_lost_where_texts_fold(records: list[Record], width: int) -> None:
    """Every letter of a cell stands in its column, in order, and nothing is wider than the screen."""
    stream = io.StringIO()
    console = Console(
        file=stream, highlight=False, width=width, markup=False, emoji=False, force_terminal=True, _environ={}
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tables, "output", lambda: console)
        tables.show_records(records, ("mask", "density", "decided"))
    lines = re.sub(r"\x1b\[[0-9;]*m", "", stream.getvalue()).splitlines()
    assert max(map(len, lines)) <= width
    head = next(line for line in lines if "density" in line)
    middle, end = head.index("density"), head.index("decided")
    body = lines[lines.index(head) + 2 :]
    for columns, name in ((slice(0, middle), "mask"), (slice(end, None), "decided")):
        seen = "".join(line[columns] for line in body)
        assert seen.replace(" ", "") == "".join(str(record[name]) for record in records).replace(" ", "")


NAMES = ("model.layers.2.attention.query.weight", "model.layers.10.attention.query.weight", "network mean")


@pytest.mark.parametrize("width", [120, 60])
def test_a_narrow_table_has_short_names_of_layers_and_says_so(width: int, capsys: pytest.CaptureFixture[str]) -> None:
    records: list[Record] = [{"layer": name, "density": 0.5, "dr": 1.0, "note": ""} for name in NAMES]
    records[-1] |= {"note": "no weights " * 3}
    stream = io.StringIO()
    console = Console(
        file=stream, highlight=False, width=width, markup=False, emoji=False, force_terminal=True, _environ={}
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tables, "output", lambda: console)
        tables.show_records(records, ("layer", "density", "dr", "note"), total=True)
    plain = re.sub(r"\x1b\[[0-9;]*m", "", stream.getvalue())
    rows = [line.split()[0] for line in plain.splitlines() if "0.5" in line]
    said = capsys.readouterr().err
    if width == 120:
        assert rows == [*NAMES[:2], "network"]
        assert not said
    else:
        assert rows == ["2.attention.query", "10.attention.query", "network"]
        assert said.startswith("pai: no room for 'model.layers.' and '.weight' of layers: a wider terminal shows them")
