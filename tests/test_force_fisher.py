"""FORCE, Fisher-Taylor sensitivity and SynFlow-L2 against loops in NumPy, and batch norms by batch or running statistics."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import run_pai
from networks import half_up, run, same, toy_for, wrap
from numpy.typing import NDArray
from safetensors import safe_open
from safetensors.numpy import load_file
from torch import nn

import pai_cli as pai
from pai_cli.errors import MethodOptionError
from pai_cli.files.masks import MaskFile
from pai_cli.methods import fisher, force, snip, synflow, synflow_l2
from pai_cli.methods.registry import get
from pai_cli.methods.supervised import Supervised
from pai_cli.models.network import Network
from pai_cli.pruning import samples
from pai_cli.pruning.base import Batches, ScoreContext
from pai_cli.pruning.normalising import story_of_batch_norms, told_statistics
from pai_cli.pruning.run import PruneRequest, prune

Weights = dict[str, NDArray[Any]]
Statistics = tuple[NDArray[Any], NDArray[Any]]
STEP = 1e-30
"""Of a derivative by a complex step, which is exact to rounding: nothing is subtracted."""


def small(seed: int = 0) -> Network:
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Dropout(0.5), nn.Linear(6, 3)).double()
    with torch.no_grad():
        model[1].weight.uniform_(0.5, 2)
        model[1].bias.uniform_(-0.5, 0.5)
    return wrap(model, (4,))


def batches() -> Batches:
    """Of unequal sizes, so that their weights in the mean show."""
    rng = np.random.default_rng(3)
    return tuple(
        (torch.from_numpy(rng.standard_normal((n, 4))).float(), torch.from_numpy(rng.integers(0, 3, n))) for n in (5, 8)
    )


def context_of(network: Network, **changes: Any) -> ScoreContext:
    return ScoreContext(network, network.layers, network.input_shape, "cpu", 0, batches(), "snip", **changes)


# ---- the oracle: one network, written out


def state_of(network: Network) -> Weights:
    return {name: one.detach().numpy().copy() for name, one in network.model.state_dict().items()}


def hidden(state: Weights, inputs: NDArray[Any]) -> NDArray[Any]:
    """What enters the batch norm."""
    found = np.zeros((len(inputs), 6), complex)
    for n, j in np.ndindex(*found.shape):
        found[n, j] = state["0.bias"][j] + sum(state["0.weight"][j, i] * inputs[n, i] for i in range(4))
    return found


def cross_entropies(state: Weights, inputs: NDArray[Any], labels: NDArray[Any], by: Statistics | None) -> list[complex]:
    """Of each sample; the batch norm normalises by these statistics, or by those of the batch."""
    z = hidden(state, inputs)
    mean, variance = (z.mean(0), ((z - z.mean(0)) ** 2).mean(0)) if by is None else by
    z = (z - mean) / np.sqrt(variance + 1e-5) * state["1.weight"] + state["1.bias"]
    z = np.where(z.real > 0, z, 0)
    losses = []
    for n, label in enumerate(labels):
        logits = [state["4.bias"][k] + sum(state["4.weight"][k, j] * z[n, j] for j in range(6)) for k in range(3)]
        losses.append(np.log(sum(np.exp(one) for one in logits)) - logits[label])
    return losses


def derivative(state: Weights, of: Callable[[Weights], list[complex]]) -> dict[str, NDArray[np.float64]]:
    """By name, (values of `of`, *weight)."""
    found = {}
    for name in ("0.weight", "4.weight"):
        columns = []
        for index in np.ndindex(*state[name].shape):
            moved = state[name].astype(complex)
            moved[index] += STEP * 1j
            columns.append([one.imag / STEP for one in of(state | {name: moved})])
        found[name] = np.asarray(columns).T.reshape(-1, *state[name].shape)
    return found


def every(state: Weights, by: Statistics | None) -> list[complex]:
    """The cross-entropy of every sample, batch by batch."""
    return [one for x, y in batches() for one in cross_entropies(state, x.double().numpy(), y.numpy(), by)]


def gradient(state: Weights, by: Statistics | None = None) -> dict[str, NDArray[np.float64]]:
    return {name: one.mean(0) for name, one in derivative(state, lambda moved: every(moved, by)).items()}


def measured(state: Weights) -> Statistics:
    """PyTorch's running statistics after a pass: means over the batches of mean and unbiased variance."""
    found = [hidden(state, x.double().numpy()).real for x, _ in batches()]
    return np.mean([z.mean(0) for z in found], axis=0), np.mean([z.var(0, ddof=1) for z in found], axis=0)


def largest(scores: Weights, count: int) -> dict[str, NDArray[np.bool_]]:
    flat = np.concatenate([one.ravel() for one in scores.values()])
    order = sorted(range(len(flat)), key=lambda place: (-flat[place], place))
    kept = np.zeros(len(flat), bool)
    kept[order[:count]] = True
    pieces = np.split(kept, np.cumsum([one.size for one in scores.values()])[:-1])
    return {name: piece.reshape(scores[name].shape) for name, piece in zip(scores, pieces, strict=True)}


def force_by_loops(network: Network, density: float, rounds: int) -> list[dict[str, NDArray[np.bool_]]]:
    """The masks after each round."""
    state, masks = state_of(network), []
    for k in range(1, rounds + 1):
        under = state | ({name: state[name] * mask for name, mask in masks[-1].items()} if masks else {})
        found = gradient(under)
        scores = {name: abs(state[name] * one) for name, one in found.items()}
        masks.append(largest(scores, half_up(density ** (k / rounds), 42)))
    return masks


def pruned(network: Network, method: str, density: float, **options: Any) -> dict[str, NDArray[np.bool_]]:
    """The masks of a method scoring with these batches."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(samples, "draw", lambda *_: batches())
        return prune(network, PruneRequest(get(method), density, **options), dataset=toy_for(network)).masks


# ---- FORCE


@pytest.mark.parametrize(("seed", "density", "rounds"), [(0, 0.2, 6), (1, 0.2, 6), (0, 0.3, 40), (1, 0.5, 40)])
def test_force_is_its_rounds_written_out(seed: int, density: float, rounds: int) -> None:
    """With 40 of them, some keep as many weights as the one before, and others of them."""
    wanted = force_by_loops(small(seed), density, rounds)
    for done in range(1, rounds + 1) if rounds < 10 else (rounds,):  # the first rounds are a run to their density
        found = pruned(small(seed), "force", density ** (done / rounds), rounds=done)
        assert all(np.array_equal(found[name], mask) for name, mask in wanted[done - 1].items()), done


def test_force_scores_what_is_pruned() -> None:
    network = small()
    state, context = state_of(network), context_of(network)
    rng = np.random.default_rng(0)
    score = force.make_scorer(context)
    for share in (0.5, 0.8, 0.3):  # also of masks that grow again
        masks = {name: rng.random(state[name].shape) < share for name in ("0.weight", "4.weight")}
        found = score(masks).values
        by_hand = gradient(state | {name: state[name] * mask for name, mask in masks.items()})
        for name, mask in masks.items():
            np.testing.assert_allclose(found[name], abs(state[name] * by_hand[name]), rtol=1e-12, atol=1e-15)
            assert found[name].numpy()[~mask].any()


def test_force_in_one_round_is_snip_and_in_many_not_iter_snip() -> None:
    assert same(run(small(), "force", 0.3, rounds=1), run(small(), "snip", 0.3))
    assert not same(run(small(), "force", 0.1, rounds=20), run(small(), "iter-snip", 0.1, rounds=20))
    assert get("force").rounds == 60


# ---- Fisher-Taylor sensitivity


@pytest.mark.parametrize("fresh", [True, False])
def test_fisher_is_the_second_order_term_sample_by_sample(fresh: bool) -> None:
    network = small()
    state = state_of(network)
    by = measured(state)
    if not fresh:
        by = (np.linspace(-0.3, 0.4, 6), np.linspace(0.5, 2, 6))
        norm = network.model[1]
        norm.running_mean.copy_(torch.from_numpy(by[0]))
        norm.running_var.copy_(torch.from_numpy(by[1]))
    found = fisher.make_scorer(context_of(network, batch_norm="running"))(None).values
    for name, of_samples in derivative(state, lambda moved: every(moved, by)).items():
        g, diagonal = np.zeros(state[name].shape), np.zeros(state[name].shape)
        for one in of_samples:
            g += one / len(of_samples)
            diagonal += one**2 / len(of_samples)
        wanted = abs(state[name] * g + state[name] ** 2 * diagonal / 2)
        np.testing.assert_allclose(found[name], wanted, rtol=1e-11, atol=1e-15)


def test_fisher_does_not_depend_on_how_samples_are_batched() -> None:
    network = small()
    network.model[1].running_mean.fill_(0.25)
    context = context_of(network, batch_norm="running")
    x, y = (torch.cat(parts) for parts in zip(*context.batches, strict=True))
    first = fisher.make_scorer(context)(None).values
    whole = fisher.make_scorer(replace(context, batches=((x, y),)))(None).values
    assert all(torch.allclose(first[name], whole[name], rtol=1e-13, atol=0) for name in first)


# ---- SynFlow-L2


def bias_free() -> Network:
    torch.manual_seed(4)
    layers = [
        nn.Linear(3, 4, bias=False),
        nn.ReLU(),
        nn.Linear(4, 3, bias=False),
        nn.ReLU(),
        nn.Linear(3, 2, bias=False),
    ]
    return wrap(nn.Sequential(*layers), (3,))


def test_synflow_l2_is_the_sum_over_paths_of_squared_products() -> None:
    network = bias_free()
    first, second, third = (network.parameter(layer.name).detach().double().numpy() for layer in network.layers)
    wanted = [np.zeros(one.shape) for one in (first, second, third)]
    for i, a, b, o in product(range(3), range(4), range(3), range(2)):
        value = (first[a, i] * second[b, a] * third[o, b]) ** 2
        for part, index in zip(wanted, ((a, i), (b, a), (o, b)), strict=True):
            part[index] += value
    scores = synflow_l2.make_scorer(ScoreContext(network, network.layers, (3,), "cpu", 0))(None)
    for found, one in zip(scores.values.values(), wanted, strict=True):
        np.testing.assert_allclose(found, one, rtol=1e-12)
        assert scores.flow == pytest.approx(one.sum(), rel=1e-12)  # every layer sums to R


def test_synflow_l2_is_synflow_of_squared_parameters_and_buffers() -> None:
    network, squared = small(), small()
    for one in (network, squared):
        one.model[1].running_mean.fill_(0.1)
        one.model[1].running_var.uniform_(0.5, 2, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        for tensor in (*squared.model.parameters(), *squared.model.buffers()):
            if tensor.is_floating_point():
                tensor.square_()
    found = synflow_l2.make_scorer(ScoreContext(network, network.layers, (4,), "cpu", 0))(None).values
    wanted = synflow.make_scorer(ScoreContext(squared, squared.layers, (4,), "cpu", 0))(None).values
    assert all(torch.allclose(found[name], wanted[name], rtol=1e-12, atol=0) for name in wanted)
    assert run(network, "synflow-l2", 0.2, rounds="auto").connected


def test_synflow_l2_names_itself() -> None:
    network = bias_free()
    with pytest.raises(MethodOptionError, match=r"^synflow-l2: the shape of one input is not known"):
        run(wrap(network.model, None), "synflow-l2", 0.5)


# ---- batch norms


@pytest.mark.parametrize("fresh", [True, False])
def test_snip_by_running_statistics(fresh: bool) -> None:
    network = small()
    state = state_of(network)
    by = measured(state) if fresh else (np.full(6, 0.25), np.full(6, 1.5))
    if not fresh:
        network.model[1].running_mean.fill_(0.25)
        network.model[1].running_var.fill_(1.5)
    before = {name: one.clone() for name, one in network.model.state_dict().items()}
    found = snip.make_scorer(context_of(network, batch_norm="running"))(None).values
    for name, one in gradient(state, by).items():
        np.testing.assert_allclose(found[name], abs(state[name] * one), rtol=1e-11, atol=1e-15)
    assert all(torch.equal(one, before[name]) for name, one in network.model.state_dict().items())
    by_batch = snip.make_scorer(context_of(network))(None).values
    for name, one in gradient(state).items():
        np.testing.assert_allclose(by_batch[name], abs(state[name] * one), rtol=1e-11, atol=1e-15)


@pytest.mark.parametrize("method", ["snip", "iter-snip", "force", "grasp", "prospr"])
def test_batch_norm_changes_the_mask_and_batch_is_usual(method: str) -> None:
    usual = run(small(), method, 0.3)
    assert same(usual, run(small(), method, 0.3, batch_norm="batch"))
    assert not same(usual, run(small(), method, 0.3, batch_norm="running"))


def test_only_initial_statistics_are_measured() -> None:
    model = nn.Sequential(nn.Linear(4, 5), nn.BatchNorm1d(5), nn.Linear(5, 5), nn.BatchNorm1d(5), nn.Linear(5, 3))
    model[1].running_var.fill_(3.0)
    loss = Supervised(context_of(wrap(model, (4,)), batch_norm="running"), ())
    twin: Any = loss._model
    assert (twin[1].running_var == 3.0).all()
    assert not (twin[3].running_var == 1.0).any()
    assert not any(module.training for module in twin.modules())
    assert (model[3].running_var == 1.0).all()
    assert model[3].num_batches_tracked == 0


def test_a_batch_norm_without_running_statistics_is_scored_by_its_batch() -> None:
    """One sample is too few for it, whatever its mode."""
    for norm in (nn.BatchNorm1d(5, track_running_stats=False), nn.BatchNorm1d(5)):
        torch.manual_seed(0)
        network = wrap(nn.Sequential(nn.Linear(4, 5), norm, nn.ReLU(), nn.Linear(5, 3)), (4,))
        found = run(network, "snip", 0.5)
        if norm.running_mean is None:
            first = found
    assert same(first, found)


PLAIN = nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 3))
STATELESS = nn.Sequential(nn.Linear(4, 5), nn.BatchNorm1d(5, track_running_stats=False), nn.Linear(5, 3))
NOT_FOR = [
    (PLAIN, "snip", "batch", "batch_norm=batch: the network has no batch norm; leave batch_norm= out"),
    (PLAIN, "snip", "running", "batch_norm=running: the network has no batch norm; leave batch_norm= out"),
    (STATELESS, "snip", "running", "batch_norm=running: 1 keeps no running statistics; give batch_norm=batch"),
    (STATELESS, "fisher", None, "batch_norm=running: 1 keeps no running statistics; give another method="),
]


@pytest.mark.parametrize(("model", "method", "how", "said"), NOT_FOR)
def test_networks_for_which_it_is_refused(model: nn.Module, method: str, how: str | None, said: str) -> None:
    with pytest.raises(MethodOptionError) as caught:
        run(wrap(model, (4,)), method, 0.5, batch_norm=how)
    assert str(caught.value) == said


def test_a_network_without_batch_norms_has_nothing_to_tell() -> None:
    request = PruneRequest(get("fisher"), 0.5)
    assert (story_of_batch_norms(wrap(PLAIN, (4,)), request), told_statistics(wrap(PLAIN, (4,)), request)) == ({}, "")
    assert run(wrap(PLAIN, (4,)), "fisher", 0.5).kept == 18  # halves up, of 35


# ---- as a person has it


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A network with batch norms, and data of floats and of bytes."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    x, y = rng.normal(0.4, 0.1, (60, 3, 8, 8)).astype(np.float32), np.repeat(np.arange(10), 6)
    np.savez("floats.npz", x=x, y=y, x_test=x[:10], y_test=y[:10])
    np.savez("bytes.npz", x=(255 * x.clip(0, 1)).astype(np.uint8), y=y)
    pai.init("resnet8", output="net.safetensors")
    return tmp_path


def prune_with(*flags: object) -> list[str]:
    done = run_pai(
        *("prune", "net.safetensors", "--density", 0.1, "--input-shape", "3,8,8", "-o", "mask", "--force", *flags),
        *(["--per-class", 4] if "--data" in flags else []),
    )
    assert done.status == 0, done.said
    return done.said


FRESH = (
    "pai: running statistics of 7 batch norms are the initial ones (mean 0, variance 1): measured on the samples, in one "
    "pass; the network keeps its own"
)


def test_what_is_measured_is_said_and_stands_in_the_mask(folder: Path) -> None:
    assert FRESH not in prune_with("--method", "snip", "--data", "floats.npz")
    assert MaskFile(Path("mask")).metadata["batch_norm"] == "batch"
    assert "batch_norm_statistics" not in MaskFile(Path("mask")).metadata
    for flags in (["snip", "--batch-norm", "running"], ["fisher"]):
        assert FRESH in prune_with("--data", "floats.npz", "--method", *flags)
        told = MaskFile(Path("mask")).metadata
        assert (told["batch_norm"], told["batch_norm_statistics"]) == ("running", "samples")
    prune_with("--method", "synflow-l2", "--rounds", 2)
    assert "batch_norm" not in MaskFile(Path("mask")).metadata


def test_floats_are_taken_as_they_are_and_bytes_are_not(folder: Path) -> None:
    masks = {}
    for flags in ("floats.npz", "floats.npz --normalise", "bytes.npz"):
        said = [one for one in prune_with("--method", "snip", "--data", *flags.split()) if "samples of each" in one]
        masks[flags] = (load_file("mask"), said[0].partition("8x8; ")[2], MaskFile(Path("mask")).metadata["values"])
    first, *others = masks.values()
    assert first[1:] == ("values taken as they are (--normalise standardises them)", "values taken as they are")
    assert others[0][1].endswith("; measured on the training set")
    assert others[0][1] == others[0][2]
    assert others[1][1].startswith("divided by 255, mean (")
    assert any((mask != others[0][0][name]).any() for name, mask in first[0].items())
    given = np.load("floats.npz")
    ours = pai.prune(
        "net.safetensors", "snip", density=0.1, data=(given["x"], given["y"]), per_class=4, input_shape=(3, 8, 8)
    )
    assert all(np.array_equal(ours[name], mask) for name, mask in first[0].items())


REFUSED = {
    "bytes": (["--data", "bytes.npz"], 1, "bytes.npz, of uint8, is standardised without it; leave it out"),
    "digits": (["--data", "digits"], 1, "digits is standardised without it; leave it out"),
    "nothing": ([], 2, "is about the values of the data; give --data, or leave it out"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_normalise_is_refused_where_it_does_nothing(folder: Path, name: str) -> None:
    flags, status, said = REFUSED[name]
    for command in (["prune"], ["sample", "--population", 2], ["train"]):
        if command == ["train"] and not flags:  # which always needs data
            continue
        method = [] if command == ["train"] else ["--method", "snip", "--density", 0.5, "-o", "out.safetensors"]
        done = run_pai(command[0], "net.safetensors", *command[1:], *method, "--normalise", *flags)
        assert (done.status, done.said[-1]) == (status, f"pai: error: --normalise: {said}")
        assert not Path("out.safetensors").exists()


def test_a_search_goes_on_with_the_same_choices_alone(folder: Path) -> None:
    words = [
        "sample",
        "net.safetensors",
        "--method",
        "snip",
        "--density",
        0.1,
        "--per-class",
        3,
        "--input-shape",
        "3,8,8",
    ]
    words += ["--data", "floats.npz", "-o", "best.safetensors", "--jobs", 1, "--population"]
    done = run_pai(*words, 2, "--batch-norm", "running", "--normalise")
    assert done.status == 0, done.said
    assert FRESH in done.said
    told = MaskFile(Path("best.safetensors")).metadata
    assert (told["batch_norm"], told["batch_norm_statistics"]) == ("running", "samples")
    lines = [json.loads(line) for line in Path("best.jsonl").read_text().splitlines()]
    assert (lines[0]["batch_norm"], lines[0]["normalise"]) == ("running", True)
    done = run_pai(*words, 3, "--resume", "--batch-norm", "running")
    assert done.status == 1
    assert "that search had normalise True, this one has False" in done.said[-1]


def test_training_on_floats_tells_what_is_made_of_them(folder: Path) -> None:
    pai.init("mlp-192-6-10", output="flat.safetensors")
    words = [
        "train",
        "flat.safetensors",
        "--data",
        "floats.npz",
        "--epochs",
        1,
        "--batch-size",
        20,
        "-o",
        "trained.safetensors",
        "--force",
    ]
    for flags, part in (([], "values taken as they are"), (["--normalise"], "measured on the training set")):
        done = run_pai(*words, *flags)
        assert done.status == 0, done.said
        assert any(part in one for one in done.said)
        with safe_open("trained.safetensors", "numpy") as file:
            assert part in file.metadata()["values"]
