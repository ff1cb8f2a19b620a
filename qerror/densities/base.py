"""The contract that every density keeps, and the defaults that need only its pdf.

A density is a distribution of x: a continuous part (`pdf`, smooth between its `panels`) plus point masses
(`atoms`). Everything else of the library reads a density through the methods of `Density` and nothing else.
"""

from __future__ import annotations

import abc
import math
from collections.abc import Sequence
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .._check import MOST_VALUES, as_int, as_rng, shown
from .._types import Array, Values
from . import inversion, quadrature
from .entropy import entropy_by_quadrature

# Characters of parameters that a repr repeats.
_SHORT = 60


class Density(abc.ABC):
    """A distribution of x, or an array of them.

    Parameters may be arrays: `shape` is then their broadcast shape, and every method broadcasts its arguments
    against it by NumPy's rules. `take` picks members, which is how searches and errors run over many
    (density, scale) pairs in one vectorized call.

    A concrete class states `pdf`, `mean`, `std` and `panels`; it overrides the rest where it has a formula.

    Attributes
    ----------
    shape : tuple of int
        () for one density.
    name : str
        Accepted by `qerror.density` where the density has a name ("student-t:df=5").
    mean, std : float or ndarray of shape `shape`
    support : tuple of (lower, upper)
        The closed interval outside of which there is no mass (may be infinite).
    status : str
        Empty, or what a quadrature could not reach.
    """

    shape: tuple[int, ...] = ()
    status: str = ""
    # How many times a tail panel doubles before the rest is left to `far_moments`: 62 decay lengths hold all but
    # exp(-62) of an exponential tail.
    tail_doublings: int = 5
    # Gauss-Legendre nodes that resolve the moments of a panel; where the pdf is a constant two do.
    nodes: int = 12
    # How far `tails` may be off beyond a few roundings, as a share of 1 and of `std`: what searches may then prove.
    tails_error: float = 0.0
    # Whether `far_moments` knows what lies beyond the doubling panels of a tail.
    power_law: bool = False
    # Whether x - mean and mean - x have one distribution: searches then look at half of the thresholds.
    symmetric: bool = False
    # Whether the pdf nowhere rises with the distance from the mean: searches then know bounds of its values.
    unimodal: bool = False

    @property
    @abc.abstractmethod
    def name(self) -> str:
        """What `qerror.density` reads."""

    @property
    @abc.abstractmethod
    def mean(self) -> float | Values:
        """Expectation, units of x."""

    @property
    @abc.abstractmethod
    def std(self) -> float | Values:
        """Standard deviation, units of x."""

    @property
    def support(self) -> tuple[Any, Any]:
        """The closed interval outside of which there is no mass."""
        return (-np.inf, np.inf)

    @property
    def entropy(self) -> Any:
        """Differential entropy -E[log2 f(x)] in bits (with x in its units); minus infinity with point masses.

        Examples
        --------
        >>> import qerror as qe
        >>> round(float(qe.Gaussian().entropy), 12), float(qe.Uniform.from_bounds(0, 4).entropy)
        (2.047095585181, 2.0)
        """
        if self.has_atoms:
            return np.full(self.shape, -np.inf)[()]
        if not self.shape:
            return entropy_by_quadrature(self)
        members = (self.take(np.array(i)) for i in range(math.prod(self.shape)))
        return np.array([entropy_by_quadrature(member) for member in members]).reshape(self.shape)

    # -- the continuous part -------------------------------------------------------------------------------------

    @abc.abstractmethod
    def pdf(self, x: ArrayLike) -> Array:
        """Density of the continuous part at `x`; integrates to 1 minus the mass of `atoms`."""

    def pdf_from(self, origin: ArrayLike, offset: ArrayLike) -> Array:
        """`pdf` at origin + offset; a family keeps the digits of a small offset from a large origin where it can."""
        x: Array = np.add(origin, offset)
        return self.pdf(x)

    @abc.abstractmethod
    def panels(self) -> Array:
        """Ascending edges, shape `shape` + (P,), between which `pdf` is resolved by `nodes` Gauss-Legendre nodes.

        Cusps, jumps and the ends of a bounded support are among them. Beyond the first and last edge the density
        decays over `decay_length`.
        """

    def decay_length(self, x: Array, sign: Array) -> Array:
        """Distance over which the pdf falls by a factor e when one walks outwards (`sign` = +-1) from `x`."""
        step = 1e-3 * np.asarray(self.std)
        with np.errstate(divide="ignore", invalid="ignore"):
            slope = (np.log(self.pdf(x)) - np.log(self.pdf(x + sign * step))) / step
            length = 1.0 / slope
        std = np.broadcast_to(self.std, length.shape)
        return np.where((length > 0) & np.isfinite(length), np.clip(length, 1e-3 * std, 10 * std), std)

    def far_moments(self, x: Array, about: Array, sign: Array) -> Array:
        """Moments (3, ...) of the tail beyond `x`: nothing but for a `power_law`, whose panels would not end."""
        return np.zeros((3, *np.shape(x)))

    @property
    def kinks(self) -> Array:
        """Points, shape `shape` + (n,), where the pdf jumps: they split the error as a function of the scale."""
        return np.empty((*self.shape, 0))

    # -- the point masses ----------------------------------------------------------------------------------------

    @property
    def atoms(self) -> tuple[Array, Array] | None:
        """Point masses as (points, masses), each of shape `shape` + (n,); None without any."""
        return None

    @property
    def atom_count(self) -> int:
        """How many point masses a member has (asked often: a sample need not list them for the answer)."""
        atoms = self.atoms
        return 0 if atoms is None else int(atoms[0].shape[-1])

    @property
    def has_atoms(self) -> bool:
        """Whether there are point masses."""
        return self.atom_count > 0

    # -- moments -------------------------------------------------------------------------------------------------

    def moments(self, lower: ArrayLike, upper: ArrayLike, about: ArrayLike) -> Array:
        """Integrals of (x - about)^j over lower < x <= upper, j = 0, 1, 2, computed about `about`.

        Parameters
        ----------
        lower, upper : array_like
            Ends, finite or infinite; they and `about` broadcast against each other and against `shape`.
        about : array_like
            The value the moments are taken about.

        Returns
        -------
        ndarray of shape (3, ...)
            Probability (dimensionless), first moment (units of x), second moment (units of x squared).

        Examples
        --------
        >>> import numpy as np, qerror as qe
        >>> qe.Laplace(std=2).moments(0.0, np.inf, 0.0).round(12).tolist()
        [0.5, 0.707106781187, 2.0]
        """
        low, up, centre = np.broadcast_arrays(lower, upper, about)
        edges = np.stack([low, np.maximum(low, up)], axis=-1).astype(np.float64)
        return self.cell_moments(edges, np.asarray(centre, np.float64)[..., None])[..., 0]

    @property
    def sorted_rows(self) -> Any:
        """What a sample keeps for `qerror.samples.rows.rows_of`; None for what keeps nothing."""
        return None

    def cell_moments(self, edges: Array, about: Array, origin: ArrayLike = 0.0, last: Array | None = None) -> Array:
        """Moments of neighbouring cells, each about its own value: what an error is summed from.

        Parameters
        ----------
        edges : ndarray of shape (..., M + 1)
            Ascending cell ends, relative to `origin`; may be infinite.
        about : ndarray of shape (..., M)
            The value of each cell, relative to `origin`.
        origin : array_like of shape (...)
            Added to both: cells far from zero keep their precision.
        last : ndarray of shape (..., M + 1), optional
            For point masses: the greatest x that belongs to the cell below each edge (default: origin + edges).

        Returns
        -------
        ndarray of shape (3, ..., M)
        """
        return quadrature.cell_moments(self, edges, about, np.asarray(origin, np.float64), last)

    def tails(self, t: Array) -> tuple[Array, Array]:
        """Mass and first moment beyond `t`, ascending along its last axis, for fast searches.

        Returns
        -------
        mass : ndarray
            P(x > t) for t at or above the mean, -P(x <= t) below: the small side, so that sums do not cancel.
        first : ndarray
            E[(x - mean); x > t], never negative. Both within a few units of float64 rounding of 1 and of `std`.
        """
        return quadrature.tails(self, t)

    def tails_about_mean(self, t: Array) -> tuple[Array, Array]:
        """`tails` at mean + t; a family keeps the digits of t where the mean is large."""
        return self.tails(np.asarray(self.mean)[..., None] + t)

    # -- probabilities -------------------------------------------------------------------------------------------

    def cdf(self, x: ArrayLike) -> Array:
        """P(X <= x)."""
        mass: Array = self.moments(-np.inf, x, 0.0)[0]
        return mass

    def sf(self, x: ArrayLike) -> Array:
        """P(X > x), accurate in the upper tail."""
        mass: Array = self.moments(x, np.inf, 0.0)[0]
        return mass

    def quantile(self, p: ArrayLike) -> Array:
        """The smallest x with cdf(x) >= p."""
        return inversion.solve_quantile(self, np.asarray(p, np.float64), upper=False)

    def isf(self, p: ArrayLike) -> Array:
        """The smallest x with sf(x) <= p, accurate for tiny p."""
        return inversion.solve_quantile(self, np.asarray(p, np.float64), upper=True)

    def sample(self, size: int | Sequence[int], rng: int | np.random.Generator | None = None) -> Array:
        """Draw `size` independent values, shape `size` + `shape`."""
        if not isinstance(size, int | np.integer | Sequence | np.ndarray):
            raise ValueError(f"size must be an integer or several, got {shown(size)}")
        lengths = (size,) if isinstance(size, int | np.integer) else size
        shape = (*(as_int("size", length, 0, MOST_VALUES) for length in lengths), *self.shape)
        if math.prod(shape) > MOST_VALUES:
            raise ValueError(f"size must ask for at most {MOST_VALUES} values in all, got shape {shape}; draw parts")
        return self._draw(as_rng(rng), shape)

    def _draw(self, generator: np.random.Generator, size: tuple[int, ...]) -> Array:
        """Values of a shape that ends with `shape`."""
        # random() may return 0: the midpoint of its 2^-53 lattice keeps quantile() finite.
        uniform = generator.random(size) + 2.0**-54
        return np.where(uniform < 0.5, self.quantile(uniform), self.isf(1.0 - uniform))

    # -- members -------------------------------------------------------------------------------------------------

    def take(self, index: NDArray[np.intp]) -> Self:
        """Members by flat index: a density of shape `index.shape` (itself where `shape` is ())."""
        if self.shape:
            raise NotImplementedError(f"{type(self).__name__} has arrays of parameters and no `take`")
        return self

    def spread(self, shape: tuple[int, ...]) -> Self:
        """One member for each place of a shape that `shape` broadcasts to, in a row (itself where `shape` is ())."""
        if not self.shape:
            return self
        index = np.arange(math.prod(self.shape)).reshape(self.shape)
        return self.take(np.broadcast_to(index, shape).ravel())

    def __repr__(self) -> str:
        kind, (family, _, parameters) = type(self).__name__, self.name.partition(":")
        if family.replace("-", "") == kind.lower() and len(parameters) <= _SHORT:
            # What makes it again.
            return f"{kind}({parameters.replace(',', ', ')})"
        return f"{kind}({self.name!r})" if self.shape == () else f"{kind}{self.shape}"


def check_density(density: Any) -> None:
    """Refuse what is no density, a name or raw data above all.

    Parameters
    ----------
    density : Density
        The argument of that name.

    Raises
    ------
    ValueError
        If it is anything else: with what makes a density of it.

    Examples
    --------
    >>> check_density("gaussian")
    Traceback (most recent call last):
        ...
    ValueError: density must be a Density, got 'gaussian'; qerror.density('gaussian') makes one
    """
    if isinstance(density, Density):
        return
    if isinstance(density, str):
        remedy = f"qerror.density({density!r}) makes one"
    else:
        remedy = "qerror.Empirical(x) makes one of data, qerror.density(name) of a name"
    raise ValueError(f"density must be a Density, got {shown(density)}; {remedy}")
