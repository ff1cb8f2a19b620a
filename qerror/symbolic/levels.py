"""Grids for symbolic sums: runs of equal gaps on either side of 0, binades, and uniform grids with a symbolic N."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import sympy as sp

from .._types import Expr
from ..grids.formats import grid as as_grid
from ..grids.grid import Grid
from .expressions import as_expression

J = sp.Symbol("j", integer=True, nonnegative=True)
BINADE = sp.Symbol("E", integer=True, nonnegative=True)


@dataclass(frozen=True)
class Run:
    """Levels sign * (start + gap j), j = 0 .. count, all on one side of 0; over binades where `binades` says so.

    Attributes
    ----------
    sign : int
        +1 or -1.
    start, gap, count : Expr
        The least magnitude, the distance of neighbours, how many gaps; `start` and `gap` may contain `BINADE`.
    binades : tuple of (first, last), optional
        The run is repeated for each exponent field E in this range.
    """

    sign: int
    start: Expr
    gap: Expr
    count: Expr
    binades: tuple[int, int] | None = None


@dataclass(frozen=True)
class Levels:
    """A grid as runs of equal gaps.

    Attributes
    ----------
    lowest, highest : Expr
        The end levels.
    runs : tuple of Run
        All gaps but the one around 0.
    centre : tuple of (below, above), optional
        The neighbouring levels around 0 of a grid that has no 0.
    step : Expr, optional
        The distance of all neighbours, of uniform grids.
    name : str
        For titles.
    """

    lowest: Expr
    highest: Expr
    runs: tuple[Run, ...]
    centre: tuple[Expr, Expr] | None
    step: Expr | None
    name: str


def symbolic_levels(grid: Any) -> Levels:
    """The levels of a named or concrete grid, or of the symmetric uniform grid with N levels a step of 1 apart.

    Parameters
    ----------
    grid : str, Grid, int or Expr
        A number N of levels means -(N - 1) / 2 .. (N - 1) / 2 (`int4_midrise` is 16). A symbolic N must be known even
        or odd: Symbol("N", even=True, positive=True), or 2 * Symbol("m", integer=True, positive=True).

    Raises
    ------
    ValueError
        For an unknown grid, or an N that is neither known even nor known odd.

    Examples
    --------
    >>> symbolic_levels("ternary").runs[0].count
    1
    """
    if isinstance(grid, sp.Expr | int) and not isinstance(grid, bool):
        return _uniform(as_expression("grid", grid))
    concrete = as_grid(grid)
    if concrete.float_spec is not None:
        found = _floating(concrete)
        if found is not None:
            return found
    return _concrete(concrete)


def _uniform(n: Expr) -> Levels:
    if n.is_number and not (n.is_integer and n >= 2):
        raise ValueError(f"grid must have a whole number of levels, at least 2, got {n}; use 16, or a name as 'int4'")
    end = (n - 1) / 2
    if n.is_even and n.is_positive:
        start, count, half = sp.Rational(1, 2), n / 2 - 1, sp.Rational(1, 2)
        centre = (-half, half)
    elif n.is_odd and (n - 1).is_positive is not False and n.is_positive:
        start, count, centre = sp.S.Zero, end, None
    else:
        remedy = "sympy.Symbol('N', even=True, positive=True), the same with odd=True, or a named grid"
        raise ValueError(f"grid must be a number of levels that is known to be even or odd, got {n}; use {remedy}")
    runs = tuple(Run(sign, start, sp.S.One, count) for sign in (1, -1)) if count != 0 else ()
    return Levels(-end, end, runs, centre, sp.S.One, f"{n} uniform levels")


def _concrete(grid: Grid) -> Levels:
    # Levels are binary fractions or decimals of a codebook: nsimplify would guess, Rational keeps the float64.
    exact = [sp.Rational(float(level)) for level in grid.levels]
    runs: list[Run] = []
    centre = None
    for first, last in grid.runs.tolist():
        split = int(np.searchsorted(grid.levels, 0.0))
        if exact[first] < 0 < exact[last] and exact[split] != 0:
            centre = (exact[split - 1], exact[split])
            pieces = [(first, split - 1), (split, last)]
        elif exact[first] < 0 < exact[last]:
            pieces = [(first, split), (split, last)]
        else:
            pieces = [(first, last)]
        runs += [_run(exact, a, b) for a, b in pieces if a < b]
    step = None if grid.step is None else sp.Rational(grid.step)
    return Levels(exact[0], exact[-1], tuple(runs), centre, step, grid.name or repr(grid))


def _run(levels: list[Expr], first: int, last: int) -> Run:
    gap = levels[first + 1] - levels[first]
    if levels[first] >= 0:
        return Run(1, levels[first], gap, sp.Integer(last - first))
    return Run(-1, -levels[last], gap, sp.Integer(last - first))


def _floating(grid: Grid) -> Levels | None:
    """Full binades E = 1 .. of a floating grid as one run, its subnormals and its cut last binade as others."""
    spec = grid.float_spec
    if spec is None or spec.signed != spec.subnormals:
        return None
    m = spec.mantissa_bits
    field, part = divmod(int(grid.codes[-1]), 2**m)
    first = 1 if spec.subnormals else 0
    if field <= first:
        return None
    unit = sp.Integer(2) ** (BINADE - spec.bias - m)
    runs = []
    for sign in (1, -1) if spec.signed else (1,):
        if spec.subnormals:
            runs.append(Run(sign, sp.S.Zero, unit.subs(BINADE, 1), sp.Integer(2**m)))
        runs.append(Run(sign, unit * 2**m, unit, sp.Integer(2**m), (first, field - 1)))
        if part:
            last = unit.subs(BINADE, field)
            runs.append(Run(sign, last * 2**m, last, sp.Integer(part)))
    step = None if grid.step is None else sp.Rational(grid.step)
    return Levels(sp.Rational(grid.min), sp.Rational(grid.max), tuple(runs), None, step, grid.name or repr(grid))
