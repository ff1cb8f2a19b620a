"""The figures of the experiment: functions from records to matplotlib Axes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.ticker import LogLocator, NullFormatter, NullLocator

from ..._types import Array
from ...grids.formats import grid as as_grid
from ...plotting.style import COLORS, GRAY, MARKERS, axes
from .records import Case, Record
from .summary import mean_and_error

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Colours and markers by rule, the same in all figures.
_ORDER = ("minmax", "analytic", "iterative", "octav", "lsq", "optimal")


def _look(rule: str) -> dict[str, Any]:
    number = _ORDER.index(rule)
    return {"color": COLORS[number], "marker": MARKERS[number]}


def _of(records: Sequence[Record], case: Case) -> dict[str, Record]:
    """The records of one setting by rule, in their order."""
    found = {r.case.rule: r for r in records if r.case == Case(*_setting(case), r.case.rule)}
    return {rule: found[rule] for rule in _ORDER if rule in found}


def _setting(case: Case) -> tuple[str, str, bool, str]:
    return case.model, case.start, case.activations, case.grid


def loss_curves(records: Sequence[Record], case: Case, *, ax: Axes | None = None) -> Axes:
    """Training loss against the step by rule, the mean over seeds; that of full precision in grey.

    Parameters
    ----------
    records : sequence of Record
    case : Case
        Its rule does not matter.
    ax : Axes, optional
    """
    ax = axes(ax)
    for record in records:
        if record.case == Case(case.model, case.start, False, "float", "none"):
            ax.plot(record.loss.mean(axis=1), color=GRAY, linewidth=1, label="full precision")
    for rule, record in _of(records, case).items():
        ax.plot(record.loss.mean(axis=1), color=_look(rule)["color"], linewidth=0.9, label=rule)
    ax.set(xlabel="step", ylabel="training loss", yscale="log", title=_title(case))
    ax.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    ax.yaxis.set_major_formatter("{x:g}")
    ax.yaxis.set_minor_formatter(NullFormatter())
    ax.legend(ncols=2)
    return ax


def sqnr_over_training(records: Sequence[Record], case: Case, layer: int, *, ax: Axes | None = None) -> Axes:
    """SQNR of the weights of one layer against the epoch by rule; bars are standard errors over seeds."""
    ax = axes(ax)
    for rule, record in _of(records, case).items():
        points = record.measured_db[:, layer]
        error = points.std(axis=1, ddof=1) / np.sqrt(points.shape[1])
        look = {"markersize": 3, "linewidth": 1, **_look(rule)}
        ax.errorbar(range(len(points)), points.mean(axis=1), error, label=rule, **look)
        name, epochs = record.layers[layer].removesuffix(".weight"), len(points)
        ax.set_xticks(range(0, epochs, max(1, epochs // 5)))
    ax.set(xlabel="epoch", ylabel="SQNR (dB)", title=f"{_title(case)}, layer {name}")
    return ax


def predicted_against_measured(records: Sequence[Record], which: str = "fitted", *, ax: Axes | None = None) -> Axes:
    """Predicted less measured SQNR of every layer, epoch and seed against the measured one, by rule.

    Parameters
    ----------
    records : sequence of Record
    which : {"fitted", "empirical"}
        Predicted from the fitted density, or from the data's own distribution.
    ax : Axes, optional
    """
    ax = axes(ax)
    for rule in _ORDER:
        chosen = [record for record in records if record.case.rule == rule]
        if not chosen:
            continue
        measured = np.concatenate([record.measured_db.ravel() for record in chosen])
        predicted = np.concatenate([_predicted(record, which).ravel() for record in chosen])
        # Beyond 100 dB nothing is left but the rounding of float32.
        measured, predicted = measured[measured < 100], predicted[measured < 100]
        every = max(1, measured.size // 400)
        look = {"linestyle": "", "markersize": 2, "alpha": 0.5, **_look(rule)}
        ax.plot(measured[::every], (predicted - measured)[::every], label=rule, **look)
    ax.axhline(0, color=GRAY, linewidth=0.8)
    ax.set(xlabel="measured SQNR (dB)", ylabel="predicted - measured (dB)", title=f"from the {which} density")
    return ax


def _predicted(record: Record, which: str) -> Array:
    return record.fitted_db if which == "fitted" else record.empirical_db


def accuracy_against_bits(
    records: Sequence[Record], model: str, start: str, *, activations: bool, ax: Axes | None = None
) -> Axes:
    """Test accuracy of every format by rule, the formats in the order of their bits; bars are standard errors.

    The axis is logarithmic in the share of errors.
    """
    ax = axes(ax)
    chosen = [r for r in records if (r.case.model, r.case.start, r.case.activations) == (model, start, activations)]
    grids = sorted({r.case.grid for r in chosen if r.case.grid != "float"}, key=lambda name: (as_grid(name).bits, name))
    for number, rule in enumerate(_ORDER):
        at = {r.case.grid: mean_and_error(100 * r.accuracy[-1]) for r in chosen if r.case.rule == rule}
        known = [name for name in grids if name in at]
        if known:
            x = [grids.index(name) + 0.12 * (number - 2.5) for name in known]
            y, error = zip(*(at[name] for name in known), strict=True)
            ax.errorbar(x, y, error, linestyle="", markersize=3.5, linewidth=1, label=rule, **_look(rule))
    for record in records:
        if record.case == Case(model, start, False, "float", "none"):
            ax.axhline(100 * record.accuracy[-1].mean(), color=GRAY, linewidth=0.8, linestyle="--")
    # 101: accuracies of 100 % have their place too.
    ax.set_yscale("function", functions=(lambda a: -np.log(101 - np.minimum(a, 100)), lambda v: 101 - np.exp(-v)))
    limits = ax.get_ylim()
    ax.set_yticks([0, 25, 50, 70, 80, 85, 90, 93, 95, 97, 99])
    ax.yaxis.set_minor_locator(NullLocator())
    ax.set_ylim(limits)
    ax.set_xticks(range(len(grids)), [f"{name}\n{as_grid(name).bits} bits" for name in grids], fontsize=6)
    what = "weights and activations" if activations else "weights"
    ax.set(ylabel="test accuracy (%)", title=f"{model}, {start}, {what}")
    return ax


def _title(case: Case) -> str:
    return f"{case.model}, {case.start}, {case.grid}{', activations too' if case.activations else ''}"
