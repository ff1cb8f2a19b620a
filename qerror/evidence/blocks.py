"""The random reader of block formats: draw whole blocks, cast them, average over blocks, which are independent."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np

from .._check import as_int
from .._threads import CHUNK, chunk_slices, thread_map
from .._types import Array
from ..casting.block_scales import scales_of
from ..casting.blocks import cast_at
from ..casting.cast import Rounding, fake_quantize
from ..densities.base import Density
from ..grids.block_formats import BlockFormat
from .estimation import TERMS, Tally, merged, stacked
from .sampling import BLOCK, HEAVY, LEAST, MOST_SAMPLES, MOST_THREADS, Stream, streams, tail_index

# Fewer clipped blocks than this say too little about their own scatter.
_FEWEST = 30
_CLIPPING = TERMS.index("clipping")
# Rounding, too: its steps are in proportion to the largest magnitude.
_QUADRATIC = [TERMS.index(term) for term in ("clipping", "rounding", "mse", "cross", "power")]


def simulate_blocks(
    density: Density, form: BlockFormat, scales: Array, shape: tuple[int, ...], n: int, seed: int, rounding: Rounding
) -> tuple[Array, Array, int, str]:
    """Estimates and standard errors, (rows, terms), how many values were drawn, and why some errors are nan.

    Parameters
    ----------
    density : Density
    form : BlockFormat
    scales : ndarray
        Tensor scales; they and the density broadcast to `shape`.
    shape : tuple of int
    n : int
        Values of each row, rounded up to whole blocks.
    seed : int
    rounding : {"nearest", "stochastic"}
        Of the elements.
    """
    size = form.block_size
    blocks = -(-as_int("n", n, maximum=MOST_SAMPLES) // size)
    if blocks < LEAST["pseudo"]:
        raise ValueError(f"n must be at least {LEAST['pseudo'] * size}, {LEAST['pseudo']} blocks of {size}, got {n}")
    parts = streams("pseudo", blocks, seed, max(1, CHUNK // size))
    member = np.broadcast_to(np.arange(math.prod(density.shape)).reshape(density.shape), shape).ravel()
    own = [density.take(np.asarray(i)) if density.shape else density for i in member]
    rows = list(zip(own, np.broadcast_to(scales, shape).ravel().tolist(), strict=True))
    tasks = [(row, part) for row in rows for part in parts]
    tallies = thread_map(lambda task: _tally(*task[0], form, task[1], rounding), tasks, at_most=MOST_THREADS)
    value, stderr = np.empty((len(rows), len(TERMS))), np.empty((len(rows), len(TERMS)))
    reasons: dict[str, None] = {}
    for i, (one, _) in enumerate(rows):
        value[i], stderr[i], why = block_means(one, tallies[i * len(parts) : (i + 1) * len(parts)])
        reasons |= dict.fromkeys(why)
    return value, stderr, blocks * size, "; ".join(reasons)


def _tally(density: Density, unit: float, form: BlockFormat, stream: Stream, rounding: Rounding) -> Tally:
    """The blocks of one stream: moments over the blocks of the means in each."""
    values, rounder = stream.generators(2)
    parts = []
    for count in _counts(stream, form.block_size):
        x = density.sample((count, form.block_size), values)
        scale = unit * scales_of(x, form, unit)[:, None]
        error = cast_at(fake_quantize, x, form.grid, scale, rounding=rounding, rng=rounder)
        error -= x
        parts.append(moments(x, error, scale, form))
    return merged(stacked(parts))


def moments(x: Array, error: Array, scale: Array, form: BlockFormat) -> Tally:
    """Blocks (blocks, values), what a quantizer adds to them and their scales (blocks, 1): moments of their means."""
    low, high = np.sort([scale * form.grid.min, scale * form.grid.max], axis=0)
    outside = (x < low) | (x > high)
    square = error * error
    lost = np.where(outside, square, 0.0)
    terms = [lost, square - lost, square, error, x * error, x * x, x]
    means = np.stack([term.mean(axis=1) for term in terms], axis=1)
    centre = means.mean(axis=0)
    clipped = np.array([np.count_nonzero(outside.any(axis=1))])
    return Tally(np.array([float(len(x))]), centre, np.square(means - centre).sum(axis=0), clipped, np.zeros(1))


def block_means(density: Density, tallies: Sequence[Tally]) -> tuple[Array, Array, list[str]]:
    """Estimates and standard errors of all terms, and why some of these are nan."""
    whole = merged(stacked(tallies))
    stderr = np.sqrt(whole.m2 / (whole.size * (whole.size - 1.0)))
    return np.asarray(whole.mean), stderr, _be_honest(density, stderr, int(whole.clipped[0]))


def _counts(stream: Stream, size: int) -> Iterator[int]:
    for part in chunk_slices(stream.stop - stream.start, max(1, BLOCK // size)):
        yield part.stop - part.start


def _be_honest(density: Density, stderr: Array, clipped: int) -> list[str]:
    """Put nan where the blocks cannot know a standard error; the reasons."""
    reasons = []
    index = tail_index(density)
    if index >= HEAVY:
        stderr[_QUADRATIC] = np.nan
        reasons.append(f"the tail of {density.name} falls as x^-{1.0 / index:.3g}: E[x^4] is infinite")
    if clipped < _FEWEST:
        stderr[_CLIPPING] = np.nan
        reasons.append(f"no more than {clipped} blocks were clipped (fewer than {_FEWEST})")
    return reasons
