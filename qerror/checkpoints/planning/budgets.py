"""Budgets in exact integers: bits as they are, errors as multiples of one tiny unit; and the best plan within them."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from fractions import Fraction

from ..._check import shown
from .choices import Choice
from .hulls import Option, front
from .knapsack import Assignment, InfeasibleError, assign
from .plan import Point


@dataclasses.dataclass(frozen=True)
class Ledger:
    """The classes as integers: bits, and errors in units of 2^-shift, without any rounding.

    Attributes
    ----------
    classes : list of lists of (bits, error)
    power : int
        What all values would cost as errors.
    shift : int
    values : int
        How many values are planned.
    """

    classes: list[list[Option]]
    power: int
    shift: int
    values: int

    @classmethod
    def of(cls, choices: Sequence[Choice], values: int, *, least: bool = False) -> Ledger:
        """Add up the members of each class; `least`: what they cost at least."""
        table = [each.least if least else each.costs for each in choices]
        numbers = [cost for every in table for costs in every for cost in costs]
        numbers += [power for each in choices for power in each.power]
        # Every float is an integer over a power of two.
        shift = max((number.as_integer_ratio()[1].bit_length() - 1 for number in numbers), default=0)

        def whole(floats: Sequence[float]) -> int:
            return sum(n << (shift - d.bit_length() + 1) for n, d in (x.as_integer_ratio() for x in floats))

        classes = [
            [(bits, whole(costs)) for bits, costs in zip(each.bits, every, strict=True)]
            for each, every in zip(choices, table, strict=True)
        ]
        return cls(classes, sum(whole(each.power) for each in choices), shift, values)

    def error(self, cost: int | Fraction) -> float:
        """An error as a number."""
        return float(Fraction(cost) / (1 << self.shift))

    def point(self, bits: int, cost: int, name: str = "") -> Point:
        """An assignment as what is said of it."""
        per_value = bits / self.values if self.values else 0.0
        return Point(bits, self.error(cost), per_value, self._decibels(cost), name)

    def _decibels(self, cost: int) -> float:
        if cost == 0:
            return math.inf if self.power else math.nan
        return 10 * math.log10(Fraction(self.power, cost)) if self.power else -math.inf

    def front(self) -> tuple[Point, ...]:
        """The convex hull of all assignments, from the fewest bits to the least error."""
        return tuple(self.point(*each) for each in front(self.classes))

    def within_bits(self, limit: int) -> Assignment:
        """The least error with so many bits at most."""
        return assign(self.classes, limit)

    def within_error(self, db: float) -> tuple[Assignment, Fraction]:
        """The fewest bits at `db` decibels or more, of those the least error; and a bound on the bits."""
        limit = math.floor(Fraction(self.power) / Fraction(10 ** (db / 10)))
        turned = [[(cost, bits) for bits, cost in options] for options in self.classes]
        least = assign(turned, limit)
        # With the same bits there may be less error still; its proof is one for that number of bits.
        same = assign(self.classes, least.cost)
        return dataclasses.replace(same, proven=same.proven and least.proven), least.bound


def bits_limit(ledger: Ledger, bits: float | str | Fraction) -> int:
    """All bits of a budget per value."""
    return math.floor(_exact("bits", bits) * ledger.values)


def infeasible(
    kind: str, value: float | str | Fraction, ledger: Ledger, kept: int, error: InfeasibleError
) -> ValueError:
    """What to say of a budget that nothing fits into: the least possible."""
    if kind == "bits":
        least = f"{_up(Fraction(error.least, ledger.values))} bits per value"
    elif kind == "size":
        least = f"{(error.least + kept) // 8} bytes"
    else:
        most = ledger.point(0, error.least).db
        least = f"{math.floor(most * 1e4) / 1e4:.4f} dB"
    word = "at most" if kind == "db" else "at least"
    return ValueError(f"{kind} must be {word} {least} with these formats, got {shown(value)}")


def _up(value: Fraction) -> str:
    """Six decimals, rounded up: what is printed is enough."""
    text = f"{math.ceil(value * 10**6) / 10**6:.6f}".rstrip("0")
    return text + "0" if text.endswith(".") else text


def _exact(name: str, value: float | str | Fraction) -> Fraction:
    """The number that was written, not its nearest float."""
    try:
        found = value if isinstance(value, Fraction) else Fraction(str(value))
    except (ValueError, ZeroDivisionError):
        raise ValueError(f"{name} must be a number, got {shown(value)}") from None
    if found <= 0:
        raise ValueError(f"{name} must be positive, got {shown(value)}")
    return found
