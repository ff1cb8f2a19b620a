"""What the library answers with: immutable values with a readable form."""

from __future__ import annotations

import dataclasses
import enum
import itertools
import math
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ._text import html_table
from ._types import Values


class Status(enum.Enum):
    """How far a result may be trusted; the value is the message."""

    EXACT = "proven: no scale has a smaller error (within 1e-12 of it, or what float64 resolves)"
    SCANNED = "not proven: the best minimum of a scan over all scales; certify=True asks for the proof"
    LOCAL = "not proven: the best of several starts, each followed to a local minimum"
    CLOSED_FORM = "exact: a closed form"
    BRACKETED = "proven: the true value lies in the bracket"
    RULE = "a rule's scale: nothing is claimed about its error"
    FALLBACK = "the rule gives no positive scale here: the smallest one that clips nothing stands in for it"
    UNCONVERGED = "the rule's iteration has not settled within its steps (n_iter)"
    GIVEN = "given by the caller"
    DEGENERATE = "degenerate: every scale gives the same error, so any is optimal; 1.0 stands for them"
    DEGENERATE_NONE = "degenerate: no scale is optimal, the error falls on to scale 0; 2^-126 stands for it"

    def __str__(self) -> str:
        return self.value


def _number(value: Any) -> str:
    array = np.asarray(value)
    if array.ndim == 0:
        return f"{float(array):.10g}"
    with np.printoptions(precision=6, threshold=6, edgeitems=3):
        return str(array).replace("\n", "")


def _decibels(power: Any, mse: Any) -> Values:
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.where(np.equal(power, 0), np.nan, np.asarray(power) / np.asarray(mse))
        found: Values = (10 * np.log10(ratio))[()]
    return found


class _Readable:
    """A dataclass repr with one aligned line a field; every line is named by the attribute that it shows."""

    def _lines(self) -> dict[str, str]:
        raise NotImplementedError

    def __repr__(self) -> str:
        lines = self._lines()
        width = max(map(len, lines))
        body = "\n".join(f"  {name:<{width}}  {text}" for name, text in lines.items())
        return f"{type(self).__name__}\n{body}"

    def _repr_html_(self) -> str:
        return html_table(self._lines().items(), caption=type(self).__name__)


@dataclasses.dataclass(frozen=True, repr=False, eq=False)
class ErrorTerms(_Readable):
    """The error of a quantizer on a density, as additive terms of one broadcast shape.

    Attributes
    ----------
    clipping : float or ndarray
        E[(x - Q(x))^2] over x beyond the end levels; units of x squared.
    rounding : float or ndarray
        The same between the end levels.
    bias : float or ndarray
        E[Q(x) - x]; units of x.
    cross : float or ndarray
        E[x (Q(x) - x)]; units of x squared.
    power : float or ndarray
        E[x^2].
    mean : float or ndarray
        E[x].
    """

    clipping: Values
    rounding: Values
    bias: Values
    cross: Values
    power: Values
    mean: Values

    @property
    def mse(self) -> Values:
        """Clipping + rounding = E[(x - Q(x))^2]."""
        return self.clipping + self.rounding

    @property
    def sqnr_db(self) -> Values:
        """Signal to quantization noise ratio, 10 log10(power / mse); inf where mse is 0, nan where power is 0."""
        return _decibels(self.power, self.mse)

    def _lines(self) -> dict[str, str]:
        names = ("mse", "clipping", "rounding", "bias", "cross", "power", "mean", "sqnr_db")
        return {name: _number(getattr(self, name)) for name in names}


@dataclasses.dataclass(frozen=True, repr=False, eq=False)
class LossTerms(_Readable):
    """The error of a quantizer by another loss than the square, |e|^p, as additive terms of one broadcast shape.

    Attributes
    ----------
    clipping : float or ndarray
        E|x - Q(x)|^p over x beyond the end levels; units of x to the power p.
    rounding : float or ndarray
        The same between the end levels.
    size : float or ndarray
        E|x|^p.
    exponent : float
        p.
    """

    clipping: Values
    rounding: Values
    size: Values
    exponent: float

    @property
    def loss(self) -> Values:
        """Clipping + rounding = E|x - Q(x)|^p; infinite where a tail is too heavy for it."""
        return self.clipping + self.rounding

    @property
    def snr_db(self) -> Values:
        """(20 / p) log10(size / loss): the ratio of the p-norms of signal and error, for p = 2 the SQNR."""
        found: Values = 2.0 / self.exponent * _decibels(self.size, self.loss)
        return found

    def _lines(self) -> dict[str, str]:
        names = ("loss", "clipping", "rounding", "size", "snr_db", "exponent")
        return {name: _number(getattr(self, name)) for name in names}


@dataclasses.dataclass(frozen=True, repr=False, eq=False)
class BlockErrorTerms(ErrorTerms):
    """The error of a block format on a density.

    Attributes
    ----------
    maximum : float or ndarray
        The part of the mse that falls to the values of largest magnitude of their blocks, 1 / B of all values; units of
        x squared.
    bits_per_value : float
        Storage of a value, its share of the block scale counted.
    """

    maximum: Values
    bits_per_value: float

    def _lines(self) -> dict[str, str]:
        return {**super()._lines(), "maximum": _number(self.maximum), "bits_per_value": _number(self.bits_per_value)}


@dataclasses.dataclass(frozen=True, repr=False, eq=False)
class OctaveAverage(_Readable):
    """The error of a format with power-of-two scales over an octave of the tensor scale.

    Attributes
    ----------
    mean : BlockErrorTerms
        Averages over log2 of the tensor scale; its sqnr_db is that of the mean error.
    least, greatest : BlockErrorTerms
        Where the mse is least and greatest.
    least_scale, greatest_scale : float
        The tensor scales there, from 1 to 2 (and all of their doubles and halves).
    """

    mean: BlockErrorTerms
    least: BlockErrorTerms
    greatest: BlockErrorTerms
    least_scale: float
    greatest_scale: float

    def _lines(self) -> dict[str, str]:
        places = {"mean": "", "least": f" at scale {self.least_scale:.6g}"}
        places["greatest"] = f" at scale {self.greatest_scale:.6g}"
        terms = {name: getattr(self, name) for name in places}
        return {n: f"mse {_number(t.mse)}, {_number(t.sqnr_db)} dB{places[n]}" for n, t in terms.items()}


@dataclasses.dataclass(frozen=True)
class Minimum:
    """One local minimum of the MSE over the scale (and, where it was free, the shift)."""

    scale: float
    shift: float
    mse: float


@dataclasses.dataclass(frozen=True, repr=False, eq=False)
class ScaleResult(_Readable):
    """The scale (and shift) of least mean squared error.

    Attributes
    ----------
    scale, shift : float or ndarray
        Units of x; the values are shift + scale * levels.
    clip : float or ndarray
        scale * max(abs(levels)).
    range : tuple of (lower, upper)
        The end values.
    error : ErrorTerms
        The exact error (or that of the model asked for) at this scale.
    minima : tuple of Minimum, or object ndarray of tuples
        Local minima, best first: all that were found for a density, those within 1 % of the best for a sample.
    interval_1pct : tuple of (lower, upper)
        The connected scales around `scale` whose MSE is within 1 % of the best: of a sample on grids of up to 10 bits
        without an exception inside, else as far as evaluated scales show.
    status : Status or object ndarray of Status
        What is proven; its value is the message.
    """

    scale: Values
    shift: Values
    clip: Values
    range: tuple[Values, Values]
    error: ErrorTerms
    minima: Any
    interval_1pct: tuple[Values, Values]
    status: Any

    def _lines(self) -> dict[str, str]:
        statuses = np.unique([str(status) for status in np.atleast_1d(np.asarray(self.status, object)).ravel()])
        pairs = {"range": self.range, "interval_1pct": self.interval_1pct}
        lines = {name: _number(getattr(self, name)) for name in ("scale", "shift", "clip")}
        lines |= {name: f"{_number(low)} to {_number(high)}" for name, (low, high) in pairs.items()}
        lines |= {f"error.{name}": _number(getattr(self.error, name)) for name in ("mse", "sqnr_db")}
        if isinstance(self.minima, tuple):
            lines["minima"] = f"{len(self.minima)} at scale " + ", ".join(f"{m.scale:.6g}" for m in self.minima[:6])
        return {**lines, "status": "; ".join(statuses)}


@dataclasses.dataclass(frozen=True, repr=False, eq=False)
class LossScaleResult(_Readable):
    """The scale of least E|x - Q(x)|^p.

    Attributes
    ----------
    scale, shift : float or ndarray
        Units of x; the values are shift + scale * levels.
    clip : float or ndarray
        scale * max(abs(levels)).
    range : tuple of (lower, upper)
        The end values.
    error : LossTerms
        At this scale.
    status : Status or object ndarray of Status
        What is proven; its value is the message.
    """

    scale: Values
    shift: Values
    clip: Values
    range: tuple[Values, Values]
    error: LossTerms
    status: Any

    def _lines(self) -> dict[str, str]:
        statuses = np.unique([str(status) for status in np.atleast_1d(np.asarray(self.status, object)).ravel()])
        lines = {name: _number(getattr(self, name)) for name in ("scale", "shift", "clip")}
        lines["range"] = f"{_number(self.range[0])} to {_number(self.range[1])}"
        lines |= {name: _number(getattr(self.error, name)) for name in ("loss", "snr_db", "exponent")}
        return {**lines, "status": "; ".join(statuses)}


@dataclasses.dataclass(frozen=True, repr=False, eq=False)
class BlockScaleResult(_Readable):
    """The tensor scale or the constant of a block format that has the least mean squared error.

    Attributes
    ----------
    form : BlockFormat
        The format, with the best constant.
    free : {"scale", "constant"}
        What was chosen.
    scale : float
        The tensor scale, units of x; 1 where the constant was chosen.
    constant : float
        What the largest magnitude of a block is multiplied with.
    error : BlockErrorTerms
        At the best; of power-of-two scales whose constant was chosen the mean over an octave.
    minima : tuple of Minimum
        All that were found, best first; their `scale` is that of what was chosen.
    status : Status
    """

    form: Any
    free: str
    scale: float
    constant: float
    error: BlockErrorTerms
    minima: tuple[Minimum, ...]
    status: Status

    @property
    def threshold(self) -> float | None:
        """Of a power-of-two rule: the largest magnitude of a block over its scale lies below it, above its half."""
        end: float | None = self.form.octave_end
        return end

    def _lines(self) -> dict[str, str]:
        lines = {"form": self.form.name, "scale": _number(self.scale), "constant": f"{self.constant:.9g}"}
        lines |= {} if self.threshold is None else {"threshold": f"{self.threshold:.9g}"}
        lines |= {f"error.{name}": _number(getattr(self.error, name)) for name in ("mse", "sqnr_db")}
        lines["minima"] = f"{len(self.minima)} at {self.free} " + ", ".join(f"{m.scale:.6g}" for m in self.minima[:6])
        return {**lines, "status": str(self.status)}


@dataclasses.dataclass(frozen=True, repr=False, eq=False)
class FitResult(_Readable):
    """Scales of a tensor, one for each of its groups, and what they cost; made by `qerror.fit` and `qerror.evaluate`.

    Attributes
    ----------
    grid : Grid
    rule : str
        What chose the scales.
    scale, shift : float or ndarray
        Units of x, one entry a group: (), keepdims of the kept axes, or (..., n_blocks).
    zero_point : int, ndarray of int64 or None
        -shift / scale where integers were asked for.
    tensor_scale : float or None
        What the stored block scales are multiplied with: `scale / tensor_scale` is in the scale format.
    status : Status or object ndarray of Status
    groups : Groups
        How the tensor is divided.
    costs : object
        Holder of `error`, `total`, `clipped_fraction`, `excess_db`, `total_excess_db`; see `qerror.fit` for when they
        are computed.
    form : BlockFormat or None
        The block format that the tensor was fitted to, if it was one; `rule` is what chose its scales.
    """

    grid: Any
    rule: str
    scale: Values
    shift: Values
    zero_point: int | NDArray[np.int64] | None
    tensor_scale: float | None
    status: Any
    groups: Any
    costs: Any
    form: Any = None

    @property
    def error(self) -> ErrorTerms:
        """The exact error of each group, of the levels shift + scale * level in float64.

        Where values almost lie on levels, the error is that of the rounded levels: its root is known to 2^-52 max|x|.
        """
        error: ErrorTerms = self.costs.error
        return error

    @property
    def total(self) -> ErrorTerms:
        """The exact error over the whole tensor: that of the groups, weighted by their sizes (or weights)."""
        total: ErrorTerms = self.costs.total
        return total

    @property
    def clipped_fraction(self) -> Values:
        """Share of each group (by weight) that lies beyond the end values."""
        share: Values = self.costs.clipped_fraction
        return share

    @property
    def excess_db(self) -> Values:
        """Decibels that each group loses against rule "optimal" with all else the same; >= 0."""
        lost: Values = self.costs.excess_db
        return lost

    @property
    def total_excess_db(self) -> float:
        """Decibels that the whole tensor loses against rule "optimal" with all else the same; >= 0."""
        lost: float = self.costs.total_excess_db
        return lost

    def quantize(self, x: ArrayLike, **options: Any) -> NDArray[Any]:
        """Codes of a tensor of the same shape; options as in `qerror.quantize`."""
        found: NDArray[Any] = self.groups.quantize(x, self.grid, self.scale, *self._at, **options)
        return found

    def dequantize(self, codes: ArrayLike, **options: Any) -> NDArray[Any]:
        """Values of codes of the same shape; options as in `qerror.dequantize`."""
        found: NDArray[Any] = self.groups.dequantize(codes, self.grid, self.scale, *self._at, **options)
        return found

    def fake_quantize(self, x: ArrayLike, **options: Any) -> NDArray[Any]:
        """The values that x is replaced by; options as in `qerror.fake_quantize`."""
        found: NDArray[Any] = self.groups.fake_quantize(x, self.grid, self.scale, *self._at, **options)
        return found

    @property
    def _at(self) -> tuple[Any, Any]:
        """Shift and zero point, of which one counts."""
        return (self.shift, None) if self.zero_point is None else (0.0, self.zero_point)

    def _lines(self) -> dict[str, str]:
        lines = {} if self.form is None else {"form": str(self.form.name)}
        elements = f"{self.grid.name or self.grid}"
        lines |= {"grid": elements if self.form is None else f"{elements} in blocks of {self.form.block_size}"}
        lines |= {"rule": self.rule}
        lines |= {name: _number(getattr(self, name)) for name in ("scale", "shift")}
        lines |= {name: _number(v) for name in ("zero_point", "tensor_scale") if (v := getattr(self, name)) is not None}
        statuses = np.unique([str(status) for status in np.atleast_1d(np.asarray(self.status, object)).ravel()])
        return {**lines, **self.costs.lines(), "status": "; ".join(statuses)}


@dataclasses.dataclass(frozen=True, repr=False, eq=False)
class BlockCodes(_Readable):
    """An array as a block format stores it; made by `qerror.quantize`, and `qerror.dequantize` takes it back.

    Attributes
    ----------
    form : BlockFormat
    codes : ndarray
        Codes of the elements in the shape of the array; where packed, two in a byte along the block axis.
    scale : ndarray of float64
        One for each block, in the shape of the array but for the number of blocks on the block axis: values of the
        scale format, without the tensor scale. 0 where all values of the block become 0.
    scale_codes : ndarray or None
        Codes of the stored scales; None where scales may have any size.
    tensor_scale : float
        What all scales are multiplied with; 1 without one.
    shape : tuple of int
        Of the array.
    block_axis : int
    packed : bool
    """

    form: Any
    codes: Any
    scale: Any
    scale_codes: Any
    tensor_scale: float
    shape: tuple[int, ...]
    block_axis: int
    packed: bool = False

    def _lines(self) -> dict[str, str]:
        at = f"block axis {self.block_axis}" + (", two codes in a byte" if self.packed else "")
        return {
            "form": str(self.form.name),
            "shape": f"{self.shape}, {at}",
            "codes": f"{self.codes.dtype} {self.codes.shape}",
            "scale": _number(self.scale),
            "tensor_scale": _number(self.tensor_scale),
        }


@dataclasses.dataclass(frozen=True, repr=False, eq=False)
class StandardErrors(_Readable):
    """Standard errors of the terms of an `ErrorTerms`, and of its mse: standard errors do not add.

    Each in the units and shape of its term; nan where none would be honest.
    """

    clipping: Values
    rounding: Values
    mse: Values
    bias: Values
    cross: Values
    power: Values
    mean: Values

    def _lines(self) -> dict[str, str]:
        return {field.name: _number(getattr(self, field.name)) for field in dataclasses.fields(self)}


@dataclasses.dataclass(frozen=True, repr=False, eq=False)
class SimulatedTerms(_Readable):
    """The error of a quantizer as a simulation finds it.

    Attributes
    ----------
    estimate : ErrorTerms
        Means over the samples.
    stderr : StandardErrors
        The standard error of every term, and of the mse.
    n : int
        How many samples were drawn.
    rng : int
        The seed that reproduces the simulation.
    reason : str
        Why a standard error is nan; empty where none is.
    """

    estimate: ErrorTerms
    stderr: StandardErrors
    n: int
    rng: int
    reason: str = ""

    def _lines(self) -> dict[str, str]:
        names = ("mse", "clipping", "rounding", "bias", "cross", "power", "mean")
        said = ((name, getattr(self.estimate, name), getattr(self.stderr, name)) for name in names)
        lines = {f"estimate.{name}": f"{_number(value)} +- {_number(error)}" for name, value, error in said}
        lines |= {"n": str(self.n), "rng": str(self.rng)}
        return lines | ({"reason": self.reason} if self.reason else {})


@dataclasses.dataclass(frozen=True, repr=False, eq=False)
class DotProductError(_Readable):
    """The error of a dot product of quantized vectors.

    Attributes
    ----------
    mse : float or ndarray
        E[(sum Q(x_i) Q(w_i) - sum x_i w_i)^2].
    bias : float or ndarray
        The expectation of that difference.
    power : float or ndarray
        E[(sum x_i w_i)^2].
    length : int
        Number of products in the sum.
    """

    mse: Values
    bias: Values
    power: Values
    length: int = 1

    @property
    def sqnr_db(self) -> Values:
        """10 log10(power / mse); inf where mse is 0, nan where power is 0."""
        return _decibels(self.power, self.mse)

    def _lines(self) -> dict[str, str]:
        return {name: _number(getattr(self, name)) for name in ("mse", "bias", "power", "sqnr_db", "length")}


@dataclasses.dataclass(frozen=True)
class DotProductStandardErrors:
    """Standard errors of the terms of a `DotProductError`; nan where none would be honest."""

    mse: float
    bias: float
    power: float


@dataclasses.dataclass(frozen=True)
class SimulatedDotProduct:
    """The error of a dot product as a simulation finds it; fields as in `SimulatedTerms`."""

    estimate: DotProductError
    stderr: DotProductStandardErrors
    n: int
    rng: int
    reason: str = ""


@dataclasses.dataclass(frozen=True, repr=False, eq=False)
class RateDistortion(_Readable):
    """A point of Shannon's rate-distortion function, or several; made by `qerror.rate_distortion`.

    Attributes
    ----------
    bits : float or ndarray
        Rate, bits a value.
    mse : float or ndarray
        The least mean squared error at that rate, units of x squared.
    bits_bracket, mse_bracket : tuple of (lower, upper)
        Between which it is proven to lie: of what was given both are the same. What was found is their middle.
    power : float
        E[x^2].
    status : Status
        CLOSED_FORM or BRACKETED.
    """

    bits: Values
    mse: Values
    bits_bracket: tuple[Values, Values]
    mse_bracket: tuple[Values, Values]
    power: float
    status: Status

    @property
    def sqnr_db(self) -> Values:
        """10 log10(power / mse); inf where mse is 0, nan where power is 0."""
        return _decibels(self.power, self.mse)

    def _lines(self) -> dict[str, str]:
        lines = {name: _number(getattr(self, name)) for name in ("bits", "mse", "sqnr_db")}
        for name in ("bits", "mse"):
            low, high = getattr(self, f"{name}_bracket")
            lines[name] += "" if np.all(low == high) else f", from {_number(low)} to {_number(high)}"
        return {**lines, "status": str(self.status)}


@dataclasses.dataclass(frozen=True, repr=False, eq=False)
class EntropyCoded(_Readable):
    """A scalar quantizer for an ideal lossless coder; made by `qerror.limits.entropy_coded`.

    Attributes
    ----------
    bits : float
        Entropy of its codes, bits a value.
    mse : float
        Units of x squared.
    levels, thresholds : ndarray
        Means of the cells, and what divides these (not the midpoints of the levels), units of x.
    uniform_bits, uniform_mse : float
        The same of the best quantizer with equally spaced thresholds, one at the mean or halfway.
    power : float
        E[x^2].
    status : Status
    """

    bits: float
    mse: float
    levels: Any
    thresholds: Any
    uniform_bits: float
    uniform_mse: float
    power: float
    status: Status

    @property
    def sqnr_db(self) -> float:
        """10 log10(power / mse)."""
        return float(_decibels(self.power, self.mse))

    @property
    def uniform_sqnr_db(self) -> float:
        """10 log10(power / uniform_mse)."""
        return float(_decibels(self.power, self.uniform_mse))

    def _lines(self) -> dict[str, str]:
        lines = {name: _number(getattr(self, name)) for name in ("bits", "mse", "sqnr_db", "uniform_sqnr_db")}
        return {**lines, "levels": str(len(self.levels)), "status": str(self.status)}


@dataclasses.dataclass(frozen=True, repr=False, eq=False)
class EntropyCodedFormat(_Readable):
    """Entropy and error of a grid at many scales; made by `qerror.limits.entropy_coded_format`.

    Attributes
    ----------
    grid : Grid
    scale : ndarray, shape (n,)
        Ascending, units of x.
    bits, mse : ndarray, shape (n,)
        Entropy of the codes, bits a value, and mean squared error at each scale.
    hull : ndarray of int
        Indices of the lower convex hull of mse over bits, from the least entropy to the least error.
    power : float
        E[x^2].
    """

    grid: Any
    scale: Any
    bits: Any
    mse: Any
    hull: Any
    power: float

    @property
    def sqnr_db(self) -> Any:
        """10 log10(power / mse)."""
        return _decibels(self.power, self.mse)

    def least_mse(self, bits: Any) -> Any:
        """The error on the hull at an entropy; nan below its least, and the least error above its greatest."""
        return np.interp(bits, self.bits[self.hull], self.mse[self.hull], left=np.nan)[()]

    def _lines(self) -> dict[str, str]:
        lines = {name: _number(getattr(self, name)) for name in ("scale", "bits", "mse")}
        return {
            "grid": str(self.grid.name or self.grid),
            **lines,
            "hull": f"{len(self.hull)} of {len(self.scale)} scales",
        }


@dataclasses.dataclass(frozen=True)
class Rung:
    """A rung of a loss ladder: its mean squared error (with the bracket it is known to lie in) and what is proven."""

    name: str
    mse: float
    status: Status
    bracket: tuple[float, float] | None = None


@dataclasses.dataclass(frozen=True, repr=False, eq=False)
class LossLadder:
    """What each step from Shannon's limit to a quantizer in use loses; made by `qerror.loss_ladder`.

    Attributes
    ----------
    format : str
    bits : float
        What the format stores a value.
    power : float
        E[x^2].
    rungs : tuple of Rung
        From the limit down to the scale in use.
    """

    format: str
    bits: float
    power: float
    rungs: tuple[Rung, ...]

    @property
    def sqnr_db(self) -> tuple[float, ...]:
        """10 log10(power / mse) of each rung."""
        return tuple(float(_decibels(self.power, rung.mse)) for rung in self.rungs)

    @property
    def lost_db(self) -> tuple[float, ...]:
        """What each rung but the first loses against the one before it, dB."""
        return tuple(float(_decibels(low.mse, high.mse)) for high, low in itertools.pairwise(self.rungs))

    @property
    def total_db(self) -> float:
        """From the limit to the last rung, dB: the sum of the steps."""
        return math.fsum(self.lost_db)

    @property
    def error_db(self) -> float:
        """What the first rung may be off by, dB, to either side: half the bracket of the limit."""
        bracket = self.rungs[0].bracket
        return 0.0 if bracket is None or bracket[0] <= 0 else 0.5 * float(_decibels(bracket[1], bracket[0]))

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        steps = zip(self.rungs, self.sqnr_db, (0.0, *self.lost_db), strict=True)
        rungs = [
            {"rung": rung.name, "mse": rung.mse, "sqnr_db": sqnr, "lost_db": lost, "status": rung.status.name}
            for rung, sqnr, lost in steps
        ]
        about = {"format": self.format, "bits": self.bits, "power": self.power}
        return {**about, "rungs": rungs, "total_db": self.total_db, "error_db": self.error_db}

    def __repr__(self) -> str:
        width = max(len(rung.name) for rung in self.rungs)
        lines = [f"LossLadder {self.format}, {self.bits:g} bits a value", f"  {'':{width}}  SQNR dB  lost dB"]
        for row in self.to_dict()["rungs"]:
            lost = " " * 7 if row["rung"] == self.rungs[0].name else f"{row['lost_db']:7.3f}"
            lines.append(f"  {row['rung']:{width}}  {row['sqnr_db']:7.3f}  {lost}  {row['status'].lower()}")
        return "\n".join([*lines, f"  {'in all':{width}}  {'':7}  {self.total_db:7.3f}"])

    def _repr_html_(self) -> str:
        rows = [
            (row["rung"], f"{row['sqnr_db']:.3f}", f"{row['lost_db']:.3f}", row["status"].lower())
            for row in self.to_dict()["rungs"]
        ]
        title = f"{self.format}, {self.bits:g} bits a value: {self.total_db:.3f} dB from Shannon's limit"
        return html_table(rows, ("", "SQNR dB", "lost dB", "status"), title)
