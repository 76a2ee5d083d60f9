"""What enters the engine from anyone's program: taken rightly, or refused by name with one line."""

from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import torch
from graphs import KINDS, WEIGHTS, svd, uniform
from scipy.sparse import csr_array

from pai_cli.errors import ArrayError, NotFiniteError, PaiError, ParameterError, SolverError
from pai_cli.spectral.compiled import calls
from pai_cli.spectral.graph import BipartiteGraph, unroll
from pai_cli.spectral.junctions import Degrees, Junction, compatibility, copeland, overlap
from pai_cli.spectral.layout import Layout
from pai_cli.spectral.metrics import MetricOptions, dense_reference, measure_layer, measures_of, prepare_layer
from pai_cli.spectral.network import DenseCache, LayerInput, measure_together
from pai_cli.spectral.singular import singular_pairs, structure_pair, weighted_pair
from pai_cli.spectral.solver_table import EIGENPAIR, SolverLimits
from pai_cli.spectral.solvers import Solver, SolverOptions
from pai_cli.spectral.subgraphs import regular_subgraphs

MASK = uniform(np.random.default_rng(0), 9, 14, 0.5)
WEIGHTED = np.random.default_rng(1).normal(size=MASK.shape)


def spoilt(value: Any, dtype: Any = np.float64, at: tuple[int, int] = (2, 3)) -> np.ndarray:
    """The mask with an entry of another kind."""
    array = MASK.astype(dtype)
    array[at] = value
    return array


def tensor(dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.from_numpy(MASK).to(dtype)


# Numbers -----------------------------------------------------------------------------------------------------------

WHOLE = "give a whole number from 1 to 2,147,483,648"


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (math.inf, "inf"),
        (math.nan, "nan"),
        (-1, "-1"),
        (0, "0"),
        (2**63, "9223372036854775808"),
        (10**50, "1000000000000000000000000000000000000..."),
        (10**5000, "int"),
        (3.5, "3.5"),
        (3.0, "3.0"),
        (True, "True"),
        ("3", "'3'"),
        (None, "None"),
        (np.float64(3), "np.float64(3.0)"),
        (np.ones(2), "array([1., 1.])"),
    ],
    ids=lambda value: str(value) if not isinstance(value, int) or value < 10**50 else "long",
)
def test_a_count_that_is_none_never_reaches_the_solver(value: Any, shown: str) -> None:
    with pytest.raises(ParameterError) as caught:
        SolverOptions(most_products=value)
    assert str(caught.value) == f"most_products={shown}: {WHOLE}"


@pytest.mark.parametrize("value", [0, -1e-9, 1, 1e400, math.nan, True, "1e-9", None, 1j, 10**400, np.ones(1)], ids=str)
def test_a_tolerance_lies_between_0_and_1(value: Any) -> None:
    with pytest.raises(ParameterError, match=r"^tolerance=.*: give a number above 0 and below 1$"):
        SolverOptions(tolerance=value)


@pytest.mark.parametrize(
    ("make", "line"),
    [
        (
            lambda: SolverOptions(solver="lapack"),  # type: ignore[arg-type]
            "solver='lapack': give one of auto, gram, power, matrix-free, direct",
        ),
        (lambda: SolverOptions(solver=[]), "solver=[]: give one of auto, gram, power, matrix-free, direct"),  # type: ignore[arg-type]
        (lambda: SolverOptions(certify=1), "certify=1: give True or False"),  # type: ignore[arg-type]
        (lambda: MetricOptions(solver="gram"), "solver='gram': give SolverOptions"),  # type: ignore[arg-type]
        (lambda: MetricOptions(expansion_weighted="no"), "expansion_weighted='no': give True or False"),  # type: ignore[arg-type]
        (lambda: MetricOptions(dense=None), "dense=None: give True or False"),  # type: ignore[arg-type]
        (lambda: Layout(groups=0), "groups=0: give a whole number from 1 to 2,147,483,648"),
        (lambda: Layout(groups=1.0), "groups=1.0: give a whole number from 1 to 2,147,483,648"),  # type: ignore[arg-type]
        (lambda: Layout(transposed=1), "transposed=1: give True or False"),  # type: ignore[arg-type]
    ],
)
def test_choices_are_checked(make: Callable[[], object], line: str) -> None:
    with pytest.raises(ParameterError) as caught:
        make()
    assert str(caught.value) == line


def test_what_has_no_gram_matrix_is_not_certified() -> None:
    with pytest.raises(SolverError, match="take 'power'"):
        SolverOptions(solver=Solver.MATRIX_FREE, certify=True)


def test_options_are_plain_values() -> None:
    options = SolverOptions(np.float32(0.5), np.int16(7), "gram")  # type: ignore[arg-type]
    assert options == SolverOptions(0.5, 7, Solver.GRAM)
    assert [type(value) for value in (options.tolerance, options.most_products, options.solver)] == [float, int, Solver]
    assert measure_layer(MASK, options=MetricOptions(options)).solver == "gram"
    assert type(Layout(np.int64(3)).groups) is int


# Arrays ------------------------------------------------------------------------------------------------------------

REFUSED: dict[str, tuple[Any, str]] = {
    "masked": (
        np.ma.masked_array(MASK, mask=~MASK),
        "the mask: a masked array has entries without a value; give filled() of it",
    ),
    "text": (MASK.astype(str), "the mask: its entries are <U5, not real numbers or booleans; convert them"),
    "bytes": (MASK.astype("S1"), "the mask: its entries are |S1, not real numbers or booleans; convert them"),
    "objects": (MASK.astype(object), "the mask: its entries are object, not real numbers or booleans; convert them"),
    "dates": (
        MASK.astype(int).astype("M8[s]"),
        "the mask: its entries are datetime64[s], not real numbers or booleans; convert them",
    ),
    "complex": (MASK * 1j, "the mask: its entries are complex128, not real numbers or booleans; convert them"),
    "records": (
        MASK.astype([("a", "f8")]),
        "the mask: its entries are [('a', '<f8')], not real numbers or booleans; convert them",
    ),
    "NaN": (spoilt(np.nan), "the mask: the entry at index (2, 3) is nan, neither 0 nor 1"),
    "infinity": (spoilt(np.inf), "the mask: the entry at index (2, 3) is inf, neither 0 nor 1"),
    "3.7": (spoilt(3.7), "the mask: the entry at index (2, 3) is 3.7, neither 0 nor 1"),
    "-1": (spoilt(-1, np.int8), "the mask: the entry at index (2, 3) is -1, neither 0 nor 1"),
    "255": (spoilt(255, np.uint8), "the mask: the entry at index (2, 3) is 255, neither 0 nor 1"),
    "nearly 1": (
        spoilt(1 + np.longdouble(2) ** -60, np.longdouble),
        r"the mask: the entry at index (2, 3) is .*, neither 0 nor 1",
    ),
    "nearly 0": (spoilt(5e-324), "the mask: the entry at index (2, 3) is 5e-324, neither 0 nor 1"),
    "list": (
        MASK.tolist(),
        "the mask: a list is neither a NumPy array nor a torch tensor; give numpy.asarray of it",
    ),
    "None": (None, "the mask: a NoneType is neither a NumPy array nor a torch tensor; give numpy.asarray of it"),
    "number": (
        np.float64(1),
        "the mask: a float64 is neither a NumPy array nor a torch tensor; give numpy.asarray of it",
    ),
    "sparse": (
        csr_array(MASK),
        "the mask: a csr_array is neither a NumPy array nor a torch tensor; give toarray() of it",
    ),
    "0 dimensions": (np.array(True), "the mask: a bipartite graph needs a matrix, not shape ()"),
    "1 dimension": (MASK[0], "the mask: a bipartite graph needs a matrix, not shape (14,)"),
    "3 dimensions": (MASK[None], "the mask: a bipartite graph needs a matrix, not shape (1, 9, 14)"),
    "a long side": (
        np.zeros((0, 2**24), bool),
        "the mask: a side of 16,777,216 vertices is past exact float32 counts",
    ),
    "complex tensor": (
        tensor(torch.complex64),
        "the mask: its entries are torch.complex64, not real numbers or booleans; convert them",
    ),
    "sparse tensor": (tensor().to_sparse(), "the mask: a sparse or nested tensor is not taken; give to_dense() of it"),
    "meta tensor": (tensor().to("meta"), "the mask: a tensor on the device meta has no values"),
    "tensor of no shape": (
        torch.nn.UninitializedParameter(),
        "the mask: a UninitializedParameter is not a plain torch tensor; give one with its values",
    ),
    "0.5 tensor": (
        torch.from_numpy(spoilt(0.5)).half(),
        "the mask: the entry at index (2, 3) is 0.5, neither 0 nor 1",
    ),
    "8-bit tensor": (
        torch.from_numpy(spoilt(2)).to(torch.float8_e5m2),
        "the mask: the entry at index (2, 3) is 2.0, neither 0 nor 1",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_mask_is_refused(name: str, engine: str) -> None:
    given, line = REFUSED[name]
    begin, _, end = line.partition(".*")
    doors: tuple[Callable[[Any], object], ...] = (BipartiteGraph, measure_layer, prepare_layer, Degrees.of)
    for enter in doors:
        with pytest.raises(ArrayError) as caught:
            enter(given)
        assert str(caught.value).startswith(begin), enter
        assert str(caught.value).endswith(end), enter
        assert str(caught.value).isprintable()


@pytest.mark.parametrize(
    ("given", "kind", "line"),
    [
        (spoilt(np.nan), NotFiniteError, "the weights have NaN or infinite values, the first nan at index (2, 3)"),
        (spoilt(-np.inf), NotFiniteError, "the weights have NaN or infinite values, the first -inf at index (2, 3)"),
        (
            spoilt(2**53 + 1, np.int64),
            ArrayError,
            "the weights: the entry at index (2, 3) is 9007199254740993, "
            "an integer that float64 does not hold; round it",
        ),
        (
            WEIGHTED.T,
            ArrayError,
            "the weights: shape (14, 9) for a mask of (9, 14)",
        ),
        (
            torch.from_numpy(WEIGHTED),
            ArrayError,
            "the weights: torch on cpu, and the mask numpy on cpu; give both in one place",
        ),
        (
            WEIGHTED * 1j,
            ArrayError,
            "the weights: its entries are complex128, not real numbers or booleans; convert them",
        ),
        (
            np.ma.masked_array(WEIGHTED),
            ArrayError,
            "the weights: a masked array has entries without a value; give filled() of it",
        ),
    ],
)
def test_what_are_no_weights_is_refused(given: Any, kind: type[PaiError], line: str, engine: str) -> None:
    with pytest.raises(kind) as caught:
        measure_layer(MASK, given)
    assert str(caught.value) == line


@pytest.mark.skipif(np.finfo(np.longdouble).bits == 64, reason="longdouble is float64 here")
@pytest.mark.parametrize("value", ["1e400", "1e-400", "1.0000000000000000001"])
def test_weights_that_float64_does_not_hold_are_refused(value: str) -> None:
    with pytest.raises(ArrayError, match=r"index \(2, 3\) is .*, a number that float64 does not hold; round it$"):
        measure_layer(MASK, spoilt(np.longdouble(value), np.longdouble))


@pytest.mark.filterwarnings("ignore:torch.quantize_per_tensor")
@pytest.mark.skipif(not hasattr(torch, "quantize_per_tensor"), reason="this torch has no quantised tensors")
def test_quantised_tensors_are_refused() -> None:
    with pytest.raises(ArrayError, match=r"give dequantize\(\) of it$"):
        measure_layer(torch.quantize_per_tensor(tensor(), 1.0, 0, torch.qint8))


def test_an_entry_past_the_kept_ones_is_refused_too() -> None:
    with pytest.raises(NotFiniteError):
        BipartiteGraph(np.zeros((3, 3), bool), np.full((3, 3), np.nan))


def test_layers_of_a_network_enter_by_the_same_door() -> None:
    masked = np.ma.masked_array(np.ones((4, 1, 3, 3), bool), mask=True)
    for layout in (Layout(), Layout(groups=2), Layout(transposed=True)):
        with pytest.raises(ArrayError, match=r"^the layer: a masked array"):
            measure_together([LayerInput("x", masked, None, layout)], MetricOptions())
        with pytest.raises(ArrayError, match=r"^the layer: a masked array"):
            unroll(masked, layout)
        with pytest.raises(ArrayError, match=r"^the layer: a masked array"):
            DenseCache().of([LayerInput("x", masked, masked, layout)], MetricOptions())
    with pytest.raises(ArrayError, match=r"^the weights: a masked array"):
        dense_reference(np.ma.masked_array(WEIGHTED), MetricOptions())
    for shape in ((), (3,)):
        with pytest.raises(ArrayError, match="has no rows and columns"):
            unroll(np.ones(shape))


@pytest.mark.parametrize("shape", [(0, 5), (6, 0), (0, 0), (0, 3, 2), (4, 0, 2), (4, 2, 0)])
def test_empty_layers_unroll(shape: tuple[int, ...]) -> None:
    for layout in (Layout(), Layout(groups=2), Layout(transposed=True), Layout(groups=2, transposed=True)):
        matrix = unroll(np.zeros(shape, bool), layout)
        assert BipartiteGraph(matrix).edges == 0
        assert matrix.size == 0


# What is taken -----------------------------------------------------------------------------------------------------


def in_strides(array: np.ndarray) -> np.ndarray:
    wide = np.zeros((2 * array.shape[0], 3 * array.shape[1]), array.dtype)
    wide[::2, ::3] = array
    return wide[::2, ::3]


def misaligned(array: np.ndarray) -> np.ndarray:
    view = np.zeros(array.nbytes + 1, np.uint8)[1:].view(array.dtype).reshape(array.shape)
    view[...] = array
    return view


def read_only(array: np.ndarray) -> np.ndarray:
    copy = array.copy()
    copy.flags.writeable = False
    return copy


class Named(np.ndarray):
    """Another library's arrays: NumPy's with a class of their own."""


FORMS: dict[str, Callable[[np.ndarray], Any]] = {
    "Fortran order": np.asfortranarray,
    "strides": in_strides,
    "backwards": lambda array: np.ascontiguousarray(array[::-1, ::-1])[::-1, ::-1],
    "misaligned": misaligned,
    "read-only": read_only,
    "another class": lambda array: array.view(Named),
    "big-endian": lambda array: array.astype(array.dtype.newbyteorder(">")),
    "tensor": lambda array: torch.from_numpy(array.copy()),
    "tensor in strides": lambda array: torch.from_numpy(np.ascontiguousarray(array.T)).T,
    "tensor with a gradient": lambda array: torch.from_numpy(array.astype(np.float64)).requires_grad_(),
    "parameter": lambda array: torch.nn.Parameter(torch.from_numpy(array.astype(np.float64))),
}


@pytest.mark.parametrize("form", FORMS)
def test_arrays_of_any_form_are_the_same(form: str, engine: str) -> None:
    change, whole = FORMS[form], np.round(WEIGHTED * 4)
    expected = measure_layer(MASK, whole).measures
    for dtype in (np.bool_, np.float64, np.float32, np.int16):
        mask = change(MASK.astype(dtype))
        weights = change(whole.astype(np.float32 if dtype is np.bool_ else dtype))
        for name, measure in measure_layer(mask, weights).measures.items():
            assert measure.reason == expected[name].reason, (name, dtype)
            if measure.value is not None:
                assert measure.value == pytest.approx(expected[name].value, rel=1e-12, abs=1e-12), (name, dtype)


@pytest.mark.parametrize(
    "dtype",
    [
        *(torch.bool, torch.uint8, torch.int8, torch.int64, torch.uint16, torch.uint32, torch.uint64),
        *(torch.float16, torch.bfloat16, torch.float64, torch.float8_e4m3fn, torch.float8_e5m2),
    ],
    ids=str,
)
def test_tensors_of_any_real_type_are_the_same(dtype: torch.dtype) -> None:
    counts = torch.from_numpy(np.random.default_rng(2).integers(0, 4, MASK.shape).astype(np.float32)).to(dtype)
    expected = measure_layer(MASK, counts.float().numpy())
    layer = measure_layer(tensor(dtype), counts)
    assert layer.counts == expected.counts
    assert layer.measures["lambda"].value == pytest.approx(expected.measures["lambda"].value, rel=1e-12)


def test_any_byte_that_is_not_0_is_true(engine: str) -> None:
    bytes_ = np.where(MASK, np.random.default_rng(3).integers(1, 256, MASK.shape), 0).astype(np.uint8)
    odd, plain = BipartiteGraph(bytes_.view(np.bool_)), BipartiteGraph(MASK)
    assert odd.counts == plain.counts
    assert (odd.incidence == plain.incidence).all()
    assert structure_pair(odd) == structure_pair(plain)


@pytest.mark.parametrize("library", ["numpy", "torch"])
def test_what_changes_after_preparation_changes_nothing(library: str, engine: str) -> None:
    """Closed forms, Gram matrices, lists, and the unmasked layer read the arrays when they are asked."""
    for solver in (Solver.AUTO, Solver.DIRECT, Solver.POWER):
        for density in (0.1, 0.5, 1.0):
            mask = uniform(np.random.default_rng(4), 40, 50, density)
            mask[:, 0], weights = mask[:, 0] | (np.arange(40) == 0), np.random.default_rng(5).normal(size=mask.shape)
            options = MetricOptions(SolverOptions(solver=solver))
            expected = measure_layer(*placed(library, mask, weights), options)
            given = placed(library, mask.copy(), weights.copy())
            layer = prepare_layer(*given)
            given[0][...] = True
            given[1][...] = 7.0
            dense = [dense_reference(layer.weights, options)]
            (found,) = measures_of([layer], singular_pairs(layer.problems, options.solver), options, dense)
            assert found == expected


def placed(library: str, *arrays: np.ndarray) -> tuple[Any, ...]:
    return arrays if library == "numpy" else tuple(torch.from_numpy(array) for array in arrays)


# Junctions ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("outputs", "columns", "line"),
    [
        ([0, 1], [0], "2 outputs and 1 columns: a junction is made of pairs"),
        ([1, 0], [0, 1], "the pairs of a junction must increase: by output, then by column, each pair once"),
        ([0, 0], [1, 1], "the pairs of a junction must increase: by output, then by column, each pair once"),
        ([-1, 0], [0, 1], "outputs: the entry at index (0,) is -1, no index or count"),
        ([0, 1], [0, -2], "columns: the entry at index (1,) is -2, no index or count"),
        ([0.0, 1.0], [0, 1], "outputs: a row of whole numbers is needed, in a NumPy array of int64"),
        ([[0, 1]], [0, 1], "outputs: a row of whole numbers is needed, in a NumPy array of int64"),
    ],
)
def test_junctions_are_checked(outputs: Any, columns: Any, line: str) -> None:
    with pytest.raises(ArrayError) as caught:
        Junction(np.array(outputs), np.array(columns))
    assert str(caught.value) == line


def test_junctions_past_the_layers_are_refused() -> None:
    p, q = Degrees.of(MASK), Degrees.of(MASK.T)
    for where in (Junction(np.array([0, 9]), np.array([0, 1])), Junction(np.array([0, 1]), np.array([9, 0]))):
        for measure in (compatibility, copeland):
            with pytest.raises(ArrayError, match="more than the 9 outputs and 9 columns"):
                measure(p, q, where)
    with pytest.raises(ArrayError, match="9 columns"):
        overlap(MASK.T, Junction(np.array([0, 0]), np.array([1, 9])))
    with pytest.raises(ArrayError, match="neither 0 nor 1"):
        overlap(spoilt(2), Junction.regular(2, 3))


# Below the normal range --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("lowest", [-1074, -1060, -1024, -500, -149, -126, 126, 900])
def test_gaps_of_weights_of_any_exponent_keep_their_bounds(lowest: int, engine: str) -> None:
    """The same weights times a power of two have the same gaps times that power: all is exact but for the last rounding."""
    for seed, (name, make) in enumerate(KINDS.items()):
        rng = np.random.default_rng(seed)
        mask = make(rng)
        dtype = np.float32 if -149 <= lowest <= 100 and seed % 2 else np.float64
        plain = np.full(mask.shape, 0.75) if seed % 3 == 0 else rng.uniform(0.25, 1, mask.shape)
        exponent = lowest + seed % 7
        weights = np.ldexp(plain, exponent).astype(dtype)
        raised = np.ldexp(weights.astype(np.float64), -exponent)  # exact
        measured = [measure_layer(mask, one, MetricOptions(dense=False)).measures for one in (weights, raised)]
        for measure in ("lambda", "lambda_imsg"):
            small, large = (one[measure] for one in measured)
            assert small.reason == large.reason
            if small.value is not None and large.value is not None:
                off = abs(Fraction(small.value) - Fraction(large.value) * Fraction(2) ** exponent)
                bound = Fraction(small.error or 0) + Fraction(large.error or 0) * Fraction(2) ** exponent
                assert off <= bound, f"{name}: {small}, expected {large} times 2^{exponent}"


SOME_EXPONENTS = (*range(-1074, -1020), *range(-1020, 1020, 60), *range(1004, 1016))


@pytest.mark.parametrize("spread", [0, 30, 2200], ids=["one exponent", "some", "all below"])
def test_every_metric_of_weights_keeps_its_bound_at_every_exponent(spread: int, engine: str) -> None:
    """Against an SVD of the same weights raised or lowered by a power of two, which rounds none that counts."""
    for exponent in SOME_EXPONENTS:
        rng = np.random.default_rng([exponent + 1074, spread])
        mask = np.ones((5, 7), dtype=bool) if exponent % 4 == 0 else rng.random((12, 60)) < 0.5
        exponents = rng.integers(max(-1074, exponent - spread), exponent + 1, mask.shape)
        weights = np.ldexp(np.full(mask.shape, 0.75) if exponent % 2 else rng.normal(size=mask.shape), exponents)
        found = measure_layer(mask, weights)
        dense = dense_reference(weights, MetricOptions())
        gaps = gap_of(weights * mask), mean_gap_of(weights, mask), gap_of(weights)
        structure = [Fraction(found.measures[name].value or 0) for name in ("dr", "dr_imdb")]
        apart = [one - Fraction(dense[name].value or 0) for one, name in zip(structure, ("dr", "dr_imdb"), strict=True)]
        expected = {
            "lambda": gaps[0],
            "lambda_imsg": gaps[1],
            "l2": root_of_squares([*structure, *gaps[:2]]),
            "l2_dense": root_of_squares([*apart, gaps[0] - gaps[2], gaps[1] - gaps[2]]),
        }
        rounding = Fraction(2) ** -40 * Fraction(float(np.abs(weights).max(initial=0.0)))  # of the SVD
        for name, value in expected.items():
            measure = found.measures[name]
            if measure.value is not None:
                off = abs(Fraction(measure.value) - value)
                assert off <= Fraction(measure.error or 0.0) + rounding, (
                    f"{name} at 2^{exponent}: {measure}, {float(value)}"
                )


def gap_of(weights: np.ndarray) -> Fraction:
    exponent = int(np.frexp(np.abs(weights).max(initial=0.0))[1])
    raised = np.ldexp(np.ldexp(np.abs(weights), -exponent // 2), -exponent - -exponent // 2)
    values = svd(raised)
    return (Fraction(values[0]) - Fraction(values[1])) * Fraction(2) ** exponent


def mean_gap_of(weights: np.ndarray, mask: np.ndarray) -> Fraction:
    graph = BipartiteGraph(mask)
    columns = np.argsort(mask.sum(axis=0), kind="stable")[graph.n_L0 - graph.n_L :]
    kept = [columns[begin:end] for begin, end in regular_subgraphs(graph).ranges.tolist()]
    return sum((gap_of((weights * mask)[:, of]) for of in kept), Fraction(0)) / max(len(kept), 1)


def root_of_squares(terms: list[Fraction]) -> Fraction:
    """To 2^-1200, absolute."""
    return Fraction(math.isqrt(int(sum(term * term for term in terms) * 2**2400)), 2**1200)


# The compiled part, called directly --------------------------------------------------------------------------------

WISH = SolverLimits(1e-9, 1200, 32, 2048).packed
BITS = np.array([[5], [3], [1]], dtype=np.uint64)
ALL = np.array([[0, 3]])
BEGIN, NEIGHBOUR, VALUE = np.array([0, 2, 4, 5]), np.array([0, 2, 0, 1, 0], dtype=np.int32), np.ones(5)
TABLE = EIGENPAIR.itemsize // 8


def limits(**changes: float) -> np.ndarray:
    names = ("tolerance", "most", "direct_side", "proof_side", "few_edges", "twice")
    return np.array([changes.get(name, value) for name, value in zip(names, WISH.tolist(), strict=True)])


def room(rows: int = 1) -> np.ndarray:
    return np.zeros(rows * TABLE)


def overlapping() -> tuple[np.ndarray, np.ndarray]:
    memory = np.zeros(4 * TABLE)
    return memory[: 2 * TABLE], memory[TABLE : 2 * TABLE]


def queued(
    graph: object,
    ranges: np.ndarray,
    wish: np.ndarray,
    table: np.ndarray,
    *,
    owner: int = 0,
    touched: int = 1,
    done: np.ndarray | None = None,
) -> object:
    """A queue of one graph's parts, from arrays as they are."""
    owners, counts = np.full(len(ranges), owner), np.full(len(ranges), touched)
    done = np.zeros(1, np.int64) if done is None else done
    return calls.kernel.queue(wish.reshape(1, -1), owners, ranges, counts, table, done, (graph,))


def by_bits(bits: np.ndarray, ranges: np.ndarray, wish: np.ndarray, table: np.ndarray, **more: Any) -> None:
    calls.kernel.work(queued(calls.kernel.graph_of_bits(bits), ranges, wish, table, **more))


def by_lists(
    lists: tuple[np.ndarray, ...], ranges: np.ndarray, wish: np.ndarray, table: np.ndarray, right: int, **more: Any
) -> None:
    calls.kernel.work(queued(calls.kernel.graph_of_lists(*lists, right), ranges, wish, table, **more))


def by_weights(weights: np.ndarray, wish: np.ndarray, table: np.ndarray, largest: float) -> None:
    calls.kernel.work(queued(calls.kernel.graph_of_weights(weights, largest), np.array([[0, 1]]), wish, table))


OURS = {"by_bits": by_bits, "by_lists": by_lists, "by_weights": by_weights}

PACKED = np.zeros((64, 1), np.uint64)

HOSTILE: dict[str, tuple[str, tuple[Any, ...], str]] = {
    "a budget without end": ("by_bits", (BITS, ALL, limits(most=math.inf), room()), "limits"),
    "a budget of NaN": ("by_bits", (BITS, ALL, limits(most=math.nan), room()), "limits"),
    "a budget below 0": ("by_bits", (BITS, ALL, limits(most=-1), room()), "limits"),
    "a budget past integers": ("by_bits", (BITS, ALL, limits(most=2.0**63), room()), "limits"),
    "a side of NaN": ("by_bits", (BITS, ALL, limits(proof_side=math.nan), room()), "limits"),
    "a side below 0": ("by_bits", (BITS, ALL, limits(direct_side=-1), room()), "limits"),
    "a short limits": ("by_bits", (BITS, ALL, WISH[:5], room()), "limits"),
    "a short table": ("by_bits", (BITS, ALL, WISH, room()[:-1]), "found"),
    "a table too long": ("by_bits", (BITS, ALL, WISH, room(2)), "found"),
    "a table to be read only": ("by_bits", (BITS, ALL, WISH, read_only(room())), "read-only"),
    "a table over the limits": ("by_bits", (BITS, ALL, overlapping()[0], overlapping()[1]), "limits"),
    "a range past the rows": ("by_bits", (BITS, np.array([[0, 4]]), WISH, room()), "not there"),
    "misaligned bits": ("by_bits", (misaligned(BITS), ALL, WISH, room()), "aligned"),
    "too many vertices": ("components", (np.broadcast_to(np.uint64(1), (1, 2**18 + 1)).copy(),), "2\\^24"),
    "no vertices": ("components", (BITS[:0],), "no rows"),
    "not enough room": ("neighbours", (BITS, np.zeros(4, np.int32)), "out"),
    "a mask and other bits": (
        "pack",
        (np.ones((3, 65), np.uint8), np.zeros((64, 1), np.uint64), np.zeros(3, np.int64)),
        "out",
    ),
    "a pack over its mask": (
        "pack",
        (PACKED.view(np.uint8).reshape(64, 8)[:1], PACKED, np.zeros(1, np.int64)),
        "out overlaps mask",
    ),
    "degrees of fewer rows": (
        "pack",
        (np.ones((3, 60), np.uint8), np.zeros((64, 1), np.uint64), np.zeros(2, np.int64)),
        "degrees",
    ),
    "sorted into fewer rows": ("arrange", (BITS, BITS[:2].copy(), np.zeros(3, np.int64), np.zeros(3, np.int64)), "out"),
    "sorted over itself": ("arrange", (BITS, BITS, np.zeros(3, np.int64), np.zeros(3, np.int64)), "overlaps"),
    "fewer places than rows": ("arrange", (BITS, BITS.copy(), np.zeros(2, np.int64), np.zeros(3, np.int64)), "row"),
    "a neighbour that is not": (
        "by_lists",
        ((BEGIN, np.array([0, 2, 0, 3, 0], np.int32), VALUE), ALL, WISH, room(), 3),
        "a right vertex",
    ),
    "a neighbour below 0": (
        "by_lists",
        ((BEGIN, np.array([-1, 2, 0, 1, 0], np.int32), VALUE), ALL, WISH, room(), 3),
        "a right vertex",
    ),
    "neighbours in no order": (
        "by_lists",
        ((BEGIN, np.array([2, 0, 0, 1, 0], np.int32), VALUE), ALL, WISH, room(), 3),
        "do not increase",
    ),
    "lists that go back": (
        "by_lists",
        ((np.array([0, 4, 2, 5]), NEIGHBOUR, VALUE), ALL, WISH, room(), 3),
        "go on",
    ),
    "weights of no such row": (
        "weights",
        (BEGIN, NEIGHBOUR, np.arange(3), np.ones((2, 3)), np.zeros(5)),
        "a right vertex",
    ),
    "weights of no such column": (
        "weights",
        (BEGIN, NEIGHBOUR, np.arange(3), np.ones((3, 2)), np.zeros(5)),
        "a column",
    ),
    "weights of a column below 0": (
        "weights",
        (BEGIN, NEIGHBOUR, np.arange(-1, 2), np.ones((3, 3)), np.zeros(5)),
        "a column",
    ),
    "weights of a column twice": (
        "weights",
        (BEGIN, NEIGHBOUR, np.array([0, 1, 1]), np.ones((3, 3)), np.zeros(5)),
        "twice",
    ),
    "columns too few": ("weights", (BEGIN, NEIGHBOUR, np.arange(2), np.ones((3, 3)), np.zeros(5)), "as many as lists"),
    "weights of half precision": (
        "weights",
        (BEGIN, NEIGHBOUR, np.arange(3), np.ones((3, 3), np.float16), np.zeros(5)),
        "float32 and float64",
    ),
    "weights for fewer edges": ("weights", (BEGIN, NEIGHBOUR, np.arange(3), np.ones((3, 3)), np.zeros(4)), "lengths"),
    "a whole without rows": ("by_weights", (np.ones((0, 3)), WISH, room(), 1.0), "no rows"),
    "a largest of 0": ("by_weights", (np.ones((3, 3)), WISH, room(), 0.0), "largest"),
    "a largest of NaN": ("by_weights", (np.ones((3, 3)), WISH, room(), math.nan), "largest"),
    "a largest without end": ("by_weights", (np.ones((3, 3)), WISH, room(), math.inf), "largest"),
    "a whole of half precision": ("by_weights", (np.ones((3, 3), np.float16), WISH, room(), 1.0), "float32 and"),
    "a whole with a short table": ("by_weights", (np.ones((3, 3)), WISH, room()[:-1], 1.0), "found"),
    "a right side below 0": ("by_lists", ((BEGIN, NEIGHBOUR, VALUE), ALL, WISH, room(), -1), "right"),
    "a matrix of another side": ("solve_gram", (np.zeros((4, 4)), WISH, room(), 5), "gram"),
    "a matrix without rows": ("solve_gram", (np.zeros((0, 0)), WISH, room(), 0), "n is 0"),
    "a matrix past all sides": ("solve_gram", (np.zeros((4, 4)), WISH, room(), 2**40), "n is"),
}


@pytest.mark.skipif(not calls.available(), reason="the compiled part of the engine is not built")
@pytest.mark.parametrize("name", HOSTILE)
def test_the_compiled_part_checks_for_itself(name: str) -> None:
    function, arguments, why = HOSTILE[name]
    with pytest.raises(ValueError, match=why):
        OURS.get(function, getattr(calls.kernel, function, None))(*arguments)


@pytest.mark.skipif(not calls.available(), reason="the compiled part of the engine is not built")
def test_a_queue_checks_for_itself() -> None:
    graph, table = calls.kernel.graph_of_bits(BITS), room()
    for more, why in (
        ({"owner": 1}, "not there"),
        ({"owner": -1}, "not there"),
        ({"done": np.zeros(2, np.int64)}, "one number"),
        ({"done": table[:1].view(np.int64)}, "overlaps"),
    ):
        with pytest.raises(ValueError, match=why):
            queued(graph, ALL, WISH, table, **more)
    for other in (None, object(), queued(graph, ALL, WISH, table)):
        with pytest.raises(ValueError, match="PyCapsule"):
            queued(other, ALL, WISH, table)
        with pytest.raises(ValueError, match="PyCapsule"):
            calls.kernel.work(other if other is None or type(other) is object else graph)
    memory = np.zeros((TABLE, 1), np.uint64)
    with pytest.raises(ValueError, match="overlaps a graph"):
        queued(calls.kernel.graph_of_bits(memory), ALL, WISH, memory.reshape(-1).view(np.float64))
    one = np.zeros(1, np.int64)
    with pytest.raises(ValueError, match="a tuple"):
        calls.kernel.queue(WISH.reshape(1, -1), one, ALL, one, table, np.zeros(1, np.int64), [graph])
    with pytest.raises(ValueError, match="a row a graph"):
        calls.kernel.queue(np.stack([WISH, WISH]), one, ALL, one, table, np.zeros(1, np.int64), (graph,))


@pytest.mark.skipif(not calls.available(), reason="the compiled part of the engine is not built")
def test_a_queue_that_is_ended_begins_nothing() -> None:
    for begun in (1, 2**62, -1, -(2**63)):
        table = room()
        by_bits(BITS, ALL, WISH, table, done=np.array([begun]))
        assert not table.any()
    table = room()
    by_bits(BITS, ALL, WISH, table)
    assert table.any()


@pytest.mark.skipif(not calls.available(), reason="the compiled part of the engine is not built")
def test_a_queue_keeps_its_graphs_and_its_own_problems() -> None:
    ranges, table, expected = ALL.copy(), room(), room()
    by_bits(BITS, ALL, WISH, expected)
    bits = BITS.copy()
    queue = queued(calls.kernel.graph_of_bits(bits), ranges, WISH, table)
    ranges[:] = 2**40
    del bits
    calls.kernel.work(queue)
    assert table.tobytes() == expected.tobytes()


@pytest.mark.skipif(not calls.available(), reason="the compiled part of the engine is not built")
def test_rows_without_an_edge_have_values_0() -> None:
    table = room(2)
    by_bits(np.zeros((3, 2), np.uint64), np.array([[0, 1], [0, 3]]), limits(direct_side=0), table)
    assert (table.view(EIGENPAIR)["value"] == 0).all()
    nothing = (np.zeros(4, np.int64), np.zeros(0, np.int32), np.zeros(0))
    by_lists(nothing, np.array([[0, 1], [0, 3]]), WISH, table, 2, touched=0)
    assert (table.view(EIGENPAIR)["value"] == 0).all()


def test_a_tall_thin_layer_takes_memory_by_its_size(engine: str) -> None:
    mask = np.random.default_rng(6).random((2**18, 3)) < 0.5
    pair, gram = structure_pair(BipartiteGraph(mask)), mask.T.astype(float) @ mask.astype(float)
    assert pair.sigma_1 == pytest.approx(math.sqrt(np.linalg.eigvalsh(gram)[-1]), rel=1e-12)


def test_weights_in_all_their_kinds_are_taken(engine: str) -> None:
    for seed, (name, make) in enumerate(WEIGHTS.items()):
        weights = make(np.random.default_rng(seed), MASK.shape)
        expected = np.linalg.svd(np.where(MASK, np.abs(weights.astype(float)), 0.0), compute_uv=False)
        pair = weighted_pair(BipartiteGraph(MASK, weights))
        assert pair.sigma_1 == pytest.approx(expected[0], rel=1e-9), name
