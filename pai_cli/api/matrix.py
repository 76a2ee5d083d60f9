"""The engine alone: singular values and the graph's own numbers of any matrix, for people without networks."""

from __future__ import annotations

from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pai_cli.api.report import Layer
from pai_cli.api.solving import solver_options
from pai_cli.compute.device import Device, device_name, resolve, torch_device
from pai_cli.errors import ArrayError
from pai_cli.spectral.catalogue import METRICS
from pai_cli.spectral.conventions import Convention
from pai_cli.spectral.parameters import one_of
from pai_cli.spectral.solvers import Solver
from pai_cli.spelling import for_python, option

if TYPE_CHECKING:
    from pai_cli.spectral.graph import BipartiteGraph

NAME = "the matrix"


@dataclass(frozen=True)
class SingularValues:
    """The two largest singular values of a matrix, `sigma_1 >= sigma_2 >= 0`.

    `error_1`, `error_2`: absolute bounds on their errors. `sigma_2` is None for a matrix of one row or column, which has
    one singular value; both are None where a solver did not converge. `proved`: whether they are proved to be the two
    largest, within these bounds; `outcome`: that in words, with the remedy. `solver`: what ran.
    """

    sigma_1: float | None
    sigma_2: float | None
    error_1: float | None
    error_2: float | None
    outcome: str
    solver: str
    proved: bool


def singular_values(
    matrix: Any, *, solver: str = Solver.AUTO, certify: bool = False, device: str | None = None
) -> SingularValues:
    """The two largest singular values of a real matrix, of the matrix itself: its signs count.

    `matrix`: (rows, columns) of booleans, integers or floating-point numbers: a NumPy array, a torch tensor, one of SciPy's
    sparse matrices or arrays, or the path of a file with one: Matrix Market, `scipy.sparse.save_npz`, `numpy.save`, or a
    list of edges. Lists are refused, as it is not known what they were meant to be: give
    `numpy.asarray` of them. It is not changed, and what is computed is computed in float64; integers that float64 does not
    hold are refused.

    A matrix without negative entries goes to the engine of `analyze`, for which every 0/1 mask and every abs(W) * M is
    made: power iteration with a proof, or what `solver` names ("auto", "gram", "power", "matrix-free", "direct");
    `certify` proves sigma_2 past sides of 2,048, too. The engine's proofs hold for no others; so one with negative entries
    goes to LAPACK, up to a smaller side of 6,000 and 2**27 entries, and takes no other `solver` than "direct".

    Sparse matrices stay sparse, with fewer than 2**24 rows and columns, in memory of their entries (without the compiled
    part of the engine: with up to 2**28 places, zeros among them, in the rows and columns that have an entry). `certify`
    eliminates vertices, and fails where that fills more memory than the entries and 2 GiB, which `outcome` says. What is
    stored as 0 is no entry; two entries in one place are refused, as SciPy adds them up: call `sum_duplicates()` first.

    `device`: where the work is done: "cpu", "cuda", one of several GPUs such as "cuda:1", or "auto", a GPU where it is
    quicker; by default where the matrix is, a tensor on a CUDA GPU there, any other in this machine's memory.

    Raises `ArrayError` for what is no such matrix, `MaskError` for a file that holds none, `NotFiniteError` for NaN and
    infinity and where the values overflow float64, `SolverError`, `UsageError`, `DeviceError`. Error bounds: see
    `pai_cli/spectral/bounds.py` and its sources.
    """
    from pai_cli.spectral.matrices import matrix_pair
    from pai_cli.spectral.result import Outcome

    placed, where = _placed(matrix, device)
    pair = matrix_pair(placed, solver_options(solver, certify=certify, device=where))
    return SingularValues(
        sigma_1=pair.sigma_1,
        sigma_2=pair.sigma_2,
        error_1=pair.sigma_1_error,
        error_2=pair.sigma_2_error,
        outcome=for_python(pair.outcome.value),
        solver=pair.solver,
        proved=pair.outcome in (Outcome.PROVED, Outcome.TOO_WIDE, Outcome.ONE_VALUE),
    )


def ramanujan(
    matrix: Any,
    *,
    convention: str = Convention.H23,
    expansion_weighted: bool = False,
    solver: str = Solver.AUTO,
    certify: bool = False,
    device: str | None = None,
) -> Layer:
    """A bipartite graph's own numbers, by the names of docs/metrics.md: counts, dr and ds with their bounds, expansion,
    narc, and their means over the left-regular subgraphs. `ramanujan(matrix)["dr"].value >= 0`: a Ramanujan graph.

    `matrix`: the biadjacency matrix, (rows, columns), of 0 and 1 only: columns are left vertices, rows right ones. What may
    be given, files among it, and the other parameters, are as of `singular_values`; `convention` and `expansion_weighted`
    are as of `analyze`. A matrix with other entries is refused: whether they are weights of edges is not for this function
    to say; `matrix != 0` makes it 0/1.

    Source: Hoang, Liu, Marculescu, Wang, "Revisiting Pruning at Initialization through the Lens of Ramanujan Graph", ICLR
    2023. Raises as `singular_values` does.
    """
    placed, where = _placed(matrix, device)
    from pai_cli.spectral.metrics import MetricOptions, PreparedLayer, measures_of
    from pai_cli.spectral.singular import singular_pairs
    from pai_cli.spectral.subgraphs import regular_subgraphs
    from pai_cli.spectral.table import Tensor

    options = MetricOptions(
        solver=solver_options(solver, certify=certify, device=where),
        convention=one_of("convention", convention, Convention),
        expansion_weighted=expansion_weighted,
    )
    graph = _graph(placed)
    prepared = PreparedLayer(graph, regular_subgraphs(graph, options.convention), None, weighted=False)
    solved = singular_pairs(prepared.problems, options.solver)
    table = measures_of([prepared], solved, options, [], [Tensor("matrix", (graph.n_R0, graph.n_L0))])
    return Layer(table.only(name for name in table.measures if not METRICS[name].needs_weights))


def _graph(matrix: Any) -> BipartiteGraph:
    import numpy as np

    from pai_cli.spectral.graph import BipartiteGraph
    from pai_cli.spectral.sparse import SparseGraph
    from pai_cli.spectral.validation import Entries, sparse_entries, zero_one

    if isinstance(matrix, np.ndarray) or hasattr(matrix, "is_cuda"):
        return BipartiteGraph(zero_one(matrix, NAME))
    entries = matrix if isinstance(matrix, Entries) else sparse_entries(matrix, NAME)
    wrong = (entries.values != 1).nonzero()[0]
    if len(wrong):
        at = int(entries.rows[wrong[0]]), int(entries.columns[wrong[0]])
        raise ArrayError(f"{NAME}: the entry at index {at} is {entries.values[wrong[0]].item()}, neither 0 nor 1")
    return SparseGraph(entries)


def _placed(matrix: Any, device: str | None) -> tuple[Any, str]:
    """The matrix where the work is to be done, and the name of that place. In this machine's memory it is NumPy's."""
    from pai_cli.spectral.validation import Entries, is_sparse, matrix_of, numpy_of

    wanted = None if device is None else device_name(device)
    if isinstance(matrix, str | PathLike):
        from pai_cli.files.graph_files import matrix_in

        matrix = matrix_in(Path(matrix))
    if is_sparse(matrix) or isinstance(matrix, Entries):
        if wanted not in (None, Device.AUTO, Device.CPU):
            raise ArrayError(f"{NAME}: a sparse one is worked on where it is; leave {option('device')} out")
        return matrix, "cpu"
    plain = matrix_of(matrix, NAME)
    if 0 in plain.shape:
        raise ArrayError(f"{NAME}: shape {tuple(plain.shape)} has no entry")
    if wanted in (None, Device.AUTO) and getattr(plain, "is_cuda", False):
        return plain, str(plain.device)
    place = "cpu" if wanted is None else _quicker(plain) if wanted == Device.AUTO else resolve(wanted)
    if place == "cpu":
        return (plain if not hasattr(plain, "is_cuda") else numpy_of(plain, NAME)), place
    return _moved(plain, place), place


def _quicker(plain: Any) -> str:
    """Where a matrix in this machine's memory is worked on sooner."""
    from pai_cli.analysis.places import place_of
    from pai_cli.spectral.costs import work_of

    rows, columns = plain.shape
    return place_of(work_of([(rows, columns)], weighted="bool" not in str(plain.dtype)), rows * columns)


def _moved(plain: Any, place: str) -> Any:
    import numpy as np
    import torch

    if isinstance(plain, np.ndarray):
        from pai_cli.spectral.validation import real_matrix

        real = real_matrix(plain)
        plain = torch.from_numpy(np.ascontiguousarray(real))
    return plain.to(torch_device(place))
