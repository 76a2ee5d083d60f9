"""`pai rank` from tables: metrics, accuracies and how their names match, and what the command shows."""

from __future__ import annotations

import csv
import io
import json
import signal
import time
from pathlib import Path

import pytest
from conftest import SAMPLES, Done, Pai
from copies import STOPPED, begin

from pai_cli.errors import TableError
from pai_cli.files.rows import Rows, read_rows
from pai_cli.ranking.accuracy import Run, matched, read_runs
from pai_cli.ranking.accuracy import accuracies as counted
from pai_cli.ranking.metric_table import Reading, metric_table
from pai_cli.ranking.rules import AccuracyRules, AccuracyUnit
from pai_cli.ranking.scored import ScoredMask
from pai_cli.spectral.result import Measure
from pai_cli.spelling import for_shell

NO_STDIN = io.StringIO()


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def rows_of(text: str) -> Rows:
    return read_rows(Path("-"), io.StringIO(text))


# --- files


def test_commas_tabs_quotes_and_empty_lines(tmp_path: Path) -> None:
    commas = write(tmp_path / "a.csv", '\ufeffmask, accuracy\n\n"a, b",0.5\n x ,"0.6"\n')
    found = read_rows(commas, NO_STDIN)
    assert found.columns == ("mask", "accuracy")
    assert [row.cells for row in found.rows] == [{"mask": "a, b", "accuracy": "0.5"}, {"mask": "x", "accuracy": "0.6"}]
    tabs = rows_of("mask\taccuracy\na,b\t1\n")
    assert (tabs.source, tabs.rows[0].cells["mask"], tabs.rows[0].line) == ("standard input", "a,b", 2)


@pytest.mark.parametrize(
    ("text", "lines"), [("a,b\n1,2\n\n3,4\n", [2, 4]), ("\n\na,b\n1,2\n", [4]), ('a,b\n"1\n1",2\n3,4\n', [3, 4])]
)
def test_lines_are_numbered_as_an_editor_does(text: str, lines: list[int]) -> None:
    assert [row.line for row in rows_of(text).rows] == lines


JSON = "looks like JSON; a table is CSV or TSV: save it as one, as DataFrame.to_csv does"


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"", "is empty; a table begins with a line of column names"),
        (b"mask;accuracy\na;0,5\n", "has semicolons between its cells; save it with commas or tabs"),
        (b'[{"mask": "a",\n"accuracy": 0.5}]', JSON),
        (b'{"a": 0.5}', JSON),
        (b"\n \n", "is empty; a table begins with a line of column names"),
        (b"mask,accuracy\n", "has column names but no row"),
        (b"a,a\n1,2\n", "has two columns named 'a'; each needs its own name"),
        (b"a,b\n1,2\n1\n", "line 3: has 1 cells where the header names 2 columns; is the file whole?"),
        (b'a,b\n1,"2\n', "line 2: unexpected end of data; a table is CSV or TSV"),
        (b"\x93\xff\x00", "no UTF-8 text; a table is CSV or TSV"),
    ],
)
def test_files_that_are_no_tables(tmp_path: Path, content: bytes, told: str) -> None:
    path = tmp_path / "t.csv"
    path.write_bytes(content)
    with pytest.raises(TableError) as error:
        read_rows(path, NO_STDIN)
    assert str(error.value).removeprefix(f"{path}: ") == told


def test_no_file(tmp_path: Path) -> None:
    for path, told in ((tmp_path / "no.csv", "no such file"), (tmp_path, "Is a directory")):
        with pytest.raises(TableError) as error:
            read_rows(path, NO_STDIN)
        assert str(error.value) == f"{path}: {told}"


# --- accuracies


def runs_of(text: str, rules: AccuracyRules | None = None) -> tuple[list[Run], list[str]]:
    told: list[str] = []
    return read_runs(rows_of(text), rules or AccuracyRules(), lambda line: told.append(for_shell(line))), told


@pytest.mark.parametrize(
    ("text", "accuracies", "told"),
    [
        ("mask,accuracy\na,0.5\nb,1\n", [0.5, 1.0], []),
        ("mask,accuracy\na,55\nb,93.1\n", [0.55, 0.931], ["accuracies above 1: read as percentages"]),
        (
            "mask,accuracy\na,nan\nb,\nc,0.5\nd,NaN\ne,\n",
            [0.5],
            ["4 rows (lines 2, 3, 5 and 1 more) without an accuracy: left out"],
        ),
        (
            "mask,accuracy\na,0.1\nb,0.1001\n",
            [0.1001],
            [
                "1 row (line 2) collapsed (accuracy at most 0.1): set aside; --collapsed-at takes the accuracy of chance, "
                "0 keeps all"
            ],
        ),
        (
            "mask,accuracy\na,10\nb,50\n",
            [0.5],
            [
                "accuracies above 1: read as percentages",
                "1 row (line 2) collapsed (accuracy at most 0.1): set aside; --collapsed-at takes the accuracy of chance, "
                "0 keeps all",
            ],
        ),
        (
            "mask,accuracy,seed\na,0.5,1\na,0.5,1\na,0.6,2\n",
            [0.5, 0.6],
            ["1 row (line 3) repeating another: counted once"],
        ),
        ("mask,accuracy\na,0.5\na,0.5\n", [0.5, 0.5], []),  # without seeds, two runs
        ("mask,accuracy,seed,dataset\na,0.5,1,x\na,0.6,1,y\n", [0.5, 0.6], []),
    ],
)
def test_accuracies(text: str, accuracies: list[float], told: list[str]) -> None:
    runs, notes = runs_of(text)
    assert [run.accuracy for run in runs] == pytest.approx(accuracies, abs=1e-15)
    assert [note.removeprefix("standard input: ") for note in notes] == told


def test_rules_of_accuracies() -> None:
    text = "mask,accuracy\na,0.05\nb,0.1\n"
    assert [run.accuracy for run in runs_of(text, AccuracyRules(0.01))[0]] == [0.05, 0.1]
    assert [run.accuracy for run in runs_of("mask,accuracy\na,0\nb,0.1\n", AccuracyRules(0.0))[0]] == [0.0, 0.1]
    assert runs_of("mask,accuracy\na,0.10000000149\n")[0] == []  # 0.1 in single precision
    mixed = "mask,accuracy\na,0.5\nb,80\n"
    percent = AccuracyRules(0.001, AccuracyUnit.PERCENT)
    assert [run.accuracy for run in runs_of(mixed, percent)[0]] == [0.005, 0.8]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("name,accuracy\na,1\n", "has no column 'mask'; accuracies take the columns mask, accuracy and, if wanted, seed "
         "and dataset"),
        ("mask,acc\na,1\n", "has no column 'accuracy'; accuracies take the columns mask, accuracy and, if wanted, seed "
         "and dataset"),
        ("mask,accuracy\na,high\n", "line 2: accuracy 'high' is not a number"),
        ("mask,accuracy\na,0.5\na,101\n", "line 3: accuracy 101 is neither a fraction (0 to 1) nor a percentage (0 to 100)"),
        ("mask,accuracy\na,-0.5\n", "line 2: accuracy -0.5 is neither a fraction (0 to 1) nor a percentage (0 to 100)"),
        ("mask,accuracy\na,inf\n", "line 2: accuracy inf is neither a fraction (0 to 1) nor a percentage (0 to 100)"),
        ("mask,accuracy\na,92\nb,0.93\n", "line 3: accuracy 0.93 looks like a fraction, and 92 on line 2 like a percentage; "
         "say accuracy_unit=percent if it is one"),
        ("mask,accuracy\n,0.5\n", "line 2: names no mask"),
        ("mask,accuracy,dataset\na,0.5,x\na,0.5,\n", "line 3: names no data set, where other rows do"),
        ("mask,accuracy,seed\na,0.5,1\nb,0.5,1\na,0.6,1\n", "line 4: gives 'a', seed 1, another accuracy than line 2 does"),
    ],
)  # fmt: skip
def test_accuracies_that_cannot_be(text: str, told: str) -> None:
    with pytest.raises(TableError) as error:
        runs_of(text)
    assert str(error.value) == f"standard input: {told}"


def test_a_percentage_where_fractions_were_promised() -> None:
    with pytest.raises(TableError) as error:
        runs_of("mask,accuracy\na,0.5\nb,80\n", AccuracyRules(unit=AccuracyUnit.FRACTION))
    assert str(error.value) == "standard input: line 3: accuracy 80 is no fraction"


# --- names

MASKS = ["runs/a.safetensors", "runs/b.safetensors", "other/b.safetensors", "c.npz"]


def match(*names: str) -> tuple[dict[str, list[int]], list[str]]:
    told: list[str] = []
    runs = [Run(line, name, "", "", 0.5) for line, name in enumerate(names, start=2)]
    found = matched(MASKS, runs, "r.csv", told.append)
    return {mask: [run.line for run in own[""]] for mask, own in found.items()}, told


def test_a_mask_is_named_by_path_file_name_or_stem() -> None:
    found, told = match(
        "runs/a.safetensors", "a.safetensors", "a", "other/b.safetensors", "c", "zzz", "./runs/a.safetensors", "other/b"
    )
    assert found == {"runs/a.safetensors": [2, 3, 4, 8], "other/b.safetensors": [5, 9], "c.npz": [6]}
    assert told == [
        "r.csv: 1 row (line 7) of masks that are not here (zzz): left out",
        "r.csv: no accuracy that counts of runs/b.safetensors: left out",
    ]


@pytest.mark.parametrize(
    ("names", "told"),
    [
        (["b"], "r.csv: line 2: 'b' could be runs/b.safetensors, other/b.safetensors; write the path as it is given"),
        (
            ["x", "y"],
            "r.csv: has an accuracy for none of the masks (line 2: 'x'); name them by path, file name, stem or folder",
        ),
        ([], "r.csv: has an accuracy for none of the masks; name them by path, file name, stem or folder"),
    ],
)
def test_names_that_cannot_be_matched(names: list[str], told: str) -> None:
    with pytest.raises(TableError) as error:
        match(*names)
    assert str(error.value) == told


# --- tables of metrics


def table_of(
    text: str, *group_by: str, rules: AccuracyRules | None = None
) -> tuple[list[ScoredMask], list[str], list[str]]:
    """Its masks, metrics and what was told."""
    told: list[str] = []
    how = Reading(rules or AccuracyRules(), group_by or None)
    found = metric_table(rows_of(text), how, lambda line: told.append(for_shell(line)))
    return found.masks, list(found.metrics), told


def test_a_published_table() -> None:
    masks, metrics, told = table_of(
        "architecture,method,density,dr,dr_error,mine,note,accuracy,accuracy_std\n"
        "net,A,0.1,1.5,0.25,7,first,0.8,0.01\n"
        "net,B,0.1,,,8,second,0.1,0\n"
    )
    assert metrics == ["dr", "mine"]
    first, second = masks
    assert (first.name, first.setting, first.density, first.method) == ("net A 0.1", "architecture net", 0.1, "A")
    assert (first.accuracy, first.spread, first.runs) == (0.8, 0.01, 1)
    assert (first.values["dr"].value, first.values["dr"].error) == (1.5, 0.25)
    assert (second.accuracy, second.values["dr"].reason) == (None, "no value in the table")
    assert told == [
        "standard input: compared within equal architecture and density; --group-by chooses",
        "standard input: 1 row (line 3) collapsed (accuracy at most 0.1): set aside; --collapsed-at takes the accuracy of "
        "chance, 0 keeps all",
    ]


def test_a_deviation_is_of_one_kind_with_its_accuracy() -> None:
    for cells in ("80,1.5", "80%,1.5%", "80 %,1.5"):
        masks, _, told = table_of(f"method,density,dr,accuracy,accuracy_std\nA,0.1,1,{cells}\n")
        assert (masks[0].accuracy, masks[0].spread) == (0.8, 0.015)
        assert told[-1] == "standard input: accuracies above 1: read as percentages"


@pytest.mark.parametrize("named", [[], ["--accuracy-column", "test_acc"]])
def test_a_deviation_beside_the_accuracy_is_no_metric(named: list[str], pai: Pai, tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    rows = "".join(f"m{at},0.1,{at * at},{90 + at},{at}\n" for at in range(5))
    path.write_text(f"mask,density,l2,test_acc,test_acc_std\n{rows}")
    done = pai("rank", "--table", path, "--format", "json", *named)
    assert {row["metric"] for row in done.json()["correlations"]} == {"l2"}
    assert [row["spread"] for row in done.json()["masks"]] == [0.0, 0.01, 0.02, 0.03, 0.04]


@pytest.mark.parametrize("sign", ["", "%"])
def test_the_accuracy_of_a_table_is_found_by_a_usual_name(pai: Pai, tmp_path: Path, sign: str) -> None:
    path = tmp_path / "t.csv"
    rows = "".join(f"m{at},0.1,{at * at},{90 + at / 2}{sign}\n" for at in range(5))
    path.write_text(f"mask,density,l2,Test Acc (%)\n{rows}")
    done = pai("rank", "--table", path, "--format", "json", "--metrics", "l2")
    assert done.json()["correlations"][0]["tau"] == 1.0
    assert f"{path}: accuracy is column Test Acc (%); --accuracy-column names another" in done.err
    ordered = pai("rank", "--table", path, "--order", "--format", "json")
    assert [row["accuracy"] for row in ordered.json()] == [0.92, 0.915, 0.91, 0.905, 0.9]


@pytest.mark.parametrize(
    ("columns", "cells", "asked"),
    [
        ("acc,top1", "0.5,0.6", []),  # of equal right
        ("test_acc,x", "good,1", []),
        ("test_acc,x", "250,1", []),
        ("test_acc,x", "0.5,1", ["--by", "test_acc"]),
        ("test_acc,x", "0.5,1", ["--by", "l2*test_acc"]),
        ("test_acc,x", "0.5,1", ["--group-by", "test_acc"]),
    ],
)
def test_what_may_be_no_accuracy_stays_what_it_is(
    columns: str, cells: str, asked: list[str], pai: Pai, tmp_path: Path
) -> None:
    path = tmp_path / "t.csv"
    path.write_text(f"mask,density,l2,{columns}\na,0.1,1,{cells}\nb,0.1,2,{cells}\n")
    done = pai("rank", "--table", path, "--format", "json", *asked)
    assert (done.status, [row["accuracy"] for row in done.json()]) == (0, [None, None])
    assert "--accuracy-column" not in done.err


def test_a_name_within_another_is_not_asked_for(pai: Pai, tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("mask,density,acceleration,acc\na,0.1,1,0.5\nb,0.1,2,0.6\n")
    done = pai("rank", "--table", path, "--by", "acceleration", "--order", "--format", "json")
    assert [row["accuracy"] for row in done.json()] == [0.6, 0.5]


def test_a_percent_sign_says_percent() -> None:
    """Also of what is below 1, as the accuracy of a thousand classes by chance."""
    for cells, found in (
        (["0.8%", "0.6 %"], [0.008, 0.006]),
        (["0.8%", "90%"], [0.008, 0.9]),
        (["0%", "0.5%"], [0.0, 0.005]),
        (["90", "0.5%"], [0.9, 0.005]),
    ):
        rows = rows_of("accuracy\n" + "\n".join(cells))
        assert [value for _, value, _ in counted(rows, AccuracyRules(0), lambda _: None)] == found
    for cells, unit, told in (
        (["0.8", "0.9%"], None, "accuracy 0.8 looks like a fraction, and 0.9% on line 3 like a percentage"),
        (["0.8", "0.9%"], AccuracyUnit.FRACTION, "line 3: accuracy 0.9% is no fraction"),
    ):
        with pytest.raises(TableError, match=told):
            counted(rows_of("accuracy\n" + "\n".join(cells)), AccuracyRules(0, unit), lambda _: None)
    ((_, _, spread),) = counted(rows_of("accuracy,accuracy_std\n0.8,1.5%\n"), AccuracyRules(), lambda _: None)
    assert spread == 0.015


def test_results_of_training_among_the_metrics_are_told() -> None:
    _, metrics, told = table_of("density,dr,train_loss,topAcc,accuracy\n0.1,1,2,3,0.5\n")
    assert metrics == ["dr", "train_loss", "topAcc"]
    assert told[1] == (
        "standard input: train_loss, topAcc may be known after training only: --metrics can leave them out"
    )


def test_rows_of_one_mask_are_its_runs() -> None:
    masks, _, _ = table_of("mask,dr,seed,accuracy\na,1,0,0.5\nb,2,0,0.6\na,1,1,0.7\n")
    assert [(one.name, one.accuracy, one.runs) for one in masks] == [("a", pytest.approx(0.6), 2), ("b", 0.6, 1)]
    assert masks[0].spread == pytest.approx(0.02**0.5)


def test_rows_that_nothing_names_are_called_by_their_line() -> None:
    masks, _, _ = table_of("method,dr\nA,1\nA,2\n")
    assert [one.name for one in masks] == ["line 2", "line 3"]
    masks, _, _ = table_of("dr\n1\n2\n")
    assert [one.name for one in masks] == ["line 2", "line 3"]


@pytest.mark.parametrize(
    ("columns", "settings", "by_density"),
    [
        ((), ["architecture x, dataset y"], True),
        (("density",), [""], True),
        (("method", "architecture"), ["method A, architecture x", "method B, architecture x"], False),
        (("none",), [""], False),
    ],
)
def test_what_separates_comparisons(columns: tuple[str, ...], settings: list[str], by_density: bool) -> None:
    text = "architecture,dataset,method,density,dr\nx,y,A,0.1,1\nx,y,B,0.1,2\n"
    found = metric_table(rows_of(text), Reading(AccuracyRules(), columns or None), lambda _: None)
    assert list(dict.fromkeys(one.setting for one in found.masks)) == settings
    assert found.within.by_density is by_density


@pytest.mark.parametrize(
    ("text", "columns", "told"),
    [
        ("mask,dr\na,x\n", (), "line 2: dr 'x' is not a number"),
        ("mask,note\na,x\n", (), "has no column of numbers that could be a metric; see pai analyze summary=True"),
        ("mask,dr,dr_error\na,1,x\n", (), "line 2: dr_error 'x' is not a number"),
        ("mask,dr\n,1\n", (), "line 2: names no mask"),
        (
            "mask,dr,density\na,1,120\n",
            (),
            "line 2: density '120' is neither a fraction (0 to 1) nor a percentage (0 to 100)",
        ),
        (
            "mask,dr,density\na,1,-0.1\n",
            (),
            "line 2: density '-0.1' is neither a fraction (0 to 1) nor a percentage (0 to 100)",
        ),
        ("mask,dr,density\na,1,0.1\nb,2,x\n", (), "line 3: density 'x' is not a number"),
        ("mask,dr\na,1\na,2\n", (), "line 3: dr of 'a' differs from line 2's; each mask needs a name of its own"),
        ("mask,dr\na,1\na,\n", (), "line 3: dr of 'a' differs from line 2's; each mask needs a name of its own"),
        ("mask,dr\na,1\n", ("net",), "group_by=net: no such column; there are mask, dr"),
        (
            "mask,level,dr\na,layer,1\n",
            (),
            "has rows of layers only; the means of networks are what masks are ranked by",
        ),
    ],
)
def test_tables_that_cannot_be(text: str, columns: tuple[str, ...], told: str) -> None:
    with pytest.raises(TableError) as error:
        table_of(text, *columns)
    assert str(error.value) == f"standard input: {told}"


def test_a_bound_that_is_not_finite_is_no_bound_of_0() -> None:
    found, *_ = table_of("mask,dr,dr_error\na,1,inf\nb,2,nan\nc,3,-0.5\nd,4,\n")
    assert [mask.values["dr"] for mask in found] == [
        Measure.missing("its error is inf"),
        Measure.missing("its error is nan"),
        Measure(3.0, 0.5),
        Measure(4.0, 0.0),
    ]


# --- the command

QUICK = ("--resamples", 100)

# Two architectures of five methods at two densities. Within a density dr_imdb orders methods but for one pair, dr against
# all but one; across densities both rise with accuracy.
PUBLISHED = """architecture,method,density,dr,dr_imdb,accuracy
net,A,0.1,5,1,0.50
net,B,0.1,4,2,0.55
net,C,0.1,3,3,0.60
net,D,0.1,1,5,0.65
net,E,0.1,2,4,0.70
net,A,0.2,15,11,0.80
net,B,0.2,14,12,0.81
net,C,0.2,13,13,0.82
net,D,0.2,11,15,0.83
net,E,0.2,12,14,0.84
vgg,A,0.1,1,1,0.1
vgg,B,0.1,2,2,0.6
vgg,C,0.1,3,3,0.7
"""


@pytest.fixture
def published(tmp_path: Path) -> Path:
    return write(tmp_path / "published.csv", PUBLISHED)


def taus(done: Done) -> dict[tuple[str, str, str, str], float | None]:
    found = csv.DictReader(io.StringIO(done.out))
    return {
        (row["metric"], row["scope"], row["setting"], row["density"]): float(row["tau"]) if row["tau"] else None
        for row in found
    }


def test_what_a_published_table_says(pai: Pai, published: Path) -> None:
    done = pai("rank", "--table", published, "--format", "csv", *QUICK)
    assert done.status == 0
    assert done.said == [
        f"pai: {published}: compared within equal architecture and density; --group-by chooses",
        f"pai: {published}: 1 row (line 12) collapsed (accuracy at most 0.1): set aside; --collapsed-at takes the accuracy "
        "of chance, 0 keeps all",
        f"pai: {published}: has no column layer_density, nor densities of layers to make it of: what a metric tells beyond "
        "it is not known; --controls names others to hold metrics against",
    ]
    found = taus(done)
    net = "architecture net"
    for density in ("0.1", "0.2"):
        assert found["dr_imdb", "density", net, density] == pytest.approx(0.8)  # one of ten pairs the other way
        assert found["dr", "density", net, density] == pytest.approx(-0.8)
    assert found["dr_imdb", "pooled", net, ""] == pytest.approx(0.8)
    assert found["dr", "pooled", net, ""] == pytest.approx(-0.8)
    assert found["dr_imdb", "overall", net, ""] == pytest.approx((25 + 8 + 8) / 45)
    assert found["dr", "overall", net, ""] == pytest.approx((25 - 8 - 8) / 45)  # the wrong sign: confounded
    assert found["dr", "density", "architecture vgg", "0.1"] == 1.0
    assert found["dr", "pooled", "", ""] == pytest.approx((-8 - 8 + 1) / 21)


def test_the_table_for_people_says_what_to_beware_of(pai: Pai, published: Path) -> None:
    done = pai("rank", "--table", published, "--group-by", "density", "--metrics", "dr_imdb,dr")
    text = done.out
    assert "12 masks, compared within 2 groups of equal density" in text
    assert "mixed (confounded)" in text
    assert "dr_imdb follows accuracy most closely: tau 0." in text
    assert "strongest in" in text
    assert "Runner-up: dr, tau " in text
    assert (
        "With densities mixed, tau is confounded by density: accuracy follows density, and so does any metric that grows "
        "with it. Judge by masks of equal density." in text
    )
    few = pai("rank", "--table", published, "--metrics", "dr_imdb,dr").out
    assert (
        "No metric can be told from the others: too few masks to say anything: with 2 the smallest possible p of tau is 1, "
        "1 after correction for 2 metrics; it takes 5." in few
    )


def test_settings_of_one_mask_share_a_line(pai: Pai, tmp_path: Path) -> None:
    rows = "".join(f"net{k},{k % 3},{0.5 + k / 100}\n" for k in range(6))
    text = pai("rank", "--table", write(tmp_path / "t.csv", f"model,dr,accuracy\n{rows}")).out
    assert text.startswith("model net0, model net1, model net2 and 3 more: 1 mask each, and a correlation takes two\n")
    assert text.count("No metric can be told from the others") == 1
    several = "".join(f"other,{k % 3},{0.5 + k / 100}\n" for k in range(6))
    text = pai("rank", "--table", write(tmp_path / "u.csv", f"model,dr,accuracy\n{rows}{several}")).out
    assert "model other: 6 masks" in text
    assert "model net0: 1 mask" not in text


def test_json_is_one_object(pai: Pai, published: Path) -> None:
    found = pai(
        "rank", "--table", published, "--by", "dr_imdb - dr/2", "--seed", 3, "--resamples", 100, "--format", "json"
    ).json()
    assert sorted(found) == [
        "best",
        "correction",
        "correlations",
        "grouped_by",
        "interval",
        "masks",
        "partial",
        "resamples",
        "seed",
    ]
    assert (found["resamples"], found["seed"], found["grouped_by"]) == (100, 3, ["architecture", "density"])
    assert {row["metric"] for row in found["correlations"]} == {"dr", "dr_imdb", "dr_imdb - dr/2"}
    assert len(found["masks"]) == 12
    assert found["masks"][0] == {
        "mask": "net A 0.1",
        "setting": "architecture net",
        "density": 0.1,
        "density_group": 0,
        "accuracy": 0.5,
        "spread": None,
        "runs": 1,
        "metrics": {"dr": 5.0, "dr_imdb": 1.0, "dr_imdb - dr/2": -1.5},
        "errors": {"dr": 0.0, "dr_imdb": 0.0, "dr_imdb - dr/2": found["masks"][0]["errors"]["dr_imdb - dr/2"]},
    }
    best = found["best"][-1]
    assert best["scope"] == "pooled"
    assert sorted(best) == [
        *("best_share", "density", "metric", "n_common", "not_told_from", "reversed", "runner_up"),
        *("scope", "setting", "tau_common"),
    ]


FIELDS = (
    "metric,scope,setting,density,masks,groups,grouped_by,confounded,n,tau,tau_low,tau_high,tau_p,tau_p_holm,tau_test,rho,rho_low,"
    "rho_high,rho_p,rho_p_holm,rho_test,r,r_low,r_high,r_p,r_p_holm,r_test,partial,partial_low,partial_high,partial_p,partial_p_holm,"
    "partial_test,controls,n_partial,partial_reason,n_common,tau_common,best_share,behind,"
    "behind_low,behind_high,reason"
)


def test_the_fields_are_these_in_every_format(pai: Pai, published: Path) -> None:
    """Programs read them by name: renaming one breaks their users."""
    command = ("rank", "--table", published, *QUICK, "--format")
    lines = pai(*command, "csv").out.splitlines()
    assert lines[0] == FIELDS
    assert pai(*command, "csv", "--no-header").out.splitlines() == lines[1:]
    assert pai(*command, "tsv").out.splitlines()[0] == FIELDS.replace(",", "\t")
    listed = [json.loads(line) for line in pai(*command, "jsonl").out.splitlines()]
    assert [",".join(row) for row in listed] == [FIELDS] * (len(lines) - 1)
    assert listed == pai(*command, "json").json()["correlations"]


def test_an_order_of_a_table(pai: Pai, published: Path) -> None:
    done = pai("rank", "--table", published, "--order", "--by", "2*dr_imdb", "--format", "json")
    rows = done.json()
    assert [row["mask"] for row in rows[:5]] == ["net D 0.1", "net E 0.1", "net C 0.1", "net B 0.1", "net A 0.1"]
    assert (rows[0]["by"], rows[0]["value"], rows[0]["accuracy"], rows[0]["runs"]) == ("2*dr_imdb", 10.0, 0.65, 1)
    assert [row["density_group"] for row in rows] == [0] * 5 + [1] * 5 + [2] * 3
    assert done.said[-1] == "pai: masks of 2 settings do not compare: ranked within 3 groups"
    last = pai("rank", "--table", published, "--order", "--by", "dr", "--smallest-first", "--format", "json").json()
    assert last[0]["mask"] == "net D 0.1"
    drawn = pai("rank", "--table", published, "--order", "--by", "dr").out
    assert "architecture net" in drawn
    assert "layers" not in drawn


def test_what_analyze_writes_is_a_table(pai: Pai, tmp_path: Path) -> None:
    masks = [SAMPLES / f"{method}-0.05.safetensors" for method in ("erk", "synflow", "random")]
    for flags in (["--summary"], []):
        written = write(tmp_path / "m.csv", pai("analyze", *masks, *flags, "--format", "csv").out)
        done = pai("rank", "--table", written, "--format", "json")
        direct = pai("rank", *masks, "--format", "json").json()
        for row, wanted in zip(done.json(), direct, strict=True):
            assert row == wanted
        passed = f"pai: {written}: 60 rows of layers passed over: networks are ranked by their means"
        grouped = f"pai: {written}: compared within equal density; --group-by chooses"
        assert done.said == ([grouped] if flags else [passed, grouped])
    piped = pai("rank", "--table", "-", "--format", "json", stdin=written.read_text())
    assert piped.json() == done.json()


def accuracies(path: Path, *rows: str) -> Path:
    return write(path / "results.csv", "\n".join(["mask,seed,accuracy", *rows]) + "\n")


def by_scope(rows: list[dict[str, object]]) -> dict[tuple[object, ...], dict[str, object]]:
    return {(row["metric"], row["scope"], row["density"]): row for row in rows}


def test_masks_and_their_accuracies(pai: Pai, tmp_path: Path) -> None:
    names = [f"{method}-{density}" for method in ("random", "erk", "synflow") for density in ("0.02", "0.05")]
    masks = [SAMPLES / f"{name}.safetensors" for name in names]
    rows = [f"{name},{seed},{70 + 2 * k + seed}" for k, name in enumerate(names) for seed in (0, 1)]
    results = accuracies(tmp_path, *rows[:-2], "nowhere,0,80")
    study = ("--accuracy", results, "--by", "norm(dr, dr_imdb)", "--format", "json", *QUICK)
    done = pai("rank", *masks, *study)
    assert done.status == 0
    assert [line for line in done.said if "results" in line] == [
        f"pai: {results}: accuracies above 1: read as percentages",
        f"pai: {results}: 1 row (line 12) of masks that are not here (nowhere): left out",
        f"pai: {results}: no accuracy that counts of {masks[-1]}: left out",
    ]
    found = done.json()
    assert len(found["masks"]) == 5
    assert {one["runs"] for one in found["masks"]} == {2}
    assert found["masks"][0]["spread"] == pytest.approx(0.01 / 2**0.5)
    assert "l2" not in found["masks"][0]["metrics"]
    assert "norm(dr, dr_imdb)" in found["masks"][0]["metrics"]
    ordered = pai("rank", *masks, "--accuracy", results, "--order", "--format", "json").json()
    assert len(ordered) == 6
    assert [row["accuracy"] for row in ordered if row["mask"].endswith("synflow-0.05.safetensors")] == [None]
    table = write(tmp_path / "m.csv", pai("analyze", *masks, "--format", "csv").out)
    other = pai("rank", "--table", table, *study).json()
    assert by_scope(other["correlations"]) == by_scope(found["correlations"])


def test_datasets_are_settings(pai: Pai, tmp_path: Path) -> None:
    masks = [SAMPLES / f"{method}-0.05.safetensors" for method in ("erk", "synflow", "random")]
    results = write(
        tmp_path / "r.csv",
        "mask,dataset,accuracy\n"
        + "".join(f"{m}-0.05,{d},{a}\n" for m, a in (("erk", 0.6), ("synflow", 0.7), ("random", 0.5)) for d in "xy"),
    )
    found = pai("rank", *masks, "--accuracy", results, "--metrics", "dr_imdb", "--format", "json").json()
    assert {row["setting"] for row in found["correlations"]} == {"dataset x", "dataset y", None}
    assert {row["tau"] for row in found["correlations"]} == {1.0}


def test_the_distance_from_dense_is_measured_where_it_is_correlated(pai: Pai, tmp_path: Path, resnet: Path) -> None:
    masks = [SAMPLES / f"{method}-0.05.safetensors" for method in ("erk", "synflow", "random")]
    results = accuracies(tmp_path, "erk-0.05,0,0.6", "synflow-0.05,0,0.7", "random-0.05,0,0.5")
    common = ["--accuracy", results, "--weights", resnet, "--format", "json"]
    found = pai("rank", *masks, *common).json()
    assert all(one["metrics"]["l2_dense"] is not None for one in found["masks"])


def test_a_mask_that_fails_leaves_the_others(pai: Pai, tmp_path: Path) -> None:
    bad = write(tmp_path / "bad.safetensors", "no mask")
    results = accuracies(tmp_path, "erk-0.05,0,0.6", "synflow-0.05,0,0.7", "bad,0,0.5")
    done = pai("rank", SAMPLES / "erk-0.05.safetensors", SAMPLES / "synflow-0.05.safetensors", bad, "--accuracy", results,
               "--format", "json")  # fmt: skip
    assert done.status == 1
    assert len(done.json()["masks"]) == 2
    assert done.said[0].startswith(f"pai: error: {bad}: ")


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ([], "give masks, or --table CSV of metrics measured before, one of the two"),
        (["x", "--table", "t.csv"], "give masks, or --table CSV of metrics measured before, one of the two"),
        (
            ["--table", "t.csv", "--weights", "w"],
            "--weights: the metrics of --table are measured already; leave it out",
        ),
        (["x", "--group-by", "density"], "--group-by names columns of a --table, or of accuracies; leave it out"),
        (["--table", "-", "--accuracy", "-"], "- is standard input, which one thing can be read from"),
        (["-", "--accuracy", "-"], "- is standard input, which one thing can be read from"),
        (
            ["--table", "t.csv", "--accuracy", "t.csv"],
            "--accuracy: t.csv has a column accuracy itself; leave one of them out",
        ),
        (
            ["--table", "t.csv", "--order", "--metrics", "dr"],
            "--metrics: is of correlations with accuracy, and this is an order: leave it out",
        ),
        (
            ["--table", "t.csv", "--order", "--seed", "1"],
            "--seed: is of correlations with accuracy, and this is an order: leave it out",
        ),
        (
            ["--table", "t.csv", "--order", "--resamples", "200"],
            "--resamples: is of correlations with accuracy, and this is an order: leave it out",
        ),
        (["no-mask", "--order"], "--order: is about accuracies, and there are none: leave it out"),
        (["--table", "u.csv", "--order"], "--order: is about accuracies, and there are none: leave it out"),
        (["--table", "u.csv", "--collapsed-at", "0.2"], "--collapsed-at: is about accuracies, and there are none"),
        (
            ["--table", "t.csv", "--smallest-first"],
            "--smallest-first: there is no order beside correlations: give --order, or leave it out",
        ),
        (
            ["--table", "t.csv", "--collapsed-at", "2"],
            "--collapsed-at 2: give 1 or less; pai rank --help lists what it takes",
        ),
        (["--table", "t.csv", "--resamples", "100001"], "--resamples 100001: give 100,000 or less"),
        (["--table", "t.csv", "--metrics", "dr_imbd"], "--metrics dr_imbd: matches no metric; there are dr, dr_imdb"),
        (["--table", "t.csv", "--metrics", ","], "--metrics ,: matches no metric; there are dr, dr_imdb"),
        (
            ["--table", "t.csv", "--by", "dr+"],
            "--by 'dr+': character 4: the end where a metric, a number or ( is expected",
        ),
        (["--table", "t.csv", "--by", "l2"], "unknown metric 'l2': --by takes dr, dr_imdb"),
        (["--table", "u.csv"], "no column l2 or dr_imdb to rank by: give --by, which takes x, y"),
        (["--table", "t.csv", "--accuracy-column", "acc"], "t.csv: --accuracy-column acc: no such column; there are "),
        (["no-mask", "--mask-column", "run"], "--mask-column names a column of --accuracy CSV, or of a --table"),
        (
            ["no-mask", "--accuracy-column", "run"],
            "--accuracy-column names a column of --accuracy CSV, or of a --table",
        ),
        (["--table", "t.csv", "--trust"], "--trust: a --table holds no code; leave it out"),
        (["--table", "t.csv", "--force"], "--force: no file is written; give --plot or --report, or leave it out"),
    ],
)
def test_wrong_usage(
    pai: Pai, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], told: str
) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "t.csv", PUBLISHED)
    write(tmp_path / "u.csv", "mask,x,y\na,1,2\n")
    done = pai("rank", *arguments)
    assert (done.status, done.out) == (2, "")
    assert told in done.words


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--table", "no.csv"], "no.csv: no such file"),
        (["--table", "t.csv", "--collapsed-at", "1"], "t.csv: has no accuracy that counts (--collapsed-at); "
         "--order ranks its rows without"),
        (["m", "--accuracy", "no.csv"], "no.csv: no such file"),
        (["m", "--accuracy", "t.csv"], "t.csv: has no column 'mask', nor one of a like name; --mask-column says which of "
         "architecture, method, density, dr, dr_imdb, accuracy it is"),
    ],
)  # fmt: skip
def test_what_cannot_be_done(
    pai: Pai, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], told: str
) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "t.csv", PUBLISHED)
    write(tmp_path / "u.csv", "mask,x,y\na,1,2\n")
    done = pai("rank", *arguments)
    assert (done.status, done.out) == (1, "")
    assert done.said[-1] == f"pai: error: {told}"


def test_the_only_metric_of_a_table_is_the_one_to_rank_by(pai: Pai, tmp_path: Path) -> None:
    table = write(tmp_path / "t.csv", "mask,x\na,1\nb,2\n")
    assert [row["mask"] for row in pai("rank", "--table", table, "--format", "json").json()] == ["b", "a"]


@pytest.mark.parametrize("accurate", [False, True])
def test_numbers_near_the_end_of_the_range_are_missing_with_their_reason(
    pai: Pai, tmp_path: Path, accurate: bool
) -> None:
    rows = [f"m{k},{(-1) ** k}.7e308,{k},0.{k + 2}" for k in range(1, 7)]
    table = write(tmp_path / "t.csv", "\n".join([f"mask,dr,x,{'accuracy' if accurate else 'level'}", *rows]))
    out = ("--plot", tmp_path / "p.svg", *QUICK) if accurate else ()
    done = pai("rank", "--table", table, "--by", "dr", "--format", "json", *out)
    assert done.status == 0
    if accurate:
        assert {row["metric"]: row["n"] for row in done.json()["correlations"]} == {"dr": 0, "x": 6}
        assert done.said[-1].endswith("p.svg: 1 metric against accuracy, with Kendall's tau and its 95% interval")
    else:
        assert {row["reason"] for row in done.json()} == {"too large to compare: past 1e+150"}


# --- as a process


@pytest.mark.parametrize("how", STOPPED)
def test_interrupted(tmp_path: Path, how: signal.Signals) -> None:
    lines = ["mask,density,a,b,c,accuracy", "dead,0.1,0,0,0,0.1"]
    lines += [f"m{k},0.1,{k % 97},{k % 89},{k % 83},{0.2 + k % 101 / 200}" for k in range(1500)]
    table = write(tmp_path / "t.csv", "\n".join(lines))
    with begin(["rank", "--table", table, "--resamples", 20000]) as process:
        assert process.err is not None
        assert "compared within" in process.err.readline()
        assert "collapsed" in process.err.readline()
        assert "layer_density" in process.err.readline()  # the table is read: correlations follow
        time.sleep(0.1)
        process.signal(how)
        assert process.finish() == (STOPPED[how][0], "", f"{STOPPED[how][1]}\n")
