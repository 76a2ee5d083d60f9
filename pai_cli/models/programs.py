"""Programs of `torch.export`: networks that are a graph of ATen operations instead of modules."""

from __future__ import annotations

from operator import getitem
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


def batch_normalises(program: fx.GraphModule) -> bool:
    """Whether the program has a batch norm."""
    return any("batch_norm" in operation(node) for node in program.graph.nodes)


def normalise_by_batch(program: fx.GraphModule) -> None:
    """Make every batch norm of the program normalise by its batch, and every dropout let all pass.

    Whatever mode the network was in when it was exported.
    """
    for node in list(program.graph.nodes):
        name = operation(node)
        if name == "aten::batch_norm":
            _set(node, "training", True)
        elif name == "aten::copy_" and not node.users and _of_batch_norm(node.args[1]):
            program.graph.erase_node(node)  # new running statistics, which the gradient would then find changed
        elif name == "aten::_native_batch_norm_legit_no_training":
            value, weight, bias, _mean, _variance, momentum, epsilon = node.args
            node.target = torch.ops.aten._native_batch_norm_legit.no_stats
            node.args = (value, weight, bias, True, momentum, epsilon)
        elif name.rstrip("_") in ("aten::dropout", "aten::native_dropout"):
            _set(node, "train", False)
    program.recompile()


def _of_batch_norm(value: Any) -> bool:
    """Whether the value is one of the several that a batch norm in training mode gives."""
    source = value.args[0] if isinstance(value, fx.Node) and value.target is getitem else None
    return isinstance(source, fx.Node) and operation(source) == "aten::_native_batch_norm_legit_functional"


def _set(node: fx.Node, name: str, value: bool) -> None:
    """Give the node's operation this value for the argument with this name."""
    names = [argument.name for argument in node.target._schema.arguments]  # type: ignore[union-attr]
    position = names.index(name)
    if position < len(node.args):
        node.args = (*node.args[:position], value, *node.args[position + 1 :])
    else:
        node.kwargs = {**node.kwargs, name: value}
