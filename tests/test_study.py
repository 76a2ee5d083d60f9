"""A study of made-up masks: scopes, what is missing, the best metric and how sure that is; and its order of no matter."""

from __future__ import annotations

import math
import random
from dataclasses import replace

import numpy as np
import pytest

from pai_cli.ranking.bootstrap import Resampling
from pai_cli.ranking.correlation import Correlation, ScopeKind, Study
from pai_cli.ranking.expression import Score, score_of
from pai_cli.ranking.scored import ScoredMask, Within
from pai_cli.ranking.study import correlate
from pai_cli.spectral.catalogue import METRICS, Metric
from pai_cli.spectral.result import Measure

KNOWN = {name: Metric(name, "", "table") for name in "abcdefgh"}
QUICK = Resampling(200, 0)


def mask(
    name: str, accuracy: float | None, density: float | None = 0.1, setting: str = "", **values: float | None
) -> ScoredMask:
    measures = {
        metric: Measure.missing("collapsed") if value is None else Measure(value, 0.0)
        for metric, value in values.items()
    }
    return ScoredMask(name, density, measures, setting=setting, accuracy=accuracy, runs=1)


def scores(*names: str) -> list[Score]:
    return [score_of(name, KNOWN) for name in names]


def row(study: Study, metric: str, kind: ScopeKind, density: float | None = None) -> Correlation:
    return next(
        one for one in study.correlations if (one.metric, one.scope.kind, one.scope.density) == (metric, kind, density)
    )


def grid(seed: int = 0, per_group: int = 8) -> list[ScoredMask]:
    """Three densities; `a` follows accuracy within each, `b` follows density alone, `c` nothing."""
    rng = np.random.default_rng(seed)
    masks = []
    for density in (0.05, 0.1, 0.2):
        for k in range(per_group):
            quality = float(rng.normal())
            values = {"a": quality + float(rng.normal()) / 2, "b": 10 * density, "c": float(rng.normal())}
            masks.append(mask(f"{density}-{k}", 0.5 + density + 0.02 * quality, density, **values))
    return masks


def test_scopes_and_what_confounds() -> None:
    study = correlate(grid(), scores("a", "b", "c"), QUICK)
    told = [(scope.kind.value, scope.density, scope.masks, scope.groups, scope.confounded) for scope in study.scopes]
    assert told == [
        ("overall", None, 24, 1, True),
        ("pooled", None, 24, 3, False),
        ("density", 0.05, 8, 1, False),
        ("density", 0.1, 8, 1, False),
        ("density", 0.2, 8, 1, False),
    ]
    assert study.main_scope == study.scopes[1]
    # b, which is density and nothing else, seems the best predictor with densities mixed, and is none within them.
    assert study.best(study.scopes[0]).strongest.metric == "b"
    within = row(study, "b", ScopeKind.POOLED)
    assert (within.tau.value, within.reason) == (None, "the metric's values compared are all equal")
    assert study.best(study.scopes[1]).strongest.metric == "a"
    assert len(study.correlations) == 15


def test_one_density_has_nothing_to_pool() -> None:
    study = correlate(grid()[:8], scores("a"), QUICK)
    assert [(scope.kind.value, scope.confounded) for scope in study.scopes] == [("overall", False), ("density", False)]
    assert study.main_scope.kind is ScopeKind.OVERALL


def test_without_densities_to_separate_the_mix_is_still_called_one() -> None:
    study = correlate(grid(), scores("a"), QUICK, within=Within())
    assert [(scope.kind.value, scope.confounded) for scope in study.scopes] == [("overall", True)]


def test_settings_are_pooled_and_never_mixed() -> None:
    masks = [replace(one, setting=f"net {k}") for k in "xy" for one in grid(ord(k))]
    study = correlate(masks, scores("a", "b", "c"), QUICK)
    assert [(scope.kind.value, scope.setting) for scope in study.scopes if scope.kind is not ScopeKind.DENSITY] == [
        ("overall", "net x"),
        ("pooled", "net x"),
        ("overall", "net y"),
        ("pooled", "net y"),
        ("pooled", None),
    ]
    assert (study.main_scope.setting, study.main_scope.masks, study.main_scope.groups) == (None, 48, 6)


def test_the_order_of_masks_is_of_no_matter_and_the_seed_is() -> None:
    masks = grid()
    study = correlate(masks, scores("a", "b", "c"), QUICK)
    random.Random(1).shuffle(masks)
    assert correlate(masks, scores("a", "b", "c"), QUICK) == study
    other = correlate(masks, scores("a", "b", "c"), Resampling(200, 1))
    assert other.correlations != study.correlations
    assert row(other, "a", ScopeKind.POOLED).tau.value == row(study, "a", ScopeKind.POOLED).tau.value


def test_other_metrics_change_corrections_alone() -> None:
    alone = row(correlate(grid(), scores("a"), QUICK), "a", ScopeKind.POOLED)
    among = row(correlate(grid(), scores("a", "c"), QUICK), "a", ScopeKind.POOLED)
    assert alone.tau.p_holm == alone.tau.p
    assert replace(among.tau, p_holm=alone.tau.p) == alone.tau
    assert among.tau.p_holm == pytest.approx(2 * alone.tau.p)


def test_values_within_their_errors_are_ties() -> None:
    masks = [
        ScoredMask(str(k), 0.1, {"a": Measure(k + 1e-9 * k, 0.6 if k < 2 else 0.0)}, accuracy=0.5 + k / 100, runs=1)
        for k in range(4)
    ]
    tau = row(correlate(masks, scores("a"), QUICK), "a", ScopeKind.OVERALL).tau.value
    assert tau == pytest.approx(5 / math.sqrt(5 * 6))


def test_missing_values_are_dropped_pairwise() -> None:
    masks = [replace(one, values={**one.values, "d": Measure.missing("collapsed")}) for one in grid()[:2]] + [
        replace(one, values={**one.values, "d": one.values["a"]}) for one in grid()[2:]
    ]
    study = correlate(masks, scores("a", "d"), QUICK)
    whole, part = (row(study, name, ScopeKind.POOLED) for name in "ad")
    assert (whole.n, part.n) == (24, 22)
    assert part.tau.value == row(correlate(masks[2:], scores("a"), QUICK), "a", ScopeKind.POOLED).tau.value
    # Compared over the 22 that both have, where they are the same metric.
    assert (whole.n_common, whole.tau_common, part.tau_common) == (22, part.tau.value, part.tau.value)
    assert (whole.best_share, part.best_share) == (0.5, 0.5)
    assert [len(study.points[name]) for name in "ad"] == [24, 24]
    assert [point.value.reason for point in study.points["d"]].count("collapsed") == 2


def test_a_metric_with_few_values_does_not_take_part_in_the_comparison() -> None:
    masks = [
        replace(one, values={**one.values, "d": one.values["a"] if k % 2 else Measure.missing("collapsed")})
        for k, one in enumerate(grid(per_group=14))
    ]
    study = correlate(masks, scores("a", "c", "d"), QUICK)
    half = row(study, "d", ScopeKind.POOLED)
    assert (half.n, half.best_share, half.n_common) == (21, None, None)
    assert half.reason == "not compared with the strongest: has no value for too many of the masks"
    assert half.tau.low is not None
    assert row(study, "a", ScopeKind.POOLED).n_common == 42


def test_a_metric_that_is_constant_over_the_masks_compared() -> None:
    """d differs on one mask alone, which a lacks: over the others there is nothing to compare."""
    masks = [
        replace(
            one, values={"a": one.values["a"] if k else Measure.missing("collapsed"), "d": Measure(float(not k), 0.0)}
        )
        for k, one in enumerate(grid())
    ]
    study = correlate(masks, scores("a", "d"), Resampling(400))
    one = row(study, "d", ScopeKind.POOLED)
    assert (one.n, one.best_share, one.reason) == (
        24,
        None,
        "not compared with the strongest: has one value for all the masks that are compared",
    )
    assert one.tau.low is not None  # the mask is in two of three samples
    assert row(study, "a", ScopeKind.POOLED).best_share == 1.0


@pytest.mark.parametrize(
    ("count", "metrics", "told"),
    [
        (4, "a", "too few masks to say anything: with 4 the smallest possible p of tau is 0.083; it takes 5"),
        (5, "a", None),
        (
            5,
            "abcdefgh",
            "too few masks to say anything: with 5 the smallest possible p of tau is 0.017, 0.13 after correction for 8 "
            "metrics; it takes 6",
        ),
        (6, "abcdefgh", None),
    ],
)
def test_too_few_masks(count: int, metrics: str, told: str | None) -> None:
    rng = np.random.default_rng(2)
    masks = [
        mask(str(k), 0.5 + float(rng.random()) / 9, **{name: float(rng.random()) for name in metrics})
        for k in range(count)
    ]
    study = correlate(masks, scores(*metrics), QUICK)
    one = row(study, "a", ScopeKind.OVERALL)
    assert one.reason == told
    assert one.tau.value is not None
    assert one.tau.p is not None
    assert (one.tau.low is None) is (told is not None)
    assert (study.best(study.scopes[0]) is None) is (told is not None)


def test_ties_of_accuracies_make_masks_say_less() -> None:
    masks = [mask(str(k), 0.5 + k // 4 / 10, a=float(k % 3)) for k in range(6)]  # 15 orders of four and two
    one = row(correlate(masks, scores("a"), QUICK), "a", ScopeKind.OVERALL)
    assert one.reason == "too few masks to say anything: with 6 the smallest possible p of tau is 0.13"


@pytest.mark.parametrize(
    ("masks", "n", "told"),
    [
        ([mask("x", 0.5, a=1.0)], 1, "1 mask with a value: a correlation takes two"),
        ([mask("x", 0.5, a=None), mask("y", 0.6, a=None)], 0, "0 masks with a value: a correlation takes two"),
        ([mask("x", 0.5, a=1.0), mask("y", 0.6, a=1.0)], 2, "the metric's values compared are all equal"),
        ([mask("x", 0.5, a=1.0), mask("y", 0.5, a=2.0)], 2, "the accuracies compared are all equal"),
    ],
)
def test_no_correlation(masks: list[ScoredMask], n: int, told: str) -> None:
    study = correlate(masks, scores("a"), QUICK)
    one = row(study, "a", ScopeKind.OVERALL)
    assert (one.n, one.tau.value, one.tau.p, one.reason) == (n, None, None, told)
    assert study.best(study.scopes[0]) is None


def test_every_mask_of_its_own_density() -> None:
    masks = [mask(str(k), 0.5 + k / 20, density=0.1 + k / 20, a=float(k)) for k in range(8)]
    one = row(correlate(masks, scores("a"), QUICK), "a", ScopeKind.POOLED)
    assert (one.tau.value, one.reason) == (None, "no two masks of equal density")


def test_a_perfect_order_has_no_interval() -> None:
    masks = [mask(str(k), 0.5 + k / 20, a=float(k), b=float(k) ** 2) for k in range(8)]
    one = row(correlate(masks, scores("a", "b"), QUICK), "a", ScopeKind.OVERALL)
    assert (one.tau.value, one.tau.low, one.tau.high) == (1.0, None, None)
    assert one.reason == "a perfect order: every sample of it is one too, which is no interval"
    assert one.tau.p == pytest.approx(2 / math.factorial(8))
    assert one.best_share == 0.5


def test_samples_that_mostly_have_no_correlation_give_no_interval() -> None:
    masks = [mask(f"{k:02}", 0.6 if k == 0 else 0.5, a=float(k == 1)) for k in range(45)]
    one = row(correlate(masks, scores("a"), Resampling(400)), "a", ScopeKind.OVERALL)
    assert one.tau.value == pytest.approx(-1 / 44)
    assert (one.tau.low, one.reason) == (None, "most bootstrap samples have no two masks that differ: no interval")


def test_the_best_and_how_sure() -> None:
    masks = [
        replace(one, values={**one.values, "d": Measure(-(one.values["a"].value or 0) / 3), "e": one.values["c"]})
        for one in grid()
    ]
    study = correlate(masks, scores("c", "a", "d", "e"), Resampling(400))
    best = study.best(study.main_scope)
    assert best is not None
    assert best.runner_up is not None
    # d is a upside down: they tie, share the samples, and the first of them is named.
    assert (best.strongest.metric, best.runner_up.metric, best.level) == ("a", "d", ("d",))
    assert best.strongest.tau.value == -best.runner_up.tau.value
    assert best.strongest.best_share == best.runner_up.best_share
    assert (best.runner_up.behind, best.runner_up.behind_low, best.runner_up.behind_high) == (0.0, 0.0, 0.0)
    assert not best.reversed
    shares = [one.best_share for one in study.within(study.main_scope)]
    assert sum(shares) == pytest.approx(1.0)
    far = row(study, "c", ScopeKind.POOLED)
    assert far.behind == pytest.approx(best.strongest.tau.value - abs(far.tau.value))
    assert 0 < far.behind_low <= far.behind <= far.behind_high


def test_a_metric_that_orders_against_its_direction() -> None:
    masks = [
        ScoredMask(str(k), 0.1, {"narc": Measure(k + (k % 3) / 2)}, accuracy=0.5 + k / 50, runs=1) for k in range(9)
    ]
    study = correlate(masks, [score_of("narc", METRICS)], QUICK)  # smaller is better, says the catalogue
    assert study.best(study.scopes[0]).reversed


def test_points() -> None:
    masks = [mask("y", 0.6, 0.2, a=2.0), mask("x", 0.5, 0.1, a=None), mask("none", None, a=1.0)]
    masks[0] = replace(masks[0], runs=3, spread=0.01)
    points = correlate(masks, scores("a", "a+1"), QUICK).points
    assert [(p.name, p.density, p.group, p.accuracy, p.spread, p.runs) for p in points["a"]] == [
        ("x", 0.1, 0, 0.5, None, 1),
        ("y", 0.2, 1, 0.6, 0.01, 3),
    ]
    assert points["a"][0].value == Measure.missing("collapsed")
    assert points["a+1"][1].value.value == 3.0


def test_one_mask_on_two_datasets_is_drawn_once() -> None:
    """The same masks twice over tell no more than once: pooled intervals stay as wide as those of one data set."""
    once = [replace(one, setting="dataset x") for one in grid(per_group=12)]
    twice = once + [replace(one, setting="dataset y") for one in once]
    study = correlate(twice, scores("a", "c"), Resampling(1000))
    one = next(c for c in study.correlations if c.scope.setting == "dataset x" and c.scope.kind is ScopeKind.POOLED)
    both = next(c for c in study.correlations if c.scope.setting is None)
    assert both.tau.value == pytest.approx(one.tau.value)
    assert both.tau.high - both.tau.low == pytest.approx(one.tau.high - one.tau.low, rel=0.15)
    # p neither: were the two independent, it would be about the square.
    assert (one.tau.test, both.tau.test, both.rho.test) == ("exact", "normal", "normal")
    assert both.tau.p >= one.tau.p
    single, pooled = (
        next(c for c in study.correlations if c.scope == at.scope and c.metric == "c") for at in (one, both)
    )
    assert pooled.tau.p == pytest.approx(single.tau.p, abs=0.02)
    assert pooled.r.p == pytest.approx(single.r.p, abs=0.04)


def test_p_of_few_masks_on_two_datasets_is_that_of_one() -> None:
    once = [replace(one, setting="dataset x") for one in grid(per_group=6)]
    study = correlate(once + [replace(one, setting="dataset y") for one in once], scores("a", "c"), QUICK)
    for metric in "ac":
        found = [one for one in study.correlations if one.metric == metric and one.scope.kind is ScopeKind.POOLED]
        assert [one.n for one in found] == [18, 18, 36]
        assert found[2].tau.test == "permutation"
        assert found[2].tau.p == pytest.approx(found[0].tau.p, abs=0.02)
        assert found[2].r.p == pytest.approx(found[0].r.p, abs=0.02)
