"""What a quantizer may be asked for: rules that know its grid or block format, and their constants."""

from __future__ import annotations

import functools
import math
from typing import Any

from .._check import shown, suggest
from ..densities.named import density as as_density
from ..grids.block_formats import BlockFormat
from ..grids.block_rules import BLOCK_RULES
from ..grids.grid import Grid
from ..rules import octav as octav_is_defined_on
from ..search.optimal import optimal_scale
from ..tables.reading import load_table
from .rules import RULES


def by_rule(form: BlockFormat, rule: str | None, **left_out: Any) -> BlockFormat:
    """The block format with another rule, if one is given; the other options have to be None."""
    for option, value in left_out.items():
        if value is not None:
            remedy = "BlockFormat.replace changes its parts"
            raise ValueError(f"{option} must be left out with block format {form.name}, got {shown(value)}; {remedy}")
    if rule is None or rule == form.rule:
        return form
    if rule not in BLOCK_RULES:
        hint = suggest(str(rule), BLOCK_RULES) or f"; known are {', '.join(BLOCK_RULES)}"
        raise ValueError(f"unknown rule {shown(rule)} of block formats{hint}")
    return form.replace(rule=rule)


def check_rule(rule: str, grid: Grid) -> str:
    """The rule, if it is one that is defined on the grid."""
    if rule not in RULES:
        hint = suggest(str(rule), RULES) or f"; known are {', '.join(RULES)}"
        raise ValueError(f"unknown rule {shown(rule)}{hint}")
    unsigned = grid.step is not None and grid.min == 0 and len(grid) == 2**grid.bits
    if rule == "octav" and not unsigned:
        octav_is_defined_on(as_density("gaussian"), grid)
    if rule == "lsq" and grid.max <= 0:
        raise ValueError(f"rule lsq needs a positive level, got {grid!r}")
    return rule


@functools.lru_cache(maxsize=256)
def constant_of(grid: Grid, family: Any) -> float:
    """The best scale of a family at unit power: from the table, or searched once where the table has it not."""
    try:
        row = load_table().lookup(grid, family)
        return row.scale / math.sqrt(row.power)
    except ValueError:
        best = optimal_scale(as_density(family), grid)
        return float(best.scale) / math.sqrt(float(best.error.power))
