"""`pai.train` as a program calls it."""

from __future__ import annotations

import logging
from inspect import signature
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import run_pai, save_mask
from safetensors.torch import load_file
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
from trainings import equal

import pai_cli as pai
from pai_cli.errors import DataError, MaskMismatchError, OutputError, RecipeError, UsageError
from pai_cli.training.loop import Trainer

RANDOM = np.random.default_rng(0)
MEANS = RANDOM.normal(0, 1, (3, 8))


def examples(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    labels = np.arange(count) % 3
    return (MEANS[labels] + random.normal(0, 0.3, (count, 8))).astype(np.float32), labels


TRAIN, TEST = examples(60, 1), examples(30, 2)
DATA = (*TRAIN, *TEST)
SHORT: dict[str, Any] = {"epochs": 3, "batch_size": 16, "device": "cpu"}


def model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(8, 12), nn.ReLU(), nn.Linear(12, 3))


def mask_of(network: nn.Module) -> dict[str, np.ndarray]:
    random = np.random.default_rng(3)
    return {name: random.random(tuple(one.shape)) < 0.5 for name, one in network.named_parameters() if one.dim() == 2}


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_parameters_are_the_commands() -> None:
    from pai_cli.commands.train import train as command

    of_command = {name: one.default for name, one in signature(command).parameters.items() if name != "format"}
    own = {name: one.default for name, one in signature(pai.train).parameters.items() if name != "progress"}
    assert own == of_command


def test_a_module_and_arrays_without_a_file(place: Path) -> None:
    network, mask = model(), mask_of(model())
    before = {name: one.clone() for name, one in network.state_dict().items()}
    done = pai.train(network, DATA, mask=mask, **SHORT)
    assert list(place.iterdir()) == []
    assert equal(before, dict(network.state_dict()))
    assert done.record["tested"] == 30
    assert done.accuracy == done.record["correct"] / 30
    assert done.interval[0] < done.accuracy < done.interval[1] or done.accuracy == 1
    assert (done.path, done.again, done.first) == (None, False, True)
    assert done.epoch in (1, 2, 3)
    epochs = [line for line in done.history if "train_loss" in line]
    assert [line["epoch"] for line in epochs] == [1, 2, 3]
    assert done.history[-1] == done.record
    assert done.validation_accuracy == epochs[done.epoch - 1]["validation_accuracy"]
    assert done.record["dataset"] == "data given"
    assert all((done.state_dict[name][~torch.from_numpy(one)] == 0).all() for name, one in mask.items())
    network.load_state_dict(done.state_dict)
    network.eval()
    with torch.no_grad():
        right = (network(torch.from_numpy(TEST[0])).argmax(1).numpy() == TEST[1]).mean()
    assert right == done.accuracy > 0.5
    assert done.mask == pai.Mask(mask)
    assert repr(done).startswith("<Training: test accuracy ")


def test_memory_and_files_give_the_same(place: Path) -> None:
    network, mask = model(), mask_of(model())
    held = pai.train(network, DATA, mask=mask, **SHORT)
    torch.save(network.state_dict(), "net.pt")
    save_mask(Path("m.safetensors"), mask)
    np.savez("d.npz", x=TRAIN[0], y=TRAIN[1], x_test=TEST[0], y_test=TEST[1])
    kept = pai.train(network, DATA, mask="m.safetensors", output="o.safetensors", **SHORT)
    assert sorted(path.name for path in place.iterdir()) == [
        *("d.npz", "m.safetensors", "net.pt", "o.jsonl", "o.safetensors"),
    ]
    assert kept.path == Path("o.safetensors")
    assert equal(held.state_dict, kept.state_dict)
    assert equal(kept.state_dict, load_file("o.safetensors"))
    told = [{**line, "seconds": 0, "mask": "", "digest": ""} for line in held.history]
    assert told == [{**line, "seconds": 0, "mask": "", "digest": ""} for line in kept.history]


def test_loaders_are_the_arrays_they_hold() -> None:
    loaders = tuple(
        DataLoader(TensorDataset(torch.from_numpy(x), torch.from_numpy(y)), batch_size=7) for x, y in (TRAIN, TEST)
    )
    held, loaded = (pai.train(model(), data, **SHORT) for data in (DATA, loaders))
    assert equal(held.state_dict, loaded.state_dict)
    assert (held.accuracy, held.mask) == (loaded.accuracy, None)


def test_the_command_and_the_function_do_the_same(place: Path) -> None:
    assert run_pai("init", "mlp-64-16-10", "-o", "net.safetensors").status == 0
    words = ("--epochs", 1, "--batch-size", 64, "--device", "cpu")
    assert run_pai("train", "net.safetensors", "--data", "digits", *words, "-o", "c.safetensors").status == 0
    done = pai.train("net.safetensors", "digits", epochs=1, batch_size=64, device="cpu", output="p.safetensors")
    assert equal(load_file("c.safetensors"), load_file("p.safetensors"))
    assert done.record["dataset"] == "digits"


def test_what_is_interrupted_goes_on(place: Path, monkeypatch: pytest.MonkeyPatch, caplog: Any) -> None:
    mask = mask_of(model())
    whole = pai.train(model(), DATA, mask=mask, **SHORT)
    step = Trainer._one_step

    def interrupted(self: Trainer) -> None:
        if self.step == 5:
            self.keep()
            raise KeyboardInterrupt
        step(self)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "_one_step", interrupted)
        with pytest.raises(KeyboardInterrupt), caplog.at_level(logging.INFO, "pai"):
            pai.train(model(), DATA, mask=mask, output="o.safetensors", **SHORT)
    assert caplog.messages[-1].startswith("o.state.safetensors: what is done is kept; the same command with resume=")
    assert not Path("o.safetensors").exists()
    done = pai.train(model(), DATA, mask=mask, output="o.safetensors", resume=True, **SHORT)
    assert equal(done.state_dict, whole.state_dict)
    assert not done.again
    again = pai.train(model(), DATA, mask=mask, output="o.safetensors", resume=True, **SHORT)
    assert again.again
    assert again.record == done.record
    assert again.history == done.history
    assert equal(again.state_dict, whole.state_dict)


@pytest.mark.parametrize("output", [None, "o.safetensors"])
def test_a_mask_that_moves(place: Path, output: str | None) -> None:
    mask = mask_of(model())
    done = pai.train(model(), DATA, mask=mask, dynamic="set", update_every=2, convention="f23", output=output, **SHORT)
    assert done.mask is not None
    assert done.mask != pai.Mask(mask)
    assert done.mask.kept == sum(int(one.sum()) for one in mask.values())
    assert done.mask.metadata["method"] == "set"
    updates = [line for line in done.history if "mask_update" in line]
    assert {line["convention"] for line in updates} == {"f23"}
    first = pai.analyze(mask, model(), convention="f23")
    assert updates[0]["dr"] == pytest.approx(first["dr"].value)
    assert updates[0]["l2"] == pytest.approx(first["l2"].value)
    assert all((done.state_dict[name].numpy()[~one] == 0).all() for name, one in done.mask.items())
    if output is None:
        assert list(place.iterdir()) == []
    else:
        assert pai.Mask.load("o-mask.safetensors") == done.mask


def test_a_last_mask_and_a_picture_without_weights(place: Path) -> None:
    pytest.importorskip("matplotlib")
    files = {"mask_out": "last.safetensors", "plot": "p.svg"}
    done = pai.train(model(), DATA, mask=mask_of(model()), dynamic="rigl", update_every=2, **files, **SHORT)
    assert sorted(path.name for path in place.iterdir()) == ["last.safetensors", "p.svg"]
    assert pai.Mask.load("last.safetensors") == done.mask


def test_parts_that_do_not_apply_are_warned_of() -> None:
    with pytest.warns(pai.PaiWarning, match=r"^ghost_skips=True: .*: left out$"):
        done = pai.train(model(), DATA, ghost_skips=True, **SHORT)
    assert done.record["recipe"] == "ghost-skips"


def test_progress_is_told() -> None:
    told: list[tuple[int, int, str]] = []
    training = pai.train(model(), DATA, progress=lambda done, total, what="": told.append((done, total, what)), **SHORT)
    steps = [(step, 10) for step in range(1, 10)]
    assert [one[:2] for one in told if not one[2].startswith("epoch ") or ": " not in one[2]] == steps
    over = [what for _, _, what in told if ": " in what]
    losses = [line["train_loss"] for line in training.history if "epoch" in line]
    assert [f"loss {loss:.4g}, " in what for loss, what in zip(losses, over, strict=True)] == [True] * len(over)


REFUSED: dict[str, tuple[dict[str, Any], type[Exception], str]] = {
    "results": ({"results": "r.csv"}, UsageError, "results: nothing is kept without output=; give output=OUT too"),
    "log": ({"log_dir": "d"}, UsageError, "log_dir: nothing is kept without output="),
    "resume": ({"resume": True}, UsageError, "resume=True: nothing is kept without output="),
    "keep": ({"keep_every": 1}, UsageError, "keep_every: nothing is kept without output="),
    "force": ({"force": True}, UsageError, "force=True: no file is written; give output= too, or leave it out"),
    "early": ({"early": 0.3}, UsageError, "early: no part acts early; give recipe=tost or one of its parts"),
    "still": ({"update_every": 3}, UsageError, "update_every: the mask does not move; give dynamic=rigl or another"),
    "still measured": ({"convention": "f23"}, UsageError, "convention: the mask does not move; give dynamic=rigl"),
    "whose": ({"convention": "h24", "dynamic": "set"}, ValueError, "convention='h24': give one of h23, f23"),
    "mask_out": ({"mask_out": "x.safetensors"}, UsageError, "mask_out: the mask does not move; give dynamic=rigl or "
                                                            "another, or leave it out"),
    "no epochs": ({"epochs": 0}, RecipeError, "epochs=0: must be 1 or more"),
    **{
        name: ({name: 2.5, **more}, UsageError, f"{name}=2.5: is not a whole number")
        for name, more in (("epochs", {}), ("steps", {}), ("batch_size", {}), ("update_every", {"dynamic": "gmp"}))
    },
    "text": ({"epochs": "3"}, UsageError, "epochs='3': is not a number"),
    "optimizer": ({"optimizer": "lion"}, ValueError, "optimizer='lion': give one of sgd, adam"),
    "recipe": ({"recipe": "own"}, ValueError, "recipe='own': give one of plain, tost"),
    "shape": ({"input_shape": "3,x"}, UsageError, "input_shape=3,x: give whole numbers above 0, such as 3,32,32"),
    "mask": ({"mask": 3}, UsageError, "mask: give a path or a mask, not int"),
    "folder": ({"output": "no/o.safetensors"}, OutputError, "no/o.safetensors: the folder no does not exist"),
    "other mask": (
        {"mask": {"elsewhere": np.ones((2, 2), bool)}},
        MaskMismatchError,
        "the mask: masks 'elsewhere', which the model does not have; mask= takes a mask that was made for it",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_refused(place: Path, case: str) -> None:
    options, kind, text = REFUSED[case]
    with pytest.raises(kind) as caught:
        pai.train(model(), DATA, **{**SHORT, **options})
    assert str(caught.value).startswith(text)
    assert list(place.iterdir()) == []


def test_data_need_a_test_part() -> None:
    with pytest.raises(DataError, match=r"^data given: has no test part; give \(x, y, x_test, y_test\)"):
        pai.train(model(), TRAIN, **SHORT)
