"""The predictions of the library against independent simulations: a verdict with known probabilities of being wrong."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
from scipy.special import ndtri

from .._check import as_int, shown
from .._types import Array
from ..densities.base import Density, check_density
from ..densities.named import density as as_density
from ..errors.exact import ROUNDINGS, Rounding
from ..errors.quantization import quantization_error
from ..grids.block_formats import BlockFormat, as_format
from ..grids.grid import Grid
from ..results import SimulatedTerms
from ..search.optimal import optimal_scale
from .block_cases import PHRASES, check_count, is_predicted, only_honest, tensor_scales
from .estimation import TERMS
from .sampling import MOST_SAMPLES, seed_of
from .simulation import simulate

GRIDS = ("int4", "int8", "e2m1", "e4m3fn", "nf4")
DENSITIES = ("gaussian", "laplace", "uniform", "student-t:df=5")
PLACES = {"below": 0.5, "at": 1.0, "above": 2.0}
# Below, the means of strata are not normal enough six standard errors out.
_LEAST = 100_000
# A tenth of the probability promised: the other nine are for what the means still lack of being normal.
_FALSE_ALARM, _SPENT = 1e-6, 1e-7
# Chance to catch a deviation of the size that the report states.
_POWER = 0.999
# What float64 leaves open of either side, in parts of the term or (bias, cross) of the signal.
_RELATIVE, _OF_SIGNAL = 1e-11, 1e-13


@dataclasses.dataclass(frozen=True)
class Comparison:
    """One term: predicted, simulated, its standard error, and their distance `z` in standard errors (0 if both are 0).

    `z` is nan where no standard error is honest: such a term is not tested. It is infinite where the prediction is no
    finite number: that is rejected.
    """

    predicted: float
    simulated: float
    stderr: float
    z: float


@dataclasses.dataclass(frozen=True)
class VerificationRow:
    """One quantizer: where its scale lies ("below", "at", "above" the optimum), and the comparison of every term.

    Of a block format the scale is that of the tensor: "half", "own" or "double" that of 2^20 values; else "octave",
    "octave + 1/3" or "octave + 2/3"; or "any", where it changes nothing.

    `simulate(density, grid, scale, n=..., rng=rng, rounding=rounding, sampler="stratified")` repeats it (blocks: with
    no `sampler`); `reason` says why a z is nan.
    """

    density: str
    grid: str
    place: str
    scale: float
    rounding: str
    rng: int
    terms: dict[str, Comparison]
    reason: str

    def failures(self, threshold: float) -> list[str]:
        """Terms whose prediction is more than `threshold` standard errors away."""
        return [term for term, found in self.terms.items() if abs(found.z) > threshold]


@dataclasses.dataclass(frozen=True)
class VerificationReport:
    """Predictions beside simulations.

    Attributes
    ----------
    rows : tuple of VerificationRow
    n : int
        Samples behind each row.
    rng : int
        The seed that repeats the report.
    threshold : float
        The |z| that no term may exceed. If all predictions are right, one does with a probability below 1e-6.
    power : dict
        For clipping, rounding and mse: a relative deviation that would be caught in any tested row, with probability
        0.999; nan without one.
    """

    rows: tuple[VerificationRow, ...]
    n: int
    rng: int
    threshold: float
    power: dict[str, float]

    @property
    def failures(self) -> tuple[tuple[VerificationRow, str], ...]:
        """The rows and terms whose prediction the simulation rejects."""
        return tuple((row, term) for row in self.rows for term in row.failures(self.threshold))

    @property
    def passed(self) -> bool:
        """Whether no prediction is rejected."""
        return not self.failures

    @property
    def tested(self) -> int:
        """How many terms were tested."""
        return sum(not math.isnan(found.z) for row in self.rows for found in row.terms.values())

    @property
    def statement(self) -> str:
        """The verdict in words, with what it can and cannot see."""
        total = sum(len(row.terms) for row in self.rows)
        failed = len(self.failures)
        verdict = f"{failed} of {self.tested} predictions rejected" if failed else f"all {self.tested} predictions hold"
        doubted = (row for row in self.rows if any(math.isnan(found.z) for found in row.terms.values()))
        reasons = "; ".join(dict.fromkeys(row.reason for row in doubted if row.reason))
        left = f" ({total - self.tested} more could not be tested: {reasons})" if total > self.tested else ""
        worst = max((abs(f.z) for row in self.rows for f in row.terms.values() if not math.isnan(f.z)), default=0.0)
        seen = ", ".join(
            f"{term} untested" if math.isnan(share) else f"{term} {100 * share:.2g}%"
            for term, share in self.power.items()
        )
        return (
            f"{verdict}{left}: |z| at most {worst:.2f}, allowed {self.threshold:.2f} "
            f"(false alarm of the whole report below {_FALSE_ALARM:g}).\n"
            f"Deviations caught in any tested row with probability {_POWER}: {seen}."
        )

    def __repr__(self) -> str:
        lines = [
            f"{row.density}, {row.grid}, {PHRASES[row.place]} ({row.scale:.6g}), {row.rounding}: {term} "
            f"predicted {row.terms[term].predicted:.8g}, simulated {row.terms[term].simulated:.8g} "
            f"+- {row.terms[term].stderr:.1g}, z = {row.terms[term].z:.1f}"
            for row, term in self.failures
        ]
        return "\n".join([f"VerificationReport of {len(self.rows)} quantizers, n = {self.n}", self.statement, *lines])


def verify(
    grids: Grid | BlockFormat | str | Sequence[Grid | BlockFormat | str] | None = None,
    densities: Density | str | Sequence[Density | str] | None = None,
    *,
    n: int = 10_000_000,
    rng: int | np.random.Generator | None = None,
    progress: Callable[[Sequence[Any]], Iterable[Any]] | None = None,
) -> VerificationReport:
    """Challenge the predicted errors by stratified simulations, at half, one and two times the optimal scale.

    Of block formats, whose blocks are drawn plainly, at half, one and two times the tensor scale of 2^20 values; where
    they have none at three places in an octave.

    A prediction is rejected where |simulated - predicted| > z* standard errors, with z* such that m true predictions
    are all accepted with a probability above 1 - 1e-6: z* = -Phi^-1(1e-7 / (2 m)), ten times stricter than Bonferroni
    needs it for normal means.

    Parameters
    ----------
    grids : Grid, BlockFormat, str or sequence of them
        Default: int4, int8, e2m1, e4m3fn, nf4.
    densities : Density, str or sequence of them
        Each of shape (). Default: gaussian, laplace, uniform, student-t:df=5.
    n : int
        Samples behind each row, at least 100 000, and 4096 blocks of a block format (rounded up to whole ones).
    rng : int, numpy.random.Generator or None
        A seed; the report's `rng` repeats it.
    progress : callable, optional
        Wraps the sequence of (density, grid, rounding) that is worked through, to draw a bar.

    Returns
    -------
    VerificationReport
        A row for each density, grid, scale and rounding mode.

    Raises
    ------
    ValueError
        For unknown names, arrays of densities, `n` too small, block formats that `quantization_error` does not know.

    Examples
    --------
    >>> import qerror as qe
    >>> report = qe.verify("int4", "gaussian", n=100_000, rng=1)
    >>> report.passed, len(report.rows), report.tested
    (True, 6, 42)
    """
    total = as_int("n", n, _LEAST, MOST_SAMPLES)
    seed = seed_of(rng)
    pairs = [(d, g) for d in _densities(densities) for g in _grids(grids, total)]
    cases = [(d, g, rounding, i) for i, (d, g) in enumerate(pairs) for rounding in ROUNDINGS]
    rows = [row for case in (progress or iter)(cases) for row in _rows(*case, n=total, seed=seed)]
    tests = sum(not math.isnan(found.z) for row in rows for found in row.terms.values())
    threshold = float(-ndtri(_SPENT / (2 * max(tests, 1))))
    return VerificationReport(tuple(rows), total, seed, threshold, _detectable(rows, threshold))


def predict(density: Density, grid: Grid | BlockFormat, scale: Array, rounding: Rounding) -> dict[str, Array]:
    """Every term as the library predicts it."""
    error = quantization_error(density, grid, scale, rounding=rounding)
    return {term: np.asarray(getattr(error, term)) for term in TERMS}


def _rows(
    density: Density, grid: Grid | BlockFormat, rounding: Rounding, case: int, *, n: int, seed: int
) -> list[VerificationRow]:
    own = int(np.random.SeedSequence([seed, case]).generate_state(1, np.uint64)[0])
    if isinstance(grid, BlockFormat):
        places, name = tensor_scales(density, grid), grid.name
        scales = np.array(list(places.values()))
        found = only_honest(density, simulate(density, grid, scales, n=n, rng=own, rounding=rounding))
    else:
        best = float(optimal_scale(density, grid, rounding=rounding).scale)
        places, name = {place: best * factor for place, factor in PLACES.items()}, grid.name or repr(grid)
        scales = np.array(list(places.values()))
        found = simulate(density, grid, scales, n=n, rng=own, rounding=rounding, sampler="stratified")
    predicted = predict(density, grid, scales, rounding)
    return [
        VerificationRow(
            density=density.name,
            grid=name,
            place=place,
            scale=scale,
            rounding=rounding,
            rng=own,
            terms=_compare({term: float(values[i]) for term, values in predicted.items()}, found, i),
            reason=found.reason,
        )
        for i, (place, scale) in enumerate(places.items())
    ]


def _compare(predicted: dict[str, float], found: SimulatedTerms, i: int) -> dict[str, Comparison]:
    signal = math.sqrt(predicted["power"])
    compared = {}
    for term, value in predicted.items():
        simulated, stderr = float(getattr(found.estimate, term)[i]), float(getattr(found.stderr, term)[i])
        # A largest magnitude that its scale misses by the last digit counts as clipped.
        units = {"bias": signal, "mean": signal, "cross": signal**2, "clipping": _OF_SIGNAL * signal**2}.get(term, 0.0)
        doubt = math.hypot(stderr, _RELATIVE * abs(value), _OF_SIGNAL * units)
        z = 0.0 if simulated == value else (simulated - value) / doubt
        # What is no number fails, however little the simulation knows.
        compared[term] = Comparison(value, simulated, stderr, z if math.isfinite(value) else math.inf)
    return compared


def _detectable(rows: Sequence[VerificationRow], threshold: float) -> dict[str, float]:
    reach = threshold + float(ndtri(_POWER))
    power = {}
    for term in ("clipping", "rounding", "mse"):
        # What is nothing but the last digits of x has no relative deviation.
        found = [(row.terms[term], _OF_SIGNAL**2 * row.terms["power"].predicted) for row in rows]
        shares = [reach * f.stderr / f.predicted for f, least in found if f.predicted > least and math.isfinite(f.z)]
        power[term] = max(shares, default=math.nan)
    return power


def _densities(given: Any) -> list[Density]:
    several = DENSITIES if given is None else [given] if isinstance(given, str | Density) else list(given)
    found = [as_density(item) for item in several]
    for density in found:
        check_density(density)
        if density.shape:
            raise ValueError(f"densities must each have shape (), got {shown(density)}; pass its members one by one")
    if not found:
        raise ValueError("densities must name at least one density, got none")
    return found


def _grids(given: Any, n: int) -> list[Grid | BlockFormat]:
    several = GRIDS if given is None else [given] if isinstance(given, str | Grid | BlockFormat) else list(given)
    if not several:
        raise ValueError("grids must name at least one grid, got none")
    found = [as_format(item) for item in several]
    for form in found:
        if isinstance(form, BlockFormat):
            if not is_predicted(form):
                raise ValueError(f"grids must have rules whose error is predicted, got {form!r}; absmax is one")
            check_count(form, n)
    return found
