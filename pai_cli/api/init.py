"""`init`: a freshly initialised network of a known architecture."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pai_cli.api.inputs import AnyPath, maybe_path
from pai_cli.api.ranges import check_least, takes_numpy
from pai_cli.files.plan import FilePlan
from pai_cli.files.provenance import provenance, typed
from pai_cli.refusals import idle_force, refuse
from pai_cli.spelling import option
from pai_cli.telling import note

if TYPE_CHECKING:
    from torch import nn

IDLE = (idle_force(f"{option('output')} too", "output"),)


def default_output(given: Mapping[str, Any]) -> Path:
    """Where the command writes where nobody says: `NAME.safetensors` in the current folder."""
    return Path(f"{given['name']}.safetensors")


@takes_numpy
def init(
    name: str, classes: int | None = None, *, seed: int = 0, output: AnyPath | None = None, force: bool = False
) -> nn.Module:
    """A freshly initialised network of a known architecture, on the CPU, in evaluation mode, with the names that are usual.

    The same seed gives the same weights, bit for bit; torch's random numbers are left as they were.

    `name`: of an architecture: "resnet20", "vgg16-bn", "mlp-784-300-10" ... `classes`: how many the head tells apart; 10
    unless given, for an mlp the last size of its name. `seed`: of the weights. `output`: where to write the checkpoint
    (safetensors); None writes nothing. `force`: replace an existing file.

    Raises `UnknownModelError` (also for one too large for this machine), `MethodOptionError` for a seed out of range or a
    class count that the name contradicts, `UsageError`, `OutputError`.
    """
    refuse(init, IDLE, locals())
    path = maybe_path(output)
    check_least(1, classes=classes)
    plan = FilePlan(force=force)
    plan.writes_tensors(path, "the checkpoint", "output")
    plan.check()
    from pai_cli.models.network import init_network, save_checkpoint

    network = init_network(name, classes, seed)
    if path is not None:
        story = {"architecture": name, "seed": str(seed), **provenance(typed())}
        save_checkpoint(path, network, story, force=force)
        note(
            f"wrote {path}: {network.description}, {network.total:,} prunable weights in {len(network.layers)} tensors"
        )
        if text := str(network.whole):
            note(f"{path}: {text}")
    return network.model
