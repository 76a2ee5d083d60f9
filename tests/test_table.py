"""A network's layers in columns: what a row says, what a slice of rows says, and tables one after another."""

from __future__ import annotations

import math

import numpy as np
import pytest
from graphs import uniform
from hypothesis import given
from hypothesis import strategies as st

from pai_cli.spectral.catalogue import METRICS
from pai_cli.spectral.layout import Layout
from pai_cli.spectral.metrics import MetricOptions, measure_layer
from pai_cli.spectral.network import DenseCache, LayerInput, measure_together, summarise
from pai_cli.spectral.result import Measure
from pai_cli.spectral.table import NO_LAYERS, Column, LayerTable

NUMBERS = st.floats(allow_nan=False) | st.sampled_from([0.0, -0.0, 5e-324, 1.7e308, math.inf])


def network() -> list[LayerInput]:
    """Whole, thin, empty, grouped, of one row, and of two sizes."""
    rng = np.random.default_rng(3)
    masks = {
        "conv": uniform(rng, 8, 36, 0.6).reshape(8, 4, 3, 3),
        "gone": np.zeros((5, 7), dtype=bool),
        "full": np.ones((6, 9), dtype=bool),
        "grouped": np.ones((6, 1, 3, 3), dtype=bool),
        "row": np.ones((1, 9), dtype=bool),
        "head": uniform(rng, 30, 40, 0.5),
    }
    return [
        LayerInput(name, mask, rng.normal(size=mask.shape), Layout(groups=6) if name == "grouped" else Layout())
        for name, mask in masks.items()
    ]


@pytest.mark.parametrize("weighted", [False, True], ids=["mask", "weights"])
@pytest.mark.parametrize("convention", ["h23", "f23"])
def test_layers_together_say_what_each_says_alone(weighted: bool, convention: str) -> None:
    """No number of a row depends on the rows beside it: to the last bit, with error, reason and outcome."""
    options = MetricOptions(convention=convention, expansion_weighted=convention == "h23")  # type: ignore[arg-type]
    layers = network() if weighted else [LayerInput(one.name, one.mask, None, one.layout) for one in network()]
    together = measure_together(layers, options)
    alone = [measure_together([layer], options) for layer in layers]
    assert LayerTable.joined(alone) == together
    assert [one for table in alone for one in table] == list(together)
    head = measure_layer(layers[-1].mask, layers[-1].weights, options)
    assert head.measures == together[-1].measures
    assert (head.counts, head.outcomes, head.solver) == (
        together[-1].counts,
        together[-1].outcomes,
        together[-1].solver,
    )


def test_a_row_a_slice_and_the_rows_are_one_table() -> None:
    table = measure_together(network(), MetricOptions(), DenseCache())
    assert [type(count) for count in table[0].counts] == [int] * 6
    assert list(table[1:4]) == list(table)[1:4]
    assert LayerTable.joined(table.rows) == table != table[1:]
    assert LayerTable.joined([table[:2], table[2:]]) == table
    assert set(table.only(["l2", "dr"]).measures) == {"l2", "dr"}
    more = table.extended({"more": Column.missing("why", len(table))})
    assert [one.measures["more"] for one in more] == [Measure.missing("why")] * len(table)
    assert more != table
    assert (len(NO_LAYERS), list(NO_LAYERS)) == (0, [])
    assert table.totals.tolist() == [math.prod(layer.mask.shape) for layer in network()]
    assert table.told == [one.told for one in table]
    for name, column in table.measures.items():
        values, errors = column.lists
        expected = [one.measures[name] for one in table]
        assert [Measure(*row) for row in zip(values, errors, column.reasons, strict=True)] == expected, name


def test_a_network_is_the_mean_of_its_rows() -> None:
    """By the rows themselves, one measure at a time."""
    table = measure_together(network(), MetricOptions())
    report = summarise(table)
    for name in METRICS:
        present = [one.measures[name].value for one in table if one.measures[name].value is not None]
        assert report.counted[name] == len(present)
        assert report.measures[name].value == math.fsum(value / len(present) for value in present), name  # type: ignore[operator]


@given(st.lists(st.tuples(NUMBERS, NUMBERS.map(abs), st.sampled_from([None, "why"])), min_size=1, max_size=6))
def test_a_column_is_computed_as_each_measure_is(rows: list[tuple[float, float, str | None]]) -> None:
    """Rounding, what is lost below the normal range, and what is past float64."""
    values, errors = (np.array(numbers, dtype=np.float64) for numbers in list(zip(*rows, strict=True))[:2])
    with np.errstate(over="ignore"):
        column = Column.computed(values, errors, [row[2] for row in rows])
    expected = [
        Measure.of(value, error) if reason is None else Measure.missing(reason) for value, error, reason in rows
    ]
    assert [column[at] for at in range(len(rows))] == expected
    assert list(column) == expected
    again = Column.listed(expected)
    assert np.array_equal(again.values, column.values, equal_nan=True)
    assert np.array_equal(again.errors, column.errors, equal_nan=True)
    assert again.reasons == column.reasons
