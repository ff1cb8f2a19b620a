"""What is said of fitted tensors, as rows for tables and JSON."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from .fitting import TensorFit, checkpoint_total


def row(fit: TensorFit) -> dict[str, Any]:
    """One fitted tensor in one format."""
    first = next(iter(fit.mse.values()))
    return {
        "tensor": fit.info.name,
        "shape": "x".join(map(str, fit.info.shape)) or "scalar",
        "dtype": fit.info.dtype,
        "grid": fit.grid,
        "kurtosis": None if math.isnan(fit.kurtosis) else fit.kurtosis,
        "groups": fit.groups,
        "scales": None if math.isnan(fit.scales[1]) else list(fit.scales),
        "mse": dict(fit.mse),
        "unusual": {rule: {one.name: n for one, n in counts.items()} for rule, counts in fit.unusual.items()},
        "sqnr_db": decibels(fit.power, first),
        "optimal_sqnr_db": decibels(fit.power, fit.optimum),
        **{f"lost {rule}": lost(mse, fit.optimum) for rule, mse in fit.mse.items()},
    }


def totals(done: Sequence[TensorFit]) -> list[TensorFit]:
    """All tensors of a format as one, for each format."""
    grids = dict.fromkeys(fit.grid for fit in done if fit.mse)
    found = [checkpoint_total(fit for fit in done if fit.grid == grid and fit.mse) for grid in grids]
    return [total for total in found if total is not None]


def report(done: Sequence[TensorFit], foreign: dict[str, str]) -> dict[str, Any]:
    """Rows, totals and what was left out."""
    left = [{"tensor": fit.info.name, "skipped": fit.skipped, "failed": fit.failed} for fit in done if not fit.mse]
    left += [{"tensor": name, "skipped": reason, "failed": ""} for name, reason in foreign.items()]
    total = [row(each) for each in totals(done)]
    return {
        "total": None if not total else total[0] if len(total) == 1 else total,
        "left_out": left,
        "rows": [row(fit) for fit in done if fit.mse],
    }


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
