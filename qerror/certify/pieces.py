"""Cover all scales with pieces that `checker` can prove: what a certificate consists of, found by division."""

from __future__ import annotations

import contextlib
import math
from bisect import bisect_left, bisect_right
from fractions import Fraction
from itertools import pairwise
from typing import NamedTuple

from flint import arb, arb_poly, fmpq

from .certificate import OpenError
from .checker import EIGHTHS, WITHIN, Problem, convex, exact, excluded, monotone, turns

# Relative length of the pieces that the search begins with, on few thresholds and on many, and how narrow they become.
_RATIO, _SMALL_RATIO, _MANY = Fraction(3, 2), Fraction(5, 4), 64
_NARROWEST = 1e-11
# How many pieces are looked at, and how many terms in all: about half an hour of 32 768 thresholds.
_MOST, _MOST_TERMS = 40_000, 20_000_000
# Where a piece is cut: between these parts of it. Short decimals may be roots, at which no piece can end: then others.
_CUTS = (Fraction(2, 5), Fraction(3, 5)), (Fraction(43, 100), Fraction(44, 100)), (Fraction(56, 100), Fraction(57, 100))
# How far the walk to the tails goes: 254 octaves of levels need no more than 260.
_FARTHEST = 2**600


class _NarrowError(OpenError):
    """A piece became too narrow: it may end at a root."""


class Piece(NamedTuple):
    """Scales from `low` to `high`, the Taylor model of the MSE there, and of which kind the piece is."""

    low: Fraction
    high: Fraction
    model: arb_poly
    smooth: bool
    kind: str = ""


def fraction(number: fmpq) -> Fraction:
    """The same number."""
    return Fraction(int(number.p), int(number.q))


def piece(problem: Problem, low: Fraction, high: Fraction, order: int) -> Piece:
    """The model between two scales."""
    return Piece(low, high, *problem.model(low, high, order))


def short_decimal(low: Fraction, high: Fraction) -> Fraction:
    """A decimal of few digits between two positive numbers."""
    power = math.floor(math.log10(float(high - low))) + 1
    while True:
        unit = Fraction(10) ** power
        found = math.ceil(low / unit) * unit
        if found <= high:
            return found
        power -= 1


def cut_text(number: Fraction) -> str:
    """A number with few decimals as 12e-7, another as p/q."""
    if 10**30 % number.denominator:
        return str(number)
    power = 0
    while number.denominator != 1:
        number *= 10
        power -= 1
    digits = str(number.numerator)
    stripped = digits.rstrip("0")
    power += len(digits) - len(stripped)
    return f"{stripped}e{power}" if power else stripped


class Covering:
    """Pieces from one tail to the other, and the least MSE that was seen."""

    def __init__(self, problem: Problem, order: int, cuts: tuple[Fraction, Fraction] = _CUTS[0]) -> None:
        self.problem, self.order, self._cuts = problem, order, cuts
        self.least = problem.power
        self.atoms = sorted(fraction(s) for s in problem.atoms())
        self.pieces: list[Piece] = []
        self._looked = 0
        self.done: list[Piece] = []
        self._walk()
        self._divide()

    @property
    def limit(self) -> arb:
        """What pieces of kind x must exceed."""
        return self.least * (1 + WITHIN)

    def _add(self, low: Fraction, high: Fraction) -> None:
        new, self._looked = piece(self.problem, low, high, self.order), self._looked + 1
        for x in EIGHTHS:
            value = new.model(x.mid()).upper()
            if value < self.least:
                self.least = value
        self.pieces.append(new)

    def _walk(self) -> None:
        """From a scale in the middle up and down, until the lemmas of the tails hold."""
        levels = self.problem.levels
        rms, far = float(self.problem.power.sqrt()), float(max(map(abs, levels)))
        start = _rounded(Fraction(rms * 3 / far))
        ratio = _RATIO if len(levels) < _MANY else _SMALL_RATIO
        below = above = start
        self.last = "z" if 0 in levels else "p"
        for kind in ("s", self.last):
            while not self.problem.loss_bound(kind, exact(below if kind == "s" else above)) > self.limit:
                if kind == "s":
                    low, high = _rounded(below / ratio), below
                    below = low
                else:
                    low, high = above, _rounded(above * ratio)
                    above = high
                self._add(low, high)
                if max(start / below, above / start) > _FARTHEST:
                    raise OpenError(f"the error falls on and on towards the scale {float(low):g}: nothing to prove")

    def _divide(self) -> None:
        """Give each piece a kind, or divide it."""
        while self.pieces:
            one = self.pieces.pop()
            kind = self._kind(one)
            if kind:
                self.done.append(one._replace(kind=kind))
                continue
            where = f"the scales from {float(one.low)!r} to {float(one.high)!r} are left open"
            if float(one.high / one.low) - 1 < _NARROWEST:
                raise _NarrowError(where)
            if self._looked > _MOST or self._looked * len(self.problem.terms) > _MOST_TERMS:
                reached = f"{self._looked} pieces of {len(self.problem.terms)} terms, {len(self.pieces) + 1} undecided"
                raise OpenError(f"{where}: given up after {reached}; the least MSE is at most {float(self.least):.10g}")
            # An atom that is passed inside bends M, and may be the minimum.
            passed = self.atoms[bisect_right(self.atoms, one.low) : bisect_left(self.atoms, one.high)]
            parts = (one.low + (one.high - one.low) * part for part in self._cuts)
            cut = passed[len(passed) // 2] if passed else short_decimal(*parts)
            self._add(one.low, cut)
            self._add(cut, one.high)
        self.done.sort()

    def _kind(self, one: Piece) -> str:
        if excluded(one.model, self.limit):
            return "x"
        if monotone(one.model):
            return "m"
        signs = turns(one.model)
        known = signs[0] > 0 or signs[1] < 0 or signs == [-1, 1]
        return "v" if one.smooth and known and convex(one.model) else ""

    def turning(self) -> list[Fraction]:
        """Cuts between a piece where the MSE falls and one where it rises: minima at atoms."""
        beside = pairwise([one for one in self.done if one.kind != "x"])
        return [a.high for a, b in beside if a.high == b.low and (turns(a.model)[1], turns(b.model)[0]) == (-1, 1)]


def covered(problem: Problem, order: int) -> Covering:
    """The covering that cuts in the first place allow."""
    for cuts in _CUTS[:-1]:
        with contextlib.suppress(_NarrowError):
            return Covering(problem, order, cuts)
    return Covering(problem, order, _CUTS[-1])


def _rounded(number: Fraction) -> Fraction:
    return short_decimal(number * Fraction(99, 100), number * Fraction(101, 100))
