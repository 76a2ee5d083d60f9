"""Whether a mask fits a network, and what is counted where it lacks layers."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import Done, Pai, random_mask, save_mask
from safetensors.torch import load_file, save_file

from pai_cli import analyze
from pai_cli.errors import MaskMismatchError
from pai_cli.files.digest import sha256_of
from pai_cli.files.fits import Against, by_order, check_complete, check_fits, count, without_twins
from pai_cli.files.masks import MaskFile

SHAPES = {"a.weight": (3, 4), "b.weight": (5, 3, 2, 2)}
AGAINST = Against("net.pt", SHAPES, "give another")


def refusal(*arguments: object, check: object = check_fits) -> str:
    with pytest.raises(MaskMismatchError) as caught:
        check(*arguments)  # type: ignore[operator]
    return str(caught.value)


def test_what_fits_passes():
    check_fits("m", SHAPES, AGAINST)
    check_fits("m", {"b.weight": (5, 3, 2, 2)}, AGAINST)  # the others are whole, which is told where it is counted
    check_complete("m", [*SHAPES, "more"], AGAINST)


def test_names_that_are_not_there():
    names = {f"{letter}.weight": (1, 1) for letter in "cdefg"}
    assert refusal("m", names, AGAINST) == (
        "m: masks 'c.weight', 'd.weight', 'e.weight' and 2 more, which net.pt does not have; give another"
    )
    close = "m: masks '{}', which net.pt does not have (it has 'a.weight'); give another"
    for name in ("net.a.weight", "model.net.a.weight"):
        assert refusal("m", {name: (3, 4)}, AGAINST) == close.format(name)
    within = Against("net.pt", {"net.a.weight": (3, 4)}, "give another")
    assert "(it has 'net.a.weight')" in refusal("m", {"a.weight": (3, 4)}, within)


def test_shapes_that_differ():
    assert refusal("m", {"a.weight": (4, 3), "b.weight": (5, 3, 4)}, AGAINST) == (
        "m: does not fit net.pt: 'a.weight' is 4x3 here and 3x4 there, 'b.weight' is 5x3x4 here and 5x3x2x2 there; "
        "give another"
    )


def test_weights_that_are_lacking():
    assert refusal("m", ["a.weight"], AGAINST, check=check_complete) == "m: lacks 'b.weight' of net.pt; give another"


def test_arrays_take_names_by_their_order():
    arrays = [np.ones(shape) for shape in SHAPES.values()]
    assert list(by_order("m", arrays, AGAINST)) == list(SHAPES)
    assert refusal("m", arrays[:1], AGAINST, check=by_order) == (
        "m: 1 arrays, and net.pt has 2 prunable weights; give another"
    )
    assert "'a.weight' is 5x3x2x2 here and 3x4 there" in refusal("m", arrays[::-1], AGAINST, check=by_order)


def test_one_weight_with_two_masks():
    shared = torch.nn.Parameter(torch.ones(2, 2))
    parameters = {"a.weight": shared, "b.weight": shared, "c.weight": torch.nn.Parameter(torch.ones(2, 2))}
    one, other = np.eye(2, dtype=bool), np.ones((2, 2), dtype=bool)
    told = {"source": "m.npz", "remedy": "mask= takes a mask that was made for it"}
    assert without_twins({"a.weight": one, "b.weight": one, "c.weight": other}, parameters, **told) == {
        "a.weight": one,
        "c.weight": other,
    }
    with pytest.raises(MaskMismatchError) as caught:
        without_twins({"a.weight": one, "b.weight": other}, parameters, **told)
    assert str(caught.value) == (
        "m.npz: the masks of 'a.weight' and 'b.weight' differ, and in this network they are one weight; mask= takes a mask "
        "that was made for it"
    )


def test_a_layer_without_a_mask_is_counted_as_kept():
    sizes = {"a": 10, "b": 20, "c": 30}
    every = count(sizes, {"a": 1, "b": 2, "c": 3})
    assert (every.kept, every.total, every.density) == (6, 60, 0.1)
    assert every.told("m") == "6 of them kept by m"
    some = count(sizes, {"a": 1, "elsewhere": 7})
    assert (some.kept, some.by_mask, some.whole, some.density) == (51, 1, ("b", "c"), 51 / 60)
    assert some.told("m") == (
        "51 of them kept: 1 by m, the other 50 in 2 layers that it does not name and that stay whole (b, c)"
    )
    assert some.of_network("m") == "with b, c the network keeps 51 of 60 weights under m, density 0.85"
    assert every.of_network() == ""
    assert count(sizes, {}).density == 1.0


@pytest.fixture
def part(here: Path) -> Path:
    """A mask of the first of three layers (16x24, 12x16, 10x12), as another tool writes it, that keeps 96 weights."""
    mask = np.zeros((16, 24), np.bool_)
    mask.flat[::4] = True
    torch.save({"fc1.weight": torch.from_numpy(mask)}, "part.pt")
    return here


NETWORK = "with fc2.weight, fc3.weight the network keeps 408 of 696 weights"
WHOLE = (
    "small.safetensors: 312 weights in 2 tensors are left whole: fc2.weight, fc3.weight (no mask of it); beside 38 in "
    f"biases, norms and other vectors; {NETWORK} under part.pt, density 0.5862"
)


@pytest.mark.parametrize("command", ["analyze", "rank"])
def test_measuring_tells_of_layers_that_a_mask_lacks(pai: Pai, part: Path, command: str) -> None:
    words = [command, "part.pt", "--weights", "small.safetensors", "--no-store"]
    assert [line for line in pai(*words).said if "fc2.weight" in line] == [f"pai: {WHOLE}"]
    save_mask(part / "all.safetensors", {name: np.ones(s, bool) for name, s in LAYERS.items()})
    assert "left whole" not in pai(command, "all.safetensors", *words[2:]).err


def test_reports_say_so_in_every_format(pai: Pai, part: Path) -> None:
    done = pai("analyze", "part.pt", "--weights", "small.safetensors", "--no-store", "--format", "json")
    *layers, network = done.json()
    assert network["reason"].startswith(f"{NETWORK}, density 0.5862")
    assert (network["density"], network["network_density"]) == (96 / 384, 408 / 696)
    assert [one["network_density"] for one in layers] == [None]
    assert pai("analyze", "part.pt", "--weights", "small.safetensors", "--no-store", "--report", "r.html").status == 0
    assert NETWORK in (part / "r.html").read_text(encoding="utf-8")


def test_the_density_of_the_network_where_it_is_known(pai: Pai, part: Path) -> None:
    """Not without the network, nor where some layers of the mask were not measured."""
    save_mask(part / "all.safetensors", {name: np.eye(*s, dtype=bool) for name, s in LAYERS.items()})
    kept, total = sum(min(s) for s in LAYERS.values()), sum(a * b for a, b in LAYERS.values())
    for words, expected in (
        (["--weights", "small.safetensors"], (kept / total, kept / total)),
        (["--weights", "small.safetensors", "--layers", "fc1"], (16 / 384, None)),
        ([], (kept / total, None)),
    ):
        done = pai("analyze", "all.safetensors", *words, "--no-store", "--format", "json", "--summary")
        (network,) = done.json()
        assert (network["density"], network["network_density"]) == expected
    report = analyze("part.pt", "small.safetensors", no_store=True)
    assert (report.density, report.network_density) == (96 / 384, 408 / 696)
    assert list(report.left_whole) == ["fc2.weight", "fc3.weight"]


def test_rank_has_both_densities_also_of_a_table(pai: Pai, part: Path) -> None:
    words = ["part.pt", "--weights", "small.safetensors", "--no-store", "--format"]
    for done in (pai("rank", *words, "json"), _ranked_table(pai, words)):
        (row,) = done.json()
        assert (row["density"], row["network_density"]) == (96 / 384, 408 / 696)


def _ranked_table(pai: Pai, words: list[str]) -> Done:
    Path("t.csv").write_text(pai("analyze", *words, "csv").out, encoding="utf-8")
    return pai("rank", "--table", "t.csv", "--by", "dr", "--format", "json")


def test_rank_tells_of_many_masks_in_one_line(pai: Pai, part: Path) -> None:
    for number in range(3):
        save_mask(part / f"{number}.safetensors", {"fc1.weight": random_mask((16, 24), seed=number)})
    masks = [f"{number}.safetensors" for number in range(3)]
    done = pai("rank", *masks, "--weights", "small.safetensors", "--no-store")
    assert len([line for line in done.said if "left whole" in line]) == 1
    assert "under 0.safetensors" in done.err


@pytest.mark.parametrize("target", ["dense", "torch-prune"])
def test_a_network_written_with_some_masks_is_told_of(pai: Pai, part: Path, target: str) -> None:
    done = pai("convert", "part.pt", "--to", target, "--weights", "small.safetensors", "-o", "x.safetensors")
    assert (done.status, [line for line in done.said if "fc2" in line]) == (0, [f"pai: {WHOLE}"])


def test_pruning_tells_of_layers_that_were_ignored(pai: Pai, here: Path) -> None:
    words = ("prune", "small.safetensors", "--method", "magnitude", "--density", 0.25, "-o", "x.safetensors")
    done = pai(*words, "--ignore", "fc[23]")
    assert f"pai: --ignore: {NETWORK}, density 0.5862" in done.said
    assert "the network keeps" not in pai(*words, "--force").err


LAYERS = {"fc1.weight": (16, 24), "fc2.weight": (12, 16), "fc3.weight": (10, 12)}


def test_training_counts_layers_without_a_mask_as_kept(pai: Pai, here: Path) -> None:
    assert pai("init", "mlp-64-16-10", "-o", "net.safetensors").status == 0
    mask = np.zeros((10, 16), np.bool_)
    mask[:, :4] = True
    save_mask(here / "part.safetensors", {"fc2.weight": mask})
    words = ("train", "net.safetensors", "--mask", "part.safetensors", "--data", "digits", "--epochs", 1)
    done = pai(*words, "-o", "o.safetensors", "--results", "r.csv", "--format", "json")
    assert done.said[0] == (
        "pai: net.safetensors: MLP 64-16-10 (10 classes), 1,184 prunable weights, 1,064 of them kept: 40 by "
        "part.safetensors, the other 1,024 in 1 layer that it does not name and that stay whole (fc1.weight)"
    )
    assert done.json()[0]["density"] == 1064 / 1184
    with (here / "r.csv").open() as stream:
        assert [float(row["density"]) for row in csv.DictReader(stream)] == [1064 / 1184]
    assert MaskFile(here / "part.safetensors").names == ("fc2.weight",)


MADE_FROM = "was made from another file than"


@pytest.fixture
def made(pai: Pai, here: Path) -> Path:
    """A mask of `small.safetensors`, other weights of the same network, and the same drawn anew beside its mask."""
    tensors = load_file("small.safetensors")
    save_file({name: tensor + 1 for name, tensor in tensors.items()}, "other.safetensors")
    words = ("prune", "small.safetensors", "--method", "magnitude", "--density", 0.5)
    assert pai(*words, "-o", "m.safetensors").status == 0
    assert pai(*words, "-o", "again.safetensors", "--reinit", "-w", "drawn.safetensors").status == 0
    return here


@pytest.mark.parametrize(
    "words",
    [
        ("analyze", "m.safetensors", "again.safetensors", "--no-store", "--weights"),
        ("rank", "m.safetensors", "again.safetensors", "--no-store", "--weights"),
        ("convert", "m.safetensors", "--to", "dense", "-o", "x.safetensors", "--force", "--weights"),
    ],
)
def test_a_mask_beside_other_weights_than_it_was_made_from_is_told_of_once(
    pai: Pai, made: Path, words: tuple[str, ...]
) -> None:
    digests = [sha256_of([Path(name)])[:12] for name in ("small.safetensors", "other.safetensors")]
    assert [line for line in pai(*words, "other.safetensors").said if MADE_FROM in line] == [
        f"pai: m.safetensors: {MADE_FROM} other.safetensors: its source_sha256 is {digests[0]}..., not {digests[1]}..."
    ]
    for own in ("small.safetensors", "drawn.safetensors"):
        done = pai(*words, own)
        assert (done.status, MADE_FROM in done.err) == (0, False)


def test_training_tells_of_it_and_what_it_writes_is_no_other(pai: Pai, here: Path) -> None:
    for seed in range(2):
        assert pai("init", "mlp-64-16-10", "--seed", seed, "-o", f"{seed}.safetensors").status == 0
    assert pai("prune", "0.safetensors", "--method", "erk", "-o", "m.safetensors").status == 0
    words = ("--mask", "m.safetensors", "--data", "digits", "--epochs", 1, "-o", "t.safetensors", "--force")
    assert MADE_FROM in pai("train", "1.safetensors", *words).err
    assert MADE_FROM not in pai("train", "0.safetensors", *words).err
    assert MADE_FROM not in pai("analyze", "m.safetensors", "--weights", "t.safetensors", "--no-store").err


def test_what_is_not_known_of_a_masks_weights_is_not_told(pai: Pai, made: Path) -> None:
    """Of a mask that another tool made, the digest is its own file's; what a program holds has the digest of no file."""
    np.savez(
        "theirs.npz", **{name: mask.array(name) for mask in [MaskFile(Path("m.safetensors"))] for name in mask.names}
    )
    assert pai("convert", "theirs.npz", "-o", "ours.safetensors").status == 0
    for mask in ("theirs.npz", "ours.safetensors"):
        assert MADE_FROM not in pai("analyze", mask, "--weights", "other.safetensors", "--no-store").err
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pai_cli.api.beside.note", pytest.fail)
        analyze("m.safetensors", load_file("other.safetensors"), no_store=True)
