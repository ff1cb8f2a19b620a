"""Figures of certificates: the pieces that all scales are covered with."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from matplotlib.figure import Figure

from ..certify.certificate import Certificate
from ..certify.shipped import certificates
from ..densities.named import density as as_density
from ..errors.exact import Rounding
from ..errors.quantization import quantization_error
from ..grids.formats import grid as as_grid
from .style import COLORS, GRAY, new_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Colour and words of each kind; the tails s, z and p look alike.
_KINDS = {
    "x": ("#DDDDDD", "x: MSE above the least"),
    "m": (COLORS[4], "m: slope not 0"),
    "v": (COLORS[5], "v: convex, at most one minimum"),
    "s": (COLORS[3], "s, z: tails"),
}
_SHOWN = (("int8", "gaussian"), ("e4m3fn", "gaussian"), ("e4m3fn", "laplace"))


def pieces_of_scales() -> Figure:
    """MSE against the scale, over the pieces of the shipped certificates."""
    figure, panels = new_figure(1, len(_SHOWN), height=2.1, wide=True)
    for ax, (grid, density) in zip(panels, _SHOWN, strict=True):
        covered(ax, certificates()[grid, density, "nearest"], grid, density)
        ax.set(xlabel="scale / std", ylabel="MSE")
    handles, labels = panels[1].get_legend_handles_labels()
    figure.legend(handles, labels, ncols=3, loc="outside lower center")
    return figure


def covered(ax: Axes, proven: Certificate, grid: str, density: str, rounding: Rounding = "nearest") -> None:
    """Draw the pieces of one certificate and the MSE over them."""
    pieces = proven.pieces
    left, right = pieces[0][1] / 2, pieces[-1][0] * 2
    said = set()
    for low, high, kind in pieces:
        color, label = _KINDS.get(kind, _KINDS["s"])
        shown = "" if label in said else label
        said.add(label)
        ax.axvspan(max(low, left), min(high, right), facecolor=color, edgecolor="white", linewidth=0.4, label=shown)
    scales = np.geomspace(left, right, 600)
    mse = quantization_error(as_density(density), as_grid(grid), scales, rounding=rounding).mse
    ax.plot(scales, mse, color="black", linewidth=1.0, label="MSE")
    for scale, _ in proven.minima:
        ax.plot(float(scale.strip("[]").split(" ")[0]), mse.min(), "v", color=COLORS[1], label="the optimum")
    ax.set(xscale="log", yscale="log", xlim=(left, right), title=f"{grid} on {density}: {len(pieces)} pieces")
    ax.grid(False)
    ax.tick_params(color=GRAY)
