"""Densities made of others: mixtures here, what a rectifier leaves of a density in `rectified`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .._check import as_float_array
from .._types import Array, Values
from .base import Density
from .location_scale import unwrap


class Mixture(Density):
    """A weighted mixture of densities.

    f(x) = sum_i w_i f_i(x) / sum_i w_i.

    Parameters
    ----------
    components : sequence of Density
        Their shapes broadcast to `shape`.
    weights : sequence of float
        One for each component, >= 0; they are divided by their sum.

    Raises
    ------
    ValueError
        Without components, for another number of weights, for weights that are negative or sum to 0.

    Examples
    --------
    >>> import qerror as qe
    >>> mixed = qe.Mixture([qe.Gaussian(-1.0, 0.5), qe.Gaussian(1.0, 0.5)], [0.5, 0.5])
    >>> float(mixed.mean), round(float(mixed.std) ** 2, 12)
    (0.0, 1.25)
    """

    def __init__(self, components: Sequence[Density], weights: Sequence[float] | Array) -> None:
        share = _weights(components, weights)
        self.components = tuple(part for part, w in zip(components, share, strict=True) if w > 0)
        self.weights = tuple(float(w) for w in share if w > 0)
        self._complete()

    def _complete(self) -> None:
        self.shape = np.broadcast_shapes(*(part.shape for part in self.components))
        self.status = "; ".join(dict.fromkeys(part.status for part in self.components if part.status))
        self.tail_doublings = max(part.tail_doublings for part in self.components) + 4
        self.power_law = any(part.power_law for part in self.components)
        self.tails_error = max(part.tails_error for part in self.components)

    @property
    def name(self) -> str:
        terms = (f"{w!r}*{part.name}" for part, w in zip(self.components, self.weights, strict=True))
        return f"mixture({'; '.join(terms)})"

    def _each(self) -> zip[tuple[float, Density]]:
        return zip(self.weights, self.components, strict=True)

    @property
    def mean(self) -> Values:
        return unwrap(np.broadcast_to(sum(w * np.asarray(part.mean) for w, part in self._each()), self.shape))

    @property
    def std(self) -> Values:
        """Standard deviation, units of x: within the components and between them."""
        centre = self.mean
        between = (w * (np.square(part.std) + np.square(part.mean - centre)) for w, part in self._each())
        return unwrap(np.broadcast_to(np.sqrt(sum(between)), self.shape))

    @property
    def support(self) -> tuple[Any, Any]:
        """The least lower and the greatest upper end."""
        lower, upper = zip(*(part.support for part in self.components), strict=True)
        ends = np.minimum.reduce(np.broadcast_arrays(*lower)), np.maximum.reduce(np.broadcast_arrays(*upper))
        return unwrap(np.broadcast_to(ends[0], self.shape)), unwrap(np.broadcast_to(ends[1], self.shape))

    def pdf(self, x: ArrayLike) -> Array:
        return unwrap(sum(w * part.pdf(x) for w, part in self._each()))

    def pdf_from(self, origin: ArrayLike, offset: ArrayLike) -> Array:
        return unwrap(sum(w * part.pdf_from(origin, offset) for w, part in self._each()))

    def panels(self) -> Array:
        """The panels of all components, and of their tails as far as these count."""
        edges = [self._spread(part, part.panels()) for part in self.components]
        ends = [(e[..., :1].min(initial=np.inf), e[..., -1:].max(initial=-np.inf)) for e in edges]
        low, high = min(end[0] for end in ends), max(end[1] for end in ends)
        knots = [
            _tail_knots(part, e, sign, high - low)
            for part, e in zip(self.components, edges, strict=True)
            if e.shape[-1]
            for sign in (-1.0, 1.0)
        ]
        return np.sort(np.concatenate([*edges, *(self._spread(self, k) for k in knots)], axis=-1), axis=-1)

    def _spread(self, part: Density, values: Array) -> Array:
        return np.broadcast_to(values, (*self.shape, values.shape[-1]))

    def decay_length(self, x: Array, sign: Array) -> Array:
        """The shortest among the components that carry a part of the pdf; `tail_doublings` reaches the longest."""
        lengths, shares = [], []
        for w, part in self._each():
            if part.panels().shape[-1]:
                lengths.append(np.broadcast_to(part.decay_length(x, sign), np.broadcast_shapes(x.shape, self.shape)))
                shares.append(np.broadcast_to(w * part.pdf(x), lengths[-1].shape))
        weight = np.array(shares)
        counts = weight >= 1e-6 * weight.max(axis=0)
        return np.asarray(np.min(np.where(counts, np.array(lengths), np.inf), axis=0))

    def far_moments(self, x: Array, about: Array, sign: Array) -> Array:
        """The power laws among the components."""
        parts = [w * part.far_moments(x, about, sign) for w, part in self._each()]
        return np.asarray(np.sum(parts, axis=0))

    @property
    def kinks(self) -> Array:
        """Jumps of all components."""
        return np.sort(np.concatenate([self._spread(part, part.kinks) for part in self.components], axis=-1), axis=-1)

    @property
    def has_atoms(self) -> bool:
        """Whether a component has point masses."""
        return any(part.has_atoms for part in self.components)

    @property
    def atoms(self) -> tuple[Array, Array] | None:
        """Point masses of all components, in ascending order."""
        found = [(w, part.atoms) for w, part in self._each()]
        known = [(points, w * masses) for w, (points, masses) in ((w, a) for w, a in found if a is not None)]
        if not known:
            return None
        points = np.concatenate([self._spread(self, p) for p, _ in known], axis=-1)
        masses = np.concatenate([self._spread(self, m) for _, m in known], axis=-1)
        order = np.argsort(points, axis=-1, kind="stable")
        return np.take_along_axis(points, order, axis=-1), np.take_along_axis(masses, order, axis=-1)

    def cell_moments(self, edges: Array, about: Array, origin: ArrayLike = 0.0, last: Array | None = None) -> Array:
        """The weighted sum: each component keeps its own panels."""
        lead = np.broadcast_shapes(edges.shape[:-1], about.shape[:-1], np.shape(origin), self.shape)
        values = np.broadcast_to(about, (*lead, about.shape[-1]))
        parts = (w * part.cell_moments(edges, values, origin, last) for w, part in self._each())
        return np.asarray(sum(parts))

    def tails(self, t: Array) -> tuple[Array, Array]:
        mean = np.asarray(self.mean)[..., None]
        upper = t >= mean
        mass, first = np.zeros(()), np.zeros(())
        for w, part in self._each():
            own = np.asarray(part.mean)[..., None]
            signed, moment = part.tails(t)
            # Each component counts from its own mean; both sides of the mixture count from that of the mixture.
            above = t >= own
            side = np.where(upper, np.where(above, signed, 1.0 + signed), np.where(above, signed - 1.0, signed))
            mass = mass + w * side
            first = first + w * (moment + (own - mean) * side)
        return mass, np.maximum(first, 0.0)

    def cdf(self, x: ArrayLike) -> Array:
        return unwrap(sum(w * part.cdf(x) for w, part in self._each()))

    def sf(self, x: ArrayLike) -> Array:
        return unwrap(sum(w * part.sf(x) for w, part in self._each()))

    def _draw(self, generator: np.random.Generator, size: tuple[int, ...]) -> Array:
        # A component for each value, then the value.
        ends = np.cumsum(self.weights)[:-1]
        which = np.searchsorted(ends, generator.random(size), side="right")
        out = np.empty(which.shape)
        for i, part in enumerate(self.components):
            chosen = which == i
            if self.shape == ():
                out[chosen] = part.sample(int(chosen.sum()), generator)
            else:
                drawn = part.sample(size[: len(size) - len(part.shape)], generator)
                out[chosen] = np.broadcast_to(drawn, out.shape)[chosen]
        return out

    def take(self, index: NDArray[np.intp]) -> Self:
        if self.shape == ():
            return self
        new = object.__new__(type(self))
        size = int(np.prod(self.shape))
        new.weights = self.weights
        members = []
        for part in self.components:
            own = np.arange(int(np.prod(part.shape))).reshape(part.shape)
            flat = np.broadcast_to(own, self.shape).reshape(size)
            members.append(part.take(flat[index]) if part.shape else part)
        new.components = tuple(members)
        new._complete()
        return new


def _weights(components: Sequence[Density], weights: Sequence[float] | Array) -> Array:
    if not len(components):
        raise ValueError("components must hold at least one density, got none")
    for i, part in enumerate(components):
        if not isinstance(part, Density):
            raise ValueError(f"components must be densities, got {part!r} at index {i}; qerror.density(name) makes one")
    share = as_float_array("weights", weights)
    if share.shape != (len(components),):
        raise ValueError(f"weights must hold one number for each of {len(components)} components, got {weights!r}")
    if not (np.isfinite(share) & (share >= 0)).all() or share.sum() <= 0:
        raise ValueError(f"weights must be finite, >= 0 and not all 0, got {share.tolist()!r}")
    total = share.sum()
    # A sum of 1 up to rounding stays: names round-trip to the last bit.
    return share if abs(total - 1.0) < 1e-15 * len(share) else share / total


def _tail_knots(part: Density, edges: Array, sign: float, width: float) -> Array:
    """Edges beyond the last panel of a component, on the side `sign`, as far as its tail counts in a mixture."""
    end = edges[..., -1 if sign > 0 else 0]
    length = np.broadcast_to(part.decay_length(end, np.full(end.shape, sign)), end.shape)
    doublings = part.tail_doublings
    if part.power_law:
        # A power law counts wherever another component still has panels.
        reach = np.log2(np.maximum(width / length, 1.0)).max(initial=0.0)
        doublings = max(doublings, min(1000, int(np.ceil(reach)) + 1))
    return end[..., None] + sign * length[..., None] * 2.0 ** np.arange(doublings)
