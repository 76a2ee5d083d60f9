"""From files to a collection: masks with the wiring of their network, or lists of edges."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pai_cli.errors import MaskMismatchError, MiningError, TraceError
from pai_cli.files.edge_lists import read_edge_list
from pai_cli.files.fits import Against, check_fits
from pai_cli.files.layer_names import told_assumed
from pai_cli.files.masks import Mask, unknown_layouts
from pai_cli.files.matching import names_of
from pai_cli.files.numbered import Names
from pai_cli.files.opening import open_mask
from pai_cli.mining.collection import Collection
from pai_cli.mining.graphs import collection_of_graphs
from pai_cli.mining.level import Level
from pai_cli.mining.networks import check_same_network, collection_of_masks, matrices, teller
from pai_cli.mining.wiring import Wiring, named_wiring, sizes_of, traced_wiring
from pai_cli.progress import Progress, silent
from pai_cli.spelling import option
from pai_cli.telling import Repeated

if TYPE_CHECKING:
    from pai_cli.files.checkpoints import Checkpoint

Note = Callable[[str], None]


@dataclass(frozen=True)
class NetworkSource:
    """Where the wiring comes from: the checkpoint `weights`, as `model` with `input_shape`; None to go by names."""

    weights: Checkpoint | None = None
    model: str | None = None
    input_shape: tuple[int, ...] | None = None


def open_masks(given: Sequence[Path | Mask], note: Note, *, trust: bool) -> list[Mask]:
    """The masks of one network, from files or open already, a file by two names once.

    Raises `MaskError` for the first that cannot be read or is of another network.
    """
    files: dict[Path, Path] = {}
    once: list[Path | Mask] = []
    for one in given:
        first = files.setdefault(one.resolve(), one) if isinstance(one, Path) else one
        if first is one:
            once.append(one)
        else:
            note(f"{one}: is {first} by another name, and counts once")
    masks = [open_mask(one, trust=trust) if isinstance(one, Path) else one for one in once]
    check_same_network(masks)
    with closing(Repeated(note)) as notes:
        for mask in masks:
            if mask.remark:
                notes.note(mask.path, mask.remark)
    untold = [mask for mask in masks if unknown_layouts(mask)]
    if untold:
        known, several = teller(masks), f" ({len(untold)} masks)" if len(untold) > 1 else ""
        told = told_assumed(unknown_layouts(untold[0]))
        if not unknown_layouts(known):
            told = f"does not tell groups and transposition; both are taken from {known.path}"
        note(f"{untold[0].path}: {told}{several}")
    return masks


def mask_collection(
    masks: Sequence[Mask], level: Level, source: NetworkSource, note: Note, progress: Progress = silent
) -> Collection:
    """The graphs of masks of one network.

    Raises `MaskError`; `TraceError` when the wiring cannot be found; with `source.weights` what loading a network raises.
    """
    if level is Level.WEIGHT:
        return collection_of_masks(masks, None, progress)
    if source.weights is None:
        first = teller(masks)
        names = matrices(first)
        wiring = named_wiring(
            {name: first.shapes[name] for name in names}, {name: first.layout(name) for name in names}
        )
        note(
            "who reads whom is taken from the order and the names of the layers, a chain with residual blocks; "
            f"{option('weights', 'CKPT')} follows the network itself"
        )
    else:
        wiring = _followed(teller(masks), source)
    return collection_of_masks(masks, wiring, progress)


def _followed(mask: Mask, source: NetworkSource) -> Wiring:
    checkpoint = source.weights
    assert checkpoint is not None
    from pai_cli.models.network import load_network
    from pai_cli.models.trace import trace

    network = load_network(checkpoint, source.model, source.input_shape)  # which takes wrappers off the names
    own = names_of(mask, checkpoint)
    check_fits(mask.path, {there: mask.shapes[name] for there, name in own.items()}, Against.of(checkpoint, "weights"))
    try:
        found = traced_wiring(trace(network.model, network.input_shape))
    except TraceError as error:
        raise TraceError(f"{error.text}; {option('level', 'weight')} needs no wiring") from error
    wiring = found.called({there: name for there, name in own.items() if name not in found.outputs})
    missing = [name for name in matrices(mask) if name not in wiring.outputs]
    if missing:
        raise MaskMismatchError(
            f"{mask.path}: masks {missing[0]!r}, which {checkpoint.path} never uses on an input; give "
            f"{option('level', 'weight')}"
        )
    for name in matrices(mask):
        if len(wiring.inputs[name]) != sizes_of(mask.shapes[name], mask.layout(name)).places:
            raise MaskMismatchError(
                f"{mask.path}: does not tell how {name!r} is grouped or transposed, as {checkpoint.path} has it; "
                f"give a mask that does, as `pai prune` writes it, or {option('level', 'weight')}"
            )
    return wiring


def graph_collection(paths: Sequence[Path], note: Note, progress: Progress = silent) -> Collection:
    """The graphs of lists of edges. Raises `EdgeListError`; `MiningError` for a file given twice."""
    known: set[Path] = set()
    for path in paths:
        if path.resolve() in known:
            raise MiningError(f"{path}: is given twice, and would count twice; give each graph once")
        known.add(path.resolve())
    lists, names = [], Names()
    for number, path in enumerate(paths):
        progress(number, len(paths), path.name)
        lists.append(read_edge_list(path, names))
    headed = [graph for graph in lists if graph.heading]
    if headed:
        note(
            f"{headed[0].path}: its first line, {headed[0].heading}, is taken for the names of the columns, not for an edge"
            + (f" ({len(headed)} files)" if len(headed) > 1 else "")
        )
    loops = sum(graph.loops for graph in lists)
    if loops:
        note(f"edges from a vertex to itself join nothing and are left out: {loops:,}")
    if any(graph.columns > 2 for graph in lists):
        note("columns past the second are not read: an edge that is listed is there, whatever its weight")
    progress(1, 1)
    return collection_of_graphs(lists)
