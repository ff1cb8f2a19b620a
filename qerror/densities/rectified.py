"""What a rectifier leaves of a density: the positive part, and a point mass at zero."""

from __future__ import annotations

from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .._types import Array, Values
from . import quadrature
from .base import Density
from .location_scale import unwrap


class Rectified(Density):
    """The larger of 0 and a density: what a rectifier makes of it.

    X = max(Y, 0): a point mass P(Y <= 0) at 0, and the pdf of Y above 0.

    Parameters
    ----------
    base : Density
        Distribution of Y; without point masses, of any shape.

    Raises
    ------
    ValueError
        If `base` has point masses.

    Examples
    --------
    >>> import qerror as qe
    >>> relu = qe.Rectified(qe.Gaussian())
    >>> float(relu.cdf(0.0)), round(float(relu.mean), 6)
    (0.5, 0.398942)
    """

    def __init__(self, base: Density) -> None:
        if not isinstance(base, Density):
            raise ValueError(f"base must be a density, got {base!r}; qerror.density(name) makes one")
        if base.has_atoms:
            remedy = "for data use Empirical(numpy.maximum(x, 0))"
            raise ValueError(f"base must not have point masses, got {base!r}; {remedy}")
        self._complete(base)

    def _complete(self, base: Density) -> None:
        self.base, self.shape, self.status = base, base.shape, base.status
        self.tail_doublings, self.power_law = base.tail_doublings, base.power_law
        self.tails_error = base.tails_error
        zero = np.zeros(self.shape)
        self._mean = base.moments(zero, np.inf, zero)[1]
        second = base.moments(zero, np.inf, self._mean)[2]
        self._zero = np.asarray(base.cdf(zero))
        self._std = np.sqrt(second + self._zero * np.square(self._mean))

    @property
    def name(self) -> str:
        return f"rectified({self.base.name})"

    @property
    def mean(self) -> Values:
        return unwrap(self._mean)

    @property
    def std(self) -> Values:
        return unwrap(self._std)

    @property
    def support(self) -> tuple[Any, Any]:
        """The support of the base above 0."""
        lower, upper = self.base.support
        return unwrap(np.maximum(lower, 0.0)), unwrap(np.maximum(upper, 0.0))

    def pdf(self, x: ArrayLike) -> Array:
        """Density of the base for x > 0, else 0."""
        return unwrap(np.where(np.asarray(x) > 0, self.base.pdf(x), 0.0))

    def pdf_from(self, origin: ArrayLike, offset: ArrayLike) -> Array:
        """Density of the base for origin + offset > 0, else 0."""
        positive = np.asarray(offset) > -np.asarray(origin)
        return unwrap(np.where(positive, self.base.pdf_from(origin, offset), 0.0))

    def panels(self) -> Array:
        """0 and the panels of the base above it."""
        return np.concatenate([np.zeros((*self.shape, 1)), np.maximum(self.base.panels(), 0.0)], axis=-1)

    def decay_length(self, x: Array, sign: Array) -> Array:
        return self.base.decay_length(x, sign)

    def far_moments(self, x: Array, about: Array, sign: Array) -> Array:
        """That of the base above, nothing below."""
        return np.where(sign > 0, self.base.far_moments(x, about, sign), 0.0)

    @property
    def kinks(self) -> Array:
        """0, where the pdf begins, and those of the base above it."""
        return np.concatenate([np.zeros((*self.shape, 1)), np.maximum(self.base.kinks, 0.0)], axis=-1)

    @property
    def has_atoms(self) -> bool:
        """True: the point mass at 0."""
        return True

    @property
    def atoms(self) -> tuple[Array, Array]:
        """The point mass P(Y <= 0) at 0."""
        return np.zeros((*self.shape, 1)), self._zero[..., None]

    def cell_moments(self, edges: Array, about: Array, origin: ArrayLike = 0.0, last: Array | None = None) -> Array:
        """Moments of the base over what of each cell is above 0, and the point mass."""
        start = np.asarray(origin, np.float64)
        above = np.maximum(edges, -start[..., None])
        out = self.base.cell_moments(above, about, start)
        return out + quadrature.atom_moments(self, edges, about, start, last)

    def tails(self, t: Array) -> tuple[Array, Array]:
        mean, base_mean = np.asarray(self.mean)[..., None], np.asarray(self.base.mean)[..., None]
        point = np.maximum(t, 0.0)
        signed, moment = self.base.tails(point)
        upper = point >= base_mean
        above, below = np.where(upper, signed, 1.0 + signed), np.where(upper, signed - 1.0, signed)
        mass = np.where(t >= mean, above, np.where(t < 0.0, -0.0, below))
        return mass, np.where(t < 0.0, 0.0, np.maximum(moment + (base_mean - mean) * above, 0.0))

    def cdf(self, x: ArrayLike) -> Array:
        return unwrap(np.where(np.asarray(x) >= 0, self.base.cdf(x), 0.0))

    def sf(self, x: ArrayLike) -> Array:
        return unwrap(np.where(np.asarray(x) >= 0, self.base.sf(x), 1.0))

    def quantile(self, p: ArrayLike) -> Array:
        return unwrap(np.maximum(self.base.quantile(p), 0.0))

    def isf(self, p: ArrayLike) -> Array:
        return unwrap(np.maximum(self.base.isf(p), 0.0))

    def _draw(self, generator: np.random.Generator, size: tuple[int, ...]) -> Array:
        return np.maximum(self.base._draw(generator, size), 0.0)

    def take(self, index: NDArray[np.intp]) -> Self:
        if self.shape == ():
            return self
        new = object.__new__(type(self))
        new.base = self.base.take(index)
        new.__dict__.update(shape=new.base.shape, status=self.status)
        new.__dict__.update(tail_doublings=self.tail_doublings, power_law=self.power_law)
        new.tails_error = self.tails_error
        new._mean, new._std, new._zero = (a.ravel()[index] for a in (self._mean, self._std, self._zero))
        return new
