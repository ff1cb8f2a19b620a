"""The layout of a sketch's file: what is in its metadata, and the compressed tables of each tensor.

The file is a .safetensors file. Its metadata has ``qerror_sketch``: JSON with ``version`` (1), ``qerror``, ``source``,
``left_out`` (name to reason) and ``tensors``, for each of which ``shape``, ``dtype``, ``kind`` ("patterns" or "bins"),
and for bins ``bits``, ``least`` and ``greatest``. The content of tensor NAME is NAME.KEYS, U8: zlib-compressed byte
planes (all lowest bytes first) of little-endian columns of 8 bytes, one after the other: the gaps between the ascending
keys (bit patterns, or leading bits) and the counts; of bins also the sums of r and of r^2 (see
`qerror.checkpoints.bins`).
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .._check import shown
from ..files.elements import TensorInfo, is_shape
from ..files.mapping import Checkpoint
from .bins import Bins
from .patterns import Patterns, countable

_COLUMNS = {"patterns": 2, "bins": 4}


def described(info: TensorInfo, content: Patterns | Bins) -> dict[str, Any]:
    """What the metadata say of a tensor."""
    kind = "patterns" if isinstance(content, Patterns) else "bins"
    table: dict[str, Any] = {"shape": list(info.shape), "dtype": info.dtype, "kind": kind}
    if isinstance(content, Bins):
        table |= {"bits": content.bits, "least": content.least, "greatest": content.greatest}
    return table


def packed(content: Patterns | Bins) -> NDArray[np.uint8]:
    """The tables of a tensor as bytes."""
    if isinstance(content, Patterns):
        columns = [content.codes.astype(np.int64), content.counts]
    else:
        columns = [content.keys, content.counts, content.first, content.second]
    columns[0] = np.diff(columns[0], prepend=0)
    planes = [np.ascontiguousarray(column, "<i8").view(np.uint8).reshape(-1, 8).T for column in columns]
    return np.frombuffer(zlib.compress(np.concatenate(planes).tobytes(), 9), np.uint8)


def _columns(content: NDArray[np.uint8], columns: int, most: int) -> list[NDArray[np.int64]]:
    """The columns of a tensor; `most` bounds the keys, so that a damaged file takes no endless memory."""
    stream = zlib.decompressobj()
    planes = stream.decompress(content.tobytes(), 8 * columns * most + 1)
    if not stream.eof or stream.unconsumed_tail or len(planes) % (8 * columns):
        raise ValueError("its compressed tables do not end where they should")
    table = np.frombuffer(planes, np.uint8).reshape(columns, 8, -1)
    out = [np.ascontiguousarray(plane.T).view("<i8").ravel().astype(np.int64) for plane in table]
    if not out[0].size:
        raise ValueError("a table is empty")
    gaps = out[0]
    if (gaps < 0).any() or (gaps[1:] <= 0).any() or gaps.max(initial=0) > most:
        raise ValueError("keys are not ascending")
    out[0] = np.cumsum(gaps)
    if out[0][-1] >= most or (out[1] <= 0).any() or any((column < 0).any() for column in out):
        raise ValueError("keys or counts are impossible")
    return out


def unpacked(file: Checkpoint, name: str, table: Mapping[str, Any]) -> tuple[TensorInfo, Patterns | Bins]:
    """A tensor of a sketch and what it holds; ValueError for what cannot be."""
    shape, dtype, kind = tuple(table["shape"]), table["dtype"], table["kind"]
    if not is_shape(shape) or not (countable(dtype) if kind == "patterns" else dtype == "F32"):
        raise ValueError(f"tensor {shown(name, 30)} has an impossible shape or type")
    info = TensorInfo(name, shape, dtype)
    bits = 16 if kind == "patterns" else table["bits"]
    if not isinstance(bits, int) or not 14 <= bits <= 20:
        raise ValueError("bits are impossible")
    columns = _columns(file.bits(f"{name}.KEYS"), _COLUMNS[kind], 1 << bits)
    if int(columns[1].sum()) != info.size:
        raise ValueError(f"the counts of {shown(name, 30)} are not its {info.size} elements")
    if kind == "patterns":
        if dtype.startswith("F8") and columns[0][-1] > 255:
            raise ValueError("a pattern of 8 bits has more")
        return info, Patterns(dtype, columns[0].astype(np.uint16), columns[1])
    most = (1 << (32 - bits)) - 1
    # In this way round no product is above 2^63.
    if any((-(-columns[i] // most**power) > columns[1]).any() for i, power in ((2, 1), (3, 2))):
        raise ValueError("sums of bins are too large")
    # Infinity and NaN are no values of a sketch.
    if (columns[0] >> (bits - 9) & 255 == 255).any():
        raise ValueError("bins hold values that are not finite")
    keys, counts, first, second = columns
    ends = float(table["least"]), float(table["greatest"])
    return info, Bins(bits, keys, counts, first, second, *ends)
