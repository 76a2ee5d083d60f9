"""Methods that train: Gem-Miner, edge-popup, iterative magnitude pruning; their facts, and going on where one stopped."""

from __future__ import annotations

import math
import os
import signal
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import Pai, run_pai
from networks import IN_ROUNDS, TRAINING, build, half_up, run, same, toy_for
from safetensors import safe_open
from safetensors.numpy import load_file
from standin import Toy
from torch import nn
from trainings import data_for, equal, fit, residual, through_a_file, toy

from pai_cli.errors import DataError, MethodOptionError, OutputError, RecipeError, ResumeError, TrainingError
from pai_cli.files.journal import PRUNE, beside
from pai_cli.files.masks import MaskFile
from pai_cli.methods import edge_popup, gem_miner, registry
from pai_cli.methods.registry import get
from pai_cli.methods.score_training import ScoreTraining
from pai_cli.methods.signed_constants import constant_of, fan_in, signed_constants
from pai_cli.models.network import Network, init_network
from pai_cli.progress import Milestone, silent
from pai_cli.pruning.base import Masks, ScoreContext
from pai_cli.pruning.counts import NetworkQuota
from pai_cli.pruning.run import PruneRequest, choose_masks, prune
from pai_cli.pruning.sanity import redrawn, with_weights
from pai_cli.pruning.select import keep_largest
from pai_cli.pruning.trained import TrainingContext, TrainingOptions, TrainingRun, freezes, usual_rounds
from pai_cli.training.recipe import Optimizer, Recipe
from pai_cli.training.state import TrainingState

TRAINED = pytest.mark.parametrize("method", TRAINING)
PUBLISHED = {0.0372: 9982, 0.0144: 3864, 0.0059: 1583}


def context(network: Network, method: str = "gem-miner", dataset: Any = None, **options: Any) -> ScoreContext:
    given = TrainingOptions(**{"epochs": 4, "freeze_every": 1, "batch_size": 16, **options})
    rounds = registry.get(method).rounds
    rounds = rounds if isinstance(rounds, int) else rounds(given, 0.3)
    counts = {layer.name: half_up(0.3, math.prod(layer.shape)) for layer in network.layers}
    training = TrainingContext(given, dataset or toy(), rounds, 0.3, silent, TrainingRun())
    return ScoreContext(
        network, network.layers, network.input_shape, "cpu", 0, method=method, counts=counts, training=training
    )


def searching(network: Network, penalty: float = 0.01, **options: Any) -> ScoreTraining:
    kind = gem_miner.Kind(gem_miner._uniform, gem_miner._over_half, clip=True, penalty=penalty)
    return ScoreTraining(context(network, **options), kind, 3)


def batch(network: Network, count: int = 12) -> tuple[torch.Tensor, torch.Tensor]:
    data = toy()
    return torch.from_numpy(data.examples(np.arange(count))), torch.from_numpy(data.labels[:count])


# ---- Gem-Miner's published numbers


def test_the_number_of_weights_of_the_published_network() -> None:
    assert init_network("resnet20", None, 0).total == 268_336


@pytest.mark.parametrize("density", PUBLISHED)
@pytest.mark.parametrize("ties", [False, True])
def test_the_published_densities_end_exactly(density: float, ties: bool) -> None:
    """Also where clipping has left masses of equal scores at 0 and at 1."""
    shapes = {layer.name: layer.shape for layer in init_network("resnet20", None, 0).layers}
    random = np.random.default_rng(0)
    scores = {name: random.random(shape) for name, shape in shapes.items()}
    if ties:
        scores = {name: np.round(one * 1.5 - 0.25).clip(0, 1) for name, one in scores.items()}
    quota = NetworkQuota(shapes, density)
    steps = quota.steps(freezes(TrainingOptions(150, 5), density))
    masks: Masks | None = None
    for k, count in enumerate(steps, start=1):
        before, masks = masks, quota.keep(scores, count, masks)
        kept = sum(int(mask.sum()) for mask in masks.values())
        assert abs(kept - 268_336 * density ** (k / 29)) <= 0.5
        assert before is None or not any((masks[name] & ~before[name]).any() for name in masks)
    assert len(steps) == 29
    assert kept == PUBLISHED[density] == half_up(density, 268_336)


@pytest.mark.parametrize(
    ("epochs", "every", "count"), [(150, 5, 29), (150, 8, 18), (200, 20, 9), (6, 5, 1), (11, 5, 2)]
)
def test_how_many_freezes(epochs: int, every: int, count: int) -> None:
    assert freezes(TrainingOptions(epochs, every), 0.1) == count


def test_no_freeze_is_refused() -> None:
    with pytest.raises(MethodOptionError) as caught:
        run(residual(), "gem-miner", 0.3, training=TrainingOptions(5, 5))
    assert str(caught.value) == (
        "freeze_every=5: no freeze comes in 5 epochs; give more epochs=, or a smaller freeze_every="
    )


def test_how_many_rounds_when_each_removes_a_fifth() -> None:
    found = {density: usual_rounds(TrainingOptions(), density) for density in (1.0, 0.9, 0.8, 0.64, 0.63, 0.02)}
    assert found == {1.0: 1, 0.9: 1, 0.8: 1, 0.64: 2, 0.63: 3, 0.02: 18}


@pytest.mark.parametrize(
    ("density", "optimizer", "penalty"),
    [(0.0059, "sgd", 1e-4), (0.0144, "sgd", 1e-4), (0.0372, "sgd", 3e-5), (0.02, "sgd", 1e-4), (0.05, "sgd", 3e-5),
     (0.2, "sgd", 1e-5), (0.5, "sgd", 1e-8), (1.0, "sgd", 1e-8), (0.014, "adam", 1e-6)],
)  # fmt: skip
def test_the_published_penalties(density: float, optimizer: str, penalty: float) -> None:
    assert gem_miner.usual_penalty(density, Optimizer(optimizer)) == penalty


# ---- the frozen network


def test_signed_constants() -> None:
    network = build("convolutions")
    with torch.no_grad():
        network.parameter("1.weight").view(-1)[:2] = torch.tensor([0.0, -0.0])
        network.model[3].weight.fill_(0.3)
    before = {name: one.clone() for name, one in network.model.state_dict().items()}
    state = signed_constants(network, network.layers).state_dict()
    inputs = {"1.weight": 27, "2.weight": 9, "5.weight": 18, "7.weight": 64, "10.weight": 64}
    assert {layer.name: fan_in(layer) for layer in network.layers} == inputs
    for layer in network.layers:
        magnitudes = state[layer.name].abs().unique()
        assert magnitudes.tolist() == [pytest.approx(math.sqrt(2 / inputs[layer.name]), rel=1e-6)]
        assert torch.equal(state[layer.name] < 0, before[layer.name] < 0)
    assert torch.equal(state["3.weight"], torch.ones(8))
    assert torch.equal(state["3.bias"], torch.zeros(8))
    for name in ("2.bias", "10.bias", "3.running_mean"):  # biases stay as they were
        assert torch.equal(state[name], before[name])
    assert constant_of(network.layers[0]) == math.sqrt(2 / 27)


@pytest.mark.parametrize("method", ["gem-miner", "edge-popup"])
def test_what_comes_out_are_the_untouched_constants(method: str) -> None:
    network, training = residual(), TrainingRun()
    result = prune(network, PruneRequest(get(method), 0.3, training=TRAINING[method]), dataset=toy(), run=training)
    expected = signed_constants(network, network.layers).state_dict()
    assert equal(training.weights, dict(expected))
    assert result.kept / result.total == pytest.approx(0.3, abs=0.005)


def test_an_ignored_layer_is_left_as_it_is() -> None:
    network, training = residual(), TrainingRun()
    request = PruneRequest(get("gem-miner"), 0.3, training=TRAINING["gem-miner"], ignore=("linear",))
    masks = prune(network, request, dataset=toy(), run=training).masks
    assert "linear.weight" not in masks
    assert torch.equal(training.weights["linear.weight"], network.parameter("linear.weight"))
    assert len(training.weights["conv1.weight"].abs().unique()) == 1


# ---- the gradient


class Indicator(torch.autograd.Function):
    """1[s > 0.5], whose gradient is taken to be 1."""

    @staticmethod
    def forward(ctx: Any, score: torch.Tensor) -> torch.Tensor:
        return (score > 0.5).to(score.dtype)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> torch.Tensor:
        return gradient


def doubled() -> Network:
    network = residual()
    network.model.double()
    return network


def flagged(search: ScoreTraining) -> Masks:
    random = np.random.default_rng(3)
    return {name: random.random(tuple(one.shape)) < 0.7 for name, one in search.constants.items()}


def test_the_gradient_is_that_of_the_straight_through_indicator() -> None:
    search = searching(doubled())
    search.freeze(flagged(search))
    inputs, labels = batch(search.context.network)
    search.model.train()
    total = search.differentiate(inputs, labels)
    twin = signed_constants(search.context.network, search.context.layers)
    twin.train()
    scores = {name: one.detach().clone().requires_grad_(True) for name, one in search.scores.items()}
    effective = {name: search.constants[name] * search.flags[name] * Indicator.apply(s) for name, s in scores.items()}
    logits = torch.func.functional_call(twin, effective, (inputs.double(),))
    loss = nn.functional.cross_entropy(logits, labels) + 0.01 * sum((s * s).sum() for s in scores.values())
    loss.backward()
    assert float(total) == pytest.approx(loss.item(), rel=1e-12)
    for name, score in scores.items():
        assert torch.allclose(search.scores[name].grad, score.grad, rtol=1e-9, atol=1e-14), name


def test_the_gradient_is_f_w_dloss_by_dweight_also_below_half() -> None:
    """dL/dw_eff by central differences in float64."""
    search = searching(doubled(), penalty=0.0)
    search.freeze(flagged(search))
    inputs, labels = batch(search.context.network)
    search.model.eval()
    for module in search.model.modules():  # away from 0, where ReLU has no derivative, and units without weights are
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.bias)
    search.differentiate(inputs, labels)

    def loss() -> float:
        with torch.no_grad():
            return float(nn.functional.cross_entropy(search.model(inputs.double()), labels))

    random = np.random.default_rng(0)
    below = above = 0
    for name, weight in search.weights.items():
        for place in random.choice(weight.numel(), 6, replace=False):
            flat = weight.data.view(-1)
            value, h = float(flat[place]), 1e-6
            flat[place] = value + h
            more = loss()
            flat[place] = value - h
            less = loss()
            flat[place] = value
            f, w = (float(one[name].view(-1)[place]) for one in (search.flags, search.constants))
            gradient = float(search.scores[name].grad.view(-1)[place])
            assert gradient == pytest.approx(f * w * (more - less) / (2 * h), rel=1e-4, abs=1e-8)
            if f and gradient:
                over = bool(search.scores[name].detach().view(-1)[place] > 0.5)
                above, below = above + over, below + (not over)
    assert below > 5
    assert above > 5


def test_what_a_flag_removed_gets_no_gradient_and_the_penalty_is_of_every_score() -> None:
    for penalty in (0.0, 0.25):
        search = searching(residual(), penalty=penalty)
        masks = flagged(search)
        search.freeze(masks)
        search.model.train()
        search.differentiate(*batch(search.context.network))
        for name, mask in masks.items():
            score = search.scores[name]
            removed = torch.from_numpy(~mask)
            assert torch.allclose(score.grad[removed], 2 * penalty * score.detach()[removed])


def test_scores_are_in_0_to_1_and_weights_w_or_0_at_every_forward_pass() -> None:
    search = searching(residual(), lr=3.0)
    passes, outside = 0, 0

    def look(*_: Any) -> None:
        nonlocal passes
        passes += 1
        for name, score in search.ranked().items():
            assert torch.equal(score, search.scores[name].detach())
            assert 0 <= float(score.min()) <= float(score.max()) <= 1
            taken = search.flags[name].bool() & (score > 0.5)
            assert torch.equal(search.weights[name], search.constants[name] * taken)

    search.model.register_forward_pre_hook(look)
    for epochs in (1, 2, 3):
        search.train(epochs * search.steps_in_epoch)
        outside += sum(int(((one < 0) | (one > 1)).sum()) for one in search.scores.values())
        search.freeze(keep_largest({name: one.numpy() for name, one in search.ranked().items()}, 400, search.masks))
    assert passes == search.step == 3 * search.steps_in_epoch > 10
    assert outside > 0  # so that clipping had something to do


def test_scores_are_drawn_uniformly_and_by_the_seed() -> None:
    drawn = torch.cat([one.detach().view(-1) for one in searching(residual()).scores.values()])
    assert len(drawn) > 1000
    assert 0 <= float(drawn.min()) < 0.01
    assert 0.99 < float(drawn.max()) < 1
    assert float(drawn.mean()) == pytest.approx(0.5, abs=0.03)
    assert torch.equal(drawn, torch.cat([one.detach().view(-1) for one in searching(residual()).scores.values()]))


def test_freezes_come_at_the_ends_of_epochs_p_2p_3p(monkeypatch: pytest.MonkeyPatch) -> None:
    """Counted from 0, as published: so the first comes after P + 1 epochs."""
    frozen: list[int] = []
    seen: list[Masks] = []

    def freeze(self: ScoreTraining, masks: Masks) -> None:
        assert self.step % self.steps_in_epoch == 0
        frozen.append(self.step // self.steps_in_epoch)
        seen.append(masks)
        inner(self, masks)

    inner = ScoreTraining.freeze
    monkeypatch.setattr(ScoreTraining, "freeze", freeze)
    network = residual()
    options = TrainingOptions(epochs=8, freeze_every=2, batch_size=40)
    result = prune(network, PruneRequest(get("gem-miner"), 0.1, training=options), dataset=toy())
    assert frozen == [3, 5]  # and a third after 7 epochs, which is the result's
    assert result.rounds == 3
    counts = [sum(int(mask.sum()) for mask in masks.values()) for masks in [*seen, result.masks]]
    assert counts == [half_up(round(0.1 ** (k / 3), 12), network.total) for k in (1, 2, 3)]
    for before, after in pairwise([*seen, result.masks]):
        assert not any((after[name] & ~before[name]).any() for name in after)


# ---- edge-popup


def test_edge_popup_keeps_so_many_of_each_layer_at_every_step() -> None:
    network = residual()
    whole = context(network, "edge-popup")
    searches: list[ScoreTraining] = []
    inner = ScoreTraining._take_part
    steps = 0

    def look(self: ScoreTraining) -> None:
        nonlocal steps
        inner(self)
        searches.append(self)
        for name, weight in self.weights.items():
            count = whole.counts[name]  # type: ignore[index]
            assert int((weight != 0).sum()) == count
            kept = self.scores[name].detach().abs().view(-1)[(weight != 0).view(-1)]
            assert float(kept.min()) >= float(self.scores[name].detach().abs().view(-1).topk(count).values.min())
        steps += 1

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ScoreTraining, "_take_part", look)
        scores = edge_popup.make_scorer(whole)(None).values
    assert steps == 4 * searches[0].steps_in_epoch
    for name, one in searches[0].scores.items():
        assert torch.equal(scores[name], one.detach().abs())


def test_edge_popup_draws_as_layers_are_initialised() -> None:
    network = residual()
    for layer in network.layers:
        drawn = edge_popup._kaiming_uniform(np.random.default_rng(0), layer)
        weight = torch.empty(layer.shape)
        nn.init.kaiming_uniform_(weight, a=math.sqrt(5))
        assert abs(drawn).max() <= 1 / math.sqrt(fan_in(layer))
        assert drawn.std() == pytest.approx(float(weight.std()), rel=0.2)


# ---- iterative magnitude pruning


IMP = TrainingOptions(epochs=3, rewind=1, batch_size=16, lr=0.05)


def test_the_first_round_is_magnitude_after_training() -> None:
    network, training = residual(), TrainingRun()
    recipe = Recipe(epochs=3, batch_size=16, lr=0.05)
    masks, _ = choose_masks(network, PruneRequest(get("imp"), 0.2, rounds=1, training=IMP), dataset=toy(), run=training)
    data = data_for(recipe, network, test=False)
    trained = fit(network, {}, recipe, data)
    scores = {layer.name: trained.last[layer.name].abs().numpy() for layer in network.layers}
    expected = keep_largest(scores, half_up(0.2, network.total))
    assert all(np.array_equal(masks[name], expected[name]) for name in expected)
    early = fit(network, {}, recipe, data, until=data.train.batches_in_epoch(16))
    assert equal(training.weights, early.last)


def test_later_rounds_go_back_and_never_bring_a_weight_back() -> None:
    network, training = residual(), TrainingRun()
    states: list[TrainingState] = []
    training.keep, training.keep_every = states.append, 0.0
    masks, rounds = choose_masks(
        network, PruneRequest(get("imp"), 0.1, rounds=3, training=IMP), dataset=toy(), run=training
    )
    assert rounds == 3
    point = len(data_for(Recipe(batch_size=16), network).train) // 16
    firsts = [next(s for s in states if s.facts["rounds_done"] == k and s.facts["step"] > point) for k in (1, 2)]
    kept = [{name: one.numpy() for name, one in first.part("flags").items()} for first in firsts]
    assert [first.facts["step"] for first in firsts] == [point + 1] * 2
    for k, (before, after) in enumerate(pairwise([*kept, masks]), start=1):
        assert sum(int(one.sum()) for one in before.values()) == half_up(round(0.1 ** (k / 3), 12), network.total)
        assert not any((after[name] & ~before[name]).any() for name in after)
    assert sum(int(one.sum()) for one in masks.values()) == half_up(0.1, network.total)
    for first, flags in zip(firsts, kept, strict=True):
        assert equal(first.part("rewound"), training.weights)
        for name, mask in flags.items():  # one step away from the rewound weights, and 0 where pruned
            moved = first.part("model")[name]
            assert not moved[torch.from_numpy(~mask)].any()
            assert float((moved - training.weights[name])[torch.from_numpy(mask)].abs().max()) < 0.5


def test_rewinding_past_the_end_is_refused() -> None:
    with pytest.raises(RecipeError) as caught:
        run(residual(), "imp", 0.2, training=TrainingOptions(epochs=2, batch_size=16))
    assert str(caught.value) == ("rewind=2.5: is not before the end of 2 epochs; give a smaller one, or more epochs=")


# ---- where a run stopped


@TRAINED
def test_a_run_goes_on_from_any_state_to_the_same_ticket(method: str, tmp_path: Path) -> None:
    network, states = residual(), []
    training = replace(TRAINING[method], batch_size=24)
    request = PruneRequest(get(method), 0.2, training=training, rounds=3 if method == "imp" else None)
    first = TrainingRun(keep=states.append, keep_every=-1.0)
    whole = prune(network, request, dataset=toy(), run=first)
    assert len(states) >= 4
    if method != "edge-popup":
        assert {state.facts["rounds_done"] for state in states} == set(range(whole.rounds))
    for state in (states[0], states[len(states) // 2], states[-1]):
        kept = through_a_file(state, tmp_path)
        flags = {name: one.numpy() for name, one in kept.part("flags").items()}
        again = TrainingRun(state=kept, done=kept.facts["rounds_done"], masks=flags or None)
        result = prune(network, request, dataset=toy(), run=again)
        assert same(whole, result)
        assert equal(first.weights, again.weights)
        assert again.story == first.story


@TRAINED
def test_a_state_of_another_network(method: str) -> None:
    states: list[TrainingState] = []
    short = replace(TRAINING[method], epochs=2, rewind=1 if method == "imp" else None)
    request = PruneRequest(get(method), 0.2, training=short, rounds=1 if method == "imp" else None)
    prune(residual(), request, dataset=toy(), run=TrainingRun(keep=states.append, keep_every=-1.0))
    state = states[0]
    state.tensors = {name: one[:-1] if one.dim() == 4 else one for name, one in state.tensors.items()}
    intact = beside(PRUNE, Path("m"), {}).intact
    said = r"^m\.state\.safetensors: damaged, or no state of a training \(.+\); force=True starts the training again"
    with pytest.raises(ResumeError, match=said):
        prune(residual(), request, dataset=toy(), run=TrainingRun(state=state, intact=intact))


@TRAINED
def test_progress_goes_up_to_all_of_it(method: str) -> None:
    told: list[tuple[int, int, str]] = []
    request = PruneRequest(get(method), 0.2, training=TRAINING[method], rounds=3 if method == "imp" else None)
    prune(residual(), request, lambda done, total, what="": told.append((done, total, what)), dataset=toy())
    assert all(a[0] <= b[0] for a, b in pairwise(told))
    assert all(a[0] < b[0] for a, b in pairwise(one for one in told if not isinstance(one[2], Milestone)))
    assert {total for _, total, _ in told} == {told[-1][0]}


# ---- refusals


REFUSED = {
    "epochs": ("magnitude", {"epochs": 3}, "epochs=3: magnitude does not train; leave epochs= out (methods that take "
               "it: gem-miner, edge-popup, imp)"),
    "penalty": ("edge-popup", {"penalty": 0.1}, "penalty=0.1: edge-popup has no use for it; leave penalty= out "
                "(methods that take it: gem-miner)"),
    "rewind": ("gem-miner", {"rewind": 1.0}, "rewind=1.0: gem-miner has no use for it; leave rewind= out (methods that "
               "take it: imp)"),
    "batch": ("gem-miner", {"epochs": 6, "batch_size": 1000},
              "batch_size=1000: toy has 80 examples to train with; give a smaller one"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_options_of_other_methods(name: str) -> None:
    method, options, said = REFUSED[name]
    with pytest.raises((MethodOptionError, RecipeError)) as caught:
        prune(residual(), PruneRequest(get(method), 0.3, training=TrainingOptions(**options)), dataset=toy())
    assert str(caught.value) == said


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"epochs": 0}, "epochs=0: must be 1 or more"),
        ({"freeze_every": -1}, "freeze_every=-1: must be 1 or more"),
        ({"batch_size": 0}, "batch_size=0: must be 1 or more"),
        ({"penalty": -1.0}, "penalty=-1: must be 0 or more, and finite"),
        ({"penalty": math.nan}, "penalty=nan: must be 0 or more, and finite"),
        ({"rewind": -0.5}, "rewind=-0.5: must be 0 or more, and finite"),
        ({"lr": 0.0}, "lr=0: must be above 0, and finite"),
    ],
)
def test_numbers_out_of_range(options: dict[str, Any], said: str) -> None:
    with pytest.raises(MethodOptionError) as caught:
        TrainingOptions(**options)
    assert str(caught.value) == said


@TRAINED
def test_data_of_other_classes(method: str) -> None:
    with pytest.raises(DataError, match="has 4 outputs, but toy has 7 classes"):
        prune(residual(), PruneRequest(get(method), 0.3, training=TRAINING[method]), dataset=Toy(7, (3, 6, 6)))


def test_a_loss_that_is_not_finite() -> None:
    network = build("mlp")
    dataset = toy_for(network)
    dataset._inputs = dataset._inputs * np.float32(1e37)
    with pytest.raises(
        TrainingError, match=r"^gem-miner: the loss is no longer finite at step \d+ of \d+; give a smaller lr="
    ):
        prune(network, PruneRequest(get("gem-miner"), 0.3, training=TRAINING["gem-miner"]), dataset=dataset)


# ---- the commands


NETWORK = "mlp-64-16-10"
SEARCH = ("--data", "digits", "--density", 0.1)
QUICKLY = {
    "gem-miner": ("--epochs", 3, "--freeze-every", 1),
    "edge-popup": ("--epochs", 1),
    "imp": ("--epochs", 1, "--rewind", 0.5, "--rounds", 2),
}


@pytest.fixture(scope="module")
def net(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("searching") / "net.safetensors"
    assert run_pai("init", NETWORK, "-o", path).status == 0
    return path.read_bytes()


@pytest.fixture
def place(net: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "net.safetensors").write_bytes(net)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@TRAINED
def test_a_ticket_from_the_command_line(pai: Pai, place: Path, method: str) -> None:
    words = ("prune", "net.safetensors", "--method", method, *SEARCH, *QUICKLY[method], "-o", "m.safetensors")
    done = pai(*words, "-w", "w.safetensors", "--format", "json")
    assert done.status == 0, done.err
    assert done.json()[-1]["kept"] == half_up(0.1, 64 * 16 + 16 * 10)
    assert done.said[-2].startswith("pai: wrote w.safetensors: MLP")
    assert done.said[-2].endswith(f", the weights that {method} masks")
    told = MaskFile(Path("m.safetensors")).metadata
    assert (told["method"], told["data"], told["examples"], told["density"]) == (method, "digits", "1442", "0.1")
    assert (told["optimizer"], told["lr"], told["batch_size"]) == ("sgd", "0.1", "128")
    assert "per_class" not in told
    assert not list(place.glob("*.state.safetensors"))
    assert pai("train", "w.safetensors", "--mask", "m.safetensors", "--data", "digits", "--epochs", 1).status == 0
    old, new = load_file("net.safetensors"), load_file("w.safetensors")
    assert old.keys() == new.keys()
    if method != "imp":
        masks = load_file("m.safetensors")
        for name in masks:
            assert len(np.unique(np.abs(new[name]))) == 1
            assert np.array_equal(new[name] < 0, old[name] < 0)
    with safe_open("w.safetensors", "np") as file:
        assert file.metadata()["method"] == method


def test_without_w_it_says_what_is_missing_and_reinit_redraws_signs(pai: Pai, place: Path) -> None:
    words = ("prune", "net.safetensors", "--method", "gem-miner", *SEARCH, *QUICKLY["gem-miner"])
    done = pai(*words, "-o", "m.safetensors")
    assert done.status == 0
    assert (
        "pai: the mask belongs to other weights than those of net.safetensors; -w OUT would have written them"
        in done.said
    )
    assert pai(*words, "-o", "n.safetensors", "-w", "w.safetensors", "--reinit", "--shuffle").status == 0
    new, old = load_file("w.safetensors"), load_file("net.safetensors")
    name = next(iter(load_file("n.safetensors")))
    assert len(np.unique(np.abs(new[name]))) == 1
    assert (new[name] < 0).sum() == (old[name] < 0).sum()
    assert not np.array_equal(new[name] < 0, old[name] < 0)
    assert load_file("m.safetensors")[name].sum() == load_file("n.safetensors")[name].sum()


COMMANDS = {
    "sample": (("sample", "net.safetensors", "--method", "gem-miner", "--population", 3, *SEARCH), 2,
               "--method gem-miner: trains, and would for every candidate; take its one mask from pai prune"),
    "resume of magnitude": (("prune", "net.safetensors", "--method", "magnitude", "--density", 0.1, "--resume"), 2,
                            "--resume: magnitude does not train; leave it out (methods that take it: gem-miner, "
                            "edge-popup, imp)"),
    "nothing to resume": (("prune", "net.safetensors", "--method", "imp", *SEARCH, "-o", "m.safetensors", "--resume"), 1,
                          "m.state.safetensors: no training to continue here; leave --resume out to begin one"),
    "rounds": (("prune", "net.safetensors", "--method", "gem-miner", *SEARCH, "--rounds", 5), 2,
               "--rounds 5: gem-miner freezes by --epochs and --freeze-every; leave --rounds out (methods that take it: "
               f"{IN_ROUNDS})"),
    "scope": (("prune", "net.safetensors", "--method", "edge-popup", *SEARCH, "--scope", "global"), 2,
              "--scope global: edge-popup fixes the density of each layer; leave --scope out"),
    "per class": (("prune", "net.safetensors", "--method", "imp", *SEARCH, "--per-class", 3), 2,
                  "--per-class 3: imp trains on all of the data; leave --per-class out"),
    "to a pipe": (("prune", "net.safetensors", "--method", "imp", *SEARCH, "-o", "/dev/stdout"), 1,
                  "/dev/stdout: is a device or a pipe, and a training needs a file beside what it writes; name a file"),
}  # fmt: skip


WHOLE = ("--method", "gem-miner", *SEARCH, *QUICKLY["gem-miner"], "-o", "m.safetensors")


@pytest.mark.parametrize("more", [(), ("--force",)], ids=["", "force"])
def test_the_state_takes_the_place_of_no_other_file(pai: Pai, place: Path, net: bytes, more: tuple[str, ...]) -> None:
    done = pai("prune", "net.safetensors", *WHOLE, "-w", "m.state.safetensors", *more)
    assert (done.status, done.said[-1]) == (
        1,
        "pai: error: m.state.safetensors: the weights and the training's state need different names; change -o or -w",
    )
    (place / "m.state.safetensors").write_bytes(net)
    done = pai("prune", "m.state.safetensors", *WHOLE, *more)
    assert (done.status, done.said[-1]) == (
        1,
        "pai: error: m.state.safetensors: is a file of the checkpoint, and the training's state goes there; change -o",
    )
    assert (place / "m.state.safetensors").read_bytes() == net
    (place / "m.state.safetensors").unlink()
    (place / "m.state.safetensors").mkdir()
    done = pai("prune", "net.safetensors", *WHOLE, *more)
    assert (done.status, done.said[-1]) == (
        1, "pai: error: m.state.safetensors: is a directory; give a file name"
    )  # fmt: skip
    assert not (place / "m.safetensors").exists()


def test_resume_is_no_leave_to_replace_other_weights(pai: Pai, place: Path, net: bytes) -> None:
    (place / "w.safetensors").write_bytes(net)
    done = pai("prune", "net.safetensors", *WHOLE, "-w", "w.safetensors", "--resume")
    assert (done.status, done.said[-1]) == (1, "pai: error: w.safetensors: exists already; --force replaces it")
    assert (place / "w.safetensors").read_bytes() == net


def test_no_mask_is_left_without_its_weights(pai: Pai, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OutputError("w.safetensors: cannot be written: No space left on device")

    monkeypatch.setattr("pai_cli.models.network.save_checkpoint", full)
    assert pai("prune", "net.safetensors", *WHOLE, "-w", "w.safetensors").status == 1
    assert [path.name for path in place.iterdir()] == ["net.safetensors"]


def test_shared_weights_stay_shared_when_they_are_redrawn() -> None:
    network, training = build("tied"), TrainingRun()
    request = PruneRequest(get("gem-miner"), 0.3, training=TRAINING["gem-miner"])
    prune(network, request, dataset=toy_for(network), run=training)
    changed = with_weights(network, training.weights)
    assert equal(dict(changed.model.state_dict()), training.weights)
    count = len(list(network.model.parameters()))
    assert len(list(changed.model.parameters())) == count < len(training.weights)
    assert len(list(redrawn(changed, 0).model.parameters())) == count


@pytest.mark.parametrize("name", COMMANDS)
def test_what_is_refused(pai: Pai, place: Path, name: str) -> None:
    words, status, said = COMMANDS[name]
    done = pai(*words)
    assert (done.status, done.said[-1]) == (status, f"pai: error: {said}")
    assert [path.name for path in place.iterdir()] == ["net.safetensors"]


def test_ctrl_c_and_going_on(pai: Pai, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = ("prune", "net.safetensors", "--method", "gem-miner", *SEARCH, *QUICKLY["gem-miner"], "-o", "m.safetensors")
    inner = ScoreTraining._one_step

    def interrupted(self: ScoreTraining) -> torch.Tensor:
        if self.step == 30:  # after the first freeze
            os.kill(os.getpid(), signal.SIGINT)
        return inner(self)

    with monkeypatch.context() as patch:
        patch.setattr(ScoreTraining, "_one_step", interrupted)
        done = pai(*words, "-w", "w.safetensors")
    assert done.status == 130
    assert done.said[-2:] == [
        "pai: m.state.safetensors: what is done is kept; the same command with --resume goes on",
        "pai: interrupted",
    ]
    assert sorted(path.name for path in place.iterdir()) == ["m.state.safetensors", "net.safetensors"]
    state = (place / "m.state.safetensors").read_bytes()
    done = pai(*words)
    assert done.said[-1] == (
        "pai: error: m.state.safetensors: a training was begun here; --resume continues it, --force starts it again"
    )
    done = pai(*words, "--resume", "--penalty", 0.5)
    assert done.said[-1] == (
        "pai: error: m.state.safetensors: that training had penalty not given, this one has 0.5; give the same, or begin "
        "again with --force instead of --resume"
    )
    with monkeypatch.context() as patch:
        patch.setattr("pai_cli.data.fingerprint.digest_of", lambda _: "of other images")
        done = pai(*words, "--resume")
        assert "this one has of other images; give the same, or begin again" in done.said[-1]
    none = "it has no digest"
    for damaged, why in ((state[:-9], "its digest is of other bytes"), (b"x", none), (b"", none)):
        (place / "m.state.safetensors").write_bytes(damaged)
        done = pai(*words, "--resume")
        assert done.status == 1
        told = f"damaged, or no state of a training ({why}); --force starts the training again"
        assert done.said[-1] == f"pai: error: m.state.safetensors: {told}"
    (place / "m.state.safetensors").write_bytes(state)
    assert pai(*words, "--resume", "-w", "w.safetensors").status == 0
    whole = ("n.safetensors", "-w", "v.safetensors")
    assert pai(*words[:-1], *whole).status == 0
    for one, other in (("m.safetensors", "n.safetensors"), ("w.safetensors", "v.safetensors")):
        a, b = load_file(one), load_file(other)
        assert all(np.array_equal(a[name], b[name]) for name in a)
    assert not (place / "m.state.safetensors").exists()
    again = pai(*words, "--resume")
    assert (again.status, again.said[-1]) == (
        1,
        "pai: error: m.safetensors: the training that made it is finished; leave --resume out, and give --force to make it "
        "again",
    )
    longer = pai(*words, "--resume", "--epochs", 99)
    assert longer.said[-1] == (  # the number of freezes follows
        "pai: error: m.safetensors: that training had rounds 2, epochs 3; this one has rounds 98, epochs 99; give the same, "
        "or begin again with --force instead of --resume"
    )
    with monkeypatch.context() as patch:
        patch.setattr(ScoreTraining, "_one_step", interrupted)
        assert pai(*words, "--force").status == 130  # and the mask of the run before is there still
    other = pai(*words, "--resume", "--seed", 1)
    assert "m.state.safetensors: that training had seed 0, this one has 1; give the same" in other.said[-1]
    assert pai(*words, "--resume").status == 0
