"""Curves as SVG, in the colours of the page they stand on: axes of binary logarithms, lines, dots."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from .._types import Array

_WIDE, _HIGH, _LEFT, _BELOW = 640, 260, 70, 44


@dataclass(frozen=True)
class Axes:
    """What of the plane is shown: from least to greatest, of either coordinate."""

    x: tuple[float, float]
    y: tuple[float, float]

    def line(self, name: str, x: Array, y: Array) -> str:
        """A curve, of a class that says how it looks."""
        points = " ".join(f"{self._across(float(a)):.1f},{self._up(float(b)):.1f}" for a, b in zip(x, y, strict=True))
        return f'<polyline class="{name}" points="{points}"/>'

    def dot(self, x: float, y: float, *, best: bool) -> str:
        """A local minimum; the best is filled."""
        kind = "best" if best else "minimum"
        return f'<circle class="{kind}" cx="{self._across(x):.1f}" cy="{self._up(y):.1f}" r="4"/>'

    def drawn(self, parts: Sequence[str], across: str, up: str, title: str, *, decibels: bool = False) -> str:
        """The whole picture: whole numbers below, at the side powers of ten, or decibels."""
        (x0, x1), (y0, y1) = self.x, self.y
        step = max(1, round((x1 - x0) / 10))
        ticks = [k for k in range(math.ceil(x0), math.floor(x1) + 1) if k % step == 0]
        marks = _decibels(y0, y1) if decibels else _powers_of_ten(y0, y1)
        bottom, right, top = _HIGH - _BELOW, _WIDE - 10, 10
        lines = [f'<text class="x" x="{self._across(k):.1f}" y="{bottom + 17}">{k}</text>' for k in ticks]
        for height, word in marks:
            at = self._up(height)
            lines.append(f'<path class="grid" d="M{_LEFT} {at:.1f}H{right}"/>')
            lines.append(f'<text class="y" x="{_LEFT - 6}" y="{at + 4:.1f}">{word}</text>')
        lines.append(f'<path class="axis" d="M{_LEFT} {top}V{bottom}H{right}"/>')
        lines.append(f'<text class="x" x="{(_LEFT + right) / 2}" y="{_HIGH - 8}">{across}</text>')
        middle = (top + bottom) / 2
        lines.append(f'<text class="x" transform="translate(14 {middle}) rotate(-90)">{up}</text>')
        frame = f'<clipPath id="frame"><path d="M{_LEFT} {top - 5}H{right + 5}V{bottom}H{_LEFT}Z"/></clipPath>'
        inside = f'<g clip-path="url(#frame)">{"".join(parts)}</g>'
        head = f'<svg class="plot" viewBox="0 0 {_WIDE} {_HIGH}" role="img"><title>{title}</title>'
        return f"{head}{frame}{''.join(lines)}{inside}</svg>"

    def _across(self, x: float) -> float:
        return _LEFT + (_WIDE - 10 - _LEFT) * (x - self.x[0]) / (self.x[1] - self.x[0])

    def _up(self, y: float) -> float:
        return 10 + (_HIGH - _BELOW - 10) * (self.y[1] - y) / (self.y[1] - self.y[0])


def _powers_of_ten(low: float, high: float) -> list[tuple[float, str]]:
    """Of binary logarithms."""
    tens = range(math.ceil(low * math.log10(2)), math.floor(high * math.log10(2)) + 1)
    return [(k / math.log10(2), f"1e{k}") for k in tens]


def _decibels(low: float, high: float) -> list[tuple[float, str]]:
    """About five round numbers."""
    rough = (high - low) / 5
    unit = 10.0 ** math.floor(math.log10(rough))
    step = next(unit * k for k in (1, 2, 5, 10) if unit * k >= rough)
    return [(step * k, f"{step * k:.4g}") for k in range(math.ceil(low / step), math.floor(high / step) + 1)]
