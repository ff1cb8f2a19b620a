"""What a tensor of a sketch looks like in a format with one scale; of its rows nothing is known."""

from __future__ import annotations

import math

import numpy as np

from ...errors.quantization import quantization_error
from ...grids.formats import grid as as_grid
from ...rules import minmax
from ..planning.errors import FormatError
from ..sketch import Sketch, TensorSketch
from .profiles import CLIPS, OUTLIER, Profile, histogram


def sketch_profile(sketch: TensorSketch, text: str, error: FormatError) -> Profile:
    """Draw from the values, or the means of their bins, and how often each is there."""
    grid, sample = as_grid(text), sketch.density()
    (answer,) = Sketch("", {sketch.info.name: sketch}, {}).ask(text)
    values, mass = sample.atoms
    moments = sketch.moments()
    mean, std = moments.mean, math.sqrt(moments.second / moments.number)
    least, greatest = sample.support
    peak = float(minmax(sample, grid).scale)
    edges, counts = histogram(values / answer.scales[1], grid.levels, mass * moments.number)
    return Profile(
        text,
        math.prod(sketch.info.shape[:-1]),
        math.prod(sketch.info.shape[:-1]),
        std,
        float(max(abs(least), abs(greatest))),
        float(mass[np.abs(values - mean) > OUTLIER * std].sum()) if std else 0.0,
        edges,
        np.rint(counts).astype(np.int64),
        grid.levels,
        np.asarray(quantization_error(sample, grid, peak * CLIPS).mse),
        error.mse,
        error.minmax,
        error.power,
        [],
    )
