"""Masks without names, in the order of the network's weights: a list of tensors, or `numpy.savez` of arrays."""

from __future__ import annotations

from pai_cli.errors import MaskError
from pai_cli.files.fits import Against, by_order
from pai_cli.files.foreign.base import NAMES_FROM, Content, Masks, Names, Stored, as_mask
from pai_cli.files.foreign.named import POSITION
from pai_cli.spelling import option


def recognises(content: Content) -> bool:
    """Whether there are arrays that have no names."""
    return bool(_arrays(content))


def masks(content: Content, names: Names | None) -> Masks:
    """The arrays under the names of the checkpoint's prunable weights, in that order; number and shapes must agree."""
    arrays = _arrays(content)
    if not arrays:
        raise MaskError(f"{content.path}: is no list of arrays")
    if names is None:
        raise MaskError(
            f"{content.path}: {len(arrays)} arrays without names; "
            f"{option('names_from', 'CKPT')} of pai convert gives them those of a checkpoint's weights, in order"
        )
    if not names.ordered:
        raise MaskError(
            f"{names.path}: not a known architecture, and its tensors are not in the network's order; "
            f"{option('names_from')} takes the state dict that torch.save wrote"
        )
    remedy = f"{option(NAMES_FROM)} takes the checkpoint that the mask was made for"
    named = by_order(content.path, arrays, Against(str(names.path), names.weights, remedy))
    return {name: as_mask(content.path, array) for name, array in named.items()}


def _arrays(content: Content) -> tuple[Stored, ...]:
    """In their order: `arr_10` stands after `arr_9`, wherever the archive has it."""
    if content.listed:
        return content.listed
    positions = {POSITION.fullmatch(name): stored for name, stored in content.tensors.items()}
    matches = [match for match in positions if match is not None]
    if not matches or len(matches) < len(content.tensors):
        return ()
    return tuple(
        positions[match]
        for match in sorted(matches, key=lambda match: (len(match[1].lstrip("0")), match[1].lstrip("0")))
    )
