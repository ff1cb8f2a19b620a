"""Where block formats are challenged, and which of the simulated terms can be held against a prediction."""

from __future__ import annotations

import dataclasses

import numpy as np

from ..densities.base import Density
from ..errors.octaves import USUAL_SIZE
from ..grids.block_formats import BlockFormat
from ..results import SimulatedTerms
from .sampling import tail_index

# Below, means over blocks are not normal enough six standard errors out: means of few blocks, and of few clipped ones.
LEAST_BLOCKS = 4096
_LEAST_CLIPPED = 1000.0
# Half of the terms' scatter is that of squares: its own takes the eighth moment.
_EIGHTH = 1.0 / 8 - 1e-6
_SQUARES = ("clipping", "rounding", "mse", "cross", "power")

PHRASES = {
    "below": "below the optimum",
    "at": "at the optimum",
    "above": "above the optimum",
    "half": f"half the tensor scale of {USUAL_SIZE} values",
    "own": f"the tensor scale of {USUAL_SIZE} values",
    "double": f"double the tensor scale of {USUAL_SIZE} values",
    "octave": "tensor scale",
    "octave + 1/3": "tensor scale",
    "octave + 2/3": "tensor scale",
    "any": "tensor scale",
}


def check_count(form: BlockFormat, n: int) -> None:
    """Enough values for as many blocks as make their means normal.

    Examples
    --------
    >>> from qerror.grids.block_formats import block_format
    >>> check_count(block_format("mxfp4"), 100_000)
    Traceback (most recent call last):
        ...
    ValueError: n must be at least 131072 with mxfp4, 4096 blocks of 32, got 100000
    """
    least = LEAST_BLOCKS * form.block_size
    if n < least:
        raise ValueError(
            f"n must be at least {least} with {form.name}, {LEAST_BLOCKS} blocks of {form.block_size}, got {n}"
        )


def is_predicted(form: BlockFormat) -> bool:
    """Whether `quantization_error` knows the format: not by rule optimal, nor best_of with four constants.

    Examples
    --------
    >>> from qerror.grids.block_formats import block_format
    >>> is_predicted(block_format("mxfp4"))
    True
    >>> is_predicted(block_format("mxfp4").replace(rule="optimal"))
    False
    """
    return form.rule != "optimal" and len(form.constants) <= 3


def tensor_scales(density: Density, form: BlockFormat) -> dict[str, float]:
    """Tensor scales by the names of their places.

    Of a format with a tensor scale half, one and two times that with which the magnitude that one in 2^20 values
    exceeds needs the largest stored scale; of other stored scales three places in an octave, which is all that can
    matter; of scales of any size, to which the tensor scale is nothing, one.

    Examples
    --------
    >>> from qerror.densities.parametric import Gaussian
    >>> from qerror.grids.block_formats import block_format
    >>> places = tensor_scales(Gaussian(), block_format("mxfp4"))
    >>> {place: round(scale, 3) for place, scale in places.items()}
    {'octave': 1.0, 'octave + 1/3': 1.26, 'octave + 2/3': 1.587}
    """
    if form.scale_format is None:
        return {"any": 1.0}
    if form.full_scale is None:
        return {"octave": 1.0, "octave + 1/3": 2.0 ** (1 / 3), "octave + 2/3": 2.0 ** (2 / 3)}
    largest = max(abs(float(density.isf(1.0 / USUAL_SIZE))), abs(float(density.quantile(1.0 / USUAL_SIZE))))
    own = largest / (form.full_scale * form.grid.absmax)
    return {"half": 0.5 * own, "own": own, "double": 2.0 * own}


def only_honest(density: Density, found: SimulatedTerms) -> SimulatedTerms:
    """A simulation of blocks, with nan for every standard error that says too little six of them away.

    Examples
    --------
    >>> from qerror.densities.shaped import StudentT
    >>> from qerror.evidence.simulation import simulate
    >>> found = simulate(StudentT(5), "mxfp4", n=10_000, rng=1)
    >>> only_honest(StudentT(5), found).reason
    'the tail of student-t:df=5 falls as x^-5: E[x^8] is infinite, and so is the scatter of squares'
    """
    stderr = {field.name: getattr(found.stderr, field.name) for field in dataclasses.fields(found.stderr)}
    reasons = [found.reason] if found.reason else []
    index = tail_index(density)
    if index >= _EIGHTH:
        stderr |= {term: np.full_like(stderr[term], np.nan)[()] for term in _SQUARES}
        tail = f"the tail of {density.name} falls as x^-{1.0 / index:.3g}"
        reasons.append(f"{tail}: E[x^8] is infinite, and so is the scatter of squares")
    known = np.isfinite(stderr["clipping"]) & (stderr["clipping"] > 0)
    clipped = np.square(found.estimate.clipping / np.where(known, stderr["clipping"], np.inf))
    few = known & (clipped < _LEAST_CLIPPED)
    if few.any():
        stderr["clipping"] = np.where(few, np.nan, stderr["clipping"])[()]
        reasons.append(
            f"too few blocks were clipped (as good as {int(clipped[few].max())}; {_LEAST_CLIPPED:.0f} count)"
        )
    return dataclasses.replace(found, stderr=dataclasses.replace(found.stderr, **stderr), reason="; ".join(reasons))
