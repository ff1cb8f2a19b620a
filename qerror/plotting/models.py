"""Figures of the error models: where they are wrong, and by how much."""

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
from ..literature import audit
from ..rules import as_rule
from ..search.optimal import excess_db, optimal_scale
from .style import COLORS, GRAY, MARKERS, new_figure
from .summaries import audit_losses, predicted_against_simulated
from .uniform import octav_objective

_TITLES = {"gaussian": "Gaussian", "laplace": "Laplace", "student-t:df=5": "Student's t, 5 df"}
BITS = np.arange(2, 9)


def models_of_error(density: str, bits: int, scale: float) -> dict[str, float]:
    """MSE of ``int<bits>_midrise`` at a scale by the models in use, and exactly.

    Parameters
    ----------
    density : str
        Symmetric about 0.
    bits : int
    scale : float
        The step, units of x.

    Returns
    -------
    dict of str to float
        "exact"; "step^2/12" alone, which is 6.02 dB a bit; "StatQAT": clipping beyond the end levels + step^2 / 12;
        "ACIQ": clipping beyond half a step more, + step^2 / 12; "OCTAV": as ACIQ, step^2 / 12 only inside.

    Examples
    --------
    >>> found = models_of_error("gaussian", 4, 0.3352)
    >>> round(found["StatQAT"] / found["exact"], 3)
    1.009
    """
    bits = as_int("bits", bits, 2, MAX_BITS)
    member, grid = as_density(density), as_grid(f"int{bits}_midrise")
    clip = np.asarray(0.5 * scale * 2**bits)
    beyond = 2 * float(member.moments(clip, np.inf, clip)[2])
    return {
        "exact": float(quantization_error(member, grid, scale).mse),
        "step^2/12": scale**2 / 12,
        "StatQAT": float(quantization_error(member, grid, scale, model="high_resolution").mse),
        "ACIQ": beyond + scale**2 / 12,
        "OCTAV": float(octav_objective(density, clip, bits)),
    }


def model_errors() -> Figure:
    """The MSE by each model over the true one, at the best scale of 2^b symmetric levels."""
    figure, panels = new_figure(3, sharey=True)
    for ax, (name, title) in zip(panels, _TITLES.items(), strict=True):
        best = [float(optimal_scale(as_density(name), f"int{b}_midrise").scale) for b in BITS]
        found = [models_of_error(name, int(b), scale) for b, scale in zip(BITS, best, strict=True)]
        ax.axhline(0, color=GRAY, linewidth=0.9)
        for color, marker, model in zip(COLORS, MARKERS, list(found[0])[1:], strict=False):
            ratio = [10 * np.log10(one[model] / one["exact"]) for one in found]
            ax.plot(BITS, ratio, marker=marker, color=color, label=model)
        ax.set(title=title, xlabel="bits")
    panels[0].set_ylabel("MSE by the model / true MSE (dB)")
    panels[0].legend(loc="lower right")
    return figure


def predictions_and_simulations() -> Figure:
    """Predicted MSE at the best scale against a simulation of a million values that knows no formula."""
    figure, ax = new_figure(height=4.2)
    labels, predicted, estimate, stderr = [], [], [], []
    for name, title in _TITLES.items():
        for grid in ("int2", "int4", "int8", "e2m1", "e4m3fn", "nf4"):
            best = optimal_scale(as_density(name), grid)
            found = simulate(as_density(name), grid, best.scale, n=1_000_000, rng=2, sampler="stratified")
            labels.append(f"{title}, {grid}")
            predicted.append(float(best.error.mse))
            estimate.append(float(found.estimate.mse))
            stderr.append(float(found.stderr.mse))
    predicted_against_simulated(labels, predicted, estimate, stderr, ax=ax)
    return figure


def lost_by_models() -> Figure:
    """DB lost by the scale that each formula chooses, on 2^b symmetric levels."""
    figure, panels = new_figure(3, height=3.0, sharey=True)
    rules = {
        "StatQAT, for a Gaussian": "analytic:model=high_resolution",
        "ACIQ, for the family nearer": "aciq:family={}",
        "OCTAV": "octav",
        "4 sigma": None,
    }
    for ax, (name, title) in zip(panels, _TITLES.items(), strict=True):
        family = "gaussian" if name == "gaussian" else "laplace"
        for color, marker, (label, rule) in zip(COLORS, MARKERS, rules.items(), strict=False):
            lost = [_lost(name, int(b), rule and rule.format(family)) for b in BITS]
            ax.plot(BITS, lost, marker=marker, color=color, label=label)
        ax.set(title=title, xlabel="bits", yscale="log", ylim=(1e-8, 30))
    panels[0].set_ylabel("lost against the best scale (dB)")
    figure.legend(*panels[0].get_legend_handles_labels(), ncols=4, loc="outside lower center")
    return figure


def audit_picture() -> Figure:
    """Every published constant that sets something, by the dB it loses."""
    figure, ax = new_figure(wide=True, height=5.6)
    audit_losses(audit(), ax=ax)
    figure.legend(ncols=5, loc="outside lower center")
    return figure


def _lost(density: str, bits: int, rule: str | None) -> float:
    member, grid = as_density(density), as_grid(f"int{bits}_midrise")
    scale: Array | float = 4.0 / grid.absmax if rule is None else as_rule(rule)(member, grid, shift=0.0).scale
    return float(excess_db(member, grid, scale))
