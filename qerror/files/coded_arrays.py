"""Weights of .npz files that `qerror export` wrote: NAME.codes and NAME.scale; the array "qerror" has their formats."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .elements import TensorInfo
from .headers import parse_json
from .mapping import Checkpoint
from .quantized_weight import QuantizedWeight, format_tag, grouping
from .weight_formats import weight_format

ABOUT = "qerror"
"""Name of the array that has the formats, as JSON."""


def coded_weights(checkpoint: Checkpoint) -> dict[str, QuantizedWeight]:
    """The weights of such a file; none of others."""
    if ABOUT not in checkpoint or not checkpoint.info(ABOUT).dtype.startswith("<U"):
        return {}
    try:
        formats: Mapping[str, Any] = parse_json(str(checkpoint.stored(ABOUT).load()))["formats"]
        found = {name: _weight(checkpoint, name, text) for name, text in formats.items()}
    except (KeyError, TypeError, ValueError, AttributeError):
        # An array of that name from elsewhere.
        return {}
    return {name: weight for name, weight in found.items() if weight is not None}


def _weight(checkpoint: Checkpoint, name: str, text: str) -> QuantizedWeight | None:
    form, codes, scale = weight_format(text), checkpoint.info(f"{name}.codes"), f"{name}.scale"
    block = grouping(codes.shape, form.axis, form.block_size) if codes.size and codes.shape else None
    if block is None or codes.dtype[0] not in "IU":
        return None
    columns = codes.shape[-1]
    kind = np.dtype(f"{'i' if codes.dtype[0] == 'I' else 'u'}{int(codes.dtype[1:]) // 8}")
    unit = f"{name}.tensor_scale"

    def read(begin: int, end: int) -> NDArray[Any]:
        return checkpoint.part_bits(codes.name, begin * columns, end * columns).view(kind).reshape(-1, columns)

    def scales(begin: int, end: int) -> NDArray[np.float64]:
        per_row = -(-columns // block[1])
        found: NDArray[np.float64] = checkpoint[scale].astype(np.float64).reshape(-1, per_row)[begin:end]
        return found

    tag = format_tag(form.grid, block, (codes.size // columns, columns), form.scale_format)
    members = (codes.name, scale, *([unit] if form.tensor_scale else []), ABOUT)
    whole = functools.partial(_unit, checkpoint, unit) if form.tensor_scale else lambda: 1.0
    return QuantizedWeight(
        TensorInfo(name, codes.shape, tag), members, form.grid, block, form.scale_format, read, scales, whole
    )


def _unit(checkpoint: Checkpoint, name: str) -> float:
    return float(checkpoint[name])
