"""`pai.prune`, `pai.sample` and `pai.Mask` as a program calls them."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from collections import OrderedDict
from fractions import Fraction
from inspect import isfunction, signature
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import ROOT, run_pai
from networks import Returns
from torch import nn

import pai_cli as pai
from pai_cli.api.ranges import takes_numpy
from pai_cli.errors import (
    CheckpointError,
    DensityError,
    MaskError,
    MethodOptionError,
    OutputError,
    ParameterError,
    ScoreError,
    UnknownMethodError,
    UsageError,
)
from pai_cli.methods import registry
from pai_cli.pruning.base import METHODS


def model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 6 * 6, 5))


def test_nothing_heavy_is_imported_by_the_import() -> None:
    told = subprocess.run(
        [sys.executable, "-c", "import sys, pai_cli; print({'numpy', 'torch', 'scipy', 'typer'} & set(sys.modules))"],
        capture_output=True, text=True, check=True, cwd=ROOT,
    )  # fmt: skip
    assert told.stdout.strip() == "set()"


def test_every_public_name_is_there_and_says_what_it_is() -> None:
    for name in pai.__all__:
        assert name == "__version__" or getattr(pai, name).__doc__
    assert set(pai.__all__) <= set(dir(pai))
    with pytest.raises(AttributeError, match="has no attribute 'prunes'"):
        pai.prunes  # noqa: B018


def test_a_module_is_pruned_and_left_as_it_is() -> None:
    network = model().train()
    network[0].weight.requires_grad_(False)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    mask = pai.prune(network, "synflow", density=0.1, input_shape=(1, 8, 8))
    assert list(mask) == ["0.weight", "3.weight"]
    assert mask["3.weight"].shape == (5, 144)
    assert mask.kept == round(0.1 * (36 + 720)) == sum(mask.counts.values())
    assert mask.total == 756
    assert network.training
    assert not network[0].weight.requires_grad
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())


def test_a_module_its_state_dict_and_its_file_give_one_mask(tmp_path: Path) -> None:
    network = pai.init("mlp-12-8-4")
    torch.save(network.state_dict(), tmp_path / "net.pt")
    arrays = {name: value.numpy() for name, value in network.state_dict().items()}
    masks = [
        pai.prune(one, "magnitude", density=0.3) for one in (network, network.state_dict(), arrays, tmp_path / "net.pt")
    ]
    assert all(mask == masks[0] for mask in masks)
    digests = {mask.metadata["source_sha256"] for mask in masks[:3]}
    assert len(digests) == 1


def test_a_wrapped_module_has_the_names_of_what_is_in_it() -> None:
    network = model()
    assert pai.prune(nn.DataParallel(network), "erk", density=0.5) == pai.prune(network, "erk", density=0.5)
    assert list(pai.prune(torch.compile(network, backend="eager"), "erk")) == ["0.weight", "3.weight"]


def test_what_is_taken_for_granted_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="pai"):
        mask = pai.prune(model(), "random")
    assert mask.metadata["density_default"] == "true"
    assert caplog.messages[0] == (
        "keeping 5% of the weights, density 0.05 (the default; density= or sparsity= changes it)"
    )


def test_collapse_is_a_warning_or_refused() -> None:
    network = nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 8))
    with torch.no_grad():
        network[0].weight.mul_(1e-6)
    with pytest.warns(pai.PaiWarning) as said:
        assert pai.prune(network, "magnitude", density=0.1).collapsed == ("0.weight",)
    assert {one.filename for one in said} == {__file__}  # where `pai` was called, not a line of its own
    assert [str(one.message).partition(":")[0] for one in said] == [
        "layer collapse",
        "no path of kept weights leads from the input to the output",
    ]
    with pytest.raises(pai.Error, match=r"no_collapse=True: .*raise density=, or take scope=layer"):
        pai.prune(network, "magnitude", density=0.1, no_collapse=True)


LENET = nn.Sequential(OrderedDict(
    conv1=nn.Conv2d(1, 6, 5), conv2=nn.Conv2d(6, 16, 5), mean=nn.AdaptiveAvgPool2d(4), flat=nn.Flatten(),
    fc1=nn.Linear(256, 120), fc2=nn.Linear(120, 84), fc3=nn.Linear(84, 10),
))  # fmt: skip


def own_samples(size: int) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.randn(20, 1, size, size, generator=torch.Generator().manual_seed(0)), torch.arange(20) % 10


def test_a_program_s_own_samples_are_not_resized_without_a_word() -> None:
    told = r"^data given: 1x40x40 made 1x28x28, .* input_shape='1,40,40' takes the size as it is$"
    with pytest.warns(pai.PaiWarning, match=told):
        resized = pai.prune(LENET, "snip", density=0.1, data=own_samples(40), per_class=2)
    as_it_is = pai.prune(LENET, "snip", density=0.1, data=own_samples(40), per_class=2, input_shape="1,40,40")
    assert resized != as_it_is
    with pytest.warns(pai.PaiWarning, match=told):
        pai.sample(LENET, "snip", density=0.1, data=own_samples(40), per_class=1, population=1)
    with pytest.warns(pai.PaiWarning, match=told):
        pai.train(LENET, (*own_samples(40), *own_samples(40)), epochs=1, batch_size=10)
    pai.prune(
        LENET, "snip", density=0.1, data=own_samples(28), per_class=2
    )  # of the size: no warning, which would raise


@pytest.mark.parametrize("shape", [8, np.int64(8), np.array([8]), torch.Size([8]), "8"])
def test_a_flat_input_s_shape_may_be_its_length(shape: Any) -> None:
    network = nn.Sequential(nn.Linear(8, 4), nn.Linear(4, 2))
    usual = pai.prune(network, "synflow", density=0.5, input_shape=(8,), rounds=3)
    assert pai.prune(network, "synflow", density=0.5, input_shape=shape, rounds=np.int64(3)) == usual


def test_a_number_of_numpy_s_is_one() -> None:
    halved, usual = np.float32(0.05), {"density": 0.05, "seed": 3}
    assert pai.prune(model(), "random", density=halved, seed=np.int64(3)) == pai.prune(model(), "random", **usual)
    assert pai.prune(model(), "random", density=halved).metadata["density"] == "0.05"
    assert json.loads(pai.prune(model(), "random", densities={"*": halved}).metadata["densities"]) == {"*": 0.05}


def test_numbers_of_other_kinds_are_python_s_to_whoever_takes_numbers() -> None:
    given = takes_numpy(lambda *values, **named: [*values, *named.values()])
    found = given(np.int64(3), np.float16(0.1), True, "3", None, Fraction(1, 4), one=np.float64(0.5), two=np.arange(2))
    assert found[:-1] == [3, 0.1, True, "3", None, 0.25, 0.5]
    assert [type(one) for one in found] == [int, float, bool, str, type(None), float, np.float64, np.ndarray]
    numbers = {"int", "int | None", "float", "float | None"}
    for name in pai.__all__:
        function = getattr(pai, name)
        if isfunction(function) and numbers & {one.annotation for one in signature(function).parameters.values()}:
            assert hasattr(function, "__wrapped__"), name


@pytest.mark.parametrize(
    ("network", "told"),
    [
        (nn.LazyLinear(3), "the model: 'weight' has no shape yet; run the model on one batch first"),
        (
            nn.Linear(3, 3, device="meta"),
            "the model: 'weight' is on the device meta, without values; load its weights first",
        ),
    ],
)
def test_a_network_without_values_is_refused(network: nn.Module, told: str) -> None:
    with pytest.raises(CheckpointError) as refused:
        pai.prune(network, "erk", density=0.5)
    assert str(refused.value).startswith(told)


@pytest.mark.parametrize(
    ("options", "error", "told"),
    [
        ({"density": 0.1, "sparsity": 0.9}, UsageError, "density= and sparsity= exclude each other: give one"),
        ({"density": "half"}, UsageError, "density='half': is not a number"),
        ({"density": 0.1, "seed": "a"}, MethodOptionError, "seed: is of type str; give a whole number"),
        ({"density": 1.5}, DensityError, "1.5"),
        ({"sparsity": "much"}, UsageError, "sparsity=much: is not a number"),
        ({"pattern": "2"}, UsageError, "pattern=2: give N:M, such as 2:4"),
        ({"pattern": 7}, UsageError, "pattern=7: give N:M, such as 2:4"),
        ({"input_shape": 2.5}, UsageError, "input_shape=2.5: give whole numbers above 0"),
        ({"input_shape": (3, -1)}, UsageError, "input_shape=(3, -1): give whole numbers above 0"),
        ({"rounds": 1.5}, UsageError, "rounds=1.5: give a whole number, or auto"),
        ({"scope": "all"}, ValueError, "scope='all': give one of global, layer"),
        ({"device": "tpu"}, ValueError, "device='tpu': give one of auto, cpu, cuda"),
        ({"resume": True}, MethodOptionError, "resume=True: magnitude does not train"),
        ({"reinit": True}, MethodOptionError, "say with weights_out= where to write them"),
        ({"data": "digits"}, MethodOptionError, "magnitude needs no data"),
        ({"method": "magnitud"}, UnknownMethodError, "did you mean magnitude?"),
        ({"method": 3}, UnknownMethodError, "method: give a name, not int"),
        ({"checkpoint": [1]}, CheckpointError, "a path, an nn.Module or a state dict, not list"),
        ({"checkpoint": {"w": "text"}}, CheckpointError, "'w' is str, not a tensor or an array"),
        ({"checkpoint": {3: torch.ones(2, 2)}}, CheckpointError, "a name is 3, not text"),
    ],
)  # fmt: skip
def test_wrong_input_is_told_in_the_words_of_a_program(
    options: dict[str, object], error: type[Exception], told: str
) -> None:
    given = {"checkpoint": {"fc.weight": torch.ones(4, 4)}, "method": "magnitude", **options}
    with pytest.raises(error) as caught:
        pai.prune(given.pop("checkpoint"), given.pop("method"), **given)
    assert isinstance(caught.value, pai.Error)
    assert told in str(caught.value)
    assert "--" not in str(caught.value)


def test_files_are_written_where_that_is_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    network = model()
    pai.prune(network, "erk", density=0.2)
    assert not list(tmp_path.iterdir())
    mask = pai.prune(network, "erk", density=0.2, output="m.safetensors")
    assert (mask.path, pai.Mask.load("m.safetensors") == mask) == (Path("m.safetensors"), True)
    with pytest.raises(pai.Error, match=r"m\.safetensors.*force=True"):
        pai.prune(network, "erk", density=0.2, output="m.safetensors")
    assert "command" not in pai.Mask.load("m.safetensors").metadata


def test_the_command_and_the_function_give_the_same_bytes(here: Path) -> None:
    done = run_pai("prune", "small.safetensors", "--method", "synflow", "--density", 0.2, "-o", "one.safetensors")
    assert done.status == 0
    two = pai.prune("small.safetensors", "synflow", density=0.2, output="two.safetensors")
    one = pai.Mask.load("one.safetensors")
    assert one == two
    apart = {"command", "created"}
    facts = [
        {key: text for key, text in mask.metadata.items() if key not in apart}
        for mask in (one, pai.Mask.load("two.safetensors"))
    ]
    assert facts[0] == facts[1]


def test_progress_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    heard: list[tuple[int, int]] = []
    pai.prune(
        model(),
        "synflow",
        density=0.5,
        rounds=3,
        input_shape="1,8,8",
        progress=lambda done, of, what="": heard.append((done, of)),
    )
    assert heard == [(1, 3), (2, 3), (3, 3)]
    assert capsys.readouterr() == ("", "")


# --- Mask


def test_a_mask_is_read_only_and_checked() -> None:
    mask = pai.Mask.from_tensors({"a": torch.tensor([[1, 0], [0, 1]]), "b": np.array([True, False])})
    with pytest.raises(ValueError, match="read-only"):
        mask["a"][0, 0] = False
    with pytest.raises(KeyError):
        mask["c"]
    assert (mask.kept, mask.total, mask.density, mask.names) == (3, 6, 0.5, ("a", "b"))
    assert {name: value.tolist() for name, value in mask.to_tensors().items()}["a"] == [[True, False], [False, True]]
    with pytest.raises(MaskError, match=r"holds 0\.5 at index 1"):
        pai.Mask({"a": np.array([1.0, 0.5])})
    with pytest.raises(MaskError, match="prunes nothing"):
        pai.Mask({})
    with pytest.raises(MaskError, match="a parameter's name is text, not 1"):
        pai.Mask({1: np.ones(3)})
    with pytest.raises(ValueError, match="a list is neither a NumPy array nor a torch tensor"):
        pai.Mask({"a": [1, 0]})


@pytest.mark.parametrize("dtype", [torch.bool, torch.uint8, torch.int64, torch.float16, torch.bfloat16, torch.float64])
def test_any_type_of_0_and_1(dtype: torch.dtype) -> None:
    given = torch.tensor([[1, 0, 1]]).to(dtype)
    mask = pai.Mask({"a": given})
    given.zero_()
    assert mask["a"].tolist() == [[True, False, True]]
    assert mask == pai.Mask({"a": np.array([[1, 0, 1]])[:, ::-1][:, ::-1]})
    assert mask != pai.Mask({"b": mask["a"]})


def test_what_is_zero_now() -> None:
    network = model()
    with torch.no_grad():
        network[3].weight[0] = 0
        network[0].bias.zero_()
    mask = pai.Mask.of(network)
    assert mask.counts == {"0.weight": 36, "3.weight": 4 * 144}
    assert pai.Mask.of(network.state_dict()) == mask
    with pytest.raises(MaskError, match="no convolution or linear weight"):
        pai.Mask.of(nn.LayerNorm(3))


def test_saved_and_loaded(tmp_path: Path) -> None:
    mask = pai.prune(model(), "erk", density=0.3)
    assert pai.Mask.load(mask.save(tmp_path / "a.safetensors")) == mask
    assert pai.Mask.load(mask.save(tmp_path / "b.safetensors", packed=True)) == mask
    assert "density 0.30" in repr(pai.Mask.load(tmp_path / "a.safetensors"))
    for name in ("a.pt", "a.npz"):
        with pytest.raises(
            OutputError, match=f"{name}: the mask would be written as .safetensors; give path= such a name"
        ):
            mask.save(tmp_path / name)
        assert not (tmp_path / name).exists()


# --- methods of one's own


@pytest.fixture
def own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "METHODS", METHODS)
    before = dict(METHODS)
    yield
    METHODS.clear()
    METHODS.update(before)


@pytest.mark.usefixtures("own")
def test_a_method_of_one_s_own() -> None:
    @pai.method("most-positive", source="an example")
    def score(context, masks):  # type: ignore[no-untyped-def]
        """The most positive weights."""
        return {layer.name: context.network.parameter(layer.name).detach() for layer in context.layers}

    network = nn.Linear(4, 1, bias=False)
    with torch.no_grad():
        network.weight.copy_(torch.tensor([[-3.0, 1.0, 2.0, 0.5]]))
    assert pai.prune(network, "most-positive", density=0.5)["weight"].tolist() == [[False, True, True, False]]
    assert pai.prune(network, score, density=0.5)["weight"].tolist() == [[False, True, True, False]]
    assert score.summary == "The most positive weights."
    with pytest.raises(ValueError, match="registered already"):
        pai.method("most-positive", source="again")(lambda context, masks: {})


@pytest.mark.usefixtures("own")
@pytest.mark.parametrize(
    ("recovers", "kept"), [(False, [True, False, False, False]), (True, [False, False, True, False])]
)
def test_a_method_of_one_s_own_whose_weights_come_back(recovers: bool, kept: list[bool]) -> None:
    """The first round likes the first two weights, the second the third most."""

    @pai.method("changes", source="an example", rounds=2, iterative=True, recovers=recovers)
    def score(context, masks):  # type: ignore[no-untyped-def]
        """First the first, then the third."""
        return {"weight": torch.tensor([[4.0, 3.0, 2.0, 1.0] if masks is None else [2.0, 1.0, 3.0, 0.0]])}

    assert pai.prune(nn.Linear(4, 1), score, density=0.25)["weight"].tolist() == [kept]


@pytest.mark.usefixtures("own")
@pytest.mark.parametrize(
    ("given", "told"),
    [
        (None, "gives NoneType, and a tensor by layer is needed"),
        ({}, "gives no scores of 'weight'"),
        ({"weight": torch.ones(3)}, r"have shape \(3,\), the weight \(1, 4\)"),
        ({"weight": torch.full((1, 4), torch.nan)}, "NaN|finite"),
    ],
)
def test_scores_that_cannot_be(given: object, told: str) -> None:
    pai.method("odd", source="an example")(lambda context, masks: given)
    with pytest.raises(ScoreError, match=told):
        pai.prune(nn.Linear(4, 1), "odd", density=0.5)


# --- sample


def test_the_best_of_several(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    network = pai.init("mlp-24-16-12-10")
    best = pai.sample(network, "erk", density=0.4, population=4)
    assert not list(tmp_path.iterdir())
    assert best.search is not None
    assert best.search.candidates == 4
    assert [row["candidate"] for row in best.candidates or ()] == [0, 1, 2, 3]
    assert best.density == pytest.approx(0.4, abs=1e-3)
    kept = pai.sample(network, "erk", 4, density=0.4, output="best.safetensors")
    assert kept == best
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "best.jsonl",
        "best.safetensors",
        "best.state.safetensors",
    ]
    built = pai.sample(network, construct="ramanujan", density=0.4, steps=2)
    assert built.metadata["method"] == "ramanujan"
    assert built.built is not None


def test_a_search_needs_what_it_needs() -> None:
    with pytest.raises(UsageError, match=r"give method= and population= to search, or construct= to build a mask"):
        pai.sample(model())
    with pytest.raises(UsageError, match=r"construct=ramanujan: builds a mask and searches for none; leave noise= out"):
        pai.sample(model(), construct="ramanujan", noise=0.1)
    with pytest.raises(UsageError, match=r"population=0: give a whole number of at least 1"):
        pai.sample(model(), "erk", 0)
    with pytest.raises(ParameterError, match=r"^noise_unit='std': give one of layer, weight$"):
        pai.sample(model(), "magnitude", 2, noise=0.1, noise_unit="std")
    for steps in (0, 2.5):
        with pytest.raises(UsageError, match=rf"^steps={steps}: give a whole number of at least 1$"):
            pai.sample(model(), construct="ramanujan", density=0.4, steps=steps)  # type: ignore[arg-type]


class Looks(nn.Module):
    """An embedding before a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(9, 4)
        self.fc = nn.Linear(4, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(self.table(x).mean(1))


class TwoInputs(nn.Module):
    """The sum of two inputs before a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(4, 3)

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return self.fc(x + y)


ONE_INPUT = "; a network is given one input: wrap it in a module whose forward takes one and makes the others of it"
WHOLE_NUMBERS = (
    "; it looks whole numbers up, and inputs are floats here: take a method that needs no input, as magnitude does"
)
LOGITS = ", and one floating tensor is needed; give a model= factory whose network returns the logits alone"


@pytest.mark.parametrize(
    ("make", "methods", "told"),
    [
        (TwoInputs, ("snip", "grasp", "synflow", "ntk-sap", "px"), ONE_INPUT),
        (Looks, ("snip", "grasp", "synflow"), WHOLE_NUMBERS),
        (lambda: Returns(lambda y: (y, y)), ("snip", "grasp", "synflow"), f"the network returns a tuple{LOGITS}"),
        (lambda: Returns(lambda y: {"logits": y}), ("snip", "grasp"), f"the network returns a dict{LOGITS}"),
    ],
)
def test_what_helps_a_network_that_data_cannot_run_through(make: Any, methods: tuple[str, ...], told: str) -> None:
    data = np.ones((6, 4)), np.arange(6) % 3
    for method in methods:
        given = {"data": data, "per_class": 2} if method in ("snip", "grasp", "px") else {"input_shape": (4,)}
        with pytest.raises(pai.Error) as error:
            pai.prune(make(), method, density=0.5, **given)
        assert str(error.value).endswith(told), method


def test_a_mask_shows_what_is_left_whole() -> None:
    network = nn.Sequential(nn.Embedding(4, 6), nn.Linear(6, 6))
    mask = pai.prune(network, "magnitude", density=0.5)
    assert repr(mask) == "<Mask of 1 layers, 18 of 36 weights kept, density 0.5, 1 tensor left whole>"
    assert "left whole" not in repr(pai.prune(network[1], "magnitude", density=0.5))
    assert "array" not in repr(mask.summary)


class Loose(nn.Module):
    """Weights in plain lists and dicts, of which those of `heads` are parts of the network too."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(4, 3)
        self.heads = [self.fc, nn.ReLU()]
        self._teacher = [nn.Linear(4, 3)]
        self.inner = nn.Module()
        self.inner.blocks = {"a": nn.Linear(4, 4)}
        self.extra = (nn.Parameter(torch.ones(2, 2)),)


def test_weights_that_are_no_part_of_the_network_are_told() -> None:
    with pytest.warns(
        pai.PaiWarning, match=r"^the model: extra, inner\.blocks: weights in a plain list or dict, which "
    ):
        assert pai.prune(Loose(), "magnitude", density=0.5).names == ("fc.weight",)
