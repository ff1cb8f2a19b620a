"""The proof of a row's best scale one row after the other: plain functions, which QERROR_KERNELS=numba compiles.

NumPy's route (`branch_and_bound`) goes through many rows at once and stays the reference. Here a row is evaluated by
rounding every value, and an interval of scales is halved until its chord rules it out: no crossing is ever looked at.
Where B is the same at both ends of an interval no value crosses a threshold inside, as B does not fall with 1 / s.
"""

from __future__ import annotations

import functools
import importlib
import os
from collections.abc import Callable
from types import FunctionType
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..._types import Array, Index
from ...casting.arithmetic import DOUBLE, level_round
from ...grids.grid import Grid
from ...samples.rows import Rows
from ..found import RESOLUTION, TOLERANCE
from .cells import Cells

# Values added up before their sum is: lanes of a vector add 32 of them at most, one after the other.
_BLOCK = 128
# Ends of intervals that wait: octaves of the ladder, and halvings of the last of them down to neighbouring numbers.
_LADDER, _DEPTH = 150, 256
# Of what is added up in this order, in units of a rounding of the power.
_NOISE = 4 * RESOLUTION
_EXPONENT = np.int64(0x7FF << DOUBLE.mantissa_bits)
# Steps along B / C from the best of the ladder, which find about the error that the rest is compared with.
_STEPS = 6


class Form(NamedTuple):
    """How a value is rounded to a level by arithmetic."""

    floating: bool
    lowest: float
    highest: float
    # Of a uniform grid: its step, and where levels are half-integers, the first of them in steps.
    step: float
    start: float
    # Of a floating grid its least binade, and what makes the bits of a binade 1 / ulp and ulp.
    least: float
    up: np.int64
    down: np.int64

    @classmethod
    def of(cls, grid: Grid) -> Form:
        """What a grid that is rounded to by arithmetic needs."""
        spec, step, bits = grid.float_spec, float(grid.step or 1.0), DOUBLE.mantissa_bits
        if spec is None:
            first = grid.min / step
            start = 0.0 if first.is_integer() else first
            return cls(False, first, grid.max / step, step, start, 1.0, np.int64(0), np.int64(0))
        least = 2.0 ** ((1 if spec.subnormals else 0) - spec.bias)
        # Turning all bits of an exponent field E makes it 2 bias + 1 - E.
        up, down = (np.int64((spec.mantissa_bits - k) << bits) for k in (1, 0))
        return cls(True, grid.min, grid.max, 1.0, 0.0, least, up, down)


def compiled() -> bool:
    """Whether rows are searched by compiled functions, as the variable QERROR_KERNELS says: numba, or numpy (as is).

    Raises
    ------
    ValueError
        If it says anything else, or numba is not installed.

    Examples
    --------
    >>> compiled() == (os.environ.get("QERROR_KERNELS", "numpy") == "numba")
    True
    """
    text = os.environ.get("QERROR_KERNELS", "").strip().lower()
    if text not in {"", "numpy", "numba"}:
        raise ValueError(f"QERROR_KERNELS must be 'numpy' or 'numba', got {text!r}")
    return text == "numba"


def search(
    cells: Cells, most: float, kernel: Callable[..., None] | None = None
) -> tuple[Array, Array, NDArray[np.bool_]] | None:
    """B and C of the best piece of each row, and whether it is proven the best within `most` evaluations.

    None where the grid is not rounded to by arithmetic, or there are too many octaves to look at.
    """
    live, rows = cells.reach > 0, cells.rows
    top = np.minimum(cells.largest_scale * (1 + 1e-9), cells.dominated)
    with np.errstate(divide="ignore", invalid="ignore"):
        # A - MSE <= 2 s reach: below `low` less than 94 % of the power can be gained.
        low = np.where(live, 0.47 * cells.power / cells.reach, 1.0)
    top = np.where(live, np.maximum(top, 2 * low), 1.0)
    if level_round(cells.grid) is None or not (top < low * 2.0**_LADDER).all():
        return None
    floor, (start, stop) = np.maximum(cells.noise, _NOISE * cells.power), cells.repeating
    known = np.array([live, cells.power, cells.reach, low, top, floor, start, stop, 1 / rows.total, *cells.at_home])
    b, c = np.empty((2, live.size))
    proven = np.ones(live.size, np.bool_)
    run = kernel or _kernel()
    run(cells.distance, _weights(rows), Form.of(cells.grid), known, min(most, 2.0**62), b, c, proven)
    return b, c, proven


def _weights(rows: Rows) -> Array:
    """Of one type, so that one function serves all: where there are none, rows of no weights."""
    return np.empty((len(rows.values), 0)) if rows.weights is None else rows.weights.astype(np.float64)


def zero_points(rows: Rows, grid: Grid, kernel: Callable[..., None] | None = None) -> tuple[Index, NDArray[np.bool_]]:
    """The code of each row that is the best zero point of all, and whether that is proven.

    Parameters
    ----------
    rows : Rows
    grid : Grid
        Of consecutive integers, 0 among them.
    """
    power = rows.second_moment + rows.mean**2
    weights = rows.weights
    noise, lightest = _NOISE * power, np.ones(power.size)
    if weights is not None:
        farthest = np.maximum(np.abs(rows.least), np.abs(rows.greatest))
        noise = np.maximum(noise, RESOLUTION * farthest**2)
        lightest = np.maximum(weights[:, [0, -1]].min(axis=1), np.finfo(np.float64).tiny)
    code, proven = np.empty(power.size, np.intp), np.ones(power.size, np.bool_)
    known = np.array([power, noise, 1 / rows.total, lightest])
    run = kernel or _kernel("best_zero_points")
    run(rows.values.astype(np.float64), _weights(rows), Form.of(grid), known, code, proven)
    return code, proven


@functools.cache
def _kernel(name: str = "best_of_rows") -> Callable[..., None]:
    """One of the functions below, compiled: at first use, and from then on read from a file."""
    kernel: Callable[..., None] = _compiled()[name]
    return kernel


@functools.cache
def _compiled() -> dict[str, Any]:
    try:
        numba = importlib.import_module("numba")
    except ImportError:
        raise ValueError("QERROR_KERNELS=numba needs the package numba: pip install 'qerror[fast]'") from None
    scope, often = dict(globals()), (_uniform, _floating, _sums, _goal, _may_win, _evaluate)
    for function in (*often, _clips, _ladder, _halve, best_of_rows, _largest, _at_zero_point, best_zero_points):
        own = FunctionType(function.__code__, scope, function.__name__)
        # In these two alone sums may be made in any order, by the lanes of a vector.
        flags = {"reassoc", "contract", "nsz", "nnan", "ninf"} if function in (_uniform, _floating) else False
        scope[function.__name__] = numba.njit(
            own, nogil=True, cache=True, error_model="numpy", fastmath=flags, forceinline=function in often
        )
    return scope


def best_of_rows(
    values: Array,
    weights: Array,
    form: Form,
    known: Array,
    most: float,
    b: Array,
    c: Array,
    proven: NDArray[np.bool_],
) -> None:
    """Write B and C of the best piece of each row, and whether it is proven."""
    stack, best = np.empty((_DEPTH, 3)), np.empty(3)
    for row in range(values.shape[0]):
        live, home_b, home_c = known[0, row], known[9, row], known[10, row]
        # The gain B^2 / C, B and C of the best piece so far: at first where all values are next to 0.
        best[0], best[1], best[2] = 0.0, max(home_b, 0.0), home_c
        if live > 0:
            if home_b > 0 and home_c > 0:
                best[0] = home_b * home_b / home_c
            y, mass = values[row], weights[row]
            last = _ladder(y, mass, form, known[:, row], best, stack)
            proven[row] = _halve(y, mass, form, known[:, row], most, best, stack, last)
        b[row], c[row] = best[1], best[2]


def _ladder(y: Array, weights: Array, form: Form, known: Array, best: Array, stack: Array) -> int:
    """Lay octaves of scales on the stack, the largest first, and return the place of the last.

    A scale is given by u = 1 / s, an end of an interval by u, B and h(u) = 2 u B - C.
    """
    power, reach, low, top, floor, share = known[1], known[2], known[3], known[4], known[5], known[8]
    last = -1
    steps = max(1, int(np.ceil(np.log2(top / low))))
    for step in range(steps + 1):
        last += 1
        _evaluate(y, weights, (top / low) ** (step / steps) / top, form, share, best, stack[last])
    for _ in range(_STEPS):
        # The place behind the last is free.
        if best[0] <= 0 or not _evaluate(y, weights, best[2] / best[1], form, share, best, stack[last + 1]):
            break
    # Scales further down, where such an error leaves them possible; where it is none all are: twenty octaves.
    bottom = max(0.5 * _goal(power, best[0], floor) / reach * (1 - 1e-9), low * 2.0**-20)
    steps = int(np.ceil(np.log2(low / bottom))) if bottom < low else 0
    for step in range(steps):
        last += 1
        _evaluate(y, weights, (low / bottom) ** ((step + 1) / steps) / low, form, share, best, stack[last])
    return last


def _halve(
    y: Array, weights: Array, form: Form, known: Array, most: float, best: Array, stack: Array, last: int
) -> bool:
    """Divide the intervals from the smallest scale up until none may have a better one."""
    power, floor, start, stop, share = known[1], known[5], known[6], known[7], known[8]
    clips = _clips(y, form, power - _goal(power, best[0], floor), share) if not weights.size else 0.0
    u, b, h = stack[last]
    spent = 0
    while last > 0:
        # The right ends of the intervals that wait are on the stack.
        next_u, next_b, next_h = stack[last - 1]
        middle = 0.5 * (u + next_u)
        if (
            b == next_b
            or not next_u < middle < u
            or clips * next_u >= 1
            or start * u <= 1 <= stop * next_u
            or not _may_win(u, h, next_u, next_h, _goal(power, best[0], floor))
        ):
            u, b, h = next_u, next_b, next_h
            last -= 1
            continue
        if spent >= most or last == _DEPTH:
            return False
        spent += 1
        _evaluate(y, weights, middle, form, share, best, stack[last])
        last += 1
    return True


def _clips(y: Array, form: Form, error: float, share: float) -> float:
    """A scale at which (and below) one value alone is clipped by more than the whole error; 0 where there is none."""
    beyond, scale = np.sqrt(max(error, 0.0) / share), 0.0
    for value in y:
        reached = abs(form.highest if value > 0 else form.lowest) * form.step
        if reached > 0:
            scale = max(scale, (abs(value) - beyond) / reached)
    return scale * (1 - 1e-9)


def _evaluate(y: Array, weights: Array, u: float, form: Form, share: float, best: Array, end: Array) -> bool:
    """Write u, B and h(u) of a scale; its piece becomes the best if it is better."""
    b, c = _sums(y, weights, u, form)
    b, c = b * share, c * share
    end[0], end[1], end[2] = u, b, 2 * u * b - c
    better = b > 0 and c > 0 and b * b > best[0] * c
    if better:
        best[0], best[1], best[2] = b * b / c, b, c
    return better


def best_zero_points(
    values: Array, weights: Array, form: Form, known: Array, code: Index, proven: NDArray[np.bool_]
) -> None:
    """Write the place of the best zero point of each row among consecutive integers, and whether it is proven.

    The values at zero point p are s (l - p), all of them multiples of s: no error is below that of all multiples.
    """
    stack, best, own = np.empty((_DEPTH, 3)), np.empty(3), np.zeros(9)
    count = int(form.highest - form.lowest)
    for row in range(values.shape[0]):
        y, mass = values[row], weights[row]
        own[1], own[5], own[8] = known[0, row], known[1, row], known[2, row]
        lightest = known[3, row]
        below, above = min(y[0], 0.0), max(y[-1], 0.0)
        best[:] = 0.0
        # Where the ends of the grid lie on those of the data, or of 95 and of 90 % of them.
        first = int(np.rint(-below / (above - below) * count)) if below < above else 0
        at = Form(False, -float(first), float(count - first), 1.0, 0.0, 1.0, form.up, form.down)
        scale = max((above - below) / count, 1e-300)
        for part in (1.0, 0.95, 0.9):
            _evaluate(y, mass, 1 / (part * scale), at, own[8], best, stack[0])
        for _ in range(_STEPS):
            if best[0] <= 0 or not _evaluate(y, mass, best[2] / best[1], at, own[8], best, stack[0]):
                break
        code[row] = first
        if best[0] <= 0:
            proven[row] = own[1] <= 0
            continue
        top = _largest(y, mass, at, own, best, stack)
        for step in range(2 * count + 1):
            # Next to the first one to begin with.
            place = first + (step + 1) // 2 * (1 if step % 2 else -1)
            if 0 <= place <= count:
                before = best[0]
                proven[row] &= _at_zero_point(y, mass, place, count, lightest, top, own, best, stack, at)
                if best[0] > before:
                    code[row] = place


def _largest(y: Array, weights: Array, form: Form, own: Array, best: Array, stack: Array) -> float:
    """Above this scale all of its multiples as levels have an error that is not below the goal.

    Above twice a scale it is not below that at some scale in between, which it is a multiple of.
    """
    every = Form(False, -(2.0**50), 2.0**50, 1.0, 0.0, 1.0, form.up, form.down)
    goal = _goal(own[1], best[0], own[5])
    scale = best[1] / best[2]
    last, spare = scale, best.copy()
    _evaluate(y, weights, 1 / scale, every, own[8], spare, stack[0])
    while scale < 2 * last:
        u, _, h = stack[0]
        # The chord's sagitta in these steps is about what the error is above the goal.
        excess = max(goal - h / (u * u), 0.0)
        scale *= np.exp(min(max(1.8 * np.sqrt(excess / own[1]), 2.0**-8), 0.25))
        _evaluate(y, weights, 1 / scale, every, own[8], spare, stack[1])
        if _may_win(u, h, stack[1, 0], stack[1, 2], goal) or stack[1, 2] > goal * stack[1, 0] * stack[1, 0]:
            last = scale
        stack[0] = stack[1]
    return float(last * (1 + 1e-9))


def _at_zero_point(
    y: Array,
    weights: Array,
    place: int,
    count: int,
    lightest: float,
    top: float,
    own: Array,
    best: Array,
    stack: Array,
    form: Form,
) -> bool:
    """Search the scales up to `top` at which the levels - place, ..., count - place may beat the best known."""
    goal = _goal(own[1], best[0], own[5])
    # None of both ends may be clipped by more than the whole error, nor all scales gain so much.
    beyond = np.sqrt(max(own[1] - goal, 0.0) / (own[8] * lightest))
    up, down = y[-1] - beyond, -y[0] - beyond
    if (up > 0 and place == count) or (down > 0 and place == 0):
        return True
    low = max(up / max(count - place, 1), down / max(place, 1), 0.5 * goal / (count * np.sqrt(own[1]))) * (1 - 1e-9)
    if low >= top:
        return True
    at = Form(False, -float(place), float(count - place), 1.0, 0.0, 1.0, form.up, form.down)
    _evaluate(y, weights, 1 / top, at, own[8], best, stack[0])
    _evaluate(y, weights, 1 / low, at, own[8], best, stack[1])
    return _halve(y, weights, at, own, 2.0**62, best, stack, 1)


def _goal(power: float, best: float, floor: float) -> float:
    """What must be gained to be better than the best known."""
    return best + max(TOLERANCE * (power - best), floor)


def _may_win(u: float, h: float, other_u: float, other_h: float, goal: float) -> bool:
    """Whether the chord of h leaves a gain h(v) / v^2 above the goal possible between u and other_u < u."""
    slope = (h - other_h) / (u - other_u)
    # goal v^2 - slope v - intercept is least at slope / (2 goal); at the ends it is known to be positive.
    return 2 * goal * other_u < slope < 2 * goal * u and slope * slope > 4 * goal * (slope * u - h)


def _sums(y: Array, weights: Array, u: float, form: Form) -> tuple[float, float]:
    """Sums of w y l and of w l^2 over all values, l the level nearest to u y."""
    b = c = lost_b = lost_c = 0.0
    for begin in range(0, y.size, _BLOCK):
        part = y[begin : begin + _BLOCK]
        mass = weights[begin : begin + _BLOCK]
        one, two = _floating(part, mass, u, form) if form.floating else _uniform(part, mass, u / form.step, form)
        # What the sum of two numbers loses is kept apart.
        new_b, new_c = b + one, c + two
        lost_b += (b - new_b) + one
        lost_c += (c - new_c) + two
        b, c = new_b, new_c
    return (b + lost_b) * form.step, (c + lost_c) * form.step * form.step


def _uniform(y: Array, weights: Array, factor: float, form: Form) -> tuple[float, float]:
    """The same of a part on a uniform grid, in steps."""
    b = c = 0.0
    for i in range(y.size):
        level = np.rint(min(max(y[i] * factor, form.lowest), form.highest) - form.start) + form.start
        mass = level * weights[i] if weights.size else level
        b += mass * y[i]
        c += mass * level
    return b, c


def _floating(y: Array, weights: Array, factor: float, form: Form) -> tuple[float, float]:
    """The same of a part on a floating grid: a value of some ulps of its binade is rounded to whole ones."""
    b = c = 0.0
    for i in range(y.size):
        q = min(max(y[i] * factor, form.lowest), form.highest)
        size = np.float64(max(abs(q), form.least))
        binade = size.view(np.int64) & _EXPONENT
        up, down = np.int64((binade ^ _EXPONENT) + form.up), np.int64(binade - form.down)
        level = np.rint(q * up.view(np.float64)) * down.view(np.float64)
        mass = level * weights[i] if weights.size else level
        b += mass * y[i]
        c += mass * level
    return b, c
