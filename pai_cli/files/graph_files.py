"""One bipartite graph in a file, as people of graphs keep it: its matrix, sparse or whole, or a list of its edges.

A Matrix Market file, a matrix of `scipy.sparse.save_npz`, an array of `numpy.save`, and a text of two names a line. What is
sparse in the file stays so. Nothing that a file tells of itself is believed, and no pickle in one is opened.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pai_cli.errors import ArrayError, MaskError, NotFiniteError
from pai_cli.files.digest import sha256_of
from pai_cli.files.first_bytes import check_readable
from pai_cli.spectral.layout import PLAIN, Layout

if TYPE_CHECKING:
    import numpy as np

    from pai_cli.spectral.validation import Entries

NPY, MARKET = b"\x93NUMPY", b"%%MatrixMarket"

OF_ANY_TEXT = (".txt", ".csv", ".tsv")
LISTS = (*OF_ANY_TEXT, ".edges", ".edgelist", ".el")
"""What a list of edges may end with: nothing in a text says that it is one."""

KIND, GRAPH = "kind", "graph"
"""What the report of a graph by itself says in its metadata, by which whole files are compared, whatever they are called."""

SUFFIXES = (".mtx", ".npy", *LISTS[len(OF_ANY_TEXT) :])
"""What says by itself that a file of a folder is a graph."""

MOST_WHOLE = 2**28  # entries of a sparse graph that may be made whole for who asks for that


class GraphFile:
    """The graph as a mask of one layer, which is called as the file is: an edge is where the matrix is not 0.

    `matrix`: rows are right vertices, columns left ones; an array, or `Entries`. `weighted`: whether other numbers than 0
    and 1 stand in it, which are then the weights of the edges. Raises `MaskError`.
    """

    def __init__(self, path: Path, found: Found):
        self.path = path
        self.metadata = {KIND: GRAPH}
        self.format = found.format
        self.names = (path.stem or path.name,)
        self.matrix = found.matrix
        self.shapes = {self.names[0]: (int(found.matrix.shape[0]), int(found.matrix.shape[1]))}
        self.weighted = not _is_zero_one(_stored(found.matrix))
        self.remark = "; ".join(filter(None, (found.told, self._told_weights())))

    def _told_weights(self) -> str:
        import numpy as np

        values = _stored(self.matrix)
        if not self.weighted:
            return "its numbers are 0 and 1: a graph without weights"
        signs = ", signs left out" if values.dtype.kind != "u" and bool(np.any(values < 0)) else ""
        return f"other numbers than 0 and 1 are taken for weights of edges{signs}; what is 0 is no edge"

    @property
    def edges(self) -> int:
        """How many there are."""
        import numpy as np

        return int(np.count_nonzero(_stored(self.matrix)))

    def layout(self, _name: str) -> Layout:
        """A plain matrix."""
        return PLAIN

    def array(self, name: str) -> np.ndarray:
        """Where there is an edge, boolean. Raises `MaskError` for a sparse graph that is too large to be made whole."""
        import numpy as np

        if isinstance(self.matrix, np.ndarray):
            there: np.ndarray = self.matrix != 0
            return there
        rows, columns = self.shapes[name]
        if rows * columns > MOST_WHOLE:
            raise MaskError(
                f"{self.path}: {rows:,} x {columns:,} is too large to be made whole; pai analyze measures it as it is"
            )
        whole = np.zeros((rows, columns), dtype=np.bool_)
        whole[self.matrix.rows, self.matrix.columns] = True
        return whole

    @cached_property
    def sha256(self) -> str:
        """Hex digest of the file's bytes."""
        return sha256_of([self.path])


@dataclass(frozen=True)
class Found:
    """The matrix of a file, who writes such files, and what a person should know of how it was read."""

    matrix: np.ndarray | Entries
    format: str
    told: str = ""


def open_graph(path: Path) -> GraphFile | None:
    """The graph in a file; None where it is a file of another kind. Raises `MaskError`."""
    read = _reader(path)
    return None if read is None else GraphFile(path, read(path))


def graph_of(mask: object) -> GraphFile | None:
    """The graph that a mask is, also under another name; None of a mask of another kind."""
    found: GraphFile | None = mask if isinstance(mask, GraphFile) else getattr(mask, "graph", None)
    return found


def matrix_in(path: Path) -> np.ndarray | Entries:
    """The matrix in such a file, signs and all. Raises `MaskError`, also for a file of another kind."""
    read = _reader(path)
    if read is None:
        raise MaskError(
            f"{path}: no matrix: give a Matrix Market file, one of scipy.sparse.save_npz or numpy.save, or a list of edges "
            f"(*{', *'.join(LISTS)})"
        )
    return read(path).matrix


def is_graph(path: Path) -> bool:
    """Whether a file is a graph by its first bytes or its name. Raises `MaskError` for one that cannot be read."""
    return _reader(path) is not None


def _reader(path: Path) -> Callable[[Path], Found] | None:
    start = check_readable(path, MaskError)
    if start.startswith(NPY):
        return _of_array
    text = path.suffix.lower() == ".mtx" and start.isascii() and b"\0" not in start  # whatever its first line is
    if start.startswith(MARKET) or text:
        return _of_market
    if start.startswith(b"PK"):
        from pai_cli.files.foreign.npz import is_of_scipy

        return _of_scipy if is_of_scipy(path) else None
    return _of_edges if path.suffix.lower() in LISTS else None


def _stored(matrix: Any) -> np.ndarray:
    values: np.ndarray = getattr(matrix, "values", matrix)
    return values


def _is_zero_one(values: np.ndarray) -> bool:
    return values.dtype == bool or bool(((values == 0) | (values == 1)).all())


def _entries(path: Path, places: Sequence[Any], values: Any, shape: tuple[int, int], why_once: str = "") -> Entries:
    from pai_cli.spectral.validation import entries_at

    try:
        return entries_at(places[0], places[1], values, shape, name="the matrix", why_once=why_once)
    except (ArrayError, NotFiniteError) as e:
        raise MaskError(f"{path}: {e.text}") from e


def _of_array(path: Path) -> Found:
    import numpy as np

    try:
        matrix = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, OSError, EOFError) as e:  # a header that lies, objects, a type that cannot be mapped
        raise MaskError(
            f"{path}: truncated, damaged, or no array of numbers; copy it again, or save one with numpy.save"
        ) from e
    if matrix.dtype.kind not in "biuf":
        raise MaskError(f"{path}: holds {matrix.dtype}, not real numbers or booleans; convert them")
    if matrix.ndim != 2 or 0 in matrix.shape:
        raise MaskError(f"{path}: an array of shape {tuple(matrix.shape)} is no matrix of rows and columns")
    return Found(np.array(matrix), "numpy")


def _of_scipy(path: Path) -> Found:
    from pai_cli.files.foreign.npz import read_scipy

    places, values, shape = read_scipy(path)
    if len(shape) != 2:
        raise MaskError(f"{path}: a sparse array of shape {shape} is no matrix of rows and columns")
    if values.dtype.kind not in "biuf":
        raise MaskError(f"{path}: holds {values.dtype}, not real numbers or booleans; convert them")
    once = ", which SciPy adds up; call sum_duplicates() before it is saved"
    return Found(_entries(path, tuple(places), values, (shape[0], shape[1]), once), "scipy.sparse")


def _of_market(path: Path) -> Found:
    from pai_cli.files.matrix_market import read_market

    matrix, told = read_market(path)
    if not hasattr(matrix, "tocoo"):
        return Found(matrix, "Matrix Market", told)
    listed = matrix.tocoo()
    once = "; keep each once"
    return Found(_entries(path, (listed.row, listed.col), listed.data, matrix.shape, once), "Matrix Market", told)


def _of_edges(path: Path) -> Found:
    from pai_cli.files.bipartite_lists import read_bipartite

    if path.suffix.lower() in OF_ANY_TEXT:
        from pai_cli.files.edges_or_not import check_edges

        check_edges(path)
    graph = read_bipartite(path)
    return Found(_entries(path, (graph.rows, graph.columns), graph.values, graph.shape), "list of edges", graph.told)
