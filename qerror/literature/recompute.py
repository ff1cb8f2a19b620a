"""What the numbers of an entry should be, one function for each kind."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any, NamedTuple

import numpy as np

from .._types import Array
from ..densities.base import Density
from ..densities.block_maxima import Largest
from ..densities.named import density as as_density
from ..errors.dot_product import dot_product_error
from ..errors.exact import Model
from ..errors.octaves import octave_mse
from ..errors.quantization import quantization_error
from ..grids.block_formats import BlockFormat, block_format
from ..grids.families import float_grid
from ..grids.formats import grid as as_grid
from ..grids.grid import Grid
from ..results import BlockScaleResult, ErrorTerms, ScaleResult
from ..rules import as_rule
from ..search.lloyd_max import lloyd_max
from ..search.optimal import excess_db, optimal_scale
from .block_maximum import CRITERIA, block_maximum_codebook, block_maximum_error
from .registry import Entry

# How far our own numbers may be trusted, relative: the scale of a minimum (against roots in mpmath: 7e-11 at most where
# more than seven digits are printed), everything else, and codebooks by iteration.
_SCALE = 1e-10
_ERROR = 1e-12
_BLOCK = 1e-11
# A minimum followed by values, where they are known to 3e-10, too; a block size between two.
_SMOOTH, _FLAT = 1e-7, 1e-4
_INTERPOLATED = 1e-3
# Constants among which the second of two is sought.
_SECOND = (0.5, 3.0)


class Recomputed(NamedTuple):
    """One printed text beside what it should say; numbers are arrays for codebooks.

    `texts` are the printed numbers one by one, none where a formula was printed. `value` is what the print stands for;
    `value` and `exact` are empty where nothing is recomputed.
    """

    item: str
    printed: str
    texts: tuple[str, ...]
    value: Array
    exact: Array
    accuracy: float
    lost_db: float | None


def recompute(entry: Entry) -> Iterator[Recomputed]:
    """The cases of an entry, each recomputed."""
    for at, printed in zip(entry.at, entry.printed, strict=True):
        yield _BY_KIND[entry.kind](entry, at, " ".join(printed.split()))


def _one(item: Any, printed: str, value: float, exact: float, accuracy: float, lost: float | None) -> Recomputed:
    texts = (printed,) if _is_number(printed) else ()
    return Recomputed(str(item), printed, texts, np.array([value]), np.array([exact]), accuracy, lost)


def _optimum(entry: Entry, at: Any, printed: str) -> Recomputed:
    density, grid = as_density(entry.density), _grid(entry.grid.format(at))
    best = _best(entry.density, entry.grid.format(at), entry.model)
    value, exact, lost = float(printed), _quantity(entry.quantity, grid, best), None
    if entry.quantity in _PER_SCALE:
        used_on = entry.used_on.format(at) or entry.grid.format(at)
        if used_on != "nothing":
            lost = float(excess_db(density, _grid(used_on), value / _per_scale(entry.quantity, grid)))
    elif entry.achieved:
        lost = 10 * math.log10(value / exact)
    return _one(at, printed, value, exact, _SCALE if entry.quantity in _PER_SCALE else _ERROR, lost)


def _rule(entry: Entry, at: Any, printed: str) -> Recomputed:
    density, grid = as_density(entry.density), _grid(entry.grid.format(at))
    return _used(entry, at, printed, float(as_rule(entry.rule)(density, grid, shift=0.0).scale) * grid.absmax)


def _clip_by_moments(entry: Entry, at: Any, printed: str) -> Recomputed:
    """Clip = c1 sqrt(E[x^2]) + c2 E|x|, of a density that is symmetric about 0."""
    c1, c2 = map(float, printed.split(","))
    density = as_density(entry.density)
    mean_magnitude = 2 * float(density.moments(0.0, np.inf, 0.0)[1])
    return _used(entry, at, printed, c1 * float(density.std) + c2 * mean_magnitude)


def _used(entry: Entry, at: Any, printed: str, clip: float) -> Recomputed:
    """A clip that a formula gives, beside the best one."""
    name = entry.grid.format(at)
    lost = float(excess_db(as_density(entry.density), _grid(name), clip / _grid(name).absmax))
    return _one(at, printed, clip, float(_best(entry.density, name, "exact").clip), _SCALE, lost)


def _dot_product(entry: Entry, at: Any, printed: str) -> Recomputed:
    terms = _best(entry.density, entry.grid.format(at), "exact").error
    return _one(at, printed, float(printed), float(dot_product_error(terms, terms).mse), _ERROR, None)


def _panter_dite(entry: Entry, at: Any, printed: str) -> Recomputed:
    """MSE N^2 of the best N levels as N grows: (integral of f^(1/3))^3 / 12, of a density that is symmetric about 0."""
    node, weight = np.polynomial.legendre.leggauss(12)
    # One panel a standard deviation; beyond 80 of them the root of the pdf is below 1e-16.
    x = np.arange(80)[:, None] + 0.5 * (node + 1)
    integral = float((weight * np.cbrt(as_density(at).pdf(x))).sum())
    return _one(at, printed, float(printed), integral**3 / 12, _ERROR, None)


def _unchecked(entry: Entry, at: Any, printed: str) -> Recomputed:
    nothing = np.array([])
    return Recomputed(str(at), printed, (), nothing, nothing, 0.0, None)


def _lloyd_max(entry: Entry, at: Any, printed: str) -> Recomputed:
    codebook, error = _best_codebook(entry.density, at)
    exact = {"mse": error.mse, "sqnr_db": error.sqnr_db, "largest": codebook.max}[entry.quantity]
    return _one(at, printed, float(printed), float(exact), _SCALE if entry.quantity == "largest" else _ERROR, None)


def _norm(entry: Entry, at: Any, printed: str) -> Recomputed:
    """The clip of least mean |e|^p, beside that of least squared error."""
    density, grid = as_density(entry.density), _grid(entry.grid.format(at))
    found = optimal_scale(density, grid, loss=float(printed.removeprefix("|e|^")))
    return _used(entry, at, printed, float(found.scale) * grid.absmax)


def _quantiles(entry: Entry, at: Any, printed: str) -> Recomputed:
    """NF4's recipe: quantiles at even steps from 1/2 to both ends, one more above than below, over the largest.

    The end is half-way between 1 - 1 / (2 K) and 1 - 1 / (2 (K - 1)). Without a level 0: even steps from end to end.
    """
    name = entry.density.format(at)
    density = as_density(name)
    texts = tuple(printed.split())
    count = len(texts)
    end = 1 - (1 / (2 * count) + 1 / (2 * (count - 1))) / 2
    value = np.array([float(text) for text in texts])
    if 0 in value:
        above = density.quantile(np.linspace(end, 0.5, count // 2 + 1)[:-1])
        below = -density.quantile(np.linspace(end, 0.5, count // 2)[:-1])
        levels = np.sort(np.concatenate([below, [0.0], above])) / above.max()
    else:
        levels = density.quantile(np.linspace(1 - end, end, count)) / density.quantile(end)
    best = optimal_scale(density, Grid(value)).error.mse
    lost = 10 * math.log10(float(best) / float(_best_codebook(name, count)[1].mse))
    return Recomputed(str(at), printed, texts, value, levels, _ERROR, lost)


def _block_end(entry: Entry, at: Any, printed: str) -> Recomputed:
    """The largest magnitude of a block over its scale: of power-of-two rules the one at which the exponent changes."""
    form, density = block_format(at), as_density(entry.density)
    stored = form.scale_format is not None
    if stored:
        form = form.replace(rule="floor")
    best = _best_block_end(entry.density, form)
    exact, used = best.form.end, form.replace(constant=form.end * form.constants[0] / float(printed))
    mse = octave_mse(density, used, "nearest") if stored else quantization_error(density, used).mse
    lost = 10 * math.log10(float(mse) / float(best.error.mse))
    return _one(at, printed, float(printed), exact, _SMOOTH if stored else _SCALE, lost)


def _second_end(entry: Entry, at: Any, printed: str) -> Recomputed:
    """The largest magnitude of a block over the second of two scales; over the first it is the largest level."""
    # Loaded by those who ask: importing it takes as long as numpy.
    from scipy.optimize import minimize_scalar

    form, density = block_format(at), as_density(entry.density)

    def mse(constant: float) -> float:
        pair = form.replace(rule="best_of", constant=(1.0, constant))
        return float(quantization_error(density, pair).mse)

    tried, highest = np.geomspace(*_SECOND, 13), form.grid.absmax
    best = int(np.argmin([mse(each) for each in tried]))
    around = (tried[best - 1], tried[best + 1])
    least = minimize_scalar(mse, bounds=around, method="bounded", options={"xatol": 1e-6})
    lost = 10 * math.log10(mse(highest / float(printed)) / least.fun)
    return _one(at, printed, float(printed), highest / float(least.x), _FLAT, lost)


def _crest_factor(entry: Entry, at: Any, printed: str) -> Recomputed:
    """The expected largest magnitude, in standard deviations, of blocks for which two grids have one error.

    In blocks of any size: between two sizes the difference in dB is taken for linear in the logarithm.
    """
    density, (integer, floating, stored) = as_density(entry.density), at.split()

    def ahead(size: int) -> float:
        mse = []
        for name in (integer, floating):
            if stored == "any":
                mse.append(float(quantization_error(density, BlockFormat(name, size)).mse))
            else:
                mse.append(octave_mse(density, BlockFormat(name, size, stored, rule="floor"), "nearest"))
        return math.log(mse[0] / mse[1])

    def crest(size: int) -> float:
        # One more than the others: all values of a block.
        largest = Largest(density, size + 1)
        m, dm = largest.nodes(np.empty(0))
        return largest.span[0] + float(((1 - largest.below(m)) * dm).sum())

    low, high = 2, 256
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if ahead(middle) < 0 else (low, middle)
    one, two = ahead(low), ahead(high)
    share = one / (one - two)
    return _one(at, printed, float(printed), crest(low) + share * (crest(high) - crest(low)), _INTERPOLATED, None)


def _block_maximum(entry: Entry, at: Any, printed: str) -> Recomputed:
    texts = tuple(printed.split())
    value = np.array([float(text) for text in texts])
    levels = _block_codebook(at, entry.criterion, entry.signed, entry.zero_added)
    ratio = block_maximum_error(value, at, entry.criterion) / block_maximum_error(levels, at, entry.criterion)
    # An absolute error is an amplitude: 20 dB a decade.
    lost = 20 / CRITERIA[entry.criterion][0] * math.log10(ratio)
    return Recomputed(str(at), printed, texts, value, levels, _BLOCK, lost)


_BY_KIND: dict[str, Callable[[Entry, Any, str], Recomputed]] = {
    "optimum": _optimum,
    "rule": _rule,
    "clip-by-moments": _clip_by_moments,
    "dot-product": _dot_product,
    "lloyd-max": _lloyd_max,
    "panter-dite": _panter_dite,
    "quantiles": _quantiles,
    "norm": _norm,
    "block-maximum": _block_maximum,
    "block-end": _block_end,
    "second-end": _second_end,
    "crest-factor": _crest_factor,
    "unchecked": _unchecked,
}
_PER_SCALE = ("scale", "step", "clip", "clip_over_b")


def _per_scale(quantity: str, grid: Grid) -> float:
    """What one unit of scale is in the quantity printed."""
    if quantity == "step":
        return grid.step or math.nan
    # The b of a Laplace density is std / sqrt(2), and std is 1.
    return {"scale": 1.0, "clip": grid.absmax, "clip_over_b": grid.absmax * math.sqrt(2)}[quantity]


def _quantity(quantity: str, grid: Grid, best: ScaleResult) -> float:
    if quantity in _PER_SCALE:
        return float(best.scale) * _per_scale(quantity, grid)
    return float(best.error.mse if quantity == "mse" else best.error.sqnr_db)


def _grid(name: str) -> Grid:
    """A grid by name; N levels of step 1 around 0, ACIQ's 2^M steps, floats without reserved codes.

    A density folded at 0 needs no sign: its M bits are M + 1 of the symmetric one.
    """
    kind, _, numbers = name.partition(":")
    if kind == "uniform":
        count = int(numbers)
        return Grid(np.arange(count) - 0.5 * (count - 1))
    if kind == "aciq":
        return _grid(f"uniform:{2 ** int(numbers) + 1}")
    if kind == "aciq-folded":
        return _grid(f"aciq:{int(numbers) + 1}")
    if kind == "all-finite":
        exponent_bits, mantissa_bits = map(int, numbers.split(","))
        return float_grid(exponent_bits, mantissa_bits)
    return as_grid(name)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


# Several entries ask for the same optimum.
@cache
def _best(density: str, grid: str, model: Model) -> ScaleResult:
    return optimal_scale(as_density(density), _grid(grid), model=model)


@cache
def _best_block_end(density: str, form: BlockFormat) -> BlockScaleResult:
    return optimal_scale(as_density(density), form, free="constant")


@cache
def _best_codebook(density: str, count: int) -> tuple[Grid, ErrorTerms]:
    member: Density = as_density(density)
    codebook = lloyd_max(member, count)
    return codebook, quantization_error(member, codebook, 1.0)


@cache
def _block_codebook(block_size: int, criterion: str, signed: bool, zero_added: bool) -> Array:
    return block_maximum_codebook(block_size, criterion, signed=signed, zero_added=zero_added)
