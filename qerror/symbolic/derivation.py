"""Derivations of an error and of its best scale, from the definition."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import sympy as sp

from .._check import check_choice
from .._types import Expr
from ..grids.formats import grid as as_grid
from .densities import SymbolicDensity
from .errors import curvature
from .families import SIGMA
from .integrals import antiderivative, tidy
from .levels import symbolic_levels
from .optima import numeric_optimum, solve_condition
from .origins import remember
from .regions import as_density, derivative, inner_regions, outer_regions, regions, total
from .sample import SymbolicSample, powers
from .steps import Derivation, Step
from .tails import X

QUANTITIES = ("clipping", "rounding", "mse", "optimum")
CLIP = sp.Symbol("C", positive=True)
SCALE = sp.Symbol("s", positive=True)
VALUE = sp.Symbol("x", real=True)
_DENSITY = sp.Function("f")(VALUE)
_ERRORS = {
    "clipping": sp.Symbol("D_clip"),
    "rounding": sp.Symbol("D_round"),
    "mse": sp.Symbol("D"),
}
_TITLES = {
    "clipping": "Clipping error",
    "rounding": "Rounding error",
    "mse": "Mean squared error",
    "optimum": "Optimal scale",
}
# The number of a larger grid would take seconds.
_MOST_LEVELS = 64
_BEST = sp.Symbol("s^{*}", positive=True)


def derivation(
    quantity: str,
    density: SymbolicDensity | SymbolicSample | str,
    grid: Any = None,
    *,
    model: str = "exact",
    rounding: str = "nearest",
) -> Derivation:
    """The steps from a density to an error, or to the scale that makes it smallest.

    Parameters
    ----------
    quantity : {"clipping", "rounding", "mse", "optimum"}
        Clipping without a grid as a function of the clip C; else of the scale s.
    density : SymbolicDensity, SymbolicSample or str
        As `named` reads it, or "empirical".
    grid : str, Grid, int or Expr, optional
        As `symbolic_levels` reads it; needed for all but clipping.
    model : {"exact", "high_resolution"}
    rounding : {"nearest", "stochastic"}

    Returns
    -------
    Derivation
        Steps: density, integral, closed form, derivative; for the optimum also optimality condition, optimum.

    Raises
    ------
    ValueError
        Without a grid where one is needed, or for a density whose integrals have no closed form.

    Examples
    --------
    >>> derivation("optimum", "gaussian", 2).result
    2*sqrt(2)*sigma/sqrt(pi)
    """
    check_choice("quantity", quantity, QUANTITIES)
    check_choice("model", model, ("exact", "high_resolution"))
    check_choice("rounding", rounding, ("nearest", "stochastic"))
    found = as_density(density)
    if quantity != "clipping" and grid is None:
        raise ValueError(f"grid is needed for {quantity}: a name such as 'int4', or a number of uniform levels")
    if isinstance(found, SymbolicDensity) and antiderivative(found.half_pdf, X) is None:
        remedy = "symbolic.density(pdf, x, support) makes a numeric density of any pdf"
        raise ValueError(f"the integrals of {found.name} have no closed form that is known here; {remedy}")
    return _derive(quantity, found, grid, model, rounding)


@lru_cache(maxsize=128)
def _derive(quantity: str, found: SymbolicDensity | SymbolicSample, grid: Any, model: str, rounding: str) -> Derivation:
    about = found.name if grid is None else f"{found.name}, {symbolic_levels(grid).name}"
    options = {"model": model, "rounding": rounding}
    by = CLIP if quantity == "clipping" and grid is None else SCALE
    if by is CLIP:
        # The levels of binary are -1 and 1: its scale is the clip.
        parts = outer_regions(found, "binary", by, found.mean)
    elif quantity == "clipping":
        parts = outer_regions(found, grid, by)
    elif quantity == "rounding":
        parts = inner_regions(found, grid, by, **options)
    else:
        parts = regions(found, grid, by, **options)
    folded = total(found, parts)
    name = "mse" if quantity == "optimum" else quantity
    if isinstance(found, SymbolicSample):
        steps = [Step("density", _DENSITY, found.masses(VALUE)), *_sample_steps(name, folded, by, found.n)]
    else:
        slope = derivative(found, parts, by)
        steps = [Step("density", _DENSITY, found.pdf(VALUE)), *_error_steps(name, folded, slope, by)]
    if quantity == "optimum":
        condition = steps[-1].right
        steps.append(Step("optimality condition", condition, sp.S.Zero))
        steps += _optimum_steps(condition, found, grid, options)
    return Derivation(f"{_TITLES[quantity]}: {about}", tuple(steps))


def _error_steps(name: str, folded: Expr, slope: Expr, by: Expr) -> list[Step]:
    symbol = _ERRORS[name]
    closed = tidy(folded.doit())
    series = folded.has(sp.Sum) and closed.atoms(sp.Function) == closed.atoms(sp.exp)
    if series and closed.count_ops() < 200 and not _has_long_powers(closed):
        closed = _by_monomials(closed)
    found = slope.doit()
    if found.has(sp.Sum) and not closed.has(sp.Sum):
        found = sp.diff(closed, by)
    return [
        Step("integral", symbol, folded, "the definition: the squared error, weighted with the density"),
        Step("closed form", symbol, remember(closed, folded)),
        Step("derivative", sp.Derivative(sp.Function(str(symbol))(by), by), remember(_shorter(tidy(found)), slope)),
    ]


def _sample_steps(name: str, folded: Expr, by: Expr, n: Expr) -> list[Step]:
    symbol = _ERRORS[name]
    parabola = powers(folded.doit() * n, by)
    line = {power - 1: power * coefficient for power, coefficient in parabola.items() if power}
    note = "between two breakpoints, where the ranks r do not change"
    return [
        Step("integral", symbol, folded, "the definition: the mean of the squared error over the sorted values"),
        Step("closed form", symbol, _polynomial(parabola, by) / n, f"prefix sums; {note} a parabola in {by}"),
        Step("derivative", sp.Derivative(sp.Function(str(symbol))(by), by), _polynomial(line, by) / n, note),
    ]


def _polynomial(coefficients: dict[int, Expr], by: Expr) -> Expr:
    return sp.Add(*(by**power * coefficient for power, coefficient in coefficients.items()))


def _shorter(expression: Expr) -> Expr:
    """The expression, or SymPy's simplification of a short one where that is shorter."""
    if expression.count_ops() >= 60 or _has_long_powers(expression):
        return expression
    return min(expression, sp.simplify(expression), key=sp.count_ops)


def _has_long_powers(expression: Expr) -> bool:
    """Whether SymPy's simplification would write out polynomials of thousands of terms."""
    return any(abs(number) > 1000 for number in expression.atoms(sp.Integer))


def _by_monomials(closed: Expr) -> Expr:
    """Collect sums of geometric series by the monomials before them, and simplify each coefficient."""
    groups: dict[Expr, list[Expr]] = {}
    for term in sp.Add.make_args(sp.expand(closed, deep=False)):
        monomial, series = term.as_independent(sp.exp, as_Add=False)
        number, key = monomial.as_coeff_Mul()
        groups.setdefault(key, []).append(number * series)
    return sp.Add(*(key * sp.simplify(sp.Add(*series)) for key, series in groups.items()))


def _optimum_steps(
    slope: Expr, found: SymbolicDensity | SymbolicSample, grid: Any, options: dict[str, str]
) -> list[Step]:
    if isinstance(found, SymbolicSample):
        line = powers(slope * found.n / 2, SCALE)
        return [Step("optimum", _BEST, -line[0] / line[1], "the vertex of the parabola, where it lies in its piece")]
    best = solve_condition(slope, SCALE)
    if best is not None:
        bend = sp.simplify(curvature(found, grid, SCALE, **options).doit().subs(SCALE, best))
        second = sp.Derivative(sp.Function(str(_ERRORS["mse"]))(_BEST), (_BEST, 2))
        return [
            Step("second derivative", second, bend, "positive at the solution: a minimum"),
            Step("optimum", _BEST, best, "solved, and proved by substitution into the condition"),
        ]
    free = [symbol for symbol in found.parameters if symbol != SIGMA]
    if free or symbolic_levels(grid).highest.free_symbols:
        note = "no closed form; give numbers for all shape parameters and a concrete grid to have its number"
        return [Step("optimum", slope.subs(SCALE, _BEST), sp.S.Zero, note)]
    if _count(grid) > _MOST_LEVELS:
        note = f"no closed form; qerror.optimal_scale has its number for grids of more than {_MOST_LEVELS} levels"
        return [Step("optimum", slope.subs(SCALE, _BEST), sp.S.Zero, note)]
    number = numeric_optimum(found, grid, {SIGMA: sp.S.One}, **options)
    note = "no closed form: the root of the condition with the least error, as a number"
    return [Step("optimum", _BEST, number * sp.Mul(*found.parameters), note)]


def _count(grid: Any) -> int:
    return int(grid) if isinstance(grid, sp.Expr | int) else len(as_grid(grid))
