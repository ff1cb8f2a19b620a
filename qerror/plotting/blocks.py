"""Figures of block formats: conventions of their scales, codebooks, and what they cost in bits."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure

from .._types import Array
from ..densities.named import density as as_density
from ..errors.octaves import USUAL_SIZE, as_met
from ..errors.quantization import quantization_error
from ..grids.block_formats import BlockFormat, block_format
from ..grids.block_rules import OCTAVES
from ..grids.formats import grid as as_grid
from ..grids.grid import Grid
from ..limits.shannon import differential_entropy, shannon_db
from ..search.lloyd_max import lloyd_max
from ..search.optimal import optimal_scale
from .style import COLORS, GRAY, MARKERS, new_figure

_TITLES = {"gaussian": "Gaussian", "laplace": "Laplace", "student-t:df=5": "Student's t, 5 df"}
LADDER = (
    *("mxfp4", "nvfp4", "mxfp6_e2m3", "mxfp6_e3m2", "mxfp8_e4m3", "mxint8"),
    *("int3_g64_fp16", "int4_g32_fp16", "int4_g128_fp16", "nf4_g64_bf16", "int8_g128_fp16"),
)
_SCALAR = ("int3", "int4", "e2m1", "nf4", "e2m3", "int6", "int8", "e4m3fn")
SIZES = (8, 16, 32, 64, 128, 256)


def decibels(density: str, form: BlockFormat | str) -> float:
    """SQNR of a block format by its own rule: of power-of-two scales the mean over an octave of std.

    Of formats with a tensor scale: for tensors of 2^20 values.

    Examples
    --------
    >>> round(decibels("gaussian", "mxfp4"), 3), round(decibels("gaussian", "nf4_g64_bf16"), 3)
    (18.745, 20.726)
    """
    return float(as_met(as_density(density), block_format(form)).sqnr_db)


def mxfp4_conventions() -> Figure:
    """MXFP4's four conventions and the best threshold, over an octave of std."""
    figure, panels = new_figure(3, height=3.2, sharey=True)
    std = np.exp2(np.linspace(0, 1, 33))
    for ax, (name, title) in zip(panels, _TITLES.items(), strict=True):
        member = as_density(name)
        best = optimal_scale(member, block_format("mxfp4"), free="constant")
        forms = {rule: block_format("mxfp4").replace(rule=rule) for rule in OCTAVES}
        for color, (rule, form) in zip(COLORS, forms.items(), strict=False):
            ax.plot(std, quantization_error(member, form, 1 / std).sqnr_db, color=color, label=rule)
        label = f"threshold {best.threshold:.2f} instead of 8, 4, 7, 6" if name == "gaussian" else "best threshold"
        ax.plot(std, quantization_error(member, best.form, 1 / std).sqnr_db, color="black", linestyle="--", label=label)
        ax.set(title=title, xlabel="std", xscale="log")
        ax.set_xticks([1, 2**0.5, 2], ["1", "1.41", "2"])
        ax.minorticks_off()
    panels[0].set_ylabel("SQNR (dB)")
    handles, labels = panels[1].get_legend_handles_labels()
    figure.legend(handles, labels, ncols=5, loc="outside lower center")
    return figure


def nvfp4_tensor_scale() -> Figure:
    """NVFP4 against the tensor scale: block scales vanish on one side and saturate on the other."""
    figure, ax = new_figure(wide=True, height=3.2)
    scales = np.geomspace(1e-6, 1e6, 145)
    for color, (name, title) in zip(COLORS, _TITLES.items(), strict=False):
        ax.plot(scales, quantization_error(as_density(name), "nvfp4", scales).sqnr_db, color=color, label=title)
    # The largest of 2^20 Gaussian values, over 448 and 256 times the largest level.
    largest = float(as_density("gaussian").isf(0.5 / USUAL_SIZE))
    for full, style in ((448, "--"), (256, ":")):
        at = largest / (full * as_grid("e2m1").absmax)
        ax.axvline(at, color=GRAY, linewidth=0.9, linestyle=style, label=f"largest of 2^20 at {full}")
    ax.set(xscale="log", xlabel="tensor scale / std", ylabel="SQNR (dB)", ylim=(-1, 22))
    ax.legend(loc="lower center")
    return figure


def codebooks_by_block_size() -> Figure:
    """16 levels on a Gaussian by block size: NF4, BOF4 for 64, and the best of each size."""
    figure, ax = new_figure(height=3.6)
    gaussian, sizes = as_density("gaussian"), np.array(SIZES)

    def line(label: str, levels: dict[int, Array], index: int, *, signed: bool = False) -> None:
        forms = [BlockFormat(Grid(levels[size]), size, signed=signed) for size in SIZES]
        found = [float(quantization_error(gaussian, form).sqnr_db) for form in forms]
        ax.plot(sizes, found, color=COLORS[index], marker=MARKERS[index], label=label)

    books = {size: lloyd_max(gaussian, 16, block_size=size, fixed=(-1, 0, 1)).levels for size in SIZES}
    line("nf4", dict.fromkeys(SIZES, as_grid("nf4").levels), 0)
    line("BOF4 of 64 for all", dict.fromkeys(SIZES, books[64]), 1)
    line("best with -1, 0, 1", books, 2)
    line("best, all free", {size: lloyd_max(gaussian, 16, block_size=size).levels for size in SIZES}, 3)
    signed = {size: lloyd_max(gaussian, 16, block_size=size, signed=True, fixed=(0, 1)).levels for size in SIZES}
    line("best, signed scales", signed, 4, signed=True)
    one = float(quantization_error(gaussian, lloyd_max(gaussian, 16), 1.0).sqnr_db)
    ax.axhline(one, color=GRAY, linewidth=0.9, label="Lloyd-Max, one scale")
    ax.set(xscale="log", xlabel="values in a block", ylabel="SQNR (dB)")
    ax.set_xticks(sizes, [str(size) for size in sizes])
    ax.minorticks_off()
    figure.legend(ncols=2, loc="outside lower center")
    return figure


def formats_by_bits() -> Figure:
    """Block formats and scalar ones by bits a value: how far each is behind the best code of as many bits."""
    figure, ax = new_figure(wide=True, height=5.2)
    bits = {name: float(as_grid(name).bits) for name in _SCALAR}
    bits |= {name: block_format(name).bits_per_value() for name in LADDER}
    names = sorted(bits, key=lambda name: (-bits[name], name))
    place = np.arange(len(names))
    for color, marker, (density, title) in zip(COLORS, MARKERS, _TITLES.items(), strict=False):
        member = as_density(density)
        entropy, power = differential_entropy(member), float(member.std) ** 2
        behind = [shannon_db(entropy, bits[name], power) - _reached(density, name) for name in names]
        ax.scatter(behind, place, s=16, color=color, marker=marker, label=title, zorder=3)
    ax.set_yticks(place, [f"{name}  {bits[name]:.4g}" for name in names])
    for tick, name in zip(ax.get_yticklabels(), names, strict=True):
        tick.set_color("black" if name in LADDER else GRAY)
    ax.set(
        xlabel="SQNR behind Shannon's bound at as many bits a value (dB)", ylabel="format, bits a value", xlim=(0, None)
    )
    figure.legend(ncols=3, loc="outside lower center")
    return figure


def _reached(density: str, name: str) -> float:
    if name in LADDER:
        return decibels(density, name)
    return float(optimal_scale(as_density(density), as_grid(name)).error.sqnr_db)
