"""A density as a SymPy expression on its half-line."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, lru_cache

import sympy as sp

from .._types import Expr
from .expressions import as_expression
from .integrals import HalfLineIntegral
from .tails import X


@dataclass(frozen=True)
class SymbolicDensity:
    """A density that is symmetric about its mean, given by its pdf at x = mean + t for 0 <= t < end.

    SymPy leaves integrals of |x| over the whole line unevaluated; on the half-line all families here integrate.

    Attributes
    ----------
    name : str
        For titles.
    half_pdf : Expr
        In the symbol `qerror.symbolic.X`, which stands for t.
    end : Expr
        Where the support ends, oo or positive.
    mean : Expr
        Units of x.

    Examples
    --------
    >>> triangle = SymbolicDensity("triangle", 1 - X, end=sp.Integer(1))
    >>> triangle.variance
    1/6
    """

    name: str
    half_pdf: Expr
    end: Expr = sp.oo
    mean: Expr = sp.S.Zero

    def __post_init__(self) -> None:
        for part in ("half_pdf", "end", "mean"):
            object.__setattr__(self, part, as_expression(part, getattr(self, part)))

    def integral(self, loss: Expr, lower: Expr, upper: Expr) -> Expr:
        """Integral of loss(t) f over lower <= t <= upper, t = x - mean, as folded integrals over the half-line.

        Parameters
        ----------
        loss : Expr
            Polynomial in `X`, which stands for t.
        lower, upper : Expr
            Relative to the mean; may be infinite and of any sign.

        Returns
        -------
        Expr
            Sum of `HalfLineIntegral`; the part below the mean is mirrored.
        """
        loss, lower = as_expression("loss", loss), as_expression("lower", lower)
        upper, total = as_expression("upper", upper), sp.S.Zero
        for sign, low, high in ((1, lower, upper), (-1, -upper, -lower)):
            start, stop = (_on_half_line(edge, self.end) for edge in (low, high))
            if start != stop:
                factor, part = _signed(loss if sign > 0 else _mirrored(loss))
                total += factor * HalfLineIntegral(part * self.half_pdf, (X, start, stop))
        return total

    def pdf(self, x: Expr) -> Expr:
        """The pdf at x."""
        t = sp.Abs(as_expression("x", x) - self.mean)
        inside = self.half_pdf.subs(X, t)
        return inside if self.end is sp.oo else sp.Piecewise((inside, t <= self.end), (0, True))

    @cached_property
    def variance(self) -> Expr:
        """Second moment about the mean, integrated."""
        return sp.gammasimp(self.integral(X**2, -sp.oo, sp.oo).doit())

    @property
    def parameters(self) -> tuple[Expr, ...]:
        """Free symbols, sorted by name."""
        symbols = (self.half_pdf.free_symbols | self.mean.free_symbols | self.end.free_symbols) - {X}
        return tuple(sorted(symbols, key=str))


@lru_cache(maxsize=1024)
def _on_half_line(edge: Expr, end: Expr) -> Expr:
    """The edge cut to 0 .. end; SymPy compares what it is not told the sign of at length."""
    if edge.is_nonpositive:
        return sp.S.Zero
    inner = edge if edge.is_nonnegative else sp.Max(edge, 0)
    return inner if end is sp.oo else sp.Min(inner, end)


def _mirrored(loss: Expr) -> Expr:
    """loss(-x), with even powers of -x - q written as those of x + q: what is equal then looks equal."""
    changed = loss.subs(X, -X)
    return changed.replace(
        lambda e: e.is_Pow and e.exp.is_even and e.base.coeff(X) == -1,
        lambda e: (X + sp.factor(-e.base - X)) ** e.exp,
    )


def _signed(loss: Expr) -> tuple[int, Expr]:
    """A linear loss with x positive, and the sign: first moments of both sides then cancel where they are the same."""
    slope = sp.S.Zero if loss.is_Pow else sp.diff(loss, X)
    return (-1, -loss) if slope.is_number and slope < 0 else (1, loss)


def positive(name: str, value: Expr) -> Expr:
    """The value as an expression that SymPy knows to be positive."""
    found = as_expression(name, value)
    if not found.is_positive:
        remedy = f"sympy.Symbol({str(value)!r}, positive=True)" if found.free_symbols else "a positive number"
        raise ValueError(f"{name} must be positive, got {value}; use {remedy}")
    if found.has(X):
        raise ValueError(f"{name} must not contain x, the variable of the pdf, got {value}; give it another name")
    return found
