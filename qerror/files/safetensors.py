"""The layout of a .safetensors file: eight bytes of length, a JSON header, then the tensors end to end."""

import functools
import json
import math
import struct
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .elements import StoredTensor, TensorInfo, numpy_dtype, stored_bytes

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
    metadata = header.pop("__metadata__", {})
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
                f"{str(path)!r} is truncated: its header should have {length} bytes and the whole file has {size}; "
                "fetch it again"
            )
        text = file.read(length)
    try:
        header = json.loads(text.decode("utf-8"), object_pairs_hook=_unique)
    except ValueError as error:
        raise _broken(path, f"its header is not valid JSON ({error})") from None
    if not isinstance(header, dict):
        raise _broken(path, "its header is not a JSON object")
    return header, 8 + length


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    table = dict(pairs)
    if len(table) != len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"twice the name {next(name for name in names if names.count(name) > 1)!r}")
    return table


def _read_entry(path: Path, name: str, entry: Any) -> tuple[TensorInfo, int, int]:
    """Check one entry of the header: a known type, a shape, and a range of bytes of just their size."""
    try:
        tag, shape, (begin, end) = entry["dtype"], entry["shape"], entry["data_offsets"]
        counts = [*shape, begin, end]
    except (TypeError, KeyError, ValueError):
        raise _broken(path, f"the entry of tensor {name!r} lacks a dtype, shape or data_offsets") from None
    if not all(type(count) is int and count >= 0 for count in counts):
        raise _broken(path, f"the shape {shape} or data_offsets {[begin, end]} of tensor {name!r} are no counts")
    try:
        expected = stored_bytes(tag, math.prod(shape))
    except (KeyError, TypeError):
        raise _broken(path, f"tensor {name!r} has the unknown element type {tag!r}") from None
    if end - begin != expected:
        raise _broken(path, f"tensor {name!r} ({tag}, shape {shape}) needs {expected} bytes, not {end - begin}")
    return TensorInfo(name, tuple(shape), tag), begin, end


def _check_places(path: Path, places: dict[str, tuple[TensorInfo, int, int]], available: int) -> None:
    """Tensors must fill the rest of the file end to end: anything else is damage, or hides data."""
    expected = 0
    for name, (_, begin, end) in places.items():
        if begin != expected:
            raise _broken(path, f"tensor {name!r} starts at byte {begin} of the data, not at {expected}")
        expected = end
    if expected > available:
        raise ValueError(
            f"{str(path)!r} is truncated: its tensors need {expected} bytes and {available} are there; fetch it again"
        )
    if expected < available:
        raise _broken(path, f"{available - expected} bytes follow its last tensor")


def _view(content: NDArray[np.uint8], info: TensorInfo, begin: int, end: int) -> NDArray[Any]:
    """Stored elements as a view of the mapped file; packed types as their bytes."""
    raw = np.asarray(content[begin:end])
    dtype = numpy_dtype(info.dtype)
    if dtype is None:
        return raw
    # A tensor behind one of odd length starts off its alignment, which slows all that follows: copy it.
    aligned = raw if raw.ctypes.data % dtype.alignment == 0 else raw.copy()
    return aligned.view(dtype).reshape(info.shape)


def _broken(path: Path, what: str) -> ValueError:
    return ValueError(f"{str(path)!r} is no sound .safetensors file: {what}; fetch it again or save it anew")
