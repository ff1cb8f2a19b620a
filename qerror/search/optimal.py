"""The scale of least error: the global minimum, and the proof that it is."""

from __future__ import annotations

from typing import Literal, overload

import numpy as np
from numpy.typing import ArrayLike

from .._check import check_choice, check_shift, shown
from .._types import Values
from ..densities.base import Density, check_density
from ..errors.exact import MODELS, ROUNDINGS, Model, Rounding
from ..errors.losses import Loss, exponent_of, only_nearest
from ..errors.quantization import quantization_error
from ..grids.block_formats import BlockFormat, BlockFormatLike, FormatLike, GridLike, as_format
from ..results import BlockScaleResult, LossScaleResult, ScaleResult
from .block_scales import Free, best_block_scale, block_errors_to_compare
from .fixed_shift import scale_at
from .free_shift import optimal_scale_and_shift
from .losses import best_scale_of_loss

Shift = Literal["mean", "optimal"]


@overload
def optimal_scale(
    density: Density,
    grid: GridLike,
    *,
    shift: Shift | ArrayLike = ...,
    model: Model = ...,
    rounding: Rounding = ...,
    certify: bool | None = ...,
    free: Free | None = ...,
    loss: Literal["squared"] = ...,
) -> ScaleResult: ...
@overload
def optimal_scale(
    density: Density,
    grid: BlockFormatLike,
    *,
    shift: Shift | ArrayLike = ...,
    model: Model = ...,
    rounding: Rounding = ...,
    certify: bool | None = ...,
    free: Free | None = ...,
    loss: Literal["squared"] = ...,
) -> BlockScaleResult: ...
@overload
def optimal_scale(
    density: Density,
    grid: FormatLike,
    *,
    shift: Shift | ArrayLike = ...,
    model: Model = ...,
    rounding: Rounding = ...,
    certify: bool | None = ...,
    free: Free | None = ...,
    loss: Literal["squared"] = ...,
) -> ScaleResult | BlockScaleResult: ...
@overload
def optimal_scale(
    density: Density,
    grid: GridLike | str,
    *,
    shift: Shift | ArrayLike = ...,
    model: Model = ...,
    rounding: Rounding = ...,
    certify: bool | None = ...,
    free: Free | None = ...,
    loss: Literal["absolute"],
) -> LossScaleResult: ...
@overload
def optimal_scale(
    density: Density,
    grid: GridLike | str,
    *,
    shift: Shift | ArrayLike = ...,
    model: Model = ...,
    rounding: Rounding = ...,
    certify: bool | None = ...,
    free: Free | None = ...,
    loss: float,
) -> ScaleResult | LossScaleResult: ...
def optimal_scale(
    density: Density,
    grid: FormatLike,
    *,
    shift: Shift | ArrayLike = 0.0,
    model: Model = "exact",
    rounding: Rounding = "nearest",
    certify: bool | None = None,
    free: Free | None = None,
    loss: Loss = "squared",
) -> ScaleResult | BlockScaleResult | LossScaleResult:
    """The scale that minimizes the mean squared error, or the mean of another loss, over all s > 0.

    Parameters
    ----------
    density : Density
        Of any `shape`; a sample is `Empirical(x)`.
    grid : Grid, BlockFormat or str
    shift : array_like, "mean" or "optimal"
        The value that level 0 stands for: given, the mean of the density, or optimized together with the scale (proven
        for samples on grids of up to 8 bits and rounding to nearest).
    model : {"exact", "high_resolution"}
        What is minimized.
    rounding : {"nearest", "stochastic"}
    certify : bool, optional
        Whether to prove the minimum global by the convexity of (A - MSE) / s^2 in 1 / s. None: on a sample (where it
        is given up on grids finer than 10 bits), and on other densities where it is cheap (not where copies of a
        minimum an octave apart differ by 1e-12). True: on a sample whatever it takes, which is a minute for int16 and
        100 000 values, and grows with their number.

    free : {"scale", "constant"}, optional
        Of a block format: whether the tensor scale is chosen (default where the format has one), or the constant of the
        block rule (where block scales have any size, which is proven; for power-of-two scales by the mean over an
        octave, which is the best threshold of such rules).
    loss : {"squared", "absolute"} or float
        What an error e counts: e^2, |e|, or |e|^p for a power p from 1 to 4; of grids, at a shift that is given or the
        mean. What such a scale costs in dB of MSE is `excess_db(density, grid, scale)`. Proven by bounds on intervals
        of scales (`qerror.search.losses`) where that is cheap, on samples too; `certify=True` asks for it elsewhere.

    Returns
    -------
    ScaleResult
        Fields of the broadcast shape of density and shift; of a block format `BlockScaleResult`, of another loss than
        the square `LossScaleResult`.

    Raises
    ------
    ValueError
        For what is no density, an unknown grid, shift, model or rounding, or a shift that is not finite.

    Examples
    --------
    >>> import qerror as qe
    >>> result = qe.optimal_scale(qe.Gaussian(), "binary")
    >>> round(float(result.scale), 12), result.status.name
    (0.797884560803, 'EXACT')
    >>> qe.optimal_scale(qe.Gaussian(), "nf4_g64").status.name
    'EXACT'
    >>> llm_compressor = qe.optimal_scale(qe.Gaussian(), "int4", loss=2.4)          # its default norm
    >>> round(float(qe.excess_db(qe.Gaussian(), "int4", llm_compressor.scale)), 4), llm_compressor.status.name
    (0.1075, 'EXACT')
    """
    check_choice("rounding", rounding, ROUNDINGS)
    check_choice("model", model, MODELS)
    check_density(density)
    levels = as_format(grid)
    p = exponent_of(loss)
    if p != 2:
        only_nearest(rounding, model)
        if isinstance(levels, BlockFormat) or free is not None:
            raise ValueError(f"loss must be 'squared' for a block format, got {shown(loss)}")
        at = density.mean if isinstance(shift, str) and check_choice("shift", shift, ("mean",)) else check_shift(shift)
        return best_scale_of_loss(density, levels, np.asarray(at, np.float64), p, certify)
    if isinstance(levels, BlockFormat):
        if isinstance(shift, str) or np.any(check_shift(shift)):
            raise ValueError(f"shift must be 0 for a block format, got {shown(shift)}")
        return best_block_scale(density, levels, free=free, model=model, rounding=rounding, certify=certify)
    if free is not None:
        raise ValueError(f"free must be left out for a grid, got {shown(free)}")
    if isinstance(shift, str):
        check_choice("shift", shift, ("mean", "optimal"))
        if shift == "optimal":
            return optimal_scale_and_shift(density, levels, model=model, rounding=rounding)
        fixed = np.asarray(density.mean, np.float64)
    else:
        fixed = check_shift(shift)
    return scale_at(density, levels, fixed, model=model, rounding=rounding, certify=certify)


def excess_db(
    density: Density,
    grid: FormatLike,
    scale: ArrayLike | None = None,
    shift: ArrayLike = 0.0,
    *,
    model: Model = "exact",
    rounding: Rounding = "nearest",
) -> Values:
    """Decibels lost by a scale against the best one at the same shift: 10 log10(MSE(scale) / min MSE) >= 0.

    Parameters
    ----------
    density, grid, scale, shift, model, rounding
        As in `quantization_error`. Of a block format a tensor scale that is given is compared with the best one; where
        none is given its rule with the best constant (of power-of-two scales by the mean over an octave).

    Returns
    -------
    float or ndarray
        dB of the broadcast shape; 0 where both errors are 0.

    Examples
    --------
    >>> import qerror as qe
    >>> round(float(qe.excess_db(qe.Gaussian(), "int4", 0.25)), 3)
    2.762
    """
    levels = as_format(grid)
    if isinstance(levels, BlockFormat):
        here, best = block_errors_to_compare(density, levels, scale, model=model, rounding=rounding)
    else:
        here = np.asarray(quantization_error(density, levels, scale, shift, model=model, rounding=rounding).mse)
        best = np.asarray(optimal_scale(density, levels, shift=shift, model=model, rounding=rounding).error.mse)
    with np.errstate(divide="ignore", invalid="ignore"):
        loss = 10 * np.log10(here / best)
    lost: Values = np.where(here <= best, 0.0, loss)[()]
    return lost
