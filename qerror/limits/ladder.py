"""The loss ladder: from what is possible at all to the scale in use, and what each step loses."""

from __future__ import annotations

import dataclasses
import weakref
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from .._check import check_scale, shown
from ..densities.base import Density
from ..errors.octaves import as_met
from ..errors.quantization import quantization_error
from ..grids.block_formats import BlockFormat, FormatLike, as_format
from ..grids.grid import Grid
from ..results import LossLadder, Rung, Status
from ..samples.empirical import Empirical
from ..search.lloyd_max import lloyd_max
from ..search.optimal import optimal_scale
from ..tensors.fitting import evaluate, fit
from .entropy_coded import entropy_coded
from .rate_distortion import MOST_BITS, rate_distortion


class _Asked(NamedTuple):
    """A density, and the tensor that it is of."""

    density: Density
    tensor: Any


def loss_ladder(
    density: Density | ArrayLike, grid: FormatLike, scale: float | None = None, *, shift: float = 0.0
) -> LossLadder:
    """What each step from Shannon's limit to a quantizer in use loses, in dB.

    The rungs, all at the bits a value that the format stores: the least error of any code (`rate_distortion`); the best
    entropy-coded scalar quantizer; the best codebook of as many levels (Lloyd-Max; of block formats the best levels for
    such blocks); this format at its best scale (block formats: with the best constant or tensor scale, of data the best
    stored scale of each block); and the scale in use (block formats: their own rule). The steps add up to the whole.

    Levels of data are proven to be the best, by a dynamic program over all cuts of the sorted values. Those of
    densities are a local optimum, the only one of a log-concave density. Limits and levels of a density are computed
    once and kept as long as the object is.

    Limits are for independent values. A block format on data also follows what neighbours have in common, and can be
    above the limit of the values one by one: such a step is negative.

    Parameters
    ----------
    density : Density or array_like
        Of shape (); or data, which block formats divide along the last axis.
    grid : Grid, BlockFormat or str
    scale : float, optional
        The one in use, units of x; the ladder ends at the best one without. Of a block format on a density the tensor
        scale.
    shift : float
        Of a grid.

    Returns
    -------
    LossLadder

    Raises
    ------
    ValueError
        For an array of densities, or a shift or data scale of a block format.

    Examples
    --------
    >>> import qerror as qe
    >>> qe.loss_ladder(qe.Gaussian(), "int4", 0.25)
    LossLadder int4, 4 bits a value
                     SQNR dB  lost dB
      Shannon         24.082           closed_form
      entropy-coded   22.549    1.533  local
      Lloyd-Max       20.222    2.327  local
      best scale      19.258    0.965  exact
      in use          16.496    2.762  given
      in all                    7.586
    """
    asked = _asked(density)
    form = as_format(grid)
    if isinstance(form, BlockFormat):
        if np.any(shift) or (asked.tensor is not None and scale is not None):
            raise ValueError(
                f"shift must be 0, and of data scale left out, for a block format, got {shown((scale, shift))}"
            )
        return _of_blocks(asked, form, scale)
    member, bits = asked.density, float(form.bits)
    _check_bits(bits)
    best = optimal_scale(member, form, shift=shift)
    rungs = [
        *_limits(member, bits),
        Rung(
            "Lloyd-Max", float(quantization_error(member, _codebook(member, len(form.levels)), 1.0).mse), _book(member)
        ),
        Rung("best scale", float(best.error.mse), best.status),
    ]
    if scale is not None:
        used = quantization_error(member, form, float(check_scale(scale)), shift)
        rungs.append(Rung("in use", float(used.mse), Status.GIVEN))
    # What is lower on the ladder is one of those that are searched above: no better one was found then.
    for i in range(len(rungs) - 2, 0, -1):
        rungs[i] = dataclasses.replace(rungs[i], mse=min(rungs[i].mse, rungs[i + 1].mse))
    return _ladder(form.name or str(form), member, bits, rungs)


def _check_bits(bits: float) -> None:
    if bits > MOST_BITS:
        raise ValueError(f"grid must have at most {MOST_BITS:g} bits a value, got {bits:g}: limits end there")


def _asked(density: Any) -> _Asked:
    if isinstance(density, Density):
        if density.shape:
            raise ValueError(f"density must have shape (), got {density.shape}; take one member after the other")
        return _Asked(density, None)
    if isinstance(density, str):
        raise ValueError(f"density must be a Density or data, got {density!r}; qerror.density({density!r}) makes one")
    tensor = np.asarray(density)
    return _Asked(Empirical(tensor.ravel()), tensor)


def _of_blocks(asked: _Asked, form: BlockFormat, scale: float | None) -> LossLadder:
    member, tensor = asked
    bits, count = form.bits_per_value(), len(form.grid.levels)
    _check_bits(bits)
    if tensor is not None:
        best = fit(tensor, form)
        statuses = set(np.atleast_1d(np.asarray(best.status, object)).ravel())
        rungs = [
            Rung("Lloyd-Max", float(quantization_error(member, _codebook(member, count), 1.0).mse), _book(member)),
            Rung("best scale", float(best.total.mse), statuses.pop() if len(statuses) == 1 else Status.LOCAL),
            Rung("in use", float(evaluate(tensor, form, measure=True).total.mse), Status.RULE),
        ]
        return _ladder(form.name, member, bits, [*_limits(member, bits), *rungs])
    best_of_rule = optimal_scale(member, form)
    used = as_met(member, form) if scale is None else quantization_error(member, form, scale)
    book = lloyd_max(member, count, block_size=form.block_size, signed=form.signed)
    in_blocks = quantization_error(member, BlockFormat(book, form.block_size, signed=form.signed))
    rungs = [
        Rung("Lloyd-Max in blocks", float(in_blocks.mse), Status.LOCAL),
        Rung("best scale", float(best_of_rule.error.mse), best_of_rule.status),
        Rung("in use", float(used.mse), Status.RULE if scale is None else Status.GIVEN),
    ]
    return _ladder(form.name, member, bits, [*_limits(member, bits), *rungs])


def _ladder(name: str, density: Density, bits: float, rungs: list[Rung]) -> LossLadder:
    power = float(density.std) ** 2 + float(density.mean) ** 2
    return LossLadder(name, bits, power, tuple(rungs))


def _book(density: Density) -> Status:
    """What is proven of Lloyd-Max levels: of samples a dynamic program over all cuts leaves no better ones."""
    return Status.LOCAL if density.panels().shape[-1] else Status.EXACT


# Limits are asked for again and again, of few densities, and do not depend on the format.
_KNOWN: weakref.WeakKeyDictionary[Density, dict[Any, Any]] = weakref.WeakKeyDictionary()


def _once(density: Density, key: Any, make: Callable[[], Any]) -> Any:
    known = _KNOWN.setdefault(density, {})
    if key not in known:
        known[key] = make()
    return known[key]


def _codebook(density: Density, count: int) -> Grid:
    found: Grid = _once(density, ("levels", count), lambda: lloyd_max(density, count))
    return found


def _limits(density: Density, bits: float) -> list[Rung]:
    """Shannon's limit and the best entropy-coded scalar quantizer."""
    found: list[Rung] = _once(density, ("limits", bits), lambda: _limits_anew(density, bits))
    return list(found)


def _limits_anew(density: Density, bits: float) -> list[Rung]:
    limit = rate_distortion(density, bits=bits)
    coded = entropy_coded(density, bits=bits)
    low, high = limit.mse_bracket
    return [
        Rung("Shannon", float(limit.mse), limit.status, (float(low), float(high))),
        Rung("entropy-coded", coded.mse, coded.status),
    ]
