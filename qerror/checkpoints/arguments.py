"""What callers give for work on checkpoints, in the one plain form that goes into plans and to other processes."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterable, Mapping
from concurrent.futures import Executor
from typing import Any

import numpy as np

from .._check import as_int, shown
from ..grids.block_formats import BlockFormat, as_format
from ..grids.grid import Grid

_UNITS = {"": 1.0, "K": 1e3, "M": 1e6, "G": 1e9, "T": 1e12}


def texts(name: str, value: Any) -> tuple[str, ...]:
    """Texts, of which one may be given by itself, each once.

    Examples
    --------
    >>> texts("include", "*.weight"), texts("rule", ["minmax", "minmax"])
    (('*.weight',), ('minmax',))
    """
    found = (value,) if isinstance(value, str) or not isinstance(value, Iterable) else tuple(value)
    wrong = next((each for each in found if not isinstance(each, str)), None)
    if wrong is not None:
        raise ValueError(f"{name} must be a text or several, got {shown(wrong)}")
    return tuple(dict.fromkeys(str(each) for each in found))


def format_names(value: Any) -> tuple[str, ...]:
    """Names of formats; a Grid or BlockFormat stands for its name, where that names it."""
    several = not isinstance(value, str | Grid | BlockFormat) and isinstance(value, Iterable)
    return texts("grid", [_format_name(each) for each in (value if several else (value,))])


def _format_name(value: Any) -> Any:
    if not isinstance(value, Grid | BlockFormat):
        return value
    try:
        known = value.name is not None and as_format(value.name) == value
    except ValueError:
        known = False
    if not known:
        raise ValueError(
            f"grid must be the name of a format, got {shown(value)}, which has none: plans and other processes know "
            "formats by name; fit its tensors one by one with qerror.fit"
        )
    return value.name


def plain_options(options: Mapping[str, Any]) -> dict[str, Any]:
    """Options of `qerror.fit` as numbers and texts, without those that are None."""
    out: dict[str, Any] = {}
    for key, value in options.items():
        if value is None:
            continue
        if key in ("axis", "block_size", "block_axis"):
            several = isinstance(value, list | tuple | np.ndarray) and np.ndim(value) == 1
            out[key] = tuple(as_int(key, each) for each in value) if several else as_int(key, value)
        elif key == "shift" and not isinstance(value, str):
            if np.ndim(value) or not np.isreal(value):
                raise ValueError(f"shift must be one number for all tensors, mean or optimal, got {shown(value)}")
            out[key] = float(value)
        elif isinstance(value, str | bool | int | float):
            out[key] = value
        elif key == "scale_format" and isinstance(value, Grid):
            out[key] = _format_name(value)
        else:
            raise ValueError(f"{key} must be a text or a number for all tensors, got {shown(value)}")
    return out


def size_of(name: str, value: Any) -> float:
    """Bytes: a number, or a text as 500MB or 1.5 GB.

    Examples
    --------
    >>> size_of("memory", "1.5 GB"), size_of("memory", 2e9)
    (1500000000.0, 2000000000.0)
    """
    size = 0.0
    if isinstance(value, str):
        match = re.fullmatch(r"\s*([0-9.]+(?:e[0-9]+)?)\s*([KMGT]?)i?B?\s*", value, re.IGNORECASE)
        try:
            size = float(match[1]) * _UNITS[match[2].upper()] if match else 0.0
        except ValueError:
            size = 0.0
    elif isinstance(value, int | float | np.integer | np.floating) and not isinstance(value, bool):
        size = float(value)
    if not size > 0:
        raise ValueError(f"{name} must be a size such as 500MB or 4GB, got {shown(value)}")
    return size


def path_of(name: str, value: Any) -> str | os.PathLike[str]:
    """A path."""
    if isinstance(value, str | os.PathLike) and os.fspath(value):
        return value
    raise ValueError(f"{name} must be a path, got {shown(value)}")


def seconds_of(name: str, value: Any) -> float:
    """A positive number of seconds."""
    sound = isinstance(value, int | float | np.integer | np.floating) and 0 < value < math.inf
    if not sound:
        raise ValueError(f"{name} must be a positive number of seconds, got {shown(value)}")
    return float(value)


def check_executor(executor: Any) -> None:
    """Refuse what cannot take work."""
    if executor is not None and not (isinstance(executor, Executor) or callable(getattr(executor, "submit", None))):
        raise ValueError(
            f"executor must be a concurrent.futures.Executor, got {shown(executor)}; of Dask client.get_executor()"
        )
