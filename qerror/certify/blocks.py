"""The expected error of block formats with stored scales, enclosed: a finite sum of partial moments."""

from __future__ import annotations

from fractions import Fraction
from itertools import pairwise

from .._check import as_int, check_scale
from ..densities.base import Density
from ..densities.named import density as as_density
from ..grids.block_formats import BlockFormat, block_format
from ..grids.block_rules import OCTAVES, octave_end, stored_scales
from .certificate import FORMAT, SCHEMA, CertifiedBlocks
from .checker import arithmetic, block_error, exact, exact_levels
from .proof import claim
from .statement import density_data, short_numbers

_RULES = ("absmax", "up", "down", *OCTAVES)


def certify_block_error(
    density: Density | str, form: BlockFormat | str, scale: float = 1.0, *, digits: int = 30
) -> CertifiedBlocks:
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
    CertifiedBlocks
        Its `mse` is a ball in decimals.

    Raises
    ------
    ValueError
        For other densities and formats.

    Examples
    --------
    >>> from qerror.certify import certify_block_error
    >>> certify_block_error("gaussian", "mxfp4", digits=20).mse
    '[0.013218762253583507924 +/- 5.1e-22]'
    """
    blocks, digits = block_format(form), as_int("digits", digits, 6, 1000)
    if blocks.rule not in _RULES or blocks.scale_format is None or blocks.signed:
        known = f"stored, unsigned scales and one of the rules {', '.join(_RULES)}"
        raise ValueError(f"form must have {known}, got {blocks!r}")
    member = as_density(density)
    if member.has_atoms:
        raise ValueError(f"density must have no point masses, got {member.name!r}")
    said, levels = short_numbers(density_data(member)), short_numbers(blocks.grid.levels.tolist())
    scales, bounds = _shells(blocks, Fraction(float(check_scale(scale))))
    with arithmetic(4 * digits + 100):
        error = block_error(said, exact_levels(levels), [*map(exact, scales)], [*map(exact, bounds)], blocks.block_size)
        mse = claim(error, digits)
    content = {
        "format": f"{FORMAT} of blocks",
        "schema": SCHEMA,
        "density": said,
        "levels": levels,
        "scales": [str(s) for s in scales],
        "bounds": [str(m) for m in bounds],
        "block_size": blocks.block_size,
        "mse": mse,
        "digits": digits,
    }
    return CertifiedBlocks(content)


def _shells(form: BlockFormat, unit: Fraction) -> tuple[list[Fraction], list[Fraction]]:
    """The scales, and between each two the largest magnitude of a block up to which the smaller one is used."""
    assert form.scale_format is not None
    values = [Fraction(value) for value in stored_scales(form.scale_format).tolist()]
    constant = Fraction(form.constants[0])
    if form.rule in OCTAVES:
        factor, between = Fraction(octave_end(form.grid, form.rule)) / 2 / constant, values[1:]
    else:
        factor = Fraction(form.grid.absmax) / constant
        halves = [(a + b) / 2 for a, b in pairwise(values)]
        between = {"absmax": halves, "up": values[:-1], "down": values[1:]}[form.rule]
    return [value * unit for value in values], [m * factor * unit for m in between]
