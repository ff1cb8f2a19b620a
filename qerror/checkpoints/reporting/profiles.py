"""What a tensor looks like in one format: values over their scales, error against clip, the rows that lose most."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...casting.block_scales import tensor_scale_of
from ...files.elements import TensorInfo
from ...files.mapping import Checkpoint
from ...tensors.fitting import evaluate, fit
from ..fitting import Largest
from ..recipe import Recipe, split_format
from .present import Finder, Present

# Values that a profile looks at, about; of larger tensors evenly spaced rows.
SAMPLE = 1 << 19
# Clips over the largest magnitude of each group.
CLIPS = np.unique(np.append(np.round(np.geomspace(0.3, 1.25, 32), 4), 1.0))
_BINS, _WORST = 61, 5
# Where an outlier begins, in standard deviations.
OUTLIER = 6.0


@dataclasses.dataclass(frozen=True)
class Profile:
    """A tensor in one format, on `rows` of its rows.

    Attributes
    ----------
    format : str
    rows, of : int
        How many rows were looked at, and how many there are.
    std, largest, outliers : float
        Standard deviation, largest magnitude, and the share of values beyond 6 standard deviations.
    edges, counts : ndarray
        Histogram of the values over the best scale of their group: the axis of the levels.
    levels : ndarray
    mse : ndarray
        At each of `CLIPS`: mean squared error with the clip so far from each group's largest magnitude, any scale.
    best, minmax : float
        MSE with the best scale of each group, and with minmax scales, as the format stores them.
    power : float
    worst : list of (int, float)
        Rows with the least SQNR, and that in dB.
    present : Present or None
        The scales in use, where there are such.
    """

    format: str
    rows: int
    of: int
    std: float
    largest: float
    outliers: float
    edges: NDArray[Any]
    counts: NDArray[Any]
    levels: NDArray[Any]
    mse: NDArray[Any]
    best: float
    minmax: float
    power: float
    worst: list[tuple[int, float]]
    present: Present | None = None


def profile(
    checkpoint: Checkpoint, info: TensorInfo, text: str, largest: Largest, present: Finder | None = None
) -> Profile:
    """Look at some rows of a tensor."""
    chosen, x = _rows(checkpoint, info)
    recipe = Recipe((text,))
    form, options = recipe.form(text), recipe.of(text)
    if form.full_scale is not None:
        options["tensor_scale"] = tensor_scale_of(largest(info.name), form.grid, form.full_scale)
    name = split_format(text)[0]
    found = fit(x, name, rule="optimal", measure=False, **options)
    back = np.asarray(found.dequantize(found.quantize(x)), np.float64)
    exact = x.astype(np.float64)
    away = np.square(back - exact)
    groups = recipe.groups(text, x.shape)
    scales = np.broadcast_to(groups.spread(np.asarray(found.scale, np.float64)), x.shape)
    levels = np.asarray(form.grid.levels)
    edges, counts = histogram(exact / scales, levels)
    std = float(exact.std())
    return Profile(
        text,
        len(chosen),
        math.prod(info.shape[:-1]),
        std,
        float(np.abs(exact).max()),
        float(np.mean(np.abs(exact - exact.mean()) > OUTLIER * std)) if std else 0.0,
        edges,
        counts,
        levels,
        _against_clip(x, form, recipe.groups(text, x.shape).tile, options),
        float(away.mean()),
        float(fit(x, name, rule="minmax", measure=False, **options).total.mse),
        float(np.square(exact).mean()),
        _worst(chosen, exact, away),
        None if present is None else present(info, chosen, x),
    )


def _rows(checkpoint: Checkpoint, info: TensorInfo) -> tuple[NDArray[np.intp], NDArray[Any]]:
    """Evenly spaced rows along the last axis, as a matrix: all of them where there are few."""
    width = info.shape[-1] if info.shape else 1
    rows = info.size // width
    if info.size <= SAMPLE:
        return np.arange(rows), checkpoint[info.name].reshape(rows, width)
    chosen = np.unique(np.linspace(0, rows - 1, max(1, SAMPLE // width)).round().astype(np.intp))
    parts = [checkpoint.part(info.name, row * width, (row + 1) * width) for row in chosen.tolist()]
    return chosen, np.stack(parts)


def histogram(
    scaled: NDArray[Any], levels: NDArray[Any], weights: NDArray[Any] | None = None
) -> tuple[NDArray[Any], NDArray[Any]]:
    """Counts over the levels and a quarter beyond; what lies further counts in the outermost bins."""
    end = 1.25 * float(np.abs(levels).max())
    edges = np.linspace(-end, end, _BINS + 1)
    counts, _ = np.histogram(np.clip(scaled, -end, end), edges, weights=weights)
    return edges, counts


def _against_clip(x: NDArray[Any], form: Any, tile: tuple[int, ...], options: dict[str, Any]) -> NDArray[Any]:
    """MSE at each of `CLIPS`, for scales of any size."""
    axis = options.get("axis")
    layout = {"block_size": form.block_size} if form.block_size is not None else {"axis": axis}
    peaks = fit(x, form.grid, rule="minmax", measure=False, **layout).scale
    return np.array([float(evaluate(x, form.grid, peaks * clip, measure=False, **layout).total.mse) for clip in CLIPS])


def _worst(chosen: NDArray[np.intp], exact: NDArray[Any], away: NDArray[Any]) -> list[tuple[int, float]]:
    power, error = np.square(exact).mean(axis=1), away.mean(axis=1)
    known = np.flatnonzero((power > 0) & (error > 0))
    db = 10 * np.log10(power[known] / error[known])
    order = np.argsort(db)[:_WORST]
    return [(int(chosen[known[i]]), float(db[i])) for i in order]
