"""The rows of the commands' tables: pure functions from densities and grids to plain values."""

import dataclasses
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

import qerror as qe

from ..errors.exact import Model, Rounding
from ..literature import Entry, audit

Row = dict[str, Any]

# What `qerror demo` shows: the integer widths in use, OCP's and IEEE's floats, and the codebooks of the literature.
DEMO_FORMATS = (
    *("ternary", "int2", "int3", "int4", "int4_midrise", "int5", "int6", "int7", "int8", "int16"),
    *("e2m1", "e3m0", "e2m3", "e3m2", "e3m4", "e4m3fn", "e5m2", "fp16", "bf16"),
    *("nf4", "af4", "sf4", "pot4", "apot4"),
)

_TERMS = ("clipping", "rounding", "mse", "bias", "cross", "power", "sqnr_db")


def error_fields(error: Any) -> Row:
    """The terms of one error as plain floats."""
    return {term: float(getattr(error, term)) for term in _TERMS}


def scale_row(
    density: Any, name: str, *, shift: Any, model: Model, rounding: Rounding, certify: bool | None = None
) -> Row:
    """Optimal scale of one grid, with its error.

    Returns
    -------
    dict
        grid, bits, scale, shift, clip, the error's terms, interval_1pct, minima (how many local ones are known),
        status and its message.
    """
    grid = qe.grid(name)
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


def error_rows(
    density: Any, name: str, scales: Sequence[float], *, shift: float, model: Model, rounding: Rounding
) -> list[Row]:
    """Error of one grid at given scales, and how far each is from the best scale at the same shift."""
    grid = qe.grid(name)
    error = qe.quantization_error(density, grid, np.asarray(scales), shift, model=model, rounding=rounding)
    excess = qe.excess_db(density, grid, np.asarray(scales), shift, model=model, rounding=rounding)
    terms = {term: np.broadcast_to(getattr(error, term), excess.shape) for term in _TERMS}
    return [
        {
            "grid": grid.name or name,
            "scale": float(scale),
            "shift": float(shift),
            "clip": float(scale) * grid.absmax,
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


def format_rows() -> list[Row]:
    """Every named format: its width, how many levels, and their range."""
    return [_format_row(name) for name in qe.formats()]


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


def level_rows(name: str) -> list[Row]:
    """Levels of one format with their codes and the threshold above each."""
    grid = qe.grid(name)
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
