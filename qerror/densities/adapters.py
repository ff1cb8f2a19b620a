"""Densities from a pdf alone, and from the distributions of scipy.stats.

A density needs only its pdf: panels are found by halving until two quadrature rules agree, and what they still
disagree by is reported.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .._check import as_rng
from .base import Array, Density
from .location_scale import unwrap
from .panels import Cumulative, coarsen, resolve

__all__ = ["from_pdf", "from_scipy"]

# Accuracy that is promised for these densities; what is worse is said in `status`.
_PROMISED = 1e-8
_RELATIVE, _ABSOLUTE, _FLOOR = 1e-10, 1e-14, 1e-25


class _Numeric(Density):
    """A density known by its pdf, integrated on panels of its own.

    Attributes
    ----------
    quadrature_error : float
        Estimate of the absolute error of probabilities (of moments, in units of std and its square).
    """

    # Panels reach to 1e-18 of the mass and the variance; beyond, a power law needs many doublings.
    tail_doublings = 40

    def __init__(
        self, pdf: Callable[[Array], Array], edges: Array, error: float, support: tuple[float, float], kinks: Array
    ) -> None:
        self._pdf, self._support, self._kinks = pdf, support, kinks
        edges = coarsen(pdf, edges, kinks, relative=_RELATIVE, absolute=_ABSOLUTE)
        whole = Cumulative(pdf, edges)
        self._check_variance(whole, support)
        self._inner = Cumulative(pdf, _trimmed(whole))
        self._mean, self._std = whole.mean, whole.std
        first, last = self._inner.edges[[0, -1]]
        self._beyond = self.moments([-np.inf, last], [first, np.inf], self._mean)[:2]
        self.quadrature_error = error + abs(whole.total - 1.0)
        if not self.quadrature_error <= _PROMISED:
            self.status = f"quadrature of {self.name} reached {self.quadrature_error:.1e}, not {_PROMISED:.0e}"

    @staticmethod
    def _check_variance(whole: Cumulative, support: tuple[float, float]) -> None:
        ends = [share for share, end in zip(whole.shares[[0, -1]], support, strict=True) if not np.isfinite(end)]
        if not np.isfinite(whole.std) or whole.std == 0 or max(ends, default=0.0) > 1e-12:
            raise ValueError("pdf must have a finite variance: its second moment still grows at the end of the panels")

    @property
    def mean(self) -> float:
        """Expectation, units of x."""
        return self._mean

    @property
    def std(self) -> float:
        """Standard deviation, units of x."""
        return self._std

    @property
    def support(self) -> tuple[float, float]:
        """As given."""
        return self._support

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

    def cdf(self, x: ArrayLike) -> Array:
        """P(X <= x)."""
        return unwrap(self._side(np.asarray(x, np.float64), upper=False)[0])

    def sf(self, x: ArrayLike) -> Array:
        """P(X > x), accurate in the upper tail."""
        return unwrap(self._side(np.asarray(x, np.float64), upper=True)[0])

    def tails(self, t: Array) -> tuple[Array, Array]:
        """Signed mass and first moment beyond `t`; see `Density.tails`."""
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

    def take(self, index: NDArray[np.intp]) -> Self:
        """Itself: one density."""
        return self


class FromPdf(_Numeric):
    """A density given by a function; see `from_pdf`."""

    @property
    def name(self) -> str:
        """The name of the function; a label only."""
        return f"pdf:{self._label}"

    def __init__(
        self, label: str, pdf: Callable[[Array], Array], edges: Array, error: float, support: Any, kinks: Array
    ) -> None:
        self._label = label
        super().__init__(pdf, edges, error, support, kinks)


class FromScipy(_Numeric):
    """A frozen distribution of scipy.stats; see `from_scipy`."""

    def __init__(self, rv: Any, edges: Array, error: float, support: Any, kinks: Array) -> None:
        self._rv = rv
        super().__init__(rv.pdf, edges, error, support, kinks)

    @property
    def name(self) -> str:
        """Name and arguments of the distribution; a label only."""
        said = [repr(a) for a in self._rv.args] + [f"{k}={v!r}" for k, v in self._rv.kwds.items()]
        return f"scipy:{self._rv.dist.name}({', '.join(said)})"

    def cdf(self, x: ArrayLike) -> Array:
        """P(X <= x), by SciPy."""
        return unwrap(self._rv.cdf(x))

    def sf(self, x: ArrayLike) -> Array:
        """P(X > x), by SciPy."""
        return unwrap(self._rv.sf(x))

    def quantile(self, p: ArrayLike) -> Array:
        """The x with cdf(x) = p, by SciPy."""
        return unwrap(self._rv.ppf(p))

    def isf(self, p: ArrayLike) -> Array:
        """The x with sf(x) = p, by SciPy."""
        return unwrap(self._rv.isf(p))

    def sample(self, size: int | Sequence[int], rng: int | np.random.Generator | None = None) -> Array:
        """Draw independent values, by SciPy."""
        lead = (int(size),) if isinstance(size, int | np.integer) else tuple(size)
        return np.asarray(self._rv.rvs(size=lead, random_state=as_rng(rng)))


def from_pdf(
    pdf: Callable[[Array], Array], support: tuple[float, float], *, kinks: Sequence[float] = ()
) -> FromPdf:
    """A density from a vectorized function.

    Panels double away from 0 and are halved until Gauss-Legendre rules of 12 and 24 nodes agree to 1e-10.

    Parameters
    ----------
    pdf : callable
        Takes an array, returns the density there (1 / units of x), finite and >= 0, integrating to 1.
    support : tuple of float
        Ends, may be infinite.
    kinks : sequence of float
        Points where the pdf jumps or has a cusp (found without, but slower), or where a narrow peak stands.

    Returns
    -------
    Density
        With `quadrature_error`, and a `status` where that is above 1e-8.

    Raises
    ------
    ValueError
        If values are negative, NaN or infinite, if the integral is not 1 within 1e-8, if the variance is infinite.

    Examples
    --------
    >>> import numpy as np, qerror as qe
    >>> triangle = qe.from_pdf(lambda x: 1 - np.abs(x), (-1, 1), kinks=[0])
    >>> round(float(triangle.std) ** 2, 12)
    0.166666666667
    """
    low, high = _checked_support(support)
    points = np.unique(np.asarray(kinks, np.float64).ravel())
    if not ((points >= low) & (points <= high)).all():
        raise ValueError(f"kinks must lie inside the support {support!r}, got {kinks!r}")
    values = _checked_pdf(pdf)
    total, error = np.nan, 0.0
    for pieces, octaves in ((1, 500), (8, 60), (256, 40)):
        edges = _scan(low, high, points, pieces, octaves)
        with np.errstate(all="ignore"):
            edges, error = resolve(
                values, edges, relative=_RELATIVE, absolute=_ABSOLUTE, floor=_FLOOR, depth=60, limit=20000
            )
            before, total = total, Cumulative(values, edges).total if edges.size > 1 else 0.0
        if abs(total - 1.0) <= _PROMISED or (abs(total - before) <= 1e-3 * _PROMISED * total):
            break
    if not abs(total - 1.0) <= _PROMISED:
        remedy = "divide it by that; if a narrow peak was missed, put its place into kinks"
        raise ValueError(f"pdf must integrate to 1 over the support {support!r}, got {float(total)!r}; {remedy}")
    ends = np.array([end for end in (low, high) if np.isfinite(end)])
    label = getattr(pdf, "__name__", type(pdf).__name__)
    with np.errstate(all="ignore"):
        return FromPdf(label, values, edges, error, (low, high), np.union1d(points, ends))


def from_scipy(frozen_rv: Any) -> FromScipy:
    """A density from a frozen continuous distribution of scipy.stats.

    Parameters
    ----------
    frozen_rv : scipy.stats frozen distribution
        As from ``scipy.stats.gamma(2.0)``; one distribution, not an array of them.

    Returns
    -------
    Density
        With `quadrature_error`, and a `status` where that is above 1e-8.

    Raises
    ------
    ValueError
        For a discrete distribution, one that is not frozen, array parameters, infinite variance.

    Examples
    --------
    >>> import scipy.stats, qerror as qe
    >>> gamma = qe.from_scipy(scipy.stats.gamma(2.0))
    >>> round(float(gamma.mean), 12)
    2.0
    """
    if hasattr(frozen_rv, "pmf"):
        remedy = "use Empirical(values, weights=rv.pmf(values))"
        raise ValueError(f"frozen_rv must be continuous, got the discrete {frozen_rv!r}; {remedy}")
    needed = ("pdf", "cdf", "sf", "ppf", "isf", "support", "rvs", "dist")
    if not all(hasattr(frozen_rv, word) for word in needed):
        raise ValueError(f"frozen_rv must be a frozen distribution such as scipy.stats.gamma(2.0), got {frozen_rv!r}")
    if np.ndim(frozen_rv.support()[0]) or np.ndim(frozen_rv.ppf(0.5)):
        raise ValueError(f"frozen_rv must be one distribution, got array parameters in {frozen_rv.kwds or frozen_rv.args}")
    low, high = (float(end) for end in frozen_rv.support())
    with np.errstate(all="ignore"):
        spread = float(frozen_rv.std())
        if not (np.isfinite(spread) and spread > 0):
            raise ValueError(f"frozen_rv must have a finite variance, got std {spread!r}")
        # Decades of probability on both sides lead to the mass wherever it is, and to poles at the ends.
        p = 10.0 ** -np.arange(0.25, 30.5, 0.75)
        edges = np.concatenate([[low, high, frozen_rv.ppf(0.5)], frozen_rv.ppf(p), frozen_rv.isf(p)])
        edges = np.unique(edges[np.isfinite(edges)])
        edges, error = resolve(
            frozen_rv.pdf, edges, relative=_RELATIVE, absolute=_ABSOLUTE, floor=_FLOOR, depth=60, limit=20000
        )
        ends = np.array([end for end in (low, high) if np.isfinite(end)])
        return FromScipy(frozen_rv, edges, error, (low, high), ends)


def _checked_support(support: tuple[float, float]) -> tuple[float, float]:
    try:
        low, high = (float(end) for end in support)
    except (TypeError, ValueError):
        raise ValueError(f"support must be a pair (lower, upper), got {support!r}") from None
    if not low < high:
        raise ValueError(f"support must ascend, got {support!r}")
    return low, high


def _checked_pdf(pdf: Callable[[Array], Array]) -> Callable[[Array], Array]:
    """The function, with its values checked."""

    def values(x: Array) -> Array:
        f = np.asarray(pdf(x), np.float64)
        if f.shape != x.shape:
            raise ValueError(f"pdf must return an array of the shape it is given, got {f.shape} for {x.shape}")
        good = (f >= 0) & np.isfinite(f)
        if not good.all():
            i = int(np.argmin(good.ravel()))
            where, what = float(x.flat[i]), float(f.flat[i])
            raise ValueError(f"pdf must be finite and >= 0, got {what!r} at x = {where!r}; narrow the support or mend it")
        return f

    return values


def _scan(low: float, high: float, points: Array, pieces: int, octaves: int) -> Array:
    """Edges that double away from 0 (from each finite end), cut into `pieces`, and even ones between finite ends."""
    steps = 2.0 ** np.arange(-60 if pieces == 1 else -octaves, octaves + 1)
    fine = np.concatenate([steps[:-1, None] * (1.0 + np.arange(pieces) / pieces)], axis=None)
    origins = np.array([0.0, *(end for end in (low, high) if np.isfinite(end)), *points])
    parts = [points, [low, high], *(origin + sign * fine for origin in origins for sign in (-1.0, 1.0)), origins]
    if np.isfinite(low) and np.isfinite(high):
        parts.append(np.linspace(low, high, 16 * pieces + 1))
    edges = np.unique(np.concatenate(parts))
    return edges[(edges >= low) & (edges <= high) & np.isfinite(edges)]


def _trimmed(whole: Cumulative) -> Array:
    """The edges without the outer panels that hold less than 1e-18 of the mass and of the variance."""
    edges = whole.edges
    lower = (whole.below(edges)[0] > 1e-18) | (np.concatenate([[0.0], np.cumsum(whole.shares)]) > 1e-18)
    upper = (whole.above(edges)[0] > 1e-18) | (np.concatenate([np.cumsum(whole.shares[::-1])[::-1], [0.0]]) > 1e-18)
    first = max(int(np.argmax(lower)) - 1, 0)
    last = min(int(edges.size - np.argmax(upper[::-1])), edges.size - 1)
    return edges[first : last + 1]
