"""Dot products of quantized vectors, drawn and cast: the random counterpart of `qerror.dot_product_error`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import numpy as np

from .._check import as_int, check_choice, check_scale, check_shift, shown
from .._threads import CHUNK, thread_map
from .._types import Array
from ..casting.scratch import Scratch
from ..densities.base import Density, check_density
from ..grids.formats import grid as as_grid
from ..results import DotProductError, DotProductStandardErrors, SimulatedDotProduct
from .estimation import Cast, Tally, merged, stacked
from .sampling import BLOCK, HEAVY, LEAST, MOST_SAMPLES, MOST_THREADS, Stream, seed_of, streams, tail_index


class _Side(NamedTuple):
    density: Density
    cast: Cast


def simulate_dot_product(
    x: Sequence[Any],
    w: Sequence[Any],
    *,
    length: int = 1,
    n: int,
    rng: int | np.random.Generator | None = None,
    rounding: Literal["nearest", "stochastic"] = "nearest",
) -> SimulatedDotProduct:
    """Estimate the error of sum Q(x_i) Q(w_i) against sum x_i w_i from `n` random dot products.

    The means of d^2, d and y^2 over the sums y of x_i w_i and their errors d, with standard errors.

    Parameters
    ----------
    x, w : tuple of (density, grid, scale) or (density, grid, scale, shift)
        What is drawn on either side, independently, and how it is quantized: one density and one scale each.
    length : int
        Number of products in a sum.
    n : int
        How many sums are drawn, at least 100.
    rng : int, numpy.random.Generator or None
        As in `simulate`; streams, generator and threads are the same.
    rounding : {"nearest", "stochastic"}

    Returns
    -------
    SimulatedDotProduct
        Standard errors of mse and power are nan where a density has no finite fourth moment.

    Raises
    ------
    ValueError
        For anything else than these tuples, and as `simulate` does.

    Examples
    --------
    >>> import qerror as qe
    >>> side = (qe.Gaussian(), "int4", 0.34)
    >>> found = qe.simulate_dot_product(side, side, length=16, n=10_000, rng=1)
    >>> terms = qe.quantization_error(*side)
    >>> exact = qe.dot_product_error(terms, terms, length=16)
    >>> bool(abs(found.estimate.mse - exact.mse) < 5 * found.stderr.mse)
    True
    """
    check_choice("rounding", rounding, ("nearest", "stochastic"))
    sides = [_side(name, given, rounding) for name, given in (("x", x), ("w", w))]
    size = as_int("length", length, 1, CHUNK)
    # As many streams as a simulation has at most.
    total = as_int("n", n, LEAST["pseudo"], MOST_SAMPLES // CHUNK * max(1, BLOCK // size))
    seed = seed_of(rng)
    parts = streams("pseudo", total, seed, max(1, BLOCK // size))
    whole = merged(stacked(thread_map(lambda part: _draw(sides, size, part), parts, at_most=MOST_THREADS)))
    scatter = np.sqrt(whole.m2 / (total * (total - 1.0)))
    mse, bias, power = whole.mean
    estimate = DotProductError(mse=mse, bias=bias, power=power, length=size)
    heavy = [side.density.name for side in sides if tail_index(side.density) >= HEAVY]
    if heavy:
        scatter[[0, 2]] = np.nan
    reason = f"E[x^4] of {' and '.join(dict.fromkeys(heavy))} is infinite" if heavy else ""
    return SimulatedDotProduct(estimate, DotProductStandardErrors(*scatter), total, seed, reason)


def _side(name: str, given: Sequence[Any], rounding: str) -> _Side:
    if not isinstance(given, tuple | list) or len(given) not in (3, 4):
        raise ValueError(f"{name} must be (density, grid, scale) or (density, grid, scale, shift), got {shown(given)}")
    density, grid, scale, shift = (*given, 0.0) if len(given) == 3 else given
    check_density(density)
    if density.shape or np.ndim(scale) or np.ndim(shift):
        raise ValueError(f"{name} must have one density, one scale and one shift, got {shown(given)}")
    return _Side(density, Cast(as_grid(grid), float(check_scale(scale)), float(check_shift(shift)), rounding))


def _draw(sides: Sequence[_Side], length: int, stream: Stream) -> Tally:
    """Moments of d^2, d and y^2 over the dot products of one stream."""
    count = stream.stop - stream.start
    generators = stream.generators(4)
    scratch, work = Scratch(count * length), np.empty((2, count * length))
    (x, error_x), (w, error_w) = (
        _cast(side, count * length, generators[2 * i : 2 * i + 2], scratch, work) for i, side in enumerate(sides)
    )
    # Q(x) Q(w) - x w, written so that the products themselves do not cancel.
    wrong = (error_x * (w + error_w) + x * error_w).reshape(count, length).sum(axis=1)
    right = (x * w).reshape(count, length).sum(axis=1)
    rows = np.stack([wrong * wrong, wrong, right * right])
    mean = rows.sum(axis=1) / count
    m2 = np.square(rows - mean[:, None]).sum(axis=1)
    return Tally(np.array([float(count)]), mean, m2, np.zeros(1, np.int64), np.zeros(1))


def _cast(
    side: _Side, size: int, generators: Sequence[np.random.Generator], scratch: Scratch, work: Array
) -> tuple[Array, Array]:
    """Values and the errors of casting them."""
    x, error = side.density.sample(size, generators[0]), np.empty(size)
    scratch.rng = generators[1]
    side.cast(x, error, work, scratch)
    error -= x
    return x, error
