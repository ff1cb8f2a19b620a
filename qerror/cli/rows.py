"""The rows of the commands' tables: pure functions from densities and grids to plain values."""

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

import qerror as qe

from ..errors.exact import Model, Rounding
from ..errors.octaves import as_met
from ..grids.block_formats import as_format
from ..limits.rate_distortion import LEAST_BITS
from ..limits.shannon import shannon_db
from ..literature import Entry, audit

Row = dict[str, Any]
# Goes through items, and may say how far it has come.
Progress = Callable[[Sequence[Any]], Iterable[Any]]

# What `qerror demo` shows: the integer widths in use, OCP's and IEEE's floats, and the codebooks of the literature.
DEMO_FORMATS = (
    *("ternary", "int2", "int3", "int4", "int4_midrise", "int5", "int6", "int7", "int8", "int16"),
    *("e2m1", "e3m0", "e2m3", "e3m2", "e3m4", "e4m3fn", "e5m2", "fp16", "bf16"),
    *("nf4", "af4", "sf4", "pot4", "apot4"),
)

# The width of the codebooks in use.
CODEBOOK_BITS = 4

# Bits a value up to which the limit of a density and that of data are computed.
_MOST_OF_DENSITIES, _MOST_OF_DATA = 10.0, 8.5
# Levels of the codebooks that a comparison makes, and levels times values of a sample.
_MOST_LEVELS, _MOST_WORK = 256, 1 << 22

_TERMS = ("clipping", "rounding", "mse", "bias", "cross", "power", "sqnr_db")


def error_fields(error: Any) -> Row:
    """The terms of one error as plain floats."""
    return {term: float(getattr(error, term)) for term in _TERMS}


def scale_row(
    density: Any, name: str, *, shift: Any, model: Model, rounding: Rounding, certify: bool | None = None
) -> Row:
    """Optimal scale of one grid (of a block format the tensor scale, or the constant of its rule), with its error.

    Returns
    -------
    dict
        grid, bits, scale, shift, clip, the error's terms, interval_1pct, minima (how many local ones are known),
        status and its message.
    """
    form = as_format(name)
    if isinstance(form, qe.BlockFormat):
        return _block_scale_row(density, form, shift=shift, model=model, rounding=rounding, certify=certify)
    grid = form
    best = qe.optimal_scale(density, grid, shift=shift, model=model, rounding=rounding, certify=certify)
    return {
        "grid": grid.name or name,
        "bits": grid.bits,
        "levels": len(grid.levels),
        "scale": float(best.scale),
        "shift": float(best.shift),
        "clip": float(best.clip),
        **error_fields(best.error),
        "interval_1pct": [float(end) for end in best.interval_1pct],
        "minima": len(best.minima),
        "status": best.status.name,
        "message": best.status.value,
    }


def loss_row(density: Any, name: str, *, loss: Any, shift: Any, certify: bool | None = None) -> Row:
    """Optimal scale of one grid by another loss than the square, and what it costs in dB of the mean squared error."""
    grid = qe.grid(name)
    best = qe.optimal_scale(density, grid, loss=loss, shift=shift, certify=certify)
    return {
        "grid": grid.name or name,
        "bits": grid.bits,
        "scale": float(best.scale),
        "shift": float(best.shift),
        "clip": float(best.clip),
        **{term: float(getattr(best.error, term)) for term in ("clipping", "rounding", "loss", "size", "snr_db")},
        "mse_lost_db": float(qe.excess_db(density, grid, best.scale, best.shift)),
        "status": best.status.name,
        "message": best.status.value,
    }


def _block_scale_row(
    density: Any, form: Any, *, shift: Any, model: Model, rounding: Rounding, certify: bool | None
) -> Row:
    best = qe.optimal_scale(density, form, shift=shift, model=model, rounding=rounding, certify=certify)
    return {
        "grid": form.name,
        "bits": form.bits_per_value(),
        "levels": len(form.grid.levels),
        "scale": best.scale,
        "constant": best.constant,
        "shift": 0.0,
        "clip": None,
        **error_fields(best.error),
        "interval_1pct": [None, None],
        "minima": len(best.minima),
        "status": best.status.name,
        "message": best.status.value,
    }


def block_row(density: Any, name: str, *, rounding: Any, tensor: Any = None) -> Row:
    """The error of a block format by its own rule, as it is met: of power-of-two scales the mean over an octave.

    Of a tensor: the error of its blocks, along its last axis (kernels shorter than a block are flattened).
    """
    form = qe.block_format(name)
    bits = form.bits_per_value()
    error: qe.ErrorTerms
    if tensor is not None:
        short = tensor.ndim > 2 and tensor.shape[-1] < form.block_size
        found = qe.evaluate(tensor.reshape(len(tensor), -1) if short else tensor, form, measure=True)
        error = found.total
        # What is stored for each scale, however short its block is.
        bits = form.grid.bits + (bits - form.grid.bits) * form.block_size * np.size(found.scale) / tensor.size
    else:
        error = as_met(density, form, rounding=rounding)
    return {
        "grid": form.name,
        "bits": bits,
        "levels": len(form.grid.levels),
        "scale": None,
        "shift": 0.0,
        "clip": None,
        **error_fields(error),
        "status": qe.Status.RULE.name,
        "message": qe.Status.RULE.value,
    }


def error_rows(
    density: Any, name: str, scales: Sequence[float], *, shift: float, model: Model, rounding: Rounding
) -> list[Row]:
    """Error of one grid at given scales, and how far each is from the best scale at the same shift."""
    grid = as_format(name)
    error = qe.quantization_error(density, grid, np.asarray(scales), shift, model=model, rounding=rounding)
    excess = np.asarray(qe.excess_db(density, grid, np.asarray(scales), shift, model=model, rounding=rounding))
    terms = {term: np.broadcast_to(getattr(error, term), excess.shape) for term in _TERMS}
    return [
        {
            "grid": grid.name or name,
            "scale": float(scale),
            "shift": float(shift),
            "clip": None if isinstance(grid, qe.BlockFormat) else float(scale) * grid.absmax,
            **{term: float(values[i]) for term, values in terms.items()},
            "excess_db": float(excess[i]),
        }
        for i, scale in enumerate(scales)
    ]


def ranked(rows: Iterable[Row]) -> list[Row]:
    """Sort by error, and add each row's rank and its distance from the first in dB."""
    order = sorted(rows, key=lambda row: (row["mse"], row["grid"]))
    best = order[0]["sqnr_db"] if order else 0.0
    # Where nothing is lost at all both are inf, and their distance is 0 and not nan.
    return [
        {"rank": place, **row, "behind_db": 0.0 if row["sqnr_db"] == best else best - row["sqnr_db"]}
        for place, row in enumerate(order, start=1)
    ]


def compared_names(bits: int) -> tuple[list[str], list[str]]:
    """Grids of a width, and block formats whose elements have it: the named ones, and those that are usual."""
    blocks = [name for name in qe.block_formats() if qe.block_format(name).grid.bits == bits]
    usual = [f"int{bits}_g32_fp16", f"int{bits}_g128_fp16"] if bits > 1 else []
    return qe.formats(bits), [*blocks, *usual, *(["nf4_g64_bf16"] if bits == CODEBOOK_BITS else [])]


def with_limits(rows: Sequence[Row], density: Any, progress: Progress = list) -> list[Row]:
    """Add how many dB more the best code of as many bits a value would have, and the best codebook of as many levels.

    The codebook is one for all values; where levels, or levels times values, are very many it is left out.
    """
    questions = [("bits", bits) for bits in sorted({row["bits"] for row in rows})]
    questions += [("levels", count) for count in sorted({row["levels"] for row in rows})]
    answers = {
        (kind, value): limit_db(density, value) if kind == "bits" else _codebook_db(density, int(value))
        for kind, value in progress(questions)
    }
    return [
        {
            **row,
            "bound_db": _behind(answers["bits", row["bits"]], row),
            "lloyd_db": _behind(answers["levels", row["levels"]], row),
        }
        for row in rows
    ]


def limit_db(density: Any, bits: float) -> float | None:
    """SQNR in dB that no code of independent values exceeds at a rate; None of data at high rates.

    At high rates Shannon's bound stands for the limit of a density.
    """
    if density.std == 0:
        return None
    if bits <= (_MOST_OF_DENSITIES if density.panels().shape[-1] else _MOST_OF_DATA):
        return float(qe.rate_distortion(density, bits=max(bits, LEAST_BITS)).sqnr_db)
    if density.has_atoms:
        return None
    return shannon_db(float(density.entropy), bits, float(density.std) ** 2 + float(density.mean) ** 2)


def ladder_rows(density: Any, grid: str, scale: float | None, shift: float) -> list[Row]:
    """The rungs of one loss ladder."""
    ladder = qe.loss_ladder(density, as_format(grid), scale, shift=shift).to_dict()
    about = {"grid": grid, "bits": ladder["bits"], "total_db": ladder["total_db"], "error_db": ladder["error_db"]}
    message = {status.name: status.value for status in qe.Status}
    rungs = ladder["rungs"]
    steps = [None, *(rung["lost_db"] for rung in rungs[1:])]
    return [
        {**about, **rung, "step_db": step, "message": message[rung["status"]]}
        for rung, step in zip(rungs, steps, strict=True)
    ]


def _behind(decibels: float | None, row: Row) -> float | None:
    """Decibels that a row has less; nothing where both are without error."""
    if decibels is None:
        return None
    return 0.0 if row["sqnr_db"] == decibels else decibels - row["sqnr_db"]


def _codebook_db(density: Any, count: int) -> float | None:
    most = _MOST_LEVELS if density.panels().shape[-1] else min(_MOST_LEVELS, _MOST_WORK // density.atom_count)
    if count > most or density.std == 0 or (density.has_atoms and density.atom_count < count):
        return None
    return float(qe.quantization_error(density, qe.lloyd_max(density, count), 1.0).sqnr_db)


def format_rows() -> list[Row]:
    """Every named format: its width, how many levels, and their range."""
    return [_format_row(name) for name in qe.formats()]


def block_format_rows() -> list[Row]:
    """Every named block format: its parts, its rule, and what it stores a value."""
    return [block_format_row(qe.block_format(name)) for name in qe.block_formats()]


def block_format_row(form: Any) -> Row:
    """One block format."""
    return {
        "grid": form.name,
        "elements": form.grid.name,
        "block_size": form.block_size,
        "stored": None if form.scale_format is None else form.scale_format.name,
        "rule": form.rule,
        "tensor_scale": form.tensor_scale,
        "bits": form.bits_per_value(),
    }


def _format_row(name: str) -> Row:
    grid = qe.grid(name)
    kind = "uniform" if grid.step is not None else "floating" if grid.float_spec is not None else "codebook"
    positive = grid.levels[grid.levels > 0]
    return {
        "grid": name,
        "bits": grid.bits,
        "levels": len(grid.levels),
        "kind": kind,
        "min": grid.min,
        "max": grid.max,
        "smallest": float(positive[0]),
    }


def audit_rows(entry: Entry) -> list[Row]:
    """The numbers of one published entry beside ours."""
    return [{**dataclasses.asdict(row), "verdict": row.verdict.name.lower()} for row in audit([entry])]


def level_rows(grid: qe.Grid) -> list[Row]:
    """Levels of one grid with their codes and the threshold above each."""
    above = [*map(float, grid.thresholds), None]
    mask = (1 << grid.bits) - 1
    return [
        {
            "code": int(code),
            "pattern": f"{int(code) & mask:0{grid.bits}b}",
            "level": float(level),
            "threshold": next_one,
        }
        for code, level, next_one in zip(grid.codes, grid.levels, above, strict=True)
    ]
