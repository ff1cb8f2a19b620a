"""The error of a quantizer as folded SymPy expressions: clipping, rounding, MSE, bias, SQNR and their derivatives.

An error is an integral of a loss over regions: from each level half-way to its neighbours, and beyond the end levels.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import sympy as sp

from .._check import check_choice
from .densities import SymbolicDensity, named
from .integrals import LevelSum, X
from .levels import BINADE, J, Levels, Run, symbolic_levels
from .sample import SymbolicSample

__all__ = [
    "bias",
    "clipping_error",
    "curvature",
    "mse",
    "partial_moment",
    "rounding_error",
    "sqnr",
    "stationarity",
]

# SymPy has no type hints: an expression is Any to mypy.
Expr = Any
Distribution = SymbolicDensity | SymbolicSample


@dataclass(frozen=True)
class Region:
    """The loss between two ends, summed over indices; x relative to the mean of the density."""

    loss: Expr
    lower: Expr
    upper: Expr
    sums: tuple[tuple[Expr, Expr, Expr], ...] = ()


def partial_moment(density: Distribution | str, k: int, t: Expr) -> Expr:
    """Integral of (x - mean)^k f from mean + t to infinity.

    Parameters
    ----------
    density : SymbolicDensity or str
    k : int
        Order, >= 0.
    t : Expr
        Relative to the mean, units of x.

    Returns
    -------
    Expr
        Folded; `.doit()` gives the closed form.

    Examples
    --------
    >>> t = sp.Symbol("t", positive=True)
    >>> partial_moment("laplace", 0, t).doit()
    exp(-sqrt(2)*t/sigma)/2
    """
    return _density(density).integral(X**k, sp.sympify(t), sp.oo)


def clipping_error(density: Distribution | str, clip: Expr) -> Expr:
    """E[(|x - mean| - clip)^2; |x - mean| > clip], the overload distortion of a quantizer that ends at +-clip.

    Parameters
    ----------
    density : SymbolicDensity or str
    clip : Expr
        Units of x, positive.

    Returns
    -------
    Expr
        Folded; `.doit()` gives the closed form.

    Examples
    --------
    >>> b, C = sp.symbols("b C", positive=True)
    >>> from qerror.symbolic import laplace
    >>> clipping_error(laplace(b=b), C).doit()
    2*b**2*exp(-C/b)
    """
    end = sp.sympify(clip)
    return _total(_density(density), [Region((X + end) ** 2, -sp.oo, -end), Region((X - end) ** 2, end, sp.oo)])


def rounding_error(
    density: Distribution | str,
    grid: Any,
    scale: Expr,
    model: str = "exact",
    *,
    rounding: str = "nearest",
    shift: Expr = 0,
) -> Expr:
    """Error between the end levels (high-resolution model of a uniform grid: step^2 / 12 on the whole line).

    Parameters
    ----------
    density : SymbolicDensity or str
    grid : str, Grid, int or Expr
        As `symbolic_levels` reads it: any grid, or a symbolic number of uniform levels.
    scale : Expr
        Units of x, positive: the step of a uniform grid.
    model : {"exact", "high_resolution"}
        The integrals, or gap^2 / 12 times the probability of the gap (stochastic: / 6).
    rounding : {"nearest", "stochastic"}
    shift : Expr
        Added to scale * levels.

    Returns
    -------
    Expr
        Sums over levels (of floating grids also over binades) of integrals, folded until `.doit()`.

    Examples
    --------
    >>> s = sp.Symbol("s", positive=True)
    >>> rounding_error("uniform", 16, s, "high_resolution").doit()
    s**2/12
    """
    return _total(_density(density), _inner(_density(density), grid, scale, model, rounding, shift))


def mse(
    density: Distribution | str,
    grid: Any,
    scale: Expr,
    model: str = "exact",
    *,
    rounding: str = "nearest",
    shift: Expr = 0,
) -> Expr:
    """Clipping beyond the end levels of the grid + rounding between them: E[(x - Q(x))^2].

    Parameters
    ----------
    density, grid, scale, model, rounding, shift
        As in `rounding_error`.

    Returns
    -------
    Expr
        Folded.

    Examples
    --------
    >>> s = sp.Symbol("s", positive=True)
    >>> mse("gaussian:std=1", 2, s).doit()
    s**2/4 - sqrt(2)*s/sqrt(pi) + 1
    """
    return _total(_density(density), regions(density, grid, scale, model, rounding=rounding, shift=shift))


def bias(density: Distribution | str, grid: Any, scale: Expr, *, shift: Expr = 0) -> Expr:
    """E[Q(x) - x], to nearest: sum over levels of the integral of (q_k - x) f over cell k.

    Parameters
    ----------
    density, grid, scale, shift
        As in `rounding_error`.

    Returns
    -------
    Expr
        Folded.

    Examples
    --------
    >>> s = sp.Symbol("s", positive=True)
    >>> bias("gaussian", "ternary", s)
    0
    """
    # The loss (x - q)^2 is its own derivative by q up to the factor: -d loss / dx / 2 = q - x.
    parts = regions(density, grid, scale, shift=shift)
    return _total(_density(density), [Region(-sp.diff(p.loss, X) / 2, p.lower, p.upper, p.sums) for p in parts])


def sqnr(density: Distribution | str, grid: Any, scale: Expr, model: str = "exact", **options: Any) -> Expr:
    """10 log10(E[x^2] / MSE) in dB.

    Parameters
    ----------
    density, grid, scale, model
        As in `rounding_error`.
    **options
        Its further keywords.

    Returns
    -------
    Expr
        Folded.

    Examples
    --------
    >>> s = sp.Symbol("s", positive=True)
    >>> round(float(sqnr("gaussian:std=1", 2, s).doit().subs(s, 1.6)), 3)
    4.396
    """
    found = _density(density)
    power = found.variance + found.mean**2
    return 10 * sp.log(power / mse(found, grid, scale, model, **options), 10)


def stationarity(
    density: Distribution | str,
    grid: Any,
    scale: Expr,
    model: str = "exact",
    *,
    rounding: str = "nearest",
    shift: Expr = 0,
) -> Expr:
    """Derivative of the MSE by the scale: 0 at the optimum.

    The loss is differentiated under the integrals; where it is continuous across the ends of the regions, what these
    add cancels, and only the first moments about the levels are left.

    Parameters
    ----------
    density, grid, scale, model, rounding, shift
        As in `rounding_error`; `scale` a Symbol.

    Returns
    -------
    Expr
        Folded.

    Examples
    --------
    >>> s = sp.Symbol("s", positive=True)
    >>> stationarity("gaussian:std=1", 2, s).doit()
    s/2 - sqrt(2)/sqrt(pi)
    """
    parts = regions(density, grid, scale, model, rounding=rounding, shift=shift)
    return _derivative(_density(density), parts, _symbol(scale))


def curvature(
    density: Distribution | str,
    grid: Any,
    scale: Expr,
    model: str = "exact",
    *,
    rounding: str = "nearest",
    shift: Expr = 0,
) -> Expr:
    """Second derivative of the MSE by the scale.

    Parameters
    ----------
    density, grid, scale, model, rounding, shift
        As in `rounding_error`; `scale` a Symbol.

    Returns
    -------
    Expr
        Folded.

    Examples
    --------
    >>> s = sp.Symbol("s", positive=True)
    >>> curvature("gaussian", 2, s).doit()
    1/2
    """
    found, by = _density(density), _symbol(scale)
    parts = regions(found, grid, scale, model, rounding=rounding, shift=shift)
    inner = [Region(sp.diff(p.loss, by), p.lower, p.upper, p.sums) for p in parts]
    edges = sp.Add(*(_summed(_edge_terms(found, p, by), p.sums) for p in parts))
    return _derivative(found, inner, by) + sp.diff(edges, by)


def regions(
    density: Distribution | str,
    grid: Any,
    scale: Expr,
    model: str = "exact",
    *,
    rounding: str = "nearest",
    shift: Expr = 0,
) -> list[Region]:
    """All regions of the error: those between the levels, and the two beyond the ends."""
    found, levels = _density(density), symbolic_levels(grid)
    ends = (levels.lowest, levels.highest)
    low, high = (sp.factor(_offset(found, shift) + sp.sympify(scale) * end) for end in ends)
    outer = [Region((X - low) ** 2, -sp.oo, low), Region((X - high) ** 2, high, sp.oo)]
    return outer + _inner(found, levels, scale, model, rounding, shift)


def _inner(found: Distribution, grid: Any, scale: Expr, model: str, rounding: str, shift: Expr) -> list[Region]:
    check_choice("model", model, ("exact", "high_resolution"))
    check_choice("rounding", rounding, ("nearest", "stochastic"))
    levels = grid if isinstance(grid, Levels) else symbolic_levels(grid)
    unit, offset = sp.sympify(scale), _offset(found, shift)
    if model == "high_resolution":
        return list(_high_resolution(levels, unit, offset, 6 if rounding == "stochastic" else 12))
    split = _nearest if rounding == "nearest" else _stochastic
    found_regions = []
    for low, high, sums in _gaps(levels, unit, offset):
        found_regions += [Region(loss, start, end, sums) for loss, start, end in split(low, high)]
    return found_regions


def _gaps(levels: Levels, unit: Expr, offset: Expr) -> Iterator[tuple[Expr, Expr, tuple[Any, ...]]]:
    """Neighbouring values with the sums over their indices."""
    for run in levels.runs:
        index = J if run.count != 1 else sp.S.Zero
        near, far = (run.sign * unit * (run.start + run.gap * (index + i)) for i in (0, 1))
        sums = ((J, sp.S.Zero, run.count - 1),) if run.count != 1 else ()
        low, high = (near, far) if run.sign > 0 else (far, near)
        yield sp.factor(offset + low), sp.factor(offset + high), sums + _over_binades(run)
    if levels.centre is not None:
        below, above = (sp.factor(offset + unit * level) for level in levels.centre)
        yield below, above, ()


def _over_binades(run: Run) -> tuple[Any, ...]:
    return () if run.binades is None else ((BINADE, *map(sp.Integer, run.binades)),)


def _nearest(low: Expr, high: Expr) -> list[tuple[Expr, Expr, Expr]]:
    middle = sp.factor((low + high) / 2)
    return [((X - low) ** 2, low, middle), ((X - high) ** 2, middle, high)]


def _stochastic(low: Expr, high: Expr) -> list[tuple[Expr, Expr, Expr]]:
    return [((X - low) * (high - X), low, high)]


def _high_resolution(levels: Levels, unit: Expr, offset: Expr, part: int) -> Iterator[Region]:
    if levels.step is not None:
        yield Region((unit * levels.step) ** 2 / part, -sp.oo, sp.oo)
        return
    for run in levels.runs:
        near, far = (run.sign * unit * (run.start + run.gap * i) for i in (0, run.count))
        low, high = (near, far) if run.sign > 0 else (far, near)
        yield Region((unit * run.gap) ** 2 / part, offset + low, offset + high, _over_binades(run))
    if levels.centre is not None:
        below, above = levels.centre
        yield Region((unit * (above - below)) ** 2 / part, offset + unit * below, offset + unit * above)


def _derivative(density: Distribution, parts: list[Region], by: Expr) -> Expr:
    inside = [Region(sp.diff(p.loss, by), p.lower, p.upper, p.sums) for p in parts]
    return _total(density, inside) + sp.Add(*(_summed(_edge_terms(density, p, by), p.sums) for p in parts))


def _edge_terms(density: Distribution, region: Region, by: Expr) -> Expr:
    """What moving ends add by Leibniz's rule: loss * pdf * velocity at the upper end minus that at the lower."""
    total = sp.S.Zero
    for sign, end in ((1, region.upper), (-1, region.lower)):
        loss = sp.expand(region.loss.subs(X, end)) if end.is_finite is not False else sp.S.Zero
        if loss != 0 and (velocity := sp.diff(end, by)) != 0:
            total += sign * loss * density.pdf(density.mean + end) * velocity
    return total


def _total(density: Distribution, parts: list[Region]) -> Expr:
    return sp.Add(*(_summed(density.integral(p.loss, p.lower, p.upper), p.sums) for p in parts))


def _summed(term: Expr, sums: tuple[Any, ...]) -> Expr:
    if not sums or term == 0:
        return term
    return sp.Add(*(LevelSum(part, *sums) for part in sp.Add.make_args(term)))


def _density(density: Distribution | str) -> Distribution:
    return density if isinstance(density, SymbolicSample) else named(density)


def _offset(density: Distribution, shift: Expr) -> Expr:
    return sp.sympify(shift) - density.mean


def _symbol(scale: Expr) -> Expr:
    if not isinstance(scale, sp.Symbol):
        raise ValueError(f"scale must be a Symbol to differentiate by, got {scale!r}; use Symbol('s', positive=True)")
    return scale
