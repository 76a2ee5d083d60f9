"""Masks, weights and options as programs hand them over: the answer of the plain array, or one line that says why not."""

from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from pai_cli.errors import ArrayError, NotFiniteError, ParameterError, SolverError
from pai_cli.spectral.compiled import calls
from pai_cli.spectral.graph import unroll
from pai_cli.spectral.layout import Layout
from pai_cli.spectral.metrics import MetricOptions, measure_layer
from pai_cli.spectral.solvers import Solver, SolverOptions

Rng = np.random.Generator
Change = Callable[[Rng, Any], Any]

REFUSALS = (ArrayError, NotFiniteError, ParameterError, SolverError)


def case(seed: int, folder: Path) -> None:
    """A layer given in another form, or spoilt; or options of any type."""
    rng = np.random.default_rng(seed)
    if rng.random() < 0.3:
        _options(rng)
        return
    kept, calls.kernel = calls.kernel, calls.kernel if rng.random() < 0.6 else None
    try:
        _arrays(rng)
    finally:
        calls.kernel = kept


def _arrays(rng: Rng) -> None:
    mask = rng.random((int(rng.integers(0, 12)), int(rng.integers(0, 12)))) < rng.choice([0.2, 0.7, 1.0])
    weights = rng.integers(-9, 10, mask.shape).astype(np.float64) if rng.random() < 0.6 else None
    expected = _measured(mask, weights)
    changes = {**SAME, **SPOILT}
    name = str(rng.choice(list(changes)))
    given: list[Any] = [mask, weights]
    at = 0 if weights is None else int(rng.integers(2))
    given[at] = changes[name](rng, given[at])
    if _is_tensor(given[at]) and weights is not None and rng.random() < 0.9:
        given[1 - at] = _tensor(rng, given[1 - at])
    mixed = weights is not None and _is_tensor(given[0]) != _is_tensor(given[1])
    try:
        found = _measured(*given)
    except REFUSALS as error:
        _one_line(error, fine=name in SPOILT or mixed)
        return
    assert name in SAME or not mask.size, f"{name} of the {('mask', 'weights')[at]} was taken"
    assert _close(found, expected), f"{name}: {found}, expected {expected}"


def _one_line(error: Exception, *, fine: bool = True) -> None:
    text = str(error)
    assert fine, text
    assert 0 < len(text) < 300
    assert text.isprintable()


def _measured(mask: Any, weights: Any) -> dict[str, tuple[float | None, float | None]]:
    measures = measure_layer(mask, weights).measures
    return {name: (one.value, one.error) for name, one in measures.items()}


def _close(found: dict[str, Any], expected: dict[str, Any]) -> bool:
    for name, (value, error) in expected.items():
        other, wide = found[name]
        if (value is None) != (other is None):
            return False
        if value is not None and abs(value - other) > error + wide + 1e-300:
            return False
    return True


def _is_tensor(given: Any) -> bool:
    return type(given).__module__.startswith("torch")


def _tensor(rng: Rng, array: Any) -> Any:
    import torch

    return torch.from_numpy(np.array(array))


def _cast(dtype: Any) -> Change:
    return lambda rng, array: array.astype(dtype)


def _torch_cast(dtype: str) -> Change:
    def change(rng: Rng, array: Any) -> Any:
        import torch

        whole = torch.from_numpy(np.abs(array.astype(np.float64)))  # no sign, which unsigned types have not
        return whole.to(getattr(torch, dtype))

    return change


def _in_strides(rng: Rng, array: Any) -> Any:
    wide = np.zeros((2 * array.shape[0], 3 * array.shape[1]), array.dtype)
    view = wide[::2, ::3]
    view[...] = array
    return view


def _backwards(rng: Rng, array: Any) -> Any:
    return np.ascontiguousarray(array[::-1, ::-1])[::-1, ::-1]


def _read_only(rng: Rng, array: Any) -> Any:
    copy = array.copy()
    copy.flags.writeable = False
    return copy


def _misaligned(rng: Rng, array: Any) -> Any:
    room = np.zeros(array.nbytes + 1, np.uint8)
    view = room[1:].view(array.dtype).reshape(array.shape)
    view[...] = array
    return view


def _needs_grad(rng: Rng, array: Any) -> Any:
    return _tensor(rng, array.astype(np.float32)).requires_grad_()


def _conjugate_part(rng: Rng, array: Any) -> Any:
    import torch

    return torch.complex(torch.zeros(array.shape), _tensor(rng, -array.astype(np.float32))).conj().imag


class Named(np.ndarray):
    """Another library's arrays: NumPy's with a class of their own."""


SAME: dict[str, Change] = {
    "float16": _cast(np.float16),
    "float32": _cast(np.float32),
    "longdouble": _cast(np.longdouble),
    "int8": _cast(np.int8),
    "int64": _cast(np.int64),
    "big-endian floats": _cast(">f8"),
    "big-endian integers": _cast(">i4"),
    "Fortran order": lambda rng, array: np.asfortranarray(array),
    "strides": _in_strides,
    "backwards": _backwards,
    "read-only": _read_only,
    "misaligned": _misaligned,
    "another class": lambda rng, array: array.view(Named),
    "tensor": _tensor,
    "transposed tensor": lambda rng, array: _tensor(rng, np.ascontiguousarray(array.T)).T,
    "tensor with gradient": _needs_grad,
    "negated lazily": _conjugate_part,
    **{
        f"torch.{name}": _torch_cast(name)
        for name in ("float16", "bfloat16", "uint8", "int32", "int64", "float8_e4m3fn")
    },
    **{f"torch.{name}": _torch_cast(name) for name in ("uint16", "uint32", "uint64")},
}


def _entry(value: Any, dtype: Any = np.float64) -> Change:
    def change(rng: Rng, array: Any) -> Any:
        spoilt = array.astype(dtype)
        if spoilt.size:
            spoilt.reshape(-1)[rng.integers(spoilt.size)] = value
        return spoilt

    return change


def _sparse(rng: Rng, array: Any) -> Any:
    from scipy.sparse import coo_array

    return coo_array(array.astype(float))


def _torch_only(change: str) -> Change:
    def made(rng: Rng, array: Any) -> Any:
        import torch

        tensor = _tensor(rng, array.astype(np.float32))
        if change == "meta":
            return tensor.to("meta")
        return tensor.to_sparse() if change == "sparse" else tensor.to(torch.complex64)

    return made


SPOILT: dict[str, Change] = {
    "NaN": _entry(np.nan),
    "infinity": _entry(np.inf),
    "longdouble past float64": _entry(np.longdouble("1e400"), np.longdouble),
    "longdouble between floats": _entry(1 + np.longdouble(2) ** -60, np.longdouble),
    "integer past float64": _entry(2**53 + 1, np.int64),
    "complex": lambda rng, array: array * 1j,
    "strings": _cast(str),
    "bytes": _cast("S8"),
    "objects": _cast(object),
    "fractions": lambda rng, array: np.vectorize(Fraction, otypes=[object])(array),
    "dates": lambda rng, array: array.astype(np.int64).astype("M8[s]"),
    "records": lambda rng, array: array.astype([("a", "f8")]),
    "masked": lambda rng, array: np.ma.masked_array(array, mask=rng.random(array.shape) < 0.5),
    "list": lambda rng, array: array.tolist(),
    "scipy.sparse": _sparse,
    "one dimension": lambda rng, array: array.reshape(-1),
    "three": lambda rng, array: array[None],
    "number": lambda rng, array: np.float64(array.size),
    "text": lambda rng, array: "mask",
    **{f"{name} tensor": _torch_only(name) for name in ("meta", "sparse", "complex")},
}

NUMBERS: tuple[Any, ...] = (
    *(
        0,
        1,
        7,
        -1,
        2**31,
        2**31 + 1,
        2**63,
        2**64,
        10**5000,
        0.5,
        1e-9,
        1.0,
        -0.0,
        1e400,
        math.nan,
        -math.inf,
        True,
        None,
    ),
    *("3", "power", b"gram", [1], (), np.int64(5), np.float32(1e-4), np.float16("nan"), np.bool_(True), np.ones(3), 1j),
    *(np.ma.masked, Fraction(1, 3), Solver.GRAM, object()),
)


def _options(rng: Rng) -> None:
    def some() -> Any:
        return NUMBERS[rng.integers(len(NUMBERS))]

    names = ("tolerance", "most_products", "solver", "certify")
    mask = rng.random((40, 50)) < 0.4
    try:
        options = SolverOptions(**{name: some() for name in names if rng.random() < 0.4})
        MetricOptions(options, expansion_weighted=some() if rng.random() < 0.2 else True)
        layout = Layout(groups=some(), transposed=some() if rng.random() < 0.2 else False)
    except REFUSALS as error:
        _one_line(error)
        return
    finally:
        if rng.random() < 0.1:
            measure_layer(mask)  # the engine still stands
    assert type(options.tolerance) is float
    assert type(options.most_products) is int
    assert isinstance(options.solver, Solver)
    if calls.available() or options.solver is not Solver.MATRIX_FREE:
        measure_layer(mask, options=MetricOptions(options))
    try:
        assert unroll(mask, layout).shape == layout.matrix(mask.shape)
    except ArrayError:
        assert 40 % layout.groups
