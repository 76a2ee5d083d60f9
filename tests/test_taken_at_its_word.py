"""Numbers, names and attributes from outside that would stand for something else are refused, each in one line."""

from __future__ import annotations

import os
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import Pai

from pai_cli.__main__ import _settle_environment
from pai_cli.compute.threads import all_cores
from pai_cli.errors import ArrayError, CheckpointError, ModelFactoryError, TrainingError
from pai_cli.files.checkpoints import open_checkpoint
from pai_cli.files.pickles import load_pickle
from pai_cli.models.plain_config import plain_config
from pai_cli.spectral.metrics import measure_layer
from pai_cli.spectral.parameters import from_digits
from pai_cli.training.ranks import rank_here, world_here

LONG = "9" * 5000  # more digits than Python turns into a number


@pytest.mark.parametrize(
    ("text", "number"), [("0", 0), ("12", 12), ("9" * 18, 10**18 - 1), ("9" * 19, None), ("٣", None), ("-1", None)]
)
def test_digits(text: str, number: int | None) -> None:
    assert from_digits(text) == number


@pytest.mark.parametrize(
    "wrong", [("--rounds", LONG), ("--rounds", f"-{LONG}"), ("--rounds", "²"), ("--input-shape", f"3,{LONG},8")]
)
def test_numbers_too_long_to_read_are_wrong_usage(pai: Pai, here: Path, wrong: tuple[str, str]) -> None:
    result = pai("prune", "net.safetensors", "--method", "synflow", *wrong)
    assert result.status == 2
    assert wrong[0] in result.err
    assert "give a whole number, or auto" in result.words or "give whole numbers above 0" in result.words


@pytest.mark.parametrize("text", [LONG, "²", "٣", "-2", "0"])
def test_cores_that_are_no_number_are_not_believed(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    without = all_cores()
    monkeypatch.setenv("OMP_NUM_THREADS", text)
    assert all_cores() == without


@pytest.mark.parametrize("name", ["COLUMNS", "LINES", "SOURCE_DATE_EPOCH"])
@pytest.mark.parametrize("text", [LONG, "two", "9" * 19])
def test_variables_that_libraries_fail_at_are_forgotten(monkeypatch: pytest.MonkeyPatch, name: str, text: str) -> None:
    monkeypatch.setenv(name, text)
    _settle_environment()
    assert name not in os.environ
    monkeypatch.setenv(name, "80")
    _settle_environment()
    assert os.environ[name] == "80"


@pytest.mark.parametrize("text", ["two", "", LONG])
def test_what_torchrun_would_not_say(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setenv("WORLD_SIZE", text)
    with pytest.raises(TrainingError, match="WORLD_SIZE="):
        world_here()
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", text)
    with pytest.raises(TrainingError, match="RANK="):
        rank_here()


@pytest.mark.parametrize("noise", ["1e300", "2e39"])
def test_noise_past_what_weights_hold(pai: Pai, here: Path, noise: str) -> None:
    assert pai("init", "mlp-6-5-4", "-o", "net.safetensors").status == 0
    result = pai("sample", "net.safetensors", "--method", "magnitude", "--population", "2", "--noise", noise, "-j", "1")
    assert result.status == 2
    assert "makes weights of " in result.err
    assert "unexpected" not in result.err


@pytest.mark.parametrize("key", ["num_labels", "num_hidden_layers", "depths", "attention_types"])
def test_counts_in_a_configuration(key: str) -> None:
    """Each gets an object of Python's, before anything can be compared with the weights."""
    assert plain_config({"model_type": "bert", key: 2**16}, "config.json")[key] == 2**16
    for value in (2**16 + 1, [2**15, 2**15 + 1]):
        with pytest.raises(ModelFactoryError, match=key):
            plain_config({"model_type": "bert", key: value}, "config.json")
    assert plain_config({"model_type": "bert", "vocab_size": 2**20}, "config.json")["vocab_size"] == 2**20


def test_tensors_of_more_dimensions_than_numpy_has(tmp_path: Path) -> None:
    file = tmp_path / "deep.pt"
    torch.save({"a.weight": torch.ones((1,) * 65)}, file)
    checkpoint = open_checkpoint(file)
    with pytest.raises(CheckpointError, match="65 dimensions"):
        checkpoint.array("a.weight")


@pytest.mark.parametrize("command", [("prune", "--method", "erk"), ("convert",), ("analyze",)])
def test_a_pipe_that_nobody_writes_is_not_waited_for(pai: Pai, here: Path, command: tuple[str, ...]) -> None:
    os.mkfifo("pipe.safetensors")
    result = pai(command[0], "pipe.safetensors", *command[1:])
    assert result.status == 1
    assert "is a device or a pipe" in result.err


class _Shadowing:
    """Pickled as a state dict with attributes of its own."""

    def __init__(self, inner: dict[str, Any], attributes: dict[str, Any]):
        self.inner, self.attributes = inner, attributes

    def __reduce__(self) -> tuple[Any, ...]:
        return OrderedDict, (), self.attributes, None, iter(self.inner.items())


def test_attributes_do_not_stand_for_methods(tmp_path: Path) -> None:
    weights = torch.arange(6.0).reshape(2, 3)
    weights.detach, weights.numpy, weights.note = 1, 2, "kept by torch.save"  # type: ignore[method-assign, assignment, attr-defined]
    file = tmp_path / "shadow.pt"
    torch.save(_Shadowing({"a.weight": weights}, {"items": 1, "values": 2, "get": 3, "_metadata": 4}), file)
    loaded: Any = load_pickle(file, trust=False)
    assert not vars(loaded)
    assert not vars(loaded["a.weight"])
    np.testing.assert_array_equal(open_checkpoint(file).array("a.weight"), np.arange(6.0).reshape(2, 3))


class _Spoofing(torch.Tensor):
    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return torch.ones(3)


class _Named(torch.Tensor):
    pass


def test_a_tensor_that_answers_for_itself_is_refused() -> None:
    with pytest.raises(ArrayError, match="a _Spoofing is not a plain torch tensor"):
        measure_layer(torch.eye(3).as_subclass(_Spoofing))
    plain = measure_layer(torch.eye(3))
    assert measure_layer(torch.eye(3).as_subclass(_Named)) == plain
    assert measure_layer(torch.nn.Parameter(torch.eye(3))) == plain
