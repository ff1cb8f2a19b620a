"""The thresholds and values of a quantizer as measured: what a wrong scale, zero point or table does to all of them."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from .._types import Array
from .subject import Finding, Subject

# Points in each cell among which jumps are sought.
_POINTS = 16
# Finer grids are left to the other probes.
_MOST_LEVELS = 1024
# Cells looked at beyond either end, where thresholds may have been moved to.
_MOST_BEYOND = 64
# Halvings of a sixteenth of a cell: below the digits of float64.
_HALVINGS = 56
# In units of the gaps: deviations below are the business of the other probes.
_LEAST = 1e-4
# What a law may leave of the deviations that it explains.
_LEFT = 0.05


class _Law(NamedTuple):
    """found = factor * expected + offset."""

    factor: float
    offset: float


def staircase(subject: Subject) -> list[Finding]:
    """Findings about all thresholds or values together, or about few wrong ones; none where there is no such law."""
    measured = _measure(subject) if len(subject.grid) <= _MOST_LEVELS else None
    if measured is None:
        return []
    gap = np.diff(subject.values)
    sides = (
        ("thresholds", subject.thresholds, measured[0], gap),
        ("values", subject.values, measured[1], np.append(gap, gap[-1])),
    )
    laws, findings = [], []
    for name, expected, found, width in sides:
        blur = _LEAST * width + 2.0 * subject.blur(expected)
        law = _affine(expected, found, width, blur)
        wrong = np.flatnonzero(np.abs(found - expected) > blur)
        if law is None and 4 * wrong.size <= expected.size:
            i = int(wrong[0])
            text = f"{wrong.size} of {expected.size} {name} are off: {found[i]:.6g} where {expected[i]:.6g} belongs"
            findings.append(Finding(text, f"wrong {name} in a table"))
        laws.append(law)
    return findings or _explain(subject, *laws)


def _measure(subject: Subject) -> tuple[Array, Array] | None:
    """Where the outputs jump, and the outputs; None unless they ascend and are as many as the levels."""
    values = subject.values
    knots = [values]
    for sign, end, gap in ((-1.0, values[0], values[1] - values[0]), (1.0, values[-1], values[-1] - values[-2])):
        beyond = 2 + min(_MOST_BEYOND, int(0.25 * (values[-1] - values[0]) / gap))
        knots.append(end + sign * gap * np.arange(1.0, beyond + 1.0))
    cells = np.sort(np.concatenate(knots))
    fraction = (np.arange(_POINTS) + 0.5) / _POINTS
    x = np.unique(subject.inputs((cells[:-1, None] + fraction * np.diff(cells)[:, None]).ravel()))
    out, _ = subject(x)
    jump = np.flatnonzero(np.diff(out) != 0.0)
    if jump.size != values.size - 1 or (np.diff(out) < 0.0).any():
        return None
    low, high, below = x[jump], x[jump + 1], out[jump]
    for _ in range(_HALVINGS):
        middle = subject.inputs(0.5 * low + 0.5 * high)
        up = subject(middle)[0] > below
        low, high = np.where(up, low, middle), np.where(up, middle, high)
    return 0.5 * low + 0.5 * high, np.append(below, out[-1])


def _affine(expected: Array, found: Array, gap: Array, blur: Array) -> _Law | None:
    """The affine law of what was found, by least squares in units of the gaps; None where none explains it."""
    off = found - expected
    if (np.abs(off) <= blur).all():
        return _Law(1.0, 0.0)
    if expected.size < 3:
        return None
    design = np.stack([expected / gap, 1.0 / gap], axis=1)
    slope, offset = np.linalg.lstsq(design, off / gap, rcond=None)[0].tolist()
    most = float(np.max(np.abs(off) / gap))
    left = np.abs(off - slope * expected - offset) - blur
    if np.max(left / gap) > _LEFT * most:
        return None
    # What hardly matters anywhere is no part of the law.
    slope *= np.max(np.abs(slope * expected) / gap) > _LEFT * most
    offset *= np.max(np.abs(offset) / gap) > _LEFT * most
    return _Law(1.0 + slope, offset)


def _explain(subject: Subject, thresholds: _Law | None, values: _Law | None) -> list[Finding]:
    if thresholds is None or values is None:
        return []
    step = float(np.median(np.diff(subject.values)))
    both = np.allclose(thresholds, values, rtol=1e-3, atol=_LEFT * abs(values.offset))
    if not both and values == (1.0, 0.0) and abs(abs(thresholds.offset) - 0.5 * step) < _LEFT * step:
        # Truncation, or rounding up: told by the points inside the cells.
        return []
    findings = []
    for law, name, where in ((thresholds, "thresholds", "quantizing"), (values, "values", "dequantizing")):
        where = "" if both else f" in {where}"
        if law.factor != 1.0:
            text = f"{name} are {law.factor:.6g} times what they should be"
            findings.append(Finding(text, f"a scale that is {law.factor:.6g} times the right one{where}"))
        if law.offset:
            text = f"{name} are shifted by {law.offset:+.6g}, {law.offset / step:+#.3g} steps"
            findings.append(Finding(text, f"a zero point that is off by {abs(law.offset) / step:#.3g} steps{where}"))
    return findings
