"""The mask file: what is written comes back, any reader opens it, and nothing that is no mask is taken for one."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
from conftest import Pai, random_mask, save_mask
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import load_file, save, save_file

from pai_cli.errors import MaskError
from pai_cli.files.canonical import canonical_bytes
from pai_cli.files.masks import MaskFile, MaskToWrite, write_mask
from pai_cli.spectral.layout import PLAIN, Layout

PACKED = pytest.mark.parametrize("packed", [False, True], ids=["bytes", "packed"])
METADATA = {"format", "format_version", "method", "density", "seed", "scope", "source_sha256", "pai_version"}
METADATA |= {"command", "created"}

# Names in an order that is neither the alphabet's nor the numbers'.
NETWORK_ORDER = {"stem.weight": (4, 3, 3, 3), "body.10.weight": (5, 7), "body.2.weight": (8, 5), "a.weight": (3, 8)}


def damaged(path: Path, arrays: dict[str, np.ndarray], **metadata: str) -> Path:
    """A file that says it is a mask, with any content."""
    save_file(arrays, path, {"format": "pai-mask", "format_version": "1", **metadata})
    return path


def metadata_of(path: Path) -> dict[str, str]:
    data = path.read_bytes()
    header: dict[str, dict[str, str]] = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    return header["__metadata__"]


def shapes(sides: st.SearchStrategy[int]) -> st.SearchStrategy[tuple[int, ...]]:
    return st.lists(sides, min_size=1, max_size=4).map(tuple)


@PACKED
@given(shape=shapes(st.integers(1, 7)), density=st.sampled_from([0.0, 0.3, 0.9, 1.0]), seed=st.integers(0, 99))
def test_round_trip(
    tmp_path_factory: pytest.TempPathFactory, packed: bool, shape: tuple[int, ...], density: float, seed: int
) -> None:
    mask = random_mask(shape, density, seed)
    path = tmp_path_factory.mktemp("trip") / "m.safetensors"
    save_mask(path, {"w": mask, "v": ~mask}, packed=packed)
    file = MaskFile(path)
    assert file.shapes == {"w": shape, "v": shape}
    for name, wanted in {"w": mask, "v": ~mask}.items():
        read = file.array(name)
        assert read.dtype == np.bool_
        assert read.shape == shape
        assert np.array_equal(read, wanted)


@pytest.mark.parametrize("size", [1, 7, 8, 9, 15, 16, 17, 1000])
def test_packed_bits_are_those_of_numpy(tmp_path: Path, size: int) -> None:
    """The bytes on disk are a promise to other readers: big-endian `packbits`, zeros at the end."""
    mask = random_mask((1, size))
    stored = load_file(save_mask(tmp_path / "m.safetensors", {"w": mask}, packed=True))["w"]
    assert stored.dtype == np.uint8
    assert stored.shape == (-(-size // 8),)
    assert np.array_equal(stored, np.packbits(mask, bitorder="big"))


def test_any_reader_opens_it(tmp_path: Path) -> None:
    masks = {name: random_mask(shape) for name, shape in NETWORK_ORDER.items()}
    read = load_file(save_mask(tmp_path / "m.safetensors", masks))
    assert set(read) == set(masks)
    for name, mask in masks.items():
        assert read[name].dtype == np.bool_
        assert np.array_equal(read[name], mask)


@PACKED
def test_network_order_is_kept(tmp_path: Path, packed: bool) -> None:
    masks = {name: random_mask(shape) for name, shape in NETWORK_ORDER.items()}
    file = MaskFile(save_mask(tmp_path / "m.safetensors", masks, packed=packed))
    assert file.names == tuple(NETWORK_ORDER)
    assert tuple(file.shapes) == tuple(NETWORK_ORDER)


def test_order_of_a_foreign_mask_is_natural(tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    save_file({f"features.{i}.weight": random_mask((3, 3)) for i in (10, 2, 1)}, path)
    assert MaskFile(path).names == ("features.1.weight", "features.2.weight", "features.10.weight")


@PACKED
@pytest.mark.parametrize("layout", [PLAIN, Layout(groups=4), Layout(transposed=True), Layout(2, True)])
def test_layouts_are_kept(tmp_path: Path, packed: bool, layout: Layout) -> None:
    masks = {"a.weight": random_mask((8, 2, 3, 3)), "b.weight": random_mask((4, 8))}
    file = MaskFile(save_mask(tmp_path / "m.safetensors", masks, {"a.weight": layout}, packed=packed))
    assert file.layout("a.weight") == layout
    assert file.layout("b.weight") == PLAIN


@PACKED
def test_metadata_is_complete(pai: Pai, here: Path, packed: bool) -> None:
    flags = ["--packed"] if packed else []
    arguments = ["prune", "small.safetensors", "--method", "erk", "--density", "0.25", "--seed", "7", "-o", "m"]
    assert pai(*arguments, *flags).status == 0
    found = metadata_of(here / "m")
    assert set(found) >= METADATA | ({"shapes"} if packed else set())
    assert all(type(value) is str for value in found.values())
    told = {key: found[key] for key in ("format", "format_version", "method", "density", "seed", "scope")}
    assert told == {
        "format": "pai-mask",
        "format_version": "1",
        "method": "erk",
        "density": "0.25",
        "seed": "7",
        "scope": "layer",
    }
    assert found["command"] == " ".join(["pai", *arguments, *flags])
    assert len(found["source_sha256"]) == 64
    if packed:
        assert json.loads(found["shapes"])["fc1.weight"] == [16, 24]


@PACKED
def test_same_inputs_same_bytes(pai: Pai, here: Path, monkeypatch: pytest.MonkeyPatch, packed: bool) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1767225600")
    command = ["prune", "small.safetensors", "--method", "random", "--density", "0.3", "-o", "m", "--force"]
    contents = set()
    for _ in range(3):
        assert pai(*command, *(["--packed"] if packed else [])).status == 0
        contents.add((here / "m").read_bytes())
    assert len(contents) == 1
    assert metadata_of(here / "m")["created"] == "2026-01-01T00:00:00Z"


def test_packed_and_bytes_hold_the_same_mask(pai: Pai, here: Path) -> None:
    command = ["prune", "small.safetensors", "--method", "magnitude", "--density", "0.3", "-o"]
    assert pai(*command, "plain").status == 0
    assert pai(*command, "bits", "--packed").status == 0
    plain, bits = MaskFile(here / "plain"), MaskFile(here / "bits")
    assert plain.names == bits.names
    assert all(np.array_equal(plain.array(name), bits.array(name)) for name in plain.names)


def test_canonical_bytes_are_a_fixed_point_that_changes_no_tensor(tmp_path: Path) -> None:
    data = canonical_bytes(save({"b": np.arange(3.0), "a": np.ones((2, 5), np.bool_)}, {"z": "1", "ä": "2"}))
    assert canonical_bytes(data) == data
    assert (8 + int.from_bytes(data[:8], "little")) % 8 == 0
    path = tmp_path / "x"
    path.write_bytes(data)
    assert np.array_equal(load_file(path)["b"], np.arange(3.0))
    assert list(metadata_of(path)) == ["z", "ä"]


@pytest.mark.parametrize("data", [b"", b"\x05\0\0\0\0\0\0\0{}", b"\x02\0\0\0\0\0\0\0[]"], ids=["none", "short", "list"])
def test_canonical_refuses_what_is_no_safetensors_file(data: bytes) -> None:
    with pytest.raises(ValueError, match="not a safetensors file"):
        canonical_bytes(data)


@pytest.mark.parametrize("dtype", ["bool", "uint8", "int8", "int64", "float16", "float32", "float64"])
def test_a_foreign_mask_is_a_mask(tmp_path: Path, dtype: str) -> None:
    mask, path = random_mask((5, 3, 2)), tmp_path / "m.safetensors"
    save_file({"w": mask.astype(dtype)}, path)
    file = MaskFile(path)
    assert not file.is_ours
    assert file.layout("w") == PLAIN
    assert np.array_equal(file.array("w"), mask)


def test_a_foreign_mask_in_bfloat16(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    from safetensors.torch import save_file as save_torch

    mask, path = random_mask((5, 4)), tmp_path / "m.safetensors"
    save_torch({"w": torch.from_numpy(mask).to(torch.bfloat16)}, path)
    assert np.array_equal(MaskFile(path).array("w"), mask)


@pytest.mark.parametrize(
    ("dtype", "value", "said"),
    [
        ("uint8", 2, "2"),
        ("int8", -1, "-1"),
        ("float32", 0.5, "0.5"),
        ("float32", math.nan, "nan"),
        ("float64", math.inf, "inf"),
    ],
)
def test_other_values_are_refused(tmp_path: Path, dtype: str, value: float, said: str) -> None:
    mask, path = random_mask((4, 6)).astype(dtype), tmp_path / "m.safetensors"
    mask[2, 3] = value
    save_file({"body.weight": mask}, path)
    with pytest.raises(MaskError) as told:
        MaskFile(path).array("body.weight")
    assert str(told.value) == (
        f"{path}: tensor 'body.weight' holds {said} at index 15, and a mask holds only 0 and 1; a checkpoint goes to "
        "weights=, or to pai prune"
    )


@PACKED
def test_boolean_bytes_other_than_0_and_1_are_refused(tmp_path: Path, packed: bool) -> None:
    """No library writes them, but a byte of 2 in a bool tensor reads as true in one program and not in another."""
    path = save_mask(tmp_path / "m.safetensors", {"w": np.zeros((3, 5), np.bool_)}, packed=packed)
    data = bytearray(path.read_bytes())
    data[-1 if packed else -4] = 3  # the last byte's last bit stands past the 15th element
    path.write_bytes(data)
    wanted = "has bits set past its last element" if packed else "holds 3 at index 11"
    with pytest.raises(MaskError, match=f"tensor 'w' {wanted}"):
        MaskFile(path).array("w")


SHAPES = json.dumps({"w": [3, 5]})


@pytest.mark.parametrize(
    ("stored", "said"),
    [
        (np.zeros(1, np.uint8), "is U8 of shape (1,), which cannot hold the bits of shape (3, 5)"),
        (np.zeros(3, np.uint8), "is U8 of shape (3,), which cannot hold the bits of shape (3, 5)"),
        (np.zeros((1, 2), np.uint8), "is U8 of shape (1, 2), which cannot hold the bits of shape (3, 5)"),
        (np.zeros(2, np.int16), "is I16 of shape (2,), which cannot hold the bits of shape (3, 5)"),
        (np.array([0, 1], np.uint8), "has bits set past its last element"),
    ],
    ids=["short", "long", "two dimensions", "dtype", "stray bit"],
)
def test_damaged_packed_tensors(tmp_path: Path, stored: np.ndarray, said: str) -> None:
    path = damaged(tmp_path / "m.safetensors", {"w": stored}, shapes=SHAPES)
    with pytest.raises(MaskError) as told:
        MaskFile(path).array("w")
    assert str(told.value) == f"{path}: tensor 'w' {said}; make the mask again"


NOT_JSON, NOT_LISTED, DAMAGED = "is not valid JSON", "does not list the file's tensors", "is damaged"


@pytest.mark.parametrize(
    ("key", "text", "said"),
    [
        ("shapes", "{", NOT_JSON),
        ("shapes", "", NOT_JSON),
        ("shapes", "[" * 100_000, NOT_JSON),
        ("shapes", "[3, 5]", NOT_LISTED),
        ("shapes", "{}", NOT_LISTED),
        ("shapes", '{"v": [3, 5]}', NOT_LISTED),
        ("shapes", '{"w": [3, 5], "v": [1]}', NOT_LISTED),
        ("shapes", '{"w": 15}', DAMAGED),
        ("shapes", '{"w": [3, -5]}', DAMAGED),
        ("shapes", '{"w": [3, 5.0]}', DAMAGED),
        ("shapes", '{"w": [true, 5]}', DAMAGED),
        ("layers", "nonsense", NOT_JSON),
        ("layers", '{"v": {}}', NOT_LISTED),
        ("layers", '{"w": 1}', DAMAGED),
        ("layers", '{"w": {"groups": 0}}', DAMAGED),
        ("layers", '{"w": {"groups": "2"}}', DAMAGED),
    ],
)
def test_damaged_metadata(tmp_path: Path, key: str, text: str, said: str) -> None:
    path = damaged(tmp_path / "m.safetensors", {"w": np.zeros(2, np.uint8)}, **{key: text})
    with pytest.raises(MaskError) as told:
        MaskFile(path)
    assert str(told.value) == f"{path}: its metadata {key!r} {said}; make the mask again"


@pytest.mark.parametrize("version", ["3", "0", "", "1.0"])
def test_an_unknown_format_version_is_refused(tmp_path: Path, version: str) -> None:
    path = damaged(tmp_path / "m.safetensors", {"w": random_mask((2, 2))}, format_version=version)
    with pytest.raises(MaskError) as told:
        MaskFile(path)
    assert str(told.value) == f"{path}: mask format version {version} is not known to this pai; upgrade pai-cli"


def test_a_foreign_format_version_is_nobodys_business(tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    save_file({"w": random_mask((2, 2))}, path, {"format": "pt", "format_version": "9", "shapes": "not ours"})
    assert MaskFile(path).names == ("w",)


def test_no_tensors(tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    save_file({}, path)
    with pytest.raises(MaskError) as told:
        MaskFile(path)
    assert str(told.value) == f"{path}: holds no tensor, so it is no mask"


@pytest.mark.parametrize("dtype", ["uint8", "float32"])
def test_only_boolean_arrays_are_written(tmp_path: Path, dtype: str) -> None:
    path = tmp_path / "m.safetensors"
    mask = MaskToWrite({"w": np.ones((2, 2), dtype)}, {}, {})
    with pytest.raises(MaskError) as told:
        write_mask(path, mask, packed=False, force=False)
    assert str(told.value) == f"{path}: the mask of 'w' is {dtype}, not boolean"
    assert not path.exists()


def test_a_mask_of_any_memory_order_is_written_row_by_row(tmp_path: Path) -> None:
    mask = random_mask((6, 4)).T
    assert not mask.flags.c_contiguous
    assert np.array_equal(MaskFile(save_mask(tmp_path / "m", {"w": mask})).array("w"), mask)
