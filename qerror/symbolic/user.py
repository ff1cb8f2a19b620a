"""A pdf in SymPy as a numeric density: its moments integrated by SymPy where it can, by quadrature otherwise."""

from __future__ import annotations

import itertools
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import sympy as sp
from numpy.typing import ArrayLike

from .._check import shown
from .._types import Array, Expr
from ..densities.adapters import FromPdf, from_pdf
from ..densities.location_scale import unwrap
from .codegen import to_numpy
from .expressions import as_expression, as_symbol
from .integrals import antiderivative, complete
from .tails import T, X, release

# Sign of x, ends on the half-line, the pdf there.
Part = tuple[int, Expr, Expr, Expr]

# A process of its own is the only way to stop SymPy in time on every platform.
_INTEGRATE = """
import sys, sympy as sp
x, t, parts = sp.sympify(sys.stdin.read())
for f, low, high in parts:
    for k in range(3):
        for ends in ((t, high), (low, t), (low, high)):
            print(sp.srepr(sp.integrate(x**k * f, (x, *ends)).rewrite(sp.erfc)), flush=True)
"""
# A difference of closed forms is used where it keeps all but four bits.
_KEPT = 1.0 / 16.0
# How far SymPy and quadrature may differ: what is worse is a wrong antiderivative.
_AGREEMENT = 1e-8


@dataclass(frozen=True)
class Piece:
    """A part of the half-line, x or -x, on which the pdf is one smooth expression.

    `above` and `below` are the integrals of x^k f from t to `high` and from `low` to t, k = 0, 1, 2.
    """

    sign: int
    low: float
    high: float
    above: tuple[Callable[[Array], Array], ...]
    below: tuple[Callable[[Array], Array], ...]
    whole: tuple[float, ...]

    def raw_moments(self, a: Array, b: Array) -> tuple[Array, Array]:
        """Integrals of x^k f from a to b, shape (3, ...), and the size of what was subtracted."""
        if self.sign < 0:
            a, b = -b, -a
        start, end = np.clip(a, self.low, self.high), np.clip(b, self.low, self.high)
        values, sizes = [], []
        for k in range(3):
            from_above = self._at(self.above[k], start, k, self.low), self._at(self.above[k], end, k, self.low)
            from_below = self._at(self.below[k], end, k, self.high), self._at(self.below[k], start, k, self.high)
            size = [np.abs(one) + np.abs(two) for one, two in (from_above, from_below)]
            smaller = size[0] <= size[1]
            value = np.where(smaller, from_above[0] - from_above[1], from_below[0] - from_below[1])
            values.append(self.sign**k * value)
            sizes.append(np.minimum(*size))
        return np.array(values), np.array(sizes)

    def _at(self, function: Callable[[Array], Array], t: Array, k: int, full_at: float) -> Array:
        """The function inside the piece; at its ends, where it may be undefined, all of the moment or nothing."""
        inside = (t > self.low) & (t < self.high)
        with np.errstate(all="ignore"):
            value = function(np.where(inside, t, min(self.low + 1.0, 0.5 * (self.low + self.high))))
        return np.where(inside, value, np.where(t == full_at, self.whole[k], 0.0))


class FromExpression(FromPdf):
    """A density given by a SymPy expression; see `density`.

    Attributes
    ----------
    expression : Expr
        The pdf.
    route : str
        "closed form" or "quadrature", and why.
    """

    expression: Expr
    route: str = "quadrature"
    _pieces: tuple[Piece, ...] = ()

    @property
    def name(self) -> str:
        """The expression; a label only."""
        return f"pdf:{self.expression}"

    def cell_moments(self, edges: Array, about: Array, origin: ArrayLike = 0.0, last: Array | None = None) -> Array:
        """Moments of cells: closed forms where their difference keeps its digits, quadrature in narrow cells."""
        out = super().cell_moments(edges, about, origin, last)
        if not self._pieces:
            return out
        shift = np.asarray(origin, np.float64)[..., None]
        ends, centre = edges + shift, about + shift
        found = [piece.raw_moments(ends[..., :-1], ends[..., 1:]) for piece in self._pieces]
        raw, size = (np.sum([part[i] for part in found], axis=0) for i in (0, 1))
        c = np.abs(centre)
        closed = np.stack([raw[0], raw[1] - centre * raw[0], raw[2] - centre * (2 * raw[1] - centre * raw[0])])
        sizes = np.stack([size[0], size[1] + c * size[0], size[2] + c * (2 * size[1] + c * size[0])])
        return np.where(np.abs(closed) > _KEPT * sizes, closed, out)

    def cdf(self, x: ArrayLike) -> Array:
        """P(X <= x)."""
        return unwrap(self.moments(-np.inf, x, 0.0)[0]) if self._pieces else super().cdf(x)

    def sf(self, x: ArrayLike) -> Array:
        """P(X > x)."""
        return unwrap(self.moments(x, np.inf, 0.0)[0]) if self._pieces else super().sf(x)


def density(
    pdf: Expr, x: Expr, support: tuple[Expr, Expr] = (-sp.oo, sp.oo), *, time_limit: float = 4.0
) -> FromExpression:
    """A numeric density from a pdf in SymPy.

    Its moments are integrated by SymPy, compiled, and compared with quadrature; quadrature serves where SymPy finds
    none in time, and in cells so narrow that closed forms would cancel.

    Parameters
    ----------
    pdf : Expr
        In x alone, >= 0 and integrating to 1 over the support; `Abs` and `Piecewise` are cut at their edges.
    x : Symbol
    support : tuple of (lower, upper)
        May be infinite.
    time_limit : float
        Seconds for SymPy, in a process of its own; 0 for quadrature at once.

    Returns
    -------
    Density
        `.route` says whether its moments are closed forms.

    Raises
    ------
    ValueError
        If other symbols are left, or the pdf is negative, not finite, has point masses or does not integrate to 1.

    Examples
    --------
    >>> import qerror as qe
    >>> x = sp.Symbol("x", real=True)
    >>> triangle = density(1 - sp.Abs(x), x, (-1, 1))
    >>> triangle.route
    'closed form'
    >>> round(float(qe.optimal_scale(triangle, "ternary").scale), 6)
    0.5
    """
    if isinstance(time_limit, bool) or not isinstance(time_limit, int | float) or np.isnan(time_limit):
        raise ValueError(f"time_limit must be a number of seconds, got {shown(time_limit)}")
    expression, x = _real_function(pdf, x)
    low, high = _ends(support)
    cuts = [cut for cut in _cuts(expression, x) if low < cut < high]
    compiled = to_numpy(expression, [x])
    base = from_pdf(lambda at: np.broadcast_to(compiled(at), np.shape(at)), _floats((low, high)), kinks=_floats(cuts))
    found = object.__new__(FromExpression)
    found.__dict__.update(base.__dict__)
    found.expression = expression
    pieces, found.route = _closed_pieces(_half_line_parts(expression, x, [low, *cuts, high]), time_limit)
    if pieces:
        _adopt(found, pieces)
    return found


def _real_function(pdf: Expr, x: Expr) -> tuple[Expr, Expr]:
    """The pdf and its variable, which SymPy then knows to be real."""
    as_symbol("x must be the Symbol that pdf is a function of", x, "sympy.Symbol('x', real=True)")
    real = sp.Symbol(x.name, real=True)
    expression = as_expression("pdf", pdf).subs(x, real)
    others = sorted(str(symbol) for symbol in expression.free_symbols - {real})
    if x.name in others:
        raise ValueError(f"pdf has another symbol named {x}, with other assumptions; make it from the x that is given")
    if others:
        raise ValueError(f"pdf must contain no symbol but {x}, got {', '.join(others)}; substitute numbers for them")
    if expression.has(sp.DiracDelta):
        remedy = "qerror.Mixture([qerror.Empirical(points), density], weights) has them"
        raise ValueError(f"pdf must be a function without point masses, got {expression}; {remedy}")
    if expression.is_extended_real is False:
        raise ValueError(f"pdf must be real, got {expression}")
    return expression, real


def _ends(support: Any) -> tuple[Expr, Expr]:
    if not isinstance(support, tuple | list) or len(support) != 2:
        raise ValueError(f"support must be a pair (lower, upper), got {shown(support)}")
    low, high = (as_expression("support", end) for end in support)
    if not (low.is_extended_real and high.is_extended_real):
        raise ValueError(f"support must be a pair of real numbers, oo among them, got {shown(support)}")
    return low, high


def _floats(values: Sequence[Expr]) -> Any:
    return tuple(float(value) for value in values)


def _cuts(expression: Expr, x: Expr) -> list[Expr]:
    """Real points where an Abs, a Piecewise, Min, Max or sign of the expression changes its branch."""
    zeros: set[Expr] = set()
    conditions = [relation.lhs - relation.rhs for relation in expression.atoms(sp.core.relational.Relational)]
    arguments = [f.args[0] for f in expression.atoms(sp.Abs, sp.sign, sp.Heaviside)]
    arguments += [f.args[0] - other for f in expression.atoms(sp.Min, sp.Max) for other in f.args[1:]]
    for edge in [*conditions, *arguments]:
        zeros |= {root for root in sp.solve(edge, x) if root.is_real}
    return sorted(zeros, key=float)


def _half_line_parts(expression: Expr, x: Expr, edges: list[Expr]) -> list[Part]:
    """Smooth parts as functions of X > 0, the part below 0 mirrored."""
    if edges[0] < 0 < edges[-1] and 0 not in edges:
        edges = sorted([*edges, sp.S.Zero])
    parts: list[Part] = []
    for low, high in itertools.pairwise(edges):
        sign, near, far = (1, low, high) if low >= 0 else (-1, -high, -low)
        inner = near + 1 if far is sp.oo else (near + far) / 2
        parts.append((sign, near, far, _branch_at(expression, x, sign * inner).subs(x, sign * X)))
    return parts


def _branch_at(expression: Expr, x: Expr, at: Expr) -> Expr:
    """The smooth expression that holds around x = at."""

    def ordered(extremum: Expr) -> Expr:
        return sorted(extremum.args, key=lambda arg: float(arg.subs(x, at)))[0 if extremum.func is sp.Min else -1]

    def branch(*pairs: Any) -> Expr:
        return next((value for value, condition in pairs if condition.subs(x, at) == sp.true), sp.S.Zero)

    found = expression.replace(sp.Piecewise, branch)
    found = found.replace(lambda e: isinstance(e, sp.Min | sp.Max), ordered)
    found = found.replace(sp.Abs, lambda e: e if e.subs(x, at) >= 0 else -e)
    return found.replace(lambda e: isinstance(e, sp.sign | sp.Heaviside), lambda e: e.subs(x, at))


def _closed_pieces(parts: list[Part], time_limit: float) -> tuple[tuple[Piece, ...], str]:
    """Closed forms of the forms that are known here, else SymPy's; without them nothing, and the reason."""
    found = [_known(part) for part in parts]
    try:
        missing = [part for part, known in zip(parts, found, strict=True) if known is None]
        derived = iter(_by_sympy(missing, time_limit)) if missing else iter(())
        forms = [next(derived) if known is None else known for known in found]
        return tuple(_piece(part, form) for part, form in zip(parts, forms, strict=True)), "closed form"
    except (ValueError, TypeError, OverflowError) as error:
        return (), f"quadrature: {error}"


def _known(part: Part) -> list[Expr] | None:
    _, low, high, f = part
    tails = [antiderivative(X**k * f, X) for k in range(3)]
    if None in tails:
        return None
    ends = ((T, high), (low, T), (low, high))
    return [release(tail(a) - tail(b)).replace(sp.betainc, complete) for tail in tails if tail for a, b in ends]


def _by_sympy(parts: list[Part], time_limit: float) -> list[list[Expr]]:
    if time_limit <= 0:
        raise ValueError("SymPy was not asked")
    text = sp.srepr(sp.Tuple(X, T, sp.Tuple(*(sp.Tuple(f, low, high) for _, low, high, f in parts))))
    command = [sys.executable, "-c", _INTEGRATE]
    try:
        done = subprocess.run(command, input=text, capture_output=True, text=True, timeout=time_limit)
    except subprocess.TimeoutExpired:
        raise ValueError(f"SymPy found no closed form within {time_limit:g} s") from None
    found = [sp.sympify(line) for line in done.stdout.splitlines()]
    if done.returncode or len(found) != 9 * len(parts) or any(e.has(sp.Integral, sp.nan, sp.zoo) for e in found):
        raise ValueError("SymPy found no closed form")
    return [found[i : i + 9] for i in range(0, len(found), 9)]


def _piece(part: Part, forms: list[Expr]) -> Piece:
    above, below = (tuple(to_numpy(e, [T]) for e in forms[i::3]) for i in (0, 1))
    return Piece(part[0], float(part[1]), float(part[2]), above, below, _floats(forms[2::3]))


def _adopt(found: FromExpression, pieces: tuple[Piece, ...]) -> None:
    """Use the closed forms if they agree with quadrature."""
    at = found.quantile(np.linspace(0.05, 0.95, 7))
    quadrature = found.moments(-np.inf, at, 0.0)
    raw = np.sum([piece.raw_moments(np.full(7, -np.inf), at)[0] for piece in pieces], axis=0)
    unit = np.array([1.0, found.std + abs(found.mean), found.std**2 + found.mean**2])[:, None]
    if not (np.abs(raw - quadrature) <= _AGREEMENT * unit).all():
        found.route = "quadrature: SymPy's closed form disagrees with it"
        return
    found._pieces = pieces
    whole = np.sum([[piece.sign**k * piece.whole[k] for k in range(3)] for piece in pieces], axis=0)
    found._mean = float(whole[1])
    found._std = float(np.sqrt(whole[2] - whole[1] ** 2)) if abs(whole[1]) < found.std else found._std
