"""The one door for arrays: masks and weights as they come from anyone's program, checked before anything is computed.

Every function that takes an array from outside has it checked here, and works with what comes back: a plain NumPy array or
torch tensor, whose entries mean what they say. What is not understood is refused by `ArrayError`, never reinterpreted.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from array_api_compat import device, is_numpy_array, is_torch_array

from pai_cli.errors import ArrayError, NotFiniteError
from pai_cli.printable import reason_of
from pai_cli.spectral.namespaces import array_namespace
from pai_cli.spectral.parameters import shown

Array = Any  # a NumPy array or a torch tensor

EXACT_INTEGERS = 2**53  # below it float64 has every integer

SUMMED = ", which SciPy adds up; call sum_duplicates() first"

MOST_VERTICES = 2**24  # of a side: below it counts of edges are exact in float32


def plain_array(given: Any, name: str) -> Array:
    """The array without its library's own class: numbers or booleans in strides, in this machine's byte order.

    Raises `ArrayError` for what is neither a NumPy array nor a dense torch tensor, and for other types than booleans,
    integers and real floating point. Looks at no entry.
    """
    if is_torch_array(given):
        return _plain_tensor(given, name)
    if not isinstance(given, np.ndarray):
        told = "toarray() of it" if type(given).__module__.startswith("scipy.sparse") else "numpy.asarray of it"
        raise ArrayError(f"{name}: a {type(given).__name__} is neither a NumPy array nor a torch tensor; give {told}")
    if type(given) is not np.ndarray and isinstance(given, np.ma.MaskedArray):  # `np.ma` takes long to import
        raise ArrayError(f"{name}: a masked array has entries without a value; give filled() of it")
    if given.dtype.kind not in "biuf":
        raise ArrayError(f"{name}: its entries are {given.dtype}, not real numbers or booleans; convert them")
    plain = np.asarray(given)
    return plain if plain.dtype.isnative else plain.astype(plain.dtype.newbyteorder("="))


def _plain_tensor(given: Any, name: str) -> Array:
    import torch

    kind = type(given)
    own = [getattr(torch.Tensor.__torch_function__, "__func__", None), torch._C._disabled_torch_function_impl]
    foreign = getattr(kind.__torch_function__, "__func__", kind.__torch_function__) not in own
    if foreign or kind.__torch_dispatch__ is not torch.Tensor.__torch_dispatch__ or torch.nn.parameter.is_lazy(given):
        raise ArrayError(f"{name}: a {type(given).__name__} is not a plain torch tensor; give one with its values")
    if given.is_nested or given.layout != torch.strided:
        raise ArrayError(f"{name}: a sparse or nested tensor is not taken; give to_dense() of it")
    if getattr(given, "is_quantized", False):
        raise ArrayError(f"{name}: a quantised tensor is not taken; give dequantize() of it")
    plain = given.detach().resolve_neg()
    if plain.dtype == torch.bool or plain.dtype in (torch.float16, torch.bfloat16, torch.float32, torch.float64):
        return plain
    if not plain.dtype.is_floating_point and plain.dtype not in _integers():
        raise ArrayError(f"{name}: its entries are {plain.dtype}, not real numbers or booleans; convert them")
    return plain if plain.dtype in _integers()[:5] else _widened(plain, name)


def _integers() -> tuple[Any, ...]:
    """Types of whole numbers, those first for which torch has all operations."""
    import torch

    common = (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)
    return (*common, torch.uint16, torch.uint32, torch.uint64)


def _widened(plain: Any, name: str) -> Array:
    """Types for which torch has few operations, as float64: eight-bit floats, and unsigned integers."""
    import torch

    try:
        wide = plain.to(torch.float64)
    except RuntimeError as error:
        raise ArrayError(f"{name}: torch cannot convert {plain.dtype} to float64") from error
    if plain.dtype == torch.uint64 and not plain.is_meta:
        _refuse_first(wide >= EXACT_INTEGERS, plain, name, "an integer that float64 does not hold; round it first")
    return wide


def matrix_of(given: Any, name: str) -> Array:
    """`plain_array` with two dimensions, neither of them past what the engine counts. Raises `ArrayError`."""
    plain = plain_array(given, name)
    _refuse_meta(plain, name)
    if plain.ndim != 2:
        raise ArrayError(f"{name}: a bipartite graph needs a matrix, not shape {tuple(plain.shape)}")
    if max(plain.shape) >= MOST_VERTICES:
        raise ArrayError(f"{name}: a side of {max(plain.shape):,} vertices is past exact float32 counts")
    return plain


def _refuse_meta(plain: Array, name: str) -> None:
    if str(device(plain)) == "meta":
        raise ArrayError(f"{name}: a tensor on the device meta has no values")


def zero_one(given: Any, name: str = "the mask") -> Array:
    """The matrix as booleans, perhaps in the given memory. Raises `ArrayError` for other entries than 0 and 1."""
    plain = matrix_of(given, name)
    xp = array_namespace(plain)
    if plain.dtype == xp.bool:
        return plain
    _refuse_first((plain != 0) & (plain != 1), plain, name, "neither 0 nor 1")
    return plain != 0


def real_weights(given: Any, mask: Array, name: str = "the weights", *, copy: bool = True) -> Array:
    """Weights that stand where those of `mask` do, of floating point; where not a `copy`, perhaps in the given memory.

    Raises `ArrayError` for another shape, library or device, and where float64 does not hold an entry; `NotFiniteError`
    for NaN and infinity.
    """
    return _real(_beside(given, mask, name), name, copy=copy)


def placed_weights(given: Any, mask: Array, name: str = "the weights") -> Array:
    """`real_weights`, in which NaN and infinity may still be where they come as floating point, perhaps in the given memory:
    to look for them is to wait for a device, so whoever calls this looks in many at once, and calls `real_weights` then.
    """
    plain = _beside(given, mask, name)
    return plain if array_namespace(plain).isdtype(plain.dtype, "real floating") else _real(plain, name)


def _beside(given: Any, mask: Array, name: str) -> Array:
    """The matrix, which is of the shape of `mask` and in its place. Raises `ArrayError`."""
    plain = matrix_of(given, name)
    if tuple(plain.shape) != tuple(mask.shape):
        raise ArrayError(f"{name}: shape {tuple(plain.shape)} for a mask of {tuple(mask.shape)}")
    if is_numpy_array(plain) != is_numpy_array(mask) or device(plain) != device(mask):
        places = [f"{type(array).__module__.split('.')[0]} on {device(array)}" for array in (plain, mask)]
        raise ArrayError(f"{name}: {places[0]}, and the mask {places[1]}; give both in one place")
    return plain


def real_matrix(given: Any, name: str = "the matrix") -> Array:
    """A matrix of at least one entry: booleans as they are, other numbers as a copy of floating point.

    Raises `ArrayError` where there is no entry or float64 does not hold one; `NotFiniteError` for NaN and infinity.
    """
    plain = matrix_of(given, name)
    if 0 in plain.shape:
        raise ArrayError(f"{name}: shape {tuple(plain.shape)} has no entry")
    return plain if plain.dtype == array_namespace(plain).bool else _real(plain, name)


def numpy_of(plain: Any, name: str) -> np.ndarray[Any, Any]:
    """What `plain_array` gave, in this machine's own memory and of a type that NumPy has. Raises `ArrayError`."""
    if is_numpy_array(plain):
        return np.asarray(plain)
    _refuse_meta(plain, name)
    import torch

    held: np.ndarray[Any, Any] = (plain.float() if plain.dtype == torch.bfloat16 else plain).cpu().numpy()
    return held


@dataclass(frozen=True, eq=False)
class Entries:
    """The entries of a sparse matrix that are not 0, each once: `rows`, `columns`, int64, and `values`, float64."""

    shape: tuple[int, int]
    rows: np.ndarray[Any, np.dtype[np.int64]]
    columns: np.ndarray[Any, np.dtype[np.int64]]
    values: np.ndarray[Any, np.dtype[np.float64]]


def is_sparse(given: Any) -> bool:
    """Whether it is one of SciPy's sparse matrices or arrays. Imports nothing."""
    return type(given).__module__.startswith("scipy.sparse") and hasattr(given, "tocoo")


def sparse_entries(given: Any, name: str = "the matrix") -> Entries:
    """The entries of one of SciPy's sparse matrices; what it stores as 0 is no entry.

    Raises `ArrayError` for what no matrix is, and for several entries in one place: SciPy adds them up, and so a mask that
    names an edge twice would be no mask; `NotFiniteError` for NaN and infinity.
    """
    if len(given.shape) != 2:
        raise ArrayError(f"{name}: a bipartite graph needs a matrix, not shape {tuple(given.shape)}")
    if given.dtype.kind not in "biuf":
        raise ArrayError(f"{name}: its entries are {given.dtype}, not real numbers or booleans; convert them")
    try:
        if hasattr(given, "check_format"):
            given.check_format(full_check=True)
        listed = given.tocoo()
    except (ValueError, IndexError) as error:
        raise ArrayError(f"{name}: a damaged {type(given).__name__}: {reason_of(error)}") from error
    return entries_at(listed.row, listed.col, listed.data, given.shape, name=name, why_once=SUMMED)


def entries_at(
    rows: Array, columns: Array, stored: Array, shape: tuple[int, int], *, name: str, why_once: str = ""
) -> Entries:
    """The entries of the matrix that has `stored[k]` at row `rows[k]` and column `columns[k]`; what is 0 is no entry.

    Raises `ArrayError` for a place outside the shape, and for one that is told twice, where `why_once` ends the message;
    `NotFiniteError` for NaN and infinity.
    """
    if 0 in shape:
        raise ArrayError(f"{name}: shape {tuple(shape)} has no entry")
    if max(shape) >= MOST_VERTICES:
        raise ArrayError(f"{name}: a side of {max(shape):,} vertices is past exact float32 counts")
    for places, side in ((rows, shape[0]), (columns, shape[1])):
        if len(places) and not (places.min() >= 0 and places.max() < side):
            raise ArrayError(f"{name}: damaged: has an index outside its shape {tuple(shape)}")
    place = columns.astype(np.int64) * shape[0] + rows.astype(np.int64, copy=False)  # sides are below 2^24
    order = None if bool(np.all(place[1:] > place[:-1])) else np.argsort(place)
    if order is not None:
        place, stored = place[order], stored[order]
    again = np.flatnonzero(place[1:] == place[:-1])
    if len(again):
        column, row = divmod(int(place[again[0]]), int(shape[0]))
        raise ArrayError(f"{name}: has several entries at index {row, column}{why_once}")
    stored = stored if stored.dtype != np.bool_ else stored.view(np.uint8) != 0

    def index_of(at: int) -> tuple[int, int]:
        column, row = divmod(int(place[at]), int(shape[0]))
        return row, column

    values = _real(stored, name, index_of).astype(np.float64, copy=False)
    if (there := values != 0).all():
        return Entries((int(shape[0]), int(shape[1])), place % shape[0], place // shape[0], values)
    place = place[there]
    return Entries((int(shape[0]), int(shape[1])), place % shape[0], place // shape[0], values[there])


def _real(
    plain: Array, name: str, index_of: Callable[[int], tuple[int, ...]] | None = None, *, copy: bool = True
) -> Array:
    """The same of floating point. `index_of`: where an entry stands whose place in `plain` is not that."""
    xp = array_namespace(plain)
    if not xp.isdtype(plain.dtype, "real floating"):
        wide = xp.astype(plain, xp.float64)
        if not xp.isdtype(plain.dtype, "bool"):
            past = xp.abs(wide) >= EXACT_INTEGERS
            _refuse_first(past, plain, name, "an integer that float64 does not hold; round it", index_of)
        return wide
    finite = xp.isfinite(plain)
    if not bool(xp.all(finite)):
        at, value = _first(~finite, plain, index_of)
        has = "have" if name.endswith("s") else "has"
        raise NotFiniteError(f"{name} {has} NaN or infinite values, the first {value} at index {at}")
    if is_numpy_array(plain) and plain.dtype.itemsize > 8:
        with np.errstate(over="ignore", under="ignore"):
            wide = plain.astype(np.float64)
        _refuse_first(wide != plain, plain, name, "a number that float64 does not hold; round it", index_of)
        return wide
    return xp.asarray(plain, copy=True) if copy else plain


def indices(given: Any, name: str) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Whole numbers of at least 0, one after the other, as int64. Raises `ArrayError`."""
    plain = plain_array(given, name)
    if not is_numpy_array(plain) or plain.ndim != 1 or plain.dtype.kind not in "iu":
        raise ArrayError(f"{name}: a row of whole numbers is needed, in a NumPy array of int64")
    _refuse_first((plain < 0) | (plain > np.iinfo(np.int64).max), plain, name, "no index or count")
    return plain.astype(np.int64, copy=False)


def _refuse_first(
    wrong: Array, given: Array, name: str, why: str, index_of: Callable[[int], tuple[int, ...]] | None = None
) -> None:
    if bool(array_namespace(wrong).any(wrong)):
        at, value = _first(wrong, given, index_of)
        raise ArrayError(f"{name}: the entry at index {at} is {value}, {why}")


def _first(
    wrong: Array, given: Array, index_of: Callable[[int], tuple[int, ...]] | None = None
) -> tuple[tuple[int, ...], str]:
    """Index and value of the first entry that is wrong."""
    xp = array_namespace(wrong)
    at = int(xp.argmax(xp.astype(xp.reshape(wrong, (-1,)), xp.uint8)))
    index = tuple(int(k) for k in np.unravel_index(at, tuple(wrong.shape)))
    return index if index_of is None else index_of(at), shown(given[index].item())
