"""What is asked of every tensor of a checkpoint: formats, rules, layout; and how a tensor is cut for it."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .._check import listed, shown
from ..files.elements import TensorInfo
from ..grids.block_formats import BlockFormat, as_format
from ..tensors.arguments import Format, resolve_format
from ..tensors.fitting import fit
from ..tensors.groups import Groups, make_groups
from .globs import grouped_names
from .weights import ElementWeights

# Elements fitted together: results do not depend on how a tensor is divided into tasks because it is always cut here.
PIECE = 1 << 20
# Stands for the patterns of tensors that runtimes fuse into one, by the names of Llama, Mistral, Qwen and Gemma; those
# of DeepSeek; Mixtral and the first Llama; T5; BERT. GPT-2, GPT-NeoX, Falcon and Bloom have them as one tensor already.
FUSED = "fused"
_FUSED = (
    "*.{q,k,v}_proj.weight",
    "*.{gate,up}_proj.weight",
    "*.{q_a_proj,kv_a_proj_with_mqa}.weight",
    "*.{wq,wk,wv}.weight",
    "*.{w1,w3}.weight",
    "*Attention.{q,k,v}.weight",
    "*.{wi_0,wi_1}.weight",
    "*.self.{query,key,value}.weight",
)
_LAYOUT = ("axis", "block_size", "scale_format")
_AXIS = ":axis="


@dataclasses.dataclass(frozen=True)
class Recipe:
    """What is asked of every tensor.

    Attributes
    ----------
    grids, rules : tuple of str
        The first rule's scales are described and written. A grid may bring its axis, as in "int8:axis=0".
    options : dict
        Of `qerror.fit`: axis, block_size, block_axis, shift, zero_point, scale_format, sign. The first, second and last
        but one are for the grids among the formats only: block formats bring their own.
    codes : bool
        Whether the quantized tensors are wanted, too.
    together : tuple of str
        Patterns of names: tensors that match one alike, but for [...], {a,b} and ** in it, share their tensor scale.
    """

    grids: tuple[str, ...]
    rules: tuple[str, ...] = ("optimal",)
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    codes: bool = False
    together: tuple[str, ...] = ()

    @property
    def every_rule(self) -> tuple[str, ...]:
        """The rules, and the optimum that they are compared with."""
        return (*self.rules, *({"optimal"} - set(self.rules)))

    @property
    def pooled(self) -> bool:
        """Whether a rule looks at all groups of a tensor for each of them."""
        return any("family=auto" in rule.replace(" ", "") for rule in self.rules)

    def of(self, grid: str) -> dict[str, Any]:
        """The options for one of the formats."""
        name, axis = split_format(grid)
        if axis is not None:
            own = {key: value for key, value in self.options.items() if key not in ("axis", "block_size")}
            return own | {"axis": axis}
        own_layout = isinstance(as_format(name), BlockFormat) and len(self.grids) > 1
        return {key: value for key, value in self.options.items() if not (own_layout and key in _LAYOUT)}

    def form(self, grid: str) -> Format:
        """One of the formats: its elements, blocks and stored scales."""
        options = self.of(grid)
        return resolve_format(split_format(grid)[0], *(options.get(key) for key in _LAYOUT))

    def full_scale(self, grid: str) -> float | None:
        """What the largest block scale becomes where the format has a tensor scale."""
        return self.form(grid).full_scale

    def groups(self, grid: str, shape: tuple[int, ...]) -> Groups:
        """The groups of a tensor of this shape."""
        options, size = self.of(grid), self.form(grid).block_size
        return make_groups(shape, options.get("axis"), size, options.get("block_axis", -1))

    def first_block_axis(self, grid: str, shape: tuple[int, ...]) -> int:
        """The first axis that is cut into blocks; the number of axes where none is."""
        options, size = self.of(grid), self.form(grid).block_size
        if size is None:
            return len(shape)
        at = options.get("block_axis", -1)
        if at == -1 and isinstance(size, tuple | list):
            return len(shape) - len(size)
        return min(np.lib.array_utils.normalize_axis_tuple(at, len(shape)))

    def check(self) -> None:
        """Refuse what no tensor could change, before the first one is read."""
        if not self.grids or not self.rules:
            raise ValueError(f"grid and rule must name at least one each, got {listed(self.grids) or 'none'}")
        if self.together and all(self.full_scale(grid) is None for grid in self.grids):
            raise ValueError(
                f"together is for formats with a tensor scale, as nvfp4, and {self.grids[0]} has none; leave it out"
            )
        for grid in self.grids:
            options = self.of(check_format(grid))
            trial = {**options, "axis": None} if "axis" in options else options
            for rule in self.rules:
                fit(np.array([[-1.0, 0.5, 1.0]]), split_format(grid)[0], rule=rule, **{**trial, "block_axis": -1})

    def as_json(self) -> dict[str, Any]:
        """All of it, for the fingerprint of what is computed."""
        return {
            "grids": list(self.grids),
            "rules": list(self.rules),
            "options": dict(sorted(self.options.items())),
            "codes": self.codes,
            "together": list(self.together),
        }


def split_format(text: str) -> tuple[str, int | None]:
    """The name of a format, and the axis that keeps its own scales where the text says so.

    Examples
    --------
    >>> split_format("int8:axis=0"), split_format("int4_g128")
    (('int8', 0), ('int4_g128', None))
    """
    name, mark, axis = text.partition(_AXIS)
    if not mark:
        return name, None
    try:
        return name, int(axis)
    except ValueError:
        raise ValueError(f"formats must end in an axis such as :axis=0, got {shown(text)}") from None


def check_format(text: str) -> str:
    """Return the text of a format: the name of a grid, with its axis perhaps, or of a block format.

    Raises
    ------
    ValueError
        For names that are not known, and for block formats with an axis.
    """
    name, axis = split_format(text)
    if isinstance(as_format(name), BlockFormat) and axis is not None:
        raise ValueError(f"axis must be left out with {name}, which brings its own blocks, got {shown(text)}")
    return text


@dataclasses.dataclass(frozen=True)
class Cut:
    """How a tensor is cut into pieces that are fitted by themselves.

    Attributes
    ----------
    rows, row_size : int
        Slices along the leading axes, and the elements of one.
    step : int
        Rows of a piece: about a million elements, whole blocks.
    leading : int
        How many axes `rows` counts.
    whole : tuple of str
        Formats with groups that reach over all rows: these see the tensor as one.
    """

    rows: int
    row_size: int
    step: int
    leading: int
    whole: tuple[str, ...]

    def pieces(self, begin: int, end: int) -> list[tuple[int, int]]:
        """Rows of the pieces between two rows; `begin` is a multiple of `step`."""
        return [(row, min(row + self.step, end)) for row in range(begin, end, self.step)]

    def shape(self, info: TensorInfo, rows: int) -> tuple[int, ...]:
        """Shape of some rows."""
        return (rows, *info.shape[self.leading :])


def cut(info: TensorInfo, recipe: Recipe) -> Cut:
    """Cut a tensor along its first axes, where no group crosses.

    Examples
    --------
    >>> cut(TensorInfo("w", (64, 8192), "BF16"), Recipe(("int4",), options={"axis": 0})).pieces(0, 64)[:2]
    [(0, 64)]
    >>> cut(TensorInfo("w", (4, 1024, 8192), "BF16"), Recipe(("int4_g128",))).step
    128
    """
    if recipe.pooled:
        return Cut(1, info.size, 1, 0, recipe.grids)
    layouts = {grid: recipe.groups(grid, info.shape) for grid in recipe.grids}
    divided = {grid: _leading(groups, recipe.first_block_axis(grid, info.shape)) for grid, groups in layouts.items()}
    whole = tuple(grid for grid, (leading, _) in divided.items() if leading == 0)
    some = [found for found in divided.values() if found[0]]
    if not some:
        return Cut(1, info.size, 1, 0, whole)
    leading = min(axes for axes, _ in some)
    unit = math.lcm(*(block for axes, block in some if axes == leading))
    # What is cut along more axes is cut along fewer, too.
    rows = math.prod(info.shape[:leading])
    row_size = info.size // rows
    step = max(1, PIECE // (row_size * unit)) * unit
    return Cut(rows, row_size, step, leading, whole)


def _leading(groups: Groups, first_block_axis: int) -> tuple[int, int]:
    """How many of the first axes can be cut, and into parts of how many rows: (0, 1) where none."""
    free = next((axis for axis, size in enumerate(groups.tile) if size > 1), len(groups.tile))
    # An axis of blocks stays one by itself, also where there is one element of it: blocks would reach over the rows.
    free = min(free, first_block_axis)
    if free and not groups.whole:
        return free, 1
    if groups.shape and groups.tile[0] < groups.shape[0]:
        return 1, groups.tile[0]
    return 0, 1


def piece_options(recipe: Recipe, grid: str, info: TensorInfo, leading: int) -> dict[str, Any]:
    """Options of `fit` for rows whose leading axes have become one."""
    options = recipe.of(grid)
    lost = leading - 1
    if options.get("axis") is not None and lost > 0:
        axes = np.lib.array_utils.normalize_axis_tuple(options["axis"], len(info.shape))
        options["axis"] = tuple(sorted({max(0, axis - lost) for axis in axes}))
    if options.get("block_axis", -1) != -1 and lost > 0:
        axes = np.lib.array_utils.normalize_axis_tuple(options["block_axis"], len(info.shape))
        options["block_axis"] = tuple(axis - lost for axis in axes)
    return options


def piece_weights(
    weights: NDArray[Any] | ElementWeights | None, info: TensorInfo, cut: Cut, rows: tuple[int, int]
) -> Any:
    """The part of a tensor's weights that belongs to some rows; as it is where all rows have the same."""
    if isinstance(weights, ElementWeights):
        part = weights.part(rows[0] * cut.row_size, rows[1] * cut.row_size)
        return part.reshape(cut.shape(info, rows[1] - rows[0]))
    if weights is None or not cut.leading:
        return weights
    if weights.ndim <= len(info.shape) - cut.leading:
        return weights
    # Only these rows are written out: with all of them a tensor would take 8 bytes an element.
    return np.broadcast_to(weights, info.shape)[np.unravel_index(np.arange(*rows), info.shape[: cut.leading])]


def with_fused(patterns: Sequence[str]) -> tuple[str, ...]:
    """Patterns of `together` with those that "fused" stands for in its place.

    Examples
    --------
    >>> with_fused(["*.my_{q,k}", "fused"])[:2]
    ('*.my_{q,k}', '*.{q,k,v}_proj.weight')
    """
    spread = (each for pattern in patterns for each in (_FUSED if pattern == FUSED else (pattern,)))
    return tuple(dict.fromkeys(spread))


def shared_scales(names: Sequence[str], patterns: Sequence[str]) -> dict[str, int]:
    """How many groups of several tensors each pattern makes; without patterns that make none."""
    counts: dict[str, int] = {}
    left = list(names)
    for pattern in patterns:
        mine = grouped_names(left, [pattern])
        count = len({members for members in mine.values() if len(members) > 1})
        counts |= {pattern: count} if count else {}
        left = [name for name in left if name not in mine]
    return counts
