"""A density known by its pdf alone, integrated on panels that were found for it."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike

from .._types import Array
from .base import Density
from .location_scale import unwrap
from .panels import Cumulative, InverseCdf, coarsen, resolve

# Accuracy that is promised for these densities; what is worse is said in `status`.
PROMISED = 1e-8
_RELATIVE, _ABSOLUTE, _FLOOR = 1e-10, 1e-14, 1e-25


class Numeric(Density):
    """A density known by its pdf, integrated on panels of its own.

    Attributes
    ----------
    quadrature_error : float
        Estimate of the absolute error of probabilities (of moments, in units of std and its square).
    """

    # Panels reach to 1e-18 of the mass and the variance; beyond, a power law needs many doublings.
    tail_doublings = 40
    _inverse: InverseCdf | None = None

    def __init__(
        self, pdf: Callable[[Array], Array], edges: Array, error: float, support: tuple[float, float], kinks: Array
    ) -> None:
        self._pdf, self._support, self._kinks = pdf, support, kinks
        edges = coarsen(pdf, edges, kinks, relative=_RELATIVE, absolute=_ABSOLUTE)
        self._whole = Cumulative(pdf, edges)
        self._mean, self._std = self._whole.mean, self._whole.std
        self._inner = Cumulative(pdf, _trimmed(self._whole, support))
        first, last = self._inner.edges[[0, -1]]
        self._beyond = self.moments([-np.inf, last], [first, np.inf], self._mean)[:2]
        self.quadrature_error = error + abs(self._whole.total - 1.0)
        # (Measured: four units of the estimate, and 70 roundings where there is next to none.)
        self.tails_error = 8 * self.quadrature_error + 128 * np.finfo(np.float64).eps
        self._report()

    def _report(self) -> None:
        if not self.quadrature_error <= PROMISED:
            self.status = f"quadrature of {self.name} reached {self.quadrature_error:.1e}, not {PROMISED:.0e}"

    @property
    def mean(self) -> float:
        return self._mean

    @property
    def std(self) -> float:
        return self._std

    @property
    def support(self) -> tuple[float, float]:
        return self._support

    @property
    def end_shares(self) -> Array:
        """Shares of the variance in the first and last panel searched."""
        return np.asarray(self._whole.shares[[0, -1]])

    @property
    def kinks(self) -> Array:
        """Jumps of the pdf: as given, and the ends of the support."""
        return self._kinks

    def panels(self) -> Array:
        """The edges that were found."""
        return self._inner.edges

    def pdf(self, x: ArrayLike) -> Array:
        """The function given, 0 outside of the support."""
        x = np.asarray(x, np.float64)
        inside = (x >= self._support[0]) & (x <= self._support[1])
        flat = np.zeros(x.size)
        flat[inside.ravel()] = self._pdf(x[inside])
        return unwrap(flat.reshape(x.shape))

    def cell_moments(self, edges: Array, about: Array, origin: ArrayLike = 0.0, last: Array | None = None) -> Array:
        """Moments in absolute coordinates: next to a pole, panels are narrower than any origin resolves."""
        shift = np.asarray(origin, np.float64)[..., None]
        return super().cell_moments(edges + shift, about + shift, 0.0, last)

    def decay_length(self, x: Array, sign: Array) -> Array:
        """From the pdf a little further out; on a power law it grows with the distance."""
        distance = self._std + np.abs(x - self._mean)
        step = 1e-3 * distance
        with np.errstate(divide="ignore", invalid="ignore"):
            length = step / np.log(self.pdf(x) / self.pdf(x + sign * step))
        return np.where(length > 0, np.clip(length, 1e-3 * self._std, distance), self._std)

    def cdf(self, x: ArrayLike) -> Array:
        return unwrap(self._side(np.asarray(x, np.float64), upper=False)[0])

    def sf(self, x: ArrayLike) -> Array:
        return unwrap(self._side(np.asarray(x, np.float64), upper=True)[0])

    def tails(self, t: Array) -> tuple[Array, Array]:
        upper = t >= self._mean
        out = np.where(upper, self._side(t, upper=True), -self._side(t, upper=False))
        return out[0], np.maximum(out[1], 0.0)

    def _side(self, x: Array, *, upper: bool) -> Array:
        """Mass and first moment about the mean above or below x: the panels, and the tails beyond them."""
        first, last = self._inner.edges[0], self._inner.edges[-1]
        inside = np.clip(x, first, last)
        out = self._inner.above(inside) if upper else self._inner.below(inside)
        out = out + self._beyond[:, int(upper)].reshape(2, *(1,) * x.ndim)
        outside = (x < first) | (x > last)
        if outside.any():
            far = x[outside]
            lower, higher = (far, np.inf) if upper else (-np.inf, far)
            out[:, outside] = self.moments(lower, higher, self._mean)[:2]
        return out

    def _draw(self, generator: np.random.Generator, size: tuple[int, ...]) -> Array:
        # By the inverse of the cdf (1e-18 of the mass lies beyond the values possible).
        if self._inverse is None:
            self._inverse = InverseCdf(self._pdf, self._inner.edges)
        return self._inverse(generator.random(size))


def find_panels(pdf: Callable[[Array], Array], edges: Array) -> tuple[Array, float]:
    """`resolve` to the accuracy of these densities."""
    return resolve(pdf, edges, relative=_RELATIVE, absolute=_ABSOLUTE, floor=_FLOOR, depth=60, limit=20000)


def inside_support(pdf: Callable[[Array], Array], support: tuple[float, float]) -> Callable[[Array], Array]:
    """The function, asked next to the ends of the support instead of on them: it may have poles there."""
    low, high = support
    # 1e-290: next to an end at 0, subnormal numbers overflow inside some pdfs.
    low = low + max(np.spacing(abs(low)), 1e-290) if np.isfinite(low) else low
    high = high - max(np.spacing(abs(high)), 1e-290) if np.isfinite(high) else high

    def inside(x: Array) -> Array:
        # Far out and next to the ends, exp and powers may overflow on their way to 0.
        with np.errstate(all="ignore"):
            f = np.asarray(pdf(np.clip(x, low, high)), np.float64)
        undefined = np.isnan(f)
        if undefined.any() and f.shape == x.shape:
            f = np.where(undefined & ((x <= low) | (x >= high)), 0.0, f)
        return f

    return inside


def _trimmed(whole: Cumulative, support: tuple[float, float]) -> Array:
    """The edges without the panels of infinite tails that hold below 1e-18 of the mass and of the variance."""
    edges, shares = whole.edges, whole.shares
    lower = (whole.below(edges)[0] > 1e-18) | (np.append(0.0, np.cumsum(shares)) > 1e-18)
    upper = (whole.above(edges)[0] > 1e-18) | (np.append(np.cumsum(shares[::-1])[::-1], 0.0) > 1e-18)
    first = 0 if np.isfinite(support[0]) else max(int(np.argmax(lower)) - 1, 0)
    last = edges.size - 1 if np.isfinite(support[1]) else min(int(edges.size - np.argmax(upper[::-1])), edges.size - 1)
    return edges[first : last + 1]
