"""Symmetric families in terms of mean and standard deviation: what they share.

Each is stated once, at mean 0 and standard deviation 1, as a function of t = |x - mean| / std on the half-line.
"""

from __future__ import annotations

import abc
import functools
import inspect
import math
import re
from collections.abc import Callable
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .._check import as_float_array
from .._types import Array, Values
from .base import Density
from .inversion import probability


def shape_parameter(name: str, value: Any, lower: float, upper: float, why: str) -> float:
    """A scalar shape parameter within lower < value <= upper, or a ValueError that says which and why."""
    array = as_float_array(name, value)
    if array.ndim:
        raise ValueError(f"{name} must be a single number, got shape {array.shape}; make one density for each {name}")
    number = float(array)
    if not lower < number <= upper:
        raise ValueError(f"{name} must be {why}, got {number!r}")
    return number


def said_value(value: ArrayLike) -> str:
    """Numbers as a name has them: 5 for 5.0, lists in brackets, every bit kept."""
    items = np.asarray(value).tolist()
    return re.sub(r"\.0(?=[],]|$)", "", repr(items).replace(" ", ""))


def unwrap(values: Any) -> Array:
    """An array as it is, one value without its zero-dimensional array."""
    result: Array = np.asarray(values)[()]
    return result


def _explained(init: Callable[..., None]) -> Callable[..., None]:
    """The constructor of a family, which names the family and its parameters when it is given others."""
    signature = inspect.signature(init)

    @functools.wraps(init)
    def explained(self: LocationScale, *args: Any, **keywords: Any) -> None:
        try:
            init(self, *args, **keywords)
        except TypeError:
            try:
                signature.bind(self, *args, **keywords)
            except TypeError as error:
                takes = ", ".join([*signature.parameters][1:])
                said = f"{type(self).__name__} takes {takes}, where std is the standard deviation{self.in_other_terms}"
                raise TypeError(f"{said}: {error}") from None
            raise

    return explained


class LocationScale(Density):
    """A symmetric density given by its standard form on the half-line t >= 0.

    f(x) = g(|x - mean| / std) / std, where g nowhere rises and has mean 0 and standard deviation 1.
    """

    family: str
    symmetric = unimodal = True
    atom_count = 0
    # Panel edges at unit standard deviation, t >= 0, ascending.
    unit_panels: Array
    # Arrays that `take` picks from, beside those of a subclass.
    _members: tuple[str, ...] = ("_mean", "_std")
    # What is said of the parameters that others use.
    in_other_terms = ""

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        cls.__init__ = _explained(cls.__init__)  # type: ignore[method-assign]

    def __init__(self, mean: ArrayLike = 0.0, std: ArrayLike = 1.0) -> None:
        self._mean, self._std = np.array(as_float_array("mean", mean)), np.array(as_float_array("std", std))
        if not np.isfinite(self._mean).all():
            raise ValueError(f"mean must be finite, got {mean!r}")
        if not (np.isfinite(self._std) & (self._std > 0)).all():
            raise ValueError(f"std must be positive and finite, got {std!r}")
        self.shape: tuple[int, ...] = ()
        if self._mean.ndim or self._std.ndim:
            # Read-only views of the full shape: broadcasting anew at every look-up would dominate a search.
            self._mean, self._std = np.broadcast_arrays(self._mean, self._std)
            self.shape = self._mean.shape
        self._mean.flags.writeable = self._std.flags.writeable = False

    @property
    def mean(self) -> Values:
        return self._mean[()]

    @property
    def std(self) -> Values:
        return self._std[()]

    @property
    def entropy(self) -> Any:
        """Differential entropy in bits: that of the standard form, and log2 of the standard deviation."""
        return unwrap(self._entropy / math.log(2) + np.log2(np.broadcast_to(self._std, self.shape)))

    def _parameters(self) -> dict[str, Any]:
        """Keyword arguments of the constructor, shape parameters first."""
        return {"mean": self.mean, "std": self.std}

    @property
    def name(self) -> str:
        """Family and the parameters that differ from their default, as `qerror.density` reads them."""
        default = {"mean": 0.0, "std": 1.0}
        values = {key: np.asarray(value) for key, value in self._parameters().items()}
        told = {key: value for key, value in values.items() if key not in default or np.any(value != default[key])}
        said = ",".join(f"{key}={said_value(value)}" for key, value in told.items())
        return f"{self.family}:{said}" if said else self.family

    def take(self, index: NDArray[np.intp]) -> Self:
        if self.shape == ():
            return self
        new = object.__new__(type(self))
        new.__dict__.update(self.__dict__)
        for key in self._members:
            new.__dict__[key] = np.broadcast_to(getattr(self, key), self.shape).ravel()[index]
        new.shape = np.shape(index)
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
        """Inverse of `_sf` for 0 <= p <= 1/2."""

    @property
    @abc.abstractmethod
    def _entropy(self) -> float:
        """Differential entropy of the standard form in nats."""

    @abc.abstractmethod
    def _decay(self, t: Array) -> Array:
        """Length over which the pdf falls by a factor e beyond t."""

    @abc.abstractmethod
    def _draw_unit(self, generator: np.random.Generator, size: tuple[int, ...]) -> Array:
        """Independent values of the standard form, both signs."""

    def _sf_and_first(self, t: Array) -> tuple[Array, Array]:
        """Both tail functions to absolute accuracy, for many t: where a family has a fast table."""
        return self._sf(t), self._first(t)

    def _standard(self, x: ArrayLike) -> Array:
        return np.asarray((np.asarray(x, np.float64) - self._mean) / self._std)

    def pdf(self, x: ArrayLike) -> Array:
        return np.asarray(self._pdf(np.abs(self._standard(x))) / self._std)

    def pdf_from(self, origin: ArrayLike, offset: ArrayLike) -> Array:
        """Density at origin + offset, in the digits of (origin - mean) + offset."""
        # In place: errors spend their time here.
        t = np.asarray(np.asarray(offset, np.float64) - (self._mean - np.asarray(origin, np.float64)))
        t /= self._std
        f = self._pdf(np.abs(t, out=t))
        f /= self._std
        return f

    def panels(self) -> Array:
        """Edges between which twelve nodes resolve the pdf."""
        unit = self._both_panels
        edges: Array = self._std[..., None] * unit
        edges += self._mean[..., None]
        return edges

    @functools.cached_property
    def _both_panels(self) -> Array:
        return np.concatenate([-self.unit_panels[:0:-1], self.unit_panels])

    def decay_length(self, x: Array, sign: Array) -> Array:
        return np.asarray(self._std * self._decay(np.abs(self._standard(x))))

    def tails(self, t: Array) -> tuple[Array, Array]:
        return self.tails_about_mean(t - (self._mean[..., None] if self.shape else self._mean))

    def tails_about_mean(self, t: Array) -> tuple[Array, Array]:
        std = self._std[..., None] if self.shape else self._std
        u = t / std
        mass, first = self._sf_and_first(np.abs(u))
        # Adding 0.0 turns -0.0 into 0.0: the mean itself counts as the upper side.
        return np.copysign(mass, u + 0.0), std * first

    def _below(self, u: Array) -> Array:
        """P(T <= u) in standard form, accurate on both sides."""
        tail = self._sf(np.abs(u))
        return np.where(u < 0, tail, 1.0 - tail)

    def cdf(self, x: ArrayLike) -> Array:
        return unwrap(self._below(self._standard(x)))

    def sf(self, x: ArrayLike) -> Array:
        return unwrap(self._below(-self._standard(x)))

    def _at(self, p: ArrayLike) -> Array:
        """The t with P(T <= t) = p, standard form."""
        p = probability(p)
        with np.errstate(divide="ignore"):
            side = self._isf(np.minimum(p, 1.0 - p))
        return np.where(p < 0.5, -side, side)

    def quantile(self, p: ArrayLike) -> Array:
        return unwrap(self._mean + self._std * self._at(p))

    def isf(self, p: ArrayLike) -> Array:
        return unwrap(self._mean - self._std * self._at(p))

    def _draw(self, generator: np.random.Generator, size: tuple[int, ...]) -> Array:
        x = self._draw_unit(generator, size)
        if self.shape or self._std != 1.0:
            x *= self._std
        if self.shape or self._mean != 0.0:
            x += self._mean
        return unwrap(x)
