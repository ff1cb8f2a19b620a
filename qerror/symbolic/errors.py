"""The error of a quantizer as folded SymPy expressions: clipping, rounding, MSE, bias, SQNR and their derivatives.

An error is an integral of a loss over regions: from each level half-way to its neighbours, and beyond the end levels.
Expressions stay folded; `.doit()` gives the closed form.
"""

from __future__ import annotations

from typing import Any

import sympy as sp

from .._check import as_int
from .._types import Expr
from .expressions import as_expression, as_symbol
from .origins import ErrorSum
from .regions import Distribution, Region, as_density, derivative, edge_terms, inner_regions, regions, summed, total
from .tails import X

# Closed forms of higher moments take minutes and fill pages.
_MOST_ORDER = 64


def partial_moment(density: Distribution | str, k: int, t: Expr) -> Expr:
    """Integral of (x - mean)^k f from mean + t to infinity.

    Parameters
    ----------
    density : SymbolicDensity or str
    k : int
        Order, >= 0.
    t : Expr
        Relative to the mean, units of x.

    Examples
    --------
    >>> t = sp.Symbol("t", positive=True)
    >>> partial_moment("laplace", 0, t).doit()
    exp(-sqrt(2)*t/sigma)/2
    """
    order = as_int("k", int(k) if isinstance(k, sp.Integer) else k, 0, _MOST_ORDER)
    return total(as_density(density), [Region(X**order, as_expression("t", t), sp.oo)])


def clipping_error(density: Distribution | str, clip: Expr) -> Expr:
    """E[(|x - mean| - clip)^2; |x - mean| > clip], the overload distortion of a quantizer that ends at +-clip.

    Parameters
    ----------
    density : SymbolicDensity or str
    clip : Expr
        Units of x, positive.

    Examples
    --------
    >>> b, C = sp.symbols("b C", positive=True)
    >>> from qerror.symbolic import laplace
    >>> clipping_error(laplace(b=b), C).doit()
    2*b**2*exp(-C/b)
    """
    end = as_expression("clip", clip)
    return total(as_density(density), [Region((X + end) ** 2, -sp.oo, -end), Region((X - end) ** 2, end, sp.oo)])


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
    return total(as_density(density), inner_regions(as_density(density), grid, scale, model, rounding, shift))


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

    Arguments as in `rounding_error`.

    Examples
    --------
    >>> s = sp.Symbol("s", positive=True)
    >>> mse("gaussian:std=1", 2, s).doit()
    s**2/4 - sqrt(2)*s/sqrt(pi) + 1
    """
    return total(as_density(density), regions(density, grid, scale, model, rounding=rounding, shift=shift))


def bias(density: Distribution | str, grid: Any, scale: Expr, *, shift: Expr = 0) -> Expr:
    """E[Q(x) - x], to nearest: sum over levels of the integral of (q_k - x) f over cell k.

    Arguments as in `rounding_error`.

    Examples
    --------
    >>> s = sp.Symbol("s", positive=True)
    >>> bias("gaussian", "ternary", s)
    0
    """
    # The loss (x - q)^2 is its own derivative by q up to the factor: -d loss / dx / 2 = q - x.
    parts = regions(density, grid, scale, shift=shift)
    return total(as_density(density), [Region(-sp.diff(p.loss, X) / 2, p.lower, p.upper, p.sums) for p in parts])


def sqnr(density: Distribution | str, grid: Any, scale: Expr, model: str = "exact", **options: Any) -> Expr:
    """10 log10(E[x^2] / MSE) in dB.

    Parameters
    ----------
    density, grid, scale, model
        As in `rounding_error`.
    **options
        Its further keywords.

    Examples
    --------
    >>> s = sp.Symbol("s", positive=True)
    >>> round(float(sqnr("gaussian:std=1", 2, s).doit().subs(s, 1.6)), 3)
    4.396
    """
    found = as_density(density)
    power = found.variance + found.mean**2
    return 10 * sp.log(power / mse(found, grid, scale, model, **options)) / sp.log(10)


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

    Arguments as in `rounding_error`; `scale` a Symbol.

    Examples
    --------
    >>> s = sp.Symbol("s", positive=True)
    >>> stationarity("gaussian:std=1", 2, s).doit()
    s/2 - sqrt(2)/sqrt(pi)
    """
    parts = regions(density, grid, scale, model, rounding=rounding, shift=shift)
    return derivative(as_density(density), parts, _symbol(scale))


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

    Arguments as in `rounding_error`; `scale` a Symbol.

    Examples
    --------
    >>> s = sp.Symbol("s", positive=True)
    >>> curvature("gaussian", 2, s).doit()
    1/2
    """
    found, by = as_density(density), _symbol(scale)
    parts = regions(found, grid, scale, model, rounding=rounding, shift=shift)
    inner = [Region(sp.diff(p.loss, by), p.lower, p.upper, p.sums) for p in parts]
    edges = sp.Add(*(summed(edge_terms(found, p, by), p.sums) for p in parts))
    return ErrorSum(derivative(found, inner, by), sp.diff(edges, by))


def _symbol(scale: Expr) -> Expr:
    return as_symbol("scale must be a Symbol to differentiate by", scale, "Symbol('s', positive=True)")
