"""What a fit says of each tensor and of all of them; tensors one after the other, in this process."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .._check import listed, plain, shown
from ..files.elements import TensorInfo, is_real
from ..files.layouts import quantized_names
from ..files.mapping import Checkpoint
from ..files.scales import ScaleSink
from ..results import Status
from .globs import grouped_names, matches
from .parts import Part
from .pieces import Fitting, Weigher, bits_of, largest_magnitude
from .recipe import Recipe, cut

QUANTIZED = "quantized, not fitted"


@dataclasses.dataclass(frozen=True)
class TensorFit:
    """What one tensor costs in one format under each rule, or why it was not fitted.

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
    grid : str
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
    grid: str = ""


def select_tensors(
    tensors: Iterable[TensorInfo],
    *,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    one_dimensional: bool = False,
) -> list[tuple[TensorInfo, str]]:
    """Which tensors to fit: each that the patterns name, with the reason where it is left out.

    Codes of quantized weights and their scales are no weights: they are left out as such.

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
    named = [info for info in every if not include or matches(info.name, include)]
    named = [info for info in named if not matches(info.name, exclude)]
    if not named:
        known = listed(info.name for info in every[:3]) or "none at all"
        raise ValueError(f"include and exclude leave none of {len(every)} tensors ({known}, ...)")
    quantized = quantized_names(every)
    return [(info, QUANTIZED if info.name in quantized else _reason(info, one_dimensional)) for info in named]


def _reason(info: TensorInfo, one_dimensional: bool) -> str:
    if not is_real(info.dtype):
        return f"element type {plain(info.dtype, 40)}"
    if info.size == 0:
        return "no elements"
    return "" if len(info.shape) > 1 or one_dimensional else f"{len(info.shape)}-D"


def fit_tensors(
    checkpoint: Checkpoint,
    selected: Iterable[tuple[TensorInfo, str]],
    grid: str | Sequence[str],
    rules: Sequence[str],
    *,
    given: Mapping[str, NDArray[Any]] | None = None,
    weigh: Weigher | None = None,
    sink: ScaleSink | None = None,
    codes: bool = False,
    together: Sequence[str] = (),
    memory: float = math.inf,
    progress: Callable[[str, int], None] | None = None,
    **options: Any,
) -> Iterator[TensorFit]:
    """Fit the tensors of a checkpoint one after the other, in pieces of about a million values.

    Parameters
    ----------
    checkpoint : Checkpoint
    selected : iterable of (TensorInfo, str)
        What `select_tensors` returns.
    grid : str or sequence of str
    rules : sequence of str
        The first one's scales are described and written.
    given : mapping of str to ndarray, optional
        NAME.scale and NAME.shift of scales to compare with, as the rule "given".
    weigh : callable, optional
        TensorInfo -> the weights of its elements or None.
    sink : ScaleSink, optional
        Takes NAME.scale, NAME.shift, where there are such NAME.zero_point and NAME.tensor_scale, and with `codes`
        NAME.codes, of the first format.
    codes : bool
    together : sequence of str
        Patterns of tensors that share a tensor scale.
    memory : float
        Bytes that this process may use.
    progress : callable, optional
        Hears a tensor's name, and how many bytes of it were done since it was last called.
    **options
        Of `qerror.fit`.

    Yields
    ------
    TensorFit
        One for each format; a tensor that cannot be fitted (NaN, no such axis) says so in `failed`, the rest goes on.
    """
    grids = (grid,) if isinstance(grid, str) else tuple(grid)
    recipe = Recipe(grids, tuple(rules), options, codes, tuple(together))
    chosen = list(selected)
    largest = Largest(checkpoint, [info.name for info, reason in chosen if not reason], recipe)
    fitting = Fitting(checkpoint, recipe, largest, weigh, given, memory)
    for info, reason in chosen:
        if reason:
            yield TensorFit(info, skipped=reason)
            continue
        try:
            heard = None if progress is None else functools.partial(progress, info.name)
            part = fitting.rows(info.name, 0, cut(info, recipe).rows, heard)
            found = tensor_fits(info, part)
        except (ValueError, MemoryError) as error:
            yield TensorFit(info, failed=str(error))
            continue
        if sink is not None:
            _write(sink, info, part, recipe)
        yield from found


class Largest:
    """The largest magnitude of a tensor, or of those that share its tensor scale; each tensor is read once for it."""

    def __init__(self, checkpoint: Checkpoint, names: Sequence[str], recipe: Recipe) -> None:
        self._checkpoint = checkpoint
        self._groups = grouped_names(names, recipe.together)
        self._known: dict[str, float] = {}

    def members(self, name: str) -> tuple[str, ...]:
        """The tensors that share a scale with this one, itself among them."""
        return self._groups.get(name, (name,))

    def __call__(self, name: str) -> float:
        """The largest magnitude; nan where a value of the tensor itself is NaN."""
        for each in self.members(name):
            if each not in self._known:
                self._known[each] = self._find(each)
            if math.isnan(self._known[each]) and each != name and not math.isnan(self._known.get(name, 0.0)):
                raise ValueError(f"{shown(each, 60)}, which shares the tensor scale, has NaN; leave it out or mend it")
        return float(np.max([self._known[each] for each in self.members(name)]))

    def _find(self, name: str) -> float:
        return largest_magnitude(self._checkpoint, self._checkpoint.info(name))


def tensor_fits(info: TensorInfo, part: Part) -> list[TensorFit]:
    """What is said of a fitted tensor, one of each format."""
    out, kurtosis = [], part.moments.kurtosis
    for grid, found in part.formats.items():
        scale = found.arrays["scale"]
        scales = (float(np.min(scale)), float(np.median(scale)), float(np.max(scale)))
        mse = {rule: total / found.weight for rule, total in found.mse.items()}
        optimum = mse["optimal"]
        wanted = {rule: value for rule, value in mse.items() if rule in found.wanted}
        unusual = {
            rule: {Status[name]: count for name, count in counts.items()}
            for rule, counts in found.unusual.items()
            if counts and rule in wanted
        }
        power = found.power / found.weight
        out.append(TensorFit(info, "", "", kurtosis, scales, found.groups, power, wanted, optimum, unusual, grid))
    return out


def stored_arrays(info: TensorInfo, part: Part, recipe: Recipe, grid: str) -> Iterator[tuple[str, NDArray[Any]]]:
    """Name and content of what is written of a tensor in one format."""
    kind = np.float64 if info.dtype == "F64" else np.float32
    arrays = part.formats[grid].arrays
    shape = recipe.groups(grid, info.shape).scale_shape
    for name in ("scale", "shift", "tensor_scale"):
        if name in arrays:
            whole = np.asarray(arrays[name], kind)
            yield f"{info.name}.{name}", whole if name == "tensor_scale" else whole.reshape(shape)
    if "zero_point" in arrays:
        yield f"{info.name}.zero_point", np.asarray(arrays["zero_point"], np.int64).reshape(shape)
    if "codes" in arrays:
        yield f"{info.name}.codes", arrays["codes"].reshape(info.shape)


def _write(sink: ScaleSink, info: TensorInfo, part: Part, recipe: Recipe) -> None:
    for name, array in stored_arrays(info, part, recipe, recipe.grids[0]):
        sink.add(name, array)


def stored_size(info: TensorInfo) -> int:
    """Bytes of a tensor in its file, about."""
    return -(-info.size * bits_of(info) // 8)


def checkpoint_total(fits: Iterable[TensorFit]) -> TensorFit | None:
    """All fitted tensors of one format as one, each value counting the same; None without any.

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
        grid=done[0].grid,
    )
