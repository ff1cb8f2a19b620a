"""What is said of fitted tensors, as rows for tables and JSON."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from typing import Any

from ..grids.block_formats import BlockFormat, as_format
from ..grids.scale_formats import scale_grid
from .fitting import TensorFit, checkpoint_total
from .recipe import split_format

# Of a scale whose format is not said, and of a tensor scale: a float32.
_FLOAT_BITS = 32


def row(fit: TensorFit, scale_format: str | None = None) -> dict[str, Any]:
    """One fitted tensor in one format; scales whose format is not said count 32 bits."""
    first = next(iter(fit.mse.values()))
    return {
        "tensor": fit.info.name,
        "shape": list(fit.info.shape),
        "dtype": fit.info.dtype,
        "grid": fit.grid,
        "bits": _bits(fit, scale_format),
        "kurtosis": None if math.isnan(fit.kurtosis) else fit.kurtosis,
        "groups": fit.groups,
        "scales": None if math.isnan(fit.scales[1]) else list(fit.scales),
        "mse": dict(fit.mse),
        "unusual": {rule: {one.name: n for one, n in counts.items()} for rule, counts in fit.unusual.items()},
        "sqnr_db": decibels(fit.power, first),
        "optimal_sqnr_db": decibels(fit.power, fit.optimum),
        "lost_db": {rule: lost(mse, fit.optimum) for rule, mse in fit.mse.items()},
    }


def _bits(fit: TensorFit, scale_format: str | None) -> float | None:
    """Bits that are stored a value: those of an element, and of scales their share; None where formats differ."""
    if not fit.grid:
        return None
    form = as_format(split_format(fit.grid)[0])
    if isinstance(form, BlockFormat):
        elements, stored, second = form.grid, form.scale_format, form.tensor_scale
    else:
        elements, second = form, scale_format == "e4m3fn"
        stored = None if scale_format is None else scale_grid(scale_format)
    bits = (_FLOAT_BITS if stored is None else stored.bits) * fit.groups + (_FLOAT_BITS if second else 0)
    return elements.bits + bits / fit.info.size


def totals(done: Sequence[TensorFit], scale_format: str | None = None) -> list[dict[str, Any]]:
    """All tensors of a format as one, for each format: every value counts the same."""
    found = []
    for fits in _by_grid(done):
        total = checkpoint_total(fits)
        if total is not None:
            size = total.info.size
            bits = [_bits(fit, scale_format) for fit in fits]
            known = [each * fit.info.size for each, fit in zip(bits, fits, strict=True) if each is not None]
            found.append({**row(total, scale_format), "bits": math.fsum(known) / size if known else None})
    return found


def medians(done: Sequence[TensorFit]) -> list[dict[str, Any]]:
    """The median over the tensors of a format, for each format: every tensor counts the same, however small."""
    found = []
    for fits in _by_grid(done):
        rows = [row(fit) for fit in fits]
        middle = {key: statistics.median(each[key] for each in rows) for key in ("sqnr_db", "optimal_sqnr_db")}
        rules = [rule for rule in rows[0]["lost_db"] if all(rule in each["lost_db"] for each in rows)]
        lost_db = {rule: statistics.median(each["lost_db"][rule] for each in rows) for rule in rules}
        found.append({"tensor": "median", "grid": fits[0].grid, "tensors": len(fits), **middle, "lost_db": lost_db})
    return found


def _by_grid(done: Sequence[TensorFit]) -> list[list[TensorFit]]:
    fitted = [fit for fit in done if fit.mse]
    return [[fit for fit in fitted if fit.grid == grid] for grid in dict.fromkeys(fit.grid for fit in fitted)]


def report(done: Sequence[TensorFit], foreign: dict[str, str], scale_format: str | None = None) -> dict[str, Any]:
    """Rows, totals and medians (of one format one, of several a list), and what was left out."""
    left = [{"tensor": fit.info.name, "skipped": fit.skipped, "failed": fit.failed} for fit in done if not fit.mse]
    left += [{"tensor": name, "skipped": reason, "failed": ""} for name, reason in foreign.items()]
    return {
        "total": _one_or_all(totals(done, scale_format)),
        "median": _one_or_all(medians(done)),
        "left_out": left,
        "rows": [row(fit, scale_format) for fit in done if fit.mse],
    }


def _one_or_all(rows: list[dict[str, Any]]) -> Any:
    return None if not rows else rows[0] if len(rows) == 1 else rows


def finite(value: Any) -> Any:
    """The same with None in place of inf and nan, which JSON has not."""
    if isinstance(value, dict):
        return {key: finite(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [finite(entry) for entry in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def decibels(power: float, mse: float) -> float:
    """10 log10(power / mse); nan where both are 0."""
    if mse == 0:
        return math.inf if power > 0 else math.nan
    return 10 * math.log10(power / mse) if power > 0 else -math.inf


def lost(mse: float, optimum: float) -> float:
    """Decibels above the optimum, 0 where roundings make it less."""
    return 0.0 if mse <= optimum else decibels(mse, optimum)
