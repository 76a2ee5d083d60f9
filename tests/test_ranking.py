"""`pai rank`: what decides, within what, in which direction, and what is said about it."""

from __future__ import annotations

import csv
import io
import shutil
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from conftest import SAMPLES, Pai, random_mask, save_mask

from pai_cli.analysis.masks import MaskReport
from pai_cli.errors import MaskError, UnknownMetricError
from pai_cli.ranking.expression import Score, metric_score
from pai_cli.ranking.order import RankedMask, rank_masks
from pai_cli.ranking.scored import ScoredMask, scored_masks
from pai_cli.spectral.catalogue import RANKED
from pai_cli.spectral.network import NetworkReport
from pai_cli.spectral.result import Measure
from pai_cli.spectral.table import NO_LAYERS

pytestmark = pytest.mark.usefixtures("measured_once")

DR = Score("dr", ("dr",), True)
METHODS = ("random", "uniform", "erk", "magnitude", "synflow")


def report(
    name: str, value: float | None, *, error: float = 0.0, kept: int = 500, reason: str = "collapsed"
) -> MaskReport:
    """A mask with `kept` of 10,000 weights, whose dr is `value`."""
    measure = Measure.missing(reason) if value is None else Measure(value, error)
    return MaskReport(
        Path(name), {}, NetworkReport(NO_LAYERS, {"dr": measure}, {"dr": 0 if value is None else 3}, kept, 10_000)
    )


def ranked(*reports: MaskReport, larger_is_better: bool = True) -> list[RankedMask]:
    return rank_masks(scored_masks(reports), DR, larger_is_better=larger_is_better)


def places(rows: list[RankedMask]) -> list[tuple[str, int | None]]:
    return [(row.source.name, row.rank) for row in rows]


@pytest.mark.parametrize(
    ("given", "larger", "wanted"),
    [
        ({"a": 1.0, "b": 3.0, "c": 2.0}, True, [("b", 1), ("c", 2), ("a", 3)]),
        ({"a": 1.0, "b": 3.0, "c": 2.0}, False, [("a", 1), ("c", 2), ("b", 3)]),
        ({"a": -1.0, "b": 0.0}, True, [("b", 1), ("a", 2)]),
        ({"b": 1.0, "a": 1.0, "c": 0.5}, True, [("a", 1), ("b", 1), ("c", 3)]),
        ({"b": 1.0, "a": 1.0, "c": 0.5}, False, [("c", 1), ("a", 2), ("b", 2)]),
        ({"a": None, "b": 1.0, "c": None, "d": 2.0}, True, [("d", 1), ("b", 2), ("a", None), ("c", None)]),
        ({"a": None, "b": 1.0}, False, [("b", 1), ("a", None)]),
        ({"a": 0.0, "b": None}, True, [("a", 1), ("b", None)]),
        ({}, True, []),
    ],
)
def test_order(given: dict[str, float | None], larger: bool, wanted: list[tuple[str, int | None]]) -> None:
    assert places(ranked(*(report(*item) for item in given.items()), larger_is_better=larger)) == wanted


def test_values_within_their_errors_are_ties() -> None:
    rows = ranked(report("a", 1.0, error=0.06), report("b", 1.1, error=0.06), report("c", 1.3, error=0.06))
    assert places(rows) == [("c", 1), ("b", 2), ("a", 2)]
    assert rows[1].margin == pytest.approx(0.1)
    assert [row.decided for row in rows] == ["dr larger by 0.2", "tied with the next: within the error bounds", ""]


def test_a_wide_bound_ties_all_that_it_reaches() -> None:
    """c may be the smallest: neither a nor b is told from it, so all three share a rank, as correlations have them."""
    rows = ranked(report("a", 1.0), report("b", 2.0), report("c", 3.0, error=2.5), report("d", 0.4))
    assert places(rows) == [("c", 1), ("b", 1), ("a", 1), ("d", 4)]


def test_what_decided() -> None:
    assert [row.decided for row in ranked(report("a", 1.0), report("b", 0.5))] == ["dr larger by 0.5", ""]
    smaller = ranked(report("a", 1.0), report("b", 0.5), larger_is_better=False)
    assert [row.decided for row in smaller] == ["dr smaller by 0.5", ""]
    assert ranked(report("a", 1.0))[0].decided == "alone at this density"
    assert ranked(report("a", None, reason="mean degree below 3"))[0].decided == "no dr: mean degree below 3"


def test_the_last_of_a_tie_is_not_alone() -> None:
    rows = ranked(report("a", 1.0), report("b", 1.0))
    assert places(rows) == [("a", 1), ("b", 1)]
    assert rows[0].decided == "tied with the next: within the error bounds"
    assert rows[1].decided != "alone at this density"
    assert (rows[0].margin, rows[1].margin) == (0.0, None)


@pytest.mark.parametrize(
    ("kept", "groups"),
    [
        ([500, 500], [0, 0]),
        ([500, 505], [0, 0]),
        ([500, 506], [0, 1]),
        ([500, 504, 508], [0, 0, 1]),  # from the group's first, not from the one before: a chain does not grow
        ([2000, 500, 200], [0, 1, 2]),
        ([0, 0, 5], [0, 0, 1]),
    ],
)
def test_groups_of_equal_density(kept: list[int], groups: list[int]) -> None:
    rows = ranked(*(report(str(i), 1.0 + i, kept=count) for i, count in enumerate(kept)))
    assert sorted(row.group for row in rows) == groups
    assert [row.group for row in rows] == sorted(row.group for row in rows)
    by_group = [[row.source.density for row in rows if row.group == group] for group in sorted(set(groups))]
    assert all(max(a) < min(b) for a, b in pairwise(by_group))


def test_a_denser_mask_is_never_above_a_sparser_one_of_another_group() -> None:
    assert places(ranked(report("dense", 9.0, kept=2000), report("sparse", 1.0, kept=500))) == [
        ("sparse", 1),
        ("dense", 1),
    ]


def test_failed_masks_have_no_place() -> None:
    assert ranked(MaskReport(Path("x"), {}, None, MaskError("x: no")), report("a", 1.0))[0].source.name == "a"


@pytest.mark.parametrize(
    ("name", "weights", "wanted"),
    [(None, True, "l2"), (None, False, "dr_imdb"), ("narc", False, "narc"), ("lambda", True, "lambda")],
)
def test_the_metric(name: str | None, weights: bool, wanted: str) -> None:
    assert metric_score(name, weights=weights, network=weights).name == wanted


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("dr_imbd", f"unknown metric 'dr_imbd': did you mean dr_imdb? by= takes {', '.join(RANKED)}"),
        ("zzz", f"unknown metric 'zzz': by= takes {', '.join(RANKED)}"),
        ("l2", "by=l2: needs the weights; give weights=CKPT"),
        ("dr + lambda", "by='dr + lambda': lambda needs the weights; give weights=CKPT"),
        ("log_paths", "by=log_paths: needs the network; give weights=CKPT or model=NAME"),
        ("kept/macs", "by='kept/macs': macs needs the network; give weights=CKPT or model=NAME"),
        ("log_path_weight", "by=log_path_weight: needs the weights; give weights=CKPT"),
    ],
)
def test_metrics_that_cannot_be(name: str, told: str) -> None:
    with pytest.raises(UnknownMetricError) as error:
        metric_score(name, weights=False, network=False)
    assert str(error.value) == told


def test_settings_do_not_compare_and_density_need_not_count() -> None:
    masks = [
        ScoredMask("a", 0.1, {"dr": Measure(1.0)}, setting="net x"),
        ScoredMask("b", 0.2, {"dr": Measure(2.0)}, setting="net x"),
        ScoredMask("c", 0.1, {"dr": Measure(3.0)}, setting="net y"),
        ScoredMask("d", None, {"dr": Measure(4.0)}, setting="net y"),
    ]
    apart = rank_masks(masks, DR, larger_is_better=True)
    assert [(row.source.name, row.group, row.rank) for row in apart] == [
        ("a", 0, 1),
        ("b", 1, 1),
        ("d", 2, 1),
        ("c", 3, 1),
    ]
    together = rank_masks(masks, DR, larger_is_better=True, by_density=False)
    assert [(row.source.name, row.group, row.rank) for row in together] == [
        ("b", 0, 1),
        ("a", 0, 2),
        ("d", 1, 1),
        ("c", 1, 2),
    ]


# --- the command


def of_density(density: str) -> list[Path]:
    return [SAMPLES / f"{method}-{density}.safetensors" for method in METHODS]


@pytest.fixture(scope="module")
def measured(pai: Pai, resnet: Path) -> dict[bool, list[dict[str, Any]]]:
    """What `pai analyze` says of the masks of one density, without weights and with them, apart from any store."""
    command = ("analyze", *of_density("0.05"), "--summary", "--format", "json", "--no-store", "--jobs", 1)
    return {False: pai(*command).json(), True: pai(*command, "--weights", resnet).json()}


@pytest.mark.parametrize(
    ("flags", "metric", "larger"),
    [
        ([], "dr_imdb", True),
        (["--by", "narc"], "narc", False),
        (["--by", "narc", "--largest-first"], "narc", True),
        (["--by", "dr", "--smallest-first"], "dr", False),
        (["--weights"], "l2", True),
        (["--weights", "--by", "l2_dense"], "l2_dense", False),
    ],
)
def test_rank_orders_what_analyze_measures(
    pai: Pai, resnet: Path, measured: dict[bool, list[dict[str, Any]]], flags: list[str], metric: str, larger: bool
) -> None:
    weights = ["--weights", resnet] if "--weights" in flags else []
    rest = [flag for flag in flags if flag != "--weights"]
    done = pai("rank", *of_density("0.05"), *weights, *rest, "--format", "json")
    assert (done.status, done.err) == (0, "")
    rows = done.json()
    values = {record["mask"]: record[metric] for record in measured[bool(weights)]}
    assert [row["mask"] for row in rows] == sorted(values, key=values.__getitem__, reverse=larger)
    assert [row["rank"] for row in rows] == [1, 2, 3, 4, 5]
    assert {row["by"] for row in rows} == {metric}
    for row, following in zip(rows, [*rows[1:], None], strict=True):
        assert row["value"] == pytest.approx(values[row["mask"]], rel=1e-9)  # arrays are solved by batches
        assert row["method"] == Path(row["mask"]).name.split("-")[0]
        assert row["reason"] is None
        margin = None if following is None else abs(row["value"] - following["value"])
        assert row["margin"] == margin
        if following is None:
            assert row["decided"] == ""
            continue
        over = f", over {row['layers']} layers against {following['layers']}"
        word = f"{metric} {'larger' if larger else 'smaller'} by {margin:.4g}"
        assert row["decided"] == word + ("" if row["layers"] == following["layers"] else over)


def test_different_densities_are_told_and_kept_apart(pai: Pai) -> None:
    done = pai("rank", *of_density("0.2"), *of_density("0.02"), "--by", "sigma_1", "--format", "csv")
    assert done.status == 0
    assert done.said == [
        "pai: warning: densities from 0.01999 to 0.2 differ by more than 1%, which a metric follows more than quality: "
        "ranked within 2 groups of equal density"
    ]
    rows = list(csv.DictReader(io.StringIO(done.out)))
    assert [row["rank"] for row in rows] == list("12345") * 2
    assert [row["density_group"] for row in rows] == list("0" * 5 + "1" * 5)
    assert {Path(row["mask"]).stem.split("-")[1] for row in rows[:5]} == {"0.02"}


def test_a_copy_is_a_tie(pai: Pai, tmp_path: Path) -> None:
    for name in ("a", "b"):
        shutil.copy(of_density("0.05")[0], tmp_path / f"{name}.safetensors")
    rows = pai("rank", tmp_path, "--format", "json").json()
    assert [(Path(row["mask"]).stem, row["rank"]) for row in rows] == [("a", 1), ("b", 1)]
    assert rows[0]["margin"] == 0


def test_a_mask_without_a_value_comes_last(pai: Pai, tmp_path: Path) -> None:
    thin = {"w": random_mask((30, 30), 0.03, seed=1)}
    save_mask(tmp_path / "a.safetensors", thin)
    even = random_mask((30, 30), 0.0)
    even[:3, : int(thin["w"].sum()) // 3] = True
    even.reshape(-1)[-(int(thin["w"].sum()) % 3) or even.size :] = True
    save_mask(tmp_path / "b.safetensors", {"w": even})
    rows = pai("rank", tmp_path, "--by", "dr_imdb", "--format", "json").json()
    assert [(Path(row["mask"]).stem, row["rank"]) for row in rows] == [("b", 1), ("a", None)]
    reason = "no left-regular subgraph with mean degrees of 3 or more"
    assert (rows[1]["value"], rows[1]["layers"], rows[1]["reason"]) == (None, 0, reason)
    assert rows[1]["decided"] == f"no dr_imdb: {reason}"


def test_masks_of_two_networks(pai: Pai, tmp_path: Path) -> None:
    first = save_mask(tmp_path / "a.safetensors", {"w": random_mask((8, 8))})
    other = save_mask(tmp_path / "b.safetensors", {"w": random_mask((8, 9))})
    last = save_mask(tmp_path / "c.safetensors", {"w": random_mask((8, 8), seed=2)})
    done = pai("rank", tmp_path, "--by", "sigma_1", "--format", "json")
    assert (done.status, done.said) == (0, ["pai: masks of 2 settings do not compare: ranked within 2 groups"])
    rows = done.json()
    assert {row["mask"] for row in rows[:2]} == {str(first), str(last)}
    assert [row["setting"] for row in rows] == [f"layers of {first}", f"layers of {first}", f"layers of {other}"]
    assert (rows[2]["mask"], rows[2]["rank"], rows[2]["decided"]) == (str(other), 1, "alone at this density")


def test_one_bad_mask_does_not_stop_the_rest(pai: Pai, tmp_path: Path) -> None:
    missing = tmp_path / "missing.safetensors"
    done = pai("rank", *of_density("0.05"), missing, "--format", "jsonl")
    assert done.status == 1
    assert done.said == [f"pai: error: {missing}: no such file"]
    assert len(done.out.splitlines()) == 6


def test_the_table_names_the_metric_and_has_a_part_a_group(pai: Pai) -> None:
    done = pai("rank", *of_density("0.2"), *of_density("0.02"), "--by", "dr")
    headers = [line.split() for line in done.out.splitlines() if "rank" in line.split()]
    assert headers == [["rank", "mask", "method", "density", "dr", "layers", "decided"]] * 2


def test_a_list_from_another_program(pai: Pai) -> None:
    done = pai("rank", "-", "--format", "json", stdin="\n".join(map(str, of_density("0.05"))))
    assert done.json() == pai("rank", *of_density("0.05"), "--format", "json").json()
