"""`convert`: read what other tools wrote, and write for them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pai_cli.api.beside import Beside
from pai_cli.api.inputs import AnyPath, Source, file_of, maybe_path, open_weights, path_of, source_path
from pai_cli.api.masks import Mask
from pai_cli.api.plans import read_checkpoint
from pai_cli.api.progress import Wanted, shown_by
from pai_cli.api.unrolling import tell_on_no_path
from pai_cli.errors import UsageError
from pai_cli.files.fits import Against, check_fits
from pai_cli.files.foreign.write import Target
from pai_cli.files.layer_names import told_assumed
from pai_cli.files.messages import some_names
from pai_cli.files.plan import FilePlan
from pai_cli.files.provenance import typed
from pai_cli.files.standard_input import is_standard_input
from pai_cli.refusals import Idle, idle_force, refuse
from pai_cli.spectral.parameters import one_of
from pai_cli.spelling import option
from pai_cli.telling import note, warn

if TYPE_CHECKING:
    from pai_cli.files.checkpoints import Checkpoint
    from pai_cli.files.conversion import Converted
    from pai_cli.files.foreign.base import Names

_WRITTEN = f"says how the mask is written; give {option('output', 'MASK')} too, or leave it out"
_TO = option("to", "{target}")
IDLE = (
    Idle(("to",), f"{{value}}: {_WRITTEN}", without=("output",)),
    Idle(("packed",), f"{{it}}: {_WRITTEN}", without=("output",)),
    Idle(
        ("weights",),
        f"{{it}}: {_TO} writes no weights; leave it out, or give {option('to', 'dense')}",
        where=lambda call: not call.target.needs_weights,
    ),
    Idle(("packed",), f"{{it}}: {_TO} has no packed form; leave it out", beside=("to",)),
    idle_force(f"{option('output')} too", "output"),
    Idle(
        ("kind", "names_from"),
        "{it}: says how a file is read, and a mask was given; leave it out",
        where=lambda call: isinstance(call.file, Mask),
    ),
)


def default_output(given: Mapping[str, Any]) -> Path:
    """Where the command writes where nobody says: `NAME-mask.safetensors` and the like, in the current folder.

    `given`: the parameters of `convert`.
    """
    target = Target(given["to"])
    if is_standard_input(given["file"]):
        raise UsageError(f"-: what is on standard input has no name; give {option('output', 'MASK')}")
    stem = Path(given["file"].name.removesuffix(".index.json")).stem
    suffix = "" if target is Target.DENSE and _is_folder(given["weights"]) else target.suffixes[0]
    return Path(f"{stem}{target.ending}{suffix}")


def _is_folder(weights: Source) -> bool:
    """Whether weights are those of a model's folder, which is written as one."""
    from pai_cli.files.folders import is_model

    path = source_path(weights)
    return path is not None and is_model(path)


def convert(
    file: AnyPath | Mask,
    output: AnyPath | None = None,
    *,
    kind: str | None = None,
    to: str = "pai",
    names_from: Source = None,
    weights: Source = None,
    packed: bool = False,
    force: bool = False,
    trust: bool = False,
    progress: Wanted = None,
) -> Mask:
    """The mask that another tool made, whichever that was; written, where `output` says so, as a mask file or for a tool.

    `file`: a mask, or a network that holds one (.pt, .pth, .npz, .safetensors), "-" for one on standard input, or a `Mask`.
    `output`: where to write; None writes nothing. `kind`: what the file is, where it could be several things: "pai" or one
    of those that `pai convert` lists. `to`: "pai"; "torch-prune", a state dict for `torch.nn.utils.prune`; "npz", boolean
    arrays by name; "dense", the weights, 0 where pruned; "semi-structured", the same of a 2:4 mask, checked for
    `torch.sparse.to_sparse_semi_structured`; "sparse-24-bitmask", as compressed-tensors 0.9 to 0.13 stores such weights.
    `names_from`: the checkpoint (a path, an `nn.Module`, a state dict) whose weights name the arrays of a list, in order;
    names are checked against it. `weights`: the checkpoint that is pruned, for all `to` but "pai" and "npz"; of a
    Hugging Face model's folder "dense" is a whole folder too, but for an `output` that ends as a file does. `packed`: bits
    instead of bytes. `force`: replace an existing file. `trust`: a pickle may run the code in it. `progress`: True for a
    bar, or what is called with (done, total, what).

    Raises `UsageError` where options exclude each other or could do nothing, `UnknownMaskKindError`, `AmbiguousMaskError`,
    `MaskError`, `MaskMismatchError`, `CheckpointError`, `OutputError`.
    """
    asked = dict(locals())
    target, path = one_of("to", to, Target), maybe_path(output)
    refuse(convert, IDLE, {**asked, "target": target})
    if target.needs_weights and weights is None:
        raise UsageError(f"{option('to', target)} writes a network: give {option('weights', 'CKPT')}")
    from pai_cli.files.conversion import Output, write_any
    from pai_cli.files.foreign.write import SUFFIXES, check_suffix

    if path is not None:
        check_suffix(path, target)
    if not isinstance(file, Mask):
        file = file_of(file)
    folder = target is Target.DENSE and path is not None and path.suffix not in SUFFIXES and _is_folder(weights)
    _plan(file, path, weights, names_from, folder=folder, force=force)
    named = open_weights(names_from, trust=trust)
    names = _names(named)
    with shown_by(progress, "reading") as reading:
        found = _read(file, kind, names, trust, reading)
    if found.remark:
        note(f"{found.path}: {found.remark}")
    _tell_unknown(found, named)
    checkpoint = open_weights(weights, trust=trust)
    if checkpoint is not None:
        _check_weights(found, checkpoint, target)
        if target.is_two_of_four:
            _check_two_of_four(found, checkpoint)
    _tell_whole(found, checkpoint or named)
    if (network := checkpoint or named) is not None:
        tell_on_no_path(found, network)
    if path is not None:
        write_any(found, Output(path, target, typed(), checkpoint, packed=packed, force=force, folder=folder))
    if isinstance(file, Mask):
        return file
    return Mask._of_stored(found, path if target is Target.PAI and path is not None else found.path)


def _tell_unknown(found: Converted, named: Checkpoint | None) -> None:
    """Say which layouts nobody told, and who could."""
    from pai_cli.files.masks import unknown_layouts

    if not (unknown := unknown_layouts(found)):
        return
    who = f"{option('names_from', 'CKPT')} takes both from a network that is known"
    if named is not None:
        who = f"{named.path} is of no network that is known, which would tell"
    note(f"{found.path}: {told_assumed(unknown)}, and written as unknown; {who}")


def _plan(
    file: AnyPath | Mask, path: Path | None, weights: Source, names_from: Source, *, folder: bool, force: bool
) -> None:
    from pai_cli.files.checkpoints import files_of

    source = file.path if isinstance(file, Mask) else path_of(file)
    plan = FilePlan(force=force)
    plan.reads("what is converted", *([] if source is None else files_of(source)))
    read_checkpoint(plan, source_path(weights))
    read_checkpoint(plan, source_path(names_from))
    if folder and path is not None and not path.is_file():
        plan.adds_to(path, "the folder", "output", seen_to=True)
    else:
        plan.writes(path, "the mask", "output")
    plan.check()
    if folder and path is not None:
        from pai_cli.files.model_folders import check_folder

        check_folder(path, source_path(weights), force=force)


def _read(file: AnyPath | Mask, kind: str | None, names: Names | None, trust: bool, progress: Any) -> Converted:
    from pai_cli.files.conversion import Converted, read_any
    from pai_cli.files.foreign.registry import OURS

    if not isinstance(file, Mask):
        return read_any(path_of(file), kind, names, trust=trust, progress=progress)
    import numpy as np

    arrays = {
        name: np.require(array, requirements="W") for name, array in file.items()
    }  # torch shares what it is given
    return Converted(file.path or file.stored.path, OURS, arrays, file.layouts, file.metadata, "")


def _check_weights(mask: Converted, checkpoint: Checkpoint, target: Target) -> None:
    """See that the mask fits the weights, and say where pruned ones cannot be told from others.

    Raises `MaskMismatchError`.
    """
    from pai_cli.files.conversion import under_all_names
    from pai_cli.files.foreign.write import kept_zeros

    masks, _ = under_all_names(mask, checkpoint)
    shapes = {name: one.shape for name, one in masks.items()}
    check_fits(mask.path, shapes, Against.of(checkpoint, "weights"))
    if target in (Target.DENSE, Target.SEMI_STRUCTURED) and (zeros := kept_zeros(checkpoint, masks)):
        count = sum(zeros.values())
        warn(f"{checkpoint.path}: {count:,} kept weights are 0 ({some_names(zeros)}): they read as pruned ones")


def _check_two_of_four(mask: Converted, checkpoint: Checkpoint) -> None:
    """See that two of every four weights are kept, and where there is a GPU, that torch takes them; what is not, is said.

    Raises `MaskError`.
    """
    import torch

    from pai_cli.files.conversion import under_all_names
    from pai_cli.files.foreign.two_of_four import refused_by_torch, two_of_four
    from pai_cli.files.foreign.write import Weights, dense_tensors

    masks, layouts = under_all_names(mask, checkpoint)
    found = two_of_four(mask.path, masks, layouts)
    if found.others:
        told = some_names(f"{name} {why}" for name, why in found.others.items())
        note(f"{mask.path}: {len(found.others)} of {len(masks)} layers are written as they are: {told}")
    if not torch.cuda.is_available():
        note(
            f"{mask.path}: {len(found.layers)} layers are 2:4 by their masks; torch.sparse.to_sparse_semi_structured was "
            "not run on them, as it needs a CUDA GPU"
        )
        return
    refused = refused_by_torch(dense_tensors(Weights(checkpoint, masks, layouts)), found, "cuda")
    taken = len(found.layers) - len(refused)
    told = some_names(f"{name}: {why}" for name, why in refused.items())
    note(
        f"{mask.path}: torch.sparse.to_sparse_semi_structured takes {taken} of {len(found.layers)} layers"
        + (f" (not {told})" if refused else "")
    )


def _tell_whole(mask: Converted, checkpoint: Checkpoint | None) -> None:
    """Say what of a checkpoint the mask leaves whole."""
    if checkpoint is not None:
        layers = [array for array in mask.masks.values() if array.ndim > 1]
        kept, total = sum(int(array.sum()) for array in layers), sum(array.size for array in layers)
        Beside(checkpoint).of(mask.path, mask.names, mask.metadata, (kept, total))


def _names(checkpoint: Checkpoint | None) -> Names | None:
    """What the checkpoint of `names_from` says of the network's weights."""
    if checkpoint is None:
        return None
    from pai_cli.models.prunable import prunable_names

    return prunable_names(checkpoint)
