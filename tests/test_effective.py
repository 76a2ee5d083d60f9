"""What pruning says of weights on no path, and masks that reach a density in the others."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from conftest import Pai, run_pai, save_mask
from networks import wrap
from safetensors.numpy import save_file
from torch import nn

from pai_cli import Mask
from pai_cli import prune as prune_file
from pai_cli.errors import DensityError, MethodOptionError
from pai_cli.methods.registry import get
from pai_cli.models.network import init_network
from pai_cli.models.unrolled.paths import Unrolled
from pai_cli.models.unrolled.tape import unroll
from pai_cli.pruning.base import Pattern
from pai_cli.pruning.run import PruneRequest, prune

RESNET = init_network("resnet8", 10, 0)
UNROLLED = Unrolled(unroll(RESNET.model, RESNET.input_shape))


def effective(masks: dict[str, np.ndarray]) -> int:
    return sum(int(flags.sum()) for flags in UNROLLED.effective(masks).values())


@pytest.mark.parametrize("method", ["erk", "random", "magnitude", "synflow"])
def test_the_density_is_of_effective_weights(method: str) -> None:
    asked = {"rounds": 2} if method == "synflow" else {}
    plain = prune(RESNET, PruneRequest(get(method), 0.004, **asked))
    assert plain.effective == effective(plain.masks) < plain.kept
    reached = prune(RESNET, PruneRequest(get(method), 0.004, effective=True, **asked))
    assert plain.kept <= reached.kept <= 1.02 * plain.kept
    assert reached.kept == reached.effective == effective(reached.masks)


def test_the_same_request_gives_the_same_effective_mask() -> None:
    one, other = (prune(RESNET, PruneRequest(get("random"), 0.004, effective=True)) for _ in range(2))
    assert all((one.masks[name] == mask).all() for name, mask in other.masks.items())


def test_what_is_on_no_path_is_told(pai: Pai, tmp_path: Path) -> None:
    checkpoint, path = tmp_path / "net.safetensors", tmp_path / "m.safetensors"
    assert pai("init", "resnet8", "-o", checkpoint).status == 0
    done = pai("prune", checkpoint, "--method", "erk", "--density", "0.004", "-o", path)
    mask = Mask.load(path)
    kept = sum(int(array.sum()) for array in mask.values())
    idle = kept - int(mask.metadata["effective"])
    assert idle > 0.01 * kept
    told = f"{idle:,} of {kept:,} kept weights ({100 * idle / kept:.3g}%) are on no path from the input to the output"
    assert f"pai: {told}: they compute nothing" in done.said
    dense = prune_file(checkpoint, "erk", density=0.3)
    assert "effective" not in dense.metadata
    assert dense.summary is not None
    assert dense.summary.effective == dense.summary.kept
    counted = pai("prune", checkpoint, "--method", "erk", "--density", "0.004", "--effective", "-o", path, "--force")
    assert "no path" not in counted.err
    again = Mask.load(path)
    assert int(again.metadata["effective"]) == sum(int(array.sum()) for array in again.values()) >= kept


def test_a_network_that_cannot_be_unrolled_says_nothing() -> None:
    result = prune(wrap(nn.Linear(4, 3), None), PruneRequest(get("magnitude"), 0.5))
    assert (result.effective, result.on_no_path, result.connected) == (None, 0, None)


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        ({"pattern": Pattern(2, 4)}, "effective=True: excludes pattern=, which fixes each layer; give one"),
        ({"density": 0.5, "shuffle": True}, "effective=True: excludes shuffle=; leave one out"),
        (
            {"density": 0.5, "method": get("imp"), "data": "digits"},
            "effective=True: tries several masks, and imp trains for each",
        ),
    ],
)
def test_what_does_not_go_together(asked: dict[str, object], told: str) -> None:
    with pytest.raises(MethodOptionError) as error:
        prune(RESNET, PruneRequest(**{"method": get("magnitude"), "effective": True, **asked}))
    assert str(error.value).replace("shuffle=True", "shuffle=").startswith(told)


def test_more_than_a_network_has() -> None:
    padded = wrap(nn.Sequential(nn.Conv2d(1, 2, 3, padding=1), nn.Flatten(), nn.Linear(2, 2)), (1, 1, 1))
    reached = prune(padded, PruneRequest(get("random"), 6 / 22, effective=True))
    assert reached.kept == 6
    with pytest.raises(DensityError, match="11 effective weights are asked for, and of the 22 of the whole network 6"):
        prune(padded, PruneRequest(get("random"), 0.5, effective=True))


@pytest.fixture(scope="module")
def chain(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A network, and a mask of which one weight in three is on no path."""
    folder = tmp_path_factory.mktemp("chain")
    checkpoint = folder / "net.safetensors"
    assert run_pai("init", "mlp-2-2-2", "-o", checkpoint).status == 0
    return checkpoint, save_mask(
        folder / "m.safetensors", {"fc1.weight": np.eye(2, dtype=bool), "fc2.weight": np.array([[1, 0], [0, 0]], bool)}
    )


TOLD = "1 of 3 kept weights (33.3%) are on no path from the input to the output: they compute nothing"


def test_convert_tells_where_it_knows_the_network(pai: Pai, chain: tuple[Path, Path], tmp_path: Path) -> None:
    checkpoint, mask = chain
    out = ("-o", tmp_path / "out.safetensors", "--force")
    for known in (("--names-from", checkpoint), ("--weights", checkpoint, "--to", "dense")):
        assert f"pai: {mask}: {TOLD}" in pai("convert", mask, *known, *out).said
    assert "no path" not in pai("convert", mask, *out).err
    whole = save_mask(tmp_path / "whole.safetensors", {name: np.ones((2, 2), bool) for name in Mask.load(mask)})
    assert "no path" not in pai("convert", whole, "--names-from", checkpoint, *out).err
    unknown = tmp_path / "unknown.safetensors"
    save_file({"a": np.ones((2, 2), np.float32)}, unknown)
    other = save_mask(tmp_path / "other.safetensors", {"a": np.eye(2, dtype=bool)})
    assert "path" not in pai("convert", other, "--names-from", unknown, *out).err.replace(str(tmp_path), "")


def test_mine_tells_of_the_consensus(pai: Pai, chain: tuple[Path, Path], tmp_path: Path) -> None:
    checkpoint, mask = chain
    second = tmp_path / "second.safetensors"
    second.write_bytes(mask.read_bytes())
    out = ("-o", tmp_path / "out.safetensors", "--force")
    assert f"pai: the mask: {TOLD}" in pai("mine", mask, second, "--weights", checkpoint, *out).said
    assert "no path" not in pai("mine", mask, second, *out).err
