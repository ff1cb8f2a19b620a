"""How the values of a simulation are drawn: plainly, by Sobol' points, or by strata around the clipping points.

The axis of probabilities from 0 to 1 is cut at the clipping points. Any cut gives an unbiased estimate: where it lies
decides how fast the estimate converges, not what it converges to.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np

from .._check import shown
from .._threads import CHUNK, chunk_slices
from .._types import Array
from ..densities.base import Density

# Values in flight: long calls, so that threads seldom meet at the interpreter lock (16 MB a thread).
BLOCK = 1 << 18
# More threads would take memory (16 MB each) and only wait for the interpreter lock.
MOST_THREADS = 12
# Samples of one simulation: 2^20 streams, hours on any machine.
MOST_SAMPLES = 1 << 40
# With fewer samples a mean is not normal enough for its standard error to be one (each stratum needs some fifty).
LEAST = {"pseudo": 100, "sobol": 4096, "stratified": 4096}
# Independent scramblings of the Sobol' points: at least this many, less than twice as many below 2^26 samples.
_SCRAMBLINGS = 32
# Beyond this probability, on either side, a density has its tail.
_TAIL = 1.0 / 16.0
# Each stratum is cut into this many of equal size in v: what varies between them costs nothing.
_PIECES = 4
# Exponents of p = b v^k. The least resolves exponential tails (a ninth of the variance that k = 1 leaves of y^2). With
# the greatest, 1e-14 of the power of a heavy tail lies where p is no double: beyond, nothing can be promised.
_LEAST_EXPONENT, _GREATEST_EXPONENT = 2.0, 10.0
# Tail index from which on the fourth moment is infinite, less what `tail_index` may be off by.
HEAVY = 0.25 - 1e-6
# Probabilities below are no arguments for quantile functions any more.
_LEAST_PROBABILITY = 1e-306


@dataclasses.dataclass(frozen=True)
class Stream:
    """A part of a simulation with random numbers of its own: samples `start` to `stop`."""

    seed: np.random.SeedSequence
    start: int
    stop: int

    def generators(self, count: int = 1) -> list[np.random.Generator]:
        """Generators for the values (the first) and for `count` - 1 other uses; always the same ones."""
        # Not seed.spawn, which counts its calls: a stream is read once for each row.
        keys = [(*self.seed.spawn_key, i) for i in range(count)]
        seeds = [np.random.SeedSequence(self.seed.entropy, spawn_key=key) for key in keys]
        return [np.random.Generator(np.random.PCG64(seed)) for seed in seeds]


Blocks = Iterator[tuple[int, Array, Array | None]]


@dataclasses.dataclass(frozen=True)
class Plan:
    """A sampler for one density (and range).

    Attributes
    ----------
    mass : ndarray of shape (G,)
        Factor of each group: E[g] = sum over groups of mass * mean of (weight * g) in the group.
    blocks : callable
        From a stream to its blocks (group, x, weight or None).
    replicates : bool
        Whether streams are replicates, whose scatter is the standard error, instead of parts.
    exponent : float
        The exponent that the tails need; 1 for a plain sampler.
    missed : float
        Probability beyond the range that no stratum of its own reaches.
    """

    mass: Array
    blocks: Callable[[Stream], Blocks]
    replicates: bool = False
    exponent: float = 1.0
    missed: float = 0.0


def seed_of(rng: Any) -> int:
    """The integer that reproduces a simulation: the seed itself, or one drawn from a Generator or fresh entropy."""
    if rng is None:
        return int(np.random.SeedSequence().generate_state(1, np.uint64)[0])
    if isinstance(rng, np.random.Generator):
        return int(rng.integers(1 << 63))
    if isinstance(rng, int | np.integer) and not isinstance(rng, bool) and rng >= 0:
        return int(rng)
    raise ValueError(f"rng must be a non-negative integer, a numpy.random.Generator or None, got {shown(rng)}")


def streams(sampler: str, n: int, seed: int, size: int = CHUNK) -> list[Stream]:
    """Cut `n` samples into streams of 2^20 (the last one shorter; Sobol' points into equal powers of two)."""
    if sampler == "sobol":
        size = min(size, 1 << int(math.log2(n // _SCRAMBLINGS)))
        n -= n % size
    parts = chunk_slices(n, size)
    seeds = np.random.SeedSequence(seed).spawn(len(parts))
    return [Stream(own, part.start, part.stop) for own, part in zip(seeds, parts, strict=True)]


def make_plan(sampler: str, density: Density, n: int, lower: float, upper: float) -> Plan:
    """The sampler of that name, for one density and the range from `lower` to `upper`."""
    if sampler == "pseudo":
        return Plan(np.ones(1), partial(_plain_blocks, density))
    if sampler == "sobol":
        return Plan(np.ones(1), partial(_sobol_blocks, density), replicates=True)
    return _stratified(density, n, lower, upper)


def tail_index(density: Density) -> float:
    """The heavier of both tails: 1 / a where P(|X| > x) falls as x^-a, next to 0 where it falls faster.

    The slope of log x by -log p between p = 1e-60 and 1e-120; moments of order 1 / index and above are infinite.
    """
    p = np.array([1e-60, 1e-120])
    middle = float(density.quantile(0.5))
    with np.errstate(all="ignore"):
        far = np.abs(np.stack([density.isf(p), density.quantile(p)]) - middle)
        slope = np.log(far[:, 1] / far[:, 0]) / math.log(1e60)
    return float(np.max(np.where(np.isfinite(slope), slope, 0.0), initial=0.0))


def _sizes(total: int) -> list[int]:
    return [part.stop - part.start for part in chunk_slices(total, BLOCK)]


def _plain_blocks(density: Density, stream: Stream) -> Blocks:
    (generator,) = stream.generators()
    for size in _sizes(stream.stop - stream.start):
        yield 0, density.sample(size, generator), None


def _sobol_blocks(density: Density, stream: Stream) -> Blocks:
    from scipy.stats import qmc

    (generator,) = stream.generators()
    # 52 bits, and half of the last one: strictly between 0 and 1.
    engine = qmc.Sobol(1, scramble=True, bits=52, rng=generator)
    for size in _sizes(stream.stop - stream.start):
        u = engine.random(size)[:, 0] + 2.0**-53
        yield 0, np.where(u < 0.5, density.quantile(u), density.isf(1.0 - u)), None


# -- strata ------------------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class _Stratum:
    """Values x = isf(p) (or quantile(p)) with p = top v^exponent, v uniform from `start` to `stop`."""

    upper: bool
    top: float
    exponent: float
    start: float
    stop: float

    def draw(self, density: Density, generator: np.random.Generator, size: int) -> tuple[Array, Array]:
        """Values, and the weights dp / (top dv) that make them a sample of the density."""
        v = self.stop - (self.stop - self.start) * generator.random(size)
        slope = v if self.exponent == 2.0 else v ** (self.exponent - 1.0)
        p = np.maximum(self.top * (slope * v), _LEAST_PROBABILITY)
        x = np.asarray(density.isf(p) if self.upper else density.quantile(p))
        return x, self.exponent * slope


def _stratified(density: Density, n: int, lower: float, upper: float) -> Plan:
    needed = _exponent(density)
    exponent = min(needed, _GREATEST_EXPONENT)
    strata: list[_Stratum] = []
    share: list[float] = []
    missed = 0.0
    for side in (False, True):
        tail = density.sf if side else density.cdf
        ends = [float(tail(end)) for end in (lower, upper)]
        least = _LEAST_PROBABILITY * 1e6**exponent
        missed = max([missed, *(p for p in ends if 0.0 < p < least)])
        cuts = sorted({0.0, 0.5, _TAIL, *(p for p in ends if least <= p < 0.5)})
        for low, high in pairwise(cuts):
            power = exponent if high <= _TAIL else 1.0
            start = (low / high) ** (1.0 / power)
            knots = np.linspace(start, 1.0, _PIECES + 1)
            strata += [_Stratum(side, high, power, a, b) for a, b in pairwise(knots)]
            share += [high - low] * _PIECES
    # Half by probability, for the rounding error; half equally, for what is rare.
    portion = 0.5 * np.array(share) / np.sum(share) + 0.5 / len(strata)
    count = np.floor(portion * n).astype(np.int64)
    count[np.argmax(count)] += n - count.sum()
    mass = np.array([s.top * (s.stop - s.start) for s in strata])
    return Plan(mass, partial(_stratified_blocks, density, strata, count.tolist(), n), False, needed, missed)


def _exponent(density: Density) -> float:
    """The k for which weight * x^2 stays bounded in the tail: 1 / (1 - 2 index), or more."""
    remainder = 1.0 - 2.0 * tail_index(density)
    return max(_LEAST_EXPONENT, 1.0 / remainder) if remainder > 0.0 else math.inf


def _stratified_blocks(density: Density, strata: list[_Stratum], count: list[int], n: int, stream: Stream) -> Blocks:
    (generator,) = stream.generators()
    for group, (stratum, own) in enumerate(zip(strata, count, strict=True)):
        for size in _sizes(own * stream.stop // n - own * stream.start // n):
            x, weight = stratum.draw(density, generator, size)
            yield group, x, weight


def can_promise(plan: Plan, index: float) -> bool:
    """Whether squares of x have standard errors: finite fourth moments, or weights that make up for them."""
    return plan.exponent <= _GREATEST_EXPONENT if plan.exponent > 1.0 else index < HEAVY
