"""Integrals of polynomial times pdf over parts of the half-line, and sums over levels: folded until `.doit()`."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import sympy as sp

from .._types import Expr
from .expressions import refuse_text
from .tails import HeldPolylog, expand_products, hold, recognize, release, tail_moment

# Longer sums keep their Sum sign, with closed summands: written out they take seconds and nobody reads them.
_MOST_TERMS = 16


# What a closed form is ordered by, for reading.
_SPECIAL = (sp.erfc, sp.exp, sp.uppergamma, sp.betainc, sp.log, sp.polylog, HeldPolylog)


class HalfLineIntegral(sp.Integral):  # type: ignore[misc]
    """Integral of a polynomial times a pdf over lower <= x <= upper, 0 <= lower; `.doit()` gives its closed form.

    Where no closed form is known it stays as it is; `evalf` and `to_numpy` then integrate numerically.
    """

    # Else SymPy integrates numerically wherever it sorts terms by their coefficients, for seconds.
    is_number = False

    def __new__(cls, *args: Any, **options: Any) -> Expr:
        """As SymPy makes it, of expressions and numbers."""
        refuse_text("integrand and limits", args)
        return super().__new__(cls, *args, **options)

    @property
    def free_symbols(self) -> set[Expr]:
        """Symbols that are not integrated over."""
        return _free_symbols(self)

    def doit(self, **hints: Any) -> Expr:
        """The closed form, ordered by its special functions."""
        closed = _closed(self.function, *self.limits[0])
        return self if closed is None else closed

    def _eval_evalf(self, prec: int) -> Expr:
        # By quadrature of the integrand, which shares nothing with the closed form.
        return sp.Integral(*self.args).evalf(digits(prec))


@lru_cache(maxsize=512)
def _closed(integrand: Expr, x: Expr, lower: Expr, upper: Expr) -> Expr | None:
    found = antiderivative(integrand, x)
    return found and release(tidy((found(lower) - found(upper)).replace(sp.betainc, complete)))


class LevelSum(sp.Sum):  # type: ignore[misc]
    """Sum over levels or binades; `.doit()` closes the integrals, and the sum where it is short or geometric.

    A sum of closed cells remembers in `folded` the sum of integrals, also through substitutions: closed, narrow cells
    cancel in float64, so `to_numpy` compiles the integrals.
    """

    is_number = False
    folded: Expr = None

    def __new__(cls, *args: Any, **options: Any) -> Expr:
        """As SymPy makes it, of expressions and numbers."""
        refuse_text("summand and limits", args)
        return super().__new__(cls, *args, **options)

    @property
    def free_symbols(self) -> set[Expr]:
        """Symbols that are not summed over."""
        return _free_symbols(self)

    def doit(self, **hints: Any) -> Expr:
        """Closed summands; all of them where their number is known, the geometric series where it is one."""
        inner = hold(self.function.doit(**hints))
        terms = sp.Mul(*(last - first + 1 for _, first, last in self.limits))
        for number, (index, first, last) in enumerate(self.limits):
            count = last - first + 1
            if terms.is_Integer and terms <= _MOST_TERMS:
                inner = sp.Add(*(inner.subs(index, first + i) for i in range(int(count))))
            elif (closed := _geometric(inner, index, first, last)) is not None:
                inner = closed
            else:
                closed = LevelSum(release(inner), *self.limits[number:])
                closed.folded = self.folded or self
                return closed
        return release(tidy(inner))

    def _eval_subs(self, old: Expr, new: Expr) -> Expr:
        changed = super()._eval_subs(old, new)
        if self.folded is not None:
            changed.folded = self.folded.subs(old, new)
        return changed

    def _eval_evalf(self, prec: int) -> Expr:
        # Added up: SymPy would extrapolate a long sum.
        *inner, (index, first, last) = self.limits
        count = last - first + 1
        if not count.is_Integer:
            return self
        term = LevelSum(self.function, *inner) if inner else self.function
        return sp.Add(*(term.subs(index, first + i).evalf(digits(prec)) for i in range(int(count))))


def _free_symbols(folded: Expr) -> set[Expr]:
    """SymPy rebuilds the whole summand to find them."""
    found = set(folded.function.free_symbols)
    for variable, lower, upper in folded.limits:
        found = (found - {variable}) | lower.free_symbols | upper.free_symbols
    return found


def digits(bits: int) -> int:
    """Decimal digits of a binary precision."""
    return int(bits * 0.30103)


def _geometric(term: Expr, index: Expr, first: Expr, last: Expr) -> Expr | None:
    """Sum of c r^index, of each term of which the ratio does not depend on the index; None for anything else."""
    functions = term.atoms(sp.Function, sp.Min, sp.Max)
    if not functions or any(not isinstance(f, sp.exp) or sp.diff(f.args[0], index).has(index) for f in functions):
        return None
    total = sp.S.Zero
    for part in sp.Add.make_args(sp.expand(term)):
        varying = sp.powsimp(part.as_independent(index, as_Add=False)[1])
        if varying != 1 and not isinstance(varying, sp.exp):
            return None
        ratio = sp.exp(sp.diff(sp.log(varying), index))
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
    plain = sp.Add(*collected.pop(sp.S.One, []))
    if any(gamma.free_symbols for gamma in plain.atoms(sp.gamma)):
        plain = sp.gammasimp(plain)
    return sp.Add(plain, *(sp.Mul(key, *_factored(sp.Add(*terms))) for key, terms in collected.items()))


def _factored(total: Expr) -> list[Expr]:
    """Factors of a sum: the number and the powers that all its terms share, the rest; SymPy's own takes seconds."""
    if any(_has_sums(term) for term in sp.Add.make_args(total)):
        total = sp.expand(total)
    if total == 0:
        return [total]
    content, total = total.primitive()
    if total.could_extract_minus_sign():
        content, total = -content, -total
    first, *others = (dict(f.as_base_exp() for f in sp.Mul.make_args(term)) for term in sp.Add.make_args(total))
    shared = []
    for base, exponent in first.items():
        exponents = {exponent, *(powers.get(base, sp.S.Zero) for powers in others)}
        if len(exponents) == 1 or (not base.is_number and all(e.is_Rational and e > 0 for e in exponents)):
            shared.append(base ** min(exponents, key=abs))
    divisor = sp.Mul(*shared)
    return [content, divisor, sp.Add(*(term / divisor for term in sp.Add.make_args(total)))]


def _has_sums(term: Expr) -> bool:
    powers = (factor.as_base_exp() for factor in sp.Mul.make_args(term))
    return any(base.is_Add and exponent.is_Integer and exponent > 0 for base, exponent in powers)


def _is_special(factor: Expr) -> bool:
    return bool(factor.has(*_SPECIAL, sp.Sum, sp.Integral) or (factor.is_Pow and factor.exp.free_symbols))


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
    >>> X = sp.Symbol("x", positive=True)
    >>> antiderivative(X * sp.exp(-X), X)(sp.Symbol("t")).factor()
    (t + 1)*exp(-t)
    """
    split = _split(integrand, x)
    if split is None:
        return None

    def tail(t: Expr) -> Expr:
        if t is sp.oo:
            return sp.S.Zero
        return sp.Add(*(_part_tail(polynomial, form, x, t) for polynomial, form in split))

    return tail


def _part_tail(polynomial: Expr, form: Expr | None, x: Expr, t: Expr) -> Expr:
    if form is None:
        # About the value that a power is taken of: (x - q)^n keeps its digits.
        constant, power = polynomial.as_independent(x, as_Add=False)
        base, n = power.as_base_exp()
        if sp.diff(base, x) in (1, -1):
            return -constant * base.subs(x, t) ** (n + 1) / ((n + 1) * sp.diff(base, x))
        return -sp.integrate(polynomial, x).subs(x, t)
    return sp.Add(*(c * tail_moment(form, k, x, t) for k, c in coefficients(polynomial, x)))


def coefficients(polynomial: Expr, x: Expr) -> list[tuple[int, Expr]]:
    """Powers of x and their coefficients, products of those of the factors; SymPy's Poly takes seconds to tidy them."""
    found = {0: sp.S.One}
    for factor in sp.Mul.make_args(polynomial):
        base, exponent = factor.as_base_exp() if factor.has(x) else (factor, 1)
        for _ in range(int(exponent)):
            found = _multiplied(found, _monomials(base, x))
    return sorted((k, c) for k, c in found.items() if c != 0)


def _multiplied(one: dict[int, Expr], two: dict[int, Expr]) -> dict[int, Expr]:
    found: dict[int, Expr] = {}
    for (i, a), (k, c) in itertools.product(one.items(), two.items()):
        found[i + k] = found.get(i + k, sp.S.Zero) + a * c
    return found


def _monomials(base: Expr, x: Expr) -> dict[int, Expr]:
    found: dict[int, Expr] = {}
    for term in sp.Add.make_args(base):
        c, power = term.as_coeff_exponent(x)
        if c.has(x):
            return {k: c for (k,), c in sp.Poly(base, x).terms()}
        found[int(power)] = found.get(int(power), sp.S.Zero) + c
    return found


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


def complete(a: Expr, b: Expr, lower: Expr, upper: Expr) -> Expr:
    """The incomplete beta function; the complete one by gamma functions."""
    if (lower, upper) != (0, 1):
        return sp.betainc(a, b, lower, upper)
    return sp.gamma(a) * sp.gamma(b) / sp.gamma(a + b)
