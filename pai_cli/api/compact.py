"""`compact`: the network that is left of a mask, without its dead channels."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pai_cli.api.given import open_given
from pai_cli.api.inputs import (
    AnyPath,
    Shape,
    Source,
    device_of,
    maybe_path,
    network_of,
    open_source,
    shape_of,
    source_path,
    tell_network,
    tell_precision,
)
from pai_cli.api.masks import Mask
from pai_cli.api.plans import Reads
from pai_cli.api.progress import Wanted, shown_by
from pai_cli.api.ranges import check_least, takes_numpy
from pai_cli.api.samples import Data, as_dataset, name_of
from pai_cli.errors import MethodOptionError, UsageError
from pai_cli.files.provenance import other_weights, provenance, typed
from pai_cli.random import check_seed
from pai_cli.refusals import idle_force, refuse
from pai_cli.spelling import option
from pai_cli.telling import note

if TYPE_CHECKING:
    from pai_cli.compacting.run import Compacted, CompactRequest
    from pai_cli.files.checkpoints import Checkpoint
    from pai_cli.files.masks import Mask as Stored
    from pai_cli.models.network import Network

GIVEN_SAMPLES = 64
"""How many samples of data are tried."""

IDLE = (idle_force(f"{option('output')} too", "output"),)


def default_output(given: Mapping[str, Any]) -> Path:
    """Where the command writes where nobody says: `CKPT-compact.safetensors` in the current folder.

    `given`: the parameters of `compact`.
    """
    name = Path(given["weights"] or "network").resolve().name
    return Path(f"{name.removesuffix('.index.json').rpartition('.')[0] or name}-compact.safetensors")


@takes_numpy
def compact(
    mask: Any,
    weights: Source,
    output: AnyPath | None = None,
    *,
    model: str | None = None,
    input_shape: Shape | None = None,
    data: Data | None = None,
    timing_batch: int = 16,
    timing_runs: int = 7,
    seed: int = 0,
    device: str = "auto",
    force: bool = False,
    trust: bool = False,
    progress: Wanted = None,
) -> Compacted:
    """Remove dead channels of a masked network exactly: what is left gives the same outputs, up to rounding.

    Dead is a channel on which no output depends, or which is the same number whatever the input, in evaluation mode; that
    number is added to the biases of what reads it. Both networks run on random inputs, and on those of `data`, before
    anything is given back or written. The equality is for inputs of this shape. What is given is not changed.

    `mask`: which weights are kept, a path, a `Mask` or a mapping of arrays. `weights`: the checkpoint, a path, an
    `nn.Module` or a state dict. `output`: where to write the smaller network: `.safetensors`, its tensors, or `.pt2`, a
    program of `torch.export`; None writes nothing. `model`: the network, where names and shapes do not tell. `input_shape`:
    of one input, such as (3, 32, 32). `data`: labelled samples, of which the first 64 are tried too. `timing_batch`: inputs
    in a batch that is timed; `timing_runs`: how often each network is, of which the median is told. `seed`: of the random
    inputs. `device`: where they are timed: "auto", "cpu" or "cuda". `force`: replace an existing file. `trust`: files may
    run the code in them. `progress`: True for a bar, or what is called with (done, total, what).

    Raises `UsageError`, `CompactError` where no output depends on the input or the network cannot be made smaller without
    changing what it gives, `TraceError` where its channels cannot be followed, `MaskError`, `CheckpointError`,
    `UnknownModelError`, `MethodOptionError`, `DataError`, `DeviceError`, `OutputError`.
    """
    refuse(compact, IDLE, locals())
    path, shape = maybe_path(output), shape_of(input_shape)
    if weights is None:
        raise UsageError(f"a mask says what of a network is kept: give its {option('weights', 'CKPT')}")
    check_least(1, timing_batch=timing_batch, timing_runs=timing_runs)
    check_seed(seed)
    from pai_cli.compacting.output import check_suffix, write
    from pai_cli.compacting.run import CompactRequest
    from pai_cli.compacting.run import compact as run

    check_suffix(path)
    _plan(mask, path, weights, model, data, force=force)
    stored = open_given(mask, trust=trust)
    source = open_source(weights, trust=trust)
    network = network_of(source, model, shape)
    masks = _masks(stored, source, network)
    given = None if data is None else _inputs(data, shape or network.input_shape)
    taken = _shape_of_one(shape or network.input_shape, given)
    where = device_of(device, weights)
    request = CompactRequest(
        network.model, masks, taken, str(source.path), given, seed, timing_batch, timing_runs, where
    )
    with shown_by(progress, "compacting") as reading:
        found = run(request, reading)
    _tell(found, request)
    if path is not None:
        story = {"source_sha256": source.sha256, "mask": str(stored.path), **provenance(typed())}
        write(path, found, taken, story, force=force)
        note(f"wrote {path}: {found.parameters[1]:,} of {found.parameters[0]:,} parameters")
    return found


def _plan(mask: Any, path: Path | None, weights: Source, model: str | None, data: Data | None, *, force: bool) -> None:
    named = name_of(data) if isinstance(data, (str, Path)) else None
    plan = Reads(source_path(weights), model, named).plan(force=force)
    plan.reads("the mask", mask.path if isinstance(mask, Mask) else source_path(mask))
    plan.writes(path, "the smaller network", "output")
    plan.check()


def _shape_of_one(told: tuple[int, ...] | None, given: Any) -> tuple[int, ...]:
    """The shape of one input: as it is told, or that of those `given`. Raises `MethodOptionError` for neither."""
    shape = told if told or given is None else tuple(given.shape[1:])
    if shape is None:
        raise MethodOptionError(
            "the shape of one input is not known, and channels are found by following one; give it with "
            f"{option('input_shape')}, such as 3,32,32"
        )
    return shape


def _masks(stored: Stored, source: Checkpoint, network: Network) -> Any:
    """The masks by parameter, compared with the network; what they keep is said."""
    from pai_cli.models.huggingface import refuse_weights_alone
    from pai_cli.models.masked import masks_for
    from pai_cli.training.fitting import counted

    refuse_weights_alone(network.model)
    remedy = f"{option('weights')} takes the checkpoint that the mask was made for"
    masks = masks_for(stored, network.model, str(source.path), remedy)
    kept = counted(network.model, network.layers, masks)
    tell_network(source, network, f", {kept.told(stored.path)}" + (f" ({stored.remark})" if stored.remark else ""))
    tell_precision(source, network, "written")
    if made_from := other_weights(stored.path, stored.metadata, source):
        note(made_from)
    return masks


def _inputs(data: Data, shape: tuple[int, ...] | None) -> Any:
    """The first samples of the data, as the network takes them."""
    import numpy as np
    import torch

    from pai_cli.data.batches import batch_for

    dataset = as_dataset(data)
    indices = np.arange(min(GIVEN_SAMPLES, len(dataset)))
    return torch.from_numpy(batch_for(dataset, indices, shape).inputs)


def _tell(found: Compacted, request: CompactRequest) -> None:
    """Say how the networks compare, which dead channels are kept and why, and what else is not as it was asked."""
    exact, rounded = found.exact, found.rounded
    note(
        f"{request.called}: outputs of {found.samples} inputs differ by at most {exact.difference:.3g} in float64 and "
        f"{rounded.difference:.3g} in its own precision; the largest is {rounded.output:.3g}"
    )
    if not found.removed:
        note(f"{request.called}: no channel can be removed: nothing of it is smaller")
    if reasons := found.dead_kept:
        told = "; ".join(f"{count:,}: {reason}" for reason, count in reasons.items())
        note(f"{request.called}: {sum(reasons.values()):,} dead channels are kept ({told})")
    if found.batch < request.batch:
        note(f"{request.called}: takes one input at a time: that is timed, not {option('timing_batch', request.batch)}")
