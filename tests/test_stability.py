"""How stable a mask is: overlaps by hand, laws of every method, and what an interruption or a fault leaves."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import Pai
from torch import nn

import pai_cli
from pai_cli.errors import DeviceError, MethodOptionError, OutputError, ScoreError, UsageError
from pai_cli.files.masks import MaskFile
from pai_cli.methods.registry import METHODS
from pai_cli.models.network import init_network
from pai_cli.pruning.again import perturbed
from pai_cli.pruning.base import Method, Scores
from pai_cli.pruning.stability import PERTURBATION, Stability
from pai_cli.pruning.streaming import choosing

NETWORK = "mlp-12-10-8-4"


@pytest.fixture(autouse=True)
def _told(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="pai")


def whole_numbers() -> nn.Module:
    """Two layers of whole numbers, 4 and 8 weights, the first of them 0."""
    model = nn.Sequential(nn.Linear(2, 2, bias=False), nn.ReLU(), nn.Linear(2, 4, bias=False))
    with torch.no_grad():
        for layer in (model[0], model[2]):
            layer.weight.copy_(torch.arange(layer.weight.numel()).reshape(layer.weight.shape))
    return model


def scripted(*runs: list[int] | Exception | KeyboardInterrupt) -> Method:
    """A method that keeps in its n-th run the weights at these places of the network, or raises."""
    left = iter(runs)

    def make_scorer(context):  # type: ignore[no-untyped-def]
        places = next(left)
        if isinstance(places, BaseException):
            raise places
        flat = torch.zeros(12)
        flat[places] = 1
        values = {"0.weight": flat[:4].reshape(2, 2), "2.weight": flat[4:].reshape(4, 2)}
        return lambda masks: Scores(values)

    return Method("scripted", "as told", "a test", make_scorer)


def pruned(*runs: list[int] | Exception | KeyboardInterrupt, **options: object) -> pai_cli.Mask:
    return pai_cli.prune(whole_numbers(), scripted(*runs), density=0.5, **options)


OWN = [0, 1, 4, 5, 6, 7]  # two weights of the first layer, four of the second
THREE = ([0, 1, 4, 5, 6, 7], [0, 2, 4, 5, 6, 8], [2, 3, 4, 5, 7, 11])  # share 2 + 4, 1 + 3, 0 + 3 with those


def test_overlaps_by_hand() -> None:
    mask = pruned(OWN, *THREE, stability=3)
    assert mask.summary is not None
    found = mask.summary.stability
    assert found is not None
    assert (found.prunings, found.perturbation, found.failed) == (3, PERTURBATION, 0)
    assert found.overlaps() == (1, 4 / 6, 3 / 6)
    assert (found.overlap(), found.least_overlap()) == (pytest.approx(13 / 18), 0.5)
    assert found.overlaps("0.weight") == (1, 0.5, 0)
    assert (found.overlap("2.weight"), found.least_overlap("2.weight")) == (pytest.approx(10 / 12), 0.75)
    assert found.stable == {"0.weight": 0, "2.weight": 2}
    assert mask.stable is not None
    assert np.flatnonzero(np.concatenate([one.reshape(-1) for one in mask.stable.values()])).tolist() == [4, 5]


def test_what_the_metadata_tell() -> None:
    mask = pruned(OWN, *THREE, stability=3, perturbation=0.001)
    told = json.loads(mask.metadata["stability"])
    assert (told["prunings"], told["perturbation"], told["failed"], told["stable"]) == (3, 0.001, 0, 2)
    assert told["overlaps"] == [1, 4 / 6, 3 / 6]
    assert told["layers"]["0.weight"] == {"overlap": 0.5, "least_overlap": 0, "stable": 0}
    assert mask.stable is not None
    assert mask.stable.metadata["density"] == repr(2 / 12)
    assert (mask.stable.metadata["stable"], mask.stable.metadata["method"]) == ("true", "scripted")
    assert "stability" not in pruned(OWN).metadata
    assert pruned(OWN).stable is None


def test_one_line_tells(caplog: pytest.LogCaptureFixture) -> None:
    pruned(OWN, *THREE, stability=3)
    assert caplog.messages[-1] == (
        "3 prunings of weights changed by at most 1e-06 of each: overlap 0.722222 on average, 0.5 at the least (in "
        "0.weight 0); 2 of 6 weights are kept every time"
    )


def test_a_layer_that_keeps_nothing_has_no_overlap() -> None:
    found = Stability(1e-6, {"a": 0, "b": 2}, ({"a": 0, "b": 1},), {"a": 0, "b": 1})
    assert found.record("a") == {"overlap": None, "least_overlap": None, "stable": 0}
    assert found.record() == {"overlap": 0.5, "least_overlap": 0.5, "stable": 1}


# --- the weights


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_weights_change_in_their_last_digits_alone(dtype: torch.dtype) -> None:
    network = init_network(NETWORK, 4, 0)
    network.model.to(dtype)
    first = network.layers[0].name
    with torch.no_grad():
        network.parameter(first)[0] = 0
        network.parameter(first)[1, :2] = torch.tensor([-0.0, torch.finfo(dtype).tiny])
    before = {name: value.clone() for name, value in network.model.state_dict().items()}
    twin, same, other = (perturbed(network, 1e-3, 5, number).model.state_dict() for number in (1, 1, 2))
    names = {layer.name for layer in network.layers}
    for name, value in before.items():
        assert torch.equal(network.model.state_dict()[name], value)
        assert torch.equal(twin[name], same[name])
        assert torch.equal(twin[name] == 0, value == 0)
        changed = ((twin[name] - value).abs() > (1e-3 + torch.finfo(dtype).eps) * value.abs()).any()
        assert not changed
        assert torch.equal(twin[name], other[name]) == (name not in names)
    change = ((twin[first] / before[first] - 1) / 1e-3)[2:].double()
    assert change.min() < -0.9
    assert change.max() > 0.9
    assert abs(float(change.mean())) < 0.2  # 96 uniform draws: 3.4 standard errors


def test_too_small_a_change_is_refused_before_any_work() -> None:
    with pytest.raises(MethodOptionError) as caught:
        pruned(AssertionError("pruned"), stability=1, perturbation=1e-8)
    assert str(caught.value) == (
        "perturbation=1e-08: is less than float32, in which 0.weight is, tells apart; give 1.2e-07 or more"
    )
    model = whole_numbers().double()
    assert pai_cli.prune(model, "magnitude", density=0.5, stability=1, perturbation=1e-8).stable is not None


# --- laws


def methods_that_prune() -> Iterator[tuple[str, dict[str, object]]]:
    torch.manual_seed(0)
    data = {"data": (torch.randn(40, 12), torch.arange(40) % 4), "per_class": 5}
    for name, method in METHODS.items():
        if not method.trains and not method.text:
            yield name, {**(data if method.data else {}), **({"rounds": 8} if method.iterative else {})}


@pytest.mark.parametrize(("name", "options"), tuple(methods_that_prune()))
def test_the_laws(name: str, options: dict[str, object]) -> None:
    network = pai_cli.init(NETWORK, seed=1)
    given = {"density": 0.2, "stability": 3, "perturbation": 0.05, "seed": 4, "input_shape": (12,), **options}
    mask, again = (pai_cli.prune(network, name, **given) for _ in range(2))
    assert (mask, mask.stable) == (again, again.stable)
    assert mask.summary is not None
    assert again.summary is not None
    found, stable = mask.summary.stability, mask.stable
    assert found is not None
    assert found == again.summary.stability
    assert stable is not None
    assert all(0 <= one <= 1 for layer in (None, *mask) for one in found.overlaps(layer))
    assert found.stable == stable.counts
    alone = {key: value for key, value in given.items() if key not in ("stability", "perturbation")}
    every = [pai_cli.prune(perturbed_module(network, number), name, **alone) for number in range(3)]
    for layer in mask:
        assert np.array_equal(stable[layer], np.logical_and.reduce([one[layer] for one in (mask, *every)]))
        assert [shared[layer] for shared in found.shared] == [int((one[layer] & mask[layer]).sum()) for one in every]
    assert (found.overlap() == 1) == (name in ("random", "uniform", "erk", "smart-ratio", "npb", "ntk-sap"))
    assert pai_cli.prune(network, name, **alone) == mask


def perturbed_module(network: nn.Module, number: int) -> nn.Module:
    """The weights by the definition, and nothing of `prune_again`."""
    known = init_network(NETWORK, 4, 1)
    known.model.load_state_dict(network.state_dict())
    return perturbed(known, 0.05, 4, number).model


def test_what_is_asked_holds_for_every_pruning() -> None:
    mask = pai_cli.prune(pai_cli.init(NETWORK), "magnitude", pattern="1:2", ignore="fc1", stability=2, perturbation=0.5)
    assert mask.summary is not None
    found = mask.summary.stability
    assert found is not None
    assert 0 < found.least_overlap() < 1  # type: ignore[operator]
    assert set(found.kept) == set(mask)


def test_a_method_that_looks_at_no_weight_is_run_once(caplog: pytest.LogCaptureFixture) -> None:
    mask = pai_cli.prune(pai_cli.init(NETWORK), "erk", density=0.5, stability=2)
    assert caplog.messages[-1] == "overlap 1: erk looks at no weight, so no change of them changes what it keeps"
    assert mask.stable == mask
    assert mask.summary is not None
    assert mask.summary.stability is not None
    assert mask.summary.stability.record() == {"overlap": 1.0, "least_overlap": 1.0, "stable": mask.kept}


@pytest.mark.filterwarnings("ignore::pai_cli.telling.PaiWarning")
def test_a_method_that_trains_says_how_often(caplog: pytest.LogCaptureFixture) -> None:
    data = (torch.randn(40, 12), torch.arange(40) % 4)
    mask = pai_cli.prune(
        pai_cli.init(NETWORK), "imp", density=0.5, data=data, input_shape=(12,), epochs=1, rounds=1, rewind=0, batch_size=12,
        stability=2, perturbation=0.5,
    )  # fmt: skip
    assert "stability=2: imp trains as many times more" in caplog.messages
    assert mask.summary is not None
    assert mask.summary.stability is not None
    assert 0 < mask.summary.stability.least_overlap() < 1  # type: ignore[operator]


def test_how_far_it_is() -> None:
    heard: list[tuple[int, int, str]] = []
    pai_cli.prune(
        pai_cli.init(NETWORK), "synflow", density=0.5, rounds=2, stability=2,
        progress=lambda done, of, what="": heard.append((done, of, what)),
    )  # fmt: skip
    assert heard[2:] == [
        (number * 2 + done, 4, f"{number + 1}/2 prunings: scoring weights") for number in (0, 1) for done in (1, 2)
    ]


# --- interrupted, or failed


def test_an_interruption_keeps_the_mask_and_what_was_found(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    out, stable = tmp_path / "m.safetensors", tmp_path / "s.safetensors"
    with pytest.raises(KeyboardInterrupt):
        pruned(OWN, THREE[1], KeyboardInterrupt(), stability=3, output=out, stable_out=stable)
    told = json.loads(MaskFile(out).metadata["stability"])
    assert (told["prunings"], told["overlap"]) == (1, 4 / 6)
    assert pai_cli.Mask.load(stable).kept == 4
    assert caplog.messages[-3].startswith("1 of 3 prunings of weights")
    assert caplog.messages[-1] == f"wrote {out}: the mask; what was found of its stability is in it"


@pytest.mark.filterwarnings("ignore:no pruning of perturbed weights")
def test_interrupted_before_anything_was_found(tmp_path: Path) -> None:
    out, stable = tmp_path / "m.safetensors", tmp_path / "s.safetensors"
    with pytest.raises(KeyboardInterrupt):
        pruned(OWN, KeyboardInterrupt(), stability=3, output=out, stable_out=stable)
    assert pai_cli.Mask.load(out).kept == 6
    assert "stability" not in MaskFile(out).metadata
    assert not stable.exists()


def test_prunings_that_the_method_cannot_make_are_counted() -> None:
    with pytest.warns(pai_cli.PaiWarning, match="1 of 2 prunings of perturbed weights fail: no flow"):
        mask = pruned(OWN, ScoreError("no flow"), THREE[1], stability=2)
    told = json.loads(mask.metadata["stability"])
    assert (told["prunings"], told["failed"], told["overlap"]) == (1, 1, 4 / 6)


def test_where_none_can_be_made_nothing_is_known(tmp_path: Path) -> None:
    stable = tmp_path / "s.safetensors"
    with pytest.warns(pai_cli.PaiWarning) as said:
        mask = pruned(OWN, ScoreError("no flow"), stability=1, stable_out=stable)
    assert str(said[-1].message) == (
        f"no pruning of perturbed weights was made, so how stable the mask is is not known; {stable} is not written"
    )
    assert (mask.kept, mask.stable, stable.exists()) == (6, None, False)


def test_other_faults_are_raised() -> None:
    with pytest.raises(DeviceError, match="gone"):
        pruned(OWN, DeviceError("gone"), stability=1)


# --- wrong input


@pytest.mark.parametrize(
    ("options", "error", "told"),
    [
        ({"perturbation": 1e-6}, UsageError, "is about the prunings that stability= makes; give stability=5 too"),
        ({"stable_out": "s"}, UsageError, "stable_out=s: is about the prunings that stability= makes"),
        ({"stability": 0}, UsageError, "stability=0: must be a whole number of 1 or more"),
        ({"stability": True}, UsageError, "stability=True: must be a whole number"),
        ({"stability": 2.0}, UsageError, "stability=2.0: must be a whole number"),
        *(({"stability": 1, "perturbation": value}, UsageError, "must be a number above 0 and below 1")
          for value in (0, 1, -0.1, math.nan, "much", True)),
        ({"stability": 1, "output": "m", "stable_out": "m"}, OutputError, "different names; change stable_out= or output="),
        ({"stability": 1, "stable_out": "there"}, OutputError, "there: exists already; force=True replaces it"),
    ],
)  # fmt: skip
def test_wrong_input(
    options: dict[str, object], error: type[pai_cli.Error], told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("there").write_text("mine")
    with pytest.raises(error) as caught:
        pruned(AssertionError("pruned"), **options)
    assert told in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == ["there"]


# --- the command


def test_the_command(pai: Pai, here: Path) -> None:
    given = ("prune", "small.safetensors", "--method", "synflow", "--rounds", 3, "--density", 0.2, "--stability", 2)
    more = ("--perturbation", 0.1, "-o", "m.safetensors", "--stable-out", "s.safetensors", "--packed")
    done = pai(*given, *more, "--format", "json")
    assert done.status == 0
    *layers, network = done.json()
    assert set(network) >= {"overlap", "least_overlap", "stable", "prunings", "perturbation", "density_default"}
    assert (network["layer"], network["prunings"], network["perturbation"]) == (None, 2, 0.1)
    assert network["stable"] == sum(line["stable"] for line in layers) == pai_cli.Mask.load("s.safetensors").kept
    told = json.loads(MaskFile(here / "m.safetensors").metadata["stability"])
    assert [told[key] for key in ("overlap", "least_overlap", "stable")] == [
        network[key] for key in ("overlap", "least_overlap", "stable")
    ]
    assert sum("prunings of weights changed by at most 0.1 of each: overlap " in line for line in done.said) == 1
    assert f"{network['overlap']:.6g} on average" in done.err
    assert pai("analyze", "s.safetensors", "--weights", "small.safetensors").status == 0
    table = pai(*given, "-o", "other.safetensors").out
    assert table.splitlines()[1].split()[-3:] == ["overlap", "least_overlap", "stable"]
    wrong = pai(*given[:-2], "--stable-out", "x.safetensors")
    assert (wrong.status, wrong.said[-1]) == (
        2,
        "pai: error: --stable-out x.safetensors: is about the prunings that --stability makes; give --stability 5 too, or "
        "leave it out",
    )


def test_a_large_checkpoint(pai: Pai, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given = ("prune", "small.safetensors", "--density", 0.2, "--stability", 2, "--perturbation", 0.1)
    assert pai(*given, "--method", "magnitude", "-o", "a.safetensors").status == 0
    monkeypatch.setattr(choosing, "LARGE", 1)
    large = pai(*given, "--method", "magnitude", "-o", "b.safetensors")
    assert any("not piece by piece: --stability 2 prunes again what is perturbed" in line for line in large.said)
    one, two = (MaskFile(here / name).metadata["stability"] for name in ("a.safetensors", "b.safetensors"))
    assert one == two
    drawn = pai(*given, "--method", "erk", "-o", "c.safetensors", "--format", "json")
    assert not any("not piece by piece" in line for line in drawn.said)
    assert drawn.json()[-1]["overlap"] == 1
    told = json.loads(MaskFile(here / "c.safetensors").metadata["stability"])
    assert (told["overlap"], told["stable"]) == (1, drawn.json()[-1]["kept"])
    assert pai(*given, "--method", "erk", "-o", "d.safetensors", "--stable-out", "e.safetensors").status == 0
    assert pai_cli.Mask.load("e.safetensors") == pai_cli.Mask.load("c.safetensors")
    mask = pai_cli.prune("small.safetensors", "erk", density=0.2, stability=2, output="f.safetensors")
    assert mask.stable == mask
