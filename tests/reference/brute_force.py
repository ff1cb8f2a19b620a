"""The best scale of a sample by enumeration of every piece of its error, in exact arithmetic, without the package.

At a fixed shift z the assignment of the sample to levels changes only where some (x_i - z) / s crosses a threshold t_k,
at s = (x_i - z) / t_k. Between two such scales the error is the parabola A - 2 B s + C s^2 with A = sum w (x - z)^2,
B = sum w (x - z) l, C = sum w l^2. At a crossing two parabolas meet in a concave kink: every local minimum is at B / C
inside its own piece. All float64 are integers times a power of two, so A, B and C are exact.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction


@dataclass(frozen=True)
class Best:
    """The optimum of a sample; an MSE is per unit of weight.

    Attributes
    ----------
    scale : float
    mse : float
        By fsum over the sample, each value sent to the nearest at this float64 scale.
    minima : tuple of (scale, mse)
        All local minima, best first; the exact values, rounded.
    pieces : int
        How many pieces were enumerated.
    """

    scale: float
    mse: float
    minima: tuple[tuple[float, float], ...]
    pieces: int


def integers(values: Sequence[Fraction]) -> tuple[list[int], Fraction]:
    """The values as integers times one unit."""
    denominator = math.lcm(*(v.denominator for v in values))
    return [int(v * denominator) for v in values], Fraction(1, denominator)


def exact(values: Sequence[float]) -> list[Fraction]:
    return [Fraction(float(v)) for v in values]


def direct_mse(
    x: Sequence[float],
    levels: Sequence[float],
    scale: float,
    shift: float = 0.0,
    weights: Sequence[float] | None = None,
) -> float:
    """The MSE of the sample at one scale, the nearest value searched among all, by fsum."""
    weights = [1.0] * len(x) if weights is None else weights
    values = [Fraction(float(shift)) + Fraction(float(scale)) * level for level in exact(levels)]
    loss = [w * min((v - q) ** 2 for q in values) for w, v in zip(exact(weights), exact(x), strict=True)]
    # In units of the largest loss: fsum neither overflows nor loses what float64 cannot hold.
    largest = max(loss)
    return float(largest * Fraction(math.fsum(v / largest for v in loss)) / sum(exact(weights))) if largest else 0.0


Event = tuple[Fraction, int, int]


def pieces(y: list[int], levels: list[int], weights: list[int]) -> Iterator[tuple[Fraction, Fraction | None, int, int]]:
    """(lower, upper, B, C) of each piece, from infinite scales (upper is None) down to 0."""
    sums = [a + b for a, b in itertools.pairwise(levels)]  # twice the thresholds
    events: list[Event] = []
    b = c = 0
    for v, w in zip(y, weights, strict=True):
        # Where s is infinite, v / s is 0 from v's side; it walks outwards as s falls. Zero itself never moves.
        at = sum(t <= 0 for t in sums) if v >= 0 else sum(t < 0 for t in sums)
        b += w * v * levels[at]
        c += w * levels[at] ** 2
        walk = range(at, len(sums)) if v > 0 else range(at - 1, -1, -1) if v < 0 else ()
        for k in walk:
            old, new = (levels[k], levels[k + 1]) if v > 0 else (levels[k + 1], levels[k])
            events.append((Fraction(2 * v, sums[k]), w * v * (new - old), w * (new**2 - old**2)))
    events.sort(key=lambda event: event[0], reverse=True)
    upper = None
    for lower, group in itertools.groupby(events, key=lambda event: event[0]):
        yield lower, upper, b, c
        for _, more_b, more_c in group:
            b += more_b
            c += more_c
        upper = lower
    yield Fraction(0), upper, b, c


def best_scale(
    x: Sequence[float], levels: Sequence[float], shift: float = 0.0, weights: Sequence[float] | None = None
) -> Best:
    """Enumerate all pieces. ValueError if the error has no minimum over the scale."""
    weights = [1.0] * len(x) if weights is None else weights
    kept = [(v, w) for v, w in zip(exact(x), exact(weights), strict=True) if w > 0]
    y, unit_y = integers([v - Fraction(float(shift)) for v, _ in kept])
    w, _ = integers([w for _, w in kept])
    grid, unit_l = integers(sorted(exact(levels)))
    square = sum(weight * v * v for weight, v in zip(w, y, strict=True))
    minima: list[tuple[Fraction, Fraction]] = []
    bound, count = Fraction(square), 0
    for lower, upper, b, c in pieces(y, grid, w):
        count += 1
        if b <= 0 or c == 0:
            continue
        value = square - Fraction(b * b, c)
        # No assignment is better than the nearest one: the vertex of any piece bounds the minimum from above.
        bound = min(bound, value)
        if lower < Fraction(b, c) and (upper is None or Fraction(b, c) < upper):
            minima.append((value, Fraction(b, c)))
    if not minima:
        raise ValueError("the error of this sample has no minimum over the scale")
    minima.sort()
    if minima[0][0] != bound:
        raise ArithmeticError("the best piece does not hold its own vertex: the enumeration is wrong")
    found = tuple((float(at * unit_y / unit_l), float(value * unit_y**2 / sum(w))) for value, at in minima)
    scale = found[0][0]
    return Best(scale, direct_mse(x, levels, scale, shift, weights), found, count)
