"""A page for each named block format: parts, errors by density, certified digits, landscape over the tensor scale."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np

from .._types import Array
from ..densities.named import density as as_density
from ..errors.blocks import block_mse
from ..errors.octaves import as_met, octave_mse
from ..grids.block_formats import BlockFormat, block_format, block_formats
from ..grids.formats import formats
from ..search.optimal import optimal_scale
from ..tables.reading import load_table
from .drawing import Axes
from .text import link, table

# Made by tests/reference/make_certified_blocks.py: at standard deviation and tensor scale 1, 30 digits.
CERTIFIED = Path(__file__).parent / "certified_blocks.json"
# What the loaders of llama.cpp and of Hugging Face's files call formats of blocks.
_ELSEWHERE = {
    "mxfp4": "OCP MX v1.0 MXFP4; GGUF <code>MXFP4</code>; compressed-tensors <code>mxfp4-pack-quantized</code>",
    "mxfp6_e2m3": "OCP MX v1.0 MXFP6 (E2M3)",
    "mxfp6_e3m2": "OCP MX v1.0 MXFP6 (E3M2)",
    "mxfp8_e4m3": "OCP MX v1.0 MXFP8 (E4M3); compressed-tensors <code>mxfp8-quantized</code>",
    "mxfp8_e5m2": "OCP MX v1.0 MXFP8 (E5M2)",
    "mxint8": "OCP MX v1.0 MXINT8",
    "nvfp4": "NVIDIA NVFP4; compressed-tensors <code>nvfp4-pack-quantized</code>; ModelOpt <code>NVFP4</code>",
}
# The conventions for powers of two, as lines are drawn: solid, dashed, dotted, dashes and dots.
_OCTAVE_RULES = {"floor": "first", "even": "second", "rceil": "third", "ceil": "fourth"}
# Places in an octave, and of a tensor scale from far too small to far too large.
_PLACES, _SPAN = 24, np.linspace(-14.0, 11.0, 126)


def block_rows() -> list[list[str]]:
    """A row for each in the list of formats."""
    rows = []
    for form in map(block_format, block_formats()):
        parts = [link(str(form.name)), link(str(form.grid.name)), str(form.block_size), _stored(form), form.rule]
        rows.append([*parts, f"{form.bits_per_value():g}"])
    return rows


def block_page(form: BlockFormat) -> str:
    """HTML of a format's page."""
    about = [
        ["elements", f"{link(str(form.grid.name))} in blocks of {form.block_size}"],
        ["block scales", _stored(form)],
        ["tensor scale", "one, float32" if form.tensor_scale else "none"],
        ["rule", f"<code>{form.rule}</code>"],
        ["bits a value", f"{form.bits_per_value():g}"],
        ["elsewhere", _ELSEWHERE[str(form.name)]],
    ]
    best = optimal_scale(as_density("gaussian"), form)
    at = f"{best.scale if best.free == 'scale' else best.constant:.6g}"
    said = f"<p>Best {best.free} on a Gaussian: {at}, {float(best.error.sqnr_db):.3f} dB ({best.status}).</p>"
    return "\n".join([table(["", ""], about) + said, _errors(form), _certified(form), _landscape(form)])


def _errors(form: BlockFormat) -> str:
    rows = []
    for name in load_table().densities:
        density = as_density(name)
        octave = form.octave_end is not None
        mse = octave_mse(density, form, "nearest") if octave else float(as_met(density, form).mse)
        rows.append([name, f"{mse:.6g}", f"{_decibels(mse):.3f}"])
    own = "Error by its own rule at standard deviation 1"
    own += "" if form.octave_end is None else ", the mean over an octave"
    own += ", the tensor scale that of 2^20 values" if form.tensor_scale else ""
    return f"<h2>{own}</h2>" + table(["density", "MSE", "SQNR dB"], rows)


def _certified(form: BlockFormat) -> str:
    """Digits proven of the error at standard deviation 1 and tensor scale 1."""
    known = json.loads(CERTIFIED.read_text(encoding="utf-8"))
    rows = [[row["density"], f"<code>{row['mse']}</code>"] for row in known if row["format"] == form.name]
    head = "<h2>Certified error at standard deviation 1 and tensor scale 1</h2>"
    said = f"<p>Proven in ball arithmetic: <code>qerror.certify.certify_block_error(density, '{form.name}')</code>.</p>"
    return head + table(["density", "MSE, a ball that holds it"], rows) + said


def _landscape(form: BlockFormat) -> str:
    """SQNR on a Gaussian over the tensor scale: of powers of two two octaves by all conventions, else all of it."""
    if form.octave_end is None:
        curves, place = {form.rule: ("first", _sqnr(form, _SPAN))}, _SPAN
        words = "Too small a tensor scale clips: block scales saturate. Too large a one underflows."
    else:
        octave = np.arange(_PLACES) / _PLACES
        place = np.concatenate([octave - 1, octave, [1.0]])
        curves = {}
        for rule, style in _OCTAVE_RULES.items():
            once = _sqnr(form.replace(rule=rule), octave)
            curves[rule] = style, np.concatenate([once, once, once[:1]])
        lines = ("solid", "dashed", "dotted", "dashes and dots")
        named = "; ".join(f"{line} {rule}" for line, rule in zip(lines, _OCTAVE_RULES, strict=True))
        words = f"With block scales that are powers of two the error repeats itself with every octave. Lines: {named}."
    low = min(float(values.min()) for _, values in curves.values())
    high = max(float(values.max()) for _, values in curves.values())
    margin = 0.08 * (high - low)
    at = Axes((float(place[0]), float(place[-1])), (low - margin, high + margin))
    parts = [at.line(style, place, values) for style, values in curves.values()]
    title = f"SQNR of {form.name} over the tensor scale"
    picture = at.drawn(parts, "log2(tensor scale / std)", "SQNR dB", title, decibels=True)
    caption = f"On a Gaussian of standard deviation 1. {words}"
    return f"<h2>Error landscape</h2><figure>{picture}<figcaption>{caption}</figcaption></figure>"


def _sqnr(form: BlockFormat, places: Array) -> Array:
    gaussian = as_density("gaussian")
    return np.array([_decibels(block_mse(gaussian, form, 2.0**at, "nearest", "exact")) for at in places])


def _decibels(mse: float) -> float:
    """SQNR at variance 1."""
    return -10 * math.log10(mse)


def _stored(form: BlockFormat) -> str:
    if form.scale_format is None:
        return "any positive number"
    name = str(form.scale_format.name)
    return link(name) if name in formats() else name
