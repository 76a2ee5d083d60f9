"""Equal scores where the cut falls: said, drawn by the seed, or refused; nothing changes where there are none."""

from __future__ import annotations

import json
from itertools import combinations
from math import prod
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import Pai
from networks import wrap
from safetensors.torch import save_file
from torch import nn
from trainings import residual

import pai_cli as pai_library
from pai_cli.errors import ParameterError, ScoreError
from pai_cli.files.opening import open_mask
from pai_cli.methods.registry import get
from pai_cli.models.network import PrunableLayer
from pai_cli.pruning import ties as ties_module
from pai_cli.pruning.base import Masks, Pattern
from pai_cli.pruning.pattern import keep_in_groups
from pai_cli.pruning.run import PruneRequest, prune
from pai_cli.pruning.select import keep_largest, keep_largest_by_layer
from pai_cli.pruning.streaming import choosing
from pai_cli.pruning.ties import Tie, TieRule, Ties, noteworthy
from pai_cli.sampling.measuring import LayerCache
from pai_cli.sampling.request import SearchRequest
from pai_cli.sampling.selection import LayerSelection
from pai_cli.spectral.layout import Layout

SCORES = {"a": np.array([3.0, 1.0, 1.0, 0.0]), "b": np.array([1.0, 2.0, 1.0])}


def test_what_is_settled_is_noted() -> None:
    ties = Ties()
    masks = keep_largest(SCORES, 4, ties=ties)
    assert masks["a"].tolist() == [True, True, True, False]
    assert masks["b"].tolist() == [False, True, False]
    assert ties.found == {"a": Tie(2, 2), "b": Tie(2, 0)}


@pytest.mark.parametrize("count", [0, 1, 2, 6, 7])
def test_no_tie_where_all_or_none_of_them_are_kept(count: int) -> None:
    for rule in ("first", "random", "error"):
        ties = Ties(rule)
        masks = keep_largest(SCORES, count, ties=ties)
        assert ties.found == {}
        assert all(np.array_equal(masks[name], mask) for name, mask in keep_largest(SCORES, count).items())


def test_what_is_pruned_already_is_in_no_tie() -> None:
    ties, active = Ties(), {"a": np.array([True, True, False, True]), "b": np.array([False, True, False])}
    keep_largest(SCORES, 3, active, ties)
    assert ties.found == {}
    keep_largest_by_layer({"a": np.ones(4)}, {"a": 2}, {"a": active["a"]}, ties)
    assert ties.found == {"a": Tie(3, 2)}


def test_every_choice_is_as_likely_as_another() -> None:
    """3 of 5 tied weights of two layers: ten choices."""
    scores = {"a": np.zeros(2), "b": np.zeros(3)}
    seen: dict[tuple[int, ...], int] = {}
    for seed in range(2000):
        masks = keep_largest(scores, 3, ties=Ties("random", seed))
        kept = np.flatnonzero(np.concatenate([masks["a"], masks["b"]]))
        seen[tuple(kept.tolist())] = seen.get(tuple(kept.tolist()), 0) + 1
    assert set(seen) == set(combinations(range(5), 3))
    assert all(abs(times - 200) < 5 * 200**0.5 for times in seen.values())


def test_more_ties_than_are_drawn_from() -> None:
    with pytest.raises(ScoreError) as said:
        Ties("random").cut(10**9, 5)
    assert "1,000,000,000 weights have the score at which the cut falls, of which more than 999,999,999" in str(
        said.value
    )
    assert Ties("random").cut(10**9, 10**9).of_layer("w", 10**9).keep == 10**9
    assert Ties("first").cut(10**9, 5).of_layer("w", 10**9).keep == 5


def test_a_layer_of_several_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every choice of 3 of 6 is as likely as another, also where two weights at a time are drawn."""
    monkeypatch.setattr(ties_module, "TOGETHER", 2)
    seen: dict[tuple[int, ...], int] = {}
    for seed in range(2000):
        mask = keep_largest({"w": np.zeros(6)}, 3, ties=Ties("random", seed))["w"]
        kept = tuple(np.flatnonzero(mask).tolist())
        seen[kept] = seen.get(kept, 0) + 1
    assert set(seen) == set(combinations(range(6), 3))
    assert all(abs(times - 100) < 5 * 100**0.5 for times in seen.values())


def test_refused_by_name() -> None:
    with pytest.raises(ScoreError, match=r"2 weights of a have the score at which the cut falls") as said:
        keep_largest(SCORES, 4, ties=Ties("error"))
    assert "ties='random'" in str(said.value) or "ties=random" in str(said.value)


@pytest.mark.parametrize("rule", ["first", "random"])
def test_groups(rule: str) -> None:
    layer = PrunableLayer("w", (2, 4), Layout())
    scores = np.array([[1.0, 1.0, 1.0, 0.0], [4.0, 3.0, 2.0, 1.0]])
    ties = Ties(rule, 3)  # type: ignore[arg-type]
    mask = keep_in_groups(scores, Pattern(2, 4), layer, ties=ties)
    assert mask.sum(axis=1).tolist() == [2, 2]
    assert not mask[0, 3]
    assert mask[1].tolist() == [True, True, False, False]
    assert ties.found == {"w": Tie(3, 2)}
    with pytest.raises(ScoreError, match="3 weights of w"):
        keep_in_groups(scores, Pattern(2, 4), layer, ties=Ties("error"))
    active = np.array([[True, True, False, True], [True] * 4])
    assert keep_in_groups(scores, Pattern(2, 4), layer, active, Ties("error")).tolist() == (
        [[True, True, False, False], [True, True, False, False]]
    )


def test_few_in_many_are_not_told() -> None:
    assert noteworthy({"a": Tie(2, 1)}, 1000) == {}
    assert noteworthy({"a": Tie(2, 1)}, 999) == {"a": Tie(2, 1)}
    assert noteworthy({"a": Tie(600, 0), "b": Tie(600, 600)}, 1000)  # between layers, too


def zero_head() -> nn.Module:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 12), nn.ReLU(), nn.Linear(12, 4))
    nn.init.zeros_(model[2].weight)
    return model


def test_a_head_of_zeros(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO", logger="pai"):
        mask = pai_library.prune(zero_head(), "magnitude", density=0.25, scope="layer")
    assert mask.summary.ties == {"2.weight": Tie(48, 12)}
    assert json.loads(mask.metadata["tied"]) == {"2.weight": [48, 12]}
    assert caplog.messages[-1].startswith(
        "48 weights have the very score at which the cut falls, in 2.weight (100% of it)"
    )
    assert mask["2.weight"][0].all()
    drawn = pai_library.prune(zero_head(), "magnitude", density=0.25, scope="layer", ties="random", seed=1)
    again = pai_library.prune(zero_head(), "magnitude", density=0.25, scope="layer", ties="random", seed=1)
    assert drawn == again
    assert drawn.metadata["ties"] == "random"
    assert np.array_equal(drawn["0.weight"], mask["0.weight"])
    assert drawn["2.weight"].sum() == 12
    assert not np.array_equal(drawn["2.weight"], mask["2.weight"])
    with pytest.raises(ScoreError, match=r"48 weights of 2\.weight"):
        pai_library.prune(zero_head(), "magnitude", density=0.25, scope="layer", ties="error")
    with pytest.raises(ParameterError, match="ties"):
        pai_library.prune(zero_head(), "magnitude", density=0.25, ties="last")


def test_gains_that_begin_at_zero() -> None:
    """`zero_init_residual`: no flow passes a block but by its shortcut, so nothing tells its weights apart."""
    network = residual()
    blocks = [name for name in (one.name for one in network.layers) if ".conv" in name]
    with torch.no_grad():
        for name, gain in network.model.named_parameters():
            if name.endswith("bn2.weight"):
                gain.zero_()
    summary = prune(network, PruneRequest(get("synflow"), 0.5, rounds=1))
    sizes = {one.name: prod(one.shape) for one in network.layers}
    assert summary.ties.keys() == set(blocks)
    assert {name: tie.tied for name, tie in summary.ties.items()} == {name: sizes[name] for name in blocks}
    beside = sum(size for name, size in sizes.items() if name not in blocks)
    assert sum(tie.kept for tie in summary.ties.values()) == summary.kept - beside
    first = np.concatenate([summary.masks[name].reshape(-1) for name in blocks])
    assert first[: summary.kept - beside].all()
    assert not first[summary.kept - beside :].any()
    drawn = prune(network, PruneRequest(get("synflow"), 0.5, rounds=1, ties="random", seed=4))
    assert drawn.kept == summary.kept
    assert not np.array_equal(drawn.masks[blocks[0]], summary.masks[blocks[0]])
    assert all(np.array_equal(drawn.masks[name], summary.masks[name]) for name in sizes if name not in blocks)
    with pytest.raises(ScoreError, match=r"weights of layer1\.0\.conv1\.weight have the score"):
        prune(network, PruneRequest(get("synflow"), 0.5, rounds=1, ties="error"))


@pytest.mark.parametrize("value", [0.0, 0.1])
def test_a_score_that_tells_nothing_is_warned_of(value: float) -> None:
    model = zero_head()
    for layer in (model[0], model[2]):
        nn.init.constant_(layer.weight, value)
    with pytest.warns(pai_library.PaiWarning, match=r"^no score decides what is kept: 144 weights have the very score"):
        mask = pai_library.prune(model, "magnitude", density=0.75)
    assert mask.summary.ties == {"0.weight": Tie(96, 96), "2.weight": Tie(48, 12)}
    assert np.concatenate([mask["0.weight"].reshape(-1), mask["2.weight"].reshape(-1)])[:108].all()


@pytest.mark.parametrize("select", ["mask", "layer"])
def test_a_search_says_what_ties_its_mask_has(select: str, caplog: pytest.LogCaptureFixture) -> None:
    """Noise in proportion to a layer's own leaves a layer of zeros as it is, in every candidate."""
    with caplog.at_level("INFO", logger="pai"):
        mask = pai_library.sample(
            zero_head(), "magnitude", density=0.25, scope="layer", population=2, select=select, ties="random"
        )
    assert mask.summary.ties == {"2.weight": Tie(48, 12)}
    assert json.loads(mask.metadata["tied"]) == {"2.weight": [48, 12]}
    told = "in 2.weight (100% of it): the 12 of them that are kept are drawn"
    assert any(message.endswith(told) for message in caplog.messages)
    with pytest.raises(ScoreError, match=r"48 weights of 2\.weight"):
        pai_library.sample(zero_head(), "magnitude", density=0.25, scope="layer", population=2, ties="error")


def test_a_search_that_goes_on_has_them_too(pai: Pai, tmp_path: Path) -> None:
    torch.save(zero_head().state_dict(), tmp_path / "net.pt")
    words = ("sample", tmp_path / "net.pt", "--method", "magnitude", "--density", 0.25, "--scope", "layer")
    there = ("-o", tmp_path / "m.safetensors", "--population", 2)
    first = pai(*words, *there)
    assert first.status == 0, first
    again = pai(*words, *there, "--resume")
    assert again.status == 0, again
    for done in (first, again):
        assert "pai: 48 weights have the very score at which the cut falls, in 2.weight (100% of it)" in done.err
    assert json.loads(open_mask(tmp_path / "m.safetensors").metadata["tied"]) == {"2.weight": [48, 12]}


def test_a_composite_is_brought_to_its_count_by_the_rule() -> None:
    """Two layers of equal scores, both taken whole: one weight too many of each three goes, by draw or refusal."""
    network = wrap(zero_head(), (8,))
    for one in network.layers:
        nn.init.zeros_(network.parameter(one.name))
    whole = {one.name: np.ones(one.shape, np.bool_) for one in network.layers}

    def exact(rule: TieRule) -> tuple[Masks, dict[str, Tie]]:
        request = SearchRequest.of(PruneRequest(get("magnitude"), 0.5, ties=rule), 2, None, "layer")
        ties: dict[str, Tie] = {}
        return LayerSelection(network, request, None, LayerCache()).exact(whole, ties), ties

    (first, ties), (drawn, _) = exact("first"), exact("random")
    assert ties == {"0.weight": Tie(96, 72), "2.weight": Tie(48, 0)}
    assert first["0.weight"].sum() == 72
    assert drawn["2.weight"].any()
    with pytest.raises(ScoreError, match=r"96 weights of 0\.weight"):
        exact("error")


def test_large_checkpoints_are_refused_without_being_loaded(
    pai: Pai, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(choosing, "LARGE", 1)
    monkeypatch.setattr("pai_cli.models.network.load_network", None)
    save_file(zero_head().state_dict(), tmp_path / "net.safetensors")
    words = ("prune", tmp_path / "net.safetensors", "--method", "magnitude", "--density", 0.25, "--scope", "layer")
    done = pai(*words, "--ties", "error", "-o", tmp_path / "m.safetensors")
    assert (done.status, done.said[-1]) == (
        1,
        "pai: error: --ties error: 48 weights of 2.weight have the score at which the cut falls, and not all of them can be "
        "kept; --ties random draws some, --ties first takes the first",
    )


def test_no_word_where_scores_differ(pai: Pai, small: Path, tmp_path: Path) -> None:
    words = ("prune", small, "--method", "magnitude", "--density", 0.5)
    done = pai(*words, "-o", tmp_path / "a.safetensors", "--ties", "error")
    assert done.status == 0
    assert "cut" not in done.err
    assert "tied" not in open_mask(tmp_path / "a.safetensors").metadata
    assert pai(*words, "--ties", "last").status == 2
