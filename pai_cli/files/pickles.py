"""Reading what `torch.save` wrote without running anyone's code.

Only PyTorch's restricted unpickler is used, unless the user trusts the file. Importing this module does not
import torch; reading a file does.
"""

from __future__ import annotations

import mmap
import os
import re
import sys
import warnings
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pai_cli.errors import CheckpointError, UntrustedPickleError
from pai_cli.files.budget import BudgetError, check_tree, told, zip_members
from pai_cli.files.messages import one_line, some_names
from pai_cli.files.ordering import spelled
from pai_cli.files.pickle_scan import NonsenseError, scan
from pai_cli.files.pickled_arrays import stand_ins, with_tensors
from pai_cli.printable import reason_of
from pai_cli.spelling import option

if TYPE_CHECKING:
    import torch
    from torch import nn

WRAPPERS = ("state_dict", "model_state_dict", "model", "net")
"""Keys under which training scripts store the state dict, in the order they are looked for."""

MASKS_KEY = re.compile(r"(.*_)?masks?(_dict|_state_dict|_state)?", re.IGNORECASE)
"""What scripts call the masks that they save beside a state dict."""

LEGACY_MAGIC = b"l\xfc\x9cF\xf9 j\xa8P\x19"
"""The number that begins a file of `torch.save` before its zip format."""

LEGACY_PICKLES = 5
"""Of which that format consists, before the numbers: what it is, its version, the machine, the object, the storages."""

TORCH_PROTOCOL = 2

INSTEAD = "save model.state_dict(), best as .safetensors"


def load_pickle(path: Path, *, trust: bool, arrays: bool = False) -> object:
    """The object in a file of `torch.save`, tensors on the CPU; with `arrays`, NumPy arrays in it become tensors.

    Raises `UntrustedPickleError` when loading needs code and `trust` is false, `CheckpointError` when the file is
    damaged, a TorchScript archive (refused in any case), was written by something else, or would make far more than its
    bytes allow (see `files.budget`; not asked of a file that is trusted).
    """
    in_zip = is_torch_zip(path)
    if not trust:
        _check_program(path, in_zip=in_zip)
    with stand_ins() if arrays and not trust else nullcontext():
        loaded = _load_or_tell(path, in_zip=in_zip, trust=trust)
    if not trust:
        _clear_attributes(loaded)
        try:
            check_tree(loaded, path.stat().st_size)
        except BudgetError as e:
            raise CheckpointError(f"{path}: {e}") from e
    if not arrays:
        return loaded
    try:
        return with_tensors(loaded)
    except ValueError as e:
        raise CheckpointError(f"{path}: damaged: {reason_of(e)}; copy it again") from e


def _clear_attributes(loaded: object) -> None:
    """Take from tensors and dicts the attributes that a pickle set on them: one named as a method is would be called."""
    import torch

    waiting, seen = [loaded], set[int]()
    while waiting:
        one = waiting.pop()
        if isinstance(one, torch.Tensor | dict | list | tuple | set) and id(one) not in seen:
            seen.add(id(one))
            getattr(one, "__dict__", {}).clear()
            if not isinstance(one, torch.Tensor):
                waiting += dict.values(one) if isinstance(one, dict) else one


def _check_program(path: Path, *, in_zip: bool) -> None:
    """Raise `CheckpointError` when the file's pickles would do more than their bytes allow."""
    size = path.stat().st_size
    storages: dict[str, int] = {}
    try:
        if in_zip:
            program = _program(path)
            if program is not None:
                scan(program, storages=storages)
                _check_storages(path, storages)
        else:
            with path.open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as data:
                at = 0
                for _ in range(LEGACY_PICKLES):
                    at = scan(data, at, storages=storages)
        if (numbers := sum(storages.values())) > size:
            raise NonsenseError(
                f"its pickle tells of {told(numbers)} bytes of numbers, and the file has {size:,} bytes"
            )
    except BudgetError as e:
        raise CheckpointError(f"{path}: {e}; {INSTEAD}") from e
    except NonsenseError as e:
        raise CheckpointError(f"{path}: damaged: {e}; copy it again, or {INSTEAD}") from e


def _check_storages(path: Path, storages: dict[str, int]) -> None:
    """Raise `BudgetError` for a storage said to be larger than its member of the zip file.

    PyTorch, which maps the file, would give it the bytes that follow.
    """
    with zipfile.ZipFile(path) as archive:
        held = {member.filename.partition("/")[2]: member.file_size for member in archive.infolist()}
    for key, told_bytes in storages.items():
        there = held.get(f"data/{key}")
        if there is not None and told_bytes > there:
            raise BudgetError(f"storage {key!r} is said to have {told(told_bytes)} bytes, and has {there:,}")


def _program(path: Path) -> bytes | None:
    """The pickle in a zip of `torch.save`, as PyTorch will find it; None where it finds none, and says so when it loads."""
    import torch

    try:
        with path.open("rb") as stream:  # PyTorch opens no name that is not UTF-8
            program: bytes = torch._C.PyTorchFileReader(stream).get_record("data.pkl")
    except (RuntimeError, UnicodeDecodeError):  # the second of a message with a name in it that is no text
        return None
    return program


def _load_or_tell(path: Path, *, in_zip: bool, trust: bool) -> object:
    try:
        return _load(path, in_zip=in_zip, trust=trust)
    except Exception as e:  # the unpickler raises whatever a damaged stream, or the file's code, makes it stumble over
        if trust:
            raise CheckpointError(_trusted_message(path, e)) from e
        if type(e).__name__ == "UnpicklingError" and (needs := _needed_code(path, str(e))):
            raise UntrustedPickleError(
                f"{path}: cannot be read without running code ({needs}); {INSTEAD}, "
                f"or give {option('trust')} to run the file's code if you trust its maker"
            ) from e
        # What torch says of a stream that it cannot follow is advice to run it.
        what = "its pickle stream makes no sense" if type(e).__name__ == "UnpicklingError" else one_line(e)
        raise CheckpointError(f"{path}: damaged: {what}; copy it again, or {INSTEAD}") from e


@contextmanager
def importable(*folders: Path) -> Iterator[None]:
    """Let modules in these folders be imported inside the block, as Python does for the folder of a script."""
    before = list(sys.path)
    sys.path[:0] = [str(folder) for folder in folders]
    try:
        yield
    finally:
        sys.path[:] = before


def _load(path: Path, *, in_zip: bool, trust: bool) -> object:
    import torch

    with warnings.catch_warnings(), importable(*((Path.cwd(), path.resolve().parent) if trust else ())):
        # About old pickle protocols and changed sources: it loads, or an error says what is wrong.
        warnings.simplefilter("ignore")
        # Misnamed, where PyTorch goes by the suffix of a path; or of a name that is not UTF-8, which it cannot open.
        if path.suffix == ".safetensors" or spelled(name := os.fspath(path)) != name:
            with path.open("rb") as stream:
                return torch.load(stream, map_location="cpu", weights_only=not trust)
        return torch.load(path, map_location="cpu", weights_only=not trust, mmap=in_zip)


def _trusted_message(path: Path, e: Exception) -> str:
    missing = isinstance(e, ImportError | AttributeError)
    remedy = "make its classes importable (PYTHONPATH)" if missing else "copy it again"
    return f"{path}: cannot be loaded even with {option('trust')}: {one_line(e)}; {remedy}, or {INSTEAD}"


def is_torch_zip(path: Path) -> bool:
    """True for a zip of `torch.save`, false for its older format; anything else raises `CheckpointError`."""
    with path.open("rb") as f:
        start = f.read(64)
    if not start.startswith(b"PK"):
        if LEGACY_MAGIC not in start:
            raise CheckpointError(f"{path}: a Python pickle that torch.save did not write; {INSTEAD}")
        return False
    members = zip_members(path, CheckpointError, INSTEAD)
    names = [member.filename.partition("/")[2] for member in members]
    if "constants.pkl" in names:
        raise CheckpointError(
            f"{path}: a TorchScript archive, which {option('trust')} does not open either; {INSTEAD}, "
            "from the model it was compiled from"
        )
    if "data.pkl" not in names:
        raise CheckpointError(f"{path}: a zip file, but not one that torch.save wrote; {INSTEAD}")
    if any(member.compress_type != zipfile.ZIP_STORED for member in members):
        # A few megabytes could unpack to more than any memory.
        raise CheckpointError(f"{path}: a zip file with compressed members, which torch.save never writes; {INSTEAD}")
    return True


def _needed_code(path: Path, message: str) -> str:
    """Names of the classes and functions that loading would call, or "" when the file is merely damaged."""
    import torch

    try:
        found = torch.serialization.get_unsafe_globals_in_checkpoint(os.fspath(path))
        needs = sorted(found, key=lambda name: (name.startswith("torch."), name))  # the user's own say most
    except Exception:  # not for the older format, and a damaged stream can raise anything
        needs = []
    if not needs:
        needs = re.findall(r"(?:GLOBAL|call|type) ([\w.]+\.\w+)", message)[:1]
    if not needs and "Unsupported operand" in message and _protocol(path) not in (None, TORCH_PROTOCOL):
        needs = [f"its pickle protocol is {_protocol(path)}, torch.save's own is {TORCH_PROTOCOL}"]
    return some_names(needs)


def _protocol(path: Path) -> int | None:
    """The pickle protocol that a file of `torch.save` says it has; None when that cannot be read."""
    try:
        if not zipfile.is_zipfile(path):
            start = path.read_bytes()[:2]
        else:
            with zipfile.ZipFile(path) as archive:
                name = next(name for name in archive.namelist() if name.endswith("/data.pkl"))
                start = archive.read(name)[:2]
    except Exception:  # damaged: nothing can be said
        return None
    return start[1] if len(start) == 2 and start[:1] == b"\x80" else None


def unwrap(path: Path, loaded: object) -> tuple[dict[str, torch.Tensor], str, nn.Module | None]:
    """The tensors of what was loaded, where they stood ("" or "model.state_dict"), and the module if it was one.

    Raises `CheckpointError` when there is no state dict at the top or under one of `WRAPPERS`, at most two
    deep.
    """
    import torch

    at, inner = _descend(loaded)
    if isinstance(inner, torch.nn.Module):
        inner = bare_module(inner)
        return _tensors(inner.state_dict()), at, inner
    if not isinstance(inner, Mapping):
        raise CheckpointError(f"{path}: holds {_article(inner)}, not a state dict; {INSTEAD}")
    if not at and (nested := [key for key, value in inner.items() if _holds_tensors(value)]):
        raise CheckpointError(_nested_message(path, inner, nested[0]))
    tensors = _tensors(inner)
    if not tensors:
        raise CheckpointError(f"{path}: holds no tensors (its keys: {_key_list(inner)}); {INSTEAD}")
    return tensors, at, None


def _descend(loaded: object) -> tuple[str, object]:
    import torch

    inner: object = loaded
    at: list[str] = []
    while len(at) < 2 and isinstance(inner, Mapping):
        found = [key for key in WRAPPERS if isinstance(inner.get(key), Mapping | torch.nn.Module)]
        if not found:
            break
        at.append(found[0])
        inner = inner[found[0]]
    return ".".join(at), inner


def bare_module(module: Any) -> nn.Module:
    """The network inside `DataParallel`, `DistributedDataParallel` and `torch.compile`, whose names have no prefix."""
    from torch import nn

    while True:
        if isinstance(module, nn.DataParallel | nn.parallel.DistributedDataParallel):
            module = module.module
        elif "_orig_mod" in getattr(module, "_modules", {}):
            module = module._orig_mod
        else:
            bare: nn.Module = module
            return bare


def masks_beside(loaded: Any, deep: int = 2) -> tuple[str, Mapping[str, torch.Tensor]]:
    """Masks that stand by name under a key that says so, alone, beside a state dict or deeper; ("", {}) where none do."""
    import torch

    if not isinstance(loaded, Mapping) or deep == 0:
        return "", {}
    for key, value in loaded.items():
        if isinstance(value, Mapping) and MASKS_KEY.fullmatch(str(key)):
            masks = {str(name): one for name, one in value.items() if one is not None}
            if masks and all(isinstance(one, torch.Tensor) for one in masks.values()):
                return str(key), masks
    for key, value in loaded.items():
        if isinstance(value, Mapping):
            under, found = masks_beside(value, deep - 1)
            if found:
                return f"{key}.{under}", found
    return "", {}


def _tensors(mapping: Mapping[Any, object]) -> dict[str, torch.Tensor]:
    import torch

    return {str(key): value.detach() for key, value in mapping.items() if isinstance(value, torch.Tensor)}


def _holds_tensors(value: object) -> bool:
    import torch

    return isinstance(value, Mapping) and any(isinstance(v, torch.Tensor) for v in value.values())


def _nested_message(path: Path, mapping: Mapping[Any, object], key: object) -> str:
    wrappers = ", ".join(repr(name) for name in WRAPPERS)
    return (
        f"{path}: no state dict at the top nor under {wrappers}; "
        f"its top-level keys are {_key_list(mapping)}; "
        f"save the state dict alone, as in torch.save(checkpoint[{key!r}], ...)"
    )


def _key_list(mapping: Mapping[Any, object]) -> str:
    return some_names((repr(key) for key in mapping), 8) or "none"


def _article(value: object) -> str:
    name = type(value).__name__
    return f"an {name}" if name[0] in "aeiouAEIOU" else f"a {name}"
