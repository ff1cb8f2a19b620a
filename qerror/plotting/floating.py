"""Figures of floating grids: StatQAT's two, landscapes with many minima, the FP8 study."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure

from ..densities.base import Density
from ..densities.named import density as as_density
from ..densities.parametric import Gaussian
from ..densities.shaped import GeneralizedGaussian
from ..errors.quantization import quantization_error
from ..grids.families import float_grid
from ..grids.formats import grid as as_grid
from ..grids.grid import Grid
from ..rules import as_rule
from ..search.optimal import optimal_scale
from .curves import mse_landscape, sqnr_against_clip
from .levels import levels_over_density
from .style import COLORS, new_figure
from .summaries import best_format_against_tail, sqnr_report

_FP8_DENSITIES = {"uniform": "uniform", "Gaussian": "gaussian", "Student's t, 8 df": "student-t:df=8"}


def statqat_levels() -> Figure:
    """Levels of E2M1, E3M0 and INT4 at StatQAT's analytic scale over N(0.5, 1) (arXiv 2605.17745)."""
    figure, ax = new_figure()
    density = Gaussian(0.5, 1.0)
    rule = as_rule("analytic:model=high_resolution")
    scales = {}
    for name in ("e2m1", "e3m0", "int4_midrise"):
        found = rule(density, as_grid(name), shift="mean")
        scales[name] = (name, float(found.scale), float(found.shift))
    levels_over_density(density, scales, ax=ax)
    ax.set(title="levels at StatQAT's scales, N(0.5, 1)")
    return figure


def statqat_sqnr() -> Figure:
    """SQNR over the clip from 1 to 10 std on a Gaussian: exact, and by StatQAT's model (arXiv 2605.17745)."""
    figure, ax = new_figure(wide=True, height=4.2)
    names = ("nf4", "sf4", "e3m0", "e2m1", "int4_midrise", "int3_midrise", "int2_midrise")
    sqnr_against_clip("gaussian", names, np.linspace(1, 10, 500), ax=ax)
    grid = as_grid("e3m0")
    chosen = optimal_scale(Gaussian(), grid, model="high_resolution")
    reached = quantization_error(Gaussian(), grid, chosen.scale).sqnr_db
    best = optimal_scale(Gaussian(), grid)
    ax.annotate(
        f"e3m0: the model takes this basin,\n{best.error.sqnr_db - reached:.2f} dB below the best one",
        (float(chosen.clip), float(reached)), (1.15, -3.5), fontsize=7, color=COLORS[2],
        arrowprops={"arrowstyle": "->", "color": COLORS[2], "linewidth": 0.8},
    )  # fmt: skip
    ax.plot([], [], "--", color="#777777", linewidth=0.9, label="high-resolution model")
    ax.set(xlim=(1, 10), ylim=(-9, 21))
    ax.legend(ncols=2, loc="upper right")
    return figure


def fp8_landscapes() -> Figure:
    """MSE of E4M3 and E5M2 over the logarithm of the clip: nearly equal minima an octave apart."""
    figure, panels = new_figure(2)
    for ax, name in zip(panels, ("e4m3fn", "e5m2"), strict=True):
        mse_landscape("gaussian", name, points=3000, ax=ax)
        best = float(optimal_scale(Gaussian(), name).error.mse)
        # The wiggle is what matters: the branch of small clips leaves the picture.
        ax.set(title=f"{name}, Gaussian", ylim=(0.99 * best, 1.1 * best))
        ax.ticklabel_format(axis="y", style="sci", scilimits=(0, 0))
        ax.legend(loc="upper center")
    return figure


def fp8_splits() -> dict[str, Grid]:
    """The 8-bit formats of the FP8 study (arXiv 2208.09225), its 5E2M to 2E5M: no code stands for infinity or NaN."""
    # The names e5m2, e4m3fn, e3m4 are those of formats that reserve codes.
    splits = {f"e{e}m{7 - e} finite": float_grid(e, 7 - e) for e in (5, 4, 3)}
    return {**splits, "e2m5": as_grid("e2m5"), "int8": as_grid("int8")}


def fp8_study() -> Figure:
    """SQNR of the 8-bit splits and INT8 at their best scales on three densities."""
    figure, ax = new_figure()
    splits = fp8_splits()
    found = {label: _decibels(as_density(name), splits) for label, name in _FP8_DENSITIES.items()}
    sqnr_report(list(splits), found, ax=ax)
    ax.legend(loc="upper right")
    return figure


def best_split() -> Figure:
    """SQNR of the 8-bit splits over the tail weight of a generalized Gaussian: each has its range."""
    figure, ax = new_figure(height=3.1)
    inverse = np.linspace(0.05, 2.0, 40)
    splits = fp8_splits()
    columns = [_decibels(GeneralizedGaussian(1 / one), splits) for one in inverse]
    lines = dict(zip(splits, np.transpose(columns), strict=True))
    xlabel = "tail weight 1/beta (0.5: Gaussian, 1: Laplace)"
    best_format_against_tail(inverse, lines, xlabel=xlabel, ax=ax)
    ax.set(ylim=(20, 51))
    ax.legend(ncols=3, loc="lower left")
    return figure


def _decibels(density: Density, grids: dict[str, Grid]) -> list[float]:
    return [float(optimal_scale(density, grid).error.sqnr_db) for grid in grids.values()]
