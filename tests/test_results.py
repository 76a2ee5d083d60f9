"""Tables of accuracies of other programs: their columns by usual names, masks by their folders, what else they tell."""

from __future__ import annotations

import io
import shutil
from pathlib import Path

import pytest
from conftest import SAMPLES, Pai

import pai_cli as pai_library
from pai_cli.errors import ColumnError, TableError
from pai_cli.files.rows import Rows, read_rows
from pai_cli.ranking.accuracy import Run, Taken, matched, read_runs
from pai_cli.ranking.results import Named, as_named, numbers_in, standard
from pai_cli.ranking.rules import AccuracyRules
from pai_cli.spelling import for_shell

pytestmark = pytest.mark.usefixtures("measured_once")


def rows_of(text: str) -> Rows:
    return read_rows(Path("-"), io.StringIO(text))


def columns_of(head: str, named: Named = Named(), row: str = "") -> dict[str, str]:  # noqa: B008  frozen
    """What each name stands for: the cells of the first row are the columns' own names."""
    names = head.split(",")
    table = standard(rows_of(f"{head}\n{row or ','.join(names)}\n"), named, lambda _: None)
    return dict(zip(names, table.columns, strict=True))


@pytest.mark.parametrize(
    ("head", "mask", "accuracy"),
    [
        ("mask,accuracy", "mask", "accuracy"),
        ("accuracy,test_accuracy,name,mask", "mask", "accuracy"),
        ("Mask Path,Test Acc (%)", "Mask Path", "Test Acc (%)"),
        ("file,val_acc,test_acc,train_acc", "file", "test_acc"),
        ("Name,State,top1,top5,train_top1", "Name", "top1"),
        ("run_name,top5_acc,top1_acc,acc_std", "run_name", "top1_acc"),
        ("experiment,validation accuracy,epoch", "experiment", "validation accuracy"),
        ("mask_file,name,eval_accuracy,val_accuracy", "mask_file", "eval_accuracy"),
    ],
)
def test_columns_are_found_by_their_usual_names(head: str, mask: str, accuracy: str) -> None:
    found = columns_of(head)
    assert (found[mask], found[accuracy]) == ("mask", "accuracy")
    assert len(set(found.values())) == len(found)


def test_seeds_and_data_sets_have_usual_names_too() -> None:
    found = columns_of("mask,acc,train_seed,task")
    assert (found["train_seed"], found["task"]) == ("seed", "dataset")


def test_a_column_of_numbers_names_no_mask() -> None:
    table = standard(rows_of("run,name,acc\n1,a,0.5\n2,b,0.6\n"), Named(), lambda _: None)
    assert [row.cells["mask"] for row in table.rows] == ["a", "b"]


@pytest.mark.parametrize(
    ("head", "told"),
    [
        ("path,file,acc", "any of the columns path and file may be mask; --mask-column says which"),
        ("mask,final_acc,best_acc", "any of the columns final_acc and best_acc may be accuracy; --accuracy-column says "
         "which"),
        ("mask,top5_acc,train_acc", "has no column 'accuracy', nor one of a like name; --accuracy-column says which of "
         "mask, top5_acc, train_acc it is"),
        ("arch,acc", "has no column 'mask', nor one of a like name; --mask-column says which of arch, acc it is"),
    ],
)  # fmt: skip
def test_what_no_name_tells_is_asked_for(head: str, told: str) -> None:
    with pytest.raises(TableError) as error:
        columns_of(head)
    assert for_shell(error.value.text) == f"standard input: {told}"


def test_columns_that_are_named_are_taken() -> None:
    found = columns_of("mask,accuracy,run,mine", Named("run", "mine"))
    assert found == {
        "mask": "mask (another column)",
        "accuracy": "accuracy (another column)",
        "run": "mask",
        "mine": "accuracy",
    }
    table = as_named(rows_of("a,b,c\n1,2,3\n"), Named(accuracy="c"), pytest.fail)
    assert table.columns == ("a", "b", "accuracy")
    for named, told in (
        (Named("zzz"), "--mask-column zzz: no such column; there are a, b, c"),
        (Named("a", "zzz"), "--accuracy-column zzz: no such column; there are a, b, c"),
        (Named("a", "a"), "--accuracy-column a: is the column of masks"),
    ):
        with pytest.raises(ColumnError) as error:
            as_named(rows_of("a,b,c\n1,2,3\n"), named, pytest.fail)
        assert for_shell(error.value.text) == f"standard input: {told}"
        assert error.value.status == 2


def test_columns_of_numbers_are_told_from_words() -> None:
    table = rows_of("mask,accuracy,epochs,arch,loss\na,0.5,10,vgg,\nb,0.6,20,vgg,0.1\n")
    assert numbers_in(table, ["loss", "epochs", "arch", "accuracy", "none"]) == ("loss", "epochs")


# --- masks


def match(names: list[str], *masks: str) -> dict[str, list[int]]:
    runs = [Run(line, name, "", "", 0.5) for line, name in enumerate(masks, start=2)]
    return {mask: [run.line for run in own[""]] for mask, own in matched(names, runs, "r.csv", lambda _: None).items()}


def test_a_mask_is_named_by_its_folder() -> None:
    names = ["runs/a/mask.pt", "runs/b/mask.pt", "runs/b.pt", "m.pt"]
    found = match(names, "a", "runs/a/", "/home/me/other/a", "b", "m")
    assert found == {"runs/a/mask.pt": [2, 3, 4], "runs/b.pt": [5], "m.pt": [6]}  # a stem before a folder


def test_a_mask_is_named_by_a_folder_further_up() -> None:
    names = ["runs/a/checkpoints/m.pt", "runs/b/checkpoints/m.pt", "runs/a/old/c/m.pt"]
    found = match(names, "b", "runs/b", "elsewhere/b", "old", "a", "runs")  # the last two have several
    assert found == {"runs/b/checkpoints/m.pt": [2, 3, 4], "runs/a/old/c/m.pt": [5]}


def test_a_folder_of_several_masks_names_none() -> None:
    with pytest.raises(TableError, match=r"line 2: 'a' could be a/1\.pt, a/2\.pt; write the path as it is given"):
        match(["a/1.pt", "a/2.pt"], "a")


# --- what else is taken


def test_settings_methods_and_numbers_are_taken() -> None:
    table = rows_of("mask,accuracy,arch,pruner,epochs\na,0.5,vgg,snip,10\na,0.6,vgg,snip,20\nb,0.7,net,,\n")
    first, second, third = read_runs(table, AccuracyRules(), lambda _: None, Taken(["arch"], ["epochs"]))
    assert (first.setting, third.setting) == ("arch vgg", "arch net")
    assert (first.method, third.method) == ("snip", "")
    assert [run.numbers["epochs"] for run in (first, second, third)] == [10.0, 20.0, None]
    assert Taken(["none"]).columns(table) == ()
    with pytest.raises(ColumnError, match="group_by=zzz: no such column"):
        Taken(["zzz"]).columns(table)


@pytest.mark.parametrize("column", ["Step", "_step", "epoch", "trainer/global_step"])
def test_a_trainings_history_is_told(column: str) -> None:
    told: list[str] = []
    read_runs(rows_of(f"mask,accuracy,{column}\na,0.5,10\na,0.6,20\nb,0.7,20\n"), AccuracyRules(), told.append)
    assert told == [
        f"standard input: rows of one mask differ in column {column}, and their mean counts: where they are steps of one "
        "training, give its last row alone"
    ]


@pytest.mark.parametrize("table", ["mask,accuracy,step\na,0.5,9\na,0.6,9\n", "mask,accuracy,best_epoch\na,0.5,1\na,0.6,2\n",
                                   "mask,accuracy,step,seed\na,0.5,8,0\na,0.6,9,1\n"])  # fmt: skip
def test_runs_of_a_mask_are_no_history(table: str) -> None:
    read_runs(rows_of(table), AccuracyRules(), pytest.fail)


def test_data_sets_part_unless_other_columns_do() -> None:
    table = rows_of("mask,accuracy,dataset\na,0.5,one\na,0.7,two\n")
    told: list[str] = []
    runs = read_runs(table, AccuracyRules(), told.append)
    assert [run.setting for run in runs] == ["dataset one", "dataset two"]
    assert told == []
    runs = read_runs(table, AccuracyRules(), told.append, Taken(["none"]))
    assert [run.setting for run in runs] == ["", ""]
    assert for_shell(told[0]).endswith(
        "a mask's accuracies on different data sets are averaged: --group-by leaves dataset out"
    )


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """Six masks, each in the folder of its training, and a table as a tracker of experiments exports it."""
    lines = ["Name,Pruner,epochs,top1_acc,top5_acc,net"]
    for place, name in enumerate(
        f"{method}-{density}" for method in ("erk", "random", "synflow") for density in ("0.05", "0.2")
    ):
        (tmp_path / "runs" / name).mkdir(parents=True)
        shutil.copy(SAMPLES / f"{name}.safetensors", tmp_path / "runs" / name / "mask.safetensors")
        lines += [f"{name},x,{place + seed},{50 + 5 * place + seed},99,{'ab'[place % 2]}" for seed in range(2)]
    (tmp_path / "t.csv").write_text("\n".join(lines))
    return tmp_path


def test_a_trackers_table_is_ranked_by_as_it_is(pai: Pai, runs: Path) -> None:
    table = runs / "t.csv"
    done = pai("rank", runs / "runs", "--accuracy", table, "--resamples", "100", "--format", "json")
    assert done.said[0] == f"pai: {table}: mask is column Name, accuracy is column top1_acc"
    found = {one["mask"].split("/")[-2]: (one["accuracy"], one["runs"]) for one in done.json()["masks"]}
    assert found == {
        name: (pytest.approx((50.5 + 5 * place) / 100), 2)
        for place, name in enumerate(
            f"{method}-{density}" for method in ("erk", "random", "synflow") for density in ("0.05", "0.2")
        )
    }
    words = ("--group-by", "net", "--controls", "layer_density,epochs")
    done = pai("rank", runs / "runs", "--accuracy", table, *words, "--resamples", "100", "--format", "json")
    assert done.status == 0, done.err
    study = done.json()
    assert {one["setting"] for one in study["masks"]} == {"net a", "net b"}
    assert {"layer_density, epochs", "epochs", "layer_density"} >= {
        one["controls"] for one in study["correlations"] if one["controls"]
    }
    program = pai_library.rank(
        runs / "runs", accuracy=table, group_by="net", controls="layer_density,epochs", resamples=100
    )
    assert program.to_dict()["correlations"] == study["correlations"]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (
            ("--accuracy-column", "top"),
            "--accuracy-column top: no such column; there are Name, Pruner, epochs, top1_acc",
        ),
        (("--mask-column", "Run"), "--mask-column Run: no such column; there are Name, Pruner, "),
        (("--group-by", "arch"), "--group-by arch: no such column; there are mask, Pruner, "),
        (("--controls", "Pruner"), "--controls Pruner: no such metric; there are sigma_1, "),
    ],
)
def test_columns_that_are_not_there_are_wrong_usage(pai: Pai, runs: Path, words: tuple[str, str], told: str) -> None:
    done = pai("rank", runs / "runs", "--accuracy", runs / "t.csv", *words)
    assert (done.status, done.out) == (2, "")
    assert told in done.said[-1]


def test_accuracies_on_standard_input(pai: Pai, runs: Path) -> None:
    done = pai(
        "rank", runs / "runs", "--accuracy", "-", "--order", "--format", "json", stdin=(runs / "t.csv").read_text()
    )
    assert {row["runs"] for row in done.json()} == {2}


def test_a_table_of_metrics_has_columns_that_are_named(pai: Pai, tmp_path: Path) -> None:
    table = tmp_path / "t.csv"
    table.write_text("id,dr,top1\n" + "".join(f"m{k},{k},0.{20 + k}\n" for k in range(8)))
    words = ("--mask-column", "id", "--accuracy-column", "top1", "--resamples", "100", "--format", "json")
    found = pai("rank", "--table", table, *words).json()
    assert [one["mask"] for one in found["masks"]] == [f"m{k}" for k in range(8)]
    assert [(one["metric"], one["tau"]) for one in found["correlations"]] == [("dr", 1.0)]


def test_columns_of_the_accuracies_beside_a_table_of_metrics(pai: Pai, tmp_path: Path) -> None:
    """`method` of the table is empty, as of masks that tell none: the accuracies part what is compared, and control it."""
    metrics, results = tmp_path / "m.csv", tmp_path / "r.csv"
    metrics.write_text("mask,method,density,dr\n" + "".join(f"m{k},,0.1,{k % 6 + k // 6 * 9}\n" for k in range(12)))
    rows = (f"m{k},{'ab'[k // 6]},{k * k % 7},0.{40 + 5 * (k % 6) - k // 6 * 20}" for k in range(12))
    results.write_text("Name,method,hours,test_acc\n" + "\n".join(rows))
    words = ("rank", "--table", metrics, "--accuracy", results, "--resamples", "100")
    by_both = pai(*words, "--group-by", "method,density", "--controls", "hours", "--format", "json")
    assert by_both.status == 0, by_both.err
    study = by_both.json()
    assert {one["setting"] for one in study["masks"]} == {"method a", "method b"}
    assert {(one["metric"], one["tau"], one["controls"]) for one in study["correlations"]} == {("dr", 1.0, "hours")}
    alone = pai(*words, "--controls", "none", "--format", "json").json()["correlations"]
    assert all(one["tau"] < 0 for one in alone)  # methods mixed
    for wrong, told in (
        ("controls", "no such metric; there are dr"),
        ("group-by", "no such column; there are mask, method"),
    ):
        done = pai(*words, f"--{wrong}", "nope")
        assert (done.status, done.out) == (2, "")
        assert f"--{wrong} nope: {told}" in done.said[-1]
