"""Networks from folders of Hugging Face models.

Without `transformers`, and without running anything: the linear layers are told by names and shapes, and methods that
look at weights alone work. With the model `hf` the network itself is made by `transformers`, from its own code only.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch import nn

from pai_cli.compute.environment import variables_set
from pai_cli.errors import CheckpointError, MethodOptionError, ModelFactoryError, PaiError, install
from pai_cli.files.checkpoints import Checkpoint
from pai_cli.files.messages import one_line, some_names
from pai_cli.models.base import Shapes, add_at
from pai_cli.models.layers import PrunableLayer, prunable_layers
from pai_cli.models.loading import check_names_and_shapes
from pai_cli.models.outline import check_memory, no_larger_than
from pai_cli.models.plain_config import INSTEAD, plain_config
from pai_cli.printable import shortened
from pai_cli.spelling import option

FACTORY = "hf"
OFFLINE = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}  # the libraries are given no name to look up either
"""What `model` calls the network that transformers makes."""


class WeightsAlone(nn.Module):
    """A network of which only the weights are known; to run it raises `MethodOptionError`.

    `why`: of what they are, and what makes the network.
    """

    def __init__(self, why: str) -> None:
        super().__init__()
        self.why = why

    def forward(self, *_: Any, **__: Any) -> torch.Tensor:
        """Refused."""
        raise MethodOptionError(
            f"this needs the network itself, and {self.why}, or a {option('method')} that looks at weights alone, such as "
            "erk"
        )


def of_folder() -> str:
    """Why a model's folder is weights alone."""
    return (
        f"of a model's folder only the weights are read; give {option('model', 'hf')} where transformers is installed "
        f"({install('hf')})"
    )


def weights_alone(layers: tuple[PrunableLayer, ...], why: str) -> WeightsAlone:
    """A module with these parameters under their names, their values yet to be loaded."""
    module = WeightsAlone(why)
    for layer in layers:
        path, _, leaf = layer.name.rpartition(".")
        try:
            _holder(module, path).register_parameter(leaf, nn.Parameter(torch.empty(layer.shape)))
        except (KeyError, AttributeError) as e:  # a module has an attribute of that name already
            raise CheckpointError(f"tensor {layer.name!r}: no module can have this name; give {option('model')}") from e
    return module


def _holder(root: nn.Module, path: str) -> nn.Module:
    """The module at a path, made where there is none."""
    if not path:
        return root
    try:
        return root.get_submodule(path)
    except AttributeError:
        add_at(root, path, nn.Module())
        return root.get_submodule(path)


def refuse_weights_alone(model: nn.Module) -> None:
    """Raise `MethodOptionError` when the network cannot be run, being weights alone."""
    if isinstance(model, WeightsAlone):
        model()


def check_config(checkpoint: Checkpoint, shapes: Shapes | None = None) -> None:
    """Raise unless the network that `config.json` describes has the checkpoint's names and shapes, or these.

    It is made on the meta device, without values, and left off at the first weight that is larger than any in the
    checkpoint: what this takes goes by the size of the files, not by the numbers in the configuration. Raises
    `ModelFactoryError` as `build` does, and `StateDictMismatchError`.
    """
    shapes = checkpoint.shapes if shapes is None else shapes
    with torch.device("meta"), no_larger_than(shapes, str(checkpoint.path.parent), INSTEAD):
        network, _ = made(checkpoint)
    check_names_and_shapes(checkpoint, network, description(checkpoint), INSTEAD, shapes)
    check_memory(network, shapes, str(checkpoint.path.parent), INSTEAD)


def build(checkpoint: Checkpoint) -> tuple[nn.Module, tuple[int, ...] | None]:
    """The network that transformers makes of a folder's `config.json`, values yet to be loaded, and its input's shape.

    It returns its logits alone. Nothing in the folder is run, transformers is not told where it is, and gets of its
    configuration what `plain_config` lets pass. Raises `ModelFactoryError` when that refuses, when transformers is not
    installed, or does not know the network.
    """
    network, config = made(checkpoint)
    network.register_forward_hook(_logits)
    side, channels = getattr(config, "image_size", None), getattr(config, "num_channels", 3)
    return network, (channels, side, side) if isinstance(side, int) else None


def description(checkpoint: Checkpoint) -> str:
    """What to call the network of a model's folder."""
    assert checkpoint.config is not None
    return f"Hugging Face {shortened(str(checkpoint.config.get('model_type', 'model')), 50)}"


def made(checkpoint: Checkpoint) -> tuple[nn.Module, Any]:
    """The network that `build` gives, as transformers has it, and its configuration."""
    assert checkpoint.config is not None
    folder = checkpoint.path.parent
    plain = plain_config(checkpoint.config, str(folder / "config.json"))
    with variables_set(OFFLINE):
        try:
            import transformers
        except ImportError as e:
            missing = "is not installed" if e.name == "transformers" else f"cannot be imported ({one_line(e)})"
            raise ModelFactoryError(
                f"{option('model', 'hf')}: transformers {missing}: {install('hf')}, or leave "
                f"{option('model')} out for methods that look at weights alone"
            ) from e
        try:
            with _quiet(transformers), torch.random.fork_rng(devices=[]):
                config, network_class = _classes(plain, checkpoint.config.get("architectures"), folder)
                return network_class(config), config
        except PaiError:
            raise
        except Exception as e:  # whatever a configuration makes it stumble over
            raise ModelFactoryError(
                f"{option('model', 'hf')}: transformers {transformers.__version__} cannot make the network of "
                f"{folder}: {one_line(e)}; {INSTEAD}"
            ) from e


def _classes(plain: dict[str, Any], architectures: object, folder: Path) -> tuple[Any, Any]:
    """The configuration as transformers holds it, and the class of the network: one of those it has for that type."""
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    config_class = CONFIG_MAPPING[plain["model_type"]]
    for key in plain:
        if callable(getattr(config_class, key, None)):  # values become attributes, in the place of its own functions
            raise ValueError(f"its configuration says what {key} is, which is a function")
    config = config_class.from_dict(plain)
    name = architectures[0] if isinstance(architectures, list) and architectures else None
    modeling = import_module(config_class.__module__.replace(".configuration_", ".modeling_"))
    if not architectures:
        found = (name for name, one in vars(modeling).items() if getattr(one, "config_class", None) is config_class)
        known = sorted(name for name in found if "PreTrained" not in name)
        raise ModelFactoryError(
            f"{folder}: config.json has no architectures, which tell the class of the network: put in the one that wrote "
            f'the tensors, as "architectures": ["NAME"] ({some_names(known)}), or {INSTEAD}'
        )
    network_class = vars(modeling).get(name) if isinstance(name, str) else None
    if not isinstance(network_class, type) or getattr(network_class, "config_class", None) is not config_class:
        raise ValueError(f"architectures names no network of type {plain['model_type']}")
    return config, network_class


@contextmanager
def _quiet(transformers: Any) -> Iterator[None]:
    """Without the package's own lines, which have values of the configuration in them as they are."""
    level = transformers.logging.get_verbosity()
    transformers.logging.set_verbosity(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        transformers.logging.set_verbosity(level)


def _logits(_module: nn.Module, _given: Any, output: Any) -> Any:
    logits = getattr(output, "logits", None)
    return output if logits is None else logits


def module_layers(network: nn.Module) -> tuple[PrunableLayer, ...]:
    """What `prunable_layers` finds, in the order of the state dict."""
    found = {layer.name: layer for layer in prunable_layers(network)}
    return tuple(found[name] for name in network.state_dict() if name in found)
