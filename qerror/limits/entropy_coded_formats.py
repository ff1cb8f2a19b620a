"""What a lossless coder behind a fixed grid buys: the error of each scale against the entropy of its codes."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from .._check import check_scale
from .._types import Array, Index
from ..densities.base import Density, check_density
from ..errors.quantization import code_entropy, quantization_error
from ..grids.formats import grid as as_grid
from ..grids.grid import Grid
from ..results import EntropyCodedFormat
from ..search.optimal import optimal_scale

# Scales beside the best one when none are given: from a quarter of it to 64 times as much.
_BELOW, _ABOVE, _EACH = -2.0, 6.0, 32


def entropy_coded_format(
    density: Density, grid: Grid | str, scales: ArrayLike | None = None, shift: float = 0.0
) -> EntropyCodedFormat:
    """Entropy of the codes and error of a grid at many scales, and the lower convex hull of both.

    A coder that packs the codes to their entropy makes larger scales worth while: fewer levels are in use, and the step
    of a uniform grid no longer has to balance clipping. Points between two of the hull are met by using one scale for
    some values and the other for the rest.

    Parameters
    ----------
    density : Density
        Of shape ().
    grid : Grid or str
    scales : array_like, optional
        Units of x; by default 257, log-spaced around the best scale.
    shift : float

    Returns
    -------
    EntropyCodedFormat

    Examples
    --------
    >>> import qerror as qe
    >>> curve = entropy_coded_format(qe.Gaussian(), "int4")
    >>> best = qe.optimal_scale(qe.Gaussian(), "int4")
    >>> print(f"{best.error.sqnr_db:.3f} dB at {qe.code_entropy(qe.Gaussian(), 'int4', best.scale):.3f} bits")
    19.258 dB at 3.587 bits
    >>> print(f"{curve.least_mse(3.0) / curve.power:.5f} of the power at 3 bits")
    0.02275 of the power at 3 bits
    """
    check_density(density)
    if density.shape:
        raise ValueError(f"density must have shape (), got {density.shape}; take one member after the other")
    levels = as_grid(grid)
    if scales is None:
        best = float(optimal_scale(density, levels, shift=shift).scale)
        steps = np.arange(_BELOW * _EACH, _ABOVE * _EACH + 1) / _EACH
        tried = best * np.exp2(steps)
    else:
        tried = np.unique(check_scale(scales))
    error = quantization_error(density, levels, tried, shift)
    bits = np.asarray(code_entropy(density, levels, tried, shift), np.float64)
    mse = np.asarray(error.mse, np.float64)
    power = float(density.std) ** 2 + float(density.mean) ** 2
    return EntropyCodedFormat(levels, tried, bits, mse, _hull(bits, mse), power)


def _hull(bits: Array, mse: Array) -> Index:
    """Indices of the lower convex hull from the least entropy to the least error, by entropy."""
    order = np.lexsort((mse, bits))
    kept: list[int] = []
    for i in order.tolist():
        if kept and mse[i] >= mse[kept].min():
            continue
        while len(kept) > 1 and _above(bits[kept[-2:]], mse[kept[-2:]], bits[i], mse[i]):
            kept.pop()
        kept.append(i)
    return np.array(kept, np.intp)


def _above(bits: Array, mse: Array, next_bits: float, next_mse: float) -> bool:
    """Whether the second of two points lies on or above the line from the first to the next."""
    return bool((mse[1] - mse[0]) * (next_bits - bits[0]) >= (next_mse - mse[0]) * (bits[1] - bits[0]))
