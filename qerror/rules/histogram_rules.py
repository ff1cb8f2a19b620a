"""Scale rules of inference toolkits that look at a histogram: the entropy calibrator and AIMET's weighted clipping.

Both read the probabilities of bins between the least and the greatest value, from a sample or from a bounded density.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.special import xlogy

from .._check import as_int
from .._threads import chunk_slices
from .._types import Array, Index
from ..densities.base import Density
from ..errors.exact import flatten
from ..grids.formats import grid as as_grid
from ..grids.grid import Grid
from .base import RuleResult, as_number, bounds, fixed_shift, settled_result

# Numbers at a time: a handful of temporaries of this many float64.
_AT_ONCE = 1 << 21
# Divergences this close are one: the sums of a candidate are rounded.
_SAME = 1e-12
# AIMET tries these shares of the scale that covers everything.
_SHARES = np.arange(1, 102) / 100


def entropy(
    density: Density, grid: Grid | str, *, shift: Any = 0.0, bins: int = 2048, start_bin: int = 128
) -> RuleResult:
    """The entropy calibrator: the clip whose histogram, cut and coarsened, is nearest in KL divergence to the cut one.

    |x - z| is counted in `bins` equal bins up to its maximum, the first of which (zeros) is given the count of the
    second. For each number i of bins from `start_bin` on, P is the first i bins with all that lies beyond added to the
    last; Q merges them into K equal groups and spreads the count of each group, without what lies beyond, evenly over
    those of its bins that hold anything. The i of least KL(P || Q) gives the clip, the upper end of its last bin; of
    equal ones the largest. s = clip / l_{K-1}, K the number of levels >= 0: 128 for int8.

    This is the version of NVIDIA's pytorch-quantization and ModelOpt (`calib/histogram.py`, "entropy"). ONNX Runtime
    has one of its own over both signs, with 128 levels and no smoothing of the zero bin.

    Parameters
    ----------
    density, grid, shift
        As in `minmax`; shift not "optimal". Grids of equal steps.
    bins : int
        2048; some use 2001.
    start_bin : int
        The fewest bins of a clip; `bins` where these are fewer.

    References
    ----------
    Migacz, 8-bit Inference with TensorRT, GTC 2017; microsoft/onnxruntime pull request 6619.

    Examples
    --------
    >>> import qerror as qe
    >>> from qerror.rules import minmax
    >>> x = qe.Empirical(qe.Laplace().sample(100_000, rng=0))
    >>> [round(float(rule(x, "int8").scale * 127), 3) for rule in (entropy, minmax)]
    [6.766, 8.449]
    """
    levels, z = as_grid(grid), fixed_shift("entropy", density, shift)
    count, first = as_int("bins", bins, 2), as_int("start_bin", start_bin, 1)
    if levels.step is None or levels.max <= 0:
        raise ValueError(
            f"rule entropy is not defined on {levels.name or repr(levels)}; it is on grids of equal steps with a level "
            "above 0"
        )
    low, high = bounds("entropy", density)
    largest = np.maximum(high - z, z - low)
    members, most, centre, shape = flatten(density, np.where(largest > 0, largest, 1.0), z)
    # With more groups than bins each bin is one of its own.
    groups = min(int(np.count_nonzero(levels.levels >= 0)), count)
    cuts = np.arange(min(first, count), count + 1)
    # First bin of each group for every candidate, that is ceil(g i / K).
    starts = -(-np.arange(groups + 1) * cuts[:, None] // groups)
    clip = np.empty(most.size)
    for part in chunk_slices(most.size, max(1, _AT_ONCE // starts.size)):
        here = members.take(np.arange(most.size)[part]) if members.shape else members
        ends = most[part] / count * np.arange(count + 1)[:, None]
        ends[-1] = most[part]
        # Bins are closed below, the last one on both sides.
        inside = np.nextafter(ends, -np.inf)
        inside[-1] = ends[-1]
        upto = here.cdf(centre[part] + inside) - here.cdf(np.nextafter(centre[part] - inside, -np.inf))
        upto[0], upto[-1] = 0.0, 1.0
        chosen = cuts.size - 1 - _divergences(np.diff(upto, axis=0).T, cuts, starts)[:, ::-1].argmin(axis=1)
        clip[part] = ends[cuts[chosen], np.arange(chosen.size)]
    return settled_result(density, levels, np.where(largest > 0, clip.reshape(shape), 0.0) / levels.max, z)


def _divergences(mass: Array, cuts: Index, starts: Index) -> Array:
    """KL(P || Q) of every row and candidate, equal ones rounded to the same number."""
    mass = np.maximum(mass, 0.0)
    mass[:, 0] = mass[:, 1]
    sums, held, logs = (
        np.concatenate([np.zeros((len(mass), 1)), np.cumsum(part, axis=1)], axis=1)
        for part in (mass, mass > 0, xlogy(mass, mass))
    )
    beyond = sums[:, -1:] - sums[:, cuts]
    last = mass[:, cuts - 1]
    merged, spread = np.diff(sums[:, starts], axis=2), np.diff(held[:, starts], axis=2)
    height = np.divide(merged, spread, out=np.zeros_like(merged), where=spread > 0)
    final = np.where(last > 0, height[:, :, -1], 0.0)
    with np.errstate(divide="ignore", invalid="ignore"):
        # Sums over bins of P log P and P log Q; all of a group but what lies beyond sees one height.
        own = logs[:, cuts] - xlogy(last, last) + xlogy(last + beyond, last + beyond)
        other = xlogy(merged, height).sum(axis=2) + xlogy(beyond, final)
        total, kept = sums[:, -1:], sums[:, cuts]
        out = (own - other) / total - np.log(total) + np.log(kept)
    out = np.where(np.isfinite(out), out, np.inf)
    least = out.min(axis=1, keepdims=True)
    return np.where(out <= least + _SAME, least, out)


def clipping_weighted(
    density: Density, grid: Grid | str, *, shift: Any = 0.0, gamma: float = 3.0, bins: int = 512
) -> RuleResult:
    """AIMET's TF-Enhanced rule: the least rounding error plus `gamma` times clipping error, over a histogram.

    `bins` equal bins from the least to the greatest value (z among them) stand for their middles. The bins that hold
    the end values z + s l_0 and z + s l_{K-1} are found; bins beyond these are clipped to the middle of theirs, those
    between are rounded to the nearest level. Of the scales 0.01, 0.02, ... 1.01 times 2 max|x - z| / (l_{K-1} - l_0)
    (on a grid with levels on one side of z alone, times that side's maximum / (l_{K-1} - l_0)) the first of least cost.

    This is the symmetric version of the code (`TfEnhancedEncodingAnalyzer`, 2019 to 2022: 101 deltas, the offset
    given). Left out are its least range of 0.01, which depends on the unit of x, and the room that its histogram
    leaves for further batches.

    Parameters
    ----------
    density, grid, shift
        As in `minmax`; shift not "optimal".
    gamma : float
        Weight of clipping; 1 is the mean squared error, as far as the histogram knows it.
    bins : int

    Examples
    --------
    >>> import qerror as qe
    >>> x = qe.Empirical(np.linspace(-1, 1, 99) ** 3)
    >>> [round(float(clipping_weighted(x, "int4", gamma=gamma).scale), 4) for gamma in (1, 3)]
    [0.128, 0.1347]
    """
    levels, z = as_grid(grid), fixed_shift("clipping_weighted", density, shift)
    weight, count = as_number("gamma", gamma), as_int("bins", bins, 2)
    low, high = bounds("clipping_weighted", density)
    above, below = np.maximum(high - z, 0.0), np.maximum(z - low, 0.0)
    sides = [side for side, end in ((above, levels.max), (below, -levels.min)) if end > 0]
    reach = sides[0] if len(sides) == 1 else 2 * np.maximum(above, below)
    whole = reach / (levels.max - levels.min)
    members, most, centre, shape = flatten(density, np.where(whole > 0, whole, 1.0), z)
    start, stop = (np.broadcast_to(end, shape).ravel() for end in (-below, above))
    best = np.empty(most.size)
    for part in chunk_slices(most.size, max(1, _AT_ONCE // (_SHARES.size * count))):
        here = members.take(np.arange(most.size)[part]) if members.shape else members
        width = (stop - start)[part] / count
        ends = start[part] + width * np.arange(count + 1)[:, None]
        upto = here.cdf(np.nextafter(centre[part] + ends, -np.inf))
        upto[0], upto[-1] = 0.0, 1.0
        scales = most[part][:, None] * _SHARES
        cost = _weighted(np.diff(upto, axis=0).T, start[part], width, scales, levels, weight)
        best[part] = scales[np.arange(len(cost)), cost.argmin(axis=1)]
    return settled_result(density, levels, np.where(whole > 0, best.reshape(shape), 0.0), z)


def _weighted(mass: Array, start: Array, width: Array, scales: Array, grid: Grid, gamma: float) -> Array:
    """Cost of every row and scale, in bins' middles relative to z."""
    count = mass.shape[1]
    start, width = start[:, None], np.where(width > 0, width, 1.0)[:, None]
    middles = start + width * (np.arange(count) + 0.5)
    first, last = (
        np.clip(np.floor((scales * end - start) / width), 0, count - 1)[:, :, None] for end in (grid.min, grid.max)
    )
    place = np.arange(count)
    level = grid.levels[np.searchsorted(grid.thresholds, middles[:, None, :] / scales[:, :, None])]
    rounded = np.square(middles[:, None, :] - scales[:, :, None] * level)
    clipped = gamma * np.square(width[:, :, None] * np.maximum(np.maximum(first - place, place - last), 0.0))
    inner = (place >= first) & (place < last)
    return np.asarray(np.einsum("ik,ijk->ij", mass, np.where(inner, rounded, clipped)))
