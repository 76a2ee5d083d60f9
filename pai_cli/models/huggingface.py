"""Networks from folders of Hugging Face models.

Without `transformers`, and without running anything: the linear layers are told by names and shapes, and methods that
look at weights alone work. With `--model hf` the network itself is made by `transformers`, from its own code only.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from pai_cli.errors import CheckpointError, MethodOptionError, ModelFactoryError
from pai_cli.files.words import one_line
from pai_cli.models.base import Shapes, add_at
from pai_cli.models.layers import PrunableLayer, prunable_layers
from pai_cli.spectral.layout import Layout

FACTORY = "hf"
"""What `--model` calls the network that transformers makes."""

TRANSPOSED_TYPES = frozenset(["gpt2", "openai-gpt", "imagegpt", "decision_transformer", "trajectory_transformer"])
"""Model types whose blocks use transformers' `Conv1D`, a linear layer stored as (inputs, outputs)."""

_TRANSPOSED = re.compile(r"(^|\.)(c_attn|q_attn|c_proj|c_fc)\.weight$")

_TABLES = re.compile(
    r"(^|\.)(wte|wpe|shared|embed_tokens|embed_positions|embed_in|embed|embeddings?|\w+_embeddings?|tokens_embed"
    r"|positions_embed|relative_attention_bias|relative_attn_bias)\.weight$"
)
"""Tables that are looked up, not multiplied by: they have two dimensions as well."""


class WeightsAlone(nn.Module):
    """A network of which only the weights are known; to run it raises `MethodOptionError`."""

    def forward(self, *_: Any, **__: Any) -> torch.Tensor:
        """Refused."""
        raise MethodOptionError(
            "this needs the network itself, and of a model's folder only the weights are read; give --model hf where "
            "transformers is installed (pip install 'pai-cli[hf]'), or a --method that looks at weights alone, such as erk"
        )


def weight_layers(shapes: Shapes, config: Mapping[str, Any]) -> tuple[PrunableLayer, ...]:
    """The linear layers of a model's folder, in the order of the file: weights of two dimensions but for tables.

    Convolutions are not among them: their groups stand in no shape. `Conv1D` is, with its rows the outputs all the same.
    """
    transposed = config.get("model_type") in TRANSPOSED_TYPES
    return tuple(
        PrunableLayer(name, tuple(shape), Layout(transposed=transposed and _TRANSPOSED.search(name) is not None))
        for name, shape in shapes.items()
        if len(shape) == 2 and 0 not in shape and name.endswith(".weight") and _TABLES.search(name) is None
    )


def weights_alone(layers: tuple[PrunableLayer, ...]) -> WeightsAlone:
    """A module with these parameters under their names, their values yet to be loaded."""
    module = WeightsAlone()
    for layer in layers:
        holder = nn.Module()
        holder.weight = nn.Parameter(torch.empty(layer.shape))
        try:
            add_at(module, layer.name.removesuffix(".weight"), holder)
        except (KeyError, AttributeError) as e:  # a module has an attribute of that name already
            raise CheckpointError(f"tensor {layer.name!r}: no module can have this name; give --model") from e
    return module


def refuse_weights_alone(model: nn.Module) -> None:
    """Raise `MethodOptionError` when the network cannot be run, being weights alone."""
    if isinstance(model, WeightsAlone):
        model()


def build(folder: str) -> tuple[nn.Module, tuple[int, ...] | None]:
    """The network that transformers makes of the folder's `config.json`, values yet to be loaded, and its input's shape.

    It returns its logits alone. Nothing in the folder is run. Raises `ModelFactoryError` when transformers is not
    installed, or does not know the network.
    """
    try:
        import transformers
    except ImportError as e:
        raise ModelFactoryError(
            "--model hf: transformers is not installed: pip install 'pai-cli[hf]', or leave --model out for methods that "
            "look at weights alone"
        ) from e
    try:
        config = transformers.AutoConfig.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
        name = (config.architectures or [""])[0]
        with torch.random.fork_rng(devices=[]):
            network: nn.Module = getattr(transformers, name)(config)
    except Exception as e:  # whatever a configuration makes it stumble over
        raise ModelFactoryError(
            f"--model hf: transformers {transformers.__version__} cannot make the network of {folder}: {one_line(e)}; "
            "leave --model out for methods that look at weights alone"
        ) from e
    network.register_forward_hook(_logits)
    side, channels = getattr(config, "image_size", None), getattr(config, "num_channels", 3)
    return network, (channels, side, side) if isinstance(side, int) else None


def _logits(_module: nn.Module, _given: Any, output: Any) -> Any:
    logits = getattr(output, "logits", None)
    return output if logits is None else logits


def module_layers(network: nn.Module) -> tuple[PrunableLayer, ...]:
    """What `prunable_layers` finds, and `Conv1D`s, in the order of the state dict."""
    found = {layer.name: layer for layer in prunable_layers(network)}
    for prefix, module in network.named_modules():
        weight = module._parameters.get("weight")
        if type(module).__name__ == "Conv1D" and weight is not None and weight.dim() == 2:
            found[f"{prefix}.weight"] = PrunableLayer(f"{prefix}.weight", tuple(weight.shape), Layout(transposed=True))
    return tuple(found[name] for name in network.state_dict() if name in found)
