"""The expected error of block formats with stored scales, enclosed: a finite sum of partial moments."""

from __future__ import annotations

from fractions import Fraction
from itertools import pairwise

from flint import arb

from .._check import as_int, check_scale
from ..densities.base import Density
from ..densities.named import density as as_density
from ..grids.block_formats import BlockFormat, block_format
from ..grids.block_rules import OCTAVES, octave_end, stored_scales
from .checker import Part, arithmetic, ball, parts_of
from .proof import claim
from .statement import density_data

_RULES = ("absmax", "up", "down", *OCTAVES)


def certify_block_error(
    density: Density | str, form: BlockFormat | str, scale: float = 1.0, *, digits: int = 30
) -> str:
    """Enclose the expected squared error of a value in a block, rounded to nearest.

    With n = B - 1, A(m) = P(|x| <= m) and scale s_j where m_j < M <= m_(j+1), M the largest magnitude of the block,
    E = sum_j A(m_(j+1))^n C_j(m_(j+1)) - A(m_j)^n C_j(m_j), C_j(m) = E[(x - s_j Q(x / s_j))^2; |x| <= m].

    Parameters
    ----------
    density : Density or str
        As for `certify`, but without point masses.
    form : BlockFormat or str
        With stored, unsigned scales and a rule that reads the largest magnitude: absmax, up, down, floor, ceil, even,
        rceil. Formats of many scales (FP16, BF16) take a minute.
    scale : float
        The tensor scale.
    digits : int
        Correct digits, 6 to 1000.

    Returns
    -------
    str
        A ball in decimals.

    Raises
    ------
    ValueError
        For other densities and formats.

    Examples
    --------
    >>> from qerror.certify import certify_block_error
    >>> certify_block_error("gaussian", "mxfp4", digits=20)
    '[0.013218762253583507924 +/- 5.1e-22]'
    """
    blocks, digits = block_format(form), as_int("digits", digits, 6, 1000)
    if blocks.rule not in _RULES or blocks.scale_format is None or blocks.signed:
        known = f"stored, unsigned scales and one of the rules {', '.join(_RULES)}"
        raise ValueError(f"form must have {known}, got {blocks!r}")
    member = as_density(density)
    if member.has_atoms:
        raise ValueError(f"density must have no point masses, got {member.name!r}")
    said = density_data(member)
    unit = Fraction(float(check_scale(scale)))
    with arithmetic(4 * digits + 100):
        error = _Blocks(parts_of(said, arb(1)), blocks, unit).error()
        return claim(error, digits)


class _Blocks:
    """Sums over the shells m_j < M <= m_(j+1)."""

    def __init__(self, parts: list[Part], form: BlockFormat, unit: Fraction) -> None:
        assert form.scale_format is not None
        self.parts, self.others = parts, form.block_size - 1
        self.levels = [Fraction(level) for level in form.grid.levels.tolist()]
        self.middles = [(a + b) / 2 for a, b in pairwise(self.levels)]
        values = [Fraction(value) for value in stored_scales(form.scale_format).tolist()]
        constant = Fraction(form.constants[0])
        if form.rule in OCTAVES:
            factor, between = Fraction(octave_end(form.grid, form.rule)) / 2 / constant, values[1:]
        else:
            factor = Fraction(form.grid.absmax) / constant
            halves = [(a + b) / 2 for a, b in pairwise(values)]
            between = {"absmax": halves, "up": values[:-1], "down": values[1:]}[form.rule]
        self.bounds, self.scales = [m * factor * unit for m in between], [value * unit for value in values]

    def error(self) -> arb:
        """The whole sum; beyond the last bound all is M, with the largest scale."""
        total, bounds = arb(0), [Fraction(0), *self.bounds, None]
        for s, (inner, outer) in zip(self.scales, pairwise(bounds), strict=True):
            if inner == outer:
                continue
            for sign, m in ((1, outer), (-1, inner)):
                if m != 0:
                    total += sign * self._inside(m) ** self.others * self._loss(s, m)
        return total

    def _inside(self, m: Fraction | None) -> arb:
        """A(m)."""
        if m is None:
            return arb(1)
        sides = ((Fraction(m), True), (-m, False))
        return 1 - sum((part.weight * part.tail(ball(p), up)[0] for part in self.parts for p, up in sides), arb(0))

    def _loss(self, s: Fraction, m: Fraction | None) -> arb:
        """C(m) at scale s."""
        levels, edges = (self.levels, [s * t for t in self.middles]) if s else ([Fraction(0)], [])
        if m is not None:
            edges = [max(min(edge, m), -m) for edge in edges]
        ends = [None if m is None else -m, *edges, m]
        cells = zip(levels, pairwise(ends), strict=True)
        return sum((self._cell(a, b, s * level) for level, (a, b) in cells if a != b or a is None), arb(0))

    def _cell(self, a: Fraction | None, b: Fraction | None, q: Fraction) -> arb:
        """E[(x - q)^2; a < x < b]: by the tails on one side of 0, or by all less the tails on both."""
        if a is not None and a >= 0:
            return self._tail(a, q, True) - self._tail(b, q, True)
        if b is not None and b <= 0:
            return self._tail(b, q, False) - self._tail(a, q, False)
        about = ball(q)
        whole = sum((p.weight * (p.square - 2 * about * p.first + about * about) for p in self.parts), arb(0))
        return whole - self._tail(a, q, False) - self._tail(b, q, True)

    def _tail(self, p: Fraction | None, q: Fraction, up: bool) -> arb:
        """E[(x - q)^2; x > p], or of x < p; nothing where p is None."""
        if p is None:
            return arb(0)
        gap = ball(p - q if up else q - p)
        found = ((part.weight, part.tail(ball(p), up, True)) for part in self.parts)
        return sum((w * (second + 2 * gap * over + gap * gap * mass) for w, (mass, over, second) in found), arb(0))
