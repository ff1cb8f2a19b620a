"""Symmetric families in terms of mean and standard deviation: Gaussian, Laplace, and their relatives.

Each is stated once, at mean 0 and standard deviation 1, as a function of t = |x - mean| / std on the half-line.
"""

from __future__ import annotations

import abc
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import ndtr, ndtri

from .base import Array, Density

_SQRT_2PI = float(np.sqrt(2 * np.pi))
_SQRT_2 = float(np.sqrt(2.0))


class LocationScale(Density):
    """A symmetric density given by its standard form on the half-line t >= 0."""

    family: str
    # Panel edges at unit standard deviation, t >= 0, ascending.
    unit_panels: Array

    def __init__(self, mean: ArrayLike = 0.0, std: ArrayLike = 1.0) -> None:
        self._mean, self._std = np.asarray(mean, np.float64), np.asarray(std, np.float64)
        if not np.isfinite(self._mean).all():
            raise ValueError(f"mean must be finite, got {mean!r}")
        if not (np.isfinite(self._std) & (self._std > 0)).all():
            raise ValueError(f"std must be positive and finite, got {std!r}")
        self.shape = np.broadcast_shapes(self._mean.shape, self._std.shape)

    @property
    def mean(self) -> Any:
        return np.broadcast_to(self._mean, self.shape)[()]

    @property
    def std(self) -> Any:
        return np.broadcast_to(self._std, self.shape)[()]

    def _shape_parameters(self) -> dict[str, Any]:
        return {}

    @property
    def name(self) -> str:
        values = {**self._shape_parameters(), "mean": self.mean, "std": self.std}
        defaults = {"mean": 0.0, "std": 1.0}
        said = ",".join(f"{k}={np.asarray(v).tolist()!r}" for k, v in values.items() if np.any(v != defaults.get(k)))
        return f"{self.family}:{said}" if said else self.family

    def take(self, index: NDArray[np.intp]) -> Self:
        if self.shape == ():
            return self
        new = object.__new__(type(self))
        new.__dict__.update(self.__dict__)
        new._mean, new._std = (np.broadcast_to(a, self.shape).ravel()[index] for a in (self._mean, self._std))
        new.shape = index.shape
        return new

    # Standard form, t >= 0.
    @abc.abstractmethod
    def _pdf(self, t: Array) -> Array: ...

    @abc.abstractmethod
    def _sf(self, t: Array) -> Array: ...

    @abc.abstractmethod
    def _first(self, t: Array) -> Array:
        """E[X; X > t]."""

    @abc.abstractmethod
    def _isf(self, p: Array) -> Array:
        """Inverse of `_sf` for 0 < p <= 1/2."""

    @abc.abstractmethod
    def _decay(self, t: Array) -> Array: ...

    def _standard(self, x: ArrayLike) -> Array:
        return (np.asarray(x, np.float64) - self._mean) / self._std

    def pdf(self, x: ArrayLike) -> Array:
        return self._pdf(np.abs(self._standard(x))) / self._std

    def panels(self) -> Array:
        unit = np.concatenate([-self.unit_panels[:0:-1], self.unit_panels])
        return np.asarray(self.mean)[..., None] + np.asarray(self.std)[..., None] * unit

    def decay_length(self, x: Array, sign: Array) -> Array:
        return self._std * self._decay(np.abs(self._standard(x)))

    def tails(self, t: Array) -> tuple[Array, Array]:
        mean, std = np.asarray(self.mean)[..., None], np.asarray(self.std)[..., None]
        u = (t - mean) / std
        side = np.abs(u)
        return np.copysign(self._sf(side), u), std * self._first(side)

    def cdf(self, x: ArrayLike) -> Array:
        u = self._standard(x)
        tail = self._sf(np.abs(u))
        return np.where(u < 0, tail, 1.0 - tail)[()]

    def sf(self, x: ArrayLike) -> Array:
        return self.cdf(2 * self._mean - np.asarray(x, np.float64))

    def quantile(self, p: ArrayLike) -> Array:
        p = np.asarray(p, np.float64)
        side = self._isf(np.minimum(p, 1.0 - p))
        return (self._mean + self._std * np.where(p < 0.5, -side, side))[()]

    def isf(self, p: ArrayLike) -> Array:
        return 2 * self._mean - self.quantile(p)


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
    unit_panels = np.array([0.0, 1.0, 2.0, 3.0, 4.5])

    def _pdf(self, t: Array) -> Array:
        return np.exp(-0.5 * t * t) / _SQRT_2PI

    def _sf(self, t: Array) -> Array:
        return ndtr(-t)

    def _first(self, t: Array) -> Array:
        return self._pdf(t)

    def _isf(self, p: Array) -> Array:
        return -ndtri(p)

    def _decay(self, t: Array) -> Array:
        return 1.0 / np.maximum(t, 1.0)

    def sample(self, size: Any, rng: int | np.random.Generator | None = None) -> Array:
        size = (size,) if isinstance(size, int | np.integer) else tuple(size)
        return self._mean + self._std * np.random.default_rng(rng).standard_normal((*size, *self.shape))


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
    unit_panels = np.array([0.0, 1.0, 3.0, 6.0])

    def _pdf(self, t: Array) -> Array:
        return np.exp(-_SQRT_2 * t) / _SQRT_2

    def _sf(self, t: Array) -> Array:
        return 0.5 * np.exp(-_SQRT_2 * t)

    def _first(self, t: Array) -> Array:
        return 0.5 * (t + 1 / _SQRT_2) * np.exp(-_SQRT_2 * t)

    def _isf(self, p: Array) -> Array:
        return -np.log(2 * p) / _SQRT_2

    def _decay(self, t: Array) -> Array:
        return np.full_like(t, 1 / _SQRT_2)
