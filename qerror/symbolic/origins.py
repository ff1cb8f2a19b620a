"""Sums of integrals over regions, and which closed form was made of which."""

from __future__ import annotations

from typing import Any

import sympy as sp

from .._types import Expr
from .integrals import HalfLineIntegral, digits


class ErrorSum(sp.Add):  # type: ignore[misc]
    """A sum of integrals over regions; of its closed form `origin` knows it."""

    def doit(self, **hints: Any) -> Expr:
        """The sum of the closed forms."""
        return remember(sp.Add(*(term.doit(**hints) for term in self.args)), self)

    def _eval_evalf(self, prec: int) -> Expr:
        return sp.Add(*self.args).evalf(digits(prec))


# Closed form without its number in front -> that number, the integrals. Closed, narrow cells cancel in float64.
_ORIGINS: dict[Expr, tuple[Expr, Expr]] = {}
_MOST_ORIGINS = 1024


def remember(closed: Expr, folded: Expr) -> Expr:
    """The closed form; the integrals that it is made of are found by `origin` from now on, if it has cells."""
    number, rest = _split_number(closed)
    cells = (cell.limits[0][2] is not sp.oo for cell in folded.atoms(HalfLineIntegral))
    if rest != folded and closed.free_symbols == folded.free_symbols and any(cells):
        while len(_ORIGINS) >= _MOST_ORIGINS:
            del _ORIGINS[next(iter(_ORIGINS))]
        _ORIGINS[rest] = number, folded
    return closed


def origin(closed: Expr) -> Expr | None:
    """The integrals that a closed form was made of in this process, times a number; None if it is not known."""
    number, rest = _split_number(closed)
    for sign in (1, -1):
        if (found := _ORIGINS.get(sign * rest)) is not None:
            return sign * number / found[0] * found[1]
    return None


def _split_number(closed: Expr) -> tuple[Expr, Expr]:
    number, rest = closed.primitive() if closed.is_Add else closed.as_coeff_Mul()
    return number, rest
