"""Blocks of elements of a grid that share a stored scale."""

from __future__ import annotations

from dataclasses import dataclass

from .grid import Grid


@dataclass(frozen=True)
class BlockFormat:
    """A grid whose scales are shared by blocks and stored in a format of their own.

    Not a grid: give it to ``qe.fit``. The represented values are ``tensor_scale * block_scale * level``.

    Attributes
    ----------
    name : str
        Name of the format.
    grid : Grid
        The elements.
    block_size : int
        Elements that share a scale.
    scale_format : Grid
        The representable block scales.
    tensor_scale : bool
        Whether a float32 scale of the whole tensor multiplies the block scales.

    Examples
    --------
    >>> from qerror.grids.formats import block_format
    >>> block_format("mxfp4")
    BlockFormat('mxfp4', grid 'e2m1', blocks of 32, scales 'e8m0')
    """

    name: str
    grid: Grid
    block_size: int
    scale_format: Grid
    tensor_scale: bool = False

    def __repr__(self) -> str:
        tensor = " and a tensor scale" if self.tensor_scale else ""
        scales = f"blocks of {self.block_size}, scales {self.scale_format.name!r}{tensor}"
        return f"BlockFormat({self.name!r}, grid {self.grid.name!r}, {scales})"


# Element, block size, scale format, tensor scale. OCP Microscaling Formats (MX) v1.0, table 1; NVIDIA's NVFP4:
# blocks of 16, E4M3 scales, one float32 scale for the tensor.
NAMED: dict[str, tuple[str, int, str, bool]] = {
    "mxfp4": ("e2m1", 32, "e8m0", False),
    "mxfp6_e2m3": ("e2m3", 32, "e8m0", False),
    "mxfp6_e3m2": ("e3m2", 32, "e8m0", False),
    "mxfp8_e4m3": ("e4m3fn", 32, "e8m0", False),
    "mxfp8_e5m2": ("e5m2", 32, "e8m0", False),
    "mxint8": ("int8/64", 32, "e8m0", False),
    "nvfp4": ("e2m1", 16, "e4m3fn", True),
}
