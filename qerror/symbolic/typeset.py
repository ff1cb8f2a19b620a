"""Expressions as LaTeX."""

from __future__ import annotations

from typing import Any

import sympy as sp
from sympy.printing.latex import LatexPrinter

from .._types import Expr
from .expressions import as_expression
from .tails import hold


class _Exp(sp.Function):  # type: ignore[misc]
    """Exponential, which the printer does not try to simplify into a denominator: that takes it seconds."""

    nargs = 1

    @classmethod
    def class_key(cls) -> Any:
        """The place of exp among the factors."""
        return sp.exp.class_key()


def _held(power: Expr) -> Expr:
    return _Exp(power.args[0])


class _Latex(LatexPrinter):  # type: ignore[misc]
    """LaTeX with the names of the field's functions."""

    def _print_LevelSum(self, expr: Expr) -> str:
        return str(self._print_Sum(expr))

    def _print_HalfLineIntegral(self, expr: Expr) -> str:
        return str(self._print_Integral(expr))

    def _print__Exp(self, expr: Expr, exp: Any = None) -> str:
        power = rf"e^{{{self._print(expr.args[0])}}}"
        return power if exp is None else rf"\left({power}\right)^{{{exp}}}"

    def _print_HeldPolylog(self, expr: Expr) -> str:
        order, argument = (self._print(arg) for arg in expr.args)
        return rf"\operatorname{{Li}}_{{{order}}}\left({argument}\right)"

    def _print_betainc(self, expr: Expr) -> str:
        a, b, _, upper = (self._print(arg) for arg in expr.args)
        return rf"\operatorname{{B}}_{{{upper}}}\left({a}, {b}\right)"


def latex(expression: Expr) -> str:
    r"""LaTeX of an expression, folded or closed.

    Examples
    --------
    >>> from qerror import symbolic
    >>> latex(symbolic.partial_moment("laplace:std=1", 0, sp.Symbol("t", positive=True)).doit())
    '\\frac{e^{- \\sqrt{2} t}}{2}'
    """
    held = hold(as_expression("expression", expression, sp.Basic)).replace(
        lambda e: isinstance(e, sp.exp) and e.free_symbols, _held
    )
    return str(_Latex().doprint(held))
