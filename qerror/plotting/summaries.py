"""What came out, of many cases at once: best formats, predictions against simulations, rules, tensors, constants."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from ..literature import AuditRow, Verdict
from .style import COLORS, GRAY, MARKERS, axes

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def best_format_against_tail(
    tails: ArrayLike, decibels: Mapping[str, ArrayLike], *, xlabel: str, ax: Axes | None = None
) -> Axes:
    """SQNR of several formats over a measure of tail weight; a strip above says which is best where.

    Parameters
    ----------
    tails : array_like, shape (n,)
        Increasing.
    decibels : mapping
        By format: SQNR in dB, shape (n,).
    xlabel : str
        What `tails` measures.
    ax : Axes, optional

    Examples
    --------
    >>> ax = best_format_against_tail([0.0, 1.0], {"int8": [40.0, 30.0], "e4m3": [32.0, 31.5]}, xlabel="kurtosis")
    >>> [text.get_text() for text in ax.texts]
    ['int8', 'e4m3']
    """
    ax, x = axes(ax), np.asarray(tails, np.float64)
    names, height = list(decibels), np.array([np.asarray(line, np.float64) for line in decibels.values()])
    marked = np.unique(np.linspace(0, x.size - 1, 9)[1:-1].round().astype(int)).tolist()
    for color, marker, name, line in zip(COLORS, MARKERS, names, height, strict=False):
        ax.plot(x, line, color=color, marker=marker, markevery=marked, label=name)
    winner = height.argmax(axis=0)
    last = np.flatnonzero(np.diff(winner))
    bounds = [x[0], *(_crossing(x[i : i + 2], height[winner[i], i : i + 2] - height[winner[i + 1], i : i + 2])
                      for i in last), x[-1]]  # fmt: skip
    for which, start, end in zip(winner[[*last, -1]].tolist(), bounds[:-1], bounds[1:], strict=True):
        ax.axvspan(start, end, ymin=0.955, ymax=1.0, color=COLORS[which], alpha=0.85, linewidth=0)
        ax.annotate(
            names[which], (0.5 * (start + end), 0.94), xycoords=("data", "axes fraction"), ha="center", va="top",
            fontsize=7, color=COLORS[which],
        )  # fmt: skip
    ax.set(xlabel=xlabel, ylabel="SQNR (dB)", xlim=(x[0], x[-1]))
    return ax


def predicted_against_simulated(
    labels: Sequence[str], predicted: ArrayLike, estimate: ArrayLike, stderr: ArrayLike, *, ax: Axes | None = None
) -> Axes:
    """Simulated over predicted error, case by case, with error bars of two standard errors.

    Parameters
    ----------
    labels : sequence of str
        One a case.
    predicted, estimate, stderr : array_like, shape (n,)
        Of one term of the error, such as the MSE.
    ax : Axes, optional

    Examples
    --------
    >>> ax = predicted_against_simulated(["int4"], [0.0119], [0.0118], [0.0001])
    >>> ax.get_xlabel().splitlines()
    ['simulated / predicted - 1 (%)', 'bars: two standard errors']
    """
    ax = axes(ax)
    expected = np.asarray(predicted, np.float64)
    at = np.arange(len(labels))[::-1]
    deviation = 100 * (np.asarray(estimate) / expected - 1)
    bars = 200 * np.asarray(stderr) / expected
    ax.axvline(0, color=GRAY, linewidth=0.9)
    ax.errorbar(deviation, at, xerr=bars, fmt="o", color=COLORS[0], markersize=3.5, linewidth=1.0)
    ax.set(xlabel="simulated / predicted - 1 (%)\nbars: two standard errors", yticks=at, yticklabels=list(labels))
    ax.grid(visible=False, axis="y")
    return ax


def lost_by_rule(lost: Mapping[str, ArrayLike], *, at_most: float = np.inf, ax: Axes | None = None) -> Axes:
    """DB lost by each rule, one dot a tensor, a black bar at the median; best rule on top.

    Parameters
    ----------
    lost : mapping
        By rule: dB lost against the optimal scale, shape (n,).
    at_most : float
        Right end of the axis; a triangle there stands for what lies beyond.
    ax : Axes, optional

    Examples
    --------
    >>> ax = lost_by_rule({"minmax": [1.0, 2.0], "optimal": [0.0, 0.0]})
    >>> [label.get_text() for label in ax.get_yticklabels()]
    ['optimal', 'minmax']
    """
    ax = axes(ax)
    rows = sorted(((name, np.asarray(values, np.float64)) for name, values in lost.items()), key=_median_and_mean)
    beyond = []
    for at, (_, values) in enumerate(rows):
        # A fixed spread upwards and downwards, so that equal losses stay apart.
        spread = 0.28 * (np.arange(values.size) % 5 - 2) / 2
        inside = values <= at_most
        dots: dict[str, Any] = {"markersize": 2.6, "alpha": 0.55, "markeredgewidth": 0}
        ax.plot(values[inside], at + spread[inside], "o", color=COLORS[0], **dots)
        # One entry of the legend for all rows.
        label = None if at else "median"
        ax.plot(2 * [min(np.median(values), at_most)], [at - 0.4, at + 0.4], color="black", linewidth=1.6, label=label)
        if not inside.all():
            beyond.append((np.full((~inside).sum(), at_most), at + spread[~inside]))
    if beyond:
        x, y = np.hstack(beyond)
        ax.plot(x, y, linestyle="", marker=">", color=COLORS[1], markersize=3.5, label=f"beyond {at_most:g} dB")
    labels = [name.replace(":", ":\n") for name, _ in rows]
    ax.set(xlabel="lost (dB)", yticks=range(len(rows)), yticklabels=labels)
    ax.invert_yaxis()
    ax.grid(visible=False, axis="y")
    return ax


def sqnr_report(names: Sequence[str], decibels: Mapping[str, ArrayLike], *, ax: Axes | None = None) -> Axes:
    """SQNR of every tensor of a checkpoint (or of every format), a mark for each rule, prediction or density.

    Parameters
    ----------
    names : sequence of str
        Rows, top to bottom.
    decibels : mapping
        By label: SQNR in dB, shape (n,).
    ax : Axes, optional

    Examples
    --------
    >>> ax = sqnr_report(["w"], {"optimal": [18.5], "minmax": [15.0]})
    >>> ax.get_xlabel()
    'SQNR (dB)'
    """
    ax, at = axes(ax), np.arange(len(names))
    for row in at[::2]:
        ax.axhspan(row - 0.5, row + 0.5, color="#F3F3F3", linewidth=0, zorder=0)
    # Equal values stay apart: each kind of mark has a height of its own in its row.
    offsets = np.linspace(-0.2, 0.2, len(decibels))
    for color, marker, (name, line), offset in zip(COLORS, MARKERS, decibels.items(), offsets, strict=False):
        ax.plot(line, at + offset, linestyle="", marker=marker, color=color, label=name, markersize=3.8)
    ax.set(xlabel="SQNR (dB)", yticks=at, yticklabels=list(names), ylim=(len(at) - 0.5, -0.5))
    ax.grid(visible=False, axis="y")
    return ax


def audit_losses(rows: Sequence[AuditRow], *, least: float = 1e-6, ax: Axes | None = None) -> Axes:
    """DB lost by using published constants, one dot a number, a line for each entry, colours by verdict.

    Parameters
    ----------
    rows : sequence of AuditRow
        Numbers without a loss are left out.
    least : float
        Left end of the axis; smaller losses are drawn there.
    ax : Axes, optional

    Examples
    --------
    >>> from qerror.literature import audit, entries
    >>> ax = audit_losses(audit([entry for entry in entries() if entry.name == "NF3"]))
    >>> [label.get_text() for label in ax.get_yticklabels()]
    ['NF3']
    """
    ax = axes(ax)
    kept = [row for row in rows if row.lost_db is not None]
    names = list(dict.fromkeys(row.name for row in kept))
    for color, marker, verdict in zip(COLORS, MARKERS, Verdict, strict=False):
        chosen = [row for row in kept if row.verdict is verdict]
        lost = [max(float(row.lost_db or 0.0), least) for row in chosen]
        at = [names.index(row.name) for row in chosen]
        if not chosen:
            continue
        ax.plot(lost, at, linestyle="", marker=marker, color=color, alpha=0.8, label=verdict.name.lower())
    # To the digits printed: a rounded number may lie below the best by its rounding.
    beyond = [row for row in kept if row.verdict is Verdict.OFF and row.lost_db is not None and row.lost_db < 0]
    ax.plot([least] * len(beyond), [names.index(row.name) for row in beyond], linestyle="", marker="<", markersize=8,
            color="black", markerfacecolor="none", label="better than possible")  # fmt: skip
    ax.set(xscale="log", yticks=range(len(names)), yticklabels=names)
    ax.set_xlabel(f"lost against the best (dB; $10^{{{np.log10(least):.0f}}}$ and less at the left end)")
    ax.set_ylim(len(names) - 0.5, -0.5)
    return ax


def _crossing(x: Any, ahead: Any) -> float:
    """Where a lead, linear between two points, is used up."""
    return float(x[0] + (x[1] - x[0]) * ahead[0] / (ahead[0] - ahead[1]))


def _median_and_mean(row: tuple[str, Any]) -> tuple[float, float]:
    return float(np.median(row[1])), float(np.mean(row[1]))
