"""Checkpoints: what is read, what is refused and in which words, and that nothing in a file is run unasked."""

import ast
import hashlib
import json
import os
import pickle
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import CHARACTERS
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import load, save
from safetensors.torch import save_file
from torch import nn

from pai_cli.errors import CheckpointError, NotFiniteError, UntrustedPickleError
from pai_cli.files.canonical import canonical_bytes
from pai_cli.files.checkpoints import open_checkpoint
from pai_cli.files.messages import one_line, some_names

STATE = {"fc.weight": torch.arange(6.0).reshape(2, 3), "fc.bias": torch.tensor([1.0, -1.0])}
INSTEAD = "save model.state_dict(), best as .safetensors"


class Config:
    """A class of the user's own, as training scripts pickle them beside their weights."""


class Evil:
    """Unpickling this creates a file."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return (os.mkdir, (self.path,))


class Failing:
    """Unpickling this raises."""

    def __reduce__(self):
        return (int, ("x",))


def small_network():
    return nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))


def read_all(path, **options):
    checkpoint = open_checkpoint(path, **options)
    return {name: checkpoint.array(name) for name in checkpoint.shapes}


def refusal(path, error=CheckpointError, **options):
    """The one line with which opening and reading the checkpoint is refused, without its path."""
    with pytest.raises(error) as caught:
        read_all(path, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value).replace(str(path.parent) + os.sep, "")


def assert_state(checkpoint):
    assert {name: checkpoint.array(name).tolist() for name in checkpoint.shapes} == {
        name: tensor.tolist() for name, tensor in STATE.items()
    }


def prefixed(prefix, state=STATE):
    return {prefix + name: tensor for name, tensor in state.items()}


WRAPPED = [
    pytest.param(STATE, "", id="plain"),
    pytest.param({"state_dict": STATE, "epoch": 3}, "state dict under 'state_dict'", id="state_dict"),
    pytest.param({"model": STATE, "optimizer": {"state": {0: STATE}}}, "state dict under 'model'", id="model"),
    pytest.param({"model_state_dict": STATE}, "state dict under 'model_state_dict'", id="model_state_dict"),
    pytest.param({"net": STATE, "acc": 93.2, "epoch": 199}, "state dict under 'net'", id="net"),
    pytest.param({"model": {"state_dict": STATE}}, "state dict under 'model.state_dict'", id="nested"),
    pytest.param({"model": "resnet20", "state_dict": STATE}, "state dict under 'state_dict'", id="model-is-a-name"),
    pytest.param({"best": torch.tensor(0.9), "state_dict": STATE}, "state dict under 'state_dict'", id="tensor-beside"),
    pytest.param(prefixed("module."), "prefix 'module.' stripped", id="data-parallel"),
    pytest.param(
        {"model": prefixed("_orig_mod.module.")},
        "state dict under 'model', prefixes '_orig_mod.', 'module.' stripped",
        id="compiled-data-parallel",
    ),
    pytest.param({**STATE, "version": 2, "note": "x"}, "", id="non-tensors-ignored"),
]


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize(("held", "description"), WRAPPED)
def test_state_dict_is_found(tmp_path, held, description, legacy):
    path = tmp_path / "net.pt"
    torch.save(held, path, _use_new_zipfile_serialization=not legacy)
    checkpoint = open_checkpoint(path)
    assert checkpoint.description == description
    assert checkpoint.shapes == {"fc.weight": (2, 3), "fc.bias": (2,)}
    assert list(checkpoint.shapes) == ["fc.weight", "fc.bias"]
    assert checkpoint.module is None
    assert checkpoint.path == path
    assert_state(checkpoint)


def test_tensors_saved_on_a_gpu_that_is_not_here(tmp_path: Path) -> None:
    """Where a checkpoint's tensors stood when they were saved does not matter."""
    state = {"a.weight": torch.randn(4, 3), "b.weight": torch.randn(2, 4).half()}
    torch.save(state, tmp_path / "cpu.pt")
    with zipfile.ZipFile(tmp_path / "cpu.pt") as before, zipfile.ZipFile(tmp_path / "gpu.pt", "w") as after:
        for member in before.namelist():
            data = before.read(member)
            if member.endswith("data.pkl"):
                assert b"X\x03\x00\x00\x00cpu" in data
                data = data.replace(b"X\x03\x00\x00\x00cpu", b"X\x06\x00\x00\x00cuda:0")
            after.writestr(member, data)
    found = open_checkpoint(tmp_path / "gpu.pt")
    assert found.shapes == {"a.weight": (4, 3), "b.weight": (2, 4)}
    assert all(np.array_equal(found.array(name), tensor.numpy()) for name, tensor in state.items())


@pytest.mark.parametrize("name", ["net.safetensors", "net.pt", "net"])
def test_safetensors_by_content(tmp_path, name):
    save_file(prefixed("module."), tmp_path / name)
    checkpoint = open_checkpoint(tmp_path / name)
    assert checkpoint.description == "prefix 'module.' stripped"
    assert_state(checkpoint)


@pytest.mark.parametrize("name", ["net.safetensors", "net.bin", "net.ckpt"])
def test_pickle_by_content(tmp_path, name):
    torch.save(STATE, tmp_path / name)
    assert_state(open_checkpoint(tmp_path / name))


@pytest.mark.parametrize("kind", ["pt", "safetensors"])
@pytest.mark.parametrize(
    ("dtype", "floating", "read"),
    [
        (torch.float64, True, np.float64),
        (torch.float32, True, np.float32),
        (torch.float16, True, np.float16),
        (torch.bfloat16, True, np.float32),
        (torch.int64, False, np.int64),
        (torch.bool, False, np.bool_),
    ],
)
def test_dtypes(tmp_path, kind, dtype, floating, read):
    tensors = {"a": torch.tensor([[0.0, 1.0], [3.0, 0.0]]).to(dtype)}
    path = tmp_path / f"a.{kind}"
    (save_file if kind == "safetensors" else torch.save)(tensors, path)
    checkpoint = open_checkpoint(path)
    assert checkpoint.floating("a") is floating
    assert checkpoint.array("a").dtype == read
    assert checkpoint.array("a").tolist() == tensors["a"].tolist()


def test_sha256_is_of_the_bytes(tmp_path):
    path = tmp_path / "net.pt"
    torch.save(STATE, path)
    assert open_checkpoint(path).sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


def test_safetensors_without_torch(tmp_path):
    save_file(STATE, tmp_path / "net.safetensors")
    code = (
        "import sys; from pathlib import Path; from pai_cli.files.checkpoints import open_checkpoint\n"
        "c = open_checkpoint(Path(sys.argv[1])); [c.array(n) for n in c.shapes]; c.sha256\n"
        "sys.exit('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path / "net.safetensors")], check=False)
    assert done.returncode == 0


# Sharded


def write_sharded(folder, **changed):
    save_file({"fc.weight": STATE["fc.weight"]}, folder / "b.safetensors")
    save_file({"fc.bias": STATE["fc.bias"]}, folder / "a.safetensors")
    index = {"weight_map": {"fc.weight": "b.safetensors", "fc.bias": "a.safetensors"} | changed}
    path = folder / "model.safetensors.index.json"
    path.write_text(json.dumps(index, indent=2))
    return path


def test_sharded(tmp_path):
    checkpoint = open_checkpoint(write_sharded(tmp_path))
    assert list(checkpoint.shapes) == ["fc.weight", "fc.bias"]
    assert_state(checkpoint)
    both = (tmp_path / "a.safetensors").read_bytes() + (tmp_path / "b.safetensors").read_bytes()
    assert checkpoint.sha256 == hashlib.sha256(both).hexdigest()


@pytest.mark.parametrize(
    "shard", ["../b.safetensors", "/etc/passwd", "x/b.safetensors", "..", "x\\b", "x\0", "", "\ud800"]
)
def test_sharded_stays_in_its_folder(tmp_path, shard):
    path = write_sharded(tmp_path, **{"fc.weight": shard})
    assert refusal(path) == (
        f"{path.name}: shard {shard!r} is not a plain file name in the same folder; correct the index"
    )


def test_sharded_faults(tmp_path):
    path = write_sharded(tmp_path, **{"fc.weight": "c.safetensors"})
    assert refusal(path) == "c.safetensors: no such file (a shard of model.safetensors.index.json)"
    path = write_sharded(tmp_path, **{"fc.weight": "a.safetensors"})
    assert refusal(path) == (
        "a.safetensors: tensor 'fc.weight' is not in this shard, though model.safetensors.index.json says so; "
        "copy the whole set again"
    )
    path.write_text('{"weight_map": ')
    assert refusal(path).startswith("model.safetensors.index.json: is not valid JSON (")
    for text in ('{"a": 1}', '{"abc": {}}', '{"weight_map": {"a": 1}}', '{"weight_map": []}'):
        path.write_text(text)
        assert refusal(path) == (
            "model.safetensors.index.json: not a checkpoint index: it has no 'weight_map' from tensor names to "
            "shard file names; give *.index.json of a sharded checkpoint"
        )
    path.write_text('{"weight_map": {}}')
    assert refusal(path) == f"model.safetensors.index.json: holds no tensors; {INSTEAD}"


# Refused


HELD = [
    pytest.param(
        {"network": STATE, "acc": 93, "epoch": 1},
        "x.pt: no state dict at the top nor under 'state_dict', 'model_state_dict', 'model', 'net'; its top-level keys are "
        "'network', 'acc', 'epoch'; save the state dict alone, as in torch.save(checkpoint['network'], ...)",
        id="other-key",
    ),
    pytest.param(
        {**{f"k{i}": i for i in range(10)}, "network": STATE},
        "x.pt: no state dict at the top nor under 'state_dict', 'model_state_dict', 'model', 'net'; its top-level keys are "
        "'k0', 'k1', 'k2', 'k3', 'k4', 'k5', 'k6', 'k7' and 3 more; save the state dict alone, as in "
        "torch.save(checkpoint['network'], ...)",
        id="many-keys",
    ),
    pytest.param([1, 2], f"x.pt: holds a list, not a state dict; {INSTEAD}", id="list"),
    pytest.param(3, f"x.pt: holds an int, not a state dict; {INSTEAD}", id="int"),
    pytest.param(torch.ones(2), f"x.pt: holds a Tensor, not a state dict; {INSTEAD}", id="tensor"),
    pytest.param({"epoch": 3}, f"x.pt: holds no tensors (its keys: 'epoch'); {INSTEAD}", id="no-tensors"),
    pytest.param({}, f"x.pt: holds no tensors (its keys: none); {INSTEAD}", id="empty"),
    pytest.param(
        {"a": torch.ones(2), "module.a": torch.ones(2)},
        "x.pt: tensors 'a' and 'module.a' are both 'a' without their prefix; save one network in one file",
        id="collision",
    ),
    pytest.param(
        {"a": torch.ones(2).to(torch.float8_e4m3fn)},
        "x.pt: tensor 'a' (float8_e4m3fn, strided) cannot be read; convert it to a dense float32 tensor",
        id="float8",
    ),
]


@pytest.mark.parametrize(("held", "message"), HELD)
def test_held_by_torch_save_but_no_state_dict(tmp_path, held, message):
    torch.save(held, tmp_path / "x.pt")
    assert refusal(tmp_path / "x.pt") == message


NEITHER = "neither a safetensors file nor one that torch.save wrote; it looks like"

CONTENTS = [
    (b"", "x.pt: the file is empty; copy it again"),
    (b"hello, this is some text", f"{NEITHER} text (it begins with 'hello, this is some text'): give one of those"),
    (b"\x80", f"{NEITHER} bytes of no known format: give one of those"),
    (b"\x89HDF\r\n\x1a\n", f"{NEITHER} an HDF5 file, as Keras writes: give one of those"),
    (b"\x93NUMPY\x01\x00v", f"{NEITHER} one NumPy array without a name (.npy): give one of those"),
    (b"GGUF\x03\x00\x00\x00", f"{NEITHER} a GGUF file, as llama.cpp reads: give one of those"),
    (b"\x1f\x8b\x08\x00", f"{NEITHER} a compressed archive, to be unpacked first: give one of those"),
    (pickle.dumps({"a": 1}), f"a Python pickle that torch.save did not write; {INSTEAD}"),
    (b"PK\x03\x04 and then nothing", "truncated or damaged (a zip file without its end); copy it again"),
]


@pytest.mark.parametrize("trust", [False, True])
@pytest.mark.parametrize(("content", "message"), CONTENTS)
def test_other_files(tmp_path, content, message, trust):
    (tmp_path / "x.pt").write_bytes(content)
    assert refusal(tmp_path / "x.pt", trust=trust) == f"x.pt: {message.removeprefix('x.pt: ')}"


@pytest.mark.parametrize("trust", [False, True])
@pytest.mark.parametrize("squeezed", ["data.pkl", "data/0"])
def test_a_torch_zip_with_a_compressed_member_is_not_unpacked(tmp_path, squeezed, trust):
    """A few megabytes of zeros, deflated, are gigabytes; torch.save stores its members as they are."""
    torch.save({"a": torch.zeros(1000)}, tmp_path / "stored.pt")
    with zipfile.ZipFile(tmp_path / "stored.pt") as stored, zipfile.ZipFile(tmp_path / "x.pt", "w") as archive:
        for name in stored.namelist():
            kind = zipfile.ZIP_DEFLATED if name.endswith(squeezed) else zipfile.ZIP_STORED
            archive.writestr(name, stored.read(name), compress_type=kind)
    assert refusal(tmp_path / "x.pt", trust=trust) == (
        f"x.pt: a zip file with compressed members, which torch.save never writes; {INSTEAD}"
    )


def test_a_zip_bomb_is_refused_at_once(tmp_path):
    with zipfile.ZipFile(tmp_path / "x.pt", "w", zipfile.ZIP_DEFLATED) as archive:
        with archive.open("x/data.pkl", "w") as member:
            for _ in range(8):
                member.write(bytes(1 << 20))
        archive.writestr("x/version", b"3\n")
    assert "compressed members" in refusal(tmp_path / "x.pt")


def test_missing_and_folder(tmp_path):
    assert refusal(tmp_path / "none.pt") == "none.pt: no such file"
    assert "is a directory" in refusal(tmp_path)


def test_other_zip(tmp_path):
    with zipfile.ZipFile(tmp_path / "x.pt", "w") as archive:
        archive.writestr("a/b.txt", "x")
    assert refusal(tmp_path / "x.pt") == f"x.pt: a zip file, but not one that torch.save wrote; {INSTEAD}"


@pytest.mark.parametrize("keep", [0.3, 0.9, 0.999])
@pytest.mark.parametrize("legacy", [False, True])
def test_truncated_pickle(tmp_path, keep, legacy):
    path = tmp_path / "x.pt"
    torch.save({"a": torch.ones(100, 100)}, path, _use_new_zipfile_serialization=not legacy)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(keep * len(whole))])
    assert "damaged" in refusal(path)
    assert "copy it again" in refusal(path)


LOOKS = "it looks like text (it begins with '{}'): give a safetensors file, or one that torch.save wrote"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"abc", "x.safetensors: not a safetensors file (3 bytes; its header alone takes 8); " + LOOKS.format("abc")),
        (b"not one of those", "x.safetensors: not a safetensors file; " + LOOKS.format("not one of those")),
    ],
)
def test_faulty_safetensors(tmp_path, content, message):
    (tmp_path / "x.safetensors").write_bytes(content)
    assert refusal(tmp_path / "x.safetensors") == message


def test_truncated_safetensors(tmp_path):
    path = tmp_path / "x.safetensors"
    save_file(STATE, path)
    path.write_bytes(path.read_bytes()[:-4])
    assert "truncated" in refusal(path)


def test_safetensors_names_that_collide(tmp_path):
    path = tmp_path / "x.safetensors"
    save_file({"a": torch.ones(2), "module.a": torch.ones(2)}, path)
    assert "are both 'a' without their prefix" in refusal(path)


# Pickles that need code


def untrusted(path, needs):
    assert refusal(path, UntrustedPickleError) == (
        f"{path.name}: cannot be read without running code ({needs}); {INSTEAD}, "
        "or give trust=True to run the file's code if you trust its maker"
    )


@pytest.mark.parametrize("legacy", [False, True])
def test_malicious_pickle_is_not_run(tmp_path, legacy):
    target = tmp_path / "made"
    path = tmp_path / "evil.pt"
    torch.save({"state_dict": STATE, "x": Evil(target)}, path, _use_new_zipfile_serialization=not legacy)
    untrusted(path, f"{os.name}.mkdir")
    assert not target.exists()
    path.write_bytes(pickle.dumps(Evil(target)))
    assert refusal(path, trust=True) == f"evil.pt: a Python pickle that torch.save did not write; {INSTEAD}"
    assert not target.exists()


def test_own_class_is_named_first(tmp_path):
    path = tmp_path / "x.pt"
    torch.save({"model": STATE, "config": Config(), "net": nn.Linear(2, 2)}, path)
    untrusted(path, f"{Config.__module__}.Config, torch.nn.modules.linear.Linear")
    assert_state(open_checkpoint(path, trust=True))


def test_other_pickle_protocol(tmp_path):
    path = tmp_path / "x.pt"
    torch.save(STATE, path, pickle_protocol=4)
    untrusted(path, "its pickle protocol is 4, torch.save's own is 2")
    assert_state(open_checkpoint(path, trust=True))


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("wrap", [lambda m: m, lambda m: {"model": m}, nn.DataParallel])
def test_whole_module(tmp_path, wrap, legacy):
    path = tmp_path / "x.pt"
    network = small_network()
    torch.save(wrap(network), path, _use_new_zipfile_serialization=not legacy)
    assert "torch.nn" in refusal(path, UntrustedPickleError)
    checkpoint = open_checkpoint(path, trust=True)
    assert isinstance(checkpoint.module, nn.Sequential)
    assert list(checkpoint.shapes) == list(network.state_dict())
    np.testing.assert_array_equal(checkpoint.array("0.weight"), network[0].weight.detach().numpy())


def test_trusted_code_that_fails(tmp_path):
    path = tmp_path / "x.pt"
    torch.save({"a": Failing()}, path)
    assert refusal(path, trust=True) == (
        "x.pt: cannot be loaded even with trust=True: ValueError: invalid literal for int() with base 10: 'x'; "
        f"copy it again, or {INSTEAD}"
    )


def test_trusted_class_that_is_gone(tmp_path, monkeypatch):
    path = tmp_path / "x.pt"
    torch.save({"a": Config()}, path)
    monkeypatch.delattr(sys.modules[Config.__module__], "Config")
    assert refusal(path, trust=True).endswith(f"; make its classes importable (PYTHONPATH), or {INSTEAD}")


@pytest.mark.parametrize("trust", [False, True])
def test_torchscript_is_refused(tmp_path, trust):
    # The layout that marks one; torch.jit itself is deprecated and warns.
    with zipfile.ZipFile(tmp_path / "x.pt", "w") as archive:
        for name in ("data.pkl", "constants.pkl", "code/__torch__.py"):
            archive.writestr(f"x/{name}", b"\x80\x02.")
    assert refusal(tmp_path / "x.pt", trust=trust) == (
        f"x.pt: a TorchScript archive, which trust=True does not open either; {INSTEAD}, "
        "from the model it was compiled from"
    )


@pytest.mark.parametrize("kind", ["pt", "safetensors"])
@pytest.mark.parametrize(("value", "word"), [(np.nan, "nan"), (np.inf, "inf"), (-np.inf, "-inf")])
def test_finite_array(tmp_path, kind, value, word):
    path = tmp_path / f"x.{kind}"
    tensors = {"a": torch.ones(2, 3), "b": torch.ones(2, 3), "c": torch.ones(2, dtype=torch.bool)}
    tensors["b"][1, 0] = value
    (save_file if kind == "safetensors" else torch.save)(tensors, path)
    checkpoint = open_checkpoint(path)
    assert checkpoint.finite_array("a").tolist() == checkpoint.array("a").tolist()
    with pytest.raises(NotFiniteError) as caught:
        checkpoint.finite_array("b")
    assert str(caught.value) == (
        f"{path}: tensor 'b' holds {word} at index 3; take a checkpoint from before the weights diverged"
    )
    with pytest.raises(CheckpointError) as caught:
        checkpoint.finite_array("c")
    assert str(caught.value) == f"{path}: tensor 'c' holds bool, not weights; is this a mask?"


def test_one_line():
    assert one_line(ValueError("a\nb")) == "ValueError: a"
    assert one_line(ValueError("a. \nb")) == "ValueError: a"
    assert one_line(ValueError("x" * 300)) == f"ValueError: {'x' * 79}…{'x' * 80}"
    assert one_line(ValueError()) == "ValueError"


def test_some_names():
    assert some_names([]) == ""
    assert some_names("abc") == "a, b, c"
    assert some_names(iter("abcd")) == "a, b, c and 1 more"
    assert some_names("abcd", 1) == "a and 3 more"


@pytest.mark.parametrize("folder", ["files", "models", "pruning"])
def test_the_first_line_of_a_module_docstring_stands_alone(folder):
    for path in (Path(__file__).parents[1] / "pai_cli" / folder).glob("*.py"):
        lines = (ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or "").splitlines()
        assert not any(lines[1:2]), path


# Canonical bytes

ARRAYS = st.dictionaries(
    st.text(CHARACTERS, min_size=1).filter(lambda name: name != "__metadata__"),
    st.lists(st.integers(0, 255), max_size=9).map(lambda values: np.array(values, np.uint8)),
    min_size=1,  # for none at all, the library itself writes a header that is no JSON
    max_size=5,
)


@given(ARRAYS, st.dictionaries(st.text(CHARACTERS), st.text(CHARACTERS), max_size=6), st.booleans())
def test_canonical_bytes_round_trip(arrays, metadata, with_metadata):
    data = canonical_bytes(save(arrays, metadata if with_metadata else None))
    assert canonical_bytes(data) == data
    assert {name: array.tolist() for name, array in load(data).items()} == {
        name: array.tolist() for name, array in arrays.items()
    }
    length = int.from_bytes(data[:8], "little")
    assert (8 + length) % 8 == 0
    header = json.loads(data[8 : 8 + length])
    if with_metadata:
        assert header["__metadata__"] == metadata
        assert list(header["__metadata__"]) == sorted(metadata)


@given(ARRAYS, st.dictionaries(st.text(CHARACTERS), st.text(CHARACTERS), min_size=2, max_size=6))
def test_canonical_bytes_do_not_depend_on_order(arrays, metadata):
    turned = dict(reversed(metadata.items()))
    assert canonical_bytes(save(arrays, metadata)) == canonical_bytes(save(arrays, turned))


def test_canonical_bytes_golden():
    """A change here changes the bytes, so the checksums, of every file that `pai` writes."""
    data = canonical_bytes(save({"w": np.array([1, 0], np.uint8)}, {"b": "2", "a": "ä"}))
    header = '{"__metadata__":{"a":"ä","b":"2"},"w":{"data_offsets":[0,2],"dtype":"U8","shape":[2]}}'.encode()
    padded = header + b" " * (-len(header) % 8)
    assert data == len(padded).to_bytes(8, "little") + padded + b"\x01\x00"


@pytest.mark.parametrize("data", [b"", b"abc", b"\xff" * 20, (2).to_bytes(8, "little") + b"[]"])
def test_canonical_bytes_of_something_else(data):
    with pytest.raises(ValueError, match="not a safetensors file"):
        canonical_bytes(data)


def test_a_mask_is_no_checkpoint() -> None:
    mask = Path(__file__).parent.parent / "sample_masks" / "erk-0.05.safetensors"
    with pytest.raises(CheckpointError) as caught:
        open_checkpoint(mask)
    assert str(caught.value) == f"{mask}: is a mask, not a checkpoint; give the checkpoint that it was made for"


def test_a_trusted_module_may_come_from_its_own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code = "import torch\n\nclass Mine(torch.nn.Linear):\n    pass\n"
    (tmp_path / "minemodule.py").write_text(code)
    monkeypatch.syspath_prepend(str(tmp_path))
    import minemodule  # type: ignore[import-not-found]

    torch.save(minemodule.Mine(3, 2), tmp_path / "mine.pt")
    monkeypatch.undo()
    monkeypatch.delitem(sys.modules, "minemodule")
    before = list(sys.path)
    assert open_checkpoint(tmp_path / "mine.pt", trust=True).shapes == {"weight": (2, 3), "bias": (2,)}
    assert sys.path == before
    monkeypatch.delitem(sys.modules, "minemodule", raising=False)


def test_a_damaged_stream_is_not_blamed_on_code(tmp_path: Path) -> None:
    """A byte of the pickle that no torch.save writes: the file is damaged, and --trust would not help."""
    path = tmp_path / "x.pt"
    torch.save({"w": torch.zeros(3)}, path)
    data = bytearray(path.read_bytes())
    at = data.index(b"\x80\x02}") + 2
    data[at] = 0x95  # FRAME, of a later protocol
    path.write_bytes(data)
    with pytest.raises(CheckpointError) as caught:
        open_checkpoint(path)
    assert "--trust" not in str(caught.value)
    assert str(caught.value).startswith(f"{path}: damaged: ")


def test_a_version_that_is_no_text(tmp_path: Path) -> None:
    """PyTorch's message then holds bytes that are no text, and comes as another error."""
    torch.save({"a": torch.ones(2, 2)}, tmp_path / "x.pt")
    data = bytearray((tmp_path / "x.pt").read_bytes())
    data[data.index(b"3\nPK")] = 0xFF
    (tmp_path / "x.pt").write_bytes(data)
    assert refusal(tmp_path / "x.pt").startswith("x.pt: damaged: ")
