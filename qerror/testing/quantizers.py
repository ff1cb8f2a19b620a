"""Anyone's quantizer against the theory: its errors by z-scores, its answers at chosen points, a diagnosis."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Literal

import numpy as np
from numpy.typing import DTypeLike
from scipy.special import ndtri

from .._check import as_int, as_rng, check_choice, check_scale, check_shift, shown
from .._types import Array
from ..casting.scratch import Scratch
from ..densities.base import Density, check_density
from ..errors.quantization import quantization_error
from ..evidence.sampling import LEAST, MOST_SAMPLES, Blocks, Plan, Stream, make_plan, seed_of, streams
from ..evidence.simulation import Job, result, run_jobs
from ..grids.block_formats import BlockFormat, FormatLike, as_format
from ..grids.grid import Grid
from ..results import ErrorTerms, SimulatedTerms
from .block_quantizers import check_blocks
from .probes import probe
from .subject import Finding, Subject

# The |z| that one of three true terms exceeds with a probability of 1e-7.
_CERTAIN = float(-ndtri(1e-7 / 6))
# Values for the checks of order and symmetry.
_SAMPLE = 1 << 17


def check_quantizer(
    fn: Callable[[Any], Any],
    grid: FormatLike,
    density: Density,
    scale: float | None = None,
    shift: float = 0.0,
    *,
    n: int = 1_000_000,
    rounding: Literal["nearest", "stochastic"] = "nearest",
    rng: int | np.random.Generator | None = 0,
    dtype: DTypeLike = np.float32,
) -> SimulatedTerms:
    """Compare a quantizer with the theory, and say what is wrong with it.

    Stratified samples of the density go through `fn`; its clipping error, rounding error and bias must be within 5.5
    standard errors of the prediction. Then it must return values of the grid only, send each to itself, saturate, be
    monotone, idempotent and odd (where the grid is), decide right next to the thresholds, send ties to the even code,
    and treat each value alike wherever it stands; with stochastic rounding, go up in the right proportion.

    The diagnosis knows truncation, ties, double rounding, clips, wrap-around, flushed subnormals, wrong scales and zero
    points, wrong entries of tables, dependence on neighbours, and random numbers that are few or not uniform.

    A kernel of a block format is compared with `fake_quantize` on samples, over the range of the block scales and on
    ties, and its errors with `quantization_error` (blocks are the independent units). The diagnosis knows other rules
    of the block scale, wrong roundings and ends of stored scales (underflow, saturation), tensor scales that are
    missing, blocks of another size or along the other axis, swapped nibbles, a lost sign of -0, and wrong elements:
    truncation, ties, clips, subnormals, double rounding.

    Parameters
    ----------
    fn : callable
        From an array (one axis, `dtype`) to the dequantized values, an array of the same shape. It is called in one
        thread, with arrays of its own. For PyTorch: ``lambda x: op(torch.from_numpy(x)).numpy()``. Of a block format
        the array has two axes, with whole blocks along the last one.
    grid : Grid, BlockFormat or str
    density : Density
        Of shape ().
    scale, shift : float
        The values should be shift + scale * levels. Of a block format `scale` is the tensor scale (1 unless given,
        where the format has none), and there is no shift.
    n : int
        Samples, at least 4096; as many as make 4096 blocks are drawn of a block format.
    rounding : {"nearest", "stochastic"}
        What the quantizer claims to do.
    rng : int, numpy.random.Generator or None
    dtype : dtype
        A NumPy floating-point type, in which values are handed to `fn`.

    Returns
    -------
    SimulatedTerms
        The error of the quantizer, as measured.

    Raises
    ------
    AssertionError
        With what is wrong, and what that looks like.
    ValueError
        If `fn` returns another shape, NaN or infinity, or an argument is bad.

    Notes
    -----
    What cannot be seen: the rule for ties unless `scale` is a power of two and the thresholds are numbers of `dtype`
    (then no value lies on a threshold, and the rule changes nothing); double rounding through a type less than eight
    times coarser than `dtype`, which looks like the rounding of `fn`'s own arithmetic; random numbers of b bits
    when n 2^-b is below a few thousand (8 bits at n = 1e6, 11 at 1e7), and of more than 11. Of block formats: ties of
    block scales, which may go either way; ties of elements unless the tensor scale is a power of two; a short last
    block.

    Examples
    --------
    >>> import numpy as np, qerror as qe
    >>> from qerror.testing import check_quantizer
    >>> good = check_quantizer(lambda x: qe.fake_quantize(x, "int4", 0.25), "int4", qe.Gaussian(), 0.25, n=100_000)
    >>> check_quantizer(lambda x: np.clip(np.floor(x / 0.25), -8, 7) * 0.25, "int4", qe.Gaussian(), 0.25, n=100_000)
    Traceback (most recent call last):
        ...
    AssertionError: the quantizer is not int4 at scale 0.25, rounded to nearest: looks like truncation (rounding down)
    ...
    """
    check_choice("rounding", rounding, ("nearest", "stochastic"))
    check_density(density)
    if density.shape:
        raise ValueError(f"density must have shape (), got {shown(density)}; check its members one by one")
    levels = as_format(grid)
    if isinstance(levels, BlockFormat):
        if np.any(check_shift(shift)):
            raise ValueError(f"shift must be 0 for a block format, got {shown(shift)}")
        return check_blocks(fn, levels, density, scale, n=n, rounding=rounding, rng=rng, dtype=dtype)
    if scale is None:
        raise ValueError(f"scale must be given for a grid; qerror.optimal_scale finds the best one for {levels!r}")
    subject = _subject(fn, levels, scale, shift, dtype)
    total = as_int("n", n, LEAST["stratified"], MOST_SAMPLES)
    seed = seed_of(rng)
    measured = _measure(subject, density, rounding, total, seed)
    predicted = quantization_error(density, subject.grid, subject.scale, subject.shift, rounding=rounding)
    generator = as_rng(seed)
    sample = subject.inputs(density.sample(min(total, _SAMPLE), generator))
    findings = [*_errors(subject, predicted, measured), *probe(subject, sample, rounding, total, generator)]
    if findings:
        raise AssertionError(_diagnosis(subject, rounding, findings))
    return measured


def _subject(fn: Any, grid: Grid, scale: Any, shift: Any, dtype: DTypeLike) -> Subject:
    if not callable(fn):
        raise ValueError(f"fn must be a function from array to array, got {shown(fn)}")
    if np.ndim(scale) or np.ndim(shift):
        raise ValueError(f"scale and shift must be single numbers, got {shown(scale)} and {shown(shift)}")
    kind = np.dtype(dtype)
    if kind.kind != "f":
        raise ValueError(f"dtype must be a floating-point dtype of NumPy such as numpy.float32, got {kind}")
    return Subject(fn, grid, float(check_scale(scale)), float(check_shift(shift)), kind)


class _Outputs:
    """The subject as the simulation calls it: outputs moved onto the value of the grid that they stand for."""

    def __init__(self, subject: Subject, rounding: str) -> None:
        self._subject = subject
        self.lower, self.upper = float(subject.values[0]), float(subject.values[-1])
        self.neighbours = subject.values if rounding == "stochastic" else None

    def __call__(self, x: Array, out: Array, work: Array, scratch: Scratch) -> None:
        index, good, raw = self._subject.levels(x)
        # The last digit of a product in float32 or bfloat16 is not what is tested here.
        np.copyto(out, np.where(good, self._subject.values[index], raw))


def _measure(subject: Subject, density: Density, rounding: str, n: int, seed: int) -> SimulatedTerms:
    outputs = _Outputs(subject, rounding)
    plan = make_plan("stratified", density, n, outputs.lower, outputs.upper)

    def blocks(stream: Stream) -> Blocks:
        for group, x, weight in plan.blocks(stream):
            yield group, subject.inputs(x), weight

    rounded = Plan(plan.mass, blocks, plan.replicates, plan.exponent, plan.missed)
    value, stderr, reason = run_jobs([Job(density, rounded, [0], [outputs])], streams("stratified", n, seed), at_most=1)
    return result(value, stderr, (), n, seed, reason)


def _errors(subject: Subject, predicted: ErrorTerms, measured: SimulatedTerms) -> list[Finding]:
    """Terms that are too far from their prediction."""
    step = subject.scale * float(np.median(np.diff(subject.grid.levels)))
    findings = []
    for term in ("clipping", "rounding", "bias"):
        expected, found = float(getattr(predicted, term)), float(getattr(measured.estimate, term))
        stderr = float(getattr(measured.stderr, term))
        # Inputs are rounded to their type before the function sees them.
        unit = float(np.finfo(subject.dtype).eps)
        doubt = math.hypot(stderr, unit * (abs(expected) if term != "bias" else step))
        if math.isnan(stderr) or abs(found - expected) <= _CERTAIN * doubt:
            continue
        z = f"{(found - expected) / doubt:+.0f} standard errors"
        if term == "bias":
            findings.append(Finding(f"bias {found / step:+#.2g} step where {expected / step:+#.2g} is predicted ({z})"))
        else:
            ratio = f"{found / expected:#.3g}x" if expected else f"{found:.3g} where none is"
            findings.append(Finding(f"{term} error {ratio} predicted ({z})"))
    return findings


def _diagnosis(subject: Subject, rounding: str, findings: list[Finding]) -> str:
    causes = list(dict.fromkeys(finding.cause for finding in findings if finding.cause))
    mode = "rounded to nearest" if rounding == "nearest" else "rounded stochastically"
    shift = f", shift {subject.shift:g}" if subject.shift else ""
    head = f"the quantizer is not {subject.grid.name or subject.grid} at scale {subject.scale:g}{shift}, {mode}"
    looks = f": looks like {'; '.join(causes)}" if causes else ""
    return "\n  ".join([head + looks, *(finding.text for finding in findings)])
