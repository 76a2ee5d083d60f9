"""Masks kept as the places of their ones: sparse tensors of torch, and matrices of SciPy in .npz."""

from __future__ import annotations

import re
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from conftest import Pai
from hypothesis import given
from hypothesis import strategies as st

import pai_cli as pai
from pai_cli.errors import CheckpointError, MaskError, PaiError
from pai_cli.files import budget
from pai_cli.files.opening import open_as, open_mask
from pai_cli.files.sparse_arrays import dense_of

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    torch.eye(2).to_sparse_csr()  # torch tells once that these are new

GENERATOR = torch.Generator().manual_seed(0)
LINEAR = torch.rand(6, 8, generator=GENERATOR) < 0.3
CONVOLUTION = torch.rand(4, 3, 3, 3, generator=GENERATOR) < 0.3

FORMS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "coo": lambda one: one.to_sparse(),
    "hybrid": lambda one: one.to_sparse(1),
    "csr": lambda one: one.to_sparse_csr(),
    "csc": lambda one: one.to_sparse_csc(),
    "bsr": lambda one: one.to_sparse_bsr((2, 4)),
    "bsc": lambda one: one.to_sparse_bsc((3, 2)),
}


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("form", FORMS)
def test_sparse_tensors_are_masks_for_who_asks(form: str, zipped: bool, tmp_path: Path) -> None:
    masks = {"fc.weight": FORMS[form](LINEAR)}
    if form in ("coo", "hybrid"):
        masks["conv.weight"] = FORMS[form](CONVOLUTION.float())
    torch.save(masks, tmp_path / "m.pt", _use_new_zipfile_serialization=zipped)
    mask = open_as(tmp_path / "m.pt", "dict")
    assert {name: mask.array(name).tolist() for name in mask.names} == {
        name: one.to_dense().bool().tolist() for name, one in masks.items()
    }


@pytest.mark.parametrize("form", FORMS)
def test_sparse_tensors_are_refused_unasked(form: str, tmp_path: Path, pai: Pai) -> None:
    torch.save({"a.weight": torch.ones(6, 8), "fc.weight": FORMS[form](LINEAR)}, tmp_path / "m.pt")
    kind = str(FORMS[form](LINEAR).layout).removeprefix("torch.sparse_").upper()
    line = (
        rf"'fc.weight' is a sparse tensor \({kind}\), which cannot be read as it is; --from dict of pai convert makes"
    )
    for words in (("analyze", tmp_path / "m.pt"), ("convert", tmp_path / "m.pt", "-o", tmp_path / "out.safetensors")):
        done = pai(*words)
        assert done.status != 0
        assert re.search(line, done.err), done.err
    assert pai("convert", tmp_path / "m.pt", "--from", "dict", "-o", tmp_path / "out.safetensors").status == 0
    assert np.array_equal(open_mask(tmp_path / "out.safetensors").array("fc.weight"), LINEAR.numpy())


PRUNED = {"torch-prune": ("_orig", "_mask"), "synflow": ("", "_mask"), "flat": ("", ".mask")}


@pytest.mark.parametrize("kind", PRUNED)
def test_the_way_out_names_what_the_file_is(kind: str, tmp_path: Path) -> None:
    of_weights, of_masks = PRUNED[kind]
    weights, mask = torch.randn(6, 8, generator=GENERATOR), LINEAR.float().to_sparse()
    torch.save({f"fc.weight{of_weights}": weights, f"fc.weight{of_masks}": mask}, tmp_path / "m.pt")
    with pytest.raises(MaskError, match=f"is a sparse tensor .COO., .*; kind={kind} of pai convert"):
        pai.Mask.load(tmp_path / "m.pt")
    assert np.array_equal(open_as(tmp_path / "m.pt", kind).array("fc.weight"), LINEAR.numpy())


def test_a_folder_passes_over_sparse_tensors_and_says_so(tmp_path: Path, pai: Pai) -> None:
    torch.save({"fc.weight": LINEAR.to_sparse()}, tmp_path / "sparse.pt")
    torch.save({"fc.weight": LINEAR}, tmp_path / "plain.pt")
    done = pai("analyze", tmp_path)
    assert done.status == 0
    assert "'fc.weight' is a sparse tensor (COO), which cannot be read as it is" in done.err


@given(st.data())
def test_any_sparse_tensor_is_what_torch_makes_of_it(data: st.DataObject) -> None:
    rows, columns = data.draw(st.integers(0, 6)), data.draw(st.integers(0, 6))
    places = (
        data.draw(st.sets(st.tuples(st.integers(0, rows - 1), st.integers(0, columns - 1)))) if rows * columns else []
    )
    whole = torch.zeros(2 * rows, 3 * columns)
    for at, (row, column) in enumerate(sorted(places)):
        whole[2 * row : 2 * row + 2, 3 * column : 3 * column + 3] = torch.arange(1.0, 7.0).view(2, 3) + at
    forms = [whole.to_sparse(), whole.to_sparse_csr(), whole.to_sparse_csc()]
    if rows * columns:
        forms += [whole.to_sparse_bsr((2, 3)), whole.to_sparse_bsc((2, 3))]
    for form in forms:
        assert np.array_equal(dense_of(form), whole.numpy())


def coo(places: Any, values: Any, shape: tuple[int, ...]) -> torch.Tensor:
    return torch.sparse_coo_tensor(torch.tensor(places), torch.tensor(values), shape, check_invariants=False)


def csr(pointers: list[int], columns: list[int], shape: tuple[int, ...] = (2, 3)) -> torch.Tensor:
    parts = torch.tensor(pointers), torch.tensor(columns), torch.ones(len(columns))
    return torch.sparse_compressed_tensor(*parts, shape, layout=torch.sparse_csr, check_invariants=False)


FAULTS = {
    "twice": (coo([[1, 1, 0], [2, 2, 0]], [1.0, 1.0, 1.0], (3, 3)), r"has several values at index \(1, 2\)"),
    "outside": (coo([[0, 3], [0, 0]], [1.0, 1.0], (3, 3)), "has an index outside its shape"),
    "negative": (coo([[0, -1], [0, 0]], [1.0, 1.0], (3, 3)), "has an index outside its shape"),
    "twice in a row": (csr([0, 2, 2], [1, 1]), r"has several values at index \(0, 1\)"),
    "backwards": (csr([0, 2, 1], [1]), "has pointers that do not run from 0 to its 1 indices"),
    "past the end": (csr([0, 1, 2**40], [1]), "has pointers that do not run from 0 to its 1 indices"),
    "column outside": (csr([0, 1, 1], [3]), "has an index outside its shape"),
    "batches": (torch.ones(2, 2, 2).to_sparse_csr(), "has 3 dimensions, and csr is read of two"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_sparse_tensors_that_make_no_sense_are_told(fault: str, tmp_path: Path) -> None:
    tensor, line = FAULTS[fault]
    torch.save({"fc.weight": tensor}, tmp_path / "m.pt")
    with pytest.raises(CheckpointError, match=rf"sparse tensor 'fc.weight' {line}.*; save it with .to_dense\(\)"):
        open_mask(tmp_path / "m.pt")


def test_what_sparse_tensors_may_become_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.save({str(at): coo([[0], [0]], [1.0], (2**30, 2**30)) for at in range(2)}, tmp_path / "m.pt")
    with pytest.raises(
        CheckpointError, match=r"would take more than 10\^15 bytes as plain ones.*; save them as boolean"
    ):
        open_mask(tmp_path / "m.pt")
    few = torch.ones(1, dtype=torch.long).expand(2, 10**8)  # places that have no bytes of their own
    values = torch.ones(1).expand(10**8)
    torch.save({"a": torch.sparse_coo_tensor(few, values, (2, 2), check_invariants=False)}, tmp_path / "m.pt")
    with pytest.raises(CheckpointError, match="which are expanded or share their values"):
        open_mask(tmp_path / "m.pt")
    monkeypatch.setattr(budget, "UNPACKED", 0)
    sp.save_npz(tmp_path / "m.npz", sp.coo_array(([True], ([0], [0])), shape=(2000, 2000)))
    with pytest.raises(MaskError, match="would take 4,000,000 bytes as plain ones"):
        open_as(tmp_path / "m.npz", "list")


def test_sparse_weights_are_weights(tmp_path: Path) -> None:
    weights = {f"fc{at}.weight": (torch.randn(8, 8, generator=GENERATOR) * LINEAR[0]) for at in range(2)}
    torch.save({name: one.to_sparse() for name, one in weights.items()}, tmp_path / "net.pt")
    mask = open_as(tmp_path / "net.pt", "dense")
    assert all(np.array_equal(mask.array(name), one.numpy() != 0) for name, one in weights.items())
    assert pai.prune(tmp_path / "net.pt", "magnitude", density=0.2) == pai.prune(weights, "magnitude", density=0.2)
    assert pai.prune({name: one.to_sparse() for name, one in weights.items()}, "magnitude", density=0.2).density > 0


@pytest.mark.parametrize("form", ["coo", "csr", "csc", "bsr", "dia"])
@pytest.mark.parametrize("made", [sp.csr_array, sp.csr_matrix])
def test_a_matrix_of_scipy_is_a_mask_without_a_name(form: str, made: Any, tmp_path: Path, pai: Pai) -> None:
    sp.save_npz(tmp_path / "m.npz", made(LINEAR.numpy().astype(np.int8)).asformat(form))
    assert np.array_equal(open_mask(tmp_path / "m.npz").array("m"), LINEAR.numpy() != 0)  # as a graph by itself
    with pytest.raises(MaskError, match="1 arrays without names"):
        open_as(tmp_path / "m.npz", None)
    torch.save({"fc.weight": torch.ones(6, 8)}, tmp_path / "net.pt")
    words = ("convert", tmp_path / "m.npz", "--names-from", tmp_path / "net.pt", "-o", tmp_path / "out.safetensors")
    assert pai(*words).status == 0
    assert np.array_equal(open_mask(tmp_path / "out.safetensors").array("fc.weight"), LINEAR.numpy())


def rewritten(path: Path, **parts: Any) -> None:
    with np.load(path) as held:
        np.savez(path, **({name: held[name] for name in held.files} | parts))


@pytest.mark.parametrize(
    ("parts", "line"),
    [
        ({"format": b"xyz"}, "are of no sparse matrix of SciPy's"),
        ({"format": np.zeros(5000)}, "array 'format' is no word"),
        ({"shape": np.array([6.0, 8.0])}, "are of no sparse matrix of SciPy's"),
        ({"shape": np.array([6, -8])}, "are of no sparse matrix of SciPy's"),
        ({"indptr": np.arange(5)}, "its sparse matrix has pointers of shape"),
        ({"format": b"coo"}, "its sparse matrix lacks its array 'row'; save it again"),
        ({"indices": np.zeros(3, int)}, "its sparse matrix has pointers that do not run"),
        ({"data": np.ones((2, 2))}, "its sparse matrix has blocks of"),
        ({"shape": np.array([2**40, 2**40])}, "would take more than"),
    ],
    ids=["format", "long format", "floats", "negative", "pointers", "parts", "indices", "values", "huge"],
)
def test_matrices_of_scipy_that_make_no_sense_are_told(parts: dict[str, Any], line: str, tmp_path: Path) -> None:
    sp.save_npz(tmp_path / "m.npz", sp.csr_array(LINEAR.numpy()))
    rewritten(tmp_path / "m.npz", **parts)
    names = {"fc.weight": torch.ones(6, 8)}
    torch.save(names, tmp_path / "net.pt")
    with pytest.raises(PaiError) as caught:
        pai.convert(tmp_path / "m.npz", names_from=tmp_path / "net.pt")
    assert line in str(caught.value)


def test_damaged_bytes_of_a_matrix_are_told(tmp_path: Path) -> None:
    path = tmp_path / "m.npz"
    sp.save_npz(path, sp.csr_array(LINEAR.numpy()), compressed=False)
    with zipfile.ZipFile(path) as archive:
        begin = archive.getinfo("data.npy").header_offset
    damaged = bytearray(path.read_bytes())
    damaged[begin + 170] ^= 1
    path.write_bytes(damaged)
    with pytest.raises(PaiError):
        open_as(path, "list").array("")
