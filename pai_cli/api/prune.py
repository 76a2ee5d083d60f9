"""`prune`: which weights to keep, before training."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pai_cli.api.by_text import IDLE as IDLE_BY_TEXT
from pai_cli.api.by_text import ByText, Text, in_experts, text_path
from pai_cli.api.inputs import (
    AnyPath,
    Shape,
    Source,
    amount_of,
    file_beside,
    globs_of,
    maybe_path,
    open_source,
    rounds_of,
    shape_of,
    source_path,
)
from pai_cli.api.masks import Mask
from pai_cli.api.new_weights import Weights, write_weights
from pai_cli.api.piecewise import Written, prune_in_pieces, why_whole
from pai_cli.api.plans import Reads, plan_pruning
from pai_cli.api.progress import Wanted, shown_by
from pai_cli.api.ranges import takes_numpy
from pai_cli.api.requests import IDLE_NORMALISE, accept, method_of, request_of, samples_of, story_of, tell_pruning
from pai_cli.api.stability import Found, found_again, repeats_of, stable_mask
from pai_cli.errors import MethodOptionError
from pai_cli.files.atomic import check_output
from pai_cli.files.journal import PRUNE, beside, told_by
from pai_cli.files.provenance import typed
from pai_cli.pruning.base import BLOCK_ALLOCATIONS, Takers
from pai_cli.pruning.trained import TrainingOptions, TrainingRun
from pai_cli.refusals import Idle, idle_force, idle_packed, refuse
from pai_cli.spectral.parameters import one_of
from pai_cli.spelling import option
from pai_cli.telling import note

if TYPE_CHECKING:
    from pai_cli.data.base import Dataset
    from pai_cli.files.checkpoints import Checkpoint
    from pai_cli.files.journal import Journal
    from pai_cli.models.network import Network
    from pai_cli.progress import Progress
    from pai_cli.pruning.base import Method

IDLE = (
    Idle(
        ("perturbation", "stable_out"),
        f"{{value}}: is about the prunings that {option('stability')} makes; give {option('stability', 5)} too, or leave "
        "it out",
        without=("stability",),
    ),
    IDLE_NORMALISE,
    idle_packed("output", "stable_out"),
    idle_force(f"{option('output')} too", "output", "weights_out", "stable_out"),
)
IDLE_OF_METHOD = (
    Idle(
        ("reinit",),
        f"{{it}}: redraws the weights; say with {option('weights_out')} where to write them",
        without=("weights_out",),
    ),
    Idle(
        ("weights_out",),
        f"{{value}}: {{method.name}} leaves the weights as they are; give {option('reinit')}, or leave {{it}} out",
        without=("reinit",),
        where=lambda call: not call.method.trains and not call.method.text,
    ),
    Idle(
        ("resume",),
        "{it}: {method.name} does not train; leave it out (methods that take it: {takers.trains})",
        where=lambda call: not call.method.trains,
    ),
    Idle(("resume",), f"{{it}}: a run is kept beside its mask; give {option('output')} too", without=("output",)),
)
IDLE_SEED = (
    Idle(
        ("seed",),
        "{value}: {method.name} draws nothing; every seed gives this mask",
        without=("shuffle", "reinit", "stability"),
        where=lambda call: not call.method.draws and call.ties != "random" and call.allocation != "owl",
    ),
)


def default_output(given: Mapping[str, Any]) -> Path:
    """Where the command writes where nobody says: `NAME-METHOD-DENSITY.safetensors` in the current folder.

    `given`: the parameters of `prune`. Raises `UsageError`, `UnknownMethodError`.
    """
    from pai_cli.methods.registry import given as named

    amount = amount_of(*(given[name] for name in ("density", "sparsity", "pattern", "densities")))
    changes = [word for name, word in (("invert", "inverted"), ("shuffle", "shuffled")) if given[name]]
    return file_beside(given["checkpoint"], named(given["method"]), amount.label, *changes)


@takes_numpy
def prune(
    checkpoint: Source,
    method: str | Method | None = None,
    *,
    density: float | None = None,
    sparsity: float | str | None = None,
    output: AnyPath | None = None,
    scope: str | None = None,
    seed: int = 0,
    rounds: int | str | None = None,
    data: Any = None,
    per_class: int | None = None,
    normalise: bool = False,
    batch_norm: str | None = None,
    text: Text | None = None,
    sequences: int | None = None,
    sequence_length: int | None = None,
    head: bool = False,
    pattern: str | tuple[int, int] | None = None,
    densities: Any = None,
    allocation: str | None = None,
    shuffle: bool = False,
    invert: bool = False,
    ties: str | None = None,
    reinit: bool = False,
    weights_out: AnyPath | None = None,
    epochs: int | None = None,
    freeze_every: int | None = None,
    penalty: float | None = None,
    rewind: float | None = None,
    optimizer: str | None = None,
    lr: float | None = None,
    batch_size: int | None = None,
    resume: bool = False,
    stability: int | None = None,
    perturbation: float | None = None,
    stable_out: AnyPath | None = None,
    ignore: str | list[str] | None = None,
    model: str | None = None,
    input_shape: Shape | None = None,
    device: str = "auto",
    packed: bool = False,
    no_collapse: bool = False,
    effective: bool = False,
    force: bool = False,
    trust: bool = False,
    progress: Wanted = None,
) -> Mask:
    """Choose which weights to keep. The checkpoint is not changed.

    Keeps exactly round(density * n), halves up, of the n weights of convolutions and linear layers: those that the method
    scores largest, over the whole network or in each layer. The same arguments give the same mask, bit for bit.

    `checkpoint`: a path, an `nn.Module` or a state dict. `method`: a name of `pai.list_methods()`.
    `density`: the share of weights kept, above 0 and at most 1; `sparsity`: the share removed, instead; 0.05 is kept where
    nothing is given. `pattern`: "N:M", N of every M consecutive inputs, or `densities`: a density for each layer, as a
    mapping or the path of a JSON object, instead of one. `allocation`: "owl" or "alphapruning" give each block of a language
    model, of which the folder is given, its own density, whose mean is the density. `scope`: "global" or "layer", where the
    density holds.
    `seed`: of all that is drawn. `rounds`: of an iterative method, or "auto". `data`: for a method with data: "digits", the
    path of a data set, (x, y) arrays or tensors, or a `DataLoader`; `per_class`: samples of each class, 10 by default;
    `normalise`: standardise values that would be taken as they are; `batch_norm`: normalise by "batch" or by "running"
    statistics while samples are scored.
    `text`: for a method that prunes language models, of which the folder is given: the path of a text (.jsonl with a field
    `text`, or a saved data set with such a column), or strings; `sequences` (128) of `sequence_length` (2048) tokens of it
    are taken. `head`: prune the head too. Such a method writes with `weights_out` the whole folder anew, its weights 0 where
    pruned.
    `shuffle`, `invert`: sanity checks (Frankle et al. 2021): each layer's mask permuted, the smallest scores kept. `ties`:
    of equal scores where the cut falls, "first" keeps the first (the default), "random" draws by the seed, "error" refuses;
    where they settle more than a thousandth of the mask, the summary tells. `reinit` with `weights_out`: weights drawn anew,
    written there.
    `epochs`, `freeze_every`, `penalty`, `rewind`, `optimizer`, `lr`, `batch_size`: of a method that trains; None for the
    published ones. `resume`: such a method goes on where it was interrupted, which takes an `output`.
    `stability`: prune so many times more, each prunable weight w replaced by w (1 + `perturbation` u), u uniform in [-1, 1)
    by the seed and `perturbation` 1e-6 unless given; the mask's `summary.stability` tells which share of the kept weights
    each keeps too, and its `stable` is the mask of those that all keep, which `stable_out` writes. An interruption then
    keeps the mask, and what was found of it.
    `ignore`: globs of layers that stay whole and are not counted. `model`: the network, where names and shapes of a
    checkpoint do not tell. `input_shape`: of one input, such as (3, 32, 32). `device`: "auto", "cpu" or "cuda".
    `output`: where to write the mask; None writes nothing. `packed`: bits instead of bytes. `no_collapse`: refuse a mask
    that empties a layer. `effective`: reach the density in weights that lie on a path from input to output, and keep those
    alone. `force`: replace existing files. `trust`: a file may run the code in it.
    `progress`: True for a bar, or what is called with (done, total, what).

    Gives the mask; its `summary` has what else the run found out. Raises `UsageError`, `UnknownMethodError`,
    `MethodOptionError`, `DensityError`, `LayerSelectionError`, `CheckpointError`, `UnknownModelError`, `ScoreError`,
    `CollapseError`, `DataError`, `DeviceError`, `OutputError`, `ResumeError`, and `TrainingError` of a method that trains.
    """
    asked = dict(locals())
    amount, shape = amount_of(density, sparsity, pattern, densities), shape_of(input_shape)
    in_rounds = rounds_of(rounds)
    chosen = method_of(method)
    asked |= {"method": chosen, "takers": Takers()}
    if allocation is not None:
        asked["allocation"] = one_of("allocation", allocation, BLOCK_ALLOCATIONS)
    refuse(prune, IDLE, asked)
    refuse(prune, (*IDLE_BY_TEXT, *IDLE_OF_METHOD), asked, MethodOptionError)
    path, new_weights = maybe_path(output), maybe_path(weights_out)
    repeats = repeats_of(stability, perturbation, maybe_path(stable_out))
    named, given = samples_of(data, normalise=normalise)
    reads = Reads(
        source_path(checkpoint),
        model,
        named,
        None if isinstance(densities, Mapping) else maybe_path(densities),
        text_path(text),
    )
    plan_pruning(reads, path, new_weights, None if repeats is None else repeats.out, chosen, resume=resume, force=force)
    optimizer = None if optimizer is None else one_of("optimizer", optimizer, ("sgd", "adam"))
    training = TrainingOptions(epochs, freeze_every, penalty, rewind, optimizer, lr, batch_size)
    written = Written(path, packed, no_collapse, force, repeats)
    by_text = ByText(asked, chosen, amount, written, new_weights)
    if chosen.text:
        return by_text.prune(in_rounds, training)
    whole = why_whole(path, ties, chosen, repeats, pattern=pattern is not None, reinit=reinit, effective=effective)
    source = open_source(checkpoint, trust=trust)  # its faults are told before torch is imported
    if model is None and not reinit:
        source = _with_experts(source, chosen, globs_of(ignore))
    network, pieces = _open(source, model, shape, chosen, whole)
    request = request_of(
        chosen,
        amount,
        asked,
        rounds=in_rounds,
        input_shape=shape,
        data=named,
        training=training if training.given() else None,
    )
    if allocation is not None:
        network, request = by_text.allocated(source, network, request)
    dataset = accept(source, network, request, given)
    refuse(prune, IDLE_SEED, asked, None)
    with shown_by(progress, chosen.name) as bar:
        if pieces:
            return prune_in_pieces(source, network, request, written, bar)
        weights = Weights(new_weights, network, source, request, TrainingRun())
        return _in_memory(weights, dataset, written, bar, reinit=reinit, resume=resume)


def _with_experts(source: Checkpoint, method: Method, ignore: tuple[str, ...]) -> Checkpoint:
    """The checkpoint, where its weights alone are pruned with its stacks as their experts. Raises `LayerSelectionError`."""
    if source.config is None and method.in_pieces is None:
        return source
    return in_experts(source, ignore)


def _open(
    source: Checkpoint, model: str | None, shape: tuple[int, ...] | None, method: Method, whole: str
) -> tuple[Network, bool]:
    """The network of a checkpoint, and whether that is an outline without values, to be pruned piece by piece.

    `whole`: why the network's values are needed for more than its mask, "" where they are not.
    """
    from pai_cli.pruning.streaming.choosing import in_pieces

    pieces = in_pieces(source, method, model)
    if pieces and whole:
        pieces = False
        total = sum(map(prod, source.shapes.values()))
        note(f"{source.path}: all {total:,} weights are loaded, not piece by piece: {whole}")
    from pai_cli.models.network import load_network, outline_network

    if pieces:
        return outline_network(source, model, shape), True
    suffice = method.in_pieces is not None
    return load_network(source, model, shape, weights_suffice=suffice), False


def _in_memory(
    weights: Weights, dataset: Dataset | None, written: Written, progress: Progress, *, reinit: bool, resume: bool
) -> Mask:
    """Prune a network that is loaded, and write what is to be written."""
    from pai_cli.files.masks import write_mask
    from pai_cli.pruning.output import mask_to_write

    network, source, request, repeats = weights.network, weights.source, weights.request, written.repeats
    searched = _open_run(written, weights, dataset, resume=resume)
    found = _found(weights, dataset, written, progress, searched)
    result = found.result
    mask = mask_to_write(
        result, request, source, typed(), {**network.story, **story_of(dataset, request, network), **searched.run.story}
    )
    # First, so that no mask lacks its weights.
    write_weights(replace(weights, run=searched.run), reinit=reinit, force=written.force)
    if written.path is not None:
        write_mask(written.path, mask, packed=written.packed, force=searched.force)
    made = Mask(mask.masks, layouts=mask.layouts, metadata=mask.metadata, summary=result)
    made.path = written.path
    if repeats is not None and found.stable is not None:
        made.stable = stable_mask(repeats, mask, found.stable, packed=written.packed, force=written.force)
    searched.close()
    if found.stopped is not None:
        if written.path is not None:
            note(f"wrote {written.path}: the mask; what was found of its stability is in it")
        raise found.stopped
    return made


def _found(weights: Weights, dataset: Dataset | None, written: Written, progress: Progress, searched: _Run) -> Found:
    """What the method keeps, told, and how stable that is where it is asked for."""
    from pai_cli.pruning.run import prune as run

    network, request, repeats = weights.network, weights.request, written.repeats
    if repeats is not None:
        from pai_cli.pruning.again import check_perturbation

        check_perturbation(network, repeats.perturbation)
    with searched.going():
        result = run(network, request, progress, dataset, searched.run)
    tell_pruning(result, network, no_collapse=written.no_collapse, rule=request.ties)
    if repeats is None:
        return Found(result)
    return found_again(network, request, result, repeats, progress=progress, dataset=dataset)


@dataclass(frozen=True)
class _Run:
    """A run of the chosen method, and the journal it goes on from where the method trains.

    `force`: whether a mask that stands in its way may be replaced.
    """

    run: TrainingRun
    force: bool
    journal: Journal | None = None

    def going(self) -> AbstractContextManager[None]:
        """Where what runs inside is interrupted, what is kept is said."""
        return nullcontext() if self.journal is None else self.journal.going()

    def close(self) -> None:
        """Remove the state: all that was to be written is."""
        if self.journal is not None:
            self.journal.close()


def _open_run(written: Written, weights: Weights, dataset: Dataset | None, *, resume: bool) -> _Run:
    """A run of the request that writes the mask, to go on from what is kept with `resume`.

    A run that is continued may replace a mask that it wrote itself, and no other: else `OutputError`.
    """
    from dataclasses import asdict

    request, source, network = weights.request, weights.source, weights.network
    if not request.method.trains or written.path is None:
        return _Run(TrainingRun(), written.force)
    from pai_cli.data.fingerprint import digest_of
    from pai_cli.methods.resume import begun

    assert dataset is not None
    facts = request.facts()
    del facts["training"]
    facts |= asdict(request.training or TrainingOptions())
    facts |= {"source_sha256": source.sha256, "network": network.description}
    facts |= {"examples": len(dataset), "data_sha256": digest_of([dataset])}
    journal = beside(PRUNE, written.path, facts)
    own = {"method": request.method.name, "seed": str(request.seed), "source_sha256": source.sha256}
    own |= {} if request.density is None else {"density": repr(request.density)}
    told = told_by(written.path) if resume else {}
    wrote = resume and own.items() <= told.items()
    if wrote and not journal.state_path.exists():
        journal.refuse_finished(written.path, told)
    replaces = written.force or wrote
    run = begun(journal, partial(check_output, written.path, force=replaces), resume=resume)
    return _Run(run, replaces, journal)
