"""The module that quantizes weights and activations in training."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor, nn

from .._check import as_int, check_choice, check_shift, shown
from ..grids.block_formats import BlockFormat, as_format
from ..grids.grid import Grid
from .block_scales import BlockScales
from .layout import Layout
from .levels import Levels, usable_scale
from .on_host import checked
from .options import by_rule, check_rule, constant_of
from .rules import RULES, Task, power
from .straight_through import fake_quantized

_NEW, _RUNNING, _FROZEN = 0, 1, 2
# Rules that look at the scale of the last call.
_WARM = ("iterative", "octav", "optimal")


class FakeQuantize(nn.Module):
    """Replace a tensor by its nearest representable values in the forward pass, by a rule's scale.

    y = z + s * (level nearest to (x - z) / s), to the bit what `qerror.fake_quantize` gives for float32; the gradient
    is 1 inside the clip range and 0 beyond it (rule "octav": end value / x beyond it). In training mode the scale
    follows x; in evaluation mode, and after `freeze`, it stays. The scales of a block format follow x in evaluation
    mode, too, as do the kernels of such formats; after `freeze` they stay.

    Parameters
    ----------
    grid : Grid, BlockFormat or str
        A block format brings its block size, scale format, tensor scale and rule.
    rule : str, optional
        Of a block format its own or another of `BlockFormat` ("best_of" and "optimal" run on the host). Of a grid
        "minmax"; "analytic" (the default): the table's best scale of `family` times the root of E[(x - z)^2];
        "iterative": `steps` of s <- sum (x - z) l / sum l^2 each call, from the scale of the last call; "octav":
        `steps` of its recursion (intB, intB_midrise, uintB); "lsq": a learned scale, a parameter; "optimal": the exact
        minimum, found on the host.
    axis, block_size, block_axis
        Which elements share a scale, as in `qerror.fit`.
    shift : float or "mean"
        The value of level 0.
    family : Density or str
        Of rules "analytic", "iterative" (its start) and "lsq" (its start on grids that are not uniform).
    steps : int
        Of an iteration in each call.
    rounding : {"nearest", "stochastic"}
        Stochastic in training mode: to one of the two levels around (x - z) / s, so that the mean is that, by PyTorch's
        default generator. Not with rule "lsq".
    every : int
        Rule "optimal": search in every so many training calls only.
    momentum : float, optional
        For activations: each call moves the scale this share of the way to that of its data. None: all the way.
    observe : {"scale", "std"}
        What is averaged over calls: the scale, or (rule "analytic") the mean square from which it follows.
    batch_axis : int, optional
        For activations under rule "lsq", whose gradient scale counts the elements of one sample.
    name : str
        What errors call the tensor.

    Attributes
    ----------
    scale : Tensor
        float32, one entry a group in the shape that `qerror.fit` gives; saved in the state_dict. Of a block format
        float64 in units of the tensor scale, as stored; 0 where the block becomes 0.
    shift : Tensor or None
        Likewise, where it is not 0.
    tensor_scale : Tensor or None
        float32, of a block format that has one.

    Raises
    ------
    ValueError
        For an unknown grid, rule or option; in training for NaN or infinity in the data, before they reach the scale;
        in evaluation where no data have been seen.

    Notes
    -----
    Squares are summed in float32: magnitudes should lie between 1e-18 and 1e18, as those of networks do. Those of block
    formats may be any on the CPU; elsewhere, and compiled, blocks whose scale is below 2^-126 become 0. The gradient of
    blocks that become 0 is 1: they are rounded to it.

    References
    ----------
    StatQAT, arXiv 2605.17745 (analytic, iterative); Sakr et al., ICML 2022, arXiv 2206.06501 (OCTAV); Esser et al.,
    ICLR 2020, arXiv 1902.08153 (LSQ).

    Examples
    --------
    >>> import torch
    >>> quantizer = FakeQuantize("int4", rule="minmax")
    >>> quantizer(torch.tensor([-1.0, 0.3, 7.0]))
    tensor([-1., 0., 7.])
    >>> float(quantizer.scale)
    1.0
    >>> FakeQuantize("mxfp4", rule="even")(torch.tensor([-1.0, 0.3, 7.0]))
    tensor([-1., 0., 8.])
    """

    scale: Tensor
    state: Tensor
    shift: Tensor | None
    mean_square: Tensor | None
    tensor_scale: Tensor | None

    def __init__(
        self,
        grid: Grid | BlockFormat | str,
        rule: str | None = None,
        *,
        axis: int | tuple[int, ...] | None = None,
        block_size: int | None = None,
        block_axis: int = -1,
        shift: float | Literal["mean"] = 0.0,
        family: Any = "gaussian",
        steps: int = 1,
        rounding: Literal["nearest", "stochastic"] = "nearest",
        every: int = 1,
        momentum: float | None = None,
        observe: Literal["scale", "std"] = "scale",
        batch_axis: int | None = None,
        name: str = "x",
    ) -> None:
        super().__init__()
        found = as_format(grid)
        self.form: BlockFormat | None = None
        if isinstance(found, BlockFormat):
            at_zero = isinstance(shift, int | float) and shift == 0
            left_out = {"axis": axis, "block_size": block_size, "shift": None if at_zero else shift}
            self.form = by_rule(found, rule, **left_out, momentum=momentum)
            self.blocks = BlockScales(self.form)
            self.grid, rule, block_size = self.form.grid, self.form.rule, self.form.block_size
        else:
            self.grid = found
            rule = check_rule(rule or "analytic", found)
        self.rule = rule
        self.rounding = check_choice("rounding", rounding, ("nearest", "stochastic"))
        if rounding == "stochastic" and rule == "lsq":
            raise ValueError("rounding must be 'nearest' for rule 'lsq', got 'stochastic'; other rules know both")
        if axis is not None and block_size is not None:
            raise ValueError(f"axis must be None where block_size is given, got {shown(axis)} and {block_size}")
        block_size = None if block_size is None else as_int("block_size", block_size, 1)
        if axis is not None:
            axis = tuple(as_int("axis", each) for each in (axis if isinstance(axis, tuple) else (axis,)))
        self.layout = Layout(axis, block_size, as_int("block_axis", block_axis))
        self.steps = as_int("steps", steps, 1)
        self.every = as_int("every", every, 1)
        if self.every > 1 and rule != "optimal":
            raise ValueError(f"every must be 1 but for rule 'optimal', got {self.every} with rule {rule!r}")
        # A tensor: torch.compile would take a number for a constant, and compile each call anew. It stays on the host.
        self._calls = torch.zeros((), dtype=torch.int64)
        if momentum is not None and not 0 < momentum <= 1:
            raise ValueError(f"momentum must be above 0 and up to 1, or None, got {momentum!r}")
        self.momentum, self.batch_axis, self.name = momentum, batch_axis, name
        self.observe = check_choice("observe", observe, ("scale", "std"))
        if observe == "std" and rule != "analytic":
            raise ValueError(f"observe='std' is for rule 'analytic', whose scale follows from it, got rule {rule!r}")
        self.constant = constant_of(self.grid, family) if rule in ("analytic", "iterative", "lsq") else 0.0
        self.follows_mean = isinstance(shift, str)
        if isinstance(shift, str):
            check_choice("shift", shift, ("mean",))
        elif check_shift(shift).ndim:
            raise ValueError(f"shift must be one number or 'mean', got {shown(shift)}")
        self.levels = Levels(self.grid)
        self._make_buffers(shift)

    def _make_buffers(self, shift: Any) -> None:
        """Tensors of one group have their shape at once; others get it from the first data or a state_dict."""
        blank = torch.ones(()) if self.layout.whole else torch.empty(0, dtype=torch.float64 if self.form else None)
        if self.rule == "lsq":
            self.scale = nn.Parameter(blank.clone())
        else:
            self.register_buffer("scale", blank.clone())
        shifted = self.follows_mean or shift != 0
        first = torch.zeros_like(blank) if self.follows_mean else torch.tensor(float(0 if self.follows_mean else shift))
        self.register_buffer("shift", first if shifted else None)
        self.register_buffer("tensor_scale", torch.ones(()) if self.form and self.form.tensor_scale else None)
        self.register_buffer("mean_square", blank.clone() if self.observe == "std" else None)
        self.register_buffer("state", torch.tensor(_NEW, dtype=torch.uint8))
        # The same number on the host, so that no step waits for the device.
        self._state = _NEW

    @property
    def ready(self) -> bool:
        """Whether there is a scale: data have been seen, or a state_dict has brought one."""
        return self._state != _NEW

    @property
    def frozen(self) -> bool:
        """Whether the scale stays whatever the data."""
        return self._state == _FROZEN

    def freeze(self) -> FakeQuantize:
        """Keep the present scale from now on, in training mode too.

        Raises
        ------
        ValueError
            If there is none yet.
        """
        self._need_scale()
        self.scale.requires_grad_(False)
        self._set_state(_FROZEN)
        return self

    def forward(self, x: Tensor) -> Tensor:
        """Quantize x; in training mode let the scale follow it first."""
        if not x.is_floating_point():
            raise ValueError(f"{self.name} must be a floating-point tensor, got {x.dtype}; give it as x.float()")
        if x.numel() == 0:
            return x
        if x.ndim == 0:
            return self.forward(x.reshape(1)).reshape(())
        follows = (self.training or self.form is not None) and not self.frozen
        if follows and self.form is not None:
            return self._quantized(x, self._follow_blocks(x.detach()))
        if follows:
            self._follow(x.detach())
        else:
            self._need_scale(x)
        scale = self.used_scale()
        if self.training and (not follows or self.rule == "lsq"):
            largest = checked(x.detach().abs().amax(), x.detach(), self.name)
            # Always true: it ties the check to the result, so that a compiler keeps it.
            scale = torch.where(largest >= 0, scale, 1.0)
        return self._quantized(x, scale)

    def _due(self) -> Tensor | None:
        """Whether a search is due in this call, the first of all included; None: in every one."""
        if self.every == 1:
            return None
        due = self._calls % self.every == 0
        self._calls.add_(1)
        return due

    def used_scale(self) -> Tensor:
        """The scale as it is used: a learned one may have crossed 0; that of a block times the tensor scale."""
        if self.form is not None:
            return self.scale if self.tensor_scale is None else self.scale * self.tensor_scale.double()
        return usable_scale(self.scale.abs() if self.rule == "lsq" else self.scale, self.levels.plan)

    def _quantized(self, x: Tensor, scale: Tensor) -> Tensor:
        gradient = {"octav": "magnitude_aware", "lsq": "learned_scale"}.get(self.rule, "straight_through")
        views = self.layout.views(x)
        # A copy: the next call may change the shift before this one's gradient is asked for.
        shift = None if self.shift is None else self.shift.clone()
        scales, shifts = (self._split(value, x, len(views)) for value in (scale, shift))
        parts = []
        for (part, dims), s, z in zip(views, scales, shifts, strict=True):
            plan = self.levels.plan
            if self.form is not None:
                s, plan = self.blocks.usable(s, part, plan)
                gradient = "within_blocks"
            dtype = torch.float64 if plan.double or x.dtype == torch.float64 else torch.float32
            random = self.training and self.rounding == "stochastic"
            chance = torch.rand_like(part, dtype=dtype, requires_grad=False) if random else None
            factor = self._gradient_scale(part, dims)
            parts.append(fake_quantized(part, s, z, self.levels.tables(dtype), plan, gradient, factor, chance))
        return self.layout.join(parts, x)

    def _gradient_scale(self, part: Tensor, dims: tuple[int, ...]) -> float:
        """LSQ's 1 / sqrt(N Q): N elements that share the scale (of one sample), Q the largest level."""
        if self.rule != "lsq":
            return 1.0
        count = math.prod([part.shape[d] for d in dims])
        if self.batch_axis is not None:
            count //= part.shape[self.batch_axis]
        return 1.0 / math.sqrt(count * self.levels.plan.high)

    @torch.no_grad()
    def _follow(self, x: Tensor) -> None:
        """Let scale and shift follow x."""
        if self.rule == "lsq" and self.ready:
            return
        wide = x if x.dtype == torch.float64 else x.float()
        views = self.layout.views(wide)
        if self.follows_mean:
            means = [part.mean(dims, keepdim=True) for part, dims in views]
            self._store("shift", checked(self.layout.join_scales(means).float(), x, self.name))
        warm = self.ready and self.rule in _WARM and (self.layout.whole or self.scale.ndim == x.ndim)
        before = self._split(self.scale if warm else None, wide, len(views))
        shifts = self._split(self.shift, wide, len(views))
        due = self._due()
        results = [self._rule(part, dims, z, s, due) for (part, dims), z, s in zip(views, shifts, before, strict=True)]
        found = checked(self.layout.join_scales(results).float(), x, self.name)
        if self.observe == "std":
            found = self._store("mean_square", found)
            found = self.constant * found.sqrt()
            self._keep("scale", self._scale_or(found))
        else:
            self._store("scale", usable_scale(self._scale_or(found), self.levels.plan))
        if not self.ready:
            self._set_state(_RUNNING)

    @torch.no_grad()
    def _follow_blocks(self, x: Tensor) -> Tensor:
        """Let the scales of the blocks, and the tensor scale, follow x; their product."""
        views = self.layout.views(x)
        unit = self.blocks.tensor_scale(x)
        due = self._due() if self.training else None
        known = self.every > 1 and self.ready and self.scale.shape == self.layout.blocks_of(x)
        before = self._split(self.scale if known else None, x, len(views))
        found = [self.blocks(part, unit, previous, due) for (part, _), previous in zip(views, before, strict=True)]
        scale = self._keep("scale", checked(self.layout.join_scales(found), x, self.name))
        if not self.ready:
            self._set_state(_RUNNING)
        return scale if unit is None else scale * self._keep("tensor_scale", unit).double()

    def _rule(
        self, part: Tensor, dims: tuple[int, ...], z: Tensor | None, previous: Tensor | None, due: Tensor | None
    ) -> Tensor:
        task = Task(self.levels, dims, self.constant, self.steps, due)
        z = None if z is None else z.to(part.dtype)
        return power(part, z, task) if self.observe == "std" else RULES[self.rule](part, z, previous, task)

    def _scale_or(self, found: Tensor) -> Tensor:
        """Groups of zeros, for which every scale is as good, keep theirs; 1 at first."""
        kept = self.scale.detach() if self.ready and self.scale.shape == found.shape else torch.ones_like(found)
        return torch.where(found == 0, kept, found)

    def _store(self, name: str, value: Tensor) -> Tensor:
        """Store what was observed, averaged with what was before; the result."""
        if self.momentum is not None and self.ready:
            before = getattr(self, name)
            if before.shape != value.shape:
                known = f"{tuple(before.shape)} before, {tuple(value.shape)} now"
                raise ValueError(f"momentum must be None where the groups change from call to call: {known}")
            value = torch.lerp(before, value, self.momentum)
        return self._keep(name, value)

    def _keep(self, name: str, value: Tensor) -> Tensor:
        held = getattr(self, name)
        if held.shape != value.shape:
            held.data = torch.empty_like(value)
        held.copy_(value)
        return value

    def _split(self, value: Tensor | None, x: Tensor, count: int) -> list[Any]:
        if value is None or value.ndim == 0:
            return [value] * count
        return self.layout.split_scales(value, x)

    def _need_scale(self, x: Tensor | None = None) -> None:
        if x is not None and self.form is not None and self.scale.shape != (shape := self.layout.blocks_of(x)):
            had = f"{tuple(self.scale.shape)} scales are frozen, {shape} needed; do not freeze what changes its shape"
            raise ValueError(f"{self.name} must have the blocks that its quantizer was frozen with: {had}")
        if not self.ready:
            raise ValueError(f"the quantizer of {self.name} has no scale yet: pass data through it in training mode")

    def _set_state(self, state: int) -> None:
        self._state = state
        self.state.fill_(state)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Any:
        # `model.half()` is about the network: scales and levels stay as they are and only change the device.
        return super()._apply(lambda t: t.to(fn(t).device) if t.is_floating_point() else fn(t), recurse)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
        for name in ("scale", "shift", "mean_square", "tensor_scale"):
            held, given = getattr(self, name), state_dict.get(prefix + name)
            if held is not None and given is not None and held.shape != given.shape:
                held.data = torch.empty(given.shape, dtype=held.dtype, device=held.device)
        super()._load_from_state_dict(state_dict, prefix, *rest)
        self._state = int(self.state)

    def extra_repr(self) -> str:
        """Grid, rule and groups, for the repr of a model."""
        groups = {"axis": self.layout.axis, "block_size": self.layout.block_size, "momentum": self.momentum}
        said = [f"{(self.form or self.grid).name or self.grid!r}", f"rule={self.rule!r}"]
        return ", ".join(said + [f"{key}={value}" for key, value in groups.items() if value is not None])
