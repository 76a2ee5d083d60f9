"""Programs of `torch.export`: networks that are a graph of ATen operations instead of modules."""

from __future__ import annotations

from typing import Any

import torch
from torch import fx, nn

from pai_cli.models.layers import PrunableLayer
from pai_cli.spectral.layout import Layout

_PRODUCTS = {"aten::linear": (1, False), "aten::mm": (1, True), "aten::addmm": (2, True)}
"""Position of the matrix, and whether the operation multiplies by it as it is (a linear layer's is transposed first)."""

_TURNS = ("aten::t", "aten::permute", "aten::transpose", "aten::numpy_T")

_OWN_SIZE = ("aten::layer_norm", "aten::native_layer_norm", "aten::group_norm", "aten::native_group_norm",
             "aten::rms_norm", "aten::instance_norm")  # fmt: skip


def program_layers(program: fx.GraphModule) -> tuple[PrunableLayer, ...]:
    """Parameters that convolutions and linear layers multiply by, in the order of use, each once."""
    layers: dict[str, PrunableLayer] = {}
    for node in program.graph.nodes:
        found = _convolution(node) or _product(node)
        if found is not None and found[0] not in layers:
            name, layout = found
            try:
                shape = tuple(program.get_parameter(name).shape)
            except AttributeError:  # a buffer, or a constant
                continue
            layers[name] = PrunableLayer(name, shape, layout)
    return tuple(layers.values())


def operation(node: fx.Node) -> str:
    """The name of the node's operation (`aten::linear`), or "" when it is none."""
    schema = getattr(node.target, "_schema", None)
    return schema.name if schema is not None else ""


def _argument(node: fx.Node, name: str) -> Any:
    """The node's argument with this name in the operation's signature, or its default."""
    for position, argument in enumerate(node.target._schema.arguments):  # type: ignore[union-attr]
        if argument.name == name:
            if position < len(node.args):
                return node.args[position]
            return node.kwargs.get(name, argument.default_value)
    return None


def _convolution(node: fx.Node) -> tuple[str, Layout] | None:
    name = operation(node)
    if not name.startswith("aten::conv"):
        return None
    weight = _argument(node, "weight")
    if not isinstance(weight, fx.Node) or weight.op != "get_attr":
        return None
    transposed = bool(_argument(node, "transposed")) or name.startswith("aten::conv_transpose")
    return str(weight.target), Layout(groups=int(_argument(node, "groups") or 1), transposed=transposed)


def _product(node: fx.Node) -> tuple[str, Layout] | None:
    if operation(node) not in _PRODUCTS:
        return None
    position, as_it_is = _PRODUCTS[operation(node)]
    weight = node.args[position] if position < len(node.args) else None
    turned = not as_it_is
    while isinstance(weight, fx.Node) and operation(weight) in _TURNS:
        weight, turned = weight.args[0], not turned
    if not isinstance(weight, fx.Node) or weight.op != "get_attr":
        return None
    return str(weight.target), Layout(transposed=not turned)


def self_normalising(model: nn.Module) -> str | None:
    """The name of the first operation of a program that divides by the size of its own input, or None."""
    if not isinstance(model, fx.GraphModule):
        return None
    for node in model.graph.nodes:
        trains = operation(node) == "aten::batch_norm" and bool(_argument(node, "training"))
        if operation(node) in _OWN_SIZE or trains:
            return str(node.name)
    return None


def lift_ceilings(program: fx.GraphModule) -> None:
    """Make every ReLU6 of the program a ReLU."""
    for node in program.graph.nodes:
        if operation(node).rstrip("_") in ("aten::hardtanh", "aten::relu6") and node.args[1:2] in ((), (0,), (0.0,)):
            node.target, node.args = torch.ops.aten.relu.default, node.args[:1]
    program.recompile()
