"""The chart of bits against error as SVG: the front of all assignments, uniform formats, the plan."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from html import escape

from ..planning.plan import Point

_WIDTH, _HEIGHT = 760, 380
_LEFT, _RIGHT, _TOP, _BOTTOM = 58, 120, 16, 48
_TICKS = (1, 1.5, 2, 3, 4, 5, 6, 8, 10, 12, 16, 24, 32)
# Of a letter in a name, in pixels, about.
_LETTER = 7.0
# Between two corners of the hull.
_PARTS = 8


def chart(front: Sequence[Point], uniform: Sequence[Point], plan: Point | None) -> str:
    """Bits per value (logarithmic) against dB; points without an error have no place on it."""
    every = [point for point in (*front, *uniform, *([plan] if plan else [])) if math.isfinite(point.db)]
    every = [point for point in every if point.bits_per_value > 0]
    if not every:
        return ""
    bits = [math.log2(point.bits_per_value) for point in every]
    low, high = min(bits) - 0.25, max(bits) + 0.06
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
    corners = [(x(bits), y(db)) for bits, db in _along(_thinned(front))]
    line = " ".join(f"{a:.1f},{b:.1f}" for a, b in corners)
    out.append(f'<polyline class="front" points="{line}"/>')
    marks = [(x(p.bits_per_value), y(p.db), p.name, "uniform") for p in uniform if math.isfinite(p.db)]
    if plan is not None and math.isfinite(plan.db):
        marks.append((x(plan.bits_per_value), y(plan.db), "this plan", "plan"))
    out += [_mark(*mark) for mark in marks]
    out += _labels(marks, corners)
    return "\n".join([*out, "</svg>"])


_Map = Callable[[float], float]


def _axes(x: _Map, y: _Map, low: float, high: float, bottom: float, top: float) -> list[str]:
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


def _along(front: Sequence[Point]) -> list[tuple[float, float]]:
    """Bits per value and dB along the hull: between two corners errors, not decibels, lie on a line."""
    corners = [(p.bits_per_value, 10 ** (-p.db / 10)) for p in front if math.isfinite(p.db)]
    out = []
    for (bits, error), (more, less) in itertools.pairwise(corners):
        parts = [k / _PARTS for k in range(_PARTS)]
        out += [(bits + t * (more - bits), -10 * math.log10(error + t * (less - error))) for t in parts]
    return out + [(bits, -10 * math.log10(error)) for bits, error in corners[-1:]]


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


def _labels(marks: Sequence[tuple[float, float, str, str]], line: Sequence[tuple[float, float]]) -> list[str]:
    """Names beside their marks, where they cover neither another name nor a mark nor the line."""
    out: list[str] = []
    taken = [(x - 7, y - 7, x + 7, y + 7) for x, y, *_ in marks] + [(x - 2, y - 2, x + 2, y + 2) for x, y in line]
    for x, y, name, kind in sorted(marks, key=lambda mark: (mark[3] == "uniform", mark[1])):
        box, anchor, at = _free(x, y, _LETTER * len(name), taken)
        taken.append(box)
        left = box[0] if anchor == "start" else box[2]
        out.append(
            f'<text class="{kind}-name" x="{left:.1f}" y="{at:.1f}" text-anchor="{anchor}">{escape(name)}</text>'
        )
    return out


_Box = tuple[float, float, float, float]


def _free(x: float, y: float, width: float, taken: Sequence[_Box]) -> tuple[_Box, str, float]:
    """The first place near a mark that is free: right, left, and then further down and up."""
    for away in (0.0, 11, -11, 16, -16, 24, -24):
        for anchor in ("start", "end"):
            left = x + 11 if anchor == "start" else x - 11 - width
            box = (left, y + away - 7, left + width, y + away + 7)
            apart = all(box[2] < a or c < box[0] or box[3] < b or d < box[1] for a, b, c, d in taken)
            if apart and box[0] > _LEFT + 4:
                return box, anchor, y + away + 4
    return (x + 11, y - 7, x + 11 + width, y + 7), "start", y + 4
