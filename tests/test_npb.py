"""NPB: each layer against all masks there are and against a solver, the paths against PyTorch, more nodes and paths."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from networks import build, run, same, slim_network, wrap
from scipy.optimize import Bounds, LinearConstraint, milp
from test_phew import shortcuts
from torch import nn

from pai_cli.errors import MethodOptionError, ScoreError, TraceError
from pai_cli.methods.node_paths import PUBLISHED, Program, Terms, keep
from pai_cli.methods.npb import paths_through
from pai_cli.models.network import Network
from pai_cli.models.unrolled.folded import Folded
from pai_cli.models.unrolled.paths import NetworkPaths, Unrolled
from pai_cli.models.unrolled.sums import TOO_FAR_APART
from pai_cli.models.unrolled.tape import unroll


def shares(program: Program) -> np.ndarray:
    """Each input's paths by the definition."""
    mean = np.array([row[row > 0].mean() if row.any() else 0.0 for row in program.paths])
    mean /= mean.max() or 1.0
    if program.terms.doubling:
        mean = np.array([2.0 ** round(np.log2(one)) if one else 0.0 for one in mean])
    return mean


def terms_of(program: Program, kept: np.ndarray) -> tuple[int, float, int]:
    """Nodes, paths and kernels of a mask (inputs, outputs of a group, positions), by the definition."""
    on_a_path = kept & (program.paths[:, None, :] > 0)
    each = len(kept) // program.groups
    for i in range(len(kept)):
        first = i // each * kept.shape[1]
        on_a_path[i] &= program.leads_on[first : first + kept.shape[1], None]
    kernels = on_a_path.any(2)
    outputs = kernels.reshape(program.groups, each, -1).any(1).sum()
    return int(kernels.any(1).sum() + outputs), float(shares(program) @ on_a_path.sum((1, 2))), int(kernels.sum())


def value(program: Program, terms: tuple[int, float, int], most_paths: float) -> float:
    nodes, paths, kernels = terms
    weigh = program.terms
    every = len(program.paths) + len(program.leads_on)
    return (
        weigh.alpha * nodes / every
        + (1 - weigh.alpha) * paths / (most_paths or 1)
        + weigh.beta * kernels / program.count
    )


PATHS = {
    "alike": lambda shape, _: np.ones(shape),
    "apart": lambda shape, random: random.integers(1, 60, shape).astype(float),
    "some none": lambda shape, random: random.integers(0, 3, shape) * random.uniform(0.5, 9, shape),
    "none": lambda shape, _: np.zeros(shape),
}
SHAPES = [(2, 3, 2, 1), (3, 2, 2, 1), (3, 4, 1, 1), (2, 2, 3, 1), (4, 2, 1, 2), (2, 4, 3, 2)]
"""Inputs, outputs, positions, groups: at most 12 weights."""


@pytest.mark.parametrize("terms", [Terms(), PUBLISHED, Terms(0.9, 0.0, doubling=False)], ids=str)
@pytest.mark.parametrize("paths", PATHS)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_no_mask_is_better(shape: tuple[int, int, int, int], paths: str, terms: Terms) -> None:
    inputs, outputs, positions, groups = shape
    weights = inputs * outputs // groups * positions
    every = np.array(list(itertools.product([False, True], repeat=weights)))
    leads_on = np.ones(outputs, bool)
    leads_on[-1] = paths == "alike"
    of_paths = PATHS[paths]((inputs, positions), np.random.default_rng(inputs))
    for count in (1, 2, weights // 2, weights - 1, weights):
        program = Program(of_paths, leads_on, groups, count, terms)
        masks = every[every.sum(1) == count].reshape(-1, *program.shape)
        found = [terms_of(program, mask) for mask in masks]
        most_paths = max(paths for _, paths, _ in found)
        kept = keep(program, np.random.default_rng(1))
        assert kept.sum() == count
        best = max(value(program, one, most_paths) for one in found)
        assert value(program, terms_of(program, kept), most_paths) == pytest.approx(best, abs=1e-7)


@pytest.mark.parametrize("count", [3, 9, 20, 45, 90])
@pytest.mark.parametrize("terms", [Terms(), PUBLISHED], ids=str)
def test_a_solver_finds_nothing_better(terms: Terms, count: int) -> None:
    """The mixed-integer program as the authors write it: weights of each kernel, flags of kernels and of nodes."""
    inputs, outputs, positions = 6, 5, 4
    of_paths = np.repeat(np.random.default_rng(count).integers(50, 99, (inputs, 1)), positions, 1).astype(float)
    program = Program(of_paths, np.ones(outputs, bool), 1, count, terms)
    share, kernels, nodes = shares(program), inputs * outputs, inputs + outputs
    most_paths = float(np.sort(np.repeat(share, outputs * positions))[::-1][:count].sum())
    adds = np.repeat((1 - terms.alpha) * share / most_paths, outputs)
    cost = -np.concatenate([adds, np.full(kernels, terms.beta / count), np.full(nodes, terms.alpha / nodes)])
    of_kernel = np.hstack([np.eye(kernels), -np.eye(kernels), np.zeros((kernels, nodes))])
    ends = np.vstack([np.kron(np.eye(inputs), np.ones(outputs)), np.kron(np.ones(inputs), np.eye(outputs))])
    of_node = np.hstack([ends, np.zeros((nodes, kernels)), -np.eye(nodes)])
    total = np.hstack([np.ones(kernels), np.zeros(kernels + nodes)])
    found = milp(
        cost,
        integrality=np.ones(len(cost)),
        bounds=Bounds(0, np.concatenate([np.full(kernels, positions), np.ones(kernels + nodes)])),
        constraints=[
            LinearConstraint(np.vstack([of_kernel, of_node]), 0, np.inf),
            LinearConstraint(total[None], count, count),
        ],
        options={"mip_rel_gap": 0.0},
    )
    assert found.success
    kept = keep(program, np.random.default_rng(0))
    assert value(program, terms_of(program, kept), most_paths) == pytest.approx(-found.fun, abs=1e-6)


def test_what_counts_alike_is_shared_out() -> None:
    """Of inputs with the same paths none has two weights more than another, and outputs neither."""
    kept = keep(Program(np.ones((8, 9)), np.ones(6, bool), 1, 31), np.random.default_rng(0))
    for sums in (kept.sum((1, 2)), kept.sum((0, 2))):
        assert np.ptp(sums) == 1
    assert kept.sum(2).max() == 1
    more = keep(Program(np.ones((8, 9)), np.ones(6, bool), 1, 200), np.random.default_rng(0))
    assert np.ptp(more.sum((1, 2))) <= 1
    assert set(np.unique(more.sum(2))) == {4, 5}


def test_positions_are_drawn_by_their_paths() -> None:
    paths = np.tile([3.0, 1.0, 0.0], (30, 1))
    kept = keep(Program(paths, np.ones(200, bool), 1, 6000), np.random.default_rng(0))
    assert kept[:, :, 2].sum() == 0
    assert kept[:, :, 0].mean() == pytest.approx(0.75, abs=5 * np.sqrt(0.75 * 0.25 / 6000))


LAYERS = {
    "padded": (nn.Conv2d(3, 4, 3, padding=1, bias=False), (3, 5, 4)),
    "strided": (nn.Conv2d(3, 4, (3, 2), stride=2, dilation=(1, 2), bias=False), (3, 7, 6)),
    "grouped": (nn.Conv2d(4, 6, 3, padding=2, groups=2, bias=False), (4, 3, 3)),
    "transposed": (nn.ConvTranspose2d(4, 6, 3, stride=2, padding=1, groups=2, bias=False), (4, 3, 3)),
    "1-D": (nn.Conv1d(3, 2, 3, padding=1, bias=False), (3, 6)),
    "linear": (nn.Linear(5, 3, bias=False), (5,)),
    "tokens": (nn.Linear(5, 3, bias=False), (4, 5)),
}


@pytest.mark.parametrize("kind", LAYERS)
def test_paths_are_what_one_weight_alone_takes_on(kind: str) -> None:
    layer, shape = LAYERS[kind]
    tape = unroll(layer, shape)
    (use,) = tape.uses
    read = np.random.default_rng(0).integers(0, 9, (1, *shape)).astype(float)
    found = paths_through(use, Folded.of(read), tape.shapes[use.outputs[0]])
    double = layer.double()
    weight, groups = double.weight, getattr(layer, "groups", 1)
    transposed = isinstance(layer, nn.ConvTranspose2d)
    inputs = weight.shape[0] if transposed else weight.shape[1] * groups
    assert found.shape == (inputs, int(np.prod(weight.shape[2:])))
    for i, place in np.ndindex(found.shape):
        one = torch.zeros(weight.shape, dtype=torch.float64)
        each = inputs // groups
        first, second = (i, 0) if transposed else (i // each * (weight.shape[0] // groups), i % each)
        one[first, second].view(-1)[place] = 1
        with torch.no_grad():
            weight.copy_(one)
            assert found[i, place] == double(torch.from_numpy(read)).sum()
    layer.float()


def measured(network: Network, masks: dict[str, np.ndarray]) -> NetworkPaths:
    return Unrolled(unroll(network.model, network.input_shape)).measure(masks)


@pytest.mark.parametrize(("name", "density"), [("resnet8", 0.01), ("resnet20", 0.01), ("vgg11", 0.05)])
def test_more_nodes_and_paths_than_erk(name: str, density: float) -> None:
    network = slim_network(name)
    random, ours = run(network, "erk", density), run(network, "npb", density)
    assert ours.kept_by_layer == random.kept_by_layer
    before, after = measured(network, random.masks), measured(network, ours.masks)
    assert after.effective_nodes >= before.effective_nodes
    assert after.log_paths.value > before.log_paths.value
    assert after.node_path_balance.value > before.node_path_balance.value


@pytest.mark.parametrize("density", [0.05, 0.01])
def test_more_nodes_and_balance_than_synflow_at_its_densities(density: float) -> None:
    network = slim_network("resnet8")
    flow = run(network, "synflow", density)
    shares_of = tuple((name, mask.mean()) for name, mask in flow.masks.items())
    ours = run(network, "npb", densities=shares_of)
    assert ours.kept_by_layer == flow.kept_by_layer
    before, after = measured(network, flow.masks), measured(network, ours.masks)
    assert after.effective_nodes > before.effective_nodes
    assert after.node_path_balance.value > before.node_path_balance.value


def test_sweeps_bring_weights_onto_paths(monkeypatch: pytest.MonkeyPatch) -> None:
    network = slim_network("resnet20")
    several = run(network, "npb", 0.004)
    monkeypatch.setattr("pai_cli.methods.npb.SWEEPS", 1)
    once = run(network, "npb", 0.004)
    assert several.kept_by_layer == once.kept_by_layer
    assert several.effective > once.effective


def test_every_wiring() -> None:
    """Shortcuts, concatenations, groups, depthwise and transposed convolutions: all kept weights are on a path."""
    result = run(shortcuts(), "npb", 0.4)
    assert result.effective == result.kept


def test_the_weights_do_not_matter() -> None:
    network, other = build("residual"), build("residual", seed=1)
    assert same(run(network, "npb", 0.2), run(other, "npb", 0.2))
    assert not same(run(network, "npb", 0.2), run(network, "npb", 0.2, seed=1))


class Unused(nn.Module):
    """A layer that no input comes to."""

    def __init__(self) -> None:
        super().__init__()
        self.fc, self.aside = nn.Linear(6, 4), nn.Linear(10, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(x)


def test_a_layer_that_is_not_used_keeps_its_count() -> None:
    result = run(wrap(Unused(), (6,)), "npb", densities=(("*", 0.5),))
    assert result.kept_by_layer == {"fc.weight": 12, "aside.weight": 50}
    assert result.effective == 12


def test_what_cannot_be_followed_is_told() -> None:
    with pytest.raises(MethodOptionError, match="the shape of one input is not known; give it with input_shape="):
        run(wrap(nn.Linear(4, 3), None), "npb", 0.5)
    attention = wrap(nn.TransformerEncoderLayer(4, 2, batch_first=True), (3, 4))
    with pytest.raises(TraceError, match=r"take a method= that needs no wiring, such as erk$"):
        run(attention, "npb", 0.5)


def test_numbers_past_float64_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pai_cli.models.unrolled.sums._LOG_LARGEST", 2)  # a float64 of hardly any range
    monkeypatch.setattr("pai_cli.models.unrolled.sums._LOG_LEAST", 0)
    with pytest.raises(ScoreError) as caught:
        run(build("mlp"), "npb", 0.5)
    assert str(caught.value) == f"npb: {TOO_FAR_APART}; give another method=, such as erk"
