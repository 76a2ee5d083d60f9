"""The kinds of foreign masks by name. Imports neither torch nor numpy: the help of `pai convert` reads this."""

from __future__ import annotations

from difflib import get_close_matches

from pai_cli.errors import UnknownMaskKindError
from pai_cli.files.foreign import dense, flat, listed, named, nni, synflow, torch_prune
from pai_cli.files.foreign.base import Content, Kind
from pai_cli.spelling import option

OURS = "pai"
"""The kind of `pai`'s own masks, and of any safetensors file of 0 and 1."""

KINDS: dict[str, Kind] = {
    kind.name: kind
    for kind in (
        Kind(
            "torch-prune",
            "state dicts of torch.nn.utils.prune, *_mask beside *_orig",
            torch_prune.recognises,
            torch_prune.masks,
        ),
        Kind("synflow", "Synaptic-Flow's model.pt, *_mask beside the weights", synflow.recognises, synflow.masks),
        Kind("flat", "masks of other names beside the weights, as mask.NAME", flat.recognises, flat.masks),
        Kind("dense", "state dicts whose pruned weights are 0", dense.recognises, dense.masks),
        Kind("nni", "NNI's dict of masks a module", nni.recognises, nni.masks),
        Kind(
            "dict",
            "names to tensors of 0 and 1 by torch.save, as OpenLTH's mask.pth",
            named.recognises("torch"),
            named.masks("torch"),
        ),
        Kind("npz", "names to arrays of 0 and 1 by numpy.savez", named.recognises("npz"), named.masks("npz")),
        Kind("list", "arrays without names, for names from a checkpoint", listed.recognises, listed.masks),
    )
}
"""Every kind, in the order that help shows."""


def register(kind: Kind) -> None:
    """Add a kind, so that `get` and the command line find it. Raises `ValueError` when the name is taken."""
    if kind.name in (*KINDS, OURS):
        raise ValueError(f"a kind of mask named {kind.name!r} is registered already")
    KINDS[kind.name] = kind


def check_name(name: str) -> None:
    """Raise `UnknownMaskKindError`, which lists the names and the closest one, unless there is such a kind."""
    if name in (*KINDS, OURS):
        return
    close = get_close_matches(name.lower(), (*KINDS, OURS), n=1)
    hint = f"did you mean {close[0]}? " if close else ""
    raise UnknownMaskKindError(
        f"unknown kind of mask {name!r}: {hint}{option('kind')} takes {', '.join((OURS, *KINDS))}"
    )


def candidates(content: Content) -> list[Kind]:
    """The kinds that the file could be."""
    return [kind for kind in KINDS.values() if kind.recognises(content)]
