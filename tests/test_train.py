"""`pai train`: from files to files, refusals, interruptions, several processes."""

from __future__ import annotations

import contextlib
import csv
import json
import os
import re
import signal
import socket
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import Done, run_pai, save_mask
from copies import STOPPED, Ended, begin
from safetensors.torch import load_file, save_file
from trainings import equal
from workers import PATIENCE, wait_until

from pai_cli.errors import DeviceError, MissingPackageError, OutputError
from pai_cli.files import results
from pai_cli.files.journal import TRAIN, Journal, beside
from pai_cli.files.masks import MaskFile
from pai_cli.training.events import check_log_dir
from pai_cli.training.state import TrainingState, keep_state, kept_state

NETWORK = "mlp-64-16-10"
TRAINING = ("pai_cli.*", "torch._dynamo")  # which the first step of an optimizer loads, and takes as long as torch
ARGUMENTS = ("net.safetensors", "--mask", "m.safetensors", "--data", "digits", "--batch-size", "64")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("train")
    assert run_pai("init", NETWORK, "-o", folder / "net.safetensors").status == 0
    net = folder / "net.safetensors"
    done = run_pai("prune", net, "--method", "erk", "--density", "0.3", "-o", folder / "m.safetensors")
    assert done.status == 0
    return folder


@pytest.fixture
def place(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with a network and its mask."""
    for name in ("net.safetensors", "m.safetensors"):
        (tmp_path / name).write_bytes((made / name).read_bytes())
    monkeypatch.chdir(tmp_path)
    return tmp_path


def lines(path: str = "o.jsonl") -> list[dict]:
    return [json.loads(line) for line in Path(path).read_text().splitlines()]


def table(path: Path = Path("r.csv")) -> list[dict[str, str]]:
    with path.open(encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def same_but_seconds(one: list[dict], other: list[dict]) -> bool:
    own = {"seconds": 0, "digest": 0}  # of the lines before, their seconds among them
    return [line | own for line in one] == [line | own for line in other]


# What it writes


def test_what_comes_out(pai, place):
    done = pai("train", *ARGUMENTS, "--epochs", 3, "-o", "o.safetensors", "--results", "r.csv", "--format", "json")
    assert done.status == 0
    [record] = done.json()
    assert done.said == [
        "pai: net.safetensors: MLP 64-16-10 (10 classes), 1,184 prunable weights, 355 of them kept by m.safetensors",
        "pai: digits: 1,297 to train with, 145 held out, 355 to test; 1x8x8 made 64; divided by 16, mean (0.3051) "
        "subtracted, divided by std (0.3762); measured on the training set; augmentation: none",
        *(epoch_line(row, 3) for row in lines() if "epoch" in row),
        "pai: wrote o.safetensors: the trained network",
        "pai: wrote r.csv: the row",
    ]
    assert sorted(path.name for path in place.iterdir()) == [
        *("m.safetensors", "net.safetensors", "o.jsonl", "o.safetensors", "r.csv"),
    ]
    trained, start = load_file("o.safetensors"), load_file("net.safetensors")
    assert {name: one.shape for name, one in trained.items()} == {name: one.shape for name, one in start.items()}
    mask = MaskFile(Path("m.safetensors"))
    for name in mask.names:
        weights = trained[name].numpy()
        assert not weights[~mask.array(name)].any()
        assert np.count_nonzero(weights) > 0.9 * mask.array(name).sum()
    first, *epochs, last = lines()
    assert first["epochs"] == 3
    assert [one["epoch"] for one in epochs] == [1, 2, 3]
    assert last["test_accuracy"] == record["accuracy"] == record["correct"] / record["tested"]
    assert record["tested"] == 355
    assert record["accuracy_low"] < record["accuracy"] < record["accuracy_high"]
    [row] = table()
    assert (row["mask"], row["seed"], row["dataset"], row["recipe"]) == ("m.safetensors", "0", "digits", "plain")
    assert float(row["accuracy"]) == record["accuracy"]
    told = run_pai("analyze", "m.safetensors", "--weights", "o.safetensors", "--format", "json")
    assert told.status == 0  # it is a checkpoint like any other


def epoch_line(row, epochs):
    trained = f"loss {row['train_loss']:.4g}, accuracy {row['train_accuracy']:.2%}"
    held_out = f"loss {row['validation_loss']:.4g}, accuracy {row['validation_accuracy']:.2%}"
    best = ", the best so far" if row["best_epoch"] == row["epoch"] else ""
    return f"pai: epoch {row['epoch']}/{epochs}: lr {row['lr']:.3g}, {trained}; held out: {held_out}{best}"


def test_it_learns(pai, place):
    done = pai("train", *ARGUMENTS, "--epochs", 10, "--format", "json")
    assert done.json()[0]["accuracy"] > 0.85
    assert Path("m-trained.safetensors").exists()


def test_a_table_for_people(pai, place):
    done = pai("train", *ARGUMENTS, "--epochs", 1)
    [heads] = [line.split("  ") for line in done.out.splitlines() if "accuracy" in line]
    assert [head.strip() for head in heads if head.strip()] == [
        "mask",
        "accuracy",
        "95% interval",
        "best epoch",
        "held out",
    ]
    [record] = pai("train", *ARGUMENTS, "--epochs", 1, "--force", "--format", "json").json()
    [row] = [line for line in done.out.splitlines() if "m.safetensors" in line]
    assert f"{record['accuracy_low']:.5g} to {record['accuracy_high']:.5g}" in row
    assert f"{record['validation_accuracy']:.5g}" in row


def test_the_table_fits_80_columns(monkeypatch):
    from pai_cli.display import tables
    from pai_cli.display.training import COLUMNS

    record = dict.fromkeys(COLUMNS, 0.123456) | {
        "mask": "folder/" * 9 + "a-long-name-of-a-mask.safetensors",
        "95% interval": "0.12346 to 0.12346",
        "best epoch": 1600,
    }
    monkeypatch.setenv("COLUMNS", "80")
    shown = tables.table_text(COLUMNS, [record])
    assert "no room" not in shown
    assert max(map(len, shown.splitlines())) <= 80


def test_curves_are_drawn(pai, place):
    done = pai("train", *ARGUMENTS, "--epochs", 3, "-o", "o.safetensors", "--plot", "p.svg")
    assert done.status == 0
    assert "pai: wrote p.svg: the curves of 3 epochs" in done.said
    texts = re.findall(r"<text[^>]*>([^<]*)</text>", Path("p.svg").read_text())
    for told in (
        "loss, mean over examples",
        "accuracy",
        "learning rate",
        "epoch",
        "trained with",
        "held out",
        "best epoch",
    ):
        assert told in texts
    [record] = pai("train", *ARGUMENTS, "--epochs", 3, "-o", "o.safetensors", "--resume", "--format", "json").json()
    [told] = [text for text in texts if "on the test part" in text]
    assert told.startswith(f"epoch {record['best_epoch']} on the test part: accuracy {record['accuracy']:.4f} (95%")


def test_curves_are_the_epochs_numbers():
    from pai_cli.display.figures.canvas import axes_of
    from pai_cli.display.figures.learning import training_picture

    rates, losses = (0.1, 0.1, 0.001), (30.0, 1.5, 0.5)
    epochs = [
        {
            "epoch": at,
            "lr": rate,
            "train_loss": loss,
            "validation_loss": 2 * loss,
            "train_accuracy": 0.5,
            "validation_accuracy": 0.25 * at,
        }
        for at, (rate, loss) in enumerate(zip(rates, losses, strict=True), start=1)
    ]
    loss, accuracy, rate = axes_of(training_picture(epochs, "m"), None)
    drawn = {line.get_label(): list(line.get_ydata()) for line in loss.get_lines()}
    assert drawn == {"trained with": list(losses), "held out": [60.0, 3.0, 1.0]}
    assert [list(line.get_ydata()) for line in accuracy.get_lines()] == [[0.5] * 3, [0.25, 0.5, 0.75]]
    assert [list(line.get_ydata()) for line in rate.get_lines()] == [list(rates)]
    assert [axes.get_yscale() for axes in (loss, accuracy, rate)] == ["log", "linear", "log"]
    one = axes_of(training_picture(epochs[:1], "m"), None)
    assert [axes.get_yscale() for axes in one] == ["linear"] * 3
    for axes in one:
        assert [at for at in axes.get_xticks() if 0.9 < at < 1.1] == [1]


def test_rows_are_added_and_replaced(pai, place):
    common = (*ARGUMENTS, "--epochs", 1, "--results", "r.csv")
    for seed in (0, 1):
        assert pai("train", *common, "--seed", seed, "-o", f"o{seed}.safetensors").status == 0
    assert [row["seed"] for row in table()] == ["0", "1"]
    again = pai("train", *common, "-o", "other.safetensors")
    assert (again.status, again.said[-1]) == (
        1,
        "pai: error: r.csv: has a row of mask m.safetensors, seed 0, dataset digits already; give --results another "
        "file, or --force to replace it",
    )
    assert not Path("other.jsonl").exists()
    assert pai("train", *common, "--seed", 0, "--recipe", "tost", "--force", "-o", "o0.safetensors").status == 0
    rows = table()
    assert [(row["seed"], row["recipe"]) for row in rows] == [("1", "plain"), ("0", "tost")]


def test_rank_reads_the_table(pai, place):
    """The loop closed: prune, train, and ask which metric told."""
    for density in (0.1, 0.4):
        for method in ("erk", "magnitude"):
            mask = f"{method}-{density}.safetensors"
            assert pai("prune", "net.safetensors", "--method", method, "--density", density, "-o", mask).status == 0
            common = ("net.safetensors", "--mask", mask, "--data", "digits", "--epochs", 1, "--batch-size", 64)
            assert pai("train", *common, "--results", "r.csv").status == 0
    masks = sorted(str(path) for path in Path().glob("*-0.?.safetensors"))
    done = pai("rank", *masks, "--accuracy", "r.csv", "--weights", "net.safetensors", "--format", "json")
    assert done.status == 0, done.err
    accuracies = {row["mask"]: float(row["accuracy"]) for row in table()}
    assert len(accuracies) == 4
    found = {one["mask"]: one["accuracy"] for one in done.json()["masks"]}
    assert found == pytest.approx(accuracies)


def test_without_a_mask(pai, place):
    done = pai("train", "net.safetensors", "--data", "digits", "--epochs", 1, "--format", "json", "--results", "r.csv")
    assert done.status == 0
    assert done.json()[0]["mask"] == "dense"
    assert done.json()[0]["density"] == 1.0
    assert done.said[0] == "pai: net.safetensors: MLP 64-16-10 (10 classes), 1,184 prunable weights"
    assert Path("net-trained.safetensors").exists()


def test_a_moving_mask_is_written(pai, place):
    done = pai(
        *("train", *ARGUMENTS, "--epochs", 2, "--dynamic", "rigl", "--update-every", 10, "-o", "o.safetensors"),
        *("--results", "r.csv", "--format", "json", "--plot", "p.svg"),
    )
    assert done.status == 0
    assert "pai: wrote p.svg: the curves of 2 epochs, and the spectrum at 3 masks" in done.said
    picture = Path("p.svg").read_text()
    assert all(
        name in picture for name in ("dr, mean", "lambda_imsg, mean", "l2, mean", "explored share of the weights")
    )
    mask, before = MaskFile(Path("o-mask.safetensors")), MaskFile(Path("m.safetensors"))
    trained = load_file("o.safetensors")
    assert mask.metadata["method"] == "rigl"
    moved = 0
    for name in before.names:
        assert mask.array(name).sum() == before.array(name).sum()
        assert not trained[name].numpy()[~mask.array(name)].any()
        moved += int((mask.array(name) != before.array(name)).sum())
    assert moved > 0
    [row] = table()
    assert (row["mask"], row["recipe"]) == ("o-mask.safetensors", "rigl")
    assert [one["step"] for one in lines() if "mask_update" in one] == [0, 10, 20]
    assert done.json()[0]["explored"] == pytest.approx(max(one.get("explored") or 0 for one in lines()))


def test_tost_says_what_did_not_apply(pai, place, monkeypatch):
    monkeypatch.setattr("pai_cli.training.rescale.ITERATIONS", 3)
    done = pai("train", *ARGUMENTS, "--epochs", 2, "--recipe", "tost", "-o", "o.safetensors")
    assert done.status == 0
    assert (
        "pai: warning: --ghost-skips: no block of the network has a norm after each convolution, as pai's ResNets have: "
        "left out" in done.said
    )
    assert lines()[1]["rescaled"] == 3
    assert load_file("o.safetensors").keys() == load_file("net.safetensors").keys()


def test_tensorboard(pai, place):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    assert pai("train", *ARGUMENTS, "--epochs", 2, "-o", "o.safetensors", "--log-dir", "logs").status == 0
    events = EventAccumulator("logs")
    events.Reload()
    found = [(one.step, one.value) for one in events.Scalars("validation_accuracy")]
    told = [(one["step"], one["validation_accuracy"]) for one in lines() if "epoch" in one]
    assert [one.step for one in events.Scalars("test_accuracy")] == [told[-1][0]]
    assert found == [(step, pytest.approx(value, rel=1e-6)) for step, value in told]
    again = pai("train", *ARGUMENTS, "--epochs", 2, "-o", "p.safetensors", "--log-dir", "logs")
    assert again.said[-1] == (
        "pai: error: --log-dir logs: has events of a training already; name another folder, or give --force"
    )


def test_a_disk_that_is_full_for_tensorboard_alone(pai, place, monkeypatch):
    writer = pytest.importorskip("tensorboard.summary.writer.record_writer").RecordWriter
    inner, written = writer.write, []

    def write(self, data):
        written.append(data)
        if len(written) > 4:
            raise OSError(28, "No space left on device")
        inner(self, data)

    monkeypatch.setattr(writer, "write", write)
    common = ("train", *ARGUMENTS, "--epochs", 4, "-o", "o.safetensors", "--log-dir", "logs")
    done = pai(*common)
    step = lines()[3]["step"]
    assert (done.status, len(written), len(lines())) == (0, 5, 6)
    assert [line for line in done.said if "log-dir" in line] == [
        f"pai: warning: --log-dir logs: cannot be written: No space left on device; no events from step {step} on"
    ]
    assert pai(*common, "--force").said[-1] == (
        "pai: error: --log-dir logs: cannot be written: No space left on device"
    )


def test_without_tensorboard(monkeypatch, tmp_path):
    monkeypatch.setattr("pai_cli.training.events.find_spec", lambda name: None)
    with pytest.raises(
        MissingPackageError, match=r"^log_dir: needs tensorboard; pip install 'pai-cli\[tensorboard\]'$"
    ):
        check_log_dir(tmp_path, force=False)


# Interrupted


def test_ctrl_c_and_resume(pai, place, monkeypatch):
    straight = pai("train", *ARGUMENTS, "--epochs", 3, "-o", "straight.safetensors")
    assert straight.status == 0
    command = ("train", *ARGUMENTS, "--epochs", 3, "-o", "o.safetensors", "--results", "r.csv", "--log-dir", "logs")
    from pai_cli.training.loop import Trainer

    step = Trainer._one_step

    def interrupted(self):
        step(self)
        if self.step == 30:
            os.kill(os.getpid(), signal.SIGINT)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "_one_step", interrupted)
        done = pai(*command)
    assert done.status == 130
    assert done.said[-2:] == [
        "pai: o.state.safetensors: what is done is kept; the same command with --resume goes on",
        "pai: interrupted",
    ]
    assert not Path("o.safetensors").exists()
    assert not Path("r.csv").exists()
    with Path("o.jsonl").open("a") as stream:  # as a crash after the state was kept leaves it
        stream.write('{"epoch": 2}\n{"epo')
    refused = pai(*command)
    assert refused.said[-1] == (
        "pai: error: o.jsonl: a training was begun here; --resume continues it, --force starts it again"
    )
    other = pai(*command, "--resume", "--lr", 0.2)
    assert other.said[-1] == (
        "pai: error: o.jsonl: that training had lr 0.1, this one has 0.2; give the same, or begin again with --force "
        "instead of --resume"
    )
    assert pai(*command, "--resume").status == 0
    assert equal(load_file("o.safetensors"), load_file("straight.safetensors"))
    assert same_but_seconds(lines(), lines("straight.jsonl"))
    assert not Path("o.state.safetensors").exists()
    again = pai(*command, "--resume", "--format", "json")
    assert again.status == 0
    assert again.said[-1] == "pai: o.safetensors: this training was finished before; its numbers follow"
    assert again.json()[0]["accuracy"] == lines()[-1]["test_accuracy"]
    assert len(table()) == 1
    for options, told in (
        (("--lr", 0.2), "lr 0.1, this one has 0.2"),
        (("--seed", 1), "seed 0, this one has 1"),
        (
            ("--dynamic", "rigl", "--update-every", 2),
            "dynamic not given, update_every 100; this one has dynamic rigl, update_every 2",
        ),
    ):
        other = pai(*command, "--resume", *options)
        assert other.said[-1] == (
            f"pai: error: o.jsonl: that training had {told}; give the same, or begin again with --force instead of --resume"
        )
    assert len(table()) == 1
    Path("o.safetensors").unlink()
    assert pai(*command, "--resume").said[-1] == (
        "pai: error: o.safetensors: the training was finished, and this file is gone; --force starts it again"
    )


def test_killed_before_anything_was_kept(pai, place):
    done = pai("train", *ARGUMENTS, "--epochs", 1, "-o", "o.safetensors")
    journal = Path("o.jsonl").read_text().splitlines()
    Path("o.jsonl").write_text("\n".join(journal[:2]) + "\n")  # an epoch's line, and no state
    first = load_file("o.safetensors")
    assert pai("train", *ARGUMENTS, "--epochs", 1, "-o", "o.safetensors", "--resume").status == 0
    assert done.status == 0
    assert same_but_seconds([json.loads(line) for line in journal], lines())
    assert equal(first, load_file("o.safetensors"))


def test_interrupted_while_the_test_part_is_looked_at(pai, place, monkeypatch):
    """And a disk that is full just then: what was trained is kept all the same."""
    from pai_cli.training.loop import Trainer

    command = ("train", *ARGUMENTS, "--epochs", 1, "-o", "o.safetensors", "--results", "r.csv")

    def interrupted(self):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "finish", interrupted)
        done = pai(*command)
    assert (done.status, done.said[-2]) == (
        130,
        "pai: o.state.safetensors: what is done is kept; the same command with --resume goes on",
    )
    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "_one_step", None)  # no step is done again
        assert pai(*command, "--resume").status == 0
    assert [one["mask"] for one in table()] == ["m.safetensors"]


def test_no_room_for_the_state_but_for_the_result(pai, place, monkeypatch):
    def full(*_):
        raise OutputError("o.state.safetensors: cannot be written: no space left on the device")

    monkeypatch.setattr(Journal, "keep", full)
    assert pai("train", *ARGUMENTS, "--epochs", 1, "-o", "o.safetensors").status == 0
    assert Path("o.safetensors").exists()


def test_a_finished_training_adds_its_row_to_a_table_asked_for_later(pai, place):
    common = ("train", *ARGUMENTS, "--epochs", 1)
    assert pai(*common, "-o", "o.safetensors").status == 0
    done = pai(*common, "-o", "o.safetensors", "--resume", "--results", "r.csv")
    assert done.status == 0
    assert [float(one["accuracy"]) for one in table()] == [lines()[-1]["test_accuracy"]]
    assert pai(*common, "-o", "o.safetensors", "--resume", "--results", "r.csv").status == 0  # its own row
    assert len(table()) == 1
    assert pai(*common, "-o", "p.safetensors").status == 0
    other = pai(*common, "-o", "p.safetensors", "--resume", "--results", "r.csv")
    assert other.said[-1].startswith(
        "pai: error: r.csv: has a row of mask m.safetensors, seed 0, dataset digits already;"
    )


def test_resumed_with_other_data_or_another_network(pai, place):
    common = ("train", "net.safetensors", "--data", noisy_digits(), "--epochs", 1, "-o", "o.safetensors")
    assert pai(*common).status == 0
    with np.load("d.npz") as archive:
        np.savez("d.npz", **{**archive, "x_test": archive["x_test"] + 1})
    assert pai(*common, "--resume").said[-1].startswith("pai: error: o.jsonl: that training had data_sha256 ")
    noisy_digits()
    Path("net.py").write_text(IDLE.replace("network.add_module", "network.add_module if 0 else print"))
    done = pai(*common, "--resume", "--model", "net.py:make")
    assert done.said[-1].startswith(
        "pai: error: o.jsonl: that training had network MLP 64-16-10 (10 classes), this one has the network of "
    )


def test_resumed_without_tensorboard(pai, place, monkeypatch):
    command = ("train", *ARGUMENTS, "--epochs", 1, "-o", "o.safetensors")
    assert pai(*command).status == 0
    monkeypatch.setattr("pai_cli.training.events.find_spec", lambda name: None)
    done = pai(*command, "--resume", "--log-dir", "logs")
    assert (done.status, done.said[-1]) == (
        1,
        "pai: error: --log-dir: needs tensorboard; pip install 'pai-cli[tensorboard]'",
    )


def test_a_file_where_the_state_would_be_is_not_removed(pai, place):
    Path("o.state.safetensors").write_bytes(Path("m.safetensors").read_bytes())
    done = pai("train", "net.safetensors", "--mask", "o.state.safetensors", "--data", "digits", "-o", "o.safetensors")
    assert done.said[-1] == (
        "pai: error: o.state.safetensors: is the mask, and the training's state goes there; change -o"
    )
    assert Path("o.state.safetensors").read_bytes() == Path("m.safetensors").read_bytes()


def test_a_state_that_lacks_something(pai, place, monkeypatch):
    from pai_cli.training.loop import Trainer

    command = ("train", *ARGUMENTS, "--epochs", 1, "-o", "o.safetensors")

    def interrupted(self):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "finish", interrupted)
        assert pai(*command).status == 130
    path = Path("o.state.safetensors")
    whole = path.read_bytes()
    for lost in ("run/totals", "model/fc1.weight"):
        path.write_bytes(whole)
        journal, state = resumed()
        del state.tensors[lost]
        keep_state(journal, state)
        told = f"damaged, or no state of a training (other tensors: {lost.partition('/')[2]})"
        assert pai(*command, "--resume").said[-1] == (
            f"pai: error: o.state.safetensors: {told}; --force starts the training again"
        )


def test_nothing_to_resume(pai, place):
    done = pai("train", *ARGUMENTS, "--epochs", 1, "-o", "o.safetensors", "--resume")
    assert (done.status, done.said[-1]) == (
        1,
        "pai: error: o.jsonl: no training to continue here; leave --resume out to begin one",
    )


def noisy_digits() -> str:
    """A data set that a fresh process reads faster than scikit-learn's."""
    random = np.random.default_rng(0)
    means = random.standard_normal((10, 8, 8))
    parts = {}
    for suffix, count in (("", 1440), ("_test", 100)):
        labels = np.arange(count) % 10
        parts["x" + suffix] = (means[labels] + random.standard_normal((count, 8, 8))).astype(np.float32)
        parts["y" + suffix] = labels
    np.savez("d.npz", **parts)
    return "d.npz"


@pytest.mark.parametrize("how", STOPPED)
def test_a_real_process_is_interrupted(place, how):
    common = (*ARGUMENTS[:4], noisy_digits(), *ARGUMENTS[5:])
    with begin(["train", *common, "--epochs", 400, "-o", "o.safetensors"], of=TRAINING) as process:
        wait_until(lambda: Path("o.jsonl").exists() and len(lines_so_far()) > 2)
        process.signal(how)
        ended = process.finish()
    assert ended.status == STOPPED[how][0], ended.err
    assert ended.err.splitlines()[-1] == STOPPED[how][1]
    journal, state = resumed()
    assert 0 < state.facts["step"] < 400 * 20
    assert journal.rows == state.facts["evaluated"]


def lines_so_far() -> list[str]:
    return Path("o.jsonl").read_text().splitlines()


# Several processes


def together() -> dict[str, str]:
    """What torchrun tells each of two processes."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    return {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": "2", "OMP_NUM_THREADS": "1"}


def two_processes(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> tuple[Done, Ended]:
    """This process as the first of two that torchrun starts, and one of its own as the second."""
    shared = together()
    other = begin(["train", *arguments], of=TRAINING, **shared, RANK="1", LOCAL_RANK="1")
    told: list[Ended] = []
    with other, monkeypatch.context() as patch:
        for name, value in {**shared, "RANK": "0", "LOCAL_RANK": "0"}.items():
            patch.setenv(name, value)

        def watch() -> None:  # should the other one fail before they meet, this one would wait for half an hour
            told.append(other.finish())
            if told[0].status != 0:
                os.kill(os.getpid(), signal.SIGINT)

        watcher = threading.Thread(target=watch)
        watcher.start()
        done = run_pai("train", *arguments)
        watcher.join(PATIENCE)
    return done, told[0]


IDLE = """
from pai_cli.models.network import init_network
from torch import nn

def make():
    network = init_network("mlp-64-16-10", None, 0).model
    network.add_module("idle", nn.Linear(2, 2, bias=False))
    return network
"""


def test_what_is_made_of_the_data_is_said(pai, place):
    random = np.random.default_rng(0)
    x, y = random.integers(0, 255, (100, 64)).astype(np.uint8), np.arange(100) % 10
    np.savez("d.npz", x=x, y=y, x_test=x[:30], y_test=y[:30])
    mean, std = x.mean() / 255, x.std() / 255
    normalised = (
        f"divided by 255, mean ({mean:.4f}) subtracted, divided by std ({std:.4f}); measured on the training set"
    )
    words = (*ARGUMENTS[:4], "d.npz", "--epochs", 1, "--batch-size", 32, "-o", "o.safetensors")
    done = pai("train", *words, "--validation", 0.2)
    told = f"pai: d.npz: 80 to train with, 20 held out, 30 to test; 64; {normalised}; augmentation: none"
    assert [line for line in done.said if "d.npz:" in line] == [told]
    for flags, usual in (((), " (the default; --per-class changes it)"), (("--per-class", 10), "")):
        done = pai(
            "prune", "net.safetensors", "--method", "snip", "--data", "d.npz", "-o", "s.safetensors", "--force", *flags
        )
        told = f"pai: d.npz: 10 samples of each of 10 classes{usual}; 64; {normalised}"
        assert [line for line in done.said if "d.npz:" in line] == [told]


def test_two_processes_are_one_with_the_batch_doubled(pai, place, monkeypatch):
    """A network without batch norm, under a moving mask; one of its layers has no part in what it gives."""
    Path("net.py").write_text(IDLE)
    save_file({**load_file("net.safetensors"), "idle.weight": torch.ones(2, 2)}, "net.safetensors")
    common = (
        *(*ARGUMENTS[:4], noisy_digits(), "--model", "net.py:make", "--input-shape", "64", "--epochs", 2),
        *("--dynamic", "rigl", "--update-every", 4, "--validation", 0.2, "--lr", 0.02),
    )
    done, other = two_processes(monkeypatch, *common, "--batch-size", 32, "-o", "two.safetensors")
    assert (done.status, other) == (0, Ended(0, "", "")), done.err
    assert "pai: 2 processes, a step is of 2 x 32 = 64 examples" in done.said
    assert pai("train", *common, "--batch-size", 64, "-o", "one.safetensors").status == 0
    one, two = load_file("one.safetensors"), load_file("two.safetensors")
    for name, tensor in one.items():
        torch.testing.assert_close(two[name], tensor, rtol=1e-4, atol=1e-5)
    masks = [MaskFile(Path(f"{name}-mask.safetensors")) for name in ("one", "two")]
    assert all((masks[0].array(name) == masks[1].array(name)).all() for name in masks[0].names)
    for a, b in zip(lines("one.jsonl")[1:], lines("two.jsonl")[1:], strict=True):
        for key in ("train_loss", "validation_loss", "test_loss", "explored", "dr"):
            assert (key in a) == (key in b)
            assert a.get(key, 0.0) == pytest.approx(b.get(key, 0.0), rel=1e-4)


@pytest.mark.parametrize("told", [(0, 1), (0,), (1,)], ids=["both", "the first", "the second"])
def test_two_processes_are_stopped(place, told):
    """torchrun sends SIGTERM to all of its processes, a scheduler perhaps to one: both end alike, with the state kept."""
    words = ["train", *ARGUMENTS[:4], noisy_digits(), *ARGUMENTS[5:], "--epochs", 400, "-o", "o.safetensors"]
    shared = together()
    before = set(Path().iterdir())
    with contextlib.ExitStack() as running:
        both = [
            running.enter_context(begin(words, of=TRAINING, **shared, RANK=str(rank), LOCAL_RANK=str(rank)))
            for rank in (0, 1)
        ]
        wait_until(lambda: Path("o.jsonl").exists() and len(lines_so_far()) > 1)
        for rank in told:
            both[rank].signal(signal.SIGTERM)
        first, second = (process.finish() for process in both)
    assert (first.status, second.status) == (143, 143), first.err + second.err
    assert first.err.splitlines()[-1] == "pai: interrupted by SIGTERM"  # said once
    assert "interrupted" not in second.err
    assert {path.name for path in set(Path().iterdir()) - before} == {"o.jsonl", "o.state.safetensors"}
    journal, state = resumed()
    assert journal.rows == state.facts["evaluated"] > 0


def test_a_process_that_is_gone_is_told(monkeypatch):
    from torch import distributed

    from pai_cli.training.model import logits_of
    from pai_cli.training.process import processes

    class Torn(torch.nn.Module):
        def forward(self, x):
            raise RuntimeError("[gloo/pair.cc:537] Read error [127.0.0.1]: Connection reset by peer. GLHF!")

    for name, value in {"RANK": "0", "WORLD_SIZE": "2"}.items():
        monkeypatch.setenv(name, value)
    calls = {"init_process_group": None, "destroy_process_group": None, "get_rank": 0, "get_world_size": 2}
    for name, given in calls.items():
        monkeypatch.setattr(distributed, name, lambda *_, given=given: given)
    with (
        pytest.raises(
            DeviceError, match=r"^another of the processes has stopped, and told why if it could; none goes on alone$"
        ),
        processes("cpu"),
    ):
        logits_of(Torn(), torch.ones(2, 2))
    with pytest.raises(RuntimeError, match=r"^other$"), processes("cpu"):
        raise RuntimeError("other")


# Refused


def test_the_options_begin_as_the_recipe_does():
    from inspect import signature

    from pai_cli.commands.train import train
    from pai_cli.training.recipe import Recipe

    given = {
        name: one.default for name, one in signature(train).parameters.items() if name in Recipe.__dataclass_fields__
    }
    base = Recipe()
    assert len(given) == 25
    assert {name: value for name, value in given.items() if value is not None} == {
        name: getattr(base, name) for name, value in given.items() if value is not None
    }


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (("--epochs", 0), "--epochs 0: must be 1 or more"),
        (("--amp",), "--amp: mixed precision is for GPUs, and this runs on the CPU; leave it out"),
        (("--seed", -1), "--seed -1: must be 0 to 9223372036854775807"),
        (("-o", "missing/o.safetensors"), "missing/o.safetensors: the folder missing does not exist; make it first "
                                           "(mkdir -p missing)"),
        (("-o", "net.safetensors"), "net.safetensors: is a file of the checkpoint, which stays as it is; choose another "
                                    "name (-o)"),
        (("-o", "/dev/stdout"), "/dev/stdout: is a device or a pipe, and a training needs files beside what it writes; "
                                "name a file"),
        (("--results", "table"), "table: is not a table of pai train (its first line differs); give --results another file"),
        (("-o", "o.safetensors", "--results", "o.safetensors"), "o.safetensors: the weights and the table need different "
                                                                "names; change --results or -o"),
        (("-o", "o.safetensors", "--results", "o.jsonl"), "o.jsonl: the table and the training's journal need different "
                                                          "names; change --results or -o"),
        (("--results", "table", "--force"), "table: is not a table of pai train (its first line differs); give --results "
                                            "another file"),
        (("--batch-size", 5000), "--batch-size 5000: digits has 1297 examples to train with; give a smaller one"),
        (("--validation", 0.9999), "--validation 0.9999: leaves none of the 1442 examples of digits to train with; give a "
                                   "smaller share, or more data"),
        (("--lr", "inf"), "--lr inf: must be above 0, and finite"),
        (("-o", "o.safetensors", "--recipe", "tost", "--optimizer", "adam"), "--rescale: looks ahead by a step of SGD; "
                                                                             "give --optimizer sgd, or --no-rescale"),
        (("--log-dir", "table"), "--log-dir table: is a file; name a folder"),
    ],
)  # fmt: skip
def test_refused(pai, place, options, text):
    Path("table").write_text("a,b\n")
    before = sorted(path.name for path in place.iterdir())
    done = pai("train", *ARGUMENTS, "--device", "cpu", *options)
    files = options[0] in ("-o", "--results", "--log-dir") and "--recipe" not in options
    assert (done.status, done.said[-1]) == (1 if files else 2, f"pai: error: {text}")
    assert sorted(path.name for path in place.iterdir()) == before


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (("--early", 0.3), "--early: no part acts early; give --recipe tost or one of its parts, or leave it out"),
        (("--update-every", 5), "--update-every: the mask does not move; give --dynamic rigl or another"),
        (
            ("--mask-out", "x.safetensors"),
            "--mask-out: the mask does not move; give --dynamic rigl or another, or leave it out",
        ),
        (("--dynamic", "gmpp"), "--dynamic gmpp: give one of set, rigl, gmp, granet, srigl; "),
    ],
)
def test_wrong_usage(pai, place, options, text):
    done = pai("train", *ARGUMENTS, *options)
    assert done.status == 2
    assert text in done.words


def test_masks_of_other_networks(pai, place):
    save_mask(Path("m.safetensors"), {"nowhere.weight": np.ones((2, 2), dtype=bool)})
    assert pai("train", *ARGUMENTS).said[-1] == (
        "pai: error: m.safetensors: masks 'nowhere.weight', which net.safetensors does not have; --mask takes a mask "
        "that was made for it"
    )
    name = next(name for name, one in load_file("net.safetensors").items() if one.dim() == 2)
    save_mask(Path("m.safetensors"), {name: np.ones((2, 2), dtype=bool)})
    shape = "x".join(str(side) for side in load_file("net.safetensors")[name].shape)
    assert pai("train", *ARGUMENTS).said[-1] == (
        f"pai: error: m.safetensors: does not fit net.safetensors: {name!r} is 2x2 here and {shape} there; --mask "
        "takes a mask that was made for it"
    )


def test_out_of_memory_names_the_batch(pai, place, monkeypatch):
    def exhausted(*_):
        raise RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB")

    monkeypatch.setattr("pai_cli.training.loop.cross_entropy", exhausted)
    done = pai("train", *ARGUMENTS, "-o", "o.safetensors")
    assert done.said[-1] == "pai: error: out of memory; give a smaller --batch-size, or train a smaller network"


def test_data_of_other_classes(pai, place):
    assert pai("init", "mlp-64-5", "-o", "five.safetensors").status == 0
    done = pai("train", "five.safetensors", "--data", "digits")
    assert done.said[-1] == (
        "pai: error: MLP 64-5 (5 classes): the network has 5 outputs, but digits has 10 classes; "
        "give data and a network of as many"
    )


def test_data_without_a_test_part(pai, place):
    np.savez("d.npz", x=np.zeros((20, 8, 8), np.float32), y=np.arange(20) % 10)
    done = pai("train", "net.safetensors", "--data", "d.npz")
    assert done.status == 1
    assert done.said[-1].startswith("pai: error: d.npz: has no test part; ")


def resumed() -> tuple[Journal, TrainingState]:
    """The journal of o.safetensors, and the state that it goes on from."""
    journal = beside(TRAIN, Path("o.safetensors"), {key: one for key, one in lines()[0].items() if key != "training"})
    kept = journal.resume()
    assert kept is not None
    return journal, kept_state(journal, kept)


# The table


def row(**changes: str) -> dict[str, str]:
    return {**dict.fromkeys(results.FIELDS, "1"), **changes}


def test_tables_that_are_others(tmp_path):
    path = tmp_path / "r.csv"
    path.write_text("mask,accuracy\na,0.5\n")
    with pytest.raises(OutputError) as caught:
        results.add_result(path, row())
    assert str(caught.value) == (
        f"{path}: is not a table of pai train (its first line differs); give results= another file"
    )
    path.write_text(",".join(results.FIELDS) + "\n1,2\n")
    with pytest.raises(
        OutputError, match=r"has a row of another length than its first line; mend it, or give results= another file$"
    ):
        results.add_result(path, row())


def test_a_table_that_a_spreadsheet_wrote(tmp_path):
    path = tmp_path / "r.csv"
    lines = [",".join(results.FIELDS), ",".join("1" for _ in results.FIELDS)]
    path.write_bytes(b"\xef\xbb\xbf" + "\r\n".join(lines).encode())  # no line end at the end
    results.add_result(path, row(seed="2"))
    assert [one["seed"] for one in table(path)] == ["1", "2"]
    assert path.read_bytes().startswith(b"mask,")
    assert b"\r" not in path.read_bytes()


ADD = """
import sys
from pathlib import Path
from pai_cli.files import results
for number in range(20):
    results.add_result(Path(sys.argv[1]), {**dict.fromkeys(results.FIELDS, "1"), "seed": f"{sys.argv[2]}.{number}"})
"""


def test_several_may_add_at_once(tmp_path, tmp_path_factory):
    path = tmp_path / "r.csv"
    code = tmp_path_factory.mktemp("code")
    (code / "adding.py").write_text(ADD)
    adders = [begin([path, one], module="adding", cwd=code) for one in range(3)]
    assert [adder.finish() for adder in adders] == [Ended(0, "", "")] * 3
    rows = table(path)
    assert len({one["seed"] for one in rows}) == len(rows) == 60
    assert [one.name for one in tmp_path.iterdir()] == ["r.csv"]
