"""A pruned network saved with zeros in the place of what was pruned, and no mask.

A zero may also be a weight that happens to be 0, so nothing is taken for a pruned network that does not look like one.
"""

from __future__ import annotations

import math
from functools import partial
from typing import TYPE_CHECKING

from pai_cli.errors import MaskError, MaskMismatchError, NotFiniteError
from pai_cli.files.foreign.base import Content, Masks, Names, Stored
from pai_cli.files.masks import is_binary
from pai_cli.files.messages import some_names
from pai_cli.spelling import option

if TYPE_CHECKING:
    import numpy as np

LEAST_SHARE = 0.01
"""Share of zeros from which a network looks pruned: chance, and the row that an embedding keeps at 0, stay below it."""


def recognises(content: Content) -> bool:
    """Whether the weights hold real numbers, and enough zeros in weights that are not all 0; or the file says so."""
    if content.layouts and not content.masked():
        return True
    if content.masked() or all(is_binary(stored.read()) for stored in content.tensors.values()):
        return False
    return zero_share(content) >= LEAST_SHARE


def zero_share(content: Content) -> float:
    """Zeros of weights that have other values too, as a share of all weights.

    Weights that are 0 throughout are not counted: some networks begin with such layers.
    """
    zeros = total = 0
    for stored in _weights(content).values():
        here = _zeros(stored)
        total += math.prod(stored.shape)
        zeros += here if here < math.prod(stored.shape) else 0
    return zeros / total if total else 0.0


def masks(content: Content, names: Names | None) -> Masks:
    """What is not 0, of every weight that has a 0; with `names`, of every prunable weight; else of those the file lists."""
    weights = _weights(content)
    if names is not None:
        wanted = names.prunable
        if missing := [repr(name) for name in wanted if name not in weights]:
            raise MaskMismatchError(
                f"{content.path}: lacks {some_names(missing)} of {names.path}; "
                f"{option('names_from')} takes the checkpoint that was pruned"
            )
    elif content.layouts:
        wanted = tuple(name for name in content.layouts if name in weights)
    else:
        wanted = tuple(name for name, stored in weights.items() if _zeros(stored))
    if not wanted:
        raise MaskError(f"{content.path}: no weight of it is 0, so nothing was pruned")
    return {name: _kept(content, weights[name]) for name in wanted}


def _weights(content: Content) -> dict[str, Stored]:
    """Tensors that may be pruned weights: biases and norms have one dimension, and often begin at 0."""
    return {name: stored for name, stored in content.tensors.items() if stored.floating and len(stored.shape) > 1}


def _zeros(stored: Stored) -> int:
    import numpy as np

    array = stored.read()
    return array.size - int(np.count_nonzero(array))


def _kept(content: Content, stored: Stored) -> Stored:
    return Stored(stored.label, stored.shape, False, partial(_read, content, stored))


def _read(content: Content, stored: Stored) -> np.ndarray:
    import numpy as np

    array = stored.read()
    finite = np.isfinite(array).reshape(-1)
    if not finite.all():
        at = int(np.argmin(finite))
        raise NotFiniteError(
            f"{content.path}: tensor {stored.label!r} holds {array.reshape(-1)[at]} at index {at}; "
            "take a checkpoint from before the weights diverged"
        )
    kept: np.ndarray = array != 0
    return kept
