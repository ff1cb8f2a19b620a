"""Shannon's lower bound: the least mean squared error of any code at a rate."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from .._check import check_positive
from ..densities.base import Density, check_density

# 2^(2 h) of a Gaussian of unit variance.
_GAUSSIAN = 2 * math.pi * math.e


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
    return float(density.entropy)


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
