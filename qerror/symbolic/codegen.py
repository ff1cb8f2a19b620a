"""Expressions as NumPy source that keeps the digits of tails and of narrow cells."""

from __future__ import annotations

import keyword
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import numpy as np
import sympy as sp
from sympy.printing.numpy import SciPyPrinter

from .._check import shown
from .._types import Expr
from .expressions import as_expression, as_symbol
from .integrals import antiderivative, coefficients, tidy
from .origins import origin
from .sample import Rank
from .tails import release

# The closed form of a cell is a difference of two tails, taken where it loses at most four bits. Narrower cells are
# integrated over u, x = lower + (upper - lower) u^2, on panels that grow threefold: at the lower end a pdf may have a
# cusp, such as exp(-sqrt(x)).
_INTEGRAL = '''
_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(12)
_PANELS = np.concatenate([[0.0], 3.0 ** np.arange(-8, 1)])
_U = (_PANELS[:-1, None] + np.diff(_PANELS)[:, None] * (_NODES + 1) / 2).ravel()
_AT = _U**2
_BY = 2 * _U * (np.diff(_PANELS)[:, None] * _WEIGHTS / 2).ravel()


def _integral(integrand, tail, lower, upper):
    """Integral from lower to upper: the difference of two tails, or quadrature where they nearly cancel."""
    lower, upper = np.broadcast_arrays(np.asarray(lower, float), np.asarray(upper, float))
    whole = tail(lower)
    difference = whole - tail(upper)
    x = lower + np.multiply.outer(_AT, upper - lower)
    weights = np.multiply.outer(_BY, upper - lower)
    return np.where(np.abs(difference) > np.abs(whole) / 16, difference, (weights * integrand(x)).sum(axis=0))
'''
_POLYLOG = '''
def _polylog(n, z):
    """Polylogarithm of integer order n for -1 <= z <= 0, by averaging the ends of its alternating series."""
    z = np.asarray(z, float)
    terms = np.array([z**k / float(k) ** n for k in range(1, 61)])
    sums = np.cumsum(terms, axis=0)
    # Euler's transformation: the averaged partial sums of an alternating series converge like 2^-k.
    while len(sums) > 20:
        sums = (sums[1:] - sums[:-1] * z) / (1 - z)
    return sums[-1]
'''
_WHOLE = '''
def _whole(end):
    """The end of a sum over a symbolic number of levels."""
    if np.ndim(end) or end != np.rint(end):
        raise ValueError(f"levels must be one whole number, even or odd as its symbol is, got a sum up to {end}")
    return int(end)
'''
_HELPERS = {"_integral(": _INTEGRAL, "_polylog(": _POLYLOG, "_whole(": _WHOLE}


@dataclass(frozen=True)
class CompiledExpression:
    """A function of arrays, and the source text that it was made from.

    Attributes
    ----------
    source : str
        A module: imports, helpers, one function; needs NumPy and SciPy only.
    arguments : tuple of str
        Names of the arguments in order.
    """

    source: str
    arguments: tuple[str, ...]
    _function: Callable[..., Any] = field(repr=False)

    def __call__(self, *values: Any) -> Any:
        """Evaluate; arguments, array-like, broadcast."""
        return self._function(*(np.asarray(value, np.float64)[()] for value in values))


class _SourcePrinter(SciPyPrinter):  # type: ignore[misc]
    """NumPy source; broadcasts Min and Max, keeps cells as integrals."""

    def __init__(self) -> None:
        super().__init__()
        self.functions: dict[tuple[str, Expr], tuple[str, str]] = {}

    def _print_Pi(self, expr: Expr) -> str:
        return "numpy.pi"

    def _print_Add(self, expr: Expr) -> str:
        folded = origin(expr)
        return str(super()._print_Add(expr) if folded is None else f"({self._print(folded)})")

    def _print_Min(self, expr: Expr) -> str:
        return self._nested("minimum", expr.args)

    def _print_Max(self, expr: Expr) -> str:
        return self._nested("maximum", expr.args)

    def _nested(self, name: str, args: Sequence[Expr]) -> str:
        text: str = self._print(args[0])
        for arg in args[1:]:
            text = f"{self._module_format('numpy.' + name)}({text}, {self._print(arg)})"
        return text

    def _print_log(self, expr: Expr) -> str:
        one, rest = expr.args[0].as_coeff_Add()
        if one != 1 or rest == 0:
            return str(super()._print_log(expr))
        return f"{self._module_format('numpy.log1p')}({self._print(rest)})"

    def _print_polylog(self, expr: Expr) -> str:
        if not expr.args[0].is_Integer:
            raise ValueError(f"to_numpy has polylogarithms of integer order only, got {expr}; use evalf")
        return f"_polylog({expr.args[0]}, {self._print(expr.args[1])})"

    def _print_Sum(self, expr: Expr) -> str:
        loops = " ".join(f"for {i} in range({_end(a)}, {_end(b + 1)})" for i, a, b in reversed(expr.limits))
        return f"builtins.sum({self._print(expr.function)} {loops})"

    def _print_LevelSum(self, expr: Expr) -> str:
        return str(self._print_Sum(expr) if expr.folded is None else self._print(expr.folded))

    def _print_HalfLineIntegral(self, expr: Expr) -> str:
        x, lower, upper = expr.limits[0]
        if antiderivative(expr.function, x) is None:
            remedy = "use evalf, or qerror.from_pdf for numbers"
            raise ValueError(f"no closed form is known for {expr.function}; {remedy}")
        if upper is sp.oo:
            return f"({_text(expr.doit())})"
        functions = ", ".join(f"lambda {x}: {_text(body)}" for body in self._integrand_and_tail(expr.function, x))
        # The nodes get an axis of their own: the ends must have all other axes, also those of the integrand alone.
        alone = expr.function.free_symbols - lower.free_symbols - upper.free_symbols - {x}
        start = " + ".join([*(f"0*{_text(symbol)}" for symbol in sorted(alone, key=str)), _text(lower)])
        return f"_integral({functions}, {start}, {_text(upper)})"

    def _integrand_and_tail(self, integrand: Expr, x: Expr) -> tuple[Expr, Expr]:
        """Polynomial * pdf, and the moments of its tail beyond x; pdf and moments are functions shared by all cells."""
        polynomial, pdf = _polynomial_and_pdf(integrand, x)
        if pdf == 1:
            return integrand, _tail(integrand, x)
        moments = (c * self._local(f"_tail{k}", _tail(x**k * pdf, x), x) for k, c in coefficients(polynomial, x))
        return polynomial * self._local("_pdf", pdf, x), sp.Add(*moments)

    def _local(self, name: str, body: Expr, x: Expr) -> Expr:
        """A call of the function x -> body, which is written before the expression."""
        key = name, body
        if key not in self.functions:
            others = sum(known == name for known, _ in self.functions)
            name = f"{name}_{others}" if others else name
            self.functions[key] = name, f"    def {name}({x}):\n        return {_text(body)}\n"
        return _Local(sp.Symbol(self.functions[key][0]), x)

    def _print__Local(self, expr: Expr) -> str:
        return f"{expr.args[0]}({self._print(expr.args[1])})"


@lru_cache(maxsize=4096)
def _text(closed: Expr) -> str:
    """Source of what contains no cells: the same ends and losses are in the error and in its derivatives."""
    return str(_SourcePrinter().doprint(closed))


def _end(edge: Expr) -> str:
    return str(edge) if edge.is_Integer else f"_whole({_text(edge)})"


class _Local(sp.Function):  # type: ignore[misc]
    """A function of the source, by its name and argument."""

    nargs = 2


def _polynomial_and_pdf(integrand: Expr, x: Expr) -> tuple[Expr, Expr]:
    """What is a polynomial in x, and the rest with the constants that belong to it."""
    above, below = sp.sift(sp.Mul.make_args(integrand), lambda factor: bool(factor.is_polynomial(x)), binary=True)
    symbols = sp.Mul(*below).free_symbols - {x}
    own, others = sp.sift(above, lambda c: bool(below) and not c.is_Rational and c.free_symbols <= symbols, binary=True)
    return sp.Mul(*others), sp.Mul(*own, *below)


@lru_cache(maxsize=256)
def _tail(integrand: Expr, x: Expr) -> Expr:
    """The closed integral of the integrand beyond x."""
    tail = antiderivative(integrand, x)
    return release(tidy(tail(x))) if tail else None


def to_numpy(
    expression: Expr, arguments: Sequence[Expr] | None = None, *, name: str = "evaluate"
) -> CompiledExpression:
    """Compile an expression to NumPy.

    Tails are printed in closed form (erfc, incomplete gamma and beta functions); a cell between two levels as the
    difference of two tails, or by Gauss-Legendre quadrature where that would cancel. Written out by `.doit()`, cells
    cancel: what `.doit()` or a derivation returned is printed as the integrals that it was made of. That is lost when
    a closed form is changed (`.subs`, `diff`): change it folded.

    Parameters
    ----------
    expression : Expr
        Folded, or closed.
    arguments : sequence of Symbol, optional
        In order; by default the free symbols by name.
    name : str
        Of the function.

    Returns
    -------
    CompiledExpression
        Callable; `.source` is its text.

    Raises
    ------
    ValueError
        For an expression with functions that NumPy and SciPy do not have, symbols that are no arguments, or names that
        are none in Python.

    Examples
    --------
    >>> import qerror as qe
    >>> from qerror import symbolic
    >>> error = to_numpy(symbolic.mse("gaussian:std=1", "int4", sp.Symbol("s", positive=True)))
    >>> bool(abs(error(0.25) / qe.quantization_error(qe.Gaussian(), "int4", 0.25).mse - 1) < 1e-12)
    True
    """
    expression = as_expression("expression", expression)
    if not _is_name(name):
        raise ValueError(f"name must be one that a function can have, got {shown(name)}")
    if expression.has(Rank):
        raise ValueError("the error of a symbolic sample has no NumPy source; qerror.Empirical(x) has its numbers")
    free = sorted(expression.free_symbols, key=str)
    symbols = list(free if arguments is None else arguments)
    for each in symbols:
        as_symbol("arguments must be Symbols", each, "expression.free_symbols")
    missing = [str(symbol) for symbol in free if symbol not in symbols]
    if missing:
        raise ValueError(f"arguments must name all free symbols, {', '.join(missing)} missing; substitute or add them")
    names = [_text(symbol) for symbol in symbols]
    # Symbols that are summed or integrated over become names in the source too.
    within = sorted({_text(each) for each in expression.atoms(sp.Symbol)} - set(names))
    if wrong := [text for text in [*names, *within] if not _is_name(text)]:
        raise ValueError(f"arguments must have names that a function can take, got {', '.join(wrong)}; rename them")
    printer = _SourcePrinter()
    try:
        parts = [printer.doprint(term) for term in sp.Add.make_args(origin(expression) or expression)]
    except (TypeError, NotImplementedError, AttributeError, KeyError) as error:
        raise ValueError(f"no NumPy source for {expression.func.__name__}: {error}; use evalf") from None
    if any("Not supported" in part for part in parts):
        raise ValueError(f"no NumPy source for the functions of {expression}; use evalf")
    functions = [text for _, text in printer.functions.values()]
    body = _definition(name, names, functions, parts)
    helpers = [text for call, text in _HELPERS.items() if call in body]
    text = "\n".join([_header(body), *helpers, "", body])
    text = text.replace("numpy.", "np.")
    scope: dict[str, Any] = {}
    exec(compile(text, f"<{name}>", "exec"), scope)
    return CompiledExpression(text, tuple(names), scope[name])


def _is_name(text: Any) -> bool:
    taken = ("np", "numpy", "scipy", "builtins")
    return isinstance(text, str) and text.isidentifier() and not keyword.iskeyword(text) and text not in taken


def _header(body: str) -> str:
    modules = ["import builtins"] if "builtins." in body else []
    modules += ["import numpy as np"]
    modules += ["import scipy.special"] if "scipy.special." in body else []
    return "\n".join(modules) + "\n"


def _definition(name: str, arguments: Sequence[str], functions: Sequence[str], terms: Sequence[str]) -> str:
    signed = [f"- {term[1:]}" if term.startswith("-") else f"+ {term}" for term in terms]
    body = terms[0] if len(terms) == 1 else "(\n        " + "\n        ".join(signed).removeprefix("+ ") + "\n    )"
    return "\n".join([f"\ndef {name}({', '.join(arguments)}):", *functions, f"    return {body}\n"])
