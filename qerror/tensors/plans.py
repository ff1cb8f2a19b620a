"""What is chosen for every group: scale, shift and zero point."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .._check import check_finite, check_scale, check_shift, shown
from .._threads import chunk_slices, one_thread, thread_map
from .._types import Array
from ..densities.base import Density
from ..densities.estimation import fit_density
from ..densities.parametric import Gaussian
from ..grids.grid import Grid
from ..results import Status
from ..rules import (
    RULES,
    BlockRule,
    aciq,
    analytic,
    iterative,
    minmax,
    ocp,
    octav,
    optimal,
    sawb,
    shrink_search,
    signed_absmax,
)
from ..rules.base import RuleResult, either, is_word
from ..samples.empirical import Empirical
from ..samples.row_moments import RowMoments
from ..search.found import TOLERANCE
from ..search.optimal import optimal_scale
from ..search.samples.best_scale import best_of_rows
from .by_format import best_by_rounding, by_block_rule
from .choices import Choice, Plan, flat
from .groups import Grouped
from .measuring import measure_rows
from .scale_formats import Stored, best_stored
from .zero_points import best_zero_point, exact_pair

# These read extremes and a few moments: sorting the values for them would be most of the work.
_FROM_MOMENTS = (minmax, ocp, signed_absmax, analytic, aciq, octav, sawb)
# Elements whose rows are fitted together: a quarter of the tensor, within limits. Smaller parts keep threads waiting
# for the interpreter lock; a search for the scale alone needs little memory for each, and may have more of them.
_FEWEST, _CHUNK, _SEARCH_CHUNK = 1 << 19, 1 << 20, 1 << 22
# The search for stored scales remembers all that it has looked at: its rows are fitted in smaller parts.
_STORED_CHUNK = 1 << 17
# Larger zero points are not exact in float64, and no other program has them.
_MOST_ZERO_POINT = 2.0**53
# Rows up to here are rounded at some stored scales sooner than their thresholds are sorted in.
_SHORT = 1 << 9
# Values to which family="auto" is fitted, evenly spread over the tensor.
_POOLED = 1 << 22
_COLUMNS = ("scale", "shift", "status")


def choose(tensor: Grouped, plan: Plan) -> list[Choice]:
    """Choose for every group: one `Choice` for each part of the groups."""
    parts, chosen = tensor.parts(), []
    word = isinstance(plan.shift, str)
    shifts = [plan.shift] * len(parts) if word else tensor.groups.split(plan.shift)
    for (rows, weights), shift in zip(parts, shifts, strict=True):

        def work(some: slice, rows: Any = rows, weights: Any = weights, shift: Any = shift) -> Choice:
            at = shift if word else shift[some]
            some_weights = None if weights is None else weights[some]
            return choose_rows(rows[some], some_weights, at, plan, alone=tensor.groups.scale_shape == ())

        try:
            # Rows are settled one by one, so that larger parts change the time alone.
            fewest = _CHUNK if one_thread() else _FEWEST
            chosen.append(_joined(thread_map(work, _chunks(rows, _elements(plan), fewest))))
        except ValueError:
            # What a chunk says of NaN counts within that chunk.
            check_finite("x", tensor.values)
            raise
    return chosen


def _elements(plan: Plan) -> int:
    """How many elements are fitted together at most."""
    if plan.stored is not None:
        return _STORED_CHUNK
    alone = plan.rule is optimal and plan.zero_point is None and not isinstance(plan.shift, str)
    return _SEARCH_CHUNK if alone else _CHUNK


def _chunks(rows: NDArray[Any], most: int, fewest: int = _FEWEST) -> list[slice]:
    return chunk_slices(len(rows), max(1, min(max(rows.size // 4, fewest), most) // rows.shape[1]))


def _joined(parts: list[Choice]) -> Choice:
    if len(parts) == 1:
        return parts[0]
    scale, shift, status = (np.concatenate([getattr(part, name) for part in parts]) for name in _COLUMNS)
    integers = [part.zero_point for part in parts if part.zero_point is not None]
    return Choice(scale, shift, status, np.concatenate(integers) if integers else None)


def with_family(plan: Plan, tensor: Grouped) -> Plan:
    """Replace family="auto" by what fits the whole tensor: its groups pooled, each standardized."""
    rule, values = plan.rule, tensor.values
    if not (isinstance(rule, partial) and rule.keywords.get("family") == "auto"):
        return plan
    check_finite("x", values)
    # An odd step meets all columns of a matrix whose length is a power of two.
    step, pooled = 1 if values.size <= _POOLED else values.size // _POOLED | 1, []
    pairs = ((part, w, some) for part, w in tensor.parts() for some in _chunks(part, _CHUNK))
    for rows, weights in ((part[some], None if w is None else w[some]) for part, w, some in pairs):
        has = None if weights is None else (weights > 0).astype(np.float64)
        members = RowMoments(rows, has)
        used = members.std > 0
        some = rows[used, ::step].astype(np.float64)
        some -= members.mean[used, None]
        some /= members.std[used, None]
        pooled.append(some.ravel() if has is None else some[has[used, ::step] > 0])
    sample = np.concatenate(pooled)
    family = fit_density(sample) if sample.size else Gaussian()
    options = {**rule.keywords, "family": family.name}
    label = f"{plan.label.partition(':')[0]}:" + ",".join(f"{key}={value}" for key, value in options.items())
    return dataclasses.replace(plan, rule=partial(rule.func, **{**rule.keywords, "family": family}), label=label)


def choose_rows(rows: NDArray[Any], weights: Array | None, shift: Any, plan: Plan, *, alone: bool = False) -> Choice:
    """Choose for each row of `rows`; `shift` is "mean", "optimal" or an array of one entry a row.

    With `alone` the tensor is one group, which a rule of the user's sees as one distribution, of numbers.
    """
    if plan.either_sign:
        return _better_sign(rows, weights, shift, plan, alone)
    if plan.rule is optimal:
        return _best(rows, weights, shift, plan)
    if isinstance(plan.rule, BlockRule):
        return by_block_rule(rows, weights, shift, plan, plan.rule)
    function = plan.rule.func if isinstance(plan.rule, partial) else plan.rule
    sample = RowMoments(rows, weights) if function in _FROM_MOMENTS else Empirical(rows, weights, axis=0)
    rule = plan.rule
    if plan.zero_point is not None:
        shift = "optimal" if function in (minmax, iterative, shrink_search) else "mean"
        if plan.zero_point == "storable" and function in (minmax, shrink_search):
            # Only a range that has 0 in it has its zero point among the codes.
            rule = partial(rule, include_zero=True)
    # A NaN must not pass for a moment that is 0.
    _ = sample.support
    if alone and function not in RULES.values():
        sample, shift = sorted_sample(rows, weights), shift if isinstance(shift, str) else float(shift[0])
    found = _as_result(rule(sample, plan.grid, shift=shift), sample, shift)
    choice = flat(len(rows), found.scale, found.shift, found.status)
    if (choice.scale < 0).any() and (plan.stored is not None or plan.zero_point is not None):
        taken = "scale_format" if plan.stored is not None else "zero_point"
        if plan.stored is not None:
            raise ValueError(f"rule {plan.label} does not store its scales; rule='absmax:signed=true' does")
        raise ValueError(f"rule {plan.label} gives negative scales, which {taken} has not; leave {taken} out")
    if plan.stored is not None:
        # Rounded down, minmax would clip, by half its range on powers of two.
        rounded = plan.stored.at_least if function is minmax else plan.stored.nearest
        choice = dataclasses.replace(choice, scale=np.atleast_1d(rounded(choice.scale)))
    return choice if plan.zero_point is None else _with_zero_point(choice, sample, plan)


def _as_result(found: Any, sample: Density, shift: Any) -> RuleResult:
    """What a rule returned; functions of the user's may return a scale, or a scale and a shift."""
    if isinstance(found, RuleResult):
        return found
    if isinstance(found, tuple) and len(found) != 2:
        raise ValueError(f"a rule must return a RuleResult, a scale, or a pair of scale and shift, got {shown(found)}")
    scale, at = found if isinstance(found, tuple) else (found, sample.mean if isinstance(shift, str) else shift)
    return RuleResult(check_scale(scale), check_shift(at), Status.RULE)


def _better_sign(rows: NDArray[Any], weights: Array | None, shift: Any, plan: Plan, alone: bool) -> Choice:
    """Of the choices on the grid and on its mirror image the one of less error."""
    positive = dataclasses.replace(plan, either_sign=False)
    plus = choose_rows(rows, weights, shift, positive, alone=alone)
    if plan.grid.half is not None or (isinstance(plan.rule, BlockRule) and (plus.scale < 0).any()):
        return plus
    mirrored = dataclasses.replace(positive, grid=Grid(-plan.grid.levels[::-1]))
    minus = choose_rows(rows, weights, shift, mirrored, alone=alone)
    errors = [
        measure_rows(rows, weights, grid, part.scale, part.shift).sums[:2].sum(axis=0)
        for grid, part in ((plan.grid, plus), (mirrored.grid, minus))
    ]
    turned = errors[1] < errors[0] * (1 - TOLERANCE)
    status = np.where(turned, minus.status, plus.status)
    # Proven only where the other sign is, too.
    other = np.where(turned, plus.status, minus.status)
    weaker = (status == Status.EXACT) & ((other == Status.SCANNED) | (other == Status.LOCAL))
    status[weaker] = other[weaker]
    scale = np.where(turned, -minus.scale, plus.scale)
    return Choice(scale, np.where(turned, minus.shift, plus.shift), status)


def _with_zero_point(choice: Choice, sample: Density, plan: Plan) -> Choice:
    """The choice of a rule with its zero point rounded; constants are represented as they are."""
    zero_point = np.rint(-choice.shift / choice.scale)
    if plan.zero_point == "storable":
        zero_point = np.clip(zero_point, plan.grid.min, plan.grid.max)
    least, most = (np.broadcast_to(end, choice.scale.shape) for end in sample.support)
    # A shift that is farther away than steps can be counted makes a row as good as constant.
    constant = ((least == most) | (np.abs(choice.shift) > _MOST_ZERO_POINT * choice.scale)) & (least * most > 0)
    if constant.any():
        if plan.stored is None:
            scale, exact = exact_pair(plan.grid, least)
        else:
            # 0 and the value within the ends.
            scale = plan.stored.at_least(np.abs(least) / (plan.grid.max - plan.grid.min))
            exact = np.where(least > 0, plan.grid.min, plan.grid.max)
        zero_point = np.where(constant, exact, zero_point)
        choice = dataclasses.replace(choice, scale=np.where(constant, scale, choice.scale))
        choice = dataclasses.replace(choice, status=either(constant, Status.RULE, choice.status))
    return _with_integer(choice, zero_point)


def _with_integer(choice: Choice, zero_point: Array) -> Choice:
    # Minus zero would be shown as such.
    shift = -zero_point * choice.scale + 0.0
    return dataclasses.replace(choice, shift=shift, zero_point=zero_point.astype(np.int64))


def _best(rows: NDArray[Any], weights: Array | None, shift: Any, plan: Plan) -> Choice:
    """The exact minimum of what may be chosen."""
    stored, count = plan.stored, len(rows)
    if plan.zero_point is not None:
        sample = Empirical(rows, weights, axis=0)
        search = best_scales if stored is None else lambda density, grid: _stored(density, grid, 0.0, stored)
        storable, scales = plan.zero_point == "storable", None if stored is None else stored.values
        scale, zero_point, status = best_zero_point(sample, plan.grid, search, storable=storable, scales=scales)
        return _with_integer(flat(count, scale, 0.0, status), zero_point.astype(np.float64))
    if stored is not None and not is_word(shift, "optimal") and (plan.form is not None or rows.shape[1] <= _SHORT):
        at = np.broadcast_to(RowMoments(rows, weights).mean if isinstance(shift, str) else shift, count)
        return best_by_rounding(rows, weights, at, plan.grid, stored, zero=plan.form is not None)
    grid, half = plan.grid, plan.grid.half
    if half is not None and stored is None and not isinstance(shift, str) and not np.any(shift):
        # The same error from half of the thresholds.
        grid, sample = half, sorted_sample(np.abs(rows), weights, Empirical.in_place)
    else:
        sample = sorted_sample(rows, weights)
    if is_word(shift, "optimal"):
        free = optimal_scale(sample, plan.grid, shift=shift)
        if stored is None:
            return flat(count, free.scale, free.shift, free.status)
        scale, status = _stored(sample, plan.grid, np.ravel(free.shift), stored)
        return flat(count, scale, free.shift, either(status == Status.EXACT, Status.LOCAL, status))
    at = np.broadcast_to(sample.mean if isinstance(shift, str) else shift, count)
    if stored is not None:
        scale, status = _stored(sample, grid, at, stored)
    else:
        scale, status = best_of_rows(sample, grid, at)
    return flat(count, scale, at, status)


def best_scales(density: Density, grid: Grid, shift: Any = 0.0) -> tuple[Array, NDArray[np.object_]]:
    """The best scale of each row at a given shift, and its status."""
    found = best_of_rows(density, grid, np.broadcast_to(np.asarray(shift, np.float64), density.shape))
    return found.scale, found.status


def _stored(density: Density, grid: Grid, shift: Any, stored: Stored) -> tuple[Array, NDArray[np.object_]]:
    at = np.asarray(shift, np.float64)
    return best_stored(density, grid, np.broadcast_to(at, np.broadcast_shapes(at.shape, density.shape)), stored)


def sorted_sample(rows: NDArray[Any], weights: Array | None, make: Callable[..., Empirical] = Empirical) -> Empirical:
    """The exact sample of rows; of one row as a single distribution, whose repeated values are counted."""
    if len(rows) == 1:
        return make(rows[0], None if weights is None else weights[0])
    return make(rows, weights, axis=0)
