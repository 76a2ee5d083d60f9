"""Reading programs of `torch.export` (`.pt2`), which carry their own network.

`torch.export.load` runs code of the file's maker: it unpickles what the archive says is pickled, and evaluates the
text of symbolic sizes. So these files are opened with `trust` only.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING

from pai_cli.errors import CheckpointError, UntrustedPickleError
from pai_cli.files.budget import open_zip
from pai_cli.files.messages import one_line
from pai_cli.spelling import option

if TYPE_CHECKING:
    import torch
    from torch import fx

MEMBERS = ("archive_format", "serialized_exported_program.json")
"""What tells a program from other zip files: of PyTorch 2.7 and later, and of those before."""


def is_program(path: Path) -> bool:
    """Whether the file is a zip file that `torch.export.save` wrote."""
    try:
        with path.open("rb") as stream, open_zip(stream) as archive:
            return any(name.rpartition("/")[2] in MEMBERS for name in archive.namelist())
    except Exception:  # no zip file, or a damaged one: someone else says what is wrong
        return False


def load_program(path: Path, *, trust: bool) -> tuple[fx.GraphModule, tuple[int, ...] | None]:
    """The program's network, and the shape of one sample of its input, None when it has several inputs.

    Raises `UntrustedPickleError` unless `trust`, `CheckpointError` for a program that cannot be loaded.
    """
    if not trust:
        raise UntrustedPickleError(
            f"{path}: a torch.export program, which cannot be loaded without running code of its maker; save "
            f"model.state_dict() as .safetensors, or give {option('trust')} if you trust its maker"
        )
    import torch

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about its own deprecated parts
            program = torch.export.load(path)
            module = _plain(program.module())
    except Exception as e:  # of many kinds: versions, operators that are not there, damage
        raise CheckpointError(
            f"{path}: the torch.export program cannot be loaded: {one_line(e)}; export it again with this PyTorch "
            f"({torch.__version__.partition('+')[0]}), or save model.state_dict() as .safetensors"
        ) from e
    return module, _input_shape(module)


def _plain(module: torch.nn.Module) -> fx.GraphModule:
    """The program as a module that takes and returns tensors, can be copied and put into evaluation mode.

    Without the checks of its input's sizes, so that a program that was exported with another batch size may run.
    """
    from torch import fx

    assert isinstance(module, fx.GraphModule)
    graph = fx.Graph()
    copied: dict[fx.Node, fx.Node] = {}
    outputs: object = ()
    for node in module.graph.nodes:
        if node.op == "call_module" and node.target == "_guards_fn":
            continue
        if node.op == "output":
            outputs = fx.node.map_arg(node.args[0], copied.__getitem__)
            continue
        copied[node] = graph.node_copy(node, copied.__getitem__)
    single = outputs[0] if isinstance(outputs, (tuple, list)) and len(outputs) == 1 else outputs
    graph.output(single)  # type: ignore[arg-type]
    return fx.GraphModule(module, graph)


def _input_shape(module: fx.GraphModule) -> tuple[int, ...] | None:
    values = [node.meta.get("val") for node in module.graph.nodes if node.op == "placeholder"]
    if len(values) != 1 or not hasattr(values[0], "shape") or values[0].dim() < 2:
        return None
    sizes = values[0].shape[1:]
    return tuple(int(size) for size in sizes) if all(isinstance(size, int) for size in sizes) else None
