"""Coercion of arguments and the texts of their errors.

Every function of the library that takes numbers from outside passes them through here, so that a bad
value is reported in one way everywhere: the argument is named, the value shown, the remedy said.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ._text import listed as listed
from ._text import listing
from ._text import near_names as near_names
from ._text import plain as plain
from ._text import shown as shown
from ._text import suggest as suggest

# Values that one array may be asked to hold: 128 GiB as float64.
MOST_VALUES = 1 << 34


def as_float_array(name: str, value: Any) -> NDArray[np.float64]:
    """Return `value` as a float64 array; shape and (for float64 input) memory are kept.

    Examples
    --------
    >>> as_float_array("scale", [1, 2])
    array([1., 2.])
    """
    value = readable(name, value)
    try:
        array = np.asarray(value)
    except ValueError as error:
        raise ValueError(f"{name} must be an array of real numbers with one shape: {error}") from None
    if array.dtype == np.float64:
        return array
    if not is_real_dtype(array.dtype):
        raise ValueError(f"{name} must be a real number or an array of real numbers, got {shown(value)}")
    try:
        return array.astype(np.float64)
    except (TypeError, ValueError):
        raise ValueError(f"{name} must be a real number or an array of real numbers, got {shown(value)}") from None


def readable(name: str, value: Any) -> Any:
    """Return what NumPy reads as it is meant: no masked elements, whose mask it would drop, and no gradients.

    A tensor of PyTorch comes back detached and on the host, in float32 where NumPy has not its type (bfloat16, float8):
    all of their values are float32 numbers.

    Examples
    --------
    >>> readable("x", np.ma.masked_less([1.0, -9.0], 0.0))
    Traceback (most recent call last):
        ...
    ValueError: x must have no masked elements, got 1 of 2; give x.compressed(), or x.data with weights=~x.mask
    """
    arrays = value if isinstance(value, list | tuple) else (value,)
    for array in arrays:
        if isinstance(array, np.ma.MaskedArray) and np.ma.is_masked(array):
            n_masked = int(np.count_nonzero(np.ma.getmaskarray(array)))
            remedy = f"{name}.compressed(), or {name}.data with weights=~{name}.mask"
            remedy = remedy if name == "x" else f"{name}.filled(...) with what stands for them"
            raise ValueError(f"{name} must have no masked elements, got {n_masked} of {array.size}; give {remedy}")
    return _on_host(name, value) if hasattr(value, "detach") and hasattr(value, "is_floating_point") else value


def _on_host(name: str, tensor: Any) -> NDArray[Any]:
    """The values of a PyTorch tensor."""
    try:
        plain_ = tensor.detach().cpu().resolve_conj().resolve_neg()
        try:
            return np.asarray(plain_.numpy())
        except TypeError:
            return np.asarray(plain_.float().numpy())
    except (RuntimeError, TypeError, NotImplementedError) as error:
        remedy = "give its values as a dense tensor of real numbers"
        raise ValueError(f"{name} cannot be read as an array: {plain(str(error))}; {remedy}") from None


def is_real_dtype(dtype: np.dtype[Any]) -> bool:
    """Tell whether a dtype holds real numbers: NumPy's, or those of ml_dtypes (bfloat16, float8_...).

    Examples
    --------
    >>> is_real_dtype(np.dtype(np.float16)), is_real_dtype(np.dtype("V2"))
    (True, False)
    """
    # Dtypes from outside NumPy have the kind of raw memory, but a scalar type of their own.
    foreign = dtype.kind == "V" and dtype.type is not np.void and "complex" not in dtype.name
    return foreign or dtype.kind in "fiub"


def check_finite(name: str, x: NDArray[Any]) -> None:
    """Raise unless every element of `x` is finite.

    Examples
    --------
    >>> check_finite("x", np.array([1.0, np.nan]))
    Traceback (most recent call last):
        ...
    ValueError: x must be finite, got 1 NaN of 2 values, the first is nan at index 1; remove or replace them
    """
    good = np.isfinite(x)
    if good.all():
        return
    first = np.unravel_index(int(np.argmin(good)), x.shape)
    n_nan = int(np.count_nonzero(np.isnan(x)))
    n_inf = int(good.size - np.count_nonzero(good)) - n_nan
    counts = " and ".join(f"{n} {word}" for n, word in ((n_nan, "NaN"), (n_inf, "infinite")) if n)
    where = f", the first is {float(x[first])}{_at(first)}" if x.ndim else ""
    total = f"{counts} of {x.size} value{'s' if x.size != 1 else ''}"
    raise ValueError(f"{name} must be finite, got {total}{where}; remove or replace them")


def check_positive(name: str, value: Any) -> NDArray[np.float64]:
    """Return `value` as a float64 array of positive, finite numbers.

    Examples
    --------
    >>> check_positive("std", -0.5)
    Traceback (most recent call last):
        ...
    ValueError: std must be positive and finite, got -0.5
    """
    array = as_float_array(name, value)
    good = (array > 0) & (array < np.inf)
    if not good.all():
        raise ValueError(f"{name} must be positive and finite, got {_first(array, good)}")
    return array


def check_scale(scale: Any, *, signed: bool = False, zero: bool = False) -> NDArray[np.float64]:
    """Return `scale` as a float64 array of positive, finite numbers; with `signed` they may be negative.

    With both they may be 0, too, as `zero` says.

    Examples
    --------
    >>> check_scale(0.5)
    array(0.5)
    """
    if not signed:
        return check_positive("scale", scale)
    array = as_float_array("scale", scale)
    good = np.isfinite(array) & (zero | (array != 0))
    if not good.all():
        raise ValueError(f"scale must be finite and not 0, got {_first(array, good)}")
    return array


def check_shift(shift: Any) -> NDArray[np.float64]:
    """Return `shift` as a float64 array of finite numbers.

    Examples
    --------
    >>> check_shift([0.0, -1.5])
    array([ 0. , -1.5])
    """
    array = as_float_array("shift", shift)
    good = np.isfinite(array)
    if not good.all():
        raise ValueError(f"shift must be finite, got {_first(array, good)}")
    return array


def broadcast_shape(density: tuple[int, ...], **arrays: NDArray[np.float64]) -> tuple[int, ...]:
    """The shape in which arrays (named as the user knows them) and a density broadcast."""
    try:
        return np.broadcast_shapes(density, *(array.shape for array in arrays.values()))
    except ValueError:
        said = " and ".join(f"{name} {array.shape}" for name, array in arrays.items())
        verb, last = "do" if len(arrays) > 1 else "does", next(iter(arrays))
        message = f"{said} {verb} not broadcast against the density {density}"
        raise ValueError(f"{message}; add axes of length 1, as in {last}[:, None]") from None


def check_zero_point(zero_point: Any, shift: Any) -> NDArray[np.float64]:
    """Return zero points as whole float64 numbers; they stand for the shift, which must be left at 0."""
    array = as_float_array("zero_point", zero_point)
    good = np.isfinite(array) & (array == np.rint(array))
    if not good.all():
        raise ValueError(f"zero_point must be integers, got {_first(array, good)}")
    if np.any(np.asarray(shift) != 0):
        raise ValueError(f"shift must be left at 0 where zero_point is given, got {shown(shift)}")
    return array


def as_int(name: str, value: Any, minimum: int | None = None, maximum: int | None = None) -> int:
    """Return `value` as an int within `minimum` .. `maximum` (both included).

    Examples
    --------
    >>> as_int("bits", np.int64(4), 1, 16)
    4
    """
    is_int = isinstance(value, (int, np.integer)) and not isinstance(value, (bool, np.bool_))
    if is_int and (minimum is None or value >= minimum) and (maximum is None or value <= maximum):
        return int(value)
    if minimum is not None and maximum is not None:
        bounds = f" from {minimum} to {maximum}"
    elif minimum is not None:
        bounds = f" of at least {minimum}"
    else:
        bounds = "" if maximum is None else f" of at most {maximum}"
    raise ValueError(f"{name} must be an integer{bounds}, got {shown(value)}")


def check_choice(name: str, value: Any, choices: Sequence[str]) -> str:
    """Return `value` if it is one of `choices`.

    Examples
    --------
    >>> check_choice("rounding", "up", ["nearest", "stochastic"])
    Traceback (most recent call last):
        ...
    ValueError: rounding must be 'nearest' or 'stochastic', got 'up'
    """
    if isinstance(value, str) and value in choices:
        return value
    raise ValueError(f"{name} must be {listing(choices)}, got {shown(value)}")


def as_rng(rng: Any) -> np.random.Generator:
    """Return a NumPy Generator made from a seed, or the Generator given.

    Examples
    --------
    >>> float(as_rng(1).random()) == float(as_rng(1).random())
    True
    """
    if isinstance(rng, np.random.Generator):
        return rng
    if rng is None:
        return np.random.default_rng()
    if isinstance(rng, (int, np.integer)) and not isinstance(rng, bool) and rng >= 0:
        return np.random.default_rng(int(rng))
    raise ValueError(f"rng must be a non-negative integer, a numpy.random.Generator or None, got {shown(rng)}")


def _at(index: tuple[Any, ...]) -> str:
    if not index:
        return ""
    place = ", ".join(str(int(i)) for i in index)
    return f" at index {place}" if len(index) == 1 else f" at index ({place})"


def _first(array: NDArray[np.float64], good: NDArray[np.bool_]) -> str:
    """Describe the first bad element: its value, its place, and how many there are if more than one."""
    index = np.unravel_index(int(np.argmin(good)), array.shape) if array.ndim else ()
    n_bad = int(array.size - np.count_nonzero(good))
    more = f" ({n_bad} such values of {array.size})" if n_bad > 1 else ""
    return f"{float(array[index])}{_at(index)}{more}"
