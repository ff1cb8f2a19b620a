"""Densities from a pdf alone, and from the distributions of scipy.stats.

A density needs only its pdf: panels are found by halving until two quadrature rules agree, and what they still
disagree by is reported.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from .._types import Array
from .location_scale import unwrap
from .numeric import PROMISED, Numeric, find_panels, inside_support
from .panels import total_mass


class FromPdf(Numeric):
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


class FromScipy(Numeric):
    """A frozen distribution of scipy.stats; see `from_scipy`."""

    def __init__(self, rv: Any, edges: Array, error: float, support: Any, kinks: Array) -> None:
        self._rv = rv
        super().__init__(inside_support(rv.pdf, support), edges, error, support, kinks)
        mean, std = float(rv.mean()), float(rv.std())
        self.quadrature_error += abs(self._mean - mean) / std + abs(self._std / std - 1.0)
        self._mean, self._std = mean, std
        self._report()

    @property
    def name(self) -> str:
        """Name and arguments of the distribution; a label only."""
        said = [repr(a) for a in self._rv.args] + [f"{k}={v!r}" for k, v in self._rv.kwds.items()]
        return f"scipy:{self._rv.dist.name}({', '.join(said)})"

    def cdf(self, x: ArrayLike) -> Array:
        return unwrap(self._rv.cdf(x))

    def sf(self, x: ArrayLike) -> Array:
        return unwrap(self._rv.sf(x))

    def quantile(self, p: ArrayLike) -> Array:
        return unwrap(self._rv.ppf(p))

    def isf(self, p: ArrayLike) -> Array:
        return unwrap(self._rv.isf(p))

    def _draw(self, generator: np.random.Generator, size: tuple[int, ...]) -> Array:
        return np.asarray(self._rv.rvs(size=size, random_state=generator))


def from_pdf(pdf: Callable[[Array], Array], support: tuple[float, float], *, kinks: Sequence[float] = ()) -> FromPdf:
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
    values = _checked_pdf(inside_support(pdf, (low, high)))
    total, error = np.nan, 0.0
    with np.errstate(all="ignore"):
        for pieces, octaves in ((1, 500), (8, 60), (256, 40)):
            edges, error = find_panels(values, _scan(low, high, points, pieces, octaves))
            before, total = total, total_mass(values, edges)
            if abs(total - 1.0) <= PROMISED or (total > 0.0 and abs(total - before) <= 1e-3 * PROMISED * total):
                break
        if not abs(total - 1.0) <= PROMISED:
            remedy = "divide it by that; if a narrow peak was missed, put its place into kinks"
            raise ValueError(f"pdf must integrate to 1 over the support {(low, high)}, got {total!r}; {remedy}")
        ends = np.array([end for end in (low, high) if np.isfinite(end)])
        label = getattr(pdf, "__name__", type(pdf).__name__)
        found = FromPdf(label, values, edges, error, (low, high), np.union1d(points, ends))
    growing = [share for share, end in zip(found.end_shares, (low, high), strict=True) if not np.isfinite(end)]
    if not np.isfinite(found.std) or max(growing, default=0.0) > 1e-12:
        raise ValueError(f"pdf must have a finite variance, but its second moment still grows at x = {2.0**500:.0e}")
    return found


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
        raise ValueError(f"frozen_rv must be one distribution, got array parameters {frozen_rv.args} {frozen_rv.kwds}")
    low, high = (float(end) for end in frozen_rv.support())
    with np.errstate(all="ignore"):
        spread = float(frozen_rv.std())
        if not (np.isfinite(spread) and spread > 0):
            raise ValueError(f"frozen_rv must have a finite variance, got std {spread!r}")
        # Decades of probability on both sides lead to the mass wherever it is, and to poles at the ends.
        p = 10.0 ** -np.arange(0.25, 30.5, 0.75)
        middle = float(frozen_rv.ppf(0.5))
        beyond = [middle + sign * spread * 2.0 ** np.arange(3, 400) for sign in (-1.0, 1.0)]
        edges = np.concatenate([[low, high, middle], frozen_rv.ppf(p), frozen_rv.isf(p), *beyond])
        edges = np.unique(edges[np.isfinite(edges) & (edges >= low) & (edges <= high)])
        pdf = inside_support(frozen_rv.pdf, (low, high))
        edges, error = find_panels(pdf, edges)
        total = total_mass(pdf, edges)
        if not abs(total - 1.0) <= 0.05:
            raise ValueError(f"frozen_rv must have a pdf that integrates to 1 over its support, got {total!r}")
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
            raise ValueError(f"pdf must be finite and >= 0, got {what!r} at x = {where!r}; narrow the support")
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
    return np.asarray(edges[(edges >= low) & (edges <= high) & np.isfinite(edges)])
