"""Partial taus: of matrices whose answer is known, of normal masks, by laws; and what `pai rank` says beyond controls."""

from __future__ import annotations

import csv
import io
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from conftest import Pai, save_mask
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import kendalltau
from test_study import KNOWN, QUICK, grid, mask, row, scores

from pai_cli.errors import UnknownMetricError
from pai_cli.ranking.bootstrap import Resampling, draw
from pai_cli.ranking.controls import UNSURE, UNTOLD, chosen_controls
from pai_cli.ranking.correlation import ScopeKind
from pai_cli.ranking.expression import score_of
from pai_cli.ranking.partial import Held, partial_correlations, partial_tau, partial_taus, partials
from pai_cli.ranking.scored import ScoredMask
from pai_cli.ranking.statistics import agreement, dense_ranks
from pai_cli.ranking.study import correlate
from pai_cli.spectral.catalogue import Metric
from pai_cli.spectral.result import Measure

THIRD = np.array([[1, 1 / 3, 1 / 2], [1 / 3, 1, 1 / 2], [1 / 2, 1 / 2, 1]])
"""The taus of normal x = z + noise, y = z + noise, and z."""


def test_what_two_share_in_a_third_is_nothing_given_it() -> None:
    assert partial_tau(THIRD) == pytest.approx(0, abs=1e-12)
    assert partial_correlations(THIRD) == pytest.approx(1 / 9)  # Kendall's own, of the taus themselves


@pytest.mark.parametrize("controls", [0, 1, 2, 3])
def test_of_normal_variables_it_is_the_tau_of_their_partial_correlation(controls: int) -> None:
    rng = np.random.default_rng(controls)
    for _ in range(5):
        factors = rng.normal(size=(2 + controls, 6))
        scale = np.sqrt((factors**2).sum(axis=1))
        related = np.clip(factors @ factors.T / np.outer(scale, scale), -1.0, 1.0)
        inverse = np.linalg.inv(related)
        known = -inverse[0, 1] / math.sqrt(inverse[0, 0] * inverse[1, 1])
        assert partial_correlations(related) == pytest.approx(known)
        assert partial_tau(2 / np.pi * np.arcsin(related)) == pytest.approx(2 / np.pi * math.asin(known))


@pytest.mark.parametrize(
    "taus",
    [
        [[1, 0.5, 1], [0.5, 1, 0.5], [1, 0.5, 1]],  # x is the control
        [[1, 0.5, 0.5], [0.5, 1, 1], [0.5, 1, 1]],  # and so is y
        [[1, 0.5, np.nan], [0.5, 1, np.nan], [np.nan, np.nan, 1]],
        [[1, 0.2, 0.1, 0.1], [0.2, 1, 0.3, 0.3], [0.1, 0.3, 1, 1], [0.1, 0.3, 1, 1]],  # one control twice
        [[1, -0.9, 0.9], [-0.9, 1, 0.9], [0.9, 0.9, 1]],  # of no normal variables
    ],
)
def test_where_there_is_none(taus: list[list[float]]) -> None:
    assert math.isnan(partial_tau(np.array(taus)))


def test_what_would_be_beyond_1_is_1_in_a_sample() -> None:
    beyond = np.array([[[1, -0.9, 0.9], [-0.9, 1, 0.9], [0.9, 0.9, 1]], THIRD])
    assert partial_taus(beyond).tolist() == [-1.0, pytest.approx(0, abs=1e-12)]


ROWS = st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=1, max_size=25)


@given(ROWS)
def test_agreement_is_that_of_all_pairs(rows: list[tuple[int, int]]) -> None:
    x, y = np.array(rows).T
    signs = np.sign(x[:, None] - x) * np.sign(y[:, None] - y)
    assert agreement(x, y).tolist() == signs.sum(axis=1).tolist()


# --- masks

FAST = ("--resamples", 400)


def held(x: np.ndarray, y: np.ndarray, zs: list[np.ndarray], groups: int = 1, count: int = 200, seed: int = 0) -> Held:
    strata = tuple(np.array_split(np.arange(len(x)), groups))
    counts = draw(strata, np.arange(len(x)), count, np.random.default_rng(seed))
    return Held(dense_ranks(y), [dense_ranks(z) for z in zs], strata, counts, len(x))


def normal(size: int, seed: int, partial: float = 0.0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """x, y and z, of which x and y share z and have this partial correlation."""
    rng = np.random.default_rng(seed)
    z, e, f = rng.normal(size=(3, size))
    return z + e, z + partial * e + math.sqrt(1 - partial**2) * f, z


def test_the_taus_are_scipys() -> None:
    x, y, z = normal(40, 1)
    y = np.round(y, 1)
    found = next(held(x, y, [z]).taus([dense_ranks(x)], np.ones((40, 1), dtype=np.float32)))[0]
    wanted = [[kendalltau(a, b).statistic for a in (x, y, z)] for b in (x, y, z)]
    np.testing.assert_allclose(found, wanted, atol=1e-12)


def test_pairs_are_of_one_stratum() -> None:
    """Strata that lie apart in everything say nothing together."""
    x, y, z = normal(60, 2)
    apart = 100 * np.repeat(np.arange(3), 20)
    one, other = (
        partials([dense_ranks(a)], held(a, b, [c], groups=3))
        for a, b, c in ((x, y, z), (x + apart, y + apart, z + apart))
    )
    assert one == other


def test_laws() -> None:
    """Rising maps of any variable change nothing, nor does the order of masks; a falling map of one negates."""
    x, y, z = normal(50, 3, 0.4)
    plain = partials([dense_ranks(x)], held(x, y, [z]))[0]
    assert partials([dense_ranks(np.exp(x))], held(x, y**3, [np.arctan(z)]))[0] == plain
    negated = partials([dense_ranks(-x)], held(x, y, [z]))[0]
    assert (negated.value, negated.low) == (pytest.approx(-plain.value), pytest.approx(-plain.high))
    assert partials([dense_ranks(x)], held(x, y, [-z]))[0].value == pytest.approx(plain.value)
    order = np.random.default_rng(0).permutation(50)
    moved = partials([dense_ranks(x[order])], held(x[order], y[order], [z[order]]))[0]
    assert moved.value == pytest.approx(plain.value)
    every = partials([dense_ranks(x), dense_ranks(-x)], held(x, y, [z]))
    assert every == [plain, negated]


def test_intervals_cover_and_p_is_small_as_often_as_it_says() -> None:
    """Of 60 samples of 40: the interval of a partial tau of a third, and p where it is 0 though x and y share z."""
    covered = small = 0
    for seed in range(60):
        x, y, z = normal(40, seed, 0.5)
        found = partials([dense_ranks(x)], held(x, y, [z], seed=seed))[0]
        covered += found.low <= 1 / 3 <= found.high
        x, y, z = normal(40, 1000 + seed)
        small += partials([dense_ranks(x)], held(x, y, [z], seed=seed))[0].p <= 0.05
    assert 53 <= covered <= 60
    assert small <= 6


# --- a study


def with_layers(masks: list[ScoredMask], name: str = "layer_density") -> list[ScoredMask]:
    """With `a` of each mask, and noise, as its layer density."""
    rng = np.random.default_rng(5)
    return [
        replace(one, values={**one.values, name: Measure((one.values["a"].value or 0) + float(rng.normal()) / 2)})
        for one in masks
    ]


def test_a_metric_that_is_the_control_and_noise_adds_nothing() -> None:
    masks = with_layers(grid(per_group=14))
    study = correlate(masks, scores("a", "c"), Resampling(400), controls=("layer_density",))
    one = row(study, "a", ScopeKind.POOLED)
    assert one.tau.p_holm < 0.01
    assert one.partial.low < 0 < one.partial.high
    assert (one.adds, one.controls, one.n_partial, one.partial_reason) == (False, ("layer_density",), 42, None)
    assert one.partial.test == "bootstrap"
    assert one.partial.p_holm == pytest.approx(min(1, 2 * one.partial.p)) or one.partial.p_holm >= one.partial.p
    bare = row(correlate(masks, scores("a", "c"), Resampling(400)), "a", ScopeKind.POOLED)
    assert (bare.partial.value, bare.adds, bare.partial_reason) == (None, None, "no control to hold it against")
    assert (bare.tau, bare.best_share) == (one.tau, one.best_share)


def test_a_metric_that_tells_more_than_the_control_adds() -> None:
    masks = [
        replace(one, values={**one.values, "layer_density": one.values["c"]}) for one in grid(per_group=14)
    ]  # which follows nothing
    one = row(correlate(masks, scores("a"), Resampling(400), controls=("layer_density",)), "a", ScopeKind.POOLED)
    assert one.adds
    assert one.partial.value == pytest.approx(one.tau.value, abs=0.1)


def test_a_control_is_held_against_the_others_alone() -> None:
    masks = with_layers(grid(per_group=10))
    known = KNOWN | {"layer_density": Metric("layer_density", "", "table")}
    found = [score_of(name, known) for name in ("layer_density", "c", "a")]
    study = correlate(masks, found, QUICK, controls=("layer_density", "c"))
    controls = {one.metric: one.controls for one in study.correlations if one.scope.kind is ScopeKind.POOLED}
    assert controls == {"layer_density": ("c",), "c": ("layer_density",), "a": ("layer_density", "c")}
    alone = row(correlate(masks, found[:1], QUICK, controls=("layer_density",)), "layer_density", ScopeKind.POOLED)
    assert (alone.partial.value, alone.partial_reason) == (None, "is the only control")


@pytest.mark.parametrize(
    ("masks", "told"),
    [
        ([mask(str(k), 0.5 + k / 50, a=float(k % 7), z=1.0) for k in range(9)],
         "z: one value in each group, which holds nothing"),
        ([mask(str(k), 0.5 + k / 50, a=float(k % 7), z=None) for k in range(9)], "z: no value where the metric has one"),
        ([mask(str(k), 0.5 + k / 50, a=float(k % 7), z=float(k % 7)) for k in range(9)], UNTOLD),
        ([mask(str(k), 0.5 + k / 50, a=1.0, z=float(k % 7)) for k in range(9)],
         "the metric's values compared are all equal"),
        ([mask(str(k), 0.5 + k / 50, a=float(k % 3), z=float(k % 2)) for k in range(4)],
         "too few masks to say anything: with 4 the smallest possible p of tau is 0.083; it takes 5"),
        ([mask(str(k), 0.5 + k / 50, a=float(k + 2 * (k == 3)), z=float(k - 2 * (k == 5))) for k in range(7)], UNSURE),
    ],
)  # fmt: skip
def test_why_there_is_none(masks: list[ScoredMask], told: str) -> None:
    one = row(correlate(masks, scores("a"), QUICK, controls=("z",)), "a", ScopeKind.OVERALL)
    assert (one.partial.low, one.partial.p, one.adds, one.partial_reason) == (None, None, None, told)


def test_masks_without_the_control_are_left_out_of_it_alone() -> None:
    masks = with_layers(grid(per_group=10))
    few = [replace(one, values={k: v for k, v in one.values.items() if k != "layer_density"}) for one in masks[:6]]
    one = row(correlate(few + masks[6:], scores("a"), QUICK, controls=("layer_density",)), "a", ScopeKind.POOLED)
    assert (one.n, one.n_partial) == (30, 24)
    other = row(correlate(masks[6:], scores("a"), QUICK, controls=("layer_density",)), "a", ScopeKind.POOLED)
    assert one.partial.value == other.partial.value


def test_masks_on_two_datasets_tell_no_more_than_on_one() -> None:
    once = [replace(one, setting="dataset x") for one in with_layers(grid(per_group=12))]
    study = correlate(
        once + [replace(one, setting="dataset y") for one in once],
        scores("c"),
        Resampling(800),
        controls=("layer_density",),
    )
    pooled = [one.partial for one in study.correlations if one.scope.kind is ScopeKind.POOLED]
    assert [one.value for one in pooled] == [pytest.approx(pooled[0].value)] * 3
    assert pooled[2].high - pooled[2].low == pytest.approx(pooled[0].high - pooled[0].low, rel=0.15)
    assert pooled[2].p == pytest.approx(pooled[0].p, abs=0.03)


# --- which controls


def test_controls_are_known_however_a_table_spells_them() -> None:
    names = ["dr", "layer_density_mean", "Effective Share", "effective_density", "density"]
    assert chosen_controls(names, None) == ("layer_density_mean", "Effective Share")
    assert chosen_controls(names, ["none"]) == ()
    assert chosen_controls(names, ["dr", "density", "dr"]) == ("dr", "density")
    with pytest.raises(UnknownMetricError, match="controls=l2: no such metric; there are dr, layer_density_mean"):
        chosen_controls(names, ["l2"])


def table(path: Path, **columns: str) -> Path:
    """24 masks at two densities; `dr` is layer density and noise, `other` is what accuracy follows beside it."""
    rng = np.random.default_rng(4)
    lines = [f"mask,density,{columns.get('name', 'layer_density')},dr,other,accuracy"]
    for k in range(40):
        layers, other = rng.normal(size=2)
        accuracy = 0.6 + (k % 2) / 10 + (layers + other + rng.normal() / 4) / 50
        lines.append(f"m{k},{0.1 + k % 2 / 10},{layers:.4f},{layers + rng.normal():.4f},{other:.4f},{accuracy:.4f}")
    path.write_text("\n".join(lines) + "\n")
    return path


def test_the_command_says_what_adds_nothing(pai: Pai, tmp_path: Path) -> None:
    told = pai("rank", "--table", table(tmp_path / "t.csv"), *FAST).out
    assert "Beyond layer density these go with accuracy: partial tau of other 0." in told
    assert "dr adds nothing that layer density does not tell, as far as these masks say: partial tau " in told
    rows = {
        (one["metric"], one["scope"]): one
        for one in csv.DictReader(io.StringIO(pai("rank", "--table", tmp_path / "t.csv", "--format", "csv", *FAST).out))
    }
    one = rows["dr", "pooled"]
    assert (one["controls"], one["n_partial"], one["partial_test"]) == ("layer_density", "40", "bootstrap")
    assert float(one["partial_low"]) < float(one["partial"]) < float(one["partial_high"])
    assert float(one["partial_p_holm"]) >= float(one["partial_p"]) > 0.05
    assert rows["layer_density", "pooled"]["partial_reason"] == "is the only control"
    named = table(tmp_path / "u.csv", name="mean layer density")
    assert "dr adds nothing that mean layer density does not tell" in pai("rank", "--table", named, *FAST).out


def test_the_command_says_of_which_it_is_not_known_and_why(pai: Pai, tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    rng = np.random.default_rng(4)
    lines = ["mask,density,layer_density,noisy,same,also_same,constant,accuracy"]
    for k in range(40):
        layers, noise, more = rng.normal(size=3)
        lines.append(
            f"m{k},{0.1 + k % 2 / 10},{layers},{layers + noise},{layers},{2 * layers},1,{0.6 + (layers + more) / 50}"
        )
    path.write_text("\n".join(lines) + "\n")
    told = pai("rank", "--table", path, *FAST).out
    assert any(line.startswith("noisy ") and "partial tau" in line for line in told.splitlines())
    assert f"What same, also_same tell beyond layer density is not known: {UNTOLD}." in told.splitlines()
    assert told.count("is not known") == 1  # what does not vary has its reason in the table


def test_other_controls_or_none(pai: Pai, tmp_path: Path) -> None:
    path = table(tmp_path / "t.csv")
    two = pai("rank", "--table", path, "--controls", "layer_density, other", "--format", "json", *FAST).json()[
        "correlations"
    ]
    assert {one["metric"]: one["controls"] for one in two if one["scope"] == "pooled"} == {
        "dr": "layer_density, other",
        "other": "layer_density",
        "layer_density": "other",
    }
    none = pai("rank", "--table", path, "--controls", "none", *FAST)
    assert "adds" not in none.out
    assert "layer_density" not in none.err
    unknown = pai("rank", "--table", path, "--controls", "l3")
    assert unknown.said[-1] == "pai: error: --controls l3: no such metric; there are layer_density, dr, other"
    idle = pai("rank", "--table", path, "--order", "--by", "dr", "--controls", "dr")
    assert idle.status == 2
    assert "--controls: is of correlations with accuracy, and this is an order: leave it out" in idle.words


def test_masks_have_their_layer_density(pai: Pai, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    layers = [{name: rng.random((9, n)) < 0.3 for name, n in (("a", 5), ("b", 40))} for _ in range(3)]
    masks = [save_mask(tmp_path / f"m{k}.safetensors", own) for k, own in enumerate(layers)]
    results = tmp_path / "r.csv"
    results.write_text("mask,accuracy\nm0,0.6\nm1,0.7\nm2,0.5\n")
    found = pai("rank", *masks, "--accuracy", results, "--metrics", "layer_density,dr", "--format", "json").json()
    wanted = {str(path): (own["a"].mean() + own["b"].mean()) / 2 for path, own in zip(masks, layers, strict=True)}
    assert {one["mask"]: one["metrics"]["layer_density"] for one in found["masks"]} == pytest.approx(wanted)
    unknown = pai("rank", *masks, "--accuracy", results, "--controls", "l2")
    assert "--controls l2: no such metric; there are sigma_1, sigma_2, " in unknown.said[-1]


def test_columns_of_layers_make_it(pai: Pai, tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    lines = [f"m{k},{k / 10},{k / 5},{(k * 7) % 5},0.{k + 2}" for k in range(4)]
    path.write_text("\n".join(["mask,density_layer1,conv2.density,dr,accuracy", *lines]) + "\n")
    done = pai("rank", "--table", path, "--format", "json")
    assert done.said[0].endswith("layer_density is the mean of 2 columns (density_layer1, conv2.density)")
    assert [one["metrics"]["layer_density"] for one in done.json()["masks"]] == [
        0.0,
        *map(pytest.approx, (0.15, 0.3, 0.45)),
    ]
    path.write_text(path.read_text().replace("0.4,", "4,"))
    wrong = pai("rank", "--table", path, "--format", "json").json()["masks"]
    assert [one["metrics"]["layer_density"] for one in wrong] == [0.0, pytest.approx(0.15), None, pytest.approx(0.45)]


@pytest.mark.parametrize(("cells", "known"), [(("0.2", "0.4"), 0.3), (("0.2", ""), None)])
def test_rows_of_layers_make_it(pai: Pai, tmp_path: Path, cells: tuple[str, str], known: float | None) -> None:
    lines = ["mask,level,layer,density,dr,accuracy"]
    for k in range(3):
        lines += [f"m{k},layer,{at},{cell},1," for at, cell in enumerate(cells)]
        lines.append(f"m{k},network,,0.25,{k},0.{k + 5}")
    path = tmp_path / "t.csv"
    path.write_text("\n".join(lines) + "\n")
    done = pai("rank", "--table", path, "--format", "json")
    if known is not None:
        assert [one["metrics"]["layer_density"] for one in done.json()["masks"]] == [pytest.approx(known)] * 3
        assert "layer_density is that of their densities" in done.said[0]
    path.write_text(path.read_text().replace("0.2,", "2.5,"))
    assert "line 2: density '2.5' is not a fraction (0 to 1)" in pai("rank", "--table", path).said[-1]
