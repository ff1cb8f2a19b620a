"""Scales for whole checkpoints, tensor by tensor: what each rule loses, and where the scales go."""

from __future__ import annotations

import dataclasses
import fnmatch
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .._check import listed, plain
from .._threads import chunk_slices
from ..files.checkpoint import Checkpoint
from ..files.elements import TensorInfo
from ..files.scales import ScaleSink
from ..results import ErrorTerms, FitResult, Status
from ..tensors.fitting import evaluate, fit

_UNUSUAL = (Status.DEGENERATE, Status.DEGENERATE_NONE, Status.FALLBACK, Status.UNCONVERGED)
_REAL = ("F64", "F32", "F16", "BF16", "F8_E4M3", "F8_E5M2", "F8_E4M3FNUZ", "F8_E5M2FNUZ", "F8_E8M0")


@dataclasses.dataclass(frozen=True)
class TensorFit:
    """What one tensor costs under each rule, or why it was not fitted.

    Attributes
    ----------
    info : TensorInfo
    skipped, failed : str
        The reason where it was left out, or could not be fitted; else empty.
    kurtosis : float
        Excess kurtosis of the values (a Gaussian has 0).
    scales : tuple of float
        Least, median and greatest scale of the first rule.
    groups : int
    power : float
        Mean square of the values.
    mse : dict of str to float
        By rule.
    optimum : float
        MSE of rule "optimal".
    unusual : dict of str to dict of Status to int
        By rule: how many groups are degenerate, fallen back or unconverged, where there are such.
    """

    info: TensorInfo
    skipped: str = ""
    failed: str = ""
    kurtosis: float = math.nan
    scales: tuple[float, float, float] = (math.nan,) * 3
    groups: int = 0
    power: float = math.nan
    mse: Mapping[str, float] = dataclasses.field(default_factory=dict)
    optimum: float = math.nan
    unusual: Mapping[str, Mapping[Status, int]] = dataclasses.field(default_factory=dict)


def select_tensors(
    tensors: Iterable[TensorInfo],
    *,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    one_dimensional: bool = False,
) -> list[tuple[TensorInfo, str]]:
    """Which tensors to fit: each that the patterns name, with the reason where it is left out.

    Parameters
    ----------
    tensors : iterable of TensorInfo
    include, exclude : sequence of str
        Patterns with * and ?, of whole names. Without `include` all are meant.
    one_dimensional : bool
        Whether to fit tensors of fewer than two dimensions (biases, norms).

    Raises
    ------
    ValueError
        If the patterns leave none.

    Examples
    --------
    >>> infos = [TensorInfo("w", (2, 2), "F32"), TensorInfo("b", (2,), "F32")]
    >>> [(info.name, reason) for info, reason in select_tensors(infos)]
    [('w', ''), ('b', '1-D')]
    """
    every = list(tensors)
    named = [info for info in every if not include or any(fnmatch.fnmatchcase(info.name, p) for p in include)]
    named = [info for info in named if not any(fnmatch.fnmatchcase(info.name, p) for p in exclude)]
    if not named:
        known = listed(info.name for info in every[:3]) or "none at all"
        raise ValueError(f"include and exclude leave none of {len(every)} tensors ({known}, ...)")
    return [(info, _reason(info, one_dimensional)) for info in named]


def _reason(info: TensorInfo, one_dimensional: bool) -> str:
    if info.dtype not in _REAL:
        return f"element type {plain(info.dtype, 40)}"
    if info.size == 0:
        return "no elements"
    return "" if len(info.shape) > 1 or one_dimensional else f"{len(info.shape)}-D"


def fit_tensors(
    checkpoint: Checkpoint,
    selected: Iterable[tuple[TensorInfo, str]],
    grid: str,
    rules: Sequence[str],
    *,
    given: Mapping[str, NDArray[Any]] | None = None,
    sink: ScaleSink | None = None,
    codes: bool = False,
    **options: Any,
) -> Iterator[TensorFit]:
    """Fit the tensors of a checkpoint one after the other.

    Parameters
    ----------
    checkpoint : Checkpoint
    selected : iterable of (TensorInfo, str)
        What `select_tensors` returns.
    grid : str
    rules : sequence of str
        The first one's scales are described and written.
    given : mapping of str to ndarray, optional
        NAME.scale and NAME.shift of scales to compare with, as the rule "given".
    sink : ScaleSink, optional
        Takes NAME.scale, NAME.shift, where there are such NAME.zero_point and NAME.tensor_scale, and with `codes`
        NAME.codes.
    codes : bool
    **options
        Of `qerror.fit`.

    Yields
    ------
    TensorFit
        A tensor that cannot be fitted (NaN, no such axis) says so in `failed`; the rest goes on.
    """
    for info, reason in selected:
        if reason:
            yield TensorFit(info, skipped=reason)
            continue
        try:
            values = checkpoint[info.name]
            yield _fit_one(info, values, grid, rules, given or {}, sink, codes, options)
        except ValueError as error:
            yield TensorFit(info, failed=str(error))


def _fit_one(
    info: TensorInfo,
    values: NDArray[Any],
    grid: str,
    rules: Sequence[str],
    given: Mapping[str, NDArray[Any]],
    sink: ScaleSink | None,
    codes: bool,
    options: Mapping[str, Any],
) -> TensorFit:
    totals: dict[str, ErrorTerms] = {}
    first = fit(values, grid, rule=rules[0], measure=False, **options)
    totals[rules[0]] = first.total
    scales = (float(np.min(first.scale)), float(np.median(first.scale)), float(np.max(first.scale)))
    groups, unusual = int(np.size(first.scale)), {rules[0]: _unusual(first)}
    if sink is None:
        # The scales of small blocks take as much memory as the tensor: no rule's are kept.
        del first
    for rule in (*rules[1:], *({"optimal"} - set(rules))):
        other = fit(values, grid, rule=rule, measure=False, **options)
        totals[rule], unusual[rule] = other.total, _unusual(other)
        del other
    mse = {rule: float(totals[rule].mse) for rule in rules}
    if f"{info.name}.scale" in given:
        mse["given"] = _given(info, values, grid, given, options)
    power, optimum = float(totals[rules[0]].power), float(totals["optimal"].mse)
    unusual = {rule: unusual[rule] for rule in rules if unusual[rule]}
    result = TensorFit(info, "", "", _kurtosis(values), scales, groups, power, mse, optimum, unusual)
    if sink is not None:
        _write(sink, info, values, first, codes)
    return result


def _unusual(result: FitResult) -> dict[Status, int]:
    status = np.atleast_1d(np.asarray(result.status, object))
    counts = {one: int(np.count_nonzero(status == one)) for one in _UNUSUAL}
    return {one: count for one, count in counts.items() if count}


def _given(
    info: TensorInfo, values: NDArray[Any], grid: str, given: Mapping[str, NDArray[Any]], options: Mapping[str, Any]
) -> float:
    layout = {key: options[key] for key in ("axis", "block_size", "block_axis", "scale_format") if key in options}
    shift = given.get(f"{info.name}.shift", 0.0)
    scale = given[f"{info.name}.scale"]
    return float(evaluate(values, grid, scale, shift, measure=False, **layout).total.mse)


def _write(sink: ScaleSink, info: TensorInfo, values: NDArray[Any], fit: FitResult, codes: bool) -> None:
    kind = np.float64 if info.dtype == "F64" else np.float32
    for name in ("scale", "shift", "tensor_scale"):
        value = getattr(fit, name)
        if value is not None:
            sink.add(f"{info.name}.{name}", np.asarray(value, kind))
    if fit.zero_point is not None:
        sink.add(f"{info.name}.zero_point", np.asarray(fit.zero_point, np.int64))
    if codes:
        sink.add(f"{info.name}.codes", fit.quantize(values))


def _kurtosis(values: NDArray[Any]) -> float:
    """Excess kurtosis, in float64 and without a copy of the tensor."""
    flat = values.reshape(-1)
    parts = chunk_slices(flat.size)
    mean = sum(float(flat[part].sum(dtype=np.float64)) for part in parts) / flat.size
    second = fourth = 0.0
    for part in parts:
        square = np.square(flat[part].astype(np.float64) - mean)
        second, fourth = second + float(square.sum()), fourth + float(np.einsum("i,i->", square, square))
    return flat.size * fourth / second**2 - 3 if second > 0 else math.nan


def checkpoint_total(fits: Iterable[TensorFit]) -> TensorFit | None:
    """All fitted tensors as one, each value counting the same; None without any.

    A rule that some tensor lacks ("given" scales) has no total.
    """
    done = [fit for fit in fits if not fit.skipped and not fit.failed]
    if not done:
        return None
    size = sum(fit.info.size for fit in done)

    def mean(values: Iterable[float]) -> float:
        return math.fsum(fit.info.size * value for fit, value in zip(done, values, strict=True)) / size

    rules = [rule for rule in done[0].mse if all(rule in fit.mse for fit in done)]
    return TensorFit(
        TensorInfo("total", (size,), ""),
        groups=sum(fit.groups for fit in done),
        power=mean(fit.power for fit in done),
        mse={rule: mean(fit.mse[rule] for fit in done) for rule in rules},
        optimum=mean(fit.optimum for fit in done),
    )
