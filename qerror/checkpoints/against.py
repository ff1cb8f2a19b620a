"""How good the scales and codes of a quantized checkpoint are: against the weights that it was made of."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .._check import plain, shown
from .._threads import num_threads, thread_map
from ..files.checkpoint import Where, open_checkpoint
from ..files.elements import TensorInfo, is_real
from ..files.layouts import quantized_names
from ..files.mapping import Checkpoint
from ..files.quantized_weight import QuantizedWeight
from ..files.quantized_weights import dequantized, quantized_weights
from ..files.scales import ScaleSink
from ..files.sources import ReadError
from ..results import FitResult
from ..tensors.fitting import fit
from ..tensors.groups import make_groups
from .fitting import QUANTIZED, TensorFit
from .globs import matches
from .pattern_fits import stored_scales
from .pieces import BASE_MEMORY, DEFAULT_MEMORY
from .recipe import PIECE

# What a piece takes, and an element of a tensor that is one group, in bytes.
_PIECE_COST, _ELEMENT_COST = 80e6, 40.0


@dataclasses.dataclass
class _Sums:
    """Of some rows: the sum of squares, those of squared errors by rule, and the scales that are stored and chosen."""

    power: float
    errors: dict[str, float]
    scales: NDArray[np.float64]
    chosen: dict[str, NDArray[np.float64]]


@dataclasses.dataclass(frozen=True)
class _Asked:
    """What is to be known of each weight: the rules in its own format, or (None) only what is stored."""

    rules: tuple[str, ...] | None
    memory: float
    sink: ScaleSink | None = None

    @property
    def every_rule(self) -> tuple[str, ...]:
        """The rules to fit, "optimal" among them."""
        return () if self.rules is None else tuple(dict.fromkeys((*self.rules, "optimal")))


def evaluate(
    model: Where,
    against: Where,
    *,
    rule: Sequence[str] = (),
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    sink: ScaleSink | None = None,
    memory: float = DEFAULT_MEMORY,
    progress: Callable[[str, int, int], None] | None = None,
) -> list[TensorFit]:
    """How good a quantized checkpoint is: its error, and that of the best scales of the same format.

    Of each weight w with codes c and scales s the mean squared errors of three: "stored", mean (w - s c)^2; "nearest",
    the same scales with the level nearest to each value; and `optimum`, the least that scales of this format can have,
    stored in the same type (and under the same tensor scale). Rounding that compensates errors by each other (GPTQ) has
    a larger "stored" than "nearest" on purpose: it weighs errors by activations, which are not here.

    Parameters
    ----------
    model : path-like or sequence
        A checkpoint of quantized weights; see `qerror.files.quantized_weights` for which are read.
    against : path-like or sequence
        The checkpoint that it was made of, with the same names.
    rule : sequence of str
        Further rules to hold against the optimum, of the original's values in the same format: "minmax", "octav", ...
    include, exclude : sequence of str
        Patterns of names of weights.
    sink : ScaleSink, optional
        Takes NAME.scale, and NAME.tensor_scale where there is one, of the first rule; without any, of the best scales.
    memory : float
        Bytes that may be used.
    progress : callable, optional
        Called as progress(tensor, values done since, values in all).

    Returns
    -------
    list of TensorFit
        With the rules "stored" and "nearest", the format as element type. What is quantized in another way, or not in
        `against`, is skipped with the reason.

    Raises
    ------
    ValueError
        If the checkpoint has no quantized weights.
    """
    return _every(model, against, _Asked(tuple(rule), memory, sink), include, exclude, progress)


def _every(
    model: Where,
    against: Where,
    asked: _Asked,
    include: Sequence[str],
    exclude: Sequence[str],
    progress: Callable[[str, int, int], None] | None,
) -> list[TensorFit]:
    with open_checkpoint(model) as checkpoint, open_checkpoint(against) as opened:
        original, weights = dequantized(opened), quantized_weights(checkpoint)
        unknown = quantized_names(checkpoint.tensors) - {name for each in weights.values() for name in each.members}
        if not weights and not unknown:
            raise ValueError(f"{shown(checkpoint.path)} has no quantized weights to evaluate")
        wanted = [each for each in weights.values() if _named(each.info.name, include, exclude)]
        if not wanted and weights:
            raise ValueError(f"include and exclude leave none of {len(weights)} quantized weights")
        total = sum(each.info.size for each in wanted)
        out = []
        for weight in wanted:
            heard = None if progress is None else functools.partial(_heard, progress, weight.info.name, total)
            out.append(_evaluated(weight, original, asked, heard))
        left = sorted(name for name in unknown if not name.rpartition(".")[2].startswith(("input_", "output_")))
        return out + [TensorFit(checkpoint.info(name), skipped=QUANTIZED) for name in left]


def with_stored(
    fits: Iterable[TensorFit],
    model: Where,
    against: Where,
    *,
    memory: float = DEFAULT_MEMORY,
    progress: Callable[[str, int, int], None] | None = None,
) -> list[TensorFit]:
    """Fits of the original, in any format, with the rule "stored": the error of what the quantized checkpoint holds.

    Tensors that it does not quantize are left out.
    """
    asked = _Asked(None, memory)
    stored = {each.info.name: each for each in _every(model, against, asked, (), (), progress)}
    out = []
    for fit_ in fits:
        own = stored.get(fit_.info.name)
        if own is None or not own.mse:
            why = "not quantized in the model" if own is None else own.skipped or own.failed
            out.append(fit_ if fit_.skipped or fit_.failed else TensorFit(fit_.info, skipped=why, grid=fit_.grid))
        else:
            out.append(dataclasses.replace(fit_, mse={**own.mse, **fit_.mse}) if fit_.mse else fit_)
    return out


def _heard(progress: Callable[[str, int, int], None], name: str, total: int, size: int) -> None:
    progress(name, size, total)


def _named(name: str, include: Sequence[str], exclude: Sequence[str]) -> bool:
    inside = not include or matches(name, include)
    return inside and not matches(name, exclude)


def _evaluated(
    weight: QuantizedWeight, original: Checkpoint, asked: _Asked, heard: Callable[[int], None] | None
) -> TensorFit:
    name = weight.info.name
    if name not in original:
        return TensorFit(weight.info, skipped="not in the original")
    info = original.info(name)
    shape = (*info.shape[:-2], *info.shape[:-3:-1]) if weight.transposed else info.shape
    if shape != weight.info.shape or not is_real(info.dtype):
        said = f"the original has shape {info.shape} and type {plain(info.dtype, 20)}, not shape {weight.info.shape}"
        return TensorFit(weight.info, failed=said)
    height, columns = weight.block[0], weight.columns
    step = max(1, PIECE // (columns * height)) * height
    cost = max(_PIECE_COST, min(step, weight.rows) * columns * _ELEMENT_COST)
    if BASE_MEMORY + cost > asked.memory:
        size = f"{math.ceil((BASE_MEMORY + cost) / 1e6)}MB"
        return TensorFit(weight.info, failed=f"its groups take about {size}; allow them, as in --memory {size}")

    def work(begin: int) -> _Sums:
        end = min(begin + step, weight.rows)
        found = _sums(weight, _rows(original, info, weight.transposed, begin, end), begin, end, asked)
        if heard is not None:
            heard((end - begin) * columns)
        return found

    try:
        at_most = max(1, int(min((asked.memory - BASE_MEMORY) / cost, num_threads())))
        parts = thread_map(work, range(0, weight.rows, step), at_most=at_most)
    except ReadError:
        raise
    except ValueError as error:
        return TensorFit(weight.info, failed=str(error))
    if asked.sink is not None:
        for name, array in _chosen_arrays(weight, parts):
            asked.sink.add(name, array)
    return _as_fit(weight.info, parts)


def _rows(original: Checkpoint, info: TensorInfo, transposed: bool, begin: int, end: int) -> NDArray[Any]:
    """Rows of the original in the order of the quantized weight."""
    if not transposed:
        columns = info.shape[-1]
        return original.part(info.name, begin * columns, end * columns).reshape(-1, columns)
    inputs, outputs = info.shape[-2:]
    out = []
    for expert in range(begin // outputs, -(-end // outputs)):
        size, first = inputs * outputs, expert * outputs
        whole = original.part(info.name, expert * size, (expert + 1) * size).reshape(inputs, outputs)
        out.append(whole[:, max(begin - first, 0) : end - first].T)
    return np.concatenate(out)


def _sums(weight: QuantizedWeight, values: NDArray[Any], begin: int, end: int, asked: _Asked) -> _Sums:
    part = weight.part(begin, end)
    wide = values.astype(np.float64)
    errors = {"stored": float(np.sum((wide - part.dequantize(np.float64)) ** 2))}
    chosen: dict[str, NDArray[np.float64]] = {}
    if asked.rules is not None:
        groups = make_groups(values.shape, None, weight.block[1], -1)
        nearest = groups.fake_quantize(wide, part.grid, part.scale)
        errors["nearest"] = float(np.sum((wide - nearest) ** 2))
    for rule in asked.every_rule:
        found = _fitted(weight, values, rule, negative=bool((part.scale < 0).any()))
        errors[rule] = float(found.total.mse) * values.size
        if not chosen:
            chosen = {name: array for name, array in stored_scales(found).items() if name != "shift"}
    scales = part.scale.reshape(-1) if weight.block[0] == 1 else np.unique(part.scale)
    return _Sums(float(np.sum(wide**2)), errors, scales, chosen)


def _fitted(weight: QuantizedWeight, values: NDArray[Any], rule: str, *, negative: bool) -> FitResult:
    """Scales of the same format by a rule."""
    (height, width), stored, grid = weight.block, weight.scale_format, weight.grid
    named = {("e2m1", "e4m3fn"): "nvfp4", ("e2m1", "e8m0"): "mxfp4", ("e4m3fn", "e8m0"): "mxfp8_e4m3"}
    if (grid.name, stored) in named and height == 1:
        unit = weight.unit() if stored == "e4m3fn" else None
        return fit(values, named[str(grid.name), str(stored)], rule=rule, measure=False, tensor_scale=unit)
    options: dict[str, Any] = {"rule": rule, **({"scale_format": stored} if stored else {})}
    options |= {"sign": "either"} if negative and rule == "optimal" else {}
    if (height, width) == (weight.rows, weight.columns):
        return fit(values, grid, measure=False, **options)
    size = width if height == 1 else (height, width)
    return fit(values, grid, block_size=size, measure=False, **options)


def _chosen_arrays(weight: QuantizedWeight, parts: Sequence[_Sums]) -> Iterator[tuple[str, NDArray[Any]]]:
    """The scales that were chosen, with an entry for each group, in float32."""
    (height, width), lead = weight.block, weight.info.shape[:-1]
    per_row = -(-weight.columns // width)
    scale = np.concatenate([part.chosen["scale"].reshape(-1, per_row) for part in parts])
    shaped = scale.reshape(*lead, per_row) if height == 1 else scale
    yield f"{weight.info.name}.scale", shaped.astype(np.float32)
    if "tensor_scale" in parts[0].chosen:
        yield f"{weight.info.name}.tensor_scale", parts[0].chosen["tensor_scale"].astype(np.float32)


def _as_fit(info: TensorInfo, parts: Sequence[_Sums]) -> TensorFit:
    power = math.fsum(part.power for part in parts) / info.size
    mse = {rule: math.fsum(part.errors[rule] for part in parts) / info.size for rule in parts[0].errors}
    optimum = mse.pop("optimal", math.nan)
    scales = np.concatenate([part.scales for part in parts])
    three = float(scales.min()), float(np.median(scales)), float(scales.max())
    return TensorFit(info, scales=three, groups=scales.size, power=power, mse=mse, optimum=optimum)
