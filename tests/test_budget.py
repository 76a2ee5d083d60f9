"""Work follows the bytes of a file, not the sizes that it tells; and what honest files need is still read."""

from __future__ import annotations

import io
import json
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import Pai, random_mask, save_mask

from pai_cli.data.arrays import check_labels
from pai_cli.data.npz import open_npz
from pai_cli.data.plain_pickle import read_plain
from pai_cli.errors import CheckpointError, DataError, DensityError, MaskError, MaskMismatchError, OutputError, PaiError
from pai_cli.files import budget
from pai_cli.files.checkpoints import open_checkpoint
from pai_cli.files.densities import read_densities
from pai_cli.files.mask_pieces import MaskOutline, write_mask_pieces
from pai_cli.files.masks import MaskFile, MaskToWrite, write_mask
from pai_cli.files.opening import open_mask
from pai_cli.files.pickle_scan import NonsenseError, scan
from pai_cli.files.pickles import load_pickle
from pai_cli.files.results import FIELDS, check_results
from pai_cli.pruning import layers as pruning_layers
from pai_cli.pruning.layers import given_densities
from pai_cli.ranking import entrants
from pai_cli.spectral.layout import Layout

PROTOCOL = b"\x80\x02"


def torch_zip(path: Path, program: bytes) -> Path:
    """A file as `torch.save` writes it, with this pickle."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", PROTOCOL + program + b".")
        archive.writestr("archive/byteorder", "little")
        archive.writestr("archive/version", "3\n")
    return path


def text(value: str) -> bytes:
    return b"X" + struct.pack("<I", len(value)) + value.encode()


def doubled(times: int) -> bytes:
    """A tuple of itself twice, so many times over."""
    return b"K\1q\0" + b"".join(b"h" + bytes([i]) + b"h" + bytes([i]) + b"\x86q" + bytes([i + 1]) for i in range(times))


TENSOR = (
    b"ctorch._utils\n_rebuild_tensor_v2\n((U\x07storagectorch\nFloatStorage\nU\x010U\x03cpuJ%stQK\0"
    b"K\4K\4\x86K\4K\1\x86\x89ccollections\nOrderedDict\n)RtR"
)

BOMBS = {
    "a list that holds itself": (b"]q\0(" + b"h\0" * 300 + b"e", "make containers of 731,438,127,090,301 things"),
    "a dict that holds itself": (
        b"}q\0(" + b"".join(b"K" + bytes([i]) + b"h\0" for i in range(250)) + b"u",
        "make containers of 245,121,109,437,751 things",
    ),
    "lists doubled": (
        b"]q\0" + b"".join(b"](h" + bytes([i]) + b"h" + bytes([i]) + b"eq" + bytes([i + 1]) for i in range(70)),
        "holds a list, not a state dict",
    ),
    "a key doubled": (b"}" + doubled(60) + b"K\1s", "has a key that is built of too many things"),
    "a deep key": (b"})" + b"\x85" * 200_000 + b"K\1s", "nests tuples more than 100 deep"),
    "a large number as key": (b"}\x8a\x09" + b"\xff" * 8 + b"\0K\1s", "too large a number"),
    "a set of doubled": (b"c__builtin__\nset\n](" + doubled(60) + b"e\x85R", "calls are given more than 10^15 values"),
    "bytes by number": (b"c__builtin__\nbytearray\nJ\xff\xff\xff\x7f\x85R", "calls are given 2,147,483,649 values"),
    "a tensor by number": (b"ctorch\nFloatTensor\nJ\xff\xff\xff\x7f\x85R", "makes a tensor by torch.FloatTensor"),
    "a tensor by name of another": (
        b"ctorch._tensor\n_rebuild_from_type_v2\n(ctorch\nFloatTensor\nNJ\xff\xff\xff\x7f\x85NtR",
        "makes a tensor by torch.FloatTensor",
    ),
    "text encoded again and again": (
        b"](c_codecs\nencode\nq\0" + text("a" * 200_000) + text("latin1") + b"\x86q\1R" + b"h\0h\1R" * 9_000 + b"e",
        "its pickle's calls are given",
    ),
    "a state given again and again": (
        b"}q\0(" + b"".join(b"J" + struct.pack("<i", i) + b"N" for i in range(2_000)) + b"u"
        + b"ccollections\nOrderedDict\n)R" + b"h\0b" * 20_000,
        "its pickle's calls are given",
    ),
    "a storage of any size": (
        b"}" + text("w") + TENSOR % struct.pack("<i", 2**31 - 1) + b"s",
        "tells of 8,589,934,588 bytes of numbers",
    ),
    "text longer than the file": (b"X" + struct.pack("<I", 2**31), "damaged: its pickle tells of 2,147,483,648 bytes where"),
    "a large memo": (b"K\1r\xff\xff\xff\x7f", "numbers a thing 2,147,483,647"),
}  # fmt: skip


@pytest.mark.parametrize("name", BOMBS)
def test_pickles_are_refused_before_they_run(tmp_path: Path, name: str) -> None:
    program, said = BOMBS[name]
    path = torch_zip(tmp_path / "a.pt", program)
    with pytest.raises(PaiError) as told:
        open_mask(path)
    assert str(told.value).startswith(f"{path}: ")
    assert said in str(told.value)
    assert "\n" not in str(told.value)


def test_the_older_format_is_followed_too(tmp_path: Path) -> None:
    stream = io.BytesIO()
    torch.save({}, stream, _use_new_zipfile_serialization=False)
    head, _, rest = stream.getvalue().rpartition(b"\x80\x02}q\x00.")
    path = tmp_path / "a.pt"
    path.write_bytes(head + PROTOCOL + b"}" + doubled(60) + b"K\1s." + rest)
    with pytest.raises(CheckpointError, match="a key that is built of too many things"):
        load_pickle(path, trust=False)
    path.write_bytes(head + PROTOCOL)
    with pytest.raises(CheckpointError, match="damaged: its pickle stream has no end; copy it again"):
        load_pickle(path, trust=False)


@pytest.mark.parametrize("zipped", [True, False])
def test_expanded_tensors_count_in_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, zipped: bool) -> None:
    path = tmp_path / "a.pt"
    torch.save({"w": torch.ones(1).expand(40_000, 40_000)}, path, _use_new_zipfile_serialization=zipped)
    with pytest.raises(CheckpointError, match=r"make tensors of 6,400,000,000 bytes.* save each with .clone\(\)"):
        open_checkpoint(path)
    one = torch.ones(100, 100)
    torch.save({f"w{k}": one.view(100, 100) for k in range(40)}, path, _use_new_zipfile_serialization=zipped)
    assert (
        len(open_checkpoint(path).shapes) == 40
    )  # layers may share their weights, of small files as many as they like
    monkeypatch.setattr(budget, "ALWAYS", 0)
    torch.save({f"w{k}": one.view(100, 100) for k in range(90)}, path, _use_new_zipfile_serialization=zipped)
    with pytest.raises(CheckpointError, match="make tensors of 3,600,000 bytes"):
        open_checkpoint(path)


def test_a_small_expanded_mask_is_read(tmp_path: Path) -> None:
    torch.save({"w": torch.ones(1, dtype=torch.bool).expand(300, 300)}, tmp_path / "a.pt")
    assert open_mask(tmp_path / "a.pt").array("w").all()


def test_what_trainings_save_is_followed_to_its_end(tmp_path: Path) -> None:
    """Optimizers, tied weights, parameters with attributes, sparse tensors, numbers of all kinds, tuples as keys."""
    model = torch.nn.Sequential(torch.nn.Linear(8, 8), torch.nn.Linear(8, 8))
    model[1].weight = model[0].weight
    model[0].bias.told = {"a": (1, 2)}  # type: ignore[assignment]
    state = {"step": torch.tensor(1.0), "exp_avg": torch.ones(8, 8)}
    optimizer = {"state": {0: state, 1: state}, "param_groups": [{"lr": 0.1, "betas": (0.9, 0.999), "params": [0, 1]}]}
    saved = {
        **{"model": model.state_dict(), "optimizer": optimizer, "parameter": model[0].bias},
        **{"sparse": torch.eye(3).to_sparse(), "facts": [1, -1, 2**40, 1.5, None, True, b"ab", "x" * 300, {(1, 2): 3}]},
    }
    for zipped in (True, False):
        torch.save(saved, tmp_path / "a.pt", _use_new_zipfile_serialization=zipped)
        assert len(open_checkpoint(tmp_path / "a.pt").shapes) == 4


@pytest.mark.parametrize(
    "program",
    [b"", b"K", b"h\1.", b"e.", b"\x85.", b"\xff.", b"cx\n", b"X\4\0\0\0abc", b"\x82\1.", b"gx\n.", b"R.", b"b."],
)
def test_streams_that_make_no_sense(program: bytes) -> None:
    with pytest.raises(ValueError, match="pickle"):
        scan(PROTOCOL + program)


@pytest.mark.parametrize("protocol", range(6))
def test_every_protocol_of_python_is_followed(protocol: int) -> None:
    import pickle

    values = [
        1,
        -5,
        2**70,
        2.5,
        "e" * 300,
        b"\0\xff" * 200,
        (1,),
        (1, 2, 3, 4),
        {1: [2]},
        {3},
        frozenset((4,)),
        bytearray(b"a"),
    ]
    shared: list[object] = []
    data = pickle.dumps([*values, shared, shared, None, True, np.ones(3), Path], protocol)
    assert scan(b"before" + data + b"after", 6) == 6 + len(data)


@pytest.mark.parametrize(
    ("program", "said"),
    [
        (b"}" + doubled(60) + b"K\1s.", "built of too many things"),
        (b"}r\xff\xff\xff\x7f.", "numbers a thing 2,147,483,647"),
        (b"}\x8e" + struct.pack("<Q", 2**40) + b".", "tells of 1,099,511,627,776 bytes where 1 follow"),
        (b"\x96" + struct.pack("<Q", 2**60) + b".", "tells of 1,152,921,504,606,846,976 bytes where 1 follow"),
    ],
)
def test_pickles_of_data_are_refused_before_they_run(tmp_path: Path, program: bytes, said: str) -> None:
    (tmp_path / "a").write_bytes(PROTOCOL + program)
    with pytest.raises(DataError, match=said):
        read_plain(tmp_path / "a")


def test_labels_are_numbers_before_they_are_an_array() -> None:
    itself: list[object] = []
    itself += [itself] * 300
    for labels in (itself, ["a" * 1_000] * 10, [np.zeros(1_000)] * 10):
        with pytest.raises(DataError, match="x: labels of "):
            check_labels(labels, 10, "x")


def npz(path: Path, shape: tuple[int, ...], method: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", method) as archive, archive.open("w.npy", "w") as member:
        np.lib.format.write_array(member, np.zeros(shape, np.bool_))
    return path


def test_an_honest_mask_of_zeros_is_read(tmp_path: Path) -> None:
    path = npz(tmp_path / "a.npz", (5_000, 5_000))
    assert path.stat().st_size < 30_000
    assert not open_mask(path).array("w").any()


def test_arrays_of_data_unpack_within_bounds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    np.savez_compressed(tmp_path / "d.npz", x=np.zeros((2_000, 100), np.uint8), y=np.arange(2_000) % 2)
    assert len(open_npz(tmp_path / "d.npz", train=True).labels) == 2_000
    monkeypatch.setattr(budget, "UNPACKED", 1_000)
    with pytest.raises(DataError, match=r"x would unpack from .* to 200,128 bytes, more than 1,000"):
        open_npz(tmp_path / "d.npz", train=True)


def test_members_may_not_claim_the_same_bytes(tmp_path: Path) -> None:
    """One member that is listed many times would be unpacked as often."""
    path = npz(tmp_path / "a.npz", (100, 100), zipfile.ZIP_STORED)
    data = path.read_bytes()
    begin, end = data.index(b"PK\1\2"), data.index(b"PK\5\6")
    directory = data[begin:end]
    several = b"".join(directory.replace(b"w.npy", f"{k}.npy".encode()) for k in range(9))
    tail = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 9, 9, len(several), begin, 0)
    path.write_bytes(data[:begin] + several + tail)
    with pytest.raises(MaskError, match="its members claim 91,152 bytes, and the file has"):
        open_mask(path)


def test_an_archive_has_so_many_members(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = npz(tmp_path / "a.npz", (3, 3))
    monkeypatch.setattr(budget, "MEMBERS", 0)
    with pytest.raises(MaskError, match="holds 1 members, more than 0"):
        open_mask(path)
    monkeypatch.setattr(budget, "DIRECTORY", 10)
    with pytest.raises(MaskError, match="its list of members takes 51 bytes, more than 10"):
        open_mask(path)
    torch.save({"w": torch.ones(2)}, tmp_path / "a.pt")
    with pytest.raises(CheckpointError, match="its list of members takes"):
        open_checkpoint(tmp_path / "a.pt")


def test_groups_divide_channels_wherever_masks_are_read_or_written(tmp_path: Path, pai: Pai) -> None:
    path = tmp_path / "a.safetensors"
    mask = {"conv": random_mask((10, 2, 3, 3))}
    for groups in (3, 20):
        with pytest.raises(MaskMismatchError, match=f"'conv' has 10 channels, which {groups} groups do not divide"):
            save_mask(path, mask, {"conv": Layout(groups)})
        outline = MaskOutline({"conv": (10, 2, 3, 3)}, {"conv": Layout(groups)}, {})
        with pytest.raises(MaskMismatchError, match="groups do not divide"):
            write_mask_pieces(path, outline, lambda _: [], packed=False, force=True)
    assert not path.exists()
    save_mask(path, mask, {"conv": Layout(5)})
    assert MaskFile(path).layout("conv") == Layout(5)
    path.write_bytes(path.read_bytes().replace(b'groups\\":5', b'groups\\":4'))
    for command in (("analyze", path, "--no-store"), ("convert", path, "-o", tmp_path / "b.safetensors")):
        done = pai(*command)
        assert done.status == 1
        assert (
            done.said[-1]
            == f"pai: error: {path}: 'conv' has 10 channels, which 4 groups do not divide; make the mask again"
        )


def test_a_layer_in_groups_unrolls_within_bounds(tmp_path: Path, pai: Pai) -> None:
    path = save_mask(tmp_path / "a.safetensors", {"conv": np.ones((60_000, 1, 1), np.bool_)}, {"conv": Layout(60_000)})
    done = pai("analyze", path, "--no-store")
    assert done.status == 1
    assert "'conv' unrolls to 60,000 x 60,000, more than 536,870,912 entries of a layer in groups" in done.err


def test_packed_shapes_are_checked_before_anyone_believes_them(tmp_path: Path) -> None:
    path = save_mask(tmp_path / "a.safetensors", {"w": random_mask((4, 4))}, packed=True)
    path.write_bytes(path.read_bytes().replace(b"[4,4]", b"[4,9]"))
    with pytest.raises(MaskError, match=r"is U8 of shape \(2,\), which cannot hold the bits of shape \(4, 9\)"):
        MaskFile(path)


@pytest.mark.parametrize("number", ["1" + "0" * 400, "-1" + "0" * 400, "2", "-1.5", "1e999"])
def test_densities_of_any_size_are_one_line(tmp_path: Path, number: str) -> None:
    path = tmp_path / "d.json"
    path.write_text(f'{{"conv1": {number}}}')
    with pytest.raises(DensityError) as told:
        read_densities(path)
    assert str(told.value).endswith("; must be above 0 and at most 1")
    assert len(str(told.value)) < 200 + len(str(path))


def test_many_names_and_globs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, small: Path, pai: Pai) -> None:
    path = tmp_path / "d.json"
    path.write_text(json.dumps({f"name{k}": 0.1 for k in range(50_000)} | {"*": 0.5}))
    assert len(read_densities(path)) == 50_001  # a second or so where each name was compared with all others: minutes
    path.write_text(json.dumps({"*" * (k + 1): 0.5 for k in range(5)}))
    arguments = ("prune", small, "--method", "magnitude", "--densities", path, "-o", tmp_path / "m.safetensors")
    assert pai(*arguments).status == 0
    monkeypatch.setattr(pruning_layers, "MOST_GLOBS", 4)
    done = pai(*arguments, "--force")
    assert done.status == 2
    assert "--densities: has more than 4 globs; give layers by name" in done.err


def test_names_are_looked_up_and_only_globs_compared() -> None:
    from pai_cli.models.network import PrunableLayer

    layer = PrunableLayer.__new__(PrunableLayer)
    object.__setattr__(layer, "name", "a[1].weight")
    assert given_densities((("a[1]", 0.5),), (layer,), (layer,)) == {"a[1].weight": 0.5}
    assert given_densities((("a*", 0.5), ("a[1].weight", 0.25)), (layer,), (layer,)) == {"a[1].weight": 0.25}


def test_wide_tables_are_read_and_not_all_correlated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pai: Pai) -> None:
    monkeypatch.setattr(entrants, "MOST_SCORES", 50)
    path = tmp_path / "t.csv"
    names = [f"m{k}" for k in range(51)]
    rows = [",".join([f"a{r}", *(str((k * 7 + r) % 5) for k in range(51)), f"0.{r + 4}"]) for r in range(3)]
    path.write_text("\n".join([",".join(["mask", *names, "accuracy"]), *rows]))
    done = pai("rank", "--table", path)
    assert done.status == 2
    assert "51 metrics, of which at most 50 are compared with accuracy; --metrics chooses" in done.err
    assert pai("rank", "--table", path, "--metrics", "m1,m2").status == 0
    done = pai("rank", "--table", path, "--group-by", "none-of-these")
    assert done.said[-1].endswith("and 13 more")


def test_a_large_field_of_a_results_table_is_told(tmp_path: Path) -> None:
    path = tmp_path / "results.csv"
    path.write_text(",".join(FIELDS) + "\n" + "a" * 200_000 + "," * 12 + "\n")
    row = dict.fromkeys(FIELDS, "1")
    with pytest.raises(OutputError, match=r"line 2: field larger than field limit .*; mend it"):
        check_results(path, row, own=False, force=True)
    path.write_text("a" * 200_000 + "\n")
    with pytest.raises(OutputError, match="field larger than field limit"):
        check_results(path, row, own=False, force=True)


@pytest.mark.parametrize("program", [b"cnumpy\nndarray\n)\x81", b"cnumpy\nndarray\n)R(K\1)cnumpy\ndtype\n)\x81\x89NtR"])
def test_arrays_that_were_told_nothing(tmp_path: Path, program: bytes) -> None:
    path = torch_zip(tmp_path / "a.pt", b"}" + text("w") + program + b"s")
    with pytest.raises(CheckpointError):
        open_mask(path)


def test_arrays_whose_type_was_told_nothing(tmp_path: Path) -> None:
    array = b"cnumpy\nndarray\n)R(K\1)cnumpy\ndtype\n)\x81\x89" + text("") + b"tb"
    path = torch_zip(tmp_path / "a.pt", b"}" + text("w") + array + b"s")
    with pytest.raises(CheckpointError, match="damaged: it holds a NumPy array of type ''"):
        open_mask(path)


def test_a_program_that_has_no_end() -> None:
    with pytest.raises(NonsenseError, match="has no end"):
        scan(PROTOCOL + b"K\1")


def test_a_mask_with_a_layout_of_no_layer_is_not_written(tmp_path: Path) -> None:
    made = MaskToWrite({"b": np.ones(6, np.bool_)}, {"b": Layout(3)}, {})
    write_mask(tmp_path / "a.safetensors", made, packed=False, force=False)
    assert MaskFile(tmp_path / "a.safetensors").layout("b").groups == 3
