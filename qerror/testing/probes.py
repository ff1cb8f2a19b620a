"""Questions to a quantizer at chosen points, and what wrong answers look like."""

from __future__ import annotations

import numpy as np
from scipy.special import ndtri

from .._types import Array
from .staircase import staircase
from .subject import Finding, Subject

# The |z| that a true proportion exceeds with a probability of 1e-8.
_CERTAIN = float(-ndtri(1e-8 / 2))
_LARGE = 1e4
# Thresholds looked at closely, at most.
_SOME = 1024


def probe(subject: Subject, sample: Array, rounding: str, n: int, rng: np.random.Generator) -> list[Finding]:
    """All findings at chosen points and on a sample, the most telling first."""
    if rounding == "stochastic":
        return _on_grid(subject, sample, rounding) + _ends(subject) + _proportions(subject, n, rng)
    placed = _place(subject, sample)
    if placed:
        return placed
    # What goes wrong inside the cells goes wrong at their ends as well.
    findings = _on_grid(subject, sample, rounding) + _ends(subject)
    findings += _levels(subject) + _inside(subject) or _near_thresholds(subject) or _ties(subject)
    findings += _order(subject, sample)
    laws = staircase(subject) if findings else []
    # One law for all thresholds or values is the cause of everything else.
    return [*laws, *(finding._replace(cause="") for finding in findings)] if laws else findings


def _place(subject: Subject, sample: Array) -> list[Finding]:
    """The same values again, and elsewhere in an array of another length: tails of vector loops, packed nibbles."""
    out = subject(sample)[0]
    if not np.array_equal(out, subject(sample)[0]):
        return [Finding("the same array gives other outputs when it is given again", "stochastic rounding")]
    whole, part = out[1:-2], subject(sample[1:-2])[0]
    moved = np.flatnonzero(whole != part)
    if not moved.size:
        return []
    i = int(moved[0])
    where = f"x = {sample[i + 1]:.9g} goes to {whole[i]:.9g} and {part[i]:.9g}"
    text = f"{moved.size} of {part.size} outputs change with the place in the array: {where}"
    return [Finding(text, "outputs that depend on their neighbours or their place")]


def _on_grid(subject: Subject, sample: Array, rounding: str) -> list[Finding]:
    index, good, out = subject.levels(sample)
    findings = []
    if not good.all():
        i = int(np.argmin(good))
        share = 100.0 * np.mean(~good)
        text = f"{share:.3g}% of the outputs are no values of the grid, such as {out[i]:.9g} for x = {sample[i]:.9g}"
        findings.append(Finding(text))
    if rounding == "stochastic":
        low = np.clip(np.searchsorted(subject.values, sample, side="right") - 1, 0, len(subject.grid) - 2)
        clear = np.abs(sample - subject.values[subject.nearest(sample)]) > subject.blur(sample)
        wrong = clear & (index != low) & (index != low + 1)
        if wrong.any():
            i = int(np.argmax(wrong))
            findings.append(Finding(f"x = {sample[i]:.9g} went to {out[i]:.9g}, which is no neighbour"))
    return findings


def _ends(subject: Subject) -> list[Finding]:
    """Saturation: what lies beyond the end values goes to them."""
    findings = []
    last = len(subject.grid) - 1
    for sign, end, inner in ((-1.0, 0, 1), (1.0, last, last - 1)):
        value = subject.values[end]
        gap = abs(value - subject.values[inner])
        x = subject.inputs(value + sign * gap * np.array([0.75, 1.0, 1.5, 10.0, _LARGE]))
        index, good, out = subject.levels(x)
        if good.all() and (index == end).all():
            continue
        off = (out - value) / gap * sign
        side = "above the greatest" if sign > 0 else "below the least"
        text = f"what lies {side} value {value:.6g} goes to {out[0]:.6g} to {out[-1]:.6g}"
        steps = np.unique(np.round(off, 6))
        if steps.size == 1 and 0.5 < abs(off[0]) < 1.5:
            cause = f"a clip that is wrong by one level ({'beyond' if off[0] > 0 else 'short of'} the end)"
        elif (index == last - end).any():
            cause = "integers that wrap around instead of saturating"
        else:
            cause = "a missing clip" if off[-1] > 1.5 else ""
        findings.append(Finding(text, cause))
    return findings


def _levels(subject: Subject) -> list[Finding]:
    """Every value of the grid goes to itself."""
    x = subject.inputs(subject.values)
    index, _, out = subject.levels(x)
    own = np.arange(x.size)
    clear = subject.nearest(x + subject.blur(x)) == subject.nearest(x - subject.blur(x))
    wrong = np.flatnonzero((index != own) & clear)
    if not wrong.size:
        return []
    i = int(wrong[0])
    text = f"{wrong.size} of {x.size} values of the grid do not stay, such as {x[i]:.9g}, which goes to {out[i]:.9g}"
    spec = subject.grid.float_spec
    if spec is not None and spec.subnormals:
        normal = 2.0 ** (1 - spec.bias)
        small = (np.abs(subject.grid.levels) < normal) & (subject.grid.levels != 0.0)
        if small[wrong].all():
            share = "" if wrong.size == np.count_nonzero(small) else f"{wrong.size} of {np.count_nonzero(small)} "
            return [Finding(text, f"missing subnormals ({share}values below the least normal one are flushed)")]
    if np.isin(wrong, [0, x.size - 1]).all():
        return [Finding(text)]
    steps = np.unique(index[wrong] - wrong)
    cause = f"codes that are off by {abs(int(steps[0]))}" if wrong.size > 2 and steps.size == 1 else ""
    return [Finding(text, cause)]


def _inside(subject: Subject) -> list[Finding]:
    """Points well inside the cells, and which way wrong ones go."""
    low, high = subject.values[:-1], subject.values[1:]
    fraction = np.array([0.2, 0.3, 0.4, 0.6, 0.7, 0.8])[:, None]
    x = subject.inputs((low + fraction * (high - low)).ravel())
    index, _, out = subject.levels(x)
    expected = subject.nearest(x)
    clear = (expected == subject.nearest(x - subject.blur(x))) & (expected == subject.nearest(x + subject.blur(x)))
    wrong = np.flatnonzero((index != expected) & clear)
    if not wrong.size:
        return []
    i = int(wrong[0])
    text = (
        f"{wrong.size} of {x.size} points inside the cells go wrong, such as x = {x[i]:.9g}, which goes to {out[i]:.9g}"
    )
    return [Finding(text, _direction((out - x)[clear], (x - subject.shift)[clear]))]


def _direction(error: Array, x: Array) -> str:
    if (error <= 0).all():
        return "truncation (rounding down)"
    if (error >= 0).all():
        return "rounding up"
    if (error * x <= 0).all():
        return "truncation (rounding toward zero)"
    return "rounding away from zero" if (error * x >= 0).all() else ""


def _near_thresholds(subject: Subject) -> list[Finding]:
    """Points ever nearer to the thresholds: an intermediate of few digits shows by where it fails first."""
    bits = np.arange(4.0, 40.0, 0.25)
    some = slice(None, None, -(-len(subject.grid) // _SOME))
    t, gap, edges = subject.grid.thresholds[some], np.diff(subject.grid.levels)[some], subject.thresholds[some]
    offset = np.array([-1.0, 1.0])[:, None, None] * np.where(t == 0.0, gap, np.abs(t)) * 2.0 ** -bits[:, None]
    x = subject.inputs(subject.shift + subject.scale * (t + offset))
    distance = np.abs(x - edges)
    # Near, but not so near that the function's own arithmetic may go either way.
    told = (np.abs(offset) < 0.4 * gap) & (distance > subject.blur(x)) & (np.sign(x - edges) == np.sign(offset))
    index, _, _ = subject.levels(x.ravel())
    wrong = told & (index.reshape(x.shape) != subject.nearest(x))
    if not wrong.any():
        return []
    at = np.unravel_index(int(np.argmax(wrong)), wrong.shape)
    edge = edges[at[2]]
    text = f"{int(wrong.sum())} points next to thresholds go wrong, such as x = {x[at]:.9g} next to {edge:.9g}"
    relative = (distance / np.maximum(np.abs(subject.scale * t), np.finfo(float).tiny))[wrong & (t != 0.0)]
    if not relative.size:
        return [Finding(text)]
    # Half a unit in the last place of p bits is between 2^-p-1 and 2^-p of the number.
    digits = int(np.floor(-np.log2(relative.max())))
    known = {8: " (bfloat16)", 11: " (float16)"}.get(digits, "")
    return [Finding(text, f"double rounding through a number of {digits} significant bits{known}")]


def _ties(subject: Subject) -> list[Finding]:
    """Thresholds themselves, where the function's arithmetic must be exact: scales that are powers of two."""
    x = subject.inputs(subject.thresholds)
    exact = (x == subject.thresholds) & ((x - subject.shift) / subject.scale == subject.grid.thresholds)
    if np.frexp(subject.scale)[0] != 0.5 or not exact.any():
        return []
    index, _, _ = subject.levels(x)
    lower = np.arange(x.size)
    expected = lower + ~subject.grid.ties_to_lower
    wrong = exact & (index != expected)
    if not wrong.any():
        return []
    i = int(np.argmax(wrong))
    up, positive = (index > lower)[exact], (subject.grid.thresholds > 0)[exact]
    away = {True: "to odd codes", False: ""}[bool((index != expected)[exact].all())]
    rules = (
        (up == positive, "away from zero"),
        (up != positive, "toward zero"),
        (up, "up"),
        (~up, "down"),
    )
    rule = next((name for holds, name in rules if holds.all()), away)
    text = f"{int(wrong.sum())} of {int(exact.sum())} ties do not go to the even code, such as x = {x[i]:.9g}"
    return [Finding(text, f"ties {rule}" if rule else "")]


def _order(subject: Subject, sample: Array) -> list[Finding]:
    """Monotone, idempotent, odd where the grid is."""
    x = np.sort(sample)
    index, _, out = subject.levels(x)
    findings = []
    falls = np.flatnonzero(np.diff(index) < 0)
    if falls.size:
        i = int(falls[0])
        findings.append(Finding(f"not monotone: {x[i]:.9g} goes to {out[i]:.9g}, {x[i + 1]:.9g} to {out[i + 1]:.9g}"))
    again, _, twice = subject.levels(out)
    moved = np.flatnonzero(again != index)
    if moved.size:
        i = int(moved[0])
        findings.append(Finding(f"not idempotent: {x[i]:.9g} goes to {out[i]:.9g}, and that to {twice[i]:.9g}"))
    levels = subject.grid.levels
    common = float(np.abs(levels[np.isin(-levels, levels)]).max(initial=0.0))
    inner = levels[np.abs(levels) <= common]
    if subject.shift == 0.0 and inner.size > 1 and np.array_equal(inner, -inner[::-1]):
        blur = subject.blur(x)
        clear = subject.nearest(x - blur) == subject.nearest(x + blur)
        inside = (np.abs(x) <= subject.scale * common) & clear & (np.abs(levels[index]) <= common)
        other, _, opposite = subject.levels(-x)
        odd = np.flatnonzero(inside & (subject.values[other] != -subject.values[index]))
        if odd.size:
            i = int(odd[0])
            findings.append(Finding(f"not odd: {x[i]:.9g} goes to {out[i]:.9g}, {-x[i]:.9g} to {opposite[i]:.9g}"))
    return findings


def _proportions(subject: Subject, n: int, rng: np.random.Generator) -> list[Finding]:
    """Stochastic rounding at fixed fractions of one gap: how often it goes up."""
    widest = int(np.argmin(np.abs(subject.thresholds - subject.shift)))
    low, high = subject.values[widest : widest + 2]
    small = 1.5 * 2.0 ** -np.arange(2.0, 12.0)
    point = subject.inputs(low + np.concatenate([small, 1.0 - small]) * (high - low))
    fraction = (point - low) / (high - low)
    repeats = max(n // point.size, 1000)
    x = rng.permutation(np.repeat(np.arange(point.size), repeats))
    index, _, _ = subject.levels(point[x])
    up = np.bincount(x, weights=index == widest + 1, minlength=point.size) / repeats
    doubt = np.sqrt(fraction * (1.0 - fraction) / repeats)
    # One more than seen: with few counts the normal law says too little.
    wrong = np.abs(up - fraction) > _CERTAIN * doubt + 1.0 / repeats
    if not wrong.any():
        return []
    i = int(np.argmax(np.abs(up - fraction) / doubt))
    text = f"at the fraction {fraction[i]:.4g} of a gap {up[i]:.4g} of the values go up"
    if np.isin(up, [0.0, 1.0]).all():
        return [Finding(text, "deterministic rounding")]
    for bits in range(1, 12):
        steps = np.round(up * 2.0**bits) / 2.0**bits
        few = np.abs(steps - fraction) <= 2.0**-bits
        if np.all(few & (np.abs(up - steps) <= _CERTAIN * np.sqrt(steps * (1.0 - steps) / repeats) + 1.0 / repeats)):
            return [Finding(text, f"stochastic rounding with a {bits}-bit random number")]
    return [Finding(text, "random numbers that are not uniform")]
