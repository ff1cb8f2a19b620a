"""The rules of block formats, by name as the others: on rows of data they are what casting does."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from .._check import shown
from ..casting.block_scales import scales_of
from ..densities.base import Density
from ..grids.block_formats import BlockFormat
from ..grids.block_rules import BLOCK_RULES, LINEAR, OCTAVES
from ..grids.formats import grid as as_grid
from ..grids.grid import Grid
from ..grids.scale_formats import scale_grid
from .base import RuleResult, bounds, fixed_shift, settled_result

NAMES = tuple(name for name in BLOCK_RULES if name != "optimal")


@dataclasses.dataclass(frozen=True)
class BlockRule:
    """A rule of block formats with what was said of it; what was not is as the format has it.

    Called with a density it takes its support as one block.

    Attributes
    ----------
    name : str
        One of `NAMES`; see `qerror.BlockFormat`.
    constants : tuple of float or None
    signed : bool or None

    Examples
    --------
    >>> import qerror as qe
    >>> float(BlockRule("even")(qe.Empirical([0.1, -6.9]), "e2m1").scale)
    1.0
    """

    name: str
    constants: tuple[float, ...] | None = None
    signed: bool | None = None

    def within(self, grid: Grid, scale_format: Grid | None, own: BlockFormat | None = None) -> BlockFormat:
        """The format of this rule: blocks of the elements and scales given, constants and sign those of `own`.

        Scales of any size are powers of two by rules that give these.
        """
        constants, signed = self.constants, self.signed
        if constants is None:
            # The constants of best_of are no other rule's, and the other way round.
            alike = own is not None and (own.rule == "best_of") == (self.name == "best_of")
            constants = own.constants if own is not None and alike else (1.0,)
        if signed is None:
            signed = own is not None and own.signed
        if scale_format is None and self.name in OCTAVES:
            scale_format = scale_grid("pow2")
        constant = constants if self.name == "best_of" or len(constants) > 1 else constants[0]
        return BlockFormat(grid, 1, scale_format, rule=self.name, constant=constant, signed=signed)

    def __call__(self, density: Density, grid: Grid | str, *, shift: Any = 0.0) -> RuleResult:
        """The scale of a block with the support of a density."""
        levels, z = as_grid(grid), fixed_shift(self.name, density, shift)
        if self.name == "best_of":
            raise ValueError("rule best_of compares errors of blocks of data: qerror.fit(x, ..., rule=...) does that")
        low, high = bounds(self.name, density)
        # As signed_absmax: of two values equally far the lower.
        farthest = np.where(high - z > z - low, high - z, low - z)
        return settled_result(density, levels, scales_of(farthest[..., None], self.within(levels, None)), z)


def block_rule(name: str, options: Mapping[str, Any]) -> BlockRule:
    """A rule of block formats with its options constant (of best_of: constants) and signed.

    Examples
    --------
    >>> block_rule("absmax", {"constant": 0.9})
    BlockRule(name='absmax', constants=(0.9,), signed=None)
    """
    known = ["constants" if name == "best_of" else "constant", *(["signed"] if name in LINEAR else [])]
    for option in options:
        if option not in known and not (name == "best_of" and option == "constant"):
            raise ValueError(f"rule {name} has no option {option!r}; it has {', '.join(known)}")
    signed = options.get("signed")
    if signed is not None and not isinstance(signed, bool):
        raise ValueError(f"signed must be true or false, got {shown(signed)}")
    given = options.get("constants", options.get("constant"))
    if given is None:
        return BlockRule(name, None, signed)
    values = tuple(given) if isinstance(given, list) else (given,)
    # As any other format of this rule has it; what is wrong with the numbers is said there.
    checked = BlockFormat("e2m1", 1, "pow2", rule=name, constant=values if name == "best_of" else given)
    return BlockRule(name, checked.constants, signed)
