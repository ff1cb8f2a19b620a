"""Shannon's rate-distortion function: the least mean squared error of any code at a rate, between proven bounds."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import ArrayLike

from .._check import check_positive, shown
from ..densities.base import Density, check_density
from ..densities.parametric import Gaussian
from ..results import RateDistortion, Status
from .channels import Point, channel, solve
from .smooth import SmoothChannels
from .source import ENTROPY, WIDE, distinct

# Bracket aimed at, in dB of the distortion, while the slope is sought and in the end.
_ROUGH, _FINE = 3e-2, 3e-5
# The same of samples, which have a sampling error beside which this is nothing.
_OF_SAMPLES = 5e-4
# Nats by which the slope may miss what is asked for (the tangent there is off by the square of it), in the end and
# while it is sought.
_NEAR, _CLOSE = 3e-4, 2e-2
# How near, in nats, a channel is brought to what is asked for.
_MET = 2e-9
_MOST_STEPS, _SECANTS = 44, 12
# A new slope is started anew where its kernel's width changes by more than this factor.
_SIMILAR = 1.2
# Rates that are computed, bits a value.
LEAST_BITS, MOST_BITS = 0.01, 12.0


def rate_distortion(density: Density, *, bits: ArrayLike | None = None, mse: ArrayLike | None = None) -> RateDistortion:
    """The least mean squared error at a rate, or the least rate at an error, of all codes of any length.

    R(D) = min I(X; Y) over all Y with E[(X - Y)^2] <= D, for independent values. Of a Gaussian it is
    log2(std / sqrt(D)). Of others it lies between two values that both hold: an upper one, which a channel with
    finitely many reproduction values has, and a lower one, Shannon's bound or Csiszar's dual bound. They are less than
    1e-4 dB apart (1e-3 of samples) but where memory makes heavy tails be cut, and where parts that lie far from each
    other are only just told apart. It is Blahut-Arimoto's problem, solved by
    Newton's method.

    A sample (`Empirical`) is a discrete source: values drawn from it again and again. From its entropy on (log2 of the
    number of values, where they are all different) nothing is lost; well below that it is near what the distribution
    behind the sample has.

    Parameters
    ----------
    density : Density
        Of shape ().
    bits : array_like
        Rate in bits a value, 0.01 to 12.
    mse : array_like
        Or a mean squared error, units of x squared, for which the rate is in that range or 0.

    Returns
    -------
    RateDistortion

    Raises
    ------
    ValueError
        Unless exactly one of bits and mse is given, inside of its range; for an array of densities.

    References
    ----------
    C. E. Shannon (1959); R. E. Blahut, "Computation of channel capacity and rate-distortion functions" (1972);
    I. Csiszar, "On an extremum problem of information theory" (1974); K. Rose, "A mapping approach to rate-distortion
    computation and analysis" (1994).

    Examples
    --------
    >>> import qerror as qe
    >>> limit = qe.rate_distortion(qe.Laplace(), bits=1)
    >>> round(float(limit.mse), 5), bool(limit.mse_bracket[1] / limit.mse_bracket[0] < 1.00002), limit.status.name
    (0.21712, True, 'BRACKETED')
    >>> float(qe.rate_distortion(qe.Gaussian(), mse=0.25).bits)
    1.0
    """
    check_density(density)
    if density.shape:
        raise ValueError(f"density must have shape (), got {density.shape}; take one member after the other")
    if (bits is None) == (mse is None):
        raise ValueError(f"give one of bits and mse, got bits={shown(bits)} and mse={shown(mse)}")
    given = check_positive("mse" if bits is None else "bits", mse if bits is None else bits)
    if bits is not None and not ((given >= LEAST_BITS) & (given <= MOST_BITS)).all():
        raise ValueError(f"bits must be from {LEAST_BITS} to {MOST_BITS:g}, got {shown(bits)}")
    by_bits = bits is not None
    gaussian = isinstance(density, Gaussian)
    curve = _of_gaussian if gaussian else _bracket
    ends = np.array([curve(density, float(value), by_bits=by_bits) for value in given.ravel()])
    low, high = (ends[:, i].reshape(given.shape)[()] for i in (0, 1))
    middle = np.sqrt(low * high) if by_bits else 0.5 * (low + high)
    given = given[()]
    power = float(density.std) ** 2 + float(density.mean) ** 2
    status = Status.CLOSED_FORM if gaussian else Status.BRACKETED
    if by_bits:
        return RateDistortion(given, middle, (given, given), (low, high), power, status)
    return RateDistortion(middle, given, (low, high), (given, given), power, status)


def _of_gaussian(density: Density, value: float, *, by_bits: bool) -> tuple[float, float]:
    variance = float(density.std) ** 2
    found = variance * 2.0 ** (-2 * value) if by_bits else max(0.0, 0.5 * math.log2(variance / value))
    return found, found


def _bracket(density: Density, value: float, *, by_bits: bool) -> tuple[float, float]:
    """Lower and upper value of the mse at a rate, or of the rate at an mse."""
    variance = float(density.std) ** 2
    if variance == 0 or (value >= _entropy_of_points(density) if by_bits else value >= variance):
        return 0.0, 0.0
    aim = value * math.log(2) if by_bits else 0.5 * math.log(value)
    smooth = _of_smooth(density, aim, by_bits=by_bits)
    if smooth is not None:
        return smooth
    point = _point(density, aim, by_bits=by_bits)
    # A line holds at every rate.
    if by_bits:
        low = max(0.0, 2 * point.width**2 * (point.line - aim))
        return low, max(low, _reached(point, aim, by_bits=True))
    low = max(0.0, point.line - 0.5 * value / point.width**2) / math.log(2)
    return low, max(low, _reached(point, aim, by_bits=False) / math.log(2))


def _of_smooth(density: Density, aim: float, *, by_bits: bool) -> tuple[float, float] | None:
    """Shannon's bound, and the channel that has the density itself, where they are near enough to each other."""
    if density.has_atoms or (start := _start(density, aim, by_bits=by_bits)) > math.log(WIDE * float(density.std)):
        return None
    shannon = math.log(2) * float(density.entropy) - 0.5 * math.log(2 * math.pi * math.e) - ENTROPY
    best = _best_met(SmoothChannels(density).at, start, aim, by_bits=by_bits)
    low = math.exp(2 * (shannon - aim)) if by_bits else shannon - aim
    gap = 0.5 * math.log(best / low) if by_bits else best - low
    if not gap <= _FINE * math.log(10) / 20:
        return None
    scale = 1.0 if by_bits else math.log(2)
    return low / scale, max(low, best) / scale


def _entropy_of_points(density: Density) -> float:
    """Bits that tell all values apart; infinite where there is a continuous part."""
    if density.panels().shape[-1]:
        return math.inf
    _, mass = distinct(density)
    return -float((mass * np.log2(mass)).sum())


def _point(density: Density, aim: float, *, by_bits: bool) -> Point:
    """The function where its rate is `aim` nats, or half the logarithm of its mse."""
    point, place = None, _start(density, aim, by_bits=by_bits)
    fine = _FINE if density.panels().shape[-1] else _OF_SAMPLES
    # What is rough is too far off in its rate to close in on.
    for gap, near, most in ((_ROUGH, _CLOSE, _MOST_STEPS // 3), (fine, _NEAR, _MOST_STEPS)):
        for log_width in (steps := _Steps(place, most)):
            if point is not None and abs(log_width - math.log(point.source.width)) > math.log(_SIMILAR):
                point = None
            point = solve(density, math.exp(log_width), gap, point)
            miss = _miss(point.rate, point.mse, aim, by_bits=by_bits)
            # In terms of the mse, which may change much faster than the rate.
            if abs(miss) * (max(1.0, 2 * point.width**2 / point.mse) if by_bits else 1.0) <= near:
                break
            steps.tell(miss)
        place = log_width
    return point  # type: ignore[return-value]


def _reached(point: Point, aim: float, *, by_bits: bool) -> float:
    """The mse (or the rate, nats) of the channel with these reproduction values that just meets the aim."""

    def at(width: float) -> tuple[float, float]:
        rate, mse, _ = channel(point.source, width, point.y, point.q)
        return rate, mse

    return _best_met(at, math.log(point.width), aim, by_bits=by_bits)


def _best_met(
    at: Callable[[float], tuple[float, float] | None], log_width: float, aim: float, *, by_bits: bool
) -> float:
    """The mse (or the rate, nats) of the channel of the width that just meets the aim; infinite without a channel."""
    best = math.inf
    # One that does not meet it is of no use.
    side = -1.0 if by_bits else 1.0
    for place in (steps := _Steps(log_width, _MOST_STEPS)):
        found = at(math.exp(place))
        if found is None:
            return math.inf
        rate, mse = found
        miss = side * _miss(rate, mse, aim, by_bits=by_bits)
        if miss >= 0:
            best = min(best, mse if by_bits else rate)
            if miss <= 2 * _MET:
                break
        steps.tell(side * (miss - _MET))
    return best


def _miss(rate: float, mse: float, aim: float, *, by_bits: bool) -> float:
    """Nats above the aim in rate, or below it in half the logarithm of the mse."""
    return rate - aim if by_bits else aim - 0.5 * math.log(mse)


def _start(density: Density, aim: float, *, by_bits: bool) -> float:
    """Log of the width where Shannon's bound would meet the aim; less than the standard deviation."""
    spread = math.log(0.95 * float(density.std))
    if not by_bits:
        return min(spread, aim)
    entropy = float(density.entropy)
    flat = math.log(2) * entropy - 0.5 * math.log(2 * math.pi * math.e) if math.isfinite(entropy) else spread
    return min(spread, flat - aim)


class _Steps:
    """Places of a falling function of about slope -1 that close in on its zero: secants, inside of a bracket.

    As long as there is no bracket a step is at least twice the one before: the function may be flat on the way.
    """

    def __init__(self, start: float, most: int) -> None:
        self._most, self._told = most, 0
        self._at, self._slope, self._step = start, -1.0, 0.0
        self._low, self._high = -math.inf, math.inf
        self._before: tuple[float, float] | None = None

    def __iter__(self) -> Iterator[float]:
        for _ in range(self._most):
            yield self._at

    def tell(self, value: float) -> None:
        """The function at the place last given."""
        if value > 0:
            self._low = self._at
        else:
            self._high = self._at
        if self._before is not None and self._before[0] != self._at:
            slope = (value - self._before[1]) / (self._at - self._before[0])
            self._slope = min(slope, -1e-6)
        self._before = (self._at, value)
        step = -value / self._slope
        if math.isinf(self._low) or math.isinf(self._high):
            step = math.copysign(min(max(abs(step), 2 * abs(self._step)), 1.5), step)
        new = self._at + step
        self._told += 1
        # Flat on one side and steep on the other: secants creep.
        creeps = self._told > _SECANTS and math.isfinite(self._high - self._low)
        if creeps or not self._low < new < self._high:
            new = 0.5 * (self._low + self._high)
        self._at, self._step = new, new - self._at
