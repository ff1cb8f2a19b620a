"""Shannon's lower bound: the least mean squared error of any code at a rate."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from .._check import check_positive
from ..densities.base import Density, check_density
from ..densities.panels import resolve

# 2^(2 h) of a Gaussian of unit variance.
_GAUSSIAN = 2 * math.pi * math.e
# Doublings of a power law's tail, whose f log f falls off slowly.
_DOUBLINGS = 60


def differential_entropy(density: Density) -> float:
    """-E[log2 f(x)] in bits; minus infinity where there are point masses.

    Parameters
    ----------
    density : Density
        Of shape ().

    Raises
    ------
    ValueError
        For what is no density or has a shape.

    Examples
    --------
    >>> import qerror as qe
    >>> round(differential_entropy(qe.Gaussian()), 12), round(differential_entropy(qe.Uniform.from_bounds(0, 4)), 12)
    (2.047095585181, 2.0)
    """
    check_density(density)
    if density.shape:
        raise ValueError(f"density must have shape (), got {density.shape}; take one member after the other")
    if density.has_atoms:
        return -math.inf
    edges = [density.panels(), np.ravel(density.kinks)]
    doublings = max(density.tail_doublings, _DOUBLINGS if density.power_law else 0) + 1
    for sign, end in ((-1.0, edges[0][0]), (1.0, edges[0][-1])):
        if math.isinf(density.support[sign > 0]):
            length = float(density.decay_length(np.array([end]), np.array([sign]))[0])
            edges.append(end + sign * 2 * length * (2.0 ** np.arange(doublings) - 1))

    def integrand(x: Any) -> Any:
        f = np.asarray(density.pdf(x))
        with np.errstate(divide="ignore", invalid="ignore"):
            # Shifted so that nothing cancels between panels.
            return np.where(f > 0, f * np.log2(np.where(f > 0, f, 1.0)), 0.0)

    found = np.unique(np.concatenate(edges))
    fine, _ = resolve(lambda x: np.asarray(density.pdf(x)) + np.abs(integrand(x)), found, relative=1e-9, absolute=1e-14)
    node, weight = np.polynomial.legendre.leggauss(16)
    half = 0.5 * np.diff(fine)[:, None]
    values = integrand(fine[:-1, None] + half * (node + 1))
    return -math.fsum((half * weight * values).ravel())


def shannon_bound(density: Density, bits: ArrayLike) -> Any:
    """The mean squared error that no code of so many bits a value is below: 2^(2 h - 2 bits) / (2 pi e).

    h is the differential entropy. It is the rate-distortion function itself for a Gaussian, and for others at high
    rates. For independent values; of samples and other densities with point masses it says nothing (0).

    Parameters
    ----------
    density : Density
        Of shape ().
    bits : array_like
        Bits a value, positive.

    Returns
    -------
    float or ndarray
        Units of x squared.

    References
    ----------
    C. E. Shannon, "Coding theorems for a discrete source with a fidelity criterion" (1959).

    Examples
    --------
    >>> import qerror as qe
    >>> round(float(shannon_bound(qe.Gaussian(std=2), 4)), 12)
    0.015625
    """
    rate = check_positive("bits", bits)
    return (np.exp2(2 * (differential_entropy(density) - rate)) / _GAUSSIAN)[()]


def shannon_db(entropy: float, bits: float, power: float) -> float:
    """The bound as a signal to noise ratio in dB, of a differential entropy in bits and E[x^2].

    Examples
    --------
    >>> round(shannon_db(math.log2(2 * math.pi * math.e) / 2, 1.0, 1.0), 4)
    6.0206
    """
    return 10 * (math.log10(power * _GAUSSIAN) + 2 * (bits - entropy) * math.log10(2))
