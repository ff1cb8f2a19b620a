"""The error of a dot product of two quantized vectors, from the terms of each."""

from __future__ import annotations

from typing import Any

import numpy as np

from .._check import as_int, shown
from ..results import DotProductError, ErrorTerms


def dot_product_error(x: ErrorTerms, w: ErrorTerms, *, length: int = 1) -> DotProductError:
    """Expected squared error of sum Q(x_i) Q(w_i) against sum x_i w_i, for independent x and w.

    With the errors split into gain and rest, Q(x) - x = a x + u with a = cross_x / power_x and E[x u] = 0 (likewise b
    and v for w), the error of one product, d = (a + b + a b) x w + (1 + a) x v + (1 + b) w u + u v, is a sum of
    uncorrelated parts: E[d^2] = (a + b + a b)^2 P_x P_w + (1 + a)^2 P_x E[v^2] + (1 + b)^2 P_w E[u^2] + E[u^2] E[v^2]
    with E[u^2] = mse_x - a^2 P_x. No two terms cancel. Over n products, n E[d^2] + n (n - 1) E[d]^2.

    Parameters
    ----------
    x, w : ErrorTerms
        From `quantization_error` (or a fit or a simulation); shapes broadcast.
    length : int
        Number n of products in the sum.

    Returns
    -------
    DotProductError
        mse, bias, power of the sum, and its SQNR.

    Raises
    ------
    ValueError
        For other types, shapes that do not broadcast, a length below 1.

    Notes
    -----
    To leading order P_x mse_w + P_w mse_x, which Kuzmin et al., "FP8 quantization: the power of the exponent" (2022,
    arXiv 2208.09225), compare formats by.

    Examples
    --------
    >>> import qerror as qe
    >>> int8 = qe.optimal_scale(qe.Gaussian(), "int8").error
    >>> print(f"{qe.dot_product_error(int8, int8, length=64).sqnr_db:.3f} dB")
    37.560 dB
    """
    for name, terms in (("x", x), ("w", w)):
        if not isinstance(terms, ErrorTerms):
            raise ValueError(f"{name} must be ErrorTerms, got {shown(terms)}; quantization_error(...) returns them")
    n = as_int("length", length, 1, 1 << 53)
    try:
        np.broadcast_shapes(np.shape(x.mse), np.shape(w.mse))
    except ValueError:
        shapes = f"{np.shape(x.mse)} and {np.shape(w.mse)}"
        raise ValueError(f"x and w must broadcast, got {shapes}; add axes of length 1, as in scale[:, None]") from None
    (gain_x, rest_x), (gain_w, rest_w) = _split(x), _split(w)
    both = gain_x + gain_w + gain_x * gain_w
    one = (
        both**2 * x.power * w.power
        + (1.0 + gain_x) ** 2 * x.power * rest_w
        + (1.0 + gain_w) ** 2 * w.power * rest_x
        + rest_x * rest_w
    )
    bias = np.asarray(x.mean) * w.bias + np.asarray(w.mean) * x.bias + np.asarray(x.bias) * w.bias
    power = np.asarray(x.power) * w.power
    mean = np.asarray(x.mean) * w.mean
    pairs = float(n) * (n - 1.0)
    return DotProductError(
        mse=(n * one + pairs * bias**2)[()],
        bias=(n * bias)[()],
        power=(n * power + pairs * mean**2)[()],
        length=n,
    )


def _split(terms: ErrorTerms) -> tuple[Any, Any]:
    """The gain a of the error, and the power of what is left of it."""
    power, cross = np.asarray(terms.power, np.float64), np.asarray(terms.cross, np.float64)
    gain = np.divide(cross, power, out=np.zeros(np.broadcast_shapes(power.shape, cross.shape)), where=power > 0.0)
    return gain, np.maximum(terms.mse - gain * cross, 0.0)
