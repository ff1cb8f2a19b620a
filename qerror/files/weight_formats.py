"""The format of one weight as plans and commands name it: ``int4_g128``, ``int8:axis=0``, ``nvfp4``, ``keep``."""

from __future__ import annotations

import dataclasses
import re

from .._check import shown
from ..grids.block_formats import BlockFormat, as_format
from ..grids.grid import Grid

KEEP = "keep"
"""A weight left as it is."""
PLAIN = {"bf16": "BF16", "fp16": "F16", "fp32": "F32"}
"""Formats that are an element type of files: stored without a scale."""
# Of GGUF, whose blocks have scales in float16 (and q4_1 shifts).
_GGUF = {"q8_0": "int8_g32_fp16", "q4_0": "int4_g32_fp16", "q4_1": "uint4_g32_fp16"}
_AXIS = re.compile(r"(?P<name>.+?):axis=(?P<axis>-?[0-9]+)")


@dataclasses.dataclass(frozen=True)
class WeightFormat:
    """A grid, and what has a scale of its own.

    Attributes
    ----------
    text : str
        What it was read from.
    name : str
        Without the axis, as `qerror.fit` takes it.
    grid : Grid
    axis : int or None
        The axis that keeps its own scales.
    block_size : int or None
        Neighbours that share one.
    scale_format : str or None
        What scales are stored as, where the format says it.
    tensor_scale : bool
        Whether one more scale of the whole tensor multiplies them.
    """

    text: str
    name: str
    grid: Grid
    axis: int | None = None
    block_size: int | None = None
    scale_format: str | None = None
    tensor_scale: bool = False

    @property
    def elements(self) -> str:
        """Name of the grid."""
        return self.grid.name or repr(self.grid)


def weight_format(text: str) -> WeightFormat:
    """Read a format: the name of a grid (with ``:axis=K`` for a scale of each channel) or of a block format.

    Raises
    ------
    ValueError
        If it is neither.

    Examples
    --------
    >>> weight_format("int8:axis=0").axis, weight_format("int4_g128").block_size, weight_format("nvfp4").tensor_scale
    (0, 128, True)
    """
    match = _AXIS.fullmatch(text.strip()) if isinstance(text, str) else None
    name, axis = (match["name"], int(match["axis"])) if match else (text, None)
    if not isinstance(name, str):
        raise ValueError(f"format must be a text such as int4_g128 or int8:axis=0, got {shown(text)}")
    name = _GGUF.get(name.strip().lower(), name)
    form = as_format(name)
    if not isinstance(form, BlockFormat):
        return WeightFormat(text, name, form, axis)
    if axis is not None:
        raise ValueError(f"format must be {name} without an axis, whose blocks have scales of their own, got {text!r}")
    stored = None if form.scale_format is None else form.scale_format.name
    return WeightFormat(text, name, form.grid, None, form.block_size, stored, form.tensor_scale)
