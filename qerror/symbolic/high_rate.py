"""High-rate limits: Panter-Dite, entropy-coded uniform quantization, the growth of the optimal Gaussian clip."""

from __future__ import annotations

from functools import lru_cache

import sympy as sp

from .._check import as_int
from .._types import Expr
from .densities import SymbolicDensity
from .errors import clipping_error
from .families import gaussian, named
from .integrals import HalfLineIntegral
from .steps import Derivation, Step
from .tails import X

N = sp.Symbol("N", positive=True)
ERROR = sp.Symbol("D", positive=True)
RATE = sp.Symbol("R", positive=True)
ALPHA = sp.Symbol("alpha", positive=True)
# Their clip is below 40, where roots are looked for.
_MOST_LEVELS = 2**512


@lru_cache(maxsize=32)
def panter_dite(density: SymbolicDensity | str) -> Derivation:
    """The least N^2 MSE of N levels with the best density of points, for large N: (int f^(1/3))^3 / 12.

    Returns
    -------
    Derivation
        The result is the limit of N^2 MSE.

    Raises
    ------
    ValueError
        Where the integral of f^(1/3) has no closed form.

    References
    ----------
    Panter and Dite, "Quantization distortion in pulse-count modulation with nonuniform spacing of levels", 1951.

    Examples
    --------
    >>> panter_dite("gaussian:std=1").result
    sqrt(3)*pi/2
    """
    found = named(density)
    f, points, multiplier, total = sp.symbols("f lambda mu I", positive=True)
    integrand = f / (12 * points**2)
    pointwise = sp.diff(integrand + multiplier * points, points)
    best = sp.solve(pointwise, points)[0]
    # int lambda = 1 makes lambda = f^(1/3) / I, whatever the multiplier.
    shape = sp.simplify(best / best.subs(f, 1))
    per_value = sp.simplify(integrand.subs(points, shape / total))
    # per_value is f^(1/3) I^2 / 12 and integrates to I^3 / 12.
    limit = sp.simplify(per_value / shape) * total
    root = sp.powdenest(sp.expand_power_base(shape.subs(f, found.half_pdf), force=True), force=True)
    folded: Expr = 2 * HalfLineIntegral(root, (X, 0, found.end))
    closed = folded.doit()
    if closed.has(sp.Integral):
        raise ValueError(f"int f^(1/3) of {found.name} has no closed form here; evaluate {folded} with evalf")
    steps = (
        Step("distortion", ERROR * N**2, sp.Integral(integrand, X), "a fraction lambda dx of the N levels in each dx"),
        Step("optimality condition", pointwise, sp.S.Zero, "at each x, with the multiplier mu of int lambda = 1"),
        Step("point density", points, shape / total),
        Step("normalization", total, folded),
        Step("limit", ERROR * N**2, sp.simplify(sp.gammasimp(limit.subs(total, closed)))),
    )
    return Derivation(f"Panter-Dite limit: {found.name}", steps)


@lru_cache(maxsize=32)
def entropy_coded(density: SymbolicDensity | str) -> Derivation:
    """Entropy-coded uniform quantization at high rate against Shannon's lower bound: their ratio is pi e / 6.

    Parameters
    ----------
    density : SymbolicDensity or str
        One whose log pdf is a polynomial on the half-line: gaussian, laplace, uniform.

    Returns
    -------
    Derivation
        The result is the ratio (1.53 dB).

    Raises
    ------
    ValueError
        For other densities.

    References
    ----------
    Gish and Pierce, "Asymptotically efficient quantizing", 1968.

    Examples
    --------
    >>> entropy_coded("laplace").result
    E*pi/6
    """
    found = named(density)
    h, step = sp.Symbol("h", real=True), sp.Symbol("Delta", positive=True)
    entropy = _differential_entropy(found)
    step_at_rate = sp.solve(h - sp.log(step, 2) - RATE, step)[0]
    coded = step_at_rate**2 / 12
    # Of all errors of power D the Gaussian one has the largest entropy: R >= h - h(Gaussian of variance D).
    bound = sp.solve(h - _differential_entropy(gaussian(sp.sqrt(ERROR))) - RATE, ERROR)[0]
    steps = (
        Step("differential entropy", h, entropy, "in bits"),
        Step("step", step, step_at_rate, "the codes have the entropy R = h - log2 Delta"),
        Step("entropy-coded error", ERROR, coded.subs(h, entropy)),
        Step("Shannon's lower bound", ERROR, bound.subs(h, entropy)),
        Step("ratio", sp.Symbol("rho"), sp.simplify(coded / bound)),
    )
    return Derivation(f"Entropy-coded uniform quantization: {found.name}", steps)


def _differential_entropy(found: SymbolicDensity) -> Expr:
    log_pdf = sp.expand(sp.expand_log(sp.log(found.half_pdf), force=True))
    if not log_pdf.is_polynomial(X):
        raise ValueError(f"the entropy of {found.name} has no closed form here; use gaussian, laplace or uniform")
    entropy = -found.integral(log_pdf, -sp.oo, sp.oo).doit() / sp.log(2)
    return sp.expand_log(sp.simplify(entropy), force=True)


@lru_cache(maxsize=1)
def clip_growth() -> Derivation:
    """How the optimal clip of N uniform levels grows on a unit Gaussian: leading terms for large N.

    The condition of ACIQ with 2^M = N; the tail by its asymptotic series, the logarithm of which is iterated once.

    Returns
    -------
    Derivation
        The result is alpha^2; what each step drops is measured by `clip_growth_error`.

    References
    ----------
    Hui and Neuhoff, "Asymptotic analysis of optimal fixed-rate uniform scalar quantization", 2001.

    Examples
    --------
    >>> sp.simplify(clip_growth().result - (4 * sp.log(N) - 3 * sp.log(sp.log(N)) - sp.log(32 * sp.pi / 9)))
    0
    """
    error = clipping_error(gaussian(1), ALPHA).doit() + (2 * ALPHA / N) ** 2 / 12
    slope = sp.expand(sp.diff(error, ALPHA) / 4)
    step = sp.expand(sp.diff((2 * ALPHA / N) ** 2 / 12, ALPHA) / 4)
    tail = sp.expand(step - slope)
    phi = sp.exp(-(ALPHA**2) / 2) / sp.sqrt(2 * sp.pi)
    series = _tail_series(tail, phi)
    leading = max(sp.Add.make_args(series), key=lambda term: sp.degree(term * ALPHA**12, ALPHA))
    logs = sp.expand_log(sp.log(step) - sp.log(leading * phi * sp.exp(ALPHA**2 / 2)), force=True)
    # exp(-alpha^2 / 2) = exp(logs): alpha^2 = -2 logs, in which ln alpha is taken from alpha^2 = 4 ln N.
    square = sp.expand(-2 * logs)
    first = sp.Add(*(term for term in square.args if term.has(sp.log(N))))
    expanded = sp.expand(sp.expand_log(square.subs(ALPHA, sp.sqrt(first)), force=True))
    constant, growing = expanded.as_independent(N, as_Add=True)
    second = growing + sp.logcombine(constant, force=True)
    steps = (
        Step("condition", tail, step, "excess of the tail over the clip against the growth of the step"),
        Step("asymptotic series", tail / phi, series, "leading terms for large alpha"),
        Step("logarithm", ALPHA**2, square, "dropped: all terms of the series but the first"),
        Step("first order", ALPHA**2, first, "dropped: ln alpha and the constants"),
        Step("second order", ALPHA**2, second, "ln alpha from the first order"),
    )
    return Derivation("Growth of the optimal clip: gaussian", steps)


def _tail_series(tail: Expr, phi: Expr) -> Expr:
    """First terms of tail / phi in powers of 1 / alpha, by SymPy's expansion of erfc."""
    u = sp.Symbol("u", positive=True)
    mills = sp.series(sp.erfc(u) * sp.exp(u**2), u, sp.oo, 8).removeO()
    scaled = sp.expand(mills.subs(u, ALPHA / sp.sqrt(2)))
    complement = sp.erfc(sp.sqrt(2) * ALPHA / 2)
    weight = sp.sqrt(2 * sp.pi) * tail.coeff(complement)
    rest = sp.simplify(tail.subs(complement, 0) / phi)
    return sp.expand(rest + weight * scaled)


def clip_growth_error(levels: int) -> tuple[float, float, float]:
    """Root of the condition of `clip_growth` and its two approximations, for one N.

    Parameters
    ----------
    levels : int
        N.

    Returns
    -------
    tuple of float
        The clip, first order, second order; in standard deviations.

    Examples
    --------
    >>> exact, first, second = clip_growth_error(65536)
    >>> abs(second - exact) < abs(first - exact)
    True
    """
    levels = as_int("levels", levels, 2, _MOST_LEVELS)
    found = clip_growth()
    condition = (found["condition"].left - found["condition"].right).subs(N, levels)
    orders = [float(sp.sqrt(found[name].right.subs(N, levels))) for name in ("first order", "second order")]
    root = sp.nsolve(condition, ALPHA, (0.1, 40.0), solver="bisect", verify=False, prec=30)
    return float(root), orders[0], orders[1]
