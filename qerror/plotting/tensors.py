"""Figures of real tensors: theory against data, and what the scale rules lose."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from ..densities.estimation import fit_density
from ..densities.parametric import Gaussian
from ..errors.quantization import quantization_error
from ..files.checkpoint import example_checkpoint, open_checkpoint
from ..grids.formats import grid as as_grid
from ..rules import as_rule
from ..samples.empirical import Empirical
from ..search.optimal import optimal_scale
from ..tensors.fitting import evaluate, fit
from .style import COLORS, GRAY, MARKERS, new_figure
from .summaries import lost_by_rule, sqnr_report

RULES = ("minmax", "percentile:p=99.9", "analytic", "analytic:model=high_resolution", "aciq", "octav", "sawb",
         "shrink_search", "iterative")  # fmt: skip
_FORMATS = ("int4", "e2m1", "nf4", "int8", "e4m3fn")


def example_tensors(kind: str = "weight") -> dict[str, NDArray[Any]]:
    """The tensors of the shipped network: its weights, or the inputs of its layers.

    Examples
    --------
    >>> list(example_tensors())
    ['layers.0.weight', 'layers.1.weight', 'layers.2.weight']
    """
    with open_checkpoint(example_checkpoint()) as checkpoint:
        return {info.name: checkpoint[info.name] for info in checkpoint.tensors if info.name.endswith(f".{kind}")}


def rule_losses(
    tensors: Mapping[str, NDArray[Any]], grid: str, rules: tuple[str, ...] = RULES, *, by_row: bool = True
) -> dict[str, NDArray[np.float64]]:
    """DB lost by each rule that is defined on a grid, for every tensor, or every row of every tensor.

    Parameters
    ----------
    tensors : mapping of str to ndarray
    grid : str
    rules : tuple of str
        As `qe.fit` takes them.
    by_row : bool
        One scale for each slice of axis 0, else one for each tensor.

    Examples
    --------
    >>> lost = rule_losses({"w": np.array([[-1.0, 0.1, 1.0]])}, "int4", ("minmax", "octav"))
    >>> sorted(lost)
    ['minmax', 'octav']
    """
    chosen = [rule for rule in rules if _is_defined(rule, grid)]
    lost: dict[str, list[NDArray[np.float64]]] = {rule: [] for rule in chosen}
    for values in tensors.values():
        # One sorted sample and one search for all rules: `fit` would search anew for each.
        rows = Empirical(values.reshape(len(values) if by_row else 1, -1), axis=0)
        best = np.asarray(optimal_scale(rows, grid).error.mse)
        for rule in chosen:
            scale = as_rule(rule)(rows, as_grid(grid), shift=0.0).scale
            mse = np.asarray(quantization_error(rows, grid, scale).mse)
            # Where both are 0 nothing is lost, where only the best is, all.
            with np.errstate(divide="ignore"):
                ratio = np.divide(mse, best, out=np.ones_like(mse), where=mse > best)
            lost[rule].append(10 * np.log10(ratio))
    return {rule: np.concatenate(values) for rule, values in lost.items()}


def _is_defined(rule: str, grid: str) -> bool:
    """Whether a rule knows a grid: ACIQ, OCTAV and SAWB are for integers only."""
    try:
        as_rule(rule)(Empirical([-1.0, 0.5, 1.0]), as_grid(grid), shift=0.0)
    except ValueError:
        return False
    return True


def rules_on_tensors() -> Figure:
    """DB lost by each rule on the rows of the shipped network's weights, at INT4 and E2M1."""
    figure, panels = new_figure(2, height=3.2)
    for ax, grid in zip(panels, ("int4", "e2m1"), strict=True):
        lost_by_rule(rule_losses(example_tensors(), grid), at_most=4.0, ax=ax)
        ax.set(title=f"{grid}, 170 rows of weights")
    figure.legend(*panels[0].get_legend_handles_labels(), ncols=2, loc="outside lower center")
    return figure


def theory_against_data(tensors: Mapping[str, NDArray[Any]] | None = None) -> Figure:
    """What the best scale of a fitted density reaches on the data, less the SQNR that the density promises."""
    figure, ax = new_figure(height=3.0)
    chosen = example_tensors() if tensors is None else tensors
    points: dict[str, list[tuple[float, float]]] = {name: [] for name in _FORMATS}
    for values in chosen.values():
        family, variance = fit_density(values.ravel()), float(np.var(values, dtype=np.float64))
        for name in _FORMATS:
            best = optimal_scale(family, as_grid(name), shift="mean")
            reached = evaluate(values, name, best.scale, best.shift).error.mse
            points[name].append((float(best.error.mse / family.std**2), float(reached) / variance))
    for color, marker, (name, pairs) in zip(COLORS, MARKERS, points.items(), strict=False):
        promised, found = -10 * np.log10(np.array(pairs)).T
        ax.plot(promised, found - promised, linestyle="", marker=marker, color=color, label=name, alpha=0.85)
    ax.axhline(0, color=GRAY, linewidth=0.9, zorder=1)
    ax.set(xlabel="SQNR promised by the fitted density (dB)", ylabel="reached on the data, less promised (dB)")
    ax.legend(loc="lower left")
    return figure


def tensors_report(tensors: Mapping[str, NDArray[Any]] | None = None, grid: str = "int4") -> Figure:
    """SQNR of every tensor of a checkpoint: the optimum, what theory promises, and the scale that clips nothing."""
    chosen = {**example_tensors(), **example_tensors("input")} if tensors is None else tensors
    found: dict[str, list[float]] = {"minmax": [], "Gaussian theory": [], "fitted density": [], "optimal": []}
    for values in chosen.values():
        for rule in ("minmax", "optimal"):
            found[rule].append(float(fit(values, grid, rule=rule).error.sqnr_db))
        for label, family in (("Gaussian theory", Gaussian()), ("fitted density", fit_density(values.ravel()))):
            found[label].append(float(optimal_scale(family, grid).error.sqnr_db))
    figure, ax = new_figure(wide=True, height=0.9 + 0.22 * len(chosen))
    sqnr_report(list(chosen), found, ax=ax)
    ax.set(title=f"{grid}, one scale a tensor")
    ax.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
    return figure
