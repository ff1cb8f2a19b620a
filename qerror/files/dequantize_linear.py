"""Weights of ONNX models that come out of DequantizeLinear: initializers of codes and of scales, read as one weight."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..grids.formats import grid as as_grid
from .elements import TensorInfo
from .headers import parse_json
from .mapping import Checkpoint
from .packing import unpack_nibbles
from .quantized_weight import STORED, QuantizedWeight, format_tag, grouping

_GRIDS = {
    **{"I8": "int8", "U8": "uint8", "F8_E4M3": "e4m3fn", "F8_E5M2": "e5m2"},
    **{"ONNX INT4": "int4", "ONNX UINT4": "uint4"},
}
METADATA = "DequantizeLinear"
"""What a model's nodes of that name say, as JSON by their outputs: see `read_onnx`."""


def linear_weights(checkpoint: Checkpoint) -> dict[str, QuantizedWeight]:
    """Weights without a zero point (or of zeros only), with scales of the tensor, an end axis, or its blocks."""
    try:
        nodes = parse_json(checkpoint.metadata.get(METADATA, "{}"))
        found = {name: _weight(checkpoint, name, node) for name, node in nodes.items()}
    except (KeyError, TypeError, ValueError, AttributeError):
        # A text of that name in a file of another kind.
        return {}
    return {name: weight for name, weight in found.items() if weight is not None}


def _weight(checkpoint: Checkpoint, name: str, node: Mapping[str, Any]) -> QuantizedWeight | None:
    codes, scale = (checkpoint.info(node[key]) for key in ("codes", "scale"))
    zero = node["zero_point"]
    if codes.dtype not in _GRIDS or not codes.shape or not codes.size:
        return None
    if zero and np.any(checkpoint.stored(zero).load()):
        return None
    block = _block(codes.shape, scale.shape, node["axis"], node["block_size"])
    if block is None:
        return None
    grid, columns = as_grid(_GRIDS[codes.dtype]), codes.shape[-1]
    flat = codes.size // columns, columns
    return QuantizedWeight(
        TensorInfo(name, codes.shape, format_tag(grid, block, flat, STORED.get(scale.dtype))),
        (codes.name, scale.name, *([zero] if zero else [])),
        grid,
        block,
        STORED.get(scale.dtype),
        _reader(checkpoint, codes),
        functools.partial(_scales, checkpoint, scale.name, -(-columns // block[1])),
    )


def _block(shape: tuple[int, ...], scale: tuple[int, ...], axis: int, block_size: int) -> tuple[int, int] | None:
    """Rows and columns that share a scale; None where scales follow an axis between the first and the last."""
    if np.prod(scale, dtype=int) == 1:
        return grouping(shape, None, None)
    if not block_size:
        return grouping(shape, axis, None)
    if axis % len(shape) == len(shape) - 1:
        return 1, block_size
    return (block_size, 1) if len(shape) == 2 else None


def _reader(checkpoint: Checkpoint, info: TensorInfo) -> Callable[[int, int], NDArray[Any]]:
    columns = info.shape[-1]

    def read(begin: int, end: int) -> NDArray[Any]:
        stored = checkpoint.part_bits(info.name, begin * columns, end * columns).reshape(-1, columns)
        return stored.view(np.int8) if info.dtype == "I8" else stored

    def halves(begin: int, end: int) -> NDArray[Any]:
        first, last = begin * columns, end * columns
        content = checkpoint.stored(info.name).load()[first // 2 : -(-last // 2)]
        codes = unpack_nibbles(content)[first % 2 :][: last - first].reshape(-1, columns)
        # Two's complement of four bits.
        return codes if info.dtype == "ONNX UINT4" else (codes ^ np.uint8(8)).view(np.int8) - np.int8(8)

    return halves if info.dtype.startswith("ONNX ") else read


def _scales(checkpoint: Checkpoint, name: str, per_row: int, begin: int, end: int) -> NDArray[np.float64]:
    found: NDArray[np.float64] = checkpoint[name].astype(np.float64).reshape(-1, per_row)[begin:end]
    return found
