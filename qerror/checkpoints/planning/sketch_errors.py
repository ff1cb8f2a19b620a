"""Errors of formats from a sketch: exact where it counts patterns, of other float32 values proven bounds."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ...casting.cast import fake_quantize
from ...grids.block_formats import BlockFormat, as_format
from ...grids.grid import Grid
from ...results import Status
from ..patterns import Patterns
from ..recipe import split_format
from ..sketch import Sketch, TensorSketch
from .storage import is_cast

FORMATS = ("int4", "nf4", "e2m1", "int8", "e4m3fn", "bf16")
"""What a sketch is asked for where nothing is said: formats with one scale a tensor."""
LEFT_OUT = "A sketch has one scale a tensor; int4_g128, nvfp4, int8:axis=0 need the model."


def sketch_error(sketch: TensorSketch, text: str) -> dict[str, Any]:
    """One tensor in one format, as `errors` keeps it."""
    name, axis = split_format(text)
    form = as_format(name)
    if axis is not None or isinstance(form, BlockFormat):
        raise ValueError(
            f"formats must have one scale for a tensor with a sketch, got {text}; name others, such as "
            f"{' '.join(FORMATS)}, or give the model instead"
        )
    if is_cast(text):
        return _cast(sketch, form)
    answer, *_ = Sketch("", {sketch.info.name: sketch}, {}).ask(text, rule=["optimal", "minmax"])
    if answer.failed:
        return {"failed": answer.failed}
    found = {"mse": answer.mse["optimal"], "minmax": answer.mse["minmax"], "least": answer.optimum}
    unproven = Status.SCANNED in answer.unusual.get("optimal", {}) or answer.optimum < answer.mse["optimal"]
    return _entry(sketch, found, answer.power, int(unproven)) | {
        "kurtosis": None if math.isnan(answer.kurtosis) else answer.kurtosis
    }


def _cast(sketch: TensorSketch, form: Grid) -> dict[str, Any]:
    """A cast to 16 bits without a scale."""
    content = sketch.content
    if not isinstance(content, Patterns) and not content.known:
        # In bins of 17 bits and more all values go to one bfloat16: both bounds are the error.
        bound = content.bracket(form, 0.0, 1.0)
        return _entry(sketch, {"mse": bound.upper, "minmax": None, "least": bound.lower}, content.power(), 0)
    values, counts = (column.astype(np.float64) for column in content.values())
    away = fake_quantize(values, form) - values
    mse, power = (float(counts @ np.square(each)) / sketch.info.size for each in (away, values))
    return _entry(sketch, {"mse": mse, "minmax": None, "least": mse}, power, 0)


def _entry(sketch: TensorSketch, found: dict[str, Any], power: float, unproven: int) -> dict[str, Any]:
    return found | {"power": power, "weight": float(sketch.info.size), "unproven": unproven}
