"""The best tensor scale of a block format, or the best constant of its rule."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from .._check import check_choice
from .._types import Array
from ..densities.base import Density
from ..densities.blocks import BlockScaled
from ..errors.blocks import block_error, block_mse, mean_of_candidates
from ..errors.exact import Model, Rounding
from ..errors.octaves import octave_average, octave_mse
from ..grids.block_formats import BlockFormat
from ..grids.scale_formats import powers_of_two
from ..results import BlockScaleResult, Minimum, Status
from .densities.objective import Objective
from .densities.scan import Search
from .found import TOLERANCE, distinct

Free = Literal["scale", "constant"]
Error = Callable[[float], float]

# Places an octave at which a scan evaluates.
_PER_OCTAVE = 12
# Constants of a rule that are looked at.
_CONSTANTS = (0.25, 4.0)
_OCTAVES = (0.5, 2.0)
# A minimum is followed so far by comparing values, then by the derivative of the quartic through places so far apart.
_COMPARED, _APART = 1e-5, 2e-3
# Of a guide's dips so many are followed.
_FOLLOWED = 3


def best_block_scale(
    density: Density, form: BlockFormat, *, free: Free | None, model: Model, rounding: Rounding, certify: bool | None
) -> BlockScaleResult:
    """`optimal_scale` of a block format."""
    if density.shape:
        raise ValueError(f"density must have shape (), got {density.shape}; take one member after the other")
    stored, free = form.scale_format, _free(form, free)
    if stored is None:
        return _any_scale(density, form, model, rounding, certify)

    def with_scale(scale: float) -> float:
        return block_mse(density, form, scale, rounding, model)

    def with_constant(constant: float) -> float:
        return block_mse(density, form.replace(constant=constant), 1.0, rounding, model)

    def on_average(constant: float) -> float:
        return octave_mse(density, form.replace(constant=constant), rounding)

    if powers_of_two(stored):
        # Twice the scale is the scale of twice the density.
        error, (low, high) = (with_scale, (1.0, 2.0)) if free == "scale" else (on_average, _OCTAVES)
    elif free == "scale":
        error, (low, high) = with_scale, _useful(density, form)
    else:
        error, (low, high) = with_constant, _CONSTANTS
    repeats = error is with_scale and powers_of_two(stored)
    # Many octaves of what takes a quarter of a second.
    guided = form.rule == "best_of" and not repeats
    guide = (lambda s: mean_of_candidates(density, form, s, rounding)) if guided else None
    minima = _minima(error, low, high, repeats=repeats, guide=guide)
    best = minima[0].scale
    scale, constant = (best, form.constants[0]) if free == "scale" else (1.0, best)
    chosen = form if free == "scale" else form.replace(constant=best)
    if error is on_average:
        terms = octave_average(density, chosen, rounding=rounding).mean
    else:
        terms = block_error(density, chosen, scale, None, rounding, model)
    return BlockScaleResult(chosen, free, scale, constant, terms, tuple(minima), Status.LOCAL)


def _free(form: BlockFormat, free: Free | None) -> Free:
    """What may be chosen of a format, by default what there is."""
    # Without a tensor scale a format has none to choose: the ends of its scales would be all that it could use.
    either = free or ("scale" if form.tensor_scale else "constant")
    check_choice("free", either, ("scale", "constant"))
    if form.scale_format is None and either == "scale":
        raise ValueError("free must be 'constant' for block scales of any size, which no tensor scale changes")
    if form.rule == "best_of" and either == "constant":
        raise ValueError(f"free must be 'scale' for rule best_of, whose constants are given, got {free!r} for {form!r}")
    return either


def block_errors_to_compare(
    density: Density, form: BlockFormat, scale: ArrayLike | None, *, model: Model, rounding: Rounding
) -> tuple[Array, Array]:
    """The errors of a block format, and the least one over what the caller has chosen: tensor scale or constant."""
    stored = form.scale_format
    free: Free = "constant" if stored is None or (scale is None and not form.tensor_scale) else "scale"
    best = best_block_scale(density, form, free=free, model=model, rounding=rounding, certify=None).error.mse
    if free == "constant" and stored is not None and powers_of_two(stored):
        return np.asarray(octave_mse(density, form, rounding)), np.asarray(best)
    here = block_error(density, form, 1.0 if scale is None else scale, None, rounding, model).mse
    return np.asarray(here), np.asarray(best)


def _any_scale(
    density: Density, form: BlockFormat, model: Model, rounding: Rounding, certify: bool | None
) -> BlockScaleResult:
    """The constant as the scale of the scaled values: the search for one scale, with its proof."""
    blocks, own = BlockScaled(density, form), form.constants[0]
    found = Search(Objective(blocks, form.grid, np.zeros(1), rounding, model), certify).run()
    best = form.replace(constant=float(own * found.scale[0]))
    terms = block_error(density, best, 1.0, None, rounding, model)
    minima = tuple(Minimum(own * m.scale, 0.0, blocks.weight * m.mse) for m in found.minima[0])
    return BlockScaleResult(best, "constant", 1.0, best.constants[0], terms, minima, found.status[0])


def _useful(density: Density, form: BlockFormat) -> tuple[float, float]:
    """Tensor scales at which block scales are neither all at the lower nor all at the upper end."""
    assert form.scale_format is not None
    values = form.scale_format.levels[form.scale_format.levels > 0]
    typical = float(np.hypot(density.std, density.mean)) / form.grid.absmax
    return 0.25 * typical / float(values[-1]), 16 * typical / float(values[0])


def _minima(error: Error, low: float, high: float, *, repeats: bool, guide: Error | None = None) -> list[Minimum]:
    """All dips of a scan in equal ratios, followed to their minima, best first; of a period each once.

    With a guide, which is found faster, the few of its dips at which the error itself is least.
    """
    from scipy.optimize import minimize_scalar

    def mse(place: float) -> float:
        return error(2.0**place)

    count = int(np.ceil(_PER_OCTAVE * np.log2(high / low)))
    place = np.log2(low) + np.log2(high / low) * np.arange(count + 1) / count
    scan = error if guide is None else guide
    values = np.array([scan(2.0**p) for p in (place[:-1] if repeats else place)])
    # An end that is lower than what is beside it is a dip, too.
    before, after = (values[-1:], values[:1]) if repeats else (np.full(1, np.inf), np.full(1, np.inf))
    around = np.concatenate([before, values, after])
    dips = np.flatnonzero((values <= around[2:]) & (values < around[:-2]))
    width, starts = place[1] - place[0], place[dips]
    if guide is not None:
        here = np.array([mse(p) for p in starts])
        starts = np.array([_downhill(mse, p, width) for p in starts[np.argsort(here, kind="stable")[:_FOLLOWED]]])
    found = []
    for at in starts:
        near = minimize_scalar(mse, bounds=(at - width, at + width), method="bounded", options={"xatol": _COMPARED}).x
        found.append(_polished(mse, float(near)))
    scales = np.exp2(np.array(found))
    scales = np.where(repeats & (scales >= high), 0.5 * scales, np.where(repeats & (scales < low), 2 * scales, scales))
    least = np.array([mse(p) for p in found])
    return [Minimum(float(scales[i]), 0.0, float(least[i])) for i in distinct(np.argsort(least), scales, least)]


def _downhill(mse: Callable[[float], float], place: float, step: float) -> float:
    """Steps to the side that falls, to the place that is no higher than those beside it."""
    here, (left, right) = mse(place), (mse(place - step), mse(place + step))
    if min(left, right) >= here:
        return place
    step, next_ = (-step, left) if left < right else (step, right)
    while next_ < here:
        place, here, next_ = place + step, next_, mse(place + 2 * step)
    return place


def _polished(mse: Callable[[float], float], place: float) -> float:
    """The root of the derivative of the quartic through five places, which compared values do not resolve."""
    values = np.array([mse(place + k * _APART) for k in range(-2, 3)])
    slope = (values @ np.array([1, -8, 0, 8, -1])) / 12
    curve = (values @ np.array([-1, 16, -30, 16, -1])) / 12
    step = -slope / curve * _APART if curve > TOLERANCE * values[2] else 0.0
    return place + step if abs(step) < 2 * _APART else place
