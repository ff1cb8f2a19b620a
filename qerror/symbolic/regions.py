"""An error as a list of regions with a loss on each, and the integrals over them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import sympy as sp

from .._check import check_choice
from .._types import Expr
from .densities import SymbolicDensity
from .expressions import as_expression
from .families import named
from .integrals import LevelSum
from .levels import BINADE, J, Levels, Run, symbolic_levels
from .origins import ErrorSum
from .sample import SymbolicSample, empirical
from .tails import X

Distribution = SymbolicDensity | SymbolicSample
_TAKEN = {symbol.name for symbol in (X, J, BINADE)}


@dataclass(frozen=True)
class Region:
    """The loss between two ends, summed over indices; x relative to the mean of the density."""

    loss: Expr
    lower: Expr
    upper: Expr
    sums: tuple[tuple[Expr, Expr, Expr], ...] = ()


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
    return list(_regions(as_density(density), symbolic_levels(grid), scale, model, rounding, shift))


@lru_cache(maxsize=64)
def _regions(
    found: Distribution, levels: Levels, scale: Expr, model: str, rounding: str, shift: Expr
) -> tuple[Region, ...]:
    outer = outer_regions(found, levels, scale, shift)
    return (*outer, *inner_regions(found, levels, scale, model, rounding, shift))


def outer_regions(found: Distribution, grid: Any, scale: Expr, shift: Expr = 0) -> list[Region]:
    """The two regions beyond the end levels, where the error is clipping."""
    levels = grid if isinstance(grid, Levels) else symbolic_levels(grid)
    ends = (levels.lowest, levels.highest)
    low, high = (sp.factor(_offset(found, shift) + as_expression("scale", scale) * end) for end in ends)
    return [Region((X - low) ** 2, -sp.oo, low), Region((X - high) ** 2, high, sp.oo)]


def inner_regions(
    found: Distribution, grid: Any, scale: Expr, model: str, rounding: str, shift: Expr = 0
) -> list[Region]:
    """The regions between the end levels; in the high-resolution model of a uniform grid the whole line."""
    check_choice("model", model, ("exact", "high_resolution"))
    check_choice("rounding", rounding, ("nearest", "stochastic"))
    levels = grid if isinstance(grid, Levels) else symbolic_levels(grid)
    unit, offset = as_expression("scale", scale), _offset(found, shift)
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


def derivative(density: Distribution, parts: list[Region], by: Expr) -> Expr:
    """Derivative of the integrals: of the losses, and by the moving ends."""
    inside = [Region(sp.diff(p.loss, by), p.lower, p.upper, p.sums) for p in parts]
    return ErrorSum(total(density, inside), *(summed(edge_terms(density, p, by), p.sums) for p in parts))


def edge_terms(density: Distribution, region: Region, by: Expr) -> Expr:
    """What moving ends add by Leibniz's rule: loss * pdf * velocity at the upper end minus that at the lower."""
    total = sp.S.Zero
    for sign, end in ((1, region.upper), (-1, region.lower)):
        loss = sp.expand(region.loss.subs(X, end)) if end.is_finite is not False else sp.S.Zero
        if loss != 0 and (velocity := sp.diff(end, by)) != 0:
            total += sign * loss * density.pdf(density.mean + end) * velocity
    return total


def total(density: Distribution, parts: Sequence[Region]) -> Expr:
    """Sum of the integrals over all regions."""
    return _total(density, tuple(parts))


@lru_cache(maxsize=256)
def _total(density: Distribution, parts: tuple[Region, ...]) -> Expr:
    for part in parts:
        _check_names(density, part)
    return ErrorSum(*(summed(density.integral(p.loss, p.lower, p.upper), p.sums) for p in parts))


def _check_names(density: Distribution, part: Region) -> None:
    """Refuse symbols that look like the variables of integrals and sums: what they stand for could not be told."""
    symbols = part.lower.free_symbols | part.upper.free_symbols | set(density.parameters)
    taken = sorted(s.name for s in symbols.difference(i for i, _, _ in part.sums) if s.name in _TAKEN)
    if taken:
        raise ValueError(f"{', '.join(taken)} is what integrals and sums here are over; give your symbol another name")


def summed(term: Expr, sums: tuple[Any, ...]) -> Expr:
    """The term summed over its indices, one sum for each integral in it, numbers in front: equal sums cancel."""
    if not sums or term == 0:
        return term
    parts = (part.as_coeff_Mul() for part in sp.Add.make_args(term))
    return sp.Add(*(number * LevelSum(rest, *sums) for number, rest in parts))


def as_density(density: Distribution | str) -> Distribution:
    """The density of a name, "empirical" among them; a density or sample as it is."""
    if isinstance(density, str) and density.strip().lower() == "empirical":
        return empirical()
    return density if isinstance(density, SymbolicSample) else named(density)


def _offset(density: Distribution, shift: Expr) -> Expr:
    return as_expression("shift", shift) - density.mean
