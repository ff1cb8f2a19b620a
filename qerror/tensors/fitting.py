"""Scales for tensors: `fit` by any rule, `evaluate` for those that exist already."""

from __future__ import annotations

import dataclasses
from functools import partial
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .._check import as_float_array, check_choice, check_finite, check_scale, check_shift, shown
from .._threads import thread_map
from ..densities.named import fit_density
from ..densities.parametric import Gaussian
from ..densities.samples import as_values
from ..grids.formats import BlockFormat, block_format, block_formats
from ..grids.formats import grid as as_grid
from ..grids.grid import Grid
from ..results import ErrorTerms, FitResult, Status
from .choosing import Choice, Plan, choose
from .costs import TERMS, Costs, GroupCosts
from .groups import Groups, make_groups
from .measure import measure
from .rules import Rule, as_rule, optimal, rule_label
from .stored_scales import Stored, scale_grid
from .zero_points import check_affine

__all__ = ["evaluate", "fit"]

Array = NDArray[np.float64]

# Elements whose rows are fitted together: sorted copies and prefix sums of them stay far below the size of a tensor.
_CHUNK = 1 << 20
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
        What scales can be stored as, never 0. Rule "optimal" takes the best of all of them, others the nearest.
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
    values = _as_array(x)
    levels, block_size, stored_as, with_tensor = _format(grid, block_size, scale_format)
    groups = make_groups(values.shape, axis, block_size, block_axis)
    policy = _policy(shift, groups)
    if zero_point is not None:
        check_choice("zero_point", zero_point, ("integer",))
        check_affine(levels)
        if isinstance(policy, str) or policy.any():
            raise ValueError(f"shift must be left at 0 with zero_point='integer', which chooses it, got {shown(shift)}")
    stored = None
    if stored_as is not None:
        stored = Stored(stored_as, _tensor_scale(values, levels, stored_as) if with_tensor else 1.0)
    task = _Task(groups, Plan(levels, as_rule(rule), zero_point is not None, stored), policy)
    weight = _as_weights(weights, groups)
    label = rule_label(rule)
    task, label = _with_family(task, label, values, weight)
    chosen = task.run(values, weight)
    scale, at, status = (groups.join([getattr(part, name) for part in chosen]) for name in ("scale", "shift", "status"))
    costs = task.costs(chosen, values, weight)
    integers = None
    if zero_point is not None:
        integers = groups.join([part.zero_point for part in chosen if part.zero_point is not None])
    tensor_scale = stored.unit if stored is not None and with_tensor else None
    return FitResult(levels, label, scale, at, integers, tensor_scale, status, groups, costs)


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
    values = _as_array(x)
    levels, block_size, stored_as, with_tensor = _format(grid, block_size, scale_format)
    groups = make_groups(values.shape, axis, block_size, block_axis)
    s, z = (_spread(name, a, groups) for name, a in (("scale", check_scale(scale)), ("shift", check_shift(shift))))
    weight = _as_weights(weights, groups)
    stored = None
    if stored_as is not None:
        stored = Stored(stored_as, _tensor_scale(values, levels, stored_as) if with_tensor else 1.0)
    task = _Task(groups, Plan(levels, _given, False, stored), z)
    chosen = [
        Choice(a, b, np.full(a.size, Status.GIVEN, object))
        for a, b in zip(groups.split(s), groups.split(z), strict=True)
    ]
    costs = task.costs(chosen, values, weight)
    status = groups.join([part.status for part in chosen])
    return FitResult(levels, "given", s[()], z[()], None, None, status, groups, costs)


def _given(*_: Any, **__: Any) -> Any:
    raise NotImplementedError


@dataclasses.dataclass(frozen=True)
class _Task:
    """The same plan for every group of a tensor."""

    groups: Groups
    plan: Plan
    shift: Any

    def run(self, values: NDArray[Any], weights: Array | None) -> list[Choice]:
        """Choose for every group: one `Choice` for each part of the rows."""
        return [
            _joined(thread_map(lambda chunk: choose(*chunk, self.plan), chunks))
            for chunks in self._chunks(values, weights)
        ]

    def _chunks(
        self, values: NDArray[Any], weights: Array | None
    ) -> list[list[tuple[NDArray[Any], Array | None, Any]]]:
        parts = self.groups.rows(values)
        weighted = [None] * len(parts) if weights is None else self.groups.rows(weights)
        fixed = not isinstance(self.shift, str)
        shifts = self.groups.split(self.shift) if fixed else [self.shift] * len(parts)
        out = []
        for rows, weight, shift in zip(parts, weighted, shifts, strict=True):
            step = max(1, _CHUNK // rows.shape[1])
            cuts = [slice(i, i + step) for i in range(0, rows.shape[0], step)]
            out.append([(rows[c], None if weight is None else weight[c], shift[c] if fixed else shift) for c in cuts])
        return out

    def measured(self, chosen: list[Choice], values: NDArray[Any], weights: Array | None) -> GroupCosts:
        """Costs of what was chosen: those of the search, else by quantizing."""
        terms, weight, clipped = [], [], []
        rows = self.groups.rows(values)
        weighted = [None] * len(rows) if weights is None else self.groups.rows(weights)
        for x, w, part in zip(rows, weighted, chosen, strict=True):
            if part.terms is not None and part.clipped is not None:
                terms.append(np.stack([getattr(part.terms, name) for name in TERMS]))
                weight.append(np.full(len(x), float(x.shape[1])) if w is None else w.sum(axis=1))
                clipped.append(part.clipped)
            else:
                found = measure(x, w, self.plan.grid, part.scale, part.shift)
                terms.append(found.sums / found.weight)
                weight.append(found.weight)
                clipped.append(found.clipped / found.weight)
        return GroupCosts(terms, weight, clipped)

    def costs(self, chosen: list[Choice], values: NDArray[Any], weights: Array | None) -> Costs:
        """The costs of what was chosen and of the optimum, at once or later."""
        best = None if self.plan.rule is optimal else self._optimum
        costs = Costs(self.groups, (values, weights), partial(self.measured, chosen), best)
        if values.size <= _SMALL or best is None:
            costs.compute()
        return costs

    def _optimum(self, values: NDArray[Any], weights: Array | None) -> GroupCosts:
        task = dataclasses.replace(self, plan=dataclasses.replace(self.plan, rule=optimal))
        return task.measured(task.run(values, weights), values, weights)


def _joined(parts: list[Choice]) -> Choice:
    if len(parts) == 1:
        return parts[0]
    scale, shift, status = (
        np.concatenate([getattr(part, name) for part in parts]) for name in ("scale", "shift", "status")
    )
    integers = [part.zero_point for part in parts if part.zero_point is not None]
    zero_point = np.concatenate(integers) if integers else None
    if any(part.terms is None or part.clipped is None for part in parts):
        return Choice(scale, shift, status, zero_point)
    terms = (np.concatenate([getattr(part.terms, name) for part in parts]) for name in TERMS)
    clipped = np.concatenate([part.clipped for part in parts if part.clipped is not None])
    return Choice(scale, shift, status, zero_point, ErrorTerms(*terms), clipped)


def _as_array(x: ArrayLike) -> NDArray[Any]:
    try:
        return as_values(x)
    except (TypeError, RuntimeError) as error:
        # What torch raises for bfloat16, for gradients and for other devices.
        remedy = "of a torch tensor give x.detach().float().cpu().numpy()"
        raise ValueError(f"x cannot be read as an array: {error}; {remedy}") from None


def _as_weights(weights: ArrayLike | None, groups: Groups) -> Array | None:
    if weights is None:
        return None
    array = as_float_array("weights", weights)
    check_finite("weights", array)
    if (array < 0).any():
        raise ValueError(f"weights must be >= 0, got {array.min():g}")
    try:
        spread = np.broadcast_to(array, groups.shape)
    except ValueError:
        raise ValueError(f"weights of shape {array.shape} must broadcast to x of shape {groups.shape}") from None
    if not all((rows.sum(axis=1) > 0).all() for rows in groups.rows(spread)):
        raise ValueError("weights must not all be 0 in a group; leave such groups out")
    return spread


def _format(
    grid: Any, block_size: int | None, scale_format: str | Grid | None
) -> tuple[Grid, int | None, Grid | None, bool]:
    """Grid, block size, scale format, and whether a tensor scale multiplies it."""
    name = grid.strip().lower() if isinstance(grid, str) else None
    if not isinstance(grid, BlockFormat) and name not in block_formats():
        stored = None if scale_format is None else scale_grid(scale_format)
        return as_grid(grid), block_size, stored, scale_format == "e4m3fn"
    form = block_format(grid)
    for argument, given in (("block_size", block_size), ("scale_format", scale_format)):
        if given is not None:
            raise ValueError(f"{argument} must be left out with {form.name}, which brings its own, got {shown(given)}")
    return form.grid, form.block_size, form.scale_format, form.tensor_scale


def _tensor_scale(values: NDArray[Any], grid: Grid, stored: Grid) -> float:
    """The float32 scale with which the largest magnitude needs the largest stored scale; 1 for all zeros."""
    largest = max(abs(float(values.max())), abs(float(values.min())))
    if not np.isfinite(largest):
        check_finite("x", values)
    scale = np.float32(largest / (stored.max * grid.absmax))
    return float(max(scale, np.finfo(np.float32).tiny)) if largest else 1.0


def _policy(shift: Any, groups: Groups) -> Any:
    if isinstance(shift, str):
        return check_choice("shift", shift, ("mean", "optimal"))
    return _spread("shift", check_shift(shift), groups)


def _spread(name: str, values: Array, groups: Groups) -> Array:
    try:
        return np.broadcast_to(values, groups.scale_shape)
    except ValueError:
        known = f"the groups of x have shape {groups.scale_shape}; axis or block_size says which groups x has"
        raise ValueError(f"{name} of shape {values.shape} does not fit: {known}") from None


def _with_family(task: _Task, label: str, values: NDArray[Any], weights: Array | None) -> tuple[_Task, str]:
    """Replace family="auto" by what fits the whole tensor: its groups pooled, each standardized."""
    rule = task.plan.rule
    if not (isinstance(rule, partial) and rule.keywords.get("family") == "auto"):
        return task, label
    pooled = []
    for rows in task.groups.rows(values):
        mean, std = rows.mean(axis=1, dtype=np.float64), rows.std(axis=1, dtype=np.float64)
        used = std > 0
        pooled.append(((rows[used] - mean[used, None]) / std[used, None]).ravel())
    sample = np.concatenate(pooled)
    family = fit_density(sample) if sample.size else Gaussian()
    fixed = partial(rule.func, **{**rule.keywords, "family": family})
    options = {**rule.keywords, "family": family.name}
    label = f"{label.partition(':')[0]}:" + ",".join(f"{key}={value}" for key, value in options.items())
    return dataclasses.replace(task, plan=dataclasses.replace(task.plan, rule=fixed)), label
