"""Which scale a value of a block meets, and how often: rows of scales, by what is known of the largest magnitudes."""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from .._types import Array, Index
from ..grids.block_formats import BlockFormat
from ..grids.block_rules import Staircase, farthest_is_lowest, staircase
from .block_maxima import Largest

# From how many rows on runs are summed by some of their rows, in so many parts, by so many rows of each; how far
# probabilities may then be from 1.
_MANY, _PARTS, _POINTS, _WHOLE = 300, 3, 16, 1e-13
# Cuts of the integral over the largest magnitude that are worth their panels.
_MOST_CUTS = 2000


class Shells(NamedTuple):
    """Rows of scales: row j has all |x| <= inner[j], and those in the ring from there to outer[j].

    Attributes
    ----------
    scale, inner, outer : ndarray of shape (J,)
        Units of x.
    within, around : ndarray of shape (J,)
        Probability that x has this scale, given that it lies within `inner`, and given that it lies in the ring.
    own : ndarray of shape (J,)
        In the ring x is the largest itself with probability own * P(M' <= |x|).
    turned : ndarray of shape (J,)
        Share of the blocks whose scale is negative.
    """

    scale: Array
    inner: Array
    outer: Array
    within: Array
    around: Array
    own: Array
    turned: Array

    def select(self, index: Any) -> Shells:
        """Some of the rows."""
        return Shells(*(column[index] for column in self))

    def join(self, other: Shells) -> Shells:
        """All rows of both."""
        return Shells(*(np.concatenate(columns) for columns in zip(self, other, strict=True)))


class Tops(NamedTuple):
    """The largest values of blocks whose scales follow them: at -end and +end times their scale.

    Attributes
    ----------
    end : float or ndarray of shape (J,)
    x, scale : ndarray of shape (J,)
        Magnitudes, and the scales of their blocks.
    lower, upper : ndarray of shape (J,)
        The probability that a value is such a largest one, at either end.
    turned : ndarray of shape (J,) or float
        The share of either whose scales are negative.
    """

    end: float | Array
    x: Array
    scale: Array
    lower: Array
    upper: Array
    turned: Array | float = 0.0

    def masses(self, order: float) -> Array:
        """Probability times scale^order, shape (2, J): of the lower ends and of the upper ones."""
        return np.stack([self.lower, self.upper]) * self.scale**order

    def lost(self) -> Array:
        """Moments 0, 1, 2 about 0 of those whose block has scale 0."""
        none = self.scale == 0
        turned = np.broadcast_to(self.turned, none.shape)
        # At the upper end x is positive where the scale is, at the lower end where it is not.
        mean = self.x * (self.upper - self.lower) * (1 - 2 * turned)
        both = self.lower + self.upper
        return np.array([both[none].sum(), mean[none].sum(), (self.x**2 * both)[none].sum()])


_NONE = np.empty(0)
NO_TOPS = Tops(np.inf, _NONE, _NONE, _NONE, _NONE)


def shells_of(largest: Largest, form: BlockFormat, unit: Array, size: int | None) -> tuple[Shells, Tops]:
    """The rows of a block format: at tensor scales, each as often, or for tensors of `size` values."""
    if form.rule in ("best_of", "optimal"):
        raise ValueError(f"form must have a rule that reads the largest magnitude alone, got rule {form.rule}")
    constant = form.constants[0]
    if form.scale_format is None:
        return _any_scale(largest, form, constant / form.grid.absmax)
    if form.signed:
        return _signed(largest, form, staircase(form.grid, form.scale_format, form.rule, constant, float(unit)), size)
    if size is not None:
        return _of_tensors(largest, form, staircase(form.grid, form.scale_format, form.rule, constant), size)
    if unit.size == 1:
        return _thinned(largest, *staircase(form.grid, form.scale_format, form.rule, constant, float(unit))), NO_TOPS
    steps = [staircase(form.grid, form.scale_format, form.rule, constant, float(one)) for one in unit]
    shells, _ = stored_shells(largest, *(np.stack(column) for column in zip(*steps, strict=True)))
    share = {name: getattr(shells, name) / unit.size for name in ("within", "around", "own")}
    return shells._replace(**share), NO_TOPS


def stored_shells(largest: Largest, bounds: Array, scales: Array, end: ArrayLike = np.inf) -> tuple[Shells, Index]:
    """Scales that are constant between bounds: a finite sum, all of whose terms are positive.

    E[loss] = sum_j (P_{j+1} - P_j) C_j(m_j) + P_{j+1} (C_j(m_{j+1}) - C_j(m_j)), P_j = P(M' <= m_j) and C_j(m) the loss
    of |x| <= m at scale j. With an `end` all values are known to lie within +-end.

    Parameters
    ----------
    bounds, scales : ndarray of shape (..., J + 1) and (..., J)
    end : array_like of shape (...)

    Returns
    -------
    shells : Shells
        Only the rows that count.
    place : ndarray
        Which of the leading shape each row belongs to, counted flat.
    """
    low, high = largest.span
    ends = np.broadcast_to(np.asarray(end, np.float64)[..., None], scales.shape)
    inner, outer = bounds[..., :-1], np.minimum(bounds[..., 1:], ends)
    # What lies below the range has any scale: hardly anything is there.
    kept = (outer > np.maximum(inner, low)) & (inner < high)
    place = np.arange(kept.size // kept.shape[-1]).repeat(kept.sum(axis=-1).ravel())
    inner, outer, ends, scales = inner[kept], outer[kept], ends[kept], scales[kept]
    inner = np.where(inner <= low, 0.0, inner)
    inside = largest.log_inside(outer)
    every = np.zeros(inside.shape) if np.isinf(ends).all() else largest.log_inside(ends)
    around = np.exp(largest.others * (inside - every))
    within = np.zeros(scales.size)
    if largest.others:
        with np.errstate(divide="ignore", invalid="ignore"):
            # A_j / A_{j+1} = 1 - mass / A_{j+1}: the mass of a narrow ring keeps its digits.
            share = np.minimum(largest.ring(inner, outer) / np.exp(inside), 1.0)
            within = np.nan_to_num(around * -np.expm1(largest.others * np.log1p(-share)))
    # Of x itself it is known, too, that it lies within the end.
    known = np.exp(-every)
    own = np.exp(-largest.others * every) * known
    return Shells(scales, inner, outer, within * known, around * known, own, np.zeros(scales.size)), place


def _thinned(largest: Largest, bounds: Array, scales: Array) -> Shells:
    """`stored_shells`, of which many neighbours with equal steps between them (fp16) are summed by a few of them.

    Along such a run all that a row holds is smooth in its number: a polynomial through some rows has the sum of all.
    """
    low, high = largest.span
    first, last = (int(np.searchsorted(bounds, end, side="right")) for end in (low, high))
    rows = np.arange(max(first - 1, 0), min(last, scales.size))
    if rows.size < _MANY or largest.density.kinks.size:
        return stored_shells(largest, bounds, scales)[0]
    step = np.diff(bounds[rows[0] : rows[-1] + 2])
    # Rows of one run: the same width as both neighbours, an end of the support or of the range in none.
    inner = np.flatnonzero((step[1:-1] == step[:-2]) & (step[1:-1] == step[2:])) + 1
    inner = inner[np.isfinite(step[inner])]
    parts = _PARTS
    while True:
        chosen, weight = np.setdiff1d(np.arange(rows.size), inner), np.ones(rows.size)
        for run in np.split(inner, np.flatnonzero(np.diff(inner) > 1) + 1):
            for part in np.array_split(run, parts):
                few, own = _few(part.size)
                weight[part[few]] = own
                chosen = np.concatenate([chosen, part[few]])
        chosen.sort()
        at = rows[chosen]
        pairs = np.stack([bounds[at], bounds[at + 1]], axis=-1)
        shells, place = stored_shells(largest, pairs, scales[at, None])
        own = weight[chosen][place]
        whole = own * shells.within * np.exp(largest.log_inside(shells.inner))
        whole += own * shells.around * largest.ring(shells.inner, shells.outer)
        if abs(whole.sum() - 1) < _WHOLE or chosen.size == rows.size:
            return shells._replace(within=own * shells.within, around=own * shells.around, own=own * shells.own)
        parts *= 2


@functools.cache
def _few(count: int) -> tuple[Index, Array]:
    """Some of `count` equally spaced places, and weights with which polynomials there have the sum over all."""
    if count <= 2 * _POINTS:
        return np.arange(count), np.ones(count)
    place = np.rint(0.5 * (count - 1) * (1 - np.cos(np.pi * (np.arange(_POINTS) + 0.5) / _POINTS))).astype(np.intp)
    u = 2 * np.arange(count) / (count - 1) - 1
    basis = np.polynomial.legendre.legvander(u, _POINTS - 1)
    return place, np.linalg.solve(basis[place].T, basis.sum(axis=0))


def _of_tensors(largest: Largest, form: BlockFormat, steps: Staircase, size: int) -> tuple[Shells, Tops]:
    """The rows of many tensors: given the largest magnitude t of one, all of its other values lie within +-t.

    The block of the largest, B of the N values, has the scale that t gives.
    """
    end = (form.full_scale or 1.0) * form.grid.absmax
    t, share = largest.of_tensor(size)
    unit = t / end
    shells, place = stored_shells(largest, np.outer(unit, steps.bounds), np.outer(unit, steps.scales), t)
    weight = (share * (1 - form.block_size / size))[place]
    shells = shells._replace(within=weight * shells.within, around=weight * shells.around, own=weight * shells.own)
    scale = unit * steps.scales[np.searchsorted(steps.bounds, end) - 1]
    others, none = (form.block_size - 1) / size * np.exp(-largest.log_inside(t)), np.zeros(t.size)
    up, down = np.asarray(largest.density.pdf(t)), np.asarray(largest.density.pdf(-t))
    tops = Tops(float(t[0] / scale[0]), t, scale, *(share / size * side / (up + down) for side in (down, up)))
    return shells.join(Shells(scale, t, t, share * others, none, none, none)), tops


def _any_scale(largest: Largest, form: BlockFormat, constant: float) -> tuple[Shells, Tops]:
    """Scales that follow M: nodes of the integral over M', and the largest value itself at the end."""
    cuts = np.empty(0)
    kinks = np.abs(largest.density.kinks.ravel())
    if kinks.size * len(form.grid) <= _MOST_CUTS:
        # Where a threshold meets a jump of the pdf, the loss as a function of M has a kink.
        t = np.abs(form.grid.thresholds) * constant
        cuts = (kinks[:, None] / t[t > 0]).ravel()
    m, dm = largest.nodes(cuts)
    return _at_nodes(largest, form, m, dm, constant * m, 1.0 / constant)


def _signed(largest: Largest, form: BlockFormat, steps: Staircase, size: int | None) -> tuple[Shells, Tops]:
    """Stored scales with the sign of the largest value: nodes between all places at which a value changes its cell."""
    if size is not None:
        raise ValueError(
            "size must be left out for signed formats; qerror.simulate(density, form, scale) draws tensors"
        )
    low, high = largest.span
    points = np.unique(np.abs(np.concatenate([form.grid.levels, form.grid.thresholds])))
    known = np.abs(np.concatenate([largest.density.panels().ravel(), largest.density.kinks.ravel()]))
    inside = (steps.bounds[1:] > low) & (steps.bounds[:-1] < high)
    cells = np.clip(
        steps.scales[inside, None] * points, steps.bounds[:-1][inside, None], steps.bounds[1:][inside, None]
    )
    cuts = np.concatenate([steps.bounds, cells.ravel(), known, np.exp(np.arange(np.log(low), np.log(high), 0.5))])
    edges = np.unique(np.clip(cuts[np.isfinite(cuts)], low, high))
    m, dm, _ = largest.between(edges[:-1], edges[1:])
    scale = steps.scales[np.searchsorted(steps.bounds, m) - 1]
    with np.errstate(divide="ignore"):
        return _at_nodes(largest, form, m, dm, scale, m / scale)


def _at_nodes(
    largest: Largest, form: BlockFormat, m: Array, dm: Array, scale: Array, end: float | Array
) -> tuple[Shells, Tops]:
    """The rows of an integral over the largest magnitude, and the largest values."""
    n, none = largest.others, np.zeros(m.size)
    up, down = np.asarray(largest.density.pdf(m)), np.asarray(largest.density.pdf(-m))
    own = largest.below(m) * dm
    with np.errstate(divide="ignore", invalid="ignore"):
        within = np.nan_to_num(n * np.exp((n - 1) * largest.log_inside(m)) * (up + down) * dm)
        negative = np.nan_to_num(down / (up + down))
    lower, upper, turned = own * down, own * up, none
    if form.signed:
        lower, upper, turned = none, lower + upper, negative
        if farthest_is_lowest(form.grid):
            # The largest value meets the lowest level.
            lower, upper, turned = upper, lower, 1.0 - negative
    shells = Shells(scale, m, m, within, none, none, turned).select(within > 0)
    return shells, Tops(end, m, scale, lower, upper, turned)
