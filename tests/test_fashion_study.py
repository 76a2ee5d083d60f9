"""The study on Fashion-MNIST, on a few made-up images: it goes on, its page; and its partial taus."""

import importlib
import json
import math
from dataclasses import asdict

import numpy as np
import pytest
from conftest import ROOT
from test_idx import idx

SEEDS, PLANNED = 2, 4


@pytest.fixture(scope="module")
def modules():
    """study, report, partial_tau of the benchmarks, which are no package."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT / "benchmarks"))
        yield {name: importlib.import_module(name) for name in ("fashion_study", "fashion_report", "partial_tau")}


@pytest.fixture(scope="module")
def finished(modules, tmp_path_factory):
    """A folder with two seeds of SNIP and PAGS at one density, the data, and what was to be done."""
    study, folder, data = modules["fashion_study"], tmp_path_factory.mktemp("study"), tmp_path_factory.mktemp("data")
    rng = np.random.default_rng(0)
    for part in ("train", "t10k"):
        (data / f"{part}-images-idx3-ubyte").write_bytes(idx(rng.integers(0, 256, (200, 28, 28))))
        (data / f"{part}-labels-idx1-ubyte").write_bytes(idx(np.arange(200) % 10))
    size = study.Size(
        (0.08,), a_class=20, tested=40, epochs=1, population=2, networks=("vgg7",), methods=("snip", "pags")
    )
    study.prepare(folder, str(data), size)
    task = study.Task(folder, str(data), size)
    study.train_all(task, SEEDS, jobs=1)
    return task


def test_seeds_are_outermost(modules):
    study = modules["fashion_study"]
    size = study.Size(densities=(0.1, 0.2), methods=("erk", "snip"))
    runs = list(study.grid(size, 2))
    assert runs == sorted(runs, key=lambda run: (run.seed, size.networks.index(run.network)))
    assert [(run.density, run.method) for run in runs[:5]] == [
        (1.0, "dense"),
        (0.1, "erk"),
        (0.1, "snip"),
        (0.2, "erk"),
        (0.2, "snip"),
    ]
    assert len(set(runs)) == len(runs) == 2 * 2 * (1 + 2 * 2)
    assert len([run for run in study.grid(study.Size(), 1) if run.method != study.DENSE]) >= 100


def test_every_run_is_a_line_with_its_mask_and_metrics(modules, finished):
    import pai_cli as pai

    study = modules["fashion_study"]
    lines = study.lines_of(finished.folder)
    assert [study.run_of(line) for line in lines] == list(study.grid(finished.size, SEEDS))
    for line in lines:
        assert 0 <= line["accuracy"] <= 1
        if line["method"] == "dense":
            continue
        mask = pai.Mask.load(finished.folder / line["mask"])
        assert line["metrics"]["kept"] == mask.kept == round(0.08 * mask.total)
        assert line["metrics"]["layer_density"] == pytest.approx(np.mean([mask[name].mean() for name in mask]))
    assert list(study.measured_again(finished.folder, lines)) == lines


def test_it_goes_on_with_what_is_missing(modules, finished, tmp_path):
    """A process that is killed may leave a line without its end."""
    study = modules["fashion_study"]
    lines = (finished.folder / "results.jsonl").read_text().splitlines(keepends=True)
    folder = tmp_path / "again"
    study.prepare(folder, finished.data, finished.size)
    (folder / "results.jsonl").write_text("".join(lines[:-1]) + lines[-1][:20])
    assert len(study.lines_of(folder)) == len(lines) - 1
    study.train_all(study.Task(folder, finished.data, finished.size), SEEDS, jobs=1)
    again = (folder / "results.jsonl").read_text().splitlines(keepends=True)
    assert again[:-1] == lines[:-1]
    timeless = [{**json.loads(line), "cpu_seconds": 0} for line in (again[-1], lines[-1])]
    assert timeless[0] == timeless[1]


def test_other_numbers_do_not_go_into_one_folder(modules, finished):
    study = modules["fashion_study"]
    with pytest.raises(study.StudyError, match="holds a study of other numbers"):
        study.prepare(finished.folder, finished.data, study.QUICK)


def test_masks_that_are_not_there_are_not_measured_again(modules, tmp_path):
    study = modules["fashion_study"]
    with pytest.raises(study.StudyError, match=r"gone\.safetensors: is not there to be measured again"):
        list(study.measured_again(tmp_path, [{"mask": "gone.safetensors", "metrics": {}}]))


def test_the_page_says_what_is_missing(modules, finished, tmp_path):
    study, report = modules["fashion_study"], modules["fashion_report"]
    lines = study.lines_of(finished.folder)
    whole = report.write(tmp_path, lines, finished.size, SEEDS)
    assert f"All {PLANNED} masks." in whole
    assert "PAGS and its start, SNIP**: " in whole
    assert "points, mean of 2, by the same network, density and seed (" in whole
    assert (tmp_path / "study.svg").stat().st_size > 1000
    failed = [{**asdict(study.run_of(lines[-1])), "error": "no mask of that kind"}]
    part = report.page(report.Results([*lines[:-1], *failed], finished.size, SEEDS))
    assert f"Interim: 3 of {PLANNED} masks." in part
    assert "vgg7 pags 0.08: no mask of that kind" in part
    assert "points, mean of 1, by the same network, density and seed (too few to say)" in part


def sample(n, seed):
    rng = np.random.default_rng(seed)
    z = rng.normal(size=n)
    return z + rng.normal(size=n), np.round(z + rng.normal(size=n), 1), z


def test_what_goes_through_a_third_is_nothing_given_it(modules):
    """Normal variables x = z + noise, y = z + noise; and Kendall's own form, which is 1/9 for those."""
    tau = modules["partial_tau"]
    x, y, z = sample(400, 3)
    strata = tau.Strata.of(np.arange(400) % 4, np.arange(400) % 10, count=200)
    alone, given = strata.association([x, y]), strata.association([x, y, z])
    assert alone.apart
    assert alone.firm
    assert not given.apart
    assert alone.low < alone.value < alone.high
    assert strata.association([x, y, z], by_kind=True).value == given.value
    assert strata.association([x, y, z], normal=False).value == pytest.approx(1 / 9, abs=0.06)
    assert math.isnan(strata.association([x, y, np.ones(400)]).value)
