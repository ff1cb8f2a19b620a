"""GGUF files: headers first; blocks of codes with their scales become the numbers that they stand for, row by row."""

from __future__ import annotations

import functools
import math
import struct
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .._check import shown
from .elements import StoredTensor, TensorInfo, is_real, is_shape, numpy_dtype
from .sources import Source, load_extra

# Types whose elements stand side by side, by their number in the file.
_PLAIN = {0: "F32", 1: "F16", 24: "I8", 25: "I16", 26: "I32", 27: "I64", 28: "F64", 30: "BF16"}
# Formats of the values of metadata; 8 is a text, 9 an array.
_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_TEXT, _ARRAY = 8, 9
_CHUNK = 1 << 20
_ALIGNMENT = 32


def read_gguf(file: Source) -> tuple[dict[str, StoredTensor], dict[str, str]]:
    """Read the header of a GGUF file of version 2 or 3.

    Shapes are in the order of NumPy, the reverse of the file's: rows of a matrix are its outputs.

    Returns
    -------
    tensors : dict of str to StoredTensor
    metadata : dict of str to str
        The entries that are texts.

    Raises
    ------
    ValueError
        If the file is damaged, or the package gguf is missing where blocks of codes need it.
    """
    header = _Header(file)
    try:
        metadata, entries, start = _parse(header)
    except (struct.error, UnicodeDecodeError, OverflowError, _DamagedError) as error:
        raise _broken(file, str(error)) from None
    tensors: dict[str, StoredTensor] = {}
    for name, shape, kind, offset in entries:
        if name in tensors or not is_shape(shape):
            raise _broken(file, f"tensor {shown(name, 40)} is there twice or has no possible shape")
        tensors[name] = _tensor(file, name, shape, kind, start + offset)
    return tensors, metadata


class _DamagedError(ValueError):
    """Says what is wrong with a file."""


class _Header:
    """Reads forward through the beginning of a file."""

    def __init__(self, file: Source) -> None:
        self._file, self._size, self._held, self.place = file, file.size, b"", 0

    def take(self, count: int) -> bytes:
        """The next bytes."""
        end = self.place + count
        if end > self._size:
            raise _DamagedError("it ends within its header")
        if end > len(self._held):
            more = min(max(end, 2 * len(self._held), _CHUNK), self._size)
            self._held += self._file.read(len(self._held), more).tobytes()
        self.place = end
        return self._held[end - count : end]

    def number(self, form: str) -> Any:
        """One little-endian number."""
        return struct.unpack("<" + form, self.take(struct.calcsize("<" + form)))[0]

    def text(self) -> str:
        """A text with its length before it."""
        return self.take(self.number("Q")).decode("utf-8", "replace")


def _parse(header: _Header) -> tuple[dict[str, str], list[tuple[str, tuple[int, ...], int, int]], int]:
    header.take(4)
    version = header.number("I")
    if version not in (2, 3):
        raise _DamagedError(f"its version is {version}, none of 2 and 3 (of little-endian files)")
    tensors, entries = header.number("Q"), header.number("Q")
    metadata, alignment = {}, _ALIGNMENT
    for _ in range(entries):
        name, value = header.text(), _value(header, header.number("I"))
        if isinstance(value, str):
            metadata[name] = value
        if name == "general.alignment" and isinstance(value, int) and 0 < value < _CHUNK:
            alignment = value
    found = []
    for _ in range(tensors):
        name, dims = header.text(), header.number("I")
        if dims > 8:
            raise _DamagedError(f"tensor {shown(name, 40)} has {dims} dimensions")
        shape = tuple(header.number("Q") for _ in range(dims))[::-1]
        found.append((name, shape, header.number("I"), header.number("Q")))
    return metadata, found, -(-header.place // alignment) * alignment


def _value(header: _Header, kind: int) -> Any:
    """A value of the metadata; of an array nothing but where it ends."""
    if kind == _TEXT:
        return header.text()
    if kind in _SCALARS:
        return header.number(_SCALARS[kind])
    if kind != _ARRAY:
        raise _DamagedError(f"its metadata has a value of the unknown type {kind}")
    inner, count = header.number("I"), header.number("Q")
    if inner in _SCALARS:
        header.take(count * struct.calcsize("<" + _SCALARS[inner]))
        return None
    for _ in range(count):
        _value(header, inner)
    return None


def _tensor(file: Source, name: str, shape: tuple[int, ...], kind: int, start: int) -> StoredTensor:
    size = math.prod(shape)
    if kind in _PLAIN:
        tag, block = _PLAIN[kind], 1
        dtype = numpy_dtype(tag)
        assert dtype is not None
        width = dtype.itemsize
    else:
        tag, block, width = _blocks(file, kind)
        dtype = None
    last = shape[-1] if shape else 1
    if last % block:
        raise _broken(file, f"rows of {last} elements of tensor {shown(name, 40)} are no blocks of {block}")
    if start + size // block * width > file.size:
        raise ValueError(f"{shown(file.name)} is truncated: tensor {shown(name, 40)} ends behind it; fetch it again")

    def read(begin: int, end: int) -> NDArray[Any]:
        # Whole blocks, of which some may not be asked for.
        first, behind = begin // block, -(-end // block)
        content = file.read(start + first * width, start + behind * width)
        if dtype is not None:
            return content.view(dtype)
        values = _dequantized(content.reshape(-1, width), kind)
        return values.reshape(-1)[begin - first * block : end - first * block]

    def blocks(first: int, behind: int) -> NDArray[np.uint8]:
        return file.read(start + first * width, start + behind * width).reshape(-1, width)

    whole = TensorInfo(name, shape, tag)
    return StoredTensor(whole, lambda: read(0, size).reshape(shape), read, file, None if dtype is not None else blocks)


@functools.cache
def _block_table() -> dict[int, tuple[str, int, int]]:
    gguf = load_extra("gguf", "gguf", "a GGUF file of quantized tensors")
    return {int(kind): (kind.name, *gguf.GGML_QUANT_SIZES[kind]) for kind in gguf.GGMLQuantizationType}


def _blocks(file: Source, kind: int) -> tuple[str, int, int]:
    """Name, elements and bytes of a block."""
    try:
        tag, block, width = _block_table()[kind]
    except KeyError:
        raise _broken(file, f"it has tensors of the unknown type {kind}") from None
    return tag if is_real(tag) else f"GGUF {tag}", block, width


def _dequantized(content: NDArray[np.uint8], kind: int) -> NDArray[Any]:
    gguf = load_extra("gguf", "gguf", "a GGUF file of quantized tensors")
    try:
        values: NDArray[Any] = gguf.quants.dequantize(content, gguf.GGMLQuantizationType(kind))
    except NotImplementedError:
        name = gguf.GGMLQuantizationType(kind).name
        raise ValueError(f"the package gguf does not dequantize {name}; give a file of another type") from None
    return values


def _broken(file: Source, what: str) -> ValueError:
    return ValueError(f"{shown(file.name)} is no sound GGUF file: {what}; fetch it again")
