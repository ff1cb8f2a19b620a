"""`certify`: search for a covering and the roots, state what they prove."""

from __future__ import annotations

import math
from decimal import Decimal
from fractions import Fraction
from typing import Any

from flint import arb, fmpq

from .._check import as_int, check_choice, check_shift
from ..densities.base import Density
from ..densities.named import density as as_density
from ..errors.exact import Rounding
from ..grids.formats import grid as as_grid
from ..grids.grid import Grid
from .certificate import FORMAT, SCHEMA, Certificate, OpenError
from .checker import WITHIN, Problem, arithmetic, at_root, beside, exact, excluded, turns
from .pieces import Piece, covered, cut_text, fraction
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
    rounding: Rounding = "nearest",
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
        Empirical, whose scale and MSE are fractions, and whose proof grows with its size.
    grid : Grid or str
        To 8 bits a proof takes 0.01 to 2 s (E8M0: half a minute; histograms on floating grids of 8 bits: 4 to 8 s),
        int10 2 s, int12 4 to 15 s. Of 16 bits a piece takes 2 to 4 s: int16 three to four minutes; fp16 and
        bf16 were not run to their end. What was reached before a proof is given up stands in the error.
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
        If the proof could not be completed, with what was left open: where the error falls on and on; after 20 million
        terms of pieces; of samples, after 20 000 pieces.

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
        return certify_sample(member, as_grid(grid), float(check_shift(shift)), rounding)
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
        problem = Problem(**about_what)
        found = {one: _enclosed(problem, one, root, digits) for one, root in near.items()}
        turning = [(cut, cut, problem.at(cut)) for cut in covering.turning()]
        known = [(*beside(root), value) for root, value in found.values()] + turning
        limit = min(value.upper() for *_, value in known) * (1 + WITHIN)
    with arithmetic(_BITS):
        beaten = {one for one in found if excluded(one.model, limit)}
    with arithmetic(4 * digits + 80):
        kept = {one: said for one, said in found.items() if one not in beaten}
        claims, unique = _claims([(*beside(root), value) for root, value in kept.values()] + turning, digits)
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
        "cuts": " ".join(map(cut_text, cuts)),
        "kinds": f"s{middle}{covering.last}",
        "roots": [root for root, _ in kept.values()],
    }
    return Certificate(content)


def _has_root(one: Piece) -> bool:
    """Whether the slope turns inside a piece that is convex."""
    return one.kind == "v" and turns(one.model) == [-1, 1]


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
    low, high, s = exact(one.low), exact(one.high), arb(exact(start)).mid().fmpq()
    small = fmpq(1, 10 ** (digits + _SPARE))
    for _ in range(_NEWTON_STEPS):
        radius = s * small
        _, slope, curvature = problem.model(s - radius, s + radius, 4)[0].coeffs()[:3]
        low, high = (s, high) if slope < 0 else (low, s)
        step = (slope / (2 * curvature)).mid()
        new = (s - radius * step).mid().fmpq()
        # A flat minimum may throw Newton's step out of the piece.
        s = new if low < new < high or abs(step) < 0.01 else arb((low + high) / 2).mid().fmpq()
        if abs(step) < 0.01:
            break
    found = fraction(s)
    power = math.floor(math.log10(found)) - digits - _SPARE + 1
    text = f"{round(found / Fraction(10) ** power)}e{power}"
    return text, at_root(problem, *beside(text))


def _claims(found: list[tuple[Any, Any, arb]], digits: int) -> tuple[list[list[str]], bool]:
    """Scale and MSE of the least minimum and of those within 1e-12 of it, best first; whether it is the only best."""
    ordered = sorted(found, key=lambda said: said[2].mid())
    least = ordered[0][2]
    near = [said for said in ordered if not said[2] > least * (1 + WITHIN)]
    claims = [[_claim(fraction(exact(a)), fraction(exact(b)), digits), claim(mse, digits)] for a, b, mse in near]
    return claims, all(bool(mse > least) for *_, mse in ordered[1:])


def claim(number: arb, digits: int) -> str:
    """The statement of a ball that has the digits."""
    return _claim(fraction(number.lower().fmpq()), fraction(number.upper().fmpq()), digits)


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
