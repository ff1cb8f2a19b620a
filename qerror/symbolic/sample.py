"""The density of a sorted sample x[1] <= ... <= x[n]: integrals are sums over indices, closed by prefix sums."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import sympy as sp

from .._types import Expr
from .expressions import as_expression, refuse_text
from .integrals import LevelSum
from .tails import X

VALUE = sp.IndexedBase("x", real=True)
# S0[m] = m, S1[m] = x[1] + ... + x[m], S2[m] = x[1]^2 + ... + x[m]^2.
PREFIX_SUMS = tuple(sp.IndexedBase(f"S{k}", real=True) for k in range(3))
_I = sp.Symbol("i", integer=True, positive=True)


class Rank(sp.Function):  # type: ignore[misc]
    """How many values of the sample are <= t: constant between breakpoints, so its derivative there is 0."""

    nargs = 1
    is_integer = True
    is_nonnegative = True

    def __new__(cls, *args: Any, **options: Any) -> Expr:
        """As SymPy makes it, of expressions and numbers."""
        refuse_text("t", args)
        return super().__new__(cls, *args, **options)

    def fdiff(self, argindex: int = 1) -> Expr:
        """0 between two breakpoints."""
        return sp.S.Zero

    def _latex(self, printer: Any, exp: Any = None) -> str:
        power = "" if exp is None else f"^{{{exp}}}"
        return rf"r{power}\left({printer._print(self.args[0])}\right)"


class SampleSum(sp.Sum):  # type: ignore[misc]
    """Sum of a polynomial of degree <= 2 in x[i] over i; `.doit()` writes it with prefix sums."""

    def __new__(cls, *args: Any, **options: Any) -> Expr:
        """As SymPy makes it, of expressions and numbers."""
        refuse_text("summand and limits", args)
        return super().__new__(cls, *args, **options)

    def doit(self, **hints: Any) -> Expr:
        """Sum over k of the coefficient of x^k times S_k[last] - S_k[first - 1]."""
        index, first, last = self.limits[0]
        value = VALUE[index]
        total = sp.S.Zero
        for (k,), c in sp.Poly(self.function, value).terms():
            if k >= len(PREFIX_SUMS):
                raise ValueError(f"prefix sums reach to the power {len(PREFIX_SUMS) - 1}, got {self.function}")
            total += c * (_prefix(k, last) - _prefix(k, first - 1))
        return sp.expand(total)


def _prefix(k: int, m: Expr) -> Expr:
    return sp.S.Zero if m == 0 else PREFIX_SUMS[k][m]


@dataclass(frozen=True)
class SymbolicSample:
    """n equally weighted values.

    Attributes
    ----------
    n : Expr
        How many values.
    """

    n: Expr
    name: str = "sample"
    mean: Expr = sp.S.Zero

    def __post_init__(self) -> None:
        for part in ("n", "mean"):
            object.__setattr__(self, part, as_expression(part, getattr(self, part)))

    def integral(self, loss: Expr, lower: Expr, upper: Expr) -> Expr:
        """Mean of loss(x) over lower < x <= upper, as a folded sum over the sorted values."""
        loss, lower = as_expression("loss", loss), as_expression("lower", lower)
        upper = as_expression("upper", upper)
        first = sp.Integer(1) if lower == -sp.oo else Rank(lower) + 1
        last = self.n if upper is sp.oo else Rank(upper)
        return SampleSum(loss.subs(X, VALUE[_I]), (_I, first, last)) / self.n

    def pdf(self, x: Expr) -> Expr:
        """0 between the values: a breakpoint passes over none of them."""
        as_expression("x", x)
        return sp.S.Zero

    def masses(self, x: Expr) -> Expr:
        """The density at x: a mass of 1 / n at each value."""
        return sp.Sum(sp.DiracDelta(as_expression("x", x) - VALUE[_I]), (_I, 1, self.n)) / self.n

    @property
    def parameters(self) -> tuple[Expr, ...]:
        """Free symbols."""
        return tuple(self.n.free_symbols)

    @cached_property
    def variance(self) -> Expr:
        """E[x^2], the second moment about 0."""
        return self.integral(X**2, -sp.oo, sp.oo).doit()


def empirical(n: Expr | None = None) -> SymbolicSample:
    """The density of a sample of n sorted values x[1..n].

    Parameters
    ----------
    n : Expr, optional
        How many; the symbol n by default.

    Examples
    --------
    >>> empirical().variance
    S2[n]/n
    """
    return SymbolicSample(sp.Symbol("n", integer=True, positive=True) if n is None else n)


def powers(expression: Expr, by: Expr) -> dict[int, Expr]:
    """Coefficients of the powers of a symbol, between two breakpoints: ranks do not change; one sum over levels each.

    Parameters
    ----------
    expression : Expr
        A sample's error, closed, or its derivative.
    by : Symbol
        The scale or the clip.

    Examples
    --------
    >>> s = sp.Symbol("s", positive=True)
    >>> powers((s - 2) ** 2 * Rank(s), s)
    {2: Rank(s), 1: -4*Rank(s), 0: 4*Rank(s)}
    """
    ranks = {rank: sp.Dummy(integer=True) for rank in expression.atoms(Rank)}
    found: dict[int, dict[Any, list[Expr]]] = {}
    for term in sp.Add.make_args(sp.expand(expression.xreplace(ranks))):
        factor, sums = term.as_independent(sp.Sum, as_Add=False)
        limits = sums.limits if isinstance(sums, sp.Sum) else ()
        summand = sp.expand(factor * (sums.function if limits else sums))
        for (power,), coefficient in sp.Poly(summand, by).terms():
            found.setdefault(power, {}).setdefault(limits, []).append(coefficient)
    back = {dummy: rank for rank, dummy in ranks.items()}
    return {
        power: sp.Add(*(_joined(parts, limits) for limits, parts in terms.items())).xreplace(back)
        for power, terms in sorted(found.items(), reverse=True)
    }


def _joined(parts: list[Expr], limits: Any) -> Expr:
    return LevelSum(sp.Add(*parts), *limits) if limits else sp.Add(*parts)
