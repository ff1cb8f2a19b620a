"""What a file stores of a tensor: its element type, and the exact values that its bits stand for."""

import dataclasses
import functools
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .._check import plain, shown
from ..grids.formats import grid

# Element types by the names of the safetensors format: NumPy's type of one stored element, little-endian.
# None: elements of less than a byte, packed.
_NUMPY_DTYPES: dict[str, str | None] = {
    "F64": "<f8",
    "F32": "<f4",
    "F16": "<f2",
    "BF16": "<u2",
    "F8_E4M3": "u1",
    "F8_E5M2": "u1",
    "F8_E4M3FNUZ": "u1",
    "F8_E5M2FNUZ": "u1",
    "F8_E8M0": "u1",
    "F6_E2M3": None,
    "F6_E3M2": None,
    "F4": None,
    "C128": "<c16",
    "C64": "<c8",
    "I64": "<i8",
    "I32": "<i4",
    "I16": "<i2",
    "I8": "i1",
    "U64": "<u8",
    "U32": "<u4",
    "U16": "<u2",
    "U8": "u1",
    "BOOL": "?",
}
_PACKED_BITS = {"F6_E2M3": 6, "F6_E3M2": 6, "F4": 4}
_GRID_OF_FLOAT8 = {
    "F8_E4M3": "e4m3fn",
    "F8_E5M2": "e5m2",
    "F8_E4M3FNUZ": "e4m3fnuz",
    "F8_E5M2FNUZ": "e5m2fnuz",
    "F8_E8M0": "e8m0",
}
_TAG_OF_KIND = {
    np.dtype(text).newbyteorder("="): tag
    for tag, text in _NUMPY_DTYPES.items()
    if text is not None and tag != "BF16" and tag not in _GRID_OF_FLOAT8
}


@dataclasses.dataclass(frozen=True, slots=True)
class TensorInfo:
    """Name, shape and element type of one tensor in a file.

    Attributes
    ----------
    name : str
    shape : tuple of int
    dtype : str
        The name that the safetensors format has for it ("F32", "BF16", "F8_E4M3", "I64"), also for NumPy's files.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str

    @property
    def size(self) -> int:
        """How many elements it has."""
        return math.prod(self.shape)


@dataclasses.dataclass(frozen=True, slots=True)
class StoredTensor:
    """One tensor of an open file, with the call that fetches its stored elements."""

    info: TensorInfo
    load: Callable[[], NDArray[Any]]


def numpy_dtype(tag: str) -> np.dtype[Any] | None:
    """NumPy's type of one stored element; None for packed ones. KeyError for a name that is not known."""
    text = _NUMPY_DTYPES[tag]
    return None if text is None else np.dtype(text)


def stored_bytes(tag: str, size: int) -> int:
    """Bytes that `size` elements take."""
    dtype = numpy_dtype(tag)
    return -(-size * _PACKED_BITS[tag] // 8) if dtype is None else size * dtype.itemsize


def dtype_tag(dtype: np.dtype[Any]) -> str:
    """Name for the type of an array in a NumPy file; NumPy's own where the safetensors format has none."""
    return _TAG_OF_KIND.get(dtype.newbyteorder("="), str(dtype))


def is_shape(shape: Sequence[Any]) -> bool:
    """Whether NumPy can have an array of this shape, if there were memory.

    Examples
    --------
    >>> is_shape((2, 0, 3)), is_shape((2, -1)), is_shape((0, 2**62))
    (True, False, False)
    """
    counts = len(shape) <= 64 and all(type(count) is int and count >= 0 for count in shape)
    # NumPy counts the bytes in 63 bits and leaves out the zeros; elements take up to 16 bytes.
    return counts and math.prod(count or 1 for count in shape) < 2**59


def as_array(
    content: NDArray[np.uint8], dtype: np.dtype[Any], shape: tuple[int, ...], fortran: bool = False
) -> NDArray[Any]:
    """Bytes as an array, without a copy where they lie on the alignment of the type.

    A tensor behind one of odd length starts off its alignment, which slows all that follows.
    """
    raw = np.asarray(content)
    aligned = raw if raw.ctypes.data % dtype.alignment == 0 else raw.copy()
    return aligned.view(dtype).reshape(shape, order="F" if fortran else "C")


def decode(tensor: StoredTensor, path: Path) -> NDArray[Any]:
    """Fetch a tensor's stored elements and turn them into the numbers that they stand for.

    Every result is exact: float64 for F64, float32 for all narrower types. F64 and F32 are not copied.

    Raises
    ------
    ValueError
        If the elements are integers, truth values, complex or packed ones.
    """
    info = tensor.info
    values: NDArray[Any]
    if info.dtype in _GRID_OF_FLOAT8:
        values = _float8_values(info.dtype)[tensor.load()]
    elif info.dtype == "BF16":
        values = _widen_bfloat16(tensor.load())
    elif info.dtype in ("F64", "F32", "F16"):
        values = tensor.load().astype(np.float64 if info.dtype == "F64" else np.float32, copy=False)
    else:
        raise _no_numbers(info, path, "F64, F32, F16, BF16 and F8_*")
    return values


def stored_bits(tensor: StoredTensor, path: Path) -> NDArray[Any]:
    """Fetch a tensor's stored elements as unsigned integers.

    Raises
    ------
    ValueError
        If the elements are not machine words of up to 64 bits.
    """
    if tensor.info.dtype not in _NUMPY_DTYPES or tensor.info.dtype in ("C64", "C128"):
        raise _no_numbers(tensor.info, path, "F4 to F64, BF16, I8 to I64, U8 to U64 and BOOL")
    stored = tensor.load()
    native = stored.astype(stored.dtype.newbyteorder("="), copy=False)
    bits: NDArray[Any] = native.view(f"u{native.itemsize}")
    return bits


def _no_numbers(info: TensorInfo, path: Path, wanted: str) -> ValueError:
    if info.dtype == "object":
        return ValueError(
            f"tensor {shown(info.name)} of {shown(path)} holds pickled Python objects, which are never loaded because "
            "they can run any code; save it again as an array of numbers"
        )
    return ValueError(
        f"tensor {shown(info.name, 30)} of {shown(path)} has element type {plain(info.dtype, 20)}, "
        f"which is none of {wanted}; "
        "give real numbers (dequantize codes with their scales first)"
    )


def _widen_bfloat16(stored: NDArray[np.uint16]) -> NDArray[np.float32]:
    """bfloat16 is the upper half of a float32."""
    bits = stored.astype(np.uint32)
    bits <<= 16
    return bits.view(np.float32)


@functools.cache
def _float8_values(tag: str) -> NDArray[np.float32]:
    """Value of each of the 256 codes of an 8-bit float: its grid's levels, and what is not a number beside them."""
    finite = grid(_GRID_OF_FLOAT8[tag])
    values = np.full(256, np.nan, dtype=np.float32)
    values[finite.codes] = finite.levels
    if tag in ("F8_E4M3", "F8_E5M2"):
        values[0x80] = -0.0
    if tag == "F8_E5M2":
        values[[0x7C, 0xFC]] = np.inf, -np.inf
    values.setflags(write=False)
    return values
