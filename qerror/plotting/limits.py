"""Figures of limits: how far formats are from what is possible, and which step loses what."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from ..densities.base import Density
from ..densities.named import density as as_density
from ..errors.octaves import as_met
from ..errors.quantization import quantization_error
from ..grids.block_formats import BlockFormat, as_format
from ..limits.entropy_coded import entropy_coded
from ..limits.entropy_coded_formats import entropy_coded_format
from ..limits.ladder import loss_ladder
from ..limits.rate_distortion import rate_distortion as limit_of
from ..results import LossLadder
from ..search.lloyd_max import lloyd_max
from ..search.optimal import optimal_scale
from .style import COLORS, GRAY, MARKERS, axes, new_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_TITLES = {"gaussian": "Gaussian", "laplace": "Laplace"}
# Decibels of one bit: 20 log10(2).
_BIT_DB = 20 * np.log10(2)
_SHOWN = (
    *("int2", "int3", "int4", "nf4", "int6", "int8", "e4m3fn"),
    *("mxfp4", "nvfp4", "nf4_g64_bf16", "mxfp6_e2m3", "mxfp8_e4m3", "mxint8"),
)
_LADDERS = ("int4", "nf4", "e2m1", "nvfp4", "mxfp4", "int8")
# Share of the axis from which a step has room for its number.
_LABELLED = 0.065
_STEPS = ("entropy-coded", "Lloyd-Max", "best scale", "in use")


def ladder(ladders: Sequence[LossLadder], *, ax: Axes | None = None) -> Axes:
    """What each step loses, as a waterfall for each ladder: from Shannon's limit at 0 to the scale in use.

    Parameters
    ----------
    ladders : sequence of LossLadder
        Top to bottom.
    ax : Axes, optional

    Examples
    --------
    >>> import qerror as qe
    >>> ax = ladder([qe.loss_ladder(qe.Gaussian(), "int4", 0.3)])
    >>> ax.get_xlabel(), [label.get_text() for label in ax.get_yticklabels()]
    ("dB from Shannon's limit", ['int4  4'])
    """
    ax = axes(ax)
    named: set[str] = set()
    widest = max(one.total_db for one in ladders)
    for at, one in enumerate(ladders):
        start = 0.0
        for name, color, lost in zip(_STEPS, COLORS, one.lost_db, strict=False):
            label = None if name in named else name
            named.add(name)
            ax.barh(at, lost, left=start, color=color, height=0.62, label=label)
            if lost >= _LABELLED * widest:
                ax.text(start + lost / 2, at, f"{lost:.2f}", ha="center", va="center", color="white", fontsize=6.5)
            start += lost
        ax.text(start, at, f" {one.total_db:.2f}", ha="left", va="center", fontsize=7)
    labels = [f"{one.format}  {one.bits:.4g}" for one in ladders]
    ax.set(xlabel="dB from Shannon's limit", yticks=range(len(ladders)), yticklabels=labels)
    ax.set_xlim(0, 1.2 * widest)
    ax.invert_yaxis()
    ax.grid(visible=False, axis="y")
    return ax


def rate_distortion(
    density: Density, formats: Mapping[str, tuple[float, float]], bits: ArrayLike, *, ax: Axes | None = None
) -> Axes:
    """Formats by bits a value and dB, less 6.02 dB a bit, below Shannon's limit and the entropy-coded quantizers.

    Parameters
    ----------
    density : Density
    formats : mapping
        By name: bits a value and SQNR in dB. Names with "_g" or of block formats have another mark.
    bits : array_like
        Increasing: where the curves are computed.
    ax : Axes, optional

    Examples
    --------
    >>> import qerror as qe
    >>> ax = rate_distortion(qe.Gaussian(), {"int4": (4.0, 19.258)}, [1, 2, 4])
    >>> [line.get_label() for line in ax.get_lines()][:2]
    ["Shannon's limit", 'entropy-coded scalar']
    """
    ax, at = axes(ax), np.asarray(bits, np.float64)
    shannon = np.asarray(limit_of(density, bits=at).sqnr_db)
    coded = np.array([entropy_coded(density, bits=float(b)).sqnr_db for b in at])
    whole = at[np.isclose(at, np.round(at)) & (at >= 1)]
    books = [float(quantization_error(density, lloyd_max(density, 2 ** round(b)), 1.0).sqnr_db) for b in whole]
    ax.plot(at, shannon - _BIT_DB * at, color="black", label="Shannon's limit")
    ax.plot(at, coded - _BIT_DB * at, color=COLORS[0], label="entropy-coded scalar")
    ax.plot(whole, books - _BIT_DB * whole, color=COLORS[2], linestyle="--", marker=MARKERS[2], label="Lloyd-Max")
    for kind, color, marker in (("one scale", COLORS[1], MARKERS[0]), ("blocks", COLORS[3], MARKERS[3])):
        chosen = {n: v for n, v in formats.items() if isinstance(as_format(n), BlockFormat) == (kind == "blocks")}
        if chosen:
            x, y = np.array(list(chosen.values())).T
            ax.plot(x, y - _BIT_DB * x, linestyle="", marker=marker, color=color, label=kind, zorder=3)
        _annotate(ax, chosen, color, left=kind == "one scale")
    ax.set(xlabel="bits a value", ylabel=f"SQNR (dB) less {_BIT_DB:.2f} dB a bit")
    return ax


def _annotate(ax: Axes, formats: Mapping[str, tuple[float, float]], color: str, *, left: bool) -> None:
    """Names beside their marks, to the left or to the right of all."""
    text: dict[str, Any] = {"textcoords": "offset points", "fontsize": 5.5, "color": color, "va": "center"}
    for name, (bits, decibels) in formats.items():
        height = decibels - _BIT_DB * bits
        above = [d - _BIT_DB * b - height for b, d in formats.values() if abs(b - bits) < 0.5]
        down = -5 if any(0 < gap < 0.7 for gap in above) else 0
        ax.annotate(name, (bits, height), xytext=(-4 if left else 4, down), ha="right" if left else "left", **text)


def ladders_of_formats() -> Figure:
    """Waterfalls of six formats on a Gaussian and a Laplace density."""
    figure, panels = new_figure(2, height=3.2, sharey=True)
    for ax, (name, title) in zip(panels, _TITLES.items(), strict=True):
        member = as_density(name)
        ladder([loss_ladder(member, form) for form in _LADDERS], ax=ax)
        ax.set_title(title)
    panels[0].set_ylabel("format, bits a value")
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, ncols=4, loc="outside lower center")
    return figure


def formats_below_the_limit() -> Figure:
    """All formats by bits a value and dB, on a Gaussian and a Laplace density."""
    figure, panels = new_figure(2, height=4.4, sharey=True)
    bits = np.unique(np.concatenate([np.linspace(0.5, 4, 8), np.arange(5, 9)]))
    for ax, (name, title) in zip(panels, _TITLES.items(), strict=True):
        member = as_density(name)
        rate_distortion(member, {one: _met(member, one) for one in _SHOWN}, bits, ax=ax)
        ax.set(title=title, xlim=(0.3, 10.2))
    panels[1].set_ylabel("")
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, ncols=5, loc="outside lower center")
    return figure


def coded_formats() -> Figure:
    """What a lossless coder behind a grid buys: error against entropy as the scale grows, below the limits."""
    figure, ax = new_figure(height=3.6)
    gaussian = as_density("gaussian")
    at = np.linspace(0.25, 4.25, 33)
    ax.plot(at, 0 * at, color="black", label="Shannon's limit")
    coded = np.array([entropy_coded(gaussian, bits=float(b)).sqnr_db for b in at])
    ax.plot(at, coded - _BIT_DB * at, color=GRAY, label="entropy-coded scalar")
    # Both ends have the least error: coded at its entropy, and stored in whole bits.
    stored_as: dict[str, Any] = {"linestyle": ":", "linewidth": 0.9, "marker": MARKERS[0], "markersize": 3}
    for color, name in zip(COLORS, ("int4", "e2m1", "nf4", "int3"), strict=False):
        curve = entropy_coded_format(gaussian, name)
        best = int(np.argmin(curve.mse))
        # Between two scales the error is shared, not its decibels.
        bits = np.linspace(curve.bits[curve.hull[0]], curve.bits[best], 200)
        decibels = 10 * np.log10(curve.power / curve.least_mse(bits))
        ax.plot(bits, decibels - _BIT_DB * bits, color=color, label=name)
        stored = float(curve.grid.bits)
        ends = [curve.bits[best], stored]
        levels = [curve.sqnr_db[best] - _BIT_DB * end for end in ends]
        ax.plot(ends, levels, color=color, **stored_as)
    ax.plot([], [], color="black", label="fixed length", **stored_as)
    ax.set(xlabel="entropy of the codes (bits a value)", ylabel="SQNR (dB) less 6.02 dB a bit")
    ax.set(xlim=(0.2, 4.3), ylim=(-6, 0.3))
    figure.legend(ncols=3, loc="outside lower center")
    return figure


def _met(density: Density, name: str) -> tuple[float, float]:
    """Bits a value and SQNR: at the best scale, of blocks by their rule."""
    form = as_format(name)
    if isinstance(form, BlockFormat):
        return form.bits_per_value(), float(as_met(density, form).sqnr_db)
    return float(form.bits), float(optimal_scale(density, form).error.sqnr_db)
