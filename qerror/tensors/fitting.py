"""Scales for tensors: `fit` by any rule, `evaluate` for those that exist already."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike

from .._check import check_choice, check_finite, check_scale, check_shift, shown
from ..grids.formats import BlockFormat
from ..grids.grid import Grid
from ..results import FitResult, Status
from .choosing import Choice, Plan
from .groups import make_groups
from .rules import Rule, as_rule, optimal, rule_label
from .task import Task, as_array, as_weights, resolve_format, shift_policy, spread, with_family
from .zero_points import check_affine

__all__ = ["evaluate", "fit", "unmeasured_evaluate", "unmeasured_fit"]

# Up to this many elements everything is measured with the fit.
_SMALL = 1 << 18


def fit(
    x: ArrayLike,
    grid: Grid | BlockFormat | str,
    *,
    rule: str | Rule = "optimal",
    axis: int | tuple[int, ...] | None = None,
    block_size: int | None = None,
    block_axis: int = -1,
    shift: ArrayLike | str = 0.0,
    zero_point: Literal["integer"] | None = None,
    weights: ArrayLike | None = None,
    scale_format: str | Grid | None = None,
) -> FitResult:
    """Choose a scale for each group of a tensor.

    Parameters
    ----------
    x : array_like
        Finite real numbers of any shape. Never changed, and not kept.
    grid : Grid, BlockFormat or str
        Of a BlockFormat (mxfp4, mxfp6_e2m3, mxfp6_e3m2, mxfp8_e4m3, mxfp8_e5m2, mxint8, nvfp4) the block size and the
        scale format come with it.
    rule : str or callable
        "optimal" (the exact minimum of the mean squared error), "minmax", "percentile", "analytic", "iterative",
        "aciq", "octav", "sawb", "shrink_search" or "ocp", with options as in "percentile:p=99.9"
        (see `qerror.tensors.rules`); or a function rule(density, grid, shift=...) that returns a `RuleResult`, a scale
        or a pair of scale and shift.
    axis : int or tuple of int, optional
        The axis or axes that keep their own scale: 0 for the output channels of a weight. None: one for the tensor.
    block_size : int, optional
        Split `block_axis` into blocks of this many elements, the last one shorter where it does not divide.
    block_axis : int
    shift : array_like, "mean" or "optimal"
        The value of level 0: given (broadcast to the scales), the mean of each group, or chosen with the scale.
    zero_point : "integer", optional
        Choose the shift too, as -zero_point * scale with an integer zero point, inside the codes or not: rule "optimal"
        takes the best of all integers; others choose a shift (that of their own, else the mean), which is rounded.
    weights : array_like, optional
        Importance of each element, >= 0, broadcast against x.
    scale_format : {"fp16", "bf16", "e4m3fn", "e8m0", "pow2"} or Grid, optional
        What scales can be stored as, never 0. Rule "optimal" takes the best of all of them, minmax the
        smallest that clips nothing, others the nearest.
        "e4m3fn" multiplies a float32 `tensor_scale` = max|x| / (448 max|l|), as NVFP4 does.

    Returns
    -------
    FitResult
        `scale` has shape (), that of x with length 1 on all but the kept axes, or that of x with the number of blocks
        on `block_axis`. `error`, `clipped_fraction` and `excess_db` are measured with the fit, but for tensors of more
        than 262 144 elements only when first asked for (a rule such as minmax is many times faster than measuring it
        and than the search it is compared with): until then the caller must keep x, unchanged.

    Raises
    ------
    ValueError
        For NaN or infinity, groups without elements, an unknown grid, rule or option, or one that does not fit x.

    Examples
    --------
    >>> import numpy as np, qerror as qe
    >>> x = np.random.default_rng(0).standard_normal((4, 256))
    >>> result = qe.fit(x, "int4", axis=0)
    >>> result.scale.shape, result.status[0, 0].name
    ((4, 1), 'EXACT')
    >>> qe.fit(x, "int4", rule="minmax", axis=0).excess_db.round(2).ravel().tolist()
    [1.52, 0.89, 0.91, 0.58]
    """
    result = unmeasured_fit(
        x, grid, rule=rule, axis=axis, block_size=block_size, block_axis=block_axis, shift=shift, zero_point=zero_point,
        weights=weights, scale_format=scale_format,
    )  # fmt: skip
    return _measured(result)


def evaluate(
    x: ArrayLike,
    grid: Grid | BlockFormat | str,
    scale: ArrayLike,
    shift: ArrayLike = 0.0,
    *,
    axis: int | tuple[int, ...] | None = None,
    block_size: int | None = None,
    block_axis: int = -1,
    weights: ArrayLike | None = None,
    scale_format: str | Grid | None = None,
) -> FitResult:
    """What given scales cost on a tensor: the result of `fit` for scales that the caller already has.

    Parameters
    ----------
    x, grid, axis, block_size, block_axis, weights, scale_format
        As in `fit`.
    scale, shift : array_like
        One entry a group (see `fit` for the shape), or broadcast to that.

    Returns
    -------
    FitResult
        With status GIVEN; `excess_db` is against the best scales (of the scale format) at the same shifts. The scales
        that are given are taken as they are, in the format or not.

    Examples
    --------
    >>> import qerror as qe
    >>> result = qe.evaluate([0.0, 1.0, 2.0, 8.0], "int4", 1.0)
    >>> float(result.error.mse), float(result.clipped_fraction)
    (0.25, 0.25)
    """
    result = unmeasured_evaluate(
        x, grid, scale, shift, axis=axis, block_size=block_size, block_axis=block_axis, weights=weights,
        scale_format=scale_format,
    )  # fmt: skip
    return _measured(result)


def _measured(result: FitResult) -> FitResult:
    if np.prod(result.groups.shape) <= _SMALL or result.costs.at_once:
        result.costs.compute()
    return result


def unmeasured_fit(
    x: ArrayLike,
    grid: Grid | BlockFormat | str,
    *,
    rule: str | Rule = "optimal",
    axis: int | tuple[int, ...] | None = None,
    block_size: int | None = None,
    block_axis: int = -1,
    shift: ArrayLike | str = 0.0,
    zero_point: Literal["integer"] | None = None,
    weights: ArrayLike | None = None,
    scale_format: str | Grid | None = None,
) -> FitResult:
    """`fit`, where nothing is measured before it is asked for: x must live until then."""
    values = as_array(x)
    form = resolve_format(grid, block_size, scale_format)
    groups = make_groups(values.shape, axis, form.block_size, block_axis)
    policy = shift_policy(shift, groups)
    if zero_point is not None:
        check_choice("zero_point", zero_point, ("integer",))
        check_affine(form.grid)
        if isinstance(policy, str) or policy.any():
            raise ValueError(f"shift must be left at 0 with zero_point='integer', which chooses it, got {shown(shift)}")
    stored = form.stored(values)
    weight = as_weights(weights, groups)
    task = Task(groups, Plan(form.grid, as_rule(rule), zero_point is not None, stored), policy)
    task, label = with_family(task, rule_label(rule), values)
    chosen = task.run(values, weight)
    scale, at, status = (groups.join([getattr(part, name) for part in chosen]) for name in ("scale", "shift", "status"))
    integers = None
    if zero_point is not None:
        integers = groups.join([part.zero_point for part in chosen if part.zero_point is not None])
    tensor_scale = stored.unit if stored is not None and form.tensor_scale else None
    costs = task.costs(chosen, x, weights, best=task.plan.rule is optimal)
    return FitResult(form.grid, label, scale, at, integers, tensor_scale, status, groups, costs)


def unmeasured_evaluate(
    x: ArrayLike,
    grid: Grid | BlockFormat | str,
    scale: ArrayLike,
    shift: ArrayLike = 0.0,
    *,
    axis: int | tuple[int, ...] | None = None,
    block_size: int | None = None,
    block_axis: int = -1,
    weights: ArrayLike | None = None,
    scale_format: str | Grid | None = None,
) -> FitResult:
    """`evaluate`, where nothing is measured before it is asked for: x must live until then."""
    values = as_array(x)
    form = resolve_format(grid, block_size, scale_format)
    groups = make_groups(values.shape, axis, form.block_size, block_axis)
    as_weights(weights, groups)
    check_finite("x", values)
    s, z = (spread(name, a, groups) for name, a in (("scale", check_scale(scale)), ("shift", check_shift(shift))))
    task = Task(groups, Plan(form.grid, optimal, stored=form.stored(values)), z)
    parts = zip(groups.split(s), groups.split(z), strict=True)
    chosen = [Choice(a, b, np.full(a.size, Status.GIVEN, object)) for a, b in parts]
    costs = task.costs(chosen, x, weights, best=False)
    status: Any = groups.join([part.status for part in chosen])
    return FitResult(form.grid, "given", s[()], z[()], None, None, status, groups, costs)
