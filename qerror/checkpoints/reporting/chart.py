"""The chart of bits against error as SVG: the front of all assignments, uniform formats, the plan."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape

from ..planning.plan import Point

_WIDTH, _HEIGHT = 760, 380
_LEFT, _RIGHT, _TOP, _BOTTOM = 58, 120, 16, 48
_TICKS = (1, 1.5, 2, 3, 4, 5, 6, 8, 10, 12, 16, 24, 32)
# Between two labels, in pixels.
_LINE = 15


def chart(front: Sequence[Point], uniform: Sequence[Point], plan: Point | None) -> str:
    """Bits per value (logarithmic) against dB; points without an error have no place on it."""
    every = [point for point in (*front, *uniform, *([plan] if plan else [])) if math.isfinite(point.db)]
    every = [point for point in every if point.bits_per_value > 0]
    if not every:
        return ""
    bits = [math.log2(point.bits_per_value) for point in every]
    low, high = min(bits) - 0.06, max(bits) + 0.06
    bottom = math.floor((min(point.db for point in every) - 1) / 5) * 5
    top = math.ceil((max(point.db for point in every) + 1) / 5) * 5

    def x(point: float) -> float:
        return _LEFT + (math.log2(point) - low) / (high - low) * (_WIDTH - _LEFT - _RIGHT)

    def y(db: float) -> float:
        return _HEIGHT - _BOTTOM - (db - bottom) / (top - bottom) * (_HEIGHT - _TOP - _BOTTOM)

    out = [
        f'<svg class="chart" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" '
        'aria-label="Bits per value against power over error in decibels; the table below has the numbers">'
    ]
    out += _axes(x, y, 2**low, 2**high, bottom, top)
    line = " ".join(f"{x(p.bits_per_value):.1f},{y(p.db):.1f}" for p in _thinned(front) if math.isfinite(p.db))
    out.append(f'<polyline class="front" points="{line}"/>')
    marks = [(x(p.bits_per_value), y(p.db), p.name, "uniform") for p in uniform if math.isfinite(p.db)]
    if plan is not None and math.isfinite(plan.db):
        marks.append((x(plan.bits_per_value), y(plan.db), "this plan", "plan"))
    out += [_mark(*mark) for mark in marks]
    out += _labels(marks)
    return "\n".join([*out, "</svg>"])


def _axes(x: object, y: object, low: float, high: float, bottom: float, top: float) -> list[str]:
    assert callable(x)
    assert callable(y)
    out = []
    for tick in (t for t in _TICKS if low <= t <= high):
        at = f"{x(tick):.1f}"
        out.append(f'<line class="grid" x1="{at}" x2="{at}" y1="{_TOP}" y2="{_HEIGHT - _BOTTOM}"/>')
        out.append(f'<text x="{at}" y="{_HEIGHT - _BOTTOM + 18}" text-anchor="middle">{tick:g}</text>')
    for db in range(int(bottom), int(top) + 1, 5 if top - bottom <= 50 else 10):
        at = f"{y(db):.1f}"
        out.append(f'<line class="grid" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{at}" y2="{at}"/>')
        out.append(f'<text x="{_LEFT - 8}" y="{y(db) + 4:.1f}" text-anchor="end">{db}</text>')
    middle = (_LEFT + _WIDTH - _RIGHT) / 2
    out.append(f'<text x="{middle}" y="{_HEIGHT - 8}" text-anchor="middle">stored bits per value</text>')
    up = (_TOP + _HEIGHT - _BOTTOM) / 2
    out.append(f'<text transform="translate(14 {up}) rotate(-90)" text-anchor="middle">power / error, dB</text>')
    return out


def _thinned(front: Sequence[Point], most: int = 400) -> list[Point]:
    """Corners enough for a line without steps that an eye could see."""
    step = max(1, len(front) // most)
    return [*front[:-1:step], *front[-1:]]


def _mark(x: float, y: float, name: str, kind: str) -> str:
    title = f"<title>{escape(name)}</title>"
    if kind == "plan":
        corners = [
            f"{x + (9 if k % 2 == 0 else 3.8) * math.sin(k * math.pi / 5):.1f},"
            f"{y - (9 if k % 2 == 0 else 3.8) * math.cos(k * math.pi / 5):.1f}"
            for k in range(10)
        ]
        return f'<polygon class="plan" points="{" ".join(corners)}">{title}</polygon>'
    return f'<circle class="uniform" cx="{x:.1f}" cy="{y:.1f}" r="5">{title}</circle>'


def _labels(marks: Sequence[tuple[float, float, str, str]]) -> list[str]:
    """Names right of their marks, moved down where two would overlap."""
    out: list[str] = []
    placed: list[tuple[float, float, float]] = []
    for x, y, name, kind in sorted(marks, key=lambda mark: mark[1]):
        width, at = 7.2 * len(name), y + 4
        while any(abs(at - b) < _LINE and x < a + w and a < x + width for a, b, w in placed):
            at += 2
        placed.append((x, at, width))
        out.append(f'<text class="{kind}-name" x="{x + 11:.1f}" y="{at:.1f}">{escape(name)}</text>')
    return out
