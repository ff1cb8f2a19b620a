"""The layout of a .safetensors file: eight bytes of length, a JSON header, then the tensors end to end."""

import functools
import math
import struct
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .._check import shown
from .elements import StoredTensor, TensorInfo, as_array, is_shape, numpy_dtype, stored_bytes
from .headers import parse_json

# The format's own limit: a longer header is refused by every reader.
_LONGEST_HEADER = 100_000_000


def looks_like_safetensors(start: bytes) -> bool:
    """Whether the first nine bytes of a file can be a safetensors length and the brace that opens its header."""
    return len(start) >= 9 and start[8:9] == b"{" and struct.unpack("<Q", start[:8])[0] <= _LONGEST_HEADER


def read_safetensors(path: Path) -> tuple[dict[str, StoredTensor], dict[str, str]]:
    """Read the header of a .safetensors file and map its tensors.

    Only the header is read; the tensors are views of one read-only memory map.

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
    header, start = _read_header(path)
    metadata = header.pop("__metadata__", None)
    metadata = {} if metadata is None else metadata
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise _broken(path, "its '__metadata__' is not a table of texts")
    places = {name: _read_entry(path, name, entry) for name, entry in header.items()}
    places = dict(sorted(places.items(), key=lambda item: item[1][1:]))
    _check_places(path, places, path.stat().st_size - start)
    # np.memmap refuses an empty file region, and a file without data has nothing to map.
    size = path.stat().st_size
    content: NDArray[np.uint8] = np.memmap(path, np.uint8, "r") if size > start else np.empty(size, np.uint8)
    tensors = {
        name: StoredTensor(info, functools.partial(_view, content, info, start + begin, start + end))
        for name, (info, begin, end) in places.items()
    }
    return tensors, metadata


def _read_header(path: Path) -> tuple[dict[str, Any], int]:
    size = path.stat().st_size
    with path.open("rb") as file:
        length = struct.unpack("<Q", file.read(8))[0]
        if 8 + length > size:
            raise ValueError(
                f"{shown(path)} is truncated: its header should have {length} bytes and the whole file has {size}; "
                "fetch it again"
            )
        text = file.read(length)
    try:
        header = parse_json(text)
    except ValueError as error:
        raise _broken(path, f"its header is not valid JSON ({error})") from None
    if not isinstance(header, dict):
        raise _broken(path, "its header is not a JSON object")
    return header, 8 + length


def _read_entry(path: Path, name: str, entry: Any) -> tuple[TensorInfo, int, int]:
    """Check one entry of the header: a known type, a shape, and a range of bytes of just their size."""
    try:
        tag, shape, (begin, end) = entry["dtype"], entry["shape"], entry["data_offsets"]
        sound = is_shape([*shape]) and is_shape([begin]) and is_shape([end])
    except (TypeError, KeyError, ValueError):
        raise _broken(path, f"the entry of tensor {shown(name)} lacks a dtype, shape or data_offsets") from None
    if not sound:
        what = f"shape {shown(shape, 30)} or data_offsets {shown([begin, end], 30)} of tensor {shown(name, 30)}"
        raise _broken(path, f"{what} are no counts")
    try:
        expected = stored_bytes(tag, math.prod(shape))
    except (KeyError, TypeError):
        raise _broken(path, f"tensor {shown(name)} has the unknown element type {shown(tag, 40)}") from None
    if end - begin != expected:
        what = f"tensor {shown(name, 30)} ({tag}, shape {shown(shape, 20)})"
        raise _broken(path, f"{what} needs {expected} bytes, not {end - begin}")
    return TensorInfo(name, tuple(shape), tag), begin, end


def _check_places(path: Path, places: dict[str, tuple[TensorInfo, int, int]], available: int) -> None:
    """Tensors must fill the rest of the file end to end: anything else is damage, or hides data."""
    expected = 0
    for name, (_, begin, end) in places.items():
        if begin != expected:
            raise _broken(path, f"tensor {shown(name, 40)} starts at byte {begin} of the data, not at {expected}")
        expected = end
    if expected > available:
        raise ValueError(
            f"{shown(path)} is truncated: its tensors need {expected} bytes and {available} are there; fetch it again"
        )
    if expected < available:
        raise _broken(path, f"{available - expected} bytes follow its last tensor")


def _view(content: NDArray[np.uint8], info: TensorInfo, begin: int, end: int) -> NDArray[Any]:
    """Stored elements as a view of the mapped file; packed types as their bytes."""
    dtype = numpy_dtype(info.dtype)
    return np.asarray(content[begin:end]) if dtype is None else as_array(content[begin:end], dtype, info.shape)


def _broken(path: Path, what: str) -> ValueError:
    return ValueError(f"{shown(path)} is no sound .safetensors file: {what}; fetch it again or save it anew")
