"""The layout of a .safetensors file: eight bytes of length, a JSON header, then the tensors end to end."""

import functools
import math
import struct
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .._check import shown
from .elements import StoredTensor, TensorInfo, as_array, is_shape, numpy_dtype, packed_bits, stored_bytes
from .headers import parse_json
from .sources import LocalFile, Source

# The format's own limit: a longer header is refused by every reader.
_LONGEST_HEADER = 100_000_000


def looks_like_safetensors(start: bytes) -> bool:
    """Whether the first nine bytes of a file can be a safetensors length and the brace that opens its header."""
    return len(start) >= 9 and start[8:9] == b"{" and struct.unpack("<Q", start[:8])[0] <= _LONGEST_HEADER


def read_safetensors(file: Source) -> tuple[dict[str, StoredTensor], dict[str, str]]:
    """Read the header of a .safetensors file.

    Only the header is read; the tensors are views of one read-only memory map, or ranges of bytes of a remote file.

    Returns
    -------
    tensors : dict of str to StoredTensor
        In the order of their place in the file.
    metadata : dict of str to str

    Raises
    ------
    ValueError
        If the file is truncated or its header breaks the format.
    """
    header, start = _read_header(file)
    metadata = header.pop("__metadata__", None)
    metadata = {} if metadata is None else metadata
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise _broken(file, "its '__metadata__' is not a table of texts")
    places = {name: _read_entry(file, name, entry) for name, entry in header.items()}
    places = dict(sorted(places.items(), key=lambda item: item[1][1:]))
    _check_places(file, places, file.size - start)
    content = _Content(file)
    tensors = {
        name: StoredTensor(
            info,
            functools.partial(_all, content, info, start + begin, start + end),
            functools.partial(_some, file, info.dtype, start + begin),
            file,
        )
        for name, (info, begin, end) in places.items()
    }
    return tensors, metadata


class _Content:
    """One map of a file that all its tensors share, made when the first one is asked for."""

    def __init__(self, file: Source) -> None:
        self._file = file

    @functools.cached_property
    def mapped(self) -> NDArray[np.uint8] | None:
        """The bytes of a file that can be mapped."""
        return self._file.whole() if isinstance(self._file, LocalFile) else None

    def bytes(self, begin: int, end: int) -> NDArray[np.uint8]:
        """Some of the bytes."""
        return self._file.read(begin, end) if self.mapped is None else np.asarray(self.mapped[begin:end])


def _read_header(file: Source) -> tuple[dict[str, Any], int]:
    size = file.size
    length = struct.unpack("<Q", file.read(0, 8).tobytes())[0]
    if 8 + length > size:
        raise ValueError(
            f"{shown(file.name)} is truncated: its header should have {length} bytes and the whole file has {size}; "
            "fetch it again"
        )
    text = file.read(8, 8 + length).tobytes()
    try:
        header = parse_json(text)
    except ValueError as error:
        raise _broken(file, f"its header is not valid JSON ({error})") from None
    if not isinstance(header, dict):
        raise _broken(file, "its header is not a JSON object")
    return header, 8 + length


def _read_entry(file: Source, name: str, entry: Any) -> tuple[TensorInfo, int, int]:
    """Check one entry of the header: a known type, a shape, and a range of bytes of just their size."""
    try:
        tag, shape, (begin, end) = entry["dtype"], entry["shape"], entry["data_offsets"]
        sound = is_shape([*shape]) and is_shape([begin]) and is_shape([end])
    except (TypeError, KeyError, ValueError):
        raise _broken(file, f"the entry of tensor {shown(name)} lacks a dtype, shape or data_offsets") from None
    if not sound:
        what = f"shape {shown(shape, 30)} or data_offsets {shown([begin, end], 30)} of tensor {shown(name, 30)}"
        raise _broken(file, f"{what} are no counts")
    try:
        expected = stored_bytes(tag, math.prod(shape))
    except (KeyError, TypeError):
        raise _broken(file, f"tensor {shown(name)} has the unknown element type {shown(tag, 40)}") from None
    if end - begin != expected:
        what = f"tensor {shown(name, 30)} ({tag}, shape {shown(shape, 20)})"
        raise _broken(file, f"{what} needs {expected} bytes, not {end - begin}")
    return TensorInfo(name, tuple(shape), tag), begin, end


def _check_places(file: Source, places: dict[str, tuple[TensorInfo, int, int]], available: int) -> None:
    """Tensors must fill the rest of the file end to end: anything else is damage, or hides data."""
    expected = 0
    for name, (_, begin, end) in places.items():
        if begin != expected:
            raise _broken(file, f"tensor {shown(name, 40)} starts at byte {begin} of the data, not at {expected}")
        expected = end
    if expected > available:
        raise ValueError(
            f"{shown(file.name)} is truncated: its tensors need {expected} bytes and {available} are there; "
            "fetch it again"
        )
    if expected < available:
        raise _broken(file, f"{available - expected} bytes follow its last tensor")


def _all(content: _Content, info: TensorInfo, begin: int, end: int) -> NDArray[Any]:
    """Stored elements in the tensor's shape; packed types as their bytes."""
    dtype = numpy_dtype(info.dtype)
    stored = content.bytes(begin, end)
    return stored if dtype is None else as_array(stored, dtype, info.shape)


def _some(file: Source, tag: str, start: int, begin: int, end: int) -> NDArray[Any]:
    """Stored elements `begin` to `end` of a tensor that starts at a byte; of packed types the bytes that have them."""
    dtype, bits = numpy_dtype(tag), packed_bits(tag)
    stored = file.read(start + begin * bits // 8, start - (-end * bits // 8))
    return stored if dtype is None else stored.view(dtype)


def _broken(file: Source, what: str) -> ValueError:
    return ValueError(f"{shown(file.name)} is no sound .safetensors file: {what}; fetch it again or save it anew")
