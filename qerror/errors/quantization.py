"""The expected error of a quantizer, a grid or a block format: what is asked for by name."""

from __future__ import annotations

import dataclasses
from typing import Literal, overload

import numpy as np
from numpy.typing import ArrayLike

from .._check import check_choice, check_shift, shown
from .._types import Array, Values
from ..densities.base import Density
from ..grids.block_formats import BlockFormat, FormatLike, as_format
from ..results import ErrorTerms, LossTerms
from .blocks import block_error, block_probabilities
from .exact import MODELS, ROUNDINGS, Model, Rounding, flat_terms, flatten, probabilities
from .losses import Loss, block_loss, expected_loss, exponent_of, only_nearest


@overload
def quantization_error(
    density: Density,
    grid: FormatLike,
    scale: ArrayLike | None = ...,
    shift: ArrayLike = ...,
    *,
    rounding: Rounding = ...,
    model: Model = ...,
    size: int | None = ...,
    loss: Literal["squared"] = ...,
) -> ErrorTerms: ...
@overload
def quantization_error(
    density: Density,
    grid: FormatLike,
    scale: ArrayLike | None = ...,
    shift: ArrayLike = ...,
    *,
    rounding: Rounding = ...,
    model: Model = ...,
    size: int | None = ...,
    loss: Loss,
) -> ErrorTerms | LossTerms: ...
def quantization_error(
    density: Density,
    grid: FormatLike,
    scale: ArrayLike | None = None,
    shift: ArrayLike = 0.0,
    *,
    rounding: Rounding = "nearest",
    model: Model = "exact",
    size: int | None = None,
    loss: Loss = "squared",
) -> ErrorTerms | LossTerms:
    """Expected error of rounding a density to shift + scale * levels, or of a block format.

    E[(x - Q(x))^2] = sum_k of the integral of (x - q_k)^2 f(x) over cell k, q_k = shift + scale * l_k. Of a block
    format, whose scale g(M) follows from the largest magnitude M of B independent values:
    E[(x - g Q(x / g))^2], with M = max(|x|, M') for the largest magnitude M' of the B - 1 others (see
    `qerror.BlockScaled`).

    Parameters
    ----------
    density : Density
        Of any `shape`; for block formats without point masses but at 0.
    grid : Grid, BlockFormat or str
        Dimensionless levels l_k, or the format with its block rule (not "optimal": see `qerror.simulate`).
    scale, shift : array_like
        Units of x; they broadcast against each other and against `density.shape`. Of a block format `scale` is the
        tensor scale, 1 unless given, and there is no shift. With power-of-two block scales it is the place within an
        octave: see `octave_average`.
    rounding : {"nearest", "stochastic"}
        Stochastic: to the neighbour above with the probability that keeps the mean; beyond the ends as nearest.
    model : {"exact", "high_resolution"}
        The integrals themselves, or StatQAT's and ACIQ's approximation (see `qerror.errors.high_resolution`).
    size : int, optional
        Of a format with a tensor scale (nvfp4): how many values a tensor has. Expectations are then over tensors with
        their own scales, as their largest magnitudes give them.
    loss : {"squared", "absolute"} or float
        What an error e counts: e^2, |e|, or |e|^p for a power p from 1 to 4 (to nearest, by the exact model; of block
        formats e^2 and |e|). The absolute one is a finite sum of partial moments of order 0 and 1 between levels and
        thresholds; other powers are integrated, to about 1e-14, and of samples summed.

    Returns
    -------
    ErrorTerms
        Arrays of the broadcast shape (floats where it is ()); of a block format `BlockErrorTerms`, of another loss than
        the square `LossTerms`.
        As levels are rounded to float64, the root of `mse` is known to 2^-52 (sqrt(power) + |shift|) and no better: at
        shift 0 an error below 5e-32 of the power may be 0.

    Raises
    ------
    ValueError
        For what is no density, a scale that is not positive and finite, an unknown grid, rounding or model; for block
        rules whose error is no finite sum ("optimal", and "best_of" of more than three constants: the least of K sums
        is an integral of K - 1 dimensions): `simulate` has these with their standard errors.

    Examples
    --------
    >>> import qerror as qe
    >>> round(float(qe.quantization_error(qe.Gaussian(), "int4", 0.25).rounding), 12)
    0.004883658463
    >>> round(float(qe.quantization_error(qe.Gaussian(), "nf4_g64").mse), 12)
    0.008460052907
    >>> round(float(qe.quantization_error(qe.Gaussian(), "int4", 0.25, loss="absolute").loss), 12)
    0.08325997587
    """
    check_choice("rounding", rounding, ROUNDINGS)
    check_choice("model", model, MODELS)
    levels = as_format(grid)
    p = exponent_of(loss)
    if p != 2:
        only_nearest(rounding, model)
        if size is not None:
            raise ValueError(f"size must be left out with loss {loss!r}, got {shown(size)}")
        if isinstance(levels, BlockFormat):
            _no_shift(shift)
            return block_loss(density, levels, 1.0 if scale is None else scale, p)
        return expected_loss(density, levels, scale, shift, p)
    if isinstance(levels, BlockFormat):
        _no_shift(shift)
        if size is not None and scale is not None:
            raise ValueError(f"scale must be left out with size, whose tensors have their own, got {shown(scale)}")
        return block_error(density, levels, 1.0 if scale is None else scale, size, rounding, model)
    if size is not None:
        raise ValueError(f"size must be left out for a grid, which has no tensor scale, got {shown(size)}")
    members, flat_scale, flat_shift, shape = flatten(density, scale, shift)
    terms = flat_terms(members, levels, flat_scale, flat_shift, rounding, model)
    return ErrorTerms(*(getattr(terms, field.name).reshape(shape)[()] for field in dataclasses.fields(terms)))


def code_probabilities(
    density: Density,
    grid: FormatLike,
    scale: ArrayLike | None = None,
    shift: ArrayLike = 0.0,
    *,
    rounding: Rounding = "nearest",
) -> Array:
    """Probability of each level, in the order of `grid.levels`.

    P_k = integral of f over cell k; with stochastic rounding, of f weighted with the chance to land on level k.

    Parameters
    ----------
    density, grid, scale, shift, rounding
        As in `quantization_error`.

    Returns
    -------
    ndarray of shape (..., K)
        The broadcast shape followed by the levels; sums to 1.

    Examples
    --------
    >>> import qerror as qe
    >>> qe.code_probabilities(qe.Gaussian(), "binary", 1.0).round(12).tolist()
    [0.5, 0.5]
    """
    check_choice("rounding", rounding, ROUNDINGS)
    levels = as_format(grid)
    if isinstance(levels, BlockFormat):
        _no_shift(shift)
        return block_probabilities(density, levels, 1.0 if scale is None else scale, rounding)
    members, flat_scale, flat_shift, shape = flatten(density, scale, shift)
    out = probabilities(members, levels, flat_scale, flat_shift, rounding)
    return out.reshape(*shape, -1)


def code_entropy(
    density: Density,
    grid: FormatLike,
    scale: ArrayLike | None = None,
    shift: ArrayLike = 0.0,
    *,
    rounding: Rounding = "nearest",
) -> Values:
    """Entropy of the codes in bits: -sum P_k log2 P_k, the rate of an ideal entropy coder.

    Parameters
    ----------
    density, grid, scale, shift, rounding
        As in `quantization_error`.

    Returns
    -------
    float or ndarray
        Bits a value, of the broadcast shape.

    Examples
    --------
    >>> import qerror as qe
    >>> float(qe.code_entropy(qe.Gaussian(), "binary", 1.0))
    1.0
    """
    p = code_probabilities(density, grid, scale, shift, rounding=rounding)
    entropy: Values = (-(p * np.log2(np.where(p > 0, p, 1.0))).sum(axis=-1))[()]
    return entropy


def _no_shift(shift: ArrayLike) -> None:
    if np.any(check_shift(shift)):
        raise ValueError(f"shift must be 0 for a block format, got {shown(shift)}")
