"""Weights of GGUF files whose blocks are a scale and codes: Q8_0, Q4_0 and MXFP4 (`gguf_writing` has their bytes)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..grids.formats import grid as as_grid
from .elements import TensorInfo, values_of_codes
from .mapping import Checkpoint
from .quantized_weight import QuantizedWeight

_BLOCK = 32
# Elements, scale format, and bytes of the scale.
_KINDS = {"Q8_0": ("int8", "fp16", 2), "Q4_0": ("int4", "fp16", 2), "MXFP4": ("e2m1", "e8m0", 1)}


def block_weights(checkpoint: Checkpoint) -> dict[str, QuantizedWeight]:
    """Such weights of a GGUF file. Of others, K-quants among them, there are values alone."""
    found = {}
    for info in checkpoint.tensors:
        blocks = checkpoint.stored(info.name).blocks
        if blocks is not None and info.dtype in _KINDS and info.size:
            found[info.name] = _weight(info, blocks)
    return found


def _weight(info: TensorInfo, blocks: Callable[[int, int], NDArray[np.uint8]]) -> QuantizedWeight:
    elements, stored, width = _KINDS[info.dtype]
    columns = info.shape[-1]
    per_row = columns // _BLOCK

    def codes(begin: int, end: int) -> NDArray[Any]:
        content = blocks(begin * per_row, end * per_row)[:, width:]
        if elements == "int8":
            return content.view(np.int8).reshape(-1, columns)
        halves = np.concatenate([content & np.uint8(15), content >> np.uint8(4)], axis=1).reshape(-1, columns)
        return halves.view(np.int8) - np.int8(8) if elements == "int4" else halves

    def scales(begin: int, end: int) -> NDArray[np.float64]:
        content = np.ascontiguousarray(blocks(begin * per_row, end * per_row)[:, :width])
        values = content.view("<f2") if width == 2 else values_of_codes("F8_E8M0")[content]
        wide: NDArray[np.float64] = values.astype(np.float64).reshape(-1, per_row)
        return wide

    return QuantizedWeight(info, (info.name,), as_grid(elements), (1, _BLOCK), stored, codes, scales)
