"""`certify`: search for a covering and the roots, state what they prove."""

from __future__ import annotations

import math
from decimal import Decimal
from fractions import Fraction
from typing import Any

from flint import arb

from .._check import as_int, check_choice, check_shift
from ..densities.base import Density
from ..densities.named import density as as_density
from ..grids.formats import grid as as_grid
from ..grids.grid import Grid
from .certificate import FORMAT, SCHEMA, Certificate, OpenError
from .checker import WITHIN, Problem, about, arithmetic, at_root, ball, excluded
from .pieces import Piece, covered, decimal_text
from .samples import certify_sample, is_sample
from .statement import density_data, short_numbers

# Taylor polynomials of this order need the least time; balls of so many bits leave the 1e-12 of `limit` far behind.
_ORDER, _BITS = 12, 80
# Digits of a root beyond those that are stated.
_SPARE = 6
_NEWTON_STEPS, _HALVINGS = 400, 60


def certify(
    density: Density | str,
    grid: Grid | str,
    *,
    shift: float = 0.0,
    rounding: str = "nearest",
    digits: int = 30,
) -> Certificate:
    """Prove which scale is the globally optimal one, and its error.

    min over s > 0 of MSE(s) = E[(x - Q(x))^2], representable values shift + s * levels: all scales are covered with
    pieces where the MSE is above the least, has a slope that is not 0, or is convex about an enclosed root of it. Ball
    arithmetic (Arb) encloses every rounding; the lemmas stand in `qerror.certify.checker`.

    Parameters
    ----------
    density : Density or str
        Of shape (): Gaussian, Laplace, Logistic, Uniform, StudentT, GeneralizedGaussian, Mixture, Rectified, Histogram;
        Empirical (to nearest), whose scale and MSE are fractions, and whose proof grows with its size.
    grid : Grid or str
        To 8 bits a proof takes 0.01 to 2 s (E8M0: half a minute; histograms on floating grids of 8 bits: 20 s and
        more), int10 2 s, int12 4 to 15 s. Of 16 bits a piece takes 1 to 3 s: int16 three minutes; fp16 and bf16 were
        not run to their end and may be given up; what was reached then stands in the error.
    shift : float
        Units of x.
    rounding : {"nearest", "stochastic"}
    digits : int
        Correct digits of scale and MSE, 6 to 1000.

    Raises
    ------
    ValueError
        For other densities.
    OpenError
        If the proof could not be completed, with what was left open: where the error falls on and on; with stochastic
        rounding, where a point mass beside the shift puts a kink into the minimum; after 20 million terms of pieces.

    Examples
    --------
    >>> import qerror as qe
    >>> from qerror.certify import certify
    >>> proven = certify("gaussian", "int4")
    >>> proven.scale, proven.unique
    ('[0.338607935715185372044019938670 +/- 5.1e-31]', True)
    """
    check_choice("rounding", rounding, ("nearest", "stochastic"))
    digits = as_int("digits", digits, 6, 1000)
    member = as_density(density)
    if member.shape == () and is_sample(member):
        if rounding != "nearest":
            raise ValueError("rounding must be 'nearest' for a sample: no lemma covers the kinks of 'stochastic'")
        return certify_sample(member, as_grid(grid), float(check_shift(shift)))
    about_what = {
        "density": short_numbers(density_data(member)),
        "levels": short_numbers(as_grid(grid).levels.tolist()),
        "shift": short_numbers(float(check_shift(shift))),
        "rounding": rounding,
    }
    with arithmetic(_BITS):
        covering = covered(Problem(**about_what), _ORDER)
        near = {one: _approximate_root(one) for one in covering.done if _has_root(one)}
    with arithmetic(4 * digits + 80):
        exact = Problem(**about_what)
        found = {one: _enclosed(exact, one, root, digits) for one, root in near.items()}
        limit = min(value.upper() for _, value in found.values()) * (1 + ball(WITHIN))
    with arithmetic(_BITS):
        beaten = {one for one in found if excluded(one.model, limit)}
    with arithmetic(4 * digits + 80):
        kept = {one: said for one, said in found.items() if one not in beaten}
        claims, unique = _claims(kept, digits)
    cuts = [covering.done[0].low, *(one.high for one in covering.done)]
    middle = "".join("x" if one in beaten else one.kind for one in covering.done)
    content = {
        "format": FORMAT,
        "schema": SCHEMA,
        **about_what,
        "scale": claims[0][0],
        "mse": claims[0][1],
        "unique": unique,
        "minima": claims[1:],
        "digits": digits,
        "bits": _BITS,
        "order": _ORDER,
        "cuts": " ".join(map(decimal_text, cuts)),
        "kinds": f"s{middle}{covering.last}",
        "roots": [root for root, _ in kept.values()],
    }
    return Certificate(content)


def _has_root(one: Piece) -> bool:
    """Whether the slope turns inside a piece that is convex."""
    slope = one.model.derivative()
    return one.kind == "v" and bool(slope(arb(-1)) < 0) and bool(slope(arb(1)) > 0)


def _approximate_root(one: Piece) -> Fraction:
    """Where the slope turns, by halving on the polynomial of the piece."""
    slope = [float(coefficient.mid()) for coefficient in one.model.derivative().coeffs()]
    low, high = -1.0, 1.0
    for _ in range(_HALVINGS):
        x = 0.5 * (low + high)
        low, high = (x, high) if math.fsum(a * x**i for i, a in enumerate(slope)) < 0 else (low, x)
    return one.low + (one.high - one.low) * (Fraction(low) + 1) / 2


def _enclosed(problem: Problem, one: Piece, start: Fraction, digits: int) -> tuple[str, arb]:
    """A root as decimals, by Newton's method inside its piece, and the least MSE about it."""
    low, high, s = ball(one.low).mid(), ball(one.high).mid(), ball(start).mid()
    small = ball(Fraction(1, 10 ** (digits + _SPARE)))
    for _ in range(_NEWTON_STEPS):
        radius = s * small
        _, slope, curvature = problem.model(s, radius, 4)[0].coeffs()[:3]
        low, high = (s, high) if slope < 0 else (low, s)
        step = (slope / (2 * curvature)).mid()
        new = (s - radius * step).mid()
        # A flat minimum may throw Newton's step out of the piece.
        s = new if low < new < high or abs(step) < 0.01 else ((low + high) / 2).mid()
        if abs(step) < 0.01:
            break
    found = exact_value(s)
    power = math.floor(math.log10(found)) - digits - _SPARE + 1
    text = f"{round(found / Fraction(10) ** power)}e{power}"
    low, _, high = about(text)
    return text, at_root(problem, low, high)


def _claims(found: dict[Any, tuple[str, arb]], digits: int) -> tuple[list[list[str]], bool]:
    """Scale and MSE of the least minimum and of those within 1e-12 of it, best first; whether it is the only best."""
    ordered = sorted(found.values(), key=lambda said: said[1].mid())
    least = ordered[0][1]
    near = [said for said in ordered if not said[1] > least * (1 + ball(WITHIN))]
    claims = [[_claim(*about(root)[::2], digits), claim(mse, digits)] for root, mse in near]
    return claims, all(bool(mse > least) for _, mse in ordered[1:])


def claim(number: arb, digits: int) -> str:
    """The statement of a ball that has the digits."""
    return _claim(exact_value(number.lower()), exact_value(number.upper()), digits)


def _claim(low: Fraction, high: Fraction, digits: int) -> str:
    """The ball of a number between two others, correctly rounded: its radius is half a unit of the last digit."""
    if low == high == 0:
        return "0"
    if high < 0:
        return f"[-{_claim(-high, -low, digits)[1:]}"
    if low <= 0:
        raise OpenError(f"the enclosure from {float(low)!r} to {float(high)!r} has no digits")
    power = math.floor(math.log10(low)) - digits + 1
    unit = Fraction(10) ** power
    nearest = round((low + high) / 2 / unit)
    if max(abs(low - nearest * unit), abs(high - nearest * unit)) > Fraction(51, 100) * unit:
        raise OpenError(f"the enclosure from {float(low)!r} to {float(high)!r} has less than {digits} digits")
    number = Decimal((0, tuple(map(int, str(nearest))), power))
    return f"[{str(number).lower()} +/- 5.1e{power - 1}]"


def exact_value(number: arb) -> Fraction:
    """The exact value of a ball without radius."""
    exact = number.fmpq()
    return Fraction(int(exact.p), int(exact.q))
