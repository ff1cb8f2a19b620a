"""The models of ACIQ, OCTAV and StatQAT, derived from the same integrals as the exact error."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import sympy as sp

from .._types import Expr
from .densities import SymbolicDensity
from .errors import clipping_error, mse
from .expressions import as_expression
from .families import named
from .integrals import tidy
from .levels import symbolic_levels
from .optima import solve_condition
from .steps import Derivation, Step
from .tails import X

BITS = sp.Symbol("M", integer=True, positive=True)
ALPHA = sp.Symbol("alpha", positive=True)
ERROR = sp.Symbol("D")
Z = sp.Symbol("z", positive=True)
SCALE = sp.Symbol("s", positive=True)
CUT = sp.Symbol("c", positive=True)


@lru_cache(maxsize=32)
def aciq(density: SymbolicDensity | str, bits: Expr = BITS) -> Derivation:
    """ACIQ's clip: clipping error at alpha + step^2 / 12 on the whole line, step = 2 alpha / 2^M.

    Parameters
    ----------
    density : SymbolicDensity or str
    bits : Expr
        M; a symbol or a number.

    Returns
    -------
    Derivation
        Ends in the clip in closed form (Laplace: b W(3 4^M)), or in the condition for it.

    References
    ----------
    Banner, Nahshan, Hoffer, Soudry, arXiv 1810.05723, section 3.

    Examples
    --------
    >>> from qerror.symbolic import laplace
    >>> aciq(laplace(b=sp.Symbol("b", positive=True))).result
    b*LambertW(3*4**M)
    """
    found = named(density)
    # One symbol for 4^M: SymPy would split it into powers of 2.
    square, four = sp.Symbol("L", positive=True), sp.Integer(4) ** as_expression("bits", bits)
    folded = clipping_error(found, ALPHA) + found.integral(4 * ALPHA**2 / square / 12, -sp.oo, sp.oo)
    closed = folded.doit()
    slope = sp.diff(closed, ALPHA)
    best = solve_condition(slope, ALPHA)
    folded, closed, condition = (e.subs(square, four) for e in (folded, closed, slope))
    steps = [
        Step("objective", ERROR, folded, "clipping at alpha, rounding as if the error were uniform in every cell"),
        Step("closed form", ERROR, closed),
        Step("optimality condition", condition, sp.S.Zero),
    ]
    if best is not None:
        steps.append(Step("optimum", ALPHA, best.subs(square, four)))
    else:
        # d clipping / d alpha = -4 int (x - alpha) f: both sides over 4 are first moments of the tail.
        tail = found.integral(X - ALPHA, ALPHA, sp.oo).doit()
        other = sp.expand(sp.simplify(slope / 4 + tail)).subs(square, four)
        steps.append(Step("balance", tail, other, "excess of the tail over the clip against the growth of the step"))
    return Derivation(f"ACIQ: {found.name}", tuple(steps))


@lru_cache(maxsize=32)
def octav(density: SymbolicDensity | str = "gaussian", bits: Expr = BITS) -> Derivation:
    """OCTAV's iteration: the stationarity of its objective with the indicator |x| > s frozen at the last clip c.

    J(s) = 4^-M / 3 s^2 P(|x| <= s) + E[(s - |x|)^2; |x| > s].

    Parameters
    ----------
    density, bits
        As in `aciq`.

    Returns
    -------
    Derivation
        With the boundary term that freezing drops.

    References
    ----------
    Sakr, Dai, Venkatesan, Zimmer, Dally, Khailany, arXiv 2206.06501, equation 6.

    Examples
    --------
    >>> [step.name for step in octav().steps]
    ['objective', 'frozen objective', 'frozen condition', 'iteration', 'full derivative', 'dropped boundary term']
    """
    found = named(density)
    inner, outer = SCALE**2 / (3 * sp.Integer(4) ** as_expression("bits", bits)), (X - SCALE) ** 2
    objective = found.integral(inner, -SCALE, SCALE) + 2 * found.integral(outer, SCALE, sp.oo)
    # With the ends frozen the objective is a parabola in s whose coefficients are integrals.
    frozen = sp.Add(
        *(SCALE**k * found.integral(a, -CUT, CUT) for (k,), a in sp.Poly(inner, SCALE).terms()),
        *(2 * SCALE**k * found.integral(a, CUT, sp.oo) for (k,), a in sp.Poly(outer, SCALE).terms()),
    )
    slope = sp.diff(frozen, SCALE)
    full = sp.diff(objective.doit(), SCALE)
    dropped = sp.simplify(full - slope.doit().subs(CUT, SCALE))
    symbol = sp.Function("J")
    steps = (
        Step("objective", symbol(SCALE), objective),
        Step("frozen objective", symbol(SCALE, CUT), frozen, "the ends of the integrals stay at c"),
        Step("frozen condition", slope, sp.S.Zero),
        Step("iteration", SCALE, _solve_linear(slope, SCALE), "s from the last clip c; a fixed point has s = c"),
        Step("full derivative", sp.Derivative(symbol(SCALE), SCALE), full),
        Step("dropped boundary term", sp.Symbol("Delta"), dropped, "full derivative - frozen one at c = s"),
    )
    return Derivation(f"OCTAV: {found.name}", steps)


def _solve_linear(condition: Expr, variable: Expr) -> Expr:
    line = sp.expand(condition)
    return -line.coeff(variable, 0) / sp.together(line.coeff(variable, 1))


@lru_cache(maxsize=32)
def statqat_snr(grid: Any, density: SymbolicDensity | str = "gaussian") -> Derivation:
    """StatQAT's 1 / SNR as a function of z = clip^2 / variance, for uniform and for floating grids.

    Parameters
    ----------
    grid : str, Grid, int or Expr
        A number N of uniform levels (may be a symbol), or a floating grid.
    density : SymbolicDensity or str

    References
    ----------
    StatQAT, arXiv 2605.17745.

    Examples
    --------
    >>> statqat_snr(16)["inverse SNR"].right.subs(Z, 9).evalf(6)
    0.0137402
    """
    found = named(density)
    levels = symbolic_levels(grid)
    folded = mse(found, grid, SCALE, "high_resolution")
    scale = sp.sqrt(Z * found.variance) / levels.highest
    closed = folded.doit()
    terms = tidy(sp.expand(closed.subs(SCALE, sp.factor(scale)) / found.variance, deep=False))
    ratio = sp.Add(*(sp.factor(term) for term in sp.Add.make_args(terms)))
    steps = (
        Step("integral", ERROR, folded, "clipping exact; each gap as if the error were uniform in it"),
        Step("closed form", ERROR, closed),
        Step("scale", SCALE, scale, "z = clip^2 / variance"),
        Step("inverse SNR", 1 / sp.Symbol(r"\mathrm{SNR}"), ratio),
    )
    return Derivation(f"StatQAT: {found.name}, {levels.name}", steps)
