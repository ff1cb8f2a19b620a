"""Figures of codebooks: how near they come to what is possible."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure

from .._types import Array
from ..densities.named import density as as_density
from ..errors.quantization import code_entropy, quantization_error
from ..grids.formats import formats
from ..grids.formats import grid as as_grid
from ..search.lloyd_max import lloyd_max
from ..search.optimal import optimal_scale
from .curves import sqnr_against_bits
from .style import new_figure
from .summaries import sqnr_report

# Decibels of one bit: 20 log10(2).
BIT_DB = 20 * np.log10(2)
# Panter and Dite (1951): MSE N^2 -> sqrt(3) pi / 2 for a Gaussian of unit variance.
PANTER_DITE_DB = -10 * np.log10(np.sqrt(3) * np.pi / 2)
# A uniform quantizer of small steps with entropy coding is pi e / 6 from the rate-distortion bound (Gish, Pierce 1968).
ENTROPY_CODED_DB = -10 * np.log10(np.pi * np.e / 6)


def codebooks_against_bits() -> Figure:
    """SQNR less 6.02 dB a bit on a Gaussian: Lloyd-Max, uniform, floating, entropy-coded, and the bounds."""
    figure, ax = new_figure(height=3.7)
    gaussian = as_density("gaussian")
    bits = np.arange(1, 8)
    best = [float(quantization_error(gaussian, lloyd_max(gaussian, 2 ** int(b)), 1.0).sqnr_db) for b in bits]
    uniform = [float(optimal_scale(gaussian, "binary" if b == 1 else f"int{b}_midrise").error.sqnr_db) for b in bits]
    series = {
        "Lloyd-Max": (bits, best),
        "best uniform": (bits, uniform),
        "best floating": (bits[2:], [_best_floating(int(b)) for b in bits[2:]]),
    }
    rates, decibels = entropy_coded_uniform(np.geomspace(0.03, 4.0, 60))
    ends = np.array([0.5, 7.0])
    bounds = {
        "rate-distortion bound": (ends, BIT_DB * ends),
        "entropy-coded, small steps": (ends, BIT_DB * ends + ENTROPY_CODED_DB),
        "Panter-Dite": (ends, BIT_DB * ends + PANTER_DITE_DB),
    }
    sqnr_against_bits(series, bounds=bounds, per_bit=BIT_DB, ax=ax)
    ax.plot(rates, decibels - BIT_DB * rates, color="black", linewidth=1.0, label="entropy-coded uniform")
    ax.set(xlim=(0.4, 7.2), ylim=(-7.4, 0.6), xlabel="bits (entropy) per value")
    figure.legend(ncols=2, loc="outside lower center")
    return figure


def entropy_coded_uniform(steps: Array) -> tuple[Array, Array]:
    """Entropy in bits and SQNR in dB of a uniform quantizer without ends on a unit Gaussian, level 0 among the levels.

    Parameters
    ----------
    steps : ndarray
        Units of the standard deviation, above 0.02: 1023 levels then reach ten standard deviations.

    Examples
    --------
    >>> entropy, decibels = entropy_coded_uniform(np.array([0.03]))
    >>> (decibels - BIT_DB * entropy).round(2)
    array([-1.53])
    """
    gaussian, grid = as_density("gaussian"), as_grid("int10_narrow")
    error = quantization_error(gaussian, grid, steps)
    return np.asarray(code_entropy(gaussian, grid, steps)), np.asarray(error.sqnr_db)


def formats_of_four_bits() -> Figure:
    """SQNR of the 4-bit formats at their best scales, and of the best 16 levels, on three densities."""
    figure, ax = new_figure(height=4.0)
    names = [name for name in formats(4) if not name.startswith("uint")]
    found = {}
    for label, name in (("Student's t, 5 df", "student-t:df=5"), ("Laplace", "laplace"), ("Gaussian", "gaussian")):
        density = as_density(name)
        reached = [float(optimal_scale(density, one).error.sqnr_db) for one in names]
        found[label] = [*reached, float(quantization_error(density, lloyd_max(density, 16), 1.0).sqnr_db)]
    order = np.argsort(found["Gaussian"])[::-1]
    labels = [*names, "Lloyd-Max, 16"]
    sqnr_report([labels[i] for i in order], {key: [line[i] for i in order] for key, line in found.items()}, ax=ax)
    figure.legend(ncols=3, loc="outside lower center")
    return figure


def _best_floating(bits: int) -> float:
    names = [name for name in formats(bits) if as_grid(name).float_spec is not None and name != "e8m0"]
    return max(float(optimal_scale(as_density("gaussian"), name).error.sqnr_db) for name in names)
