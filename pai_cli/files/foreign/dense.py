"""A pruned network saved with zeros in the place of what was pruned, and no mask.

A zero may also be a weight that happens to be 0, so nothing is taken for a pruned network that does not look like one.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from pai_cli.errors import MaskError
from pai_cli.files.fits import Against, check_complete
from pai_cli.files.foreign.base import NAMES_FROM, Content, Masks, Names, Stored
from pai_cli.files.matching import called_there
from pai_cli.files.messages import some_names
from pai_cli.files.tensors import finite
from pai_cli.spelling import option

if TYPE_CHECKING:
    import numpy as np

    from pai_cli.files.foreign.zeros import Zeros


def recognises(content: Content) -> bool:
    """Whether the weights hold real numbers, and enough zeros that pruning may have made; or the file says so."""
    if content.masked:
        return False
    return bool(content.layouts) or (not content.zeros.binary and content.zeros.look_pruned)


def remark(content: Content) -> str:
    """What a person should know: that zeros were taken for a mask, and of which tensors they were not."""
    taken = f"has weights, not masks: taken as pruned where they are 0 ({content.zeros.share:.3g} of all weights)"
    told = _told(content.zeros) if content.zeros.pruned and not content.layouts else ""
    return f"{taken}; left out {told}" if told else taken


def doubt(content: Content) -> str:
    """Why a state dict that has zeros is not taken for a pruned network; "" where it has none."""
    zeros = content.zeros
    there = {name: count for name, count in zeros.zeros.items() if count}
    if not there or zeros.binary:
        return ""
    if told := _told(zeros):
        what = f"has weights, not masks, with zeros that no pruning makes: {told}"
    else:
        what = (
            f"has weights, not masks, and too few of them are 0 ({zeros.share:.3g} of all, in {len(zeros.pruned)} of "
            f"{len(zeros.layers)} layers) to say that it was pruned"
        )
    return f"{what}; {option('kind', 'dense')} of pai convert takes each 0 as pruned"


def _told(zeros: Zeros) -> str:
    """The tensors with zeros that are no pruning, each with what it is."""
    exact = [f"{name!r} ({why})" for name, why in zeros.exact.items() if zeros.zeros[name]]
    return some_names(exact)


def masks(content: Content, names: Names | None) -> Masks:
    """What is not 0: with `names`, of every prunable weight; else of those the file lists; else of every one that has a 0.

    Of a network that looks pruned, tensors whose zeros are not pruning's are left out; of any other, which someone says was
    pruned, none.
    """
    weights = _weights(content)
    if names is not None:
        called = called_there(names.prunable, weights)
        wanted = tuple(called.values())
        remedy = f"{option(NAMES_FROM)} takes the checkpoint that was pruned"
        there = [name for name, here in called.items() if here in weights]
        check_complete(content.path, there, Against(str(names.path), names.weights, remedy))
    elif content.layouts:
        wanted = tuple(name for name in content.layouts if name in weights)
    else:
        zeros = content.zeros
        wanted = zeros.pruned if zeros.look_pruned else tuple(name for name, count in zeros.zeros.items() if count)
    if not wanted:
        raise MaskError(f"{content.path}: no weight of it is 0, so nothing was pruned")
    return {name: _kept(content, weights[name]) for name in wanted}


def _weights(content: Content) -> dict[str, Stored]:
    """Tensors that may be pruned weights: biases and norms have one dimension, and often begin at 0."""
    return {name: stored for name, stored in content.tensors.items() if stored.floating and len(stored.shape) > 1}


def _kept(content: Content, stored: Stored) -> Stored:
    return Stored(stored.label, stored.shape, False, partial(_read, content, stored))


def _read(content: Content, stored: Stored) -> np.ndarray:

    kept: np.ndarray = finite(content.path, stored.label, stored.read()) != 0
    return kept
