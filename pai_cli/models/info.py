"""What a file is and what it holds, told without running anything in it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pai_cli.errors import PaiError, UnknownModelError, UntrustedPickleError
from pai_cli.files.digest import sha256_of
from pai_cli.files.first_bytes import first_bytes, is_pickle
from pai_cli.files.folders import is_model
from pai_cli.files.messages import some_names
from pai_cli.spelling import for_python, option
from pai_cli.telling import note

if TYPE_CHECKING:
    from pai_cli.files.checkpoints import Checkpoint
    from pai_cli.files.graph_files import GraphFile
    from pai_cli.files.masks import Mask

Kind = Literal["mask", "checkpoint", "program", "graph", "folder"]

STORY = {
    "method": "method",
    "density": "asked_density",
    "pattern": "pattern",
    "seed": "seed",
    "data": "data",
    "architecture": "architecture",
    "command": "command",
    "created": "created",
    "source": "source",
    "source_sha256": "source_sha256",
}
"""What a file may tell of how it was made, by its names for it, in the order shown, and the fields that show it.

Those are the same but for the density that was asked for: in every table `density` is the share that is kept.
"""


@dataclass(frozen=True)
class TensorInfo:
    """One tensor. `dtype`: "float32", "bool" ... `kept`: how many of a mask's entries are 1; None of anything else."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    kept: int | None = None

    @property
    def total(self) -> int:
        """Its elements."""
        return prod(self.shape)


@dataclass(frozen=True)
class GraphInfo:
    """A bipartite graph: vertices on the `left` (columns of its matrix) and on the `right` (rows), `edges` between them, and
    whether edges have weights.
    """

    left: int
    right: int
    edges: int
    weighted: bool

    @property
    def density(self) -> float:
        """Edges of all that there could be, 0 to 1."""
        return self.edges / (self.left * self.right)


@dataclass(frozen=True, kw_only=True)
class FileInfo:
    """A file, or a folder.

    `kind`: "mask"; "checkpoint"; "program" (of `torch.export`); "graph" by itself; "folder" of files that are no one model,
    each then in `files`. `format`: who wrote it: "pai", "safetensors", "torch", a kind of mask as `convert` names them; of a
    graph "Matrix Market", "scipy.sparse", "numpy", "list of edges". `network`: the architecture that is recognised, else
    None. `graph`: of a graph, its numbers. `story`: what the file tells of how it was made, by the names of `STORY`.
    `bytes`: of all its files; `sha256`: their digest, None of a folder. `message`: `remark` before its parameters are
    spelled.
    """

    path: Path
    kind: Kind
    format: str
    bytes: int
    sha256: str | None = None
    network: str | None = None
    tensors: tuple[TensorInfo, ...] = ()
    files: tuple[FileInfo, ...] = ()
    graph: GraphInfo | None = None
    story: Mapping[str, str] = field(default_factory=dict)
    message: str = field(default="", repr=False)

    @property
    def remark(self) -> str:
        """What a person should know, or ""."""
        return for_python(self.message)

    @property
    def total(self) -> int:
        """Elements of all tensors."""
        return sum(one.total for one in self.tensors)

    @property
    def kept(self) -> int | None:
        """Entries that a mask keeps; None of what is none."""
        return sum(one.kept or 0 for one in self.tensors) if self.kind == "mask" else None


def info_of(path: Path, *, trust: bool = False) -> FileInfo:
    """What the file or folder is and holds.

    Raises what `open_checkpoint` raises for what is neither a mask nor a checkpoint. `trust`: a pickle or a program may run
    its own code; without it a program is told to be one, and not looked into.
    """
    if path.is_dir() and not is_model(path):
        return _folder(path, trust=trust)
    from pai_cli.files.graph_files import open_graph
    from pai_cli.files.programs import is_program

    if not path.is_dir() and (graph := open_graph(path)) is not None:
        return _of_graph(graph)
    program = path.is_file() and is_pickle(first_bytes(path)) and is_program(path)
    if program and not trust:
        remark = f"cannot be looked into without running code of its maker: {option('trust')} allows that"
        return FileInfo(
            path=path,
            kind="program",
            format="torch.export",
            bytes=path.stat().st_size,
            sha256=sha256_of([path]),
            message=remark,
        )
    found = None if program else _mask(path, trust=trust)
    if found is not None:
        return found
    from pai_cli.files.checkpoints import open_checkpoint

    return _of_checkpoint(path, open_checkpoint(path, trust=trust), "program" if program else "checkpoint")


def _of_graph(graph: GraphFile) -> FileInfo:
    right, left = graph.shapes[graph.names[0]]
    return FileInfo(
        path=graph.path,
        kind="graph",
        format=graph.format,
        bytes=graph.path.stat().st_size,
        sha256=graph.sha256,
        graph=GraphInfo(left, right, graph.edges, graph.weighted),
        message=graph.remark,
    )


def _mask(path: Path, *, trust: bool) -> FileInfo | None:
    """The same of a mask; None for what is not one beyond doubt, which may still be a checkpoint."""
    from pai_cli.files.checkpoints import files_of
    from pai_cli.files.masks import FORMAT
    from pai_cli.files.opening import DENSE, open_mask

    try:
        mask = open_mask(path, trust=trust)
        tensors = tuple(_mask_tensor(mask, name) for name in mask.names)
    except UntrustedPickleError:
        raise
    except PaiError:
        return None
    kind = getattr(mask, "kind", "pai" if mask.metadata.get("format") == FORMAT else "safetensors")
    if kind == DENSE:  # weights, whose zeros may be taken for a mask
        return None
    files = [file for file in files_of(path) if file.is_file()]
    return FileInfo(
        path=path,
        kind="mask",
        format=kind,
        bytes=_size(files),
        sha256=sha256_of(files),
        tensors=tensors,
        story=_story(mask.metadata),
        message=mask.remark,
    )


def _mask_tensor(mask: Mask, name: str) -> TensorInfo:
    import numpy as np

    return TensorInfo(name, tuple(mask.shapes[name]), "bool", int(np.count_nonzero(mask.array(name))))


def _of_checkpoint(path: Path, checkpoint: Checkpoint, kind: Kind) -> FileInfo:
    from pai_cli.models.recognise import recognised

    try:
        known = recognised(checkpoint)
        remark = checkpoint.description
    except UnknownModelError as error:
        known, remark = None, error.text
    return FileInfo(
        path=path,
        kind=kind,
        format="torch.export" if kind == "program" else "safetensors" if checkpoint.in_spans else "torch",
        bytes=_size(checkpoint.files),
        sha256=checkpoint.sha256,
        network=known.description if known is not None else None,
        tensors=tuple(TensorInfo(name, shape, checkpoint.dtype(name)) for name, shape in checkpoint.shapes.items()),
        story=_story(checkpoint.metadata),
        message=remark,
    )


def _folder(path: Path, *, trust: bool) -> FileInfo:
    """Of every file in it, and in the folders below it, that is a mask, a checkpoint or a graph; what is none is counted."""
    from pai_cli.files.graph_files import SUFFIXES as OF_GRAPHS
    from pai_cli.files.paths import SUFFIXES, files_below

    files, others = [], []
    for one in files_below(path, note):
        named = str(one.relative_to(path))
        if (one.is_dir() and not is_model(one)) or (one.is_file() and one.suffix not in (*SUFFIXES, *OF_GRAPHS)):
            others.append(named)
            continue
        try:
            files.append(info_of(one, trust=trust))
        except PaiError:
            others.append(named)
    remark = f"{len(others)} more that are no mask, checkpoint or graph: {some_names(others)}" if others else ""
    return FileInfo(
        path=path, kind="folder", format="", bytes=sum(one.bytes for one in files), files=tuple(files), message=remark
    )


def _size(files: Iterable[Path]) -> int:
    return sum(file.stat().st_size for file in files if file.is_file())


def _story(metadata: Mapping[str, str]) -> dict[str, str]:
    return {key: metadata[key] for key in STORY if metadata.get(key)}
