"""Integrals of x^k times a pdf beyond t, for the forms of pdf that are known here.

Each is derived once in a process, with symbolic parameters, and substituted into from then on.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import sympy as sp

from .._types import Expr

X = sp.Symbol("x", positive=True)
# Not equal to any symbol of a user.
T, _A, _B, _P, _U, _W = (sp.Dummy(name, positive=True) for name in ("t", "a", "beta", "p", "u", "w"))
_K = sp.Dummy("k", integer=True, nonnegative=True)


class HeldPolylog(sp.Function):  # type: ignore[misc]
    """polylog(n, z) without the tests for special z, which cost SymPy 0.2 s at each substitution."""

    nargs = 2


def hold(expression: Expr) -> Expr:
    """Replace SymPy's polylog."""
    return expression.replace(sp.polylog, HeldPolylog)


def release(expression: Expr) -> Expr:
    """Put SymPy's polylog back."""
    return expression.replace(HeldPolylog, lambda n, z: sp.polylog(n, z, evaluate=bool(z.is_number)))


def expand_products(expression: Expr) -> Expr:
    """Multiply sums out, but not inside of functions and powers, nor in denominators."""
    return sp.Add(*(part for term in sp.Add.make_args(expression) for part in _expanded(term)))


def _expanded(term: Expr) -> list[Expr]:
    if not any(_is_expandable(factor) for factor in sp.Mul.make_args(term)):
        return [term]
    below, above = sp.sift(sp.Mul.make_args(term), _is_denominator, binary=True)
    return [part * sp.Mul(*below) for part in sp.Add.make_args(sp.expand(sp.Mul(*above), deep=False, basic=False))]


def _is_expandable(factor: Expr) -> bool:
    base, exponent = factor.as_base_exp()
    return bool(base.is_Add or base.is_Mul or exponent.is_Add)


def _is_denominator(factor: Expr) -> bool:
    return bool(factor.is_Pow and factor.base.is_Add and factor.exp.is_negative)


@lru_cache(maxsize=4096)
def tail_moment(form: Expr, k: int, x: Expr, t: Expr) -> Expr:
    """Integral of x^k form(x) from the expression t to infinity.

    Raises
    ------
    ValueError
        For a form that is not recognized.
    """
    return _tail_moment(form, k, x).xreplace({T: t})


@lru_cache(maxsize=256)
def _tail_moment(form: Expr, k: int, x: Expr) -> Expr:
    """The same as an expression in the symbol t > 0."""
    found = recognize(form, x)
    if found is None:
        raise ValueError(f"no closed form is known for the integral of {form}; keep it folded and use evalf")
    derive, values, factor = found
    return factor * derive(k).subs(values, simultaneous=True).replace(_is_denominator, _without_fractions)


Derivation = Callable[[int], Expr]


def recognize(form: Expr, x: Expr) -> tuple[Derivation, dict[Expr, Expr], Expr] | None:
    """Which form a pdf has: the derivation of its tail moments, the values of its parameters, a constant factor."""
    factors = sp.Mul.make_args(form)
    if len(factors) == 2:
        return _as_logistic(factors, x)
    if form.func is sp.exp:
        a, power = (-form.args[0]).as_independent(x, as_Add=False)
        base, beta = power.as_base_exp()
        if base != x or not a.is_positive:
            return None
        if beta in (1, 2):
            return (exponential_tail if beta == 1 else gaussian_tail), {_A: a}, sp.S.One
        return (power_exponential_tail, {_A: a, _B: beta}, sp.S.One) if beta.is_positive else None
    base, exponent = form.as_base_exp()
    if base.is_polynomial(x) and sp.Poly(base, x).degree() == 2 and base.coeff(x, 1) == 0:
        c0, c2 = base.coeff(x, 0), base.coeff(x, 2)
        if (c0 / c2).is_negative:
            return None
        return student_tail, {_W: sp.sqrt(c0 / c2), _P: -exponent}, c0**exponent
    return None


def _as_logistic(factors: tuple[Expr, ...], x: Expr) -> tuple[Derivation, dict[Expr, Expr], Expr] | None:
    decay = next((factor for factor in factors if factor.func is sp.exp), None)
    if decay is None or sp.Mul(*factors) != decay * (1 + decay) ** -2:
        return None
    a = -decay.args[0] / x
    return (logistic_tail, {_A: a}, sp.S.One) if not a.has(x) else None


def _without_fractions(power: Expr) -> Expr:
    """(1/2 - nu/2)^-1 as 2 (1 - nu)^-1."""
    content, base = power.base.primitive()
    return content**power.exp * base**power.exp


@lru_cache(maxsize=64)
def exponential_tail(k: int) -> Expr:
    """Integral of x^k exp(-a x) beyond t: SymPy's for k = 0; each power is -d/da of the one before."""
    if k == 0:
        found = sp.integrate(sp.exp(-_A * X), X)
        return found.subs(X, sp.oo) - found.subs(X, T)
    return sp.expand(-sp.diff(exponential_tail(k - 1), _A))


@lru_cache(maxsize=64)
def gaussian_tail(k: int) -> Expr:
    """Integral of x^k exp(-a x^2) beyond t: SymPy's for k = 0; x^k is -d/da of x^(k-2); for k = 1 with v = x^2.

    SymPy's 1 - erf is written as erfc, which keeps the digits of a tail.
    """
    if k == 0:
        found = sp.integrate(sp.exp(-_A * X**2), (X, T, sp.oo), manual=True)
        return sp.expand(sp.expand(found).rewrite(sp.erfc))
    return exponential_tail(0).subs(T, T**2) / 2 if k == 1 else sp.expand(-sp.diff(gaussian_tail(k - 2), _A))


@lru_cache(maxsize=64)
def power_exponential_tail(k: int) -> Expr:
    """Integral of x^k exp(-a x^beta) beyond t: with v = a x^beta an incomplete gamma function."""
    return _any_power_exponential_tail().subs(_K, k)


@lru_cache(maxsize=1)
def _any_power_exponential_tail() -> Expr:
    v = sp.Symbol("v", positive=True)
    log = _log_substituted(X**_K * sp.exp(-_A * X**_B), (v / _A) ** (1 / _B), v)
    # The definition of uppergamma: v^(power) exp(-v).
    power = log.coeff(sp.log(v))
    constant = sp.expand_power_exp(sp.exp(sp.expand(log - power * sp.log(v) + v))).rewrite(sp.Pow)
    return constant * sp.uppergamma(power + 1, _A * T**_B)


@lru_cache(maxsize=64)
def student_tail(k: int) -> Expr:
    """Integral of x^k (1 + x^2 / w^2)^-p beyond t: with y = w^2 / (w^2 + x^2) an incomplete beta function."""
    if k % 2 == 0:
        return _even_student_tail().subs(_K, k)
    # An odd power is the derivative of v = 1 + x^2 / w^2 times a power of x^2 = w^2 (v - 1).
    v = sp.Symbol("v", positive=True)
    even = sp.expand((_W**2 * (v - 1)) ** ((k - 1) // 2) * _W**2 / 2)
    parts = sp.Add.make_args(sp.powsimp(sp.expand(even * v**-_P, deep=False)))
    return sp.Add(*(_power_tail(part, v, 1 + T**2 / _W**2) for part in parts))


@lru_cache(maxsize=1)
def _even_student_tail() -> Expr:
    y = sp.Symbol("y", positive=True)
    log = _log_substituted(X**_K * (1 + X**2 / _W**2) ** -_P, _W * sp.sqrt((1 - y) / y), y)
    # The definition of betainc: y^first (1 - y)^second.
    first, second = log.coeff(sp.log(y)), log.coeff(sp.log(1 - y))
    constant = sp.expand_power_exp(sp.exp(sp.expand(log - first * sp.log(y) - second * sp.log(1 - y)))).rewrite(sp.Pow)
    return constant * sp.betainc(first + 1, second + 1, 0, _W**2 / (_W**2 + T**2))


def _power_tail(part: Expr, w: Expr, start: Expr) -> Expr:
    """Integral of c w^n from `start` to infinity."""
    constant, power = part.as_independent(w, as_Add=False)
    exponent = power.as_base_exp()[1]
    return -constant * start ** (exponent + 1) / (exponent + 1)


@lru_cache(maxsize=64)
def logistic_tail(k: int) -> Expr:
    """Integral of x^k exp(-a x) / (1 + exp(-a x))^2 beyond t.

    With a = 1, by parts k times: t^k S_0 + k t^(k-1) S_1 + k (k-1) t^(k-2) S_2 ..., where S_j is the integral of
    S_(j-1) beyond t, in u = exp(-t); then a t for t.
    """
    by_parts = sum(sp.ff(k, j) * T ** (k - j) * _iterated(j) for j in range(k + 1))
    return expand_products(by_parts.subs(_U, sp.exp(-T)).subs(T, _A * T) / _A ** (k + 1))


@lru_cache(maxsize=64)
def _iterated(j: int) -> Expr:
    """S_j of `logistic_tail` in u: the integral of S_(j-1) / v over 0 <= v <= u."""
    v = sp.Symbol("v", positive=True)
    if j < 2:
        integrand = 1 / (1 + v) ** 2 if j == 0 else _iterated(0).subs(_U, v) / v
        return sp.factor(sp.integrate(integrand, (v, 0, _U)))
    # log(1 + u) = -Li_1(-u), and the integral of Li_n(-v) / v is Li_(n+1)(-u).
    before = _iterated(j - 1).subs(sp.log(1 + _U), -HeldPolylog(1, -_U))
    return before.replace(HeldPolylog, lambda n, z: HeldPolylog(n + 1, z))


def _log_substituted(integrand: Expr, x_of_y: Expr, y: Expr) -> Expr:
    """Logarithm of the integrand in the new variable, with the factor |dx / dy| = x |d log x / dy|."""
    above, below = sp.fraction(sp.together(sp.diff(sp.expand_log(sp.log(x_of_y), force=True), y)))
    speed = sp.Abs(sp.expand(above)) / below
    parts = (sp.log(part) for part in (sp.expand(integrand.subs(X, x_of_y)), x_of_y, speed))
    return sp.expand(sp.expand_log(sp.Add(*parts), force=True))
