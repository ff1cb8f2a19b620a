"""Scales for tensors: `fit` by any rule, `evaluate` for those that exist already."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from .._check import check_choice, check_finite, check_scale, check_shift, check_zero_point, shown
from ..grids.block_formats import BlockFormat, FormatLike
from ..grids.grid import Grid, check_affine
from ..results import FitResult, Status
from ..rules import BlockRule, Rule, RuleName, as_rule, optimal, rule_label
from .arguments import grouped, resolve_format, shift_policy, spread
from .choices import Choice, Plan
from .costs import Costs, measure_groups
from .groups import Grouped
from .plans import choose, with_family

# Of up to this many elements a copy is kept until they are measured, which may take many times as long as the fit.
_SMALL = 1 << 18


def fit(
    x: ArrayLike,
    grid: FormatLike,
    *,
    rule: RuleName | str | Rule = "optimal",
    axis: int | tuple[int, ...] | None = None,
    block_size: int | tuple[int, ...] | None = None,
    block_axis: int | tuple[int, ...] = -1,
    shift: ArrayLike | str = 0.0,
    zero_point: Literal["integer", "storable"] | None = None,
    sign: Literal["positive", "either"] = "positive",
    weights: ArrayLike | None = None,
    scale_format: str | Grid | None = None,
    tensor_scale: float | None = None,
    measure: bool | None = None,
) -> FitResult:
    """Choose a scale for each group of a tensor.

    Parameters
    ----------
    x : array_like
        Finite real numbers of any shape. Never changed; kept until the error is measured. Tensors of PyTorch are read
        as they are: bfloat16, with gradients, on any device.
    grid : Grid, BlockFormat or str
        Of a BlockFormat (mxfp4, nvfp4, int4_g128_bf16, ...) the block size and the scale format come with it, its rule
        does not: name it as `rule`, or let `evaluate` use it.
    rule : str or callable
        "optimal" (the exact minimum of the mean squared error), "minmax", "percentile", "analytic", "iterative",
        "aciq", "octav", "sawb", "shrink_search", "ocp", "entropy", "clipping_weighted" or "signed_absmax", with
        options as in "percentile:p=99.9" (see `qerror.rules`); a rule of block formats (see `qerror.BlockFormat`),
        "absmax", "up", "down", "floor", "ceil", "even", "rceil" or "best_of", as in "absmax:constant=0.9" or
        "best_of:constants=1,1.5", with the format's own constants and sign where none are said; or a function
        rule(density, grid, shift=...) that returns a `RuleResult`, a scale or a pair of scale and shift.
    axis : int or tuple of int, optional
        The axis or axes that keep their own scale: 0 for the output channels of a weight. None: one for the tensor.
    block_size : int or tuple of int, optional
        Split `block_axis` into blocks of this many elements, the last one shorter where it does not divide; a pair such
        as (128, 128) into tiles of the last two axes. With `axis` a block reaches over all axes that are neither.
    block_axis : int or tuple of int
    shift : array_like, "mean" or "optimal"
        The value of level 0: given (broadcast to the scales), the mean of each group, or chosen with the scale.
    zero_point : {"integer", "storable"}, optional
        Choose the shift too, as -zero_point * scale with an integer zero point: any, or with "storable" one of the
        codes, as runtimes have it. Rule "optimal" takes the best of them; others choose a shift (that of their own,
        else the mean), which is rounded (minmax and shrink_search then have 0 in their range, as observers do).
    sign : {"positive", "either"}
        Whether scales may be negative, which turns a grid around that is not symmetric: int4 then reaches 8 steps on
        the side that needs it. The better sign of rule "optimal" gains 0.5 dB on blocks of 32, 0.1 dB on rows of 4 096.
        That of block formats that are signed.
    weights : array_like, optional
        Importance of each element, >= 0, broadcast against x.
    scale_format : {"fp16", "bf16", "e4m3fn", "e8m0", "pow2"} or Grid, optional
        What scales can be stored as. Rule "optimal" takes the best of all of them, minmax the smallest that clips
        nothing, rules of block formats what these say, others the nearest. 0 only with block formats and their rules,
        where such a block becomes 0.
        "e4m3fn" multiplies a float32 `tensor_scale` = max|x| / (448 max|l|), as NVFP4 does.
    tensor_scale : float, optional
        In place of that one: of a part of a tensor, or where several tensors share it (q, k and v in one kernel).
    measure : bool, optional
        Whether to measure `error`, `clipped_fraction` and `excess_db` now, or when they are first asked for: a rule
        such as minmax is many times faster than measuring it and than the search it is compared with. Until then x must
        stay unchanged. None: when asked for, and of up to 262 144 elements a copy is kept, so that x may change.

    Returns
    -------
    FitResult
        `scale` has shape (), that of x with length 1 on all but the kept axes, or that of x with the number of blocks
        on `block_axis`.

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
    form = resolve_format(grid, axis, block_size, scale_format)
    tensor = grouped(x, weights, axis, form.block_size, block_axis)
    policy = shift_policy(shift, tensor.groups)
    if zero_point is not None:
        check_choice("zero_point", zero_point, ("integer", "storable"))
        check_affine(form.grid)
        if isinstance(policy, str) or policy.any():
            raise ValueError(
                f"shift must be left at 0 with zero_point={zero_point!r}, which chooses it, got {shown(shift)}"
            )
    either = check_choice("sign", sign, ("positive", "either")) == "either"
    unsigned = form.scale_format is not None and form.scale_format.min >= 0
    if either and (zero_point is not None or unsigned):
        taken = "zero_point" if zero_point is not None else "scale_format"
        raise ValueError(f"sign must be 'positive' with {taken}, whose scales have no sign, got 'either'")
    chosen_rule = as_rule(rule)
    signed = form.form is not None and form.form.signed
    either = either or (signed and chosen_rule is optimal)
    stored = form.stored(tensor.values, tensor_scale)
    plan = Plan(form.grid, chosen_rule, rule_label(rule), policy, zero_point, stored, either, form.form)
    plan = with_family(plan, tensor)
    unit = None if stored is None or form.full_scale is None else stored.unit
    chosen, best = choose(tensor, plan), None
    if plan.rule is not optimal:
        negative = any((part.scale < 0).any() for part in chosen)
        best = dataclasses.replace(plan, rule=optimal, either_sign=either or negative or signed)
    return _result(tensor, plan, chosen, best, unit, measure)


def evaluate(
    x: ArrayLike,
    grid: FormatLike,
    scale: ArrayLike | None = None,
    shift: ArrayLike = 0.0,
    *,
    zero_point: ArrayLike | None = None,
    axis: int | tuple[int, ...] | None = None,
    block_size: int | tuple[int, ...] | None = None,
    block_axis: int | tuple[int, ...] = -1,
    weights: ArrayLike | None = None,
    scale_format: str | Grid | None = None,
    measure: bool | None = None,
) -> FitResult:
    """What given scales cost on a tensor: the result of `fit` for scales that the caller already has.

    Parameters
    ----------
    x, grid, axis, block_size, block_axis, weights, scale_format, measure
        As in `fit`.
    scale, shift : array_like
        One entry a group (see `fit` for the shape), or broadcast to that. A negative scale turns the grid around; one
        of 0, which stored scales may be, makes the group 0. Of a block format the scale may be left out: that of its
        own rule, with status RULE.
    zero_point : array_like of int, optional
        In place of the shift, which is then -zero_point * scale.

    Returns
    -------
    FitResult
        With status GIVEN; `excess_db` is against the best of the same kind: scales (of the scale format) at the same
        shifts, pairs of scale and zero point (among the codes, where all given ones are), of either sign where a scale
        is negative. What is given is taken as it is, in the format or not.

    Examples
    --------
    >>> import qerror as qe
    >>> result = qe.evaluate([0.0, 1.0, 2.0, 8.0], "int4", 1.0)
    >>> float(result.error.mse), float(result.clipped_fraction)
    (0.25, 0.25)
    """
    form = resolve_format(grid, axis, block_size, scale_format)
    if scale is None:
        return _by_own_rule(x, form.form, shift, zero_point, block_axis, weights, measure)
    tensor = grouped(x, weights, axis, form.block_size, block_axis)
    check_finite("x", tensor.values)
    groups = tensor.groups
    storable = form.form is not None or form.scale_format is not None
    s, kind = spread("scale", check_scale(scale, signed=True, zero=storable), groups), None
    if zero_point is None:
        z = p = spread("shift", check_shift(shift), groups)
    else:
        check_affine(form.grid)
        p = spread("zero_point", check_zero_point(zero_point, shift), groups)
        z, kind = -p * s + 0.0, "storable" if ((p >= form.grid.min) & (p <= form.grid.max)).all() else "integer"
    negative = bool((s < 0).any()) or (form.form is not None and form.form.signed)
    if negative and kind is not None:
        raise ValueError("scale must be positive where zero_point is given")
    at = z if kind is None else np.zeros(())
    plan = Plan(form.grid, optimal, "given", at, kind, form.stored(tensor.values), negative, form.form)
    chosen = [
        Choice(a, b, np.full(a.size, Status.GIVEN, object), None if kind is None else c.astype(np.int64))
        for a, b, c in zip(*(groups.split(part) for part in (s, z, p)), strict=True)
    ]
    return _result(tensor, plan, chosen, plan, None, measure)


def _by_own_rule(
    x: ArrayLike,
    form: BlockFormat | None,
    shift: ArrayLike,
    zero_point: ArrayLike | None,
    block_axis: int | tuple[int, ...],
    weights: ArrayLike | None,
    measure: bool | None,
) -> FitResult:
    """A block format as casting uses it."""
    if form is None:
        raise ValueError("scale must be given for a grid; block formats have a rule of their own")
    if zero_point is not None or np.any(check_shift(shift)):
        raise ValueError("scale must be given with a shift or a zero_point, which the format's own rule has not")
    rule = optimal if form.rule == "optimal" else BlockRule(form.rule)
    result = fit(x, form, rule=rule, block_axis=block_axis, weights=weights, measure=measure)
    return dataclasses.replace(result, rule=form.rule)


def _result(
    tensor: Grouped,
    plan: Plan,
    chosen: Sequence[Choice],
    best: Plan | None,
    tensor_scale: float | None,
    measure: bool | None,
) -> FitResult:
    """What was chosen in the shape of the groups, with its costs and those of the `best` plan beside it."""
    groups, small = tensor.groups, measure is None and tensor.values.size <= _SMALL
    if small:
        weights = None if tensor.weights is None else tensor.weights.copy()
        tensor = dataclasses.replace(tensor, values=tensor.values.copy(), weights=weights)
    costs = Costs(
        groups,
        lambda: measure_groups(tensor, plan.grid, chosen),
        None if best is None else lambda: measure_groups(tensor, plan.grid, choose(tensor, best)),
        small,
    )
    if measure:
        costs.compute()
    names = ("scale", "shift", "status", *(["zero_point"] if plan.zero_point else []))
    scale, shift, status, *integer = (groups.join([getattr(part, name) for part in chosen]) for name in names)
    zero_point = integer[0] if integer else None
    return FitResult(plan.grid, plan.label, scale, shift, zero_point, tensor_scale, status, groups, costs, plan.form)
