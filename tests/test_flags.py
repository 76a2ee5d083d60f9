"""Selection flags as arrays and as files: N:M patterns, layer densities, shuffled masks, redrawn weights, smart ratios."""

from __future__ import annotations

import json
from fractions import Fraction
from itertools import pairwise
from math import prod
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import Pai
from hypothesis import given
from hypothesis import strategies as st
from networks import WITH_DATA, build, half_up, run, wrap
from safetensors import safe_open
from safetensors.numpy import load_file
from torch import nn

from pai_cli.errors import DensityError, ScoreError
from pai_cli.files.densities import read_densities
from pai_cli.files.masks import MaskFile
from pai_cli.models.network import PrunableLayer, init_network
from pai_cli.pruning.allocation import layer_counts
from pai_cli.pruning.base import Pattern
from pai_cli.pruning.counts import AllocatedQuota, PatternQuota
from pai_cli.pruning.pattern import fits, inputs_of, keep_in_groups
from pai_cli.pruning.sanity import redrawn, shuffled
from pai_cli.spectral.layout import Layout

# ---- N:M selection


def naive(scores: np.ndarray, count: int, of: int, active: np.ndarray | None) -> np.ndarray:
    """Of (rows, inputs): one group at a time, sorted by score and then by index."""
    kept = np.zeros(scores.shape, bool)
    for row in range(scores.shape[0]):
        for start in range(0, scores.shape[1], of):
            alive = [i for i in range(start, start + of) if active is None or active[row, i]]
            for i in sorted(alive, key=lambda i: (-scores[row, i], i))[:count]:
                kept[row, i] = True
    return kept


@given(st.integers(1, 4), st.integers(1, 3), st.integers(2, 6), st.data())
def test_groups_keep_the_naive_sort(rows: int, groups: int, of: int, data: st.DataObject) -> None:
    values = st.sampled_from([0.0, -0.0, 1.0, 1.0, -2.5, np.inf, -np.inf])
    scores = np.array(data.draw(st.lists(values, min_size=rows * groups * of, max_size=rows * groups * of)))
    scores = scores.reshape(rows, groups * of)
    count = data.draw(st.integers(1, of - 1))
    active = None
    if data.draw(st.booleans()):
        more = data.draw(st.integers(count, of))
        active = naive(np.random.default_rng(rows).random(scores.shape), more, of, None)
        scores[~active] = np.nan  # what is pruned is not looked at
    layer = PrunableLayer("w", scores.shape, Layout())
    assert np.array_equal(keep_in_groups(scores, Pattern(count, of), layer, active), naive(scores, count, of, active))


@pytest.mark.parametrize(
    ("shape", "layout", "inputs"),
    [
        ((6, 8), Layout(), 8),
        ((6, 8, 3, 3), Layout(), 8),
        ((6, 2, 3), Layout(groups=3), 2),
        ((8, 6, 2, 2), Layout(transposed=True), 8),
        ((8, 3, 2), Layout(groups=2, transposed=True), 4),
        ((5, 1, 3, 3), Layout(groups=5), 1),
    ],
)
def test_inputs_are_those_of_one_output(shape: tuple[int, ...], layout: Layout, inputs: int) -> None:
    layer = PrunableLayer("w", shape, layout)
    assert inputs_of(layer) == inputs
    for of in (2, 3, 4, 8):
        assert fits(Pattern(1, of), layer) == (inputs % of == 0)
    if inputs > 1:
        scores = np.random.default_rng(0).random(shape)
        mask = keep_in_groups(scores, Pattern(1, inputs), layer)
        assert mask.sum() * inputs == prod(shape)
        assert mask.flags.c_contiguous


def test_a_transposed_convolution_s_groups_run_over_its_first_dimension() -> None:
    scores = np.array([[9.0, 1.0], [8.0, 2.0], [7.0, 3.0], [6.0, 4.0]])[..., None]
    layer = PrunableLayer("up.weight", (4, 2, 1), Layout(transposed=True))
    mask = keep_in_groups(scores, Pattern(1, 2), layer)[..., 0]
    assert mask.tolist() == [[True, False], [False, True], [True, False], [False, True]]


def test_a_nan_in_a_group_is_named() -> None:
    scores = np.ones((2, 4))
    scores[1, 2] = np.nan
    with pytest.raises(ScoreError, match=r"^fc\.weight: a score is NaN; check the weights for NaN or infinite values$"):
        keep_in_groups(scores, Pattern(2, 4), PrunableLayer("fc.weight", (2, 4), Layout()))


def test_rounds_of_a_pattern_come_down_to_it() -> None:
    layer = PrunableLayer("w", (4, 16), Layout())
    assert PatternQuota((layer,), Pattern(2, 4)).steps(1) == [2]
    steps = PatternQuota((layer,), Pattern(1, 8)).steps(6)
    assert steps == [6, 4, 3, 2, 1, 1]
    for pattern in (Pattern(1, 3), Pattern(2, 3), Pattern(5, 7)):
        layer = PrunableLayer("w", (2, 21), Layout())
        assert PatternQuota((layer,), pattern).steps(1) == [pattern.keep]
        assert PatternQuota((layer,), pattern).steps(100)[-1] == pattern.keep


def test_a_pattern_on_the_command_line(pai: Pai, here: Path, resnet: Path) -> None:
    done = pai("prune", resnet, "--method", "magnitude", "--pattern", "2:4", "--format", "json")
    assert done.status == 0
    assert "pai: warning: the pattern does not divide the inputs of conv1.weight: left whole" in done.said
    file = MaskFile(here / "resnet20-magnitude-2of4.safetensors")
    told = file.metadata
    assert (told["pattern"], told["density"], told["scope"]) == ("2:4", "0.5", "layer")
    densities = {line["layer"]: line["density"] for line in done.json() if line["layer"]}
    assert densities.pop("conv1.weight") == 1.0
    assert set(densities.values()) == {0.5}
    assert pai("prune", resnet, "--method", "erk", "--pattern", "2:4", "--density", 0.5, "-o", "x").status == 0


# ---- a density for each layer


BAD_FILES = {
    "missing": (None, "cannot be read: No such file or directory"),
    "not json": ("{'a': 1}", "is not valid JSON ("),
    "a list": ("[0.5]", 'must be a JSON object such as {"conv1": 0.5, "layer*": 0.05}'),
    "empty": ("{}", 'must be a JSON object such as {"conv1": 0.5, "layer*": 0.05}'),
    "text": ('{"fc": "0.5"}', """'fc' has "0.5", and a number is needed"""),
    "truth": ('{"fc": true}', "'fc' has true, and a number is needed"),
    "nested": ('{"fc": {"a": 1}}', "'fc' has an object, and a number is needed"),
    "long": (json.dumps({"fc": "x" * 100}), "'fc' has \"" + "x" * 18 + "…" + "x" * 19 + '", and a number is needed'),
    "twice": ('{"fc": 0.5, "a": 1, "fc": 0.4}', "'fc' stands there twice; leave one"),
    "deep": ("[" * 10**5, "is not valid JSON ("),
}


@pytest.mark.parametrize("name", BAD_FILES)
def test_a_file_that_holds_no_densities(tmp_path: Path, name: str) -> None:
    text, said = BAD_FILES[name]
    path = tmp_path / "layers.json"
    if text is not None:
        path.write_text(text)
    with pytest.raises(DensityError) as caught:
        read_densities(path)
    assert str(caught.value).startswith(f"densities={path}: {said}")
    assert "\n" not in str(caught.value)


def test_the_own_name_comes_before_a_glob_and_the_first_glob_before_the_next() -> None:
    net = build("residual")
    result = run(net, "random", densities=(("*", 0.5), ("b*", 0.1), ("stem", 0.25), ("fc.weight", 0.75)))
    kept = {name: int(mask.sum()) for name, mask in result.masks.items()}
    assert kept == {"stem.weight": 54, "body.weight": 576, "shortcut.weight": 64, "fc.weight": 120}


def test_densities_on_the_command_line(pai: Pai, here: Path) -> None:
    (here / "layers.json").write_text('{"fc1": 0.1, "fc*": 0.5}')
    done = pai("prune", "small.safetensors", "--method", "snip-not", "--densities", "layers.json")
    assert done.status == 2
    done = pai("prune", "small.safetensors", "--method", "erk", "--densities", "layers.json", "--format", "json")
    assert done.status == 0
    file = MaskFile(here / "small-erk-layers.safetensors")
    counts = [int(file.array(name).sum()) for name in file.names]
    assert counts == [half_up(0.1, 384), 96, 60]
    assert json.loads(file.metadata["densities"]) == {"fc1": 0.1, "fc*": 0.5}
    assert float(file.metadata["density"]) == done.json()[-1]["density"] == sum(counts) / 696


def test_a_search_over_patterns_or_densities_goes_on(pai: Pai, here: Path) -> None:
    (here / "layers.json").write_text('{"*": 0.5}')
    for flags in (["--pattern", "2:4"], ["--densities", "layers.json"]):
        words = ["sample", "small.safetensors", "--method", "erk", *flags, "-o", "best.safetensors"]
        assert pai(*words, "--population", 3, "--force").status == 0
        assert pai(*words, "--population", 6, "--resume").status == 0
        whole = load_file("best.safetensors")
        assert pai(*words, "--population", 6, "--force").status == 0
        assert {name: mask.tobytes() for name, mask in load_file("best.safetensors").items()} == {
            name: mask.tobytes() for name, mask in whole.items()
        }
    done = pai("sample", "small.safetensors", "--method", "erk", "--density", 0.5, "-o", "best.safetensors",
               "--population", 8, "--resume")  # fmt: skip
    assert done.status == 1
    assert (
        "that search had density not given, densities [['*', 0.5]]; this one has density 0.5, densities not given; "
        in done.said[-1]
    )


# ---- sanity checks


def test_a_shuffled_layer_depends_on_the_seed_and_its_name() -> None:
    masks = {"a": np.arange(40).reshape(5, 8) < 13, "b": np.arange(40).reshape(5, 8) < 13}
    mixed = shuffled(masks, 0)
    assert not np.array_equal(mixed["a"], mixed["b"])
    assert np.array_equal(shuffled({"b": masks["b"]}, 0)["b"], mixed["b"])
    assert all(mask.sum() == 13 and mask.shape == (5, 8) for mask in mixed.values())


def test_redrawn_weights_have_the_values_they_had_elsewhere() -> None:
    net = init_network("resnet20", 10, 0)
    before = {name: tensor.clone() for name, tensor in net.model.state_dict().items()}
    changed = redrawn(net, 0)
    after = changed.model.state_dict()
    assert all(torch.equal(before[name], tensor) for name, tensor in net.model.state_dict().items())
    for layer in net.layers:
        assert not torch.equal(before[layer.name], after[layer.name])
        assert torch.equal(before[layer.name].flatten().sort().values, after[layer.name].flatten().sort().values)
        joint = torch.stack([before[layer.name].flatten(), after[layer.name].flatten()])
        assert abs(float(torch.corrcoef(joint)[0, 1])) < 6 / joint.shape[1] ** 0.5
    assert torch.equal(after["bn1.weight"], before["bn1.weight"])
    assert all(torch.equal(tensor, after[name]) for name, tensor in redrawn(net, 0).model.state_dict().items())
    assert not torch.equal(redrawn(net, 1).model.state_dict()["conv1.weight"], after["conv1.weight"])


def test_redrawn_weights_stay_shared() -> None:
    changed = redrawn(build("tied"), 0).model
    assert changed.encode.weight is changed.decode.weight


def test_reinit_writes_a_checkpoint_beside_the_mask(pai: Pai, here: Path) -> None:
    words = ["prune", "small.safetensors", "--method", "magnitude", "--density", 0.5, "-o"]
    assert pai(*words, "plain.safetensors").status == 0
    done = pai(*words, "mask.safetensors", "--reinit", "-w", "fresh.safetensors", "--seed", 3)
    assert done.status == 0
    assert any(line.startswith("pai: wrote fresh.safetensors: MLP") for line in done.said)
    plain, kept = load_file("plain.safetensors"), load_file("mask.safetensors")
    assert all(np.array_equal(plain[name], kept[name]) for name in plain)
    old, new = load_file("small.safetensors"), load_file("fresh.safetensors")
    for name in old:
        assert np.array_equal(np.sort(old[name].ravel()), np.sort(new[name].ravel()))
        assert not np.array_equal(old[name], new[name])
    with safe_open("fresh.safetensors", "np") as file:
        told = file.metadata()
    assert told["redrawn_from_sha256"] == MaskFile(Path("mask.safetensors")).metadata["source_sha256"]
    assert told["seed"] == "3"
    assert pai("analyze", "mask.safetensors", "--weights", "fresh.safetensors").status == 0


REFUSED = {
    "nowhere": (["--reinit"], "--reinit: redraws the weights; say with -w where to write them"),
    "for nothing": (["-w", "w.safetensors"],
                    "-w w.safetensors: magnitude leaves the weights as they are; give --reinit, or leave -w out"),
    "same name": (["--reinit", "-w", "x.safetensors", "-o", "x.safetensors"],
                  "x.safetensors: the mask and the weights need different names; change -o or -w"),
    "there already": (["--reinit", "-w", "small.safetensors"],
                      "small.safetensors: is a file of the checkpoint, which stays as it is; choose another name (-w)"),
    "no data": (["--data", "digits"],
                f"--data digits: magnitude needs no data; leave --data out (methods that take it: {WITH_DATA})"),
    "shuffled pattern": (["--pattern", "2:4", "--shuffle"], "--pattern 2:4: --shuffle would undo it; leave one out"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused_before_any_work(pai: Pai, here: Path, name: str) -> None:
    flags, said = REFUSED[name]
    amount = [] if "--pattern" in flags else ["--density", 0.5]
    before = sorted(path.name for path in here.iterdir())
    done = pai("prune", "small.safetensors", "--method", "magnitude", *amount, *flags)
    files = name in ("same name", "there already")
    assert (done.status, done.out) == (1 if files else 2, "")
    assert done.said[-1].startswith(f"pai: error: {said.split(';')[0]}")
    assert len(done.said) == 1
    assert sorted(path.name for path in here.iterdir()) == before


@pytest.mark.parametrize("command", ["prune -o", "prune -w", "sample -o"])
def test_the_checkpoint_is_not_written_over(pai: Pai, here: Path, command: str) -> None:
    """--force replaces what was made before, not what it is made from; by whatever name it goes."""
    (here / "other").symlink_to(here / "small.safetensors")
    before = (here / "small.safetensors").read_bytes()
    name, flag = command.split()
    more = {"prune -w": ["--reinit", "-o", "m"], "sample -o": ["--population", 2]}.get(command, [])
    for out in ("small.safetensors", "other"):
        words = ("small.safetensors", "--method", "random", "--density", 0.5, *more, flag, out, "--force")
        done = pai(name, *words)
        assert (done.status, done.said) == (1, [
            f"pai: error: {out}: is a file of the checkpoint, which stays as it is; choose another name ({flag})"
        ])  # fmt: skip
    assert (here / "small.safetensors").read_bytes() == before


USAGE = {
    "pattern": (["--pattern", "2-4"], "--pattern 2-4: give N:M, such as 2:4"),
    "pattern sign": (["--pattern", "-2:4"], "--pattern -2:4: give N:M, such as 2:4"),
    "pattern and density": (["--pattern", "2:4", "--density", 0.4],
                            "--pattern 2:4 has density 0.5: leave --density out"),
    "pattern and sparsity": (["--pattern", "1:4", "--sparsity", "0.5"],
                             "--pattern 1:4 has density 0.25: leave --sparsity out"),
    "densities and density": (["--densities", "x", "--density", 0.4],
                              "--density and --densities exclude each other: give one"),
    "densities and pattern": (["--densities", "x", "--pattern", "2:4"],
                              "--pattern and --densities exclude each other: give one"),
}  # fmt: skip


@pytest.mark.parametrize("name", USAGE)
def test_wrong_usage(pai: Pai, here: Path, name: str) -> None:
    flags, said = USAGE[name]
    done = pai("prune", "small.safetensors", "--method", "magnitude", *flags)
    assert done.status == 2
    assert said in done.words


def test_sanity_checks_are_told_in_names_and_metadata(pai: Pai, here: Path) -> None:
    words = ["prune", "small.safetensors", "--method", "magnitude", "--density", 0.5]
    assert pai(*words, "--invert", "--shuffle").status == 0
    told = MaskFile(here / "small-magnitude-0.5-inverted-shuffled.safetensors").metadata
    assert (told["invert"], told["shuffle"]) == ("true", "true")
    assert pai(*words).status == 0
    told = MaskFile(here / "small-magnitude-0.5.safetensors").metadata
    assert not {"invert", "shuffle", "pattern", "densities", "data", "samples"} & told.keys()


# ---- smart ratios


def test_smart_ratios_by_hand() -> None:
    shapes = {"a": (10, 10), "b": (10, 20), "c": (20, 10)}
    # three layers: 3*3+3 = 12, 2*2+2 = 6; the classifier keeps 60; 12 * 100 and 6 * 200 share 90
    assert layer_counts("smart-ratio", shapes, 0.3) == {"a": 45, "b": 45, "c": 60}
    # 400 - 60 = 340 of which a would get 170: it is full at 100, and the 70 go to b, full at 200; the rest to c
    assert layer_counts("smart-ratio", shapes, 0.8) == {"a": 100, "b": 200, "c": 100}
    # 60 are more than half of 50, so the classifier (1*1+1 = 2) is a layer like the others: 1200 : 1200 : 400
    assert layer_counts("smart-ratio", shapes, 0.1) == {"a": 22, "b": 21, "c": 7}
    assert layer_counts("smart-ratio", {"only": (4, 5)}, 0.5) == {"only": 10}


@given(st.lists(st.tuples(st.integers(1, 30), st.integers(1, 30)), min_size=1, max_size=9), st.floats(0.001, 1))
def test_smart_ratios_are_exact_and_fall_with_depth(shapes: list[tuple[int, int]], density: float) -> None:
    named = {f"l{i}": (*shape, 1) for i, shape in enumerate(shapes)}  # of three dimensions: no classifier
    total = sum(map(prod, named.values()))
    if half_up(density, total) == 0:
        return
    counts = layer_counts("smart-ratio", named, density)
    assert sum(counts.values()) == half_up(density, total)
    assert all(0 <= counts[name] <= prod(shape) for name, shape in named.items())
    low = [Fraction(counts[name] - 1, prod(shape)) for name, shape in named.items()]
    high = [Fraction(counts[name] + 1, prod(shape)) for name, shape in named.items()]
    assert all(low[later] <= high[earlier] for earlier in range(len(low)) for later in range(earlier, len(low)))


def test_smart_ratio_on_resnet20() -> None:
    shapes = {layer.name: layer.shape for layer in init_network("resnet20", 10, 0).layers}
    counts = layer_counts("smart-ratio", shapes, 0.05)
    assert sum(counts.values()) == half_up(0.05, sum(map(prod, shapes.values())))
    assert counts[list(shapes)[-1]] == 192
    densities = [counts[name] / prod(shape) for name, shape in shapes.items()]
    assert densities[0] == max(densities[:-1])


def test_a_rule_s_counts_never_grow_from_round_to_round() -> None:
    for rule in ("erk", "smart-ratio", "uniform"):
        quota = AllocatedQuota({"a": (7, 3), "b": (11, 5), "c": (9, 4), "d": (3, 3)}, 0.07, rule)  # type: ignore[arg-type]
        steps = quota.steps(60)
        assert steps[-1] == layer_counts(rule, quota.shapes, 0.07)  # type: ignore[arg-type]
        for before, after in pairwise(steps):
            assert all(after[name] <= before[name] for name in before)  # type: ignore[index]


def test_methods_with_a_wrapped_linear_layer_keep_a_pattern() -> None:
    net = wrap(nn.Sequential(nn.Flatten(), nn.Linear(12, 6), nn.ReLU(), nn.Linear(6, 2)), (12,))
    result = run(net, "grasp", pattern=Pattern(2, 3))
    assert result.kept == 6 * 8 + 2 * 4


@pytest.mark.parametrize(
    ("words", "idle"),
    [
        (("--method", "magnitude"), True),
        (("--method", "synflow"), True),
        (("--method", "erk"), False),
        (("--method", "magnitude", "--shuffle"), False),
        (("--method", "magnitude", "--ties", "random"), False),
        (("--method", "magnitude", "--reinit", "-w", "w.safetensors"), False),
    ],
)
def test_a_seed_of_which_nothing_comes_is_told_of(pai: Pai, here: Path, words: tuple[str, ...], idle: bool) -> None:
    """Not refused: who prunes by several methods gives every one the same seeds."""
    done = pai("prune", "small.safetensors", *words, "--density", 0.5, "--seed", 3, "-o", "m.safetensors")
    assert done.status == 0, done.err
    told = f"pai: --seed 3: {words[1]} draws nothing; every seed gives this mask"
    assert (told in done.said, "draws nothing" in done.err) == (idle, idle)
    done = pai("prune", "small.safetensors", *words, "--density", 0.5, "-o", "m.safetensors", "--force")
    assert "draws nothing" not in done.err
