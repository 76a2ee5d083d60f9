"""`rank` and `correlate` as a program calls them: orders, correlations, tables and accuracies in memory."""

from __future__ import annotations

import dataclasses
import inspect
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import Pai

from pai_cli.api.analyze import analyze
from pai_cli.api.asked import Asked
from pai_cli.api.rank import correlate, rank
from pai_cli.api.ranked import Correlations, Place, Ranking
from pai_cli.api.report import Report
from pai_cli.commands.rank import rank as command
from pai_cli.errors import (
    MissingPackageError,
    ParameterError,
    TableError,
    UnknownMetricError,
    UnknownNameError,
    UsageError,
)
from pai_cli.telling import PaiWarning

SHOWING = {"format", "columns", "sort", "no_header"}
METHODS = ("erk", "magnitude", "random", "synflow", "uniform")


@pytest.fixture(scope="module")
def paths(samples: Path) -> list[Path]:
    return [samples / f"{method}-0.05.safetensors" for method in METHODS]


@pytest.fixture(scope="module")
def measured(paths: list[Path]) -> list[Report]:
    found: list[Report] = analyze(paths, jobs=1, no_store=True)
    return found


def test_the_parameters_are_the_commands() -> None:
    theirs = inspect.signature(command).parameters
    ours = inspect.signature(rank).parameters
    assert [name for name in ours if name != "progress"] == [name for name in theirs if name not in SHOWING]
    defaults = {name: one.default for name, one in theirs.items() if name in ours}
    assert {name: one.default for name, one in ours.items() if name != "progress"} == defaults
    asked = {field.name: field.default for field in dataclasses.fields(Asked) if field.init}
    assert asked == {name: one.default for name, one in ours.items()}


# An order ------------------------------------------------------------------------------------------------------------


def test_an_order_is_what_the_command_gives(paths: list[Path], pai: Pai) -> None:
    shown = pai("rank", *paths, "--format", "json").json()
    found = rank(paths)
    assert isinstance(found, Ranking)
    assert found.to_dict() == {"by": "dr_imdb", "masks": shown}
    json.dumps(found.to_dict(), allow_nan=False)
    assert [place.name for place in found] == [record["mask"] for record in shown]
    first = found[0]
    assert isinstance(first, Place)
    assert (first.rank, first.method, first.value.value) == (1, "synflow", shown[0]["value"])
    assert isinstance(first.report, Report)
    assert first.report["dr_imdb"] == first.value
    assert len(found) == len(found[:]) == 5


def test_reports_are_not_measured_again(measured: list[Report], paths: list[Path]) -> None:
    assert rank(measured).to_dict() == rank(paths).to_dict()
    assert rank(measured, by="sigma_2")[0].value == min(
        (one["sigma_2"] for one in measured), key=lambda value: value.value or 0
    )
    assert rank(measured, by="sigma_2", smallest_first=False)[0].rank == 1
    with pytest.raises(UsageError, match="weights: reports are measured already"):
        rank(measured, weights="x.safetensors")
    with pytest.raises(UsageError, match="some are reports and some are not"):
        rank([*measured, paths[0]])
    with pytest.raises(UnknownMetricError):
        rank(measured, by="l2")


def test_it_shows_itself_as_the_command_does(
    measured: list[Report], paths: list[Path], pai: Pai, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    lines = [line.rstrip() for line in pai("rank", *paths).out.splitlines() if line.strip()]
    found = rank(measured)
    assert [line for line in repr(found).splitlines() if line.strip()] == lines
    assert "<table>" in found._repr_html_()


def test_an_order_as_a_pandas_table(measured: list[Report], monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("pandas")
    found = rank(measured)
    assert list(found.to_pandas()["rank"]) == [1, 2, 3, 4, 5]
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(MissingPackageError):
        found.to_pandas()


def test_a_mask_that_fails_is_told(paths: list[Path], tmp_path: Path) -> None:
    with pytest.warns(PaiWarning, match="no such file"):
        found = rank([paths[0], tmp_path / "gone.safetensors"])
    assert len(found) == 1
    assert [one.name for one in found.failed] == [str(tmp_path / "gone.safetensors")]
    assert "no such file" in found.to_dict()["masks"][-1]["reason"]
    assert "not measured" in repr(found)


def test_densities_that_differ_are_told(samples: Path) -> None:
    with pytest.warns(PaiWarning, match="ranked within 2 groups"):
        rank([samples / "erk-0.05.safetensors", samples / "erk-0.2.safetensors"])


def test_masks_in_memory_are_ranked() -> None:
    masks = [
        {"a.weight": np.random.default_rng(at).permutation(np.arange(600) < 300).reshape(20, 30)} for at in range(3)
    ]
    found = rank(masks, by="sigma_2")
    assert sorted(place.name for place in found) == ["masks[0]", "masks[1]", "masks[2]"]
    assert {place.value.value for place in found} == {one["sigma_2"].value for one in analyze(masks)}


# Accuracies ----------------------------------------------------------------------------------------------------------

ACCURACY = dict(zip(METHODS, (0.8, 0.75, 0.6, 0.82, 0.55), strict=True))


def test_accuracies_in_any_form_say_the_same(measured: list[Report], tmp_path: Path) -> None:
    pd = pytest.importorskip("pandas")
    rows = [{"mask": one.path.name, "accuracy": ACCURACY[one.metadata["method"]]} for one in measured if one.path]
    table = tmp_path / "a.csv"
    table.write_text("mask,accuracy\n" + "".join(f"{row['mask']},{row['accuracy']}\n" for row in rows))
    by_name = {row["mask"]: row["accuracy"] for row in rows}
    several = {name: [value - 0.01, value + 0.01] for name, value in by_name.items()}
    in_order = [row["accuracy"] for row in rows]
    expected = correlate(measured, str(table))
    assert isinstance(expected, Correlations)
    for given in (table, by_name, rows, pd.DataFrame(rows), in_order, np.array(in_order), pd.Series(in_order)):
        assert correlate(measured, given).to_dict() == expected.to_dict()
    runs = correlate(measured, several)
    assert runs["dr"].tau == expected["dr"].tau
    assert runs.to_dict()["masks"][0]["runs"] == 2


def test_correlations_are_what_the_command_gives(
    measured: list[Report], paths: list[Path], tmp_path: Path, pai: Pai
) -> None:
    table = tmp_path / "a.csv"
    table.write_text("mask,accuracy\n" + "".join(f"{method}-0.05,{value}\n" for method, value in ACCURACY.items()))
    shown = pai("rank", *paths, "--accuracy", table, "--format", "json", "--metrics", "dr*", "--seed", "3").json()
    found = correlate(measured, table, metrics=["dr*"], seed=3)
    assert found.to_dict() == shown
    assert list(found) == list(found.study.metrics)
    assert found["dr"].tau.value == next(one["tau"] for one in shown["correlations"] if one["metric"] == "dr")
    assert found.best in (None, *found)
    with pytest.raises(UnknownNameError, match="no metric 'nope'"):
        found["nope"]
    assert "5 masks" in repr(found)
    assert "--" not in repr(found)
    assert "<table>" in found._repr_html_()
    assert rank(measured, accuracy=table, order=True)[0].accuracy == 0.82


def test_a_table_in_any_form_says_the_same(tmp_path: Path) -> None:
    pd = pytest.importorskip("pandas")
    rng = np.random.default_rng(0)
    columns = {
        "mask": [f"m{at}" for at in range(12)],
        "density": [0.1] * 12,
        "dr": rng.random(12).tolist(),
        "ds": rng.random(12).tolist(),
        "accuracy": (0.5 + rng.random(12) / 3).tolist(),
    }
    frame = pd.DataFrame(columns)
    path = tmp_path / "t.csv"
    frame.to_csv(path, index=False)
    expected = correlate(path)
    for given in (frame, columns, frame.to_dict(orient="records"), str(path)):
        assert correlate(given).to_dict() == expected.to_dict()
    assert correlate(
        frame.drop(columns="accuracy"), dict(zip(columns["mask"], columns["accuracy"], strict=True))
    ).to_dict() == (expected.to_dict())
    assert rank(table=frame, by="dr", order=True)[0].value.value == max(columns["dr"])


@pytest.mark.parametrize(
    ("accuracies", "text"),
    [
        ([0.5, 0.6], "accuracies: 2 of them for 5 masks; give one a mask, in their order"),
        ({"nobody": 0.5}, "has an accuracy for none of the masks"),
        ([{"mask": "x"}], "has no column 'accuracy'"),
        ([], "accuracies: 0 of them for 5 masks"),
        ({"erk-0.05": "high"}, "accuracy 'high' is not a number"),
        ({"erk-0.05": 300}, "neither a fraction"),
        (0.5, "accuracies: 1 of them for 5 masks"),
    ],
)
def test_accuracies_that_are_none(measured: list[Report], accuracies: Any, text: str) -> None:
    with pytest.raises(TableError) as told:
        correlate(measured, accuracies)
    assert text in str(told.value)


def test_two_masks_of_one_name(measured: list[Report]) -> None:
    with pytest.raises(TableError, match="two masks are called"):
        correlate([measured[0], measured[0]], [0.5, 0.6])


@pytest.mark.parametrize(
    ("asked", "text"),
    [
        ({}, "give masks, or table=CSV of metrics measured before, one of the two"),
        ({"masks": ["m"], "table": "t.csv"}, "one of the two"),
        ({"table": "t.csv", "weights": "w"}, "weights: the metrics of table= are measured already"),
        ({"table": "t.csv", "convention": "f23"}, "convention: the metrics of table= are measured already"),
        ({"masks": ["m"], "convention": "f24"}, "convention='f24': give one of h23, f23"),
        ({"table": "t.csv", "jobs": 2}, "jobs=, cluster=, store= and no_store=True: nothing is measured with table="),
        ({"table": "t.csv", "trust": True}, "trust=True: a table= holds no code"),
        ({"masks": ["m"], "group_by": "seed"}, "group_by= names columns of a table="),
        ({"masks": "-", "accuracy": "-"}, "- is standard input, which one thing can be read from"),
        ({"masks": ["m"], "force": True}, "force=True: no file is written"),
        ({"masks": ["m"], "collapsed_at": 2}, "collapsed_at=2: give a fraction"),
        ({"masks": ["m"], "resamples": 5}, "resamples=5: give a whole number from 100"),
        ({"masks": ["m"], "seed": -1}, "seed=-1: give a whole number"),
        ({"masks": ["m"], "accuracy_unit": "promille"}, "accuracy_unit='promille': give one of fraction, percent"),
        ({"masks": ["m"], "collapsed_at": 0.2}, "collapsed_at: is about accuracies, and there are none"),
        ({"masks": ["m"], "metrics": "dr"}, "metrics: is of correlations with accuracy, and this is an order"),
        (
            {"masks": ["m"], "accuracy": "a.csv", "smallest_first": True},
            "smallest_first=True: there is no order beside",
        ),
    ],
)
def test_what_does_not_go_together(asked: dict[str, Any], text: str) -> None:
    with pytest.raises(ParameterError) as told:
        rank(**asked)
    assert text in str(told.value)


def test_values_of_two_conventions_do_not_compare(measured: list[Report], paths: list[Path], tmp_path: Path) -> None:
    other = analyze(paths[:2], convention="f23", jobs=1, no_store=True)
    order = rank(paths[:2], convention="f23", by="dr", jobs=1, no_store=True)
    assert {place.name: place.value.value for place in order} == {one.name: one["dr"].value for one in other}
    assert {record["convention"] for record in order.to_dict()["masks"]} == {"f23"}
    assert [one["dr"].value for one in other] != [one["dr"].value for one in measured[:2]]
    assert rank(other, by="dr").to_dict() == order.to_dict()
    with pytest.raises(UsageError, match="masks: reports of f23 and h23 do not compare; measure all by one"):
        rank([measured[0], other[1]])
    with pytest.raises(UsageError, match="convention: reports are measured already; leave it out"):
        rank(measured, convention="f23")
    rows = [{"mask": one.name, "convention": one.convention, "dr": one["dr"].value} for one in [*measured[:2], *other]]
    assert {place.setting for place in rank(table=rows, by="dr")} == {"convention h23", "convention f23"}
    assert {place.setting for place in rank(table=rows[:2], by="dr")} == {""}


def test_nothing_to_correlate_with(measured: list[Report]) -> None:
    with pytest.raises(UsageError, match="there is nothing to correlate with"):
        correlate(measured)
    with pytest.raises(UsageError, match="the table has no column accuracy"):
        correlate([{"mask": "a", "dr": 1.0}, {"mask": "b", "dr": 2.0}])


# Pictures ------------------------------------------------------------------------------------------------------------


def test_pictures_are_axes_and_files(measured: list[Report], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    figures = pytest.importorskip("matplotlib.figure")
    monkeypatch.setenv("MPLBACKEND", "agg")
    found = rank(measured, plot=tmp_path / "o.svg", report=str(tmp_path / "o.html"))
    assert (tmp_path / "o.svg").exists()
    assert (tmp_path / "o.html").exists()
    own = figures.Figure()
    assert found.plot(own) == own.axes
    study = correlate(measured, list(ACCURACY.values()), plot=tmp_path / "c.svg")
    assert (tmp_path / "c.svg").exists()
    assert len(study.plot(figures.Figure())) >= len(study.study.metrics) - 4
