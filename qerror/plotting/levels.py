"""Levels of grids over a density."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from ..densities.base import Density
from ..densities.named import density as as_density
from ..grids.formats import grid as as_grid
from ..grids.grid import Grid
from .style import COLORS, GRAY, axes

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def levels_over_density(
    density: Density | str,
    scales: Mapping[str, tuple[Grid | str, float, float]],
    *,
    span: float = 3.0,
    ax: Axes | None = None,
) -> Axes:
    """The pdf, and below it a row of ticks for the representable values of each grid.

    Parameters
    ----------
    density : Density or str
    scales : mapping
        By label: grid, scale, shift. Values are shift + scale * levels.
    span : float
        Standard deviations shown on both sides of the mean; values outside are not drawn.
    ax : Axes, optional

    Examples
    --------
    >>> ax = levels_over_density("gaussian", {"INT4": ("int4", 0.34, 0.0)})
    >>> len(ax.collections)
    2
    """
    ax, member = axes(ax), as_density(density)
    mean, std = float(member.mean), float(member.std)
    x = np.linspace(mean - span * std, mean + span * std, 601)
    pdf = member.pdf(x)
    ax.fill_between(x, pdf, color="#E3E9EF", linewidth=0)
    ax.plot(x, pdf, color=GRAY, linewidth=1.0)
    top = float(pdf.max())
    for row, (color, (label, (grid, scale, shift))) in enumerate(zip(COLORS, scales.items(), strict=False)):
        values = shift + scale * as_grid(grid).levels
        shown = values[(values >= x[0]) & (values <= x[-1])]
        middle = -0.17 * top * (row + 1)
        ax.vlines(shown, middle - 0.06 * top, middle + 0.06 * top, color=color, linewidth=0.8)
        beyond = values.size - shown.size
        ax.annotate(
            label + (f"\n({beyond} beyond)" if beyond else ""),
            (1.01, middle), xycoords=("axes fraction", "data"), color=color, va="center", fontsize=7,
        )  # fmt: skip
    ax.set(xlabel="x", ylabel="pdf", xlim=(x[0], x[-1]))
    ax.set_yticks([tick for tick in ax.get_yticks() if 0 <= tick <= top * 1.05])
    ax.grid(visible=False)
    return ax
