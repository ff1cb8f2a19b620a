"""Figures of uniform grids: where the clip belongs, and what it costs to be elsewhere."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure

from .._check import as_int
from .._types import Array
from ..densities.named import density as as_density
from ..errors.quantization import quantization_error
from ..evidence.simulation import simulate
from ..grids.families import MAX_BITS
from ..grids.formats import grid as as_grid
from ..rules import as_rule
from ..search.optimal import optimal_scale
from .curves import error_against_clip
from .style import COLORS, MARKERS, new_figure

# Few enough that their scatter shows.
_DRAWS = 20_000
_TITLES = {"gaussian": "Gaussian", "laplace": "Laplace"}


def error_of_integers() -> Figure:
    """MSE over the clip at 2, 3 and 4 bits, in its parts: the picture of ACIQ (arXiv 1810.05723, figure 1)."""
    figure, panels = new_figure(2, height=3.0)
    for ax, (name, title) in zip(panels, _TITLES.items(), strict=True):
        widest = {"gaussian": 5.0, "laplace": 7.0}[name]
        grids = [f"int{bits}_midrise" for bits in (2, 3, 4)]
        at = np.linspace(0.5, widest, 10)
        simulated = {
            one: (at, simulate(as_density(name), one, at / as_grid(one).absmax, n=_DRAWS, rng=1)) for one in grids
        }
        error_against_clip(name, grids, np.linspace(0.3, widest, 300), simulated=simulated, ax=ax)
        ax.set(title=title, ylim=(1e-4, 4))
    panels[0].legend(loc="lower right")
    panels[1].set_ylabel("")
    return figure


def clip_against_bits() -> Figure:
    """Optimal clip of symmetric grids over the bits, and its leading growth as the bits increase."""
    figure, ax = new_figure()
    bits = np.arange(2, 13)
    for color, marker, (name, title) in zip(COLORS, MARKERS, _TITLES.items(), strict=False):
        density = as_density(name)
        clips = [optimal_scale(density, as_grid(f"int{b}_midrise")).clip for b in bits]
        ax.plot(bits, clips, marker, color=color, label=title)
        many = np.linspace(2, 12, 200)
        ax.plot(many, asymptotic_clip(name, many), "--", color=color, linewidth=0.9, label=f"{title}, asymptote")
    ax.set(xlabel="bits", ylabel="optimal clip / std")
    ax.legend()
    return figure


def asymptotic_clip(density: str, bits: Array) -> Array:
    """Growth of the optimal clip with the number of levels N, to the order log log N.

    Gaussian: C^2 = 4 ln N - 3 ln ln N + ln(9 / (32 pi)) (leading term: Hui and Neuhoff, IEEE Trans. Inf. Theory 47,
    2001); Laplace: C = (2 ln N - ln(2 ln N) + ln 3) / sqrt(2). Both come from setting the change of the clipping error
    against that of step^2 / 12, with C itself replaced by its leading term where it stands in a logarithm.

    Parameters
    ----------
    density : {"gaussian", "laplace"}
        Of unit variance.
    bits : ndarray
        log2 N.

    Examples
    --------
    >>> asymptotic_clip("laplace", np.array([8.0])).round(3)
    array([6.918])
    """
    log_n = np.asarray(bits, np.float64) * np.log(2)
    if density == "laplace":
        return np.asarray((2 * log_n - np.log(2 * log_n) + np.log(3)) / np.sqrt(2))
    return np.asarray(np.sqrt(np.maximum(4 * log_n - 3 * np.log(log_n) + np.log(9 / (32 * np.pi)), 0)))


def which_integer_grid() -> Figure:
    """DB lost by the integer grids of one width against the best shift of 2^b levels."""
    figure, panels = new_figure(2, sharey=True)
    bits = np.arange(2, 9)
    kinds = {"narrow": "int{}_narrow", "two's complement": "int{}", "midrise": "int{}_midrise"}
    for ax, (name, title) in zip(panels, _TITLES.items(), strict=True):
        density = as_density(name)
        best = np.array([optimal_scale(density, f"int{b}", shift="optimal").error.mse for b in bits])
        for color, marker, (label, form) in zip(COLORS, MARKERS, kinds.items(), strict=False):
            mse = np.array([optimal_scale(density, form.format(b)).error.mse for b in bits])
            ax.plot(bits, 10 * np.log10(mse / best), marker=marker, color=color, label=label)
        ax.set(title=title, xlabel="bits")
    panels[0].set_ylabel("lost against the best shift (dB)")
    panels[1].legend()
    return figure


def octav_curve() -> Figure:
    """MSE over the clip at 4 bits: exact, by OCTAV's objective, and where its recursion ends (arXiv 2206.06501)."""
    figure, panels = new_figure(2, sharey=True)
    grid = as_grid("int4_midrise")
    for ax, (name, title) in zip(panels, _TITLES.items(), strict=True):
        density = as_density(name)
        clips = np.linspace(1.2, 6.0, 300)
        # OCTAV's step is 2 clip / 2^4: its clip lies half a step beyond the end level.
        scales = 2 * clips / 16
        ax.plot(clips, quantization_error(density, grid, scales).mse, color=COLORS[0], label="exact")
        ax.plot(clips, octav_objective(name, clips, 4), "--", color=COLORS[1], label="OCTAV's objective")
        found = as_rule("octav")(density, grid, shift=0.0).scale
        best = optimal_scale(density, grid)
        for scale, marker, color, label in ((best.scale, "o", COLORS[0], "optimum"), (found, "X", COLORS[1], "OCTAV")):
            mse = quantization_error(density, grid, scale).mse
            ax.plot(8 * scale, mse, marker, color=color, markeredgecolor="white", markersize=7, label=label, zorder=4)
        ax.set(title=title, xlabel="clip / std", yscale="log")
    panels[0].set_ylabel("MSE / variance")
    panels[0].legend(loc="upper right")
    return figure


def octav_objective(density: str, clips: Array, bits: int) -> Array:
    """What OCTAV minimizes: 4^-B / 3 clip^2 P(|x| <= clip) + E[(|x| - clip)^2 beyond], on a density symmetric about 0.

    Examples
    --------
    >>> octav_objective("laplace", np.array([0.0]), 4).round(12)
    array([1.])
    """
    member, bits = as_density(density), as_int("bits", bits, 1, MAX_BITS)
    mass, _, second = member.moments(clips, np.inf, clips)
    return np.asarray(4.0**-bits / 3 * clips**2 * (1 - 2 * mass) + 2 * second)
