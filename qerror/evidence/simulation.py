"""The random reader of the definition: draw values, cast them, average. No formula of the error is used here."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from .._check import as_int, broadcast_shape, check_choice, check_scale, check_shift, shown
from .._threads import thread_map
from .._types import Array
from ..casting.scratch import Scratch, ScratchPool
from ..densities.base import Density, check_density
from ..grids.block_formats import BlockFormat, FormatLike, as_format
from ..results import ErrorTerms, SimulatedTerms, StandardErrors
from .blocks import simulate_blocks
from .estimation import (
    EMPTY,
    SCRATCH_SIZE,
    TERMS,
    BlockSums,
    Cast,
    Estimate,
    Quantizer,
    Tally,
    block_sums,
    combine,
    stacked,
    tally,
)
from .sampling import (
    LEAST,
    MOST_SAMPLES,
    MOST_THREADS,
    Plan,
    Stream,
    can_promise,
    make_plan,
    seed_of,
    streams,
    tail_index,
)

Sampler = Literal["pseudo", "sobol", "stratified"]
SAMPLERS = ("pseudo", "sobol", "stratified")

# Fewer clipped values than this, or values sent to the farther neighbour, say too little about their own scatter.
_FEWEST = 30
# Terms that are quadratic in x beyond the range, so that their variance takes a fourth moment.
_CLIPPING = TERMS.index("clipping")
_ROUNDED = [TERMS.index(term) for term in ("rounding", "mse", "bias", "cross")]
_QUADRATIC = [TERMS.index(term) for term in ("clipping", "mse", "cross", "power")]


def simulate(
    density: Density,
    grid: FormatLike,
    scale: ArrayLike | None = None,
    shift: ArrayLike = 0.0,
    *,
    n: int,
    rng: int | np.random.Generator | None = None,
    rounding: Literal["nearest", "stochastic"] = "nearest",
    sampler: Sampler = "pseudo",
) -> SimulatedTerms:
    """Estimate the error of rounding a density to shift + scale * levels from `n` random values.

    The means of (x - Q(x))^2 over the values beyond the end levels and between them, of Q(x) - x, x (Q(x) - x), x^2
    and x, with the standard error of each.

    Parameters
    ----------
    density : Density
        Of any `shape`; only its `sample`, `quantile`, `isf`, `cdf`, `sf` and `mean` are asked.
    grid : Grid, BlockFormat or str
        Dimensionless levels. Of a block format whole blocks of independent values are drawn and cast, and standard
        errors are those of means over blocks, whose values depend on each other.
    scale, shift : array_like
        Units of x; they broadcast against each other and `density.shape`. All share the same random numbers, and
        none changes the result of another. Of a block format the tensor scale, 1 by default, and no shift.
    n : int
        Samples for each scale: at least 100, 4096 for "sobol" (which uses the greatest multiple of a power of two
        that makes 32 or more randomizations) and "stratified". Of a block format values in whole blocks, rounded up,
        at least 100 blocks.
    rng : int, numpy.random.Generator or None
        A seed. A Generator gives one, None takes fresh entropy; the result's `rng` reproduces it.
    rounding : {"nearest", "stochastic"}
    sampler : {"pseudo", "sobol", "stratified"}
        Independent values; scrambled Sobol' points through the quantile function, each randomization one replicate
        (errors over their standard errors follow Student's t with 31 degrees of freedom or more); or strata below,
        inside and above the clipping points with weighted tails: for rare clipping and heavy tails. Blocks are drawn
        plainly.

    Returns
    -------
    SimulatedTerms
        Of the broadcast shape. A standard error is nan where none is honest, and `reason` says why: a plain sampler
        and an infinite fourth moment; fewer than 30 clipped values; fewer than 30 values that stochastic rounding
        should send to the farther of their neighbours.

    Raises
    ------
    ValueError
        For what is no density, bad scales or shifts, unknown names, `n` too small, or no seed.

    Notes
    -----
    Streams of 2^20 samples, each with its own NumPy PCG64 generator seeded by ``SeedSequence(rng).spawn``, are summed
    in order: the result does not depend on the number of threads. Other NumPy versions or processors may differ in
    the last digits (1e-12).

    Where the eighth moment is infinite (Student's t up to 8 degrees of freedom) a plain sampler's standard errors of
    clipping and mse are only slowly honest: scores reach -5 at n = 2e5. Strata have no such trouble; weighted ones
    are in Owen, "Monte Carlo theory, methods and examples" (2013), chapters 8 and 9.

    Examples
    --------
    >>> import qerror as qe
    >>> found = qe.simulate(qe.Gaussian(), "int4", 0.3, n=100_000, rng=1, sampler="stratified")
    >>> exact = qe.quantization_error(qe.Gaussian(), "int4", 0.3)
    >>> bool(abs(found.estimate.mse - exact.mse) < 5 * found.stderr.mse)
    True
    """
    check_choice("rounding", rounding, ("nearest", "stochastic"))
    check_choice("sampler", sampler, SAMPLERS)
    check_density(density)
    levels, shifts = as_format(grid), check_shift(shift)
    if isinstance(levels, BlockFormat):
        return _of_blocks(density, levels, scale, shifts, n, rng, rounding, sampler)
    if scale is None:
        raise ValueError("scale must be given for a grid; that of a block format is 1 by default")
    scales = check_scale(scale)
    shape = broadcast_shape(density.shape, scale=scales, shift=shifts)
    total = as_int("n", n, maximum=MOST_SAMPLES)
    if total < LEAST[sampler]:
        raise ValueError(f"n must be at least {LEAST[sampler]} for the sampler {sampler!r}, got {total}")
    seed = seed_of(rng)
    parts = streams(sampler, total, seed)
    casts = [
        Cast(levels, float(s), float(z), rounding)
        for s, z in zip(np.broadcast_to(scales, shape).flat, np.broadcast_to(shifts, shape).flat, strict=True)
    ]
    jobs = _jobs(density, casts, shape, sampler, parts[-1].stop)
    value, stderr, reason = run_jobs(jobs, parts)
    return result(value, stderr, shape, parts[-1].stop, seed, reason)


def _of_blocks(
    density: Density,
    form: BlockFormat,
    scale: ArrayLike | None,
    shifts: Array,
    n: int,
    rng: int | np.random.Generator | None,
    rounding: Literal["nearest", "stochastic"],
    sampler: Sampler,
) -> SimulatedTerms:
    if sampler != "pseudo":
        raise ValueError(f"sampler must be 'pseudo' with {form.name}, whose blocks are drawn plainly, got {sampler!r}")
    if shifts.any():
        raise ValueError(f"shift must be left at 0 with {form.name}, which has none, got {shown(shifts.tolist())}")
    scales = check_scale(1.0 if scale is None else scale)
    shape = broadcast_shape(density.shape, scale=scales)
    seed = seed_of(rng)
    value, stderr, drawn, reason = simulate_blocks(density, form, scales, shape, n, seed, rounding)
    return result(value, stderr, shape, drawn, seed, reason)


@dataclasses.dataclass(frozen=True)
class Job:
    """Rows of a simulation that read the same values."""

    density: Density
    plan: Plan
    rows: Sequence[int]
    casts: Sequence[Quantizer]


def _jobs(density: Density, casts: Sequence[Cast], shape: tuple[int, ...], sampler: str, n: int) -> list[Job]:
    """Rows of one member of the density together; with strata, which follow the range, each row by itself."""
    members = np.broadcast_to(np.arange(math.prod(density.shape)).reshape(density.shape), shape).ravel()
    jobs = []
    for member in np.unique(members):
        own = density.take(np.asarray(member)) if density.shape else density
        rows = np.flatnonzero(members == member).tolist()
        for group in [[row] for row in rows] if sampler == "stratified" else [rows]:
            plan = make_plan(sampler, own, n, casts[group[0]].lower, casts[group[0]].upper)
            jobs.append(Job(own, plan, group, [casts[row] for row in group]))
    return jobs


def run_jobs(jobs: Sequence[Job], parts: Sequence[Stream], *, at_most: int = MOST_THREADS) -> tuple[Array, Array, str]:
    """Estimates and standard errors, (rows, terms), and why some of these are nan."""
    pool = ScratchPool(SCRATCH_SIZE)
    tasks = [(job, part) for job in jobs for part in parts]
    tallies = thread_map(lambda task: _tally(*task, pool.of_thread()), tasks, at_most=at_most)
    n_rows = sum(len(job.rows) for job in jobs)
    value, stderr = np.empty((n_rows, len(TERMS))), np.empty((n_rows, len(TERMS)))
    reasons: dict[str, None] = {}
    for i, job in enumerate(jobs):
        estimate = combine(job.plan, stacked(tallies[i * len(parts) : (i + 1) * len(parts)]))
        centre = float(job.density.mean)
        value[job.rows] = estimate.value + np.array([0.0, 0.0, 0.0, 0.0, 0.0, centre * centre, centre])
        stderr[job.rows], why = _honest(job, estimate)
        reasons |= dict.fromkeys(why)
    return value, stderr, "; ".join(reasons)


def _tally(job: Job, stream: Stream, scratch: Scratch) -> Tally:
    """One stream through all casts of a job: (rows, groups, ...)."""
    centre = float(job.density.mean)
    groups = range(job.plan.mass.size)
    sums: list[list[list[BlockSums]]] = [[[] for _ in groups] for _ in job.casts]
    # Each row rounds by the same random numbers, whatever other rows there are.
    rounders = [stream.generators(2)[1] for _ in job.casts]
    for group, x, weight in job.plan.blocks(stream):
        for cast, rounder, own in zip(job.casts, rounders, sums, strict=True):
            scratch.rng = rounder
            own[group].append(block_sums(cast, x, weight, centre, scratch))
    return stacked([stacked([tally(blocks) if blocks else EMPTY for blocks in own]) for own in sums])


def _honest(job: Job, estimate: Estimate) -> tuple[Array, list[str]]:
    """Standard errors with nan where the samples cannot know them, and the reasons."""
    stderr, reasons = estimate.stderr.copy(), []
    index = tail_index(job.density)
    if not can_promise(job.plan, index):
        stderr[:, _QUADRATIC] = np.nan
        tail = f"the tail of {job.density.name} falls as x^-{1.0 / index:.3g}"
        if job.plan.exponent > 1.0:
            reasons.append(f"{tail}: so much of its power is too far out to be drawn at all")
        else:
            reasons.append(f"{tail}: E[x^4] is infinite, use sampler='stratified'")
    rare = np.flatnonzero((estimate.farther > 0.0) & (estimate.farther < _FEWEST))
    stderr[rare[:, None], _ROUNDED] = np.nan
    if rare.size:
        reasons.append(
            f"stochastic rounding sends fewer than {_FEWEST} values to the farther neighbour: too rare to tell"
        )
    if job.plan.exponent > 1.0:
        if job.plan.missed:
            stderr[:, _CLIPPING] = np.nan
            reasons.append(
                f"only {job.plan.missed:.1g} of {job.density.name} lies beyond the range: too rare to be drawn"
            )
        return stderr, reasons
    low, high = job.density.support
    ends = np.array([(cast.lower, cast.upper) for cast in job.casts])
    few = (estimate.clipped < _FEWEST) & ((low < ends[:, 0]) | (high > ends[:, 1]))
    # What clipping does to the other terms is as little known as itself.
    unknown = few & (estimate.share > 0.1)
    stderr[np.ix_(few, [_CLIPPING])] = np.nan
    stderr[np.ix_(unknown, _QUADRATIC)] = np.nan
    if few.any():
        count = int(estimate.clipped[few].max())
        reasons.append(f"no more than {count} values were clipped (fewer than {_FEWEST}): use sampler='stratified'")
    return stderr, reasons


def result(value: Array, stderr: Array, shape: tuple[int, ...], n: int, seed: int, reason: str) -> SimulatedTerms:
    """Flat estimates and standard errors, (rows, terms), in their shape and with their names."""
    columns = {name: i for i, name in enumerate(TERMS)}
    fields = [field.name for field in dataclasses.fields(ErrorTerms)]
    estimate = ErrorTerms(*(value[:, columns[name]].reshape(shape)[()] for name in fields))
    errors = StandardErrors(*(stderr[:, i].reshape(shape)[()] for i in range(len(TERMS))))
    return SimulatedTerms(estimate, errors, n, seed, reason)
