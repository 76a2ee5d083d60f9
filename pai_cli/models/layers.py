"""Which weights of a network can be pruned, and how they are stored; and why others cannot."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from torch import nn

from pai_cli.files.whole import NORMED, PARAMETRISED, TABLE
from pai_cli.spectral.layout import PLAIN, Layout

CONVOLUTIONS = (
    nn.Conv1d,
    nn.Conv2d,
    nn.Conv3d,
    nn.ConvTranspose1d,
    nn.ConvTranspose2d,
    nn.ConvTranspose3d,
)

KEEP_ZEROS = frozenset(["_SpectralNorm", "_Masking"])
"""Parametrisations that scale a weight or mask it: where the stored one is 0, the computed one is."""


@dataclass(frozen=True)
class PrunableLayer:
    """A weight that can be pruned: its state-dict name (`layer1.0.conv1.weight`), shape and layout."""

    name: str
    shape: tuple[int, ...]
    layout: Layout


def prunable_layers(model: nn.Module) -> tuple[PrunableLayer, ...]:
    """The matrices that a network's layers multiply by, in the order of its modules.

    Weights of convolutions, transposed convolutions and linear layers (transformers' `Conv1D` among them), of recurrent
    layers and of `nn.MultiheadAttention`. A weight that several modules share is listed once, under its first name; one
    that `spectral_norm` or a mask computes, under the name of the parameter that it is computed from.
    """
    layers: list[PrunableLayer] = []
    seen: set[int] = set()
    for prefix, module in model.named_modules():
        for leaf, weight, layout in _weights_of(module):
            if id(weight) not in seen:
                seen.add(id(weight))
                name = f"{prefix}.{leaf}" if prefix else leaf
                layers.append(PrunableLayer(name, tuple(weight.shape), layout))
    return tuple(layers)


def unregistered(model: nn.Module) -> list[str]:
    """Attributes that hold modules with weights, or parameters, in a plain list, tuple or dict: PyTorch takes these for no
    parts of the network. A private one is left alone, as it is how a teacher is kept out on purpose.
    """
    known = {id(one) for part in (model.modules(), model.parameters()) for one in part}

    def lost(one: object) -> bool:
        weights = isinstance(one, nn.Parameter) or (isinstance(one, nn.Module) and any(True for _ in one.parameters()))
        return weights and id(one) not in known

    found = []
    for prefix, module in model.named_modules():
        for name, value in vars(module).items():
            held = value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else ()
            if not name.startswith("_") and any(map(lost, held)):
                found.append(f"{prefix}.{name}" if prefix else name)
    return found


def _weights_of(module: nn.Module) -> Iterator[tuple[str, nn.Parameter, Layout]]:
    """The prunable weights of one module by their names in it."""
    own = {leaf: one for leaf, one in module._parameters.items() if one is not None}
    layout = _layout(module)
    if layout is not None:
        own |= dict(_computed_from(module))
        for leaf in ("weight", "weight_orig", "parametrizations.weight.original"):
            if leaf in own and (leaf != "weight_orig" or "weight" not in own):
                yield leaf, own[leaf], layout
    elif isinstance(module, nn.RNNBase | nn.RNNCellBase | nn.MultiheadAttention):
        for leaf, weight in own.items():
            if weight.dim() == 2 and (leaf.startswith("weight_") or leaf.endswith("proj_weight")):
                yield leaf, weight, PLAIN


def _computed_from(module: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    """The parameter that parametrisations compute the weight from, where they leave zeros where they are."""
    several = dict(getattr(module, "parametrizations", {})).get("weight", ())
    if all(type(one).__name__ in KEEP_ZEROS for one in several) and hasattr(several, "original"):
        yield "parametrizations.weight.original", several.original


def _layout(module: nn.Module) -> Layout | None:
    """How a module stores the weight that it multiplies by; None for one that does not."""
    if isinstance(module, nn.Linear):
        return PLAIN
    if isinstance(module, CONVOLUTIONS):
        return Layout(groups=module.groups, transposed=module.transposed)
    # transformers' own class, a linear layer stored as (inputs, outputs)
    is_conv1d = type(module).__name__ == "Conv1D" and getattr(module, "weight", None) is not None
    return Layout(transposed=True) if is_conv1d and module.weight.dim() == 2 else None  # type: ignore[operator]


def reasons_why_not(model: nn.Module) -> dict[str, str]:
    """Every parameter by every name, with the reason why it is not pruned where its module tells one, else ""."""
    reasons = {name: "" for name, _ in model.named_parameters(remove_duplicate=False)}
    for prefix, module in model.named_modules():
        for leaf in module._parameters:
            reason = _reason(module, leaf)
            if reason:
                reasons[f"{prefix}.{leaf}" if prefix else leaf] = reason
    return reasons


def _reason(module: nn.Module, leaf: str) -> str:
    if isinstance(module, nn.Embedding | nn.EmbeddingBag):
        return TABLE
    if leaf == "weight_v" and "weight_g" in module._parameters:
        return NORMED
    kind = type(module).__name__
    if kind == "ParametrizationList":
        normed = len(module) == 1 and type(module[0]).__name__ == "_WeightNorm"  # type: ignore[arg-type, index]
        return NORMED if normed else PARAMETRISED
    return "" if kind in ("Module", "ParameterList", "ParameterDict") else f"a parameter of {kind}"
