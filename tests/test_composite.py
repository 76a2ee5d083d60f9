"""Composites: what the grammar reads, that its value and bounds are right, and how it refuses the rest."""

from __future__ import annotations

import math
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pai_cli.errors import CompositeError, UnknownMetricError
from pai_cli.printable import as_line
from pai_cli.ranking.expression import metric_score, score_of
from pai_cli.spectral.catalogue import METRICS, Metric
from pai_cli.spectral.result import Measure

VALUES = {
    "dr": Measure(2.0, 0.0),
    "ds": Measure(-3.0, 0.0),
    "narc": Measure(0.5, 0.25),
    "lambda": Measure(4.0, 0.0),
    "l2": Measure.missing("needs --weights"),
}
NAMES = ", ".join(METRICS)


@pytest.mark.parametrize(
    ("text", "wanted", "metrics"),
    [
        ("dr", 2.0, ("dr",)),
        (" dr ", 2.0, ("dr",)),
        ("dr+1", 3.0, ("dr",)),
        ("dr + 0.5*lambda", 4.0, ("dr", "lambda")),
        ("dr - ds - 1", 4.0, ("dr", "ds")),  # from left to right
        ("dr - (ds - 1)", 6.0, ("dr", "ds")),
        ("lambda / dr / 2", 1.0, ("lambda", "dr")),
        ("1 + dr * 3", 7.0, ("dr",)),
        ("-dr", -2.0, ("dr",)),
        ("- -dr", 2.0, ("dr",)),
        ("+dr*-2", -4.0, ("dr",)),
        ("2*-(dr+ds)", 2.0, ("dr", "ds")),
        ("abs(ds)", 3.0, ("ds",)),
        ("sqrt(lambda)", 2.0, ("lambda",)),
        ("norm(lambda, ds)", 5.0, ("lambda", "ds")),
        ("norm(ds)", 3.0, ("ds",)),
        ("norm(dr, dr+dr, 4)", 6.0, ("dr",)),
        (".5*dr + 1e1 + 2.", 13.0, ("dr",)),
        ("dr\t+\n1", 3.0, ("dr",)),
        ("((((dr))))", 2.0, ("dr",)),
    ],
)
def test_values(text: str, wanted: float, metrics: tuple[str, ...]) -> None:
    score = score_of(text, METRICS)
    measure = score.measure(VALUES)
    assert measure.value == pytest.approx(wanted, abs=1e-12)
    assert measure.error is not None
    assert abs(measure.value - wanted) <= measure.error <= 1e-13
    assert (score.name, score.metrics) == (text.strip(), metrics)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("dr+", "character 4: the end where a metric, a number or ( is expected"),
        ("dr ds", "character 4: 'ds' where an operator or the end is expected"),
        ("dr + * 2", "character 6: '*' where a metric, a number or ( is expected"),
        ("dr**2", "character 4: '*' where a metric, a number or ( is expected"),
        ("2dr", "character 2: 'dr' where an operator or the end is expected"),
        ("dr)", "character 3: ')' where an operator or the end is expected"),
        ("(dr", "character 4: the end where ) is expected"),
        ("norm(dr ds)", "character 9: 'ds' where ) is expected"),
        ("abs(dr, ds)", "character 7: abs takes one part"),
        ("abs()", "character 5: ')' where a metric, a number or ( is expected"),
        ("exp(dr)", "character 1: unknown function 'exp'; there are abs, sqrt, norm"),
        ("dr; ds", "character 3: ';' means nothing here"),
        ("dr +  $", "character 7: '$' means nothing here"),
        ("__import__('os')", 'character 12: "\'" means nothing here'),
        ("dr.__class__", "character 3: '.' means nothing here"),
        ("1e999*dr", "character 1: a number past the range of float64"),
        ("(" * 60 + "dr", "character 51: nested more than 50 deep"),
        ("-" * 100_000 + "dr", "character 51: nested more than 50 deep"),
        ("1 + 2", "names no metric, so it is the same for every mask"),
        ("", "character 1: the end where a metric, a number or ( is expected"),
        ("   ", "character 1: the end where a metric, a number or ( is expected"),
    ],
)
def test_what_the_grammar_has_not(text: str, told: str) -> None:
    with pytest.raises(CompositeError) as error:
        score_of(text, METRICS)
    assert str(error.value) == as_line(f"by={text!r}: {told}")
    assert str(error.value).endswith(told)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (
            "dr + lamda",
            f"by='dr + lamda': character 6: unknown metric 'lamda': did you mean lambda? by= takes {NAMES}",
        ),
        ("2*zzz", f"by='2*zzz': character 3: unknown metric 'zzz': by= takes {NAMES}"),
        ("abs", f"unknown metric 'abs': by= takes {NAMES}"),
    ],
)
def test_metrics_there_are_not(text: str, told: str) -> None:
    with pytest.raises(UnknownMetricError) as error:
        score_of(text, METRICS)
    assert str(error.value) == told


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("dr + l2", "no l2: needs --weights"),
        ("dr + sigma_1", "no sigma_1: not measured"),
        ("dr / (dr - 2)", "divides by what is 0 within its error bound"),
        ("dr / (narc - 0.6)", "divides by what is 0 within its error bound"),
        ("sqrt(ds)", "takes the root of a value below 0"),
        ("1e200*dr", "too large to compare: past 1e+150"),
        ("1e200*dr*1e200", "passes the range of float64"),
        ("norm(1e200*dr)*1e200", "passes the range of float64"),
    ],
)
def test_what_has_no_value_has_its_reason(text: str, reason: str) -> None:
    assert score_of(text, METRICS).measure(VALUES) == Measure.missing(reason)


def test_a_metric_keeps_its_measure_and_direction() -> None:
    score = score_of("narc", METRICS)
    assert score.measure(VALUES) is VALUES["narc"]
    assert score.measure({}) == Measure.missing("not measured")
    assert not score.larger_is_better
    assert score_of("narc + 0", METRICS).larger_is_better
    assert not metric_score("l2_dense", weights=True, network=True).larger_is_better


def test_a_name_that_is_no_identifier_is_taken_whole() -> None:
    known = {"val acc": Metric("val acc", "a column of the table", "table")}
    assert score_of("val acc", known).measure({"val acc": Measure(1.0, 0.0)}).value == 1.0


def test_layers_are_the_fewest_of_its_metrics() -> None:
    assert score_of("dr + ds", METRICS).layers({"dr": 5, "ds": 3, "narc": 1}) == 3
    assert score_of("dr", METRICS).layers({}) is None


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("2*narc", 0.5),
        ("narc - narc", 0.5),  # bounds, not knowledge that both are one
        ("1/narc", 2.0),  # 1 / 0.25 - 1 / 0.5
        ("narc*ds", 0.75),
        ("abs(narc - 0.6)", 0.25),
        ("sqrt(narc - 0.3)", math.sqrt(0.2)),  # the root may be as small as 0
    ],
)
def test_bounds_by_hand(text: str, wanted: float) -> None:
    measure = score_of(text, METRICS).measure(VALUES)
    assert measure.error == pytest.approx(wanted, abs=1e-9)


NUMBERS = st.fractions(min_value=-8, max_value=8, max_denominator=64)
ERRORS = st.fractions(min_value=0, max_value=2, max_denominator=64)
EXPRESSIONS = {
    "a + b * c": lambda a, b, c: a + b * c,
    "(a - b) / c": lambda a, b, c: None if c == 0 else (a - b) / c,
    "a * b - c * a": lambda a, b, c: a * b - c * a,
    "abs(a - b) * -c": lambda a, b, c: abs(a - b) * -c,
}


@given(
    st.sampled_from(sorted(EXPRESSIONS)),
    st.tuples(NUMBERS, NUMBERS, NUMBERS),
    st.tuples(ERRORS, ERRORS, ERRORS),
    st.tuples(*[st.fractions(min_value=-1, max_value=1, max_denominator=32)] * 3),
)
def test_bounds_hold_for_all_that_operands_may_be(
    text: str, values: tuple[Fraction, ...], errors: tuple[Fraction, ...], places: tuple[Fraction, ...]
) -> None:
    """Exactly, in fractions: whatever a, b and c are within their bounds, the result is within its own."""
    known = {name: Metric(name, "", "table") for name in "abc"}
    given_values = {name: Measure(float(v), float(e)) for name, v, e in zip("abc", values, errors, strict=True)}
    measure = score_of(text, known).measure(given_values)
    if measure.value is None or measure.error is None:
        assert measure.reason == "divides by what is 0 within its error bound"
        assert abs(values[2]) <= errors[2]
        return
    true = EXPRESSIONS[text](*(v + e * place for v, e, place in zip(values, errors, places, strict=True)))
    assert true is not None
    assert abs(true - Fraction(measure.value)) <= Fraction(measure.error)


@given(st.text(alphabet="dr+-*/() .5e,abs_", max_size=24))
def test_any_text_is_read_or_refused(text: str) -> None:
    told = "read"
    try:
        score = score_of(text, METRICS)
    except (CompositeError, UnknownMetricError) as error:
        told = str(error)
    else:
        assert score.metrics
    assert told.isprintable()
