"""Many masks: the same reports whoever measures them, in their order, and none measured twice."""

from __future__ import annotations

import json
import math
import os
import shutil
import signal
import sqlite3
import zlib
from collections.abc import Iterator
from contextlib import closing, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import workers
from conftest import SAMPLES, Pai, random_mask, save_mask
from copies import STOPPED, begin
from safetensors.numpy import load_file, save_file

from pai_cli.analysis import cache, many, transfer
from pai_cli.analysis.cache import Encoded, ReportCache, decode, encode
from pai_cli.analysis.many import analyze_masks, jobs_for
from pai_cli.analysis.masks import AnalysisRequest, MaskReport
from pai_cli.analysis.transfer import NamedWeights, SentMask, SentWeights
from pai_cli.compute import pool
from pai_cli.compute.pieces import Here, Outcome, Pool
from pai_cli.compute.processes import Processes
from pai_cli.errors import CheckpointError, ClusterError, NotFiniteError, UsageError, WorkerLostError
from pai_cli.files.checkpoints import open_checkpoint
from pai_cli.files.opening import open_mask
from pai_cli.files.store import Store, open_store
from pai_cli.spectral import network
from pai_cli.spectral.catalogue import METRIC_VERSION
from pai_cli.spectral.conventions import Convention
from pai_cli.spectral.layout import Layout
from pai_cli.spectral.metrics import MetricOptions, measure_layer
from pai_cli.spectral.solvers import SolverOptions
from pai_cli.spectral.table import NO_LAYERS

RESNET = SAMPLES / "resnet20.safetensors"
MASKS = sorted(path for path in SAMPLES.glob("*.safetensors") if path != RESNET)


@pytest.fixture
def masks(tmp_path: Path) -> list[Path]:
    """Thirty small masks, the eleventh of which is cut short."""
    shapes = {"a.weight": (12, 20), "b.weight": (8, 4, 3, 3), "b.bias": (8,)}
    paths = [
        save_mask(
            tmp_path / f"m{n}.safetensors", {name: random_mask(s, 0.5, n) for name, s in shapes.items()}, method="x"
        )
        for n in range(30)
    ]
    paths[10].write_bytes(paths[10].read_bytes()[:-7])
    return paths


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with closing(open_store(tmp_path / "results.db", print)) as opened:
        yield opened


@pytest.fixture(scope="module")
def two() -> Iterator[Processes]:
    pool = Processes(2)
    yield pool
    pool.close()


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch, two: Processes) -> None:
    """Work goes to other processes from the second mask on, and always to the same; to one more where three are wanted."""

    def opening(jobs: int | None, _: str | None = None) -> nullcontext[Pool]:
        two.workers = jobs or 2
        return nullcontext(Here() if jobs == 1 else two)

    monkeypatch.setattr(many, "QUICK", 0.0)
    monkeypatch.setattr(pool, "open_pool", opening)


def plain(reports: list[MaskReport]) -> list[tuple[MaskReport, str]]:
    """Reports that compare, as errors do not."""
    return [(replace(report, error=None), str(report.error)) for report in reports]


# --- the same, whoever measures


@pytest.mark.usefixtures("at_once")
def test_the_same_for_any_number_of_jobs(pai: Pai, tmp_path: Path) -> None:
    (tmp_path / "none.safetensors").write_bytes(b"nothing")
    none = tmp_path / "none.safetensors"
    analyze = ["analyze", *MASKS[:2], none, *MASKS[2:4], "--weights", RESNET, "--format", "jsonl"]
    for words, ways in (
        (analyze, [["--jobs", 2, "--no-store"], []]),
        (["rank", *MASKS[:4], none, "--format", "csv"], [["--jobs", 3]]),
    ):
        one, *others = (pai(*words, *flags) for flags in (["--jobs", 1, "--no-store"], *ways))
        assert one.status == 1
        assert one.said[0].startswith(f"pai: error: {tmp_path / 'none.safetensors'}: not a safetensors file")
        assert all(other == one for other in others)


@pytest.mark.usefixtures("at_once")
def test_a_mask_that_cannot_be_read_is_one_row(pai: Pai, masks: list[Path]) -> None:
    done = pai("analyze", *masks, "--summary", "--jobs", 2, "--format", "json")
    rows = done.json()
    assert done.status == 1
    assert [row["mask"] for row in rows] == [str(path) for path in masks]
    assert [row["outcome"] for row in rows] == ["done"] * 10 + ["failed"] + ["done"] * 19
    assert rows[10]["reason"].startswith(f"{masks[10]}: truncated")
    assert [line for line in done.said if "error" in line] == [f"pai: error: {rows[10]['reason']}"]


@pytest.mark.usefixtures("at_once")
def test_a_worker_that_dies_costs_nothing_but_time(masks: list[Path], two: Processes) -> None:
    request = AnalysisRequest()
    wanted = list(analyze_masks(masks, request))
    found = []
    for report in analyze_masks(masks, request, pool=two):
        found.append(report)
        if len(found) in (3, 12):
            two._running[0].process.kill()
    assert plain(found) == plain(wanted)


@pytest.mark.usefixtures("at_once")
@pytest.mark.parametrize(("short", "small"), [(0.0, 2**21), (math.inf, 2**21), (math.inf, 0)])
@pytest.mark.parametrize("per_layer", [True, False])
def test_whether_this_process_measures_too(
    short: float, small: int, per_layer: bool, masks: list[Path], two: Processes, store: Store,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """What is short and small, it does; the reports are the same, and those that are kept."""
    request, here = AnalysisRequest(per_layer=per_layer), []
    wanted = plain(list(analyze_masks(masks, request)))
    beside = many._beside

    def told(*of: Any) -> Any:
        here.append(of)
        return beside(*of)

    monkeypatch.setattr(many, "_beside", told)
    monkeypatch.setattr(many, "SHORT", short)
    monkeypatch.setattr(many, "SMALL", small)
    two.workers = 2
    assert plain(list(analyze_masks(masks, request, pool=two))) == wanted
    assert len(here) == 0 if short == 0 else len(here) == 1 if small == 0 else len(here) > 1
    assert plain(list(analyze_masks(masks, request, pool=two, store=store))) == wanted
    assert plain(list(analyze_masks(masks, request, store=store))) == wanted
    assert keys(store) == 29


class Losing:
    """A pool whose workers die of every second mask."""

    workers, shares_files = 2, False

    def map(self, function, common, items):  # type: ignore[no-untyped-def]
        for number, item in enumerate(items):
            yield Outcome(None, WorkerLostError("it died")) if number % 2 else Outcome(function(common, item))


def test_a_mask_that_kills_its_workers_is_one_row(masks: list[Path]) -> None:
    reports = list(analyze_masks(masks[:4], AnalysisRequest(), pool=Losing()))
    assert [str(report.error) for report in reports] == ["None", f"{masks[1]}: it died", "None", f"{masks[3]}: it died"]


def test_progress_goes_to_the_end(masks: list[Path], store: Store) -> None:
    told: list[tuple[int, int, str]] = []

    def tell(done: int, total: int, what: str = "") -> None:
        told.append((done, total, what))

    for _ in range(2):
        told.clear()
        list(analyze_masks(masks[:3], AnalysisRequest(), tell, store=store))
        done = [words[0] for words in told]
        assert done == sorted(done)
        assert told[-1] == (3 * many.STEPS, 3 * many.STEPS, "3/3 masks, m2.safetensors")
        shares = [words[2] for words in told if words[0] < 3 * many.STEPS]
        assert {words.split(",")[0] for words in shares} <= {"0/3 masks", "1/3 masks", "2/3 masks"}


def test_how_many_jobs(masks: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    request, gpu = AnalysisRequest(), AnalysisRequest(device="cuda")
    assert jobs_for(masks, request, None, None) is None
    assert jobs_for(masks, request, 3, None) == 3
    assert jobs_for(masks[:1], request, None, None) == 1
    assert jobs_for([*masks, Path("none")], request, None, None) is None
    assert jobs_for(masks, gpu, None, None) == 1
    for jobs, cluster, other in ((2, None, "jobs="), (None, "tcp://h:1", "cluster=")):
        with pytest.raises(UsageError) as error:
            jobs_for(masks, gpu, jobs, cluster)
        assert str(error.value) == f"device=cuda measures in one process; leave device= or {other} out"
    monkeypatch.setattr(many, "LARGE", 100)
    assert jobs_for(masks, request, None, None) == 1


# --- what travels


@pytest.mark.parametrize("path", MASKS[::4], ids=lambda path: path.stem)
@pytest.mark.parametrize("weights", [None, RESNET], ids=["mask", "weights"])
def test_a_report_comes_back_as_it_was(path: Path, weights: Path | None) -> None:
    request = AnalysisRequest(weights=weights and open_checkpoint(weights))
    (report,) = analyze_masks([path], request)
    assert report.report is not None
    assert decode(path, encode(report), layers=True) == report
    assert decode(path, encode(report), layers=False) == replace(
        report, report=replace(report.report, layers=NO_LAYERS)
    )


def test_a_report_of_odd_layers_comes_back_as_it_was(tmp_path: Path) -> None:
    """Collapsed, thin, not proved, a single row, names that no encoding has, biases."""
    masks = {
        "gone": np.zeros((4, 6), bool),
        "thin": np.eye(5, dtype=bool),
        "row": np.ones((1, 9), bool),
        "späte Schicht \n\u2028": random_mask((3, 6, 3)),
        "bias": np.ones(4, bool),
        "large": random_mask((200, 300), 0.1),
    }
    path = save_mask(
        tmp_path / "odd.safetensors", masks, {"späte Schicht \n\u2028": Layout(3, transposed=True)}, told="ü"
    )
    for solver in (SolverOptions(), SolverOptions(most_products=2), SolverOptions(tolerance=1e-15)):
        (report,) = analyze_masks([path], AnalysisRequest(options=MetricOptions(solver=solver)))
        assert report.report is not None, report.error
        assert report.report.collapsed == ("gone",)
        assert decode(path, encode(report), layers=True) == report


@pytest.mark.parametrize("row", [(b"", b""), (b"x\x9cabc", b""), (encode.__doc__.encode(), b"")])  # type: ignore[union-attr]
def test_other_bytes_are_no_report(row: tuple[bytes, bytes]) -> None:
    with pytest.raises(ValueError, match="a mask: its report cannot be read"):
        decode(Path("a mask"), Encoded(*row), layers=True)


def test_a_mask_travels_whole(tmp_path: Path) -> None:
    masks = {"a": random_mask((5, 7, 3)), "b": random_mask((6, 4)), "bias": random_mask((6,))}
    path = save_mask(tmp_path / "m.safetensors", masks, {"a": Layout(5)}, method="m", packed=True)
    mask = open_mask(path)
    one = SentMask.of(mask, ())
    assert (one.path, one.metadata, one.names, one.shapes) == (path, mask.metadata, mask.names, mask.shapes)
    assert (one.remark, one.layout("a"), one.layout("a").known) == ("", Layout(5), True)
    for name in ("a", "b"):
        assert one.array(name).dtype == np.bool_
        assert (one.array(name) == masks[name]).all()
    assert set(SentMask.of(mask, ("b",)).bits) == {"b"}


def test_weights_travel_with_their_faults(tmp_path: Path) -> None:
    good = np.arange(6, dtype=np.float32).reshape(2, 3)
    save_file(
        {"good": good, "nan": good * np.nan, "whole": good.astype(np.int64), "bias": good[0]},
        tmp_path / "w.safetensors",
    )
    checkpoint = open_checkpoint(tmp_path / "w.safetensors")
    all_of_it = SentWeights(checkpoint, ())
    assert (all_of_it.path, all_of_it.shapes) == (checkpoint.path, checkpoint.shapes)
    assert (all_of_it.finite_array("good") == good).all()
    for name, error in (("nan", NotFiniteError), ("whole", CheckpointError)):
        with pytest.raises(error) as there:
            all_of_it.finite_array(name)
        with pytest.raises(error) as here:
            checkpoint.finite_array(name)
        assert str(there.value) == str(here.value)
    named = NamedWeights(checkpoint.path, trust=False, opened=checkpoint)
    again = NamedWeights.__new__(NamedWeights)
    again.__dict__.update(named.__getstate__())
    assert (again.finite_array("good") == good).all()


def test_weights_that_are_too_many_to_travel(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transfer, "MOST_WEIGHTS", 10_000)
    with pytest.raises(ClusterError) as error:
        SentWeights(open_checkpoint(RESNET), ())
    assert str(error.value) == (
        f"cluster: 0.0 billion weights of {RESNET} would go to every worker; leave cluster= out, or choose layers "
        "with layers="
    )
    SentWeights(open_checkpoint(RESNET), ("conv1",))


# --- the store


def keys(store: Store) -> int:
    store.write()
    with closing(sqlite3.connect(store.path)) as database:
        return int(database.execute("SELECT count(*) FROM results").fetchone()[0])


def test_a_mask_is_measured_once(masks: list[Path], store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    request = AnalysisRequest()
    before = list(analyze_masks(masks, request, store=store))
    assert keys(store) == 29
    copy = masks[0].with_name("copy.safetensors")
    shutil.copy(masks[0], copy)
    monkeypatch.setattr(many, "measure_mask", None)  # whatever would be measured now is an error
    assert plain(list(analyze_masks(masks, request, store=store))) == plain(before)
    assert list(analyze_masks([copy], request, store=store)) == [replace(before[0], path=copy)]
    brief = replace(request, per_layer=False)
    (short,) = analyze_masks(masks[:1], brief, store=store)
    assert short.report == replace(before[0].report, layers=NO_LAYERS)  # type: ignore[type-var]


def test_what_a_report_follows_from(masks: list[Path], store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each of these is another row; and all again are none."""
    other = load_file(RESNET)
    other["conv1.weight"] = other["conv1.weight"] * 2
    save_file(other, masks[0].with_name("other.safetensors"))
    requests = [
        AnalysisRequest(),
        AnalysisRequest(weights=open_checkpoint(RESNET)),
        AnalysisRequest(weights=open_checkpoint(masks[0].with_name("other.safetensors"))),
        AnalysisRequest(layers=("conv1",)),
        AnalysisRequest(options=MetricOptions(expansion_weighted=True)),
        AnalysisRequest(options=MetricOptions(convention=Convention.F23)),
        AnalysisRequest(options=MetricOptions(dense=False)),
        AnalysisRequest(options=MetricOptions(solver=SolverOptions(certify=True))),
        AnalysisRequest(trust=True),
    ]
    for _ in range(2):
        for request in requests:
            assert [report.error for report in analyze_masks(MASKS[:1], request, store=store)] == [None]
        assert keys(store) == len(requests) + 2  # and of each checkpoint its unmasked layers
    monkeypatch.setattr(cache, "METRIC_VERSION", METRIC_VERSION + 1)
    list(analyze_masks(MASKS[:1], requests[0], store=store))
    monkeypatch.setattr(cache.calls, "kernel", None)
    list(analyze_masks(MASKS[:1], requests[0], store=store))
    assert keys(store) == len(requests) + 4


def test_unmasked_layers_are_measured_once(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """They follow from the checkpoint: the next command has them, for other masks of it too."""
    request = AnalysisRequest(weights=open_checkpoint(RESNET))
    expected = plain(list(analyze_masks(MASKS[1:2], request)))
    list(analyze_masks(MASKS[:1], request, store=store))
    monkeypatch.setattr(network, "unmasked", None)  # what would be measured now is an error
    assert plain(list(analyze_masks(MASKS[1:2], request, store=store))) == expected
    assert keys(store) == 3


@pytest.mark.parametrize(
    "row", [b"", zlib.compress(b"[[1]]"), zlib.compress(b'[["a", [0, 0, 0, 1], {}]]'), zlib.compress(b"1")]
)
def test_unmasked_layers_that_cannot_be_read_are_measured_anew(row: bytes, store: Store) -> None:
    request = AnalysisRequest(weights=open_checkpoint(RESNET))
    (before,) = analyze_masks(MASKS[:1], request, store=store)
    finished = ReportCache(store, request)
    assert finished.unmasked().known
    key = finished.unmasked_key
    store.put(key, row, b"")
    store.write()
    assert not ReportCache(store, request).unmasked().known
    (again,) = analyze_masks(MASKS[:1], request, store=without_reports(store, key))
    assert plain([again]) == plain([before])
    assert ReportCache(store, request).unmasked().known


def without_reports(store: Store, key: bytes) -> Store:
    """The store with the row of that key alone."""
    store.write()
    with closing(sqlite3.connect(store.path)) as database:
        database.execute("DELETE FROM results WHERE key != ?", (key,))
        database.commit()
    return store


def test_names_that_a_mask_explains_are_not_taken_for_the_checkpoints(masks: list[Path], store: Store) -> None:
    """Behind a wrapper's prefix: which tensor a name is, another mask may tell otherwise."""
    wrapped = masks[0].with_name("wrapped.safetensors")
    save_file({f"module.{name}": array for name, array in load_file(RESNET).items()}, wrapped)
    request = AnalysisRequest(weights=open_checkpoint(wrapped))
    list(analyze_masks(MASKS[:1], request, store=store))
    assert {name for name, _ in ReportCache(store, request).unmasked().known} <= set(request.weights.shapes)


def test_a_report_follows_from_the_index_of_shards(masks: list[Path], store: Store) -> None:
    """Which of the shards' tensors are the network's is said in no shard."""
    folder = masks[0].parent
    save_file({"a.weight": np.ones((12, 20)), "b.weight": np.ones((8, 4, 3, 3)), "b.bias": np.ones(8)}, folder / "s")
    index = folder / "w.safetensors.index.json"
    found = []
    for names in (["a.weight", "b.weight", "b.bias"], ["a.weight", "b.bias"]):
        index.write_text(json.dumps({"weight_map": dict.fromkeys(names, "s")}))
        (report,) = analyze_masks(masks[:1], AnalysisRequest(weights=open_checkpoint(index)), store=store)
        found.append(str(report.error))
    assert found[0] == "None"
    assert "'b.weight', which" in found[1]


def test_a_file_that_changes_meanwhile_is_not_kept(
    masks: list[Path], store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = many.measure_mask

    def slow(mask, *rest):  # type: ignore[no-untyped-def]
        report = original(mask, *rest)
        mask.path.touch()
        return report

    monkeypatch.setattr(many, "measure_mask", slow)
    assert [report.error for report in analyze_masks(masks[:3], AnalysisRequest(), store=store)] == [None] * 3
    assert keys(store) == 0


def test_a_row_that_is_damaged_is_written_anew(masks: list[Path], store: Store) -> None:
    (before,) = analyze_masks(masks[:1], AnalysisRequest(), store=store)
    assert keys(store) == 1
    with closing(sqlite3.connect(store.path)) as database:
        database.execute("UPDATE results SET network = x'00', layers = x'00'")
        database.commit()
    assert list(analyze_masks(masks[:1], AnalysisRequest(), store=store)) == [before]
    store.write()
    with closing(sqlite3.connect(store.path)) as database:
        assert len(database.execute("SELECT network FROM results").fetchone()[0]) > 100


def test_what_cannot_be_looked_up_is_told_by_its_own_words(pai: Pai, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    done = pai("analyze", tmp_path / "none", tmp_path / "pipe", tmp_path)
    assert done.status == 1
    said = f"pai: error: {tmp_path}: no mask (*.safetensors, *.npz, *.pt, *.pth) in this folder, nor below it"
    assert done.said == [said]
    done = pai("analyze", tmp_path / "none", tmp_path / "pipe")
    assert done.said == [
        f"pai: error: {tmp_path / 'none'}: no such file",
        f"pai: error: {tmp_path / 'pipe'}: is a device or a pipe; give a regular file",
    ]


def test_two_commands_with_one_store(tmp_path: Path, pai: Pai) -> None:
    words = ["analyze", "--format", "csv", "--weights", RESNET]
    parts = (MASKS[:3], MASKS[2:4])
    both = [begin([*words, *part, "--store", tmp_path / "s.db"]) for part in parts]
    for part, said in zip(parts, [one.finish() for one in both], strict=True):
        again = pai(*words, *part, "--store", tmp_path / "s.db")
        assert (said.out, said.err) == (again.out, again.err)
    with closing(sqlite3.connect(tmp_path / "s.db")) as database:
        assert database.execute("SELECT count(*) FROM results").fetchone() == (5,)  # and the unmasked layers


def children(of: int) -> set[int]:
    """Processes started by a process."""
    found = set()
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            if int(stat.read_text().rpartition(")")[2].split()[1]) == of:
                found.add(int(stat.parent.name))
        except OSError:  # it has ended meanwhile
            continue
    return found


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="finds the processes in /proc")
@pytest.mark.parametrize("how", STOPPED)
def test_interrupted(tmp_path: Path, how: signal.Signals) -> None:
    """Ctrl-C, or a batch system's stop: an end at once, the workers' too, and what was done is kept."""
    shapes = open_mask(MASKS[0]).shapes
    (tmp_path / "masks").mkdir()
    for number in range(30):
        save_mask(
            tmp_path / "masks" / f"{number}.safetensors", {n: random_mask(s, 0.05, number) for n, s in shapes.items()}
        )
    for number in range(30, 1000):
        (tmp_path / "masks" / f"{number}.safetensors").hardlink_to(tmp_path / "masks" / f"{number % 30}.safetensors")
    words = ["analyze", tmp_path / "masks", "--jobs", 2, "--weights", RESNET, "--store", tmp_path / "s.db"]
    with begin([*words, "--format", "csv"]) as running:
        assert running.out is not None
        for _ in range(5 * 21):
            running.out.readline()
        started = children(running.pid)
        running.signal(how, group=True)  # as a terminal does, and Slurm
        status, _, err = running.finish()
    assert (status, err) == (STOPPED[how][0], f"{STOPPED[how][1]}\n")
    assert len(started) >= 2
    workers.wait_until(lambda: not any(Path(f"/proc/{one}").exists() for one in started))
    with closing(sqlite3.connect(tmp_path / "s.db")) as database:
        assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        assert database.execute("SELECT count(*) FROM results").fetchone()[0] >= 4


# --- the version of the metrics

GOLDEN = {
    "sigma_1": 13.093368575995159,
    "sigma_2": 5.196716117997392,
    "fan_in_std": 2.8548204847240397,
    "fan_in_cv": 0.1464010504986687,
    "fan_out_std": 1.9856254262406425,
    "fan_out_cv": 0.24438466784500215,
    "dr": 1.7737160785317494,
    "dr_bound": 6.970432196529141,
    "dr_norm": 0.25446285517488487,
    "ds": 1.7583880727376853,
    "ds_bound": 6.955104190735077,
    "ds_norm": 0.25281980320007874,
    "expansion": 0.4166666666666667,
    "narc": -0.15607255570650655,
    "dr_imdb": 1.07196411400365,
    "dr_imdb_norm": 0.23554664612312767,
    "ds_imdb": 1.103872323348861,
    "ds_imdb_norm": 0.2431802222508227,
    "expansion_max": 3.3333333333333335,
    "expansion_mean": 2.253968253968254,
    "lambda": 4.521594221374308,
    "lambda_imsg": 1.5202317072147875,
    "l2": 5.201066672841293,
    "l2_dense": 25.539238416746898,
}


def test_golden_values() -> None:
    """Values of one layer as they are under `METRIC_VERSION`. Where this fails after a change of what is measured, stored
    results are of the old kind: raise METRIC_VERSION in spectral/catalogue.py, and put the new values here.
    """
    rng = np.random.default_rng(5)
    mask, weights = rng.random((20, 48)) < 0.4, rng.standard_normal((20, 48))
    metrics = measure_layer(mask, weights)
    found = {name: one.reason if one.value is None else one.value for name, one in metrics.measures.items()}
    assert METRIC_VERSION == 4
    assert found == {
        name: value if isinstance(value, str) else pytest.approx(value, rel=1e-9) for name, value in GOLDEN.items()
    }
