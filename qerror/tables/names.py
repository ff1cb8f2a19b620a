"""Grids and densities under the names by which a table holds them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from ..densities.base import Density
from ..densities.named import density as as_density
from ..grids.block_formats import BlockFormat, as_format
from ..grids.grid import Grid


def by_name(what: str, members: Iterable[Any], named: Callable[[Any], tuple[str, Any]]) -> dict[str, Any]:
    """Members by their names; `named` gives the name and the value of each."""
    if isinstance(members, (str, Grid, BlockFormat, Density)):
        raise ValueError(f"{what} must be a list, got {members!r}; put it in brackets")
    found: dict[str, Any] = {}
    for name, member in map(named, members):
        if name in found and not _same(member, found[name]):
            raise ValueError(f"{what} must have names of their own, got two different ones named {name!r}")
        found[name] = member
    if not found:
        raise ValueError(f"{what} must name at least one, got none")
    return found


def _same(one: Any, other: Any) -> bool:
    """Grids are compared by their levels; the name of a density says all unless it only labels data or a function."""
    if one is other or one == other:
        return True
    try:
        return isinstance(one, Density) and as_density(one.name) is not None
    except ValueError:
        return False


def named_grid(grid: Grid | BlockFormat | str) -> tuple[str, Grid | BlockFormat]:
    """The grid or block format and its name, which must be its own."""
    levels = as_format(grid)
    if not levels.name:
        raise ValueError(f"grids must have names, got {levels!r}; write qe.Grid(levels, name='mine')")
    if not isinstance(grid, str) and _is_format(levels.name) and as_format(levels.name) != levels:
        raise ValueError(f"the name {levels.name!r} is that of another grid; give {levels!r} one of its own")
    return levels.name, levels


def named_density(density: Density | str) -> tuple[str, Density]:
    """The density and its name."""
    member = as_density(density)
    if member.shape:
        raise ValueError(f"densities must have shape (), got {member.shape} for {member.name!r}; list its members")
    return member.name, member


def _is_format(name: str) -> bool:
    try:
        as_format(name)
    except ValueError:
        return False
    return True


def is_block_format(name: str) -> bool:
    """Whether a name is that of a block format (of a table's own grids it is not)."""
    try:
        return isinstance(as_format(name), BlockFormat)
    except ValueError:
        return False


def grid_name(grid: Grid | BlockFormat | str, known: Sequence[str]) -> str:
    """The name under which a table that has `known` would hold the grid."""
    if isinstance(grid, str) and (grid in known or not _is_format(grid)):
        return grid
    return named_grid(grid)[0]


def density_name(density: Density | str, known: Sequence[str]) -> str:
    """The name under which a table that has `known` would hold the density."""
    if isinstance(density, str) and density in known:
        return density
    return named_density(density)[0]
