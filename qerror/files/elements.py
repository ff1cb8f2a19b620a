"""What a file stores of a tensor: its element type, and the exact values that its bits stand for."""

import dataclasses
import functools
import math
import re
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .._check import plain, shown
from ..grids.formats import grid
from .sources import Source

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
_GRID_OF_PACKED = {"F6_E2M3": "e2m3", "F6_E3M2": "e3m2", "F4": "e2m1"}
_GRID_OF_FLOAT8 = {
    "F8_E4M3": "e4m3fn",
    "F8_E5M2": "e5m2",
    "F8_E4M3FNUZ": "e4m3fnuz",
    "F8_E5M2FNUZ": "e5m2fnuz",
    "F8_E8M0": "e8m0",
}
# Codes with scales beside them, as GGUF and `quantized_weights` name them.
_SCALED = re.compile(r"I?Q[1-8]_\w+|TQ[12]_0|MXFP[48]|NVFP4|[A-Z][A-Z0-9_]*_(TENSOR|CHANNEL|G\d+|\d+X\d+)")
REAL = frozenset({"F64", "F32", "F16", "BF16", *_GRID_OF_FLOAT8, *_GRID_OF_PACKED})
"""Types of safetensors whose elements are real numbers."""
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
    stored_bits : int, optional
        What all of it takes in the file where the element type does not say so: codes and scales.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    stored_bits: int | None = dataclasses.field(default=None, repr=False, compare=False)

    @property
    def size(self) -> int:
        """How many elements it has."""
        return math.prod(self.shape)


@dataclasses.dataclass(frozen=True, slots=True)
class StoredTensor:
    """One tensor of an open file, with the calls that fetch its stored elements.

    Attributes
    ----------
    info : TensorInfo
    load : callable
        All elements, in the tensor's shape.
    read : callable, optional
        Elements begin to end, flat in C order, from their bytes alone; None where a file has all or nothing.
    file : Source, optional
        The file that holds it.
    blocks : callable, optional
        The bytes of blocks begin to end, one in a row, where a file has codes and scales so.
    """

    info: TensorInfo
    load: Callable[[], NDArray[Any]]
    read: Callable[[int, int], NDArray[Any]] | None = None
    file: Source | None = None
    blocks: Callable[[int, int], NDArray[np.uint8]] | None = None

    def part(self, begin: int, end: int) -> NDArray[Any]:
        """Elements `begin` to `end`, flat; of packed types the bytes that they are in."""
        if self.read is not None:
            return self.read(begin, end)
        whole = self.load()
        bits = _PACKED_BITS.get(self.info.dtype)
        return whole.reshape(-1)[begin:end] if bits is None else whole[begin * bits // 8 : -(-end * bits // 8)]


def numpy_dtype(tag: str) -> np.dtype[Any] | None:
    """NumPy's type of one stored element; None for packed ones. KeyError for a name that is not known."""
    text = _NUMPY_DTYPES[tag]
    return None if text is None else np.dtype(text)


def known_type(tag: str) -> bool:
    """Whether elements of this type have a size of their own, as in .safetensors files."""
    return tag in _NUMPY_DTYPES


def stored_bytes(tag: str, size: int) -> int:
    """Bytes that `size` elements take."""
    dtype = numpy_dtype(tag)
    return -(-size * _PACKED_BITS[tag] // 8) if dtype is None else size * dtype.itemsize


def packed_bits(tag: str) -> int:
    """Bits that an element takes in a file."""
    dtype = numpy_dtype(tag)
    return _PACKED_BITS[tag] if dtype is None else 8 * dtype.itemsize


def is_real(tag: str) -> bool:
    """Whether elements of this type stand for real numbers by themselves: floats, and codes with their scales.

    Examples
    --------
    >>> is_real("BF16"), is_real("F4"), is_real("Q4_K"), is_real("I8")
    (True, True, True, False)
    """
    return tag in REAL or bool(_SCALED.fullmatch(tag))


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


def decode(tensor: StoredTensor, path: Any) -> NDArray[Any]:
    """Fetch a tensor's stored elements and turn them into the numbers that they stand for.

    Every result is exact: float64 for F64, float32 for all narrower types. F64 and F32 are not copied.

    Raises
    ------
    ValueError
        If the elements are integers, truth values or complex.
    """
    _check_real(tensor.info, path)
    values: NDArray[Any] = _values(tensor.info.dtype, tensor.load(), tensor.info.size)
    return values.reshape(tensor.info.shape)


def decode_part(tensor: StoredTensor, path: Any, begin: int, end: int) -> NDArray[Any]:
    """The same for elements `begin` to `end` in C order, from their bytes alone where these lie side by side."""
    _check_real(tensor.info, path)
    bits = _PACKED_BITS.get(tensor.info.dtype)
    # Four elements of 6 bits, two of 4: what starts within a byte is taken from the byte's first element on.
    start = begin if bits is None else begin - begin % 4
    return _values(tensor.info.dtype, tensor.part(start, end), end - start)[begin - start :]


def _values(tag: str, stored: NDArray[Any], size: int) -> NDArray[Any]:
    """What stored elements stand for; of packed ones the first `size`."""
    values: NDArray[Any]
    if tag in _GRID_OF_FLOAT8:
        values = _float8_values(tag)[stored]
        return values
    if tag in _PACKED_BITS:
        values = _packed_values(tag)[_unpacked(stored, _PACKED_BITS[tag])[:size]]
        return values
    if tag == "BF16":
        return _widen_bfloat16(stored)
    return stored.astype(np.float64 if tag == "F64" else np.float32, copy=False)


def values_of_codes(tag: str) -> NDArray[np.float32]:
    """The value of every bit pattern of a type of 8 or 16 bits."""
    if tag in _GRID_OF_FLOAT8:
        return _float8_values(tag)
    every = np.arange(1 << 16, dtype=np.uint16)
    return _widen_bfloat16(every) if tag == "BF16" else every.view(np.float16).astype(np.float32)


def values_of_bits(tag: str, bits: NDArray[Any]) -> NDArray[np.float32]:
    """What stored elements of a type of 8 or 16 bits stand for, from their bits."""
    return _values(tag, bits.view(np.float16) if tag == "F16" else bits, bits.size)


def _check_real(info: TensorInfo, path: Any) -> None:
    if not is_real(info.dtype):
        raise _no_numbers(info, path, "F64, F32, F16, BF16, F8_*, F6_* and F4")


def stored_bits(tensor: StoredTensor, path: Any) -> NDArray[Any]:
    """Fetch a tensor's stored elements as unsigned integers.

    Raises
    ------
    ValueError
        If the elements are not machine words of up to 64 bits.
    """
    _check_words(tensor.info, path)
    return _as_words(tensor.load())


def part_bits(tensor: StoredTensor, path: Any, begin: int, end: int) -> NDArray[Any]:
    """The same for elements `begin` to `end` in C order, from their bytes alone."""
    _check_words(tensor.info, path)
    return _as_words(tensor.part(begin, end))


def _check_words(info: TensorInfo, path: Any) -> None:
    if info.dtype not in _NUMPY_DTYPES or info.dtype in ("C64", "C128"):
        raise _no_numbers(info, path, "F4 to F64, BF16, I8 to I64, U8 to U64 and BOOL")


def _as_words(stored: NDArray[Any]) -> NDArray[Any]:
    native = stored.astype(stored.dtype.newbyteorder("="), copy=False)
    bits: NDArray[Any] = native.view(f"u{native.itemsize}")
    return bits


def _no_numbers(info: TensorInfo, path: Any, wanted: str) -> ValueError:
    if info.dtype == "object":
        return ValueError(
            f"tensor {shown(info.name)} of {shown(path)} holds pickled Python objects, which are never loaded because "
            "they can run any code; save it again as an array of numbers"
        )
    if info.dtype == "|V1":
        return ValueError(
            f"tensor {shown(info.name, 60)} of {shown(path)} has elements of one byte whose type NumPy's files do not "
            "say (seven types of ml_dtypes are stored so); save it with safetensors, or as float32"
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


def _unpacked(content: NDArray[np.uint8], bits: int) -> NDArray[np.uint8]:
    """Codes of less than a byte, the first one in the lowest bits: of 4 bits two a byte, of 6 bits four in three."""
    if bits == 4:
        codes = np.stack([content & 15, content >> 4], axis=-1)
        return codes.reshape(-1)
    whole = np.concatenate([content, np.zeros(-content.size % 3, np.uint8)]).reshape(-1, 3).astype(np.uint32)
    word = whole[:, 0] | whole[:, 1] << 8 | whole[:, 2] << 16
    return (word[:, None] >> np.arange(0, 24, 6, dtype=np.uint32) & 63).astype(np.uint8).reshape(-1)


@functools.cache
def _packed_values(tag: str) -> NDArray[np.float32]:
    """Value of each code of a packed type."""
    form = grid(_GRID_OF_PACKED[tag])
    values = np.zeros(1 << form.bits, dtype=np.float32)
    values[form.codes] = form.levels
    # The sign bit alone is minus zero.
    values[values.size >> 1] = -0.0
    values.setflags(write=False)
    return values
