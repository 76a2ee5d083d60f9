"""The one door for arrays: masks and weights as they come from anyone's program, checked before anything is computed.

Every function that takes an array from outside has it checked here, and works with what comes back: a plain NumPy array or
torch tensor, whose entries mean what they say. What is not understood is refused by `ArrayError`, never reinterpreted.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from array_api_compat import array_namespace, device, is_numpy_array, is_torch_array

from pai_cli.errors import ArrayError, NotFiniteError
from pai_cli.spectral.parameters import shown

Array = Any  # a NumPy array or a torch tensor

EXACT_INTEGERS = 2**53  # below it float64 has every integer

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
    if isinstance(given, np.ma.MaskedArray):
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
    if str(device(plain)) == "meta":
        raise ArrayError(f"{name}: a tensor on the device meta has no values")
    if plain.ndim != 2:
        raise ArrayError(f"{name}: a bipartite graph needs a matrix, not shape {tuple(plain.shape)}")
    if max(plain.shape) >= MOST_VERTICES:
        raise ArrayError(f"{name}: a side of {max(plain.shape):,} vertices is past exact float32 counts")
    return plain


def zero_one(given: Any, name: str = "the mask") -> Array:
    """The matrix as booleans, perhaps in the given memory. Raises `ArrayError` for other entries than 0 and 1."""
    plain = matrix_of(given, name)
    xp = array_namespace(plain)
    if plain.dtype == xp.bool:
        return plain
    _refuse_first((plain != 0) & (plain != 1), plain, name, "neither 0 nor 1")
    return plain != 0


def real_weights(given: Any, mask: Array, name: str = "the weights") -> Array:
    """A copy, of floating point, of weights that stand where those of `mask` do.

    Raises `ArrayError` for another shape, library or device, and where float64 does not hold an entry; `NotFiniteError`
    for NaN and infinity.
    """
    plain = matrix_of(given, name)
    if tuple(plain.shape) != tuple(mask.shape):
        raise ArrayError(f"{name}: shape {tuple(plain.shape)} for a mask of {tuple(mask.shape)}")
    if is_numpy_array(plain) != is_numpy_array(mask) or device(plain) != device(mask):
        places = [f"{type(array).__module__.split('.')[0]} on {device(array)}" for array in (plain, mask)]
        raise ArrayError(f"{name}: {places[0]}, and the mask {places[1]}; give both in one place")
    xp = array_namespace(plain)
    if not xp.isdtype(plain.dtype, "real floating"):
        wide = xp.astype(plain, xp.float64)
        if not xp.isdtype(plain.dtype, "bool"):
            _refuse_first(
                xp.abs(wide) >= EXACT_INTEGERS, plain, name, "an integer that float64 does not hold; round it"
            )
        return wide
    finite = xp.isfinite(plain)
    if not bool(xp.all(finite)):
        at, value = _first(~finite, plain)
        raise NotFiniteError(f"{name} have NaN or infinite values, the first {value} at index {at}")
    if is_numpy_array(plain) and plain.dtype.itemsize > 8:
        with np.errstate(over="ignore", under="ignore"):
            wide = plain.astype(np.float64)
        _refuse_first(wide != plain, plain, name, "a number that float64 does not hold; round it")
        return wide
    return xp.asarray(plain, copy=True)


def indices(given: Any, name: str) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Whole numbers of at least 0, one after the other, as int64. Raises `ArrayError`."""
    plain = plain_array(given, name)
    if not is_numpy_array(plain) or plain.ndim != 1 or plain.dtype.kind not in "iu":
        raise ArrayError(f"{name}: a row of whole numbers is needed, in a NumPy array of int64")
    _refuse_first((plain < 0) | (plain > np.iinfo(np.int64).max), plain, name, "no index or count")
    return plain.astype(np.int64, copy=False)


def _refuse_first(wrong: Array, given: Array, name: str, why: str) -> None:
    if bool(array_namespace(wrong).any(wrong)):
        at, value = _first(wrong, given)
        raise ArrayError(f"{name}: the entry at index {at} is {value}, {why}")


def _first(wrong: Array, given: Array) -> tuple[tuple[int, ...], str]:
    """Index and value of the first entry that is wrong."""
    xp = array_namespace(wrong)
    at = int(xp.argmax(xp.astype(xp.reshape(wrong, (-1,)), xp.uint8)))
    index = tuple(int(k) for k in np.unravel_index(at, tuple(wrong.shape)))
    return index, shown(given[index].item())
