"""Integrals of polynomial times pdf over parts of the half-line, and sums over levels: folded until `.doit()`.

A closed form is derived once for each form of pdf, with symbolic parameters, and substituted into from then on.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import sympy as sp

__all__ = ["HalfLineIntegral", "LevelSum", "X", "antiderivative", "tail_moment"]

# SymPy has no type hints: an expression is Any to mypy.
Expr = Any

X = sp.Symbol("x", positive=True)
_A, _B, _P, _T, _W = sp.symbols("a beta p t w", positive=True)
# Longer sums keep their Sum sign, with closed summands: written out they take seconds and nobody reads them.
_MOST_TERMS = 32


class _HeldPolylog(sp.Function):  # type: ignore[misc]
    """polylog(n, z) without the tests for special z, which cost SymPy 0.2 s at each substitution."""

    nargs = 2


# What a closed form is ordered by, for reading.
_SPECIAL = (sp.erfc, sp.exp, sp.uppergamma, sp.betainc, sp.log, sp.polylog, _HeldPolylog)


def _hold(expression: Expr) -> Expr:
    return expression.replace(sp.polylog, _HeldPolylog)


def release(expression: Expr) -> Expr:
    """Put SymPy's polylog back."""
    return expression.replace(_HeldPolylog, lambda n, z: sp.polylog(n, z, evaluate=bool(z.is_number)))


class HalfLineIntegral(sp.Integral):  # type: ignore[misc]
    """Integral of a polynomial times a pdf over lower <= x <= upper, 0 <= lower; `.doit()` gives its closed form.

    Where no closed form is known it stays as it is; `evalf` and `to_numpy` then integrate numerically.
    """

    def doit(self, **hints: Any) -> Expr:
        """The closed form, ordered by its special functions."""
        x, lower, upper = self.limits[0]
        found = antiderivative(self.function, x)
        if found is None:
            return self
        return release(tidy((found(lower) - found(upper)).replace(sp.betainc, complete)))

    def _eval_evalf(self, prec: int) -> Expr:
        # By quadrature of the integrand, which shares nothing with the closed form.
        return sp.Integral(*self.args).evalf(_digits(prec))


class LevelSum(sp.Sum):  # type: ignore[misc]
    """Sum over levels or binades; `.doit()` closes the integrals, and the sum where it is short or geometric."""

    def doit(self, **hints: Any) -> Expr:
        """Closed summands; all of them where their number is known, the geometric series where it is one."""
        inner = _hold(self.function.doit(**hints))
        terms = sp.Mul(*(last - first + 1 for _, first, last in self.limits))
        for number, (index, first, last) in enumerate(self.limits):
            count = last - first + 1
            if terms.is_Integer and terms <= _MOST_TERMS:
                inner = sp.Add(*(inner.subs(index, first + i) for i in range(int(count))))
            elif (closed := _geometric(inner, index, first, last)) is not None:
                inner = closed
            else:
                return LevelSum(release(inner), *self.limits[number:])
        return release(tidy(inner))

    def _eval_evalf(self, prec: int) -> Expr:
        # Added up: SymPy would extrapolate a long sum.
        *inner, (index, first, last) = self.limits
        count = last - first + 1
        if not count.is_Integer:
            return self
        term = LevelSum(self.function, *inner) if inner else self.function
        return sp.Add(*(term.subs(index, first + i).evalf(_digits(prec)) for i in range(int(count))))


def _digits(bits: int) -> int:
    return int(bits * 0.30103)


def _geometric(term: Expr, index: Expr, first: Expr, last: Expr) -> Expr | None:
    """Sum of c r^index, of each term of which the ratio does not depend on the index; None for anything else."""
    if not all(isinstance(f, sp.exp) for f in term.atoms(sp.Function)):
        return None
    total = sp.S.Zero
    for part in sp.Add.make_args(sp.expand(term)):
        ratio = sp.simplify(sp.powsimp(part.subs(index, index + 1) / part))
        if ratio.has(index):
            return None
        start = sp.powsimp(part.subs(index, first))
        total += start * (last - first + 1) if ratio == 1 else start * (1 - ratio ** (last - first + 1)) / (1 - ratio)
    return total


def tidy(expression: Expr) -> Expr:
    """Expand products, and collect by special functions with simplified factors."""
    collected: dict[Expr, list[Expr]] = {}
    for term in sp.Add.make_args(expand_products(expression)):
        special = [factor for factor in sp.Mul.make_args(term) if _is_special(factor)]
        key = sp.Mul(*special)
        collected.setdefault(key, []).append(sp.Mul(*(f for f in sp.Mul.make_args(term) if f not in special)))
    plain = collected.pop(sp.S.One, [])
    return sp.Add(*plain, *(key * sp.factor_terms(sp.Add(*terms)) for key, terms in collected.items()))


def _is_special(factor: Expr) -> bool:
    return bool(factor.has(*_SPECIAL) or (factor.is_Pow and factor.exp.free_symbols))


def expand_products(expression: Expr) -> Expr:
    """Multiply sums out, but not inside of functions and powers."""
    return sp.Add(*(sp.expand(term, deep=False) for term in sp.Add.make_args(expression)))


def antiderivative(integrand: Expr, x: Expr) -> Callable[[Expr], Expr] | None:
    """Function t -> integral of the integrand from t to where its tail ends (infinity, or 0 for polynomials).

    Parameters
    ----------
    integrand : Expr
        Polynomial in x times one of the known forms of pdf, or a sum of such.
    x : Symbol
        The variable.

    Returns
    -------
    callable or None
        None where no form is recognized.

    Examples
    --------
    >>> antiderivative(X * sp.exp(-X), X)(sp.Symbol("t")).factor()
    (t + 1)*exp(-t)
    """
    split = _split(integrand, x)
    if split is None:
        return None

    def tail(t: Expr) -> Expr:
        if t is sp.oo:
            return sp.S.Zero
        return expand_products(sp.Add(*(_part_tail(polynomial, form, x, t) for polynomial, form in split)))

    return tail


def _part_tail(polynomial: Expr, form: Expr | None, x: Expr, t: Expr) -> Expr:
    if form is None:
        # About the value that a power is taken of: (x - q)^n keeps its digits.
        constant, power = polynomial.as_independent(x, as_Add=False)
        base, n = power.as_base_exp()
        if sp.diff(base, x) in (1, -1):
            return -constant * base.subs(x, t) ** (n + 1) / ((n + 1) * sp.diff(base, x))
        return -sp.integrate(polynomial, x).subs(x, t)
    powers = sp.Poly(polynomial, x).terms()
    return sp.Add(*(sp.expand(c * tail_moment(form, k, x).subs(_T, t), deep=False) for (k,), c in powers))


def _split(integrand: Expr, x: Expr) -> list[tuple[Expr, Expr | None]] | None:
    """Write the integrand as sum of polynomial * form; the form of a bare polynomial is None."""
    pairs: list[tuple[Expr, Expr | None]] = []
    polynomials: list[Expr] = []
    others: list[Expr] = []
    for factor in sp.Mul.make_args(integrand):
        (polynomials if factor.is_polynomial(x) else others).append(factor)
    if not others:
        return [(integrand, None)]
    rest, polynomial = sp.Mul(*others), sp.Mul(*polynomials)
    if rest.is_Add:
        for part in rest.args:
            inner = _split(part, x)
            if inner is None:
                return None
            pairs += [(polynomial * p, form) for p, form in inner]
        return pairs
    return [(polynomial, rest)] if recognize(rest, x) is not None else None


@lru_cache(maxsize=4096)
def tail_moment(form: Expr, k: int, x: Expr) -> Expr:
    """Integral of x^k form(x) from t to infinity, as an expression in the symbol t > 0.

    Raises
    ------
    ValueError
        For a form that is not recognized.
    """
    found = recognize(form, x)
    if found is None:
        raise ValueError(f"no closed form is known for the integral of {form}; keep it folded and use evalf")
    derive, values, factor = found
    return factor * derive(k).subs(values, simultaneous=True)


def complete(a: Expr, b: Expr, lower: Expr, upper: Expr) -> Expr:
    """The incomplete beta function; the complete one by gamma functions."""
    if (lower, upper) != (0, 1):
        return sp.betainc(a, b, lower, upper)
    return sp.gamma(a) * sp.gamma(b) / sp.gamma(a + b)


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
        return student_tail, {_W: sp.sqrt(c0 / c2), _P: -exponent}, c0**exponent
    return None


def _as_logistic(factors: tuple[Expr, ...], x: Expr) -> tuple[Derivation, dict[Expr, Expr], Expr] | None:
    decay = next((factor for factor in factors if factor.func is sp.exp), None)
    if decay is None or sp.Mul(*factors) != decay * (1 + decay) ** -2:
        return None
    a = -decay.args[0] / x
    return (logistic_tail, {_A: a}, sp.S.One) if not a.has(x) else None


@lru_cache(maxsize=64)
def exponential_tail(k: int) -> Expr:
    """Integral of x^k exp(-a x) beyond t, by SymPy."""
    return sp.expand(sp.integrate(X**k * sp.exp(-_A * X), (X, _T, sp.oo)))


@lru_cache(maxsize=64)
def gaussian_tail(k: int) -> Expr:
    """Integral of x^k exp(-a x^2) beyond t, by SymPy; its 1 - erf written as erfc, which keeps the digits of a tail."""
    found = sp.integrate(X**k * sp.exp(-_A * X**2), (X, _T, sp.oo))
    return sp.expand(sp.expand(found).rewrite(sp.erfc))


@lru_cache(maxsize=64)
def power_exponential_tail(k: int) -> Expr:
    """Integral of x^k exp(-a x^beta) beyond t: with v = a x^beta an incomplete gamma function."""
    v = sp.Symbol("v", positive=True)
    integrand = _substituted(X**k * sp.exp(-_A * X**_B), (v / _A) ** (1 / _B), v)
    constant, rest = integrand.as_independent(v, as_Add=False)
    power = sp.simplify(v * sp.diff(sp.log(rest), v)).subs(v, 0)
    # The definition of uppergamma: v^(power - 1) exp(-v), which the quotient confirms.
    constant *= sp.simplify(rest / (v**power * sp.exp(-v)))
    return constant * sp.uppergamma(power + 1, _A * _T**_B)


@lru_cache(maxsize=64)
def student_tail(k: int) -> Expr:
    """Integral of x^k (1 + x^2 / w^2)^-p beyond t: with y = w^2 / (w^2 + x^2) an incomplete beta function."""
    if k % 2:
        # An odd power is the derivative of v = 1 + x^2 / w^2 times a power of x^2 = w^2 (v - 1).
        v = sp.Symbol("v", positive=True)
        even = sp.expand((_W**2 * (v - 1)) ** ((k - 1) // 2) * _W**2 / 2)
        parts = sp.Add.make_args(sp.powsimp(sp.expand(even * v**-_P, deep=False)))
        return sp.Add(*(_power_tail(part, v, 1 + _T**2 / _W**2) for part in parts))
    # The powers of y and 1 - y are read off the transformed integrand by its logarithmic derivative.
    y = sp.Symbol("y", positive=True)
    integrand = _substituted(X**k * (1 + X**2 / _W**2) ** -_P, _W * sp.sqrt((1 - y) / y), y)
    slope = sp.simplify(y * (1 - y) * sp.diff(sp.log(integrand), y))
    first, second = sp.simplify(slope.subs(y, 0)), sp.simplify(-slope.subs(y, 1))
    constant = sp.simplify((integrand / (y**first * (1 - y) ** second)).subs(y, sp.Rational(1, 2)))
    return constant * sp.betainc(first + 1, second + 1, 0, _W**2 / (_W**2 + _T**2))


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
    u, v = sp.symbols("u v", positive=True)
    iterated = [sp.factor(sp.integrate(1 / (1 + v) ** 2, (v, 0, u)))]
    for _ in range(k):
        iterated.append(_from_zero(iterated[-1].subs(u, v) / v, v, u))
    by_parts = sum(sp.ff(k, j) * _T ** (k - j) * part for j, part in enumerate(iterated))
    return expand_products(_hold(by_parts).subs(u, sp.exp(-_T)).subs(_T, _A * _T) / _A ** (k + 1))


def _from_zero(integrand: Expr, v: Expr, u: Expr) -> Expr:
    """Integral from 0 to u of an integrand that is rational, log(1 + v) / v or polylog(n, -v) / v."""
    found = sp.integrate(integrand, v)
    if found.has(sp.Integral):
        # d polylog(n + 1, -v) / dv = polylog(n, -v) / v: raise the order.
        found = (integrand * v).replace(sp.polylog, lambda n, z: sp.polylog(n + 1, z))
    found = found.replace(sp.polylog, lambda n, z: sp.polylog(n, sp.unpolarify(z)))
    return found.subs(v, u) - sp.limit(found, v, 0)


def _substituted(integrand: Expr, x_of_y: Expr, y: Expr) -> Expr:
    """The integrand in the new variable, with the factor |dx / dy|."""
    jacobian = sp.diff(x_of_y, y)
    changed = integrand.subs(X, x_of_y) * jacobian
    changed = sp.powsimp(sp.powdenest(sp.simplify(changed), force=True), force=True)
    return -changed if changed.subs(y, sp.Rational(1, 2)).could_extract_minus_sign() else changed
