"""The symmetric families: Gaussian, Laplace, Logistic, Uniform, Student's t, generalized Gaussian.

All are parametrized by mean and standard deviation, so that they are comparable at unit variance.
"""

from __future__ import annotations

import math
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import ndtr, ndtri

from .._check import as_float_array
from .._types import Array
from .inversion import probability
from .location_scale import LocationScale, unwrap

_SQRT_2PI = math.sqrt(2 * math.pi)
_SQRT_2 = math.sqrt(2.0)
_SQRT_3 = math.sqrt(3.0)
# Inverse scale of the logistic distribution of unit variance.
_LOGISTIC = math.pi / _SQRT_3


class Gaussian(LocationScale):
    """Normal distribution N(mean, std^2).

    f(x) = exp(-t^2 / 2) / (std sqrt(2 pi)), t = (x - mean) / std.

    Parameters
    ----------
    mean, std : array_like
        Units of x; they broadcast to `shape`.

    Examples
    --------
    >>> import qerror as qe
    >>> float(qe.Gaussian().sf(0.0))
    0.5
    """

    family = "gaussian"
    unit_panels = np.array([0.0, 2.0, 4.0])
    _entropy = 0.5 * math.log(2 * math.pi * math.e)

    def _pdf(self, t: Array) -> Array:
        f = np.asarray(t * t)
        f *= -0.5
        np.exp(f, out=f)
        f /= _SQRT_2PI
        return f

    def _sf(self, t: Array) -> Array:
        return np.asarray(ndtr(-t))

    def _first(self, t: Array) -> Array:
        return self._pdf(t)

    def _isf(self, p: Array) -> Array:
        return np.asarray(-ndtri(p))

    def _decay(self, t: Array) -> Array:
        return 1.0 / np.maximum(t, 1.0)

    def _draw_unit(self, generator: np.random.Generator, size: tuple[int, ...]) -> Array:
        return generator.standard_normal(size)


class Laplace(LocationScale):
    """Laplace (double exponential) distribution; its scale b is std / sqrt(2).

    f(x) = exp(-|x - mean| / b) / (2 b).

    Parameters
    ----------
    mean, std : array_like
        Units of x; they broadcast to `shape`.

    Examples
    --------
    >>> import qerror as qe
    >>> float(qe.Laplace().sf(0.0))
    0.5
    """

    family = "laplace"
    in_other_terms = " (sqrt(2) b of a Laplace scale b)"
    unit_panels = np.array([0.0, 4.0])
    _entropy = 1.0 + 0.5 * math.log(2.0)

    def _pdf(self, t: Array) -> Array:
        return np.exp(-_SQRT_2 * t) / _SQRT_2

    def _sf(self, t: Array) -> Array:
        return 0.5 * np.exp(-_SQRT_2 * t)

    def _first(self, t: Array) -> Array:
        return self._sf_and_first(t)[1]

    def _sf_and_first(self, t: Array) -> tuple[Array, Array]:
        mass = self._sf(t)
        return mass, mass * (np.where(mass > 0, t, 0.0) + 1 / _SQRT_2)

    def _isf(self, p: Array) -> Array:
        return -np.log(2 * p) / _SQRT_2

    def _decay(self, t: Array) -> Array:
        return np.full_like(t, 1 / _SQRT_2)

    def _draw_unit(self, generator: np.random.Generator, size: tuple[int, ...]) -> Array:
        return generator.laplace(0.0, 1 / _SQRT_2, size)


class Logistic(LocationScale):
    """Logistic distribution; its scale is std sqrt(3) / pi.

    f(x) = k exp(-k t) / (std (1 + exp(-k t))^2), t = |x - mean| / std, k = pi / sqrt(3).

    Parameters
    ----------
    mean, std : array_like
        Units of x; they broadcast to `shape`.

    Examples
    --------
    >>> import qerror as qe
    >>> float(qe.Logistic(mean=1.0).quantile(0.5))
    1.0
    """

    family = "logistic"
    in_other_terms = " (pi / sqrt(3) s of a logistic scale s)"
    unit_panels = np.array([0.0, 1.0, 2.0, 3.5, 5.5])
    _entropy = 2.0 - math.log(_LOGISTIC)

    def _pdf(self, t: Array) -> Array:
        e = np.exp(-_LOGISTIC * t)
        return _LOGISTIC * e / (1.0 + e) ** 2

    def _sf(self, t: Array) -> Array:
        e = np.exp(-_LOGISTIC * t)
        return e / (1.0 + e)

    def _first(self, t: Array) -> Array:
        return self._sf_and_first(t)[1]

    def _sf_and_first(self, t: Array) -> tuple[Array, Array]:
        e = np.exp(-_LOGISTIC * t)
        mass = e / (1.0 + e)
        # Beyond 1e3 nothing is left, whatever t is (infinity above all).
        return mass, mass * np.minimum(t, 1e3) + np.log1p(e) / _LOGISTIC

    def _isf(self, p: Array) -> Array:
        return (np.log1p(-p) - np.log(p)) / _LOGISTIC

    def _decay(self, t: Array) -> Array:
        return np.full_like(t, 1 / _LOGISTIC)

    def _draw_unit(self, generator: np.random.Generator, size: tuple[int, ...]) -> Array:
        return generator.logistic(0.0, 1 / _LOGISTIC, size)


class Uniform(LocationScale):
    """Uniform distribution on mean +- sqrt(3) std; `Uniform.from_bounds(a, b)` states the ends.

    f(x) = 1 / (b - a) for a <= x <= b.

    Parameters
    ----------
    mean, std : array_like
        Units of x; they broadcast to `shape`.

    Examples
    --------
    >>> import qerror as qe
    >>> qe.Uniform.from_bounds(-1.0, 3.0).moments(0.0, 3.0, 0.0).round(12).tolist()
    [0.75, 1.125, 2.25]
    """

    family = "uniform"
    in_other_terms = " (qerror.Uniform.from_bounds(a, b) takes the ends)"
    unit_panels = np.array([0.0, _SQRT_3])
    _entropy = math.log(2.0 * _SQRT_3)
    nodes = 2
    _members = ("_mean", "_std", "_lower", "_upper")

    def __init__(self, mean: ArrayLike = 0.0, std: ArrayLike = 1.0) -> None:
        super().__init__(mean, std)
        self._lower, self._upper = self._mean - _SQRT_3 * self._std, self._mean + _SQRT_3 * self._std
        self._by_bounds = False

    @classmethod
    def from_bounds(cls, a: ArrayLike, b: ArrayLike) -> Self:
        """Uniform on a <= x <= b, whose ends are kept to the last bit.

        Parameters
        ----------
        a, b : array_like
            Ends, units of x, a < b; they broadcast to `shape`.

        Examples
        --------
        >>> import qerror as qe
        >>> float(qe.Uniform.from_bounds(0, 1).quantile(0.25))
        0.25
        """
        lower, upper = np.array(as_float_array("a", a)), np.array(as_float_array("b", b))
        if not (np.isfinite(lower) & np.isfinite(upper) & (lower < upper)).all():
            raise ValueError(f"a and b must be finite with a < b, got a={a!r}, b={b!r}")
        new = cls(0.5 * lower + 0.5 * upper, (upper - lower) / (2 * _SQRT_3))
        new._lower, new._upper, new._by_bounds = lower, upper, True
        return new

    def _parameters(self) -> dict[str, Any]:
        if not self._by_bounds:
            return super()._parameters()
        lower, upper = self.support
        return {"a": lower, "b": upper}

    @property
    def support(self) -> tuple[Any, Any]:
        """The ends (a, b)."""
        if self.shape == ():
            return self._lower[()], self._upper[()]
        lower, upper = (np.broadcast_to(end, self.shape) for end in (self._lower, self._upper))
        return lower, upper

    @property
    def entropy(self) -> Any:
        """log2(b - a) bits."""
        return unwrap(np.log2(np.broadcast_to(self._upper - self._lower, self.shape)))

    @property
    def kinks(self) -> Array:
        """Both ends, where the pdf jumps."""
        return np.array(self.support) if self.shape == () else np.stack(self.support, axis=-1)

    def panels(self) -> Array:
        """One panel: the support."""
        return self.kinks

    def pdf(self, x: ArrayLike) -> Array:
        """1 / (b - a) inside, 0 outside."""
        x = np.asarray(x, np.float64)
        return unwrap(np.where((x >= self._lower) & (x <= self._upper), 1.0 / (self._upper - self._lower), 0.0))

    def pdf_from(self, origin: ArrayLike, offset: ArrayLike) -> Array:
        """1 / (b - a) inside, 0 outside."""
        return self.pdf(np.asarray(origin, np.float64) + np.asarray(offset, np.float64))

    def cdf(self, x: ArrayLike) -> Array:
        x = np.clip(np.asarray(x, np.float64), self._lower, self._upper)
        return unwrap((x - self._lower) / (self._upper - self._lower))

    def sf(self, x: ArrayLike) -> Array:
        x = np.clip(np.asarray(x, np.float64), self._lower, self._upper)
        return unwrap((self._upper - x) / (self._upper - self._lower))

    def quantile(self, p: ArrayLike) -> Array:
        p = probability(p)
        width = self._upper - self._lower
        return unwrap(np.where(p < 0.5, self._lower + p * width, self._upper - (1.0 - p) * width))

    def isf(self, p: ArrayLike) -> Array:
        p = probability(p)
        width = self._upper - self._lower
        return unwrap(np.where(p < 0.5, self._upper - p * width, self._lower + (1.0 - p) * width))

    def _pdf(self, t: Array) -> Array:
        return np.where(t <= _SQRT_3, 0.5 / _SQRT_3, 0.0)

    def _sf(self, t: Array) -> Array:
        return np.maximum(_SQRT_3 - t, 0.0) * (0.5 / _SQRT_3)

    def _first(self, t: Array) -> Array:
        return np.maximum(_SQRT_3 - t, 0.0) * (_SQRT_3 + t) * (0.25 / _SQRT_3)

    def _isf(self, p: Array) -> Array:
        return (1.0 - 2.0 * p) * _SQRT_3

    def _decay(self, t: Array) -> Array:
        return np.ones_like(t)

    def _draw_unit(self, generator: np.random.Generator, size: tuple[int, ...]) -> Array:
        return generator.uniform(-_SQRT_3, _SQRT_3, size)
