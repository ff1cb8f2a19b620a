"""A page for each named format: codes, bits, aliases, thresholds, best scales, landscape, certified digits."""

from __future__ import annotations

import re
from functools import cache
from html import escape

import numpy as np

from ..densities.named import density as as_density
from ..errors.quantization import quantization_error
from ..grids.block_formats import block_format, block_formats
from ..grids.formats import aliases, formats
from ..grids.formats import grid as as_grid
from ..grids.grid import Grid
from ..search.optimal import optimal_scale
from ..tables.reading import load_table
from ..tables.table import ScaleTable
from .blocks import block_page, block_rows
from .drawing import Axes
from .text import link, table

# Levels shown whole, and at either end of longer lists.
_WHOLE, _END = 64, 12
_TINY = 1e-300
_OCP = {"e2m1": "MXFP4", "e2m3": "MXFP6", "e3m2": "MXFP6", "e4m3fn": "MXFP8", "e5m2": "MXFP8", "e8m0": "block scales"}


def format_page(name: str) -> str:
    """HTML of the page of a format."""
    return block_page(block_format(name)) if name in block_formats() else _grid_page(as_grid(name))


def format_index() -> str:
    """HTML of the list of all."""
    rows = []
    for name in formats():
        one = as_grid(name)
        rows.append([link(name), _kind(one), str(one.bits), str(len(one.levels)), _number(one.min), _number(one.max)])
    return (
        "<p>Any other <code>eXmY</code> of up to 16 bits is a format, too, and of blocks any <code>GRID_gB</code> and "
        "<code>GRID_gB_SCALE</code>: <code>int4_g128_bf16</code>.</p><h2>Blocks</h2>"
        + table(["format", "elements", "block", "scales", "rule", "bits a value"], block_rows())
        + "<h2>Grids</h2>"
        + table(["format", "kind", "bits", "levels", "least", "greatest"], rows)
    )


def _grid_page(one: Grid) -> str:
    name = str(one.name)
    about = [
        ["kind", _kind(one)],
        ["bits", str(one.bits)],
        ["levels", f"{len(one.levels)}, from {_number(one.min)} to {_number(one.max)}"],
        ["layout", _layout(one)],
        ["also called", ", ".join(f"<code>{escape(alias)}</code>" for alias in aliases(name)) or "nothing else"],
    ]
    about += [["in standards", f"OCP Microscaling v1.0, {_OCP[name]}"]] if name in _OCP else []
    codes = "<h2>Codes, levels, thresholds</h2>" + _levels(one)
    return "\n".join([table(["", ""], about), _scales(name, one), _picture(one), codes])


@cache
def _shipped() -> ScaleTable:
    return load_table()


def _layout(one: Grid) -> str:
    spec = one.float_spec
    if spec is None:
        kind = "two's complement" if one.min < 0 else "unsigned"
        return kind if one.step is not None and one.codes[0] == one.levels[0] else "the code is the index of the level"
    fields = [*(["1 sign"] if spec.signed else []), f"{spec.exponent_bits} exponent, bias {spec.bias}"]
    reserved = {
        "none": "no code reserved",
        "ieee": "top exponent: infinities and NaN",
        "fn": "all ones: NaN, no infinity",
        "fnuz": "the code of -0 is NaN, no infinity",
    }[spec.reserved]
    return "; ".join([*fields, f"{spec.mantissa_bits} mantissa", reserved])


def _scales(name: str, one: Grid) -> str:
    """Best scales at unit variance, from the shipped table where it has the format, with certified digits."""
    shipped = _shipped()
    head = "<h2>Best scales at standard deviation 1</h2>"
    if name in shipped.grids:
        rows = []
        for density in shipped.densities:
            row = shipped.lookup(name, density)
            proven = shipped.certified(name, density)
            digits = re.sub(r"\[([\d.e+-]+) .*", r"\1", proven.scale)
            said = "the only one" if proven.unique else "tied"
            rows.append([escape(density), f"{row.scale:.6f}", f"{row.sqnr_db:.3f}", f"<code>{digits}</code> {said}"])
        title = ["density", "scale", "SQNR dB", "scale, proven in ball arithmetic to all digits shown"]
        return head + table(title, rows) + f"<p>The whole certificate: <code>qerror certify {name}</code>.</p>"
    rows = []
    for density in ("gaussian", "laplace") if one.bits <= 12 else ():
        best = optimal_scale(as_density(density), one)
        rows.append([density, f"{best.scale:.6g}", f"{best.error.sqnr_db:.3f}", str(best.status)])
    said = f"<p><code>qerror scale {name} --density NAME</code> has others.</p>"
    return head + (table(["density", "scale", "SQNR dB", "status"], rows) if rows else "") + said


def _picture(one: Grid) -> str:
    """The error on a Gaussian over the clip, on logarithmic axes, with all local minima that the search lists."""
    gaussian = as_density("gaussian")
    best = optimal_scale(gaussian, one)
    found = np.log2([[minimum.scale * one.absmax, minimum.mse] for minimum in best.minima])
    x = np.linspace(found[:, 0].min() - 2, found[:, 0].max() + 2, 240)
    error = quantization_error(gaussian, one, 2.0**x / one.absmax)
    # Far from the optimum one part may be 0.
    curves = {name: np.log2(np.maximum(getattr(error, name), _TINY)) for name in ("mse", "rounding", "clipping")}
    low, high = found[0, 1] - 2, float(curves["mse"].max())
    at = Axes((float(x[0]), float(x[-1])), (low, high))
    # What is far below leaves the frame.
    lines = [at.line(name, x, np.clip(y, low - 2, high + 1)) for name, y in curves.items()]
    dots = [at.dot(float(a), float(b), best=i == 0) for i, (a, b) in enumerate(found)]
    said = f"{len(found)} local {'minimum' if len(found) == 1 else 'minima'}, the best at scale {best.scale:.6g}"
    words = f"On a Gaussian of standard deviation 1: {said}. Solid: all; dotted: rounding; dashed: clipping."
    picture = at.drawn([*lines, *dots], "log2(clip / std)", "MSE / variance", f"Error of {one.name} over the clip")
    return f"<h2>Error landscape</h2><figure>{picture}<figcaption>{words}</figcaption></figure>"


def _levels(one: Grid) -> str:
    mask, count = (1 << one.bits) - 1, len(one.levels)
    above = [*(_number(t) for t in one.thresholds), ""]
    rows = [
        [str(code), f"<code>{int(code) & mask:0{one.bits}b}</code>", _number(level), threshold]
        for code, level, threshold in zip(one.codes, one.levels, above, strict=True)
    ]
    if count > _WHOLE:
        middle = rows[count // 2 - _END // 2 : count // 2 + _END // 2]
        rows = [*rows[:_END], ["..."] * 4, *middle, ["..."] * 4, *rows[-_END:]]
    said = f"<p>All {count}: <code>qerror formats {one.name} --json</code>.</p>" if count > _WHOLE else ""
    return table(["code", "bits", "level", "threshold above"], rows) + said


def _kind(one: Grid) -> str:
    return "uniform" if one.step is not None else "floating" if one.float_spec is not None else "codebook"


def _number(value: float) -> str:
    return f"{value:.10g}"
