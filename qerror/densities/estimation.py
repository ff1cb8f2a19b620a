"""Fitting a density to data: maximum likelihood for every family, the likeliest family by name "auto".

Large samples are first condensed to some ten thousand weighted points: the outer values one by one, the inner ones
by the means of small groups, whose width adds less than 1e-8 to any log-likelihood per value.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import log_ndtr, ndtri

from .._check import as_float_array, check_choice, check_finite
from .._types import Array
from .base import Density
from .parametric import Gaussian, Laplace, Logistic, Uniform
from .rectified import Rectified
from .shaped import GeneralizedGaussian, StudentT

# Ranges of the shape parameters: below df 2 there is no variance, and the likelihood is flat beyond the upper ends.
_DF = (2.05, 200.0)
_BETA = (0.2, 20.0)
# A share of exact zeros from which data without negative values count as the output of a rectifier.
_ZEROS = 0.02


class Points(NamedTuple):
    """A weighted sample, sorted; weights sum to 1. The ends are those of the data, in their own units."""

    x: Array
    w: Array
    ends: tuple[float, float]

    def mean(self, values: Array) -> float:
        """Weighted mean of a function of x."""
        return float(np.einsum("i,i->", self.w, values))

    @property
    def median(self) -> float:
        """Weighted median."""
        return float(self.x[np.searchsorted(np.cumsum(self.w), 0.5)])


class Fit(NamedTuple):
    """Log-likelihood per value, number of parameters, and a maker of the density in units of the data."""

    likelihood: float
    parameters: int
    make: Callable[[float, float], Density]


class Counted(Protocol):
    """Data that are counts of values, as a tensor of a sketch."""

    def counted(self) -> tuple[Array, Array, tuple[float, float]]:
        """Different values, ascending; how often each is there; the least and the greatest of all."""


class ValueCounts(NamedTuple):
    """Values, ascending, and how often each is there."""

    values: Array
    counts: Array

    def counted(self) -> tuple[Array, Array, tuple[float, float]]:
        """As `fit_density` takes them."""
        return self.values, self.counts, (float(self.values[0]), float(self.values[-1]))


def fit_density(x: ArrayLike | Counted, family: str = "auto") -> Density:
    """The density of a family that makes the data most likely.

    Maximum likelihood: closed forms for Gaussian, Laplace and Uniform; fixed-point iterations for Logistic, the
    location and scale of Student's t and generalized Gaussian; golden-section search over their shape. "auto" takes
    the least 2 k - 2 log L (Akaike 1974, k parameters), or "rectified-gaussian" (censored likelihood, Tobin 1958)
    where no value is negative and at least 2% are exactly 0.

    Parameters
    ----------
    x : array_like, or a tensor of a sketch (`qerror.checkpoints.scan`)
        Real numbers of any shape, at least two different ones. Of float32 tensors a sketch knows the means of narrow
        bins.
    family : str
        "auto", "gaussian", "laplace", "uniform", "logistic", "student-t" (df from 2.05 to 200; heavier tails give
        2.05), "generalized-gaussian" (beta from 0.2 to 20) or "rectified-gaussian".

    Returns
    -------
    Density
        Its `name` says the family and the parameters.

    Raises
    ------
    ValueError
        For an unknown family, empty or constant data, NaN or infinity, and for "rectified-gaussian" on data that
        are negative somewhere or never 0.

    Examples
    --------
    >>> import qerror as qe
    >>> data = qe.Laplace(mean=1.0, std=2.0).sample(100_000, rng=0)
    >>> qe.fit_density(data).name.split(":")[0] in ("laplace", "generalized-gaussian")
    True
    """
    check_choice("family", family, ("auto", *_FAMILIES, "rectified-gaussian"))
    counts, ends = None, None
    if hasattr(x, "counted"):
        values, counts, ends = x.counted()
    else:
        values = np.sort(as_float_array("x", x).ravel())
    if not values.size:
        raise ValueError("x must hold at least two different values, got no values")
    check_finite("x", values)
    if values[0] == values[-1]:
        remedy = "a density needs spread, use Empirical(x) for such data"
        raise ValueError(f"x must hold at least two different values, got only {float(values[0])!r}; {remedy}")
    zeros = _zero_share(values, counts)
    if family == "rectified-gaussian" or (family == "auto" and zeros >= _ZEROS):
        return _rectified_gaussian(values, counts, zeros)
    # A power of two changes no bit; squares neither under- nor overflow.
    unit = 2.0 ** math.frexp(float(values[-1]) / 2 - float(values[0]) / 2)[1]
    size = values.size if counts is None else float(counts.sum())
    origin = float(values[values.size // 2] if counts is None else values[np.searchsorted(np.cumsum(counts), size / 2)])
    points = _condense((values - origin) / unit, counts, ends or (float(values[0]), float(values[-1])))
    if family != "auto":
        return _FAMILIES[family](points).make(origin, unit)
    fits = [fit(points) for fit in _FAMILIES.values()]
    best = min(fits, key=lambda fit: 2 * fit.parameters - 2 * size * fit.likelihood)
    return best.make(origin, unit)


def _condense(
    values: Array, counts: Array | None, ends: tuple[float, float], outer: int = 512, groups: int = 8192
) -> Points:
    """Sorted values as weighted points: the `outer` ones on each side alone, the rest in equal groups."""
    n = values.size
    if counts is not None:
        # Few enough as they are: those of 16 bits, or bins.
        return Points(values, counts / counts.sum(), ends)
    if n <= 2 * outer + 2 * groups:
        return Points(values, np.full(n, 1.0 / n), ends)
    starts = np.concatenate([np.arange(outer), np.linspace(outer, n - outer, groups + 1).astype(np.intp)])
    starts = np.concatenate([starts, np.arange(n - outer + 1, n)])
    sizes = np.diff(np.append(starts, n))
    return Points(np.add.reduceat(values, starts) / sizes, sizes / n, ends)


def _gaussian(points: Points) -> Fit:
    mean = points.mean(points.x)
    std = math.sqrt(points.mean((points.x - mean) ** 2))
    likelihood = -0.5 * math.log(2 * math.pi * math.e * std * std)
    return Fit(likelihood, 2, lambda origin, unit: Gaussian(origin + unit * mean, unit * std))


def _laplace(points: Points) -> Fit:
    mean = points.median
    b = points.mean(np.abs(points.x - mean))
    return Fit(-math.log(2 * b) - 1, 2, lambda origin, unit: Laplace(origin + unit * mean, unit * math.sqrt(2) * b))


def _uniform(points: Points) -> Fit:
    low, high = float(points.x[0]), float(points.x[-1])
    return Fit(-math.log(high - low), 2, lambda origin, unit: Uniform.from_bounds(*points.ends))


def _logistic(points: Points) -> Fit:
    mean, scale = points.median, points.mean(np.abs(points.x - points.median)) / (2 * math.log(2))
    for _ in range(200):
        d = (points.x - mean) / scale
        half = np.tanh(0.5 * d)
        # Stationarity: E[tanh(d / 2)] = 0 and E[d tanh(d / 2)] = 1.
        weight = np.where(np.abs(d) > 1e-6, half / np.where(d == 0, 1.0, d), 0.5)
        step = scale * points.mean(half) / points.mean(weight)
        factor = points.mean(d * half) ** 0.7
        mean, scale = mean + step, scale * factor
        if abs(step) < 1e-10 * scale and abs(factor - 1) < 1e-10:
            break
    d = np.abs(points.x - mean) / scale
    likelihood = -points.mean(d + 2 * np.log1p(np.exp(-d))) - math.log(scale)
    std = scale * math.pi / math.sqrt(3)
    return Fit(likelihood, 2, lambda origin, unit: Logistic(origin + unit * mean, unit * std))


def _student_t(points: Points) -> Fit:
    start = [points.median, 1.5 * points.mean(np.abs(points.x - points.median))]
    # Where most values are the same one the likelihood grows without bound as the scale shrinks to it.
    least = 1e-4 * math.sqrt(points.mean((points.x - points.mean(points.x)) ** 2))

    def profile(log_df: float) -> tuple[float, float, float]:
        df = math.exp(log_df)
        mean, scale = start
        for _ in range(300):
            # Parameter-expanded EM (Liu, Rubin, Wu 1998): dividing by the mean weight makes it fast.
            weight = (df + 1) / (df + ((points.x - mean) / scale) ** 2)
            total = points.mean(weight)
            moved = points.mean(weight * points.x) / total
            spread = max(least, math.sqrt(points.mean(weight * (points.x - moved) ** 2) / total))
            done = abs(moved - mean) < 1e-9 * spread and abs(spread - scale) < 1e-9 * spread
            mean, scale = moved, spread
            if done:
                break
        start[:] = mean, scale
        constant = math.lgamma((df + 1) / 2) - math.lgamma(df / 2) - 0.5 * math.log(df * math.pi) - math.log(scale)
        tail = points.mean(np.log1p(((points.x - mean) / scale) ** 2 / df))
        return constant - 0.5 * (df + 1) * tail, mean, scale

    shape, (likelihood, mean, scale) = _golden(profile, math.log(_DF[0]), math.log(_DF[1]))
    df = math.exp(shape)
    std = scale * math.sqrt(df / (df - 2))
    return Fit(likelihood, 3, lambda origin, unit: StudentT(df, origin + unit * mean, unit * std))


def _generalized_gaussian(points: Points) -> Fit:
    start = [points.median]

    def profile(log_beta: float) -> tuple[float, float, float]:
        beta = math.exp(log_beta)
        mean = _centre(points, beta, start[0])
        start[0] = mean
        distance = np.abs(points.x - mean)
        largest = float(distance.max())
        alpha = largest * (beta * points.mean((distance / largest) ** beta)) ** (1 / beta)
        constant = math.log(beta / (2 * alpha)) - math.lgamma(1 / beta)
        return constant - 1 / beta, mean, alpha

    shape, (likelihood, mean, alpha) = _golden(profile, math.log(_BETA[0]), math.log(_BETA[1]))
    beta = math.exp(shape)
    std = alpha * math.exp(0.5 * (math.lgamma(3 / beta) - math.lgamma(1 / beta)))
    return Fit(likelihood, 3, lambda origin, unit: GeneralizedGaussian(beta, origin + unit * mean, unit * std))


def _centre(points: Points, beta: float, start: float) -> float:
    """The point of least E|x - c|^beta: the median up to beta 1 (where it may stick to single values), else Newton."""
    if beta <= 1:
        return points.median
    low, high, centre = float(points.x[0]), float(points.x[-1]), start
    for _ in range(60):
        d = points.x - centre
        size = np.maximum(np.abs(d), 1e-12 * (high - low + 1e-300))
        slope = points.mean(np.copysign(size ** (beta - 1), d))
        low, high = (centre, high) if slope > 0 else (low, centre)
        moved = centre + slope / ((beta - 1) * points.mean(size ** (beta - 2)))
        if not low < moved < high:
            moved = 0.5 * (low + high)
        if abs(moved - centre) < 1e-10 * (points.x[-1] - points.x[0]):
            return moved
        centre = moved
    return centre


def _golden(
    profile: Callable[[float], tuple[float, float, float]], low: float, high: float
) -> tuple[float, tuple[float, float, float]]:
    """Largest profile likelihood between two log-shapes: a coarse scan, then golden sections to 1e-5."""
    grid = np.linspace(low, high, 9)
    best = max(range(9), key=lambda i: profile(float(grid[i]))[0])
    a, b = float(grid[max(best - 1, 0)]), float(grid[min(best + 1, 8)])
    ratio = 0.5 * (math.sqrt(5) - 1)
    left, right = b - ratio * (b - a), a + ratio * (b - a)
    at_left, at_right = profile(left), profile(right)
    while b - a > 1e-5:
        if at_left[0] >= at_right[0]:
            b, right, at_right = right, left, at_left
            left = b - ratio * (b - a)
            at_left = profile(left)
        else:
            a, left, at_left = left, right, at_right
            right = a + ratio * (b - a)
            at_right = profile(right)
    ends = [(end, profile(end)) for end in (low, high) if abs(end - a) < 1e-4 or abs(end - b) < 1e-4]
    return max([(left, at_left), (right, at_right), *ends], key=lambda pair: pair[1][0])


def _zero_share(values: Array, counts: Array | None) -> float:
    """Share of exact zeros where nothing is negative, else 0."""
    if values[0] != 0:
        return 0.0
    zero = values == 0
    return float(np.count_nonzero(zero) / values.size if counts is None else counts[zero].sum() / counts.sum())


def _rectified_gaussian(values: Array, counts: Array | None, zeros: float) -> Density:
    """Largest censored likelihood: P(Y <= 0)^zeros and the normal density of the positive values."""
    if zeros == 0:
        what = f"the smallest value {float(values[0])!r}" if values[0] < 0 else "no value that is exactly 0"
        raise ValueError(f"x must be >= 0 with some exact zeros for 'rectified-gaussian', got {what}")
    unit = 2.0 ** math.frexp(float(values[-1]))[1]
    y, weights = values[values > 0] / unit, None if counts is None else counts[values > 0]
    first, second = float(np.average(y, weights=weights)), float(np.average(y * y, weights=weights))
    # Concave in (1 / std, mean / std) (Olsen 1978); Newton from the mass at 0 and the mean of the rest.
    ratio = -float(ndtri(zeros))
    inverse = 1.0 / math.sqrt(second)
    for _ in range(200):
        hazard = math.exp(-0.5 * ratio * ratio - float(log_ndtr(-ratio))) / math.sqrt(2 * math.pi)
        gradient = np.array([(1 - zeros) * (inverse * first - ratio) - zeros * hazard, 0.0])
        gradient[1] = (1 - zeros) * (1 / inverse - inverse * second + ratio * first)
        curvature = np.array([[-(1 - zeros) - zeros * hazard * (hazard - ratio), (1 - zeros) * first], [0.0, 0.0]])
        curvature[1] = (1 - zeros) * first, -(1 - zeros) * (1 / inverse**2 + second)
        step = -np.linalg.solve(curvature, gradient)
        damping = min(1.0, 0.5 * inverse / abs(step[1])) if step[1] else 1.0
        ratio, inverse = ratio + damping * float(step[0]), inverse + damping * float(step[1])
        if abs(step[0]) < 1e-12 * (1 + abs(ratio)) and abs(step[1]) < 1e-12 * inverse:
            break
    return Rectified(Gaussian(unit * ratio / inverse, unit / inverse))


_FAMILIES: dict[str, Callable[[Points], Fit]] = {
    "gaussian": _gaussian,
    "laplace": _laplace,
    "uniform": _uniform,
    "logistic": _logistic,
    "student-t": _student_t,
    "generalized-gaussian": _generalized_gaussian,
}
