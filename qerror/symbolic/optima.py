"""Roots of optimality conditions: in closed form where there is one, else as numbers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import sympy as sp

from .._types import Expr
from .codegen import CompiledExpression, to_numpy
from .densities import SymbolicDensity
from .errors import mse, stationarity
from .levels import symbolic_levels

_SCALE = sp.Symbol("s", positive=True)
_SCANNED = 150


def solve_condition(condition: Expr, variable: Expr) -> Expr | None:
    """The positive root of condition = 0 in closed form, proved by substitution; None where there is none.

    Parameters
    ----------
    condition : Expr
        Closed; polynomial in the variable and one exponential of it, for there to be a closed form.
    variable : Symbol
        Positive.

    Examples
    --------
    >>> x = sp.Symbol("x", positive=True)
    >>> solve_condition(x * sp.exp(x) - 1, x)
    LambertW(1)
    """
    functions = {f for f in condition.atoms(sp.Function) if f.has(variable)}
    if any(not isinstance(f, sp.exp) for f in functions) or condition.has(sp.Sum, sp.Integral, sp.Min, sp.Max):
        return None
    exponents = {sp.expand(f.args[0] / variable) for f in functions}
    if len(functions) > 2 or any(rate.has(variable) for rate in exponents):
        return None
    try:
        roots = sp.solve(sp.simplify(condition), variable)
    except NotImplementedError:
        return None
    for root in roots:
        if root.is_positive is not False and _lambert(sp.simplify(condition.subs(variable, root))) == 0:
            return sp.simplify(root)
    return None


def _lambert(expression: Expr) -> Expr:
    """Use W(y) exp(W(y)) = y, the definition of Lambert's W, which SymPy does not do by itself."""

    def replaced(power: Expr) -> Expr:
        w = next(iter(power.atoms(sp.LambertW)))
        return (w.args[0] / w) ** (power.args[0] / w)

    found = sp.simplify(expression.replace(lambda e: isinstance(e, sp.exp) and e.has(sp.LambertW), replaced))
    return sp.simplify(sp.expand_func(found)) if found.has(sp.gamma) else found


def numeric_optimum(
    density: SymbolicDensity, grid: Any, values: dict[Expr, Expr], *, model: str = "exact", rounding: str = "nearest"
) -> Expr:
    """The scale of least MSE by a scan of the compiled error; all minima within 1% refined on the condition.

    `values` has a number for each parameter. Where the error falls on to clips of 1e9 std: ValueError.

    Examples
    --------
    >>> from qerror.symbolic import gaussian
    >>> round(float(numeric_optimum(gaussian(1), 3, {})), 9)
    1.224006362
    """
    options = {"model": model, "rounding": rounding}
    numbers = [float(value) for value in values.values()]
    error, slope = (
        _with_numbers(to_numpy(make(density, grid, _SCALE, **options), [_SCALE, *values]), numbers)
        for make in (mse, stationarity)
    )
    levels = symbolic_levels(grid)
    unit = float(sp.sqrt(density.variance).subs(values) / max(abs(levels.lowest), abs(levels.highest)))
    scales = unit * np.geomspace(0.3, 100.0, _SCANNED)
    errors = error(scales)
    # Heavy tails have their best clip far out.
    while errors.argmin() == errors.size - 1 and scales[-1] < 1e9 * unit:
        beyond = np.geomspace(scales[-1], 100 * scales[-1], _SCANNED)[1:]
        scales, errors = np.append(scales, beyond), np.append(errors, error(beyond))
    # Floating grids have a minimum in each octave, nearly equal ones: all are refined.
    inner = errors[1:-1]
    low = (inner <= np.minimum(errors[:-2], errors[2:])) & (inner <= 1.01 * errors.min())
    places = np.flatnonzero(low)
    if not places.size:
        raise ValueError(f"no minimum of {density.name} for clips up to 1e9 std; use qerror.optimal_scale")
    roots = _roots(error, slope, scales[places], scales[places + 2])
    return sp.Float(roots[error(roots).argmin()], 15)


def _with_numbers(compiled: CompiledExpression, numbers: list[float]) -> Callable[[Any], Any]:
    return lambda scale: compiled(scale, *numbers)


def _roots(error: Any, slope: Any, lower: Any, upper: Any) -> Any:
    """Where the slope changes its sign in each bracket, around the least error of a finer scan."""
    bracket = np.arange(lower.size)
    inside = np.linspace(lower, upper, 41)
    place = error(inside)[1:-1].argmin(axis=0)
    lower, upper = inside[place, bracket], inside[place + 2, bracket]
    # 32 times narrower each time, until neighbouring numbers are left.
    for _ in range(10):
        inside = np.linspace(lower, upper, 33)
        place = np.maximum((slope(inside)[:-1] < 0).sum(axis=0) - 1, 0)
        lower, upper = inside[place, bracket], inside[place + 1, bracket]
    return (lower + upper) / 2
