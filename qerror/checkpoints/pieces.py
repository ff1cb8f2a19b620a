"""Fitting rows of one tensor: read once, every format and rule on them, and what remains of it."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .._check import shown
from .._threads import num_threads, thread_map
from ..casting.block_scales import tensor_scale_of
from ..casting.cast import quantize
from ..files.elements import TensorInfo, packed_bits, values_of_bits
from ..files.mapping import Checkpoint
from ..files.sources import ReadError
from ..tensors.fitting import evaluate, fit
from .counting import count_bins, exact_best
from .moments import Moments, joined, moments_of
from .parts import FormatPart, Part, joined_parts
from .pattern_fits import UNUSUAL, from_patterns, stored_scales, unusual_groups
from .patterns import count_patterns, countable, patterns_of
from .recipe import PIECE, Cut, Recipe, cut, piece_options, piece_weights, split_format
from .weights import ElementWeights

# What fitting takes in memory beside the interpreter and its libraries, in bytes: for a piece (measured: 10 to 75 MB),
# and for an element of a group that is larger than one (11 of float32, more of float64 and with weights).
_PIECE_COST = 80e6
_ELEMENT_COST, _WEIGHTED_COST = 24.0, 48.0
# For the code of an element: one byte or two, as pieces and as a whole.
_CODE_COST = 2.0
# Interpreter, NumPy and SciPy.
BASE_MEMORY = 150e6
LEAST_MEMORY, DEFAULT_MEMORY = BASE_MEMORY + _PIECE_COST, 1e9

Weighting = NDArray[Any] | ElementWeights | None
Weigher = Callable[[TensorInfo], Weighting]


@dataclasses.dataclass(frozen=True)
class Fitting:
    """What a worker needs to fit rows of any tensor of a checkpoint.

    Attributes
    ----------
    checkpoint : Checkpoint
    recipe : Recipe
    largest : callable
        Name of a tensor -> largest magnitude of those that share its tensor scale.
    weigh : callable, optional
        TensorInfo -> weights of its elements, or None.
    given : mapping, optional
        NAME.scale and NAME.shift to compare with.
    memory : float
        Bytes that a worker may use.
    """

    checkpoint: Checkpoint
    recipe: Recipe
    largest: Callable[[str], float]
    weigh: Weigher | None = None
    given: Mapping[str, NDArray[Any]] | None = None
    memory: float = DEFAULT_MEMORY

    def rows(self, name: str, begin: int, end: int, progress: Callable[[int], None] | None = None) -> Part:
        """Fit rows `begin` to `end` (in pieces, by threads); `progress` hears of the bytes that are done."""
        info = self.checkpoint.info(name)
        how = cut(info, self.recipe)
        weights = self.weigh(info) if self.weigh else None
        bits = bits_of(info)

        def work(rows: tuple[int, int]) -> Part:
            try:
                found = self._piece(info, how, rows, weights)
            except ReadError:
                raise
            except ValueError as error:
                # What is said of NaN counts within the piece.
                where = f"rows {rows[0]} to {rows[1]}: " if (rows[0], rows[1]) != (0, how.rows) else ""
                raise ValueError(f"{where}{error}") from None
            if progress:
                progress((rows[1] - rows[0]) * how.row_size * bits // 8)
            return found

        pieces = how.pieces(begin, end)
        self.check_memory(info, how)
        cost = max(_PIECE_COST, how.step * how.row_size * _ELEMENT_COST)
        at_most = max(1, int(min((self.memory - BASE_MEMORY) / cost, num_threads())))
        if how.leading:
            parts = thread_map(work, pieces, at_most=at_most)
            part = joined_parts(parts)
        else:
            part = Part(name, begin, end, Moments(0.0, 0.0, 0.0, 0.0, 0.0), {})
        if how.whole:
            whole = self._whole(info, how, weights, progress if not how.leading else None)
            part = Part(name, begin, end, whole.moments, {**part.formats, **whole.formats})
        ordered = {grid: part.formats[grid] for grid in self.recipe.grids}
        return dataclasses.replace(part, formats=ordered)

    def check_memory(self, info: TensorInfo, how: Cut) -> None:
        """Refuse a tensor whose groups do not fit into what a worker may use."""
        one = how.step * how.row_size if how.leading else 0
        if how.whole and not (self.weigh is None and self._counted(info, how)):
            one = max(one, info.size)
        # Codes of a tensor with one scale are put together in one task.
        codes = info.size * _CODE_COST if how.whole and self.recipe.codes else 0.0
        each = _ELEMENT_COST if self.weigh is None else _WEIGHTED_COST
        needed = BASE_MEMORY + max(_PIECE_COST, one * each) + codes
        if needed > self.memory and not (one == info.size and self._binned(info, how)):
            size = f"{info.size / 1e6:.0f} million values"
            raise MemoryError(
                f"{shown(info.name, 60)}: groups that reach over {size} take about {needed / 1e9:.1f} GB; "
                f"allow them, as in --memory {math.ceil(needed / 1e9)}GB, or give scales to rows or blocks"
            )

    def _binned(self, info: TensorInfo, how: Cut) -> bool:
        """Whether the best scale of all values can be found without having them in memory: see `bins`."""
        alone = all(self.recipe.groups(grid, info.shape).whole for grid in how.whole)
        known = {"shift", "block_axis"}.issuperset(self.recipe.options) and not self.recipe.codes
        given = not isinstance(self.recipe.options.get("shift", 0.0), str)
        plain_ = self.weigh is None and self.given is None and self.recipe.rules == ("optimal",)
        return alone and known and given and plain_ and info.dtype == "F32"

    def _counted(self, info: TensorInfo, how: Cut) -> bool:
        """Whether the formats with one scale for all values are answered from counts of bit patterns."""
        alone = all(self.recipe.groups(grid, info.shape).whole for grid in how.whole)
        return alone and countable(info.dtype) and self.given is None

    def _piece(self, info: TensorInfo, how: Cut, rows: tuple[int, int], weights: Weighting) -> Part:
        begin, end = (row * how.row_size for row in rows)
        shape = how.shape(info, rows[1] - rows[0])
        bits = self.checkpoint.part_bits(info.name, begin, end) if countable(info.dtype) else None
        values = self.checkpoint.part(info.name, begin, end) if bits is None else values_of_bits(info.dtype, bits)
        values, formats = values.reshape(shape), {}
        for grid in self.recipe.grids:
            if grid in how.whole:
                continue
            options = piece_options(self.recipe, grid, info, how.leading)
            options |= self._shared(info.name, grid)
            own = piece_weights(weights, info, how, rows)
            formats[grid] = self._fit(info, grid, values, options, own, how, rows)
        # What is not finite has been refused.
        moments = moments_of(values) if bits is None else patterns_of(info.dtype, bits).moments()
        return Part(info.name, *rows, moments, formats)

    def _shared(self, name: str, grid: str) -> dict[str, float]:
        """The tensor scale, where the format has one."""
        full = self.recipe.full_scale(grid)
        if full is None:
            return {}
        form = self.recipe.form(grid)
        largest = self.largest(name)
        # A NaN is refused where the values are looked at.
        return {} if math.isnan(largest) else {"tensor_scale": tensor_scale_of(largest, form.grid, full)}

    def _fit(
        self,
        info: TensorInfo,
        grid: str,
        values: NDArray[Any],
        options: dict[str, Any],
        weights: NDArray[Any] | None,
        how: Cut,
        rows: tuple[int, int],
    ) -> FormatPart:
        recipe, mse, unusual = self.recipe, {}, {}
        weight = float(values.size if weights is None else np.broadcast_to(weights, values.shape).sum())
        power, groups, arrays = 0.0, 0, {}
        for rule in recipe.every_rule:
            found = fit(values, split_format(grid)[0], rule=rule, weights=weights, measure=False, **options)
            total = found.total
            mse[rule], unusual[rule] = float(total.mse) * weight, unusual_groups(found)
            if rule == recipe.rules[0]:
                power, groups = float(total.power) * weight, int(np.size(found.scale))
                arrays = stored_scales(found)
                if recipe.codes:
                    arrays["codes"] = found.quantize(values)
            del found
        if self.given is not None and f"{info.name}.scale" in self.given:
            mse["given"] = weight * self._given(info, grid, values, options, weights, how, rows)
        wanted = (*recipe.rules, *(["given"] if "given" in mse else []))
        return FormatPart(mse, power, weight, groups, unusual, arrays, wanted)

    def _given(
        self,
        info: TensorInfo,
        grid: str,
        values: NDArray[Any],
        options: dict[str, Any],
        weights: NDArray[Any] | None,
        how: Cut,
        rows: tuple[int, int],
    ) -> float:
        assert self.given is not None
        layout = {key: options[key] for key in ("axis", "block_size", "block_axis", "scale_format") if key in options}
        pair = [self.given[f"{info.name}.scale"], self.given.get(f"{info.name}.shift", 0.0)]
        if how.leading:
            groups = self.recipe.groups(grid, info.shape)
            full = [np.broadcast_to(np.asarray(each), groups.scale_shape) for each in pair]
            own = [each.reshape(-1, *groups.scale_shape[how.leading :]) for each in full]
            unit = groups.tile[0] if how.leading == 1 else 1
            pair = [each[rows[0] // unit : -(-rows[1] // unit)] for each in own]
        scale, shift = pair
        grid = split_format(grid)[0]
        return float(evaluate(values, grid, scale, shift, weights=weights, measure=False, **layout).total.mse)

    def _whole(self, info: TensorInfo, how: Cut, weights: Weighting, progress: Callable[[int], None] | None) -> Part:
        """Formats with groups over all rows: from the counts of bit patterns, or all values at once."""
        if weights is None and self._counted(info, how):
            counts = count_patterns(self.checkpoint, info, progress)
            formats = {}
            for grid in how.whole:
                formats[grid] = from_patterns(counts, grid, self.recipe)
                if self.recipe.codes:
                    formats[grid].arrays["codes"] = self._codes(info, grid, formats[grid].arrays)
            return Part(info.name, 0, how.rows, counts.moments(), formats)
        if BASE_MEMORY + info.size * _ELEMENT_COST > self.memory and self._binned(info, how):
            return self._by_bins(info, how, progress)
        return self._all_values(info, how, weights, progress)

    def _by_bins(self, info: TensorInfo, how: Cut, progress: Callable[[int], None] | None) -> Part:
        bins, formats = count_bins(self.checkpoint, info, progress=progress), {}
        shift = float(self.recipe.options.get("shift", 0.0))
        for name in how.whole:
            scale, mse, status = exact_best(
                *(self.checkpoint, info, bins, self.recipe.form(name).grid, shift), memory=self.memory - BASE_MEMORY
            )
            unusual = {status.name: 1} if status in UNUSUAL else {}
            arrays = {"scale": np.asarray(scale), "shift": np.asarray(shift)}
            sums = {"optimal": mse * info.size}, bins.power() * info.size, float(info.size)
            formats[name] = FormatPart(*sums, 1, {"optimal": unusual}, arrays, self.recipe.rules)
        moments = joined(
            moments_of(self.checkpoint.part(info.name, begin, min(begin + PIECE, info.size)))
            for begin in range(0, info.size, PIECE)
        )
        return Part(info.name, 0, how.rows, moments, formats)

    def _all_values(
        self, info: TensorInfo, how: Cut, weights: Weighting, progress: Callable[[int], None] | None
    ) -> Part:
        values = self.checkpoint[info.name]
        every = weights.whole() if isinstance(weights, ElementWeights) else weights
        formats = {}
        for grid in how.whole:
            options = self.recipe.of(grid) | self._shared(info.name, grid)
            whole = dataclasses.replace(how, leading=0)
            formats[grid] = self._fit(info, grid, values, options, every, whole, (0, how.rows))
        if progress:
            progress(info.size * bits_of(info) // 8)
        return Part(info.name, 0, how.rows, moments_of(values), formats)

    def _codes(self, info: TensorInfo, grid: str, arrays: dict[str, NDArray[Any]]) -> NDArray[Any]:
        """Codes of a tensor with one scale, piece by piece."""
        form, step = self.recipe.form(grid).grid, 1 << 20
        at: dict[str, Any] = {"shift": float(arrays["shift"])}
        if "zero_point" in arrays:
            at = {"zero_point": int(arrays["zero_point"])}
        parts = [(start, min(start + step, info.size)) for start in range(0, info.size, step)]
        done = thread_map(
            lambda part: quantize(self.checkpoint.part(info.name, *part), form, float(arrays["scale"]), **at), parts
        )
        return np.concatenate(done).reshape(info.shape)


def bits_of(info: TensorInfo) -> int:
    """Bits of an element in the file; of blocks with scales about those of a code."""
    try:
        return packed_bits(info.dtype)
    except KeyError:
        return 8


def largest_magnitude(checkpoint: Checkpoint, info: TensorInfo) -> float:
    """The largest |x| of a tensor, piece by piece; nan where one is NaN."""
    step = 1 << 20

    def work(begin: int) -> float:
        part = checkpoint.part(info.name, begin, min(begin + step, info.size))
        return float(max(abs(float(part.max())), abs(float(part.min())))) if not np.isnan(part).any() else math.nan

    found = thread_map(work, range(0, info.size, step))
    return math.nan if any(map(math.isnan, found)) else max(found, default=0.0)
