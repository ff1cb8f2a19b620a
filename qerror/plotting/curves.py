"""Errors as curves: over the clip, over the scale, over the number of bits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from .._check import as_int
from .._types import Array
from ..densities.base import Density
from ..densities.named import density as as_density
from ..errors.exact import Model
from ..errors.quantization import quantization_error
from ..grids.formats import grid as as_grid
from ..grids.grid import Grid
from ..search.optimal import optimal_scale
from .style import COLORS, GRAY, MARKERS, axes

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def error_against_clip(
    density: Density | str,
    grids: Sequence[Grid | str],
    clips: ArrayLike,
    *,
    simulated: Mapping[str, tuple[ArrayLike, Any]] | None = None,
    ax: Axes | None = None,
) -> Axes:
    """MSE over the clip for several grids: total (solid), rounding (dotted), clipping (dashed), optimum (dot).

    Parameters
    ----------
    density : Density or str
    grids : sequence of Grid or str
    clips : array_like
        scale * max(abs(levels)), units of x.
    simulated : mapping, optional
        By name of the grid: clips, and the `SimulatedTerms` of `qe.simulate` there; drawn with error bars of two
        standard errors.
    ax : Axes, optional

    Examples
    --------
    >>> ax = error_against_clip("gaussian", ["int4_midrise"], [1.0, 2.0, 3.0])
    >>> ax.get_xlabel()
    'clip / std'
    """
    ax, member, x = axes(ax), as_density(density), np.asarray(clips, np.float64)
    clipping = []
    for color, grid in zip(COLORS, map(as_grid, grids), strict=False):
        error = quantization_error(member, grid, x / grid.absmax)
        ax.plot(x, error.mse, color=color, label=_label(grid))
        ax.plot(x, error.rounding, color=color, linestyle=":", linewidth=1.1)
        clipping.append((color, error.clipping))
        best = optimal_scale(member, grid)
        ax.plot(best.clip, best.error.mse, "o", color=color, markeredgecolor="white", zorder=4)
        if simulated and _label(grid) in simulated:
            at, found = simulated[_label(grid)]
            bars = 2 * np.asarray(found.stderr.mse)
            ax.errorbar(at, found.estimate.mse, bars, fmt="x", color=color, markersize=3.5, linewidth=0.8)
    # What is beyond the clip does not depend on the levels inside: symmetric grids share one curve.
    shared = all(np.allclose(curve, clipping[0][1], rtol=1e-9) for _, curve in clipping)
    for color, curve in [(GRAY, clipping[0][1])] if shared else clipping:
        ax.plot(x, curve, color=color, linestyle="--", linewidth=1.1)
    ax.set(xlabel="clip / std", ylabel="MSE / variance", yscale="log")
    _part_legend(ax, "total", "rounding", "clipping", simulated is not None)
    return ax


def sqnr_against_clip(
    density: Density | str,
    grids: Sequence[Grid | str],
    clips: ArrayLike,
    *,
    model: Model | None = "high_resolution",
    ax: Axes | None = None,
) -> Axes:
    """SQNR over the clip: exact (solid, dot at the optimum), and by a model (dashed, cross where it is greatest).

    The cross is at what the model promises there.

    Parameters
    ----------
    density : Density or str
    grids : sequence of Grid or str
    clips : array_like
        Units of x.
    model : {"high_resolution"} or None
        None: only the exact curves.
    ax : Axes, optional

    Examples
    --------
    >>> ax = sqnr_against_clip("gaussian", ["e2m1"], [2.0, 3.0, 4.0], model=None)
    >>> len(ax.lines)
    2
    """
    ax, member, x = axes(ax), as_density(density), np.asarray(clips, np.float64)
    for color, grid in zip(COLORS, map(as_grid, grids), strict=False):
        exact = quantization_error(member, grid, x / grid.absmax)
        ax.plot(x, exact.sqnr_db, color=color, label=_label(grid))
        best = optimal_scale(member, grid)
        ax.plot(best.clip, best.error.sqnr_db, "o", color=color, markeredgecolor="white", zorder=4)
        if model is not None:
            by_model = quantization_error(member, grid, x / grid.absmax, model=model)
            ax.plot(x, by_model.sqnr_db, color=color, linestyle="--", linewidth=0.9)
            chosen = optimal_scale(member, grid, model=model)
            ax.plot(chosen.clip, chosen.error.sqnr_db, "x", color=color, zorder=4)
    ax.set(xlabel="clip / std", ylabel="SQNR (dB)")
    return ax


def sqnr_against_bits(
    series: Mapping[str, tuple[ArrayLike, ArrayLike]],
    *,
    bounds: Mapping[str, tuple[ArrayLike, ArrayLike]] | None = None,
    per_bit: float = 0.0,
    ax: Axes | None = None,
) -> Axes:
    """SQNR over the bits (or the entropy) per value: a marked line for each series, dashed gray ones for bounds.

    Parameters
    ----------
    series, bounds : mapping
        By label: bits, and SQNR in dB.
    per_bit : float
        dB a bit taken off, so that small differences show: 6.02 makes the rate-distortion bound level.
    ax : Axes, optional

    Examples
    --------
    >>> ax = sqnr_against_bits({"int": ([2, 3], [8.3, 13.9])}, bounds={"D(R)": ([2, 3], [12.0, 18.1])})
    >>> ax.get_ylabel()
    'SQNR (dB)'
    """
    ax = axes(ax)
    for style, (label, (bits, decibels)) in zip(("--", "-.", ":"), (bounds or {}).items(), strict=False):
        ax.plot(bits, _less(bits, decibels, per_bit), linestyle=style, color=GRAY, label=label)
    for color, marker, (label, (bits, decibels)) in zip(COLORS, MARKERS, series.items(), strict=False):
        ax.plot(bits, _less(bits, decibels, per_bit), color=color, marker=marker, label=label, markersize=3.5)
    taken = f" less {per_bit:.2f} dB a bit" if per_bit else ""
    ax.set(xlabel="bits per value", ylabel=f"SQNR{taken} (dB)")
    return ax


def mse_landscape(
    density: Density | str,
    grid: Grid | str,
    *,
    octaves: float = 1.5,
    points: int = 1500,
    model: Model | None = None,
    ax: Axes | None = None,
) -> Axes:
    """MSE over the binary logarithm of the clip, with every local minimum of the curve; the global one is filled.

    Parameters
    ----------
    density : Density or str
    grid : Grid or str
    octaves : float
        Shown beyond the first and the last minimum.
    points : int
        Scales at which the curve is computed.
    model : {"high_resolution"}, optional
        Its curve too, dashed.
    ax : Axes, optional

    Examples
    --------
    >>> ax = mse_landscape("gaussian", "e3m0", points=400)
    >>> ax.get_legend_handles_labels()[1]
    ['exact', '4 local minima', 'the best']
    """
    ax, member, levels = axes(ax), as_density(density), as_grid(grid)
    points = as_int("points", points, 3, 1_000_000)
    best = optimal_scale(member, levels)
    found = np.log2([minimum.scale * levels.absmax for minimum in best.minima])
    x = np.linspace(found.min() - octaves, found.max() + octaves, points)
    scales = 2.0**x / levels.absmax
    curve = np.asarray(quantization_error(member, levels, scales).mse)
    ax.plot(x, curve, color=COLORS[0], label="exact")
    if model is not None:
        ax.plot(x, quantization_error(member, levels, scales, model=model).mse, "--", color=COLORS[1], label="model")
    # Read off the curve: the search lists only one of the copies, an octave apart, whose errors agree within 1e-12.
    low = np.flatnonzero((curve[1:-1] < curve[:-2]) & (curve[1:-1] <= curve[2:])) + 1
    label = f"{low.size} local minima"
    ax.plot(x[low], curve[low], "o", color=COLORS[0], markerfacecolor="white", label=label)
    ax.plot(found[:1], [best.error.mse], "o", color=COLORS[0], zorder=4, label="the best")
    ax.set(xlabel="log2(clip / std)", ylabel="MSE / variance")
    return ax


def _less(bits: ArrayLike, decibels: ArrayLike, per_bit: float) -> Array:
    return np.asarray(decibels, np.float64) - per_bit * np.asarray(bits, np.float64)


def _label(grid: Grid) -> str:
    return grid.name or repr(grid)


def _part_legend(ax: Axes, total: str, rounding: str, clipping: str, simulated: bool) -> None:
    """What the line styles mean, behind the colours of the grids."""
    for label, style in ((total, "-"), (rounding, ":"), (clipping, "--")):
        ax.plot([], [], color=GRAY, linestyle=style, linewidth=1.1, label=label)
    if simulated:
        ax.plot([], [], "x", color=GRAY, markersize=3.5, label="simulated")
