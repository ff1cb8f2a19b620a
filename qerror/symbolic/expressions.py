"""What may become an expression: SymPy's own and numbers, never text, which SymPy would run as Python code."""

from __future__ import annotations

import re
from decimal import Decimal
from numbers import Real
from typing import Any

import numpy as np
import sympy as sp

from .._check import shown
from .._types import Expr

_NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)(e[+-]?[0-9]{1,3})?(/[0-9]*[1-9][0-9]*)?", re.IGNORECASE)
# More digits than any float64 has; an integer of millions would take minutes.
_MOST_DIGITS = 1000


def as_expression(name: str, value: Any, kind: type = sp.Expr) -> Expr:
    """The value as an expression: one of SymPy as it is, a real number as SymPy's; everything else is refused.

    Examples
    --------
    >>> as_expression("clip", 2)
    2
    >>> as_expression("clip", "2")
    Traceback (most recent call last):
        ...
    ValueError: clip must be a SymPy expression or a number, got '2'; text is not read, as SymPy would run it
    """
    if not isinstance(value, kind):
        is_number = isinstance(value, Real | Decimal) and not isinstance(value, bool | np.bool_)
        if not is_number:
            why = "; text is not read, as SymPy would run it" if isinstance(value, str) else ""
            raise ValueError(f"{name} must be a SymPy expression or a number, got {shown(value)}{why}")
        value = sp.sympify(value, strict=True)
    if value is sp.nan or value is sp.zoo:
        raise ValueError(f"{name} must be a number, got {value}")
    return value


def as_symbol(name: str, value: Any, example: str) -> Expr:
    """The value if it is a Symbol; `example` makes one."""
    if not isinstance(value, sp.Symbol):
        raise ValueError(f"{name}, got {shown(value)}; use {example}")
    return value


def refuse_text(name: str, values: Any) -> None:
    """Refuse text among the arguments of a class of SymPy, also within tuples: SymPy would run it."""
    for value in values:
        if isinstance(value, tuple | list):
            refuse_text(name, value)
        elif not isinstance(value, sp.Basic):
            as_expression(name, value)


def exact(name: str, text: str) -> Expr:
    """A decimal number, or a fraction of two, as the fraction it says."""
    said = text.strip()
    if len(said) > _MOST_DIGITS or not _NUMBER.fullmatch(said):
        raise ValueError(f"{name} must be a number such as 2, 0.5, 1e-3 or 1/3, got {shown(said)}")
    return sp.Rational(said)
