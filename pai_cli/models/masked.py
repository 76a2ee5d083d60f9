"""A mask of a file under the names that a network has for its parameters."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from torch import nn

from pai_cli.files.fits import Against, check_fits, without_twins
from pai_cli.files.matching import spread
from pai_cli.models.huggingface import refuse_weights_alone
from pai_cli.models.spectral_norms import refuse_emptied

if TYPE_CHECKING:
    from pai_cli.files.masks import Mask


def masks_for(mask: Mask, model: nn.Module, called: str, remedy: str) -> dict[str, NDArray[np.bool_]]:
    """The mask's arrays, by parameter of `model`; that of a weight which several modules share under one of its names.

    What errors say: `called`, where the network is from; `remedy`, what to do. Raises `MaskMismatchError` for a mask of
    another network, `CollapseError` for one under which the network gives NaN alone, `MethodOptionError` for a network of
    which only the weights are known.
    """
    refuse_weights_alone(model)
    # Copies of those that a program holds, which are read-only: torch shares what it is given.
    masks = {name: np.require(mask.array(name), requirements="W") for name in mask.names}
    parameters = dict(model.named_parameters(remove_duplicate=False))
    shapes = {name: tuple(one.shape) for name, one in parameters.items()}
    masks = spread(masks, mask.metadata, shapes)
    check_fits(mask.path, {name: one.shape for name, one in masks.items()}, Against(called, shapes, remedy))
    masks = without_twins(masks, parameters, source=mask.path, remedy=remedy)
    refuse_emptied(model, masks, mask.path)
    return masks
