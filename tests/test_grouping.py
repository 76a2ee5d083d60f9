"""Which columns of a table separate comparisons: by their names, whatever the spelling and the unit; and what is told."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import numpy as np
import pytest
from conftest import Pai

from pai_cli.errors import TableError
from pai_cli.files.rows import Rows, read_rows
from pai_cli.ranking.columns import Kind, kind_of
from pai_cli.ranking.densities import read_densities
from pai_cli.ranking.grouping import Grouping, grouping_of, remarks
from pai_cli.spectral.catalogue import METRICS
from pai_cli.spelling import for_shell


def rows_of(text: str) -> Rows:
    return read_rows(Path("-"), io.StringIO(text))


@pytest.mark.parametrize(
    ("names", "kind"),
    [
        ("density Density target_density targetDensity keep_ratio KeepRatio network_density density_pct", Kind.DENSITY),
        ("sparsity SPARSITY Target-Sparsity prune_ratio pruning_ratio PruneRatio pruned_%", Kind.SPARSITY),
        ("prune_rate pruning_percentage weight_sparsity", Kind.SPARSITY),
        ("compression Compression_Ratio compressionRate", Kind.COMPRESSION),
        ("model architecture Arch network net Model_Name backbone neural_network", Kind.NETWORK),
        ("dataset Data data_set DataSet dataset_name task", Kind.DATASET),
        ("method pruning pruning_type pruning_method Pruner criterion", Kind.METHOD),
        ("seed random_seed model_seed run_id trial index", Kind.REPEAT),
        ("layer_density layer_density_mean effective_density effective_share kept total edges nodes k-core", None),
        ("model_size data_ratio prune_level dr_imdb accuracy lambda share_layers_dr_positive 1-hop_nei", None),
        ("% ratio weights target density_1 sparsity_conv2 layer1_density", None),
    ],
)
def test_columns_are_known_by_their_names(names: str, kind: Kind | None) -> None:
    assert {name: kind_of(name) for name in names.split()} == dict.fromkeys(names.split(), kind)
    assert {kind_of(name.replace("_", " ")) for name in names.split()} == {kind}


def test_every_metric_of_pai_is_none() -> None:
    assert [name for name in METRICS if kind_of(name) is not None] == []


# --- densities


@pytest.mark.parametrize(
    ("kind", "cells", "densities", "read_as"),
    [
        (Kind.DENSITY, ["0.1", "1", "", "0"], [0.1, 1.0, None, 0.0], ""),
        (Kind.DENSITY, ["0.1", "1.0000001", "-1e-17"], [0.1, 1.0, 0.0], ""),
        (Kind.DENSITY, ["0.1", "5%", "5 %"], [0.1, 0.05, 0.05], ""),
        (Kind.DENSITY, ["0.5", "1", "20"], [0.005, 0.01, 0.2], "x, in percent"),
        (Kind.SPARSITY, ["0.9", "0.98", "0"], [0.1, 0.02, 1.0], "1 - x"),
        (Kind.SPARSITY, ["90", "98", "99.5", "0"], [0.1, 0.02, 0.005, 1.0], "1 - x, in percent"),
        (Kind.SPARSITY, ["90%", "0.98"], [0.1, 0.02], "1 - x"),
        (Kind.COMPRESSION, ["10x", "x20", "50×", "4", "1"], [0.1, 0.05, 0.02, 0.25, 1.0], "1 / x"),
    ],
)
def test_units(kind: Kind, cells: list[str], densities: list[float | None], read_as: str) -> None:
    found = read_densities(rows_of("x,y\n" + "".join(f"{cell},0\n" for cell in cells)), "x", kind)
    assert found is not None
    assert list(found.by_line.values()) == [None if one is None else pytest.approx(one, abs=1e-15) for one in densities]
    assert found.read_as == read_as


def test_a_name_that_says_percent() -> None:
    table = rows_of("density_pct,sparsity_pct\n0.5,0.9\n1,0.5\n")
    density, sparsity = (read_densities(table, name, kind_of(name)) for name in table.columns)
    assert list(density.by_line.values()) == [0.005, 0.01]
    assert list(sparsity.by_line.values()) == [0.1, 0.5]  # nobody prunes 0.9 percent


@pytest.mark.parametrize(
    ("kind", "cells"), [(Kind.SPARSITY, ["low", "high"]), (Kind.COMPRESSION, ["0.1", "2"]), (Kind.COMPRESSION, ["90%"])]
)
def test_what_tells_no_density(kind: Kind, cells: list[str]) -> None:
    assert read_densities(rows_of("x,y\n" + "".join(f"{cell},0\n" for cell in cells)), "x", kind) is None


@pytest.mark.parametrize(
    ("kind", "cells", "told"),
    [
        (Kind.SPARSITY, ["0.9", "dense"], "line 3: x 'dense' is not a number"),
        (Kind.SPARSITY, ["0.9", "nan"], "line 3: x 'nan' is not a number"),
        (Kind.SPARSITY, ["90", "0.98"], "line 3: x 0.98 looks like a fraction, and 90 on line 2 like a percentage; write "
         "them alike, or with %"),
        (Kind.DENSITY, ["5", "0.05"], "line 3: x 0.05 looks like a fraction, and 5 on line 2 like a percentage; write "
         "them alike, or with %"),
        (Kind.DENSITY, ["120"], "line 2: x '120' is neither a fraction (0 to 1) nor a percentage (0 to 100)"),
        (Kind.SPARSITY, ["-0.1"], "line 2: x '-0.1' is neither a fraction (0 to 1) nor a percentage (0 to 100)"),
        (Kind.SPARSITY, ["0.9", "10x"], "line 3: x '10x' is neither a fraction (0 to 1) nor a percentage (0 to 100)"),
    ],
)  # fmt: skip
def test_densities_that_cannot_be(kind: Kind, cells: list[str], told: str) -> None:
    with pytest.raises(TableError) as error:
        read_densities(rows_of("x,y\n" + "".join(f"{cell},0\n" for cell in cells)), "x", kind)
    assert str(error.value) == f"standard input: {told}"


# --- groups


def grouped(text: str, *group_by: str) -> tuple[Grouping, list[str]]:
    """The grouping, and what is told."""
    table = rows_of(text)
    found = grouping_of(table, group_by or None)
    others = [column for column in table.columns if column not in (*found.known, *METRICS)]
    return found, [for_shell(line) for line in remarks(table, found, others, default=not group_by)]


@pytest.mark.parametrize(
    ("header", "row", "names", "setting", "density", "told"),
    [
        ("Model,Sparsity,x", "r,0.9,1", ("Model", "Sparsity"), "Model r", 0.1,
         "compared within equal Model and Sparsity (density is 1 - Sparsity); --group-by chooses"),
        ("data,prune_ratio,x", "c,90%,1", ("data", "prune_ratio"), "data c", 0.1,
         "compared within equal data and prune_ratio (density is 1 - prune_ratio); --group-by chooses"),
        ("x,compression,net", "1,10x,r", ("net", "compression"), "net r", 0.1,
         "compared within equal net and compression (density is 1 / compression); --group-by chooses"),
        ("sparsity,x", "low,1", ("sparsity",), "sparsity low", None,
         "compared within equal sparsity; --group-by chooses"),
        ("compression,x", "0.1,1", ("compression",), "compression 0.1", None,
         "compared within equal compression; --group-by chooses"),
        ("pruning,x", "0.9,1", ("pruning",), "", 0.1,
         "compared within equal pruning (density is 1 - pruning); --group-by chooses"),
        ("remaining,x", "10%,1", ("remaining",), "", 0.1, "compared within equal remaining; --group-by chooses"),
        ("kept,pruning type,x", "270,snip,1", (), "", None,
         "no column is named as a density, a network or a data set: all masks are compared with each other; --group-by "
         "names columns that separate them"),
        ("density,sparsity,x", "0.1,90,1", ("density",), "", 0.1,
         "compared within equal density (sparsity says it again); --group-by chooses"),
        ("density,target_density,x", "0.04,0.05,1", ("target_density", "density"), "target_density 0.05", 0.04,
         "compared within equal target_density and density; --group-by chooses"),
        ("realised_density,x", "0.1,1", ("realised_density",), "", 0.1,
         "compared within equal realised_density; --group-by chooses"),
        ("method,x", "snip,1", (), "", None,
         "no column is named as a density, a network or a data set: all masks are compared with each other; --group-by "
         "names columns that separate them"),
    ],
)  # fmt: skip
def test_groups_by_default(
    header: str, row: str, names: tuple[str, ...], setting: str, density: float | None, told: str
) -> None:
    found, said = grouped(f"{header}\n{row}\n")
    first = rows_of(f"{header}\n{row}\n").rows[0]
    assert (found.within.names, found.setting(first), found.density(first)) == (names, setting, density)
    assert said == [told]


def test_densities_that_came_of_others_are_no_groups() -> None:
    """Measured densities, all different, beside those that were asked for; a constant column tells nothing."""
    lines = [f"{s},{(1 - s) * (1 + k / 50):.4f},{k},0.5" for s in (0.8, 0.9) for k in range(1, 6)]
    found, told = grouped("\n".join(["target_sparsity,density,x,keep_ratio", *lines]))
    assert (found.within.density, found.within.settings, found.came) == (
        "target_sparsity",
        ("keep_ratio",),
        ("density",),
    )
    assert "density" not in found.known
    assert "density: densities that came of target_sparsity, taken for a metric" in told
    # Values that are far off are those of another quantity, and separate.
    lines = [f"{c},{s},{k}" for c in (2, 10) for k, s in enumerate((0.1, 0.3, 0.5, 0.7, 0.9, 0.95, 0.98))]
    assert grouped("\n".join(["compression,sparsity,x", *lines]))[0].within.names == ("sparsity", "compression")


def test_equal_numbers_are_one_group_however_they_are_spelled() -> None:
    found, _ = grouped("task,x\n1,1\n1.0,2\n1e0,3\n")
    assert {found.setting(row) for row in rows_of("task,x\n1,1\n1.0,2\n1e0,3\n").rows} == {"task 1"}


def test_groups_that_were_asked_for_and_what_they_leave_out() -> None:
    text = "model,sparsity,x\na,90,1\na,98,2\nb,90,3\n"
    found, told = grouped(text, "model")
    assert found.within.names == ("model",)
    assert not found.within.by_density
    assert told == [
        "density is 1 - sparsity, in percent",
        "masks of different sparsity are compared with each other: --group-by leaves it out",
    ]
    assert grouped(text, "none")[1][1:] == [
        "masks of different model and sparsity are compared with each other: --group-by leaves them out"
    ]
    found, told = grouped(text, "model", "sparsity")
    assert (found.within.settings, found.within.density, told[1:]) == (("model",), "sparsity", [])


def test_what_looks_like_a_group_is_told() -> None:
    """lr has three values and is mixed; width follows the model, whose masks are not compared; dr is a metric."""
    lines = [f"{'ab'[k % 2]},{10 * (k % 2)},{k % 3},{k % 2},{'xy'[k // 6]},{k}" for k in range(12)]
    _, told = grouped("\n".join(["model,width,lr,dr,stage,x", *lines]))
    assert told == [
        "compared within equal model; --group-by chooses",
        "lr (3 values) and stage (2 values) may name groups, and masks are compared across their values: if so, name all "
        "groups with --group-by",
    ]


def test_numbers_of_rows_are_no_metric() -> None:
    found, told = grouped("Unnamed: 0,run,seed,x\n0,1,2,3\n")
    assert list(found.known) == ["Unnamed: 0", "run", "seed"]
    assert "Unnamed: 0 and run: taken for the number of a row or repeat, not for a metric" in told


def test_a_column_that_is_not_there() -> None:
    with pytest.raises(TableError, match="group_by=net: no such column; there are model, x"):
        grouped("model,x\na,1\n", "net")


# --- the command


def confounded(path: Path, header: str, cells: list[str]) -> Path:
    """A metric that is density and noise, at five densities: within a density it tells nothing, over all of them a lot."""
    rng = np.random.default_rng(0)
    rows = [
        f"{cell},m{k}-{at},{at + rng.normal() / 4:.4f},{0.5 + at / 10 + rng.normal() / 100:.4f}"
        for at, cell in enumerate(cells)
        for k in range(8)
    ]
    path.write_text("\n".join([f"{header},mask,edges,accuracy", *rows]) + "\n")
    return path


@pytest.mark.parametrize(
    ("header", "cells"),
    [
        ("sparsity", ["0.99", "0.98", "0.95", "0.9", "0.8"]),
        ("Pruning Ratio", ["99%", "98%", "95%", "90%", "80%"]),
        ("PRUNE_RATIO", ["99", "98", "95", "90", "80"]),
        ("keepRatio", ["1", "2", "5", "10", "20"]),
        ("compression_ratio", ["100x", "50x", "20x", "10x", "5x"]),
        ("arch", ["a", "b", "c", "d", "e"]),
        ("Sparsity", ["a", "b", "c", "d", "e"]),
    ],
)
def test_a_confound_is_not_called_a_finding(pai: Pai, tmp_path: Path, header: str, cells: list[str]) -> None:
    table = confounded(tmp_path / "t.csv", header, cells)
    done = pai("rank", "--table", table, "--format", "csv", "--resamples", 100)
    assert f"compared within equal {header}" in done.said[0]
    rows = list(csv.DictReader(io.StringIO(done.out)))
    assert {row["metric"] for row in rows} == {"edges"}
    pooled = [row for row in rows if row["scope"] == "pooled"][-1]
    assert pooled["grouped_by"] == header
    assert abs(float(pooled["tau"])) < 0.25
    assert int(pooled["groups"]) == 5
    mixed = pai("rank", "--table", table, "--format", "csv", "--group-by", "none", "--resamples", 100)
    assert f"masks of different {header} are compared with each other: --group-by leaves it out" in mixed.err
    assert float(next(csv.DictReader(io.StringIO(mixed.out)))["tau"]) > 0.7


def test_a_mask_a_group_tells_nothing(pai: Pai, tmp_path: Path) -> None:
    table = tmp_path / "t.csv"
    table.write_text("model,x,accuracy\n" + "".join(f"net{k},{k},{0.5 + k / 20}\n" for k in range(8)))
    done = pai("rank", "--table", table)
    assert "No metric can be told from the others: no two masks of equal model." in done.out
