"""Power-of-two block scales: the error repeats with every doubling of the density, and is averaged over an octave."""

from __future__ import annotations

import dataclasses

import numpy as np

from .._check import check_choice, shown
from .._types import Array
from ..densities.base import Density, check_density
from ..grids.block_formats import BlockFormat, block_format
from ..grids.scale_formats import powers_of_two, scale_grid
from ..results import BlockErrorTerms, OctaveAverage
from .blocks import block_error, block_mse
from .exact import ROUNDINGS, Rounding

# Points of an octave to begin with and at most: the mean of a smooth periodic function settles exponentially fast.
_FIRST, _MOST = 8, 256
_SETTLED = 1e-13
# Values of a tensor whose own scale is meant where its size is not said.
USUAL_SIZE = 1 << 20
# Where the interpolation through the points is looked at.
_FINE = 4096


def octave_average(density: Density, form: BlockFormat | str, *, rounding: Rounding = "nearest") -> OctaveAverage:
    """The error of a format with power-of-two scales for a density whose scale is log-uniform: mean, least, greatest.

    E / E[x^2] has period 1 in log2 of the tensor scale (or of std), for scales without an end: those of "e8m0" are
    taken as "pow2" here.

    Parameters
    ----------
    density : Density
        Of shape ().
    form : BlockFormat or str
        With power-of-two scales, by any rule of the largest magnitude.
    rounding : {"nearest", "stochastic"}

    Returns
    -------
    OctaveAverage

    Raises
    ------
    ValueError
        For what is no density or has a shape, and for a format of other scales.

    Examples
    --------
    >>> import qerror as qe
    >>> octave = qe.octave_average(qe.Gaussian(), "mxfp4")
    >>> [round(float(terms.sqnr_db), 4) for terms in (octave.mean, octave.least, octave.greatest)]
    [18.7445, 18.9257, 18.566]
    """
    check_choice("rounding", rounding, ROUNDINGS)
    check_density(density)
    if density.shape:
        raise ValueError(f"density must have shape (), got {density.shape}; take one member after the other")
    endless = _endless(block_format(form))

    def at(place: Array | float) -> BlockErrorTerms:
        return block_error(density, endless, np.exp2(place), None, rounding, "exact")

    place = np.arange(_FIRST) / _FIRST
    columns = _columns(at(place))
    while True:
        between = _columns(at(place + 0.5 / place.size))
        both = np.stack([columns, between], axis=-1).reshape(len(columns), -1)
        change = abs(between[:2].sum(axis=0).mean() / columns[:2].sum(axis=0).mean() - 1)
        columns, place = both, np.arange(both.shape[1]) / both.shape[1]
        if change <= _SETTLED or place.size >= _MOST:
            break
    mse = _interpolated(columns[:2].sum(axis=0))
    least, greatest = (float(i) / _FINE for i in (mse.argmin(), mse.argmax()))
    mean = dict(zip(_FIELDS, columns.mean(axis=1), strict=True))
    bits = block_format(form).bits_per_value()
    return OctaveAverage(
        mean=BlockErrorTerms(**mean, bits_per_value=bits),
        least=dataclasses.replace(at(least), bits_per_value=bits),
        greatest=dataclasses.replace(at(greatest), bits_per_value=bits),
        least_scale=float(np.exp2(least)),
        greatest_scale=float(np.exp2(greatest)),
    )


def octave_mse(density: Density, form: BlockFormat, rounding: Rounding) -> float:
    """The mean squared error of `octave_average` alone.

    Examples
    --------
    >>> import qerror as qe
    >>> round(octave_mse(qe.Gaussian(), block_format("mxfp4"), "nearest"), 12)
    0.013352011154
    """
    endless = _endless(form)

    def mean(place: Array) -> float:
        return block_mse(density, endless, np.exp2(place), rounding, "exact")

    place = np.arange(_FIRST) / _FIRST
    found = mean(place)
    while True:
        between = mean(place + 0.5 / place.size)
        settled, found = abs(between / found - 1) <= _SETTLED, 0.5 * (found + between)
        place = np.arange(2 * place.size) / (2 * place.size)
        if settled or place.size >= _MOST:
            return found


def as_met(density: Density, form: BlockFormat, *, rounding: Rounding = "nearest") -> BlockErrorTerms:
    """The error of a format where nothing is known of the tensor scale.

    Of power-of-two scales the mean over an octave, of formats with a tensor scale that of tensors of 2^20 values, which
    have their own, else at tensor scale 1.

    Examples
    --------
    >>> import qerror as qe
    >>> [round(float(as_met(qe.Gaussian(), block_format(name)).sqnr_db), 3) for name in ("mxfp4", "nvfp4", "nf4_g64")]
    [18.745, 20.436, 20.726]
    """
    if form.scale_format is not None and powers_of_two(form.scale_format):
        return octave_average(density, form, rounding=rounding).mean
    return block_error(density, form, 1.0, USUAL_SIZE if form.tensor_scale else None, rounding, "exact")


_FIELDS = ("clipping", "rounding", "bias", "cross", "power", "mean", "maximum")


def _columns(terms: BlockErrorTerms) -> Array:
    return np.array([np.broadcast_to(getattr(terms, name), np.shape(terms.power)) for name in _FIELDS])


def _interpolated(values: Array) -> Array:
    """The trigonometric polynomial through equally spaced values of a period, on a fine lattice."""
    fine: Array = np.fft.irfft(np.fft.rfft(values), _FINE) * (_FINE / values.size)
    return fine


def _endless(form: BlockFormat) -> BlockFormat:
    if form.scale_format is None or not powers_of_two(form.scale_format):
        raise ValueError(f"form must have power-of-two scales, such as e8m0, got {shown(form)}")
    return form.replace(scale_format=scale_grid("pow2"))
