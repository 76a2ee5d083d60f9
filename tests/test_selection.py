"""`--select layer`: which layers are taken, and how what is taken is brought to the exact count; layers seen before."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import Done, Pai, run_pai
from safetensors.numpy import load_file

from pai_cli.analysis import engine as analysis
from pai_cli.errors import ScoreError
from pai_cli.files.masks import MaskFile
from pai_cli.methods.registry import get
from pai_cli.models.network import Network, init_network
from pai_cli.pruning.base import Masks
from pai_cli.pruning.run import PruneRequest, score_arrays
from pai_cli.sampling import candidates as making
from pai_cli.sampling import measuring
from pai_cli.sampling.candidates import Candidate, Workshop, candidate
from pai_cli.sampling.measuring import LayerCache, measure
from pai_cli.sampling.search import SearchRequest
from pai_cli.sampling.selection import LayerSelection, is_better
from pai_cli.sampling.state import SearchState

NAMES = ["fc1.weight", "fc2.weight", "fc3.weight"]


def sample(method: str, population: int, *flags: object, density: float = 0.4) -> Done:
    done = run_pai(
        "sample", "small.safetensors", "--method", method, "--density", density, "--select", "layer",
        "--population", population, "-o", "best.safetensors", *flags,
    )  # fmt: skip
    assert done.status == 0, done.err
    return done


def lines() -> list[dict[str, Any]]:
    return [json.loads(line) for line in Path("best.jsonl").read_text().splitlines()[1:]]


@pytest.fixture(scope="module")
def network() -> Network:
    return init_network("mlp-24-16-12-10", 10, 0)


def made(network: Network, method: str, count: int, **more: Any) -> tuple[SearchRequest, list[Candidate]]:
    """The first candidates of a search that takes layers."""
    request = SearchRequest.of(PruneRequest(get(method), **{"density": 0.4, **more}), count, None, "layer")
    workshop = Workshop(network, request)
    found = [candidate(workshop, number) for number in range(count)]
    return request, [one for one in found if isinstance(one, Candidate)]


def taken(selection: LayerSelection, candidates: list[Candidate]) -> list[SearchState]:
    """The states after each candidate."""
    states = [SearchState()]
    for one in candidates:
        states.append(selection.take(states[-1], one, one.masks)[0])
    return states[1:]


def kept(masks: Masks) -> int:
    return sum(int(mask.sum()) for mask in masks.values())


# --- which layers are taken


@pytest.mark.parametrize(
    ("new", "old", "better"),
    [
        ((1.0, 2.0), (1.0, 1.0), True),
        ((1.0, 1.0), (1.0, 1.0), False),
        ((2.0, 0.9), (1.0, 1.0), False),
        ((0.9, 2.0), (1.0, 1.0), False),
        ((None, 2.0), (None, 1.0), True),
        ((None, 2.0), (-5.0, 1.0), False),
        ((-5.0, 1.0), (None, 1.0), True),
        ((-5.0, 0.5), (None, 1.0), False),
        ((None, None), (None, None), False),
        ((1.0, None), (1.0, 0.0), False),
    ],
)
def test_both_are_at_least_the_best_and_one_is_larger(
    new: tuple[float | None, ...], old: tuple[float | None, ...], better: bool
) -> None:
    names = ("dr_imdb", "l2")
    assert is_better(dict(zip(names, new, strict=True)), dict(zip(names, old, strict=True))) is better


@pytest.mark.parametrize(("method", "more"), [("erk", {}), ("magnitude", {"scope": "layer"})])
def test_layers_are_taken_by_the_rule(network: Network, method: str, more: dict[str, Any]) -> None:
    request, found = made(network, method, 12, **more)
    states = taken(LayerSelection(network, request, None, LayerCache()), found)
    best: dict[str, tuple[float, float, int]] = {}
    for one, state in zip(found, states, strict=True):
        for report in one.layers:
            values = [report.measures[name].value for name in ("dr_imdb", "l2")]
            dr, l2 = (-np.inf if value is None else value for value in values)
            if report.name not in best or (
                dr >= best[report.name][0] and l2 >= best[report.name][1] and (dr, l2) != best[report.name][:2]
            ):
                best[report.name] = (dr, l2, one.number)
        assert state.sources == {name: number for name, (_, _, number) in best.items()}
        for name, (_, _, number) in best.items():
            assert np.array_equal(state.composite[name], found[number].masks[name])
    assert any(len(set(state.sources.values())) > 1 for state in states)  # from several candidates


@pytest.mark.parametrize("method", ["magnitude", "random"])
def test_what_is_taken_is_better_than_the_composite_as_it_is(network: Network, method: str) -> None:
    request, found = made(network, method, 15)
    selection = LayerSelection(network, request, None, LayerCache())
    before, changes = SearchState(), 0
    for one in found:
        after, count = selection.take(before, one, one.masks)
        layers = {report.name: report.measures for report in one.layers}
        facts = {name: {key: layers[name][key].value for key in ("dr_imdb", "l2")} for name in NAMES}
        better = [name for name in NAMES if is_better(facts[name], before.layers.get(name))]
        assert count == len(better)
        if better:
            whole = {name: one.masks[name] if name in better else before.composite[name] for name in NAMES}
            changes += kept(whole) != 278
            exact = selection.exact(whole)
            assert all(np.array_equal(after.composite[name], exact[name]) for name in NAMES)
            report = measure(network, exact, LayerCache())
            for layer in report.layers:
                values = {key: layer.measures[key].value for key in ("dr_imdb", "l2")}
                assert after.layers[layer.name] == values
            assert after.best_measures["l2"] == max(report.measures["l2"].value, before.best_measures.get("l2", 0.0))
        else:
            assert after is before
        before = after
    assert changes > 2  # that had to be brought back


def test_layers_of_fixed_counts_only_get_better(network: Network) -> None:
    request, found = made(network, "erk", 12)
    states = taken(LayerSelection(network, request, None, LayerCache()), found)
    for before, after in pairwise(states):
        assert after.best_measures["l2"] >= before.best_measures["l2"]
        for name in NAMES:
            assert after.layers[name]["l2"] >= before.layers[name]["l2"]  # type: ignore[operator]
    # no layer's count ever differs, so nothing has to be brought back
    assert all(np.array_equal(states[-1].masks[name], states[-1].composite[name]) for name in NAMES)


# --- the exact count


@pytest.mark.parametrize("method", ["magnitude", "synflow", "random"])
def test_the_mask_has_the_exact_count_at_every_moment(network: Network, method: str) -> None:
    more: dict[str, Any] = {"rounds": 5} if method == "synflow" else {}
    request, found = made(network, method, 8, **more)
    states = taken(LayerSelection(network, request, None, LayerCache()), found)
    assert {kept(masks) for state in states for masks in (state.masks, state.composite)} == {
        278
    }  # 0.4 of 696 are 278.4
    for state in states:
        direct = measure(network, state.masks, LayerCache())
        assert direct.measures["l2"].value == state.best_measures["l2"]


def test_too_many_go_by_the_smallest_scores_too_few_come_by_the_largest(network: Network) -> None:
    request, found = made(network, "magnitude", 1)
    selection = LayerSelection(network, request, None, LayerCache())
    scores = np.concatenate([s.ravel() for s in score_arrays(network, request.prune).values()])
    rng = np.random.default_rng(0)
    for share in (0.3, 0.4, 0.6):
        composite = {name: rng.random(mask.shape) < share for name, mask in found[0].masks.items()}
        flat = np.concatenate([mask.ravel() for mask in composite.values()])
        exact = np.concatenate([mask.ravel() for mask in selection.exact(composite).values()])
        assert exact.sum() == 278
        gone, come = flat & ~exact, exact & ~flat
        assert not (gone.any() and come.any())
        if gone.any():
            assert scores[gone].max() <= scores[exact].min()
        if come.any():
            assert scores[come].min() >= scores[~exact].max()


def test_a_method_in_rounds_goes_on_with_the_composite(network: Network) -> None:
    """What SynFlow removes is what its next round would: scores under the composite, not of the whole network."""
    request, found = made(network, "synflow", 1, rounds=10)
    selection = LayerSelection(network, request, None, LayerCache())
    composite = {
        name: mask | (np.random.default_rng(1).random(mask.shape) < 0.2) for name, mask in found[0].masks.items()
    }
    exact = selection.exact(composite)
    scores = score_arrays(network, request.prune, composite)
    for_keeping = min(scores[name][exact[name]].min() for name in NAMES)
    assert max(scores[name][composite[name] & ~exact[name]].max(initial=0.0) for name in NAMES) <= for_keeping


def test_a_composite_without_a_path_is_brought_back_by_the_scores_of_the_whole_network(network: Network) -> None:
    request, found = made(network, "synflow", 1, rounds=10)
    selection = LayerSelection(network, request, None, LayerCache())
    composite = {name: np.ones_like(mask) for name, mask in found[0].masks.items()}
    composite["fc2.weight"][:] = False
    with pytest.raises(ScoreError, match="no flow"):
        score_arrays(network, request.prune, composite)
    exact = selection.exact(composite)
    assert (kept(exact), int(exact["fc2.weight"].sum())) == (278, 0)


# --- as a command


def test_the_command_tells_where_layers_come_from(pai: Pai, here: Path) -> None:
    done = sample("magnitude", 12, "--format", "json")
    first, best = done.json()
    found = lines()
    assert best["l2"] == found[-1]["best_l2"] > first["l2"] == found[0]["l2"]
    assert [line["best_l2"] for line in found] == sorted(line["best_l2"] for line in found)
    assert all(line["taken"] == (line["layers_taken"] > 0) for line in found)
    assert (found[0]["layers_taken"], found[0]["taken"]) == (3, True)
    file = MaskFile(here / "best.safetensors")
    assert (file.metadata["select"], file.metadata["candidate"]) == ("layer", str(best["candidate"]))
    sources = json.loads(file.metadata["layer_candidates"])
    assert list(sources) == NAMES
    assert max(sources.values()) <= best["candidate"]
    assert kept({name: file.array(name) for name in file.names}) == 278
    measured = pai("analyze", "best.safetensors", "--weights", "small.safetensors", "--summary", "--format", "json")
    assert measured.json()[0]["l2"] == pytest.approx(best["l2"], rel=1e-12)


def test_a_pattern_holds_in_what_is_composed(here: Path) -> None:
    done = run_pai(
        "sample", "small.safetensors", "--method", "magnitude", "--pattern", "2:4", "--select", "layer",
        "--population", 5, "-o", "best.safetensors",
    )  # fmt: skip
    assert done.status == 0, done.err
    for mask in load_file("best.safetensors").values():
        assert (mask.reshape(-1, 4).sum(axis=1) == 2).all()


# --- a candidate that cannot be scored


def failing(monkeypatch: pytest.MonkeyPatch, *numbers: int) -> None:
    original = making.chosen

    def chosen(workshop: Workshop, number: int) -> tuple[Masks, int]:
        if number in numbers:
            raise ScoreError("synflow: no flow reaches the output with 3 of 696 weights left")
        return original(workshop, number)

    monkeypatch.setattr(making, "chosen", chosen)


def test_a_candidate_that_cannot_be_scored_is_a_line_with_its_reason(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    failing(monkeypatch, 2, 4)
    sample("magnitude", 6)
    found = lines()
    assert [line["candidate"] for line in found if line["l2"] is None] == [2, 4]
    assert found[2]["reason"] == "synflow: no flow reaches the output with 3 of 696 weights left"
    assert (found[2]["taken"], found[2]["kept"]) == (False, None)
    assert found[2]["best_l2"] == found[1]["best_l2"]
    assert found[2]["explored"] == found[1]["explored"]


def test_when_the_method_itself_cannot_be_scored_there_is_no_search(
    pai: Pai, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    failing(monkeypatch, 0)
    done = pai("sample", "small.safetensors", "--method", "magnitude", "--density", 0.4, "--population", 3)
    assert done.status == 1
    assert done.said[-1] == "pai: error: synflow: no flow reaches the output with 3 of 696 weights left"


# --- layers seen before


def test_a_layer_whose_mask_is_the_same_is_not_measured_again(
    network: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    measured: list[str] = []
    original = analysis.measure_together

    def counting(layers: Any, *rest: Any) -> Any:
        measured.extend(layer.name for layer in layers)
        return original(layers, *rest)

    monkeypatch.setattr(analysis, "measure_together", counting)
    rng = np.random.default_rng(0)
    masks = {name: rng.random(network.parameter(name).shape) < 0.5 for name in NAMES}
    cache = LayerCache()
    first = measure(network, masks, cache)
    assert measured == NAMES
    again = measure(network, {name: mask.copy() for name, mask in masks.items()}, cache)
    assert measured == NAMES
    assert again == first
    masks["fc2.weight"] = ~masks["fc2.weight"]
    other = measure(network, masks, cache)
    assert measured == [*NAMES, "fc2.weight"]
    assert [report.name for report in other.layers] == NAMES
    assert other == measure(network, masks, LayerCache())


def test_the_same_mask_of_another_layer_is_another_mask() -> None:
    mask = np.ones((4, 4), dtype=np.bool_)
    assert measuring.key_of("a", mask) != measuring.key_of("b", mask)
    assert measuring.key_of("a", mask) != measuring.key_of("a", ~mask)


def test_the_cache_forgets_what_was_not_used_for_longest(network: Network) -> None:
    report = measure(network, {"fc1.weight": np.ones((16, 24), dtype=np.bool_)}, LayerCache()).layers[0]
    cache = LayerCache(most=2)
    keys = [("a", b"1"), ("a", b"2"), ("a", b"3")]
    cache.put(keys[0], report)
    cache.put(keys[1], report)
    assert cache.get(keys[0]) is report
    cache.put(keys[2], report)
    assert [cache.get(key) is report for key in keys] == [True, False, True]
    assert len(cache) == 2
