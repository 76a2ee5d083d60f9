"""Weights of which two of every four are kept, as tools with kernels for that take them.

`torch.sparse.to_sparse_semi_structured` takes dense matrices of linear layers, contiguous as (outputs, inputs), with at most
two numbers that are not 0 in every four consecutive inputs of a row. compressed-tensors 0.9 to 0.13 stores such a matrix as
`sparse-24-bitmask`: under the layer's name without `.weight`, `compressed` (outputs, inputs / 2) holds two values of every
four in order, `bitmask` (outputs, inputs / 8, rounded up) bytes that tell which, the first input in the lowest bit, and
`shape` (2, 1) the outputs and inputs as int64.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pai_cli.errors import MaskError
from pai_cli.files.messages import one_line, some_names
from pai_cli.spectral.layout import Layout
from pai_cli.spelling import option

if TYPE_CHECKING:
    import torch

CONFIG = "quantization_config"
"""The file's metadata: what belongs under this key into the model's config.json."""


@dataclass(frozen=True)
class TwoOfFour:
    """`layers`: those of which two of four are kept; `others`: of each other masked layer, why it is none of them."""

    layers: tuple[str, ...]
    others: Mapping[str, str]


def two_of_four(source: object, masks: Mapping[str, NDArray[np.bool_]], layouts: Mapping[str, Layout]) -> TwoOfFour:
    """Which layers of a mask keep at most two of every four consecutive inputs.

    Raises `MaskError` where none does.
    """
    layers, others = [], {}
    for name, mask in masks.items():
        why = _why_not(name, mask, layouts[name])
        if why:
            others[name] = why
        else:
            layers.append(name)
    if not layers:
        told = some_names(f"{name} {why}" for name, why in others.items())
        raise MaskError(f"{source}: is no mask of 2:4: {told}; {option('pattern', '2:4')} makes one of linear layers")
    return TwoOfFour(tuple(layers), others)


def _why_not(name: str, mask: NDArray[np.bool_], layout: Layout) -> str:
    if not name.endswith(".weight") or mask.ndim != 2 or layout.transposed or layout.groups > 1:
        return "is no matrix of a linear layer"
    if mask.shape[1] % 4:
        return f"has {mask.shape[1]} inputs, no multiple of 4"
    counts = mask.reshape(len(mask), -1, 4).sum(2)
    if counts.max(initial=0) <= 2:
        return ""
    row, four = (int(one) for one in np.argwhere(counts > 2)[0])
    return f"keeps {counts[row, four]} of inputs {4 * four} to {4 * four + 3} in row {row}"


def bitmask_tensors(
    tensors: Mapping[str, torch.Tensor], masks: Mapping[str, NDArray[np.bool_]], found: TwoOfFour
) -> dict[str, torch.Tensor]:
    """The tensors of a checkpoint, pruned weights 0, those of `found` as `sparse-24-bitmask`."""
    import torch

    stored: dict[str, torch.Tensor] = {}
    for name, tensor in tensors.items():
        if name not in found.layers:
            stored[name] = tensor
            continue
        two = torch.from_numpy(_two(masks[name]))
        layer = name.removesuffix(".weight")
        stored[f"{layer}.compressed"] = tensor[two].reshape(len(tensor), -1)
        stored[f"{layer}.bitmask"] = torch.from_numpy(np.packbits(two.numpy(), axis=1, bitorder="little"))
        stored[f"{layer}.shape"] = torch.tensor(tensor.shape).reshape(2, 1)
    return stored


def _two(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Exactly two of every four, those that are kept among them: where fewer are, the first of the others."""
    fours = mask.reshape(-1, 4)
    order = np.argsort(~fours, axis=1, kind="stable")  # the kept first
    two = np.zeros_like(fours)
    np.put_along_axis(two, order[:, :2], True, axis=1)
    return two.reshape(mask.shape)


def config_of(tensors: Mapping[str, torch.Tensor], found: TwoOfFour) -> dict[str, Any]:
    """What a model's config.json tells of such tensors, which are those before they are stored so."""
    whole = [name for name, one in tensors.items() if one.dim() == 2 and name.endswith(".weight")]
    zeros = sum(int((tensors[name] == 0).sum()) for name in whole)
    sparsity = {
        "format": "sparse-24-bitmask",
        "sparsity_structure": "2:4",
        "global_sparsity": zeros / max(1, sum(tensors[name].numel() for name in whole)),
        "targets": ["Linear"],
        "ignore": [name.removesuffix(".weight") for name in whole if name not in found.layers],
    }
    return {"quant_method": "compressed-tensors", "format": "dense", "config_groups": {}, "sparsity_config": sparsity}


def refused_by_torch(tensors: Mapping[str, torch.Tensor], found: TwoOfFour, device: str) -> dict[str, str]:
    """The layers of which `torch.sparse.to_sparse_semi_structured` makes nothing on this device, or something else, and why.

    Dtypes and sizes that it takes are the GPU's and the kernel's.
    """
    import torch

    refused: dict[str, str] = {}
    for name in found.layers:
        dense = tensors[name].to(device).contiguous()
        try:
            back: torch.Tensor = torch.sparse.to_sparse_semi_structured(dense).to_dense()  # type: ignore[no-untyped-call]
        except (RuntimeError, NotImplementedError, ValueError) as error:
            refused[name] = one_line(error)
            continue
        if not torch.equal(back.to(dense.dtype), dense):
            refused[name] = "its values come back changed"
    return refused
