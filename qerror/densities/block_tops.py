"""The values that are the largest of their block: what part of an error is theirs."""

from __future__ import annotations

import numpy as np

from .._types import Array
from .block_maxima import finite
from .blocks import BlockScaled

# Width of panels in log x.
_LOG_STEP = 0.5


def largest_values(blocks: BlockScaled, ends: Array) -> tuple[Array, Array, Array]:
    """Values x that are the largest of their block, what each counts, and its scale: nodes of an integral.

    The counts add up to 1 / B. Between nodes of a panel x / scale meets none of `ends`.

    Examples
    --------
    >>> import qerror as qe
    >>> _, count, _ = largest_values(qe.BlockScaled(qe.Gaussian(), "mxfp4"), qe.grid("e2m1").thresholds)
    >>> round(32 * float(count.sum()), 12)
    1.0
    """
    _, x, scale, lower, upper, _ = blocks.tops
    tops = np.concatenate([-x, x]), np.concatenate([lower, upper]), np.tile(scale, 2)
    if blocks.form.scale_format is None:
        return tops
    x, count, scale = (np.concatenate(parts) for parts in zip(_rings(blocks, ends), tops, strict=True))
    return x, count, scale


def _rings(blocks: BlockScaled, ends: Array) -> tuple[Array, Array, Array]:
    """Nodes in the rings of stored scales."""
    low, high = blocks.largest.span
    shells = blocks.shells.select((blocks.shells.own > 0) & (blocks.shells.outer > low))
    points = np.unique(np.abs(ends))
    steps = np.exp(np.arange(np.log(low), np.log(high), _LOG_STEP))
    known = np.abs(
        np.concatenate([steps, blocks.largest.marks, finite(blocks.base.panels()), finite(blocks.base.kinks)])
    )
    first, last = np.maximum(shells.inner, low)[:, None], np.minimum(shells.outer, high)[:, None]
    known = np.broadcast_to(known, (first.size, known.size))
    cuts = np.concatenate([first, shells.scale[:, None] * points, known, last], axis=1)
    cuts = np.sort(np.clip(cuts, first, np.maximum(first, last)), axis=1)
    row, at = np.nonzero(cuts[:, 1:] > cuts[:, :-1])
    x, weight, owner = blocks.largest.between(cuts[row, at], cuts[row, at + 1])
    count = weight * shells.own[row[owner]] * blocks.largest.below(x)
    both = np.concatenate([-x, x])
    upper = np.asarray(blocks.base.pdf(x))
    lower = upper if blocks.symmetric else np.asarray(blocks.base.pdf(-x))
    return both, np.tile(count, 2) * np.concatenate([lower, upper]), np.tile(shells.scale[row[owner]], 2)
